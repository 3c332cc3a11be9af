/* Pipelines: stages over generators, and buffers that run ahead.  Time is virtual, so the times are exact. */
#include "support/harness.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT 10

/* Values are numbers in pointers; those of the tests of ownership are blocks. */
static void *box(int n) { return (void *)(intptr_t)n; }
static int unbox(const void *value) { return (int)(intptr_t)value; }

struct scene {
    struct record record;
    bool buffered[3];
    int fail_at;   /* which stage, counted from 0; -1: none */
    int fail_when; /* at which value */
    int stubborn;  /* the source goes on after a code that many times */
    double pause;
    double seconds;
    int live, live_after; /* tasks of the runtime beside the caller */
    int err, rounds, break_at;
    atomic_int begun, ended; /* bodies */
};

static int pause_for(struct scene *s, int stage, int n) {
    if (s->fail_at == stage && s->fail_when == n) return heist_fail(-EPROTO, "stage %d", stage);
    return s->pause > 0 ? heist_sleep(s->pause) : 0;
}

static int numbers(heist_generator *self, void *arg, void **out) {
    struct scene *s = arg;
    int err = 0;
    s->begun++;
    for (int i = 0; i < COUNT && !err; i++) {
        err = pause_for(s, 0, i);
        if (!err) err = heist_generator_yield(self, box(i), NULL);
        if (err && err != -EPROTO && s->stubborn) {
            s->stubborn--;
            err = 0;
        }
    }
    s->ended++;
    *out = box(77);
    return err;
}

static int change(heist_generator *self, heist_generator *input, struct scene *s, int stage) {
    void *value;
    int err;
    s->begun++;
    while (!(err = heist_generator_next(input, &value))) {
        int n = unbox(value);
        if ((err = pause_for(s, stage, n))) break;
        if ((err = heist_generator_yield(self, box(stage == 1 ? 2 * n : n + 3), NULL))) break;
    }
    s->ended++;
    return err == HEIST_ESTOP ? 0 : err;
}
static int twice(heist_generator *self, heist_generator *input, void *arg, void **out) {
    (void)out;
    return change(self, input, arg, 1);
}
static int plus_three(heist_generator *self, heist_generator *input, void *arg, void **out) {
    (void)out;
    return change(self, input, arg, 2);
}

/* Replaces *g by a buffer over it. */
static int wrap(heist_generator **g, const heist_pipeline_options *opts) {
    heist_generator *ahead;
    int err = heist_pipeline_buffer(*g, opts, &ahead);
    if (err) return err;
    heist_generator_unref(*g);
    *g = ahead;
    return 0;
}

static int build(struct scene *s, heist_generator **out) {
    static const heist_stage_fn fn[3] = {NULL, twice, plus_three};
    heist_generator *g = NULL;
    int err = heist_generator_new(numbers, s, NULL, &g);
    for (int i = 0; i < 3 && !err; i++) {
        if (i) {
            heist_generator *stage;
            if ((err = heist_pipeline_stage(g, fn[i], s, NULL, &stage))) break;
            heist_generator_unref(g);
            g = stage;
        }
        if (s->buffered[i]) err = wrap(&g, NULL);
    }
    if (err) heist_generator_unref(g);
    else *out = g;
    return err;
}

static int tasks_now(void) {
    heist_loop *loop;
    heist_task **list;
    size_t n;
    if (heist_get_running_loop(&loop) || heist_all_tasks(loop, &list, &n)) return -1;
    heist_task_list_free(list, n);
    return (int)n - 1;
}

static int consume(void *arg, void **out) {
    struct scene *s = arg;
    heist_generator *g;
    void *value;
    (void)out;
    int err = build(s, &g);
    if (err) return err;
    double start = heist_time();
    heist_foreach (value, g, &err) {
        record_add(&s->record, "%d", unbox(value));
        s->rounds++;
        if (s->rounds == 3) s->live = tasks_now();
        if (s->rounds == s->break_at) break;
    }
    s->seconds = heist_time() - start;
    s->err = err;
    s->live_after = tasks_now(); /* before the unref: they were waited for */
    heist_generator_unref(g);
    return err == -ECANCELED ? err : 0;
}

