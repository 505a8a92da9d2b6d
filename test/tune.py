"""tune.py - where most settings of test/table.py come from: the method once more in PyTorch, many settings at once.

    python test/tune.py CORPUS [STAGE ...]     in the root, after make, make smollm and make encoder; of experts,
                                               clusters, finetune, ttt (all). A GPU's minutes, two cores' days; some
                                               110 GB of its memory for all of kernel's experts, 40 for others
    python test/tune.py CORPUS test            on the test text, with the settings chosen and three seeds: the baseline
                                               and ttmm-1, -3, -10 of test/table.py once more; and of K = 5 and 100

Every fifth document of the training part is held out (guide: page); on these, scored as run eval does, is printed the
perplexity of the fine-tuned baseline and of experts by passes and rate (with those of SETTINGS by beta, too), of
experts by their number, of TTT. Sequences, embeddings and clusters are ttmm's. A run trains the adapters of all
settings at once: LoRA beside the weights, with A [adapters, r, in], B [adapters, out, r], each with its own batches,
rate, clipping, moments of AdamW, as ttmm defines them; on a GPU in TF32, and with other random numbers than ttmm's,
the same for all passes and rates."""
import functools, json, math, os, statistics, sys, time

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import load_file as load_numpy
from safetensors.torch import load_file
from tokenizers import Tokenizer

from table import (HERE, MODEL, PROMPTS, SETTINGS, TTT_PROMPTS, call, difference, documents, indexed, mean, perplexity,
                   split, write)
from witness import GAMMA, MASK, mix

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
torch.backends.cuda.matmul.allow_tf32 = True
TOKENS = 24576 if DEVICE == "cuda" else 1024  # of a pass
RANK, SCALE, PREFIX = 16, 2.0, 50
C = json.load(open(f"{MODEL}/config.json"))
D, H, G, FF = C["hidden_size"], C["num_attention_heads"], C["num_key_value_heads"], C["intermediate_size"]
S, EPS, LAYERS = C.get("head_dim") or D // H, C["rms_norm_eps"], range(C["num_hidden_layers"])
KINDS = {"self_attn.q_proj": (D, H * S), "self_attn.k_proj": (D, G * S), "self_attn.v_proj": (D, G * S),
         "self_attn.o_proj": (H * S, D), "mlp.gate_proj": (D, FF), "mlp.up_proj": (D, FF), "mlp.down_proj": (FF, D)}
W = {name.removeprefix("model."): w.float().to(DEVICE) for name, w in load_file(f"{MODEL}/model.safetensors").items()}
EMBED = W["embed_tokens.weight"]
THETA = C.get("rope_theta") or C["rope_parameters"]["rope_theta"]


@functools.cache
def angles(T):
    angle = torch.arange(T, dtype=torch.float64)[:, None] * THETA ** (-torch.arange(0, S, 2, dtype=torch.float64) / S)
    return angle.cos().float().to(DEVICE), angle.sin().float().to(DEVICE)


