/* Opening connections: names and addresses, one after the other and staggered, one error for all, what contradicts
 * itself; and files sent over streams. */
#include "support/stream_pair.h"

#include <netinet/tcp.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/un.h>

/* A listener on loopback: its port as text. */
static int listen_on(const char *text, char port[8]) {
    heist_addr addr;
    if (heist_addr_parse(text, &addr) < 0) abort();
    int fd = socket(addr.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    if (addr.storage.ss_family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    if (fd < 0 || bind(fd, (struct sockaddr *)&addr.storage, addr.length) || listen(fd, 16)) {
        if (fd >= 0) close(fd);
        return -1;
    }
    addr.length = sizeof addr.storage;
    getsockname(fd, (struct sockaddr *)&addr.storage, &addr.length);
    char whole[64];
    heist_addr_format(&addr, whole, sizeof whole);
    if (port) snprintf(port, 8, "%s", strrchr(whole, ':') + 1);
    return fd;
}

/* An address of loopback, with port 0, that no other test of this machine uses: a port that is free there stays so. */
static const char *own_address(char text[32], int number) {
    snprintf(text, 32, "127.%d.%d.%d:0", number, getpid() >> 8 & 255, getpid() & 255);
    return text;
}

/* A port on which nobody listens, and its address without the port. */
static void dead_port(char host[32], char port[8]) {
    close(listen_on(own_address(host, 4), port));
    *strrchr(host, ':') = 0;
}

/* A resolver that gives a list of addresses for one name. */
struct names {
    const char *addr[4]; /* with port 0 */
    int count;
};
static int lookup(void *self, const char *host, int family, unsigned flags, double deadline,
                  heist_addrinfo_list **out) {
    struct names *n = self;
    (void)flags, (void)deadline;
    if (strcmp(host, "many.test") != 0) return HEIST_ENONAME;
    heist_addrinfo_list *list;
    int err = heist_addrinfo_list_new((size_t)n->count, NULL, &list), at = 0;
    if (err < 0) return err;
    for (int i = 0; i < n->count; i++) {
        heist_addr addr;
        if (heist_addr_parse(n->addr[i], &addr) < 0) abort();
        if (family && addr.storage.ss_family != family) continue;
        list->at[at].addr = addr;
        list->at[at].socktype = SOCK_STREAM;
        at++;
    }
    list->count = (size_t)at;
    *out = list;
    return 0;
}
static void use_names(struct names *n) {
    heist_resolver_ops ops = HEIST_RESOLVER_OPS_INIT;
    ops.lookup = lookup;
    if (heist_loop_set_resolver(NULL, &ops, n) < 0) abort();
}

static int accept_now(int listener) {
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd >= 0) unblock(fd);
    return fd;
}

static int open_simply(void *arg, void **out) {
    (void)arg, (void)out;
    char port[8], *line;
    int l = listen_on("127.0.0.1:0", port), on = 0;
    heist_stream *s = NULL;
    WANT_CODE(heist_open_connection("127.0.0.1", port, NULL, &s), 0);
    int fd = accept_now(l);
    WANT_CODE(heist_stream_write(s, "ping\n", 5), 0);
    char buf[8];
    while (read(fd, buf, sizeof buf) != 5)
        if (heist_sleep(0.001) < 0) return -ECANCELED;
    put(fd, "pong\n");
    WANT_CODE(heist_stream_readline(s, &line), 5);
    socklen_t size = sizeof on;
    int own = -1;
    WANT_CODE(heist_stream_get_extra_info(s, HEIST_INFO_SOCKET, &own, sizeof own), 0);
    WANT(getsockopt(own, IPPROTO_TCP, TCP_NODELAY, &on, &size) == 0 && on);
    heist_stream_close(s);
    heist_stream_unref(s);
    close(fd);
    heist_open_options o = HEIST_OPEN_OPTIONS_INIT; /* the options of the socket */
    o.flags = HEIST_OPEN_KEEPALIVE | HEIST_OPEN_NAGLE;
    WANT_CODE(heist_open_connection("127.0.0.1", port, &o, &s), 0);
    WANT_CODE(heist_stream_get_extra_info(s, HEIST_INFO_SOCKET, &own, sizeof own), 0);
    WANT(getsockopt(own, IPPROTO_TCP, TCP_NODELAY, &on, &size) == 0 && !on);
    WANT(getsockopt(own, SOL_SOCKET, SO_KEEPALIVE, &on, &size) == 0 && on);
    heist_stream_close(s);
    heist_stream_unref(s);
    close(l);
    return 0;
}
static void nagle_is_off_unless_asked_for_STRM_37(void **state) {
    (void)state;
    run_ok(open_simply, NULL);
}

static int open_errors(void *arg, void **out) {
    (void)arg, (void)out;
    char port[8], host[32];
    heist_stream *s = NULL;
    struct names n = {{"127.0.0.1:0"}, 1};
    use_names(&n);
    dead_port(host, port);
    WANT_CODE(heist_open_connection(host, port, NULL, &s), -ECONNREFUSED);
    WANT_CODE(heist_open_connection("nowhere.test", port, NULL, &s), HEIST_ENONAME);
    WANT_CODE(heist_open_connection("127.0.0.1", "no such service", NULL, &s), HEIST_ESERVICE);
    WANT_CODE(heist_open_connection("255.255.255.255", port, NULL, &s), -ENETUNREACH);
    WANT_CODE(heist_open_unix_connection("/nonexistent/socket", NULL, &s), -ENOENT);
    WANT(!s);
    int l = listen_on("127.0.0.1:0", port);
    WANT_CODE(heist_open_connection("many.test", port, NULL, &s), 0);
    close(accept_now(l));
    heist_stream_close(s);
    heist_stream_unref(s);
    close(l);
    return 0;
}
static void opening_resolves_connects_and_passes_errors_on_STRM_01(void **state) {
    (void)state;
    run_ok(open_errors, NULL);
}

static int open_many(void *arg, void **out) {
    heist_open_options o = HEIST_OPEN_OPTIONS_INIT;
    o.happy_eyeballs_delay = *(double *)arg;
    (void)out;
    char port[8], first[32], second[32], third[32];
    heist_stream *s = NULL;
    int l = listen_on(own_address(third, 7), port), fd;
    struct names n = {{own_address(first, 5), own_address(second, 6), third}, 3};
    use_names(&n);
    WANT_CODE(heist_open_connection("many.test", port, &o, &s), 0); /* the third one answers */
    fd = accept_now(l);
    WANT(fd >= 0);
    close(fd);
    heist_stream_close(s);
    heist_stream_unref(s);
    close(l);
    s = NULL;
    n.count = 2;
    int err = heist_open_connection("many.test", port, &o, &s);
    WANT_CODE(err, -ECONNREFUSED);
    WANT(!s);
    return err; /* with the message that names them all */
}
static void each_address_is_tried_and_one_error_names_them_all_STRM_02(void **state) {
    (void)state;
    for (int staggered = 0; staggered < 2; staggered++) {
        double delay = staggered ? 0.01 : 0;
        heist_loop *loop = harness_real_loop();
        heist_task *t;
        record_clear(&wrongs);
        assert_int_equal(heist_loop_create_task(loop, open_many, &delay, NULL, &t), 0);
        assert_int_equal(heist_loop_run_until_complete(loop, t, NULL), -ECONNREFUSED);
        assert_string_equal(record_text(&wrongs), "");
        heist_exception e = HEIST_EXCEPTION_INIT;
        assert_int_equal(heist_future_exception(t, &e), 0);
        assert_non_null(e.message);
        assert_non_null(strstr(e.message, "many.test"));
        assert_non_null(strstr(e.message, "127.5."));
        assert_non_null(strstr(e.message, "127.6."));
        assert_non_null(strstr(e.message, "ECONNREFUSED"));
        heist_unref(t);
        harness_loop_end(loop);
    }
}

static int contradictions(void *arg, void **out) {
    (void)arg, (void)out;
    heist_stream *s = NULL;
    heist_open_options o = HEIST_OPEN_OPTIONS_INIT;
    int fd[2], udp[2];
    heist_conn *c, *d;
    heist_addr local;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd) || heist_conn_open(fd[0], &c) < 0) abort();
    if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, udp) || heist_conn_open(udp[0], &d) < 0) abort();
    WANT_CODE(heist_open_connection(NULL, NULL, NULL, &s), -EINVAL);
    WANT_CODE(heist_open_connection("127.0.0.1", NULL, NULL, &s), -EINVAL);
    WANT_CODE(heist_open_connection("127.0.0.1", "", NULL, &s), -EINVAL);
    WANT_CODE(heist_open_connection("127.0.0.1", "1", NULL, NULL), -EINVAL);
    o.conn = c;
    WANT_CODE(heist_open_connection("127.0.0.1", "1", &o, &s), -EINVAL);
    o.conn = d;
    WANT_CODE(heist_open_connection(NULL, NULL, &o, &s), -EINVAL); /* datagrams */
    o.conn = NULL;
    o.flags = 0x8000;
    WANT_CODE(heist_open_connection("127.0.0.1", "1", &o, &s), -EINVAL);
    o.flags = 0;
    o.family = AF_UNIX;
    WANT_CODE(heist_open_connection("127.0.0.1", "1", &o, &s), -EINVAL);
    o.family = 0;
    o.happy_eyeballs_delay = -1;
    WANT_CODE(heist_open_connection("127.0.0.1", "1", &o, &s), -EINVAL);
    o.happy_eyeballs_delay = 0;
    if (heist_addr_parse("127.0.0.1:0", &local) < 0) abort();
    o.local = &local;
    o.family = AF_INET6;
    WANT_CODE(heist_open_connection("::1", "1", &o, &s), -EINVAL);
    WANT_CODE(heist_open_unix_connection("@x", &o, &s), -EINVAL);
    WANT_CODE(heist_open_unix_connection(NULL, NULL, &s), -EINVAL);
    WANT_CODE(heist_open_unix_connection("", NULL, &s), -EINVAL);
    char path[300];
    memset(path, 'p', sizeof path - 1);
    path[sizeof path - 1] = 0;
    WANT_CODE(heist_open_unix_connection(path, NULL, &s), -EINVAL);
    WANT(!s);
    o = (heist_open_options)HEIST_OPEN_OPTIONS_INIT;
    o.conn = c; /* and what is right */
    WANT_CODE(heist_open_connection(NULL, NULL, &o, &s), 0);
    heist_stream_close(s);
    heist_stream_unref(s);
    heist_conn_close(d);
    close(fd[1]);
    close(udp[1]);
    return 0;
}
static void what_contradicts_itself_is_refused_before_anything_is_done_STRM_03(void **state) {
    (void)state;
    run_ok(contradictions, NULL);
}

