/* Chunks, depots and magazines.  See slab.h for what callers may rely on.
 *
 * A class owns chunks (mapped, carved from the start) and a depot of batches.  A
 * batch is a chain of up to 32 free objects through their first word; the depot
 * links batches through the second word of each batch's first object, and keeps the
 * batch's count in that word's low bits, which objects of 64 bytes leave free.  Fresh
 * objects are chained outside the lock: the first touch of a page takes its time.
 *
 * Freeing it all: under the one lock, when `users` is zero and each class has all
 * its carved objects in its depot.  Objects in the magazine of a live thread keep
 * the memory until that thread exits or puts again: with no user a put goes to the
 * depot at once, so only magazines filled before the last leave can hold it up. */
#include "mem/slab.h"

#include <stdint.h>

#include "base/alloc.h"
#include "conc/atomic.h"
#include "conc/spin.h"

#define CHUNK_MIN ((size_t)64 << 10)
#define CHUNK_MAX ((size_t)1 << 20)

struct chunk {
    _Atomic(struct chunk *) next;
    size_t bytes;
    _Atomic(size_t) carved; /* objects handed out of it so far; published with release for the walk */
    char *objects;
};

struct slab {
    size_t size;
    _Atomic(struct chunk *) chunks; /* newest first */
    void *batches;
    size_t free_objects, carved_objects;
};

static struct heist__spin depot_lock;
static struct slab slabs[HEIST__SLAB_COUNT];
static size_t users;
_Atomic(bool) heist__slab_in_use; /* users != 0; read without the lock as a hint on the put path */

#define LINK(object) (((void **)(object))[0])
#define BATCH_WORD(object) (((uintptr_t *)(object))[1])
#define COUNT_MASK ((uintptr_t)63)

void heist__slab_setup(int slab, size_t object_size) {
    heist__spin_lock(&depot_lock);
    slabs[slab].size = (object_size + HEIST_CACHE_LINE - 1) & ~(size_t)(HEIST_CACHE_LINE - 1);
    heist__spin_unlock(&depot_lock);
}

/* Called with the lock held. */
static void release_if_unused(void) {
    if (users) return;
    for (int i = 0; i < HEIST__SLAB_COUNT; i++)
        if (slabs[i].free_objects != slabs[i].carved_objects) return;
    for (int i = 0; i < HEIST__SLAB_COUNT; i++) {
        struct slab *s = &slabs[i];
        struct chunk *c = a_load_rlx(&s->chunks); /* rlx: written under this lock */
        while (c) {
            struct chunk *next = a_load_rlx(&c->next);
            heist__unmap(c, c->bytes);
            c = next;
        }
        a_store_rlx(&s->chunks, NULL);
        s->batches = NULL;
        s->free_objects = s->carved_objects = 0;
    }
}

/* Called with the lock held: reserves up to a batch of fresh objects; NULL: no memory. */
static char *carve(struct slab *s, unsigned *count) {
    struct chunk *c = a_load_rlx(&s->chunks);
    size_t header = (sizeof(struct chunk) + HEIST_CACHE_LINE - 1) & ~(size_t)(HEIST_CACHE_LINE - 1);
    if (!c || (a_load_rlx(&c->carved) + 1) * s->size > c->bytes - header) {
        size_t bytes = c ? c->bytes * 2 : CHUNK_MIN;
        if (bytes > CHUNK_MAX) bytes = CHUNK_MAX;
        struct chunk *fresh = heist__map(bytes);
        if (!fresh) return NULL;
        fresh->bytes = bytes;
        fresh->objects = (char *)fresh + header;
        a_store_rlx(&fresh->next, c);
        a_store_rlx(&fresh->carved, 0);
        a_store_rel(&s->chunks, fresh); /* rel: pairs with heist__slab_each, which must find a filled header */
        c = fresh;
    }
    size_t first = a_load_rlx(&c->carved), left = (c->bytes - header) / s->size - first;
    *count = left < HEIST__SLAB_BATCH ? (unsigned)left : HEIST__SLAB_BATCH;
    a_store_rel(&c->carved, first + *count); /* rel: pairs with heist__slab_each; fresh objects are zero: dead */
    s->carved_objects += *count;
    return c->objects + first * s->size;
}

