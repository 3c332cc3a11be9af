/* gather as a future: no task behind it, hooks on the children complete it.  See many.h and derived.h.
 *
 * The record's life: the hooks hold it, and the future, and a deed of cancelling.  A child's own life is nobody's
 * business here until it ends: the hook then takes a reference, for the results are the child's.  Before that a child
 * is reached as cancel.c reaches what is awaited: the slab keeps the memory typed, try_ref takes only pending ones, and
 * `held` tells afterwards whether the hook had run by then; if not, the child had not ended when it was taken.
 *
 * Steps, each under the lock:
 *   completing  set once, by the last hook or by the first failure of the early form, who then does the deed of it
 *   asked       set by each request to cancel, refused once `finishing` is
 *   finishing   set by the deed, which reads asked at that moment, and publishes at once: no other deed of this thread
 *               comes between, so a canceller that was refused finds the future done very soon
 * A request is thus either refused, or the future ends cancelled: none is lost. */
#include <heist/error.h>
#include <heist/flow.h>

#include "base/alloc.h"
#include "base/fork.h"
#include "flow/many.h"
#include "task/derived.h"

/* DROPPED: nobody could complete it any more. */
enum { PENDING, HELD, DROPPED };

struct gathered {
    struct heist__derived derived;
    struct heist__deed deed;   /* of completing, and of freeing */
    struct heist__deed cancel; /* of cancelling the children */
    heist_future *outer;
    unsigned flags;
    _Atomic(int) failure;                          /* code of the first */
    heist_future *failed;                          /* the child that it is of: written before the hook is counted */
    bool completing, asked, finishing, cancel_due; /* under the lock of `many` */
    struct heist__failure *message;                /* of the first request that had one; written once, under the lock */
    void **results;                                /* behind the parts */
    _Atomic(uint8_t) *held;                        /* behind the results: PENDING until the hook of this part has run */
    struct heist__many many;
    struct heist__part parts[];
};

static struct gathered *of_many(struct heist__many *m) { return heist_container_of(m, struct gathered, many); }

static void complete(struct heist__deed *deed) {
    struct gathered *g = heist_container_of(deed, struct gathered, deed);
    for (size_t i = 0; i < g->many.n; i++) {
        g->results[i] = NULL;
        if (a_load_acq(&g->held[i]) == HELD) /* acq: pairs with ended */
            heist_future_result(g->parts[i].future, &g->results[i]);
    }
    int code = g->flags & HEIST_GATHER_ALL ? 0 : a_load_acq(&g->failure); /* acq: pairs with ended */
    heist__spin_lock(&g->many.lock);
    g->finishing = true;
    bool asked = g->asked;
    heist__spin_unlock(&g->many.lock);
    struct heist__failure *failure = NULL, *m = g->message;
    if (asked) failure = m ? heist__failure_make(m->file, m->line, m->code, "%s", m->message) : NULL;
    else if (code && g->failed) failure = heist__failure_of(g->failed);
    if (asked) code = -ECANCELED;
    uint8_t outcome = !code ? HEIST__OUT_VALUE : code == -ECANCELED ? HEIST__OUT_CANCELLED : HEIST__OUT_ERROR;
    heist__derived_complete(g->outer, outcome, code, code ? NULL : g->results, failure);
}

static void complete_once(struct gathered *g) {
    heist__spin_lock(&g->many.lock);
    bool mine = !g->completing;
    g->completing = true;
    heist__spin_unlock(&g->many.lock);
    if (!mine) return;
    g->deed.run = complete;
    heist__deed_do(&g->deed);
}

static void cancel_children(struct heist__deed *deed) {
    struct gathered *g = heist_container_of(deed, struct gathered, cancel);
    heist__spin_lock(&g->many.lock);
    g->cancel_due = false; /* who asks from here on comes for a walk of its own */
    const struct heist__failure *m = g->message;
    heist__spin_unlock(&g->many.lock);
    for (size_t i = 0; i < g->many.n; i++) {
        heist_future *f = g->parts[i].future;
        if (a_load_sc(&g->held[i]) || !heist__future_try_ref(f)) continue;
        if (!a_load_sc(&g->held[i]) && (!m || heist_cancel_message(f, m->message) < 0)) heist_cancel(f);
        heist_unref(f);
    }
    heist__many_unref(&g->many);
}

