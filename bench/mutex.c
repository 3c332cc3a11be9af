/* mutex.c: 64 tasks and one lock that suspends the task, not the thread: each 50,000
 * times acquires it, increments a plain integer and releases it. */
#include "common.h"

enum { TASKS = 64 };

struct table {
    heist_lock lock;
    size_t count; /* the lock */
    size_t n;
};

static int increment(void *arg, void **out) {
    struct table *t = arg;
    (void)out;
    for (size_t i = 0; i < t->n; i++) {
        int err = heist_lock_acquire(&t->lock);
        if (err < 0) return err;
        t->count++;
        heist_lock_release(&t->lock);
    }
    return 0;
}

static int mutex_main(void *arg, void **out) {
    const struct bench_args *args = arg;
    struct table t = {.lock = HEIST_LOCK_INIT, .n = args->n};
    heist_task *tasks[TASKS];
    void *ignored;
    (void)out;
    int64_t start = bench_now_ns();
    for (int i = 0; i < TASKS; i++) BENCH_MUST(heist_create_task(increment, &t, NULL, &tasks[i]));
    for (int i = 0; i < TASKS; i++) {
        BENCH_MUST(heist_await(tasks[i], &ignored));
        heist_unref(tasks[i]);
    }
    bench_emit("-", args->n, (double)(bench_now_ns() - start) / (double)(TASKS * args->n), "ns/lock+unlock");
    BENCH_CHECK(t.count == TASKS * args->n);
    return 0;
}

void bench_mutex(const struct bench_args *args) { bench_run(mutex_main, args); }
