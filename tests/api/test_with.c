/* A step before a block and one after it, on every way out. */
#include "support/harness.h"

#include <string.h>

struct manager {
    struct record record;
    int enter, exit; /* what the steps return */
    int block;       /* what the block returns */
    double pause;    /* of each */
    int given, waited;
    int err;
    void *value;
};

static int enter(void *arg, void **out) {
    struct manager *m = arg;
    record_add(&m->record, "enter");
    int err = heist_sleep(m->pause);
    *out = &m->given;
    return err ? err : m->enter;
}
static int leave(void *arg, int code) {
    struct manager *m = arg;
    record_add(&m->record, "exit:%s", heist_error_name(code));
    m->waited = heist_sleep(m->pause); /* also after a cancellation */
    return m->exit;
}
static const heist_with_ops ops = {sizeof(heist_with_ops), enter, leave};

static int block(void *entered, void *arg, void **out) {
    struct manager *m = arg;
    record_add(&m->record, entered == &m->given ? "block" : "lost");
    int err = heist_sleep(m->pause);
    *out = m;
    return err ? err : m->block;
}

static int run_with(void *arg, void **out) {
    struct manager *m = arg;
    (void)out;
    m->err = heist_with(&ops, m, block, m, &m->value);
    return m->err == -ECANCELED ? m->err : 0;
}
static int run_and_cancel(void *arg, void **out) {
    heist_task *t;
    (void)out;
    int err = heist_create_task(run_with, arg, NULL, &t);
    if (err) return err;
    heist_sleep(1.5);
    heist_cancel(t);
    err = heist_await(t, NULL);
    heist_unref(t);
    return err == -ECANCELED ? 0 : err;
}

static void exit_follows_the_block_on_every_way_out_CORO_36(void **state) {
    (void)state;
    static const int codes[] = {0, -EIO, 3};
    for (int i = 0; i < 3; i++) {
        struct manager m = {.record = RECORD_INIT, .pause = 1, .block = codes[i]};
        assert_int_equal(harness_run(run_with, &m, NULL), 0);
        assert_int_equal(m.err, i == 1 ? -EIO : 0);
        assert_ptr_equal(m.value, i == 1 ? NULL : &m);
        assert_string_equal(record_text(&m.record), i == 1 ? "enter block exit:EIO" : "enter block exit:OK");
        assert_int_equal(m.waited, 0);
    }
}

static void exit_may_deal_with_a_failure_or_fail_itself_CORO_37(void **state) {
    (void)state;
    static const struct {
        int block, exit, err;
        bool value;
    } cases[] = {{-EIO, 1, 0, false}, {-EIO, -EPERM, -EPERM, false}, {0, -EPERM, -EPERM, false}, {0, 1, 0, true}};
    for (int i = 0; i < 4; i++) {
        int untouched = 0;
        struct manager m = {.record = RECORD_INIT, .block = cases[i].block, .exit = cases[i].exit, .value = &untouched};
        assert_int_equal(harness_run(run_with, &m, NULL), 0);
        assert_int_equal(m.err, cases[i].err);
        assert_ptr_equal(m.value, cases[i].err ? (void *)&untouched : cases[i].value ? (void *)&m : NULL);
    }
}

static void exit_sees_a_cancellation_and_may_wait_CORO_38(void **state) {
    (void)state;
    for (int handles = 0; handles < 2; handles++) {
        struct manager m = {.record = RECORD_INIT, .pause = 1, .exit = handles};
        assert_int_equal(harness_run(run_and_cancel, &m, NULL), 0);
        assert_int_equal(m.err, handles ? 0 : -ECANCELED);
        assert_string_equal(record_text(&m.record), "enter block exit:ECANCELED");
        assert_int_equal(m.waited, 0);
    }
}

static void neither_block_nor_exit_runs_when_enter_fails_CORO_39(void **state) {
    (void)state;
    struct manager m = {.record = RECORD_INIT, .enter = -EPROTO};
    assert_int_equal(harness_run(run_with, &m, NULL), 0);
    assert_int_equal(m.err, -EPROTO);
    assert_null(m.value);
    assert_string_equal(record_text(&m.record), "enter");

    struct manager cancelled = {.record = RECORD_INIT, .pause = 4}; /* in the middle of it */
    assert_int_equal(harness_run(run_and_cancel, &cancelled, NULL), 0);
    assert_int_equal(cancelled.err, -ECANCELED);
    assert_string_equal(record_text(&cancelled.record), "enter");
}

static void bad_input_is_refused(void **state) {
    (void)state;
    struct manager m = {.record = RECORD_INIT};
    heist_with_ops bad = ops;
    assert_int_equal(heist_with(NULL, &m, block, &m, NULL), -EINVAL);
    assert_int_equal(heist_with(&ops, &m, NULL, &m, NULL), -EINVAL);
    bad.size = 1;
    assert_int_equal(heist_with(&bad, &m, block, &m, NULL), -EINVAL);
    bad = ops;
    bad.enter = NULL;
    assert_int_equal(heist_with(&bad, &m, block, &m, NULL), -EINVAL);
    bad = ops;
    bad.exit = NULL;
    assert_int_equal(heist_with(&bad, &m, block, &m, NULL), -EINVAL);
    assert_int_equal(record_words(&m.record), 0);
    assert_int_equal(heist_with(&ops, &m, block, &m, NULL), 0); /* on a plain thread */
    assert_string_equal(record_text(&m.record), "enter block exit:OK");
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        API_TEST(exit_follows_the_block_on_every_way_out_CORO_36),
        API_TEST(exit_may_deal_with_a_failure_or_fail_itself_CORO_37),
        API_TEST(exit_sees_a_cancellation_and_may_wait_CORO_38),
        API_TEST(neither_block_nor_exit_runs_when_enter_fails_CORO_39),
        API_TEST(bad_input_is_refused),
    };
    return HARNESS_MAIN("api/with", tests);
}
