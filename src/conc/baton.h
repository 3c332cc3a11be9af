/* The turn of one thread among those of a simulation: given by another, taken by its own.
 *
 * A word and a futex, without a yield point: this is what yield points are made of.
 * heist__baton_pass happens before the heist__baton_await that it ends, so everything
 * that only the holder of the turn touches needs no atomics. */
#ifndef HEIST_CONC_BATON_H
#define HEIST_CONC_BATON_H

#include <linux/futex.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

struct heist__baton {
    _Atomic(uint32_t) word; /* 1: passed and not yet taken */
};

static inline void heist__baton_pass(struct heist__baton *b) {
    /* Release pairs with await. */
    atomic_store_explicit(&b->word, 1, memory_order_release);
    (void)syscall(SYS_futex, &b->word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, NULL, NULL, 0);
}

static inline void heist__baton_await(struct heist__baton *b) {
    /* Acquire pairs with pass; the kernel compares the word, so a pass before the sleep is not missed. */
    while (atomic_load_explicit(&b->word, memory_order_acquire) == 0)
        (void)syscall(SYS_futex, &b->word, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, 0, NULL, NULL, 0);
    atomic_store_explicit(&b->word, 0, memory_order_relaxed); /* rlx: the next pass is ordered behind our own */
}

#endif
