/* Signals: callbacks on a loop and waits for them (rows SIG), and that the program's own handlers are left alone. */
#include "support/harness.h"
#include "support/pace.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* What a task or callback found wrong: the line of the first. */
static _Atomic(int) wrong;
#define EXPECT(condition)                                                                                              \
    do {                                                                                                               \
        if (!(condition) && !wrong) wrong = __LINE__;                                                                  \
    } while (0)

static int run_real(heist_coro_fn fn, void *arg, unsigned flags) {
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    opts.workers = harness_workers();
    opts.flags = flags;
    wrong = 0;
    int err = heist_run(fn, arg, &opts, NULL);
    assert_int_equal(wrong, 0);
    return err;
}

static void (*handler_of(int sig))(int) {
    struct sigaction now;
    return sigaction(sig, NULL, &now) ? SIG_ERR : now.sa_handler;
}

static void deliver(int sig) { kill(getpid(), sig); }

static _Atomic(int) freed;
static void count_free(void *arg) {
    (void)arg;
    freed++;
}

static int nothing_called(void *arg) {
    (void)arg;
    return 0;
}

/* ---- callbacks ---- */

struct heard {
    heist_loop *loop;
    _Atomic(int) times;
    int stop_after;
    pthread_t thread;
    heist_loop *ran_on;
    int code;
};

static int on_signal(void *arg) {
    struct heard *h = arg;
    h->thread = pthread_self();
    EXPECT(heist_get_running_loop(&h->ran_on) == 0);
    if (++h->times == h->stop_after) heist_loop_stop(h->loop);
    return h->code;
}

static void a_signal_runs_the_function_with_its_argument_on_the_loop_SIG_01_SIG_05(void **state) {
    (void)state;
    heist_loop *loop = harness_real_loop();
    struct heard a = {.loop = loop, .stop_after = 1}, b = {.loop = loop, .stop_after = 1};
    assert_int_equal(heist_loop_remove_signal_handler(loop, SIGUSR1), 0);
    assert_int_equal(heist_loop_add_signal_handler(loop, SIGUSR1, on_signal, &a, NULL), 0);
    assert_int_equal(heist_loop_add_signal_handler(loop, SIGUSR2, on_signal, &b, NULL), 0);
    deliver(SIGUSR1);
    assert_int_equal(a.times, 0); /* not inside the signal */
    assert_int_equal(heist_loop_run_forever(loop), 0);
    assert_int_equal(a.times, 1);
    assert_int_equal(b.times, 0);
    assert_ptr_equal(a.ran_on, loop);
    assert_true(pthread_equal(a.thread, pthread_self()));
    deliver(SIGUSR2);
    assert_int_equal(heist_loop_run_forever(loop), 0);
    assert_int_equal(b.times, 1);
    assert_int_equal(heist_loop_remove_signal_handler(loop, SIGUSR1), 1);
    assert_int_equal(heist_loop_remove_signal_handler(loop, SIGUSR1), 0);
    assert_true(handler_of(SIGUSR1) == SIG_DFL);
    assert_int_equal(heist_loop_remove_signal_handler(loop, SIGUSR2), 1);
    assert_true(handler_of(SIGUSR2) == SIG_DFL);
    harness_loop_end(loop);
}

static void a_new_handler_of_the_loop_replaces_the_old_one_takes_its_signal_and_frees_its_argument(void **state) {
    (void)state;
    heist_loop *loop = harness_real_loop();
    heist_signal_options opts = HEIST_SIGNAL_OPTIONS_INIT;
    opts.arg_free = count_free;
    freed = 0;
    struct heard a = {.loop = loop}, b = {.loop = loop, .stop_after = 1};
    assert_int_equal(heist_loop_add_signal_handler(loop, SIGUSR1, on_signal, &a, &opts), 0);
    deliver(SIGUSR1); /* on its way to the first, which is gone when it arrives: it is the second's */
    assert_int_equal(heist_loop_add_signal_handler(loop, SIGUSR1, on_signal, &b, &opts), 0);
    assert_int_equal(heist_loop_run_forever(loop), 0);
    assert_int_equal(a.times, 0);
    assert_int_equal(b.times, 1);
    harness_one_pass(loop);
    assert_int_equal(b.times, 1);
    assert_int_equal(freed, 1);
    b.stop_after = 2;
    deliver(SIGUSR1);
    assert_int_equal(heist_loop_run_forever(loop), 0);
    assert_int_equal(b.times, 2);
    assert_int_equal(heist_loop_remove_signal_handler(loop, SIGUSR1), 1);
    assert_int_equal(freed, 2);
    harness_loop_end(loop);
}

