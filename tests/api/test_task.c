/* Tasks: birth, states, outcome, sleeping, names, who runs and who is alive.  Rows
 * TASK but for cancellation, which has a file of its own. */
#include "support/harness.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int value_seven = 7;

static int nothing(void *arg, void **out) {
    (void)arg;
    (void)out;
    return 0;
}

static int give_argument(void *arg, void **out) {
    *out = arg;
    return 0;
}

static int mark_in_task(void *arg, void **out) {
    (void)out;
    return mark_word(arg);
}

static int fail_with_message(void *arg, void **out) {
    (void)arg;
    (void)out;
    return heist_fail(-EPROTO, "header %d of %s", 3, "five");
}

static int end_cancelled(void *arg, void **out) {
    (void)arg;
    (void)out;
    return -ECANCELED;
}

static heist_task *new_task(heist_loop *loop, heist_coro_fn fn, void *arg) {
    heist_task *task = NULL;
    assert_int_equal(heist_loop_create_task(loop, fn, arg, NULL, &task), 0);
    assert_non_null(task);
    return task;
}

/* ---- birth ---- */

static void task_refuses_to_be_completed_by_hand_TASK_01(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    heist_task *task = new_task(loop, give_argument, &value_seven);
    void *out = NULL;
    assert_int_equal(heist_future_set_result(task, &value_seven, NULL), -ENOTSUP);
    assert_int_equal(heist_future_set_exception(task, -EIO, NULL), -ENOTSUP);
    assert_int_equal(heist_future_state(task), HEIST_PENDING);
    assert_int_equal(heist_loop_run_until_complete(loop, task, &out), 0);
    assert_ptr_equal(out, &value_seven);
    heist_unref(task);
    harness_loop_end(loop);
}

struct creating {
    struct mark mark;
    int err;
};

static int create_in_callback(void *arg) {
    struct creating *creating = arg;
    creating->err = heist_create_task(mark_in_task, &creating->mark, NULL, NULL);
    record_add(creating->mark.record, "created");
    return 0;
}

static int create_in_task(void *arg, void **out) {
    struct creating *creating = arg;
    heist_task *task = NULL;
    (void)out;
    creating->err = heist_create_task(mark_in_task, &creating->mark, NULL, &task);
    record_add(creating->mark.record, "created:%d", heist_future_state(task));
    int err = heist_await(task, NULL);
    heist_unref(task);
    return err;
}

static void creating_a_task_runs_nothing_of_it_TASK_02_TASK_35(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    struct creating creating = {{&record, "ran", loop}, 1};
    heist_task *task = new_task(loop, mark_in_task, &creating.mark);
    assert_int_equal(record_words(&record), 0);
    assert_int_equal(heist_future_state(task), HEIST_PENDING);
    harness_one_pass(loop);
    assert_string_equal(record_text(&record), "ran");
    record_clear(&record);
    assert_int_equal(heist_loop_call_soon(loop, create_in_callback, &creating, NULL, NULL), 0);
    harness_one_pass(loop);
    harness_one_pass(loop);
    assert_string_equal(record_text(&record), "created ran");
    record_clear(&record);
    assert_int_equal(heist_loop_run_coroutine(loop, create_in_task, &creating, NULL, NULL), 0);
    assert_string_equal(record_text(&record), "created:0 ran");
    assert_int_equal(creating.err, 0);
    heist_unref(task);
    harness_loop_end(loop);
}

/* ---- eager tasks ---- */

static const heist_task_options eager = {sizeof(heist_task_options), HEIST_TASK_EAGER, 0, NULL, NULL, NULL, NULL};

struct eager_step {
    struct record *record;
    const char *word;
    heist_future *gate; /* waits for it, when there is one */
    int deeper, wrong;
};

static int step_at_once(void *arg, void **out) {
    struct eager_step *e = arg;
    heist_task *self = heist_current_task(), *other = NULL;
    record_add(e->record, "%s", e->word);
    if (e->deeper-- > 0) {
        e->wrong |= heist_create_task(step_at_once, e, &eager, &other) != 0;
        e->wrong |= heist_current_task() != self || heist_future_done(other) != 1;
        heist_unref(other);
    }
    *out = e;
    if (!e->gate) return 0;
    int err = heist_await(e->gate, NULL);
    e->wrong |= heist_current_task() != self;
    record_add(e->record, "%s+", e->word);
    return err;
}

static int makes_eager(void *arg, void **out) {
    struct eager_step *e = arg;
    struct record *r = e->record;
    heist_task *self = heist_current_task(), *ends = NULL, *waits = NULL;
    struct eager_step second = {r, "b", NULL, 0, 0};
    void *value = NULL;
    (void)out;
    int err = heist_create_task(step_at_once, e, &eager, &ends); /* done on return */
    record_add(r, "made:%d", heist_future_state(ends));
    e->wrong |= heist_future_result(ends, &value) != 0 || value != e || heist_current_task() != self;
    if (!err) err = heist_future_new(NULL, &second.gate);
    if (!err) err = heist_create_task(step_at_once, &second, &eager, &waits);
    record_add(r, "made:%d", heist_future_state(waits));
    if (!err) err = heist_yield();
    record_add(r, "set");
    heist_future_set_result(second.gate, NULL, NULL);
    if (!err) err = heist_await(waits, NULL);
    record_add(r, "end");
    heist_unref(ends);
    heist_unref(waits);
    heist_unref(second.gate);
    e->wrong |= second.wrong;
    return err;
}

