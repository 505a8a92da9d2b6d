#!/bin/sh
# memory.sh - peak resident memory against what run info says: pre-training, LoRA training, decoding with experts merged in
# and beside the weights, at the shapes of 0.4 M, 15 M, 110 M and 1 B models (with a byte vocabulary: 0.36 M, 6 M, 85 M,
# 974 M). `make memory`: the first three, a minute; `make memory SIZE=all`: five more, 20 GB of memory, 10 GB of disk.
F=test/build/memory.d
text=test/build/memory.txt # one document of 100 sequences of 256 tokens, so that every batch is as large as it can be
failed=0
check() { # check WHAT LINE-OF-INFO COMMAND...
    what=$1 line=$2
    shift 2
    test/build/large peak "$@" > $F/out 2> $F/log || { cat $F/log; failed=1; }
    said=$(sed -n "s/^ *$line *\([0-9.]*\) MiB/\1/p" $F/info)
    awk -v said="$said" -v what="$what" '/^peak/ { off = ($2 - said) / said * 100
        printf "%-26s run info said %8.1f MiB, found %8.1f: %+.1f %%\n", what, said, $2, off
        bad = !(off < 5 && off > -5) } END { exit bad }' $F/log || failed=1
}
[ "$SIZE" = all ] && large="2048 16 32 8 8192 64"
for shape in "96 3 3 3 256 256" "288 6 6 6 768 256" "768 12 12 12 2048 256" ${large:+"$large"}; do
    set -- $shape
    rm -rf $F && mkdir -p $F
    cat data/train/*.txt | grep -v endoftext | head -c $((100 * $6 - 1)) > $text
    base="./train base $F/m $text --dim $1 --layers $2 --heads $3 --kv-heads $4 --intermediate $5 --context $6 --steps 1 --quiet"
    $base && ./train index $F/m $text --context $6 --quiet && ./train cluster $F/m --experts 3 --quiet || exit 1
    ./train experts $F/m --epochs 1 --expert-lr 0 --only 0 --quiet || exit 1
    cp -r $F/m/experts/0 $F/m/experts/1 && cp -r $F/m/experts/0 $F/m/experts/2
    ./run info $F/m --context $6 --active 3 > $F/info
    sed -n 1,2p $F/info
    mv $F/m/model.safetensors $F/m/experts $F
    check "pre-training" "train base (batch 8)" $base
    mv $F/model.safetensors $F/experts $F/m && rm -r $F/m/experts/0 $F/m/experts/1
    check "LoRA training, 2 at once" "train experts, 2 at once (--jobs)" ./train experts $F/m --epochs 1 --expert-lr 0 --only 0-1 \
        --jobs 2 --quiet
    rm -r $F/m/experts/0
    check "LoRA training" "train experts, finetune (batch 2)" ./train experts $F/m --epochs 1 --expert-lr 0 --only 0 --quiet
    head -c $(($6 - 16)) data/test/c.txt > $F/prompt
    for how in "merged in:dense" "beside:lowrank"; do
        check "decoding, ${how##*:}" "generate, experts ${how%%:*}" ./run generate $F/m --file $F/prompt --tokens 16 \
            --active 3 --merge ${how##*:} --quiet --prefix 50
    done
done
rm -rf $F
exit $failed
