/* heist/flow.h: waiting for several, for some time, and without harm.
 *
 * With heist_gather (heist/task.h) this is how futures are put together.  A *derived*
 * future, as heist_gather_future, heist_shield, heist_sleep_future and heist_ready_future make it, ends by
 * itself when what it comes from has ended; it nests in every call that takes a future.
 * set_result and set_exception refuse it, and so does heist_future_take, for its value
 * belongs to another: all three are -ENOTSUP.  It keeps itself until it has ended, as
 * a task does: dropping the last reference before only means that nobody will look.
 * Its loop is the maker's running one, else it has none. */
#ifndef HEIST_FLOW_H
#define HEIST_FLOW_H

#include <heist/base.h>
#include <heist/future.h>
#include <heist/task.h>

HEIST_BEGIN_DECLS

/* ---- wait ---- */

/* When to return. */
#define HEIST_ALL_COMPLETED 0   /* all have ended */
#define HEIST_FIRST_COMPLETED 1 /* one has ended, however */
#define HEIST_FIRST_EXCEPTION 2 /* one has failed, or all have ended; being cancelled is no failure */

/* Waits for some or all of n futures, for at most `timeout` seconds (HEIST_FOREVER: no limit), and puts the array into
 * order: first those that are done, then those that are pending, then repeats of either, for each future counts once.
 * Within each part the order is what it was.  Returns how many are done; *pending (may be NULL) is how many are not.
 * Nobody is cancelled, and no outcome is looked at: ask each.  What is pending may be waited for again:
 * heist_wait(futures + done, pending, …).  After the time-out it returns what is done by then, 0 if nothing is.
 * Context: any.  Suspends: may; not when there is nothing to wait for.  Ownership: the array is only put into order;
 * the caller holds a reference to each throughout.
 * Errors, and the array is as it was: -EINVAL (no futures, a null, an unknown condition, not a number), -ECANCELED (the
 * waiting task; the futures go on), HEIST_ESELFAWAIT, HEIST_ENOTINCORO, -ENOMEM. */
HEIST_API int heist_wait(heist_future **futures, size_t n, int return_when, double timeout, size_t *pending);
/* The same until an instant of heist_time(). */
HEIST_API int heist_wait_until(heist_future **futures, size_t n, int return_when, double deadline, size_t *pending);

/* ---- in the order of their ends ---- */

typedef struct heist_completions heist_completions;

/* An iterator over n futures in the order in which they end (those that are done now come first, in their order); each
 * comes once.  timeout: for all of it, from now, by the clock of whoever makes it.  Several tasks and threads may take.
 * Context: any.  Suspends: never.  Ownership: the iterator holds a reference to each future; *out is the caller's, who
 * frees it.  Errors: -EINVAL (a null, not a number), -ENOMEM.  n may be 0. */
HEIST_API int heist_as_completed(heist_future *const *futures, size_t n, double timeout,
                                 heist_completions **out) HEIST_NODISCARD;
/* The next one that has ended: 1 and the future itself, or 0 when there is none left.  out may be NULL.
 * Context: any.  Suspends: may.  Ownership: *out is borrowed until the iterator is freed.
 * Errors: -ETIMEDOUT (the time is over, and none that has ended is left: those that end later are still given by later
 * calls), -ECANCELED (nothing was taken, the futures go on), HEIST_ENOTINCORO, -EINVAL. */
HEIST_API int heist_completions_next(heist_completions *it, heist_future **out);
/* The same with a deadline for this call; the iterator's own counts too. */
HEIST_API int heist_completions_next_until(heist_completions *it, double deadline, heist_future **out);
/* The next one's outcome: 1 and its value, 0 when none is left, or its code.  What the call itself can answer is as
 * above; where the difference matters, take the future. */
HEIST_API int heist_completions_await(heist_completions *it, void **out);
/* Takes what has ended already, and never waits: -EAGAIN when there is none yet.
 * Context: any, callbacks too.  Suspends: never.  Otherwise as heist_completions_next. */
