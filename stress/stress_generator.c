/* stress/stress_generator.c: bodies that are driven by whoever comes.
 *
 * Law: a generator gives each of its values once and in order, whoever asks: unpinned tasks that move, pinned ones,
 * plain threads, one after the other, while bodies sleep, await, and drive generators of their own.  What is sent or
 * thrown arrives in the body at the yield where it stood, once; a close and a drop end it; a cancelled driver
 * finds the cancellation in the body or in its own call.  Frames keep what stood in them.  Bodies that began end once,
 * arguments are freed once, and after each round no stack is left.  A pipeline whose stages run ahead gives the values
 * in order as well; when it is broken off, fails or is cancelled, all its bodies have ended before its consumer goes
 * on.
 * Threads: drivers are tasks of one runtime, some pinned, and plain threads; generators go from hand to hand
 * through a channel; one task cancels drivers at random.
 * Invariant: all of a record but its counters is touched by whoever took it out of the channel, and by its body. */
#include "common.h"

#include <errno.h>

#define MOST_DRIVERS 64
#define MOST_DEPTH 4
#define FRAME 24

static heist_runtime *rt;
static heist_channel *pool;
static _Atomic(uint64_t) bodies_begun, bodies_ended, args_made, args_freed, values, thrown, sent, closed, dropped,
    ignored, cancelled_inside, pipelines, pipeline_values, moved;
static _Atomic(bool) over;

/* ---- a generator ---- */

struct record {
    struct stress_rng rng; /* the body's */
    heist_generator *g;
    uint64_t length;  /* values that it makes */
    uint64_t made;    /* by the body */
    uint64_t taken;   /* by drivers */
    uintptr_t expect; /* what was sent last; 0: nothing */
    int threw;        /* what was thrown and has not arrived */
    bool ends;        /* a body that is told to end does */
    bool began, ended;
    int depth;
    pthread_t last;
};

static void free_record(void *arg) {
    (void)arg; /* the record itself belongs to the driver, who reads it after the end */
    s_add(&args_freed, 1);
}

static int child(void *arg, void **out) {
    uintptr_t n = (uintptr_t)arg;
    if (n % 3 == 0) {
        int err = heist_yield();
        if (err) return err;
    }
    *out = (void *)(n + 1);
    return 0;
}

/* Something that may suspend; a callback's answer stands for a body that is dropped. */
static int pass_time(struct record *r) {
    switch (stress_below(&r->rng, 8)) {
        case 0: return heist_yield();
        case 1: return heist_sleep((double)stress_below(&r->rng, 200) * 1e-6);
        case 2: {
            heist_task *t;
            void *value = NULL;
            uintptr_t n = stress_below(&r->rng, 100);
            if (!heist_current_task()) return 0;
            int err = heist_create_task(child, (void *)n, NULL, &t);
            if (err) return err == HEIST_ECLOSED ? -ECANCELED : err;
            err = heist_await(t, &value);
            if (!err) stress_check(value == (void *)(n + 1), "a child that a body awaits gave a wrong result");
            heist_unref(t);
            return err;
        }
        default: return 0;
    }
}

/* One value; 0, or the code with which the body is to end. */
static int give(heist_generator *self, struct record *r) {
    void *got = NULL;
    uint64_t value = ++r->made;
    int err = heist_generator_yield(self, (void *)(uintptr_t)value, &got);
    if (err == 0) {
        stress_check((uintptr_t)got == r->expect, "a yield gave %p, and %#" PRIxPTR " was sent", got, r->expect);
        r->expect = 0;
        return 0;
    }
    stress_check(r->expect == 0, "a value was sent and the yield returned %s", heist_error_name(err));
    stress_check(r->threw == err, "%s arrived in a body, and %s was thrown", heist_error_name(err),
                 heist_error_name(r->threw));
    r->threw = 0;
    if (err == -EXDEV && !r->ends) return 0;                      /* dealt with */
    if (err == HEIST_EGENEXIT && !r->ends && !r->depth) return 0; /* ignored, against all rules */
    return err;
}

static int inner_body(heist_generator *self, void *arg, void **out);