static void what_is_no_signal_or_cannot_be_caught_is_refused_SIG_02(void **state) {
    (void)state;
    heist_loop *loop = harness_real_loop();
    heist_signal_options bad = HEIST_SIGNAL_OPTIONS_INIT;
    bad.flags = 0x8000;
    static const int none[] = {0, -1, 65, 1000, 32, 33}; /* the last two are the C library's */
    static const int never[] = {SIGKILL, SIGSTOP, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS};
    heist_signals *s = NULL;
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++) {
        assert_int_equal(heist_loop_add_signal_handler(loop, none[i], nothing_called, NULL, NULL), -EINVAL);
        assert_int_equal(heist_loop_remove_signal_handler(loop, none[i]), -EINVAL);
        assert_int_equal(heist_signals_open(&none[i], 1, NULL, &s), -EINVAL);
    }
    for (size_t i = 0; i < sizeof never / sizeof never[0]; i++) {
        assert_int_equal(heist_loop_add_signal_handler(loop, never[i], nothing_called, NULL, NULL), -EPERM);
        assert_int_equal(heist_loop_remove_signal_handler(loop, never[i]), -EPERM);
        assert_int_equal(heist_signals_open(&never[i], 1, NULL, &s), -EPERM);
    }
    const int twice[] = {SIGUSR1, SIGUSR1}, one = SIGUSR1;
    assert_int_equal(heist_signals_open(twice, 2, NULL, &s), -EINVAL);
    assert_int_equal(heist_signals_open(&one, 0, NULL, &s), -EINVAL);
    assert_int_equal(heist_signals_open(NULL, 1, NULL, &s), -EINVAL);
    assert_int_equal(heist_signals_open(&one, 1, &bad, &s), -EINVAL);
    assert_int_equal(heist_signals_open(&one, 1, NULL, NULL), -EINVAL);
    assert_null(s);
    assert_int_equal(heist_loop_add_signal_handler(loop, SIGUSR1, NULL, NULL, NULL), -EINVAL);
    assert_int_equal(heist_loop_add_signal_handler(NULL, SIGUSR1, nothing_called, NULL, NULL), -EINVAL);
    assert_int_equal(heist_loop_add_signal_handler(loop, SIGUSR1, nothing_called, NULL, &bad), -EINVAL);
    assert_int_equal(heist_loop_remove_signal_handler(NULL, SIGUSR1), -EINVAL);
    assert_int_equal(heist_signals_next(NULL, HEIST_FOREVER), -EINVAL);
    assert_int_equal(heist_signals_try_next(NULL), -EINVAL);
    heist_signals_close(NULL);
    assert_true(handler_of(SIGUSR1) == SIG_DFL);
    harness_loop_end(loop);
}

static void one_loop_has_a_signal_and_others_are_refused_SIG_03(void **state) {
    (void)state;
    heist_loop *first = harness_real_loop(), *second = harness_real_loop();
    heist_runtime *rt = harness_runtime(0);
    struct heard a = {.loop = second, .stop_after = 1};
    assert_int_equal(heist_loop_add_signal_handler(first, SIGUSR1, nothing_called, NULL, NULL), 0);
    assert_int_equal(heist_loop_add_signal_handler(second, SIGUSR1, on_signal, &a, NULL), -EBUSY);
    assert_int_equal(heist_loop_add_signal_handler(heist_runtime_loop(rt, 0), SIGUSR1, on_signal, &a, NULL), -EBUSY);
    assert_int_equal(heist_loop_remove_signal_handler(second, SIGUSR1), 0); /* not its own */
    assert_int_equal(heist_loop_remove_signal_handler(first, SIGUSR1), 1);
    assert_int_equal(heist_loop_add_signal_handler(second, SIGUSR1, on_signal, &a, NULL), 0);
    deliver(SIGUSR1);
    assert_int_equal(heist_loop_run_forever(second), 0);
    assert_int_equal(a.times, 1);
    harness_runtime_end(rt);
    harness_loop_end(first);
    harness_loop_end(second);
}

static void *runs_loop(void *loop) { return (void *)(intptr_t)heist_loop_run_forever(loop); }

