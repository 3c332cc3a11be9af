/* Events: a flag and those who wait for it.
 *
 * Both change under the guard.  The flag is also read without it, by those who need not wait:
 * they pass the guard, so that whoever set it has left. */
#include <heist/error.h>
#include <heist/event.h>
#include <heist/inspect.h>
#include <math.h>
#include <stdio.h>

#include "sync/embedded.h"

struct event {
    _Atomic(uint32_t) set; /* guard */
    struct heist__spin guard;
    struct heist__waitq queue; /* guard; empty while the flag is set */
};

_Static_assert(sizeof(struct event) <= sizeof(heist_event), "the words of heist_event are too few");

static struct event *inside(heist_event *event) { return (struct event *)event; }

void heist_event_init(heist_event *event) {
    if (!event) return;
    heist_event fresh = HEIST_EVENT_INIT;
    *event = fresh;
}

int heist_event_destroy(heist_event *event) {
    if (!event) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    struct event *e = inside(event);
    return heist__embedded_destroy(&e->guard, &e->queue);
}

/* acq: pairs with set */
static bool is_set(struct event *e) { return a_load_acq(&e->set); }

static bool publish(struct heist__wait *wait, heist_loop *loop) {
    (void)loop;
    struct heist__embedded_wait *w = heist_container_of(wait, struct heist__embedded_wait, wait);
    struct event *e = heist_container_of(w->queue, struct event, queue);
    heist__spin_lock(&e->guard);
    bool waits = !is_set(e);
    if (waits) heist__embedded_link(w);
    heist__spin_unlock(&e->guard);
    return waits;
}

static int wait(struct event *e, int64_t deadline_ns) {
    struct heist__self *self = heist__self();
    int err = heist__embedded_enter(&self);
    if (err) return err;
    if (!is_set(e)) {
        heist__embedded_waits(self);
        struct heist__embedded_wait w;
        heist__embedded_init(&w, &e->guard, &e->queue, deadline_ns, publish);
        err = heist__wait(&w.wait);
        if (err) return err;
    }
    heist__guard_pass(&e->guard);
    return 0;
}

int heist_event_wait(heist_event *event) {
    if (!event) return -EINVAL;
    return wait(inside(event), INT64_MAX);
}

int heist_event_wait_until(heist_event *event, double deadline) {
    if (!event || isnan(deadline)) return -EINVAL;
    return wait(inside(event), heist__ns_from_seconds(deadline));
}

int heist_event_set(heist_event *event) {
    if (!event) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    struct event *e = inside(event);
    heist__spin_lock(&e->guard);
    /* ar: pairs with is_set, for each that has set it: an exchange goes on with what the others released */
    (void)a_xchg_ar(&e->set, 1);
    struct heist__waitnode *woken = heist__waitq_claim_all(&e->queue, 0);
    heist__spin_unlock(&e->guard);
    heist__waitq_wake_all(woken);
    return 0;
}

int heist_event_clear(heist_event *event) {
    if (!event) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    struct event *e = inside(event);
    heist__spin_lock(&e->guard);
    a_store_rlx(&e->set, 0); /* rlx: nothing follows from its being clear */
    heist__spin_unlock(&e->guard);
    return 0;
}

int heist_event_is_set(heist_event *event) {
    if (!event) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    if (!is_set(inside(event))) return 0;
    heist__guard_pass(&inside(event)->guard);
    return 1;
}

int heist_event_repr(heist_event *event, char *buf, size_t size) {
    if (!event || (!buf && size)) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    struct event *e = inside(event);
    heist__spin_lock(&e->guard);
    size_t waiters = heist__waitq_length(&e->queue);
    bool set = is_set(e);
    heist__spin_unlock(&e->guard);
    return snprintf(buf, size, "<Event %p %s waiters=%zu>", (void *)event, set ? "set" : "unset", waiters);
}
