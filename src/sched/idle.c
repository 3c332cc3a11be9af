/* Searching, sleeping, and whom to wake.  The protocol and its proof: README.md. */
#include "sched/sched.h"

#include "arch/cpu.h"
#include "base/sys.h"

/* A sleeper that has tasks of others to watch looks this often. */
#define SENTINEL_NS 500000
/* Two of them: when one is called to work the other goes on looking, and no third needs to be woken for it.
 * (With one, two workers under a load of short requests woke each other at every turn.) */
#define SENTINELS 2
/* A sentinel whose last sleep was ended by work sets its first look later: to program a timer for each short
 * sleep cost the echo with two workers a fifth of its processor time, behind the kernel's own tick it is cheap. */
#define SENTINEL_BUSY_NS 4000000
/* Doubling from there, so many looks after everybody fell asleep: 64 ms in all. */
#define LINGER_LOOKS 7
/* A look before sleep: longer than a wake-up from sleep costs, short beside a turn of the kernel's clock. */
#define SPIN_MAX_NS 50000
#define SPIN_MIN_NS 2000
#define SPIN_FIRST_NS 10000
/* A sleep so short (with the time that the wake-up itself takes) would better have been a spin. */
#define SHORT_SLEEP_NS 100000

static bool anybody_asleep(heist_runtime *rt) {
    for (int i = 0; i < rt->regular; i++)
        if (a_load_sc(&rt->worker[i]->loop->sleeping) == HEIST__ASLEEP) return true;
    return false;
}

void heist__wake_searcher(heist_runtime *rt, int preferred) {
    if (rt->alone) { /* its one loop has every task pinned; nothing comes this way */
        heist__loop_wake(rt->worker[0]->loop);
        return;
    }
    for (;;) {
        if (a_load_sc(&rt->searching) || !a_load_sc(&rt->sleepers)) return;
        int none = 0;
        if (!a_cas_sc(&rt->searching, &none, 1)) return;
        struct heist__self *self = heist__self();
        int n = rt->regular, start = preferred >= 0 && preferred < n ? preferred : 0;
        for (int i = 0; i < n; i++) {
            struct heist__worker *v = rt->worker[(start + i) % n];
            if (!heist__loop_take_sleeper(v->loop, HEIST__TO_SEARCH)) continue;
            heist__wake_signal(&v->loop->wake);
            if (heist__worker_of(self, rt))
                a_store_rlx(&self->worker->wakeups, a_load_rlx(&self->worker->wakeups) + 1); /* rlx: a count */
            return;
        }
        a_sub_sc(&rt->searching, 1);
        /* Somebody may have relied on the search that did not come about, and somebody fallen asleep: look
         * again.  Who is awake, or getting up, looks by itself. */
        if (heist__mpsc_empty(&rt->inject) || !anybody_asleep(rt)) return;
    }
}

static bool start_search(struct heist__worker *w) {
    if (w->searching) return true;
    heist_runtime *rt = w->rt;
    int n = a_load_rlx(&rt->searching); /* rlx: a throttle, not a lock: half of the workers may search */
    if (2 * n >= rt->regular && n > 0) return false;
    a_add_sc(&rt->searching, 1);
    w->searching = true;
    return true;
}

void heist__search_ended(struct heist__worker *w) {
    w->searching = false;
    heist_runtime *rt = w->rt;
    /* The last searcher that finds work wakes the next, for its find may be one of many. */
    if (a_sub_sc(&rt->searching, 1) == 1 && a_load_sc(&rt->sleepers)) heist__wake_searcher(rt, -1);
}

static uint32_t next_random(struct heist__worker *w) {
    uint32_t x = w->random; /* xorshift32, Marsaglia 2003 */
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    return w->random = x;
}

/* What a thief takes from one victim. */
enum share {
    SURPLUS, /* what the victim is about to run itself is left to it */
    SHARE,   /* the same share, of everything that waits */
    MOST,    /* three quarters, of both deques */
    ALL,     /* each of its tasks is late already */
};

/* Of its stack one task (the oldest: the root of most work), and of one that is long up to 16; or up to half of
 * its queue.  From one that is stuck more, and of both.  A batch at most; more is there for the next thief. */
