/* heist_gather: all of them, in their order, and safe by default.  Rows COMP-01 to
 * COMP-08 as far as one call serves them. */
#include "support/harness.h"

#include <stdlib.h>
#include <string.h>

struct child {
    struct record *record;
    heist_future *future;
    double seconds;
    int code; /* 0 or what it fails with */
    int ended;
};

static int sleep_then_end(void *arg, void **out) {
    struct child *child = arg;
    int err = heist_sleep(child->seconds);
    child->ended = 1;
    if (err < 0) return err;
    *out = child;
    return child->code;
}

struct scene {
    struct child children[5];
    size_t count;
    unsigned flags;
    void *results[5];
    int err, done[5], cancelled[5];
    double seconds;
};

static int play(void *arg, void **out) {
    struct scene *scene = arg;
    heist_task *tasks[5] = {NULL};
    int err = 0;
    (void)out;
    double start = heist_time();
    for (size_t i = 0; i < scene->count && err == 0; i++)
        err = heist_create_task(sleep_then_end, &scene->children[i], NULL, &tasks[i]);
    if (err == 0) scene->err = heist_gather(tasks, scene->count, scene->results, scene->flags);
    scene->seconds = heist_time() - start;
    for (size_t i = 0; i < scene->count; i++) {
        scene->done[i] = heist_future_done(tasks[i]);
        scene->cancelled[i] = heist_future_cancelled(tasks[i]);
    }
    /* The children's arguments are the test's, so the early form may leave some behind until they end. */
    for (size_t i = 0; i < scene->count; i++) {
        if (!scene->done[i]) heist_await(tasks[i], NULL);
        heist_unref(tasks[i]);
    }
    return err;
}

static void results_stand_in_order_of_arguments_COMP_01_COMP_02(void **state) {
    (void)state;
    struct scene scene = {.count = 3, .err = 1};
    static const double seconds[] = {4, 1, 2};
    for (int i = 0; i < 3; i++) scene.children[i].seconds = seconds[i];
    assert_int_equal(harness_run(play, &scene, NULL), 0);
    assert_int_equal(scene.err, 0);
    for (int i = 0; i < 3; i++) assert_ptr_equal(scene.results[i], &scene.children[i]);
    assert_true(scene.seconds >= 4 && scene.seconds < 4.5); /* not 7 */
}

static void gather_of_nothing_is_done_at_once_COMP_03(void **state) {
    (void)state;
    struct scene scene = {.count = 0, .err = 1};
    assert_int_equal(harness_run(play, &scene, NULL), 0);
    assert_int_equal(scene.err, 0);
    assert_int_equal(heist_gather(NULL, 0, NULL, 0), 0);
}

static void first_failure_cancels_the_rest_and_all_have_ended(void **state) {
    (void)state;
    struct scene scene = {.count = 4, .err = 1};
    static const double seconds[] = {1, 5, 2, 100};
    for (int i = 0; i < 4; i++) scene.children[i].seconds = seconds[i];
    scene.children[2].code = -EPROTO;
    assert_int_equal(harness_run(play, &scene, NULL), 0);
    assert_int_equal(scene.err, -EPROTO);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(scene.done[i], 1);
        assert_int_equal(scene.children[i].ended, 1);
    }
    assert_int_equal(scene.cancelled[0], 0);
    assert_int_equal(scene.cancelled[1], 1);
    assert_int_equal(scene.cancelled[3], 1);
    assert_true(scene.seconds >= 2 && scene.seconds < 2.5);
}

static void early_form_returns_at_the_first_failure_and_the_rest_go_on_COMP_04(void **state) {
    (void)state;
    struct scene scene = {.count = 3, .err = 1, .flags = HEIST_GATHER_EARLY};
    static const double seconds[] = {1, 2, 10};
    for (int i = 0; i < 3; i++) scene.children[i].seconds = seconds[i];
    scene.children[1].code = -EPIPE;
    assert_int_equal(harness_run(play, &scene, NULL), 0);
    assert_int_equal(scene.err, -EPIPE);
    assert_true(scene.seconds >= 2 && scene.seconds < 2.5);
    assert_int_equal(scene.done[0], 1);
    assert_int_equal(scene.done[1], 1);
    assert_int_equal(scene.done[2], 0);
    assert_int_equal(scene.children[2].ended, 1); /* it was awaited afterwards, and was not cancelled */
    assert_int_equal(scene.cancelled[2], 0);
}

static void collecting_form_waits_for_all_and_never_fails_COMP_05_COMP_07(void **state) {
    (void)state;
    struct scene scene = {.count = 4, .err = 1, .flags = HEIST_GATHER_ALL};
    for (int i = 0; i < 4; i++) scene.children[i].seconds = i + 1;
    scene.children[0].code = -EPIPE;
    scene.children[2].code = -ECANCELED;
    assert_int_equal(harness_run(play, &scene, NULL), 0);
    assert_int_equal(scene.err, 0);
    assert_null(scene.results[0]);
    assert_ptr_equal(scene.results[1], &scene.children[1]);
    assert_null(scene.results[2]);
    assert_ptr_equal(scene.results[3], &scene.children[3]);
    assert_int_equal(scene.cancelled[2], 1);
    assert_int_equal(scene.cancelled[3], 0);
    assert_true(scene.seconds >= 4 && scene.seconds < 4.5);
}

