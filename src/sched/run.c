/* Loops that stand alone: made by heist_loop_new, run by the thread that calls, driven
 * from outside, stopped and closed; and which loop a thread has.
 *
 * Such a loop is the one of a runtime of one worker, every task pinned.  A user's
 * reference to any loop is one to its runtime.
 *
 * Between two calls of run_once the loop announces sleep, so that a submission from
 * another thread makes its descriptor readable. */
#include <heist/loop.h>
#include <heist/runtime.h>
#include <math.h>
#include <time.h>

#include "base/alloc.h"
#include "base/fork.h"
#include "base/sys.h"
#include "sched/sched.h"
#include "sched/sigint.h"
#include "task/state.h"

heist_loop *heist_loop_ref(heist_loop *loop) {
    if (loop) heist_runtime_ref(loop->rt);
    return loop;
}

void heist_loop_unref(heist_loop *loop) {
    if (!loop) return;
    heist_runtime *rt = loop->rt;
    if (!rt->alone) {
        heist_runtime_unref(rt);
        return;
    }
    if (heist__forked()) return; /* it is the parent's */
    if (a_sub_ar(&rt->users, 1) != 1) return; /* ar: as every last reference */
    if (!a_load_acq(&loop->closed) && !a_load_acq(&loop->running)) { /* acq: pairs with shut and enter */
        heist_report report = HEIST_REPORT_INIT;
        report.message = "a loop was dropped without being closed";
        heist__loop_report(loop, &report);
        if (heist_loop_close(loop)) return; /* a live body still stands on its stack: leak rather than free it */
    }
    heist__runtime_release(rt);
}

int heist_loop_new(const heist_runtime_options *opts, heist_loop **out) {
    heist_runtime *rt;
    if (!out) return -EINVAL;
    int err = heist__runtime_create(opts, true, false, &rt);
    if (err) return err;
    *out = rt->worker[0]->loop;
    return 0;
}

/* ---- which loop ---- */

int heist_get_running_loop(heist_loop **out) {
    if (!out) return -EINVAL;
    heist_loop *loop = heist__self()->loop;
    if (!loop) return HEIST_ENOLOOP;
    *out = loop->home;
    return 0;
}

int heist_get_event_loop(heist_loop **out) {
    if (!out) return -EINVAL;
    struct heist__self *self = heist__self();
    heist_loop *loop = self->loop ? self->loop->home : self->event_loop;
    if (!loop) return HEIST_ENOLOOP;
    *out = loop;
    return 0;
}

int heist_set_event_loop(heist_loop *loop) {
    struct heist__self *self = heist__self();
    int err = loop ? heist__self_register(self) : 0; /* so that the reference goes with the thread */
    if (err) return err;
    heist_loop *old = self->event_loop;
    self->event_loop = heist_loop_ref(loop);
    heist_loop_unref(old);
    return 0;
}

/* ---- running ---- */

static int enter(heist_loop *loop) {
    if (!loop) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    if (a_load_acq(&loop->closed)) return HEIST_ECLOSED; /* acq: pairs with shut */
    if (!loop->rt->alone) return HEIST_ENOTINCORO;
    struct heist__self *self = heist__self();
    if (self->loop == loop) return HEIST_ERUNNING;
    if (self->worker || self->away) return HEIST_EOTHERRUNNING;
    int found = HEIST__NOBODY;
    if (!a_cas_sc(&loop->running, &found, HEIST__RUNS)) return HEIST_ERUNNING;
    if (a_load_sc(&loop->closed)) { /* closed between the look and the flag */
        a_store_sc(&loop->running, HEIST__NOBODY);
        return HEIST_ECLOSED;
    }
    int err = heist__self_register(self);
    if (err) {
        a_store_sc(&loop->running, HEIST__NOBODY);
        return err;
    }
    heist_loop_ref(loop); /* until leave: a callback may drop the last one */
    heist__loop_unannounce(loop); /* after run_once */
    loop->worker->thread = pthread_self();
    heist__worker_enter(loop->worker);
    return 0;
}

static void leave(heist_loop *loop) {
    heist__worker_leave(loop->worker);
    heist_loop_unref(loop);
}

/* Runs turns until stopped, fatal, or *fired. */
static int run_until(heist_loop *loop, _Atomic(int) *fired) {
    struct heist__worker *w = loop->worker;
    int err = 0;
    w->until = fired;
    for (;;) {
        /* Looked at before the turn: callbacks that were posted before it was set run in this last one. */
        bool last = fired && a_load_sc(fired);
        bool ran = heist__worker_turn(w, 0);
        if (loop->fatal) {
            err = loop->fatal;
            loop->fatal = 0;
            break;
        }
        if (a_load_sc(&loop->stop)) {
            a_store_sc(&loop->stop, 0);
            break;
        }
        if (last) break;
        if (!ran) heist__sleep(w);
    }
    w->until = NULL;
    return err;
}

