/* The scenes.  Each makes what it needs, uses every door that its name says, checks its law by heist_sim_check, and
 * gives everything back; what is left over then (blocks, mappings) is a failure too. */
#include "seeded/scenes.h"

#include <errno.h>
#include <fcntl.h>
#include <heist.h>
#include <heist/testing.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/macros.h"

/* ---- what all have ---- */

static int workers_of(void *arg) { return *(int *)arg; }

static heist_runtime *open_runtime(void *arg) {
    heist_runtime_options o = HEIST_RUNTIME_OPTIONS_INIT;
    o.workers = workers_of(arg);
    heist_runtime *rt = NULL;
    heist_sim_check(heist_runtime_new(&o, &rt) == 0);
    return rt;
}

static void close_runtime(heist_runtime *rt) {
    heist_sim_check(heist_runtime_close(rt, HEIST_FOREVER) == 0);
    heist_runtime_unref(rt);
}

static void no_more_live(long blocks) {
    if (heist__alloc_live() < 0) return;
    long now = heist__alloc_live();
    if (now > blocks) heist_sim_fail("%ld blocks are left over", now - blocks);
    if (heist__alloc_live_maps() > 0) heist_sim_fail("%ld mappings are left over", heist__alloc_live_maps());
}

/* Everything was given back: run by each body around its scene. */
#define SCENE(name)                                                                                                    \
    static void name##_scene(void *arg);                                                                               \
    static int name(void *arg) {                                                                                       \
        long blocks = heist__alloc_live();                                                                             \
        name##_scene(arg);                                                                                             \
        no_more_live(blocks);                                                                                          \
        return 0;                                                                                                      \
    }                                                                                                                  \
    static void name##_scene(void *arg)

/* ---- spawn and await: a tree ---- */

static int tree(void *arg, void **out) {
    intptr_t depth = (intptr_t)arg, sum = 1;
    if (depth) {
        heist_task *t[2];
        for (int i = 0; i < 2; i++)
            heist_sim_check(heist_create_task(tree, (void *)(depth - 1), NULL, &t[i]) == 0);
        for (int i = 0; i < 2; i++) {
            void *part = NULL;
            heist_sim_check(heist_await(t[i], &part) == 0);
            sum += (intptr_t)part;
            heist_unref(t[i]);
        }
    }
    *out = (void *)sum;
    return 0;
}

SCENE(spawn) {
    heist_runtime *rt = open_runtime(arg);
    heist_task *t = NULL;
    heist_sim_check(heist_runtime_run_coroutine(rt, tree, (void *)(intptr_t)3, NULL, &t) == 0);
    void *sum = NULL;
    heist_sim_check(heist_await(t, &sum) == 0);
    heist_sim_check((intptr_t)sum == 15);
    heist_unref(t);
    close_runtime(rt);
}

/* ---- heist_run, gather, a failure ---- */

static int fails_after(void *arg, void **out) {
    (void)out;
    double *seconds = arg;
    int err = heist_sleep(*seconds);
    return err ? err : *seconds < 0.0015 ? -EIO : 0;
}

static int gather_main(void *arg, void **out) {
    (void)arg, (void)out;
    double seconds[3] = {0.003, 0.001, 0.002};
    heist_task *t[3];
    for (int i = 0; i < 3; i++) heist_sim_check(heist_create_task(fails_after, &seconds[i], NULL, &t[i]) == 0);
    int err = heist_gather(t, 3, NULL, 0);
    heist_sim_check(err == -EIO);
    for (int i = 0; i < 3; i++) {
        heist_sim_check(heist_future_done(t[i]));
        heist_unref(t[i]);
    }
    return 0;
}

SCENE(gather) {
    heist_runtime_options o = HEIST_RUNTIME_OPTIONS_INIT;
    o.workers = workers_of(arg);
    heist_sim_check(heist_run(gather_main, NULL, &o, NULL) == 0);
}

/* ---- cancel ---- */

struct victim {
    heist_channel *c;
    int ended, freed;
};

static void victim_freed(void *arg) {
    struct victim *v = arg;
    heist_sim_check(!v->freed);
    v->freed = 1;
}

static int sleeps_long(void *arg, void **out) {
    (void)out;
    struct victim *v = arg;
    int err = heist_sleep(0.01);
    v->ended++;
    return err;
}

static int receives(void *arg, void **out) {
    struct victim *v = arg;
    int err = heist_channel_recv(v->c, out);
    v->ended++;
    return err;
}

static void cancels(void *arg) {
    heist_task *t = arg;
    int asked = heist_cancel(t);
    heist_sim_check(asked == 0 || asked == 1);
}

SCENE(cancel) {
    heist_runtime *rt = open_runtime(arg);
    struct victim v[2] = {{NULL, 0, 0}, {NULL, 0, 0}};
    heist_channel *c = NULL;
    heist_sim_check(heist_channel_new(1, &c) == 0);
    v[1].c = c;
    heist_task_options o = HEIST_TASK_OPTIONS_INIT;
    o.arg_free = victim_freed;
    heist_task *t[2];
    heist_sim_check(heist_runtime_run_coroutine(rt, sleeps_long, &v[0], &o, &t[0]) == 0);
    heist_sim_check(heist_runtime_run_coroutine(rt, receives, &v[1], &o, &t[1]) == 0);
    heist_sim_thread *h[2];
    for (int i = 0; i < 2; i++) heist_sim_check(heist_sim_thread_start(cancels, t[i], &h[i]) == 0);
    int sent = heist_channel_send(c, &v);
    heist_sim_check(sent == 0);
    void *got = NULL;
    int err[2] = {heist_await(t[0], NULL), heist_await(t[1], &got)};
    for (int i = 0; i < 2; i++) heist_sim_thread_join(h[i]);
    heist_sim_check(err[0] == 0 || err[0] == -ECANCELED);
    heist_sim_check(err[1] == 0 || err[1] == -ECANCELED);
    heist_sim_check(v[0].ended <= 1 && v[1].ended <= 1);
    /* Cancelled took nothing; not cancelled took the item. */
    heist_sim_check(heist_channel_size(c) == (err[1] ? 1u : 0u));
    if (!err[1]) heist_sim_check(got == &v);
    for (int i = 0; i < 2; i++) heist_unref(t[i]);
    close_runtime(rt);
    heist_sim_check(v[0].freed && v[1].freed);
    heist_channel_unref(c);
}

/* A task cancels another that awaits a third. */

static int chain_end(void *arg, void **out) {
    (void)arg, (void)out;
    return heist_sleep(0.002);
}

static int chain_middle(void *arg, void **out) {
    (void)out;
    heist_task **end = arg;
    heist_sim_check(heist_create_task(chain_end, NULL, NULL, end) == 0);
    return heist_await(*end, NULL);
}

static int chain_head(void *arg, void **out) {
    (void)out;
    heist_task *end = NULL, *middle = NULL;
    heist_sim_check(heist_create_task(chain_middle, &end, NULL, &middle) == 0);
    if (arg) heist_yield();
    heist_cancel(middle);
    int err = heist_await(middle, NULL);
    heist_sim_check(err == -ECANCELED || err == 0);
    if (end) {
        int state = heist_future_state(end);
        heist_sim_check(state == HEIST_CANCELLED || state == HEIST_DONE);
    }
    heist_unref(middle);
    heist_unref(end);
    return 0;
}

SCENE(cancel_chain) {
    heist_runtime *rt = open_runtime(arg);
    heist_task *t[2];
    for (intptr_t i = 0; i < 2; i++)
        heist_sim_check(heist_runtime_run_coroutine(rt, chain_head, (void *)i, NULL, &t[i]) == 0);
    for (int i = 0; i < 2; i++) {
        heist_sim_check(heist_await(t[i], NULL) == 0);
        heist_unref(t[i]);
    }
    close_runtime(rt);
}

/* ---- channel: each item once, in order for each sender ---- */

#define ITEMS 4

struct pipe_scene {
    heist_channel *c;
    intptr_t next[2]; /* of each sender, as seen by one receiver under its lock */
    _Atomic(int) received;
    pthread_mutex_t mutex;
};

static int sender(struct pipe_scene *p, intptr_t who) {
    for (intptr_t i = 0; i < ITEMS; i++) {
        int err = heist_channel_send(p->c, (void *)(who * 100 + i + 1));
        if (err) return err;
    }
    return 0;
}

static int sender_task(void *arg, void **out) {
    (void)out;
    return sender(arg, 0);
}

static void sender_thread(void *arg) { heist_sim_check(sender(arg, 1) == 0); }

static int receiver_task(void *arg, void **out) {
    (void)out;
    struct pipe_scene *p = arg;
    for (;;) {
        void *value;
        int err = heist_channel_recv(p->c, &value);
        if (err == HEIST_ESHUTDOWN) return 0;
        if (err) return err;
        atomic_fetch_add(&p->received, 1);
        (void)value;
    }
}

SCENE(channel) {
    heist_runtime *rt = open_runtime(arg);
    struct pipe_scene p = {.received = 0};
    heist_sim_check(heist_channel_new(2, &p.c) == 0);
    heist_task *r[2], *s = NULL;
    for (int i = 0; i < 2; i++) heist_sim_check(heist_runtime_run_coroutine(rt, receiver_task, &p, NULL, &r[i]) == 0);
    heist_sim_check(heist_runtime_run_coroutine(rt, sender_task, &p, NULL, &s) == 0);
    heist_sim_thread *h;
    heist_sim_check(heist_sim_thread_start(sender_thread, &p, &h) == 0);
    heist_sim_thread_join(h);
    heist_sim_check(heist_await(s, NULL) == 0);
    heist_unref(s);
    heist_channel_close(p.c);
    for (int i = 0; i < 2; i++) {
        heist_sim_check(heist_await(r[i], NULL) == 0);
        heist_unref(r[i]);
    }
    heist_sim_check(p.received == 2 * ITEMS);
    close_runtime(rt);
    heist_channel_unref(p.c);
}

/* A lock among tasks and a thread, some of which give up or are cancelled; pieces under a condition: one holder, no
 * piece lost, and nobody waits for one that is there. */

struct lock_scene {
    heist_lock lock;
    heist_condition more;
    int holders, pieces, brought, taken; /* the lock */
    bool over;
};

static void hold(struct lock_scene *l) {
    heist_sim_check(l->holders++ == 0);
    (void)heist_yield(); /* a request that it takes is one less */
    heist_sim_check(--l->holders == 0);
}

static int lock_bringer(void *arg, void **out) {
    (void)out;
    struct lock_scene *l = arg;
    for (int i = 0; i < ITEMS; i++) {
        int err = i % 2 ? heist_lock_acquire(&l->lock) : heist_lock_acquire_until(&l->lock, heist_time() + 0.0002);
        if (err == -ETIMEDOUT || err == -ECANCELED) continue;
        heist_sim_check(err == 0);
        hold(l);
        l->pieces++, l->brought++;
        heist_sim_check(heist_condition_notify(&l->more, 1) >= 0);
        heist_sim_check(heist_lock_release(&l->lock) == 0);
    }
    return 0;
}

static void lock_bringer_thread(void *arg) { heist_sim_check(lock_bringer(arg, NULL) == 0); }

static int lock_taker(void *arg, void **out) {
    (void)out;
    struct lock_scene *l = arg;
    for (;;) {
        int err = heist_lock_acquire(&l->lock);
        if (err == -ECANCELED) continue;
        heist_sim_check(err == 0);
        while (!l->pieces && !l->over) {
            err = heist_condition_wait(&l->more);
            heist_sim_check((err == 0 || err == -ECANCELED) && heist_lock_locked(&l->lock) == 1);
        }
        hold(l);
        bool ends = !l->pieces;
        if (!ends) l->pieces--, l->taken++;
        heist_sim_check(heist_lock_release(&l->lock) == 0);
        if (ends) return 0;
    }
}

