"""backend.py - an independent float64 implementation, in PyTorch and numpy, of test/README.md, written from that page
alone. It shows that the page is enough to write a backend from and, making one deliberate mistake with --mistake, that
the comparison catches the errors people make.     python test/backend.py FOLDER OUT [--float32] [--mistake NAME]
"""
import argparse
import json
import math
import os

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

MISTAKE = None
MISTAKES = {
    "rotary-interleaved": "rotates the pairs (2j, 2j+1) instead of (j, j + S/2)",
    "mask-off-by-one": "each position also sees the next one",
    "no-score-scale": "scores are not divided by sqrt(S)",
    "heads-interleaved": "query head h reads key/value head h mod G",
    "eps-outside-root": "norm divides by sqrt(mean(x^2)) + eps",
    "gate-up-swapped": "silu(up) gate instead of silu(gate) up",
    "tied-head": "the embedding is the head although they are not tied",
    "loss-not-shifted": "the logits of position i are scored on token i, not i + 1",
    "no-alpha-over-r": "an adapter without its factor lora_alpha / r",
    "a-b-swapped": "(B A) transposed where the matrix is square",
    "beta-not-squared": "routing with exp(-(1 - s) / beta)",
    "weights-not-renormalised": "the kept experts' weights do not add up to 1",
    "decay-coupled": "decay as lambda w in the gradient, not taken from the weight",
    "no-bias-correction": "m and v without 1 - b1^n and 1 - b2^n",
}
SEVEN = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
         "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")


def load(folder, config, weights, dtype):
    with open(f"{folder}/{config}") as f:
        config = json.load(f)
    weights = {name: torch.tensor(x, dtype=dtype) for name, x in load_file(f"{folder}/{weights}").items()}
    return dict(config=config, weights={name: x.requires_grad_() for name, x in weights.items()})


def load_model(folder, dtype=torch.float64):
    return load(folder, "config.json", "model.safetensors", dtype)


def load_adapter(folder, dtype=torch.float64):
    return load(folder, "adapter_config.json", "adapter_model.safetensors", dtype)


def norm(x, g, eps):
    mean = (x ** 2).mean(-1, keepdim=True)
    if MISTAKE == "eps-outside-root":
        return g * x / (torch.sqrt(mean) + eps)
    return g * x / torch.sqrt(mean + eps)


