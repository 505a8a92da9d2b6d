#!/bin/sh
# memory.sh - peak resident memory against what run info says: pre-training, LoRA training, decoding with experts merged in
# and beside the weights, at three sizes (test/large.sh has the fourth, 1.2 billion). `make memory`, about two minutes.
F=test/build/memory.d
text=test/build/memory.txt # one document of 100 sequences of 256 tokens, so that every batch is as large as it can be
cat data/train/*.txt | grep -v endoftext | head -c 25599 > $text
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
for shape in "96 3 3 256" "288 6 6 768" "768 12 12 2048"; do
    set -- $shape
    rm -rf $F && mkdir -p $F
    base="./train base $F/m $text --dim $1 --layers $2 --heads $3 --intermediate $4 --steps 2 --quiet"
    $base && ./train index $F/m $text --quiet && ./train cluster $F/m --experts 3 --quiet || exit 1
    ./train experts $F/m --epochs 1 --expert-lr 0 --only 0 --quiet || exit 1
    cp -r $F/m/experts/0 $F/m/experts/1 && cp -r $F/m/experts/0 $F/m/experts/2
    ./run info $F/m --context 256 --active 3 > $F/info
    sed -n 1,2p $F/info
    mv $F/m/model.safetensors $F/m/experts/0 $F
    check "pre-training" "train base (batch 8)" $base
    mv $F/model.safetensors $F/m
    check "LoRA training" "train experts, finetune (batch 2)" ./train experts $F/m --epochs 1 --expert-lr 0 --only 0 --quiet
    head -c 200 data/test/c.txt > $F/prompt
    for how in "merged in:dense" "beside:lowrank"; do
        check "decoding, ${how##*:}" "generate, experts ${how%%:*}" ./run generate $F/m --file $F/prompt --tokens 56 \
            --active 3 --merge ${how##*:} --quiet --prefix 50
    done
done
rm -rf $F
exit $failed
