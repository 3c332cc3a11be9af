/* Lock and condition for threads that may wait long: start, stop, and calls into the user's code.
 *
 * A seam over the system's own: a seeded build switches threads here.  Short sections of
 * ours take conc/spin.h.  Never held across a suspension: the owner is a thread. */
#ifndef HEIST_CONC_MUTEX_H
#define HEIST_CONC_MUTEX_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "conc/yield_point.h"

struct heist__mutex {
    pthread_mutex_t raw;
};

struct heist__cond {
    pthread_cond_t raw;
};

/* `recursive`: its owner may take it again.  Initialising cannot fail on this system. */
void heist__mutex_init(struct heist__mutex *m, bool recursive);
void heist__mutex_destroy(struct heist__mutex *m);
void heist__mutex_lock(struct heist__mutex *m);
void heist__mutex_unlock(struct heist__mutex *m);

void heist__cond_init(struct heist__cond *c);
void heist__cond_destroy(struct heist__cond *c);
/* Wakes all waiters. */
void heist__cond_broadcast(struct heist__cond *c);
/* Waits until woken, spuriously too, or until the monotonic clock reaches deadline_ns (INT64_MAX: for ever).
 * 0 or -ETIMEDOUT. */
int heist__cond_wait(struct heist__cond *c, struct heist__mutex *m, int64_t deadline_ns);

#endif
