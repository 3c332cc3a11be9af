/* scale.c: the cost of one when there are N: tasks, sleeping tasks, timers, threads that submit.
 *
 * Workloads of bench/scale, whose drawings stand in docs/performance.md; here N is the
 * quantity that grows, and each prints the price of one operation.  What is too short to be
 * timed is repeated, and the median counts.  Memory is that of the first round, beside the
 * same process before it; below a thousand it is lost among the pages and not printed. */
#include "common.h"

#include <pthread.h>
#include <stdlib.h>

enum { ROUNDS = 31, ENOUGH = 500000, MANY = 1000, MILLION = 1000000 };

static int rounds_of(size_t n) {
    size_t rounds = ENOUGH / n;
    return rounds < 1 ? 1 : rounds > ROUNDS ? ROUNDS : (int)rounds;
}

static void emit_median(const char *metric, size_t n, int64_t *ns, int rounds, const char *unit) {
    qsort(ns, (size_t)rounds, sizeof *ns, bench_compare_ns);
    bench_emit(metric, n, (double)ns[rounds / 2] / (double)n, unit);
}

static void emit_memory(size_t n, long kib_before, const char *unit) {
    if (n >= MANY) bench_emit("memory", n, (double)(bench_status_kib("VmRSS") - kib_before) * 1024.0 / (double)n, unit);
}

/* ---- tasks that exist at once, and run ---- */

static struct bench_group groups[ROUNDS]; /* one for each round: see bench_group_deinit */
static int rounds_done;

static int counted(void *arg, void **out) {
    (void)out;
    bench_group_done(arg);
    return 0;
}

static int tasks_main(void *arg, void **out) {
    const struct bench_args *args = arg;
    int64_t ns[ROUNDS];
    int rounds = rounds_of(args->n);
    (void)out;
    for (int r = 0; r < rounds; r++) {
        struct bench_group *g = &groups[rounds_done++];
        bench_group_init(g, args->n);
        int64_t start = bench_now_ns();
        for (size_t i = 0; i < args->n; i++) BENCH_MUST(heist_create_task(counted, g, NULL, NULL));
        bench_group_wait(g);
        ns[r] = bench_now_ns() - start;
    }
    emit_median("-", args->n, ns, rounds, "ns/task");
    return 0;
}

void bench_scale_tasks(const struct bench_args *args) {
    bench_run(tasks_main, args);
    while (rounds_done > 0) bench_group_deinit(&groups[--rounds_done]);
}

/* ---- tasks that sleep, each with its stack and its timer ---- */

static atomic_size_t asleep;

static int sleeper(void *arg, void **out) {
    (void)arg, (void)out;
    atomic_fetch_add_explicit(&asleep, 1, memory_order_relaxed);
    return heist_sleep(3600.0);
}

static int sleepers_main(void *arg, void **out) {
    const struct bench_args *args = arg;
    heist_task **task = calloc(args->n, sizeof(heist_task *));
    int64_t made[ROUNDS], ended[ROUNDS];
    int rounds = rounds_of(args->n);
    (void)out;
    BENCH_CHECK(task != NULL);
    for (size_t i = 0; i < args->n; i++) task[i] = NULL; /* touched before memory is asked for */
    for (int r = 0; r < rounds; r++) {
        long kib = bench_status_kib("VmRSS");
        atomic_store_explicit(&asleep, 0, memory_order_relaxed);
        int64_t start = bench_now_ns();
        for (size_t i = 0; i < args->n; i++) BENCH_MUST(heist_create_task(sleeper, NULL, NULL, &task[i]));
        while (atomic_load_explicit(&asleep, memory_order_relaxed) < args->n) BENCH_MUST(heist_yield());
        made[r] = bench_now_ns() - start;
        if (r == 0) emit_memory(args->n, kib, "bytes/task");
        start = bench_now_ns();
        for (size_t i = 0; i < args->n; i++) BENCH_CHECK(heist_cancel(task[i]) == 1);
        for (size_t i = 0; i < args->n; i++) {
            void *ignored;
            BENCH_CHECK(heist_await(task[i], &ignored) == -ECANCELED);
            heist_unref(task[i]);
        }
        ended[r] = bench_now_ns() - start;
    }
    emit_median("made", args->n, made, rounds, "ns/task");
    emit_median("ended", args->n, ended, rounds, "ns/task");
    free(task);
    return 0;
}

void bench_scale_sleepers(const struct bench_args *args) { bench_run(sleepers_main, args); }

/* ---- timers that stand ---- */

static int never(void *arg) {
    (void)arg;
    BENCH_CHECK(!"a timer of the far future came due");
    return 0;
}

static size_t fired; /* one worker: the loop's thread alone */

static int fire(void *arg) {
    (void)arg;
    fired++;
    return 0;
}

static double part(void) { /* 0 to 1, in no order */
    static uint64_t state = 88172645463325252u;
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return (double)(state >> 11) / 9007199254740992.0;
}

