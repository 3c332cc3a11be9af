/* The ordered stop of a runtime.
 *
 *   1 closing := 1.  Threads from outside refuse from then on (spawn.c has the proof for
 *     those that are submitting at this moment).
 *   2 Each worker sees it at its next turn and acknowledges; from then on it refuses new
 *     tasks.  The last acknowledgement walks all tasks and asks each to cancel: what was
 *     made before is found by the walk, and after it nothing is made.
 *     An earlier walk by the closer reaches tasks even while a worker is held up.
 *   3 Tasks clean up and end.  When none lives, stopping := 1 and the workers leave.
 *   4 The closer joins them and shuts the loops: callbacks that did not run are dropped.
 *
 * heist__live_tasks says 0 only when at one moment none lived, and after 2 none is born,
 * so step 3 cannot come too early; every end of a task is followed by a turn of its
 * worker, which looks, so it cannot be missed. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <time.h>

#include "base/alloc.h"
#include "base/fork.h"
#include "base/sys.h"
#include "mem/slab.h"
#include "sched/sched.h"

static bool ask(void *object, void *arg) {
    heist_runtime *rt = arg;
    heist_future *f = object;
    if (!heist__future_try_ref(f)) return true;
    if (heist__is_task(f) && f->rt == rt && !a_xchg_ar(&f->close_asked, 1)) heist_cancel(f); /* ar: one asks */
    heist_unref(f);
    return true;
}

void heist__cancel_all(heist_runtime *rt) {
    a_fence_sc(); /* pairs with born_outside: the walk sees the task, or the second look there sees the close */
    heist__slab_each(HEIST__SLAB_FUTURE, ask, rt);
}

static void wake_all(heist_runtime *rt) {
    for (int i = 0; i < rt->workers; i++) heist__loop_wake(rt->worker[i]->loop);
}

void heist__closing_begin(heist_runtime *rt) {
    if (a_xchg_sc(&rt->closing, 1)) return;
    wake_all(rt);
    heist__cancel_all(rt);
}

bool heist__closing_turn(struct heist__worker *w) {
    heist_runtime *rt = w->rt;
    if (!w->acked) {
        w->acked = true;
        if (a_sub_sc(&rt->acks, 1) == 1) heist__cancel_all(rt);
    }
    if (a_load_sc(&rt->stopping)) return true;
    if (a_load_sc(&rt->acks) || heist__live_tasks(rt)) return false;
    if (!a_xchg_sc(&rt->stopping, 1)) wake_all(rt);
    return true;
}

void heist__worker_left(heist_runtime *rt) {
    heist__mutex_lock(&rt->mutex);
    bool last = --rt->threads == 0;
    if (last) heist__cond_broadcast(&rt->changed);
    heist__mutex_unlock(&rt->mutex);
    if (last) heist__runtime_release(rt);
}

static int report_one(heist_runtime *rt, heist_task *t, const char *message) {
    char name[128], where[160];
    heist__task_name_into(t, name, sizeof(name));
    snprintf(where, sizeof(where), "%s:%u", t->file ? t->file : "?", t->line);
    const char *const extra[] = {"made at", where, NULL};
    heist_report report = HEIST_REPORT_INIT;
    report.message = message;
    report.name = name;
    report.future = t;
    report.extra = extra;
    heist__loop_report(rt->worker[0]->loop, &report);
    return 0;
}

void heist__report_live(heist_runtime *rt, const char *message) {
    heist_task **list;
    size_t n;
    if (heist_runtime_all_tasks(rt, &list, &n)) return;
    for (size_t i = 0; i < n; i++) report_one(rt, list[i], message);
    heist_task_list_free(list, n);
}

int heist__end_default_executor(heist_runtime *rt, double seconds) {
    heist__mutex_lock(&rt->mutex);
    int (*end)(heist_runtime *, double) = rt->executor_end;
    rt->executor_ended = true;
    heist__mutex_unlock(&rt->mutex);
    if (!end) return 0;
    int err = end(rt, seconds);
    if (err == -ETIMEDOUT) {
        heist_report report = HEIST_REPORT_INIT;
        report.message = "the default executor still runs jobs after its time to end";
        report.code = -ETIMEDOUT;
        report.seconds = seconds;
        heist__loop_report(rt->worker[0]->loop, &report);
    }
    return err;
}

void heist__end_resolver(heist_runtime *rt) {
    heist__mutex_lock(&rt->mutex);
    struct heist__resolver *resolver = rt->resolver;
    rt->resolver = NULL;
    rt->resolver_ended = true;
    heist__mutex_unlock(&rt->mutex);
    if (resolver) rt->resolver_end(resolver);
}

int heist_runtime_close(heist_runtime *rt, double timeout) { return heist__runtime_close(rt, timeout, 0); }

int heist__runtime_close(heist_runtime *rt, double timeout, double executor_seconds) {
    if (!rt || isnan(timeout)) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    struct heist__self *self = heist__self();
    if (heist__worker_of(self, rt) || (self->away && self->away->rt == rt)) return -EDEADLK;
    if (rt->alone) return -ENOTSUP;
    heist__closing_begin(rt);
    struct heist__clock real = {0};
    int64_t deadline = heist__deadline_after(&real, timeout < 0 ? 0 : timeout);
    int err = 0;
    heist__mutex_lock(&rt->mutex);
    while (rt->threads && err != -ETIMEDOUT) err = heist__cond_wait(&rt->changed, &rt->mutex, deadline);
    bool out_of_time = rt->threads != 0;
    bool mine = !out_of_time && !rt->joined;
    if (mine) rt->joined = true;
    while (!out_of_time && !mine && !rt->closed)
        heist__cond_wait(&rt->changed, &rt->mutex, INT64_MAX); /* another closer ends it */
    heist__mutex_unlock(&rt->mutex);
    if (out_of_time) {
        heist__report_live(rt, "still running after the close of its runtime");
        return -ETIMEDOUT;
    }
    if (!mine) return 0;
    for (int i = rt->inherited ? 1 : 0; i < rt->workers; i++) heist__sys_thread_join(rt->worker[i]->thread, NULL);
    heist__end_default_executor(rt, executor_seconds);
    heist__end_resolver(rt);
    for (int i = 0; i < rt->workers; i++) heist__loop_shut(rt->worker[i]->loop);
    heist__mutex_lock(&rt->mutex);
    rt->closed = true;
    heist__cond_broadcast(&rt->changed);
    heist__mutex_unlock(&rt->mutex);
    return 0;
}

void heist_runtime_unref(heist_runtime *rt) {
    if (!rt || heist__forked()) return; /* a child's copy is the parent's */
    if (rt->alone) {
        heist_loop_unref(rt->worker[0]->loop);
        return;
    }
    if (a_sub_ar(&rt->users, 1) != 1) return; /* ar: as every last reference */
    /* The last user of a runtime that was never closed: it closes by itself, unjoined, and its last thread
     * frees it. */
    heist__mutex_lock(&rt->mutex);
    bool abandoned = rt->started && !rt->joined && !rt->detached;
    if (abandoned) rt->detached = true;
    heist__mutex_unlock(&rt->mutex);
    if (abandoned) {
        for (int i = rt->inherited ? 1 : 0; i < rt->workers; i++) pthread_detach(rt->worker[i]->thread);
        heist__closing_begin(rt);
    }
    heist__runtime_release(rt);
}
