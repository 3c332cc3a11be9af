/* Small programs with laws of their own, for searches; each is a body of heist_sim_search. */
#ifndef HEIST_SEEDED_SCENES_H
#define HEIST_SEEDED_SCENES_H

struct scene {
    const char *name;
    int (*body)(void *workers); /* an int */
    int least; /* workers that it needs */
};

extern const struct scene scenes[];
extern const int scene_count;

#endif
