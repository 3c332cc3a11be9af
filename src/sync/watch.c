/* Watches: one value with a version, and for each watcher the version that it has seen.
 *
 * States of a watcher, under the lock:
 *   seen == version   callers wait in port.out, with the watcher in their node's value
 *   seen <  version   the value is new to it
 * A set hands the value to one waiting caller of each watcher; `seen` moves with the claim, never
 * without it.  References to counted values as in broadcast.c; the watch holds one of its own. */
#include <heist/error.h>
#include <heist/watch.h>
#include <math.h>

#include "base/alloc.h"
#include "base/options.h"
#include "sync/port.h"

struct heist_watch {
    struct heist__port port;
    void (*value_ref)(void *value); /* birth, as the next */
    heist_free_fn value_unref;
    _Atomic(uint32_t) refs;

    bool closed; /* under the lock, as all below */
    void *value;
    uint64_t version;
};

struct heist_watcher {
    heist_watch *watch; /* one reference */
    _Atomic(uint32_t) refs;
    uint64_t seen; /* under the watch's lock */
};

static int pass(struct heist__port *port, bool in, void *who, void **value, struct heist__park **wake);
static const struct heist__port_class watch_class = {pass, NULL};

struct heist__port *heist__watcher_port(heist_watcher *w) { return &w->watch->port; }

int heist_watch_new(void *value, const heist_watch_options *opts, heist_watch **out) {
    if (!out) return -EINVAL;
    if (opts && (!heist__options_ok(opts, sizeof(*opts)) || opts->flags || !opts->value_ref != !opts->value_unref))
        return -EINVAL;
    if (heist__fork_guard()) return -ENOMEM;
    if (heist__forked()) return HEIST_EFORKED;
    heist_watch *w = heist__zalloc(sizeof(*w));
    if (!w) return -ENOMEM;
    heist__port_init(&w->port, &watch_class);
    if (opts) {
        w->value_ref = opts->value_ref;
        w->value_unref = opts->value_unref;
    }
    w->value = value;
    a_store_rlx(&w->refs, 1); /* rlx: not published yet */
    *out = w;
    return 0;
}

heist_watch *heist_watch_ref(heist_watch *w) {
    if (w) a_add_rlx(&w->refs, 1); /* rlx: the caller holds one */
    return w;
}

void heist_watch_unref(heist_watch *w) {
    if (!w || a_sub_ar(&w->refs, 1) != 1) return; /* ar: as every last reference */
    if (w->value_unref) w->value_unref(w->value);
    heist__free(w);
}

int heist_watch_subscribe(heist_watch *w, heist_watcher **out) {
    if (!w || !out) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    heist_watcher *r = heist__zalloc(sizeof(*r));
    if (!r) return -ENOMEM;
    r->watch = heist_watch_ref(w);
    a_store_rlx(&r->refs, 1); /* rlx: not published yet */
    heist__spin_lock(&w->port.lock);
    r->seen = w->version;
    heist__spin_unlock(&w->port.lock);
    *out = r;
    return 0;
}

heist_watcher *heist_watcher_ref(heist_watcher *w) {
    if (w) a_add_rlx(&w->refs, 1); /* rlx: the caller holds one */
    return w;
}

void heist_watcher_unref(heist_watcher *w) {
    if (!w || a_sub_ar(&w->refs, 1) != 1) return; /* ar: as every last reference */
    heist_watch *watch = w->watch;
    if (!heist__forked()) { /* a set may still look at the watcher of a caller that it has claimed */
        heist__spin_lock(&watch->port.lock);
        heist__spin_unlock(&watch->port.lock);
    }
    heist__free(w);
    heist_watch_unref(watch);
}

/* ---- set and get ---- */

/* Under the lock: whom to wake. */
static struct heist__waitnode *hand_out(heist_watch *w, bool *spare_ref) {
    struct heist__waitnode *woken = NULL, **end = &woken;
    for (struct heist__waitnode *n = w->port.out.head, *next; n; n = next) {
        next = n->next;
        heist_watcher *r = n->value;
        if (r->seen == w->version) continue; /* another caller of this watcher has it */
        if (w->value_ref && !*spare_ref) {
            w->value_ref(w->value);
            *spare_ref = true;
        }
        heist__waitq_unlink(&w->port.out, n);
        n->value = w->value;
        int claim = heist__waitq_claim_node(n, 0);
        if (claim == HEIST__CLAIM_LOST) continue;
        r->seen = w->version;
        *spare_ref = false;
        if (claim != HEIST__CLAIM_WAKE) continue;
        *end = n;
        end = &n->next;
    }
    *end = NULL;
    return woken;
}

int heist_watch_set(heist_watch *w, void *value) {
    if (!w) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    heist__spin_lock(&w->port.lock);
    if (w->closed) {
        heist__spin_unlock(&w->port.lock);
        return HEIST_ESHUTDOWN;
    }
    void *old = w->value;
    bool spare_ref = false;
    w->value = value;
    w->version++;
    struct heist__waitnode *woken = hand_out(w, &spare_ref);
    heist__spin_unlock(&w->port.lock);
    heist__waitq_wake_all(woken);
    if (w->value_unref) w->value_unref(old);
    if (w->value_unref && spare_ref) w->value_unref(value);
    return 0;
}

int heist_watch_get(heist_watch *w, void **value, uint64_t *version) {
    if (!w) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    heist__spin_lock(&w->port.lock);
    void *now = w->value;
    uint64_t number = w->version;
    if (value && w->value_ref) w->value_ref(now);
    heist__spin_unlock(&w->port.lock);
    if (value) *value = now;
    if (version) *version = number;
    return 0;
}

int heist_watch_close(heist_watch *w) {
    if (!w) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    heist__spin_lock(&w->port.lock);
    w->closed = true;
    struct heist__waitnode *woken = heist__waitq_claim_all(&w->port.out, HEIST_ESHUTDOWN);
    heist__spin_unlock(&w->port.lock);
    heist__waitq_wake_all(woken);
    return 0;
}

/* ---- changed ---- */

static int pass(struct heist__port *port, bool in, void *who, void **value, struct heist__park **wake) {
    heist_watch *w = heist_container_of(port, heist_watch, port);
    heist_watcher *r = who;
    (void)in, (void)wake;
    if (r->seen == w->version) return w->closed ? HEIST_ESHUTDOWN : -EAGAIN;
    r->seen = w->version;
    *value = w->value;
    if (w->value_ref) w->value_ref(w->value);
    return 0;
}

static int changed(heist_watcher *w, int err, void *value, void **out) {
    if (err) return err;
    if (out)
        *out = value;
    else if (w->watch->value_unref)
        w->watch->value_unref(value);
    return 0;
}

static int changed_until(heist_watcher *w, void **out, int64_t deadline_ns) {
    void *value = NULL;
    int err = heist__port_pass(&w->watch->port, &watch_class, false, w, &value, deadline_ns);
    return changed(w, err, value, out);
}

int heist_watcher_changed(heist_watcher *w, void **out) { return w ? changed_until(w, out, INT64_MAX) : -EINVAL; }

int heist_watcher_changed_until(heist_watcher *w, void **out, double deadline) {
    if (!w || isnan(deadline)) return -EINVAL;
    return changed_until(w, out, heist__ns_from_seconds(deadline));
}

int heist_watcher_try_changed(heist_watcher *w, void **out) {
    void *value = NULL;
    if (!w) return -EINVAL;
    int err = heist__port_try(&w->watch->port, &watch_class, false, w, &value);
    return changed(w, err, value, out);
}
