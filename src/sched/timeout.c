/* Blocks of a task that must be left by an instant.
 *
 * A scope is an alarm (loop/loop.h) on the loop on which the task ran when it entered,
 * and what the task's cancel word said then.  The task may leave on any thread.
 *
 *   NEW ──enter──> INSIDE ──exit──> LEFT
 *                  INSIDE: armed ──the alarm rings──> rung: one request of ours is counted
 *                          armed <──reschedule──> not armed
 *
 * Ringing and disarming exclude each other by the loop's timer lock: after the disarm
 * either the alarm is out of the store and no request was made, or it has rung and its
 * request is counted, delivered or not.  In the first case there is nothing to undo; in
 * the second exactly one request is taken back.  Who rings touches the scope only under
 * that lock, so the stack may go right after the exit.
 *
 * Whose -ECANCELED is it?  `base` is the count of requests before the block, without one
 * that was not delivered yet, for it will be in the block.  When ours is taken back and
 * the count is base again, nobody else has asked since: the cancellation is ours.  Then a
 * request that nobody has seen yet is ours too, and is withdrawn in the same step
 * (task/cancel.c).  With two scopes whose time is up the outer one's request is still
 * counted when the inner one looks, so the inner passes -ECANCELED on, and the outer turns it.
 *   Somebody else's may have been delivered before ours came, so that what is pending is ours alone; or it is pending
 * itself.  The -ECANCELED that goes on tells of it in either case: nothing is left to be delivered behind the block.
 *
 * The scopes of a task are linked, newest first, in its extra: for its children, and for
 * heist_current_deadline.
 *
 * In a generator's body.  The task that drives it enters; but the body may stop at a yield within the
 * block, and somebody else, or nobody, drives it on: then the scope may be left by another task or thread,
 * when the one that entered has ended, and its loop is closed.  So such a scope holds a reference to both, and is
 * left by whoever stands on the stack on which it was entered.  The list has a lock for that. */
#include "sched/timeout.h"

#include <heist/timeout.h>
#include <math.h>

#include "base/fork.h"
#include "coro/coro.h"
#include "sched/suspend.h"
#include "task/extra.h"

enum { NEW, INSIDE, LEFT };

struct heist__block {
    uint32_t state, base;
    heist_task *task;
    int64_t deadline_ns;
    bool rung;
    uint32_t mark; /* of the request, when it has rung */
    struct heist__alarm alarm;
    struct heist__block *outer;
    struct heist__stack *stack; /* of the generator's body in which it was entered; else NULL */
};

_Static_assert(sizeof(struct heist__block) <= sizeof(heist_timeout), "a scope has its room");
_Static_assert(_Alignof(struct heist__block) <= _Alignof(heist_timeout), "and its alignment");

static struct heist__block *scope_of(const heist_timeout *t) { return (struct heist__block *)(uintptr_t)t; }

/* By the task: from now on it is to be rung at s->deadline_ns. */
static void set(struct heist__block *s) {
    if (s->deadline_ns == INT64_MAX) return;
    heist_loop *loop = heist__self()->loop;
    if (s->deadline_ns > heist__clock_now(loop->clock)) {
        heist__alarm_arm(&s->alarm, s->stack ? heist__loop_hold(loop) : loop, s->task, s->deadline_ns);
    } else { /* it runs: its next suspending call looks */
        s->rung = true;
        heist__cancel_request(s->task, &s->mark);
    }
}

/* From now on it does not ring. */
static void silence(struct heist__block *s) {
    heist_loop *loop = s->alarm.loop;
    if (heist__alarm_disarm(&s->alarm)) {
        s->rung = true;
        s->mark = s->alarm.mark;
    }
    if (s->stack && loop) heist__loop_release(loop);
}

/* The stack on which a body stands that the task drives; NULL: it stands on its own. */
static struct heist__stack *body_stack(heist_task *task) {
    struct heist__stack *top = task->coro->stack;
    return (void *)task->coro == (void *)top->user ? NULL : top;
}

static bool stands_on(struct heist__stack *stack) {
    char *here = __builtin_frame_address(0);
    return (size_t)(here - stack->lo) < (size_t)((char *)heist__stack_top(stack) - stack->lo);
}

static int enter(struct heist__block *s, heist_task *task, int64_t deadline_ns) {
    if (s->state != NEW) return HEIST_EINVALSTATE;
    struct heist__extra *e = heist__extra(task);
    if (!e) return -ENOMEM;
    s->state = INSIDE;
    s->task = task;
    s->base = heist__cancel_base(task);
    s->deadline_ns = deadline_ns;
    s->rung = false;
    s->alarm.loop = NULL;
    s->stack = body_stack(task);
    if (s->stack) heist_ref(task);
    heist__spin_lock(&e->blocks_lock);
    s->outer = e->blocks;
    e->blocks = s;
    heist__spin_unlock(&e->blocks_lock);
    set(s);
    return 0;
}

