/* Sockets: addresses, listen, accept, connect, read and write over TCP v4, v6 and Unix
 * sockets, with deadlines, cancellation and running out of descriptors.  Loopback
 * only. */
#include "support/harness.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* In machine time: sockets are the kernel's. */
static int run_real(heist_coro_fn fn, void *arg) {
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    opts.workers = harness_workers();
    return heist_run(fn, arg, &opts, NULL);
}

/* ---- addresses ---- */

static void addresses_are_read_and_written_in_one_form(void **state) {
    (void)state;
    static const char *const same[] = {"127.0.0.1:80", "0.0.0.0:0", "[::1]:8080", "unix:/var/run/some.socket",
                                       "unix:@hidden name"};
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++) {
        heist_addr addr;
        char text[160];
        assert_int_equal(heist_addr_parse(same[i], &addr), 0);
        assert_int_equal(heist_addr_format(&addr, text, sizeof text), (int)strlen(same[i]));
        assert_string_equal(text, same[i]);
    }
    heist_addr addr;
    char tiny[5];
    assert_int_equal(heist_addr_parse("*:80", &addr), 0);
    assert_int_equal(heist_addr_parse("127.0.0.1:80", &addr), 0);
    assert_int_equal(addr.storage.ss_family, AF_INET);
    assert_int_equal(heist_addr_format(&addr, tiny, sizeof tiny), 12);
    assert_string_equal(tiny, "127.");
    assert_int_equal(heist_addr_parse("[::1]:1", &addr), 0);
    assert_int_equal(addr.storage.ss_family, AF_INET6);
}

static void bad_addresses_are_refused(void **state) {
    (void)state;
    static const char *const bad[] = {"",          ":",           "127.0.0.1",    "127.0.0.1:",  "127.0.0.1:x",
                                      "1.2.3:80",  "1.2.3.4:65536", "1.2.3.4:-1", "[::1",        "[::1]",
                                      "[::1]:",    "[zz]:80",     "::1:80",       "unix:",       "localhost:80",
                                      "1.2.3.4:80 ", " 1.2.3.4:80", "1.2.3.4:80:81", "1.2.3.4:99999999999"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        heist_addr addr;
        memset(&addr, 0x5a, sizeof addr);
        heist_addr before = addr;
        if (heist_addr_parse(bad[i], &addr) != -EINVAL) fail_msg("accepted: '%s'", bad[i]);
        assert_memory_equal(&addr, &before, sizeof addr); /* untouched on failure */
    }
    char path[300] = "unix:/";
    memset(path + 6, 'a', sizeof path - 7);
    path[sizeof path - 1] = 0;
    heist_addr addr;
    assert_int_equal(heist_addr_parse(path, &addr), -EINVAL); /* longer than the kernel takes */
}

/* ---- echo ---- */

struct echo {
    const char *listen_on;
    int bytes;
    heist_listener *listener;
    _Atomic(int) wrong, served;
    int err;
};

struct echo_conn {
    struct echo *echo;
    heist_conn *conn;
};

static int echo_one(void *arg, void **out) {
    struct echo_conn *one = arg;
    char buf[4096];
    (void)out;
    for (;;) {
        ptrdiff_t n = heist_conn_read(one->conn, buf, sizeof buf, HEIST_FOREVER);
        if (n == 0) break;
        if (n < 0 || heist_conn_write(one->conn, buf, (size_t)n, HEIST_FOREVER, NULL) < 0) {
            one->echo->wrong++;
            break;
        }
    }
    one->echo->served++;
    heist_conn_close(one->conn);
    free(one);
    return 0;
}

static int accept_all(void *arg, void **out) {
    struct echo *echo = arg;
    (void)out;
    for (;;) {
        heist_conn *conn = NULL;
        int err = heist_accept(echo->listener, HEIST_FOREVER, &conn);
        if (err == HEIST_ECLOSED) return 0;
        if (err < 0) return err;
        struct echo_conn *one = malloc(sizeof *one);
        if (!one) abort();
        *one = (struct echo_conn){echo, conn};
        err = heist_create_task(echo_one, one, NULL, NULL);
        if (err < 0) return err;
    }
}

