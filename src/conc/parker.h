/* Thread sleep and wake: one word and a futex.
 *
 * A parker belongs to a thread from its first use until the thread exits, and
 * is then recycled for another thread: its memory stays a parker until
 * heist__parker_pool_release.  So a waker may still touch it after the sleeper
 * has gone on, or even exited; the worst that a late unpark does is one
 * spurious return of a later park.  Nothing on a sleeper's stack is touched.
 *
 * Contract for a sleeper:
 *     heist__parker_prepare(p);
 *     publish p where the waker finds it, and only then
 *     while (!my condition) park(p, …);       the condition is an atomic, or
 *                                             read under the waker's lock
 * and for a waker: make the condition true, then unpark(p).
 * prepare comes before the publication and never again inside the loop: there
 * it would wipe out a wake.  park returns 0 also spuriously; the loop looks.
 *
 * States of the word, and who leaves each:
 *     EMPTY     no wake pending            unpark -> NOTIFIED, park -> PARKED
 *     PARKED    the owner is in the futex  unpark -> NOTIFIED, time-out -> EMPTY
 *     NOTIFIED  a wake is pending          park -> EMPTY, prepare -> EMPTY
 *
 * Proof sketch, no wake is lost.  Let U be the waker's exchange to NOTIFIED,
 * after the publication, hence after prepare in the order of the word.
 * (a) If park finds NOTIFIED, it takes it away by a read-modify-write that
 *     comes after U, or before it.  After: it reads from U or from a later
 *     unpark whose exchange continues U's release sequence, so the acquire
 *     makes the condition visible and the loop ends.  Before: U stays behind
 *     as NOTIFIED, and the next park finds it.
 * (b) If park goes from EMPTY to PARKED, U comes after that step (it would be
 *     NOTIFIED otherwise), reads PARKED, and wakes the futex.  The kernel
 *     compares the word with PARKED under its own lock before it sleeps: a
 *     wake between the step and the sleep changes the word, and there is no
 *     sleep.
 * (c) A time-out takes the word back by an exchange; if that finds NOTIFIED,
 *     the park was woken and says so.
 * Nothing of the parker is read or written by unpark after its exchange; the
 * futex call passes the address only, and a wake at an address without sleeper
 * does nothing. */
#ifndef HEIST_CONC_PARKER_H
#define HEIST_CONC_PARKER_H

#include <stdint.h>

struct heist__parker;

/* The calling thread's parker, made at its first use; NULL when there is no
 * memory (or no thread key).  Cheap after that.  A task must not keep the
 * answer across a suspension. */
struct heist__parker *heist__parker_get(void);

/* Forgets wakes of earlier waits.  Owner, before p is published. */
void heist__parker_prepare(struct heist__parker *p);

/* Sleeps until a wake is pending or the monotonic clock reaches deadline_ns
 * (INT64_MAX: for ever), and takes the wake.  Looks for up to spin_ns before it
 * sleeps.  0 woken (or spuriously), -ETIMEDOUT.  Owner.  Interruptions by
 * signals are not reported. */
int heist__parker_park(struct heist__parker *p, int64_t deadline_ns, int64_t spin_ns);

/* Leaves a wake for p's owner and ends its sleep.  Any thread; does a system
 * call only when the owner sleeps. */
void heist__parker_unpark(struct heist__parker *p);

/* Frees the parkers that no living thread has, and the caller's own; those of
 * other living threads are freed when they exit.  Called when the last runtime
 * has closed; no unpark is in progress anywhere.  A later heist__parker_get
 * starts afresh. */
void heist__parker_pool_release(void);

#endif
