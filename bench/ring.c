/* ring.c: 503 tasks in a ring, a channel of capacity 1 between neighbours, one token
 * that is decremented at each hop; who gets 0 ends it.  The rest is woken by closing
 * the channels, outside of the time. */
#include "common.h"

enum { TASKS = 503 };

static struct bench_group arrived;
static heist_channel *channel[TASKS];

static int member(void *arg, void **out) {
    size_t i = bench_unbox(arg);
    heist_channel *in = channel[i], *next = channel[(i + 1) % TASKS];
    (void)out;
    for (;;) {
        void *v;
        int err = heist_channel_recv(in, &v);
        if (err == HEIST_ESHUTDOWN) return 0;
        if (err < 0) return err;
        if (!v) {
            bench_group_done(&arrived);
            return 0;
        }
        err = heist_channel_send(next, bench_box(bench_unbox(v) - 1));
        if (err < 0) return err;
    }
}

static int ring_main(void *arg, void **out) {
    const struct bench_args *args = arg;
    heist_task *task[TASKS];
    (void)out;
    bench_group_init(&arrived, 1);
    for (size_t i = 0; i < TASKS; i++) BENCH_MUST(heist_channel_new(1, &channel[i]));
    for (size_t i = 0; i < TASKS; i++) BENCH_MUST(heist_create_task(member, bench_box(i), NULL, &task[i]));
    int64_t start = bench_now_ns();
    BENCH_MUST(heist_channel_send(channel[0], bench_box(args->n)));
    bench_group_wait(&arrived);
    bench_emit("-", args->n, (double)(bench_now_ns() - start) / (double)args->n, "ns/hop");
    for (size_t i = 0; i < TASKS; i++) heist_channel_close(channel[i]);
    for (size_t i = 0; i < TASKS; i++) {
        void *ignored;
        BENCH_MUST(heist_await(task[i], &ignored));
        heist_unref(task[i]);
    }
    for (size_t i = 0; i < TASKS; i++) heist_channel_unref(channel[i]);
    return 0;
}

void bench_ring(const struct bench_args *args) {
    bench_run(ring_main, args);
    bench_group_deinit(&arrived);
}
