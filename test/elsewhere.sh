#!/bin/sh
# elsewhere.sh - test/all.sh on a system that this one imitates, in a copy of the tree; make test-windows and test-wasm:
#
#     sh test/elsewhere.sh NAME "RUN" COMPILER FLAGS      NAME: windows, windows-32 or wasm; RUN: what runs a program
#
# What can not be there is left out, and said.
name=$1
how=$2
shift 2
B=test/build/$name
export ELSEWHERE="$name" WINEPREFIX="${WINEPREFIX:-$(pwd)/test/build/wine}" WINEDEBUG=-all OMP_WAIT_POLICY=passive
case $how in */*) how="$(pwd)/$how" ;; esac
rm -rf "$B" && mkdir -p "$B/test/build"

build() { # SOURCES OUT FLAGS: a script named OUT runs the program
    sources=$1
    out=$B/$2
    shift 2
    "$@" $sources -o "$out.bin" -lm 2> "$B/log" && printf '#!/bin/sh\nexec %s "%s" "$@"\n' "$how" "$(pwd)/$out.bin" > "$out" &&
        chmod +x "$out" && return
    echo "$name, $out: $(grep -m 1 -E 'error|not found' "$B/log"): 0 passed, 1 failed"
    exit 1
}

printf 'int main(void) { return 3; }\n' > "$B/probe.c"
"$@" "$B/probe.c" -o "$B/probe.bin" > "$B/log" 2>&1
$how "$(pwd)/$B/probe.bin" > "$B/log" 2>&1
if [ $? != 3 ]; then
    echo "$name: skipped, $1 and ${how%% *} do not make and run a program here"
    exit 0
fi
cp -r ttmm.c ttmm.h train.c run.c README.md data "$B/" && cp -r test/*.* test/interop "$B/test/"
tar -xf data/vectors.tar -C "$B/test/build"
for program in train run; do build "$program.c ttmm.c" $program "$@"; done
for t in functions layers method worked library files views trace vectors interop encoder; do
    case $t in functions | layers) optimised= ;; *) optimised=-O1 ;; esac # kernels are not what is tested
    build test/$t.c test/build/$t-f32 "$@" $optimised
    build test/$t.c test/build/$t-f64 "$@" $optimised -DTTMM_DOUBLE
done
build test/layers.c test/build/plain-layers-f32 "$@" -DTTMM_PLAIN
build "test/bits.c ttmm.c" test/build/plain-bits "$@" -DTTMM_PLAIN
case $name in windows*) build test/hosts/break.c test/build/break "$@" ;; esac
"$1" --version | head -n 1
echo "left out: test/faults.c and allocations and disks that fail (they stand in for POSIX functions); devices; library hosts"
case $name in
windows*) echo "left out: sin and cos against long double's, which mingw has inexact; SIGTERM (SIGINT, Ctrl-C, takes its place)" ;;
wasm) echo "left out: all functions against long double's, which wasi-libc has inexact; signals, threads, locks and mapped files, which WASI has not" ;;
esac
cd "$B" && sh test/all.sh
