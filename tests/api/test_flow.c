/* What nests: heist_gather_future, heist_sleep_future, and what may be awaited. */
#include "support/harness.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct child {
    double seconds;
    int code;
    double cleanup;
    int ended;
};

static int sleep_then_end(void *arg, void **out) {
    struct child *child = arg;
    int err = heist_sleep(child->seconds);
    if (err < 0 && child->cleanup > 0) heist_sleep(child->cleanup);
    child->ended = 1;
    if (err < 0) return err;
    *out = child;
    return child->code;
}

/* ---- gather as a future ---- */

struct scene {
    struct child children[4];
    size_t count;
    unsigned flags;
    double cancel_at;
    struct record seen;
};

static int gathers(void *arg, void **out) {
    struct scene *s = arg;
    (void)out;
    heist_task *tasks[4];
    heist_future *all;
    double start = heist_time();
    for (size_t i = 0; i < s->count; i++) {
        int err = heist_create_task(sleep_then_end, &s->children[i], NULL, &tasks[i]);
        if (err < 0) return err;
    }
    int err = heist_gather_future(tasks, s->count, s->flags, &all);
    if (err < 0) return err;
    if (s->cancel_at > 0) {
        heist_sleep(s->cancel_at);
        record_add(&s->seen, "%d", heist_cancel(all));
    }
    void *value = NULL;
    err = heist_await(all, &value);
    record_add(&s->seen, "%s@%.0f", err ? heist_error_name(err) : "ok", heist_time() - start);
    for (size_t i = 0; i < s->count; i++) {
        void **results = value;
        record_add(&s->seen, "%s%s%s", heist_future_done(tasks[i]) ? "d" : "-",
                   heist_future_cancelled(tasks[i]) ? "c" : "", value && results[i] == &s->children[i] ? "+" : "");
    }
    record_add(&s->seen, "%d", heist_cancel(all));
    heist_unref(all);
    for (size_t i = 0; i < s->count; i++) {
        heist_await(tasks[i], NULL);
        heist_unref(tasks[i]);
    }
    return 0;
}

static void expect(struct scene *s, const char *words) {
    s->seen = (struct record)RECORD_INIT;
    assert_int_equal(harness_run(gathers, s, NULL), 0);
    assert_string_equal(record_text(&s->seen), words);
}

static void its_value_is_the_results_in_their_order_COMP_01(void **state) {
    (void)state;
    expect(&(struct scene){.children = {{.seconds = 3}, {.seconds = 1}, {.seconds = 2}}, .count = 3},
           "ok@3 d+ d+ d+ 0");
    expect(&(struct scene){.count = 0}, "ok@0 0");
}

static void a_failure_ends_it_as_its_flags_say_COMP_04_COMP_05(void **state) {
    (void)state;
    struct scene s = {.children = {{.seconds = 3, .cleanup = 3}, {.seconds = 1}, {.seconds = 2, .code = -EPROTO}},
                      .count = 3};
    expect(&s, "EPROTO@5 dc d d 0");
    s.flags = HEIST_GATHER_ALL;
    expect(&s, "ok@3 d+ d+ d 0");
    s.flags = HEIST_GATHER_EARLY;
    expect(&s, "EPROTO@2 - d d 0");
}

static void cancelling_it_cancels_every_child_and_it_ends_last_COMP_06(void **state) {
    (void)state;
    static const unsigned flags[] = {0, HEIST_GATHER_ALL};
    for (int i = 0; i < 2; i++) {
        struct scene s = {.children = {{.seconds = 9, .cleanup = 4}, {.seconds = 1}, {.seconds = 9}}, .count = 3};
        s.flags = flags[i];
        s.cancel_at = 2;
        expect(&s, "1 ECANCELED@6 dc d dc 0");
    }
}

