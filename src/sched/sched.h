/* The scheduler's two structures: a runtime, and its workers.  See README.md for who
 * runs next, how a worker sleeps, and why no wake-up is lost. */
#ifndef HEIST_SCHED_SCHED_H
#define HEIST_SCHED_SCHED_H

#include <heist/runtime.h>
#include <pthread.h>

#include "base/list.h"
#include "conc/atomic.h"
#include "conc/deque.h"
#include "conc/mpsc.h"
#include "coro/coro.h"
#include "coro/where.h"
#include "loop/loop.h"
#include "mem/stack.h"
#include "task/task.h"

/* Steps of unpinned tasks between two looks at inbox, timers and descriptors. */
#define HEIST__TURN_STEPS 64
/* Ready tasks beyond which another worker is asked to help.  Those of `queue` are short, mostly, and to wake a
 * worker costs as much as some of them: its owner keeps what it will have done soon (w->keeps), and at birth
 * so many; should one be long, the sentinel sees it. */
#define HEIST__STACK_ALONE 1
#define HEIST__QUEUE_ALONE 16
/* Of them, how many may run within one step, on the stack of the task that awaits them; fewer when somebody
 * waits for the turn's end.  See heist__run_in_place. */
#define HEIST__IN_PLACE (HEIST__TURN_STEPS - 1)
#define HEIST__IN_PLACE_TIMED 3
/* Suspending calls that go on at once before a task gives way. */
#define HEIST__TASK_BUDGET 128

struct heist__worker {
    /* birth */
    heist_runtime *rt;
    heist_loop *loop;
    int index;
    bool spare; /* its thread sleeps while the others do their work; see idle.c */
    bool alone; /* its runtime has no other worker: its deques have no thief */
    pthread_t thread;

    /* owner: the thread that runs it */
    HEIST_ALIGNED(HEIST_CACHE_LINE) struct heist__host host;
    struct heist__self *self; /* of that thread, while it runs */
    bool (*commit)(heist_task *t, void *arg); /* what the task that just left asks for */
    void *commit_arg;
    struct heist__stack_cache stacks;
    unsigned picks;
    unsigned pace_turns;
    unsigned in_place; /* tasks that the step which runs may still run on its own stack */
    int locks_watch; /* debug mode: locks held when the step began, plus one; 0: not watched; see held.h */
    bool polling;    /* wakes now come from the loop's steps: they are served in order of arrival */
    bool searching;  /* counted in rt->searching */
    bool relieves;   /* spare: somebody is stuck, and it works in his place */
    bool acked;      /* has seen that the runtime closes */
    int64_t spin_ns; /* how long a look before sleep may last; adapts */
    uint32_t random;
    unsigned lingers;  /* looks of the sentinel since everybody fell asleep */
    bool looks;        /* counted in rt->looking */
    bool quiet;        /* its last sleep as a sentinel ended by itself */
    bool owes_watch;   /* it was called to be one, and has not slept since */
    bool trimming;     /* idle stacks go back to the kernel, some at each time-out */
    int64_t next_look_ns;     /* when a worker that runs looks after the others */
    int64_t next_rescue_ns;   /* the next deadline of those that were stuck at its last look */
    _Atomic(int) *until;      /* what ends run_until_complete */
    _Atomic(int) settled;     /* virtual time: asleep, and nothing to do; read by the one that moves the clock */

    /* shared: written by the owner, read by thieves, the sentinel and statistics */
    HEIST_ALIGNED(HEIST_CACHE_LINE) _Atomic(uint64_t) tick; /* steps run */
    _Atomic(uint64_t) turns;                                 /* of its loop */
    _Atomic(heist_task *) shown; /* the task that runs, or NULL; the monitor takes a reference before he looks */
    _Atomic(uint64_t) births, deaths; /* of tasks, made and ended by this worker */
    _Atomic(uint64_t) stolen, injected, sleeps, wakeups;
    _Atomic(int) blocked;    /* in a blocking section: sc, see blocking.c */
    _Atomic(unsigned) keeps; /* tasks of `queue` that are not worth another's help */

    /* shared: by those who look whether it is stuck */
    HEIST_ALIGNED(HEIST_CACHE_LINE) _Atomic(uint64_t) seen; /* tick and turns at the last look */
    _Atomic(int64_t) seen_since;                             /* when they were first seen so */
    struct heist__spin monitor_lock; /* only tried; of the next five */
    uint64_t watched, reported;      /* what it ran at the monitor's last look, and when it was last reported */
    int64_t watched_since;
    uint64_t asked_for; /* what it ran when its stack was asked for, and when that was */
    int64_t asked_at;
    struct heist__where where;

