/* gather: waits for many futures, and stops early when one fails.
 *
 * Each child carries a hook that counts it; the last one, or the first failure that
 * matters, completes one inner future on which the caller waits.  That is a plain
 * await, so a cancel request ends it, and is passed on to all children.  The record
 * with the hooks is counted, one reference for each hook that has not run. */
#include <heist/error.h>
#include <heist/task.h>

#include "base/alloc.h"
#include "base/fork.h"
#include "sched/suspend.h"
#include "task/task.h"

struct gathering;

struct part {
    struct heist__waiter waiter;
    struct gathering *whole;
};

struct gathering {
    _Atomic(size_t) refs;
    _Atomic(size_t) remaining;
    _Atomic(int) failure; /* code of the first failure */
    unsigned flags;
    heist_future *turn; /* completed when the caller has something to do */
    struct part parts[];
};

static void gathering_unref(struct gathering *g) {
    if (a_sub_ar(&g->refs, 1) != 1) return; /* ar: as every last reference */
    heist_unref(g->turn);
    heist__free(g);
}

static void child_ended(struct heist__waiter *w, heist_future *f) {
    struct gathering *g = heist_container_of(w, struct part, waiter)->whole;
    bool tell = false;
    int code = heist__future_is_done(f) && f->outcome != HEIST__OUT_VALUE ? f->code : 0;
    if (code) {
        int none = 0;
        tell = a_cas_ar(&g->failure, &none, code) && !(g->flags & HEIST_GATHER_ALL); /* ar: pairs with the caller */
    }
    /* Last, so that whoever sees none remaining sees every failure.  ar: hands them on */
    tell |= a_sub_ar(&g->remaining, 1) == 1;
    if (tell) heist_future_set_result(g->turn, NULL, NULL); /* a second one is refused */
    gathering_unref(g);
}

static int check(heist_future *const *futures, size_t n, unsigned flags) {
    if ((!futures && n) || (flags & ~(HEIST_GATHER_ALL | HEIST_GATHER_EARLY)) ||
        (flags == (HEIST_GATHER_ALL | HEIST_GATHER_EARLY)))
        return -EINVAL;
    for (size_t i = 0; i < n; i++) {
        if (!futures[i]) return -EINVAL;
        if (futures[i] == heist__self()->task) return HEIST_ESELFAWAIT;
    }
    if (heist__forked()) return HEIST_EFORKED;
    /* A request that is pending already goes on to the children, as one that comes later. */
    struct heist__self *self = heist__self();
    return self->worker && !self->task ? HEIST_ENOTINCORO : 0;
}

static void cancel_all(heist_future *const *futures, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!heist__future_is_done(futures[i])) heist_cancel(futures[i]);
}

/* Until each has ended; a cancel request goes on to the one that is awaited at that moment. */
static void wait_all(heist_future *const *futures, size_t n) {
    for (size_t i = 0; i < n; i++)
        while (!heist__future_is_done(futures[i])) heist_await(futures[i], NULL);
}

int heist_gather(heist_future *const *futures, size_t n, void **results, unsigned flags) {
    int err = check(futures, n, flags);
    if (err || !n) return err;
    struct gathering *g = heist__alloc(sizeof(*g) + n * sizeof(g->parts[0]));
    if (!g) return -ENOMEM;
    err = heist_future_new(NULL, &g->turn);
    if (err) {
        heist__free(g);
        return err;
    }
    a_store_rlx(&g->refs, n + 1); /* rlx, as the next two: published by add_waiter */
    a_store_rlx(&g->remaining, n);
    a_store_rlx(&g->failure, 0);
    g->flags = flags;
    for (size_t i = 0; i < n; i++) {
        g->parts[i].whole = g;
        g->parts[i].waiter.kind = HEIST__WAIT_HOOK;
        g->parts[i].waiter.hook = child_ended;
        g->parts[i].waiter.awaiter = g->turn;
        if (!heist__future_add_waiter(futures[i], &g->parts[i].waiter)) child_ended(&g->parts[i].waiter, futures[i]);
    }
    err = heist_await(g->turn, NULL);
    bool cancelled = err == -ECANCELED;
    if (err && !cancelled) flags = HEIST_GATHER_EARLY; /* this thread cannot wait: only the hooks are taken back */
    int failure = a_load_acq(&g->failure); /* acq: pairs with child_ended */
    if (cancelled || (failure && !flags)) cancel_all(futures, n);
    if (cancelled || !(flags & HEIST_GATHER_EARLY)) wait_all(futures, n);
    for (size_t i = 0; i < n; i++) /* those that go on (early form) shall not call a hook for nobody */
        if (!heist__future_is_done(futures[i]) && heist__future_remove_waiter(futures[i], &g->parts[i].waiter))
            gathering_unref(g);
    gathering_unref(g);
    for (size_t i = 0; i < n; i++) {
        void *value = NULL;
        if (heist__future_is_done(futures[i])) heist_future_result(futures[i], &value); /* also: it was looked at */
        if (results) results[i] = value;
    }
    if (err) return err;
    return flags & HEIST_GATHER_ALL ? 0 : failure;
}
