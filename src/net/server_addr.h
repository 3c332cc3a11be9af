/* The addresses that a host and a port stand for, to listen on. */
#ifndef HEIST_NET_SERVER_ADDR_H
#define HEIST_NET_SERVER_ADDR_H

#include <heist/net.h>
#include <stdbool.h>

struct heist__server_addrs {
    heist_addr *at; /* heist__free */
    size_t count;
    bool any; /* a family that the machine does not have may be left out */
};

/* In a task; may suspend.  *out is zero before, and to be freed after a failure too. */
int heist__server_addresses(const char *hosts, const char *port, struct heist__server_addrs *out);

#endif
