/* The other side of the echo: clients that trust nobody.
 *
 * Plain threads with epoll and blocking connects, no part of heist: what they count did
 * happen on the wire.  Each connection has one message under way; every byte that comes
 * back is compared with the byte that belongs there. */
#ifndef DEMO_ECHO_LOAD_H
#define DEMO_ECHO_LOAD_H

#include "latency.h"
#include <netinet/in.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/socket.h>

#define ECHO_LOAD_STAGES 3 /* latencies are kept apart by what else goes on */

struct echo_load;

struct echo_load_result {
    int connected;         /* connections that were made */
    uint64_t requests;     /* messages that came back whole and right */
    uint64_t sent, received; /* bytes */
    uint64_t wrong;        /* bytes that were not what was sent, and bytes that nobody sent */
    uint64_t unanswered;   /* connections whose last message did not come back, or which broke */
    struct latency latency[ECHO_LOAD_STAGES];
};

/* Connects them all and starts the threads; returns when the first messages go out.
 * 0, or -errno with nothing left behind. */
int echo_load_start(const struct sockaddr *where, socklen_t length, int connections, int threads,
                    struct echo_load **out);
/* Messages that came back so far. */
const _Atomic(uint64_t) *echo_load_requests(const struct echo_load *l);
/* The histogram for the latencies of messages that go out from now on. */
void echo_load_stage(struct echo_load *l, int stage);
/* Sends nothing new, waits for the answers under way and the server's end of each
 * stream (at most `patience` seconds), joins, adds up and frees. */
void echo_load_stop(struct echo_load *l, double patience, struct echo_load_result *out);

#endif