static int makes_eager_in_callback(void *arg) {
    struct eager_step *e = arg;
    int err = heist_create_task(step_at_once, e, &eager, NULL);
    record_add(e->record, "made");
    return err;
}

static int makes_eager_in_generator(heist_generator *g, void *arg, void **out) {
    struct eager_step *e = arg;
    heist_task *t = NULL;
    (void)out;
    int err = heist_create_task(step_at_once, e, &eager, &t);
    if (!err) err = heist_generator_yield(g, NULL, NULL);
    if (!err) err = heist_await(t, NULL);
    heist_unref(t);
    return err;
}

static int drives_one(void *arg, void **out) {
    heist_generator *g = NULL;
    (void)out;
    int err = heist_generator_new(makes_eager_in_generator, arg, NULL, &g);
    if (!err) err = heist_generator_next(g, NULL);
    if (!err) err = heist_generator_next(g, NULL) == HEIST_ESTOP ? 0 : -EIO;
    heist_generator_unref(g);
    return err;
}

static void an_eager_task_runs_within_the_call_until_it_suspends_TASK_34(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    struct eager_step e = {&record, "a", NULL, 0, 0};
    assert_int_equal(heist_loop_run_coroutine(loop, makes_eager, &e, NULL, NULL), 0);
    assert_string_equal(record_text(&record), "a made:2 b made:0 set b+ end");
    record_clear(&record);
    e.deeper = 3; /* one within the other */
    assert_int_equal(heist_loop_call_soon(loop, makes_eager_in_callback, &e, NULL, NULL), 0);
    harness_one_pass(loop);
    assert_string_equal(record_text(&record), "a a a a made");
    record_clear(&record);
    e.deeper = 1;
    assert_int_equal(heist_loop_run_coroutine(loop, drives_one, &e, NULL, NULL), 0);
    assert_string_equal(record_text(&record), "a a");
    record_clear(&record);
    e.deeper = 0;
    heist_task *task = NULL; /* from outside it begins as any other */
    assert_int_equal(heist_loop_create_task(loop, step_at_once, &e, &eager, &task), 0);
    assert_int_equal(record_words(&record), 0);
    assert_int_equal(heist_loop_run_until_complete(loop, task, NULL), 0);
    assert_string_equal(record_text(&record), "a");
    assert_int_equal(e.wrong, 0);
    heist_unref(task);
    harness_loop_end(loop);
}

enum { EAGER = 60 };

struct eager_crowd {
    heist_event gate;
    heist_channel *channel;
    _Atomic(int) begun, wrong;
};

static int one_more(void *arg, void **out) {
    (void)out;
    return heist_sleep(0.01 * (1 + *(int *)arg % 3));
}

/* All that a body may do at its beginning: wait, block, await in place, make others; then go on elsewhere. */
static int of_the_crowd(void *arg, void **out) {
    struct eager_crowd *c = arg;
    heist_task *self = heist_current_task(), *fresh = NULL;
    int n = c->begun++, err = 0;
    void *value = NULL;
    (void)out;
    if (n % 5 == 1) err = heist_blocking_begin();
    if (n % 5 == 1 && !err) err = heist_blocking_end();
    if (n % 5 == 2) err = heist_create_task(one_more, &n, n % 2 ? &eager : NULL, &fresh);
    if (fresh && !err) err = heist_await(fresh, NULL);
    if (n % 5 == 3) err = heist_with_timeout(0.01, one_more, &n, NULL) == -ETIMEDOUT ? 0 : -EIO;
    if (n % 5 == 4) err = heist_channel_recv(c->channel, &value);
    heist_unref(fresh);
    if (!err) err = heist_event_wait(&c->gate);
    c->wrong |= heist_current_task() != self;
    return err;
}

static int makes_a_crowd(void *arg, void **out) {
    struct eager_crowd *c = arg;
    heist_task *t[EAGER];
    (void)out;
    int err = heist_channel_new(EAGER, &c->channel);
    heist_event_init(&c->gate);
    for (int i = 0; i < EAGER; i++) {
        c->wrong |= heist_create_task(of_the_crowd, c, &eager, &t[i]) != 0;
        c->wrong |= c->begun != i + 1;
    }
    for (int i = 0; i < EAGER; i++) err = err ? err : heist_channel_send(c->channel, c);
    if (!err) err = heist_sleep(1);
    heist_cancel(t[EAGER - 1]);
    heist_event_set(&c->gate);
    for (int i = 0; i < EAGER; i++) {
        int code = heist_await(t[i], NULL);
        c->wrong |= code && !(i == EAGER - 1 && code == -ECANCELED);
        heist_unref(t[i]);
    }
    heist_channel_unref(c->channel);
    return err;
}

