/* select.c: two tasks send numbers over a channel of capacity 1 each, one takes whichever
 * comes, by select over both. */
#include "common.h"

struct sending {
    heist_channel *channel;
    size_t first, count; /* numbers: first, first + 2, … */
};

static int send_all(void *arg, void **out) {
    const struct sending *s = arg;
    (void)out;
    for (size_t i = 0; i < s->count; i++) {
        int err = heist_channel_send(s->channel, bench_box(s->first + i * 2));
        if (err < 0) return err;
    }
    return 0;
}

static int select_main(void *arg, void **out) {
    const struct bench_args *args = arg;
    size_t each = args->n / 2, n = each * 2, sum = 0;
    struct sending s[2];
    heist_task *t[2];
    (void)out;
    BENCH_CHECK(each);
    for (size_t i = 0; i < 2; i++) {
        s[i] = (struct sending){NULL, i, each};
        BENCH_MUST(heist_channel_new(1, &s[i].channel));
    }
    int64_t start = bench_now_ns();
    for (size_t i = 0; i < 2; i++) BENCH_MUST(heist_create_task(send_all, &s[i], NULL, &t[i]));
    for (size_t i = 0; i < n; i++) {
        heist_select_case cases[] = {HEIST_CASE_RECV(s[0].channel), HEIST_CASE_RECV(s[1].channel)};
        int won = BENCH_MUST(heist_select(cases, 2));
        sum += bench_unbox(cases[won].value);
    }
    bench_emit("-", n, (double)(bench_now_ns() - start) / (double)n, "ns/value");
    BENCH_CHECK(sum == n * (n - 1) / 2);
    for (size_t i = 0; i < 2; i++) {
        void *ignored;
        BENCH_MUST(heist_await(t[i], &ignored));
        heist_unref(t[i]);
        heist_channel_unref(s[i].channel);
    }
    return 0;
}

void bench_select(const struct bench_args *args) { bench_run(select_main, args); }
