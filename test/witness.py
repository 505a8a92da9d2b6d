#!/usr/bin/env python3
"""The witness of test/BITS.md (section 13) in NumPy, written from that page alone: every bit of ttmm's float build.

    python3 test/witness.py MODEL [--each] [--only stage,stage] [--length T] [--steps N] [--tokens N]

Functions stand in the order of the page's sections. Floats are float32 arrays, doubles float64 arrays and Python's
floats. NumPy rounds each product and each sum of elements by itself, so only long sums need care: they are loops over
their axis, vectorised over everything else. What has an order or roundings of its own is not used: np.sum, @, np.exp,
Python's sum.
"""
import argparse
import hashlib
import json
import math
from collections import namedtuple
from pathlib import Path

import numpy as np

f32, f64 = np.float32, np.float64

def zeros(*shape):
    return np.zeros(shape, f32)


# 1. Numbers

def load(path):
    """The tensors of a safetensors file, as floats."""
    raw = np.memmap(path, np.uint8, "r")
    start = 8 + int(raw[:8].view("<u8")[0])
    tensors = json.loads(raw[8:start].tobytes())
    tensors.pop("__metadata__", None)
    for name, t in tensors.items():
        x = np.asarray(raw[start:][slice(*t["data_offsets"])])
        x = x.view({"F32": "<f4", "F16": "<f2", "F64": "<f8", "BF16": "<u2"}[t["dtype"]]).reshape(t["shape"])
        tensors[name] = (x.astype(np.uint32) << 16).view(f32) if t["dtype"] == "BF16" else x.astype(f32)
    return tensors

def fold(x):
    """[..., n] as blocks of 16 lanes, [ceil(n / 16), 16, ...]; the zeros that fill the last block change no sum."""
    x = np.concatenate([x, zeros(*x.shape[:-1], -x.shape[-1] % 16)], -1)
    return np.ascontiguousarray(np.moveaxis(x.reshape(*x.shape[:-1], -1, 16), (-2, -1), (0, 1)))

def halve(lane):
    for h in (8, 4, 2, 1):
        lane = lane[:h] + lane[h:]
    return lane[0]

def total(x):
    """sum(x), over the last axis."""
    lane = zeros(16, *x.shape[:-1])
    for block in fold(x):
        lane += block
    return halve(lane)

def dot(x, y):
    return total(x * y)

def dots(x, w):
    """dot of each row of x [T, n] with each row of w [O, n]: [T, O]; some rows of w at a time, for the caches."""
    y, x, some = zeros(len(x), len(w)), fold(x)[..., None], 1 + 1900 // len(x)
    for o in range(0, len(w), some):
        lane = zeros(16, len(y), len(w[o:o + some]))
        product = np.empty_like(lane)
        for x_block, w_block in zip(x, fold(w[o:o + some])[:, :, None]):
            lane += np.multiply(x_block, w_block, out=product)
        y[:, o:o + some] = halve(lane)
    return y

def rows(y, a, b):
    """Rows y_i += Σ_k a_k,i b_k for each row of y [I, n], in place; a [K, I], b [K, n]."""
    product = np.empty_like(y)
    for a_k, b_k in zip(a, b):
        y += np.multiply(a_k[:, None], b_k, out=product)
    return y

def ascending(x):
    """A sum of doubles from 0, in their order."""
    t = 0.0
    for v in x:
        t = t + v
    return t


# 2. exp, log, sin, cos

LN2H, LN2L, LOG2E, C, TWO_OVER_PI, *HALF_PI = map(float.fromhex, """
    0x1.62e42fee00000p-1 0x1.a39ef35793c76p-33 0x1.71547652b82fep+0 0x1.6a09e667f3bcdp-1 0x1.45f306dc9c883p-1
    0x1.921fb54p+0 0x1.10b46118p-30 0x1.313198ap-61 0x1.701b839a25205p-92""".split())

