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
#include <heist/inspect.h>
#include <math.h>
#include <string.h>
#include <stdio.h>

#include "base/alloc.h"
#include "base/fork.h"
#include "sync/port.h"

struct heist_channel {
    /* What a hand-over from a sender to a receiver that waits touches: one cache line. */
    struct heist__port port;
    size_t count;
    _Atomic(uint32_t) refs;

    size_t capacity, head;
    void *ring[];
};
#ifndef HEIST_DEBUG_LOCKS
_Static_assert(offsetof(heist_channel, capacity) <= HEIST_CACHE_LINE, "a hand-over touches one line");
#endif

static int pass(struct heist__port *port, bool in, struct heist__waitq *queue, void **value, struct heist__park **wake);
static const struct heist__port_class channel_class = {pass, NULL};

int heist_channel_new(size_t capacity, heist_channel **out) {
    if (!out || capacity > (SIZE_MAX - sizeof(heist_channel)) / sizeof(void *)) return -EINVAL;
    if (heist__fork_guard()) return -ENOMEM;
    if (heist__forked()) return HEIST_EFORKED;
    heist_channel *c = heist__aligned_alloc(HEIST_CACHE_LINE, sizeof(*c) + capacity * sizeof(void *));
    if (!c) return -ENOMEM;
    memset(c, 0, sizeof(*c));
    heist__port_init(&c->port, &channel_class);
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
    if (c->port.closed) return HEIST_ESHUTDOWN;
    if (heist__waitq_claim(&c->port.out, 0, value, NULL, wake)) return 0;
    if (c->count == c->capacity) return -EAGAIN;
    ring_put(c, value);
    return 0;
}

static int recv_locked(heist_channel *c, void **value, struct heist__park **wake) {
    if (c->count) {
        *value = ring_take(c);
        void *next;
        if (heist__waitq_claim(&c->port.in, 0, NULL, &next, wake)) ring_put(c, next);
        return 0;
    }
    if (heist__waitq_claim(&c->port.in, 0, NULL, value, wake)) return 0; /* a rendezvous */
    return c->port.closed ? HEIST_ESHUTDOWN : -EAGAIN;
}

static int pass(struct heist__port *port, bool in, struct heist__waitq *queue, void **value,
                struct heist__park **wake) {
    heist_channel *c = heist_container_of(port, heist_channel, port);
    (void)queue;
    return in ? send_locked(c, *value, wake) : recv_locked(c, value, wake);
}

struct heist__port *heist__channel_port(heist_channel *c) { return &c->port; }

int heist_channel_send(heist_channel *c, void *value) {
    if (!c) return -EINVAL;
    return heist__port_pass(&c->port, &channel_class, true, NULL, &value, INT64_MAX);
}

int heist_channel_send_until(heist_channel *c, void *value, double deadline) {
    if (!c || isnan(deadline)) return -EINVAL;
    return heist__port_pass(&c->port, &channel_class, true, NULL, &value, heist__ns_from_seconds(deadline));
}

int heist_channel_recv(heist_channel *c, void **out) {
    void *value;
    if (!c) return -EINVAL;
    int err = heist__port_pass(&c->port, &channel_class, false, NULL, &value, INT64_MAX);
    if (!err && out) *out = value;
    return err;
}

int heist_channel_recv_until(heist_channel *c, void **out, double deadline) {
    void *value;
    if (!c || isnan(deadline)) return -EINVAL;
    int err = heist__port_pass(&c->port, &channel_class, false, NULL, &value, heist__ns_from_seconds(deadline));
    if (!err && out) *out = value;
    return err;
}

int heist_channel_try_send(heist_channel *c, void *value) {
    if (!c) return -EINVAL;
    return heist__port_try(&c->port, &channel_class, true, NULL, &value);
}

int heist_channel_try_recv(heist_channel *c, void **out) {
    void *value;
    if (!c) return -EINVAL;
    int err = heist__port_try(&c->port, &channel_class, false, NULL, &value);
    if (!err && out) *out = value;
    return err;
}

int heist_channel_close(heist_channel *c) {
    if (!c) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    heist__spin_lock(&c->port.lock);
    c->port.closed = true;
    struct heist__waitnode *receivers = heist__waitq_claim_all(&c->port.out, HEIST_ESHUTDOWN);
    struct heist__waitnode *senders = heist__waitq_claim_all(&c->port.in, HEIST_ESHUTDOWN);
    heist__spin_unlock(&c->port.lock);
    heist__waitq_wake_all(receivers);
    heist__waitq_wake_all(senders);
    return 0;
}

size_t heist_channel_size(heist_channel *c) {
    if (!c || heist__forked()) return 0; /* the lock may be held by a thread that is not here */
    heist__spin_lock(&c->port.lock);
    size_t n = c->count;
    heist__spin_unlock(&c->port.lock);
    return n;
}

int heist_channel_repr(heist_channel *c, char *buf, size_t size) {
    if (!c || (!buf && size)) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    heist__spin_lock(&c->port.lock);
    size_t count = c->count, in = heist__waitq_length(&c->port.in), out = heist__waitq_length(&c->port.out);
    bool closed = c->port.closed;
    heist__spin_unlock(&c->port.lock);
    return snprintf(buf, size, "<Channel %p%s size=%zu capacity=%zu senders=%zu receivers=%zu>", (void *)c,
                    closed ? " closed" : "", count, c->capacity, in, out);
}
