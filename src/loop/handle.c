/* call_soon, call_later, call_at, and the life of their handles.  See handle.h.
 *
 * A timed handle made on another thread travels through the inbox first and is armed
 * when the loop's owner takes that, which it does before it looks for timers that are
 * due; so promise 2 holds for timers too. */
#include "loop/handle.h"

#include <heist/loop.h>
#include <math.h>

#include "base/alloc.h"
#include "base/fork.h"
#include "base/options.h"
#include "conc/self.h"
#include "loop/loop.h"
#include "mem/slab.h"
#include "task/task.h"

static void handle_free(struct heist__self *self, heist_handle *h) {
    if (heist_unlikely(h->scoped))
        heist__free(h);
    else
        heist__slab_put(self, h->timed ? HEIST__SLAB_TIMED : HEIST__SLAB_HANDLE, h);
}

heist_handle *heist_handle_ref(heist_handle *h) {
    if (h) a_add_rlx(&h->refs, 1); /* rlx: the caller holds one */
    return h;
}

void heist_handle_unref(heist_handle *h) {
    if (!h || heist__forked()) return; /* a child's copy is the parent's */
    /* acq: pairs with the release of other unrefs; alone, no locked operation is needed */
    if (a_load_acq(&h->refs) != 1 && a_sub_ar(&h->refs, 1) != 1) return;
    handle_free(heist__self(), h);
}

/* It ran, or never will. */
static void free_arg(heist_handle *h) {
    if (h->arg_free) heist__destruct(h->arg_free, h->arg);
    if (heist_unlikely(h->scoped)) heist__carried_drop(heist__carried(h));
}

/* The call itself, in the context that it carries. */
static HEIST_NOINLINE int call_scoped(heist_handle *h) {
    struct heist__in_scope in;
    heist__scope_enter(&in, h->scoped ? heist__carried(h) : NULL);
    int code = h->fn(h->arg);
    heist__scope_leave(&in);
    return code;
}
static inline int call(heist_handle *h) {
    return heist_unlikely(heist__contexts_used()) ? call_scoped(h) : h->fn(h->arg);
}

static void handle_run(struct heist__job *job, heist_loop *loop) {
    heist_handle *h = heist_container_of(job, heist_handle, job);
    if (a_load_acq(&h->refs) == 1) { /* acq: pairs with unref; nobody else is left who could cancel */
        if (a_load_rlx(&h->state) != HEIST__HANDLE_SCHEDULED) {
            heist_handle_unref(h);
            return;
        }
    } else {
        uint8_t scheduled = HEIST__HANDLE_SCHEDULED;
        if (!a_cas_ar(&h->state, &scheduled, HEIST__HANDLE_RUN)) { /* ar: one of run and cancel */
            heist_handle_unref(h);
            return;
        }
    }
    int code;
    int debug = a_load_rlx(&loop->debug); /* rlx: settings */
    int64_t slow_ns = debug & HEIST__DEBUG ? a_load_rlx(&loop->slow_ns) : 0;
    if (heist_unlikely(debug)) a_store_rlx(&loop->callback, h->fn); /* rlx: for the monitor */
    if (heist_unlikely(slow_ns)) {
        int64_t start = heist__clock_now(loop->clock);
        code = call(h);
        int64_t took = heist__clock_now(loop->clock) - start;
        if (took >= slow_ns) {
            heist_report report = HEIST_REPORT_INIT;
            report.message = "a callback held its worker too long";
            report.handle = h;
            report.name = h->name;
            report.seconds = heist__seconds_from_ns(took);
            heist__loop_report(loop, &report);
        }
    } else {
        code = call(h);
    }
    if (heist_unlikely(debug)) a_store_rlx(&loop->callback, NULL); /* rlx: as above */
    free_arg(h);
    if (heist_unlikely(code < 0)) heist__loop_callback_ended(loop, code, h, h->name);
    heist_handle_unref(h);
}

