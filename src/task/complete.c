/* The end of a future: publication of the outcome, and the list of those who wait.
 *
 * `waiters` is one word:
 *
 *   0 ──add──> node|SINGLE, node                       (SINGLE: one plain await)
 *   node* ──add──> node*|LOCK ──> node                 (more are appended under LOCK)
 *   0, node|SINGLE ──publish──> DONE
 *   node ──publish──> node|LOCK ──> DONE               (the list is walked under LOCK)
 *
 * Steps of publish: the outcome is written; the word becomes DONE (release), which
 * hands the outcome to everybody who reads DONE (acquire); F_DONE is set and the
 * completer's references go in one addition; then the waiters are made ready.
 *
 * Why a node on a waiter's stack is not touched too late.  AWAIT: its task is woken
 * only by this completion, and the node is read before that wake.  PARK: its owner
 * may leave early (deadline, cancel), but first calls remove, which takes LOCK: the
 * walk is either not begun (the node is unlinked) or over (DONE is seen).
 *
 * Why no waiter is lost: add and publish both change the one word by compare-and-swap
 * or under its LOCK bit; an add either comes before DONE, and is walked, or sees DONE. */
#include <heist/future.h>

#include "arch/cpu.h"
#include "base/alloc.h"
#include "base/fork.h"
#include "base/sys.h"
#include "conc/self.h"
#include "task/context.h"
#include "task/derived.h"
#include "task/state.h"
#include "task/task.h"

/* A done callback: a waiter, and the job that runs it. */
struct done_callback {
    struct heist__job job;
    struct heist__waiter waiter;
    heist_future *future; /* one reference while the callback is scheduled */
    heist_done_fn fn;
    void *user;
    heist_free_fn user_free;
    struct heist__vars *vars; /* the context in which it was added */
};

static void relax(unsigned *spins) {
    if (++*spins % 64)
        heist__cpu_relax();
    else
        heist__sys_yield(); /* the holder of the bit may have lost its core */
}

/* The list's head (without tags) with LOCK taken, or DONE. */
static uintptr_t lock_waiters(heist_future *f) {
    unsigned spins = 0;
    uintptr_t v = a_load_acq(&f->waiters); /* acq: pairs with the release of DONE and of the lock */
    for (;;) {
        if (v & HEIST__WAITERS_LOCK) {
            relax(&spins);
            v = a_load_acq(&f->waiters);
        } else if (v == HEIST__WAITERS_DONE) {
            return v;
        } else if (a_cas_sc(&f->waiters, &v, v | HEIST__WAITERS_LOCK)) {
            return v & ~HEIST__WAITERS_TAGS;
        }
    }
}

static void unlock_waiters(heist_future *f, struct heist__waiter *head) {
    a_store_rel(&f->waiters, (uintptr_t)head); /* rel: pairs with the acquires of lock_waiters */
}

bool heist__future_add_waiter(heist_future *f, struct heist__waiter *w) {
    w->next = NULL;
    w->prev = w;
    uintptr_t v = 0;
    /* sc: the full barrier that callers rely on, see cancel.c */
    uintptr_t tag = w->kind == HEIST__WAIT_AWAIT ? HEIST__WAITERS_SINGLE : 0;
    if (heist_likely(a_cas_sc(&f->waiters, &v, (uintptr_t)w | tag))) return true;
    v = lock_waiters(f);
    if (v == HEIST__WAITERS_DONE) return false;
    struct heist__waiter *head = (struct heist__waiter *)v;
    if (head) {
        w->prev = head->prev;
        head->prev->next = w;
        head->prev = w;
    } else {
        head = w;
    }
    unlock_waiters(f, head);
    a_fence_sc(); /* store (unlock) before the caller's next load */
    return true;
}

/* One that is linked; what becomes of the head.  It takes as long with one as with thousands: a future that each of
 * many tasks waits for beside other things (a stop) is left again with each of those. */
