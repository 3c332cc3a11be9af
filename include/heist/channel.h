/* heist/channel.h: a bounded queue of pointers between tasks, with close.
 *
 * First in, first out; waiters are served in the order of their arrival.  A channel
 * belongs to no runtime: it joins tasks of several runtimes and plain threads.
 * Capacity 0 makes a rendezvous: a send returns when a receiver has the value. */
#ifndef HEIST_CHANNEL_H
#define HEIST_CHANNEL_H

#include <heist/base.h>

HEIST_BEGIN_DECLS

typedef struct heist_channel heist_channel;

/* Context: any.  Suspends: never.  Ownership: *out is one reference.  Errors: -ENOMEM, -EINVAL. */
HEIST_API int heist_channel_new(size_t capacity, heist_channel **out) HEIST_NODISCARD;
HEIST_API heist_channel *heist_channel_ref(heist_channel *c);
/* The last unref drops what is still queued (it is not freed: values are the users').
 * Undefined: while a send or recv is in progress without a reference of its own. */
HEIST_API void heist_channel_unref(heist_channel *c);

/* Context: any.  Suspends: may.  Cancelled or timed out, it sent nothing and took nothing.
 * Errors: HEIST_ESHUTDOWN (send: closed; recv: closed and empty), -ECANCELED, HEIST_ENOTINCORO, -ENOMEM (the first
 * wait of a plain thread), and -ETIMEDOUT in the forms with a deadline (an instant of heist_time()). */
HEIST_API int heist_channel_send(heist_channel *c, void *value);
HEIST_API int heist_channel_recv(heist_channel *c, void **out);
HEIST_API int heist_channel_send_until(heist_channel *c, void *value, double deadline);
HEIST_API int heist_channel_recv_until(heist_channel *c, void **out, double deadline);

/* The same at once or -EAGAIN.  Context: any, callbacks too.  Suspends: never. */
HEIST_API int heist_channel_try_send(heist_channel *c, void *value);
HEIST_API int heist_channel_try_recv(heist_channel *c, void **out);

/* No more sends; receivers get what is left, then HEIST_ESHUTDOWN.  Senders that wait get it at once and
 * keep their values.  Idempotent.  Context: any.  Suspends: never. */
HEIST_API int heist_channel_close(heist_channel *c);
/* Values waiting now.  Context: any. */
HEIST_API size_t heist_channel_size(heist_channel *c);

HEIST_END_DECLS

#endif
