/* support/pace.h: how many rounds a test of luck plays.
 *
 * A narrow race is looked for in many rounds.  Where the two sides have a processor each, a
 * thousand take a moment; where they take turns on one that others want too, each
 * hand-over waits for its turn, and a thousand take minutes.  So a first part is
 * played whatever it takes, and the rest only while there is time: no law depends on the
 * number.  One side asks, and tells the other when it was the last round. */
#ifndef HEIST_TEST_PACE_H
#define HEIST_TEST_PACE_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

struct pace {
    int most, least, played;
    int64_t end_ns;
};

static inline int64_t pace_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* At most `most` rounds; after `seconds` only until `least` have been played. */
static inline struct pace pace_of(int most, int least, double seconds) {
    return (struct pace){most, least, 0, pace_now() + (int64_t)(seconds * 1e9)};
}

/* Once before each round: is it to be played? */
static inline bool pace_goes_on(struct pace *p) {
    if (p->played >= p->most || (p->played >= p->least && pace_now() >= p->end_ns)) return false;
    p->played++;
    return true;
}

#endif