static struct heist__waiter *unlink_waiter(struct heist__waiter *head, struct heist__waiter *w) {
    if (w->next)
        w->next->prev = w->prev;
    else
        head->prev = w->prev;
    if (head == w) return w->next;
    w->prev->next = w->next;
    return head;
}

bool heist__future_remove_waiter(heist_future *f, struct heist__waiter *w) {
    uintptr_t v = lock_waiters(f);
    if (v == HEIST__WAITERS_DONE) return false;
    unlock_waiters(f, unlink_waiter((struct heist__waiter *)v, w));
    return true;
}

/* ---- who waits ----
 *
 * A waiter that is linked stays where it is while the lock is held: AWAIT and HOOK leave by completion, which needs
 * the lock, or, as PARK, by remove, which needs it too.  So its task is not done, and a reference can be taken. */

size_t heist__future_awaiters(heist_future *f, heist_future **out, size_t room, unsigned *threads) {
    uintptr_t v = lock_waiters(f);
    if (v == HEIST__WAITERS_DONE) return 0;
    size_t n = 0;
    for (struct heist__waiter *w = (struct heist__waiter *)v; w; w = w->next) {
        heist_future *by = NULL;
        switch (w->kind) {
        case HEIST__WAIT_AWAIT: by = w->task; break;
        case HEIST__WAIT_PARK:
            if (w->park->parker)
                ++*threads;
            else
                by = heist_container_of(w->park, heist_task, park);
            break;
        case HEIST__WAIT_HOOK: by = w->awaiter; break;
        case HEIST__WAIT_CALLBACK: break;
        }
        if (!by || (n < room && !heist__future_try_ref(by))) continue;
        if (n < room) out[n] = by; /* beyond, only counted: no reference may end under the lock */
        n++;
    }
    unlock_waiters(f, (struct heist__waiter *)v);
    return n;
}

struct heist__waiter *heist__future_take_hook(heist_future *f, void (*hook)(struct heist__waiter *, heist_future *),
                                              const heist_future *awaiter) {
    uintptr_t v = lock_waiters(f);
    if (v == HEIST__WAITERS_DONE) return NULL;
    struct heist__waiter *head = (struct heist__waiter *)v, *w = head;
    while (w && !(w->kind == HEIST__WAIT_HOOK && w->hook == hook && w->awaiter == awaiter)) w = w->next;
    unlock_waiters(f, w ? unlink_waiter(head, w) : head);
    return w;
}

/* ---- done callbacks ---- */

static void drop_callback(struct done_callback *c) {
    if (c->user_free) heist__destruct(c->user_free, c->user);
    heist__vars_unref(c->vars);
    heist__free(c);
}

static void end_callback(struct done_callback *c) {
    heist_future *f = c->future;
    drop_callback(c);
    heist_unref(f);
}

static void callback_run(struct heist__job *job, heist_loop *loop) {
    (void)loop;
    struct done_callback *c = heist_container_of(job, struct done_callback, job);
    if (heist_unlikely(heist__contexts_used())) {
        struct heist__carried carried = {{c->vars, 0, NULL}, NULL};
        struct heist__in_scope in;
        c->vars = NULL;
        heist__scope_enter(&in, &carried);
        c->fn(c->future, c->user);
        heist__scope_leave(&in);
        heist__carried_drop(&carried);
    } else {
        c->fn(c->future, c->user);
    }
    end_callback(c);
}

static void callback_drop(struct heist__job *job) { end_callback(heist_container_of(job, struct done_callback, job)); }

static const struct heist__job_class callback_class = {callback_run, callback_drop};

/* In the completing thread.  It is no step of the task that completes, so it may not suspend; what it does has deeds of
 * its own. */
static void callback_run_here(struct done_callback *c) {
    struct heist__self *self = heist__self();
    struct heist__deeds *outer = self->deeds;
    heist_task *task = self->task;
    self->deeds = NULL;
    self->task = NULL;
    callback_run(&c->job, NULL);
    self->task = task;
    self->deeds = outer;
}

