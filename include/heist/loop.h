/* heist/loop.h: one worker's callbacks, timers and descriptors.
 *
 * `heist_loop_new` gives asyncio as it is: a runtime of one worker that runs on
 * whichever thread calls heist_loop_run_forever, every task pinned, callbacks and
 * task steps in one FIFO.  `heist_runtime_loop` and `heist_get_running_loop` give
 * the loops of a bigger runtime; those are run by the runtime alone.
 *
 * Order: if one submission to a loop happens-before another to the same loop, its
 * callback runs first, whichever thread made it.  Timers run in the order of their
 * deadlines, equal ones in the order of their making, none early. */
#ifndef HEIST_LOOP_H
#define HEIST_LOOP_H

#include <heist/base.h>

HEIST_BEGIN_DECLS

typedef struct heist_runtime_options heist_runtime_options; /* heist/runtime.h */

/* Options of a scheduled callback. */
typedef struct heist_call_options {
    size_t size;            /* of this structure, set by the initialiser */
    heist_free_fn arg_free; /* runs once on arg: after the call, at cancel, or at close */
    const char *name;       /* for reports; not copied, must outlive the handle */
    heist_context *context; /* it runs in this one (heist/context.h); NULL: in a copy of the caller's */
} heist_call_options;
#define HEIST_CALL_OPTIONS_INIT {sizeof(heist_call_options), NULL, NULL, NULL}

/* ---- life ---- */

/* A loop of its own: a runtime of one worker on the caller's thread, all tasks pinned.
 * opts may be NULL; its `workers` must be 0 or 1.
 * Context: any.  Suspends: never.  Ownership: *out is one reference; close, then unref.
 * Errors: -EINVAL, -ENOMEM, -EMFILE/-ENFILE, HEIST_EFORKED. */
HEIST_API int heist_loop_new(const heist_runtime_options *opts, heist_loop **out) HEIST_NODISCARD;

/* Context: any.  Suspends: never.  NULL is allowed in unref.  The last unref of a loop that was never
 * closed reports it and closes it if it does not run. */
HEIST_API heist_loop *heist_loop_ref(heist_loop *loop);
HEIST_API void heist_loop_unref(heist_loop *loop);

/* Runs until heist_loop_stop; may be called again and goes on with what is left.
 * Context: a plain thread that runs no other loop.  Blocks the thread.
 * Errors: 0 when stopped; HEIST_ERUNNING (this loop runs), HEIST_EOTHERRUNNING (this thread runs
 * another), HEIST_ECLOSED, HEIST_ENOTINCORO (a loop of a runtime, which its workers run), or the code
 * of a fatal callback or task (HEIST_EFATAL): the loop stays usable. */
HEIST_API int heist_loop_run_forever(heist_loop *loop);

/* Runs until `f` is done and gives its outcome as heist_future_result does.
 * Context, Errors: as run_forever, and HEIST_ESTOPPED when stopped first: `f` stays pending and may be
 * run again.  -EINVAL for NULL.  Ownership: the caller keeps its reference; *out is borrowed from `f`. */
HEIST_API int heist_loop_run_until_complete(heist_loop *loop, heist_future *f, void **out);

/* The same for a bare coroutine: wraps it in a new task, runs it, moves its result out (see
 * heist_future_take).  opts may be NULL (heist/task.h has the type heist_task_options). */
struct heist_task_options;
HEIST_API int heist_loop_run_coroutine(heist_loop *loop, heist_coro_fn fn, void *arg,
                                       const struct heist_task_options *opts, void **out);

/* Asks the run call to return after the callbacks of the pass in progress.  On a loop that does not run
 * the next run call does one pass and returns.  On a loop of a runtime: -ENOTSUP.
 * Context: any thread.  Suspends: never.  Errors: HEIST_ECLOSED. */
HEIST_API int heist_loop_stop(heist_loop *loop);

/* Final and idempotent: asks pending tasks to cancel and runs the loop until their clean-up has ended,
 * then cancels what is scheduled (arguments are freed) and refuses everything.
 * Context: a plain thread that runs no loop.  Blocks while tasks clean up.
 * Errors: HEIST_ERUNNING (nothing changed), HEIST_EOTHERRUNNING, -ENOTSUP on a loop of a runtime (close the
 * runtime), -EBUSY when a task did not end within 5 s: it is reported, and the call may be repeated. */
