/* support/harness.c: the counting allocator, the leak check around each test and the
 * watchdog; see harness.h.
 *
 * The counters are plain sequentially consistent atomics: nothing here is measured. */
#include "support/harness.h"

#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

/* A test that takes longer than this, on a machine loaded twenty times over and under valgrind, hangs. */
#define TEST_SECONDS_MAX 250

static _Atomic(long) live_blocks;
static _Atomic(long) asked_for;
static _Atomic(long) fail_at; /* 0: never */
static _Atomic(bool) fail_later;

/* ---- the allocator ---- */

static bool refuses(void) {
    long number = ++asked_for;
    long at = fail_at;
    if (at == 0) return false;
    return number == at || (fail_later && number > at);
}

static void *counting_malloc(size_t size, void *user) {
    (void)user;
    if (refuses()) return NULL;
    void *block = malloc(size);
    if (block) live_blocks++;
    return block;
}

static void *counting_realloc(void *old, size_t size, void *user) {
    (void)user;
    if (refuses()) return NULL;
    void *block = realloc(old, size);
    if (block && !old) live_blocks++;
    return block;
}

static void counting_free(void *block, void *user) {
    (void)user;
    if (block) live_blocks--;
    free(block);
}

void harness_fail_allocation(long n, bool all_later) {
    fail_later = all_later;
    fail_at = n > 0 ? asked_for + n : 0;
}

long harness_allocations(void) {
    static long before;
    long now = asked_for, since = now - before;
    before = now;
    return since;
}

long harness_blocks(void) {
    return live_blocks;
}

/* ---- the process ---- */

static int count_entries(const char *path) {
    DIR *dir = opendir(path);
    if (!dir) return -1;
    int n = 0;
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) n += entry->d_name[0] != '.';
    closedir(dir);
    return n;
}

int harness_threads(void) {
    return count_entries("/proc/self/task");
}

int harness_descriptors(void) {
    return count_entries("/proc/self/fd");
}

size_t harness_resident_bytes(void) {
    FILE *file = fopen("/proc/self/statm", "r");
    unsigned long pages = 0, resident = 0;
    if (!file) return 0;
    if (fscanf(file, "%lu %lu", &pages, &resident) != 2) resident = 0;
    fclose(file);
    return resident * (size_t)sysconf(_SC_PAGESIZE);
}

int harness_workers(void) {
    const char *text = getenv("HEIST_TEST_WORKERS");
    int n = text ? atoi(text) : 0;
    return n > 0 ? n : 2;
}

bool harness_valgrind(void) {
    const char *preload = getenv("LD_PRELOAD"); /* this is how it comes into the process */
    return preload && strstr(preload, "vgpreload");
}

bool harness_instrumented(void) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
    return true;
#else
    return harness_valgrind();
#endif
#else
    return harness_valgrind();
#endif
}

pthread_t harness_thread(void *(*fn)(void *arg), void *arg) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, fn, arg) != 0) {
        fputs("harness: no thread to be had\n", stderr);
        abort();
    }
    return thread;
}

void harness_join(pthread_t thread) {
    if (pthread_join(thread, NULL) != 0) abort();
}

void harness_stands(heist_task *task) {
    for (;;) {
        void *frame;
        int n = heist_task_get_stack(task, &frame, 1); /* 0: it has not begun, or is done */
        if (heist_future_done(task) || (n != 0 && n != -EBUSY)) return;
        heist_sleep(0.0002);
    }
}

/* ---- loops and runtimes ---- */

static heist_loop *loop_with(unsigned flags) {
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    heist_loop *loop = NULL;
    opts.flags = flags;
    assert_int_equal(heist_loop_new(&opts, &loop), 0);
    assert_non_null(loop);
    return loop;
}

heist_loop *harness_loop(void) {
    return loop_with(HEIST_RUNTIME_VIRTUAL_TIME);
}

heist_loop *harness_real_loop(void) {
    return loop_with(0);
}

void harness_loop_end(heist_loop *loop) {
    assert_int_equal(heist_loop_close(loop), 0);
    assert_int_equal(heist_loop_is_closed(loop), 1);
    heist_loop_unref(loop);
}

heist_runtime *harness_runtime(unsigned flags) {
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    heist_runtime *rt = NULL;
    opts.flags = flags;
    opts.workers = harness_workers();
    assert_int_equal(heist_runtime_new(&opts, &rt), 0);
    assert_non_null(rt);
    return rt;
}

void harness_runtime_end(heist_runtime *rt) {
    assert_int_equal(heist_runtime_close(rt, HEIST_FOREVER), 0);
    heist_runtime_unref(rt);
}

int harness_run(heist_coro_fn fn, void *arg, void **out) {
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    opts.flags = HEIST_RUNTIME_VIRTUAL_TIME;
    opts.workers = harness_workers();
    return heist_run(fn, arg, &opts, out);
}

