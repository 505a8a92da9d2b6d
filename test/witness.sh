#!/bin/sh
# witness.sh - shows that implementations written from test/BITS.md alone, by authors who had not seen ttmm.c, have its
# bits: test/witness.py (NumPy), test/witness.js (Node.js), test/witness.rs (Rust); and that a deviation from the page is
# found by --each, with the first tensor that it reaches. One that has no interpreter here is skipped, not passed.
#
#     sh test/witness.sh         vectors/wide by Python and JavaScript, seconds: a part of make test
#     sh test/witness.sh all     make witness: all folders of the vectors by all three, and the deviations, a minute; with
#                                SMOLLM=folder of SmolLM2-135M-Instruct that model, too: some minutes
B=test/build
V=$B/vectors
out=$B/witness
passed=0
failed=0
mkdir -p "$out"
[ -d "$V/wide" ] || { mkdir -p $B && tar -xf data/vectors.tar -C $B; }
PYTHON=${PYTHON:-python3}
export OMP_NUM_THREADS=1

judge() { # judge WHAT EXPECTED FOUND
    if [ "$2" = "$3" ]; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAILED: $1: found $3, expected $2"; fi
}
there() { # there LANGUAGE: whether it can be run
    case $1 in
    Python) "$PYTHON" -c 'import numpy' 2> "$out/log" || { echo "Python with NumPy is not here: witness.py is skipped"; return 1; } ;;
    JavaScript) command -v node > "$out/log" || { echo "Node.js is not here: witness.js is skipped"; return 1; } ;;
    Rust) command -v rustc > "$out/log" || { echo "rustc is not here: witness.rs is skipped"; return 1; }
        [ "$out/rust" -nt test/witness.rs ] || rustc -O test/witness.rs -o "$out/rust" ;;
    esac
}
run() { # run LANGUAGE ARGUMENTS
    language=$1
    shift
    case $language in
    Python) "$PYTHON" test/witness.py "$@" ;;
    JavaScript) node test/witness.js "$@" ;;
    Rust) "$out/rust" "$@" ;;
    esac
}
hash_of() { sed -n "s/^    $1  *\([0-9a-f]\{64\}\)\$/\1/p" test/BITS.md; } # as the page has it

languages="Python JavaScript"
[ "$1" != all ] || languages="$languages Rust"
for language in $languages; do
    there "$language" || continue
    run "$language" $V/wide --each > "$out/each" 2> "$out/log"
    judge "$language, vectors/wide, the first line that differs" "" "$(diff test/witness.txt "$out/each" | sed -n 2p)$(cat "$out/log")"
    [ "$1" = all ] || continue
    for folder in model tied qwen2 linear llama3; do
        judge "$language, vectors/$folder" "all $(hash_of $folder)" "$(run "$language" $V/$folder | tail -n 1)"
    done
    [ -z "$SMOLLM" ] || judge "$language, SmolLM2" "all $(hash_of SmolLM2)" \
        "$(run "$language" "$SMOLLM" --only expert,greedy --length 33 --steps 1 --tokens 16 | tail -n 1)"
    echo "$language: done"
done

# deviate NAME FIRST EDIT: witness.py with an edit (of sed) has other hashes from tensor FIRST on
deviate() {
    sed "$3" test/witness.py > "$out/deviated.py"
    cmp -s test/witness.py "$out/deviated.py" && judge "$1" "an edit that finds its place" "none"
    "$PYTHON" "$out/deviated.py" $V/wide --each > "$out/each" 2> "$out/log"
    judge "$1, the first line that differs" "$2" "$(diff test/witness.txt "$out/each" | sed -n 's/^< \(.*\) \[.*/\1/p' | head -n 1)"
    echo "$1: $(diff test/witness.txt "$out/each" | grep -c '^<') lines of $(wc -l < test/witness.txt) differ, the first is $2"
}
if [ "$1" = all ] && there Python; then
    deviate "a fused product" "pass layers.0.q" \
        's/lane += np.multiply(x_block, w_block, out=product)/lane[:] = f64(lane) + f64(x_block) * f64(w_block)/'
    deviate "lanes halved by neighbours" "pass layers.0.q" 's/lane = lane\[:h\] + lane\[h:\]/lane = lane[0::2] + lane[1::2]/'
    deviate "a sum in double" "pass layers.0.attn_norm" 's/^    return total(x \* y)$/    return f32((x.astype(f64) * y).sum(-1))/'
    deviate "exp off by a unit in the last place" "pass layers.0.attn" 's/^    return EXP(x).astype(f32)$/    return np.nextafter(EXP(x).astype(f32), f32(9))/'
    deviate "another library's exp of doubles" "functions exp" 's/return p \* np.ldexp(1.0, h - 1024) \* np.ldexp(1.0, m - h - 1024)/return np.exp(x)/'
    deviate "softmax without its maximum" "pass layers.0.attn" 's/e = exp(t - t.max(-1, keepdims=True))/e = exp(t)/'
    deviate "angles in float" "pass layers.0.q" 's/SINCOS(positions\[:, None, None\] \* f)/SINCOS(positions[:, None, None] * f32(f))/'
    deviate "1 / sqrt(S) with q, not with the scores" "pass layers.0.attn" 's/t = dots(q, k) \* z/t = dots(q * z, k)/'
    deviate "up before gate, in the gradient" "pass grad.model.layers.0.self_attn.q_proj.weight" '/linear(db, dact \* up/{h;d;};/linear(db, dact \* (gate \* s)/G'
    deviate "(1 - b2) g g from the left" "train step.2.loss" 's/f32(1 - b2) \* (g \* g)/f32(1 - b2) * g * g/'
    deviate "the gradient's norm in float" "train step.2.loss" 's/ascending(float(dot(g.ravel(), g.ravel())) for/sum(dot(g.ravel(), g.ravel()) for/'
    deviate "a shuffle from the front" "expert step.1.loss" 's/for i in range(n, 1, -1):/for i in range(2, n + 1):/'
    deviate "w and scale with A, not with B" "merge model.layers.0.self_attn.q_proj.weight" 's/(B \* a.f).T, A)/B.T, A * a.f)/'
    deviate "of equal clusters the last one split" "cluster cluster" 's/key=lambda c: inertia\[c\])/key=lambda c: (inertia[c], c))/'
fi
echo "$passed passed, $failed failed"
[ $failed = 0 ]
