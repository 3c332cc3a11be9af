/* Every transition of the future's word.
 *
 *   born      plain store: `refs` references, pending
 *   ref       +1, by a holder
 *   try_ref   +1 if alive and not done, by one that holds nothing
 *   claim     COMPLETING set: one winner among set_result, set_exception, cancel
 *   done      DONE set and the completer's references dropped, in one addition
 *   unref     -1; the last one frees
 *
 * Why the last holder of a done future needs no locked operation: with DONE set and
 * one reference, try_ref refuses, and only a holder could add one; the caller is the
 * only holder.  The acquire load pairs with the release half of the other unrefs, so
 * their uses of the object happen before the free. */
#ifndef HEIST_TASK_STATE_H
#define HEIST_TASK_STATE_H

#include "task/task.h"

static inline uint64_t heist__refs(uint64_t word) { return word >> 32; }

static inline void heist__state_born(heist_future *f, uint64_t flags, unsigned refs) {
    /* rel: pairs with the acquire of try_ref: who takes a reference out of a walk sees a filled object */
    a_store_rel(&f->word, flags | refs * HEIST__REF);
}

static inline void heist__state_ref(heist_future *f) {
    a_add_rlx(&f->word, HEIST__REF); /* rlx: the caller holds a reference, which orders everything */
}

static inline bool heist__state_try_ref(heist_future *f) {
    uint64_t w = a_load_acq(&f->word); /* acq: pairs with born */
    while (heist__refs(w) && !(w & HEIST__F_DONE))
        if (a_cas_acq(&f->word, &w, w + HEIST__REF)) return true; /* acq: pairs with born of this life */
    return false;
}

static inline bool heist__state_claim(heist_future *f) {
    /* acq: a winner sees what happened before the object was handed to it; losers only fail */
    return !(a_or_ar(&f->word, HEIST__F_COMPLETING) & HEIST__F_COMPLETING);
}

/* True when the caller must free. */
static inline bool heist__state_done(heist_future *f, unsigned drop_refs) {
    uint64_t before = a_add_ar(&f->word, HEIST__F_DONE - drop_refs * HEIST__REF); /* ar: as unref */
    return heist__refs(before) == drop_refs;
}

/* True when the caller must free. */
static inline bool heist__state_unref(heist_future *f) {
    uint64_t w = a_load_acq(&f->word); /* acq: pairs with the release of the other unrefs, see above */
    if (heist__refs(w) == 1 && (w & HEIST__F_DONE)) return true;
    /* ar: release what this holder did to the freeing one, and acquire it when that is the caller */
    return heist__refs(a_sub_ar(&f->word, HEIST__REF)) == 1;
}

#endif
