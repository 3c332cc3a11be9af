/* Groups: no task outlives its block, every failure is told, and who cancelled whom is
 * kept apart.  Rows COMP-42 to COMP-51. */
#include "support/harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct seen {
    int line, got, wanted;
};

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

static void untouched(struct seen *s) {
    CHECK(heist_cancelling(heist_current_task()), 0);
    CHECK(heist_yield(), 0);
    CHECK(heist_sleep(0.25), 0);
}

static int took(double start) { return (int)((heist_time() - start) * 1000 + 0.5); }

/* A child: sleeps, then ends with its code; a stubborn one goes on when it is asked to cancel. */
struct child {
    double seconds;
    int code;
    bool stubborn;
    _Atomic(int) begun, ended, was_cancelled;
};

static int child_body(void *arg, void **out) {
    struct child *c = arg;
    (void)out;
    c->begun = 1;
    int err = heist_sleep(c->seconds);
    if (err == -ECANCELED) c->was_cancelled = 1;
    if (err == -ECANCELED && c->stubborn) {
        heist_sleep(1);
        err = 0;
    }
    c->ended = 1;
    if (err < 0) return err;
    return c->code ? heist_fail(c->code, "after %g s", c->seconds) : 0;
}

static heist_group *entered(struct seen *s) {
    heist_group *g = NULL;
    CHECK(heist_group_new(&g), 0);
    CHECK(heist_group_enter(g), 0);
    return g;
}

/* ---- waiting ---- */

static int waits_for_all(void *arg, void **out) {
    struct seen *s = arg;
    (void)out;
    double start = heist_time();
    struct child c[3] = {{.seconds = 1}, {.seconds = 4}, {.seconds = 2}};
    heist_group *g = entered(s);
    heist_task *kept = NULL;
    for (int i = 0; i < 3; i++) CHECK(heist_group_create_task(g, child_body, &c[i], NULL, i == 1 ? &kept : NULL), 0);
    CHECK(heist_group_count(g), 3);
    CHECK(heist_sleep(1.5), 0);
    CHECK(heist_group_count(g), 2); /* who has ended is forgotten */
    CHECK(heist_group_failures(g), HEIST_EINVALSTATE);
    CHECK(heist_group_exit(g, 0), 0);
    CHECK(took(start), 4000);
    for (int i = 0; i < 3; i++) CHECK(c[i].ended, 1);
    CHECK(heist_future_done(kept), 1);
    CHECK(heist_group_count(g), 0);
    CHECK(heist_group_failures(g), 0);
    heist_unref(kept);
    heist_group_unref(g);
    g = entered(s); /* one without children */
    CHECK(heist_group_exit(g, 0), 0);
    heist_group_unref(g);
    untouched(s);
    return 0;
}
static void the_exit_waits_for_all_children_COMP_42(void **state) {
    (void)state;
    play(waits_for_all);
}

/* ---- failing ---- */

static int one_fails(void *arg, void **out) {
    struct seen *s = arg;
    (void)out;
    double start = heist_time();
    struct child c[4] = {
        {.seconds = 100}, {.seconds = 2, .code = -EPIPE}, {.seconds = 1}, {.seconds = 50, .stubborn = true}};
    heist_group *g = entered(s);
    heist_task_options o = HEIST_TASK_OPTIONS_INIT;
    o.name = "the one";
    for (int i = 0; i < 4; i++) CHECK(heist_group_create_task(g, child_body, &c[i], i == 1 ? &o : NULL, NULL), 0);
    int err = heist_sleep(500);
    CHECK(err, -ECANCELED); /* the body is asked too */
    CHECK(took(start), 2000);
    CHECK(heist_group_exit(g, err), HEIST_EGROUP);
    CHECK(took(start), 3000); /* the stubborn one was waited for */
    CHECK(c[0].was_cancelled && c[0].ended && c[3].was_cancelled && c[3].ended, 1);
    CHECK(c[2].was_cancelled, 0);
    CHECK(heist_group_failures(g), 1);
    heist_group_failure f = HEIST_GROUP_FAILURE_INIT;
    CHECK(heist_group_failure_at(g, 0, &f), 0);
    CHECK(f.code, -EPIPE);
    CHECK(strcmp(f.name, "the one"), 0);
    CHECK(strcmp(f.message, "after 2 s"), 0);
    CHECK(f.file != NULL && f.line > 0 && f.task != NULL, 1);
    CHECK(heist_group_failure_at(g, 1, &f), -ERANGE);
    CHECK(heist_group_create_task(g, child_body, &c[0], NULL, NULL), HEIST_ESHUTDOWN);
    heist_group_unref(g);
    untouched(s); /* COMP-45: nothing is left of the group's request */
    return 0;
}
static void the_first_failure_cancels_siblings_and_body_COMP_43_COMP_45(void **state) {
    (void)state;
    play(one_fails);
}

static int many_fail(void *arg, void **out) {
    struct seen *s = arg;
    (void)out;
    struct child c[3] = {{.seconds = 3, .code = -EIO}, {.seconds = 3, .code = -EPIPE}, {.seconds = 3, .code = -EPROTO}};
    heist_group *g = entered(s);
    /* All of them wait for one thing, so that none can be cancelled before it fails. */
    for (int i = 0; i < 3; i++) CHECK(heist_group_create_task(g, child_body, &c[i], NULL, NULL), 0);
    int err = heist_group_exit(g, heist_sleep(10));
    CHECK(err, HEIST_EGROUP);
    int n = heist_group_failures(g), ended_with_code = 0;
    for (int i = 0; i < n; i++) {
        heist_group_failure f = HEIST_GROUP_FAILURE_INIT;
        CHECK(heist_group_failure_at(g, (size_t)i, &f), 0);
        CHECK(f.code == -EIO || f.code == -EPIPE || f.code == -EPROTO, 1);
    }
    for (int i = 0; i < 3; i++) ended_with_code += !c[i].was_cancelled;
    CHECK(n, ended_with_code); /* each that failed is told, and none twice */
    heist_group_unref(g);
    untouched(s);
    return 0;
}

