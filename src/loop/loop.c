/* The life of a loop, its inbox, its timers, and the steps of a turn.  See loop.h. */
#include "loop/loop.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fork.h"
#include "base/sys.h"
#include "loop/fds.h"
#include "loop/handle.h"
#include "loop/poller_uring.h"
#include "loop/reg.h"
#include "loop/sighandler.h"
#include "loop/watch.h"
#include "mem/slab.h"
#include "task/birth.h"
#include "task/derived.h"
#include "task/state.h"
#include "task/task.h"

#define FEEDS_END_NS 1000000

static _Atomic(uint64_t) last_id;
_Atomic(heist__loop_hook) heist__loop_life_hook;

static void call_life_hook(heist_loop *loop, bool shut) {
    heist__loop_hook hook = a_load_acq(&heist__loop_life_hook); /* acq: pairs with whoever set it */
    if (hook) hook(loop, shut);
}

int heist__loop_create(heist_runtime *rt, struct heist__worker *w, struct heist__clock *clock, _Atomic(int) *sleepers,
                       bool uring, heist_loop **out) {
    struct heist__self *self = heist__self();
    heist_loop *loop = heist__slab_get(self, HEIST__SLAB_LOOP);
    if (!loop) return -ENOMEM;
    /* Field by field: late readers may look at refs and id, which stay zero until the end. */
    loop->rt = rt;
    loop->worker = w;
    loop->clock = clock;
    loop->sleepers = sleepers;
    loop->max_inbox = 0;
    loop->alone = false;
    loop->home = loop;
    a_store_rlx(&loop->jobs, 0);
    a_store_rlx(&loop->in_callbacks, 0);
    a_store_rlx(&loop->callback, NULL);
    loop->ready = (struct heist__jobs){NULL, NULL, 0};
    loop->since_poll = 0;
    a_store_rlx(&loop->watched, 0);
    loop->fatal = 0;
    loop->announced = false;
    a_store_rlx(&loop->callbacks, 0); /* rlx, as all here: published by the id below and by *out */
    a_store_rlx(&loop->timers_fired, 0);
    a_store_rlx(&loop->io_events, 0);
    a_store_rlx(&loop->received, 0);
    heist__mpsc_init(&loop->inbox);
    a_store_rlx(&loop->inbox_count, 0);
    a_store_rlx(&loop->sleeping, 0);
    a_store_rlx(&loop->stop, 0);
    a_store_rlx(&loop->running, 0);
    a_store_rlx(&loop->closed, 0);
    a_store_rlx(&loop->debug, 0);
    a_store_rlx(&loop->slow_ns, 100000000);
    a_store_rlx(&loop->poll_failed, 0);
    loop->poll_pause = 0;
    /* Not timer_lock: zero in a fresh object, and a late cancel of a former loop's handle may hold an old one. */
    heist__spin_init(&loop->misc_lock);
    heist__timers_init(&loop->timers);
    a_store_rlx(&loop->armed, 0);
    loop->watches = NULL;
    loop->handler = NULL;
    loop->handler_user = NULL;
    int err = heist__poller_open(&loop->poller, uring);
    if (!err) {
        err = heist__wake_open(&loop->wake, &loop->poller);
        if (err) heist__poller_close(&loop->poller);
    }
    if (err) {
        heist__slab_put(self, HEIST__SLAB_LOOP, loop);
        return err;
    }
    heist__mutex_init(&loop->report_lock, true);
    a_store_rlx(&loop->id, a_add_rlx(&last_id, 1) + 1);
    a_store_rel(&loop->refs, 1); /* rel: pairs with try_ref */
    *out = loop;
    call_life_hook(loop, false);
    return 0;
}

bool heist__loop_try_ref(heist_loop *loop, uint64_t id) {
    uint64_t n = a_load_acq(&loop->refs); /* acq: pairs with create */
    while (n)
        if (a_cas_acq(&loop->refs, &n, n + 1)) {
            if (a_load_rlx(&loop->id) == id) return true; /* rlx: it cannot change while referenced */
            heist__loop_release(loop);
            return false;
        }
    return false;
}

