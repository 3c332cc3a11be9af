/* Futures that an event of a loop completes: a timer, a descriptor that is ready.
 *
 * What stands at the loop (a handle, or watchers) has the record for its argument, and its arg_free is the end of its
 * share: after it ran, when it was taken back, or when the loop was closed, which is the future's end too if nothing
 * came before.
 *
 *   refs      each share of the loop's, the future's; the last frees the record
 *   claimed   one of the events, a cancel and the close has the right, and the record's reference to the future, to
 *             complete it; it takes back first what else stands at the loop.  Without the claim `outer` may be gone */
#include <fcntl.h>
#include <heist/error.h>
#include <heist/flow.h>
#include <heist/loop.h>
#include <math.h>

#include "base/alloc.h"
#include "base/fork.h"
#include "base/sys.h"
#include "conc/self.h"
#include "loop/loop.h"
#include "task/derived.h"

struct event {
    struct heist__derived derived;
    _Atomic(int) refs;
    _Atomic(int) claimed;
    heist_future *outer;
    void (*take_back)(struct event *e, bool came); /* what stands at the loop; came: but for what came just now */
    void (*gone)(struct event *e);                 /* the last reference went: frees */
};

static void event_unref(struct event *e) {
    if (a_sub_ar(&e->refs, 1) == 1) e->gone(e); /* ar: as every last reference */
}

/* The caller holds e beyond what it takes back.  Owns the failure. */
static bool end(struct event *e, bool came, int code, void *value, struct heist__failure *failure) {
    if (a_xchg_sc(&e->claimed, 1)) {
        heist__free(failure);
        return false;
    }
    e->take_back(e, came);
    /* The end of a loop is nobody's failure to report: who waits is told.  rlx: read after the last unref */
    if (code == HEIST_ECLOSED) a_store_rlx(&e->outer->retrieved, 1);
    uint8_t outcome = !code ? HEIST__OUT_VALUE : code == -ECANCELED ? HEIST__OUT_CANCELLED : HEIST__OUT_ERROR;
    heist__derived_complete(e->outer, outcome, code, value, failure);
    return true;
}

/* arg_free of what stands at the loop. */
static void share_gone(void *arg) {
    end(arg, true, HEIST_ECLOSED, NULL, NULL); /* of the loop, unless it has ended before */
    event_unref(arg);
}

static int cancel(struct heist__derived *d, struct heist__failure *failure) {
    return end(heist_container_of(d, struct event, derived), false, -ECANCELED, NULL, failure);
}

static void dispose(struct heist__derived *d) { event_unref(heist_container_of(d, struct event, derived)); }

/* With the references of the future and of the caller. */
static int begin(heist_loop *loop, struct event *e, void (*take_back)(struct event *e, bool came),
                 void (*gone)(struct event *e)) {
    e->derived = (struct heist__derived){cancel, dispose};
    e->take_back = take_back;
    e->gone = gone;
    a_store_rlx(&e->refs, 2); /* rlx: not published yet */
    return heist__derived_new(loop, &e->derived, &e->outer);
}

/* ---- a sleep: the caller's reference becomes the timer's ---- */

struct nap {
    struct event event;
    heist_handle *handle;
    void *value;
    heist_free_fn value_free;
};

static void nap_take_back(struct event *e, bool came) {
    if (!came) heist_handle_cancel(heist_container_of(e, struct nap, event)->handle); /* else perhaps not written yet */
}

static void nap_gone(struct event *e) {
    struct nap *n = heist_container_of(e, struct nap, event);
    heist_handle_unref(n->handle);
    if (n->value && n->value_free) heist__destruct(n->value_free, n->value);
    heist__free(n);
}

static int wake_up(void *arg) {
    end(arg, true, 0, heist_container_of((struct event *)arg, struct nap, event)->value, NULL);
    return 0;
}

int heist_sleep_future(heist_loop *loop, double seconds, void *value, heist_free_fn value_free, heist_future **out) {
    if (!out || isnan(seconds)) return -EINVAL;
    int err = loop ? 0 : heist_get_running_loop(&loop);
    if (err) return err;
    struct nap *n = heist__zalloc(sizeof(*n));
    if (!n) return -ENOMEM;
    err = begin(loop, &n->event, nap_take_back, nap_gone);
    if (err) {
        heist__free(n);
        return err;
    }
    heist_future *outer = n->event.outer;
    heist_call_options opts = HEIST_CALL_OPTIONS_INIT;
    opts.arg_free = share_gone;
    opts.name = "a sleep";
    n->value = value;
    n->value_free = value_free;
    err = heist_loop_call_later(loop, seconds, wake_up, &n->event, &opts, &n->handle);
    if (err) {
        n->value_free = NULL;
        end(&n->event, true, -ECANCELED, NULL, NULL);
        heist_unref(outer);
        event_unref(&n->event);
        return err;
    }
    *out = outer;
    return 0;
}

/* ---- a descriptor: one or two watchers ----
 *
 * They watch a duplicate, so the number is the future's own: the loop's other watches of the descriptor, a connection
 * on it and a close of it are not in the way.  The last reference closes it; no poller knows it by then. */

struct ready {
    struct event event;
    heist_loop *loop; /* one reference */
    int fd;
};

static void ready_take_back(struct event *e, bool came) {
    struct ready *r = heist_container_of(e, struct ready, event);
    (void)came; /* its own share goes after the call */
    heist_loop_remove_reader(r->loop, r->fd);
    heist_loop_remove_writer(r->loop, r->fd);
}

static void ready_gone(struct event *e) {
    struct ready *r = heist_container_of(e, struct ready, event);
    heist__sys_close(r->fd);
    heist__loop_release(r->loop);
    heist__free(r);
}

static int readable(void *arg) {
    end(arg, true, 0, (void *)(intptr_t)HEIST_READABLE, NULL);
    return 0;
}

static int writable(void *arg) {
    end(arg, true, 0, (void *)(intptr_t)HEIST_WRITABLE, NULL);
    return 0;
}

static int watch(struct ready *r, int (*add)(heist_loop *, int, heist_callback_fn, void *, const heist_call_options *),
                 heist_callback_fn fn) {
    heist_call_options opts = HEIST_CALL_OPTIONS_INIT;
    opts.arg_free = share_gone;
    opts.name = "a descriptor's future";
    a_add_rlx(&r->event.refs, 1); /* rlx: the caller holds one */
    int err = add(r->loop, r->fd, fn, &r->event, &opts);
    if (err) a_sub_rlx(&r->event.refs, 1); /* rlx: not the last */
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
    err = begin(loop, &r->event, ready_take_back, ready_gone);
    if (err) {
        heist__sys_close(r->fd);
        heist__free(r);
        return err;
    }
    heist_future *outer = r->event.outer;
    r->loop = heist__loop_hold(loop);
    if (events & HEIST_READABLE) err = watch(r, heist_loop_add_reader, readable);
    if (!err && events & HEIST_WRITABLE) err = watch(r, heist_loop_add_writer, writable);
    if (err && !end(&r->event, true, -ECANCELED, NULL, NULL)) err = 0; /* the reader came before the writer was there */
    /* Likewise, and the writer stood there after it. */
    if (a_load_sc(&r->event.claimed)) ready_take_back(&r->event, true);
    event_unref(&r->event);
    if (err) heist_unref(outer);
    else *out = outer;
    return err;
}