static int from_local(void *arg, void **out) {
    (void)arg, (void)out;
    char port[8], text[64];
    heist_stream *s = NULL;
    heist_addr local, own;
    heist_open_options o = HEIST_OPEN_OPTIONS_INIT;
    int l = listen_on("127.0.0.1:0", port);
    if (heist_addr_parse("127.0.0.9:0", &local) < 0) abort();
    o.local = &local;
    WANT_CODE(heist_open_connection("127.0.0.1", port, &o, &s), 0);
    WANT_CODE(heist_stream_get_extra_info(s, HEIST_INFO_SOCKNAME, &own, sizeof own), 0);
    heist_addr_format(&own, text, sizeof text);
    WANT(strncmp(text, "127.0.0.9:", 10) == 0);
    close(accept_now(l));
    heist_stream_close(s);
    heist_stream_unref(s);
    s = NULL;
    if (heist_addr_parse("[::1]:0", &local) < 0) abort();
    WANT_CODE(heist_open_connection("127.0.0.1", port, &o, &s), -EADDRNOTAVAIL);
    WANT(!s);
    close(l);
    return 0;
}
static void a_local_address_is_bound_and_must_match_STRM_04(void **state) {
    (void)state;
    run_ok(from_local, NULL);
}

/* A listener whose backlog is full: who connects there waits. */
struct silent {
    int l, fill[64], count;
    char port[8];
};
static void make_silent(struct silent *x) {
    heist_addr addr;
    x->l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (heist_addr_parse("127.0.0.2:0", &addr) < 0) abort();
    if (bind(x->l, (struct sockaddr *)&addr.storage, addr.length) || listen(x->l, 0)) abort();
    addr.length = sizeof addr.storage;
    getsockname(x->l, (struct sockaddr *)&addr.storage, &addr.length);
    char whole[64];
    heist_addr_format(&addr, whole, sizeof whole);
    snprintf(x->port, sizeof x->port, "%s", strrchr(whole, ':') + 1);
    for (x->count = 0; x->count < 4; x->count++) {
        int fd = x->fill[x->count] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        (void)!connect(fd, (struct sockaddr *)&addr.storage, addr.length);
    }
}
static void end_silent(struct silent *x) {
    for (int i = 0; i < x->count; i++) close(x->fill[i]);
    close(x->l);
}

