/* One simulated run of a program's body, for testing.c and search.c. */
#ifndef HEIST_CHECK_RUN_H
#define HEIST_CHECK_RUN_H

#include <heist/testing.h>

#include "check/plan.h"
#include "check/seed.h"
#include "check/sim.h"

struct heist__run {
    int code;                        /* the body's */
    struct heist__sim_report report; /* OK, or how it failed */
};

/* By the calling thread as controller.  0, or the codes of heist__sim_run. */
int heist__run_body(heist_sim_body fn, void *arg, const heist_sim_options *o, const struct heist__strategy *strategy,
                    struct heist__record *record, struct heist__run *run);
int heist__run_seed(heist_sim_body fn, void *arg, const heist_sim_options *o, uint64_t seed,
                    struct heist__record *record, struct heist__run *run);
int heist__run_plan(heist_sim_body fn, void *arg, const heist_sim_options *o, const char *text,
                    struct heist__record *record, struct heist__run *run);

bool heist__sim_options_ok(const heist_sim_options *o);
/* Everything but seed, runs and shrinking. */
void heist__run_result(const struct heist__run *run, const struct heist__record *record, heist_sim_result *r);

#endif
