/* The first calls of several threads raced for the page by which a forked child is known.
 *
 * The thread that made the page wrote a plain pointer to it, and the others read that pointer without having been
 * part of the making: ThreadSanitizer saw two threads of a fresh process that made their first loops at once.  The
 * page is made once in a process, so each trial is a process of its own; the detector's report ends it with a status. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <heist.h>
#include <pthread.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { THREADS = 8, TRIALS = 6 };

extern char **environ;
static const char *self_path;
static pthread_barrier_t barrier;

/* Each begins with another call, and goes on to a loop that works. */
static void *first_calls(void *arg) {
    intptr_t number = (intptr_t)arg;
    heist_loop *loop = NULL;
    heist_future *future = NULL;
    heist_channel *channel = NULL;
    int err = 0;
    pthread_barrier_wait(&barrier);
    if (number % 4 == 1) err = heist_future_new(NULL, &future);
    if (number % 4 == 2) err = heist_channel_new(1, &channel);
    if (number % 4 == 3) err = heist_sleep(0);
    if (!err) err = heist_loop_new(NULL, &loop);
    if (!err) err = heist_loop_close(loop);
    heist_loop_unref(loop);
    heist_unref(future);
    heist_channel_unref(channel);
    return (void *)(intptr_t)err;
}

static int trial(void) {
    pthread_t threads[THREADS];
    int failed = 0;
    if (pthread_barrier_init(&barrier, NULL, THREADS) != 0) return 2;
    for (intptr_t i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, first_calls, (void *)i) != 0) abort();
    for (int i = 0; i < THREADS; i++) {
        void *err;
        pthread_join(threads[i], &err);
        if (err) {
            fprintf(stderr, "thread %d: %s\n", i, heist_error_name((int)(intptr_t)err));
            failed = 1;
        }
    }
    pthread_barrier_destroy(&barrier);
    return failed;
}

static void first_calls_of_many_threads_do_not_race(void **state) {
    (void)state;
    for (int i = 0; i < TRIALS; i++) {
        char *argv[] = {(char *)(uintptr_t)self_path, (char *)(uintptr_t)"trial", NULL};
        pid_t child;
        int status = -1;
        assert_int_equal(posix_spawn(&child, self_path, NULL, NULL, argv, environ), 0);
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_calls_of_many_threads_do_not_race),
    };
    if (argc == 2 && strcmp(argv[1], "trial") == 0) return trial();
    self_path = argv[0];
    return cmocka_run_group_tests_name("bug_fork_page_raced", tests, NULL, NULL);
}
