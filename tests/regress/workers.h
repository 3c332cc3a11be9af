/* regress/workers.h: one test at several numbers of workers.
 *
 * API tests run three times, with the number in the environment; a regression test runs
 * once, so it goes through the numbers itself.  HEIST_TEST_WORKERS narrows it to one. */
#ifndef HEIST_REGRESS_WORKERS_H
#define HEIST_REGRESS_WORKERS_H

#include "support/harness.h"

#include <stdlib.h>

/* for (EACH_WORKER_COUNT(workers)) ... with 1, 2 and 8 */
#define EACH_WORKER_COUNT(n)                                                                                           \
    int n = regress_next_workers(0);                                                                                   \
    n;                                                                                                                 \
    n = regress_next_workers(n)

static inline int regress_next_workers(int n) {
    if (getenv("HEIST_TEST_WORKERS")) return n ? 0 : harness_workers();
    return n == 0 ? 1 : n == 1 ? 2 : n == 2 ? 8 : 0;
}

static inline heist_runtime *regress_runtime(int workers) {
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    heist_runtime *rt = NULL;
    opts.workers = workers;
    assert_int_equal(heist_runtime_new(&opts, &rt), 0);
    return rt;
}

#endif
