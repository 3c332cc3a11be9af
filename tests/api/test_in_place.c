/* A task that is awaited before it has begun runs on its awaiter's stack (sched/spawn.c).
 * Nothing but its place may differ from any other task: who is current, where a request
 * for cancelling goes, what each finds after a suspension, who else gets his turn. */
#include "support/harness.h"

#include <fenv.h>
#include <string.h>

/* A child whose frames lie so near the awaiter's stand on the same stack: 64 KiB with a guard between. */
static bool near(const void *a, const void *b) {
    uintptr_t x = (uintptr_t)a, y = (uintptr_t)b;
    return (x > y ? x - y : y - x) < 16384;
}

static heist_task *made(heist_coro_fn fn, void *arg, const heist_task_options *opts) {
    heist_task *task = NULL;
    assert_int_equal(heist_create_task(fn, arg, opts, &task), 0);
    return task;
}

static int awaited(heist_coro_fn fn, void *arg, const heist_task_options *opts) {
    heist_task *task = made(fn, arg, opts);
    int err = heist_await(task, NULL);
    heist_unref(task);
    return err;
}

/* ---- the place ---- */

struct place {
    heist_task *awaiter;
    char *awaiter_frame;
    bool in_place, current_differs, awaiter_pending, self_running;
};

static int look_around(void *arg, void **out) {
    struct place *p = arg;
    char here = 0;
    (void)out;
    p->in_place = near(&here, p->awaiter_frame);
    p->current_differs = heist_current_task() != p->awaiter;
    p->awaiter_pending = heist_future_state(p->awaiter) == HEIST_PENDING;
    p->self_running = heist_future_state(heist_current_task()) == HEIST_RUNNING;
    return 0;
}

static int await_one(void *arg, void **out) {
    struct place *p = arg;
    char here = 0;
    (void)out;
    p->awaiter = heist_current_task();
    p->awaiter_frame = &here;
    int err = awaited(look_around, p, NULL);
    assert_ptr_equal(heist_current_task(), p->awaiter);
    assert_int_equal(heist_future_state(p->awaiter), HEIST_RUNNING);
    return err;
}

static void child_that_is_next_runs_in_place_and_is_current_TASK_25(void **state) {
    (void)state;
    struct place p = {0};
    assert_int_equal(harness_run(await_one, &p, NULL), 0);
    if (harness_workers() == 1 && !harness_instrumented()) assert_true(p.in_place); /* others may steal it */
    assert_true(p.current_differs);
    assert_true(p.awaiter_pending);
    assert_true(p.self_running);
}

/* ---- suspending above another's frames ---- */

struct depth {
    int level, most;
    double pause;
};

/* Each level suspends before and after its child, with values of its own that must survive. */
static int nest(void *arg, void **out) {
    struct depth *d = arg;
    volatile char mark[64];
    memset((void *)mark, d->level, sizeof mark);
    heist_task *me = heist_current_task();
    assert_int_equal(heist_sleep(d->pause), 0);
    if (d->level < d->most) {
        struct depth below = {d->level + 1, d->most, d->pause};
        assert_int_equal(awaited(nest, &below, NULL), 0);
    }
    assert_int_equal(heist_sleep(d->pause), 0);
    assert_ptr_equal(heist_current_task(), me);
    for (size_t i = 0; i < sizeof mark; i++) assert_int_equal(mark[i], (char)d->level);
    *out = NULL;
    return 0;
}

static int nests_side_by_side(void *arg, void **out) {
    (void)out;
    enum { SIDE = 16 };
    heist_task *task[SIDE];
    struct depth depth[SIDE];
    for (int i = 0; i < SIDE; i++) {
        depth[i] = (struct depth){0, *(int *)arg, 0.001 * (1 + i % 5)};
        task[i] = made(nest, &depth[i], NULL);
    }
    for (int i = SIDE; i-- > 0;) {
        assert_int_equal(heist_await(task[i], NULL), 0);
        heist_unref(task[i]);
    }
    return 0;
}

static void tasks_of_one_stack_suspend_and_move_together_TASK_17(void **state) {
    (void)state;
    for (int most = 1; most <= 64; most *= 4) assert_int_equal(harness_run(nests_side_by_side, &most, NULL), 0);
}

/* ---- cancelling ---- */

struct chain {
    int level;
    heist_channel *never;
    int *reached;
};

static int wait_at_the_end(void *arg, void **out) {
    struct chain *c = arg;
    (void)out;
    if (c->level == 0) {
        int err = heist_channel_recv(c->never, NULL);
        ++*c->reached;
        return err;
    }
    struct chain next = {c->level - 1, c->never, c->reached};
    return awaited(wait_at_the_end, &next, NULL);
}

