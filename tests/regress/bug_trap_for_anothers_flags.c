/* A task that unmasks floating-point traps got SIGFPE for what another task had done.
 *
 * The control words move with a task, the flags of past operations do not.  A division by zero of a task
 * that masks it leaves a flag in the processor; when a task that unmasks it went on there, its next
 * operation of the x87 unit trapped, though it did nothing wrong.  Now the flags are cleared where the
 * x87 control word changes.
 *
 * One task unmasks and yields, another one raises the flags and yields, and the first one computes. */
#include <fenv.h>

#include "regress/workers.h"

static volatile long double one = 1, three = 3, zero = 0, third, nowhere;
static _Atomic(int) failed, computed;

static int careful(void *arg, void **out) {
    (void)arg, (void)out;
    feclearexcept(FE_ALL_EXCEPT);
    (void)feenableexcept(FE_DIVBYZERO | FE_INVALID); /* -1 where the machine cannot trap: then nothing is tried */
    for (int i = 0; i < 10; i++) {
        if (heist_yield() < 0) failed++;
        third = one / three;
        computed++;
    }
    fedisableexcept(FE_ALL_EXCEPT);
    return 0;
}

static int careless(void *arg, void **out) {
    (void)arg, (void)out;
    for (int i = 0; i < 10; i++) {
        nowhere = one / zero;
        nowhere = zero / zero;
        if (heist_yield() < 0) failed++;
    }
    return 0;
}

static int both(void *arg, void **out) {
    (void)arg, (void)out;
    heist_task *t[2] = {NULL, NULL};
    if (heist_create_task(careful, NULL, NULL, &t[0]) < 0 || heist_create_task(careless, NULL, NULL, &t[1]) < 0)
        failed++;
    if (heist_gather(t, 2, NULL, 0) < 0) failed++;
    heist_unref(t[0]);
    heist_unref(t[1]);
    return 0;
}

static void flags_of_one_task_do_not_trap_another(void **state) {
    (void)state;
    for (EACH_WORKER_COUNT(workers)) {
        heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
        opts.workers = workers;
        failed = computed = 0;
        assert_int_equal(heist_run(both, NULL, &opts, NULL), 0);
        assert_int_equal(failed, 0);
        assert_int_equal(computed, 10);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        API_TEST(flags_of_one_task_do_not_trap_another),
    };
    return HARNESS_MAIN("bug_trap_for_anothers_flags", tests);
}
