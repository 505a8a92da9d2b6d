#!/bin/sh
# all.sh - runs the command lines (test/cli.sh) and, beside them, every test program, the hosts, the witness of other
# programs, memory and disk that run out (test/exhausted.sh) and the README's commands, and adds up. `make test` calls it
# from the root. Elsewhere (test/elsewhere.sh) one after the other, without hosts, witness and what runs out.
out=test/build/results.txt
: > "$out"
beside=readme
[ "${FLAGS#*-fsanitize}" = "$FLAGS" ] || beside= # under sanitizers they take minutes, and do little that cli.sh does not
cli() { sh test/cli.sh > test/build/cli.log 2>&1; }
if [ -z "$ELSEWHERE" ]; then
    beside="hosts witness exhausted $beside"
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} # of two at once with two each, half would wait in loops
    cli &
fi
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
for t in $beside; do sh test/$t.sh > test/build/$t.log 2>&1 < /dev/null; done
if [ -n "$ELSEWHERE" ]; then cli; else wait; fi
for t in $beside cli; do
    cat test/build/$t.log
    grep ' passed, ' test/build/$t.log >> "$out" || echo "test/$t.sh gave no count: 0 passed, 1 failed" | tee -a "$out"
done
sed 's/.* \([0-9]*\) passed, \([0-9]*\) failed.*/\1 \2/' "$out" | awk '
    { passed += $1; failed += $2 }
    END { printf "%d passed, %d failed\n", passed, failed; exit failed > 0 || passed == 0 }'
