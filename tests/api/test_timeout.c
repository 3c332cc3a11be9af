/* Blocks with a deadline, children that inherit it, and sections that cannot be
 * cancelled.  Rows COMP-31 to COMP-38. */
#include "support/harness.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* What a body saw; the first that was not as it ought to be. */
struct seen {
    int line, got, wanted;
    double seconds;
    int extra[4];
};

/* Inside a body: notes the first difference and goes on. */
static void check_at(struct seen *s, int line, int got, int wanted) {
    if (got == wanted || s->line) return;
    s->line = line;
    s->got = got;
    s->wanted = wanted;
}
#define CHECK(got, wanted) check_at(s, __LINE__, (int)(got), (int)(wanted))

static void play(heist_coro_fn body) {
    struct seen s = {0};
    int err = harness_run(body, &s, NULL);
    if (s.line) fail_msg("line %d: %s (%d) instead of %d", s.line, heist_error_name(s.got), s.got, s.wanted);
    assert_int_equal(err, 0);
}

/* Nothing is left of any request: the task is as if nobody had asked. */
static void untouched(struct seen *s) {
    CHECK(heist_cancelling(heist_current_task()), 0);
    CHECK(heist_yield(), 0);
    CHECK(heist_sleep(0.25), 0);
}

static int took(double start) { return (int)((heist_time() - start) * 1000 + 0.5); }

/* ---- one scope ---- */

static int is_cut_short(void *arg, void **out) {
    struct seen *s = arg;
    (void)out;
    double start = heist_time();
    heist_timeout t = HEIST_TIMEOUT_INIT;
    CHECK(heist_timeout_enter(&t, 2), 0);
    int err = heist_sleep(10);
    CHECK(err, -ECANCELED);
    CHECK(took(start), 2000);
    CHECK(heist_timeout_expired(&t), 1);
    CHECK(heist_timeout_exit(&t, err), -ETIMEDOUT);
    CHECK(heist_timeout_expired(&t), 1);
    untouched(s);
    return 0;
}
static void the_block_is_left_with_a_timeout_COMP_31(void **state) {
    (void)state;
    play(is_cut_short);
}

static int is_in_time(void *arg, void **out) {
    struct seen *s = arg;
    (void)out;
    double start = heist_time();
    for (int i = 0; i < 3; i++) {
        heist_timeout t = HEIST_TIMEOUT_INIT;
        CHECK(heist_timeout_enter(&t, 100), 0);
        CHECK(heist_sleep(1), 0);
        CHECK(heist_timeout_exit(&t, 0), 0);
        CHECK(heist_timeout_expired(&t), 0);
        memset(&t, 0xaa, sizeof t); /* nobody looks at it any more */
        untouched(s);
    }
    CHECK(took(start), 3750);
    CHECK(heist_sleep(200), 0); /* no timer was left to end this */
    return 0;
}
static void a_timeout_that_is_not_reached_leaves_no_trace_COMP_32(void **state) {
    (void)state;
    play(is_in_time);
}

static int has_none_at_first(void *arg, void **out) {
    struct seen *s = arg;
    (void)out;
    heist_timeout t = HEIST_TIMEOUT_INIT;
    CHECK(heist_timeout_enter(&t, HEIST_FOREVER), 0);
    CHECK(isinf(heist_timeout_when(&t)), 1);
    CHECK(heist_sleep(1000), 0);
    double start = heist_time();
    CHECK(heist_timeout_reschedule(&t, start + 5), 0);
    CHECK(heist_sleep(1), 0);
    CHECK(heist_timeout_reschedule(&t, start + 3), 0); /* earlier */
    CHECK(fabs(heist_timeout_when(&t) - (start + 3)) < 1e-6, 1);
    CHECK(heist_timeout_reschedule(&t, HEIST_FOREVER), 0); /* not any more */
    CHECK(heist_sleep(10), 0);
    CHECK(heist_timeout_reschedule(&t, heist_time() + 2), 0);
    start = heist_time();
    int err = heist_sleep(10);
    CHECK(took(start), 2000);
    CHECK(heist_timeout_reschedule(&t, heist_time() + 2), HEIST_EINVALSTATE); /* the time is up */
    CHECK(heist_timeout_exit(&t, err), -ETIMEDOUT);
    CHECK(heist_timeout_reschedule(&t, heist_time() + 2), HEIST_EINVALSTATE);
    untouched(s);
    return 0;
}
static void no_deadline_at_first_and_another_one_later_COMP_33(void **state) {
    (void)state;
    play(has_none_at_first);
}

static int has_an_instant(void *arg, void **out) {
    struct seen *s = arg;
    (void)out;
    double start = heist_time();
    heist_timeout t = HEIST_TIMEOUT_INIT;
    CHECK(heist_timeout_expired(&t), 0);
    CHECK(isinf(heist_timeout_when(&t)), 1);
    CHECK(heist_timeout_enter_at(&t, start + 1.5), 0);
    CHECK(fabs(heist_timeout_when(&t) - (start + 1.5)) < 1e-6, 1);
    CHECK(heist_timeout_expired(&t), 0);
    int err = heist_sleep(3);
    CHECK(took(start), 1500);
    CHECK(heist_timeout_exit(&t, err), -ETIMEDOUT);
    CHECK(fabs(heist_timeout_when(&t) - (start + 1.5)) < 1e-6, 1);
    CHECK(heist_timeout_expired(&t), 1);
    /* One that is past: the first call that may suspend ends, also if it would not have waited. */
    double past[] = {0, -5};
    for (int i = 0; i < 2; i++) {
        heist_timeout p = HEIST_TIMEOUT_INIT;
        CHECK(i ? heist_timeout_enter(&p, past[i]) : heist_timeout_enter_at(&p, heist_time()), 0);
        CHECK(heist_timeout_exit(&p, heist_yield()), -ETIMEDOUT);
        untouched(s);
    }
    /* And without such a call there is nothing left of it. */
    heist_timeout p = HEIST_TIMEOUT_INIT;
    CHECK(heist_timeout_enter(&p, 0), 0);
    CHECK(heist_timeout_exit(&p, 0), 0);
    CHECK(heist_timeout_expired(&p), 1);
    untouched(s);
    return 0;
}
static void an_instant_can_be_given_and_asked_for_COMP_34(void **state) {
    (void)state;
    play(has_an_instant);
}