static int stagger(void *arg, void **out) {
    (void)arg, (void)out;
    struct silent x;
    char text[32];
    int l;
    for (;;) { /* two addresses with one port that is free on both */
        make_silent(&x);
        snprintf(text, sizeof text, "127.0.0.3:%s", x.port);
        if ((l = listen_on(text, NULL)) >= 0) break;
        end_silent(&x);
    }
    int before = harness_descriptors();
    struct names n = {{"127.0.0.2:0", "127.0.0.3:0"}, 2};
    use_names(&n);
    heist_stream *s = NULL;
    heist_open_options o = HEIST_OPEN_OPTIONS_INIT;
    o.happy_eyeballs_delay = 0.01;
    WANT_CODE(heist_open_connection("many.test", x.port, &o, &s), 0); /* the first one is silent, the second answers */
    WANT(harness_descriptors() == before + 1);                        /* the loser is closed */
    heist_stream_close(s);
    heist_stream_unref(s);
    s = NULL;
    n.addr[1] = "127.0.0.2:0"; /* both are silent: cancelled by a time limit */
    heist_timeout limit = HEIST_TIMEOUT_INIT;
    if (heist_timeout_enter(&limit, 0.03) < 0) abort();
    int err = heist_open_connection("many.test", x.port, &o, &s);
    WANT_CODE(heist_timeout_exit(&limit, err), -ETIMEDOUT);
    o.happy_eyeballs_delay = 0;
    heist_timeout again = HEIST_TIMEOUT_INIT;
    if (heist_timeout_enter(&again, 0.01) < 0) abort();
    err = heist_open_connection("many.test", x.port, &o, &s);
    WANT_CODE(heist_timeout_exit(&again, err), -ETIMEDOUT);
    WANT(!s);
    WANT(harness_descriptors() == before);
    close(l);
    end_silent(&x);
    return 0;
}
static void staggered_attempts_the_first_wins_and_losers_are_closed(void **state) {
    (void)state;
    run_ok(stagger, NULL);
}

