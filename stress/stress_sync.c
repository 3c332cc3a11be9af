/* stress/stress_sync.c: locks and their kin, shared by everybody.
 *
 * Law: a lock has one holder, and what one holder wrote the next one reads (plain
 * counters, which a race detector watches); readers see no half of a write; never more
 * are inside than there are permits, and in the end all permits are there; what goes into
 * a buffer under two conditions comes out; each round of a barrier has all its parties
 * and each index once; what is done once is done once; an event or a wait group is not
 * touched after the wait that needed it.  A call that was cancelled, timed out or
 * refused has taken nothing.  On one worker nobody gets a lock or permit twice while another
 * waits for it; on any number nobody who comes later passes one that was seen in the queue; and
 * every wait is answered, however greedy the others are.
 * Threads: members are tasks, pinned tasks of two runtimes and plain threads; cancellers.
 * Invariant: an object under attack is found by an index, members never leave with one
 * in hand, and a member that waits has its slot of the watchdog set. */
#include "common.h"

#include <errno.h>

#define LOCKS 3
#define MEMBERS 96
#define PARTIES_MOST 12
#define BOX 16

struct guarded {
    heist_lock lock;
    long count;  /* plain */
    int holders; /* plain */
};

struct shared_pair {
    heist_rwlock lock;
    long a, b; /* plain, equal outside of a write */
    _Atomic(int) readers, writers;
};

struct limited {
    heist_semaphore permits;
    int64_t most;
    _Atomic(int) inside;
};

/* A bounded buffer: two conditions, one lock. */
struct buffer {
    heist_lock lock;
    heist_condition not_empty, not_full;
    long in, out; /* plain */
    bool over;    /* plain */
};

/* Events on the stacks of those who wait, for whoever passes by to set. */
struct mailbox {
    heist_lock lock;
    heist_event *events[BOX]; /* plain */
    int count;
};

struct meeting {
    heist_barrier barrier;
    int parties;
    long stage[PARTIES_MOST]; /* plain */
    _Atomic(uint64_t) indices;
    _Atomic(int) ended;
};

struct first {
    heist_once once;
    _Atomic(int) done;
    long value; /* plain */
};

static struct guarded locks[LOCKS];
static struct shared_pair pairs[LOCKS];
static struct limited limits[LOCKS];
static struct buffer buffer;
static struct mailbox mailbox;
static struct meeting meeting;
static struct first firsts[LOCKS];

static _Atomic(long) lock_count[LOCKS], write_count[LOCKS], pieces_in, pieces_out;
static _Atomic(bool) over;
static double longest;

enum what { LOCK, RWLOCK, SEMAPHORE, CONDITION, EVENT, WAITGROUP, ONCE, WHATS };
static const char *const what_name[WHATS] = {"lock",  "read-write lock", "semaphore", "condition",
                                             "event", "wait group",      "once"};
static _Atomic(uint64_t) taken[WHATS], cancelled[WHATS], late[WHATS], refused[WHATS];
static _Atomic(uint64_t) rounds_met;
static _Atomic(long) most_before; /* others who had a lock while one waited for it */

struct member {
    struct stress_rng rng;
    int slot;
    bool plain, meets;
    int number; /* of a party */
    pthread_t thread;
    heist_task *task;
    _Atomic(bool) ended;
};
static struct member members[MEMBERS];
static int member_count;

/* What a wait may say, and counts it: true when it has taken what it wanted. */
static bool took(struct member *m, enum what what, int err, bool timed, bool tried) {
    stress_wait_end(m->slot);
    if (err == -ECANCELED && !m->plain) s_add(&cancelled[what], 1);
    else if (err == -ETIMEDOUT && timed) s_add(&late[what], 1);
    else if (err == -EAGAIN && tried) s_add(&refused[what], 1);
    else if (err < 0) stress_fail("a %s answered %s", what_name[what], heist_error_name(err));
    else s_add(&taken[what], 1);
    return err >= 0;
}

