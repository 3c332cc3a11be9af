/* Broadcasts: sources that keep several values.  See source.c. */
#include <heist/broadcast.h>
#include <heist/error.h>
#include <heist/inspect.h>
#include <math.h>

#include "base/options.h"
#include "sync/source.h"

/* The public names are those of nothing but these. */
static struct heist__source *source(heist_broadcast *b) { return (struct heist__source *)(void *)b; }
static struct heist__subscriber *subscriber(heist_receiver *r) { return (struct heist__subscriber *)(void *)r; }

int heist_broadcast_new(size_t capacity, const heist_broadcast_options *opts, heist_broadcast **out) {
    if (!out || !capacity || capacity > (SIZE_MAX - sizeof(struct heist__source)) / sizeof(void *)) return -EINVAL;
    if (opts && (!heist__options_ok(opts, sizeof(*opts)) || opts->flags || !opts->value_ref != !opts->value_unref))
        return -EINVAL;
    struct heist__source *made;
    int err = heist__source_new(capacity, false, opts ? opts->value_ref : NULL, opts ? opts->value_unref : NULL, &made);
    if (!err) *out = (heist_broadcast *)(void *)made;
    return err;
}

heist_broadcast *heist_broadcast_ref(heist_broadcast *b) {
    heist__source_ref(source(b));
    return b;
}

void heist_broadcast_unref(heist_broadcast *b) { heist__source_unref(source(b)); }

int heist_broadcast_send(heist_broadcast *b, void *value) { return b ? heist__source_send(source(b), value) : -EINVAL; }

int heist_broadcast_close(heist_broadcast *b) { return b ? heist__source_close(source(b)) : -EINVAL; }

size_t heist_broadcast_receivers(heist_broadcast *b) { return b ? heist__source_subscribers(source(b)) : 0; }

int heist_broadcast_repr(heist_broadcast *b, char *buf, size_t size) {
    return b && (buf || !size) ? heist__source_repr(source(b), "Broadcast", buf, size) : -EINVAL;
}

int heist_broadcast_subscribe(heist_broadcast *b, heist_receiver **out) {
    if (!b || !out) return -EINVAL;
    struct heist__subscriber *made;
    int err = heist__source_subscribe(source(b), &made);
    if (!err) *out = (heist_receiver *)(void *)made;
    return err;
}

heist_receiver *heist_receiver_ref(heist_receiver *r) {
    heist__subscriber_ref(subscriber(r));
    return r;
}

void heist_receiver_unref(heist_receiver *r) { heist__subscriber_unref(subscriber(r)); }

int heist_receiver_recv(heist_receiver *r, void **out) {
    return r ? heist__subscriber_next(subscriber(r), out, INT64_MAX) : -EINVAL;
}

int heist_receiver_recv_until(heist_receiver *r, void **out, double deadline) {
    if (!r || isnan(deadline)) return -EINVAL;
    return heist__subscriber_next(subscriber(r), out, heist__ns_from_seconds(deadline));
}

int heist_receiver_try_recv(heist_receiver *r, void **out) {
    return r ? heist__subscriber_try(subscriber(r), out) : -EINVAL;
}

uint64_t heist_receiver_lost(heist_receiver *r) { return r ? heist__subscriber_lost(subscriber(r)) : 0; }
