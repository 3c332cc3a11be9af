/* A task or callback that holds its worker: what another thread does for those behind it,
 * and what is told of the culprit.  (MT rows: promise 4.)
 *
 * No time is compared: a holder holds until what it delays has been done, or reported, and
 * lets go by itself after half a minute; then the test fails. */
#include "support/harness.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE 30

/* ---- a holder ---- */

struct latch {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int count;
};
#define LATCH_INIT {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0}

static void latch_add(struct latch *l) {
    pthread_mutex_lock(&l->lock);
    l->count++;
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->lock);
}

static int latch_count(struct latch *l) {
    pthread_mutex_lock(&l->lock);
    int count = l->count;
    pthread_mutex_unlock(&l->lock);
    return count;
}

/* Blocks the thread; false when the patience is at its end. */
static bool latch_wait(struct latch *l, int count) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE;
    int err = 0;
    pthread_mutex_lock(&l->lock);
    while (l->count < count && !err) err = pthread_cond_timedwait(&l->changed, &l->lock, &until);
    bool reached = l->count >= count;
    pthread_mutex_unlock(&l->lock);
    return reached;
}

static heist_runtime *runtime(int workers, unsigned flags, double stuck_after, int stuck_signal,
                              heist_exception_handler handler, void *user) {
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    heist_runtime *rt = NULL;
    opts.workers = workers;
    opts.flags = flags;
    opts.stuck_after = stuck_after;
    opts.stuck_signal = stuck_signal;
    opts.exception_handler = handler;
    opts.exception_user = user;
    assert_int_equal(heist_runtime_new(&opts, &rt), 0);
    return rt;
}

/* ---- the spare thread ---- */

enum { QUEUED, TIMER, DESCRIPTOR, SUBMITTED, KINDS };

struct behind {
    heist_loop *loop;
    int fd[2];
    struct latch waiting, served, holding;
    _Atomic(int) failed, elsewhere;
};

static int wait_behind(struct behind *b, int kind) {
    heist_conn *conn = NULL;
    heist_loop *loop = NULL;
    char byte;
    int err = 0;
    latch_add(&b->waiting);
    if (kind == TIMER) err = heist_sleep(0.002);
    if (kind == DESCRIPTOR) {
        err = heist_conn_open(b->fd[0], &conn);
        if (!err && heist_conn_read(conn, &byte, 1, HEIST_FOREVER) != 1) err = -EPROTO;
        heist_conn_close(conn);
    }
    if (heist_get_running_loop(&loop) || loop != b->loop) b->elsewhere++;
    if (err) b->failed++;
    latch_add(&b->served);
    return err;
}

static int queued(void *arg, void **out) { return (void)out, wait_behind(arg, QUEUED); }
static int timer(void *arg, void **out) { return (void)out, wait_behind(arg, TIMER); }
static int descriptor(void *arg, void **out) { return (void)out, wait_behind(arg, DESCRIPTOR); }

static int hold_until_served(void *arg, void **out) {
    struct behind *b = arg;
    (void)out;
    int err = heist_create_task(timer, b, NULL, NULL);
    if (!err) err = heist_create_task(descriptor, b, NULL, NULL);
    while (!err && latch_count(&b->waiting) < 2) err = heist_yield();
    if (!err) err = heist_yield(); /* both have suspended */
    if (!err) err = heist_create_task(queued, b, NULL, NULL);
    latch_add(&b->holding);
    if (!latch_wait(&b->served, KINDS)) b->failed++;
    return err;
}

static void behind_a_holder(heist_runtime *rt, struct behind *b) {
    heist_task *task = NULL;
    heist_task_options pinned = HEIST_TASK_OPTIONS_INIT;
    pinned.flags = HEIST_TASK_PINNED;
    b->loop = heist_runtime_loop(rt, 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, b->fd), 0);
    assert_int_equal(heist_run_coroutine_threadsafe(b->loop, hold_until_served, b, &pinned, &task), 0);
    assert_true(latch_wait(&b->holding, 1));
    assert_int_equal(write(b->fd[1], "x", 1), 1);
    assert_int_equal(heist_run_coroutine_threadsafe(b->loop, queued, b, NULL, NULL), 0);
    assert_int_equal(heist_await(task, NULL), 0);
    heist_unref(task);
    close(b->fd[1]);
    assert_int_equal(b->failed, 0);
}

