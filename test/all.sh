#!/bin/sh
# all.sh - every test program and, beside them, the command lines (test/cli.sh), the README's commands, the hosts, the
# witness of other programs, memory and disk that run out (test/exhausted.sh), as two rows of about the same length; and
# adds up. `make test` calls it from the root. Elsewhere (test/elsewhere.sh) one after the other, without hosts, witness
# and what runs out.
out=test/build/results.txt
: > "$out"
readme=readme
[ "${FLAGS#*-fsanitize}" = "$FLAGS" ] || readme= # under sanitizers it takes minutes, and does little that cli.sh does not
scripts() { # scripts NAME...
    for s in "$@"; do
        sh test/$s.sh > test/build/$s.log 2>&1 < /dev/null
        cat test/build/$s.log
        grep ' passed, ' test/build/$s.log >> "$out" || echo "test/$s.sh gave no count: 0 passed, 1 failed" | tee -a "$out"
    done
}
if [ -z "$ELSEWHERE" ]; then
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} # of two at once with two each, half would wait in loops
    scripts cli $readme &
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
if [ -n "$ELSEWHERE" ]; then scripts $readme cli
else
    scripts hosts witness exhausted
    wait
fi
sed 's/.* \([0-9]*\) passed, \([0-9]*\) failed.*/\1 \2/' "$out" | awk '
    { passed += $1; failed += $2 }
    END { printf "%d passed, %d failed\n", passed, failed; exit failed > 0 || passed == 0 }'
