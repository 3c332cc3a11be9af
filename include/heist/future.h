/* heist/future.h: a result that will come.
 *
 * A future is pending, or done with a value, an error, or cancelled.  Reference
 * counted and thread-safe: every call here may be made from any thread.  A task is
 * a future whose result a coroutine computes; only set_result and set_exception
 * refuse it.  Completion happens-before every await of it returns. */
#ifndef HEIST_FUTURE_H
#define HEIST_FUTURE_H

#include <heist/base.h>

HEIST_BEGIN_DECLS

/* States, for heist_future_state. */
#define HEIST_PENDING 0   /* not done; a task has not begun or is suspended */
#define HEIST_RUNNING 1   /* a task whose body runs at this moment */
#define HEIST_DONE 2      /* with a value or an error */
#define HEIST_CANCELLED 3 /* ended by cancellation */

/* A pending future.  loop: where its done callbacks run; NULL: the caller's running loop, else none, and
 * then they run in the completing thread with no lock held.
 * Context: any.  Suspends: never.  Ownership: *out is one reference.  Errors: -ENOMEM, HEIST_ECLOSED. */
HEIST_API int heist_future_new(heist_loop *loop, heist_future **out) HEIST_NODISCARD;
/* asyncio's name for the same with a loop given. */
HEIST_API int heist_loop_create_future(heist_loop *loop, heist_future **out) HEIST_NODISCARD;

/* Context: any.  Suspends: never.  NULL is allowed in unref.  Dropping the last user reference of a task
 * detaches it: it runs on. */
HEIST_API heist_future *heist_ref(heist_future *f);
HEIST_API void heist_unref(heist_future *f);

/* ---- completing ---- */

/* Ends a pending future with a value, or with a negative code and a message (may be NULL, copied).
 * -ECANCELED as code cancels.  value_free (may be NULL) runs once on the value when the last reference
 * goes, unless it was taken.  Exactly one completion wins.
 * Context: any.  Suspends: never; done callbacks and waiters run later.  Ownership: the value passes to
 * the future; on failure the caller still owns it.
 * Errors: HEIST_EINVALSTATE (done already), -ENOTSUP (a task), -EINVAL. */
HEIST_API int heist_future_set_result(heist_future *f, void *value, heist_free_fn value_free);
HEIST_API int heist_future_set_exception(heist_future *f, int code, const char *message);

/* Asks for cancellation.  A plain future is cancelled at once.  A task gets one request: it is delivered
 * once, as -ECANCELED from the call in which it is suspended or from its next call that may suspend; if
 * it awaits a future, that is cancelled too.  A task that never ran ends without running.
 * message (may be NULL) is copied and found in the heist_exception.
 * Context: any, also the task itself.  Suspends: never.
 * Returns 1 when the request was recorded, 0 when it was done already, or a negative code. */
HEIST_API int heist_cancel(heist_future *f);
HEIST_API int heist_cancel_message(heist_future *f, const char *message);
/* Requests made and not taken back; uncancel lowers the count, never below zero, and returns what
 * remains; at zero a request that was not delivered yet is withdrawn.  0 for plain futures. */
HEIST_API int heist_cancelling(const heist_future *f);
HEIST_API int heist_uncancel(heist_future *f);

/* ---- asking ---- */

/* Context: any.  Suspends: never. */
HEIST_API int heist_future_state(const heist_future *f);
HEIST_API int heist_future_done(const heist_future *f);      /* 1 for value, error and cancellation */
HEIST_API int heist_future_cancelled(const heist_future *f); /* 1 only after the body has ended with it */
HEIST_API int heist_future_is_task(const heist_future *f);
HEIST_API heist_loop *heist_future_loop(const heist_future *f); /* borrowed; NULL when it has none */

/* The outcome of a done future, any number of times: 0 and the value (borrowed until the caller's
 * reference goes), or the code of the failure, or -ECANCELED.
 * Context: any.  Suspends: never.  Errors: HEIST_EINVALSTATE while pending, HEIST_ERESULTTAKEN. */
HEIST_API int heist_future_result(heist_future *f, void **out);
/* The same, and moves the value out: it is the caller's now, value_free will not run.  Once. */
HEIST_API int heist_future_take(heist_future *f, void **out);

/* The failure of a done future: code (0: it has a value), message and place, all borrowed. */
typedef struct heist_exception {
    size_t size;
    int code;
    const char *message; /* never NULL */
    const char *file;    /* NULL when the body recorded no place */
    int line;
} heist_exception;
#define HEIST_EXCEPTION_INIT {sizeof(heist_exception), 0, NULL, NULL, 0}
/* Context: any.  Suspends: never.  Errors: HEIST_EINVALSTATE while pending.  0 when out was filled,
 * whatever the outcome. */
HEIST_API int heist_future_exception(heist_future *f, heist_exception *out);

/* ---- done callbacks ---- */

typedef void (*heist_done_fn)(heist_future *f, void *user);

/* Runs fn(f, user) once f is done: on f's loop, in a later pass, in the order of adding (one that
 * is added while another thread completes f may come before earlier ones); with no loop, in
 * the completing thread, or at once when f is done.  Adding twice runs twice.
 * Context: any.  Suspends: never.  Ownership: a reference to f is held until it ran; user_free (may be
 * NULL) runs on user after fn, at removal, or when the loop is closed.  Errors: -ENOMEM, -EINVAL,
 * HEIST_ECLOSED; the caller then still owns user. */
HEIST_API int heist_future_add_done_callback(heist_future *f, heist_done_fn fn, void *user, heist_free_fn user_free);
/* Removes every instance of (fn, user) that was not scheduled yet; returns how many. */
HEIST_API int heist_future_remove_done_callback(heist_future *f, heist_done_fn fn, void *user);

/* ---- waiting ---- */

/* Waits until f is done and gives its outcome as heist_future_result does.
 * Context: any.  Suspends: may; a done future is taken at once.  Cancelling a task that waits here cancels
 * f, and the call returns when f has ended.  A task that has not begun may run within the call, on the
 * caller's stack; await the newest first, where the order is free: it costs a third.
 * Ownership: the caller holds a reference to f throughout.
 * Errors: the outcome's code; HEIST_ESELFAWAIT, HEIST_ENOTINCORO, -EINVAL, -ENOMEM. */
HEIST_API int heist_await(heist_future *f, void **out);
/* The same until an instant of heist_time(): then -ETIMEDOUT, and f goes on.  Cancelling the waiting task
 * does not cancel f: -ECANCELED at once. */
HEIST_API int heist_await_until(heist_future *f, double deadline, void **out);

/* Writes a printable form, as `<Task name='Task-3' finished result=0x…>`, always terminated; returns the
 * length it would have had.  Context: any. */
HEIST_API int heist_future_repr(heist_future *f, char *buf, size_t size);

HEIST_END_DECLS

#endif
