/* A planted race, found by a search.
 *
 * Some tasks pay into one account.  Each reads the balance, waits for its bank, and writes
 * the sum: what another paid meanwhile is lost.  On a real machine it goes well nearly
 * always.  The search runs the program under many seeds, one thread at a time, until the
 * law at its end is broken, and then takes away every decision that is not needed for it. */
#include <heist.h>
#include <heist/testing.h>
#include <stdio.h>
#include <stdlib.h>

enum { PAYERS = 6 };

static int balance;

static int pay(void *arg, void **out) {
    (void)out;
    int seen = balance;
    heist_sim_point(); /* the program's own variables need a point of their own */
    balance = seen + *(int *)arg;
    return 0;
}

static int main_coro(void *arg, void **out) {
    (void)arg, (void)out;
    int amounts[PAYERS] = {2, 4, 6, 8, 10, 12};
    heist_task *t[PAYERS];
    for (int i = 0; i < PAYERS; i++)
        if (heist_create_task(pay, &amounts[i], NULL, &t[i]) < 0) abort();
    int err = heist_gather(t, PAYERS, NULL, 0);
    for (int i = 0; i < PAYERS; i++) heist_unref(t[i]);
    return err;
}

/* One run of the program under test.  Each starts in a process of its own. */
static int program(void *arg) {
    (void)arg;
    balance = 0;
    int err = heist_run(main_coro, NULL, NULL, NULL);
    heist_sim_check(balance == 42);
    return err;
}

int main(void) {
    heist_sim_options options = HEIST_SIM_OPTIONS_INIT;
    options.seeds = 20000;
    options.flags = getenv("HEIST_QUIET") ? HEIST_SIM_QUIET : 0;
    heist_sim_result result = HEIST_SIM_RESULT_INIT;
    int found = heist_sim_search(program, NULL, &options, &result);
    if (found != 1) {
        printf("the race was not found (%d)\n", found);
        return 1;
    }
    printf("found: %s\n", result.outcome == HEIST_SIM_FAILED ? "a payment was lost" : result.message);
    /* The plan alone does it again, at any time. */
    options.plan = result.plan;
    options.flags |= HEIST_SIM_QUIET;
    heist_sim_result again = HEIST_SIM_RESULT_INIT;
    int err = heist_sim_run(program, NULL, &options, &again);
    printf("replayed: %s\n", err == 0 && again.outcome == result.outcome && again.hash == result.hash ? "the same run" : "another run");
    return 0;
}
