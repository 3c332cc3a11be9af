/* Streams at their edges: reads that the system cuts short though more is there, transports that never make anybody
 * wait, and calls that were cancelled before they began. */
#include "support/stream_pair.h"

#include <heist/server.h>

/* ---- short reads ---- */

/* The stream is watched from now on, and knows that nothing is there. */
static void settle(struct pair *p) {
    char byte;
    put(p->fd, "x");
    WANT_CODE(heist_stream_read(p->s, &byte, 1), 1);
    WANT_CODE(heist_stream_set_read_deadline(p->s, heist_time() + 0.001), 0);
    WANT_CODE(heist_stream_read(p->s, &byte, 1), -ETIMEDOUT);
    WANT_CODE(heist_stream_set_read_deadline(p->s, heist_time() + 20), 0); /* in vain; else the test would hang */
}

static void send_with_descriptor(int fd, char byte) {
    struct iovec iov = {&byte, 1};
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
                             .msg_controllen = sizeof control};
    struct cmsghdr *c = CMSG_FIRSTHDR(&message);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(c), &fd, sizeof fd);
    WANT_CODE(sendmsg(fd, &message, 0), 1);
}

/* A read of a Unix socket ends at a message that carried descriptors. */
static int passed_descriptors(void *arg, void **out) {
    struct pair p;
    char buf[4096];
    (void)arg, (void)out;
    open_pair(&p, NULL);
    settle(&p);
    send_with_descriptor(p.fd, 'a');
    put(p.fd, "hello");
    WANT_CODE(heist_stream_read(p.s, buf, sizeof buf), 1);
    WANT_CODE(heist_stream_read(p.s, buf, sizeof buf), 5);
    close_pair(&p);
    return 0;
}
static void what_follows_a_passed_descriptor_is_read_at_once(void **state) {
    (void)state;
    run_ok(passed_descriptors, NULL);
}

/* A read of a TCP socket ends at urgent data. */
static int urgent_data(void *arg, void **out) {
    struct pair p;
    char buf[4096];
    (void)arg, (void)out;
    open_tcp(&p, NULL);
    settle(&p);
    put(p.fd, "abc");
    WANT_CODE(send(p.fd, "!", 1, MSG_OOB), 1);
    put(p.fd, "def");
    size_t got = 0;
    while (got < 6) {
        ptrdiff_t n = heist_stream_read(p.s, buf + got, sizeof buf - got);
        WANT(n > 0);
        if (n <= 0) break;
        got += (size_t)n;
    }
    WANT(got == 6 && memcmp(buf, "abcdef", 6) == 0);
    close_pair(&p);
    return 0;
}
static void what_follows_urgent_data_is_read_at_once(void **state) {
    (void)state;
    run_ok(urgent_data, NULL);
}

/* ---- a transport that never waits ---- */

struct spring {
    heist_stream *s;
    heist_coro_fn meanwhile; /* a task that begins when the first read or write does, and has `of` */
    void *of;
    heist_task *other;
    long reads, writes, calls_before_turn;
    bool turn; /* another task has had one */
    size_t got;
    int code;
};

static void spring_moves(struct spring *f) {
    if (f->meanwhile) WANT_CODE(heist_create_task(f->meanwhile, f->of, NULL, &f->other), 0);
    f->meanwhile = NULL;
}
static ptrdiff_t spring_read(void *self, void *buf, size_t size, double deadline) {
    struct spring *f = self;
    (void)size, (void)deadline;
    spring_moves(f);
    *(char *)buf = (char)('a' + f->reads % 26);
    f->reads++;
    return 1;
}
static ptrdiff_t spring_writev(void *self, const struct iovec *iov, int count, double deadline) {
    struct spring *f = self;
    (void)iov, (void)count, (void)deadline;
    spring_moves(f);
    f->writes++;
    return 1;
}
static void spring_close(void *self) { (void)self; }

static heist_stream *spring_open(struct spring *f) {
    heist_stream_ops ops = HEIST_STREAM_OPS_INIT;
    ops.read = spring_read;
    ops.writev = spring_writev;
    ops.close = ops.free = spring_close;
    WANT_CODE(heist_stream_new(&ops, f, NULL, &f->s), 0);
    return f->s;
}

enum { MUCH = 50000 };
static char much[MUCH];

static int take_turn(void *arg, void **out) {
    struct spring *f = arg;
    (void)out;
    f->turn = true;
    f->calls_before_turn = f->reads + f->writes;
    return 0;
}

static int read_line_for_ever(void *arg, void **out) {
    struct spring *f = arg;
    size_t n;
    char *data;
    (void)out;
    return f->code = heist_stream_readuntil(f->s, "#", 1, &data, &n);
}
static int read_exactly_much(void *arg, void **out) {
    struct spring *f = arg;
    (void)out;
    return f->code = heist_stream_readexactly(f->s, much, MUCH, &f->got);
}
static int read_all_of_much(void *arg, void **out) {
    struct spring *f = arg;
    void *data = NULL;
    (void)out;
    f->code = heist_stream_read_all(f->s, MUCH, &data, &f->got);
    heist_stream_data_free(data);
    return f->code;
}