static double some_delay(void) { /* between a minute and an hour */
    return 60.0 + 3540.0 * part();
}

static int timers_main(void *arg, void **out) {
    const struct bench_args *args = arg;
    heist_handle **timer = calloc(args->n, sizeof(heist_handle *));
    int64_t armed[ROUNDS], churned[ROUNDS], cancelled[ROUNDS], ran[ROUNDS];
    int rounds = rounds_of(args->n);
    heist_loop *loop;
    enum { CHURN = 20000 };
    (void)out;
    BENCH_CHECK(timer != NULL);
    BENCH_MUST(heist_get_running_loop(&loop));
    for (size_t i = 0; i < args->n; i++) timer[i] = NULL;
    for (int r = 0; r < rounds; r++) {
        long kib = bench_status_kib("VmRSS");
        int64_t start = bench_now_ns();
        for (size_t i = 0; i < args->n; i++)
            BENCH_MUST(heist_loop_call_later(loop, some_delay(), never, NULL, NULL, &timer[i]));
        armed[r] = bench_now_ns() - start;
        if (r == 0) emit_memory(args->n, kib, "bytes/timer");
        start = bench_now_ns();
        for (int i = 0; i < CHURN; i++) {
            heist_handle *one;
            BENCH_MUST(heist_loop_call_later(loop, some_delay(), never, NULL, NULL, &one));
            BENCH_CHECK(heist_handle_cancel(one) == 1);
            heist_handle_unref(one);
        }
        churned[r] = (bench_now_ns() - start) / CHURN * (int64_t)args->n;
        start = bench_now_ns();
        for (size_t i = 0; i < args->n; i++) {
            BENCH_CHECK(heist_handle_cancel(timer[i]) == 1);
            heist_handle_unref(timer[i]);
        }
        cancelled[r] = bench_now_ns() - start;
        if (args->n < MANY || args->n > MILLION) continue;
        /* N instants in no order, all past when the loop comes to look.  Of few the turn that looks
         * costs more; ten million take half a minute. */
        double first = heist_time(), span = 1e-6 * (double)args->n;
        fired = 0;
        for (size_t i = 0; i < args->n; i++)
            BENCH_MUST(heist_loop_call_at(loop, first + span * part(), fire, NULL, NULL, NULL));
        while (heist_time() < first + span) continue;
        start = bench_now_ns();
        while (fired < args->n) BENCH_MUST(heist_yield());
        ran[r] = bench_now_ns() - start;
    }
    if (args->n >= MANY && args->n <= MILLION) emit_median("fire", args->n, ran, rounds, "ns/timer");
    emit_median("arm", args->n, armed, rounds, "ns/timer");
    emit_median("cancel", args->n, cancelled, rounds, "ns/timer");
    emit_median("churn", args->n, churned, rounds, "ns/arm+cancel");
    free(timer);
    return 0;
}

void bench_scale_timers(const struct bench_args *args) { bench_run(timers_main, args); }

/* ---- plain threads that submit ---- */

enum { SUBMISSIONS = 1 << 20, MAX_THREADS = 256 };

struct door {
    heist_runtime *runtime;
    size_t each;
};

static int arrived(void *arg) {
    bench_group_done(arg);
    return 0;
}

static void *submitter(void *arg) {
    const struct door *d = arg;
    for (size_t i = 0; i < d->each; i++)
        BENCH_MUST(heist_runtime_call_soon(d->runtime, arrived, &groups[0], NULL, NULL));
    return NULL;
}

static int submitters_main(void *arg, void **out) {
    const struct bench_args *args = arg;
    pthread_t thread[MAX_THREADS];
    heist_loop *loop;
    (void)out;
    BENCH_CHECK(args->n <= MAX_THREADS);
    BENCH_MUST(heist_get_running_loop(&loop));
    struct door d = {heist_loop_runtime(loop), SUBMISSIONS / args->n};
    size_t total = d.each * args->n;
    bench_group_init(&groups[0], total);
    rounds_done = 1;
    double cpu = bench_cpu_seconds();
    int64_t start = bench_now_ns();
    for (size_t i = 0; i < args->n; i++) BENCH_CHECK(pthread_create(&thread[i], NULL, submitter, &d) == 0);
    bench_group_wait(&groups[0]);
    int64_t ns = bench_now_ns() - start;
    cpu = bench_cpu_seconds() - cpu;
    for (size_t i = 0; i < args->n; i++) pthread_join(thread[i], NULL);
    bench_emit("-", args->n, (double)ns / (double)total, "ns/callback");
    bench_emit("cpu", args->n, cpu * 1e9 / (double)total, "ns/callback");
    return 0;
}

void bench_scale_submitters(const struct bench_args *args) {
    bench_run(submitters_main, args);
    bench_group_deinit(&groups[0]);
}