ERF_P, ERF_Q = [[float.fromhex(c) for c in text.split()] for text in ("""
    -0x1.abae4bf126e94p-31 0x1.1f562b648ddeap-27 -0x1.8fca12ec01cccp-24 0x1.fa2720f59ff69p-21
    -0x1.2128fde951fbep-17 0x1.26f9fc847572ap-14 -0x1.0908608843dacp-11 0x1.9c83eca4c2699p-9
    -0x1.1070cb9fee9ebp-6 0x1.2a78d10016c20p-4 -0x1.0c56e48f1a817p-2 -0x1.1868dcff76633p-4""", """
    0x1.565c0d29eab84p-38 -0x1.0668e2a3b3d52p-33 0x1.6a9a707b07203p-30 -0x1.24b5e7caf8fe2p-27 0x1.1ed606d0dc511p-25
    -0x1.f255c7354fd42p-25 -0x1.b7d23782f92c1p-23 0x1.1e24b2100a0a3p-19 -0x1.448472790fc59p-17
    0x1.c852ae913c71fp-16 -0x1.b92ddb6c6e919p-16 -0x1.f1b04a7e26e05p-13 0x1.033f5a12d4dcep-9 -0x1.48c9d37fc1d58p-7
    0x1.5477f099b6d10p-5 0x1.afabc11a2afd8p-1 0x1.51c9b0006c21ap+1 0x1.d97fbf27aa2a1p+0""")]

def horner(z, *c):
    p = c[0]
    for c_j in c[1:]:
        p = p * z + c_j
    return p

def EXP(x):
    y = np.clip(np.asarray(x, f64), -750, 720)
    n = np.rint(y * LOG2E)
    high = y - n * LN2H
    r = high - n * LN2L
    low = (high - r) - n * LN2L
    one = 1 + r
    p = one + (((1 - one) + r) + (r * r * horner(r, *(1 / math.factorial(i) for i in range(13, 1, -1))) + low))
    m = n.astype(int) + 2048
    h = m // 2
    return p * np.ldexp(1.0, h - 1024) * np.ldexp(1.0, m - h - 1024)

def LOG(x):
    """Of finite x > 0: no others come up here."""
    f1, k = np.frexp(np.asarray(x, f64))
    f1, k = np.where(f1 < C, 2 * f1, f1), np.where(f1 < C, k - 1, k)
    f = f1 - 1
    s = f / (2 + f)
    z = s * s
    R = horner(z, *(2 / n for n in range(21, 1, -2))) * z
    q = 0.5 * f * f
    return k * LN2H + (f - (q - (s * (q + R) + k * LN2L)))

