/* Generators driven by hand: from a plain thread, a callback and tasks that move, with bodies that suspend. */
#include "support/harness.h"

#include <fenv.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static int number[64];
__attribute__((constructor)) static void fill_numbers(void) {
    for (int i = 0; i < 64; i++) number[i] = i;
}
static int as_int(const void *value) { return value ? *(const int *)value : -1; }

static heist_generator *made(heist_generator_fn fn, void *arg) {
    heist_generator *g = NULL;
    assert_int_equal(heist_generator_new(fn, arg, NULL, &g), 0);
    assert_non_null(g);
    return g;
}

/* Yields 0 .. n-1 and returns the n-th; records what its yields return. */
struct count {
    int n;
    struct record *record;
    int ignore; /* yields that go on after a code */
};

static int count_up(heist_generator *self, void *arg, void **out) {
    struct count *c = arg;
    if (c->record) record_add(c->record, "begin");
    for (int i = 0; i < c->n; i++) {
        void *sent = NULL;
        int err = heist_generator_yield(self, &number[i], &sent);
        if (c->record && sent) record_add(c->record, "sent:%d", as_int(sent));
        if (c->record && err) record_add(c->record, "%s", heist_error_name(err));
        if (err && !c->ignore) return err;
        if (err) c->ignore--;
    }
    if (c->record) record_add(c->record, "end");
    *out = &number[c->n];
    return 0;
}

/* ---- birth, states, values ---- */

static void making_one_runs_nothing_of_the_body_CORO_01(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    struct count c = {3, &record, 0};
    heist_generator *g = made(count_up, &c);
    assert_int_equal(heist_generator_state(g), HEIST_GENERATOR_CREATED);
    assert_int_equal(record_words(&record), 0);
    void *value = NULL;
    assert_int_equal(heist_generator_next(g, &value), 0);
    assert_string_equal(record_text(&record), "begin");
    heist_generator_unref(g);
}

struct look {
    int inside, again;
};
static int look_at_state(heist_generator *self, void *arg, void **out) {
    struct look *l = arg;
    (void)out;
    l->inside = heist_generator_state(self);
    l->again = heist_generator_next(self, NULL);
    return heist_generator_yield(self, NULL, NULL);
}

static void four_states_can_be_asked_for_CORO_18(void **state) {
    (void)state;
    struct look look = {-1, 0};
    heist_generator *g = made(look_at_state, &look);
    assert_int_equal(heist_generator_state(g), HEIST_GENERATOR_CREATED);
    assert_int_equal(heist_generator_next(g, NULL), 0);
    assert_int_equal(look.inside, HEIST_GENERATOR_RUNNING);
    assert_int_equal(heist_generator_state(g), HEIST_GENERATOR_SUSPENDED);
    assert_int_equal(heist_generator_next(g, NULL), HEIST_ESTOP);
    assert_int_equal(heist_generator_state(g), HEIST_GENERATOR_CLOSED);
    assert_int_equal(heist_generator_state(NULL), -EINVAL);
    heist_generator_unref(g);
}

static void next_gives_each_value_then_stop_with_the_return_value_CORO_10_CORO_19(void **state) {
    (void)state;
    struct count c = {3, NULL, 0};
    heist_generator *g = made(count_up, &c);
    void *value = NULL;
    assert_int_equal(heist_generator_result(g, &value), HEIST_EINVALSTATE);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(heist_generator_next(g, &value), 0);
        assert_int_equal(as_int(value), i);
    }
    for (int i = 0; i < 3; i++) { /* and ever after */
        assert_int_equal(heist_generator_next(g, &value), HEIST_ESTOP);
        assert_int_equal(as_int(value), 2); /* untouched */
    }
    assert_int_equal(heist_generator_result(g, &value), 0);
    assert_int_equal(as_int(value), 3);
    assert_int_equal(heist_generator_send(g, &number[7], &value), HEIST_ESTOP);
    heist_generator_unref(g);
}

static int fail_at_two(heist_generator *self, void *arg, void **out) {
    (void)arg;
    *out = &number[9];
    for (int i = 0; i < 2; i++) {
        int err = heist_generator_yield(self, &number[i], NULL);
        if (err) return err;
    }
    return -EPROTO;
}

static void failure_comes_once_and_then_it_has_ended_CORO_32(void **state) {
    (void)state;
    heist_generator *g = made(fail_at_two, NULL);
    void *value = NULL;
    int err = 0, rounds = 0;
    heist_foreach (value, g, &err) rounds++;
    assert_int_equal(rounds, 2);
    assert_int_equal(err, -EPROTO);
    assert_int_equal(heist_generator_next(g, &value), HEIST_ESTOP);
    assert_int_equal(heist_generator_result(g, &value), -EPROTO);
    heist_generator_unref(g);
}

static int return_stop(heist_generator *self, void *arg, void **out) {
    (void)self;
    (void)out;
    return *(int *)arg;
}

static void stop_of_another_is_no_end_of_its_own(void **state) {
    (void)state;
    int code = HEIST_ESTOP, positive = 5;
    heist_generator *g = made(return_stop, &code);
    assert_int_equal(heist_generator_next(g, NULL), HEIST_EFAILED);
    assert_int_equal(heist_generator_next(g, NULL), HEIST_ESTOP);
    heist_generator_unref(g);
    g = made(return_stop, &positive);
    assert_int_equal(heist_generator_next(g, NULL), HEIST_ESTOP);
    assert_int_equal(heist_generator_result(g, NULL), 0);
    heist_generator_unref(g);
}

static void nothing_runs_ahead_of_demand_CORO_28(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    struct count c = {3, &record, 0};
    heist_generator *g = made(count_up, &c);
    void *value = NULL;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(heist_generator_next(g, &value), 0);
        record_add(&record, "%d", as_int(value));
    }
    assert_string_equal(record_text(&record), "begin 0 1 2");
    assert_int_equal(heist_generator_next(g, &value), HEIST_ESTOP);
    assert_string_equal(record_text(&record), "begin 0 1 2 end");
    heist_generator_unref(g);
}

/* ---- send, throw, close ---- */

static void send_makes_the_pending_yield_return_the_value_CORO_20_CORO_35(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    struct count c = {3, &record, 0};
    heist_generator *g = made(count_up, &c);
    void *value = &number[5];
    assert_int_equal(heist_generator_send(g, &number[7], &value), HEIST_ENOTSTARTED);
    assert_int_equal(as_int(value), 5);
    assert_int_equal(heist_generator_state(g), HEIST_GENERATOR_CREATED);
    assert_int_equal(heist_generator_send(g, NULL, &value), 0); /* as next */
    assert_int_equal(heist_generator_send(g, &number[8], &value), 0);
    assert_int_equal(as_int(value), 1);
    assert_int_equal(heist_generator_next(g, &value), 0);
    assert_int_equal(heist_generator_send(g, &number[9], &value), HEIST_ESTOP);
    assert_string_equal(record_text(&record), "begin sent:8 sent:9 end");
    heist_generator_unref(g);
}

static void throw_arrives_at_the_yield_CORO_11(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    struct count c = {5, &record, 1};
    heist_generator *g = made(count_up, &c);
    void *value = NULL;
    assert_int_equal(heist_generator_throw(g, 0, &value), -EINVAL);
    assert_int_equal(heist_generator_throw(g, 7, &value), -EINVAL);
    assert_int_equal(heist_generator_next(g, &value), 0);
    assert_int_equal(heist_generator_throw(g, -EIO, &value), 0); /* the body handled it and went on */
    assert_int_equal(as_int(value), 1);
    assert_int_equal(heist_generator_throw(g, -EPERM, &value), -EPERM); /* and did not */
    assert_int_equal(heist_generator_next(g, &value), HEIST_ESTOP);
    assert_int_equal(heist_generator_throw(g, -EDOM, &value), -EDOM); /* nobody is there */
    assert_string_equal(record_text(&record), "begin EIO EPERM");
    heist_generator_unref(g);

    g = made(count_up, &c); /* not begun: ends without running */
    record_clear(&record);
    assert_int_equal(heist_generator_throw(g, -EIO, &value), -EIO);
    assert_int_equal(heist_generator_state(g), HEIST_GENERATOR_CLOSED);
    assert_int_equal(heist_generator_next(g, &value), HEIST_ESTOP);
    assert_int_equal(record_words(&record), 0);
    heist_generator_unref(g);
}

