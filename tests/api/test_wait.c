/* heist_wait: some or all of many, done before pending, and nobody is harmed. */
#include "support/harness.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define TASKS 6

struct child {
    double seconds;
    int code; /* 0 or what it fails with */
};

static int sleep_then_end(void *arg, void **out) {
    struct child *child = arg;
    int err = heist_sleep(child->seconds);
    if (err < 0) return err;
    *out = child;
    return child->code;
}

/* What one call said: how many are done, the indices of the tasks in their new order with a bar between done and
 * pending, and when. */
struct scene {
    struct child children[TASKS];
    size_t count;
    struct record seen;
    heist_task *original[TASKS];
    heist_task *tasks[TASKS];
    double start;
    int fault;
};

static int begin(struct scene *s) {
    s->start = heist_time();
    for (size_t i = 0; i < s->count; i++) {
        int err = heist_create_task(sleep_then_end, &s->children[i], NULL, &s->original[i]);
        if (err < 0) return err;
        s->tasks[i] = s->original[i];
    }
    return 0;
}

static void end(struct scene *s) {
    for (size_t i = 0; i < s->count; i++) {
        if (!heist_future_done(s->original[i])) {
            heist_cancel(s->original[i]);
            heist_await(s->original[i], NULL);
        }
        heist_future_result(s->original[i], NULL);
        heist_unref(s->original[i]);
    }
}

static void say(struct scene *s, heist_future *const *futures, int done, size_t pending) {
    char text[TASKS + 2] = "";
    size_t length = 0;
    for (size_t i = 0; done >= 0 && i < (size_t)done + pending; i++) {
        if (i == (size_t)done) text[length++] = '|';
        for (size_t k = 0; k < s->count; k++)
            if (futures[i] == s->original[k]) text[length++] = (char)('0' + k);
    }
    record_add(&s->seen, "%d:%s@%.0f", done, text, heist_time() - s->start);
}

static int first_one_then_the_rest(void *arg, void **out) {
    struct scene *s = arg;
    (void)out;
    int err = begin(s);
    if (err < 0) return err;
    size_t pending = 99;
    int done = heist_wait(s->tasks, s->count, HEIST_FIRST_COMPLETED, HEIST_FOREVER, &pending);
    say(s, s->tasks, done, pending);
    done = heist_wait(s->tasks + 1, pending, HEIST_ALL_COMPLETED, HEIST_FOREVER, &pending);
    say(s, s->tasks + 1, done, pending);
    end(s);
    return 0;
}

static void wait_puts_done_before_pending_and_can_go_on_COMP_10_COMP_16_COMP_17(void **state) {
    (void)state;
    struct scene s = {.count = 4, .seen = RECORD_INIT};
    static const double seconds[] = {3, 4, 1, 2};
    for (int i = 0; i < 4; i++) s.children[i].seconds = seconds[i];
    assert_int_equal(harness_run(first_one_then_the_rest, &s, NULL), 0);
    /* the rest keep their order; three more at 4 s */
    assert_string_equal(record_text(&s.seen), "1:2|013@1 3:013@4");
}

struct until {
    struct scene scene;
    int when;
    double timeout;
    int cancel_at_2; /* this task, or -1 */
};

static int wait_once(void *arg, void **out) {
    struct until *u = arg;
    struct scene *s = &u->scene;
    (void)out;
    int err = begin(s);
    if (err < 0) return err;
    if (u->cancel_at_2 >= 0) err = heist_cancel(s->original[u->cancel_at_2]) == 1 ? 0 : -EPROTO;
    size_t pending = 99;
    int done = heist_wait(s->tasks, s->count, u->when, u->timeout, &pending);
    say(s, s->tasks, done, pending);
    for (size_t i = 0; i < s->count; i++)
        s->fault |= heist_future_cancelled(s->original[i]) && (int)i != u->cancel_at_2;
    end(s);
    return err;
}

