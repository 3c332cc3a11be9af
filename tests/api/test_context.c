/* Context variables: rows CTX, and those of callbacks and tasks that speak of contexts. */
#include "support/harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Two variables that each test may use; numbers travel as pointers. */
static heist_context_var *first, *second;
#define NUMBER(n) ((void *)(intptr_t)(n))
#define UNSET (-1)

static int value(heist_context_var *var) {
    void *out = NUMBER(UNSET);
    int err = heist_context_get(var, &out);
    return err && err != HEIST_ENOTSET ? err : (int)(intptr_t)out;
}
static int set(heist_context_var *var, int n) { return heist_context_set(var, NUMBER(n), NULL, NULL); }
static int value_in(heist_context *ctx, heist_context_var *var) {
    void *out = NUMBER(UNSET);
    int err = heist_context_lookup(ctx, var, &out);
    return err && err != HEIST_ENOTSET ? err : (int)(intptr_t)out;
}

static void make_vars(void) {
    assert_int_equal(heist_context_var_new("first", NULL, &first), 0);
    assert_int_equal(heist_context_var_new("second", NULL, &second), 0);
}
static void drop_vars(void) {
    heist_context_var_unref(first);
    heist_context_var_unref(second);
}

static _Atomic(int) freed;
static void count_free(void *value) {
    (void)value;
    freed++;
}

/* The body of a test as main of a runtime. */
static void as_main(heist_coro_fn fn, void *arg) {
    make_vars();
    assert_int_equal(harness_run(fn, arg, NULL), 0);
    drop_vars();
}

/* ---- one context ---- */

static void an_unset_variable_gives_its_default_or_says_so_CTX_07(void **state) {
    (void)state;
    make_vars();
    void *out = &out;
    assert_int_equal(heist_context_get(first, &out), HEIST_ENOTSET);
    assert_ptr_equal(out, &out); /* untouched */
    assert_int_equal(heist_context_get(first, NULL), HEIST_ENOTSET);
    heist_context_var_options opts = HEIST_CONTEXT_VAR_OPTIONS_INIT;
    heist_context_var *with = NULL, *with_null = NULL;
    opts.flags = HEIST_CONTEXT_VAR_DEFAULT;
    assert_int_equal(heist_context_var_new("null", &opts, &with_null), 0);
    assert_int_equal(heist_context_get(with_null, &out), 0);
    assert_null(out);
    opts.value = NUMBER(7);
    opts.value_free = count_free;
    freed = 0;
    assert_int_equal(heist_context_var_new("seven", &opts, &with), 0);
    assert_int_equal(value(with), 7);
    assert_string_equal(heist_context_var_name(with), "seven");
    heist_context_token token = HEIST_CONTEXT_TOKEN_INIT;
    assert_int_equal(heist_context_set(with, NUMBER(8), NULL, &token), 0);
    assert_int_equal(value(with), 8);
    assert_int_equal(heist_context_reset(&token), 0);
    assert_int_equal(value(with), 7);
    assert_int_equal(freed, 0);
    heist_context_var_unref(with);
    assert_int_equal(freed, 1);
    heist_context_var_unref(with_null);
    drop_vars();
}

static void a_token_undoes_its_set_once(void **state) {
    (void)state;
    make_vars();
    heist_context_token a = HEIST_CONTEXT_TOKEN_INIT, b = HEIST_CONTEXT_TOKEN_INIT, c = HEIST_CONTEXT_TOKEN_INIT;
    assert_int_equal(heist_context_reset(&a), -EINVAL);
    assert_int_equal(heist_context_set(first, NUMBER(1), NULL, &a), 0);
    assert_int_equal(heist_context_set(first, NUMBER(2), NULL, &b), 0);
    assert_int_equal(heist_context_set(second, NUMBER(3), NULL, &c), 0);
    assert_int_equal(value(first), 2);
    assert_int_equal(heist_context_reset(&b), 0);
    assert_int_equal(value(first), 1);
    assert_int_equal(heist_context_reset(&b), -EALREADY);
    assert_int_equal(value(first), 1);
    assert_int_equal(heist_context_reset(&a), 0);
    assert_int_equal(value(first), UNSET);
    assert_int_equal(value(second), 3);
    heist_context_token_drop(&a); /* used: nothing */
    assert_int_equal(heist_context_reset(&c), 0);
    assert_int_equal(value(second), UNSET);
    drop_vars();
}

static int any_order(void *arg, void **out) {
    (void)out;
    int *wrong = arg;
    heist_context_token a = HEIST_CONTEXT_TOKEN_INIT, b = HEIST_CONTEXT_TOKEN_INIT;
    *wrong += heist_context_set(first, NUMBER(1), NULL, &a) != 0;
    *wrong += heist_context_set(first, NUMBER(2), NULL, &b) != 0;
    *wrong += heist_context_reset(&a) != 0 || value(first) != UNSET;
    *wrong += heist_context_reset(&b) != 0 || value(first) != 1; /* what stood before that set */
    *wrong += heist_context_set(first, NUMBER(3), NULL, &a) != 0;
    heist_context_token_drop(&a);
    *wrong += heist_context_reset(&a) != -EALREADY || value(first) != 3;
    return 0;
}

static void tokens_may_be_used_in_any_order(void **state) {
    (void)state;
    make_vars();
    heist_context *ctx = NULL;
    int wrong = 0;
    assert_int_equal(heist_context_new(&ctx), 0);
    assert_int_equal(heist_context_run(ctx, any_order, &wrong, NULL), 0);
    assert_int_equal(wrong, 0);
    heist_context_unref(ctx);
    drop_vars();
}