static bool steal_from(struct heist__worker *w, struct heist__worker *v, enum share share) {
    unsigned got = 0;
    for (int q = 0; q < 2 && (share >= MOST || !got); q++) {
        struct heist__deque *d = q ? &v->queue : &v->stack;
        size_t size = heist__deque_size(d);
        if (size <= (share != SURPLUS ? 0 : q ? a_load_rlx(&v->keeps) : HEIST__STACK_ALONE)) continue;
        size_t want = share == ALL    ? size
                      : share == MOST ? size - size / 4
                      : q             ? (size + 1) / 2
                      : size >= 64    ? 16
                                      : 1;
        unsigned before = got;
        if (want > 32) want = 32;
        while (got - before < want) {
            void *t;
            int r = heist__deque_steal(d, &t);
            if (r < 0) {
                heist__cpu_relax();
                if (got > before) break;
                continue;
            }
            if (!r) break;
            if (heist_unlikely(heist__deque_push(q ? &w->queue : &w->stack, t))) {
                heist_task *task = t;
                heist__mpsc_push(&w->rt->inject, &task->job.node); /* no memory: the list needs none */
            }
            got++;
        }
    }
    if (!got) return false;
    a_store_rlx(&w->stolen, a_load_rlx(&w->stolen) + got); /* rlx: a count; only we write it */
    return true;
}

static bool steal(struct heist__worker *w) {
    heist_runtime *rt = w->rt;
    int n = rt->workers, start = (int)(next_random(w) % (unsigned)n);
    for (int i = 0; i < n; i++) {
        struct heist__worker *v = rt->worker[(start + i) % n];
        if (v != w && steal_from(w, v, heist_unlikely(a_load_sc(&v->blocked)) ? ALL : SURPLUS)) return true;
    }
    return false;
}

bool heist__search(struct heist__worker *w) {
    if (w->alone || w->spare) return false;
    if (!start_search(w)) return false;
    /* One round: to go on looking is the business of spin(), which knows whether it pays. */
    return steal(w) || !heist__mpsc_empty(&w->rt->inject) || !heist__mpsc_empty(&w->loop->inbox);
}

/* A spare thread that only reports takes nothing over. */
static bool spare_helps(heist_runtime *rt) { return (rt->flags & HEIST_RUNTIME_SPARE_THREAD) || rt->regular > 1; }

/* Anything that a sleeper would have to get up for; *theirs: it stands with another worker.  Sequentially consistent
 * looks. */
static bool something_came(struct heist__worker *w, bool *theirs) {
    heist_runtime *rt = w->rt;
    if (w->loop->ready.count || !heist__deque_empty(&w->stack) || !heist__deque_empty(&w->queue)) return true;
    if (!heist__mpsc_empty(&w->loop->inbox) || (!w->spare && !heist__mpsc_empty(&rt->inject))) return true;
    if (a_load_sc(&w->loop->stop) || a_load_sc(&rt->stopping)) return true;
    if (w->until && a_load_sc(w->until)) return true;
    /* A close goes on when the last task has ended, or was refused, wherever that was seen. */
    if (a_load_sc(&rt->closing) &&
        ((!w->acked && !rt->alone) || (!rt->alone && !a_load_sc(&rt->acks) && !heist__live_tasks(rt))))
        return true;
    if (w->alone || (w->spare && !(a_load_sc(&rt->blocked) && spare_helps(rt)))) return false;
    for (int i = 0; i < rt->workers; i++) {
        struct heist__worker *v = rt->worker[i];
        bool all = v != w && a_load_sc(&v->blocked); /* it keeps nothing to itself */
        if (w->spare && !all) continue;
        if (heist__deque_size(&v->queue) > (all ? 0 : a_load_rlx(&v->keeps)) ||
            heist__deque_size(&v->stack) > (all ? 0 : HEIST__STACK_ALONE)) {
            *theirs = true;
            return true;
        }
    }
    return false;
}

