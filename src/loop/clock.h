/* A loop's clock: integer nanoseconds, monotonic, real or virtual.
 *
 * Owned by the runtime (every loop of it has the same), read from any thread, advanced
 * only by the one that found every worker idle.  Invariant: what heist__clock_now
 * returns never goes backwards, and a deadline made from a delay is never early.
 * INT64_MAX stands for never, INT64_MIN for not a number. */
#ifndef HEIST_LOOP_CLOCK_H
#define HEIST_LOOP_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "conc/atomic.h"

#define HEIST__NEVER INT64_MAX
#define HEIST__NOT_A_TIME INT64_MIN

struct heist__clock {
    bool virtual_time;       /* fixed after birth */
    _Atomic(int64_t) now_ns; /* virtual only: written by advance_to, read by everybody */
};

/* A virtual clock starts at start_ns; a real one ignores it. */
void heist__clock_init(struct heist__clock *clock, bool virtual_time, int64_t start_ns);

/* The instant now.  Any thread. */
int64_t heist__clock_now(struct heist__clock *clock);

/* Moves a virtual clock forward to `ns`; an earlier instant changes nothing.  Any thread. */
void heist__clock_advance_to(struct heist__clock *clock, int64_t ns);

/* Nanoseconds, rounded up to the precision of a double: heist__seconds_from_ns of the answer is not below
 * `seconds`, and below 2^22 s (48 days) no smaller answer is, so instants survive the way there and back.
 * Infinity and what does not fit saturate (HEIST__NEVER; INT64_MIN + 1 downwards), not-a-number gives
 * HEIST__NOT_A_TIME. */
int64_t heist__ns_from_seconds(double seconds);

/* The nearest double. */
static inline double heist__seconds_from_ns(int64_t ns) { return (double)ns / 1e9; }

/* base + delta, saturating, for a delta of heist__ns_from_seconds. */
static inline int64_t heist__ns_add(int64_t base_ns, int64_t delta_ns) {
    int64_t sum;
    if (__builtin_add_overflow(base_ns, delta_ns, &sum)) return delta_ns < 0 ? INT64_MIN + 1 : HEIST__NEVER;
    return sum == INT64_MIN ? INT64_MIN + 1 : sum;
}

/* The instant `delay` seconds after a fresh reading of the clock (a stale one would fire early); in the
 * past for a negative delay; HEIST__NEVER for infinity; HEIST__NOT_A_TIME for not-a-number. */
int64_t heist__deadline_after(struct heist__clock *clock, double delay);

#endif
