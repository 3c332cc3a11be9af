/* sleepers.c: N tasks that sleep until one and the same instant, 10 s after the start,
 * all made before it: memory for each, processor time, and how late the last one is.
 *
 * The variant `sleepers.callback` asks the same of heist_loop_call_at: a callback has
 * no stack.  It runs in a process of its own, for the peak of memory is the process's. */
#include "common.h"

static struct bench_group group;
static double deadline;

static int sleeper(void *arg, void **out) {
    (void)out;
    int err = heist_sleep_until(deadline);
    if (err < 0) return err;
    BENCH_CHECK(heist_time() >= deadline); /* none wakes early */
    bench_group_done(arg);
    return 0;
}

static int due(void *arg) {
    bench_group_done(arg);
    return 0;
}

static void make_task(void) {
    BENCH_MUST(heist_create_task(sleeper, &group, NULL, NULL));
}

static void make_callback(void) {
    heist_loop *loop;
    BENCH_MUST(heist_get_running_loop(&loop));
    BENCH_MUST(heist_loop_call_at(loop, deadline, due, &group, NULL, NULL));
}

static void sleep_all(size_t n, void (*make)(void)) {
    bench_group_init(&group, n);
    long rss_kib = bench_status_kib("VmRSS");
    double cpu = bench_cpu_seconds();
    deadline = heist_time() + 10.0;
    for (size_t i = 0; i < n; i++) make();
    BENCH_CHECK(heist_time() < deadline);
    bench_group_wait(&group);
    double late = heist_time() - deadline;
    bench_emit("rss_per_task", n, (double)(bench_status_kib("VmHWM") - rss_kib) * 1024.0 / (double)n, "bytes/task");
    bench_emit("cpu", n, bench_cpu_seconds() - cpu, "s");
    bench_emit("overshoot", n, late * 1e3, "ms");
}

static int sleepers_main(void *arg, void **out) {
    (void)out;
    sleep_all(((const struct bench_args *)arg)->n, make_task);
    return 0;
}

static int sleepers_callback_main(void *arg, void **out) {
    (void)out;
    sleep_all(((const struct bench_args *)arg)->n, make_callback);
    return 0;
}

void bench_sleepers(const struct bench_args *args) {
    bench_run(sleepers_main, args);
    bench_group_deinit(&group);
}

void bench_sleepers_callback(const struct bench_args *args) {
    bench_run(sleepers_callback_main, args);
    bench_group_deinit(&group);
}
