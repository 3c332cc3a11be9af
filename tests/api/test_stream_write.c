/* Streams, the writing side: the queue and its marks, order, the two ends of closing, errors that stay, deadlines, what
 * happens to unsent data when everything ends, other threads and contexts. */
#include "support/stream_pair.h"

#include <netinet/tcp.h>
#include <signal.h>
#include <sys/wait.h>

static char big[1 << 20];

static void fill_big(void) {
    for (size_t i = 0; i < sizeof big; i++) big[i] = (char)(i * 31 + i / 509);
}

/* A small socket buffer, so that little goes at once. */
static void narrow(struct pair *p) {
    int bytes = 4096, fd = -1;
    WANT_CODE(heist_stream_get_extra_info(p->s, HEIST_INFO_SOCKET, &fd, sizeof fd), 0);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
    setsockopt(p->fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
}

static void open_narrow(struct pair *p, const heist_stream_options *opts) {
    open_pair(p, opts);
    narrow(p);
}

/* Reads from the plain end until there is nothing more now: how much; -1: the end. */
static long slurp(int fd, char *buf, size_t size) {
    size_t got = 0;
    for (;;) {
        ssize_t n = read(fd, buf + got, size - got);
        if (n == 0) return got ? (long)got : -1;
        if (n < 0) return (long)got;
        got += (size_t)n;
        if (got == size) return (long)got;
    }
}

/* Reads exactly n bytes at the plain end, while tasks go on. */
static int slurp_all(int fd, char *buf, size_t n) {
    for (size_t got = 0; got < n;) {
        long m = slurp(fd, buf + got, n - got);
        if (m < 0) return -EPROTO;
        got += (size_t)m;
        if (got < n) {
            int err = heist_sleep(0.0002);
            if (err < 0) return err;
        }
    }
    return 0;
}

static char back[1 << 20];

/* The end at the plain end.  By a ring it may come a moment after the close (runtime.h). */
static void slurp_end(int fd) {
    long n;
    while ((n = slurp(fd, back, 1)) == 0) heist_sleep(0.001);
    WANT_CODE(n, -1);
}

/* ---- the queue ---- */

static int drain_one(void *s, void **out) {
    (void)out;
    return heist_stream_drain(s);
}

static int write_and_drain(void *arg, void **out) {
    (void)arg, (void)out;
    struct pair p;
    open_narrow(&p, NULL);
    WANT_CODE(heist_stream_write(p.s, "abc", 3), 0);
    WANT_CODE(heist_stream_get_write_buffer_size(p.s), 0); /* it went at once */
    WANT_CODE(heist_stream_drain(p.s), 0);
    WANT_CODE(heist_stream_write(p.s, big, sizeof big), 0); /* does not suspend, though nobody reads */
    size_t queued = heist_stream_get_write_buffer_size(p.s);
    WANT(queued > sizeof big / 2);
    heist_task *drain = NULL;
    int err = heist_create_task(drain_one, p.s, NULL, &drain);
    if (err < 0) return err;
    harness_stands(drain); /* before anybody reads: below the upper mark it would not wait */
    err = heist_sleep(0.002);
    WANT(!heist_future_done(drain));
    char three[3];
    WANT_CODE(slurp_all(p.fd, three, 3), 0);
    /* Down to a quarter of the mark and no further: then it returns. */
    size_t got = 0;
    while (!heist_future_done(drain) && got < sizeof big) {
        long n = slurp(p.fd, back + got, sizeof big - got < 2000 ? sizeof big - got : 2000);
        got += n > 0 ? (size_t)n : 0;
        if (heist_stream_get_write_buffer_size(p.s) > 65536) WANT(!heist_future_done(drain));
        heist_sleep(0);
    }
    WANT_CODE(heist_await(drain, NULL), 0);
    WANT(heist_stream_get_write_buffer_size(p.s) <= 16384);
    heist_unref(drain);
    WANT_CODE(slurp_all(p.fd, back + got, sizeof big - got), 0);
    WANT(memcmp(big, back, sizeof big) == 0);
    close_pair(&p);
    return err;
}
static void write_queues_and_drain_waits_between_the_marks_STRM_15(void **state) {
    (void)state;
    fill_big();
    run_ok(write_and_drain, NULL);
}

static int drain_several(void *arg, void **out) {
    (void)arg, (void)out;
    struct pair p;
    heist_task *t[4];
    open_narrow(&p, NULL);
    WANT_CODE(heist_stream_drain(p.s), 0); /* nothing pending */
    WANT_CODE(heist_stream_write(p.s, big, 300000), 0);
    for (int i = 0; i < 4; i++)
        if (heist_create_task(drain_one, p.s, NULL, &t[i]) < 0) abort();
    for (int i = 0; i < 4; i++) harness_stands(t[i]);
    heist_cancel(t[1]); /* one gives up; nobody else minds */
    WANT_CODE(slurp_all(p.fd, back, 300000), 0);
    for (int i = 0; i < 4; i++) {
        WANT_CODE(heist_await(t[i], NULL), i == 1 ? -ECANCELED : 0);
        heist_unref(t[i]);
    }
    WANT(memcmp(big, back, 300000) == 0);
    close_pair(&p);
    return 0;
}
static void several_drain_at_once_and_nothing_pending_does_not_wait_STRM_16(void **state) {
    (void)state;
    fill_big();
    run_ok(drain_several, NULL);
}

static int write_lines(void *arg, void **out) {
    (void)arg, (void)out;
    struct pair p;
    static struct iovec iov[3000];
    size_t at = 0;
    for (int i = 0; i < 3000; i++) { /* more than the system takes in one call, some of them empty */
        size_t n = (size_t)(i % 7) * 5;
        iov[i] = (struct iovec){big + at, n};
        at += n;
    }
    open_pair(&p, NULL);
    WANT_CODE(heist_stream_writelines(p.s, iov, 3000), 0);
    WANT_CODE(heist_stream_writelines(p.s, iov, 0), 0);
    WANT_CODE(slurp_all(p.fd, back, at), 0);
    WANT(memcmp(big, back, at) == 0);
    close_pair(&p);
    open_narrow(&p, NULL); /* and when little goes at once */
    WANT_CODE(heist_stream_writelines(p.s, iov, 3000), 0);
    WANT_CODE(heist_stream_writelines(p.s, iov, 3000), 0);
    WANT_CODE(slurp_all(p.fd, back, 2 * at), 0);
    WANT(memcmp(big, back, at) == 0 && memcmp(big, back + at, at) == 0);
    struct iovec bad = {NULL, 1};
    WANT_CODE(heist_stream_writelines(p.s, &bad, 1), -EINVAL);
    WANT_CODE(heist_stream_writelines(p.s, iov, -1), -EINVAL);
    close_pair(&p);
    return 0;
}
static void writelines_keeps_the_order_of_many_buffers_STRM_17(void **state) {
    (void)state;
    fill_big();
    run_ok(write_lines, NULL);
}

static int write_mixed(void *arg, void **out) {
    (void)arg, (void)out;
    struct pair p;
    open_narrow(&p, NULL);
    size_t at = 0;
    for (unsigned i = 0; at < 400000; i++) { /* tiny ones, which share a block, and larger ones */
        size_t n = i % 11 ? i % 97 : 3000 + i % 5000;
        if (n > 400000 - at) n = 400000 - at;
        WANT_CODE(heist_stream_write(p.s, big + at, n), 0);
        at += n;
    }
    WANT_CODE(slurp_all(p.fd, back, at), 0);
    WANT(memcmp(big, back, at) == 0);
    close_pair(&p);
    return 0;
}
static void small_and_large_writes_come_in_their_order(void **state) {
    (void)state;
    fill_big();
    run_ok(write_mixed, NULL);
}

/* ---- the ends ---- */

static int wait_closed_one(void *s, void **out) {
    (void)out;
    return heist_stream_wait_closed(s);
}

static int close_flushes(void *arg, void **out) {
    (void)arg, (void)out;
    struct pair p;
    char buf[8];
    heist_task *waiter = NULL;
    open_narrow(&p, NULL);
    WANT_CODE(heist_stream_is_closing(p.s), 0);
    WANT_CODE(heist_stream_write(p.s, big, 500000), 0);
    heist_stream_close(p.s);
    heist_stream_close(p.s); /* idempotent */
    WANT_CODE(heist_stream_is_closing(p.s), 1);
    WANT_CODE(heist_stream_write(p.s, "x", 1), HEIST_ECLOSED);
    WANT_CODE(heist_stream_read(p.s, buf, sizeof buf), HEIST_ECLOSED);
    if (heist_create_task(wait_closed_one, p.s, NULL, &waiter) < 0) abort();
    harness_stands(waiter);
    WANT(!heist_future_done(waiter));
    WANT_CODE(slurp_all(p.fd, back, 500000), 0);
    WANT(memcmp(big, back, 500000) == 0);
    WANT_CODE(heist_await(waiter, NULL), 0);
    WANT_CODE(heist_stream_wait_closed(p.s), 0);
    slurp_end(p.fd);
    WANT_CODE(heist_stream_drain(p.s), HEIST_ECLOSED);
    heist_unref(waiter);
    close_pair(&p);
    return 0;
}
static void close_sends_what_is_queued_and_wait_closed_waits_STRM_18(void **state) {
    (void)state;
    fill_big();
    run_ok(close_flushes, NULL);
}

static int abort_drops(void *arg, void **out) {
    (void)arg, (void)out;
    struct pair p;
    heist_task *t = NULL;
    open_narrow(&p, NULL);
    WANT_CODE(heist_stream_write(p.s, big, 500000), 0);
    if (heist_create_task(drain_one, p.s, NULL, &t) < 0) abort();
    harness_stands(t);
    heist_stream_abort(p.s);
    WANT_CODE(heist_stream_wait_closed(p.s), 0);
    WANT_CODE(heist_await(t, NULL), HEIST_ECLOSED);
    heist_unref(t);
    WANT_CODE(heist_stream_get_write_buffer_size(p.s), 0);
    long got = slurp(p.fd, back, sizeof back); /* what the socket had taken, then the end */
    WANT(got > 0 && got < 500000 && memcmp(big, back, (size_t)got) == 0);
    slurp_end(p.fd);
    heist_stream_close(p.s);
    close_pair(&p);
    return 0;
}
static void abort_drops_what_is_queued_STRM_19(void **state) {
    (void)state;
    fill_big();
    run_ok(abort_drops, NULL);
}

static int half_close(void *arg, void **out) {
    (void)arg, (void)out;
    struct pair p;
    char buf[16];
    open_narrow(&p, NULL);
    WANT_CODE(heist_stream_can_write_eof(p.s), 1);
    WANT_CODE(heist_stream_write(p.s, big, 200000), 0);
    WANT_CODE(heist_stream_write_eof(p.s), 0);
    WANT_CODE(heist_stream_write_eof(p.s), 0);
    WANT_CODE(heist_stream_write(p.s, "x", 1), HEIST_EINVALSTATE);
    WANT_CODE(slurp_all(p.fd, back, 200000), 0);
    WANT(memcmp(big, back, 200000) == 0);
    slurp_end(p.fd);
    put(p.fd, "still here");
    WANT_CODE(heist_stream_read(p.s, buf, sizeof buf), 10);
    close_pair(&p);
    open_pair(&p, NULL); /* and with nothing queued */
    WANT_CODE(heist_stream_write_eof(p.s), 0);
    slurp_end(p.fd);
    close_pair(&p);
    return 0;
}
static void write_eof_ends_our_side_after_the_queue_STRM_20(void **state) {
    (void)state;
    fill_big();
    run_ok(half_close, NULL);
}

static int extra_info(void *arg, void **out) {
    (void)arg, (void)out;
    struct pair p;
    heist_addr peer, own, plain = {.length = sizeof plain.storage};
    int fd = -7, unknown = 1234;
    open_tcp(&p, NULL);
    WANT_CODE(heist_stream_get_extra_info(p.s, HEIST_INFO_SOCKET, &fd, sizeof fd), 0);
    WANT(fd >= 0 && fcntl(fd, F_GETFD) == FD_CLOEXEC);
    WANT_CODE(heist_stream_get_extra_info(p.s, HEIST_INFO_PEERNAME, &peer, sizeof peer), 0);
    WANT_CODE(heist_stream_get_extra_info(p.s, HEIST_INFO_SOCKNAME, &own, sizeof own), 0);
    getsockname(p.fd, (struct sockaddr *)&plain.storage, &plain.length);
    WANT(peer.length == plain.length && memcmp(&peer.storage, &plain.storage, plain.length) == 0);
    getpeername(p.fd, (struct sockaddr *)&plain.storage, &plain.length);
    WANT(own.length == plain.length && memcmp(&own.storage, &plain.storage, plain.length) == 0);
    WANT_CODE(heist_stream_get_extra_info(p.s, 4711, &unknown, sizeof unknown), -ENOENT);
    WANT(unknown == 1234); /* the default stays */
    WANT_CODE(heist_stream_get_extra_info(p.s, HEIST_INFO_SOCKET, &fd, 1), -EINVAL);
    heist_stream_close(p.s);
    WANT_CODE(heist_stream_get_extra_info(p.s, HEIST_INFO_SOCKET, &fd, sizeof fd), HEIST_ECLOSED);
    close_pair(&p);
    return 0;
}
static void extra_info_gives_socket_and_addresses_STRM_21(void **state) {
    (void)state;
    run_ok(extra_info, NULL);
}

static struct record reports = RECORD_INIT;
static int drop_it(void *arg, void **out) {
    (void)arg, (void)out;
    struct pair p;
    heist_loop *loop;
    open_narrow(&p, NULL);
    if (heist_get_running_loop(&loop) < 0) abort();
    heist_stream_unref(p.s); /* not closed */
    slurp_end(p.fd);
    close(p.fd);
    open_narrow(&p, NULL); /* closed: nothing to report, and what is queued still goes */
    WANT_CODE(heist_stream_write(p.s, big, 100000), 0);
    heist_stream_close(p.s);
    heist_stream_unref(p.s);
    WANT_CODE(slurp_all(p.fd, back, 100000), 0);
    WANT(memcmp(big, back, 100000) == 0);
    close(p.fd);
    return heist_sleep(0.001); /* the report is posted */
}
static void note_report(heist_loop *loop, const heist_report *report, void *user) {
    (void)loop;
    record_add(user, "%s", report->message);
}
static int on_one_loop(heist_coro_fn fn) {
    heist_loop *loop = harness_real_loop();
    record_clear(&reports);
    record_clear(&wrongs);
    heist_loop_set_exception_handler(loop, note_report, &reports);
    int err = heist_loop_run_coroutine(loop, fn, NULL, NULL, NULL);
    harness_loop_end(loop);
    assert_string_equal(record_text(&wrongs), "");
    return err;
}
static void a_stream_dropped_without_close_is_reported_and_closed_STRM_22(void **state) {
    (void)state;
    fill_big();
    assert_int_equal(on_one_loop(drop_it), 0);
    assert_string_equal(record_text(&reports), "a stream was dropped without close");
}

/* ---- errors ---- */

static int peer_is_gone(void *arg, void **out) {
    (void)arg, (void)out;
    struct pair p;
    heist_task *t = NULL;
    open_narrow(&p, NULL);
    WANT_CODE(heist_stream_write(p.s, big, 500000), 0);
    if (heist_create_task(drain_one, p.s, NULL, &t) < 0) abort();
    harness_stands(t);
    close(p.fd);
    p.fd = -1;
    int err = heist_await(t, NULL);
    WANT(err == -EPIPE || err == -ECONNRESET);
    heist_unref(t);
    WANT_CODE(heist_stream_write(p.s, "x", 1), err); /* it stays */
    WANT_CODE(heist_stream_drain(p.s), err);
    WANT_CODE(heist_stream_write_eof(p.s), err);
    heist_stream_close(p.s);
    WANT_CODE(heist_stream_wait_closed(p.s), err); /* not everything could be sent */
    close_pair(&p);
    int fd[2]; /* a pipe without a reader: no signal */
    if (pipe2(fd, O_CLOEXEC) || over_fd(fd[1], NULL, &p.s) < 0) abort();
    close(fd[0]);
    p.fd = -1;
    WANT_CODE(heist_stream_can_write_eof(p.s), 0);
    WANT_CODE(heist_stream_write_eof(p.s), -ENOTSUP);
    WANT_CODE(heist_stream_write(p.s, "x", 1), -EPIPE);
    WANT_CODE(heist_stream_drain(p.s), -EPIPE);
    close_pair(&p);
    return 0;
}
static void what_breaks_writing_stays_and_raises_no_signal(void **state) {
    (void)state;
    fill_big();
    run_ok(peer_is_gone, NULL);
}

static int through_pipes(void *arg, void **out) {
    (void)arg, (void)out;
    int fd[2];
    heist_stream *in, *to;
    char *line;
    if (pipe2(fd, O_CLOEXEC) || over_fd(fd[0], NULL, &in) < 0 || over_fd(fd[1], NULL, &to) < 0) abort();
    WANT_CODE(heist_stream_write(to, big, 300000), 0);
    WANT_CODE(heist_stream_readexactly(in, back, 300000, NULL), 0);
    WANT(memcmp(big, back, 300000) == 0);
    WANT_CODE(heist_stream_write(to, "last\n", 5), 0);
    heist_stream_close(to);
    WANT_CODE(heist_stream_readline(in, &line), 5);
    WANT_CODE(heist_stream_readline(in, &line), 0);
    heist_addr addr;
    WANT_CODE(heist_stream_get_extra_info(in, HEIST_INFO_PEERNAME, &addr, sizeof addr), -ENOENT);
    heist_stream_close(in);
    heist_stream_unref(in);
    heist_stream_unref(to);
    return 0;
}
static void pipes_are_streams_too(void **state) {
    (void)state;
    fill_big();
    run_ok(through_pipes, NULL);
}

/* ---- unsent data when everything ends ---- */

static int leave_unsent(void *arg, void **out) {
    struct pair *p = arg;
    (void)out;
    open_narrow(p, NULL);
    WANT_CODE(heist_stream_write(p->s, big, 500000), 0);
    heist_stream_close(p->s);
    heist_stream_unref(p->s);
    return 0; /* nobody reads: the flusher is cancelled by the close of the runtime */
}
static int leave_unclosed(void *arg, void **out) {
    struct pair *p = arg;
    (void)out;
    open_narrow(p, NULL);
    WANT_CODE(heist_stream_write(p->s, big, 500000), 0);
    return 0; /* the stream outlives its runtime */
}
static void unsent_data_ends_with_its_runtime(void **state) {
    (void)state;
    fill_big();
    struct pair p;
    run_ok(leave_unsent, &p);
    close(p.fd);
    run_ok(leave_unclosed, &p);
    assert_int_equal(heist_stream_write(p.s, "x", 1), -ECANCELED);
    assert_int_equal(heist_stream_drain(p.s), -ECANCELED);
    heist_stream_close(p.s);
    assert_int_equal(heist_stream_wait_closed(p.s), -ECANCELED);
    heist_stream_unref(p.s);
    close(p.fd);
}

static int cancel_everybody(void *arg, void **out) {
    (void)arg, (void)out;
    struct pair p;
    heist_task **all;
    heist_loop *loop;
    size_t n;
    open_narrow(&p, NULL);
    WANT_CODE(heist_stream_write(p.s, big, 500000), 0);
    heist_sleep(0.001);
    if (heist_get_running_loop(&loop) < 0 || heist_all_tasks(loop, &all, &n) < 0) abort();
    for (size_t i = 0; i < n; i++)
        if (all[i] != heist_current_task()) heist_cancel(all[i]);
    heist_task_list_free(all, n);
    WANT_CODE(slurp_all(p.fd, back, 500000), 0); /* a helper of the library goes on */
    WANT(memcmp(big, back, 500000) == 0);
    close_pair(&p);
    return 0;
}
static void cancelling_all_tasks_does_not_lose_what_is_queued(void **state) {
    (void)state;
    fill_big();
    assert_int_equal(on_one_loop(cancel_everybody), 0);
}

/* ---- deadlines ---- */

static int set_deadline_soon(void *arg, void **out) {
    (void)out;
    int err = heist_sleep(0.005);
    heist_stream_set_read_deadline(arg, heist_time() - 1);
    heist_stream_set_write_deadline(arg, heist_time() - 1);
    return err;
}
static int deadlines(void *arg, void **out) {
    (void)arg, (void)out;
    struct pair p;
    char buf[16], *line;
    heist_task *setter;
    open_narrow(&p, NULL);
    put(p.fd, "half a li");
    WANT_CODE(heist_stream_set_read_deadline(p.s, heist_time() + 0.002), 0);
    WANT_CODE(heist_stream_readline(p.s, &line), -ETIMEDOUT);
    WANT_CODE(heist_stream_readexactly(p.s, buf, 10, NULL), -ETIMEDOUT);
    WANT_CODE(heist_stream_buffered(p.s), 9); /* nothing was lost */
    heist_stream_set_read_deadline(p.s, HEIST_FOREVER);
    put(p.fd, "ne\n");
    WANT_CODE(heist_stream_readline(p.s, &line), 12);
    WANT(strcmp(line, "half a line\n") == 0);
    WANT_CODE(heist_create_task(set_deadline_soon, p.s, NULL, &setter), 0);
    WANT_CODE(heist_stream_read(p.s, buf, sizeof buf), -ETIMEDOUT); /* set while it waits */
    WANT_CODE(heist_await(setter, NULL), 0);                        /* it has set both */
    heist_unref(setter);
    heist_stream_set_write_deadline(p.s, HEIST_FOREVER);
    WANT_CODE(heist_stream_write(p.s, big, 500000), 0);
    WANT_CODE(heist_create_task(set_deadline_soon, p.s, NULL, &setter), 0);
    WANT_CODE(heist_stream_drain(p.s), -ETIMEDOUT);
    WANT_CODE(heist_await(setter, NULL), 0);
    heist_unref(setter);
    WANT_CODE(heist_stream_set_write_deadline(p.s, HEIST_FOREVER), 0);
    WANT_CODE(slurp_all(p.fd, back, 300000), 0); /* what is queued goes on */
    WANT_CODE(heist_stream_set_write_deadline(p.s, heist_time() + 0.005), 0);
    heist_stream_close(p.s); /* nobody reads the rest: it gives up */
    WANT_CODE(heist_stream_wait_closed(p.s), -ETIMEDOUT);
    WANT_CODE(heist_stream_set_read_deadline(p.s, __builtin_nan("")), -EINVAL);
    close_pair(&p);
    return 0;
}
static void deadlines_end_waits_and_lose_nothing(void **state) {
    (void)state;
    fill_big();
    run_ok(deadlines, NULL);
}

static int close_under_deadline(void *arg, void **out) {
    (void)arg, (void)out;
    struct pair p;
    open_narrow(&p, NULL);
    WANT_CODE(heist_stream_write(p.s, big, 500000), 0);
    heist_stream_close(p.s);
    heist_sleep(0.002);
    heist_stream_set_write_deadline(p.s, heist_time() + 0.002); /* after the close began */
    WANT_CODE(heist_stream_wait_closed(p.s), -ETIMEDOUT);
    close_pair(&p);
    return 0;
}
static void a_deadline_set_after_close_ends_it(void **state) {
    (void)state;
    fill_big();
    run_ok(close_under_deadline, NULL);
}

/* ---- cancelling and closing under a reader ---- */

static int read_partly(void *s, void **out) {
    (void)out;
    static char buf[6000];
    return heist_stream_readexactly(s, buf, sizeof buf, NULL);
}
static int line_of(void *s, void **out) {
    char *line;
    (void)out;
    return (int)heist_stream_readline(s, &line);
}
static int cancelled_reads(void *arg, void **out) {
    (void)arg, (void)out;
    struct pair p;
    heist_task *t;
    char buf[64];
    open_pair(&p, NULL);
    put(p.fd, "0123456789");
    heist_coro_fn way[2] = {read_partly, line_of};
    for (int i = 0; i < 6; i++) {
        if (heist_create_task(way[i % 2], p.s, NULL, &t) < 0) abort();
        heist_sleep(i < 2 ? 0 : 0.001);
        heist_cancel(t);
        WANT_CODE(heist_await(t, NULL), -ECANCELED);
        heist_unref(t);
    }
    WANT_CODE(heist_stream_read(p.s, buf, sizeof buf), 10);
    WANT(memcmp(buf, "0123456789", 10) == 0);
    if (heist_create_task(line_of, p.s, NULL, &t) < 0) abort();
    harness_stands(t);
    WANT_CODE(heist_stream_read(p.s, buf, sizeof buf), -EBUSY);
    WANT_CODE(heist_stream_buffered(p.s), 0);
    heist_stream_close(p.s);
    WANT_CODE(heist_await(t, NULL), HEIST_ECLOSED);
    heist_unref(t);
    close_pair(&p);
    open_narrow(&p, NULL); /* a close that has to wait lets the reader go at once */
    if (heist_create_task(line_of, p.s, NULL, &t) < 0) abort();
    WANT_CODE(heist_stream_write(p.s, big, 500000), 0);
    harness_stands(t);
    heist_stream_close(p.s);
    WANT_CODE(heist_await(t, NULL), HEIST_ECLOSED);
    heist_unref(t);
    WANT_CODE(slurp_all(p.fd, back, 500000), 0);
    WANT_CODE(heist_stream_wait_closed(p.s), 0);
    close_pair(&p);
    return 0;
}
static void a_read_that_is_cancelled_takes_nothing(void **state) {
    (void)state;
    fill_big();
    run_ok(cancelled_reads, NULL);
}

/* ---- other contexts ---- */

static int in_callback(void *arg) {
    heist_stream *s = arg;
    char buf[4], *line;
    size_t n;
    WANT_CODE(heist_stream_read(s, buf, sizeof buf), HEIST_ENOTINCORO);
    WANT_CODE(heist_stream_readline(s, &line), HEIST_ENOTINCORO);
    WANT_CODE(heist_stream_readexactly(s, buf, 1, &n), HEIST_ENOTINCORO);
    WANT_CODE(heist_stream_drain(s), HEIST_ENOTINCORO);
    WANT_CODE(heist_stream_wait_closed(s), HEIST_ENOTINCORO);
    WANT_CODE(heist_stream_sendfile(s, 0, 0, 1, NULL), HEIST_ENOTINCORO);
    WANT_CODE(heist_stream_write(s, big, 500000), 0); /* never suspends */
    WANT_CODE(heist_stream_write_eof(s), 0);
    heist_stream_close(s);
    return 0;
}
static void *in_thread(void *arg) {
    heist_stream *s = arg;
    char buf[4];
    WANT_CODE(heist_stream_read(s, buf, sizeof buf), HEIST_ENOTINCORO);
    WANT_CODE(heist_stream_write(s, big, 400000), 0); /* the runtime that made it sends the rest */
    WANT_CODE(heist_stream_drain(s), 0);              /* a plain thread waits as a task does */
    heist_stream_close(s);
    WANT_CODE(heist_stream_wait_closed(s), 0);
    return NULL;
}
static int other_contexts(void *arg, void **out) {
    (void)arg, (void)out;
    struct pair p;
    heist_loop *loop;
    open_narrow(&p, NULL);
    if (heist_get_running_loop(&loop) < 0) abort();
    WANT_CODE(heist_loop_call_soon(loop, in_callback, p.s, NULL, NULL), 0);
    WANT_CODE(slurp_all(p.fd, back, 500000), 0);
    WANT_CODE(heist_stream_wait_closed(p.s), 0);
    close_pair(&p);
    open_narrow(&p, NULL);
    pthread_t thread = harness_thread(in_thread, p.s);
    WANT_CODE(slurp_all(p.fd, back, 400000), 0);
    WANT(memcmp(big, back, 400000) == 0);
    WANT_CODE(heist_stream_wait_closed(p.s), 0);
    harness_join(thread);
    close_pair(&p);
    return 0;
}
static void callbacks_and_threads_write_and_never_suspend(void **state) {
    (void)state;
    fill_big();
    run_ok(other_contexts, NULL);
}

static void a_stream_of_no_loop_takes_what_goes_at_once(void **state) {
    (void)state;
    struct pair p;
    record_clear(&wrongs);
    open_narrow(&p, NULL);
    assert_int_equal(heist_stream_write(p.s, "abc", 3), 0);
    assert_int_equal(slurp(p.fd, back, sizeof back), 3);
    int err = 0;
    for (int i = 0; i < 10000 && err == 0; i++) err = heist_stream_write(p.s, big, 1000);
    assert_true(err == HEIST_ENOLOOP);
    close_pair(&p);
    assert_string_equal(record_text(&wrongs), "");
}

static void forked_children_leave_streams_alone(void **state) {
    (void)state;
    struct pair p;
    int answer[2];
    assert_int_equal(pipe2(answer, O_CLOEXEC), 0);
    open_pair(&p, NULL);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        char buf[1];
        int ok = heist_stream_write(p.s, "x", 1) == HEIST_EFORKED && heist_stream_read(p.s, buf, 1) == HEIST_EFORKED &&
                 heist_stream_drain(p.s) == HEIST_EFORKED && heist_stream_is_closing(p.s) == HEIST_EFORKED;
        heist_stream_close(p.s);
        heist_stream_abort(p.s);
        heist_stream_unref(p.s);
        (void)!write(answer[1], ok ? "y" : "n", 1);
        _exit(0); /* without unwinding: memcheck may have its own view of the status */
    }
    char said = 0;
    close(answer[1]);
    ssize_t n = read(answer[0], &said, 1);
    close(answer[0]);
    assert_true(child > 0 && waitpid(child, NULL, 0) == child);
    assert_true(n == 1 && said == 'y');
    assert_int_equal(heist_stream_write(p.s, "x", 1), 0);
    assert_int_equal(slurp(p.fd, back, sizeof back), 1);
    close_pair(&p);
}

