/* Calls on descriptors of the user's: sockets, and a wait for whatever can be polled.  Loopback only. */
#include "support/scene.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

static void open_pair(int type, int fd[2]) {
    if (socketpair(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fd) < 0) abort();
}

static void close_pair(const int fd[2]) {
    SEE_IS(0, heist_sock_close(fd[0]));
    SEE_IS(0, heist_sock_close(fd[1]));
}

/* How many interests in fd the process's poll sets hold. */
static int interests(int fd) {
    int count = 0;
    DIR *folder = opendir("/proc/self/fdinfo");
    if (!folder) return -1;
    for (struct dirent *e; (e = readdir(folder));) {
        char path[300], line[300];
        snprintf(path, sizeof path, "/proc/self/fdinfo/%s", e->d_name);
        FILE *f = fopen(path, "re");
        for (int number; f && fgets(line, sizeof line, f);)
            count += sscanf(line, "tfd: %d", &number) == 1 && number == fd;
        if (f) fclose(f);
    }
    closedir(folder);
    return count;
}

/* Whether interests() sees those that stand: io_uring tells of none. */
static bool interests_are_seen(void) {
    heist_loop *loop = NULL;
    return heist_get_running_loop(&loop) == 0 && strcmp(heist_loop_backend(loop), "epoll") == 0;
}

/* Returns when another task waits to read fd: then a second one is -EBUSY.  A probe that is first gives up at once; the
 * other, should it meet one, tries again. */
static int until_somebody_waits(int fd, unsigned direction) {
    for (;;) {
        int err = heist_fd_wait(fd, direction, heist_time());
        if (err == -EBUSY) return 0;
        if (err < 0 && err != -ETIMEDOUT) return err;
        if ((err = heist_yield()) < 0) return err;
    }
}

struct reading {
    int fd;
    char buf[64];
    double deadline;
    ptrdiff_t n;
};

static int read_one(void *arg, void **out) {
    struct reading *r = arg;
    (void)out;
    double deadline = r->deadline ? r->deadline : HEIST_FOREVER;
    do r->n = heist_sock_recv(r->fd, r->buf, sizeof r->buf, 0, deadline);
    while (r->n == -EBUSY && heist_yield() == 0); /* it met a probe */
    return r->n < 0 ? (int)r->n : 0;
}

/* A task that waits to read it. */
static heist_task *begin_reading(struct reading *r, int fd) {
    heist_task *task = NULL;
    *r = (struct reading){.fd = fd, .n = 1};
    SEE_IS(0, heist_create_task(read_one, r, NULL, &task));
    SEE_IS(0, until_somebody_waits(fd, HEIST_READABLE));
    return task;
}

static int end_of(heist_task *task) {
    int err = heist_await(task, NULL);
    heist_unref(task);
    return err;
}

/* ---- streams ---- */

static int recv_scene(void *arg, void **out) {
    int fd[2];
    char buf[16] = "";
    struct reading r;
    (void)arg, (void)out;
    open_pair(SOCK_STREAM, fd);
    SEE_IS(5, heist_sock_send(fd[0], "hello", 5, 0, HEIST_FOREVER));
    SEE_IS(3, heist_sock_recv(fd[1], buf, 3, 0, HEIST_FOREVER));
    SEE_IS(2, heist_sock_recv(fd[1], buf + 3, 13, MSG_PEEK, HEIST_FOREVER));
    SEE_IS(2, heist_sock_recv(fd[1], buf + 3, 13, 0, HEIST_FOREVER));
    SEE(memcmp(buf, "hello", 5) == 0);
    heist_task *task = begin_reading(&r, fd[1]);
    SEE_IS(5, heist_sock_send(fd[0], "world", 5, 0, HEIST_FOREVER));
    SEE_IS(0, end_of(task));
    SEE(r.n == 5 && memcmp(r.buf, "world", 5) == 0);
    SEE_IS(0, interests(fd[1]));
    SEE_IS(0, heist_sock_close(fd[0]));
    SEE_IS(0, heist_sock_recv(fd[1], buf, sizeof buf, 0, HEIST_FOREVER));
    SEE_IS(-EPIPE, heist_sock_send(fd[1], "x", 1, 0, HEIST_FOREVER)); /* and no signal */
    SEE_IS(-EPIPE, heist_sock_sendall(fd[1], "x", 1, 0, HEIST_FOREVER, NULL));
    SEE_IS(0, heist_sock_close(fd[1]));
    return 0;
}

static void recv_takes_what_is_there_and_nothing_at_the_end_SOCK_06(void **state) {
    (void)state;
    play(recv_scene);
}

enum { BULK = 8 << 20 };
static char pattern(size_t i) { return (char)(i * 7 + i / 251); }

static int take_bulk(void *arg, void **out) {
    int fd = *(int *)arg;
    static char buf[50000];
    size_t got = 0;
    (void)out;
    for (;;) {
        ptrdiff_t n = heist_sock_recv(fd, buf, sizeof buf, 0, HEIST_FOREVER);
        if (n <= 0) return n < 0 ? (int)n : got == BULK ? 0 : -EPROTO;
        for (ptrdiff_t i = 0; i < n; i++)
            if (buf[i] != pattern(got + (size_t)i)) return -EILSEQ;
        got += (size_t)n;
    }
}

static int sendall_scene(void *arg, void **out) {
    int fd[2];
    size_t sent = 1;
    heist_task *task = NULL;
    (void)arg, (void)out;
    open_pair(SOCK_STREAM, fd);
    char *data = malloc(BULK);
    if (!data) abort();
    for (size_t i = 0; i < BULK; i++) data[i] = pattern(i);
    SEE_IS(0, heist_create_task(take_bulk, &fd[1], NULL, &task));
    SEE_IS(0, heist_sock_sendall(fd[0], data, BULK, 0, HEIST_FOREVER, &sent));
    SEE_IS(BULK, sent);
    SEE_IS(0, heist_sock_close(fd[0]));
    SEE_IS(0, end_of(task));
    SEE_IS(0, heist_sock_close(fd[1]));
    /* Nobody reads: what went until the deadline is told. */
    open_pair(SOCK_STREAM, fd);
    SEE_IS(-ETIMEDOUT, heist_sock_sendall(fd[0], data, BULK, 0, heist_time() + 0.01, &sent));
    SEE(sent > 0 && sent < BULK);
    SEE_IS(0, interests(fd[0]));
    close_pair(fd);
    free(data);
    return 0;
}

static void sendall_hands_over_far_more_than_the_buffers_hold_SOCK_07(void **state) {
    (void)state;
    play(sendall_scene);
}

static int listen_on_loopback(heist_addr *addr) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (fd < 0 || bind(fd, (struct sockaddr *)&in, sizeof in) || listen(fd, 16)) abort();
    addr->length = sizeof addr->storage;
    if (getsockname(fd, (struct sockaddr *)&addr->storage, &addr->length)) abort();
    return fd;
}

static int tcp(void) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) abort();
    return fd;
}

struct accepting {
    int listener, fd, err;
    heist_addr peer;
};

static int accept_one(void *arg, void **out) {
    struct accepting *a = arg;
    (void)out;
    do a->err = heist_sock_accept(a->listener, HEIST_FOREVER, &a->fd, &a->peer);
    while (a->err == -EBUSY && heist_yield() == 0);
    return a->err;
}

