#!/bin/sh
# choose.sh - how the default settings were chosen: the last document of every file in data/train is held out (never
# data/test), the rest is trained on, and the table is printed for each setting tried. About six minutes on 2 cores.
#   sh test/choose.sh [folder]        default: demo/choose
set -eu
out=${1:-demo/choose}
mkdir -p "$out/train" "$out/held"
for f in data/train/*.txt; do
    n=$(grep -c '^<|endoftext|>$' "$f")
    awk -v n="$n" -v a="$out/train/$(basename "$f")" -v b="$out/held/$(basename "$f")" '
        /^<\|endoftext\|>$/ { if (++k == n) { to_held = 1; next } }
        { print > (to_held ? b : a) }' "$f"
done
table() { ./run eval "$@" --quiet | awk 'NR == 1 || /^(base|finetuned|ttmm|uniform|ttt)/'; }
m=$out/model
./train all "$m" "$out"/train/*.txt --quiet
echo "== the defaults"
table "$m" "$out"/held/*.txt
for beta in 0.08 0.1 0.14 0.2 0.3; do
    echo "== --beta $beta"
    table "$m" "$out"/held/*.txt --ttt-prompts 0 --beta $beta | grep '^ttmm'
done
for o in "--neighbours 10" "--neighbours 40" "--ttt-lr 0.005" "--passes 2" "--passes 4" "--passes 8" "--select sift"; do
    echo "== $o"
    table "$m" "$out"/held/*.txt $o | grep '^ttt '
done
for o in "--experts 26" "--experts 80" "--epochs 3" "--expert-batch 4" "--expert-batch 1" "--expert-lr 0.005"; do
    echo "== $o"
    rm -rf "$m-other"
    cp -r "$m" "$m-other"
    rm -rf "$m-other/experts" "$m-other/finetuned" "$m-other/centroids.safetensors"
    case $o in --experts*) ./train cluster "$m-other" --quiet $o; o= ;; *) ./train cluster "$m-other" --quiet ;; esac
    ./train experts "$m-other" --quiet $o
    ./train finetune "$m-other" --quiet $o
    table "$m-other" "$out"/held/*.txt --ttt-prompts 0 | grep -E 'finetuned|ttmm'
done
