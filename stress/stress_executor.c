/* stress/stress_executor.c: executors, default executors and blocking sections.
 *
 * Law: a job that was accepted runs once, or is cancelled before it begins and never runs; its
 * future ends with what it returned, or cancelled, or with the code of a pool whose initializer failed;
 * argument and result are freed once; what is refused stays with the caller, and after shutdown all is
 * refused. Never do more jobs run at once than the pool may have threads; initializers and
 * finalizers are paired; a shutdown that has waited leaves no thread and no job. A call of
 * heist_to_thread does not return while its function runs. While a worker is in a blocking
 * section, the tasks behind it are served.
 * Pools are shared by plain threads and by tasks of a runtime, shut down by anybody at any moment, or
 * dropped with jobs inside; futures are cancelled at any moment; threads end for want of jobs.
 * Threads: submitters as plain threads, carriers as tasks, the pools' own.
 * Invariant: a job's cell is written by its submitter before it is handed in, by whoever runs or
 * frees it after that, and read by the checks when the round is over. */
#include "common.h"
#include "faults.h"

#include <errno.h>
#include <time.h>

#define POOLS 4
#define SUBMITTERS 6
#define JOBS_MAX 60000

struct ground;

struct cell {
    struct ground *ground;
    heist_future *future; /* the submitter's, until it has looked at it */
    unsigned nap;         /* microseconds */
    int outcome;          /* what the job shall return: 0 or a code */
    bool accepted, refused;
    _Atomic(int) begun, ended, arg_freed, results_freed, delivered;
};

/* A pool, and what it may do. */
struct ground {
    heist_executor *e;
    int most, fail_after; /* initializers from this one on fail */
    _Atomic(int) running, initialized, failed, finalized;
    _Atomic(bool) shut, broken;
};

static struct ground grounds[POOLS];
static struct cell *cells;
static _Atomic(int) next_cell;
static heist_runtime *rt;
static _Atomic(uint64_t) runs, cancelled_jobs, refused_jobs, broken_jobs, moved_count, sections_count, mapped_count;
static double round_end;

static struct cell *new_cell(struct ground *g, struct stress_rng *rng) {
    int n = s_add(&next_cell, 1);
    if (n >= JOBS_MAX) return NULL;
    struct cell *c = &cells[n];
    c->ground = g;
    c->nap = stress_chance(rng, 70) ? 0 : (unsigned)stress_between(rng, 1, 300);
    c->outcome = stress_chance(rng, 10) ? -EPROTO : stress_chance(rng, 3) ? -ECANCELED : 0;
    return c;
}

/* ---- jobs ---- */

static int job(void *arg, void **out) {
    struct cell *c = arg;
    struct ground *g = c->ground;
    int now = g ? s_add(&g->running, 1) + 1 : 0;
    stress_check(!g || now <= g->most, "%d jobs ran at once on a pool of %d threads", now, g ? g->most : 0);
    stress_check(s_add(&c->begun, 1) == 0, "a job ran twice");
    stress_check(s_get(&c->arg_freed) == 0, "a job ran after its argument was freed");
    if (c->nap) stress_block(1e-6 * c->nap);
    s_add(&c->ended, 1);
    if (g) s_add(&g->running, -1);
    s_add(&runs, 1);
    stress_progress(1);
    *out = c;
    return c->outcome;
}

static void free_arg(void *arg) {
    struct cell *c = arg;
    stress_check(s_add(&c->arg_freed, 1) == 0, "an argument was freed twice");
    stress_check(s_get(&c->begun) == s_get(&c->ended), "an argument was freed under its job");
}

static void free_result(void *result) {
    struct cell *c = result;
    stress_check(s_add(&c->results_freed, 1) == 0, "a result was freed twice");
    stress_check(s_get(&c->ended) == 1, "a result without a job");
}

static int begin_thread(void *user) {
    struct ground *g = user;
    int n = s_add(&g->initialized, 1);
    if (n < g->fail_after) return 0;
    s_add(&g->failed, 1);
    s_publish(&g->broken, true);
    return -ENODEV;
}

static void end_thread(void *user) {
    struct ground *g = user;
    s_add(&g->finalized, 1);
}

/* ---- those who hand in ---- */

