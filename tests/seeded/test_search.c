/* The search finds planted faults within a bounded number of seeds, shrinks them, and replays them exactly. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <heist.h>
#include <heist/testing.h>

#include "base/macros.h"

static heist_sim_options quiet(uint64_t seeds) {
    heist_sim_options o = HEIST_SIM_OPTIONS_INIT;
    o.flags = HEIST_SIM_QUIET;
    o.seeds = seeds;
    return o;
}

/* ---- a lost update between two threads ---- */

static int counter;

static void add_in_two_steps(void *arg) {
    (void)arg;
    int seen = counter;
    heist_sim_point();
    counter = seen + 1;
}

static int lossy(void *arg) {
    (void)arg;
    counter = 0;
    heist_sim_thread *t[2];
    for (int i = 0; i < 2; i++) heist_sim_check(heist_sim_thread_start(add_in_two_steps, NULL, &t[i]) == 0);
    for (int i = 0; i < 2; i++) heist_sim_thread_join(t[i]);
    heist_sim_check(counter == 2);
    return 0;
}

static void a_lost_update_is_found_shrunk_and_replayed(void **state) {
    (void)state;
    heist_sim_options o = quiet(200);
    heist_sim_result r = HEIST_SIM_RESULT_INIT;
    assert_int_equal(heist_sim_search(lossy, NULL, &o, &r), 1);
    assert_int_equal(r.outcome, HEIST_SIM_FAILED);
    assert_non_null(strstr(r.message, "counter == 2 does not hold"));
    /* One thread gives way between its two steps; that is all it takes, whatever the seed did besides. */
    assert_int_equal(r.decisions, 1);
    assert_int_equal(r.preemptions, 1);
    assert_int_not_equal(r.plan[0], 0);
    heist_sim_result again = HEIST_SIM_RESULT_INIT;
    o.plan = r.plan;
    assert_int_equal(heist_sim_run(lossy, NULL, &o, &again), 0);
    assert_int_equal(again.outcome, HEIST_SIM_FAILED);
    assert_true(again.hash == r.hash);
    assert_string_equal(again.plan, r.plan);
}

/* ---- the same seed, the same run ---- */

static int busy_task(void *arg, void **out) {
    (void)out;
    for (int i = 0; i < 3; i++) {
        int err = heist_sleep(0.001 * (double)(intptr_t)arg);
        if (err) return err;
    }
    return 0;
}

static int busy(void *arg) {
    (void)arg;
    heist_runtime_options ro = HEIST_RUNTIME_OPTIONS_INIT;
    ro.workers = 3;
    heist_runtime *rt;
    heist_sim_check(heist_runtime_new(&ro, &rt) == 0);
    heist_task *t[6];
    for (intptr_t i = 0; i < 6; i++) heist_sim_check(heist_runtime_run_coroutine(rt, busy_task, (void *)i, NULL, &t[i]) == 0);
    for (int i = 0; i < 6; i++) {
        heist_sim_check(heist_await(t[i], NULL) == 0);
        heist_unref(t[i]);
    }
    heist_sim_check(heist_runtime_close(rt, HEIST_FOREVER) == 0);
    heist_runtime_unref(rt);
    return 0;
}

static uint64_t hash_of(uint64_t seed) {
    heist_sim_options o = quiet(0);
    o.seed = seed;
    heist_sim_result r = HEIST_SIM_RESULT_INIT;
    if (heist_sim_run(busy, NULL, &o, &r) || r.outcome) return 0;
    return r.hash;
}

/* In a fresh process, or 0. */
static uint64_t hash_elsewhere(uint64_t seed) {
    int ends[2];
    if (pipe(ends)) return 0;
    pid_t pid = fork();
    if (pid == 0) {
        char text[24];
        snprintf(text, sizeof(text), "%llu", (unsigned long long)seed);
        dup2(ends[1], STDOUT_FILENO);
        execl("/proc/self/exe", "test_search", "--hash", text, (char *)NULL);
        _exit(9);
    }
    close(ends[1]);
    char text[32] = "";
    ssize_t n = read(ends[0], text, sizeof(text) - 1);
    close(ends[0]);
    int status;
    if (waitpid(pid, &status, 0) != pid || n <= 0) return 0;
    return strtoull(text, NULL, 16);
}

