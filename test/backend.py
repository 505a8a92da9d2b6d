"""backend.py - an independent implementation, in PyTorch, of everything on test/README.md's page, in four arithmetics.
In float64 it is where the vectors come from (test/oracle.py); in float32, and in bfloat16 and float16 with sums in
float32, orders of summation and the places where numbers are rounded may be drawn at random, from which the tolerances
come (test/tolerances.py); and it makes any of the mistakes below on purpose (test/mistakes.sh). Nothing of it calls
ttmm.     python test/backend.py VECTORS OUT [--precision f64|f32|bf16|f16] [--mistake NAME | --mistakes]
"""
import argparse
import itertools
import json
import math
import os
import re

import numpy as np
import torch
from safetensors.torch import load_file, save_file

torch.set_num_threads(1)  # everything is small: threads would only wait for each other
MISTAKE = None
MISTAKES = {
    "eps-outside-root": "norm divides by sqrt(mean(x^2)) + eps",
    "eps-forgotten": "norm divides by sqrt(mean(x^2))",
    "norm-of-deviations": "norm subtracts the mean first, as LayerNorm does",
    "norm-of-sum": "norm divides by the root of the sum, not of the mean",
    "gain-plus-one": "norm multiplies by 1 + g, as Gemma does",
    "embedding-scaled": "the embedding is multiplied by sqrt(D), as Gemma does",
    "embedding-gradient-overwritten": "a token's gradient is that of its last place, not the sum of all",
    "rotary-interleaved": "rotates the pairs (2j, 2j+1) instead of (j, j + S/2)",
    "rotary-backwards": "rotates by minus the angle",
    "rotary-from-one": "positions count from 1",
    "rotary-exponent": "theta^(-j/S) instead of theta^(-2j/S)",
    "rotary-of-D-over-H": "angles of heads that are D/H wide",
    "rotary-float32": "angles are computed in float32",
    "rotary-of-v": "v is rotated, too",
    "rotary-in-place": "the second half is turned by the first half's new values",
    "scale-of-D-over-H": "scores are divided by sqrt(D/H)",
    "no-score-scale": "scores are not divided by sqrt(S)",
    "mask-off-by-one": "each position also sees the next one",
    "no-mask": "each position sees all others",
    "softmax-of-queries": "softmax along the queries instead of the keys",
    "heads-interleaved": "query head h reads key/value head h mod G",
    "one-key-value-head": "all heads read key/value head 0",
    "residual-of-norm": "the attention's output is added to what it read, not to x",
    "residual-forgotten": "the attention's output takes the place of x",
    "parallel-layers": "the MLP reads x as it was before attention",
    "norm-of-attention-twice": "the MLP's norm uses the gains of the attention's",
    "gate-up-swapped": "silu(up) gate instead of silu(gate) up",
    "gelu": "gelu instead of silu",
    "sigmoid": "sigmoid instead of silu",
    "final-norm-forgotten": "the head reads x as it is",
    "tied-head": "the embedding is the head although they are not tied",
    "tied-gradient": "of a tied matrix only the head's gradient",
    "loss-not-shifted": "the logits of position i are scored on token i, not i + 1",
    "loss-of-sum": "the sum, not the mean",
    "loss-over-T": "the mean over T, not T - 1",
    "no-alpha-over-r": "an adapter without its factor lora_alpha / r",
    "one-alpha-over-r": "the first kept expert's factor for all",
    "rslora-as-lora": "use_rslora is not looked at",
    "a-b-swapped": "(B A) transposed where the matrix is square",
    "adapter-before-norm": "the adapters of q, k, v read x before its norm",
    "adapter-gradient-unweighted": "an expert's gradient without its weight w",
    "adapter-gradient-unscaled": "the gradient of B without lora_alpha / r",
    "query-not-normalised": "the query as it stands",
    "beta-not-squared": "routing with exp(-(1 - s) / beta)",
    "tau-of-c": "c, not w, is compared with tau",
    "no-tau": "all experts take part",
    "weights-not-renormalised": "the kept experts' weights do not add up to 1",
    "experts-by-weight": "the kept experts stand in the order of their weights",
    "max-of-lowest": "of more than max experts the lowest numbers are kept, not the nearest",
    "merge-unweighted": "the kept experts' updates are added without their weights",
    "merge-mean-of-factors": "A and B are averaged, not their products",
    "merge-attention-only": "the MLP's matrices are not merged",
    "ensemble-of-logits": "the mean of logits instead of probabilities",
    "ensemble-of-logs": "the mean of log-probabilities",
    "decay-coupled": "decay as lambda w in the gradient, not taken from the weight",
    "decay-of-norms": "norms' gains decay, too",
    "no-bias-correction": "m and v without 1 - b1^n and 1 - b2^n",
    "bias-correction-from-0": "b1^(n-1) and b2^(n-1)",
    "no-clip": "gradients are not clipped",
    "clip-always": "the factor of clipping is not limited to 1",
    "clip-each-tensor": "each tensor is clipped by its own norm",
    "clip-without-1e-6": "the factor is clip / N",
    "eps-in-root": "sqrt(v + eps') instead of sqrt(v) + eps'",
    "eps-before-correction": "eps' is added to sqrt(v) before the division by sqrt(1 - b2^n)",
    "betas-swapped": "b1 for v and b2 for m",
    "rate-of-next-step": "the rate of step n + 1",
    "warm-up-rounded-down": "W = floor(warmup N)",
    "warm-up-from-0": "the first warm-up step has rate 0",
    "warm-up-in-cosine": "the cosine runs over all steps, warm-up among them",
    "positions-run-on": "positions do not begin anew in each sequence of a batch",
    "attention-across": "a sequence of a batch sees those before it",
    "mean-of-means": "the mean of the sequences' means",
    "loss-across": "a sequence's last token predicts the next one's first",
    "cache-position": "a token decoded from a cache has position 0",
    "cache-forgets-itself": "a token decoded from a cache does not see itself",
    "cache-forgets-first": "a token decoded from a cache does not see the first position",
    "bias-forgotten": "q, k, v without their biases",
    "bias-after-rotation": "biases are added after the rotation",
    "linear-multiplied": "linear: angles are multiplied by factor",
    "llama3-as-linear": "llama3: all frequencies are divided",
    "llama3-no-middle": "llama3: nothing between the two limits",
    "llama3-mirrored": "llama3: s and 1 - s exchanged",
    "ngrams-of-three": "the embedding has n-grams up to three bytes",
    "ngrams-unsigned": "no signs of n-grams",
    "no-logarithm": "counts, not their logarithms",
    "idf-forgotten": "no inverse document frequency",
    "clusters-by-size": "the cluster with most rows is split, not the widest",
    "clusters-larger-first": "the larger half keeps the number, not that with the first row",
    "centroid-not-normalised": "the mean itself",
    "neighbours-normalised": "rows are divided by their lengths first",
    "nearest-once-more": "the nearest is taken again and again",
    "sift-once-each": "SIFT takes no row twice",
    "sift-without-noise": "lambda is left out of the gain",
    "ttt-nearest-first": "training begins with the nearest",
    "ttt-passes-apart": "each neighbour is trained on twice in turn",
    "ttt-constant-rate": "the rate does not fall",
    "temperature-multiplied": "logits times temperature",
    "top-p-exclusive": "the token with which top_p is reached is left out",
    "top-p-of-all": "top_p of all tokens' probability, not of what top_k left",
    "top-k-last": "top_k after top_p",
    "merges-by-length": "of two merges the longer one first, not the earlier",
    "merges-left-to-right": "the leftmost merge first",
    "merges-from-right": "of equal pairs the rightmost first",
    "no-splitting": "merges run across words",
}
SEVEN = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
         "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")