static void a_signal_ends_the_sleep_of_a_loop_SIG_04(void **state) {
    (void)state;
    for (int i = 0; i < 20; i++) {
        heist_loop *loop = harness_real_loop();
        struct heard a = {.loop = loop, .stop_after = 1};
        assert_int_equal(heist_loop_add_signal_handler(loop, SIGUSR1, on_signal, &a, NULL), 0);
        pthread_t t = harness_thread(runs_loop, loop);
        if (i & 1) heist_sleep(0.002); /* it sleeps, mostly */
        deliver(SIGUSR1);
        harness_join(t); /* nothing else would end it */
        assert_int_equal(a.times, 1);
        harness_loop_end(loop);
    }
}

static void closing_a_loop_removes_its_handlers_SIG_06(void **state) {
    (void)state;
    heist_loop *loop = harness_real_loop();
    heist_runtime *rt = harness_runtime(0);
    heist_signal_options opts = HEIST_SIGNAL_OPTIONS_INIT;
    opts.arg_free = count_free;
    freed = 0;
    assert_int_equal(heist_loop_add_signal_handler(loop, SIGUSR1, nothing_called, NULL, &opts), 0);
    assert_int_equal(heist_loop_add_signal_handler(loop, SIGUSR2, nothing_called, NULL, &opts), 0);
    int last = harness_workers() - 1;
    heist_loop *third = heist_runtime_loop(rt, last);
    assert_int_equal(heist_loop_add_signal_handler(third, SIGHUP, nothing_called, NULL, &opts), 0);
    deliver(SIGUSR1); /* its call is dropped with the rest */
    harness_runtime_end(rt);
    assert_true(handler_of(SIGHUP) == SIG_DFL);
    assert_int_equal(freed, 1);
    heist_loop_ref(loop);
    harness_loop_end(loop);
    assert_true(handler_of(SIGUSR1) == SIG_DFL);
    assert_true(handler_of(SIGUSR2) == SIG_DFL);
    assert_int_equal(freed, 3);
    assert_int_equal(heist_loop_add_signal_handler(loop, SIGUSR1, nothing_called, NULL, &opts), HEIST_ECLOSED);
    assert_int_equal(heist_loop_remove_signal_handler(loop, SIGUSR1), 0);
    assert_int_equal(freed, 3);
    heist_loop_unref(loop);
}

static void own_handler(int sig) { (void)sig; }

static void a_handler_of_the_program_is_taken_only_when_asked_and_comes_back(void **state) {
    (void)state;
    heist_loop *loop = harness_real_loop();
    heist_signals *s = NULL;
    heist_signal_options replace = HEIST_SIGNAL_OPTIONS_INIT;
    replace.flags = HEIST_SIGNAL_REPLACE;
    const int sig = SIGUSR1;
    signal(SIGUSR1, own_handler);
    assert_int_equal(heist_loop_add_signal_handler(loop, SIGUSR1, nothing_called, NULL, NULL), -EBUSY);
    assert_int_equal(heist_signals_open(&sig, 1, NULL, &s), -EBUSY);
    assert_true(handler_of(SIGUSR1) == own_handler);
    assert_int_equal(heist_loop_add_signal_handler(loop, SIGUSR1, nothing_called, NULL, &replace), 0);
    assert_true(handler_of(SIGUSR1) != own_handler);
    assert_int_equal(heist_signals_open(&sig, 1, NULL, &s), 0); /* it is the library's now */
    assert_int_equal(heist_loop_remove_signal_handler(loop, SIGUSR1), 1);
    assert_true(handler_of(SIGUSR1) != own_handler);
    heist_signals_close(s);
    assert_true(handler_of(SIGUSR1) == own_handler);
    signal(SIGUSR1, SIG_IGN);
    assert_int_equal(heist_loop_add_signal_handler(loop, SIGUSR1, nothing_called, NULL, NULL), 0);
    assert_int_equal(heist_loop_remove_signal_handler(loop, SIGUSR1), 1);
    assert_true(handler_of(SIGUSR1) == SIG_IGN);
    /* One that the program puts over it stays. */
    assert_int_equal(heist_loop_add_signal_handler(loop, SIGUSR1, nothing_called, NULL, NULL), 0);
    signal(SIGUSR1, own_handler);
    assert_int_equal(heist_loop_remove_signal_handler(loop, SIGUSR1), 1);
    assert_true(handler_of(SIGUSR1) == own_handler);
    signal(SIGUSR1, SIG_DFL);
    harness_loop_end(loop);
}