static int fails_whatever_happens(void *arg, void **out) {
    struct child *c = arg;
    (void)out;
    heist_sleep(c->seconds);
    return heist_fail(c->code, "all the same");
}
static int all_fail(void *arg, void **out) {
    struct seen *s = arg;
    (void)out;
    struct child c[3] = {{.seconds = 3, .code = -EPROTO}, {.seconds = 1, .code = -EIO}, {.seconds = 2, .code = -EPIPE}};
    heist_group *g = entered(s);
    for (int i = 0; i < 3; i++) CHECK(heist_group_create_task(g, fails_whatever_happens, &c[i], NULL, NULL), 0);
    CHECK(heist_sleep(0.5), 0); /* they sleep */
    CHECK(heist_group_exit(g, heist_fail(-EBUSY, "the body itself")), HEIST_EGROUP);
    CHECK(heist_group_failures(g), 4);
    int sum = 0;
    heist_group_failure f = HEIST_GROUP_FAILURE_INIT;
    for (size_t i = 0; i < 3; i++) {
        CHECK(heist_group_failure_at(g, i, &f), 0);
        CHECK(strcmp(f.message, "all the same"), 0);
        sum += f.code;
    }
    CHECK(sum, -EPROTO - EIO - EPIPE);
    CHECK(heist_group_failure_at(g, 3, &f), 0); /* the body comes last */
    CHECK(f.code, -EBUSY);
    CHECK(strcmp(f.message, "the body itself"), 0);
    CHECK(f.task == heist_current_task(), 1);
    heist_group_unref(g);
    untouched(s);
    return 0;
}
static void all_failures_are_reported_together_COMP_43_COMP_44(void **state) {
    (void)state;
    play(many_fail);
    play(all_fail);
}

static int body_fails(void *arg, void **out) {
    struct seen *s = arg;
    (void)out;
    double start = heist_time();
    struct child c[2] = {{.seconds = 100}, {.seconds = 200}};
    heist_group *g = entered(s);
    for (int i = 0; i < 2; i++) CHECK(heist_group_create_task(g, child_body, &c[i], NULL, NULL), 0);
    CHECK(heist_sleep(1), 0);
    CHECK(heist_group_exit(g, -EIO), HEIST_EGROUP);
    CHECK(took(start), 1000);
    CHECK(c[0].was_cancelled && c[1].was_cancelled, 1);
    CHECK(heist_group_failures(g), 1);
    heist_group_failure f = HEIST_GROUP_FAILURE_INIT;
    CHECK(heist_group_failure_at(g, 0, &f), 0);
    CHECK(f.code, -EIO);
    CHECK(f.file == NULL, 1);
    CHECK(strcmp(f.message, heist_strerror(-EIO)), 0);
    heist_group_unref(g);
    untouched(s);
    return 0;
}
static void a_failing_body_cancels_the_children_COMP_44(void **state) {
    (void)state;
    play(body_fails);
}

static int order_of_failures(void *arg, void **out) {
    struct seen *s = arg;
    (void)out;
    struct child c[4];
    memset(c, 0, sizeof c);
    heist_group *g = entered(s);
    heist_uncancellable_begin(); /* children do not inherit that */
    for (int i = 0; i < 4; i++) {
        c[i].seconds = 1;
        c[i].code = -(i + 1);
        CHECK(heist_group_create_task(g, child_body, &c[i], NULL, NULL), 0);
    }
    CHECK(heist_sleep(5), 0); /* the group asks, and the request is held */
    heist_uncancellable_end();
    CHECK(heist_group_exit(g, 0), HEIST_EGROUP);
    CHECK(heist_group_failures(g) >= 1, 1);
    heist_group_unref(g);
    untouched(s);
    return 0;
}
static void a_request_of_the_group_that_nobody_saw_is_taken_back_COMP_45(void **state) {
    (void)state;
    play(order_of_failures);
}

static int fails_outside(void *arg, void **out) {
    struct seen *s = arg;
    (void)out;
    struct child c = {.seconds = 1, .code = -EPERM};
    heist_group *g = entered(s);
    CHECK(heist_group_create_task(g, child_body, &c, NULL, NULL), 0);
    int err = heist_group_exit(g, 0);
    heist_group_unref(g);
    return err;
}
static int sees_it_from_outside(void *arg, void **out) {
    struct seen *s = arg;
    (void)out;
    heist_task *t = NULL;
    CHECK(heist_create_task(fails_outside, s, NULL, &t), 0);
    CHECK(heist_await(t, NULL), HEIST_EGROUP);
    heist_exception e = HEIST_EXCEPTION_INIT;
    CHECK(heist_future_exception(t, &e), 0);
    CHECK(strstr(e.message, "EPERM") != NULL && strstr(e.message, "after 1 s") != NULL, 1);
    heist_unref(t);
    return 0;
}
static void a_task_that_ends_with_its_groups_failure_says_what_it_was(void **state) {
    (void)state;
    play(sees_it_from_outside);
}

/* ---- cancelled from outside ---- */

struct owner {
    struct seen *s;
    struct child children[3];
    bool in_exit, swallow;
    int inside, answer, cancelling, failures, next;
    double ended;
};

static int owns(void *arg, void **out) {
    struct owner *o = arg;
    struct seen *s = o->s;
    (void)out;
    heist_group *g = entered(s);
    for (int i = 0; i < 3; i++) CHECK(heist_group_create_task(g, child_body, &o->children[i], NULL, NULL), 0);
    o->inside = o->in_exit ? 0 : heist_sleep(1000);
    o->answer = heist_group_exit(g, o->inside);
    o->ended = heist_time();
    o->cancelling = heist_cancelling(heist_current_task());
    o->failures = heist_group_failures(g);
    o->next = heist_yield();
    heist_group_unref(g);
    return o->answer;
}