static unsigned char pattern(int client, int i) {
    return (unsigned char)(client * 31 + i * 7 + i / 251);
}

struct client {
    struct echo *echo;
    heist_addr addr;
    int number;
};

static int send_checked(void *arg, void **out) {
    struct client *client = arg;
    heist_conn *conn = NULL;
    int total = client->echo->bytes, got = 0;
    (void)out;
    int err = heist_connect(&client->addr, HEIST_FOREVER, &conn);
    if (err < 0) return err;
    for (int sent = 0; sent < total && err == 0;) {
        unsigned char block[1500], back[1500];
        int n = total - sent < (int)sizeof block ? total - sent : (int)sizeof block;
        for (int i = 0; i < n; i++) block[i] = pattern(client->number, sent + i);
        size_t written = 0;
        err = heist_conn_write(conn, block, (size_t)n, HEIST_FOREVER, &written);
        if (err == 0 && written != (size_t)n) client->echo->wrong++;
        for (int left = n; err == 0 && left > 0;) {
            ptrdiff_t r = heist_conn_read(conn, back, (size_t)left, HEIST_FOREVER);
            if (r <= 0) {
                err = r < 0 ? (int)r : -ECONNRESET;
                break;
            }
            for (int i = 0; i < r; i++)
                if (back[i] != pattern(client->number, got + i)) client->echo->wrong++;
            got += (int)r;
            left -= (int)r;
        }
        sent += n;
    }
    char last;
    if (err == 0) err = heist_conn_shutdown(conn);
    if (err == 0 && heist_conn_read(conn, &last, 1, HEIST_FOREVER) != 0) client->echo->wrong++;
    heist_conn_close(conn);
    return err;
}

static int echo_main(void *arg, void **out) {
    struct echo *echo = arg;
    enum { CLIENTS = 24 };
    struct client clients[CLIENTS];
    heist_task *tasks[CLIENTS], *acceptor = NULL;
    heist_addr addr;
    (void)out;
    int err = heist_addr_parse(echo->listen_on, &addr);
    if (err == 0) err = heist_listen(&addr, NULL, &echo->listener);
    if (err < 0) return err;
    err = heist_listener_addr(echo->listener, &addr);
    if (err == 0) err = heist_create_task(accept_all, echo, NULL, &acceptor);
    if (err < 0) return err;
    for (int i = 0; i < CLIENTS; i++) {
        clients[i] = (struct client){echo, addr, i};
        err = heist_create_task(send_checked, &clients[i], NULL, &tasks[i]);
        if (err < 0) return err;
    }
    echo->err = heist_gather(tasks, CLIENTS, NULL, 0);
    heist_listener_close(echo->listener);
    err = heist_await(acceptor, NULL);
    for (int i = 0; i < CLIENTS; i++) heist_unref(tasks[i]);
    heist_unref(acceptor);
    while (echo->served < CLIENTS && err == 0) err = heist_sleep(0.001); /* the servers see the ends */
    return err;
}

static void run_echo(const char *listen_on, int bytes) {
    struct echo echo = {.listen_on = listen_on, .bytes = bytes, .err = 1};
    assert_int_equal(run_real(echo_main, &echo), 0);
    assert_int_equal(echo.err, 0);
    assert_int_equal(echo.wrong, 0);
    assert_int_equal(echo.served, 24);
}

static void bytes_come_back_over_tcp_v4(void **state) {
    (void)state;
    run_echo("127.0.0.1:0", 20000);
}

static void bytes_come_back_over_tcp_v6(void **state) {
    (void)state;
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    struct sockaddr_in6 loopback = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int bound = fd < 0 ? -1 : bind(fd, (struct sockaddr *)&loopback, sizeof loopback);
    if (fd >= 0) close(fd);
    if (bound < 0) skip(); /* a machine without IPv6 */
    run_echo("[::1]:0", 20000);
}

static void bytes_come_back_over_unix_sockets(void **state) {
    (void)state;
    char path[64], folder[] = "/tmp/heist-test-XXXXXX";
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "unix:%s/s", folder);
    run_echo(path, 20000);
    unlink(path + 5);
    assert_int_equal(rmdir(folder), 0);
    snprintf(path, sizeof path, "unix:@heist-test-%d", (int)getpid());
    run_echo(path, 20000);
}

