/* What a future is, and a task, before anybody schedules it.
 *
 * A task is a future with a body.  Both live in one type-stable slab (mem/slab.h),
 * so that a canceller that follows `awaiting`, and a walk over all tasks, may look at
 * a dead one.  Rules for fields: *birth* is written before the object is published
 * and never again; *runner* by whoever runs or resumes the task; *completer* by the
 * one that completes it, before waiters becomes DONE. */
#ifndef HEIST_TASK_TASK_H
#define HEIST_TASK_TASK_H

#include <heist/error.h>
#include <heist/future.h>
#include <heist/loop.h>
#include <heist/task.h>

#include "conc/atomic.h"
#include "conc/self.h"
#include "task/job.h"
#include "task/park.h"

struct heist__coro;
struct heist__derived;
struct heist__extra;
struct heist__waiter;

/* heist_fail's record. */
struct heist__failure {
    int code, line;
    const char *file;
    char message[];
};

/* The word: references in the high half, flags in the low one.  Zero: dead.
 * See state.h for its transitions. */
#define HEIST__REF ((uint64_t)1 << 32)
#define HEIST__F_DONE ((uint64_t)1)       /* the outcome stands and waiters was DONE before */
#define HEIST__F_COMPLETING ((uint64_t)2) /* somebody won the right to complete a plain future */
#define HEIST__F_TASK ((uint64_t)4)       /* birth: it has a body */
#define HEIST__F_DERIVED ((uint64_t)8)    /* birth: its record, in `arg`, completes it; see derived.h */

/* `waiters`: 0, the oldest waiter with tags, or DONE.  See complete.c. */
#define HEIST__WAITERS_LOCK ((uintptr_t)1)   /* the list is being changed or walked */
#define HEIST__WAITERS_DONE ((uintptr_t)2)   /* alone: the outcome stands */
#define HEIST__WAITERS_SINGLE ((uintptr_t)4) /* the one waiter is a plain await */
#define HEIST__WAITERS_TAGS ((uintptr_t)7)

/* `cancel`: how many requests there are, how many of them were not delivered, and how often some were.  See cancel.c.
 */
#define HEIST__CANCEL_PENDING ((uint64_t)1)  /* to be delivered; never set in an uncancellable section */
#define HEIST__CANCEL_HELD ((uint64_t)2)     /* it becomes PENDING at the end of that section */
#define HEIST__CANCEL_FLIGHT ((uint64_t)4)   /* a deliverer has taken it, and does not know yet how it ends */
#define HEIST__CANCEL_MASK_ONE ((uint64_t)8) /* how many sections the task is in */
#define HEIST__CANCEL_MASK ((uint64_t)255 * HEIST__CANCEL_MASK_ONE)
#define HEIST__CANCEL_ONE ((uint64_t)1 << 11) /* requests: 21 bits */
#define HEIST__CANCEL_ALL ((uint64_t)0x1fffff * HEIST__CANCEL_ONE)
#define HEIST__CANCEL_FRESH_ONE ((uint64_t)1 << 32) /* those that stand for PENDING or HELD: 10 bits; full: or more */
#define HEIST__CANCEL_FRESH ((uint64_t)1023 * HEIST__CANCEL_FRESH_ONE)
#define HEIST__CANCEL_DELIVERY_ONE                                                                                     \
    ((uint64_t)1 << 42) /* deliveries, also those that failed: the rest, and round again */

enum { HEIST__OUT_VALUE, HEIST__OUT_ERROR, HEIST__OUT_CANCELLED };

struct heist_future {
    struct heist__job job; /* in the queue of its loop, when pinned; the slab's link when free */

    /* shared */
    _Atomic(uint64_t) word;
    _Atomic(uintptr_t) waiters;

    /* completer */
    void *value;
    heist_free_fn value_free; /* a task's: birth */
    struct heist__failure *failure; /* a task's: runner, until it ends */
    int32_t code;
    uint8_t outcome;
    _Atomic(uint8_t) retrieved; /* somebody looked at the outcome; 2: and took the value */

