#!/bin/sh
# bits.sh - shows that every compiler, optimisation level, number of threads, instruction set and byte order gives the
# bits of test/bits.txt and (float) of test/witness.txt, and that builds which could not are refused or noticed. One line
# a configuration: its name, float or double, the compiler's version, the seconds that it ran, what came out. One that is
# not installed here is skipped, not passed. From the root:
#
#     sh test/bits.sh          all: some 20 minutes, most of it in the emulators
#     sh test/bits.sh quick    two minutes: gcc, clang, threads, tcc, musl, i686, aarch64, s390x, Windows x64, wasm32
#     sh test/bits.sh write    make both files anew, when results were meant to change
#
# What it can use (Debian): apt-get install --no-install-recommends gcc clang libc6-dev libomp-dev libclang-rt-14-dev \
#     gcc-11 clang-19 tcc pcc musl-tools qemu-user-static gcc-mingw-w64-x86-64-win32 gcc-mingw-w64-i686-win32 wine \
#     wine64 lld wasi-libc libclang-rt-14-dev-wasm32 nodejs \
#     gcc-{i686,aarch64,riscv64,s390x,powerpc64,powerpc,sparc64,mips,mipsel,hppa}-linux-gnu gcc-mips64-linux-gnuabi64 \
#     gcc-arm-linux-gnueabihf gcc-arm-linux-gnueabi \
#     libc6-dev-{i386,arm64,riscv64,s390x,ppc64,powerpc,sparc64,mips,mipsel,hppa,mips64,armhf,armel}-cross
mode=${1:-all}
B=test/build/bits
passed=0
failed=0
skipped=0
mkdir -p $B
rm -f "$B/same in "*
tar -xf data/vectors.tar -C $B
printf '#include <stdlib.h>\nint main(void) { return 3; }\n' > $B/probe.c
export WINEPREFIX="${WINEPREFIX:-$(pwd)/$B/wine}" WINEDEBUG=-all
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive OMP_DYNAMIC=false

# GNU: what the Makefile gives gcc and clang.
GNU="-std=c99 -ffp-contract=off -fno-trapping-math -fno-math-errno"
CROSS="-static -O2 $GNU"
WASM="--target=wasm32-wasi -O2 -Wl,--stack-first,-z,stack-size=1048576 $GNU"

package() { # what to install for a compiler or an emulator
    case $1 in
    i686-linux-*) echo gcc-i686-linux-gnu libc6-dev-i386-cross ;;
    aarch64-*) echo gcc-aarch64-linux-gnu libc6-dev-arm64-cross ;;
    arm-*hf-*) echo gcc-arm-linux-gnueabihf libc6-dev-armhf-cross ;;
    arm-*) echo gcc-arm-linux-gnueabi libc6-dev-armel-cross ;;
    riscv64-*) echo gcc-riscv64-linux-gnu libc6-dev-riscv64-cross ;;
    s390x-*) echo gcc-s390x-linux-gnu libc6-dev-s390x-cross ;;
    powerpc64-*) echo gcc-powerpc64-linux-gnu libc6-dev-ppc64-cross ;;
    mips64-*) echo gcc-mips64-linux-gnuabi64 libc6-dev-mips64-cross ;;
    powerpc-* | sparc64-* | mips-* | mipsel-* | hppa-*) echo gcc-"${1%%-*}"-linux-gnu libc6-dev-"${1%%-*}"-cross ;;
    x86_64-w64-*) echo gcc-mingw-w64-x86-64-win32 ;;
    i686-w64-*) echo gcc-mingw-w64-i686-win32 ;;
    wine) echo wine wine64 ;;
    musl-gcc) echo musl-tools ;;
    qemu-*) echo qemu-user-static ;;
    i386-tcc) echo tcc libc6-dev-i386-cross ;;
    *) echo "$1" ;;
    esac
}