static void close_runs_the_clean_up_and_later_next_says_stop_CORO_12_CORO_21(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    struct count c = {3, &record, 0};
    heist_generator *g = made(count_up, &c);
    void *value = NULL;
    assert_int_equal(heist_generator_next(g, &value), 0);
    assert_int_equal(heist_generator_close(g), 0);
    assert_string_equal(record_text(&record), "begin HEIST_EGENEXIT");
    assert_int_equal(heist_generator_next(g, &value), HEIST_ESTOP);
    assert_int_equal(heist_generator_result(g, &value), HEIST_EGENEXIT);
    assert_int_equal(heist_generator_close(g), 0); /* a finished one: nothing */
    heist_generator_unref(g);

    g = made(count_up, &c); /* one that has not begun is marked */
    record_clear(&record);
    assert_int_equal(heist_generator_close(g), 0);
    assert_int_equal(heist_generator_state(g), HEIST_GENERATOR_CLOSED);
    assert_int_equal(record_words(&record), 0);
    heist_generator_unref(g);
    assert_int_equal(heist_generator_close(NULL), -EINVAL);
}

static int fail_while_closing(heist_generator *self, void *arg, void **out) {
    (void)out;
    int err = heist_generator_yield(self, NULL, NULL);
    return err == HEIST_EGENEXIT ? *(int *)arg : err;
}

static void close_gives_the_code_of_a_clean_up_that_failed(void **state) {
    (void)state;
    int code = -EIO;
    heist_generator *g = made(fail_while_closing, &code);
    assert_int_equal(heist_generator_next(g, NULL), 0);
    assert_int_equal(heist_generator_close(g), -EIO);
    assert_int_equal(heist_generator_close(g), 0);
    heist_generator_unref(g);
    code = 0;
    g = made(fail_while_closing, &code);
    assert_int_equal(heist_generator_next(g, NULL), 0);
    assert_int_equal(heist_generator_close(g), 0);
    assert_int_equal(heist_generator_result(g, NULL), 0);
    heist_generator_unref(g);
}

static void body_that_goes_on_after_close_makes_it_fail_CORO_13(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    struct count c = {5, &record, 1};
    heist_generator *g = made(count_up, &c);
    void *value = NULL;
    assert_int_equal(heist_generator_next(g, &value), 0);
    assert_int_equal(heist_generator_close(g), HEIST_EIGNOREDCLOSE);
    assert_int_equal(heist_generator_state(g), HEIST_GENERATOR_SUSPENDED);
    assert_int_equal(heist_generator_next(g, &value), 0); /* it stands behind the value that close dropped */
    assert_int_equal(as_int(value), 2);
    assert_int_equal(heist_generator_close(g), 0);
    heist_generator_unref(g);
}

static int never_ends(heist_generator *self, void *arg, void **out) {
    int *yields = arg;
    (void)out;
    for (;;) {
        ++*yields;
        heist_generator_yield(self, NULL, NULL);
    }
    return 0;
}

static void dropped_body_that_never_ends_leaves_no_stack_CORO_13(void **state) {
    (void)state;
    int yields = 0;
    heist_generator *g = made(never_ends, &yields);
    for (int i = 0; i < 3; i++) assert_int_equal(heist_generator_next(g, NULL), 0);
    heist_generator_unref(g); /* the harness looks for what is left */
    assert_int_equal(yields, 4);
}

static void dropped_one_is_closed(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    struct count c = {3, &record, 0};
    heist_generator *g = made(count_up, &c);
    assert_int_equal(heist_generator_next(g, NULL), 0);
    assert_ptr_equal(heist_generator_ref(g), g);
    heist_generator_unref(g);
    assert_string_equal(record_text(&record), "begin");
    heist_generator_unref(g);
    assert_string_equal(record_text(&record), "begin HEIST_EGENEXIT");
    heist_generator_unref(NULL);
}

/* ---- one at a time ---- */

static void running_one_is_busy_CORO_23(void **state) {
    (void)state;
    struct look look = {-1, 0};
    heist_generator *g = made(look_at_state, &look);
    assert_int_equal(heist_generator_next(g, NULL), 0);
    assert_int_equal(look.again, -EBUSY);
    heist_generator_unref(g);
}

/* A task that suspends within a body is seen from outside where it stands: in the body. */
struct seen {
    heist_task *task;
    int frames, in_body;
};
static __attribute__((noinline)) int sleep_in_body(heist_generator *self, void *arg, void **out) {
    int err = heist_sleep(2);
    (void)arg;
    (void)out;
    return err ? err : heist_generator_yield(self, NULL, NULL);
}
static int drive_sleeper(void *arg, void **out) {
    heist_generator *g;
    (void)arg;
    (void)out;
    int err = heist_generator_new(sleep_in_body, NULL, NULL, &g);
    if (!err) err = heist_generator_next(g, NULL);
    if (!err) err = heist_generator_close(g);
    heist_generator_unref(g);
    return err;
}
static int look_at_sleeper(void *arg, void **out) {
    struct seen *s = arg;
    void *frames[32];
    (void)out;
    int err = heist_create_task(drive_sleeper, NULL, NULL, &s->task);
    if (!err) err = heist_sleep(1);
    if (err) return err;
    s->frames = heist_task_get_stack(s->task, frames, 32);
    for (int i = 0; i < s->frames; i++) {
        uintptr_t at = (uintptr_t)frames[i], body = (uintptr_t)sleep_in_body;
        s->in_body += at > body && at < body + 512;
    }
    err = heist_await(s->task, NULL);
    heist_unref(s->task);
    return err;
}

static void stack_of_a_task_that_waits_in_a_body_shows_the_body(void **state) {
    (void)state;
    struct seen s = {NULL, 0, 0};
    assert_int_equal(harness_run(look_at_sleeper, &s, NULL), 0);
    assert_true(s.frames > 2);
    assert_int_equal(s.in_body, 1);
}

/* A generator that several tasks drive, each under a lock of theirs: its frames are where they were. */
struct shared {
    heist_generator *g;
    heist_channel *turn; /* one token */
    int next, wrong;
};
static int drive_shared(void *arg, void **out) {
    struct shared *s = arg;
    (void)out;
    for (int i = 0; i < 10; i++) {
        void *token, *value = NULL;
        int err = heist_channel_recv(s->turn, &token);
        if (err) return err;
        err = heist_generator_next(s->g, &value);
        s->wrong += err != 0 || as_int(value) != s->next++;
        if ((err = heist_channel_send(s->turn, token))) return err;
        heist_yield();
    }
    return 0;
}
static int many_drive_one(void *arg, void **out) {
    struct shared *s = arg;
    heist_task *t[5];
    (void)out;
    int err = heist_channel_send(s->turn, s);
    for (int i = 0; i < 5 && !err; i++) err = heist_create_task(drive_shared, s, NULL, &t[i]);
    if (err) return err;
    err = heist_gather(t, 5, NULL, 0);
    for (int i = 0; i < 5; i++) heist_unref(t[i]);
    return err;
}

static void unshared_one_goes_from_hand_to_hand_and_finds_itself_busy_CORO_23(void **state) {
    (void)state;
    heist_generator_options opts = HEIST_GENERATOR_OPTIONS_INIT;
    struct look look = {-1, 0};
    heist_generator *g = NULL;
    opts.flags = HEIST_GENERATOR_UNSHARED;
    assert_int_equal(heist_generator_new(look_at_state, &look, &opts, &g), 0);
    assert_int_equal(heist_generator_next(g, NULL), 0);
    assert_int_equal(look.again, -EBUSY);
    assert_int_equal(look.inside, HEIST_GENERATOR_RUNNING);
    heist_generator_unref(g);

    struct count c = {60, NULL, 0};
    struct shared s = {NULL, NULL, 0, 0};
    void *value = NULL;
    assert_int_equal(heist_generator_new(count_up, &c, &opts, &s.g), 0);
    assert_int_equal(heist_channel_new(1, &s.turn), 0);
    assert_int_equal(harness_run(many_drive_one, &s, NULL), 0);
    assert_int_equal(s.wrong, 0);
    assert_int_equal(heist_generator_next(s.g, &value), 0);
    assert_int_equal(as_int(value), 50);
    heist_generator_unref(s.g);
    heist_channel_unref(s.turn);
}

