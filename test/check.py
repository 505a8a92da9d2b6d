"""check.py - what `run check` does, with Python alone: python3 test/check.py VECTORS YOURS f64|f32|bf16|f16
VECTORS/manifest.json lists files and tensors; YOURS has files of the same names. A real may be off by its tolerance
times the row's (or tensor's) largest magnitude; integers are equal, or where the margin allows it the second best."""
import json, math, os, struct, sys
FORMAT = dict(F64="d", F32="f", F16="e", BF16="f", I64="q", I32="i", I16="h", I8="b", U64="Q", U32="I", U16="H", U8="B")

def load(path):
    """A safetensors file: {name: (type, shape, numbers)}, without numbers if the type is none of FORMAT."""
    data, tensors = open(path, "rb").read(), {}
    start = 8 + struct.unpack("<Q", data[:8])[0]
    for name, t in json.loads(data[8:start]).items():
        if name == "__metadata__": continue
        raw, form = data[start + t["data_offsets"][0]:start + t["data_offsets"][1]], FORMAT.get(t["dtype"])
        if t["dtype"] == "BF16": raw = b"".join(b"\0\0" + raw[i:i + 2] for i in range(0, len(raw), 2)) # half an F32
        tensors[name] = t["dtype"], t["shape"], form and [x for x, in struct.iter_unpack("<" + form, raw)]
    return tensors

def judge(name, want, reference, yours, bound):
    """What is wrong with a tensor, or None; and how many near-ties went the other way. want: its manifest entry."""
    (_, shape, a), (kind, found, b), real = reference[name], yours[name], want["dtype"] == "F64"
    if kind not in FORMAT or real != ("F" in kind):
        return "%s is %s %s, expected %s" % (name, kind, found, "reals" if real else "integers"), 0
    if found != shape: return "%s is %s %s, expected %s %s" % (name, kind, found, want["dtype"], shape), 0
    row, place = shape[-1] if shape else 1, lambda i: "%d, %d" % divmod(i, shape[-1]) if len(shape) > 1 else i
    wrong = lambda i: "%s [%s] is %.9g, expected %.9g" % (name, place(i), b[i], a[i])
    second, margin = reference[want.get("or", name)][2], reference[want.get("margin", name)][2]
    other = [i for i in range(len(a)) if (not math.isfinite(a[i] / 2 - b[i] / 2) if real else a[i] != b[i])]
    bad = [i for i in other if real or b[i] != second[i] or not margin[i] <= bound]
    if bad or not real: return (wrong(bad[0]), 0) if bad else (None, len(other))
    offs, off, at, right = [abs(x - y) for x, y in zip(a, b)], 0, 0, True
    if want.get("by") == "tensor": row = len(a)
    for i in range(0, len(a), row or 1):
        largest, most = max(map(abs, a[i:i + row])), max(offs[i:i + row])
        relative = most / largest if largest else math.inf if most else 0
        right = right and most <= bound * largest
        if relative > off: off, at = relative, offs.index(most, i)
    return None if right else wrong(at) + ", off %.3g of the largest, at most %g" % (off, bound), 0

def main(vectors, yours, precision):
    files, total = json.load(open(vectors + "/manifest.json"))["files"], [0, 0, 0]
    for file, entry in files.items():
        tensors, reference, path = entry["tensors"], load(vectors + "/" + file), yours + "/" + file
        mine = load(path) if os.path.exists(path) else {}
        results = [judge(k, t, reference, mine, t.get(precision, 0)) for k, t in tensors.items() if k in mine]
        wrong, ties = [text for text, _ in results if text], sum(n for _, n in results)
        missing = sum(k not in mine and not t.get("given") for k, t in tensors.items())
        unknown, right = [k for k in mine if k not in tensors], len(results) - len(wrong)
        total = [x + y for x, y in zip(total, (right, len(wrong), missing))]
        parts = ["%d right" % right if results else "not done", wrong and "%d wrong" % len(wrong),
                 results and missing and "%d not done" % missing,
                 ties and "%d near-tie%s the other way" % (ties, "s" * (ties > 1)),
                 unknown and "%d unknown (%s%s)" % (len(unknown), unknown[0], ", ..." * (len(unknown) > 1))]
        print("%-22s %s" % (file, ", ".join(filter(None, parts)) + ("; first wrong: " + wrong[0] if wrong else "")))
    if total[:2] == [0, 0]: raise ValueError(yours + ": holds no tensor of those that the manifest lists")
    print("%d right, %d wrong, %d not done: %s" % (*total, precision))
    return 1 if total[1] else 0
if len(sys.argv) != 4 or sys.argv[3] not in ("f64", "f32", "bf16", "f16"): sys.exit(__doc__)
try: sys.exit(main(*sys.argv[1:]))
except (OSError, ValueError, LookupError, TypeError, AttributeError, struct.error) as problem:
    sys.exit(print("check.py:", repr(problem), file=sys.stderr) or 3)
