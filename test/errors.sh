#!/bin/sh
# errors.sh - measures numerical errors: three tables on standard output, in a few minutes.
#   make errors      or, all being built,  sh test/errors.sh [MODEL]      default: demo/model, as `make demo` makes it
#
#   1. The float build against the double build of the same source, on the same weights: each value of `run trace`, by
#      kind. An error is the largest |float - double| of a tensor over its largest |double|: the largest and the median
#      over layers and 12 prompts of 256 tokens of data/test. MODEL alone, with one adapter, with routed experts merged;
#      and a small model trained here, 1000 steps from a random start in float.
#   2. That training run in float against the same run in double (each number of steps is a run of its own).
#   3. Merged adapters against unmerged ones (test/merging.c says what the columns are).
set -eu
model=${1:-demo/model}
work=test/build/errors
shape="--dim 32 --heads 2 --kv-heads 1 --layers 2 --intermediate 80 --context 256 --untied --batch 4"
rm -rf "$work"
mkdir -p "$work"
[ -f "$model/config.json" ] || { echo "errors.sh: $model is no model: run make demo first" >&2; exit 3; }
ls data/test/*.txt | awk 'NR % 2 == 1 && ++n <= 12' > "$work/prompts"
while read -r file; do
    dd if="$file" of="$work/$(basename "$file")" bs=256 count=1 2> "$work/log"
done < "$work/prompts"

# compare CASE FOLDER options of trace: adds CASE, tensor, ..., max_rel to errors.tsv, for every prompt
compare() {
    name=$1
    folder=$2
    shift 2
    for text in "$work"/*.txt; do
        ./run-f64 trace "$folder" --file "$text" --quiet -o "$work/a" "$@"
        ./run trace "$folder" --file "$text" --quiet -o "$work/b" "$@"
        ./run compare "$work/a" "$work/b" --rtol 1 --tsv "$work/tsv" > "$work/log" 2>&1 || :
        awk -v name="$name" 'NR > 1 { print name "\t" $0 }' "$work/tsv" >> "$work/errors.tsv"
    done
}

# drift STEPS A B: adds steps and the comparison of the weights of B with A, and of their losses, to drift.tsv
drift() {
    ./run compare "$2/model.safetensors" "$3/model.safetensors" --rtol 10 --tsv "$work/tsv" > "$work/log" 2>&1 || :
    awk -v steps="$1" 'NR > 1 { print steps "\t" $0 }' "$work/tsv" >> "$work/drift.tsv"
    for text in "$work"/*.txt; do
        ./run-f64 trace "$2" --file "$text" --quiet -o "$work/a"
        ./run-f64 trace "$3" --file "$text" --quiet -o "$work/b"
        ./run compare "$work/a" "$work/b" --rtol 10 --tsv "$work/tsv" > "$work/log" 2>&1 || :
        awk -v steps="$1" '$1 == "loss" { print steps "\t" $0 }' "$work/tsv" >> "$work/drift.tsv"
    done
}

sorted='function sort(x, n,    i, j, t) { # insertion
        for (i = 2; i <= n; i++) { t = x[i]; for (j = i - 1; j > 0 && x[j] > t; j--) x[j + 1] = x[j]; x[j + 1] = t } }'

for steps in 10 100 1000; do
    ./train base "$work/f32-$steps" data/train/*.txt $shape --steps $steps --quiet
    ./train-f64 base "$work/f64-$steps" data/train/*.txt $shape --steps $steps --quiet
    drift $steps "$work/f64-$steps" "$work/f32-$steps"
done
./train base "$work/seed-2" data/train/*.txt $shape --steps 1000 --seed 2 --quiet
drift "1000, another seed" "$work/f64-1000" "$work/seed-2"
compare base "$model" --grad
compare adapter "$model" --grad --adapter "$model/finetuned"
compare small "$work/f32-1000" --grad
compare routed "$model" --route --merge dense

echo "1. float against double: error relative to the tensor's largest value, largest and median"
awk -F '\t' "$sorted"'
    function kind(s) {
        if (s ~ /lora_A/) return "grad lora_A"
        if (s ~ /lora_B/) return "grad lora_B"
        if (s ~ /norm.weight/) return "grad norms"
        if (s ~ /embed_tokens/) return "grad embedding"
        if (s ~ /lm_head/) return "grad head"
        if (s ~ /^grad/) { sub(/.weight$/, "", s); sub(/.*[.]/, "", s); return "grad " s }
        sub(/^layers.[0-9]*./, "", s)
        return s
    }
    $2 == "tokens" { prompts[$1]++ }
    $2 == "experts" && $11 != "same" { others++ }
    $2 == "tokens" || $2 == "experts" || $2 == "query" { next }
    $11 != "same" && $11 != "within" { wrong++; next }
    { k = kind($2); if (!(k in seen)) { seen[k] = 1; order[++kinds] = k } i = $1 SUBSEP k; x[i, ++n[i]] = $6 + 0 }
    END {
        cases = split("base adapter routed small", name, " ")
        split("MODEL|with finetuned|routed, merged|small model", title, "|")
        printf "%-15s", ""
        for (c = 1; c <= cases; c++) printf "  %18s", title[c]
        printf "\n%-15s", "kind"
        for (c = 1; c <= cases; c++) printf "  %9s%9s", "largest", "median"
        printf "\n"
        for (j = 1; j <= kinds; j++) {
            printf "%-15s", order[j]
            for (c = 1; c <= cases; c++) {
                i = name[c] SUBSEP order[j]
                if (!(i in n)) { printf "  %9s%9s", "-", "-"; continue }
                for (t = 1; t <= n[i]; t++) one[t] = x[i, t]
                sort(one, n[i])
                printf "  %9.1e%9.1e", one[n[i]], (one[int((n[i] + 1) / 2)] + one[int((n[i] + 2) / 2)]) / 2
            }
            printf "\n"
        }
        printf "%d prompts; routed to other experts in float: %d; tensors that cannot be compared: %d\n",
            prompts["base"], others, wrong
    }' "$work/errors.tsv"

echo
echo "2. weights trained in float against the same in double: error as above; mean loss on the prompts, all in double"
awk -F '\t' "$sorted"'
    !($1 in seen) { seen[$1] = 1; order[++runs] = $1 }
    $2 == "loss" { a[$1] += $9; b[$1] += $10; prompts[$1]++; next }
    { x[$1, ++n[$1]] = $6 + 0 }
    END {
        printf "%-20s%10s%10s%14s%14s%12s\n", "steps", "largest", "median", "loss, double", "loss, float", "difference"
        for (j = 1; j <= runs; j++) {
            s = order[j]
            for (t = 1; t <= n[s]; t++) one[t] = x[s, t]
            sort(one, n[s])
            printf "%-20s%10.1e%10.1e", s, one[n[s]], (one[int((n[s] + 1) / 2)] + one[int((n[s] + 2) / 2)]) / 2
            p = prompts[s]
            printf "%14.8f%14.8f%12.1e\n", a[s] / p, b[s] / p, (b[s] - a[s]) / p
        }
    }' "$work/drift.tsv"

echo
echo "3. merged against unmerged adapters"
test/build/merging-double "$model" data/test/*.txt
test/build/merging "$model" data/test/*.txt