static int cancels_owner(void *arg, void **out) {
    struct seen *s = arg;
    (void)out;
    for (int in_exit = 0; in_exit < 2; in_exit++) {
        double start = heist_time();
        struct owner o = {.s = s,
                          .in_exit = in_exit,
                          .children = {{.seconds = 100}, {.seconds = 0.5}, {.seconds = 9, .stubborn = true}}};
        heist_task *t = NULL;
        CHECK(heist_create_task(owns, &o, NULL, &t), 0);
        CHECK(heist_sleep(1), 0);
        CHECK(heist_cancel(t), 1);
        CHECK(heist_await_until(t, HEIST_FOREVER, NULL), -ECANCELED);
        CHECK((int)((o.ended - start) * 1000 + 0.5), 2000); /* the stubborn child takes its second */
        CHECK(o.answer, -ECANCELED);
        CHECK(o.cancelling, 1);
        CHECK(o.failures, 0);
        CHECK(o.next, 0); /* delivered once */
        CHECK(heist_future_cancelled(t), 1);
        for (int i = 0; i < 3; i++) CHECK(o.children[i].ended, 1);
        CHECK(o.children[0].was_cancelled && o.children[2].was_cancelled && !o.children[1].was_cancelled, 1);
        heist_unref(t);
    }
    return 0;
}
static void cancelling_the_owner_cancels_all_and_waits_COMP_46(void **state) {
    (void)state;
    play(cancels_owner);
}

/* A child fails and somebody cancels the owner: the failures are told, and the request still comes out. */
static int both_at_once(void *arg, void **out) {
    struct seen *s = arg;
    (void)out;
    struct owner o = {.s = s,
                      .children = {{.seconds = 100}, {.seconds = 1, .code = -EIO}, {.seconds = 100, .stubborn = true}}};
    heist_task *t = NULL;
    CHECK(heist_create_task(owns, &o, NULL, &t), 0);
    CHECK(heist_sleep(1.5), 0); /* the body has been asked by the group, the exit waits for the stubborn one */
    CHECK(heist_cancel(t), 1);
    CHECK(heist_await_until(t, HEIST_FOREVER, NULL), HEIST_EGROUP);
    CHECK(o.answer, HEIST_EGROUP);
    CHECK(o.failures, 1);
    CHECK(o.cancelling, 1);
    CHECK(o.next, -ECANCELED);
    heist_unref(t);
    /* Before it ever sees either. */
    heist_task *self = heist_current_task();
    struct child c = {.seconds = 1, .code = -EIO};
    heist_group *g = entered(s);
    CHECK(heist_group_create_task(g, child_body, &c, NULL, NULL), 0);
    CHECK(heist_uncancellable_begin(), 0);
    CHECK(heist_sleep(3), 0);
    CHECK(heist_cancel(self), 1);
    CHECK(heist_uncancellable_end(), 0);
    CHECK(heist_cancelling(self), 2);
    CHECK(heist_group_exit(g, heist_yield()), HEIST_EGROUP);
    CHECK(heist_cancelling(self), 1);
    CHECK(heist_yield(), -ECANCELED);
    CHECK(heist_yield(), 0);
    CHECK(heist_uncancel(self), 0);
    heist_group_unref(g);
    untouched(s);
    return 0;
}
static void a_request_from_outside_beside_a_failure_is_not_lost_COMP_46(void **state) {
    (void)state;
    play(both_at_once);
}

static int unasked(void *arg, void **out) {
    struct seen *s = arg;
    (void)out;
    struct child c = {.seconds = 50};
    heist_group *g = entered(s);
    CHECK(heist_group_create_task(g, child_body, &c, NULL, NULL), 0);
    CHECK(heist_group_exit(g, -ECANCELED), -ECANCELED); /* what it awaited was cancelled, perhaps */
    heist_group_unref(g);
    untouched(s);
    /* A request that came before is delivered in the block. */
    g = entered(s);
    CHECK(heist_cancel(heist_current_task()), 1);
    CHECK(heist_group_exit(g, 0), -ECANCELED);
    CHECK(heist_uncancel(heist_current_task()), 0);
    heist_group_unref(g);
    /* A child that ends cancelled by itself has not failed. */
    struct child d = {.seconds = 1, .code = -ECANCELED}, e = {.seconds = 2};
    g = entered(s);
    CHECK(heist_group_create_task(g, child_body, &d, NULL, NULL), 0);
    CHECK(heist_group_create_task(g, child_body, &e, NULL, NULL), 0);
    CHECK(heist_group_exit(g, 0), 0);
    CHECK(e.was_cancelled, 0);
    heist_group_unref(g);
    untouched(s);
    return 0;
}
static void the_exit_is_a_cancellation_point_and_cancelled_is_no_failure(void **state) {
    (void)state;
    play(unasked);
}

/* ---- children of children ---- */

struct tree {
    heist_group *group;
    int depth;
    _Atomic(int) *alive, *all;
};
static void free_tree(void *arg) {
    struct tree *t = arg;
    (*t->alive)--;
    free(t);
}
static int grow(void *arg, void **out) {
    struct tree *t = arg;
    (void)out;
    int err = heist_sleep(0.01 * t->depth);
    for (int i = 0; i < 2 && t->depth > 0 && err == 0; i++) {
        struct tree *more = malloc(sizeof *more);
        if (!more) return -ENOMEM;
        *more = *t;
        more->depth--;
        (*t->alive)++;
        (*t->all)++;
        heist_task_options o = HEIST_TASK_OPTIONS_INIT;
        o.arg_free = free_tree;
        err = heist_group_create_task(t->group, grow, more, &o, NULL);
        if (err) free_tree(more);
    }
    return err;
}
static int grows(void *arg, void **out) {
    struct seen *s = arg;
    (void)out;
    static _Atomic(int) alive, all;
    alive = all = 0;
    heist_group *g = entered(s);
    struct tree root = {g, 7, &alive, &all};
    CHECK(heist_group_create_task(g, grow, &root, NULL, NULL), 0);
    CHECK(heist_group_exit(g, 0), 0); /* all of them are made while it waits */
    CHECK(all, 254);
    CHECK(alive, 0);
    CHECK(heist_group_create_task(g, grow, &root, NULL, NULL), HEIST_ESHUTDOWN);
    heist_group_unref(g);
    untouched(s);
    return 0;
}
static void children_add_children_also_during_the_exit_COMP_47(void **state) {
    (void)state;
    play(grows);
}

