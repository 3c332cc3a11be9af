/* heist_wait_for and heist_shield: a limit that cancels, and what is spared. */
#include "support/harness.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* Sleeps; when cancelled it cleans up for a while, and then ends as it is told. */
struct child {
    double seconds, cleanup;
    int code, after_cancel; /* -ECANCELED, another code, or 0: it does not give in */
    int cancelled;
};

static int child_body(void *arg, void **out) {
    struct child *c = arg;
    int err = heist_sleep(c->seconds);
    if (err == -ECANCELED) {
        c->cancelled++;
        if (c->cleanup > 0) heist_sleep(c->cleanup);
        err = c->after_cancel;
    } else {
        err = c->code;
    }
    *out = c;
    return err;
}

struct scene {
    struct child child;
    double limit, cancel_at;
    struct record seen;
    heist_task *task;
    double start;
    bool shielded;
};

static int waits_for(void *arg, void **out) {
    struct scene *s = arg;
    (void)out;
    heist_future *what = heist_ref(s->task);
    if (s->shielded) {
        heist_unref(what);
        int err = heist_shield(s->task, &what);
        if (err < 0) return err;
    }
    void *value = NULL;
    int err = heist_wait_for(what, s->limit, &value);
    record_add(&s->seen, "%s%s@%.1f", err ? heist_error_name(err) : "ok", value == &s->child ? "+" : "",
               heist_time() - s->start);
    record_add(&s->seen, "%d%d%d", heist_future_done(what), heist_future_done(s->task),
               heist_future_cancelled(s->task));
    heist_unref(what);
    return 0;
}

static int play(void *arg, void **out) {
    struct scene *s = arg;
    (void)out;
    heist_task *waiter;
    s->start = heist_time();
    int err = heist_create_task(child_body, &s->child, NULL, &s->task);
    if (err == 0) err = heist_create_task(waits_for, s, NULL, &waiter);
    if (err < 0) return err;
    if (s->cancel_at > 0) {
        heist_sleep(s->cancel_at);
        heist_cancel(waiter);
    }
    err = heist_await(waiter, NULL);
    heist_unref(waiter);
    if (s->child.cancelled == 0 || s->shielded) {
        void *value = NULL;
        int end = heist_await(s->task, &value);
        record_add(&s->seen, "%s@%.1f", end ? heist_error_name(end) : "ok", heist_time() - s->start);
    }
    heist_unref(s->task);
    return err;
}

static void expect(struct scene *s, const char *words) {
    s->seen = (struct record)RECORD_INIT;
    assert_int_equal(harness_run(play, s, NULL), 0);
    assert_string_equal(record_text(&s->seen), words);
}

static void with_enough_time_the_outcome_comes_through_COMP_25_COMP_28(void **state) {
    (void)state;
    expect(&(struct scene){.child = {.seconds = 1}, .limit = 5}, "ok+@1.0 110 ok@1.0");
    expect(&(struct scene){.child = {.seconds = 1000}, .limit = HEIST_FOREVER}, "ok+@1000.0 110 ok@1000.0");
    expect(&(struct scene){.child = {.seconds = 1, .code = -EPROTO}, .limit = 5}, "EPROTO@1.0 110 EPROTO@1.0");
    expect(&(struct scene){.child = {.seconds = 1, .code = -ECANCELED}, .limit = 5}, "ECANCELED@1.0 111 ECANCELED@1.0");
}

static void at_the_limit_it_is_cancelled_COMP_26(void **state) {
    (void)state;
    struct scene s = {.child = {.seconds = 10, .after_cancel = -ECANCELED}, .limit = 2};
    expect(&s, "ETIMEDOUT@2.0 111");
    assert_int_equal(s.child.cancelled, 1);
}

static void it_waits_until_the_cancelled_one_has_really_ended_COMP_27(void **state) {
    (void)state;
    expect(&(struct scene){.child = {.seconds = 10, .cleanup = 3, .after_cancel = -ECANCELED}, .limit = 2},
           "ETIMEDOUT@5.0 111");
    /* what it says in spite of the cancel is its outcome */
    expect(&(struct scene){.child = {.seconds = 10, .cleanup = 3}, .limit = 2}, "ok+@5.0 110");
    expect(&(struct scene){.child = {.seconds = 10, .cleanup = 3, .after_cancel = -EPROTO}, .limit = 2},
           "EPROTO@5.0 110");
}