static int cancel_the_scene(void *arg, void **out) {
    struct scene *scene = arg;
    heist_task *task = NULL;
    (void)out;
    int err = heist_create_task(play, scene, NULL, &task);
    if (err < 0) return err;
    err = heist_sleep(1.5);
    if (err < 0) return err;
    heist_cancel(task);
    err = heist_await(task, NULL);
    heist_unref(task);
    return err;
}

static void cancelling_the_gather_cancels_every_child_COMP_06(void **state) {
    (void)state;
    static const unsigned flags[] = {0, HEIST_GATHER_ALL, HEIST_GATHER_EARLY};
    for (int k = 0; k < 3; k++) {
        struct scene scene = {.count = 3, .err = 1, .flags = flags[k]};
        static const double seconds[] = {1, 50, 100};
        for (int i = 0; i < 3; i++) scene.children[i].seconds = seconds[i];
        assert_int_equal(harness_run(cancel_the_scene, &scene, NULL), 0);
        assert_int_equal(scene.err, -ECANCELED);
        for (int i = 0; i < 3; i++) assert_int_equal(scene.children[i].ended, 1);
        assert_int_equal(scene.cancelled[0], 0);
        if (flags[k] != HEIST_GATHER_EARLY) {
            assert_int_equal(scene.cancelled[1], 1);
            assert_int_equal(scene.cancelled[2], 1);
        }
    }
}

static int gather_twice_the_same(void *arg, void **out) {
    struct child *child = arg;
    heist_task *task = NULL;
    void *results[3] = {NULL, NULL, NULL};
    (void)out;
    int err = heist_create_task(sleep_then_end, child, NULL, &task);
    if (err < 0) return err;
    heist_future *const futures[3] = {task, task, task};
    err = heist_gather(futures, 3, results, 0);
    heist_unref(task);
    if (err < 0) return err;
    return results[0] == child && results[1] == child && results[2] == child ? 0 : -EPROTO;
}

static void duplicates_are_allowed_COMP_01(void **state) {
    (void)state;
    struct child child = {.seconds = 1};
    assert_int_equal(harness_run(gather_twice_the_same, &child, NULL), 0);
}

struct group {
    struct child children[3];
};

static int gather_group(void *arg, void **out) {
    struct group *group = arg;
    heist_task *tasks[3];
    int err = 0;
    for (int i = 0; i < 3; i++) {
        err = heist_create_task(sleep_then_end, &group->children[i], NULL, &tasks[i]);
        if (err < 0) return err;
    }
    err = heist_gather(tasks, 3, NULL, 0);
    for (int i = 0; i < 3; i++) heist_unref(tasks[i]);
    *out = group;
    return err;
}

static int gather_groups(void *arg, void **out) {
    struct group *groups = arg;
    heist_task *tasks[3];
    void *results[3];
    int err = 0;
    (void)out;
    for (int i = 0; i < 3; i++) {
        err = heist_create_task(gather_group, &groups[i], NULL, &tasks[i]);
        if (err < 0) return err;
    }
    err = heist_gather(tasks, 3, results, 0);
    for (int i = 0; i < 3; i++) heist_unref(tasks[i]);
    for (int i = 0; i < 3 && err == 0; i++)
        if (results[i] != &groups[i]) err = -EPROTO;
    return err;
}

static void groups_of_groups_nest_through_tasks_COMP_08(void **state) {
    (void)state;
    struct group groups[3];
    memset(groups, 0, sizeof groups);
    for (int i = 0; i < 9; i++) groups[i / 3].children[i % 3].seconds = 0.1 * (1 + i % 4);
    assert_int_equal(harness_run(gather_groups, groups, NULL), 0);
    for (int i = 0; i < 9; i++) assert_int_equal(groups[i / 3].children[i % 3].ended, 1);
}

static int already_done(void *arg, void **out) {
    heist_future *futures[2];
    void *results[2] = {NULL, NULL};
    (void)out;
    for (int i = 0; i < 2; i++) {
        int err = heist_future_new(NULL, &futures[i]);
        if (err < 0) return err;
        heist_future_set_result(futures[i], arg, NULL);
    }
    int err = heist_gather(futures, 2, results, 0);
    for (int i = 0; i < 2; i++) heist_unref(futures[i]);
    return err < 0 ? err : results[0] == arg && results[1] == arg ? 0 : -EPROTO;
}

static void gather_takes_plain_futures_and_finished_ones_COMP_01(void **state) {
    (void)state;
    int value = 0;
    assert_int_equal(harness_run(already_done, &value, NULL), 0);
}

static const struct CMUnitTest tests[] = {
    API_TEST(results_stand_in_order_of_arguments_COMP_01_COMP_02),
    API_TEST(gather_of_nothing_is_done_at_once_COMP_03),
    API_TEST(first_failure_cancels_the_rest_and_all_have_ended),
    API_TEST(early_form_returns_at_the_first_failure_and_the_rest_go_on_COMP_04),
    API_TEST(collecting_form_waits_for_all_and_never_fails_COMP_05_COMP_07),
    API_TEST(cancelling_the_gather_cancels_every_child_COMP_06),
    API_TEST(duplicates_are_allowed_COMP_01),
    API_TEST(groups_of_groups_nest_through_tasks_COMP_08),
    API_TEST(gather_takes_plain_futures_and_finished_ones_COMP_01),
};

int main(void) {
    return HARNESS_MAIN("gather", tests);
}