/* Between any two steps, with or without something in hand. */
static void rest(struct member *m) {
    switch (stress_below(&m->rng, 12)) {
        case 0: (void)heist_yield(); break;
        case 1: (void)heist_sleep((double)stress_below(&m->rng, 64) * 1e-6); break;
        case 2: stress_spin((double)stress_below(&m->rng, 8) * 1e-6); break;
        case 3:
            if (stress_chance(&m->rng, 5)) stress_block(longest);
            break;
        default: break;
    }
}

static double soon(struct member *m, double *planned) {
    *planned = (double)stress_below(&m->rng, 400) * 1e-6;
    return heist_time() + *planned - 5e-5;
}

static void use_lock(struct member *m) {
    int i = (int)stress_below(&m->rng, LOCKS);
    struct guarded *g = &locks[i];
    unsigned how = (unsigned)stress_below(&m->rng, 8);
    double planned = 0, until = soon(m, &planned);
    long others = s_get(&lock_count[i]);
    stress_wait_begin(m->slot, "a lock", how == 1 ? planned : 0);
    int err = how == 0   ? heist_lock_try_acquire(&g->lock)
              : how == 1 ? heist_lock_acquire_until(&g->lock, until)
                         : heist_lock_acquire(&g->lock);
    if (!took(m, LOCK, err, how == 1, how == 0)) return;
    others = s_get(&lock_count[i]) - others;
    if (others > s_get(&most_before)) s_set(&most_before, others);
    long before = g->count;
    stress_check(g->holders++ == 0, "a lock has two holders");
    g->count = before + 1;
    rest(m);
    stress_check(heist_lock_locked(&g->lock) == 1, "a lock that is held says that it is free");
    stress_check(g->count == before + 1 && g->holders == 1, "somebody else wrote under a lock that is held");
    g->holders--;
    s_add(&lock_count[i], 1);
    err = heist_lock_release(&g->lock);
    stress_check(err == 0, "release answered %s", heist_error_name(err));
}

static void use_rwlock(struct member *m) {
    int i = (int)stress_below(&m->rng, LOCKS);
    struct shared_pair *p = &pairs[i];
    bool writes = stress_chance(&m->rng, 30);
    unsigned how = (unsigned)stress_below(&m->rng, 6);
    double planned = 0, until = soon(m, &planned);
    stress_wait_begin(m->slot, writes ? "to write" : "to read", how == 1 ? planned : 0);
    int err;
    if (writes)
        err = how == 0   ? heist_rwlock_try_acquire_write(&p->lock)
              : how == 1 ? heist_rwlock_acquire_write_until(&p->lock, until)
                         : heist_rwlock_acquire_write(&p->lock);
    else
        err = how == 0   ? heist_rwlock_try_acquire_read(&p->lock)
              : how == 1 ? heist_rwlock_acquire_read_until(&p->lock, until)
                         : heist_rwlock_acquire_read(&p->lock);
    if (!took(m, RWLOCK, err, how == 1, how == 0)) return;
    int writers = writes ? s_add(&p->writers, 1) : s_get(&p->writers);
    int readers = writes ? s_get(&p->readers) : (s_add(&p->readers, 1), 0);
    stress_check(writers == 0 && readers == 0, "%d writers and %d readers beside one that %s", writers, readers,
                 writes ? "writes" : "reads");
    stress_check(p->a == p->b, "half of a write was seen");
    if (writes) p->a++;
    rest(m);
    if (writes) {
        p->b++;
        s_add(&write_count[i], 1);
        s_add(&p->writers, -1);
    } else {
        s_add(&p->readers, -1);
    }
    err = writes ? heist_rwlock_release_write(&p->lock) : heist_rwlock_release_read(&p->lock);
    stress_check(err == 0, "release answered %s", heist_error_name(err));
}

static void use_semaphore(struct member *m) {
    struct limited *l = &limits[stress_below(&m->rng, LOCKS)];
    unsigned how = (unsigned)stress_below(&m->rng, 6);
    double planned = 0, until = soon(m, &planned);
    stress_wait_begin(m->slot, "a permit", how == 1 ? planned : 0);
    int err = how == 0   ? heist_semaphore_try_acquire(&l->permits)
              : how == 1 ? heist_semaphore_acquire_until(&l->permits, until)
                         : heist_semaphore_acquire(&l->permits);
    if (!took(m, SEMAPHORE, err, how == 1, how == 0)) return;
    int inside = s_add(&l->inside, 1) + 1;
    stress_check(inside <= l->most, "%d inside with %d permits", inside, (int)l->most);
    rest(m);
    s_add(&l->inside, -1);
    err = heist_semaphore_release(&l->permits);
    stress_check(err == 0, "release of a permit answered %s", heist_error_name(err));
}

