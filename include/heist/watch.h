/* heist/watch.h: one value that changes, and watchers that want the latest.
 *
 * A settings record, a state, a leader's address: whoever watches is woken when it has been
 * set again, and sees the latest value, not every one.  A watch belongs to no runtime. */
#ifndef HEIST_WATCH_H
#define HEIST_WATCH_H

#include <heist/base.h>

HEIST_BEGIN_DECLS

typedef struct heist_watch heist_watch;
typedef struct heist_watcher heist_watcher; /* what one watcher has seen */

typedef struct heist_watch_options {
    size_t size;    /* of this structure; set by the initialiser */
    unsigned flags; /* none yet: 0 */
    /* Where values are counted: value_ref for each time the value is given out, value_unref when it is replaced.
     * value_ref runs with the lock held: it must only count.  Both NULL (never one alone): values are
     * the users'. */
    void (*value_ref)(void *value);
    heist_free_fn value_unref;
} heist_watch_options;
#define HEIST_WATCH_OPTIONS_INIT {sizeof(heist_watch_options), 0, 0, 0}

/* A watch with its first value, version 0.  opts may be NULL.  Context: any.  Suspends: never.
 * Ownership: *out is one reference; a reference to the value goes with it, unless it fails.  Errors: -ENOMEM,
 * -EINVAL. */
HEIST_API int heist_watch_new(void *value, const heist_watch_options *opts, heist_watch **out) HEIST_NODISCARD;
/* Context: any.  Suspends: never.  Watchers hold a reference of their own. */
HEIST_API heist_watch *heist_watch_ref(heist_watch *w);
HEIST_API void heist_watch_unref(heist_watch *w);

/* Another value, one version later; wakes all that watch.  Context: any, callbacks too.  Suspends: never.
 * Ownership: a reference to the value goes with it, unless it fails.  Errors: HEIST_ESHUTDOWN (closed). */
HEIST_API int heist_watch_set(heist_watch *w, void *value);
/* The value now, and its version; either may be NULL.  Context: any.  Suspends: never.
 * Ownership: a reference to the value, by value_ref. */
HEIST_API int heist_watch_get(heist_watch *w, void **value, uint64_t *version);
/* It will change no more: watchers see the last value, then HEIST_ESHUTDOWN.  May be repeated.
 * Context: any.  Suspends: never. */
HEIST_API int heist_watch_close(heist_watch *w);

/* A watcher that has seen the value of now.  Context: any.  Suspends: never.  Ownership: *out is one reference.
 * Errors: -ENOMEM. */
HEIST_API int heist_watch_subscribe(heist_watch *w, heist_watcher **out) HEIST_NODISCARD;
HEIST_API heist_watcher *heist_watcher_ref(heist_watcher *w);
/* Context: any.  Suspends: never.  Undefined: while a call is in progress that has no reference of its own. */
HEIST_API void heist_watcher_unref(heist_watcher *w);

/* Waits until there is a value that this watcher has not seen, and gives the latest.
 * Context: any.  Suspends: may.  Ownership: a reference to the value, by value_ref.  Cancelled or timed out, it has
 * seen nothing.  Errors: HEIST_ESHUTDOWN (closed, and seen), -ECANCELED, HEIST_ENOTINCORO, -ENOMEM (the first wait of a
 * plain thread), and -ETIMEDOUT in the form with a deadline, an instant of heist_time(). */
HEIST_API int heist_watcher_changed(heist_watcher *w, void **out);
HEIST_API int heist_watcher_changed_until(heist_watcher *w, void **out, double deadline);
/* The same at once, or -EAGAIN.  Context: any, callbacks too.  Suspends: never. */
HEIST_API int heist_watcher_try_changed(heist_watcher *w, void **out);

HEIST_END_DECLS

#endif
