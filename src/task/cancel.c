/* Cancellation: a request, its one delivery, and how it walks down to what is awaited;
 * taking a request back; sections in which none is delivered.
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
 * future, says 0, and the bit is set again for the task's next suspending call.
 *
 * Taking back.  What a deliverer has taken and may still give back is neither pending
 * nor delivered; so FLIGHT stands in the word from the taking to the moment in which
 * the deliverer knows, and who withdraws a request waits until it is gone.  One is in
 * the air at a time; the next deliverer waits.  The flight is short: two or three
 * atomic steps, and nothing of the user's runs in it.  FLIGHT ends before the task or
 * the future is woken, so that the woken does not meet the flight that woke it.
 *   No request that was taken back is delivered later: withdraw changes the word in
 *   one step, with no flight, from "counted and PENDING, HELD or delivered" to "not
 *   counted, neither"; a deliverer that comes after it finds no bit to take.
 *   Was it delivered?  One delivery is for all requests that are FRESH, and each taking
 *   of them counts.  Who makes a request notes that count, its mark: as long as it is the
 *   same, the request is one of the FRESH; the last of these to go takes PENDING with it.
 *   A count that has moved on says "delivered" too often, never too rarely: a delivery
 *   that failed has moved it, and gives back as many FRESH as it took.  What is pending
 *   then stays so, unless the count of all requests tells that nobody else has asked.
 *   (The count comes round after four million deliveries within one block; FRESH stays
 *   where it is when it is full.)
 *
 * Uncancellable sections.  MASK counts how many the task is in.  In one a request sets
 * HELD instead of PENDING; the begin turns PENDING into HELD, the last end HELD into
 * PENDING; each is one step.  The begin waits for a flight to end, which could claim the
 * next wait of the task; in a section none can start.  So PENDING is never set in a
 * section, and whoever looks only at PENDING (every suspending call, the commit, a
 * deliverer) needs to know nothing of sections.
 *   A request is not lost: after the end of the section it is PENDING, the task runs,
 *   and its next suspending call sees it, as any that came while the task ran.
 *   A blocking section (sched/blocking.c) takes the task off its thread, which stays with
 *   it until its end: begin and end of an uncancellable one in between are that task's. */
#include <heist/future.h>

#include "arch/cpu.h"
#include "base/alloc.h"
#include "base/fork.h"
#include "base/sys.h"
#include "task/state.h"
#include "task/task.h"

/* Where a request is put that is to be delivered. */
static uint64_t undelivered(uint64_t c) { return c & HEIST__CANCEL_MASK ? HEIST__CANCEL_HELD : HEIST__CANCEL_PENDING; }

/* `by` more of the counter `field`, which stays where it is when it is full. */
static uint64_t raised(uint64_t c, uint64_t field, uint64_t by) {
    uint64_t left = field - (c & field);
    return c + (by < left ? by : left);
}

static uint32_t deliveries(uint64_t c) { return (uint32_t)(c / HEIST__CANCEL_DELIVERY_ONE); }

/* Sets the request; false when the task is done. */
bool heist__cancel_request(heist_task *t, uint32_t *mark) {
    uint64_t c = a_load_rlx(&t->cancel), more; /* rlx: the cas decides */
    do {
        if (heist__future_is_done(t)) return false;
        more = raised(c, HEIST__CANCEL_ALL, HEIST__CANCEL_ONE);
        more = raised(more, HEIST__CANCEL_FRESH, HEIST__CANCEL_FRESH_ONE);
    } while (!a_cas_sc(&t->cancel, &c, more | undelivered(c)));
    if (mark) *mark = deliveries(c);
    return true;
}

/* Another deliverer or the like is in the middle of two or three steps. */
static void let_it_land(unsigned *spins) {
    if (++*spins % 64)
        heist__cpu_relax();
    else
        heist__sys_yield();
}