struct held {
    heist_generator *g;
    struct gate inside, leave;
    int first;
};
static int hold_the_body(heist_generator *self, void *arg, void **out) {
    struct held *h = arg;
    (void)out;
    gate_open(&h->inside);
    gate_wait(&h->leave);
    return heist_generator_yield(self, &number[1], NULL);
}
static void *drive_held(void *arg) {
    struct held *h = arg;
    h->first = heist_generator_next(h->g, NULL);
    return NULL;
}

static void second_thread_finds_it_busy_and_the_next_step_may_be_its_CORO_23(void **state) {
    (void)state;
    struct held h = {NULL, GATE_INIT, GATE_INIT, -1};
    h.g = made(hold_the_body, &h);
    pthread_t thread = harness_thread(drive_held, &h);
    gate_wait(&h.inside);
    assert_int_equal(heist_generator_next(h.g, NULL), -EBUSY);
    assert_int_equal(heist_generator_close(h.g), -EBUSY);
    assert_int_equal(heist_generator_throw(h.g, -EIO, NULL), -EBUSY);
    gate_open(&h.leave);
    harness_join(thread);
    assert_int_equal(h.first, 0);
    assert_int_equal(heist_generator_next(h.g, NULL), HEIST_ESTOP); /* begun there, ended here */
    heist_generator_unref(h.g);
}

struct stranger {
    heist_generator *other;
    int err;
};
static int yield_for_another(heist_generator *self, void *arg, void **out) {
    struct stranger *s = arg;
    (void)out;
    s->err = heist_generator_yield(s->other, &number[1], NULL);
    return heist_generator_yield(self, NULL, NULL);
}

static void yield_outside_its_body_is_refused(void **state) {
    (void)state;
    struct count c = {3, NULL, 0};
    struct stranger s = {made(count_up, &c), 0};
    heist_generator *g = made(yield_for_another, &s);
    assert_int_equal(heist_generator_yield(g, NULL, NULL), -EINVAL);
    assert_int_equal(heist_generator_next(s.other, NULL), 0);
    assert_int_equal(heist_generator_yield(s.other, NULL, NULL), -EINVAL);
    assert_int_equal(heist_generator_next(g, NULL), 0);
    assert_int_equal(s.err, -EINVAL);
    assert_int_equal(heist_generator_yield(NULL, NULL, NULL), -EINVAL);
    heist_generator_unref(g);
    heist_generator_unref(s.other);
}

/* ---- delegation ---- */

struct outer {
    heist_generator *inner;
    struct record *record;
    int own;
};
static int delegate_then_one(heist_generator *self, void *arg, void **out) {
    struct outer *o = arg;
    void *value = NULL;
    int err = heist_generator_delegate(self, o->inner, &value);
    record_add(o->record, err ? "%s" : "gave:%s%d", err ? heist_error_name(err) : "", as_int(value));
    if (err) return err;
    *out = value;
    return heist_generator_yield(self, &number[o->own], NULL);
}

static void delegation_passes_everything_through_CORO_17_CORO_24(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    struct count c = {3, &record, 1};
    struct outer middle = {made(count_up, &c), &record, 10}, top = {made(delegate_then_one, &middle), &record, 20};
    heist_generator *g = made(delegate_then_one, &top);
    void *value = NULL;
    assert_int_equal(heist_generator_next(g, &value), 0);
    assert_int_equal(as_int(value), 0);
    assert_int_equal(heist_generator_send(g, &number[8], &value), 0); /* to the innermost */
    assert_int_equal(as_int(value), 1);
    assert_int_equal(heist_generator_throw(g, -EIO, &value), 0); /* which handles it */
    assert_int_equal(as_int(value), 2);
    assert_int_equal(heist_generator_next(g, &value), 0); /* its end is a value in the middle */
    assert_int_equal(as_int(value), 10);
    assert_int_equal(heist_generator_next(g, &value), 0);
    assert_int_equal(as_int(value), 20);
    assert_int_equal(heist_generator_next(g, &value), HEIST_ESTOP);
    assert_string_equal(record_text(&record), "begin sent:8 EIO end gave:3 gave:3");
    assert_int_equal(heist_generator_result(g, &value), 0);
    assert_int_equal(as_int(value), 3);
    heist_generator_unref(g);
    heist_generator_unref(top.inner);
    heist_generator_unref(middle.inner);
}

static void delegation_closes_and_fails_through_CORO_24(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    struct count c = {3, &record, 0};
    struct outer top = {made(count_up, &c), &record, 20};
    heist_generator *g = made(delegate_then_one, &top);
    assert_int_equal(heist_generator_next(g, NULL), 0);
    assert_int_equal(heist_generator_close(g), 0);
    assert_string_equal(record_text(&record), "begin HEIST_EGENEXIT HEIST_EGENEXIT");
    assert_int_equal(heist_generator_state(top.inner), HEIST_GENERATOR_CLOSED);
    heist_generator_unref(g);
    heist_generator_unref(top.inner);

    record_clear(&record);
    top.inner = made(count_up, &c);
    g = made(delegate_then_one, &top);
    assert_int_equal(heist_generator_next(g, NULL), 0);
    assert_int_equal(heist_generator_throw(g, -EIO, NULL), -EIO);
    assert_string_equal(record_text(&record), "begin EIO EIO");
    heist_generator_unref(g);
    heist_generator_unref(top.inner);

    record_clear(&record); /* one that ended before has nothing, and no value */
    top.inner = made(count_up, &c);
    assert_int_equal(heist_generator_close(top.inner), 0);
    g = made(delegate_then_one, &top);
    assert_int_equal(heist_generator_next(g, NULL), 0);
    assert_string_equal(record_text(&record), "gave:-1");
    assert_int_equal(heist_generator_delegate(g, top.inner, NULL), -EINVAL); /* not its body */
    assert_int_equal(heist_generator_delegate(g, g, NULL), -EINVAL);
    heist_generator_unref(g);
    heist_generator_unref(top.inner);
}

/* The articles' pair: the consumer answers each value. */
static int consumer(heist_generator *self, void *arg, void **out) {
    struct record *record = arg;
    void *reply = NULL, *n = NULL;
    (void)out;
    for (;;) {
        int err = heist_generator_yield(self, reply, &n);
        if (err) return err;
        record_add(record, "consuming:%d", as_int(n));
        reply = &number[as_int(n) + 40];
    }
}

static void consumer_and_producer_take_turns_CORO_22(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_generator *c = made(consumer, &record);
    void *reply = NULL;
    assert_int_equal(heist_generator_next(c, NULL), 0);
    for (int n = 1; n <= 5; n++) {
        record_add(&record, "producing:%d", n);
        assert_int_equal(heist_generator_send(c, &number[n], &reply), 0);
        record_add(&record, "reply:%d", as_int(reply));
    }
    assert_int_equal(heist_generator_close(c), 0);
    assert_string_equal(record_text(&record), "producing:1 consuming:1 reply:41 producing:2 consuming:2 reply:42 "
                                              "producing:3 consuming:3 reply:43 producing:4 consuming:4 reply:44 "
                                              "producing:5 consuming:5 reply:45");
    heist_generator_unref(c);
}

/* ---- foreach ---- */

static int sum_until(heist_generator *g, int stop_at, int *err) {
    void *value;
    int sum = 0;
    heist_foreach (value, g, err) {
        if (as_int(value) == stop_at) return sum; /* also closes */
        sum += as_int(value);
    }
    return sum;
}

static int ended_by;
static int three(heist_generator *self, void *arg, void **out) {
    int err = 0;
    (void)out;
    for (int i = 0; i < 3 && !err; i++) err = heist_generator_yield(self, arg, NULL);
    ended_by = err;
    return err;
}

