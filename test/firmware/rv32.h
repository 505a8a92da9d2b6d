/* rv32.h - qemu's RISC-V machine `virt`, 32 bits: start-up, a serial line, a counter, the end. */
#include <stddef.h>
#include <stdint.h>

extern uint32_t bss_begin[], bss_end[], stack_top[];
int main(void);
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

enum { PAINT = 0x5a5a5a5a };
static uint32_t board_stack(void) /* bytes of the stack that were ever used */
{
    const uint32_t *p = bss_end;
    while (*p == PAINT) p++;
    return (uint32_t)((const char *)stack_top - (const char *)p);
}

void begin(void)
{
    uint32_t *const now = __builtin_frame_address(0);
    for (uint32_t *p = bss_begin; p < bss_end;) *p++ = 0;
    for (uint32_t *p = bss_end; p < now - 64; p++) *p = PAINT;
    main();
}

__attribute__((section(".start"), naked)) void start(void) { __asm__("la sp, stack_top\n j begin"); }
