/* heist_loop_run_once said "work is left" after every pass that had run anything.
 *
 * The time-out for the foreign loop was 0 whenever the pass had run a callback, even with
 * nothing ready any more: a host that polls with it turned once more for nothing after
 * each wake-up.  It must be 0 only while something is ready, else the distance to the next
 * timer, else HEIST_FOREVER. */
#include "regress/workers.h"

#include <math.h>

static int nothing(void *arg) {
    (void)arg;
    return 0;
}

static int schedule_another(void *loop) { return heist_loop_call_soon(loop, nothing, NULL, NULL, NULL); }

static void time_out_is_zero_only_while_work_is_left(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    heist_handle *timer = NULL;
    double timeout = -1;
    assert_int_equal(heist_loop_call_soon(loop, nothing, NULL, NULL, NULL), 0);
    assert_int_equal(heist_loop_run_once(loop, &timeout), 0);
    assert_true(isinf(timeout));

    assert_int_equal(heist_loop_call_soon(loop, schedule_another, loop, NULL, NULL), 0);
    timeout = -1;
    assert_int_equal(heist_loop_run_once(loop, &timeout), 0);
    assert_true(timeout == 0); /* the other one */
    assert_int_equal(heist_loop_run_once(loop, &timeout), 0);
    assert_true(isinf(timeout));
    harness_loop_end(loop);

    loop = harness_real_loop();
    assert_int_equal(heist_loop_call_later(loop, 1000, nothing, NULL, NULL, &timer), 0);
    assert_int_equal(heist_loop_call_soon(loop, nothing, NULL, NULL, NULL), 0);
    assert_int_equal(heist_loop_run_once(loop, &timeout), 0);
    assert_true(timeout > 500 && timeout <= 1000);
    assert_int_equal(heist_handle_cancel(timer), 1);
    heist_handle_unref(timer);
    harness_loop_end(loop);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        API_TEST(time_out_is_zero_only_while_work_is_left),
    };
    return HARNESS_MAIN("bug_run_once_timeout", tests);
}