def SINCOS(x):
    """(SIN(x), COS(x)) of |x| <= 2^22."""
    def sub(a, b):
        d = a - b
        t = d - a
        return d, (a - (d - t)) - (b + t)
    x = np.asarray(x, f64)
    n = np.rint(x * TWO_OVER_PI)
    r, e1 = sub(x - n * HALF_PI[0], n * HALF_PI[1])
    r, e2 = sub(r, n * HALF_PI[2])
    r, e = sub(r, n * HALF_PI[3] - (e1 + e2))
    z = r * r
    s = horner(z, *((-1) ** (i // 2) / math.factorial(i) for i in range(17, 2, -2)))
    c = horner(z, *((-1) ** (i // 2) / math.factorial(i) for i in range(16, 3, -2)))
    sr = r + (r * z * s + e * (1 - 0.5 * z))
    g = 0.5 * z
    one = 1 - g
    cr = one + (((1 - one) - g) + (z * z * c - r * e))
    quarter = n.astype(int) % 4
    return np.choose(quarter, [sr, cr, -sr, -cr]), np.choose(quarter, [cr, -sr, -cr, sr])

def SIN(x):
    return SINCOS(x)[0]

def COS(x):
    return SINCOS(x)[1]

def ERF(x):
    x = np.asarray(x, f64)
    z, t = x * x - 0.625, np.minimum(np.abs(x), 6) - 1
    return np.where(np.abs(x) < 1, x + x * horner(z, *ERF_P), np.copysign(1 - EXP(-horner(t, *ERF_Q)), x))

def exp(x):
    return EXP(x).astype(f32)


# 3. Random numbers

MASK, GAMMA = 2 ** 64 - 1, 0x9e3779b97f4a7c15

def mix(z):
    """Of an integer, or of an array of uint64."""
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9 & MASK
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb & MASK
    return z ^ (z >> 31)

class Stream:
    def __init__(self, seed, purpose, index):
        s = mix(seed)
        for c in purpose.encode():
            s = mix(s ^ c) + 1 & MASK
        self.state = mix(s ^ index)

    def next(self):
        self.state = self.state + GAMMA & MASK
        return mix(self.state)

    def uniform(self, n):
        """The next n of them."""
        x = mix(np.arange(1, n + 1, dtype=np.uint64) * GAMMA + self.state)
        self.state = self.state + n * GAMMA & MASK
        return (x >> 11) * 2.0 ** -53

    def below(self, n):
        x = self.next()
        while x < 2 ** 64 % n:
            x = self.next()
        return x % n

    def normal(self, n):
        u = self.uniform(2 * n)
        return np.sqrt(-2 * LOG(1 - u[0::2])) * SINCOS(6.283185307179586 * u[1::2])[1]


# 4. Forward

MATRICES = [f"self_attn.{m}_proj" for m in "qkvo"] + [f"mlp.{m}_proj" for m in ("gate", "up", "down")]
Q, K, V, O, GATE, UP, DOWN = MATRICES
NORM_1, NORM_2, LAST_NORM = "input_layernorm.weight", "post_attention_layernorm.weight", "model.norm.weight"
EMBEDDING = "model.embed_tokens.weight"

class Model:
    """Its tensors w are in the order of section 6."""
    def __init__(self, config, tensors):
        self.config = config
        self.L, self.D, self.V = (config[n] for n in ("num_hidden_layers", "hidden_size", "vocab_size"))
        self.H, self.G = config["num_attention_heads"], config["num_key_value_heads"]
        self.S = config.get("head_dim") or self.D // self.H
        self.z = f32(1 / math.sqrt(self.S))
        self.layers = [f"model.layers.{i}." for i in range(self.L)]
        self.matrices = [layer + m for layer in self.layers for m in MATRICES]
        self.head = EMBEDDING if config.get("tie_word_embeddings") else "lm_head.weight"
        in_layer = [m + ".weight" for m in MATRICES] + [NORM_1, NORM_2] + [m + ".bias" for m in (Q, K, V)]
        names = [layer + n for layer in self.layers for n in in_layer] + [EMBEDDING, LAST_NORM, self.head]
        self.w = {n: tensors[n] for n in names if n in tensors}

    def angles(self, positions):
        """c and s of all positions, [T, 1, S/2] each, the same for all heads."""
        rope = {**self.config, **(self.config.get("rope_parameters") or {}), **(self.config.get("rope_scaling") or {})}
        f = EXP(-2 * np.arange(self.S // 2) / self.S * LOG(rope.get("rope_theta", 10000)))
        if rope.get("rope_type") == "linear":
            f = f / rope["factor"]
        if rope.get("rope_type") == "llama3":
            n = rope["original_max_position_embeddings"] * f / 6.283185307179586
            s = (n - rope["low_freq_factor"]) / (rope["high_freq_factor"] - rope["low_freq_factor"])
            f = np.where(s >= 1, f, np.where(s <= 0, f / rope["factor"], (1 - s) * f / rope["factor"] + s * f))
        s, c = SINCOS(positions[:, None, None] * f)
        return c.astype(f32), s.astype(f32)

    def linear(self, x, name, adapters):
        y = dots(x, self.w[name + ".weight"])
        if name + ".bias" in self.w:
            y = y + self.w[name + ".bias"]
        for a in adapters:
            if name in a.pairs:
                A, B = a.pairs[name]
                y = y + dots(dots(x, A) * a.f, B)
        return y

    def i(self, x):
        """The i of norm, for each row."""
        return (1 / np.sqrt(dot(x, x) / self.D + f32(self.config.get("rms_norm_eps", 1e-6))))[:, None]

    def norm(self, x, name):
        return self.w[name] * (x * self.i(x))

Adapter = namedtuple("Adapter", "number f pairs")                   # pairs: (A, B) of each matrix that it has, in order

def peft(pairs):
    """A and B by PEFT's names."""
    return {f"base_model.model.{name}.lora_{x}.weight": t for name, pair in pairs.items() for x, t in zip("AB", pair)}

def rotate(x, c, s):
    a, b = np.split(x, 2, -1)
    return np.concatenate([a * c - b * s, b * c + a * s], -1)

def probabilities(q, k, z):
    """P [T, U] of one head; the T queries are at the last of the U positions. P_j = +0 for j > i."""
    t = dots(q, k) * z
    T, U = t.shape
    t[np.arange(U) > np.arange(U - T, U)[:, None]] = -np.inf
    e = exp(t - t.max(-1, keepdims=True))
    return e / total(e)[:, None]

def places(batch):
    """The rows of each sequence in the batch, and the positions of all tokens."""
    ends = np.cumsum([len(s) for s in batch])
    return [slice(e - len(s), e) for s, e in zip(batch, ends)], np.concatenate([np.arange(len(s)) for s in batch])

def forward(model, batch, adapters=(), cache=None):
    """Tokens, embed, layers (of each a dictionary, with section 13's names, and x, mid, act), final_norm, logits of the
    sequences, end to end. cache: k and v of each layer, from which the batch, one sequence, goes on; is updated."""
    m, tokens, (spans, positions) = model, np.concatenate(batch), places(batch)
    past = len(cache[0][0]) if cache else 0
    c, s = m.angles(past + positions)
    embed = x = m.w[EMBEDDING][tokens]
    layers = []
    for i, layer in enumerate(m.layers):
        a = m.norm(x, layer + NORM_1)
        q, k, v = (m.linear(a, layer + n, adapters).reshape(len(x), -1, m.S) for n in (Q, K, V))
        q, k = rotate(q, c, s), rotate(k, c, s)
        keys, values = k, v
        if cache:
            keys, values = cache[i] = [np.concatenate(pair) for pair in zip(cache[i], (k, v))]
        attn = np.zeros_like(q)
        for at in spans:
            seen = slice(at.start, at.stop + past)
            for h in range(m.H):
                g = h // (m.H // m.G)
                rows(attn[at, h], probabilities(q[at, h], keys[seen, g], m.z).T, values[seen, g])
        attn = attn.reshape(len(x), -1)
        attn_out = m.linear(attn, layer + O, adapters)
        mid = x + attn_out
        b = m.norm(mid, layer + NORM_2)
        gate, up = (m.linear(b, layer + n, adapters) for n in (GATE, UP))
        act = gate / (1 + exp(-gate)) * up
        mlp_out = m.linear(act, layer + DOWN, adapters)
        out = mid + mlp_out
        layers.append(dict(attn_norm=a, q=q, k=k, v=v, attn=attn, attn_out=attn_out, mlp_norm=b, gate=gate, up=up,
                           mlp_out=mlp_out, out=out, x=x, mid=mid, act=act))
        x = out
    final_norm = m.norm(x, LAST_NORM)
    return dict(tokens=tokens, embed=embed, layers=layers, final_norm=final_norm, logits=dots(final_norm, m.w[m.head]))

def loss(r, batch):
    """The loss, in double, of what forward returned, and e and Z for backward."""
    m = r["logits"].max(-1)
    d = r["logits"][np.arange(len(m)), np.roll(r["tokens"], -1)] - m
    e = exp(r["logits"] - m[:, None])
    Z = total(e)
    nll = LOG(Z).astype(f32) - d
    nll[[at.stop - 1 for at in places(batch)[0]]] = 0
    return float(total(nll)) / (len(m) - len(batch)), e, Z


# 5. Backward

def backward(model, batch, r, e, Z, adapters=()):
    """Gradients: a dictionary for each adapter; without adapters one, of all weights."""
    m, N, (spans, positions) = model, len(e), places(batch)
    dw = {} if adapters else {name: np.zeros_like(w) for name, w in m.w.items()}
    grads = [{name: [np.zeros_like(t) for t in pair] for name, pair in a.pairs.items()} for a in adapters]

    def norm(dx, dy, x, name):
        """dx += of y = norm(x, g)."""
        g, i = m.w[name], m.i(x)
        dx += (g * dy - x * i * (total(g * dy * x)[:, None] * i / m.D)) * i
        if dw:
            for dg_t in dy * (x * i):
                dw[name] += dg_t

    def linear(dx, dy, x, name):
        """dx += of y = linear(x)."""
        rows(dx, dy.T, m.w[name + ".weight"])
        if dw:
            rows(dw[name + ".weight"], dy, x)
        if name + ".bias" in dw:
            for dy_t in dy:
                dw[name + ".bias"] += dy_t
        for a, grad in zip(adapters, grads):
            if name in a.pairs:
                (A, B), (dA, dB) = a.pairs[name], grad[name]
                rows(dB, dy, dots(x, A) * a.f)
                v = rows(zeros(N, len(A)), dy.T, B) * a.f
                rows(dA, v, x)
                rows(dx, v.T, A)

    c = f32(1 / (N - len(batch)))
    dlogits = e / Z[:, None] * c
    dlogits[np.arange(N), np.roll(r["tokens"], -1)] -= c
    dlogits[[at.stop - 1 for at in spans]] = 0
    dx = zeros(N, m.D)
    norm(dx, rows(zeros(N, m.D), dlogits.T, m.w[m.head]), r["layers"][-1]["out"], LAST_NORM)
    if dw:
        rows(dw[m.head], dlogits, r["final_norm"])
    cos, sin = m.angles(positions)
    for layer, y in zip(reversed(m.layers), reversed(r["layers"])):
        dact, db, dattn, da = (np.zeros_like(y[n]) for n in ("act", "mlp_norm", "attn", "attn_norm"))
        linear(dact, dx, y["act"], layer + DOWN)
        gate, up = y["gate"], y["up"]
        s = 1 / (1 + exp(-gate))
        linear(db, dact * up * (s * (1 + gate * (1 - s))), y["mlp_norm"], layer + GATE)
        linear(db, dact * (gate * s), y["mlp_norm"], layer + UP)
        norm(dx, db, y["mid"], layer + NORM_2)
        linear(dattn, dx, y["attn"], layer + O)
        q, k, v, do = y["q"], y["k"], y["v"], dattn.reshape(N, m.H, m.S)
        dq, dk, dv = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
        for at in spans:
            for h in range(m.H):
                g = h // (m.H // m.G)
                P, dP = probabilities(q[at, h], k[at, g], m.z), dots(do[at, h], v[at, g])
                R = P * (dP - dot(P, dP)[:, None]) * m.z
                rows(dq[at, h], R.T, k[at, g])
                rows(dv[at, g], P, do[at, h])
                rows(dk[at, g], R, q[at, h])
        for name, dy in ((Q, rotate(dq, cos, -sin)), (K, rotate(dk, cos, -sin)), (V, dv)):
            linear(da, dy.reshape(N, -1), y["attn_norm"], layer + name)
        norm(dx, da, y["x"], layer + NORM_1)
    if dw:
        for token, dx_t in zip(r["tokens"], dx):
            dw[EMBEDDING][token] += dx_t
    return [peft(grad) for grad in grads] or [dw]


# 6. Training

def fresh_model(model, seed):
    for name, w in model.w.items():
        if w.ndim == 2:
            d = 0.02 / math.sqrt(2 * model.L) if "o_proj" in name or "down_proj" in name else 0.02
            yield name, (d * Stream(seed, name, 0).normal(w.size)).astype(f32).reshape(w.shape)
        else:
            yield name, np.full_like(w, 0 if name.endswith("bias") else 1)

def fresh_adapter(model, seed, number, R, alpha):
    key, pairs = Stream(seed, "lora", number).next(), {}
    for i, name in enumerate(model.matrices):
        outputs, inputs = model.w[name + ".weight"].shape
        A = (2 * Stream(key, "A", i).uniform(R * inputs) - 1) * (1 / math.sqrt(inputs))
        pairs[name] = [A.astype(f32).reshape(R, inputs), zeros(outputs, R)]
    return Adapter(number, f32(alpha / R), pairs)

def order(seed, number, epoch, n, shuffled):
    o = list(range(n))
    if shuffled:
        g = Stream(Stream(seed, "order", number).next(), "epoch", epoch)
        for i in range(n, 1, -1):
            j = g.below(i)
            o[i - 1], o[j] = o[j], o[i - 1]
    return o

def power(x, n):
    y = 1.0
    while n > 0:
        y, n, x = y * x if n % 2 else y, n // 2, x * x
    return y

def rate(s, steps, lr, warmup, last, cosine):
    W = math.floor(warmup * steps + 0.5)
    if s < W:
        return lr * (s + 1) / W
    x = (s - W) / (steps - W)
    shape = 0.5 * (1 + float(SINCOS(3.141592653589793 * x)[1])) if cosine else 1 - x
    return lr * (last + (1 - last) * shape)

def train(model, adapters, sequences, steps, batch, shuffled, warmup, cosine, b2, decay):
    """The lines of a run of seed 1, number 0, which trains the adapter, or without one the model, in place."""
    tensors, b1 = peft(adapters[0].pairs) if adapters else model.w, 0.9
    m, v = ({name: np.zeros_like(w) for name, w in tensors.items()} for _ in range(2))
    for s in range(steps):
        visits = [divmod(i, len(sequences)) for i in range(s * batch, s * batch + batch)]
        taken = [sequences[order(1, 0, epoch, len(sequences), shuffled)[place]] for epoch, place in visits]
        r = forward(model, taken, adapters)
        value, e, Z = loss(r, taken)
        yield f"step.{s + 1}.loss", np.array([value]).astype(f32)
        grads = backward(model, taken, r, e, Z, adapters)[0]
        c = 1 / (math.sqrt(ascending(float(dot(g.ravel(), g.ravel())) for g in grads.values())) + 1e-6)
        scale = f32(min(c, 1))
        eta = rate(s, steps, 0.01, warmup, 0.05, cosine)
        step, root = f32(eta / (1 - power(b1, s + 1))), f32(math.sqrt(1 - power(b2, s + 1)))
        for name, w in tensors.items():
            keep = f32(1 - eta * (0 if name.endswith(("norm.weight", ".bias")) else decay))
            g = grads[name] * scale
            m[name] = f32(b1) * m[name] + f32(1 - b1) * g
            v[name] = f32(b2) * v[name] + f32(1 - b2) * (g * g)
            w[...] = w * keep - step * (m[name] / (np.sqrt(v[name]) / root + f32(1e-8)))
    yield from tensors.items()


# 7. Embedding

def normalise(x):
    m = np.abs(x).max()
    if m == 0 or not np.isfinite(m):
        return x
    x = x / m
    return x / np.sqrt(dot(x, x))

def embed(texts, longest, symbol):
    """idf [2048] and embeddings [M, 2048]; longest n-gram and type of its symbols: 4, >u1 of bytes; 2, >u4 of ids."""
    counts = np.zeros((len(texts), 2048), int)
    for c, text in zip(counts, texts):
        for n in range(1, longest + 1):
            for i in range(len(text) - n + 1):
                h = mix(int.from_bytes(text[i:i + n].astype(symbol).tobytes(), "big") + n * GAMMA & MASK)
                c[h % 2048] += -1 if h >> 63 else 1
    idf = LOG((2 + len(texts)) / (1 + np.count_nonzero(counts, 0))).astype(f32)
    x = np.sign(counts) * (LOG(1 + np.abs(counts)) * idf.astype(f64))
    return idf, np.stack([normalise(row) for row in x.astype(f32)])


# 8. Clusters

def mean(x):
    return (ascending(x.astype(f64)) / len(x)).astype(f32)

def halves(x, g):
    """One start: the sides of the rows x, and the inertias of both."""
    n = len(x)
    first = g.below(n)
    d = np.maximum(2 - 2 * dot(x, x[first]).astype(f64), 0)
    point, j = g.uniform(1)[0] * ascending(d), 0
    while j + 1 < n and (point := point - d[j]) >= 0:
        j += 1
    means, side = x[[first, j]], None
    for _ in range(100):
        D = 1 - 2 * dots(x, means) + dot(means, means)
        before, side = side, (D[:, 1] < D[:, 0]).astype(int)
        distance = np.maximum(D[np.arange(n), side].astype(f64), 0)
        inertia = [ascending(distance[side == s]) for s in (0, 1)]
        empty = [s for s in (0, 1) if s not in side]
        for s in empty:
            side[np.argmax(distance)] = s
        if not empty and before is not None and (side == before).all():
            break
        means = np.stack([mean(x[side == s]) for s in (0, 1)])
    return side, inertia

def cluster(x, clusters, seed):
    number, inertia = np.zeros(len(x), int), [0.0]
    for k in range(1, clusters):
        split = max((c for c in range(k) if (number == c).sum() > 1), key=lambda c: inertia[c])
        inside = np.flatnonzero(number == split)
        own = x[inside]
        if (own.view(np.uint32) == own[0].view(np.uint32)).all():
            side, i = (np.arange(len(own)) >= (len(own) + 1) // 2).astype(int), [0.0, 0.0]
        else:
            starts = (halves(own, Stream(seed, "cluster", 8 * k + u)) for u in range(8))
            side, i = min(starts, key=lambda start: start[1][0] + start[1][1])
        number[inside[side != side[0]]] = k
        inertia[split] = i[side[0]]
        inertia.append(i[1 - side[0]])
    return number, np.stack([normalise(mean(x[number == k])) for k in range(clusters)])


# 9. Routing, merging, neighbours

def route(s, beta, limit, tau=None):
    """Numbers and weights of the experts that are kept; without τ the limit is `active`."""
    s = s.astype(f64)
    c = EXP((s - s.max()) / (beta * beta))
    w = c / ascending(c)
    before = np.argsort(np.argsort(-s, kind="stable"))
    kept = np.flatnonzero((before < limit) & (tau is None or w > tau))
    return kept, (w[kept].astype(f32).astype(f64) / ascending(w[kept])).astype(f32)

def merged(model, adapters):
    w = {name: x.copy() for name, x in model.w.items()}
    for a in adapters:
        for name, (A, B) in a.pairs.items():
            rows(w[name + ".weight"], (B * a.f).T, A)
    return Model(model.config, w)

def nearest(query, x, choices):
    return np.argsort(-dot(query, x), kind="stable")[:choices]

def sift(query, x, choices, lam):
    q, v, chosen, before = dot(query, x), dot(x, x), [], []
    for _ in range(choices):
        chosen.append(np.argmax(q.astype(f64) * q.astype(f64) / (v.astype(f64) + lam)))
        i = chosen[-1]
        root = np.sqrt(v[i] + f32(lam))
        l, c = q[i] / root, dot(x[i], x)
        for b in before:
            c = c - b * b[i]
        c = c / root
        q, v = q - l * c, v - c * c
        before.append(c)
    return np.array(chosen)


# 10. Decoding

def sample(logits, g, temperature, top_p, top_k):
    p = EXP((logits - logits.max()).astype(f64) / temperature).astype(f32)
    tokens = np.argsort(-p, kind="stable")[:top_k]
    p = p[tokens].astype(f64)
    limit, n, kept = top_p * ascending(p), 0, 0.0
    while n == 0 or kept < limit:
        kept, n = kept + p[n], n + 1
    point, i = g.uniform(1)[0] * kept, 0
    while i < n - 1 and (point := point - p[i]) >= 0:
        i += 1
    return tokens[i]


# 13. The witness

def one_pass(model, sequence, adapters=(), gradients=True):
    r = forward(model, [sequence], adapters)
    value, e, Z = loss(r, [sequence])
    yield from ((name, r[name]) for name in ("tokens", "embed"))
    for i, layer in enumerate(r["layers"]):
        for name in "attn_norm q k v attn attn_out mlp_norm gate up mlp_out out".split():
            yield f"layers.{i}.{name}", layer[name].reshape(len(sequence), -1)
    yield from (("final_norm", r["final_norm"]), ("logits", r["logits"]), ("loss", np.array([value]).astype(f32)))
    if gradients:
        prefixes = [f"grad.experts.{a.number}." for a in adapters] or ["grad."]
        for prefix, grads in zip(prefixes, backward(model, [sequence], r, e, Z, adapters)):
            yield from ((prefix + name, g) for name, g in grads.items())

def stages(folder, length, steps, tokens):
    """Of each stage its name and a generator of its tensors, in the order of the page."""
    model = Model(json.loads((folder / "config.json").read_text()), load(folder / "model.safetensors"))
    g = Stream(1, "witness", 0)
    sequences = [np.array([g.below(model.V) for _ in range(length - i % 3)]) for i in range(9)]
    sequences += sequences[:3]

    def functions():
        g = Stream(1, "functions", 0)
        for name, f, low, high in (("exp", EXP, -760, 760), ("log", LOG, 0, 1000), ("sin", SIN, -10000, 10000),
                                   ("cos", COS, -10000, 10000), ("erf", ERF, -7, 7)):
            yield name, f(low + (high - low) * g.uniform(1000))

    def expert():
        a = fresh_adapter(model, 1, 0, R=4, alpha=8)
        yield from (("start." + name, t) for name, t in peft(a.pairs).items())
        yield from train(model, [a], sequences, steps, 2, True, warmup=0.1, cosine=False, b2=0.999, decay=0)

    def clusters():
        yield from zip(("ids.idf", "ids.embeddings"), embed(sequences, 2, ">u4"))
        idf, x = embed([s % 256 for s in sequences], 4, ">u1")
        yield from (("idf", idf), ("embeddings", x), *zip(("cluster", "centroid"), cluster(x, 11, 1)))
        yield from (("nearest", nearest(x[0], x, 6)), ("sift", sift(x[0], x, 6, 0.01)))

    def routing():
        centroids = load(folder / "centroids.safetensors")["embeddings"]
        query = normalise((2 * Stream(1, "query", 0).uniform(centroids.shape[1]) - 1).astype(f32))
        s = dot(query, centroids)
        yield from (("query", query), ("similarity", s))
        for name, limits in (("active.", (0.7, 4)), ("max.", (0.9, 2, 0)), ("", (0.6, 50, 0.1))):
            yield from zip((name + "experts", name + "weights"), route(s, *limits))

    def experts():
        kept = dict(routing())
        for k, w in zip(kept["experts"], kept["weights"]):
            config = json.loads((folder / f"experts/{k}/adapter_config.json").read_text())
            R = math.sqrt(config["r"]) if config.get("use_rslora") else config["r"]
            tensors = load(folder / f"experts/{k}/adapter_model.safetensors")
            pairs = {n: [tensors.get(name) for name in peft({n: "AB"})] for n in model.matrices}
            yield Adapter(k, w * f32(config["lora_alpha"] / R), {n: p for n, p in pairs.items() if p[0] is not None})

    def merge():
        other = merged(model, experts())
        yield from other.w.items()
        yield from one_pass(other, sequences[0], gradients=False)

    def greedy():
        cache, chosen, taken = [2 * [zeros(0, model.G, model.S)]] * model.L, [], sequences[0][:8]
        for i in range(tokens):
            logits = forward(model, [taken], cache=cache)["logits"]
            yield f"logits.{i}", logits
            taken = np.array([np.argmax(logits[-1])])
            chosen.append(taken[0])
        g = Stream(1, "sample", 0)
        yield from (("tokens", np.array(chosen)),
                    ("sampled", np.array([sample(logits[-1], g, 0.7, 0.9, 12) for _ in range(20)])))

    yield "functions", functions()
    yield "init", fresh_model(model, 1)
    yield "pass", one_pass(model, sequences[0])
    yield "train", train(merged(model, []), [], sequences, 6, 3, False, warmup=0.2, cosine=True, b2=0.98, decay=0.05)
    yield "expert", expert()
    yield "cluster", clusters()
    if (folder / "centroids.safetensors").exists():
        yield "route", routing()
        yield "merge", merge()
        yield "beside", one_pass(model, sequences[0], list(experts()))
    yield "greedy", greedy()

def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--each", action="store_true")
    parser.add_argument("--only")
    for name, default in (("--length", 40), ("--steps", 20), ("--tokens", 50)):
        parser.add_argument(name, type=int, default=default)
    options = parser.parse_args()
    np.seterr(over="ignore")                                        # exp is infinity for large x
    witness = hashlib.sha256()
    for stage, tensors in stages(options.model, options.length, options.steps, options.tokens):
        if options.only and stage not in options.only.split(","):
            continue
        lines = ""
        for name, x in tensors:
            numbers = x.astype({f32: "<f4", f64: "<f8"}.get(x.dtype.type, "<i4")).tobytes()
            lines += f"{stage} {name} {list(x.shape)} {hashlib.sha256(numbers).hexdigest()}\n"
        witness.update(lines.encode())
        print(lines if options.each else f"{stage} {hashlib.sha256(lines.encode()).hexdigest()}\n", end="", flush=True)
    if not options.each:
        print("all", witness.hexdigest())


if __name__ == "__main__":
    main()