/* The descriptors go with the last reference: a late waker must not write to a number that is another's. */
void heist__loop_release(heist_loop *loop) {
    if (a_sub_ar(&loop->refs, 1) != 1) return; /* ar: as every last reference */
    heist__wake_close(&loop->wake, &loop->poller);
    heist__poller_close(&loop->poller);
    a_store_rlx(&loop->id, 0);
    heist__mutex_destroy(&loop->report_lock);
    heist__slab_put(heist__self(), HEIST__SLAB_LOOP, loop);
}

static void drop_chain(struct heist__mpsc_node *n) {
    while (n) {
        struct heist__job *job = heist__job_of(n);
        n = n->next;
        job->klass->drop(job);
    }
}

static int poll_events(heist_loop *loop, int64_t timeout_ns, bool *wake_seen);

/* No request of a feed is out any more when this returns: the kernel ends what is cancelled, on the thread that had
 * begun it. */
static HEIST_COLD void shut_feeds(heist_loop *loop) {
    bool woken = false;
    while (heist__uring_shut(loop->poller.uring)) (void)poll_events(loop, FEEDS_END_NS, &woken);
}

void heist__loop_shut(heist_loop *loop) {
    if (loop->poller.uring && !heist__forked()) shut_feeds(loop);
    a_store_sc(&loop->closed, 1);
    heist__loop_log(loop, "loop %p is closed", (void *)loop);
    drop_chain(heist__mpsc_close(&loop->inbox));
    for (struct heist__job *job; (job = heist__jobs_pop(&loop->ready));) job->klass->drop(job);
    for (;;) {
        heist__spin_lock(&loop->timer_lock);
        struct heist__timer *t = heist__timers_pop_due(&loop->timers, INT64_MAX);
        heist__spin_unlock(&loop->timer_lock);
        if (!t) break;
        if (t->kind == HEIST__TIMER_ALARM) continue; /* of a scope that its task has left behind (sched/timeout.c) */
        /* Waits have ended with their tasks; only handles are left. */
        struct heist__job *job = &heist_container_of(t, struct heist__timed_handle, timer)->handle.job;
        job->klass->drop(job);
    }
    heist__watch_drop_all(loop);
    if (a_load_acq(&loop->watched)) heist__fds_strand(loop); /* acq: pairs with reg_wait, as in poll_events */
    heist__sighandler_drop_all(loop);
    call_life_hook(loop, true);
}

/* ---- submitting ---- */

bool heist__loop_wake(heist_loop *loop) {
    if (!heist__loop_take_sleeper(loop, HEIST__AWAKE)) return false;
    heist__wake_signal(&loop->wake);
    return true;
}

int heist__loop_push(heist_loop *loop, struct heist__job *job) {
    if (heist_unlikely(loop->max_inbox)) a_add_rlx(&loop->inbox_count, 1); /* rlx: a count alone */
    int pushed = heist__mpsc_push(&loop->inbox, &job->node);
    if (pushed == HEIST__MPSC_CLOSED) return HEIST_ECLOSED;
    /* Later pushers may rely on the first one's wake: the owner takes the list whole. */
    if (pushed == HEIST__MPSC_PUSHED_FIRST) heist__loop_wake(loop);
    return 0;
}

int heist__loop_post(heist_loop *loop, struct heist__job *job) {
    if (heist__self()->loop == loop && !a_load_rlx(&loop->closed)) { /* rlx: only this thread closes it */
        heist__loop_take_inbox(loop); /* earlier submissions come first */
        heist__jobs_append(&loop->ready, job);
        return 0;
    }
    return heist__loop_push(loop, job);
}

int heist__loop_post_checked(heist_loop *loop, uint64_t id, struct heist__job *job) {
    if (!heist__loop_try_ref(loop, id)) return HEIST_ECLOSED;
    int err = heist__loop_post(loop, job);
    heist__loop_release(loop);
    return err;
}

