/* Blocks, mappings, faults and counts; see alloc.h.
 *
 * With the default table a block is malloc's own, so that the memory checkers see
 * exactly what was asked for.  With a replaced table, which knows neither alignment
 * nor size, each block carries a header:
 *
 *     base                          block (aligned)
 *     | padding (alignment > 16)    | struct header | bytes … |
 *                                   ^ block - 16
 *
 * This room is below conc/, so it has no named atomics: the shared words are _Atomic
 * and used by plain operators, which are sequentially consistent. */
#include "base/alloc.h"

#include <errno.h>
#include <heist/alloc.h>
#include <malloc.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/macros.h"
#include "base/sim.h"

struct header {
    void *base;   /* what malloc gave */
    size_t bytes; /* what was asked for */
};
_Static_assert(sizeof(struct header) == 16, "blocks of a replaced table stay aligned to 16");

/* Written by heist_set_allocator before the first block, read by everybody after. */
static heist_allocator table;
static bool replaced;

/* Set by the first request ever and never cleared: from then on the table stands. */
static _Atomic(bool) in_use;

/* Requests until one is refused: 1 is the next; 0 and below: none is waited for. */
static _Atomic(long) fault_countdown;
static _Atomic(bool) fault_stays; /* after the first refusal all are refused */
static _Atomic(bool) fault_now;   /* that time has come */
static _Atomic(bool) fault_armed; /* any of it: the one word that an ordinary request looks at */
static _Atomic(long) fault_count;

#if HEIST_ALLOC_STATS
static _Atomic(long) live_blocks, live_bytes, live_maps, live_map_bytes;
#define COUNT(number, bytes, sign, amount) ((void)((number) += (sign)), (void)((bytes) += (sign) * (long)(amount)))
#else
#define COUNT(number, bytes, sign, amount) ((void)0)
#endif

int heist_set_allocator(const heist_allocator *allocator) {
    if (allocator && (allocator->size != sizeof(*allocator) || !allocator->malloc || !allocator->realloc ||
                      !allocator->free))
        return -EINVAL;
    if (in_use) return -EBUSY;
    replaced = allocator != NULL;
    if (allocator) table = *allocator;
    return 0;
}

/* ---- faults ---- */

static void arm_fault(long n, bool stays) {
    fault_armed = false;
    fault_now = false;
    fault_stays = stays;
    fault_count = 0;
    fault_countdown = n < 0 ? 0 : n == 0 ? 1 : n;
    fault_armed = n >= 0;
}

void heist__alloc_fail_after(long n) { arm_fault(n, false); }
void heist__alloc_fail_from(long n) { arm_fault(n, true); }
long heist__alloc_failed(void) { return fault_count; }

static HEIST_COLD bool fault_due(void) {
    /* The fetch is one operation: of several threads exactly one sees the 1. */
    if (!fault_now) {
        if (fault_countdown-- != 1) return false;
        if (fault_stays) fault_now = true;
    }
    fault_count++;
    return true;
}

/* Passed by every request, before anything is done. */
static inline bool refused(bool mapping) {
    if (heist_unlikely(!in_use)) in_use = true;
#ifdef HEIST_SEEDED
    if (heist__sim_refuse_memory(mapping)) return true;
#else
    (void)mapping;
#endif
    return heist_unlikely(fault_armed) && fault_due();
}

/* ---- blocks ---- */

static void *header_alloc(size_t align, size_t bytes) {
    size_t extra = sizeof(struct header) + (align > 16 ? align - 16 : 0);
    if (bytes > PTRDIFF_MAX - extra) return NULL;
    char *base = table.malloc(bytes + extra, table.user);
    if (!base) return NULL;
    uintptr_t at = (uintptr_t)base + sizeof(struct header);
    char *block = base + sizeof(struct header);
    if (align > 16) block += (align - (at & (align - 1))) & (align - 1);
    struct header *head = (struct header *)(void *)block - 1;
    *head = (struct header){base, bytes};
    return block;
}

