/* stress/stress_timers.c: timers, while the wall clock jumps.
 *
 * Law: a timer that was accepted fires once, or is cancelled once, or its loop closes;
 * its argument is freed once, after that.  None fires early, whatever the wall clock
 * does meanwhile.  On one loop they fire in the order of their deadlines, equal ones in
 * the order of their making.  What waits with a deadline in a task or a plain thread
 * (sleep, await, send, receive) never gives up before it, and does give up.
 * Threads: armers and sleepers (plain threads, tasks, callbacks), one that steps the
 * wall clock, the workers, and a thread for each loop that stands alone.
 * Invariant: a slot of `timers` belongs to the armer that took it until its call has
 * returned; the loop's thread writes fired_at and place, and main reads them after the
 * round's joins. */
#include "common.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define MOST_TIMERS 40000
#define MOST_TRACKS 20
#define ARMERS 12
#define SLEEPERS 80
#define HARDLY 1e-9 /* seconds as double are exact to far less than the nanosecond that clocks count in */

/* ---- the wall clock: what this program, the library in it, and the C library's callers see ---- */

/* The clock of the machine is not touched.  These definitions stand in front of the C library's: who asks for the
 * wall clock is told a time that jumps by up to ten years, in both directions; the other clocks are passed through. */
static _Atomic(int64_t) wall_offset_ns;
static _Atomic(uint64_t) wall_reads, wall_steps;

