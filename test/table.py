"""table.py - the paper's table on a real language model: SmolLM2-135M, sentence encoders, real text, by ttmm alone.

    make smollm-table                    all corpora that are there; TABLE="data python" some of them. It says how many
                                         tokens are to be trained on, and goes on where it was interrupted
    python test/table.py [CORPUS ...]    in the root, after make smollm and make encoder have fetched models

Corpora: data (data/); python (18 packages of Python 3.11's standard library, TABLE_PYTHON=folder with train/, test/);
guide (Debian's installation guide in 19 languages, its package installation-guide-amd64); kernel (the Linux kernel's
documentation, linux-doc-6.1, files of 3 to 16 KB). Whole documents are held out. What is learned with which seed lies
in test/build/table; a corpus's table is printed after each run, and is in test/build/table/CORPUS.tsv. Python only
starts ./train and ./run and adds up what run eval --each wrote:
    perplexity       exp of the mean loss of a token, the mean over seeds; its standard error over prompts, of the first
    seeds            the standard deviation over seeds (of experts and baseline; the clusters are the same)
    to finetuned     the mean of (loss - the loss of the baseline with the same seed) of a token, over seeds, on the
                     same prompts, and its standard error over prompts
    seconds, faster  median time of a prompt before its first token can be computed; how many times TTT's with mpnet
    where ttt ran    the perplexity on those prompts alone that TTT was run on
test/tune.py is where most settings come from."""
import collections, csv, functools, glob, gzip, html, json, math, os, re, statistics, subprocess, sys

from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

HERE, END = "test/build/table", "<|endoftext|>"
MODEL = os.environ.get("SMOLLM_MODEL", "test/build/smollm/model")
ENCODERS = os.environ.get("ENCODERS", "test/build/encoder")
NAMES = {"mpnet": "all-mpnet-base-v2", "minilm": "all-MiniLM-L6-v2", "built-in": None}
# K experts, passes and rate; the baseline's; beta of encoders and of the built-in embedding; TTT's neighbours, passes,
# rate. Chosen on documents held out of the training part, by test/tune.py (guide with the embedding that routes there,
# by), K of data by test/curves.py. Not so: K of the others, the built-in beta, which is the default, guide's other one.
SETTINGS = {"data": dict(K=5, experts=(2, 4e-3), finetune=(2, 2e-3), beta=(0.3, 0.12), ttt=(20, 3, 1e-3)),
            "python": dict(K=18, experts=(1, 2e-3), finetune=(1, 1e-3), beta=(0.5, 0.12), ttt=(50, 1, 1e-3)),
            "guide": dict(K=19, experts=(2, 2e-3), finetune=(1, 1e-3), beta=(0.3, 0.12), ttt=(50, 1, 1e-3),
                          by="built-in"),
            "kernel": dict(K=100, experts=(2, 1e-3), finetune=(1, 1e-3), beta=(0.5, 0.12), ttt=(50, 1, 1e-3))}
RUNS = [("mpnet", 1), ("mpnet", 2), ("mpnet", 3), ("minilm", 1), ("built-in", 1)]  # encoder and seed
PROMPTS, TTT_PROMPTS = 64, 16  # at most, evenly spaced among all


