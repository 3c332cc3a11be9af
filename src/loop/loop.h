/* One worker's events: inbox, timers, descriptors, and the FIFO of what is due to run.
 *
 * Who touches what: *owner* fields belong to the thread that runs the loop at the
 * moment; *shared* ones are reached through atomics or the lock that is named.
 *
 * A loop is type-stable (mem/slab.h) and counted; `id` is unique in the process and
 * zero when dead, so that a pointer kept by a future can be checked before use.
 *
 * One turn, in this order:
 *   1 take the inbox, oldest first, behind what is ready
 *   2 poll the descriptors: reader callbacks become ready, waiting tasks runnable
 *   3 move due timers behind that, in the order of deadline, then of making
 *   4 run exactly the jobs that are ready now; what they add waits for the next turn
 * The scheduler (sched/worker.c) calls the steps and puts unpinned tasks between. */
#ifndef HEIST_LOOP_LOOP_H
#define HEIST_LOOP_LOOP_H

#include <heist/loop.h>

#include "base/log.h"
#include "conc/atomic.h"
#include "conc/mpsc.h"
#include "conc/mutex.h"
#include "conc/self.h"
#include "conc/spin.h"
#include "loop/clock.h"
#include "loop/poller.h"
#include "loop/timers.h"
#include "loop/wake.h"
#include "task/job.h"
#include "task/park.h"

struct heist__worker;
struct heist__watch;

/* What costs something at each step: debug mode; and that a monitor wants to know what runs. */
#define HEIST__DEBUG 1
#define HEIST__MONITORED 2

/* A run call (or the worker's thread); or a close, which is no run. */
enum { HEIST__NOBODY, HEIST__RUNS, HEIST__CLOSES };

struct heist_loop {
    /* birth */
    struct heist__job link; /* the slab's, when free */
    _Atomic(uint64_t) refs; /* shared */
    _Atomic(uint64_t) id;   /* zero: dead */
    heist_runtime *rt;
    struct heist__worker *worker;
    struct heist__clock *clock;
    _Atomic(int) *sleepers; /* the runtime's count: at least as many as loops with `sleeping` set */
    size_t max_inbox;
    bool alone; /* made by heist_loop_new: every task pinned */
    heist_loop *home; /* owner: which loop tasks that run here take for theirs: this one, but for a spare thread's */

    /* owner */
    HEIST_ALIGNED(HEIST_CACHE_LINE) struct heist__jobs ready;
    struct heist__poller poller;
    unsigned since_poll;   /* steps since the descriptors were looked at */
    int fatal;             /* the code that ends the run call */
    int64_t poll_pause;    /* the last, while the poller fails; see poll_failed */
    bool announced;        /* between announce and unannounce */
    _Atomic(uint64_t) jobs;              /* for the monitor: begun so far */
    _Atomic(int) in_callbacks;           /* for the monitor: runs what is ready */
    _Atomic(heist_callback_fn) callback; /* for the monitor: of the handle that runs, or NULL */
    _Atomic(uint64_t) callbacks, timers_fired, io_events, received; /* counters; a rescuer raises the middle two */

    /* shared: the owner and whoever submits */
    HEIST_ALIGNED(HEIST_CACHE_LINE) struct heist__mpsc inbox;
    _Atomic(size_t) inbox_count; /* only with max_inbox */
    HEIST_ALIGNED(HEIST_CACHE_LINE) _Atomic(int) sleeping; /* see heist__loop_announce */
    struct heist__wake wake;
    _Atomic(unsigned) watched; /* registrations, the wake-up descriptor apart; with none there is nothing to poll */
    _Atomic(int) stop;
    _Atomic(int) running; /* who has the loop: HEIST__NOBODY … */
    _Atomic(int) closed;
    _Atomic(int) debug; /* HEIST__DEBUG, HEIST__MONITORED */
    _Atomic(int) *care; /* birth: the runtime's word that makes a spawn look at more; stays set */
    _Atomic(int64_t) slow_ns;
    _Atomic(int) poll_failed; /* the poller's code has been reported; 0: it works */