/* ---- states ---- */

static int out_of_order(void *arg, void **out) {
    struct seen *s = arg;
    (void)out;
    struct child c = {.seconds = 1};
    heist_group *g = NULL;
    CHECK(heist_group_new(&g), 0);
    heist_task *none = NULL;
    CHECK(heist_group_create_task(g, child_body, &c, NULL, &none), HEIST_EINVALSTATE);
    CHECK(heist_group_exit(g, 0), HEIST_EINVALSTATE);
    CHECK(heist_group_enter(g), 0);
    CHECK(heist_group_enter(g), HEIST_EINVALSTATE);
    CHECK(heist_group_exit(g, 0), 0);
    CHECK(heist_group_create_task(g, child_body, &c, NULL, &none), HEIST_ESHUTDOWN);
    CHECK(none == NULL && !c.begun, 1); /* arg is the caller's */
    CHECK(heist_group_exit(g, 0), HEIST_EINVALSTATE);
    CHECK(heist_group_enter(g), HEIST_EINVALSTATE);
    heist_group_unref(g);
    return 0;
}
static void a_task_cannot_be_made_before_or_after_the_block_COMP_48_COMP_49(void **state) {
    (void)state;
    play(out_of_order);
}

static int not_the_owner(void *arg, void **out) {
    (void)out;
    return heist_group_exit(arg, 0) == HEIST_EINVALSTATE && heist_group_enter(arg) == HEIST_EINVALSTATE ? 0 : -EPROTO;
}
static int leaves_it_to_another(void *arg, void **out) {
    struct seen *s = arg;
    (void)out;
    heist_group *g = entered(s);
    CHECK(heist_group_create_task(g, not_the_owner, g, NULL, NULL), 0);
    CHECK(heist_group_exit(g, 0), 0);
    heist_group_unref(g);
    return 0;
}
static void entering_twice_or_outside_a_task_fails_COMP_49(void **state) {
    (void)state;
    play(leaves_it_to_another);
    heist_group *g = NULL;
    struct child c = {0};
    assert_int_equal(heist_group_new(&g), 0);
    assert_int_equal(heist_group_enter(g), HEIST_ENOTASK);
    assert_int_equal(heist_group_exit(g, 0), HEIST_EINVALSTATE);
    assert_int_equal(heist_group_create_task(g, child_body, &c, NULL, NULL), HEIST_EINVALSTATE);
    heist_group_unref(g);
    heist_group_unref(NULL);
}

static void bad_input_is_refused(void **state) {
    (void)state;
    heist_group *g = NULL;
    heist_group_failure f = HEIST_GROUP_FAILURE_INIT;
    assert_int_equal(heist_group_new(NULL), -EINVAL);
    assert_int_equal(heist_group_enter(NULL), -EINVAL);
    assert_int_equal(heist_group_exit(NULL, 0), -EINVAL);
    assert_int_equal(heist_group_cancel(NULL), -EINVAL);
    assert_int_equal(heist_group_failures(NULL), -EINVAL);
    assert_int_equal(heist_group_count(NULL), 0);
    assert_int_equal(heist_group_new(&g), 0);
    assert_int_equal(heist_group_create_task(NULL, child_body, NULL, NULL, NULL), -EINVAL);
    assert_int_equal(heist_group_create_task(g, NULL, NULL, NULL, NULL), -EINVAL);
    assert_int_equal(heist_group_failure_at(g, 0, NULL), -EINVAL);
    assert_int_equal(heist_group_failure_at(NULL, 0, &f), -EINVAL);
    assert_int_equal(heist_group_failure_at(g, 0, &f), HEIST_EINVALSTATE);
    f.size = 4;
    assert_int_equal(heist_group_failure_at(g, 0, &f), -EINVAL);
    heist_group_unref(g);
}

static int has_a_name(void *arg, void **out) {
    char *buf = arg;
    (void)out;
    heist_task_name(heist_current_task(), buf, 32);
    return 0;
}
static int names(void *arg, void **out) {
    struct seen *s = arg;
    (void)out;
    char buf[32] = "";
    heist_task_options o = HEIST_TASK_OPTIONS_INIT;
    o.name = "Nemo";
    heist_group *g = entered(s);
    heist_task *t = NULL;
    CHECK(heist_group_create_task(g, has_a_name, buf, &o, &t), 0);
    o.flags = 1u << 30;
    CHECK(heist_group_create_task(g, has_a_name, buf, &o, NULL), -EINVAL);
    CHECK(heist_group_exit(g, 0), 0);
    CHECK(strcmp(buf, "Nemo"), 0);
    char again[32] = "";
    CHECK(heist_task_name(t, again, sizeof again), 4);
    heist_unref(t);
    heist_group_unref(g);
    return 0;
}
static void options_apply_to_the_child_COMP_50(void **state) {
    (void)state;
    play(names);
}

/* ---- ending early ---- */