/* Under the lock: true when the caller shall do the deed. */
static bool cancel_due(struct gathered *g) {
    if (g->cancel_due) return false;
    heist__many_ref(&g->many);
    return g->cancel_due = true;
}

static int cancel(struct heist__derived *d, struct heist__failure *failure) {
    struct gathered *g = heist_container_of(d, struct gathered, derived);
    heist__spin_lock(&g->many.lock);
    bool refused = g->finishing, walk = !refused && cancel_due(g);
    if (!refused) {
        g->asked = true;
        if (!g->message) {
            g->message = failure;
            failure = NULL;
        }
    }
    heist__spin_unlock(&g->many.lock);
    heist__free(failure);
    if (!refused) heist__cancel_recorded();
    if (walk) heist__deed_do(&g->cancel);
    return !refused;
}

static void ended(struct heist__many *m, struct heist__part *p, heist_future *f) {
    struct gathered *g = of_many(m);
    bool done = heist__future_is_done(f);
    int code = !done ? -ECANCELED : f->outcome != HEIST__OUT_VALUE ? f->code : 0, none = 0;
    if (done) heist_future_result(heist_ref(f), NULL);       /* looked at */
    bool first = code && a_cas_ar(&g->failure, &none, code); /* ar: one is the first; pairs with complete */
    if (first && done) g->failed = f;
    a_store_sc(&g->held[p - g->parts], done ? HELD : DROPPED); /* before f can be another */
    if (!first || (g->flags & HEIST_GATHER_ALL)) return;
    if (g->flags & HEIST_GATHER_EARLY) {
        complete_once(g);
        return;
    }
    heist__spin_lock(&m->lock);
    bool walk = !g->asked && cancel_due(g); /* one that ends as it was asked to asks nobody else again */
    heist__spin_unlock(&m->lock);
    if (walk) heist__deed_do(&g->cancel);
}

static void all(struct heist__many *m) {
    struct gathered *g = of_many(m);
    complete_once(g);
    if (g->flags & HEIST_GATHER_EARLY) heist_unref(m->awaiter);
}

static void free_gathered(struct heist__deed *deed) {
    struct gathered *g = heist_container_of(deed, struct gathered, deed);
    for (size_t i = 0; i < g->many.n; i++)
        if (a_load_rlx(&g->held[i]) == HELD) heist_unref(g->parts[i].future); /* rlx: nobody else is left */
    heist__free(g->message);
    heist__free(g);
}

static void gone(struct heist__many *m) {
    struct gathered *g = of_many(m);
    g->deed.run = free_gathered; /* a deed, for the children may be such futures too */
    heist__deed_do(&g->deed);
}

static void dispose(struct heist__derived *d) {
    heist__many_unref(&heist_container_of(d, struct gathered, derived)->many);
}

static const struct heist__many_class gathered_class = {ended, all, gone};

int heist_gather_future(heist_future *const *futures, size_t n, unsigned flags, heist_future **out) {
    if (!out || (n && !futures) || (flags & ~(HEIST_GATHER_ALL | HEIST_GATHER_EARLY)) ||
        flags == (HEIST_GATHER_ALL | HEIST_GATHER_EARLY))
        return -EINVAL;
    for (size_t i = 0; i < n; i++)
        if (!futures[i]) return -EINVAL;
    struct gathered *g = heist__zalloc(sizeof(*g) + n * (sizeof(g->parts[0]) + sizeof(void *) + 1));
    if (!g) return -ENOMEM;
    g->derived = (struct heist__derived){cancel, dispose};
    g->cancel.run = cancel_children;
    g->flags = flags;
    heist__many_init(&g->many, &gathered_class, g->parts, n);
    g->results = (void **)(void *)&g->parts[n];
    /* cppcheck-suppress AssignmentAddressToInteger ; it does not read a pointer to _Atomic(...) */
    g->held = (_Atomic(uint8_t) *)(void *)&g->results[n];
    for (size_t i = 0; i < n; i++) g->parts[i].future = futures[i];
    heist_future *outer;
    int err = heist__derived_new(NULL, &g->derived, &outer);
    if (err) {
        heist__free(g);
        return err;
    }
    g->outer = outer;
    g->many.awaiter = flags & HEIST_GATHER_EARLY ? heist_ref(outer) : outer; /* as long as the hooks are about */
    heist__many_start(&g->many);
    *out = outer;
    return 0;
}
