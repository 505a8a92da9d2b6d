#!/bin/sh
# mistakes.sh - shows that `run check` passes what is right and catches what people get wrong: test/backend.py, a backend in
# PyTorch, is run as it is and once with each of its deliberate mistakes, at four precisions; test/check.py must say the
# same as ./run, word for word. Needs Python with torch and safetensors, ./run and test/build/vectors; four minutes.
#   make && make test/build/vectors && PYTHON=python3 sh test/mistakes.sh
PYTHON=${PYTHON:-python3}
B=test/build
out=$B/mistakes
passed=0
failed=0
expect() { # expect WANTED FOUND WHAT
    if [ "$1" = "$2" ]; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAILED: $3: found $2, expected $1"; fi
}
rm -rf "$out" && mkdir -p "$out"
"$PYTHON" test/backend.py $B/vectors "$out" --mistakes || exit 1
printf '%-31s %s\n' "mistake" "tensors wrong: f64, f32, bf16, f16; the first one in float32"
for name in right $(ls "$out/f64" | grep -v '^right$'); do
    counts=
    for precision in f64 f32 bf16 f16; do
        ./run check $B/vectors "$out/$precision/$name" --precision $precision > "$out/log" 2> "$out/sentence"
        code=$?
        wrong=$(tail -n 1 "$out/log" | sed 's/.* right, \([0-9]*\) wrong.*/\1/')
        counts="$counts$(printf '%5s' "$wrong")"
        wanted=1
        [ "$name" = right ] && wanted=0
        case $name/$precision in rotary-float32/*f16 | eps-outside-root/bf16) wanted=0 ;; esac # less than they round
        expect $wanted $code "$name, $precision"
        [ $precision = f32 ] || continue
        first=$(grep -m 1 'first wrong' "$out/log" | sed 's/\.safetensors.*first wrong:/:/; s/, off.*//')
        "$PYTHON" test/check.py $B/vectors "$out/$precision/$name" $precision > "$out/python" 2>&1
        expect $code $? "$name, check.py"
        expect "" "$(diff "$out/log" "$out/python")" "$name: check.py's words"
    done
    printf '%-31s %s   %s\n' "$name" "$counts" "$first"
done
echo "$passed passed, $failed failed"
[ $failed = 0 ]