static _Atomic(int) sent, seen;
static int sees(void *arg) {
    (void)arg;
    seen = sent;
    return 0;
}

static void each_signal_of_a_burst_is_followed_by_a_call(void **state) {
    (void)state;
    heist_runtime *rt = harness_runtime(0);
    sent = seen = 0;
    assert_int_equal(heist_loop_add_signal_handler(heist_runtime_loop(rt, 0), SIGUSR1, sees, NULL, NULL), 0);
    for (int i = 1; i <= 300; i++) {
        sent = i;
        deliver(SIGUSR1);
        if (i % 10) continue;
        while (seen < i) heist_sleep(0); /* a call that was lost is waited for until the watchdog comes */
    }
    assert_int_equal(heist_loop_remove_signal_handler(heist_runtime_loop(rt, 0), SIGUSR1), 1);
    harness_runtime_end(rt);
}

/* ---- a storm ---- */

static _Atomic(bool) calm;
static _Atomic(int) additions;

static void *storms(void *arg) {
    (void)arg;
    while (!calm) {
        deliver(SIGUSR1);
        sched_yield();
    }
    return NULL;
}

static void *adds_and_removes(void *arg) {
    heist_loop *loop = arg;
    heist_signal_options opts = HEIST_SIGNAL_OPTIONS_INIT;
    opts.arg_free = count_free;
    struct pace pace = pace_of(400, 20, 0.3);
    while (pace_goes_on(&pace)) {
        int err = heist_loop_add_signal_handler(loop, SIGUSR1, nothing_called, NULL, &opts);
        EXPECT(err == 0 || err == -EBUSY);
        if (err == 0) additions++;
        int had = heist_loop_remove_signal_handler(loop, SIGUSR1);
        EXPECT(had == (err == 0));
    }
    return NULL;
}

static void *opens_and_closes(void *arg) {
    (void)arg;
    const int sig = SIGUSR1;
    struct pace pace = pace_of(400, 20, 0.3);
    while (pace_goes_on(&pace)) {
        heist_signals *s = NULL;
        EXPECT(heist_signals_open(&sig, 1, NULL, &s) == 0);
        while (pace.played % 8 == 0 && heist_signals_try_next(s) != SIGUSR1) sched_yield();
        heist_signals_close(s);
    }
    return NULL;
}

static void handlers_and_listeners_come_and_go_under_a_storm(void **state) {
    (void)state;
    heist_loop *loops[2] = {harness_real_loop(), harness_real_loop()};
    pthread_t storm, changes[4];
    signal(SIGUSR1, SIG_IGN); /* so that no gap is the end */
    freed = additions = wrong = 0;
    calm = false;
    storm = harness_thread(storms, NULL);
    for (int i = 0; i < 4; i++)
        changes[i] = i < 2 ? harness_thread(adds_and_removes, loops[i]) : harness_thread(opens_and_closes, NULL);
    for (int i = 0; i < 4; i++) harness_join(changes[i]);
    calm = true;
    harness_join(storm);
    assert_true(handler_of(SIGUSR1) == SIG_IGN);
    signal(SIGUSR1, SIG_DFL);
    harness_loop_end(loops[0]);
    harness_loop_end(loops[1]);
    assert_int_equal(wrong, 0);
    assert_true(additions > 0);
    assert_int_equal(freed, additions);
}

static void a_failing_callback_is_reported_under_its_name(void **state) {
    (void)state;
    heist_loop *loop = harness_real_loop();
    struct record reports = RECORD_INIT;
    struct heard a = {.loop = loop, .stop_after = 1, .code = -EPROTO};
    heist_loop_set_exception_handler(loop, record_report, &reports);
    assert_int_equal(heist_loop_add_signal_handler(loop, SIGUSR1, on_signal, &a, NULL), 0);
    deliver(SIGUSR1);
    assert_int_equal(heist_loop_run_forever(loop), 0);
    char expected[32];
    snprintf(expected, sizeof expected, "%d", -EPROTO);
    assert_string_equal(record_text(&reports), expected);
    harness_loop_end(loop);
}

static heist_context_var *var;
static int reads_var(void *arg) {
    struct heard *h = arg;
    void *value = NULL;
    if (heist_context_get(var, &value) == 0) h->code = (int)(intptr_t)value;
    heist_loop_stop(h->loop);
    return 0;
}