static int keeps_token(void *arg, void **out) {
    (void)out;
    return heist_context_set(first, NUMBER(5), NULL, arg);
}

static void a_token_of_another_context_is_refused(void **state) {
    (void)state;
    make_vars();
    heist_context *ctx = NULL;
    heist_context_token token = HEIST_CONTEXT_TOKEN_INIT;
    assert_int_equal(heist_context_new(&ctx), 0);
    assert_int_equal(heist_context_run(ctx, keeps_token, &token, NULL), 0);
    assert_int_equal(heist_context_reset(&token), HEIST_EOTHERCONTEXT);
    assert_int_equal(value_in(ctx, first), 5);
    heist_context_token_drop(&token);
    heist_context_unref(ctx);
    drop_vars();
}

static int many_values(void *arg, void **out) {
    (void)out;
    enum { VARS = 60 };
    int *wrong = arg;
    heist_context_var *vars[VARS];
    heist_context_token tokens[VARS];
    memset(tokens, 0, sizeof tokens);
    for (int i = 0; i < VARS; i++)
        if (heist_context_var_new("v", NULL, &vars[i])) abort();
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < VARS; i++) {
            int k = i * 37 % VARS;
            if (heist_context_set(vars[k], NUMBER(round * VARS + k), count_free, round ? NULL : &tokens[k])) ++*wrong;
        }
        for (int i = 0; i < VARS; i++) *wrong += value(vars[i]) != round * VARS + i;
    }
    heist_context *copy = NULL;
    if (heist_context_copy(NULL, &copy)) abort();
    for (int i = 0; i < VARS; i++) {
        *wrong += heist_context_reset(&tokens[i]) != 0;
        *wrong += value(vars[i]) != UNSET;
        for (int k = i + 1; k < VARS; k++) *wrong += value(vars[k]) != 2 * VARS + k;
    }
    *wrong += heist_context_count(copy) != VARS;
    for (int i = 0; i < VARS; i++) {
        *wrong += value_in(copy, vars[i]) != 2 * VARS + i;
        heist_context_var_unref(vars[i]);
    }
    heist_context_unref(copy);
    return 0;
}

static void dozens_of_variables_keep_their_values_apart(void **state) {
    (void)state;
    int wrong = 0;
    freed = 0;
    assert_int_equal(many_values(&wrong, NULL), 0); /* a plain thread */
    assert_int_equal(wrong, 0);
    assert_int_equal(freed, 180);
    freed = 0;
    assert_int_equal(harness_run(many_values, &wrong, NULL), 0); /* a task */
    assert_int_equal(wrong, 0);
    assert_int_equal(freed, 180);
}

static void the_destructor_runs_when_the_last_copy_lets_go(void **state) {
    (void)state;
    make_vars();
    heist_context *copy = NULL, *again = NULL;
    heist_context_token token = HEIST_CONTEXT_TOKEN_INIT;
    freed = 0;
    assert_int_equal(heist_context_set(first, NUMBER(1), count_free, &token), 0);
    assert_int_equal(heist_context_copy(NULL, &copy), 0);
    assert_int_equal(heist_context_copy(copy, &again), 0);
    assert_int_equal(heist_context_reset(&token), 0);
    assert_int_equal(freed, 0);
    heist_context_unref(copy);
    assert_int_equal(freed, 0);
    assert_int_equal(value_in(again, first), 1);
    heist_context_unref(again);
    assert_int_equal(freed, 1);
    drop_vars();
}

/* ---- tasks ---- */

struct seen {
    int a, b, c;
    heist_future *gate;
};

static int child_sets(void *arg, void **out) {
    struct seen *seen = arg;
    (void)out;
    seen->a = value(first);
    int err = heist_await(seen->gate, NULL);
    if (err) return err;
    seen->b = value(first); /* the creator has set it since */
    err = set(first, 30);
    if (err) return err;
    err = heist_yield();
    seen->c = value(first);
    return err;
}

static int creator(void *arg, void **out) {
    (void)out;
    struct seen *seen = arg;
    heist_task *t = NULL;
    int err = set(first, 10);
    if (!err) err = heist_future_new(NULL, &seen->gate);
    if (!err) err = heist_create_task(child_sets, seen, NULL, &t);
    if (err) return err;
    err = set(first, 20);
    if (!err) err = heist_future_set_result(seen->gate, NULL, NULL);
    if (!err) err = heist_await(t, NULL);
    heist_unref(t);
    heist_unref(seen->gate);
    return err ? err : value(first) == 20 ? 0 : -EPROTO;
}

static void a_task_runs_in_a_copy_taken_at_its_creation_CTX_01_CTX_02(void **state) {
    (void)state;
    struct seen seen = {0};
    as_main(creator, &seen);
    assert_int_equal(seen.a, 10);
    assert_int_equal(seen.b, 10);
    assert_int_equal(seen.c, 30);
}

static int inline_body(void *arg, void **out) {
    (void)arg;
    (void)out;
    if (value(first) != 1) return -EPROTO;
    int err = set(first, 2);
    return err ? err : heist_yield();
}

static int calls_inline(void *arg, void **out) {
    int err = set(first, 1);
    if (!err) err = inline_body(arg, out); /* an awaited coroutine is a call */
    return err ? err : value(first) == 2 ? 0 : -EPROTO;
}

static void an_inline_coroutine_shares_the_context_of_its_task_CTX_04(void **state) {
    (void)state;
    as_main(calls_inline, NULL);
}

/* In place: the child stands on its awaiter's stack, and has a context of its own all the same. */
static int in_place_child(void *arg, void **out) {
    (void)out;
    int err = value(first) == 1 ? set(first, 2) : -EPROTO;
    if (!err && arg) err = heist_yield();
    return err ? err : value(first) == 2 ? 0 : -EPROTO;
}

