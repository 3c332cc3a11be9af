/* The walk over all schedules: finds what needs so many preemptions and no more, counts right, repeats, reports. */
#include "check/explore.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "conc/atomic.h"
#include "conc/mutex.h"
#include "conc/parker.h"
#include "conc/spin.h"

static _Atomic(int) a, b, counter;

static void reset(void *arg) {
    (void)arg;
    a_store_sc(&a, 0);
    a_store_sc(&b, 0);
    a_store_sc(&counter, 0);
}

/* Two steps where one is needed. */
static void lossy_add(void *arg) {
    (void)arg;
    int seen = a_load_sc(&counter);
    a_store_sc(&counter, seen + 1);
}

static const char *both_counted(void *arg) {
    (void)arg;
    return a_load_sc(&counter) == 2 ? NULL : "an addition was lost";
}

static void one_preemption_finds_the_lost_update(void **state) {
    (void)state;
    struct heist__explore_options o = {.preemptions = 2};
    struct heist__sim_thread_spec t[2] = {{lossy_add, NULL}, {lossy_add, NULL}};
    struct heist__explore_result r;
    assert_int_equal(heist__explore(&o, t, 2, reset, both_counted, NULL, &r), 0);
    assert_int_equal(r.report.outcome, HEIST__SIM_FAILED);
    assert_int_equal(r.bound, 1);
    assert_int_equal(r.at_bound[0], 2); /* either goes first */
    assert_string_equal(r.report.message, "an addition was lost");
    char replay[sizeof(r.replay)];
    strcpy(replay, r.replay);
    assert_int_not_equal(replay[0], 0);
    assert_int_equal(heist__explore_replay(&o, t, 2, reset, both_counted, NULL, replay, &r), 0);
    assert_int_equal(r.report.outcome, HEIST__SIM_FAILED);
    assert_string_equal(r.replay, replay);
    assert_int_equal(heist__explore_replay(&o, t, 2, reset, both_counted, NULL, "", &r), 0);
    assert_int_equal(r.report.outcome, HEIST__SIM_OK);
}

static void sound_add(void *arg) {
    (void)arg;
    a_add_sc(&counter, 1);
}

static void a_sound_program_passes_all_schedules(void **state) {
    (void)state;
    struct heist__explore_options o = {.preemptions = 2};
    struct heist__sim_thread_spec t[2] = {{sound_add, NULL}, {sound_add, NULL}};
    struct heist__explore_result r;
    assert_int_equal(heist__explore(&o, t, 2, reset, both_counted, NULL, &r), 0);
    assert_int_equal(r.report.outcome, HEIST__SIM_OK);
    assert_true(r.complete);
    assert_int_equal(r.bound, 2);
    /* One point each.  Either order without a preemption; with one, the first gives way at its point, and the
     * second may give way back at its own with two. */
    assert_int_equal(r.at_bound[0], 2);
    assert_int_equal(r.at_bound[1], 4);
    assert_int_equal(r.at_bound[2], 6);
}

static struct heist__spin left, right;

static void left_then_right(void *arg) {
    (void)arg;
    heist__spin_lock(&left);
    heist__spin_lock(&right);
    heist__spin_unlock(&right);
    heist__spin_unlock(&left);
}

static void right_then_left(void *arg) {
    (void)arg;
    heist__spin_lock(&right);
    heist__spin_lock(&left);
    heist__spin_unlock(&left);
    heist__spin_unlock(&right);
}

static void init_locks(void *arg) {
    (void)arg;
    heist__spin_init(&left);
    heist__spin_init(&right);
}

static void crossed_locks_are_a_deadlock(void **state) {
    (void)state;
    struct heist__explore_options o = {.preemptions = 1};
    struct heist__sim_thread_spec t[2] = {{left_then_right, NULL}, {right_then_left, NULL}};
    struct heist__explore_result r;
    assert_int_equal(heist__explore(&o, t, 2, init_locks, NULL, NULL, &r), 0);
    assert_int_equal(r.report.outcome, HEIST__SIM_DEADLOCK);
    assert_int_equal(r.bound, 1);
    assert_non_null(strstr(r.report.text, "waits for a spin lock"));
}

static struct heist__mutex mutex;
static struct heist__cond changed;
static bool ready;
static int64_t waited_until;

static void waiter(void *arg) {
    (void)arg;
    heist__mutex_lock(&mutex);
    while (!ready) heist__cond_wait(&changed, &mutex, INT64_MAX);
    heist__mutex_unlock(&mutex);
}

static void signaller(void *arg) {
    (void)arg;
    heist__mutex_lock(&mutex);
    ready = true;
    heist__mutex_unlock(&mutex);
    heist__cond_broadcast(&changed);
}

static void careless_signaller(void *arg) {
    (void)arg;
    heist__cond_broadcast(&changed);
    heist__mutex_lock(&mutex);
    ready = true;
    heist__mutex_unlock(&mutex);
}

static void init_condition(void *arg) {
    (void)arg;
    heist__mutex_init(&mutex, false);
    heist__cond_init(&changed);
    ready = false;
}

static void a_condition_loses_no_signal(void **state) {
    (void)state;
    struct heist__explore_options o = {.preemptions = 3};
    struct heist__sim_thread_spec t[2] = {{waiter, NULL}, {signaller, NULL}};
    struct heist__explore_result r;
    assert_int_equal(heist__explore(&o, t, 2, init_condition, NULL, NULL, &r), 0);
    assert_int_equal(r.report.outcome, HEIST__SIM_OK);
    assert_true(r.complete);
    assert_true(r.executions > 20);
}

