/* Broadcasts: a ring of the last values, and for each receiver the number of the next one.
 *
 * Values are numbered from 0; the ring keeps those from `sent - kept` to `sent - 1`.
 * States of a receiver, under the lock:
 *   next == sent           has seen all; callers wait in port.out, with the receiver in their node's value
 *   sent - kept <= next    the next value is in the ring
 *   next < sent - kept     lost some: told so once, next moves up
 * A send hands its value to one waiting caller of each receiver that has seen all, past no other: that
 * receiver's next moves with the claim, never without it, so a caller that was cancelled or timed out
 * leaves the value to be found.
 *
 * Values that are counted: the reference for a caller is taken before the claim (after it the caller may
 * give it up already), and goes to the next one when the claim is lost.  The ring holds one of its own, so
 * what is left over is no last one. */
#include <heist/broadcast.h>
#include <heist/error.h>
#include <math.h>

#include "base/alloc.h"
#include "base/options.h"
#include "sync/port.h"

struct heist_broadcast {
    struct heist__port port;
    size_t capacity; /* birth, as the next two */
    void (*value_ref)(void *value);
    heist_free_fn value_unref;
    _Atomic(uint32_t) refs;

    bool closed; /* under the lock, as all below */
    uint64_t sent;
    size_t kept, receivers;
    void *ring[];
};

struct heist_receiver {
    heist_broadcast *broadcast; /* one reference */
    _Atomic(uint32_t) refs;
    uint64_t next, lost; /* under the broadcast's lock */
};

static int pass(struct heist__port *port, bool in, void *who, void **value, struct heist__park **wake);
static const struct heist__port_class broadcast_class = {pass, NULL};

struct heist__port *heist__receiver_port(heist_receiver *r) { return &r->broadcast->port; }

int heist_broadcast_new(size_t capacity, const heist_broadcast_options *opts, heist_broadcast **out) {
    if (!out || !capacity || capacity > (SIZE_MAX - sizeof(heist_broadcast)) / sizeof(void *)) return -EINVAL;
    if (opts && (!heist__options_ok(opts, sizeof(*opts)) || opts->flags || !opts->value_ref != !opts->value_unref))
        return -EINVAL;
    if (heist__fork_guard()) return -ENOMEM;
    if (heist__forked()) return HEIST_EFORKED;
    heist_broadcast *b = heist__zalloc(sizeof(*b) + capacity * sizeof(void *));
    if (!b) return -ENOMEM;
    heist__port_init(&b->port, &broadcast_class);
    b->capacity = capacity;
    if (opts) {
        b->value_ref = opts->value_ref;
        b->value_unref = opts->value_unref;
    }
    a_store_rlx(&b->refs, 1); /* rlx: not published yet */
    *out = b;
    return 0;
}

heist_broadcast *heist_broadcast_ref(heist_broadcast *b) {
    if (b) a_add_rlx(&b->refs, 1); /* rlx: the caller holds one */
    return b;
}

static void *kept_value(heist_broadcast *b, uint64_t number) { return b->ring[number % b->capacity]; }

void heist_broadcast_unref(heist_broadcast *b) {
    if (!b || a_sub_ar(&b->refs, 1) != 1) return; /* ar: as every last reference */
    for (uint64_t i = b->sent - b->kept; b->value_unref && i < b->sent; i++) b->value_unref(kept_value(b, i));
    heist__free(b);
}

int heist_broadcast_subscribe(heist_broadcast *b, heist_receiver **out) {
    if (!b || !out) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    heist_receiver *r = heist__zalloc(sizeof(*r));
    if (!r) return -ENOMEM;
    r->broadcast = heist_broadcast_ref(b);
    a_store_rlx(&r->refs, 1); /* rlx: not published yet */
    heist__spin_lock(&b->port.lock);
    r->next = b->sent;
    b->receivers++;
    heist__spin_unlock(&b->port.lock);
    *out = r;
    return 0;
}

heist_receiver *heist_receiver_ref(heist_receiver *r) {
    if (r) a_add_rlx(&r->refs, 1); /* rlx: the caller holds one */
    return r;
}

void heist_receiver_unref(heist_receiver *r) {
    if (!r || a_sub_ar(&r->refs, 1) != 1) return; /* ar: as every last reference */
    heist_broadcast *b = r->broadcast;
    /* Under the lock: a send may look at the receiver of a caller that it has just claimed. */
    if (!heist__forked()) {
        heist__spin_lock(&b->port.lock);
        b->receivers--;
        heist__spin_unlock(&b->port.lock);
    }
    heist__free(r);
    heist_broadcast_unref(b);
}

/* ---- send ---- */

