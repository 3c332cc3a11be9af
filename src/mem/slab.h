/* Type-stable objects in five classes: futures, handles, timed handles, loops, registrations.
 *
 * An object's memory keeps its type until every class is wholly free and nobody
 * uses the library: a late reader (a canceller that follows a link, a walk over
 * all tasks, a stale event) may still look at the atomic fields of a dead object,
 * and find there that it is dead.  Bytes 0 to 15 of a free object link it; what a
 * late reader looks at must lie behind them, and is zero in a fresh object.
 *
 * Any thread gets and puts: through the two batches of its own magazine without
 * an atomic, and a batch at a time with the depot under a short lock. */
#ifndef HEIST_MEM_SLAB_H
#define HEIST_MEM_SLAB_H

#include <stdbool.h>
#include <stddef.h>

#include "conc/atomic.h"
#include "conc/self.h"

#define HEIST__SLAB_BATCH 32u

/* The sizes are fixed before the first get; the same again is a no-op. */
void heist__slab_setup(int slab, size_t object_size);

/* NULL when memory ran out.  The first 16 bytes hold rubbish. */
void *heist__slab_get_slow(struct heist__self *self, int slab);
void heist__slab_put_slow(struct heist__self *self, int slab, void *object);

extern _Atomic(bool) heist__slab_in_use; /* somebody uses the library */

static inline void *heist__slab_get(struct heist__self *self, int slab) {
    struct heist__magazine *m = &self->magazines[slab];
    void *object = m->current;
    if (heist_unlikely(!object)) return heist__slab_get_slow(self, slab);
    m->current = *(void **)object;
    m->current_count--;
    return object;
}

static inline void heist__slab_put(struct heist__self *self, int slab, void *object) {
    struct heist__magazine *m = &self->magazines[slab];
    /* rlx: a hint; a put that misses the last leave leaves its object in the magazine until the thread exits. */
    if (heist_unlikely(m->current_count >= HEIST__SLAB_BATCH || !self->registered ||
                       !a_load_rlx(&heist__slab_in_use))) {
        heist__slab_put_slow(self, slab, object);
        return;
    }
    *(void **)object = m->current;
    m->current = object;
    m->current_count++;
}

/* Gives everything in this thread's magazines back to the depots. */
void heist__slab_flush(struct heist__self *self);

/* Visits every object ever carved, dead or alive, while other threads go on.  visit returns false to stop. */
void heist__slab_each(int slab, bool (*visit)(void *object, void *arg), void *arg);

/* Users hold the memory: one for each runtime.  The last leave frees it if every object is back; if not,
 * the put (or thread exit) that brings the last one back does. */
void heist__slab_enter(void);
bool heist__slab_leave(struct heist__self *self); /* true: it was the last */

#endif