/* Takes the request, with the duty to deliver: then the flight ends by landed or give_back, with *taken. */
static bool take(heist_task *t, uint64_t *taken) {
    unsigned spins = 0;
    uint64_t c = a_load_rlx(&t->cancel); /* rlx: the cas decides */
    while (c & HEIST__CANCEL_PENDING) {
        if (c & HEIST__CANCEL_FLIGHT) {
            let_it_land(&spins);
            c = a_load_rlx(&t->cancel);
        } else if (a_cas_sc(&t->cancel, &c, heist__cancel_delivered(c) | HEIST__CANCEL_FLIGHT)) {
            *taken = c & HEIST__CANCEL_FRESH;
            return true;
        }
    }
    return false;
}
static void landed(heist_task *t) { a_and_sc(&t->cancel, ~HEIST__CANCEL_FLIGHT); }
static void give_back(heist_task *t, uint64_t taken) {
    uint64_t c = a_load_rlx(&t->cancel), back; /* rlx: the cas decides */
    do {
        back = raised(c, HEIST__CANCEL_FRESH, taken);
    } while (!a_cas_sc(&t->cancel, &c, (back & ~HEIST__CANCEL_FLIGHT) | HEIST__CANCEL_PENDING));
}

/* One step: delivered or nothing to do: NULL; else the future that the request goes on to, with a
 * reference, the request taken. */
