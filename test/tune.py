"""tune.py - where most settings of test/table.py come from: the method once more in PyTorch, many settings at once.

    python test/tune.py CORPUS [STAGE ...]     in the root, after make, make smollm and make encoder; of experts,
                                               clusters, finetune, ttt (all). A GPU's minutes, two cores' days

Every fifth document of the training part is held out; on these, scored as run eval does, is printed the perplexity of
experts by passes and rate (of the best of them by beta, too), by the number of clusters, of the fine-tuned baseline and
of TTT by theirs. Sequences, embeddings and clusters are ttmm's. A run trains the adapters of all settings at once: LoRA
beside the weights, with A [adapters, r, in], B [adapters, out, r], each with its own batches, rate, clipping, moments
of AdamW, as ttmm defines them; in TF32 on a GPU, and shuffled by other random numbers than ttmm's."""
import json, math, os, sys, time

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import load_file as load_numpy
from safetensors.torch import load_file
from tokenizers import Tokenizer

from table import HERE, MODEL, SETTINGS, call, indexed, split, write

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


def hidden(ids, adapters=None, E=1):
    """The final norm's output of ids [N, T]; adapters[layer, kind] = (A [E, r, in], B [E, out, r]), N / E rows each."""
    N, T = ids.shape
    angle = torch.arange(T, dtype=torch.float64)[:, None] * THETA ** (-torch.arange(0, S, 2, dtype=torch.float64) / S)
    cos, sin = angle.cos().float().to(DEVICE), angle.sin().float().to(DEVICE)

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