int heist_loop_run_forever(heist_loop *loop) {
    int err = enter(loop);
    if (err) return err;
    err = run_until(loop, NULL);
    leave(loop);
    return err;
}

/* What run_until_complete hangs on its future: called by the completing thread, which may be any, and at a
 * time when the loop was stopped before. */
struct until {
    struct heist__waiter waiter;
    _Atomic(int) refs, fired;
    heist_loop *loop;
};

static void until_unref(struct until *u) {
    if (a_sub_ar(&u->refs, 1) != 1) return; /* ar: as every last reference */
    heist_loop_unref(u->loop);
    heist__free(u);
}

static void until_done(struct heist__waiter *waiter, heist_future *f) {
    (void)f;
    struct until *u = heist_container_of(waiter, struct until, waiter);
    a_store_sc(&u->fired, 1); /* then the look at the sleeper; it sleeps, then looks here */
    heist__loop_wake(u->loop);
    until_unref(u);
}

/* Runs the loop, which the caller has entered, until f is done, and leaves it.  0, or why it is not done. */
static int run_until_done(heist_loop *loop, heist_future *f, struct until *u) {
    u->waiter.kind = HEIST__WAIT_HOOK;
    u->waiter.hook = until_done;
    u->waiter.awaiter = NULL;
    a_store_rlx(&u->refs, 2); /* rlx: published by add_waiter */
    a_store_rlx(&u->fired, 0);
    u->loop = heist_loop_ref(loop);
    if (!heist__future_add_waiter(f, &u->waiter)) until_done(&u->waiter, f);
    int err = run_until(loop, &u->fired);
    if (heist__future_remove_waiter(f, &u->waiter)) until_unref(u); /* stopped first */
    if (!err && !heist__future_is_done(f)) err = HEIST_ESTOPPED;
    until_unref(u);
    leave(loop);
    return err;
}

int heist_loop_run_until_complete(heist_loop *loop, heist_future *f, void **out) {
    if (!loop || !f) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    struct until *u = heist__alloc(sizeof(*u));
    if (!u) return -ENOMEM;
    int err = enter(loop);
    if (err) {
        heist__free(u);
        return err;
    }
    err = run_until_done(loop, f, u);
    return err ? err : heist_future_result(f, out);
}

/* All that can be refused is refused before the task is made: then its argument is still the caller's. */
int heist__loop_run_main(const char *file, int line, heist_loop *loop, heist_coro_fn fn, void *arg,
                         const heist_task_options *opts, struct heist__sigint *sigint, heist_task **out) {
    struct until *u = heist__alloc(sizeof(*u));
    int err = u ? enter(loop) : -ENOMEM;
    if (err) {
        heist__free(u);
        return err;
    }
    heist_task *t;
    struct heist__self *self = heist__self();
    struct heist__scope *scope = self->scope;
    if (!scope) self->scope = &self->own; /* it begins with the variables of this thread */
    err = heist__spawn(loop->rt, loop, file, line, fn, arg, opts, &t);
    self->scope = scope;
    if (err) {
        leave(loop);
        heist__free(u);
        return err;
    }
    heist__sigint_target(sigint, t);
    *out = t;
    return run_until_done(loop, t, u);
}

int heist_loop_run_coroutine(heist_loop *loop, heist_coro_fn fn, void *arg, const heist_task_options *opts,
                             void **out) {
    if (!loop || !fn) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    heist_task *t = NULL;
    int err = heist__loop_run_main(__FILE__, __LINE__, loop, fn, arg, opts, NULL, &t);
    if (!err) err = heist_future_result(t, NULL);
    if (!err && out) err = heist_future_take(t, out);
    heist_unref(t);
    return err;
}

int heist_loop_stop(heist_loop *loop) {
    if (!loop) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    if (a_load_acq(&loop->closed)) return HEIST_ECLOSED; /* acq: pairs with shut */
    if (!loop->rt->alone) return -ENOTSUP;
    a_store_sc(&loop->stop, 1);
    heist__loop_wake(loop);
    return 0;
}

/* ---- driven from outside ---- */

int heist_loop_fd(heist_loop *loop) {
    if (!loop) return -EINVAL;
    if (a_load_acq(&loop->closed)) return HEIST_ECLOSED; /* acq: pairs with shut */
    return loop->rt->alone ? loop->poller.fd : -ENOTSUP;
}