/* The lock, whatever it takes: some steps must be made. */
static void must_lock(heist_lock *lock) {
    while (heist_lock_acquire(lock) == -ECANCELED) continue;
}

static int has_piece(void *arg) {
    struct buffer *b = arg;
    return b->in > b->out || b->over;
}

static void use_condition(struct member *m) {
    bool brings = stress_chance(&m->rng, 50);
    struct buffer *b = &buffer;
    must_lock(&b->lock);
    double planned = 0, until = soon(m, &planned);
    bool timed = stress_chance(&m->rng, 15), asks = stress_chance(&m->rng, 30);
    int err = 0;
    while (err >= 0 && !b->over && (brings ? b->in - b->out >= BOX : b->in == b->out)) {
        stress_wait_begin(m->slot, brings ? "room in the buffer" : "a piece in the buffer", timed ? planned : 0);
        heist_condition *c = brings ? &b->not_full : &b->not_empty;
        err = !brings && asks ? timed ? heist_condition_wait_for_until(c, has_piece, b, until)
                                      : heist_condition_wait_for(c, has_piece, b)
              : timed ? heist_condition_wait_until(c, until)
                              : heist_condition_wait(c);
        stress_check(heist_lock_locked(&b->lock) == 1, "a wait came back without the lock");
        (void)took(m, CONDITION, err, timed, false);
    }
    if (err >= 0 && !b->over) {
        if (brings) {
            b->in++;
            s_add(&pieces_in, 1);
        } else {
            b->out++;
            s_add(&pieces_out, 1);
        }
        heist_condition *other = brings ? &b->not_empty : &b->not_full;
        err = stress_chance(&m->rng, 5) ? heist_condition_notify_all(other) : heist_condition_notify(other, 1);
        stress_check(err >= 0, "notify answered %s", heist_error_name(err));
    }
    err = heist_lock_release(&b->lock);
    stress_check(err == 0, "release after a wait answered %s", heist_error_name(err));
}

/* Waits for an event on its own stack, or sets another's. */
static void use_event(struct member *m) {
    struct mailbox *box = &mailbox;
    heist_event mine = HEIST_EVENT_INIT, *others = NULL;
    bool posted = false;
    must_lock(&box->lock);
    if (box->count && (box->count == BOX || stress_chance(&m->rng, 60))) {
        others = box->events[--box->count];
    } else if (!s_get(&over)) {
        box->events[box->count++] = &mine;
        posted = true;
    }
    heist_lock_release(&box->lock);
    if (others) heist_event_set(others); /* from here it may be gone */
    if (!posted) return;
    bool timed = stress_chance(&m->rng, 30);
    double planned = 0, until = soon(m, &planned);
    stress_wait_begin(m->slot, "an event", timed ? planned : 0);
    int err = timed ? heist_event_wait_until(&mine, until) : heist_event_wait(&mine);
    if (took(m, EVENT, err, timed, false)) {
        stress_check(heist_event_is_set(&mine) == 1, "a wait for an event ended before it was set");
    } else {
        bool there = false;
        must_lock(&box->lock);
        for (int i = 0; i < box->count && !there; i++)
            if (box->events[i] == &mine) {
                box->events[i] = box->events[--box->count];
                there = true;
            }
        heist_lock_release(&box->lock);
        /* Somebody has it in hand, and will set it. */
        while (!there && heist_event_is_set(&mine) != 1) (void)heist_yield();
    }
    memset(&mine, 0xff, sizeof(mine)); /* as whatever comes to lie here next */
}

struct child {
    heist_waitgroup *group;
    _Atomic(int) *ended;
};
static int child_body(void *arg, void **out) {
    struct child c = *(struct child *)arg;
    (void)out;
    s_add(c.ended, 1);
    (void)heist_waitgroup_done(c.group);
    return 0;
}