static void a_cancelled_child_is_a_failure_and_no_more_COMP_07(void **state) {
    (void)state;
    struct scene s = {
        .children = {{.seconds = 1, .code = -ECANCELED}, {.seconds = 2}}, .count = 2, .flags = HEIST_GATHER_ALL};
    expect(&s, "ok@2 dc d+ 0");
    s.flags = HEIST_GATHER_EARLY;
    expect(&s, "ECANCELED@1 dc - 0");
}

/* ---- groups of groups ---- */

#define WIDTH 3
#define LEAVES (WIDTH * WIDTH * WIDTH)

struct tree {
    struct child leaves[LEAVES];
    struct record seen;
    int made, fault;
};

static int plant(struct tree *t, int depth, heist_future **out) {
    heist_future *branch[WIDTH];
    for (int i = 0; i < WIDTH; i++) {
        int err = depth ? plant(t, depth - 1, &branch[i])
                        : heist_create_task(sleep_then_end, &t->leaves[t->made++], NULL, &branch[i]);
        if (err < 0) return err;
    }
    int err = heist_gather_future(branch, WIDTH, 0, out);
    heist_unref_all(branch, WIDTH);
    return err;
}

static int grow(void *arg, void **out) {
    struct tree *t = arg;
    (void)out;
    heist_future *all;
    int err = plant(t, 2, &all);
    if (err < 0) return err;
    void *value = NULL;
    err = heist_await(all, &value);
    record_add(&t->seen, "%s", err ? heist_error_name(err) : "ok");
    for (int i = 0; i < LEAVES && value; i++)
        t->fault |= ((void ****)value)[i / (WIDTH * WIDTH)][i / WIDTH % WIDTH][i % WIDTH] != &t->leaves[i];
    heist_unref(all);
    return err;
}

static int fell(void *arg, void **out) {
    struct tree *t = arg;
    (void)out;
    heist_future *all;
    int err = plant(t, 2, &all);
    if (err < 0) return err;
    heist_sleep(1);
    record_add(&t->seen, "%d", heist_cancel(all));
    record_add(&t->seen, "%s", heist_error_name(heist_await(all, NULL)));
    heist_unref(all);
    return 0;
}

static int awaits_and_is_cancelled(void *arg, void **out) {
    struct tree *t = arg;
    (void)out;
    heist_task *waiter;
    int err = heist_create_task(grow, t, NULL, &waiter);
    if (err < 0) return err;
    heist_sleep(1);
    heist_cancel(waiter);
    record_add(&t->seen, "%s", heist_error_name(heist_await(waiter, NULL)));
    heist_unref(waiter);
    return 0;
}

static void groups_nest_and_are_cancelled_as_one_COMP_08(void **state) {
    (void)state;
    static const struct {
        heist_coro_fn play;
        double seconds;
        const char *words;
    } plays[] = {{grow, 2, "ok"}, {fell, 5, "1 ECANCELED"}, {awaits_and_is_cancelled, 5, "ECANCELED ECANCELED"}};
    for (int k = 0; k < 3; k++) {
        struct tree t = {.seen = RECORD_INIT};
        for (int i = 0; i < LEAVES; i++) t.leaves[i].seconds = plays[k].seconds + 0.01 * i;
        assert_int_equal(harness_run(plays[k].play, &t, NULL), 0);
        assert_string_equal(record_text(&t.seen), plays[k].words);
        assert_int_equal(t.fault, 0);
        for (int i = 0; i < LEAVES; i++) assert_int_equal(t.leaves[i].ended, 1);
    }
}

/* Each gathers the one before it twice. */
#define DEPTH 20000

static int deep(void *arg, void **out) {
    struct record *seen = arg;
    (void)out;
    for (int how = 0; how < 3; how++) {
        heist_future *first, *last, *next;
        int err = heist_future_new(NULL, &first);
        if (err < 0) return err;
        last = heist_ref(first);
        for (int i = 0; i < DEPTH; i++) {
            heist_future *const twice[2] = {last, last};
            err = heist_gather_future(twice, 2, i % 2 ? HEIST_GATHER_ALL : 0, &next);
            if (err < 0) return err;
            heist_unref(last);
            last = next;
        }
        if (how == 0) heist_future_set_result(first, seen, NULL);
        if (how == 1) heist_future_set_exception(first, -EPROTO, "deep down"); /* stops at the first that collects */
        if (how == 2) record_add(seen, "%d", heist_cancel(last));
        heist_unref(first);
        err = heist_await(last, NULL);
        record_add(seen, "%s", err ? heist_error_name(err) : "ok");
        heist_unref(last);
    }
    return 0;
}