static int connect_scene(void *arg, void **out) {
    heist_addr addr, own;
    (void)arg, (void)out;
    struct accepting a = {.listener = listen_on_loopback(&addr), .fd = -1};
    heist_task *task = NULL;
    SEE_IS(0, heist_create_task(accept_one, &a, NULL, &task));
    SEE_IS(0, until_somebody_waits(a.listener, HEIST_READABLE));
    int fd = tcp();
    SEE_IS(0, heist_sock_connect(fd, &addr, heist_time() + 60));
    SEE_IS(0, end_of(task));
    SEE(a.fd >= 0 && fcntl(a.fd, F_GETFL) & O_NONBLOCK && fcntl(a.fd, F_GETFD) & FD_CLOEXEC);
    own.length = sizeof own.storage;
    SEE_IS(0, getsockname(fd, (struct sockaddr *)&own.storage, &own.length));
    SEE(own.length == a.peer.length && memcmp(&own.storage, &a.peer.storage, own.length) == 0);
    int again = heist_sock_connect(fd, &addr, heist_time() + 60); /* the system says once more that it has connected */
    SEE(again == 0 || again == -EISCONN);
    SEE_IS(-EISCONN, heist_sock_connect(fd, &addr, heist_time() + 60));
    char byte;
    SEE_IS(1, heist_sock_send(fd, "x", 1, 0, HEIST_FOREVER));
    SEE_IS(1, heist_sock_recv(a.fd, &byte, 1, 0, HEIST_FOREVER));
    SEE_IS(0, heist_sock_close(a.fd));
    SEE_IS(0, heist_sock_close(fd));
    /* Nobody listens there any more. */
    SEE_IS(-ETIMEDOUT, heist_sock_accept(a.listener, heist_time() + 0.001, &a.fd, NULL));
    SEE_IS(0, heist_sock_close(a.listener));
    int err;
    do { /* a ring may let go of what it polled a little after the close (runtime.h): one more is let in, or reset */
        fd = tcp();
        err = heist_sock_connect(fd, &addr, heist_time() + 60);
        SEE_IS(0, interests(fd));
        SEE_IS(0, heist_sock_close(fd));
    } while ((err == 0 || err == -ECONNRESET) && heist_yield() == 0);
    SEE_IS(-ECONNREFUSED, err);
    return 0;
}

static void connect_and_accept_give_both_ends_or_the_sockets_error_SOCK_04_SOCK_05(void **state) {
    (void)state;
    play(connect_scene);
}

static int by_name_scene(void *arg, void **out) {
    heist_addr addr;
    char port[16];
    struct sockaddr_in in;
    (void)arg, (void)out;
    int listener = listen_on_loopback(&addr), one = -1;
    memcpy(&in, &addr.storage, sizeof in);
    snprintf(port, sizeof port, "%u", ntohs(in.sin_port));
    static const char *const names[] = {"127.0.0.1", "localhost"};
    for (int i = 0; i < 2; i++) {
        int fd = tcp();
        SEE_IS(0, heist_sock_connect_host(fd, names[i], port, heist_time() + 60));
        SEE_IS(0, heist_sock_accept(listener, heist_time() + 60, &one, NULL));
        SEE_IS(0, heist_sock_close(one));
        SEE_IS(0, heist_sock_close(fd));
    }
    int fd = tcp();
    SEE_IS(-EINVAL, heist_sock_connect_host(fd, NULL, port, HEIST_FOREVER));
    SEE_IS(HEIST_ESERVICE, heist_sock_connect_host(fd, "127.0.0.1", "no such service", HEIST_FOREVER));
    SEE_IS(0, heist_sock_close(fd));
    SEE_IS(-EBADF, heist_sock_connect_host(fd, "localhost", port, HEIST_FOREVER));
    SEE_IS(0, heist_sock_close(listener));
    return 0;
}

static void name_is_resolved_before_it_is_connected_to_SOCK_04(void **state) {
    (void)state;
    play(by_name_scene);
}

/* A Unix listener's full backlog is no error, and no event tells of its end. */
static int connect_later(void *arg, void **out) {
    heist_addr *addr = arg;
    (void)out;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int err = heist_sock_connect(fd, addr, HEIST_FOREVER);
    SEE_IS(0, heist_sock_close(fd));
    return err;
}

static int unix_connect_scene(void *arg, void **out) {
    char name[64];
    heist_addr addr;
    enum { CLIENTS = 6 };
    heist_task *task[CLIENTS];
    (void)arg, (void)out;
    snprintf(name, sizeof name, "unix:@heist-sock-%d", (int)getpid());
    SEE_IS(0, heist_addr_parse(name, &addr));
    int fd, listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    SEE_IS(0, bind(listener, (struct sockaddr *)&addr.storage, addr.length) || listen(listener, 1));
    for (int i = 0; i < CLIENTS; i++) SEE_IS(0, heist_create_task(connect_later, &addr, NULL, &task[i]));
    SEE_IS(0, heist_sleep(0.005));
    for (int i = 0; i < CLIENTS; i++) {
        SEE_IS(0, heist_sock_accept(listener, HEIST_FOREVER, &fd, NULL));
        SEE_IS(0, heist_sock_close(fd));
    }
    for (int i = 0; i < CLIENTS; i++) SEE_IS(0, end_of(task[i]));
    SEE_IS(0, heist_sock_close(listener));
    return 0;
}

static void connect_outlasts_a_full_backlog(void **state) {
    (void)state;
    play(unix_connect_scene);
}

/* ---- datagrams ---- */

static int udp(heist_addr *addr) {
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (fd < 0 || bind(fd, (struct sockaddr *)&in, sizeof in)) abort();
    addr->length = sizeof addr->storage;
    if (getsockname(fd, (struct sockaddr *)&addr->storage, &addr->length)) abort();
    return fd;
}

static int datagram_scene(void *arg, void **out) {
    heist_addr a, b, from;
    char buf[16];
    (void)arg, (void)out;
    int fd = udp(&a), other = udp(&b);
    SEE_IS(5, heist_sock_sendto(fd, "hello", 5, 0, &b, HEIST_FOREVER));
    SEE_IS(0, heist_sock_sendto(fd, NULL, 0, 0, &b, HEIST_FOREVER));
    SEE_IS(7, heist_sock_sendto(fd, "a third", 7, 0, &b, HEIST_FOREVER));
    SEE_IS(5, heist_sock_recvfrom(other, buf, sizeof buf, 0, HEIST_FOREVER, &from));
    SEE(from.length == a.length && memcmp(&from.storage, &a.storage, a.length) == 0);
    SEE_IS(0, heist_sock_recvfrom(other, buf, sizeof buf, 0, HEIST_FOREVER, NULL));
    SEE_IS(7, heist_sock_recvfrom(other, buf, 2, MSG_TRUNC, HEIST_FOREVER, &from));
    SEE_IS(-ETIMEDOUT, heist_sock_recvfrom(other, buf, sizeof buf, 0, heist_time() + 0.001, &from));
    /* The same by messages, scattered. */
    struct iovec parts[2] = {{buf, 2}, {buf + 8, 8}};
    struct msghdr msg = {.msg_name = &b.storage,
                         .msg_namelen = b.length,
                         .msg_iov = &(struct iovec){(void *)"hello", 5},
                         .msg_iovlen = 1};
    SEE_IS(5, heist_sock_sendmsg(fd, &msg, 0, HEIST_FOREVER));
    msg = (struct msghdr){
        .msg_name = &from.storage, .msg_namelen = sizeof from.storage, .msg_iov = parts, .msg_iovlen = 2};
    SEE_IS(5, heist_sock_recvmsg(other, &msg, 0, HEIST_FOREVER));
    SEE(memcmp(buf, "he", 2) == 0 && memcmp(buf + 8, "llo", 3) == 0 && msg.msg_namelen == a.length);
    SEE_IS(0, heist_sock_close(fd));
    SEE_IS(0, heist_sock_close(other));
    return 0;
}

static void datagrams_come_with_the_senders_address_SOCK_08(void **state) {
    (void)state;
    play(datagram_scene);
}

