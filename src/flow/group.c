/* Groups: tasks that end before the block of their owner does.
 *
 *   NEW ──enter──> OPEN ──exit──> LEAVING ──no child lives──> LEFT
 *
 * `aborting` is set once, from any state before LEFT: by the first child that fails, by
 * a body that ends with a code, by a request to the owner, by heist_group_cancel.  Who
 * sets it has every child asked to cancel, and, while OPEN, the owner (`asked_owner`),
 * once.  No child is made any more then.
 *
 * Children.  `live` counts them, from before the spawn to the hook that sees the end;
 * the exit waits until it is zero, and an owner that waits cannot end, nor its runtime.
 * A member has its place in memory before its task is made, so that nothing can fail
 * between making a task and knowing it; the same memory keeps its failure.
 *   Nobody is forgotten by an abort: a member is linked under the lock.  If `aborting`
 *   stands by then its maker asks; else the walk, which begins after `aborting` was set
 *   under that lock, finds it in `fresh`.  Walks take the members of `fresh` one by one
 *   and move them to `asked` first, so each is asked once, and the lock is never held
 *   while somebody is asked.
 *   A child that ended before its hook was hung on is taken for ended by its maker.
 *
 * The owner.  The group's request is recorded under the lock, in state OPEN; the exit
 * changes the state under that lock first, so it knows whether to take one back, and
 * none comes later.  Whose -ECANCELED it is, is told as in sched/timeout.c: when ours is
 * back and nothing is left from after the entry, it was ours.
 *
 * References: the users', and one for each live child. */
#include <heist/error.h>
#include <heist/future.h>
#include <heist/group.h>
#include <heist/runtime.h>
#include <limits.h>

#include "base/alloc.h"
#include "base/fork.h"
#include "conc/self.h"
#include "sched/sched.h"
#include "sync/wait_while.h"
#include "task/task.h"

enum { NEW, OPEN, LEAVING, LEFT };

struct member {
    struct heist__waiter waiter;
    struct member *next, *prev; /* in fresh or asked; next alone: in failed */
    heist_group *group;
    heist_task *task; /* one reference */
    bool asked;       /* in which of the lists it stands */
    bool unseen;      /* nobody but the group has the task: its result is nobody's */
};

struct members {
    struct member *head, *tail;
};

struct heist_group {
    _Atomic(size_t) refs;
    struct heist__spin lock;
    /* under the lock */
    int state;
    bool aborting, asked_owner;
    uint32_t mark; /* of the request to the owner; see cancel.c */
    size_t live;
    struct members fresh, asked, failed; /* the living, and those that did not end well, in the order of their ends */
    size_t failures;
    struct member **failure_at;  /* the failed by their numbers; NULL: not made, or no memory */
    struct heist__waitq leaving; /* the owner in its exit */
    heist_task *owner;           /* one reference, from the entry on */
    /* owner */
    uint32_t base; /* see cancel.c */
    int body_code; /* 0, or the failure of the body */
    struct heist__failure *body_failure;
};

/* ---- lists, under the lock ---- */

static void append(struct members *l, struct member *m) {
    m->next = NULL;
    m->prev = l->tail;
    if (l->tail) l->tail->next = m;
    else l->head = m;
    l->tail = m;
}

static void cut(struct members *l, struct member *m) {
    if (m->prev) m->prev->next = m->next;
    else l->head = m->next;
    if (m->next) m->next->prev = m->prev;
    else l->tail = m->prev;
}

/* ---- life ---- */

int heist_group_new(heist_group **out) {
    if (!out) return -EINVAL;
    if (heist__fork_guard()) return -ENOMEM;
    if (heist__forked()) return HEIST_EFORKED;
    heist_group *g = heist__zalloc(sizeof(*g));
    if (!g) return -ENOMEM;
    heist__spin_init(&g->lock);
    a_store_rlx(&g->refs, 1); /* rlx: not published yet */
    *out = g;
    return 0;
}

heist_group *heist_group_ref(heist_group *g) {
    if (g) a_add_rlx(&g->refs, 1); /* rlx: the caller holds one */
    return g;
}

void heist_group_unref(heist_group *g) {
    if (!g || heist__forked() || a_sub_ar(&g->refs, 1) != 1) return; /* ar: as every last reference */
    while (g->failed.head) {
        struct member *m = g->failed.head;
        g->failed.head = m->next;
        heist_unref(m->task);
        heist__free(m);
    }
    heist_unref(g->owner);
    heist__free(g->body_failure);
    heist__free(g->failure_at);
    heist__free(g);
}

/* ---- ending early ---- */

/* Under the lock: true when the caller has to go on with abort_on. */
static bool abort_begin(heist_group *g) {
    if (g->aborting) return false;
    g->aborting = true;
    if (g->state == OPEN) g->asked_owner = heist__cancel_request(g->owner, &g->mark);
    return true;
}

