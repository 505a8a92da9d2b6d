"""oracle.py - where the vectors in test/vectors come from. It draws the inputs and computes what is expected of them, in
float64, with test/backend.py (PyTorch, written from test/README.md alone), torch.optim, torch's schedulers, scikit-learn
and numpy; nothing in it calls ttmm.     python test/oracle.py FOLDER      (torch 2.6, scikit-learn 1.9, numpy, safetensors)
"""
import json
import os
import sys
import warnings

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from sklearn.cluster import BisectingKMeans

sys.path.insert(0, os.path.dirname(__file__))
import backend

warnings.filterwarnings("ignore", message="The epoch parameter")  # torch's own, inside SequentialLR
rng = np.random.default_rng(20250514)


def draw(*shape, scale=1.0):
    return (scale * rng.standard_normal(shape)).astype(np.float32)


def make_model(folder, D, L, H, G, S, F, V, tied, context, theta=10000.0, eps=1e-5):
    """Random weights, large enough that attention is far from uniform, and gains that are not 1."""
    os.makedirs(folder, exist_ok=True)
    config = dict(
        architectures=["LlamaForCausalLM"], model_type="llama", hidden_size=D, intermediate_size=F, num_hidden_layers=L,
        num_attention_heads=H, num_key_value_heads=G, head_dim=S, vocab_size=V, max_position_embeddings=context,
        rms_norm_eps=eps, rope_theta=theta, hidden_act="silu", attention_bias=False, mlp_bias=False,
        tie_word_embeddings=tied)
    with open(f"{folder}/config.json", "w") as f:
        json.dump(config, f, indent=1)
        f.write("\n")
    w = {"model.embed_tokens.weight": draw(V, D), "model.norm.weight": 1 + draw(D, scale=0.2)}
    if not tied:
        w["lm_head.weight"] = draw(V, D, scale=0.5)
    shapes = {"self_attn.q_proj": (H * S, D), "self_attn.k_proj": (G * S, D), "self_attn.v_proj": (G * S, D),
              "self_attn.o_proj": (D, H * S), "mlp.gate_proj": (F, D), "mlp.up_proj": (F, D), "mlp.down_proj": (D, F)}
    for l in range(L):
        for name, (rows, cols) in shapes.items():
            w[f"model.layers.{l}.{name}.weight"] = draw(rows, cols, scale=1.5 / np.sqrt(cols))
        w[f"model.layers.{l}.input_layernorm.weight"] = 1 + draw(D, scale=0.2)
        w[f"model.layers.{l}.post_attention_layernorm.weight"] = 1 + draw(D, scale=0.2)
    save_file(w, f"{folder}/model.safetensors", metadata={"format": "pt"})
    return shapes


def make_adapter(folder, shapes, L, rank, alpha):
    os.makedirs(folder, exist_ok=True)
    config = dict(peft_type="LORA", task_type="CAUSAL_LM", base_model_name_or_path=None, r=rank, lora_alpha=alpha,
                  lora_dropout=0.0, bias="none", use_rslora=False, use_dora=False, fan_in_fan_out=False,
                  inference_mode=True, target_modules=[n.split(".")[1] for n in shapes])
    with open(f"{folder}/adapter_config.json", "w") as f:
        json.dump(config, f, indent=1)
        f.write("\n")
    w = {}
    for l in range(L):
        for name, (rows, cols) in shapes.items():
            at = f"base_model.model.model.layers.{l}.{name}"
            w[f"{at}.lora_A.weight"] = draw(rank, cols, scale=0.3 / np.sqrt(cols))
            w[f"{at}.lora_B.weight"] = draw(rows, rank, scale=0.3)
    save_file(w, f"{folder}/adapter_model.safetensors", metadata={"format": "pt"})


def near_tie(folder, tokens):
    """For a token that wins at one position only, the second one's row of the head becomes the winner's,
    four millionths less."""
    logits = backend.trace(backend.load_model(folder), tokens)["logits"]
    order = np.argsort(logits)
    first, second = next((row[-1], row[-2]) for i, row in enumerate(order)
                         if sum(order[:, -1] == row[-1]) == 1 and logits[i].max() > 0)
    w = load_file(f"{folder}/model.safetensors")
    w["lm_head.weight"][second] = w["lm_head.weight"][first] * np.float32(1 - 2.0**-18)
    save_file(w, f"{folder}/model.safetensors", metadata={"format": "pt"})
    logits = np.sort(backend.trace(backend.load_model(folder), tokens)["logits"])
    margin = (logits[:, -1] - logits[:, -2]) / logits.max()
    assert sum(margin < 5e-6) == 2 and min(margin) > 1e-6, f"not two near-ties: {margin}"