def wrong(name):
    assert name in MISTAKES, name
    return MISTAKE == name


# ---- Arithmetics: all numbers have a first axis more, the draws R; it is 1 but for test/tolerances.py ----

class Float64:
    """Sums and products as PyTorch does them."""
    dtype, draws, stored = torch.float64, 1, torch.float64

    def dot(self, x, w):  # x [.., T, K], w [.., O, K]: x w' [.., T, O]
        return x @ w.mT

    def total(self, x):  # along the last axis
        return x.sum(-1)

    def near(self, x):  # what a function gave that libraries do not round correctly: exp, log, 1/sqrt ...
        return x

    def keep(self, x):  # rounded to the type that numbers are stored in
        return x

    def may(self, x):  # rounded, where some backends do it and some do not
        return x

    def either(self):  # one of two ways that are both right
        return True

    def single(self):  # the arithmetic of what should never be of lower precision: routing, optimisers
        return self


class Rounded(Float64):
    """float32; or bfloat16 or float16 with sums in float32. With `random`, every sum has an order drawn anew."""
    dtype = torch.float32

    def __init__(self, stored=torch.float32, draws=1, seed=None):
        self.stored, self.draws, self.random = stored, draws, seed is not None
        self.g = torch.Generator().manual_seed(seed or 0)

    def uniform(self, shape):
        return torch.rand(shape, generator=self.g)

    def choose(self, n):
        return int(torch.randint(n, (), generator=self.g)) if self.random else 0

    def shuffle(self, *xs):  # the last axes of all in one order, another for each draw
        if not self.random:
            return xs
        order = self.uniform((self.draws,) + (1,) * (xs[0].dim() - 2) + xs[0].shape[-1:]).argsort(-1)
        return [x.gather(-1, order.expand(x.shape)) for x in xs]

    def reduce(self, p):  # the sum of p [K, ..] along K: one after the other, in lanes, or in pairs
        lanes = (1, 1, 2, 4, 8, 16, 32, len(p))[self.choose(8)]
        acc = p[:lanes].clone()
        for k in range(lanes, len(p), lanes):
            acc[:len(p) - k] += p[k:k + lanes]
        while len(acc) > 1:
            half = (len(acc) + 1) // 2
            acc[:len(acc) - half] += acc[half:]
            acc = acc[:half]
        return acc[0]

    def product(self, x, w):
        x, w = self.shuffle(self.keep(x), self.keep(w))
        x, w = x.movedim(-1, 0).unsqueeze(-1), w.movedim(-1, 0).unsqueeze(-2)
        if self.choose(4) == 3:  # fused multiply-adds: the product is not rounded
            acc = torch.zeros(())
            for k in range(len(x)):
                acc = (acc.double() + x[k].double() * w[k].double()).float()
            return acc
        return self.reduce(x * w)

    def dot(self, x, w):
        return self.may(Dot.apply(x, w, self))

    def total(self, x):
        return Total.apply(x, self)

    def near(self, x):  # within a unit in the last place
        return x * (1 + (self.uniform(x.shape) * 2 - 1) * 2.0 ** -23) if self.random else x

    def keep(self, x):
        return x if self.stored == torch.float32 else Store.apply(x, None, self)

    def may(self, x):  # three of four draws round here; not at random: all
        if self.stored == torch.float32 or not self.random:
            return self.keep(x)
        return Store.apply(x, self.uniform((self.draws,) + (1,) * (x.dim() - 1)) < 0.75, self)

    def either(self):
        return self.choose(2) == 0

    def single(self):
        return Rounded(draws=self.draws, seed=self.choose(2 ** 31) if self.random else None)


class Dot(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w, a):
        ctx.save_for_backward(x, w)
        ctx.a = a
        return a.product(x, w)

    @staticmethod
    def backward(ctx, dy):
        x, w = ctx.saved_tensors
        return ctx.a.may(ctx.a.product(dy, w.mT)), ctx.a.may(ctx.a.product(dy.mT, x.mT)), None


class Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, a):
        ctx.shape = x.shape
        return a.reduce(a.shuffle(x)[0].movedim(-1, 0))

    @staticmethod
    def backward(ctx, dy):
        return dy.unsqueeze(-1).expand(ctx.shape), None


class Store(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, where, a):
        ctx.where, ctx.a = where, a
        y = x.to(a.stored).float()
        return y if where is None else torch.where(where, y, x)

    @staticmethod
    def backward(ctx, dy):
        return Store.forward(ctx, dy, ctx.where, ctx.a), None, None


def bare(a, x):
    """An array, the same for every draw."""
    x = torch.as_tensor(np.ascontiguousarray(x))
    return (x.to(a.dtype) if x.is_floating_point() else x).expand(a.draws, *x.shape)


# ---- The model ----

def load(a, folder, config, weights):
    with open(f"{folder}/{config}") as f:
        config = json.load(f)
    weights = {k: x.to(a.dtype).expand(a.draws, *x.shape).clone() for k, x in load_file(f"{folder}/{weights}").items()}
    return dict(config=config, weights={k: x.requires_grad_() for k, x in weights.items()})


