/* wait: for some or all of many, with a limit, harming nobody. */
#include <heist/flow.h>
#include <limits.h>
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "flow/many.h"

struct waiting {
    struct heist__many many;
    int when;
    _Atomic(int) hit;      /* the condition holds before all have ended */
    heist_future **unique; /* each once, then the repeats */
    struct heist__part parts[];
};

/* One that is done: does it end the wait? */
static bool ends_wait(int when, const heist_future *f) {
    return when == HEIST_FIRST_COMPLETED || (when == HEIST_FIRST_EXCEPTION && f->outcome == HEIST__OUT_ERROR);
}

static void ended(struct heist__many *m, struct heist__part *p, heist_future *f) {
    struct waiting *w = heist_container_of(m, struct waiting, many);
    (void)p;
    if (a_load_rlx(&w->hit) || !heist__future_is_done(f) || !ends_wait(w->when, f))
        return;              /* rlx: saves a second tell */
    a_store_rel(&w->hit, 1); /* rel: with it goes that f is done; pairs with the waiter's look */
    heist__many_tell(m);
}

static void gone(struct heist__many *m) { heist__free(heist_container_of(m, struct waiting, many)); }

static const struct heist__many_class wait_class = {ended, heist__many_tell, gone};

static bool satisfied(heist_future *const *futures, size_t n, int when) {
    bool all = true;
    for (size_t i = 0; i < n; i++) {
        bool done = heist__future_is_done(futures[i]);
        if (done && ends_wait(when, futures[i])) return true;
        all &= done;
    }
    return all;
}

static int wait_until(heist_future **futures, size_t n, int when, int64_t deadline_ns, size_t *pending) {
    if (!n || n > INT_MAX) return -EINVAL;
    if (when != HEIST_ALL_COMPLETED && when != HEIST_FIRST_COMPLETED && when != HEIST_FIRST_EXCEPTION) return -EINVAL;
    int err = heist__futures_check(futures, n);
    if (err) return err;
    struct heist__self *self = heist__self();
    err = heist__wait_entry(self);
    if (err) return err;
    struct waiting *w = heist__alloc(sizeof(*w) + n * (sizeof(w->parts[0]) + sizeof(w->unique[0])));
    if (!w) return -ENOMEM;
    w->unique = (heist_future **)(void *)&w->parts[n];
    w->when = when;
    a_store_rlx(&w->hit, 0); /* rlx: published by add_waiter */
    ptrdiff_t count = heist__futures_distinct(futures, n, w->unique);
    if (count < 0) {
        heist__free(w);
        return -ENOMEM;
    }
    bool waits = !satisfied(w->unique, (size_t)count, when);
    if (!waits) {
        heist__wait_skipped(self);
    } else {
        heist__many_init(&w->many, &wait_class, w->parts, (size_t)count);
        for (size_t i = 0; i < (size_t)count; i++) w->parts[i].future = w->unique[i];
        heist__many_start(&w->many);
        while (!err && !heist__many_ended(&w->many) && !a_load_acq(&w->hit)) /* acq: pairs with ended */
            err = heist__many_wait(&w->many, deadline_ns);
        heist__many_stop(&w->many);
        if (err == -ETIMEDOUT) err = 0;
    }
    int done = 0;
    if (!err) {
        size_t left = 0;
        for (size_t i = 0; i < (size_t)count; i++) {
            heist_future *f = w->unique[i];
            if (heist__future_is_done(f)) futures[done++] = f;
            else w->unique[left++] = f; /* left <= i */
        }
        memcpy(futures + done, w->unique, left * sizeof(*futures));
        memcpy(futures + count, w->unique + count, (n - (size_t)count) * sizeof(*futures));
        if (pending) *pending = left;
    }
    if (waits) heist__many_unref(&w->many);
    else heist__free(w);
    return err ? err : done;
}

int heist_wait_until(heist_future **futures, size_t n, int return_when, double deadline, size_t *pending) {
    return isnan(deadline) ? -EINVAL : wait_until(futures, n, return_when, heist__ns_from_seconds(deadline), pending);
}

int heist_wait(heist_future **futures, size_t n, int return_when, double timeout, size_t *pending) {
    return isnan(timeout) ? -EINVAL : wait_until(futures, n, return_when, heist__deadline_in(timeout), pending);
}