/* Two loops that share one err: the inner one's end is not the outer one's. */
static void foreach_with_one_err(void) {
    heist_generator *outer, *inner;
    void *value, *value2;
    int err;
    assert_int_equal(heist_generator_new(three, NULL, NULL, &outer), 0);
    assert_int_equal(heist_generator_new(three, NULL, NULL, &inner), 0);
    heist_foreach (value, outer, &err) {
        heist_foreach (value2, inner, &err) {
        }
        assert_int_equal(err, HEIST_ESTOP);
        break;
    }
    assert_int_equal(ended_by, HEIST_EGENEXIT);
    assert_int_equal(heist_generator_state(outer), HEIST_GENERATOR_CLOSED);
    heist_generator_unref(outer);
    heist_generator_unref(inner);
}

static void foreach_closes_on_every_way_out_and_tells_the_end_from_a_break_CORO_31(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    struct count c = {4, &record, 0};
    void *value = NULL;
    int err = -1, rounds = 0;
    heist_generator *g = made(count_up, &c);
    heist_foreach (value, g, &err) rounds++;
    assert_int_equal(rounds, 4);
    assert_int_equal(err, HEIST_ESTOP); /* the place of else */
    heist_generator_unref(g);

    g = made(count_up, &c);
    record_clear(&record);
    heist_foreach (value, g, &err) {
        if (as_int(value) == 1) continue;
        if (as_int(value) == 2) break;
    }
    assert_int_equal(err, 0);
    assert_string_equal(record_text(&record), "begin HEIST_EGENEXIT");
    assert_int_equal(heist_generator_state(g), HEIST_GENERATOR_CLOSED);
    heist_generator_unref(g);

    g = made(count_up, &c);
    record_clear(&record);
    assert_int_equal(sum_until(g, 3, &err), 3);
    assert_int_equal(err, 0);
    assert_string_equal(record_text(&record), "begin HEIST_EGENEXIT");
    heist_generator_unref(g);

    int code = -EIO; /* a clean-up that fails is not lost */
    g = made(fail_while_closing, &code);
    heist_foreach (value, g, &err) break;
    assert_int_equal(err, -EIO);
    heist_generator_unref(g);

    struct count two = {2, NULL, 0};
    heist_generator *outer = made(count_up, &two);
    rounds = 0;
    heist_foreach (value, outer, &err) { /* one in another */
        int err2;
        heist_generator *inner = made(count_up, &two);
        void *value2;
        heist_foreach (value2, inner, &err2) rounds++;
        heist_generator_unref(inner);
    }
    assert_int_equal(rounds, 4);
    heist_generator_unref(outer);
    foreach_with_one_err();
    heist_foreach (value, NULL, &err) rounds++;
    assert_int_equal(err, -EINVAL);
}

/* ---- iterators ---- */

struct list {
    struct record *record;
    int at, n;
    int fail_at;
    double pause;
};
static int list_next(void *state, void **out) {
    struct list *l = state;
    if (l->pause > 0) {
        int err = heist_sleep(l->pause);
        if (err < 0) return err;
    }
    if (l->at == l->fail_at) return -EIO;
    if (l->at == l->n) {
        *out = &number[50];
        return HEIST_ESTOP;
    }
    *out = &number[l->at++];
    return 0;
}
static int list_close(void *state) {
    struct list *l = state;
    record_add(l->record, "close");
    return 0;
}
static void list_free(void *state) {
    struct list *l = state;
    record_add(l->record, "free");
}
static const heist_iterator_ops list_ops = {sizeof(heist_iterator_ops), list_next, list_close, list_free};

static void array_list_and_body_are_driven_alike_CORO_25(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    void *values[] = {&number[3], &number[1], &number[2]}, *value = NULL;
    heist_generator *g = NULL;
    int err;
    assert_int_equal(heist_generator_of_array(values, 3, &g), 0);
    assert_int_equal(heist_generator_kind(g), HEIST_GENERATOR_ITERATOR);
    heist_foreach (value, g, &err) record_add(&record, "%d", as_int(value));
    assert_string_equal(record_text(&record), "3 1 2");
    heist_generator_unref(g);
    assert_int_equal(heist_generator_of_array(NULL, 0, &g), 0);
    assert_int_equal(heist_generator_next(g, &value), HEIST_ESTOP);
    heist_generator_unref(g);

    record_clear(&record);
    struct list list = {&record, 0, 2, -1, 0};
    assert_int_equal(heist_generator_of(&list_ops, &list, &g), 0);
    assert_int_equal(heist_generator_state(g), HEIST_GENERATOR_CREATED);
    assert_int_equal(heist_generator_next(g, &value), 0);
    assert_int_equal(heist_generator_state(g), HEIST_GENERATOR_SUSPENDED);
    assert_int_equal(heist_generator_send(g, &number[1], &value), -ENOTSUP);
    assert_int_equal(heist_generator_next(g, &value), 0);
    assert_int_equal(as_int(value), 1);
    assert_int_equal(heist_generator_next(g, &value), HEIST_ESTOP);
    assert_int_equal(heist_generator_result(g, &value), 0);
    assert_int_equal(as_int(value), 50);
    assert_int_equal(record_words(&record), 0); /* it came to its end: nothing to close */
    heist_generator_unref(g);
    assert_string_equal(record_text(&record), "free");

    record_clear(&record); /* a break, a throw and a failure close it, once */
    for (int how = 0; how < 3; how++) {
        struct list l = {&record, 0, 5, how == 2 ? 1 : -1, 0};
        assert_int_equal(heist_generator_of(&list_ops, &l, &g), 0);
        assert_int_equal(heist_generator_next(g, &value), 0);
        if (how == 0) assert_int_equal(heist_generator_close(g), 0);
        if (how == 1) assert_int_equal(heist_generator_throw(g, -EPERM, &value), -EPERM);
        if (how == 2) assert_int_equal(heist_generator_next(g, &value), -EIO);
        assert_int_equal(heist_generator_next(g, &value), HEIST_ESTOP);
        assert_int_equal(heist_generator_close(g), 0);
        heist_generator_unref(g);
    }
    assert_string_equal(record_text(&record), "close free close free close free");

    struct count c = {3, NULL, 0};
    g = made(count_up, &c);
    assert_int_equal(heist_generator_kind(g), HEIST_GENERATOR_BODY);
    assert_int_equal(heist_generator_kind(NULL), -EINVAL);
    heist_generator_unref(g);
}

static int even(void *value, void *arg) {
    (void)arg;
    int err = heist_sleep(0.25);
    return err < 0 ? err : as_int(value) % 2 == 0;
}
static int fail_at_three(void *value, void *arg) {
    (void)arg;
    return as_int(value) == 3 ? -EIO : 1;
}

struct collected {
    struct record record;
    double seconds;
    int err, state_after_failure;
};
static int collect_them(void *arg, void **out) {
    struct collected *c = arg;
    struct count count = {20, NULL, 0};
    heist_generator *g;
    void **values = NULL;
    size_t n = 0;
    (void)out;
    double start = heist_time();
    int err = heist_generator_new(count_up, &count, NULL, &g);
    if (err) return err;
    err = heist_generator_collect(g, even, NULL, &values, &n);
    c->seconds = heist_time() - start;
    for (size_t i = 0; !err && i < n; i++) record_add(&c->record, "%d", as_int(values[i]));
    heist_values_free(values);
    heist_generator_unref(g);
    if (err) return err;
    if ((err = heist_generator_new(count_up, &count, NULL, &g))) return err;
    c->err = heist_generator_collect(g, fail_at_three, NULL, &values, &n);
    c->state_after_failure = heist_generator_state(g);
    heist_generator_unref(g);
    return 0;
}