static void a_deep_one_takes_no_stack_COMP_08(void **state) {
    (void)state;
    struct record seen = RECORD_INIT;
    assert_int_equal(harness_run(deep, &seen, NULL), 0);
    assert_string_equal(record_text(&seen), "ok ok 1 ECANCELED");
}

/* ---- plain futures, callbacks, threads ---- */

static int odd_ends(void *arg, void **out) {
    struct record *seen = arg;
    (void)out;
    heist_future *f[2], *all;
    for (int k = 0; k < 4; k++) {
        for (int i = 0; i < 2; i++) {
            int err = heist_future_new(NULL, &f[i]);
            if (err < 0) return err;
        }
        int err = heist_gather_future(f, 2, 0, &all);
        if (err < 0) return err;
        switch (k) {
            case 0: /* dropped while it is pending: as if cancelled */
                heist_unref(f[0]);
                record_add(seen, "%d%d", heist_future_cancelled(all), heist_future_cancelled(f[1]));
                heist_unref(f[1]);
                break;
            case 1: { /* the failure's words come along */
                heist_exception e = HEIST_EXCEPTION_INIT;
                heist_future_set_exception(f[1], -EPROTO, "broken");
                heist_unref_all(f, 2);
                heist_future_exception(all, &e);
                record_add(seen, "%s:%s", heist_error_name(e.code), e.message);
                break;
            }
            case 2: { /* so do those of a cancel, both ways */
                heist_exception e = HEIST_EXCEPTION_INIT;
                heist_cancel_message(all, "enough");
                heist_future_exception(f[0], &e);
                record_add(seen, "%s:%s", heist_error_name(e.code), e.message);
                heist_unref_all(f, 2);
                heist_future_exception(all, &e);
                record_add(seen, "%s:%s", heist_error_name(e.code), e.message);
                break;
            }
            default: /* it is nobody else's to complete, and its value is not to be taken */
                record_add(seen, "%s", heist_error_name(heist_future_set_result(all, NULL, NULL)));
                heist_future_set_result(f[0], NULL, NULL);
                heist_future_set_result(f[1], NULL, NULL);
                record_add(seen, "%s", heist_error_name(heist_future_take(all, NULL)));
                heist_unref_all(f, 2);
        }
        heist_unref(all);
    }
    record_add(seen, "%s", heist_error_name(heist_gather_future(NULL, 1, 0, &all)));
    f[0] = NULL;
    record_add(seen, "%s", heist_error_name(heist_gather_future(f, 1, 0, &all)));
    record_add(seen, "%s", heist_error_name(heist_gather_future(NULL, 0, 4, &all)));
    record_add(seen, "%s", heist_error_name(heist_gather_future(NULL, 0, 3, &all)));
    record_add(seen, "%s", heist_error_name(heist_gather_future(NULL, 0, 0, NULL)));
    return 0;
}

static void it_has_an_answer_to_odd_ends(void **state) {
    (void)state;
    struct record seen = RECORD_INIT;
    assert_int_equal(harness_run(odd_ends, &seen, NULL), 0);
    assert_string_equal(record_text(&seen),
                        "11 EPROTO:broken ECANCELED:enough ECANCELED:enough EOPNOTSUPP EOPNOTSUPP EINVAL "
                        "EINVAL EINVAL EINVAL EINVAL");
}

struct inside {
    heist_loop *loop;
    heist_future *parts[2], *all;
    int err, calls;
    void *value;
};

static void all_done(heist_future *f, void *user) {
    struct inside *in = user;
    in->calls++;
    in->err = heist_future_result(f, &in->value);
    heist_loop_stop(in->loop);
}