static void first_exception_ends_the_wait_COMP_18(void **state) {
    (void)state;
    struct until u = {
        .scene = {.count = 3, .seen = RECORD_INIT}, .when = HEIST_FIRST_EXCEPTION, .timeout = 100, .cancel_at_2 = -1};
    for (int i = 0; i < 3; i++) u.scene.children[i].seconds = i + 1;
    u.scene.children[1].code = -EPROTO;
    assert_int_equal(harness_run(wait_once, &u, NULL), 0);
    assert_string_equal(record_text(&u.scene.seen), "2:01|2@2");
    assert_int_equal(u.scene.fault, 0);
}

static void without_an_exception_it_waits_for_all_and_a_cancellation_is_none_COMP_18(void **state) {
    (void)state;
    struct until u = {
        .scene = {.count = 3, .seen = RECORD_INIT}, .when = HEIST_FIRST_EXCEPTION, .timeout = 100, .cancel_at_2 = 1};
    for (int i = 0; i < 3; i++) u.scene.children[i].seconds = i + 1;
    assert_int_equal(harness_run(wait_once, &u, NULL), 0);
    assert_string_equal(record_text(&u.scene.seen), "3:012@3");
}

static int three_looks(void *arg, void **out) {
    struct scene *s = arg;
    (void)out;
    int err = begin(s);
    if (err < 0) return err;
    heist_future **rest = s->tasks;
    size_t left = s->count;
    for (int i = 0; i < 3 && left; i++) {
        int done = heist_wait(rest, left, HEIST_ALL_COMPLETED, 1.5, &left);
        say(s, rest, done, left);
        if (done < 0) break;
        rest += done;
    }
    for (size_t i = 0; i < s->count; i++) s->fault |= heist_future_cancelled(s->original[i]);
    end(s);
    return 0;
}

static void timeout_gives_what_is_done_and_cancels_nobody_COMP_19(void **state) {
    (void)state;
    struct scene s = {.count = 3, .seen = RECORD_INIT};
    for (int i = 0; i < 3; i++) s.children[i].seconds = 3 - i + 0.25;
    assert_int_equal(harness_run(three_looks, &s, NULL), 0);
    assert_string_equal(record_text(&s.seen), "1:2|01@2 1:1|0@3 1:0@3");
    assert_int_equal(s.fault, 0);
}

static int nothing_yet(void *arg, void **out) {
    struct scene *s = arg;
    (void)out;
    int err = begin(s);
    size_t pending = 99;
    if (err == 0) {
        for (int k = -1; k <= 0; k++) {
            int done = heist_wait(s->tasks, s->count, HEIST_FIRST_COMPLETED, k, &pending);
            say(s, s->tasks, done, pending);
        }
        int done = heist_wait_until(s->tasks, s->count, HEIST_FIRST_COMPLETED, heist_time() + 1, &pending);
        say(s, s->tasks, done, pending);
        end(s);
    }
    return err;
}

static void timeout_of_nothing_is_a_look_COMP_19(void **state) {
    (void)state;
    struct scene s = {.count = 2, .seen = RECORD_INIT};
    for (int i = 0; i < 2; i++) s.children[i].seconds = 10;
    assert_int_equal(harness_run(nothing_yet, &s, NULL), 0);
    assert_string_equal(record_text(&s.seen), "0:|01@0 0:|01@0 0:|01@1");
}

static int with_repeats(void *arg, void **out) {
    struct scene *s = arg;
    (void)out;
    int err = begin(s);
    if (err < 0) return err;
    heist_future *many[7] = {s->tasks[0], s->tasks[1], s->tasks[0], s->tasks[2], s->tasks[1], s->tasks[1], s->tasks[2]};
    size_t pending = 99;
    int done = heist_wait(many, 7, HEIST_ALL_COMPLETED, 2.5, &pending);
    /* a permutation: two of 0, three of 1, two of 2 */
    int times[3] = {0, 0, 0};
    for (int i = 0; i < 7; i++)
        for (int k = 0; k < 3; k++) times[k] += many[i] == s->original[k];
    s->fault = !(times[0] == 2 && times[1] == 3 && times[2] == 2);
    say(s, many, done, pending);
    end(s);
    return 0;
}

