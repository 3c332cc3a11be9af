/* A call on a socket whose error queue nobody read went round at full speed.
 *
 * With IP_RECVERR (or time stamps, or MSG_ZEROCOPY) the system keeps reports in a queue beside the data, and calls the
 * socket's state an error until they are read with MSG_ERRQUEUE.  A call that found nothing to receive asked the poller
 * anew, was told at once of that state, tried, and so on.  The other way round it was the same: who waits for a report,
 * with MSG_ERRQUEUE, beside data that nobody reads.  Now a call asks once, and then waits for what is new. */
#include "regress/workers.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int udp_at(uint32_t host, heist_addr *addr) {
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(host)};
    if (fd < 0 || bind(fd, (struct sockaddr *)&in, sizeof(in))) abort();
    addr->length = sizeof(addr->storage);
    if (getsockname(fd, (struct sockaddr *)&addr->storage, &addr->length)) abort();
    return fd;
}
static int udp(heist_addr *addr) { return udp_at(INADDR_LOOPBACK, addr); }

static uint64_t events_of(heist_runtime *rt) {
    uint64_t sum = 0;
    for (int i = 0; i < heist_runtime_workers(rt); i++) {
        heist_worker_stats stats = {.size = sizeof(stats)};
        if (heist_runtime_stats(rt, i, &stats)) abort();
        sum += stats.io_events;
    }
    return sum;
}

struct scene {
    int fd, backend;
    heist_addr addr, dead;
    heist_runtime *rt;
    const char *wrong;
};

#define EXPECT(x)                                                                                                      \
    do {                                                                                                               \
        if (!(x)) return s->wrong = #x, -EPROTO;                                                                       \
    } while (0)
#define EVENTS_MOST 50

static ptrdiff_t report_of(struct scene *s, double deadline) {
    char data[64], control[512];
    struct iovec iov = {data, sizeof(data)};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
    return heist_sock_recvmsg(s->fd, &msg, MSG_ERRQUEUE, deadline);
}

static int send_late(void *arg, void **out) {
    struct scene *s = arg;
    heist_addr mine;
    (void)out;
    int err = heist_sleep(0.05), other = udp(&mine);
    ptrdiff_t n = heist_sock_sendto(other, "news", 4, 0, &s->addr, HEIST_FOREVER);
    heist_sock_close(other);
    return err ? err : n == 4 ? 0 : -EIO;
}

static int look(void *arg, void **out) {
    struct scene *s = arg;
    char buf[64];
    heist_task *t;
    (void)out;
    EXPECT(heist_sock_sendto(s->fd, "lost", 4, 0, &s->dead, HEIST_FOREVER) == 4);
    EXPECT(heist_sock_recv(s->fd, buf, sizeof(buf), 0, HEIST_FOREVER) == -ECONNREFUSED);
    /* The report stands in the queue, and nothing else is there. */
    uint64_t before = events_of(s->rt);
    EXPECT(heist_sock_recv(s->fd, buf, sizeof(buf), 0, heist_time() + 0.1) == -ETIMEDOUT);
    EXPECT(heist_create_task(send_late, s, NULL, &t) == 0);
    EXPECT(heist_sock_recv(s->fd, buf, sizeof(buf), 0, HEIST_FOREVER) == 4);
    EXPECT(heist_await(t, NULL) == 0);
    heist_unref(t);
    EXPECT(events_of(s->rt) - before < EVENTS_MOST);
    EXPECT(report_of(s, HEIST_FOREVER) == 4);
    /* No report, but data. */
    EXPECT(heist_sock_sendto(s->fd, "self", 4, 0, &s->addr, HEIST_FOREVER) == 4);
    before = events_of(s->rt);
    EXPECT(report_of(s, heist_time() + 0.1) == -ETIMEDOUT);
    EXPECT(events_of(s->rt) - before < EVENTS_MOST);
    EXPECT(heist_sock_recv(s->fd, buf, sizeof(buf), 0, HEIST_FOREVER) == 4);
    return 0;
}

static void play(int workers, int backend) {
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    struct scene s = {.backend = backend};
    int on = 1;
    opts.workers = workers;
    opts.backend = backend;
    assert_int_equal(heist_runtime_new(&opts, &s.rt), 0);
    close(udp_at(0x7f050000u | ((uint32_t)getpid() & 0xffff), &s.dead)); /* where no other process comes up */
    s.fd = udp(&s.addr);
    assert_int_equal(setsockopt(s.fd, IPPROTO_IP, IP_RECVERR, &on, sizeof(on)), 0);
    heist_task *t;
    assert_int_equal(heist_runtime_run_coroutine(s.rt, look, &s, NULL, &t), 0);
    int err = heist_await(t, NULL);
    heist_unref(t);
    if (s.wrong) print_message("%d workers: not so: %s\n", workers, s.wrong);
    assert_int_equal(err, 0);
    close(s.fd);
    assert_int_equal(heist_runtime_close(s.rt, HEIST_FOREVER), 0);
    heist_runtime_unref(s.rt);
}

static void calls_beside_an_unread_error_queue_wait_by_epoll(void **state) {
    (void)state;
    for (EACH_WORKER_COUNT(workers)) play(workers, HEIST_BACKEND_EPOLL);
}

static void calls_beside_an_unread_error_queue_wait_in_a_ring(void **state) {
    (void)state;
    for (EACH_WORKER_COUNT(workers)) play(workers, HEIST_BACKEND_IO_URING);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_beside_an_unread_error_queue_wait_by_epoll),
        cmocka_unit_test(calls_beside_an_unread_error_queue_wait_in_a_ring),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
