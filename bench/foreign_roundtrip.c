/* foreign_roundtrip.c: a plain thread submits a coroutine to an otherwise idle runtime
 * and blocks until its result is there, N times; each trip is timed.
 *
 * `cpu` is the processor time of the whole process for each trip: a worker that spins
 * before it sleeps buys latency with it, so the two belong together. */
#include "common.h"

#include <stdlib.h>

static int answer(void *arg, void **out) {
    *out = arg;
    return 0;
}

void bench_foreign_roundtrip(const struct bench_args *args) {
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    heist_runtime *runtime;
    size_t n = args->n;
    int64_t *ns = calloc(n, sizeof *ns); /* touched below, before the clock is read */
    BENCH_CHECK(ns != NULL);
    for (size_t i = 0; i < n; i++) ns[i] = -1;
    opts.workers = args->workers;
    opts.name = "bench";
    BENCH_MUST(heist_runtime_new(&opts, &runtime));
    double cpu = bench_cpu_seconds();
    for (size_t i = 0; i < n; i++) {
        heist_task *task;
        void *result;
        int64_t start = bench_now_ns();
        BENCH_MUST(heist_runtime_run_coroutine(runtime, answer, bench_box(i), NULL, &task));
        BENCH_MUST(heist_await(task, &result));
        ns[i] = bench_now_ns() - start;
        BENCH_CHECK(bench_unbox(result) == i);
        heist_unref(task);
    }
    cpu = bench_cpu_seconds() - cpu;
    BENCH_MUST(heist_runtime_close(runtime, HEIST_FOREVER));
    heist_runtime_unref(runtime);
    qsort(ns, n, sizeof *ns, bench_compare_ns);
    bench_emit("p50", n, (double)ns[n / 2] / 1e3, "us");
    bench_emit("p99", n, (double)ns[n * 99 / 100] / 1e3, "us");
    bench_emit("cpu", n, cpu * 1e6 / (double)n, "us/roundtrip");
    free(ns);
}
