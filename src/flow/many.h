/* Many futures and one who waits: what gather, wait, as_completed and their like stand on.
 *
 * Each future carries a hook, which its completing thread calls: `ended` for each, then the hook is counted, and the
 * last one calls `all`.
 *
 *   refs       the owner's, and one for all hooks together; at zero, `gone` frees
 *   remaining  hooks that have not run, and one while they are being added: so `all` comes once, after the start
 *
 * Who takes `remaining` to zero calls `all` and drops the hooks' reference.  A hook that has not been counted yet
 * keeps the record by that; one that was taken back (stop) is counted by who took it.  So each is counted once, and
 * nobody touches the record after its own count but the last.
 *
 * The one who waits looks at what it wants to know (a count, a code), and then waits to be told.  `told` is set, or the
 * waiter claimed, under the lock, after the change that it shall see; the waiter takes `told` back or stands there
 * under the lock, and looks again.  So a change comes before its look, or tells it. */
#ifndef HEIST_FLOW_MANY_H
#define HEIST_FLOW_MANY_H

#include "conc/spin.h"
#include "sched/suspend.h"
#include "task/task.h"

struct heist__many;

struct heist__part {
    struct heist__waiter waiter;
    struct heist__many *many;
    heist_future *future; /* the owner's business whether it holds a reference */
};

struct heist__many_class {
    /* By the completing thread, before the hook is counted.  f is done, or was dropped while it was pending. */
    void (*ended)(struct heist__many *m, struct heist__part *p, heist_future *f);
    void (*all)(struct heist__many *m);
    void (*gone)(struct heist__many *m);
};

struct heist__many {
    const struct heist__many_class *klass;
    _Atomic(size_t) refs, remaining;
    size_t n;
    struct heist__part *parts;
    struct heist__spin lock;
    bool told;
    struct heist__park *park; /* who waits, or NULL */
    heist_future *awaiter;    /* see struct heist__waiter; init: the calling task */
};

/* n parts, whose futures the owner fills in. */
void heist__many_init(struct heist__many *m, const struct heist__many_class *klass, struct heist__part *parts,
                      size_t n);
/* Hangs the hooks on; `ended` of those that are done runs in here. */
void heist__many_start(struct heist__many *m);
/* Takes the hooks back of those that are pending. */
void heist__many_stop(struct heist__many *m);
void heist__many_ref(struct heist__many *m);
void heist__many_unref(struct heist__many *m);

/* All hooks have run, and what they did is seen. */
static inline bool heist__many_ended(struct heist__many *m) {
    return !a_load_acq(&m->remaining); /* acq: pairs with the count in many.c */
}

/* By a hook: the waiter shall look. */
void heist__many_tell(struct heist__many *m);
/* Until told, or at once if told since the last wait: 0, -ECANCELED, -ETIMEDOUT, -ENOMEM.  One at a time. */
int heist__many_wait(struct heist__many *m, int64_t deadline_ns);

/* ---- for the calls that take an array ---- */

/* 0, -EINVAL (a null, or null futures), HEIST_ESELFAWAIT. */
int heist__futures_check(heist_future *const *futures, size_t n);
bool heist__futures_done(heist_future *const *futures, size_t n);
/* Asks those that are not done. */
void heist__futures_cancel(heist_future *const *futures, size_t n);
/* Writes each future once, in the order of first appearance, then the repeats; how many there are of the first, or
 * -ENOMEM. */
ptrdiff_t heist__futures_distinct(heist_future *const *futures, size_t n, heist_future **out);
/* Seconds from now as a deadline. */
int64_t heist__deadline_in(double seconds);

#endif
