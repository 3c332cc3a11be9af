/* pingpong.c: two tasks and two channels of capacity 1; a number goes over one and
 * comes back, one larger, over the other. */
#include "common.h"

struct table {
    heist_channel *there, *back;
    size_t n;
};

static int ping(void *arg, void **out) {
    struct table *t = arg;
    void *v = NULL;
    for (size_t i = 0; i < t->n; i++) {
        int err = heist_channel_send(t->there, v);
        if (err == 0) err = heist_channel_recv(t->back, &v);
        if (err < 0) return err;
    }
    *out = v;
    return 0;
}

static int pong(void *arg, void **out) {
    struct table *t = arg;
    (void)out;
    for (size_t i = 0; i < t->n; i++) {
        void *v;
        int err = heist_channel_recv(t->there, &v);
        if (err == 0) err = heist_channel_send(t->back, bench_box(bench_unbox(v) + 1));
        if (err < 0) return err;
    }
    return 0;
}

static int pingpong_main(void *arg, void **out) {
    const struct bench_args *args = arg;
    struct table t = {.n = args->n};
    heist_task *a, *b;
    void *v, *ignored;
    (void)out;
    BENCH_MUST(heist_channel_new(1, &t.there));
    BENCH_MUST(heist_channel_new(1, &t.back));
    int64_t start = bench_now_ns();
    BENCH_MUST(heist_create_task(pong, &t, NULL, &b));
    BENCH_MUST(heist_create_task(ping, &t, NULL, &a));
    BENCH_MUST(heist_await(a, &v));
    bench_emit("-", args->n, (double)(bench_now_ns() - start) / (double)args->n, "ns/roundtrip");
    BENCH_CHECK(bench_unbox(v) == args->n);
    BENCH_MUST(heist_await(b, &ignored));
    heist_unref(a);
    heist_unref(b);
    heist_channel_unref(t.there);
    heist_channel_unref(t.back);
    return 0;
}

void bench_pingpong(const struct bench_args *args) {
    bench_run(pingpong_main, args);
}