static int second_end(void *arg) {
    struct inside *in = arg;
    heist_future_set_result(in->parts[1], in, NULL);
    return 0;
}

static int gather_in_callback(void *arg) {
    struct inside *in = arg;
    in->err = heist_gather_future(in->parts, 2, 0, &in->all);
    if (in->err == 0) in->err = heist_future_add_done_callback(in->all, all_done, in, NULL);
    heist_future_set_result(in->parts[0], in, NULL);
    heist_loop_call_later(in->loop, 1, second_end, in, NULL, NULL);
    return in->err;
}

static void callbacks_gather_and_hear_of_the_end(void **state) {
    (void)state;
    struct inside in = {.loop = harness_loop()};
    for (int i = 0; i < 2; i++) assert_int_equal(heist_future_new(in.loop, &in.parts[i]), 0);
    assert_int_equal(heist_loop_call_soon(in.loop, gather_in_callback, &in, NULL, NULL), 0);
    assert_int_equal(heist_loop_run_forever(in.loop), 0);
    assert_int_equal(in.calls, 1);
    assert_int_equal(in.err, 0);
    assert_ptr_equal(((void **)in.value)[1], &in);
    heist_unref(in.all);
    heist_unref_all(in.parts, 2);
    harness_loop_end(in.loop);
}

static int ends_at_once(void *arg, void **out) {
    *out = arg;
    return 0;
}

static int counts_cancel(void *arg, void **out) {
    (void)out;
    int err = heist_sleep(3600);
    if (err == -ECANCELED) atomic_fetch_add((_Atomic(int) *)arg, 1);
    return err;
}

static void threads_gather_over_two_runtimes(void **state) {
    (void)state;
    heist_runtime *a = harness_runtime(0), *b = harness_runtime(0);
    for (int round = 0; round < 100; round++) {
        heist_future *f[4], *all;
        _Atomic(int) cancelled = 0;
        bool fells = round % 2;
        for (int i = 0; i < 4; i++)
            assert_int_equal(heist_runtime_run_coroutine(i % 2 ? a : b, fells ? counts_cancel : ends_at_once,
                                                         &cancelled, NULL, &f[i]),
                             0);
        assert_int_equal(heist_gather_future(f, 4, 0, &all), 0);
        heist_unref_all(f, 4);
        void *value = NULL;
        if (fells) assert_int_equal(heist_cancel(all), 1);
        assert_int_equal(heist_await(all, &value), fells ? -ECANCELED : 0);
        for (int i = 0; i < 4 && !fells; i++) assert_ptr_equal(((void **)value)[i], &cancelled);
        heist_unref(all);
    }
    harness_runtime_end(a);
    harness_runtime_end(b);
}

/* A done callback without a loop may make, complete and cancel such futures in the midst of an end. */
static void makes_another(heist_future *f, void *user) {
    struct record *seen = user;
    (void)f;
    heist_future *inner, *all;
    if (heist_future_new(NULL, &inner) || heist_gather_future(&inner, 1, 0, &all)) return;
    heist_future_set_result(inner, seen, NULL);
    void *value = NULL;
    int err = heist_await(all, &value); /* at once: its own deeds are done by now */
    record_add(seen, "%d%d", err, ((void **)value)[0] == seen);
    heist_unref(inner);
    heist_unref(all);
}

static void a_done_callback_without_a_loop_may_do_the_same(void **state) {
    (void)state;
    struct record seen = RECORD_INIT;
    heist_future *f, *all, *shield;
    assert_int_equal(heist_future_new(NULL, &f), 0);
    assert_int_equal(heist_gather_future(&f, 1, 0, &all), 0);
    assert_int_equal(heist_shield(all, &shield), 0);
    assert_int_equal(heist_future_add_done_callback(all, makes_another, &seen, NULL), 0);
    heist_future_set_result(f, NULL, NULL);
    assert_int_equal(heist_future_done(shield), 1);
    heist_unref(f);
    heist_unref(all);
    heist_unref(shield);
    assert_string_equal(record_text(&seen), "01");
}