SCENE(locks) {
    heist_runtime *rt = open_runtime(arg);
    struct lock_scene l = {.lock = HEIST_LOCK_INIT, .more = HEIST_CONDITION_INIT(&l.lock)};
    heist_task *taker[2], *bringer = NULL;
    for (int i = 0; i < 2; i++) heist_sim_check(heist_runtime_run_coroutine(rt, lock_taker, &l, NULL, &taker[i]) == 0);
    heist_sim_check(heist_runtime_run_coroutine(rt, lock_bringer, &l, NULL, &bringer) == 0);
    heist_sim_thread *h;
    heist_sim_check(heist_sim_thread_start(lock_bringer_thread, &l, &h) == 0);
    heist_cancel(bringer);
    heist_sim_thread_join(h);
    int err = heist_await(bringer, NULL);
    heist_sim_check(err == 0 || err == -ECANCELED); /* perhaps before it began */
    heist_unref(bringer);
    heist_sim_check(heist_lock_acquire(&l.lock) == 0);
    l.over = true;
    heist_sim_check(heist_condition_notify_all(&l.more) >= 0);
    heist_sim_check(heist_lock_release(&l.lock) == 0);
    for (int i = 0; i < 2; i++) {
        heist_sim_check(heist_await(taker[i], NULL) == 0);
        heist_unref(taker[i]);
    }
    heist_sim_check(l.pieces == 0 && l.brought == l.taken);
    heist_sim_check(heist_condition_destroy(&l.more) == 0 && heist_lock_destroy(&l.lock) == 0);
    close_runtime(rt);
}

/* Two that select, in opposite orders, over a rendezvous and a queue: what went in came out once or
 * is still there, and a select that gave up took nothing. */

struct either_scene {
    heist_channel *c;
    heist_queue *q;
    heist_future *stop;
    _Atomic(int) in, out;
};

static int either_giver(void *arg, void **out) {
    (void)out;
    struct either_scene *e = arg;
    for (int i = 0; i < ITEMS; i++) {
        heist_select_case cases[] = {HEIST_CASE_PUT(e->q, e), HEIST_CASE_SEND(e->c, e)};
        int won = heist_select_until(cases, 2, heist_time() + 0.0005);
        if (won == -ETIMEDOUT || won == -ECANCELED) continue;
        heist_sim_check(won >= 0 && cases[won].code == 0);
        atomic_fetch_add(&e->in, 1);
    }
    return 0;
}

static void either_giver_thread(void *arg) { heist_sim_check(either_giver(arg, NULL) == 0); }

static int either_taker(void *arg, void **out) {
    (void)out;
    struct either_scene *e = arg;
    for (;;) {
        heist_select_case cases[] = {HEIST_CASE_RECV(e->c), HEIST_CASE_AWAIT(e->stop), HEIST_CASE_GET(e->q)};
        int won = heist_select(cases, 3);
        if (won == -ECANCELED) continue;
        heist_sim_check(won >= 0 && cases[won].code == 0);
        if (won == 1) return 0;
        heist_sim_check(cases[won].value == e);
        atomic_fetch_add(&e->out, 1);
    }
}

SCENE(either) {
    heist_runtime *rt = open_runtime(arg);
    struct either_scene e = {.in = 0};
    heist_sim_check(heist_channel_new(0, &e.c) == 0);
    heist_sim_check(heist_queue_new(1, NULL, &e.q) == 0);
    heist_sim_check(heist_future_new(NULL, &e.stop) == 0);
    heist_task *taker[2], *giver = NULL;
    for (int i = 0; i < 2; i++)
        heist_sim_check(heist_runtime_run_coroutine(rt, either_taker, &e, NULL, &taker[i]) == 0);
    heist_sim_check(heist_runtime_run_coroutine(rt, either_giver, &e, NULL, &giver) == 0);
    heist_sim_thread *h;
    heist_sim_check(heist_sim_thread_start(either_giver_thread, &e, &h) == 0);
    heist_cancel(giver);
    heist_sim_thread_join(h);
    int err = heist_await(giver, NULL);
    heist_sim_check(err == 0 || err == -ECANCELED); /* perhaps before it began */
    heist_unref(giver);
    heist_sim_check(heist_future_set_result(e.stop, NULL, NULL) == 0);
    for (int i = 0; i < 2; i++) {
        heist_sim_check(heist_await(taker[i], NULL) == 0);
        heist_unref(taker[i]);
    }
    void *left;
    while (heist_queue_get_nowait(e.q, &left) == 0) e.out++;
    heist_sim_check(heist_channel_try_recv(e.c, &left) == -EAGAIN);
    heist_sim_check(e.in == e.out);
    close_runtime(rt);
    heist_channel_unref(e.c);
    heist_queue_unref(e.q);
    heist_unref(e.stop);
}

/* A once that late ones find done, whatever their deadline; one read-write lock and two permits, among tasks and a
 * thread that give up or are cancelled: nobody is where another must be alone, and nothing is kept by one that gave up.
 */

struct shares_scene {
    heist_once once;
    heist_rwlock rwlock;
    heist_semaphore permits;
    _Atomic(int) runs, inside, readers, writers;
};

static bool gave_up(int err) { return err == -ETIMEDOUT || err == -ECANCELED; }

static int shares_once(void *arg) {
    struct shares_scene *s = arg;
    heist_sim_check(atomic_load(&s->runs) == 0);
    (void)heist_yield();
    if (heist_sim_choose(3) == 1) return -EIO;
    atomic_fetch_add(&s->runs, 1);
    return 0;
}

static int shares_party(void *arg, void **out) {
    (void)out;
    struct shares_scene *s = arg;
    for (int i = 0; i < ITEMS; i++) {
        int done = heist_once_done(&s->once);
        int err = heist_once_call_until(&s->once, shares_once, s, heist_time());
        heist_sim_check(err == 0 || err == -EIO || err == -ECANCELED || (err == -ETIMEDOUT && !done));
        if (!err) heist_sim_check(atomic_load(&s->runs) == 1);

        bool writes = heist_sim_choose(2);
        double soon = heist_time() + 0.0001 * heist_sim_choose(3);
        err = writes ? heist_rwlock_acquire_write_until(&s->rwlock, soon)
                     : heist_rwlock_acquire_read_until(&s->rwlock, soon);
        if (!err) {
            if (writes) heist_sim_check(atomic_fetch_add(&s->writers, 1) == 0 && atomic_load(&s->readers) == 0);
            else heist_sim_check((atomic_fetch_add(&s->readers, 1), atomic_load(&s->writers) == 0));
            (void)heist_yield();
            atomic_fetch_sub(writes ? &s->writers : &s->readers, 1);
            err = writes ? heist_rwlock_release_write(&s->rwlock) : heist_rwlock_release_read(&s->rwlock);
            heist_sim_check(err == 0);
        } else {
            heist_sim_check(gave_up(err));
        }

        soon = heist_time() + 0.0001 * heist_sim_choose(3);
        err = heist_semaphore_acquire_until(&s->permits, soon);
        heist_sim_check(err == 0 || gave_up(err));
        if (err) continue;
        heist_sim_check(atomic_fetch_add(&s->inside, 1) < 2);
        (void)heist_yield();
        atomic_fetch_sub(&s->inside, 1);
        heist_sim_check(heist_semaphore_release(&s->permits) == 0);
    }
    return 0;
}

static void shares_thread(void *arg) { (void)shares_party(arg, NULL); }

SCENE(shares) {
    heist_runtime *rt = open_runtime(arg);
    struct shares_scene s = {
        .once = HEIST_ONCE_INIT, .rwlock = HEIST_RWLOCK_INIT, .permits = HEIST_BOUNDED_SEMAPHORE_INIT(2)};
    heist_task *t[3];
    for (int i = 0; i < 3; i++) heist_sim_check(heist_runtime_run_coroutine(rt, shares_party, &s, NULL, &t[i]) == 0);
    heist_sim_thread *h;
    heist_sim_check(heist_sim_thread_start(shares_thread, &s, &h) == 0);
    heist_cancel(t[1]);
    for (int i = 0; i < 3; i++) {
        int err = heist_await(t[i], NULL);
        heist_sim_check(err == 0 || err == -ECANCELED); /* perhaps before it began */
        heist_unref(t[i]);
    }
    heist_sim_thread_join(h);
    heist_sim_check(heist_once_destroy(&s.once) == 0 && heist_rwlock_destroy(&s.rwlock) == 0);
    heist_sim_check(heist_semaphore_destroy(&s.permits) == 0 && heist_semaphore_value(&s.permits) == 2);
    close_runtime(rt);
}

/* An object whose memory ends with the call that it let go on: whoever is let go spoils it at once, and nobody touches
 * it after that, neither to read (a spoilt short lock is never free) nor to write. */

enum {
    LIFE_EVENT,
    LIFE_LOCK,
    LIFE_SEMAPHORE,
    LIFE_READ,
    LIFE_WRITE,
    LIFE_ONCE,
    LIFE_WAITGROUP,
    LIFE_BARRIER,
    LIFE_CONDITION,
    LIFE_KINDS
};

struct life_scene {
    unsigned kind;
    bool said; /* the lock */
    union {
        unsigned char bytes[256];
        heist_event event;
        heist_semaphore semaphore;
        heist_rwlock rwlock;
        heist_once once;
        heist_waitgroup group;
        heist_barrier barrier;
        struct {
            heist_lock lock;
            heist_condition condition;
        };
    };
};

static void life_begin(struct life_scene *s, unsigned kind) {
    memset(s, 0, sizeof(*s));
    s->kind = kind;
    heist_lock_init(&s->lock);
    switch (kind) {
        case LIFE_EVENT: heist_event_init(&s->event); break;
        case LIFE_LOCK: heist_sim_check(heist_lock_try_acquire(&s->lock) == 0); break;
        case LIFE_SEMAPHORE: heist_sim_check(heist_semaphore_init(&s->semaphore, 0) == 0); break;
        case LIFE_READ:
        case LIFE_WRITE:
            heist_rwlock_init(&s->rwlock);
            heist_sim_check((kind == LIFE_READ ? heist_rwlock_try_acquire_read(&s->rwlock)
                                               : heist_rwlock_try_acquire_write(&s->rwlock)) == 0);
            break;
        case LIFE_ONCE: heist_once_init(&s->once); break;
        case LIFE_WAITGROUP:
            heist_waitgroup_init(&s->group);
            heist_sim_check(heist_waitgroup_add(&s->group, 1) == 0);
            break;
        case LIFE_BARRIER: heist_sim_check(heist_barrier_init(&s->barrier, 2) == 0); break;
        case LIFE_CONDITION: heist_sim_check(heist_condition_init(&s->condition, &s->lock) == 0); break;
    }
}

static int life_once(void *arg) {
    (void)arg;
    return 0;
}

/* One call that waits; with 0 it was let go. */
static int life_wait(struct life_scene *s, double soon) {
    switch (s->kind) {
        case LIFE_EVENT: return heist_event_wait_until(&s->event, soon);
        case LIFE_LOCK: return heist_lock_acquire_until(&s->lock, soon);
        case LIFE_SEMAPHORE: return heist_semaphore_acquire_until(&s->semaphore, soon);
        case LIFE_READ:
        case LIFE_WRITE: return heist_rwlock_acquire_write_until(&s->rwlock, soon);
        case LIFE_ONCE:
            while (!heist_once_done(&s->once)) { /* the other one calls it, and then uses it no more */
                heist_sleep(0.0001);
                heist_sim_spin();
            }
            return heist_once_call_until(&s->once, life_once, s, soon);
        case LIFE_WAITGROUP: return heist_waitgroup_wait_until(&s->group, soon);
        case LIFE_BARRIER: return heist_barrier_wait(&s->barrier);
        default:
            heist_sim_check(heist_lock_acquire(&s->lock) == 0);
            while (!s->said) {
                int err = heist_condition_wait_until(&s->condition, soon);
                heist_sim_check(err == 0 || err == -ETIMEDOUT);
                soon = INFINITY;
            }
            return heist_lock_release(&s->lock);
    }
}