static void use_waitgroup(struct member *m) {
    enum { CHILDREN = 6 };
    heist_waitgroup group = HEIST_WAITGROUP_INIT;
    _Atomic(int) ended = 0;
    struct child c = {&group, &ended};
    int made = 0, n = 1 + (int)stress_below(&m->rng, CHILDREN);
    if (m->plain) return;
    (void)heist_waitgroup_add(&group, n);
    for (int i = 0; i < n; i++) {
        if (heist_create_task(child_body, &c, NULL, NULL) == 0) made++;
        else (void)heist_waitgroup_done(&group);
    }
    int err;
    do {
        stress_wait_begin(m->slot, "children", 0);
        err = heist_waitgroup_wait(&group);
    } while (!took(m, WAITGROUP, err, false, false));
    stress_check(s_get(&ended) == made, "a wait group let go on after %d of %d", s_get(&ended), made);
    memset(&group, 0xff, sizeof(group));
}

static int do_once(void *arg) {
    struct first *f = arg;
    int err = heist_yield();
    if (err < 0) return err;
    if (f->value++ % 3 != 2) return -EDOM; /* it takes three */
    stress_check(s_add(&f->done, 1) == 0, "done twice");
    return 0;
}

static void use_once(struct member *m) {
    struct first *f = &firsts[stress_below(&m->rng, LOCKS)];
    bool timed = stress_chance(&m->rng, 20);
    double planned = 0, until = soon(m, &planned);
    stress_wait_begin(m->slot, "once", timed ? planned : 0);
    int err = timed ? heist_once_call_until(&f->once, do_once, f, until) : heist_once_call(&f->once, do_once, f);
    if (err == -EDOM) {
        stress_wait_end(m->slot);
        return;
    }
    if (took(m, ONCE, err, timed, false))
        stress_check(f->value == 3 && heist_once_done(&f->once) == 1, "not done, and told so");
}

/* A party of the meeting: it meets the others to the end, so that nobody waits for one that has left. */
static void meet(struct member *m) {
    struct meeting *b = &meeting;
    for (long stage = 1;; stage++) {
        bool last = s_get(&over) && m->number == 0;
        b->stage[m->number] = last ? -stage : stage;
        for (int half = 0; half < 2; half++) {
            stress_wait_begin(m->slot, "the other parties", 0);
            int index = heist_barrier_wait(&b->barrier);
            stress_wait_end(m->slot);
            if (index < 0 || index >= b->parties) {
                stress_fail("a barrier answered %d", index);
                return;
            }
            if (half) {
                if (index == 0) s_set(&b->indices, 0); /* nobody adds to it before the next meeting of all */
                continue;
            }
            uint64_t others = atomic_fetch_or_explicit(&b->indices, UINT64_C(1) << index, memory_order_relaxed);
            stress_check(!(others >> index & 1), "index %d was given twice in a round", index);
            for (int i = 0; i < b->parties; i++)
                stress_check(labs(b->stage[i]) == stage, "party %d is in round %ld, and this is %ld", i,
                             labs(b->stage[i]), stage);
            s_add(&rounds_met, 1);
            stress_progress(1);
        }
        stress_wait_begin(m->slot, "the other parties, to look", 0);
        bool ends = b->stage[0] < 0;
        int index = heist_barrier_wait(&b->barrier); /* all have looked before anybody writes */
        stress_wait_end(m->slot);
        stress_check(index >= 0, "a barrier answered %s", heist_error_name(index));
        if (ends || index < 0) return;
        rest(m);
    }
}

static void act(struct member *m) {
    if (m->meets) {
        meet(m);
        return;
    }
    while (!s_get(&over)) {
        switch ((enum what)stress_below(&m->rng, WHATS)) {
            case RWLOCK: use_rwlock(m); break;
            case SEMAPHORE: use_semaphore(m); break;
            case CONDITION: use_condition(m); break;
            case EVENT: use_event(m); break;
            case WAITGROUP: use_waitgroup(m); break;
            case ONCE: use_once(m); break;
            case LOCK:
            default: /* mostly in a burst: two workers that meet again and again */
                for (int i = stress_chance(&m->rng, 10) ? 200 : 1; i > 0; i--) use_lock(m);
                break;
        }
        stress_progress(1);
        rest(m);
    }
}

