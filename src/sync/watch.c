/* Watches: sources that keep the latest value, and have one from birth: number `version`.  See source.c. */
#include <heist/error.h>
#include <heist/inspect.h>
#include <heist/watch.h>
#include <math.h>

#include "base/options.h"
#include "sync/source.h"

/* The public names are those of nothing but these. */
static struct heist__source *source(heist_watch *w) { return (struct heist__source *)(void *)w; }
static struct heist__subscriber *subscriber(heist_watcher *w) { return (struct heist__subscriber *)(void *)w; }

int heist_watch_new(void *value, const heist_watch_options *opts, heist_watch **out) {
    if (!out) return -EINVAL;
    if (opts && (!heist__options_ok(opts, sizeof(*opts)) || opts->flags || !opts->value_ref != !opts->value_unref))
        return -EINVAL;
    struct heist__source *made;
    int err = heist__source_new(1, true, opts ? opts->value_ref : NULL, opts ? opts->value_unref : NULL, &made);
    if (err) return err;
    made->ring[0] = value;
    made->sent = made->kept = 1;
    *out = (heist_watch *)(void *)made;
    return 0;
}

heist_watch *heist_watch_ref(heist_watch *w) {
    heist__source_ref(source(w));
    return w;
}

void heist_watch_unref(heist_watch *w) { heist__source_unref(source(w)); }

int heist_watch_set(heist_watch *w, void *value) {
    int n = w ? heist__source_send(source(w), value) : -EINVAL;
    return n < 0 ? n : 0;
}

int heist_watch_get(heist_watch *w, void **value, uint64_t *version) {
    return w ? heist__source_newest(source(w), value, version) : -EINVAL;
}

int heist_watch_close(heist_watch *w) { return w ? heist__source_close(source(w)) : -EINVAL; }

int heist_watch_repr(heist_watch *w, char *buf, size_t size) {
    return w && (buf || !size) ? heist__source_repr(source(w), "Watch", buf, size) : -EINVAL;
}

int heist_watch_subscribe(heist_watch *w, heist_watcher **out) {
    if (!w || !out) return -EINVAL;
    struct heist__subscriber *made;
    int err = heist__source_subscribe(source(w), &made);
    if (!err) *out = (heist_watcher *)(void *)made;
    return err;
}

heist_watcher *heist_watcher_ref(heist_watcher *w) {
    heist__subscriber_ref(subscriber(w));
    return w;
}

void heist_watcher_unref(heist_watcher *w) { heist__subscriber_unref(subscriber(w)); }

int heist_watcher_changed(heist_watcher *w, void **out) {
    return w ? heist__subscriber_next(subscriber(w), out, INT64_MAX) : -EINVAL;
}

int heist_watcher_changed_until(heist_watcher *w, void **out, double deadline) {
    if (!w || isnan(deadline)) return -EINVAL;
    return heist__subscriber_next(subscriber(w), out, heist__ns_from_seconds(deadline));
}

int heist_watcher_try_changed(heist_watcher *w, void **out) {
    return w ? heist__subscriber_try(subscriber(w), out) : -EINVAL;
}