/* ---- bigger than any buffer ---- */

struct bulk {
    heist_conn *left, *right;
    size_t bytes, received;
    int wrong, write_err;
    size_t written;
};

static int write_bulk(void *arg, void **out) {
    struct bulk *bulk = arg;
    (void)out;
    unsigned char *data = malloc(bulk->bytes);
    if (!data) return -ENOMEM;
    for (size_t i = 0; i < bulk->bytes; i++) data[i] = pattern(3, (int)i);
    bulk->write_err = heist_conn_write(bulk->left, data, bulk->bytes, HEIST_FOREVER, &bulk->written);
    free(data);
    return heist_conn_shutdown(bulk->left);
}

static int read_bulk(void *arg, void **out) {
    struct bulk *bulk = arg;
    unsigned char buf[8192];
    (void)out;
    for (;;) {
        ptrdiff_t n = heist_conn_read(bulk->right, buf, sizeof buf, HEIST_FOREVER);
        if (n <= 0) return (int)n;
        for (ptrdiff_t i = 0; i < n; i++) bulk->wrong += buf[i] != pattern(3, (int)(bulk->received + (size_t)i));
        bulk->received += (size_t)n;
    }
}

static int open_pair(heist_conn **left, heist_conn **right) {
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) < 0) return -errno;
    int err = heist_conn_open(fds[0], left);
    if (err < 0) {
        close(fds[0]);
        close(fds[1]);
        return err;
    }
    err = heist_conn_open(fds[1], right);
    if (err < 0) {
        heist_conn_close(*left);
        close(fds[1]);
    }
    return err;
}

static int bulk_main(void *arg, void **out) {
    struct bulk *bulk = arg;
    heist_task *tasks[2];
    (void)out;
    int err = open_pair(&bulk->left, &bulk->right);
    if (err < 0) return err;
    err = heist_create_task(write_bulk, bulk, NULL, &tasks[0]);
    if (err < 0) return err;
    err = heist_create_task(read_bulk, bulk, NULL, &tasks[1]);
    if (err < 0) return err;
    err = heist_gather(tasks, 2, NULL, 0);
    heist_unref(tasks[0]);
    heist_unref(tasks[1]);
    heist_conn_close(bulk->left);
    heist_conn_close(bulk->right);
    return err;
}

static void write_sends_all_of_it_even_beyond_the_kernels_buffers(void **state) {
    (void)state;
    struct bulk bulk = {.bytes = 3 * 1024 * 1024, .write_err = 1};
    assert_int_equal(run_real(bulk_main, &bulk), 0);
    assert_int_equal(bulk.write_err, 0);
    assert_int_equal(bulk.written, bulk.bytes);
    assert_int_equal(bulk.received, bulk.bytes);
    assert_int_equal(bulk.wrong, 0);
}

/* ---- deadlines, cancellation, closing ---- */

struct ends {
    heist_conn *left, *right;
    heist_listener *listener;
    struct record *record;
    int read, write, busy, accept, after;
    size_t written;
};

static int read_for_ever(void *arg, void **out) {
    struct ends *ends = arg;
    char buf[16];
    (void)out;
    do ends->read = (int)heist_conn_read(ends->right, buf, sizeof buf, HEIST_FOREVER);
    while (ends->read == -EBUSY && heist_yield() == 0); /* it met a probe */
    return ends->read < 0 ? ends->read : 0;
}

/* Returns 0 when another task waits to read, or to accept: then a second one is -EBUSY.  A probe that comes
 * first gives up at once; the other, should it meet one, tries again. */
static int until_somebody_reads(heist_conn *conn) {
    for (;;) {
        char byte;
        ptrdiff_t n = heist_conn_read(conn, &byte, 1, heist_time());
        if (n == -EBUSY) return 0;
        if (n != -ETIMEDOUT) return n < 0 ? (int)n : -EPROTO;
        int err = heist_yield();
        if (err < 0) return err;
    }
}

