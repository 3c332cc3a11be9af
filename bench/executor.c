/* executor.c: one task hands N jobs that do nothing to a pool of as many threads as there are workers.
 *
 * `trip`: one after the other, each awaited: the way to a pool thread and back.  `flood`: in windows of 256, the last of
 * a window awaited first: what a job costs when nobody waits for a single one.  `cpu` is the processor time of the whole
 * process for each job of the flood. */
#include "common.h"

#define WINDOW 256

static int job(void *arg, void **out) {
    *out = arg;
    return 0;
}

static void collect(heist_future *f, size_t i) {
    void *result;
    BENCH_MUST(heist_await(f, &result));
    BENCH_CHECK(bench_unbox(result) == i);
    heist_unref(f);
}

static int executor_main(void *arg, void **out) {
    const struct bench_args *args = arg;
    heist_executor_options opts = HEIST_EXECUTOR_OPTIONS_INIT;
    heist_executor *e;
    heist_future *f[WINDOW];
    size_t trips = args->n / 10 + 1;
    (void)out;
    opts.max_threads = args->workers;
    BENCH_MUST(heist_executor_new(&opts, &e));
    int64_t start = bench_now_ns();
    for (size_t i = 0; i < trips; i++) {
        BENCH_MUST(heist_loop_run_in_executor(NULL, e, job, bench_box(i), NULL, &f[0]));
        collect(f[0], i);
    }
    bench_emit("trip", trips, (double)(bench_now_ns() - start) / (double)trips, "ns/job");
    double cpu = bench_cpu_seconds();
    start = bench_now_ns();
    for (size_t first = 0; first < args->n; first += WINDOW) {
        size_t n = args->n - first < WINDOW ? args->n - first : WINDOW;
        for (size_t i = 0; i < n; i++)
            BENCH_MUST(heist_loop_run_in_executor(NULL, e, job, bench_box(first + i), NULL, &f[i]));
        for (size_t i = n; i-- > 0;) collect(f[i], first + i);
    }
    bench_emit("flood", args->n, (double)(bench_now_ns() - start) / (double)args->n, "ns/job");
    bench_emit("cpu", args->n, (bench_cpu_seconds() - cpu) * 1e9 / (double)args->n, "ns/job");
    BENCH_MUST(heist_executor_shutdown(e, 0));
    heist_executor_unref(e);
    return 0;
}

void bench_executor(const struct bench_args *args) {
    bench_run(executor_main, args);
}