static int runs_in_place(void *arg, void **out) {
    (void)out;
    int err = set(first, 1);
    for (int i = 0; i < 100 && !err; i++) {
        heist_task *t;
        err = heist_create_task(in_place_child, i % 2 ? arg : NULL, NULL, &t);
        if (err) break;
        err = heist_await(t, NULL);
        heist_unref(t);
        if (!err && value(first) != 1) err = -EPROTO;
    }
    return err;
}

static void a_task_that_runs_in_place_has_its_own_context(void **state) {
    (void)state;
    int yes = 1;
    as_main(runs_in_place, &yes);
}

/* Migration: many tasks that yield, each with its number. */
static int wanderer(void *arg, void **out) {
    (void)out;
    int n = (int)(intptr_t)arg, err = set(second, n);
    for (int i = 0; i < 50 && !err; i++) {
        err = heist_yield();
        if (!err && (value(second) != n || value(first) != 99)) err = -EPROTO;
        if (!err && i % 8 == 0) err = set(second, n);
    }
    return err;
}

static int crowd(void *arg, void **out) {
    (void)arg;
    (void)out;
    heist_task *t[64];
    int err = set(first, 99), made = 0;
    for (; made < 64 && !err; made++) err = heist_create_task(wanderer, NUMBER(made + 1), NULL, &t[made]);
    if (!err) err = heist_gather(t, 64, NULL, 0);
    for (int i = 0; i < made; i++) heist_unref(t[i]);
    return err;
}

static void a_context_goes_with_its_task_from_worker_to_worker_MT_05(void **state) {
    (void)state;
    as_main(crowd, NULL);
}

/* ---- a given context ---- */

static int sets_41(void *arg, void **out) {
    (void)out;
    heist_future *gate = arg;
    int err = value(first) == 40 ? set(first, 41) : -EPROTO;
    return err ? err : gate ? heist_await(gate, NULL) : 0;
}

static int given_main(void *arg, void **out) {
    (void)out;
    heist_context *ctx = arg;
    heist_task_options opts = HEIST_TASK_OPTIONS_INIT;
    heist_future *gate = NULL;
    heist_task *t = NULL, *other = NULL;
    opts.context = ctx;
    int err = heist_future_new(NULL, &gate);
    if (!err) err = heist_create_task(sets_41, gate, &opts, &t);
    if (err) return err;
    /* It has it from now on, begun or not. */
    int busy = heist_create_task(sets_41, NULL, &opts, &other);
    if (busy != -EBUSY || other) err = -EPROTO;
    if (heist_context_run(ctx, sets_41, NULL, NULL) != -EBUSY) err = -EPROTO;
    heist_context *of = NULL;
    if (heist_task_context(t, &of) || of != ctx) err = -EPROTO;
    heist_context_unref(of);
    if (heist_task_coro(t) != sets_41) err = -EPROTO;
    heist_future_set_result(gate, NULL, NULL);
    int awaited = heist_await(t, NULL);
    heist_unref(t);
    heist_unref(gate);
    if (awaited) return awaited;
    /* And no longer. */
    if (!err) err = heist_create_task(sets_41, NULL, &opts, &t);
    if (err) return err;
    awaited = heist_await(t, NULL);
    heist_unref(t);
    return awaited == -EPROTO && value(first) == UNSET ? 0 : -EIO; /* it found 41 */
}

static void what_a_task_sets_in_a_given_context_is_seen_there_and_a_second_user_is_busy_CTX_03(void **state) {
    (void)state;
    heist_context *ctx = NULL;
    make_vars();
    heist_context_token token = HEIST_CONTEXT_TOKEN_INIT;
    assert_int_equal(heist_context_set(first, NUMBER(40), NULL, &token), 0);
    assert_int_equal(heist_context_copy(NULL, &ctx), 0);
    assert_int_equal(heist_context_reset(&token), 0);
    assert_int_equal(harness_run(given_main, ctx, NULL), 0);
    assert_int_equal(value_in(ctx, first), 41);
    heist_context_unref(ctx);
    drop_vars();
}

static int adds_one(void *arg, void **out) {
    (void)arg;
    (void)out;
    int err = 0;
    for (int i = 0; i < 5 && !err; i++) {
        err = set(first, value(first) + 1);
        if (!err) err = heist_yield();
    }
    return err;
}

static void pinned_tasks_of_one_loop_may_share_a_context(void **state) {
    (void)state;
    make_vars();
    heist_context *ctx = NULL;
    heist_task *t[3];
    heist_task_options opts = HEIST_TASK_OPTIONS_INIT;
    heist_loop *loop = harness_loop(), *other = harness_loop();
    assert_int_equal(heist_context_new(&ctx), 0);
    opts.context = ctx;
    for (int i = 0; i < 3; i++) assert_int_equal(heist_loop_create_task(loop, adds_one, NULL, &opts, &t[i]), 0);
    assert_int_equal(heist_loop_create_task(other, adds_one, NULL, &opts, NULL), -EBUSY);
    assert_int_equal(heist_context_run(ctx, adds_one, NULL, NULL), -EBUSY); /* a plain thread */
    for (int i = 0; i < 3; i++) {
        assert_int_equal(heist_loop_run_until_complete(loop, t[i], NULL), 0);
        heist_unref(t[i]);
    }
    assert_int_equal(value_in(ctx, first), 14); /* 15 times, from -1 */
    harness_loop_end(loop);
    assert_int_equal(heist_loop_create_task(other, adds_one, NULL, &opts, NULL), 0);
    harness_loop_end(other);
    heist_context_unref(ctx);
    drop_vars();
}

