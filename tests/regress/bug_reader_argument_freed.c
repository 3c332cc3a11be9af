/* The argument of a reader was not freed, or memory written after its end.
 *
 * heist_loop_add_reader published the reader, let go of the lock, and only then stored the
 * function that frees the argument.  A removal or a replacement from another thread in
 * between found no function to call, and the late store went into freed memory.
 *
 * First the order that is certain: a reader that is removed, replaced or left to the close
 * while its callback is already scheduled (it is not called any more) gives its argument
 * back once.  Then the race: two threads replace and remove readers of a descriptor that is
 * always readable. */
#include "regress/workers.h"

#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>

struct watched {
    _Atomic(int) called, freed;
};

static int call(void *arg) {
    struct watched *watched = arg;
    watched->called++;
    return 0;
}

static void release(void *arg) {
    struct watched *watched = arg;
    watched->freed++;
}

static const heist_call_options releasing = {.size = sizeof(heist_call_options), .arg_free = release};

static void open_readable(int fd[2]) {
    assert_int_equal(pipe2(fd, O_CLOEXEC | O_NONBLOCK), 0);
    assert_int_equal(write(fd[1], "x", 1), 1);
}

static void close_both(int fd[2]) {
    close(fd[0]);
    close(fd[1]);
}

/* ---- scheduled already ---- */

enum act { REMOVE, REPLACE, STOP };

struct first {
    heist_loop *loop;
    int own, other;
    enum act act;
    struct watched replacement;
    int bad;
};

/* Both descriptors are readable: the second reader stands behind this one in the same pass. */
static int interfere(void *arg) {
    struct first *first = arg;
    heist_loop_remove_reader(first->loop, first->own);
    if (first->act == REMOVE && heist_loop_remove_reader(first->loop, first->other) != 1) first->bad++;
    if (first->act == REPLACE &&
        heist_loop_add_reader(first->loop, first->other, call, &first->replacement, &releasing) < 0)
        first->bad++;
    return 0;
}

static void scheduled_reader_gives_its_argument_back_once(void **state) {
    (void)state;
    for (int act = REMOVE; act <= STOP; act++) {
        heist_loop *loop = harness_real_loop();
        struct watched watched = {0};
        int one[2], two[2];
        open_readable(one);
        open_readable(two);
        struct first first = {.loop = loop, .own = one[0], .other = two[0], .act = (enum act)act};
        assert_int_equal(heist_loop_add_reader(loop, one[0], interfere, &first, NULL), 0);
        assert_int_equal(heist_loop_add_reader(loop, two[0], call, &watched, &releasing), 0);
        assert_int_equal(heist_loop_run_once(loop, NULL), 0);
        if (act == REMOVE || act == REPLACE) {
            assert_int_equal(watched.called, 0);
            assert_int_equal(watched.freed, 1);
        }
        for (int i = 0; i < 3; i++) assert_int_equal(heist_loop_run_once(loop, NULL), 0);
        if (act == REPLACE) assert_true(first.replacement.called > 0);
        harness_loop_end(loop);
        close_both(one);
        close_both(two);
        assert_int_equal(first.bad, 0);
        assert_int_equal(watched.freed, 1);
        assert_int_equal(first.replacement.freed, act == REPLACE);
    }
}

/* ---- from other threads ---- */

enum { THREADS = 2, READERS = 2000 };

struct shared {
    heist_loop *loop;
    int fd;
};

struct adder {
    struct shared *shared;
    struct watched watched[READERS];
    int failed;
};

static void *replace_and_remove(void *arg) {
    struct adder *adder = arg;
    for (int i = 0; i < READERS; i++) {
        int err = heist_loop_add_reader(adder->shared->loop, adder->shared->fd, call, &adder->watched[i], &releasing);
        if (err < 0) adder->failed++;
        if (i % 3 == 0) heist_loop_remove_reader(adder->shared->loop, adder->shared->fd);
        if (i % 64 == 0) sched_yield(); /* lets it be called, too */
    }
    return NULL;
}

static void readers_replaced_by_threads_give_their_arguments_back_once(void **state) {
    (void)state;
    static struct adder adders[THREADS];
    for (EACH_WORKER_COUNT(workers)) {
        heist_runtime *rt = regress_runtime(workers);
        struct shared shared = {.loop = heist_runtime_loop(rt, 0)};
        pthread_t threads[THREADS];
        int fd[2], wrong = 0;
        open_readable(fd);
        shared.fd = fd[0];
        memset(adders, 0, sizeof adders);
        for (int i = 0; i < THREADS; i++) {
            adders[i].shared = &shared;
            threads[i] = harness_thread(replace_and_remove, &adders[i]);
        }
        for (int i = 0; i < THREADS; i++) harness_join(threads[i]);
        heist_loop_remove_reader(shared.loop, shared.fd);
        harness_runtime_end(rt);
        close_both(fd);
        for (int i = 0; i < THREADS; i++) {
            assert_int_equal(adders[i].failed, 0);
            for (int k = 0; k < READERS; k++) wrong += adders[i].watched[k].freed != 1;
        }
        assert_int_equal(wrong, 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        API_TEST(scheduled_reader_gives_its_argument_back_once),
        API_TEST(readers_replaced_by_threads_give_their_arguments_back_once),
    };
    return HARNESS_MAIN("bug_reader_argument_freed", tests);
}
