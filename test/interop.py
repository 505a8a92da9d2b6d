"""interop.py - where test/interop comes from: small models, an adapter and tokenizers in the forms that Hugging
Face's libraries write and read, and what these libraries make of them. Nothing in it calls ttmm. Run in the root:

    python test/interop.py      (transformers 5.12.1, peft 0.21.2, tokenizers 0.22.2, torch 2.6, safetensors)

Logits and gradients are float64. transformers rounds norms, softmax and rotary angles to float32 whatever the dtype,
so what is stored is computed here, from the formulas, and checked against transformers and PEFT to 1e-5.

    MODEL/expected.safetensors    tokens [T], logits [T, V]; of qwen2 also adapter_logits and grad.NAME of every weight
    bpe-FORM/cases.txt            a line for each case: TEXT DECODED IDS...
TEXT and DECODED are UTF-8 in hexadecimal, 6162*3+63 is abababc, nothing is -; TEXT ? means: only to be decoded;
DECODED = means: as TEXT. It is decode(IDS, skip_special_tokens=True). 5*3 in IDS is 5 5 5.
"""
import json
import os
import shutil

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM
from transformers.utils import logging

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "interop")
rng = np.random.default_rng(20250514)
logging.disable_progress_bar()


# ---- The transformer, from the formulas ------------------------------------------------------------------------------

