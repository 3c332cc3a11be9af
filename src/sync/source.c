/* Sources: a ring of the last values, and for each subscriber the number of the next one.
 *
 * Values are numbered from 0; the ring keeps those from `sent - kept` to `sent - 1`.
 * States of a subscriber, under the lock:
 *   next == sent           has seen all; callers wait in its own queue
 *   sent - kept <= next    the next value is in the ring
 *   next < sent - kept     missed some: next moves up, and unless only the latest counts, it is told so once
 * A send hands its value to one waiting caller of each subscriber that has seen all: that
 * subscriber's next moves with the claim, never without it, so a caller that was cancelled or timed out
 * leaves the value to be found.
 *
 * Hungry.  A send must not look at all subscribers, nor at all callers of one.  So the list holds the
 * subscribers that may have callers: `pass` puts one there, under the lock, when it says -EAGAIN, and only
 * then is a caller linked.  A send looks at each of the list once, and at one caller of it, beside those
 * that have given up; who is left without callers leaves the list.
 *   A subscriber in the list has seen all: so it was when it came in, and a send that finds nobody to give the
 *   value to takes it out.  A subscriber with callers stands in the list: it leaves only without any.
 *
 * Values that are counted: the reference for a caller is taken before the claim (after it the caller may
 * give it up already), and goes to the next one when the claim is lost.  The ring holds one of its own, so
 * what is left over is no last one. */
#include "sync/source.h"

#include <heist/error.h>
#include <stdio.h>

#include "base/alloc.h"

static int pass(struct heist__port *port, bool in, struct heist__waitq *queue, void **value, struct heist__park **wake);
static const struct heist__port_class source_class = {pass, NULL};

int heist__source_new(size_t capacity, bool latest, heist__value_ref_fn ref, heist_free_fn unref,
                      struct heist__source **out) {
    if (heist__fork_guard()) return -ENOMEM;
    if (heist__forked()) return HEIST_EFORKED;
    struct heist__source *s = heist__zalloc(sizeof(*s) + capacity * sizeof(void *));
    if (!s) return -ENOMEM;
    heist__port_init(&s->port, &source_class);
    s->capacity = capacity;
    s->latest = latest;
    s->value_ref = ref;
    s->value_unref = unref;
    heist__list_init(&s->hungry);
    a_store_rlx(&s->refs, 1); /* rlx: not published yet */
    *out = s;
    return 0;
}

struct heist__source *heist__source_ref(struct heist__source *s) {
    if (s) a_add_rlx(&s->refs, 1); /* rlx: the caller holds one */
    return s;
}

static void **cell(struct heist__source *s, uint64_t number) { return &s->ring[number % s->capacity]; }

void heist__source_unref(struct heist__source *s) {
    if (!s || a_sub_ar(&s->refs, 1) != 1) return; /* ar: as every last reference */
    for (uint64_t i = s->sent - s->kept; s->value_unref && i < s->sent; i++) s->value_unref(*cell(s, i));
    heist__free(s);
}

/* ---- subscribers ---- */

int heist__source_subscribe(struct heist__source *s, struct heist__subscriber **out) {
    if (heist__forked()) return HEIST_EFORKED;
    struct heist__subscriber *r = heist__zalloc(sizeof(*r));
    if (!r) return -ENOMEM;
    r->source = heist__source_ref(s);
    heist__list_init(&r->hungry);
    a_store_rlx(&r->refs, 1); /* rlx: not published yet */
    heist__spin_lock(&s->port.lock);
    r->next = s->sent;
    s->subscribers++;
    heist__spin_unlock(&s->port.lock);
    *out = r;
    return 0;
}

struct heist__subscriber *heist__subscriber_ref(struct heist__subscriber *r) {
    if (r) a_add_rlx(&r->refs, 1); /* rlx: the caller holds one */
    return r;
}

void heist__subscriber_unref(struct heist__subscriber *r) {
    if (!r || a_sub_ar(&r->refs, 1) != 1) return; /* ar: as every last reference */
    struct heist__source *s = r->source;
    if (!heist__forked()) { /* a send may look at the subscriber of a caller that it has just claimed */
        heist__spin_lock(&s->port.lock);
        heist__list_remove(&r->hungry);
        s->subscribers--;
        heist__spin_unlock(&s->port.lock);
    }
    heist__free(r);
    heist__source_unref(s);
}

/* ---- send ---- */

static struct heist__subscriber *of_link(struct heist__link *l) {
    return heist__list_entry(l, struct heist__subscriber, hungry);
}

/* Gives the newest value to one caller: whom to wake goes to *end.  Under the lock. */
static struct heist__waitnode **feed(struct heist__source *s, struct heist__subscriber *r, bool *spare_ref,
                                     struct heist__waitnode **end) {
    void *value = *cell(s, s->sent - 1);
    for (struct heist__waitnode *n; (n = r->callers.head);) {
        if (s->value_ref && !*spare_ref) {
            s->value_ref(value);
            *spare_ref = true;
        }
        heist__waitq_unlink(&r->callers, n);
        n->value = value;
        int claim = heist__waitq_claim_node(n, 0);
        if (claim == HEIST__CLAIM_LOST) continue;
        r->next = s->sent;
        *spare_ref = false;
        if (claim != HEIST__CLAIM_WAKE) break;
        *end = n;
        return &n->next;
    }
    return end;
}

