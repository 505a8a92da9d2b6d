/* bare.h - what boards have in common: bss is zeroed and the stack below the caller painted before main begins; its
 * high-water mark. The names are those of the linker scripts. */
#include <stddef.h>
#include <stdint.h>

extern uint32_t bss_begin[], bss_end[], stack_top[];
int main(void);

enum { PAINT = 0x5a5a5a5a };
static uint32_t board_stack(void) /* bytes of the stack that were ever used */
{
    const uint32_t *p = bss_end;
    while (*p == PAINT) p++;
    return (uint32_t)((const char *)stack_top - (const char *)p);
}

static void board_begin(uint32_t *stack)
{
    for (uint32_t *p = bss_begin; p < bss_end;) *p++ = 0;
    for (uint32_t *p = bss_end; p < stack - 64; p++) *p = PAINT;
    main();
}