static void a_signal_before_the_change_is_lost(void **state) {
    (void)state;
    struct heist__explore_options o = {.preemptions = 1};
    struct heist__sim_thread_spec t[2] = {{waiter, NULL}, {careless_signaller, NULL}};
    struct heist__explore_result r;
    assert_int_equal(heist__explore(&o, t, 2, init_condition, NULL, NULL, &r), 0);
    assert_int_equal(r.report.outcome, HEIST__SIM_DEADLOCK);
    assert_non_null(strstr(r.report.text, "waits for a condition"));
}

static void sleeper(void *arg) {
    (void)arg;
    init_condition(NULL);
    heist__mutex_lock(&mutex);
    int64_t until = heist__sim_now() + INT64_C(3600) * 1000000000;
    int rc = 0;
    while (rc == 0) rc = heist__cond_wait(&changed, &mutex, until);
    waited_until = heist__sim_now() - until;
    heist__mutex_unlock(&mutex);
}

static void time_jumps_over_an_hour(void **state) {
    (void)state;
    struct heist__explore_options o = {.preemptions = 1};
    struct heist__sim_thread_spec t[1] = {{sleeper, NULL}};
    struct heist__explore_result r;
    waited_until = -1;
    assert_int_equal(heist__explore(&o, t, 1, NULL, NULL, NULL, &r), 0);
    assert_int_equal(r.report.outcome, HEIST__SIM_OK);
    assert_in_range(waited_until, 0, 1000000);
    assert_true(r.report.counts.now_ns >= INT64_C(3600) * 1000000000);
}

static void spin_for_a(void *arg) {
    (void)arg;
    while (!a_load_acq(&a)) heist__sim_spin(__FILE__, __LINE__); /* acq: pairs with set_a */
}

static void set_a(void *arg) {
    (void)arg;
    a_add_sc(&b, 1);
    a_store_rel(&a, 1); /* rel: pairs with spin_for_a */
}

static void spinners_are_scheduled_fairly(void **state) {
    (void)state;
    struct heist__explore_options o = {.preemptions = 2, .max_steps = 1000};
    struct heist__sim_thread_spec t[3] = {{spin_for_a, NULL}, {spin_for_a, NULL}, {set_a, NULL}};
    struct heist__explore_result r;
    assert_int_equal(heist__explore(&o, t, 3, reset, NULL, NULL, &r), 0);
    assert_int_equal(r.report.outcome, HEIST__SIM_OK);
    assert_true(r.complete);
}

static void spinning_for_ever_meets_the_limit(void **state) {
    (void)state;
    struct heist__explore_options o = {.preemptions = 0, .max_steps = 1000};
    struct heist__sim_thread_spec t[2] = {{spin_for_a, NULL}, {spin_for_a, NULL}};
    struct heist__explore_result r;
    assert_int_equal(heist__explore(&o, t, 2, reset, NULL, NULL, &r), 0);
    assert_int_equal(r.report.outcome, HEIST__SIM_LIMIT);
    assert_non_null(strstr(r.report.text, "spinning"));
}

static void chooser(void *arg) {
    (void)arg;
    a_store_sc(&a, (int)heist__sim_choose(3));
    a_store_sc(&b, (int)heist__sim_choose(2));
}

static bool seen_pair[3][2];
static const char *note_pair(void *arg) {
    (void)arg;
    seen_pair[a_load_sc(&a)][a_load_sc(&b)] = true;
    return NULL;
}

static void every_outcome_of_a_choice_is_tried(void **state) {
    (void)state;
    struct heist__explore_options o = {.preemptions = 0, .choices = -1};
    struct heist__sim_thread_spec t[1] = {{chooser, NULL}};
    struct heist__explore_result r;
    memset(seen_pair, 0, sizeof(seen_pair));
    assert_int_equal(heist__explore(&o, t, 1, reset, note_pair, NULL, &r), 0);
    assert_true(r.complete);
    assert_int_equal(r.executions, 6);
    for (int i = 0; i < 3; i++)
        for (int k = 0; k < 2; k++) assert_true(seen_pair[i][k]);
    o.choices = 1;
    assert_int_equal(heist__explore(&o, t, 1, reset, note_pair, NULL, &r), 0);
    assert_int_equal(r.executions, 4);
}

static int drift;
static void drifting(void *arg) {
    (void)arg;
    if (++drift % 3 == 0) a_add_sc(&b, 1);
    a_add_sc(&counter, 1);
}

static void a_program_that_drifts_is_refused(void **state) {
    (void)state;
    struct heist__explore_options o = {.preemptions = 2};
    struct heist__sim_thread_spec t[2] = {{drifting, NULL}, {sound_add, NULL}};
    struct heist__explore_result r;
    assert_int_equal(heist__explore(&o, t, 2, reset, NULL, NULL, &r), 0);
    assert_false(r.complete);
    assert_int_equal(r.report.outcome, HEIST__SIM_ODD);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_preemption_finds_the_lost_update),
        cmocka_unit_test(a_sound_program_passes_all_schedules),
        cmocka_unit_test(crossed_locks_are_a_deadlock),
        cmocka_unit_test(a_condition_loses_no_signal),
        cmocka_unit_test(a_signal_before_the_change_is_lost),
        cmocka_unit_test(time_jumps_over_an_hour),
        cmocka_unit_test(spinners_are_scheduled_fairly),
        cmocka_unit_test(spinning_for_ever_meets_the_limit),
        cmocka_unit_test(every_outcome_of_a_choice_is_tried),
        cmocka_unit_test(a_program_that_drifts_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