static int cancel_the_outermost(void *arg, void **out) {
    (void)arg, (void)out;
    int reached = 0;
    struct chain c = {5, NULL, &reached};
    assert_int_equal(heist_channel_new(0, &c.never), 0);
    heist_task *task = made(wait_at_the_end, &c, NULL);
    assert_int_equal(heist_sleep(1), 0); /* virtual: all wait by then */
    assert_int_equal(heist_cancel(task), 1);
    assert_int_equal(heist_await(task, NULL), -ECANCELED);
    assert_int_equal(heist_future_cancelled(task), 1);
    assert_int_equal(reached, 1);
    heist_unref(task);
    heist_channel_unref(c.never);
    return 0;
}

static void cancel_goes_through_tasks_on_one_stack_to_the_innermost_TASK_09(void **state) {
    (void)state;
    assert_int_equal(harness_run(cancel_the_outermost, NULL, NULL), 0);
}

static int count_run(void *arg, void **out) {
    (void)out;
    ++*(int *)arg;
    return 0;
}

static void count_freed(void *arg) { *(int *)arg += 100; }

static int await_with_a_request(void *arg, void **out) {
    (void)out;
    heist_task_options opts = HEIST_TASK_OPTIONS_INIT;
    opts.arg_free = count_freed;
    heist_task *child = made(count_run, arg, &opts);
    assert_int_equal(heist_cancel(heist_current_task()), 1);
    int err = heist_await(child, NULL); /* the request goes on to the child, which has not begun */
    heist_unref(child);
    return err;
}

static int cancelled_before_the_await(void *arg, void **out) {
    (void)out;
    return awaited(await_with_a_request, arg, NULL);
}

static void request_that_is_pending_at_the_await_goes_to_the_child(void **state) {
    (void)state;
    int count = 0;
    assert_int_equal(harness_run(cancelled_before_the_await, &count, NULL), -ECANCELED);
    if (harness_workers() == 1)
        assert_int_equal(count, 100); /* never ran; its argument was freed */
    else
        assert_true(count == 100 || count == 101); /* a thief may have begun it */
}

/* ---- floating point ---- */

static int rounding_of_a_new_task(void *arg, void **out) {
    (void)out;
    *(int *)arg = fegetround();
    return fesetround(FE_UPWARD);
}

static int rounds_downward(void *arg, void **out) {
    (void)arg, (void)out;
    int child = -1;
    assert_int_equal(awaited(rounding_of_a_new_task, &child, NULL), 0);
    assert_int_equal(child, FE_TONEAREST);
    assert_int_equal(fegetround(), FE_TONEAREST); /* the child's change went with it */
    assert_int_equal(fesetround(FE_DOWNWARD), 0);
    assert_int_equal(awaited(rounding_of_a_new_task, &child, NULL), 0);
    assert_int_equal(child, FE_TONEAREST); /* its thread's, not its awaiter's */
    assert_int_equal(fegetround(), FE_DOWNWARD);
    return 0;
}

static void rounding_mode_is_each_tasks_own(void **state) {
    (void)state;
    if (harness_valgrind()) return; /* it does not model rounding */
    assert_int_equal(harness_run(rounds_downward, NULL, NULL), 0);
}

/* ---- outcomes ---- */

static int fail_plainly(void *arg, void **out) {
    (void)arg, (void)out;
    return heist_fail(-EPROTO, "in place");
}

static int see_failure(void *arg, void **out) {
    (void)arg, (void)out;
    heist_task *child = made(fail_plainly, NULL, NULL);
    assert_int_equal(heist_await(child, NULL), -EPROTO);
    heist_exception e = {.size = sizeof e};
    assert_int_equal(heist_future_exception(child, &e), 0);
    assert_string_equal(e.message, "in place");
    heist_unref(child);
    return 0;
}

static void failure_of_a_child_in_place_is_its_own_TASK_06(void **state) {
    (void)state;
    assert_int_equal(harness_run(see_failure, NULL, NULL), 0);
}

/* ---- room ---- */

#define KIB 1024

/* Uses about `bytes` of stack, and looks that it kept what it wrote. */
static __attribute__((noinline)) size_t use_stack(size_t bytes) {
    volatile char block[2 * KIB];
    memset((void *)block, (int)(bytes % 100), sizeof block);
    size_t below = bytes > sizeof block + 256 ? use_stack(bytes - sizeof block - 128) : 0;
    for (size_t i = 0; i < sizeof block; i += 64) assert_int_equal(block[i], (char)(bytes % 100));
    return below + 1;
}

struct room {
    size_t child_bytes, child_stack;
};

static int use_much(void *arg, void **out) {
    (void)out;
    return use_stack(*(size_t *)arg) > 0 ? 0 : -EINVAL;
}

