"""bench_peers.py - the speed of ttmm beside its peers: PyTorch (eager) with transformers and PEFT, ttmerge, and llama2.c.

    make bench-peers                             [LLAMA2C=folder with its run or runomp, built]

The same shapes, batches, threads and precision (float32) in turn, ROUNDS times; printed are the medians, ours divided
by theirs, and percent of what bounds ours (see run bench). llama2.c decodes a whole context, so ours beside it is at
half of one. A figure of ours is `run bench`'s, theirs is the best of a few repetitions, too. PEERS names the parts to run
(default: all): small medium large smollm llama."""
import csv
import os
import platform
import re
import statistics
import struct
import subprocess
import sys
import time

import numpy
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

ROUNDS = 3
THREADS = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count()))
WORK = "test/build/bench_peers"
MATRICES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SHAPES = {  # dim, layers, heads, kv, intermediate, vocab; batch, context
    "small": ("0.8 M", (128, 4, 4, 2, 352, 257), 16, 128),
    "medium": ("15 M", (288, 6, 6, 6, 768, 32000), 4, 256),
    "large": ("110 M", (768, 12, 12, 12, 2048, 32000), 2, 256),
}
REAL = {  # the shapes of SmolLM2-135M and Llama-3.2-1B; rounds
    "smollm": ("135 M", (576, 30, 9, 3, 1536, 49152), ROUNDS),
    "llama": ("1.2 B", (2048, 16, 32, 8, 8192, 128256), 1),
}


def ours(shape, batch, context, *more):
    """The rows of run bench: work -> (seconds, tokens a second, percent of what bounds it on this machine)."""
    subprocess.run(["./run", "bench", "--shape", ",".join(map(str, shape)), "--batch", str(batch), "--context",
                    str(context), "--threads", str(THREADS), "--tsv", WORK + ".tsv", *more], check=True,
                   stdout=subprocess.DEVNULL)
    with open(WORK + ".tsv") as f:
        return {r["work"]: (float(r["seconds"]), float(r["tok_s"]), float(r["bound_pct"]))
                for r in csv.DictReader(f, delimiter="\t")}