def train(sequences, jobs, batch=2, shuffle=True, warmup=0.1):
    """One adapter for each (which sequences, passes, rate): [jobs, n]."""
    plan, began, tokens = [], time.time(), 0
    for i, (which, passes, _) in enumerate(jobs):
        draw, visits = np.random.default_rng(i), []
        for _ in range(passes):
            visits += list(draw.permutation(which)) if shuffle else list(which)
        plan.append([visits[j:j + batch] for j in range(0, len(visits), batch)])
    order = sorted(range(len(jobs)), key=lambda i: -len(plan[i]))  # those with steps left are always the first ones
    plan, peak = [plan[i] for i in order], [jobs[i][2] for i in order]
    n = RANK * sum(map(sum, KINDS.values())) * len(LAYERS)
    P, M, V = (torch.zeros(len(jobs), n, device=DEVICE) for _ in range(3))
    for a, _ in parts(P).values():
        a.copy_(torch.empty(a.shape).uniform_(-1, 1) / math.sqrt(a.shape[2]))
    for s in range(len(plan[0])):
        alive = sum(len(p) > s for p in plan)
        longest = max(len(sequences[q]) for p in plan[:alive] for q in p[s])
        some = max(1, TOKENS // (batch * longest))
        for i in range(0, alive, some):
            j = min(alive, i + some)
            ids, target, weight = (np.zeros((j - i, batch, longest), t) for t in (np.int64, np.int64, np.float32))
            for e in range(i, j):
                predicted = sum(len(sequences[q]) - 1 for q in plan[e][s])
                for b, q in enumerate(plan[e][s]):
                    x = sequences[q]
                    ids[e - i, b, :len(x)], target[e - i, b, :len(x) - 1] = x, x[1:]
                    weight[e - i, b, :len(x) - 1] = 1 / predicted
                    tokens += len(x)
            ids, target, weight = (torch.from_numpy(x).to(DEVICE) for x in (ids, target, weight))
            leaves = {k: [x.detach().requires_grad_() for x in v] for k, v in parts(P[i:j]).items()}
            h = hidden(ids.view(-1, longest), {k: (a, SCALE * b) for k, (a, b) in leaves.items()}, j - i)
            loss = Loss.apply(h, target.view(-1), weight.view(-1))
            g = torch.autograd.grad(loss, [x for pair in leaves.values() for x in pair])
            g = torch.cat([x.reshape(j - i, -1) for x in g], 1)
            g *= (1 / (g.norm(dim=1, keepdim=True) + 1e-6)).clamp(max=1)
            lr = torch.tensor([rate(s, len(plan[e]), peak[e], warmup) for e in range(i, j)], device=DEVICE)[:, None]
            M[i:j].mul_(0.9).add_(g, alpha=0.1)
            V[i:j].mul_(0.999).addcmul_(g, g, value=0.001)
            P[i:j] -= lr / (1 - 0.9 ** (s + 1)) * M[i:j] / (V[i:j].sqrt() / math.sqrt(1 - 0.999 ** (s + 1)) + 1e-8)
    print(f"  {len(jobs)} adapters, {tokens} tokens, {tokens / (time.time() - began):.0f} a second", flush=True)
    return P[torch.tensor(order).argsort()]


@torch.no_grad()
def perplexity(prompts, P=None, mixes=None):
    """mixes: for each prompt (rows of P, weights), beside the weights; what follows the prefix is scored."""
    total, count = 0.0, 0
    for i, prompt in enumerate(prompts):
        adapters = None
        if mixes:
            rows, w = mixes[i]
            w = torch.tensor(w, dtype=torch.float32, device=DEVICE)[:, None, None]
            adapters = {k: (torch.cat(list(a), 0)[None], torch.cat(list(SCALE * w * b), 1)[None])
                        for k, (a, b) in parts(P[list(rows)]).items()}
        ids = torch.from_numpy(prompt.astype(np.int64)).to(DEVICE)
        logits = hidden(ids[None], adapters)[0, PREFIX - 1:-1] @ EMBED.T
        total += F.cross_entropy(logits, ids[PREFIX:], reduction="sum").item()
        count += len(ids) - PREFIX
    return math.exp(total / count)


def route(query, centroids, beta, active):
    s = centroids @ query
    w = np.exp((s - s.max()) / beta ** 2)
    rows = np.argsort(-s, kind="stable")[:active]
    return rows, w[rows] / w[rows].sum()


def index(where, texts, context):
    """ttmm's sequences and embeddings of {file: documents}, in a model folder of their own."""
    indexed(where, write(where, texts), "mpnet", "--context", context)
    c = load_numpy(f"{where}/corpus.safetensors")
    return [c["tokens"][a:b] for a, b in zip(c["sequence_offsets"], c["sequence_offsets"][1:])], c["embeddings"]


def main(corpus, stages):
    (fit, held), where = split(corpus), f"{HERE}/{corpus}-tune"
    sequences, embeddings = index(f"{where}/fit", fit, 256)
    prompts = [p for p in index(f"{where}/held", held, 1024)[0] if len(p) > PREFIX]
    prompts = [prompts[i * len(prompts) // min(48, len(prompts))] for i in range(min(48, len(prompts)))]
    tokenizer = Tokenizer.from_file(f"{MODEL}/tokenizer.json")
    begun = {"queries": [tokenizer.decode(p[:PREFIX]) for p in prompts]}
    queries = index(f"{where}/queries", begun, 1024)[1]
    print(f"{corpus}: {len(sequences)} sequences, {len(prompts)} prompts, base {perplexity(prompts):.3f}", flush=True)

    def clusters(K):
        call("train", "cluster", f"{where}/fit", "--experts", K)
        cluster = load_numpy(f"{where}/fit/corpus.safetensors")["cluster"]
        centroids = load_numpy(f"{where}/fit/centroids.safetensors")["embeddings"]
        return [np.nonzero(cluster == k)[0] for k in range(K)], centroids

    def experts(K, settings, betas):
        members, centroids = clusters(K)
        P = train(sequences, [(m, *s) for s in settings for m in members])
        for i, (passes, lr) in enumerate(settings):
            for beta in betas:
                found = []
                for active in 1, 3, 10:
                    mixes = [route(q, centroids, beta, active) for q in queries]
                    found.append(perplexity(prompts, P, [(i * K + rows, w) for rows, w in mixes]))
                print(f"K {K}, {passes} passes, rate {lr:g}, beta {beta:g}: " +
                      ", ".join(f"ttmm-{a} {x:.3f}" for a, x in zip((1, 3, 10), found)), flush=True)

    K, best = SETTINGS[corpus]["K"], SETTINGS[corpus]["experts"]
    if "experts" in stages:
        experts(K, [(p, lr) for p in (1, 2, 4) for lr in (5e-4, 1e-3, 2e-3, 4e-3)], [0.2])
        experts(K, [best], [0.03, 0.06, 0.1, 0.2, 0.3, 0.5, 1])
    if "clusters" in stages:
        for some in 5, 10, 20, 50, 100:
            experts(some, [best, (best[0], best[1] / 2)], [SETTINGS[corpus]["beta"]])
    if "finetune" in stages:
        settings = [(p, lr) for p in (1, 2, 4) for lr in (5e-4, 1e-3, 2e-3)]
        P = train(sequences, [(np.arange(len(sequences)), *s) for s in settings])
        for i, (passes, lr) in enumerate(settings):
            print(f"finetuned, {passes} passes, rate {lr:g}: {perplexity(prompts, P, [([i], [1])] * len(prompts)):.3f}")
    if "ttt" in stages:
        some = range(0, len(prompts), max(1, len(prompts) // 16))
        for count, passes, lr in [(20, p, lr) for p in (1, 3) for lr in (5e-4, 1e-3, 2e-3)] + [(50, 1, 1e-3)]:
            nearest = [np.argsort(-(embeddings @ queries[i]), kind="stable")[:count][::-1] for i in some]
            P = train(sequences, [(x, passes, lr) for x in nearest], batch=1, shuffle=False, warmup=0)
            found = perplexity([prompts[i] for i in some], P, [([i], [1]) for i in range(len(nearest))])
            print(f"ttt, {count} neighbours, {passes} passes, rate {lr:g}: {found:.3f}, base "
                  f"{perplexity([prompts[i] for i in some]):.3f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:] or ["experts", "clusters", "finetune", "ttt"])
