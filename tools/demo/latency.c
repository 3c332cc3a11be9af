/* A histogram of durations; latency.h has the contract. */
#include "latency.h"

#include <stddef.h>

/* Cell of a duration: below 64 ns one cell for each nanosecond, above it the power of
 * two chooses the row and the six bits after the leading one the step. */
static size_t cell_of(uint64_t ns) {
    if (ns < LATENCY_STEPS) return (size_t)ns;
    unsigned power = 63u - (unsigned)__builtin_clzll(ns);
    size_t cell = (size_t)(power - 5) * LATENCY_STEPS + (size_t)((ns >> (power - 6)) & (LATENCY_STEPS - 1));
    size_t last = (size_t)LATENCY_POWERS * LATENCY_STEPS - 1;
    return cell < last ? cell : last;
}

/* The largest duration that falls into a cell. */
static uint64_t top_of(size_t cell) {
    if (cell < LATENCY_STEPS) return cell;
    unsigned shift = (unsigned)(cell / LATENCY_STEPS) - 1;
    return ((uint64_t)(cell % LATENCY_STEPS + LATENCY_STEPS + 1) << shift) - 1;
}

void latency_add(struct latency *l, uint64_t ns) {
    l->count++;
    if (ns > l->max_ns) l->max_ns = ns;
    l->cells[cell_of(ns)]++;
}

void latency_merge(struct latency *into, const struct latency *from) {
    into->count += from->count;
    if (from->max_ns > into->max_ns) into->max_ns = from->max_ns;
    for (size_t i = 0; i < sizeof into->cells / sizeof into->cells[0]; i++) into->cells[i] += from->cells[i];
}

double latency_quantile(const struct latency *l, double q) {
    if (l->count == 0) return 0;
    uint64_t rank = (uint64_t)(q * (double)l->count), seen = 0;
    if (rank >= l->count) rank = l->count - 1;
    for (size_t i = 0; i < sizeof l->cells / sizeof l->cells[0]; i++) {
        seen += l->cells[i];
        if (seen > rank) {
            uint64_t top = top_of(i);
            return (double)(top < l->max_ns ? top : l->max_ns) / 1e9;
        }
    }
    return (double)l->max_ns / 1e9;
}