static int never(void *arg, void **out) {
    (void)arg;
    (void)out;
    return -EPROTO;
}

static void a_context_is_free_again_after_a_task_that_never_ran(void **state) {
    (void)state;
    make_vars();
    heist_context *ctx = NULL;
    heist_task *t = NULL;
    heist_task_options opts = HEIST_TASK_OPTIONS_INIT;
    heist_loop *loop = harness_loop();
    assert_int_equal(heist_context_new(&ctx), 0);
    opts.context = ctx;
    opts.arg_free = count_free;
    freed = 0;
    assert_int_equal(heist_loop_create_task(loop, never, NULL, &opts, &t), 0);
    assert_int_equal(heist_cancel(t), 1);
    assert_int_equal(heist_loop_run_until_complete(loop, t, NULL), -ECANCELED);
    assert_int_equal(freed, 1);
    assert_int_equal(heist_context_run(ctx, inline_body, NULL, NULL), -EPROTO); /* it ran: no value */
    heist_unref(t);
    harness_loop_end(loop);
    /* A call that fails leaves it free too. */
    assert_int_equal(heist_loop_create_task(loop = harness_loop(), NULL, NULL, &opts, NULL), -EINVAL);
    heist_loop_ref(loop);
    harness_loop_end(loop);
    assert_int_equal(heist_loop_create_task(loop, never, NULL, &opts, NULL), HEIST_ECLOSED);
    heist_loop_unref(loop);
    assert_int_equal(heist_context_run(ctx, inline_body, NULL, NULL), -EPROTO);
    assert_int_equal(freed, 1);
    heist_context_unref(ctx);
    drop_vars();
}

static int own_context(void *arg, void **out) {
    (void)arg;
    (void)out;
    heist_context *own = NULL, *copy = NULL;
    int err = heist_task_context(heist_current_task(), &own);
    if (err) return err;
    err = heist_context_run(own, never, NULL, NULL) == -EBUSY ? 0 : -EIO;
    if (!err) err = set(first, 4);
    if (!err && value_in(own, first) != 4) err = -EIO;
    if (!err) err = heist_context_copy(own, &copy);
    if (!err && value_in(copy, first) != 4) err = -EIO;
    heist_context_unref(copy);
    heist_context_unref(own);
    return err;
}

static void a_task_tells_its_coroutine_and_its_context_TASK_31(void **state) {
    (void)state;
    as_main(own_context, NULL);
    heist_loop *loop = harness_loop();
    heist_task *t = NULL;
    heist_future *f = NULL;
    heist_context *ctx = NULL;
    make_vars();
    assert_int_equal(heist_loop_create_task(loop, adds_one, NULL, NULL, &t), 0);
    assert_int_equal(heist_future_new(loop, &f), 0);
    assert_true(heist_task_coro(t) == adds_one);
    assert_true(heist_task_coro(f) == NULL);
    assert_true(heist_task_coro(NULL) == NULL);
    assert_int_equal(heist_task_context(f, &ctx), -EINVAL);
    assert_int_equal(heist_task_context(NULL, &ctx), -EINVAL);
    assert_int_equal(heist_task_context(t, NULL), -EINVAL);
    assert_null(ctx);
    assert_int_equal(heist_task_context(t, &ctx), 0);
    assert_int_equal(heist_context_count(ctx), 0);
    assert_int_equal(heist_loop_run_until_complete(loop, t, NULL), 0);
    assert_int_equal(value_in(ctx, first), 4); /* the live one, not a copy */
    heist_unref(t);
    heist_unref(f);
    harness_loop_end(loop);
    assert_int_equal(value_in(ctx, first), 4); /* and it outlives the task */
    heist_context_unref(ctx);
    drop_vars();
}

/* ---- run ---- */

static int in_copy(void *arg, void **out) {
    *out = arg;
    if (value(first) != 1) return -EPROTO;
    int err = set(first, 2);
    if (!err && heist_current_task()) err = heist_sleep(0.001);
    return err ? err : value(first) == 2 ? 17 : -EPROTO;
}

static int runs_in_copy(void *arg, void **out) {
    (void)arg;
    (void)out;
    heist_context_token token = HEIST_CONTEXT_TOKEN_INIT;
    heist_context *copy = NULL;
    void *result = NULL;
    int err = heist_context_set(first, NUMBER(1), NULL, &token);
    if (!err) err = heist_context_copy(NULL, &copy);
    if (err) return err;
    err = heist_context_run(copy, in_copy, &err, &result) == 17 && result == &err ? 0 : -EPROTO;
    if (!err && (value(first) != 1 || value_in(copy, first) != 2)) err = -EPROTO;
    heist_context_unref(copy);
    int reset = heist_context_reset(&token);
    return err ? err : reset;
}

static void run_calls_a_function_in_a_context_of_its_own(void **state) {
    (void)state;
    as_main(runs_in_copy, NULL);
    make_vars();
    assert_int_equal(runs_in_copy(NULL, NULL), 0); /* a plain thread */
    drop_vars();
}

static int runs_in_blocking_section(void *arg, void **out) {
    heist_context *ctx = NULL;
    void *result = NULL;
    int err = set(first, 1);
    if (!err) err = heist_context_copy(NULL, &ctx);
    if (err) return err;
    err = heist_blocking_begin();
    if (!err) {
        int code = value(first) == 1 ? heist_context_run(ctx, inline_body, arg, &result) : -EPROTO;
        err = heist_blocking_end();
        if (!err) err = code;
    }
    (void)out;
    if (!err && (value(first) != 1 || value_in(ctx, first) != 2)) err = -EPROTO;
    heist_context_unref(ctx);
    return err;
}