static int unix_stream(void *arg, void **out) {
    (void)arg, (void)out;
    char name[64];
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    snprintf(name, sizeof name, "@heist-test-stream-%d", (int)getpid());
    memcpy(un.sun_path + 1, name + 1, strlen(name) - 1);
    int l = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(l, (struct sockaddr *)&un, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name))) ||
        listen(l, 1))
        abort();
    heist_stream *s;
    WANT_CODE(heist_open_unix_connection(name, NULL, &s), 0);
    int fd = accept_now(l);
    char buf[4];
    put(fd, "hi");
    WANT_CODE(heist_stream_read(s, buf, sizeof buf), 2);
    heist_stream_close(s);
    heist_stream_unref(s);
    close(fd);
    close(l);
    return 0;
}
static void unix_sockets_are_opened_by_their_path(void **state) {
    (void)state;
    run_ok(unix_stream, NULL);
}

/* ---- files ---- */

static char content[300000], back[300001];

/* A file of its own without a name. */
static void fill_content(void) {
    for (size_t i = 0; i < sizeof content; i++) content[i] = (char)(i * 13 + i / 307);
}
static int make_file(void) {
    FILE *f = tmpfile();
    if (!f) abort();
    int fd = dup(fileno(f));
    fclose(f);
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    if (write(fd, content, sizeof content) != sizeof content) abort();
    lseek(fd, 0, SEEK_SET);
    return fd;
}

