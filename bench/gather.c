/* gather.c: one task makes N = 10,000 children, each of which returns its number, and waits for all in one call, which
 * hands their results back in order; a hundred times.  The calls that wait for many must cost the same for each child,
 * however many there are.  `.future` is the form that nests, awaited. */
#include "common.h"

#include <stdlib.h>

enum { ROUNDS = 100 };

static int child(void *arg, void **out) {
    *out = arg;
    return 0;
}

static void measure(size_t n, heist_future **f, void **results, int nests) {
    size_t sum = 0;
    int64_t start = bench_now_ns();
    for (int round = 0; round < ROUNDS; round++) {
        void **got = results;
        heist_future *all = NULL;
        for (size_t i = 0; i < n; i++) BENCH_MUST(heist_create_task(child, bench_box(i), NULL, &f[i]));
        if (nests) {
            void *value;
            BENCH_MUST(heist_gather_future(f, n, 0, &all));
            BENCH_MUST(heist_await(all, &value));
            got = value;
        } else {
            BENCH_MUST(heist_gather(f, n, results, 0));
        }
        for (size_t i = 0; i < n; i++) sum += bench_unbox(got[i]);
        heist_unref_all(f, n);
        heist_unref(all);
    }
    bench_emit(nests ? "future" : "-", n, (double)(bench_now_ns() - start) / (double)n / ROUNDS, "ns/child");
    BENCH_CHECK(sum == n * (n - 1) / 2 * ROUNDS);
}

static int gather_main(void *arg, void **out) {
    const struct bench_args *args = arg;
    heist_future **f = malloc(args->n * sizeof *f);
    void **results = malloc(args->n * sizeof *results);
    (void)out;
    BENCH_CHECK(f && results);
    for (int nests = 0; nests < 2; nests++) measure(args->n, f, results, nests);
    free(f);
    free(results);
    return 0;
}

void bench_gather(const struct bench_args *args) { bench_run(gather_main, args); }