int heist__source_send(struct heist__source *s, void *value) {
    if (heist__forked()) return HEIST_EFORKED;
    heist__spin_lock(&s->port.lock);
    if (s->port.closed) {
        heist__spin_unlock(&s->port.lock);
        return HEIST_ESHUTDOWN;
    }
    void *old = *cell(s, s->sent);
    bool full = s->kept == s->capacity, spare_ref = false;
    *cell(s, s->sent++) = value;
    if (!full) s->kept++;
    size_t subscribers = s->subscribers;
    struct heist__waitnode *woken = NULL, **end = &woken;
    struct heist__link *at, *after;
    heist__list_for_each_safe(at, after, &s->hungry) {
        struct heist__subscriber *r = of_link(at);
        end = feed(s, r, &spare_ref, end);
        if (!r->callers.head) heist__list_remove(at);
    }
    *end = NULL;
    heist__spin_unlock(&s->port.lock);
    heist__waitq_wake_all(woken);
    if (s->value_unref && full) s->value_unref(old);
    if (s->value_unref && spare_ref) s->value_unref(value);
    return subscribers > INT32_MAX ? INT32_MAX : (int)subscribers;
}

int heist__source_close(struct heist__source *s) {
    if (heist__forked()) return HEIST_EFORKED;
    struct heist__waitnode *woken = NULL, **end = &woken;
    heist__spin_lock(&s->port.lock);
    s->port.closed = true;
    for (struct heist__link *at; (at = heist__list_pop_front(&s->hungry));)
        end = heist__waitq_claim_each(&of_link(at)->callers, HEIST_ESHUTDOWN, end);
    *end = NULL;
    heist__spin_unlock(&s->port.lock);
    heist__waitq_wake_all(woken);
    return 0;
}

/* ---- asking ---- */

size_t heist__source_subscribers(struct heist__source *s) {
    if (heist__forked()) return 0; /* the lock may be held by a thread that is not here */
    heist__spin_lock(&s->port.lock);
    size_t n = s->subscribers;
    heist__spin_unlock(&s->port.lock);
    return n;
}

int heist__source_newest(struct heist__source *s, void **value, uint64_t *before) {
    if (heist__forked()) return HEIST_EFORKED;
    heist__spin_lock(&s->port.lock);
    uint64_t number = s->sent - 1;
    void *newest = *cell(s, number);
    if (value && s->value_ref) s->value_ref(newest);
    heist__spin_unlock(&s->port.lock);
    if (value) *value = newest;
    if (before) *before = number;
    return 0;
}

int heist__source_repr(struct heist__source *s, const char *what, char *buf, size_t size) {
    if (heist__forked()) return HEIST_EFORKED;
    size_t callers = 0;
    heist__spin_lock(&s->port.lock);
    uint64_t sent = s->sent;
    size_t subscribers = s->subscribers, kept = s->kept;
    bool closed = s->port.closed;
    struct heist__link *at;
    heist__list_for_each(at, &s->hungry) callers += heist__waitq_length(&of_link(at)->callers);
    heist__spin_unlock(&s->port.lock);
    if (s->latest)
        return snprintf(buf, size, "<%s %p%s version=%llu watchers=%zu waiters=%zu>", what, (void *)s,
                        closed ? " closed" : "", (unsigned long long)sent - 1, subscribers, callers);
    return snprintf(buf, size, "<%s %p%s sent=%llu kept=%zu capacity=%zu receivers=%zu waiters=%zu>", what, (void *)s,
                    closed ? " closed" : "", (unsigned long long)sent, kept, s->capacity, subscribers, callers);
}

/* ---- receive ---- */

static int pass(struct heist__port *port, bool in, struct heist__waitq *queue, void **value,
                struct heist__park **wake) {
    struct heist__source *s = heist_container_of(port, struct heist__source, port);
    struct heist__subscriber *r = heist_container_of(queue, struct heist__subscriber, callers);
    (void)in, (void)wake;
    if (r->next == s->sent) {
        if (port->closed) return HEIST_ESHUTDOWN;
        if (!heist__list_linked(&r->hungry)) heist__list_push_back(&s->hungry, &r->hungry);
        return -EAGAIN;
    }
    uint64_t oldest = s->sent - s->kept;
    if (r->next < oldest) {
        r->lost += oldest - r->next;
        r->next = oldest;
        if (!s->latest) return HEIST_ELAGGED;
    }
    *value = *cell(s, r->next++);
    if (s->value_ref) s->value_ref(*value);
    return 0;
}

static int received(struct heist__subscriber *r, int err, void *value, void **out) {
    if (err) return err;
    if (out) *out = value;
    else if (r->source->value_unref) r->source->value_unref(value);
    return 0;
}

int heist__subscriber_next(struct heist__subscriber *r, void **out, int64_t deadline_ns) {
    void *value = NULL;
    int err = heist__port_pass(&r->source->port, &source_class, false, &r->callers, &value, deadline_ns);
    return received(r, err, value, out);
}

int heist__subscriber_try(struct heist__subscriber *r, void **out) {
    void *value = NULL;
    int err = heist__port_try(&r->source->port, &source_class, false, &r->callers, &value);
    return received(r, err, value, out);
}

uint64_t heist__subscriber_lost(struct heist__subscriber *r) {
    if (heist__forked()) return 0;
    heist__spin_lock(&r->source->port.lock);
    uint64_t n = r->lost;
    heist__spin_unlock(&r->source->port.lock);
    return n;
}

struct heist__port *heist__subscriber_port(void *r, struct heist__waitq **queue) {
    struct heist__subscriber *subscriber = r;
    *queue = &subscriber->callers;
    return &subscriber->source->port;
}
