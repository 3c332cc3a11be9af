/* gather: waits for many futures, and stops when one fails.
 *
 * The waiter is told of the last end, and of the first failure when that matters.  It alone cancels and decides; a
 * cancel request ends its wait, goes on to all children, and it waits again, until all have ended. */
#include <heist/error.h>
#include <heist/task.h>

#include "base/alloc.h"
#include "base/fork.h"
#include "flow/many.h"

struct gathering {
    struct heist__many many;
    _Atomic(int) failure; /* code of the first */
    unsigned flags;
    struct heist__part parts[];
};

static void ended(struct heist__many *m, struct heist__part *p, heist_future *f) {
    struct gathering *g = heist_container_of(m, struct gathering, many);
    (void)p;
    int code = heist__future_is_done(f) && f->outcome != HEIST__OUT_VALUE ? f->code : 0, none = 0;
    if (!code || !a_cas_ar(&g->failure, &none, code)) return; /* ar: pairs with gather's look */
    if (!(g->flags & HEIST_GATHER_ALL)) heist__many_tell(m);
}

static void gone(struct heist__many *m) { heist__free(heist_container_of(m, struct gathering, many)); }

static const struct heist__many_class gather_class = {ended, heist__many_tell, gone};

/* Without a record: one after the other.  A cancel request goes on to the one that is awaited then. */
static void wait_each(heist_future *const *futures, size_t n) {
    for (size_t i = 0; i < n; i++)
        while (!heist__future_is_done(futures[i])) heist_await(futures[i], NULL);
}

/* 0: all have ended, or the first failure of the early form; -ECANCELED: all have ended; -ENOMEM: a thread that cannot
 * wait.  asked: a request was taken before. */
static int wait_for_them(struct gathering *g, heist_future *const *futures, size_t n, bool asked) {
    bool stopped = false;
    if (asked) heist__futures_cancel(futures, n);
    while (!heist__many_ended(&g->many)) {
        if (a_load_acq(&g->failure) && !(g->flags & HEIST_GATHER_ALL) && !asked) { /* acq: pairs with ended */
            if (g->flags & HEIST_GATHER_EARLY) break;
            if (!stopped) heist__futures_cancel(futures, n);
            stopped = true;
        }
        int err = heist__many_wait(&g->many, INT64_MAX);
        if (err == -ECANCELED) {
            asked = true;
            heist__futures_cancel(futures, n);
        } else if (err) {
            return err;
        }
    }
    return asked ? -ECANCELED : 0;
}

int heist_gather(heist_future *const *futures, size_t n, void **results, unsigned flags) {
    int err = heist__futures_check(futures, n);
    if (err) return err;
    if ((flags & ~(HEIST_GATHER_ALL | HEIST_GATHER_EARLY)) || flags == (HEIST_GATHER_ALL | HEIST_GATHER_EARLY))
        return -EINVAL;
    struct heist__self *self = heist__self();
    err = heist__wait_entry(self);
    if (err && err != -ECANCELED) return err;
    bool asked = err == -ECANCELED;
    int failure = 0;
    if (heist__futures_done(futures, n)) {
        if (!asked) heist__wait_skipped(self);
        for (size_t i = 0; i < n && !failure; i++)
            failure = futures[i]->outcome != HEIST__OUT_VALUE ? futures[i]->code : 0;
    } else {
        struct gathering *g = heist__alloc(sizeof(*g) + n * sizeof(g->parts[0]));
        if (g) {
            heist__many_init(&g->many, &gather_class, g->parts, n);
            a_store_rlx(&g->failure, 0); /* rlx: published by add_waiter */
            g->flags = flags;
            for (size_t i = 0; i < n; i++) g->parts[i].future = futures[i];
            heist__many_start(&g->many);
            err = wait_for_them(g, futures, n, asked);
            heist__many_stop(&g->many);        /* those that go on (early form) shall not call a hook for nobody */
            failure = a_load_acq(&g->failure); /* acq: pairs with ended */
            heist__many_unref(&g->many);
        } else if (asked) { /* the request is taken, so what it promises is kept */
            heist__futures_cancel(futures, n);
            wait_each(futures, n);
        } else {
            err = -ENOMEM;
        }
    }
    if (err == -ENOMEM) return err;
    for (size_t i = 0; i < n; i++) {
        void *value = NULL;
        if (heist__future_is_done(futures[i])) heist_future_result(futures[i], &value); /* also: it was looked at */
        if (results) results[i] = value;
    }
    if (err) return err;
    return flags & HEIST_GATHER_ALL ? 0 : failure;
}