static void cancelling_the_waiter_cancels_what_it_waits_for_COMP_29(void **state) {
    (void)state;
    expect(
        &(struct scene){.child = {.seconds = 10, .cleanup = 2, .after_cancel = -ECANCELED}, .limit = 5, .cancel_at = 1},
        "ECANCELED@3.0 111");
    /* past the limit, while it cleans up: the request is delivered here too */
    expect(
        &(struct scene){.child = {.seconds = 10, .cleanup = 2, .after_cancel = -ECANCELED}, .limit = 1, .cancel_at = 2},
        "ECANCELED@2.0 111");
}

static void a_shield_keeps_the_limit_from_the_task_COMP_30(void **state) {
    (void)state;
    struct scene s = {.child = {.seconds = 10}, .limit = 2, .shielded = true};
    expect(&s, "ETIMEDOUT@2.0 100 ok@10.0");
    assert_int_equal(s.child.cancelled, 0);
}

static void a_shield_gives_the_outcome_and_takes_the_cancel_COMP_39(void **state) {
    (void)state;
    expect(&(struct scene){.child = {.seconds = 2}, .limit = 5, .shielded = true}, "ok+@2.0 110 ok@2.0");
    expect(&(struct scene){.child = {.seconds = 2, .code = -EPROTO}, .limit = 5, .shielded = true},
           "EPROTO@2.0 110 EPROTO@2.0");
    struct scene s = {.child = {.seconds = 10}, .limit = HEIST_FOREVER, .cancel_at = 1, .shielded = true};
    expect(&s, "ECANCELED@1.0 100 ok@10.0");
    assert_int_equal(s.child.cancelled, 0);
}

static int limits_of_nothing(void *arg, void **out) {
    struct record *seen = arg;
    (void)out;
    heist_future *f[3];
    for (int i = 0; i < 3; i++) {
        int err = heist_future_new(NULL, &f[i]);
        if (err < 0) return err;
    }
    double start = heist_time();
    record_add(seen, "%s", heist_error_name(heist_wait_for(f[0], 0, NULL)));
    record_add(seen, "%d", heist_future_cancelled(f[0]));
    record_add(seen, "%s", heist_error_name(heist_wait_for(f[1], -5, NULL)));
    heist_future_set_result(f[2], seen, NULL);
    void *value = NULL;
    int err = heist_wait_for(f[2], 0, &value);
    record_add(seen, "%d%d", err, value == seen);
    record_add(seen, "%s", heist_error_name(heist_wait_for(f[1], 5, NULL))); /* done, cancelled: no time-out */
    record_add(seen, "%.0f", heist_time() - start);
    record_add(seen, "%s", heist_error_name(heist_wait_for(NULL, 1, NULL)));
    record_add(seen, "%s", heist_error_name(heist_wait_for(f[2], __builtin_nan(""), NULL)));
    record_add(seen, "%s", heist_error_name(heist_wait_for_until(f[2], __builtin_nan(""), NULL)));
    record_add(seen, "%s", heist_error_name(heist_wait_for(heist_current_task(), 1, NULL)));
    heist_cancel(heist_current_task());
    record_add(seen, "%s", heist_error_name(heist_wait_for(f[2], 1, NULL))); /* a cancellation point, every time */
    heist_unref_all(f, 3);
    return 0;
}

static void no_time_at_all_is_not_for_ever_COMP_28(void **state) {
    (void)state;
    struct record seen = RECORD_INIT;
    assert_int_equal(harness_run(limits_of_nothing, &seen, NULL), 0);
    assert_string_equal(record_text(&seen),
                        "ETIMEDOUT 1 ETIMEDOUT 01 ECANCELED 0 EINVAL EINVAL EINVAL HEIST_ESELFAWAIT ECANCELED");
}

static _Atomic(int) frees;
static void count_free(void *arg) {
    (void)arg;
    frees++;
}

static int bare_coroutines(void *arg, void **out) {
    struct record *seen = arg;
    (void)out;
    struct child quick = {.seconds = 1}, slow = {.seconds = 10, .after_cancel = -ECANCELED};
    void *value = NULL;
    heist_task_options opts = HEIST_TASK_OPTIONS_INIT;
    opts.arg_free = count_free;
    int err = heist_wait_for_coroutine(child_body, &quick, &opts, 5, &value);
    record_add(seen, "%d%d", err, value == &quick);
    err = heist_wait_for_coroutine(child_body, &slow, &opts, 5, &value);
    record_add(seen, "%s%d", heist_error_name(err), slow.cancelled);
    record_add(seen, "%d", (int)frees);
    return 0;
}