    /* birth */
    uint8_t pinned;
    uint8_t budget; /* runner: suspending calls left that may go on at once */
    heist_loop *loop; /* where done callbacks run and a pinned task stays, or NULL; may be closed and gone */
    uint64_t loop_id; /* tells whether `loop` is still that loop */

    /* ---- a task's own ---- */
    heist_runtime *rt; /* birth; alive while the task is not done */
    heist_coro_fn fn;
    void *arg;
    heist_free_fn arg_free;
    const char *file; /* where it was made */
    uint32_t line;
    uint16_t stack_kib;
    _Atomic(uint8_t) running;     /* runner: its body is on a thread now; for reports */
    _Atomic(uint8_t) close_asked; /* the close of its runtime has asked it to cancel */

    struct heist__coro *coro;                 /* runner: its stack; NULL before the first run */
    struct heist__park park;                  /* see park.h */
    _Atomic(heist_future *) awaiting;         /* runner: what a plain await waits for */
    _Atomic(uint64_t) cancel;
    _Atomic(struct heist__failure *) cancel_message; /* the last canceller's; exchanged */
    _Atomic(uint64_t) number;                 /* of its automatic name */
    _Atomic(struct heist__extra *) extra;     /* what few tasks have, or NULL; see extra.h */
};

_Static_assert(sizeof(struct heist_future) <= 192,
               "a future is three cache lines: a burst of spawns is as fast as memory");

/* ---- the seams upwards: set by the rooms above, once, before the first task ---- */

struct heist__task_hooks {
    void (*ready)(heist_task *t);                         /* make it runnable; the caller touches it no more */
    int (*post)(heist_loop *loop, uint64_t loop_id, struct heist__job *job); /* 0 or HEIST_ECLOSED */
    void (*report)(heist_loop *loop, uint64_t loop_id, heist_report *report, struct heist__failure *failure,
                   char *name); /* to the exception handler; owns failure and name */
};
extern struct heist__task_hooks heist__task_hooks;

/* ---- birth, references, death (future.c) ---- */

/* A future that nobody can see yet, or NULL: the caller fills in what a task adds and calls
 * heist__state_born last. */
heist_future *heist__future_alloc(struct heist__self *self, heist_loop *loop, uint64_t loop_id);
/* The last reference went: frees. */
void heist__future_dispose(heist_future *f);
/* The callbacks of a pending future that nobody can complete any more (complete.c). */
void heist__future_drop_callbacks(heist_future *f);
/* Cancels a plain future, or asks the record of a derived one: 1, or 0 when it was done.  Takes the failure
 * (complete.c). */
int heist__future_cancel_plain(heist_future *f, struct heist__failure *failure);
/* A reference to an object that may be dead, done or another by now: only a pending one is taken. */
bool heist__future_try_ref(heist_future *f);
bool heist__is_task(const heist_future *f);
/* Its record, or NULL: see derived.h. */
struct heist__derived *heist__derived_of(const heist_future *f);

/* ---- completion (complete.c) ---- */

struct heist__waiter {
    struct heist__waiter *next, *prev; /* before the oldest stands the newest */
    enum { HEIST__WAIT_AWAIT, HEIST__WAIT_PARK, HEIST__WAIT_CALLBACK, HEIST__WAIT_HOOK } kind;
    union {
        /* HOOK: called by the completing thread, no lock held */
        void (*hook)(struct heist__waiter *w, heist_future *f);
        heist_task *task;         /* AWAIT: a task that only completion wakes */
        struct heist__park *park; /* PARK: claimed first, may be removed by its owner */
    };
    /* HOOK, for the await graph: the task that waits by it, or the future that stands for several (a gather's);
     * NULL: nobody.  It lives as long as the waiter is linked. */
    heist_future *awaiter;
};

/* Publishes the outcome, wakes and posts everybody, and drops `drop_refs` references.  The caller wrote
 * the outcome and has won the right to complete. */
void heist__future_publish(heist_future *f, unsigned drop_refs);

/* Adds a waiter; false when f is done (nothing was added).  A full barrier stands between the adding and
 * what the caller does next. */
bool heist__future_add_waiter(heist_future *f, struct heist__waiter *w);
/* Removes one that was added; false when completion has passed it (then it was claimed, or never will be looked at
 * again). */