static STRESS_NOINLINE int frames(heist_generator *self, struct record *r) {
    volatile uint64_t canary[FRAME];
    uint64_t seed = stress_next(&r->rng);
    int err = 0;
    for (unsigned i = 0; i < FRAME; i++) canary[i] = stress_mix(seed, i);
    while (!err && r->made < r->length) {
        err = pass_time(r);
        if (err) break;
        if (r->depth < MOST_DEPTH && stress_chance(&r->rng, 5)) { /* some through another */
            heist_generator *inner;
            r->depth++;
            if (stress_chance(&r->rng, 50)) {
                err = heist_generator_new(inner_body, r, NULL, &inner);
                if (!err) {
                    err = heist_generator_delegate(self, inner, NULL);
                    heist_generator_unref(inner);
                }
            } else {
                err = frames(self, r);
            }
            r->depth--;
        } else {
            err = give(self, r);
        }
        for (unsigned i = 0; i < FRAME; i++)
            if (canary[i] != stress_mix(seed, i)) stress_fail("a frame of a body changed across a step");
        if (r->depth && stress_chance(&r->rng, 20)) break;
    }
    return err;
}

static int inner_body(heist_generator *self, void *arg, void **out) {
    (void)out;
    s_add(&bodies_begun, 1);
    int err = frames(self, arg);
    s_add(&bodies_ended, 1);
    return err;
}

static int body(heist_generator *self, void *arg, void **out) {
    struct record *r = arg;
    (void)out;
    stress_check(!r->began, "a body began twice");
    r->began = true;
    s_add(&bodies_begun, 1);
    int err = 0;
    while (!err && r->made < r->length) err = frames(self, r);
    if (err && stress_chance(&r->rng, 30)) (void)heist_sleep(1e-5); /* the clean-up waits, where it may */
    r->ended = true;
    s_add(&bodies_ended, 1);
    return err;
}

static struct record *make(struct stress_rng *rng) {
    struct record *r = stress_alloc(sizeof *r);
    heist_generator_options o = HEIST_GENERATOR_OPTIONS_INIT;
    r->rng = stress_stream(rng, stress_next(rng));
    r->length = stress_between(rng, 0, 300);
    r->ends = stress_chance(rng, 80);
    if (stress_chance(rng, 10)) o.stack_bytes = (size_t)32 << 10;
    o.arg_free = free_record;
    int err = heist_generator_new(body, r, &o, &r->g);
    if (err) stress_die("heist_generator_new: %s", heist_error_name(err));
    s_add(&args_made, 1);
    return r;
}

/* Drops it, wherever it stands. */
static void drop(struct record *r) {
    r->ends = true;
    r->threw = HEIST_EGENEXIT;
    bool stood = heist_generator_state(r->g) == HEIST_GENERATOR_SUSPENDED;
    heist_generator_unref(r->g);
    stress_check(!r->began || r->ended, "a generator was dropped and its body had not ended");
    stress_check(!stood || r->threw == 0, "a body was not told that it was dropped");
    s_add(&dropped, 1);
    free(r);
}

/* What came out of a step: true while it goes on. */
static bool came(struct record *r, int err, void *value, bool may_cancel) {
    if (err == 0) {
        stress_check((uintptr_t)value == ++r->taken, "value %" PRIuPTR " came for %" PRIu64, (uintptr_t)value,
                     r->taken);
        stress_check(r->made == r->taken, "a body ran ahead");
        s_add(&values, 1);
        return true;
    }
    stress_check(heist_generator_state(r->g) == HEIST_GENERATOR_CLOSED, "a step answered %s and it has not ended",
                 heist_error_name(err));
    stress_check(!r->began || r->ended, "a step answered %s and the body lives", heist_error_name(err));
    if (err == HEIST_ESTOP) {
        stress_check(r->made == r->length && r->taken == r->made, "it stopped after %" PRIu64 " of %" PRIu64 " values",
                     r->taken, r->length);
        void *none = r;
        stress_check(heist_generator_result(r->g, &none) == 0 && !none, "a body that ended has no result");
    } else if (err == -ECANCELED) {
        stress_check(may_cancel, "a body was cancelled and nobody asked");
        s_add(&cancelled_inside, 1);
    } else {
        stress_check(err == -EXDEV, "a step answered %s", heist_error_name(err));
    }
    return false;
}

