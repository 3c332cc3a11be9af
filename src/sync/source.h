/* What gives each of its values to every subscriber: broadcasts and watches.
 *
 * A watch is a broadcast that keeps one value, has it from birth, and does not tell those who were
 * late that they have missed some.  So there is one kind, and broadcast.c and watch.c give its
 * calls their names and their checks.  See source.c. */
#ifndef HEIST_SYNC_SOURCE_H
#define HEIST_SYNC_SOURCE_H

#include <stddef.h>

#include "base/list.h"
#include "sync/port.h"

/* Of either kind of options, which have the same fields. */
typedef void (*heist__value_ref_fn)(void *value);

struct heist__source {
    struct heist__port port;
    size_t capacity; /* birth, as the next three */
    bool latest;     /* a watch */
    heist__value_ref_fn value_ref;
    heist_free_fn value_unref;
    _Atomic(uint32_t) refs;

    uint64_t sent; /* under the lock, as all below */
    size_t kept, subscribers;
    struct heist__link hungry; /* subscribers; see source.c */
    void *ring[];
};

struct heist__subscriber {
    struct heist__source *source; /* one reference */
    _Atomic(uint32_t) refs;
    uint64_t next, lost; /* under the source's lock, as all below */
    struct heist__waitq callers;
    struct heist__link hungry; /* in the source's list, or in none */
};

/* 0, -ENOMEM, HEIST_EFORKED. */
int heist__source_new(size_t capacity, bool latest, heist__value_ref_fn ref, heist_free_fn unref,
                      struct heist__source **out);
struct heist__source *heist__source_ref(struct heist__source *s);
void heist__source_unref(struct heist__source *s);

/* How many subscribers there are, or a code. */
int heist__source_send(struct heist__source *s, void *value);
int heist__source_close(struct heist__source *s);
size_t heist__source_subscribers(struct heist__source *s);
/* The newest value, with a reference, and how many were sent before it; either may be NULL.  There is one. */
int heist__source_newest(struct heist__source *s, void **value, uint64_t *before);
/* The state in words, `what` for its kind; as snprintf. */
int heist__source_repr(struct heist__source *s, const char *what, char *buf, size_t size);

int heist__source_subscribe(struct heist__source *s, struct heist__subscriber **out);
struct heist__subscriber *heist__subscriber_ref(struct heist__subscriber *r);
void heist__subscriber_unref(struct heist__subscriber *r);
int heist__subscriber_next(struct heist__subscriber *r, void **out, int64_t deadline_ns);
int heist__subscriber_try(struct heist__subscriber *r, void **out);
uint64_t heist__subscriber_lost(struct heist__subscriber *r);

#endif