static int act_body(void *arg, void **out) {
    struct member *m = arg;
    (void)out;
    act(m);
    s_set(&m->ended, true);
    return 0;
}
static void *act_thread(void *arg) {
    struct member *m = arg;
    act(m);
    s_set(&m->ended, true);
    return NULL;
}

static void *cancel_thread(void *arg) {
    struct stress_rng r = *(struct stress_rng *)arg;
    while (!s_get(&over)) {
        struct member *m = &members[stress_below(&r, (uint64_t)member_count)];
        if (!m->plain && !m->meets) (void)heist_cancel(m->task);
        stress_pause(&r, 1e-3);
    }
    return NULL;
}

static void dump(FILE *to) {
    for (int i = 0; i < LOCKS; i++)
        fprintf(to, "lock %d: %s; read-write lock: %zu read, %d write; permits %d of %d\n", i,
                heist_lock_locked(&locks[i].lock) ? "held" : "free", heist_rwlock_readers(&pairs[i].lock),
                heist_rwlock_writing(&pairs[i].lock), (int)heist_semaphore_value(&limits[i].permits),
                (int)limits[i].most);
    fprintf(to, "buffer: lock %s, %ld in, %ld out; mailbox: lock %s, %d; barrier: %d of %d\n",
            heist_lock_locked(&buffer.lock) ? "held" : "free", buffer.in, buffer.out,
            heist_lock_locked(&mailbox.lock) ? "held" : "free", mailbox.count,
            heist_barrier_n_waiting(&meeting.barrier), meeting.parties);
}

static void make_objects(struct stress_rng *rng) {
    for (int i = 0; i < LOCKS; i++) {
        locks[i] = (struct guarded){.lock = HEIST_LOCK_INIT};
        heist_rwlock_init(&pairs[i].lock);
        pairs[i].a = pairs[i].b = 0;
        limits[i].most = 1 + (int64_t)stress_below(rng, 4);
        if (heist_semaphore_init_bounded(&limits[i].permits, limits[i].most)) stress_die("a semaphore");
        heist_once_init(&firsts[i].once);
        firsts[i].value = 0;
        s_set(&firsts[i].done, 0);
        s_set(&lock_count[i], 0);
        s_set(&write_count[i], 0);
    }
    heist_lock_init(&buffer.lock);
    if (heist_condition_init(&buffer.not_empty, &buffer.lock) || heist_condition_init(&buffer.not_full, &buffer.lock))
        stress_die("a condition");
    buffer.in = buffer.out = 0;
    buffer.over = false;
    heist_lock_init(&mailbox.lock);
    mailbox.count = 0;
    s_set(&pieces_in, 0);
    s_set(&pieces_out, 0);
    memset(meeting.stage, 0, sizeof(meeting.stage));
    meeting.parties = 1 + (int)stress_below(rng, PARTIES_MOST);
    if (heist_barrier_init(&meeting.barrier, meeting.parties)) stress_die("a barrier");
    s_set(&meeting.indices, 0);
}

/* Ends what would wait for ever: those who wait for pieces, and events that nobody sets any more. */
static void end_waits(void) {
    must_lock(&buffer.lock);
    buffer.over = true;
    heist_condition_notify_all(&buffer.not_empty);
    heist_condition_notify_all(&buffer.not_full);
    heist_lock_release(&buffer.lock);
    must_lock(&mailbox.lock);
    while (mailbox.count) heist_event_set(mailbox.events[--mailbox.count]);
    heist_lock_release(&mailbox.lock);
}

