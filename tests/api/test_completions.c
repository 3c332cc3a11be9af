/* heist_as_completed: futures in the order of their ends, each once, to one taker. */
#include "support/harness.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define TASKS 6

struct child {
    double seconds;
    int code;
};

static int sleep_then_end(void *arg, void **out) {
    struct child *child = arg;
    int err = heist_sleep(child->seconds);
    if (err < 0) return err;
    *out = child;
    return child->code;
}

struct scene {
    struct child children[TASKS];
    int count;
    struct record seen;
    heist_task *tasks[TASKS];
    heist_completions *it;
    double start, limit;
};

static int begin(struct scene *s) {
    s->start = heist_time();
    for (int i = 0; i < s->count; i++) {
        int err = heist_create_task(sleep_then_end, &s->children[i], NULL, &s->tasks[i]);
        if (err < 0) return err;
    }
    return heist_as_completed(s->tasks, (size_t)s->count, s->limit, &s->it);
}

static void end(struct scene *s) {
    heist_completions_free(s->it);
    for (int i = 0; i < s->count; i++) {
        if (!heist_future_done(s->tasks[i])) heist_cancel(s->tasks[i]);
        heist_await(s->tasks[i], NULL);
        heist_unref(s->tasks[i]);
    }
}

static int which(struct scene *s, heist_future *f) {
    for (int i = 0; i < s->count; i++)
        if (s->tasks[i] == f) return i;
    return -1;
}

static int take_all(void *arg, void **out) {
    struct scene *s = arg;
    (void)out;
    heist_future *f;
    int got, err = begin(s);
    if (err < 0) return err;
    while ((got = heist_completions_next(s->it, &f)) == 1)
        record_add(&s->seen, "%d@%.0f", which(s, f), heist_time() - s->start);
    record_add(&s->seen, "%s", got ? heist_error_name(got) : "end");
    record_add(&s->seen, "%d", heist_completions_next(s->it, &f));
    end(s);
    return 0;
}

static void tasks_come_in_the_order_of_their_ends_COMP_24(void **state) {
    (void)state;
    struct scene s = {.count = 4, .seen = RECORD_INIT, .limit = HEIST_FOREVER};
    static const double seconds[] = {4, 1, 3, 2};
    for (int i = 0; i < 4; i++) s.children[i].seconds = seconds[i];
    s.children[2].code = -EPROTO; /* the iterator does not look */
    assert_int_equal(harness_run(take_all, &s, NULL), 0);
    assert_string_equal(record_text(&s.seen), "1@1 3@2 2@3 0@4 end 0");
}

static int await_all(void *arg, void **out) {
    struct scene *s = arg;
    (void)out;
    int err = begin(s);
    if (err < 0) return err;
    for (int i = 0; i < s->count + 1; i++) {
        void *value = NULL;
        int got = heist_completions_await(s->it, &value);
        if (got == 1)
            record_add(&s->seen, "%d@%.0f", (int)((struct child *)value - s->children), heist_time() - s->start);
        else record_add(&s->seen, "%s@%.0f", got ? heist_error_name(got) : "end", heist_time() - s->start);
    }
    end(s);
    return 0;
}

static void outcomes_come_in_the_order_of_their_ends_COMP_21(void **state) {
    (void)state;
    struct scene s = {.count = 4, .seen = RECORD_INIT, .limit = HEIST_FOREVER};
    static const double seconds[] = {4, 1, 3, 2};
    for (int i = 0; i < 4; i++) s.children[i].seconds = seconds[i];
    s.children[3].code = -EPROTO;
    assert_int_equal(harness_run(await_all, &s, NULL), 0);
    assert_string_equal(record_text(&s.seen), "1@1 EPROTO@2 2@3 0@4 end@4");
}

static int within_a_limit(void *arg, void **out) {
    struct scene *s = arg;
    (void)out;
    int err = begin(s);
    if (err < 0) return err;
    heist_future *f = NULL;
    for (int i = 0; i < 4; i++) {
        int got = heist_completions_next(s->it, &f);
        record_add(&s->seen, "%s@%.1f", got == 1 ? "one" : heist_error_name(got), heist_time() - s->start);
    }
    heist_sleep(1); /* task 2 ends */
    record_add(&s->seen, "%d", heist_completions_next(s->it, &f) == 1 && f == s->tasks[2]);
    record_add(&s->seen, "%s", heist_error_name(heist_completions_next_until(s->it, heist_time() + 50, &f)));
    for (int i = 0; i < s->count; i++) record_add(&s->seen, "%d", heist_future_cancelled(s->tasks[i]));
    end(s);
    return 0;
}

