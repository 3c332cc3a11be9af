/* See many.h. */
#include "flow/many.h"

#include <heist/error.h>
#include <string.h>

#include "base/alloc.h"
#include "conc/self.h"

void heist__many_init(struct heist__many *m, const struct heist__many_class *klass, struct heist__part *parts,
                      size_t n) {
    m->klass = klass;
    a_store_rlx(&m->refs, 2); /* rlx, as the next: published by add_waiter */
    a_store_rlx(&m->remaining, n + 1);
    m->n = n;
    m->parts = parts;
    heist__spin_init(&m->lock);
    m->told = false;
    m->park = NULL;
    m->awaiter = heist__self()->task;
}

void heist__many_ref(struct heist__many *m) { a_add_rlx(&m->refs, 1); /* rlx: the caller holds one */ }

void heist__many_unref(struct heist__many *m) {
    if (a_sub_ar(&m->refs, 1) == 1) m->klass->gone(m); /* ar: as every last reference */
}

/* ar: release what the hooks did; the last one acquires it, and hands it on to who looks */
static void count(struct heist__many *m, size_t hooks) {
    if (a_sub_ar(&m->remaining, hooks) != hooks) return;
    m->klass->all(m);
    heist__many_unref(m);
}

static void hook(struct heist__waiter *w, heist_future *f) {
    struct heist__part *p = heist_container_of(w, struct heist__part, waiter);
    struct heist__many *m = p->many;
    m->klass->ended(m, p, f);
    count(m, 1);
}

void heist__many_start(struct heist__many *m) {
    for (size_t i = 0; i < m->n; i++) {
        struct heist__part *p = &m->parts[i];
        p->many = m;
        p->waiter.kind = HEIST__WAIT_HOOK;
        p->waiter.hook = hook;
        p->waiter.awaiter = m->awaiter;
        heist_future *f = p->future;
        if (!heist__future_add_waiter(f, &p->waiter)) hook(&p->waiter, f);
    }
    count(m, 1);
}

void heist__many_stop(struct heist__many *m) {
    size_t removed = 0;
    for (size_t i = 0; i < m->n; i++) {
        struct heist__part *p = &m->parts[i];
        removed += !heist__future_is_done(p->future) && heist__future_remove_waiter(p->future, &p->waiter);
    }
    if (removed) count(m, removed);
}

void heist__many_tell(struct heist__many *m) {
    heist__spin_lock(&m->lock);
    struct heist__park *park = m->park;
    m->park = NULL;
    int claim = park ? heist__park_claim(park, 0) : HEIST__CLAIM_LOST;
    if (claim == HEIST__CLAIM_LOST) m->told = true;
    heist__spin_unlock(&m->lock);
    if (claim == HEIST__CLAIM_WAKE) heist__park_wake(park);
}

struct many_wait {
    struct heist__wait wait;
    struct heist__many *many;
};

static bool publish(struct heist__wait *w, heist_loop *loop) {
    (void)loop;
    struct heist__many *m = heist_container_of(w, struct many_wait, wait)->many;
    heist__spin_lock(&m->lock);
    bool waits = !m->told;
    m->told = false;
    if (waits) m->park = w->park;
    heist__spin_unlock(&m->lock);
    return waits;
}

static void withdraw(struct heist__wait *w) {
    struct heist__many *m = heist_container_of(w, struct many_wait, wait)->many;
    heist__spin_lock(&m->lock);
    m->park = NULL;
    heist__spin_unlock(&m->lock);
}

int heist__many_wait(struct heist__many *m, int64_t deadline_ns) {
    struct many_wait w;
    w.many = m;
    w.wait.deadline_ns = deadline_ns;
    w.wait.publish = publish;
    w.wait.withdraw = withdraw;
    return heist__wait(&w.wait);
}

int heist__futures_check(heist_future *const *futures, size_t n) {
    if (!futures && n) return -EINVAL;
    heist_task *current = heist__self()->task;
    for (size_t i = 0; i < n; i++) {
        if (!futures[i]) return -EINVAL;
        if (futures[i] == current) return HEIST_ESELFAWAIT;
    }
    return 0;
}

bool heist__futures_done(heist_future *const *futures, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!heist__future_is_done(futures[i])) return false;
    return true;
}

void heist__futures_cancel(heist_future *const *futures, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!heist__future_is_done(futures[i])) heist_cancel(futures[i]);
}

/* A table with open addressing, at most half full.  Futures are 64 bytes apart at least. */
ptrdiff_t heist__futures_distinct(heist_future *const *futures, size_t n, heist_future **out) {
    size_t size = 8, unique = 0, repeats = n;
    while (size < 2 * n) size *= 2;
    heist_future **table = heist__zalloc(size * sizeof(*table));
    if (!table) return -ENOMEM;
    for (size_t i = 0; i < n; i++) {
        size_t at = (size_t)(((uintptr_t)futures[i] >> 6) * (uintptr_t)0x9E3779B97F4A7C15u >> 20) & (size - 1);
        while (table[at] && table[at] != futures[i]) at = (at + 1) & (size - 1);
        if (table[at]) {
            out[--repeats] = futures[i];
        } else {
            table[at] = futures[i];
            out[unique++] = futures[i];
        }
    }
    heist__free(table);
    return (ptrdiff_t)unique;
}

int64_t heist__deadline_in(double seconds) { return heist__deadline_after(heist__clock_here(), seconds); }