static void a_bare_coroutine_may_be_given_a_limit_COMP_25_COMP_26(void **state) {
    (void)state;
    struct record seen = RECORD_INIT;
    frees = 0;
    assert_int_equal(harness_run(bare_coroutines, &seen, NULL), 0);
    assert_string_equal(record_text(&seen), "01 ETIMEDOUT1 2");
    assert_int_equal(heist_wait_for_coroutine(child_body, NULL, NULL, 1, NULL), HEIST_ENOLOOP);
}

/* ---- shields ---- */

static int shields(void *arg, void **out) {
    struct record *seen = arg;
    (void)out;
    heist_future *f, *shield, *other;
    int err = heist_future_new(NULL, &f);
    if (err == 0) err = heist_shield(f, &shield);
    if (err == 0) err = heist_shield(f, &other);
    if (err < 0) return err;
    record_add(seen, "%s", heist_error_name(heist_future_set_result(shield, NULL, NULL)));
    record_add(seen, "%s", heist_error_name(heist_future_set_exception(shield, -EPROTO, NULL)));
    int asked = heist_cancel_message(shield, "enough");
    record_add(seen, "%d%d", asked, heist_future_cancelled(shield));
    heist_exception e = HEIST_EXCEPTION_INIT;
    heist_future_exception(shield, &e);
    record_add(seen, "%s:%d", e.message, e.code);
    asked = heist_cancel(shield);
    record_add(seen, "%d%d", asked, heist_future_done(f));
    heist_cancel(f);
    record_add(seen, "%d", heist_future_cancelled(other)); /* cancelled with it */
    heist_unref(shield);
    heist_unref(other);
    heist_unref(f);

    err = heist_future_new(NULL, &f);
    if (err == 0) err = heist_shield(f, &shield);
    if (err < 0) return err;
    heist_future_set_exception(f, -EPROTO, "broken");
    heist_unref(f); /* the shield holds it now */
    heist_future_exception(shield, &e);
    record_add(seen, "%s:%s", heist_error_name(e.code), e.message);
    record_add(seen, "%s", heist_error_name(heist_future_take(shield, NULL)));
    heist_unref(shield);

    err = heist_future_new(NULL, &f);
    if (err == 0) err = heist_shield(f, &shield);
    if (err < 0) return err;
    heist_unref(f); /* nobody can complete it any more */
    record_add(seen, "%d", heist_future_cancelled(shield));
    heist_unref(shield);
    record_add(seen, "%s", heist_error_name(heist_shield(NULL, &shield)));
    return 0;
}

static void a_shield_ends_with_its_future_or_alone_COMP_40(void **state) {
    (void)state;
    struct record seen = RECORD_INIT;
    assert_int_equal(harness_run(shields, &seen, NULL), 0);
    assert_string_equal(record_text(&seen),
                        "EOPNOTSUPP EOPNOTSUPP 11 enough:-125 00 1 EPROTO:broken EOPNOTSUPP 1 EINVAL");
}

static int shield_a_coroutine(void *arg, void **out) {
    struct record *seen = arg;
    (void)out;
    struct child child = {.seconds = 3};
    heist_future *task, *shield;
    int err = heist_ensure_future(NULL, HEIST_CORO(child_body, &child), NULL, &task);
    if (err == 0) err = heist_shield(task, &shield);
    if (err < 0) return err;
    heist_unref(task); /* the task keeps itself, and the shield knows its end */
    record_add(seen, "%s", heist_error_name(heist_await_until(shield, heist_time() + 1, NULL)));
    void *value = NULL;
    record_add(seen, "%d", heist_await(shield, &value));
    record_add(seen, "%d", value == &child);
    heist_unref(shield);
    return 0;
}

static void a_coroutine_may_be_shielded_COMP_41(void **state) {
    (void)state;
    struct record seen = RECORD_INIT;
    assert_int_equal(harness_run(shield_a_coroutine, &seen, NULL), 0);
    assert_string_equal(record_text(&seen), "ETIMEDOUT 0 1");
}

/* Long chains end, are cancelled and are let go on the stack of one step. */
#define CHAIN 20000