static void check_objects(void) {
    stress_phase("what is left");
    for (int i = 0; i < LOCKS; i++) {
        stress_check(heist_lock_destroy(&locks[i].lock) == 0, "a lock is not free in the end");
        stress_check(locks[i].count == s_get(&lock_count[i]), "%ld under a lock, counted %ld", locks[i].count,
                     s_get(&lock_count[i]));
        stress_check(heist_rwlock_destroy(&pairs[i].lock) == 0, "a read-write lock is not free in the end");
        stress_check(pairs[i].a == s_get(&write_count[i]) && pairs[i].b == pairs[i].a, "writes were lost");
        stress_check(heist_semaphore_value(&limits[i].permits) == limits[i].most, "%d permits of %d are left",
                     (int)heist_semaphore_value(&limits[i].permits), (int)limits[i].most);
        stress_check(heist_semaphore_destroy(&limits[i].permits) == 0, "somebody waits for a permit in the end");
        stress_check(heist_once_destroy(&firsts[i].once) == 0, "a once is in use in the end");
        stress_check(s_get(&firsts[i].done) == heist_once_done(&firsts[i].once), "done, and not told so");
    }
    stress_check(heist_condition_destroy(&buffer.not_empty) == 0 && heist_condition_destroy(&buffer.not_full) == 0,
                 "somebody waits under a condition in the end");
    stress_check(heist_lock_destroy(&buffer.lock) == 0 && heist_lock_destroy(&mailbox.lock) == 0,
                 "a lock is not free in the end");
    stress_check(buffer.in == s_get(&pieces_in) && buffer.out == s_get(&pieces_out), "pieces were lost");
    stress_check(buffer.out <= buffer.in && buffer.in - buffer.out <= BOX, "the buffer holds %ld pieces",
                 buffer.in - buffer.out);
    stress_check(heist_barrier_destroy(&meeting.barrier) == 0, "somebody waits at the barrier in the end");
}

/* ---- first come, first served ----
 *
 * On one worker the order of the calls is the order in which they are queued, so the bound can be counted: while one
 * waits, each of the others has what it waits for at most once, however greedy they are.  (With more workers a call may
 * stand for long before it is queued, and nobody outside can tell, but by looking: see the next law.) */

#define FAIR_MOST 16
struct fair {
    heist_lock lock;
    heist_semaphore permits;
    int members;
    long locked, let_in; /* how often, by anybody */
    struct stress_rng rng[FAIR_MOST];
};
struct fair_member {
    struct fair *fair;
    int number;
};

static int takes_turns(void *arg, void **out) {
    struct fair_member *m = arg;
    struct fair *f = m->fair;
    struct stress_rng *rng = &f->rng[m->number];
    int err = 0;
    (void)out;
    for (int i = 0; i < 40 && !err; i++) {
        bool lock = stress_chance(rng, 60);
        /* A step of its own now and then: else a call may have to give way for its budget before it is queued. */
        if (i % 16 == 0 && (err = heist_yield())) break;
        long *count = lock ? &f->locked : &f->let_in, before = *count;
        err = lock ? heist_lock_acquire(&f->lock) : heist_semaphore_acquire(&f->permits);
        if (err) break;
        /* Each of the others once: one that was given it just before counts when it runs. */
        stress_check(*count - before <= f->members - 1, "while one waited the other %d had it %ld times",
                     f->members - 1, *count - before);
        ++*count;
        unsigned rests = (unsigned)stress_below(rng, 4);
        while (rests-- && !err) err = heist_yield();
        int ended = lock ? heist_lock_release(&f->lock) : heist_semaphore_release(&f->permits);
        if (!err) err = ended;
        if (stress_chance(rng, 20) && !err) err = heist_sleep((double)stress_below(rng, 50) * 1e-6);
    }
    return err;
}

static void first_come(struct stress_rng *rng) {
    struct fair f = {.lock = HEIST_LOCK_INIT, .members = 2 + (int)stress_below(rng, FAIR_MOST - 1)};
    struct fair_member member[FAIR_MOST];
    heist_task *task[FAIR_MOST];
    heist_runtime *rt = stress_runtime("fair", 1, NULL);
    stress_phase("first come, first served");
    if (heist_semaphore_init(&f.permits, 1 + (int)stress_below(rng, 3))) stress_die("a semaphore");
    for (int i = 0; i < f.members; i++) {
        f.rng[i] = stress_stream(rng, (uint64_t)(MEMBERS + 8 + i));
        member[i] = (struct fair_member){&f, i};
        int err = heist_runtime_run_coroutine(rt, takes_turns, &member[i], NULL, &task[i]);
        if (err < 0) stress_die("a member: %s", heist_strerror(err));
    }
    for (int i = 0; i < f.members; i++) {
        int err = heist_await(task[i], NULL);
        stress_check(err == 0, "a member ended with %s", heist_error_name(err));
        heist_unref(task[i]);
    }
    stress_runtime_end(rt);
    stress_check(heist_lock_destroy(&f.lock) == 0 && heist_semaphore_destroy(&f.permits) == 0, "somebody waits in the end");
}