static void *chain(char *first, size_t size, unsigned count) {
    void *head = NULL;
    while (count-- > 0) {
        void *object = first + count * size;
        LINK(object) = head;
        head = object;
    }
    return head;
}

void *heist__slab_get_slow(struct heist__self *self, int slab) {
    struct heist__magazine *m = &self->magazines[slab];
    if (heist__self_register(self)) return NULL;
    if (m->spare) { /* a spare batch is always full */
        m->current = m->spare;
        m->current_count = HEIST__SLAB_BATCH;
        m->spare = NULL;
        return heist__slab_get(self, slab);
    }
    struct slab *s = &slabs[slab];
    heist__spin_lock(&depot_lock);
    unsigned count = 0;
    char *fresh = NULL;
    void *batch = s->batches;
    if (batch) {
        count = (unsigned)(BATCH_WORD(batch) & COUNT_MASK);
        s->batches = (void *)(BATCH_WORD(batch) & ~COUNT_MASK);
        s->free_objects -= count;
    } else {
        fresh = carve(s, &count);
    }
    size_t size = s->size;
    heist__spin_unlock(&depot_lock);
    if (fresh) batch = chain(fresh, size, count);
    if (!batch) return NULL;
    m->current = batch;
    m->current_count = count;
    return heist__slab_get(self, slab);
}

static void to_depot(int slab, void *batch, unsigned count) {
    if (!batch) return;
    struct slab *s = &slabs[slab];
    heist__spin_lock(&depot_lock);
    BATCH_WORD(batch) = (uintptr_t)s->batches | count;
    s->batches = batch;
    s->free_objects += count;
    release_if_unused();
    heist__spin_unlock(&depot_lock);
}

void heist__slab_put_slow(struct heist__self *self, int slab, void *object) {
    struct heist__magazine *m = &self->magazines[slab];
    if (!a_load_rlx(&heist__slab_in_use) || heist__self_register(self)) { /* rlx: a hint, see slab.h */
        LINK(object) = NULL;
        to_depot(slab, object, 1);
        heist__slab_flush(self);
        return;
    }
    if (m->current_count >= HEIST__SLAB_BATCH) {
        to_depot(slab, m->spare, HEIST__SLAB_BATCH);
        m->spare = m->current;
        m->current = NULL;
        m->current_count = 0;
    }
    LINK(object) = m->current;
    m->current = object;
    m->current_count++;
}

void heist__slab_flush(struct heist__self *self) {
    for (int i = 0; i < HEIST__SLAB_COUNT; i++) {
        struct heist__magazine *m = &self->magazines[i];
        to_depot(i, m->spare, HEIST__SLAB_BATCH);
        to_depot(i, m->current, m->current_count);
        m->spare = m->current = NULL;
        m->current_count = 0;
    }
}

void heist__slab_each(int slab, bool (*visit)(void *object, void *arg), void *arg) {
    struct slab *s = &slabs[slab];
    /* acq: pairs with carve.  Chunks stay mapped while the caller's runtime is a user. */
    for (struct chunk *c = a_load_acq(&s->chunks); c; c = a_load_acq(&c->next)) {
        size_t n = a_load_acq(&c->carved);
        for (size_t i = 0; i < n; i++)
            if (!visit(c->objects + i * s->size, arg)) return;
    }
}

void heist__slab_enter(void) {
    heist__spin_lock(&depot_lock);
    users++;
    a_store_rlx(&heist__slab_in_use, true);
    heist__spin_unlock(&depot_lock);
}

bool heist__slab_leave(struct heist__self *self) {
    heist__spin_lock(&depot_lock);
    bool last = --users == 0;
    a_store_rlx(&heist__slab_in_use, users != 0);
    heist__spin_unlock(&depot_lock);
    if (!last) return false;
    heist__slab_flush(self);
    heist__spin_lock(&depot_lock);
    release_if_unused();
    heist__spin_unlock(&depot_lock);
    return true;
}