HEIST_API int heist_loop_close(heist_loop *loop);

/* Context: any thread.  Suspends: never.  1 or 0. */
HEIST_API int heist_loop_is_running(const heist_loop *loop);
HEIST_API int heist_loop_is_closed(const heist_loop *loop);

/* The loop's clock now, in seconds: monotonic, the same for every loop of the process (a runtime with
 * virtual time has its own).  Answers also when closed.  Context: any.  Suspends: never. */
HEIST_API double heist_loop_time(const heist_loop *loop);
/* The clock of the running loop, else the machine's monotonic clock.  Context: any. */
HEIST_API double heist_time(void);

/* ---- which loop ---- */

/* The loop that runs the caller: in an unpinned task the current worker's, good for posting and not stable
 * across a suspension.  Ownership: borrowed.  Errors: HEIST_ENOLOOP.  Context: any.  Suspends: never. */
HEIST_API int heist_get_running_loop(heist_loop **out) HEIST_NODISCARD;
/* The running loop, else the one set for this thread.  Borrowed.  Errors: HEIST_ENOLOOP. */
HEIST_API int heist_get_event_loop(heist_loop **out) HEIST_NODISCARD;
/* Sets the loop of this thread (one reference is taken; NULL clears and drops it). */
HEIST_API int heist_set_event_loop(heist_loop *loop);

/* ---- callbacks ---- */

/* Schedules fn(arg) for the next pass; never inside this call.  Cheap on the loop's own thread, through
 * the inbox elsewhere: call_soon and call_soon_threadsafe are one function under asyncio's two names.
 * out = NULL: detached, no reference, no cost.
 * Context: any.  Suspends: never.  Ownership: *out is one reference; releasing it does not cancel.  On
 * failure the caller still owns arg.
 * Errors: -EINVAL, HEIST_ECLOSED, -ENOMEM, -EAGAIN (max_inbox reached), -EBUSY (opts.context is in use),
 * HEIST_EFORKED. */
HEIST_API int heist_loop_call_soon(heist_loop *loop, heist_callback_fn fn, void *arg, const heist_call_options *opts,
                                   heist_handle **out);
HEIST_API int heist_loop_call_soon_threadsafe(heist_loop *loop, heist_callback_fn fn, void *arg,
                                              const heist_call_options *opts, heist_handle **out);

/* The same after `delay` seconds, or at the instant `when` of heist_loop_time; never early; zero and
 * negative delays count as due now.  Errors: also -EINVAL for not-a-number. */
HEIST_API int heist_loop_call_later(heist_loop *loop, double delay, heist_callback_fn fn, void *arg,
                                    const heist_call_options *opts, heist_handle **out);
HEIST_API int heist_loop_call_at(heist_loop *loop, double when, heist_callback_fn fn, void *arg,
                                 const heist_call_options *opts, heist_handle **out);

/* Prevents the call: 1 when this call did it (arg has been freed), 0 when it ran, runs or was cancelled.
 * Context: any.  Suspends: never. */
HEIST_API int heist_handle_cancel(heist_handle *handle);
HEIST_API int heist_handle_cancelled(const heist_handle *handle);
/* The instant asked for, also after it ran; 0 for call_soon. */
HEIST_API double heist_handle_when(const heist_handle *handle);
HEIST_API heist_handle *heist_handle_ref(heist_handle *handle);
HEIST_API void heist_handle_unref(heist_handle *handle);

/* ---- descriptors ---- */

/* Runs fn(arg) on the loop whenever fd is readable (writable), until removed; replaces an earlier one.
 * One-shot in the kernel: re-armed after the callback ran.  fd stays the caller's and must be removed
 * before it is closed.  Tasks may wait for it meanwhile (heist/socket.h): then both are told.
 * Context: any.  Suspends: never.  Ownership: opts.arg_free runs at removal, replacement or close.
 * Errors: -EBADF, -EPERM (not pollable), HEIST_ECLOSED, -ENOMEM, -EINVAL, -EBUSY (the descriptor belongs to a
 * connection, listener or endpoint; or opts.context is in use), -EMFILE (when a task waits for it). */
