# expect.sh - for scripts that run the programs: what is expected of a command, counted in $passed and $failed. $T is their
# folder, made anew.
rm -rf "$T"
mkdir -p "$T"
passed=0
failed=0
sanitized= # under sanitizers some things are done less often
case $FLAGS in *-fsanitize*) sanitized=yes ;; esac
fail() {
    failed=$((failed + 1))
    echo "$0: $1"
}
ok() { passed=$((passed + 1)); }

# expect CODE TEXT COMMAND...: the exit code, and TEXT in what it prints
expect() {
    code=$1
    text=$2
    shift 2
    "$@" > "$T/out" 2>&1 < /dev/null
    found=$?
    if [ "$found" != "$code" ]; then fail "$*: expected exit code $code, found $found: $(head -n 2 "$T/out")"
    elif [ -n "$text" ] && ! grep -qF -e "$text" "$T/out"; then fail "$*: expected \"$text\", found: $(head -n 2 "$T/out")"
    elif [ "$code" -gt 1 ] && [ "$code" != 130 ] && [ "$(wc -l < "$T/out")" -gt 30 ]; then fail "$*: more than one sentence"
    else ok; fi
}
same() { if cmp -s "$1" "$2"; then ok; else fail "$3: $1 and $2 differ"; fi; }

# every_allocation PROGRAM ARGUMENTS...: every allocation fails in turn (test/fault.h), and a sentence says so. Under
# sanitizers, where a program takes ten times as long to begin, every fifth.
every_allocation() {
    program=$1
    shift
    for n in $(seq 0 $([ "$sanitized" ] && echo 5 || echo 1) 2000); do
        FAULT=$n "test/build/$program-faults" "$@" > "$T/out" 2> "$T/err" < /dev/null
        code=$?
        grep -q '^FAULT$' "$T/err" || break
        if [ $code = 4 ] && tail -n 1 "$T/err" | grep -q ": out of memory"; then ok
        else fail "$program $*: allocation $n fails: expected exit code 4, found $code: $(tail -n 1 "$T/err")"; fi
    done
    if [ $code = 0 ] && [ "$n" -gt 5 ]; then ok; else fail "$program $*: expected exit code 0 in the end, found $code"; fi
}

# A small model: two domains, few steps.
SMALL="--dim 32 --layers 2 --heads 2 --kv-heads 1 --intermediate 48 --context 64 --steps 30 --experts 3 --rank 2 --epochs 1"
cp data/train/cookbook.txt "$T/cookbook.txt"
cp data/train/c.txt "$T/c.txt"