/* ---- whoever stands in the queue is not passed ----
 *
 * On any number of workers: one that was seen in the queue of a semaphore or a read-write lock has it before all who
 * come after that.  Of a lock this is so for a pinned task; others may be passed while they are on their way. */

#define GREEDY 6
struct row {
    int kind; /* 0 semaphore, 1 read-write lock, 2 lock */
    heist_semaphore permit;
    heist_rwlock rwlock;
    heist_lock lock;
    _Atomic(int) served, passed;
};

static int row_acquire(struct row *r) {
    return r->kind == 0   ? heist_semaphore_acquire(&r->permit)
           : r->kind == 1 ? heist_rwlock_acquire_write(&r->rwlock)
                          : heist_lock_acquire(&r->lock);
}

static int row_release(struct row *r) {
    return r->kind == 0   ? heist_semaphore_release(&r->permit)
           : r->kind == 1 ? heist_rwlock_release_write(&r->rwlock)
                          : heist_lock_release(&r->lock);
}

static bool row_has_one(struct row *r) {
    char text[160];
    if (r->kind == 0) heist_semaphore_repr(&r->permit, text, sizeof text);
    else if (r->kind == 1) heist_rwlock_repr(&r->rwlock, text, sizeof text);
    else heist_lock_repr(&r->lock, text, sizeof text);
    return strstr(text, "waiters=1>") != NULL;
}

static int stands_first(void *arg, void **out) {
    struct row *r = arg;
    (void)out;
    int err = row_acquire(r);
    s_set(&r->served, 1);
    return err ? err : row_release(r);
}

static int pushes_in(void *arg, void **out) {
    struct row *r = arg;
    int err = 0;
    (void)out;
    for (int i = 0; i < 20 && !err; i++) {
        err = row_acquire(r);
        if (err) break;
        if (!s_get(&r->served)) s_add(&r->passed, 1);
        err = row_release(r);
        if (i % 4 == 3 && !err) err = heist_yield();
    }
    return err;
}

static void not_passed(struct stress_rng *rng) {
    struct row r = {.kind = (int)stress_below(rng, 3), .lock = HEIST_LOCK_INIT, .rwlock = HEIST_RWLOCK_INIT};
    heist_task *task[GREEDY + 1];
    heist_runtime *rt = stress_runtime("row", stress_draw_workers(rng), NULL);
    heist_task_options pinned = HEIST_TASK_OPTIONS_INIT;
    pinned.flags = HEIST_TASK_PINNED;
    stress_phase("whoever stands in the queue is not passed");
    if (heist_semaphore_init(&r.permit, 1) || row_acquire(&r)) stress_die("the first of a row");
    int n = 1 + (int)stress_below(rng, GREEDY);
    for (int i = 0; i <= n; i++) {
        bool first = i == 0;
        int err = heist_runtime_run_coroutine(rt, first ? stands_first : pushes_in, &r,
                                              first && r.kind == 2 ? &pinned : NULL, &task[i]);
        if (err < 0) stress_die("one of a row: %s", heist_strerror(err));
        while (first && !row_has_one(&r)) stress_block(0.00002);
    }
    stress_pause(rng, 0.0002);
    stress_check(row_release(&r) == 0, "the first of a row could not go");
    for (int i = 0; i <= n; i++) {
        int err = heist_await(task[i], NULL);
        stress_check(err == 0, "one of a row ended with %s", heist_error_name(err));
        heist_unref(task[i]);
    }
    stress_runtime_end(rt);
    stress_check(s_get(&r.passed) == 0, "of kind %d one was passed %d times in its queue", r.kind, s_get(&r.passed));
    stress_progress(1);
}

