/* heist/testkit.h: what tests of programs stand on. */
#include "support/harness.h"

#include <heist/testkit.h>
#include <stdio.h>
#include <string.h>

static int wait_for_days(void *arg, void **out) {
    double *took = arg, start = heist_time();
    int err = heist_sleep(86400.0 * 30);
    *took = heist_time() - start;
    *out = took;
    return err;
}

static void a_month_of_waiting_takes_no_time(void **state) {
    (void)state;
    double took = 0;
    size_t left = 7;
    void *out = NULL;
    heist_test_options opts = HEIST_TEST_OPTIONS_INIT;
    opts.workers = harness_workers();
    assert_int_equal(heist_test_run(wait_for_days, &took, &opts, &out, &left), 0);
    assert_true(took >= 86400.0 * 30 && took < 86400.0 * 30 + 1);
    assert_ptr_equal(out, &took);
    assert_int_equal(left, 0);
}

struct leaky {
    heist_future *kept;
    heist_task *task;
};

static int nothing(void *arg, void **out) {
    (void)arg, (void)out;
    return 0;
}

static int leave_two(void *arg, void **out) {
    struct leaky *l = arg;
    (void)out;
    heist_task_options opts = HEIST_TASK_OPTIONS_INIT;
    opts.name = "forgotten";
    int err = heist_future_new(NULL, &l->kept);
    if (!err) err = heist_create_task(nothing, NULL, &opts, &l->task);
    return err ? err : heist_await(l->task, NULL);
}

static void what_main_leaves_behind_is_counted_and_named(void **state) {
    (void)state;
    struct leaky l = {NULL, NULL}, earlier = {NULL, NULL};
    size_t left = 0;
    heist_test_options opts = HEIST_TEST_OPTIONS_INIT;
    opts.flags = HEIST_TEST_QUIET | HEIST_TEST_DEBUG;
    opts.workers = harness_workers();
    assert_int_equal(heist_test_live(NULL), 0);
    assert_int_equal(heist_test_run(leave_two, &earlier, &opts, NULL, &left), 0);
    assert_int_equal(left, 2);
    assert_int_equal(heist_test_run(leave_two, &l, &opts, NULL, &left), 0);
    assert_int_equal(left, 2); /* those of before do not count */
    char text[8192] = "";
    FILE *to = fmemopen(text, sizeof(text), "w");
    assert_int_equal(heist_test_live(to), 4);
    fclose(to);
    assert_non_null(strstr(text, "heist: left behind: <Future pending>, 1 reference\n"));
    assert_non_null(strstr(text, "heist: left behind: <Task name='forgotten' finished result=(nil) coro="));
    assert_non_null(strstr(text, "test_testkit.c:"));
    assert_non_null(strstr(text, "  made by "));
    heist_unref(l.kept);
    heist_unref(l.task);
    heist_unref(earlier.kept);
    heist_unref(earlier.task);
    assert_int_equal(heist_test_live(NULL), 0);
}

static int make_until_refused(void *arg, void **out) {
    int *made = arg;
    (void)out;
    heist_channel *c = NULL;
    heist_test_fail_allocation(3, 0);
    int err = 0;
    for (*made = 0; *made < 5 && !err; ++*made) {
        err = heist_channel_new(1, &c);
        if (!err) heist_channel_unref(c);
    }
    int once = heist_channel_new(1, &c);
    if (!once) heist_channel_unref(c);
    heist_test_fail_allocation(1, 1);
    int first = heist_channel_new(1, &c), second = heist_channel_new(1, &c);
    long refused = heist_test_refused();
    heist_test_fail_allocation(0, 0);
    int after = heist_channel_new(1, &c);
    if (!after) heist_channel_unref(c);
    return err == -ENOMEM && !once && first == -ENOMEM && second == -ENOMEM && refused == 2 && !after ? 0 : -EIO;
}

static void memory_runs_out_when_asked(void **state) {
    (void)state;
    int made = 0;
    heist_test_options opts = HEIST_TEST_OPTIONS_INIT;
    opts.workers = 1; /* so that nobody else asks for memory */
    assert_int_equal(heist_test_run(make_until_refused, &made, &opts, NULL, NULL), 0);
    assert_int_equal(made, 3);
}

static int end_badly(void *arg, void **out) {
    (void)arg, (void)out;
    return -EPROTO;
}

static int run_within(void *arg, void **out) {
    (void)arg, (void)out;
    return heist_test_run(nothing, NULL, NULL, NULL, NULL);
}

static void codes_and_bad_input(void **state) {
    (void)state;
    heist_test_options opts = HEIST_TEST_OPTIONS_INIT;
    assert_int_equal(heist_test_run(NULL, NULL, NULL, NULL, NULL), -EINVAL);
    opts.flags = 0x100;
    assert_int_equal(heist_test_run(nothing, NULL, &opts, NULL, NULL), -EINVAL);
    opts.flags = HEIST_TEST_REAL_TIME;
    opts.size = 1;
    assert_int_equal(heist_test_run(nothing, NULL, &opts, NULL, NULL), -EINVAL);
    opts.size = sizeof(opts);
    assert_int_equal(heist_test_run(end_badly, NULL, &opts, NULL, NULL), -EPROTO);
    assert_int_equal(heist_test_run(run_within, NULL, NULL, NULL, NULL), HEIST_EOTHERRUNNING);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        API_TEST(a_month_of_waiting_takes_no_time),
        API_TEST(what_main_leaves_behind_is_counted_and_named),
        API_TEST(memory_runs_out_when_asked),
        API_TEST(codes_and_bad_input),
    };
    return HARNESS_MAIN("testkit", tests);
}
