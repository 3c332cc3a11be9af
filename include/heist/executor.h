/* heist/executor.h: calls that block, beside the loops.
 *
 * An *executor* is a pool of plain threads.  A *job* is a function that may block: it has
 * the type of a coroutine, and calls of this library that would suspend a task block its
 * thread.  What a job returns is the result of a future, which tasks await, threads wait
 * for, and gather and wait take like any other.
 * A *blocking section* is for a single call in a task that is not worth a thread: it tells
 * that the worker is about to block, and what stands behind it goes to the others at once. */
#ifndef HEIST_EXECUTOR_H
#define HEIST_EXECUTOR_H

#include <heist/base.h>

HEIST_BEGIN_DECLS

typedef struct heist_executor heist_executor; /* a pool of threads; reference counted */
typedef struct heist_executor_map heist_executor_map;

/* Its threads block all signals but faults: those are for the program's own threads.  A process that a job starts
 * inherits that, unless the job sets another mask first. */
typedef struct heist_executor_options {
    size_t size;
    unsigned flags;      /* none yet; an unknown flag is -EINVAL */
    int max_threads;     /* jobs never run on more; 0: processors + 4, at most 32 */
    size_t max_queue;    /* jobs that may wait to begin; one more is -EAGAIN; 0: no limit */
    double idle_seconds; /* a thread without a job for so long ends; 0: 10 s; HEIST_FOREVER: never */
    size_t stack_bytes;  /* of each thread; 0: the system's default */
    const char *name;    /* threads are called name-0, name-1 …; cut to 9 bytes; NULL: "pool" */
    int (*initializer)(void *user);  /* runs first on each thread; a negative code breaks the pool */
    void (*finalizer)(void *user);   /* runs last on each thread whose initializer succeeded */
    void *user;
} heist_executor_options;
#define HEIST_EXECUTOR_OPTIONS_INIT {sizeof(heist_executor_options), 0, 0, 0, 0, 0, NULL, NULL, NULL, NULL}

typedef struct heist_job_options {
    size_t size;
    unsigned flags;            /* none yet; an unknown flag is -EINVAL */
    heist_free_fn arg_free;    /* runs once on arg: after the job, or when it never runs */
    heist_free_fn result_free; /* runs once on a result that nobody took */
} heist_job_options;
#define HEIST_JOB_OPTIONS_INIT {sizeof(heist_job_options), 0, NULL, NULL}

/* A pool; its threads are made when jobs come, and reused.
 * Context: any.  Suspends: never.  Ownership: *out is one reference; shut down, then unref.
 * Errors: -EINVAL, -ENOMEM. */
HEIST_API int heist_executor_new(const heist_executor_options *opts, heist_executor **out) HEIST_NODISCARD;
/* The last unref of a pool that was not shut down does that, without waiting: the jobs in it run, then its
 * threads end.  Context: any.  Suspends: never. */
HEIST_API heist_executor *heist_executor_ref(heist_executor *e);
HEIST_API void heist_executor_unref(heist_executor *e);

/* Hands in a job.  The future's loop is the caller's running one, or none.
 * Cancelling the future before the job begins takes the job out: it never runs.  A job that runs cannot be stopped:
 * the future is cancelled at once, the job goes on, and its result is freed.  So what a job uses must not go with the
 * frame of the caller: give it away, with an arg_free, or use heist_to_thread.
 * Jobs begin in the order in which they were handed in.
 * Context: any.  Suspends: never.  Ownership: *out is one reference; out = NULL: nobody asks.  On failure the caller
 * still owns arg.
 * Errors: HEIST_EEXECSHUTDOWN, HEIST_EBROKENPOOL, -EAGAIN (max_queue; or there is no thread yet and the system gives
 * none), -EINVAL, -ENOMEM.  Where at least one thread lives, one that cannot be made is no error. */
HEIST_API int heist_executor_submit(heist_executor *e, heist_coro_fn fn, void *arg, const heist_job_options *opts,
                                    heist_future **out);

/* One job for each of n arguments, all handed in or none; the results come in the order of the arguments.
 * deadline: for all of them, an instant of heist_time(), or HEIST_FOREVER.
 * Context: any.  Suspends: never.  Ownership: *out is released by heist_executor_map_free; on failure the caller
 * still owns the arguments (opts' arg_free runs on each otherwise).  Errors: as heist_executor_submit. */
HEIST_API int heist_executor_map_new(heist_executor *e, heist_coro_fn fn, void *const *args, size_t n,
                                     const heist_job_options *opts, double deadline, heist_executor_map **out)
    HEIST_NODISCARD;
/* The next result: 1, and it is the caller's; 0: there are no more; or the code of the job, and the next call goes on
 * behind it.  By one at a time.
 * Context: any.  Suspends: may.  Errors: -ETIMEDOUT, -ECANCELED (nothing was taken), HEIST_ENOTINCORO. */
HEIST_API int heist_executor_map_next(heist_executor_map *m, void **out);
/* Cancels what was not delivered: jobs that have not begun never run, results of others are freed.
 * Context: any.  Suspends: never.  NULL is allowed. */
