"""curves.py - the paper's figures on SmolLM2-135M and data/: data/curves/*.svg; their numbers, data/curves/curves.tsv.

    make smollm-curves                    three hours on two cores; goes on where it was interrupted
    python test/curves.py draw            only draws data/curves/curves.tsv as it is; MACHINE="..." names the machine

    experts     perplexity by K, the number of experts, 1 ... 100, of one, three and ten active ones (all-mpnet-base-v2)
    active      by the number of active experts of 10, merged and as an ensemble, by embedding
    beta, tau   of the row ttmm, of 10 experts, by embedding (the other of the two as in test/table.py)
    held        K = 2, 5, 10, learned without every fifth document, on these (numbers only): what K to choose
    sift        TTT by SIFT on these, some 8 prompts, by lambda; of the nearest as many (numbers only)
    equal       as active, all with the same weight (a row of numbers only)
    time-k      time before the first token can be computed, by K, at most ten active
    time-rank   time of merging ten experts, by rank: run bench on the base's shape
Training is that of test/table.py, whose indexes, baseline and first experts it uses. All prompts of data/test, where
nothing else is said."""
import csv, json, math, os, platform, sys

import table as t

HERE, DATA = f"{t.HERE}/curves", "data/curves"
MACHINE = os.environ.get("MACHINE") or f"{platform.processor() or platform.machine()}, {os.cpu_count()} threads"
S, FILES = t.SETTINGS["data"], t.files("data", "test")
NAMES = {name: folder or "built-in embedding" for name, folder in t.NAMES.items()}
BETA = {name: S["beta"][name == "built-in"] for name in t.NAMES}
KS, HELD = [1, 2, 5, 10, 20, 50, 100], [2, 5, 10]
COLUMNS = ["figure", "series", "x", "y", "machine"]


def rows(path, program, *words):
    """The rows that a command writes by --tsv; what the same command has written is taken as it is."""
    path, command = f"{HERE}/{path}", " ".join(map(str, (program, *words, MACHINE)))
    if not os.path.exists(f"{path}.command") or open(f"{path}.command").read() != command:
        t.call(program, *words, "--tsv", f"{path}.tsv")
        open(f"{path}.command", "w").write(command)
    return list(csv.DictReader(open(f"{path}.tsv"), delimiter="\t"))


def evaluated(path, where, name, only, *words, files=FILES):
    """{method: its row} of run eval"""
    found = rows(path, "run", "eval", where, *files, *t.encoder(name), "--only", only, *words)
    return {row["method"]: row for row in found}


def with_experts(K, name="mpnet"):
    """A model of the same corpus with K experts; that of the table's first run, if that is it."""
    if (K, name) == (S["K"], "mpnet"):
        return t.folder("data", name, 1)
    index = t.indexed(f"{t.HERE}/data-{name}-1", t.files("data", "train"), name)
    return t.with_experts(f"{HERE}/k{K}-{name}", index, K, *S["experts"])


def held_out(point):
    """Of models that have not seen every fifth document of the training part, on these."""
    fit, held = (t.write(f"{t.HERE}/data-held/{part}", of) for part, of in zip(("fit", "held"), t.split("data")))
    index = t.indexed(f"{t.HERE}/data-held/index", fit, "mpnet")
    on = lambda path, where, only, *words: evaluated(path, where, "mpnet", only, *words, files=held)
    for K in HELD:
        where = t.with_experts(f"{HERE}/held-k{K}", index, K, *S["experts"])
        for method, row in on(f"held-{K}", where, "ttmm-1,ttmm-3,ttmm-10", "--beta", BETA["mpnet"]).items():
            point("held", method, K, row["ppl"])
    t.train("finetune", index, *S["finetune"], 1)
    point("held", "one fine-tuned LoRA", "", on("held-levels", index, "finetuned")["finetuned"]["ppl"])
    neighbours, most, rate = S["ttt"]
    how = "--neighbours", neighbours, "--ttt-lr", rate, "--ttt-prompts", 8, "--passes"
    for passes in most, 1:
        of = on(f"nearest-{passes}", index, "ttt", *how, passes)["ttt"]
        point("sift", f"nearest, passes: {passes}", "", of["ppl"])
    # few passes: what SIFT selects more than once is learned by heart soon
    for passes, noise in (1, 0.01), (1, 0.1), (1, 1), (1, 10), (2, 1):
        of = on(f"sift-{noise}-{passes}", index, "ttt", *how, passes, "--select", "sift", "--lambda", noise)["ttt"]
        point("sift", f"SIFT, passes: {passes}", noise, of["ppl"])