def call(program, *words):
    print("  ./" + " ".join(map(str, (program, *words)))[:150], flush=True)
    subprocess.run([f"./{program}", *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def write(where, texts):
    """{file: documents} into a folder; the files' names."""
    os.makedirs(where, exist_ok=True)
    for name, documents in texts.items():
        text = (END + "\n").join(d.strip("\n") + "\n" for d in documents)
        open(f"{where}/{name}.txt", "w", encoding="utf-8").write(text)
    return [f"{where}/{name}.txt" for name in sorted(texts)]


def documents(corpus, part):
    """(file, document) after document of train or test."""
    for path in files(corpus, part):
        for text in filter(str.strip, re.split(f"(?m)^{re.escape(END)}$", open(path, encoding="utf-8").read())):
            yield os.path.basename(path)[:-4], text


def split(corpus):
    """Its training part in two, {file: documents} each: every fifth document is held out, to choose settings by; of
    guide every fifth page, in all languages: its translations say the same, and are partly still English."""
    fit, held, seen = {}, {}, collections.Counter()
    for file, text in documents(corpus, "train"):
        counted = file if corpus == "guide" else "all"
        seen[counted] += 1
        (held if seen[counted] % 5 == 3 else fit).setdefault(file, []).append(text)
    return fit, held


def package(where, name):
    """The documentation in a Debian package."""
    os.makedirs(where, exist_ok=True)
    get = f"rm -f {name}_*.deb; apt-get download -qq {name} && dpkg -x {name}_*.deb ."
    if subprocess.run(get, shell=True, cwd=where).returncode:
        sys.exit(f"table.py: Debian's package {name} cannot be had: apt-get update?")
    return f"{where}/usr/share/doc/{name}"


def corpus_of(name, make):
    """The folder of a corpus, whole or not at all: make() gives {"train": {file: documents}, "test": ...}."""
    where = f"{HERE}/{name}"
    if not os.path.exists(where):
        for part, texts in make(f"{where}.part").items():
            write(f"{where}.part/{part}", texts)
        os.rename(f"{where}.part", where)
    return where


def guide(where):
    """Pages of Debian's installation guide, a file a language, the same pages in each (those of 600 to 8,000 characters
    in English): of every eight three to train on, the fifth to test on."""
    root, part = package(f"{where}/package", "installation-guide-amd64"), {"train": {}, "test": {}}

    def read(path):
        text = re.sub(r'(?s)<head>.*?</head>|<div class="nav.*?</div>', "", open(path, encoding="utf-8").read())
        text = html.unescape(re.sub(r"<[^>]*>", "", re.sub(r"<(p|h\d|li|pre|tr|dt|dd)\b", r"\n<\1", text)))
        return re.sub(r"\s*\n\s*", "\n", text).strip()

    pages = [path for path in sorted(glob.glob(f"{root}/en/*.html")) if 600 <= len(read(path)) <= 8000]
    for language in sorted(os.listdir(root)):
        for i, page in enumerate(os.path.basename(path) for path in pages):
            if i % 2 == 0:  # every language has every page: split() counts on it
                of = part["test" if i % 8 == 4 else "train"]
                of.setdefault(language, []).append(read(f"{root}/{language}/{page}"))
    return part


def kernel(where):
    """Files of the kernel's documentation, by top folder: of every nine the first and the fifth to train on, of every
    18 the last to test on."""
    root, part = f'{package(f"{where}/package", "linux-doc-6.1")}/Documentation', {"train": {}, "test": {}}
    files = []
    for path in glob.glob(f"{root}/**/*.rst*", recursive=True):
        name = os.path.relpath(path, root)
        if re.search(r"\.rst(\.gz)?$", name) and not re.match("translations/|(.*/)?index", name):
            text = (gzip.open(path) if path.endswith("gz") else open(path, "rb")).read().decode().strip() + "\n"
            files += [(name.split("/")[0], name, text)] if 3000 <= len(text) <= 16000 else []
    for i, (top, name, text) in enumerate(sorted(files)):
        if i % 18 == 17 or i % 9 in (0, 4):
            part["test" if i % 18 == 17 else "train"].setdefault(top, []).append(text)
    return part


def texts(corpus):
    """Its folder with train/ and test/."""
    return {"data": lambda: "data", "python": lambda: os.environ["TABLE_PYTHON"],
            "guide": lambda: corpus_of("guide", guide), "kernel": lambda: corpus_of("kernel", kernel)}[corpus]()


def files(corpus, part):
    return sorted(glob.glob(f"{texts(corpus)}/{part}/*.txt"))


def encoder(name):
    return ["--encoder", f"{ENCODERS}/{NAMES[name]}"] if NAMES[name] else []


def link(target, path):
    if not os.path.lexists(path):
        os.symlink(os.path.abspath(target), path)


def base_in(where):
    """A model folder of its own around the base, which stays where it is."""
    os.makedirs(where, exist_ok=True)
    for file in "config.json", "tokenizer.json", "model.safetensors":
        link(f"{MODEL}/{file}", f"{where}/{file}")
        if not os.path.samefile(f"{MODEL}/{file}", f"{where}/{file}"):
            sys.exit(f"table.py: {where}/{file} is of another model than {MODEL}: remove {HERE}, or move it away")
    return where


def indexed(where, texts, name, *words):
    """A model folder with the index of these files. (What is done ./train skips, here and below; of other texts or
    settings it makes it anew, or says that it depends on what is there.)"""
    call("train", "index", base_in(where), *texts, *encoder(name), *words)
    return where


def train(what, where, passes, rate, seed):
    """Its experts or its baseline."""
    call("train", what, where, "--rank", 16, "--epochs", passes, "--expert-lr", rate, "--seed", seed)


@functools.cache
def with_experts(where, index, K, passes, rate, seed=1):
    """A model folder with K experts of the text that another has indexed; the clusters are the same for all seeds."""
    link(f"{index}/corpus.safetensors", f"{base_in(where)}/corpus.safetensors")
    call("train", "cluster", where, "--experts", K)
    train("experts", where, passes, rate, seed)
    return where


@functools.cache
def folder(corpus, name, seed):
    """A model folder with the experts and the baseline of a run."""
    s, index = SETTINGS[corpus], indexed(f"{HERE}/{corpus}-{name}-1", files(corpus, "train"), name)
    where = with_experts(f"{HERE}/{corpus}-{name}-{seed}", index, s["K"], *s["experts"], seed)
    if name == "mpnet":  # the baseline knows nothing of embeddings
        train("finetune", where, *s["finetune"], seed)
    else:
        link(f"{HERE}/{corpus}-mpnet-{seed}/finetuned", f"{where}/finetuned")
    return where


def whole_texts(corpus, name):
    """Embeddings of the whole of each prompt's sequence, what is to be predicted included: the route of somebody who
    knows it."""
    context = min(1024, json.load(open(f"{MODEL}/config.json"))["max_position_embeddings"])  # as run eval cuts
    where = indexed(f"{HERE}/{corpus}-{name}-whole", files(corpus, "test"), name, "--context", context)
    text = load_file(f"{where}/corpus.safetensors")
    longer = text["sequence_offsets"][1:] - text["sequence_offsets"][:-1] > 50
    save_file({"embeddings": text["embeddings"][longer]}, f"{where}/query.safetensors")
    return ["--query", f"{where}/query.safetensors"]


def evaluate(corpus, name, seed, rows, kind, *words):
    """Lines of run eval --only rows --each: {method: {prompt: (tokens, nll, seconds)}}"""
    s, each = SETTINGS[corpus], f"{HERE}/{corpus}-{name}-{seed}{kind}.each"
    neighbours, passes, rate = s["ttt"]
    call("run", "eval", folder(corpus, name, seed), *files(corpus, "test"), "--beta", s["beta"][name == "built-in"],
         "--only", rows, "--each", each, "--tsv", each[:-len("each")] + "tsv", "--prompts", PROMPTS, "--ttt-prompts",
         TTT_PROMPTS, "--neighbours", neighbours, "--passes", passes, "--ttt-lr", rate, "--seed", seed, *words)
    found = {}
    for line in open(each):
        prompt, _, method, *numbers = line.rstrip("\n").split("\t") if line.count("\t") == 7 else [""] * 8
        if prompt.isdigit():
            found.setdefault(method, {})[int(prompt)] = int(numbers[2]), float(numbers[3]), float(numbers[4])
    return found


def perplexity(scores):
    """Of {prompt: (tokens, nll, seconds)}: exp(sum nll / sum tokens), and its standard error over prompts."""
    n, total = sum(x[0] for x in scores.values()), sum(x[1] for x in scores.values())
    spread = sum((x[1] - x[0] * total / n) ** 2 for x in scores.values()) * len(scores) / max(1, len(scores) - 1)
    return math.exp(total / n), math.exp(total / n) * math.sqrt(spread) / n


def difference(scores, others):
    """The mean of a token's loss less the others' on the same prompts, and its standard error over prompts."""
    same = [(x[0], x[1] - others[p][1]) for p, x in scores.items() if p in others]
    n, mean = sum(t for t, _ in same), sum(d for _, d in same) / sum(t for t, _ in same)
    return mean, math.sqrt(sum((d - t * mean) ** 2 for t, d in same) * len(same) / max(1, len(same) - 1)) / n


def mean(runs):
    """Scores with the mean of the runs' losses."""
    return {p: (x[0], statistics.mean(run[p][1] for run in runs)) for p, x in runs[0].items()}


def table(corpus):
    """Run after run, the table of what there is so far: {row: {seed: scores}}."""
    found, ours = {}, "ttmm-1,ttmm-3,ttmm-10,ttmm,ensemble-10"
    for name, seed in RUNS:
        first = (name, seed) == RUNS[0]
        rows = ["base"] * first + ["finetuned"] * (name == "mpnet") + [ours, "uniform"] + ["ttt"] * (seed == 1)
        runs = [("", evaluate(corpus, name, seed, ",".join(rows), "", *encoder(name)))]
        if first:
            runs += [(", SIFT", evaluate(corpus, name, seed, "ttt", "-sift", *encoder(name), "--select", "sift")),
                     (", told the text", evaluate(corpus, name, seed, ours, "-whole", *whole_texts(corpus, name)))]
        for kind, methods in runs:
            for method, scores in methods.items():
                row = method if method in ("base", "finetuned") else f"{method}{kind} ({name})"
                found.setdefault(row, {})[seed] = scores
        show(corpus, found)


def show(corpus, found):
    ttt = next(seeds for row, seeds in found.items() if row.startswith("ttt"))[1]
    slow = statistics.median(x[2] for x in ttt.values())
    base = next(csv.DictReader(open(f"{HERE}/{corpus}-mpnet-1.tsv"), delimiter="\t"))
    bits = float(base["bpb"]) / math.log(float(base["ppl"]))  # a byte, of one of the loss
    lines = ["row\tperplexity\terror\tseeds\tto finetuned\terror\tbits/byte\tseconds\tfaster\twhere ttt ran"]
    for row, seeds in found.items():
        values = [perplexity(x)[0] for x in seeds.values()]
        first = seeds[min(seeds)]
        seconds = statistics.median(x[2] for x in first.values())
        cells = [statistics.mean(values), perplexity(first)[1], statistics.stdev(values) if len(values) > 1 else None,
                 *difference(mean(list(seeds.values())), mean([found["finetuned"][seed] for seed in seeds])),
                 bits * math.log(statistics.mean(values)) if len(first) > len(ttt) else None]
        lines.append("\t".join([row, *("-" if x is None else f"{x:.3f}" for x in cells), f"{seconds:.3f}",
                                f"{slow / seconds:.0f}" if seconds else "-",
                                f"{perplexity({p: first[p] for p in ttt if p in first})[0]:.3f}"]))
    open(f"{HERE}/{corpus}.tsv", "w").write("\n".join(lines) + "\n")
    print("\n".join(" ".join(f"{cell:>13}" if i else f"{cell:30}" for i, cell in enumerate(line.split("\t")))
                    for line in lines), flush=True)


def plan(corpus):
    """Tokens that are to be trained on; TTT is run once for each embedding, and once more, selected by SIFT."""
    s, tokenizer = SETTINGS[corpus], Tokenizer.from_file(f"{MODEL}/tokenizer.json")
    n = sum(len(tokenizer.encode(open(f, encoding="utf-8").read()).ids) for f in files(corpus, "train"))
    each = s["experts"][0] * len(RUNS) + s["finetune"][0] * sum(name == "mpnet" for name, _ in RUNS)
    return n * each + 4 * TTT_PROMPTS * s["ttt"][0] * s["ttt"][1] * 250


if __name__ == "__main__":
    os.makedirs(HERE, exist_ok=True)
    for path in f"{MODEL}/model.safetensors", *(f"{ENCODERS}/{name}/modules.json" for name in NAMES.values() if name):
        if not os.path.exists(path):
            sys.exit(f"table.py: {path} is not there: make smollm-table fetches it; else SMOLLM_MODEL=, ENCODERS=")
    if "python" in sys.argv and "TABLE_PYTHON" not in os.environ:
        sys.exit("table.py: python is a folder with train/*.txt and test/*.txt: TABLE_PYTHON= says where")
    wanted = sys.argv[1:] or ["data"] + ["python"] * ("TABLE_PYTHON" in os.environ) + ["guide", "kernel"]
    for corpus in wanted:
        print(f"{corpus}: some {plan(corpus) / 1e6:.1f} million tokens to train on, "
              f"{plan(corpus) / 450 / 3600:.1f} hours at 450 tokens a second (two cores of a Zen 5; half of that "
              "on a Zen 4); evaluation takes about 40 % more", flush=True)
        table(corpus)
