/* common.c: clock, output, checks and the counting group of heist-bench (see common.h).
 *
 * Called by the workloads from tasks, callbacks and plain threads alike; nothing here
 * keeps state of its own. */
#include "common.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

int64_t bench_now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

double bench_cpu_seconds(void) {
    struct rusage r;
    getrusage(RUSAGE_SELF, &r);
    return (double)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) + (double)(r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1e6;
}

long bench_status_kib(const char *key) {
    char line[256];
    long value = 0;
    FILE *f = fopen("/proc/self/status", "r");
    if (!f) return 0;
    size_t length = strlen(key);
    while (fgets(line, sizeof line, f))
        if (!strncmp(line, key, length) && line[length] == ':') value = strtol(line + length + 1, NULL, 10);
    fclose(f);
    return value;
}

int bench_compare_ns(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

void bench_emit(const char *metric, size_t n, double value, const char *unit) {
    printf("R\t%s\t%zu\t%.4f\t%s\n", metric, n, value, unit);
}

void bench_check(int ok, const char *what, const char *file, int line) {
    if (ok) return;
    fprintf(stderr, "%s:%d: wrong result: %s\n", file, line, what);
    exit(1);
}

int bench_must(int code, const char *what, const char *file, int line) {
    if (code >= 0) return code;
    fprintf(stderr, "%s:%d: %s: %s (%s)\n", file, line, what, heist_error_name(code), heist_strerror(code));
    exit(1);
}

void bench_run(heist_coro_fn main_fn, const struct bench_args *args) {
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    opts.workers = args->workers;
    opts.name = "bench";
    BENCH_MUST(heist_run(main_fn, (void *)(uintptr_t)args, &opts, NULL));
}

void bench_group_init(struct bench_group *g, size_t goal) {
    atomic_init(&g->count, 0);
    g->goal = goal;
    BENCH_MUST(heist_future_new(NULL, &g->all));
}

void bench_group_done(struct bench_group *g) {
    if (atomic_fetch_add_explicit(&g->count, 1, memory_order_relaxed) + 1 == g->goal)
        BENCH_MUST(heist_future_set_result(g->all, NULL, NULL));
}

void bench_group_wait(struct bench_group *g) {
    void *ignored;
    BENCH_MUST(heist_await(g->all, &ignored));
    BENCH_CHECK(atomic_load_explicit(&g->count, memory_order_relaxed) == g->goal);
}

void bench_group_deinit(struct bench_group *g) {
    heist_unref(g->all);
    g->all = NULL;
}