/* On a loop of its own, so that all tasks are listed. */
static void run_on_a_loop(struct scene *s, int expected) {
    heist_loop *loop = harness_loop();
    assert_int_equal(heist_loop_run_coroutine(loop, consume, s, NULL, NULL), expected);
    harness_loop_end(loop);
    assert_int_equal(s->live_after, 0);
    assert_int_equal(s->begun, s->ended);
}

#define ALL_VALUES "3 5 7 9 11 13 15 17 19 21"
#define SCENE                                                                                                          \
    { .record = RECORD_INIT, .fail_at = -1, .pause = 1 }

static void stages_without_buffers_run_one_at_a_time_PIPE_01(void **state) {
    (void)state;
    struct scene s = SCENE;
    run_on_a_loop(&s, 0);
    assert_true(s.seconds > 29.99 && s.seconds < 30.01);
    assert_string_equal(record_text(&s.record), ALL_VALUES);
    assert_int_equal(s.live, 0);
    assert_int_equal(s.err, HEIST_ESTOP);
}

static void buffered_stages_overlap_PIPE_02(void **state) {
    (void)state;
    struct scene s = SCENE;
    s.buffered[0] = s.buffered[1] = s.buffered[2] = true;
    run_on_a_loop(&s, 0);
    assert_true(s.seconds > 11.99 && s.seconds < 12.01);
    assert_string_equal(record_text(&s.record), ALL_VALUES);
}

static void each_mix_of_buffers_gives_the_same_values_PIPE_03_PIPE_07(void **state) {
    (void)state;
    for (int mix = 0; mix < 8; mix++) {
        struct scene s = SCENE;
        for (int i = 0; i < 3; i++) s.buffered[i] = mix >> i & 1;
        run_on_a_loop(&s, 0);
        assert_string_equal(record_text(&s.record), ALL_VALUES);

        struct scene on_runtime = SCENE;
        for (int i = 0; i < 3; i++) on_runtime.buffered[i] = mix >> i & 1;
        on_runtime.pause = mix % 2 ? 0.5 : 0;
        assert_int_equal(harness_run(consume, &on_runtime, NULL), 0);
        assert_string_equal(record_text(&on_runtime.record), ALL_VALUES);
        assert_int_equal(on_runtime.begun, on_runtime.ended);
    }
}

static void one_task_for_each_buffer_PIPE_04(void **state) {
    (void)state;
    for (int mix = 0; mix < 8; mix++) {
        struct scene s = SCENE;
        for (int i = 0; i < 3; i++) s.buffered[i] = mix >> i & 1;
        run_on_a_loop(&s, 0);
        assert_int_equal(s.live, s.buffered[0] + s.buffered[1] + s.buffered[2]);
    }
}

struct ahead {
    size_t length;
    atomic_int made;
    int at_rest;
};
static int make_fast(heist_generator *self, void *arg, void **out) {
    struct ahead *a = arg;
    (void)out;
    for (int i = 0; i < 100; i++) {
        a->made++;
        int err = heist_generator_yield(self, box(i), NULL);
        if (err) return err;
    }
    return 0;
}
static int take_one_and_wait(void *arg, void **out) {
    struct ahead *a = arg;
    heist_generator *g;
    heist_pipeline_options opts = HEIST_PIPELINE_OPTIONS_INIT;
    void *value;
    (void)out;
    opts.length = a->length;
    int err = heist_generator_new(make_fast, a, NULL, &g);
    if (!err) err = wrap(&g, &opts);
    if (!err) err = heist_sleep(1);
    if (!err && a->made) err = -EPROTO; /* it begins when a value is asked for */
    if (!err) err = heist_generator_next(g, &value);
    if (!err) err = heist_sleep(1);
    a->at_rest = a->made;
    if (!err) err = heist_generator_close(g);
    heist_generator_unref(g);
    return err;
}

