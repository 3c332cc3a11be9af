/* The seam for the system calls that the engine makes.
 *
 * Owns nothing.  Called by the rooms below instead of the C library's wrappers, from
 * any thread.  Two things are true of each: it passes HEIST_SYS_POINT first, where a
 * seeded build switches threads and can refuse the call, and it returns the answer or
 * -errno, so that nobody reads errno (whose address a compiler may have kept from
 * before a suspension, when this was another thread). */
#ifndef HEIST_BASE_SYS_H
#define HEIST_BASE_SYS_H

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/sim.h"

/* In a simulation: switches threads, perhaps; a negative code makes the call fail with it.  fd: the descriptor
 * that the call is about (of a socket to be made, its domain), -1 without one. */
#ifdef HEIST_SEEDED
#define HEIST_SYS_POINT(call, fd)                                                                                      \
    do {                                                                                                               \
        int refused_ = heist__sim_maybe() ? heist__sim_call(call, fd) : 0;                                             \
        if (refused_ < 0) return refused_;                                                                             \
    } while (0)
#define HEIST__SYS_BYTES(call, fd, bytes) heist__sim_bytes(call, fd, bytes)
#else
#define HEIST_SYS_POINT(call, fd) ((void)(fd))
#define HEIST__SYS_BYTES(call, fd, bytes) (bytes)
#endif

/* The answer, or -errno.  The lvalue is evaluated once: the wrapper's own thread cannot change within it. */
#define HEIST__SYS_ANSWER(type, expression)                                                                            \
    do {                                                                                                               \
        type answer_ = (expression);                                                                                   \
        return answer_ < 0 ? (type)-errno : answer_;                                                                   \
    } while (0)

/* Sleeps until the monotonic clock has gone on by ns, or less after a signal. */
void heist__sys_sleep(int64_t ns);

/* ---- polling ---- */

static inline int heist__sys_epoll_create(void) {
    HEIST_SYS_POINT("epoll_create1", -1);
    HEIST__SYS_ANSWER(int, epoll_create1(EPOLL_CLOEXEC));
}

static inline int heist__sys_epoll_ctl(int epfd, int op, int fd, struct epoll_event *event) {
    HEIST_SYS_POINT("epoll_ctl", fd);
#ifdef HEIST_SEEDED
    heist__sim_registered(epfd, fd, op == EPOLL_CTL_DEL ? NULL : event);
#endif
    HEIST__SYS_ANSWER(int, epoll_ctl(epfd, op, fd, event));
}

/* timeout_ns: 0 looks only, negative waits for ever.  By epoll_pwait2 where the kernel has it, else by
 * epoll_wait in milliseconds, rounded up: never early.  Can be -EINTR. */
int heist__sys_epoll_wait(int epfd, struct epoll_event *events, int max, int64_t timeout_ns);

/* What of `events` is true of fd now; POLLNVAL, POLLERR and POLLHUP may stand beside them.  Never waits. */
static inline int heist__sys_poll_now(int fd, short events) {
    HEIST_SYS_POINT("poll", fd);
    struct pollfd p = {fd, events, 0};
    int n = poll(&p, 1, 0);
    return n < 0 ? -errno : p.revents;
}

/* The same, waiting for at most so long, and perhaps a little less. */
static inline int heist__sys_poll_for(int fd, short events, int64_t ns) {
    HEIST_SYS_POINT("poll", fd);
    if (heist__simulated()) { /* which does not know of it, and is not told by it */
        heist__sys_sleep(ns);
        ns = 0;
    }
    struct pollfd p = {fd, events, 0};
    int n = poll(&p, 1, (int)((ns + 999999) / 1000000));
    return n < 0 ? -errno : p.revents;
}

/* The calls of io_uring, and the memory that it shares.  Of wait and hand-over -EINTR and -ETIME can come.
 * The parameters are those of <linux/io_uring.h>, which not every system has. */
static inline int heist__sys_uring_setup(unsigned entries, void *params) {
    HEIST_SYS_POINT("io_uring_setup", -1);
#ifdef SYS_io_uring_setup
    HEIST__SYS_ANSWER(int, (int)syscall(SYS_io_uring_setup, entries, params));
#else
    (void)entries, (void)params;
    return -ENOSYS;
#endif
}

