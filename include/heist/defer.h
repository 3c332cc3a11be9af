/* heist/defer.h: clean-up that always runs.
 *
 * heist_defer(fn, arg) has fn(arg) called when the block that it stands in is left, on every way out (its end, return,
 * break, goto; in C++ an exception too), the last one first.  It needs no memory and cannot fail:
 *
 *     static int body(void *arg, void **out) {
 *         heist_conn *c;
 *         int err = heist_connect(…, &c);
 *         if (err) return err;
 *         heist_defer(close_conn, c);
 *         …                                      (any return closes it)
 *     }
 *
 * An exit stack is for what is not known before: clean-ups that are added while the program runs, in a loop or by
 * other functions, and that want to know how the block ended (asyncio's AsyncExitStack).  For one pair of
 * steps see heist/with.h.
 *
 * Clean-up runs in the task itself and may suspend, also when the task was cancelled.  While one runs, requests to
 * cancel are held (heist_uncancellable_begin), so that it is not left half done; give its waits a deadline.
 *
 * Undefined: to jump over one into the rest of its block (goto, a later case of a switch): the clean-up runs then, and
 * nothing was deferred.  What ends without running the rest of a block runs no clean-up: exit, longjmp, a task that
 * never began. */
#ifndef HEIST_DEFER_H
#define HEIST_DEFER_H

#include <heist/base.h>
#include <heist/with.h>

HEIST_BEGIN_DECLS

/* ---- at the end of a block ---- */

/* A clean-up.  May suspend where the block may. */
typedef void (*heist_defer_fn)(void *arg);

typedef struct heist_deferred {
    heist_defer_fn fn;
    void *arg;
} heist_deferred;
/* What the macro has called at the end of the block; not for direct use. */
HEIST_API void heist_deferred_run(heist_deferred *d);

#define HEIST_DEFER_NAME2(line, n) heist_deferred_##line##_##n
#define HEIST_DEFER_NAME(line, n) HEIST_DEFER_NAME2(line, n)
/* A declaration; arg is evaluated here and now. */
#define heist_defer(fn, arg)                                                                                           \
    __attribute__((cleanup(heist_deferred_run), unused)) heist_deferred HEIST_DEFER_NAME(__LINE__,                     \
                                                                                         __COUNTER__) = {(fn), (arg)}

/* ---- exit stacks ---- */

/* Steps to take at the end, in the memory of their user, and used by one at a time.  Zeros: empty. */
typedef struct heist_exit_stack {
    void *opaque[3];
} heist_exit_stack;
#define HEIST_EXIT_STACK_INIT                                                                                          \
    {                                                                                                                  \
        { NULL, NULL, NULL }                                                                                           \
    }

/* A step: code is how the block ended so far, 0 or negative.  0: that stays.  1: a failure is dealt with.  Negative:
 * the step has failed, and its code takes the other's place.  (As the exit of heist/with.h.) */
typedef int (*heist_exit_fn)(void *arg, int code);

/* Adds a step; the second form adds one that does not ask how the block ended.
 * Context: any.  Suspends: never.  Ownership: on failure nothing was added, and clean-up is the caller's.
 * Errors: -ENOMEM, -EINVAL. */
HEIST_API int heist_exit_stack_push(heist_exit_stack *s, heist_exit_fn fn, void *arg);
HEIST_API int heist_exit_stack_defer(heist_exit_stack *s, heist_defer_fn fn, void *arg);
/* Runs ops->enter and adds ops->exit.  Room is made first: when this fails with -ENOMEM nothing was entered
 * (or, where enter itself added steps to the stack, it was left again).
 * Context: any.  Suspends: may (where enter does).  Ownership: ops and manager are used until the exit has run.
 * Errors: also the code of enter: then there is no exit. */
HEIST_API int heist_exit_stack_enter(heist_exit_stack *s, const heist_with_ops *ops, void *manager, void **out);

/* Moves all steps to another stack, which was empty: what was prepared shall live on (asyncio's pop_all).
 * Context: any.  Suspends: never.  Errors: -EINVAL, -EBUSY (the other one is not empty). */
HEIST_API int heist_exit_stack_move(heist_exit_stack *from, heist_exit_stack *to);

/* Runs the steps, the last one added first, each with the code that those before it have left, and gives the code that
 * is left at the end: `return heist_exit_stack_close(&stack, err);`  Steps may add steps.  The stack is empty then.
 * Context: any.  Suspends: may (where the steps do).  Errors: that code; -EINVAL. */
HEIST_API int heist_exit_stack_close(heist_exit_stack *s, int code);

HEIST_END_DECLS

#endif