static int collect(void *arg, void **out) {
    (void)out;
    int *fd = arg;
    size_t got = 0;
    for (;;) {
        ssize_t n = read(*fd, back + got, sizeof back - got);
        if (n == 0) break;
        if (n > 0) got += (size_t)n;
        if (n < 0 && heist_sleep(0.0005) < 0) return -ECANCELED;
    }
    *fd = (int)got;
    return 0;
}

/* A transport of the test's own over a connection, without sendfile. */
static ptrdiff_t plain_read(void *self, void *buf, size_t n, double deadline) {
    return heist_conn_read(self, buf, n, deadline);
}
static ptrdiff_t plain_writev(void *self, const struct iovec *iov, int count, double deadline) {
    size_t gone = 0;
    (void)count;
    int err = heist_conn_write(self, iov->iov_base, iov->iov_len, deadline, &gone);
    return gone ? (ptrdiff_t)gone : err;
}
static void plain_close(void *self) { shutdown(heist_conn_fd(self), SHUT_RDWR); }
static void plain_free(void *self) { heist_conn_close(self); }

static int send_files(void *arg, void **out) {
    bool plain = *(bool *)arg;
    (void)out;
    struct pair p;
    if (plain) {
        int fd[2];
        heist_conn *c;
        heist_stream_ops ops = HEIST_STREAM_OPS_INIT;
        ops.read = plain_read;
        ops.writev = plain_writev;
        ops.close = plain_close;
        ops.free = plain_free;
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd) || heist_conn_open(fd[0], &c) < 0) abort();
        p.fd = fd[1];
        unblock(p.fd);
        if (heist_stream_new(&ops, c, NULL, &p.s) < 0) abort();
    } else {
        open_pair(&p, NULL);
    }
    int file = make_file(), peer = p.fd;
    size_t sent = 0;
    heist_task *t;
    if (heist_create_task(collect, &peer, NULL, &t) < 0) abort();
    WANT_CODE(heist_stream_write(p.s, "head", 4), 0);
    WANT_CODE(heist_stream_sendfile(p.s, file, 10, 200000, &sent), 0);
    WANT(sent == 200000);
    WANT(lseek(file, 0, SEEK_CUR) == 200010);
    WANT_CODE(heist_stream_write(p.s, "mid", 3), 0);
    WANT_CODE(heist_stream_sendfile(p.s, file, -1, 0, &sent), 0); /* from its position to its end */
    WANT(sent == 300000 - 200010);
    WANT(lseek(file, 0, SEEK_CUR) == 300000);
    WANT_CODE(heist_stream_sendfile(p.s, file, 300000, 0, &sent), 0);
    WANT(sent == 0);
    WANT_CODE(heist_stream_sendfile(p.s, -1, 0, 0, &sent), -EINVAL);
    int ends[2];
    if (pipe2(ends, O_CLOEXEC)) abort();
    WANT_CODE(heist_stream_sendfile(p.s, ends[0], 0, 1, &sent), -ESPIPE);
    close(ends[0]);
    close(ends[1]);
    heist_stream_close(p.s);
    WANT_CODE(heist_stream_wait_closed(p.s), 0);
    WANT_CODE(heist_await(t, NULL), 0);
    heist_unref(t);
    WANT(peer == 4 + 200000 + 3 + 99990);
    WANT(memcmp(back, "head", 4) == 0 && memcmp(back + 4, content + 10, 200000) == 0);
    WANT(memcmp(back + 200004, "mid", 3) == 0 && memcmp(back + 200007, content + 200010, 99990) == 0);
    WANT_CODE(heist_stream_sendfile(p.s, file, 0, 0, &sent), HEIST_ECLOSED);
    close(file);
    close_pair(&p);
    return 0;
}
static void both_ways_of_sendfile_send_the_same_bytes_STRM_39(void **state) {
    (void)state;
    fill_content();
    for (int i = 0; i < 2; i++) {
        bool plain = i;
        run_ok(send_files, &plain);
    }
}