static void eager_tasks_go_on_wherever_they_are_woken_TASK_34(void **state) {
    (void)state;
    struct eager_crowd c = {.begun = 0};
    assert_int_equal(harness_run(makes_a_crowd, &c, NULL), 0);
    assert_int_equal(c.wrong, 0);
    assert_int_equal(c.begun, EAGER);
}

static void create_task_needs_a_running_loop_TASK_03(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    struct mark mark = {&record, "arg", NULL};
    heist_task_options opts = HEIST_TASK_OPTIONS_INIT;
    heist_task *task = NULL;
    opts.arg_free = mark_free;
    assert_int_equal(heist_create_task(mark_in_task, &mark, &opts, &task), HEIST_ENOLOOP);
    assert_null(task);
    assert_int_equal(record_words(&record), 0); /* the argument is still the caller's */
}

static void create_task_needs_a_coroutine_TASK_04(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    heist_task *task = NULL;
    assert_int_equal(heist_loop_create_task(loop, NULL, NULL, NULL, &task), -EINVAL);
    assert_null(task);
    harness_loop_end(loop);
}

static int own_state(void *arg, void **out) {
    int *seen = arg;
    (void)out;
    *seen = heist_future_state(heist_current_task());
    return 0;
}

static void states_go_pending_running_finished_TASK_05(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    int inside = -1;
    heist_task *task = new_task(loop, own_state, &inside);
    assert_int_equal(heist_future_state(task), HEIST_PENDING);
    assert_int_equal(heist_loop_run_until_complete(loop, task, NULL), 0);
    assert_int_equal(inside, HEIST_RUNNING);
    assert_int_equal(heist_future_state(task), HEIST_DONE);
    heist_unref(task);
    harness_loop_end(loop);
}

static void outcome_is_what_the_body_returned_TASK_06_TASK_07_TASK_16(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    heist_exception e = HEIST_EXCEPTION_INIT;
    void *out = NULL;

    heist_task *task = new_task(loop, give_argument, &value_seven);
    assert_int_equal(heist_future_result(task, &out), HEIST_EINVALSTATE); /* pending: TASK-16 */
    assert_int_equal(heist_future_exception(task, &e), HEIST_EINVALSTATE);
    assert_int_equal(heist_loop_run_until_complete(loop, task, NULL), 0);
    assert_int_equal(heist_future_result(task, &out), 0);
    assert_ptr_equal(out, &value_seven);
    assert_int_equal(heist_future_exception(task, &e), 0);
    assert_int_equal(e.code, 0);
    heist_unref(task);

    task = new_task(loop, fail_with_message, NULL);
    assert_int_equal(heist_loop_run_until_complete(loop, task, NULL), -EPROTO);
    assert_int_equal(heist_future_state(task), HEIST_DONE);
    assert_int_equal(heist_future_result(task, NULL), -EPROTO);
    assert_int_equal(heist_future_exception(task, &e), 0);
    assert_int_equal(e.code, -EPROTO);
    assert_string_equal(e.message, "header 3 of five");
    assert_non_null(e.file);
    assert_non_null(strstr(e.file, "test_task.c"));
    assert_true(e.line > 0);
    heist_unref(task);

    task = new_task(loop, end_cancelled, NULL); /* nobody called cancel: TASK-07 */
    assert_int_equal(heist_loop_run_until_complete(loop, task, NULL), -ECANCELED);
    assert_int_equal(heist_future_cancelled(task), 1);
    assert_int_equal(heist_future_state(task), HEIST_CANCELLED);
    heist_unref(task);
    harness_loop_end(loop);
}

static int record_one_return_another(void *arg, void **out) {
    (void)arg;
    (void)out;
    heist_fail(-EPIPE, "not this one");
    heist_fail(-EPROTO, "nor this one");
    return -EIO;
}

static int fail_nested(void *arg, void **out) {
    int err = fail_with_message(arg, out);
    return err; /* a coroutine that is called is a plain function: the record passes through */
}

static void recorded_failure_counts_only_for_the_code_that_is_returned_TASK_06(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    heist_exception e = HEIST_EXCEPTION_INIT;
    heist_task *task = new_task(loop, record_one_return_another, NULL);
    assert_int_equal(heist_loop_run_until_complete(loop, task, NULL), -EIO);
    assert_int_equal(heist_future_exception(task, &e), 0);
    assert_int_equal(e.code, -EIO);
    assert_null(strstr(e.message, "this one"));
    heist_unref(task);
    task = new_task(loop, fail_nested, NULL);
    assert_int_equal(heist_loop_run_until_complete(loop, task, NULL), -EPROTO);
    assert_int_equal(heist_future_exception(task, &e), 0);
    assert_string_equal(e.message, "header 3 of five");
    heist_unref(task);
    harness_loop_end(loop);
}