static void collect_keeps_order_and_may_await_its_condition_CORO_40(void **state) {
    (void)state;
    struct collected c = {.record = RECORD_INIT};
    assert_int_equal(harness_run(collect_them, &c, NULL), 0);
    assert_string_equal(record_text(&c.record), "0 2 4 6 8 10 12 14 16 18");
    assert_true(c.seconds > 4.99 && c.seconds < 5.01);
    assert_int_equal(c.err, -EIO);
    assert_int_equal(c.state_after_failure, HEIST_GENERATOR_CLOSED);

    void **values = NULL;
    size_t n = 7;
    struct count none = {0, NULL, 0};
    heist_generator *g = made(count_up, &none);
    assert_int_equal(heist_generator_collect(g, NULL, NULL, &values, &n), 0);
    assert_int_equal(n, 0);
    heist_values_free(values);
    heist_generator_unref(g);
}

/* ---- bodies that suspend ---- */

struct ticker {
    struct record *record;
    int n;
    double pause;
    heist_task *seen; /* heist_current_task in the body */
    int same_task;
    int clean_up_err;
};
static int tick(heist_generator *self, void *arg, void **out) {
    struct ticker *t = arg;
    (void)out;
    for (int i = 0; i < t->n; i++) {
        heist_task *before = heist_current_task();
        int err = heist_sleep(t->pause);
        t->same_task += heist_current_task() == before;
        t->seen = before;
        if (!err) err = heist_generator_yield(self, &number[i], NULL);
        if (err) {
            if (t->record) record_add(t->record, "%s", heist_error_name(err));
            t->clean_up_err = heist_sleep(t->pause); /* the clean-up may wait too */
            return err;
        }
    }
    return 0;
}

struct shop {
    struct record record;
    double seconds;
    int same_task, other_ran;
    heist_task *seen, *me;
    bool stop;
};
static int other_task(void *arg, void **out) {
    struct shop *s = arg;
    (void)out;
    for (int i = 0; i < 3; i++) {
        int err = heist_sleep(1);
        if (err) return err;
        s->other_ran++;
    }
    return 0;
}
static int iterate_slowly(void *arg, void **out) {
    struct shop *s = arg;
    struct ticker ticker = {&s->record, 3, 1.5, NULL, 0, 0};
    heist_generator *g;
    heist_task *other;
    void *value;
    (void)out;
    s->me = heist_current_task();
    int err = heist_create_task(other_task, s, NULL, &other);
    if (err) return err;
    if ((err = heist_generator_new(tick, &ticker, NULL, &g))) return err;
    double start = heist_time();
    heist_foreach (value, g, &err) record_add(&s->record, "%d@%.1f", as_int(value), heist_time() - start);
    s->seconds = heist_time() - start;
    s->same_task = ticker.same_task;
    s->seen = ticker.seen;
    heist_generator_unref(g);
    int waited = heist_await(other, NULL);
    heist_unref(other);
    return err == HEIST_ESTOP ? waited : err;
}

static void await_in_the_body_suspends_the_whole_task_and_others_run_CORO_29_CORO_33(void **state) {
    (void)state;
    struct shop s = {.record = RECORD_INIT};
    assert_int_equal(harness_run(iterate_slowly, &s, NULL), 0);
    assert_string_equal(record_text(&s.record), "0@1.5 1@3.0 2@4.5");
    assert_int_equal(s.same_task, 3);
    assert_ptr_equal(s.seen, s.me); /* it is the consumer's task */
    assert_int_equal(s.other_ran, 3);
}

static int anext_after_the_end(void *arg, void **out) {
    struct record *record = arg;
    struct ticker ticker = {record, 2, 1, NULL, 0, 0};
    heist_generator *g;
    void *value = NULL;
    (void)out;
    int err = heist_generator_new(tick, &ticker, NULL, &g);
    if (err) return err;
    for (int i = 0; i < 5; i++) record_add(record, "%s", heist_error_name(heist_generator_next(g, &value)));
    heist_generator_unref(g);
    return 0;
}

static void next_of_a_suspending_one_says_stop_ever_after_CORO_30(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    assert_int_equal(harness_run(anext_after_the_end, &record, NULL), 0);
    assert_string_equal(record_text(&record), "OK OK HEIST_ESTOP HEIST_ESTOP HEIST_ESTOP");
}

/* Sleeps before each yield and after each code. */
static int echo_slowly(heist_generator *self, void *arg, void **out) {
    struct record *record = arg;
    void *sent = NULL;
    (void)out;
    for (;;) {
        int err = heist_sleep(1);
        if (err) return err;
        err = heist_generator_yield(self, sent, &sent);
        if (err == -EPERM) continue; /* handled */
        if (err) {
            heist_sleep(1);
            record_add(record, "cleaned:%s", heist_error_name(err));
            return err;
        }
    }
}
static int send_throw_close(void *arg, void **out) {
    struct record *record = arg;
    heist_generator *g;
    void *value = NULL;
    (void)out;
    int err = heist_generator_new(echo_slowly, record, NULL, &g);
    if (err) return err;
    double start = heist_time();
    record_add(record, "%s", heist_error_name(heist_generator_send(g, &number[1], &value)));
    record_add(record, "%s", heist_error_name(heist_generator_next(g, &value)));
    err = heist_generator_send(g, &number[5], &value);
    record_add(record, "%s:%d", heist_error_name(err), as_int(value));
    record_add(record, "%s", heist_error_name(heist_generator_throw(g, -EPERM, &value)));
    record_add(record, "%s", heist_error_name(heist_generator_close(g)));
    record_add(record, "%.0fs", heist_time() - start);
    heist_generator_unref(g);
    return 0;
}

static void send_throw_and_close_wait_for_the_body_CORO_34(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    assert_int_equal(harness_run(send_throw_close, &record, NULL), 0);
    assert_string_equal(record_text(&record), "HEIST_ENOTSTARTED OK OK:5 OK cleaned:HEIST_EGENEXIT OK 4s");
}

static int slow_list(void *arg, void **out) {
    struct record *record = arg;
    struct list list = {record, 0, 3, -1, 0.5};
    heist_generator *g;
    void *value;
    (void)out;
    int err = heist_generator_of(&list_ops, &list, &g);
    if (err) return err;
    double start = heist_time();
    heist_foreach (value, g, &err) record_add(record, "%d@%.1f", as_int(value), heist_time() - start);
    heist_generator_unref(g);
    return err == HEIST_ESTOP ? 0 : err;
}

static int endless(void *state, void **out) {
    *out = state;
    return 0;
}
static int counts_close(void *state) {
    ++*(int *)state;
    return 0;
}

static void end_that_is_thrown_closes_an_iterator(void **state) {
    (void)state;
    static const heist_iterator_ops ops = {sizeof(heist_iterator_ops), endless, counts_close, NULL};
    heist_generator *g;
    int closed = 0;
    assert_int_equal(heist_generator_of(&ops, &closed, &g), 0);
    assert_int_equal(heist_generator_next(g, NULL), 0);
    assert_int_equal(heist_generator_throw(g, HEIST_ESTOP, NULL), HEIST_EFAILED);
    assert_int_equal(closed, 1);
    heist_generator_unref(g);
    assert_int_equal(closed, 1);
}

static void any_iterator_may_suspend_in_its_next_CORO_41(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    assert_int_equal(harness_run(slow_list, &record, NULL), 0);
    assert_string_equal(record_text(&record), "0@0.5 1@1.0 2@1.5 free");
}

/* ---- cancelling ---- */

struct cancelled {
    struct record *record;
    struct ticker ticker;
    int err, after;
};
static int iterate_until_cancelled(void *arg, void **out) {
    struct cancelled *c = arg;
    heist_generator *g;
    void *value;
    (void)out;
    int err = heist_generator_new(tick, &c->ticker, NULL, &g);
    if (err) return err;
    heist_foreach (value, g, &err) record_add(c->record, "%d", as_int(value));
    c->err = err;
    c->after = heist_generator_next(g, &value);
    heist_generator_unref(g);
    return err;
}
static int cancel_the_iterator(void *arg, void **out) {
    heist_task *t;
    (void)out;
    int err = heist_create_task(iterate_until_cancelled, arg, NULL, &t);
    if (err) return err;
    heist_sleep(3.5);
    heist_cancel(t);
    err = heist_await(t, NULL);
    heist_unref(t);
    return err == -ECANCELED ? 0 : -EPROTO;
}

