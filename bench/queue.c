/* queue.c: four tasks put numbers into one queue bounded to 64, four take them out. */
#include "common.h"

enum { SIDES = 4, BOUND = 64 };

struct side {
    heist_queue *queue;
    size_t first, count; /* numbers: first, first + SIDES, … */
    size_t sum;
};

static int produce(void *arg, void **out) {
    const struct side *s = arg;
    (void)out;
    for (size_t i = 0; i < s->count; i++) {
        int err = heist_queue_put(s->queue, bench_box(s->first + i * SIDES));
        if (err < 0) return err;
    }
    return 0;
}

static int consume(void *arg, void **out) {
    struct side *s = arg;
    size_t sum = 0;
    (void)out;
    for (size_t i = 0; i < s->count; i++) {
        void *v;
        int err = heist_queue_get(s->queue, &v);
        if (err < 0) return err;
        sum += bench_unbox(v);
    }
    s->sum = sum;
    return 0;
}

static int queue_main(void *arg, void **out) {
    const struct bench_args *args = arg;
    size_t each = args->n / SIDES, n = each * SIDES, sum = 0;
    struct side in[SIDES], from[SIDES];
    heist_queue *queue;
    heist_task *t[2 * SIDES];
    (void)out;
    BENCH_CHECK(each);
    BENCH_MUST(heist_queue_new(BOUND, NULL, &queue));
    int64_t start = bench_now_ns();
    for (size_t i = 0; i < SIDES; i++) {
        in[i] = from[i] = (struct side){queue, i, each, 0};
        BENCH_MUST(heist_create_task(produce, &in[i], NULL, &t[i]));
        BENCH_MUST(heist_create_task(consume, &from[i], NULL, &t[SIDES + i]));
    }
    for (size_t i = 0; i < 2 * SIDES; i++) {
        void *ignored;
        BENCH_MUST(heist_await(t[i], &ignored));
        heist_unref(t[i]);
    }
    bench_emit("-", n, (double)(bench_now_ns() - start) / (double)n, "ns/item");
    for (size_t i = 0; i < SIDES; i++) sum += from[i].sum;
    BENCH_CHECK(sum == n * (n - 1) / 2);
    BENCH_CHECK(heist_queue_empty(queue));
    heist_queue_unref(queue);
    return 0;
}

void bench_queue(const struct bench_args *args) { bench_run(queue_main, args); }