static void take_inbox(heist_loop *loop, bool locked) {
    if (heist__mpsc_empty(&loop->inbox)) return;
    size_t n = 0;
    struct heist__job *rescued = NULL; /* the latest first */
    bool lock = !locked, taken_under_lock = locked;
    struct heist__mpsc_node *node = heist__mpsc_take(&loop->inbox);
    while (node) {
        struct heist__job *job = heist__job_of(node);
        node = node->next;
        n++;
        bool arriving = job->klass == &heist__handle_arriving;
        if (heist_likely(!arriving && job->klass != &heist__handle_rescued)) {
            heist__jobs_append(&loop->ready, job);
        } else {
            if (!locked) heist__spin_lock(&loop->timer_lock);
            locked = true;
            if (arriving) {
                heist__handle_arm(heist_container_of(job, heist_handle, job), loop);
            } else {
                job->node.next = rescued ? &rescued->node : NULL;
                rescued = job;
            }
        }
        /* Before we had the lock a rescuer may have taken out more, which leaves later and so goes back before. */
        if (!node && rescued && !taken_under_lock) {
            taken_under_lock = true;
            if (!heist__mpsc_empty(&loop->inbox)) node = heist__mpsc_take(&loop->inbox);
        }
    }
    while (rescued) {
        heist_handle *h = heist_container_of(rescued, heist_handle, job);
        rescued = rescued->node.next ? heist__job_of(rescued->node.next) : NULL;
        heist__handle_put_back(h, loop);
    }
    if (lock && locked) heist__spin_unlock(&loop->timer_lock);
    if (loop->max_inbox) a_sub_rlx(&loop->inbox_count, n); /* rlx: a count alone */
    a_store_rlx(&loop->received, a_load_rlx(&loop->received) + n);
}

void heist__loop_take_inbox(heist_loop *loop) { take_inbox(loop, false); }

/* ---- timers ---- */

int64_t heist__loop_next_deadline(heist_loop *loop) {
    if (!a_load_rlx(&loop->armed)) return INT64_MAX; /* rlx: only the owner arms */
    heist__spin_lock(&loop->timer_lock);
    int64_t next = heist__timers_next(&loop->timers);
    heist__spin_unlock(&loop->timer_lock);
    return next;
}

/* A wait is over.  The claim fails when its waiter was woken otherwise, and waits for this lock to disarm;
 * or, in a rescue only, when it is still on its way to its park (ARMING): then the timer stays armed. */
static bool claim_wait(heist_loop *loop, struct heist__wait_timer *w) {
    for (;;) {
        if (heist__park_claim_parked(w->park, w->code)) return true;
        int64_t state = a_load_acq(&w->park->state); /* acq: pairs with the commit; looked at again */
        if ((state & HEIST__PARK_STATE) == HEIST__PARK_IDLE) return false;
        if (state != HEIST__PARK_ARMING) continue;
        heist__timers_add(&loop->timers, &w->timer, w->timer.deadline_ns);
        return false;
    }
}

/* The request of an alarm, under the lock: its task leaves the scope only after it has taken that lock to disarm, so
 * it lives, and finds the request counted.  The delivery comes after the lock, and needs the task alone. */
static heist_task *ring(struct heist__alarm *a) {
    a->fired = true;
    heist__cancel_request(a->task, &a->mark);
    return heist_ref(a->task);
}

/* Waits that fired: their claims are won under the lock, their wakes happen after it. */
#ifdef HEIST_MODEL
#define FIRE_BATCH 2 /* so that the edge between two batches is reached */
#else
#define FIRE_BATCH 64
#endif

