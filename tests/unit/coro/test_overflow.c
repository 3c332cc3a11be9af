/* The overflow report: each fault happens in a forked child, whose standard error
 * and end the test reads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "coro/coro.h"
#include "coro/overflow.h"

static char errors[8192]; /* what the child wrote to standard error */
static int status;        /* how it ended */

static void run_in_child(void (*body)(void)) {
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        dup2(fds[1], STDERR_FILENO);
        /* Neither the test program's handlers nor a detector's are the ones we want to meet. */
        signal(SIGSEGV, SIG_DFL);
        signal(SIGBUS, SIG_DFL);
        body();
        _exit(77);
    }
    close(fds[1]);
    size_t used = 0;
    ssize_t n;
    while ((n = read(fds[0], errors + used, sizeof errors - 1 - used)) > 0) used += (size_t)n;
    errors[used] = 0;
    close(fds[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
}

static bool died_of(int sig) { return WIFSIGNALED(status) && WTERMSIG(status) == sig; }

static struct heist__host host;
static struct heist__coro *coro;

static HEIST_NOINLINE int recurse(volatile char *above) {
    volatile char frame[512];
    memset((void *)frame, above[0], sizeof frame);
    if (frame[5] == 'x') return 0;
    return recurse(frame) + frame[1];
}

static void recurse_for_ever(void *payload) {
    (void)payload;
    volatile char start = 0;
    recurse(&start);
    abort();
}

static void enter_overflow(void) {
    struct heist__stack *s;
    heist__host_init(&host);
    if (heist__overflow_install() < 0 || heist__overflow_thread_init() < 0) _exit(78);
    if (heist__stack_get(NULL, 65536, &s) < 0) _exit(79);
    coro = heist__coro_new(s, recurse_for_ever);
    heist__coro_enter(&host, coro, NULL);
}

static void overflow_is_reported_and_ends_the_process(void **state) {
    (void)state;
    run_in_child(enter_overflow);
    assert_non_null(strstr(errors, "heist: stack overflow in a coroutine: its stack of 65536 bytes is full; "
                                   "give it stack_bytes = 131072\n"));
    assert_true(died_of(SIGSEGV));
}

static size_t name_it(struct heist__stack *s, char *buf, size_t n) {
    return (size_t)snprintf(buf, n, "task \"digger\" (%zu), spawned at mine.c:12", s->bytes);
}

static void enter_named_overflow(void) {
    heist__overflow_describe = name_it;
    enter_overflow();
}

static void overflow_names_the_task(void **state) {
    (void)state;
    run_in_child(enter_named_overflow);
    assert_non_null(
        strstr(errors, "heist: stack overflow in task \"digger\" (65536), spawned at mine.c:12: its stack"));
    assert_true(died_of(SIGSEGV));
}

static void *enter_on_thread(void *arg) {
    (void)arg;
    enter_overflow();
    return NULL;
}

static void overflow_on_thread(void) {
    pthread_t t;
    if (pthread_create(&t, NULL, enter_on_thread, NULL)) _exit(78);
    pthread_join(t, NULL);
}

static void overflow_is_reported_on_any_worker_thread(void **state) {
    (void)state;
    if (HEIST_TSAN) skip(); /* it allows no thread in a forked child */
    run_in_child(overflow_on_thread);
    assert_non_null(strstr(errors, "heist: stack overflow"));
    assert_true(died_of(SIGSEGV));
}

static void their_handler(int sig, siginfo_t *info, void *context) {
    (void)context;
    static const char text[] = "their handler\n";
    if (sig == SIGSEGV && info->si_addr && write(STDERR_FILENO, text, sizeof text - 1) > 0) _exit(42);
}

static void set_their_handler(void) {
    struct sigaction sa = {.sa_sigaction = their_handler, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigaction(SIGSEGV, &sa, NULL);
}

static void overflow_with_earlier_handler(void) {
    set_their_handler();
    enter_overflow();
}

static void the_earlier_handler_comes_after_the_report(void **state) {
    (void)state;
    run_in_child(overflow_with_earlier_handler);
    char *ours = strstr(errors, "heist: stack overflow"), *theirs = strstr(errors, "their handler");
    assert_true(ours && theirs && ours < theirs);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 42);
}

static void touch_elsewhere(void) {
    if (heist__overflow_install() < 0) _exit(78);
    char *page = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    *(volatile char *)page = 1;
}

static void touch_elsewhere_with_handler(void) {
    set_their_handler();
    touch_elsewhere();
}

static void faults_elsewhere_are_not_ours(void **state) {
    (void)state;
    run_in_child(touch_elsewhere);
    assert_null(strstr(errors, "heist: "));
    assert_true(died_of(SIGSEGV));
    if (HEIST_VALGRIND) return; /* which counts the fault and changes the exit status */
    run_in_child(touch_elsewhere_with_handler);
    assert_null(strstr(errors, "heist: "));
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 42);
}