static void repeats_count_once_and_come_last_COMP_20(void **state) {
    (void)state;
    struct scene s = {.count = 3, .seen = RECORD_INIT};
    static const double seconds[] = {10, 1, 2};
    for (int i = 0; i < 3; i++) s.children[i].seconds = seconds[i];
    assert_int_equal(harness_run(with_repeats, &s, NULL), 0);
    assert_string_equal(record_text(&s.seen), "2:12|0@2");
    assert_int_equal(s.fault, 0);
}

static int bare_coroutines(void *arg, void **out) {
    struct scene *s = arg;
    (void)out;
    heist_awaitable coros[3];
    for (int i = 0; i < 3; i++) coros[i] = HEIST_CORO(sleep_then_end, &s->children[i]);
    s->start = heist_time();
    int err = heist_ensure_futures(NULL, coros, 3, NULL, NULL, s->tasks);
    if (err < 0) return err;
    memcpy(s->original, s->tasks, sizeof s->tasks);
    size_t pending;
    int done = heist_wait(s->tasks, 3, HEIST_FIRST_COMPLETED, HEIST_FOREVER, &pending);
    say(s, s->tasks, done, pending);
    for (int i = 0; i < 3; i++) s->fault |= !heist_future_is_task(s->tasks[i]);
    done = heist_wait(s->tasks, 3, HEIST_ALL_COMPLETED, HEIST_FOREVER, NULL);
    say(s, s->tasks, done, 0);
    heist_unref_all(s->tasks, 3);
    return 0;
}

static void coroutines_become_tasks_that_wait_gives_back_COMP_14(void **state) {
    (void)state;
    struct scene s = {.count = 3, .seen = RECORD_INIT};
    for (int i = 0; i < 3; i++) s.children[i].seconds = 3 - i;
    assert_int_equal(harness_run(bare_coroutines, &s, NULL), 0);
    assert_string_equal(record_text(&s.seen), "1:2|01@1 3:201@3");
    assert_int_equal(s.fault, 0);
}

/* ---- what it refuses ---- */

static int bad_calls(void *arg, void **out) {
    struct record *seen = arg;
    (void)out;
    heist_future *f[2] = {NULL, NULL};
    int err = heist_future_new(NULL, &f[0]);
    if (err < 0) return err;
    size_t pending = 7;
    record_add(seen, "%s", heist_error_name(heist_wait(f, 0, HEIST_ALL_COMPLETED, 1, &pending)));
    record_add(seen, "%s", heist_error_name(heist_wait(NULL, 1, HEIST_ALL_COMPLETED, 1, &pending)));
    record_add(seen, "%s", heist_error_name(heist_wait(f, 2, HEIST_ALL_COMPLETED, 1, &pending)));
    record_add(seen, "%s", heist_error_name(heist_wait(f, 1, 3, 1, &pending)));
    record_add(seen, "%s", heist_error_name(heist_wait(f, 1, -1, 1, &pending)));
    record_add(seen, "%s", heist_error_name(heist_wait(f, 1, HEIST_ALL_COMPLETED, __builtin_nan(""), &pending)));
    record_add(seen, "%s", heist_error_name(heist_wait_until(f, 1, HEIST_ALL_COMPLETED, __builtin_nan(""), &pending)));
    f[1] = heist_current_task();
    record_add(seen, "%s", heist_error_name(heist_wait(f, 2, HEIST_FIRST_COMPLETED, 1, &pending)));
    record_add(seen, "%zu", pending);
    heist_unref(f[0]);
    return 0;
}

static void wait_refuses_what_makes_no_sense_COMP_12_COMP_13_COMP_15(void **state) {
    (void)state;
    struct record seen = RECORD_INIT;
    assert_int_equal(harness_run(bad_calls, &seen, NULL), 0);
    assert_string_equal(record_text(&seen), "EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL HEIST_ESELFAWAIT 7");
}

/* ---- outcomes are not looked at ---- */

static int fails(void *arg, void **out) {
    (void)arg;
    (void)out;
    return -EPROTO;
}

static int waits_and_drops(void *arg, void **out) {
    (void)arg;
    (void)out;
    heist_task *t;
    int err = heist_create_task(fails, NULL, NULL, &t);
    if (err < 0) return err;
    for (int when = HEIST_ALL_COMPLETED; when <= HEIST_FIRST_EXCEPTION && err >= 0; when++)
        err = heist_wait(&t, 1, when, HEIST_FOREVER, NULL);
    heist_unref(t);
    return err < 0 ? err : 0;
}