def load_model(a, folder):
    return load(a, folder, "config.json", "model.safetensors")


def load_adapter(a, folder):
    return load(a, folder, "adapter_config.json", "adapter_model.safetensors")


def norm(a, x, g, eps):
    if wrong("norm-of-deviations"):
        x = x - x.mean(-1, keepdim=True)
    mean = a.total(x * x).unsqueeze(-1)
    mean = mean if wrong("norm-of-sum") else mean / x.shape[-1]
    if wrong("eps-outside-root"):
        x = x / (torch.sqrt(mean) + eps)
    else:
        x = a.near(x / torch.sqrt(mean + (0 if wrong("eps-forgotten") else eps)))
    return a.may((1 + g if wrong("gain-plus-one") else g).unsqueeze(1) * a.may(x))


def frequencies(config):
    """theta^(-2j/S), scaled as rope_scaling says."""
    S, D_H = config["head_dim"], config["hidden_size"] / config["num_attention_heads"]
    j = torch.arange(S // 2, dtype=torch.float64)
    if wrong("rotary-of-D-over-H"):
        S = D_H
    f = config["rope_theta"] ** ((-1 if wrong("rotary-exponent") else -2) * j / S)
    s = config.get("rope_scaling") or {"rope_type": "default"}
    if s["rope_type"] == "linear":
        f = f * s["factor"] if wrong("linear-multiplied") else f / s["factor"]
    elif s["rope_type"] == "llama3":
        turns = s["original_max_position_embeddings"] * f / (2 * math.pi)
        part = (turns - s["low_freq_factor"]) / (s["high_freq_factor"] - s["low_freq_factor"])
        part = torch.clamp(part, 0, 1)
        if wrong("llama3-as-linear"):
            part = torch.zeros_like(part)
        if wrong("llama3-no-middle"):
            part = (part > 0).double()
        if wrong("llama3-mirrored"):
            part = torch.where((part > 0) & (part < 1), 1 - part, part)
        f = part * f + (1 - part) * f / s["factor"]
    return f


def rotate(a, x, f, position):  # x [R, T, heads, S], f [S/2]
    phi = position.double()[:, None] * f
    if wrong("rotary-float32"):
        phi = (position.float()[:, None] * f.float()).double()
    if wrong("rotary-backwards"):
        phi = -phi
    cos, sin = (a.may(a.near(z.to(a.dtype)[None, :, None].expand(a.draws, -1, -1, -1))) for z in (phi.cos(), phi.sin()))
    if wrong("rotary-interleaved"):
        p, q = x[..., 0::2], x[..., 1::2]
        return torch.stack((p * cos - q * sin, q * cos + p * sin), -1).flatten(-2)
    p, q = x.chunk(2, -1)
    new = p * cos - q * sin
    return a.may(torch.cat((new, q * cos + (new if wrong("rotary-in-place") else p) * sin), -1))


def attention(a, q, k, v, visible, config):  # q [R, T, H, S], k and v [R, T, G, S], visible [T, T]
    H, G, S = q.shape[2], k.shape[2], q.shape[3]
    group = [h % G if wrong("heads-interleaved") else 0 if wrong("one-key-value-head") else h // (H // G)
             for h in range(H)]
    q, k, v = q.transpose(1, 2), k.transpose(1, 2)[:, group], v.transpose(1, 2)[:, group]
    scale = 1 / math.sqrt(config["hidden_size"] / H if wrong("scale-of-D-over-H") else
                          1 if wrong("no-score-scale") else S)
    score = a.may(a.dot(q, k) * scale).masked_fill(~visible, -math.inf)
    if wrong("softmax-of-queries"):
        return a.dot(torch.softmax(score, -2), v.mT).transpose(1, 2).flatten(2)
    e = a.near(torch.exp(score - score.amax(-1, keepdim=True).detach()))
    total = a.total(e).unsqueeze(-1)
    heads = a.dot(a.may(e / total), v.mT) if a.either() else a.may(a.dot(e, v.mT) / total)
    return heads.transpose(1, 2).flatten(2)


def low_rank(adapter, matrix, first=None):
    """lora_alpha / r, A [r, in], B [out, r] of one matrix, or None. first: the first adapter of the mix."""
    config, at = adapter["config"], f"base_model.model.{matrix}"
    if f"{at}.lora_A.weight" not in adapter["weights"]:
        return None
    A, B = adapter["weights"][f"{at}.lora_A.weight"], adapter["weights"][f"{at}.lora_B.weight"]
    if wrong("a-b-swapped") and A.shape[-1] == B.shape[-2]:
        A, B = B.mT, A.mT
    if wrong("one-alpha-over-r"):
        config = first["config"]
    root = config["use_rslora"] and not wrong("rslora-as-lora")
    scale = config["lora_alpha"] / (math.sqrt(config["r"]) if root else config["r"])
    return 1 if wrong("no-alpha-over-r") else scale, A, B


def trace(a, model, tokens, mix=(), start=None, gradients=False, position=None, visible=None):
    """Every value on the way to the loss, in the page's order. mix: (number or None, adapter, weight) each; the weight
    is a number or [R]. start: where the sequences of a batch begin, and N. With gradients also dloss/dweight of the
    adapters, or of the model where there are none."""
    c, weights = model["config"], model["weights"]
    H, G, S, f = c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"], frequencies(c)
    t, N, R = torch.as_tensor(tokens), len(tokens), a.draws
    start = torch.as_tensor(start or [0, N])
    sequence = torch.repeat_interleave(torch.arange(len(start) - 1), start.diff())
    i = torch.arange(N)
    if position is None:
        position = i - start[sequence] + (1 if wrong("rotary-from-one") else 0)
        position = i if wrong("positions-run-on") else position
    if visible is None:
        visible = i[None, :] <= i[:, None] + (1 if wrong("mask-off-by-one") else N if wrong("no-mask") else 0)
        visible = visible & ((sequence[None, :] == sequence[:, None]) | wrong("attention-across"))
    out = {"tokens": t.int().expand(R, N)}

    def linear(matrix, x, before=None):  # W x + b + sum_k w_k (lora_alpha / r) B_k (A_k x), for each row x
        y = a.dot(x, weights[f"{matrix}.weight"])
        for _, adapter, w in mix:
            parts = low_rank(adapter, matrix, mix[0][1])
            if parts:
                scale, A, B = parts
                w = torch.as_tensor(w, dtype=a.dtype).reshape(-1, 1, 1)
                inner = a.dot(before if before is not None and wrong("adapter-before-norm") else x, A)
                update = a.may(w * scale * a.dot(inner, B)) if a.either() else a.dot(a.may(w * scale * inner), B)
                y = a.may(y + update)
        return y

    def rotated(name, x, before):
        y, bias = linear(name, x, before), weights.get(f"{name}.bias")
        if bias is not None and not wrong("bias-forgotten") and not wrong("bias-after-rotation"):
            y = a.may(y + bias.unsqueeze(1))
        y = y.view(R, N, -1, S)
        if not name.endswith("v_proj") or wrong("rotary-of-v"):
            y = rotate(a, y, f, position)
        if bias is not None and wrong("bias-after-rotation"):
            y = y + bias.view(R, 1, -1, S)
        return y

    def normed(name, x):
        return norm(a, x, weights[f"{name}.weight"], c["rms_norm_eps"])

    E = weights["model.embed_tokens.weight"]
    x = (E.detach() if wrong("tied-gradient") and c["tie_word_embeddings"] else E)[:, t]
    if wrong("embedding-gradient-overwritten"):
        last = torch.tensor([not (t[n + 1:] == t[n]).any() for n in range(N)])
        x = torch.where(last[:, None], x, x.detach())
    x = out["embed"] = x * math.sqrt(c["hidden_size"]) if wrong("embedding-scaled") else x
    for l in range(c["num_hidden_layers"]):
        at, to = f"model.layers.{l}", f"layers.{l}"
        n = out[f"{to}.attn_norm"] = normed(f"{at}.input_layernorm", x)
        q, k, v = (rotated(f"{at}.self_attn.{m}_proj", n, x) for m in "qkv")
        out[f"{to}.q"], out[f"{to}.k"], out[f"{to}.v"] = q.flatten(2), k.flatten(2), v.flatten(2)
        attn = out[f"{to}.attn"] = attention(a, q, k, v, visible, c)
        attn_out = out[f"{to}.attn_out"] = linear(f"{at}.self_attn.o_proj", attn)
        before = x
        x = a.may((n if wrong("residual-of-norm") else 0 if wrong("residual-forgotten") else x) + attn_out)
        gains = "input_layernorm" if wrong("norm-of-attention-twice") else "post_attention_layernorm"
        n = out[f"{to}.mlp_norm"] = normed(f"{at}.{gains}", before if wrong("parallel-layers") else x)
        gate = out[f"{to}.gate"] = linear(f"{at}.mlp.gate_proj", n)
        up = out[f"{to}.up"] = linear(f"{at}.mlp.up_proj", n)
        if wrong("gate-up-swapped"):
            gate, up = up, gate
        act = torch.nn.functional.gelu(gate) if wrong("gelu") else a.near(1 / (1 + torch.exp(-gate)))
        act = act if wrong("gelu") or wrong("sigmoid") else a.may(gate * act)
        mlp_out = out[f"{to}.mlp_out"] = linear(f"{at}.mlp.down_proj", a.may(act * up))
        x = out[f"{to}.out"] = a.may(x + mlp_out)
    n = out["final_norm"] = x if wrong("final-norm-forgotten") else normed("model.norm", x)
    tied = c["tie_word_embeddings"] or wrong("tied-head")
    logits = out["logits"] = a.dot(n, weights["model.embed_tokens.weight" if tied else "lm_head.weight"])
    nll, loss = out["nll"], out["loss"] = losses(a, logits, t, sequence)

    if gradients:
        leaves, factor = {}, {}
        for number, adapter, w in mix:
            prefix = "" if number is None else f"experts.{number}."
            for name, x in adapter["weights"].items():
                leaves[prefix + name] = x
                if wrong("adapter-gradient-unweighted"):
                    factor[prefix + name] = 1 / torch.as_tensor(w).reshape(-1, 1, 1)
                if wrong("adapter-gradient-unscaled") and "lora_B" in name:
                    factor[prefix + name] = adapter["config"]["r"] / adapter["config"]["lora_alpha"]
        leaves = leaves or weights
        grads = torch.autograd.grad(loss.sum(), list(leaves.values()), materialize_grads=True)  # 0: a weight not used
        for name, g in sorted(zip(leaves, grads), key=lambda x: backward_order(x[0])):
            out[f"grad.{name}"] = a.may(g) * factor.get(name, 1)
    return {name: x.detach() for name, x in out.items()}


def backward_order(name):
    """Where a weight's gradient comes in the backward pass: from the head down, in an adapter B before A."""
    parts = ("down", "gate", "up_", "post_attention", "o_", "q_", "k_", "v_", "input")
    if "layers." not in name:
        return ("lm_head", "model.norm", "", "model.embed_tokens").index(name.rsplit(".", 1)[0]), 0, 0, name
    layer, part = re.search(r"layers\.(\d+)\.(?:self_attn\.|mlp\.)?(.*)", name).groups()
    return 2, -int(layer), next(i for i, p in enumerate(parts) if part.startswith(p)), name.replace("lora_B", "lora_0")


def log_softmax(a, logits):
    most = logits.amax(-1, keepdim=True).detach()
    return logits - most - a.near(torch.log(a.total(a.near(torch.exp(logits - most))))).unsqueeze(-1)


def losses(a, logits, t, sequence):
    """nll [N], 0 at the last token of a sequence, and its mean [1] over all predictions."""
    N = len(t)
    inside = torch.ones(N, dtype=torch.bool)
    inside[:-1] = sequence[1:] == sequence[:-1] if not wrong("loss-across") else True
    inside[-1] = False
    target = t if wrong("loss-not-shifted") else torch.roll(t, -1)
    logp = log_softmax(a, logits)
    nll = torch.where(inside, -logp[:, torch.arange(N), target], torch.zeros((), dtype=logp.dtype))
    count = 1 if wrong("loss-of-sum") else N if wrong("loss-over-T") else int(inside.sum())
    if wrong("mean-of-means"):
        parts = [nll[:, (sequence == s) & inside] for s in range(int(sequence[-1]) + 1)]
        return nll, torch.stack([p.mean(1) for p in parts if p.shape[1]]).mean(0).unsqueeze(1)
    return nll, (a.total(nll) / count).unsqueeze(1)


# ---- Routing, merging ----

def route(a, query, centroids, beta=0.2, tau=0.01, most=50, active=0):
    """query [E], centroids [K, E]; query, similarity, experts, weights [R, ..]."""
    q, m = query.to(a.dtype).expand(a.draws, 1, -1), centroids.to(a.dtype).expand(a.draws, -1, -1)
    if not wrong("query-not-normalised"):
        q = a.near(q / torch.sqrt(a.total(q * q)).unsqueeze(-1))
    s = a.dot(q, m)[:, 0]
    c = a.near(torch.exp(-(1 - s) / (beta if wrong("beta-not-squared") else beta ** 2)))
    w = c / a.total(c).unsqueeze(-1)
    first = w[0]
    nearest = torch.argsort(s[0], descending=True, stable=True)
    kept = nearest[:active] if active else torch.arange(len(first)) if wrong("no-tau") else \
        torch.tensor([k for k in nearest.tolist() if (c[0] if wrong("tau-of-c") else first)[k] > tau], dtype=torch.long)
    kept = (torch.sort(kept)[0] if wrong("max-of-lowest") else kept)[:active or most]
    kept = kept if wrong("experts-by-weight") else torch.sort(kept)[0]
    total = 1 if wrong("weights-not-renormalised") else a.total(w[:, kept]).unsqueeze(-1) if len(kept) else 1
    return dict(query=q[:, 0], similarity=s, experts=kept.int().expand(a.draws, -1), weights=w[:, kept] / total)


def merge(a, model, mix):
    """The model with W' = W + sum_k w_k (lora_alpha / r) B_k A_k in the seven matrices of every layer."""
    weights = {name: x.detach().clone() for name, x in model["weights"].items()}
    for l in range(model["config"]["num_hidden_layers"]):
        for matrix in (f"model.layers.{l}.{m}" for m in SEVEN):
            if wrong("merge-attention-only") and ".mlp." in matrix:
                continue
            parts = [(w, low_rank(adapter, matrix, mix[0][1])) for _, adapter, w in mix]
            parts = [(torch.as_tensor(w, dtype=a.dtype).reshape(-1, 1, 1), p) for w, p in parts if p]
            if wrong("merge-unweighted"):
                parts = [(1, p) for _, p in parts]
            to = f"{matrix}.weight"
            if wrong("merge-mean-of-factors"):
                parts = [(1, (sum(w * w * p[0] for w, p in parts), p[1], p[2])) for _, p in parts[:1]]
            for w, (scale, A, B) in parts:
                weights[to] = weights[to] + a.may(w * scale * a.dot(B, A.mT)).detach()
            weights[to] = a.keep(weights[to])
    return dict(config=model["config"], weights={name: x.requires_grad_() for name, x in weights.items()})


def ensemble(a, model, tokens, mix):
    """The weighted mean of the probabilities of the next token, [R, T-1], and the mean of -log of it."""
    t, rows = torch.as_tensor(tokens), torch.arange(len(tokens) - 1)
    each = [(w.reshape(-1, 1, 1), trace(a, model, tokens, [(None, x, 1)])["logits"]) for _, x, w in mix]
    if wrong("ensemble-of-logits"):
        logp = log_softmax(a, sum(w * logits for w, logits in each))
    elif wrong("ensemble-of-logs"):
        logp = sum(w * log_softmax(a, logits) for w, logits in each)
    else:
        logp = torch.log(sum(w * torch.exp(log_softmax(a, logits)) for w, logits in each))
    logp = logp[:, rows, t[1:]]
    return dict(probability=torch.exp(logp), loss=-a.total(logp).unsqueeze(1) / len(rows))


# ---- Training ----

def rate(n, steps, lr, warmup, last, cosine):
    """Of step n = 1 .. steps."""
    s, W = n - 1, int(warmup * steps + (0 if wrong("warm-up-rounded-down") else 0.5))
    if wrong("rate-of-next-step"):
        s += 1
    if s < W:
        return lr * (s if wrong("warm-up-from-0") else s + 1) / W
    x = (s - W) / (steps - W)
    if wrong("warm-up-in-cosine"):
        x = s / steps
    return lr * (last + (1 - last) * ((1 + math.cos(math.pi * x)) / 2 if cosine else 1 - x))


def clip_factor(a, grads, clip):
    """The global norm N [R], and the factor that each gradient is multiplied by."""
    def limit(N):
        factor = clip / (N + (0 if wrong("clip-without-1e-6") else 1e-6))
        if wrong("no-clip"):
            return torch.ones_like(N)
        return factor if wrong("clip-always") else torch.clamp(factor, max=1)
    N = torch.sqrt(a.total(torch.cat([(g * g).flatten(1) for g in grads.values()], 1)))
    if wrong("clip-each-tensor"):
        return N, {name: limit(torch.sqrt((g * g).flatten(1).sum(1))) for name, g in grads.items()}
    return N, {name: limit(N) for name in grads}


def adamw(a, w, g, m, v, n, lr, b1=0.9, b2=0.98, eps=1e-3, decay=0.0):
    """Step n = 1, 2 ...: the new w, m, v."""
    if wrong("betas-swapped"):
        b1, b2 = b2, b1
    k = n - 1 if wrong("bias-correction-from-0") else n
    scalar = float if a.either() else np.float32  # 1 - 0.98 is off by 1e-6 in float32
    rest1, rest2 = float(1 - scalar(b1)), float(1 - scalar(b2))
    root1, root2 = float(1 - scalar(b1) ** k) or 1, math.sqrt(1 - scalar(b2) ** k) or 1
    if wrong("no-bias-correction"):
        root1, root2 = 1, 1
    if wrong("decay-coupled"):
        g = g + decay * w
    else:
        w = w - lr * decay * w
    m, v = b1 * m + rest1 * g, b2 * v + rest2 * g * g
    down = torch.sqrt(v / root2 ** 2 + eps) if wrong("eps-in-root") else \
        (torch.sqrt(v) + eps) / root2 if wrong("eps-before-correction") else torch.sqrt(v) / root2 + eps
    return w - a.near(lr / root1 * m / down), m, v


def train(a, trainable, steps, gradient, schedule, clip, decay, eps):
    """AdamW on a dict of weights, changed in place. gradient(n): loss and gradients of step n. Yields each step's loss,
    norm and rate."""
    single = a.single()
    m, v = ({name: torch.zeros_like(x) for name, x in trainable.items()} for _ in range(2))
    for n in range(1, steps + 1):
        loss, grads = gradient(n)
        N, factor = clip_factor(single, grads, clip)
        lr = rate(n, steps, **schedule)
        for name, w in trainable.items():
            g = grads[name] * factor[name].reshape((-1,) + (1,) * (w.dim() - 1))
            lam = 0 if name.endswith("norm.weight") and not wrong("decay-of-norms") else decay
            new, m[name], v[name] = adamw(single, w.detach(), g, m[name], v[name], n, lr, eps=eps, decay=lam)
            with torch.no_grad():
                w.copy_(new)
        yield loss[:, 0], N, single.near(torch.full_like(N, lr))


def gradients_of(out):
    return out["loss"], {name[5:]: g for name, g in out.items() if name.startswith("grad.")}


# ---- Embedding, clusters, neighbours, sampling, text ----

def mix_bits(z):
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9 % 2 ** 64
    z = (z ^ z >> 27) * 0x94d049bb133111eb % 2 ** 64
    return z ^ z >> 31


GOLDEN = 0x9e3779b97f4a7c15


def counts(text, E=2048):
    """Of a text's n-grams, n = 1 .. 4, by bucket, with signs."""
    c = np.zeros(E)
    for n in range(1, 4 if wrong("ngrams-of-three") else 5):
        for i in range(len(text) - n + 1):
            h = mix_bits((int.from_bytes(text[i:i + n], "big") + n * GOLDEN) % 2 ** 64)
            c[h % E] += -1 if h >> 63 and not wrong("ngrams-unsigned") else 1
    return c


def unit(a, x):
    """Rows divided by their lengths, [R, .., E]."""
    return a.near(x / torch.sqrt(a.total(x * x)).unsqueeze(-1))


def embed(a, texts):
    """Unit vectors [R, n, E] of the texts, and the inverse document frequencies [R, E]."""
    c = np.stack([counts(t) for t in texts])
    idf = a.near(torch.log(bare(a, (2 + len(texts)) / (1.0 + (c != 0).sum(0)))))
    c = bare(a, c)
    size = c.abs() if wrong("no-logarithm") else a.near(torch.log(1 + c.abs()))
    return unit(a, torch.sign(c) * size * (1 if wrong("idf-forgotten") else idf.unsqueeze(1))), idf


def halves(x, rows):
    """The best two clusters of x[rows] that Lloyd's algorithm finds from all pairs of rows: which of rows, inertia."""
    best = None
    for i, j in itertools.combinations(range(len(rows)), 2):
        mean = x[rows][[i, j]]
        for _ in range(100):
            d = ((x[rows][:, None] - mean) ** 2).sum(-1)
            side = d[:, 1] < d[:, 0]
            if side.all() or not side.any():
                break
            new = np.stack([x[rows][~side].mean(0), x[rows][side].mean(0)])
            if (new == mean).all():
                break
            mean = new
        total = d.min(1).sum()
        if side.any() and not side.all() and (best is None or total < best[0] - 1e-12):
            best = total, side
    side = best[1]
    stays = side if side.sum() > (~side).sum() else ~side
    return ~stays if wrong("clusters-larger-first") else side ^ side[0]


def cluster(a, x, K):
    """Bisecting k-means: numbers [n], centroids [R, K, E]."""
    number = np.zeros(len(x), np.int32)
    for k in range(1, K):
        def width(j):
            rows = x[number == j]
            return len(rows) if wrong("clusters-by-size") else ((rows - rows.mean(0)) ** 2).sum()
        widest = max((j for j in range(k) if (number == j).sum() > 1), key=width)
        rows = np.flatnonzero(number == widest)
        number[rows[halves(x, rows)]] = k
    mean = torch.stack([a.near(a.total(bare(a, x[number == k].T)) / (number == k).sum()) for k in range(K)], 1)
    return number, mean if wrong("centroid-not-normalised") else unit(a, mean)


def nearest(q, x, count):
    if wrong("neighbours-normalised"):
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
    order = np.argsort(-(x @ q), kind="stable")[:count]
    return np.repeat(order[:1], count) if wrong("nearest-once-more") else order


def sift(q, x, count, lam=0.01):
    """By the variance left after each possible choice, matrices solved anew; and how much better each choice was."""
    chosen, margin = [], []
    for _ in range(count):
        left = []
        for i in range(len(x)):
            X = x[chosen + [i]]
            noise = np.eye(len(X)) * lam
            if wrong("sift-without-noise"):
                noise *= 1e-9
            k = X @ q
            left.append(math.inf if wrong("sift-once-each") and i in chosen else
                        q @ q - k @ np.linalg.solve(X @ X.T + noise, k))
        two = np.sort(left)[:2]
        chosen.append(int(np.argmin(left)))
        margin.append(two[1] - two[0])
    return np.array(chosen, np.int32), np.array(margin)


def sample(logits, u, temperature, top_k, top_p):
    """A token for each u, and how far the choices are from being others."""
    z = logits * temperature if wrong("temperature-multiplied") else logits / temperature
    p = np.exp(z - z.max())
    order = np.argsort(-p, kind="stable")
    whole = p.sum()
    if top_k and not wrong("top-k-last"):
        order = order[:top_k]
    reached = np.cumsum(p[order]) / (whole if wrong("top-p-of-all") else p[order].sum())
    keep = int((reached < top_p).sum()) + (0 if wrong("top-p-exclusive") else 1)
    order = order[:max(keep, 1)][:top_k or None]
    edge = np.cumsum(p[order]) / p[order].sum()
    index = np.minimum((edge[None] <= u[:, None]).sum(1), len(order) - 1)
    away = np.abs(edge[None, :-1] - u[:, None]).min(initial=1)
    return order[index].astype(np.int32), min(away, np.abs(reached - top_p).min() if top_p < 1 else 1)


def byte_names():
    """GPT-2's character of each byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in plain]
    return {b: chr(b) for b in plain} | {b: chr(256 + i) for i, b in enumerate(rest)}


WORDS = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+")


def tokenize(tokenizer, text):
    """Byte-level BPE with GPT-2's splitting."""
    vocab, names = tokenizer["model"]["vocab"], byte_names()
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in tokenizer["model"]["merges"]]
    order = {m: i for i, m in enumerate(merges)}
    ids = []
    for word in [text] if wrong("no-splitting") else WORDS.findall(text):
        parts = [names[b] for b in word.encode()]
        while True:
            pairs = [(order[p], i) for i, p in enumerate(zip(parts, parts[1:])) if p in order]
            if not pairs:
                break
            i = min(pairs, key=lambda p: p[1] if wrong("merges-left-to-right") else
                    -len("".join(merges[p[0]])) if wrong("merges-by-length") else
                    (p[0], -p[1]) if wrong("merges-from-right") else p)[1]
            parts[i:i + 2] = [parts[i] + parts[i + 1]]
        ids += [vocab[p] for p in parts]
    return np.array(ids, np.int32)


