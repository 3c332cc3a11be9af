/* seeded_try [SCENE|all] [WORKERS|0] [SEEDS] [FIRST]: searches by hand; a failure prints its plan. */
#include <heist/testing.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "seeded/scenes.h"

int main(int argc, char **argv) {
    const char *name = argc > 1 ? argv[1] : "all";
    int only = argc > 2 ? atoi(argv[2]) : 0, failed = 0;
    for (int i = 0; i < scene_count; i++) {
        if (strcmp(name, "all") != 0 && strcmp(name, scenes[i].name) != 0) continue;
        for (int w = scenes[i].least; w <= 3; w++) {
            if (only && w != only) continue;
            char label[64];
            snprintf(label, sizeof(label), "%s/%d", scenes[i].name, w);
            heist_sim_options o = HEIST_SIM_OPTIONS_INIT;
            o.seeds = argc > 3 ? strtoull(argv[3], NULL, 0) : 200;
            o.seed = argc > 4 ? strtoull(argv[4], NULL, 0) : 1;
            o.name = label;
            o.run_seconds = 20;
            heist_sim_result r = HEIST_SIM_RESULT_INIT;
            int found = heist_sim_search(scenes[i].body, &w, &o, &r);
            printf("%-18s %s: %llu runs, %llu steps\n", label, found < 0 ? "error" : found ? "FAILED" : "ok",
                   (unsigned long long)r.runs, (unsigned long long)r.steps);
            fflush(stdout);
            failed += found != 0;
        }
    }
    return failed != 0;
}