/* ---- memory ---- */

static int use_stream(void *arg, void **out) {
    (void)out;
    struct pair *p = arg;
    int fd[2];
    char *line;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd)) abort();
    unblock(fd[1]);
    int err = over_fd(fd[0], NULL, &p->s);
    if (err < 0) {
        close(fd[0]);
        close(fd[1]);
        return err;
    }
    p->fd = fd[1];
    narrow(p);
    if (write(p->fd, "a line\n", 7) != 7) abort();
    ptrdiff_t n = heist_stream_readline(p->s, &line);
    if (n == -ENOMEM) { /* once more: nothing was lost */
        n = heist_stream_readline(p->s, &line);
        if (n == 7) err = -ENOMEM;
    }
    if (n == 7 && strcmp(line, "a line\n") != 0) n = -EPROTO;
    int read_err = err;
    err = heist_stream_write(p->s, big, 200000);
    size_t queued = heist_stream_get_write_buffer_size(p->s);
    if (err < 0 && queued) n = -EPROTO;
    if (err == 0) err = slurp_all(p->fd, back, 200000);
    if (err == 0 && memcmp(big, back, 200000) != 0) n = -EPROTO;
    heist_stream_close(p->s);
    heist_stream_unref(p->s);
    close(p->fd);
    return n < 0 ? (int)n : err ? err : read_err;
}
static void without_memory_a_call_fails_and_nothing_is_left(void **state) {
    (void)state;
    fill_big();
    for (int all_later = 0; all_later < 2; all_later++) {
        for (long n = 1;; n++) {
            long blocks = harness_blocks();
            struct pair p;
            heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
            opts.workers = harness_workers();
            record_clear(&wrongs);
            harness_allocations();
            harness_fail_allocation(n, all_later);
            int err = heist_run(use_stream, &p, &opts, NULL);
            harness_fail_allocation(0, false);
            long asked = harness_allocations();
            assert_true(err == 0 || err == -ENOMEM);
            assert_int_equal(harness_blocks(), blocks);
            if (asked < n) break;
            assert_true(n < 500);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        API_TEST(write_queues_and_drain_waits_between_the_marks_STRM_15),
        API_TEST(several_drain_at_once_and_nothing_pending_does_not_wait_STRM_16),
        API_TEST(writelines_keeps_the_order_of_many_buffers_STRM_17),
        API_TEST(small_and_large_writes_come_in_their_order),
        API_TEST(close_sends_what_is_queued_and_wait_closed_waits_STRM_18),
        API_TEST(abort_drops_what_is_queued_STRM_19),
        API_TEST(write_eof_ends_our_side_after_the_queue_STRM_20),
        API_TEST(extra_info_gives_socket_and_addresses_STRM_21),
        API_TEST(a_stream_dropped_without_close_is_reported_and_closed_STRM_22),
        API_TEST(what_breaks_writing_stays_and_raises_no_signal),
        API_TEST(pipes_are_streams_too),
        API_TEST(unsent_data_ends_with_its_runtime),
        API_TEST(cancelling_all_tasks_does_not_lose_what_is_queued),
        API_TEST(deadlines_end_waits_and_lose_nothing),
        API_TEST(a_deadline_set_after_close_ends_it),
        API_TEST(a_read_that_is_cancelled_takes_nothing),
        API_TEST(callbacks_and_threads_write_and_never_suspend),
        API_TEST(a_stream_of_no_loop_takes_what_goes_at_once),
        API_TEST(forked_children_leave_streams_alone),
        API_TEST(without_memory_a_call_fails_and_nothing_is_left),
    };
    return HARNESS_MAIN("stream_write", tests);
}