/* By the owner; or by a rescuer, and then due handles go to the inbox, for their callbacks stay with the loop. */
static unsigned fire(heist_loop *loop, bool rescue) {
    int64_t now = heist__clock_now(loop->clock);
    unsigned fired = 0, woken_count = 0;
    for (bool more = true; more;) {
        struct heist__wait_timer *woken = NULL, **end = &woken;
        struct heist__jobs due = {NULL, NULL, 0};
        unsigned batch = 0;
        heist_task *asked = NULL; /* by an alarm, which ends the batch: it is not looked at after the lock */
        heist__spin_lock(&loop->timer_lock);
        /* What other threads armed before now, and what a rescuer took out, stands in the inbox. */
        if (!rescue) take_inbox(loop, true);
        struct heist__timer *t = NULL;
        while (batch < FIRE_BATCH && !asked && (t = heist__timers_pop_due(&loop->timers, now))) {
            batch++;
            if (t->kind == HEIST__TIMER_ALARM) {
                asked = ring(heist_container_of(t, struct heist__alarm, timer));
                continue;
            }
            if (t->kind == HEIST__TIMER_HANDLE) {
                struct heist__job *job = &heist_container_of(t, struct heist__timed_handle, timer)->handle.job;
                if (rescue) job->klass = &heist__handle_rescued;
                heist__jobs_append(rescue ? &due : &loop->ready, job);
                continue;
            }
            struct heist__wait_timer *w = heist_container_of(t, struct heist__wait_timer, timer);
            if (!claim_wait(loop, w)) {
                if (heist__timer_armed(t)) break; /* armed again: it would be popped for ever */
                continue;
            }
            *end = w;
            end = &w->next;
        }
        if (due.head) { /* open: its owner is alive, and stuck */
            if (loop->max_inbox) a_add_rlx(&loop->inbox_count, due.count); /* rlx: a count alone */
            heist__mpsc_push_chain(&loop->inbox, &due.head->node, &due.tail->node);
        }
        a_store_rlx(&loop->armed, heist__timers_count(&loop->timers)); /* rlx: a hint, see next_deadline */
        heist__spin_unlock(&loop->timer_lock);
        *end = NULL;
        if (due.head) heist__loop_wake(loop);
        more = batch == FIRE_BATCH || asked;
        fired += batch;
        if (asked) {
            heist__cancel_deliver(asked);
            heist_unref(asked);
            woken_count++;
        }
        for (; woken; woken_count++) {
            struct heist__park *park = woken->park;
            woken = woken->next;
            heist__park_wake(park);
        }
    }
    if (fired) a_add_rlx(&loop->timers_fired, fired); /* rlx: a count, which a rescuer raises too */
    return rescue ? woken_count : fired;
}

unsigned heist__loop_fire_timers(heist_loop *loop) {
    if (!a_load_rlx(&loop->armed)) return 0; /* rlx: as above */
    unsigned fired = fire(loop, false);
    return fired;
}

void heist__wait_timer_arm(struct heist__wait_timer *t, heist_loop *loop, struct heist__park *park, int64_t deadline_ns,
                           int code) {
    heist__timer_init(&t->timer, HEIST__TIMER_WAIT);
    t->loop = loop;
    t->park = park;
    t->code = code;
    heist__spin_lock(&loop->timer_lock);
    heist__timers_add(&loop->timers, &t->timer, deadline_ns);
    a_store_rlx(&loop->armed, heist__timers_count(&loop->timers)); /* rlx: a hint for the owner, who is here */
    heist__spin_unlock(&loop->timer_lock);
}

void heist__wait_timer_disarm(struct heist__wait_timer *t) {
    heist_loop *loop = t->loop;
    heist__spin_lock(&loop->timer_lock);
    if (heist__timers_remove(&loop->timers, &t->timer))
        /* rlx: may be old; the owner arms under the lock */
        a_store_rlx(&loop->armed, heist__timers_count(&loop->timers));
    heist__spin_unlock(&loop->timer_lock);
}

void heist__alarm_arm(struct heist__alarm *a, heist_loop *loop, heist_task *task, int64_t deadline_ns) {
    heist__timer_init(&a->timer, HEIST__TIMER_ALARM);
    a->loop = loop;
    a->task = task;
    a->fired = false;
    a->mark = 0;
    heist__spin_lock(&loop->timer_lock);
    heist__timers_add(&loop->timers, &a->timer, deadline_ns);
    a_store_rlx(&loop->armed, heist__timers_count(&loop->timers)); /* rlx: a hint for the owner, who is here */
    heist__spin_unlock(&loop->timer_lock);
}