static int send_and_cancel(void *arg, void **out) {
    struct pair *p = arg;
    (void)out;
    int file = make_file();
    size_t sent = 0;
    int err = heist_stream_sendfile(p->s, file, 0, 0, &sent);
    off_t at = lseek(file, 0, SEEK_CUR);
    WANT(at == (off_t)sent);
    close(file);
    return err;
}
static int cancelled_sendfile(void *arg, void **out) {
    (void)arg, (void)out;
    struct pair p;
    heist_task *t, *second;
    open_pair(&p, NULL);
    int bytes = 4096, fd;
    WANT_CODE(heist_stream_get_extra_info(p.s, HEIST_INFO_SOCKET, &fd, sizeof fd), 0);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
    if (heist_create_task(send_and_cancel, &p, NULL, &t) < 0) abort();
    harness_stands(t);
    if (heist_create_task(send_and_cancel, &p, NULL, &second) < 0) abort(); /* waits for its turn */
    harness_stands(second);
    WANT_CODE(heist_stream_write(p.s, "behind", 6), 0); /* goes when the file is through, or given up */
    heist_cancel(t);
    WANT_CODE(heist_await(t, NULL), -ECANCELED);
    heist_unref(t);
    close(p.fd); /* the peer goes: no signal */
    p.fd = -1;
    int err = heist_await(second, NULL);
    WANT(err == -EPIPE || err == -ECONNRESET);
    heist_unref(second);
    WANT_CODE(heist_stream_drain(p.s), err);
    close_pair(&p);
    open_pair(&p, NULL); /* closed while it waits */
    WANT_CODE(heist_stream_get_extra_info(p.s, HEIST_INFO_SOCKET, &fd, sizeof fd), 0);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
    if (heist_create_task(send_and_cancel, &p, NULL, &t) < 0) abort();
    if (heist_create_task(send_and_cancel, &p, NULL, &second) < 0) abort();
    harness_stands(t);
    harness_stands(second);
    heist_stream_close(p.s);
    WANT_CODE(heist_await(t, NULL), HEIST_ECLOSED);
    WANT_CODE(heist_await(second, NULL), HEIST_ECLOSED);
    heist_unref(t);
    heist_unref(second);
    WANT_CODE(heist_stream_wait_closed(p.s), 0);
    close_pair(&p);
    return 0;
}
static void a_sendfile_is_cancelled_and_closed_like_a_write(void **state) {
    (void)state;
    fill_content();
    run_ok(cancelled_sendfile, NULL);
}

/* ---- running out ---- */

static int open_without_descriptors(void *arg, void **out) {
    (void)arg, (void)out;
    char port[8];
    heist_stream *s = NULL;
    heist_open_options o = HEIST_OPEN_OPTIONS_INIT;
    int l = listen_on("127.0.0.1:0", port), held[64], n = 0;
    struct names names = {{"127.0.0.1:0", "127.0.0.2:0"}, 2};
    use_names(&names);
    struct rlimit before, few;
    getrlimit(RLIMIT_NOFILE, &before);
    few = before;
    few.rlim_cur = (rlim_t)dup(0) + 1; /* the lowest free number is the last one */
    close((int)few.rlim_cur - 1);
    setrlimit(RLIMIT_NOFILE, &few);
    while (n < 64 && (held[n] = dup(0)) >= 0) n++;
    WANT_CODE(heist_open_connection("127.0.0.1", port, NULL, &s), -EMFILE);
    o.happy_eyeballs_delay = 0.001;
    WANT_CODE(heist_open_connection("many.test", port, &o, &s), -EMFILE);
    WANT_CODE(heist_open_unix_connection("@nobody", NULL, &s), -EMFILE);
    setrlimit(RLIMIT_NOFILE, &before);
    while (n) close(held[--n]);
    WANT(!s);
    WANT_CODE(heist_open_connection("127.0.0.1", port, NULL, &s), 0);
    heist_stream_close(s);
    heist_stream_unref(s);
    close(l);
    return 0;
}
static void without_descriptors_opening_says_so(void **state) {
    (void)state;
    if (harness_valgrind()) skip(); /* keeps its own limit */
    run_ok(open_without_descriptors, NULL);
}