/* Looks for a while before it sleeps, when that paid lately.  True: something came. */
static bool spin(struct heist__worker *w) {
    heist_runtime *rt = w->rt;
    /* With descriptors to watch the poll is the place to wait: a spin would not see them. */
    if (w->spin_ns < SPIN_MIN_NS || w->spare || rt->clock.virtual_time ||
        a_load_rlx(&w->loop->watched)) /* rlx: see loop.h */
        return false;
    int64_t end = heist__clock_now(&(struct heist__clock){0}) + w->spin_ns;
    do {
        for (int i = 0; i < 16; i++) {
            heist__cpu_relax();
            if (!heist__mpsc_empty(&w->loop->inbox) || !heist__mpsc_empty(&rt->inject)) {
                w->spin_ns = w->spin_ns * 2 < SPIN_MAX_NS ? w->spin_ns * 2 : SPIN_MAX_NS;
                return true;
            }
        }
        /* Whoever is to bring the work may be waiting for this very core. */
        heist__sys_yield();
    } while (heist__clock_now(&(struct heist__clock){0}) < end);
    w->spin_ns /= 2;
    return false;
}

/* Every worker sleeps, has found nothing to do, nothing has come for it since, and nobody does its work elsewhere.
 * Under virtual_lock. */
static bool all_settled(heist_runtime *rt) {
    if (a_load_sc(&rt->jobs_outside)) return false;
    for (int i = 0; i < rt->workers; i++) {
        struct heist__worker *v = rt->worker[i];
        if (!a_load_sc(&v->settled) || a_load_sc(&v->loop->sleeping) != HEIST__ASLEEP ||
            !heist__mpsc_empty(&v->loop->inbox))
            return false;
    }
    return heist__mpsc_empty(&rt->inject);
}

/* Virtual time: the last one awake moves the clock to the next timer of all.  True: time has moved. */
static bool advance_virtual_time(struct heist__worker *w) {
    heist_runtime *rt = w->rt;
    a_store_sc(&w->settled, 1);
    bool moved = false;
    heist__spin_lock(&rt->virtual_lock);
    if (all_settled(rt)) {
        int64_t next = INT64_MAX;
        for (int i = 0; i < rt->workers; i++) {
            heist_loop *loop = rt->worker[i]->loop;
            heist__spin_lock(&loop->timer_lock);
            int64_t deadline = heist__timers_next(&loop->timers);
            heist__spin_unlock(&loop->timer_lock);
            if (deadline < next) next = deadline;
        }
        if (next != INT64_MAX) {
            heist__clock_advance_to(&rt->clock, next);
            for (int i = 0; i < rt->workers; i++) {
                heist_loop *loop = rt->worker[i]->loop;
                heist__spin_lock(&loop->timer_lock);
                bool due = heist__timers_next(&loop->timers) <= next;
                heist__spin_unlock(&loop->timer_lock);
                if (!due) continue;
                if (loop == w->loop)
                    moved = true;
                else
                    heist__loop_wake(loop);
            }
        }
    }
    heist__spin_unlock(&rt->virtual_lock);
    return moved;
}

/* ---- those that are stuck ---- */

/* A worker that stood still for so long is stuck in a task or callback. */
#define STUCK_NS 400000
/* How often a worker that runs looks at the others, when no sentinel does. */
#define LOOK_NS 250000
/* From then on it takes all that such a worker has.  Before, most of it: steps of half a millisecond may be usual, and
 * two workers should not take everything from each other by turns. */
#define STUCK_LONG_NS 1000000

/* How long v has not moved, by what all those who look saw; 0 when it has, or sleeps.  Two may look at once: then
 * one of them may take an old value for a new one, and the next look begins afresh. */
static int64_t stood_still(struct heist__worker *v, int64_t now) {
    uint64_t moved = a_load_rlx(&v->tick) + a_load_rlx(&v->turns); /* rlx, as all here: a heuristic */
    if (a_load_rlx(&v->blocked)) a_store_rlx(&v->seen, moved);
    if (a_load_rlx(&v->seen) != moved || a_load_rlx(&v->loop->sleeping) == HEIST__ASLEEP) {
        a_store_rlx(&v->seen, moved);
        a_store_rlx(&v->seen_since, now);
        return 0;
    }
    int64_t stood = now - a_load_rlx(&v->seen_since);
    if (a_load_rlx(&v->blocked)) return stood > STUCK_LONG_NS ? stood : STUCK_LONG_NS; /* it has said so itself */
    return stood >= STUCK_NS ? stood : 0;
}