static void buffer_is_as_long_as_asked_for_PIPE_04(void **state) {
    (void)state;
    static const size_t lengths[] = {0, 1, 4, 50};
    for (int i = 0; i < 4; i++) {
        struct ahead a = {lengths[i], 0, 0};
        assert_int_equal(harness_run(take_one_and_wait, &a, NULL), 0);
        /* one taken, `length` in the buffer, one in the task's hands */
        assert_int_equal(a.at_rest, 1 + (int)(lengths[i] ? lengths[i] : 1) + 1);
    }
}

static void failure_of_any_stage_arrives_when_all_have_ended_PIPE_05(void **state) {
    (void)state;
    for (int mix = 0; mix < 8; mix++) {
        for (int stage = 0; stage < 3; stage++) {
            struct scene s = SCENE;
            for (int i = 0; i < 3; i++) s.buffered[i] = mix >> i & 1;
            s.fail_at = stage;
            s.fail_when = stage ? (stage == 1 ? 4 : 8) : 4;
            run_on_a_loop(&s, 0);
            assert_int_equal(s.err, -EPROTO);
            assert_string_equal(record_text(&s.record), "3 5 7 9"); /* those before it have come */
        }
    }
}

struct canceller {
    struct scene *scene;
    double after;
};
static int cancel_consumer(void *arg, void **out) {
    struct canceller *c = arg;
    heist_task *t;
    (void)out;
    int err = heist_create_task(consume, c->scene, NULL, &t);
    if (err) return err;
    heist_sleep(c->after);
    heist_cancel(t);
    err = heist_await(t, NULL);
    heist_unref(t);
    return err == -ECANCELED ? 0 : -EPROTO;
}

static void cancelling_the_consumer_ends_all_stages_PIPE_06(void **state) {
    (void)state;
    for (int mix = 0; mix < 8; mix++) {
        for (int half = 0; half < 16; half += 3) {
            struct scene s = SCENE;
            for (int i = 0; i < 3; i++) s.buffered[i] = mix >> i & 1;
            struct canceller c = {&s, half + 0.5};
            if ((mix == 7 || mix == 3) && half > 11) continue; /* over by then */
            heist_loop *loop = harness_loop();
            assert_int_equal(heist_loop_run_coroutine(loop, cancel_consumer, &c, NULL, NULL), 0);
            harness_loop_end(loop);
            assert_int_equal(s.err, -ECANCELED);
            assert_int_equal(s.live_after, 1); /* the canceller */
            assert_int_equal(s.begun, s.ended);

            struct scene on_runtime = SCENE;
            for (int i = 0; i < 3; i++) on_runtime.buffered[i] = mix >> i & 1;
            c.scene = &on_runtime;
            assert_int_equal(harness_run(cancel_consumer, &c, NULL), 0);
            assert_int_equal(on_runtime.begun, on_runtime.ended);
        }
    }
}

static void break_ends_all_stages_also_a_source_that_swallows_it(void **state) {
    (void)state;
    for (int mix = 0; mix < 8; mix++) {
        for (int stubborn = 0; stubborn < 2; stubborn++) {
            struct scene s = SCENE;
            for (int i = 0; i < 3; i++) s.buffered[i] = mix >> i & 1;
            s.break_at = 2;
            s.stubborn = stubborn && s.buffered[0];
            run_on_a_loop(&s, 0);
            /* With a buffer in front a value that the source goes on with meets a closed channel; its body is closed
             * then. */
            assert_int_equal(s.err, 0);
            assert_string_equal(record_text(&s.record), "3 5");
        }
    }
}

