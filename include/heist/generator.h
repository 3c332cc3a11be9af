/* heist/generator.h: values made one at a time, when somebody asks.
 *
 *     static int count(heist_generator *self, void *arg, void **out) {
 *         for (int *n = arg; *n < 3; (*n)++) {
 *             int err = heist_generator_yield(self, n, NULL);
 *             if (err < 0) return err;
 *         }
 *         return 0;
 *     }
 *     heist_foreach (value, generator, &err) printf("%d\n", *(int *)value);
 *
 * The body is a function with a stack of its own, driven by hand: next runs it to its next yield, in the middle of
 * whatever calls, by one switch between two stacks; no scheduler takes part.  Any task, callback or plain thread may
 * drive it, one at a time, and each step may come from another thread.
 *
 * The body runs as part of the caller.  In a task it may await, sleep, lock: then the whole task suspends, and other
 * tasks run meanwhile; its cancellation arrives in the body.  So generators and asyncio's asynchronous generators
 * are one thing: next, send, throw and close are also anext, asend, athrow and aclose.
 *
 * Who has values and no body (an array, a list, a decoder) makes an iterator of two functions instead: everything
 * here takes both. */
#ifndef HEIST_GENERATOR_H
#define HEIST_GENERATOR_H

#include <heist/base.h>

HEIST_BEGIN_DECLS

typedef struct heist_generator heist_generator;

/* The body.  Returns 0 with its return value in *out (NULL unless set), or a negative code, which next gives to
 * whoever drives it.  A body that returns HEIST_ESTOP fails with HEIST_EFAILED: the end of another generator, handed
 * on unseen, would look like its own. */
typedef int (*heist_generator_fn)(heist_generator *self, void *arg, void **out);

/* ---- making ---- */

/* By the caller's word no two drive it at the same time: a step costs a third less, for the check that finds them is
 * left out.  The body itself is still found.  Going from hand to hand is as good as ever. */
#define HEIST_GENERATOR_UNSHARED 0x1u

typedef struct heist_generator_options {
    size_t size;
    unsigned flags;            /* HEIST_GENERATOR_…; an unknown flag is -EINVAL */
    size_t stack_bytes;        /* 16 KiB to 8 MiB; 0: 64 KiB */
    heist_free_fn arg_free;    /* runs once on arg: after the body, or when it never runs */
    heist_free_fn result_free; /* runs once on the return value, with the last reference */
} heist_generator_options;
#define HEIST_GENERATOR_OPTIONS_INIT {sizeof(heist_generator_options), 0, 0, NULL, NULL}

/* Nothing of the body runs, and it has no stack, before the first next.
 * Context: any.  Suspends: never.  Ownership: *out is one reference; on failure the caller still owns arg.
 * Errors: -EINVAL, -ENOMEM. */
HEIST_API int heist_generator_new(heist_generator_fn fn, void *arg, const heist_generator_options *opts,
                                  heist_generator **out) HEIST_NODISCARD;

/* An iterator of the user's: what next calls.  The functions are called by one caller at a time. */
typedef struct heist_iterator_ops {
    size_t size;
    int (*next)(void *state, void **out); /* 0 and a value; HEIST_ESTOP, and *out the return value; or a code */
    int (*close)(void *state);            /* NULL, or: it ends early, or next has failed.  At most once; may suspend */
    heist_free_fn free;                   /* NULL, or: the last reference went.  Must not suspend */
} heist_iterator_ops;

/* Context: any.  Suspends: never.  Ownership: as above; ops is borrowed for the life of the generator.  What next
 * may suspend, the generator's next may.  send gives no value to an iterator, and throw ends it. */
HEIST_API int heist_generator_of(const heist_iterator_ops *ops, void *state, heist_generator **out) HEIST_NODISCARD;
/* The n pointers of an array, which is borrowed. */
HEIST_API int heist_generator_of_array(void *const *values, size_t n, heist_generator **out) HEIST_NODISCARD;

/* Context: any.  NULL is allowed in unref.  The last unref of a generator that is suspended closes it there and
 * then, as a destructor does: calls of its body that would suspend get HEIST_ENOTINCORO (a plain thread blocks).  Close
 * it first when its clean-up must wait.  A body that yields instead of ending is reported, and its frames are dropped.
 */
HEIST_API heist_generator *heist_generator_ref(heist_generator *g);
HEIST_API void heist_generator_unref(heist_generator *g);

/* ---- asking ---- */

#define HEIST_GENERATOR_CREATED 0   /* nothing of the body has run */
#define HEIST_GENERATOR_RUNNING 1   /* somebody is inside */
#define HEIST_GENERATOR_SUSPENDED 2 /* at a yield */
#define HEIST_GENERATOR_CLOSED 3    /* ended */

#define HEIST_GENERATOR_BODY 0     /* heist_generator_new */
#define HEIST_GENERATOR_ITERATOR 1 /* heist_generator_of, heist_buffered and the like */

