/* spawn_many.c: one task makes N detached tasks without waiting for any; each counts
 * itself, the last one wakes the maker.  All may be outstanding at once, so this shows
 * what a task that has not begun costs, and how two workers share one flood. */
#include "common.h"

static struct bench_group group;

static int counted(void *arg, void **out) {
    (void)out;
    bench_group_done(arg);
    return 0;
}

static int spawn_many_main(void *arg, void **out) {
    const struct bench_args *args = arg;
    (void)out;
    bench_group_init(&group, args->n);
    int64_t start = bench_now_ns();
    for (size_t i = 0; i < args->n; i++) BENCH_MUST(heist_create_task(counted, &group, NULL, NULL));
    bench_group_wait(&group);
    bench_emit("-", args->n, (double)(bench_now_ns() - start) / (double)args->n, "ns/task");
    return 0;
}

void bench_spawn_many(const struct bench_args *args) {
    bench_run(spawn_many_main, args);
    bench_group_deinit(&group);
}