static void cancel_arrives_in_the_body_which_may_wait_to_clean_up(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    struct cancelled c = {&record, {&record, 10, 1, NULL, 0, -1}, 0, 0};
    assert_int_equal(harness_run(cancel_the_iterator, &c, NULL), 0);
    assert_string_equal(record_text(&record), "0 1 2 ECANCELED");
    assert_int_equal(c.err, -ECANCELED);
    assert_int_equal(c.after, HEIST_ESTOP);
    assert_int_equal(c.ticker.clean_up_err, 0);
}

/* ---- moving ---- */

/* Nested bodies that suspend, in tasks that move: each frame finds its own words again. */
struct deep {
    unsigned depth, steps, seed;
    unsigned wrong;
};
static int deep_body(heist_generator *self, void *arg, void **out) {
    struct deep *d = arg;
    volatile unsigned mine[32];
    unsigned salt = d->seed * 2654435761u + d->depth;
    for (unsigned i = 0; i < 32; i++) mine[i] = salt + i;
    struct deep below = {d->depth - 1, d->steps, d->seed + 1, 0};
    heist_generator *inner = NULL;
    int err = 0;
    (void)out;
    if (d->depth && (err = heist_generator_new(deep_body, &below, NULL, &inner))) return err;
    for (unsigned s = 0; s < d->steps && !err; s++) {
        if (inner) err = heist_generator_next(inner, NULL);
        else err = heist_yield();
        for (unsigned i = 0; i < 32; i++) d->wrong += mine[i] != salt + i;
        if (!err) err = heist_generator_yield(self, &d->depth, NULL);
    }
    heist_generator_unref(inner);
    d->wrong += below.wrong;
    return err;
}
static int drive_deep(void *arg, void **out) {
    struct deep *d = arg;
    heist_generator *g;
    heist_task *me = heist_current_task();
    void *value;
    unsigned steps = 0;
    (void)out;
    int err = heist_generator_new(deep_body, d, NULL, &g);
    if (err) return err;
    heist_foreach (value, g, &err) {
        steps++;
        d->wrong += value != &d->depth || heist_current_task() != me;
        if (steps % 3 == 0 && (err = heist_yield())) break;
    }
    heist_generator_unref(g);
    d->wrong += steps != d->steps;
    return err == HEIST_ESTOP ? 0 : err;
}
static int many_deep(void *arg, void **out) {
    struct deep *d = arg;
    heist_task *t[16];
    (void)out;
    for (int i = 0; i < 16; i++) {
        int err = heist_create_task(drive_deep, &d[i], NULL, &t[i]);
        if (err) return err;
    }
    int err = heist_gather(t, 16, NULL, 0);
    for (int i = 0; i < 16; i++) heist_unref(t[i]);
    return err;
}

static void nested_bodies_move_with_their_task(void **state) {
    (void)state;
    struct deep d[16];
    for (unsigned i = 0; i < 16; i++) d[i] = (struct deep){i % 5, 40, i * 100, 0};
    assert_int_equal(harness_run(many_deep, d, NULL), 0);
    for (int i = 0; i < 16; i++) assert_int_equal(d[i].wrong, 0);
}

static void tasks_and_threads_may_drive_one_by_turns(void **state) {
    (void)state;
    struct count c = {60, NULL, 0};
    struct shared s = {made(count_up, &c), NULL, 0, 0};
    void *value = NULL;
    assert_int_equal(heist_channel_new(1, &s.turn), 0);
    assert_int_equal(heist_generator_next(s.g, &value), 0); /* begun on this thread */
    s.next = 1;
    assert_int_equal(harness_run(many_drive_one, &s, NULL), 0);
    assert_int_equal(s.wrong, 0);
    assert_int_equal(heist_generator_next(s.g, &value), 0); /* and the runtime is gone */
    assert_int_equal(as_int(value), 51);
    heist_generator_unref(s.g);
    heist_channel_unref(s.turn);
}

static int three_steps(void *arg, void **out) {
    struct shared *s = arg;
    (void)out;
    for (int i = 0; i < 3; i++) {
        void *value = NULL;
        int err = heist_generator_next(s->g, &value);
        if (err) return err;
        s->wrong += as_int(value) != s->next++;
    }
    return 0;
}

static void tasks_of_two_runtimes_may_drive_one_by_turns_under_debug(void **state) {
    (void)state;
    heist_runtime *rt[2] = {harness_runtime(HEIST_RUNTIME_DEBUG), harness_runtime(0)};
    struct ticker ticker = {NULL, 30, 0.0001, NULL, 0, 0};
    struct shared s = {made(tick, &ticker), NULL, 0, 0};
    for (int i = 0; i < 8; i++) {
        heist_task *t = NULL;
        assert_int_equal(heist_runtime_run_coroutine(rt[i % 2], three_steps, &s, NULL, &t), 0);
        assert_int_equal(heist_await(t, NULL), 0);
        heist_unref(t);
        assert_int_equal(three_steps(&s, NULL), 0); /* and this thread, which blocks in the body */
        i += i == 4; /* not always the other one */
        if (s.next > 24) break;
    }
    assert_int_equal(s.wrong, 0);
    assert_int_equal(ticker.same_task, s.next);
    heist_generator_unref(s.g);
    harness_runtime_end(rt[0]);
    harness_runtime_end(rt[1]);
}

/* Awaits a task that runs in place on the body's stack, and one that drives a generator itself. */
static int in_place_child(void *arg, void **out) {
    struct count c = {5, NULL, 0};
    heist_generator *g;
    void *value;
    int sum = 0;
    int err = heist_generator_new(count_up, &c, NULL, &g);
    if (err) return err;
    heist_foreach (value, g, &err) {
        sum += as_int(value);
        if (as_int(value) == 3 && (err = heist_yield())) break;
    }
    heist_generator_unref(g);
    *(int *)arg = sum;
    *out = arg;
    return err == HEIST_ESTOP ? 0 : err;
}
static int awaiting_body(heist_generator *self, void *arg, void **out) {
    (void)arg;
    (void)out;
    for (int i = 0; i < 3; i++) {
        int sum = 0;
        heist_task *t;
        void *value = NULL;
        int err = heist_create_task(in_place_child, &sum, NULL, &t);
        if (err) return err;
        err = heist_await(t, &value);
        if (!err) err = heist_generator_yield(self, &number[as_int(value)], NULL);
        heist_unref(t);
        if (err) return err;
    }
    return 0;
}
static int drive_awaiting(void *arg, void **out) {
    struct record *record = arg;
    heist_generator *g;
    void *value;
    (void)out;
    int err = heist_generator_new(awaiting_body, NULL, NULL, &g);
    if (err) return err;
    heist_foreach (value, g, &err) record_add(record, "%d", as_int(value));
    heist_generator_unref(g);
    return err == HEIST_ESTOP ? 0 : err;
}

static void body_may_await_tasks_that_run_in_place(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    assert_int_equal(harness_run(drive_awaiting, &record, NULL), 0);
    assert_string_equal(record_text(&record), "10 10 10");
}

static int other_rounding(heist_generator *self, void *arg, void **out) {
    int *wrong = arg;
    (void)out;
    *wrong += fegetround() != FE_TONEAREST;
    fesetround(FE_UPWARD);
    for (int i = 0; i < 3; i++) {
        int err = heist_generator_yield(self, NULL, NULL);
        if (err) return err;
        *wrong += fegetround() != FE_UPWARD;
    }
    return 0;
}

static void rounding_belongs_to_the_body(void **state) {
    (void)state;
    int wrong = 0, err;
    void *value;
    heist_generator *g = made(other_rounding, &wrong);
    heist_foreach (value, g, &err) wrong += fegetround() != FE_TONEAREST;
    assert_int_equal(wrong, 0);
    assert_int_equal(fegetround(), FE_TONEAREST);
    heist_generator_unref(g);
}

/* ---- places where nothing can suspend ---- */

