/* common.h: what the workloads of heist-bench share: clock, output, checks, a counter
 * that ends a wait.
 *
 * The program speaks the protocol of bench/peers/README.md: `heist-bench WORKLOAD
 * WORKERS N` prints one line `R<TAB>metric<TAB>n<TAB>value<TAB>unit` for each figure
 * and one line `M<TAB>peak-KiB` at the end.  A workload checks its result and ends the
 * process with status 1 when it is wrong; a figure without a right result is none.
 * Only public headers are used: what is measured is what a user gets. */
#ifndef BENCH_COMMON_H
#define BENCH_COMMON_H

#include <heist.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

struct bench_args {
    int workers; /* threads that run tasks */
    size_t n;    /* the size of the work; a server takes it as its port */
};

/* One entry of the table in main.c. */
struct bench_workload {
    const char *name;
    size_t default_n;
    void (*run)(const struct bench_args *args);
};

/* ---- measuring ---- */

int64_t bench_now_ns(void);
double bench_cpu_seconds(void); /* user and system time of the process so far */
long bench_status_kib(const char *key); /* VmRSS, VmHWM … */
int bench_compare_ns(const void *a, const void *b); /* for qsort over int64_t */

/* metric "-" is the workload's main figure. */
void bench_emit(const char *metric, size_t n, double value, const char *unit);

/* ---- checks: end the process with status 1 ---- */

#define BENCH_CHECK(condition) bench_check((condition) != 0, #condition, __FILE__, __LINE__)
/* A call of the library that must succeed; gives its value when that is not negative. */
#define BENCH_MUST(call) bench_must((call), #call, __FILE__, __LINE__)
void bench_check(int ok, const char *what, const char *file, int line);
int bench_must(int code, const char *what, const char *file, int line);

/* ---- running ---- */

/* Runs main_fn(args) as the first task of a runtime with args->workers workers. */
void bench_run(heist_coro_fn main_fn, const struct bench_args *args);

/* Small integers travel through arguments, results and channels as pointers. */
static inline void *bench_box(size_t value) {
    return (void *)(uintptr_t)value;
}
static inline size_t bench_unbox(const void *boxed) {
    return (size_t)(uintptr_t)boxed;
}

/* Counts `goal` completions; the last one wakes the task that waits.  The counter is
 * relaxed: it carries no data, and the future that the last one sets orders the rest.
 * `all` is released by bench_group_deinit after the runtime has closed, when the last
 * bench_group_done is certain to have returned. */
struct bench_group {
    atomic_size_t count;
    size_t goal;
    heist_future *all;
};
void bench_group_init(struct bench_group *g, size_t goal); /* in a task */
void bench_group_done(struct bench_group *g);
void bench_group_wait(struct bench_group *g); /* and checks the count */
void bench_group_deinit(struct bench_group *g);

/* ---- the workloads, one file each ---- */

void bench_yield(const struct bench_args *args);
void bench_spawn_join(const struct bench_args *args);
void bench_context(const struct bench_args *args);
void bench_spawn_many(const struct bench_args *args);
void bench_gather(const struct bench_args *args);
void bench_fib(const struct bench_args *args);
void bench_skynet(const struct bench_args *args);
void bench_pingpong(const struct bench_args *args);
void bench_ring(const struct bench_args *args);
void bench_pipeline(const struct bench_args *args);
void bench_queue(const struct bench_args *args);
void bench_select(const struct bench_args *args);
void bench_sleepers(const struct bench_args *args);
void bench_sleepers_callback(const struct bench_args *args);
void bench_timer_churn(const struct bench_args *args);
void bench_foreign_submit(const struct bench_args *args);
void bench_foreign_roundtrip(const struct bench_args *args);
void bench_quiet(const struct bench_args *args);
void bench_mutex(const struct bench_args *args);
void bench_blocked(const struct bench_args *args);
void bench_executor(const struct bench_args *args);
void bench_process(const struct bench_args *args);
void bench_accept(const struct bench_args *args);
void bench_echo(const struct bench_args *args);
void bench_stream(const struct bench_args *args);
void bench_echo_streams(const struct bench_args *args);
void bench_files(const struct bench_args *args);
void bench_budget(const struct bench_args *args);
void bench_mark_begin(void);
void bench_mark_end(void);
void bench_scale_tasks(const struct bench_args *args);
void bench_scale_sleepers(const struct bench_args *args);
void bench_scale_timers(const struct bench_args *args);
void bench_scale_submitters(const struct bench_args *args);
void bench_generator(const struct bench_args *args);

#endif
