/* fault.h - included before all else in test/build/run-faults and train-faults: the programs with an allocation that
 * fails, number $FAULT of the process, counted from 0. It says so on standard error. test/exhausted.sh takes them
 * through all numbers. */
#define _POSIX_C_SOURCE 200809L
#define _FILE_OFFSET_BITS 64
#include <stdio.h>
#include <stdlib.h>

__attribute__((weak)) long fault_calls; /* one for all files of a program */
static inline int fault_now(void)
{
    const char *at = getenv("FAULT");
    if (at == NULL || __atomic_fetch_add(&fault_calls, 1, __ATOMIC_RELAXED) != atol(at)) return 0;
    fputs("FAULT\n", stderr);
    return 1;
}
static inline void *fault_malloc(size_t n) { return fault_now() ? NULL : malloc(n); }
static inline void *fault_calloc(size_t n, size_t size) { return fault_now() ? NULL : calloc(n, size); }
static inline void *fault_realloc(void *old, size_t n) { return fault_now() ? NULL : realloc(old, n); }
#define malloc fault_malloc
#define calloc fault_calloc
#define realloc fault_realloc