HEIST_API int heist_completions_try_next(heist_completions *it, heist_future **out);
/* Cancels nobody.  NULL is allowed.  Context: any.  Suspends: never.  Undefined: while a call on it is in progress. */
HEIST_API void heist_completions_free(heist_completions *it);

/* ---- with a limit ---- */

/* Waits until f has ended, and gives its outcome; after `timeout` seconds (HEIST_FOREVER: no limit; zero and less: now)
 * cancels it, waits until it has really ended, which may take longer, and returns -ETIMEDOUT.  If f ends otherwise in
 * spite of that, it gives the outcome.  Cancelling the waiting task cancels f, and the call returns -ECANCELED when f
 * has ended.
 * Context: any.  Suspends: may.  Ownership: the caller holds a reference to f; *out is borrowed from it.
 * Errors: the outcome's code; -EINVAL, HEIST_ESELFAWAIT, HEIST_ENOTINCORO, -ENOMEM (f goes on). */
HEIST_API int heist_wait_for(heist_future *f, double timeout, void **out);
/* The same until an instant of heist_time(). */
HEIST_API int heist_wait_for_until(heist_future *f, double deadline, void **out);
/* The same for a bare coroutine: runs it in a new task of the caller's runtime, and moves its result out.  opts may be
 * NULL.  Context: task.  Suspends: may.  Ownership: on failure of the call itself (heist_create_task's codes, of which
 * HEIST_ENOLOOP is a plain thread's) the caller still owns arg; otherwise *out is the caller's. */
#define heist_wait_for_coroutine(fn, arg, opts, timeout, out)                                                          \
    heist_wait_for_coroutine_at(__FILE__, __LINE__, (fn), (arg), (opts), (timeout), (out))
HEIST_API int heist_wait_for_coroutine_at(const char *file, int line, heist_coro_fn fn, void *arg,
                                          const heist_task_options *opts, double timeout, void **out);

/* ---- without harm ---- */

/* A future that ends as f does, and whose cancelling leaves f alone: it is cancelled at once, and f goes on.  If f is
 * cancelled, so is the shield.  heist_wait_for(shield, …) gives up without cancelling f.  To wait like that without a
 * second future, use heist_await_until(f, HEIST_FOREVER, …), which never cancels what it waits for.
 * Context: any.  Suspends: never.  Ownership: *out is one reference; its value is borrowed from f, which it holds from
 * f's end on.  A failure that reached the shield counts as looked at in f.
 * Errors: -EINVAL, -ENOMEM. */
HEIST_API int heist_shield(heist_future *f, heist_future **out) HEIST_NODISCARD;

/* gather as a future, which nests.  Nobody waits in it: hooks on the children complete it.  Its value is an array of n
 * results, a `void **`, in the order of the futures (an entry is NULL where there is none), borrowed, with all that it
 * points at, until the last reference to it goes.
 *   flags 0            ends when all have; the first failure cancels the rest, and is its outcome
 *   HEIST_GATHER_ALL   ends with the array when all have ended; ask each future for its outcome
 *   HEIST_GATHER_EARLY ends with the first failure, the others go on
 * Cancelling it cancels every child that is pending; it ends cancelled when all have ended, however they did.
 * Failures of the children count as looked at.  A child that is dropped while nobody can complete it counts as
 * cancelled.
 * Context: any, callbacks too.  Suspends: never.  Ownership: *out is one reference.  The children need not be held
 * beyond the call, except by those who shall complete them; it holds each from its end on.
 * Errors: -EINVAL, -ENOMEM. */
HEIST_API int heist_gather_future(heist_future *const *futures, size_t n, unsigned flags,
                                  heist_future **out) HEIST_NODISCARD;

/* ---- sleep as a future ---- */

/* A future that ends with `value` after `seconds`, never early; cancelling it gives the timer back.  With it a sleep
 * may stand where futures do: in a wait, a gather.  loop: whose timer it is; NULL: the caller's running loop.  If the
 * loop closes first, it fails with HEIST_ECLOSED.
 * Context: any, callbacks too.  Suspends: never.  Ownership: *out is one reference; value_free (may be NULL) runs once
 * on the value when the last reference goes, or when it ends otherwise.  On failure the caller still owns the value.
 * Errors: -EINVAL (also not a number), HEIST_ENOLOOP, HEIST_ECLOSED, -ENOMEM. */