def measure():
    found = []
    point = lambda *values: found.append(dict(zip(COLUMNS, (*values, MACHINE))))
    first = t.folder("data", "mpnet", 1)
    level = evaluated("levels", first, "mpnet", "base,finetuned")
    for K in KS:
        of = evaluated(f"experts-{K}", with_experts(K), "mpnet", "ttmm-1,ttmm-3,ttmm-10", "--beta", BETA["mpnet"])
        for n in 1, 3, 10:
            if n <= K:
                point("experts", f"{n} active", K, of[f"ttmm-{n}"]["ppl"])
    point("experts", "one fine-tuned LoRA", "", level["finetuned"]["ppl"])
    for name in NAMES:
        where = with_experts(10, name)
        sparse = lambda path, *words: evaluated(f"{path}-{name}", where, name, "ttmm", *words)["ttmm"]["ppl"]
        for n in 1, 2, 3, 5, 10:
            point("active", NAMES[name], n, sparse(f"active-{n}", "--active", n, "--beta", BETA[name]))
            if n > 1 and name == "mpnet":
                how = "--active", n, "--beta", BETA[name], "--merge", "ensemble"
                point("active", "ensemble, " + NAMES[name], n, sparse(f"ensemble-{n}", *how))
                how = "--active", n, "--beta", 100  # of so wide a kernel all weights are 1 / n
                point("equal", NAMES[name], n, sparse(f"equal-{n}", *how))
        for beta in 0.05, 0.1, 0.2, 0.3, 0.5, 1:
            point("beta", NAMES[name], beta, sparse(f"beta-{beta}", "--beta", beta))
        for tau in 0.001, 0.01, 0.03, 0.1, 0.2, 0.4:
            point("tau", NAMES[name], tau, sparse(f"tau-{tau}", "--beta", BETA[name], "--tau", tau))
    for figure in "active", "beta", "tau":
        point(figure, "one fine-tuned LoRA", "", level["finetuned"]["ppl"])
    held_out(point)
    c = json.load(open(f"{t.MODEL}/config.json"))
    shape = ",".join(str(c[k]) for k in ("hidden_size", "num_hidden_layers", "num_attention_heads",
                                         "num_key_value_heads", "intermediate_size", "vocab_size"))
    for K in KS:
        of = evaluated(f"time-{K}", with_experts(K), "mpnet", "ttmm-10", "--beta", BETA["mpnet"], "--prompts", 20)
        point("time-k", "10 active", K, of["ttmm-10"]["test_time_s"])
    for rank in 4, 8, 16, 32, 64:
        of = rows(f"rank-{rank}", "run", "bench", "--shape", shape, "--only", "merge", "--rank", rank)
        point("time-rank", "10 active", rank, of[0]["seconds"])
    os.makedirs(DATA, exist_ok=True)
    with open(f"{DATA}/curves.tsv", "w") as f:
        out = csv.DictWriter(f, COLUMNS, delimiter="\t", lineterminator="\n")
        out.writeheader()
        out.writerows(found)


FIGURES = {"experts": ("Perplexity, by the number of experts", "experts, K"),
           "active": ("Perplexity, by the number of active experts", "active experts, of 10"),
           "beta": ("Perplexity, by the width of the kernel", "β"),
           "tau": ("Perplexity, by the least weight", "τ"),
           "time-k": ("Milliseconds before the first token, by K", "experts, K"),
           "time-rank": ("Milliseconds to merge ten experts, by rank", "rank")}
COLOURS = ["#0860ca", "#b0480a", "#1a7f37", "#8250df", "#59636e"]  # in turn; a level is grey
STYLE = ("text{fill:#1f2328}.title{font-weight:600;font-size:15px}.tick,.note{fill:#59636e}.note{font-size:11px}"
         ".series{font-weight:600}"
         ".axis{stroke:#59636e}.grid{stroke:#e4e8ec}.level{stroke:#59636e;stroke-width:2;stroke-dasharray:6 4}"
         "polyline{fill:none;stroke-width:2.5}circle{stroke:#fff;stroke-width:1.5}")