/* The loop closes first. */
static void handle_drop(struct heist__job *job) {
    heist_handle *h = heist_container_of(job, heist_handle, job);
    uint8_t scheduled = HEIST__HANDLE_SCHEDULED;
    if (a_cas_ar(&h->state, &scheduled, HEIST__HANDLE_CANCELLED)) free_arg(h); /* ar: as in run */
    heist_handle_unref(h);
}

static const struct heist__job_class run_class = {handle_run, handle_drop};

/* Under the lock, so that a cancel either finds it armed or is seen here. */
static bool wanted(heist_handle *h, heist_loop *loop) {
    h->job.klass = &run_class;
    if (a_load_rlx(&h->state) == HEIST__HANDLE_SCHEDULED) return true; /* rlx: written under the lock */
    heist__jobs_append(&loop->ready, &h->job);
    return false;
}

static void count_armed(heist_loop *loop) {
    a_store_rlx(&loop->armed, heist__timers_count(&loop->timers)); /* rlx: a hint for this thread */
}

void heist__handle_arm(heist_handle *h, heist_loop *loop) {
    if (!wanted(h, loop)) return;
    heist__timers_add(&loop->timers, &heist__timed(h)->timer, heist__timed(h)->when_ns);
    count_armed(loop);
}

void heist__handle_put_back(heist_handle *h, heist_loop *loop) {
    if (!wanted(h, loop)) return;
    heist__timers_put_back(&loop->timers, &heist__timed(h)->timer);
    count_armed(loop);
}

/* Never run: whoever takes an inbox arms what it finds there. */
const struct heist__job_class heist__handle_arriving = {handle_run, handle_drop};
const struct heist__job_class heist__handle_rescued = {handle_run, handle_drop};

/* *out stays NULL when there is nothing to carry. */
static int scoped_handle(struct heist__self *self, heist_loop *loop, const heist_call_options *opts,
                         heist_handle **out) {
    struct heist__carried carried;
    heist_context *given = heist__call_context(opts);
    int err = heist__carry(self, &carried, given, a_load_rlx(&loop->id)); /* rlx: referenced */
    if (err || !heist__carries(&carried)) return err;
    struct heist__scoped_handle *s = heist__alloc(sizeof(*s));
    if (!s) {
        heist__carried_drop(&carried);
        return -ENOMEM;
    }
    s->carried = carried;
    s->timed.handle.scoped = 1;
    *out = &s->timed.handle;
    return 0;
}

static int schedule(heist_loop *loop, heist_callback_fn fn, void *arg, const heist_call_options *opts,
                    heist_handle **out, bool timed, int64_t when_ns) {
    if (heist_unlikely(!loop || !fn || !heist__options_ok_since(opts, HEIST__CALL_OPTIONS_FIRST, sizeof(*opts))))
        return -EINVAL;
    if (heist_unlikely(heist__forked())) return HEIST_EFORKED;
    if (heist_unlikely(a_load_acq(&loop->closed))) return HEIST_ECLOSED; /* acq: an early answer; post decides */
    struct heist__self *self = heist__self();
    /* rlx: a limit that many threads may pass by their number, not a promise */
    if (heist_unlikely(loop->max_inbox) && self->loop != loop && a_load_rlx(&loop->inbox_count) >= loop->max_inbox)
        return -EAGAIN;
    heist_handle *h = NULL;
    bool scoped = heist__contexts_used() || heist__call_context(opts);
    int err = heist_unlikely(scoped) ? scoped_handle(self, loop, opts, &h) : 0;
    if (heist_unlikely(err)) return err;
    if (heist_likely(!h)) {
        h = heist__slab_get(self, timed ? HEIST__SLAB_TIMED : HEIST__SLAB_HANDLE);
        if (!h) return -ENOMEM;
        h->scoped = 0;
    }
    h->job.klass = timed ? &heist__handle_arriving : &run_class;
    a_store_rlx(&h->refs, out ? 2 : 1); /* rlx, as state: published by the queue or by *out */
    a_store_rlx(&h->state, HEIST__HANDLE_SCHEDULED);
    h->timed = timed;
    h->fn = fn;
    h->arg = arg;
    h->arg_free = opts ? opts->arg_free : NULL;
    h->name = opts ? opts->name : NULL;
    h->loop = loop;
    if (timed) {
        heist__timer_init(&heist__timed(h)->timer, HEIST__TIMER_HANDLE);
        heist__timed(h)->when_ns = when_ns;
    }
    if (timed && self->loop == loop) {
        heist__loop_take_inbox(loop); /* earlier submissions come first */
        heist__spin_lock(&loop->timer_lock);
        heist__handle_arm(h, loop);
        heist__spin_unlock(&loop->timer_lock);
    } else {
        err = heist__loop_post(loop, &h->job);
        if (heist_unlikely(err)) {
            if (h->scoped) heist__carried_drop(heist__carried(h));
            handle_free(self, h);
            return err;
        }
    }
    if (out) *out = h;
    return 0;
}