/* To an address whose queue is full: nothing tells when there is room, and nobody spins or sleeps for ever. */
static int send_three(void *arg, void **out) {
    heist_addr *to = arg;
    (void)out;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), err = 0;
    for (int i = 0; i < 3 && !err; i++) err = (int)heist_sock_sendto(fd, "12345", 5, 0, to, HEIST_FOREVER) - 5;
    SEE_IS(0, heist_sock_close(fd));
    return err;
}

static int far_room_scene(void *arg, void **out) {
    char name[64], byte;
    heist_addr addr;
    int queued = 0, got = 0;
    heist_task *task = NULL;
    (void)arg, (void)out;
    snprintf(name, sizeof name, "unix:@heist-room-%d", (int)getpid());
    SEE_IS(0, heist_addr_parse(name, &addr));
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int sender = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    SEE_IS(0, bind(fd, (struct sockaddr *)&addr.storage, addr.length));
    while (sendto(sender, "x", 1, 0, (struct sockaddr *)&addr.storage, addr.length) == 1) queued++;
    SEE_IS(-ETIMEDOUT, heist_sock_sendto(sender, "x", 1, 0, &addr, heist_time() + 0.003));
    SEE_IS(0, heist_create_task(send_three, &addr, NULL, &task));
    SEE_IS(0, heist_sleep(0.003));
    while (got < queued + 3) got += heist_sock_recv(fd, &byte, 1, 0, HEIST_FOREVER) == 1;
    SEE_IS(0, end_of(task));
    SEE_IS(0, heist_sock_close(fd));
    SEE_IS(0, heist_sock_close(sender));
    return 0;
}

static void room_at_a_full_address_is_waited_for(void **state) {
    (void)state;
    play(far_room_scene);
}

/* ---- ends of waits ---- */

static int cancel_scene(void *arg, void **out) {
    int fd[2];
    struct reading r;
    char buf[16];
    (void)arg, (void)out;
    open_pair(SOCK_STREAM, fd);
    heist_task *task = begin_reading(&r, fd[1]);
    SEE_IS(interests_are_seen(), interests(fd[1]));
    SEE_IS(1, heist_cancel(task));
    SEE_IS(-ECANCELED, end_of(task));
    SEE_IS(-ECANCELED, r.n);
    SEE_IS(0, interests(fd[1])); /* nothing is left in any poll set */
    SEE_IS(-ETIMEDOUT, heist_sock_recv(fd[1], buf, sizeof buf, 0, heist_time() + 0.001));
    SEE_IS(0, interests(fd[1]));
    SEE_IS(5, heist_sock_send(fd[0], "hello", 5, 0, HEIST_FOREVER));
    SEE_IS(5, heist_sock_recv(fd[1], buf, sizeof buf, 0, HEIST_FOREVER));
    close_pair(fd);
    return 0;
}

static void cancelled_call_leaves_no_interest_and_a_usable_socket_SOCK_09(void **state) {
    (void)state;
    play(cancel_scene);
}

static int cancelled_before_scene(void *arg, void **out) {
    int fd[2];
    char byte;
    (void)arg, (void)out;
    open_pair(SOCK_STREAM, fd);
    SEE_IS(1, heist_sock_send(fd[0], "x", 1, 0, HEIST_FOREVER));
    heist_cancel(heist_current_task());
    SEE_IS(-ECANCELED, heist_sock_recv(fd[1], &byte, 1, 0, HEIST_FOREVER)); /* though it need not have waited */
    SEE_IS(1, heist_sock_recv(fd[1], &byte, 1, 0, HEIST_FOREVER));
    close_pair(fd);
    return 0;
}

static void request_is_delivered_before_anything_is_taken(void **state) {
    (void)state;
    play(cancelled_before_scene);
}

static int busy_scene(void *arg, void **out) {
    int fd[2];
    struct reading r;
    char buf[16];
    (void)arg, (void)out;
    open_pair(SOCK_STREAM, fd);
    heist_task *task = begin_reading(&r, fd[1]);
    SEE_IS(-EBUSY, heist_sock_recv(fd[1], buf, sizeof buf, 0, HEIST_FOREVER));
    SEE_IS(-EBUSY, heist_fd_wait(fd[1], HEIST_READABLE, HEIST_FOREVER));
    SEE_IS(1, heist_sock_send(fd[1], "x", 1, 0, HEIST_FOREVER)); /* the other direction is free */
    SEE_IS(HEIST_WRITABLE, heist_fd_wait(fd[1], HEIST_WRITABLE, HEIST_FOREVER));
    SEE_IS(0, interests(fd[0]));
    SEE_IS(5, heist_sock_send(fd[0], "hello", 5, 0, HEIST_FOREVER));
    SEE_IS(0, end_of(task));
    SEE_IS(5, r.n);
    close_pair(fd);
    return 0;
}

static void second_waiter_in_a_direction_is_busy(void **state) {
    (void)state;
    play(busy_scene);
}

static int write_until_closed(void *arg, void **out) {
    static const char data[100000];
    int err;
    (void)out;
    do err = heist_sock_sendall(*(int *)arg, data, sizeof data, 0, HEIST_FOREVER, NULL);
    while (err == 0 || (err == -EBUSY && heist_yield() == 0));
    return err;
}

/* One reads and one writes: both waits are known by one registration, and each ends by its own event. */
static int both_directions_scene(void *arg, void **out) {
    int fd[2];
    struct reading r;
    heist_task *writer = NULL;
    (void)arg, (void)out;
    open_pair(SOCK_STREAM, fd);
    SEE_IS(0, heist_create_task(write_until_closed, &fd[0], NULL, &writer));
    SEE_IS(0, until_somebody_waits(fd[0], HEIST_WRITABLE));
    heist_task *reader = begin_reading(&r, fd[0]);
    SEE_IS(interests_are_seen(), interests(fd[0]));
    SEE_IS(1, heist_sock_send(fd[1], "x", 1, 0, HEIST_FOREVER));
    SEE_IS(0, end_of(reader));
    SEE_IS(1, r.n);
    reader = begin_reading(&r, fd[0]);
    SEE_IS(0, until_somebody_waits(fd[0], HEIST_WRITABLE));
    SEE_IS(0, heist_sock_close(fd[0]));
    SEE_IS(HEIST_ECLOSED, end_of(reader));
    SEE_IS(HEIST_ECLOSED, end_of(writer));
    SEE_IS(0, heist_sock_close(fd[1]));
    return 0;
}

static void reader_and_writer_of_one_descriptor_are_apart_and_close_wakes_both(void **state) {
    (void)state;
    play(both_directions_scene);
}

static void *close_from_outside(void *arg) { return (void *)(intptr_t)heist_sock_close(*(int *)arg); }

static int closed_scene(void *arg, void **out) {
    int fd[2], next[2];
    struct reading r;
    void *code = &code;
    (void)arg, (void)out;
    open_pair(SOCK_STREAM, fd);
    heist_task *task = begin_reading(&r, fd[1]);
    pthread_t thread = harness_thread(close_from_outside, &fd[1]); /* a plain thread's is as good */
    SEE_IS(HEIST_ECLOSED, end_of(task));
    if (pthread_join(thread, &code)) abort();
    SEE_IS(0, (intptr_t)code);
    SEE_IS(HEIST_ECLOSED, r.n);
    SEE_IS(-1, fcntl(fd[1], F_GETFD)); /* whoever waited has left, so the number is free */
    SEE_IS(-EBADF, heist_sock_recv(fd[1], r.buf, 1, 0, HEIST_FOREVER));
    SEE_IS(-EBADF, heist_sock_close(fd[1]));
    open_pair(SOCK_STREAM, next); /* the number again */
    SEE(next[0] == fd[1] || next[1] == fd[1]);
    SEE_IS(1, heist_sock_send(next[0], "x", 1, 0, HEIST_FOREVER));
    SEE_IS(1, heist_sock_recv(next[1], r.buf, 1, 0, HEIST_FOREVER));
    SEE_IS(0, heist_sock_close(fd[0]));
    close_pair(next);
    return 0;
}