    /* last in first out: fresh tasks, and those woken by the task that runs */
    struct heist__deque stack;
    /* first in first out: woken by descriptors, timers, other threads; those that yielded */
    struct heist__deque queue;
};

struct heist_runtime {
    /* birth */
    int workers; /* with the spare one, which is the last */
    int regular; /* without it */
    unsigned flags;
    bool alone;      /* heist_loop_new's */
    bool uring;      /* its loops poll by io_uring, where they can */
    unsigned feeds;  /* and what goes by feeds then: HEIST__FEED_… */
    bool inherited;  /* worker 0 is the caller of heist_run */
    bool fatal_ends; /* heist_run's, or a runner's: a fatal code closes it */
    uint16_t stack_kib;
    size_t max_tasks;
    _Atomic(int) care; /* a spawn looks at more: there is a limit, or debug mode */
    int64_t stuck_after_ns; /* the monitor's; INT64_MAX: none */
    int stuck_signal;       /* 0: none */
    char name[16];
    struct heist__worker **worker;
    struct heist__clock clock;
    struct heist__link link; /* among all runtimes, under a lock of runtime.c */

    /* references of handles; the last one abandons what was not closed */
    HEIST_ALIGNED(HEIST_CACHE_LINE) _Atomic(uint64_t) users;
    _Atomic(uint64_t) refs; /* of the memory: the users', the threads', and wakers' from outside */
    _Atomic(uint64_t) foreign_births, foreign_deaths; /* of tasks, by threads that are no worker of it */
    _Atomic(unsigned) next_loop; /* round robin of heist_runtime_call_soon */

    HEIST_ALIGNED(HEIST_CACHE_LINE) struct heist__mpsc inject; /* ready tasks from outside */

    /* the sleep protocol, see README.md */
    HEIST_ALIGNED(HEIST_CACHE_LINE) _Atomic(int) sleepers; /* regular workers */
    _Atomic(int) spare_sleeps;
    _Atomic(int) looking; /* sentinels between two sleeps, with nothing to do */
    _Atomic(int) searching;
    _Atomic(int) sentinels; /* sleepers that look after the others now and then */
    _Atomic(int) blocked; /* workers in a blocking section */
    _Atomic(int) jobs_outside; /* virtual time stands still: jobs of executors that tasks here handed in */
    _Atomic(int64_t) stuck_seen_ns; /* when a look found somebody stuck; long ago: never */

    /* closing, see shutdown.c */
    HEIST_ALIGNED(HEIST_CACHE_LINE) _Atomic(int) closing;
    _Atomic(int) acks;     /* workers that have not seen it yet */
    _Atomic(int) stopping; /* no task is left: workers leave */
    _Atomic(int) fatal;    /* the code that ends heist_run */
    struct heist__mutex mutex; /* guards what follows */
    struct heist__cond changed;
    int threads;           /* worker threads (and the caller of heist_run) that still run */
    bool started, closed, joined, detached;
    struct heist_executor *executor; /* the default one, a reference, or NULL; flow/executor.c */
    int (*executor_end)(heist_runtime *rt, double seconds); /* set with it; 0 when there is none any more */
    bool executor_ended; /* there will be none any more */
    struct heist__resolver *resolver; /* whom look-ups of names ask instead of the system, or NULL; net/resolver.c */
    void (*resolver_end)(struct heist__resolver *resolver); /* set with it */
    bool resolver_ended;
    struct heist__spin virtual_lock; /* one advances the clock at a time */
};

/* ---- current ---- */

static inline bool heist__worker_of(struct heist__self *self, heist_runtime *rt) {
    return self->worker && self->worker->rt == rt;
}

/* ---- inspect/serve.c: the one call upwards, with the first runtime ---- */

void heist__inspect_from_environment(void);

/* ---- worker.c ---- */

/* Runs until the runtime stops (or, alone, until the loop is told to). */
void heist__worker_run(struct heist__worker *w);
/* Runs one turn that blocks for at most timeout_ns; true when anything ran. */
bool heist__worker_turn(struct heist__worker *w, int64_t timeout_ns);
void heist__worker_enter(struct heist__worker *w); /* the calling thread is its thread now */
void heist__worker_leave(struct heist__worker *w);

/* ---- idle.c ---- */