/* Woken to look after the others: their state now, so that the next look knows who has stood since. */
static void first_look(struct heist__worker *w) {
    int64_t now = heist__clock_now(&(struct heist__clock){0});
    for (int i = 0; i < w->rt->workers; i++)
        if (w->rt->worker[i] != w) stood_still(w->rt->worker[i], now);
}

/* A look at the workers that run: what one that is stuck cannot serve is served here.  True: there is work. */
static bool help_stuck(struct heist__worker *w, bool runs) {
    heist_runtime *rt = w->rt;
    bool helped = false, helps = !w->spare || spare_helps(rt);
    int64_t now = heist__clock_now(&(struct heist__clock){0}), next = INT64_MAX;
    int stuck = 0;
    w->polling = true;
    for (int i = 0; i < rt->workers; i++) {
        struct heist__worker *v = rt->worker[i];
        if (v == w) continue;
        if (rt->stuck_after_ns != INT64_MAX && !a_load_rlx(&v->blocked)) /* rlx: who has told is not reported */
            helped |= heist__monitor(w, v, now);
        int64_t stood = stood_still(v, now);
        if (!stood) { /* it runs, but has had more than it can do for a while */
            if (!runs && !w->spare && heist__deque_size(&v->queue) > 1 &&
                a_load_rlx(&v->loop->sleeping) != HEIST__ASLEEP) /* rlx: a heuristic */
                helped |= steal_from(w, v, SHARE);
            continue;
        }
        if (!helps) continue;
        stuck += !v->spare;
        a_store_rlx(&rt->stuck_seen_ns, now); /* rlx: how often to look */
        if (w->spare && !v->spare) w->loop->home = v->loop;
        helped |= steal_from(w, v, runs && stood < STUCK_LONG_NS ? MOST : ALL);
        helped |= heist__loop_rescue(v->loop);
        int64_t deadline = heist__loop_next_deadline(v->loop);
        if (deadline < next) next = deadline;
    }
    w->polling = false;
    w->next_rescue_ns = next;
    if (w->spare) {
        /* What comes from outside is for all, as long as one of them can take it. */
        w->relieves = stuck > 0;
        helped |= stuck == rt->regular && !heist__mpsc_empty(&rt->inject);
    }
    return helped;
}

/* ---- the spare thread ----
 *
 * One worker more than was asked for, whose only business is to be there when the others
 * are stuck.  It never searches, is not woken for work, and is not counted among the
 * sleepers, so the protocol of submission and sleep does not know it.  While any worker
 * runs it may be a sentinel like every sleeper; it sleeps for good when they do.  What it
 * takes from a stuck worker it runs, and what that makes ready, as long as one is stuck;
 * then it puts its tasks into the injection queue.  The waits of its tasks may still stand
 * on its own loop; when they end, their tasks go the same way.  Nothing else belongs to that
 * loop: what its tasks take for the running loop is the one of the worker they came from. */

/* Somebody has not moved since he was last seen to stand. */
static bool anybody_still_stuck(heist_runtime *rt) {
    for (int i = 0; i < rt->regular; i++) {
        struct heist__worker *v = rt->worker[i];
        if (a_load_rlx(&v->seen) == a_load_rlx(&v->tick) + a_load_rlx(&v->turns) && /* rlx: a heuristic */
            a_load_rlx(&v->loop->sleeping) != HEIST__ASLEEP)
            return true;
    }
    return false;
}

void heist__spare_turn(struct heist__worker *w) {
    heist_runtime *rt = w->rt;
    if (w->relieves && anybody_still_stuck(rt)) return;
    w->relieves = false;
    bool gave = false;
    for (int q = 0; q < 2; q++) {
        heist_task *t;
        while ((t = heist__deque_pop_top(q ? &w->stack : &w->queue))) {
            heist__mpsc_push(&rt->inject, &t->job.node);
            gave = true;
        }
    }
    if (gave) heist__wake_searcher(rt, -1);
}

/* ---- looks of those that run ---- */

