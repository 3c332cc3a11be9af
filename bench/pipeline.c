/* pipeline.c: a prime sieve.  A task sends 2, 3, 4 … into the first channel; each prime
 * that comes out of the last channel gets a task behind it that lets its multiples fall.
 * Hardly more work between two hand-overs than a division: whoever moves it to another
 * processor at each of them loses, and more workers are slower than one.
 *
 * The end travels backwards: who wants no more closes its channel, its sender hears of
 * it and closes the one before. */
#include "common.h"

#include <stdlib.h>

struct stage {
    heist_channel *in, *out; /* in: NULL in the first */
    size_t prime;
    heist_task *task;
};

static int numbers(void *arg, void **out) {
    const struct stage *s = arg;
    (void)out;
    for (size_t i = 2;; i++) {
        int err = heist_channel_send(s->out, bench_box(i));
        if (err < 0) return err == HEIST_ESHUTDOWN ? 0 : err;
    }
}

static int sieve(void *arg, void **out) {
    const struct stage *s = arg;
    int err;
    (void)out;
    do {
        void *v;
        err = heist_channel_recv(s->in, &v);
        if (err == 0 && bench_unbox(v) % s->prime) err = heist_channel_send(s->out, v);
    } while (err == 0);
    heist_channel_close(s->in);
    return err == HEIST_ESHUTDOWN ? 0 : err;
}

/* The hand-overs that it takes to know the primes: each number goes to the stage of its
 * least divisor, a prime to the end.  Done by hand, it also says what must come out. */
static size_t handovers(size_t *prime, size_t n) {
    size_t found = 0, count = 0;
    for (size_t i = 2; found < n; i++) {
        size_t stage = 0;
        while (stage < found && i % prime[stage]) stage++;
        count += stage + 1;
        if (stage == found) prime[found++] = i;
    }
    return count;
}

static int pipeline_main(void *arg, void **out) {
    const struct bench_args *args = arg;
    size_t n = args->n;
    size_t *prime = calloc(n, sizeof *prime);
    struct stage *stage = calloc(n + 1, sizeof *stage);
    (void)out;
    BENCH_CHECK(prime && stage);
    size_t count = handovers(prime, n);
    int64_t start = bench_now_ns();
    BENCH_MUST(heist_channel_new(1, &stage[0].out));
    BENCH_MUST(heist_create_task(numbers, &stage[0], NULL, &stage[0].task));
    for (size_t i = 1; i <= n; i++) {
        void *v;
        struct stage *s = &stage[i];
        s->in = stage[i - 1].out;
        BENCH_MUST(heist_channel_recv(s->in, &v));
        s->prime = bench_unbox(v);
        BENCH_CHECK(s->prime == prime[i - 1]);
        if (i == n) break; /* nobody asks for what comes behind the last one */
        BENCH_MUST(heist_channel_new(1, &s->out));
        BENCH_MUST(heist_create_task(sieve, s, NULL, &s->task));
    }
    bench_emit("-", n, (double)(bench_now_ns() - start) / (double)count, "ns/handover");
    heist_channel_close(stage[n - 1].out);
    for (size_t i = 0; i < n; i++) {
        void *ignored;
        BENCH_MUST(heist_await(stage[i].task, &ignored));
        heist_unref(stage[i].task);
    }
    for (size_t i = 0; i < n; i++) heist_channel_unref(stage[i].out);
    free(stage);
    free(prime);
    return 0;
}

void bench_pipeline(const struct bench_args *args) { bench_run(pipeline_main, args); }