/* ---- sleep ---- */

static _Atomic(int) frees;
static void count_free(void *value) {
    (void)value;
    frees++;
}

static int naps(void *arg, void **out) {
    struct record *seen = arg;
    (void)out;
    heist_future *nap[3], *all;
    double start = heist_time();
    for (int i = 0; i < 3; i++) {
        int err = heist_sleep_future(NULL, 3 - i, &nap[i], count_free, &nap[i]);
        if (err < 0) return err;
    }
    int err = heist_gather_future(nap, 2, 0, &all);
    if (err < 0) return err;
    size_t pending;
    record_add(seen, "%d",
               heist_wait(nap, 3, HEIST_FIRST_COMPLETED, 1.5, &pending)); /* the one of 1 s comes first now */
    record_add(seen, "%d", heist_cancel(nap[2]));                         /* the one of 2 s */
    record_add(seen, "%s@%.0f", heist_error_name(heist_await(all, NULL)), heist_time() - start);
    for (int i = 0; i < 3; i++) record_add(seen, "%d%d", heist_future_done(nap[i]), heist_future_cancelled(nap[i]));
    heist_unref(all);
    heist_unref_all(nap, 3);
    record_add(seen, "%d", (int)frees);
    record_add(seen, "%s", heist_error_name(heist_sleep_future(NULL, __builtin_nan(""), NULL, NULL, nap)));
    record_add(seen, "%s", heist_error_name(heist_sleep_future(NULL, 1, NULL, NULL, NULL)));
    err = heist_sleep_future(NULL, 2, seen, NULL, nap);
    if (err < 0) return err;
    void *value = NULL;
    start = heist_time();
    err = heist_await(nap[0], &value);
    record_add(seen, "%d%d@%.0f", err, value == seen, heist_time() - start);
    heist_unref(nap[0]);
    return 0;
}

static void a_sleep_nests_and_can_be_cancelled(void **state) {
    (void)state;
    struct record seen = RECORD_INIT;
    frees = 0;
    assert_int_equal(harness_run(naps, &seen, NULL), 0);
    assert_string_equal(record_text(&seen), "1 1 ECANCELED@1 10 11 11 3 EINVAL EINVAL 01@2");
    heist_future *f = NULL;
    assert_int_equal(heist_sleep_future(NULL, 1, NULL, NULL, &f), HEIST_ENOLOOP);
    assert_null(f);
}

static void a_sleep_ends_with_its_loop(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    heist_future *f, *late = NULL;
    frees = 0;
    assert_int_equal(heist_sleep_future(loop, 1000, &f, count_free, &f), 0);
    heist_loop_ref(loop);
    harness_loop_end(loop);
    assert_int_equal(heist_future_result(f, NULL), HEIST_ECLOSED);
    heist_unref(f);
    assert_int_equal(frees, 1);
    assert_int_equal(heist_sleep_future(loop, 1, &f, count_free, &late), HEIST_ECLOSED);
    heist_loop_unref(loop);
    assert_int_equal(frees, 1); /* the caller's own still */
    assert_null(late);
}

/* Dropped before its time, and then the loop closes: nobody has failed to look at anything.  What a loop that is closed
 * cannot hand to a handler goes to the standard error. */
static void a_sleep_that_nobody_holds_ends_silently_with_its_loop(void **state) {
    (void)state;
    heist_future *f;
    heist_loop *loop = harness_loop();
    frees = 0;
    assert_int_equal(heist_sleep_future(loop, 1000, &f, count_free, &f), 0);
    heist_unref(f);
    assert_int_equal(frees, 0);
    int ends[2], saved = dup(2);
    assert_int_equal(pipe(ends), 0);
    fflush(stderr);
    assert_int_equal(dup2(ends[1], 2), 2);
    close(ends[1]);
    heist_loop_close(loop);
    fflush(stderr);
    assert_int_equal(dup2(saved, 2), 2); /* the last writing end goes */
    close(saved);
    char c;
    assert_int_equal(read(ends[0], &c, 1), 0);
    close(ends[0]);
    harness_loop_end(loop);
    assert_int_equal(frees, 1);
}