static void a_blocking_section_keeps_the_context_of_its_task(void **state) {
    (void)state;
    as_main(runs_in_blocking_section, NULL);
}

static int run_callback(void *arg) {
    *(int *)arg = runs_in_copy(NULL, NULL);
    return 0;
}

static void run_works_in_a_callback(void **state) {
    (void)state;
    make_vars();
    heist_loop *loop = harness_loop();
    int got = -1;
    assert_int_equal(heist_loop_call_soon(loop, run_callback, &got, NULL, NULL), 0);
    harness_one_pass(loop);
    assert_int_equal(got, 0);
    harness_loop_end(loop);
    drop_vars();
}

/* ---- callbacks ---- */

struct look {
    heist_loop *loop;
    int seen, fd, times;
};

static int look(void *arg) {
    struct look *l = arg;
    l->seen = value(first);
    int err = set(first, l->seen + 1000);
    return err && err != -ENOMEM ? -EPROTO : 0; /* no memory: where a test wants it so */
}

static void look_done(heist_future *f, void *arg) {
    (void)f;
    look(arg);
}

static int look_reader(void *arg) {
    struct look *l = arg;
    char byte;
    if (read(l->fd, &byte, 1) != 1) return -EIO;
    look(l);
    return ++l->times == 2 ? heist_loop_stop(l->loop) : 0;
}

static void callbacks_run_in_a_copy_of_the_context_of_their_registration_CTX_05_CB_21(void **state) {
    (void)state;
    make_vars();
    heist_loop *loop = harness_loop();
    heist_future *f = NULL, *loose = NULL;
    heist_context_token token = HEIST_CONTEXT_TOKEN_INIT;
    struct look soon = {loop, 0, 0, 0}, later = soon, at = soon, done = soon, here = soon, none = soon,
                cancelled = soon;
    struct look threadsafe = soon;
    heist_handle *handle = NULL;
    freed = 0;
    assert_int_equal(heist_future_new(loop, &f), 0);
    assert_int_equal(heist_future_new(NULL, &loose), 0);
    assert_int_equal(heist_loop_call_soon(loop, look, &none, NULL, NULL), 0);
    assert_int_equal(heist_context_set(first, NUMBER(1), count_free, &token), 0);
    assert_int_equal(heist_loop_call_soon(loop, look, &soon, NULL, NULL), 0);
    assert_int_equal(heist_loop_call_soon_threadsafe(loop, look, &threadsafe, NULL, NULL), 0);
    assert_int_equal(heist_loop_call_later(loop, 1, look, &later, NULL, NULL), 0);
    assert_int_equal(heist_loop_call_at(loop, heist_loop_time(loop) + 2, look, &at, NULL, &handle), 0);
    assert_int_equal(heist_future_add_done_callback(f, look_done, &done, NULL), 0);
    assert_int_equal(heist_future_add_done_callback(loose, look_done, &here, NULL), 0);
    assert_int_equal(heist_future_add_done_callback(loose, look_done, &cancelled, NULL), 0);
    assert_int_equal(heist_future_remove_done_callback(loose, look_done, &cancelled), 1);
    assert_int_equal(heist_context_reset(&token), 0);
    assert_int_equal(freed, 0);
    assert_int_equal(heist_future_set_result(loose, NULL, NULL), 0); /* in this thread, now */
    assert_int_equal(here.seen, 1);
    assert_int_equal(value(first), UNSET);
    assert_int_equal(heist_future_set_result(f, NULL, NULL), 0);
    assert_int_equal(heist_loop_call_later(loop, 3, stop_loop, loop, NULL, NULL), 0);
    assert_int_equal(heist_loop_run_forever(loop), 0);
    assert_int_equal(none.seen, UNSET);
    assert_int_equal(soon.seen, 1);
    assert_int_equal(threadsafe.seen, 1);
    assert_int_equal(later.seen, 1);
    assert_int_equal(at.seen, 1);
    assert_int_equal(done.seen, 1);
    assert_int_equal(cancelled.seen, 0);
    assert_int_equal(freed, 1); /* also while somebody holds a handle that ran */
    heist_handle_unref(handle);
    heist_unref(f);
    heist_unref(loose);
    harness_loop_end(loop);
    assert_int_equal(value(first), UNSET);
    drop_vars();
}

static void a_reader_keeps_its_context_from_call_to_call_CTX_05(void **state) {
    (void)state;
    make_vars();
    heist_loop *loop = harness_loop();
    int ends[2];
    heist_context_token token = HEIST_CONTEXT_TOKEN_INIT;
    assert_int_equal(pipe(ends), 0);
    struct look l = {loop, 0, ends[0], 0};
    assert_int_equal(heist_context_set(first, NUMBER(1), NULL, &token), 0);
    assert_int_equal(heist_loop_add_reader(loop, ends[0], look_reader, &l, NULL), 0);
    assert_int_equal(heist_context_reset(&token), 0);
    assert_int_equal(write(ends[1], "ab", 2), 2);
    assert_int_equal(heist_loop_run_forever(loop), 0);
    assert_int_equal(l.seen, 1001);
    assert_int_equal(heist_loop_remove_reader(loop, ends[0]), 1);
    close(ends[0]);
    close(ends[1]);
    harness_loop_end(loop);
    drop_vars();
}