int stop_loop(void *loop) {
    return heist_loop_stop(loop);
}

void harness_one_pass(heist_loop *loop) {
    assert_int_equal(heist_loop_stop(loop), 0);
    assert_int_equal(heist_loop_run_forever(loop), 0);
}

/* ---- around each test ---- */

static struct {
    int threads, descriptors;
    long blocks;
} before;
static const char *group;

static void on_alarm(int signal_number) {
    static const char text[] = "harness: a test hangs, in the group ";
    (void)signal_number;
    if (write(2, text, sizeof text - 1) < 0) abort();
    if (group && write(2, group, strlen(group)) < 0) abort();
    if (write(2, "\n", 1) < 0) abort();
    abort();
}

static int let_go(void) {
    heist_loop *loop = NULL;
    if (heist_loop_new(NULL, &loop) < 0) return -1;
    int err = heist_loop_close(loop);
    heist_loop_unref(loop);
    return err;
}

int harness_setup(void **state) {
    *state = NULL;
    if (let_go() < 0) return -1;
    before.threads = harness_threads();
    before.descriptors = harness_descriptors();
    before.blocks = harness_blocks();
    alarm(TEST_SECONDS_MAX);
    return 0;
}

/* A joined thread leaves /proc a moment after the join; everything else is exact at once. */
static int threads_when_settled(void) {
    int now = harness_threads();
    for (int i = 0; i < 2000 && now > before.threads; i++) {
        struct timespec pause = {0, 1000000};
        nanosleep(&pause, NULL);
        now = harness_threads();
    }
    return now;
}

int harness_teardown(void **state) {
    (void)state;
    alarm(0);
    harness_fail_allocation(0, false);
    /* An executor that nobody waits for may outlive its runtime for a moment, and what the library keeps goes with the
     * last of both. */
    int threads = threads_when_settled();
    if (let_go() < 0) return -1;
    int descriptors = harness_descriptors();
    long blocks = harness_blocks();
    if (threads <= before.threads && descriptors == before.descriptors && blocks <= before.blocks) return 0;
    fprintf(stderr, "harness: left behind: threads %d to %d, descriptors %d to %d, blocks %ld to %ld\n", before.threads,
            threads, before.descriptors, descriptors, before.blocks, blocks);
    return -1;
}

/* A thread that waits has an object that wakes it, and these are recycled: as many may stay as there were threads
 * that waited in their lives at the same time.  So many are made here, before the first count; and before each
 * count the last runtime of the process goes, which is when the library lets go of what it keeps to use again. */
#define WAITING_THREADS 100

static struct gate all_waited = GATE_INIT;
static _Atomic(int) waited, numbers[WAITING_THREADS];

static void *wait_once(void *future) {
    heist_await_until(future, heist_time() + 0.0001, NULL);
    int n = waited++;
    numbers[n] = gettid();
    if (n + 1 == WAITING_THREADS) gate_open(&all_waited);
    gate_wait(&all_waited); /* so that nobody gets the object of one that has ended */
    return NULL;
}

/* Or it would be counted as one that was there before the first test. */
static void left_the_list(int number) {
    struct timespec pause = {0, 1000000};
    char path[64];
    snprintf(path, sizeof path, "/proc/self/task/%d", number);
    while (access(path, F_OK) == 0) nanosleep(&pause, NULL);
}

static int warm_up(void) {
    heist_future *future = NULL;
    pthread_t threads[WAITING_THREADS];
    int err = heist_future_new(NULL, &future);
    if (err < 0) return err;
    for (int i = 0; i < WAITING_THREADS; i++) threads[i] = harness_thread(wait_once, future);
    for (int i = 0; i < WAITING_THREADS; i++) harness_join(threads[i]);
    for (int i = 0; i < WAITING_THREADS; i++) left_the_list(numbers[i]);
    err = heist_await_until(future, heist_time(), NULL);
    heist_unref(future);
    return err == -ETIMEDOUT ? 0 : err;
}

static int start_library(void) {
    heist_allocator counting = HEIST_ALLOCATOR_INIT;
    counting.malloc = counting_malloc;
    counting.realloc = counting_realloc;
    counting.free = counting_free;
    return heist_set_allocator(&counting);
}

int harness_main(const char *name, const struct CMUnitTest *tests, size_t count) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_alarm;
    sigaction(SIGALRM, &action, NULL);
    group = name;
    int err = start_library();
    if (err == 0) err = warm_up();
    if (err < 0) {
        fprintf(stderr, "harness: %s\n", heist_strerror(err));
        return 1;
    }
    const char *only = getenv("HEIST_TEST_ONLY"), *skip = getenv("HEIST_TEST_SKIP");
    if (only) cmocka_set_test_filter(only);
    if (skip) cmocka_set_skip_filter(skip);
    return _cmocka_run_group_tests(name, tests, count, NULL, NULL);
}