static void one_round(struct stress_rng *rng) {
    int workers = stress_draw_workers(rng), threads = 1 + (int)stress_below(rng, 4);
    int tasks = 2 + (int)stress_below(rng, 40), cancellers = (int)stress_below(rng, 3);
    bool two = stress_chance(rng, 50);
    double span = (double)stress_between(rng, 50, 400) * 1e-3;
    longest = (double)stress_between(rng, 1, 1000) * 1e-6;
    heist_runtime_options o = HEIST_RUNTIME_OPTIONS_INIT;
    stress_draw_watch(rng, &o);
    heist_runtime *rt[2];
    rt[0] = stress_runtime("members", workers, &o);
    rt[1] = two ? stress_runtime("others", stress_draw_workers(rng), NULL) : rt[0];
    make_objects(rng);
    stress_settings("workers %d, %d threads, %d tasks, %d parties, %d cancellers, %s", workers, threads, tasks,
                    meeting.parties, cancellers, two ? "two runtimes" : "one runtime");
    stress_phase("members");
    s_set(&over, false);
    member_count = threads + tasks + meeting.parties;
    for (int i = 0; i < member_count; i++) {
        struct member *m = &members[i];
        *m = (struct member){.rng = stress_stream(rng, (uint64_t)i), .slot = i};
        m->meets = i >= threads + tasks;
        m->number = i - threads - tasks;
        m->plain = i < threads || (m->meets && stress_chance(rng, 15));
    }
    for (int i = 0; i < member_count; i++) {
        struct member *m = &members[i];
        if (m->plain) {
            stress_thread(&m->thread, act_thread, m);
            continue;
        }
        heist_task_options t = HEIST_TASK_OPTIONS_INIT;
        t.flags = stress_chance(rng, 20) ? HEIST_TASK_PINNED : 0;
        int err = heist_runtime_run_coroutine(rt[stress_below(rng, 2)], act_body, m, &t, &m->task);
        if (err < 0) stress_die("a member: %s", heist_strerror(err));
    }
    pthread_t canceller[2];
    struct stress_rng streams[2];
    for (int i = 0; i < cancellers; i++) {
        streams[i] = stress_stream(rng, (uint64_t)(MEMBERS + i));
        stress_thread(&canceller[i], cancel_thread, &streams[i]);
    }
    double until = stress_now() + span;
    while (stress_now() < until && stress_going()) stress_block(0.002);
    stress_phase("the end of the members");
    s_set(&over, true);
    for (int i = 0; i < cancellers; i++) stress_join(canceller[i]);
    for (;;) {
        int left = 0;
        end_waits();
        for (int i = 0; i < member_count; i++)
            left += members[i].plain ? !s_get(&members[i].ended) : !heist_future_done(members[i].task);
        if (!left) break;
        stress_block(0.001);
    }
    for (int i = 0; i < member_count; i++) {
        struct member *m = &members[i];
        if (m->plain) {
            stress_join(m->thread);
            continue;
        }
        int err = heist_await(m->task, NULL);
        bool began = s_get(&m->ended); /* one that was cancelled before it began has not run */
        stress_check(err == 0 || (!began && err == -ECANCELED), "a member ended with %s", heist_error_name(err));
        heist_unref(m->task);
    }
    if (two) stress_runtime_end(rt[1]);
    stress_runtime_end(rt[0]);
    check_objects();
    first_come(rng);
    not_passed(rng);
}

int main(int argc, char **argv) {
    stress_begin(argc, argv, "sync", "one holder, enough permits, every wait answered; who gives up takes nothing");
    stress_on_stall(dump);
    struct stress_rng rng;
    while (stress_next_round(&rng)) one_round(&rng);
    for (int w = 0; w < WHATS; w++)
        stress_note("  %-16s taken %" PRIu64 ", cancelled %" PRIu64 ", late %" PRIu64 ", refused %" PRIu64,
                    what_name[w], s_get(&taken[w]), s_get(&cancelled[w]), s_get(&late[w]), s_get(&refused[w]));
    stress_note("  before one that waited for a lock at most %ld others had it", s_get(&most_before));
    stress_note("  barrier: %" PRIu64 " meetings of a party", s_get(&rounds_met));
    return stress_end();
}