/* Hands a callback to the future's loop; runs it here when it has none. */
static void schedule_callback(struct done_callback *c) {
    heist_future *f = c->future;
    if (!f->loop)
        callback_run_here(c);
    else if (heist__task_hooks.post(f->loop, f->loop_id, &c->job))
        callback_drop(&c->job);
}

int heist_future_add_done_callback(heist_future *f, heist_done_fn fn, void *user, heist_free_fn user_free) {
    if (!f || !fn) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    struct done_callback *c = heist__alloc(sizeof(*c));
    if (!c) return -ENOMEM;
    c->job.klass = &callback_class;
    c->waiter.kind = HEIST__WAIT_CALLBACK;
    c->future = f;
    c->fn = fn;
    c->user = user;
    c->user_free = user_free;
    c->vars = heist_unlikely(heist__contexts_used()) ? heist__context_capture(heist__self()) : NULL;
    if (heist__future_add_waiter(f, &c->waiter)) return 0; /* the reference is taken when it is scheduled */
    if (!f->loop) {
        heist__state_ref(f);
        callback_run_here(c);
        return 0;
    }
    heist__state_ref(f);
    int err = heist__task_hooks.post(f->loop, f->loop_id, &c->job);
    if (err) {
        heist_unref(f);
        heist__vars_unref(c->vars);
        heist__free(c);
    }
    return err;
}

int heist_future_remove_done_callback(heist_future *f, heist_done_fn fn, void *user) {
    if (!f || !fn) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    uintptr_t v = lock_waiters(f);
    if (v == HEIST__WAITERS_DONE) return 0;
    struct heist__waiter *head = (struct heist__waiter *)v, *removed = NULL;
    for (struct heist__waiter *w = head, *next; w; w = next) {
        next = w->next;
        if (w->kind != HEIST__WAIT_CALLBACK) continue;
        struct done_callback *c = heist_container_of(w, struct done_callback, waiter);
        if (c->fn != fn || c->user != user) continue;
        head = unlink_waiter(head, w);
        w->next = removed;
        removed = w;
    }
    unlock_waiters(f, head);
    int count = 0;
    for (; removed; count++) {
        struct done_callback *c = heist_container_of(removed, struct done_callback, waiter);
        removed = removed->next;
        drop_callback(c);
    }
    return count;
}

/* A pending future whose last holder left: its callbacks will never run. */
void heist__future_drop_callbacks(heist_future *f) {
    uintptr_t v = a_load_rlx(&f->waiters); /* rlx: nobody else holds it */
    if (v == HEIST__WAITERS_DONE) return;
    struct heist__waiter *w = (struct heist__waiter *)(v & ~HEIST__WAITERS_TAGS);
    while (w) {
        struct heist__waiter *hook = w->kind == HEIST__WAIT_HOOK ? w : NULL;
        struct done_callback *c = heist_container_of(w, struct done_callback, waiter);
        w = w->next;
        if (hook) {
            hook->hook(hook, f);
            continue;
        }
        drop_callback(c);
    }
}

/* ---- publication ---- */

static void finish(heist_future *f, unsigned drop_refs) {
    if (heist__state_done(f, drop_refs)) heist__future_dispose(f);
}

/* More than one waiter, or kinds that are claimed or posted: walks under the lock. */
static HEIST_NOINLINE void publish_slowly(heist_future *f, unsigned drop_refs) {
    uintptr_t v = lock_waiters(f);
    struct heist__waiter *woken = NULL, **end = &woken;
    for (struct heist__waiter *w = (struct heist__waiter *)v, *next; w; w = next) {
        next = w->next;
        if (w->kind == HEIST__WAIT_PARK && heist__park_claim(w->park, 0) != HEIST__CLAIM_WAKE) continue;
        if (w->kind == HEIST__WAIT_CALLBACK) heist__state_ref(f);
        *end = w;
        end = &w->next;
    }
    *end = NULL;
    heist__state_ref(f);               /* ours, while the waiters are woken */
    a_store_rel(&f->waiters, HEIST__WAITERS_DONE); /* rel: publishes the outcome; pairs with is_done */
    finish(f, drop_refs);
    while (woken) {
        struct heist__waiter *w = woken;
        woken = w->next;
        switch (w->kind) {
        case HEIST__WAIT_AWAIT: heist__task_hooks.ready(w->task); break;
        case HEIST__WAIT_PARK: heist__park_wake(w->park); break;
        case HEIST__WAIT_HOOK: w->hook(w, f); break;
        case HEIST__WAIT_CALLBACK: schedule_callback(heist_container_of(w, struct done_callback, waiter)); break;
        }
    }
    heist_unref(f);
}

