/* A TCP server that sends back what it reads, on all workers of a runtime.
 *
 * One listener for each worker on one address (the kernel spreads the connections),
 * one task for each connection.  The calls are made from a plain thread. */
#ifndef DEMO_ECHO_SERVER_H
#define DEMO_ECHO_SERVER_H

#include <heist/net.h>
#include <stdatomic.h>

struct echo_server;

struct echo_totals {
    uint64_t accepted;
    uint64_t bytes_in, bytes_out;
    uint64_t failures; /* connections that ended by an error instead of the peer's end */
    size_t open;       /* connections now */
};

/* Starts listening.  `where` may have port 0.  The runtime is borrowed until echo_server_free. */
int echo_server_start(heist_runtime *rt, const heist_addr *where, struct echo_server **out);
/* Where it listens. */
const heist_addr *echo_server_addr(const struct echo_server *s);
/* Bytes echoed by connections that are open or gone, for a live display. */
const _Atomic(uint64_t) *echo_server_echoes(const struct echo_server *s);

/* Accepts no more, and waits up to `patience` seconds for the connections to end by
 * themselves.  With `hurry`, tells each connection that nothing more will be read: what
 * has arrived is still echoed, then it closes.  Returns how many are open still. */
size_t echo_server_drain(struct echo_server *s, double patience, int hurry);
void echo_server_totals(struct echo_server *s, struct echo_totals *out);
/* After the runtime was closed, or when drain returned 0. */
void echo_server_free(struct echo_server *s);

#endif
