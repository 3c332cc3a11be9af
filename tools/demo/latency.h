/* A histogram of durations: 64 steps to each power of two, so that a quantile is at
 * most 1.6 % above the true one.  One thread writes it; merge after that thread ended. */
#ifndef DEMO_LATENCY_H
#define DEMO_LATENCY_H

#include <stdint.h>

#define LATENCY_STEPS 64 /* to each power of two */
#define LATENCY_POWERS 40 /* 64 ns to about 19 hours */

struct latency {
    uint64_t count;
    uint64_t max_ns;
    uint64_t cells[LATENCY_POWERS * LATENCY_STEPS];
};

void latency_add(struct latency *l, uint64_t ns);
void latency_merge(struct latency *into, const struct latency *from);
/* The duration that a part `q` (0 to 1) did not exceed, in seconds; 0 when empty. */
double latency_quantile(const struct latency *l, double q);

#endif
