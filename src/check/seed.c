/* See seed.h. */
#include "check/seed.h"

#include <string.h>

#include "base/macros.h"

static int nth_bit(uint64_t mask, uint32_t n) {
    while (n--) mask &= mask - 1;
    return __builtin_ctzll(mask);
}

static int random_next(struct heist__seeded *s, const struct heist__choice *c, uint64_t *quiet) {
    if (s->jumps && c->may_jump && heist__rng_below(&s->schedule, 16) == 0) return HEIST__SIM_JUMP;
    uint32_t n = (uint32_t)__builtin_popcountll(c->enabled);
    int next = nth_bit(c->enabled, heist__rng_below(&s->schedule, n));
    *quiet = heist__rng_below(&s->schedule, 2 * s->stay);
    return next;
}

static uint64_t priority_of(struct heist__seeded *s, int id) {
    if (!s->priority[id]) s->priority[id] = (heist__rng_next(&s->schedule) >> 2) | UINT64_C(1) << 62;
    return s->priority[id];
}

static int highest(struct heist__seeded *s, uint64_t mask) {
    int best = -1;
    for (; mask; mask &= mask - 1) {
        int id = __builtin_ctzll(mask);
        if (best < 0 || priority_of(s, id) > priority_of(s, best)) best = id;
    }
    return best;
}

static int priorities_next(struct heist__seeded *s, const struct heist__choice *c, uint64_t *quiet) {
    if (c->spins) s->priority[c->current] = --s->lowest;
    uint64_t steps = heist__sim_steps();
    while (s->changed < s->changes && s->change[s->changed] <= steps) {
        s->changed++;
        if (s->jumps && c->may_jump && heist__rng_below(&s->schedule, 3) == 0) return HEIST__SIM_JUMP;
        if (c->current < HEIST__SIM_THREADS) s->priority[c->current] = --s->lowest;
    }
    int best = highest(s, c->enabled);
    *quiet = s->changed < s->changes ? s->change[s->changed] - steps - 1 : UINT64_MAX;
    return best;
}

static int next(void *self, const struct heist__choice *c, uint64_t *quiet) {
    struct heist__seeded *s = self;
    return s->priorities ? priorities_next(s, c, quiet) : random_next(s, c, quiet);
}

static unsigned choose(void *self, unsigned n) {
    struct heist__seeded *s = self;
    return heist__rng_below(&s->schedule, n);
}

static uint32_t fault(void *self, int kind, uint32_t limit) {
    struct heist__seeded *s = self;
    bool due = ++s->opportunities[kind] == s->nth[kind];
    if (s->probability[kind] > 0)
        due |= (double)(heist__rng_next(&s->faults) >> 11) * 0x1p-53 < s->probability[kind];
    return due ? 1 + heist__rng_below(&s->faults, limit) : 0;
}

void heist__seeded_init(struct heist__seeded *s, uint64_t seed, unsigned flags, const heist_sim_fault *faults) {
    memset(s, 0, sizeof(*s));
    heist__rng_init(&s->schedule, seed);
    heist__rng_init(&s->faults, ~seed);
    for (int k = 0; faults && k < HEIST__FAULTS; k++) {
        s->probability[k] = faults[k].probability;
        s->nth[k] = faults[k].nth;
        if (faults[k].probability > 0 || faults[k].nth) s->any_fault = true;
    }
    s->strategy = (struct heist__strategy){next, choose, s->any_fault ? fault : NULL, s};
    unsigned ways = flags & (HEIST_SIM_RANDOM | HEIST_SIM_PRIORITIES);
    s->priorities = heist__rng_below(&s->schedule, 4) != 0;
    if (ways == HEIST_SIM_RANDOM) s->priorities = false;
    if (ways == HEIST_SIM_PRIORITIES) s->priorities = true;
    s->jumps = heist__rng_below(&s->schedule, 2) && !(flags & HEIST_SIM_PUNCTUAL);
    s->stay = 2u << heist__rng_below(&s->schedule, 8);
    s->lowest = UINT64_C(1) << 62;
    s->changes = 1 + (int)heist__rng_below(&s->schedule, HEIST__SEED_CHANGES);
    uint64_t length = UINT64_C(64) << heist__rng_below(&s->schedule, 10);
    for (int i = 0; i < s->changes; i++) {
        uint64_t at = 1 + heist__rng_next(&s->schedule) % length;
        int k = i; /* ascending */
        for (; k > 0 && s->change[k - 1] > at; k--) s->change[k] = s->change[k - 1];
        s->change[k] = at;
    }
}