static void spare_thread_serves_what_is_behind_the_only_worker(void **state) {
    (void)state;
    heist_runtime *rt = runtime(1, HEIST_RUNTIME_SPARE_THREAD, 0, 0, NULL, NULL);
    assert_int_equal(heist_runtime_workers(rt), 1);
    assert_null(heist_runtime_loop(rt, 1));
    for (int i = 0; i < 5; i++) {
        struct behind b = {.waiting = LATCH_INIT, .served = LATCH_INIT, .holding = LATCH_INIT};
        behind_a_holder(rt, &b);
        assert_int_equal(b.elsewhere, 0); /* the running loop is the worker's, whoever runs the task */
        heist_sleep(i * 0.03);
    }
    heist_worker_stats stats = HEIST_WORKER_STATS_INIT;
    assert_int_equal(heist_runtime_stats(rt, 1, &stats), 0);
    assert_true(stats.steps >= 5 * (KINDS - 1)); /* on a slow machine the timer is due before the holder holds */
    assert_int_equal(heist_runtime_stats(rt, 2, &stats), -EINVAL);
    harness_runtime_end(rt);
}

/* All of several workers are held, each until somebody has done its bit. */
struct all_held {
    struct latch holding, served;
    _Atomic(int) failed;
    int workers;
};

static int serve(void *arg, void **out) {
    struct all_held *a = arg;
    (void)out;
    latch_add(&a->served);
    return 0;
}

static int hold_with_all(void *arg, void **out) {
    struct all_held *a = arg;
    (void)out;
    latch_add(&a->holding);
    if (!latch_wait(&a->holding, a->workers)) a->failed++;
    int err = heist_create_task(serve, a, NULL, NULL);
    if (!latch_wait(&a->served, a->workers)) a->failed++;
    return err;
}

static void spare_thread_serves_when_all_workers_are_held(void **state) {
    (void)state;
    int workers = harness_workers();
    heist_runtime *rt = runtime(workers, HEIST_RUNTIME_SPARE_THREAD, 0, 0, NULL, NULL);
    for (int i = 0; i < 3; i++) {
        struct all_held a = {.holding = LATCH_INIT, .served = LATCH_INIT, .workers = workers};
        heist_task *task[8];
        heist_task_options pinned = HEIST_TASK_OPTIONS_INIT;
        pinned.flags = HEIST_TASK_PINNED;
        for (int w = 0; w < workers; w++)
            assert_int_equal(
                heist_run_coroutine_threadsafe(heist_runtime_loop(rt, w), hold_with_all, &a, &pinned, &task[w]), 0);
        for (int w = 0; w < workers; w++) {
            assert_int_equal(heist_await(task[w], NULL), 0);
            heist_unref(task[w]);
        }
        assert_int_equal(a.failed, 0);
    }
    harness_runtime_end(rt);
}

/* What the spare thread ran goes on where it belongs, and what it pins and posts never leaves that place. */
struct placed {
    heist_loop *loop;
    pthread_t worker, pinned_on, called_on;
    struct latch served, done;
    _Atomic(int) failed;
};

static int note_pinned(void *arg, void **out) {
    struct placed *p = arg;
    (void)out;
    p->pinned_on = pthread_self();
    latch_add(&p->done);
    return 0;
}

static int note_called(void *arg) {
    struct placed *p = arg;
    p->called_on = pthread_self();
    latch_add(&p->done);
    return 0;
}

static int place(void *arg, void **out) {
    struct placed *p = arg;
    heist_loop *loop = NULL;
    heist_task_options pinned = HEIST_TASK_OPTIONS_INIT;
    pinned.flags = HEIST_TASK_PINNED;
    (void)out;
    if (pthread_equal(pthread_self(), p->worker)) p->failed++; /* it is held: somebody else runs this */
    int err = heist_get_running_loop(&loop);
    if (!err) err = heist_loop_call_soon(loop, note_called, p, NULL, NULL);
    if (!err) err = heist_create_task(note_pinned, p, &pinned, NULL);
    latch_add(&p->served);
    for (int i = 0; i < 20 && !err; i++) err = heist_sleep(0.0005);
    if (err) p->failed++;
    latch_add(&p->done);
    return err;
}

