/* yield.c: two tasks that hand the worker to each other N times: the price of one
 * trip through the scheduler, with nothing else to do. */
#include "common.h"

static int yielder(void *arg, void **out) {
    const struct bench_args *args = arg;
    (void)out;
    for (size_t i = 0; i < args->n; i++) {
        int err = heist_yield();
        if (err < 0) return err;
    }
    return 0;
}

static int yield_main(void *arg, void **out) {
    const struct bench_args *args = arg;
    heist_task *task[2];
    (void)out;
    int64_t start = bench_now_ns();
    for (int i = 0; i < 2; i++) BENCH_MUST(heist_create_task(yielder, arg, NULL, &task[i]));
    for (int i = 0; i < 2; i++) {
        void *ignored;
        BENCH_MUST(heist_await(task[i], &ignored));
        heist_unref(task[i]);
    }
    bench_emit("-", args->n, (double)(bench_now_ns() - start) / (2.0 * (double)args->n), "ns/yield");
    return 0;
}

void bench_yield(const struct bench_args *args) {
    bench_run(yield_main, args);
}