/* ---- awaiting tasks ---- */

struct family {
    heist_task *child;
    void *value;
    int first, second, self;
};

static int await_twice(void *arg, void **out) {
    struct family *family = arg;
    (void)out;
    family->first = heist_await(family->child, &family->value);
    family->second = heist_await(family->child, NULL);
    return family->first;
}

static void awaiting_a_task_gives_its_outcome_many_times_TASK_17(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    struct family families[3];
    heist_task *parents[3];
    heist_task *child = new_task(loop, give_argument, &value_seven);
    for (int i = 0; i < 3; i++) {
        families[i] = (struct family){child, NULL, 1, 1, 0};
        parents[i] = new_task(loop, await_twice, &families[i]);
    }
    for (int i = 0; i < 3; i++) {
        assert_int_equal(heist_loop_run_until_complete(loop, parents[i], NULL), 0);
        assert_int_equal(families[i].second, 0);
        assert_ptr_equal(families[i].value, &value_seven);
        heist_unref(parents[i]);
    }
    heist_unref(child);

    struct family failing = {new_task(loop, fail_with_message, NULL), NULL, 1, 1, 0};
    heist_task *parent = new_task(loop, await_twice, &failing);
    assert_int_equal(heist_loop_run_until_complete(loop, parent, NULL), -EPROTO); /* the error propagates */
    assert_int_equal(failing.second, -EPROTO);
    heist_unref(parent);
    heist_unref(failing.child);
    harness_loop_end(loop);
}

static int await_itself(void *arg, void **out) {
    struct family *family = arg;
    (void)out;
    family->self = heist_await(heist_current_task(), NULL);
    family->first = heist_await_until(heist_current_task(), HEIST_FOREVER, NULL);
    return 0;
}

static void awaiting_oneself_is_refused_TASK_18(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    struct family family = {0};
    assert_int_equal(heist_loop_run_coroutine(loop, await_itself, &family, NULL, NULL), 0);
    assert_int_equal(family.self, HEIST_ESELFAWAIT);
    assert_int_equal(family.first, HEIST_ESELFAWAIT);
    harness_loop_end(loop);
    family = (struct family){0};
    assert_int_equal(harness_run(await_itself, &family, NULL), 0);
    assert_int_equal(family.self, HEIST_ESELFAWAIT);
}

/* ---- taking turns ---- */

struct turns {
    struct record *record;
    char name;
};

static int take_turns(void *arg, void **out) {
    struct turns *turns = arg;
    (void)out;
    for (int i = 0; i < 3; i++) {
        record_add(turns->record, "%c%d", turns->name, i);
        record_add(turns->record, "%c%d'", turns->name, i); /* nothing may come between these two */
        int err = i == 1 ? heist_sleep(-1) : i == 0 ? heist_yield() : heist_sleep(0);
        if (err < 0) return err;
    }
    return 0;
}

static void task_gives_up_control_only_where_it_suspends_TASK_19_TASK_21(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    struct turns a = {&record, 'a'}, b = {&record, 'b'};
    heist_task *tasks[2] = {new_task(loop, take_turns, &a), new_task(loop, take_turns, &b)};
    assert_int_equal(heist_loop_run_until_complete(loop, tasks[1], NULL), 0);
    assert_string_equal(record_text(&record), "a0 a0' b0 b0' a1 a1' b1 b1' a2 a2' b2 b2'");
    heist_unref(tasks[0]);
    heist_unref(tasks[1]);
    harness_loop_end(loop);
}

struct sleeping {
    double seconds, began, ended;
    int err;
};

static int sleep_and_look(void *arg, void **out) {
    struct sleeping *sleeping = arg;
    (void)out;
    sleeping->began = heist_time();
    sleeping->err = heist_sleep(sleeping->seconds);
    sleeping->ended = heist_time();
    return 0;
}

static void sleep_takes_at_least_its_time_TASK_20(void **state) {
    (void)state;
    struct sleeping sleeping = {.seconds = 12.25, .err = 1};
    heist_loop *loop = harness_loop();
    assert_int_equal(heist_loop_run_coroutine(loop, sleep_and_look, &sleeping, NULL, NULL), 0);
    assert_int_equal(sleeping.err, 0);
    assert_true(sleeping.ended >= sleeping.began + 12.25 && sleeping.ended < sleeping.began + 12.26);
    harness_loop_end(loop);

    loop = harness_real_loop(); /* and by the machine's clock, never early */
    sleeping = (struct sleeping){.seconds = 0.0031, .err = 1};
    assert_int_equal(heist_loop_run_coroutine(loop, sleep_and_look, &sleeping, NULL, NULL), 0);
    assert_int_equal(sleeping.err, 0);
    assert_true(sleeping.ended >= sleeping.began + 0.0031);
    harness_loop_end(loop);
}

