/* Out of threads: the call that needed them says -EAGAIN, the threads that had started
 * are gone again, the caller keeps its arguments, and a later call works.
 *
 * The linker puts a door in front of pthread_create (see CMakeLists.txt), which refuses
 * the n-th request.  Where the process may, the kernel's own limit is met too. */
#include "limits/child.h"

#include <dirent.h>
#include <grp.h>
#include <heist.h>
#include <pthread.h>
#include <time.h>

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *arg);

static _Atomic(int) until_refused; /* 1: the next request; 0: none */
static _Atomic(int) refused, asked;

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *arg) {
    asked++;
    if (until_refused > 0 && --until_refused == 0) {
        refused++;
        return EAGAIN;
    }
    return __real_pthread_create(thread, attributes, start, arg);
}

static int threads_now(void) {
    DIR *dir = opendir("/proc/self/task");
    int n = 0;
    if (!dir) return -1;
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) n += entry->d_name[0] != '.';
    closedir(dir);
    return n;
}

/* A thread leaves the list a moment after it was joined.  A detector starts one of its own, when it likes. */
static bool threads_settle_at(int n) {
    const struct timespec moment = {0, 1000000};
    int most = n + CHILD_INSTRUMENTED;
    for (int i = 0; i < 20000 && threads_now() > most; i++) nanosleep(&moment, NULL);
    int now = threads_now();
    return now >= n && now <= most;
}

static int twice(void *arg, void **out) {
    int *n = arg;
    *n *= 2;
    *out = n;
    return 0;
}

static void use(heist_runtime *rt) {
    int n = 21;
    void *result = NULL;
    heist_task *task = NULL;
    scene_expect(heist_runtime_run_coroutine(rt, twice, &n, NULL, &task) == 0);
    scene_expect(heist_await(task, &result) == 0 && result == &n && n == 42);
    heist_unref(task);
    scene_expect(heist_runtime_close(rt, HEIST_FOREVER) == 0);
    heist_runtime_unref(rt);
}

#define WORKERS 6

static void scene_runtime(long flags) {
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    heist_runtime *rt = NULL;
    opts.workers = WORKERS;
    opts.flags = (unsigned)flags;
    scene_expect(heist_runtime_new(&opts, &rt) == 0);
    use(rt);
    rt = NULL;
    int before = threads_now();
    for (int at = 1; at <= WORKERS; at++) {
        until_refused = at;
        asked = refused = 0;
        scene_expect(heist_runtime_new(&opts, &rt) == -EAGAIN);
        scene_expect(rt == NULL && refused == 1 && asked == at);
        scene_expect(threads_settle_at(before));
    }
    until_refused = 0;
    scene_expect(heist_runtime_new(&opts, &rt) == 0);
    use(rt);
}

static void scene_run(long flags) {
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    opts.workers = WORKERS;
    opts.flags = (unsigned)flags;
    int n = 21;
    void *result = NULL;
    int before = threads_now();
    for (int at = 1; at < WORKERS; at++) {
        until_refused = at;
        refused = 0;
        scene_expect(heist_run(twice, &n, &opts, &result) == -EAGAIN);
        scene_expect(result == NULL && n == 21 && refused == 1); /* main did not run */
        scene_expect(threads_settle_at(before));
    }
    until_refused = 0;
    scene_expect(heist_run(twice, &n, &opts, &result) == 0 && result == &n && n == 42);
}

/* One worker on the caller's thread asks for none. */
static void scene_alone(long unused) {
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    heist_loop *loop = NULL;
    int n = 1;
    void *result = NULL;
    (void)unused;
    opts.workers = 1;
    asked = 0;
    scene_expect(heist_run(twice, &n, &opts, &result) == 0 && n == 2);
    scene_expect(heist_loop_new(NULL, &loop) == 0);
    scene_expect(heist_loop_run_coroutine(loop, twice, &n, NULL, &result) == 0 && n == 4);
    scene_expect(heist_loop_close(loop) == 0);
    heist_loop_unref(loop);
    scene_expect(asked == 0);
}

/* A user that nobody else is, with room for a few threads: what the kernel says itself. */
static void scene_kernel(long unused) {
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    heist_runtime *rt = NULL;
    struct rlimit limit = {WORKERS - 1, WORKERS - 1};
    int tried = 0;
    (void)unused;
    if (geteuid() != 0 || setgroups(0, NULL) < 0 || setresuid(59473, 59473, 59473) < 0) {
        printf("skipped: only root becomes somebody else\n");
        exit(CHILD_SKIPS);
    }
    scene_expect(setrlimit(RLIMIT_NPROC, &limit) == 0);
    opts.workers = WORKERS;
    scene_expect(heist_runtime_new(&opts, &rt) == -EAGAIN && !rt);
    scene_expect(threads_settle_at(1));
    opts.workers = 2;
    /* The kernel counts a thread that is ending for a moment longer than the list shows it. */
    int err;
    while ((err = heist_runtime_new(&opts, &rt)) == -EAGAIN && tried++ < 30000) {
        const struct timespec moment = {0, 1000000};
        nanosleep(&moment, NULL);
    }
    scene_expect(err == 0);
    use(rt);
}