/* Timer and cancel meet: one of them ends it, and the value is freed once. */
static void a_sleep_ends_once_in_a_race(void **state) {
    (void)state;
    heist_runtime *rt = harness_runtime(0);
    int made = 0, ended[2] = {0, 0};
    frees = 0;
    for (int round = 0; round < 300; round++) {
        heist_future *f;
        assert_int_equal(heist_sleep_future(heist_runtime_loop(rt, 0), 1e-5 * (round % 10), &made, count_free, &f), 0);
        made++;
        for (int i = 0; i < round % 7; i++) heist_yield();
        int got = heist_cancel(f);
        int err = heist_await(f, NULL);
        assert_int_equal(err, got ? -ECANCELED : 0);
        ended[got]++;
        heist_unref(f);
    }
    harness_runtime_end(rt);
    assert_int_equal(frees, made);
    assert_int_equal(ended[0] + ended[1], made);
}

/* ---- what may be awaited ---- */

static int ensures(void *arg, void **out) {
    struct record *seen = arg;
    (void)out;
    heist_future *f, *same, *task, *many[3] = {NULL, NULL, NULL};
    int err = heist_future_new(NULL, &f);
    if (err < 0) return err;
    err = heist_ensure_future(NULL, HEIST_FUTURE(f), NULL, &same);
    record_add(seen, "%d%d", err, same == f);
    heist_unref(f); /* `same` is a reference of its own */
    heist_future_set_result(same, NULL, NULL);
    record_add(seen, "%d", heist_future_done(same));
    err = heist_ensure_future(NULL, HEIST_CORO(ends_at_once, seen), NULL, &task);
    if (err < 0) return err;
    void *value = NULL;
    record_add(seen, "%d", heist_future_is_task(task));
    err = heist_await(task, &value);
    record_add(seen, "%d%d", err, value == seen);
    heist_future *again;
    err = heist_ensure_future(NULL, HEIST_FUTURE(task), NULL, &again);
    record_add(seen, "%d%d", err, again == task);
    heist_unref(task);
    heist_unref(again);
    record_add(seen, "%s", heist_error_name(heist_ensure_future(NULL, HEIST_FUTURE(NULL), NULL, &task)));
    heist_awaitable both = {same, ends_at_once, NULL};
    record_add(seen, "%s", heist_error_name(heist_ensure_future(NULL, both, NULL, &task)));
    heist_awaitable list[3] = {HEIST_CORO(ends_at_once, seen), HEIST_FUTURE(same), both};
    size_t made = 9;
    record_add(seen, "%s", heist_error_name(heist_ensure_futures(NULL, list, 3, NULL, &made, many)));
    record_add(seen, "%d", many[0] == NULL);
    err = heist_ensure_futures(NULL, list, 2, NULL, &made, many);
    if (err < 0) return err;
    err = heist_gather(many, 2, NULL, 0);
    record_add(seen, "%d%d", err, many[1] == same);
    heist_unref_all(many, 3);
    heist_unref(same);
    return 0;
}

static void ensure_future_gives_back_or_makes_a_task_FUT_26_COMP_02(void **state) {
    (void)state;
    struct record seen = RECORD_INIT;
    assert_int_equal(harness_run(ensures, &seen, NULL), 0);
    assert_string_equal(record_text(&seen), "01 1 1 01 01 EINVAL EINVAL EINVAL 1 01");
    heist_future *task;
    assert_int_equal(heist_ensure_future(NULL, HEIST_CORO(ends_at_once, NULL), NULL, &task), HEIST_ENOLOOP);
}

static int starts(void *arg, void **out) {
    (void)out;
    record_add(arg, "started");
    return 0;
}

