/* cortex-m.h - Arm's MPS2 boards as qemu has them: start-up, a serial line, a counter, the end. */
#include "bare.h"

extern uint32_t data_in_flash[], data_begin[], data_end[];
void start(void);

#define UART ((volatile uint32_t *)0x40004000) /* CMSDK: data, state (bit 0: full), control (bit 0: sends) */
static void board_put(char c)
{
    UART[2] = 1;
    while (UART[1] & 1) {
    }
    UART[0] = (unsigned char)c;
}

/* A counter of 25 MHz; with qemu -icount shift=0 an instruction takes 1 ns. */
static uint32_t board_instructions(void) { return 40 * *(volatile uint32_t *)0x40028018; }

static void board_end(void) /* by semihosting, SYS_EXIT: application exit */
{
    register uint32_t call __asm__("r0") = 0x18, reason __asm__("r1") = 0x20026;
    __asm__ volatile("bkpt 0xab" : : "r"(call), "r"(reason));
    for (;;) {
    }
}

void start(void)
{
    uint32_t *from = data_in_flash;
#ifdef __ARM_FP
    *(volatile uint32_t *)0xe000ed88 |= 0xf << 20; /* CPACR: the floating-point unit */
    __asm__ volatile("dsb\n isb");
#endif
    for (uint32_t *to = data_begin; to < data_end;) *to++ = *from++;
    board_begin(__builtin_frame_address(0));
}

static const struct {
    uint32_t *stack;
    void (*handler[15])(void);
} vectors __attribute__((section(".vectors"), used)) = {stack_top, {start, board_end, board_end, board_end, board_end}};