static int chain_of_shields(void *arg, void **out) {
    struct record *seen = arg;
    (void)out;
    for (int how = 0; how < 3; how++) {
        heist_future *first, *last, *next;
        int err = heist_future_new(NULL, &first);
        if (err < 0) return err;
        last = heist_ref(first);
        for (int i = 0; i < CHAIN; i++) {
            err = heist_shield(last, &next);
            if (err < 0) return err;
            heist_unref(last);
            last = next;
        }
        if (how == 0) heist_future_set_result(first, seen, NULL);
        if (how == 1) heist_cancel(first);
        if (how < 2) heist_unref(first);
        void *value = NULL;
        err = how < 2 ? heist_await(last, &value) : heist_await_until(last, heist_time() + 1, &value);
        record_add(seen, "%s%d", err ? heist_error_name(err) : "ok", value == seen);
        if (how == 2) heist_unref(first); /* dropped while it is pending */
        record_add(seen, "%d", heist_future_done(last));
        heist_unref(last);
    }
    return 0;
}

static void a_long_chain_of_shields_takes_no_stack(void **state) {
    (void)state;
    struct record seen = RECORD_INIT;
    assert_int_equal(harness_run(chain_of_shields, &seen, NULL), 0);
    assert_string_equal(record_text(&seen), "ok1 1 ECANCELED0 1 ETIMEDOUT0 1");
}

/* ---- who calls ---- */

struct callback {
    heist_loop *loop;
    heist_future *future;
    int answer, coroutine;
};

static int calls(void *arg) {
    struct callback *c = arg;
    c->answer = heist_wait_for(c->future, 1, NULL);
    c->coroutine = heist_wait_for_coroutine(child_body, NULL, NULL, 1, NULL);
    heist_loop_stop(c->loop);
    return 0;
}

static void a_callback_may_not_wait(void **state) {
    (void)state;
    struct callback c = {.loop = harness_loop()};
    assert_int_equal(heist_future_new(NULL, &c.future), 0);
    assert_int_equal(heist_loop_call_soon(c.loop, calls, &c, NULL, NULL), 0);
    assert_int_equal(heist_loop_run_forever(c.loop), 0);
    harness_loop_end(c.loop);
    assert_int_equal(heist_future_done(c.future), 0);
    heist_unref(c.future);
    assert_int_equal(c.answer, HEIST_ENOTINCORO);
    assert_int_equal(c.coroutine, HEIST_ENOTINCORO);
}

static int sleeps_for_ever(void *arg, void **out) {
    (void)out;
    int err = heist_sleep(3600);
    atomic_fetch_add((_Atomic(int) *)arg, err == -ECANCELED);
    return err;
}

static void a_plain_thread_waits_with_a_limit(void **state) {
    (void)state;
    heist_runtime *rt = harness_runtime(0);
    _Atomic(int) cancelled = 0;
    heist_task *t;
    heist_future *shield;
    assert_int_equal(heist_runtime_run_coroutine(rt, sleeps_for_ever, &cancelled, NULL, &t), 0);
    assert_int_equal(heist_shield(t, &shield), 0);
    assert_int_equal(heist_wait_for(shield, 0.01, NULL), -ETIMEDOUT);
    assert_int_equal(heist_future_done(t), 0);
    heist_unref(shield);
    assert_int_equal(heist_wait_for(t, 0.01, NULL), -ETIMEDOUT);
    assert_int_equal(heist_future_cancelled(t), 1);
    heist_unref(t);
    harness_runtime_end(rt);
    assert_int_equal(cancelled <= 1, 1); /* 0: it had not begun */
}

static const struct CMUnitTest tests[] = {
    API_TEST(with_enough_time_the_outcome_comes_through_COMP_25_COMP_28),
    API_TEST(at_the_limit_it_is_cancelled_COMP_26),
    API_TEST(it_waits_until_the_cancelled_one_has_really_ended_COMP_27),
    API_TEST(cancelling_the_waiter_cancels_what_it_waits_for_COMP_29),
    API_TEST(a_shield_keeps_the_limit_from_the_task_COMP_30),
    API_TEST(a_shield_gives_the_outcome_and_takes_the_cancel_COMP_39),
    API_TEST(no_time_at_all_is_not_for_ever_COMP_28),
    API_TEST(a_bare_coroutine_may_be_given_a_limit_COMP_25_COMP_26),
    API_TEST(a_shield_ends_with_its_future_or_alone_COMP_40),
    API_TEST(a_coroutine_may_be_shielded_COMP_41),
    API_TEST(a_long_chain_of_shields_takes_no_stack),
    API_TEST(a_callback_may_not_wait),
    API_TEST(a_plain_thread_waits_with_a_limit),
};

int main(void) { return HARNESS_MAIN("wait_for", tests); }