static const heist_coro_fn springs[] = {read_line_for_ever, read_exactly_much, read_all_of_much};

static int others_have_turns(void *arg, void **out) {
    (void)arg, (void)out;
    for (size_t i = 0; i < sizeof springs / sizeof *springs; i++) {
        struct spring f = {0};
        heist_task *reader;
        f.meanwhile = take_turn;
        f.of = &f;
        spring_open(&f);
        WANT_CODE(heist_create_task(springs[i], &f, NULL, &reader), 0);
        (void)heist_await(reader, NULL);
        (void)heist_await(f.other, NULL);
        WANT(f.turn && f.calls_before_turn < MUCH / 2);
        heist_unref(reader);
        heist_unref(f.other);
        heist_stream_abort(f.s);
        heist_stream_unref(f.s);
    }
    return 0;
}
/* On one worker: with more, the other task would run elsewhere. */
static void a_read_of_what_never_ends_gives_others_their_turn(void **state) {
    (void)state;
    assert_int_equal(run_on(others_have_turns, NULL, 1), 0);
}

static int cancel_it(void *arg, void **out) {
    (void)out;
    heist_cancel(arg);
    return 0;
}
static int cancel_springs(void *arg, void **out) {
    (void)arg, (void)out;
    for (size_t i = 0; i < sizeof springs / sizeof *springs; i++) {
        struct spring f = {0};
        heist_task *reader;
        char first[4];
        spring_open(&f);
        WANT_CODE(heist_create_task(springs[i], &f, NULL, &reader), 0);
        f.meanwhile = cancel_it;
        f.of = reader;
        (void)heist_await(reader, NULL);
        (void)heist_await(f.other, NULL);
        WANT_CODE(f.code, -ECANCELED);
        WANT(f.reads > 0);
        WANT_CODE(heist_stream_readexactly(f.s, first, 4, NULL), 0); /* nothing was taken */
        WANT(memcmp(first, "abcd", 4) == 0);
        heist_unref(reader);
        heist_unref(f.other);
        heist_stream_abort(f.s);
        heist_stream_unref(f.s);
    }
    return 0;
}
static void a_read_of_what_never_ends_can_be_cancelled_and_has_taken_nothing(void **state) {
    (void)state;
    assert_int_equal(run_on(cancel_springs, NULL, 1), 0);
}

static int late_springs(void *arg, void **out) {
    (void)arg, (void)out;
    for (size_t i = 0; i < sizeof springs / sizeof *springs; i++) {
        struct spring f = {0};
        char first[4];
        spring_open(&f);
        WANT_CODE(heist_stream_set_read_deadline(f.s, heist_time() - 1), 0);
        WANT_CODE(springs[i](&f, NULL), -ETIMEDOUT);
        WANT_CODE(heist_stream_set_read_deadline(f.s, HEIST_FOREVER), 0);
        WANT_CODE(heist_stream_readexactly(f.s, first, 4, NULL), 0);
        WANT(memcmp(first, "abcd", 4) == 0);
        heist_stream_abort(f.s);
        heist_stream_unref(f.s);
    }
    return 0;
}
static void a_read_of_what_never_ends_keeps_its_deadline_and_has_taken_nothing(void **state) {
    (void)state;
    run_ok(late_springs, NULL);
}

static int sender_gives_way(void *arg, void **out) {
    struct spring f = {0};
    (void)arg, (void)out;
    f.meanwhile = take_turn;
    f.of = &f;
    spring_open(&f);
    WANT_CODE(heist_stream_write(f.s, much, MUCH), 0);
    heist_stream_close(f.s);
    WANT_CODE(heist_stream_wait_closed(f.s), 0);
    (void)heist_await(f.other, NULL);
    WANT_CODE(f.writes, MUCH);
    WANT(f.turn && f.calls_before_turn < MUCH / 2);
    heist_unref(f.other);
    heist_stream_unref(f.s);
    return 0;
}
static void what_sends_the_queue_gives_others_their_turn(void **state) {
    (void)state;
    assert_int_equal(run_on(sender_gives_way, NULL, 1), 0);
}

/* ---- sendfile ---- */

static int file_of_much(void) {
    FILE *f = tmpfile();
    if (!f || fwrite(much, 1, MUCH, f) != MUCH || fflush(f)) abort();
    int fd = dup(fileno(f));
    fclose(f);
    return fd;
}