bool heist__time_to_look(struct heist__worker *w) {
    heist_runtime *rt = w->rt;
    if (w->alone || a_load_rlx(&rt->sentinels)) return false; /* rlx: a heuristic, as all of this */
    return heist__clock_now(&(struct heist__clock){0}) >= w->next_look_ns;
}

void heist__look_after_others(struct heist__worker *w) {
    heist_runtime *rt = w->rt;
    if (w->alone || rt->clock.virtual_time || a_load_rlx(&rt->sentinels)) return; /* rlx: as above */
    int64_t now = heist__clock_now(&(struct heist__clock){0});
    if (now < w->next_look_ns) return;
    w->next_look_ns = now + LOOK_NS;
    help_stuck(w, true);
}

/* How long until a sentinel's next look. */
static int64_t look_period(struct heist__worker *w, int64_t now) {
    heist_runtime *rt = w->rt;
    /* sc: after the announcement, see blocking.c.  rlx: as above; somebody is stuck */
    if (heist_unlikely(a_load_sc(&rt->blocked)) || now - a_load_rlx(&rt->stuck_seen_ns) < 2 * SENTINEL_BUSY_NS) {
        int64_t until = w->next_rescue_ns - now; /* what is due already was not to be had, and waits for the look */
        return until > 0 && until < SENTINEL_NS ? until : SENTINEL_NS;
    }
    if (w->spare && !(rt->flags & HEIST_RUNTIME_SPARE_THREAD) && rt->regular == 1) {
        /* It only reports. */
        int64_t period = rt->stuck_after_ns / 4;
        return (period > SENTINEL_NS ? period : SENTINEL_NS) << w->lingers;
    }
    if (w->quiet) return (int64_t)SENTINEL_NS << w->lingers;
    /* A task that was just made, and left to the worker that made it. */
    for (int i = 0; i < rt->workers; i++)
        if (heist__deque_size(&rt->worker[i]->stack)) return SENTINEL_NS;
    return SENTINEL_BUSY_NS;
}

/* Stacks that nobody used for so long go back to the kernel, when there are more than a few. */
#define TRIM_NS 1000000000
#define TRIM_KEEP 256
#define TRIM_BATCH 8192 /* so many at a time, for some milliseconds */

/* How long to sleep; *sentinel when this worker looks after the others meanwhile. */
static int64_t sleep_time(struct heist__worker *w, int64_t now, bool *sentinel) {
    heist_runtime *rt = w->rt;
    int64_t deadline = heist__loop_next_deadline(w->loop), timeout = -1;
    if (deadline != INT64_MAX) timeout = deadline > now ? deadline - now : 0;
    if (!timeout || w->alone) return timeout;
    /* While others run there is a sentinel.  For a while after the last fell asleep too, for a load that
     * comes and goes; then the runtime is idle, and makes no system call. */
    bool all_asleep = a_load_sc(&rt->sleepers) + a_load_sc(&rt->spare_sleeps) + a_load_sc(&rt->looking) >= rt->workers;
    if (!all_asleep) w->lingers = 0;
    w->owes_watch = false; /* from here on it watches, or two do, or nobody is left to be watched */
    if (w->lingers >= LINGER_LOOKS) return timeout;
    int n = a_load_sc(&rt->sentinels), most = SENTINELS + (a_load_sc(&rt->blocked) > 0); /* those may sleep long yet */
    do {
        if (n >= most) return timeout;
    } while (!a_cas_sc(&rt->sentinels, &n, n + 1));
    *sentinel = true;
    int64_t period = look_period(w, now);
    if (all_asleep) w->lingers++;
    return timeout < 0 || timeout > period ? period : timeout;
}

/* Somebody who sleeps shall look after the others. */
void heist__call_watcher(struct heist__worker *w) {
    heist_runtime *rt = w->rt;
    for (int i = 0; i < rt->workers; i++) {
        heist_loop *other = rt->worker[i]->loop;
        if (other == w->loop || !heist__loop_take_sleeper(other, HEIST__TO_WATCH)) continue;
        heist__wake_signal(&other->wake);
        return;
    }
}