static void a_seed_replays_in_this_process_and_in_another(void **state) {
    (void)state;
    int different = 0;
    uint64_t first = 0;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        uint64_t there = hash_elsewhere(seed);
        assert_true(there != 0);
        assert_true(hash_elsewhere(seed) == there);
        /* Here it is not the first run: the table of arenas has an empty entry by then, one look more. */
        hash_of(seed);
        uint64_t here = hash_of(seed);
        assert_true(here != 0);
        assert_true(hash_of(seed) == here);
        if (seed == 1) first = there;
        different += there != first;
    }
    assert_true(different >= 4);
}

/* ---- deadlock ---- */

static pthread_mutex_t left = PTHREAD_MUTEX_INITIALIZER, right = PTHREAD_MUTEX_INITIALIZER;

static void left_then_right(void *arg) {
    (void)arg;
    heist_sim_lock(&left);
    heist_sim_lock(&right);
    heist_sim_unlock(&right);
    heist_sim_unlock(&left);
}

static void right_then_left(void *arg) {
    (void)arg;
    heist_sim_lock(&right);
    heist_sim_lock(&left);
    heist_sim_unlock(&left);
    heist_sim_unlock(&right);
}

static int crossed(void *arg) {
    (void)arg;
    heist_sim_thread *t[2];
    heist_sim_check(heist_sim_thread_start(left_then_right, NULL, &t[0]) == 0);
    heist_sim_check(heist_sim_thread_start(right_then_left, NULL, &t[1]) == 0);
    for (int i = 0; i < 2; i++) heist_sim_thread_join(t[i]);
    return 0;
}

static void crossed_locks_are_reported_as_a_deadlock(void **state) {
    (void)state;
    heist_sim_options o = quiet(200);
    heist_sim_result r = HEIST_SIM_RESULT_INIT;
    assert_int_equal(heist_sim_search(crossed, NULL, &o, &r), 1);
    assert_int_equal(r.outcome, HEIST_SIM_DEADLOCK);
    assert_in_range(r.decisions, 1, 3);
}

/* ---- what stands still, spins, crashes, exits, hangs ---- */

static int waits_for_nobody(void *arg) {
    (void)arg;
    heist_future *f;
    heist_sim_check(heist_future_new(NULL, &f) == 0);
    return heist_await(f, NULL);
}

static int spins(void *arg) {
    (void)arg;
    for (;;) heist_sim_spin();
    return 0;
}

static int aborts(void *arg) {
    (void)arg;
    abort();
}

static int leaves(void *arg) {
    (void)arg;
    _exit(3);
}

static int blocks(void *arg) {
    (void)arg;
    for (;;) pause();
    return 0;
}

static int returns(void *arg) {
    (void)arg;
    return 7;
}

static void each_way_to_fail_is_told_apart(void **state) {
    (void)state;
    const struct {
        heist_sim_body body;
        int outcome, code;
    } way[] = {
        {waits_for_nobody, HEIST_SIM_DEADLOCK, 0}, {spins, HEIST_SIM_LIMIT, 0},   {aborts, HEIST_SIM_CRASHED, 6},
        {leaves, HEIST_SIM_CRASHED, 3},            {returns, HEIST_SIM_FAILED, 7}, {blocks, HEIST_SIM_HUNG, 0},
    };
    for (size_t i = 0; i < HEIST_ARRAY_LEN(way); i++) {
        heist_sim_options o = quiet(1);
        o.max_steps = 10000;
        o.run_seconds = way[i].outcome == HEIST_SIM_HUNG ? 0.2 : 60;
        heist_sim_result r = HEIST_SIM_RESULT_INIT;
        assert_int_equal(heist_sim_search(way[i].body, NULL, &o, &r), 1);
        assert_int_equal(r.outcome, way[i].outcome);
        if (way[i].outcome == HEIST_SIM_CRASHED || way[i].outcome == HEIST_SIM_FAILED)
            assert_int_equal(r.code, way[i].code);
        assert_int_equal(r.decisions, 0); /* none is needed */
    }
}