struct in_callback {
    struct record record;
    heist_loop *loop;
};
static int iterate_in_callback(void *arg) {
    struct in_callback *c = arg;
    struct count count = {2, NULL, 0};
    struct ticker ticker = {NULL, 2, 1, NULL, 0, 0};
    heist_generator *g;
    void *value;
    int err = heist_generator_new(count_up, &count, NULL, &g);
    if (err) return err;
    heist_foreach (value, g, &err) record_add(&c->record, "%d", as_int(value));
    heist_generator_unref(g);
    if ((err = heist_generator_new(tick, &ticker, NULL, &g))) return err;
    record_add(&c->record, "%s", heist_error_name(heist_generator_next(g, &value)));
    heist_generator_unref(g);
    heist_loop_stop(c->loop);
    return 0;
}

static void callback_may_drive_one_that_does_not_suspend_CORO_06(void **state) {
    (void)state;
    struct in_callback c = {.record = RECORD_INIT, .loop = harness_loop()};
    assert_int_equal(heist_loop_call_soon(c.loop, iterate_in_callback, &c, NULL, NULL), 0);
    assert_int_equal(heist_loop_run_forever(c.loop), 0);
    assert_string_equal(record_text(&c.record), "0 1 HEIST_ENOTINCORO");
    harness_loop_end(c.loop);
}

static int drop_in_a_task(void *arg, void **out) {
    struct ticker *t = arg;
    heist_generator *g;
    (void)out;
    int err = heist_generator_new(tick, t, NULL, &g);
    if (err) return err;
    err = heist_generator_next(g, NULL);
    heist_generator_unref(g);
    if (!err && !heist_current_task()) err = -EPROTO;
    return err ? err : heist_sleep(0.1);
}

static void last_unref_closes_without_suspending(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    struct ticker t = {&record, 3, 1, NULL, 0, 0};
    assert_int_equal(harness_run(drop_in_a_task, &t, NULL), 0);
    assert_string_equal(record_text(&record), "HEIST_EGENEXIT");
    assert_int_equal(t.clean_up_err, HEIST_ENOTINCORO);
}

static int drop_endless(void *arg, void **out) {
    heist_generator *g;
    heist_loop *loop;
    int yields = 0, err = heist_get_running_loop(&loop);
    (void)out;
    if (!err) err = heist_loop_set_exception_handler(loop, record_report, arg);
    if (!err) err = heist_generator_new(never_ends, &yields, NULL, &g);
    if (err) return err;
    err = heist_generator_next(g, NULL);
    heist_generator_unref(g);
    return err;
}

static void body_that_ignores_its_drop_is_reported(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    assert_int_equal(heist_loop_run_coroutine(loop, drop_endless, &record, NULL, NULL), 0);
    assert_int_equal(record_words(&record), 1);
    harness_loop_end(loop);
}

/* ---- ownership ---- */

static void free_and_mark(void *ptr) { record_add(ptr, "free"); }
static int yield_once_and_give(heist_generator *self, void *arg, void **out) {
    int err = heist_generator_yield(self, NULL, NULL);
    *out = arg;
    return err;
}

static void argument_and_result_are_freed_once_on_every_path(void **state) {
    (void)state;
    heist_generator_options opts = HEIST_GENERATOR_OPTIONS_INIT;
    opts.arg_free = free_and_mark;
    for (int steps = 0; steps < 3; steps++) {
        for (int closes = 0; closes < 2; closes++) {
            struct record record = RECORD_INIT;
            heist_generator *g = NULL;
            assert_int_equal(heist_generator_new(yield_once_and_give, &record, &opts, &g), 0);
            for (int i = 0; i < steps; i++) assert_int_equal(heist_generator_next(g, NULL), i ? HEIST_ESTOP : 0);
            assert_int_equal(record_words(&record), steps == 2);
            if (closes) assert_int_equal(heist_generator_close(g), 0);
            heist_generator_unref(g);
            assert_int_equal(record_words(&record), 1);
        }
    }
    opts.arg_free = NULL;
    opts.result_free = free_and_mark;
    for (int steps = 0; steps < 3; steps++) {
        struct record record = RECORD_INIT;
        heist_generator *g = NULL;
        assert_int_equal(heist_generator_new(yield_once_and_give, &record, &opts, &g), 0);
        for (int i = 0; i < steps; i++) assert_int_equal(heist_generator_next(g, NULL), i ? HEIST_ESTOP : 0);
        heist_generator_unref(g);
        assert_int_equal(record_words(&record), steps > 0); /* a body that fails gives none; but it set *out */
    }
}

static void bad_input_is_refused(void **state) {
    (void)state;
    heist_generator *g = NULL;
    struct count c = {1, NULL, 0};
    heist_generator_options opts = HEIST_GENERATOR_OPTIONS_INIT;
    assert_int_equal(heist_generator_new(NULL, NULL, NULL, &g), -EINVAL);
    assert_int_equal(heist_generator_new(count_up, &c, NULL, NULL), -EINVAL);
    opts.flags = 2;
    assert_int_equal(heist_generator_new(count_up, &c, &opts, &g), -EINVAL);
    opts.flags = 0;
    opts.stack_bytes = 1000;
    assert_int_equal(heist_generator_new(count_up, &c, &opts, &g), -EINVAL);
    opts.stack_bytes = (size_t)64 << 20;
    assert_int_equal(heist_generator_new(count_up, &c, &opts, &g), -EINVAL);
    opts.stack_bytes = 0;
    opts.size = 3;
    assert_int_equal(heist_generator_new(count_up, &c, &opts, &g), -EINVAL);
    heist_iterator_ops ops = {sizeof(ops), NULL, NULL, NULL};
    assert_int_equal(heist_generator_of(NULL, NULL, &g), -EINVAL);
    assert_int_equal(heist_generator_of(&ops, NULL, &g), -EINVAL);
    assert_int_equal(heist_generator_of_array(NULL, 3, &g), -EINVAL);
    assert_int_equal(heist_generator_of_array(NULL, 0, NULL), -EINVAL);
    assert_null(g);
    assert_int_equal(heist_generator_next(NULL, NULL), -EINVAL);
    assert_int_equal(heist_generator_send(NULL, NULL, NULL), -EINVAL);
    assert_int_equal(heist_generator_throw(NULL, -EIO, NULL), -EINVAL);
    assert_int_equal(heist_generator_result(NULL, NULL), -EINVAL);
    assert_int_equal(heist_generator_delegate(NULL, NULL, NULL), -EINVAL);
    assert_int_equal(heist_generator_collect(NULL, NULL, NULL, NULL, NULL), -EINVAL);
}

static void no_memory_is_a_code_and_it_can_begin_later(void **state) {
    (void)state;
    struct count c = {3, NULL, 0};
    heist_generator *g = NULL;
    void *value = NULL, *array[] = {&number[1]};
    harness_fail_allocation(1, false);
    assert_int_equal(heist_generator_new(count_up, &c, NULL, &g), -ENOMEM);
    for (long n = 1; n <= 2; n++) {
        harness_fail_allocation(n, false);
        assert_int_equal(heist_generator_of_array(array, 1, &g), -ENOMEM);
    }
    harness_fail_allocation(0, false);
    assert_null(g);
    g = made(count_up, &c);
    harness_fail_allocation(1, true);
    int err = heist_generator_next(g, &value); /* no stack */
    harness_fail_allocation(0, false);
    assert_true(err == 0 || err == -ENOMEM);
    if (err) {
        assert_int_equal(heist_generator_state(g), HEIST_GENERATOR_CREATED);
        assert_int_equal(heist_generator_next(g, &value), 0);
    }
    assert_int_equal(as_int(value), 0);
    void **values = NULL;
    size_t n = 0;
    harness_fail_allocation(1, false);
    assert_int_equal(heist_generator_collect(g, NULL, NULL, &values, &n), -ENOMEM);
    harness_fail_allocation(0, false);
    assert_int_equal(heist_generator_state(g), HEIST_GENERATOR_CLOSED);
    heist_generator_unref(g);
}

