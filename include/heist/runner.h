/* heist/runner.h: several mains, one after the other, on one runtime and in one context; asyncio's Runner.
 *
 * heist_run makes a runtime for one main.  A runner keeps it: tasks that a main leaves behind go on, variables that it
 * sets (heist/context.h) are there for the next one, and close ends all of it in heist_run's order: the tasks
 * are cancelled and awaited, then the default executor is shut down, then the loops.
 *
 * The runtime has threads of its own and the thread that calls run waits; so what was left behind goes on between
 * two runs.  With loop_factory = heist_loop_new the runner is asyncio's to the letter: one loop, run by the calling
 * thread, and nothing moves between two runs. */
#ifndef HEIST_RUNNER_H
#define HEIST_RUNNER_H

#include <heist/base.h>
#include <heist/loop.h>
#include <heist/runtime.h>
#include <heist/task.h>

HEIST_BEGIN_DECLS

typedef struct heist_runner heist_runner;

typedef struct heist_runner_options {
    size_t size;
    unsigned flags;                       /* none yet; an unknown flag is -EINVAL */
    const heist_runtime_options *runtime; /* read by new; NULL: defaults.  HEIST_RUNTIME_DEBUG, HEIST_RUNTIME_NO_DEBUG
                                           * and HEIST_RUNTIME_SIGINT have their place here */
    /* Gives the loop, one reference (heist_loop_new, or one that stands on it); NULL: a runtime of N workers. */
    int (*loop_factory)(const heist_runtime_options *opts, heist_loop **out);
} heist_runner_options;
#define HEIST_RUNNER_OPTIONS_INIT                                                                                      \
    { sizeof(heist_runner_options), 0, NULL, NULL }

/* Context: any.  Suspends: never.  Ownership: *out is one reference; close, then unref.
 * Errors: those of heist_runtime_new, or of the factory; -EINVAL (the factory gave no loop of heist_loop_new's). */
HEIST_API int heist_runner_new(const heist_runner_options *opts, heist_runner **out) HEIST_NODISCARD;
/* Context: any.  Suspends: never.  NULL is allowed in unref.  The last unref of a runner that was not closed leaves its
 * runtime or loop to end as one that is dropped unclosed. */
HEIST_API heist_runner *heist_runner_ref(heist_runner *r);
HEIST_API void heist_runner_unref(heist_runner *r);

/* Runs main_fn(arg, out) as a task and waits for its end.  opts (may be NULL) are the task's; without a context of its
 * own it runs in the runner's, a copy of the one in which the runner was made.  With HEIST_RUNTIME_SIGINT the first
 * SIGINT cancels main, and when that ends cancelled by nothing else the call returns -EINTR; a second SIGINT ends the
 * process. Context: a plain thread that runs no loop.  Blocks.  Ownership: the result is moved out; on failure to begin
 * the caller still owns arg. Errors: main's code; HEIST_EOTHERRUNNING (in a task or callback, the runner's own too),
 * HEIST_ERUNNING (another thread runs it), HEIST_ECLOSED, -EBUSY (opts' context is in use), -EINVAL, -ENOMEM,
 * HEIST_ESTOPPED (its loop was stopped). */
#define heist_runner_run(r, main_fn, arg, opts, out)                                                                   \
    heist_runner_run_at(__FILE__, __LINE__, (r), (main_fn), (arg), (opts), (out))
HEIST_API int heist_runner_run_at(const char *file, int line, heist_runner *r, heist_coro_fn main_fn, void *arg,
                                  const heist_task_options *opts, void **out);

/* The loop, or the first worker's.  Context: any.  Suspends: never.  Ownership: borrowed.
 * Errors: HEIST_ECLOSED, -EINVAL. */
HEIST_API int heist_runner_get_loop(heist_runner *r, heist_loop **out) HEIST_NODISCARD;
/* The context in which mains run.  Context: any.  Ownership: *out is one reference.  Errors: HEIST_ECLOSED, -EINVAL. */
HEIST_API int heist_runner_context(heist_runner *r, heist_context **out) HEIST_NODISCARD;

/* Ends it; blocks while tasks clean up.  Idempotent.
 * Context: a plain thread that runs no loop.  Errors: HEIST_ERUNNING (it runs; nothing changed), -EINVAL, and those of
 * heist_runtime_close or heist_loop_close: then it may be repeated. */
HEIST_API int heist_runner_close(heist_runner *r);

HEIST_END_DECLS

#endif