static void the_callback_runs_in_the_context_of_who_added_it(void **state) {
    (void)state;
    heist_loop *loop = harness_real_loop();
    struct heard a = {.loop = loop};
    heist_context_token token = HEIST_CONTEXT_TOKEN_INIT;
    assert_int_equal(heist_context_var_new("x", NULL, &var), 0);
    assert_int_equal(heist_context_set(var, (void *)(intptr_t)7, NULL, &token), 0);
    assert_int_equal(heist_loop_add_signal_handler(loop, SIGUSR1, reads_var, &a, NULL), 0);
    assert_int_equal(heist_context_reset(&token), 0);
    deliver(SIGUSR1);
    assert_int_equal(heist_loop_run_forever(loop), 0);
    assert_int_equal(a.code, 7);
    harness_loop_end(loop);
    heist_context_var_unref(var);
}

/* ---- waits ---- */

static int waits_in_turn(void *arg, void **out) {
    (void)arg;
    (void)out;
    const int signals[] = {SIGUSR2, SIGUSR1};
    heist_signals *s = NULL, *also = NULL;
    EXPECT(heist_signals_open(signals, 2, NULL, &s) == 0);
    EXPECT(heist_signals_open(&signals[1], 1, NULL, &also) == 0);
    EXPECT(heist_signals_try_next(s) == 0);
    deliver(SIGUSR2);
    EXPECT(heist_signals_next(s, HEIST_FOREVER) == SIGUSR2);
    deliver(SIGUSR1);
    deliver(SIGUSR2);
    int first = heist_signals_next(s, HEIST_FOREVER);
    EXPECT(first == SIGUSR1 || first == SIGUSR2);
    EXPECT(first + heist_signals_next(s, HEIST_FOREVER) == SIGUSR1 + SIGUSR2);
    EXPECT(heist_signals_next(also, HEIST_FOREVER) == SIGUSR1); /* who listens hears, whoever else does */
    EXPECT(heist_signals_try_next(s) == 0);
    EXPECT(heist_signals_next(s, heist_time() + 0.001) == -ETIMEDOUT);
    EXPECT(heist_signals_next(s, 0.0 / 0.0) == -EINVAL);
    heist_cancel(heist_current_task());
    EXPECT(heist_signals_next(s, HEIST_FOREVER) == -ECANCELED);
    heist_uncancel(heist_current_task());
    deliver(SIGUSR1);
    heist_cancel(heist_current_task());
    EXPECT(heist_signals_next(s, HEIST_FOREVER) == -ECANCELED);
    heist_uncancel(heist_current_task());
    EXPECT(heist_signals_next(s, HEIST_FOREVER) == SIGUSR1); /* it took nothing */
    heist_signals_close(s);
    heist_signals_close(also);
    return 0;
}

static void several_listeners_hear_each_signal_and_a_wait_that_ends_otherwise_takes_none(void **state) {
    (void)state;
    assert_int_equal(run_real(waits_in_turn, NULL, 0), 0);
    assert_true(handler_of(SIGUSR1) == SIG_DFL);
    assert_true(handler_of(SIGUSR2) == SIG_DFL);
}

static int waits_once(void *arg, void **out) {
    (void)out;
    return heist_signals_next(arg, HEIST_FOREVER);
}

static int closes_under_it(void *arg, void **out) {
    (void)out;
    (void)arg;
    const int sig = SIGUSR1;
    heist_signals *s = NULL;
    heist_task *t = NULL;
    EXPECT(heist_signals_open(&sig, 1, NULL, &s) == 0);
    EXPECT(heist_create_task(waits_once, s, NULL, &t) == 0);
    int err = 0;
    while (err != -EBUSY) { /* until it waits */
        err = heist_signals_next(s, heist_time() + 0.001);
        EXPECT(err == -EBUSY || err == -ETIMEDOUT);
        int done = heist_future_done(t);
        if (done) EXPECT(heist_future_result(t, NULL) == -EBUSY); /* it came while we were in there */
        if (done) break;
    }
    heist_signals_close(s);
    err = heist_await(t, NULL);
    EXPECT(err == HEIST_ECLOSED || err == -EBUSY);
    heist_unref(t);
    return 0;
}

static void a_second_waiter_is_busy_and_close_wakes_the_first(void **state) {
    (void)state;
    assert_int_equal(run_real(closes_under_it, NULL, 0), 0);
}