static int await_deep_in_the_stack(struct room *room, int more) {
    volatile char block[KIB];
    block[0] = (char)more;
    if (more) {
        int err = await_deep_in_the_stack(room, more - 1);
        return block[0] == (char)more ? err : -EINVAL;
    }
    heist_task_options opts = HEIST_TASK_OPTIONS_INIT;
    opts.stack_bytes = room->child_stack;
    return awaited(use_much, &room->child_bytes, &opts);
}

static int rooms(void *arg, void **out) {
    (void)arg, (void)out;
    /* At every depth of the awaiter a child of the usual size has three quarters of it ... */
    for (int depth = 0; depth < 40; depth++) {
        struct room usual = {46 * KIB, 0};
        assert_int_equal(await_deep_in_the_stack(&usual, depth), 0);
    }
    /* ... and one that asked for its own size has that, a guard and a header apart. */
    for (int depth = 0; depth < 40; depth += 3) {
        struct room large = {200 * KIB, 256 * KIB}, small = {8 * KIB, 16 * KIB};
        assert_int_equal(await_deep_in_the_stack(&large, depth), 0);
        assert_int_equal(await_deep_in_the_stack(&small, depth), 0);
    }
    return 0;
}

static void child_has_the_stack_that_it_asked_for(void **state) {
    (void)state;
    if (harness_instrumented()) return; /* frames are several times as large */
    assert_int_equal(harness_run(rooms, NULL, NULL), 0);
}

/* ---- the others ---- */

struct others {
    _Atomic(int) seen; /* by tasks, callbacks, timers and threads */
};

static int be_seen(void *arg) {
    ((struct others *)arg)->seen++;
    return 0;
}

static int be_seen_in_task(void *arg, void **out) {
    (void)out;
    return be_seen(arg);
}

static int nothing(void *arg, void **out) {
    (void)arg, (void)out;
    return 0;
}

/* Spawns and awaits until all the others had their turn. */
static int greedy(void *arg, void **out) {
    struct others *o = arg;
    heist_loop *loop;
    (void)out;
    assert_int_equal(heist_get_running_loop(&loop), 0);
    assert_int_equal(heist_create_task(be_seen_in_task, o, NULL, NULL), 0);
    assert_int_equal(heist_loop_call_soon(loop, be_seen, o, NULL, NULL), 0);
    assert_int_equal(heist_loop_call_later(loop, 0, be_seen, o, NULL, NULL), 0);
    assert_int_equal(heist_loop_call_soon_threadsafe(loop, be_seen, o, NULL, NULL), 0);
    while (o->seen < 4) assert_int_equal(awaited(nothing, NULL, NULL), 0);
    return 0;
}

static void who_spawns_and_awaits_for_ever_starves_nobody(void **state) {
    (void)state;
    struct others o = {0};
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    opts.workers = harness_workers();
    assert_int_equal(heist_run(greedy, &o, &opts, NULL), 0); /* machine time: it must pass while tasks run */
    assert_int_equal(o.seen, 4);
}

static int fork_join(void *arg, void **out) {
    size_t n = (size_t)arg;
    void *left, *right;
    if (n < 2) {
        *out = (void *)n;
        return 0;
    }
    heist_task *task = made(fork_join, (void *)(n - 2), NULL);
    heist_task *other = made(fork_join, (void *)(n - 1), NULL);
    assert_int_equal(heist_await(other, &left), 0);
    assert_int_equal(heist_await(task, &right), 0);
    heist_unref(other);
    heist_unref(task);
    *out = (void *)((size_t)left + (size_t)right);
    return 0;
}

static void tree_is_summed_right_in_either_order_TASK_17(void **state) {
    (void)state;
    void *sum = NULL;
    assert_int_equal(harness_run(fork_join, (void *)(size_t)(harness_instrumented() ? 15 : 20), &sum), 0);
    assert_int_equal((size_t)sum, harness_instrumented() ? 610 : 6765);
}

static const struct CMUnitTest tests[] = {
    API_TEST(child_that_is_next_runs_in_place_and_is_current_TASK_25),
    API_TEST(tasks_of_one_stack_suspend_and_move_together_TASK_17),
    API_TEST(cancel_goes_through_tasks_on_one_stack_to_the_innermost_TASK_09),
    API_TEST(request_that_is_pending_at_the_await_goes_to_the_child),
    API_TEST(rounding_mode_is_each_tasks_own),
    API_TEST(failure_of_a_child_in_place_is_its_own_TASK_06),
    API_TEST(child_has_the_stack_that_it_asked_for),
    API_TEST(who_spawns_and_awaits_for_ever_starves_nobody),
    API_TEST(tree_is_summed_right_in_either_order_TASK_17),
};

int main(void) {
    return HARNESS_MAIN("in_place", tests);
}