/* Context: any.  Suspends: never. */
HEIST_API int heist_generator_state(const heist_generator *g);
HEIST_API int heist_generator_kind(const heist_generator *g);
/* How it ended: 0 and the return value (borrowed until the last reference goes), its code, or HEIST_EGENEXIT when it
 * was closed before it came to its end.  Errors: HEIST_EINVALSTATE before the end. */
HEIST_API int heist_generator_result(heist_generator *g, void **out);

/* ---- driving it ----
 *
 * Context: any.  Suspends: may (where the body does; a step itself is no cancellation point).
 * 0: *out is the value of the yield at which the body stands (out may be NULL).
 * HEIST_ESTOP: it has ended, now or before; heist_generator_result has the return value.
 * Any other code of the body: once, from the call in which it ended; after that HEIST_ESTOP.
 * Errors: -EBUSY (somebody is inside: also the body itself), -ENOMEM (no stack: it is still to begin), -EINVAL. */
HEIST_API int heist_generator_next(heist_generator *g, void **out);
/* The yield at which the body stands gives `value`.  Before the first next only NULL can be sent: HEIST_ENOTSTARTED. */
HEIST_API int heist_generator_send(heist_generator *g, void *value, void **out);
/* The yield at which the body stands returns `code` (negative).  A body that has not begun ends with it and does not
 * run; one that has ended changes nothing: both return code. */
HEIST_API int heist_generator_throw(heist_generator *g, int code, void **out);
/* Ends it: the yield at which the body stands returns HEIST_EGENEXIT, and the body cleans up and returns.  0 when it
 * ended by that or returned 0, or had ended, or had not begun; else its code.
 * Context: any.  Suspends: may (where the body does).  Never fails with -ECANCELED unless the body does.
 * Errors: HEIST_EIGNOREDCLOSE (it yielded instead: it is suspended there, the value is dropped), -EBUSY, -EINVAL. */
HEIST_API int heist_generator_close(heist_generator *g);

/* ---- inside the body ---- */

/* Gives value to whoever drives the generator, and waits there for the next step.  0: *sent is what was sent, NULL for
 * next (sent may be NULL); or the code that was thrown: clean up and return it.  The body may go on in another thread.
 * Context: the body of self, or a function it calls.  Suspends: may.
 * Errors: -EINVAL anywhere else.  Undefined: in a task that the body awaits; a block of the task's (heist_group,
 * heist_context_run, a section that is blocking or uncancellable) that begins in the body and ends outside, or the
 * other way round: between two yields it is as good as anywhere, and so are steps within a block of the driver's.  (Of
 * blocks with a deadline heist/timeout.h tells.) */
HEIST_API int heist_generator_yield(heist_generator *self, void *value, void **sent);
/* Delegates to inner until its end: its values come out of self; what is sent to self, thrown or closed goes to inner.
 * 0 and inner's return value, or its code; when self is closed, HEIST_EGENEXIT after inner was closed.
 * Context: the body of self.  Suspends: may.  Ownership: inner stays the caller's. */
HEIST_API int heist_generator_delegate(heist_generator *self, heist_generator *inner, void **result);

/* ---- all of it ---- */

/* Runs the statement once for each value.  *err is 0 while it runs and after a break; HEIST_ESTOP after the last value
 * (the place for what Python writes behind else); or the code with which the generator failed.  It is closed on every
 * way out, also by break, return and goto; when that fails after a break, *err is the code of it.
 *     value: a void * of the caller;  generator: not released;  err: the address of an int. */
#define heist_foreach(value, generator, err)                                                                           \
    for (heist_foreach_state HEIST__FOREACH_NAME(__LINE__)                                                             \
             __attribute__((__cleanup__(heist_foreach_end))) = {(generator), (err)};                                   \
         heist_foreach_next(&HEIST__FOREACH_NAME(__LINE__), &(value));)
#define HEIST__FOREACH_NAME(line) HEIST__FOREACH_JOIN(heist__foreach_, line)
#define HEIST__FOREACH_JOIN(a, b) HEIST__FOREACH_PASTE(a, b)
#define HEIST__FOREACH_PASTE(a, b) a##b

/* For the macro. */
typedef struct heist_foreach_state {
    heist_generator *generator;
    int *err;
} heist_foreach_state;
/* Context: any.  Suspends: may (where the body does). */
HEIST_API int heist_foreach_next(heist_foreach_state *s, void **value);
HEIST_API void heist_foreach_end(heist_foreach_state *s);

/* Says of a value whether it is wanted: 1, 0, or a code that ends the collecting.  May suspend. */
typedef int (*heist_filter_fn)(void *value, void *arg);

/* The values that are left, in their order, those for which keep (may be NULL: all) gives 1.  The generator is closed.
 * Context: any.  Suspends: may (where the body or keep does).  Ownership: *out is the caller's, released by
 * heist_values_free; it holds *count pointers.  Errors: the generator's code, or keep's; -ENOMEM; then there is no
 * array. */
HEIST_API int heist_generator_collect(heist_generator *g, heist_filter_fn keep, void *arg, void ***out, size_t *count);

/* Context: any.  Suspends: never.  NULL is allowed. */
HEIST_API void heist_values_free(void **values);

HEIST_END_DECLS

#endif
