/* Channels: a ring of values, those who wait to receive, those who wait to send.
 *
 * States, under the lock; at most one of the wait queues is not empty:
 *   values wait           no receiver waits
 *   empty, receivers wait a send hands its value to the oldest, past the ring
 *   full, senders wait    a receive takes the oldest value and moves the oldest sender's in
 *   closed                no sender waits; receivers wait no more
 * A value is in exactly one place: with the sender until its claim succeeds, in the
 * ring, or with the receiver from its claim on. */
#include <heist/channel.h>
#include <heist/error.h>
#include <math.h>

#include "base/alloc.h"
#include "base/fork.h"
#include "conc/self.h"
#include "sched/suspend.h"
#include "sync/waitq.h"

struct heist_channel {
    struct heist__spin lock;
    bool closed;
    size_t capacity, head, count;
    struct heist__waitq senders, receivers;
    _Atomic(uint32_t) refs;
    void *ring[];
};

int heist_channel_new(size_t capacity, heist_channel **out) {
    if (!out || capacity > (SIZE_MAX - sizeof(heist_channel)) / sizeof(void *)) return -EINVAL;
    if (heist__fork_guard()) return -ENOMEM;
    if (heist__forked()) return HEIST_EFORKED;
    heist_channel *c = heist__zalloc(sizeof(*c) + capacity * sizeof(void *));
    if (!c) return -ENOMEM;
    heist__spin_init(&c->lock);
    c->capacity = capacity;
    a_store_rlx(&c->refs, 1); /* rlx: not published yet */
    *out = c;
    return 0;
}

heist_channel *heist_channel_ref(heist_channel *c) {
    if (c) a_add_rlx(&c->refs, 1); /* rlx: the caller holds one */
    return c;
}

void heist_channel_unref(heist_channel *c) {
    if (c && a_sub_ar(&c->refs, 1) == 1) heist__free(c); /* ar: as every last reference */
}

static void ring_put(heist_channel *c, void *value) {
    size_t at = c->head + c->count++;
    c->ring[at < c->capacity ? at : at - c->capacity] = value;
}

static void *ring_take(heist_channel *c) {
    void *value = c->ring[c->head];
    if (++c->head == c->capacity) c->head = 0;
    c->count--;
    return value;
}

/* 0, -EAGAIN, HEIST_ESHUTDOWN.  Under the lock. */
static int send_locked(heist_channel *c, void *value, struct heist__park **wake) {
    if (c->closed) return HEIST_ESHUTDOWN;
    if (heist__waitq_claim(&c->receivers, 0, value, NULL, wake)) return 0;
    if (c->count == c->capacity) return -EAGAIN;
    ring_put(c, value);
    return 0;
}

static int recv_locked(heist_channel *c, void **value, struct heist__park **wake) {
    if (c->count) {
        *value = ring_take(c);
        void *next;
        if (heist__waitq_claim(&c->senders, 0, NULL, &next, wake)) ring_put(c, next);
        return 0;
    }
    if (heist__waitq_claim(&c->senders, 0, NULL, value, wake)) return 0; /* a rendezvous */
    return c->closed ? HEIST_ESHUTDOWN : -EAGAIN;
}

struct passing {
    struct heist__wait wait;
    struct heist__waitnode node;
    heist_channel *channel;
    bool sends;
};

static bool publish(struct heist__wait *w, heist_loop *loop) {
    (void)loop;
    struct passing *p = heist_container_of(w, struct passing, wait);
    heist_channel *c = p->channel;
    struct heist__park *wake = NULL;
    heist__spin_lock(&c->lock);
    w->code = p->sends ? send_locked(c, p->node.value, &wake) : recv_locked(c, &p->node.value, &wake);
    bool waits = w->code == -EAGAIN;
    if (waits) {
        p->node.park = w->park;
        heist__waitq_link(p->sends ? &c->senders : &c->receivers, &p->node);
    }
    heist__spin_unlock(&c->lock);
    if (wake) heist__park_wake(wake);
    return waits;
}