/* One step or a few; false when it has ended. */
static bool drive(struct record *r, struct stress_rng *rng, bool may_cancel) {
    void *value = NULL;
    bool begun = heist_generator_state(r->g) != HEIST_GENERATOR_CREATED;
    uint64_t what = stress_below(rng, 100);
    stress_progress(1);
    pthread_t here = pthread_self();
    if (begun && !pthread_equal(here, r->last)) s_add(&moved, 1);
    r->last = here;
    int err;
    if (what < 60) {
        err = heist_generator_next(r->g, &value);
        return came(r, err, value, may_cancel);
    }
    if (what < 80) {
        uintptr_t n = (uintptr_t)stress_next(rng) | 1;
        r->expect = begun ? n : 0;
        err = heist_generator_send(r->g, (void *)n, &value);
        if (!begun) {
            stress_check(err == HEIST_ENOTSTARTED, "one that has not begun took a value: %s", heist_error_name(err));
            return true;
        }
        s_add(&sent, 1);
        return came(r, err, value, may_cancel);
    }
    if (what < 88) {
        r->threw = begun ? -EXDEV : 0;
        s_add(&thrown, 1);
        err = heist_generator_throw(r->g, -EXDEV, &value);
        return came(r, err, value, may_cancel);
    }
    if (what < 92) {
        r->threw = begun ? HEIST_EGENEXIT : 0;
        err = heist_generator_close(r->g);
        s_add(&closed, 1);
        if (err == HEIST_EIGNOREDCLOSE) {
            stress_check(!r->ends && r->made == r->taken + 1, "a close was ignored that was not");
            r->taken++;
            r->ends = true;
            s_add(&ignored, 1);
            return true;
        }
        stress_check(!r->began || r->ended, "a close answered %s and the body lives", heist_error_name(err));
        stress_check(err == 0 || (err == -ECANCELED && may_cancel), "a close answered %s", heist_error_name(err));
        return false;
    }
    uint64_t left = stress_between(rng, 1, 20);
    bool going = true;
    r->threw = 0;
    heist_foreach (value, r->g, &err) {
        going = came(r, 0, value, may_cancel);
        if (--left == 0) {
            r->threw = HEIST_EGENEXIT;
            r->ends = true;
            break;
        }
    }
    if (err == 0 || (err == -ECANCELED && r->threw == 0 && left == 0)) {
        stress_check(r->ended, "a loop was left and its generator lives");
        return false;
    }
    return going && came(r, err, value, may_cancel);
}

/* ---- pipelines ---- */

struct line {
    struct stress_rng rng;
    uint64_t length, fail_at;
    _Atomic(int) begun, ended;
};

static int line_source(heist_generator *self, void *arg, void **out) {
    struct line *l = arg;
    int err = 0;
    (void)out;
    s_add(&l->begun, 1);
    for (uint64_t i = 1; i <= l->length && !err; i++) {
        if (i == l->fail_at) err = -EXDEV;
        if (!err && i % 5 == 0) err = heist_yield();
        if (!err) err = heist_generator_yield(self, (void *)(uintptr_t)i, NULL);
    }
    s_add(&l->ended, 1);
    return err;
}

static int line_stage(heist_generator *self, heist_generator *input, void *arg, void **out) {
    struct line *l = arg;
    void *value;
    int err;
    (void)out;
    s_add(&l->begun, 1);
    while (!(err = heist_generator_next(input, &value))) {
        if ((uintptr_t)value % 7 == 0 && (err = heist_sleep(2e-5))) break;
        if ((err = heist_generator_yield(self, value, NULL))) break;
    }
    s_add(&l->ended, 1);
    return err == HEIST_ESTOP ? 0 : err;
}

