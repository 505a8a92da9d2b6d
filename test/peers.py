"""peers.py - proves that ttmm answers as Hugging Face transformers, PEFT, tokenizers and the authors' ttmerge do.

    make peers                        all of it, in a virtual environment of its own
    python test/peers.py [PART...]    in the root, after make;   PEERS_DATA=DIR: more text (*.txt) for the tokenizers

part        what is drawn                                      what must agree                           tolerance
logits      Llama and Qwen2 checkpoints of any shape, rotary   run trace: logits                         2e-5
            scaling, form of config.json, type, shards; PEFT   run trace --adapter: logits               2e-5
            adapters of any matrices, ranks, alphas, patterns
routing     such models, 3 to 12 experts, centroids, queries   run route, run trace: experts             equal
                                                               ... their weights, similarities           1e-5
                                                               ... merged logits, dense and lowrank      5e-5
writing     what run merge writes as f32, f16 and bf16;        transformers' greedy tokens, its config   equal
            a model of train all                               f32 weights against those ttmerge merged  1e-6
                                                               f16, bf16 against torch's rounding        the bits
tokenizers  byte-level BPE in the forms of GPT-2, Llama 3      run tokenize: ids, of text and of every   equal
            and Qwen2.5                                        code point; run generate: decoded text
steps       pre_tokenizers of Digits, Split and ByteLevel in    run tokenize: ids; generate: decoded text   equal
            any order, bytes without a token, decoders
beside      tokens that tokenizer_config.json, added_tokens.   run tokenize: transformers' ids, or the     equal
            json, special_tokens_map.json name; ids past the   text is refused, which holds such a token
            model's vocabulary
ids         checkpoints without a tokenizer, through train     trained adapters' logits in PEFT          2e-5
            index --ids, cluster, experts, run eval --ids      run eval: perplexity                      1e-5
foreign     checkpoints with such a tokenizer, through train   trained adapters' logits in PEFT          2e-5
            index, cluster, experts and finetune               run eval: perplexity, bits per byte       1e-5
heads       a head stored although the config says tied:       logits; what run merge writes             2e-5
            another, the same, coarser, alone; two files
adapters    every initialisation, untrained and trained;       logits, or a refusal by name              2e-5
            targets, exclusions, layers; names in memory
json        keys and names with escapes, NaN, keys twice;      logits, or a refusal by name              2e-5
            llama3's original length at either level
tensors     tensors nobody reads, of all types, long names     logits; run compare of every type         2e-5, equal
folders     bases with and without each file, one after        what arrives, what stays; notes           equal
            the other into one folder

Errors are max |difference| / max |value|; of weights and similarities max |difference|. All is drawn from fixed seeds.
transformers and PEFT compute in float32 with eager attention; that they round rotary angles is most of the error.
ttmerge 0.0.4 cannot stack experts of different ranks: it gets them padded with zeros. transformers cannot rotate heads
of odd width: there are none."""
import contextlib, json, math, os, random, re, shlex, shutil, subprocess, sys, time, unicodedata, warnings
from glob import glob
from types import SimpleNamespace

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

warnings.filterwarnings("ignore")
logging.disable_progress_bar()
torch.set_num_threads(1)
torch.set_grad_enabled(False)

WORK, END, BEGIN = "test/build/peers", "<|endoftext|>", "<|begin_of_text|>"
MATRICES = [f"self_attn.{m}_proj" for m in "qkvo"] + [f"mlp.{m}_proj" for m in ("gate", "up", "down")]
passed = failed = 0
worst = {}  # the part's largest error of every kind


@contextlib.contextmanager
def case(what):
    """One configuration: prints its line; whatever is raised in it, a refusal by ./run too, counts it as failed."""
    global passed, failed
    notes = []
    try:
        yield notes
        passed += 1
    except Exception as e:
        failed += 1
        what, notes = f"FAILED {what}", notes + [f"{type(e).__name__}: {e}"]
    print(f"{what}: {'; '.join(notes)}", flush=True)


def need(condition, text):
    if not condition:
        raise AssertionError(text)


def within(notes, kind, found, expected, tolerance, relative=True):
    need(found.shape == expected.shape, f"{kind}: shape {list(found.shape)}, expected {list(expected.shape)}")
    error = (found.double() - expected.double()).abs().max().item() if len(found) else 0.0
    error /= expected.abs().max().item() if relative else 1
    notes.append(f"{kind} {error:.1e}")
    worst[kind] = error if math.isnan(error) else max(error, worst.get(kind, 0))
    need(error <= tolerance, f"more than {tolerance:g}")


def first_difference(a, b):
    return next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))


def call(*words):
    """Runs ./run or ./train; its standard output."""
    command = ["./" + words[0], *map(str, words[1:]), "--quiet"]
    done = subprocess.run(command, capture_output=True, timeout=250)
    need(done.returncode == 0, f"{shlex.join(command)}: status {done.returncode}, {done.stderr.decode()[-600:]}")
    return done.stdout.decode()


def trace(*words):
    call("run", "trace", *words, "-o", f"{WORK}/trace.safetensors")
    return load_file(f"{WORK}/trace.safetensors")


def write(path, content):
    with open(path, "w", encoding="utf-8", newline="") as f:
        f.write(content if isinstance(content, str) else json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return path


def prompt(ids):
    return "--ids", write(f"{WORK}/prompt.ids", " ".join(map(str, ids)) + "\n")


def table(path):
    lines = [line.split("\t") for line in open(path).read().splitlines()]
    return [dict(zip(lines[0], line)) for line in lines[1:]]


def normal(r, *shape, scale=1.0):
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(r.getrandbits(40)))


# ---- Models and adapters ---------------------------------------------------------------------------------------------

