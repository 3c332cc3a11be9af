/* How many processors this process may use. */
#ifndef HEIST_SCHED_CPUS_H
#define HEIST_SCHED_CPUS_H

/* The smaller of the affinity mask and the cgroup's quota (rounded up); at least 1. */
int heist__available_cpus(void);

#endif
