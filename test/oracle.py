"""oracle.py - where data/vectors.tar comes from. It draws the inputs, computes what is expected of them in float64 with
test/backend.py, holds what it can against other libraries' (torch.optim and its schedulers, scikit-learn's clusters,
tokenizers' BPE), measures the tolerances (test/tolerances.py), and writes the manifest and FOLDER.tar; nothing of it
calls ttmm.
    python test/oracle.py FOLDER      (torch 2.6, scikit-learn, numpy, safetensors, tokenizers)
"""
import json
import os
import shutil
import sys
import tarfile
import warnings

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from sklearn.cluster import BisectingKMeans
from tokenizers import Tokenizer

sys.path.insert(0, os.path.dirname(__file__))
import backend
import tolerances

warnings.filterwarnings("ignore", message="The epoch parameter")  # torch's own, inside SequentialLR
rng = np.random.default_rng(20250514)
KEPT = [0, 1, 3]  # the experts that routing chooses; the weight of 1 is the largest, that of 0 the smallest
T, V = 8, 17


def exact(x):
    """Rounded to numbers that bfloat16 and float16 have, so that nothing is lost by storing them."""
    x = torch.tensor(x).bfloat16().float().numpy()
    return np.where(np.abs(x) < 2.0 ** -14, np.float32(0), x)


def draw(*shape, scale=1.0):
    return exact(scale * rng.standard_normal(shape))


def write(path, tensors):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    save_file({k: np.ascontiguousarray(x) for k, x in tensors.items()}, path, metadata={"format": "pt"})


def write_json(path, value):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as f:
        json.dump(value, f, indent=1)
        f.write("\n")


def write_ids(path, tokens):
    with open(path, "w") as f:
        f.write(" ".join(str(t) for t in tokens) + "\n")