static int hold_for_place(void *arg, void **out) {
    struct placed *p = arg;
    (void)out;
    p->worker = pthread_self();
    int err = heist_create_task(place, p, NULL, NULL);
    if (!latch_wait(&p->served, 1)) p->failed++;
    return err;
}

static void spare_thread_hands_back_and_owns_nothing(void **state) {
    (void)state;
    heist_runtime *rt = runtime(1, HEIST_RUNTIME_SPARE_THREAD, 0, 0, NULL, NULL);
    struct placed p = {.served = LATCH_INIT, .done = LATCH_INIT};
    /* Pinned: on a loaded machine the worker itself may stand still, and the spare thread take what came. */
    heist_task_options pinned = HEIST_TASK_OPTIONS_INIT;
    pinned.flags = HEIST_TASK_PINNED;
    assert_int_equal(heist_run_coroutine_threadsafe(heist_runtime_loop(rt, 0), hold_for_place, &p, &pinned, NULL), 0);
    assert_true(latch_wait(&p.done, 3));
    assert_int_equal(p.failed, 0);
    assert_true(pthread_equal(p.pinned_on, p.worker));
    assert_true(pthread_equal(p.called_on, p.worker));
    harness_runtime_end(rt);
}

static int main_is_held(void *arg, void **out) {
    heist_loop *loop = NULL;
    heist_task *task = NULL;
    heist_task_options pinned = HEIST_TASK_OPTIONS_INIT;
    (void)out;
    pinned.flags = HEIST_TASK_PINNED;
    int err = heist_get_running_loop(&loop);
    if (!err) err = heist_loop_create_task(loop, hold_for_place, arg, &pinned, &task);
    if (!err) err = heist_await(task, NULL);
    while (!err && latch_count(&((struct placed *)arg)->done) < 3) err = heist_sleep(0.001); /* all of it has run */
    heist_unref(task);
    return err;
}

static void spare_thread_helps_heist_run_too(void **state) {
    (void)state;
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    struct placed p = {.served = LATCH_INIT, .done = LATCH_INIT};
    opts.workers = 1;
    opts.flags = HEIST_RUNTIME_SPARE_THREAD;
    assert_int_equal(heist_run(main_is_held, &p, &opts, NULL), 0);
    assert_int_equal(p.failed, 0);
    assert_true(pthread_equal(p.worker, pthread_self()));
}

static int count_threads(void *arg, void **out) {
    (void)out;
    *(int *)arg = harness_threads();
    return 0;
}

static void one_worker_has_no_hidden_thread_unless_asked(void **state) {
    (void)state;
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    int before = harness_threads(), threads = 0;
    opts.workers = 1;
    assert_int_equal(heist_run(count_threads, &threads, &opts, NULL), 0);
    assert_int_equal(threads, before);
    opts.flags = HEIST_RUNTIME_SPARE_THREAD;
    assert_int_equal(heist_run(count_threads, &threads, &opts, NULL), 0);
    assert_int_equal(threads, before + 1);
    while (harness_threads() > before) heist_sleep(0.001); /* a joined thread leaves the list a moment later */
    opts.flags = HEIST_RUNTIME_SPARE_THREAD | HEIST_RUNTIME_VIRTUAL_TIME;
    assert_int_equal(heist_run(count_threads, &threads, &opts, NULL), 0);
    assert_int_equal(threads, before);
}

/* ---- the monitor ---- */

struct told {
    struct latch reports;
    heist_loop *loop;
    pthread_t held, teller;
    char message[64], name[64], file[256], worker[16], function[128], stack[4096];
    int line;
    double seconds;
    bool callback; /* which kind the test provokes */
    _Atomic(int) failed;
};

static void copy(char *to, size_t size, const char *from) { snprintf(to, size, "%s", from ? from : ""); }

static const char *extra_of(const heist_report *r, const char *key) {
    for (const char *const *e = r->extra; e && e[0]; e += 2)
        if (!strcmp(e[0], key)) return e[1];
    return "";
}

/* Of the culprit alone: on a loaded machine the kernel may also stop a worker between two callbacks of the library's,
 * which is told as one without a function. */