def rotate(x, theta):  # x [T, heads, S]
    T, _, S = x.shape
    p, j = torch.arange(T, dtype=torch.float64), torch.arange(S // 2, dtype=torch.float64)
    phi = (p[:, None] * theta ** (-2 * j / S))[:, None]  # [T, 1, S/2]
    cos, sin = phi.cos().to(x.dtype), phi.sin().to(x.dtype)
    if MISTAKE == "rotary-interleaved":
        a, b = x[..., 0::2], x[..., 1::2]
        return torch.stack((a * cos - b * sin, b * cos + a * sin), -1).flatten(-2)
    a, b = x[..., :S // 2], x[..., S // 2:]
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


def attention(q, k, v):  # q [T, H, S], k and v [T, G, S]
    (T, H, S), G = q.shape, k.shape[1]
    future = torch.ones(T, T, dtype=torch.bool).triu(2 if MISTAKE == "mask-off-by-one" else 1)
    heads = []
    for h in range(H):
        g = h % G if MISTAKE == "heads-interleaved" else h // (H // G)
        score = q[:, h] @ k[:, g].T
        if MISTAKE != "no-score-scale":
            score = score / math.sqrt(S)
        heads.append(torch.softmax(score.masked_fill(future, -math.inf), -1) @ v[:, g])
    return torch.cat(heads, -1)


def silu(z):
    return z / (1 + torch.exp(-z))


def low_rank(adapter, matrix):
    """lora_alpha / r, A [r, in], B [out, r] of one matrix."""
    config, at = adapter["config"], f"base_model.model.{matrix}"
    A, B = adapter["weights"][f"{at}.lora_A.weight"], adapter["weights"][f"{at}.lora_B.weight"]
    if MISTAKE == "a-b-swapped" and A.shape[1] == B.shape[0]:
        A, B = B.T, A.T
    return 1 if MISTAKE == "no-alpha-over-r" else config["lora_alpha"] / config["r"], A, B


def trace(model, tokens, adapters=(), gradients=False):
    """Every value on the way to the loss, in the page's order. adapters: (number or None, adapter, weight) each. With
    gradients also dloss/dweight of the adapters, or of the model where there are none."""
    c, weights = model["config"], model["weights"]
    H, G, S, theta = c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"], c["rope_theta"]
    t, T = torch.as_tensor(tokens), len(tokens)
    out = {"tokens": t.int()}

    def linear(matrix, x):  # W x + w (lora_alpha / r) B (A x), for each row x
        y = x @ weights[f"{matrix}.weight"].T
        for _, adapter, w in adapters:
            scale, A, B = low_rank(adapter, matrix)
            y = y + w * scale * (x @ A.T @ B.T)
        return y

    def normed(name, x):
        return norm(x, weights[f"{name}.weight"], c["rms_norm_eps"])

    x = out["embed"] = weights["model.embed_tokens.weight"][t]
    for l in range(c["num_hidden_layers"]):
        at, to = f"model.layers.{l}", f"layers.{l}"
        n = out[f"{to}.attn_norm"] = normed(f"{at}.input_layernorm", x)
        q = rotate(linear(f"{at}.self_attn.q_proj", n).view(T, H, S), theta)
        k = rotate(linear(f"{at}.self_attn.k_proj", n).view(T, G, S), theta)
        v = linear(f"{at}.self_attn.v_proj", n).view(T, G, S)
        out[f"{to}.q"], out[f"{to}.k"], out[f"{to}.v"] = q.flatten(1), k.flatten(1), v.flatten(1)
        attn = out[f"{to}.attn"] = attention(q, k, v)
        attn_out = out[f"{to}.attn_out"] = linear(f"{at}.self_attn.o_proj", attn)
        x = x + attn_out
        n = out[f"{to}.mlp_norm"] = normed(f"{at}.post_attention_layernorm", x)
        gate = out[f"{to}.gate"] = linear(f"{at}.mlp.gate_proj", n)
        up = out[f"{to}.up"] = linear(f"{at}.mlp.up_proj", n)
        hidden = silu(up) * gate if MISTAKE == "gate-up-swapped" else silu(gate) * up
        mlp_out = out[f"{to}.mlp_out"] = linear(f"{at}.mlp.down_proj", hidden)
        x = out[f"{to}.out"] = x + mlp_out
    n = out["final_norm"] = normed("model.norm", x)
    tied = c["tie_word_embeddings"] or MISTAKE == "tied-head"
    logits = out["logits"] = n @ weights["model.embed_tokens.weight" if tied else "lm_head.weight"].T
    target = t[:-1] if MISTAKE == "loss-not-shifted" else t[1:]
    loss = -torch.log_softmax(logits[:-1], -1)[torch.arange(T - 1), target].mean()
    out["loss"] = loss.view(1)

    if gradients:
        leaves = {}
        for number, adapter, _ in adapters:
            prefix = "" if number is None else f"experts.{number}."
            leaves.update({prefix + name: x for name, x in adapter["weights"].items()})
        leaves = leaves or weights
        grads = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)  # 0 for a weight not used
        for name, g in zip(leaves, grads):
            out[f"grad.{name}"] = g
    return {name: x.detach().numpy() for name, x in out.items()}


def route(query, centroids, beta=0.2, least=0.01):
    phi = query / torch.sqrt((query ** 2).sum())
    s = centroids @ phi
    c = torch.exp(-(1 - s) / (beta if MISTAKE == "beta-not-squared" else beta ** 2))
    w = c / c.sum()
    kept = w > least
    total = 1 if MISTAKE == "weights-not-renormalised" else w[kept].sum()
    out = dict(query=phi, similarity=s, experts=torch.nonzero(kept).flatten().int(), weights=w[kept] / total)
    return {name: x.numpy() for name, x in out.items()}


def merge(model, adapters):
    """The model with W' = W + sum_k w_k (lora_alpha / r) B_k A_k in the seven matrices of every layer."""
    weights = {name: x.detach().clone() for name, x in model["weights"].items()}
    for l in range(model["config"]["num_hidden_layers"]):
        for matrix in (f"model.layers.{l}.{m}" for m in SEVEN):
            for _, adapter, w in adapters:
                scale, A, B = low_rank(adapter, matrix)
                weights[f"{matrix}.weight"] += w * scale * (B @ A).detach()
    return dict(config=model["config"], weights={name: x.requires_grad_() for name, x in weights.items()})


def optimise(model, tokens, steps=3, b1=0.9, b2=0.98, eps=1e-3, decay=0.05):
    """AdamW with clipped gradients and a falling rate; changes the model's weights."""
    weights = model["weights"]
    m, v = ({name: torch.zeros_like(x) for name, x in weights.items()} for _ in range(2))
    losses, norms, rates = [], [], []
    for n in range(1, steps + 1):
        out = trace(model, tokens, gradients=True)
        grad = {name: torch.from_numpy(out[f"grad.{name}"]) for name in weights}
        N = torch.sqrt(sum((g ** 2).sum() for g in grad.values())).item()
        rate = 0.01 * (0.05 + 0.95 * (1 + math.cos(math.pi * (n - 1) / steps)) / 2)
        losses, norms, rates = losses + [out["loss"][0]], norms + [N], rates + [rate]
        root1, root2 = 1 - b1 ** n, math.sqrt(1 - b2 ** n)
        if MISTAKE == "no-bias-correction":
            root1, root2 = 1, 1
        for name, w in weights.items():
            g = grad[name] * min(1, 0.5 / (N + 1e-6))
            lam = 0 if name.endswith("norm.weight") else decay
            with torch.no_grad():
                if MISTAKE == "decay-coupled":
                    g = g + lam * w
                else:
                    w -= rate * lam * w
                m[name] = b1 * m[name] + (1 - b1) * g
                v[name] = b2 * v[name] + (1 - b2) * g ** 2
                w -= rate / root1 * m[name] / (torch.sqrt(v[name]) / root2 + eps)
    return losses, norms, rates


def run(folder, out, dtype=torch.float64, mistake=None):
    """Reads the inputs in FOLDER, writes every file of the page's table into OUT."""
    global MISTAKE
    MISTAKE = mistake
    os.makedirs(out, exist_ok=True)

    def save(name, tensors):  # integers as int32, real numbers as the run has them
        save_file({k: np.ascontiguousarray(x) for k, x in tensors.items()}, f"{out}/{name}.safetensors")

    with open(f"{folder}/tokens.ids") as f:
        tokens = [int(t) for t in f.read().split()]
    model = load_model(f"{folder}/model", dtype)
    query = torch.tensor(load_file(f"{folder}/query.safetensors")["embedding"], dtype=dtype)
    centroids = torch.tensor(load_file(f"{folder}/model/centroids.safetensors")["embeddings"], dtype=dtype)
    adapter = [load_adapter(f"{folder}/model/experts/{k}", dtype) for k in range(len(centroids))]

    base = trace(model, tokens, gradients=True)
    save("base", base)
    save("adapter", trace(model, tokens, [(None, adapter[1], 1)], gradients=True))
    routing = route(query, centroids)
    kept = [(k, adapter[k], float(w)) for k, w in zip(routing["experts"], routing["weights"])]
    merged = merge(model, kept)
    save("dense", trace(merged, tokens) | routing)
    save("lowrank", trace(model, tokens, kept, gradients=True) | routing)
    save("merged", {name: x.detach().numpy() for name, x in merged["weights"].items()})
    two = -np.sort(-base["logits"], -1)[:, :2]
    save("choices", dict(greedy=base["logits"].argmax(-1).astype(np.int32), margin=two[:, 0] - two[:, 1]))
    steps = zip(("loss", "norm", "rate"), optimise(model, tokens))
    steps = {name: np.array(x, base["loss"].dtype) for name, x in steps}
    save("optimiser", steps | {name: x.detach().numpy() for name, x in model["weights"].items()})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="mistakes:\n" + "\n".join(f"  {name:26}{what}" for name, what in MISTAKES.items()))
    parser.add_argument("folder", metavar="FOLDER", help="the inputs: model/, query.safetensors, tokens.ids")
    parser.add_argument("out", metavar="OUT", help="where the files go")
    parser.add_argument("--float32", action="store_true", help="compute in float32")
    parser.add_argument("--mistake", metavar="NAME", choices=MISTAKES, help="make one of the mistakes below")
    args = parser.parse_args()
    run(args.folder, args.out, torch.float32 if args.float32 else torch.float64, args.mistake)
