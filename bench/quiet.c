/* quiet.c: how soon a runtime that sleeps is awake, and what it burns while it has little to do.
 * Each is easily bought with the other, so they stand side by side.
 *
 *   wake.p50, wake.p99   a plain thread pauses for a millisecond, N times, and hands in a coroutine:
 *                        from just before the call to the coroutine's first line
 *   wake.cpu             processor time of the process for each of these, the pauses included
 *   idle.cpu             milliseconds of processor time in a second without any work
 *   half.cpu             (two workers) processors kept busy by one task that computes and yields
 *   pair.cpu             (two workers) processor time for each round trip of two tasks */
#include "common.h"

#include <stdlib.h>
#include <time.h>

static void pause_ns(int64_t ns) {
    struct timespec t = {ns / 1000000000, ns % 1000000000};
    while (nanosleep(&t, &t) < 0) continue;
}

/* ---- waking ---- */

static int stamp(void *arg, void **out) {
    (void)out;
    atomic_store_explicit((_Atomic int64_t *)arg, bench_now_ns(), memory_order_release);
    return 0;
}

static void wakes(heist_runtime *runtime, size_t n) {
    int64_t *ns = calloc(n, sizeof *ns);
    static _Atomic int64_t woken;
    BENCH_CHECK(ns != NULL);
    double cpu = bench_cpu_seconds();
    for (size_t i = 0; i < n; i++) {
        int64_t at;
        atomic_store_explicit(&woken, 0, memory_order_relaxed);
        pause_ns(1000000);
        int64_t start = bench_now_ns();
        BENCH_MUST(heist_runtime_run_coroutine(runtime, stamp, &woken, NULL, NULL));
        while (!(at = atomic_load_explicit(&woken, memory_order_acquire))) pause_ns(50000);
        ns[i] = at - start;
    }
    cpu = bench_cpu_seconds() - cpu;
    qsort(ns, n, sizeof *ns, bench_compare_ns);
    bench_emit("wake.p50", n, (double)ns[n / 2] / 1e3, "us");
    bench_emit("wake.p99", n, (double)ns[n * 99 / 100] / 1e3, "us");
    bench_emit("wake.cpu", n, cpu * 1e6 / (double)n, "us/wake");
    free(ns);
}

/* ---- little to do ---- */

static atomic_int stop;

static int compute(void *arg, void **out) {
    size_t *slices = arg;
    (void)out;
    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        int64_t end = bench_now_ns() + 20000;
        while (bench_now_ns() < end) continue;
        ++*slices;
        int err = heist_yield();
        if (err < 0) return err;
    }
    return 0;
}

struct table {
    heist_channel *there, *back;
    size_t trips;
};

static int ping(void *arg, void **out) {
    struct table *t = arg;
    int err = 0;
    (void)out;
    while (err == 0 && !atomic_load_explicit(&stop, memory_order_relaxed)) {
        void *v;
        err = heist_channel_send(t->there, NULL);
        if (err == 0) err = heist_channel_recv(t->back, &v);
        t->trips++;
    }
    heist_channel_close(t->there);
    return err;
}

static int pong(void *arg, void **out) {
    struct table *t = arg;
    void *v;
    int err;
    (void)out;
    while ((err = heist_channel_recv(t->there, &v)) == 0 && (err = heist_channel_send(t->back, v)) == 0) continue;
    return err == HEIST_ESHUTDOWN ? 0 : err;
}

/* Lets the runtime be for a second; gives its processor time in that second, in seconds. */
static double second_of(heist_task **task, int tasks) {
    void *ignored;
    pause_ns(100000000); /* what went before comes to rest, what was begun gets going */
    int64_t start = bench_now_ns();
    double cpu = bench_cpu_seconds();
    pause_ns(1000000000);
    cpu = bench_cpu_seconds() - cpu;
    cpu *= 1e9 / (double)(bench_now_ns() - start);
    atomic_store_explicit(&stop, 1, memory_order_relaxed);
    for (int i = 0; i < tasks; i++) {
        BENCH_MUST(heist_await(task[i], &ignored));
        heist_unref(task[i]);
    }
    atomic_store_explicit(&stop, 0, memory_order_relaxed);
    return cpu;
}

void bench_quiet(const struct bench_args *args) {
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    heist_runtime *runtime;
    opts.workers = args->workers;
    opts.name = "bench";
    BENCH_MUST(heist_runtime_new(&opts, &runtime));
    wakes(runtime, args->n);
    bench_emit("idle.cpu", 1, 1e3 * second_of(NULL, 0), "ms");
    if (args->workers > 1) {
        heist_task *task[2];
        size_t slices = 0;
        BENCH_MUST(heist_runtime_run_coroutine(runtime, compute, &slices, NULL, &task[0]));
        bench_emit("half.cpu", 1, second_of(task, 1), "processors");
        BENCH_CHECK(slices > 0);
        struct table t = {.trips = 0};
        BENCH_MUST(heist_channel_new(1, &t.there));
        BENCH_MUST(heist_channel_new(1, &t.back));
        double cpu = bench_cpu_seconds();
        BENCH_MUST(heist_runtime_run_coroutine(runtime, ping, &t, NULL, &task[0]));
        BENCH_MUST(heist_runtime_run_coroutine(runtime, pong, &t, NULL, &task[1]));
        second_of(task, 2);
        bench_emit("pair.cpu", t.trips, (bench_cpu_seconds() - cpu) * 1e6 / (double)t.trips, "us/roundtrip");
        heist_channel_unref(t.there);
        heist_channel_unref(t.back);
    }
    BENCH_MUST(heist_runtime_close(runtime, HEIST_FOREVER));
    heist_runtime_unref(runtime);
}
