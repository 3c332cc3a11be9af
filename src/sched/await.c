/* Awaiting a future, from a task or a plain thread.
 *
 * A task's plain await is woken by completion alone (a cancel request goes on to the
 * future, see task/cancel.c), so it needs no park word: three locked operations for
 * spawn, run and join are the add here, and the two of the publication.
 * With a deadline, and from a thread, the wait is a claimable one. */
#include <heist/future.h>
#include <math.h>

#include "arch/cpu.h"
#include "base/fork.h"
#include "base/sys.h"
#include "sched/suspend.h"
#include "task/state.h"
#include "task/task.h"

struct awaiting {
    struct heist__waiter waiter;
    heist_future *future;
};

/* On the worker's stack. */
static bool commit_await(heist_task *t, void *arg) {
    struct awaiting *a = arg;
    heist_future *f = a->future;
    a_store_before_rmw(&t->awaiting, f); /* stays before the look at `cancel` below; pairs with cancel.c */
    if (!heist__future_add_waiter(f, &a->waiter)) {
        a_store_rlx(&t->awaiting, NULL); /* rlx: only a hint to cancellers, who look twice */
        return false;
    }
    /* add_waiter was a full barrier: a canceller either saw `awaiting`, or is seen here.  The task may run
     * elsewhere by now; t is type-stable. */
    heist__cancel_look(t);
    return true;
}

struct awaiting_until {
    struct heist__wait wait;
    struct heist__waiter waiter;
    heist_future *future;
};

static bool publish_waiter(struct heist__wait *w, heist_loop *loop) {
    (void)loop;
    struct awaiting_until *a = heist_container_of(w, struct awaiting_until, wait);
    a->waiter.kind = HEIST__WAIT_PARK;
    a->waiter.park = w->park;
    return heist__future_add_waiter(a->future, &a->waiter);
}

static void withdraw_waiter(struct heist__wait *w) {
    struct awaiting_until *a = heist_container_of(w, struct awaiting_until, wait);
    heist__future_remove_waiter(a->future, &a->waiter);
}

int heist__await_until(heist_future *f, int64_t deadline_ns) {
    struct awaiting_until a;
    a.future = f;
    a.wait.deadline_ns = deadline_ns;
    a.wait.publish = publish_waiter;
    a.wait.withdraw = withdraw_waiter;
    int code = heist__wait(&a.wait);
    /* A waiter that was claimed early goes on while the completer still walks the list; DONE comes next. */
    for (unsigned spins = 1; !code && !heist__future_is_done(f); spins++) {
        if (spins % 64)
            heist__cpu_relax();
        else
            heist__sys_yield();
    }
    return code;
}

int heist_await(heist_future *f, void **out) {
    if (heist_unlikely(!f)) return -EINVAL;
    struct heist__self *self = heist__self();
    heist_task *t = self->task;
    if (heist_unlikely(heist__forked())) return HEIST_EFORKED; /* before the plain wait, which asks nobody */
    if (heist_unlikely(f == t)) return HEIST_ESELFAWAIT;
    bool done = heist__future_is_done(f);
    if (heist_unlikely(!t || done)) {
        int err = heist__wait_entry(self);
        if (err) return err;
        if (done) {
            heist__wait_skipped(self);
        } else {
            err = heist__await_until(f, INT64_MAX);
            if (err) return err;
        }
        return heist_future_result(f, out);
    }
    if (heist__run_in_place(self, t, f)) return heist_future_result(f, out);
    /* A request that is pending now goes on to f, as one that comes while the task waits. */
    struct awaiting a;
    a.waiter.kind = HEIST__WAIT_AWAIT;
    a.waiter.task = t;
    a.future = f;
    heist__suspend(commit_await, &a);
    a_store_rlx(&t->awaiting, NULL); /* rlx: as above */
    return heist_future_result(f, out);
}

int heist_await_until(heist_future *f, double deadline, void **out) {
    if (!f || isnan(deadline)) return -EINVAL;
    struct heist__self *self = heist__self();
    if (f == self->task) return HEIST_ESELFAWAIT;
    int err = heist__wait_entry(self);
    if (err) return err;
    if (heist__future_is_done(f)) {
        heist__wait_skipped(self);
    } else {
        err = heist__await_until(f, heist__ns_from_seconds(deadline));
        if (err) return err;
    }
    return heist_future_result(f, out);
}
