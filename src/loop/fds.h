/* Which registration has which descriptor, by number: one table for the process.
 *
 * Owners (connections, listeners, endpoints) stand in it so that nobody else waits on
 * their descriptors by number.  Guests stand in it so that the calls on one descriptor
 * find each other: who waits already, and whom a close must wake.
 *
 *   enter   the first call in progress makes the guest, the others join it; each counts
 *   wait    heist__reg_ask
 *   leave   the last one takes the guest out of the table and out of the poller
 *   close   wakes who waits, lets nobody in any more, and leaves the closing to the last
 *           call: so the number is no other file's while one is inside
 *           Who comes in between the last look and the closing is made to try again.
 *   forsake the number turned out to mean another file, for the user closed it past us:
 *           out of the table, and who waits learns it; the poller has forgotten it by itself
 *
 * The table is hashed by number, its lists are intrusive: an owner comes and goes in a
 * few instructions under one of many short locks, taken before the registration's own. */
#ifndef HEIST_LOOP_FDS_H
#define HEIST_LOOP_FDS_H

#include <stdbool.h>

#include "loop/reg.h"

/* An owner of r->fd.  Guests of that number have a file that is gone, for the number is fresh. */
void heist__fds_own(struct heist__reg *r);
void heist__fds_unlink(struct heist__reg *r);
/* Somebody owns the descriptor (or, with guests, has a call on it in progress). */
bool heist__fds_owned(int fd, bool guests);

/* The poller of this loop knows the number by a registration, and so by nothing that was there before. */
bool heist__fds_polled(int fd, const heist_loop *loop);

/* The loop's poller watches the number for a reader or writer callback: 0, or what it said.  Did it know the number by a
 * guest's registration, that one's file is gone, and it has forgotten him: then *past is the guest, entered, and from here
 * on he touches nothing there (it would be the callback's).  The caller, without a lock, forsakes and leaves him. */
int heist__fds_watch(heist_loop *loop, int fd, uint32_t events, uint64_t data, struct heist__reg **past);

/* The loop is closed and polls no more: who waits for a registration with it (tasks of other runtimes, for its own have
 * ended) tries again, and moves the registration to a loop of his.  After `closed` is set: later ones see that. */
void heist__fds_strand(const heist_loop *loop);

/* 0 and the guest, one call in it; -EBUSY (owned), HEIST_ECLOSED (being closed), -ENOMEM. */
int heist__guest_enter(int fd, struct heist__reg **out);
void heist__guest_leave(struct heist__reg *r);
/* By one that is inside. */
void heist__guest_forsake(struct heist__reg *r);
/* 0, -EBUSY (owned), -EBADF (closed before), or what the close said. */
int heist__guest_close(int fd);

#endif