static int first_two(heist_generator *self, heist_generator *input, void *arg, void **out) {
    struct scene *s = arg;
    void *value;
    s->begun++;
    for (int i = 0; i < 2; i++) {
        int err = heist_generator_next(input, &value);
        if (!err) err = heist_generator_yield(self, value, NULL);
        if (err) return err;
    }
    s->ended++;
    *out = box(5);
    return 0;
}
static int take_two(void *arg, void **out) {
    struct scene *s = arg;
    heist_generator *g, *stage;
    void *value, *result = NULL;
    (void)out;
    int err = build(s, &g);
    if (err) return err;
    err = heist_pipeline_stage(g, first_two, s, NULL, &stage);
    if (!err) err = wrap(&stage, NULL);
    if (err) return err;
    heist_foreach (value, stage, &err) record_add(&s->record, "%d", unbox(value));
    s->err = err;
    s->live_after = tasks_now();
    if (!heist_generator_result(stage, &result)) record_add(&s->record, "result:%d", unbox(result));
    heist_generator_unref(stage);
    heist_generator_unref(g);
    return 0;
}

static void stage_that_has_enough_ends_those_before_it_and_its_result_comes_through(void **state) {
    (void)state;
    struct scene s = SCENE;
    s.buffered[0] = s.buffered[2] = true;
    heist_loop *loop = harness_loop();
    assert_int_equal(heist_loop_run_coroutine(loop, take_two, &s, NULL, NULL), 0);
    harness_loop_end(loop);
    assert_int_equal(s.err, HEIST_ESTOP);
    assert_int_equal(s.live_after, 0);
    assert_string_equal(record_text(&s.record), "3 5 result:5");
}

/* ---- from elsewhere ---- */

static int consume_from_thread(struct scene *s, heist_runtime *rt) {
    heist_generator *g;
    heist_pipeline_options opts = HEIST_PIPELINE_OPTIONS_INIT;
    void *value;
    opts.runtime = rt;
    opts.name = "ahead";
    opts.stack_bytes = 32768;
    int err = build(s, &g);
    if (!err) err = wrap(&g, &opts);
    if (err) return err;
    heist_foreach (value, g, &err) record_add(&s->record, "%d", unbox(value));
    heist_generator_unref(g);
    return err;
}

static void plain_thread_may_consume_with_a_runtime_named(void **state) {
    (void)state;
    heist_runtime *rt = harness_runtime(0);
    struct scene s = SCENE;
    s.pause = 0;
    s.buffered[1] = true;
    assert_int_equal(consume_from_thread(&s, rt), HEIST_ESTOP);
    assert_string_equal(record_text(&s.record), ALL_VALUES);
    struct scene lost = SCENE;
    lost.pause = 0;
    assert_int_equal(consume_from_thread(&lost, NULL), HEIST_ENOLOOP);
    assert_int_equal(record_words(&lost.record), 0);
    harness_runtime_end(rt);
}

struct in_callback {
    struct record record;
    heist_loop *loop;
    heist_generator *g;
};
static int next_in_callback(void *arg) {
    struct in_callback *c = arg;
    void *value;
    record_add(&c->record, "%s", heist_error_name(heist_generator_next(c->g, &value)));
    heist_loop_stop(c->loop);
    return 0;
}
static int drain(void *arg, void **out) {
    struct in_callback *c = arg;
    void *value;
    int err;
    (void)out;
    heist_foreach (value, c->g, &err) record_add(&c->record, "%d", unbox(value));
    return err == HEIST_ESTOP ? 0 : err;
}

static void callback_is_refused_and_nothing_is_lost(void **state) {
    (void)state;
    struct scene s = SCENE;
    struct in_callback c = {.record = RECORD_INIT, .loop = harness_loop()};
    s.buffered[2] = true;
    assert_int_equal(build(&s, &c.g), 0);
    assert_int_equal(heist_loop_call_soon(c.loop, next_in_callback, &c, NULL, NULL), 0);
    assert_int_equal(heist_loop_run_forever(c.loop), 0);
    assert_int_equal(heist_loop_run_coroutine(c.loop, drain, &c, NULL, NULL), 0);
    assert_string_equal(record_text(&c.record), "HEIST_ENOTINCORO " ALL_VALUES);
    heist_generator_unref(c.g);
    harness_loop_end(c.loop);
}