static void a_callback_may_be_given_a_context_CB_21(void **state) {
    (void)state;
    make_vars();
    heist_loop *loop = harness_loop(), *other = harness_loop();
    heist_context *ctx = NULL;
    heist_call_options opts = HEIST_CALL_OPTIONS_INIT;
    struct look a = {loop, 0, 0, 0}, b = a, c = a;
    heist_handle *handle = NULL, *timer = NULL;
    assert_int_equal(heist_context_new(&ctx), 0);
    opts.context = ctx;
    assert_int_equal(heist_loop_call_soon(loop, look, &a, &opts, NULL), 0);
    assert_int_equal(heist_loop_call_soon(loop, look, &b, &opts, NULL), 0);
    assert_int_equal(heist_loop_call_soon(loop, look, &c, &opts, &handle), 0);
    assert_int_equal(heist_loop_call_later(loop, 1, look, &c, &opts, &timer), 0);
    assert_int_equal(heist_loop_call_soon(other, look, &c, &opts, NULL), -EBUSY);
    assert_int_equal(heist_handle_cancel(handle), 1);
    assert_int_equal(heist_handle_cancel(timer), 1);
    harness_one_pass(loop);
    assert_int_equal(a.seen, UNSET);
    assert_int_equal(b.seen, 999);
    assert_int_equal(c.seen, 0);
    assert_int_equal(value_in(ctx, first), 1999);
    /* Nobody uses it any more, though the handles live. */
    assert_int_equal(heist_loop_call_soon(other, look, &c, &opts, NULL), 0);
    heist_handle_unref(handle);
    heist_handle_unref(timer);
    harness_loop_end(other); /* dropped */
    assert_int_equal(c.seen, 0);
    assert_int_equal(heist_context_run(ctx, never, NULL, NULL), -EPROTO);
    harness_loop_end(loop);
    heist_context_unref(ctx);
    drop_vars();
}

static int posts(void *arg, void **out) {
    (void)out;
    struct look *l = arg;
    heist_loop *loop;
    int err = set(first, 5);
    if (!err) err = heist_get_running_loop(&loop);
    if (!err) err = heist_loop_call_soon(loop, look, l, NULL, NULL);
    if (!err) err = set(first, 6);
    if (!err) err = heist_sleep(1);
    return err;
}

static void a_callback_posted_by_a_task_sees_the_tasks_values_CTX_05(void **state) {
    (void)state;
    struct look l = {NULL, 0, 0, 0};
    as_main(posts, &l);
    assert_int_equal(l.seen, 5);
}

/* What a destructor sets on a worker belongs to nobody. */
static void sets_in_a_destructor(void *arg) { *(int *)arg = set(first, 3); }

static void what_a_destructor_sets_is_seen_by_no_callback_or_task(void **state) {
    (void)state;
    make_vars();
    heist_loop *loop = harness_loop();
    int err = -1;
    struct look l = {loop, 0, 0, 0};
    heist_task_options opts = HEIST_TASK_OPTIONS_INIT;
    opts.arg_free = sets_in_a_destructor;
    assert_int_equal(heist_loop_create_task(loop, calls_inline, &err, &opts, NULL), 0);
    harness_one_pass(loop);
    harness_one_pass(loop);
    assert_int_equal(err, 0);
    assert_int_equal(heist_loop_call_soon(loop, look, &l, NULL, NULL), 0);
    harness_one_pass(loop);
    assert_int_equal(l.seen, UNSET);
    harness_loop_end(loop);
    assert_int_equal(value(first), UNSET);
    drop_vars();
}

/* ---- threads, mains, wrong calls ---- */

static int main_looks(void *arg, void **out) {
    (void)out;
    *(int *)arg = value(first);
    return set(first, 2);
}

static void main_begins_with_the_variables_of_the_thread_that_runs_it(void **state) {
    (void)state;
    make_vars();
    heist_context_token token = HEIST_CONTEXT_TOKEN_INIT;
    int seen = 0;
    assert_int_equal(heist_context_set(first, NUMBER(1), NULL, &token), 0);
    assert_int_equal(harness_run(main_looks, &seen, NULL), 0);
    assert_int_equal(seen, 1);
    seen = 0;
    heist_loop *loop = harness_loop();
    assert_int_equal(heist_loop_run_coroutine(loop, main_looks, &seen, NULL, NULL), 0);
    assert_int_equal(seen, 1);
    harness_loop_end(loop);
    assert_int_equal(value(first), 1);
    assert_int_equal(heist_context_reset(&token), 0);
    drop_vars();
}

static void *thread_sets(void *arg) {
    int *seen = arg;
    seen[0] = value(first);
    seen[1] = heist_context_set(first, NUMBER(8), count_free, NULL);
    seen[2] = value(first);
    return NULL;
}

static void a_thread_has_a_context_of_its_own_that_ends_with_it(void **state) {
    (void)state;
    make_vars();
    heist_context_token token = HEIST_CONTEXT_TOKEN_INIT;
    int seen[3];
    freed = 0;
    assert_int_equal(heist_context_set(first, NUMBER(1), NULL, &token), 0);
    harness_join(harness_thread(thread_sets, seen));
    assert_int_equal(seen[0], UNSET);
    assert_int_equal(seen[1], 0);
    assert_int_equal(seen[2], 8);
    assert_int_equal(value(first), 1);
    assert_int_equal(freed, 1);
    assert_int_equal(heist_context_reset(&token), 0);
    drop_vars();
}

static int clears_its_result(void *arg, void **out) {
    if (*out) return -EPROTO;
    *out = arg;
    return arg ? -EIO : 0;
}