bool heist__alarm_disarm(struct heist__alarm *a) {
    heist_loop *loop = a->loop;
    if (!loop) return false;
    a->loop = NULL;
    heist__spin_lock(&loop->timer_lock);
    bool fired = a->fired;
    if (!fired && heist__timers_remove(&loop->timers, &a->timer))      /* false: the loop was closed */
        a_store_rlx(&loop->armed, heist__timers_count(&loop->timers)); /* rlx: as in a wait's disarm */
    heist__spin_unlock(&loop->timer_lock);
    return fired;
}

bool heist__alarm_rang(struct heist__alarm *a) {
    if (!a->loop) return false;
    heist__spin_lock(&a->loop->timer_lock);
    bool fired = a->fired;
    heist__spin_unlock(&a->loop->timer_lock);
    return fired;
}

/* ---- descriptors ---- */

/* Events ahead, of the one that is handled: its registration is fetched, its waiter is fetched. */
#define EXPECT_FAR 12
#define EXPECT_NEAR 6

static inline void expect_far(const struct heist__poll_event *e) {
    if (e->data & HEIST__REG_TAG && e->data != HEIST__WAKE_DATA) heist__reg_expect_far(e->data & ~HEIST__REG_TAG);
}

static inline void expect_near(const struct heist__poll_event *e) {
    if (e->data & HEIST__REG_TAG && e->data != HEIST__WAKE_DATA) heist__reg_expect_near(e->data & ~HEIST__REG_TAG);
}

/* ---- a poller that fails ----
 *
 * Its descriptor was closed by somebody who closes what is not his, perhaps made into another file; or a filter for
 * system calls came later than the loop; or the kernel has no memory.  The exception handler is told, once until it
 * works again.  What does not need the poller goes on: for who would have slept in it sleeps on the wake-up descriptor
 * instead, for a while that doubles up to the limit, and then the poller is tried again. */
#define PAUSE_FIRST_NS 1000000
#define PAUSE_MOST_NS 100000000

static HEIST_COLD void report_poller(heist_loop *loop, int code) {
    heist_report report = HEIST_REPORT_INIT;
    report.message = "a loop cannot learn of its descriptors; what needs none goes on";
    report.code = code;
    heist__loop_post_report(loop, a_load_rlx(&loop->id), &report, NULL, NULL); /* rlx: it is referenced */
}

/* By the owner, or a rescuer, who does not wait. */
static HEIST_COLD void poll_failed(heist_loop *loop, int code, int64_t timeout_ns, bool *wake_seen) {
    if (!a_xchg_sc(&loop->poll_failed, code)) {
        report_poller(loop, code);
        *wake_seen = true; /* the report is ready to be run, perhaps */
        return;
    }
    if (!timeout_ns) return;
    int64_t pause = loop->poll_pause ? 2 * loop->poll_pause : PAUSE_FIRST_NS;
    loop->poll_pause = pause = pause > PAUSE_MOST_NS ? PAUSE_MOST_NS : pause;
    if (timeout_ns > 0 && timeout_ns < pause) pause = timeout_ns;
    int found = heist__sys_poll_for(loop->wake.fd, POLLIN, pause);
    if (found > 0 && found & POLLIN) {
        uint64_t content; /* elsewhere it is never read; what was there before only ends the first pause */
        ssize_t got = heist__sys_read(loop->wake.fd, &content, sizeof(content));
        (void)got;
        *wake_seen = true;
    } else if (found) {
        heist__sys_sleep(pause); /* that one is not ours either */
        *wake_seen = true;       /* perhaps */
    }
}

/* n events: it works again, or still has some in memory, which a ring gives out without the system. */
static HEIST_COLD void poll_went_well(heist_loop *loop, int n, int64_t timeout_ns) {
    if (!timeout_ns || (n && loop->poller.uring)) return;
    a_store_sc(&loop->poll_failed, 0);
    loop->poll_pause = 0;
}

