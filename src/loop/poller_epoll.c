/* The poller on Linux's epoll; the contract is in poller.h.
 *
 * epoll gives it almost as it stands: every call is safe from any thread, an edge-triggered
 * event goes to one waiter, `data` is carried along.  What is added: -errno, EINTR as
 * "nothing came", and events in a form that has no packed members. */
#include <sys/epoll.h>

#include "base/macros.h"
#include "base/sys.h"
#include "loop/poller.h"

_Static_assert(HEIST__POLL_IN == EPOLLIN && HEIST__POLL_PRI == EPOLLPRI && HEIST__POLL_OUT == EPOLLOUT &&
                   HEIST__POLL_ERR == EPOLLERR && HEIST__POLL_HUP == EPOLLHUP && HEIST__POLL_RDHUP == EPOLLRDHUP &&
                   HEIST__POLL_ONESHOT == (unsigned)EPOLLONESHOT && HEIST__POLL_EDGE == (unsigned)EPOLLET,
               "the words of the contract are epoll's, so nothing is translated");

int heist__poller_open(struct heist__poller *p) {
    int fd = heist__sys_epoll_create();
    p->fd = fd < 0 ? -1 : fd;
    return fd < 0 ? fd : 0;
}

void heist__poller_close(struct heist__poller *p) {
    if (p->fd < 0) return;
    heist__sys_close(p->fd);
    p->fd = -1;
}

static int control(struct heist__poller *p, int op, int fd, uint32_t events, uint64_t data) {
    struct epoll_event event = {.events = events, .data.u64 = data};
    return heist__sys_epoll_ctl(p->fd, op, fd, &event);
}

int heist__poller_add(struct heist__poller *p, int fd, uint32_t events, uint64_t data) {
    return control(p, EPOLL_CTL_ADD, fd, events, data);
}

int heist__poller_mod(struct heist__poller *p, int fd, uint32_t events, uint64_t data) {
    return control(p, EPOLL_CTL_MOD, fd, events, data);
}

int heist__poller_del(struct heist__poller *p, int fd) { return control(p, EPOLL_CTL_DEL, fd, 0, 0); }

int heist__poller_wait(struct heist__poller *p, struct heist__poll_event *events, int max, int64_t timeout_ns) {
    struct epoll_event got[HEIST__POLL_MAX];
    if (max > HEIST__POLL_MAX) max = HEIST__POLL_MAX;
    int count = heist__sys_epoll_wait(p->fd, got, max, timeout_ns);
    if (count < 0) return count == -EINTR ? 0 : count;
    for (int i = 0; i < count; i++) events[i] = (struct heist__poll_event){got[i].data.u64, got[i].events};
    return count;
}