static int sends_usr1(void *arg) {
    (void)arg;
    deliver(SIGUSR1);
    return 0;
}

static int waits_for_one(void *arg, void **out) {
    (void)arg;
    (void)out;
    heist_loop *loop = NULL;
    const int both[] = {SIGUSR1, SIGUSR2};
    EXPECT(heist_signal_wait(both, 2, heist_time() + 0.001) == -ETIMEDOUT);
    EXPECT(heist_signal_wait(both, 2, 0.0 / 0.0) == -EINVAL);
    EXPECT(heist_get_running_loop(&loop) == 0);
    int sig = -ETIMEDOUT;
    while (sig == -ETIMEDOUT) {
        heist_loop_call_later(loop, 0.001, sends_usr1, NULL, NULL, NULL);
        sig = heist_signal_wait(both, 2, heist_time() + 1);
    }
    EXPECT(sig == SIGUSR1);
    return 0;
}

static void wait_takes_one_signal(void **state) {
    (void)state;
    signal(SIGUSR1, SIG_IGN); /* one that was sent too many harms nobody */
    assert_int_equal(run_real(waits_for_one, NULL, 0), 0);
    assert_true(handler_of(SIGUSR1) == SIG_IGN);
    signal(SIGUSR1, SIG_DFL);
}

static int from_a_callback(void *arg) {
    heist_signals *s = arg;
    const int sig = SIGUSR1;
    deliver(SIGUSR2);
    EXPECT(heist_signals_next(s, HEIST_FOREVER) == HEIST_ENOTINCORO);
    EXPECT(heist_signal_wait(&sig, 1, HEIST_FOREVER) == HEIST_ENOTINCORO);
    while (heist_signals_try_next(s) != SIGUSR2) {} /* any thread may have taken it, and does so soon */
    return 0;
}

static void a_callback_and_a_plain_thread_may_look_but_not_wait(void **state) {
    (void)state;
    const int sig = SIGUSR2;
    heist_signals *s = NULL;
    heist_loop *loop = harness_real_loop();
    assert_int_equal(heist_signals_open(&sig, 1, NULL, &s), 0);
    assert_int_equal(heist_signals_next(s, HEIST_FOREVER), HEIST_ENOTINCORO);
    wrong = 0;
    assert_int_equal(heist_loop_call_soon(loop, from_a_callback, s, NULL, NULL), 0);
    harness_one_pass(loop);
    assert_int_equal(wrong, 0);
    heist_signals_close(s);
    harness_loop_end(loop);
}

/* ---- SIGINT, fork, and running out ---- */

static int stops_on_sigint(void *arg, void **out) {
    (void)out;
    const int sig = SIGINT;
    heist_signals *s = NULL;
    EXPECT(heist_signals_open(&sig, 1, NULL, &s) == 0);
    deliver(SIGINT);
    EXPECT(heist_signals_next(s, HEIST_FOREVER) == SIGINT); /* it cancels nobody */
    heist_signals_close(s);
    *(int *)arg = 1;
    deliver(SIGINT); /* now it does */
    return heist_sleep(1000);
}

static void who_asks_for_sigint_comes_before_the_run_and_then_the_run_has_it_again(void **state) {
    (void)state;
    int reached = 0;
    signal(SIGINT, SIG_DFL);
    assert_int_equal(run_real(stops_on_sigint, &reached, HEIST_RUNTIME_SIGINT), -EINTR);
    assert_int_equal(reached, 1);
    assert_true(handler_of(SIGINT) == SIG_DFL);
}

static void in_a_forked_child_a_signal_is_what_it_was(void **state) {
    (void)state;
    heist_loop *loop = harness_real_loop();
    heist_signals *s = NULL;
    const int sig = SIGUSR2;
    assert_int_equal(heist_loop_add_signal_handler(loop, SIGUSR1, nothing_called, NULL, NULL), 0);
    assert_int_equal(heist_signals_open(&sig, 1, NULL, &s), 0);
    pid_t pid = fork();
    if (pid == 0) {
        heist_signals *other = NULL;
        int bad = heist_loop_add_signal_handler(loop, SIGHUP, nothing_called, NULL, NULL) != HEIST_EFORKED;
        bad |= heist_loop_remove_signal_handler(loop, SIGUSR1) != HEIST_EFORKED;
        bad |= heist_signals_open(&sig, 1, NULL, &other) != HEIST_EFORKED;
        bad |= heist_signals_next(s, HEIST_FOREVER) != HEIST_EFORKED;
        bad |= heist_signals_try_next(s) != HEIST_EFORKED;
        bad |= heist_signal_wait(&sig, 1, HEIST_FOREVER) != HEIST_EFORKED;
        heist_signals_close(s);
        if (bad) _exit(3);
        raise(SIGUSR1);
        _exit(4); /* the default action of SIGUSR1 has not come */
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGUSR1);
    assert_int_equal(heist_signals_try_next(s), 0);
    heist_signals_close(s);
    harness_loop_end(loop);
}

