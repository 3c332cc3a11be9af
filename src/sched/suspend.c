/* Leaving, waiting, coming back.  See suspend.h and task/park.h. */
#include "sched/suspend.h"

#include "base/fork.h"
#include "conc/parker.h"
#include "sched/held.h"

void heist__suspend_check(struct heist__worker *w, heist_task *t) {
    heist__held_check(w, t, "a task suspends while its thread holds a lock that it took");
}

/* A callback that may not suspend tries to; debug mode says so. */
static HEIST_COLD int wrong_place(heist_loop *loop) {
    if (a_load_rlx(&loop->debug) & HEIST__DEBUG) { /* rlx: a setting */
        heist_report report = HEIST_REPORT_INIT;
        report.message = "a call that may suspend was made in a callback";
        report.code = HEIST_ENOTINCORO;
        heist__loop_report(loop, &report);
    }
    return HEIST_ENOTINCORO;
}

int heist__wait_entry(struct heist__self *self) {
    if (heist_unlikely(heist__forked())) return HEIST_EFORKED;
    heist_task *t = self->task;
    if (heist_unlikely(!t)) return self->worker ? wrong_place(self->loop) : 0;
    return heist_unlikely(heist__cancel_take(t)) ? -ECANCELED : 0;
}

static bool commit_yield(heist_task *t, void *arg) {
    struct heist__worker *w = arg;
    w->polling = true; /* behind the others */
    heist__ready(t);
    w->polling = false;
    return true;
}

void heist__give_way(struct heist__self *self) { heist__suspend(commit_yield, self->worker); }

void heist__wait_skipped(struct heist__self *self) {
    heist_task *t = self->task;
    if (!t || t->pinned) return; /* in asyncio's own order a call that need not wait gives nobody way */
    if (heist_likely(--t->budget)) return;
    heist__give_way(self); /* the step that follows renews the budget */
}

/* On the worker's stack. */
static bool commit_wait(heist_task *t, void *arg) {
    struct heist__wait *w = arg;
    heist_loop *loop = heist__self()->loop;
    heist__park_arm(&t->park);
    if (!w->publish(w, loop)) {
        a_store_rlx(&t->park.state, (int64_t)w->code * 4); /* rlx: nobody was told of the waiter */
        return false;
    }
    /* Until the commit nobody wakes the task, so its stack, where w and the timer stand, is still.  The
     * timer's claim would fail before the commit; but only this thread fires it, and later. */
    if (w->deadline_ns != INT64_MAX)
        heist__wait_timer_arm(&w->timer, loop, &t->park, w->deadline_ns, -ETIMEDOUT);
    if (!heist__park_commit(&t->park)) return false; /* claimed already: goes on by itself */
    /* From here on the task may run elsewhere, or be another; t is type-stable, and the delivery looks again. */
    heist__cancel_look(t);
    return true;
}

static inline __attribute__((always_inline)) int wait_in_task(heist_task *t, struct heist__wait *w) {
    w->park = &t->park;
    w->code = 0;
    w->timer.loop = NULL;
    heist__suspend(commit_wait, w);
    int code = heist__park_code(&t->park);
    if (w->timer.loop) heist__wait_timer_disarm(&w->timer);
    if (code && w->withdraw) w->withdraw(w);
    return code;
}

static int wait_in_thread(struct heist__wait *w) {
    struct heist__parker *parker = heist__parker_get();
    if (!parker) return -ENOMEM;
    struct heist__park *p = w->park = &w->thread_park;
    p->parker = parker;
    heist__parker_prepare(parker);
    heist__park_arm(p);
    w->code = 0;
    if (!w->publish(w, NULL)) return w->code;
    if (heist__park_commit(p)) {
        /* Chosen with bench/foreign_roundtrip: an idle core is slow to wake, a busy one answers sooner. */
        const int64_t spin_ns = 20000;
        if (heist__parker_park(parker, w->deadline_ns, spin_ns) == -ETIMEDOUT &&
            !heist__park_claim_parked(p, -ETIMEDOUT))
            heist__parker_park(parker, INT64_MAX, spin_ns); /* the claim is another's: its wake is on the way */
    }
    int code = heist__park_code(p);
    if (code && w->withdraw) w->withdraw(w);
    return code;
}

int heist__wait(struct heist__wait *w) {
    struct heist__self *self = heist__self();
    return self->task ? wait_in_task(self->task, w) : wait_in_thread(w);
}