static int until_somebody_accepts(heist_listener *listener) {
    for (;;) {
        heist_conn *conn = NULL;
        int err = heist_accept(listener, heist_time(), &conn);
        if (err == -EBUSY) return 0;
        if (err != -ETIMEDOUT) return err < 0 ? err : -EPROTO;
        err = heist_yield();
        if (err < 0) return err;
    }
}

/* More than the buffers of any machine's kernel hold. */
#define BEYOND_BUFFERS ((size_t)64 << 20)

static int deadline_main(void *arg, void **out) {
    struct ends *ends = arg;
    char buf[16];
    (void)out;
    int err = open_pair(&ends->left, &ends->right);
    if (err < 0) return err;
    double deadline = heist_time() + 0.01;
    ends->read = (int)heist_conn_read(ends->right, buf, sizeof buf, deadline);
    if (heist_time() < deadline) ends->read = -1;
    /* Nobody reads: the buffers fill, and what went until the deadline is told. */
    size_t big = BEYOND_BUFFERS;
    char *data = calloc(1, big);
    if (!data) return -ENOMEM;
    ends->write = heist_conn_write(ends->left, data, big, heist_time() + 0.01, &ends->written);
    free(data);
    ends->after = (int)heist_conn_read(ends->right, buf, sizeof buf, heist_time() + 60);
    heist_conn_close(ends->left);
    heist_conn_close(ends->right);
    return 0;
}

static void deadlines_end_reading_and_writing(void **state) {
    (void)state;
    struct ends ends = {.read = 1, .write = 1};
    assert_int_equal(run_real(deadline_main, &ends), 0);
    assert_int_equal(ends.read, -ETIMEDOUT);
    assert_int_equal(ends.write, -ETIMEDOUT);
    assert_true(ends.written > 0 && ends.written < BEYOND_BUFFERS);
    assert_int_equal(ends.after, 16); /* the connection goes on */
}

static int cancel_read_main(void *arg, void **out) {
    struct ends *ends = arg;
    heist_task *reader = NULL;
    char buf[16] = "";
    (void)out;
    int err = open_pair(&ends->left, &ends->right);
    if (err < 0) return err;
    err = heist_create_task(read_for_ever, ends, NULL, &reader);
    if (err == 0) err = until_somebody_reads(ends->right);
    if (err < 0) return err;
    heist_cancel(reader);
    err = heist_await_until(reader, HEIST_FOREVER, NULL);
    heist_unref(reader);
    if (err != -ECANCELED) return -EPROTO;
    /* The cancelled read took nothing, and the connection serves the next one. */
    err = heist_conn_write(ends->left, "hello", 5, HEIST_FOREVER, NULL);
    if (err < 0) return err;
    ends->after = (int)heist_conn_read(ends->right, buf, sizeof buf, HEIST_FOREVER);
    if (memcmp(buf, "hello", 5) != 0) ends->after = -1;
    heist_conn_close(ends->left);
    heist_conn_close(ends->right);
    return 0;
}

static void cancelled_read_took_nothing(void **state) {
    (void)state;
    struct ends ends = {.read = 1};
    assert_int_equal(run_real(cancel_read_main, &ends), 0);
    assert_int_equal(ends.read, -ECANCELED);
    assert_int_equal(ends.after, 5);
}

static int busy_main(void *arg, void **out) {
    struct ends *ends = arg;
    heist_task *reader = NULL;
    char buf[16];
    (void)out;
    int err = open_pair(&ends->left, &ends->right);
    if (err < 0) return err;
    err = heist_create_task(read_for_ever, ends, NULL, &reader);
    if (err == 0) err = until_somebody_reads(ends->right);
    if (err < 0) return err;
    ends->busy = (int)heist_conn_read(ends->right, buf, sizeof buf, heist_time() + 60);
    ends->write = heist_conn_write(ends->right, "x", 1, HEIST_FOREVER, NULL); /* the other direction is free */
    heist_conn_close(ends->right); /* a task waits on it: it gets HEIST_ECLOSED */
    err = heist_await(reader, NULL);
    heist_unref(reader);
    heist_conn_close(ends->left);
    return err == HEIST_ECLOSED ? 0 : -EPROTO;
}