static void on_report(heist_loop *loop, const heist_report *r, void *user) {
    struct told *t = user;
    if (strncmp(r->message, "a worker is stuck", 17)) return;
    if (t->callback ? !*extra_of(r, "function") : !r->future) return;
    copy(t->message, sizeof t->message, r->message);
    copy(t->name, sizeof t->name, r->name);
    copy(t->file, sizeof t->file, r->file);
    t->line = r->line;
    t->seconds = r->seconds;
    t->loop = loop;
    t->teller = pthread_self();
    copy(t->worker, sizeof t->worker, extra_of(r, "worker"));
    copy(t->function, sizeof t->function, extra_of(r, "function"));
    copy(t->stack, sizeof t->stack, extra_of(r, "stack"));
    latch_add(&t->reports);
}

static int culprit(void *arg, void **out) {
    struct told *t = arg;
    (void)out;
    t->held = pthread_self();
    if (!latch_wait(&t->reports, 1)) t->failed++;
    return 0;
}

static int culprit_callback(void *arg) {
    struct told *t = arg;
    t->held = pthread_self();
    if (!latch_wait(&t->reports, 1)) t->failed++;
    return 0;
}

static void tell(struct told *t, int workers, int stuck_signal, bool callback) {
    t->callback = callback;
    heist_runtime *rt = runtime(workers, 0, 0.02, stuck_signal, on_report, t);
    heist_task *task = NULL;
    heist_task_options opts = HEIST_TASK_OPTIONS_INIT;
    int index = workers - 1, line = 0;
    heist_loop *loop = heist_runtime_loop(rt, index);
    opts.name = "culprit";
    opts.flags = HEIST_TASK_PINNED;
    if (callback) {
        assert_int_equal(heist_loop_call_soon(loop, culprit_callback, t, NULL, NULL), 0);
        assert_true(latch_wait(&t->reports, 1));
    } else {
        line = __LINE__ + 1;
        assert_int_equal(heist_run_coroutine_threadsafe(loop, culprit, t, &opts, &task), 0);
        assert_int_equal(heist_await(task, NULL), 0);
        heist_unref(task);
    }
    assert_int_equal(t->failed, 0);
    assert_ptr_equal(t->loop, loop);
    assert_int_equal(atoi(t->worker), index);
    assert_true(t->seconds >= 0.02);
    if (callback) {
        assert_string_equal(t->message, "a worker is stuck in a callback");
        assert_string_not_equal(t->function, "");
    } else {
        assert_string_equal(t->message, "a worker is stuck in a task");
        assert_string_equal(t->name, "culprit");
        assert_non_null(strstr(t->file, "test_blocked.c"));
        assert_int_equal(t->line, line);
    }
    harness_runtime_end(rt);
    assert_false(pthread_equal(t->held, t->teller));
}

static void stuck_task_is_reported_with_its_name_and_birthplace(void **state) {
    (void)state;
    struct told t = {.reports = LATCH_INIT};
    tell(&t, harness_workers(), 0, false);
    assert_string_equal(t.stack, "");
}

static void stuck_callback_is_reported_with_its_function(void **state) {
    (void)state;
    struct told t = {.reports = LATCH_INIT};
    tell(&t, harness_workers(), 0, true);
}

static int lines_of(const char *s) {
    int n = *s != 0;
    for (; *s; s++) n += *s == '\n';
    return n;
}

static void report_has_the_stack_when_a_signal_is_given(void **state) {
    (void)state;
    struct sigaction before, after;
    int number = SIGRTMIN + 3;
    assert_int_equal(sigaction(number, NULL, &before), 0);
    for (int callback = 0; callback < 2; callback++) {
        struct told t;
        do { /* a thread that gets no processor for a while does not answer in time: then there is no stack */
            t = (struct told){.reports = LATCH_INIT};
            tell(&t, harness_workers(), number, callback);
        } while (!t.stack[0]);
        /* It waits in the C library, called from this program: some frames, ours among them. */
        assert_true(lines_of(t.stack) >= 3);
        assert_non_null(strstr(t.stack, "api_blocked"));
    }
    assert_int_equal(sigaction(number, NULL, &after), 0);
    assert_ptr_equal(after.sa_handler, before.sa_handler);
}

