/* What the rooms below know of a simulation: the calls by which a thread of a seeded
 * build lets the simulator (check/) choose who goes on.
 *
 * Only in a build with HEIST_SEEDED; check/sim.c holds the other side.  In a simulation
 * exactly one thread runs at a time, so between two of these calls nothing of another
 * thread happens.  Outside a simulation, and on threads that are not part of one, each is
 * a test of one word that is always zero, and the ordinary code follows.
 *
 * Nothing that blocks in the kernel may be called by a simulated thread: it would keep
 * the turn.  So each wait of the library asks heist__simulated() first, and waits by
 * heist__sim_wait or heist__sim_poll instead. */
#ifndef HEIST_BASE_SIM_H
#define HEIST_BASE_SIM_H

#ifdef HEIST_SEEDED

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/macros.h"

extern _Atomic(int) heist__sim_on; /* a simulation is under way in this process */

static inline bool heist__sim_maybe(void) {
    /* Relaxed: a thread of a simulation was started after it was set, and ends before it is cleared. */
    return heist_unlikely(atomic_load_explicit(&heist__sim_on, memory_order_relaxed) != 0);
}

/* The calling thread's number in the simulation, -1 when it is not part of one. */
int heist__sim_self(void);

static inline bool heist__simulated(void) { return heist__sim_maybe() && heist__sim_self() >= 0; }

/* A point where another thread may go on; file and line are for the trace. */
void heist__sim_step(const char *file, int line);

/* The caller looks at the same thing again and again until another thread has changed it: somebody else goes on
 * if anybody can, else time passes a little. */
void heist__sim_spin(const char *file, int line);

/* Waits until heist__sim_wake(key) or until the simulation's clock reaches deadline_ns (INT64_MAX: for ever).  No
 * point between the caller's last look and the wait.  0 (woken; with faults also spuriously) or -ETIMEDOUT.
 * Only on a simulated thread. */
int heist__sim_wait(const void *key, int64_t deadline_ns, const char *what);

/* Up to `wakes` of those that wait for key, the longest waiting first, may go on.  Any thread. */
void heist__sim_wake(const void *key, int wakes);

/* Waits until the epoll set has an event, as heist__sim_wait; -EINTR when a fault says so. */
int heist__sim_poll(int epfd, int64_t deadline_ns);

/* The simulation's clock. */
int64_t heist__sim_now(void);

/* A system call that may change what a poll sees; a negative code is the fault that it fails with. */
int heist__sim_call(const char *call, int fd);

/* How many bytes of `bytes` a read or write may move: fewer when a fault says so. */
size_t heist__sim_bytes(const char *call, int fd, size_t bytes);

/* A registration was made, changed or (event NULL) taken out: what a fault that eats an edge must renew. */
struct epoll_event;
void heist__sim_registered(int epfd, int fd, const struct epoll_event *event);

/* The descriptor is about to be closed. */
void heist__sim_closing(int fd);

/* A request for memory or a mapping: true when it shall fail. */
bool heist__sim_refuse_memory(bool mapping);

/* A mutex was taken; is about to be given back: for the order of memory in a weak exploration. */
void heist__sim_locked(const void *mutex);
void heist__sim_unlocking(const void *mutex);

/* Threads of the program: as pthread_create and pthread_join, inside a simulation. 0 or a negative code. */
int heist__sim_thread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *arg);
int heist__sim_thread_join(pthread_t thread, void **result);

/* The processors that a simulated program sees; 0 outside. */
int heist__sim_cpus(void);

/* An outcome that is open, of n: the explorer tries all, a search draws, 0 is the ordinary one. */
unsigned heist__sim_choose(unsigned n);

#else

#define heist__simulated() 0
#define heist__sim_spin(file, line) ((void)0)

#endif

#endif
