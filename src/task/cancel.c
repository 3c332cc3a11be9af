/* Cancellation: a request, its one delivery, and how it walks down to what is awaited.
 *
 * `cancel` counts requests and holds one PENDING bit.  Whoever clears the bit has
 * the duty to deliver; if the delivery fails it sets the bit again.  A task can be
 *   running or ready   it finds the bit itself, at its next suspending call;
 *   parked             the deliverer claims the park word (park.h), code -ECANCELED;
 *   in a plain await   the request goes on to the awaited future, as in asyncio: the
 *                      task is woken when that one has ended.
 *
 * No request is lost: the canceller sets PENDING (sc), then reads park and awaiting
 * (sc).  The task arms park or awaiting, passes a full barrier (the commit of park.h,
 * or add_waiter), then reads PENDING and delivers to itself.  In the one order of sc
 * operations one of the two comes second and sees the other.
 *
 * Links are followed without a lock: `awaiting` may name a future that has ended or
 * is another by now.  The slab keeps the memory typed, try_ref takes only pending
 * ones, and a second look at `awaiting` tells that the reference was taken while the
 * task still awaited it.  Should the await end right after, the cancel finds a done
 * future, says 0, and the bit is set again for the task's next suspending call. */
#include <heist/future.h>

#include "base/alloc.h"
#include "base/fork.h"
#include "base/sys.h"
#include "task/state.h"
#include "task/task.h"

/* Sets the request; false when the task is done. */
static bool request(heist_task *t) {
    uint32_t c = a_load_rlx(&t->cancel); /* rlx: the cas decides */
    do {
        if (heist__future_is_done(t)) return false;
    } while (!a_cas_sc(&t->cancel, &c, (c + HEIST__CANCEL_ONE) | HEIST__CANCEL_PENDING));
    return true;
}

/* Takes the request, with the duty to deliver. */
static bool take(heist_task *t) { return heist__cancel_take(t); }
static void give_back(heist_task *t) { a_or_sc(&t->cancel, HEIST__CANCEL_PENDING); }

/* One step: delivered or nothing to do: NULL; else the future that the request goes on to, with a
 * reference, the request taken. */
static heist_future *deliver_here(heist_task *t) {
    for (;;) {
        if (!(a_load_sc(&t->cancel) & HEIST__CANCEL_PENDING)) return NULL;
        if (a_load_sc(&t->park.state) == HEIST__PARK_PARKED) { /* the whole word: no code stands beside it */
            if (!take(t)) return NULL;
            if (heist__park_claim_parked(&t->park, -ECANCELED)) {
                heist__park_wake(&t->park);
                return NULL;
            }
            give_back(t);
            continue;
        }
        heist_future *f = a_load_sc(&t->awaiting);
        if (!f) return NULL; /* running, ready or arming: it looks for itself */
        if (!heist__future_try_ref(f)) {
            if (a_load_sc(&t->awaiting) == f) return NULL; /* it has ended, and wakes the task */
            continue;
        }
        if (a_load_sc(&t->awaiting) != f) {
            heist_unref(f);
            continue;
        }
        if (take(t)) return f;
        heist_unref(f);
        return NULL;
    }
}

/* Tasks that await each other in a circle would be walked for ever. */
#define STEPS_MAX 65536

void heist__cancel_deliver(heist_task *t) {
    heist_task *holding = NULL; /* the reference that keeps t, beyond the caller's */
    const heist_task *origin = t;
    for (unsigned steps = 0; steps < STEPS_MAX; steps++) {
        heist_future *f = deliver_here(t);
        if (!f) break;
        bool task = heist__is_task(f);
        bool recorded = task ? request(f) : heist__future_cancel_plain(f, NULL) == 1;
        if (!recorded) { /* ended meanwhile: the request is t's own again */
            heist_unref(f);
            give_back(t);
            if (steps % 16 == 15) heist__sys_yield(); /* its completer may be waiting for this core */
            continue;
        }
        if (!task) {
            heist_unref(f);
            break;
        }
        heist_unref(holding);
        t = holding = f; /* down one link */
        if (t == origin) break; /* a circle: each has its request, and nobody can end */
    }
    heist_unref(holding);
}

int heist_cancel_message(heist_future *f, const char *message) {
    if (!f) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    struct heist__failure *failure = message ? heist__failure_make(NULL, 0, -ECANCELED, "%s", message) : NULL;
    if (message && !failure) return -ENOMEM;
    if (!heist__is_task(f)) return heist__future_cancel_plain(f, failure);
    if (failure) /* ar: the record is handed over whole; the loser's is freed by whoever finds it */
        heist__free(a_xchg_ar(&f->cancel_message, failure));
    if (!request(f)) return 0;
    heist__cancel_deliver(f);
    return 1;
}

int heist_cancel(heist_future *f) { return heist_cancel_message(f, NULL); }

int heist_cancelling(const heist_future *f) {
    if (!f) return -EINVAL;
    if (!heist__is_task(f)) return 0;
    /* rlx: a count, old when it arrives */
    return (int)(a_load_rlx(&((heist_future *)(uintptr_t)f)->cancel) / HEIST__CANCEL_ONE);
}

int heist_uncancel(heist_future *f) {
    if (!f) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    if (!heist__is_task(f)) return 0;
    uint32_t c = a_load_rlx(&f->cancel), lower; /* rlx: the cas decides */
    do {
        if (c < HEIST__CANCEL_ONE) return 0;
        lower = c - HEIST__CANCEL_ONE;
        if (lower < HEIST__CANCEL_ONE) lower = 0; /* the last one takes an undelivered request back */
    } while (!a_cas_sc(&f->cancel, &c, lower));
    return (int)(lower / HEIST__CANCEL_ONE);
}
