/* Semaphores: permits, and those who wait for one.
 *
 * Under the guard; while somebody waits no permit is free: a release hands its permit to the first
 * waiter in the claim, and a permit comes back with nobody. */
#include <heist/error.h>
#include <heist/inspect.h>
#include <heist/semaphore.h>
#include <math.h>
#include <stdio.h>

#include "sync/embedded.h"

struct semaphore {
    int64_t value;  /* guard; free permits */
    uint64_t bound; /* birth; 0: none, else one more than the permits there are */
    struct heist__spin guard;
    struct heist__waitq queue; /* guard */
};

_Static_assert(sizeof(struct semaphore) <= sizeof(heist_semaphore), "the words of heist_semaphore are too few");

static struct semaphore *inside(heist_semaphore *semaphore) { return (struct semaphore *)semaphore; }

int heist_semaphore_init(heist_semaphore *semaphore, int64_t value) {
    if (!semaphore || value < 0) return -EINVAL;
    heist_semaphore fresh = HEIST_SEMAPHORE_INIT(value);
    *semaphore = fresh;
    return 0;
}

int heist_semaphore_init_bounded(heist_semaphore *semaphore, int64_t value) {
    if (!semaphore || value < 0) return -EINVAL;
    heist_semaphore fresh = HEIST_BOUNDED_SEMAPHORE_INIT(value);
    *semaphore = fresh;
    return 0;
}

int heist_semaphore_destroy(heist_semaphore *semaphore) {
    if (!semaphore) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    struct semaphore *s = inside(semaphore);
    return heist__embedded_destroy(&s->guard, &s->queue);
}

static bool take(struct semaphore *s) {
    heist__spin_lock(&s->guard);
    bool taken = s->value > 0;
    s->value -= taken;
    heist__spin_unlock(&s->guard);
    return taken;
}

static bool publish(struct heist__wait *wait, heist_loop *loop) {
    (void)loop;
    struct heist__embedded_wait *w = heist_container_of(wait, struct heist__embedded_wait, wait);
    struct semaphore *s = heist_container_of(w->queue, struct semaphore, queue);
    heist__spin_lock(&s->guard);
    bool taken = s->value > 0;
    s->value -= taken;
    if (!taken) heist__embedded_link(w);
    heist__spin_unlock(&s->guard);
    return !taken;
}

static int acquire(struct semaphore *s, int64_t deadline_ns) {
    struct heist__self *self = heist__self();
    int err = heist__embedded_enter(&self);
    if (err) return err;
    if (take(s)) return 0;
    heist__embedded_waits(self);
    struct heist__embedded_wait w;
    heist__embedded_init(&w, &s->guard, &s->queue, deadline_ns, publish);
    err = heist__wait(&w.wait);
    if (!err) heist__guard_pass(&s->guard);
    return err;
}

int heist_semaphore_acquire(heist_semaphore *semaphore) {
    if (!semaphore) return -EINVAL;
    return acquire(inside(semaphore), INT64_MAX);
}

int heist_semaphore_acquire_until(heist_semaphore *semaphore, double deadline) {
    if (!semaphore || isnan(deadline)) return -EINVAL;
    return acquire(inside(semaphore), heist__ns_from_seconds(deadline));
}

int heist_semaphore_try_acquire(heist_semaphore *semaphore) {
    if (!semaphore) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    return take(inside(semaphore)) ? 0 : -EAGAIN;
}

int heist_semaphore_release(heist_semaphore *semaphore) {
    if (!semaphore) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    struct semaphore *s = inside(semaphore);
    struct heist__park *wake = NULL;
    int err = 0;
    heist__spin_lock(&s->guard);
    if (s->value == INT64_MAX || (s->bound && (uint64_t)s->value + 1 >= s->bound))
        err = -EOVERFLOW; /* with all permits free nobody waits, except in a bounded one of none */
    else if (!heist__waitq_claim(&s->queue, 0, NULL, NULL, &wake)) s->value++;
    heist__spin_unlock(&s->guard);
    if (wake) heist__park_wake(wake);
    return err;
}

int heist_semaphore_locked(heist_semaphore *semaphore) {
    int64_t value = heist_semaphore_value(semaphore);
    return value < 0 ? (int)value : value == 0;
}

int64_t heist_semaphore_value(heist_semaphore *semaphore) {
    if (!semaphore) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    struct semaphore *s = inside(semaphore);
    heist__spin_lock(&s->guard);
    int64_t value = s->value;
    heist__spin_unlock(&s->guard);
    return value;
}

int heist_semaphore_repr(heist_semaphore *semaphore, char *buf, size_t size) {
    if (!semaphore || (!buf && size)) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    struct semaphore *s = inside(semaphore);
    heist__spin_lock(&s->guard);
    size_t waiters = heist__waitq_length(&s->queue);
    int64_t value = s->value;
    heist__spin_unlock(&s->guard);
    return snprintf(buf, size, "<Semaphore %p %s value=%lld waiters=%zu>", (void *)semaphore,
                    value ? "unlocked" : "locked", (long long)value, waiters);
}
