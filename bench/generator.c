/* generator.c: one task takes N values from a generator: the price of a step, which is a switch to the body's stack and
 * one back.  `.unshared` leaves the check for two drivers out; `.thread` is the same on a plain thread; `.new` makes
 * one, takes one value and drops it; `.pipeline` takes N / 10 values through a buffer, from a generator that runs ahead
 * in a task of its own. */
#include "common.h"

static int numbers(heist_generator *self, void *arg, void **out) {
    (void)arg;
    (void)out;
    for (size_t i = 0;; i++) {
        int err = heist_generator_yield(self, bench_box(i), NULL);
        if (err < 0) return err;
    }
}

static double take(heist_generator *g, size_t n) {
    void *value = NULL;
    int64_t start = bench_now_ns();
    for (size_t i = 0; i < n; i++) {
        BENCH_MUST(heist_generator_next(g, &value));
        BENCH_CHECK(bench_unbox(value) == i);
    }
    return (double)(bench_now_ns() - start) / (double)n;
}

static double step(size_t n, unsigned flags) {
    heist_generator *g;
    heist_generator_options opts = HEIST_GENERATOR_OPTIONS_INIT;
    opts.flags = flags;
    BENCH_MUST(heist_generator_new(numbers, NULL, &opts, &g));
    double ns = take(g, n);
    heist_generator_unref(g);
    return ns;
}

static int generator_main(void *arg, void **out) {
    const struct bench_args *args = arg;
    (void)out;
    bench_emit("-", args->n, step(args->n, 0), "ns/step");
    bench_emit("unshared", args->n, step(args->n, HEIST_GENERATOR_UNSHARED), "ns/step");
    size_t lives = args->n / 10 + 1, values = args->n / 10 + 1;
    int64_t start = bench_now_ns();
    for (size_t i = 0; i < lives; i++) step(1, 0);
    bench_emit("new", lives, (double)(bench_now_ns() - start) / (double)lives, "ns/life");
    heist_generator *g, *ahead;
    heist_pipeline_options opts = HEIST_PIPELINE_OPTIONS_INIT;
    opts.length = 64;
    BENCH_MUST(heist_generator_new(numbers, NULL, NULL, &g));
    BENCH_MUST(heist_pipeline_buffer(g, &opts, &ahead));
    bench_emit("pipeline", values, take(ahead, values), "ns/value");
    BENCH_MUST(heist_generator_close(ahead));
    heist_generator_unref(ahead);
    heist_generator_unref(g);
    return 0;
}

void bench_generator(const struct bench_args *args) {
    bench_emit("thread", args->n, step(args->n, 0), "ns/step");
    bench_run(generator_main, args);
}