/* ---- time ---- */

static int sleeps_a_day(void *arg, void **out) {
    (void)arg, (void)out;
    return heist_sleep(86400);
}

static int a_day(void *arg) {
    (void)arg;
    double begun = heist_time();
    int err = heist_run(sleeps_a_day, NULL, NULL, NULL);
    heist_sim_check(heist_time() - begun >= 86400 && heist_time() - begun < 86401);
    return err;
}

static void a_day_passes_in_a_moment(void **state) {
    (void)state;
    heist_sim_options o = quiet(20);
    heist_sim_result r = HEIST_SIM_RESULT_INIT;
    assert_int_equal(heist_sim_search(a_day, NULL, &o, &r), 0);
    assert_int_equal(r.runs, 20);
}

/* ---- choices shrink to the ordinary outcome ---- */

static int chooses(void *arg) {
    (void)arg;
    unsigned drawn[8];
    for (int i = 0; i < 8; i++) drawn[i] = heist_sim_choose(10);
    heist_sim_check(drawn[3] < 5);
    return 0;
}

static void only_the_choice_that_matters_is_left(void **state) {
    (void)state;
    heist_sim_options o = quiet(100);
    heist_sim_result r = HEIST_SIM_RESULT_INIT;
    assert_int_equal(heist_sim_search(chooses, NULL, &o, &r), 1);
    assert_int_equal(r.decisions, 1);
    assert_non_null(strchr(r.plan, '='));
}

static void bad_options_are_refused(void **state) {
    (void)state;
    heist_sim_result r = HEIST_SIM_RESULT_INIT;
    heist_sim_options o = quiet(1);
    assert_int_equal(heist_sim_search(NULL, NULL, &o, &r), -EINVAL);
    assert_int_equal(heist_sim_run(lossy, NULL, &o, NULL), -EINVAL);
    o.plan = "0.1>";
    assert_int_equal(heist_sim_run(lossy, NULL, &o, &r), -EINVAL);
    o.plan = "0.1!nothing1";
    assert_int_equal(heist_sim_run(lossy, NULL, &o, &r), -EINVAL);
    o.plan = NULL;
    o.flags = 0x8000;
    assert_int_equal(heist_sim_run(lossy, NULL, &o, &r), -EINVAL);
    o = quiet(1);
    o.fault[HEIST_SIM_FAULT_MEMORY].probability = 1.5;
    assert_int_equal(heist_sim_run(lossy, NULL, &o, &r), -EINVAL);
}

static void outside_a_simulation_the_calls_do_the_plain_thing(void **state) {
    (void)state;
    assert_false(heist_sim_running());
    assert_int_equal(heist_sim_choose(5), 0);
    heist_sim_point();
    heist_sim_spin();
    heist_sim_pause(0.0001);
    assert_int_equal(busy(NULL), 0);
}

int main(int argc, char **argv) {
    if (argc == 3 && strcmp(argv[1], "--hash") == 0) return printf("%llx", (unsigned long long)hash_of(strtoull(argv[2], NULL, 0))) < 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_lost_update_is_found_shrunk_and_replayed),
        cmocka_unit_test(a_seed_replays_in_this_process_and_in_another),
        cmocka_unit_test(crossed_locks_are_reported_as_a_deadlock),
        cmocka_unit_test(each_way_to_fail_is_told_apart),
        cmocka_unit_test(a_day_passes_in_a_moment),
        cmocka_unit_test(only_the_choice_that_matters_is_left),
        cmocka_unit_test(bad_options_are_refused),
        cmocka_unit_test(outside_a_simulation_the_calls_do_the_plain_thing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
