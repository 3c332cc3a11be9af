/* The inside of a connection.
 *
 * `drained` belongs to whoever reads.  A woken waiter touches the connection only
 * when the wait did not end by its close. */
#ifndef HEIST_NET_CONN_H
#define HEIST_NET_CONN_H

#include <heist/net.h>
#include <stdbool.h>

#include "loop/reg.h"

struct heist_conn {
    struct heist__reg *reg;
    int fd;
    bool is_socket;
    bool is_stream; /* bytes without bounds: a stream socket or a pipe */
    bool drained; /* the last read took all there was */
};

/* fd -1: a connection that gets its descriptor later, by adopt, before anybody else knows it. */
int heist__conn_new(int fd, heist_conn **out);
void heist__conn_adopt(heist_conn *c, int fd);
int heist__socket_addr(int fd, heist_addr *out);

#endif
