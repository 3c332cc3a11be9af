/* heist/base.h: attributes, forward declarations and the three function types.
 *
 * The vocabulary of the contracts in these headers, in five short lines:
 *   Context    who may call: *task* (a coroutine that runs as a task), *callback*
 *              (a handle, done callback, reader, destructor), *plain thread* (any
 *              thread that does not run a worker), or *any* of the three.
 *   Suspends   *never*, or *may*: a task suspends, a plain thread blocks, and a
 *              callback gets HEIST_ENOTINCORO at once.  A call that may suspend is
 *              a cancellation point every time it is made from a task.
 *   Ownership  which references and memory change hands, and when.
 *   Errors     0 or a count on success, a negative code otherwise (heist/error.h).
 *              Out-parameters come last and are untouched on failure.
 *   Undefined  what the caller must never do.
 * A line that would say "nothing special" is left out.  Whatever the context, a
 * call in a forked child is HEIST_EFORKED.  Times are `double` seconds; deadlines
 * are instants of heist_time().  errno carries nothing across a suspension. */
#ifndef HEIST_BASE_H
#define HEIST_BASE_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define HEIST_API __attribute__((visibility("default")))
#define HEIST_NODISCARD __attribute__((warn_unused_result))
#define HEIST_PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define HEIST_API
#define HEIST_NODISCARD
#define HEIST_PRINTF_LIKE(fmt, args)
#endif

#ifdef __cplusplus
#define HEIST_BEGIN_DECLS extern "C" {
#define HEIST_END_DECLS }
#else
#define HEIST_BEGIN_DECLS
#define HEIST_END_DECLS
#endif

#if defined(__GNUC__)
#define HEIST_MAY_ALIAS __attribute__((may_alias))
#else
#define HEIST_MAY_ALIAS
#endif

HEIST_BEGIN_DECLS

/* What an object that lives in its user's memory (a lock, an event …) is made of.  Its words are the library's. */
typedef uint64_t HEIST_MAY_ALIAS heist_word;

typedef struct heist_runtime heist_runtime; /* N workers that steal from each other */
typedef struct heist_loop heist_loop;       /* one worker's callbacks, timers, descriptors */
typedef struct heist_handle heist_handle;   /* a scheduled callback */
typedef struct heist_future heist_future;   /* a result that will come */
typedef struct heist_future heist_task;     /* a future that a coroutine computes */
typedef struct heist_context heist_context; /* values of context variables; heist/context.h */

/* A coroutine: a C function that may suspend.  Returns 0 with its result in *out
 * (NULL unless set), or a negative code.  Calling one from another is a plain
 * function call.  Never put the address of a local of the body in *out. */
typedef int (*heist_coro_fn)(void *arg, void **out);

/* A callback: runs on a loop, never suspends.  A negative return goes to the
 * loop's exception handler; HEIST_EFATAL also ends the run call. */
typedef int (*heist_callback_fn)(void *arg);

/* A destructor for an argument or a result: runs exactly once on every path, on
 * any thread, with no lock held.  It must not suspend. */
typedef void (*heist_free_fn)(void *ptr);

/* A deadline that never comes. */
#define HEIST_FOREVER (__builtin_inf())

HEIST_END_DECLS

#endif