static void nobody_has_looked_at_the_outcomes_COMP_11(void **state) {
    (void)state;
    struct record seen = RECORD_INIT;
    heist_loop *loop = harness_loop();
    heist_loop_set_exception_handler(loop, record_report, &seen);
    int err = heist_loop_run_coroutine(loop, waits_and_drops, NULL, NULL, NULL);
    harness_one_pass(loop);
    harness_loop_end(loop);
    assert_int_equal(err, 0);
    assert_int_equal(record_words(&seen), 1); /* the failure was reported, once */
}

/* ---- who waits ---- */

static int waits(void *arg, void **out) {
    struct scene *s = arg;
    (void)out;
    size_t pending = 99;
    heist_future *before[TASKS];
    memcpy(before, s->tasks, sizeof before);
    int done = heist_wait(s->tasks, s->count, HEIST_ALL_COMPLETED, HEIST_FOREVER, &pending);
    s->fault = memcmp(before, s->tasks, sizeof before) || pending != 99;
    return done < 0 ? done : 0;
}

static int cancels_the_waiter(void *arg, void **out) {
    struct scene *s = arg;
    (void)out;
    heist_task *waiter;
    int err = begin(s);
    if (err == 0) err = heist_create_task(waits, s, NULL, &waiter);
    if (err < 0) return err;
    heist_sleep(1.5);
    heist_cancel(waiter);
    err = heist_await(waiter, NULL);
    record_add(&s->seen, "%s@%.1f", heist_error_name(err), heist_time() - s->start);
    heist_unref(waiter);
    for (size_t i = 0; i < s->count; i++) record_add(&s->seen, "%d", heist_future_done(s->original[i]));
    err = heist_gather(s->original, s->count, NULL, 0);
    record_add(&s->seen, "%d@%.1f", err, heist_time() - s->start);
    end(s);
    return 0;
}

static void cancelling_the_waiter_leaves_the_futures_and_the_array_alone(void **state) {
    (void)state;
    struct scene s = {.count = 3, .seen = RECORD_INIT};
    for (int i = 0; i < 3; i++) s.children[i].seconds = 3 - i;
    assert_int_equal(harness_run(cancels_the_waiter, &s, NULL), 0);
    assert_string_equal(record_text(&s.seen), "ECANCELED@1.5 0 0 1 0@3.0");
    assert_int_equal(s.fault, 0);
}

static int already_asked(void *arg, void **out) {
    struct record *seen = arg;
    (void)out;
    heist_future *f;
    int err = heist_future_new(NULL, &f);
    if (err < 0) return err;
    heist_future_set_result(f, NULL, NULL);
    heist_cancel(heist_current_task());
    record_add(seen, "%s", heist_error_name(heist_wait(&f, 1, HEIST_ALL_COMPLETED, HEIST_FOREVER, NULL)));
    record_add(seen, "%d", heist_wait(&f, 1, HEIST_ALL_COMPLETED, HEIST_FOREVER, NULL));
    heist_unref(f);
    return 0;
}

static void it_is_a_cancellation_point_even_when_all_is_done(void **state) {
    (void)state;
    struct record seen = RECORD_INIT;
    assert_int_equal(harness_run(already_asked, &seen, NULL), 0);
    assert_string_equal(record_text(&seen), "ECANCELED 1");
}

struct callback {
    heist_loop *loop;
    heist_future *future;
    int answer;
};

static int wait_in_callback(void *arg) {
    struct callback *c = arg;
    c->answer = heist_wait(&c->future, 1, HEIST_ALL_COMPLETED, 0, NULL);
    heist_loop_stop(c->loop);
    return 0;
}