static void life_spoil(struct life_scene *s) { memset(s->bytes, 0xff, sizeof(s->bytes)); }

static int life_waiter(void *arg, void **out) {
    (void)out;
    struct life_scene *s = arg;
    int err = life_wait(s, heist_time() + 0.0001 * heist_sim_choose(3));
    if (err == -ETIMEDOUT) err = life_wait(s, INFINITY);
    heist_sim_check(err >= 0);
    if (!err) life_spoil(s); /* of a barrier's two the first, which the last lets go */
    return 0;
}

static int life_giver(void *arg, void **out) {
    (void)out;
    struct life_scene *s = arg;
    int err = 0;
    switch (s->kind) {
        case LIFE_EVENT: err = heist_event_set(&s->event); break;
        case LIFE_LOCK: err = heist_lock_release(&s->lock); break;
        case LIFE_SEMAPHORE: err = heist_semaphore_release(&s->semaphore); break;
        case LIFE_READ: err = heist_rwlock_release_read(&s->rwlock); break;
        case LIFE_WRITE: err = heist_rwlock_release_write(&s->rwlock); break;
        case LIFE_ONCE: err = heist_once_call(&s->once, life_once, s); break;
        case LIFE_WAITGROUP: err = heist_waitgroup_done(&s->group); break;
        case LIFE_BARRIER: return life_waiter(s, NULL);
        case LIFE_CONDITION:
            heist_sim_check(heist_lock_acquire(&s->lock) == 0);
            s->said = true;
            heist_sim_check(heist_condition_notify(&s->condition, 1) >= 0);
            err = heist_lock_release(&s->lock);
            break;
    }
    heist_sim_check(err == 0);
    return 0;
}

static void life_waiter_thread(void *arg) { (void)life_waiter(arg, NULL); }
static void life_giver_thread(void *arg) { (void)life_giver(arg, NULL); }

SCENE(lifetimes) {
    heist_runtime *rt = open_runtime(arg);
    struct life_scene s[LIFE_KINDS];
    heist_task *tasks[2 * LIFE_KINDS];
    heist_sim_thread *threads[2 * LIFE_KINDS];
    int n_tasks = 0, n_threads = 0;
    for (unsigned kind = 0; kind < LIFE_KINDS; kind++) {
        life_begin(&s[kind], kind);
        for (int waits = 0; waits < 2; waits++) {
            int err = heist_sim_choose(2) ? heist_sim_thread_start(waits ? life_waiter_thread : life_giver_thread,
                                                                   &s[kind], &threads[n_threads++])
                                          : heist_runtime_run_coroutine(rt, waits ? life_waiter : life_giver, &s[kind],
                                                                        NULL, &tasks[n_tasks++]);
            heist_sim_check(err == 0);
        }
    }
    while (n_tasks) {
        heist_sim_check(heist_await(tasks[--n_tasks], NULL) == 0);
        heist_unref(tasks[n_tasks]);
    }
    while (n_threads) heist_sim_thread_join(threads[--n_threads]);
    for (unsigned kind = 0; kind < LIFE_KINDS; kind++)
        for (size_t i = 0; i < sizeof(s[kind].bytes); i++) heist_sim_check(s[kind].bytes[i] == 0xff);
    close_runtime(rt);
}

/* Counted values, sent and set by all, received by all, two by two from one receiver, alone and in a select: each is
 * given up once by everybody who got it, and then it is gone. */

struct counted_scene {
    heist_broadcast *broadcast;
    heist_watch *watch;
    _Atomic(int) live;
};

struct counted_value {
    _Atomic(int) refs;
    struct counted_scene *scene;
};

struct counted_party {
    struct counted_scene *scene;
    heist_receiver *receiver;
    heist_watcher *watcher;
};

static void *counted_new(struct counted_scene *s) {
    struct counted_value *v = malloc(sizeof(*v));
    heist_sim_check(v != NULL);
    v->refs = 1;
    v->scene = s;
    atomic_fetch_add(&s->live, 1);
    return v;
}

static void counted_ref(void *value) {
    heist_sim_check(atomic_fetch_add(&((struct counted_value *)value)->refs, 1) > 0);
}

static void counted_unref(void *value) {
    struct counted_value *v = value;
    int refs = atomic_fetch_sub(&v->refs, 1);
    heist_sim_check(refs > 0);
    if (refs > 1) return;
    atomic_fetch_sub(&v->scene->live, 1);
    free(v);
}

static int counted_act(void *arg, void **out) {
    (void)out;
    struct counted_party *p = arg;
    for (int i = 0; i < ITEMS; i++) {
        void *value = counted_new(p->scene);
        int err = heist_sim_choose(2) ? heist_watch_set(p->scene->watch, value)
                                      : heist_broadcast_send(p->scene->broadcast, value);
        if (err < 0) counted_unref(value);
        double soon = heist_time() + 0.0001 * heist_sim_choose(3);
        if (heist_sim_choose(2)) {
            err = heist_receiver_recv_until(p->receiver, &value, soon);
            heist_sim_check(!err || gave_up(err) || err == HEIST_ELAGGED || err == HEIST_ESHUTDOWN);
            if (!err) counted_unref(value);
        } else {
            heist_select_case cases[] = {HEIST_CASE_NEXT(p->receiver), HEIST_CASE_CHANGED(p->watcher),
                                         HEIST_CASE_NEXT(p->receiver)};
            int won = heist_select_until(cases, 3, soon);
            heist_sim_check(won >= 0 || gave_up(won));
            if (won >= 0 && !cases[won].code) counted_unref(cases[won].value);
        }
    }
    return 0;
}

static void counted_thread(void *arg) { (void)counted_act(arg, NULL); }

SCENE(counted) {
    heist_runtime *rt = open_runtime(arg);
    struct counted_scene s = {NULL, NULL, 0};
    heist_broadcast_options broadcast = HEIST_BROADCAST_OPTIONS_INIT;
    broadcast.value_ref = counted_ref, broadcast.value_unref = counted_unref;
    heist_sim_check(heist_broadcast_new(2, &broadcast, &s.broadcast) == 0);
    heist_watch_options watch = HEIST_WATCH_OPTIONS_INIT;
    watch.value_ref = counted_ref, watch.value_unref = counted_unref;
    heist_sim_check(heist_watch_new(counted_new(&s), &watch, &s.watch) == 0);
    struct counted_party p[4];
    for (int i = 0; i < 4; i++) {
        p[i] = (struct counted_party){&s, i % 2 ? heist_receiver_ref(p[i - 1].receiver) : NULL,
                                      i % 2 ? heist_watcher_ref(p[i - 1].watcher) : NULL};
        if (i % 2) continue;
        heist_sim_check(heist_broadcast_subscribe(s.broadcast, &p[i].receiver) == 0);
        heist_sim_check(heist_watch_subscribe(s.watch, &p[i].watcher) == 0);
    }
    heist_task *t[3];
    for (int i = 0; i < 3; i++) heist_sim_check(heist_runtime_run_coroutine(rt, counted_act, &p[i], NULL, &t[i]) == 0);
    heist_sim_thread *h;
    heist_sim_check(heist_sim_thread_start(counted_thread, &p[3], &h) == 0);
    heist_cancel(t[1]);
    if (heist_sim_choose(2)) {
        heist_broadcast_close(s.broadcast);
        heist_watch_close(s.watch);
    }
    for (int i = 0; i < 3; i++) {
        int err = heist_await(t[i], NULL);
        heist_sim_check(err == 0 || err == -ECANCELED); /* perhaps before it began */
        heist_unref(t[i]);
    }
    heist_sim_thread_join(h);
    close_runtime(rt);
    for (int i = 0; i < 4; i++) {
        heist_receiver_unref(p[i].receiver);
        heist_watcher_unref(p[i].watcher);
    }
    heist_broadcast_unref(s.broadcast);
    heist_watch_unref(s.watch);
    heist_sim_check(atomic_load(&s.live) == 0);
}

/* Receivers with deadlines: an item that a late one did not take is there for the next. */

struct late {
    heist_channel *c;
    int got;
};

static int late_receiver(void *arg, void **out) {
    (void)out;
    struct late *l = arg;
    void *value;
    int err = heist_channel_recv_until(l->c, &value, heist_time() + 0.001);
    if (err == -ETIMEDOUT) return 0;
    l->got += err == 0;
    return err;
}

static void late_sender(void *arg) {
    struct late *l = arg;
    heist_sim_pause(0.001);
    heist_sim_check(heist_channel_send(l->c, l) == 0);
}

SCENE(deadlines) {
    heist_runtime *rt = open_runtime(arg);
    struct late l[2] = {{NULL, 0}, {NULL, 0}};
    heist_sim_check(heist_channel_new(4, &l[0].c) == 0);
    l[1].c = l[0].c;
    heist_sim_thread *h[2];
    heist_task *t[2];
    for (int i = 0; i < 2; i++) heist_sim_check(heist_sim_thread_start(late_sender, &l[i], &h[i]) == 0);
    for (int i = 0; i < 2; i++) heist_sim_check(heist_runtime_run_coroutine(rt, late_receiver, &l[i], NULL, &t[i]) == 0);
    for (int i = 0; i < 2; i++) {
        double patience = heist_time() + 0.0005;
        int err = heist_await_until(t[i], patience, NULL);
        heist_sim_check(err == 0 || err == -ETIMEDOUT);
        if (err) {
            heist_sim_check(heist_time() >= patience);
            heist_sim_check(heist_await(t[i], NULL) == 0);
        }
        heist_unref(t[i]);
    }
    for (int i = 0; i < 2; i++) heist_sim_thread_join(h[i]);
    heist_sim_check(heist_channel_size(l[0].c) == (size_t)(2 - l[0].got - l[1].got));
    close_runtime(rt);
    heist_channel_unref(l[0].c);
}

/* ---- sleep: none early, all fire, in no more time than the longest ---- */

static int sleeps(void *arg, void **out) {
    (void)out;
    double seconds = (double)(intptr_t)arg / 1000, begun = heist_time();
    int err = heist_sleep(seconds);
    heist_sim_check(heist_time() >= begun + seconds);
    return err;
}

SCENE(sleepers) {
    heist_runtime *rt = open_runtime(arg);
    heist_task *t[4];
    for (intptr_t i = 0; i < 4; i++)
        heist_sim_check(heist_runtime_run_coroutine(rt, sleeps, (void *)(i * 1000), NULL, &t[i]) == 0);
    for (int i = 0; i < 4; i++) {
        heist_sim_check(heist_await(t[i], NULL) == 0);
        heist_unref(t[i]);
    }
    close_runtime(rt);
}

/* ---- call_soon_threadsafe: once, in order, or refused ---- */

struct door {
    heist_loop *loop;
    int next, ran, freed, accepted; /* ran and next: on the loop alone */
};

struct call {
    struct door *door;
    int number;
};

static int called(void *arg) {
    struct call *c = arg;
    heist_sim_check(c->number >= c->door->next);
    c->door->next = c->number + 1;
    c->door->ran++;
    return 0;
}

static void call_freed(void *arg) {
    struct call *c = arg;
    c->door->freed++;
    free(c);
}

