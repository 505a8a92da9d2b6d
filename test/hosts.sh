#!/bin/sh
# hosts.sh - the library in programs that are not ours, test/hosts: in C++, in four threads, in a process that forks,
# beside a host's own locale and signal handlers, on a small stack, in float and in double at once. make hosts and make test call it from
# the root with CC, CXX and FLAGS. What cannot be made here is skipped, and said.
B=test/build/hosts
passed=0
failed=0
bits=

host() { # host NAME COMMAND...: must end well and print the fingerprint that the others print, if it prints any
    name=$1
    shift
    "$@" > $B/out 2> $B/log
    code=$?
    found=$(cat $B/out)
    [ -n "$bits" ] || bits=$found
    if [ $code = 0 ] && { [ -z "$found" ] || [ "$found" = "$bits" ]; }; then
        passed=$((passed + 1))
        return
    fi
    failed=$((failed + 1))
    echo "test/hosts/$name: status $code, '$found', the first host printed '$bits'"
    cat $B/log
}

host threads.c $CC $FLAGS test/hosts/threads.c $B/ttmm-f32.o -o $B/threads -lm -pthread
host threads.c $B/threads
host fork.c $CC $FLAGS test/hosts/fork.c $B/ttmm-f32.o -o $B/fork -lm
host fork.c $B/fork

# without an operating system: all that is left calls is this
no_os="-std=c99 -pedantic -Wall -Wextra -Werror -O2 -ffp-contract=off -DTTMM_NO_FILES -DTTMM_NO_SENTENCES"
no_os="$no_os -fno-stack-protector -U_FORTIFY_SOURCE" # what Ubuntu's and Alpine's gcc add calls for
for plain in "" -DTTMM_PLAIN; do
    host "TTMM_NO_FILES $plain" $CC $no_os $plain -c ttmm.c -o $B/no-os.o
    host "TTMM_NO_FILES $plain" sh -c "! nm -u $B/no-os.o | grep -vE '(^| )_?(memcpy|memset|memcmp|bzero|memset_pattern(4|8|16)|sqrtf?|_GLOBAL_OFFSET_TABLE_)\$'"
done

rm -rf $B/deep
case $FLAGS in *-fsanitize*) echo "test/hosts/stack.c: skipped: sanitizers have larger frames" ;;
*)
    host stack.c $CC $FLAGS test/hosts/stack.c $B/ttmm-f32.o -o $B/stack -lm -pthread
    host stack.c $B/stack $B/deep
    ;;
esac

echo 'class c {}; int main() { return 0; }' > $B/probe.cpp
if $CXX $B/probe.cpp -o $B/probe > $B/log 2>&1; then
    host cxx.cpp $CXX $(echo "$FLAGS" | sed s/-std=c99/-std=c++11/) test/hosts/cxx.cpp $B/ttmm-f32.o -o $B/cxx -lm
    host cxx.cpp $B/cxx
else echo "test/hosts/cxx.cpp: skipped: $CXX makes no program here"; fi

rm -rf $B/locales $B/model
mkdir -p $B/locales # with a comma; with U+066B, two bytes
for l in de_DE ps_AF; do localedef -i $l -f UTF-8 $B/locales/$l > $B/log 2>&1 || rm -rf $B/locales/$l; done
locales=$(ls $B/locales)
host locale.c $CC $FLAGS test/hosts/locale.c $B/ttmm-f32.o -o $B/locale -lm
if [ -n "$locales" ]; then LOCPATH=$B/locales host locale.c $B/locale $B/model $locales
else echo "test/hosts/locale.c: skipped: localedef makes no locale here (Debian: locales)"; fi

part="$CC -r -nostdlib" # links without completing
if $part $B/ttmm-f32.o -o $B/part.o > $B/log 2>&1 && objcopy $B/part.o > $B/log 2>&1; then
    for precision in "float f32" "double f64 -DTTMM_DOUBLE"; do
        set -- $precision
        host twice.c $CC $FLAGS $3 -DPART=in_$1 -c test/hosts/twice.c -o $B/part.o
        host twice.c $part $B/part.o $B/ttmm-$2.o -o $B/$1.o
        host twice.c objcopy -w -G in_$1 -G '__x86.*' $B/$1.o # those are in groups, of which i686 keeps one
    done
    host twice.c $CC $FLAGS test/hosts/twice.c $B/float.o $B/double.o -o $B/twice -lm
    host twice.c $B/twice
else echo "test/hosts/twice.c: skipped: objects of $CC cannot be joined by -r, or not be changed by objcopy"; fi

echo "test/hosts.sh: $passed passed, $failed failed"
[ $failed = 0 ]