static inline int heist__sys_uring_enter(int fd, unsigned submit, unsigned complete, unsigned flags, const void *arg,
                                         size_t bytes) {
    HEIST_SYS_POINT("io_uring_enter", fd);
#ifdef SYS_io_uring_enter
    HEIST__SYS_ANSWER(int, (int)syscall(SYS_io_uring_enter, fd, submit, complete, flags, arg, bytes));
#else
    (void)submit, (void)complete, (void)flags, (void)arg, (void)bytes;
    return -ENOSYS;
#endif
}

static inline int heist__sys_uring_register(int fd, unsigned what, void *arg, unsigned count) {
    HEIST_SYS_POINT("io_uring_register", fd);
#ifdef SYS_io_uring_register
    HEIST__SYS_ANSWER(int, (int)syscall(SYS_io_uring_register, fd, what, arg, count));
#else
    (void)what, (void)arg, (void)count;
    return -ENOSYS;
#endif
}

/* Zeroed pages, which cost nothing before they are touched.  NULL on failure. */
static inline void *heist__sys_map_private(size_t bytes) {
    void *start = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return start == MAP_FAILED ? NULL : start;
}

/* NULL on failure. */
static inline void *heist__sys_map_shared(int fd, size_t bytes, off_t offset) {
    void *start = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, offset);
    return start == MAP_FAILED ? NULL : start;
}

static inline void heist__sys_unmap(void *start, size_t bytes) { (void)munmap(start, bytes); }

/* Non-blocking, closed by exec. */
static inline int heist__sys_eventfd(unsigned initial) {
    HEIST_SYS_POINT("eventfd", -1);
    HEIST__SYS_ANSWER(int, eventfd(initial, EFD_NONBLOCK | EFD_CLOEXEC));
}

/* ---- descriptors ---- */

static inline ssize_t heist__sys_read(int fd, void *buffer, size_t bytes) {
    HEIST_SYS_POINT("read", fd);
    HEIST__SYS_ANSWER(ssize_t, read(fd, buffer, bytes));
}

static inline ssize_t heist__sys_write(int fd, const void *buffer, size_t bytes) {
    HEIST_SYS_POINT("write", fd);
    HEIST__SYS_ANSWER(ssize_t, write(fd, buffer, bytes));
}

static inline ssize_t heist__sys_writev(int fd, const struct iovec *vectors, int count) {
    HEIST_SYS_POINT("writev", fd);
    HEIST__SYS_ANSWER(ssize_t, writev(fd, vectors, count));
}

/* The file's position is left alone. */
static inline ssize_t heist__sys_sendfile(int to, int from, off_t *offset, size_t bytes) {
    HEIST_SYS_POINT("sendfile", to);
    HEIST__SYS_ANSWER(ssize_t, sendfile(to, from, offset, HEIST__SYS_BYTES("sendfile", to, bytes)));
}

static inline ssize_t heist__sys_pread(int fd, void *buffer, size_t bytes, off_t offset) {
    HEIST_SYS_POINT("pread", fd);
    HEIST__SYS_ANSWER(ssize_t, pread(fd, buffer, bytes, offset));
}

static inline off_t heist__sys_lseek(int fd, off_t offset, int whence) {
    HEIST_SYS_POINT("lseek", fd);
    HEIST__SYS_ANSWER(off_t, lseek(fd, offset, whence));
}

/* The status flags (O_NONBLOCK and the like). */
static inline int heist__sys_flags(int fd) {
    HEIST_SYS_POINT("fcntl", fd);
    HEIST__SYS_ANSWER(int, fcntl(fd, F_GETFL));
}

static inline int heist__sys_set_flags(int fd, int flags) {
    HEIST_SYS_POINT("fcntl", fd);
    HEIST__SYS_ANSWER(int, fcntl(fd, F_SETFL, flags));
}

/* What of `events` (POLLIN …) is true now, and POLLERR, POLLHUP, POLLNVAL: a look, it never waits. */
static inline int heist__sys_look(int fd, short events) {
    HEIST_SYS_POINT("poll", fd);
    struct pollfd one = {.fd = fd, .events = events};
    int count;
    do count = poll(&one, 1, 0); /* a signal ends one that never waits, too */
    while (count < 0 && errno == EINTR);
    return count < 0 ? -errno : count ? one.revents : 0;
}

/* Another number for the same thing, closed by exec. */
static inline int heist__sys_dup(int fd) {
    HEIST_SYS_POINT("fcntl", fd);
    HEIST__SYS_ANSWER(int, fcntl(fd, F_DUPFD_CLOEXEC, 0));
}

