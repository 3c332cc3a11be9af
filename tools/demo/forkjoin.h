/* Fork-join work of part 4: the queens that do not attack each other, counted by a tree of tasks. */
#ifndef DEMO_FORKJOIN_H
#define DEMO_FORKJOIN_H

#include <heist/base.h>
#include <stdint.h>

#define FORKJOIN_BOARD 14 /* a few tenths of a second of one core */

/* Which workers may run the tree. */
#define FORKJOIN_ALL 0    /* all of the runtime */
#define FORKJOIN_PINNED 1 /* one of the runtime's: every task of the tree is pinned to its loop */
#define FORKJOIN_ALONE 2  /* the worker of a runtime that is made for it; the one given has no part */

struct forkjoin {
    int err;         /* 0 when it came to its end */
    int right;       /* the count is the known one */
    double seconds;  /* on the wall */
    uint64_t tasks;  /* that the tree had */
    uint64_t stolen; /* that changed their worker meanwhile, other work of the runtime included */
};

/* Runs the tree and waits.  The caller is a plain thread; runs must not overlap. */
void forkjoin_run(heist_runtime *rt, int where, struct forkjoin *out);

#endif
