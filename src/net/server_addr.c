/* Hosts and a port as addresses to listen on: "127.0.0.1,::1", "localhost", or nothing for all of this machine.
 *
 * What two names have in common is listened on once.  Without a host, and where a name stands for both families, a
 * family that the machine does not have is left out. */
#include "net/server_addr.h"

#include <errno.h>
#include <heist/error.h>
#include <heist/resolve.h>
#include <string.h>

#include "base/alloc.h"

#define HOST_MAX 256

static int add(struct heist__server_addrs *list, const heist_addr *addr) {
    for (size_t i = 0; i < list->count; i++)
        if (list->at[i].length == addr->length && !memcmp(&list->at[i].storage, &addr->storage, addr->length)) return 0;
    heist_addr *more = heist__realloc(list->at, (list->count + 1) * sizeof(*more));
    if (!more) return -ENOMEM;
    list->at = more;
    more[list->count++] = *addr;
    return 0;
}

static int add_host(struct heist__server_addrs *list, const char *host, const char *port) {
    heist_addrinfo_hints hints = HEIST_ADDRINFO_HINTS_INIT;
    hints.flags = HEIST_AI_PASSIVE;
    hints.socktype = SOCK_STREAM;
    heist_addrinfo_list *found;
    int err = heist_getaddrinfo(host, port, &hints, HEIST_FOREVER, &found);
    if (err) return err;
    if (!host || found->count > 1) list->any = true;
    for (size_t i = 0; i < found->count && !err; i++) err = add(list, &found->at[i].addr);
    heist_freeaddrinfo(found);
    return err;
}

int heist__server_addresses(const char *hosts, const char *port, struct heist__server_addrs *out) {
    if (!*port) return -EINVAL;
    if (!hosts || !*hosts) return add_host(out, NULL, port);
    for (;;) {
        char host[HOST_MAX];
        size_t length = strcspn(hosts, ",");
        if (!length || length >= sizeof(host)) return -EINVAL;
        memcpy(host, hosts, length);
        host[length] = 0;
        int err = add_host(out, host, port);
        if (err) return err;
        if (!hosts[length]) return 0;
        hosts += length + 1;
    }
}