static void run_line(struct stress_rng *rng) {
    struct line l = {.rng = stress_stream(rng, stress_next(rng)), .length = stress_between(rng, 0, 60)};
    heist_generator *g, *next;
    heist_pipeline_options o = HEIST_PIPELINE_OPTIONS_INIT;
    void *value;
    uint64_t n = 0, break_at = stress_chance(rng, 30) ? stress_between(rng, 1, 60) : 0;
    if (stress_chance(rng, 30)) l.fail_at = stress_between(rng, 1, 60);
    int err = heist_generator_new(line_source, &l, NULL, &g);
    if (err) stress_die("heist_generator_new: %s", heist_error_name(err));
    for (uint64_t stages = stress_below(rng, 4);; stages--) {
        if (stress_chance(rng, 60)) {
            o.length = stress_below(rng, 5);
            err = heist_pipeline_buffer(g, &o, &next);
            if (err) stress_die("heist_pipeline_buffer: %s", heist_error_name(err));
            heist_generator_unref(g);
            g = next;
        }
        if (!stages) break;
        err = heist_pipeline_stage(g, line_stage, &l, NULL, &next);
        if (err) stress_die("heist_pipeline_stage: %s", heist_error_name(err));
        heist_generator_unref(g);
        g = next;
    }
    heist_foreach (value, g, &err) {
        stress_check((uintptr_t)value == ++n, "a pipeline gave %" PRIuPTR " for %" PRIu64, (uintptr_t)value, n);
        s_add(&pipeline_values, 1);
        stress_progress(1);
        if (n == break_at) break;
    }
    stress_check(s_get(&l.begun) == s_get(&l.ended), "a pipeline ended (%s) and %d of %d bodies live",
                 heist_error_name(err), s_get(&l.begun) - s_get(&l.ended), s_get(&l.begun));
    if (err == HEIST_ESTOP)
        stress_check(n == l.length, "a pipeline gave %" PRIu64 " of %" PRIu64 " values", n, l.length);
    else if (err == -EXDEV) /* the source ran ahead of a break: then its failure is the close's */
        stress_check(l.fail_at && (n + 1 == l.fail_at || n == break_at), "a failure came at %" PRIu64, n);
    else
        stress_check(err == -ECANCELED || (err == 0 && n == break_at), "a pipeline ended with %s",
                     heist_error_name(err));
    heist_generator_unref(g);
    s_add(&pipelines, 1);
}

/* ---- drivers ---- */

struct driver {
    struct stress_rng rng;
    heist_task *task;
    pthread_t thread;
    bool is_task;
};
static struct driver drivers[MOST_DRIVERS];

static int work(struct driver *d) {
    while (!s_get(&over)) {
        void *got = NULL;
        int err = heist_channel_recv_until(pool, &got, heist_time() + 0.05);
        if (err == -ECANCELED && d->is_task) heist_uncancel(heist_current_task());
        if (err == HEIST_ESHUTDOWN) break;
        if (err) {
            stress_check(err == -ETIMEDOUT || (err == -ECANCELED && d->is_task), "a recv answered %s",
                         heist_error_name(err));
            continue;
        }
        struct record *r = got;
        bool going = true;
        for (uint64_t steps = stress_between(&d->rng, 1, 40); steps && going; steps--)
            going = drive(r, &d->rng, d->is_task);
        if (!going || stress_chance(&d->rng, 3)) {
            drop(r);
            r = make(&d->rng);
        }
        if (d->is_task && stress_chance(&d->rng, 10)) run_line(&d->rng);
        while ((err = heist_channel_send(pool, r)) == -ECANCELED) heist_uncancel(heist_current_task());
        if (err) drop(r);
    }
    return 0;
}

static int work_in_task(void *arg, void **out) {
    (void)out;
    return work(arg);
}
static void *work_in_thread(void *arg) {
    work(arg);
    return NULL;
}

static int cancel_them(void *arg, void **out) {
    struct stress_rng *rng = arg;
    (void)out;
    while (!s_get(&over)) {
        int err = heist_sleep((double)stress_between(rng, 1, 3000) * 1e-6);
        if (err) return err;
        struct driver *d = &drivers[stress_below(rng, MOST_DRIVERS)];
        if (d->is_task) heist_cancel(d->task);
    }
    return 0;
}