static int ends_early(void *arg, void **out) {
    struct seen *s = arg;
    (void)out;
    double start = heist_time();
    struct child c[2] = {{.seconds = 100}, {.seconds = 100, .stubborn = true}};
    heist_group *g = entered(s);
    for (int i = 0; i < 2; i++) CHECK(heist_group_create_task(g, child_body, &c[i], NULL, NULL), 0);
    CHECK(heist_sleep(1), 0);
    for (int i = 0; i < 3; i++) CHECK(heist_group_cancel(g), 0);
    CHECK(heist_group_create_task(g, child_body, &c[0], NULL, NULL), HEIST_ESHUTDOWN);
    int err = heist_sleep(10);
    CHECK(err, -ECANCELED);
    CHECK(heist_group_exit(g, err), 0);
    CHECK(took(start), 2000);
    CHECK(heist_group_failures(g), 0);
    CHECK(heist_group_cancel(g), 0);
    CHECK(heist_group_cancel(g), 0);
    heist_group_unref(g);
    untouched(s);
    /* Before the entry. */
    CHECK(heist_group_new(&g), 0);
    CHECK(heist_group_cancel(g), 0);
    CHECK(heist_group_enter(g), 0);
    CHECK(heist_group_create_task(g, child_body, &c[0], NULL, NULL), HEIST_ESHUTDOWN);
    CHECK(heist_group_exit(g, heist_sleep(10)), 0);
    heist_group_unref(g);
    /* The body does not notice. */
    g = entered(s);
    CHECK(heist_group_cancel(g), 0);
    CHECK(heist_group_exit(g, 0), 0);
    heist_group_unref(g);
    untouched(s);
    CHECK(took(start), 2500);
    return 0;
}

static int cancels_its_group(void *arg, void **out) {
    (void)out;
    int err = heist_sleep(1);
    return err ? err : heist_group_cancel(arg);
}
static int is_ended_by_a_child(void *arg, void **out) {
    struct seen *s = arg;
    (void)out;
    for (int in_exit = 0; in_exit < 2; in_exit++) {
        double start = heist_time();
        struct child c = {.seconds = 100};
        heist_group *g = entered(s);
        CHECK(heist_group_create_task(g, child_body, &c, NULL, NULL), 0);
        CHECK(heist_group_create_task(g, cancels_its_group, g, NULL, NULL), 0);
        CHECK(heist_group_exit(g, in_exit ? 0 : heist_sleep(50)), 0);
        CHECK(took(start), 1000);
        CHECK(c.was_cancelled, 1);
        heist_group_unref(g);
        untouched(s);
    }
    return 0;
}

struct threads {
    heist_group *g;
    _Atomic(int) refused, made, ended, stop;
};
static int ends_at_once(void *arg, void **out) {
    (void)out;
    ++*(_Atomic(int) *)arg;
    return 0;
}
static void *cancels_from_a_thread(void *arg) {
    struct threads *t = arg;
    for (int i = 0; i < 40; i++) {
        int err = heist_group_create_task(t->g, ends_at_once, (void *)&t->ended, NULL, NULL);
        if (err == 0) t->made++;
        else if (err == HEIST_ESHUTDOWN) t->refused++;
    }
    for (int i = 0; i < 10; i++) heist_group_cancel(t->g);
    heist_group_unref(t->g);
    return NULL;
}
static int lives_with_threads(void *arg, void **out) {
    struct threads *t = arg;
    (void)out;
    t->g = NULL;
    int err = heist_group_new(&t->g);
    if (!err) err = heist_group_enter(t->g);
    if (err) return err;
    pthread_t thread[3];
    for (int i = 0; i < 3; i++) {
        heist_group_ref(t->g);
        thread[i] = harness_thread(cancels_from_a_thread, t);
    }
    err = heist_sleep(1000); /* until a thread ends the group */
    err = heist_group_exit(t->g, err);
    for (int i = 0; i < 3; i++) harness_join(thread[i]);
    heist_group_unref(t->g);
    return err ? err : heist_cancelling(heist_current_task());
}

static void a_group_may_be_ended_early_by_anybody_COMP_51(void **state) {
    (void)state;
    play(ends_early);
    play(is_ended_by_a_child);
    struct threads t = {0};
    heist_runtime_options o = HEIST_RUNTIME_OPTIONS_INIT;
    o.workers = harness_workers();
    assert_int_equal(heist_run(lives_with_threads, &t, &o, NULL), 0);
    assert_int_equal(t.made + t.refused, 120);
    assert_true(t.ended <= t.made); /* the rest was cancelled before it began */
}

/* Others than children may add some until the very end: whoever is let in is waited for. */
struct door {
    pthread_mutex_t lock;
    heist_group *open;
    struct visit *visit;
    bool stop;
};
struct visit {
    _Atomic(int) over, late, let_in, ended;
};
static int visits(void *arg, void **out) {
    struct visit *v = arg;
    (void)out;
    v->late += v->over;
    v->ended++;
    return 0;
}
#define VISITORS 50
static void *knocks(void *arg) {
    struct door *d = arg;
    for (;;) {
        pthread_mutex_lock(&d->lock);
        heist_group *g = heist_group_ref(d->open);
        struct visit *v = d->visit;
        bool stop = d->stop;
        pthread_mutex_unlock(&d->lock);
        /* So many, for who makes children faster than they end keeps a group for ever. */
        if (g && v->let_in < VISITORS && heist_group_create_task(g, visits, v, NULL, NULL) == 0) v->let_in++;
        heist_group_unref(g);
        if (stop) return NULL;
    }
}
#define VISITS 300
static int opens_often(void *arg, void **out) {
    struct seen *s = arg;
    (void)out;
    static struct visit visit[VISITS];
    memset(visit, 0, sizeof visit);
    struct door d = {.lock = PTHREAD_MUTEX_INITIALIZER};
    pthread_t thread = harness_thread(knocks, &d);
    for (int i = 0; i < VISITS; i++) {
        heist_group *g = entered(s);
        pthread_mutex_lock(&d.lock);
        d.open = g;
        d.visit = &visit[i];
        pthread_mutex_unlock(&d.lock);
        CHECK(heist_yield(), 0);
        CHECK(heist_group_exit(g, 0), 0);
        visit[i].over = 1;
        CHECK(heist_group_count(g), 0);
        pthread_mutex_lock(&d.lock);
        d.open = NULL;
        pthread_mutex_unlock(&d.lock);
        heist_group_unref(g);
    }
    pthread_mutex_lock(&d.lock);
    d.stop = true;
    pthread_mutex_unlock(&d.lock);
    harness_join(thread);
    for (int i = 0; i < VISITS; i++) {
        CHECK(visit[i].late, 0);
        CHECK(visit[i].ended, visit[i].let_in);
    }
    return 0;
}
static void whoever_is_let_in_at_the_end_is_waited_for_COMP_47(void **state) {
    (void)state;
    play(opens_often);
}

