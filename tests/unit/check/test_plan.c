/* Plans as text, and what a failure's report says. */
#include "check/plan.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <heist.h>
#include <heist/testing.h>

#include "base/macros.h"
#include "check/run.h"

static void text_survives_the_way_to_a_plan_and_back(void **state) {
    (void)state;
    static const char text[] = "0.5>1,0.9@,1.3!short17,1.4!eintr1,2.1=3,s.0>2";
    struct heist__plan p;
    assert_int_equal(heist__plan_of_text(&p, text), 0);
    assert_int_equal(p.count, 6);
    char back[sizeof(text)];
    assert_int_equal(heist__plan_write(p.item, p.count, back, sizeof(back)), sizeof(text) - 1);
    assert_string_equal(back, text);
    char little[8];
    assert_int_equal(heist__plan_write(p.item, p.count, little, sizeof(little)), sizeof(text) - 1);
    assert_string_equal(little, "0.5>1,0");
    heist__plan_free(&p);
    assert_int_equal(heist__plan_of_text(&p, ""), 0);
    assert_int_equal(p.count, 0);
    heist__plan_free(&p);
}

static void what_is_no_plan_is_refused(void **state) {
    (void)state;
    static const char *const bad[] = {"0", "0.", "0.1", "0.1>", "x.1>2", "0.1!no1", "0.1!eintr", "99.1>2", "0.1>2;1.1>2",
                                      "0.1>4294967296", ">", "0.1>2x"};
    for (size_t i = 0; i < HEIST_ARRAY_LEN(bad); i++) {
        struct heist__plan p;
        assert_int_equal(heist__plan_of_text(&p, bad[i]), -EINVAL);
    }
}

static int waits_for_ever(void *arg, void **out) {
    heist_future *f = arg;
    (void)out;
    return heist_await(f, NULL);
}

static int never_ends(void *arg) {
    (void)arg;
    heist_runtime_options ro = HEIST_RUNTIME_OPTIONS_INIT;
    ro.workers = 1;
    heist_runtime *rt;
    heist_future *f;
    heist_task *t;
    heist_task_options to = HEIST_TASK_OPTIONS_INIT;
    to.name = "the patient one";
    if (heist_runtime_new(&ro, &rt) || heist_future_new(NULL, &f) ||
        heist_runtime_run_coroutine(rt, waits_for_ever, f, &to, &t))
        return 1;
    return heist_await(t, NULL);
}

static void a_deadlock_is_reported_with_threads_tasks_and_switches(void **state) {
    (void)state;
    heist_sim_options o = HEIST_SIM_OPTIONS_INIT;
    struct heist__record *record = calloc(1, sizeof(*record) + 1024 * sizeof(record->list[0]));
    struct heist__run *run = calloc(1, sizeof(*run));
    assert_non_null(record);
    assert_non_null(run);
    record->room = 1024;
    assert_int_equal(heist__run_plan(never_ends, NULL, &o, "", record, run), 0);
    assert_int_equal(run->report.outcome, HEIST__SIM_DEADLOCK);
    const char *text = run->report.text;
    assert_non_null(strstr(text, "thread 0 ("));
    assert_non_null(strstr(text, "waits for a futex"));
    assert_non_null(strstr(text, "thread 1 (heist/0) polls for a descriptor or a wake-up"));
    assert_non_null(strstr(text, "task 'the patient one' (made at tests/unit/check/test_plan.c:"));
    assert_non_null(strstr(text, ") awaits a future\n"));
    assert_non_null(strstr(text, "0 -> 1  (0 waits)"));
    assert_null(strstr(text, "/tests/unit/check/test_plan.c")); /* no place of this machine */
    free(run);
    free(record);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_survives_the_way_to_a_plan_and_back),
        cmocka_unit_test(what_is_no_plan_is_refused),
        cmocka_unit_test(a_deadlock_is_reported_with_threads_tasks_and_switches), /* last: threads stay where they stood */
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    fflush(NULL);
    _exit(failed != 0); /* what the threads that stand still hold is no leak */
}