int heist_loop_call_soon(heist_loop *loop, heist_callback_fn fn, void *arg, const heist_call_options *opts,
                         heist_handle **out) {
    return schedule(loop, fn, arg, opts, out, false, 0);
}

int heist_loop_call_soon_threadsafe(heist_loop *loop, heist_callback_fn fn, void *arg, const heist_call_options *opts,
                                    heist_handle **out) {
    return schedule(loop, fn, arg, opts, out, false, 0);
}

int heist_loop_call_later(heist_loop *loop, double delay, heist_callback_fn fn, void *arg,
                          const heist_call_options *opts, heist_handle **out) {
    if (!loop || isnan(delay)) return -EINVAL;
    if (a_load_acq(&loop->closed)) return HEIST_ECLOSED; /* acq: the clock is the runtime's, which may be gone */
    return schedule(loop, fn, arg, opts, out, true, heist__deadline_after(loop->clock, delay));
}

int heist_loop_call_at(heist_loop *loop, double when, heist_callback_fn fn, void *arg, const heist_call_options *opts,
                       heist_handle **out) {
    if (!loop || isnan(when)) return -EINVAL;
    return schedule(loop, fn, arg, opts, out, true, heist__ns_from_seconds(when));
}

int heist_handle_cancel(heist_handle *h) {
    if (!h) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    uint8_t scheduled = HEIST__HANDLE_SCHEDULED;
    if (!h->timed) {
        if (!a_cas_ar(&h->state, &scheduled, HEIST__HANDLE_CANCELLED)) return 0; /* ar: one of run and cancel */
        free_arg(h);
        return 1;
    }
    /* The state changes under the store's lock, so that arm() cannot miss it.  The loop's memory is
     * type-stable; should it have been closed, its close has ended this handle already. */
    heist_loop *loop = h->loop;
    heist__spin_lock(&loop->timer_lock);
    bool won = a_cas_ar(&h->state, &scheduled, HEIST__HANDLE_CANCELLED); /* ar: as above */
    bool removed = won && heist__timers_remove(&loop->timers, &heist__timed(h)->timer);
    if (removed) a_store_rlx(&loop->armed, heist__timers_count(&loop->timers)); /* rlx: a hint */
    heist__spin_unlock(&loop->timer_lock);
    if (!won) return 0;
    free_arg(h);
    if (removed) heist_handle_unref(h); /* the store's */
    return 1;
}

int heist_handle_cancelled(const heist_handle *h) {
    if (!h) return -EINVAL;
    return a_load_acq(&((heist_handle *)(uintptr_t)h)->state) == HEIST__HANDLE_CANCELLED; /* acq: pairs with cancel */
}

double heist_handle_when(const heist_handle *h) {
    if (!h || !h->timed) return 0;
    int64_t when_ns = heist__timed((heist_handle *)(uintptr_t)h)->when_ns;
    return when_ns == HEIST__NEVER ? HEIST_FOREVER : heist__seconds_from_ns(when_ns);
}