def normalise(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def inputs(folder):
    """What a backend is given: FOLDER/model with four adapters and centroids, query, tokens."""
    os.makedirs(folder, exist_ok=True)
    L = 2
    shapes = make_model(f"{folder}/model", D=16, L=L, H=4, G=2, S=4, F=8, V=17, tied=False, context=64, eps=0.01)
    tokens = rng.integers(0, 17, 4)
    near_tie(f"{folder}/model", tokens)
    for k in range(4):
        make_adapter(f"{folder}/model/experts/{k}", shapes, L, rank=2, alpha=5)
    while True:  # two experts kept, two dropped, none near the border
        centroid, query = normalise(rng.standard_normal((4, 6)) + 2), normalise(rng.standard_normal(6) + 2)
        c = np.exp((centroid @ query - 1) / 0.04)
        if sum(c / c.sum() > 0.011) == 2 and sum(c / c.sum() < 0.009) == 2:
            break
    save_file({"embeddings": centroid.astype(np.float32)}, f"{folder}/model/centroids.safetensors")
    save_file({"embedding": query.astype(np.float32)}, f"{folder}/query.safetensors")
    with open(f"{folder}/tokens.ids", "w") as f:
        f.write(" ".join(str(t) for t in tokens) + "\n")


def more_models(folder):
    """Other shapes: tied and one key/value head; heads wider than the model; positions up to 2,000. Expected: the loss,
    the last logits and all gradients."""
    for name, shape, T in (
            ("tied", dict(D=12, L=1, H=3, G=1, S=6, F=10, V=17, tied=True, context=64, theta=500.0, eps=1e-6), 7),
            ("long", dict(D=8, L=1, H=2, G=1, S=4, F=8, V=11, tied=False, context=2048, theta=10000.0), 2000)):
        make_model(f"{folder}/{name}", **shape)
        tokens = rng.integers(0, shape["V"], T)
        out = backend.trace(backend.load_model(f"{folder}/{name}"), tokens, gradients=True)
        kept = {k: v for k, v in out.items() if k.startswith("grad.") or k == "loss"}
        kept["logits_last"] = out["logits"][-5:]
        kept["tokens"] = tokens.astype(np.int32)
        save_file({k: np.ascontiguousarray(v) for k, v in kept.items()}, f"{folder}/{name}/expected.safetensors")


def methods(folder):
    """Optimiser, clipping, schedules, clusters, SIFT, on numbers of their own."""
    out = {}
    w = torch.tensor(rng.standard_normal(10), dtype=torch.float64, requires_grad=True)
    grads = rng.standard_normal((50, 10)) * np.exp(rng.standard_normal((50, 1)) * 2)
    out["adamw.start"], out["adamw.grad"] = w.detach().numpy().copy(), grads
    o = torch.optim.AdamW([w], lr=0.02, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.05)
    norms, rates = [], []
    warm, steps = 5, 50
    schedule = torch.optim.lr_scheduler.SequentialLR(
        o, [torch.optim.lr_scheduler.LinearLR(o, 1 / warm, 1, warm - 1),
            torch.optim.lr_scheduler.CosineAnnealingLR(o, steps - warm, 0.05 * 0.02)], [warm])
    for t in range(steps):
        w.grad = torch.tensor(grads[t])
        norms.append(float(torch.nn.utils.clip_grad_norm_([w], 1.0)))
        rates.append(o.param_groups[0]["lr"])
        o.step()
        schedule.step()
    out["adamw.end"], out["adamw.norm"], out["adamw.rate"] = w.detach().numpy(), np.array(norms), np.array(rates)
    o = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.01)
    schedule = torch.optim.lr_scheduler.LinearLR(o, 1, 0.05, 30)
    rates = []
    for t in range(30):
        rates.append(o.param_groups[0]["lr"])
        o.step()
        schedule.step()
    out["linear.rate"] = np.array(rates)

    centre = normalise(rng.standard_normal((5, 8)))
    x = normalise(centre[rng.integers(0, 5, 40)] + 0.1 * rng.standard_normal((40, 8)))
    label = BisectingKMeans(5, n_init=8, random_state=0).fit(x).labels_
    order = list(dict.fromkeys(label.tolist()))  # numbered by first appearance
    label = np.array([order.index(k) for k in label], dtype=np.int32)
    out["cluster.x"], out["cluster.label"] = x, label
    out["cluster.centroid"] = normalise(np.stack([x[label == k].mean(0) for k in range(5)]))

    q, chosen = normalise(rng.standard_normal(8)), []
    gains = []
    for _ in range(12):  # SIFT by its formula: the variance after each possible choice, matrices solved anew
        after = []
        for i in range(40):
            X = x[chosen + [i]]
            k = X @ q
            after.append(q @ q - k @ np.linalg.solve(X @ X.T + 0.01 * np.eye(len(X)), k))
        two = np.sort(after)[:2]
        gains.append(two[1] - two[0])
        chosen.append(int(np.argmin(after)))
    assert min(gains) > 1e-7, "a near-tie: choose another seed"
    out["sift.query"], out["sift.index"] = q, np.array(chosen, dtype=np.int32)
    save_file({k: np.ascontiguousarray(v) for k, v in out.items()}, f"{folder}/methods.safetensors")


