/* Where a seeded build may switch threads.
 *
 * Every atomic (atomic.h), lock (spin.h), park (parker.h) and system call
 * (base/sys.h) passes a yield point first.  In an ordinary build it is nothing
 * at all; a build with HEIST_SEEDED set calls the scheduler of check/, which
 * runs one thread at a time and lets a seed choose the next. */
#ifndef HEIST_CONC_YIELD_POINT_H
#define HEIST_CONC_YIELD_POINT_H

#ifdef HEIST_SEEDED
void heist__yield_point(void);
#else
#define heist__yield_point() ((void)0)
#endif

#endif
