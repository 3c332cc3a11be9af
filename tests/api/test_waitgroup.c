/* Wait groups: wait for a count to be zero. */
#include "support/harness.h"

#include <string.h>

static void counts_and_refuses_what_cannot_be(void **state) {
    (void)state;
    heist_waitgroup group;
    memset(&group, 0xff, sizeof(group));
    heist_waitgroup_init(&group);
    assert_int_equal(heist_waitgroup_wait(&group), 0); /* zero: nothing to wait for */
    assert_int_equal(heist_waitgroup_done(&group), -EINVAL);
    assert_int_equal(heist_waitgroup_add(&group, 3), 0);
    assert_int_equal(heist_waitgroup_add(&group, -4), -EINVAL);
    assert_int_equal(heist_waitgroup_add(&group, INT64_MAX), -EOVERFLOW);
    assert_int_equal(heist_waitgroup_count(&group), 3);
    assert_int_equal(heist_waitgroup_wait_until(&group, heist_time() + 0.001), -ETIMEDOUT);
    assert_int_equal(heist_waitgroup_destroy(&group), -EBUSY);
    assert_int_equal(heist_waitgroup_add(&group, -2), 0);
    assert_int_equal(heist_waitgroup_done(&group), 0);
    assert_int_equal(heist_waitgroup_wait(&group), 0);
    assert_int_equal(heist_waitgroup_destroy(&group), 0);
}

static int wait_code(void *arg, void **out) {
    (void)out;
    return heist_waitgroup_wait(arg);
}

static void zero_wakes_all_and_it_may_be_used_again_at_once(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    heist_waitgroup group = HEIST_WAITGROUP_INIT;
    heist_task *a, *b, *c;
    assert_int_equal(heist_waitgroup_add(&group, 1), 0);
    assert_int_equal(heist_loop_create_task(loop, wait_code, &group, NULL, &a), 0);
    assert_int_equal(heist_loop_create_task(loop, wait_code, &group, NULL, &b), 0);
    assert_int_equal(heist_loop_create_task(loop, wait_code, &group, NULL, &c), 0);
    harness_one_pass(loop);
    assert_int_equal(heist_cancel(b), 1);
    assert_int_equal(heist_loop_run_until_complete(loop, b, NULL), -ECANCELED);
    assert_int_equal(heist_waitgroup_done(&group), 0);
    assert_int_equal(heist_waitgroup_add(&group, 1), 0); /* before those have run */
    assert_int_equal(heist_loop_run_until_complete(loop, a, NULL), 0);
    assert_int_equal(heist_loop_run_until_complete(loop, c, NULL), 0);
    assert_int_equal(heist_waitgroup_count(&group), 1);
    heist_unref(a);
    heist_unref(b);
    heist_unref(c);
    harness_loop_end(loop);
}

/* ---- children of two runtimes, waited for by tasks and threads; the group is gone with the wait ---- */

enum { CHILDREN = 16, ROUNDS = 25 };

struct shared {
    heist_waitgroup *group;
    _Atomic(int) ended;
};
static int child(void *arg, void **out) {
    struct shared *s = arg;
    heist_waitgroup *group = s->group;
    (void)out;
    (void)heist_yield();
    s->ended++;
    return heist_waitgroup_done(group);
}

static void wait_returns_when_all_have_ended(void **state) {
    (void)state;
    heist_runtime *one = harness_runtime(0), *two = harness_runtime(0);
    for (int round = 1; round <= ROUNDS; round++) {
        heist_waitgroup group = HEIST_WAITGROUP_INIT;
        struct shared s = {.group = &group};
        heist_task *t[CHILDREN];
        assert_int_equal(heist_waitgroup_add(&group, CHILDREN), 0);
        for (int i = 0; i < CHILDREN; i++)
            assert_int_equal(heist_runtime_run_coroutine(i % 2 ? one : two, child, &s, NULL, &t[i]), 0);
        assert_int_equal(heist_waitgroup_wait(&group), 0);
        memset(&group, 0xff, sizeof(group));
        assert_int_equal(s.ended, CHILDREN);
        for (int i = 0; i < CHILDREN; i++) {
            assert_int_equal(heist_await(t[i], NULL), 0);
            heist_unref(t[i]);
        }
    }
    harness_runtime_end(one);
    harness_runtime_end(two);
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        API_TEST(counts_and_refuses_what_cannot_be),
        API_TEST(zero_wakes_all_and_it_may_be_used_again_at_once),
        API_TEST(wait_returns_when_all_have_ended),
    };
    return HARNESS_MAIN("waitgroup", tests);
}
