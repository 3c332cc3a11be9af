/* Datagrams by callback: a task that receives, and calls.  See the last part of heist/datagram.h.
 *
 * The task has a reference of its own to the endpoint.  What it stands on is the argument of the task, and goes with
 * it, whether the task ran or not. */
#include <heist/error.h>
#include <heist/task.h>
#include <stdint.h>

#include "base/alloc.h"
#include "base/options.h"
#include "net/datagram.h"

#define SHORT_SECONDS 0.01

struct service {
    heist_datagram_protocol protocol;
    void *user;
    heist_datagram *endpoint; /* one reference */
    size_t room;
    char data[];
};

static void service_end(void *arg) {
    struct service *s = arg;
    heist_datagram_unref(s->endpoint);
    heist__free(s);
}

/* Something is missing, and may be for a while: memory, room in the poller, a descriptor to wait with. */
static bool may_stay(ptrdiff_t code) {
    return code == -ENOMEM || code == -ENOBUFS || code == -ENOSPC || code == -EMFILE || code == -ENFILE;
}

/* What a receipt said, to whom it concerns: 0 to go on, or why it is over. */
static int deliver(struct service *s, ptrdiff_t n, const heist_addr *from) {
    const heist_datagram_protocol *p = &s->protocol;
    if (n == HEIST_ECLOSED || n == -ECANCELED) return (int)n;
    if (n >= 0 && (size_t)n <= s->room) {
        if (p->datagram_received) p->datagram_received(s->user, s->endpoint, s->data, (size_t)n, from);
        return 0;
    }
    if (p->error_received) p->error_received(s->user, s->endpoint, n < 0 ? (int)n : -EMSGSIZE);
    return may_stay(n) ? heist_sleep(SHORT_SECONDS) : 0;
}

static int serve(void *arg, void **out) {
    struct service *s = arg;
    heist_addr from;
    int code;
    (void)out;
    if (s->protocol.connection_made) s->protocol.connection_made(s->user, s->endpoint);
    do code = deliver(s, heist_datagram_recvfrom(s->endpoint, s->data, s->room, HEIST_FOREVER, &from), &from);
    while (!code);
    if (s->protocol.connection_lost)
        s->protocol.connection_lost(s->user, s->endpoint, code == HEIST_ECLOSED ? 0 : code);
    return code == HEIST_ECLOSED ? 0 : code;
}

static int start(heist_datagram *d, const heist_datagram_protocol *protocol, void *user) {
    if (d->max_received > PTRDIFF_MAX - sizeof(struct service)) return -ENOMEM;
    struct service *s = heist__alloc(sizeof(*s) + d->max_received);
    if (!s) return -ENOMEM;
    s->protocol = *protocol;
    s->user = user;
    s->endpoint = heist_datagram_ref(d);
    s->room = d->max_received;
    heist_task_options opts = HEIST_TASK_OPTIONS_INIT;
    opts.flags = HEIST_TASK_PINNED;
    opts.name = "datagram endpoint";
    opts.arg_free = service_end;
    int err = heist_create_task(serve, s, &opts, NULL);
    if (err) service_end(s);
    return err;
}

int heist_create_datagram_endpoint(const heist_datagram_protocol *protocol, void *user, const heist_addr *local,
                                   const heist_addr *remote, const heist_datagram_options *opts, heist_datagram **out) {
    if (!protocol || !out || !heist__options_ok(protocol, sizeof(*protocol))) return -EINVAL;
    heist_datagram *d;
    int err = heist_datagram_open(local, remote, opts, &d);
    if (err) return err;
    err = start(d, protocol, user);
    if (err) heist_datagram_unref(d);
    else *out = d;
    return err;
}
