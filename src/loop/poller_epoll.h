/* The poller on epoll; each as in poller.h. */
#ifndef HEIST_LOOP_POLLER_EPOLL_H
#define HEIST_LOOP_POLLER_EPOLL_H

#include "loop/poller.h"

int heist__epoll_control(int epfd, int op, int fd, uint32_t events, uint64_t data);
int heist__epoll_wait(int epfd, struct heist__poll_event *events, int max, int64_t timeout_ns);

#endif