static int fails_by_itself(void *arg, void **out) {
    struct seen *s = arg;
    (void)out;
    heist_timeout early = HEIST_TIMEOUT_INIT, late = HEIST_TIMEOUT_INIT;
    CHECK(heist_timeout_enter(&early, 5), 0);
    CHECK(heist_timeout_exit(&early, -EIO), -EIO);
    CHECK(heist_timeout_expired(&early), 0);
    CHECK(heist_timeout_enter(&late, 1), 0);
    CHECK(heist_sleep(2), -ECANCELED);
    CHECK(heist_timeout_exit(&late, -EPIPE), -EPIPE); /* what cleaning up came to */
    CHECK(heist_timeout_expired(&late), 1);
    untouched(s);
    return 0;
}
static void another_error_passes_unchanged_COMP_35(void **state) {
    (void)state;
    play(fails_by_itself);
}

/* ---- who has asked ---- */

struct asked {
    struct seen *s;
    double limit;
    int inside, after, cancelling, expired;
};

static int sleeps_in_a_block(void *arg, void **out) {
    struct asked *a = arg;
    (void)out;
    heist_timeout t = HEIST_TIMEOUT_INIT;
    int err = heist_timeout_enter(&t, a->limit);
    if (err) return err;
    a->inside = heist_sleep(100);
    a->after = heist_timeout_exit(&t, a->inside);
    a->expired = heist_timeout_expired(&t);
    a->cancelling = heist_cancelling(heist_current_task());
    return a->after;
}

static int cancels_from_outside(void *arg, void **out) {
    struct seen *s = arg;
    (void)out;
    struct asked a = {.limit = 50};
    heist_task *t = NULL;
    CHECK(heist_create_task(sleeps_in_a_block, &a, NULL, &t), 0);
    CHECK(heist_sleep(1), 0);
    CHECK(heist_cancel(t), 1);
    CHECK(heist_await(t, NULL), -ECANCELED);
    CHECK(heist_future_cancelled(t), 1);
    CHECK(a.inside, -ECANCELED);
    CHECK(a.after, -ECANCELED);
    CHECK(a.expired, 0);
    CHECK(a.cancelling, 1);
    heist_unref(t);
    return 0;
}
static void a_cancel_from_outside_stays_one_COMP_36(void **state) {
    (void)state;
    play(cancels_from_outside);
}

/* Both before the block can see either: the request from outside is not eaten. */
static int is_asked_twice_at_once(void *arg, void **out) {
    struct seen *s = arg;
    (void)out;
    heist_task *self = heist_current_task();
    for (int outside_first = 0; outside_first < 2; outside_first++) {
        heist_timeout t = HEIST_TIMEOUT_INIT;
        if (outside_first) CHECK(heist_cancel(self), 1);
        CHECK(heist_timeout_enter(&t, 0), 0);
        if (!outside_first) CHECK(heist_cancel(self), 1);
        CHECK(heist_cancelling(self), 2);
        int err = heist_sleep(1);
        CHECK(err, -ECANCELED);
        CHECK(heist_timeout_exit(&t, err), -ECANCELED);
        CHECK(heist_cancelling(self), 1);
        CHECK(heist_uncancel(self), 0);
        untouched(s);
    }
    /* The other one undelivered: it comes later. */
    heist_timeout t = HEIST_TIMEOUT_INIT;
    CHECK(heist_timeout_enter(&t, 0), 0);
    CHECK(heist_cancel(self), 1);
    CHECK(heist_timeout_exit(&t, 0), 0);
    CHECK(heist_cancelling(self), 1);
    CHECK(heist_yield(), -ECANCELED);
    CHECK(heist_uncancel(self), 0);
    /* One that was delivered long ago and never taken back is not of this block. */
    CHECK(heist_cancel(self), 1);
    CHECK(heist_yield(), -ECANCELED);
    heist_timeout u = HEIST_TIMEOUT_INIT;
    CHECK(heist_timeout_enter(&u, 1), 0);
    CHECK(heist_timeout_exit(&u, heist_sleep(3)), -ETIMEDOUT);
    CHECK(heist_cancelling(self), 1);
    CHECK(heist_yield(), 0);
    CHECK(heist_uncancel(self), 0);
    untouched(s);
    return 0;
}
static void a_request_from_outside_is_told_from_the_own_COMP_36(void **state) {
    (void)state;
    play(is_asked_twice_at_once);
}

static int callback_enters(void *arg) {
    heist_timeout t = HEIST_TIMEOUT_INIT;
    *(_Atomic(int) *)arg = heist_timeout_enter(&t, 1);
    return 0;
}

static int enters_twice(void *arg, void **out) {
    struct seen *s = arg;
    (void)out;
    heist_timeout t = HEIST_TIMEOUT_INIT;
    CHECK(heist_timeout_exit(&t, 0), HEIST_EINVALSTATE);
    CHECK(heist_timeout_reschedule(&t, 1), HEIST_EINVALSTATE);
    CHECK(heist_timeout_enter(&t, 1), 0);
    CHECK(heist_timeout_enter(&t, 1), HEIST_EINVALSTATE);
    CHECK(heist_timeout_exit(&t, 0), 0);
    CHECK(heist_timeout_enter(&t, 1), HEIST_EINVALSTATE);
    CHECK(heist_timeout_exit(&t, 0), HEIST_EINVALSTATE);
    static _Atomic(int) code;
    heist_loop *loop = NULL;
    code = 0;
    CHECK(heist_get_running_loop(&loop), 0);
    CHECK(heist_loop_call_soon(loop, callback_enters, (void *)&code, NULL, NULL), 0);
    while (!code && !s->line) CHECK(heist_sleep(0.01), 0);
    CHECK(code, HEIST_ENOTASK);
    untouched(s);
    return 0;
}

