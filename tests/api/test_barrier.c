/* Barriers: wait for each other. */
#include "support/harness.h"

#include <string.h>

struct party {
    heist_barrier *barrier;
    double deadline;
    int got;
};

static int come(void *arg, void **out) {
    struct party *p = arg;
    (void)out;
    p->got = p->deadline > 0 ? heist_barrier_wait_until(p->barrier, heist_time() + p->deadline)
                             : heist_barrier_wait(p->barrier);
    return p->got == -ECANCELED ? p->got : 0;
}

static heist_task *new_task(heist_loop *loop, heist_coro_fn fn, void *arg) {
    heist_task *task = NULL;
    assert_int_equal(heist_loop_create_task(loop, fn, arg, NULL, &task), 0);
    return task;
}

static void finish(heist_loop *loop, heist_task *task, int code) {
    assert_int_equal(heist_loop_run_until_complete(loop, task, NULL), code);
    heist_unref(task);
}

static void the_last_lets_all_go_on_each_with_its_index_SYNC_26(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    heist_barrier barrier = HEIST_BARRIER_INIT(4);
    struct party p[6];
    heist_task *t[6];
    for (int i = 0; i < 6; i++) p[i] = (struct party){&barrier, i == 2 ? 1 : 0, -1};
    for (int i = 0; i < 4; i++) t[i] = i == 3 ? NULL : new_task(loop, come, &p[i]);
    harness_one_pass(loop);
    assert_int_equal(heist_barrier_n_waiting(&barrier), 3);
    /* Two leave the round: one cancelled, one late; the indices are still those of four. */
    assert_int_equal(heist_cancel(t[0]), 1);
    finish(loop, t[0], -ECANCELED);
    finish(loop, t[2], 0);
    assert_int_equal(p[2].got, -ETIMEDOUT);
    assert_int_equal(heist_barrier_n_waiting(&barrier), 1);
    for (int i = 3; i < 6; i++) t[i] = new_task(loop, come, &p[i]);
    finish(loop, t[1], 0);
    for (int i = 3; i < 6; i++) finish(loop, t[i], 0);
    assert_int_equal(p[1].got, 0);
    for (int i = 3; i < 6; i++) assert_int_equal(p[i].got, i - 2);
    assert_int_equal(heist_barrier_destroy(&barrier), 0);

    heist_barrier alone = HEIST_BARRIER_INIT(1);
    assert_int_equal(heist_barrier_wait(&alone), 0);
    harness_loop_end(loop);
}

/* ---- rounds: tasks of two runtimes and a plain thread ---- */

enum { PARTIES = 7, ROUNDS = 60 };

struct shared {
    heist_barrier barrier;
    int done[PARTIES]; /* plain: the barrier orders it */
    _Atomic(int) indices[ROUNDS], bad;
};
struct member {
    struct shared *shared;
    int number;
};

static void go_round(struct member *m) {
    struct shared *s = m->shared;
    for (int round = 0; round < ROUNDS; round++) {
        s->done[m->number] = round + 1;
        int index = heist_barrier_wait(&s->barrier);
        if (index < 0 || index >= PARTIES || (s->indices[round] & 1 << index)) s->bad++;
        s->indices[round] |= 1 << index;
        for (int i = 0; i < PARTIES; i++)
            if (s->done[i] != round + 1) s->bad++;
        if (heist_barrier_wait(&s->barrier) < 0) s->bad++; /* all have looked */
    }
}
static int go_round_task(void *arg, void **out) {
    (void)out;
    go_round(arg);
    return 0;
}
static void *go_round_thread(void *arg) {
    go_round(arg);
    return NULL;
}

