/* fib.c: fib(n) makes a task for fib(n-1), computes fib(n-2) itself by a plain call of
 * the same coroutine, and awaits: fork-join with almost no work in a task.
 *
 * The serial form is the same recursion as plain calls, kept from being inlined or
 * turned into a loop; it gives the answer to check against. */
#include "common.h"

__attribute__((noinline)) static size_t fib_serial(size_t n) {
    __asm__ volatile("" : "+r"(n));
    return n < 2 ? n : fib_serial(n - 1) + fib_serial(n - 2);
}

static int fib(void *arg, void **out) {
    size_t n = bench_unbox(arg);
    if (n < 2) {
        *out = arg;
        return 0;
    }
    heist_task *task;
    void *a, *b;
    int err = heist_create_task(fib, bench_box(n - 1), NULL, &task);
    if (err < 0) return err;
    int err_inline = fib(bench_box(n - 2), &b);
    err = heist_await(task, &a);
    heist_unref(task);
    if (err < 0 || err_inline < 0) return err < 0 ? err : err_inline;
    *out = bench_box(bench_unbox(a) + bench_unbox(b));
    return 0;
}

static int fib_main(void *arg, void **out) {
    const struct bench_args *args = arg;
    void *got;
    (void)out;
    int64_t start = bench_now_ns();
    size_t want = fib_serial(args->n);
    int64_t serial_ns = bench_now_ns() - start;
    start = bench_now_ns();
    BENCH_MUST(fib(bench_box(args->n), &got));
    int64_t ns = bench_now_ns() - start;
    BENCH_CHECK(bench_unbox(got) == want);
    size_t tasks = fib_serial(args->n + 1) - 1;
    bench_emit("-", args->n, (double)ns / 1e6, "ms");
    bench_emit("per_task", args->n, (double)ns / (double)tasks, "ns/task");
    bench_emit("serial", args->n, (double)serial_ns / 1e6, "ms");
    return 0;
}

void bench_fib(const struct bench_args *args) {
    bench_run(fib_main, args);
}