static int children_start_before_anybody_awaits(void *arg, void **out) {
    struct record *seen = arg;
    (void)out;
    heist_awaitable list[2] = {HEIST_CORO(starts, seen), HEIST_CORO(starts, seen)};
    heist_future *f[2], *all;
    int err = heist_ensure_futures(NULL, list, 2, NULL, NULL, f);
    if (err == 0) err = heist_gather_future(f, 2, 0, &all);
    if (err < 0) return err;
    heist_sleep(1);
    record_add(seen, "%d", heist_future_done(all));
    heist_unref_all(f, 2);
    heist_unref(all);
    return 0;
}

static void children_start_although_the_gather_is_awaited_later_COMP_02(void **state) {
    (void)state;
    struct record seen = RECORD_INIT;
    assert_int_equal(harness_run(children_start_before_anybody_awaits, &seen, NULL), 0);
    assert_string_equal(record_text(&seen), "started started 1");
}

static int value_of(heist_future *f, void *user) {
    void *value = NULL;
    int err = heist_future_result(f, &value);
    return err ? err : value == user;
}

static void a_loop_runs_until_any_of_them_is_complete_LOOP_07(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    struct child children[2] = {{.seconds = 1}, {.seconds = 2}};
    heist_future *f[2], *all, *shield, *nap;
    heist_awaitable list[2] = {HEIST_CORO(sleep_then_end, &children[0]), HEIST_CORO(sleep_then_end, &children[1])};
    assert_int_equal(heist_ensure_futures(loop, list, 2, NULL, NULL, f), 0);
    assert_int_equal(heist_gather_future(f, 2, 0, &all), 0);
    assert_int_equal(heist_shield(all, &shield), 0);
    assert_int_equal(heist_sleep_future(loop, 3, loop, NULL, &nap), 0);
    void *value = NULL;
    double start = heist_loop_time(loop);
    assert_int_equal(heist_loop_run_until_complete(loop, f[0], &value), 0);
    assert_ptr_equal(value, &children[0]);
    assert_int_equal(heist_loop_run_until_complete(loop, shield, &value), 0);
    assert_ptr_equal(((void **)value)[1], &children[1]);
    assert_int_equal(heist_loop_run_until_complete(loop, all, &value), 0);
    assert_int_equal(heist_loop_run_until_complete(loop, nap, NULL), 0);
    assert_true(heist_loop_time(loop) - start >= 3);
    assert_int_equal(value_of(nap, loop), 1);
    heist_unref(all);
    heist_unref(shield);
    heist_unref(nap);
    heist_unref_all(f, 2);
    harness_loop_end(loop);
}

static const struct CMUnitTest tests[] = {
    API_TEST(its_value_is_the_results_in_their_order_COMP_01),
    API_TEST(a_failure_ends_it_as_its_flags_say_COMP_04_COMP_05),
    API_TEST(cancelling_it_cancels_every_child_and_it_ends_last_COMP_06),
    API_TEST(a_cancelled_child_is_a_failure_and_no_more_COMP_07),
    API_TEST(groups_nest_and_are_cancelled_as_one_COMP_08),
    API_TEST(a_deep_one_takes_no_stack_COMP_08),
    API_TEST(it_has_an_answer_to_odd_ends),
    API_TEST(callbacks_gather_and_hear_of_the_end),
    API_TEST(threads_gather_over_two_runtimes),
    API_TEST(a_done_callback_without_a_loop_may_do_the_same),
    API_TEST(a_sleep_nests_and_can_be_cancelled),
    API_TEST(a_sleep_ends_with_its_loop),
    API_TEST(a_sleep_that_nobody_holds_ends_silently_with_its_loop),
    API_TEST(a_sleep_ends_once_in_a_race),
    API_TEST(ensure_future_gives_back_or_makes_a_task_FUT_26_COMP_02),
    API_TEST(children_start_although_the_gather_is_awaited_later_COMP_02),
    API_TEST(a_loop_runs_until_any_of_them_is_complete_LOOP_07),
};

int main(void) { return HARNESS_MAIN("flow", tests); }