static void after_its_time_it_says_so_and_cancels_nobody_COMP_22(void **state) {
    (void)state;
    struct scene s = {.count = 4, .seen = RECORD_INIT, .limit = 2.5};
    static const double seconds[] = {1, 2, 3, 90};
    for (int i = 0; i < 4; i++) s.children[i].seconds = seconds[i];
    assert_int_equal(harness_run(within_a_limit, &s, NULL), 0);
    assert_string_equal(record_text(&s.seen), "one@1.0 one@2.0 ETIMEDOUT@2.5 ETIMEDOUT@2.5 1 ETIMEDOUT 0 0 0 0");
}

static int refuses(void *arg, void **out) {
    struct record *seen = arg;
    (void)out;
    heist_future *f[2] = {NULL, NULL}, *got = NULL;
    int err = heist_future_new(NULL, &f[0]);
    if (err < 0) return err;
    heist_completions *it = NULL;
    record_add(seen, "%s", heist_error_name(heist_as_completed(f, 2, 1, &it)));
    record_add(seen, "%s", heist_error_name(heist_as_completed(NULL, 1, 1, &it)));
    record_add(seen, "%s", heist_error_name(heist_as_completed(f, 1, 1, NULL)));
    record_add(seen, "%s", heist_error_name(heist_as_completed(f, 1, __builtin_nan(""), &it)));
    record_add(seen, "%d", it == NULL);
    err = heist_as_completed(f, 1, HEIST_FOREVER, &it);
    if (err < 0) return err;
    record_add(seen, "%s", heist_error_name(heist_completions_next(NULL, &got)));
    record_add(seen, "%s", heist_error_name(heist_completions_next_until(it, __builtin_nan(""), &got)));
    record_add(seen, "%s", heist_error_name(heist_completions_try_next(it, &got)));
    record_add(seen, "%s", heist_error_name(heist_completions_next_until(it, heist_time() + 1, &got)));
    record_add(seen, "%d", got == NULL);
    heist_completions_free(it);
    heist_completions_free(NULL);
    err = heist_as_completed(NULL, 0, 1, &it);
    if (err < 0) return err;
    record_add(seen, "%d%d", heist_completions_next(it, &got), heist_completions_try_next(it, &got));
    heist_completions_free(it);
    heist_unref(f[0]);
    return 0;
}

static void it_refuses_what_makes_no_sense_COMP_23(void **state) {
    (void)state;
    struct record seen = RECORD_INIT;
    assert_int_equal(harness_run(refuses, &seen, NULL), 0);
    assert_string_equal(record_text(&seen), "EINVAL EINVAL EINVAL EINVAL 1 EINVAL EINVAL EAGAIN ETIMEDOUT 1 00");
}

static int repeats(void *arg, void **out) {
    struct record *seen = arg;
    (void)out;
    heist_future *f[2], *got;
    for (int i = 0; i < 2; i++) {
        int err = heist_future_new(NULL, &f[i]);
        if (err < 0) return err;
    }
    heist_future *const many[5] = {f[1], f[0], f[1], f[1], f[0]};
    heist_completions *it;
    heist_future_set_result(f[0], NULL, NULL);
    int err = heist_as_completed(many, 5, HEIST_FOREVER, &it);
    if (err < 0) return err;
    record_add(seen, "%d", heist_completions_next(it, &got) == 1 && got == f[0]);
    record_add(seen, "%s", heist_error_name(heist_completions_try_next(it, &got)));
    heist_future_set_exception(f[1], -EPROTO, NULL);
    heist_unref(f[1]); /* the iterator holds it */
    record_add(seen, "%d", heist_completions_next(it, &got) == 1 && got == f[1]);
    heist_future_result(got, NULL);
    record_add(seen, "%d", heist_completions_next(it, &got));
    heist_completions_free(it);
    heist_unref(f[0]);
    return 0;
}