/* ---- with other scopes ---- */

static int nested(void *arg, void **out) {
    struct seen *s = arg;
    (void)out;
    double start = heist_time();
    /* A time-out around a group ends its children, and is a time-out outside. */
    struct child c = {.seconds = 100};
    heist_timeout t = HEIST_TIMEOUT_INIT;
    CHECK(heist_timeout_enter(&t, 1), 0);
    heist_group *g = entered(s);
    CHECK(heist_group_create_task(g, child_body, &c, NULL, NULL), 0);
    int err = heist_group_exit(g, 0);
    CHECK(err, -ECANCELED);
    CHECK(heist_timeout_exit(&t, err), -ETIMEDOUT);
    CHECK(c.was_cancelled, 1);
    CHECK(took(start), 1000);
    heist_group_unref(g);
    untouched(s);
    /* A time-out within, while the group fails: each takes its own request back. */
    struct child bad = {.seconds = 1, .code = -EIO};
    g = entered(s);
    heist_timeout in = HEIST_TIMEOUT_INIT;
    CHECK(heist_group_create_task(g, child_body, &bad, NULL, NULL), 0);
    CHECK(heist_timeout_enter(&in, 2), 0);
    CHECK(heist_uncancellable_begin(), 0);
    CHECK(heist_sleep(3), 0);
    CHECK(heist_uncancellable_end(), 0);
    CHECK(heist_cancelling(heist_current_task()), 2);
    err = heist_timeout_exit(&in, heist_yield());
    CHECK(err, -ECANCELED); /* the group's */
    CHECK(heist_group_exit(g, err), HEIST_EGROUP);
    CHECK(heist_group_failures(g), 1);
    heist_group_unref(g);
    untouched(s);
    /* A group in a group: the inner failure is a failure of the outer's body. */
    heist_group *outer = entered(s), *inner = entered(s);
    struct child sibling = {.seconds = 100}, again = {.seconds = 1, .code = -EPIPE};
    CHECK(heist_group_create_task(outer, child_body, &sibling, NULL, NULL), 0);
    CHECK(heist_group_create_task(inner, child_body, &again, NULL, NULL), 0);
    err = heist_group_exit(inner, heist_sleep(50));
    CHECK(err, HEIST_EGROUP);
    CHECK(sibling.was_cancelled, 0);
    CHECK(heist_group_exit(outer, err), HEIST_EGROUP);
    CHECK(sibling.was_cancelled, 1);
    heist_group_failure f = HEIST_GROUP_FAILURE_INIT;
    CHECK(heist_group_failure_at(outer, 0, &f), 0);
    CHECK(f.code, HEIST_EGROUP);
    CHECK(strstr(f.message, "EPIPE") != NULL, 1);
    heist_group_unref(outer);
    heist_group_unref(inner);
    untouched(s);
    return 0;
}
static void groups_and_timeouts_nest(void **state) {
    (void)state;
    play(nested);
}

/* ---- it does not grow ---- */

static int nothing(void *arg, void **out) {
    (void)arg, (void)out;
    return 0;
}
static int goes_on_for_long(void *arg, void **out) {
    struct seen *s = arg;
    (void)out;
    heist_group *g = entered(s);
    for (int i = 0; i < 64; i++) CHECK(heist_group_create_task(g, nothing, NULL, NULL, NULL), 0);
    while (heist_group_count(g)) CHECK(heist_sleep(0.001), 0);
    long before = harness_blocks();
    for (int k = 0; k < 100 && !s->line; k++) {
        for (int i = 0; i < 64; i++) CHECK(heist_group_create_task(g, nothing, NULL, NULL, NULL), 0);
        while (heist_group_count(g)) CHECK(heist_sleep(0.001), 0);
    }
    for (int i = 0; i < 1000 && harness_blocks() > before + 16; i++) heist_sleep(0.001);
    CHECK(harness_blocks() <= before + 16, 1); /* slabs of futures may have grown by some */
    CHECK(heist_group_exit(g, 0), 0);
    heist_group_unref(g);
    return 0;
}
static void a_group_that_lives_long_does_not_grow(void **state) {
    (void)state;
    play(goes_on_for_long);
}

/* The result of a child that nobody asked for is gone when the exit returns. */
static void free_result(void *result) { ++*(_Atomic(int) *)result; }
static int gives_a_result(void *arg, void **out) {
    *out = arg;
    return heist_yield();
}
static int frees_results(void *arg, void **out) {
    struct seen *s = arg;
    (void)out;
    for (int k = 0; k < 50 && !s->line; k++) {
        _Atomic(int) freed = 0; /* on this stack */
        heist_group *g = entered(s);
        heist_task_options o = HEIST_TASK_OPTIONS_INIT;
        o.result_free = free_result;
        for (int i = 0; i < 8; i++) CHECK(heist_group_create_task(g, gives_a_result, (void *)&freed, &o, NULL), 0);
        CHECK(heist_group_exit(g, 0), 0);
        CHECK(freed, 8);
        heist_group_unref(g);
    }
    return 0;
}
static void results_that_nobody_asked_for_do_not_outlive_the_block(void **state) {
    (void)state;
    play(frees_results);
}

