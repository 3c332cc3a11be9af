/* A task was still counted after its await had returned.
 *
 * The end of a task was published first and counted after it, so whoever had awaited the
 * last task of a runtime could read a count of 1, and with max_tasks = 1 the next creation
 * could be refused although nothing lived.  The window is a few instructions wide: many
 * quick rounds, from a thread outside, which runs beside the worker that ends the task. */
#include "regress/workers.h"
#include "support/pace.h"

#define ROUNDS 3000

static int nothing(void *arg, void **out) {
    (void)arg;
    (void)out;
    return 0;
}

static void task_that_was_awaited_counts_no_more(void **state) {
    (void)state;
    for (EACH_WORKER_COUNT(workers)) {
        heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
        heist_runtime *rt = NULL;
        int counted = 0, refused = 0, failed = 0;
        opts.workers = workers;
        opts.max_tasks = 1;
        assert_int_equal(heist_runtime_new(&opts, &rt), 0);
        for (struct pace pace = pace_of(ROUNDS, 10, 3); pace_goes_on(&pace);) {
            heist_task *task = NULL;
            int err = heist_runtime_run_coroutine(rt, nothing, NULL, NULL, &task);
            if (err == -EAGAIN) refused++;
            if (err < 0) continue;
            if (heist_await(task, NULL) != 0) failed++;
            if (heist_runtime_task_count(rt) != 0) counted++;
            heist_unref(task);
        }
        harness_runtime_end(rt);
        assert_int_equal(counted, 0);
        assert_int_equal(refused, 0);
        assert_int_equal(failed, 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        API_TEST(task_that_was_awaited_counts_no_more),
    };
    return HARNESS_MAIN("bug_count_after_await", tests);
}
