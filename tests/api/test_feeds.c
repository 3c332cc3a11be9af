/* Accepting and receiving by requests of many shots (HEIST_BACKEND_FEED_ACCEPT, _RECV): nothing that came before it was
 * asked for is lost, given twice, or left open.  Where the kernel has no such requests the same holds without them. */
#include "support/stream_pair.h"

#include <errno.h>
#include <poll.h>
#include <sys/wait.h>

static int run_fed(heist_coro_fn fn, void *arg) {
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    opts.workers = harness_workers();
    opts.backend = HEIST_BACKEND_IO_URING | HEIST_BACKEND_FEED_ACCEPT | HEIST_BACKEND_FEED_RECV;
    record_clear(&wrongs);
    int err = heist_run(fn, arg, &opts, NULL);
    assert_string_equal(record_text(&wrongs), "");
    return err;
}

static int listen_here(heist_addr *addr, heist_listener **out) {
    int err = heist_addr_parse("127.0.0.1:0", addr);
    if (err == 0) err = heist_listen(addr, NULL, out);
    return err ? err : heist_listener_addr(*out, addr);
}

/* A plain socket, which says its number. */
static int dial(const heist_addr *addr, int number) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&addr->storage, addr->length) < 0) return -1;
    return write(fd, &number, sizeof number) == sizeof number ? fd : -1;
}

/* Its number, read after an accept. */
static int number_of(heist_listener *l, double deadline) {
    heist_conn *conn = NULL;
    int number = -1, err = heist_accept(l, deadline, &conn);
    if (err < 0) return err;
    if (heist_conn_read(conn, &number, sizeof number, HEIST_FOREVER) != sizeof number) number = -EPROTO;
    heist_conn_close(conn);
    return number;
}