static void close_wakes_who_waits_and_frees_the_number_behind_him(void **state) {
    (void)state;
    play(closed_scene);
}

/* The program closed past the library while a task waits, and the number is used again. */
static int reused_scene(void *arg, void **out) {
    int old[2], fresh[2];
    struct reading a, b;
    heist_task *reader = NULL;
    (void)arg, (void)out;
    open_pair(SOCK_STREAM, old);
    open_pair(SOCK_STREAM, fresh);
    heist_task *stale = begin_reading(&a, old[0]);
    if (dup2(fresh[0], old[0]) < 0) abort(); /* closes the old file */
    close(fresh[0]);
    b = (struct reading){.fd = old[0], .n = 1};
    SEE_IS(0, heist_create_task(read_one, &b, NULL, &reader));
    SEE_IS(HEIST_ECLOSED, end_of(stale)); /* found out by the new one's wait */
    SEE_IS(3, heist_sock_send(fresh[1], "new", 3, 0, HEIST_FOREVER));
    SEE_IS(0, end_of(reader));
    SEE(b.n == 3 && memcmp(b.buf, "new", 3) == 0);
    /* A probe finds it out as well. */
    int kept = fresh[1];
    stale = begin_reading(&a, old[0]);
    open_pair(SOCK_DGRAM, fresh);
    if (dup2(fresh[0], old[0]) < 0) abort();
    close(fresh[0]);
    SEE_IS(-ETIMEDOUT, heist_fd_wait(old[0], HEIST_READABLE, heist_time() + 0.001));
    SEE_IS(HEIST_ECLOSED, end_of(stale));
    SEE_IS(0, interests(old[0]));
    close(kept);
    close(old[1]);
    close(fresh[1]);
    close(old[0]);
    return 0;
}

static void number_that_is_used_again_never_wakes_the_wrong_waiter_SOCK_11(void **state) {
    (void)state;
    play(reused_scene);
}

static int reused_by_connection_scene(void *arg, void **out) {
    int old[2], fresh[2];
    struct reading a;
    heist_addr addr;
    heist_conn *conn = NULL, *other = NULL;
    heist_listener *listener = NULL;
    char byte;
    (void)arg, (void)out;
    SEE_IS(0, heist_addr_parse("127.0.0.1:0", &addr));
    SEE_IS(0, heist_listen(&addr, NULL, &listener));
    SEE_IS(0, heist_listener_addr(listener, &addr));
    open_pair(SOCK_STREAM, old);
    open_pair(SOCK_STREAM, fresh);
    heist_task *stale = begin_reading(&a, old[0]);
    close(old[0]);
    SEE_IS(0, heist_connect(&addr, HEIST_FOREVER, &conn)); /* gets the lowest number that is free */
    SEE_IS(old[0], heist_conn_fd(conn));
    SEE_IS(HEIST_ECLOSED, end_of(stale));
    SEE_IS(0, heist_accept(listener, HEIST_FOREVER, &other));
    SEE_IS(0, heist_conn_write(other, "x", 1, HEIST_FOREVER, NULL));
    SEE_IS(1,
           heist_conn_read(conn, &byte, 1, HEIST_FOREVER)); /* the stale wait took nothing of its registration along */
    heist_conn_close(conn);
    heist_conn_close(other);
    heist_listener_close(listener);
    close(old[1]);
    close_pair(fresh);
    return 0;
}

static void connection_that_gets_a_stale_number_is_not_disturbed_SOCK_11(void **state) {
    (void)state;
    play(reused_by_connection_scene);
}

/* A reader is removed only when its descriptor was closed, and the number is another's: that one goes on. */
static int fell_asleep(void *arg, void **out) {
    char byte;
    (void)out;
    return heist_conn_read(arg, &byte, 1, heist_time() + 60) == 1 ? 0 : -EPROTO;
}

static int no_call(void *arg) {
    (void)arg;
    return 0;
}

static int removed_late_scene(void *arg, void **out) {
    heist_loop *loop;
    (void)arg, (void)out;
    SEE_IS(0, heist_get_running_loop(&loop));
    for (int kind = 0; kind < 2; kind++) { /* a connection's, a call's */
        int old[2], fresh[2];
        heist_conn *conn = NULL;
        heist_task *task = NULL;
        struct reading r;
        open_pair(SOCK_STREAM, old);
        SEE_IS(0, heist_loop_add_reader(loop, old[0], no_call, NULL, NULL));
        SEE_IS(0, heist_loop_add_writer(loop, old[0], no_call, NULL, NULL));
        close(old[0]);
        open_pair(SOCK_STREAM, fresh); /* gets the lowest number that is free */
        SEE_IS(old[0], fresh[0]);
        if (kind == 0) {
            SEE_IS(0, heist_conn_open(fresh[0], &conn));
            SEE_IS(0, heist_create_task(fell_asleep, conn, NULL, &task));
            SEE_IS(0, heist_sleep(0.002)); /* it waits: on one worker for certain */
        } else {
            task = begin_reading(&r, fresh[0]);
        }
        SEE_IS(1, heist_loop_remove_writer(loop, old[0]));
        SEE_IS(1, heist_loop_remove_reader(loop, old[0]));
        SEE_IS(1, write(fresh[1], "x", 1));
        SEE_IS(0, end_of(task));
        if (conn) heist_conn_close(conn);
        else SEE_IS(0, heist_sock_close(fresh[0]));
        close(fresh[1]);
        close(old[1]);
    }
    return 0;
}

static void reader_that_is_removed_late_takes_nobody_along_SOCK_11(void **state) {
    (void)state;
    play(removed_late_scene);
}

/* ---- beside readers and writers ---- */

static void stale_reader_gives_way_to_one_of_the_new_file_SOCK_11(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_real_loop();
    struct mark old = {&record, "old", loop}, new = {&record, "new", loop};
    heist_call_options opts = HEIST_CALL_OPTIONS_INIT;
    opts.arg_free = mark_free;
    int first[2], second[2];
    open_pair(SOCK_STREAM, first);
    open_pair(SOCK_STREAM, second);
    assert_int_equal(heist_loop_add_reader(loop, first[0], mark_and_stop, &old, &opts), 0);
    assert_true(dup2(second[0], first[0]) >= 0); /* an error of the program: it was not removed before */
    assert_int_equal(heist_loop_add_reader(loop, first[0], mark_and_stop, &new, &opts), 0);
    assert_int_equal(write(second[1], "x", 1), 1);
    assert_int_equal(heist_loop_run_forever(loop), 0);
    assert_int_equal(heist_loop_remove_reader(loop, first[0]), 1);
    assert_string_equal(record_text(&record), "free:old new free:new");
    for (int i = 0; i < 2; i++) {
        close(first[i]);
        close(second[i]);
    }
    harness_loop_end(loop);
}

struct watched {
    int fd[2];
    _Atomic(int) calls;
    heist_event *came;
};

static int count_call(void *arg) {
    struct watched *w = arg;
    w->calls++;
    heist_loop *loop;
    if (heist_get_running_loop(&loop) == 0) heist_loop_remove_reader(loop, w->fd[1]);
    heist_event_set(w->came); /* last: then w goes, and the number is another's */
    return 0;
}