/* True when the cell was accepted. */
static bool hand_in(struct cell *c, struct stress_rng *rng, bool from_task) {
    heist_job_options o = HEIST_JOB_OPTIONS_INIT;
    o.arg_free = free_arg;
    o.result_free = free_result;
    struct ground *g = c->ground;
    bool was_shut = s_observe(&g->shut);
    heist_future *f = NULL;
    int err = from_task && stress_chance(rng, 50) ? heist_loop_run_in_executor(NULL, g->e, job, c, &o, &f)
                                                  : heist_executor_submit(g->e, job, c, &o, &f);
    c->accepted = err == 0;
    c->refused = err != 0;
    c->future = f;
    if (err) s_add(&refused_jobs, 1);
    stress_check(!(was_shut && !err), "a job was accepted after the shutdown of its pool");
    stress_check(!err || err == HEIST_EEXECSHUTDOWN || err == HEIST_EBROKENPOOL || err == -EAGAIN,
                 "a job was refused with %s", heist_error_name(err));
    stress_check(err != HEIST_EBROKENPOOL || s_observe(&g->broken), "a pool is broken, and no initializer failed");
    return !err;
}

/* Looks at the outcome of a future that is done. */
static void look_at(struct cell *c, int err, void *value) {
    struct ground *g = c->ground;
    if (err == 0) {
        stress_check(value == c, "another job's result");
        stress_check(c->outcome == 0, "a result of a job that failed");
    } else if (err == HEIST_EBROKENPOOL) {
        s_add(&broken_jobs, 1);
        stress_check(s_observe(&g->broken) && s_get(&c->begun) == 0, "broken, and the job ran");
    } else if (err == -ECANCELED) {
        s_add(&cancelled_jobs, 1);
    } else {
        stress_check(err == c->outcome, "a job ended with %s", heist_error_name(err));
    }
}

static void settle(struct cell *c, struct stress_rng *rng, int slot) {
    void *value = NULL;
    if (stress_chance(rng, 25)) heist_cancel(c->future);
    stress_wait_begin(slot, "the end of a job", 0);
    int err;
    do /* by a plain thread or a task, that nobody cancels */
        err = stress_chance(rng, 50) ? heist_await_until(c->future, HEIST_FOREVER, &value)
                                     : heist_await_until(c->future, heist_time() + 0.002, &value);
    while (err == -ETIMEDOUT);
    stress_wait_end(slot);
    look_at(c, err, value);
    if (!err && stress_chance(rng, 30) && heist_future_take(c->future, &value) == 0) s_add(&c->delivered, 1);
    heist_unref(c->future);
}

/* Several jobs at once, their results in order; left in the middle, sometimes. */
static void map_some(struct ground *g, struct stress_rng *rng) {
    struct cell *some[12];
    void *args[12];
    int n = (int)stress_between(rng, 1, 12);
    for (int i = 0; i < n; i++) {
        args[i] = some[i] = new_cell(g, rng);
        if (!some[i]) return;
    }
    heist_job_options o = HEIST_JOB_OPTIONS_INIT;
    o.arg_free = free_arg;
    o.result_free = free_result;
    heist_executor_map *m = NULL;
    int err = heist_executor_map_new(g->e, job, args, (size_t)n, &o, HEIST_FOREVER, &m);
    for (int i = 0; i < n; i++) some[i]->accepted = !(some[i]->refused = err != 0);
    if (err) return;
    int wanted = stress_chance(rng, 60) ? n : (int)stress_below(rng, (uint64_t)n);
    for (int i = 0; i < wanted; i++) {
        void *value = NULL;
        err = heist_executor_map_next(m, &value);
        stress_check(err == 1 || err < 0, "a map of %d gave no result number %d", n, i);
        look_at(some[i], err == 1 ? 0 : err, value);
        if (err == 1) s_add(&some[i]->delivered, 1);
    }
    if (wanted == n) stress_check(heist_executor_map_next(m, NULL) == 0, "a map has more results than arguments");
    heist_executor_map_free(m);
    s_add(&mapped_count, 1);
}

/* Hands in a handful, then looks at each. */
static void some_jobs(struct ground *g, struct stress_rng *rng, int slot, bool from_task) {
    struct cell *mine[32];
    int n = 0, goal = (int)stress_between(rng, 1, 32);
    for (; n < goal; n++) {
        struct cell *c = new_cell(g, rng);
        if (!c) break;
        if (!hand_in(c, rng, from_task)) break;
        mine[n] = c;
        if (stress_chance(rng, 10)) heist_cancel(mine[stress_below(rng, (uint64_t)n + 1)]->future);
    }
    for (int i = 0; i < n; i++) settle(mine[i], rng, slot);
}