static void second_reader_is_busy_and_close_wakes_the_first(void **state) {
    (void)state;
    struct ends ends = {.busy = 1, .write = 1};
    assert_int_equal(run_real(busy_main, &ends), 0);
    assert_int_equal(ends.busy, -EBUSY);
    assert_int_equal(ends.write, 0);
    assert_int_equal(ends.read, HEIST_ECLOSED);
}

static int accept_one(void *arg, void **out) {
    struct ends *ends = arg;
    heist_conn *conn = NULL;
    (void)out;
    do ends->accept = heist_accept(ends->listener, HEIST_FOREVER, &conn);
    while (ends->accept == -EBUSY && heist_yield() == 0); /* it met a probe */
    if (ends->accept == 0) heist_conn_close(conn);
    return 0;
}

static int accept_main(void *arg, void **out) {
    struct ends *ends = arg;
    heist_task *task = NULL;
    heist_conn *conn = NULL;
    heist_addr addr, in_use;
    (void)out;
    int err = heist_addr_parse("127.0.0.1:0", &addr);
    if (err == 0) err = heist_listen(&addr, NULL, &ends->listener);
    if (err == 0) err = heist_listener_addr(ends->listener, &in_use);
    if (err < 0) return err;
    heist_listener *second = NULL;
    ends->busy = heist_listen(&in_use, NULL, &second); /* -EADDRINUSE */
    ends->read = heist_accept(ends->listener, heist_time() + 0.005, &conn); /* -ETIMEDOUT */
    err = heist_create_task(accept_one, ends, NULL, &task);
    if (err == 0) err = until_somebody_accepts(ends->listener);
    if (err < 0) return err;
    heist_listener_close(ends->listener);
    err = heist_await(task, NULL);
    heist_unref(task);
    ends->after = heist_connect(&in_use, heist_time() + 60, &conn); /* nobody listens any more, at once */
    return err;
}

static void accept_ends_by_deadline_and_by_close_and_connect_is_refused(void **state) {
    (void)state;
    struct ends ends = {.accept = 1};
    assert_int_equal(run_real(accept_main, &ends), 0);
    assert_int_equal(ends.busy, -EADDRINUSE);
    assert_int_equal(ends.read, -ETIMEDOUT);
    assert_int_equal(ends.accept, HEIST_ECLOSED);
    assert_int_equal(ends.after, -ECONNREFUSED);
}

static int reset_main(void *arg, void **out) {
    struct ends *ends = arg;
    char byte = 'x';
    (void)out;
    int err = open_pair(&ends->left, &ends->right);
    if (err < 0) return err;
    heist_conn_close(ends->right);
    for (int i = 0; i < 3 && ends->write == 0; i++)
        ends->write = heist_conn_write(ends->left, &byte, 1, HEIST_FOREVER, NULL);
    ends->read = (int)heist_conn_read(ends->left, &byte, 1, HEIST_FOREVER);
    heist_conn_close(ends->left);
    return 0;
}

static void writing_to_a_gone_peer_is_an_error_and_no_signal(void **state) {
    (void)state;
    struct sigaction before, after;
    struct ends ends = {.read = 1};
    sigaction(SIGPIPE, NULL, &before);
    assert_int_equal(run_real(reset_main, &ends), 0); /* and the process is still here */
    sigaction(SIGPIPE, NULL, &after);
    assert_true(before.sa_handler == after.sa_handler); /* nor was the disposition touched */
    assert_true(ends.write == -EPIPE || ends.write == -ECONNRESET);
    assert_true(ends.read == 0 || ends.read == -ECONNRESET);
}

/* ---- properties of a connection ---- */

struct meeting {
    heist_listener *listener;
    heist_conn *accepted;
    int err;
};

static int accept_meeting(void *arg, void **out) {
    struct meeting *meeting = arg;
    (void)out;
    meeting->err = heist_accept(meeting->listener, heist_time() + 60, &meeting->accepted);
    return meeting->err;
}