static void a_call_in_a_context_has_a_place_for_its_result(void **state) {
    (void)state;
    heist_context *ctx;
    void *result = &ctx;
    assert_int_equal(heist_context_new(&ctx), 0);
    assert_int_equal(heist_context_run(ctx, clears_its_result, NULL, NULL), 0);
    assert_int_equal(heist_context_run(ctx, clears_its_result, &result, &result), -EIO);
    assert_ptr_equal(result, &ctx); /* untouched by a failure */
    assert_int_equal(heist_context_run(ctx, clears_its_result, NULL, &result), 0);
    assert_null(result);
    heist_context_unref(ctx);
}

static void wrong_arguments_are_refused(void **state) {
    (void)state;
    make_vars();
    heist_context_var_options opts = HEIST_CONTEXT_VAR_OPTIONS_INIT;
    heist_context_var *var = NULL;
    heist_context *ctx = NULL;
    void *out = NULL;
    assert_int_equal(heist_context_var_new("x", NULL, NULL), -EINVAL);
    opts.flags = 0x40u;
    assert_int_equal(heist_context_var_new("x", &opts, &var), -EINVAL);
    opts.flags = 0;
    opts.value = &out; /* a default that is not asked for */
    assert_int_equal(heist_context_var_new("x", &opts, &var), -EINVAL);
    opts.size = 3;
    assert_int_equal(heist_context_var_new("x", &opts, &var), -EINVAL);
    assert_null(var);
    assert_int_equal(heist_context_var_new(NULL, NULL, &var), 0);
    assert_string_equal(heist_context_var_name(var), "unnamed");
    assert_null(heist_context_var_name(NULL));
    heist_context_var_unref(heist_context_var_ref(var));
    heist_context_var_unref(var);
    heist_context_var_unref(NULL);
    assert_int_equal(heist_context_get(NULL, &out), -EINVAL);
    assert_int_equal(heist_context_set(NULL, NULL, NULL, NULL), -EINVAL);
    assert_int_equal(heist_context_reset(NULL), -EINVAL);
    heist_context_token_drop(NULL);
    assert_int_equal(heist_context_new(NULL), -EINVAL);
    assert_int_equal(heist_context_copy(NULL, NULL), -EINVAL);
    assert_int_equal(heist_context_new(&ctx), 0);
    assert_int_equal(heist_context_run(NULL, never, NULL, NULL), -EINVAL);
    assert_int_equal(heist_context_run(ctx, NULL, NULL, NULL), -EINVAL);
    assert_int_equal(heist_context_lookup(NULL, first, &out), -EINVAL);
    assert_int_equal(heist_context_lookup(ctx, NULL, &out), -EINVAL);
    assert_int_equal(heist_context_lookup(ctx, first, &out), HEIST_ENOTSET);
    assert_int_equal(heist_context_count(NULL), -EINVAL);
    assert_int_equal(heist_context_count(ctx), 0);
    heist_context_unref(heist_context_ref(ctx));
    heist_context_unref(ctx);
    heist_context_unref(NULL);
    drop_vars();
}

/* A program that was built before tasks and callbacks had contexts passes shorter options. */
static void options_without_the_field_are_accepted(void **state) {
    (void)state;
    make_vars();
    heist_loop *loop = harness_loop();
    heist_context_token token = HEIST_CONTEXT_TOKEN_INIT;
    heist_task_options t = HEIST_TASK_OPTIONS_INIT;
    heist_call_options c = HEIST_CALL_OPTIONS_INIT;
    t.size = offsetof(heist_task_options, context);
    t.context = NUMBER(1); /* beyond the size: no option */
    c.size = offsetof(heist_call_options, context);
    c.context = NUMBER(1);
    struct look l = {loop, 0, 0, 0};
    int seen = 0;
    assert_int_equal(heist_context_set(first, NUMBER(1), NULL, &token), 0);
    assert_int_equal(heist_loop_run_coroutine(loop, main_looks, &seen, &t, NULL), 0);
    assert_int_equal(seen, 1);
    assert_int_equal(heist_loop_call_soon(loop, look, &l, &c, NULL), 0);
    harness_one_pass(loop);
    assert_int_equal(l.seen, 1);
    assert_int_equal(heist_context_reset(&token), 0);
    harness_loop_end(loop);
    drop_vars();
}

/* ---- memory ---- */

static _Atomic(int) made;
static int made_value(heist_context_var *var, int n, heist_context_token *token) {
    int err = heist_context_set(var, NUMBER(n), count_free, token);
    made += err == 0;
    return err;
}

static int short_child(void *arg, void **out) {
    (void)arg;
    (void)out;
    if (value(first) != 1) return -EPROTO;
    int err = made_value(first, 5, NULL);
    return err ? err : value(first) == 5 ? 0 : -EPROTO;
}

static int first_code(int a, int b) { return a && a != -ENOMEM ? a : b && b != -ENOMEM ? b : a ? a : b; }