static int sleep_many(void *arg, void **out) {
    enum { COUNT = 40 };
    struct sleeping sleeping[COUNT];
    heist_task *tasks[COUNT];
    int *early = arg, err = 0;
    (void)out;
    for (int i = 0; i < COUNT; i++) {
        sleeping[i] = (struct sleeping){.seconds = 0.1 * (1 + i % 7), .err = 1};
        err = heist_create_task(sleep_and_look, &sleeping[i], NULL, &tasks[i]);
        if (err < 0) return err;
    }
    err = heist_gather(tasks, COUNT, NULL, 0);
    for (int i = 0; i < COUNT; i++) {
        *early += sleeping[i].err != 0 || sleeping[i].ended < sleeping[i].began + sleeping[i].seconds;
        heist_unref(tasks[i]);
    }
    return err;
}

static void nobody_sleeps_too_little_on_a_runtime_TASK_20_MT_07(void **state) {
    (void)state;
    int early = 0;
    assert_int_equal(harness_run(sleep_many, &early, NULL), 0);
    assert_int_equal(early, 0);
}

static void sleep_refuses_what_is_no_number_TASK_22(void **state) {
    (void)state;
    struct sleeping sleeping = {.seconds = NAN, .err = 1};
    heist_loop *loop = harness_loop();
    assert_int_equal(heist_loop_run_coroutine(loop, sleep_and_look, &sleeping, NULL, NULL), 0);
    assert_int_equal(sleeping.err, -EINVAL);
    assert_int_equal(heist_sleep(NAN), -EINVAL);
    assert_int_equal(heist_sleep_until(NAN), -EINVAL);
    harness_loop_end(loop);
}

static int sleep_long(void *arg, void **out) {
    (void)arg;
    (void)out;
    return heist_sleep(1000);
}

static void cancelled_sleep_leaves_no_timer_TASK_23(void **state) {
    (void)state;
    heist_loop *loop = harness_real_loop();
    double start = heist_loop_time(loop), timeout = -1;
    heist_task *task = new_task(loop, sleep_long, NULL);
    assert_int_equal(heist_loop_run_once(loop, NULL), 0);
    assert_int_equal(heist_loop_run_once(loop, &timeout), 0);
    assert_true(timeout > 0 && timeout <= 1000);
    assert_int_equal(heist_cancel(task), 1);
    assert_int_equal(heist_loop_run_until_complete(loop, task, NULL), -ECANCELED);
    assert_true(heist_loop_time(loop) < start + 900);
    assert_int_equal(heist_loop_run_once(loop, &timeout), 0);
    assert_true(isinf(timeout)); /* nothing is due any more */
    heist_unref(task);
    harness_loop_end(loop);
}

/* ---- names ---- */

static void tasks_have_names_TASK_24(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    heist_task_options opts = HEIST_TASK_OPTIONS_INIT;
    heist_task *a = new_task(loop, nothing, NULL), *b = new_task(loop, nothing, NULL), *c = NULL;
    char given[] = "writer", one[64], two[64], tiny[4];
    int number = 0, length;
    length = heist_task_name(a, one, sizeof one);
    assert_int_equal(length, (int)strlen(one));
    heist_task_name(b, two, sizeof two);
    assert_int_equal(sscanf(one, "Task-%d", &number), 1);
    assert_int_equal(sscanf(two, "Task-%d", &number), 1);
    assert_string_not_equal(one, two);

    opts.name = given;
    assert_int_equal(heist_loop_create_task(loop, nothing, NULL, &opts, &c), 0);
    given[0] = 'X'; /* it was copied */
    assert_int_equal(heist_task_name(c, one, sizeof one), 6);
    assert_string_equal(one, "writer");
    assert_int_equal(heist_task_set_name(c, "reader of the long log"), 0);
    assert_int_equal(heist_task_name(c, one, sizeof one), 22);
    assert_string_equal(one, "reader of the long log");
    assert_int_equal(heist_task_name(c, tiny, sizeof tiny), 22);
    assert_string_equal(tiny, "rea");
    assert_int_equal(heist_loop_run_until_complete(loop, c, NULL), 0);
    assert_int_equal(heist_task_name(c, one, sizeof one), 22); /* kept after the end */

    heist_future *future = NULL;
    assert_int_equal(heist_future_new(NULL, &future), 0);
    assert_int_equal(heist_task_name(future, one, sizeof one), -EINVAL);
    assert_int_equal(heist_task_set_name(future, "no"), -EINVAL);
    heist_unref(future);
    heist_unref(a);
    heist_unref(b);
    heist_unref(c);
    harness_loop_end(loop);
}

/* ---- who runs, who is alive ---- */

struct selfish {
    heist_task *self, *seen, *after;
};

static int look_at_self(void *arg, void **out) {
    struct selfish *selfish = arg;
    (void)out;
    selfish->seen = heist_current_task();
    int err = heist_sleep(1);
    selfish->after = heist_current_task();
    return err;
}

