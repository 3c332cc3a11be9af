/* The poller on Linux's epoll; the contract is in poller.h.
 *
 * epoll gives it almost as it stands: every call is safe from any thread, an edge-triggered
 * event goes to one waiter, `data` is carried along.  What is added: -errno, EINTR as
 * "nothing came", and events in a form that has no packed members. */
#include "loop/poller_epoll.h"

#include <sys/epoll.h>

#include "base/macros.h"
#include "base/sys.h"

_Static_assert(HEIST__POLL_IN == EPOLLIN && HEIST__POLL_PRI == EPOLLPRI && HEIST__POLL_OUT == EPOLLOUT &&
                   HEIST__POLL_ERR == EPOLLERR && HEIST__POLL_HUP == EPOLLHUP && HEIST__POLL_RDHUP == EPOLLRDHUP &&
                   HEIST__POLL_ONESHOT == (unsigned)EPOLLONESHOT && HEIST__POLL_EDGE == (unsigned)EPOLLET,
               "the words of the contract are epoll's, so nothing is translated");

int heist__epoll_control(int epfd, int op, int fd, uint32_t events, uint64_t data) {
    struct epoll_event event = {.events = events, .data.u64 = data};
    return heist__sys_epoll_ctl(epfd, op, fd, &event);
}

int heist__epoll_wait(int epfd, struct heist__poll_event *events, int max, int64_t timeout_ns) {
    struct epoll_event got[HEIST__POLL_MAX];
    if (max > HEIST__POLL_MAX) max = HEIST__POLL_MAX;
    int count = heist__sys_epoll_wait(epfd, got, max, timeout_ns);
    if (count < 0) return count == -EINTR ? 0 : count;
    for (int i = 0; i < count; i++) events[i] = (struct heist__poll_event){got[i].data.u64, got[i].events, 0};
    return count;
}