/* With one worker and no spare thread the monitor reports, and takes nothing over. */
static int run_on(void *arg, void **out) {
    (void)out;
    *(pthread_t *)arg = pthread_self();
    return 0;
}

struct alone {
    struct told told;
    pthread_t child;
    heist_task *task;
};

static int culprit_with_child(void *arg, void **out) {
    struct alone *a = arg;
    int err = heist_create_task(run_on, &a->child, NULL, &a->task);
    culprit(&a->told, out);
    return err;
}

static void monitor_of_one_worker_takes_nothing_over(void **state) {
    (void)state;
    struct alone a = {.told = {.reports = LATCH_INIT}};
    heist_runtime *rt = runtime(1, 0, 0.02, 0, on_report, &a.told);
    heist_task *task = NULL;
    assert_int_equal(heist_runtime_run_coroutine(rt, culprit_with_child, &a, NULL, &task), 0);
    assert_int_equal(heist_await(task, NULL), 0);
    assert_int_equal(heist_await(a.task, NULL), 0);
    assert_int_equal(a.told.failed, 0);
    assert_true(pthread_equal(a.child, a.told.held));
    heist_worker_stats stats = HEIST_WORKER_STATS_INIT;
    assert_int_equal(heist_runtime_stats(rt, 1, &stats), 0);
    assert_int_equal(stats.steps, 0);
    heist_unref(a.task);
    heist_unref(task);
    harness_runtime_end(rt);
}

/* Once for each time: a task that is held twice is told twice, and one that is held on is told once. */
static int culprit_twice(void *arg, void **out) {
    struct told *t = arg;
    (void)out;
    if (!latch_wait(&t->reports, 1)) t->failed++;
    int err = heist_yield();
    if (!latch_wait(&t->reports, 2)) t->failed++;
    return err;
}

static void each_time_is_reported_once(void **state) {
    (void)state;
    struct told t = {.reports = LATCH_INIT};
    heist_runtime *rt = runtime(harness_workers(), 0, 0.01, SIGRTMIN + 3, on_report, &t);
    heist_task *task = NULL;
    assert_int_equal(heist_runtime_run_coroutine(rt, culprit_twice, &t, NULL, &task), 0);
    assert_int_equal(heist_await(task, NULL), 0);
    heist_unref(task);
    assert_int_equal(t.failed, 0);
    harness_runtime_end(rt);
    assert_int_equal(latch_count(&t.reports), 2);
}

/* Two callbacks of one turn are two times: the second was once taken for the first, which had been told. */
static int culprit_first(void *arg) {
    struct told *t = arg;
    if (!latch_wait(&t->reports, 1)) t->failed++;
    return 0;
}
static int culprit_second(void *arg) {
    struct told *t = arg;
    if (!latch_wait(&t->reports, 2)) t->failed++;
    return 0;
}
static int post_two(void *arg) {
    struct told *t = arg;
    heist_loop *loop = NULL;
    int err = heist_get_running_loop(&loop);
    if (!err) err = heist_loop_call_soon(loop, culprit_first, t, NULL, NULL);
    if (!err) err = heist_loop_call_soon(loop, culprit_second, t, NULL, NULL);
    return err;
}

static void second_callback_of_a_turn_is_reported_too(void **state) {
    (void)state;
    struct told t = {.reports = LATCH_INIT, .callback = true};
    heist_runtime *rt = runtime(harness_workers(), 0, 0.01, 0, on_report, &t);
    assert_int_equal(heist_loop_call_soon(heist_runtime_loop(rt, 0), post_two, &t, NULL, NULL), 0);
    assert_true(latch_wait(&t.reports, 2));
    harness_runtime_end(rt);
    assert_int_equal(t.failed, 0);
}

/* ---- the signal is a good guest ---- */

static volatile sig_atomic_t passed;
static void own_handler(int number) {
    (void)number;
    passed++;
}

