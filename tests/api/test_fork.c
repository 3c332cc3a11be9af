/* After fork the child may not use what it inherited: each call says so with a code of
 * its own, before any lock, and leaves the parent's objects alone. */
#include "support/harness.h"
#include "support/pace.h"

#include <heist/testkit.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

struct heritage {
    heist_loop *loop;
    heist_runtime *rt;
    heist_future *future;
    heist_channel *channel;
    heist_group *group;
    heist_completions *it;
    _Atomic(bool) enough;
};

static int nothing(void *arg, void **out) {
    (void)arg;
    (void)out;
    return 0;
}

static int callback(void *arg) {
    (void)arg;
    return 0;
}

/* The child's side: how many calls did not answer HEIST_EFORKED. */
static int try_everything(struct heritage *h) {
    heist_loop *loop = NULL;
    heist_runtime *rt = NULL;
    heist_future *future = NULL;
    heist_task *task = NULL;
    void *out = NULL;
    int wrong = 0;
#define FORKED(expr)                                                                                                   \
    do {                                                                                                               \
        int err = (expr);                                                                                              \
        if (err != HEIST_EFORKED) {                                                                                    \
            fprintf(stderr, "in the child: %s: %s\n", #expr, err ? heist_error_name(err) : "no error");                \
            wrong++;                                                                                                   \
        }                                                                                                              \
    } while (0)
    FORKED(heist_loop_call_soon(h->loop, callback, NULL, NULL, NULL));
    FORKED(heist_loop_call_soon_threadsafe(h->loop, callback, NULL, NULL, NULL));
    FORKED(heist_loop_call_later(h->loop, 1, callback, NULL, NULL, NULL));
    FORKED(heist_loop_create_task(h->loop, nothing, NULL, NULL, &task));
    FORKED(heist_loop_run_forever(h->loop));
    FORKED(heist_loop_run_once(h->loop, NULL));
    FORKED(heist_runtime_call_soon(h->rt, callback, NULL, NULL, NULL));
    FORKED(heist_runtime_run_coroutine(h->rt, nothing, NULL, NULL, &task));
    FORKED(heist_runtime_close(h->rt, 1));
    FORKED(heist_await(h->future, &out));
    FORKED(heist_await_until(h->future, HEIST_FOREVER, &out));
    FORKED(heist_future_set_result(h->future, NULL, NULL));
    FORKED(heist_future_set_exception(h->future, -EIO, NULL));
    FORKED(heist_cancel(h->future));
    FORKED(heist_channel_send(h->channel, NULL));
    FORKED(heist_channel_recv(h->channel, &out));
    FORKED(heist_loop_new(NULL, &loop));
    FORKED(heist_runtime_new(NULL, &rt));
    FORKED(heist_run(nothing, NULL, NULL, NULL));
    FORKED(heist_future_new(NULL, &future));
    heist_call_graph *graph = NULL;
    char text[64];
    FORKED(heist_capture_call_graph(h->future, 0, 0, &graph));
    FORKED(heist_print_call_graph(h->future, 0, 0, stderr));
    FORKED(heist_future_add_to_awaited_by(h->future, h->future));
    FORKED(heist_future_discard_from_awaited_by(h->future, h->future));
    FORKED(heist_loop_repr(h->loop, text, sizeof(text)));
    FORKED(heist_runtime_repr(h->rt, text, sizeof(text)));
    FORKED(heist_channel_repr(h->channel, text, sizeof(text)));
    FORKED(heist_dump(HEIST_DUMP_ALL, stderr));
    FORKED(heist_inspect_serve());
    FORKED(heist_inspect_stop());
    FORKED(heist_test_live(NULL));
    FORKED(heist_test_run(nothing, NULL, NULL, NULL, NULL));
    heist_future *derived[2] = {h->future, h->future};
    heist_completions *it = NULL;
    FORKED(heist_gather(derived, 2, NULL, 0));
    FORKED(heist_gather_future(derived, 2, 0, &future));
    FORKED(heist_wait(derived, 2, HEIST_FIRST_COMPLETED, 1, NULL));
    FORKED(heist_as_completed(derived, 2, 1, &it));
    FORKED(heist_completions_next(h->it, &future));
    FORKED(heist_completions_try_next(h->it, &future));
    FORKED(heist_wait_for(h->future, 1, &out));
    FORKED(heist_shield(h->future, &future));
    FORKED(heist_sleep_future(h->loop, 1, NULL, NULL, &future));
    FORKED(heist_ensure_future(h->loop, HEIST_CORO(nothing, NULL), NULL, &future));
    FORKED(heist_ensure_future(NULL, HEIST_FUTURE(h->future), NULL, &future));
#undef FORKED
    return wrong;
}

/* Runs it in a forked child: how many calls answered wrongly, or -1 when the child did not come to its end.
 * The number comes through a pipe, for an observer such as valgrind may change the exit status. */
static int wrong_in_child(struct heritage *h) {
    int ends[2], wrong = -1;
    assert_int_equal(pipe(ends), 0);
    fflush(stdout);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        alarm(60); /* a child that hangs on an inherited lock dies with a signal */
        wrong = try_everything(h);
        _exit(write(ends[1], &wrong, sizeof wrong) == sizeof wrong ? 0 : 1);
    }
    close(ends[1]);
    if (read(ends[0], &wrong, sizeof wrong) != sizeof wrong) wrong = -1;
    close(ends[0]);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    return wrong;
}

