#!/bin/sh
# all.sh - runs every test program and, at the same time, the hosts, the witness of other programs and the command lines,
# and adds up. `make test` calls it from the root. Elsewhere (test/elsewhere.sh) one after the other, and none of the first
# two.
out=test/build/results.txt
: > "$out"
scripts=$([ -n "$ELSEWHERE" ] || echo hosts witness)
scripts="$scripts cli"
in_background=$([ -n "$ELSEWHERE" ] || echo 1)
run_scripts() { for t in $scripts; do sh test/$t.sh > test/build/$t.log 2>&1; done; }
[ -z "$in_background" ] || run_scripts &
for t in test/build/*-f32 test/build/*-f64; do
    [ -f "$t" ] && [ -x "$t" ] || continue
    "$t" > test/build/log.txt 2>&1
    code=$?
    cat test/build/log.txt
    grep ' passed, ' test/build/log.txt >> "$out" || echo "$t ended with status $code and no count: 0 passed, 1 failed" | tee -a "$out"
    [ $code = 0 ] || ! grep -q ' 0 failed$' test/build/log.txt || # a leak, say, found at the end
        echo "$t ended with status $code: 0 passed, 1 failed" | tee -a "$out"
done
# the kernels' definitions have the bits that are promised (with FAST=1 nothing is)
if [ "$FAST" != 1 ]; then
    test/build/plain-bits test/build/plain.tmp > test/build/log.txt 2>&1
    if grep '^f32' test/bits.txt | cmp -s - test/build/log.txt; then echo "plain definitions: 1 passed, 0 failed"
    else echo "plain definitions, against test/bits.txt: 0 passed, 1 failed"; fi | tee -a "$out"
fi
if [ -n "$in_background" ]; then wait; else run_scripts; fi
for t in $scripts; do
    cat test/build/$t.log
    grep ' passed, ' test/build/$t.log >> "$out" || echo "test/$t.sh gave no count: 0 passed, 1 failed" | tee -a "$out"
done
sed 's/.* \([0-9]*\) passed, \([0-9]*\) failed.*/\1 \2/' "$out" | awk '
    { passed += $1; failed += $2 }
    END { printf "%d passed, %d failed\n", passed, failed; exit failed > 0 || passed == 0 }'