LEFT, RIGHT, BOTTOM, WIDE, HIGH = 52, 404, 310, 420, 380


def steps(low, high):
    """Round numbers, some five, that hold low to high."""
    unit = 10 ** math.floor(math.log10((high - low) / 4))
    step = next(unit * k for k in (1, 2, 2.5, 5, 10) if (high - low) / (unit * k) <= 6)
    first = math.floor(low / step)
    return [step * i for i in range(first, math.ceil(high / step - 1e-9) + 1)]


def panel(figure, points):
    """One figure: a line a series over a logarithmic axis; a point without x is a level."""
    title, name = FIGURES[figure]
    scale = 1000 if figure.startswith("time") else 1  # milliseconds
    series = {}
    for p in points:
        series.setdefault(p["series"], []).append((float(p["x"]) if p["x"] else None, scale * float(p["y"])))
    names = sorted(series, key=lambda s: (series[s][0][0] is None, s.startswith("ensemble")))
    top = 44 + 16 * (len(names) if len(names) > 1 else 0)  # a line for each name
    xs = sorted({x for of in series.values() for x, _ in of if x is not None})
    ys = [y for of in series.values() for _, y in of]
    ticks = steps(0 if scale > 1 else min(ys), max(ys))
    across = lambda x: LEFT + 18 + math.log(x / xs[0]) / math.log(xs[-1] / xs[0]) * (RIGHT - LEFT - 36)
    up = lambda y: BOTTOM - (y - ticks[0]) / (ticks[-1] - ticks[0]) * (BOTTOM - top)
    text = lambda x, y, css, anchor, s, more="": (
        f'<text x="{x:.1f}" y="{y:.1f}" class="{css}" text-anchor="{anchor}"{more}>{s}</text>')
    line = lambda x1, y1, x2, y2, css: (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{css}"/>')
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDE} {HIGH}" width="{WIDE}" height="{HIGH}"'
           ' role="img" font-family="-apple-system, Segoe UI, Helvetica, Arial, sans-serif" font-size="12">',
           f"<title>{title}</title><style>{STYLE}</style>",
           f'<rect x=".5" y=".5" width="{WIDE - 1}" height="{HIGH - 1}" rx="8" fill="#fff" stroke="#d1d9e0"/>',
           text(LEFT, 26, "title", "start", title)]
    for y in ticks:
        out += [line(LEFT, up(y), RIGHT, up(y), "grid"), text(LEFT - 8, up(y) + 4, "tick", "end", f"{y:g}")]
    out.append(line(LEFT, BOTTOM, RIGHT, BOTTOM, "axis"))
    for x in xs:
        out += [line(across(x), BOTTOM, across(x), BOTTOM + 4, "axis"),
                text(across(x), BOTTOM + 17, "tick", "middle", f"{x:g}")]
    out.append(text((LEFT + RIGHT) / 2, BOTTOM + 35, "name", "middle", name))
    for i, s in enumerate(names):
        colour = COLOURS[-1 if series[s][0][0] is None else i]
        if len(names) > 1:
            out.append(text(LEFT, 46 + 16 * i, "series", "start", s, f' style="fill:{colour}"'))
        if series[s][0][0] is None:
            out.append(line(LEFT, up(series[s][0][1]), RIGHT, up(series[s][0][1]), "level"))
            continue
        at = [(across(x), up(y)) for x, y in series[s]]
        out.append(f'<polyline stroke="{colour}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in at)}"/>')
        out += [f'<circle fill="{colour}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>' for x, y in at]
    note = points[0]["machine"] if scale > 1 else "data/test, 52 prompts"
    out.append(text(16, HIGH - 14, "note", "start", "SmolLM2-135M, " + note))
    return "\n".join([*out, "</svg>", ""])


def draw():
    points = list(csv.DictReader(open(f"{DATA}/curves.tsv"), delimiter="\t"))
    for figure in FIGURES:
        open(f"{DATA}/{figure}.svg", "w").write(panel(figure, [p for p in points if p["figure"] == figure]))


if __name__ == "__main__":
    os.makedirs(HERE, exist_ok=True)
    if sys.argv[1:] != ["draw"]:
        measure()
    draw()
