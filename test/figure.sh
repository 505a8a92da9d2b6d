#!/bin/sh
# figure.sh - the figure of README.md: perplexity and time before the first token against the number of active experts.
#   make figure      or, after make demo,  sh test/figure.sh [MODEL]       some minutes; default: demo/model
#   sh test/figure.sh draw                                                 only draws data/figure.tsv as it is
#
# data/figure.tsv: what `run eval MODEL data/test/*.txt --active N` writes in its row ttmm, for each N, and once in its rows
# base, finetuned, uniform and ttt (all prompts, so that every perplexity is of the same ones). Before the columns of
# run eval --tsv stands N (-: none), after them the machine that the times are of; MACHINE="..." names it otherwise.
set -eu
table=data/figure.tsv
if [ "${1:-}" != draw ]; then
    model=${1:-demo/model}
    [ -f "$model/config.json" ] || { echo "figure.sh: $model is no model: run make demo first" >&2; exit 3; }
    work=test/build/figure
    mkdir -p "$work"
    processor=$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo 2> /dev/null | head -n 1)
    machine=${MACHINE:-${processor:-$(uname -m)}, $(getconf _NPROCESSORS_ONLN) threads}
    row() { # row METHOD N: that row of the last table
        awk -F '\t' -v OFS='\t' -v method="$1" -v n="$2" -v machine="$machine" '
            $1 == method || (NR == 1 && method == "") { print n, $0, NR == 1 ? "machine" : machine }' "$work/eval.tsv"
    }
    for n in 1 2 3 5 10 20; do
        prompts=0
        [ $n = 1 ] && prompts=1000000
        ./run eval "$model" data/test/*.txt --active $n --ttt-prompts $prompts --tsv "$work/eval.tsv" > "$work/log"
        if [ $n = 1 ]; then
            row "" N
            for method in base finetuned uniform ttt; do row $method -; done
        fi
        row ttmm $n
    done > "$work/figure.tsv"
    mv "$work/figure.tsv" $table
fi

awk -F '\t' '
NR == 1 { for (i = 1; i <= NF; i++) column[$i] = i; next }
{
    ppl = $column["ppl"] + 0
    ms = 1000 * $column["test_time_s"]
    if ($column["method"] == "ttmm") { N[++n] = $column["N"]; P[n] = ppl; M[n] = ms }
    else { level[$column["method"]] = ppl; time[$column["method"]] = ms; experts = $column["active"] > experts ? $column["active"] : experts }
    if (prompts && prompts != $column["prompts"]) { print "figure.sh: rows of different prompts" > "/dev/stderr"; exit 1 }
    prompts = $column["prompts"]
    machine = $column["machine"]
}
function log10(x) { return log(x) / log(10) }
function across(k) { return left + 22 + log(k) / log(20) * (wide - 44) }
function up(p) { return bottom - (p - low) / (high - low) * (bottom - top) }
function text(x, y, class, anchor, s) {
    printf "<text x=\"%.1f\" y=\"%.1f\" class=\"%s\" text-anchor=\"%s\">%s</text>\n", x, y, class, anchor, s
}
function line(x1, y1, x2, y2, class) {
    printf "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" class=\"%s\"/>\n", x1, y1, x2, y2, class
}
function frame(title,    i) { # a panel: its title, and the axis of experts, which both have
    text(left, 30, "title", "start", title)
    line(left, bottom, left + wide, bottom, "axis")
    for (i = 1; i <= n; i++) {
        line(across(N[i]), bottom, across(N[i]), bottom + 4, "axis")
        text(across(N[i]), bottom + 18, "tick", "middle", N[i])
    }
    text(left + wide / 2, bottom + 38, "name", "middle", "active experts, merged into one model")
}
function curve(    i) { # through the points at[1..n]
    printf "<polyline class=\"ttmm\" points=\""
    for (i = 1; i <= n; i++) printf "%.1f,%.1f ", across(N[i]), at[i]
    print "\"/>"
    for (i = 1; i <= n; i++) printf "<circle class=\"dot\" cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\"/>\n", across(N[i]), at[i]
}
END {
    print "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 840 386\" width=\"840\" height=\"386\" role=\"img\""
    print " font-family=\"-apple-system, Segoe UI, Helvetica, Arial, sans-serif\" font-size=\"13\">"
    print "<title>Perplexity, and milliseconds before the first token, against the number of active experts</title>"
    print "<style>text{paint-order:stroke;stroke:#fff;stroke-width:4;stroke-linejoin:round}.title{font-weight:600;font-size:15px;fill:#1f2328}.tick,.note{fill:#59636e}.note{font-size:12px}.name{fill:#1f2328}"
    print ".axis{stroke:#59636e}.grid{stroke:#e4e8ec}.ttmm{fill:none;stroke:#0860ca;stroke-width:2.5}.dot{fill:#0860ca;stroke:#fff;stroke-width:1.5}"
    print ".blue{fill:#0860ca}.rust{fill:#b0480a}.grey{fill:#59636e}.big{font-weight:600}"
    print ".lrust{stroke:#b0480a;stroke-width:2}.lgrey{stroke:#59636e;stroke-width:2}.gap{stroke:#1f2328;stroke-width:1}</style>"
    print "<rect x=\".5\" y=\".5\" width=\"839\" height=\"385\" rx=\"8\" fill=\"#fff\" stroke=\"#d1d9e0\"/>"
    top = 48; bottom = 290; wide = 350

    left = 52; low = 5.5; high = 8 # perplexity
    while (level["base"] > high) high += 0.5
    frame("Perplexity (lower is better)")
    for (p = low; p <= high; p += 0.5) {
        if (p > low) line(left, up(p), left + wide, up(p), "grid")
        text(left - 8, up(p) + 4.5, "tick", "end", sprintf("%.1f", p))
    }
    split("base,finetuned,ttt", method, ","); split("base model,one fine-tuned LoRA,TTT", name, ","); split("grey,grey,rust", colour, ",")
    for (k = 1; k <= 3; k++) {
        line(left, up(level[method[k]]), left + wide, up(level[method[k]]), "l" colour[k])
        text(left + wide, up(level[method[k]]) - 7, "big " colour[k], "end", sprintf("%s %.2f", name[k], level[method[k]]))
    }
    for (i = 1; i <= n; i++) at[i] = up(P[i])
    curve()
    for (i = 1; i <= n; i++) text(across(N[i]), at[i] + (P[i] > level["ttt"] ? -10 : 20), "blue", "middle", sprintf("%.2f", P[i]))
    text(across(N[1]), at[1] - 27, "big blue", "middle", "TTMM")

    left = 472; low = -1; high = 3 # milliseconds, decades
    frame("Milliseconds before the first token (log scale)")
    for (p = low; p <= high; p++) {
        if (p > low) line(left, up(p), left + wide, up(p), "grid")
        text(left - 8, up(p) + 4.5, "tick", "end", 10 ^ p)
    }
    line(left, up(log10(time["ttt"])), left + wide, up(log10(time["ttt"])), "lrust")
    text(left + wide, up(log10(time["ttt"])) + 18, "big rust", "end", sprintf("TTT %.0f ms", time["ttt"]))
    for (i = 1; i <= n; i++) at[i] = up(log10(M[i]))
    from = up(log10(time["ttt"])) + 7; to = at[3] - 26
    line(across(N[3]), from, across(N[3]), to, "gap")
    line(across(N[3]) - 4, from, across(N[3]) + 4, from, "gap")
    line(across(N[3]) - 4, to, across(N[3]) + 4, to, "gap")
    ratio = time["ttt"] / M[3]
    unit = 10 ^ (int(log10(ratio)) - 1) # two digits
    text(across(N[3]) + 9, (from + to) / 2 + 4, "name", "start", sprintf("TTT: about %d times as long", unit * int(ratio / unit + 0.5)))
    curve()
    for (i = 1; i <= n; i++) text(across(N[i]), at[i] - 10, "blue", "middle", sprintf("%.2f", M[i]))
    text(across(N[1]), at[1] - 27, "big blue", "middle", "TTMM")

    text(20, 352, "note", "start", sprintf("%d held-out prompts of data/test, each read to its 50th token, then scored; %d experts to choose from.", prompts, experts))
    gsub(/&/, "\\&amp;", machine)
    gsub(/</, "\\&lt;", machine)
    text(20, 369, "note", "start", "Time: the median over the prompts, on " machine ". The base and the fine-tuned model need nothing beforehand.")
    print "</svg>"
}' $table > data/figure.svg.tmp
mv data/figure.svg.tmp data/figure.svg