/* Makes an idle worker look for work, unless one looks already.  What it shall find is visible. */
void heist__wake_searcher(heist_runtime *rt, int preferred);
/* Finds work elsewhere into the worker's own queues; false: there is none. */
bool heist__search(struct heist__worker *w);
/* Sleeps until something may have come. */
void heist__sleep(struct heist__worker *w);
/* Now and then, by a worker that runs, when no sentinel does; and whether a turn ought to end for it. */
bool heist__time_to_look(struct heist__worker *w);
void heist__look_after_others(struct heist__worker *w);
/* Work came for one that owes a watch: calls another. */
void heist__watch_handed_on(struct heist__worker *w);
/* A sleeper shall look after the others, and after w first. */
void heist__call_watcher(struct heist__worker *w);
/* After work was found: hands the search on. */
void heist__search_ended(struct heist__worker *w);

/* A spare worker, before it runs anything: when nobody is stuck any more its tasks go to the others. */
void heist__spare_turn(struct heist__worker *w);

/* ---- monitor.c ---- */

/* w's look at v: reports it when it has run one task or callback too long; true when a handler was called. */
bool heist__monitor(struct heist__worker *w, struct heist__worker *v, int64_t now);

/* ---- spawn.c ---- */

/* The ready hook. */
void heist__ready(heist_task *t);
int heist__spawn(heist_runtime *rt, heist_loop *loop, const char *file, int line, heist_coro_fn fn, void *arg,
                 const heist_task_options *opts, heist_task **out);
/* A detached task of the library's own in the current worker's runtime, which max_tasks does not refuse.
 * HEIST_ENOLOOP: no worker; or as heist__spawn. */
int heist__spawn_helper(heist_coro_fn fn, void *arg, const heist_task_options *opts);
/* A whole copy of a task's options, which may be shorter, or NULL.  0 or -EINVAL. */
int heist__task_read_options(const heist_task_options *from, heist_task_options *to);
/* Task t is about to await f: when f is the task that this worker would run next, and has not begun, it runs
 * here, on t's stack.  True when it has run to its end; the thread may be another then.  False: f is as it was. */
bool heist__run_in_place(struct heist__self *self, heist_task *t, heist_task *f);
size_t heist__live_tasks(heist_runtime *rt);

/* ---- context.c ---- */

/* Of a task that is not published: the given context, or a copy of the caller's.  0, -ENOMEM, -EBUSY. */
int heist__context_at_birth(struct heist__self *self, heist_task *t, heist_context *given);

/* ---- runtime.c ---- */

int heist__runtime_create(const heist_runtime_options *opts, bool alone, bool inherited, heist_runtime **out);
/* A whole copy of what may be shorter, or longer by zeros, or NULL.  0 or -EINVAL. */
int heist__runtime_read_options(const heist_runtime_options *from, heist_runtime_options *to);
/* As heist_runtime_new; a fatal code closes it when `fatal_ends`. */
int heist__runtime_start(const heist_runtime_options *opts, bool fatal_ends, heist_runtime **out);
void heist__runtime_release(heist_runtime *rt);
/* What heist_runtime_stats gives but the processor time, for which the thread must live. */
void heist__worker_counters(struct heist__worker *w, heist_worker_stats *out);
/* The runtime made after `last` (NULL: the oldest), with a reference to its memory, or NULL; takes `last`'s back. */
heist_runtime *heist__runtime_after(heist_runtime *last);

/* ---- shutdown.c ---- */

/* Once in every turn of a closing runtime; true when the worker shall leave. */
bool heist__closing_turn(struct heist__worker *w);
void heist__closing_begin(heist_runtime *rt);
void heist__cancel_all(heist_runtime *rt);
/* The worker's thread has left its loop. */
void heist__worker_left(heist_runtime *rt);
/* Shuts the default executor down, for good, and waits for it at most so many seconds (0: not at all, else the caller
 * may suspend): 0, -ETIMEDOUT (it is reported), or why the wait ended. */
#define HEIST__EXECUTOR_SECONDS 300.0 /* by heist_run */
int heist__end_default_executor(heist_runtime *rt, double seconds);
/* Lets go of the resolver, for good. */
void heist__end_resolver(heist_runtime *rt);
void heist__report_live(heist_runtime *rt, const char *message);

/* As heist_runtime_close; the default executor has executor_seconds to end its jobs. */
int heist__runtime_close(heist_runtime *rt, double timeout, double executor_seconds);

/* ---- run.c ---- */

struct heist__sigint;
/* Makes a task on a lone loop and runs the loop until it is done.  *out is a reference, when there is a task; then 0,
 * or why it is not done. */
int heist__loop_run_main(const char *file, int line, heist_loop *loop, heist_coro_fn fn, void *arg,
                         const heist_task_options *opts, struct heist__sigint *sigint, heist_task **out);

/* As heist_loop_close, and the same of the executor. */
int heist__loop_close(heist_loop *loop, double executor_seconds);

#endif