/* After the lock, with a reference to the group. */
static void abort_on(heist_group *g) {
    for (;;) {
        heist__spin_lock(&g->lock);
        struct member *m = g->fresh.head;
        heist_task *t = NULL;
        if (m) {
            cut(&g->fresh, m);
            append(&g->asked, m);
            m->asked = true;
            t = heist_ref(m->task);
        }
        heist__spin_unlock(&g->lock);
        if (!t) break;
        heist_cancel(t);
        heist_unref(t);
    }
    heist__spin_lock(&g->lock);
    heist_task *owner = g->asked_owner ? heist_ref(g->owner) : NULL;
    heist__spin_unlock(&g->lock);
    if (owner) heist__cancel_deliver(owner); /* nothing, when it has taken the request back */
    heist_unref(owner);
}

int heist_group_cancel(heist_group *g) {
    if (!g) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    heist__spin_lock(&g->lock);
    bool mine = g->state != LEFT && abort_begin(g);
    heist__spin_unlock(&g->lock);
    if (mine) abort_on(g);
    return 0;
}

/* ---- children ---- */

/* Under the lock: whom to wake after it, or NULL. */
static struct heist__park *one_less(heist_group *g) {
    struct heist__park *wake = NULL;
    if (--g->live == 0) heist__waitq_claim(&g->leaving, 0, NULL, NULL, &wake);
    return wake;
}

/* A result that nobody asked for is freed before the end counts: its destructor may look at what the block owns.  Not
 * left to the last reference, for whoever passes a request on, or lists all tasks, holds one for a moment, and that
 * moment may end behind the block. */
static void drop_result(heist_future *f) {
    void *value = NULL;
    if (f->value && f->value_free && heist_future_take(f, &value) == 0) heist__destruct(f->value_free, value);
}

/* By whoever completed it, or by its maker: all that the group does at an end. */
static void child_ended(struct heist__waiter *w, heist_future *f) {
    struct member *m = heist_container_of(w, struct member, waiter);
    heist_group *g = m->group;
    bool failed = f->outcome == HEIST__OUT_ERROR;
    if (failed) heist_future_result(f, NULL); /* the group has looked at it */
    else if (m->unseen) drop_result(f);
    heist__spin_lock(&g->lock);
    cut(m->asked ? &g->asked : &g->fresh, m);
    bool first = failed && abort_begin(g);
    if (failed) {
        append(&g->failed, m);
        g->failures++;
    }
    struct heist__park *wake = one_less(g); /* from here on the owner may leave, and let go of the group */
    heist__spin_unlock(&g->lock);
    if (wake) heist__park_wake(wake);
    if (!failed) {
        heist_unref(m->task);
        heist__free(m);
    }
    if (first) abort_on(g);
    heist_group_unref(g);
}

int heist_group_create_task_at(const char *file, int line, heist_group *g, heist_coro_fn fn, void *arg,
                               const heist_task_options *opts, heist_task **out) {
    if (!g || !fn) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    struct member *m = heist__alloc(sizeof(*m));
    if (!m) return -ENOMEM;
    heist__spin_lock(&g->lock);
    int err = g->aborting || g->state == LEFT ? HEIST_ESHUTDOWN : g->state == NEW ? HEIST_EINVALSTATE : 0;
    if (!err) g->live++; /* the owner stays, and its runtime */
    heist__spin_unlock(&g->lock);
    if (err) {
        heist__free(m);
        return err;
    }
    heist_task *t = NULL;
    err = heist_runtime_run_coroutine_at(file, line, g->owner->rt, fn, arg, opts, &t);
    if (err) {
        heist__free(m);
        heist__spin_lock(&g->lock);
        struct heist__park *wake = one_less(g);
        heist__spin_unlock(&g->lock);
        if (wake) heist__park_wake(wake);
        return err;
    }
    if (out) *out = heist_ref(t);
    m->waiter.kind = HEIST__WAIT_HOOK;
    m->waiter.hook = child_ended;
    m->waiter.awaiter = g->owner;
    m->group = heist_group_ref(g);
    m->task = t;
    m->unseen = !out;
    heist__spin_lock(&g->lock);
    m->asked = g->aborting;
    append(m->asked ? &g->asked : &g->fresh, m);
    bool late = m->asked;
    heist__spin_unlock(&g->lock);
    if (late) heist_cancel(t); /* ours until child_ended */
    if (!heist__future_add_waiter(t, &m->waiter)) child_ended(&m->waiter, t);
    return 0;
}

size_t heist_group_count(heist_group *g) {
    if (!g || heist__forked()) return 0;
    heist__spin_lock(&g->lock);
    size_t live = g->live;
    heist__spin_unlock(&g->lock);
    return live;
}

/* ---- the block ---- */

int heist_group_enter(heist_group *g) {
    if (!g) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    heist_task *t = heist__self()->task;
    if (!t) return HEIST_ENOTASK;
    heist__spin_lock(&g->lock);
    bool entered = g->state == NEW;
    if (entered) {
        g->state = OPEN;
        g->owner = heist_ref(t);
        g->base = heist__cancel_base(t);
        if (g->aborting) g->asked_owner = heist__cancel_request(t, &g->mark); /* it runs, and looks for itself */
    }
    heist__spin_unlock(&g->lock);
    return entered ? 0 : HEIST_EINVALSTATE;
}

static bool has_living(const void *object, uint64_t arg) {
    (void)arg;
    return ((const heist_group *)object)->live > 0;
}