/* ---- what nobody took ---- */

static atomic_int blocks;
static void free_block(void *value) {
    blocks--;
    free(value);
}
static int make_blocks(heist_generator *self, void *arg, void **out) {
    (void)out;
    for (int i = 0; i < *(int *)arg; i++) {
        void *block = malloc(16);
        if (!block) return -ENOMEM;
        blocks++;
        int err = heist_generator_yield(self, block, NULL);
        if (err) {
            return err; /* this one was taken */
        }
    }
    return 0;
}
struct leftovers {
    int n, take;
    bool close;
};
static int leave_some(void *arg, void **out) {
    struct leftovers *l = arg;
    heist_generator *g;
    heist_pipeline_options opts = HEIST_PIPELINE_OPTIONS_INIT;
    void *value;
    (void)out;
    opts.length = 3;
    opts.value_free = free_block;
    int err = heist_generator_new(make_blocks, &l->n, NULL, &g);
    if (!err) err = wrap(&g, &opts);
    for (int i = 0; i < l->take && !err; i++) {
        err = heist_generator_next(g, &value);
        if (!err) free_block(value);
        if (!err && i % 2) err = heist_sleep(0.1);
    }
    if (!err && l->close) err = heist_generator_close(g);
    heist_generator_unref(g);
    return err;
}

static void values_that_nobody_took_are_freed(void **state) {
    (void)state;
    for (int n = 0; n < 8; n++) {
        for (int take = 0; take <= n; take++) {
            struct leftovers l = {n, take, take % 2};
            assert_int_equal(harness_run(leave_some, &l, NULL), 0);
            assert_int_equal(blocks, 0);
        }
    }
}

static void dropped_buffer_ends_its_task(void **state) {
    (void)state;
    struct leftovers l = {100, 2, false};
    heist_runtime *rt = harness_runtime(0);
    heist_task *t;
    assert_int_equal(heist_runtime_run_coroutine(rt, leave_some, &l, NULL, &t), 0);
    assert_int_equal(heist_await(t, NULL), 0);
    heist_unref(t);
    harness_runtime_end(rt);
    assert_int_equal(blocks, 0);
}

/* ---- bad input, no memory ---- */

static void bad_input_is_refused(void **state) {
    (void)state;
    struct scene s = SCENE;
    heist_generator *g = NULL, *out = NULL;
    heist_pipeline_options opts = HEIST_PIPELINE_OPTIONS_INIT;
    heist_generator_options stage = HEIST_GENERATOR_OPTIONS_INIT;
    assert_int_equal(heist_generator_new(numbers, &s, NULL, &g), 0);
    assert_int_equal(heist_pipeline_buffer(NULL, NULL, &out), -EINVAL);
    assert_int_equal(heist_pipeline_buffer(g, NULL, NULL), -EINVAL);
    opts.flags = 1;
    assert_int_equal(heist_pipeline_buffer(g, &opts, &out), -EINVAL);
    opts.flags = 0;
    opts.stack_bytes = 1;
    assert_int_equal(heist_pipeline_buffer(g, &opts, &out), -EINVAL);
    opts.stack_bytes = 0;
    opts.length = SIZE_MAX / 2;
    assert_int_equal(heist_pipeline_buffer(g, &opts, &out), -EINVAL);
    opts.size = 1;
    assert_int_equal(heist_pipeline_buffer(g, &opts, &out), -EINVAL);
    assert_int_equal(heist_pipeline_stage(NULL, twice, &s, NULL, &out), -EINVAL);
    assert_int_equal(heist_pipeline_stage(g, NULL, &s, NULL, &out), -EINVAL);
    assert_int_equal(heist_pipeline_stage(g, twice, &s, NULL, NULL), -EINVAL);
    stage.flags = 2;
    assert_int_equal(heist_pipeline_stage(g, twice, &s, &stage, &out), -EINVAL);
    assert_null(out);
    heist_generator_unref(g);
}