static int64_t true_ns(clockid_t id) {
    struct timespec t = {0, 0};
    syscall(SYS_clock_gettime, id, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int64_t wall_ns(void) {
    s_add(&wall_reads, 1);
    return true_ns(CLOCK_REALTIME) + s_get(&wall_offset_ns);
}

int clock_gettime(clockid_t id, struct timespec *t) {
    if (id != CLOCK_REALTIME && id != CLOCK_REALTIME_COARSE && id != CLOCK_TAI)
        return (int)syscall(SYS_clock_gettime, id, t);
    int64_t ns = wall_ns();
    t->tv_sec = ns / 1000000000;
    t->tv_nsec = ns % 1000000000;
    return 0;
}

int gettimeofday(struct timeval *restrict t, void *restrict zone) {
    (void)zone;
    int64_t ns = wall_ns();
    t->tv_sec = ns / 1000000000;
    t->tv_usec = ns % 1000000000 / 1000;
    return 0;
}

time_t time(time_t *out) {
    time_t t = wall_ns() / 1000000000;
    if (out) *out = t;
    return t;
}

/* That they do stand in front: else the program would show nothing. */
static void check_wall(void) {
    const int64_t far = INT64_C(3600) * 1000000000;
    int (*volatile asked)(clockid_t, struct timespec *) = clock_gettime;
    struct timespec t = {0, 0};
    struct timeval v = {0, 0};
    s_set(&wall_offset_ns, far);
    int64_t truth = true_ns(CLOCK_REALTIME) / 1000000000;
    asked(CLOCK_REALTIME, &t);
    gettimeofday(&v, NULL);
    stress_check(t.tv_sec - truth >= 3599 && v.tv_sec - truth >= 3599 && time(NULL) - truth >= 3599,
                 "the wall clock cannot be stepped here: nothing was tried");
    s_set(&wall_offset_ns, 0);
    s_set(&wall_reads, 0);
}

static _Atomic(bool) stepping;

static void *step_wall(void *arg) {
    struct stress_rng r = *(struct stress_rng *)arg;
    while (s_get(&stepping)) {
        static const double reach[] = {1e-3, 1, 60, 3600, 86400, 3e8}; /* up to ten years */
        double by = reach[stress_below(&r, 6)] * ((double)stress_below(&r, 2001) / 1000 - 1);
        s_set(&wall_offset_ns, (int64_t)(by * 1e9));
        s_add(&wall_steps, 1);
        stress_block((double)stress_between(&r, 50, 5000) * 1e-6);
    }
    s_set(&wall_offset_ns, 0);
    return NULL;
}

/* ---- loops ---- */

struct track {
    heist_loop *loop;
    bool alone, driven;
    pthread_t thread; /* alone: what runs it */
    uint32_t fired;   /* the loop's thread only */
};

static struct track tracks[MOST_TRACKS];
static int track_count;
static heist_runtime *rt;
static bool virtual_time;

static void *run_alone(void *arg) {
    struct track *k = arg;
    int err = heist_loop_run_forever(k->loop);
    stress_check(err == 0, "run_forever answered %s", heist_error_name(err));
    return NULL;
}

/* A foreign loop sleeps as long as it was told, in whole milliseconds. */
static void *drive_alone(void *arg) {
    struct track *k = arg;
    int fd = heist_loop_fd(k->loop), stop = 0;
    stress_check(fd >= 0, "a loop's descriptor: %s", heist_error_name(fd));
    while (stop == 0 && fd >= 0) {
        double timeout = 0;
        stop = heist_loop_run_once(k->loop, &timeout);
        stress_check(stop >= 0, "run_once answered %s", heist_error_name(stop));
        if (stop != 0) break;
        struct pollfd p = {fd, POLLIN, 0};
        int ms = timeout > 1e6 ? -1 : (int)ceil(timeout * 1e3);
        if (poll(&p, 1, ms) < 0 && errno != EINTR) stress_die("poll: %s", strerror(errno));
    }
    return NULL;
}

/* ---- timers ---- */

struct timer {
    struct track *track;
    double lo;               /* not before it */
    double earliest, latest; /* the instant that was accepted lies between; read when all have ended */
    double began, accepted;  /* the loop's time before the call and after it */
    bool far;                /* will not be due in this life */
    _Atomic(heist_handle *) handle;
    _Atomic(int) accepts, fires, cancels, frees;
    _Atomic(bool) inside;
    double fired_at;
    uint32_t place; /* among those that fired on the track, from 1 */
};

static struct timer *timers;
static uint32_t timer_count;
static _Atomic(uint32_t) next_slot;
static _Atomic(int64_t) near_open; /* neither fired nor cancelled nor refused */
static _Atomic(bool) closing;      /* refusals are to be expected */
static double span;                /* most timers are due within it */
static double grid;                /* instants are rounded up to this, so that many are equal; 0: not */
static double round_end;           /* real time */
static uint64_t equal_deadlines, total_fired, total_cancelled, total_closed;
static unsigned lazy;

static void arm(struct stress_rng *r, struct track *here);

static void free_timer(void *arg) {
    struct timer *t = *(struct timer **)arg;
    int before = s_add(&t->frees, 1);
    stress_check(before == 0, "an argument was freed %d times", before + 1);
    stress_check(!s_get(&t->inside), "an argument was freed under its callback");
    free(arg);
}

static void cancel_one(struct timer *t) {
    heist_handle *h = s_observe(&t->handle);
    if (!h) return;
    int answer = heist_handle_cancel(h);
    stress_check(answer == 0 || answer == 1, "cancel answered %d", answer);
    if (answer != 1) return;
    int before = s_add(&t->cancels, 1);
    stress_check(before == 0, "a timer was cancelled %d times", before + 1);
    stress_check(heist_handle_cancelled(h) == 1, "a cancelled handle does not say so");
    if (!t->far) s_add(&near_open, -1);
}

static int fire(void *arg) {
    struct timer *t = *(struct timer **)arg;
    struct track *k = t->track;
    double now = stress_now(), loop_now = heist_loop_time(k->loop);
    s_set(&t->inside, true);
    int before = s_add(&t->fires, 1);
    stress_check(before == 0, "a timer fired %d times", before + 1);
    stress_check(s_get(&t->cancels) == 0, "a timer fired after it was cancelled");
    stress_check(loop_now >= t->lo - HARDLY, "a timer fired %.9f s early by the loop's clock", t->lo - loop_now);
    if (!virtual_time) stress_check(now >= t->lo - HARDLY, "a timer fired %.9f s early", t->lo - now);
    t->fired_at = loop_now;
    t->place = ++k->fired;
    if (!virtual_time) stress_latency(now - t->lo);
    stress_progress(1);
    struct stress_rng r = {stress_mix(t->place, (uint64_t)(t - timers) ^ stress_opt.seed)};
    switch (stress_below(&r, 64)) {
        case 0: stress_block((double)stress_between(&r, 10, 3000) * 1e-6); break; /* several fall due meanwhile */
        case 1:
        case 2: stress_spin((double)stress_between(&r, 1, 100) * 1e-6); break;
        case 3:
        case 4:
        case 5:
        case 6: cancel_one(&timers[stress_below(&r, timer_count)]); break; /* perhaps one of this very pass */
        case 7:
        case 8:
        case 9:
        case 10: arm(&r, k); break;
        default: break;
    }
    s_set(&t->inside, false);
    if (!t->far) s_add(&near_open, -1);
    return 0;
}

/* Takes a slot and arms it, from wherever the caller is. */
static void arm(struct stress_rng *r, struct track *here) {
    if (s_get(&closing)) return; /* refused slots would say little; a race with the close is left */
    uint32_t slot = s_add(&next_slot, 1);
    if (slot >= timer_count) {
        s_set(&next_slot, timer_count);
        return;
    }
    struct timer *t = &timers[slot];
    t->track = here && stress_chance(r, 50) ? here : &tracks[stress_below(r, (uint64_t)track_count)];
    heist_loop *loop = t->track->loop;
    struct timer **arg = stress_alloc(sizeof *arg);
    *arg = t;
    heist_call_options o = HEIST_CALL_OPTIONS_INIT;
    o.arg_free = free_timer;
    o.name = "timer";
    heist_handle *h = NULL;
    bool unread = stress_chance(r, 15);
    t->far = stress_chance(r, 5);
    heist_handle **out = unread ? NULL : &h;
    double delay = span * (double)stress_between(r, 0, 4096) / 4096;
    if (stress_chance(r, 5)) delay = -delay; /* due at once */
    if (t->far) {
        static const double away[] = {3600, 1e5, 1e6};
        delay = virtual_time || stress_chance(r, 25) ? HEIST_FOREVER : away[stress_below(r, 3)];
    } else {
        s_add(&near_open, 1);
    }
    int err;
    bool at = stress_chance(r, 60) || grid > 0;
    s_publish(&t->accepts, 1); /* what the callback may look at stands */
    if (at) {
        double when = heist_loop_time(loop) + delay;
        if (grid > 0 && !t->far) when = ceil(when / grid) * grid;
        t->lo = when;
        t->began = heist_loop_time(loop);
        err = heist_loop_call_at(loop, when, fire, arg, &o, out);
        t->accepted = heist_loop_time(loop);
    } else {
        t->began = heist_loop_time(loop);
        t->lo = t->began + delay;
        err = heist_loop_call_later(loop, delay, fire, arg, &o, out);
        t->accepted = heist_loop_time(loop);
    }
    if (err < 0) {
        stress_check(s_get(&closing) && err == HEIST_ECLOSED, "a timer was refused with %s", heist_error_name(err));
        s_set(&t->accepts, 0);
        free(arg);
        if (!t->far) s_add(&near_open, -1);
        return;
    }
    if (h) {
        double when = heist_handle_when(h);
        double least = at ? t->lo : t->lo - HARDLY, most = at ? t->lo : t->accepted + delay + HARDLY;
        /* what lies beyond the clock's range (292 years) is for ever */
        stress_check(isinf(delay) ? when > 9e9 : when >= least - HARDLY && when <= most + HARDLY,
                     "a handle says %.9f, asked for was %.9f to %.9f", when, least, most);
        t->latest = t->earliest = when;
        s_publish(&t->handle, h);
    } else {
        t->earliest = t->lo;
        t->latest = at ? t->lo : t->accepted + delay;
    }
}

/* ---- armers ---- */

struct armer {
    struct stress_rng rng;
    uint32_t quota;
    heist_task *task;
    pthread_t thread;
};
static struct armer armers[ARMERS];

static void *armer_thread(void *arg) {
    struct armer *a = arg;
    for (uint32_t i = 0; i < a->quota && !s_get(&closing) && stress_going(); i++) {
        arm(&a->rng, NULL);
        if (stress_chance(&a->rng, 20)) cancel_one(&timers[stress_below(&a->rng, timer_count)]);
        if (stress_below(&a->rng, 1000) < lazy) stress_pause(&a->rng, 2e-3);
    }
    return NULL;
}

static int armer_body(void *arg, void **out) {
    (void)out;
    struct armer *a = arg;
    for (uint32_t i = 0; i < a->quota && !s_get(&closing) && stress_going(); i++) {
        heist_loop *loop = NULL;
        struct track *here = NULL;
        if (heist_get_running_loop(&loop) == 0)
            for (int k = 0; k < track_count; k++)
                if (tracks[k].loop == loop) here = &tracks[k];
        arm(&a->rng, here);
        if (stress_chance(&a->rng, 20)) cancel_one(&timers[stress_below(&a->rng, timer_count)]);
        int err = 0;
        if (stress_below(&a->rng, 1000) < lazy) err = heist_sleep((double)stress_between(&a->rng, 1, 2000) * 1e-6);
        else if (i % 64 == 63) err = heist_yield();
        stress_check(err == 0 || (err == -ECANCELED && s_get(&closing)), "a pause answered %s", heist_error_name(err));
        if (err < 0) break;
    }
    return 0;
}

/* ---- sleepers ---- */

struct sleeper {
    int slot;
    bool plain;
    struct stress_rng rng;
    heist_task *task;
    pthread_t thread;
    _Atomic(bool) asked; /* to cancel */
    _Atomic(int) woken;  /* by that */
};
static struct sleeper sleepers[SLEEPERS];
static int sleeper_count;
static heist_future *never;
static heist_channel *empty;
static _Atomic(uint64_t) slept;

static void sleep_on(struct sleeper *s) {
    while (stress_now() < round_end && stress_going()) {
        struct stress_rng *r = &s->rng;
        double delay = span * (double)stress_between(r, 0, 4096) / 4096, before = heist_time(), when = before + delay;
        int err = 0, want = -ETIMEDOUT;
        void *item = NULL;
        stress_wait_begin(s->slot, "a wait with a deadline", virtual_time && !s->plain ? 0 : delay);
        switch (stress_below(r, 5)) {
            case 0: err = heist_sleep(delay), want = 0; break;
            case 1: err = heist_sleep_until(when), want = 0; break;
            case 2: err = heist_await_until(never, when, NULL); break;
            case 3: err = heist_channel_recv_until(empty, &item, when); break;
            default: err = heist_channel_recv_until(empty, &item, when); break;
        }
        stress_wait_end(s->slot);
        double after = heist_time();
        if (err == -ECANCELED) {
            /* one request by the round, one by the close */
            int requests = (s_get(&s->asked) ? 1 : 0) + (s_get(&closing) ? 1 : 0), woken = s_add(&s->woken, 1) + 1;
            stress_check(woken <= requests, "%d requests to cancel were delivered, %d were made", woken, requests);
            stress_check(!s->plain, "a wait of a plain thread was cancelled");
            if (s_get(&closing)) return;
            continue;
        }
        stress_check(err == want, "a wait answered %s", heist_error_name(err));
        if (err != want) return;
        stress_check(after >= when - HARDLY, "a wait ended %.9f s early", when - after);
        if (!virtual_time) stress_latency(after - when);
        s_add(&slept, 1);
        stress_progress(1);
        /* in virtual time nothing else may make time pass: a wait that is due at once leaves the others their turn */
        if (virtual_time && !s->plain && heist_yield() < 0) return;
    }
}

static int sleeper_body(void *arg, void **out) {
    (void)out;
    sleep_on(arg);
    return 0;
}

static void *sleeper_thread(void *arg) {
    sleep_on(arg);
    return NULL;
}

/* ---- the books of a round ---- */

static int by_place(const void *a, const void *b) {
    const struct timer *x = *(struct timer *const *)a, *y = *(struct timer *const *)b;
    if (x->track != y->track) return x->track < y->track ? -1 : 1;
    return x->place < y->place ? -1 : x->place > y->place;
}

static int by_instant(const void *a, const void *b) {
    const struct timer *x = *(struct timer *const *)a, *y = *(struct timer *const *)b;
    if (x->track != y->track) return x->track < y->track ? -1 : 1;
    if (x->latest != y->latest) return x->latest < y->latest ? -1 : 1;
    return x->place < y->place ? -1 : x->place > y->place;
}

/* A timer that was accepted before another's instant, and is due before it, fires before it.  Only so much can be
 * demanded: what was accepted later may find the other one already on its way to its callback. */
static void check_order(void) {
    struct timer **fired = stress_alloc(timer_count * sizeof *fired);
    size_t n = 0;
    for (uint32_t i = 0; i < timer_count; i++)
        if (s_get(&timers[i].fires)) fired[n++] = &timers[i];
    qsort(fired, n, sizeof *fired, by_place);
    double latest = 0; /* instant among those that fired earlier on this loop */
    for (size_t i = 0; i < n; i++) {
        struct timer *t = fired[i];
        if (i == 0 || fired[i - 1]->track != t->track) latest = -HEIST_FOREVER;
        stress_check(latest <= t->latest + HARDLY || latest <= t->accepted + HARDLY,
                     "on one loop a timer for %.9f, accepted at %.9f, fired after one for %.9f", t->latest, t->accepted,
                     latest);
        if (t->earliest > latest) latest = t->earliest;
    }
    /* equal instants: in the order of their making */
    qsort(fired, n, sizeof *fired, by_instant);
    double made = 0; /* the latest beginning of a call among equal ones that fired earlier */
    const struct timer *last = NULL;
    for (size_t i = 0; i < n; i++) {
        struct timer *t = fired[i];
        if (t->earliest != t->latest) continue;
        bool equal = last && last->track == t->track && last->latest == t->latest;
        if (!equal) made = -HEIST_FOREVER;
        if (equal) equal_deadlines++;
        stress_check(made <= t->accepted || t->accepted >= t->latest,
                     "of two timers for %.9f the one made at %.9f fired after the one made at %.9f", t->latest,
                     t->accepted, made);
        if (t->began > made) made = t->began;
        last = t;
    }
    free(fired);
}

static void check_books(bool early) {
    stress_phase("each timer once");
    for (uint32_t i = 0; i < timer_count; i++) {
        struct timer *t = &timers[i];
        int fires = s_get(&t->fires), cancels = s_get(&t->cancels), frees = s_get(&t->frees);
        if (!s_get(&t->accepts)) {
            stress_check(!fires && !cancels && !frees, "a timer that was refused fired, or its argument was freed");
            continue;
        }
        stress_check(frees == 1, "an argument was freed %d times after close", frees);
        stress_check(fires + cancels <= 1, "a timer fired %d times and was cancelled %d times", fires, cancels);
        if (fires + cancels == 0) {
            stress_check(early || t->far, "a timer for %.9f neither fired nor was cancelled", t->lo);
            total_closed++;
        }
        stress_check(!(fires && t->far), "a timer for a far day fired");
        total_fired += (uint64_t)fires;
        total_cancelled += (uint64_t)cancels;
        heist_handle_unref(s_get(&t->handle));
    }
    stress_phase("order");
    check_order();
}

/* ---- a round ---- */

static void open_tracks(struct stress_rng *r) {
    heist_runtime_options o = HEIST_RUNTIME_OPTIONS_INIT;
    virtual_time = stress_chance(r, 15);
    if (virtual_time) o.flags = HEIST_RUNTIME_VIRTUAL_TIME;
    rt = stress_runtime("timers", stress_draw_workers(r), &o);
    track_count = 0;
    memset(tracks, 0, sizeof tracks);
    for (int i = 0; i < heist_runtime_workers(rt) && i < MOST_TRACKS - 2; i++)
        tracks[track_count++].loop = heist_runtime_loop(rt, i);
    if (virtual_time) return; /* one clock in a round: only so can instants be compared */
    for (int i = 0; i < 2; i++) {
        if (!stress_chance(r, 60)) continue;
        struct track *k = &tracks[track_count++];
        heist_runtime_options lo = HEIST_RUNTIME_OPTIONS_INIT;
        lo.name = "alone";
        lo.exception_handler = stress_exception;
        int err = heist_loop_new(&lo, &k->loop);
        if (err < 0) stress_die("a loop: %s", heist_strerror(err));
        k->alone = true;
        k->driven = i == 1;
        stress_thread(&k->thread, k->driven ? drive_alone : run_alone, k);
    }
}

static void stop_tracks(void) {
    for (int i = 0; i < track_count; i++) {
        struct track *k = &tracks[i];
        if (!k->alone) continue;
        int err = heist_loop_stop(k->loop);
        stress_check(err == 0, "stop answered %s", heist_error_name(err));
        stress_join(k->thread);
        err = heist_loop_close(k->loop);
        stress_check(err == 0, "close of a loop answered %s", heist_error_name(err));
    }
}

static void start_sleepers(struct stress_rng *r) {
    int err = heist_channel_new(0, &empty);
    if (err == 0) err = heist_future_new(NULL, &never);
    if (err < 0) stress_die("a channel and a future: %s", heist_strerror(err));
    for (int i = 0; i < sleeper_count; i++) {
        struct sleeper *s = &sleepers[i];
        memset(s, 0, sizeof *s);
        s->slot = i;
        s->rng = stress_stream(r, (uint64_t)i);
        s->plain = stress_chance(r, 15);
        if (s->plain) {
            stress_thread(&s->thread, sleeper_thread, s);
            continue;
        }
        heist_task_options o = HEIST_TASK_OPTIONS_INIT;
        o.name = "sleeper";
        o.flags = stress_chance(r, 30) ? HEIST_TASK_PINNED : 0;
        err = heist_run_coroutine_threadsafe(heist_runtime_loop(rt, i % heist_runtime_workers(rt)), sleeper_body, s, &o,
                                             &s->task);
        if (err < 0) stress_die("a task: %s", heist_strerror(err));
    }
}

static void end_sleepers(void) {
    for (int i = 0; i < sleeper_count; i++) {
        struct sleeper *s = &sleepers[i];
        if (s->plain) {
            stress_join(s->thread);
            continue;
        }
        int err = heist_await(s->task, NULL);
        /* asked before its first step it never runs, and ends cancelled */
        stress_check(err == 0 || (err == -ECANCELED && (s_get(&closing) || s_get(&s->asked))),
                     "a sleeper ended with %s", heist_error_name(err));
        heist_unref(s->task);
    }
    heist_channel_unref(empty);
    heist_unref(never);
}

static void one_round(struct stress_rng *r) {
    static const double spans[] = {1e-3, 1e-2, 0.05, 0.2, 0.5};
    span = spans[stress_below(r, 5)];
    grid = stress_chance(r, 40) ? span / (double)stress_between(r, 1, 256) : 0;
    lazy = (unsigned)stress_below(r, 300);
    open_tracks(r);
    timer_count = (uint32_t)stress_between(r, 1, stress_scale(MOST_TIMERS));
    timers = stress_alloc(timer_count * sizeof *timers);
    s_set(&next_slot, 0);
    s_set(&near_open, 0);
    s_set(&closing, false);
    bool early = stress_chance(r, 20); /* close in the middle */
    int threads = stress_draw_threads(r, ARMERS / 2), bodies = (int)stress_below(r, ARMERS / 2 + 1);
    if (threads > ARMERS / 2) threads = ARMERS / 2;
    sleeper_count = (int)stress_between(r, 0, SLEEPERS);
    stress_settings("%d workers, %d loops, %s time, %" PRIu32 " timers within %g s, grid %g s, %d threads and %d tasks "
                    "arm, %d sleepers%s",
                    heist_runtime_workers(rt), track_count, virtual_time ? "virtual" : "real", timer_count, span, grid,
                    threads, bodies, sleeper_count, early ? ", closed in the middle" : "");
    stress_phase("arming and firing");
    double length = 0.05 + 0.1 * (double)stress_below(r, 8);
    round_end = stress_now() + length;
    struct stress_rng steps = stress_stream(r, 99);
    pthread_t stepper;
    s_set(&stepping, true);
    stress_thread(&stepper, step_wall, &steps);
    start_sleepers(r);
    for (int i = 0; i < threads + bodies; i++) {
        struct armer *a = &armers[i];
        memset(a, 0, sizeof *a);
        a->rng = stress_stream(r, (uint64_t)(1000 + i));
        a->quota = timer_count / (uint32_t)(threads + bodies) + 1;
        if (i < threads) {
            stress_thread(&a->thread, armer_thread, a);
        } else {
            int err = heist_runtime_run_coroutine(rt, armer_body, a, NULL, &a->task);
            if (err < 0) stress_die("a task: %s", heist_strerror(err));
        }
    }
    /* some are asked to cancel, once each */
    for (int i = 0; i < sleeper_count; i++) {
        if (sleepers[i].plain || !stress_chance(r, 30)) continue;
        if (stress_chance(r, 30)) stress_pause(r, 2e-3);
        s_set(&sleepers[i].asked, true);
        heist_cancel(sleepers[i].task);
    }
    if (early) {
        stress_block(length * (double)stress_below(r, 1000) / 1000);
        stress_phase("close in the middle");
        s_set(&closing, true);
        int err = heist_runtime_close(rt, HEIST_FOREVER);
        stress_check(err == 0, "close answered %s", heist_error_name(err));
    }
    for (int i = 0; i < threads + bodies; i++) {
        if (i < threads) {
            stress_join(armers[i].thread);
        } else {
            int err = heist_await(armers[i].task, NULL);
            stress_check(err == 0 || (err == -ECANCELED && early), "an armer ended with %s", heist_error_name(err));
            heist_unref(armers[i].task);
        }
    }
    if (!early) {
        stress_phase("all fire");
        stress_wait_begin(SLEEPERS, "all timers that are due fire", span);
        while (s_get(&near_open) > 0) stress_block(5e-4);
        stress_wait_end(SLEEPERS);
    }
    end_sleepers();
    stress_phase("far timers end with their loops");
    for (uint32_t i = 0; i < timer_count; i++)
        /* a callback may be arming still: what it wrote stands once the handle does */
        if (stress_chance(r, 50) && s_observe(&timers[i].handle) && timers[i].far) cancel_one(&timers[i]);
    s_set(&closing, true);
    stop_tracks();
    stress_runtime_end(rt);
    s_set(&stepping, false);
    stress_join(stepper);
    check_books(early);
    for (int i = 0; i < track_count; i++)
        if (tracks[i].alone) heist_loop_unref(tracks[i].loop);
    free(timers);
    timers = NULL;
}

int main(int argc, char **argv) {
    stress_begin(argc, argv, "timers",
                 "timers fire once, in order, never early, or are cancelled once; the wall clock has no say");
    check_wall();
    struct stress_rng rng;
    while (stress_next_round(&rng)) one_round(&rng);
    stress_note("timers: %" PRIu64 " fired, %" PRIu64 " cancelled, %" PRIu64 " ended by close; %" PRIu64
                " at the instant of another one",
                total_fired, total_cancelled, total_closed, equal_deadlines);
    stress_note("waits that ran out: %" PRIu64, s_get(&slept));
    stress_note("the wall clock stepped %" PRIu64 " times, and was read %" PRIu64 " times", s_get(&wall_steps),
                s_get(&wall_reads));
    return stress_end();
}