command -v timeout > /dev/null || timeout() { shift; "$@"; } # macOS has none
line() { printf '%-42s %-4s %-8s %4s  %s\n' "$@"; }
version() {
    case $1 in *tcc) $1 -v ;; *) $1 --version ;; esac 2>&1 | sed -n -e 's/.* \([0-9][0-9]*\.[0-9.]*[0-9]\).*/\1/' -e 's/.* //' -e '1p'
}
pass() { passed=$((passed + 1)); }
skip() {
    skipped=$((skipped + 1))
    line "$1" - - - "skipped: $2"
}

# there NAME EMULATOR COMPILER FLAGS: can this machine build and run so? If not, a line says what is missing.
there() {
    name=$1
    emulator=$2
    shift 2
    for tool in $1 $emulator; do
        command -v "$tool" > /dev/null && continue
        skip "$name" "not installed: $(package "$tool")"
        return 1
    done
    "$@" $B/probe.c -o $B/probe.out > $B/log 2>&1 && timeout 60 $emulator ./$B/probe.out > $B/log 2>&1
    [ $? = 3 ] && return
    case "$*" in
    *-fopenmp*) skip "$name" "not installed: libomp-dev, or OpenMP for $1" ;;
    *wasm32*) skip "$name" "not installed: lld wasi-libc libclang-rt-14-dev-wasm32 nodejs" ;;
    *-w64-*) skip "$name" "$emulator does not run such programs here" ;;
    *-fsanitize*) skip "$name" "not installed: libclang-rt-14-dev, or the sanitizers of $1" ;;
    *) skip "$name" "$* does not make a program that runs here" ;;
    esac
    return 1
}

# build PRECISION COMPILER FLAGS
build() {
    double=
    [ "$1" = f64 ] && double=-DTTMM_DOUBLE
    shift
    rm -rf $B/bits.out
    "$@" $double -c ttmm.c -o $B/ttmm.o > $B/log 2>&1 &&
        "$@" $double test/bits.c $B/ttmm.o -o $B/bits.out -lm > $B/log 2>&1 &&
        { [ -n "$double" ] || "$@" run.c $B/ttmm.o -o $B/run.out -lm > $B/log 2>&1; } && return
    verdict="does not compile: $(grep -m 1 error $B/log)"
    return 1
}

# run PRECISION EMULATOR: what they print to $B/out, $B/witness and $B/log
run() {
    began=$(date +%s)
    rm -rf $B/files
    timeout 900 $2 ./$B/bits.out $B/files > $B/out 2> $B/log
    code=$?
    [ "$1" = f64 ] || timeout 900 $2 ./$B/run.out witness $B/vectors/wide --each > $B/witness 2>> $B/log || code=$?
    seconds=$(($(date +%s) - began))
}

# compare PRECISION THREADS: sets verdict; its status is that of the comparison
compare() {
    verdict="same bits"
    [ "$2" = 1 ] || verdict="same bits with $2 threads"
    grep "^$1 " test/bits.txt > $B/expected
    [ $code = 0 ] && cmp -s $B/expected $B/out && { [ "$1" = f64 ] || cmp -s test/witness.txt $B/witness; } && return
    verdict="differs: $(diff $B/expected $B/out | sed -n 's/^< f.. \([^ ]*\) .*/\1/p' | tr '\n' ' ')"
    [ "$1" = f64 ] || verdict="$verdict$(diff test/witness.txt $B/witness | sed -n '/^</{s/^< \(.*\) \[.*/witness: \1 /p;q;}')"
    verdict="$verdict$([ $code = 0 ] || echo "(status $code) ")$(head -n 1 $B/log)"
    return 1
}