/* As many workers as there can be. */
static void scene_many(long workers) {
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    heist_runtime *rt = NULL;
    struct rlimit limit;
    scene_expect(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = limit.rlim_max;
    scene_expect(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    opts.workers = (int)workers;
    int err = heist_runtime_new(&opts, &rt);
    if (err == -EAGAIN || err == -EMFILE || err == -ENFILE) { /* a clear answer, and nothing is left */
        scene_expect(!rt && threads_settle_at(1));
        printf("skipped: this machine refuses so many (%s)\n", heist_error_name(err));
        exit(CHILD_SKIPS);
    }
    scene_expect(err == 0 && heist_runtime_workers(rt) == workers);
    scene_expect(threads_settle_at((int)workers + 1));
    use(rt);
    scene_expect(threads_settle_at(1));
    opts.workers = 1025;
    scene_expect(heist_runtime_new(&opts, &rt) == -EINVAL);
}

struct doors {
    pthread_mutex_t lock;
    pthread_cond_t opened;
    int inside;
    bool open;
};

static int pass(void *arg, void **out) {
    struct doors *d = arg;
    (void)out;
    pthread_mutex_lock(&d->lock);
    d->inside++;
    while (!d->open) pthread_cond_wait(&d->opened, &d->lock);
    pthread_mutex_unlock(&d->lock);
    return 0;
}

static void open_doors(struct doors *d) {
    pthread_mutex_lock(&d->lock);
    d->open = true;
    pthread_cond_broadcast(&d->opened);
    pthread_mutex_unlock(&d->lock);
}

/* A pool asks for threads one by one: without any its answer is the system's, with one a second is not needed. */
static void scene_executor(long unused) {
    struct doors d = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, false};
    heist_executor_options opts = HEIST_EXECUTOR_OPTIONS_INIT;
    heist_executor_stats stats = HEIST_EXECUTOR_STATS_INIT;
    heist_executor *e = NULL;
    heist_executor_map *map = NULL;
    heist_future *f[2] = {NULL, NULL};
    void *args[5] = {&d, &d, &d, &d, &d};
    (void)unused;
    int before = threads_now();
    opts.max_threads = 6;
    scene_expect(heist_executor_new(&opts, &e) == 0);
    until_refused = 1;
    refused = 0;
    scene_expect(heist_executor_submit(e, pass, &d, NULL, &f[0]) == -EAGAIN && !f[0] && refused == 1);
    until_refused = 1;
    scene_expect(heist_executor_map_new(e, pass, args, 5, NULL, HEIST_FOREVER, &map) == -EAGAIN && !map);
    scene_expect(heist_executor_get_stats(e, &stats) == 0 && !stats.threads && !stats.queued && !d.inside);
    scene_expect(threads_settle_at(before));
    scene_expect(heist_executor_submit(e, pass, &d, NULL, &f[0]) == 0); /* one thread, which it occupies */
    asked = refused = 0;
    until_refused = 1;
    scene_expect(heist_executor_submit(e, pass, &d, NULL, &f[1]) == 0 && refused == 1);
    scene_expect(heist_executor_get_stats(e, &stats) == 0 && stats.threads == 1);
    until_refused = 3; /* the third of five */
    scene_expect(heist_executor_map_new(e, pass, args, 5, NULL, HEIST_FOREVER, &map) == 0);
    scene_expect(refused == 2 && asked == 4);
    scene_expect(heist_executor_get_stats(e, &stats) == 0 && stats.threads == 3);
    open_doors(&d);
    for (int i = 0; i < 2; i++) {
        scene_expect(heist_await(f[i], NULL) == 0);
        heist_unref(f[i]);
    }
    for (int i = 0; i < 5; i++) scene_expect(heist_executor_map_next(map, NULL) == 1);
    heist_executor_map_free(map);
    scene_expect(heist_executor_shutdown(e, 0) == 0);
    scene_expect(heist_executor_get_stats(e, &stats) == 0 && stats.done == 7 && !stats.threads);
    heist_executor_unref(e);
    scene_expect(threads_settle_at(before));
}

static const struct scene scenes[] = {
    {"runtime", scene_runtime}, {"run", scene_run},   {"alone", scene_alone},
    {"kernel", scene_kernel},   {"many", scene_many}, {"executor", scene_executor},
};

static void runtime_whose_threads_are_refused_leaves_none_behind(void **state) {
    (void)state;
    child_play("runtime", 0);
    child_expect_success();
    child_play("runtime", HEIST_RUNTIME_OVERFLOW_HANDLER);
    child_expect_success();
}

static void run_whose_threads_are_refused_does_not_run_main(void **state) {
    (void)state;
    child_play("run", 0);
    child_expect_success();
    child_play("run", HEIST_RUNTIME_NO_OVERFLOW_HANDLER);
    child_expect_success();
}

static void one_worker_and_a_loop_of_its_own_ask_for_no_thread(void **state) {
    (void)state;
    child_play("alone", 0);
    child_expect_success();
}

static void executor_needs_one_thread_and_no_more(void **state) {
    (void)state;
    child_play("executor", 0);
    child_expect_success();
}

static void limit_of_the_kernel_is_a_code_too(void **state) {
    (void)state;
    if (CHILD_INSTRUMENTED) skip(); /* a detector dies of it, or has threads of its own */
    child_play("kernel", 0);
    child_expect_success();
}

static void many_workers_start_work_and_end(void **state) {
    (void)state;
    child_play("many", child_heavy() ? 1024 : 100);
    child_expect_success();
}

int main(int argc, char **argv) {
    child_main(argc, argv, scenes, sizeof scenes / sizeof scenes[0]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(runtime_whose_threads_are_refused_leaves_none_behind),
        cmocka_unit_test(run_whose_threads_are_refused_does_not_run_main),
        cmocka_unit_test(one_worker_and_a_loop_of_its_own_ask_for_no_thread),
        cmocka_unit_test(executor_needs_one_thread_and_no_more),
        cmocka_unit_test(limit_of_the_kernel_is_a_code_too),
        cmocka_unit_test(many_workers_start_work_and_end),
    };
    return cmocka_run_group_tests_name("limits/threads", tests, NULL, NULL);
}
