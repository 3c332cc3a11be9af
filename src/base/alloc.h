/* The one door to memory: every byte and every mapping of the library comes through here.
 *
 * Owns the process's allocator table (heist/alloc.h), the fault counter with which a
 * test makes the nth request fail, and the counts of what is live.  Called by every
 * room, from any thread.  Invariant: a block is freed by the table that made it, for
 * the table cannot change once a block was handed out. */
#ifndef HEIST_BASE_ALLOC_H
#define HEIST_BASE_ALLOC_H

#include <stdbool.h>
#include <stddef.h>

/* Counting what is live costs two locked additions for a block and its end: on where
 * asserts are on, unless the build says otherwise. */
#ifndef HEIST_ALLOC_STATS
#ifdef NDEBUG
#define HEIST_ALLOC_STATS 0
#else
#define HEIST_ALLOC_STATS 1
#endif
#endif

/* Memory aligned to 16 bytes, NULL when there is none.  A size of 0 gives a block that can be freed. */
void *heist__alloc(size_t bytes) __attribute__((malloc, warn_unused_result, alloc_size(1)));
/* The same, all zero. */
void *heist__zalloc(size_t bytes) __attribute__((malloc, warn_unused_result, alloc_size(1)));
/* Grows or shrinks; NULL leaves the old block as it was.  Not for blocks of heist__aligned_alloc: the
 * new block is aligned to 16 bytes only. */
void *heist__realloc(void *block, size_t bytes) __attribute__((warn_unused_result, alloc_size(2)));
/* align is a power of two. */
void *heist__aligned_alloc(size_t align, size_t bytes) __attribute__((malloc, warn_unused_result, alloc_size(2)));
/* Ends any block of the four above; NULL is allowed.  errno is kept. */
void heist__free(void *block);

/* Fresh zero pages, private, readable and writable, without a reservation of swap; NULL on failure.
 * bytes is rounded up to whole pages by the kernel. */
void *heist__map(size_t bytes) __attribute__((warn_unused_result));
/* Ends a whole mapping of heist__map, with the same number of bytes. */
void heist__unmap(void *start, size_t bytes);

/* ---- for tests ---- */

/* One request fails: the nth of the process from now on, block or mapping (0 counts as 1, the next one).
 * Negative: none does. */
void heist__alloc_fail_after(long n);
/* As above, and all requests after it fail too, until the next call of either. */
void heist__alloc_fail_from(long n);
/* How many requests were refused since the last call of the two above. */
long heist__alloc_failed(void);

/* Live blocks and mappings, in number and in bytes (what was asked for or more, as the allocator rounds);
 * -1 in builds that do not count. */
long heist__alloc_live(void);
long heist__alloc_live_bytes(void);
long heist__alloc_live_maps(void);
long heist__alloc_live_map_bytes(void);

#endif
