/* Guarded stacks for coroutines: power-of-two sizes from 16 KiB to 8 MiB, each with
 * a page below it that faults.
 *
 *      base          lo                                 header        base + bytes
 *      | guard page  | ... grows down ...      <- top | header | colour |
 *
 * A stack comes from the caller's cache (no lock, no atomic), or a batch at a time
 * from the one pool of the process (a short lock), or from an arena: one mapping
 * that holds thousands of them, so a million stacks cost some tens of mappings.
 * Three kinds of idle stacks: *warm* ones are linked through their headers, last
 * in first out; *cold* ones are bits in their arena's map, with no page of theirs in
 * memory; a cache may also hold a *run* of neighbouring cold ones.
 *
 * get and put run on the thread that owns the cache (a worker) or with no cache on
 * any thread; trim and pool_release on any thread; contains_guard in a signal
 * handler.
 *
 * Invariant: a stack is in exactly one place: a cold bit, a warm chain of the pool,
 * a cache, or out.  No page of a stack is touched by this file but the one that
 * holds its header, and that one not before the stack is handed out. */
#ifndef HEIST_MEM_STACK_H
#define HEIST_MEM_STACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/macros.h"

#define HEIST__STACK_MIN_SHIFT 14 /* 16 KiB */
#define HEIST__STACK_MAX_SHIFT 23 /* 8 MiB */
#define HEIST__STACK_CLASSES (HEIST__STACK_MAX_SHIFT - HEIST__STACK_MIN_SHIFT + 1)
#define HEIST__STACK_MIN ((size_t)1 << HEIST__STACK_MIN_SHIFT)
#define HEIST__STACK_MAX ((size_t)1 << HEIST__STACK_MAX_SHIFT)

/* A size in few bits, rounded up. */
static inline uint16_t heist__stack_kib(size_t bytes) { return (uint16_t)((bytes + 1023) / 1024); }

/* Room in the header for whoever runs on the stack: coro/ keeps its structure there. */
#if HEIST_ASAN || HEIST_TSAN || (defined(HEIST_VALGRIND) && HEIST_VALGRIND)
#define HEIST__STACK_USER_BYTES 128 /* and what a detector wants to know */
#else
#define HEIST__STACK_USER_BYTES 64
#endif

struct heist__arena;

struct heist__stack {
    struct heist__stack *next; /* in a chain; the holder's own otherwise */
    char *lo;                  /* lowest usable byte, above the guard page */
    size_t bytes;              /* of address space, with guard and header */
    struct heist__arena *arena;
    uint32_t klass; /* bytes is 16 KiB << klass */
    uint32_t index; /* in the arena */
    uint32_t chain; /* in the first of a chain: how many it holds */
    uint32_t out;   /* 1 between get and put: the overflow report asks */
    /* In the first of a chain of the pool: the next chain. */
    struct heist__stack *next_chain;
    void *san_fiber; /* ThreadSanitizer's fibre, kept as long as the stack is warm */
    HEIST_ALIGNED(HEIST_CACHE_LINE) unsigned char user[HEIST__STACK_USER_BYTES];
};

/* Idle stacks of one size that one thread keeps.  Two chains: both empty when get has to
 * ask the pool, both full when put gives a whole one away, so a caller that swings
 * around a bound does not go to the pool each time, and nothing walks a chain. */
struct heist__stack_shelf {
    struct heist__stack *warm;    /* taken from and put to; warm->chain is not kept up */
    struct heist__stack *reserve; /* empty or a full chain */
    uint32_t warm_count;
    uint32_t reserve_count;
    struct heist__arena *run_arena; /* a run of cold stacks with guards */
    uint32_t run_first;
    uint32_t run_count;
};

/* One for each worker; all zero is an empty cache. */
struct heist__stack_cache {
    struct heist__stack_shelf shelf[HEIST__STACK_CLASSES];
};

/* A stack of at least `bytes` (rounded up to a power of two): 0, -EINVAL below 16 KiB
 * or above 8 MiB, -ENOMEM when memory, address space or mappings ran out.  c may be
 * NULL: straight from the pool. */
int heist__stack_get(struct heist__stack_cache *c, size_t bytes, struct heist__stack **out);
/* Gives it back, to c or (NULL) to the pool; nobody runs on it any more.  Never fails,
 * makes no system call. */
void heist__stack_put(struct heist__stack_cache *c, struct heist__stack *s);
/* Gives everything in the cache to the pool. */
void heist__stack_cache_flush(struct heist__stack_cache *c);

/* The initial stack pointer, aligned to 16. */
static inline void *heist__stack_top(struct heist__stack *s) { return s; }

/* The stack whose header's user part this is. */
static inline struct heist__stack *heist__stack_of_user(void *user) {
    return heist_container_of(user, struct heist__stack, user);
}

/* How many warm stacks lie in the pool: what trim would work on.  One load. */
size_t heist__stack_trimmable(void);
/* Gives the pages of at least `stacks` of them (or all) back to the kernel, in as few
 * calls as their neighbourhood allows; returns the bytes of address space so emptied.
 * One thread trims at a time: 0 when another is at it. */
size_t heist__stack_trim_some(size_t stacks);
size_t heist__stack_trim(void); /* all */

/* When no stack is out and no cache holds one: unmaps everything and returns true.
 * False, and nothing happens, otherwise. */
bool heist__stack_pool_release(void);

/* Is addr in the guard page of one of our stacks?  *owner: that stack, or NULL when
 * nobody has it.  Async-signal-safe: reads a table that is only written whole. */
bool heist__stack_contains_guard(const void *addr, struct heist__stack **owner);

/* How deep the stack was ever used since its pages were fresh, in whole pages, as far
 * as they are in memory.  Two system calls or so: for reports. */
size_t heist__stack_high_water(struct heist__stack *s);

/* Address space of the arenas, and stacks that are out or in caches. */
size_t heist__stack_mapped(void);
size_t heist__stack_outside(void);

/* For tests: behave as on a kernel without guard advice from the next arena on, with
 * room for `limit` guards (0: what the kernel's limit of mappings allows). */
void heist__stack_force_mprotect(bool on, size_t limit);

#endif
