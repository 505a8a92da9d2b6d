#!/bin/sh
# exhausted.sh - every allocation of the two programs fails in turn, and the disk is full at every size: it is said in a
# sentence, no temporary file stays, and the same command, given again, ends with the bytes of a run that nothing happened
# to. From the root, after make; make test builds test/build/run-faults and train-faults.
T=test/build/exhausted
. test/expect.sh
./train all "$T/m" "$T/cookbook.txt" "$T/c.txt" $SMALL --quiet
# with a sentence encoder, small and random
test/build/encoder-f32 "$T/enc" mpnet
ENC="--encoder $T/enc"
cp -r "$T/m" "$T/encoded" && rm -r "$T/encoded/experts" "$T/encoded/finetuned"
./train index "$T/encoded" "$T/cookbook.txt" "$T/c.txt" --context 64 $ENC --quiet
./train cluster "$T/encoded" --experts 3 --quiet && ./train experts "$T/encoded" --rank 2 --epochs 1 --quiet

head -c 300 "$T/c.txt" > "$T/short.txt"
every_allocation run route "$T/m" "Melt"
every_allocation run route "$T/encoded" "Melt" $ENC
every_allocation run trace "Melt" --embedding $ENC -o "$T/fault"
every_allocation run generate "$T/m" "Melt" --tokens 3 --merge dense
every_allocation run generate "$T/m" "Melt" --tokens 3 --merge ensemble
every_allocation run generate "$T/m" "Melt" --tokens 3 --ttt
every_allocation run eval "$T/m" "$T/short.txt" --ttt-prompts 1 --prefix 8 --jobs 2
every_allocation run merge "$T/m" "Melt" -o "$T/merged"
every_allocation run trace "$T/m" "Melt" --route --merge lowrank --grad -o "$T/fault"
every_allocation run compare "$T/fault" "$T/fault"
every_allocation run tokenize "$T/m" --file "$T/short.txt"
every_allocation run info "$T/m"
every_allocation run witness test/build/vectors/model --steps 1 --tokens 2
every_allocation train base "$T/fault.m" "$T/cookbook.txt" "$T/c.txt" --quiet $(echo "$SMALL" | sed 's/--experts.*//')
every_allocation train index "$T/fault.m" "$T/cookbook.txt" "$T/c.txt" --context 64 --quiet
every_allocation train index "$T/fault.m" "$T/short.txt" --context 64 --quiet $ENC
every_allocation train index "$T/fault.m" "$T/cookbook.txt" "$T/c.txt" --context 64 --quiet
every_allocation train cluster "$T/fault.m" --experts 3 --quiet
every_allocation train experts "$T/fault.m" --rank 2 --epochs 1 --quiet --jobs 2
every_allocation train finetune "$T/fault.m" --rank 2 --epochs 1 --quiet
# (not fewer than 16: clang's OpenMP keeps a file of its own)
for blocks in 16 32 64 128 256 512 1024 2048 8192; do
    (ulimit -f $blocks && trap '' XFSZ && exec ./train all "$T/disk.m" "$T/cookbook.txt" "$T/c.txt" $SMALL --quiet) 2> "$T/err"
    code=$?
    if [ $code = 0 ] || { [ $code = 4 ] && grep -q "cannot be" "$T/err"; }; then ok
    else fail "a disk full at $blocks blocks: expected exit code 4, found $code: $(tail -n 1 "$T/err")"; fi
    if [ -z "$(find "$T/disk.m" -name '*.tmp' 2> /dev/null)" ]; then ok; else fail "a disk full at $blocks blocks: a temporary file stays"; fi
done
[ $code = 0 ] && ok || fail "a disk with room: expected exit code 0, found $code"
for f in model corpus centroids experts/0/adapter_model experts/2/adapter_model finetuned/adapter_model; do
    same "$T/m/$f.safetensors" "$T/fault.m/$f.safetensors" "after failed allocations"
    same "$T/m/$f.safetensors" "$T/disk.m/$f.safetensors" "after full disks"
done

echo "$0: $passed passed, $failed failed"
[ $failed = 0 ]