# ---- Everything on the page ----

def cached(a, model, prompt, count):
    """Greedy decoding: the logits from which each token is chosen, the tokens, and keys and values afterwards."""
    tokens, rows, T = list(prompt), [], len(prompt)
    for n in range(count):
        N = len(tokens)
        i = torch.arange(N)
        position, visible = i + 0, i[None, :] <= i[:, None]
        if wrong("cache-position"):
            position[T:] = 0
        if wrong("cache-forgets-itself"):
            visible = visible & ((i[None, :] != i[:, None]) | (i[:, None] < T))
        if wrong("cache-forgets-first"):
            visible = visible & ((i[None, :] > 0) | (i[:, None] < T))
        out = trace(a, model, tokens, position=position, visible=visible)
        rows.append(out["logits"][:, -1])
        tokens.append(int(rows[-1][0].argmax()))
    kv = {name: x for name, x in out.items() if name.endswith((".k", ".v"))}
    return dict(logits=torch.stack(rows, 1), greedy=bare(a, np.array(tokens[T:], np.int32))) | kv


ROUTES = {"default": {}, "beta": dict(beta=0.12), "tau": dict(tau=0.2), "none": dict(tau=0.9), "max": dict(most=2),
          "active": dict(active=1)}
SAMPLES = {"plain": (1.0, 0, 1.0), "cold": (0.5, 0, 1.0), "nucleus": (1.0, 0, 0.7), "top": (1.5, 5, 1.0),
           "both": (0.8, 6, 0.85)}
