/* Small seeded generator, for victim order, back-off jitter and tests; never
 * for secrets.
 *
 * Each owner keeps one of its own: no thread-safety, no hidden state, equal
 * seeds give equal rows on every machine.
 * Source: xorshift64* (Marsaglia, "Xorshift RNGs", 2003; multiplier by Vigna,
 * "An experimental exploration of Marsaglia's xorshift generators, scrambled",
 * 2014); the seed is spread by one step of splitmix64 (Steele, Lea and Flood,
 * "Fast splittable pseudorandom number generators", 2014), so that seeds 1, 2,
 * 3 give unrelated rows.
 * Invariant: state is never zero (a zero state would stay zero). */
#ifndef HEIST_BASE_RNG_H
#define HEIST_BASE_RNG_H

#include <stdint.h>

struct heist__rng {
    uint64_t state;
};

static inline uint64_t heist__rng_mix(uint64_t x) {
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

static inline void heist__rng_init(struct heist__rng *r, uint64_t seed) {
    r->state = heist__rng_mix(seed);
    if (r->state == 0) r->state = UINT64_C(0x9e3779b97f4a7c15);
}

static inline uint64_t heist__rng_next(struct heist__rng *r) {
    uint64_t x = r->state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    r->state = x;
    return x * UINT64_C(0x2545f4914f6cdd1d);
}

/* A number in [0, n); n is at least 1.  Multiply and shift (Lemire 2019,
 * without the rejection step): the bias is at most n / 2^32. */
static inline uint32_t heist__rng_below(struct heist__rng *r, uint32_t n) {
    return (uint32_t)(((heist__rng_next(r) >> 32) * n) >> 32);
}

#endif
