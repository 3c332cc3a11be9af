/* The runner: a runtime (or a lone loop), a context, and mains one after the other.
 *
 * States, under the lock: idle, busy (a run or a close), closed.  Whoever made it busy makes it idle or closed; the
 * others are refused, so nothing here waits. */
#include <heist/runner.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fork.h"
#include "base/options.h"
#include "conc/parker.h"
#include "sched/sched.h"
#include "sched/sigint.h"
#include "task/context.h"

enum { IDLE, BUSY, CLOSED };

struct heist_runner {
    _Atomic(uint64_t) refs;
    heist_runtime *rt; /* one reference; a lone loop's too */
    heist_loop *loop;  /* the lone one, or the first worker's */
    heist_context *context;
    bool sigint;
    struct heist__spin lock;
    int state;
};

int heist_runner_new(const heist_runner_options *opts, heist_runner **out) {
    if (!out || !heist__options_ok(opts, sizeof(*opts)) || (opts && opts->flags)) return -EINVAL;
    heist_runtime_options o;
    int err = heist__runtime_read_options(opts ? opts->runtime : NULL, &o);
    if (err) return err;
    bool sigint = o.flags & HEIST_RUNTIME_SIGINT;
    o.flags &= ~HEIST_RUNTIME_SIGINT;
    if (heist__fork_guard()) return -ENOMEM;
    if (heist__forked()) return HEIST_EFORKED;
    heist_runner *r = heist__zalloc(sizeof(*r));
    if (!r) return -ENOMEM;
    err = heist_context_copy(NULL, &r->context);
    if (err) {
        heist__free(r);
        return err;
    }
    if (!(o.flags & HEIST_RUNTIME_NO_OVERFLOW_HANDLER) && !(opts && opts->loop_factory))
        o.flags |= HEIST_RUNTIME_OVERFLOW_HANDLER; /* as heist_run */
    if (opts && opts->loop_factory) {
        err = opts->loop_factory(&o, &r->loop);
        if (!err && (!r->loop || !r->loop->rt->alone)) {
            heist_loop_unref(r->loop);
            err = -EINVAL;
        }
        if (!err) r->rt = r->loop->rt;
    } else {
        err = heist__runtime_start(&o, true, &r->rt);
        if (!err) r->loop = r->rt->worker[0]->loop;
    }
    if (err) {
        heist_context_unref(r->context);
        heist__free(r);
        return err;
    }
    a_store_rlx(&r->refs, 1); /* rlx: published by *out */
    r->sigint = sigint;
    heist__spin_init(&r->lock);
    *out = r;
    return 0;
}

heist_runner *heist_runner_ref(heist_runner *r) {
    if (r) a_add_rlx(&r->refs, 1); /* rlx: the caller holds one */
    return r;
}

void heist_runner_unref(heist_runner *r) {
    if (!r || heist__forked()) return;      /* a child's copy is the parent's */
    if (a_sub_ar(&r->refs, 1) != 1) return; /* ar: as every last reference */
    heist_runtime_unref(r->rt);
    heist_context_unref(r->context);
    heist__free(r);
}

/* 0, and it is the caller's; HEIST_ERUNNING or HEIST_ECLOSED. */
static int take(heist_runner *r) {
    heist__spin_lock(&r->lock);
    int state = r->state;
    if (state == IDLE) r->state = BUSY;
    heist__spin_unlock(&r->lock);
    return state == IDLE ? 0 : state == BUSY ? HEIST_ERUNNING : HEIST_ECLOSED;
}

static void leave(heist_runner *r, int state) {
    heist__spin_lock(&r->lock);
    r->state = state;
    heist__spin_unlock(&r->lock);
}

static bool closed(heist_runner *r) {
    heist__spin_lock(&r->lock);
    int state = r->state;
    heist__spin_unlock(&r->lock);
    return state == CLOSED;
}

/* Makes main, *t, and waits for its end.  0, or why there is none. */
static int run_main(const char *file, int line, heist_runner *r, heist_coro_fn main_fn, void *arg,
                    const heist_task_options *opts, struct heist__sigint *sigint, heist_task **t) {
    if (r->rt->alone) return heist__loop_run_main(file, line, r->loop, main_fn, arg, opts, sigint, t);
    if (!heist__parker_get()) return -ENOMEM; /* so that the wait cannot fail */
    int err = heist__spawn(r->rt, r->loop, file, line, main_fn, arg, opts, t);
    if (err) return err;
    heist__sigint_target(sigint, *t);
    heist_await(*t, NULL);
    return a_load_sc(&r->rt->fatal);
}

int heist_runner_run_at(const char *file, int line, heist_runner *r, heist_coro_fn main_fn, void *arg,
                        const heist_task_options *opts, void **out) {
    heist_task_options o;
    if (!r || !main_fn || heist__task_read_options(opts, &o)) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    struct heist__self *self = heist__self();
    if (self->worker || self->away) return HEIST_EOTHERRUNNING;
    int err = take(r);
    if (err) return err;
    heist_runner_ref(r); /* main may drop the caller's */
    if (!o.context) o.context = r->context;
    struct heist__sigint *sigint = NULL;
    heist_task *t = NULL;
    if (r->sigint) err = heist__sigint_make(&sigint);
    if (!err) {
        heist__sigint_install(sigint, r->loop);
        err = run_main(file, line, r, main_fn, arg, &o, sigint, &t);
    }
    bool interrupted = heist__sigint_end(sigint);
    if (!err) err = heist_future_result(t, NULL);
    if (!err && out) err = heist_future_take(t, out);
    if (err == -ECANCELED && interrupted && heist_cancelling(t) == 1) err = -EINTR;
    heist_unref(t);
    leave(r, IDLE);
    heist_runner_unref(r);
    return err;
}

int heist_runner_get_loop(heist_runner *r, heist_loop **out) {
    if (!r || !out) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    if (closed(r)) return HEIST_ECLOSED;
    *out = r->loop;
    return 0;
}

int heist_runner_context(heist_runner *r, heist_context **out) {
    if (!r || !out) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    if (closed(r)) return HEIST_ECLOSED;
    *out = heist_context_ref(r->context);
    return 0;
}

int heist_runner_close(heist_runner *r) {
    if (!r) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    int err = take(r);
    if (err) return err == HEIST_ECLOSED ? 0 : err;
    heist_runner_ref(r); /* a task that cleans up may drop the caller's */
    err = r->rt->alone ? heist__loop_close(r->loop, HEIST__EXECUTOR_SECONDS)
                       : heist__runtime_close(r->rt, HEIST_FOREVER, HEIST__EXECUTOR_SECONDS);
    leave(r, err ? IDLE : CLOSED);
    heist_runner_unref(r);
    return err;
}
