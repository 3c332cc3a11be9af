/* Queues: a store of items in one of three orders, those who wait to put and to get, and
 * those who wait for all to be done.
 *
 * States, under the lock:
 *   items wait               no getter waits, but one that has ended otherwise and not left yet
 *   empty, getters wait      a put hands its item to the oldest getter, past the store
 *   full, putters wait       a get takes its item and moves the oldest putter's in
 *   shut down                no putter waits; getters wait no more, for a queue that is not empty has none
 * An item is in exactly one place: with the putter until its claim succeeds, in the store, or with
 * the getter from its claim on.  `unfinished` counts the items that left a putter; it reaches 0 under
 * the lock, and whoever joins at that moment is claimed in the same hold of it.
 *
 * The store grows without the lock held: pass says that it is full, grow makes a larger one, and
 * takes the lock only to move the items over.  A queue that may hold more than FIXED_ROOM gives a
 * large store back when it is empty. */
#include <heist/error.h>
#include <heist/inspect.h>
#include <heist/queue.h>
#include <math.h>
#include <stdio.h>

#include "base/alloc.h"
#include "base/options.h"
#include "conc/self.h"
#include "sync/port.h"
#include "sync/wait_while.h"

/* A bounded queue of no more than this has its store from birth, and needs no memory later. */
enum { FIXED_ROOM = 1024, FIRST_ROOM = 64 };

struct entry {
    void *item;
    uint64_t number; /* of its put: equal ones come out in this order; by priority only */
};

struct heist_queue {
    /* birth */
    struct heist__port port;
    size_t maxsize; /* 0: without bound */
    unsigned order;
    heist_compare_fn compare;
    void *user;
    heist_free_fn item_free;
    _Atomic(uint32_t) refs;

    /* under the lock */
    bool shut;
    size_t count, room, head; /* head: of the ring, first in first out */
    void **ring;              /* of room items, or: */
    struct entry *heap;       /* the smallest first; a child is not smaller than its parent */
    uint64_t puts;
    size_t unfinished;
    struct heist__waitq joiners;
    _Atomic(void *) spare; /* a store to be freed, or NULL; set under the lock, taken without */
};

/* ---- the store ---- */

static bool before(heist_queue *q, const struct entry *a, const struct entry *b) {
    int order = q->compare(a->item, b->item, q->user);
    return order < 0 || (order == 0 && a->number < b->number);
}