def normalise(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def matrices(D, H, G, S, F):
    return {"self_attn.q_proj": (H * S, D), "self_attn.k_proj": (G * S, D), "self_attn.v_proj": (G * S, D),
            "self_attn.o_proj": (D, H * S), "mlp.gate_proj": (F, D), "mlp.up_proj": (F, D), "mlp.down_proj": (D, F)}


def make_model(folder, D, L, H, G, S, F, V, tied=False, context=64, theta=100.0, eps=0.01, scaling=None, bias=False):
    """Random weights, large enough that attention is far from uniform, and gains that are not 1. One token, one channel
    and one row of every matrix are much larger than the others."""
    kind = "Qwen2ForCausalLM" if bias else "LlamaForCausalLM"
    config = dict(
        architectures=[kind], model_type="qwen2" if bias else "llama", hidden_size=D, intermediate_size=F,
        num_hidden_layers=L, num_attention_heads=H, num_key_value_heads=G, head_dim=S, vocab_size=V,
        max_position_embeddings=context, rms_norm_eps=eps, rope_theta=theta, hidden_act="silu",
        tie_word_embeddings=tied)
    if scaling:
        config["rope_scaling"] = scaling
    write_json(f"{folder}/config.json", config)
    w = {"model.embed_tokens.weight": draw(V, D), "model.norm.weight": exact(1 + 0.2 * rng.standard_normal(D))}
    w["model.embed_tokens.weight"][3] *= 16
    w["model.norm.weight"][1] *= 4
    if not tied:
        w["lm_head.weight"] = draw(V, D, scale=0.5)
    for l in range(L):
        for name, (rows, cols) in matrices(D, H, G, S, F).items():
            w[f"model.layers.{l}.{name}.weight"] = draw(rows, cols, scale=1 / np.sqrt(cols))
            if bias and name[-6:] in ("q_proj", "k_proj", "v_proj"):
                w[f"model.layers.{l}.{name}.bias"] = draw(rows, scale=0.5)
        for name in ("input_layernorm", "post_attention_layernorm"):
            w[f"model.layers.{l}.{name}.weight"] = exact(1 + 0.2 * rng.standard_normal(D))
    write(f"{folder}/model.safetensors", w)


def make_adapter(folder, shapes, rank, alpha, modules=None, rslora=False, fresh=False):
    names = [n for n in shapes if modules is None or n.split(".")[1] in modules]
    write_json(f"{folder}/adapter_config.json", dict(
        peft_type="LORA", task_type="CAUSAL_LM", base_model_name_or_path=None, r=rank, lora_alpha=alpha,
        lora_dropout=0.0, bias="none", use_rslora=rslora, use_dora=False, fan_in_fan_out=False, inference_mode=True,
        target_modules=[n.split(".")[1] for n in names]))
    w = {}
    for l in range(2):
        for name in names:
            rows, cols = shapes[name]
            at = f"base_model.model.model.layers.{l}.{name}"
            w[f"{at}.lora_A.weight"] = draw(rank, cols, scale=0.5 / np.sqrt(cols))
            w[f"{at}.lora_B.weight"] = draw(rows, rank, scale=0.3) * (0 if fresh else 1)
    write(f"{folder}/adapter_model.safetensors", w)


def logits_of(folder, tokens):
    a = backend.Float64()
    return backend.trace(a, backend.load_model(a, folder), tokens)["logits"][0].numpy()


def near_ties(folder, tokens):
    """Two tokens that win at one position each get a rival whose row of the head differs in one small number only."""
    a = backend.Float64()
    out = backend.trace(a, backend.load_model(a, folder), tokens)
    order, n = np.argsort(out["logits"][0].numpy()), out["final_norm"][0].numpy()
    w = load_file(f"{folder}/model.safetensors")
    at = [i for i in range(len(tokens)) if sum(order[:, -1] == order[i, -1]) == 1][:2]
    for i in at:
        first, rival = order[i, -1], order[i, 0]
        channel = int(np.argmin(np.abs(np.abs(n[i]) - 1)))
        w["lm_head.weight"][first, channel] = 2.0 ** -10
        w["lm_head.weight"][rival] = w["lm_head.weight"][first]
        w["lm_head.weight"][rival, channel] -= np.sign(n[i, channel]) * np.float32(2.0 ** -17)
    write(f"{folder}/model.safetensors", w)
    logits = np.sort(logits_of(folder, tokens))
    margin = (logits[:, -1] - logits[:, -2]) / logits[:, -1]
    return len(at) == 2 and sum(margin < 1e-5) == 2 and min(margin) > 1e-6 and sum(margin > 0.1) == len(tokens) - 2


def routing_inputs():
    """Centroids and a query: the KEPT experts and no others, none near the border; c and w on two sides of tau."""
    while True:
        centroid = normalise(rng.standard_normal((5, 6)) + 1).astype(np.float32)
        query = (3 * normalise(rng.standard_normal(6) + 1)).astype(np.float32)
        s = centroid.astype(float) @ normalise(query.astype(float))
        c = np.exp((s - 1) / 0.04)
        w = c / c.sum()
        kept = np.flatnonzero(w > 0.01).tolist()
        away = min(abs(np.log(w / 0.01)).min(), abs(np.log(w / 0.2)).min())
        if kept == KEPT and away > 0.4 and w[1] > w[3] > w[0] > 0.05 and c[0] < 0.008 and c[1] > 0.02:
            return centroid, query


def cache_prompt(folder):
    """A prompt after which no choice of a token is near."""
    while True:
        prompt = rng.integers(0, V, 5)
        tokens, near = prompt.tolist(), []
        for _ in range(6):
            row = logits_of(folder, tokens)[-1]
            two = np.sort(row)[-2:]
            near.append((two[1] - two[0]) / np.abs(row).max())
            tokens.append(int(row.argmax()))
        if min(near) > 0.12 and len(set(tokens[5:])) > 2:
            return prompt.astype(np.int32)


TEXTS = ["the cat and the hat", "The hat's on the mat; the cat isn't.", "zigzag 1234 caf\u00e9\n\n  end"]
BPE = ["the leading and the trailing of the other", " they're we've I'm he'd it's we'll don't", "a  b   c\n\nd\t e ",
       "in 2024, 17% (or 3.5) of them!", "na\u00efve \u00fcber \u4f60\u597d \U0001f600 caf\u00e9",
       "THE END of thinking_things", "aaa 0000000 aaaaa"]


def inputs(folder):
    """What a backend is given."""
    shape = dict(D=8, L=2, H=4, G=2, S=4, F=10)
    while True:
        make_model(f"{folder}/model", **shape, V=V)
        tokens = rng.integers(0, V, T)
        tokens[0], tokens[5] = 3, tokens[2]
        tokens[7] = tokens[2]
        if near_ties(f"{folder}/model", tokens.tolist()):
            break
    write_ids(f"{folder}/tokens.ids", tokens)
    shapes = matrices(*(shape[k] for k in "DHGSF"))
    adapters = (dict(rank=2, alpha=4), dict(rank=3, alpha=5, modules=["q_proj", "v_proj", "down_proj"]),
                dict(rank=1, alpha=3), dict(rank=2, alpha=3, rslora=True),
                dict(rank=1, alpha=2, modules=["o_proj", "gate_proj"]))
    for k, settings in enumerate(adapters):
        make_adapter(f"{folder}/model/experts/{k}", shapes, **settings)
    make_adapter(f"{folder}/ttt", shapes, rank=2, alpha=4, modules=["q_proj", "o_proj", "up_proj"], fresh=True)
    centroid, query = routing_inputs()
    write(f"{folder}/model/centroids.safetensors", {"embeddings": centroid})
    write(f"{folder}/query.safetensors", {"embedding": query})

    small = dict(D=8, L=1, H=2, G=1, S=6, F=8, V=V, theta=500.0)
    make_model(f"{folder}/tied", **small, tied=True)
    make_model(f"{folder}/qwen2", **small, tied=True, bias=True)
    make_model(f"{folder}/linear", **small, scaling=dict(rope_type="linear", factor=4.0))
    make_model(f"{folder}/llama3", **small, scaling=dict(
        rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64))
    make_model(f"{folder}/long", D=8, L=1, H=2, G=1, S=4, F=8, V=11, theta=10.0, context=512)
    write_ids(f"{folder}/long/tokens.ids", rng.integers(0, 11, 512))

    given = f"{folder}/given"
    length = [3, 1, 6, 2]
    write(f"{given}/batch.safetensors", {"tokens": rng.integers(0, V, sum(length)).astype(np.int32),
                                         "start": np.cumsum([0] + length).astype(np.int32)})
    write(f"{given}/cache.safetensors", {"prompt": cache_prompt(f"{folder}/model")})
    grad = draw(12, 10) * exact(np.exp(1.5 * rng.standard_normal((12, 1)) - 1))
    write(f"{given}/adamw.safetensors", {"start": draw(10), "grad": grad.astype(np.float32)})
    length = [5, 3, 6, 4]
    while True:  # rows of several lengths, so that it matters that they are taken as they stand
        query, rows = rng.standard_normal(6), rng.standard_normal((4, 6))
        nearest, by_angle = np.argsort(-rows @ query)[:2], np.argsort(-normalise(rows) @ query)[:2]
        if set(nearest) != set(by_angle) and np.diff(np.sort(rows @ query)).min() > 0.3:
            break
    write(f"{given}/ttt.safetensors", {
        "tokens": rng.integers(0, V, sum(length)).astype(np.int32), "start": np.cumsum([0] + length).astype(np.int32),
        "embeddings": rows.astype(np.float32), "query": query.astype(np.float32)})
    write(f"{given}/embed.safetensors",
          {f"text.{i}": np.frombuffer(t.encode(), np.uint8).astype(np.int32) for i, t in enumerate(TEXTS)})
    of = np.concatenate([np.full(n, k) for k, n in enumerate((12, 5, 4, 5))])
    spread = np.array([0.04, 0.3, 0.15, 0.2])[of][:, None]
    while True:  # the first row is in the smaller half of some split
        centre = normalise(rng.standard_normal((4, 6)))
        rows = normalise(centre[of] + spread * rng.standard_normal((26, 6)))[rng.permutation(26)].astype(np.float32)
        number = backend.cluster(backend.Float64(), rows.astype(float), 4)[0]
        sizes = np.bincount(number)
        if sizes[0] < sizes[1] and max(sizes) == 12:
            break
    write(f"{given}/cluster.safetensors", {"x": rows})
    while True:
        near = normalise(rng.standard_normal((5, 6)))[rng.integers(0, 5, 20)]
        near = normalise(near + 0.1 * rng.standard_normal((20, 6))) * rng.uniform(0.7, 1.4, (20, 1))
        near = near.astype(np.float32)
        chosen, margin = backend.sift(near[0].astype(float), near[1:].astype(float), 8)
        if margin.min() > 5e-4 and len(set(chosen.tolist())) < 8:  # one is taken twice
            break
    write(f"{given}/nearest.safetensors", {"query": near[0], "x": near[1:]})
    state = 20250514  # of SplitMix64, so that implementations with such a generator can be put where these come from
    u = [(backend.mix_bits((state + (i + 1) * backend.GOLDEN) % 2 ** 64) >> 11) / 2.0 ** 53 for i in range(40)]
    write(f"{given}/sample.safetensors", {"logits": draw(V, scale=1.5), "u": np.array(u)})
    os.makedirs(f"{folder}/bpe", exist_ok=True)
    for name in ("tokenizer.json", "config.json"):
        shutil.copy(f"{os.path.dirname(__file__)}/interop/bpe-gpt2/{name}", f"{folder}/bpe/{name}")
    write(f"{given}/bpe.safetensors",
          {f"text.{i}": np.frombuffer(t.encode(), np.uint8).astype(np.int32) for i, t in enumerate(BPE)})


def against_libraries(folder, done):
    """What is computed, held against implementations that have nothing to do with it."""
    def same(x, y):
        assert np.allclose(x, y, rtol=1e-12, atol=1e-14), f"{x} is not {y}"
    g = load_file(f"{folder}/given/adamw.safetensors")
    w = torch.tensor(g["start"], dtype=torch.float64, requires_grad=True)
    o = torch.optim.AdamW([w], lr=0.02, betas=(0.9, 0.98), eps=1e-3, weight_decay=0.05)
    norms = []
    for n, grad in enumerate(g["grad"]):
        w.grad = torch.tensor(grad, dtype=torch.float64)
        norms.append(float(torch.nn.utils.clip_grad_norm_([w], 1.0)))
        o.step()
        same(done["adamw"]["w"][0, n], w.detach())
        same(done["adamw"]["m"][0, n], o.state[w]["exp_avg"])
        same(done["adamw"]["v"][0, n], o.state[w]["exp_avg_sq"])
    same(done["adamw"]["norm"][0], norms)
    assert min(norms) < 0.9 and max(norms) > 2, f"gradients are clipped in no step or in all: {norms}"
    for name, warm, steps, lr, rest in (
            ("cosine", 6, 50, 0.02, lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 44, 0.05 * 0.02)),
            ("warm", 5, 20, 0.01, lambda o: torch.optim.lr_scheduler.LinearLR(o, 1, 0, 15))):
        o = torch.optim.SGD([w], lr=lr)
        s = torch.optim.lr_scheduler.SequentialLR(
            o, [torch.optim.lr_scheduler.LinearLR(o, 1 / warm, 1, warm - 1), rest(o)], [warm])
        for n in range(steps):
            same(done["schedule"][name][0, n], o.param_groups[0]["lr"])
            o.step()
            s.step()
    x = load_file(f"{folder}/given/cluster.safetensors")["x"].astype(float)
    label = BisectingKMeans(4, n_init=20, random_state=0).fit(x).labels_
    number = done["cluster"]["cluster"][0].numpy()
    assert len({*zip(label.tolist(), number.tolist())}) == 4, "clusters are not scikit-learn's"
    tokenizer = Tokenizer.from_file(f"{folder}/bpe/tokenizer.json")
    for i, t in enumerate(BPE):
        assert tokenizer.encode(t).ids == done["bpe"][f"ids.{i}"][0].tolist(), t