SHAPES = {"tied": True, "qwen2": True, "linear": False, "llama3": False}  # with gradients?
STEPS = dict(schedule=dict(lr=0.01, warmup=0, last=0.05, cosine=True), decay=0.05, eps=1e-3)
TTT = dict(schedule=dict(lr=0.05, warmup=0, last=0, cosine=False), decay=0.0, eps=0.1)
SCHEDULES = {"cosine": (50, dict(lr=0.02, warmup=0.112, last=0.05, cosine=True)),
             "linear": (30, dict(lr=0.01, warmup=0, last=0.05, cosine=False)),
             "warm": (20, dict(lr=0.01, warmup=0.25, last=0, cosine=False))}
ADAMW = dict(b1=0.9, b2=0.98, eps=1e-3, decay=0.05)
LAST = 5  # rows of the long text that are written


def compute(folder, a, wanted=None, clip=None):
    """Every file of the page, or the wanted ones, of the inputs in FOLDER: {file: {tensor: [R, ..]}}."""
    single, done = a.single(), {}
    if clip is None:
        with open(f"{folder}/manifest.json") as f:
            clip = json.load(f)["files"]["optimiser.safetensors"]["settings"]["clip"]
    with open(f"{folder}/tokens.ids") as f:
        tokens = [int(t) for t in f.read().split()]
    model = load_model(a, f"{folder}/model")
    query = load_file(f"{folder}/query.safetensors")["embedding"]
    centroids = load_file(f"{folder}/model/centroids.safetensors")["embeddings"]
    expert = [load_adapter(a, f"{folder}/model/experts/{k}") for k in range(len(centroids))]
    given = {name: {k: x.double().numpy() if x.is_floating_point() else x.numpy()
                    for k, x in load_file(f"{folder}/given/{name}.safetensors").items()}
             for name in ("batch", "cache", "adamw", "ttt", "embed", "cluster", "nearest", "sample", "bpe")}
    routing = route(single, query, centroids)
    mix = [(int(k), expert[k], w) for k, w in zip(routing["experts"][0], routing["weights"].unbind(1))]

    def file(name):  # computed only where it is wanted
        def run(fill):
            if wanted is None or name in wanted:
                done[name] = fill()
        return run

    def short(out):
        return {k: x for k, x in out.items() if k.endswith(".out") or k in ("final_norm", "logits", "loss")}

    @file("base")
    def _():
        out = trace(a, model, tokens, gradients=True)
        return {k: x for k, x in out.items() if k != "nll"}

    @file("adapter")
    def _():
        out = trace(a, model, tokens, [(None, expert[1], 1)], gradients=True)
        return {k: x for k, x in out.items() if k not in ("nll", "tokens")}

    @file("route")
    def _():
        out = {k: routing[k] for k in ("query", "similarity")}
        for name, settings in ROUTES.items():
            case = route(single, query, centroids, **settings)
            out |= {f"{name}.{k}": case[k] for k in ("experts", "weights")}
        return out

    merged = merge(a, model, mix)
    file("merged")(lambda: {k: x.detach() for k, x in merged["weights"].items()})
    file("dense")(lambda: short(trace(a, merged, tokens)))

    @file("lowrank")
    def _():
        out = trace(a, model, tokens, mix, gradients=True)
        return short(out) | {k: x for k, x in out.items() if k.startswith("grad.")}

    file("ensemble")(lambda: ensemble(a, model, tokens, mix))

    @file("choices")
    def _():
        logits = trace(a, model, tokens)["logits"]
        return dict(greedy=logits[:1].argmax(-1).int().expand(a.draws, -1))

    @file("cache")
    def _():
        return cached(a, model, given["cache"]["prompt"].tolist(), 6)

    @file("batch")
    def _():
        start = given["batch"]["start"].tolist()
        out = trace(a, model, given["batch"]["tokens"].tolist(), start=start, gradients=True)
        grads = ("embed_tokens", "layers.0.self_attn.k_proj", "layers.1.mlp.up_proj", "model.norm")
        return {k: x for k, x in out.items() if k in ("layers.0.q", "layers.0.k", "logits", "nll", "loss") or
                k.startswith("grad.") and any(g in k for g in grads)}

    for name, grads in SHAPES.items():
        @file(name)
        def _():
            m = load_model(a, f"{folder}/{name}")
            out = trace(a, m, tokens, gradients=grads)
            return {k: x for k, x in out.items() if k in ("layers.0.q", "layers.0.k", "logits", "loss")
                    or k.startswith("grad.")}

    @file("long")
    def _():
        with open(f"{folder}/long/tokens.ids") as f:
            ids = [int(t) for t in f.read().split()]
        out = trace(a, load_model(a, f"{folder}/long"), ids, gradients=True)
        last = {f"{name}_last": out[at][:, -LAST:] for name, at in (("q", "layers.0.q"), ("k", "layers.0.k"),
                                                                      ("logits", "logits"))}
        return last | {k: x for k, x in out.items() if k == "loss" or k.startswith("grad.")}

    @file("optimiser")
    def _():
        m = load_model(a, f"{folder}/model")
        steps = train(a, m["weights"], 3, lambda n: gradients_of(trace(a, m, tokens, gradients=True)), clip=clip,
                      **STEPS)
        columns = [torch.stack(x, 1) for x in zip(*steps)]
        return dict(zip(("loss", "norm", "rate"), columns)) | {k: x.detach() for k, x in m["weights"].items()}

    @file("adamw")
    def _():
        w, grad = bare(single, given["adamw"]["start"]), bare(single, given["adamw"]["grad"])
        m, v, rows = torch.zeros_like(w), torch.zeros_like(w), []
        for n in range(1, grad.shape[1] + 1):
            g = grad[:, n - 1]
            N, factor = clip_factor(single, {"all": g}, 1)
            w, m, v = adamw(single, w, g * factor["all"].unsqueeze(1), m, v, n, 0.02, **ADAMW)
            rows.append((N, factor["all"], m, v, w))
        return dict(zip(("norm", "factor", "m", "v", "w"), (torch.stack(x, 1) for x in zip(*rows))))

    @file("schedule")
    def _():
        rates = {name: [rate(n, steps, **s) for n in range(1, steps + 1)] for name, (steps, s) in SCHEDULES.items()}
        return {name: single.near(bare(single, np.array(x))) for name, x in rates.items()}

    @file("ttt")
    def _():
        g = given["ttt"]
        adapter = load_adapter(a, f"{folder}/ttt")
        near = nearest(g["query"], g["embeddings"], 2)
        index = near if wrong("ttt-nearest-first") else near[::-1]
        order = np.repeat(index, 2) if wrong("ttt-passes-apart") else np.tile(index, 2)
        after, start = [], g["start"]

        def gradient(n):
            ids = g["tokens"][start[order[n - 1]]:start[order[n - 1] + 1]].tolist()
            return gradients_of(trace(a, model, ids, [(None, adapter, 1)], gradients=True))
        settings = TTT | dict(schedule=TTT["schedule"] | dict(last=1)) if wrong("ttt-constant-rate") else TTT
        rows = []
        for row in train(a, adapter["weights"], 4, gradient, clip=1, **settings):
            rows.append(row)
            after.append({k: x.detach().clone() for k, x in adapter["weights"].items()})
        columns = dict(zip(("loss", "norm", "rate"), (torch.stack(x, 1) for x in zip(*rows))))
        out = dict(index=bare(a, index.astype(np.int32))) | columns
        return out | {f"step.{n + 1}.{k}": x for n, w in enumerate(after) for k, x in w.items()}

    @file("embed")
    def _():
        g = given["embed"]
        texts = [bytes(g[f"text.{i}"].tolist()) for i in range(len(g))]
        x, idf = embed(single, texts)
        out = {}
        for i in range(len(texts)):
            bucket = torch.nonzero(x[0, i]).flatten()
            out |= {f"bucket.{i}": bucket.int().expand(a.draws, -1), f"value.{i}": x[:, i, bucket],
                    f"idf.{i}": idf[:, bucket]}
        return out

    @file("cluster")
    def _():
        number, centroid = cluster(single, given["cluster"]["x"], 4)
        return dict(cluster=bare(single, number), centroid=centroid)

    @file("nearest")
    def _():
        q, x = given["nearest"]["query"], given["nearest"]["x"]
        return dict(similarity=single.dot(bare(single, x), bare(single, q[None]))[..., 0],
                    nearest=bare(a, nearest(q, x, 6).astype(np.int32)), sift=bare(a, sift(q, x, 8)[0]))

    file("sample")(lambda: {name: bare(a, sample(given["sample"]["logits"], given["sample"]["u"], *settings)[0])
                            for name, settings in SAMPLES.items()})

    @file("bpe")
    def _():
        with open(f"{folder}/bpe/tokenizer.json") as f:
            tokenizer = json.load(f)
        texts = [bytes(x.tolist()).decode() for _, x in sorted(given["bpe"].items())]
        return {f"ids.{i}": bare(a, tokenize(tokenizer, t)) for i, t in enumerate(texts)}

    return done