static int names_main(void *arg, void **out) {
    int *good = arg;
    struct meeting meeting = {NULL, NULL, 1};
    heist_addr addr, peer, own, theirs;
    heist_conn *conn = NULL;
    heist_task *task = NULL;
    char a[64], b[64];
    (void)out;
    int err = heist_addr_parse("127.0.0.1:0", &addr);
    if (err == 0) err = heist_listen(&addr, NULL, &meeting.listener);
    if (err == 0) err = heist_listener_addr(meeting.listener, &addr);
    if (err == 0) err = heist_create_task(accept_meeting, &meeting, NULL, &task);
    if (err == 0) err = heist_connect(&addr, heist_time() + 60, &conn);
    if (err == 0) err = heist_await(task, NULL);
    if (err < 0) return err;
    heist_unref(task);
    if (heist_conn_peer(conn, &peer) == 0 && heist_conn_addr(conn, &own) == 0 &&
        heist_conn_peer(meeting.accepted, &theirs) == 0) {
        heist_addr_format(&peer, a, sizeof a);
        heist_addr_format(&addr, b, sizeof b);
        *good += strcmp(a, b) == 0;
        heist_addr_format(&own, a, sizeof a);
        heist_addr_format(&theirs, b, sizeof b);
        *good += strcmp(a, b) == 0;
    }
    *good += heist_conn_fd(conn) >= 0 && heist_conn_fd(conn) != heist_conn_fd(meeting.accepted);
    *good += heist_conn_set_nodelay(conn, 0) == 0 && heist_conn_set_nodelay(conn, 1) == 0;
    heist_conn_close(conn);
    heist_conn_close(meeting.accepted);
    heist_listener_close(meeting.listener);
    heist_conn_close(NULL);
    return 0;
}

static void connection_knows_both_ends(void **state) {
    (void)state;
    int good = 0;
    assert_int_equal(run_real(names_main, &good), 0);
    assert_int_equal(good, 4);
}

/* Several listeners of one address, as one per worker has them. */
static int reuseport_main(void *arg, void **out) {
    heist_listen_options opts = HEIST_LISTEN_OPTIONS_INIT;
    heist_listener *one = NULL, *two = NULL;
    heist_addr addr;
    (void)arg;
    (void)out;
    opts.flags = HEIST_LISTEN_REUSEPORT;
    int err = heist_addr_parse("127.0.0.1:0", &addr);
    if (err == 0) err = heist_listen(&addr, &opts, &one);
    if (err == 0) err = heist_listener_addr(one, &addr);
    if (err == 0) err = heist_listen(&addr, &opts, &two);
    if (two) heist_listener_close(two);
    if (one) heist_listener_close(one);
    return err;
}

static void listeners_may_share_an_address_when_asked(void **state) {
    (void)state;
    assert_int_equal(run_real(reuseport_main, NULL), 0);
}

/* ---- from the wrong place ---- */

static void listening_needs_a_loop(void **state) {
    (void)state;
    heist_addr addr;
    heist_listener *listener = NULL;
    heist_conn *conn = NULL;
    assert_int_equal(heist_addr_parse("127.0.0.1:0", &addr), 0);
    assert_int_equal(heist_listen(&addr, NULL, &listener), HEIST_ENOLOOP);
    assert_null(listener);
    int err = heist_connect(&addr, HEIST_FOREVER, &conn);
    assert_true(err == HEIST_ENOLOOP || err == HEIST_ENOTINCORO);
    assert_null(conn);
}

/* ---- out of descriptors ---- */

struct scarce {
    heist_listener *listener;
    int accept_err, connect_err, listen_err, accepted_later;
};

static int scarce_main(void *arg, void **out) {
    struct scarce *scarce = arg;
    heist_conn *conn = NULL, *other = NULL;
    heist_listener *listener = NULL;
    heist_addr addr;
    struct rlimit limit, none;
    (void)out;
    int err = heist_addr_parse("127.0.0.1:0", &addr);
    if (err == 0) err = heist_listen(&addr, NULL, &scarce->listener);
    if (err == 0) err = heist_listener_addr(scarce->listener, &addr);
    if (err == 0) err = heist_connect(&addr, heist_time() + 60, &conn);
    if (err < 0) return err;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0) return -errno;
    none = limit;
    none.rlim_cur = 0; /* no new descriptor in the whole process */
    if (setrlimit(RLIMIT_NOFILE, &none) < 0) return -errno;
    scarce->accept_err = heist_accept(scarce->listener, heist_time() + 60, &other);
    scarce->connect_err = heist_connect(&addr, heist_time() + 60, &other);
    scarce->listen_err = heist_listen(&addr, NULL, &listener);
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0) return -errno;
    scarce->accepted_later = heist_accept(scarce->listener, heist_time() + 60, &other); /* it was in the backlog */
    heist_conn_close(conn);
    if (other) heist_conn_close(other);
    heist_listener_close(scarce->listener);
    return 0;
}