def clip_between(folder):
    """A limit to the gradients' norm that is passed in some of the three steps."""
    norms = backend.compute(folder, backend.Float64(), ["optimiser"], clip=1e9)["optimiser"]["norm"][0].tolist()
    return round((min(norms) * max(norms)) ** 0.5, 1)


PASS = ["model/config.json", "model/model.safetensors", "tokens.ids"]
ROUTE = ["query.safetensors", "model/centroids.safetensors"]
EXPERTS = [f"model/experts/{k}/{f}" for k in KEPT for f in ("adapter_config.json", "adapter_model.safetensors")]
ROUTER = dict(beta=0.2, tau=0.01, max=50)
ADAM = dict(b1=0.9, b2=0.98)


def files(clip):
    """Of each file: what it is, the inputs, the settings."""
    small = {"tied": "a tied head, one key/value head", "qwen2": "Qwen2: biases of q, k, v",
             "linear": "rope_scaling linear", "llama3": "rope_scaling llama3"}
    return {
        "base": ("the forward and the backward pass of the model", PASS, {}),
        "adapter": ("the same with adapter 1, its gradients", PASS + EXPERTS[2:4], dict(adapter=1, weight=1)),
        "route": ("routing, with several settings", ROUTE, {
            name: dict(beta=s.get("beta", 0.2), tau=s.get("tau", 0.01), max=s.get("most", 50)) |
            ({"active": s["active"]} if "active" in s else {}) for name, s in backend.ROUTES.items()}),
        "merged": ("the model with the chosen experts merged into it", PASS[:2] + ROUTE + EXPERTS, ROUTER),
        "dense": ("the forward pass of the merged model", PASS + ROUTE + EXPERTS, ROUTER),
        "lowrank": ("the chosen experts beside the weights, and their gradients", PASS + ROUTE + EXPERTS, ROUTER),
        "ensemble": ("the mean of the chosen experts' probabilities", PASS + ROUTE + EXPERTS, ROUTER),
        "choices": ("the likeliest token at each position", PASS, {}),
        "cache": ("greedy decoding", PASS[:2] + ["given/cache.safetensors"], dict(tokens=6)),
        "batch": ("several sequences in one pass", PASS[:2] + ["given/batch.safetensors"], {}),
        **{name: (what, [f"{name}/config.json", f"{name}/model.safetensors", "tokens.ids"], {})
           for name, what in small.items()},
        "long": ("512 positions", ["long/config.json", "long/model.safetensors", "long/tokens.ids"], {}),
        "optimiser": ("three steps of training on all weights", PASS,
                      dict(steps=3, clip=clip, decay=0.05, eps=1e-3, **ADAM, **backend.STEPS["schedule"])),
        "adamw": ("twelve steps of clipping and AdamW on given gradients", ["given/adamw.safetensors"],
                  dict(clip=1, lr=0.02, decay=0.05, eps=1e-3, **ADAM)),
        "schedule": ("learning rates", [], {name: dict(steps=n, **s) for name, (n, s) in backend.SCHEDULES.items()}),
        "embed": ("the built-in embedding of three texts", ["given/embed.safetensors"], dict(buckets=2048)),
        "cluster": ("bisecting k-means", ["given/cluster.safetensors"], dict(K=4)),
        "nearest": ("neighbours, by similarity and by SIFT", ["given/nearest.safetensors"],
                    dict(nearest=6, sift=8, lam=0.01)),
        "ttt": ("test-time training: two neighbours, twice", PASS[:2] + [
            "ttt/adapter_config.json", "ttt/adapter_model.safetensors", "given/ttt.safetensors"],
            dict(neighbours=2, passes=2, clip=1, decay=0, eps=0.1, **ADAM, **backend.TTT["schedule"])),
        "sample": ("tokens from given uniform numbers", ["given/sample.safetensors"],
                   {name: dict(temperature=t, top_k=k, top_p=p) for name, (t, k, p) in backend.SAMPLES.items()}),
        "bpe": ("token ids of a byte-level BPE", ["bpe/tokenizer.json", "given/bpe.safetensors"], {}),
    }