void heist__future_publish(heist_future *f, unsigned drop_refs) {
    uintptr_t v = a_load_rlx(&f->waiters); /* rlx: the cas decides */
    for (;;) {
        if (v && ((v & HEIST__WAITERS_LOCK) || !(v & HEIST__WAITERS_SINGLE))) {
            publish_slowly(f, drop_refs);
            return;
        }
        /* ar: release the outcome to is_done; acquire the node that add_waiter released */
        if (!a_cas_ar(&f->waiters, &v, HEIST__WAITERS_DONE)) continue;
        struct heist__waiter *w = (struct heist__waiter *)(v & ~HEIST__WAITERS_TAGS);
        heist_task *waiter = w ? w->task : NULL;
        finish(f, drop_refs);
        if (waiter) heist__task_hooks.ready(waiter);
        return;
    }
}

/* ---- completing a plain future ---- */

static int complete(heist_future *f, uint8_t outcome, int code, void *value, heist_free_fn value_free,
                    struct heist__failure *failure, unsigned drop_refs) {
    if (!heist__state_claim(f)) {
        heist__free(failure);
        return HEIST_EINVALSTATE;
    }
    if (outcome == HEIST__OUT_CANCELLED) heist__cancel_recorded(); /* before anybody is told */
    f->outcome = outcome;
    f->code = code;
    f->value = value;
    f->value_free = value_free;
    f->failure = failure;
    heist__future_publish(f, drop_refs);
    return 0;
}

int heist__future_complete(heist_future *f, int code, void *value, heist_free_fn value_free,
                           struct heist__failure *failure) {
    uint8_t outcome = code >= 0 ? HEIST__OUT_VALUE : code == -ECANCELED ? HEIST__OUT_CANCELLED : HEIST__OUT_ERROR;
    return complete(f, outcome, code < 0 ? code : 0, value, value_free, failure, 0);
}

/* Tasks and derived futures get their outcome from elsewhere. */
static bool ends_by_itself(const heist_future *f) { return heist__is_task(f) || heist__derived_of(f); }

int heist_future_set_result(heist_future *f, void *value, heist_free_fn value_free) {
    if (!f) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    if (ends_by_itself(f)) return -ENOTSUP;
    return complete(f, HEIST__OUT_VALUE, 0, value, value_free, NULL, 0);
}

int heist_future_set_exception(heist_future *f, int code, const char *message) {
    if (!f || code >= 0) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    if (ends_by_itself(f)) return -ENOTSUP;
    struct heist__failure *failure = message ? heist__failure_make(NULL, 0, code, "%s", message) : NULL;
    if (message && !failure) return -ENOMEM;
    return complete(f, code == -ECANCELED ? HEIST__OUT_CANCELLED : HEIST__OUT_ERROR, code, NULL, NULL, failure, 0);
}

int heist__future_cancel_plain(heist_future *f, struct heist__failure *failure) {
    struct heist__derived *d = heist__derived_of(f);
    if (d) return d->cancel(d, failure);
    return complete(f, HEIST__OUT_CANCELLED, -ECANCELED, NULL, NULL, failure, 0) == 0;
}

bool heist__derived_complete(heist_future *f, uint8_t outcome, int code, void *value, struct heist__failure *failure) {
    return complete(f, outcome, code, value, NULL, failure, 1) == 0;
}