/* What a fresh block adds: one function for each kind, for the compiler knows what malloc gives. */
static inline void *counted(void *block) {
    if (block) COUNT(live_blocks, live_bytes, +1, malloc_usable_size(block));
    return block;
}

static inline void *header_counted(void *block) {
    if (block) COUNT(live_blocks, live_bytes, +1, ((struct header *)block - 1)->bytes);
    return block;
}

/* The bytes that a live block was counted with. */
static HEIST_UNUSED size_t block_bytes(void *block) {
    return replaced ? ((struct header *)block - 1)->bytes : malloc_usable_size(block);
}

void *heist__alloc(size_t bytes) {
    if (refused(false)) return NULL;
    if (bytes == 0) bytes = 1;
    return heist_unlikely(replaced) ? header_counted(header_alloc(16, bytes)) : counted(malloc(bytes));
}

void *heist__zalloc(size_t bytes) {
    if (refused(false)) return NULL;
    if (bytes == 0) bytes = 1;
    if (!replaced) return counted(calloc(1, bytes));
    void *block = header_alloc(16, bytes);
    if (block) memset(block, 0, bytes);
    return header_counted(block);
}

void *heist__aligned_alloc(size_t align, size_t bytes) {
    if (refused(false)) return NULL;
    if (bytes == 0) bytes = 1;
    if (align < 16) align = 16;
    if (replaced) return header_counted(header_alloc(align, bytes));
    void *block;
    return posix_memalign(&block, align, bytes) == 0 ? counted(block) : NULL;
}

static void *header_realloc(void *block, size_t bytes) {
    struct header *head = (struct header *)block - 1;
    /* Padding of an aligned block would move, so its content is not where realloc leaves it. */
    if (bytes > PTRDIFF_MAX - sizeof(*head) || head->base != (void *)head) return NULL;
    head = table.realloc(head, bytes + sizeof(*head), table.user);
    if (!head) return NULL;
    *head = (struct header){head, bytes};
    return head + 1;
}

void *heist__realloc(void *block, size_t bytes) {
    if (!block) return heist__alloc(bytes);
    if (refused(false)) return NULL;
    if (bytes == 0) bytes = 1;
    size_t before = HEIST_ALLOC_STATS ? block_bytes(block) : 0;
    void *grown = replaced ? header_realloc(block, bytes) : realloc(block, bytes);
    if (!grown) return NULL;
    COUNT(live_blocks, live_bytes, -1, before);
    (void)before;
    return replaced ? header_counted(grown) : counted(grown);
}

void heist__free(void *block) {
    if (!block) return;
    COUNT(live_blocks, live_bytes, -1, block_bytes(block));
    if (heist_unlikely(replaced)) {
        int kept = errno;
        table.free(((struct header *)block - 1)->base, table.user);
        errno = kept;
    } else {
        free(block); /* keeps errno since glibc 2.33, and frees of the library look at no errno of their own */
    }
}

/* ---- mappings ---- */

void *heist__map(size_t bytes) {
    if (refused(true)) return NULL;
    void *start = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (start == MAP_FAILED) return NULL;
    COUNT(live_maps, live_map_bytes, +1, bytes);
    return start;
}

void heist__unmap(void *start, size_t bytes) {
    if (!start) return;
    /* Fails only for a range that is no mapping of ours, or when a hole would need one descriptor of an
     * area too many; a whole mapping needs none. */
    munmap(start, bytes);
    COUNT(live_maps, live_map_bytes, -1, bytes);
}

/* ---- what is live ---- */

#if HEIST_ALLOC_STATS
long heist__alloc_live(void) { return live_blocks; }
long heist__alloc_live_bytes(void) { return live_bytes; }
long heist__alloc_live_maps(void) { return live_maps; }
long heist__alloc_live_map_bytes(void) { return live_map_bytes; }
#else
long heist__alloc_live(void) { return -1; }
long heist__alloc_live_bytes(void) { return -1; }
long heist__alloc_live_maps(void) { return -1; }
long heist__alloc_live_map_bytes(void) { return -1; }
#endif
