/* Every scene with 1, 2 and 3 workers under some dozens of seeds: no law of the engine breaks.  HEIST_SEEDS in the
 * environment asks for more of them, HEIST_SEED for others. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <heist/testing.h>

#include "seeded/scenes.h"

#define SEEDS 30

static uint64_t asked(const char *name, uint64_t otherwise) {
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 0) : otherwise;
}

static void the_laws_of_all_scenes_hold_with(int workers) {
    int failed = 0;
    uint64_t runs = 0;
    for (int i = 0; i < scene_count; i++) {
        if (workers < scenes[i].least) continue;
        char name[64];
        snprintf(name, sizeof(name), "%s/%d", scenes[i].name, workers);
        heist_sim_options o = HEIST_SIM_OPTIONS_INIT;
        o.seeds = asked("HEIST_SEEDS", SEEDS);
        o.seed = asked("HEIST_SEED", 1);
        o.name = name;
        heist_sim_result r = HEIST_SIM_RESULT_INIT;
        int found = heist_sim_search(scenes[i].body, &workers, &o, &r);
        failed += found != 0;
        runs += r.runs;
    }
    assert_int_equal(failed, 0);
    /* A replay asked for by the environment runs one search's only. */
    if (!getenv("HEIST_SIM_PLAN") && !getenv("HEIST_SIM_SEED")) assert_true(runs >= (uint64_t)scene_count - 1);
}

static void the_laws_of_all_scenes_hold_with_one_worker(void **state) {
    (void)state;
    the_laws_of_all_scenes_hold_with(1);
}

static void the_laws_of_all_scenes_hold_with_two_workers(void **state) {
    (void)state;
    the_laws_of_all_scenes_hold_with(2);
}

static void the_laws_of_all_scenes_hold_with_three_workers(void **state) {
    (void)state;
    the_laws_of_all_scenes_hold_with(3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_laws_of_all_scenes_hold_with_one_worker),
        cmocka_unit_test(the_laws_of_all_scenes_hold_with_two_workers),
        cmocka_unit_test(the_laws_of_all_scenes_hold_with_three_workers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