struct hand {
    struct stress_rng rng;
    int slot;
    pthread_t thread;
    heist_task *task;
};

static struct ground *any_ground(struct hand *h) { return &grounds[stress_below(&h->rng, POOLS)]; }

static bool goes_on(void) { return stress_now() < round_end && stress_going() && s_get(&next_cell) < JOBS_MAX - 1024; }

static void *plain_hand(void *arg) {
    struct hand *h = arg;
    while (goes_on()) {
        struct ground *g = any_ground(h);
        if (stress_chance(&h->rng, 20))
            map_some(g, &h->rng);
        else
            some_jobs(g, &h->rng, h->slot, false);
        stress_pause(&h->rng, 0.0005);
    }
    return NULL;
}

/* ---- tasks ---- */

/* The function stands in the frame of the caller, who may be cancelled meanwhile. */
struct visit {
    _Atomic(int) inside;
    unsigned nap;
};

static int visiting(void *arg, void **out) {
    struct visit *v = arg;
    s_publish(&v->inside, 1);
    if (v->nap) stress_block(1e-6 * v->nap);
    *out = v;
    s_publish(&v->inside, 2);
    return 0;
}

static int move_body(void *arg, void **out) {
    struct stress_rng rng = {*(uint64_t *)arg};
    (void)out;
    for (int i = 0; i < 20; i++) {
        struct visit v = {0, stress_chance(&rng, 50) ? 0 : (unsigned)stress_between(&rng, 1, 300)};
        void *value = NULL;
        int err = heist_to_thread(visiting, &v, &value);
        int inside = s_observe(&v.inside);
        stress_check(inside != 1, "heist_to_thread returned while its function ran");
        stress_check(err == 0 || err == -ECANCELED || (err == -EAGAIN && stress_short_of(err)),
                     "heist_to_thread gave %s", heist_error_name(err));
        stress_check((err == 0) == (inside == 2), "heist_to_thread gave %s, and its function %s", heist_error_name(err),
                     inside ? "ran" : "did not run");
        stress_check(err != 0 || value == &v, "another function's result");
        s_add(&moved_count, 1);
        stress_progress(1);
        if (err == -ECANCELED) return err;
    }
    return 0;
}

static int behind(void *arg, void **out) {
    (void)out;
    _Atomic(int) *served = arg;
    s_add(served, 1);
    return 0;
}

/* Blocks its worker until the tasks that it has made, and one that sleeps, have run. */
static int sleeping_behind(void *arg, void **out) {
    int err = heist_sleep(0.0001);
    return err ? err : behind(arg, out);
}

static void section(struct hand *h) {
    int n = (int)stress_between(&h->rng, 1, 8), err = 0;
    _Atomic(int) served = 0;
    heist_task *t[9];
    int made = 0;
    for (; made < n && !err; made += !err) err = heist_create_task(behind, &served, NULL, &t[made]);
    if (!err && stress_chance(&h->rng, 50)) {
        err = heist_create_task(sleeping_behind, &served, NULL, &t[made]);
        made += !err;
        if (!err && stress_chance(&h->rng, 50)) err = heist_yield();
    }
    stress_check(!err, "a task was refused: %s", heist_error_name(err));
    stress_check(heist_blocking_begin() == 0, "no section");
    stress_wait_begin(h->slot, "those behind a blocking section", 0);
    if (stress_chance(&h->rng, 30)) { /* calls that would suspend block here */
        for (int i = 0; i < made; i++) stress_check(heist_await(t[i], NULL) == 0, "a task behind a section failed");
    } else {
        struct timespec moment = {0, 20000};
        while (s_get(&served) < made) nanosleep(&moment, NULL);
    }
    stress_wait_end(h->slot);
    stress_check(heist_blocking_end() == 0, "no end of a section");
    for (int i = 0; i < made; i++) {
        stress_check(heist_await(t[i], NULL) == 0, "a task behind a section failed");
        heist_unref(t[i]);
    }
    s_add(&sections_count, 1);
    stress_progress((uint64_t)made);
}