static void calls(void *arg) {
    struct door *d = arg;
    heist_call_options o = HEIST_CALL_OPTIONS_INIT;
    o.arg_free = call_freed;
    for (int i = 0; i < 4; i++) {
        struct call *c = malloc(sizeof(*c));
        *c = (struct call){d, i};
        int err = heist_loop_call_soon_threadsafe(d->loop, called, c, &o, NULL);
        if (err) {
            heist_sim_check(err == HEIST_ECLOSED);
            free(c);
        } else {
            d->accepted++;
        }
    }
}

SCENE(call_soon) {
    heist_runtime *rt = open_runtime(arg);
    struct door d[2];
    memset(d, 0, sizeof(d));
    heist_sim_thread *h[2];
    for (int i = 0; i < 2; i++) {
        d[i].loop = heist_runtime_loop(rt, 0);
        heist_sim_check(heist_sim_thread_start(calls, &d[i], &h[i]) == 0);
    }
    if (heist_sim_choose(2)) heist_sim_pause(0.001);
    heist_sim_check(heist_runtime_close(rt, HEIST_FOREVER) == 0);
    for (int i = 0; i < 2; i++) heist_sim_thread_join(h[i]);
    for (int i = 0; i < 2; i++) {
        heist_sim_check(d[i].freed == d[i].accepted);
        heist_sim_check(d[i].ran <= d[i].accepted);
    }
    heist_runtime_unref(rt);
}

/* ---- run_coroutine_threadsafe, from threads that wait, against close ---- */

struct asker {
    heist_runtime *rt;
    int ran, outcome, freed;
};

static int asked(void *arg, void **out) {
    struct asker *a = arg;
    a->ran++;
    int err = heist_yield();
    *out = a;
    return err;
}

static void asker_freed(void *arg) { ((struct asker *)arg)->freed++; }

static void asks(void *arg) {
    struct asker *a = arg;
    heist_task_options o = HEIST_TASK_OPTIONS_INIT;
    o.arg_free = asker_freed;
    heist_task *t = NULL;
    int err = heist_run_coroutine_threadsafe(heist_runtime_loop(a->rt, 0), asked, a, &o, &t);
    a->outcome = err;
    if (err) {
        heist_sim_check(err == HEIST_ECLOSED);
        a->freed++; /* still ours */
        return;
    }
    void *out = NULL;
    a->outcome = heist_await(t, &out);
    if (a->outcome == 0) heist_sim_check(out == a);
    heist_unref(t);
}

SCENE(run_coroutine) {
    heist_runtime *rt = open_runtime(arg);
    struct asker a[3];
    memset(a, 0, sizeof(a));
    heist_sim_thread *h[3];
    for (int i = 0; i < 3; i++) {
        a[i].rt = rt;
        heist_sim_check(heist_sim_thread_start(asks, &a[i], &h[i]) == 0);
    }
    if (heist_sim_choose(2)) heist_sim_pause(0.001);
    heist_sim_check(heist_runtime_close(rt, HEIST_FOREVER) == 0);
    for (int i = 0; i < 3; i++) heist_sim_thread_join(h[i]);
    for (int i = 0; i < 3; i++) {
        int o = a[i].outcome;
        heist_sim_check(o == 0 || o == -ECANCELED || o == HEIST_ECLOSED);
        heist_sim_check(a[i].ran <= 1 && a[i].freed == 1);
        if (o == 0) heist_sim_check(a[i].ran == 1);
    }
    heist_runtime_unref(rt);
}

/* ---- a loop that stands alone, submitted to, stopped, closed from outside ---- */

struct lone {
    heist_loop *loop;
    int ran;
};

static int lone_callback(void *arg) {
    struct lone *l = arg;
    if (++l->ran == 3) heist_sim_check(heist_loop_stop(l->loop) == 0);
    return 0;
}

static void lone_submitter(void *arg) {
    struct lone *l = arg;
    for (int i = 0; i < 3; i++) heist_sim_check(heist_loop_call_soon_threadsafe(l->loop, lone_callback, l, NULL, NULL) == 0);
}

SCENE(lone_loop) {
    (void)arg;
    struct lone l = {NULL, 0};
    heist_sim_check(heist_loop_new(NULL, &l.loop) == 0);
    heist_sim_thread *h;
    heist_sim_check(heist_sim_thread_start(lone_submitter, &l, &h) == 0);
    heist_sim_check(heist_loop_run_forever(l.loop) == 0);
    heist_sim_check(l.ran == 3);
    heist_sim_thread_join(h);
    heist_sim_check(heist_loop_close(l.loop) == 0);
    heist_loop_unref(l.loop);
}

/* ---- handles: cancelled or run, not both ---- */

struct timed {
    int ran, freed, cancelled;
    heist_handle *handle;
};

static int timed_run(void *arg) {
    ((struct timed *)arg)->ran++;
    return 0;
}

static void timed_freed(void *arg) { ((struct timed *)arg)->freed++; }

static void timed_cancel(void *arg) {
    struct timed *t = arg;
    heist_sim_pause(0.001);
    t->cancelled = heist_handle_cancel(t->handle);
}

SCENE(handles) {
    heist_runtime *rt = open_runtime(arg);
    struct timed t[2];
    memset(t, 0, sizeof(t));
    heist_sim_thread *h[2];
    heist_call_options o = HEIST_CALL_OPTIONS_INIT;
    o.arg_free = timed_freed;
    for (int i = 0; i < 2; i++) {
        heist_loop *loop = heist_runtime_loop(rt, i % workers_of(arg));
        heist_sim_check(heist_loop_call_later(loop, 0.001, timed_run, &t[i], &o, &t[i].handle) == 0);
        heist_sim_check(heist_sim_thread_start(timed_cancel, &t[i], &h[i]) == 0);
    }
    for (int i = 0; i < 2; i++) heist_sim_thread_join(h[i]);
    heist_sim_pause(0.01);
    close_runtime(rt);
    for (int i = 0; i < 2; i++) {
        heist_sim_check(t[i].ran + t[i].cancelled == 1);
        heist_sim_check(t[i].freed == 1);
        heist_handle_unref(t[i].handle);
    }
}

/* ---- a task that holds its worker until the others have had their turn ---- */

struct stuck {
    _Atomic(int) served;
};

static int serves(void *arg, void **out) {
    (void)out;
    struct stuck *s = arg;
    int err = heist_sleep(0.001);
    atomic_fetch_add(&s->served, 1);
    return err;
}

static int holds(void *arg, void **out) {
    (void)out;
    struct stuck *s = arg;
    heist_task *t[2];
    for (int i = 0; i < 2; i++) heist_sim_check(heist_create_task(serves, s, NULL, &t[i]) == 0);
    while (atomic_load(&s->served) < 3) heist_sim_spin();
    for (int i = 0; i < 2; i++) {
        heist_sim_check(heist_await(t[i], NULL) == 0);
        heist_unref(t[i]);
    }
    return 0;
}

SCENE(stuck) {
    heist_runtime *rt = open_runtime(arg);
    struct stuck s = {0};
    heist_task *before = NULL, *t = NULL;
    heist_sim_check(heist_runtime_run_coroutine(rt, serves, &s, NULL, &before) == 0);
    heist_sim_check(heist_runtime_run_coroutine(rt, holds, &s, NULL, &t) == 0);
    heist_sim_check(heist_await(t, NULL) == 0);
    heist_sim_check(heist_await(before, NULL) == 0);
    heist_unref(t);
    heist_unref(before);
    close_runtime(rt);
}

/* ---- futures: set, cancelled, awaited and waited for at once ---- */

struct meeting {
    heist_future *f;
    int set, cancelled, woken, called;
    _Atomic(int) outcomes[3];
};

static int meets(void *arg, void **out) {
    (void)out;
    struct meeting *m = arg;
    int err = heist_await(m->f, NULL);
    heist_sim_check(err == 0 || err == -ECANCELED);
    atomic_fetch_add(&m->outcomes[err ? 1 : 0], 1);
    return 0;
}

static int meets_until(void *arg, void **out) {
    (void)out;
    struct meeting *m = arg;
    int err = heist_await_until(m->f, heist_time() + 0.001, NULL);
    heist_sim_check(err == 0 || err == -ECANCELED || err == -ETIMEDOUT);
    return 0;
}

static void met(heist_future *f, void *user) {
    struct meeting *m = user;
    heist_sim_check(heist_future_done(f));
    m->called++;
}

static void sets(void *arg) {
    struct meeting *m = arg;
    m->set = heist_future_set_result(m->f, m, NULL) == 0;
}

static void cancels_future(void *arg) {
    struct meeting *m = arg;
    m->cancelled = heist_cancel(m->f);
}

SCENE(futures) {
    heist_runtime *rt = open_runtime(arg);
    struct meeting m;
    memset(&m, 0, sizeof(m));
    heist_sim_check(heist_future_new(heist_runtime_loop(rt, 0), &m.f) == 0);
    heist_sim_check(heist_future_add_done_callback(m.f, met, &m, NULL) == 0);
    heist_task *t[3];
    for (int i = 0; i < 3; i++)
        heist_sim_check(heist_runtime_run_coroutine(rt, i < 2 ? meets : meets_until, &m, NULL, &t[i]) == 0);
    heist_sim_thread *h[2];
    heist_sim_check(heist_sim_thread_start(sets, &m, &h[0]) == 0);
    heist_sim_check(heist_sim_thread_start(cancels_future, &m, &h[1]) == 0);
    int err = heist_await(m.f, NULL);
    for (int i = 0; i < 3; i++) {
        heist_sim_check(heist_await(t[i], NULL) == 0);
        heist_unref(t[i]);
    }
    for (int i = 0; i < 2; i++) heist_sim_thread_join(h[i]);
    heist_sim_check(m.set + m.cancelled == 1);
    heist_sim_check(err == (m.set ? 0 : -ECANCELED));
    heist_sim_check(m.outcomes[m.set ? 0 : 1] == 2);
    heist_unref(m.f);
    close_runtime(rt);
    heist_sim_check(m.called <= 1); /* the close may have come before its turn */
}

/* ---- many closers, the last of them by unref ---- */

static int small(void *arg, void **out) {
    (void)arg, (void)out;
    heist_task *t = NULL;
    int err = heist_create_task(chain_end, NULL, NULL, &t);
    if (err) {
        heist_sim_check(err == HEIST_ECLOSED);
        return err;
    }
    err = heist_await(t, NULL);
    heist_unref(t);
    return err;
}

static void closes(void *arg) {
    heist_runtime *rt = arg;
    int err = heist_runtime_close(rt, heist_sim_choose(2) ? HEIST_FOREVER : 0.0001);
    heist_sim_check(err == 0 || err == -ETIMEDOUT);
    heist_runtime_unref(rt);
}

SCENE(closers) {
    heist_runtime *rt = open_runtime(arg);
    heist_task *t = NULL;
    heist_sim_check(heist_runtime_run_coroutine(rt, small, NULL, NULL, &t) == 0);
    heist_sim_thread *h[2];
    for (int i = 0; i < 2; i++) heist_sim_check(heist_sim_thread_start(closes, heist_runtime_ref(rt), &h[i]) == 0);
    int err = heist_await(t, NULL);
    heist_sim_check(err == 0 || err == -ECANCELED || err == HEIST_ECLOSED);
    heist_unref(t);
    for (int i = 0; i < 2; i++) heist_sim_thread_join(h[i]);
    close_runtime(rt);
}

/* ---- two runtimes: a task of one awaits a task of the other, while both close ---- */

struct abroad {
    heist_runtime *other;
    int outcome;
};