static void child_of_a_fork_gets_a_code(void **state) {
    (void)state;
    struct count c = {3, NULL, 0};
    heist_generator *g = made(count_up, &c), *fresh = NULL;
    assert_int_equal(heist_generator_next(g, NULL), 0);
    int ends[2];
    bool good = false;
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) { /* it tells by a pipe: memcheck has a view of its own on the status */
        void *value;
        good = heist_generator_next(g, &value) == HEIST_EFORKED && heist_generator_close(g) == HEIST_EFORKED &&
                    heist_generator_throw(g, -EIO, &value) == HEIST_EFORKED &&
                    heist_generator_new(count_up, &c, NULL, &fresh) == HEIST_EFORKED;
        heist_generator_unref(g);
        _exit(write(ends[1], &good, sizeof good) == sizeof good ? 0 : 1);
    }
    close(ends[1]);
    assert_int_equal(read(ends[0], &good, sizeof good), sizeof good);
    close(ends[0]);
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_true(good);
    assert_int_equal(heist_generator_next(g, NULL), 0);
    heist_generator_unref(g);
}

/* ---- coroutines are functions ---- */

static int inner_call(double seconds, int code, int *out) {
    int err = heist_sleep(seconds);
    if (err) return err;
    *out = 7;
    return code;
}
struct calls {
    int value, good, bad;
    heist_task *task;
    bool same;
    double serial, together;
};
static int sleep_for(void *arg, void **out) {
    (void)out;
    return heist_sleep(*(double *)arg);
}
static int call_coroutines(void *arg, void **out) {
    struct calls *c = arg;
    static double seconds[2] = {1, 2};
    heist_task *t[2];
    (void)out;
    c->task = heist_current_task();
    c->good = inner_call(0.5, 0, &c->value);
    c->bad = inner_call(0.5, -EIO, &c->value);
    c->same = heist_current_task() == c->task;
    double start = heist_time();
    for (int i = 0; i < 2; i++) {
        int err = sleep_for(&seconds[i], NULL);
        if (err) return err;
    }
    c->serial = heist_time() - start;
    start = heist_time();
    for (int i = 0; i < 2; i++) {
        int err = heist_create_task(sleep_for, &seconds[i], NULL, &t[i]);
        if (err) return err;
    }
    for (int i = 0; i < 2; i++) {
        int err = heist_await(t[i], NULL);
        heist_unref(t[i]);
        if (err) return err;
    }
    c->together = heist_time() - start;
    return 0;
}

static void calling_a_coroutine_is_a_call_and_tasks_overlap_CORO_02_CORO_03(void **state) {
    (void)state;
    struct calls c = {.value = 0};
    assert_int_equal(harness_run(call_coroutines, &c, NULL), 0);
    assert_int_equal(c.good, 0);
    assert_int_equal(c.value, 7);
    assert_int_equal(c.bad, -EIO);
    assert_true(c.same);
    assert_true(c.serial > 2.99 && c.serial < 3.01);
    assert_true(c.together > 1.99 && c.together < 2.01);
}

static int nest(int depth) {
    volatile int here = depth;
    int err = depth ? nest(depth - 1) : heist_sleep(1);
    return err ? err : here == depth ? 0 : -EPROTO;
}
static int nest_thousand(void *arg, void **out) {
    (void)out;
    double start = heist_time();
    int err = nest(1000);
    *(double *)arg = heist_time() - start;
    return err;
}

static int make_nest(void *arg, void **out) {
    heist_task_options opts = HEIST_TASK_OPTIONS_INIT;
    heist_task *t;
    (void)out;
    opts.stack_bytes = (size_t)1 << 20;
    int err = heist_create_task(nest_thousand, arg, &opts, &t);
    if (err) return err;
    err = heist_await(t, NULL);
    heist_unref(t);
    return err;
}

static void thousand_nested_calls_suspend_as_one_CORO_04(void **state) {
    (void)state;
    double seconds = 0;
    assert_int_equal(harness_run(make_nest, &seconds, NULL), 0);
    assert_true(seconds > 0.99 && seconds < 1.01);
}

struct account {
    int balance;
    int (*deposit)(void *self, void **out);
};
static int deposit_slowly(void *self, void **out) {
    struct account *a = self;
    int err = heist_sleep(1);
    if (err) return err;
    a->balance += 10;
    *out = &a->balance;
    return 0;
}
static int use_account(void *arg, void **out) {
    struct account *a = arg;
    heist_task *t;
    int err = a->deposit(a, out);
    if (err) return err;
    if ((err = heist_create_task(a->deposit, a, NULL, &t))) return err;
    err = heist_await(t, out);
    heist_unref(t);
    return err;
}

static void method_gets_its_object_CORO_27(void **state) {
    (void)state;
    struct account a = {5, deposit_slowly};
    assert_int_equal(harness_run(use_account, &a, NULL), 0);
    assert_int_equal(a.balance, 25);
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        API_TEST(making_one_runs_nothing_of_the_body_CORO_01),
        API_TEST(four_states_can_be_asked_for_CORO_18),
        API_TEST(next_gives_each_value_then_stop_with_the_return_value_CORO_10_CORO_19),
        API_TEST(failure_comes_once_and_then_it_has_ended_CORO_32),
        API_TEST(stop_of_another_is_no_end_of_its_own),
        API_TEST(nothing_runs_ahead_of_demand_CORO_28),
        API_TEST(send_makes_the_pending_yield_return_the_value_CORO_20_CORO_35),
        API_TEST(throw_arrives_at_the_yield_CORO_11),
        API_TEST(close_runs_the_clean_up_and_later_next_says_stop_CORO_12_CORO_21),
        API_TEST(close_gives_the_code_of_a_clean_up_that_failed),
        API_TEST(body_that_goes_on_after_close_makes_it_fail_CORO_13),
        API_TEST(dropped_body_that_never_ends_leaves_no_stack_CORO_13),
        API_TEST(dropped_one_is_closed),
        API_TEST(running_one_is_busy_CORO_23),
        API_TEST(unshared_one_goes_from_hand_to_hand_and_finds_itself_busy_CORO_23),
        API_TEST(second_thread_finds_it_busy_and_the_next_step_may_be_its_CORO_23),
        API_TEST(yield_outside_its_body_is_refused),
        API_TEST(delegation_passes_everything_through_CORO_17_CORO_24),
        API_TEST(delegation_closes_and_fails_through_CORO_24),
        API_TEST(consumer_and_producer_take_turns_CORO_22),
        API_TEST(foreach_closes_on_every_way_out_and_tells_the_end_from_a_break_CORO_31),
        API_TEST(array_list_and_body_are_driven_alike_CORO_25),
        API_TEST(collect_keeps_order_and_may_await_its_condition_CORO_40),
        API_TEST(await_in_the_body_suspends_the_whole_task_and_others_run_CORO_29_CORO_33),
        API_TEST(next_of_a_suspending_one_says_stop_ever_after_CORO_30),
        API_TEST(send_throw_and_close_wait_for_the_body_CORO_34),
        API_TEST(end_that_is_thrown_closes_an_iterator),
        API_TEST(any_iterator_may_suspend_in_its_next_CORO_41),
        API_TEST(cancel_arrives_in_the_body_which_may_wait_to_clean_up),
        API_TEST(nested_bodies_move_with_their_task),
        API_TEST(tasks_and_threads_may_drive_one_by_turns),
        API_TEST(tasks_of_two_runtimes_may_drive_one_by_turns_under_debug),
        API_TEST(body_may_await_tasks_that_run_in_place),
        API_TEST(stack_of_a_task_that_waits_in_a_body_shows_the_body),
        API_TEST(rounding_belongs_to_the_body),
        API_TEST(callback_may_drive_one_that_does_not_suspend_CORO_06),
        API_TEST(last_unref_closes_without_suspending),
        API_TEST(body_that_ignores_its_drop_is_reported),
        API_TEST(argument_and_result_are_freed_once_on_every_path),
        API_TEST(bad_input_is_refused),
        API_TEST(no_memory_is_a_code_and_it_can_begin_later),
        API_TEST(child_of_a_fork_gets_a_code),
        API_TEST(calling_a_coroutine_is_a_call_and_tasks_overlap_CORO_02_CORO_03),
        API_TEST(thousand_nested_calls_suspend_as_one_CORO_04),
        API_TEST(method_gets_its_object_CORO_27),
    };
    return HARNESS_MAIN("api/generator", tests);
}