static void movers(struct hand *h) {
    enum { MOST = 8 };
    heist_task *t[MOST];
    uint64_t seeds[MOST];
    int n = (int)stress_between(&h->rng, 1, MOST);
    for (int i = 0; i < n; i++) {
        seeds[i] = stress_next(&h->rng);
        if (heist_create_task(move_body, &seeds[i], NULL, &t[i])) stress_die("no task");
    }
    for (int i = 0; i < n; i++) {
        if (stress_chance(&h->rng, 40)) heist_sleep(1e-6 * (double)stress_below(&h->rng, 500));
        if (stress_chance(&h->rng, 60)) heist_cancel(t[i]);
    }
    stress_wait_begin(h->slot, "tasks that call heist_to_thread", 0);
    for (int i = 0; i < n; i++) {
        int err = heist_await(t[i], NULL);
        stress_check(err == 0 || err == -ECANCELED, "a mover ended with %s", heist_error_name(err));
        heist_unref(t[i]);
    }
    stress_wait_end(h->slot);
}

static int most_sections;
static _Atomic(int) in_sections;

static int task_hand(void *arg, void **out) {
    struct hand *h = arg;
    (void)out;
    while (goes_on()) {
        switch (stress_below(&h->rng, 4)) {
        case 0: movers(h); break;
        case 1:
            if (s_add(&in_sections, 1) < most_sections) section(h);
            s_add(&in_sections, -1);
            break;
        case 2: map_some(any_ground(h), &h->rng); break;
        default: some_jobs(any_ground(h), &h->rng, h->slot, true); break;
        }
        int err = heist_yield();
        stress_check(!err, "a yield gave %s", heist_error_name(err));
    }
    return 0;
}

/* ---- a round ---- */

static void make_ground(struct ground *g, struct stress_rng *rng) {
    heist_executor_options o = HEIST_EXECUTOR_OPTIONS_INIT;
    memset(g, 0, sizeof *g);
    g->most = o.max_threads = (int)stress_between(rng, 1, 12);
    g->fail_after = stress_chance(rng, 25) ? (int)stress_below(rng, 6) : 1 << 30;
    o.idle_seconds = stress_chance(rng, 50) ? 1e-6 * (double)stress_between(rng, 1, 2000) : 0;
    o.max_queue = stress_chance(rng, 30) ? (size_t)stress_between(rng, 1, 40) : 0;
    o.name = "stress";
    o.initializer = begin_thread;
    o.finalizer = end_thread;
    o.user = g;
    int err = heist_executor_new(&o, &g->e);
    if (err) stress_die("no executor: %s", heist_error_name(err));
}

/* Shuts pools down in the middle, now and then. */
static void *closer(void *arg) {
    struct hand *h = arg;
    while (goes_on()) {
        stress_pause(&h->rng, 0.02);
        if (!stress_chance(&h->rng, 4)) continue;
        struct ground *g = any_ground(h);
        unsigned flags = HEIST_EXECUTOR_NO_WAIT;
        if (stress_chance(&h->rng, 50)) flags |= HEIST_EXECUTOR_CANCEL_QUEUED;
        if (stress_chance(&h->rng, 50)) flags &= ~HEIST_EXECUTOR_NO_WAIT;
        int err = heist_executor_shutdown(g->e, flags);
        stress_check(!err, "a shutdown gave %s", heist_error_name(err));
        s_publish(&g->shut, true);
    }
    return NULL;
}

static void end_ground(struct ground *g, struct stress_rng *rng) {
    bool waits = stress_chance(rng, 70);
    unsigned flags = stress_chance(rng, 50) ? HEIST_EXECUTOR_CANCEL_QUEUED : 0;
    int err = waits ? heist_executor_shutdown(g->e, flags) : 0;
    stress_check(!err, "the shutdown gave %s", heist_error_name(err));
    if (waits) {
        heist_executor_stats s = HEIST_EXECUTOR_STATS_INIT;
        stress_check(heist_executor_get_stats(g->e, &s) == 0, "no figures");
        stress_check(!s.threads && !s.idle && !s.queued && !s.running, "after shutdown: %d threads, %d jobs", s.threads,
                     (int)(s.queued + s.running));
    }
    heist_executor_unref(g->e);
    /* One that was dropped ends by itself. */
    for (int i = 0; !waits && i < 200000; i++) {
        if (s_get(&g->initialized) == s_get(&g->finalized) + s_get(&g->failed)) break;
        stress_block(0.0001);
    }
    stress_check(s_get(&g->initialized) == s_get(&g->finalized) + s_get(&g->failed),
                 "%d threads began, %d failed to, %d ended", s_get(&g->initialized), s_get(&g->failed),
                 s_get(&g->finalized));
    stress_check(s_get(&g->running) == 0, "%d jobs still run", s_get(&g->running));
}

