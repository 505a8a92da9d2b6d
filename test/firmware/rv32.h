/* rv32.h - qemu's RISC-V machine `virt`, 32 bits: start-up, a serial line, a counter, the end. */
#include "bare.h"

void start(void);
void begin(void);

static void board_put(char c) { *(volatile unsigned char *)0x10000000 = (unsigned char)c; } /* a 16550 */

static uint32_t board_instructions(void) /* qemu counts them with -icount */
{
    uint32_t n;
    __asm__ volatile(".option push\n .option arch, +zicsr\n csrr %0, minstret\n .option pop" : "=r"(n));
    return n;
}

static void board_end(void)
{
    *(volatile uint32_t *)0x100000 = 0x5555; /* the test finisher: passed */
    for (;;) {
    }
}

void begin(void) { board_begin(__builtin_frame_address(0)); }

__attribute__((section(".start"), naked)) void start(void) { __asm__("la sp, stack_top\n j begin"); }