    /* shared, under timer_lock */
    HEIST_ALIGNED(HEIST_CACHE_LINE) struct heist__spin timer_lock;
    struct heist__timers timers;
    _Atomic(size_t) armed; /* count of timers, read without the lock as a hint by the owner */

    /* shared, under misc_lock */
    struct heist__spin misc_lock;
    struct heist__watch *watches; /* readers and writers */
    heist_exception_handler handler;
    void *handler_user;

    struct heist__mutex report_lock; /* held while the handler runs, by whoever reports */
};

/* ---- life ---- */

/* 0, -ENOMEM, -EMFILE, -ENFILE; one reference.  uring: see heist__poller_open. */
int heist__loop_create(heist_runtime *rt, struct heist__worker *w, struct heist__clock *clock, _Atomic(int) *sleepers,
                       bool uring, heist_loop **out);
/* References keep the descriptors open and the shell from becoming another loop; the users' references
 * are the runtime's (sched/run.c). */
static inline heist_loop *heist__loop_hold(heist_loop *loop) {
    a_add_rlx(&loop->refs, 1); /* rlx: the caller holds one, or runs the loop */
    return loop;
}
/* A reference, when `loop` is still the loop `id`. */
bool heist__loop_try_ref(heist_loop *loop, uint64_t id);
void heist__loop_release(heist_loop *loop);
/* Refuses everything from now on and cancels what is scheduled.  By the owner, or when there is none. */
void heist__loop_shut(heist_loop *loop);
/* Called at the end of each shut, and of each create: by net/process.c, which watches children by loops.  NULL until the
 * first child. */
typedef void (*heist__loop_hook)(heist_loop *loop, bool shut);
extern _Atomic(heist__loop_hook) heist__loop_life_hook;

/* ---- submitting ---- */

/* Puts a job into the inbox, and wakes the loop.  Any thread.  0 or HEIST_ECLOSED. */
int heist__loop_push(heist_loop *loop, struct heist__job *job);

/* Puts a job behind what was submitted before.  Any thread.  0 or HEIST_ECLOSED. */
int heist__loop_post(heist_loop *loop, struct heist__job *job);

/* The same for a loop that may be gone. */
int heist__loop_post_checked(heist_loop *loop, uint64_t id, struct heist__job *job);

/* Ends the loop's sleep, if it sleeps.  Any thread.  True when this call did it. */
bool heist__loop_wake(heist_loop *loop);

/* ---- the announced sleep ----
 *
 *   sleeper:  sleepers++; sleeping := ASLEEP; look at inbox, stop, queues; poll
 *   waker:    push;                           look at sleeping; take it; signal
 *
 * All four middle steps are sequentially consistent: either the waker sees ASLEEP, or
 * the sleeper's look sees the push.  Whoever takes ASLEEP away, if it is a waker, writes
 * the descriptor, it alone; it touches nothing of the runtime, which may be gone by then.
 * What the waker leaves tells the sleeper why:
 *   AWAKE      something came for it
 *   TO_SEARCH  it is counted as searching already
 *   TO_WATCH   somebody went to work who had looked after the others */
enum { HEIST__AWAKE, HEIST__ASLEEP, HEIST__TO_SEARCH, HEIST__TO_WATCH };

static inline void heist__loop_announce(heist_loop *loop) {
    loop->announced = true;
    a_add_sc(loop->sleepers, 1);
    a_store_sc(&loop->sleeping, HEIST__ASLEEP);
}
/* By the owner: ASLEEP (it got up by itself), or what its waker left. */
static inline int heist__loop_unannounce(heist_loop *loop) {
    if (!loop->announced) return HEIST__AWAKE;
    loop->announced = false;
    int was = a_xchg_sc(&loop->sleeping, HEIST__AWAKE);
    a_sub_sc(loop->sleepers, 1);
    return was;
}
/* By a waker: true when it won, and must signal. */
static inline bool heist__loop_take_sleeper(heist_loop *loop, int leave) {
    int asleep = HEIST__ASLEEP;
    return a_load_sc(&loop->sleeping) == asleep && a_cas_sc(&loop->sleeping, &asleep, leave);
}