MEANING = {
    "tokens": "token ids t_0 ... t_(T-1); exact", "greedy": "the token of the largest logit of each position; exact "
    "where margin is above the tolerance times the largest logit", "margin": "that logit minus the second largest",
    "experts": "the k with w_k > 0.01, w = c / sum c, c_k = exp(-(1 - similarity_k) / 0.2^2), ascending; exact",
    "query": "u, the query divided by its length", "similarity": "u . centroid_k", "weights": "their w_k / sum of theirs",
    "embed": "row t_i of the embedding matrix; exact", "attn_norm": "g x / sqrt(mean(x^2) + eps)",
    "q": "Wq attn_norm, each head's pairs (j, j + S/2) rotated by p theta^(-2j/S)", "k": "Wk attn_norm, rotated likewise",
    "v": "Wv attn_norm", "attn": "sum_(j<=i) softmax_j(q_i . k_j / sqrt(S)) v_j, key/value head floor(h / (H/G))",
    "attn_out": "Wo attn", "mlp_norm": "g x / sqrt(mean(x^2) + eps), x with attn_out", "gate": "Wgate mlp_norm",
    "up": "Wup mlp_norm", "mlp_out": "Wdown (silu(gate) up)", "out": "x after the layer", "final_norm": "the last norm",
    "logits": "Whead final_norm", "loss": "mean of -log softmax(logits_i)[t_(i+1)]; in the optimiser's file before each step",
    "norm": "sqrt of the sum of squares of all gradients before each step", "rate": "0.01 (0.05 + 0.95 (1 + cos(pi n/3)) / 2)",
    "gradient": "dloss / d(the tensor of that name)", "weight": "merged: W + sum_k w_k (alpha / r) B_k A_k, "
    "the others as they were; optimiser: after three AdamW steps",
}


def manifest(folder):
    """For programs: of every tensor of every file its kind and shape, of every kind its meaning."""
    files = {}
    for name in ("base", "adapter", "dense", "lowrank", "merged", "optimiser", "choices"):
        tensors = load_file(f"{folder}/{name}.safetensors")
        kind = {t: "gradient" if t.startswith("grad.") else "weight" if t.endswith(".weight") else t.split(".")[-1]
                for t in tensors}
        files[f"{name}.safetensors"] = {t: [kind[t], list(tensors[t].shape)] for t in tensors}
    tolerance = {
        "rule": "|a - b| <= rtol * the largest |a| of the tensor; shapes equal, all finite; integers equal",
        "float64": "rtol 1e-12: room for another order of summation, which is all that should differ",
        "float32": "rtol 4 times the file's largest error in float-errors.txt, which is that of ttmm's own float32 build"}
    lines = [f'{json.dumps(f)}: {{\n' + ",\n".join(f"  {json.dumps(t)}: {json.dumps(v)}" for t, v in ts.items()) + "}"
             for f, ts in files.items()]
    with open(f"{folder}/manifest.json", "w") as f:
        f.write(f'{{"tolerance": {json.dumps(tolerance, indent=1)},\n"kinds": {json.dumps(MEANING, indent=1)},\n')
        f.write('"files, by tensor: kind, shape": {\n' + ",\n".join(lines) + "}}\n")


if __name__ == "__main__":
    folder = sys.argv[1]
    inputs(folder)
    more_models(folder)
    methods(folder)
    backend.run(folder, folder)
    manifest(folder)