/* 0, or -EBADF. */
static inline int heist__sys_is_open(int fd) {
    HEIST_SYS_POINT("fcntl", fd);
    return fcntl(fd, F_GETFD) < 0 ? -errno : 0;
}

/* The descriptor is gone whatever the answer, also after -EINTR: never to be repeated. */
static inline int heist__sys_close(int fd) {
#ifdef HEIST_SEEDED
    heist__sim_closing(fd);
#endif
    HEIST__SYS_ANSWER(int, close(fd));
}

/* ---- sockets ---- */

/* Non-blocking, closed by exec. */
static inline int heist__sys_socket(int domain, int type, int protocol) {
    HEIST_SYS_POINT("socket", domain);
    HEIST__SYS_ANSWER(int, socket(domain, type | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol));
}

static inline int heist__sys_connect(int fd, const struct sockaddr *address, socklen_t bytes) {
    HEIST_SYS_POINT("connect", fd);
    HEIST__SYS_ANSWER(int, connect(fd, address, bytes));
}

static inline int heist__sys_bind(int fd, const struct sockaddr *address, socklen_t bytes) {
    HEIST_SYS_POINT("bind", fd);
    HEIST__SYS_ANSWER(int, bind(fd, address, bytes));
}

static inline int heist__sys_listen(int fd, int backlog) {
    HEIST_SYS_POINT("listen", fd);
    HEIST__SYS_ANSWER(int, listen(fd, backlog));
}

static inline int heist__sys_shutdown(int fd, int how) {
    HEIST_SYS_POINT("shutdown", fd);
    HEIST__SYS_ANSWER(int, shutdown(fd, how));
}

static inline int heist__sys_setsockopt(int fd, int level, int name, const void *value, socklen_t bytes) {
    HEIST_SYS_POINT("setsockopt", fd);
    HEIST__SYS_ANSWER(int, setsockopt(fd, level, name, value, bytes));
}

static inline int heist__sys_getsockopt(int fd, int level, int name, void *value, socklen_t *bytes) {
    HEIST_SYS_POINT("getsockopt", fd);
    HEIST__SYS_ANSWER(int, getsockopt(fd, level, name, value, bytes));
}

static inline int heist__sys_getsockname(int fd, struct sockaddr *address, socklen_t *bytes) {
    HEIST_SYS_POINT("getsockname", fd);
    HEIST__SYS_ANSWER(int, getsockname(fd, address, bytes));
}

static inline int heist__sys_getpeername(int fd, struct sockaddr *address, socklen_t *bytes) {
    HEIST_SYS_POINT("getpeername", fd);
    HEIST__SYS_ANSWER(int, getpeername(fd, address, bytes));
}

/* Non-blocking, closed by exec. */
static inline int heist__sys_accept(int fd, struct sockaddr *address, socklen_t *bytes) {
    HEIST_SYS_POINT("accept4", fd);
    HEIST__SYS_ANSWER(int, accept4(fd, address, bytes, SOCK_NONBLOCK | SOCK_CLOEXEC));
}

static inline ssize_t heist__sys_recv(int fd, void *buffer, size_t bytes, int flags) {
    HEIST_SYS_POINT("recv", fd);
    HEIST__SYS_ANSWER(ssize_t, recv(fd, buffer, HEIST__SYS_BYTES("recv", fd, bytes), flags));
}

/* A peer that is gone is -EPIPE and never a signal. */
static inline ssize_t heist__sys_send(int fd, const void *buffer, size_t bytes, int flags) {
    HEIST_SYS_POINT("send", fd);
    HEIST__SYS_ANSWER(ssize_t, send(fd, buffer, HEIST__SYS_BYTES("send", fd, bytes), flags | MSG_NOSIGNAL));
}

static inline ssize_t heist__sys_sendmsg(int fd, const struct msghdr *message, int flags) {
    HEIST_SYS_POINT("sendmsg", fd);
    HEIST__SYS_ANSWER(ssize_t, sendmsg(fd, message, flags | MSG_NOSIGNAL));
}

/* With an address: *bytes is its room, then its length. */
static inline ssize_t heist__sys_recvfrom(int fd, void *buffer, size_t bytes, int flags, struct sockaddr *address,
                                          socklen_t *length) {
    HEIST_SYS_POINT("recvfrom", fd);
    HEIST__SYS_ANSWER(ssize_t, recvfrom(fd, buffer, bytes, flags, address, length));
}