static void one_round(struct stress_rng *rng) {
    int workers = stress_draw_workers(rng), threads = stress_draw_threads(rng, 4);
    int tasks = (int)stress_between(rng, 1, MOST_DRIVERS - 8);
    int generators = (int)stress_between(rng, 1, 2 * (uint64_t)tasks);
    bool cancels = stress_chance(rng, 60);
    struct stress_rng canceller_rng = stress_stream(rng, 7);
    heist_task *canceller = NULL;
    int err;
    stress_settings("%d workers, %d threads, %d tasks, %d generators%s", workers, threads, tasks, generators,
                    cancels ? ", cancelling" : "");
    s_set(&over, false);
    memset(drivers, 0, sizeof drivers);
    rt = stress_runtime("generators", workers, NULL);
    if ((err = heist_channel_new((size_t)generators, &pool))) stress_die("channel: %s", heist_error_name(err));
    stress_phase("driving");
    for (int i = 0; i < generators; i++)
        if ((err = heist_channel_try_send(pool, make(rng)))) stress_die("try_send: %s", heist_error_name(err));
    for (int i = 0; i < tasks; i++) {
        struct driver *d = &drivers[i];
        heist_task_options o = HEIST_TASK_OPTIONS_INIT;
        if (stress_chance(rng, 15)) o.flags = HEIST_TASK_PINNED;
        d->rng = stress_stream(rng, (uint64_t)i + 100);
        d->is_task = true;
        err = heist_loop_create_task(heist_runtime_loop(rt, i % workers), work_in_task, d, &o, &d->task);
        if (err) stress_die("create_task: %s", heist_error_name(err));
    }
    for (int i = 0; i < threads; i++) {
        struct driver *d = &drivers[tasks + i];
        d->rng = stress_stream(rng, (uint64_t)i + 1000);
        stress_thread(&d->thread, work_in_thread, d);
    }
    if (cancels) {
        err = heist_runtime_run_coroutine(rt, cancel_them, &canceller_rng, NULL, &canceller);
        if (err) stress_die("run_coroutine: %s", heist_error_name(err));
    }
    double end = stress_now() + 0.1 + (double)stress_below(rng, 400) * 1e-3;
    while (stress_going() && stress_now() < end) stress_block(0.005);
    stress_phase("ending");
    s_set(&over, true);
    if (canceller) {
        heist_await(canceller, NULL);
        heist_unref(canceller);
    }
    for (int i = 0; i < tasks; i++) {
        err = heist_await(drivers[i].task, NULL);
        stress_check(err == 0 || err == -ECANCELED, "a driver ended with %s", heist_error_name(err));
    }
    for (int i = 0; i < threads; i++) stress_join(drivers[tasks + i].thread);
    for (int i = 0; i < tasks; i++) heist_unref(drivers[i].task);
    bool late = stress_chance(rng, 50); /* the last ones end when the runtime is gone */
    if (late) stress_runtime_end(rt);
    void *got;
    while (heist_channel_try_recv(pool, &got) == 0) drop(got);
    heist_channel_unref(pool);
    if (!late) stress_runtime_end(rt);
    stress_check(s_get(&bodies_begun) == s_get(&bodies_ended), "%" PRIu64 " bodies began and %" PRIu64 " ended",
                 s_get(&bodies_begun), s_get(&bodies_ended));
    stress_check(s_get(&args_made) == s_get(&args_freed), "%" PRIu64 " arguments and %" PRIu64 " frees",
                 s_get(&args_made), s_get(&args_freed));
}

int main(int argc, char **argv) {
    stress_begin(argc, argv, "generator", "each value once and in order; bodies that began end once; no stack is left");
    struct stress_rng rng;
    while (stress_next_round(&rng)) one_round(&rng);
    stress_note("values %" PRIu64 ", generators %" PRIu64 ", sent %" PRIu64 ", thrown %" PRIu64 ", closed %" PRIu64
                " (%" PRIu64 " ignored), cancelled inside %" PRIu64 ", steps on another thread %" PRIu64,
                s_get(&values), s_get(&args_made), s_get(&sent), s_get(&thrown), s_get(&closed), s_get(&ignored),
                s_get(&cancelled_inside), s_get(&moved));
    stress_note("pipelines %" PRIu64 ", their values %" PRIu64, s_get(&pipelines), s_get(&pipeline_values));
    return stress_end();
}