/* A child gives itself away: its result is there for those for whom the maker kept it, and else nobody's. */
static heist_task *given_away;
static int gives_itself_away(void *arg, void **out) {
    given_away = heist_ref(heist_current_task());
    *out = arg;
    return heist_yield();
}
static int keeps_a_child(void *arg, void **out) {
    struct seen *s = arg;
    (void)out;
    for (int k = 0; k < 50 && !s->line; k++) {
        static _Atomic(int) freed;
        bool kept = k % 2;
        freed = 0;
        void *result = NULL;
        heist_task *child = NULL;
        heist_group *g = entered(s);
        heist_task_options o = HEIST_TASK_OPTIONS_INIT;
        o.result_free = free_result;
        CHECK(heist_group_create_task(g, gives_itself_away, (void *)&freed, &o, kept ? &child : NULL), 0);
        CHECK(heist_group_exit(g, 0), 0);
        heist_group_unref(g);
        CHECK(freed, !kept);
        heist_unref(child);
        CHECK(heist_await(given_away, &result), kept ? 0 : HEIST_ERESULTTAKEN);
        CHECK(result == (kept ? (void *)&freed : NULL), 1);
        heist_unref(given_away);
        while (!freed) heist_yield(); /* who completed it may be the last */
        CHECK(freed, 1);
    }
    return 0;
}
static void a_result_is_kept_for_whom_it_was_asked_for(void **state) {
    (void)state;
    play(keeps_a_child);
}

/* ---- no memory, and a runtime that closes ---- */

static int without_memory(void *arg, void **out) {
    struct seen *s = arg;
    (void)out;
    for (int n = 1; n < 50 && !s->line; n++) {
        struct child c[3] = {{.seconds = 1}, {.seconds = 2, .code = -EIO}, {.seconds = 3}};
        heist_group *g = NULL;
        harness_allocations();
        harness_fail_allocation(n, true);
        int err = heist_group_new(&g), made = 0;
        if (!err) {
            CHECK(heist_group_enter(g), 0);
            for (int i = 0; i < 3; i++) made += heist_group_create_task(g, child_body, &c[i], NULL, NULL) == 0;
            /* No memory from here on either: the exit needs none. */
            err = heist_group_exit(g, 0);
            harness_fail_allocation(0, false);
            int begun = 0;
            for (int i = 0; i < 3; i++) {
                CHECK(c[i].begun, c[i].ended);
                begun += c[i].begun;
            }
            CHECK(begun <= made, 1);
            CHECK(err == 0 || err == HEIST_EGROUP, 1);
            for (int i = 0, count = heist_group_failures(g); i < count; i++) {
                heist_group_failure f = HEIST_GROUP_FAILURE_INIT;
                CHECK(heist_group_failure_at(g, (size_t)i, &f), 0);
                CHECK(f.code == -EIO || f.code == -ENOMEM, 1);
            }
        } else {
            CHECK(err, -ENOMEM);
        }
        harness_fail_allocation(0, false);
        bool all = harness_allocations() < n;
        heist_group_unref(g);
        untouched(s);
        if (all) break;
    }
    return 0;
}
static void without_memory_nobody_outlives_the_block_either(void **state) {
    (void)state;
    play(without_memory);
}

struct closing {
    _Atomic(int) begun, ended, exit;
    struct child c[4];
};
static int is_closed(void *arg, void **out) {
    struct closing *k = arg;
    (void)out;
    heist_group *g = NULL;
    if (heist_group_new(&g) || heist_group_enter(g)) return -EPROTO;
    for (int i = 0; i < 4; i++) heist_group_create_task(g, child_body, &k->c[i], NULL, NULL);
    k->begun = 1;
    int err = heist_group_exit(g, 0);
    for (int i = 0; i < 4; i++) k->ended += k->c[i].ended || !k->c[i].begun;
    k->exit = err;
    heist_group_unref(g);
    return err;
}
static void a_close_of_the_runtime_ends_the_group_first(void **state) {
    (void)state;
    struct closing k = {.c = {{.seconds = 1000}, {.seconds = 1000}, {.seconds = 1000}, {.seconds = 1000}}};
    heist_runtime_options o = HEIST_RUNTIME_OPTIONS_INIT;
    o.workers = harness_workers();
    heist_runtime *rt = NULL;
    heist_task *t = NULL;
    assert_int_equal(heist_runtime_new(&o, &rt), 0);
    assert_int_equal(heist_runtime_run_coroutine(rt, is_closed, &k, NULL, &t), 0);
    while (!k.begun) heist_sleep(0.001);
    assert_int_equal(heist_runtime_close(rt, HEIST_FOREVER), 0);
    assert_int_equal(k.ended, 4);
    assert_int_equal(k.exit, -ECANCELED);
    assert_int_equal(heist_future_cancelled(t), 1);
    heist_unref(t);
    heist_runtime_unref(rt);
}

/* A child made from another runtime's task, and a group on a loop of its own. */
static int makes_for_another(void *arg, void **out) {
    struct threads *t = arg;
    (void)out;
    int err = heist_group_create_task(t->g, ends_at_once, (void *)&t->ended, NULL, NULL);
    t->stop = 1;
    heist_group_unref(t->g);
    return err;
}
static int is_helped(void *arg, void **out) {
    struct threads *t = arg;
    (void)out;
    while (!t->stop) {
        int err = heist_sleep(0.001);
        if (err) return err;
    }
    return heist_group_exit(t->g, 0);
}
static int opens(void *arg, void **out) {
    struct threads *t = arg;
    int err = heist_group_new(&t->g);
    if (!err) err = heist_group_enter(t->g);
    if (err) return err;
    heist_group_ref(t->g);
    t->made = 1;
    err = is_helped(arg, out);
    heist_group_unref(t->g);
    return err;
}
static void a_child_may_be_made_from_another_runtime(void **state) {
    (void)state;
    struct threads t = {0};
    heist_runtime *a = harness_runtime(0), *b = harness_runtime(0);
    heist_task *owner = NULL, *helper = NULL;
    assert_int_equal(heist_runtime_run_coroutine(a, opens, &t, NULL, &owner), 0);
    while (!t.made) heist_sleep(0.001);
    assert_int_equal(heist_runtime_run_coroutine(b, makes_for_another, &t, NULL, &helper), 0);
    assert_int_equal(heist_await(helper, NULL), 0);
    assert_int_equal(heist_await(owner, NULL), 0);
    assert_int_equal(t.ended, 1);
    heist_unref(owner);
    heist_unref(helper);
    harness_runtime_end(a);
    harness_runtime_end(b);
}