/* 0, or -ECANCELED: and then some may live. */
static int wait_for_children(heist_group *g) {
    return heist__wait_while(&g->lock, &g->leaving, has_living, g, 0, INT64_MAX);
}

/* No child lives, and none can be made any more: one step, for others than children may make some, too. */
static bool has_ended(heist_group *g) {
    heist__spin_lock(&g->lock);
    bool ended = !g->live;
    if (ended) g->state = LEFT;
    heist__spin_unlock(&g->lock);
    return ended;
}

static void abort_now(heist_group *g) {
    heist__spin_lock(&g->lock);
    bool mine = abort_begin(g);
    heist__spin_unlock(&g->lock);
    if (mine) abort_on(g);
}

/* By the owner, after LEFT and before its exit returns: until then nobody asks.  Without memory the list serves. */
static void number_failures(heist_group *g) {
    struct member **at = g->failures > 1 ? heist__alloc(g->failures * sizeof(*at)) : NULL;
    if (!at) return;
    size_t n = 0;
    for (struct member *m = g->failed.head; m; m = m->next) at[n++] = m;
    heist__spin_lock(&g->lock);
    g->failure_at = at;
    heist__spin_unlock(&g->lock);
}

/* The failure of a body that returns HEIST_EGROUP out of its task, in words.  Without memory it has none. */
static void tell(heist_group *g, heist_task *owner) {
    heist_group_failure first = HEIST_GROUP_FAILURE_INIT;
    int n = heist_group_failures(g);
    if (heist_group_failure_at(g, 0, &first)) return;
    struct heist__failure *told =
        heist__failure_make(first.file, first.line, HEIST_EGROUP, "%d failed; the first, %s, with %s: %s", n,
                            first.name, heist_error_name(first.code), first.message);
    heist__free(owner->failure);
    owner->failure = told;
}

int heist_group_exit(heist_group *g, int code) {
    if (!g) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    heist_task *t = heist__self()->task;
    heist__spin_lock(&g->lock);
    bool mine = t && g->state == OPEN && g->owner == t;
    if (mine) g->state = LEAVING;
    bool asked = mine && g->asked_owner;
    uint32_t mark = g->mark;
    g->asked_owner = g->asked_owner && !asked;
    heist__spin_unlock(&g->lock);
    if (!mine) return HEIST_EINVALSTATE;

    bool ours = asked && heist__cancel_withdraw(t, g->base, mark);
    bool cancelled = code == -ECANCELED && !ours; /* by somebody else */
    if (code < 0 && code != -ECANCELED) {
        g->body_code = code;
        if (t->failure && t->failure->code == code) {
            g->body_failure = t->failure;
            t->failure = NULL;
        }
    } else if (heist__wait_entry(heist__self()) == -ECANCELED) {
        cancelled = true;
    }
    if (cancelled || g->body_code) abort_now(g);

    if (has_ended(g)) {
        heist__wait_skipped(heist__self());
    } else {
        do {
            if (wait_for_children(g) != -ECANCELED) continue;
            cancelled = true;
            abort_now(g);
        } while (!has_ended(g));
    }
    if (!g->failures && !g->body_code) return cancelled ? -ECANCELED : 0;
    if (cancelled) heist__cancel_again(t, g->base); /* the code does not tell of it */
    number_failures(g);
    tell(g, t);
    return HEIST_EGROUP;
}

/* ---- what failed ---- */

/* After LEFT nothing of it changes but that `failure_at` comes.  The lock hands on what was written before. */
static bool has_left(heist_group *g) {
    heist__spin_lock(&g->lock);
    bool left = g->state == LEFT;
    heist__spin_unlock(&g->lock);
    return left;
}

int heist_group_failures(heist_group *g) {
    if (!g) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    if (!has_left(g)) return HEIST_EINVALSTATE;
    size_t n = g->failures + (g->body_code != 0);
    return n < INT_MAX ? (int)n : INT_MAX;
}

/* NULL: it is the body's. */
static struct member *failed_at(heist_group *g, size_t index) {
    if (index >= g->failures) return NULL;
    heist__spin_lock(&g->lock);
    struct member *const *at = g->failure_at;
    heist__spin_unlock(&g->lock);
    if (at) return at[index];
    struct member *m = g->failed.head;
    for (size_t i = 0; i < index; i++) m = m->next;
    return m;
}

int heist_group_failure_at(heist_group *g, size_t index, heist_group_failure *out) {
    if (!g || !out || out->size < sizeof(*out)) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    if (!has_left(g)) return HEIST_EINVALSTATE;
    if (index >= g->failures + (g->body_code != 0)) return -ERANGE;
    struct member *m = failed_at(g, index);
    const struct heist__failure *failure = m ? m->task->failure : g->body_failure;
    out->code = m ? m->task->code : g->body_code;
    out->message = failure ? failure->message : heist_strerror(out->code);
    out->file = failure ? failure->file : NULL;
    out->line = failure ? failure->line : 0;
    out->task = m ? m->task : g->owner;
    heist__task_name_into(out->task, out->name, sizeof(out->name));
    return 0;
}
