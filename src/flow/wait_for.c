/* wait_for: until it has ended, or the time is over, and then it is cancelled and waited for all the same.
 *
 * One claimable wait after the other; each cancel request that reaches the waiter goes on to f. */
#include <heist/flow.h>
#include <math.h>

#include "flow/many.h"

static int wait_for(heist_future *f, int64_t deadline_ns, void **out) {
    struct heist__self *self = heist__self();
    if (f == self->task) return HEIST_ESELFAWAIT;
    int err = heist__wait_entry(self);
    if (err && err != -ECANCELED) return err;
    bool asked = err == -ECANCELED, late = false;
    if (!asked && heist__future_is_done(f)) {
        heist__wait_skipped(self);
        return heist_future_result(f, out);
    }
    if (asked) heist_cancel(f);
    if (!asked && deadline_ns <= heist__clock_now(heist__clock_here())) {
        late = true;
        heist_cancel(f);
    }
    while (!heist__future_is_done(f)) {
        err = heist__await_until(f, asked || late ? INT64_MAX : deadline_ns);
        if (!err) break;
        if (err == -ECANCELED) asked = true;
        else if (err == -ETIMEDOUT) late = true;
        else return err; /* this thread cannot wait */
        heist_cancel(f);
    }
    if (asked) {
        heist_future_result(f, NULL); /* looked at: it ended on this request */
        return -ECANCELED;
    }
    err = heist_future_result(f, out);
    return late && heist_future_cancelled(f) ? -ETIMEDOUT : err;
}

int heist_wait_for_until(heist_future *f, double deadline, void **out) {
    return !f || isnan(deadline) ? -EINVAL : wait_for(f, heist__ns_from_seconds(deadline), out);
}

int heist_wait_for(heist_future *f, double timeout, void **out) {
    return !f || isnan(timeout) ? -EINVAL : wait_for(f, heist__deadline_in(timeout), out);
}

int heist_wait_for_coroutine_at(const char *file, int line, heist_coro_fn fn, void *arg, const heist_task_options *opts,
                                double timeout, void **out) {
    if (isnan(timeout)) return -EINVAL;
    struct heist__self *self = heist__self();
    if (self->worker && !self->task) return HEIST_ENOTINCORO; /* before a task is made that nobody would wait for */
    heist_task *t;
    int err = heist_create_task_at(file, line, fn, arg, opts, &t);
    if (err) return err;
    err = heist_wait_for(t, timeout, NULL);
    if (!err && out) err = heist_future_take(t, out);
    heist_unref(t);
    return err;
}
