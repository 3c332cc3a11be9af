/* A worker ran all callbacks that stood ready before it looked at anything else.
 *
 * The loops of a runtime have tasks, timers and descriptors beside their callbacks.  One
 * turn ran the whole batch of ready callbacks and pinned steps, as a loop that stands alone
 * does; behind a batch of thousands an unpinned task waited for the last of them.  With one
 * worker nobody else could take it.  Now a turn runs some of the batch, and the rest stays
 * at the head, in its order.
 *
 * A callback early in a long batch makes a task; the task notes how many of the batch had
 * run when its turn came. */
#include "regress/workers.h"

enum { BATCH = 20000, MAKER = 100 };

struct batch {
    heist_loop *loop;
    _Atomic(int) ran, out_of_order, ran_before_task, failed;
    struct gate all_ran, task_ran;
};

struct one {
    struct batch *batch;
    int number;
};

static struct one ones[BATCH];

static int note_the_count(void *arg, void **out) {
    struct batch *batch = arg;
    (void)out;
    batch->ran_before_task = batch->ran;
    gate_open(&batch->task_ran);
    return 0;
}

static int one_of_many(void *arg) {
    struct one *one = arg;
    struct batch *batch = one->batch;
    if (batch->ran != one->number) batch->out_of_order++;
    batch->ran++;
    if (one->number == MAKER && heist_create_task(note_the_count, batch, NULL, NULL) < 0) batch->failed++;
    if (one->number == BATCH - 1) gate_open(&batch->all_ran);
    return 0;
}

static int post_them(void *arg) {
    struct batch *batch = arg;
    for (int i = 0; i < BATCH; i++) {
        ones[i] = (struct one){batch, i};
        if (heist_loop_call_soon(batch->loop, one_of_many, &ones[i], NULL, NULL) < 0) batch->failed++;
    }
    return 0;
}

static void task_does_not_wait_for_a_whole_batch(void **state) {
    (void)state;
    for (EACH_WORKER_COUNT(workers)) {
        heist_runtime *rt = regress_runtime(workers);
        struct batch batch = {.ran_before_task = -1, .all_ran = GATE_INIT, .task_ran = GATE_INIT};
        batch.loop = heist_runtime_loop(rt, 0);
        assert_int_equal(heist_loop_call_soon_threadsafe(batch.loop, post_them, &batch, NULL, NULL), 0);
        gate_wait(&batch.all_ran);
        gate_wait(&batch.task_ran);
        harness_runtime_end(rt);
        assert_int_equal(batch.failed, 0);
        assert_int_equal(batch.out_of_order, 0);
        assert_int_equal(batch.ran, BATCH);
        /* With one worker the place is certain; with more the task may be taken at any time, or late. */
        if (workers == 1) assert_in_range(batch.ran_before_task, MAKER + 1, BATCH / 2);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        API_TEST(task_does_not_wait_for_a_whole_batch),
    };
    return HARNESS_MAIN("bug_callbacks_starve_tasks", tests);
}