static int open_once(void *arg, void **out) {
    heist_open_options o = HEIST_OPEN_OPTIONS_INIT;
    const char *port = arg;
    heist_stream *s = NULL;
    (void)out;
    o.happy_eyeballs_delay = 1;
    char dead[32], live[32];
    snprintf(dead, sizeof dead, "127.2.%d.%d:0", getpid() >> 8 & 255, getpid() & 255);
    snprintf(live, sizeof live, "127.1.%d.%d:0", getpid() >> 8 & 255, getpid() & 255);
    struct names names = {{dead, live}, 2};
    heist_resolver_ops ops = HEIST_RESOLVER_OPS_INIT;
    ops.lookup = lookup;
    int err = heist_loop_set_resolver(NULL, &ops, &names);
    if (err < 0) return err;
    err = heist_open_connection("many.test", port, &o, &s); /* the first one refuses */
    if (err == 0) {
        heist_stream_close(s);
        heist_stream_unref(s);
    } else if (s) {
        err = -EPROTO;
    }
    return err == -ECONNREFUSED ? -ENOMEM : err; /* the second attempt could not be made */
}
static void without_memory_opening_fails_and_leaves_nothing(void **state) {
    (void)state;
    char port[8], own[32];
    /* Loopback addresses of our own: whoever floods 127.0.0.1 or all of them from beside us may mean our port, and a full
     * backlog answers nobody. */
    snprintf(own, sizeof own, "127.1.%d.%d:0", getpid() >> 8 & 255, getpid() & 255);
    int l = listen_on(own, port);
    unblock(l);
    for (int all_later = 0; all_later < 2; all_later++) {
        for (long n = 1;; n++) {
            long blocks = harness_blocks();
            int descriptors = harness_descriptors();
            heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
            opts.workers = harness_workers();
            harness_allocations();
            harness_fail_allocation(n, all_later);
            int err = heist_run(open_once, port, &opts, NULL);
            harness_fail_allocation(0, false);
            long asked = harness_allocations();
            if (err != 0 && err != -ENOMEM) fail_msg("allocation %ld failing: %s", n, heist_error_name(err));
            assert_int_equal(harness_blocks(), blocks);
            assert_int_equal(harness_descriptors(), descriptors);
            for (int fd; (fd = accept_now(l)) >= 0;) close(fd); /* or the backlog would be full one day */
            if (asked < n) break;
            assert_true(n < 500);
        }
    }
    close(l);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        API_TEST(opening_resolves_connects_and_passes_errors_on_STRM_01),
        API_TEST(each_address_is_tried_and_one_error_names_them_all_STRM_02),
        API_TEST(what_contradicts_itself_is_refused_before_anything_is_done_STRM_03),
        API_TEST(a_local_address_is_bound_and_must_match_STRM_04),
        API_TEST(staggered_attempts_the_first_wins_and_losers_are_closed),
        API_TEST(unix_sockets_are_opened_by_their_path),
        API_TEST(nagle_is_off_unless_asked_for_STRM_37),
        API_TEST(both_ways_of_sendfile_send_the_same_bytes_STRM_39),
        API_TEST(a_sendfile_is_cancelled_and_closed_like_a_write),
        API_TEST(without_descriptors_opening_says_so),
        API_TEST(without_memory_opening_fails_and_leaves_nothing),
    };
    return HARNESS_MAIN("stream_open", tests);
}