HEIST_API int heist_sleep_future(heist_loop *loop, double seconds, void *value, heist_free_fn value_free,
                                 heist_future **out) HEIST_NODISCARD;

/* ---- a descriptor as a future ---- */

#define HEIST_READABLE 0x1u
#define HEIST_WRITABLE 0x2u

/* A future that ends when fd is readable or writable, whichever is asked for: its value is the one that was, as an
 * integer, (unsigned)(uintptr_t).  Also when the other side hung up, or there is an error: the next call on fd says
 * which. With it a descriptor may stand where futures do: in a select, a wait, a gather.  fd stays the caller's; the
 * future has a duplicate, so whatever else watches fd is not disturbed, and fd may be closed at any time (then it is
 * the others' end of it that counts).  loop: who polls; NULL: the caller's running loop.  If the loop closes first, it
 * fails with HEIST_ECLOSED.
 * Context: any, callbacks too.  Suspends: never.  Ownership: *out is one reference.
 * Errors: -EINVAL, -EBADF, -EPERM (not pollable: a plain file), -EMFILE, HEIST_ENOLOOP, HEIST_ECLOSED, -ENOMEM. */
HEIST_API int heist_ready_future(heist_loop *loop, int fd, unsigned events, heist_future **out) HEIST_NODISCARD;

/* ---- what may be awaited ---- */

/* A future (or task), or a coroutine that is to become a task: where asyncio takes an awaitable. */
typedef struct heist_awaitable {
    heist_future *future; /* this one, or */
    heist_coro_fn fn;     /* fn(arg): exactly one of both */
    void *arg;
} heist_awaitable;
#ifdef __cplusplus
#define HEIST_FUTURE(f) (heist_awaitable{(f), NULL, NULL})
#define HEIST_CORO(fn, arg) (heist_awaitable{NULL, (fn), (arg)})
#else
#define HEIST_FUTURE(f) ((heist_awaitable){(f), NULL, NULL})
#define HEIST_CORO(fn, arg) ((heist_awaitable){NULL, (fn), (arg)})
#endif

/* A future is given back as it is, with a new reference; a coroutine becomes a task at once (opts, which may be NULL,
 * are its options).  loop: where; NULL: as heist_create_task.
 * Context: any; a coroutine with no loop: task or callback.  Suspends: never.  Ownership: *out is one reference; on
 * failure the caller still owns arg.  Errors: -EINVAL (neither or both), for a coroutine those of
 * heist_loop_create_task. */
#define heist_ensure_future(loop, awaitable, opts, out)                                                                \
    heist_ensure_future_at(__FILE__, __LINE__, (loop), (awaitable), (opts), (out))
HEIST_API int heist_ensure_future_at(const char *file, int line, heist_loop *loop, heist_awaitable awaitable,
                                     const heist_task_options *opts, heist_future **out);
/* The same for n of them, out being an array of n: for gather, wait, as_completed.  All or nothing: when one cannot be
 * made, the tasks made before are cancelled and let go, out is untouched, and *made (may be NULL) says how many of the
 * awaitables, from the first, were made: their arguments have passed on.  opts are for all tasks alike. */
#define heist_ensure_futures(loop, awaitables, n, opts, made, out)                                                     \
    heist_ensure_futures_at(__FILE__, __LINE__, (loop), (awaitables), (n), (opts), (made), (out))
HEIST_API int heist_ensure_futures_at(const char *file, int line, heist_loop *loop, const heist_awaitable *awaitables,
                                      size_t n, const heist_task_options *opts, size_t *made, heist_future **out);

/* Drops n references, and leaves the array alone.  Entries may be NULL.  Context: any.  Suspends: never. */
HEIST_API void heist_unref_all(heist_future *const *futures, size_t n);

HEIST_END_DECLS

#endif