HEIST_API int heist_loop_add_reader(heist_loop *loop, int fd, heist_callback_fn fn, void *arg,
                                    const heist_call_options *opts);
HEIST_API int heist_loop_add_writer(heist_loop *loop, int fd, heist_callback_fn fn, void *arg,
                                    const heist_call_options *opts);
/* 1 when something was removed, 0 when nothing was there (also on a closed loop). */
HEIST_API int heist_loop_remove_reader(heist_loop *loop, int fd);
HEIST_API int heist_loop_remove_writer(heist_loop *loop, int fd);

/* ---- driven from outside ---- */

/* The descriptor to poll for readability in a foreign event loop.  Borrowed, valid until close.
 * Context: any.  Errors: -ENOTSUP on a loop of a runtime, HEIST_ECLOSED. */
HEIST_API int heist_loop_fd(heist_loop *loop);
/* How it waits for descriptors: "epoll" or "io_uring" (heist/runtime.h, HEIST_BACKEND_…); NULL for NULL.
 * Context: any.  Suspends: never.  Ownership: a constant string. */
HEIST_API const char *heist_loop_backend(const heist_loop *loop);

/* One pass that never blocks.  *timeout (may be NULL) is then the number of seconds the foreign loop may
 * sleep unless the descriptor becomes readable: 0 when work is left, HEIST_FOREVER when nothing is due.
 * Between calls the loop announces sleep, so that submissions from other threads make the descriptor
 * readable.  Context, Errors: as run_forever; 0, or 1 when heist_loop_stop was called. */
HEIST_API int heist_loop_run_once(heist_loop *loop, double *timeout);

/* ---- reports ---- */

/* What went wrong, for the exception handler.  Valid during the call only. */
typedef struct heist_report {
    size_t size;
    const char *message;   /* "a callback failed", "a failure was never retrieved" … */
    int code;              /* the failure, 0 when there is none */
    const char *text;      /* heist_fail's message, or NULL */
    const char *file;      /* heist_fail's place, or NULL */
    int line;
    heist_future *future;  /* concerned, or NULL; borrowed */
    heist_handle *handle;  /* concerned, or NULL; borrowed */
    const char *name;      /* of the task or callback, or NULL */
    double seconds;        /* how long a slow step took, 0 otherwise */
    const char *const *extra; /* key, value, key, value, NULL: fields of the caller's own, or NULL */
} heist_report;
#define HEIST_REPORT_INIT {sizeof(heist_report), NULL, 0, NULL, NULL, 0, NULL, NULL, NULL, 0, NULL}
typedef void (*heist_exception_handler)(heist_loop *loop, const heist_report *report, void *user);

/* Installs the handler (NULL: the default, which writes one record to standard error).  What the library
 * reports it reports on the loop, one call at a time, never under the last unref; but a close that times out
 * reports on the thread that closes.  call_exception_handler calls the handler at once, on its own thread.  One
 * thread at a time is in the handler of a loop; the others wait for it, so it must not wait for them.  It may
 * report again.  In it there is no current task, and on a worker a call that would suspend returns
 * HEIST_ENOTINCORO.  Context: any.  Suspends: never.  Errors: -EINVAL; call_exception_handler also HEIST_EFORKED. */
HEIST_API int heist_loop_set_exception_handler(heist_loop *loop, heist_exception_handler fn, void *user);
HEIST_API int heist_loop_call_exception_handler(heist_loop *loop, const heist_report *report);
HEIST_API void heist_loop_default_exception_handler(heist_loop *loop, const heist_report *report);

/* Debug mode: steps that hold the worker longer than the limit (default 0.1 s) are reported with name and
 * time, and so are calls from the wrong place.  Context: any. */
HEIST_API int heist_loop_set_debug(heist_loop *loop, int on);
HEIST_API int heist_loop_get_debug(const heist_loop *loop);
HEIST_API int heist_loop_set_slow_callback_duration(heist_loop *loop, double seconds);

HEIST_END_DECLS

#endif
