/* Prints 42 when a search finds nothing wrong with main.c's answer, and simulated it indeed. */
#include <heist.h>
#include <heist/testing.h>
#include <stdio.h>

static int answer(void *arg, void **out) {
    (void)arg;
    static int value = 42;
    int err = heist_sleep(3600);
    *out = &value;
    return err;
}

static int program(void *arg) {
    void *out = NULL;
    int err = heist_run(answer, arg, NULL, &out);
    heist_sim_check(err != 0 || *(int *)out == 42);
    heist_sim_check(heist_sim_running() == 1);
    return err;
}

int main(void) {
    heist_sim_options options = HEIST_SIM_OPTIONS_INIT;
    heist_sim_result result = HEIST_SIM_RESULT_INIT;
    options.seeds = 42;
    if (heist_sim_search(program, NULL, &options, &result) != 0) return 1;
    printf("%llu\n", (unsigned long long)result.runs);
    return 0;
}
