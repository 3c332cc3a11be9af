/* A sleep as a future: a timer of a loop completes it.
 *
 * The timer's argument is the record, and its arg_free the end of the timer's share: after it ran, when it was
 * cancelled, or when the loop was closed, which is a failure if nothing came before. */
#include <heist/error.h>
#include <heist/flow.h>
#include <heist/loop.h>
#include <math.h>

#include "base/alloc.h"
#include "base/fork.h"
#include "conc/self.h"
#include "task/derived.h"

struct nap {
    struct heist__derived derived;
    _Atomic(int) refs;    /* the timer's, the future's */
    _Atomic(int) claimed; /* somebody has the right, and the record's reference to the future, to complete it */
    heist_handle *handle;
    heist_future *outer;
    void *value;
    heist_free_fn value_free;
};

static void nap_unref(struct nap *n) {
    if (a_sub_ar(&n->refs, 1) != 1) return; /* ar: as every last reference */
    heist_handle_unref(n->handle);
    if (n->value && n->value_free) heist__destruct(n->value_free, n->value);
    heist__free(n);
}

/* Once.  Without the claim n->outer may be gone. */
static bool end(struct nap *n, uint8_t outcome, int code, struct heist__failure *failure) {
    if (a_xchg_sc(&n->claimed, 1)) {
        heist__free(failure);
        return false;
    }
    /* The end of a loop is nobody's failure to report: who waits is told.  rlx: read after the last unref */
    if (code == HEIST_ECLOSED) a_store_rlx(&n->outer->retrieved, 1);
    heist__derived_complete(n->outer, outcome, code, code ? NULL : n->value, failure);
    return true;
}

static int wake_up(void *arg) {
    end(arg, HEIST__OUT_VALUE, 0, NULL);
    return 0;
}

static void timer_gone(void *arg) {
    end(arg, HEIST__OUT_ERROR, HEIST_ECLOSED, NULL);
    nap_unref(arg);
}

static int cancel(struct heist__derived *d, struct heist__failure *failure) {
    struct nap *n = heist_container_of(d, struct nap, derived);
    if (!end(n, HEIST__OUT_CANCELLED, -ECANCELED, failure)) return 0;
    heist_handle_cancel(n->handle);
    return 1;
}

static void dispose(struct heist__derived *d) { nap_unref(heist_container_of(d, struct nap, derived)); }

int heist_sleep_future(heist_loop *loop, double seconds, void *value, heist_free_fn value_free, heist_future **out) {
    if (!out || isnan(seconds)) return -EINVAL;
    int err = loop ? 0 : heist_get_running_loop(&loop);
    if (err) return err;
    struct nap *n = heist__zalloc(sizeof(*n));
    if (!n) return -ENOMEM;
    n->derived = (struct heist__derived){cancel, dispose};
    heist_future *outer;
    err = heist__derived_new(loop, &n->derived, &outer);
    if (err) {
        heist__free(n);
        return err;
    }
    n->outer = outer;
    heist_call_options opts = HEIST_CALL_OPTIONS_INIT;
    opts.arg_free = timer_gone;
    opts.name = "a sleep";
    a_store_rlx(&n->refs, 2); /* rlx: published by the timer */
    n->value = value;
    n->value_free = value_free;
    err = heist_loop_call_later(loop, seconds, wake_up, n, &opts, &n->handle);
    if (err) {
        n->value_free = NULL;
        end(n, HEIST__OUT_CANCELLED, -ECANCELED, NULL);
        heist_unref(outer);
        nap_unref(n);
        return err;
    }
    *out = outer;
    return 0;
}