/* Hands the value that was just put into the ring to those who wait for it.  Under the lock: whom to wake. */
static struct heist__waitnode *hand_out(heist_broadcast *b, void *value, bool *spare_ref) {
    struct heist__waitnode *woken = NULL, **end = &woken;
    for (struct heist__waitnode *n = b->port.out.head, *next; n; n = next) {
        next = n->next;
        heist_receiver *r = n->value;
        if (r->next != b->sent - 1) continue; /* another caller of this receiver has it */
        if (b->value_ref && !*spare_ref) {
            b->value_ref(value);
            *spare_ref = true;
        }
        heist__waitq_unlink(&b->port.out, n);
        n->value = value;
        int claim = heist__waitq_claim_node(n, 0);
        if (claim == HEIST__CLAIM_LOST) continue;
        r->next = b->sent;
        *spare_ref = false;
        if (claim != HEIST__CLAIM_WAKE) continue;
        *end = n;
        end = &n->next;
    }
    *end = NULL;
    return woken;
}

int heist_broadcast_send(heist_broadcast *b, void *value) {
    if (!b) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    heist__spin_lock(&b->port.lock);
    if (b->closed) {
        heist__spin_unlock(&b->port.lock);
        return HEIST_ESHUTDOWN;
    }
    void **cell = &b->ring[b->sent % b->capacity], *old = *cell;
    bool full = b->kept == b->capacity, spare_ref = false;
    *cell = value;
    b->sent++;
    if (!full) b->kept++;
    size_t receivers = b->receivers;
    struct heist__waitnode *woken = hand_out(b, value, &spare_ref);
    heist__spin_unlock(&b->port.lock);
    heist__waitq_wake_all(woken);
    if (b->value_unref && full) b->value_unref(old);
    if (b->value_unref && spare_ref) b->value_unref(value);
    return receivers > INT32_MAX ? INT32_MAX : (int)receivers;
}

int heist_broadcast_close(heist_broadcast *b) {
    if (!b) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    heist__spin_lock(&b->port.lock);
    b->closed = true;
    struct heist__waitnode *woken = heist__waitq_claim_all(&b->port.out, HEIST_ESHUTDOWN);
    heist__spin_unlock(&b->port.lock);
    heist__waitq_wake_all(woken);
    return 0;
}

size_t heist_broadcast_receivers(heist_broadcast *b) {
    if (!b || heist__forked()) return 0; /* the lock may be held by a thread that is not here */
    heist__spin_lock(&b->port.lock);
    size_t n = b->receivers;
    heist__spin_unlock(&b->port.lock);
    return n;
}

/* ---- receive ---- */

static int pass(struct heist__port *port, bool in, void *who, void **value, struct heist__park **wake) {
    heist_broadcast *b = heist_container_of(port, heist_broadcast, port);
    heist_receiver *r = who;
    (void)in, (void)wake;
    if (r->next == b->sent) return b->closed ? HEIST_ESHUTDOWN : -EAGAIN;
    uint64_t oldest = b->sent - b->kept;
    if (r->next < oldest) {
        r->lost += oldest - r->next;
        r->next = oldest;
        return HEIST_ELAGGED;
    }
    *value = kept_value(b, r->next++);
    if (b->value_ref) b->value_ref(*value);
    return 0;
}

static int received(heist_receiver *r, int err, void *value, void **out) {
    if (err) return err;
    if (out)
        *out = value;
    else if (r->broadcast->value_unref)
        r->broadcast->value_unref(value);
    return 0;
}

static int recv_until(heist_receiver *r, void **out, int64_t deadline_ns) {
    void *value = NULL;
    int err = heist__port_pass(&r->broadcast->port, &broadcast_class, false, r, &value, deadline_ns);
    return received(r, err, value, out);
}

int heist_receiver_recv(heist_receiver *r, void **out) { return r ? recv_until(r, out, INT64_MAX) : -EINVAL; }

int heist_receiver_recv_until(heist_receiver *r, void **out, double deadline) {
    if (!r || isnan(deadline)) return -EINVAL;
    return recv_until(r, out, heist__ns_from_seconds(deadline));
}

int heist_receiver_try_recv(heist_receiver *r, void **out) {
    void *value = NULL;
    if (!r) return -EINVAL;
    int err = heist__port_try(&r->broadcast->port, &broadcast_class, false, r, &value);
    return received(r, err, value, out);
}

uint64_t heist_receiver_lost(heist_receiver *r) {
    if (!r || heist__forked()) return 0;
    heist__spin_lock(&r->broadcast->port.lock);
    uint64_t n = r->lost;
    heist__spin_unlock(&r->broadcast->port.lock);
    return n;
}