/* ---- the steps of a turn, by the owner ---- */

void heist__loop_take_inbox(heist_loop *loop);
/* Looks at the descriptors, for at most timeout_ns (-1: for ever); counts events. */
int heist__loop_poll(heist_loop *loop, int64_t timeout_ns);
/* Fires what is due. */
unsigned heist__loop_fire_timers(heist_loop *loop);
/* By another worker, while the owner is stuck in a task or callback: fires due waits and takes ready
 * descriptors.  True when that made anything ready. */
bool heist__loop_rescue(heist_loop *loop);
/* The next deadline, INT64_MAX for none. */
int64_t heist__loop_next_deadline(heist_loop *loop);
/* Runs the jobs that are ready now; returns how many. */
size_t heist__loop_run_ready(heist_loop *loop);

/* ---- timers of waits ---- */

enum { HEIST__TIMER_HANDLE, HEIST__TIMER_WAIT, HEIST__TIMER_ALARM };

/* Stands on the waiter's stack. */
struct heist__wait_timer {
    struct heist__timer timer;
    heist_loop *loop;
    struct heist__park *park;
    int code; /* what the waiter gets when it fires */
    struct heist__wait_timer *next;
};

/* Arms; by the owner of the loop (its worker's stack). */
void heist__wait_timer_arm(struct heist__wait_timer *t, heist_loop *loop, struct heist__park *park, int64_t deadline_ns,
                           int code);
/* Disarms; returns when nobody looks at it any more.  Any thread. */
void heist__wait_timer_disarm(struct heist__wait_timer *t);

/* ---- records ---- */

static inline bool heist__loop_debugs(heist_loop *loop) {
    return heist_unlikely(a_load_rlx(&loop->debug) & HEIST__DEBUG); /* rlx: a setting */
}

/* Debug mode: a record of what happens to this loop. */
#define heist__loop_log(loop, ...)                                                                                     \
    do {                                                                                                               \
        if (heist__loop_debugs(loop)) heist__log(HEIST__LOG_DEBUG, __VA_ARGS__);                                       \
    } while (0)

/* ---- alarms ---- */

/* Cancels a task at an instant, whatever it does.  Stands on the task's stack. */
struct heist__alarm {
    struct heist__timer timer;
    heist_loop *loop; /* NULL: not armed since the last disarm */
    heist_task *task;
    bool fired;    /* under the loop's timer lock, as the next: the request is made */
    uint32_t mark; /* of it; see task/cancel.c */
};

/* By the task, on its loop's thread.  A past instant is as good as any. */
void heist__alarm_arm(struct heist__alarm *a, heist_loop *loop, heist_task *task, int64_t deadline_ns);
/* By the task, on any thread, or by whoever leaves its scope in its place, with a reference to the loop, which may be
 * closed: true when it has fired; from then on nobody looks at it. */
bool heist__alarm_disarm(struct heist__alarm *a);

/* By the task: has it fired?  Of one that is not armed: false. */
bool heist__alarm_rang(struct heist__alarm *a);

/* ---- reports ---- */

/* Calls the handler now, on this thread, when no other thread is in it. */
void heist__loop_report(heist_loop *loop, const heist_report *report);
/* By the task that runs, to its loop: with the words of its own failure, when that has the code.  name, extra: NULL
 * or as in heist_report. */
void heist__loop_report_mine(const char *message, int code, const char *name, const char *const *extra);
/* The same by another loop's thread, for `loop` is stuck: its handler is called all the same, under by's lock. */
void heist__loop_report_for(heist_loop *loop, heist_loop *by, const heist_report *report);
/* Posts a report; failure and name are its own from now on. */
void heist__loop_post_report(heist_loop *loop, uint64_t loop_id, heist_report *report, struct heist__failure *failure,
                             char *name);
/* The end of a callback or step: reports its failure, keeps a fatal code. */
void heist__loop_callback_ended(heist_loop *loop, int code, heist_handle *handle, const char *name);

#endif