static int poll_events(heist_loop *loop, int64_t timeout_ns, bool *wake_seen) {
    struct heist__poll_event events[HEIST__POLL_MAX];
    int n = heist__poller_wait(&loop->poller, events, HEIST__POLL_MAX, timeout_ns), seen = 0;
    if (heist_unlikely(n < 0)) poll_failed(loop, n, timeout_ns, wake_seen);
    else if (heist_unlikely(a_load_rlx(&loop->poll_failed))) poll_went_well(loop, n, timeout_ns); /* rlx: a hint */
    if (n > 0) (void)a_load_acq(&loop->watched); /* acq: pairs with reg_wait, which was on another thread perhaps */
    for (int i = 0; i < n && i < EXPECT_FAR; i++) expect_far(&events[i]);
    for (int i = 0; i < n && i < EXPECT_NEAR; i++) expect_near(&events[i]);
    for (int i = 0; i < n; i++) {
        if (i + EXPECT_FAR < n) expect_far(&events[i + EXPECT_FAR]);
        if (i + EXPECT_NEAR < n) expect_near(&events[i + EXPECT_NEAR]);
        if (heist_unlikely(events[i].completion)) {
            seen++;
            heist__ring_op_end((struct heist__ring_op *)(uintptr_t)events[i].data, (int)events[i].events);
            continue;
        }
        if (events[i].data == HEIST__WAKE_DATA) {
            *wake_seen = true;
            continue;
        }
        seen++;
        if (events[i].data & HEIST__REG_TAG)
            heist__reg_event(events[i].data & ~HEIST__REG_TAG, events[i].events);
        else
            heist__watch_event(loop, events[i].data, events[i].events);
    }
    if (seen) a_add_rlx(&loop->io_events, (unsigned)seen); /* rlx: as timers_fired */
    return seen;
}

/* In debug mode, by the machine's time. */
static HEIST_COLD int poll_watched(heist_loop *loop, int64_t timeout_ns, bool *woken) {
    static struct heist__clock machine; /* zero: not virtual */
    int64_t start = heist__clock_now(&machine);
    int seen = poll_events(loop, timeout_ns, woken);
    int64_t took = heist__clock_now(&machine) - start;
    if (took < a_load_rlx(&loop->slow_ns)) return seen; /* rlx: a setting */
    heist__log(HEIST__LOG_DEBUG, "loop %p: a poll took %.3f s (limit %.3f): %d events", (void *)loop,
               heist__seconds_from_ns(took), timeout_ns < 0 ? (double)INFINITY : heist__seconds_from_ns(timeout_ns),
               seen);
    return seen;
}

int heist__loop_poll(heist_loop *loop, int64_t timeout_ns) {
    bool woken = false;
    loop->since_poll = 0;
    if (heist__loop_debugs(loop)) return poll_watched(loop, timeout_ns, &woken) + woken;
    return poll_events(loop, timeout_ns, &woken) + woken;
}

bool heist__loop_rescue(heist_loop *loop) {
    bool woken = false;
    unsigned fired = a_load_rlx(&loop->armed) ? fire(loop, true) : 0; /* rlx: looked at again soon */
    int seen = a_load_rlx(&loop->watched) ? poll_events(loop, 0, &woken) : 0; /* rlx: as above */
    /* An edge of the wake-up descriptor was meant for the owner, who may just be falling asleep. */
    if (woken) heist__wake_signal(&loop->wake);
    return fired || seen;
}

/* ---- running ---- */

#define READY_MAX 64