static int together_scene(void *arg, void **out) {
    heist_event came = HEIST_EVENT_INIT;
    heist_loop *loop = NULL;
    struct reading r;
    (void)arg, (void)out;
    for (int callback_first = 0; callback_first < 2; callback_first++) {
        struct watched w = {.came = &came};
        heist_task *task = NULL;
        open_pair(SOCK_STREAM, w.fd);
        heist_event_clear(&came);
        SEE_IS(0, heist_get_running_loop(&loop));
        if (callback_first) SEE_IS(0, heist_loop_add_reader(loop, w.fd[1], count_call, &w, NULL));
        task = begin_reading(&r, w.fd[1]);
        if (!callback_first) {
            SEE_IS(0, heist_get_running_loop(&loop));
            SEE_IS(0, heist_loop_add_reader(loop, w.fd[1], count_call, &w, NULL));
        }
        SEE_IS(1, heist_sock_send(w.fd[0], "x", 1, 0, HEIST_FOREVER));
        SEE_IS(0, end_of(task));
        SEE_IS(1, r.n);
        if (!w.calls) SEE_IS(0, heist_sock_sendall(w.fd[0], "y", 1, 0, HEIST_FOREVER, NULL));
        SEE_IS(0, heist_event_wait(&came));
        SEE_IS(1, w.calls);
        SEE_IS(0, heist_sock_close(w.fd[0]));
        SEE_IS(0, heist_sock_close(w.fd[1]));
    }
    return 0;
}

static void reader_callback_and_waiting_task_are_both_told(void **state) {
    (void)state;
    play(together_scene);
}

static int never(void *arg) {
    (void)arg;
    SEE(!"called");
    return 0;
}

static int owned_scene(void *arg, void **out) {
    int fd[2], one;
    char byte;
    heist_addr addr;
    heist_loop *loop = NULL;
    heist_conn *conn = NULL, *second = NULL;
    heist_listener *listener = NULL;
    heist_datagram *endpoint = NULL;
    struct reading r;
    (void)arg, (void)out;
    SEE_IS(0, heist_get_running_loop(&loop));
    SEE_IS(0, heist_addr_parse("127.0.0.1:0", &addr));
    open_pair(SOCK_STREAM, fd);
    SEE_IS(0, heist_conn_open(fd[0], &conn));
    SEE_IS(-EBUSY, heist_loop_add_reader(loop, fd[0], never, NULL, NULL));
    SEE_IS(-EBUSY, heist_loop_add_writer(loop, fd[0], never, NULL, NULL));
    SEE_IS(-EBUSY, heist_sock_recv(fd[0], &byte, 1, 0, HEIST_FOREVER));
    SEE_IS(-EBUSY, heist_sock_sendall(fd[0], "x", 1, 0, HEIST_FOREVER, NULL));
    SEE_IS(-EBUSY, heist_fd_wait(fd[0], HEIST_READABLE, HEIST_FOREVER));
    SEE_IS(-EBUSY, heist_conn_open(fd[0], &second));
    SEE_IS(-EBUSY, heist_sock_close(fd[0]));
    SEE_IS(0, heist_listen(&addr, NULL, &listener));
    heist_task *task = begin_reading(&r, fd[1]);
    SEE_IS(-EBUSY, heist_conn_open(fd[1], &second)); /* a call is in progress */
    SEE_IS(0, heist_conn_write(conn, "x", 1, HEIST_FOREVER, NULL));
    SEE_IS(0, end_of(task));
    SEE_IS(0, heist_datagram_open(&addr, NULL, NULL, &endpoint));
    one = heist_datagram_fd(endpoint);
    SEE_IS(-EBUSY, heist_loop_add_reader(loop, one, never, NULL, NULL));
    SEE_IS(-EBUSY, heist_sock_recv(one, &byte, 1, 0, HEIST_FOREVER));
    heist_datagram_close(endpoint);
    heist_datagram_unref(endpoint);
    heist_listener_close(listener);
    heist_conn_close(conn);
    SEE_IS(0, heist_loop_remove_reader(loop, fd[0]));
    SEE_IS(0, heist_sock_close(fd[1]));
    /* The number is free again, and so is what gets it. */
    open_pair(SOCK_STREAM, fd);
    SEE_IS(0, heist_loop_add_reader(loop, fd[0], never, NULL, NULL));
    SEE_IS(1, heist_loop_remove_reader(loop, fd[0]));
    close_pair(fd);
    return 0;
}

static void descriptors_of_connections_listeners_and_endpoints_are_theirs_SOCK_03(void **state) {
    (void)state;
    play(owned_scene);
}

/* ---- any descriptor ---- */

struct child {
    pid_t pid;
    int tell;
};

static int any_scene(void *arg, void **out) {
    uint64_t count = 1;
    char buf[512];
    int fd[2];
    (void)out;
    int event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    SEE_IS(-ETIMEDOUT, heist_fd_wait(event, HEIST_READABLE, heist_time() + 0.001));
    SEE_IS(HEIST_WRITABLE, heist_fd_wait(event, HEIST_READABLE | HEIST_WRITABLE, HEIST_FOREVER));
    SEE_IS(sizeof count, write(event, &count, sizeof count));
    SEE_IS(HEIST_READABLE, heist_fd_wait(event, HEIST_READABLE, HEIST_FOREVER));
    SEE_IS(HEIST_READABLE | HEIST_WRITABLE, heist_fd_wait(event, HEIST_READABLE | HEIST_WRITABLE, HEIST_FOREVER));
    close(event);

    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    struct itimerspec soon = {.it_value = {0, 2000000}};
    SEE_IS(0, timerfd_settime(timer, 0, &soon, NULL));
    SEE_IS(HEIST_READABLE, heist_fd_wait(timer, HEIST_READABLE, HEIST_FOREVER));
    SEE(read(timer, &count, sizeof count) == sizeof count && count == 1);
    close(timer);

    char folder[] = "/tmp/heist-test-XXXXXX", path[64];
    SEE(mkdtemp(folder) != NULL);
    int notify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    SEE(inotify_add_watch(notify, folder, IN_CREATE) >= 0);
    SEE_IS(-ETIMEDOUT, heist_fd_wait(notify, HEIST_READABLE, heist_time() + 0.001));
    snprintf(path, sizeof path, "%s/new", folder);
    int file = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    SEE_IS(HEIST_READABLE, heist_fd_wait(notify, HEIST_READABLE, HEIST_FOREVER));
    SEE(read(notify, buf, sizeof buf) > 0);
    close(notify);
    SEE_IS(HEIST_READABLE | HEIST_WRITABLE, heist_fd_wait(file, HEIST_READABLE | HEIST_WRITABLE, HEIST_FOREVER));
    close(file);
    unlink(path);
    rmdir(folder);

    struct child *child = arg; /* waits for a byte */
    int process = (int)syscall(SYS_pidfd_open, child->pid, 0);
    if (process >= 0) SEE_IS(-ETIMEDOUT, heist_fd_wait(process, HEIST_READABLE, heist_time() + 0.001));
    SEE_IS(1, write(child->tell, "x", 1));
    if (process >= 0) {
        SEE_IS(HEIST_READABLE, heist_fd_wait(process, HEIST_READABLE, HEIST_FOREVER));
        close(process);
    }
    SEE(waitpid(child->pid, NULL, 0) == child->pid);

    SEE_IS(0, pipe2(fd, O_CLOEXEC)); /* blocking ones may be waited for */
    SEE_IS(HEIST_WRITABLE, heist_fd_wait(fd[1], HEIST_WRITABLE, HEIST_FOREVER));
    SEE_IS(-ETIMEDOUT, heist_fd_wait(fd[0], HEIST_READABLE, heist_time()));
    close(fd[0]);
    SEE_IS(HEIST_WRITABLE, heist_fd_wait(fd[1], HEIST_WRITABLE, HEIST_FOREVER)); /* the next write says -EPIPE */
    close(fd[1]);
    return 0;
}