static void heap_add(heist_queue *q, void *item) {
    struct entry new = {item, q->puts};
    size_t at = q->count++;
    while (at && before(q, &new, &q->heap[(at - 1) / 2])) {
        q->heap[at] = q->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    q->heap[at] = new;
}

static void *heap_take(heist_queue *q) {
    void *item = q->heap[0].item;
    struct entry last = q->heap[--q->count];
    size_t at = 0;
    for (size_t child; (child = 2 * at + 1) < q->count; at = child) {
        if (child + 1 < q->count && before(q, &q->heap[child + 1], &q->heap[child])) child++;
        if (!before(q, &q->heap[child], &last)) break;
        q->heap[at] = q->heap[child];
    }
    q->heap[at] = last;
    return item;
}

static void add(heist_queue *q, void *item) {
    q->puts++;
    if (q->order == HEIST_QUEUE_PRIORITY) {
        heap_add(q, item);
        return;
    }
    size_t at = q->head + q->count++;
    q->ring[at < q->room ? at : at - q->room] = item;
}

static void *take(heist_queue *q) {
    if (q->order == HEIST_QUEUE_PRIORITY) return heap_take(q);
    if (q->order == HEIST_QUEUE_LIFO) return q->ring[--q->count]; /* head stays 0 */
    void *item = q->ring[q->head];
    if (++q->head == q->room) q->head = 0;
    q->count--;
    return item;
}

static size_t slot_bytes(const heist_queue *q) {
    return q->order == HEIST_QUEUE_PRIORITY ? sizeof(struct entry) : sizeof(void *);
}

/* The store with its items, taken out of the queue.  Under the lock, or with nobody left. */
struct store {
    void **ring;
    struct entry *heap;
    size_t head, count, room;
};

static struct store detach(heist_queue *q) {
    struct store s = {q->ring, q->heap, q->head, q->count, q->room};
    q->ring = NULL;
    q->heap = NULL;
    q->head = q->count = q->room = 0;
    return s;
}

/* Ends it; no lock held. */
static void drop(heist_queue *q, struct store *s) {
    for (size_t i = 0; q->item_free && i < s->count; i++) {
        size_t at = s->head + i;
        heist__destruct(q->item_free, s->heap ? s->heap[i].item : s->ring[at < s->room ? at : at - s->room]);
    }
    heist__free(s->ring);
    heist__free(s->heap);
}

static void move_in(heist_queue *q, void *block, size_t room) {
    if (q->order == HEIST_QUEUE_PRIORITY) {
        for (size_t i = 0; i < q->count; i++) ((struct entry *)block)[i] = q->heap[i];
        q->heap = block;
    } else {
        for (size_t i = 0; i < q->count; i++) {
            size_t at = q->head + i;
            ((void **)block)[i] = q->ring[at < q->room ? at : at - q->room];
        }
        q->ring = block;
        q->head = 0;
    }
    q->room = room;
}

/* pass found the store full: a larger one.  No lock held; somebody else may have done it meanwhile. */
static int grow(struct heist__port *port) {
    heist_queue *q = heist_container_of(port, heist_queue, port);
    for (;;) {
        heist__spin_lock(&port->lock);
        size_t room = q->room;
        bool full = q->count == room;
        heist__spin_unlock(&port->lock);
        if (!full) return 0;
        size_t wanted = room ? room * 2 : FIRST_ROOM;
        if (q->maxsize && wanted > q->maxsize) wanted = q->maxsize;
        if (wanted > SIZE_MAX / slot_bytes(q)) return -ENOMEM;
        void *block = heist__alloc(wanted * slot_bytes(q));
        if (!block) return -ENOMEM;
        heist__spin_lock(&port->lock);
        bool ours = q->room == room; /* else it grew, or was given back */
        void *old = NULL;
        if (ours) {
            old = q->heap ? (void *)q->heap : (void *)q->ring;
            move_in(q, block, wanted);
        }
        heist__spin_unlock(&port->lock);
        heist__free(ours ? old : block);
        if (ours) return 0;
    }
}

/* ---- birth and end ---- */

static int pass(struct heist__port *port, bool in, struct heist__waitq *queue, void **value, struct heist__park **wake);
static const struct heist__port_class queue_class = {pass, grow};

struct heist__port *heist__queue_port(heist_queue *q) { return &q->port; }

static bool options_ok(const heist_queue_options *o) {
    if (!o) return true;
    if (!heist__options_ok(o, sizeof(*o)) || o->flags || o->order > HEIST_QUEUE_PRIORITY) return false;
    return (o->order == HEIST_QUEUE_PRIORITY) == (o->compare != NULL);
}

int heist_queue_new(long long maxsize, const heist_queue_options *opts, heist_queue **out) {
    if (!out || !options_ok(opts)) return -EINVAL;
    if (heist__fork_guard()) return -ENOMEM;
    if (heist__forked()) return HEIST_EFORKED;
    heist_queue *q = heist__zalloc(sizeof(*q));
    if (!q) return -ENOMEM;
    heist__port_init(&q->port, &queue_class);
    a_store_rlx(&q->refs, 1); /* rlx: not published yet */
    if (maxsize > 0) q->maxsize = (unsigned long long)maxsize < SIZE_MAX ? (size_t)maxsize : SIZE_MAX;
    if (opts) {
        q->order = opts->order;
        q->compare = opts->compare;
        q->user = opts->user;
        q->item_free = opts->item_free;
    }
    if (q->maxsize && q->maxsize <= FIXED_ROOM) {
        void *block = heist__alloc(q->maxsize * slot_bytes(q));
        if (!block) {
            heist__free(q);
            return -ENOMEM;
        }
        move_in(q, block, q->maxsize);
    }
    *out = q;
    return 0;
}

heist_queue *heist_queue_ref(heist_queue *q) {
    if (q) a_add_rlx(&q->refs, 1); /* rlx: the caller holds one */
    return q;
}

void heist_queue_unref(heist_queue *q) {
    if (!q || a_sub_ar(&q->refs, 1) != 1) return; /* ar: as every last reference */
    struct store left = detach(q);
    drop(q, &left);
    heist__free(a_load_rlx(&q->spare)); /* rlx: nobody else is left */
    heist__free(q);
}

/* ---- put and get ---- */

static int put_locked(heist_queue *q, void *item, struct heist__park **wake) {
    if (q->shut) return HEIST_ESHUTDOWN;
    if (!q->count && heist__waitq_claim(&q->port.out, 0, item, NULL, wake)) {
        q->unfinished++;
        return 0;
    }
    if (q->maxsize && q->count == q->maxsize) return -EAGAIN;
    if (q->count == q->room) return HEIST__PORT_GROW;
    add(q, item);
    q->unfinished++;
    return 0;
}

/* Under the lock: a large store that is empty.  Whoever got the last item frees it, see got.  One that is still there
 * (select took the last item, that time) is kept, and this one stays in use. */
static void set_aside(heist_queue *q) {
    void *none = NULL, *block = q->heap ? (void *)q->heap : (void *)q->ring;
    if (a_cas_ar(&q->spare, &none, block)) detach(q); /* ar: hands over the block */
}

static int get_locked(heist_queue *q, void **item, struct heist__park **wake) {
    if (!q->count) return q->shut ? HEIST_ESHUTDOWN : -EAGAIN;
    *item = take(q);
    void *next;
    if (heist__waitq_claim(&q->port.in, 0, NULL, &next, wake)) { /* there is room: one was taken just now */
        add(q, next);
        q->unfinished++;
    }
    if (heist_unlikely(!q->count && q->room > FIXED_ROOM)) set_aside(q);
    return 0;
}

static int pass(struct heist__port *port, bool in, struct heist__waitq *queue, void **value,
                struct heist__park **wake) {
    heist_queue *q = heist_container_of(port, heist_queue, port);
    (void)queue;
    return in ? put_locked(q, *value, wake) : get_locked(q, value, wake);
}

static int put(heist_queue *q, void *item, int64_t deadline_ns) {
    return heist__port_pass(&q->port, &queue_class, true, NULL, &item, deadline_ns);
}

static int got(heist_queue *q, int err, void **out, void *item) {
    if (err) return err;
    if (heist_unlikely(a_load_rlx(&q->spare) != NULL)) /* rlx: a hint; the exchange decides */
        heist__free(a_xchg_ar(&q->spare, NULL));        /* ar: the block and what was done with it */
    if (out) *out = item;
    return 0;
}

int heist_queue_put(heist_queue *q, void *item) { return q ? put(q, item, INT64_MAX) : -EINVAL; }

int heist_queue_put_until(heist_queue *q, void *item, double deadline) {
    if (!q || isnan(deadline)) return -EINVAL;
    return put(q, item, heist__ns_from_seconds(deadline));
}

int heist_queue_put_nowait(heist_queue *q, void *item) {
    if (!q) return -EINVAL;
    return heist__port_try(&q->port, &queue_class, true, NULL, &item);
}

int heist_queue_get(heist_queue *q, void **out) {
    void *item = NULL;
    if (!q) return -EINVAL;
    int err = heist__port_pass(&q->port, &queue_class, false, NULL, &item, INT64_MAX);
    return got(q, err, out, item);
}

int heist_queue_get_until(heist_queue *q, void **out, double deadline) {
    void *item = NULL;
    if (!q || isnan(deadline)) return -EINVAL;
    int err = heist__port_pass(&q->port, &queue_class, false, NULL, &item, heist__ns_from_seconds(deadline));
    return got(q, err, out, item);
}

int heist_queue_get_nowait(heist_queue *q, void **out) {
    void *item = NULL;
    if (!q) return -EINVAL;
    int err = heist__port_try(&q->port, &queue_class, false, NULL, &item);
    return got(q, err, out, item);
}

/* ---- join, task_done, shutdown ---- */

static bool has_unfinished(const void *object, uint64_t arg) {
    (void)arg;
    return ((const heist_queue *)object)->unfinished > 0;
}

static int join(heist_queue *q, int64_t deadline_ns) {
    struct heist__self *self = heist__self();
    int err = heist__wait_entry(self);
    if (err) return err;
    heist__spin_lock(&q->port.lock);
    bool done = q->unfinished == 0;
    heist__spin_unlock(&q->port.lock);
    if (done) {
        heist__wait_skipped(self);
        return 0;
    }
    return heist__wait_while(&q->port.lock, &q->joiners, has_unfinished, q, 0, deadline_ns);
}

int heist_queue_join(heist_queue *q) { return q ? join(q, INT64_MAX) : -EINVAL; }

int heist_queue_join_until(heist_queue *q, double deadline) {
    if (!q || isnan(deadline)) return -EINVAL;
    return join(q, heist__ns_from_seconds(deadline));
}

/* n items are done.  Under the lock: whom to wake. */
static struct heist__waitnode *finish(heist_queue *q, size_t n) {
    q->unfinished -= n;
    return q->unfinished ? NULL : heist__waitq_claim_all(&q->joiners, 0);
}

int heist_queue_task_done(heist_queue *q) {
    if (!q) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    struct heist__waitnode *joiners = NULL;
    heist__spin_lock(&q->port.lock);
    bool due = q->unfinished > 0;
    if (due) joiners = finish(q, 1);
    heist__spin_unlock(&q->port.lock);
    heist__waitq_wake_all(joiners);
    return due ? 0 : -EINVAL;
}

int heist_queue_shutdown(heist_queue *q, unsigned flags) {
    if (!q || (flags & ~HEIST_QUEUE_IMMEDIATE)) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    struct heist__waitnode *joiners = NULL;
    struct store dropped = {NULL, NULL, 0, 0, 0};
    heist__spin_lock(&q->port.lock);
    q->shut = true;
    struct heist__waitnode *getters = heist__waitq_claim_all(&q->port.out, HEIST_ESHUTDOWN);
    struct heist__waitnode *putters = heist__waitq_claim_all(&q->port.in, HEIST_ESHUTDOWN);
    if ((flags & HEIST_QUEUE_IMMEDIATE) && q->count) {
        dropped = detach(q);
        /* Fewer, when task_done was called for items that nobody had got. */
        joiners = finish(q, dropped.count < q->unfinished ? dropped.count : q->unfinished);
    }
    heist__spin_unlock(&q->port.lock);
    heist__waitq_wake_all(getters);
    heist__waitq_wake_all(putters);
    drop(q, &dropped); /* before those who join go on: by then no item is left */
    heist__waitq_wake_all(joiners);
    return 0;
}

/* ---- questions ---- */

size_t heist_queue_qsize(heist_queue *q) {
    if (!q || heist__forked()) return 0; /* the lock may be held by a thread that is not here */
    heist__spin_lock(&q->port.lock);
    size_t n = q->count;
    heist__spin_unlock(&q->port.lock);
    return n;
}

int heist_queue_empty(heist_queue *q) { return q && !heist__forked() && heist_queue_qsize(q) == 0; }

int heist_queue_full(heist_queue *q) { return q && q->maxsize && heist_queue_qsize(q) >= q->maxsize; }

size_t heist_queue_maxsize(const heist_queue *q) { return q ? q->maxsize : 0; }

int heist_queue_repr(heist_queue *q, char *buf, size_t size) {
    if (!q || (!buf && size)) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    heist__spin_lock(&q->port.lock);
    size_t count = q->count, tasks = q->unfinished;
    size_t in = heist__waitq_length(&q->port.in), out = heist__waitq_length(&q->port.out);
    bool shut = q->shut;
    heist__spin_unlock(&q->port.lock);
    return snprintf(buf, size, "<Queue %p%s size=%zu maxsize=%zu putters=%zu getters=%zu tasks=%zu>", (void *)q,
                    shut ? " shutdown" : "", count, q->maxsize, in, out, tasks);
}