static void the_next_round_begins_at_once_SYNC_27(void **state) {
    (void)state;
    heist_runtime *one = harness_runtime(0), *two = harness_runtime(0);
    struct shared s = {.barrier = HEIST_BARRIER_INIT(PARTIES)};
    struct member m[PARTIES];
    heist_task *t[PARTIES];
    for (int i = 0; i < PARTIES; i++) m[i] = (struct member){&s, i};
    pthread_t thread = harness_thread(go_round_thread, &m[0]);
    for (int i = 1; i < PARTIES; i++)
        assert_int_equal(heist_runtime_run_coroutine(i % 2 ? one : two, go_round_task, &m[i], NULL, &t[i]), 0);
    for (int i = 1; i < PARTIES; i++) {
        assert_int_equal(heist_await(t[i], NULL), 0);
        heist_unref(t[i]);
    }
    harness_join(thread);
    harness_runtime_end(one);
    harness_runtime_end(two);
    assert_int_equal(s.bad, 0);
    for (int i = 0; i < ROUNDS; i++) assert_int_equal(s.indices[i], (1 << PARTIES) - 1);
}

static void its_numbers_can_be_read_SYNC_28(void **state) {
    (void)state;
    heist_barrier barrier;
    memset(&barrier, 0xff, sizeof(barrier));
    assert_int_equal(heist_barrier_init(&barrier, 0), -EINVAL);
    assert_int_equal(heist_barrier_init(&barrier, -3), -EINVAL);
    assert_int_equal(heist_barrier_init(&barrier, 3), 0);
    assert_int_equal(heist_barrier_parties(&barrier), 3);
    assert_int_equal(heist_barrier_n_waiting(&barrier), 0);
    assert_int_equal(heist_barrier_broken(&barrier), 0);
    assert_int_equal(heist_barrier_wait_until(&barrier, heist_time() + 0.001), -ETIMEDOUT);
    assert_int_equal(heist_barrier_n_waiting(&barrier), 0);
}

static void reset_turns_the_waiters_away_and_begins_anew_SYNC_29(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    heist_barrier barrier = HEIST_BARRIER_INIT(2);
    struct party a = {&barrier, 0, -1}, b = {&barrier, 0, -1}, c = {&barrier, 0, -1};
    heist_task *ta = new_task(loop, come, &a);
    harness_one_pass(loop);
    assert_int_equal(heist_barrier_destroy(&barrier), -EBUSY);
    assert_int_equal(heist_barrier_reset(&barrier), 0);
    assert_int_equal(heist_barrier_broken(&barrier), 0);
    assert_int_equal(heist_barrier_n_waiting(&barrier), 0);
    finish(loop, ta, 0);
    assert_int_equal(a.got, HEIST_EBROKEN);
    heist_task *tb = new_task(loop, come, &b), *tc = new_task(loop, come, &c);
    finish(loop, tb, 0);
    finish(loop, tc, 0);
    assert_int_equal(b.got, 0);
    assert_int_equal(c.got, 1);
    harness_loop_end(loop);
}

static void abort_breaks_it_until_reset_SYNC_30(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    heist_barrier barrier = HEIST_BARRIER_INIT(2);
    struct party a = {&barrier, 0, -1}, b = {&barrier, 0, -1}, c = {&barrier, 0, -1};
    heist_task *ta = new_task(loop, come, &a);
    harness_one_pass(loop);
    assert_int_equal(heist_barrier_abort(&barrier), 0);
    assert_int_equal(heist_barrier_broken(&barrier), 1);
    finish(loop, ta, 0);
    assert_int_equal(a.got, HEIST_EBROKEN);
    finish(loop, new_task(loop, come, &b), 0);
    assert_int_equal(b.got, HEIST_EBROKEN);
    assert_int_equal(heist_barrier_wait(&barrier), HEIST_EBROKEN);
    assert_int_equal(heist_barrier_reset(&barrier), 0);
    assert_int_equal(heist_barrier_broken(&barrier), 0);
    heist_task *tb = new_task(loop, come, &b), *tc = new_task(loop, come, &c);
    finish(loop, tb, 0);
    finish(loop, tc, 0);
    assert_int_equal(b.got + c.got, 1);
    harness_loop_end(loop);
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        API_TEST(the_last_lets_all_go_on_each_with_its_index_SYNC_26),
        API_TEST(the_next_round_begins_at_once_SYNC_27),
        API_TEST(its_numbers_can_be_read_SYNC_28),
        API_TEST(reset_turns_the_waiters_away_and_begins_anew_SYNC_29),
        API_TEST(abort_breaks_it_until_reset_SYNC_30),
    };
    return HARNESS_MAIN("barrier", tests);
}