MEANING = {
    "tokens": "token ids t_0 ... t_(T-1)", "embed": "row t_i of the embedding matrix",
    "attn_norm": "g x / sqrt(mean(x^2) + eps)", "q": "Wq attn_norm + b, each head's pairs (j, j + S/2) rotated",
    "k": "Wk attn_norm + b, rotated likewise", "v": "Wv attn_norm + b",
    "attn": "sum_(j<=i) softmax_j(q_i . k_j / sqrt(S)) v_j, key/value head floor(h / (H/G))", "attn_out": "Wo attn",
    "mlp_norm": "g x / sqrt(mean(x^2) + eps), x with attn_out", "gate": "Wgate mlp_norm", "up": "Wup mlp_norm",
    "mlp_out": "Wdown (silu(gate) up)", "out": "x after the layer", "final_norm": "the last norm",
    "logits": "Whead final_norm", "nll": "-log softmax(logits_i)[t_(i+1)], 0 at a sequence's last token",
    "loss": "the mean of nll over all predictions; in training before each step",
    "gradient": "dloss / d(the tensor of that name)", "query": "u, the query divided by its length",
    "similarity": "u . centroid_k, or query . x_i", "experts": "the k with w_k > tau, at most "
    "the max nearest (or the active nearest), ascending; w = c / sum c, c_k = exp(-(1 - s_k) / beta^2)",
    "weights": "w_k of those kept, divided by their sum",
    "weight": "merged: W + sum_k w_k (alpha / r) B_k A_k; trained: after the last step, or after step N",
    "probability": "sum_k w_k softmax(logits^k_i)[t_(i+1)], i = 0 ... T-2",
    "greedy": "the token of the largest logit", "second": "the token of the second largest logit",
    "margin": "how near the choice was", "norm": "sqrt(sum g^2) over all gradients, before clipping",
    "rate": "with s = n - 1, W = floor(warmup N + 1/2), x = (s - W) / (N - W): lr (s + 1) / W where s < W, else "
    "lr (last + (1 - last) z), z = (1 + cos(pi x)) / 2 if cosine, else 1 - x", "factor": "min(1, clip / (norm + 1e-6))",
    "moment1": "b1 m + (1 - b1) g, g times factor, after each step", "moment2": "b2 v + (1 - b2) g^2, after each step",
    "w": "w (1 - lr decay) - lr / (1 - b1^n) m / (sqrt(v) / sqrt(1 - b2^n) + eps), after each step",
    "bucket": "where c is not 0, ascending; c_b: the sum of signs of the n-grams in bucket b",
    "value": "there sign(c) log(1 + |c|) idf, divided by the length of all",
    "idf": "there log((2 + n) / (1 + number of texts with c not 0))", "cluster": "of each row, its number",
    "centroid": "mean of the cluster's rows, divided by its length",
    "nearest": "rows of the largest query . x_i, descending",
    "sift": "rows in the order of choice: least q.q - k'(K + lam I)^-1 k", "index": "sequences, the nearest last",
    "token": "for each u the first token at which the sum of p exceeds u times that of all that are left",
    "ids": "token ids of the text",
}