static void running_out_of_descriptors_is_a_code_and_passes(void **state) {
    (void)state;
    struct scarce scarce = {NULL, 1, 1, 1, 1};
    if (harness_valgrind()) skip(); /* it lets the kernel accept, and then closes: nothing stays in the backlog */
    assert_int_equal(run_real(scarce_main, &scarce), 0);
    assert_int_equal(scarce.accept_err, -EMFILE);
    assert_int_equal(scarce.connect_err, -EMFILE);
    assert_int_equal(scarce.listen_err, -EMFILE);
    assert_int_equal(scarce.accepted_later, 0);
}

static void loop_and_runtime_without_descriptors_are_refused_and_leave_nothing(void **state) {
    (void)state;
    struct rlimit limit, few;
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    heist_loop *loop = NULL;
    heist_runtime *rt = NULL;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    few = limit;
    int loop_errs = 0, rt_errs = 0, wrong = 0;
    opts.workers = 3;
    /* One more descriptor each time, so that every opening fails once. */
    for (int spare = 0; spare < 12; spare++) {
        int probe = open("/dev/null", O_RDONLY | O_CLOEXEC); /* the lowest number that is free */
        assert_true(probe >= 0);
        close(probe);
        few.rlim_cur = (rlim_t)(probe + spare);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
        int a = heist_loop_new(NULL, &loop), b = heist_runtime_new(&opts, &rt);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
        if (a == -EMFILE) loop_errs++;
        if (b == -EMFILE) rt_errs++;
        if (a != 0 && a != -EMFILE) wrong++;
        if (b != 0 && b != -EMFILE) wrong++;
        if (a == 0) harness_loop_end(loop);
        if (b == 0) harness_runtime_end(rt);
    }
    assert_int_equal(wrong, 0);
    assert_true(loop_errs > 0 && loop_errs < 12);
    assert_true(rt_errs > loop_errs);
}

/* ---- longer than a runtime ---- */

struct kept {
    heist_listener *listener;
    heist_conn *conn, *peer;
    heist_addr addr;
};

/* Each is waited for once, so that this runtime's loops watch it. */
static int first_life(void *arg, void **out) {
    struct kept *k = arg;
    heist_conn *none;
    char byte;
    (void)out;
    int err = heist_addr_parse("127.0.0.1:0", &k->addr);
    if (!err) err = heist_listen(&k->addr, NULL, &k->listener);
    if (!err) err = heist_listener_addr(k->listener, &k->addr);
    if (!err) err = heist_connect(&k->addr, HEIST_FOREVER, &k->conn);
    if (!err) err = heist_accept(k->listener, HEIST_FOREVER, &k->peer);
    if (err) return err;
    if (heist_accept(k->listener, heist_time() + 0.001, &none) != -ETIMEDOUT) return -EPROTO;
    if (heist_conn_read(k->conn, &byte, 1, heist_time() + 0.001) != -ETIMEDOUT) return -EPROTO;
    return 0;
}

static int write_and_connect(void *arg, void **out) {
    struct kept *k = arg;
    heist_conn *c;
    (void)out;
    int err = heist_sleep(0.002); /* the others wait, as a rule */
    if (!err) err = heist_conn_write(k->peer, "x", 1, HEIST_FOREVER, NULL);
    if (!err) err = heist_sleep(0.002);
    if (!err) err = heist_connect(&k->addr, HEIST_FOREVER, &c);
    if (!err) heist_conn_close(c);
    return err;
}

