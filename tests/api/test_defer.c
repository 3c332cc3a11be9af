/* Clean-up that always runs: heist_defer, exit stacks. */
#include "support/harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

struct word {
    struct record *record;
    const char *text;
};
static void say(void *arg) {
    struct word *w = arg;
    record_add(w->record, "%s", w->text);
}

static int leaves(struct record *record, int way) {
    struct word a = {record, "a"}, b = {record, "b"}, c = {record, "c"};
    heist_defer(say, &a);
    if (way == 0) return 1;
    for (int i = 0; i < 3; i++) {
        struct word inner = {record, i ? "two" : "one"};
        heist_defer(say, &inner);
        if (way == 1 && i == 1) break;
        if (way == 2) goto out;
        if (way == 4) continue;
    }
    {
        heist_defer(say, &b);
        heist_defer(say, &c);
        heist_defer(NULL, &c);
        if (way == 3) return 3;
        record_add(record, "end");
    }
    return 4;
out:
    record_add(record, "out");
    return 2;
}

static void deferred_calls_run_on_every_way_out_the_last_one_first(void **state) {
    (void)state;
    static const char *const said[] = {"a", "one two end c b a", "one out a", "one two two c b a",
                                       "one two two end c b a"};
    static const int code[] = {1, 4, 2, 3, 4};
    for (int way = 0; way < 5; way++) {
        struct record record = RECORD_INIT;
        assert_int_equal(leaves(&record, way), code[way]);
        assert_string_equal(record_text(&record), said[way]);
    }
}

/* ---- in a task ---- */

struct scene {
    struct record record;
    heist_future *gate;
    int slept, after;
};

static void cleans_up(void *arg) {
    struct scene *s = arg;
    record_add(&s->record, "begin");
    heist_cancel(heist_current_task()); /* a second request, in the middle of it */
    s->slept = heist_sleep(0.01);       /* is held */
    record_add(&s->record, "done");
}

static int defers(void *arg, void **out) {
    (void)out;
    struct scene *s = arg;
    heist_defer(cleans_up, s);
    return heist_await(s->gate, NULL);
}

static int outer(void *arg, void **out) {
    struct scene *s = arg;
    int err = defers(arg, out);
    s->after = heist_sleep(0.01); /* here the second request is delivered */
    return err;
}

static int cancels_it(void *arg, void **out) {
    (void)out;
    struct scene *s = arg;
    heist_task *t = NULL;
    int err = heist_future_new(NULL, &s->gate);
    if (!err) err = heist_create_task(outer, s, NULL, &t);
    if (!err) err = heist_sleep(1);
    if (err) return err;
    heist_cancel(t);
    err = heist_await(t, NULL);
    heist_unref(t);
    heist_unref(s->gate);
    return err == -ECANCELED ? 0 : -EPROTO;
}

static void a_deferred_call_of_a_cancelled_task_may_suspend_and_holds_further_requests(void **state) {
    (void)state;
    struct scene s = {RECORD_INIT, NULL, -1, 0};
    assert_int_equal(harness_run(cancels_it, &s, NULL), 0);
    assert_string_equal(record_text(&s.record), "begin done");
    assert_int_equal(s.slept, 0);
    assert_int_equal(s.after, -ECANCELED);
}

/* ---- exit stacks ---- */

struct step {
    struct record *record;
    const char *text;
    int says;
    heist_exit_stack *adds_to;
};

static int exits(void *arg, int code) {
    struct step *s = arg;
    record_add(s->record, "%s:%d", s->text, code);
    if (s->adds_to && heist_exit_stack_defer(s->adds_to, say, s)) return -EIO;
    return s->says;
}

static void steps_run_last_first_and_each_hears_what_the_others_left(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_exit_stack stack = HEIST_EXIT_STACK_INIT;
    struct step last = {&record, "last", 0, NULL}, fails = {&record, "fails", -EPIPE, NULL},
                heals = {&record, "heals", 1, NULL}, first = {&record, "first", 0, NULL};
    struct word word = {&record, "word"};
    assert_int_equal(heist_exit_stack_close(&stack, -EIO), -EIO); /* empty */
    assert_int_equal(heist_exit_stack_push(&stack, exits, &last), 0);
    assert_int_equal(heist_exit_stack_push(&stack, exits, &fails), 0);
    assert_int_equal(heist_exit_stack_push(&stack, exits, &heals), 0);
    assert_int_equal(heist_exit_stack_defer(&stack, say, &word), 0);
    assert_int_equal(heist_exit_stack_push(&stack, exits, &first), 0);
    assert_int_equal(heist_exit_stack_close(&stack, -5), -EPIPE);
    assert_string_equal(record_text(&record), "first:-5 word heals:-5 fails:0 last:-32");
    record_clear(&record);
    /* It is empty, and may be used again; a positive code counts as success. */
    assert_int_equal(heist_exit_stack_push(&stack, exits, &heals), 0);
    assert_int_equal(heist_exit_stack_close(&stack, 7), 0);
    assert_string_equal(record_text(&record), "heals:0");
}

