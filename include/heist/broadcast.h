/* heist/broadcast.h: every receiver sees every value.
 *
 * The last `capacity` values are kept.  A sender never waits: a receiver that falls behind
 * by more than that has lost the oldest ones, is told so once, and goes on with the oldest
 * that is kept.  A broadcast belongs to no runtime: it joins tasks of several runtimes and
 * plain threads. */
#ifndef HEIST_BROADCAST_H
#define HEIST_BROADCAST_H

#include <heist/base.h>

HEIST_BEGIN_DECLS

typedef struct heist_broadcast heist_broadcast;
typedef struct heist_receiver heist_receiver; /* one place in the row of values */

typedef struct heist_broadcast_options {
    size_t size;    /* of this structure; set by the initialiser */
    unsigned flags; /* none yet: 0 */
    /* Where values are counted: value_ref for each receiver that is given the value, value_unref when it is no longer
     * kept.  value_ref runs with the lock held: it must only count.  Both NULL (never one
     * alone): values are the users', and must stand as long as anybody may receive them. */
    void (*value_ref)(void *value);
    heist_free_fn value_unref;
} heist_broadcast_options;
#define HEIST_BROADCAST_OPTIONS_INIT {sizeof(heist_broadcast_options), 0, 0, 0}

/* Keeps the last `capacity` values, at least 1.  opts may be NULL.
 * Context: any.  Suspends: never.  Ownership: *out is one reference.  Errors: -ENOMEM, -EINVAL. */
HEIST_API int heist_broadcast_new(size_t capacity, const heist_broadcast_options *opts, heist_broadcast **out)
    HEIST_NODISCARD;
/* Context: any.  Suspends: never.  The last unref gives up what is kept.  Receivers hold a reference of their own. */
HEIST_API heist_broadcast *heist_broadcast_ref(heist_broadcast *b);
HEIST_API void heist_broadcast_unref(heist_broadcast *b);

/* Sends a value to all receivers that there are now: their number, perhaps 0.
 * Context: any, callbacks too.  Suspends: never.  Ownership: a reference to the value goes with it, unless it fails.
 * Errors: HEIST_ESHUTDOWN (closed). */
HEIST_API int heist_broadcast_send(heist_broadcast *b, void *value);
/* No more sends; receivers get what is kept, then HEIST_ESHUTDOWN.  May be repeated.  Context: any.  Suspends:
 * never. */
HEIST_API int heist_broadcast_close(heist_broadcast *b);
/* Receivers now.  Context: any.  Suspends: never. */
HEIST_API size_t heist_broadcast_receivers(heist_broadcast *b);

/* A new receiver: of what is sent from now on.
 * Context: any.  Suspends: never.  Ownership: *out is one reference.  Errors: -ENOMEM. */
HEIST_API int heist_broadcast_subscribe(heist_broadcast *b, heist_receiver **out) HEIST_NODISCARD;
HEIST_API heist_receiver *heist_receiver_ref(heist_receiver *r);
/* The last unref ends the subscription.  Context: any.  Suspends: never.
 * Undefined: while a call is in progress that has no reference of its own. */
HEIST_API void heist_receiver_unref(heist_receiver *r);

/* The next value.  Callers that share a receiver share its values out among them.
 * Context: any.  Suspends: may.  Ownership: a reference to the value, by value_ref.  Cancelled or timed out, it took
 * nothing.  Errors: HEIST_ELAGGED (values were lost since the last call, heist_receiver_lost says how many; the next
 * call gives the oldest that is kept), HEIST_ESHUTDOWN (closed, and all seen), -ECANCELED, HEIST_ENOTINCORO, -ENOMEM
 * (the first wait of a plain thread), and -ETIMEDOUT in the form with a deadline, an instant of heist_time(). */
HEIST_API int heist_receiver_recv(heist_receiver *r, void **out);
HEIST_API int heist_receiver_recv_until(heist_receiver *r, void **out, double deadline);
/* The same at once, or -EAGAIN.  Context: any, callbacks too.  Suspends: never. */
HEIST_API int heist_receiver_try_recv(heist_receiver *r, void **out);
/* Values that this receiver has lost since it was made.  Context: any.  Suspends: never. */
HEIST_API uint64_t heist_receiver_lost(heist_receiver *r);

HEIST_END_DECLS

#endif
