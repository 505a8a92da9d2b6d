#!/bin/sh
# demo.sh - what `make demo` runs: train everything on data/train, print the paper's table on data/test, show a route and a
# sample. Files under the folder given; a finished stage is not done again.     sh test/demo.sh FOLDER [options of train all]
set -eu
out=$1
shift
mkdir -p "$out"
echo "== train: base model, clusters, experts, fine-tuned baseline   (./train all $out/model data/train/*.txt $*)"
./train all "$out/model" data/train/*.txt "$@"
echo
echo "== the table, on held-out documents   (./run eval $out/model data/test/*.txt)"
./run eval "$out/model" data/test/*.txt --tsv "$out/results.tsv" ${DEMO_EVAL:-}
prompt="Melt the butter in a wide pan, add the onions and "
echo
echo "== a route   (./run route $out/model \"$prompt\")"
./run route "$out/model" "$prompt" --quiet
echo
echo "== the base model goes on   (./run generate $out/model --no-experts --tokens 200 --seed 2 ...)"
./run generate "$out/model" "$prompt" --no-experts --tokens 200 --seed 2 --quiet
echo
echo "== the merged model goes on   (./run generate $out/model --tokens 200 --seed 2 ...)"
./run generate "$out/model" "$prompt" --tokens 200 --seed 2 --quiet
