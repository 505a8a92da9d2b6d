#!/bin/sh
# scaling.sh - the speed of products; how the cost of each work grows, by run bench: seconds and GFLOP/s (GB/s where memory
# bounds). A part that grows faster than its formula would show as a falling rate. Then routing over 10,000 experts and clustering of a million
# embeddings. `make scaling`, some minutes; 3 GB of memory.
B=test/build
row() { # row WORK COLUMN OPTIONS...: seconds and a rate
    work=$1 column=$2
    shift 2
    ./run bench --only "$work" --quiet --tsv $B/scaling.tsv "$@" > $B/scaling.log || { cat $B/scaling.log; exit 1; }
    awk -F '\t' -v work="$work" -v column="$column" '$1 == work { printf " %10.4g s %6.1f", $2, $column }' $B/scaling.tsv
}
$B/products
echo "sequence length (dim 256, 4 layers)   prefill s, GFLOP/s     training step of 8 s, GFLOP/s"
for T in 64 128 256 512 1024 2048; do
    printf '%5d %31s' $T ""
    row prefill 4 --shape 256,4,4,2,704,257 --context $T
    row train 4 --shape 256,4,4,2,704,257 --context $T --batch 8
    echo
done
echo "width (4 layers, MLP 2.75 x)          training step of 4 x 256 s, GFLOP/s    decode of 8 tokens s, GB/s"
for D in 64 128 256 512 1024; do
    printf '%5d %31s' $D ""
    row train 4 --shape $D,4,4,4,$((D * 11 / 4)),257 --batch 4
    row decode 5 --shape $D,4,4,4,$((D * 11 / 4)),257
    echo
done
echo "experts (dim 512, rank 16)            merge s, GFLOP/s       route s, GB/s"
for K in 1 10 100; do
    printf '%5d %31s' $K ""
    row merge 4 --shape 512,4,4,4,1408,257 --rank 16 --experts $K
    row route 5 --shape 512,4,4,4,1408,257 --rank 16 --experts $K
    echo
done
printf '%5d %31s %22s' 10000 "" ""
row route 5 --shape 64,1,1,1,64,257 --rank 1 --experts 10000
echo
echo "threads (dim 512, 4 layers)           training step of 4 x 256 s, GFLOP/s    the same, dim 96"
for n in 1 2 4 8; do # no more are started than there are processors
    [ "$n" -le "$(getconf _NPROCESSORS_ONLN)" ] || continue
    printf '%5d %31s' $n ""
    row train 4 --shape 512,4,4,4,1408,257 --batch 4 --threads $n
    row train 4 --shape 96,3,3,3,256,257 --batch 4 --threads $n
    echo
done
$B/large cluster 1000000 256 1000