static int send_much(void *arg, void **out) {
    struct spring *f = arg;
    (void)out;
    int fd = file_of_much();
    f->got = 99;
    f->code = heist_stream_sendfile(f->s, fd, 0, 0, &f->got);
    WANT(lseek(fd, 0, SEEK_CUR) == (off_t)f->got || f->writes == 0);
    close(fd);
    return f->code;
}

static int cancel_sendfile(void *arg, void **out) {
    heist_task *sender;
    (void)arg, (void)out;
    struct spring f = {0};
    spring_open(&f);
    WANT_CODE(heist_create_task(send_much, &f, NULL, &sender), 0);
    f.meanwhile = cancel_it;
    f.of = sender;
    (void)heist_await(sender, NULL);
    (void)heist_await(f.other, NULL);
    WANT_CODE(f.code, -ECANCELED);
    WANT_CODE(f.got, f.writes);
    WANT(f.got > 0 && f.got < MUCH);
    heist_unref(sender);
    heist_unref(f.other);
    heist_stream_abort(f.s);
    heist_stream_unref(f.s);
    return 0;
}
static void sendfile_can_be_cancelled_though_nothing_makes_it_wait_STRM_39(void **state) {
    (void)state;
    assert_int_equal(run_on(cancel_sendfile, NULL, 1), 0);
}

static int cancelled_before(void *arg, void **out) {
    struct spring *f = arg;
    (void)out;
    heist_cancel(heist_current_task());
    int fd = file_of_much();
    f->got = 99;
    f->code = heist_stream_sendfile(f->s, fd, 0, 0, &f->got);
    close(fd);
    return 0;
}
static int sendfile_says_nothing_went(void *arg, void **out) {
    heist_task *t;
    (void)arg, (void)out;
    struct spring f = {0};
    spring_open(&f);
    WANT_CODE(heist_create_task(cancelled_before, &f, NULL, &t), 0);
    (void)heist_await(t, NULL);
    WANT_CODE(f.code, -ECANCELED);
    WANT_CODE(f.got, 0);
    heist_unref(t);
    f.got = 99;
    WANT_CODE(heist_stream_sendfile(f.s, -1, 0, 0, &f.got), -EINVAL);
    WANT_CODE(f.got, 0);
    heist_stream_abort(f.s);
    heist_stream_unref(f.s);
    return 0;
}
static void sendfile_says_how_much_went_whatever_came_of_it_STRM_39(void **state) {
    (void)state;
    run_ok(sendfile_says_nothing_went, NULL);
}

/* ---- options that do not hold ---- */

static int serve_nobody(heist_stream *s, void *user) {
    (void)s, (void)user;
    return 0;
}

static int open_in_vain(void *arg, void **out) {
    heist_open_options o = HEIST_OPEN_OPTIONS_INIT;
    heist_stream_options bad = HEIST_STREAM_OPTIONS_INIT;
    heist_stream *s = NULL;
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof in;
    char port[8];
    (void)arg, (void)out;
    int l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (bind(l, (struct sockaddr *)&in, size) || listen(l, 1) || getsockname(l, (struct sockaddr *)&in, &size)) abort();
    snprintf(port, sizeof port, "%u", ntohs(in.sin_port));
    bad.limit = -1;
    o.stream = &bad;
    WANT_CODE(heist_open_connection("127.0.0.1", port, &o, &s), -EINVAL);
    WANT(accept(l, NULL, NULL) < 0); /* nobody came */
    close(l);
    heist_server_options so = HEIST_SERVER_OPTIONS_INIT;
    heist_server *server = NULL;
    so.stream = &bad;
    WANT_CODE(heist_start_server(serve_nobody, NULL, "127.0.0.1", "0", &so, &server), -EINVAL);
    bad.limit = 0;
    bad.low_water = 1 << 20; /* above the high one */
    WANT_CODE(heist_start_server(serve_nobody, NULL, "127.0.0.1", "0", &so, &server), -EINVAL);
    WANT(!server);
    return 0;
}
static void options_that_do_not_hold_are_refused_before_anything_is_done_STRM_13(void **state) {
    (void)state;
    run_ok(open_in_vain, NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        API_TEST(what_follows_a_passed_descriptor_is_read_at_once),
        API_TEST(what_follows_urgent_data_is_read_at_once),
        API_TEST(a_read_of_what_never_ends_gives_others_their_turn),
        API_TEST(a_read_of_what_never_ends_can_be_cancelled_and_has_taken_nothing),
        API_TEST(a_read_of_what_never_ends_keeps_its_deadline_and_has_taken_nothing),
        API_TEST(what_sends_the_queue_gives_others_their_turn),
        API_TEST(sendfile_can_be_cancelled_though_nothing_makes_it_wait_STRM_39),
        API_TEST(sendfile_says_how_much_went_whatever_came_of_it_STRM_39),
        API_TEST(options_that_do_not_hold_are_refused_before_anything_is_done_STRM_13),
    };
    return HARNESS_MAIN("stream_edges", tests);
}
