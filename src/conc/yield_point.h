/* Where a seeded build may switch threads.
 *
 * Every atomic (atomic.h), lock (spin.h, mutex.h), park (parker.h) and system call
 * (base/sys.h) passes a yield point first.  In an ordinary build it is nothing
 * at all; in a build with HEIST_SEEDED it is a test of one word, and in a
 * simulation the call of check/sim.c, which runs one thread at a time and lets
 * a seed choose the next. */
#ifndef HEIST_CONC_YIELD_POINT_H
#define HEIST_CONC_YIELD_POINT_H

#include "base/sim.h"

#ifdef HEIST_SEEDED
#define heist__yield_point() (heist__sim_maybe() ? heist__sim_step(__FILE__, __LINE__) : (void)0)
#else
#define heist__yield_point() ((void)0)
#endif

#endif
