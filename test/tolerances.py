"""tolerances.py - how far off a right backend may be: measured on many right ones. Each draw is a whole backend
(test/backend.py) of its own: every sum in an order of its own (shuffled; one after the other, in 2 to 32 lanes, in
pairs, or with fused multiply-adds), exp, log, sin, cos, 1/sqrt and quotients off by up to a unit in the last place,
factors applied before or after a product; in bfloat16 and float16, where sums are float32, also the places where
numbers are rounded. A tensor's tolerance is 4 times the largest error of any draw; where it is stored in bfloat16 or float16, and half a unit
in the last place.
    python test/tolerances.py FOLDER [--draws 10000] [--precision f32]     how many draws of another seed fail
"""
import argparse
import json
import math
import time

import numpy as np
import torch
from safetensors.torch import load_file

import backend

STORED = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
MEASURED = {"f32": 4000, "bf16": 2000, "f16": 2000}  # draws from which tolerances are taken
AT_ONCE, LONG = 200, 8  # draws computed side by side; of the long text one in so many
FACTOR = 4
HALF_UNIT = {"bf16": 2.0 ** -9, "f16": 2.0 ** -12}  # relative


def off(a, b, by="row"):
    """Of each draw the largest |a - b| of any row (or of the tensor) relative to the largest |a| there; b [R, ..]."""
    if a.numel() == 0:
        return torch.zeros(len(b), dtype=torch.float64)
    a = a.double().reshape(-1, a.shape[-1] if by == "row" else a.numel())
    b = b.double().reshape(len(b), *a.shape)
    d, largest = (b - a).abs().amax(-1), a.abs().amax(-1)
    return torch.where(d == 0, 0.0, d / largest).amax(-1).nan_to_num(nan=math.inf)


def batches(folder, precision, draws, seed):
    """The files of that many draws, some at a time, and how many they are."""
    short = [f[:-12] for f in json.load(open(f"{folder}/manifest.json"))["files"] if f != "long.safetensors"]
    for n in range(0, draws, AT_ONCE):
        R = min(AT_ONCE, draws - n)
        yield R, backend.compute(folder, backend.Rounded(STORED[precision], R, seed + n), short)
    for n in range(0, max(draws // LONG, 1), 8):
        yield 8, backend.compute(folder, backend.Rounded(STORED[precision], 8, seed + n + 1), ["long"])


def tensors_of(manifest, file):
    return manifest["files"][f"{file}.safetensors"]["tensors"]


def measure(folder, manifest):
    """Writes tolerances into the manifest."""
    write(folder, manifest)
    reference = {f: load_file(f"{folder}/{f}") for f in manifest["files"]}
    for precision, draws in MEASURED.items():
        most = {}
        for _, done in batches(folder, precision, draws, 1):
            for f, tensors in done.items():
                for name, x in tensors.items():
                    a, by = reference[f"{f}.safetensors"][name], tensors_of(manifest, f)[name].get("by", "row")
                    if a.is_floating_point():
                        most[f, name] = max(most.get((f, name), 0), off(a, x, by).max().item())
        for f, entry in manifest["files"].items():
            for name, t in entry["tensors"].items():
                if t["dtype"] == "F64" and not t.get("given"):
                    error, file = FACTOR * most[f[:-12], name], f[:-12]
                    if precision != "f32" and error > 0 and file not in backend.FULL + backend.MASTERS:
                        error += HALF_UNIT[precision]
                    t[precision] = t["f32"] if file in backend.FULL and "f32" in t else two_digits(error)
        largest = reference["base.safetensors"]["logits"].abs().max().item()
        logits, greedy = tensors_of(manifest, "base")["logits"], tensors_of(manifest, "choices")["greedy"]
        greedy[precision] = two_digits(2 * largest * logits[precision])
    for entry in manifest["files"].values():
        for t in entry["tensors"].values():
            if "f32" in t:  # float64 is 2^-29 times finer; 1e-12 leaves room
                t["f64"] = 1e-12 if t["f32"] else 0
                assert 4 * 2.0 ** -29 * t["f32"] < 1e-12
    return manifest


def two_digits(x):
    """Rounded up."""
    if x == 0:
        return 0
    unit = 10.0 ** (math.floor(math.log10(x)) - 1)
    return float(f"{math.ceil(x / unit) * unit:.1e}")


def write(folder, manifest):
    """One line a tensor."""
    order = ("kind", "dtype", "shape", "given", "or", "margin", "by", "f64", "f32", "bf16", "f16")
    with open(f"{folder}/manifest.json", "w") as out:
        out.write(f'{{"version": {manifest["version"]},\n"rule": {json.dumps(manifest["rule"])},\n')
        kinds = [f" {json.dumps(k)}: {json.dumps(v)}" for k, v in manifest["kinds"].items()]
        out.write('"kinds": {\n' + ",\n".join(kinds) + '},\n"files": {\n')
        blocks = []
        for f, e in manifest["files"].items():
            rows = [f"   {json.dumps(n)}: {json.dumps({k: t[k] for k in order if k in t})}"
                    for n, t in e["tensors"].items()]
            head = "".join(f'  {json.dumps(k)}: {json.dumps(e[k])},\n' for k in ("what", "inputs", "settings"))
            blocks.append(f' {json.dumps(f)}: {{\n{head}  "tensors": {{\n' + ",\n".join(rows) + "}}")
        out.write(",\n".join(blocks) + "}}\n")


def judge(folder, precision, draws):
    """How many of so many right backends fail; the largest error as a part of its tolerance."""
    manifest = json.load(open(f"{folder}/manifest.json"))["files"]
    reference = {f: load_file(f"{folder}/{f}") for f in manifest}
    failed, largest, total = 0, (0, ""), 0
    for R, done in batches(folder, precision, draws, 10 ** 6):
        bad = torch.zeros(R, dtype=torch.bool)
        for f, tensors in done.items():
            entry, ref = manifest[f"{f}.safetensors"]["tensors"], reference[f"{f}.safetensors"]
            for name, x in tensors.items():
                a, t = ref[name], entry[name]
                if a.is_floating_point():
                    o = off(a, x, t.get("by", "row"))
                    bad |= o > t[precision]
                    ratio = (o.max() / t[precision]).item() if t[precision] else 0.0
                    largest = max(largest, (ratio, f"{f}: {name}"))
                else:
                    right = x == a
                    if "or" in t:
                        right |= (x == ref[t["or"]]) & (ref[t["margin"]] <= t[precision])
                    bad |= ~right.reshape(R, -1).all(1)
        failed += int(bad.sum())
        total += R if len(done) > 1 else 0
    return failed, total, largest


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="FOLDER", help="the folder of vectors")
    parser.add_argument("--draws", type=int, default=10000)
    parser.add_argument("--precision", choices=STORED, action="append", help="one of them (all)")
    args = parser.parse_args()
    for precision in args.precision or STORED:
        begin = time.time()
        failed, total, (ratio, where) = judge(args.folder, precision, args.draws)
        print(f"{precision}: {failed} of {total} right backends fail; the largest error is {ratio:.2f} of its "
              f"tolerance ({where}); {time.time() - begin:.0f} s", flush=True)