def draw_config(r, kind=None, rope=None, **fixed):
    """What is in a config.json, in one of the many forms there are; a description, where ! marks a width of its own."""
    kind, rope = kind or r.choice(["llama", "qwen2"]), rope or r.choice(["default", "linear", "llama3"])
    heads, own, old = r.randint(1, 4), r.random() < 0.5, r.random() < 0.5
    kv = r.choice([g for g in range(1, heads + 1) if heads % g == 0])
    width = 2 * r.randint(1, 12) if own else 2 * r.randint(-(-8 // heads), 32 // heads)
    c = dict(model_type=kind, architectures=[{"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}[kind]],
             hidden_size=heads * (r.randint(-(-16 // heads), 64 // heads) if own else width), num_attention_heads=heads,
             num_key_value_heads=kv, intermediate_size=r.randint(16, 96), num_hidden_layers=r.randint(1, 3),
             vocab_size=r.randint(50, 300), max_position_embeddings=r.choice([64, 128, 2048]), hidden_act="silu",
             rms_norm_eps=r.choice([1e-5, 1e-6, 1e-3, 0.0123]), tie_word_embeddings=r.random() < 0.5)
    if own or r.random() < 0.5:
        c["head_dim"] = width if own or kind == "qwen2" else r.choice([width, None])
    if kv == heads and r.random() < 0.5:  # left out, transformers' Qwen2 has 32
        c.update({"num_key_value_heads": None}) if kind == "qwen2" else c.pop("num_key_value_heads")
    if not c["tie_word_embeddings"] and r.random() < 0.5:
        del c["tie_word_embeddings"]
    theta = r.choice([10000, 500000.0, 1000000, round(10 ** r.uniform(2, 6), 2)])
    linear, names = dict(factor=r.choice([2, 4.0, 8, round(r.uniform(1.1, 40), 3)])), ["type", "rope_type"]
    llama3 = dict(linear, low_freq_factor=r.choice([1, 1.0, round(r.uniform(0.5, 2), 2)]),
                  high_freq_factor=r.choice([4, 4.0, round(r.uniform(2.1, 9), 2)]),
                  original_max_position_embeddings=r.choice([16, 32, 50]))
    scaling = dict(default={}, linear=linear, llama3=llama3)[rope]
    if not old:
        c["rope_parameters"] = {"rope_theta": theta, "rope_type": rope, **scaling}
    elif rope != "default" or r.random() < 0.3:
        c.update(rope_scaling={**dict.fromkeys(r.sample(names, r.randint(1, 2)), rope), **scaling}, rope_theta=theta)
    else:
        c.update(r.choice([{}, {"rope_scaling": None}, {"rope_theta": theta}]))
    harmless = dict(_name_or_path="somebody/model", transformers_version="4.45.0", use_cache=True, bos_token_id=1,
                    a_key_of_my_own={"a": [1, {"b": None}, "\u00e9\n"], "c": -1.5e-3}, attention_dropout=0.0,
                    initializer_range=0.02, torch_dtype="bfloat16", eos_token_id=r.choice([3, [5, 7], [4]]))
    harmless.update(dict(attention_bias=False, mlp_bias=False, pretraining_tp=1) if kind == "llama" else dict(
        use_sliding_window=False, sliding_window=r.choice([None, 4096]), max_window_layers=21))
    c.update({k: harmless[k] for k in r.sample(list(harmless), r.randint(0, len(harmless)))}, **fixed)
    about = (f"{kind} {c['hidden_size']}x{c['num_hidden_layers']} heads {heads}/{kv}x{width}{'!' * own} vocab "
             f"{c['vocab_size']} {'tied' if c.get('tie_word_embeddings') else 'untied'} eps {c['rms_norm_eps']:g} "
             f"{' '.join([rope] + [f'{v:g}' for v in scaling.values()])} theta "
             f"{c.get('rope_theta', 'absent') if old else theta}{' old' * old}")
    return dict(r.sample(list(c.items()), len(c))), about


def read_model(folder, dtype=torch.float32):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager").eval()


def make_model(r, folder, config, dtype=torch.float32, shards=None):
    """A checkpoint of random weights with this config.json; the model, as transformers reads it back."""
    os.makedirs(folder)
    write(f"{folder}/config.json", config)
    model, std = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder)), r.uniform(0.1, 0.2)
    for name, p in model.named_parameters():
        p.data = normal(r, *p.shape, scale=0.2 if "norm" in name else std) + ("norm" in name)
    model.to(dtype).save_pretrained(folder, **({"max_shard_size": shards} if shards else {}))
    need(shards != "5KB" or os.path.exists(f"{folder}/model.safetensors.index.json"), "no shards were made")
    write(f"{folder}/config.json", config)
    return read_model(folder)


def logits(model, ids):
    return model(torch.tensor([ids])).logits[0]


def draw_adapter(r, folder, base, rank=None):
    """A PEFT adapter of a checkpoint; a description. rank: of that rank and one alpha, as ttmerge takes them."""
    names = r.sample(MATRICES, r.randint(1, 7))
    config = dict(r=rank or r.randint(1, 9), lora_alpha=r.choice([1, 3, 8, 16]), target_modules=names)
    if not rank:
        def pattern(values):
            full = [f"layers.{layer}.{n}" for layer in range(3) for n in names]
            return {r.choice([n, "model." + n, n.split(".", 2)[2], n.split(".")[-1]]): r.choice(values)
                    for n in r.sample(full, r.randint(0, len(full)))}
        config.update(use_rslora=r.random() < 0.4, lora_dropout=0.1, rank_pattern=pattern(range(1, 12)),
                      target_modules=r.choice([names, [n.split(".")[-1] for n in names]]),
                      alpha_pattern=pattern([1, 2, 5, 16, 3.5]) if r.random() < 0.5 else {})
    model = get_peft_model(read_model(base), LoraConfig(task_type="CAUSAL_LM", **config))
    for name, p in model.named_parameters():
        if "lora_" in name:
            p.data = normal(r, *p.shape, scale=0.1 if "lora_B" in name else p.shape[1] ** -0.5)
    model.save_pretrained(folder)
    if not rank:  # PEFT sorts the patterns as it writes; of those that fit the first counts: it must stay the first
        path, dtype = f"{folder}/adapter_model.safetensors", r.choice([torch.float32, torch.bfloat16, torch.float16])
        save_file({n: t.to(dtype) for n, t in load_file(path).items()}, path, {"format": "pt"})
        patterns = {k: config[k] for k in ("rank_pattern", "alpha_pattern")}
        write(f"{folder}/adapter_config.json", {**json.load(open(f"{folder}/adapter_config.json")), **patterns})
    return (f"{len(names)} matrices r {config['r']} alpha {config['lora_alpha']} patterns "
            f"{[len(config[k]) for k in config if 'pattern' in k]}{' rslora' * config.get('use_rslora', 0)}")


def part_logits():
    for i in range(60):
        r = random.Random(f"logits {i}")
        folder, (config, about) = f"{WORK}/logits/{i}", draw_config(r)
        dtype = r.choice([torch.float32, torch.float32, torch.float16, torch.bfloat16, torch.float64])
        shards = r.choice([None, "5KB", "30KB"]) if config["hidden_size"] > 24 else None
        ids = [r.randrange(config["vocab_size"]) for _ in range(r.randint(30, 200))]
        with case(f"logits {i}: {about} {str(dtype)[6:]}, shards {shards}, {len(ids)} tokens") as notes:
            model = make_model(r, folder, config, dtype, shards)
            within(notes, "logits", trace(folder, *prompt(ids))["logits"], logits(model, ids), 2e-5)
            if i % 2:
                notes.append(draw_adapter(r, f"{folder}/adapter", folder))
                expected = logits(PeftModel.from_pretrained(model, f"{folder}/adapter"), ids)
                found = trace(folder, *prompt(ids), "--adapter", f"{folder}/adapter")["logits"]
                within(notes, "with adapter", found, expected, 2e-5)


# ---- Routing and merging against ttmerge -----------------------------------------------------------------------------

def draw_experts(r, folder, base, K, ranks):
    """K adapters in numbered folders; the folder for ttmerge, with zeros to the largest rank."""
    given = [r.choice(ranks) for _ in range(K)]
    for k in range(K):
        draw_adapter(r, f"{folder}/{k}", base, given[k])
        shutil.copytree(f"{folder}/{k}", f"{folder}-padded/{k}")
        path, more = f"{folder}-padded/{k}/adapter_model.safetensors", max(given) - given[k]
        save_file({n: torch.nn.functional.pad(t, (0, 0, 0, more) if "lora_A" in n else (0, more)).contiguous()
                   for n, t in load_file(path).items()}, path)
    return f"{folder}-padded"


def draw_route(r, folder, K, special=None):
    """Centroids and a query, as words for ./run and as ttmerge takes them. No weight is so near tau, or another at the
    cut of max, that rounding could decide. special: no weight is above tau; more than max; below what floats hold."""
    while True:
        E = r.choice([8, 16, 64, 384])
        centroids = torch.nn.functional.normalize(normal(r, K, E) + normal(r, 1, E, scale=0.5), dim=1)
        query = normal(r, E, scale=0.3 / E ** 0.5)
        for k in r.sample(range(K), r.randint(1, K)):
            query += r.uniform(0.2, 1) * centroids[k]
        query *= 10 ** r.uniform(-2, 2)
        beta = {"none": 1.0, "many": 0.8, "tiny": 0.02}.get(special) or r.uniform(0.15, 0.6)
        tau = {"none": 0.5, "many": 0.0}.get(special, r.choice([0.01, 0.01, 0.05, 0.2]))
        most = r.randint(1, K - 1) if special == "many" else r.choice([50, 50, 3])
        distance = 1 - centroids.double() @ query.double() / query.double().norm()
        weights = torch.softmax(-distance / beta ** 2, 0)
        w, above = weights.sort(descending=True).values.tolist(), int((weights > tau).sum())
        clear = (weights - tau).abs().min() > 1e-4 and (above <= most or w[most - 1] - w[most] > 1e-4)
        if {"none": clear and above == 0, "many": clear and above > most, None: clear and above > 0,
                "tiny": distance.min() > 0.05 and w[0] > 0.99999}[special]:
            break
    os.makedirs(folder, exist_ok=True)
    name = r.choice(["embeddings", "centroids", "x", "mpnet.wikipedia/\u03c6"])
    save_file({name: centroids}, f"{folder}/centroids.safetensors")
    save_file({"embedding": query}, f"{folder}/query.safetensors")
    return (["--query", f"{folder}/query.safetensors", "--centroids", f"{folder}/centroids.safetensors", "--experts",
             f"{folder}/experts", "--beta", beta, "--tau", tau, "--max", most],
            dict(expert_embeddings=centroids, beta=beta, tau=tau, max_merge_count=most), query)


def ttmerge(model, where, settings, query, ids):
    """What ttmerge chooses, with which weights; the parameters it merges, and their logits."""
    from ttmerge import TestTimeMergingModel  # here, as smollm.py needs all but this
    stub = SimpleNamespace(encode=lambda text, **_: query, decode=lambda ids, **_: "")
    merger = TestTimeMergingModel(tokenizer=stub, encoder=stub, base_model=model, adapter_location=where, device="cpu",
                                  **settings)
    merge, it = merger._efficient_merge_adapters, SimpleNamespace(experts=[], weights=torch.tensor([]))

    def wrapped(experts, weights):
        it.experts, it.weights, names = experts, torch.tensor(weights), merge(experts, weights)
        it.merged = {n: p.detach().clone() for n, p in model.named_parameters()}
        return names

    merger._efficient_merge_adapters = wrapped
    it.logits = merger(torch.tensor([ids])).logits[0]
    return it


def same_route(notes, words, settings, query, it):
    """run route and run trace of these words against ttmerge."""
    notes.append(f"{len(it.experts)} chosen")
    call("run", "route", *words, "--tsv", f"{WORK}/route.tsv")
    rows = sorted(table(f"{WORK}/route.tsv"), key=lambda row: int(row["expert"]))
    found = [int(row["expert"]) for row in rows]
    need(found == it.experts, f"run route chose {found}, expected {it.experts}")
    within(notes, "weights", torch.tensor([float(row["weight"]) for row in rows]), it.weights, 1e-5, relative=False)
    similarity = settings["expert_embeddings"] @ torch.nn.functional.normalize(query, dim=0)
    for how in "dense", "lowrank":
        found = trace(*words, "--route", "--merge", how)
        need(found["experts"].tolist() == it.experts, f"trace chose {found['experts'].tolist()}, expected {it.experts}")
        within(notes, "weights", found["weights"], it.weights, 1e-5, relative=False)
        within(notes, "similarity", found["similarity"], similarity, 1e-5, relative=False)
        within(notes, how, found["logits"], it.logits, 5e-5)


def part_routing():
    for i in range(24):
        r = random.Random(f"routing {i}")
        special, K = {3: "none", 7: "many", 11: "tiny", 13: "many"}.get(i), r.randint(3, 12)
        folder = f"{WORK}/routing/{i}"
        ranks, (config, about) = r.sample(range(1, 9), 1 if i % 2 else 4), draw_config(r)
        words, settings, query = draw_route(r, folder, K, special)
        with case(f"routing {i}: {about}, {K} experts of ranks {','.join(map(str, ranks))} beta {settings['beta']:.3g} "
                  f"tau {settings['tau']:g} max {settings['max_merge_count']}") as notes:
            model = make_model(r, f"{folder}/base", config)
            where = draw_experts(r, f"{folder}/experts", f"{folder}/base", K, ranks)
            ids = [r.randrange(config["vocab_size"]) for _ in range(r.randint(30, 120))]
            it = ttmerge(model, where, settings, query, ids)
            same_route(notes, [f"{folder}/base", *prompt(ids), *words], settings, query, it)


# ---- Written models --------------------------------------------------------------------------------------------------

SAME = ("model_type architectures hidden_size intermediate_size num_hidden_layers num_attention_heads vocab_size "
        "num_key_value_heads max_position_embeddings rms_norm_eps hidden_act tie_word_embeddings rope_parameters "
        "eos_token_id attention_bias mlp_bias use_sliding_window").split()


def hard_to_round(r, *shape):
    """Numbers of all sizes, many of them half way between two of float16 or bfloat16, or subnormal there."""
    whole = [r.randrange(1 << r.randint(1, 14)) + r.choice([0, 0.5, 0.5, 0.49, 0.51]) for _ in range(math.prod(shape))]
    return torch.tensor([r.choice([-1, 1]) * w * 2.0 ** r.randint(-30, -13) for w in whole]).reshape(shape)


def settled(config, key):
    """A value of a config, in the one form in which two can be compared."""
    value = getattr(config, key, None) or False
    if key == "eos_token_id":
        return value if isinstance(value, list) else [value]
    return {k: v for k, v in value.items() if k != "type"} if isinstance(value, dict) else value


def written(notes, words, out, it, ids, ends):
    """What run merge of these words writes into out/f32, out/f16, out/bf16; what is generated from it."""
    was = AutoConfig.from_pretrained(words[0])
    for name, dtype in ("f32", torch.float32), ("f16", torch.float16), ("bf16", torch.bfloat16):
        call("run", "merge", *words, "--dtype", name, "-o", f"{out}/{name}")
        tensors = {n: t for path in glob(f"{out}/{name}/*.safetensors") for n, t in load_file(path).items()}
        need(set(tensors) == set(it.merged), f"{name}: missing or extra: {sorted(set(tensors) ^ set(it.merged))}")
        exact = tensors if name == "f32" else exact
        for n, t in tensors.items():
            need(t.dtype == dtype, f"{name}: {n} is {t.dtype}")
            rounded, bits = exact[n].to(dtype), torch.int16 if dtype.itemsize == 2 else torch.int32
            off = torch.nonzero((t.view(bits) != rounded.view(bits)).flatten()).flatten().tolist()[:1]
            need(not off, f"{name}: {n}{off} is {t.flatten()[off].tolist()}, expected {rounded.flatten()[off].tolist()}"
                 f" of {exact[n].flatten()[off].tolist()}")
        model, now = read_model(f"{out}/{name}", "auto"), AutoConfig.from_pretrained(f"{out}/{name}")
        need(model.dtype == dtype, f"{name}: transformers reads it as {model.dtype}")
        for key in SAME:
            a, b = settled(was, key), settled(now, key)
            need(a == b, f"{name}: config.json, {key}: {b}, expected {a}")
    notes.append("f16, bf16 to the bit")
    for n, t in exact.items():
        within([], "merged weights", t, it.merged[n], 1e-6 if "_proj.weight" in n else 0)
    model, one = read_model(f"{out}/f32"), dict(pad_token_id=0, attention_mask=torch.ones(1, len(ids)))
    want = model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=20, **one)[0][len(ids):].tolist()
    for way in [f"{out}/f32", *words[1:3]], words, [*words, "--merge", "lowrank"]:
        found = call("run", "generate", *way, "--temperature", 0, "--tokens", 20, "--print-ids").split()
        found = [int(x) for x in found] + want[len(found):] * (want[-1] in ends and len(found) == len(want) - 1)
        need(found == want, f"run generate {shlex.join(map(str, way))}: {found}, expected {want}")
    notes.append(f"{len(want)} tokens{', the last an end' if want[-1] in ends else ''}")


def part_writing():
    for i in range(10):
        r = random.Random(f"writing {i}")
        folder, ends = f"{WORK}/writing/{i}", [3] if i < 4 else r.sample(range(40), 8)
        rope = ["llama3", "linear", "llama3", "default", "linear"][i // 2]
        config, about = draw_config(r, ["llama", "qwen2"][i % 2], rope, max_position_embeddings=128,
                                    eos_token_id=3 if i < 4 else ends)
        words, settings, query = draw_route(r, folder, 4)
        with case(f"writing {i}: {about}, ends {ends}") as notes:
            make_model(r, f"{folder}/base", config)
            path = f"{folder}/base/model.safetensors"
            tensors = load_file(path)
            tensors["model.embed_tokens.weight"][8:] = hard_to_round(r, config["vocab_size"] - 8, config["hidden_size"])
            save_file(tensors, path, {"format": "pt"})
            where = draw_experts(r, f"{folder}/experts", f"{folder}/base", 4, [2, 3])
            ids = [r.randrange(config["vocab_size"]) for _ in range(r.randint(10, 60))]
            it = ttmerge(read_model(f"{folder}/base"), where, settings, query, ids)
            written(notes, [f"{folder}/base", *prompt(ids), *words], f"{folder}/out", it, ids, ends)
    with case("writing: a model of train all, in transformers, PEFT and ttmerge") as notes:
        out = f"{WORK}/writing/all"
        call("train", "all", out, *sorted(glob("data/train/*.txt"))[:5], *"--steps 5 --experts 3 --epochs 1 --dim 32 "
             "--layers 1 --heads 2 --intermediate 48 --context 64".split())
        tokenizer, model = AutoTokenizer.from_pretrained(out), read_model(out)
        text = "na\u00efve \u4f60\u597d \U0001f984\r\n\t x  \u0301 \0\u007f don't " + "".join(map(chr, range(1, 700)))
        need(tokenizer(text).input_ids == list(text.encode()), "AutoTokenizer: ids are not the UTF-8 bytes")
        need(tokenizer.decode(list(text.encode())) == text, "AutoTokenizer: the bytes are not decoded to the text")
        ends = tokenizer.eos_token, tokenizer.eos_token_id, model.config.eos_token_id, tokenizer(f"a{END}b").input_ids
        need(ends == (END, 256, 256, [97, 256, 98]), f"AutoTokenizer: the end token is {ends}")
        ids = list(open("data/test/garden.txt", "rb").read()[:60])
        words = [out, *prompt(ids)]
        within(notes, "logits", trace(*words)["logits"], logits(model, ids), 2e-5)
        for adapter in f"{out}/experts/0", f"{out}/finetuned":
            expected = logits(PeftModel.from_pretrained(read_model(out), adapter), ids)
            within(notes, "with adapter", trace(*words, "--adapter", adapter)["logits"], expected, 2e-5)
        centroids = next(iter(load_file(f"{out}/centroids.safetensors").values()))
        query, beta = 2 * centroids[2] + 1.5 * centroids[0] + centroids[1], 0.4
        settings = dict(expert_embeddings=centroids, beta=beta)
        save_file({"embedding": query}, f"{out}/query.safetensors")
        it = ttmerge(model, f"{out}/experts", settings, query, ids)
        same_route(notes, [*words, "--query", f"{out}/query.safetensors", "--beta", beta], settings, query, it)


# ---- Tokenizers ------------------------------------------------------------------------------------------------------

SPLIT = (r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"""
         r"""|\s*[\r\n]+|\s+(?!\S)|\s+""")  # of Llama 3; GPT-2's is what ByteLevel has
ADDED = ["<think>", "</think>", "<tool", "<tool_call>", "two words  and more ", "caf\u00e9!", "\u00c5x", "zz", "zzz"]
UNMADE = [" governmentally", "abcab", "yyyy", " yq", "]];\n"]  # in the vocabulary, though no merges need lead there


def make_tokenizer(form, folder, texts, size, strings, ignore_merges, across=False):
    """A tokenizer.json as that family's folders have it, read back by tokenizers. across: trained on whole texts, so
    that it has merges across where words are cut, by which a wrong cut shows."""
    t = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    split = pre_tokenizers.Split(Regex(SPLIT if form == "llama3" else SPLIT.replace("{1,3}", "")), "isolated")
    in_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    words = pre_tokenizers.Sequence([split, in_bytes])
    if form == "gpt2":
        words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    t.pre_tokenizer = in_bytes if across else words
    t.decoder, t.post_processor = decoders.ByteLevel(), processors.ByteLevel(trim_offsets=False)
    if form == "qwen2":
        t.normalizer = normalizers.NFC()
    first = [END] if form == "gpt2" else []  # there it is in the vocabulary, too
    t.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=size, show_progress=False, special_tokens=first,
                                                     initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    t.pre_tokenizer = words
    full = json.loads(t.to_str())
    vocabulary = full["model"]["vocab"]
    for word in UNMADE:
        vocabulary.setdefault(word.replace(" ", "\u0120").replace("\n", "\u010a"), len(vocabulary))
    t = Tokenizer.from_str(json.dumps(full))
    normalized = form == "gpt2"  # as its file has it
    t.add_special_tokens([AddedToken(c, normalized=normalized, special=True) for c in (END, BEGIN, "<|im_end|>")])
    t.add_tokens([AddedToken(c, normalized=False, special=False) for c in ADDED])
    if form == "llama3":
        begin = processors.TemplateProcessing(single=f"{BEGIN}:0 $A:0", pair=f"{BEGIN}:0 $A:0 {BEGIN}:1 $B:1",
                                              special_tokens=[(BEGIN, t.token_to_id(BEGIN))])
        t.post_processor = processors.Sequence([t.post_processor, begin])
    full = json.loads(t.to_str())
    if strings:  # as older files are
        full["model"]["merges"] = [" ".join(m) for m in full["model"]["merges"]]
        if not ignore_merges:
            del full["model"]["ignore_merges"], full["model"]["byte_fallback"]
        if form == "gpt2":
            full["model"].update(continuing_subword_prefix="", end_of_word_suffix="")
            del full["pre_tokenizer"]["use_regex"]
    return Tokenizer.from_file(write(f"{folder}/tokenizer.json", full))


def set_ends(r, folder, config, ends):
    """In config.json, or in generation_config.json, which has the last word."""
    last = r.random() < 0.5
    write(f"{folder}/config.json", {**config, "eos_token_id": 1 if last else ends})
    write(f"{folder}/generation_config.json", {"eos_token_id": ends} if last else {})


def documents_of(path):
    text = open(path, encoding="utf-8", newline="").read()
    return [d for d in re.split(r"(?m)^<\|endoftext\|>\r?(?:\n|\Z)", text) if d]


def write_documents(path, documents):
    """All but the last must end in a newline, since the separators are lines; none may hold a zero or such a line."""
    documents = [re.sub(r"(?m)^<\|endoftext\|>(\r?)$", r"<\1", d.replace("\0", "")) for d in documents]
    documents = [d if d.endswith("\n") else d + "\n" for d in documents[:-1]] + documents[-1:]
    need(documents_of(write(path, f"{END}\n".join(documents))) == documents, f"{path} is not as it was meant")
    return path


def fuzz(r, words, n):
    """Documents of what is hard for a tokenizer."""
    def span(*ranges):
        return [chr(c) for a, b in ranges for c in range(a, b + 1) if unicodedata.category(chr(c)) not in ("Cs", "Cn")]

    def some(pool, most=6):
        return "".join(r.choices(pool, k=r.randint(1, most)))
    points, classes = span((1, 0x10ffff)), ("L", "N", "M", "PS")
    letters, numbers, marks, signs = ([c for c in points if unicodedata.category(c)[0] in kind] for kind in classes)
    composed = [c for c in letters if unicodedata.decomposition(c)]
    accents = span((0x300, 0x36f), (0x5b0, 0x5c7), (0x64b, 0x655), (0x1dc0, 0x1dff), (0x20d0, 0x20f0))
    space = " \t\n\r\x0b\x0c\x1c\x1f\x85\xa0\u1680\u2000\u2003\u200a\u2028\u2029\u202f\u205f\u3000\u200b\ufeff\u180e"
    emoji, joiners = span((0x1f300, 0x1faff), (0x2600, 0x27bf)), "\u200d\ufe0f\U0001f3fb\U0001f3ff\U0001f1e6\U0001f1ff"
    jamo, hangul = span((0x1100, 0x11ff), (0xa960, 0xa97c), (0xd7b0, 0xd7fb)), span((0xac00, 0xd7a3))
    compatible, han = span((0xf900, 0xfb4f), (0x2f800, 0x2fa1f), (0x3300, 0x33ff)), span((0x4e00, 0x9fff))
    quotes = [f"'{e}" for e in "s t re ve m ll d S T RE Ve rE M lL D \u017f \u017fs r l v x '".split()] + ["\u2019s"]
    special = ADDED + UNMADE + [END, BEGIN, "<|im_end|>", "<|endoftext|", "<tool_cal", "cafe\u0301!", "A\u030ax"]
    pools = [(words, 1), (words, 3), (space, 6), ("\r\n", 6), (" \n", 4), (numbers, 6), ("0123456789", 9), (signs, 6),
             ("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", 5), (marks, 6), (composed, 6), (jamo, 6), (compatible, 3), (han, 6),
             (letters, 6), (emoji, 3), (emoji + list(joiners) * 99, 6), (special, 2), (points, 3), (hangul, 3)]
    pieces = [lambda: " " + r.choice(words), lambda: r.choice(words).upper() + r.choice(quotes),
              lambda: r.choice(words) + r.choice(quotes) + r.choice(["it", "so", r.choice(words)]),
              lambda: r.choice(words) + r.choice(special) + r.choice(words), lambda: r.choice(special) * 2,
              lambda: "".join(c + some(accents, 3) for c in some("aeiouAEOnscgq\u00e9\u01b0\u0131", 3)),
              lambda: unicodedata.normalize(r.choice(["NFD", "NFKD"]), some(composed + hangul)),
              lambda: "".join(chr(c) for c in [r.randrange(1, 0x110000)] if not 0xd800 <= c < 0xe000),
              lambda: r.choice(" \na=\u00e9\u4e001\U0001f600.\t\u0301z") * r.randint(1, 200)]
    pieces += [lambda pool=pool, most=most: some(pool, most) for pool, most in pools]
    return ["".join(r.choice(pieces)() for _ in range(r.randint(1, 40))) for _ in range(n)]


def same_ids(folder, tokenizer, end, path):
    """run tokenize of a file against tokenizers, document by document; the number of tokens."""
    documents, tokens = documents_of(path), 0
    call("run", "tokenize", folder, "--file", path, "-o", f"{WORK}/ids.txt")
    lines = open(f"{WORK}/ids.txt").read().splitlines()
    need(len(lines) == len(documents), f"{path}: {len(lines)} documents, expected {len(documents)}")
    for d, (line, text) in enumerate(zip(lines, documents)):
        encoded = tokenizer.encode(text)
        found, expected = list(map(int, line.split())), encoded.ids + [end] * (encoded.ids[-1:] != [end])
        tokens += len(expected)
        if found != expected:
            i = first_difference(found, expected)
            at = encoded.offsets[i][0] if i < len(encoded.ids) else len(text)
            need(False, f"{path}: document {d}, token {i}, character {at}, {ascii(text[max(0, at - 8):at])} before "
                 f"{ascii(text[at:at + 12])}: {found[i:i + 6]}, expected {expected[i:i + 6]}")
    return tokens


def part_tokenizers():
    data, train, more = sorted(glob("data/*/*.txt")), sorted(glob("data/train/*.txt")), []
    if os.environ.get("PEERS_DATA"):
        more = sorted(glob(os.path.join(os.environ["PEERS_DATA"], "**/*.txt"), recursive=True))
    os.makedirs(f"{WORK}/tokenizers")
    texts = [open(f, encoding="utf-8").read() for f in train + more[::4]]
    r, words = random.Random("fuzz"), re.findall(r"\w+", "".join(texts[:len(train)]))
    documents = fuzz(r, sorted(set(words)), 3000)
    fuzzed = [write_documents(f"{WORK}/tokenizers/fuzz{i}.txt", documents[i:i + 100]) for i in range(0, 3000, 100)]
    points = [chr(c) for c in range(1, 0x110000) if not 0xd800 <= c < 0xe000]
    points = [f"a{c}b {c}" for c in points] + [d for c in points if (d := unicodedata.normalize("NFD", c)) != c]
    every = ["".join(points[i:i + 1000]) for i in range(0, len(points), 1000)]
    every = [write_documents(f"{WORK}/tokenizers/every.txt", every)]
    repeated = "x,\u00e9, ,\n,12,ab,=,e\u0301,\u0301,'s,\u1100\u1161,z,\r,y, 1".split(",") + [END]
    runs = [write_documents(f"{WORK}/tokenizers/runs.txt", [c * 10000 for c in repeated])]
    for i, (form, strings, ignore_merges, size) in enumerate([
            ("gpt2", True, False, 2000), ("llama3", False, True, 2100), ("qwen2", False, False, 1900),
            ("llama3", True, False, 3000), ("qwen2", True, False, 3000), ("gpt2", False, True, 3000)]):
        folder, r = f"{WORK}/tokenizers/{i}", random.Random(f"tokenizers {i}")
        about = f"tokenizers {i}: {form} {size}, {'strings' if strings else 'pairs'}{', ignore_merges' * ignore_merges}"
        kind = "qwen2" if form == "qwen2" else "llama"
        config, _ = draw_config(r, kind, vocab_size=size + 40, max_position_embeddings=512)
        make_model(r, folder, config)
        t = make_tokenizer(form, folder, texts if i < 3 else documents, size, strings, ignore_merges, i >= 3)
        end = t.token_to_id(END)
        set_ends(r, folder, config, r.choice([end, [end, t.token_to_id("<|im_end|>")]]))
        some = dict(data=data, fuzz=fuzzed, runs=runs)
        for name, files in (dict(some, more=more, every=every) if i < 3 else some).items():
            if not files:
                continue
            with case(f"{about}: {name}, {len(files)} files") as notes:
                notes.append(f"{sum(same_ids(folder, t, end, path) for path in files)} tokens")
        with case(f"{about}: decoded") as notes:
            for k in range(20):
                known = t.encode(r.choice(documents)[:100]).ids
                ids = known if k % 2 else [r.randrange(size + 40) for _ in range(30)]
                words = ["generate", folder, *prompt(ids), "--no-experts", "--temperature", 0, "--tokens", 5]
                ids += [int(x) for x in call("run", *words, "--print-ids").split()]
                found, expected = call("run", *words), t.decode(ids, skip_special_tokens=True) + "\n"
                i = first_difference(found, expected)
                need(found == expected, f"{ids}: {ascii(found[i:i + 20])}, expected {ascii(expected[i:i + 20])}")
            notes.append("20 texts")


# ---- Checkpoints from elsewhere, through all stages ------------------------------------------------------------------

def perplexity(model, tokenizer, end, documents, prefix):
    """Of documents shorter than the context, as run eval has it: perplexity and bits per byte."""
    loss = tokens = size = 0
    for ids in [tokenizer.encode(d).ids + [end] for d in documents]:
        if len(ids) > prefix:
            p = torch.log_softmax(logits(model, ids[:-1]).double(), 1)
            loss -= sum(p[i - 1, ids[i]].item() for i in range(prefix, len(ids)))
            tokens += len(ids) - prefix
            size += sum(len(tokenizer.id_to_token(i)) for i in ids[prefix:-1])  # the byte alphabet: a character each
    return torch.tensor([[math.exp(loss / tokens)], [loss / math.log(2) / size]], dtype=torch.float64)


def part_foreign():
    for kind, form in ("llama", "llama3"), ("qwen2", "qwen2"), ("llama", "gpt2"):
        r, folder = random.Random(f"foreign {form}"), f"{WORK}/foreign/{form}"
        rope = "linear" if form == "gpt2" else "llama3"
        config, about = draw_config(r, kind, rope, vocab_size=640, max_position_embeddings=512)
        with case(f"foreign: {about}, tokenizer of {form}") as notes:
            base, train = make_model(r, folder, config), [f"data/train/{f}.txt" for f in ("garden", "c", "french")]
            texts = [open(path).read() for path in train]
            t = make_tokenizer(form, folder, texts, 600, form == "gpt2", form == "llama3")
            end = t.token_to_id(END)
            set_ends(r, folder, config, [end, t.token_to_id("<|im_end|>")])
            tsv, settings = f"{WORK}/summary.tsv", ["--rank", 2, "--epochs", 1]
            for words in (["index", folder, *train, "--context", 64], ["cluster", folder, "--experts", 3],
                          ["experts", folder, *settings], ["finetune", folder, *settings]):
                call("train", *words, "--tsv", tsv)
                for row in table(tsv):
                    need(math.isfinite(float(row["loss"])), f"train {words[0]}: loss {row['loss']}")
                    notes += [f"{row['stage']} loss {float(row['loss']):.3f}"] if float(row["loss"]) else []
            ids = t.encode(open("data/test/garden.txt").read()[:400]).ids
            words = [folder, *prompt(ids)]
            within(notes, "logits", trace(*words)["logits"], logits(base, ids), 2e-5)
            for adapter in f"{folder}/experts/0", f"{folder}/experts/2", f"{folder}/finetuned":
                tuned = PeftModel.from_pretrained(read_model(folder), adapter)
                need((logits(tuned, ids) - logits(base, ids)).abs().max() > 0.01, f"{adapter} alters nothing")
                within(notes, "with adapter", trace(*words, "--adapter", adapter)["logits"], logits(tuned, ids), 2e-5)
            lines = "".join(open(path.replace("train", "test")).read() for path in train).split("\n")
            test = write_documents(f"{WORK}/foreign/test.txt", [x for x in lines if len(x) > 20 and x != END])
            words = ["eval", folder, test, "--prefix", 10, "--ttt-prompts", 2, "--tsv"]
            call("run", *words, tsv)
            rows = {row["method"]: row for row in table(tsv)}
            os.rename(f"{folder}/experts", f"{folder}-experts")
            os.rename(f"{folder}/centroids.safetensors", f"{folder}-centroids")
            elsewhere = ["--experts", f"{folder}-experts", "--centroids", f"{folder}-centroids"]
            call("run", *words, tsv, *elsewhere)
            need([row["nll"] for row in table(tsv)] == [row["nll"] for row in rows.values()], "another table")
            methods = "base finetuned ttmm-1 ttmm-3 ttmm-10 ttmm ensemble-10 uniform ttt".split()
            need(list(rows) == methods, f"rows {list(rows)}")
            need(all(math.isfinite(float(row["ppl"])) for row in rows.values()), "a perplexity is not finite")
            for name, model in ("base", base), ("finetuned", tuned):
                for what, value in zip(("ppl", "bpb"), perplexity(model, t, end, documents_of(test), 10)):
                    within(notes, what, torch.tensor([float(rows[name][what])], dtype=torch.float64), value, 1e-5)
            for how in "--merge dense", "--merge lowrank", "--merge ensemble", "--ttt --neighbours 3 --passes 1":
                text = call("run", "generate", folder, "Plant the bulbs", "--tokens", 10, *how.split(), *elsewhere)
                need(text.startswith("Plant the bulbs"), f"generate {how}: {text!r}")


# ---- Files as people have them ---------------------------------------------------------------------------------------

def refusal(*words):
    """What a command says that must be refused."""
    command = ["./" + words[0], *map(str, words[1:]), "--quiet"]
    done = subprocess.run(command, capture_output=True, timeout=250, stdin=subprocess.DEVNULL)
    need(done.returncode in (2, 3), f"{shlex.join(command)}: status {done.returncode}, expected to be refused")
    return done.stderr.decode()


def said(*words):
    """Standard error, with notes."""
    done = subprocess.run(["./" + words[0], *map(str, words[1:])], capture_output=True, stdin=subprocess.DEVNULL)
    need(done.returncode == 0, f"{shlex.join(map(str, words))}: status {done.returncode}, {done.stderr.decode()}")
    return done.stderr.decode()


def draw_model(r, folder, **fixed):
    config, about = draw_config(r, **fixed)
    return config, about, make_model(r, folder, config), [r.randrange(config["vocab_size"]) for _ in range(40)]


def split(r, folder):
    """The checkpoint in two files, its tensors drawn between them."""
    tensors = load_file(f"{folder}/model.safetensors")
    place = {name: r.choice("ab") + ".safetensors" for name in tensors}
    for file in set(place.values()):
        save_file({n: t for n, t in tensors.items() if place[n] == file}, f"{folder}/{file}", {"format": "pt"})
    os.remove(f"{folder}/model.safetensors")
    write(f"{folder}/model.safetensors.index.json", {"metadata": {"total_size": 1}, "weight_map": place})


def part_heads():
    """A head that is stored although the config says tied: another, the same, coarser, or alone."""
    for i in range(24):
        r = random.Random(f"heads {i}")
        folder, how = f"{WORK}/heads/{i}", ["another", "same", "coarser", "alone"][i % 4]
        config, about, _, ids = draw_model(r, folder, tie_word_embeddings=True)
        with case(f"heads {i}: {about}, {how}{', two files' * (i // 4 % 2)}") as notes:
            path, embed, head = f"{folder}/model.safetensors", "model.embed_tokens.weight", "lm_head.weight"
            tensors = load_file(path)
            tensors[head] = {"another": lambda t: t + normal(r, *t.shape, scale=0.1), "coarser": torch.Tensor.bfloat16,
                             "same": torch.clone, "alone": torch.clone}[how](tensors[embed])
            if how == "alone":
                del tensors[embed]
            save_file(tensors, path, {"format": "pt"})
            if i // 4 % 2:
                split(r, folder)
            model = read_model(folder)
            within(notes, "logits", trace(folder, *prompt(ids))["logits"], logits(model, ids), 2e-5)
            draw_adapter(r, f"{folder}/experts/0", folder, 2)
            save_file({"embeddings": torch.eye(1, 8)}, f"{folder}/centroids.safetensors")
            query = f"{folder}/query.safetensors"
            save_file({"embedding": torch.ones(8)}, query)
            call("run", "merge", folder, "--query", query, "-o", f"{folder}/merged")
            need((head in load_file(f"{folder}/merged/model.safetensors")) == (how in ("another", "coarser")), "head")
            expected = logits(PeftModel.from_pretrained(model, f"{folder}/experts/0").merge_and_unload(), ids)
            within(notes, "merged", logits(read_model(f"{folder}/merged"), ids), expected, 2e-5)


def change(folder, to, **settings):
    """A copy of an adapter with other settings; None stays null, ... removes the key."""
    shutil.copytree(folder, to, dirs_exist_ok=True)
    config = {**json.load(open(f"{folder}/adapter_config.json")), **settings}
    write(f"{to}/adapter_config.json", {k: v for k, v in config.items() if v is not ...})
    return to


def part_adapters():
    """How an adapter was initialised, untrained and trained; which modules it touches; names of tensors."""
    r = random.Random("adapters")
    folder = f"{WORK}/adapters/base"
    config, about, _, ids = draw_model(r, folder, kind="llama", num_hidden_layers=3)
    base = logits(read_model(folder), ids)
    for init in [True, False, "gaussian", "eva", "orthogonal", "mica", "pissa", "pissa_niter_3", "olora", "lora_ga"]:
        with case(f"adapters: init_lora_weights {init}") as notes:
            model = get_peft_model(read_model(folder), LoraConfig(
                task_type="CAUSAL_LM", r=2, lora_alpha=4, target_modules=["q_proj", "up_proj"], init_lora_weights=init))
            for trained in False, True:
                path = f"{WORK}/adapters/{init}-{trained}"
                for name, p in model.named_parameters():
                    if trained and "lora_" in name:
                        p.data += normal(r, *p.shape, scale=0.1)
                model.save_pretrained(path)
                expected = logits(PeftModel.from_pretrained(read_model(folder), path), ids)
                words = ["run", "trace", folder, *prompt(ids), "--adapter", path, "-o", f"{WORK}/trace.safetensors"]
                if init in (True, False, "gaussian", "eva", "orthogonal", "mica"):
                    found = trace(*words[2:-2])["logits"]
                    within(notes, "trained" if trained else "untrained", found, expected, 2e-5)
                    need(trained or init is False or (found - base).abs().max() < 1e-5, "the untrained one is not base")
                else:
                    need("adapter_config.json: init_lora_weights is " in (s := refusal(*words)), s)
    for init in "corda", "loftq", "what_comes_next":
        with case(f"adapters: init_lora_weights {init}") as notes:
            path = change(f"{WORK}/adapters/True-True", f"{WORK}/adapters/{init}", init_lora_weights=init)
            s = refusal("run", "trace", folder, *prompt(ids), "--adapter", path, "-o", f"{WORK}/trace.safetensors")
            need(f'init_lora_weights is "{init}"' in s, s)
    full = f"{WORK}/adapters/full"
    model = get_peft_model(read_model(folder), LoraConfig(task_type="CAUSAL_LM", r=2, target_modules="all-linear"))
    for name, p in model.named_parameters():
        if "lora_" in name:
            p.data = normal(r, *p.shape, scale=0.2)
    model.save_pretrained(full)
    for i in range(60):
        r = random.Random(f"targets {i}")
        names = [f"layers.{r.randrange(3)}.{m}" if r.random() < 0.3 else r.choice([m, m.split(".")[1], m[-8:]])
                 for m in r.choices(MATRICES, k=r.randint(1, 5))]
        names += [f"model.layers.{r.randrange(3)}.{r.choice(MATRICES)}"] * r.randrange(2)
        layers = r.choice([None, None, [], 1, [0, 2], [2], [7, 1]])
        settings = dict(target_modules=r.choice([names] * 6 + [None, ..., "all-linear"]))
        if not isinstance(settings["target_modules"], str):
            settings.update(layers_to_transform=layers, layers_pattern=r.choice([None, "layers"]) if layers else None)
        settings["exclude_modules"] = r.choice([None, None, [], [r.choice(MATRICES)], ["layers.1.mlp.up_proj", "o_proj"]])
        if i >= 50:
            settings["target_modules"], settings["layers_to_transform"] = r".*\.(q|v)_proj", None
            settings["layers_pattern"] = None
        with case(f"adapters: {settings}") as notes:
            path = change(full, f"{WORK}/adapters/target{i}", **settings)
            words = ["run", "trace", folder, *prompt(ids), "--adapter", path, "-o", f"{WORK}/trace.safetensors"]
            try:
                expected = logits(PeftModel.from_pretrained(read_model(folder), path), ids)
            except ValueError as e:
                notes.append(f"{type(e).__name__}")
                need("target_modules" in (s := refusal(*words)), s)
                continue
            if i >= 50:
                need('target_modules is ".*' in (s := refusal(*words)), s)
                continue
            within(notes, "logits", trace(*words[2:-2])["logits"], expected, 2e-5)
            notes.append(f"off the base by {(expected - base).abs().max():.2f}")
    tensors, path = load_file(f"{full}/adapter_model.safetensors"), f"{WORK}/adapters/named"
    expected = logits(PeftModel.from_pretrained(read_model(folder), full), ids)
    words = ["run", "trace", folder, *prompt(ids), "--adapter", path, "-o", f"{WORK}/trace.safetensors"]
    for how in "default", "both", "deeper":
        with case(f"adapters: names, {how}") as notes:
            change(full, path)
            named = {n.replace(".weight", ".default.weight"): t for n, t in tensors.items()}
            more = {n.replace("layers.1", "layers.7"): t.clone() for n, t in tensors.items() if "layers.1" in n}
            changed = {"default": named, "both": {**tensors, **{n: t.clone() for n, t in named.items()}}, "deeper": {**tensors, **more}}[how]
            save_file(changed, f"{path}/adapter_model.safetensors", {"format": "pt"})
            if how == "default":
                within(notes, "logits", trace(*words[2:-2])["logits"], expected, 2e-5)
            else:
                need({"both": "twice", "deeper": "of layer 7, the model has layers 0 to 2"}[how] in (s := refusal(*words)), s)


def respell(r, value):
    """JSON of a value: some characters of its strings as escapes, as Python's json.dumps writes others than ASCII."""
    def text(s):
        return '"' + "".join(r.choice([f"\\u{ord(c):04x}", c]) if c.isalnum() else "\\/" if c == "/" else
                             json.dumps(c)[1:-1] for c in s) + '"'
    if isinstance(value, dict):
        return "{" + ", ".join(f"{text(k)}: {respell(r, v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(respell(r, v) for v in value) + "]"
    return text(value) if isinstance(value, str) else json.dumps(value)


def reheader(path, edit):
    """A safetensors file with another header."""
    data = open(path, "rb").read()
    n = int.from_bytes(data[:8], "little")
    header = edit(data[8:8 + n].decode()).encode()
    with open(path, "wb") as f:
        f.write(len(header).to_bytes(8, "little") + header + data[8 + n:])


def part_json():
    """Keys and names with escapes; NaN and Infinity where nobody reads them; keys twice; where llama3's length stands."""
    for i in range(20):
        r = random.Random(f"json {i}")
        folder = f"{WORK}/json/{i}"
        config, about, model, ids = draw_model(r, folder)
        with case(f"json {i}: {about}, spelled with escapes") as notes:
            draw_adapter(r, f"{folder}/adapter", folder)
            odd = {"caf\u00e9 \U0001f600": math.nan, "\u0001\"\\": [math.inf, {"a/b": -math.inf}]}
            if i % 3 == 0:
                split(r, folder)
            for path in glob(f"{folder}/**/*.json", recursive=True):
                content = json.load(open(path))
                write(path, respell(r, {**content, **({} if "adapter" in path else odd)}))
            for path in glob(f"{folder}/**/*.safetensors", recursive=True):
                reheader(path, lambda text: respell(r, json.loads(text)))
            model = read_model(folder)
            within(notes, "logits", trace(folder, *prompt(ids))["logits"], logits(model, ids), 2e-5)
            expected = logits(PeftModel.from_pretrained(model, f"{folder}/adapter"), ids)
            found = trace(folder, *prompt(ids), "--adapter", f"{folder}/adapter")["logits"]
            within(notes, "with adapter", found, expected, 2e-5)
            for path in glob(f"{folder}/**/*.json", recursive=True):
                text = open(path).read()
                key = respell(r, r.choice(list(json.loads(text))))
                write(path, text[:-1] + f", {key}: 1}}" if r.random() < 0.5 else f"{{{key}: 1, {text[1:]}")
                s = refusal("run", "trace", folder, *prompt(ids), "--adapter", f"{folder}/adapter", "-o", f"{WORK}/t")
                need(f"{path}: has the key" in s and "twice" in s, f"{path}: {s}")
                write(path, text)
    for i in range(20):
        r = random.Random(f"length {i}")
        folder, (config, about) = f"{WORK}/json/length{i}", draw_config(r, rope="llama3")
        inner = config.get("rope_scaling") or config["rope_parameters"]
        if r.random() < 0.3:
            del inner["original_max_position_embeddings"]
        if r.random() < 0.7:
            config["original_max_position_embeddings"] = r.choice([8, 20, 40])
        if "rope_parameters" in config and r.random() < 0.5:
            config["rope_scaling"] = r.choice([None, {}])
        with case(f"json: {about}, inner {inner.get('original_max_position_embeddings')}, outer "
                  f"{config.get('original_max_position_embeddings')}, {config.get('rope_scaling', 'no')}") as notes:
            ids = [r.randrange(config["vocab_size"]) for _ in range(60)]
            expected = logits(make_model(r, folder, config), ids)
            within(notes, "logits", trace(folder, *prompt(ids))["logits"], expected, 2e-5)


def save_as(types, path):
    """A safetensors file of {name: (type, values)}; types that safetensors.torch does not have are named afterwards."""
    plain = dict(U16=torch.int16, U32=torch.int32, U64=torch.int64, C64=torch.int64, F4=torch.int8)
    torch_types = dict(BOOL=torch.bool, I8=torch.int8, I16=torch.int16, I32=torch.int32, I64=torch.int64, U8=torch.uint8,
                       F8_E4M3=torch.float8_e4m3fn, F8_E5M2=torch.float8_e5m2, F16=torch.float16, F32=torch.float32)
    tensors = {}
    for name, (kind, values) in types.items():
        bits = 64 if kind in ("U64", "C64") else int(kind[1:]) if kind in plain else 0
        signed = [v - (v >> (bits - 1) << bits) for v in values] if bits else values
        tensors[name] = torch.tensor(signed).to(plain.get(kind) or torch_types[kind])
    save_file(tensors, path, {"format": "pt"})
    def rename(text):
        header = json.loads(text)
        for name, (kind, _) in types.items():
            header[name]["dtype"] = kind
        return json.dumps(header)
    reheader(path, rename)


def part_tensors():
    """Tensors that nobody reads; run compare of every type that safetensors has."""
    r = random.Random("tensors")
    folder, unknown = f"{WORK}/tensors/model", ["F8_E4M3", "F8_E5M2", "C64", "F4"]
    config, about, model, ids = draw_model(r, folder)
    kinds = ["BOOL", "I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64"] + unknown
    with case("tensors: that nobody reads") as notes:
        path = f"{folder}/model.safetensors"
        more = {f"odd.{k}": torch.ones(3, 2).to(k) for k in (torch.bool, torch.int8, torch.int16, torch.float8_e4m3fn)}
        more.update({"deep": torch.ones([1] * 12), "x" * 5000: torch.ones(2), "\u00e9/\"": torch.ones(2),
                     "empty": torch.ones(0, 3)})
        save_file({**load_file(path), **more}, path, {"format": "pt"})
        within(notes, "logits", trace(folder, *prompt(ids))["logits"], logits(read_model(folder), ids), 2e-5)
        save_as({f"odd.{k}": (k, [1, 0, 1]) for k in kinds}, f"{folder}/odd.safetensors")
        embed = "model.embed_tokens.weight"
        reheader(path, lambda text: text.replace('"F8_E4M3"', '"NEVER_SEEN"'))
        call("run", "trace", folder, *prompt(ids), "-o", f"{WORK}/t")
        reheader(path, lambda text: re.sub(rf'("{embed}":{{"dtype":)"F32"', r'\1"F8_E5M2"', text))
        s = refusal("run", "trace", folder, *prompt(ids), "-o", f"{WORK}/t")
        need(embed in s, s)
    for kind in kinds:
        with case(f"tensors: compare {kind}") as notes:
            bits = int(kind[1:]) if kind[0] in "IU" else 1
            low, high = (-1 << bits - 1, (1 << bits - 1) - 1) if kind[0] == "I" else (0, (1 << bits) - 1)
            a = [low, high, 0, 1] + [r.randint(low, high) for _ in range(8)]
            b, at = list(a), r.randrange(12)
            b[at] += 1 if b[at] < high else -1
            for name, values in ("a", a), ("b", b):
                save_as({"x": (kind, values), "y": ("F32", [1.0, 2.0])}, f"{WORK}/tensors/{name}")
            for other in "ab":
                done = subprocess.run(["./run", "compare", f"{WORK}/tensors/a", f"{WORK}/tensors/{other}"],
                                      capture_output=True, text=True)
                line = {x.split()[0]: x for x in done.stdout.split("\n")[1:] if x}
                need(line["y"].endswith("same"), done.stdout)
                verdict = "CANNOT BE READ" if kind in unknown else "same" if other == "a" else f" [{at}]  PAST THE TOL"
                need(verdict in line["x"] and f" {kind} [12]" in line["x"], done.stdout)
                need((done.returncode == 0) == (verdict == "same"), f"status {done.returncode}")
                notes.append(line["x"].split("  ")[-1])


def part_folders():
    """What run merge takes from the base's folder and leaves of an earlier one; notes; a route without a prompt."""
    def base(i, tokenizer, config, generation):
        r, folder = random.Random(f"folders {i}"), f"{WORK}/folders/{i}"
        config, about, model, ids = draw_model(r, folder, **config)
        for file in tokenizer:
            write(f"{folder}/{file}", file + f" of {i}")
        if generation is not None:
            write(f"{folder}/generation_config.json", generation)
        elif os.path.exists(f"{folder}/generation_config.json"):
            os.remove(f"{folder}/generation_config.json")
        for k in range(2):
            draw_adapter(r, f"{folder}/experts/{k}", folder, 2)
        save_file({"embeddings": torch.eye(2, 8)}, f"{folder}/centroids.safetensors")
        save_file({"embedding": torch.arange(8.0)}, f"{folder}/query.safetensors")
        return folder, config
    every = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
             "merges.txt", "chat_template.jinja"]
    one, config = base(1, every, dict(kind="llama", bos_token_id=7, pad_token_id=9, eos_token_id=[3, 5]), None)
    two, _ = base(2, every[:1], dict(kind="qwen2", bos_token_id=None, eos_token_id=4), {
        "repetition_penalty": 1.1, "top_k": 20, "eos_token_id": [6, 999], "use_cache": True, "top_p": None})
    three, _ = base(3, [], dict(kind="llama", eos_token_id=4), {})
    out = f"{WORK}/folders/out"
    for folder, files in (one, every), (two, every[:1] + ["generation_config.json"]), (three, ["generation_config.json"]):
        with case(f"folders: merged from {folder}") as notes:
            s = said("run", "merge", folder, "--query", f"{folder}/query.safetensors", "-o", out)
            need("experts merged in" in s, s)
            found = sorted(set(os.listdir(out)) - {"config.json", "model.safetensors"})
            need(found == sorted(files), f"{found}, expected {sorted(files)}")
            need(all(open(f"{out}/{f}").read() == open(f"{folder}/{f}").read() for f in found), "another content")
            a, b = read_model(folder), read_model(out)
            for key in "bos_token_id", "pad_token_id", "eos_token_id":
                pair = getattr(a.config, key), getattr(b.config, key)
                ends = key == "eos_token_id" and folder == two  # generation_config.json has the last word
                need(ends or pair[0] == pair[1], f"{key} {pair}")
                pair = getattr(a.generation_config, key), getattr(b.generation_config, key)
                need(pair[0] == pair[1], f"generation {key} {pair}")
                notes.append(f"{key} {pair[1]}")
    with case("folders: notes") as notes:
        words = ["generate", two, *prompt([1, 2, 3]), "--no-experts", "--tokens", 3]
        s = said("run", *words)
        need("repetition_penalty 1.1, top_k 20; eos_token_id 999 is past the vocabulary" in s and "top_p" not in s, s)
        s = said("run", "generate", three, *words[2:])
        need("no eos_token_id" in s, s)
        need("note" not in (s := said("run", "generate", one, *words[2:])) and "passed over" not in s, s)
    with case("folders: centroids") as notes:
        route = ["run", "route", one, "--query", f"{one}/query.safetensors"]
        need(said(*route) == "", "a note without a reason")
        save_file({"embeddings": 2 * torch.eye(2, 8)}, f"{one}/centroids.safetensors")
        need("row 0 has the squared length 4" in (s := said(*route)), s)
        save_file({"embeddings": torch.eye(3, 8)}, f"{one}/centroids.safetensors")
        need("experts/2: is missing" in (s := said(*route[:3], *route[3:], "--active", 1, "--beta", 1) if False else
             subprocess.run(["./run", *route[1:], "--active", "1"], capture_output=True, text=True).stderr), s)
        save_file({"embeddings": torch.eye(1, 8)}, f"{one}/centroids.safetensors")
        need("experts/1: will never be chosen" in (s := said(*route)), s)


# ---- Tokenizers in other forms, with other files beside them; token ids alone -----------------------------------------

FORMS = ["gpt2", "llama3", "qwen2"]
SPLITS = [SPLIT, SPLIT.replace("{1,3}", ""),
          r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"]


def reshape(r, folder):
    """Gives a tokenizer.json other steps, a decoder Sequence, and takes tokens of bytes away; a description."""
    full = json.load(open(f"{folder}/tokenizer.json"))
    model, level = full["model"], dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True)
    names = [c for c in pre_tokenizers.ByteLevel.alphabet()]
    gone = set(r.sample(sorted(names), r.choice([0, 3, 21, 60]))) - set(END + BEGIN)
    model["merges"] = [m for m in model["merges"] if not gone & set("".join(m))]
    kept = [w for w in model["vocab"] if not gone & set(w)]
    model.update(vocab={w: i for i, w in enumerate(kept)}, unk_token=r.choice([None, END, END]),
                 fuse_unk=r.random() < 0.5, byte_fallback=r.random() < 0.5)
    split = [dict(type="Split", pattern=dict(Regex=f), behavior="Isolated", invert=False) for f in SPLITS]
    digits = [dict(type="Digits", individual_digits=b) for b in (True, False)]
    steps = r.choices(split + digits * 2, k=r.randint(0, 3)) + [dict(level, use_regex=r.random() < 0.5)]
    full["pre_tokenizer"] = dict(type="Sequence", pretokenizers=steps) if len(steps) > 1 or r.random() < 0.5 else steps[0]
    others = [dict(type="ByteFallback"), dict(type="Fuse"), dict(type="Replace", pattern=dict(String="\u2581"), content=" ")]
    full["decoder"] = level if r.random() < 0.3 else dict(type="Sequence", decoders=r.sample(others, r.randint(0, 3)) + [level])
    full["added_tokens"] = [a for a in full["added_tokens"] if a["content"].isascii() and " " not in a["content"]]
    write(f"{folder}/tokenizer.json", full)
    return (f"{len(gone)} bytes without a token, unk {model['unk_token']}{' fused' * model['fuse_unk']}, "
            f"{' '.join(s['type'] + str(s.get('individual_digits', s.get('use_regex', ''))) for s in steps)}, decoder "
            f"{' '.join(d['type'] for d in full['decoder'].get('decoders', [level]))}")


def part_steps():
    texts = [open(f, encoding="utf-8").read() for f in sorted(glob("data/train/*.txt"))]
    words = sorted(set(re.findall(r"\w+", "".join(texts))))
    for i in range(30):
        r, folder = random.Random(f"steps {i}"), f"{WORK}/steps/{i}"
        config, _ = draw_config(r, vocab_size=1400, max_position_embeddings=512)
        with case(f"steps {i}") as notes:
            make_model(r, folder, config)
            documents = fuzz(r, words, 200)
            make_tokenizer(r.choice(FORMS), folder, texts[:2] + documents, 1200, False, r.random() < 0.5, True)
            notes.append(reshape(r, folder))
            t, path = Tokenizer.from_file(f"{folder}/tokenizer.json"), f"{folder}/fuzz.txt"
            end = t.token_to_id(END)
            set_ends(r, folder, config, end)
            notes.append(f"{same_ids(folder, t, end, write_documents(path, documents))} tokens")
            for _ in range(4):
                ids = [r.randrange(t.get_vocab_size()) for _ in range(30)]
                words_of = ["generate", folder, *prompt(ids), "--no-experts", "--temperature", 0, "--tokens", 5]
                ids += [int(x) for x in call("run", *words_of, "--print-ids").split()]
                found, expected = call("run", *words_of), t.decode(ids, skip_special_tokens=True) + "\n"
                need(found == expected, f"{ids}: {ascii(found)}, expected {ascii(expected)}")


def part_beside():
    """ttmm may refuse a text that holds a token which a file beside tokenizer.json names, or gives other flags; never
    another, and what it reads it reads as transformers does."""
    texts, read, refused = [open("data/train/garden.txt").read()], 0, 0
    for i in range(150):
        r, folder = random.Random(f"beside {i}"), f"{WORK}/beside/{i}"
        os.makedirs(folder)
        with case(f"beside {i}") as notes:
            t = make_tokenizer(r.choice(FORMS), folder, texts, 400, False, False)
            size = t.get_vocab_size() - r.choice([0, 0, 1, 5])
            write(f"{folder}/config.json", draw_config(r, "llama", vocab_size=size, eos_token_id=0)[0])
            full = json.load(open(f"{folder}/tokenizer.json"))
            for a in r.sample(full["added_tokens"], 2):  # ids that tokenizers does not give, flags of tokenizer.json
                a.update(r.choice([{}, {}, {"id": a["id"] + 3}, {r.choice(["lstrip", "rstrip", "single_word"]): True}]))
            write(f"{folder}/tokenizer.json", full)
            old = [a["content"] for a in full["added_tokens"]]
            new = ["<pad>", "<x>", "<|im|>", "e", "the", "<<", "caf\u00e9!!", "<|endoftext|><|endoftext|>"]

            def token(flags=None):
                name = r.choice(old + new)
                known = next((a for a in full["added_tokens"] if a["content"] == name), {})
                flags = {k: known.get(k, k == "special") if r.random() < 0.9 else r.random() < 0.5
                         for k in ("lstrip", "rstrip", "single_word", "normalized", "special")}
                return name, dict(flags, content=name)
            named, files = r.choice(["pad_token", "image_token", "unk_token", "mask_token"]), {}
            if r.random() < 0.4:
                files["tokenizer_config.json"] = {named: token()[0]}
            if r.random() < 0.3:
                files["tokenizer_config.json"] = {"added_tokens_decoder": {str(500 + k): token()[1] for k in range(2)}}
            if r.random() < 0.4:
                key = r.choice(["additional_special_tokens", "extra_special_tokens"])
                files.setdefault("tokenizer_config.json", {})[key] = [token()[0] for _ in range(2)]
            if r.random() < 0.3:
                some = token()
                some[1].pop("special")
                files["special_tokens_map.json"] = {"sep_token": r.choice(some)}
            if r.random() < 0.3:
                files["added_tokens.json"] = {token()[0]: 600 + k for k in range(2)}
            files.setdefault("tokenizer_config.json", {}).update(tokenizer_class="PreTrainedTokenizerFast")
            for name, content in files.items():
                write(f"{folder}/{name}", content)
            theirs, mentioned = AutoTokenizer.from_pretrained(folder), json.dumps(files, ensure_ascii=False)
            unusual = [a["content"] for a in full["added_tokens"] if a["lstrip"] or a["rstrip"] or a["single_word"]]
            for _ in range(12):
                text = "".join(r.choice([r.choice(old), r.choice(new), " ", "a", " plant", "1", "\t"]) for _ in range(5))
                ids = theirs(text)["input_ids"]
                done = subprocess.run(["./run", "tokenize", folder, "--file", write(f"{folder}/x.txt", text)],
                                      capture_output=True, text=True)
                found = [int(x) for x in done.stdout.split()]
                if done.returncode == 0:
                    need(found == ids + [0] * (ids[-1:] != [0]), f"{text!r}: {found}, expected {ids}")
                    read += 1
                    continue
                refused += 1
                held = [c for c in set(old + new) if c in text and (c in unusual or json.dumps(c, ensure_ascii=False)
                                                                    in mentioned)]
                need(held or max(ids) >= size, f"{text!r}: {done.stderr}")
    print(f"beside: {read} texts read, {refused} refused")
    need(read > 600 and refused > 200, "hardly any")


def part_ids():
    for i in range(4):
        r, folder = random.Random(f"ids {i}"), f"{WORK}/ids/{i}"
        config, about = draw_config(r, vocab_size=r.choice([300, 1000, 5000]), max_position_embeddings=256)
        with case(f"ids {i}: {about}") as notes:
            base, V = make_model(r, folder, config), config["vocab_size"]

            def some(topic):  # a topic is a hundred ids, and a few common ones
                return [r.randrange(topic * 100 % V, topic * 100 % V + 100) if r.random() < 0.8 else r.randrange(20)
                        for _ in range(r.randint(30, 90))]
            sets = {name: [[some(k) for _ in range(n)] for k in range(3)] for name, n in (("train", 24), ("test", 5))}
            files = {name: [write(f"{folder}/{name}{k}.ids", "".join(" ".join(map(str, d)) + "\n" for d in part))
                            for k, part in enumerate(parts)] for name, parts in sets.items()}
            for words in (["index", folder, *files["train"], "--ids", "--context", 64], ["cluster", folder, "--experts", 3],
                          ["experts", folder, "--rank", 2, "--epochs", 2]):
                call("train", *words)
            tsv, nearest = f"{WORK}/summary.tsv", []
            for k, part in enumerate(sets["test"]):  # a topic is an expert's
                for d in part:
                    call("run", "route", folder, *prompt(d), "--active", 1, "--tsv", tsv)
                    nearest.append((k, table(tsv)[0]["expert"]))
            need(len(set(nearest)) == 3, f"topics and their experts: {sorted(set(nearest))}")
            ids = sets["test"][1][0]
            tuned = PeftModel.from_pretrained(read_model(folder), f"{folder}/experts/1")
            found = trace(folder, *prompt(ids), "--adapter", f"{folder}/experts/1")["logits"]
            within(notes, "with adapter", found, logits(tuned, ids), 2e-5)
            call("run", "eval", folder, *files["test"], "--ids", "--prefix", 10, "--ttt-prompts", 1, "--tsv", tsv)
            loss = tokens = 0
            for d in (d for part in sets["test"] for d in part):
                p = torch.log_softmax(logits(base, d[:-1]).double(), 1)
                loss -= sum(p[i - 1, d[i]].item() for i in range(10, len(d)))
                tokens += len(d) - 10
            row = table(tsv)[0]
            need(row["bpb"] == "-", f"bits per byte {row['bpb']}")
            within(notes, "ppl", torch.tensor([float(row["ppl"])]), torch.tensor([math.exp(loss / tokens)]), 1e-5)


if __name__ == "__main__":
    parts = dict(logits=part_logits, routing=part_routing, writing=part_writing, tokenizers=part_tokenizers,
                 foreign=part_foreign, steps=part_steps, beside=part_beside, ids=part_ids, heads=part_heads,
                 adapters=part_adapters, json=part_json, tensors=part_tensors, folders=part_folders)
    if set(sys.argv[1:]) - set(parts):
        sys.exit(f"usage: peers.py [PART...]   of {', '.join(parts)}")
    shutil.rmtree(WORK, ignore_errors=True)
    os.makedirs(WORK)
    for part in sys.argv[1:] or parts:
        began, worst = time.monotonic(), {}
        parts[part]()
        largest = ", ".join(f"{kind} {error:.1e}" for kind, error in worst.items())
        print(f"{part}: {time.monotonic() - began:.0f} s; largest errors: {largest or 'none'}", flush=True)
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0 or passed == 0)
