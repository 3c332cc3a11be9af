/* stress/faults.h: what a program needs and does not get.
 *
 * Owns the allocator that a stress program gives to the library, which counts its blocks
 * and refuses at random, and the saboteur, a plain thread that switches the shortages of
 * a round on and off: memory, descriptors (RLIMIT_NOFILE) and threads (a default stack
 * that no address space has room for).
 * Thread: begin, start, stop and forget on the main thread; all else from any.
 * Invariant: after stop there is enough of everything again, and the books are still. */
#ifndef STRESS_FAULTS_H
#define STRESS_FAULTS_H

#include "common.h"

#define SHORT_OF_MEMORY 1u
#define SHORT_OF_FDS 2u
#define SHORT_OF_THREADS 4u

/* Before anything else of the library. */
void stress_faults_begin(void);
/* Shortages of this round; 0: none, and no saboteur. */
void stress_faults_start(struct stress_rng *rng, unsigned shortages);
void stress_faults_stop(void);
/* Those who had a refusal in hand when it stopped have ended: from now on there is no cause for one. */
void stress_faults_forget(void);

/* Is this the code of something that is or was short in this round? */
bool stress_short_of(int code);
/* In words, for the settings and for failures. */
const char *stress_shortages(void);

int64_t stress_blocks_live(void);
uint64_t stress_blocks_refused(void);

#endif