static int look_in_callback(void *arg) {
    struct selfish *selfish = arg;
    selfish->seen = heist_current_task();
    return 0;
}

static void current_task_is_the_one_that_runs_TASK_25(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    struct selfish task = {0}, callback = {.seen = (heist_task *)&value_seven};
    task.self = new_task(loop, look_at_self, &task);
    assert_int_equal(heist_loop_call_soon(loop, look_in_callback, &callback, NULL, NULL), 0);
    assert_int_equal(heist_loop_run_until_complete(loop, task.self, NULL), 0);
    assert_ptr_equal(task.seen, task.self);
    assert_ptr_equal(task.after, task.self);
    assert_null(callback.seen);
    assert_null(heist_current_task());
    heist_unref(task.self);
    harness_loop_end(loop);
}

struct census {
    heist_loop *loop;
    heist_task *finished, *alive, *self;
    int finished_seen, alive_seen, self_seen, err;
    size_t count;
};

static void count_tasks(struct census *census) {
    heist_task **list = NULL;
    census->finished_seen = census->alive_seen = census->self_seen = 0;
    census->count = 0;
    census->err = heist_all_tasks(census->loop, &list, &census->count);
    if (census->err < 0) return;
    for (size_t i = 0; i < census->count; i++) {
        census->finished_seen += list[i] == census->finished;
        census->alive_seen += list[i] == census->alive;
        census->self_seen += list[i] == census->self;
    }
    heist_task_list_free(list, census->count);
}

static int take_census(void *arg, void **out) {
    struct census *census = arg;
    (void)out;
    census->self = heist_current_task();
    count_tasks(census);
    return 0;
}

static void *take_census_in_thread(void *arg) {
    count_tasks(arg);
    return NULL;
}

static void all_tasks_are_those_not_done_with_the_caller_TASK_26_TASK_27(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    struct census census = {.loop = loop};
    census.finished = new_task(loop, nothing, NULL);
    assert_int_equal(heist_loop_run_until_complete(loop, census.finished, NULL), 0);
    census.alive = new_task(loop, sleep_long, NULL);
    assert_int_equal(heist_loop_run_coroutine(loop, take_census, &census, NULL, NULL), 0);
    assert_int_equal(census.err, 0);
    assert_int_equal(census.count, 2);
    assert_int_equal(census.finished_seen, 0);
    assert_int_equal(census.alive_seen, 1);
    assert_int_equal(census.self_seen, 1);

    census.self = NULL;
    harness_join(harness_thread(take_census_in_thread, &census)); /* from a foreign thread: TASK-27 */
    assert_int_equal(census.err, 0);
    assert_int_equal(census.count, 1);
    assert_int_equal(census.alive_seen, 1);
    assert_int_equal(heist_cancel(census.alive), 1);
    assert_int_equal(heist_loop_run_until_complete(loop, census.alive, NULL), -ECANCELED);
    count_tasks(&census);
    assert_int_equal(census.err, 0);
    assert_int_equal(census.count, 0);
    heist_unref(census.finished);
    heist_unref(census.alive);
    harness_loop_end(loop);
}

struct churn {
    heist_runtime *rt;
    heist_task *alive;
    _Atomic(bool) enough;
    int missed, failed;
};

static int create_and_await(void *arg, void **out) {
    struct churn *churn = arg;
    (void)out;
    while (!churn->enough) {
        heist_task *task = NULL;
        int err = heist_create_task(nothing, NULL, NULL, &task);
        if (err < 0) return err;
        err = heist_await(task, NULL);
        heist_unref(task);
        if (err < 0) return err;
    }
    return 0;
}

static int wait_until_cancelled(void *arg, void **out) {
    heist_future *never = arg;
    (void)out;
    return heist_await(never, NULL);
}

static void snapshot_never_misses_an_older_task_while_others_come_and_go_TASK_27(void **state) {
    (void)state;
    heist_runtime *rt = harness_runtime(0);
    struct churn churn = {.rt = rt};
    heist_future *never = NULL;
    heist_task *churners[4];
    assert_int_equal(heist_future_new(NULL, &never), 0);
    assert_int_equal(heist_runtime_run_coroutine(rt, wait_until_cancelled, never, NULL, &churn.alive), 0);
    for (int i = 0; i < 4; i++)
        assert_int_equal(heist_runtime_run_coroutine(rt, create_and_await, &churn, NULL, &churners[i]), 0);
    for (int round = 0; round < 300; round++) {
        heist_task **list = NULL;
        size_t count = 0;
        int seen = 0;
        if (heist_runtime_all_tasks(rt, &list, &count) < 0) {
            churn.failed++;
            continue;
        }
        for (size_t i = 0; i < count; i++) seen += list[i] == churn.alive;
        if (seen != 1) churn.missed++;
        heist_task_list_free(list, count);
    }
    churn.enough = true;
    for (int i = 0; i < 4; i++) {
        int err = heist_await(churners[i], NULL);
        if (err < 0) churn.failed++;
        heist_unref(churners[i]);
    }
    heist_cancel(churn.alive);
    int ended = heist_await(churn.alive, NULL);
    heist_unref(churn.alive);
    heist_unref(never);
    harness_runtime_end(rt);
    assert_int_equal(ended, -ECANCELED);
    assert_int_equal(churn.failed, 0);
    assert_int_equal(churn.missed, 0);
}