struct short_of {
    struct scene scene;
    long n, asked;
    int err;
};
static int consume_with_failures(void *arg, void **out) {
    struct short_of *o = arg;
    heist_generator *g;
    void *value;
    int sum = 0;
    (void)out;
    harness_fail_allocation(o->n, false);
    int err = build(&o->scene, &g);
    if (!err) {
        heist_foreach (value, g, &err) sum += unbox(value);
        heist_generator_unref(g);
    }
    harness_fail_allocation(0, false);
    o->asked = harness_allocations();
    o->err = err == HEIST_ESTOP && sum != 120 ? -EPROTO : err;
    return 0;
}

static void no_memory_is_a_code_at_each_allocation(void **state) {
    (void)state;
    int refused = 0;
    for (long n = 1; n < 60; n++) {
        struct short_of o = {.scene = SCENE, .n = n};
        o.scene.buffered[0] = o.scene.buffered[2] = true;
        heist_loop *loop = harness_loop();
        assert_int_equal(heist_loop_run_coroutine(loop, consume_with_failures, &o, NULL, NULL), 0);
        harness_loop_end(loop);
        assert_true(o.err == HEIST_ESTOP || o.err == -ENOMEM);
        refused += o.err == -ENOMEM;
        assert_int_equal(o.scene.begun, o.scene.ended);
    }
    assert_true(refused > 5);
}

/* ---- the consumer's requests, and a task that never began ---- */

struct closing {
    heist_generator *source;
    int cleanups, next, close, after, state;
};

static int cleans_up_long(heist_generator *self, void *arg, void **out) {
    struct closing *c = arg;
    int err = 0;
    (void)out;
    while (!err) err = heist_generator_yield(self, NULL, NULL);
    for (int i = 0; i < 5; i++) heist_sleep(1);
    c->cleanups++;
    return err;
}

static int closes_for_long(void *arg, void **out) {
    struct closing *c = arg;
    heist_generator *ahead;
    void *value;
    (void)out;
    if (heist_generator_new(cleans_up_long, c, NULL, &c->source)) return -ENOMEM;
    if (heist_pipeline_buffer(c->source, NULL, &ahead)) return -ENOMEM;
    c->next = heist_generator_next(ahead, &value);
    if (!c->next) c->next = heist_sleep(1);
    c->close = heist_generator_close(ahead); /* from 1 to 5 or 6; the request comes at 3.5 */
    c->state = heist_generator_state(c->source);
    c->after = heist_sleep(1);
    heist_generator_unref(ahead);
    heist_generator_unref(c->source);
    return c->after;
}

static int cancels_who_closes(void *arg, void **out) {
    heist_task *t;
    (void)out;
    int err = heist_create_task(closes_for_long, arg, NULL, &t);
    if (!err) err = heist_sleep(3.5);
    if (err) return err;
    heist_cancel(t);
    err = heist_await(t, NULL);
    heist_unref(t);
    return err;
}

static void request_that_comes_while_a_buffer_is_closed_arrives_at_the_next_call(void **state) {
    (void)state;
    struct closing c = {0};
    assert_int_equal(harness_run(cancels_who_closes, &c, NULL), -ECANCELED);
    assert_int_equal(c.next, 0);
    assert_int_equal(c.close, 0);
    assert_int_equal(c.state, HEIST_GENERATOR_CLOSED);
    assert_int_equal(c.after, -ECANCELED);
    assert_int_equal(c.cleanups, 1);
}

static int asks_with_a_request_pending(void *arg, void **out) {
    struct closing *c = arg;
    heist_generator *ahead;
    void *value;
    (void)out;
    if (heist_generator_new(cleans_up_long, c, NULL, &c->source)) return -ENOMEM;
    if (heist_pipeline_buffer(c->source, NULL, &ahead)) return -ENOMEM;
    int err = heist_generator_next(c->source, &value); /* it stands at a yield */
    heist_cancel(heist_current_task());
    c->next = heist_generator_next(ahead, &value);
    c->state = heist_generator_state(c->source);
    c->after = heist_sleep(1); /* it was delivered once */
    heist_generator_unref(ahead);
    heist_generator_unref(c->source);
    return err;
}