static void a_step_may_add_steps_and_many_find_room(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_exit_stack stack = HEIST_EXIT_STACK_INIT;
    struct step adds = {&record, "adds", 0, &stack};
    struct word words[40];
    for (int i = 0; i < 40; i++) {
        words[i] = (struct word){&record, i % 2 ? "y" : "x"};
        assert_int_equal(heist_exit_stack_defer(&stack, say, &words[i]), 0);
    }
    assert_int_equal(heist_exit_stack_push(&stack, exits, &adds), 0);
    assert_int_equal(heist_exit_stack_close(&stack, 0), 0);
    assert_int_equal(record_words(&record), 42);
    assert_memory_equal(record_text(&record), "adds:0 adds y x y", 17);
}

static int enters(void *manager, void **out) {
    struct step *s = manager;
    record_add(s->record, "enter");
    if (s->says < 0) return s->says;
    *out = s;
    return 0;
}
static const heist_with_ops ops = {sizeof(heist_with_ops), enters, exits};

static void a_manager_is_left_when_it_was_entered(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_exit_stack stack = HEIST_EXIT_STACK_INIT, kept = HEIST_EXIT_STACK_INIT;
    struct step good = {&record, "good", 0, NULL}, bad = {&record, "bad", -EACCES, NULL};
    void *entered = NULL;
    assert_int_equal(heist_exit_stack_enter(&stack, &ops, &good, &entered), 0);
    assert_ptr_equal(entered, &good);
    entered = NULL;
    assert_int_equal(heist_exit_stack_enter(&stack, &ops, &bad, &entered), -EACCES);
    assert_null(entered);
    /* All went well: what was prepared lives on. */
    assert_int_equal(heist_exit_stack_move(&stack, &kept), 0);
    assert_int_equal(heist_exit_stack_close(&stack, -EIO), -EIO);
    assert_string_equal(record_text(&record), "enter enter");
    assert_int_equal(heist_exit_stack_defer(&stack, say, &good), 0);
    assert_int_equal(heist_exit_stack_move(&stack, &kept), -EBUSY);
    assert_int_equal(heist_exit_stack_close(&kept, 0), 0);
    assert_int_equal(heist_exit_stack_move(&stack, &kept), 0);
    assert_int_equal(heist_exit_stack_close(&kept, 0), 0);
    assert_string_equal(record_text(&record), "enter enter good:0 good");
}

static int stack_in_task(void *arg, void **out) {
    (void)out;
    struct scene *s = arg;
    heist_exit_stack stack = HEIST_EXIT_STACK_INIT;
    int err = heist_exit_stack_defer(&stack, cleans_up, s);
    if (!err) err = heist_await(s->gate, NULL);
    return heist_exit_stack_close(&stack, err);
}

static int cancels_stack(void *arg, void **out) {
    (void)out;
    struct scene *s = arg;
    heist_task *t = NULL;
    int err = heist_future_new(NULL, &s->gate);
    if (!err) err = heist_create_task(stack_in_task, s, NULL, &t);
    if (!err) err = heist_sleep(1);
    if (err) return err;
    heist_cancel(t);
    err = heist_await(t, NULL);
    heist_unref(t);
    heist_unref(s->gate);
    return err == -ECANCELED ? 0 : -EPROTO;
}

static void the_steps_of_a_cancelled_task_hold_further_requests(void **state) {
    (void)state;
    struct scene s = {RECORD_INIT, NULL, -1, 0};
    assert_int_equal(harness_run(cancels_stack, &s, NULL), 0);
    assert_string_equal(record_text(&s.record), "begin done");
    assert_int_equal(s.slept, 0);
}

static void without_memory_nothing_is_added_or_entered(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_exit_stack stack = HEIST_EXIT_STACK_INIT;
    struct step good = {&record, "good", 0, NULL};
    for (int i = 0; i < 2; i++) {
        harness_fail_allocation(1, false);
        assert_int_equal(heist_exit_stack_push(&stack, exits, &good), -ENOMEM);
        harness_fail_allocation(1, false);
        assert_int_equal(heist_exit_stack_defer(&stack, say, &good), -ENOMEM);
        harness_fail_allocation(1, false);
        assert_int_equal(heist_exit_stack_enter(&stack, &ops, &good, NULL), -ENOMEM);
        harness_fail_allocation(0, false);
        assert_int_equal(record_words(&record), 0);
        if (!i)
            for (int k = 0; k < 4; k++) assert_int_equal(heist_exit_stack_push(&stack, exits, &good), 0);
    }
    assert_int_equal(heist_exit_stack_close(&stack, 0), 0);
    assert_int_equal(record_words(&record), 4);
}