void heist__watch_handed_on(struct heist__worker *w) {
    w->owes_watch = false;
    if (!a_load_sc(&w->rt->sentinels)) heist__call_watcher(w);
}

/* One sleep: true when the sentinel's look found nothing, and it may go on sleeping. */
static bool sleep_once(struct heist__worker *w) {
    heist_runtime *rt = w->rt;
    heist_loop *loop = w->loop;
    heist__loop_announce(loop);
    if (w->looks) {
        w->looks = false;
        a_sub_sc(&rt->looking, 1);
    }
    if (w->searching) { /* after the announcement: who saw a searcher and woke nobody is seen below */
        w->searching = false;
        a_sub_sc(&rt->searching, 1);
    }
    int64_t timeout = 0, slept_at = 0;
    int events = 0;
    bool sentinel = false, trims = false, theirs = false;
    if (something_came(w, &theirs)) {
        /* up at once */
    } else if (rt->clock.virtual_time) {
        /* Descriptors first; then, if everybody sleeps, time moves. */
        w->polling = true;
        timeout = heist__loop_poll(loop, 0) > 0 || advance_virtual_time(w) ? 0 : -1;
        w->polling = false;
    } else {
        slept_at = heist__clock_now(loop->clock);
        timeout = sleep_time(w, slept_at, &sentinel);
        trims = !sentinel && (timeout < 0 || timeout > TRIM_NS) && heist__stack_trimmable() > TRIM_KEEP;
        if (trims) timeout = w->trimming ? TRIM_NS / 100 : TRIM_NS;
        w->trimming = trims;
    }
    if (timeout) {
        a_store_rlx(&w->sleeps, a_load_rlx(&w->sleeps) + 1); /* rlx: a count; only we write it */
        w->polling = true;
        events = heist__loop_poll(loop, timeout);
        w->polling = false;
    }
    if (rt->clock.virtual_time) a_store_sc(&w->settled, 0);
    int was = heist__loop_unannounce(loop);
    bool idle = false;
    if (trims && was == HEIST__ASLEEP && !events) {
        if (a_load_sc(&rt->sleepers) >= rt->regular - 1) heist__stack_trim_some(TRIM_BATCH);
        idle = true;
    } else if (sentinel) {
        a_sub_sc(&rt->sentinels, 1);
        w->quiet = was == HEIST__ASLEEP && !events;
        if (w->quiet) { /* as good as asleep: two of them that look at once do not keep each other from the end */
            a_add_sc(&rt->looking, 1);
            idle = !help_stuck(w, false) && heist__loop_next_deadline(loop) > heist__clock_now(loop->clock);
            w->looks = idle;
            if (!idle) a_sub_sc(&rt->looking, 1);
        }
    }
    if (!idle && was != HEIST__TO_WATCH && !w->alone && !rt->clock.virtual_time && !a_load_sc(&rt->sentinels)) {
        /* Up from a deep sleep, or no sentinel any more: should what comes now hold this thread, somebody must
         * look after the rest. */
        heist__call_watcher(w);
    }
    if (heist_unlikely(theirs && w->spare)) (void)help_stuck(w, false); /* it does not search */
    if (was == HEIST__TO_SEARCH) w->searching = true; /* counted by who woke us */
    if (was == HEIST__TO_WATCH) {
        w->owes_watch = true;
        if (heist_unlikely(a_load_sc(&rt->blocked)))
            (void)help_stuck(w, false); /* one of them has said that it will not move */
        else
            first_look(w);
    }
    /* Another's surplus, and the search may be closed to us: by one that was interrupted while it called a
     * searcher.  It needs a processor, perhaps this one. */
    if (theirs && was == HEIST__ASLEEP) heist__sys_yield();
    if (was != HEIST__ASLEEP && slept_at && timeout && w->spin_ns < SPIN_FIRST_NS &&
        heist__clock_now(loop->clock) - slept_at < SHORT_SLEEP_NS)
        w->spin_ns = SPIN_FIRST_NS; /* a short look would have spared this sleep */
    return idle;
}

void heist__sleep(struct heist__worker *w) {
    if (spin(w)) return; /* still counted as searching, if it was: nobody needs to wake it */
    while (sleep_once(w)) {}
}