static void whatever_can_be_polled_can_be_waited_for(void **state) {
    (void)state;
    int told[2];
    char byte;
    assert_int_equal(pipe2(told, O_CLOEXEC), 0);
    struct child child = {fork(), told[1]};
    if (child.pid == 0) _exit(read(told[0], &byte, 1) != 1);
    assert_true(child.pid > 0);
    close(told[0]);
    play_with(any_scene, &child, 0);
    close(told[1]);
}

struct both {
    int fd, code;
};

static int wait_for_both(void *arg, void **out) {
    struct both *b = arg;
    (void)out;
    do b->code = heist_fd_wait(b->fd, HEIST_READABLE | HEIST_WRITABLE, HEIST_FOREVER);
    while (b->code == -EBUSY && heist_yield() == 0);
    return 0;
}

/* Neither readable nor writable; then the one, then the other. */
static int both_scene(void *arg, void **out) {
    static const char data[200000];
    static char sink[200000];
    (void)arg, (void)out;
    for (int which = 0; which < 2; which++) {
        int fd[2];
        open_pair(SOCK_STREAM, fd);
        while (write(fd[0], data, sizeof data) > 0) {
        }
        struct both b = {fd[0], 0};
        heist_task *task = NULL;
        SEE_IS(0, heist_create_task(wait_for_both, &b, NULL, &task));
        SEE_IS(0, until_somebody_waits(fd[0], HEIST_READABLE));
        if (which)
            while (read(fd[1], sink, sizeof sink) > 0) {
            }
        else SEE_IS(1, write(fd[1], "x", 1));
        SEE_IS(0, end_of(task));
        SEE_IS(which ? HEIST_WRITABLE : HEIST_READABLE, b.code);
        SEE_IS(0, interests(fd[0]));
        close_pair(fd);
    }
    return 0;
}

static void waiting_in_both_directions_ends_with_the_one_that_is_ready(void **state) {
    (void)state;
    play(both_scene);
}

/* ---- pipes and terminals as connections ---- */

static int read_end(void *arg, void **out) {
    char buf[8];
    (void)out;
    return (int)heist_conn_read(arg, buf, sizeof buf, HEIST_FOREVER);
}

static int pipe_scene(void *arg, void **out) {
    int fd[2], file;
    char buf[16], path[] = "/tmp/heist-test-XXXXXX";
    heist_conn *reader = NULL, *writer = NULL;
    heist_task *task = NULL;
    (void)arg, (void)out;
    SEE_IS(0, pipe2(fd, O_CLOEXEC));
    SEE_IS(0, heist_conn_open(fd[0], &reader));
    SEE_IS(0, heist_conn_open(fd[1], &writer));
    SEE_IS(0, heist_conn_write(writer, "hello", 5, HEIST_FOREVER, NULL));
    SEE_IS(5, heist_conn_read(reader, buf, sizeof buf, HEIST_FOREVER));
    SEE_IS(0, heist_create_task(read_end, reader, NULL, &task));
    heist_conn_close(writer);
    SEE_IS(0, end_of(task));           /* the end of the stream */
    SEE_IS(-1, fcntl(fd[1], F_GETFD)); /* the descriptor was the connection's */
    heist_conn_close(reader);
    SEE_IS(0, pipe2(fd, O_CLOEXEC));
    SEE_IS(0, heist_conn_open(fd[1], &writer));
    close(fd[0]);
    SEE_IS(-EPIPE, heist_conn_write(writer, "x", 1, HEIST_FOREVER, NULL)); /* and no signal */
    heist_conn_close(writer);
    file = mkstemp(path);
    SEE_IS(-EPERM, heist_conn_open(file, &reader));
    SEE_IS(0, fcntl(file, F_GETFL) & O_NONBLOCK);
    close(file);
    unlink(path);
    file = open("/tmp", O_RDONLY | O_CLOEXEC);
    SEE_IS(-EPERM, heist_conn_open(file, &reader));
    close(file);
    SEE_IS(-EBADF, heist_conn_open(file, &reader));
    return 0;
}

static void pipes_are_streams_with_an_end_and_files_are_refused_SOCK_12(void **state) {
    (void)state;
    play(pipe_scene);
}

static int pty_scene(void *arg, void **out) {
    char buf[32];
    heist_conn *master = NULL, *slave = NULL;
    heist_task *task = NULL;
    size_t got = 0;
    int *skipped = arg;
    (void)out;
    int fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (fd < 0 || grantpt(fd) || unlockpt(fd)) {
        *skipped = 1;
        if (fd >= 0) close(fd);
        return 0;
    }
    int other = open(ptsname(fd), O_RDWR | O_NOCTTY | O_CLOEXEC);
    SEE(other >= 0);
    SEE_IS(0, heist_conn_open(fd, &master));
    SEE_IS(0, heist_conn_open(other, &slave));
    SEE_IS(0, heist_conn_write(master, "line\n", 5, HEIST_FOREVER, NULL));
    SEE_IS(5, heist_conn_read(slave, buf, sizeof buf, HEIST_FOREVER));
    while (got < 6) { /* the terminal's echo, with its line end */
        ptrdiff_t n = heist_conn_read(master, buf, sizeof buf, HEIST_FOREVER);
        SEE(n > 0);
        got += n > 0 ? (size_t)n : 6;
    }
    SEE_IS(0, heist_create_task(read_end, master, NULL, &task));
    heist_conn_close(slave);
    SEE_IS(0, end_of(task)); /* the system says -EIO; it is the end */
    heist_conn_close(master);
    return 0;
}

static void terminal_ends_when_its_other_side_is_closed_SOCK_13(void **state) {
    (void)state;
    int skipped = 0;
    play_with(pty_scene, &skipped, 0);
    if (skipped) skip(); /* no terminals here */
}

/* ---- descriptors over sockets ---- */

static int fds_scene(void *arg, void **out) {
    int fd[2], sent[5], got[8], flags = -1;
    size_t count = 8;
    char buf[16];
    struct reading r;
    (void)arg, (void)out;
    open_pair(SOCK_STREAM, fd);
    for (int i = 0; i < 5; i++) sent[i] = eventfd((unsigned)i + 1, EFD_NONBLOCK);
    SEE_IS(3, heist_sock_send_fds(fd[0], "abc", 3, sent, 5, HEIST_FOREVER));
    SEE_IS(3, heist_sock_recv_fds(fd[1], buf, sizeof buf, HEIST_FOREVER, got, &count, &flags));
    SEE_IS(5, count);
    SEE_IS(0, flags);
    for (int i = 0; i < 5; i++) {
        uint64_t value = 0;
        SEE(fcntl(got[i], F_GETFD) & FD_CLOEXEC);
        SEE(read(got[i], &value, sizeof value) == sizeof value && value == (uint64_t)i + 1);
        close(got[i]);
    }
    /* Less room than came, odd and even: what does not fit is closed and told. */
    int before = harness_descriptors();
    for (size_t room = 0; room < 5; room++) {
        SEE_IS(1, heist_sock_send_fds(fd[0], "x", 1, sent, 5, HEIST_FOREVER));
        count = room;
        SEE_IS(1, heist_sock_recv_fds(fd[1], buf, sizeof buf, HEIST_FOREVER, got, &count, &flags));
        SEE_IS(room, count);
        SEE_IS(MSG_CTRUNC, flags);
        for (size_t i = 0; i < count; i++) close(got[i]);
        SEE_IS(before, harness_descriptors());
    }
    /* None at all; and the end of the stream. */
    count = 8;
    SEE_IS(2, heist_sock_send_fds(fd[0], "no", 2, NULL, 0, HEIST_FOREVER));
    SEE_IS(2, heist_sock_recv_fds(fd[1], buf, sizeof buf, HEIST_FOREVER, got, &count, NULL));
    SEE_IS(0, count);
    count = 8;
    SEE_IS(-ETIMEDOUT, heist_sock_recv_fds(fd[1], buf, sizeof buf, heist_time() + 0.001, got, &count, &flags));
    SEE_IS(8, count);
    heist_task *task = begin_reading(&r, fd[1]); /* one that expects none loses none to the process */
    SEE_IS(1, heist_sock_send_fds(fd[0], "x", 1, sent, 5, HEIST_FOREVER));
    SEE_IS(0, end_of(task));
    SEE_IS(before, harness_descriptors());
    SEE_IS(-EINVAL, heist_sock_send_fds(fd[0], "", 0, sent, 1, HEIST_FOREVER));
    SEE_IS(-EINVAL, heist_sock_send_fds(fd[0], "x", 1, sent, HEIST_SOCK_FDS_MAX + 1, HEIST_FOREVER));
    SEE_IS(-EINVAL, heist_sock_recv_fds(fd[1], buf, 1, HEIST_FOREVER, NULL, &count, NULL));
    for (int i = 0; i < 5; i++) close(sent[i]);
    SEE_IS(-EBADF, heist_sock_send_fds(fd[0], "x", 1, sent, 5, HEIST_FOREVER));
    SEE_IS(0, heist_sock_close(fd[0]));
    SEE_IS(0, heist_sock_recv_fds(fd[1], buf, 1, HEIST_FOREVER, got, &count, NULL));
    SEE_IS(0, count);
    SEE_IS(0, heist_sock_close(fd[1]));
    return 0;
}