static int hands_on(heist_generator *self, heist_generator *input, void *arg, void **out) {
    void *value;
    int err;
    (void)arg;
    (void)out;
    while (!(err = heist_generator_next(input, &value)))
        if ((err = heist_generator_yield(self, value, NULL))) break;
    return err == HEIST_ESTOP ? 0 : err;
}

static int ends_before_it_began(void *arg, void **out) {
    struct closing *c = arg;
    heist_generator *stage, *ahead;
    (void)out;
    for (int how = 0; how < 3; how++) {
        if (heist_generator_new(cleans_up_long, c, NULL, &c->source)) return -ENOMEM;
        if (heist_generator_next(c->source, NULL)) return -EPROTO;
        if (heist_pipeline_stage(c->source, hands_on, NULL, NULL, &stage)) return -ENOMEM;
        if (heist_pipeline_buffer(stage, NULL, &ahead)) return -ENOMEM;
        int err = how == 0   ? heist_generator_close(stage)
                  : how == 1 ? heist_generator_close(ahead)
                             : heist_generator_throw(ahead, -EPIPE, NULL);
        if (err != (how == 2 ? -EPIPE : 0)) return -EPROTO;
        if (heist_generator_state(c->source) != HEIST_GENERATOR_CLOSED || c->cleanups != how + 1) return -EPROTO;
        heist_generator_unref(ahead);
        heist_generator_unref(stage);
        heist_generator_unref(c->source);
    }
    return 0;
}

static void stage_that_never_began_closes_its_input_too_PIPE_05(void **state) {
    (void)state;
    struct closing c = {0};
    assert_int_equal(harness_run(ends_before_it_began, &c, NULL), 0);
}

static void source_is_closed_although_the_task_never_began_PIPE_06(void **state) {
    (void)state;
    struct closing c = {0};
    heist_loop *loop = harness_loop();
    assert_int_equal(heist_loop_run_coroutine(loop, asks_with_a_request_pending, &c, NULL, NULL), 0);
    harness_loop_end(loop);
    assert_int_equal(c.next, -ECANCELED);
    assert_int_equal(c.state, HEIST_GENERATOR_CLOSED);
    assert_int_equal(c.cleanups, 1);
    assert_int_equal(c.after, 0);
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        API_TEST(stages_without_buffers_run_one_at_a_time_PIPE_01),
        API_TEST(buffered_stages_overlap_PIPE_02),
        API_TEST(each_mix_of_buffers_gives_the_same_values_PIPE_03_PIPE_07),
        API_TEST(one_task_for_each_buffer_PIPE_04),
        API_TEST(buffer_is_as_long_as_asked_for_PIPE_04),
        API_TEST(failure_of_any_stage_arrives_when_all_have_ended_PIPE_05),
        API_TEST(cancelling_the_consumer_ends_all_stages_PIPE_06),
        API_TEST(break_ends_all_stages_also_a_source_that_swallows_it),
        API_TEST(stage_that_has_enough_ends_those_before_it_and_its_result_comes_through),
        API_TEST(plain_thread_may_consume_with_a_runtime_named),
        API_TEST(callback_is_refused_and_nothing_is_lost),
        API_TEST(values_that_nobody_took_are_freed),
        API_TEST(dropped_buffer_ends_its_task),
        API_TEST(bad_input_is_refused),
        API_TEST(no_memory_is_a_code_at_each_allocation),
        API_TEST(request_that_comes_while_a_buffer_is_closed_arrives_at_the_next_call),
        API_TEST(stage_that_never_began_closes_its_input_too_PIPE_05),
        API_TEST(source_is_closed_although_the_task_never_began_PIPE_06),
    };
    return HARNESS_MAIN("api/pipeline", tests);
}
