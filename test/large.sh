#!/bin/sh
# large.sh - real size, by `make large`: a model of the shape of Llama-3.2-1B with random weights in bf16 and ten experts of
# rank 64 loads, routes, merges both ways and decodes, in the memory that run info says before (within 5 %); and a matrix
# of more than 2^31 numbers. Needs 14 GB of memory and 7 GB of disk, and some minutes.
F=test/build/large.d
failed=0
rm -rf $F && mkdir -p $F
tokens=64
seq 1 48 > $F/prompt.ids
test/build/large make $F/1b 2048,16,32,8,64,8192,128256 10 64 || exit 1
./run info $F/1b --context $tokens | tee $F/info
for way in "merged in:dense" "beside:lowrank"; do
    said=$(sed -n "s/^ *generate, experts ${way%%:*} *\([0-9.]*\) MiB/\1/p" $F/info)
    test/build/large peak ./run generate $F/1b --ids $F/prompt.ids --query $F/1b/query.safetensors --active 10 \
        --merge ${way##*:} --tokens 16 --temperature 0 > $F/${way##*:} 2> $F/log || failed=1
    cat $F/log
    awk -v said="$said" -v way="${way##*:}" '/^peak/ { off = ($2 - said) / said * 100
        printf "%s: run info said %s MiB, %+.2f %%\n", way, said, off; exit !(off < 5 && off > -5) }' $F/log || failed=1
done
cmp $F/dense $F/lowrank && echo "both ways: the same tokens" || failed=1
rm -rf $F/1b
test/build/large check $F/wide || failed=1
rm -rf $F
exit $failed