static void descriptors_travel_and_none_is_left_when_there_is_no_room(void **state) {
    (void)state;
    play(fds_scene);
}

/* ---- from the wrong place, with bad arguments, out of everything ---- */

static int blocking_scene(void *arg, void **out) {
    int fd[2], refused = *(int *)arg ? -EINVAL : 5;
    char buf[8];
    (void)out;
    open_pair(SOCK_STREAM, fd);
    for (int i = 0; i < 2; i++) SEE_IS(0, fcntl(fd[i], F_SETFL, 0));
    SEE_IS(refused, heist_sock_send(fd[0], "hello", 5, 0, HEIST_FOREVER));
    SEE_IS(refused, heist_sock_recv(fd[1], buf, 8, 0, HEIST_FOREVER));
    /* Without debug mode a blocking socket does not block either. */
    if (refused > 0) SEE_IS(-ETIMEDOUT, heist_sock_recv(fd[1], buf, 8, 0, heist_time() + 0.001));
    SEE_IS(0, fcntl(fd[0], F_SETFL, O_NONBLOCK));
    SEE_IS(5, heist_sock_send(fd[0], "hello", 5, 0, HEIST_FOREVER));
    close_pair(fd);
    return 0;
}

static void blocking_descriptor_is_refused_in_debug_mode_SOCK_10(void **state) {
    (void)state;
    int debug = 0;
    play_with(blocking_scene, &debug, 0);
    debug = 1;
    play_with(blocking_scene, &debug, HEIST_RUNTIME_DEBUG);
}

static int bad_scene(void *arg, void **out) {
    int fd[2], one = -5;
    char byte = 0;
    double nan = strtod("nan", NULL);
    heist_addr addr;
    (void)arg, (void)out;
    open_pair(SOCK_STREAM, fd);
    SEE_IS(0, heist_addr_parse("127.0.0.1:1", &addr));
    SEE_IS(-EINVAL, heist_sock_recv(fd[0], NULL, 1, 0, HEIST_FOREVER));
    SEE_IS(-EINVAL, heist_sock_recv(fd[0], &byte, 1, 0, nan));
    SEE_IS(-EINVAL, heist_sock_recvfrom(fd[0], NULL, 1, 0, HEIST_FOREVER, NULL));
    SEE_IS(-EINVAL, heist_sock_recvmsg(fd[0], NULL, 0, HEIST_FOREVER));
    SEE_IS(-EINVAL, heist_sock_sendmsg(fd[0], NULL, 0, HEIST_FOREVER));
    SEE_IS(-EINVAL, heist_sock_sendall(fd[0], NULL, 1, 0, HEIST_FOREVER, NULL));
    SEE_IS(-EINVAL, heist_sock_accept(fd[0], HEIST_FOREVER, NULL, NULL));
    SEE_IS(-EINVAL, heist_sock_connect(fd[0], NULL, HEIST_FOREVER));
    SEE_IS(-EINVAL, heist_fd_wait(fd[0], 0, HEIST_FOREVER));
    SEE_IS(-EINVAL, heist_fd_wait(fd[0], 4, HEIST_FOREVER));
    SEE_IS(-EINVAL, heist_sock_accept(fd[0], heist_time() + 60, &one, NULL)); /* it does not listen */
    int datagrams = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    SEE_IS(-EOPNOTSUPP, heist_sock_accept(datagrams, heist_time() + 60, &one, NULL)); /* and never could */
    SEE_IS(0, heist_sock_close(datagrams));
    SEE_IS(-5, one);
    SEE_IS(-EBADF, heist_sock_recv(-1, &byte, 1, 0, HEIST_FOREVER));
    SEE_IS(-EBADF, heist_fd_wait(1 << 20, HEIST_READABLE, HEIST_FOREVER));
    SEE_IS(-EBADF, heist_sock_recv(1 << 20, &byte, 1, 0, HEIST_FOREVER));
    SEE_IS(-EBADF, heist_sock_close(-1));
    close_pair(fd);
    SEE_IS(0, pipe2(fd, O_CLOEXEC | O_NONBLOCK));
    SEE_IS(-ENOTSOCK, heist_sock_recv(fd[0], &byte, 1, 0, HEIST_FOREVER));
    SEE_IS(-ENOTSOCK, heist_sock_connect(fd[0], &addr, HEIST_FOREVER));
    close_pair(fd);
    return 0;
}

static void bad_arguments_are_refused(void **state) {
    (void)state;
    play(bad_scene);
}

static int call_from_callback(void *arg) {
    struct reading *r = arg;
    char byte;
    heist_addr addr;
    memset(&addr, 0, sizeof addr);
    r->n = heist_sock_recv(r->fd, &byte, 1, 0, HEIST_FOREVER) == HEIST_ENOTINCORO &&
           heist_sock_sendall(r->fd, "x", 1, 0, HEIST_FOREVER, NULL) == HEIST_ENOTINCORO &&
           heist_fd_wait(r->fd, HEIST_READABLE, HEIST_FOREVER) == HEIST_ENOTINCORO &&
           heist_sock_connect(r->fd, &addr, HEIST_FOREVER) == HEIST_ENOTINCORO;
    return 0;
}

static void callbacks_and_plain_threads_are_refused_at_once(void **state) {
    (void)state;
    int fd[2];
    struct reading r = {0};
    heist_loop *loop = harness_real_loop();
    open_pair(SOCK_STREAM, fd);
    r.fd = fd[0];
    assert_int_equal(write(fd[1], "x", 1), 1); /* though nothing would have to wait */
    assert_int_equal(heist_loop_call_soon(loop, call_from_callback, &r, NULL, NULL), 0);
    harness_one_pass(loop);
    assert_int_equal(r.n, 1);
    r.n = 0;
    call_from_callback(&r);
    assert_int_equal(r.n, 1);
    harness_loop_end(loop);
    assert_int_equal(heist_sock_close(fd[0]), 0); /* any context */
    assert_int_equal(heist_sock_close(fd[1]), 0);
}