static int use_signals(void) {
    heist_loop *loop = NULL;
    heist_signals *s = NULL;
    const int sig = SIGUSR2;
    heist_signal_options opts = HEIST_SIGNAL_OPTIONS_INIT;
    opts.arg_free = count_free;
    int err = heist_loop_new(NULL, &loop);
    if (err) return err;
    int added = heist_loop_add_signal_handler(loop, SIGUSR1, nothing_called, NULL, &opts);
    int opened = heist_signals_open(&sig, 1, NULL, &s);
    if ((opened == 0) != (s != NULL)) err = -EPROTO;
    heist_signals_close(s);
    heist_loop_close(loop);
    heist_loop_unref(loop);
    if (freed != (added == 0) || handler_of(SIGUSR1) != SIG_DFL || handler_of(SIGUSR2) != SIG_DFL) err = -EPROTO;
    return err ? err : added ? added : opened;
}

static void each_failing_allocation_is_reported_and_leaves_nothing(void **state) {
    (void)state;
    int err = -ENOMEM;
    for (long n = 1; err == -ENOMEM; n++) {
        long blocks = harness_blocks();
        int descriptors = harness_descriptors();
        freed = 0;
        harness_fail_allocation(n, false);
        err = use_signals();
        harness_fail_allocation(0, false);
        assert_int_equal(harness_blocks(), blocks);
        assert_int_equal(harness_descriptors(), descriptors);
        assert_true(n < 100);
    }
    assert_int_equal(err, 0);
}

static void without_descriptors_open_says_so(void **state) {
    (void)state;
    if (harness_valgrind()) skip();
    struct rlimit before, none;
    heist_signals *s = NULL;
    const int sig = SIGUSR1;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = before;
    none.rlim_cur = 0;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    int err = heist_signals_open(&sig, 1, NULL, &s);
    setrlimit(RLIMIT_NOFILE, &before);
    assert_int_equal(err, -EMFILE);
    assert_null(s);
    assert_true(handler_of(SIGUSR1) == SIG_DFL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        API_TEST(a_signal_runs_the_function_with_its_argument_on_the_loop_SIG_01_SIG_05),
        API_TEST(a_new_handler_of_the_loop_replaces_the_old_one_takes_its_signal_and_frees_its_argument),
        API_TEST(what_is_no_signal_or_cannot_be_caught_is_refused_SIG_02),
        API_TEST(one_loop_has_a_signal_and_others_are_refused_SIG_03),
        API_TEST(a_signal_ends_the_sleep_of_a_loop_SIG_04),
        API_TEST(closing_a_loop_removes_its_handlers_SIG_06),
        API_TEST(a_handler_of_the_program_is_taken_only_when_asked_and_comes_back),
        API_TEST(each_signal_of_a_burst_is_followed_by_a_call),
        API_TEST(handlers_and_listeners_come_and_go_under_a_storm),
        API_TEST(a_failing_callback_is_reported_under_its_name),
        API_TEST(the_callback_runs_in_the_context_of_who_added_it),
        API_TEST(several_listeners_hear_each_signal_and_a_wait_that_ends_otherwise_takes_none),
        API_TEST(a_second_waiter_is_busy_and_close_wakes_the_first),
        API_TEST(wait_takes_one_signal),
        API_TEST(a_callback_and_a_plain_thread_may_look_but_not_wait),
        API_TEST(who_asks_for_sigint_comes_before_the_run_and_then_the_run_has_it_again),
        API_TEST(in_a_forked_child_a_signal_is_what_it_was),
        API_TEST(each_failing_allocation_is_reported_and_leaves_nothing),
        API_TEST(without_descriptors_open_says_so),
    };
    return HARNESS_MAIN("signal", tests);
}