def kind_of(file, name):
    last = name.split(".")[-1]
    if name.startswith("grad."):
        return "gradient"
    if last == "weight":
        return "weight"
    if file == "schedule":
        return "rate"
    if file == "sample":
        return "token" if last != "margin" else last
    stem = name.split(".")[0]
    kind = last[:-5] if last.endswith("_last") else stem if stem in ("bucket", "value", "idf", "ids") else last
    return {"m": "moment1", "v": "moment2"}.get(kind, kind) if file == "adamw" else kind


def with_margins(folder, done):
    """What tells how near choices were. Beside greedy: the rival."""
    logits = np.sort(done["base"]["logits"][0].numpy(), -1)
    done["choices"]["second"] = done["base"]["logits"][:1].argsort(-1)[..., -2].int()
    done["choices"]["margin"] = torch.tensor(logits[:, -1] - logits[:, -2])[None]
    row = np.sort(done["cache"]["logits"][0].numpy(), -1)
    done["cache"]["margin"] = torch.tensor(row[:, -1] - row[:, -2])[None]
    x, c = load_file(f"{folder}/given/cluster.safetensors")["x"], done["cluster"]
    mean = np.stack([x[c["cluster"][0].numpy() == k].mean(0) for k in range(4)])
    far = np.sort(((x[:, None] - mean) ** 2).sum(-1), 1)
    c["margin"] = torch.tensor((far[:, 1] - far[:, 0]).astype(float))[None]
    g = load_file(f"{folder}/given/nearest.safetensors")
    s = np.sort(g["x"].astype(float) @ g["query"])[::-1]
    done["nearest"]["nearest.margin"] = torch.tensor((s[:-1] - s[1:])[:6].copy())[None]
    sift = backend.sift(g["query"].astype(float), g["x"].astype(float), 8)
    done["nearest"]["sift.margin"] = torch.tensor(sift[1])[None]
    g = load_file(f"{folder}/given/sample.safetensors")
    for name, settings in backend.SAMPLES.items():
        margin = backend.sample(g["logits"].astype(float), g["u"], *settings)[1]
        done["sample"][f"{name}.margin"] = torch.tensor([[margin]])
    margins = [done["nearest"]["nearest.margin"], done["nearest"]["sift.margin"], c["margin"]]
    margins += [done["sample"][f"{name}.margin"] for name in backend.SAMPLES]
    assert all(m.min() > 1e-4 for m in margins), f"a near-tie: choose another seed: {[m.min().item() for m in margins]}"