static int short_main(void *arg, void **out) {
    (void)arg;
    (void)out;
    heist_context_token token = HEIST_CONTEXT_TOKEN_INIT;
    heist_context *copy = NULL;
    heist_task *t = NULL;
    heist_future *f = NULL;
    heist_loop *loop = NULL;
    struct look l = {NULL, 0, 0, 0};
    int err = made_value(first, 1, NULL);
    if (err) return err;
    err = heist_create_task(short_child, NULL, NULL, &t);
    if (!err) err = heist_await(t, NULL);
    heist_unref(t);
    err = first_code(err, heist_context_copy(NULL, &copy));
    if (copy) {
        heist_task_options opts = HEIST_TASK_OPTIONS_INIT;
        opts.context = copy;
        t = NULL;
        int given = heist_create_task(short_child, NULL, &opts, &t);
        if (!given) given = heist_await(t, NULL);
        heist_unref(t);
        err = first_code(err, given);
        int ran = heist_context_run(copy, in_copy, NULL, &(void *){NULL}); /* 17, or what it found */
        err = first_code(err, ran == 17 || ran == -EPROTO ? 0 : ran);
    }
    int set = made_value(first, 2, &token);
    if (!set) set = heist_context_reset(&token);
    err = first_code(err, set);
    for (int i = 0; set == -ENOMEM && i < 3 && token.opaque[0]; i++) {
        int again = heist_context_reset(&token); /* the token is as before */
        if (again != -ENOMEM) break;
    }
    heist_context_token_drop(&token);
    err = first_code(err, heist_get_running_loop(&loop));
    err = first_code(err, heist_loop_call_soon(loop, look, &l, NULL, NULL));
    int future = heist_future_new(loop, &f);
    if (!future) {
        future = heist_future_add_done_callback(f, look_done, &l, NULL);
        heist_future_set_result(f, NULL, NULL);
    }
    heist_unref(f);
    err = first_code(err, future);
    heist_context_unref(copy);
    int slept = heist_sleep(0.001);
    return first_code(err, slept);
}

static void contexts_survive_each_failing_allocation(void **state) {
    (void)state;
    make_vars();
    for (int all = 0; all < 2; all++) {
        for (long n = 1;; n++) {
            long blocks = harness_blocks();
            freed = made = 0;
            harness_allocations();
            harness_fail_allocation(n, all);
            int err = harness_run(short_main, NULL, NULL);
            harness_fail_allocation(0, false);
            long asked = harness_allocations();
            if (err && err != -ENOMEM) fail_msg("allocation %ld failing: %s", n, heist_error_name(err));
            assert_int_equal(freed, made);
            assert_int_equal(harness_blocks(), blocks);
            if (asked < n) break;
        }
    }
    drop_vars();
}

static void a_child_of_fork_may_not_use_contexts(void **state) {
    (void)state;
    make_vars();
    heist_context *ctx = NULL, *copy = NULL;
    heist_context_token token = HEIST_CONTEXT_TOKEN_INIT;
    assert_int_equal(heist_context_new(&ctx), 0);
    assert_int_equal(heist_context_set(first, NUMBER(1), NULL, &token), 0);
    int ends[2], told = -1;
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (!child) {
        int wrong = heist_context_get(first, NULL) != HEIST_EFORKED;
        wrong += heist_context_set(first, NULL, NULL, NULL) != HEIST_EFORKED;
        wrong += heist_context_reset(&token) != HEIST_EFORKED;
        wrong += heist_context_copy(ctx, &copy) != HEIST_EFORKED;
        wrong += heist_context_run(ctx, never, NULL, NULL) != HEIST_EFORKED;
        wrong += heist_context_lookup(ctx, first, NULL) != HEIST_EFORKED;
        heist_context_unref(ctx);
        heist_context_var_unref(first);
        _exit(write(ends[1], &wrong, sizeof wrong) == sizeof wrong ? 0 : 1);
    }
    close(ends[1]);
    assert_int_equal(read(ends[0], &told, sizeof told), sizeof told); /* not its status: a detector may have its say */
    close(ends[0]);
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_int_equal(told, 0);
    assert_int_equal(heist_context_reset(&token), 0);
    heist_context_unref(ctx);
    drop_vars();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        API_TEST(an_unset_variable_gives_its_default_or_says_so_CTX_07),
        API_TEST(a_token_undoes_its_set_once),
        API_TEST(tokens_may_be_used_in_any_order),
        API_TEST(a_token_of_another_context_is_refused),
        API_TEST(dozens_of_variables_keep_their_values_apart),
        API_TEST(the_destructor_runs_when_the_last_copy_lets_go),
        API_TEST(a_task_runs_in_a_copy_taken_at_its_creation_CTX_01_CTX_02),
        API_TEST(an_inline_coroutine_shares_the_context_of_its_task_CTX_04),
        API_TEST(a_task_that_runs_in_place_has_its_own_context),
        API_TEST(a_context_goes_with_its_task_from_worker_to_worker_MT_05),
        API_TEST(what_a_task_sets_in_a_given_context_is_seen_there_and_a_second_user_is_busy_CTX_03),
        API_TEST(pinned_tasks_of_one_loop_may_share_a_context),
        API_TEST(a_context_is_free_again_after_a_task_that_never_ran),
        API_TEST(a_task_tells_its_coroutine_and_its_context_TASK_31),
        API_TEST(run_calls_a_function_in_a_context_of_its_own),
        API_TEST(a_blocking_section_keeps_the_context_of_its_task),
        API_TEST(run_works_in_a_callback),
        API_TEST(callbacks_run_in_a_copy_of_the_context_of_their_registration_CTX_05_CB_21),
        API_TEST(a_reader_keeps_its_context_from_call_to_call_CTX_05),
        API_TEST(a_callback_may_be_given_a_context_CB_21),
        API_TEST(a_callback_posted_by_a_task_sees_the_tasks_values_CTX_05),
        API_TEST(what_a_destructor_sets_is_seen_by_no_callback_or_task),
        API_TEST(main_begins_with_the_variables_of_the_thread_that_runs_it),
        API_TEST(a_thread_has_a_context_of_its_own_that_ends_with_it),
        API_TEST(a_call_in_a_context_has_a_place_for_its_result),
        API_TEST(wrong_arguments_are_refused),
        API_TEST(options_without_the_field_are_accepted),
        API_TEST(contexts_survive_each_failing_allocation),
        API_TEST(a_child_of_fork_may_not_use_contexts),
    };
    return HARNESS_MAIN("context", tests);
}