/* ---- ownership ---- */

static void dropped_task_runs_on_TASK_32(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    struct mark dropped = {&record, "dropped", loop}, detached = {&record, "detached", loop};
    heist_unref(new_task(loop, mark_in_task, &dropped));
    assert_int_equal(heist_loop_create_task(loop, mark_in_task, &detached, NULL, NULL), 0);
    harness_one_pass(loop);
    assert_string_equal(record_text(&record), "dropped detached");
    harness_loop_end(loop);
}

static int clean_up_at_close(void *arg, void **out) {
    struct mark *mark = arg;
    (void)out;
    int err = heist_sleep(1000);
    record_add(mark->record, "%s:%d", mark->word, err == -ECANCELED);
    heist_sleep(1); /* a clean-up may wait */
    record_add(mark->record, "cleaned");
    return err;
}

static void close_ends_pending_tasks_after_their_clean_up_TASK_33(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    heist_task_options opts = HEIST_TASK_OPTIONS_INIT;
    struct mark begun = {&record, "begun", loop}, unborn = {&record, "unborn", loop};
    heist_task *tasks[2];
    opts.arg_free = mark_free;
    assert_int_equal(heist_loop_create_task(loop, clean_up_at_close, &begun, &opts, &tasks[0]), 0);
    harness_one_pass(loop);
    assert_int_equal(heist_loop_create_task(loop, mark_in_task, &unborn, &opts, &tasks[1]), 0);
    assert_int_equal(heist_loop_close(loop), 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(heist_future_state(tasks[i]), HEIST_CANCELLED);
        assert_int_equal(heist_future_result(tasks[i], NULL), -ECANCELED);
        heist_unref(tasks[i]);
    }
    const char *text = record_text(&record);
    assert_non_null(strstr(text, "begun:1"));
    assert_non_null(strstr(text, "cleaned"));
    assert_non_null(strstr(text, "free:begun"));
    assert_non_null(strstr(text, "free:unborn"));
    assert_int_equal(record_words(&record), 4); /* and the one that never ran did not run */
    heist_loop_unref(loop);
}

static _Atomic(int) frees;
static void count_free(void *ptr) {
    (void)ptr;
    frees++;
}

static void argument_and_result_are_freed_once_TASK_32(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    heist_task_options opts = HEIST_TASK_OPTIONS_INIT;
    heist_task *task = NULL;
    void *out = NULL;

    opts.result_free = count_free;
    frees = 0; /* nobody took it */
    assert_int_equal(heist_loop_create_task(loop, give_argument, &value_seven, &opts, &task), 0);
    assert_int_equal(heist_loop_run_until_complete(loop, task, &out), 0);
    assert_int_equal(frees, 0);
    heist_unref(task);
    assert_int_equal(frees, 1);

    frees = 0; /* taken: it is the taker's */
    assert_int_equal(heist_loop_create_task(loop, give_argument, &value_seven, &opts, &task), 0);
    assert_int_equal(heist_loop_run_until_complete(loop, task, NULL), 0);
    assert_int_equal(heist_future_take(task, &out), 0);
    assert_ptr_equal(out, &value_seven);
    heist_unref(task);
    assert_int_equal(frees, 0);

    frees = 0; /* detached: nobody can take it */
    assert_int_equal(heist_loop_create_task(loop, give_argument, &value_seven, &opts, NULL), 0);
    harness_one_pass(loop);
    assert_int_equal(frees, 1);

    frees = 0; /* the argument: after the body, once */
    opts = (heist_task_options)HEIST_TASK_OPTIONS_INIT;
    opts.arg_free = count_free;
    assert_int_equal(heist_loop_create_task(loop, nothing, &value_seven, &opts, &task), 0);
    assert_int_equal(frees, 0);
    assert_int_equal(heist_loop_run_until_complete(loop, task, NULL), 0);
    assert_int_equal(frees, 1);
    heist_unref(task);
    assert_int_equal(frees, 1);
    harness_loop_end(loop);
}

/* ---- failures that nobody looks at ---- */

