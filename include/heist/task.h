/* heist/task.h: coroutines that run by themselves.
 *
 * A task is unpinned unless asked otherwise: after any suspension it may go on
 * another worker of its runtime.  Code that reads thread-locals or errno reads them
 * afresh after each suspension, or pins the task.  A task of a loop made by
 * heist_loop_new is always pinned. */
#ifndef HEIST_TASK_H
#define HEIST_TASK_H

#include <heist/base.h>

HEIST_BEGIN_DECLS

/* Never leaves its loop; its steps stand in the loop's one FIFO with the callbacks. */
#define HEIST_TASK_PINNED 0x1u
/* The body must end by the deadline under which its maker runs now (heist_current_deadline): then it is cancelled,
 * and -ECANCELED becomes -ETIMEDOUT.  As the instant stands at the making; nothing, when there is none. */
#define HEIST_TASK_INHERIT_DEADLINE 0x2u
/* Its body begins within the call that makes it, on a stack of its own, and runs until it first suspends; then, or
 * when it has ended, the call returns.  In a task and in a callback of the runtime, for an unpinned task or one of the
 * running loop; elsewhere it begins as any other.  What it makes its maker wait, holds up the maker's worker. */
#define HEIST_TASK_EAGER 0x4u

typedef struct heist_task_options {
    size_t size;
    unsigned flags;            /* HEIST_TASK_…; an unknown flag is -EINVAL */
    size_t stack_bytes;        /* address space of the stack, 16 KiB to 8 MiB; 0: the runtime's default, of which
                                * three quarters are sure (heist_await) */
    const char *name;          /* copied; NULL: Task-N, unique in the process */
    heist_free_fn arg_free;    /* runs once on arg: after the body, or when it never runs */
    heist_free_fn result_free; /* runs once on a result that nobody took */
    heist_context *context;    /* it runs in this one (heist/context.h); NULL: in a copy of the creator's */
} heist_task_options;
#define HEIST_TASK_OPTIONS_INIT {sizeof(heist_task_options), 0, 0, NULL, NULL, NULL, NULL}

/* ---- making ---- */

/* A task in the caller's runtime, on its running loop when pinned.  Nothing of the body runs inside this
 * call, unless HEIST_TASK_EAGER asks for it.  opts and out may be NULL (out = NULL: detached, no reference, no cost).
 * Context: task or callback.  Suspends: never.  Ownership: *out is one reference; on failure the caller
 * still owns arg.
 * Errors: HEIST_ENOLOOP (plain thread), -EINVAL, -ENOMEM, -EAGAIN (max_tasks), -EBUSY (the context is in use),
 * HEIST_ECLOSED. */
#define heist_create_task(fn, arg, opts, out) heist_create_task_at(__FILE__, __LINE__, (fn), (arg), (opts), (out))
HEIST_API int heist_create_task_at(const char *file, int line, heist_coro_fn fn, void *arg,
                                   const heist_task_options *opts, heist_task **out);

/* A task on the given loop, from any thread: pinned when asked or when the loop stands alone; otherwise the
 * loop is a preference.  The second name is asyncio's door for foreign threads; they are one function.
 * Context: any.  Otherwise as heist_create_task. */
#define heist_loop_create_task(loop, fn, arg, opts, out)                                                               \
    heist_loop_create_task_at(__FILE__, __LINE__, (loop), (fn), (arg), (opts), (out))
#define heist_run_coroutine_threadsafe(loop, fn, arg, opts, out)                                                       \
    heist_loop_create_task_at(__FILE__, __LINE__, (loop), (fn), (arg), (opts), (out))
HEIST_API int heist_loop_create_task_at(const char *file, int line, heist_loop *loop, heist_coro_fn fn, void *arg,
                                        const heist_task_options *opts, heist_task **out);

/* ---- inside a task ---- */

/* The task that runs the caller; NULL in a callback or on a plain thread.  Borrowed.
 * Context: any.  Suspends: never. */
HEIST_API heist_task *heist_current_task(void);

/* Suspends for at least `seconds`; zero and less give up control once.  A plain thread sleeps.
 * Context: any.  Suspends: may (always, in a task).  Errors: -ECANCELED, -EINVAL (not a number),
 * HEIST_ENOTINCORO, -ENOMEM. */
HEIST_API int heist_sleep(double seconds);
/* The same until an instant of heist_time(). */
HEIST_API int heist_sleep_until(double when);
/* Lets the others run: heist_sleep(0). */
HEIST_API int heist_yield(void);

/* ---- uncancellable sections ----
 *
 * Between begin and end the task gets no -ECANCELED of its own: a request to cancel it (and a time-out of
 * heist/timeout.h, which is one) is recorded and held, and delivered by the first call after the last end that may
 * suspend.  For what must not be left half done.  Deadlines of calls (the _until forms) hold as ever.  What the task
 * awaits is not asked to cancel either.  Sections nest, and are no reason to be long: whoever closes the runtime waits.
 * A section is the task's, also while it blocks (heist_blocking_begin): either may begin or end within the other.
 * Context: any; outside a task there is nothing to do, and it is 0.  Suspends: never.
 * Errors: -EOVERFLOW (255 begun), HEIST_EINVALSTATE (none begun).  Undefined: the body returns in a section. */
HEIST_API int heist_uncancellable_begin(void);
HEIST_API int heist_uncancellable_end(void);

/* ---- introspection ---- */

/* Context: any.  Suspends: never.  The name is copied into buf, always terminated; returns its length.
 * Errors: -EINVAL (not a task), -ENOMEM in set. */
HEIST_API int heist_task_name(heist_task *t, char *buf, size_t size);
HEIST_API int heist_task_set_name(heist_task *t, const char *name);

/* What the task runs; NULL for a future that is no task.
 * Context: any.  Suspends: never. */
HEIST_API heist_coro_fn heist_task_coro(const heist_task *t);

/* The tasks of a runtime (all_tasks) or loop that are not done, the caller among them: a snapshot that
 * never misses a task that existed before the call.
 * Context: any.  Ownership: *out is an array of *count references, released by heist_task_list_free.
 * Errors: -ENOMEM, -EINVAL. */
HEIST_API int heist_all_tasks(heist_loop *loop, heist_task ***out, size_t *count) HEIST_NODISCARD;
HEIST_API int heist_runtime_all_tasks(heist_runtime *rt, heist_task ***out, size_t *count) HEIST_NODISCARD;
HEIST_API void heist_task_list_free(heist_task **list, size_t count);

/* ---- composition ---- */

#define HEIST_GATHER_ALL 0x1u   /* collect every outcome; a failure cancels nobody */
#define HEIST_GATHER_EARLY 0x2u /* asyncio's early form: return at the first failure, the others go on; the
                                 * arguments must outlive the call */

/* Waits for n futures and gives their results in their order (results may be NULL; an entry is NULL where
 * the future failed).  Safe by default: returns only when all have ended, and the first failure cancels
 * the rest.  Returns 0, or the code of the first failure (with HEIST_GATHER_ALL: always 0; ask each future).
 * Cancelling the task that waits cancels them all, each request anew, and the call returns -ECANCELED when they have
 * ended.  heist_gather_future (heist/flow.h) is the form that nests.
 * Duplicates are allowed.
 * Context: any.  Suspends: may.  Ownership: results are borrowed from the futures; the caller keeps its
 * references.  Errors: also -EINVAL, -ENOMEM, HEIST_ENOTINCORO. */
HEIST_API int heist_gather(heist_future *const *futures, size_t n, void **results, unsigned flags);

HEIST_END_DECLS

#endif
