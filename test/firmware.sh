#!/bin/sh
# firmware.sh - test/firmware/main.c on four boards that qemu has, at -Os and -O2: what is computed must be the bits of
# the host; prints what it takes there. Needs (Debian) gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm
# gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf qemu-system-misc. Run from the top of the repository, after make.
D=test/build/firmware M=test/build/firmware/model
G="-std=c99 -pedantic -Wall -Wextra -Wshadow -Wconversion -Werror -ffp-contract=off -fno-math-errno"
MAIN="test/firmware/main.c ttmm.c"
QUIET="-display none -monitor none -serial stdio -icount shift=0"
ARM="qemu-system-arm $QUIET -semihosting-config enable=on,target=native"
passed=0 failed=0
ok() { if [ "$1" = "$2" ]; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "$3: expected $2, found $1"; fi; }

mkdir -p $D
[ -e $M/experts/2/adapter_model.safetensors ] ||
    ./train all $M data/train/fairytale.txt data/train/cookbook.txt data/train/c.txt --dim 32 --layers 2 --heads 4 \
        --kv-heads 1 --intermediate 88 --steps 1000 --experts 3 --rank 4 --context 64 --quiet || exit 1

# The host: its own build of the same program, and the command line for the text.
host() # FLAGS
{
    cc $G -O2 "$@" -DBOARD='"host.h"' -DIMAGE="\"../../$D/$image.h\"" -DHEAP=1000000 -DTRAINS=1 $MAIN -lm -o $D/host &&
        $D/host > $D/host.out && grep -q '^trained' $D/host.out
}

# One build of one board: LINE of the table, with what the firmware says of itself.
board() # NAME LEVEL TRAINS LINKER-SCRIPT BOARD RUN COMPILER FLAGS...
{
    name=$1 level=$2 trains=$3 script=$4 header=$5 run=$6
    shift 6
    # RAM for what the table says: 27 KiB, and for training what it takes.
    heap=27648
    [ $trains = 1 ] && heap=180000
    "$@" $G $level -DTTMM_NO_FILES -DTTMM_NO_SENTENCES -ffunction-sections -fdata-sections -nostartfiles \
        -Wl,--gc-sections -T test/firmware/$script -DBOARD="\"$header\"" -DIMAGE="\"../../$D/$image.h\"" -DHEAP=$heap \
        -DTRAINS=$trains $MAIN -lm -o $D/firmware.elf || { failed=$((failed + 1)); return; }
    timeout 120 $run $D/firmware.elf > $D/out < /dev/null
    lines='^(expert|weight|text|logits)'
    [ $trains = 1 ] && lines='^(expert|weight|text|logits|trained)'
    ok "$(grep -E "$lines" $D/out | tr '\n' ' ')" "$(grep -E "$lines" $D/host.out | tr '\n' ' ')" "$name $level $image"
    of() { printf %d "0x$(sed -n "s/^# $1 \([0-9a-f]*\)$/\1/p" $D/out)"; }
    bytes_of() { size -A $D/firmware.elf | awk -v s="$1" '$1 == s { n = $2 } END { print n + 0 }'; }
    text=$(bytes_of .text) data=$(bytes_of .data) bss=$(($(bytes_of .bss) - heap))
    if [ $trains = 1 ]; then used=$(of 'heap of training') stack=$(of 'stack of training'); else used=$(of heap) stack=$(of stack); fi
    printf '%-24s %-4s %-5s %8d %8d %8d %8d %8d %9d %11d\n' "$name" $level $image $text $(bytes_of .rodata) $((data + bss)) \
        $used $stack $((data + bss + used + stack)) $(of 'instructions a token')
}

M7="arm-none-eabi-gcc -mthumb -mcpu=cortex-m7 -mfpu=fpv5-d16 -mfloat-abi=hard"
M4="arm-none-eabi-gcc -mthumb -mcpu=cortex-m4 -mfpu=fpv4-sp-d16 -mfloat-abi=hard"
M0="arm-none-eabi-gcc -mthumb -mcpu=cortex-m0plus" # runs on a Cortex-M3: qemu's one board with an M0 has 16 KB of RAM
RV="riscv64-unknown-elf-gcc --specs=picolibc.specs -march=rv32imac -mabi=ilp32"
printf '%-24s %-4s %-5s %8s %8s %8s %8s %8s %9s %11s\n' board "" image text rodata 'data+bss' heap stack 'RAM' 'instr/token'
for image in f32 bf16; do
    ./run export $M --dtype $image -o $D/$image.h --quiet > $D/export.out || exit 1
    host || exit 1
    text=$(sed -n 's/^text //p' $D/host.out)
    [ $image = bf16 ] || ok "$(./run generate $M "for (int i" --merge lowrank --temperature 0 --tokens 40 --beta 0.4 --quiet |
        tr -c ' -~' . | sed 's/^\(.\{50\}\).*/\1/')" "for (int i$text" "run generate"
    for level in -Os -O2; do
        board "Cortex-M7" $level 0 cortex-m.ld cortex-m.h "$ARM -machine mps2-an500 -kernel" $M7 -DTTMM_PLAIN
        board "Cortex-M7, vectors" $level 0 cortex-m.ld cortex-m.h "$ARM -machine mps2-an500 -kernel" $M7
        board "Cortex-M7, with TTT" $level 1 cortex-m.ld cortex-m.h "$ARM -machine mps2-an500 -kernel" $M7 -DTTMM_PLAIN
        board "Cortex-M4F" $level 0 cortex-m.ld cortex-m.h "$ARM -machine mps2-an386 -kernel" $M4 -DTTMM_PLAIN
        board "Cortex-M0+" $level 0 cortex-m.ld cortex-m.h "$ARM -machine mps2-an385 -kernel" $M0 -DTTMM_PLAIN
        board "rv32imac" $level 0 rv32.ld rv32.h "qemu-system-riscv32 $QUIET -machine virt -bios none -kernel" $RV -DTTMM_PLAIN
    done
done
echo "$passed passed, $failed failed"
[ $failed = 0 ]
