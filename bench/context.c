/* context.c: what context variables cost where eight of them are set: a copy of the context (dropped again), a value
 * read, a value set over one that the copy shares, and one that it does not; and a task whose creator has them, beside
 * spawn_join. */
#include "common.h"

enum { VARS = 8 };

static int child(void *arg, void **out) {
    *out = arg;
    return 0;
}

static double per_op(int64_t start, size_t n) { return (double)(bench_now_ns() - start) / (double)n; }

static int context_main(void *arg, void **out) {
    const struct bench_args *args = arg;
    size_t n = args->n, sum = 0;
    heist_context_var *var[VARS];
    heist_context *copy;
    void *value;
    (void)out;
    for (size_t i = 0; i < VARS; i++) {
        BENCH_MUST(heist_context_var_new("v", NULL, &var[i]));
        BENCH_MUST(heist_context_set(var[i], bench_box(i), NULL, NULL));
    }

    int64_t start = bench_now_ns();
    for (size_t i = 0; i < n; i++) {
        BENCH_MUST(heist_context_copy(NULL, &copy));
        heist_context_unref(copy);
    }
    bench_emit("-", n, per_op(start, n), "ns/copy");

    start = bench_now_ns();
    for (size_t i = 0; i < n; i++) {
        BENCH_MUST(heist_context_get(var[i % VARS], &value));
        sum += bench_unbox(value);
    }
    bench_emit("get", n, per_op(start, n), "ns/get");
    BENCH_CHECK(sum == n / VARS * (VARS * (VARS - 1) / 2) + n % VARS * (n % VARS - (n % VARS > 0)) / 2);

    start = bench_now_ns();
    for (size_t i = 0; i < n; i++) BENCH_MUST(heist_context_set(var[i % VARS], bench_box(i), NULL, NULL));
    bench_emit("set", n, per_op(start, n), "ns/set");

    start = bench_now_ns();
    for (size_t i = 0; i < n; i++) {
        BENCH_MUST(heist_context_copy(NULL, &copy)); /* shares the values, so the set copies their array */
        BENCH_MUST(heist_context_set(var[i % VARS], bench_box(i), NULL, NULL));
        heist_context_unref(copy);
    }
    bench_emit("copy_set", n, per_op(start, n), "ns/copy+set");

    sum = 0;
    start = bench_now_ns();
    for (size_t i = 0; i < n; i++) {
        heist_task *task;
        BENCH_MUST(heist_create_task(child, bench_box(i), NULL, &task));
        BENCH_MUST(heist_await(task, &value));
        sum += bench_unbox(value);
        heist_unref(task);
    }
    bench_emit("spawn_join", n, per_op(start, n), "ns/spawn+join");
    BENCH_CHECK(sum == n * (n - 1) / 2);
    for (size_t i = 0; i < VARS; i++) heist_context_var_unref(var[i]);
    return 0;
}

void bench_context(const struct bench_args *args) { bench_run(context_main, args); }