static void a_callback_may_not_wait(void **state) {
    (void)state;
    struct callback c = {.loop = harness_loop()};
    assert_int_equal(heist_future_new(NULL, &c.future), 0);
    heist_future_set_result(c.future, NULL, NULL);
    assert_int_equal(heist_loop_call_soon(c.loop, wait_in_callback, &c, NULL, NULL), 0);
    assert_int_equal(heist_loop_run_forever(c.loop), 0);
    harness_loop_end(c.loop);
    heist_unref(c.future);
    assert_int_equal(c.answer, HEIST_ENOTINCORO);
}

static int ends_at_once(void *arg, void **out) {
    *out = arg;
    return 0;
}

static void a_plain_thread_waits_for_tasks_of_two_runtimes(void **state) {
    (void)state;
    heist_runtime *a = harness_runtime(0), *b = harness_runtime(0);
    for (int round = 0; round < 50; round++) {
        heist_future *f[4];
        for (int i = 0; i < 4; i++)
            assert_int_equal(heist_runtime_run_coroutine(i % 2 ? a : b, ends_at_once, &f[i], NULL, &f[i]), 0);
        size_t pending = 99;
        int done = heist_wait(f, 4, HEIST_FIRST_COMPLETED, HEIST_FOREVER, &pending);
        assert_true(done >= 1 && (size_t)done + pending == 4);
        for (int i = 0; i < done; i++) assert_int_equal(heist_future_done(f[i]), 1);
        assert_int_equal(heist_wait(f, 4, HEIST_ALL_COMPLETED, HEIST_FOREVER, &pending), 4);
        assert_int_equal(pending, 0);
        heist_unref_all(f, 4);
    }
    heist_future *never;
    assert_int_equal(heist_future_new(NULL, &never), 0);
    assert_int_equal(heist_wait(&never, 1, HEIST_ALL_COMPLETED, 0.01, NULL), 0);
    heist_unref(never);
    harness_runtime_end(a);
    harness_runtime_end(b);
}

/* ---- many ---- */

#define MANY 20000
static heist_future *crowd[MANY];

static int counts(void *arg, void **out) {
    (void)out;
    atomic_fetch_add((_Atomic(int) *)arg, 1);
    return 0;
}

static int waits_for_a_crowd(void *arg, void **out) {
    (void)out;
    int err = 0;
    for (int i = 0; i < MANY && err == 0; i++) err = heist_create_task(counts, arg, NULL, &crowd[i]);
    if (err < 0) return err;
    size_t pending = MANY;
    int done = 0;
    for (heist_future **rest = crowd; pending; rest += done) {
        done = heist_wait(rest, pending, pending > 10 ? HEIST_ALL_COMPLETED : HEIST_FIRST_COMPLETED, HEIST_FOREVER,
                          &pending);
        if (done < 0) return done;
    }
    heist_unref_all(crowd, MANY);
    return 0;
}

static void a_crowd_is_waited_for(void **state) {
    (void)state;
    _Atomic(int) count = 0;
    assert_int_equal(harness_run(waits_for_a_crowd, &count, NULL), 0);
    assert_int_equal(count, MANY);
}

static const struct CMUnitTest tests[] = {
    API_TEST(wait_puts_done_before_pending_and_can_go_on_COMP_10_COMP_16_COMP_17),
    API_TEST(first_exception_ends_the_wait_COMP_18),
    API_TEST(without_an_exception_it_waits_for_all_and_a_cancellation_is_none_COMP_18),
    API_TEST(timeout_gives_what_is_done_and_cancels_nobody_COMP_19),
    API_TEST(timeout_of_nothing_is_a_look_COMP_19),
    API_TEST(repeats_count_once_and_come_last_COMP_20),
    API_TEST(coroutines_become_tasks_that_wait_gives_back_COMP_14),
    API_TEST(wait_refuses_what_makes_no_sense_COMP_12_COMP_13_COMP_15),
    API_TEST(nobody_has_looked_at_the_outcomes_COMP_11),
    API_TEST(cancelling_the_waiter_leaves_the_futures_and_the_array_alone),
    API_TEST(it_is_a_cancellation_point_even_when_all_is_done),
    API_TEST(a_callback_may_not_wait),
    API_TEST(a_plain_thread_waits_for_tasks_of_two_runtimes),
    API_TEST(a_crowd_is_waited_for),
};

int main(void) { return HARNESS_MAIN("wait", tests); }
