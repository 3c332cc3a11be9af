/* The per-thread stack of held ranks; see rank.h.  Empty in ordinary builds. */
#include "conc/rank.h"

#ifdef HEIST_DEBUG_LOCKS

#include <stdio.h>
#include <stdlib.h>

#include "base/macros.h"

/* Deeper nesting than this is a mistake in itself. */
#define MAX_HELD 8

struct held {
    int rank;
    const void *lock;
};

static _Thread_local struct held held[MAX_HELD];
static _Thread_local int held_count;

static HEIST_NORETURN void breach(const char *what, int rank, int other) {
    fprintf(stderr, "heist: lock order: %s (rank %d, beside rank %d)\n", what, rank, other);
    abort();
}

/* None of these is inlined: they read thread-local state, and their callers
 * may run on a stack that moves between threads. */
HEIST_NOINLINE void heist__rank_push(int rank, const void *lock) {
    if (rank == HEIST__RANK_NONE) return;
    if (held_count == MAX_HELD) breach("too many locks held", rank, held[held_count - 1].rank);
    for (int i = 0; i < held_count; i++)
        if (held[i].rank >= rank) breach("taken out of order", rank, held[i].rank);
    held[held_count].rank = rank;
    held[held_count].lock = lock;
    held_count++;
}

/* Locks may be given back in any order, so the entry is searched. */
HEIST_NOINLINE void heist__rank_pop(int rank, const void *lock) {
    if (rank == HEIST__RANK_NONE) return;
    for (int i = held_count - 1; i >= 0; i--) {
        if (held[i].lock != lock) continue;
        for (int j = i; j + 1 < held_count; j++) held[j] = held[j + 1];
        held_count--;
        return;
    }
    breach("given back by a thread that does not hold it", rank, 0);
}

HEIST_NOINLINE int heist__rank_held(void) {
    return held_count;
}

#else

/* A translation unit must hold something. */
extern int heist__rank_unused;

#endif
