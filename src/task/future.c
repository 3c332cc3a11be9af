/* Birth, references, death and questions of futures.  See task.h and state.h.
 *
 * Any thread.  Invariant: an object is put back to the slab exactly once, by the
 * transition that took the last reference. */
#include <heist/future.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fork.h"
#include "conc/self.h"
#include "mem/slab.h"
#include "task/derived.h"
#include "task/birth.h"
#include "task/extra.h"
#include "task/state.h"
#include "task/task.h"

struct heist__task_hooks heist__task_hooks;

heist_future *heist__future_alloc(struct heist__self *self, heist_loop *loop, uint64_t loop_id) {
    heist_future *f = heist__slab_get(self, HEIST__SLAB_FUTURE);
    if (!f) return NULL;
    a_store_rlx(&f->waiters, 0); /* rlx, as all here: published by born, or by what hands the object on */
    f->value = NULL;
    f->value_free = NULL;
    f->failure = NULL;
    f->code = 0;
    f->outcome = HEIST__OUT_VALUE;
    a_store_rlx(&f->retrieved, 0);
    f->pinned = 0;
    f->loop = loop;
    f->loop_id = loop_id;
    a_store_rlx(&f->awaiting, NULL);
    a_store_rlx(&f->cancel, 0);
    a_store_rlx(&f->cancel_message, NULL);
    a_store_rlx(&f->number, 0);
    a_store_rlx(&f->extra, NULL);
    return f;
}

bool heist__future_try_ref(heist_future *f) { return heist__state_try_ref(f); }

bool heist__is_task(const heist_future *f) {
    /* rlx: the flag is there from birth */
    return a_load_rlx(&((heist_future *)(uintptr_t)f)->word) & HEIST__F_TASK;
}

struct heist__derived *heist__derived_of(const heist_future *f) {
    /* rlx: as above */
    return a_load_rlx(&((heist_future *)(uintptr_t)f)->word) & HEIST__F_DERIVED ? f->arg : NULL;
}

/* Nobody holds it: reports a failure that nobody looked at, and frees. */
static HEIST_NOINLINE void destroy(heist_future *f) {
    struct heist__self *self = heist__self();
    uint8_t retrieved = a_load_rlx(&f->retrieved); /* rlx: the last unref ordered it */
    bool done = heist__future_is_done(f);
    struct heist__derived *derived = heist__derived_of(f);
    if (!done) heist__future_drop_callbacks(f);
    char *name = NULL;
    if (done && f->outcome == HEIST__OUT_ERROR && !retrieved) {
        heist_report report = HEIST_REPORT_INIT;
        report.message = heist__is_task(f) ? "the failure of a task was never retrieved"
                                           : "the failure of a future was never retrieved";
        report.code = f->code;
        name = heist__birth_report(f, &report.extra);
        if (name && *name) report.name = name;
        heist__task_hooks.report(f->loop, f->loop_id, &report, f->failure, name);
        f->failure = NULL;
    }
    if (done && f->outcome == HEIST__OUT_VALUE && retrieved < 2 && f->value && f->value_free)
        heist__destruct(f->value_free, f->value);
    heist__free(f->failure);
    heist__free(a_load_rlx(&f->cancel_message)); /* rlx, as the next: nobody else holds it */
    heist__extra_free(a_load_rlx(&f->extra));
    a_store_rlx(&f->extra, NULL);
    a_store_rlx(&f->word, 0); /* rlx: dead; a late try_ref refuses it */
    heist__slab_put(self, HEIST__SLAB_FUTURE, f);
    if (derived) derived->dispose(derived);
}

heist_future *heist_ref(heist_future *f) {
    if (f) heist__state_ref(f);
    return f;
}

void heist__future_dispose(heist_future *f) {
    if (!(a_load_rlx(&f->word) & HEIST__F_TASK) || f->failure || f->value_free || a_load_rlx(&f->extra) ||
        a_load_rlx(&f->cancel_message) || f->outcome != HEIST__OUT_VALUE) {
        destroy(f);
        return;
    }
    /* The common end of a task: no value to free, no failure, nothing of its own. */
    a_store_rlx(&f->word, 0);
    heist__slab_put(heist__self(), HEIST__SLAB_FUTURE, f);
}

void heist_unref(heist_future *f) {
    if (f && !heist__forked() && heist__state_unref(f)) heist__future_dispose(f); /* a child's copy is the parent's */
}

int heist_future_done(const heist_future *f) { return f ? heist__future_is_done(f) : -EINVAL; }

int heist_future_cancelled(const heist_future *f) {
    if (!f) return -EINVAL;
    return heist__future_is_done(f) && f->outcome == HEIST__OUT_CANCELLED;
}

int heist_future_state(const heist_future *f) {
    if (!f) return -EINVAL;
    if (!heist__future_is_done(f)) {
        /* rlx: an answer that is old when it arrives, whatever the order */
        bool runs = heist__is_task(f) && a_load_rlx(&((heist_future *)(uintptr_t)f)->running);
        return runs ? HEIST_RUNNING : HEIST_PENDING;
    }
    return f->outcome == HEIST__OUT_CANCELLED ? HEIST_CANCELLED : HEIST_DONE;
}

int heist_future_is_task(const heist_future *f) { return f && heist__is_task(f); }

heist_loop *heist_future_loop(const heist_future *f) { return f ? f->loop : NULL; }

static void mark_retrieved(heist_future *f) {
    /* rlx: read by destroy, which the last unref orders.  A plain store must not undo a take (2). */
    if (!a_load_rlx(&f->retrieved)) {
        uint8_t none = 0;
        a_cas_rel(&f->retrieved, &none, 1); /* rel: nothing is published by it; the cas only keeps a 2 */
    }
}

int heist_future_result(heist_future *f, void **out) {
    if (heist_unlikely(!f)) return -EINVAL;
    if (heist_unlikely(!heist__future_is_done(f))) return HEIST_EINVALSTATE;
    if (heist_likely(f->outcome == HEIST__OUT_VALUE)) {
        /* acq: pairs with take, which owns the value then */
        if (heist_unlikely(f->value && a_load_acq(&f->retrieved) == 2)) return HEIST_ERESULTTAKEN;
        if (out) *out = f->value;
        return 0;
    }
    mark_retrieved(f);
    return f->code;
}

int heist_future_take(heist_future *f, void **out) {
    if (!f) return -EINVAL;
    if (heist__derived_of(f)) return -ENOTSUP; /* the value is another's */
    if (!heist__future_is_done(f)) return HEIST_EINVALSTATE;
    if (f->outcome != HEIST__OUT_VALUE) {
        mark_retrieved(f);
        return f->code;
    }
    if (a_xchg_ar(&f->retrieved, 2) == 2) return HEIST_ERESULTTAKEN; /* ar: one taker; pairs with result */
    if (out) *out = f->value;
    return 0;
}

int heist_future_exception(heist_future *f, heist_exception *out) {
    if (!f || !out || out->size < sizeof(*out)) return -EINVAL;
    if (!heist__future_is_done(f)) return HEIST_EINVALSTATE;
    mark_retrieved(f);
    const struct heist__failure *failure = f->failure;
    out->code = f->outcome == HEIST__OUT_VALUE ? 0 : f->code;
    out->message = failure ? failure->message : out->code ? heist_strerror(out->code) : "";
    out->file = failure ? failure->file : NULL;
    out->line = failure ? failure->line : 0;
    return 0;
}