static void wrong_arguments_and_forked_children_are_refused(void **state) {
    (void)state;
    heist_exit_stack stack = HEIST_EXIT_STACK_INIT;
    static const heist_with_ops half = {sizeof(heist_with_ops), enters, NULL}, small = {3, enters, exits};
    assert_int_equal(heist_exit_stack_push(NULL, exits, NULL), -EINVAL);
    assert_int_equal(heist_exit_stack_push(&stack, NULL, NULL), -EINVAL);
    assert_int_equal(heist_exit_stack_defer(NULL, say, NULL), -EINVAL);
    assert_int_equal(heist_exit_stack_defer(&stack, NULL, NULL), -EINVAL);
    assert_int_equal(heist_exit_stack_enter(NULL, &ops, NULL, NULL), -EINVAL);
    assert_int_equal(heist_exit_stack_enter(&stack, NULL, NULL, NULL), -EINVAL);
    assert_int_equal(heist_exit_stack_enter(&stack, &half, NULL, NULL), -EINVAL);
    assert_int_equal(heist_exit_stack_enter(&stack, &small, NULL, NULL), -EINVAL);
    assert_int_equal(heist_exit_stack_move(&stack, NULL), -EINVAL);
    assert_int_equal(heist_exit_stack_move(NULL, &stack), -EINVAL);
    assert_int_equal(heist_exit_stack_move(&stack, &stack), -EINVAL);
    assert_int_equal(heist_exit_stack_close(NULL, 0), -EINVAL);
    heist_loop *loop = harness_loop(); /* so that a fork is seen as one */
    int ends[2], told = -1;
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (!child) {
        int wrong = heist_exit_stack_push(&stack, exits, NULL) != HEIST_EFORKED;
        wrong += heist_exit_stack_defer(&stack, say, NULL) != HEIST_EFORKED;
        wrong += heist_exit_stack_close(&stack, 0) != HEIST_EFORKED;
        _exit(write(ends[1], &wrong, sizeof wrong) == sizeof wrong ? 0 : 1);
    }
    close(ends[1]);
    assert_int_equal(read(ends[0], &told, sizeof told), sizeof told); /* not its status: a detector may have its say */
    close(ends[0]);
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_int_equal(told, 0);
    harness_loop_end(loop);
}

/* Enters by adding a step of its own to the stack that it is entered on. */
static int enters_and_defers(void *manager, void **out) {
    struct step *s = manager;
    int err = heist_exit_stack_defer(s->adds_to, say, s);
    *out = s;
    return err;
}
static int says_exit(void *manager, int code) {
    struct step *s = manager;
    record_add(s->record, "exit:%d", code);
    return 0;
}
static const heist_with_ops adding = {sizeof(heist_with_ops), enters_and_defers, says_exit};

static void a_manager_may_add_steps_while_it_is_entered(void **state) {
    (void)state;
    for (int before = 0; before < 5; before++)
        for (int fails = 0; fails < 2; fails++) {
            struct record record = RECORD_INIT;
            heist_exit_stack stack = HEIST_EXIT_STACK_INIT;
            struct word word = {&record, "w"};
            struct step manager = {&record, "deferred", 0, &stack};
            for (int i = 0; i < before; i++) assert_int_equal(heist_exit_stack_defer(&stack, say, &word), 0);
            bool full = before == 3; /* room for four: enter's own step takes the last place */
            if (fails && full) harness_fail_allocation(1, false);
            int err = heist_exit_stack_enter(&stack, &adding, &manager, NULL);
            harness_fail_allocation(0, false);
            assert_int_equal(err, fails && full ? -ENOMEM : 0);
            assert_int_equal(heist_exit_stack_close(&stack, 0), 0);
            assert_int_equal(record_words(&record), before + 2);
            assert_memory_equal(record_text(&record), err ? "exit:-12 deferred" : "exit:0 deferred", 15);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        API_TEST(deferred_calls_run_on_every_way_out_the_last_one_first),
        API_TEST(a_deferred_call_of_a_cancelled_task_may_suspend_and_holds_further_requests),
        API_TEST(steps_run_last_first_and_each_hears_what_the_others_left),
        API_TEST(a_step_may_add_steps_and_many_find_room),
        API_TEST(a_manager_is_left_when_it_was_entered),
        API_TEST(a_manager_may_add_steps_while_it_is_entered),
        API_TEST(the_steps_of_a_cancelled_task_hold_further_requests),
        API_TEST(without_memory_nothing_is_added_or_entered),
        API_TEST(wrong_arguments_and_forked_children_are_refused),
    };
    return HARNESS_MAIN("defer", tests);
}