# same NAME PRECISIONS THREADS EMULATOR COMPILER FLAGS: must give the bits of test/bits.txt
same() {
    name=$1
    precisions=$2
    threads=$3
    emulator=$4
    shift 4
    before=$failed
    there "$name" "$emulator" "$@" || return
    for precision in $precisions; do
        seconds=-
        if build "$precision" "$@"; then
            for n in $threads; do
                export OMP_NUM_THREADS="$n"
                run "$precision" "$emulator"
                if compare "$precision" "$n"; then pass; else failed=$((failed + 1)); fi
                line "$name" "$precision" "$(version "$1")" "$seconds" "$verdict"
            done
            export OMP_NUM_THREADS=1
        else
            failed=$((failed + 1))
            line "$name" "$precision" "$(version "$1")" - "$verdict"
        fi
    done
    [ $failed = $before ] || return
    case $name in "$1"*) echo "$1 $(version "$1")" ;; *) echo "$name" ;; esac >> "$B/same in $precisions"
}

# refused NAME COMPILER FLAGS: must not compile, with a sentence that says why
refused() {
    name=$1
    shift
    if ! "$@" -c $B/probe.c -o $B/probe.o > $B/log 2>&1; then
        skip "$name" "not installed: $(package "$1")"
        return
    fi
    verdict="FAILED: it compiles"
    "$@" -c ttmm.c -o $B/refused.o > $B/log 2>&1 ||
        verdict=$(sed -n '/error/{s/.*"\(ttmm[^(:"]*[^(:" ]\).*/refused: \1/p;q;}' $B/log)
    case $verdict in "refused: ttmm "*) pass ;; *) failed=$((failed + 1)) ;; esac
    line "$name" - "$(version "$1")" - "${verdict:-FAILED: no sentence says why}"
}

# noticed NAME SENTENCE EMULATOR COMPILER FLAGS: a build that nothing can refuse; bits must say what is wrong with it
noticed() {
    name=$1
    sentence=$2
    emulator=$3
    shift 3
    there "$name" "$emulator" "$@" || return
    seconds=-
    if build f32 "$@"; then
        run f32 "$emulator"
        if compare f32 1 || ! grep -q "$sentence" $B/log; then verdict="FAILED: nothing is noticed"
        else verdict="noticed: $sentence"; fi
    fi
    case $verdict in noticed*) pass ;; *) failed=$((failed + 1)) ;; esac
    line "$name" f32 "$(version "$1")" "$seconds" "$verdict"
}

native_has() { gcc -march=native -dM -E -x c /dev/null 2> /dev/null | grep -q "$1 "; }

if [ "$mode" = write ]; then
    for precision in f32 f64; do
        build $precision "${CC:-cc}" -O2 $GNU || { echo "$verdict" >&2; exit 1; }
        run $precision ""
        [ $code = 0 ] || { cat $B/log >&2; exit 1; }
        cat $B/out
    done > $B/bits.txt && mv $B/bits.txt test/bits.txt && mv $B/witness test/witness.txt || exit
    wc -l test/bits.txt test/witness.txt
    exit
fi

if [ "$mode" = quick ]; then
    same "gcc -O2" "f32 f64" 1 "" gcc -O2 $GNU
    same "gcc -O3 -march=native, OpenMP" f32 "1 2 3 8" "" gcc -O3 -march=native -fopenmp $GNU
    same "clang -O3 -march=native" f32 1 "" clang -O3 -march=native $GNU
    same "gcc -O3 -march=native, PLAIN" f32 1 "" gcc -O3 -march=native -DTTMM_PLAIN $GNU
    native_has __AVXVNNI__ && same "gcc -O3 -march=native, tiles of Zen 4" f32 1 "" gcc -O3 -march=native -mno-avxvnni $GNU
    same "tcc" f32 1 "" tcc -std=c99
    same "musl-gcc -static -O2" f32 1 "" musl-gcc $CROSS
    same "i686, SSE2" f32 1 "" i686-linux-gnu-gcc -msse2 -mfpmath=sse $CROSS
    same "aarch64" f32 1 qemu-aarch64-static aarch64-linux-gnu-gcc $CROSS
    same "s390x, big endian" f32 1 qemu-s390x-static s390x-linux-gnu-gcc -fexcess-precision=fast $CROSS
    same "Windows x64" f32 1 wine x86_64-w64-mingw32-gcc $CROSS
    same "wasm32, SIMD" f32 1 test/wasi.mjs clang -msimd128 $WASM