bool heist__future_remove_waiter(heist_future *f, struct heist__waiter *w);

/* Ends a plain future with what a body returned; takes the failure.  0; or HEIST_EINVALSTATE, and the value is still
 * the caller's.  Any thread. */
int heist__future_complete(heist_future *f, int code, void *value, heist_free_fn value_free,
                           struct heist__failure *failure);

/* For the await graph: references to the tasks and futures that wait for f now, at most `room` of them, into out;
 * returns how many there were.  *threads: plain threads that wait.  Any thread. */
size_t heist__future_awaiters(heist_future *f, heist_future **out, size_t room, unsigned *threads);
/* Unlinks the first hook of this function and awaiter, or gives NULL: there is none, or completion has passed it. */
struct heist__waiter *heist__future_take_hook(heist_future *f, void (*hook)(struct heist__waiter *, heist_future *),
                                              const heist_future *awaiter);

/* done: the outcome may be read */
static inline bool heist__future_is_done(const heist_future *f) {
    /* acq: pairs with the publication in complete.c; who sees DONE sees the outcome */
    return a_load_acq(&((heist_future *)(uintptr_t)f)->waiters) == HEIST__WAITERS_DONE;
}

/* ---- cancellation (cancel.c) ---- */

/* Delivers a pending request wherever the task waits; harmless when there is none. */
void heist__cancel_deliver(heist_task *t);
/* After a task was published, by its worker, which holds nothing of it any more: t may run elsewhere, be
 * done, or be another task by now.  A reference, taken only from the living, keeps the delivery to one. */
static inline void heist__cancel_look(heist_task *t) {
    if (heist_likely(!(a_load_sc(&t->cancel) & HEIST__CANCEL_PENDING)) || !heist__future_try_ref(t)) return;
    heist__cancel_deliver(t);
    heist_unref(t);
}
/* Records a request: false when the task is done.  Who does so must deliver it soon (heist__cancel_deliver).  *mark
 * (may be NULL): what withdraw wants to know of it. */
bool heist__cancel_request(heist_task *t, uint32_t *mark);
/* By what cancels a future that is no task (complete.c, and records of derived ones), as soon as the request is sure
 * to come to something: whoever passed it on need not be waited for any more. */
void heist__cancel_recorded(void);
/* ---- whose request was it?  By the task itself, for those who cancel it for a reason of their own (a deadline, a
 * group) and take the request back. ---- */
/* What the count will be when all requests are taken back that are made, or delivered, from now on. */
uint32_t heist__cancel_base(heist_task *t);
/* Takes the request of this mark back: true when the task has no other one from after `base`.  Nothing that was not
 * delivered is left then, nor when it was this request alone.  Any thread, while the block lasts. */
bool heist__cancel_withdraw(heist_task *t, uint32_t base, uint32_t mark);
/* What was not delivered counts as delivered: by the -ECANCELED that the caller passes on. */
void heist__cancel_told(heist_task *t);
/* A request from after `base`, if it has one, is delivered once more. */
void heist__cancel_again(heist_task *t, uint32_t base);
/* The word after a delivery of all that is pending. */
static inline uint64_t heist__cancel_delivered(uint64_t c) {
    return (c & ~(HEIST__CANCEL_PENDING | HEIST__CANCEL_FRESH)) + HEIST__CANCEL_DELIVERY_ONE;
}
/* By the task itself: takes the pending request. */
static inline bool heist__cancel_take(heist_task *t) {
    uint64_t c = a_load_rlx(&t->cancel); /* rlx: a first look, the cas decides */
    while (c & HEIST__CANCEL_PENDING)
        if (a_cas_sc(&t->cancel, &c, heist__cancel_delivered(c))) return true;
    return false;
}

/* ---- failures and names (failure.c, name.c) ---- */

struct heist__failure *heist__failure_make(const char *file, int line, int code, const char *format, ...)
    HEIST_PRINTF(4, 5);
/* A copy of the task's name, or NULL when memory ran out.  For reports. */
char *heist__task_name_dup(heist_task *t);
uint64_t heist__task_number(heist_task *t); /* of the automatic name; lock-free */
size_t heist__task_name_into(heist_task *t, char *buf, size_t size);

#endif