def hidden(ids, adapters=None, E=1):
    """The final norm's output of ids [N, T]; adapters[layer, kind] = (A [E, r, in], B [E, out, r]), N / E rows each."""
    N, T = ids.shape
    cos, sin = angles(T)

    def linear(x, layer, kind):
        y = x @ W[f"layers.{layer}.{kind}.weight"].T
        if adapters is None:
            return y
        A, B = adapters[layer, kind]
        return y + ((x.reshape(E, -1, x.shape[-1]) @ A.mT) @ B.mT).reshape(y.shape)

    def rotate(x):
        a, b = x.chunk(2, -1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    x = EMBED[ids]
    for layer in LAYERS:
        h = F.rms_norm(x, (D,), W[f"layers.{layer}.input_layernorm.weight"], EPS)
        q, k, v = (linear(h, layer, f"self_attn.{c}_proj").view(N, T, -1, S).transpose(1, 2) for c in "qkv")
        k, v = rotate(k).repeat_interleave(H // G, 1), v.repeat_interleave(H // G, 1)
        o = F.scaled_dot_product_attention(rotate(q), k, v, is_causal=True).transpose(1, 2).reshape(N, T, H * S)
        x = x + linear(o, layer, "self_attn.o_proj")
        h = F.rms_norm(x, (D,), W[f"layers.{layer}.post_attention_layernorm.weight"], EPS)
        act = F.silu(linear(h, layer, "mlp.gate_proj")) * linear(h, layer, "mlp.up_proj")
        x = x + linear(act, layer, "mlp.down_proj")
    return F.rms_norm(x, (D,), W["norm.weight"], EPS)


class Loss(torch.autograd.Function):
    """sum of weight * -log softmax(h E')[target]; the gradient at once, some rows at a time: logits are large."""
    @staticmethod
    def forward(ctx, h, target, weight):
        rows, loss = h.reshape(-1, D), 0
        gradient = torch.empty_like(rows)
        for i in range(0, len(rows), 4096):
            t, w = target[i:i + 4096], weight[i:i + 4096]
            logits = rows[i:i + 4096] @ EMBED.T
            p = logits.log_softmax(1)
            loss = loss - (w * p.gather(1, t[:, None])[:, 0]).sum()
            p = p.exp_()
            p[torch.arange(len(t), device=DEVICE), t] -= 1
            gradient[i:i + 4096] = (p * w[:, None]) @ EMBED
        ctx.save_for_backward(gradient.view(h.shape))
        return loss

    @staticmethod
    def backward(ctx, one):
        return ctx.saved_tensors[0], None, None


def parts(flat):
    """{layer, kind: [A, B]}: views of adapters [E, n]."""
    found, at = {}, 0
    for layer in LAYERS:
        for kind, (n_in, n_out) in KINDS.items():
            a, b = RANK * n_in, RANK * n_out
            A, B = flat[:, at:at + a], flat[:, at + a:at + a + b]
            found[layer, kind] = [A.view(-1, RANK, n_in), B.view(-1, n_out, RANK)]
            at += a + b
    return found


def rate(s, steps, peak, warmup):
    warm = int(warmup * steps + 0.5)
    return peak * (s + 1) / warm if s < warm else peak * (1 - 0.95 * (s - warm) / (steps - warm))


def update(P, M, V, ids, target, weight, scales):
    """A step of AdamW of as many adapters as P has rows; ids, target, weight [adapters, batch, T]; scales: rate / (1 -
    0.9^step), 1 / sqrt(1 - 0.999^step)."""
    leaves = {k: [x.detach().requires_grad_() for x in v] for k, v in parts(P).items()}
    h = hidden(ids.flatten(0, 1), {k: (a, SCALE * b) for k, (a, b) in leaves.items()}, len(P))
    loss = Loss.apply(h, target.flatten(), weight.flatten())
    g = torch.autograd.grad(loss, [x for pair in leaves.values() for x in pair])
    g = torch.cat([x.reshape(len(P), -1) for x in g], 1)
    g *= (1 / (g.norm(dim=1, keepdim=True) + 1e-6)).clamp(max=1)
    M.mul_(0.9).add_(g, alpha=0.1)
    V.mul_(0.999).addcmul_(g, g, value=0.001)
    P -= scales[0] * M / (V.sqrt() * scales[1] + 1e-8)


def recorded(step, *values):
    """The step as a CUDA graph: hundreds of kernels in one launch. Values are copied to where it has them."""
    fixed, graph = [x.clone() for x in values], torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step(*fixed)

    def replay(*values):
        for x, value in zip(fixed, values):
            x.copy_(value)
        graph.replay()
    return replay


def train(sequences, jobs, batch=2, shuffle=True, warmup=0.1):
    """One adapter for each (which sequences, passes, rate, number of its random draws): [jobs, n]."""
    plan, began, tokens = [], time.time(), 0
    for which, passes, _, number in jobs:
        draw, visits = np.random.default_rng(number), []
        for _ in range(passes):
            visits += list(draw.permutation(which)) if shuffle else list(which)
        plan.append([visits[j:j + batch] for j in range(0, len(visits), batch)])
    order = sorted(range(len(jobs)), key=lambda i: -len(plan[i]))  # those with steps left are always the first ones
    plan, peak = [plan[i] for i in order], [jobs[i][2] for i in order]
    n = RANK * sum(map(sum, KINDS.values())) * len(LAYERS)
    P, M, V = (torch.zeros(len(jobs), n, device=DEVICE) for _ in range(3))
    for row, i in zip(P, order):
        draw = torch.Generator().manual_seed(jobs[i][3])
        for a, _ in parts(row[None]).values():
            a.copy_(torch.empty(a.shape).uniform_(-1, 1, generator=draw) / math.sqrt(a.shape[2]))
    longest = max(len(sequences[q]) for p in plan for visit in p for q in visit)
    at_once, replay, alive, since = max(1, TOKENS // (batch * longest)), None, 0, 0
    for s in range(len(plan[0])):
        before, alive = alive, sum(len(p) > s for p in plan)
        if alive != before:
            replay, since = None, s
        for i in range(0, alive, at_once):
            j = min(alive, i + at_once)
            ids, target, weight = (np.zeros((j - i, batch, longest), t) for t in (np.int64, np.int64, np.float32))
            for e in range(i, j):
                predicted = sum(len(sequences[q]) - 1 for q in plan[e][s])
                for b, q in enumerate(plan[e][s]):
                    x = sequences[q]
                    ids[e - i, b, :len(x)], target[e - i, b, :len(x) - 1] = x, x[1:]
                    weight[e - i, b, :len(x) - 1] = 1 / predicted
                    tokens += len(x)
            lr = [rate(s, len(plan[e]), peak[e], warmup) / (1 - 0.9 ** (s + 1)) for e in range(i, j)]
            scales = np.array([lr, [1 / math.sqrt(1 - 0.999 ** (s + 1))] * (j - i)], np.float32)[:, :, None]
            step, values = functools.partial(update, P[i:j], M[i:j], V[i:j]), (ids, target, weight, scales)
            values = [torch.from_numpy(x).to(DEVICE) for x in values]
            if DEVICE == "cuda" and alive <= at_once and not replay and since + 2 < s < len(plan[alive - 1]) - 100:
                replay = recorded(step, *values)
            (replay or step)(*values)
    print(f"  {len(jobs)} adapters, {tokens} tokens, {tokens / (time.time() - began):.0f} a second", flush=True)
    del M, V
    return P[torch.tensor(order).argsort()]


@torch.no_grad()
def score(prompts, P=None, mixes=None):
    """{prompt: (tokens, -log p)} of what follows the prefix. mixes: for each prompt (rows of P, weights), beside the
    weights."""
    found = {}
    for p, prompt in prompts.items():
        adapters = None
        if mixes:
            rows, w = mixes[p]
            w = torch.tensor(w, dtype=torch.float32, device=DEVICE)[:, None, None]
            adapters = {k: (torch.cat(list(a), 0)[None], torch.cat(list(SCALE * w * b), 1)[None])
                        for k, (a, b) in parts(P[list(rows)]).items()}
        ids = torch.from_numpy(prompt.astype(np.int64)).to(DEVICE)
        logits = hidden(ids[None], adapters)[0, PREFIX - 1:-1] @ EMBED.T
        found[p] = len(ids) - PREFIX, F.cross_entropy(logits, ids[PREFIX:], reduction="sum").item()
    return found


def route(query, centroids, beta, active):
    s = centroids @ query
    w = np.exp((s - s.max()) / beta ** 2)
    rows = np.argsort(-s, kind="stable")[:active]
    return rows, w[rows] / w[rows].sum()


SHOWN = [*range(33, 127), *range(161, 173), *range(174, 256)]  # bytes that byte-level BPE writes as they are
BYTES = {chr(b): b for b in SHOWN} | {chr(256 + i): b for i, b in enumerate(sorted({*range(256)} - {*SHOWN}))}


def built_in(ids, tokenizer, idf):
    """The built-in embedding of a prompt's ids, none of them special, by the corpus's idf (BITS.md, section 7)."""
    text, x = [BYTES[c] for id in ids for c in tokenizer.id_to_token(int(id))], np.zeros(len(idf))
    for n in 1, 2, 3, 4:
        for i in range(len(text) - n + 1):
            h = mix(int.from_bytes(text[i:i + n], "big") + n * GAMMA & MASK)
            x[h % len(idf)] += -1 if h >> 63 else 1
    x = np.sign(x) * np.log(1 + abs(x)) * idf
    return (x / np.linalg.norm(x)).astype(np.float32)


def spaced(numbers, most):
    """So many of them, evenly spaced, as run eval takes them."""
    most = min(most, len(numbers))
    return [numbers[-(-(i + 1) * len(numbers) // most) - 1] for i in range(most)]


class Text:
    """What is trained on (ttmm's sequences, embeddings, clusters), and prompts of text that is not, by number."""

    def __init__(self, corpus, where, trained, held, most):
        self.where, self.by, self.baseline = where, SETTINGS[corpus].get("by", "mpnet"), None
        self.beta = SETTINGS[corpus]["beta"][self.by == "built-in"]
        self.sequences, c = self.index("fit", trained, 256, self.by)
        self.embeddings = c["embeddings"]
        prompts = spaced([p for p in self.index("held", held, 1024, "built-in")[0] if len(p) > PREFIX], most)
        tokenizer = Tokenizer.from_file(f"{MODEL}/tokenizer.json")
        if self.by == "built-in":
            self.queries = np.stack([built_in(p[:PREFIX], tokenizer, c["idf"]) for p in prompts])
        else:
            begun = {"queries": [tokenizer.decode(p[:PREFIX]) for p in prompts]}
            self.queries = self.index("queries", begun, 1024, self.by)[1]["embeddings"]
        self.prompts = dict(enumerate(prompts))
        tokens = sum(map(len, self.sequences))
        print(f"{where}: {len(self.sequences)} sequences, {tokens} tokens; {len(prompts)} prompts", flush=True)
        self.say("base", [score(self.prompts)])

    def index(self, part, texts, context, by):
        """In a model folder of its own."""
        folder = f"{self.where}/{part}"
        indexed(folder, write(folder, texts), by, "--context", context)
        c = load_numpy(f"{folder}/corpus.safetensors")
        return [c["tokens"][a:b] for a, b in zip(c["sequence_offsets"], c["sequence_offsets"][1:])], c

    def say(self, what, runs):
        """Of a score a seed: perplexity; its deviation over seeds; loss less the baseline's, its error over prompts."""
        each = [perplexity(run)[0] for run in runs]
        line = f"{what}: {statistics.mean(each):.3f}"
        line += f" (seeds {statistics.stdev(each):.3f})" if len(each) > 1 else ""
        if self.baseline:
            line += " to finetuned {:+.3f} +- {:.3f}".format(*difference(mean(runs), mean(self.baseline)))
        print(line, flush=True)

    def experts(self, K, settings, betas, seeds=1):
        call("train", "cluster", f"{self.where}/fit", "--experts", K)
        cluster = load_numpy(f"{self.where}/fit/corpus.safetensors")["cluster"]
        centroids = load_numpy(f"{self.where}/fit/centroids.safetensors")["embeddings"]
        members = [np.nonzero(cluster == k)[0] for k in range(K)]
        jobs = [(members[k], *s, u * K + k) for s in settings for u in range(seeds) for k in range(K)]
        P = train(self.sequences, jobs)
        for i, (passes, lr) in enumerate(settings):
            for beta in betas:
                for active in 1, 3, 10:
                    mixes = [route(q, centroids, beta, active) for q in self.queries]
                    self.say(f"K {K}, {passes} passes, rate {lr:g}, beta {beta:g}, ttmm-{active}", [
                        score(self.prompts, P, [((i * seeds + u) * K + near, w) for near, w in mixes])
                        for u in range(seeds)])

    def finetune(self, settings, seeds=1):
        """The best becomes the baseline that others are compared with."""
        every, found = np.arange(len(self.sequences)), []
        P = train(self.sequences, [(every, *s, u) for s in settings for u in range(seeds)])
        for i, (passes, lr) in enumerate(settings):
            found.append([score(self.prompts, P, {p: ([i * seeds + u], [1]) for p in self.prompts})
                          for u in range(seeds)])
            self.say(f"finetuned, {passes} passes, rate {lr:g}", found[-1])
        self.baseline = min(found, key=lambda runs: perplexity(mean(runs))[0])

    def ttt(self, settings):
        prompts = {p: self.prompts[p] for p in spaced(list(self.prompts), TTT_PROMPTS)}
        self.say("base, on ttt's prompts", [score(prompts)])
        for count, passes, lr in settings:
            nearest = [np.argsort(-(self.embeddings @ self.queries[p]), kind="stable")[:count][::-1] for p in prompts]
            P = train(self.sequences, [(x, passes, lr, p) for x, p in zip(nearest, prompts)], batch=1, shuffle=False,
                      warmup=0)
            self.say(f"ttt, {count} neighbours, {passes} passes, rate {lr:g}",
                     [score(prompts, P, {p: ([i], [1]) for i, p in enumerate(prompts)})])


STAGES = "finetune", "experts", "clusters", "ttt"  # the first gives the baseline that the others are compared with


def main(corpus, stages):
    s = SETTINGS[corpus]
    if stages == ["test"]:
        whole = {"train": {}, "test": {}}
        for part, texts in whole.items():
            for file, document in documents(corpus, part):
                texts.setdefault(file, []).append(document)
        text = Text(corpus, f"{HERE}/{corpus}-whole", *whole.values(), PROMPTS)
        text.finetune([s["finetune"]], seeds=3)
        for K in sorted({5, s["K"], 100}):
            text.experts(K, [s["experts"]], [text.beta], seeds=3)
        return
    text = Text(corpus, f"{HERE}/{corpus}-tune", *split(corpus), 48)
    if "finetune" in stages:
        text.finetune([(p, lr) for p in (1, 2, 4) for lr in (5e-4, 1e-3, 2e-3)])
    if "experts" in stages:
        text.experts(s["K"], [(p, lr) for p in (1, 2, 4) for lr in (5e-4, 1e-3, 2e-3, 4e-3)], [text.beta])
        text.experts(s["K"], [s["experts"]], [0.03, 0.06, 0.12, 0.2, 0.3, 0.5, 1])
    if "clusters" in stages:
        for K in 5, 10, 20, 50, 100:
            text.experts(K, [s["experts"], (s["experts"][0], s["experts"][1] / 2)], [text.beta])
    if "ttt" in stages:
        text.ttt([(20, p, lr) for p in (1, 3) for lr in (5e-4, 1e-3, 2e-3)] + [(50, p, 1e-3) for p in (1, 2)])


if __name__ == "__main__":
    corpus, *stages = sys.argv[1:] or [""]
    if corpus not in SETTINGS or stages != ["test"] and not set(stages) <= set(STAGES):
        sys.exit(f"usage: tune.py {'|'.join(SETTINGS)} [{' '.join(STAGES)} | test]")
    main(corpus, stages or STAGES)