static bool is_mine(const struct heist__block *s) { return s->state == INSIDE && s->task == heist__self()->task; }

/* No alarm rings any more, and no request of it is left; true: it was the only one since the entry. */
static bool end(struct heist__block *s) {
    silence(s);
    struct heist__extra *e = heist__extra_of(s->task);
    heist__spin_lock(&e->blocks_lock);
    struct heist__block **at = &e->blocks;
    while (*at != s) at = &(*at)->outer; /* the newest, unless somebody leaves the outer first */
    *at = s->outer;
    heist__spin_unlock(&e->blocks_lock);
    s->state = LEFT;
    return s->rung && heist__cancel_withdraw(s->task, s->base, s->mark);
}

static int leave(struct heist__block *s, int code) {
    bool ours = end(s);
    if (s->stack) heist_unref(s->task); /* not the last one: it runs */
    if (!s->rung || code != -ECANCELED) return code;
    if (ours) return -ETIMEDOUT;
    heist__cancel_told(s->task);
    return -ECANCELED;
}

/* The body goes on under another's drive: what was asked was asked of the one that entered. */
static int leave_for(struct heist__block *s, int code) {
    end(s);
    heist_unref(s->task);
    return code;
}

int heist_timeout_enter(heist_timeout *t, double seconds) {
    if (!t || isnan(seconds)) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    struct heist__self *self = heist__self();
    if (!self->task) return HEIST_ENOTASK;
    return enter(scope_of(t), self->task, heist__deadline_after(self->loop->clock, seconds > 0 ? seconds : 0));
}

int heist_timeout_enter_at(heist_timeout *t, double when) {
    if (!t || isnan(when)) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    heist_task *task = heist__self()->task;
    return task ? enter(scope_of(t), task, heist__ns_from_seconds(when)) : HEIST_ENOTASK;
}

int heist_timeout_exit(heist_timeout *t, int code) {
    if (!t) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    struct heist__block *s = scope_of(t);
    if (is_mine(s)) return leave(s, code);
    return s->state == INSIDE && s->stack && stands_on(s->stack) ? leave_for(s, code) : HEIST_EINVALSTATE;
}

int heist_timeout_reschedule(heist_timeout *t, double when) {
    if (!t || isnan(when)) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    struct heist__block *s = scope_of(t);
    if (!is_mine(s)) return HEIST_EINVALSTATE;
    silence(s);
    if (s->rung) return HEIST_EINVALSTATE;
    s->deadline_ns = heist__ns_from_seconds(when);
    set(s);
    return 0;
}

double heist_timeout_when(const heist_timeout *t) {
    const struct heist__block *s = t ? scope_of(t) : NULL;
    bool never = !s || s->state == NEW || s->deadline_ns == INT64_MAX;
    return never ? HEIST_FOREVER : heist__seconds_from_ns(s->deadline_ns);
}

int heist_timeout_expired(const heist_timeout *t) {
    struct heist__block *s = t ? scope_of(t) : NULL;
    if (!s || s->state == NEW) return 0;
    return s->rung || (s->state == INSIDE && heist__alarm_rang(&s->alarm));
}

int heist_with_timeout(double seconds, heist_coro_fn fn, void *arg, void **out) {
    if (!fn) return -EINVAL;
    heist_timeout scope = HEIST_TIMEOUT_INIT;
    int err = heist_timeout_enter(&scope, seconds);
    if (err) return err;
    void *value = NULL;
    err = leave(scope_of(&scope), fn(arg, &value));
    if (err >= 0 && out) *out = value;
    return err;
}

/* ---- what children ask for ---- */

static int64_t earliest(heist_task *task) {
    int64_t first = INT64_MAX;
    struct heist__extra *e = task ? heist__extra_of(task) : NULL;
    if (!e) return first;
    heist__spin_lock(&e->blocks_lock);
    for (struct heist__block *s = e->blocks; s; s = s->outer)
        if (s->deadline_ns < first) first = s->deadline_ns;
    heist__spin_unlock(&e->blocks_lock);
    return first;
}

double heist_current_deadline(void) {
    int64_t first = heist__forked() ? INT64_MAX : earliest(heist__self()->task);
    return first == INT64_MAX ? HEIST_FOREVER : heist__seconds_from_ns(first);
}

int64_t heist__deadline_inherited(heist_runtime *rt) {
    struct heist__self *self = heist__self();
    int64_t first = earliest(self->task);
    if (first == INT64_MAX || self->loop->clock == &rt->clock) return first;
    /* Another runtime may have another time: what is left counts. */
    return heist__clock_now(&rt->clock) + (first - heist__clock_now(self->loop->clock));
}

int heist__deadline_body(void *arg, void **out) {
    heist_task *t = heist__self()->task;
    struct heist__extra *e = heist__extra_of(t);
    struct heist__block scope = {.state = NEW};
    enter(&scope, t, e->deadline_ns); /* cannot fail: the extra is there */
    return leave(&scope, e->timed_fn(arg, out));
}