static bool is_open(int fd) {
    char byte;
    struct pollfd p = {fd, POLLIN, 0};
    return poll(&p, 1, 0) == 0 || (recv(fd, &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN);
}

/* ---- accepting ---- */

enum { AHEAD = 200 }; /* more than one request keeps */

static int accept_ahead(void *arg, void **out) {
    heist_addr addr;
    heist_listener *l;
    int fd[AHEAD];
    (void)arg, (void)out;
    WANT_CODE(listen_here(&addr, &l), 0);
    WANT_CODE(number_of(l, heist_time() + 0.01), -ETIMEDOUT); /* it has waited */
    for (int i = 0; i < AHEAD; i++) WANT((fd[i] = dial(&addr, i)) >= 0);
    WANT_CODE(heist_sleep(0.01), 0); /* the loop takes them */
    for (int i = 0; i < AHEAD / 2; i++) WANT_CODE(number_of(l, HEIST_FOREVER), i);
    heist_cancel(heist_current_task());
    WANT_CODE(number_of(l, HEIST_FOREVER), -ECANCELED);
    for (int i = AHEAD / 2; i < AHEAD; i++) WANT_CODE(number_of(l, HEIST_FOREVER), i);
    WANT_CODE(number_of(l, heist_time() + 0.001), -ETIMEDOUT);
    heist_listener_close(l);
    for (int i = 0; i < AHEAD; i++) close(fd[i]);
    return 0;
}

static void connections_before_they_are_asked_for_go_to_the_next_calls_in_order(void **state) {
    (void)state;
    assert_int_equal(run_fed(accept_ahead, NULL), 0);
}

struct dialer {
    heist_addr addr;
    int fd[AHEAD];
};

static void *dial_all(void *arg) {
    struct dialer *d = arg;
    for (int i = 0; i < AHEAD; i++) d->fd[i] = dial(&d->addr, i);
    return NULL;
}

static int accept_impatiently(void *arg, void **out) {
    struct dialer *d = arg;
    heist_listener *l;
    (void)out;
    WANT_CODE(listen_here(&d->addr, &l), 0);
    pthread_t thread = harness_thread(dial_all, d);
    for (int i = 0; i < AHEAD;) {
        int n = number_of(l, heist_time() + 0.0001 * (i % 3));
        if (n == -ETIMEDOUT) continue;
        WANT_CODE(n, i);
        i++;
    }
    harness_join(thread);
    heist_listener_close(l);
    for (int i = 0; i < AHEAD; i++) close(d->fd[i]);
    return 0;
}

static void accepts_that_time_out_lose_no_connection(void **state) {
    (void)state;
    static struct dialer d;
    assert_int_equal(run_fed(accept_impatiently, &d), 0);
}

static int wait_for_connection(void *l, void **out) {
    (void)out;
    return number_of(l, HEIST_FOREVER);
}

/* The harness counts descriptors: none of what nobody asked for is left open. */
static int close_before_accept(void *arg, void **out) {
    heist_addr addr;
    heist_listener *l;
    heist_task *t;
    int fd[AHEAD];
    (void)arg, (void)out;
    WANT_CODE(listen_here(&addr, &l), 0);
    WANT_CODE(number_of(l, heist_time() + 0.01), -ETIMEDOUT);
    for (int i = 0; i < AHEAD; i++) WANT((fd[i] = dial(&addr, i)) >= 0);
    WANT_CODE(heist_sleep(0.01), 0);
    heist_listener_close(l);
    for (int i = 0; i < AHEAD; i++) {
        while (is_open(fd[i])) WANT_CODE(heist_sleep(0.001), 0);
        close(fd[i]);
    }
    /* And while one waits, and connections are on their way. */
    for (int round = 0; round < 20; round++) {
        WANT_CODE(listen_here(&addr, &l), 0);
        heist_task_options eager = HEIST_TASK_OPTIONS_INIT; /* it waits when this returns */
        eager.flags = HEIST_TASK_EAGER;
        WANT_CODE(heist_create_task(wait_for_connection, l, &eager, &t), 0);
        if (round % 2) WANT_CODE(heist_sleep(0.001), 0);
        int one = dial(&addr, 7), two = dial(&addr, 8);
        if (round % 4 == 3) WANT_CODE(heist_sleep(0.0005), 0);
        heist_listener_close(l);
        int n = heist_await(t, NULL);
        WANT(n == 0 || n == HEIST_ECLOSED); /* a number is a success */
        heist_unref(t);
        while (is_open(two)) WANT_CODE(heist_sleep(0.001), 0);
        close(one);
        close(two);
    }
    return 0;
}

static void a_closed_listener_leaves_no_connection_open(void **state) {
    (void)state;
    assert_int_equal(run_fed(close_before_accept, NULL), 0);
}

/* ---- receiving ---- */

static unsigned char byte_at(size_t i) { return (unsigned char)(i * 7 + i / 251); }

struct sender {
    int fd;
    size_t bytes;
};

static void *send_pattern(void *arg) {
    struct sender *s = arg;
    unsigned char buf[5000];
    for (size_t at = 0; at < s->bytes;) {
        size_t n = 1 + (at * 31) % sizeof buf;
        if (n > s->bytes - at) n = s->bytes - at;
        for (size_t i = 0; i < n; i++) buf[i] = byte_at(at + i);
        ssize_t sent = send(s->fd, buf, n, MSG_NOSIGNAL);
        if (sent > 0) at += (size_t)sent;
        else poll(&(struct pollfd){s->fd, POLLOUT, 0}, 1, 100);
    }
    shutdown(s->fd, SHUT_WR);
    return NULL;
}

/* Reads on to the end: how many bytes, or where the first wrong one is. */
static ptrdiff_t check_rest(heist_stream *s, size_t from, double patience) {
    unsigned char buf[3000];
    for (;;) {
        if (patience > 0) heist_stream_set_read_deadline(s, heist_time() + patience);
        ptrdiff_t n = heist_stream_read(s, buf, 1 + from % sizeof buf);
        if (n == -ETIMEDOUT) continue;
        if (n <= 0) return n < 0 ? n : (ptrdiff_t)from;
        for (ptrdiff_t i = 0; i < n; i++, from++)
            if (buf[i] != byte_at(from)) return -EILSEQ;
    }
}

static int read_impatiently(void *arg, void **out) {
    struct sender send = {-1, (size_t)1 << 20};
    struct pair p;
    (void)out;
    if (arg) open_tcp(&p, NULL);
    else open_pair(&p, NULL);
    send.fd = p.fd;
    pthread_t thread = harness_thread(send_pattern, &send);
    WANT_CODE(check_rest(p.s, 0, 0.00005), (ptrdiff_t)send.bytes);
    harness_join(thread);
    close_pair(&p);
    return 0;
}

static void reads_that_time_out_lose_no_byte(void **state) {
    (void)state;
    assert_int_equal(run_fed(read_impatiently, NULL), 0);
    assert_int_equal(run_fed(read_impatiently, "tcp"), 0);
}

enum { MANY = 100 };

/* More than all buffers of a ring hold. */
static int starve(void *arg, void **out) {
    static struct pair p[MANY];
    static size_t sent[MANY];
    static unsigned char block[128 << 10];
    (void)arg, (void)out;
    for (size_t i = 0; i < sizeof block; i++) block[i] = byte_at(i);
    for (int i = 0; i < MANY; i++) {
        char byte;
        open_pair(&p[i], NULL);
        heist_stream_set_read_deadline(p[i].s, heist_time() + 0.0001);
        WANT_CODE(heist_stream_read(p[i].s, &byte, 1), -ETIMEDOUT); /* it has waited */
        heist_stream_set_read_deadline(p[i].s, HEIST_FOREVER);
    }
    for (int i = 0; i < MANY; i++) {
        for (sent[i] = 0; sent[i] < sizeof block;) {
            ssize_t n = send(p[i].fd, block + sent[i], sizeof block - sent[i] < 4000 ? sizeof block - sent[i] : 4000,
                             MSG_NOSIGNAL);
            if (n < 0) break;
            sent[i] += (size_t)n;
        }
        if (i % 10 == 9) WANT_CODE(heist_sleep(0), 0);
        WANT(sent[i] > 4000);
    }
    WANT_CODE(heist_sleep(0.01), 0);
    for (int i = MANY - 1; i >= 0; i--) {
        WANT_CODE(shutdown(p[i].fd, SHUT_WR), 0);
        WANT_CODE(check_rest(p[i].s, 0, 0), (ptrdiff_t)sent[i]);
    }
    /* And each of them goes on. */
    for (int i = 0; i < MANY; i++) close_pair(&p[i]);
    return 0;
}

static void more_than_the_buffers_hold_is_read_all_the_same(void **state) {
    (void)state;
    assert_int_equal(run_fed(starve, NULL), 0);
}

static int read_byte_of(void *s, void **out) {
    char byte;
    (void)out;
    ptrdiff_t n = heist_stream_read(s, &byte, 1);
    return n == 1 ? byte : (int)n;
}

/* A peer that does not stop is held back by its socket. */
static int flood(void *arg, void **out) {
    struct pair p;
    char block[4000] = {0};
    (void)arg, (void)out;
    open_pair(&p, NULL);
    heist_stream_set_read_deadline(p.s, heist_time() + 0.0001);
    WANT_CODE(read_byte_of(p.s, NULL), -ETIMEDOUT);
    size_t sent = 0;
    for (int idle = 0; idle < 20 && sent < (size_t)64 << 20;) {
        ssize_t n = send(p.fd, block, sizeof block, MSG_NOSIGNAL);
        sent += n > 0 ? (size_t)n : 0;
        idle = n > 0 ? 0 : idle + 1;
        if (n <= 0) WANT_CODE(heist_sleep(0.001), 0);
    }
    WANT(sent < (size_t)8 << 20);
    close_pair(&p);
    return 0;
}

static void a_flood_is_held_back(void **state) {
    (void)state;
    assert_int_equal(run_fed(flood, NULL), 0);
}

/* ---- ends ---- */

/* A stream that outlives its runtime, with bytes that came and were not read, and its request out. */
static int leave_behind(void *arg, void **out) {
    struct pair *p = arg;
    heist_task *t;
    (void)out;
    open_pair(p, NULL);
    WANT_CODE(heist_create_task(read_byte_of, p->s, NULL, &t), 0);
    WANT_CODE(heist_sleep(0.001), 0);
    WANT(send(p->fd, "abcdef", 6, 0) == 6);
    WANT_CODE(heist_await(t, NULL), 0);
    heist_unref(t);
    WANT(send(p->fd, "ghi", 3, 0) == 3);
    return 0;
}

static int take_up(void *arg, void **out) {
    struct pair *p = arg;
    char buf[10] = "";
    size_t got = 0;
    (void)out;
    WANT_CODE(heist_stream_readexactly(p->s, buf, 8, &got), 0);
    WANT(!memcmp(buf, "bcdefghi", 8));
    heist_task *t;
    WANT_CODE(heist_create_task(read_byte_of, p->s, NULL, &t), 0);
    WANT_CODE(heist_sleep(0.001), 0);
    WANT(send(p->fd, "z", 1, 0) == 1);
    WANT_CODE(heist_await(t, NULL), 0);
    heist_unref(t);
    close_pair(p);
    return 0;
}

static void what_came_outlives_the_runtime(void **state) {
    (void)state;
    for (int i = 0; i < 10; i++) {
        struct pair p;
        assert_int_equal(run_fed(leave_behind, &p), 0);
        assert_int_equal(i % 2 ? run_fed(take_up, &p) : harness_run(take_up, &p, NULL), 0);
    }
}

struct waits {
    heist_addr addr;
    heist_listener *l;
    struct pair p[4];
    int fd;
};

/* They are cancelled when this returns. */
static int wait_for_all(void *arg, void **out) {
    struct waits *w = arg;
    struct pair *p = w->p;
    (void)out;
    WANT_CODE(listen_here(&w->addr, &w->l), 0);
    WANT_CODE(heist_create_task(wait_for_connection, w->l, NULL, NULL), 0);
    for (int i = 0; i < 4; i++) {
        open_pair(&p[i], NULL);
        WANT_CODE(heist_create_task(read_byte_of, p[i].s, NULL, NULL), 0);
    }
    WANT_CODE(heist_sleep(0.001), 0);
    int ends[2], status;
    char did = 0;
    WANT(pipe(ends) == 0);
    pid_t child = fork();
    WANT(child >= 0);
    if (child == 0) { /* the requests, and what they bring, are the parent's */
        heist_stream_close(p[0].s);
        heist_listener_close(w->l);
        _exit(write(ends[1], "y", 1) == 1 ? 0 : 1); /* a memory checker has an exit status of its own */
    }
    close(ends[1]);
    WANT(read(ends[0], &did, 1) == 1 && did == 'y');
    WANT(waitpid(child, &status, 0) == child && WIFEXITED(status));
    close(ends[0]);
    WANT(send(p[0].fd, "xyz", 3, 0) == 3);
    w->fd = dial(&w->addr, 1);
    return 0;
}

static void runtime_ends_while_requests_are_out(void **state) {
    (void)state;
    for (int round = 0; round < 10; round++) {
        struct waits w;
        assert_int_equal(run_fed(wait_for_all, &w), 0);
        if (round % 2) heist_listener_close(w.l);
        for (int i = 0; i < 4; i++) {
            heist_stream_abort(w.p[i].s);
            heist_stream_unref(w.p[i].s);
            close(w.p[i].fd);
        }
        if (round % 2 == 0) heist_listener_close(w.l);
        close(w.fd);
    }
}

static void options_that_do_not_fit_are_refused(void **state) {
    (void)state;
    static const int bad[] = {HEIST_BACKEND_FEED_ACCEPT, HEIST_BACKEND_EPOLL | HEIST_BACKEND_FEED_RECV,
                              HEIST_BACKEND_IO_URING | 0x400, 3 | HEIST_BACKEND_FEED_RECV};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
        opts.backend = bad[i];
        assert_int_equal(heist_run(wait_for_all, NULL, &opts, NULL), -EINVAL);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        API_TEST(connections_before_they_are_asked_for_go_to_the_next_calls_in_order),
        API_TEST(accepts_that_time_out_lose_no_connection),
        API_TEST(a_closed_listener_leaves_no_connection_open),
        API_TEST(reads_that_time_out_lose_no_byte),
        API_TEST(more_than_the_buffers_hold_is_read_all_the_same),
        API_TEST(a_flood_is_held_back),
        API_TEST(what_came_outlives_the_runtime),
        API_TEST(runtime_ends_while_requests_are_out),
        API_TEST(options_that_do_not_fit_are_refused),
    };
    return HARNESS_MAIN("feeds", tests);
}