static inline ssize_t heist__sys_sendto(int fd, const void *buffer, size_t bytes, int flags,
                                        const struct sockaddr *address, socklen_t length) {
    HEIST_SYS_POINT("sendto", fd);
    HEIST__SYS_ANSWER(ssize_t, sendto(fd, buffer, bytes, flags | MSG_NOSIGNAL, address, length));
}

/* Descriptors that come are closed by exec. */
static inline ssize_t heist__sys_recvmsg(int fd, struct msghdr *message, int flags) {
    HEIST_SYS_POINT("recvmsg", fd);
    HEIST__SYS_ANSWER(ssize_t, recvmsg(fd, message, flags | MSG_CMSG_CLOEXEC));
}

/* Several datagrams at once: how many. */
static inline int heist__sys_recvmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags) {
    HEIST_SYS_POINT("recvmmsg", fd);
    HEIST__SYS_ANSWER(int, recvmmsg(fd, messages, count, flags | MSG_CMSG_CLOEXEC, NULL));
}

static inline int heist__sys_sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags) {
    HEIST_SYS_POINT("sendmmsg", fd);
    HEIST__SYS_ANSWER(int, sendmmsg(fd, messages, count, flags | MSG_NOSIGNAL));
}

/* ---- files: calls that block for as long as a disk may take ---- */

/* Closed by exec. */
static inline int heist__sys_open(const char *path, int flags, mode_t mode) {
    HEIST_SYS_POINT("openat", -1);
    HEIST__SYS_ANSWER(int, open(path, flags | O_CLOEXEC, mode));
}

/* As far as it needs no disk: -EAGAIN when nothing of it is in memory, or -EOPNOTSUPP.  offset -1: at the position. */
static inline ssize_t heist__sys_pread_now(int fd, void *buffer, size_t bytes, int64_t offset) {
    struct iovec whole = {buffer, bytes};
    HEIST_SYS_POINT("preadv2", fd);
    HEIST__SYS_ANSWER(ssize_t, preadv2(fd, &whole, 1, offset, RWF_NOWAIT));
}

static inline ssize_t heist__sys_pwrite(int fd, const void *buffer, size_t bytes, int64_t offset) {
    HEIST_SYS_POINT("pwrite64", fd);
    HEIST__SYS_ANSWER(ssize_t, pwrite(fd, buffer, bytes, offset));
}

static inline int heist__sys_sync(int fd, int data_only) {
    HEIST_SYS_POINT("fsync", fd);
    HEIST__SYS_ANSWER(int, data_only ? fdatasync(fd) : fsync(fd));
}

static inline int heist__sys_truncate(int fd, int64_t size) {
    HEIST_SYS_POINT("ftruncate", fd);
    HEIST__SYS_ANSWER(int, ftruncate(fd, size));
}

static inline int heist__sys_fstat(int fd, struct stat *out) {
    HEIST_SYS_POINT("fstat", fd);
    HEIST__SYS_ANSWER(int, fstat(fd, out));
}

/* flags: AT_SYMLINK_NOFOLLOW, or 0. */
static inline int heist__sys_stat(const char *path, struct stat *out, int flags) {
    HEIST_SYS_POINT("newfstatat", -1);
    HEIST__SYS_ANSWER(int, fstatat(AT_FDCWD, path, out, flags));
}

static inline int heist__sys_mkdir(const char *path, mode_t mode) {
    HEIST_SYS_POINT("mkdir", -1);
    HEIST__SYS_ANSWER(int, mkdir(path, mode));
}

/* flags: AT_REMOVEDIR, or 0. */
static inline int heist__sys_unlink(const char *path, int flags) {
    HEIST_SYS_POINT("unlinkat", -1);
    HEIST__SYS_ANSWER(int, unlinkat(AT_FDCWD, path, flags));
}

static inline int heist__sys_rename(const char *from, const char *to) {
    HEIST_SYS_POINT("rename", -1);
    HEIST__SYS_ANSWER(int, renameat(AT_FDCWD, from, AT_FDCWD, to));
}

/* Entries of a directory, as many as fit, in the kernel's struct linux_dirent64. */
static inline ssize_t heist__sys_getdents(int fd, void *buffer, size_t bytes) {
    HEIST_SYS_POINT("getdents64", fd);
    HEIST__SYS_ANSWER(ssize_t, syscall(SYS_getdents64, fd, buffer, bytes));
}