def wide(folder):
    """For the witness of test/BITS.md alone: no axis is a power of two, all are longer than the 16 lanes of its sums.
    Drawn apart, whatever was drawn before."""
    global rng
    rng = np.random.default_rng(16)
    make_model(f"{folder}/wide", D=24, L=2, H=3, G=1, S=18, F=40, V=67, theta=10000.0, eps=1e-5)
    shapes, centroids = matrices(24, 3, 1, 18, 40), normalise(rng.standard_normal((2, 20)))
    make_adapter(f"{folder}/wide/experts/0", shapes, rank=17, alpha=20, modules=["q_proj", "down_proj"])
    make_adapter(f"{folder}/wide/experts/1", shapes, rank=3, alpha=4)
    write(f"{folder}/wide/centroids.safetensors", {"embeddings": centroids.astype(np.float32)})


RULE = ("A real tensor is right if in each of its rows (last axis; a vector is one row; with 'by' tensor all is one row) "
        "|a - b| <= tolerance * the row's largest |a|, a the reference, all numbers finite. An integer tensor is "
        "right if its numbers are equal integers of any type; with 'or' and 'margin', number i may be that of the tensor "
        "'or' where margin[i] <= tolerance. The tolerance is what stands under the precision's name. 'given' tensors need "
        "not be written.")