static int exits_anothers(void *arg, void **out) {
    (void)out;
    return heist_timeout_exit(arg, 0) == HEIST_EINVALSTATE && heist_timeout_reschedule(arg, 1) == HEIST_EINVALSTATE
               ? 0
               : -EPROTO;
}

static int enters_for_another(void *arg, void **out) {
    struct seen *s = arg;
    (void)out;
    heist_timeout t = HEIST_TIMEOUT_INIT;
    heist_task *other = NULL;
    CHECK(heist_timeout_enter(&t, 10), 0);
    CHECK(heist_create_task(exits_anothers, &t, NULL, &other), 0);
    CHECK(heist_await(other, NULL), 0);
    heist_unref(other);
    CHECK(heist_timeout_exit(&t, 0), 0);
    return 0;
}

static void entering_twice_or_outside_a_task_fails_COMP_37(void **state) {
    (void)state;
    play(enters_twice);
    play(enters_for_another);
    heist_timeout t = HEIST_TIMEOUT_INIT;
    assert_int_equal(heist_timeout_enter(&t, 1), HEIST_ENOTASK);
    assert_int_equal(heist_timeout_enter_at(&t, 1), HEIST_ENOTASK);
    assert_int_equal(heist_timeout_exit(&t, 0), HEIST_EINVALSTATE);
    assert_int_equal(heist_with_timeout(1, exits_anothers, NULL, NULL), HEIST_ENOTASK);
    assert_true(isinf(heist_current_deadline()));
}

static void bad_input_is_refused(void **state) {
    (void)state;
    heist_timeout t = HEIST_TIMEOUT_INIT;
    assert_int_equal(heist_timeout_enter(NULL, 1), -EINVAL);
    assert_int_equal(heist_timeout_enter_at(NULL, 1), -EINVAL);
    assert_int_equal(heist_timeout_enter(&t, NAN), -EINVAL);
    assert_int_equal(heist_timeout_enter_at(&t, NAN), -EINVAL);
    assert_int_equal(heist_timeout_exit(NULL, 0), -EINVAL);
    assert_int_equal(heist_timeout_reschedule(NULL, 0), -EINVAL);
    assert_int_equal(heist_timeout_reschedule(&t, NAN), -EINVAL);
    assert_int_equal(heist_timeout_expired(NULL), 0);
    assert_true(isinf(heist_timeout_when(NULL)));
    assert_int_equal(heist_with_timeout(1, NULL, NULL, NULL), -EINVAL);
}

/* ---- nesting ---- */

