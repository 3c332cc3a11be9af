/* Lock order, checked in builds with HEIST_DEBUG_LOCKS; nothing otherwise.
 *
 * Each ranked lock carries one number of the enum below.  A thread may take a
 * lock only when its rank is greater than that of every ranked lock it holds,
 * so no two threads can wait for each other in a circle.  The check is a small
 * stack per thread (rank.c); a breach prints both ranks and aborts.
 * Spin locks of this library are never held across a suspension, so the
 * thread that takes one gives it back, and a per-thread stack is enough. */
#ifndef HEIST_CONC_RANK_H
#define HEIST_CONC_RANK_H

/* Outermost first.  Gaps leave room; unranked locks are not checked. */
enum heist__rank {
    HEIST__RANK_NONE = 0,
    HEIST__RANK_RUNTIME = 10, /* assembling, starting and stopping a runtime */
    HEIST__RANK_SYNC = 20,    /* a primitive's wait queue */
    HEIST__RANK_FUTURE = 30,  /* a future's callbacks and waiters */
    HEIST__RANK_LOOP = 40,    /* what a loop guards beside its timers */
    HEIST__RANK_TIMERS = 50,  /* a loop's timer store: innermost of the loop's */
    HEIST__RANK_SCHED = 60,   /* injection queue, idle set */
    HEIST__RANK_POOL = 70,    /* stacks, slabs */
    HEIST__RANK_LEAF = 80,    /* takes nothing else while held */
};

#ifdef HEIST_DEBUG_LOCKS
void heist__rank_push(int rank, const void *lock);
void heist__rank_pop(int rank, const void *lock);
/* How many ranked locks this thread holds: zero wherever a task suspends. */
int heist__rank_held(void);
#else
#define heist__rank_push(rank, lock) ((void)0)
#define heist__rank_pop(rank, lock) ((void)0)
#define heist__rank_held() 0
#endif

#endif