int heist_loop_run_once(heist_loop *loop, double *timeout) {
    int err = enter(loop);
    if (err) return err;
    struct heist__worker *w = loop->worker;
    w->polling = true;
    heist__loop_poll(loop, 0); /* always: takes the wake-up's edge too */
    w->polling = false;
    heist__worker_turn(w, 0);
    err = loop->fatal;
    loop->fatal = 0;
    bool stop = a_load_sc(&loop->stop);
    if (stop) a_store_sc(&loop->stop, 0);
    double left = 0;
    if (!loop->ready.count) {
        int64_t deadline = heist__loop_next_deadline(loop);
        int64_t now = heist__clock_now(loop->clock);
        if (loop->rt->clock.virtual_time && deadline != INT64_MAX && deadline > now &&
            !a_load_sc(&loop->rt->jobs_outside) && heist__mpsc_empty(&loop->inbox)) {
            /* Nothing else is due: time moves.  A job posts its end first, then counts itself out. */
            heist__clock_advance_to(loop->clock, deadline);
            deadline = now = 0;
        }
        left = deadline == INT64_MAX ? HEIST_FOREVER : deadline > now ? heist__seconds_from_ns(deadline - now) : 0;
    }
    heist__loop_announce(loop);
    if (!heist__mpsc_empty(&loop->inbox) || a_load_sc(&loop->stop)) left = 0; /* came while we looked elsewhere */
    leave(loop);
    if (timeout) *timeout = stop ? 0 : left;
    return err ? err : stop;
}

/* ---- closing ---- */

/* How long tasks that do not end when asked to are waited for. */
#define CLOSE_GRACE_NS 5000000000

/* Runs the loop until its tasks have ended: 0, or -EBUSY. */
static int end_tasks(heist_loop *loop) {
    heist_runtime *rt = loop->rt;
    struct heist__worker *w = loop->worker;
    struct heist__clock real = {0};
    int64_t give_up = heist__clock_now(&real) + CLOSE_GRACE_NS;
    heist__cancel_all(rt);
    while (heist__live_tasks(rt)) {
        bool ran = heist__worker_turn(w, 0);
        loop->fatal = 0;
        if (heist__clock_now(&real) >= give_up) {
            heist__report_live(rt, "a task was still pending when its loop was closed");
            return -EBUSY;
        }
        if (ran) continue;
        if (rt->clock.virtual_time && heist__loop_next_deadline(loop) != INT64_MAX)
            heist__sleep(w);
        else
            heist__worker_turn(w, 10000000);
    }
    return 0;
}

int heist_loop_close(heist_loop *loop) { return heist__loop_close(loop, 0); }

int heist__loop_close(heist_loop *loop, double executor_seconds) {
    if (!loop) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    if (a_load_acq(&loop->closed)) return 0; /* acq: pairs with shut */
    if (!loop->rt->alone) return -ENOTSUP;
    struct heist__self *self = heist__self();
    /* Exactly one closes.  Who comes meanwhile waits for its outcome, and tries again if that was a failure. */
    for (int found = HEIST__NOBODY; !a_cas_sc(&loop->running, &found, HEIST__CLOSES); found = HEIST__NOBODY) {
        if (a_load_sc(&loop->closed)) return 0;
        if (found != HEIST__CLOSES || self->loop == loop) return HEIST_ERUNNING;
        heist__sys_sleep(100000);
    }
    struct heist__worker *outer = self->worker; /* in a callback of another loop, which waits for us */
    heist_task *task = self->task;
    int err = a_load_sc(&loop->closed) ? 0 : heist__self_register(self);
    /* Its tasks cannot run on another task's stack. */
    if (!err && (task || self->away) && heist__live_tasks(loop->rt)) err = HEIST_EOTHERRUNNING;
    if (err || a_load_sc(&loop->closed)) {
        a_store_sc(&loop->running, HEIST__NOBODY);
        return err;
    }
    heist__loop_unannounce(loop); /* after run_once */
    heist__worker_enter(loop->worker);
    loop->worker->acked = true; /* first, so that the cancelled make no new ones */
    heist__closing_begin(loop->rt);
    err = end_tasks(loop);
    if (!err) {
        if (executor_seconds > 0) { /* a wait, as by a plain thread; what its jobs posted to the loop runs then */
            self->worker = NULL;
            self->loop = NULL;
        }
        heist__end_default_executor(loop->rt, executor_seconds);
        heist__end_resolver(loop->rt);
        self->worker = loop->worker;
        self->loop = loop;
        if (executor_seconds > 0) heist__worker_turn(loop->worker, 0);
        heist__loop_shut(loop);
    }
    heist__stack_cache_flush(&loop->worker->stacks);
    heist__worker_leave(loop->worker);
    self->worker = outer;
    self->loop = outer ? outer->loop : NULL;
    self->task = task;
    return err;
}