HEIST_API void heist_executor_map_free(heist_executor_map *m);

#define HEIST_EXECUTOR_NO_WAIT 0x1u       /* do not wait for the threads */
#define HEIST_EXECUTOR_CANCEL_QUEUED 0x2u /* jobs that have not begun are cancelled instead of run */

/* Refuses jobs from now on, and waits until those that were accepted have run and all threads have ended.  May be
 * called again, from several threads.
 * Context: any.  Suspends: may; with HEIST_EXECUTOR_NO_WAIT never.
 * Errors: -ETIMEDOUT, -ECANCELED (the pool is shut down all the same, only the wait has ended), -EDEADLK (a job of this
 * pool cannot wait for its end), HEIST_ENOTINCORO, -EINVAL. */
HEIST_API int heist_executor_shutdown(heist_executor *e, unsigned flags);
HEIST_API int heist_executor_shutdown_until(heist_executor *e, unsigned flags, double deadline);

/* What it does now, and has done. */
typedef struct heist_executor_stats {
    size_t size;
    int threads;         /* that live, or are being made */
    int idle;            /* of them, waiting for a job */
    uint64_t queued;     /* jobs that wait to begin */
    uint64_t running;    /* jobs that run */
    uint64_t done;       /* jobs that ended by themselves */
    uint64_t cancelled;  /* jobs that never ran */
    double longest_wait; /* seconds from submission to begin */
} heist_executor_stats;
#define HEIST_EXECUTOR_STATS_INIT {sizeof(heist_executor_stats), 0, 0, 0, 0, 0, 0, 0}
/* Context: any.  Suspends: never.  Errors: -EINVAL. */
HEIST_API int heist_executor_get_stats(heist_executor *e, heist_executor_stats *out);

/* ---- the default executor of a runtime ---- */

/* A job for executor e (NULL: the default one of the loop's runtime, made at its first use), with a future of the loop
 * (NULL: the running one).  The job does not see the caller's context variables.  In virtual time no time passes
 * while such a job waits or runs.
 * Context: any; with loop = NULL: task or callback.  Otherwise as heist_executor_submit.
 * Errors: also HEIST_ENOLOOP, HEIST_ECLOSED. */
HEIST_API int heist_loop_run_in_executor(heist_loop *loop, heist_executor *e, heist_coro_fn fn, void *arg,
                                         const heist_job_options *opts, heist_future **out);

/* Runs fn(arg, out) once on the default executor, with a copy of the caller's context variables, and waits for it.
 * A request to cancel takes a job out that has not begun, and the call returns -ECANCELED.  For one that runs the call
 * waits all the same, so arg may stand in the caller's frame; it returns what fn returned, and the next call that may
 * suspend delivers the request.  To leave a running job behind, use heist_loop_run_in_executor.
 * Context: task.  Suspends: may.
 * Errors: those of fn; HEIST_ENOLOOP (plain thread), and those of heist_loop_run_in_executor. */
HEIST_API int heist_to_thread(heist_coro_fn fn, void *arg, void **out);

/* From now on e is the default of the loop's runtime (loop = NULL: of the running loop's); the one before is dropped.
 * Context: any.  Suspends: never.  Ownership: takes a reference of its own.
 * Errors: -EINVAL, HEIST_ENOLOOP, HEIST_ECLOSED, HEIST_EEXECSHUTDOWN (the runtime's was shut down). */
HEIST_API int heist_loop_set_default_executor(heist_loop *loop, heist_executor *e);

/* Shuts the default executor down and waits for its jobs, at most `timeout` seconds: then the runtime's exception
 * handler hears of it, and they end by themselves.  Afterwards there is no default executor any more: using it is
 * HEIST_EEXECSHUTDOWN.  Where the wait was cancelled, it may be repeated.  heist_run does this at its end, for at most
 * 300 s; heist_runtime_close and heist_loop_close shut it down without waiting.
 * Context: any.  Suspends: may.  Errors: -ETIMEDOUT, -ECANCELED, -EDEADLK, -EINVAL, HEIST_ENOLOOP, HEIST_ENOTINCORO. */
HEIST_API int heist_loop_shutdown_default_executor(heist_loop *loop, double timeout);

/* ---- blocking sections ---- */

/* Between begin and end the calling thread counts as a plain thread: it may block, and calls that may suspend block it
 * (no request to cancel ends them).  The tasks in its worker's queues, its timers and its descriptors are served by
 * other workers at once, by the spare thread where the options have one (heist/runtime.h); callbacks and pinned tasks
 * of its loop wait.  With one worker and no spare thread all wait.
 * There is no running loop and no current task in between (context variables are still the task's); heist_time() is the
 * machine's monotonic clock.  Sections nest.  On a plain thread both do nothing.
 * Context: any.  Suspends: never.  Errors: -EINVAL (end without begin).
 * Undefined: to return from the body or callback within a section. */
HEIST_API int heist_blocking_begin(void);
HEIST_API int heist_blocking_end(void);

HEIST_END_DECLS

#endif