else
    for cc in gcc clang; do
        for level in -O0 -O2 -O3; do same "$cc $level" "f32 f64" 1 "" $cc $level $GNU; done
        native_has __AVX2__ && same "$cc -O3 -march=x86-64-v3" "f32 f64" 1 "" $cc -O3 -march=x86-64-v3 $GNU
        same "$cc -O3 -march=native" "f32 f64" 1 "" $cc -O3 -march=native $GNU
        native_has __AVXVNNI__ && same "$cc -O3 -march=native, tiles of Zen 4" "f32 f64" 1 "" $cc -O3 -march=native -mno-avxvnni $GNU
        same "$cc -O3 -march=native -std=c99, no more" f32 1 "" $cc -O3 -march=native -std=c99
        same "$cc -O3 -march=native, PLAIN" "f32 f64" 1 "" $cc -O3 -march=native -DTTMM_PLAIN $GNU
        same "$cc -O3 -march=native, OpenMP" "f32 f64" "1 2 3 8" "" $cc -O3 -march=native -fopenmp $GNU
        same "$cc -O1, sanitizers" "f32 f64" 1 "" $cc -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all $GNU
    done
    for cc in gcc-11 clang-19; do
        for level in -O2 "-O3 -march=native"; do same "$cc $level" "f32 f64" 1 "" $cc $level $GNU; done
    done
    same "musl-gcc -static -O2" "f32 f64" 1 "" musl-gcc $CROSS
    same "tcc" "f32 f64" 1 "" tcc -std=c99
    same "pcc -O2" "f32 f64" 1 "" pcc -O2 -std=c99
    same "i686, SSE2" "f32 f64" 1 "" i686-linux-gnu-gcc -msse2 -mfpmath=sse $CROSS
    same "aarch64" "f32 f64" 1 qemu-aarch64-static aarch64-linux-gnu-gcc $CROSS
    same "armhf" "f32 f64" 1 qemu-arm-static arm-linux-gnueabihf-gcc $CROSS
    same "riscv64" f32 1 qemu-riscv64-static riscv64-linux-gnu-gcc $CROSS
    same "s390x, big endian" "f32 f64" 1 qemu-s390x-static s390x-linux-gnu-gcc -fexcess-precision=fast $CROSS
    same "ppc64, big endian" f32 1 qemu-ppc64-static powerpc64-linux-gnu-gcc $CROSS
    same "ppc, 32 bits, big endian" f32 1 qemu-ppc-static powerpc-linux-gnu-gcc $CROSS
    same "sparc64, big endian" f32 1 qemu-sparc64-static sparc64-linux-gnu-gcc $CROSS
    same "mips, 32 bits, big endian" f32 1 qemu-mips-static mips-linux-gnu-gcc $CROSS
    same "mipsel, 32 bits" f32 1 qemu-mipsel-static mipsel-linux-gnu-gcc $CROSS
    same "mips64, big endian" f32 1 qemu-mips64-static mips64-linux-gnuabi64-gcc $CROSS
    same "hppa, 32 bits, big endian" f32 1 qemu-hppa-static hppa-linux-gnu-gcc $CROSS -O1 # at -O2 qemu 7.2 meets an illegal instruction
    same "Windows x64, OpenMP" "f32 f64" "1 3" wine x86_64-w64-mingw32-gcc -fopenmp $CROSS
    same "Windows x86, SSE2" "f32 f64" 1 wine i686-w64-mingw32-gcc -msse2 -mfpmath=sse $CROSS
    same "wasm32" "f32 f64" 1 test/wasi.mjs clang $WASM
    same "wasm32, SIMD" "f32 f64" 1 test/wasi.mjs clang -msimd128 $WASM