static void each_comes_once_and_is_held(void **state) {
    (void)state;
    struct record seen = RECORD_INIT;
    assert_int_equal(harness_run(repeats, &seen, NULL), 0);
    assert_string_equal(record_text(&seen), "1 EAGAIN 1 0");
}

/* ---- several takers ---- */

#define CROWD 2000
#define TAKERS 16

struct crowd {
    heist_task *tasks[CROWD];
    _Atomic(int) taken[CROWD];
    _Atomic(int) takers_end, faults;
    heist_completions *it;
};

static int yields(void *arg, void **out) {
    int err = heist_yield();
    *out = arg;
    return err;
}

static int takes(void *arg, void **out) {
    struct crowd *c = arg;
    (void)out;
    heist_future *f;
    int got;
    while ((got = heist_completions_next(c->it, &f)) == 1) {
        void *value = NULL;
        if (heist_future_result(f, &value)) c->faults++;
        c->taken[(heist_task **)value - c->tasks]++;
    }
    if (got == -ECANCELED) return got;
    c->faults += got != 0;
    c->takers_end++;
    return 0;
}

static int take_together(void *arg, void **out) {
    struct crowd *c = arg;
    (void)out;
    heist_task *takers[TAKERS];
    for (int i = 0; i < CROWD; i++) {
        int err = heist_create_task(yields, &c->tasks[i], NULL, &c->tasks[i]);
        if (err < 0) return err;
    }
    int err = heist_as_completed(c->tasks, CROWD, HEIST_FOREVER, &c->it);
    for (int i = 0; i < TAKERS && err == 0; i++) err = heist_create_task(takes, c, NULL, &takers[i]);
    if (err < 0) return err;
    heist_yield();
    for (int i = 0; i < TAKERS; i += 4) heist_cancel(takers[i]); /* what they do not take, another does */
    err = heist_gather(takers, TAKERS, NULL, HEIST_GATHER_ALL);
    heist_unref_all(takers, TAKERS);
    heist_completions_free(c->it);
    heist_unref_all(c->tasks, CROWD);
    return err;
}

static void of_many_takers_each_future_has_one(void **state) {
    (void)state;
    struct crowd *c = calloc(1, sizeof *c);
    assert_non_null(c);
    int err = harness_run(take_together, c, NULL), wrong = 0;
    for (int i = 0; i < CROWD; i++) wrong += c->taken[i] != 1;
    int ends = c->takers_end, faults = c->faults;
    free(c);
    assert_int_equal(err, 0);
    assert_int_equal(wrong, 0);
    assert_int_equal(faults, 0);
    assert_true(ends >= TAKERS - TAKERS / 4);
}

static int one_too_many(void *arg, void **out) {
    struct crowd *c = arg;
    (void)out;
    heist_task *takers[3];
    int err = heist_future_new(NULL, &c->tasks[0]);
    if (err == 0) err = heist_as_completed(c->tasks, 1, HEIST_FOREVER, &c->it);
    for (int i = 0; i < 3 && err == 0; i++) err = heist_create_task(takes, c, NULL, &takers[i]);
    if (err < 0) return err;
    heist_sleep(1); /* all three wait for one */
    heist_future_set_result(c->tasks[0], &c->tasks[0], NULL);
    err = heist_gather(takers, 3, NULL, 0);
    heist_unref_all(takers, 3);
    heist_completions_free(c->it);
    heist_unref(c->tasks[0]);
    return err;
}

static void who_waits_for_one_too_many_learns_that_there_is_none(void **state) {
    (void)state;
    struct crowd *c = calloc(1, sizeof *c);
    assert_non_null(c);
    int err = harness_run(one_too_many, c, NULL), taken = c->taken[0], ends = c->takers_end, faults = c->faults;
    free(c);
    assert_int_equal(err, 0);
    assert_int_equal(taken, 1);
    assert_int_equal(ends, 3);
    assert_int_equal(faults, 0);
}

static int takes_one(void *arg, void **out) {
    (void)out;
    heist_future *f = NULL;
    int got = heist_completions_next(arg, &f);
    return got < 0 ? (f ? -EPROTO : got) : 0;
}