static void calls_in_the_child_are_refused_and_the_parent_goes_on(void **state) {
    (void)state;
    struct heritage h = {.loop = harness_loop(), .rt = harness_runtime(0)};
    heist_task *task = NULL;
    assert_int_equal(heist_future_new(NULL, &h.future), 0);
    assert_int_equal(heist_channel_new(1, &h.channel), 0);
    assert_int_equal(heist_group_new(&h.group), 0);
    assert_int_equal(heist_as_completed(&h.future, 1, HEIST_FOREVER, &h.it), 0);
    assert_int_equal(heist_runtime_run_coroutine(h.rt, nothing, NULL, NULL, &task), 0);
    assert_int_equal(heist_await(task, NULL), 0);
    heist_unref(task);
    int wrong = wrong_in_child(&h);

    /* The parent noticed nothing. */
    int after = heist_runtime_run_coroutine(h.rt, nothing, NULL, NULL, &task);
    if (after == 0) {
        after = heist_await(task, NULL);
        heist_unref(task);
    }
    int own = heist_loop_run_coroutine(h.loop, nothing, NULL, NULL, NULL);
    heist_unref(h.future);
    heist_completions_free(h.it);
    heist_channel_unref(h.channel);
    heist_group_unref(h.group);
    harness_runtime_end(h.rt);
    harness_loop_end(h.loop);
    assert_int_equal(wrong, 0);
    assert_int_equal(after, 0);
    assert_int_equal(own, 0);
}

static void *submit_until_told(void *arg) {
    struct heritage *h = arg;
    while (!h->enough) {
        heist_task *task = NULL;
        if (heist_runtime_run_coroutine(h->rt, nothing, NULL, NULL, &task) < 0) abort();
        if (heist_await(task, NULL) < 0) abort();
        heist_unref(task);
    }
    return NULL;
}

/* Forked while the library is busy: the child must not meet a lock that somebody held. */
static void fork_in_the_middle_of_work_does_not_hang_the_child(void **state) {
    (void)state;
    struct heritage h = {.loop = harness_loop(), .rt = harness_runtime(0)};
    assert_int_equal(heist_future_new(NULL, &h.future), 0);
    assert_int_equal(heist_channel_new(1, &h.channel), 0);
    assert_int_equal(heist_group_new(&h.group), 0);
    assert_int_equal(heist_as_completed(&h.future, 1, HEIST_FOREVER, &h.it), 0);
    pthread_t threads[2] = {harness_thread(submit_until_told, &h), harness_thread(submit_until_told, &h)};
    int bad = 0;
    for (struct pace pace = pace_of(10, 3, 3); pace_goes_on(&pace);) bad += wrong_in_child(&h) != 0;
    h.enough = true;
    for (int i = 0; i < 2; i++) harness_join(threads[i]);
    heist_unref(h.future);
    heist_completions_free(h.it);
    heist_group_unref(h.group);
    heist_channel_unref(h.channel);
    harness_runtime_end(h.rt);
    harness_loop_end(h.loop);
    assert_int_equal(bad, 0);
}

/* A body that forks and returns in the child ends the child with a message, not with a second runtime. */
static int fork_and_return(void *arg, void **out) {
    pid_t *pid = arg;
    (void)out;
    *pid = fork();
    if (*pid == 0) alarm(60);
    return 0;
}

static void body_that_returns_in_the_child_ends_it(void **state) {
    (void)state;
    pid_t pid = -1;
    pid_t parent = getpid();
    int saved = dup(2), status = 0;
    FILE *quiet = freopen("/dev/null", "w", stderr); /* the child's message */
    int err = harness_run(fork_and_return, &pid, NULL);
    if (getpid() != parent) _exit(77); /* the child came back to main */
    fflush(stderr);
    dup2(saved, 2);
    close(saved);
    assert_non_null(quiet);
    assert_int_equal(err, 0);
    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(!WIFEXITED(status) || (WEXITSTATUS(status) != 0 && WEXITSTATUS(status) != 77));
    assert_true(!WIFSIGNALED(status) || WTERMSIG(status) != SIGALRM);
}

static const struct CMUnitTest tests[] = {
    API_TEST(calls_in_the_child_are_refused_and_the_parent_goes_on),
    API_TEST(fork_in_the_middle_of_work_does_not_hang_the_child),
    API_TEST(body_that_returns_in_the_child_ends_it),
};

int main(void) {
    return HARNESS_MAIN("fork", tests);
}
