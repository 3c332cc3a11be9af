/* A stack overflow ends the process where it happens, with a line that names the task
 * if the runtime's options asked for it, and with a plain SIGSEGV if not.
 *
 * By public calls only, each overflow in a process of its own: in a task on the
 * caller's thread and on a worker's, in a signal handler that runs on a task's stack,
 * by the kernel when it has no room to deliver a signal there, and in the call that
 * suspends, with every number of bytes left that makes a difference to it. */
#include "limits/child.h"
#include "limits/dig.h"

#include <alloca.h>
#include <heist.h>
#include <pthread.h>
#include <signal.h>

#define STACK 65536
#define LINE_START "heist: stack overflow in task 'digger' (made at "
#define LINE_END "): its stack of 65536 bytes is full; give it stack_bytes = 131072\n"

/* ---- what overflows ---- */

/* A handler on the stack of whoever runs: it was installed without SA_ONSTACK. */
static void dig_in_handler(int signal_number) {
    volatile char start = 0;
    (void)signal_number;
    recurse(&start);
}

static void do_nothing(int signal_number) {
    (void)signal_number;
}

/* For this thread too, if it is a worker's: these block what belongs to the program. */
static void handle(void (*handler)(int)) {
    struct sigaction action;
    sigset_t one;
    memset(&action, 0, sizeof action);
    action.sa_handler = handler;
    sigemptyset(&action.sa_mask);
    sigaction(SIGUSR1, &action, NULL);
    sigemptyset(&one);
    sigaddset(&one, SIGUSR1);
    pthread_sigmask(SIG_UNBLOCK, &one, NULL);
}

static int raise_and_dig(void *arg, void **out) {
    (void)arg;
    (void)out;
    handle(dig_in_handler);
    raise(SIGUSR1);
    return 0;
}

/* How many bytes lie between an address and the guard below it.  The kernel is asked page by page: it answers
 * EFAULT for the guard, where looking would end the process. */
static size_t room_below(const char *here) {
    int ends[2];
    char drop;
    scene_expect(pipe(ends) == 0);
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), at = (uintptr_t)here & ~(page - 1);
    while (write(ends[1], (const void *)at, 1) == 1) {
        scene_expect(read(ends[0], &drop, 1) == 1);
        at -= page;
    }
    scene_expect(errno == EFAULT);
    close(ends[0]);
    close(ends[1]);
    return (uintptr_t)here - (at + page);
}

/* Calls fn with about `left` bytes of the stack below it; every step of 16 is another frame. */
static __attribute__((noinline)) int with_room(size_t left, int (*fn)(void)) {
    char *here = __builtin_frame_address(0);
    size_t room = room_below(here);
    scene_expect(room > left + 1024);
    volatile char *used = alloca(room - left);
    used[0] = 1; /* the lowest byte: so far there must be room */
    return fn() + used[0] - 1;
}

static int raise_small(void) {
    raise(SIGUSR1);
    return 0;
}

/* The handler would need little, but the registers alone do not fit. */
static int no_room_for_a_signal(void *arg, void **out) {
    (void)arg;
    (void)out;
    handle(do_nothing);
    raise(SIGUSR1); /* the first call of a function may need room to find it */
    return with_room(700, raise_small);
}

static int yield(void) {
    return heist_yield();
}

static int yield_with(void *arg, void **out) {
    (void)out;
    int err = with_room((size_t)(intptr_t)arg, yield);
    printf("survived\n");
    fflush(stdout);
    return err;
}

/* ---- scenes ---- */

static void be_quiet(void) {
    /* A detector's own handler is not the one that these tests want to meet. */
    signal(SIGSEGV, SIG_DFL);
    signal(SIGBUS, SIG_DFL);
}

static heist_task_options digger(void) {
    heist_task_options opts = HEIST_TASK_OPTIONS_INIT;
    opts.name = "digger";
    opts.stack_bytes = STACK;
    return opts;
}

struct job {
    heist_coro_fn fn;
    void *arg;
    int loop; /* the worker on which it is pinned, or -1 */
};

static int make_digger(void *arg, void **out) {
    struct job *job = arg;
    heist_task *task = NULL;
    heist_loop *loop = NULL;
    heist_task_options opts = digger();
    int err = heist_get_running_loop(&loop);
    (void)out;
    if (job->loop >= 0) {
        loop = heist_runtime_loop(heist_loop_runtime(loop), job->loop);
        opts.flags = HEIST_TASK_PINNED;
    }
    if (err == 0) err = heist_loop_create_task(loop, job->fn, job->arg, &opts, &task);
    if (err == 0) err = heist_await(task, NULL);
    heist_unref(task);
    return err;
}

static void run_digger(heist_coro_fn fn, void *arg, unsigned flags, int workers) {
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    struct job job = {fn, arg, workers > 1 ? workers - 1 : -1};
    opts.flags = flags;
    opts.workers = workers;
    scene_expect(heist_run(make_digger, &job, &opts, NULL) == 0);
}

