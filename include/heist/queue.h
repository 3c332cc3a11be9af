/* heist/queue.h: asyncio's queues: first in first out, last in first out, or by priority,
 * bounded or not, with join and shutdown.
 *
 * Those who wait are served in the order of their arrival.  A queue belongs to no runtime:
 * it joins tasks of several runtimes and plain threads, which block in the same calls, so
 * this is Python's queue.Queue too.  Items are pointers, and NULL is one like any other.
 * asyncio's QueueEmpty and QueueFull are -EAGAIN here, its QueueShutDown HEIST_ESHUTDOWN.
 *
 * (heist/channel.h is the smaller thing: no join, no other order than first in first out, and capacity 0 hands
 * over from hand to hand.) */
#ifndef HEIST_QUEUE_H
#define HEIST_QUEUE_H

#include <heist/base.h>

HEIST_BEGIN_DECLS

typedef struct heist_queue heist_queue;

/* Which of two items comes out first: negative: a; positive: b; 0: the one that was put first.
 * Called by put and get with the queue's lock held: it must only compare, and calls nothing of this library. */
typedef int (*heist_compare_fn)(const void *a, const void *b, void *user);

#define HEIST_QUEUE_FIFO 0u     /* the oldest item comes out first */
#define HEIST_QUEUE_LIFO 1u     /* the newest */
#define HEIST_QUEUE_PRIORITY 2u /* the smallest by `compare`; equal ones in the order of their put */

typedef struct heist_queue_options {
    size_t size;              /* of this structure; set by the initialiser */
    unsigned order;           /* HEIST_QUEUE_FIFO, …_LIFO or …_PRIORITY */
    unsigned flags;           /* none yet: 0 */
    heist_compare_fn compare; /* with HEIST_QUEUE_PRIORITY, and only there */
    void *user;               /* its third argument */
    heist_free_fn item_free;  /* or NULL: for each item that shutdown or the last unref drops */
} heist_queue_options;
#define HEIST_QUEUE_OPTIONS_INIT {sizeof(heist_queue_options), 0, 0, 0, 0, 0}

/* A queue of at most maxsize items; 0 or less: as many as memory holds, and it is never full.  opts may be NULL.
 * Context: any.  Suspends: never.  Ownership: *out is one reference.  Errors: -ENOMEM, -EINVAL. */
HEIST_API int heist_queue_new(long long maxsize, const heist_queue_options *opts, heist_queue **out) HEIST_NODISCARD;
/* Context: any.  Suspends: never.  Ownership: one reference more. */
HEIST_API heist_queue *heist_queue_ref(heist_queue *q);
/* The last unref frees what is left in it.  Context: any.  Suspends: never.
 * Undefined: while a call is in progress that has no reference of its own. */
HEIST_API void heist_queue_unref(heist_queue *q);

/* Puts an item in, and takes one out; on a full queue, or an empty one, they wait.
 * Context: any.  Suspends: may.  Ownership: the item is the queue's when put has returned 0, and the caller's when
 * it has failed; it is the caller's when get has returned 0.  Cancelled or timed out, they put and took nothing.
 * Errors: HEIST_ESHUTDOWN (put: shut down; get: shut down, and empty or shut down at once), -ECANCELED,
 * HEIST_ENOTINCORO, -ENOMEM (put: a queue of more than 1,024 must grow; the first wait of a plain thread), and
 * -ETIMEDOUT in the forms with a deadline, an instant of heist_time(), when it is over; one that is over before serves
 * without waiting.  -EINVAL: the deadline is no number. */
HEIST_API int heist_queue_put(heist_queue *q, void *item);
HEIST_API int heist_queue_get(heist_queue *q, void **out);
HEIST_API int heist_queue_put_until(heist_queue *q, void *item, double deadline);
HEIST_API int heist_queue_get_until(heist_queue *q, void **out, double deadline);

/* The same at once, or -EAGAIN: full, or empty.  Context: any, callbacks too.  Suspends: never. */
HEIST_API int heist_queue_put_nowait(heist_queue *q, void *item);
HEIST_API int heist_queue_get_nowait(heist_queue *q, void **out);

/* One item that was got has been dealt with.  Context: any.  Suspends: never.
 * Errors: -EINVAL, called more often than items were put. */
HEIST_API int heist_queue_task_done(heist_queue *q);
/* Waits until each item that was put has been dealt with; at once when there is none.
 * Context: any.  Suspends: may.  Errors: -ECANCELED, HEIST_ENOTINCORO, -ETIMEDOUT, -ENOMEM (the first wait of a plain
 * thread). */
HEIST_API int heist_queue_join(heist_queue *q);
HEIST_API int heist_queue_join_until(heist_queue *q, double deadline);

/* No more puts: HEIST_ESHUTDOWN, also for those that wait, who keep their items.  Gets go on until the queue is
 * empty, then they get HEIST_ESHUTDOWN too.  With HEIST_QUEUE_IMMEDIATE the items are dropped now (item_free runs for
 * each, in this call) and count as dealt with, so joins return once those that were got have been.  May be repeated.
 * Context: any.  Suspends: never.  Errors: -EINVAL, unknown flags. */
#define HEIST_QUEUE_IMMEDIATE 1u
HEIST_API int heist_queue_shutdown(heist_queue *q, unsigned flags);

/* How it stands at this moment; old when it is read if others use the queue.  Context: any.  Suspends: never.
 * NULL, or in a forked child: 0.  empty and full are 0 or 1. */
HEIST_API size_t heist_queue_qsize(heist_queue *q);
HEIST_API int heist_queue_empty(heist_queue *q);
HEIST_API int heist_queue_full(heist_queue *q);
/* 0: without bound. */
HEIST_API size_t heist_queue_maxsize(const heist_queue *q);

HEIST_END_DECLS

#endif
