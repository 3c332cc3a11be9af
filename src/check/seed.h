/* Schedules and faults drawn from a seed.
 *
 * Two ways to schedule, and the seed says which, unless the options do:
 *   a random walk: a thread goes on for a drawn number of points, then anybody does;
 *   priorities: the threads have drawn priorities and the highest that can run runs, but at
 *     a few drawn points the one that runs falls below all (probabilistic concurrency
 *     testing; Burckhardt, Kothari, Musuvathi and Nagarakatte, ASPLOS 2010).  A fault that
 *     needs d such points is found with a probability of at least 1/(n k^(d-1)), for n
 *     threads and k points; k is not known before the run, so its size is drawn too. */
#ifndef HEIST_CHECK_SEED_H
#define HEIST_CHECK_SEED_H

#include <heist/testing.h>

#include "base/rng.h"
#include "check/sim.h"

#define HEIST__SEED_CHANGES 6

struct heist__seeded {
    struct heist__strategy strategy;
    struct heist__rng schedule, faults;
    bool priorities, jumps;
    uint32_t stay;                        /* random walk: the mean */
    uint64_t priority[HEIST__SIM_THREADS]; /* 0: not drawn yet */
    uint64_t lowest;                      /* priorities below all that were drawn fall from here */
    uint64_t change[HEIST__SEED_CHANGES]; /* points of the run, ascending */
    int changes, changed;
    double probability[HEIST__FAULTS];
    uint64_t nth[HEIST__FAULTS], opportunities[HEIST__FAULTS];
    bool any_fault;
};

/* fault: HEIST__FAULTS of them, or NULL. */
void heist__seeded_init(struct heist__seeded *s, uint64_t seed, unsigned flags, const heist_sim_fault *fault);

#endif
