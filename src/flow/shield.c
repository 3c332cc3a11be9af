/* shield: a future that ends as another does, and may be cancelled alone.
 *
 * The hook holds the record, and so does the shield.  The end of the inner one and a request to cancel race for
 * `claimed`, the right to complete the shield; who loses does not touch it, for it may be gone.  The inner one is held
 * from its end on; before, a cancel that takes its hook back reaches it as gather_future.c does: `ended` tells whether
 * the hook had run. */
#include <heist/flow.h>

#include "base/alloc.h"
#include "base/fork.h"
#include "task/derived.h"

enum { PENDING, HELD, DROPPED };

struct shield {
    struct heist__derived derived;
    struct heist__waiter waiter;
    struct heist__deed deed; /* of completing, then of freeing */
    _Atomic(int) refs;
    _Atomic(int) claimed;
    _Atomic(int) ended; /* the hook has run: HELD, or DROPPED, when nobody could complete the inner one any more */
    heist_future *inner, *outer;
};

static void free_shield(struct heist__deed *deed) {
    struct shield *s = heist_container_of(deed, struct shield, deed);
    if (a_load_rlx(&s->ended) == HELD) heist_unref(s->inner); /* rlx: nobody else is left */
    heist__free(s);
}

static void shield_unref(struct shield *s) {
    if (a_sub_ar(&s->refs, 1) != 1) return; /* ar: as every last reference */
    s->deed.run = free_shield;              /* a deed, for the inner one may be a shield too */
    heist__deed_do(&s->deed);
}

static void complete(struct heist__deed *deed) {
    struct shield *s = heist_container_of(deed, struct shield, deed);
    if (!a_xchg_sc(&s->claimed, 1)) { /* a shield that was cancelled does not look at the outcome */
        if (a_load_sc(&s->ended) == HELD) heist__derived_complete_as(s->outer, s->inner);
        else heist__derived_complete(s->outer, HEIST__OUT_CANCELLED, -ECANCELED, NULL, NULL);
    }
    shield_unref(s);
}

static void inner_ended(struct heist__waiter *w, heist_future *f) {
    struct shield *s = heist_container_of(w, struct shield, waiter);
    bool done = heist__future_is_done(f);
    if (done) heist_ref(f);
    a_store_sc(&s->ended, done ? HELD : DROPPED); /* before f can be another */
    s->deed.run = complete;
    heist__deed_do(&s->deed);
}

static int cancel(struct heist__derived *d, struct heist__failure *failure) {
    struct shield *s = heist_container_of(d, struct shield, derived);
    if (a_xchg_sc(&s->claimed, 1)) {
        heist__free(failure);
        return 0;
    }
    heist__derived_complete(s->outer, HEIST__OUT_CANCELLED, -ECANCELED, NULL, failure);
    /* Whoever looks for long at one future through many shields shall not leave a hook for each. */
    heist_future *f = s->inner;
    if (a_load_sc(&s->ended) || !heist__future_try_ref(f)) return 1;
    bool removed = !a_load_sc(&s->ended) && heist__future_remove_waiter(f, &s->waiter);
    heist_unref(f);
    if (removed) shield_unref(s);
    return 1;
}

static void dispose(struct heist__derived *d) { shield_unref(heist_container_of(d, struct shield, derived)); }

int heist_shield(heist_future *f, heist_future **out) {
    if (!f || !out) return -EINVAL;
    struct shield *s = heist__zalloc(sizeof(*s));
    if (!s) return -ENOMEM;
    s->derived = (struct heist__derived){cancel, dispose};
    s->waiter.kind = HEIST__WAIT_HOOK;
    s->waiter.hook = inner_ended;
    a_store_rlx(&s->refs, 2); /* rlx: published by add_waiter */
    s->inner = f;
    heist_future *outer;
    int err = heist__derived_new(NULL, &s->derived, &outer);
    if (err) {
        heist__free(s);
        return err;
    }
    s->outer = outer;
    s->waiter.awaiter = outer; /* not freed before it is done, and then this hook has run, or is taken back */
    if (!heist__future_add_waiter(f, &s->waiter)) inner_ended(&s->waiter, f);
    *out = outer;
    return 0;
}