static int asks_abroad(void *arg, void **out) {
    (void)out;
    struct abroad *a = arg;
    heist_task *t = NULL;
    a->outcome = heist_runtime_run_coroutine(a->other, chain_end, NULL, NULL, &t);
    if (a->outcome) return a->outcome == HEIST_ECLOSED ? 0 : a->outcome;
    a->outcome = heist_await(t, NULL);
    heist_unref(t);
    return a->outcome;
}

static void closes_abroad(void *arg) { heist_sim_check(heist_runtime_close(arg, HEIST_FOREVER) == 0); }

SCENE(two_runtimes) {
    heist_runtime *here = open_runtime(arg);
    int one = 1;
    heist_runtime *there = open_runtime(&one);
    struct abroad a[2] = {{there, 0}, {there, 0}};
    heist_task *t[2];
    for (int i = 0; i < 2; i++) heist_sim_check(heist_runtime_run_coroutine(here, asks_abroad, &a[i], NULL, &t[i]) == 0);
    heist_sim_thread *h;
    heist_sim_check(heist_sim_thread_start(closes_abroad, there, &h) == 0);
    for (int i = 0; i < 2; i++) {
        int err = heist_await(t[i], NULL);
        heist_sim_check(err == 0 || err == -ECANCELED);
        heist_unref(t[i]);
    }
    heist_sim_thread_join(h);
    heist_runtime_unref(there);
    close_runtime(here);
}

/* ---- readers: each byte is seen, none after the removal has returned on the loop ---- */

struct reading {
    heist_loop *loop;
    int ends[2], seen, freed;
};

static int on_readable(void *arg) {
    struct reading *r = arg;
    char byte[4];
    ssize_t n = read(r->ends[0], byte, sizeof(byte));
    heist_sim_check(n > 0);
    r->seen += (int)n;
    if (r->seen == 3) {
        heist_sim_check(heist_loop_remove_reader(r->loop, r->ends[0]) == 1);
        heist_loop_stop(r->loop);
    }
    return 0;
}

static void reading_freed(void *arg) { ((struct reading *)arg)->freed++; }

static void writes_bytes(void *arg) {
    struct reading *r = arg;
    for (int i = 0; i < 3; i++) {
        if (heist_sim_choose(2)) heist_sim_pause(0.001);
        heist_sim_check(write(r->ends[1], "x", 1) == 1);
        heist_sim_point();
    }
}

SCENE(readers) {
    (void)arg;
    struct reading r = {NULL, {-1, -1}, 0, 0};
    heist_sim_check(pipe2(r.ends, O_NONBLOCK | O_CLOEXEC) == 0);
    heist_sim_check(heist_loop_new(NULL, &r.loop) == 0);
    heist_call_options o = HEIST_CALL_OPTIONS_INIT;
    o.arg_free = reading_freed;
    heist_sim_check(heist_loop_add_reader(r.loop, r.ends[0], on_readable, &r, &o) == 0);
    heist_sim_thread *h;
    heist_sim_check(heist_sim_thread_start(writes_bytes, &r, &h) == 0);
    heist_sim_check(heist_loop_run_forever(r.loop) == 0);
    heist_sim_thread_join(h);
    heist_sim_check(r.seen == 3);
    heist_sim_check(heist_loop_close(r.loop) == 0);
    heist_loop_unref(r.loop);
    heist_sim_check(r.freed == 1);
    close(r.ends[0]);
    close(r.ends[1]);
}

/* ---- guests: a task waits on a descriptor of its user's; a byte, a request, a close and another waiter come at any
 * moment, and the number is used again at once ---- */

struct guests {
    int fd[2], again[2];
    heist_task *reader;
    intptr_t how;
    ptrdiff_t read, other, probed;
};

static int guest_reads(void *arg, void **out) {
    struct guests *g = arg;
    char byte;
    (void)out;
    g->read = heist_sock_recv(g->fd[1], &byte, 1, 0, HEIST_FOREVER);
    return 0;
}

static int guest_probes(void *arg, void **out) {
    struct guests *g = arg;
    (void)out;
    g->probed = heist_fd_wait(g->fd[1], HEIST_READABLE, heist_time() + 0.001);
    return 0;
}

/* One that has nothing to do with the others but, perhaps, a number that one of them had. */
static int guest_elsewhere(void *arg, void **out) {
    struct guests *g = arg;
    char byte;
    (void)out;
    g->other = heist_sock_recv(g->again[1], &byte, 1, 0, HEIST_FOREVER);
    return 0;
}

static void disturbs(void *arg) {
    struct guests *g = arg;
    if (heist_sim_choose(2)) heist_sim_pause(0.0005);
    if (g->how == 0) heist_sim_check(write(g->fd[0], "x", 1) == 1);
    if (g->how == 1) heist_cancel(g->reader);
    if (g->how == 2) heist_sim_check(heist_sock_close(g->fd[1]) == 0);
    heist_sim_point();
}

SCENE(guests) {
    heist_runtime *rt = open_runtime(arg);
    struct guests g = {.read = 7, .other = 7, .probed = 7};
    heist_task *probe, *elsewhere;
    int nonblocking = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
    heist_sim_check(socketpair(AF_UNIX, nonblocking, 0, g.fd) == 0);
    g.how = (intptr_t)heist_sim_choose(3);
    heist_sim_check(heist_runtime_run_coroutine(rt, guest_reads, &g, NULL, &g.reader) == 0);
    heist_sim_check(heist_runtime_run_coroutine(rt, guest_probes, &g, NULL, &probe) == 0);
    heist_sim_thread *h;
    heist_sim_check(heist_sim_thread_start(disturbs, &g, &h) == 0);
    heist_sim_thread_join(h);
    heist_await(probe, NULL);
    heist_await(g.reader, NULL);           /* a cancelled one perhaps never began */
    bool busy = g.probed != -EBUSY;       /* at most one of the two was refused */
    heist_sim_check(socketpair(AF_UNIX, nonblocking, 0, g.again) == 0);
    heist_sim_check(heist_runtime_run_coroutine(rt, guest_elsewhere, &g, NULL, &elsewhere) == 0);
    heist_sim_check(write(g.again[0], "y", 1) == 1);
    heist_await(elsewhere, NULL);
    heist_sim_check(g.other == 1);
    switch (g.how) {
    case 0: heist_sim_check(g.read == 1 || (busy && g.read == -EBUSY)); break;
    case 1: heist_sim_check(g.read == -ECANCELED || g.read == 7 || (busy && g.read == -EBUSY)); break;
    default: heist_sim_check(g.read == HEIST_ECLOSED || g.read == -EBADF || (busy && g.read == -EBUSY)); break;
    }
    heist_sim_check(g.probed != 7);
    heist_sock_close(g.fd[0]);
    if (g.how != 2) heist_sim_check(heist_sock_close(g.fd[1]) == 0);
    for (int i = 0; i < 2; i++) heist_sim_check(heist_sock_close(g.again[i]) == 0);
    heist_unref(g.reader);
    heist_unref(probe);
    heist_unref(elsewhere);
    close_runtime(rt);
}

/* ---- a server: two clients, and somebody who closes it, drains it or cuts its connections at any moment ---- */

struct service {
    heist_server *server;
    heist_addr where;
    _Atomic(int) began, ended;
    int how, limit, cut;
};

static int service_answers(heist_stream *s, void *user) {
    struct service *v = user;
    char byte;
    v->began++;
    if (v->how == 6) { /* the clients say nothing: nobody comes to his own end */
        ptrdiff_t n = heist_stream_read(s, &byte, 1);
        v->ended++;
        return n < 0 ? (int)n : 0;
    }
    int err = heist_stream_readexactly(s, &byte, 1, NULL);
    if (err == 0) err = heist_stream_write(s, "y", 1);
    v->ended++;
    return err == HEIST_ECLOSED || err == -ECANCELED ? err : 0; /* a client that was cut is no failure */
}

static int service_starts(void *arg, void **out) {
    struct service *v = arg;
    heist_server_options o = HEIST_SERVER_OPTIONS_INIT;
    char name[40];
    (void)out;
    o.max_connections = (size_t)v->limit;
    snprintf(name, sizeof(name), "@heist seeded %d", (int)getpid());
    heist_sim_check(heist_start_unix_server(service_answers, v, name, &o, &v->server) == 0);
    heist_sim_check(heist_server_sockets(v->server, &v->where, 1) == 1);
    return 0;
}

static int service_client(void *arg, void **out) {
    struct service *v = arg;
    heist_conn *c;
    char byte = 0;
    (void)out;
    int err = heist_connect(&v->where, HEIST_FOREVER, &c);
    if (err < 0) return err == -ECONNREFUSED ? 0 : err;
    ptrdiff_t n = v->how == 6 ? 0 : heist_conn_write(c, "x", 1, HEIST_FOREVER, NULL);
    if (n == 0) n = heist_conn_read(c, &byte, 1, HEIST_FOREVER); /* an answer, or the end: never nothing */
    heist_conn_close(c);
    *out = (void *)(intptr_t)(n == 1);
    heist_sim_check(n != 1 || byte == 'y');
    return n == 1 || n == 0 || n == -ECONNRESET || n == -EPIPE ? 0 : (int)n;
}

static void service_ends(void *arg) {
    struct service *v = arg;
    if (heist_sim_choose(2)) heist_sim_pause(0.0005);
    switch (v->how) {
    case 1: heist_sim_check(heist_server_close(v->server) == 0); break;
    case 2:
    case 6: heist_sim_check((v->cut = heist_server_drain(v->server, 0)) >= 0); break;
    case 3: heist_sim_check((v->cut = heist_server_drain(v->server, HEIST_FOREVER)) == 0); break;
    case 4: heist_sim_check(heist_server_abort_clients(v->server) >= 0); break;
    case 5: heist_sim_check(heist_server_close_clients(v->server) >= 0); break;
    default: break;
    }
}

SCENE(service) {
    heist_runtime *rt = open_runtime(arg);
    struct service v = {.how = (int)heist_sim_choose(7), .limit = (int)heist_sim_choose(2)};
    heist_task *start, *client[2];
    heist_sim_check(heist_runtime_run_coroutine(rt, service_starts, &v, NULL, &start) == 0);
    heist_sim_check(heist_await(start, NULL) == 0);
    heist_unref(start);
    for (int i = 0; i < 2; i++)
        heist_sim_check(heist_runtime_run_coroutine(rt, service_client, &v, NULL, &client[i]) == 0);
    heist_sim_thread *h;
    heist_sim_check(heist_sim_thread_start(service_ends, &v, &h) == 0);
    int served = 0;
    for (int i = 0; i < 2; i++) {
        void *answered = NULL;
        heist_sim_check(heist_await(client[i], &answered) == 0);
        served += answered != NULL;
        heist_unref(client[i]);
    }
    heist_sim_thread_join(h);
    if (v.how == 0) heist_sim_check(served == 2);
    heist_sim_check(heist_server_close(v.server) == 0);
    heist_sim_check(heist_server_wait_closed(v.server) == 0);
    heist_server_stats stats = HEIST_SERVER_STATS_INIT;
    heist_sim_check(heist_server_get_stats(v.server, &stats) == 0 && stats.connections == 0);
    heist_sim_check(v.began == v.ended && served <= v.began);
    heist_server_unref(v.server);
    close_runtime(rt);
}

/* ---- callbacks: a protocol that is written to, paused, resumed, closed or aborted by others at any moment ---- */

struct callbacks {
    heist_transport *t;
    heist_stream *stream;
    _Atomic(int) inside, overlaps, made, data, pauses, resumes, lost, unpaired;
    int how, fd;
};

