/* A thread that is asked where it stands: in a function, in a coroutine, and when it does not answer. */
#include "coro/where.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "coro/coro.h"
#include "mem/stack.h"

#define NUMBER (SIGRTMIN + 4)

struct asked {
    struct heist__where where;
    _Atomic(int) ready, leave;
    bool deaf, in_coroutine;
    pthread_t thread;
    struct heist__host host;
    struct heist__coro *coro;
};

/* Waits in a system call, for a detector lets a signal through there. */
static HEIST_NOINLINE void stand(struct asked *a) {
    a_store_sc(&a->ready, 1);
    while (!a_load_sc(&a->leave)) usleep(200);
}

static HEIST_NOINLINE int deep(struct asked *a, int depth) {
    __asm__ volatile("" : "+r"(depth)); /* else an optimiser makes a copy of the function for each depth */
    if (!depth) {
        stand(a);
        return 1;
    }
    int below = deep(a, depth - 1);
    __asm__ volatile("" : "+r"(below)); /* no tail call, and no loop with a sum either */
    return below + 1;
}

static void body(void *payload) {
    struct asked *a = payload;
    deep(a, 3);
    heist__coro_exit(&a->host, a->coro, NULL);
}

static void *run(void *arg) {
    struct asked *a = arg;
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, NUMBER);
    heist__where_thread_init(&a->where, NUMBER);
    if (a->deaf) pthread_sigmask(SIG_BLOCK, &set, NULL);
    if (a->in_coroutine) {
        struct heist__stack_cache cache;
        struct heist__stack *stack;
        memset(&cache, 0, sizeof cache);
        if (heist__stack_get(&cache, 65536, &stack) == 0) {
            heist__host_init(&a->host);
            a->coro = heist__coro_new(stack, body);
            heist__coro_enter(&a->host, a->coro, a);
            heist__coro_free(a->coro);
            heist__stack_put(&cache, stack);
        }
        heist__stack_cache_flush(&cache);
    } else {
        deep(a, 3);
    }
    heist__where_thread_fini(&a->where);
    return NULL;
}

static void begin(struct asked *a, bool deaf, bool in_coroutine) {
    memset(a, 0, sizeof *a);
    a->deaf = deaf;
    a->in_coroutine = in_coroutine;
    assert_int_equal(pthread_create(&a->thread, NULL, run, a), 0);
    while (!a_load_sc(&a->ready)) usleep(200);
}

static void end(struct asked *a) {
    a_store_sc(&a->leave, 1);
    pthread_join(a->thread, NULL);
}

/* How many return addresses stand in `deep`: each of its calls but the last has the same one. */
static unsigned equal_frames(const struct heist__where *w) {
    unsigned most = 0;
    for (unsigned i = 0; i < w->count; i++) {
        unsigned n = 0;
        for (unsigned k = 0; k < w->count; k++) n += w->frame[k] == w->frame[i];
        if (n > most) most = n;
    }
    return most;
}

static void ask_and_read(bool in_coroutine) {
    struct asked a;
    begin(&a, false, in_coroutine);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(heist__where_ask(&a.where), 0);
        for (long looks = 1; a_load_acq(&a.where.state) != HEIST__WHERE_ANSWERED; looks++) {
            usleep(200);
            /* ThreadSanitizer takes signals itself and passes them on when it likes; now and then one that came while
             * a fiber was on its way is not passed on before the next.  Then one asks again, as the monitor does. */
            if (HEIST_TSAN && looks % 1000 == 0 && heist__where_give_up(&a.where))
                assert_int_equal(heist__where_ask(&a.where), 0);
        }
        assert_in_range(a.where.count, 5, HEIST__WHERE_FRAMES);
        assert_in_range(equal_frames(&a.where), 2, 4);
        heist__where_done(&a.where);
    }
    end(&a);
    assert_int_equal(heist__where_ask(&a.where), -ESRCH);
}

static void thread_tells_its_frames(void **state) {
    (void)state;
    ask_and_read(false);
}

static void coroutine_tells_its_frames_and_ends_at_its_first(void **state) {
    (void)state;
    ask_and_read(true);
}

static void one_asks_at_a_time(void **state) {
    (void)state;
    struct asked a;
    begin(&a, true, false);
    assert_int_equal(heist__where_ask(&a.where), 0);
    assert_int_equal(heist__where_ask(&a.where), -EBUSY);
    assert_true(heist__where_give_up(&a.where));
    assert_false(heist__where_give_up(&a.where));
    end(&a);
}

/* The signal that a thread blocked arrives at its end at the latest, and is nobody's: its default action, which
 * would end the process, is not taken. */
static void late_signal_of_a_deaf_thread_does_no_harm(void **state) {
    (void)state;
    struct asked a;
    begin(&a, true, false);
    assert_int_equal(heist__where_ask(&a.where), 0);
    assert_int_equal(a_load_sc(&a.where.state), HEIST__WHERE_ASKED);
    assert_true(heist__where_give_up(&a.where));
    end(&a);
    assert_int_equal(a_load_sc(&a.where.state), HEIST__WHERE_IDLE);
}

static void faults_and_what_cannot_be_caught_do_not_serve(void **state) {
    (void)state;
    static const int wrong[] = {0, -1, SIGKILL, SIGSTOP, SIGSEGV, SIGBUS, SIGILL, SIGABRT, SIGPIPE, 32, 65};
    for (size_t i = 0; i < HEIST_ARRAY_LEN(wrong); i++) assert_false(heist__where_signal_ok(wrong[i]));
    assert_true(heist__where_signal_ok(SIGURG));
    assert_true(heist__where_signal_ok(SIGRTMIN));
    assert_true(heist__where_signal_ok(SIGRTMAX));
}

static int install(void **state) {
    (void)state;
    return heist__where_install(NUMBER);
}
static int uninstall(void **state) {
    (void)state;
    struct sigaction now;
    heist__where_uninstall(NUMBER);
    return sigaction(NUMBER, NULL, &now) == 0 && now.sa_handler == SIG_DFL ? 0 : -1;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(thread_tells_its_frames, install, uninstall),
        cmocka_unit_test_setup_teardown(coroutine_tells_its_frames_and_ends_at_its_first, install, uninstall),
        cmocka_unit_test_setup_teardown(one_asks_at_a_time, install, uninstall),
        cmocka_unit_test_setup_teardown(late_signal_of_a_deaf_thread_does_no_harm, install, uninstall),
        cmocka_unit_test(faults_and_what_cannot_be_caught_do_not_serve),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
