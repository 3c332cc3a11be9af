/* The inside of a datagram endpoint.
 *
 * A call tries at once.  One that finds nothing to do takes its direction's turn, a lock, and is the one waiter that
 * a registration has room for (loop/reg.h); the others stand in the lock's queue.  Whoever tries without the turn may
 * be faster than who waits, and takes nothing from him but a datagram: a wake-up in vain is followed by a wait. */
#ifndef HEIST_NET_DATAGRAM_H
#define HEIST_NET_DATAGRAM_H

#include <heist/datagram.h>
#include <heist/lock.h>
#include <stdbool.h>

#include "loop/reg.h"

/* Two shares hold the memory: the users' references together, and the registration until it is disposed of.  A call
 * enters the registration under `lock`, where `closed` is set before it is closed: so it is there. */
struct heist_datagram {
    _Atomic(uint32_t) refs; /* the users' */
    _Atomic(uint32_t) shares;
    struct heist__spin lock;
    bool closed; /* under lock */
    struct heist__reg *reg;
    int fd;
    bool connected;
    size_t max_received;
    heist_addr remote;
    heist_lock turn[2];
};

/* Owns fd on success. */
int heist__datagram_new(int fd, heist_datagram **out);

#endif