static void told(struct callbacks *c, _Atomic(int) *what) {
    if (c->inside++) c->overlaps++;
    heist_sim_point();
    if (what) (*what)++;
    if (heist_sim_choose(3) == 0) heist_yield(); /* a request to cancel is the task's business */
    if (c->lost) c->overlaps++;
    c->inside--;
}

static int called_made(void *self, heist_transport *t) {
    struct callbacks *c = self;
    (void)t;
    told(c, &c->made);
    return 0;
}

static int called_data(void *self, const void *bytes, size_t n) {
    struct callbacks *c = self;
    (void)bytes, (void)n;
    told(c, &c->data);
    return 0;
}

static void called_lost(void *self, int code) {
    struct callbacks *c = self;
    (void)code;
    told(c, NULL);
    c->unpaired += c->pauses != c->resumes;
    c->lost++;
}

static void called_pause(void *self) {
    struct callbacks *c = self;
    c->unpaired += c->pauses != c->resumes;
    told(c, &c->pauses);
}

static void called_resume(void *self) {
    struct callbacks *c = self;
    told(c, &c->resumes);
    c->unpaired += c->pauses != c->resumes;
}

static const heist_protocol callbacks_protocol = {
    sizeof(heist_protocol), called_made, called_data, NULL, NULL, NULL, called_lost, called_pause, called_resume};

static int callbacks_start(void *arg, void **out) {
    struct callbacks *c = arg;
    (void)out;
    return heist_protocol_start(c->stream, &callbacks_protocol, c, &c->t);
}

static int callbacks_write(void *arg, void **out) {
    static const char block[150000];
    struct callbacks *c = arg;
    (void)out;
    for (int i = 0; i < 3; i++) heist_transport_write(c->t, block, sizeof(block)); /* more than the socket takes */
    return 0;
}

static void callbacks_disturb(void *arg) {
    struct callbacks *c = arg;
    for (int i = 0; i < 3; i++) {
        switch (heist_sim_choose(4)) {
        case 0: heist_transport_pause_reading(c->t); break;
        case 1: heist_transport_resume_reading(c->t); break;
        case 2: (void)!write(c->fd, "x", 1); break;
        default: heist_sim_pause(0.0005); break;
        }
    }
    switch (c->how) {
    case 0: heist_transport_abort(c->t); break;
    case 1: heist_stream_abort(heist_transport_stream(c->t)); break;
    case 2:
        heist_transport_resume_reading(c->t);
        close(c->fd);
        c->fd = -1;
        break;
    default: heist_transport_close(c->t); break; /* what was written is still sent: the other end reads */
    }
}

SCENE(callbacks) {
    heist_runtime *rt = open_runtime(arg);
    struct callbacks c = {.how = (int)heist_sim_choose(4)};
    heist_stream_options o = HEIST_STREAM_OPTIONS_INIT;
    heist_task *t, *writer;
    heist_conn *conn;
    int fd[2];
    o.high_water = 1000;
    heist_sim_check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd) == 0);
    c.fd = fd[0];
    heist_sim_check(heist_conn_open(fd[1], &conn) == 0);
    heist_sim_check(heist_stream_from_conn(conn, &o, &c.stream) == 0);
    heist_sim_check(heist_runtime_run_coroutine(rt, callbacks_start, &c, NULL, &t) == 0);
    heist_sim_check(heist_await(t, NULL) == 0);
    heist_sim_check(heist_runtime_run_coroutine(rt, callbacks_write, &c, NULL, &writer) == 0);
    heist_sim_thread *h;
    heist_sim_check(heist_sim_thread_start(callbacks_disturb, &c, &h) == 0);
    heist_await(writer, NULL);
    heist_sim_thread_join(h);
    while (!c.lost) {
        static char sink[65536];
        if (c.fd >= 0) (void)!read(c.fd, sink, sizeof(sink));
        heist_sim_pause(0.001);
    }
    heist_sim_check(c.made == 1 && c.lost == 1 && c.overlaps == 0 && c.unpaired == 0 && c.pauses == c.resumes);
    heist_transport_unref(c.t);
    heist_unref(t);
    heist_unref(writer);
    if (c.fd >= 0) close(c.fd);
    close_runtime(rt);
}

/* ---- an endpoint: two receivers, one that cancels, one that closes; each datagram goes to one of them ---- */

struct endpoint_scene {
    heist_datagram *d;
    heist_task *receiver[2];
    int peer, got[2];
    ptrdiff_t end[2];
};

static int receives_datagrams(struct endpoint_scene *e, int which) {
    char buf[4];
    ptrdiff_t n;
    while ((n = heist_datagram_recv(e->d, buf, sizeof(buf), HEIST_FOREVER)) >= 0) {
        heist_sim_check(n == 2 && buf[0] == 'd');
        e->got[which]++;
    }
    e->end[which] = n;
    return 0;
}
static int first_receiver(void *arg, void **out) { return (void)out, receives_datagrams(arg, 0); }
static int second_receiver(void *arg, void **out) { return (void)out, receives_datagrams(arg, 1); }

static void cancels_receiver(void *arg) {
    struct endpoint_scene *e = arg;
    heist_sim_pause(0.0005);
    heist_cancel(e->receiver[heist_sim_choose(2)]);
}

SCENE(endpoint) {
    enum { DATAGRAMS = 4 };
    heist_runtime *rt = open_runtime(arg);
    struct endpoint_scene e = {.end = {7, 7}};
    int fd[2], left = 0;
    heist_sim_check(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd) == 0);
    heist_sim_check(heist_datagram_from_fd(fd[1], &e.d) == 0);
    heist_sim_check(heist_runtime_run_coroutine(rt, first_receiver, &e, NULL, &e.receiver[0]) == 0);
    heist_sim_check(heist_runtime_run_coroutine(rt, second_receiver, &e, NULL, &e.receiver[1]) == 0);
    heist_sim_thread *h;
    heist_sim_check(heist_sim_thread_start(cancels_receiver, &e, &h) == 0);
    for (int i = 0; i < DATAGRAMS; i++) {
        heist_sim_check(write(fd[0], "da", 2) == 2);
        if (heist_sim_choose(2)) heist_sim_pause(0.001);
    }
    heist_sim_thread_join(h);
    char buf[4];
    while (heist_datagram_try_recvfrom(e.d, buf, sizeof(buf), NULL) == 2) left++;
    heist_datagram_close(e.d);
    for (int i = 0; i < 2; i++) {
        int err = heist_await(e.receiver[i], NULL);
        heist_sim_check(err == 0 || (err == -ECANCELED && e.end[i] == 7)); /* one that never began */
        heist_sim_check(e.end[i] == 7 || e.end[i] == -ECANCELED || e.end[i] == HEIST_ECLOSED);
        heist_unref(e.receiver[i]);
    }
    heist_sim_check(e.got[0] + e.got[1] + left == DATAGRAMS);
    heist_sim_check(heist_datagram_try_recvfrom(e.d, buf, sizeof(buf), NULL) == HEIST_ECLOSED);
    heist_datagram_unref(e.d);
    close(fd[0]);
    close_runtime(rt);
}

/* ---- the last reference: completion, cancel, a done callback and unref at once ---- */

struct last {
    heist_task *t;
    _Atomic(int) freed, called, user_freed;
};

static int short_body(void *arg, void **out) {
    (void)arg;
    *out = arg;
    return heist_yield();
}

static void last_result_freed(void *arg) { atomic_fetch_add(&((struct last *)arg)->freed, 1); }
static void last_called(heist_future *f, void *user) {
    heist_sim_check(heist_future_done(f));
    atomic_fetch_add(&((struct last *)user)->called, 1);
}
static void last_user_freed(void *user) { atomic_fetch_add(&((struct last *)user)->user_freed, 1); }

static void drops(void *arg) {
    struct last *l = arg;
    heist_sim_check(heist_future_add_done_callback(l->t, last_called, l, last_user_freed) == 0);
    if (heist_sim_choose(2)) heist_cancel(l->t);
    heist_unref(l->t);
}

static void looks(void *arg) {
    struct last *l = arg;
    heist_loop *loop = heist_future_loop(l->t);
    (void)loop;
    heist_task **list;
    size_t count;
    char buf[128];
    heist_future_repr(l->t, buf, sizeof(buf));
    heist_runtime *rt = loop ? heist_loop_runtime(loop) : NULL;
    if (rt && heist_runtime_all_tasks(rt, &list, &count) == 0) heist_task_list_free(list, count);
    heist_unref(l->t);
}

SCENE(last_reference) {
    heist_runtime *rt = open_runtime(arg);
    struct last l = {NULL, 0, 0, 0};
    heist_task_options o = HEIST_TASK_OPTIONS_INIT;
    o.result_free = last_result_freed;
    heist_sim_check(heist_runtime_run_coroutine(rt, short_body, &l, &o, &l.t) == 0);
    heist_sim_thread *h[2];
    heist_ref(l.t);
    heist_sim_check(heist_sim_thread_start(drops, &l, &h[0]) == 0);
    heist_ref(l.t);
    heist_sim_check(heist_sim_thread_start(looks, &l, &h[1]) == 0);
    int err = heist_await(l.t, NULL);
    heist_sim_check(err == 0 || err == -ECANCELED);
    heist_unref(l.t);
    for (int i = 0; i < 2; i++) heist_sim_thread_join(h[i]);
    close_runtime(rt);
    heist_sim_check(l.user_freed == 1 && l.called <= 1);
    heist_sim_check(l.freed <= 1);
    if (err == 0) heist_sim_check(l.freed == 1);
}

/* ---- executors and blocking sections ---- */

struct trade {
    heist_executor *e;
    _Atomic(int) ran, freed, results, told;
};

static int trade_job(void *arg, void **out) {
    struct trade *t = arg;
    atomic_fetch_add(&t->ran, 1);
    heist_yield(); /* of the thread */
    *out = t;
    return 0;
}

static void trade_arg_freed(void *arg) { atomic_fetch_add(&((struct trade *)arg)->freed, 1); }
static void trade_result_freed(void *result) { atomic_fetch_add(&((struct trade *)result)->results, 1); }

static int trader(void *arg, void **out) {
    struct trade *t = arg;
    heist_job_options o = HEIST_JOB_OPTIONS_INIT;
    o.arg_free = trade_arg_freed;
    o.result_free = trade_result_freed;
    (void)out;
    for (int i = 0; i < 2; i++) {
        heist_future *f;
        int err = heist_executor_submit(t->e, trade_job, t, &o, &f);
        heist_sim_check(err == 0 || err == HEIST_EEXECSHUTDOWN);
        if (err) return 0;
        if (heist_sim_choose(3) == 0) heist_cancel(f);
        err = heist_await(f, NULL);
        heist_sim_check(err == 0 || err == -ECANCELED);
        atomic_fetch_add(&t->told, 1);
        heist_unref(f);
    }
    return 0;
}

static void trade_closer(void *arg) {
    struct trade *t = arg;
    unsigned flags = heist_sim_choose(2) ? HEIST_EXECUTOR_CANCEL_QUEUED : 0;
    heist_sim_check(heist_executor_shutdown(t->e, flags) == 0);
}

SCENE(executor) {
    heist_runtime *rt = open_runtime(arg);
    struct trade t = {NULL, 0, 0, 0, 0};
    heist_executor_options o = HEIST_EXECUTOR_OPTIONS_INIT;
    heist_sim_thread *closer = NULL;
    heist_task *task[2];
    o.max_threads = 2;
    o.idle_seconds = 1e-5;
    heist_sim_check(heist_executor_new(&o, &t.e) == 0);
    for (int i = 0; i < 2; i++) heist_sim_check(heist_runtime_run_coroutine(rt, trader, &t, NULL, &task[i]) == 0);
    if (heist_sim_choose(2)) heist_sim_check(heist_sim_thread_start(trade_closer, &t, &closer) == 0);
    for (int i = 0; i < 2; i++) {
        heist_sim_check(heist_await(task[i], NULL) == 0);
        heist_unref(task[i]);
    }
    if (closer) heist_sim_thread_join(closer);
    heist_sim_check(heist_executor_shutdown(t.e, 0) == 0);
    heist_executor_unref(t.e);
    close_runtime(rt);
    heist_sim_check(t.freed == t.told && t.ran <= t.told && t.results == t.ran);
}

