/* as_completed: an iterator over futures in the order of their ends.
 *
 * Under the lock of the record, one of
 *   ended futures queue up    nobody waits
 *   takers wait               the next end is handed to the oldest, past the queue, with the claim
 *   nothing left to hand out  nobody waits any more
 * An ended future is in exactly one place: in the queue, or with the taker that was claimed with it. */
#include <heist/error.h>
#include <heist/flow.h>
#include <math.h>

#include "base/alloc.h"
#include "base/fork.h"
#include "flow/many.h"
#include "sync/waitq.h"

struct heist_completions {
    struct heist__many many;
    struct heist__waitq takers;
    struct heist__waiter *head, **end; /* those that ended and were not taken; linked by what their ends have freed */
    size_t left;                       /* not handed out yet */
    int64_t deadline_ns;
    struct heist__part parts[];
};

/* One more is handed out: when it was the last, those who still wait learn that there is none for them.  Under the
 * lock; to be woken after it. */
static struct heist__waitnode *handed_out(heist_completions *it) {
    return --it->left ? NULL : heist__waitq_claim_all(&it->takers, 0);
}

static void ended(struct heist__many *m, struct heist__part *p, heist_future *f) {
    heist_completions *it = heist_container_of(m, heist_completions, many);
    struct heist__park *wake = NULL;
    struct heist__waitnode *rest = NULL;
    heist__spin_lock(&m->lock);
    if (heist__waitq_claim(&it->takers, 1, f, NULL, &wake)) {
        rest = handed_out(it);
    } else {
        p->waiter.next = NULL;
        *it->end = &p->waiter;
        it->end = &p->waiter.next;
    }
    heist__spin_unlock(&m->lock);
    if (wake) heist__park_wake(wake);
    heist__waitq_wake_all(rest);
}

static void all(struct heist__many *m) { (void)m; }

static void gone(struct heist__many *m) {
    heist_completions *it = heist_container_of(m, heist_completions, many);
    for (size_t i = 0; i < m->n; i++) heist_unref(it->parts[i].future);
    heist__free(it);
}

static const struct heist__many_class completions_class = {ended, all, gone};

int heist_as_completed(heist_future *const *futures, size_t n, double timeout, heist_completions **out) {
    if (!out || (n && !futures) || isnan(timeout)) return -EINVAL;
    for (size_t i = 0; i < n; i++)
        if (!futures[i]) return -EINVAL;
    if (heist__fork_guard()) return -ENOMEM;
    if (heist__forked()) return HEIST_EFORKED;
    heist_completions *it = heist__alloc(sizeof(*it) + n * sizeof(it->parts[0]));
    heist_future **unique = heist__alloc((n + 1) * sizeof(*unique));
    ptrdiff_t count = it && unique ? heist__futures_distinct(futures, n, unique) : -ENOMEM;
    if (count < 0) {
        heist__free(it);
        heist__free(unique);
        return -ENOMEM;
    }
    heist__many_init(&it->many, &completions_class, it->parts, (size_t)count);
    it->many.awaiter = NULL; /* anybody may take, and whoever made it may be gone */
    it->takers = (struct heist__waitq){NULL, NULL};
    it->head = NULL;
    it->end = &it->head;
    it->left = (size_t)count;
    it->deadline_ns = heist__deadline_in(timeout);
    for (size_t i = 0; i < (size_t)count; i++) it->parts[i].future = heist_ref(unique[i]);
    heist__free(unique);
    heist__many_start(&it->many);
    *out = it;
    return 0;
}

void heist_completions_free(heist_completions *it) {
    if (!it || heist__forked()) return;
    heist__many_stop(&it->many);
    heist__many_unref(&it->many);
}

/* 1 and a future, 0 when none is left, -EAGAIN. */
static int take(heist_completions *it, void **future, struct heist__waitnode *waits) {
    struct heist__waitnode *rest = NULL;
    int got = 0;
    heist__spin_lock(&it->many.lock);
    struct heist__waiter *w = it->head;
    if (w) {
        it->head = w->next;
        if (!it->head) it->end = &it->head;
        *future = heist_container_of(w, struct heist__part, waiter)->future;
        rest = handed_out(it);
        got = 1;
    } else if (it->left) {
        if (waits) heist__waitq_link(&it->takers, waits);
        got = -EAGAIN;
    }
    heist__spin_unlock(&it->many.lock);
    heist__waitq_wake_all(rest);
    return got;
}

struct taking {
    struct heist__wait wait;
    struct heist__waitnode node;
    heist_completions *it;
};

static bool publish(struct heist__wait *w, heist_loop *loop) {
    (void)loop;
    struct taking *t = heist_container_of(w, struct taking, wait);
    t->node.park = w->park;
    int got = take(t->it, &t->node.value, &t->node);
    if (got == -EAGAIN) return true; /* published: not ours any more */
    w->code = got;
    return false;
}

static void withdraw(struct heist__wait *w) {
    struct taking *t = heist_container_of(w, struct taking, wait);
    heist__spin_lock(&t->it->many.lock);
    heist__waitq_unlink(&t->it->takers, &t->node);
    heist__spin_unlock(&t->it->many.lock);
}

static int next(heist_completions *it, int64_t deadline_ns, heist_future **out) {
    struct heist__self *self = heist__self();
    int got = heist__wait_entry(self);
    if (got) return got;
    struct taking t;
    t.it = it;
    t.node.linked = false;
    t.node.value = NULL;
    got = take(it, &t.node.value, NULL);
    if (got != -EAGAIN) {
        heist__wait_skipped(self);
    } else {
        t.wait.deadline_ns = deadline_ns < it->deadline_ns ? deadline_ns : it->deadline_ns;
        t.wait.publish = publish;
        t.wait.withdraw = withdraw;
        got = heist__wait(&t.wait);
    }
    if (got == 1 && out) *out = t.node.value;
    return got;
}

int heist_completions_next(heist_completions *it, heist_future **out) {
    return it ? next(it, INT64_MAX, out) : -EINVAL;
}

int heist_completions_next_until(heist_completions *it, double deadline, heist_future **out) {
    return !it || isnan(deadline) ? -EINVAL : next(it, heist__ns_from_seconds(deadline), out);
}

int heist_completions_await(heist_completions *it, void **out) {
    heist_future *f = NULL;
    int got = heist_completions_next(it, &f);
    if (got != 1) return got;
    int err = heist_future_result(f, out);
    return err ? err : 1;
}

int heist_completions_try_next(heist_completions *it, heist_future **out) {
    if (!it) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    void *future;
    int got = take(it, &future, NULL);
    if (got == 1 && out) *out = future;
    return got;
}