static int scarce_scene(void *arg, void **out) {
    heist_addr addr;
    int one = -1;
    struct rlimit limit, none;
    (void)arg, (void)out;
    int listener = listen_on_loopback(&addr), fd = tcp();
    SEE_IS(0, heist_sock_connect(fd, &addr, HEIST_FOREVER));
    SEE_IS(0, getrlimit(RLIMIT_NOFILE, &limit));
    none = limit;
    none.rlim_cur = 0;
    SEE_IS(0, setrlimit(RLIMIT_NOFILE, &none));
    SEE_IS(-EMFILE, heist_sock_accept(listener, heist_time() + 60, &one, NULL));
    SEE_IS(0, setrlimit(RLIMIT_NOFILE, &limit));
    SEE_IS(0, heist_sock_accept(listener, heist_time() + 60, &one, NULL)); /* it was in the backlog */
    SEE_IS(0, heist_sock_close(one));
    SEE_IS(0, heist_sock_close(fd));
    SEE_IS(0, heist_sock_close(listener));
    return 0;
}

static void accept_without_descriptors_is_a_code_and_passes(void **state) {
    (void)state;
    if (harness_valgrind()) skip(); /* it lets the kernel accept, and then closes: nothing stays in the backlog */
    play(scarce_scene);
}

static int short_of_memory(void *arg, void **out) {
    int fd[2], *err = arg;
    char byte;
    (void)out;
    open_pair(SOCK_STREAM, fd);
    *err = (int)heist_sock_recv(fd[1], &byte, 1, 0, heist_time());
    heist_sock_close(fd[0]);
    heist_sock_close(fd[1]);
    return 0;
}

static void each_failing_allocation_is_told_and_leaves_nothing(void **state) {
    (void)state;
    for (long n = 1;; n++) {
        assert_true(n < 1000);
        int err = 1;
        heist_loop *loop = NULL;
        harness_allocations();
        harness_fail_allocation(n, false);
        int made = heist_loop_new(NULL, &loop);
        int ran = made ? made : heist_loop_run_coroutine(loop, short_of_memory, &err, NULL, NULL);
        harness_fail_allocation(0, false);
        long asked = harness_allocations();
        if (loop) harness_loop_end(loop);
        assert_true(ran == 0 || ran == -ENOMEM);
        assert_true(ran || err == -ETIMEDOUT || err == -ENOMEM);
        if (asked < n) break;
    }
}

static void child_of_a_fork_may_not_use_the_parents_loop_SOCK_14(void **state) {
    (void)state;
    int fd[2], ends[2], right = 0;
    struct reading r = {.n = 1};
    heist_task *task = NULL;
    heist_runtime *rt = harness_runtime(0);
    heist_loop *loop = heist_runtime_loop(rt, 0);
    open_pair(SOCK_STREAM, fd);
    assert_int_equal(pipe(ends), 0); /* the answer: an observer such as valgrind may change the exit status */
    r.fd = fd[1];
    assert_int_equal(heist_runtime_run_coroutine(rt, read_one, &r, NULL, &task), 0);
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        char byte;
        right = heist_sock_recv(fd[0], &byte, 1, 0, HEIST_FOREVER) == HEIST_EFORKED &&
                heist_fd_wait(fd[0], HEIST_WRITABLE, HEIST_FOREVER) == HEIST_EFORKED &&
                heist_sock_close(fd[0]) == HEIST_EFORKED &&
                heist_loop_add_reader(loop, fd[0], never, NULL, NULL) == HEIST_EFORKED &&
                heist_loop_remove_reader(loop, fd[0]) == HEIST_EFORKED && fcntl(fd[0], F_GETFD) >= 0;
        _exit(write(ends[1], &right, sizeof right) != sizeof right);
    }
    close(ends[1]);
    assert_int_equal(read(ends[0], &right, sizeof right), sizeof right);
    close(ends[0]);
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_true(right);
    assert_int_equal(write(fd[0], "x", 1), 1); /* the parent's task goes on */
    assert_int_equal(heist_await(task, NULL), 0);
    assert_int_equal(r.n, 1);
    heist_unref(task);
    harness_runtime_end(rt);
    assert_int_equal(heist_sock_close(fd[0]), 0);
    assert_int_equal(heist_sock_close(fd[1]), 0);
}

/* ---- signals ---- */

struct storm {
    pthread_t victim;
    _Atomic(int) over;
};

static void ignore(int number) { (void)number; }

static void *send_signals(void *arg) {
    struct storm *s = arg;
    while (!s->over) pthread_kill(s->victim, SIGUSR2);
    return NULL;
}

static int look_in_a_storm(void *arg, void **out) {
    enum { LOOKS = 20000 };
    int fd[2], wrong = 0;
    struct storm s = {.victim = pthread_self()};
    pthread_t thread;
    (void)arg, (void)out;
    open_pair(SOCK_STREAM, fd);
    SEE_IS(0, pthread_create(&thread, NULL, send_signals, &s));
    for (int i = 0; i < LOOKS; i++) wrong += heist_fd_wait(fd[0], HEIST_READABLE, 0) != -ETIMEDOUT;
    s.over = 1;
    SEE_IS(0, pthread_join(thread, NULL));
    SEE_IS(0, wrong);
    close_pair(fd);
    return 0;
}

static void signal_is_never_the_answer_to_a_look(void **state) {
    (void)state;
    struct sigaction action = {.sa_handler = ignore, .sa_flags = SA_RESTART}, before;
    assert_int_equal(sigaction(SIGUSR2, &action, &before), 0);
    play(look_in_a_storm);
    assert_int_equal(sigaction(SIGUSR2, &before, NULL), 0);
}

static const struct CMUnitTest tests[] = {
    API_TEST(recv_takes_what_is_there_and_nothing_at_the_end_SOCK_06),
    API_TEST(sendall_hands_over_far_more_than_the_buffers_hold_SOCK_07),
    API_TEST(connect_and_accept_give_both_ends_or_the_sockets_error_SOCK_04_SOCK_05),
    API_TEST(name_is_resolved_before_it_is_connected_to_SOCK_04),
    API_TEST(connect_outlasts_a_full_backlog),
    API_TEST(datagrams_come_with_the_senders_address_SOCK_08),
    API_TEST(room_at_a_full_address_is_waited_for),
    API_TEST(cancelled_call_leaves_no_interest_and_a_usable_socket_SOCK_09),
    API_TEST(request_is_delivered_before_anything_is_taken),
    API_TEST(second_waiter_in_a_direction_is_busy),
    API_TEST(reader_and_writer_of_one_descriptor_are_apart_and_close_wakes_both),
    API_TEST(close_wakes_who_waits_and_frees_the_number_behind_him),
    API_TEST(number_that_is_used_again_never_wakes_the_wrong_waiter_SOCK_11),
    API_TEST(connection_that_gets_a_stale_number_is_not_disturbed_SOCK_11),
    API_TEST(reader_that_is_removed_late_takes_nobody_along_SOCK_11),
    API_TEST(stale_reader_gives_way_to_one_of_the_new_file_SOCK_11),
    API_TEST(reader_callback_and_waiting_task_are_both_told),
    API_TEST(descriptors_of_connections_listeners_and_endpoints_are_theirs_SOCK_03),
    API_TEST(whatever_can_be_polled_can_be_waited_for),
    API_TEST(waiting_in_both_directions_ends_with_the_one_that_is_ready),
    API_TEST(pipes_are_streams_with_an_end_and_files_are_refused_SOCK_12),
    API_TEST(terminal_ends_when_its_other_side_is_closed_SOCK_13),
    API_TEST(descriptors_travel_and_none_is_left_when_there_is_no_room),
    API_TEST(blocking_descriptor_is_refused_in_debug_mode_SOCK_10),
    API_TEST(signal_is_never_the_answer_to_a_look),
    API_TEST(bad_arguments_are_refused),
    API_TEST(callbacks_and_plain_threads_are_refused_at_once),
    API_TEST(accept_without_descriptors_is_a_code_and_passes),
    API_TEST(each_failing_allocation_is_told_and_leaves_nothing),
    API_TEST(child_of_a_fork_may_not_use_the_parents_loop_SOCK_14),
};

int main(void) { return HARNESS_MAIN("socket", tests); }