static void withdraw(struct heist__wait *w) {
    struct passing *p = heist_container_of(w, struct passing, wait);
    heist_channel *c = p->channel;
    heist__spin_lock(&c->lock);
    heist__waitq_unlink(p->sends ? &c->senders : &c->receivers, &p->node);
    heist__spin_unlock(&c->lock);
}

static int pass(heist_channel *c, bool sends, void **value, int64_t deadline_ns) {
    struct heist__self *self = heist__self();
    int err = heist__wait_entry(self);
    if (err) return err;
    struct heist__park *wake = NULL;
    heist__spin_lock(&c->lock);
    err = sends ? send_locked(c, *value, &wake) : recv_locked(c, value, &wake);
    heist__spin_unlock(&c->lock);
    if (wake) heist__park_wake(wake);
    if (err != -EAGAIN) {
        heist__wait_skipped(self);
        return err;
    }
    struct passing p;
    p.channel = c;
    p.sends = sends;
    p.node.linked = false;
    p.node.value = sends ? *value : NULL;
    p.wait.deadline_ns = deadline_ns;
    p.wait.publish = publish;
    p.wait.withdraw = withdraw;
    err = heist__wait(&p.wait);
    if (!err && !sends) *value = p.node.value;
    return err;
}

int heist_channel_send(heist_channel *c, void *value) { return c ? pass(c, true, &value, INT64_MAX) : -EINVAL; }

int heist_channel_send_until(heist_channel *c, void *value, double deadline) {
    if (!c || isnan(deadline)) return -EINVAL;
    return pass(c, true, &value, heist__ns_from_seconds(deadline));
}

int heist_channel_recv(heist_channel *c, void **out) {
    void *value;
    if (!c) return -EINVAL;
    int err = pass(c, false, &value, INT64_MAX);
    if (!err && out) *out = value;
    return err;
}

int heist_channel_recv_until(heist_channel *c, void **out, double deadline) {
    void *value;
    if (!c || isnan(deadline)) return -EINVAL;
    int err = pass(c, false, &value, heist__ns_from_seconds(deadline));
    if (!err && out) *out = value;
    return err;
}

int heist_channel_try_send(heist_channel *c, void *value) {
    if (!c) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    struct heist__park *wake = NULL;
    heist__spin_lock(&c->lock);
    int err = send_locked(c, value, &wake);
    heist__spin_unlock(&c->lock);
    if (wake) heist__park_wake(wake);
    return err;
}

int heist_channel_try_recv(heist_channel *c, void **out) {
    if (!c) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    struct heist__park *wake = NULL;
    void *value;
    heist__spin_lock(&c->lock);
    int err = recv_locked(c, &value, &wake);
    heist__spin_unlock(&c->lock);
    if (wake) heist__park_wake(wake);
    if (!err && out) *out = value;
    return err;
}

int heist_channel_close(heist_channel *c) {
    if (!c) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    heist__spin_lock(&c->lock);
    c->closed = true;
    for (;;) { /* one at a time: a woken waiter's node is gone */
        struct heist__park *wake = NULL;
        bool any = heist__waitq_claim(&c->receivers, HEIST_ESHUTDOWN, NULL, NULL, &wake);
        void *kept;
        if (!any) any = heist__waitq_claim(&c->senders, HEIST_ESHUTDOWN, NULL, &kept, &wake);
        if (!any) break;
        heist__spin_unlock(&c->lock);
        if (wake) heist__park_wake(wake);
        heist__spin_lock(&c->lock);
    }
    heist__spin_unlock(&c->lock);
    return 0;
}

size_t heist_channel_size(heist_channel *c) {
    if (!c || heist__forked()) return 0; /* the lock may be held by a thread that is not here */
    heist__spin_lock(&c->lock);
    size_t n = c->count;
    heist__spin_unlock(&c->lock);
    return n;
}
