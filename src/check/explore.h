/* All schedules of two or three threads with at most so many preemptions.
 *
 * heist__explore runs the bodies again and again, in this process, each time under
 * another schedule, until every schedule with at most `preemptions` preemptions was
 * run: first all with none, then all with at most one, and so on (iterative context
 * bounding; Musuvathi and Qadeer, PLDI 2007), so what it finds first needs the fewest.
 * A preemption is a switch away from a thread that could go on; switches at a wait, an
 * end or a spin cost nothing and are all tried.
 *
 * The search is a walk over a tree whose nodes are the points with more than one way on;
 * it repeats the ways of the path so far, and so the program must be deterministic: what
 * differs from run to run but for the schedule (a cache that fills, a pool that grows) ends
 * the exploration with HEIST__SIM_ODD.  Two runs go before the first to warm up; `fresh`
 * makes new threads for each run, whose thread-local caches are empty.
 *
 * Called by a plain thread, one exploration at a time.  A failing run leaves its threads
 * where they stood: report it, and end the process soon. */
#ifndef HEIST_CHECK_EXPLORE_H
#define HEIST_CHECK_EXPLORE_H

#include "check/sim.h"

#define HEIST__EXPLORE_BOUND_MAX 15

struct heist__explore_options {
    int preemptions;         /* the bound */
    int choices;             /* how many outcomes of heist__sim_choose other than 0 in a run; -1: no bound */
    uint64_t max_executions; /* in all; 0: no limit */
    double max_seconds;      /* of real time; 0: no limit */
    uint64_t max_steps;      /* of one run; 0: 100,000 */
    bool jumps;              /* time may jump to the next deadline while threads can run; each costs one preemption */
    bool fresh;              /* new threads for each run */
};

struct heist__explore_result {
    bool complete;       /* all schedules within the bound were run */
    int bound;           /* the bound that was reached, and in which a failure was found */
    uint64_t executions; /* in all */
    uint64_t at_bound[HEIST__EXPLORE_BOUND_MAX + 1]; /* with each bound: those with fewer preemptions again */
    uint64_t steps;      /* in all */
    uint64_t failing;    /* the number of the execution that failed, from 1 */
    struct heist__sim_report report; /* of the failure; outcome HEIST__SIM_OK when there was none */
    char replay[2048];   /* the failing schedule, for options of heist__explore_replay */
};

/* setup (may be NULL) runs before each execution and check (may be NULL) after it, on the calling thread, with no
 * point inside; check returns NULL or what is wrong.  The bodies call heist__sim_fail or return.  0 (the result says
 * whether a failure was found), or -ENOMEM, -EAGAIN, -EBUSY, -EINVAL. */
int heist__explore(const struct heist__explore_options *options, const struct heist__sim_thread_spec *thread,
                   int threads, void (*setup)(void *arg), const char *(*check)(void *arg), void *arg,
                   struct heist__explore_result *result);

/* One run under the schedule of result->replay. */
int heist__explore_replay(const struct heist__explore_options *options, const struct heist__sim_thread_spec *thread,
                          int threads, void (*setup)(void *arg), const char *(*check)(void *arg), void *arg,
                          const char *replay, struct heist__explore_result *result);

#endif
