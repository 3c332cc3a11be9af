/* A connection to a port of this machine on which nobody listened succeeded, with itself at the other end.
 *
 * The system chooses the port of our end from a range; when it hits the port that is called, TCP takes the two halves of
 * one socket for two ends that call each other.  Whoever probes a server that is down gets, once in 28,000 times, a
 * connection that gives back what he sends.  Now such a connection is closed and tried again, a few times.
 *
 * Here the choice is helped: this program's `connect` stands before the C library's, and binds to the port first. */
#include "regress/workers.h"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static _Atomic(int) help; /* so many times */
static _Atomic(int) helped;

int connect(int fd, __CONST_SOCKADDR_ARG to, socklen_t length) { /* the type that the C library gives it */
    const struct sockaddr *addr = to.__sockaddr__;
    static int (*real)(int, const struct sockaddr *, socklen_t);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "connect");
    if (help > 0 && addr->sa_family != AF_UNIX) {
        int on = 1;
        help--;
        if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) || bind(fd, addr, length)) return -1;
        helped++;
    }
    return real(fd, addr, length);
}

struct probe {
    heist_addr addr;
    int err;
};

static int call_it(void *arg, void **out) {
    struct probe *p = arg;
    heist_conn *c;
    (void)out;
    p->err = heist_connect(&p->addr, HEIST_FOREVER, &c);
    if (!p->err) heist_conn_close(c);
    return 0;
}

static int open_it(void *arg, void **out) {
    struct probe *p = arg;
    heist_stream *s;
    char text[64], *port, *host = text;
    (void)out;
    if (heist_addr_format(&p->addr, text, sizeof(text)) < 0 || !(port = strrchr(text, ':'))) return -EPROTO;
    *port = 0;
    if (*host == '[') *strchr(++host, ']') = 0;
    p->err = heist_open_connection(host, port + 1, NULL, &s);
    if (!p->err) {
        heist_stream_close(s);
        heist_stream_unref(s);
    }
    return 0;
}

/* A port that is free, of the machine's own addresses; of version 4, where there are enough, of one that no other
 * process uses. */
static bool find_port(int family, heist_addr *out) {
    uint32_t own = 0x7f060000u | ((uint32_t)getpid() & 0xffff);
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(own)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return false;
    int err = family == AF_INET ? bind(fd, (struct sockaddr *)&v4, sizeof(v4)) : bind(fd, (struct sockaddr *)&v6, sizeof(v6));
    out->length = sizeof(out->storage);
    if (!err) err = getsockname(fd, (struct sockaddr *)&out->storage, &out->length);
    close(fd);
    return !err;
}

static int outcome(heist_coro_fn fn, int family, int times) {
    struct probe p = {.err = 1};
    if (!find_port(family, &p.addr)) return -ECONNREFUSED; /* no such addresses here */
    help = times;
    helped = 0;
    assert_int_equal(heist_run(fn, &p, NULL, NULL), 0);
    help = 0;
    assert_true(helped > 0);
    return p.err;
}

static void nobody_is_reached_where_nobody_listens(void **state) {
    static const int families[] = {AF_INET, AF_INET6};
    (void)state;
    for (int i = 0; i < 2; i++)
        for (int times = 1; times <= 5; times += 4) { /* the next try is refused; each one goes wrong */
            assert_int_equal(outcome(call_it, families[i], times), -ECONNREFUSED);
            assert_int_equal(outcome(open_it, families[i], times), -ECONNREFUSED);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(nobody_is_reached_where_nobody_listens)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