static int second_life(void *arg, void **out) {
    struct kept *k = arg;
    heist_task *t;
    heist_conn *c;
    char byte;
    (void)out;
    int err = heist_create_task(write_and_connect, k, NULL, &t);
    if (err) return err;
    if (heist_conn_read(k->conn, &byte, 1, heist_time() + 60) != 1) err = -EPROTO;
    if (!err) err = heist_accept(k->listener, heist_time() + 60, &c);
    if (!err) heist_conn_close(c);
    int other = heist_await(t, NULL);
    heist_unref(t);
    return err ? err : other;
}

static void what_outlives_its_runtime_goes_on_in_the_next(void **state) {
    (void)state;
    struct kept k;
    assert_int_equal(run_real(first_life, &k), 0);
    for (int i = 0; i < 3; i++) assert_int_equal(run_real(second_life, &k), 0);
    heist_conn_close(k.conn);
    heist_conn_close(k.peer);
    heist_listener_close(k.listener);
}

static int read_kept(void *arg, void **out) {
    struct kept *k = arg;
    char byte;
    (void)out;
    return heist_conn_read(k->conn, &byte, 1, HEIST_FOREVER) == 1 ? 0 : -EPROTO;
}

static int accept_kept(void *arg, void **out) {
    struct kept *k = arg;
    heist_conn *c;
    (void)out;
    int err = heist_accept(k->listener, HEIST_FOREVER, &c);
    if (!err) heist_conn_close(c);
    return err;
}

static void who_waits_in_one_runtime_outlives_the_other_that_watched(void **state) {
    (void)state;
    for (int i = 0; i < 5; i++) {
        struct kept k;
        heist_runtime *first = harness_runtime(0), *second = harness_runtime(0);
        heist_task *t, *reader, *accepter;
        assert_int_equal(heist_runtime_run_coroutine(first, first_life, &k, NULL, &t), 0);
        assert_int_equal(heist_await(t, NULL), 0);
        heist_unref(t);
        assert_int_equal(heist_runtime_run_coroutine(second, read_kept, &k, NULL, &reader), 0);
        assert_int_equal(heist_runtime_run_coroutine(second, accept_kept, &k, NULL, &accepter), 0);
        if (i) usleep((unsigned)i * 500); /* they wait by now, or not yet */
        harness_runtime_end(first);
        assert_int_equal(heist_runtime_run_coroutine(second, write_and_connect, &k, NULL, &t), 0);
        assert_int_equal(heist_await(t, NULL), 0);
        assert_int_equal(heist_await(reader, NULL), 0);
        assert_int_equal(heist_await(accepter, NULL), 0);
        heist_unref(t);
        heist_unref(reader);
        heist_unref(accepter);
        heist_conn_close(k.conn);
        heist_conn_close(k.peer);
        heist_listener_close(k.listener);
        harness_runtime_end(second);
    }
}

static const struct CMUnitTest tests[] = {
    API_TEST(addresses_are_read_and_written_in_one_form),
    API_TEST(bad_addresses_are_refused),
    API_TEST(bytes_come_back_over_tcp_v4),
    API_TEST(bytes_come_back_over_tcp_v6),
    API_TEST(bytes_come_back_over_unix_sockets),
    API_TEST(write_sends_all_of_it_even_beyond_the_kernels_buffers),
    API_TEST(deadlines_end_reading_and_writing),
    API_TEST(cancelled_read_took_nothing),
    API_TEST(second_reader_is_busy_and_close_wakes_the_first),
    API_TEST(accept_ends_by_deadline_and_by_close_and_connect_is_refused),
    API_TEST(writing_to_a_gone_peer_is_an_error_and_no_signal),
    API_TEST(connection_knows_both_ends),
    API_TEST(listeners_may_share_an_address_when_asked),
    API_TEST(what_outlives_its_runtime_goes_on_in_the_next),
    API_TEST(who_waits_in_one_runtime_outlives_the_other_that_watched),
    API_TEST(listening_needs_a_loop),
    API_TEST(running_out_of_descriptors_is_a_code_and_passes),
    API_TEST(loop_and_runtime_without_descriptors_are_refused_and_leave_nothing),
};

int main(void) {
    return HARNESS_MAIN("net", tests);
}
