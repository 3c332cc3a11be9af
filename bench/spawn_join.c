/* spawn_join.c: one task makes a child, awaits its result, and makes the next: the
 * price of a task's whole life when nothing runs beside it. */
#include "common.h"

static int child(void *arg, void **out) {
    *out = arg;
    return 0;
}

static int spawn_join_main(void *arg, void **out) {
    const struct bench_args *args = arg;
    size_t n = args->n, sum = 0;
    (void)out;
    int64_t start = bench_now_ns();
    for (size_t i = 0; i < n; i++) {
        heist_task *task;
        void *result;
        BENCH_MUST(heist_create_task(child, bench_box(i), NULL, &task));
        BENCH_MUST(heist_await(task, &result));
        sum += bench_unbox(result);
        heist_unref(task);
    }
    bench_emit("-", n, (double)(bench_now_ns() - start) / (double)n, "ns/spawn+join");
    BENCH_CHECK(sum == n * (n - 1) / 2);
    return 0;
}

void bench_spawn_join(const struct bench_args *args) {
    bench_run(spawn_join_main, args);
}