/* Told of somebody else's request, and swallowed it; then the group asks, and nobody is told of that. */
static int swallows(void *arg, void **out) {
    struct seen *s = arg;
    (void)out;
    heist_task *self = heist_current_task();
    for (int fails = 0; fails < 2; fails++) {
        heist_group *g = NULL;
        CHECK(heist_group_new(&g), 0);
        CHECK(heist_group_enter(g), 0);
        CHECK(heist_cancel(self), 1);
        CHECK(heist_yield(), -ECANCELED);
        if (!fails) CHECK(heist_group_cancel(g), 0);
        CHECK(heist_group_exit(g, fails ? -EIO : 0), fails ? HEIST_EGROUP : 0);
        CHECK(heist_yield(), 0);
        CHECK(heist_uncancel(self), 0);
        heist_group_unref(g);
        untouched(s);
    }
    return 0;
}
static void what_was_swallowed_is_not_told_by_the_exit_COMP_46(void **state) {
    (void)state;
    play(swallows);
}

enum { FAILING = 1000 };

static int fails_with(void *arg, void **out) {
    (void)out;
    return -(int)(intptr_t)arg;
}

/* Each by its number, in any order; and without the memory that makes that quick. */
static int has_many_failures(void *arg, void **out) {
    struct seen *s = arg;
    (void)out;
    for (int poor = 0; poor < 2; poor++) {
        heist_group *g = NULL;
        CHECK(heist_group_new(&g), 0);
        CHECK(heist_group_enter(g), 0);
        for (intptr_t i = 1; i <= FAILING; i++) {
            int err = heist_group_create_task(g, fails_with, (void *)i, NULL, NULL);
            CHECK(err == 0 || err == HEIST_ESHUTDOWN, 1); /* the first has failed already, with several workers */
        }
        while (heist_group_count(g)) heist_sleep(0.01);
        if (poor) harness_fail_allocation(1, true);
        int err = heist_group_exit(g, -EIO);
        harness_fail_allocation(0, false);
        CHECK(err, HEIST_EGROUP);
        int n = heist_group_failures(g);
        CHECK(n >= 2, 1);
        heist_group_failure f = HEIST_GROUP_FAILURE_INIT;
        char seen[FAILING + 1] = {0};
        for (int i = n - 1; i >= 0; i--) {
            CHECK(heist_group_failure_at(g, (size_t)i, &f), 0);
            if (i == n - 1) {
                CHECK(f.code, -EIO);
            } else {
                CHECK(-f.code >= 1 && -f.code <= FAILING && !seen[-f.code], 1);
                seen[-f.code < 0 || -f.code > FAILING ? 0 : -f.code] = 1;
            }
        }
        CHECK(heist_group_failure_at(g, (size_t)n, &f), -ERANGE);
        heist_group_unref(g);
    }
    return 0;
}
static void many_failures_are_found_by_their_numbers_COMP_43(void **state) {
    (void)state;
    play(has_many_failures);
}

static int pinned_group(void *arg, void **out) {
    struct seen *s = arg;
    one_fails(s, out);
    waits_for_all(s, out);
    ends_early(s, out);
    return 0;
}
static void a_group_works_on_a_loop_of_its_own_COMP_42(void **state) {
    (void)state;
    struct seen s = {0};
    heist_loop *loop = harness_loop();
    heist_task *t = NULL;
    assert_int_equal(heist_loop_create_task(loop, pinned_group, &s, NULL, &t), 0);
    assert_int_equal(heist_loop_run_until_complete(loop, t, NULL), 0);
    heist_unref(t);
    if (s.line) fail_msg("line %d: %d instead of %d", s.line, s.got, s.wanted);
    harness_loop_end(loop);
}

static const struct CMUnitTest tests[] = {
    API_TEST(the_exit_waits_for_all_children_COMP_42),
    API_TEST(the_first_failure_cancels_siblings_and_body_COMP_43_COMP_45),
    API_TEST(all_failures_are_reported_together_COMP_43_COMP_44),
    API_TEST(a_failing_body_cancels_the_children_COMP_44),
    API_TEST(a_request_of_the_group_that_nobody_saw_is_taken_back_COMP_45),
    API_TEST(a_task_that_ends_with_its_groups_failure_says_what_it_was),
    API_TEST(cancelling_the_owner_cancels_all_and_waits_COMP_46),
    API_TEST(a_request_from_outside_beside_a_failure_is_not_lost_COMP_46),
    API_TEST(the_exit_is_a_cancellation_point_and_cancelled_is_no_failure),
    API_TEST(children_add_children_also_during_the_exit_COMP_47),
    API_TEST(a_task_cannot_be_made_before_or_after_the_block_COMP_48_COMP_49),
    API_TEST(entering_twice_or_outside_a_task_fails_COMP_49),
    API_TEST(bad_input_is_refused),
    API_TEST(options_apply_to_the_child_COMP_50),
    API_TEST(a_group_may_be_ended_early_by_anybody_COMP_51),
    API_TEST(whoever_is_let_in_at_the_end_is_waited_for_COMP_47),
    API_TEST(groups_and_timeouts_nest),
    API_TEST(a_group_that_lives_long_does_not_grow),
    API_TEST(results_that_nobody_asked_for_do_not_outlive_the_block),
    API_TEST(a_result_is_kept_for_whom_it_was_asked_for),
    API_TEST(without_memory_nobody_outlives_the_block_either),
    API_TEST(a_close_of_the_runtime_ends_the_group_first),
    API_TEST(a_child_may_be_made_from_another_runtime),
    API_TEST(a_group_works_on_a_loop_of_its_own_COMP_42),
    API_TEST(what_was_swallowed_is_not_told_by_the_exit_COMP_46),
    API_TEST(many_failures_are_found_by_their_numbers_COMP_43),
};

int main(void) { return HARNESS_MAIN("group", tests); }
