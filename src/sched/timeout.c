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
 * heist_current_deadline.  Only the task itself touches the list. */
#include "sched/timeout.h"

#include <heist/timeout.h>
#include <math.h>

#include "base/fork.h"
#include "sched/suspend.h"
#include "task/extra.h"

enum { NEW, INSIDE, LEFT };

struct heist__block {
    uint32_t state, base;
    heist_task *task;
    int64_t deadline_ns;
    bool rung;
    struct heist__alarm alarm;
    struct heist__block *outer;
};

_Static_assert(sizeof(struct heist__block) <= sizeof(heist_timeout), "a scope has its room");
_Static_assert(_Alignof(struct heist__block) <= _Alignof(heist_timeout), "and its alignment");

static struct heist__block *scope_of(const heist_timeout *t) { return (struct heist__block *)(uintptr_t)t; }

/* By the task: from now on it is to be rung at s->deadline_ns. */
static void set(struct heist__block *s) {
    if (s->deadline_ns == INT64_MAX) return;
    heist_loop *loop = heist__self()->loop;
    if (s->deadline_ns > heist__clock_now(loop->clock)) {
        heist__alarm_arm(&s->alarm, loop, s->task, s->deadline_ns);
    } else { /* it runs: its next suspending call looks */
        s->rung = true;
        heist__cancel_request(s->task);
    }
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
    s->outer = e->blocks;
    e->blocks = s;
    set(s);
    return 0;
}

static bool is_mine(const struct heist__block *s) { return s->state == INSIDE && s->task == heist__self()->task; }

static int leave(struct heist__block *s, int code) {
    if (heist__alarm_disarm(&s->alarm)) s->rung = true;
    struct heist__block **at = &heist__extra_of(s->task)->blocks;
    while (*at != s) at = &(*at)->outer; /* the newest, unless somebody leaves the outer first */
    *at = s->outer;
    s->state = LEFT;
    if (!s->rung) return code;
    bool ours = heist__cancel_withdraw(s->task, s->base);
    if (code != -ECANCELED) return code;
    if (ours) return -ETIMEDOUT;
    heist__cancel_told(s->task);
    return -ECANCELED;
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
    return is_mine(s) ? leave(s, code) : HEIST_EINVALSTATE;
}

int heist_timeout_reschedule(heist_timeout *t, double when) {
    if (!t || isnan(when)) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    struct heist__block *s = scope_of(t);
    if (!is_mine(s)) return HEIST_EINVALSTATE;
    if (heist__alarm_disarm(&s->alarm)) s->rung = true;
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
    for (struct heist__block *s = e ? e->blocks : NULL; s; s = s->outer)
        if (s->deadline_ns < first) first = s->deadline_ns;
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