static int nests(void *arg, void **out) {
    struct seen *s = arg;
    (void)out;
    /* {outer, inner} and what each exit answers. */
    static const struct {
        double outer, inner;
        int inner_code, outer_code, inner_expired, outer_expired;
    } cases[] = {
        {9, 1, -ETIMEDOUT, -ETIMEDOUT, 1, 0},  /* to the outer it is an error as any */
        {1, 9, -ECANCELED, -ETIMEDOUT, 0, 1},  /* the inner passes on what is the outer's */
        {1, 1, -ECANCELED, -ETIMEDOUT, -1, 1}, /* the outer's rings first; the inner's rings, or comes too late */
        {0, 0, -ECANCELED, -ETIMEDOUT, 1, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        heist_timeout outer = HEIST_TIMEOUT_INIT, inner = HEIST_TIMEOUT_INIT;
        CHECK(heist_timeout_enter(&outer, cases[i].outer), 0);
        CHECK(heist_timeout_enter(&inner, cases[i].inner), 0);
        int err = heist_timeout_exit(&inner, heist_sleep(20));
        CHECK(err, cases[i].inner_code);
        CHECK(heist_timeout_exit(&outer, err), cases[i].outer_code);
        CHECK(heist_timeout_expired(&outer), cases[i].outer_expired);
        if (cases[i].inner_expired >= 0) CHECK(heist_timeout_expired(&inner), cases[i].inner_expired);
        untouched(s);
    }
    /* The outer one goes on after the inner one has ended. */
    double start = heist_time();
    heist_timeout outer = HEIST_TIMEOUT_INIT, inner = HEIST_TIMEOUT_INIT;
    CHECK(heist_timeout_enter(&outer, 5), 0);
    CHECK(heist_timeout_enter(&inner, 1), 0);
    CHECK(heist_timeout_exit(&inner, heist_sleep(20)), -ETIMEDOUT);
    int err = heist_sleep(20);
    CHECK(took(start), 5000);
    CHECK(heist_timeout_exit(&outer, err), -ETIMEDOUT);
    untouched(s);
    return 0;
}
static void each_of_nested_blocks_turns_only_its_own_COMP_38(void **state) {
    (void)state;
    play(nests);
}

static int leaves_the_outer_first(void *arg, void **out) {
    struct seen *s = arg;
    (void)out;
    heist_timeout a = HEIST_TIMEOUT_INIT, b = HEIST_TIMEOUT_INIT;
    CHECK(heist_timeout_enter(&a, 1), 0);
    CHECK(heist_timeout_enter(&b, 2), 0);
    CHECK(heist_timeout_exit(&a, 0), 0);
    CHECK(fabs(heist_current_deadline() - heist_timeout_when(&b)) < 1e-6, 1);
    CHECK(heist_timeout_exit(&b, heist_sleep(3)), -ETIMEDOUT);
    CHECK(isinf(heist_current_deadline()), 1);
    untouched(s);
    return 0;
}
static void blocks_may_be_left_in_any_order(void **state) {
    (void)state;
    play(leaves_the_outer_first);
}

/* ---- what the task waits for ---- */

static int sleeps_long(void *arg, void **out) {
    (void)out;
    int err = heist_sleep(1000);
    if (arg) *(int *)arg = err;
    return err;
}

static int awaits_in_a_block(void *arg, void **out) {
    struct seen *s = arg;
    (void)out;
    int child_code = 1;
    heist_task *child = NULL;
    CHECK(heist_create_task(sleeps_long, &child_code, NULL, &child), 0);
    heist_timeout t = HEIST_TIMEOUT_INIT;
    CHECK(heist_timeout_enter(&t, 2), 0);
    CHECK(heist_timeout_exit(&t, heist_await(child, NULL)), -ETIMEDOUT);
    CHECK(child_code, -ECANCELED); /* what is awaited is cancelled, as asyncio does */
    CHECK(heist_future_cancelled(child), 1);
    heist_unref(child);
    heist_future *f = NULL;
    CHECK(heist_future_new(NULL, &f), 0);
    heist_timeout u = HEIST_TIMEOUT_INIT;
    CHECK(heist_timeout_enter(&u, 2), 0);
    CHECK(heist_timeout_exit(&u, heist_await_until(f, HEIST_FOREVER, NULL)), -ETIMEDOUT);
    CHECK(heist_future_done(f), 0);
    CHECK(heist_future_set_result(f, NULL, NULL), 0);
    heist_unref(f);
    untouched(s);
    return 0;
}
static void what_is_awaited_in_the_block_is_cancelled_COMP_31(void **state) {
    (void)state;
    play(awaits_in_a_block);
}

static int answers(void *arg, void **out) {
    int err = heist_sleep(*(double *)arg);
    *out = arg;
    return err;
}
static int calls_with_timeout(void *arg, void **out) {
    struct seen *s = arg;
    (void)out;
    double one = 1;
    void *got = NULL;
    CHECK(heist_with_timeout(2, answers, &one, &got), 0);
    CHECK(got == &one, 1);
    got = NULL;
    CHECK(heist_with_timeout(0.5, answers, &one, &got), -ETIMEDOUT);
    CHECK(got == NULL, 1);
    CHECK(heist_with_timeout(2, answers, &one, NULL), 0);
    untouched(s);
    return 0;
}
static void a_function_runs_as_a_block(void **state) {
    (void)state;
    play(calls_with_timeout);
}

/* Many tasks whose end and whose time-out come at the same instant. */
#define RACERS 200
static int races(void *arg, void **out) {
    struct seen *s = arg;
    (void)out;
    for (int i = 0; i < 20; i++) {
        heist_timeout t = HEIST_TIMEOUT_INIT;
        CHECK(heist_timeout_enter(&t, 0.001), 0);
        int err = heist_timeout_exit(&t, heist_sleep(0.001));
        CHECK(err == 0 || err == -ETIMEDOUT, 1);
        CHECK(heist_cancelling(heist_current_task()), 0);
        CHECK(heist_yield(), 0);
    }
    return 0;
}
static int starts_racers(void *arg, void **out) {
    struct seen *s = arg;
    (void)out;
    static struct seen each[RACERS];
    heist_task *t[RACERS];
    memset(each, 0, sizeof each);
    for (int i = 0; i < RACERS; i++) CHECK(heist_create_task(races, &each[i], NULL, &t[i]), 0);
    CHECK(heist_gather(t, RACERS, NULL, 0), 0);
    for (int i = 0; i < RACERS; i++) {
        if (each[i].line && !s->line) *s = each[i];
        heist_unref(t[i]);
    }
    return 0;
}
static void no_request_is_left_when_the_end_and_the_deadline_meet_COMP_32(void **state) {
    (void)state;
    play(starts_racers);
}

/* ---- children that inherit ---- */

struct child {
    double deadline;
    int code;
};
static int notes_deadline(void *arg, void **out) {
    struct child *c = arg;
    (void)out;
    c->deadline = heist_current_deadline();
    return c->code = heist_sleep(100);
}
static int makes_child(struct child *c, unsigned flags, heist_task **out) {
    heist_task_options o = HEIST_TASK_OPTIONS_INIT;
    o.flags = flags;
    o.name = flags ? "heir" : NULL;
    return heist_create_task(notes_deadline, c, &o, out);
}

static int has_heirs(void *arg, void **out) {
    struct seen *s = arg;
    (void)out;
    double start = heist_time();
    heist_timeout outer = HEIST_TIMEOUT_INIT, inner = HEIST_TIMEOUT_INIT;
    struct child c[3] = {{0}};
    heist_task *t[3] = {0};
    CHECK(makes_child(&c[0], HEIST_TASK_INHERIT_DEADLINE, &t[0]), 0); /* nothing to inherit */
    CHECK(heist_timeout_enter(&outer, 2), 0);
    CHECK(heist_timeout_enter(&inner, 5), 0); /* the earliest counts */
    CHECK(makes_child(&c[1], HEIST_TASK_INHERIT_DEADLINE, &t[1]), 0);
    CHECK(makes_child(&c[2], 0, &t[2]), 0); /* does not ask */
    CHECK(heist_timeout_exit(&inner, 0), 0);
    CHECK(heist_timeout_exit(&outer, 0), 0); /* it has it all the same */
    CHECK(heist_await(t[1], NULL), -ETIMEDOUT);
    CHECK(took(start), 2000);
    CHECK(heist_future_cancelled(t[1]), 0);
    char name[16];
    CHECK(heist_task_name(t[1], name, sizeof name), 4);
    CHECK(strcmp(name, "heir"), 0);
    CHECK(fabs(c[1].deadline - (start + 2)) < 1e-6, 1);
    CHECK(c[1].code, -ECANCELED);
    CHECK(heist_await(t[2], NULL), 0);
    CHECK(heist_await(t[0], NULL), 0);
    CHECK(isinf(c[0].deadline) && isinf(c[2].deadline), 1);
    for (int i = 0; i < 3; i++) heist_unref(t[i]);
    return 0;
}

static int grandchild(void *arg, void **out) {
    struct seen *s = arg;
    (void)out;
    struct child c = {0};
    heist_task *t = NULL;
    CHECK(heist_sleep(1), 0);
    CHECK(makes_child(&c, HEIST_TASK_INHERIT_DEADLINE, &t), 0);
    CHECK(heist_await_until(t, HEIST_FOREVER, NULL), -ECANCELED); /* our own time is up too, at the same instant */
    while (!heist_future_done(t)) heist_await_until(t, HEIST_FOREVER, NULL);
    CHECK(heist_future_result(t, NULL), -ETIMEDOUT);
    heist_unref(t);
    return -ECANCELED;
}
static int has_a_grandchild(void *arg, void **out) {
    struct seen *s = arg;
    (void)out;
    double start = heist_time();
    heist_task_options o = HEIST_TASK_OPTIONS_INIT;
    o.flags = HEIST_TASK_INHERIT_DEADLINE;
    heist_timeout t = HEIST_TIMEOUT_INIT;
    heist_task *child = NULL;
    struct seen inner = {0};
    CHECK(heist_timeout_enter(&t, 3), 0);
    CHECK(heist_create_task(grandchild, &inner, &o, &child), 0);
    CHECK(heist_timeout_exit(&t, 0), 0);
    int err = heist_await(child, NULL);
    CHECK(took(start), 3000);
    CHECK(err, -ETIMEDOUT);
    /* Which of the two is told first is open: its end, or its own time. */
    if (inner.line && inner.got != -ETIMEDOUT) *s = inner;
    heist_unref(child);
    return 0;
}
/* With a context of its own too; and its coroutine is the one that it was made of. */
static int has_an_heir_with_context(void *arg, void **out) {
    struct seen *s = arg;
    (void)out;
    double start = heist_time();
    heist_context *context = NULL;
    CHECK(heist_context_copy(NULL, &context), 0);
    heist_task_options o = HEIST_TASK_OPTIONS_INIT;
    o.flags = HEIST_TASK_INHERIT_DEADLINE;
    heist_timeout t = HEIST_TIMEOUT_INIT;
    CHECK(heist_timeout_enter(&t, 2), 0);
    for (int given = 0; given < 2; given++) {
        struct child c = {0};
        heist_task *heir = NULL;
        o.context = given ? context : NULL;
        CHECK(heist_create_task(notes_deadline, &c, &o, &heir), 0);
        CHECK(heist_task_coro(heir) == notes_deadline, 1);
        CHECK(heist_sleep(0.5), 0);
        CHECK(fabs(c.deadline - (start + 2)) < 1e-6, 1);
        heist_cancel(heir); /* from outside: that stays -ECANCELED */
        CHECK(heist_await_until(heir, HEIST_FOREVER, NULL), -ECANCELED);
        CHECK(heist_future_cancelled(heir), 1);
        heist_unref(heir);
    }
    CHECK(heist_timeout_exit(&t, 0), 0);
    heist_context_unref(context);
    return 0;
}

static void a_child_that_asks_has_its_makers_deadline(void **state) {
    (void)state;
    play(has_heirs);
    play(has_a_grandchild);
    play(has_an_heir_with_context);
}

/* ---- uncancellable sections ---- */

struct careful {
    struct seen *s;
    int in_section, after, count;
    _Atomic(int) at;
};

static int is_careful(void *arg, void **out) {
    struct careful *c = arg;
    struct seen *s = c->s;
    (void)out;
    CHECK(heist_uncancellable_begin(), 0);
    CHECK(heist_uncancellable_begin(), 0);
    c->at = 1;
    c->in_section = heist_sleep(5); /* the request comes here */
    CHECK(heist_cancelling(heist_current_task()), 1);
    CHECK(heist_uncancellable_end(), 0);
    CHECK(heist_yield(), 0); /* still in the outer one */
    heist_future *f = NULL;
    CHECK(heist_future_new(NULL, &f), 0);
    CHECK(heist_await_until(f, heist_time() + 1, NULL), -ETIMEDOUT); /* deadlines hold */
    heist_unref(f);
    CHECK(heist_uncancellable_end(), 0);
    CHECK(heist_uncancellable_end(), HEIST_EINVALSTATE);
    c->after = heist_sleep(5);
    CHECK(heist_yield(), 0); /* once */
    return c->after;
}
static int cancels_the_careful(void *arg, void **out) {
    struct seen *s = arg;
    (void)out;
    struct careful c = {.s = s, .in_section = 1, .after = 1};
    heist_task *t = NULL;
    double start = heist_time();
    CHECK(heist_create_task(is_careful, &c, NULL, &t), 0);
    CHECK(heist_sleep(1), 0);
    CHECK(heist_cancel(t), 1);
    CHECK(heist_await_until(t, HEIST_FOREVER, NULL), -ECANCELED);
    CHECK(took(start), 6000);
    CHECK(c.in_section, 0);
    CHECK(c.after, -ECANCELED);
    heist_unref(t);
    return 0;
}
static void a_request_is_held_until_the_section_ends(void **state) {
    (void)state;
    play(cancels_the_careful);
}

static int has_sections(void *arg, void **out) {
    struct seen *s = arg;
    (void)out;
    heist_task *self = heist_current_task();
    /* A request from before is held as well. */
    CHECK(heist_cancel(self), 1);
    CHECK(heist_uncancellable_begin(), 0);
    CHECK(heist_sleep(1), 0);
    CHECK(heist_uncancellable_end(), 0);
    CHECK(heist_sleep(1), -ECANCELED);
    CHECK(heist_uncancel(self), 0);
    /* What is taken back in the section never comes. */
    CHECK(heist_uncancellable_begin(), 0);
    CHECK(heist_cancel(self), 1);
    CHECK(heist_uncancel(self), 0);
    CHECK(heist_uncancellable_end(), 0);
    untouched(s);
    /* A time-out is held; the block has ended before it could be told. */
    double start = heist_time();
    heist_timeout t = HEIST_TIMEOUT_INIT;
    CHECK(heist_timeout_enter(&t, 1), 0);
    CHECK(heist_uncancellable_begin(), 0);
    CHECK(heist_sleep(3), 0);
    CHECK(took(start), 3000);
    CHECK(heist_uncancellable_end(), 0);
    CHECK(heist_timeout_expired(&t), 1);
    CHECK(heist_timeout_exit(&t, 0), 0);
    untouched(s);
    /* The same, told after the section. */
    heist_timeout u = HEIST_TIMEOUT_INIT;
    CHECK(heist_timeout_enter(&u, 1), 0);
    CHECK(heist_uncancellable_begin(), 0);
    CHECK(heist_sleep(3), 0);
    CHECK(heist_uncancellable_end(), 0);
    CHECK(heist_timeout_exit(&u, heist_yield()), -ETIMEDOUT);
    untouched(s);
    /* What the task awaits in the section is not asked either. */
    int child_code = 1;
    heist_task *child = NULL;
    double two = 2;
    CHECK(heist_create_task(answers, &two, NULL, &child), 0);
    CHECK(heist_uncancellable_begin(), 0);
    CHECK(heist_cancel(self), 1);
    CHECK(heist_await(child, NULL), 0);
    CHECK(heist_future_cancelled(child), 0);
    heist_unref(child);
    CHECK(heist_uncancellable_end(), 0);
    CHECK(heist_create_task(sleeps_long, &child_code, NULL, &child), 0);
    CHECK(heist_await(child, NULL), -ECANCELED); /* it goes on to what is awaited now */
    heist_unref(child);
    CHECK(heist_uncancel(self), 0);
    /* They nest, but not for ever. */
    for (int i = 0; i < 255; i++) CHECK(heist_uncancellable_begin(), 0);
    CHECK(heist_uncancellable_begin(), -EOVERFLOW);
    CHECK(heist_cancelling(self), 0);
    for (int i = 0; i < 255; i++) CHECK(heist_uncancellable_end(), 0);
    CHECK(heist_uncancellable_end(), HEIST_EINVALSTATE);
    untouched(s);
    return 0;
}
static void sections_nest_and_hold_every_kind_of_request(void **state) {
    (void)state;
    play(has_sections);
    assert_int_equal(heist_uncancellable_begin(), 0); /* a plain thread cannot be cancelled anyhow */
    assert_int_equal(heist_uncancellable_end(), 0);
}

struct stubborn {
    _Atomic(int) inside, let_go;
    heist_future *gate;
    struct record record;
};
static int does_not_let_itself_be_asked(void *arg, void **out) {
    struct stubborn *b = arg;
    (void)out;
    heist_uncancellable_begin();
    b->inside = 1;
    heist_await(b->gate, NULL);
    heist_uncancellable_end();
    return heist_sleep(1000);
}
static void note_report(heist_loop *loop, const heist_report *report, void *user) {
    (void)loop;
    record_add(user, "%s", report->name ? report->name : "?");
}
static void a_close_with_a_deadline_reports_who_is_in_a_section(void **state) {
    (void)state;
    static struct stubborn b;
    b = (struct stubborn){.record = RECORD_INIT};
    heist_runtime_options o = HEIST_RUNTIME_OPTIONS_INIT;
    o.workers = harness_workers();
    o.exception_handler = note_report;
    o.exception_user = &b.record;
    heist_runtime *rt = NULL;
    assert_int_equal(heist_runtime_new(&o, &rt), 0);
    assert_int_equal(heist_future_new(NULL, &b.gate), 0);
    heist_task_options to = HEIST_TASK_OPTIONS_INIT;
    to.name = "stubborn";
    heist_task *t = NULL;
    assert_int_equal(heist_runtime_run_coroutine(rt, does_not_let_itself_be_asked, &b, &to, &t), 0);
    while (!b.inside) heist_sleep(0.001);
    assert_int_equal(heist_runtime_close(rt, 0.05), -ETIMEDOUT);
    assert_non_null(strstr(record_text(&b.record), "stubborn"));
    assert_int_equal(heist_future_set_result(b.gate, NULL, NULL), 0);
    assert_int_equal(heist_runtime_close(rt, HEIST_FOREVER), 0); /* asked once, and told after the section */
    assert_int_equal(heist_future_cancelled(t), 1);
    heist_unref(t);
    heist_unref(b.gate);
    heist_runtime_unref(rt);
}

/* ---- no memory ---- */

static int out_of_memory(void *arg, void **out) {
    struct seen *s = arg;
    (void)out;
    heist_timeout t = HEIST_TIMEOUT_INIT;
    harness_fail_allocation(1, false);
    int err = heist_timeout_enter(&t, 1);
    harness_fail_allocation(0, false);
    CHECK(err, -ENOMEM);
    CHECK(heist_timeout_enter(&t, 1), 0); /* as if nothing had been */
    struct child c = {0};
    heist_task *child = NULL;
    harness_fail_allocation(1, true);
    err = makes_child(&c, HEIST_TASK_INHERIT_DEADLINE, &child);
    harness_fail_allocation(0, false);
    CHECK(err, -ENOMEM);
    CHECK(child == NULL, 1);
    CHECK(heist_timeout_exit(&t, heist_sleep(2)), -ETIMEDOUT);
    untouched(s);
    return 0;
}
static void no_memory_is_a_code_at_the_entry(void **state) {
    (void)state;
    play(out_of_memory);
}

/* Time and somebody else's request: whichever came first, what is behind the block is told once. */
static int told_once(void *arg, void **out) {
    struct seen *s = arg;
    (void)out;
    heist_task *self = heist_current_task();
    for (int nested = 0; nested < 2; nested++) {
        for (int first = 0; first < 2; first++) {
            heist_timeout outer = HEIST_TIMEOUT_INIT, t = HEIST_TIMEOUT_INIT;
            CHECK(heist_timeout_enter(&outer, HEIST_FOREVER), 0);
            CHECK(heist_timeout_enter(&t, HEIST_FOREVER), 0);
            heist_timeout *late = nested ? &outer : &t;
            if (first) CHECK(heist_timeout_reschedule(late, heist_time() - 1), 0);
            else CHECK(heist_cancel(self), 1);
            int err = heist_yield();
            CHECK(err, -ECANCELED);
            if (first) CHECK(heist_cancel(self), 1);
            else CHECK(heist_timeout_reschedule(late, heist_time() - 1), 0);
            CHECK(heist_cancelling(self), 2);
            CHECK(heist_timeout_exit(&outer, heist_timeout_exit(&t, err)), -ECANCELED);
            CHECK(heist_cancelling(self), 1);
            CHECK(heist_yield(), 0);
            CHECK(heist_uncancel(self), 0);
            untouched(s);
        }
    }
    return 0;
}
static void a_request_beside_the_time_is_delivered_once_COMP_36(void **state) {
    (void)state;
    play(told_once);
}

/* A request that its task has been told of, and has swallowed, leaves nothing to be told. */
static int swallows(void *arg, void **out) {
    struct seen *s = arg;
    (void)out;
    heist_task *self = heist_current_task();
    for (int nested = 0; nested < 2; nested++) { /* told of somebody else's; the block's own is pending at the end */
        heist_timeout outer = HEIST_TIMEOUT_INIT, t = HEIST_TIMEOUT_INIT;
        CHECK(heist_timeout_enter(&outer, HEIST_FOREVER), 0);
        CHECK(heist_timeout_enter(&t, HEIST_FOREVER), 0);
        CHECK(heist_cancel(self), 1);
        CHECK(heist_yield(), -ECANCELED);
        CHECK(heist_timeout_reschedule(&t, heist_time() - 1), 0);
        if (nested) CHECK(heist_timeout_reschedule(&outer, heist_time() - 1), 0);
        CHECK(heist_timeout_exit(&t, 0), 0);
        CHECK(heist_cancelling(self), 1 + nested);
        CHECK(heist_timeout_exit(&outer, 0), 0);
        CHECK(heist_cancelling(self), 1);
        CHECK(heist_yield(), 0);
        CHECK(heist_uncancel(self), 0);
        untouched(s);
    }
    for (int told = 0; told < 2; told++) { /* somebody else's is pending: with the block's own, or after it */
        heist_timeout t = HEIST_TIMEOUT_INIT;
        CHECK(heist_timeout_enter(&t, 0), 0);
        if (told) CHECK(heist_yield(), -ECANCELED);
        CHECK(heist_cancel(self), 1);
        CHECK(heist_timeout_exit(&t, 0), 0);
        CHECK(heist_yield(), -ECANCELED);
        CHECK(heist_uncancel(self), 0);
        untouched(s);
    }
    /* The same within a section, where requests are held. */
    heist_timeout t = HEIST_TIMEOUT_INIT;
    CHECK(heist_timeout_enter(&t, HEIST_FOREVER), 0);
    CHECK(heist_cancel(self), 1);
    CHECK(heist_yield(), -ECANCELED);
    CHECK(heist_uncancellable_begin(), 0);
    CHECK(heist_timeout_reschedule(&t, heist_time() - 1), 0);
    CHECK(heist_timeout_exit(&t, 0), 0);
    CHECK(heist_uncancellable_end(), 0);
    CHECK(heist_uncancel(self), 0);
    untouched(s);
    return 0;
}
static void what_was_swallowed_is_not_told_behind_the_block_COMP_36(void **state) {
    (void)state;
    play(swallows);
}

/* ---- a block in a generator's body ---- */

struct limited {
    double limit;
    int code, left;
};
static int body_with_limit(heist_generator *g, void *arg, void **out) {
    struct limited *l = arg;
    heist_timeout t = HEIST_TIMEOUT_INIT;
    (void)out;
    int err = heist_timeout_enter(&t, l->limit);
    if (err) return err;
    err = heist_generator_yield(g, NULL, NULL);
    l->code = heist_timeout_exit(&t, err);
    l->left++;
    return l->code;
}
static heist_generator *limited_generator(struct seen *s, struct limited *l) {
    heist_generator *g = NULL;
    CHECK(heist_generator_new(body_with_limit, l, NULL, &g), 0);
    return g;
}

static int drives(void *arg, void **out) { return heist_generator_next(arg, out); }

/* Enters, then sleeps for long: the limit is its own as long as the body stands in the block. */
struct enters {
    heist_generator *generator;
    int slept, requests;
};
static int enters_and_sleeps(void *arg, void **out) {
    struct enters *e = arg;
    (void)out;
    int err = heist_generator_next(e->generator, NULL);
    e->slept = heist_sleep(10);
    heist_sleep(10);
    e->requests = heist_cancelling(heist_current_task());
    return err;
}

static int is_driven_by_another(void *arg, void **out) {
    struct seen *s = arg;
    (void)out;
    for (int late = 0; late < 2; late++) {
        struct limited l = {.limit = 2, .code = 1};
        struct enters e = {limited_generator(s, &l), 1, -1};
        heist_task *first = NULL;
        CHECK(heist_create_task(enters_and_sleeps, &e, NULL, &first), 0);
        CHECK(heist_sleep(late ? 3 : 1), 0);
        CHECK(heist_generator_next(e.generator, NULL), HEIST_ESTOP); /* leaves the block, for the other */
        CHECK(l.code, 0);
        CHECK(l.left, 1);
        CHECK(heist_await(first, NULL), 0);
        CHECK(e.slept, late ? -ECANCELED : 0);
        CHECK(e.requests, 0); /* the request of the block went with it */
        heist_unref(first);
        heist_generator_unref(e.generator);
        untouched(s);
    }
    /* The one that entered is gone, and its memory another's by now. */
    for (int dropped = 0; dropped < 2; dropped++) {
        struct limited l = {.limit = 2, .code = 1};
        heist_generator *g = limited_generator(s, &l);
        heist_task *first = NULL, *next = NULL;
        CHECK(heist_create_task(drives, g, NULL, &first), 0);
        CHECK(heist_await(first, NULL), 0);
        heist_unref(first);
        double ten = 10;
        CHECK(heist_create_task(answers, &ten, NULL, &next), 0);
        CHECK(heist_sleep(dropped ? 1 : 3), 0);
        if (!dropped) CHECK(heist_generator_next(g, NULL), HEIST_ESTOP);
        heist_generator_unref(g); /* ends a body that stands at its yield */
        CHECK(l.left, 1);
        CHECK(l.code, dropped ? HEIST_EGENEXIT : 0);
        CHECK(heist_await(next, NULL), 0);
        heist_unref(next);
        untouched(s);
    }
    return 0;
}
static void a_block_in_a_generator_is_left_by_whoever_drives_it_on(void **state) {
    (void)state;
    play(is_driven_by_another);
}

static void nothing_stays_armed_on_a_loop_that_was_closed(void **state) {
    (void)state;
    for (int reached = 0; reached < 2; reached++) {
        heist_loop *loop = harness_loop();
        struct seen seen = {0}, *s = &seen;
        struct limited l = {.limit = reached ? 0 : 2, .code = 1};
        heist_generator *g = limited_generator(s, &l);
        heist_task *t = NULL;
        assert_int_equal(heist_loop_create_task(loop, drives, g, NULL, &t), 0);
        assert_int_equal(heist_loop_run_until_complete(loop, t, NULL), 0);
        heist_unref(t);
        harness_loop_end(loop);
        assert_int_equal(heist_generator_next(g, NULL), HEIST_ESTOP); /* this thread leaves the block */
        assert_int_equal(l.left, 1);
        heist_generator_unref(g);
        assert_int_equal(seen.line, 0);
    }
}

/* ---- sections that straddle ---- */

static int straddles(void *arg, void **out) {
    struct seen *s = arg;
    (void)out;
    heist_task *self = heist_current_task();
    CHECK(heist_uncancellable_begin(), 0);
    CHECK(heist_cancel(self), 1);
    CHECK(heist_blocking_begin(), 0);
    CHECK(heist_uncancellable_begin(), 0);
    CHECK(heist_uncancellable_end(), 0);
    CHECK(heist_uncancellable_end(), 0); /* begun before the task told that it blocks */
    CHECK(heist_uncancellable_end(), HEIST_EINVALSTATE);
    CHECK(heist_blocking_end(), 0);
    CHECK(heist_yield(), -ECANCELED);
    CHECK(heist_uncancel(self), 0);

    CHECK(heist_blocking_begin(), 0);
    CHECK(heist_uncancellable_begin(), 0);
    CHECK(heist_cancel(self), 1);
    CHECK(heist_blocking_end(), 0);
    CHECK(heist_yield(), 0); /* still in it */
    CHECK(heist_uncancellable_end(), 0);
    CHECK(heist_yield(), -ECANCELED);
    CHECK(heist_uncancel(self), 0);
    untouched(s);
    return 0;
}
static void a_section_belongs_to_its_task_also_while_that_blocks(void **state) {
    (void)state;
    play(straddles);
}

static const struct CMUnitTest tests[] = {
    API_TEST(the_block_is_left_with_a_timeout_COMP_31),
    API_TEST(a_timeout_that_is_not_reached_leaves_no_trace_COMP_32),
    API_TEST(no_deadline_at_first_and_another_one_later_COMP_33),
    API_TEST(an_instant_can_be_given_and_asked_for_COMP_34),
    API_TEST(another_error_passes_unchanged_COMP_35),
    API_TEST(a_cancel_from_outside_stays_one_COMP_36),
    API_TEST(a_request_from_outside_is_told_from_the_own_COMP_36),
    API_TEST(entering_twice_or_outside_a_task_fails_COMP_37),
    API_TEST(bad_input_is_refused),
    API_TEST(each_of_nested_blocks_turns_only_its_own_COMP_38),
    API_TEST(blocks_may_be_left_in_any_order),
    API_TEST(what_is_awaited_in_the_block_is_cancelled_COMP_31),
    API_TEST(a_function_runs_as_a_block),
    API_TEST(no_request_is_left_when_the_end_and_the_deadline_meet_COMP_32),
    API_TEST(a_child_that_asks_has_its_makers_deadline),
    API_TEST(a_request_is_held_until_the_section_ends),
    API_TEST(a_request_beside_the_time_is_delivered_once_COMP_36),
    API_TEST(what_was_swallowed_is_not_told_behind_the_block_COMP_36),
    API_TEST(a_block_in_a_generator_is_left_by_whoever_drives_it_on),
    API_TEST(nothing_stays_armed_on_a_loop_that_was_closed),
    API_TEST(a_section_belongs_to_its_task_also_while_that_blocks),
    API_TEST(sections_nest_and_hold_every_kind_of_request),
    API_TEST(a_close_with_a_deadline_reports_who_is_in_a_section),
    API_TEST(no_memory_is_a_code_at_the_entry),
};

int main(void) { return HARNESS_MAIN("timeout", tests); }