static void check_cells(void) {
    int n = s_get(&next_cell) < JOBS_MAX ? s_get(&next_cell) : JOBS_MAX;
    for (int i = 0; i < n; i++) {
        struct cell *c = &cells[i];
        int begun = s_get(&c->begun), freed = s_get(&c->arg_freed);
        if (!c->accepted) { /* or was never handed in */
            stress_check(!begun && !freed, "a refused job ran %d times, its argument was freed %d times", begun, freed);
            continue;
        }
        stress_check(begun <= 1 && begun == s_get(&c->ended), "a job began %d times, ended %d times", begun,
                     s_get(&c->ended));
        stress_check(freed == 1, "an argument was freed %d times", freed);
        stress_check(s_get(&c->results_freed) + s_get(&c->delivered) == begun, "%d results, %d freed, %d delivered",
                     begun, s_get(&c->results_freed), s_get(&c->delivered));
    }
}

static void one_round(struct stress_rng *rng) {
    int workers = stress_draw_workers(rng), plain = (int)stress_between(rng, 1, SUBMITTERS);
    int tasks = (int)stress_between(rng, 1, SUBMITTERS);
    unsigned shortages = stress_chance(rng, 30) ? SHORT_OF_THREADS : 0;
    double span = 0.05 + 0.05 * (double)stress_below(rng, 6);
    heist_runtime_options options = HEIST_RUNTIME_OPTIONS_INIT;
    bool spare = workers == 1 || stress_chance(rng, 30);
    options.flags = spare ? HEIST_RUNTIME_SPARE_THREAD : 0;
    most_sections = workers - 1 + spare; /* one is left that serves */
    s_set(&in_sections, 0);
    memset(cells, 0, sizeof(*cells) * (size_t)JOBS_MAX);
    s_set(&next_cell, 0);
    for (int i = 0; i < POOLS; i++) make_ground(&grounds[i], rng);
    stress_settings("%d workers%s, %d threads, %d tasks, pools of %d %d %d %d, %.2f s%s", workers,
                    spare ? " and a spare" : "", plain, tasks, grounds[0].most, grounds[1].most, grounds[2].most,
                    grounds[3].most, span, shortages ? ", short of threads" : "");
    stress_phase("handing in");
    rt = stress_runtime("executor", workers, &options);
    struct hand hands[2 * SUBMITTERS + 1];
    stress_faults_start(rng, shortages);
    round_end = stress_now() + span;
    for (int i = 0; i <= plain + tasks; i++) {
        hands[i].rng = stress_stream(rng, (uint64_t)i);
        hands[i].slot = i;
        if (i < plain)
            stress_thread(&hands[i].thread, plain_hand, &hands[i]);
        else if (i == plain)
            stress_thread(&hands[i].thread, closer, &hands[i]);
        else if (heist_runtime_run_coroutine(rt, task_hand, &hands[i], NULL, &hands[i].task))
            stress_die("no task");
    }
    for (int i = 0; i <= plain; i++) stress_join(hands[i].thread);
    for (int i = plain + 1; i <= plain + tasks; i++) {
        int err = heist_await(hands[i].task, NULL);
        stress_check(err == 0, "a task that hands in ended with %s", heist_error_name(err));
        heist_unref(hands[i].task);
    }
    stress_faults_stop();
    stress_faults_forget();
    stress_phase("ending");
    bool first = stress_chance(rng, 50);
    if (first) stress_runtime_end(rt);
    for (int i = 0; i < POOLS; i++) end_ground(&grounds[i], rng);
    if (!first) stress_runtime_end(rt);
    check_cells();
}

int main(int argc, char **argv) {
    stress_begin(argc, argv, "executor", "each job runs once or is cancelled before it begins; no pool leaves anything");
    stress_faults_begin();
    cells = stress_alloc(sizeof(*cells) * (size_t)JOBS_MAX);
    struct stress_rng rng;
    while (stress_next_round(&rng)) one_round(&rng);
    free(cells);
    stress_note("jobs run, cancelled     %" PRIu64 ", %" PRIu64, s_get(&runs), s_get(&cancelled_jobs));
    stress_note("refused, broken         %" PRIu64 ", %" PRIu64, s_get(&refused_jobs), s_get(&broken_jobs));
    stress_note("maps, moves, sections   %" PRIu64 ", %" PRIu64 ", %" PRIu64, s_get(&mapped_count), s_get(&moved_count),
                s_get(&sections_count));
    return stress_end();
}
