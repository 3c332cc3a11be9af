/* foreign_submit.c: P plain threads, each submits N callbacks that only count, as fast
 * as it can; timed from before the threads are made until the last callback has run.
 *
 * Two doors.  The main figures p1 and p4 use the widest one the runtime has: with one
 * worker heist_loop_call_soon_threadsafe to its loop, with more
 * heist_runtime_call_soon, where any worker may run a callback and the count is atomic.
 * With more than one worker p1.loop and p4.loop measure the first door too: one loop,
 * whose callbacks run in the order of their submission and count without an atomic. */
#include "common.h"

#include <pthread.h>

enum { MAX_THREADS = 4 };

struct submission {
    heist_loop *loop;       /* the door: a loop … */
    heist_runtime *runtime; /* … or, when not NULL, the whole runtime */
    size_t per_thread;
    size_t left;              /* the loop's thread alone */
    atomic_size_t left_atomic; /* any worker; relaxed, for the future orders what follows */
    heist_future *all;
};

static int count_on_loop(void *arg) {
    struct submission *s = arg;
    return --s->left ? 0 : heist_future_set_result(s->all, NULL, NULL);
}

static int count_anywhere(void *arg) {
    struct submission *s = arg;
    if (atomic_fetch_sub_explicit(&s->left_atomic, 1, memory_order_relaxed) > 1) return 0;
    return heist_future_set_result(s->all, NULL, NULL);
}

static void *submitter(void *arg) {
    struct submission *s = arg;
    if (s->runtime)
        for (size_t i = 0; i < s->per_thread; i++)
            BENCH_MUST(heist_runtime_call_soon(s->runtime, count_anywhere, s, NULL, NULL));
    else
        for (size_t i = 0; i < s->per_thread; i++)
            BENCH_MUST(heist_loop_call_soon_threadsafe(s->loop, count_on_loop, s, NULL, NULL));
    return NULL;
}

/* Static: a callback that ended the wait may still be on its way out of it. */
static struct submission submissions[4];

static void submit_all(struct submission *s, const char *metric, heist_loop *loop, heist_runtime *runtime, int threads,
                       size_t n) {
    pthread_t thread[MAX_THREADS];
    void *ignored;
    s->loop = loop;
    s->runtime = runtime;
    s->per_thread = n;
    s->left = (size_t)threads * n;
    atomic_init(&s->left_atomic, (size_t)threads * n);
    BENCH_MUST(heist_future_new(NULL, &s->all));
    int64_t start = bench_now_ns();
    for (int i = 0; i < threads; i++) BENCH_CHECK(pthread_create(&thread[i], NULL, submitter, s) == 0);
    BENCH_MUST(heist_await(s->all, &ignored));
    int64_t ns = bench_now_ns() - start;
    for (int i = 0; i < threads; i++) pthread_join(thread[i], NULL);
    BENCH_CHECK(runtime ? atomic_load_explicit(&s->left_atomic, memory_order_relaxed) == 0 : s->left == 0);
    bench_emit(metric, n, (double)threads * (double)n / (double)ns * 1e3, "Mcallbacks/s");
}

static int foreign_submit_main(void *arg, void **out) {
    const struct bench_args *args = arg;
    heist_loop *loop;
    (void)out;
    BENCH_MUST(heist_get_running_loop(&loop));
    heist_runtime *runtime = heist_loop_runtime(loop);
    loop = heist_runtime_loop(runtime, 0); /* this task may move; the loop stays */
    submit_all(&submissions[0], "p1", loop, args->workers > 1 ? runtime : NULL, 1, args->n);
    submit_all(&submissions[1], "p4", loop, args->workers > 1 ? runtime : NULL, 4, args->n);
    if (args->workers > 1) {
        submit_all(&submissions[2], "p1.loop", loop, NULL, 1, args->n);
        submit_all(&submissions[3], "p4.loop", loop, NULL, 4, args->n);
    }
    return 0;
}

void bench_foreign_submit(const struct bench_args *args) {
    bench_run(foreign_submit_main, args);
    for (int i = 0; i < 4; i++) heist_unref(submissions[i].all);
}