static void scene_task(long workers) {
    be_quiet();
    run_digger(dig, NULL, 0, (int)workers);
}

static void scene_handler_off(long workers) {
    be_quiet();
    run_digger(dig, NULL, HEIST_RUNTIME_NO_OVERFLOW_HANDLER, (int)workers);
}

static void scene_embedded(long flags) {
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    heist_task_options task_opts = digger();
    heist_runtime *rt = NULL;
    heist_task *task = NULL;
    be_quiet();
    opts.workers = 2;
    opts.flags = (unsigned)flags;
    scene_expect(heist_runtime_new(&opts, &rt) == 0);
    scene_expect(heist_runtime_run_coroutine(rt, dig, NULL, &task_opts, &task) == 0);
    heist_await(task, NULL);
}

static void scene_signal_handler(long workers) {
    be_quiet();
    run_digger(raise_and_dig, NULL, 0, (int)workers);
}

static void scene_signal_without_room(long workers) {
    be_quiet();
    run_digger(no_room_for_a_signal, NULL, 0, (int)workers);
}

static void scene_yield_with(long left) {
    be_quiet();
    run_digger(yield_with, (void *)(intptr_t)left, 0, 1);
}

static void say_theirs(void) {
    static const char text[] = "their handler\n";
    if (write(STDERR_FILENO, text, sizeof text - 1) < 0) abort();
    _exit(42);
}

static void their_handler(int signal_number) {
    if (signal_number == SIGSEGV) say_theirs();
}

static void their_action(int signal_number, siginfo_t *info, void *context) {
    if (signal_number == SIGSEGV && info->si_addr && context) say_theirs();
}

/* With and without SA_SIGINFO and SA_ONSTACK. */
static void scene_earlier_handler(long flags) {
    struct sigaction action;
    be_quiet();
    memset(&action, 0, sizeof action);
    sigemptyset(&action.sa_mask);
    action.sa_flags = (int)flags;
    if (flags & SA_SIGINFO)
        action.sa_sigaction = their_action;
    else
        action.sa_handler = their_handler;
    sigaction(SIGSEGV, &action, NULL);
    run_digger(dig, NULL, 0, 2);
}

/* A runtime that ended has put back what was there. */
static void scene_after_the_runtime(long unused) {
    struct sigaction before, after;
    heist_run(yield_with, (void *)(intptr_t)8000, NULL, NULL);
    (void)unused;
    scene_expect(sigaction(SIGSEGV, NULL, &before) == 0);
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    scene_expect(heist_run(yield_with, (void *)(intptr_t)8000, &opts, NULL) == 0);
    scene_expect(sigaction(SIGSEGV, NULL, &after) == 0);
    scene_expect(before.sa_handler == after.sa_handler && before.sa_flags == after.sa_flags);
}

static int dig_in_callback(void *arg) {
    return dig(arg, NULL);
}

static int dig_after_a_yield(heist_generator *self, void *arg, void **out) {
    int err = heist_generator_yield(self, NULL, NULL);
    if (err == 0) err = heist_yield(); /* the task leaves with both stacks, and comes back with both */
    return err ? err : dig(arg, out);
}

static int drive_digger(void *arg, void **out) {
    heist_generator *g = NULL;
    (void)arg;
    (void)out;
    scene_expect(heist_generator_new(dig_after_a_yield, NULL, NULL, &g) == 0);
    scene_expect(heist_generator_next(g, NULL) == 0);
    return heist_generator_next(g, NULL);
}

static void scene_generator(long workers) {
    be_quiet();
    run_digger(drive_digger, NULL, 0, (int)workers);
}

static void *call_digger(void *arg) {
    heist_loop *loop = arg;
    scene_expect(heist_loop_call_soon(loop, dig_in_callback, NULL, NULL, NULL) == 0);
    heist_loop_run_forever(loop);
    return NULL;
}

/* A callback runs on the thread's own stack, whose guard is not heist's. */
static void scene_callback(long unused) {
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    heist_loop *loop = NULL;
    pthread_attr_t attributes;
    pthread_t thread;
    (void)unused;
    be_quiet();
    opts.flags = HEIST_RUNTIME_OVERFLOW_HANDLER;
    scene_expect(heist_loop_new(&opts, &loop) == 0);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 1 << 20);
    scene_expect(pthread_create(&thread, &attributes, call_digger, loop) == 0);
    pthread_join(thread, NULL);
}

static const struct scene scenes[] = {
    {"task", scene_task},
    {"handler-off", scene_handler_off},
    {"embedded", scene_embedded},
    {"signal-handler", scene_signal_handler},
    {"signal-without-room", scene_signal_without_room},
    {"yield-with", scene_yield_with},
    {"earlier-handler", scene_earlier_handler},
    {"after-the-runtime", scene_after_the_runtime},
    {"callback", scene_callback},
    {"generator", scene_generator},
};

/* ---- tests ---- */