static int cancel_a_taker(void *arg, void **out) {
    struct record *seen = arg;
    (void)out;
    heist_future *f, *got = NULL;
    heist_completions *it;
    heist_task *taker;
    int err = heist_future_new(NULL, &f);
    if (err == 0) err = heist_as_completed(&f, 1, HEIST_FOREVER, &it);
    if (err == 0) err = heist_create_task(takes_one, it, NULL, &taker);
    if (err < 0) return err;
    heist_sleep(1);
    heist_cancel(taker);
    record_add(seen, "%s", heist_error_name(heist_await(taker, NULL)));
    record_add(seen, "%d", heist_future_done(f));
    heist_future_set_result(f, NULL, NULL);
    record_add(seen, "%d", heist_completions_next(it, &got) == 1 && got == f);
    heist_unref(taker);
    heist_completions_free(it);
    heist_unref(f);
    return 0;
}

static void a_cancelled_taker_took_nothing(void **state) {
    (void)state;
    struct record seen = RECORD_INIT;
    assert_int_equal(harness_run(cancel_a_taker, &seen, NULL), 0);
    assert_string_equal(record_text(&seen), "ECANCELED 0 1");
}

struct callback {
    heist_loop *loop;
    heist_completions *it;
    int next, try_next;
};

static int take_in_callback(void *arg) {
    struct callback *c = arg;
    c->next = heist_completions_next(c->it, NULL);
    c->try_next = heist_completions_try_next(c->it, NULL);
    heist_loop_stop(c->loop);
    return 0;
}

static void a_callback_takes_only_what_is_there(void **state) {
    (void)state;
    struct callback c = {.loop = harness_loop()};
    heist_future *f;
    assert_int_equal(heist_future_new(NULL, &f), 0);
    heist_future_set_result(f, NULL, NULL);
    assert_int_equal(heist_as_completed(&f, 1, HEIST_FOREVER, &c.it), 0);
    assert_int_equal(heist_loop_call_soon(c.loop, take_in_callback, &c, NULL, NULL), 0);
    assert_int_equal(heist_loop_run_forever(c.loop), 0);
    heist_completions_free(c.it);
    heist_unref(f);
    harness_loop_end(c.loop);
    assert_int_equal(c.next, HEIST_ENOTINCORO);
    assert_int_equal(c.try_next, 1);
}

static int ends_at_once(void *arg, void **out) {
    *out = arg;
    return 0;
}

static void a_plain_thread_takes_from_tasks_of_two_runtimes(void **state) {
    (void)state;
    heist_runtime *a = harness_runtime(0), *b = harness_runtime(0);
    for (int round = 0; round < 50; round++) {
        heist_future *f[4], *got;
        heist_completions *it;
        for (int i = 0; i < 4; i++)
            assert_int_equal(heist_runtime_run_coroutine(i % 2 ? a : b, ends_at_once, &f[i], NULL, &f[i]), 0);
        assert_int_equal(heist_as_completed(f, 4, HEIST_FOREVER, &it), 0);
        for (int i = 0; i < 4; i++) {
            assert_int_equal(heist_completions_next(it, &got), 1);
            assert_int_equal(heist_future_done(got), 1);
        }
        assert_int_equal(heist_completions_next(it, &got), 0);
        heist_completions_free(it);
        heist_unref_all(f, 4);
    }
    harness_runtime_end(a);
    harness_runtime_end(b);
}

static const struct CMUnitTest tests[] = {
    API_TEST(tasks_come_in_the_order_of_their_ends_COMP_24),
    API_TEST(outcomes_come_in_the_order_of_their_ends_COMP_21),
    API_TEST(after_its_time_it_says_so_and_cancels_nobody_COMP_22),
    API_TEST(it_refuses_what_makes_no_sense_COMP_23),
    API_TEST(each_comes_once_and_is_held),
    API_TEST(of_many_takers_each_future_has_one),
    API_TEST(who_waits_for_one_too_many_learns_that_there_is_none),
    API_TEST(a_cancelled_taker_took_nothing),
    API_TEST(a_callback_takes_only_what_is_there),
    API_TEST(a_plain_thread_takes_from_tasks_of_two_runtimes),
};

int main(void) { return HARNESS_MAIN("completions", tests); }