static int section_guest(void *arg, void **out) {
    (void)out;
    atomic_fetch_add((_Atomic(int) *)arg, 1);
    return 0;
}

static int section_host(void *arg, void **out) {
    heist_task *t;
    (void)out;
    heist_sim_check(heist_create_task(section_guest, arg, NULL, &t) == 0);
    heist_sim_check(heist_blocking_begin() == 0);
    heist_sim_check(heist_await(t, NULL) == 0); /* blocks the thread, and the guest stands in its queue */
    heist_sim_check(heist_blocking_end() == 0);
    heist_unref(t);
    return heist_yield();
}

SCENE(section) {
    heist_runtime *rt = open_runtime(arg);
    _Atomic(int) served = 0;
    for (int i = 0; i < 2; i++) {
        heist_task *t;
        heist_sim_check(heist_runtime_run_coroutine(rt, section_host, &served, NULL, &t) == 0);
        heist_sim_check(heist_await(t, NULL) == 0);
        heist_unref(t);
    }
    heist_sim_check(served == 2);
    close_runtime(rt);
}

/* ---- generators: a body that suspends, entered by whoever comes ---- */

#define TURNS 6

struct numbers {
    heist_generator *g;
    _Atomic(int) made, taken, sum, begun, ended;
};

static int numbers_body(heist_generator *self, void *arg, void **out) {
    struct numbers *n = arg;
    int err = 0;
    (void)out;
    n->begun++;
    while (!err) {
        int value = ++n->made;
        if (value % 2) err = heist_yield();
        if (!err) err = heist_generator_yield(self, (void *)(intptr_t)value, NULL);
    }
    n->ended++;
    return err;
}

/* Two at once: one of them is told that it is busy. */
static int asks_for_some(void *arg, void **out) {
    struct numbers *n = arg;
    (void)out;
    for (int i = 0; i < TURNS; i++) {
        void *value = NULL;
        int err = heist_generator_next(n->g, &value);
        if (err == -EBUSY) {
            heist_sim_check(heist_yield() == 0);
            continue;
        }
        heist_sim_check(err == 0 && value);
        n->taken++;
        n->sum += (int)(intptr_t)value;
    }
    return 0;
}

SCENE(generator) {
    heist_runtime *rt = open_runtime(arg);
    struct numbers n = {NULL, 0, 0, 0, 0, 0};
    heist_task *t[2];
    heist_sim_check(heist_generator_new(numbers_body, &n, NULL, &n.g) == 0);
    for (int i = 0; i < 2; i++) heist_sim_check(heist_runtime_run_coroutine(rt, asks_for_some, &n, NULL, &t[i]) == 0);
    for (int i = 0; i < 2; i++) {
        heist_sim_check(heist_await(t[i], NULL) == 0);
        heist_unref(t[i]);
    }
    heist_sim_check(n.taken == n.made && n.taken > 1 && n.sum == n.made * (n.made + 1) / 2); /* each value once */
    heist_sim_check(heist_generator_close(n.g) == 0);
    heist_sim_check(n.begun == n.ended);
    heist_generator_unref(n.g);
    close_runtime(rt);
}

static int pass_on(heist_generator *self, heist_generator *input, void *arg, void **out) {
    struct numbers *n = arg;
    void *value;
    int err;
    (void)out;
    n->begun++;
    while (!(err = heist_generator_next(input, &value)))
        if ((err = heist_generator_yield(self, value, NULL))) break;
    n->ended++;
    return err == HEIST_ESTOP ? 0 : err;
}

static int consumes_ahead(void *arg, void **out) {
    struct numbers *n = arg;
    heist_generator *source, *first, *stage, *last;
    void *value;
    int err, expected = 1;
    (void)out;
    heist_sim_check(heist_generator_new(numbers_body, n, NULL, &source) == 0);
    heist_sim_check(heist_pipeline_buffer(source, NULL, &first) == 0);
    heist_sim_check(heist_pipeline_stage(first, pass_on, n, NULL, &stage) == 0);
    heist_sim_check(heist_pipeline_buffer(stage, NULL, &last) == 0);
    heist_generator_unref(source);
    heist_generator_unref(first);
    heist_generator_unref(stage);
    heist_foreach (value, last, &err) {
        heist_sim_check((int)(intptr_t)value == expected);
        if (expected++ == TURNS) break;
    }
    heist_sim_check(err == 0 || err == -ECANCELED);
    heist_sim_check(n->begun == n->ended); /* all stages have ended */
    heist_generator_unref(last);
    return err;
}

static void cancels_one(void *arg) { heist_cancel(arg); }

SCENE(pipeline) {
    heist_runtime *rt = open_runtime(arg);
    struct numbers n = {NULL, 0, 0, 0, 0, 0};
    heist_task *t;
    heist_sim_check(heist_runtime_run_coroutine(rt, consumes_ahead, &n, NULL, &t) == 0);
    heist_sim_thread *canceller = NULL;
    heist_sim_check(heist_sim_thread_start(cancels_one, t, &canceller) == 0);
    int err = heist_await(t, NULL);
    heist_sim_check(err == 0 || err == -ECANCELED);
    heist_sim_thread_join(canceller);
    heist_unref(t);
    close_runtime(rt);
}

/* Blocks with a deadline, whose time is up while they are left, and one request from outside: whoever was asked by
 * nobody but his blocks finds nothing of it behind them. */
struct in_blocks {
    heist_future *f;
    int cancelled;
};

static int leaves_blocks(void *arg, void **out) {
    (void)out;
    struct in_blocks *v = arg;
    for (int i = 0; i < 3; i++) {
        heist_timeout outer = HEIST_TIMEOUT_INIT, inner = HEIST_TIMEOUT_INIT;
        heist_sim_check(heist_timeout_enter(&outer, 0.002) == 0);
        heist_sim_check(heist_timeout_enter(&inner, i == 1 ? 0.001 : 0.002) == 0);
        int err = i == 2 ? heist_await_until(v->f, heist_time() + 0.002, NULL) : heist_sleep(0.002);
        if (i == 2 && err == -ETIMEDOUT) err = 0;
        err = heist_timeout_exit(&outer, heist_timeout_exit(&inner, err));
        heist_sim_check(err == 0 || err == -ETIMEDOUT || err == -ECANCELED);
        memset(&outer, 0x55, sizeof outer);
        memset(&inner, 0x55, sizeof inner);
        if (err == -ECANCELED) v->cancelled++;
        heist_uncancellable_begin();
        heist_sim_check(heist_yield() == 0);
        heist_uncancellable_end();
        if (heist_yield() == -ECANCELED) v->cancelled++;
    }
    return 0;
}

SCENE(blocks) {
    heist_runtime *rt = open_runtime(arg);
    heist_task *t[2];
    struct in_blocks v[2] = {{NULL, 0}, {NULL, 0}};
    for (int i = 0; i < 2; i++) {
        heist_sim_check(heist_future_new(NULL, &v[i].f) == 0);
        heist_sim_check(heist_runtime_run_coroutine(rt, leaves_blocks, &v[i], NULL, &t[i]) == 0);
    }
    heist_sim_thread *h;
    heist_sim_check(heist_sim_thread_start(cancels, t[0], &h) == 0);
    for (int i = 0; i < 2; i++) {
        int err = heist_await(t[i], NULL);
        heist_sim_check(err == 0 || (i == 0 && err == -ECANCELED && !v[0].cancelled)); /* it never began */
    }
    heist_sim_thread_join(h);
    heist_sim_check(v[1].cancelled == 0 && v[0].cancelled <= 1);
    heist_sim_check(heist_cancelling(t[1]) == 0 && heist_cancelling(t[0]) <= 1);
    for (int i = 0; i < 2; i++) {
        heist_unref(t[i]);
        heist_unref(v[i].f);
    }
    close_runtime(rt);
}

/* A group whose children fail, add others and are added to from outside, while its owner is cancelled. */
struct party {
    heist_group *g;
    _Atomic(int) over, begun, ended, failed, answer, freed;
};

static void frees_a_gift(void *gift) {
    struct party *p = gift;
    heist_sim_check(!p->over);
    p->freed++;
}

static int guest(void *arg, void **out);
static int invite(struct party *p) {
    heist_task_options o = HEIST_TASK_OPTIONS_INIT;
    o.result_free = frees_a_gift;
    return heist_group_create_task(p->g, guest, p, &o, NULL);
}

static int guest(void *arg, void **out) {
    struct party *p = *out = arg;
    heist_sim_check(!p->over);
    int n = p->begun++;
    if (n == 0) invite(p);
    int err = n == 1 ? heist_sleep(0.001) : heist_yield();
    heist_sim_check(!p->over);
    if (!err && n == 1) err = -EPROTO;
    if (err && err != -ECANCELED) p->failed++;
    p->ended++;
    return err;
}

static void brings_a_guest(void *arg) {
    struct party *p = arg;
    int err = invite(p);
    heist_sim_check(err == 0 || err == HEIST_ESHUTDOWN || err == HEIST_EINVALSTATE);
    if (err) heist_group_cancel(p->g);
}

static int host(void *arg, void **out) {
    (void)out;
    struct party *p = arg;
    heist_sim_check(heist_group_enter(p->g) == 0);
    for (int i = 0; i < 2; i++) {
        int err = invite(p);
        heist_sim_check(err == 0 || err == HEIST_ESHUTDOWN);
    }
    int err = heist_group_exit(p->g, heist_sleep(0.001));
    p->over = 1;
    heist_sim_check(p->begun == p->ended && heist_group_count(p->g) == 0);
    heist_sim_check(p->freed == p->ended); /* what they brought, too */
    heist_sim_check(heist_group_failures(p->g) == p->failed);
    heist_sim_check((err == HEIST_EGROUP) == (p->failed > 0));
    p->answer = err;
    return err;
}

SCENE(party) {
    heist_runtime *rt = open_runtime(arg);
    struct party p = {.answer = 1};
    heist_task *t = NULL;
    heist_sim_check(heist_group_new(&p.g) == 0);
    heist_sim_check(heist_runtime_run_coroutine(rt, host, &p, NULL, &t) == 0);
    heist_sim_thread *h[2];
    heist_sim_check(heist_sim_thread_start(brings_a_guest, &p, &h[0]) == 0);
    heist_sim_check(heist_sim_thread_start(cancels, t, &h[1]) == 0);
    int err = heist_await(t, NULL);
    for (int i = 0; i < 2; i++) heist_sim_thread_join(h[i]);
    heist_sim_check(err == p.answer || (err == -ECANCELED && p.answer == 1));
    heist_sim_check(p.answer != 0 || heist_cancelling(t) <= 1);
    heist_unref(t);
    heist_group_unref(p.g);
    close_runtime(rt);
}

/* ---- futures that nest, and those who wait for several ---- */

struct nest {
    double seconds[3];
    heist_task *child[3];
    heist_future *plain, *all, *shield;
    heist_completions *it;
    _Atomic(int) taken;
    int asked; /* heist_cancel's answer */
};

static void completes_plain(void *arg) {
    struct nest *n = arg;
    heist_sim_check(heist_future_set_result(n->plain, n, NULL) == 0);
}