def manifest(folder, done, clip):
    """For programs: of every file its inputs and settings, of every tensor kind, type, shape; tolerances come later."""
    out = {"version": 2, "rule": RULE, "kinds": MEANING, "files": {}}
    for name, (what, inputs, settings) in files(clip).items():
        tensors = {}
        for t, x in done[name].items():
            real = x.is_floating_point()
            entry = tensors[t] = dict(kind=kind_of(name, t), dtype="F64" if real else "I32", shape=list(x.shape[1:]))
            if t in ("second", "margin") or t.endswith(".margin"):
                entry["given"] = True
            if entry["kind"] == "gradient" or name == "ttt" and entry["kind"] == "weight":
                entry["by"] = "tensor"
            if (name, t) == ("choices", "greedy"):
                entry |= {"or": "second", "margin": "margin"}
            assert entry["kind"] in MEANING, (name, t, entry)
        out["files"][f"{name}.safetensors"] = dict(what=what, inputs=inputs, settings=settings, tensors=tensors)
    return out


def pack(folder):
    """FOLDER.tar, the same bytes from the same files."""
    def plain(info):
        info.uid = info.gid = info.mtime = 0
        info.uname = info.gname = ""
        info.mode = 0o755 if info.isdir() else 0o644
        return info
    with tarfile.open(f"{folder}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        tar.add(folder, "vectors", filter=plain)


if __name__ == "__main__":
    folder = sys.argv[1]
    a = backend.Float64()
    inputs(folder)
    clip = clip_between(folder)
    done = backend.compute(folder, a, clip=clip)
    against_libraries(folder, done)
    with_margins(folder, done)
    for name, tensors in done.items():
        write(f"{folder}/{name}.safetensors", {k: x[0].numpy() for k, x in tensors.items()})
    text = manifest(folder, done, clip)
    tolerances.write(folder, tolerances.measure(folder, text))
    wide(folder)
    pack(folder)
