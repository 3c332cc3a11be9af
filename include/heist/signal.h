/* heist/signal.h: signals of the system, as callbacks on a loop and as something to wait for.
 *
 * The library touches a signal only while somebody has asked for it here.  Then it has a handler of its own, which only
 * leaves word; the default action does not happen.  When the last one who asked has gone, what was there before is
 * put back.  A handler that the program installed itself is left alone (-EBUSY) unless HEIST_SIGNAL_REPLACE is given.
 *
 * A callback for a signal belongs to one loop, whichever it is; tasks that wait may be many, and all of them hear, and
 * so does the callback.  While any of them is there, a SIGINT does not cancel the main of a run (HEIST_RUNTIME_SIGINT).
 *
 * Signals coalesce, as they do in the system: several that come before the callback has run are one call, and each
 * is followed by a call that begins after it.  Workers block signals: another thread takes them, the one
 * that called heist_run at least.  A signal that every thread of the process blocks comes to nobody.
 *
 * SIGKILL and SIGSTOP cannot be caught, and faults (SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS) are no messages:
 * -EPERM.
 * In a child made by fork a signal is as if the library had never had it. */
#ifndef HEIST_SIGNAL_H
#define HEIST_SIGNAL_H

#include <heist/base.h>

HEIST_BEGIN_DECLS

typedef struct heist_signal_options {
    size_t size; /* of this structure, set by the initialiser */
    unsigned flags;
    heist_free_fn arg_free; /* as in heist_call_options, with the next two; of callbacks alone */
    const char *name;
    heist_context *context;
} heist_signal_options;
#define HEIST_SIGNAL_REPLACE 0x1u /* also from a handler of the program's own, which comes back at the end */
#define HEIST_SIGNAL_OPTIONS_INIT {sizeof(heist_signal_options), 0, NULL, NULL, NULL}

/* ---- callbacks ---- */

/* Runs fn(arg) on the loop, as any callback, after each signal `sig`; replaces what this loop had for it.
 * A sleeping loop wakes at once.
 * Context: any.  Suspends: never.  Ownership: opts.arg_free runs on arg when the handler is removed or replaced, or its
 * loop is closed; on failure the caller still owns arg.
 * Errors: -EINVAL (no signal, NULL), -EPERM (it cannot be caught), -EBUSY (another loop has it, or the program itself;
 * or opts.context is in use), HEIST_ECLOSED, -ENOMEM. */
HEIST_API int heist_loop_add_signal_handler(heist_loop *loop, int sig, heist_callback_fn fn, void *arg,
                                            const heist_signal_options *opts);
/* 1 when this loop had one, which is no longer called (but may be running, on its loop's thread), 0 when it had none,
 * also on a closed loop.  Closing a loop removes all of its handlers.
 * Context: any.  Suspends: never.  Errors: -EINVAL, -EPERM. */
HEIST_API int heist_loop_remove_signal_handler(heist_loop *loop, int sig);

/* ---- waiting ---- */

/* Hears of some signals from open to close. */
typedef struct heist_signals heist_signals;

/* Context: any.  Suspends: never.  Ownership: *out is the caller's, ended by close; the array is copied.
 * Errors: -EINVAL (none, or no signal, or one of them twice), -EPERM, -EBUSY (the program has a handler), -EMFILE and
 * the like, -ENOMEM. */
HEIST_API int heist_signals_open(const int *signals, size_t count, const heist_signal_options *opts,
                                 heist_signals **out) HEIST_NODISCARD;
/* Waits for one of them: its number.  Of several that have come the lowest is first.  One task at a time.
 * Context: task.  Suspends: may.
 * Errors: -ETIMEDOUT, -ECANCELED (both took nothing), HEIST_ECLOSED (closed meanwhile), -EBUSY (another task waits),
 * -EINVAL. */
HEIST_API int heist_signals_next(heist_signals *s, double deadline);
/* The number of one that has come, or 0.  Context: any.  Suspends: never. */
HEIST_API int heist_signals_try_next(heist_signals *s);
/* NULL is allowed.  A task that waits gets HEIST_ECLOSED.  Context: any.  Suspends: never.
 * Undefined: any use after it, except by the call that it wakes. */
HEIST_API void heist_signals_close(heist_signals *s);

/* Open, next and close in one: waits for one signal, and gives its number.  One that comes before or after the call is
 * not heard by it.  Context: task.  Suspends: may.  Errors: those of the three. */
HEIST_API int heist_signal_wait(const int *signals, size_t count, double deadline);

HEIST_END_DECLS

#endif