static void failure_that_nobody_looks_at_is_reported_once_TASK_06(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    char expected[64];
    snprintf(expected, sizeof expected, "%d:header 3 of five", -EPROTO);
    assert_int_equal(heist_loop_set_exception_handler(loop, record_report, &record), 0);

    heist_task *task = new_task(loop, fail_with_message, NULL);
    harness_one_pass(loop);
    assert_int_equal(heist_future_done(task), 1);
    assert_int_equal(record_words(&record), 0);
    heist_unref(task);
    assert_int_equal(record_words(&record), 0); /* posted, not run under the unref */
    harness_one_pass(loop);
    assert_string_equal(record_text(&record), expected);

    record_clear(&record); /* looked at: silence */
    task = new_task(loop, fail_with_message, NULL);
    harness_one_pass(loop);
    assert_int_equal(heist_future_result(task, NULL), -EPROTO);
    heist_unref(task);
    harness_one_pass(loop);
    assert_int_equal(record_words(&record), 0);

    task = new_task(loop, end_cancelled, NULL); /* cancellation is not an error */
    harness_one_pass(loop);
    heist_unref(task);
    harness_one_pass(loop);
    assert_int_equal(record_words(&record), 0);

    assert_int_equal(heist_loop_create_task(loop, fail_with_message, NULL, NULL, NULL), 0); /* detached */
    harness_one_pass(loop);
    harness_one_pass(loop);
    assert_string_equal(record_text(&record), expected);
    harness_loop_end(loop);
}

static int fail_fatally(void *arg, void **out) {
    (void)arg;
    (void)out;
    return HEIST_EFATAL;
}

static void fatal_step_finishes_the_task_and_leaves_the_run_call_TASK_38(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    struct mark after = {&record, "after", loop};
    heist_task *task = new_task(loop, fail_fatally, NULL);
    assert_int_equal(heist_loop_call_later(loop, 1, mark_and_stop, &after, NULL, NULL), 0);
    assert_int_equal(heist_loop_run_forever(loop), HEIST_EFATAL);
    assert_int_equal(heist_future_done(task), 1);
    assert_int_equal(heist_future_result(task, NULL), HEIST_EFATAL);
    assert_int_equal(record_words(&record), 0);
    assert_int_equal(heist_loop_run_forever(loop), 0);
    assert_string_equal(record_text(&record), "after");
    heist_unref(task);
    harness_loop_end(loop);
}

/* ---- options ---- */

static int use_stack(void *arg, void **out) {
    volatile char space[900 * 1024];
    (void)out;
    for (size_t i = 0; i < sizeof space; i += 4096) space[i] = 1;
    *(int *)arg = space[4096];
    return 0;
}

static void stack_size_is_chosen_per_task(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    heist_task_options opts = HEIST_TASK_OPTIONS_INIT;
    int used = 0;
    opts.stack_bytes = 1024 * 1024;
    assert_int_equal(heist_loop_run_coroutine(loop, use_stack, &used, &opts, NULL), 0);
    assert_int_equal(used, 1);
    opts.stack_bytes = 16 * 1024;
    assert_int_equal(heist_loop_run_coroutine(loop, nothing, NULL, &opts, NULL), 0);
    harness_loop_end(loop);
}

static const struct CMUnitTest tests[] = {
    API_TEST(task_refuses_to_be_completed_by_hand_TASK_01),
    API_TEST(creating_a_task_runs_nothing_of_it_TASK_02_TASK_35),
    API_TEST(an_eager_task_runs_within_the_call_until_it_suspends_TASK_34),
    API_TEST(eager_tasks_go_on_wherever_they_are_woken_TASK_34),
    API_TEST(create_task_needs_a_running_loop_TASK_03),
    API_TEST(create_task_needs_a_coroutine_TASK_04),
    API_TEST(states_go_pending_running_finished_TASK_05),
    API_TEST(outcome_is_what_the_body_returned_TASK_06_TASK_07_TASK_16),
    API_TEST(recorded_failure_counts_only_for_the_code_that_is_returned_TASK_06),
    API_TEST(awaiting_a_task_gives_its_outcome_many_times_TASK_17),
    API_TEST(awaiting_oneself_is_refused_TASK_18),
    API_TEST(task_gives_up_control_only_where_it_suspends_TASK_19_TASK_21),
    API_TEST(sleep_takes_at_least_its_time_TASK_20),
    API_TEST(nobody_sleeps_too_little_on_a_runtime_TASK_20_MT_07),
    API_TEST(sleep_refuses_what_is_no_number_TASK_22),
    API_TEST(cancelled_sleep_leaves_no_timer_TASK_23),
    API_TEST(tasks_have_names_TASK_24),
    API_TEST(current_task_is_the_one_that_runs_TASK_25),
    API_TEST(all_tasks_are_those_not_done_with_the_caller_TASK_26_TASK_27),
    API_TEST(snapshot_never_misses_an_older_task_while_others_come_and_go_TASK_27),
    API_TEST(dropped_task_runs_on_TASK_32),
    API_TEST(close_ends_pending_tasks_after_their_clean_up_TASK_33),
    API_TEST(argument_and_result_are_freed_once_TASK_32),
    API_TEST(failure_that_nobody_looks_at_is_reported_once_TASK_06),
    API_TEST(fatal_step_finishes_the_task_and_leaves_the_run_call_TASK_38),
    API_TEST(stack_size_is_chosen_per_task),
};

int main(void) {
    return HARNESS_MAIN("task", tests);
}