static void cancels_all(void *arg) {
    struct nest *n = arg;
    n->asked = heist_cancel(n->all);
}

static int takes_some(void *arg, void **out) {
    (void)out;
    struct nest *n = arg;
    heist_future *f = NULL;
    int got;
    while ((got = heist_completions_next(n->it, &f)) == 1) {
        heist_sim_check(heist_future_done(f));
        n->taken++;
    }
    return got;
}

static int waits_for_all(void *arg, void **out) {
    (void)out;
    struct nest *n = arg;
    heist_task *taker = NULL;
    heist_sim_check(heist_create_task(takes_some, n, NULL, &taker) == 0);
    heist_future *part[5] = {n->child[0], n->child[1], n->child[2], n->plain, n->child[1]};
    size_t pending = 9;
    int done = heist_wait(part, 5, HEIST_FIRST_COMPLETED, 0.0005, &pending);
    heist_sim_check(done >= 0 && (size_t)done + pending == 4);
    for (int i = 0; i < done; i++) heist_sim_check(heist_future_done(part[i]));
    int err = heist_wait_for(n->shield, 0.0012, NULL); /* leaves `all` alone */
    heist_sim_check(err == 0 || err == -ETIMEDOUT || err == -ECANCELED);
    heist_sim_check(takes_some(n, NULL) == 0);
    err = heist_await(n->all, NULL);
    for (int i = 0; i < 3; i++) heist_sim_check(heist_future_done(n->child[i]));
    heist_sim_check(heist_await(taker, NULL) == 0);
    heist_sim_check(n->taken == 4);
    heist_unref(taker);
    return err;
}

SCENE(composition) {
    heist_runtime *rt = open_runtime(arg);
    struct nest n = {.seconds = {0.003, 0.001, 0.002}};
    heist_future *part[3];
    heist_task *t = NULL;
    for (int i = 0; i < 3; i++)
        heist_sim_check(heist_runtime_run_coroutine(rt, fails_after, &n.seconds[i], NULL, &n.child[i]) == 0);
    heist_sim_check(heist_future_new(NULL, &n.plain) == 0);
    heist_sim_check(heist_gather_future(n.child, 3, HEIST_GATHER_ALL, &part[0]) == 0);
    heist_sim_check(heist_shield(n.plain, &part[1]) == 0);
    heist_sim_check(heist_sleep_future(heist_runtime_loop(rt, 0), 0.0015, &n, NULL, &part[2]) == 0);
    heist_sim_check(heist_gather_future(part, 3, 0, &n.all) == 0);
    heist_unref_all(part, 3);
    heist_sim_check(heist_shield(n.all, &n.shield) == 0);
    heist_future *each[5] = {n.child[0], n.child[1], n.child[2], n.plain, n.child[1]};
    heist_sim_check(heist_as_completed(each, 5, HEIST_FOREVER, &n.it) == 0);
    heist_sim_check(heist_runtime_run_coroutine(rt, waits_for_all, &n, NULL, &t) == 0);
    heist_sim_thread *h[2];
    heist_sim_check(heist_sim_thread_start(completes_plain, &n, &h[0]) == 0);
    heist_sim_check(heist_sim_thread_start(cancels_all, &n, &h[1]) == 0);
    int err = heist_await(t, NULL);
    for (int i = 0; i < 2; i++) heist_sim_thread_join(h[i]);
    heist_sim_check(err == (n.asked ? -ECANCELED : 0));
    heist_completions_free(n.it);
    heist_unref_all(n.child, 3);
    heist_unref(n.plain);
    heist_unref(n.all);
    heist_unref(n.shield);
    heist_unref(t);
    close_runtime(rt);
}

/* ---- streams: writers from everywhere, a reader that is interrupted, and an end by lot ----
 *
 * What a write accepted comes whole and in one piece, in the order of each writer, unless the stream is aborted; a
 * deadline that is set under a reader who has nothing to read ends his wait. */

enum { RECORD = 8000, RECORDS = 2, WRITERS = 3 };
enum { CLOSE_AFTER, CLOSE_ANY_TIME, ABORT_ANY_TIME };

struct stream_scene {
    heist_stream *from, *to;
    int ending;
    _Atomic(int) accepted, next_writer, writing;
};

static heist_stream *stream_over(int fd) {
    heist_conn *c;
    heist_stream *s;
    heist_stream_options o = HEIST_STREAM_OPTIONS_INIT;
    o.high_water = RECORD;
    heist_sim_check(heist_conn_open(fd, &c) == 0);
    heist_sim_check(heist_stream_from_conn(c, &o, &s) == 0);
    return s;
}

static void stream_write(struct stream_scene *s) {
    char buf[RECORD];
    memset(buf, 'a' + atomic_fetch_add(&s->next_writer, 1), sizeof(buf));
    for (int i = 0; i < RECORDS; i++) {
        struct iovec iov[2] = {{buf, 1000}, {buf + 1000, RECORD - 1000}};
        int err = heist_sim_choose(2) ? heist_stream_write(s->from, buf, sizeof(buf))
                                      : heist_stream_writelines(s->from, iov, 2);
        if (err == 0) atomic_fetch_add(&s->accepted, 1);
        else heist_sim_check(err == HEIST_ECLOSED && s->ending != CLOSE_AFTER);
        if (err == 0 && heist_sim_choose(2)) err = heist_stream_drain(s->from);
        heist_sim_check(err == 0 || (err == HEIST_ECLOSED && s->ending != CLOSE_AFTER));
        if (err) break;
    }
    if (atomic_fetch_sub(&s->writing, 1) == 1 && s->ending == CLOSE_AFTER) heist_stream_close(s->from);
}

static int stream_writer(void *arg, void **out) {
    (void)out;
    stream_write(arg);
    return 0;
}
static void stream_thread(void *arg) { stream_write(arg); }

static int stream_ender(void *arg, void **out) {
    (void)out;
    struct stream_scene *s = arg;
    for (uint32_t i = heist_sim_choose(5); i; i--) (void)heist_yield();
    heist_stream_set_read_deadline(s->to, heist_time() - 1); /* the reader must not mind */
    if (s->ending == CLOSE_ANY_TIME) heist_stream_close(s->from);
    if (s->ending == ABORT_ANY_TIME) heist_stream_abort(s->from);
    return 0;
}

static void stream_deadline(void *arg) {
    for (uint32_t i = heist_sim_choose(20); i; i--) heist_sim_point();
    heist_sim_check(heist_stream_set_read_deadline(((struct stream_scene *)arg)->to, heist_time()) == 0);
}

static int stream_main(void *arg, void **out) {
    (void)out;
    struct stream_scene *s = arg;
    heist_task *t[3];
    heist_sim_thread *h;
    int ends[2], small = 1;
    heist_sim_check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
    s->from = stream_over(ends[0]);
    s->to = stream_over(ends[1]);

    /* Nothing to read: the deadline alone ends the wait. */
    char *line, buf[5000];
    heist_sim_check(heist_sim_thread_start(stream_deadline, s, &h) == 0);
    heist_sim_check(heist_stream_readline(s->to, &line) == -ETIMEDOUT);
    heist_sim_thread_join(h);
    heist_stream_set_read_deadline(s->to, HEIST_FOREVER);

    heist_coro_fn body[3] = {stream_writer, stream_writer, stream_ender};
    for (int i = 0; i < 3; i++) heist_sim_check(heist_create_task(body[i], s, NULL, &t[i]) == 0);
    heist_sim_check(heist_sim_thread_start(stream_thread, s, &h) == 0);
    int got = 0, run = 0;
    char last = 0;
    ptrdiff_t n;
    while ((n = heist_stream_read(s->to, buf, sizeof(buf))) != 0) {
        if (n == -ETIMEDOUT) heist_stream_set_read_deadline(s->to, HEIST_FOREVER);
        else heist_sim_check(n > 0);
        for (ptrdiff_t i = 0; i < n; i++, run++) {
            if (run % RECORD == 0) last = buf[i], got++;
            heist_sim_check(buf[i] == last);
        }
    }
    heist_sim_thread_join(h); /* at the end of the stream nothing holds it up */
    for (int i = 0; i < 3; i++) {
        heist_sim_check(heist_await(t[i], NULL) == 0);
        heist_unref(t[i]);
    }
    heist_stream_close(s->from);
    heist_sim_check(heist_stream_wait_closed(s->from) == 0);
    if (s->ending != ABORT_ANY_TIME) heist_sim_check(run % RECORD == 0 && got == atomic_load(&s->accepted));
    heist_stream_close(s->to);
    heist_stream_unref(s->to);
    heist_stream_unref(s->from);
    return 0;
}

SCENE(streams) {
    heist_runtime *rt = open_runtime(arg);
    struct stream_scene s = {.ending = (int)heist_sim_choose(3), .writing = WRITERS};
    heist_task *t;
    heist_sim_check(heist_runtime_run_coroutine(rt, stream_main, &s, NULL, &t) == 0);
    heist_sim_check(heist_await(t, NULL) == 0);
    heist_unref(t);
    close_runtime(rt);
}

/* A close that nobody waits for, with unsent data, and the runtime closes behind it: nothing is left. */

static int stream_left(void *arg, void **out) {
    int *ends = arg, small = 1;
    char buf[RECORD * 4] = "";
    (void)out;
    setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
    heist_stream *s = stream_over(ends[0]);
    heist_sim_check(heist_stream_write(s, buf, sizeof(buf)) == 0);
    if (heist_sim_choose(2)) (void)heist_yield();
    if (heist_sim_choose(2)) heist_stream_write_eof(s);
    heist_stream_close(s);
    if (heist_sim_choose(2)) (void)heist_yield();
    heist_stream_unref(s);
    return 0;
}

SCENE(stream_unsent) {
    int ends[2];
    heist_sim_check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    heist_runtime *rt = open_runtime(arg);
    heist_task *t;
    heist_sim_check(heist_runtime_run_coroutine(rt, stream_left, ends, NULL, &t) == 0);
    heist_sim_check(heist_await(t, NULL) == 0);
    heist_unref(t);
    close_runtime(rt);
    char buf[4096];
    ssize_t n;
    while ((n = recv(ends[1], buf, sizeof(buf), MSG_DONTWAIT)) > 0) {}
    heist_sim_check(n == 0); /* it was closed */
    close(ends[1]);
}

const struct scene scenes[] = {
    {"spawn", spawn, 1},
    {"gather", gather, 1},
    {"cancel", cancel, 1},
    {"cancel_chain", cancel_chain, 1},
    {"channel", channel, 1},
    {"either", either, 1},
    {"shares", shares, 1},
    {"lifetimes", lifetimes, 1},
    {"counted", counted, 1},
    {"locks", locks, 1},
    {"deadlines", deadlines, 1},
    {"sleep", sleepers, 1},
    {"call_soon", call_soon, 1},
    {"run_coroutine", run_coroutine, 1},
    {"lone_loop", lone_loop, 1},
    {"handles", handles, 1},
    {"stuck", stuck, 2},
    {"futures", futures, 1},
    {"closers", closers, 1},
    {"two_runtimes", two_runtimes, 1},
    {"readers", readers, 1},
    {"guests", guests, 1},
    {"endpoint", endpoint, 1},
    {"streams", streams, 1},
    {"stream_unsent", stream_unsent, 1},
    {"service", service, 1},
    {"callbacks", callbacks, 1},
    {"last_reference", last_reference, 1},
    {"executor", executor, 1},
    {"section", section, 2},
    {"generator", generator, 1},
    {"pipeline", pipeline, 1},
    {"blocks", blocks, 1},
    {"group", party, 1},
    {"composition", composition, 1},
};
const int scene_count = (int)HEIST_ARRAY_LEN(scenes);
