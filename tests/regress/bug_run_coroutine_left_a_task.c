/* heist_loop_run_coroutine failed and ran the coroutine all the same, later.
 *
 * It made the task first and then what it needs to wait for it, and to run the loop. When that was
 * refused (no memory; another thread runs the loop) it returned the code, but the task stood in
 * the queue: the next run of the loop called the body with an argument that the caller, who had been told of a failure,
 * had freed meanwhile. Now all that can be refused is refused before there is a task. */
#include "regress/workers.h"

static int counts(void *arg, void **out) {
    (void)out;
    ++*(_Atomic(int) *)arg;
    return 0;
}

static void count_free(void *arg) { ++*(_Atomic(int) *)arg; }

static void without_memory_there_is_no_task(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    for (long n = 1;; n++) {
        _Atomic(int) ran = 0;
        harness_allocations();
        harness_fail_allocation(n, false);
        int err = heist_loop_run_coroutine(loop, counts, &ran, NULL, NULL);
        harness_fail_allocation(0, false);
        long asked = harness_allocations();
        assert_int_equal(ran, err == 0);
        harness_one_pass(loop);
        harness_one_pass(loop);
        assert_int_equal(ran, err == 0);
        if (asked < n) break;
        assert_int_equal(err, -ENOMEM);
    }
    harness_loop_end(loop);
}

struct other {
    heist_loop *loop;
    int err;
    _Atomic(int) ran;
};

static void *runs_it_too(void *arg) {
    struct other *o = arg;
    heist_task_options opts = HEIST_TASK_OPTIONS_INIT;
    opts.arg_free = count_free;
    o->err = heist_loop_run_coroutine(o->loop, counts, &o->ran, &opts, NULL);
    return NULL;
}

static int meets_another(void *arg) {
    harness_join(harness_thread(runs_it_too, arg));
    return 0;
}

static void while_another_thread_runs_the_loop_there_is_no_task(void **state) {
    (void)state;
    struct other o = {harness_loop(), 0, 0};
    assert_int_equal(heist_loop_call_soon(o.loop, meets_another, &o, NULL, NULL), 0);
    harness_one_pass(o.loop);
    harness_one_pass(o.loop);
    assert_int_equal(o.err, HEIST_ERUNNING);
    assert_int_equal(o.ran, 0); /* neither run nor freed: arg_free counts here too */
    assert_int_equal(heist_runtime_task_count(heist_loop_runtime(o.loop)), 0);
    harness_loop_end(o.loop);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        API_TEST(without_memory_there_is_no_task),
        API_TEST(while_another_thread_runs_the_loop_there_is_no_task),
    };
    return HARNESS_MAIN("run_coroutine_left_a_task", tests);
}