static void expect_report(void) {
    child_expect(strstr(child_text, LINE_START) != NULL);
    child_expect(strstr(child_text, LINE_END) != NULL);
}

static void expect_silence(void) {
    child_expect(strstr(child_text, "heist:") == NULL);
}

static void overflow_in_a_task_names_it_and_where_it_was_made(void **state) {
    (void)state;
    for (long workers = 1; workers <= 2; workers++) {
        child_play("task", workers);
        expect_report();
        child_expect(strstr(child_text, "test_overflow.c:") != NULL);
        child_expect(child_died_of(SIGSEGV));
    }
}

static void overflow_with_the_handler_off_is_a_plain_fault(void **state) {
    (void)state;
    for (long workers = 1; workers <= 2; workers++) {
        child_play("handler-off", workers);
        expect_silence();
        child_expect(child_died_of(SIGSEGV));
    }
}

static void embedded_runtime_reports_only_when_asked(void **state) {
    (void)state;
    child_play("embedded", 0);
    expect_silence();
    child_expect(child_died_of(SIGSEGV));
    child_play("embedded", HEIST_RUNTIME_OVERFLOW_HANDLER);
    expect_report();
    child_expect(child_died_of(SIGSEGV));
}

static void overflow_in_a_signal_handler_on_a_tasks_stack_names_the_task(void **state) {
    (void)state;
    if (CHILD_INSTRUMENTED) skip(); /* a detector delivers signals when it suits it */
    for (long workers = 1; workers <= 2; workers++) {
        child_play("signal-handler", workers);
        expect_report();
        child_expect(child_died_of(SIGSEGV));
    }
}

/* The kernel has no address to tell here, for nobody's instruction faulted. */
static void signal_that_finds_no_room_on_a_tasks_stack_names_the_task(void **state) {
    (void)state;
    if (CHILD_INSTRUMENTED) skip();
    child_play("signal-without-room", 1);
    expect_report();
    child_expect(child_died_of(SIGSEGV));
}

static void earlier_handler_comes_after_the_report_whatever_its_kind(void **state) {
    static const int kinds[] = {0, SA_ONSTACK, SA_SIGINFO, SA_SIGINFO | SA_ONSTACK};
    (void)state;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        child_play("earlier-handler", kinds[i]);
        char *ours = strstr(child_text, LINE_START), *theirs = strstr(child_text, "their handler\n");
        child_expect(ours && theirs && ours < theirs);
        child_expect(child_ended_with(42));
    }
}

/* From no room at all to more than the call takes: it succeeds, or it is reported. */
static void overflow_during_the_switch_is_reported_at_every_depth(void **state) {
    int survived = 0, reported = 0;
    (void)state;
    if (CHILD_INSTRUMENTED) skip(); /* its functions take more room than is told */
    for (long left = 0; left <= 1024; left += left < 512 ? 16 : 128) {
        child_play("yield-with", left);
        if (strstr(child_text, "survived\n")) {
            child_expect(child_ended_with(0));
            survived++;
        } else {
            expect_report();
            child_expect(child_died_of(SIGSEGV));
            reported++;
        }
    }
    assert_true(reported > 0);
    child_play("yield-with", 4096);
    child_expect(child_ended_with(0));
}

static void disposition_is_what_it_was_after_the_runtime(void **state) {
    (void)state;
    child_play("after-the-runtime", 0);
    child_expect_success();
}

static void overflow_in_a_generator_names_the_task_that_drives_it(void **state) {
    (void)state;
    for (long workers = 1; workers <= 2; workers++) {
        child_play("generator", workers);
        expect_report();
        child_expect(child_died_of(SIGSEGV));
    }
}

static void overflow_of_a_threads_own_stack_is_not_called_a_tasks(void **state) {
    (void)state;
    child_play("callback", 0);
    expect_silence();
    child_expect(child_died_of(SIGSEGV));
}

int main(int argc, char **argv) {
    child_main(argc, argv, scenes, sizeof scenes / sizeof scenes[0]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(overflow_in_a_task_names_it_and_where_it_was_made),
        cmocka_unit_test(overflow_with_the_handler_off_is_a_plain_fault),
        cmocka_unit_test(embedded_runtime_reports_only_when_asked),
        cmocka_unit_test(overflow_in_a_signal_handler_on_a_tasks_stack_names_the_task),
        cmocka_unit_test(signal_that_finds_no_room_on_a_tasks_stack_names_the_task),
        cmocka_unit_test(earlier_handler_comes_after_the_report_whatever_its_kind),
        cmocka_unit_test(overflow_during_the_switch_is_reported_at_every_depth),
        cmocka_unit_test(disposition_is_what_it_was_after_the_runtime),
        cmocka_unit_test(overflow_in_a_generator_names_the_task_that_drives_it),
        cmocka_unit_test(overflow_of_a_threads_own_stack_is_not_called_a_tasks),
    };
    return cmocka_run_group_tests_name("limits/overflow", tests, NULL, NULL);
}
