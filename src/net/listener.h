/* The inside of a listener, for a server: bound first, listening later, and held by who accepts.
 *
 * A holder is a call in progress that lasts: a close meanwhile wakes it with HEIST_ECLOSED and takes nothing away
 * from under it. */
#ifndef HEIST_NET_LISTENER_H
#define HEIST_NET_LISTENER_H

#include <heist/net.h>

/* Bound to the address, not listening yet. */
int heist__listener_bind(const heist_addr *addr, unsigned flags, heist_listener **out);
/* Takes a stream socket over, which may be listening: 0; or -EBADF, -ENOTSOCK, -EPROTOTYPE, -EBUSY, -ENOMEM.  One that
 * nobody has held can be given back, as it was. */
int heist__listener_take(int fd, heist_listener **out);
void heist__listener_give_back(heist_listener *l);
/* 0: the default. */
int heist__listener_begin(heist_listener *l, int backlog);

/* heist_accept, which also tells who connected (NULL: nobody asks). */
int heist__accept(heist_listener *l, int64_t until, heist_conn **out, heist_addr *peer);

int heist__listener_hold(heist_listener *l); /* 0 or HEIST_ECLOSED */
void heist__listener_leave(heist_listener *l);
/* Closes; who connects from now on is refused, although a holder may have the descriptor for a while.  Of one that was
 * taken only the descriptor: other processes may listen on with theirs. */
void heist__listener_stop(heist_listener *l);

#endif
