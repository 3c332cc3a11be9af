/* A descriptor's readiness as a future: readers and writers of a loop complete it.
 *
 * They watch a duplicate, so the number is the future's own: the loop's other watches of the descriptor, a connection
 * on it and a close of it are not in the way.  Each watcher's argument is the record, and its arg_free the end of its share:
 * after the removal, or when the loop was closed, which is a failure if nothing came before.
 *
 *   refs      each watcher's, the future's; the last closes the duplicate, which no poller knows by then
 *   claimed   one of the events, a cancel and the close has the right, and the record's reference to the future, to
 *             complete it; it removes the watchers first */
#include <fcntl.h>
#include <heist/error.h>
#include <heist/flow.h>
#include <heist/loop.h>

#include "base/alloc.h"
#include "base/fork.h"
#include "base/sys.h"
#include "loop/loop.h"
#include "task/derived.h"

struct ready {
    struct heist__derived derived;
    _Atomic(int) refs;
    _Atomic(int) claimed;
    heist_loop *loop; /* one reference */
    heist_future *outer;
    int fd;
};

static void ready_unref(struct ready *r) {
    if (a_sub_ar(&r->refs, 1) != 1) return; /* ar: as every last reference */
    heist__sys_close(r->fd);
    heist__loop_release(r->loop);
    heist__free(r);
}

/* Once.  Without it r->outer may be gone. */
static bool claim(struct ready *r) { return !a_xchg_sc(&r->claimed, 1); }

/* The caller holds r beyond the watchers. */
static void unwatch(struct ready *r) {
    heist_loop_remove_reader(r->loop, r->fd);
    heist_loop_remove_writer(r->loop, r->fd);
}

static int came(struct ready *r, intptr_t what) {
    if (!claim(r)) return 0;
    unwatch(r); /* this watcher's own share goes after the call */
    heist__derived_complete(r->outer, HEIST__OUT_VALUE, 0, (void *)what, NULL);
    return 0;
}
static int readable(void *arg) { return came(arg, HEIST_READABLE); }
static int writable(void *arg) { return came(arg, HEIST_WRITABLE); }

static void watcher_gone(void *arg) {
    struct ready *r = arg;
    if (claim(r)) { /* the loop was closed */
        unwatch(r);
        heist__derived_complete(r->outer, HEIST__OUT_ERROR, HEIST_ECLOSED, NULL, NULL);
    }
    ready_unref(r);
}

static int cancel(struct heist__derived *d, struct heist__failure *failure) {
    struct ready *r = heist_container_of(d, struct ready, derived);
    if (!claim(r)) {
        heist__free(failure);
        return 0;
    }
    unwatch(r);
    heist__derived_complete(r->outer, HEIST__OUT_CANCELLED, -ECANCELED, NULL, failure);
    return 1;
}

static void dispose(struct heist__derived *d) { ready_unref(heist_container_of(d, struct ready, derived)); }

static int watch(struct ready *r, unsigned events) {
    heist_call_options opts = HEIST_CALL_OPTIONS_INIT;
    opts.arg_free = watcher_gone;
    opts.name = "a descriptor's future";
    int err = 0;
    if (events & HEIST_READABLE) {
        a_add_rlx(&r->refs, 1); /* rlx: the caller holds one */
        err = heist_loop_add_reader(r->loop, r->fd, readable, r, &opts);
        if (err) a_sub_rlx(&r->refs, 1); /* rlx: not the last */
    }
    if (!err && events & HEIST_WRITABLE) {
        a_add_rlx(&r->refs, 1);
        err = heist_loop_add_writer(r->loop, r->fd, writable, r, &opts);
        if (err) a_sub_rlx(&r->refs, 1);
    }
    return err;
}

int heist_ready_future(heist_loop *loop, int fd, unsigned events, heist_future **out) {
    if (!out || !events || events & ~(HEIST_READABLE | HEIST_WRITABLE)) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    int err = loop ? 0 : heist_get_running_loop(&loop);
    if (err) return err;
    struct ready *r = heist__zalloc(sizeof(*r));
    if (!r) return -ENOMEM;
    if ((r->fd = heist__sys_dup(fd)) < 0) {
        err = r->fd;
        heist__free(r);
        return err;
    }
    r->derived = (struct heist__derived){cancel, dispose};
    err = heist__derived_new(loop, &r->derived, &r->outer);
    if (err) {
        heist__sys_close(r->fd);
        heist__free(r);
        return err;
    }
    heist_future *outer = r->outer;
    r->loop = heist__loop_hold(loop);
    a_store_rlx(&r->refs, 2); /* rlx: the future's and, for the time of this call, ours */
    err = watch(r, events);
    if (err && claim(r)) {
        unwatch(r);
        heist__derived_complete(outer, HEIST__OUT_CANCELLED, -ECANCELED, NULL, NULL);
    } else {
        err = 0; /* one of two came before the other was there: it has ended */
    }
    if (a_load_sc(&r->claimed)) unwatch(r); /* the reader may have come before the writer stood there */
    ready_unref(r);
    if (err)
        heist_unref(outer);
    else
        *out = outer;
    return err;
}
