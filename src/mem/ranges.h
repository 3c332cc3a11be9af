/* Which arena an address lies in: the table that the handler of stack overflows reads.
 *
 * Written under the lock of the pool of stacks, read without any, in a signal handler on any thread.  An entry is
 * written `hi` and `shift` first, then `lo`, and cleared by lo = 0 before its arena goes; it may be given to another
 * arena afterwards.
 *
 * A reader takes `lo`, then `hi` and `shift`, then looks at `lo` again.
 *   - It never pairs a new `lo` with old bounds: who reads `lo` (acquire) reads these two as they were before it.
 *   - It never pairs an old `lo` with new bounds: they were stored, with release, after lo = 0; who reads one of
 *     them (acquire) does not read the old `lo` afterwards, and passes the entry over. */
#ifndef HEIST_MEM_RANGES_H
#define HEIST_MEM_RANGES_H

#include <stdbool.h>
#include <stdint.h>

/* 1,000,000 stacks of the largest size take 512 arenas. */
#ifdef HEIST_MODEL
#define HEIST__RANGES 2
#else
#define HEIST__RANGES 1024
#endif

struct heist__range {
    uintptr_t lo, hi; /* from the first stack to behind the last */
    unsigned shift;   /* of the size of one */
};

/* Enters one; its number, or -1 when the table is full.  Under the lock. */
int heist__ranges_add(struct heist__range range);
/* Under the lock, before the arena goes. */
void heist__ranges_remove(int number);
/* Async-signal-safe. */
bool heist__ranges_find(uintptr_t at, struct heist__range *out);

#endif