/* Non-blocking, closed by exec. */
static inline int heist__sys_inotify(void) {
    HEIST_SYS_POINT("inotify_init1", -1);
    HEIST__SYS_ANSWER(int, inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
}

static inline int heist__sys_inotify_add(int fd, const char *path, uint32_t mask) {
    HEIST_SYS_POINT("inotify_add_watch", fd);
    HEIST__SYS_ANSWER(int, inotify_add_watch(fd, path, mask));
}

static inline int heist__sys_inotify_remove(int fd, int id) {
    HEIST_SYS_POINT("inotify_rm_watch", fd);
    HEIST__SYS_ANSWER(int, inotify_rm_watch(fd, id));
}

/* ---- processes ---- */

/* Both ends closed by exec; they block. */
static inline int heist__sys_pipe(int ends[2]) {
    HEIST_SYS_POINT("pipe2", -1);
    HEIST__SYS_ANSWER(int, pipe2(ends, O_CLOEXEC));
}

/* 1: ended, and taken; 0: it runs, and `options` said not to wait; -ECHILD: somebody else took it. */
static inline int heist__sys_waitid(int pidfd, siginfo_t *info, int options) {
    HEIST_SYS_POINT("waitid", pidfd);
    info->si_pid = 0;
    int rc = waitid((idtype_t)3 /* P_PIDFD */, (id_t)pidfd, info, WEXITED | options);
    return rc < 0 ? -errno : info->si_pid != 0;
}

/* Closed by exec.  SYS_pidfd_open has this number on every machine. */
static inline int heist__sys_pidfd_open(pid_t pid) {
    HEIST_SYS_POINT("pidfd_open", -1);
    HEIST__SYS_ANSWER(int, (int)syscall(434, pid, 0));
}

/* -ESRCH when its status was taken; never another process. */
static inline int heist__sys_pidfd_send_signal(int pidfd, int sig) {
    HEIST_SYS_POINT("pidfd_send_signal", pidfd);
    HEIST__SYS_ANSWER(int, (int)syscall(SYS_pidfd_send_signal, pidfd, sig, NULL, 0));
}

static inline int heist__sys_kill(pid_t pid, int sig) {
    HEIST_SYS_POINT("kill", -1);
    HEIST__SYS_ANSWER(int, kill(pid, sig));
}

/* ---- memory; whole fresh mappings come from alloc.h ---- */

static inline int heist__sys_mprotect(void *start, size_t bytes, int protection) {
    HEIST_SYS_POINT("mprotect", -1);
    HEIST__SYS_ANSWER(int, mprotect(start, bytes, protection));
}

static inline int heist__sys_madvise(void *start, size_t bytes, int advice) {
    HEIST_SYS_POINT("madvise", -1);
    HEIST__SYS_ANSWER(int, madvise(start, bytes, advice));
}

/* ---- time and threads ---- */

/* The monotonic clock.  No yield point: it is read everywhere and orders nothing. */
static inline int64_t heist__sys_monotonic_ns(void) {
#ifdef HEIST_SEEDED
    if (heist__simulated()) return heist__sim_now();
#endif
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail with this clock and a good address */
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* 0 or -EAGAIN, -EPERM, -EINVAL. */
static inline int heist__sys_thread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *),
                                           void *arg) {
    HEIST_SYS_POINT("pthread_create", -1);
#ifdef HEIST_SEEDED
    if (heist__simulated()) return heist__sim_thread_create(thread, attributes, start, arg);
#endif
    return -pthread_create(thread, attributes, start, arg);
}

static inline int heist__sys_thread_join(pthread_t thread, void **result) {
#ifdef HEIST_SEEDED
    if (heist__simulated()) return heist__sim_thread_join(thread, result);
#endif
    return -pthread_join(thread, result);
}

/* Gives the processor to another thread, for a loop that waits for one. */
static inline void heist__sys_yield(void) {
    if (heist__simulated())
        heist__sim_spin("yield", 0);
    else
        sched_yield();
}

/* Sleeps while the word holds `expected`, at most until the monotonic clock reaches deadline_ns (INT64_MAX: for
 * ever).  0 also spuriously, -ETIMEDOUT only past the deadline. */
int heist__sys_futex_wait(_Atomic(uint32_t) *word, uint32_t expected, int64_t deadline_ns);

static inline void heist__sys_futex_wake(_Atomic(uint32_t) *word, int count) {
#ifdef HEIST_SEEDED
    heist__sim_wake(word, count);
#endif
    (void)syscall(SYS_futex, word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, count, NULL, NULL, 0);
}

#endif