fi

for cc in gcc clang; do
    refused "$cc -ffast-math" $cc -std=c99 -ffast-math
    refused "$cc -ffinite-math-only" $cc -std=c99 -ffinite-math-only
done
refused "gcc -funsafe-math-optimizations" gcc -std=c99 -funsafe-math-optimizations
refused "gcc -freciprocal-math" gcc -std=c99 -freciprocal-math
refused "gcc -fassociative-math" gcc -std=c99 -fassociative-math -fno-signed-zeros -fno-trapping-math
refused "gcc -fno-signed-zeros" gcc -std=c99 -fno-signed-zeros
refused "gcc -fsingle-precision-constant" gcc -std=c99 -fsingle-precision-constant
refused "i686, x87" i686-linux-gnu-gcc -std=c99
refused "i386-tcc, x87" i386-tcc -std=c99 -I/usr/i686-linux-gnu/include
refused "s390x, no -fexcess-precision=fast" s390x-linux-gnu-gcc -std=c99
refused "clang, armhf with NEON" clang --target=arm-linux-gnueabihf -mfpu=neon -isystem /usr/arm-linux-gnueabihf/include -std=c99
noticed "clang -funsafe-math-optimizations" "sums are reordered" "" clang -O2 -std=c99 -funsafe-math-optimizations
noticed "clang -fassociative-math" "sums are reordered" "" \
    clang -O2 -std=c99 -fassociative-math -fno-signed-zeros -fno-trapping-math
noticed "clang -freciprocal-math" "divisions are products with the reciprocal" "" clang -O2 -std=c99 -freciprocal-math
if native_has __FMA__; then
    fused="products are fused with sums"
    noticed "gcc -O3 -march=native -std=gnu99" "$fused" "" gcc -O3 -march=native -std=gnu99
    for cc in gcc clang; do
        noticed "$cc -O3 -march=native -ffp-contract=fast" "$fused" "" $cc -O3 -march=native -std=c99 -ffp-contract=fast
    done
fi
start=$(gcc -print-file-name=crtfastmath.o 2> $B/log) # what gcc links with -ffast-math, though all was compiled without
[ -f "$start" ] && noticed "gcc, linked with -ffast-math" "subnormal numbers are flushed" "" gcc -O2 -std=c99 "$start"
[ "$mode" = quick ] || noticed "armel, gcc's software for double" "differences are not rounded to the nearest double" \
    qemu-arm-static arm-linux-gnueabi-gcc $CROSS

# A compiler that refuses the flag by which nothing is fused: make stops, unless FAST=1 or its own flag is given.
printf '#!/bin/sh\nfor a; do [ "$a" = -ffp-contract=off ] && exit 1; done\nexec gcc "$@"\n' > $B/refuses
chmod +x $B/refuses
name="make, CC refuses -ffp-contract=off"
verdict="FAILED: it goes on"
${MAKE:-make} -n CC=$B/refuses run > $B/log 2>&1 || verdict=$(sed -n 's/.*\(refuses [^,]*\),.*/refused: it \1/p' $B/log)
${MAKE:-make} -n CC=$B/refuses CONTRACT= run > $B/log 2>&1 || verdict="FAILED: CONTRACT= is not taken"
case $verdict in refused*) pass ;; *) failed=$((failed + 1)) ;; esac
line "$name" - - - "$verdict"

for p in f32 "f32 f64"; do # what RESULTS.md lists
    [ ! -f "$B/same in $p" ] || echo "the same bits in $p: $(sort -u "$B/same in $p" | paste -sd '|' - | sed 's/|/; /g')"
done
echo "$skipped skipped"
echo "$passed passed, $failed failed"
[ $failed = 0 ] && [ $passed != 0 ]