size_t heist__loop_run_ready(heist_loop *loop) {
    size_t n = loop->ready.count, ran = 0;
    /* A loop that stands alone runs the whole batch, as asyncio does.  A worker has tasks beside it, and
     * descriptors: what is left stays at the head. */
    if (!loop->alone && n > READY_MAX) n = READY_MAX;
    if (!n) return 0;
    bool monitored = heist_unlikely(a_load_rlx(&loop->debug) & HEIST__MONITORED); /* rlx: a setting */
    if (monitored) a_store_rlx(&loop->in_callbacks, 1); /* rlx, as below: for the monitor */
    while (ran < n && !loop->fatal) {
        struct heist__job *job = heist__jobs_pop(&loop->ready);
        ran++;
        if (heist_unlikely(monitored)) a_store_rlx(&loop->jobs, a_load_rlx(&loop->jobs) + 1);
        job->klass->run(job, loop);
        if (heist_unlikely(heist__forked())) heist__forked_end(); /* a callback forked and returned */
    }
    if (monitored) a_store_rlx(&loop->in_callbacks, 0);
    if (ran) {
        loop->since_poll += (unsigned)ran;
        a_store_rlx(&loop->callbacks, a_load_rlx(&loop->callbacks) + ran);
    }
    return ran;
}

/* ---- questions ---- */

int heist_loop_is_running(const heist_loop *loop) {
    if (!loop) return -EINVAL;
    /* acq: pairs with the run call's stores */
    return a_load_acq(&((heist_loop *)(uintptr_t)loop)->running) == HEIST__RUNS;
}

int heist_loop_is_closed(const heist_loop *loop) {
    if (!loop) return -EINVAL;
    return a_load_acq(&((heist_loop *)(uintptr_t)loop)->closed) != 0; /* acq: pairs with shut */
}

const char *heist_loop_backend(const heist_loop *loop) {
    return !loop ? NULL : loop->poller.uring ? "io_uring" : "epoll";
}

int heist_loop_set_debug(heist_loop *loop, int on) {
    if (!loop) return -EINVAL;
    int monitored = a_load_rlx(&loop->debug) & HEIST__MONITORED; /* since birth */
    a_store_rlx(&loop->debug, monitored | (on ? HEIST__DEBUG : 0)); /* rlx: settings */
    if (on) a_store_rlx(loop->care, 1);
    return 0;
}

int heist_loop_get_debug(const heist_loop *loop) {
    return loop ? a_load_rlx(&((heist_loop *)(uintptr_t)loop)->debug) & HEIST__DEBUG : -EINVAL; /* rlx: as above */
}

int heist_loop_set_slow_callback_duration(heist_loop *loop, double seconds) {
    if (!loop || !(seconds >= 0)) return -EINVAL;
    int64_t ns = heist__ns_from_seconds(seconds);
    a_store_rlx(&loop->slow_ns, ns > 0 ? ns : 1); /* rlx: as above; 0 would mean off */
    return 0;
}

static int future_new(heist_loop *loop, struct heist__derived *derived, const void *maker, heist_future **out) {
    if (heist__fork_guard()) return -ENOMEM;
    if (heist__forked()) return HEIST_EFORKED;
    if (loop && a_load_acq(&loop->closed)) return HEIST_ECLOSED; /* acq: pairs with shut */
    if (!loop && (loop = heist__self()->loop)) loop = loop->home;
    /* rlx: the loop is referenced, its id stands */
    heist_future *f = heist__future_alloc(heist__self(), loop, loop ? a_load_rlx(&loop->id) : 0);
    if (!f) return -ENOMEM;
    f->arg = derived;
    if (loop && heist_unlikely(a_load_rlx(&loop->debug) & HEIST__DEBUG)) /* rlx: a setting */
        heist__birth_note(f, maker);
    heist__state_born(f, derived ? HEIST__F_DERIVED : 0, derived ? 2 : 1);
    *out = f;
    return 0;
}

int heist_future_new(heist_loop *loop, heist_future **out) {
    return out ? future_new(loop, NULL, __builtin_return_address(0), out) : -EINVAL;
}

int heist__derived_new(heist_loop *loop, struct heist__derived *d, heist_future **out) {
    return future_new(loop, d, __builtin_return_address(0), out);
}

int heist_loop_create_future(heist_loop *loop, heist_future **out) {
    return loop && out ? future_new(loop, NULL, __builtin_return_address(0), out) : -EINVAL;
}