static heist_future *deliver_here(heist_task *t, uint64_t *taken) {
    for (;;) {
        if (!(a_load_sc(&t->cancel) & HEIST__CANCEL_PENDING)) return NULL;
        if (a_load_sc(&t->park.state) == HEIST__PARK_PARKED) { /* the whole word: no code stands beside it */
            if (!take(t, taken)) return NULL;
            if (heist__park_claim_parked(&t->park, -ECANCELED)) {
                landed(t);
                heist__park_wake(&t->park);
                return NULL;
            }
            give_back(t, *taken);
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
        if (take(t, taken)) return f;
        heist_unref(f);
        return NULL;
    }
}

/* What cancels a plain future tells those who wait for it, and runs what they wrote: the flight ends before that, by
 * this thread's own hand. */
void heist__cancel_recorded(void) {
    struct heist__self *self = heist__self();
    if (self->flight) landed(self->flight);
    self->flight = NULL;
}

/* To a future that is no task: true when it was recorded, and then the flight has ended. */
static bool pass_on(heist_task *t, heist_future *f) {
    struct heist__self *self = heist__self();
    heist_task *outer = self->flight; /* none, as a rule: its own was recorded before it came to others */
    self->flight = t;
    bool recorded = heist__future_cancel_plain(f, NULL) == 1;
    if (recorded) heist__cancel_recorded();
    self->flight = outer;
    return recorded;
}

/* Tasks that await each other in a circle would be walked for ever. */
#define STEPS_MAX 65536

void heist__cancel_deliver(heist_task *t) {
    heist_task *holding = NULL; /* the reference that keeps t, beyond the caller's */
    const heist_task *origin = t;
    for (unsigned steps = 0; steps < STEPS_MAX; steps++) {
        uint64_t taken;
        heist_future *f = deliver_here(t, &taken);
        if (!f) break;
        bool task = heist__is_task(f);
        if (!(task ? heist__cancel_request(f, NULL)
                   : pass_on(t, f))) { /* ended meanwhile: the request is t's own again */
            give_back(t, taken);
            heist_unref(f);
            if (steps % 16 == 15) heist__sys_yield(); /* its completer may be waiting for this core */
            continue;
        }
        if (!task) {
            heist_unref(f);
            break;
        }
        landed(t);
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
    if (!heist__cancel_request(f, NULL)) return 0;
    heist__cancel_deliver(f);
    return 1;
}

int heist_cancel(heist_future *f) { return heist_cancel_message(f, NULL); }

/* ---- taking back ---- */

static uint32_t requests(uint64_t c) { return (uint32_t)((c & HEIST__CANCEL_ALL) / HEIST__CANCEL_ONE); }

int heist_cancelling(const heist_future *f) {
    if (!f) return -EINVAL;
    if (!heist__is_task(f)) return 0;
    /* rlx: a count, old when it arrives */
    return (int)requests(a_load_rlx(&((heist_future *)(uintptr_t)f)->cancel));
}

/* One request less, never below zero.  With at most `base` left, what was not delivered is withdrawn; so is the one
 * that was made at *mark (NULL: nobody knows), when it is FRESH.  What is left. */
static uint32_t take_back(heist_task *t, uint32_t base, const uint32_t *mark) {
    unsigned spins = 0;
    uint64_t c = a_load_rlx(&t->cancel); /* rlx: the cas decides */
    for (;;) {
        if (!requests(c)) return 0;
        uint64_t lower = c - HEIST__CANCEL_ONE, fresh = c & HEIST__CANCEL_FRESH;
        bool last = requests(lower) <= base;
        if (mark || last) {
            if (c & HEIST__CANCEL_FLIGHT) { /* what is in the air would come back as nobody's */
                let_it_land(&spins);
                c = a_load_rlx(&t->cancel);
                continue;
            }
            if (mark && deliveries(c) == *mark && fresh && fresh != HEIST__CANCEL_FRESH) {
                lower -= HEIST__CANCEL_FRESH_ONE;
                last = last || fresh == HEIST__CANCEL_FRESH_ONE;
            }
            if (last) lower &= ~(HEIST__CANCEL_PENDING | HEIST__CANCEL_HELD | HEIST__CANCEL_FRESH);
        }
        if (a_cas_sc(&t->cancel, &c, lower)) return requests(lower);
    }
}

int heist_uncancel(heist_future *f) {
    if (!f) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    return heist__is_task(f) ? (int)take_back(f, 0, NULL) : 0;
}

uint32_t heist__cancel_base(heist_task *t) {
    uint64_t c = a_load_rlx(&t->cancel); /* rlx: one that comes just now may count on either side */
    bool on_its_way = c & (HEIST__CANCEL_PENDING | HEIST__CANCEL_HELD | HEIST__CANCEL_FLIGHT);
    return requests(c) - (on_its_way && requests(c));
}

bool heist__cancel_withdraw(heist_task *t, uint32_t base, uint32_t mark) { return take_back(t, base, &mark) <= base; }

void heist__cancel_told(heist_task *t) {
    unsigned spins = 0;
    uint64_t c = a_load_rlx(&t->cancel); /* rlx: the cas decides */
    while (c & (HEIST__CANCEL_PENDING | HEIST__CANCEL_HELD | HEIST__CANCEL_FLIGHT)) {
        if (c & HEIST__CANCEL_FLIGHT) { /* it would come back */
            let_it_land(&spins);
            c = a_load_rlx(&t->cancel);
        } else if (a_cas_sc(&t->cancel, &c, heist__cancel_delivered(c) & ~HEIST__CANCEL_HELD)) {
            return;
        }
    }
}

void heist__cancel_again(heist_task *t, uint32_t base) {
    uint64_t c = a_load_rlx(&t->cancel), again; /* rlx: the cas decides */
    do {
        if (requests(c) <= base) return;
        again = c & HEIST__CANCEL_FRESH ? c : c + HEIST__CANCEL_FRESH_ONE;
    } while (!a_cas_sc(&t->cancel, &c, again | undelivered(c)));
}

/* ---- uncancellable sections ---- */

/* The caller's task, also when it has told that it blocks. */
static heist_task *task_here(void) {
    struct heist__self *self = heist__self();
    return self->away ? self->away_task : self->task;
}

int heist_uncancellable_begin(void) {
    if (heist__forked()) return HEIST_EFORKED;
    heist_task *t = task_here();
    if (!t) return 0;
    unsigned spins = 0;
    uint64_t c = a_load_rlx(&t->cancel); /* rlx: the cas decides */
    for (;;) {
        if ((c & HEIST__CANCEL_MASK) == HEIST__CANCEL_MASK) return -EOVERFLOW;
        if (c & HEIST__CANCEL_FLIGHT) { /* it would not know of the section */
            let_it_land(&spins);
            c = a_load_rlx(&t->cancel);
            continue;
        }
        uint64_t in = c + HEIST__CANCEL_MASK_ONE;
        if (c & HEIST__CANCEL_PENDING) in = (in & ~HEIST__CANCEL_PENDING) | HEIST__CANCEL_HELD;
        if (a_cas_sc(&t->cancel, &c, in)) return 0;
    }
}

int heist_uncancellable_end(void) {
    if (heist__forked()) return HEIST_EFORKED;
    heist_task *t = task_here();
    if (!t) return 0;
    uint64_t c = a_load_rlx(&t->cancel), out; /* rlx: the cas decides */
    do {
        if (!(c & HEIST__CANCEL_MASK)) return HEIST_EINVALSTATE;
        out = c - HEIST__CANCEL_MASK_ONE;
        if (!(out & HEIST__CANCEL_MASK) && (out & HEIST__CANCEL_HELD))
            out = (out & ~HEIST__CANCEL_HELD) | HEIST__CANCEL_PENDING;
    } while (!a_cas_sc(&t->cancel, &c, out));
    return 0;
}
