/* Two instructions that C has no word for.
 *
 * Any thread, any room; no state.  heist__cpu_relax tells the core that this is a
 * spin loop: its sibling gets the execution units, and leaving the loop is not
 * mispredicted as a memory-order violation.  heist__cycles is a counter that runs at a constant rate on
 * every machine built in the last ten years: good for seeding and for measuring
 * short spans on one core, not for time (see the clock). */
#ifndef HEIST_ARCH_CPU_H
#define HEIST_ARCH_CPU_H

#include <stdint.h>

#include "base/sim.h"

/* In a simulation somebody else goes on. */
static inline void heist__cpu_relax(void) {
    heist__sim_spin("relax", 0);
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    /* isb stalls for some tens of cycles; yield is a no-op on most cores. */
    __asm__ volatile("isb" ::: "memory");
#else
    __asm__ volatile("" ::: "memory");
#endif
}

static inline uint64_t heist__cycles(void) {
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
    uint64_t ticks;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(ticks));
    return ticks;
#else
    return 0;
#endif
}

#endif
