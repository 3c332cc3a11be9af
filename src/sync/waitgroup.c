/* Wait groups: a count, and those who wait for its zero.  Both under the guard. */
#include <heist/error.h>
#include <heist/waitgroup.h>
#include <math.h>

#include "sync/embedded.h"

struct waitgroup {
    int64_t count; /* guard */
    struct heist__spin guard;
    struct heist__waitq queue; /* guard; empty while the count is zero */
};

_Static_assert(sizeof(struct waitgroup) <= sizeof(heist_waitgroup), "the words of heist_waitgroup are too few");

static struct waitgroup *inside(heist_waitgroup *group) { return (struct waitgroup *)group; }

void heist_waitgroup_init(heist_waitgroup *group) {
    if (!group) return;
    heist_waitgroup fresh = HEIST_WAITGROUP_INIT;
    *group = fresh;
}

int heist_waitgroup_destroy(heist_waitgroup *group) {
    if (!group) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    struct waitgroup *g = inside(group);
    heist__spin_lock(&g->guard);
    int err = g->count || g->queue.head ? -EBUSY : 0;
    heist__spin_unlock(&g->guard);
    return err;
}

int heist_waitgroup_add(heist_waitgroup *group, int64_t n) {
    if (!group) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    struct waitgroup *g = inside(group);
    struct heist__waitnode *woken = NULL;
    int64_t count;
    int err = 0;
    heist__spin_lock(&g->guard);
    if (__builtin_add_overflow(g->count, n, &count)) {
        err = -EOVERFLOW;
    } else if (count < 0) {
        err = -EINVAL;
    } else {
        g->count = count;
        if (!count) woken = heist__waitq_claim_all(&g->queue, 0);
    }
    heist__spin_unlock(&g->guard);
    heist__waitq_wake_all(woken);
    return err;
}

int heist_waitgroup_done(heist_waitgroup *group) { return heist_waitgroup_add(group, -1); }

static bool publish(struct heist__wait *wait, heist_loop *loop) {
    (void)loop;
    struct heist__embedded_wait *w = heist_container_of(wait, struct heist__embedded_wait, wait);
    struct waitgroup *g = heist_container_of(w->queue, struct waitgroup, queue);
    heist__spin_lock(&g->guard);
    bool waits = g->count != 0;
    if (waits) heist__embedded_link(w);
    heist__spin_unlock(&g->guard);
    return waits;
}

static int wait(struct waitgroup *g, int64_t deadline_ns) {
    struct heist__self *self = heist__self();
    int err = heist__embedded_enter(&self);
    if (err) return err;
    heist__spin_lock(&g->guard);
    bool waits = g->count != 0;
    heist__spin_unlock(&g->guard);
    if (!waits) return 0;
    heist__embedded_waits(self);
    struct heist__embedded_wait w;
    heist__embedded_init(&w, &g->guard, &g->queue, deadline_ns, publish);
    err = heist__wait(&w.wait);
    if (!err) heist__guard_pass(&g->guard);
    return err;
}

int heist_waitgroup_wait(heist_waitgroup *group) {
    if (!group) return -EINVAL;
    return wait(inside(group), INT64_MAX);
}

int heist_waitgroup_wait_until(heist_waitgroup *group, double deadline) {
    if (!group || isnan(deadline)) return -EINVAL;
    return wait(inside(group), heist__ns_from_seconds(deadline));
}

int64_t heist_waitgroup_count(heist_waitgroup *group) {
    if (!group) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    struct waitgroup *g = inside(group);
    heist__spin_lock(&g->guard);
    int64_t count = g->count;
    heist__spin_unlock(&g->guard);
    return count;
}