static void send_ourselves_a_signal(void) {
    if (heist__overflow_install() < 0) _exit(78);
    raise(SIGBUS);
    raise(SIGSEGV);
}

static void a_signal_that_was_sent_does_what_it_did(void **state) {
    (void)state;
    run_in_child(send_ourselves_a_signal);
    assert_null(strstr(errors, "heist: "));
    assert_true(died_of(SIGBUS));
}

static void wild_write(void) {
    struct heist__stack *s;
    if (heist__overflow_install() < 0 || heist__stack_get(NULL, 65536, &s) < 0) _exit(78);
    char *lo = s->lo;
    heist__stack_put(NULL, s);
    *(volatile char *)(lo - 8) = 1;
}

static void a_wild_write_to_an_idle_guard_names_nobody(void **state) {
    (void)state;
    run_in_child(wild_write);
    assert_non_null(strstr(errors, "guard page of a coroutine stack that is not in use"));
    assert_true(died_of(SIGSEGV));
}

static bool same_handler(const struct sigaction *a, const struct sigaction *b) {
    return a->sa_sigaction == b->sa_sigaction && (a->sa_flags & SA_SIGINFO) == (b->sa_flags & SA_SIGINFO);
}

static void uninstall_restores_what_was_there(void **state) {
    (void)state;
    struct sigaction before, during, after;
    sigaction(SIGSEGV, NULL, &before);
    assert_int_equal(heist__overflow_install(), 0);
    assert_int_equal(heist__overflow_install(), 0);
    sigaction(SIGSEGV, NULL, &during);
    assert_false(same_handler(&before, &during));
    heist__overflow_uninstall();
    sigaction(SIGSEGV, NULL, &after);
    assert_true(same_handler(&during, &after));
    heist__overflow_uninstall();
    sigaction(SIGSEGV, NULL, &after);
    assert_true(same_handler(&before, &after));
}

static void install_under_later_handler(void) {
    if (heist__overflow_install() < 0) _exit(78);
    struct sigaction ours, theirs = {.sa_handler = SIG_DFL};
    sigaction(SIGSEGV, &theirs, &ours);
    sigaction(SIGSEGV, &ours, NULL);
    set_their_handler();
    heist__overflow_uninstall(); /* theirs may call ours: it stays where it is */
    if (heist__overflow_install() < 0) _exit(79);
    sigaction(SIGSEGV, NULL, &theirs);
    if (theirs.sa_sigaction != their_handler) _exit(80);
    sigaction(SIGSEGV, &ours, NULL); /* they step back; ours must not call itself */
    enter_overflow();
}

static void a_later_handler_is_left_in_place(void **state) {
    (void)state;
    run_in_child(install_under_later_handler);
    assert_non_null(strstr(errors, "heist: stack overflow"));
    assert_true(died_of(SIGSEGV));
}

static void alternate_stack_comes_and_goes(void **state) {
    (void)state;
    stack_t before, during, after;
    sigaltstack(NULL, &before);
    assert_int_equal(heist__overflow_thread_init(), 0);
    assert_int_equal(heist__overflow_thread_init(), 0);
    sigaltstack(NULL, &during);
    assert_false(during.ss_flags & SS_DISABLE);
    heist__overflow_thread_fini();
    heist__overflow_thread_fini();
    sigaltstack(NULL, &after);
    assert_int_equal(after.ss_flags, before.ss_flags);
    if (!(before.ss_flags & SS_DISABLE)) assert_ptr_equal(after.ss_sp, before.ss_sp);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(overflow_is_reported_and_ends_the_process),
        cmocka_unit_test(overflow_names_the_task),
        cmocka_unit_test(overflow_is_reported_on_any_worker_thread),
        cmocka_unit_test(the_earlier_handler_comes_after_the_report),
        cmocka_unit_test(faults_elsewhere_are_not_ours),
        cmocka_unit_test(a_signal_that_was_sent_does_what_it_did),
        cmocka_unit_test(a_wild_write_to_an_idle_guard_names_nobody),
        cmocka_unit_test(uninstall_restores_what_was_there),
        cmocka_unit_test(a_later_handler_is_left_in_place),
        cmocka_unit_test(alternate_stack_comes_and_goes),
    };
    return cmocka_run_group_tests_name("coro/overflow", tests, NULL, NULL);
}