def model_of(shape, context):
    dim, layers, heads, kv, intermediate, vocab = shape
    return LlamaForCausalLM(LlamaConfig(
        hidden_size=dim, num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=kv,
        intermediate_size=intermediate, vocab_size=vocab, max_position_embeddings=context, tie_word_embeddings=True,
        head_dim=dim // heads)).float()


def best(work, least=1.0):
    """Seconds of the fastest of the repetitions that fit into a second or so, after one to warm up."""
    work()
    fastest, began = float("inf"), time.perf_counter()
    while time.perf_counter() - began < least or fastest == float("inf"):
        start = time.perf_counter()
        work()
        fastest = min(fastest, time.perf_counter() - start)
    return fastest


def training(model, batch, context):
    weights = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=1e-5)
    x = torch.randint(0, model.config.vocab_size, (batch, context))

    def step():
        optimiser.zero_grad(set_to_none=True)
        model(input_ids=x, labels=x).loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()

    return batch * context / best(step)


def pytorch(shape, batch, context):
    rates, model = {}, model_of(shape, context)
    with torch.no_grad():
        x = torch.randint(0, model.config.vocab_size, (1, context))
        rates["prefill"] = context / best(lambda: model(x, logits_to_keep=1))
        past = model(x[:, :context - 8], use_cache=True).past_key_values

        def decode():
            past.crop(context - 8)
            for i in range(context - 8, context):
                model(x[:, i:i + 1], past_key_values=past, use_cache=True)

        rates["decode"] = 8 / best(decode)
    rates["train"] = training(model.train(), batch, context)
    adapter = LoraConfig(r=8, lora_alpha=16, target_modules=MATRICES)
    rates["lora"] = training(get_peft_model(model_of(shape, context), adapter).train(), batch, context)
    return rates


def llama2c(folder, shape, context):
    """Its checkpoint and a tokenizer with random content; greedy decoding of a whole context, tokens a second."""
    dim, layers, heads, kv, hidden, vocab = shape
    width = dim // heads * kv
    sizes = [vocab * dim, layers * dim, layers * dim * dim, layers * dim * width, layers * dim * width,
             layers * dim * dim, layers * dim, layers * dim * hidden, layers * hidden * dim, layers * dim * hidden, dim,
             context * dim // heads // 2 * 2]
    os.makedirs(WORK, exist_ok=True)
    random = numpy.random.default_rng(1)
    with open(f"{WORK}/model.bin", "wb") as f:
        f.write(struct.pack("7i", dim, hidden, layers, heads, kv, vocab, context))
        for n in sizes:
            f.write((random.standard_normal(n, dtype=numpy.float32) * 0.05).tobytes())
    with open(f"{WORK}/tokenizer.bin", "wb") as f:
        f.write(struct.pack("i", 8))
        for i in range(vocab):
            name = (b"<unk>", b"<s>", b"</s>")[i] if i < 3 else b"<0x%02X>" % (i - 3) if i < 259 else b"%d" % i
            f.write(struct.pack("fi", 0.0, len(name)) + name)
    program = next(p for p in (f"{folder}/runomp", f"{folder}/run") if os.path.exists(p))
    command = [program, f"{WORK}/model.bin", "-z", f"{WORK}/tokenizer.bin", "-t", "0", "-n", str(context)]
    seconds = []
    while sum(seconds) < 0.1:  # its clock has milliseconds
        done = subprocess.run(command, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": str(THREADS)})
        seconds.append(1 / float(re.search(rb"achieved tok/s: ([\d.]+)", done.stderr)[1]))
        seconds[-1] *= context - 1
    return (context - 1) * len(seconds) / sum(seconds)


def with_experts(shape, experts, rank):
    """Seconds of the same answers with experts that are loaded: merged by ttmerge, or beside the weights by PEFT, which
    puts them together as one adapter (add_weighted_adapter, cat); of a step of TTT on 256 tokens by PEFT."""
    from ttmerge import TestTimeMergingModel
    seconds, prompt = {}, torch.randint(0, shape[-1], (1, 50))

    def first(model):
        with torch.no_grad():
            return model(prompt, use_cache=True, logits_to_keep=1).past_key_values

    def token(model, past):
        def eight():
            past.crop(42)
            with torch.no_grad():
                for i in range(42, 50):
                    model(prompt[:, i:i + 1], past_key_values=past, use_cache=True)
        return best(eight) / 8

    model = model_of(shape, 256).eval()
    merger = TestTimeMergingModel(expert_embeddings=torch.zeros(experts, 4), tokenizer=None, encoder=None,
                                  base_model=model, adapter_location="", device="cpu", keep_in_memory=True,
                                  keep_on_device=True)
    names = [n[:-len(".weight")] for n, _ in model.named_parameters() if n.split(".")[-2] in MATRICES]
    for k in range(experts):
        merger.adapter_state_dicts[k] = {}
        merger.scaling_factor[k] = 2.0
        for n in names:
            out, width = model.get_parameter(n + ".weight").shape
            merger.adapter_state_dicts[k][f"base_model.model.{n}.lora_A.weight"] = torch.randn(rank, width) * 0.01
            merger.adapter_state_dicts[k][f"base_model.model.{n}.lora_B.weight"] = torch.randn(out, rank) * 0.01
    times = []
    for _ in range(3):
        start = time.perf_counter()
        with torch.no_grad():
            before = merger._efficient_merge_adapters(range(experts), [1 / experts] * experts)
        past = first(model)
        times.append(time.perf_counter() - start)
        seconds["token merged"] = token(model, past)
        with torch.no_grad():
            merger._restore_original_weights(before)
    seconds["first merged"] = min(times)
    del merger

    how = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=MATRICES)
    model = get_peft_model(model, how, adapter_name="0").eval()
    for k in range(1, experts):
        model.add_adapter(str(k), how)
    times = []
    for i in range(3):
        start = time.perf_counter()
        model.add_weighted_adapter([str(k) for k in range(experts)], [1 / experts] * experts, f"m{i}", "cat")
        model.set_adapter(f"m{i}")
        past = first(model)
        times.append(time.perf_counter() - start)
        seconds["token beside"] = token(model, past)
        model.set_adapter("0")
        model.delete_adapter(f"m{i}")
    seconds["first beside"] = min(times)
    for k in range(1, experts):
        model.delete_adapter(str(k))
    seconds["ttt"] = 256 / training(model.train(), 1, 256)
    return seconds


def row(what, unit, mine, theirs, peer, value=1):
    """mine: rows of run bench, value: the column that is compared; theirs: numbers; the medians."""
    m, t = statistics.median(r[value] for r in mine), statistics.median(theirs)
    ratio = m / t if value else t / m
    m, t = (f"{x:.0f}" if x >= 100 else f"{x:.3g}" for x in (m, t))
    print(f"{what:41} {m:>9} {t:>9} {unit:9} {peer:22} {ratio:7.2f} x {statistics.median(r[2] for r in mine):7.0f} %",
          flush=True)


def main():
    torch.set_num_threads(THREADS)
    torch.manual_seed(1)
    parts = os.environ.get("PEERS", "small medium large smollm llama").split()
    cpu = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), platform.machine())
    print(f"{cpu}, {THREADS} threads, PyTorch {torch.__version__}")
    print(f"{'work':41} {'ttmm':>9} {'peer':>9} {'unit':9} {'peer':22} {'ttmm/peer':>9} {'of bound':>9}")
    for part in [p for p in parts if p in SHAPES]:
        name, shape, batch, context = SHAPES[part]
        mine, theirs, half, c = [], [], [], []
        for _ in range(ROUNDS):
            mine.append(ours(shape, batch, context))
            theirs.append(pytorch(shape, batch, context))
            if os.environ.get("LLAMA2C"):
                c.append(llama2c(os.environ["LLAMA2C"], shape, context))
                half.append(ours(shape, batch, context // 2 + 4, "--only", "decode"))
        for work in ("train", "lora", "prefill", "decode"):
            row(f"{name}: {work}", "tokens/s", [m[work] for m in mine], [t[work] for t in theirs],
                "PyTorch" + " + PEFT" * (work == "lora"))
        if c:
            row(f"{name}: decode, half full", "tokens/s", [m["decode"] for m in half], c, "llama2.c")
            row(f"{name}: prefill", "tokens/s", [m["prefill"] for m in mine], c, "llama2.c (one by one)")
    for part in [p for p in parts if p in REAL]:
        name, shape, rounds = REAL[part]
        for rank in 16, 64:
            mine, theirs = [], []
            for _ in range(rounds):
                how = ["--rank", str(rank), "--experts", "10", "--only"]
                m = ours(shape, 1, 50, *how, "prefill decode merge lowrank beside")
                m["first"] = (m["merge"][0] + m["prefill"][0], 0, m["merge"][2])
                m["ttt"] = ours(shape, 1, 256, *how, "ttt", "--neighbours", "1", "--passes", "1")["ttt"]
                m["decode"], m["beside"] = ((1 / m[w][1], *m[w][1:]) for w in ("decode", "beside"))
                mine.append(m)
                theirs.append(with_experts(shape, 10, rank))
            for work, what, key, peer in (("first", "first token, merged", "first merged", "ttmerge"),
                                          ("decode", "a token, merged", "token merged", "ttmerge"),
                                          ("lowrank", "first token, beside", "first beside", "PEFT, cat"),
                                          ("beside", "a token, beside", "token beside", "PEFT, cat"),
                                          ("ttt", "a step of TTT", "ttt", "PEFT")):
                row(f"{name}, 10 of rank {rank}: {what}", "seconds", [m[work] for m in mine],
                    [t[key] for t in theirs], peer, 0)

if __name__ == "__main__":
    main()
