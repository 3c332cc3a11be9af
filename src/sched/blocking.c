/* Blocking sections: a task or callback says that it is about to block its thread.
 *
 * Begin puts the worker, its loop and the current task aside, so that the thread counts as a plain one: what would
 * suspend blocks, what it makes ready goes to the injection queue, and what it posts to its own loop to the inbox.
 * The thread is no target for wakes, for only sleeping ones are.  The flag `blocked` says that the worker keeps nothing
 * to itself: thieves may take all of its tasks, and those who look after the others (idle.c) need not wait to see
 * whether it moves.  End takes all of that back.
 *
 * Nothing is lost at the begin.  The tasks that stand in its deques were pushed before the flag was raised.  A worker
 * that falls asleep announces it, then looks at the flag; begin raises the flag, then looks for searchers and sleepers
 * (heist__wake_searcher).  All four are sequentially consistent: either the look sees the flag, and with it the
 * tasks, or begin sees the announcement, and wakes somebody.  A searcher that begin relies on still has its own look
 * before sleep to come.  Who is awake looks when he has nothing of his own, and now and then
 * (heist__look_after_others).
 * Descriptors and timers: begin calls one that sleeps to look after them, or else who falls asleep at this moment sees
 * rt->blocked, and looks soon; as long as it stands the sentinels look every half millisecond and at each deadline, and
 * there is one more of them, for those that sleep already may do so for longer.
 *
 * Nothing is taken twice at the end: thieves take from a deque at its top at any time, and a rescue takes events and
 * timers of a loop whose owner may move on at any moment; that is so with workers that are stuck without telling too.
 * One that looks too late, and still sees the flag, takes a little more than it would have. */
#include <heist/error.h>
#include <heist/executor.h>

#include "base/fork.h"
#include "sched/sched.h"

int heist_blocking_begin(void) {
    if (heist__forked()) return HEIST_EFORKED;
    struct heist__self *self = heist__self();
    if (self->away) {
        self->away_depth++;
        return 0;
    }
    struct heist__worker *w = self->worker;
    if (!w) return 0; /* a plain thread may block as it likes */
    self->away = w;
    self->away_task = self->task;
    self->away_depth = 1;
    self->worker = NULL;
    self->loop = NULL;
    self->task = NULL;
    if (w->alone) return 0; /* there are no others */
    heist_runtime *rt = w->rt;
    a_add_sc(&rt->blocked, 1);
    a_store_sc(&w->blocked, 1);
    bool tasks = !heist__deque_empty(&w->stack) || !heist__deque_empty(&w->queue);
    if (tasks) heist__wake_searcher(rt, -1);
    /* rlx: this thread's own doing; what others arm or watch meanwhile the sentinels see */
    bool waits = a_load_rlx(&w->loop->armed) || a_load_rlx(&w->loop->watched);
    if ((waits || (tasks && rt->workers > rt->regular)) && !rt->clock.virtual_time) heist__call_watcher(w);
    return 0;
}

int heist_blocking_end(void) {
    if (heist__forked()) return HEIST_EFORKED;
    struct heist__self *self = heist__self();
    struct heist__worker *w = self->away;
    if (!w) return self->worker ? -EINVAL : 0;
    if (--self->away_depth) return 0;
    if (!w->alone) {
        a_store_sc(&w->blocked, 0);
        a_sub_sc(&w->rt->blocked, 1);
        a_store_rlx(&w->turns, a_load_rlx(&w->turns) + 1); /* rlx: it moves, for those who look; only we write it */
    }
    self->worker = w;
    self->loop = w->loop;
    self->task = self->away_task;
    self->away = NULL;
    self->away_task = NULL;
    return 0;
}