def frequencies(c):
    """Of the rotary positions, in radians a position."""
    S = c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]
    rope = c.get("rope_parameters") or c.get("rope_scaling") or {}
    theta = rope.get("rope_theta") or c["rope_theta"]
    f = [theta ** (-2 * j / S) for j in range(S // 2)]
    kind = rope.get("rope_type", "default")
    if kind == "linear":
        f = [x / rope["factor"] for x in f]
    if kind == "llama3":
        low, high, before = (rope[k] for k in
                             ("low_freq_factor", "high_freq_factor", "original_max_position_embeddings"))
        ranges = set()
        for j, x in enumerate(f):
            turns = before * x / (2 * np.pi)  # within the context of before
            part = (turns - low) / (high - low)
            ranges.add("kept" if turns > high else "divided" if turns < low else "between")
            slow = x / rope["factor"]
            f[j] = x if turns > high else slow if turns < low else (1 - part) * slow + part * x
        assert len(ranges) == 3, ranges
    return torch.tensor(f, dtype=torch.float64), S


def forward(w, c, tokens, adapter=()):
    """Logits [T, V] of weights w by name; adapter: (A, B, scale) by the name of the matrix."""
    f, S = frequencies(c)
    T, H, G = len(tokens), c["num_attention_heads"], c["num_key_value_heads"]
    angle = torch.arange(T, dtype=torch.float64)[:, None] * f

    def norm(x, name):
        return w[name + ".weight"] * x / torch.sqrt((x * x).mean(-1, keepdim=True) + c["rms_norm_eps"])

    def linear(x, name):
        y = x @ w[name + ".weight"].T + w.get(name + ".bias", 0)
        if name in adapter:
            A, B, scale = adapter[name]
            y = y + scale * (x @ A.T) @ B.T
        return y

    def turn(x):  # [T, heads, S]
        a, b, cos, sin = x[..., :S // 2], x[..., S // 2:], torch.cos(angle)[:, None], torch.sin(angle)[:, None]
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    x = w["model.embed_tokens.weight"][tokens]
    for i in range(c["num_hidden_layers"]):
        at = f"model.layers.{i}."
        h = norm(x, at + "input_layernorm")
        q = turn(linear(h, at + "self_attn.q_proj").view(T, H, S))
        k = turn(linear(h, at + "self_attn.k_proj").view(T, G, S))
        v = linear(h, at + "self_attn.v_proj").view(T, G, S)
        heads = []
        for j in range(H):
            score = q[:, j] @ k[:, j // (H // G)].T / S ** 0.5
            score = score + torch.full((T, T), -torch.inf, dtype=torch.float64).triu(1)
            heads.append(torch.softmax(score, -1) @ v[:, j // (H // G)])
        x = x + linear(torch.cat(heads, -1), at + "self_attn.o_proj")
        h = norm(x, at + "post_attention_layernorm")
        gate, up = linear(h, at + "mlp.gate_proj"), linear(h, at + "mlp.up_proj")
        x = x + linear(gate / (1 + torch.exp(-gate)) * up, at + "mlp.down_proj")
    return norm(x, "model.norm") @ w.get("lm_head.weight", w["model.embed_tokens.weight"]).T


def loss_of(logits, tokens):
    return -torch.log_softmax(logits[:-1], -1)[range(len(tokens) - 1), tokens[1:]].mean()


def near(a, b):
    error = float((a - b).abs().max() / b.abs().max())
    assert error < 1e-5, error
    return error


# ---- Models ----------------------------------------------------------------------------------------------------------

def draw(*shape, scale=1.0):
    return torch.tensor(scale * rng.standard_normal(shape))


def randomise(model):
    """Weights large enough that attention is far from uniform, gains that are not 1, biases that are not 0."""
    for name, p in model.named_parameters():
        p.data = draw(*p.shape, scale=1.5 / p.shape[-1] ** 0.5) if p.dim() == 2 else \
            draw(*p.shape, scale=0.5) if name.endswith("bias") else 1 + draw(*p.shape, scale=0.2)
    model.tie_weights()
    return model


def by_hand(folder, cls, config, dtype):
    """config.json as it stands on the hub, and model.safetensors in one file."""
    os.makedirs(folder)
    with open(f"{folder}/config.json", "w") as f:
        json.dump(config, f, indent=2)
    model = randomise(cls(cls.config_class(**{k: v for k, v in config.items() if "dtype" not in k})).double())
    w = {k: v.to(dtype).contiguous() for k, v in model.state_dict().items()
         if not (k == "lm_head.weight" and config["tie_word_embeddings"])}
    save_file(w, f"{folder}/model.safetensors", metadata={"format": "pt"})


def saved(folder, cls, config, dtype, **how):
    """As transformers writes it."""
    model = randomise(cls(config).to(dtype))
    model.to(dtype).save_pretrained(folder, **how)
    os.remove(f"{folder}/generation_config.json")


def read_weights(folder):
    names = [n for n in os.listdir(folder) if n.startswith("model") and n.endswith(".safetensors")]
    return {k: v.double() for n in names for k, v in load_file(f"{folder}/{n}").items()}


def model(name, make, *args, T=12, **how):
    folder = f"{HERE}/{name}"
    make(folder, *args, **how)
    with open(f"{folder}/config.json") as f:
        c = json.load(f)
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    tokens = torch.tensor(rng.integers(0, c["vocab_size"], T))
    logits = forward(read_weights(folder), c, tokens)
    error = near(theirs(tokens[None]).logits[0].detach(), logits)
    print(f"{name}: transformers off by {error:.1e}")
    return folder, c, theirs, tokens, {"tokens": tokens.int(), "logits": logits}


def store(folder, out):
    save_file({k: v.detach().contiguous() for k, v in out.items()}, f"{folder}/expected.safetensors")


def gradients(folder, c, theirs, tokens, out):
    w = {k: v.requires_grad_() for k, v in read_weights(folder).items()}
    loss_of(forward(w, c, tokens), tokens).backward()
    theirs(tokens[None], labels=tokens[None]).loss.backward()
    other = dict(theirs.named_parameters())
    largest = max(float(v.grad.abs().max()) for v in w.values())
    for name, v in w.items():
        out["grad." + name] = v.grad
        # a key's bias moves all scores of a row alike but for the rotation, so its gradient is small
        assert float((other[name].grad - v.grad).abs().max()) < 1e-5 * largest, name


def adapter(folder, c, tokens, out):
    """Ranks and alphas of their own, by names at the end; a subset of the matrices."""
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    config = LoraConfig(r=2, lora_alpha=3, use_rslora=True, target_modules=["q_proj", "v_proj", "o_proj", "up_proj"],
                        rank_pattern={"layers.1.self_attn.q_proj": 3, "up_proj": 1},
                        alpha_pattern={"v_proj": 5, "model.layers.0.mlp.up_proj": 2, "up_proj": 7},
                        task_type="CAUSAL_LM")
    peft = get_peft_model(base, config)
    for name, p in peft.named_parameters():
        if "lora_" in name:
            p.data = draw(*p.shape, scale=0.4).to(p.dtype)
    peft.to(torch.float32).save_pretrained(f"{folder}/adapter")
    os.remove(f"{folder}/adapter/README.md")
    with open(f"{folder}/adapter/adapter_config.json") as f:  # without the path of this machine
        text = json.load(f)
    text["base_model_name_or_path"] = None
    text["target_modules"].sort()
    with open(f"{folder}/adapter/adapter_config.json", "w") as f:
        json.dump(text, f, indent=2)
    w = load_file(f"{folder}/adapter/adapter_model.safetensors")
    rank = {"q0": 2, "v0": 2, "o0": 2, "up0": 1, "q1": 3, "v1": 2, "o1": 2, "up1": 1}
    alpha = {"q0": 3, "v0": 5, "o0": 3, "up0": 2, "q1": 3, "v1": 5, "o1": 3, "up1": 7}
    parts = {}
    for i in range(2):
        for short in "q", "v", "o", "up":
            name = f"model.layers.{i}." + ("mlp." if short == "up" else "self_attn.") + short + "_proj"
            A, B = (w[f"base_model.model.{name}.lora_{side}.weight"].double() for side in "AB")
            assert A.shape[0] == B.shape[1] == rank[f"{short}{i}"]
            parts[name] = A, B, alpha[f"{short}{i}"] / rank[f"{short}{i}"] ** 0.5
    assert len(w) == 2 * len(parts)
    logits = forward(read_weights(folder), c, tokens, parts)
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64),
                                       f"{folder}/adapter").double()
    print(f"adapter: PEFT off by {near(theirs(tokens[None]).logits[0].detach(), logits):.1e}")
    assert float((logits - out["logits"]).abs().max()) > 0.1
    out["adapter_logits"] = logits


def all_models():
    qwen2 = dict(  # as Qwen2.5-0.5B's
        architectures=["Qwen2ForCausalLM"], attention_dropout=0.0, bos_token_id=25, eos_token_id=26,
        hidden_act="silu", hidden_size=8, initializer_range=0.02, intermediate_size=12, max_position_embeddings=64,
        max_window_layers=2,
        model_type="qwen2", num_attention_heads=4, num_hidden_layers=2, num_key_value_heads=2, rms_norm_eps=1e-06,
        rope_theta=1000000.0, sliding_window=64, tie_word_embeddings=True, torch_dtype="bfloat16",
        transformers_version="4.40.1", use_cache=True, use_mrope=False, use_sliding_window=False, vocab_size=27)
    folder, c, theirs, tokens, out = model("qwen2", by_hand, Qwen2ForCausalLM, qwen2, torch.bfloat16, T=10)
    gradients(folder, c, theirs, tokens, out)
    adapter(folder, c, tokens, out)
    store(folder, out)
    llama3 = dict(  # as Llama-3.2-1B-Instruct's
        architectures=["LlamaForCausalLM"], attention_bias=False, attention_dropout=0.0, bos_token_id=19,
        eos_token_id=[20, 22, 21], head_dim=8, hidden_act="silu", hidden_size=8, initializer_range=0.02,
        intermediate_size=14, max_position_embeddings=512, mlp_bias=False, model_type="llama", num_attention_heads=2,
        num_hidden_layers=2, num_key_value_heads=1, pretraining_tp=1, rms_norm_eps=1e-05,
        rope_scaling=dict(factor=8.0, high_freq_factor=4.0, low_freq_factor=1.0, original_max_position_embeddings=64,
                          rope_type="llama3"),
        rope_theta=10000.0, tie_word_embeddings=False, torch_dtype="float16", transformers_version="4.43.0.dev0",
        use_cache=True, vocab_size=23)
    folder, _, _, _, out = model("llama3", by_hand, LlamaForCausalLM, llama3, torch.float16, T=12)
    store(folder, out)
    linear = LlamaConfig(vocab_size=19, hidden_size=8, intermediate_size=10, num_hidden_layers=1, num_attention_heads=4,
                         num_key_value_heads=2, head_dim=6, max_position_embeddings=96, rms_norm_eps=1e-3,
                         tie_word_embeddings=False, bos_token_id=None, eos_token_id=None,
                         rope_parameters=dict(rope_type="linear", factor=3.0, rope_theta=500.0))
    folder, _, _, _, out = model("linear", saved, LlamaForCausalLM, linear, torch.float32)
    store(folder, out)
    shards = Qwen2Config(vocab_size=19, hidden_size=8, intermediate_size=6, num_hidden_layers=2, num_attention_heads=1,
                         num_key_value_heads=1, max_position_embeddings=512, rms_norm_eps=1e-6,
                         tie_word_embeddings=False,
                         bos_token_id=1, eos_token_id=[2, 3],
                         rope_parameters=dict(rope_type="llama3", rope_theta=5000.0, factor=32.0, low_freq_factor=2.0,
                                              high_freq_factor=3.0, original_max_position_embeddings=128))
    folder, _, _, _, out = model("shards", saved, Qwen2ForCausalLM, shards, torch.float64, max_shard_size=5000)
    assert len([n for n in os.listdir(folder) if n.endswith(".safetensors")]) == 2
    store(folder, out)


# ---- Tokenizers ------------------------------------------------------------------------------------------------------

CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPLIT = {"llama3": CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + REST,
         "qwen2": CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + REST}
TRAINING = [  # every piece that is to be a token a few times
    "the cat and the hen, the other then; they're here, it's there, we'll see, I've been, don't, I'm, he'd " * 3,
    "for (int i = 0; i < 100; i++) {\n        x[i] = 0;\n    }\n\n" * 3, "in 1999, 2000, 2001, 2010 and 123456 " * 3,
    "中文 中文 日本語 日本 한국어 한국 " * 3, "café naïve été déjà vu là " * 3, "привет мир " * 3, "🙂🙂 👍🏽 " * 3,
    "\t\tif\r\n" * 4, "aaaaaaaaaaaaaaaa " * 3, "................ " * 3]
SPACES = [*"\x0b\x0c\x1c\x1f\x85\xa0\u1680\u180e\u2000\u200a\u200b\u2028\u2029\u202f\u205f\u3000\ufeff"]
NEW = [*"\U0001e030\U00031350\U0002ebf0\u1c89\u1c8a\ua7cb\ua7da\U00010d4a\U00010d41\U00016d40\U0001ccf0\U000105c9"]
GLUE = [  # merges across the borders of words, last of all: they are seen where a border is missing
    *(c + c for c in SPACES), *"12 23 34 45 56 67 \u017ft \u017fx sa da Ta LLx tx".split(), "(x", "\tb", "_a", "=x",
    " 1", "1 ", "!\n", "\n ", " \n", " \t", "\t ", "a ", "a\n", "\xa0b", "\u3000x", "\n\n", "\r\n", "a'", "''", "!!"]
GLUE_BYTES = [(a, b) for a in b"a1 " for b in (0xC2, 0xCC, 0xD9, 0xE0, 0xE1, 0xE2, 0xE3, 0xEA, 0xF0)]
UNREACHABLE = ["Ġzebra", "quagga"]  # in the vocabulary, but no merges lead there: for ignore_merges


def byte_names():
    """The characters that stand for bytes, by byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return {**{b: chr(b) for b in printable}, **{b: chr(256 + i) for i, b in enumerate(others)}}


def added(content, ident, special=True, normalized=False):
    return dict(id=ident, content=content, single_word=False, lstrip=False, rstrip=False, normalized=normalized,
                special=special)


def byte_level(**keys):
    return dict(type="ByteLevel", **keys)


MISSING = [0, 1, 2, 3, 0x80, 0x9f, 0xc0, 0xc1, 0xf1, 0xf2, *range(0xf5, 0x100)]  # bytes without a token, as SmolLM2 has


def without_bytes(form):
    """Of a vocabulary that has no token for some bytes: SmolLM2 as transformers converts it from GGUF, with Digits as on
    the hub; and one that drops such bytes. Their neighbours are merged across what is dropped."""
    made = tokenizer("llama3")
    kept = [m for m in made["model"]["merges"] if not set("".join(m)) & {byte_names()[b] for b in MISSING}]
    vocab = {"<|endoftext|>": 0}
    for name in [*(c for b, c in byte_names().items() if b not in MISSING), *(a + b for a, b in kept), *UNREACHABLE]:
        vocab.setdefault(name, len(vocab))
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    made.update(added_tokens=[added(t, len(vocab) + i - 1 if i else 0) for i, t in enumerate(names)],
                post_processor=None)
    level = byte_level(add_prefix_space=False, trim_offsets=True, use_regex=True)
    made["model"].update(vocab=vocab, merges=kept, ignore_merges=False)
    if form == "digits":  # Digits in runs, then the words of Llama 3, then nothing more
        made["pre_tokenizer"]["pretokenizers"].insert(0, dict(type="Digits", individual_digits=False))
        return made
    made["model"].update(unk_token="<|endoftext|>", fuse_unk=True, byte_fallback=True)
    replace = dict(type="Replace", pattern=dict(String="\u2581"), content=" ")
    made.update(pre_tokenizer=dict(type="Sequence", pretokenizers=[dict(type="Digits", individual_digits=True), level]),
                decoder=dict(type="Sequence", decoders=[dict(type="ByteFallback"), dict(type="Fuse"), replace,
                                                        byte_level(add_prefix_space=True, trim_offsets=True,
                                                                   use_regex=True)]))
    return made


def tokenizer(form):
    """tokenizer.json as it stands on the hub, but for the vocabulary."""
    if form in ("smollm2", "digits"):
        return without_bytes(form)
    bytes_only = byte_level(add_prefix_space=False, trim_offsets=True, use_regex=False)
    split = {} if form == "gpt2" else dict(type="Sequence", pretokenizers=[
        dict(type="Split", pattern=dict(Regex=SPLIT[form]), behavior="Isolated", invert=False), bytes_only])
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False) if form == "gpt2" else \
        pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(SPLIT[form]), "isolated"),
                                 pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    trained.train_from_iterator(TRAINING, trainers.BpeTrainer(vocab_size=256 + 60, show_progress=False,
                                                              initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    merges = [tuple(m) for m in json.loads(trained.to_str())["model"]["merges"]]
    names = byte_names()
    for text in GLUE:  # each character of its bytes, then the text of its characters
        characters = [[names[b] for b in c.encode()] for c in text]
        for parts in *characters, ["".join(c) for c in characters]:
            merges += [("".join(parts[:i]), parts[i]) for i in range(1, len(parts))]
    merges += [(names[a], names[b]) for a, b in GLUE_BYTES]
    merges = list(dict.fromkeys(merges))
    vocab = {}
    for name in [*names.values(), *(a + b for a, b in merges), *UNREACHABLE]:
        vocab.setdefault(name, len(vocab))
    n = len(vocab)
    common = dict(version="1.0", truncation=None, padding=None)
    bpe = dict(dropout=None, unk_token=None, continuing_subword_prefix="", end_of_word_suffix="", fuse_unk=False)
    if form == "gpt2":  # an old file: no type, no byte_fallback, merges in one string; the end token in the vocabulary
        vocab["<|endoftext|>"] = n
        return dict(**common, normalizer=None,
                    added_tokens=[added("<|endoftext|>", n, normalized=True), added("<|end", n + 1, normalized=True)],
                    pre_tokenizer=byte_level(add_prefix_space=False, trim_offsets=True),
                    post_processor=byte_level(add_prefix_space=True, trim_offsets=False),
                    decoder=byte_level(add_prefix_space=True, trim_offsets=True),
                    model=dict(**bpe, vocab=vocab, merges=[" ".join(m) for m in merges]))
    if form == "llama3":
        begin = dict(SpecialToken=dict(id="<|begin_of_text|>", type_id=0))
        whole = [dict(Sequence=dict(id="A", type_id=0)), dict(Sequence=dict(id="B", type_id=1))]
        template = dict(type="TemplateProcessing", single=[begin, whole[0]], pair=[begin, whole[0], begin, whole[1]],
                        special_tokens={"<|begin_of_text|>": dict(id="<|begin_of_text|>", ids=[n],
                                                                  tokens=["<|begin_of_text|>"])})
        added_names = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|eot_id|><|eot", "<|\U0001f642|>"]
        return dict(**common, added_tokens=[added(t, n + i) for i, t in enumerate(added_names)], normalizer=None,
                    pre_tokenizer=split, post_processor=dict(type="Sequence", processors=[
                        byte_level(add_prefix_space=True, trim_offsets=False, use_regex=True), template]),
                    decoder=byte_level(add_prefix_space=True, trim_offsets=True, use_regex=True),
                    model=dict(type="BPE", **bpe, byte_fallback=False, ignore_merges=True, vocab=vocab, merges=merges))
    tokens = [added("<|endoftext|>", n), added("<|im_start|>", n + 1), added("<|im_end|>", n + 2),
              added("<tool_call>", n + 3, special=False), added("<tool_call>\n", n + 4, special=False),
              added("<e\u0301>", n + 5, special=False), added("<\xe9t\xe9>", n + 6, normalized=True),
              added("<o\u0302\u0301>", n + 7, normalized=True)]  # its normal form is looked for
    same = byte_level(add_prefix_space=False, trim_offsets=False, use_regex=False)
    return dict(**common, added_tokens=tokens, normalizer=dict(type="NFC"), pre_tokenizer=split, post_processor=same,
                decoder=same, model=dict(type="BPE", **bpe, byte_fallback=False, ignore_merges=False, vocab=vocab,
                                         merges=merges))


TEXTS = [  # a pair (text, n): n times
    "", "a", " ", "\n", "the cat and the other hen", "The Cat\nAND then\n\nthe end.\n", " leading and trailing ",
    # contractions
    "they're we've I'm he'd it's we'll don't", "THEY'RE WE'VE I'M HE'D IT'S WE'LL DON'T", "'Re'vE'M'lL's'T'D",
    "I'LLx 'Tax 'tx 'dab '\u017ftx",
    "'\u017f '\u017ft it'\u017f X'\u017fx 's'S", "''s 'sam 'dare 'lll 'r 'v 'l '\ufb06 '\u212a\u2019s",
    "a's'b 'S\n's 1's _'s",
    # numbers
    "1 12 123 1234 12345 123456 1234567", "a1b22c333 4444d -55555 6.66 7,777", "0x1F 1e-5 2000",
    "\u0660\u0661\u0662\u0663\u0664 \u0967\u0968\u0969\u096a \uff11\uff12\uff13\uff14 \U0001d7d8\U0001d7d9",
    "\u00b2\u00bd\u2167\u2460\u3007\u0bf0\u0f33\u3220 x\u00b2y", "1\u0661\u00b22 \U0001e950",
    "a\u0663b\u0663 1\u0663 a\u06f1",
    # white space
    "  two   three    four", "\ta\t\tb \t c\t", "a\r\nb\r\n\r\nc\r\rd\n\re \r\n f\n  \n", "x \n\n\n  y   \n", "\n\n a",
    "   ", " \n", "\n ", "a \n", "a  \n  b", "   \r\n", "a\u00a0b\u00a0\u00a0c \u00a0d",
    "\u3000\u3000\u65e5 \u3000x\u3000",
    "a\u0085b\u0085\u0085 c\n\u0085", "".join(c + c + "c" for c in SPACES),
    "x\u2028\u2028y \u2029", "if (x) {\n        return;\n    }\n\t}\n", "!\n\n?\r\n \r\n;;\n x", " .\n. \n .",
    "...\r\n\r\na",
    # scripts
    "\u4e2d\u6587\u65e5\u672c\u8a9e\uff0c\u4e2d\u6587\u3002 \u4e2d\u6587", "\ud55c\uad6d\uc5b4 \ud55c\uad6d",
    "привет, мир! Здравствуй",
    "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645", "\u0928\u092e\u0938\u094d\u0924\u0947",
    "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35 \u0e01\u0e33",
    "\U0001f642\U0001f642 \U0001f44d\U0001f3fd x\U0001f642y \u2764\ufe0f",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea",
    "\u01c5 \u02b0\u00aa\u00ba \u2071 \ua78f _a_ a_b",
    # composed and decomposed
    "caf\u00e9 na\u00efve d\u00e9j\u00e0 vu l\u00e0", "cafe\u0301 nai\u0308ve de\u0301ja\u0300 e\u0301te\u0301",
    "q\u0307\u0323 q\u0323\u0307 a\u0328\u0301 \u1ea5 a\u0302\u0301 s\u0323\u0307",
    "\u212b \u2126 \u212a \uf900 \u2329 \U0002f800 \u0374",
    "\u0958 \u0915\u093c \u2adc \U0001d15e \u0344 \u0340 \u0f73 \u0f77 \ufb1d",
    "\u1112\u1161\u11ab \ud558\u11ab \u1100\u1161\u1161 \uac01\u11a8",
    "\u0301 \u0301a ' \u0301", "a\u0315\u0300\u05ae\u0300b \u0b47\u0300\u0b3e \u09c7\u09be",
    "\u0300\u0308\u0301\n\u0308\u0301",
    "\u16d6\u1e9b\u0323 \u0dd9\u0dcf\u0dca \U00011131\U00011127 \U00016d67\U00016d67",
    # letters and numbers of Unicode 15, 15.1 and 16, and what is none yet
    "".join(f"a{c}1{c}" for c in NEW), "a\u0378 1\U0003fffd a\u20ac\u00b5",
    "\ue000 \U000f0000 \U0010ffff \ufffd \ufffe",
    # vocabulary
    " zebra zebra quagga quaggas zebras", "aaaaaaaa aaaa aaa", ("a", 5000), (" ", 999), ("7", 1001), (".", 500),
    ("\n", 700), ("\u4e2d", 300), ("\U0001f642", 100), [("a", 70), "e", ("\u0301\u0323", 24), "x"],
    [(" ", 40), "x", (" \n", 30), (" ", 20)], [("the ", 50), "\n"],
    "\x00\x01\x7f", "\u0120\u010a\u0100\u0143 \u00a1\u00ad\u00ff",
    "Don't!Stop?[x]=\"y\";//z", "<|", "<|endof", "|>"]
SPECIAL = {
    "gpt2": ["<|endoftext|>", "a<|endoftext|>b", " <|endoftext|> <|endoftext|><|endoftext|>\n", "<|end",
             "<|end<|endoftext|>", "<|endoftex", "it<|endoftext|>'s", "12<|endoftext|>34 <|endoftext|", "<|ENDOFTEXT|>",
             "x  <|endoftext|>  y"],
    "llama3": ["<|begin_of_text|>", "a<|end_of_text|>b", "<|eot_id|><|eot_id|>", "<|eot_id|><|eo",
               "<|eot_id|>\n\n<|eot_id|><|eot x",
               "<|\U0001f642|>\U0001f642", "it<|eot_id|>'s  <|eot_id|>  12<|eot_id|>34", "<|eot_id",
               "<|begin_of_text|> a"],
    "qwen2": ["<|im_start|>user\nhi<|im_end|>\n<|endoftext|>", "<tool_call>{}", "<tool_call>\n{}",
              "a<tool_call> \n<tool_call>",
              "<e\u0301> <\u00e9>", "<\u00e9t\u00e9> <e\u0301te\u0301> <\u00e9te\u0301>", "<o\u0302\u0301> <\u1ed1>",
              "e<|im_end|>\u0301",
              "it<|im_end|>'s", "12<|im_end|>34  <|im_end|>  x", "<|im_end", "\u1112\u1161<|im_end|>\u11ab"]}
SPECIAL["smollm2"] = SPECIAL["digits"] = [
    "<|im_start|>user\n1 12<|im_end|>", "\x01", "\x01\x02\x03", "t\x01he t\x01\x02he \x01the\x01 th\x02e", "1\x012", "a\x011",
    "\x01<|im_end|>\x01\x01", " \x01 \x02", "x\u00c0\u0100y\U0001f642z \U000fffff", "ab 12 cd3456ef 7 \n8\n", "  1  2", "a1\u06612\u00b2\u2167b",
    "\u0661\u0662 12\u00bd", "don't 3's 4 's", " \n 5 \n\n6", "the1the22the the\x0033the"]


def runs(items, text):
    """Equal neighbours as one: a a a b -> a*3 b."""
    out = []
    for item in items:
        if out and out[-1][0] == item:
            out[-1][1] += 1
        else:
            out.append([item, 1])
    return [text(item) + (f"*{n}" if n > 1 else "") for item, n in out]


def parts(text):
    return text if isinstance(text, list) else [text]


def hexadecimal(text):
    each = [p.encode().hex() if isinstance(p, str) else f"{p[0].encode().hex()}*{p[1]}" for p in parts(text)]
    return "+".join(each) or "-"


def whole(text):
    return "".join(p if isinstance(p, str) else p[0] * p[1] for p in parts(text))


def cases(form, folder):
    t = Tokenizer.from_file(f"{folder}/tokenizer.json")
    size, lines, others = t.get_vocab_size(), [], 0
    for text in TEXTS + SPECIAL[form]:
        ids = t.encode(whole(text)).ids
        decoded = t.decode(ids, skip_special_tokens=True)
        others += decoded != whole(text)
        lines.append([hexadecimal(text), "=" if decoded == whole(text) else hexadecimal(decoded), *runs(ids, str)])
    token = {b: i for i, b in enumerate(byte_names())}
    lead, trail = [token[b] for b in (0xC3, 0xE2, 0xED, 0xF0, 0xF4)], [token[b] for b in range(0x80, 0xC0)]
    for _ in range(25):  # bytes of characters out of place, now and then another token
        ids = [int(rng.choice(lead) if k < 4 else rng.choice(trail) if k < 8 else rng.integers(0, size))
               for k in rng.integers(0, 10, rng.integers(1, 13))]
        lines.append(["?", hexadecimal(t.decode(ids, skip_special_tokens=True)), *runs(ids, str)])
    with open(f"{folder}/cases.txt", "w") as f:
        f.writelines(" ".join(line) + "\n" for line in lines)
    print(f"{form}: {size} tokens, {len(lines)} cases, {others} decode to another text")


def all_tokenizers():
    for form, end in ("gpt2", "<|endoftext|>"), ("llama3", "<|end_of_text|>"), ("qwen2", "<|endoftext|>"), (
            "smollm2", "<|im_end|>"), ("digits", "<|im_end|>"):
        folder = f"{HERE}/bpe-{form}"
        os.makedirs(folder)
        made = tokenizer(form)
        with open(f"{folder}/tokenizer.json", "w") as f:  # one of them with all but ASCII escaped
            json.dump(made, f, ensure_ascii=form == "llama3", separators=(",", ":"))
        t = Tokenizer.from_file(f"{folder}/tokenizer.json")
        with open(f"{folder}/config.json", "w") as f:
            json.dump(dict(model_type="llama", hidden_size=4, num_hidden_layers=1, num_attention_heads=1,
                           intermediate_size=4, vocab_size=t.get_vocab_size() + 3, eos_token_id=t.token_to_id(end)), f)
        cases(form, folder)


if __name__ == "__main__":
    shutil.rmtree(HERE, ignore_errors=True)
    os.makedirs(HERE)
    all_models()
    all_tokenizers()
