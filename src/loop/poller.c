/* Which of the two pollers.  See poller.h. */
#include "loop/poller.h"

#include <sys/epoll.h>

#include "base/macros.h"
#include "base/sys.h"
#include "loop/poller_epoll.h"
#include "loop/poller_uring.h"

int heist__poller_open(struct heist__poller *p, bool uring) {
    *p = (struct heist__poller){-1, NULL, 0};
    /* Whatever the reason is that there is no ring (an old kernel, a filter, a setting, no memory), epoll does it, and
     * when that has no descriptor either the caller is told. */
    if (uring && !heist__uring_open(p)) return 0;
    int fd = heist__sys_epoll_create();
    if (fd < 0) return fd;
    p->fd = fd;
    return 0;
}

void heist__poller_close(struct heist__poller *p) {
    if (p->fd < 0) return;
    if (p->uring) heist__uring_close(p);
    else heist__sys_close(p->fd);
    *p = (struct heist__poller){-1, NULL, 0};
}

int heist__poller_add(struct heist__poller *p, int fd, uint32_t events, uint64_t data) {
    if (heist_unlikely(p->uring)) return heist__uring_add(p->uring, fd, events, data);
    return heist__epoll_control(p->fd, EPOLL_CTL_ADD, fd, events, data);
}

int heist__poller_mod(struct heist__poller *p, int fd, uint32_t events, uint64_t data) {
    if (heist_unlikely(p->uring)) return heist__uring_mod(p->uring, fd, events, data);
    return heist__epoll_control(p->fd, EPOLL_CTL_MOD, fd, events, data);
}

int heist__poller_del(struct heist__poller *p, int fd) {
    if (heist_unlikely(p->uring)) return heist__uring_del(p->uring, fd);
    return heist__epoll_control(p->fd, EPOLL_CTL_DEL, fd, 0, 0);
}

void heist__poller_forget(struct heist__poller *p, int fd) {
    if (p->uring) heist__uring_forget(p->uring, fd);
}

int heist__poller_wait(struct heist__poller *p, struct heist__poll_event *events, int max, int64_t timeout_ns) {
    if (heist_unlikely(p->uring)) return heist__uring_wait(p->uring, events, max, timeout_ns);
    return heist__epoll_wait(p->fd, events, max, timeout_ns);
}
