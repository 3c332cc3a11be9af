/* timer_churn.c: while 10,000 timers stand, one more is armed and cancelled N times, as
 * a server does with a time-out that never fires.  Cancelling takes effect at once, so
 * the task need not yield for the loop to clean up. */
#include "common.h"

enum { OTHERS = 10000 };

static int never(void *arg) {
    (void)arg;
    BENCH_CHECK(!"a timer of the far future came due");
    return 0;
}

static int timer_churn_main(void *arg, void **out) {
    const struct bench_args *args = arg;
    static heist_handle *other[OTHERS];
    heist_loop *loop;
    (void)out;
    BENCH_MUST(heist_get_running_loop(&loop));
    for (int i = 0; i < OTHERS; i++)
        BENCH_MUST(heist_loop_call_later(loop, 60.0 + 0.006 * i, never, NULL, NULL, &other[i]));
    int64_t start = bench_now_ns();
    for (size_t i = 0; i < args->n; i++) {
        heist_handle *timer;
        BENCH_MUST(heist_loop_call_later(loop, 30.0, never, NULL, NULL, &timer));
        BENCH_CHECK(heist_handle_cancel(timer) == 1);
        heist_handle_unref(timer);
    }
    bench_emit("-", args->n, (double)(bench_now_ns() - start) / (double)args->n, "ns/arm+cancel");
    for (int i = 0; i < OTHERS; i++) {
        BENCH_CHECK(heist_handle_cancel(other[i]) == 1);
        heist_handle_unref(other[i]);
    }
    return 0;
}

void bench_timer_churn(const struct bench_args *args) {
    bench_run(timer_churn_main, args);
}