FULL = ("route", "adamw", "schedule", "embed", "cluster", "nearest")  # in float32 in every lower precision
MASTERS = ("optimiser", "ttt")  # these weights, too


def save(done, out, a):
    os.makedirs(out, exist_ok=True)
    for name, tensors in done.items():
        stored = a.dtype if name in FULL + MASTERS else a.stored
        save_file({k: (x[0].to(stored) if x.is_floating_point() else x[0].int()).clone(memory_format=torch.contiguous_format)
                   for k, x in tensors.items()}, f"{out}/{name}.safetensors")


ARITHMETIC = {"f64": Float64, "f32": Rounded, "bf16": lambda: Rounded(torch.bfloat16),
              "f16": lambda: Rounded(torch.float16)}


def run(folder, out, precision="f64", mistake=None):
    """Writes every file of the page into OUT."""
    global MISTAKE
    MISTAKE = mistake
    a = ARITHMETIC[precision]()
    save(compute(folder, a), out, a)
    MISTAKE = None


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="mistakes:\n" + "\n".join(f"  {name:31}{what}" for name, what in MISTAKES.items()))
    parser.add_argument("folder", metavar="VECTORS", help="the folder of vectors")
    parser.add_argument("out", metavar="OUT", help="where the files go")
    parser.add_argument("--precision", choices=ARITHMETIC, default="f64")
    parser.add_argument("--mistake", metavar="NAME", choices=MISTAKES, help="make one of the mistakes below")
    parser.add_argument("--mistakes", action="store_true",
                        help="each of them in each precision, in OUT/PRECISION/NAME; none in OUT/PRECISION/right")
    args = parser.parse_args()
    if args.mistakes:
        for p in ARITHMETIC:
            for name in [None, *MISTAKES]:
                run(args.folder, f"{args.out}/{p}/{name or 'right'}", p, name)
    else:
        run(args.folder, args.out, args.precision, args.mistake)
