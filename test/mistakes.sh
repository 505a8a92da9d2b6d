#!/bin/sh
# mistakes.sh - shows that the comparison of test/README.md catches what people get wrong: the PyTorch backend is run as it
# is, in float64 and float32, and once with each of its deliberate mistakes. Needs Python with torch and safetensors.
#   make vectors && PYTHON=python3 sh test/mistakes.sh
PYTHON=${PYTHON:-python3}
out=test/build/mistakes
passed=0
failed=0
mkdir -p "$out"
bound() { # a float32 backend's tolerance for a file: 4 times what ttmm's own float build is off
    awk -v f="$1.safetensors" '$1 == f && $3 > most { most = $3 } END { print 4 * most }' test/vectors/float-errors.txt
}
# caught RTOL: the first tensor of each file that is past it, as "file: tensor: what"; nothing if all is well
caught() {
    for f in base adapter dense lowrank merged optimiser choices; do
        rtol=$1
        [ "$rtol" = f32 ] && rtol=$(bound $f)
        ./run compare vectors/$f.safetensors "$out/$f.safetensors" --rtol "$rtol" --tsv "$out/tsv" > "$out/log" 2>&1
        code=$?
        [ $code -gt 1 ] && cat "$out/log"
        awk -F '\t' -v f=$f 'NR > 1 && $10 != "same" && $10 != "within" { if (n++ == 0) first = $1 ": " tolower($10) }
            END { if (n) printf "%s: %s, and %d more tensors\n", f, first, n - 1 }' "$out/tsv"
    done
}
tell() { # tell NAME WANTED(0: nothing is caught, 1: something is) FOUND
    if [ "$2" = "$([ -n "$3" ] && echo 1 || echo 0)" ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
    printf '%-36s %s\n' "$1" "$(echo "${3:-nothing past the tolerance}" | head -n 1)"
}
"$PYTHON" test/backend.py vectors "$out" || exit 1
tell "as it is, float64" 0 "$(caught 1e-12)"
"$PYTHON" test/backend.py vectors "$out" --float32 || exit 1
tell "as it is, float32" 0 "$(caught f32)"
for mistake in $("$PYTHON" test/backend.py -h | awk '/^mistakes:/ { on = 1; next } on { print $1 }'); do
    "$PYTHON" test/backend.py vectors "$out" --mistake "$mistake" || exit 1
    tell "$mistake" 1 "$(caught 1e-12)"
    "$PYTHON" test/backend.py vectors "$out" --float32 --mistake "$mistake" || exit 1
    tell "$mistake, float32" 1 "$(caught f32)"
done
echo "$passed passed, $failed failed"
[ $failed = 0 ]