static void other_uses_of_the_signal_reach_the_earlier_handler(void **state) {
    (void)state;
    struct sigaction own = {.sa_handler = own_handler}, before, after;
    int number = SIGRTMIN + 3;
    sigemptyset(&own.sa_mask);
    assert_int_equal(sigaction(number, &own, &before), 0);
    passed = 0;
    heist_runtime *rt = runtime(1, 0, 60, number, NULL, NULL);
    raise(number);
    union sigval none = {.sival_ptr = NULL};
    pthread_sigqueue(pthread_self(), number, none);
    harness_runtime_end(rt);
    raise(number);
    assert_int_equal(passed, 3);
    assert_int_equal(sigaction(number, &before, &after), 0);
    assert_ptr_equal(after.sa_handler, own_handler);
}

/* A task that blocks the signal is reported without a stack, and nothing of it arrives later. */
static int culprit_deaf(void *arg, void **out) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN + 3);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    return culprit(arg, out);
}

static void deaf_task_is_reported_without_a_stack(void **state) {
    (void)state;
    struct told t = {.reports = LATCH_INIT};
    heist_runtime *rt = runtime(harness_workers(), 0, 0.01, SIGRTMIN + 3, on_report, &t);
    heist_task *task = NULL;
    assert_int_equal(heist_runtime_run_coroutine(rt, culprit_deaf, &t, NULL, &task), 0);
    assert_int_equal(heist_await(task, NULL), 0);
    heist_unref(task);
    assert_int_equal(t.failed, 0);
    assert_string_equal(t.stack, "");
    harness_runtime_end(rt);
}

/* ---- options ---- */

static int nothing(void *arg, void **out) {
    (void)arg;
    (void)out;
    return 0;
}

static void wrong_options_are_refused(void **state) {
    (void)state;
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    heist_runtime *rt = NULL;
    heist_loop *loop = NULL;
    opts.stuck_after = -1;
    assert_int_equal(heist_runtime_new(&opts, &rt), -EINVAL);
    opts.stuck_after = __builtin_nan("");
    assert_int_equal(heist_runtime_new(&opts, &rt), -EINVAL);
    opts.stuck_after = 1;
    static const int wrong[] = {-1, SIGKILL, SIGSTOP, SIGSEGV, 32, 33, 65, 1000};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        opts.stuck_signal = wrong[i];
        assert_int_equal(heist_runtime_new(&opts, &rt), -EINVAL);
        assert_int_equal(heist_run(nothing, NULL, &opts, NULL), -EINVAL);
    }
    opts.stuck_signal = 0;
    assert_int_equal(heist_loop_new(&opts, &loop), -EINVAL);
    opts.stuck_after = 0;
    opts.flags = HEIST_RUNTIME_SPARE_THREAD;
    assert_int_equal(heist_loop_new(&opts, &loop), -EINVAL);
    assert_null(rt);
    assert_null(loop);
}

static void shorter_options_of_an_older_program_are_enough(void **state) {
    (void)state;
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    heist_loop *loop = NULL;
    opts.size = offsetof(heist_runtime_options, stuck_after);
    opts.stuck_after = -1; /* not looked at */
    opts.workers = 1;
    assert_int_equal(heist_run(nothing, NULL, &opts, NULL), 0);
    assert_int_equal(heist_loop_new(&opts, &loop), 0);
    harness_loop_end(loop);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        API_TEST(spare_thread_serves_what_is_behind_the_only_worker),
        API_TEST(spare_thread_serves_when_all_workers_are_held),
        API_TEST(spare_thread_hands_back_and_owns_nothing),
        API_TEST(spare_thread_helps_heist_run_too),
        API_TEST(one_worker_has_no_hidden_thread_unless_asked),
        API_TEST(stuck_task_is_reported_with_its_name_and_birthplace),
        API_TEST(stuck_callback_is_reported_with_its_function),
        API_TEST(report_has_the_stack_when_a_signal_is_given),
        API_TEST(monitor_of_one_worker_takes_nothing_over),
        API_TEST(each_time_is_reported_once),
        API_TEST(second_callback_of_a_turn_is_reported_too),
        API_TEST(other_uses_of_the_signal_reach_the_earlier_handler),
        API_TEST(deaf_task_is_reported_without_a_stack),
        API_TEST(wrong_options_are_refused),
        API_TEST(shorter_options_of_an_older_program_are_enough),
    };
    return HARNESS_MAIN("blocked", tests);
}
