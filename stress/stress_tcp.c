/* stress/stress_tcp.c: streams under everything that happens to them.
 *
 * Law: of each writer's records every one that comes is whole, is the right one and comes in its turn; on a side that
 * was ended in order all of them come, and then the end; a read that timed out or was cancelled took nothing; what was
 * unsent when a stream was aborted, or its runtime closed, is gone without a trace: no block, no descriptor, no task.
 * A link is two streams over TCP, a Unix socket or a socket pair with buffers of a random size.  On each side up to
 * four writers at once (tasks with drain, tasks without, callbacks, a plain thread) send records of their own, by write
 * and writelines, now and then from a file; one reader takes them by one of three ways, with deadlines of its own
 * and set by others, and is cancelled and replaced.  A side ends in order (write_eof, read to the end, close), by a
 * close with a short deadline, by an abort, by a reset, or by the close of the runtime.
 * Threads: the workers of one runtime, and the plain writers.
 * Invariant: a link is freed by its body, after the tasks, callbacks and threads that know it have ended. */
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#define LINKS 64
#define WRITERS 4
#define HEAD 18 /* two figures for the writer, eight for the record's number, eight for the length of the rest */
#define LONGEST 20000

enum ending { IN_ORDER, HASTY_CLOSE, ABORT, RESET, ENDINGS };
enum way { BY_COUNT, BY_LINE, RAW, WAYS };
enum kind { DRAINS, RUSHES, CALLBACK, THREAD, KINDS };

struct side;

struct writer {
    struct side *side;
    enum kind kind;
    int number;
    uint32_t records, next; /* to send; sent so far, by the writer, read after its end */
    struct stress_rng rng;
    heist_task *task;
    heist_future *done; /* of a callback or thread */
    pthread_t thread;
};

struct side {
    struct link *link;
    heist_stream *stream;
    enum ending ending;
    enum way way;
    int slot;
    int writers;
    struct writer writer[WRITERS];
    struct stress_rng rng, read_rng;
    int file; /* records for sendfile: a scratch file, or -1 */
    /* the reader's, which may be several tasks one after the other */
    uint32_t got[WRITERS];
    char *bytes; /* RAW: what is not a whole record yet */
    size_t have;
    bool at_end;
    int end;              /* why the reader stopped */
    _Atomic(bool) broken; /* ended otherwise than in order */
};

struct link {
    uint64_t id;
    struct stress_rng rng;
    struct side side[2];
};

static heist_runtime *runtime;
static heist_addr address;
static _Atomic(bool) closing;
static _Atomic(uint64_t) in_order, broken, records_in, bytes_in, cancels, timeouts, files;
static _Atomic(int64_t) open_links;

static char byte_at(uint64_t id, int writer, uint32_t record, size_t place) {
    uint64_t x = id * 131 + (uint64_t)writer * 7919 + record * 2654435761u + place * 40503u;
    return (char)('!' + (x >> 7) % 90); /* never a line's end */
}

/* Head, payload, line's end: its length. */
static size_t make_record(const struct writer *w, char *buf, size_t payload) {
    uint64_t id = w->side->link->id;
    char head[HEAD + 1];
    snprintf(head, sizeof head, "%02d%08x%08x", w->number, w->next, (unsigned)payload + 1);
    memcpy(buf, head, HEAD);
    for (size_t i = 0; i < payload; i++) buf[HEAD + i] = byte_at(id, w->number, w->next, i);
    buf[HEAD + payload] = '\n';
    return HEAD + payload + 1;
}

static bool is_end(int err) {
    return err == HEIST_ECLOSED || err == -EPIPE || err == -ECONNRESET || err == -ETIMEDOUT || err == -ECANCELED ||
           err == -ENOTCONN;
}

/* ---- writing ---- */

/* One record, whole or not at all.  A sendfile may be cut by its end, which is the stream's. */
static int send_record(struct writer *w, char *buf) {
    struct side *s = w->side;
    size_t payload = (size_t)stress_below(&w->rng, stress_chance(&w->rng, 90) ? 200 : LONGEST);
    size_t n = make_record(w, buf, payload);
    int err;
    if (stress_chance(&w->rng, 30)) { /* in pieces */
        struct iovec iov[4];
        size_t at = 0;
        for (int i = 0; i < 4; i++) {
            size_t part = i == 3 ? n - at : (size_t)stress_below(&w->rng, n - at + 1);
            iov[i] = (struct iovec){buf + at, part};
            at += part;
        }
        err = heist_stream_writelines(s->stream, iov, 4);
    } else {
        err = heist_stream_write(s->stream, buf, n);
    }
    if (err == 0) w->next++;
    if (err < 0)
        stress_check(is_end(err), "writer %d of link %" PRIu64 " met %s", w->number, s->link->id,
                     heist_error_name(err));
    stress_progress(1);
    return err;
}

/* The only writer of a side now and then sends a file of records. */
static int send_file(struct writer *w, char *buf) {
    int file = w->side->file;
    size_t total = 0, sent = 0;
    uint32_t before = w->next;
    if (ftruncate(file, 0)) stress_die("a scratch file: %s", strerror(errno));
    for (int i = 0; i < 20 && w->next < w->records; i++) {
        size_t n = make_record(w, buf, (size_t)stress_below(&w->rng, LONGEST));
        if (pwrite(file, buf, n, (off_t)total) != (ssize_t)n) stress_die("a scratch file: %s", strerror(errno));
        total += n;
        w->next++;
    }
    int err = heist_uncancellable_begin(); /* a part of a record cannot be begun anew */
    if (err == 0) err = heist_stream_sendfile(w->side->stream, file, 0, total, &sent);
    heist_uncancellable_end();
    stress_check(sent <= total && (err < 0 || sent == total), "a sendfile of %zu bytes sent %zu and answered %s", total,
                 sent, heist_error_name(err));
    if (err < 0) {
        stress_check(is_end(err), "a sendfile met %s", heist_error_name(err));
        if (sent == 0) w->next = before;
        s_set(&w->side->broken, true); /* a cancelled one, which had sent a part */
        heist_stream_abort(w->side->stream);
    }
    s_add(&files, 1);
    return err;
}

static int task_writer(void *arg, void **out) {
    (void)out;
    struct writer *w = arg;
    char *buf = stress_alloc(HEAD + LONGEST + 1);
    int err = 0;
    while (w->next < w->records && err == 0) {
        if (w->side->file >= 0 && stress_chance(&w->rng, 5)) err = send_file(w, buf);
        else err = send_record(w, buf);
        if (err == 0 && w->kind == DRAINS) {
            err = heist_stream_drain(w->side->stream);
            if (err == -ETIMEDOUT) {
                s_add(&timeouts, 1);
                err = 0; /* what is queued goes on */
            }
        } else if (err == 0 && stress_chance(&w->rng, 10)) {
            err = heist_sleep((double)stress_below(&w->rng, 1000) * 1e-6);
        }
    }
    free(buf);
    if (err < 0) stress_check(is_end(err), "a writer met %s", heist_error_name(err));
    return 0;
}

static int callback_writer(void *arg) {
    struct writer *w = arg;
    char *buf = stress_alloc(HEAD + LONGEST + 1);
    int err = 0;
    for (int i = 0; i < 8 && w->next < w->records && err == 0; i++) err = send_record(w, buf);
    free(buf);
    heist_loop *loop;
    if (err == 0 && w->next < w->records && heist_get_running_loop(&loop) == 0 &&
        heist_loop_call_later(loop, (double)stress_below(&w->rng, 500) * 1e-6, callback_writer, w, NULL, NULL) == 0)
        return 0;
    heist_future_set_result(w->done, NULL, NULL);
    return 0;
}

static void *thread_writer(void *arg) {
    struct writer *w = arg;
    char *buf = stress_alloc(HEAD + LONGEST + 1);
    int err = 0;
    while (w->next < w->records && err == 0) {
        err = send_record(w, buf);
        if (err == 0 && stress_chance(&w->rng, 50)) {
            err = heist_stream_drain(w->side->stream);
            if (err == -ETIMEDOUT) err = 0; /* if it was the stream's, the next write says so */
        }
        if (stress_chance(&w->rng, 20)) stress_pause(&w->rng, 0.0002);
    }
    free(buf);
    heist_future_set_result(w->done, NULL, NULL);
    return NULL;
}

static int start_writer(struct writer *w) {
    int err = 0;
    heist_loop *loop;
    switch (w->kind) {
        case CALLBACK:
            err = heist_future_new(NULL, &w->done);
            if (err == 0) err = heist_get_running_loop(&loop);
            if (err == 0) err = heist_loop_call_soon(loop, callback_writer, w, NULL, NULL);
            break;
        case THREAD:
            err = heist_future_new(NULL, &w->done);
            if (err == 0) stress_thread(&w->thread, thread_writer, w);
            break;
        default: err = heist_create_task(task_writer, w, NULL, &w->task); break;
    }
    if (err < 0) {
        if (w->done) heist_unref(w->done);
        w->done = NULL;
        w->kind = DRAINS;
    }
    return err;
}

/* ---- reading ---- */

static void check_record(struct side *s, const char *p, size_t n) {
    uint64_t id = s->link->id;
    unsigned writer = 0, number = 0, rest = 0;
    char head[HEAD + 1];
    memcpy(head, p, HEAD);
    head[HEAD] = 0;
    if (sscanf(head, "%2u%8x%8x", &writer, &number, &rest) != 3 || writer >= WRITERS || rest + HEAD != n) {
        stress_fail("link %" PRIu64 ": a record of %zu bytes begins with '%s'", id, n, head);
        return;
    }
    stress_check(number == s->got[writer], "link %" PRIu64 ": record %u of writer %u came instead of %u", id, number,
                 writer, s->got[writer]);
    s->got[writer] = number + 1;
    for (size_t i = 0; i + 1 < rest; i++)
        if (p[HEAD + i] != byte_at(id, (int)writer, number, i)) {
            stress_fail("link %" PRIu64 ": byte %zu of record %u of writer %u is %d", id, i, number, writer,
                        p[HEAD + i]);
            break;
        }
    stress_check(p[n - 1] == '\n', "link %" PRIu64 ": a record does not end where it should", id);
    s_add(&records_in, 1);
    s_add(&bytes_in, n);
    stress_progress(1);
}

/* One record, or what there is: 1, 0 at the end, or a code. */
static int read_by_count(struct side *s, char *buf) {
    if (s->have == 0) { /* the head, of which nothing is lost when the rest is not had */
        size_t got = 0;
        int err = heist_stream_readexactly(s->stream, buf, HEAD, &got);
        if (err == HEIST_EINCOMPLETE) {
            stress_check(got == 0 || s_get(&s->link->side[s == s->link->side].broken), "a record was cut in its head");
            return 0;
        }
        if (err < 0) return err;
        memcpy(s->bytes, buf, HEAD);
        s->have = HEAD;
    }
    unsigned rest = 0;
    char figures[9];
    memcpy(figures, s->bytes + 10, 8);
    figures[8] = 0;
    if (sscanf(figures, "%8x", &rest) != 1 || rest > LONGEST + 1) {
        stress_fail("link %" PRIu64 ": a record of %s bytes", s->link->id, figures);
        return -EPROTO;
    }
    int err = heist_stream_readexactly(s->stream, s->bytes + HEAD, rest, NULL);
    if (err == HEIST_EINCOMPLETE) return 0;
    if (err < 0) return err;
    check_record(s, s->bytes, HEAD + rest);
    s->have = 0;
    return 1;
}

static int read_by_line(struct side *s) {
    char *line;
    ptrdiff_t n = heist_stream_readline(s->stream, &line);
    if (n <= 0) return (int)n;
    if (line[n - 1] == '\n') check_record(s, line, (size_t)n);
    return 1;
}

static int read_raw(struct side *s) {
    size_t room = 2 * (HEAD + LONGEST + 1) - s->have;
    size_t n = (size_t)stress_between(&s->read_rng, 1, room);
    ptrdiff_t got = heist_stream_read(s->stream, s->bytes + s->have, n);
    if (got <= 0) return (int)got;
    s->have += (size_t)got;
    for (char *end; (end = memchr(s->bytes, '\n', s->have));) {
        size_t record = (size_t)(end - s->bytes) + 1;
        if (record > HEAD) check_record(s, s->bytes, record);
        else stress_fail("link %" PRIu64 ": a record of %zu bytes", s->link->id, record);
        s->have -= record;
        memmove(s->bytes, end + 1, s->have);
    }
    return 1;
}

static int reader(void *arg, void **out) {
    (void)out;
    struct side *s = arg;
    char head[HEAD];
    for (;;) {
        if (stress_chance(&s->read_rng, 10))
            heist_stream_set_read_deadline(s->stream,
                                           stress_chance(&s->read_rng, 50)
                                               ? HEIST_FOREVER
                                               : heist_time() + (double)stress_below(&s->read_rng, 2000) * 1e-6);
        stress_wait_begin(s->slot, "a read", 0);
        int err = s->way == BY_COUNT ? read_by_count(s, head) : s->way == BY_LINE ? read_by_line(s) : read_raw(s);
        stress_wait_end(s->slot);
        if (err > 0) continue;
        if (err == -ETIMEDOUT) {
            s_add(&timeouts, 1);
            heist_stream_set_read_deadline(s->stream, HEIST_FOREVER);
            continue;
        }
        if (err == 0) s->at_end = true;
        if (err < 0)
            stress_check(err == -ECANCELED || err == HEIST_ECLOSED || err == -ECONNRESET,
                         "a reader of link %" PRIu64 " met %s", s->link->id, heist_error_name(err));
        s->end = err;
        return err == -ECANCELED ? err : 0;
    }
}

static int join(heist_task *t) {
    while (!heist_future_done(t)) heist_await(t, NULL);
    int err = heist_future_result(t, NULL);
    heist_unref(t);
    return err;
}

/* ---- a side ---- */

static void reset_now(struct side *s) {
    struct linger now = {1, 0};
    int fd = -1;
    if (heist_stream_get_extra_info(s->stream, HEIST_INFO_SOCKET, &fd, sizeof fd) == 0)
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    heist_stream_abort(s->stream);
}

static void join_writer(struct writer *w) {
    if (w->task) join(w->task);
    if (w->done) {
        while (!heist_future_done(w->done)) heist_await(w->done, NULL);
        if (w->kind == THREAD) stress_join(w->thread);
        heist_unref(w->done);
    }
    w->task = NULL;
    w->done = NULL;
}

static int side_body(void *arg, void **out) {
    (void)out;
    struct side *s = arg;
    heist_task *t = NULL;
    int started = 0, err = heist_create_task(reader, s, NULL, &t);
    while (err == 0 && started < s->writers) {
        err = start_writer(&s->writer[started]);
        if (err == 0) started++;
    }
    int turns = (int)stress_below(&s->rng, 6);
    for (int i = 0; i < turns && err == 0; i++) {
        err = heist_sleep((double)stress_below(&s->rng, 3000) * 1e-6);
        if (err < 0) break;
        struct writer *w = &s->writer[stress_below(&s->rng, (uint64_t)s->writers)];
        switch (stress_below(&s->rng, 4)) {
            case 0: /* another reader takes over */
                heist_cancel(t);
                if (join(t) == -ECANCELED) s_add(&cancels, 1);
                t = NULL;
                if (!s->at_end && (s->end == -ECANCELED || s->end == 0)) err = heist_create_task(reader, s, NULL, &t);
                if (!t) turns = 0;
                break;
            case 1: heist_stream_set_read_deadline(s->stream, heist_time()); break;
            case 2:
                heist_stream_set_write_deadline(s->stream, stress_chance(&s->rng, 50) ? HEIST_FOREVER : heist_time());
                break;
            default: /* a writer is cancelled, and another one goes on */
                if (!w->task || w->side->file >= 0) break;
                heist_cancel(w->task);
                join(w->task);
                w->task = NULL;
                err = heist_create_task(task_writer, w, NULL, &w->task);
        }
    }
    bool orderly = err == 0 && s->ending == IN_ORDER && !s_get(&closing);
    if (!orderly) {
        s_set(&s->broken, true);
        if (err == 0 && s->ending == HASTY_CLOSE) {
            heist_stream_set_write_deadline(s->stream, heist_time() + (double)stress_below(&s->rng, 2000) * 1e-6);
            heist_stream_close(s->stream);
        } else if (s->ending == RESET) {
            reset_now(s);
        } else {
            heist_stream_abort(s->stream);
        }
    }
    heist_stream_set_write_deadline(s->stream, orderly ? HEIST_FOREVER : heist_time() + 0.005);
    heist_uncancellable_begin(); /* who knows the link must have ended before it goes */
    for (int i = 0; i < started; i++) {
        stress_wait_begin(s->slot + 1, "the end of a writer", 0);
        join_writer(&s->writer[i]);
        stress_wait_end(s->slot + 1);
    }
    if (orderly) heist_stream_write_eof(s->stream);
    heist_uncancellable_end();
    stress_wait_begin(s->slot + 1, "the end of a reader", 0);
    if (t && orderly && heist_await(t, NULL) == -ECANCELED && !heist_future_done(t)) {
        s_set(&s->broken, true); /* the runtime closes */
        heist_cancel(t);
    }
    heist_uncancellable_begin();
    if (t) join(t);
    stress_wait_end(s->slot + 1);
    if (!s->at_end) s_set(&s->broken, true);
    heist_stream_close(s->stream);
    if (s_get(&closing)) heist_stream_abort(s->stream);
    stress_wait_begin(s->slot + 1, "the end of a stream", 0);
    heist_stream_wait_closed(s->stream);
    stress_wait_end(s->slot + 1);
    heist_uncancellable_end();
    heist_stream_unref(s->stream);
    return 0;
}

/* ---- a link ---- */

static int stream_over(int fd, struct stress_rng *r, heist_stream **out) {
    heist_stream_options o = HEIST_STREAM_OPTIONS_INIT;
    o.limit = HEAD + LONGEST + 1 + (long long)stress_below(r, 5000);
    if (stress_chance(r, 50)) o.high_water = (size_t)stress_between(r, 1, 100000);
    heist_conn *c;
    int err = heist_conn_open(fd, &c);
    if (err < 0) {
        close(fd);
        return err;
    }
    err = heist_stream_from_conn(c, &o, out);
    if (err < 0) heist_conn_close(c);
    return err;
}

/* The two ends of a connection. */
static int connect_ends(struct link *l) {
    int fd[2];
    bool tcp = !stress_chance(&l->rng, 50);
    if (!tcp) {
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd)) return -errno;
    } else {
        heist_addr own = {.length = sizeof own.storage};
        int door = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (door < 0) return -errno;
        fd[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd[0] < 0 || bind(door, (struct sockaddr *)&address.storage, address.length) || listen(door, 1) ||
            getsockname(door, (struct sockaddr *)&own.storage, &own.length) ||
            connect(fd[0], (struct sockaddr *)&own.storage, own.length) ||
            (fd[1] = accept4(door, NULL, NULL, SOCK_CLOEXEC)) < 0)
            stress_die("a connection over loopback: %s", strerror(errno));
        close(door);
    }
    for (int i = 0; i < 2; i++) {
        int bytes = (int)stress_between(&l->rng, 2048, 200000), on = 1;
        if (stress_chance(&l->rng, 60)) setsockopt(fd[i], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
        /* (A receive buffer below a segment of the loopback makes TCP wait for its timers.) */
        if (tcp) setsockopt(fd[i], IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
    int err = stream_over(fd[0], &l->rng, &l->side[0].stream);
    if (err < 0) {
        close(fd[1]);
        return err;
    }
    err = stream_over(fd[1], &l->rng, &l->side[1].stream);
    if (err < 0) {
        heist_stream_close(l->side[0].stream);
        heist_stream_unref(l->side[0].stream);
    }
    return err;
}

static int scratch_file(void) {
    char name[64];
    snprintf(name, sizeof name, "%s/heist-stress-XXXXXX", P_tmpdir);
    int fd = mkostemp(name, O_CLOEXEC);
    if (fd >= 0) unlink(name);
    return fd;
}

static void draw_side(struct link *l, int i, int slot) {
    struct side *s = &l->side[i];
    s->link = l;
    s->slot = slot;
    s->rng = stress_stream(&l->rng, (uint64_t)i);
    s->read_rng = stress_stream(&l->rng, (uint64_t)i + 2);
    s->ending = stress_chance(&s->rng, 60) ? IN_ORDER : (enum ending)stress_below(&s->rng, ENDINGS);
    s->way = (enum way)stress_below(&s->rng, WAYS);
    s->writers = 1 + (int)stress_below(&s->rng, WRITERS);
    s->file = s->writers == 1 && stress_chance(&s->rng, 50) ? scratch_file() : -1;
    s->bytes = stress_alloc(2 * (HEAD + LONGEST + 1));
    for (int k = 0; k < s->writers; k++) {
        struct writer *w = &s->writer[k];
        w->side = s;
        w->number = k;
        w->kind = stress_chance(&s->rng, 85) ? (enum kind)stress_below(&s->rng, CALLBACK + 1) : THREAD;
        w->records = (uint32_t)stress_scale((size_t)stress_between(&s->rng, 0, 300));
        w->rng = stress_stream(&s->rng, (uint64_t)k);
    }
}

/* What came of side i's records at the other side. */
static void judge(struct link *l, int i) {
    struct side *from = &l->side[i], *to = &l->side[1 - i];
    bool whole = !s_get(&from->broken) && !s_get(&to->broken);
    for (int k = 0; k < from->writers; k++) {
        stress_check(to->got[k] <= from->writer[k].next, "link %" PRIu64 ": %u records came of %u that were sent",
                     l->id, to->got[k], from->writer[k].next);
        if (whole)
            stress_check(to->got[k] == from->writer[k].records,
                         "link %" PRIu64 ", ended in order: %u records of writer %d came of %u", l->id, to->got[k], k,
                         from->writer[k].records);
    }
    if (whole)
        stress_check(to->at_end && (to->way == BY_LINE || to->have == 0), "link %" PRIu64 " did not end whole", l->id);
    s_add(whole ? &in_order : &broken, 1);
}

static void free_link(void *arg) {
    struct link *l = arg;
    for (int i = 0; i < 2; i++) {
        free(l->side[i].bytes);
        if (l->side[i].file >= 0) close(l->side[i].file);
    }
    free(l);
    s_add(&open_links, -1);
}

static int link_body(void *arg, void **out) {
    (void)out;
    struct link *l = arg;
    int err = connect_ends(l);
    if (err < 0) {
        stress_check(err == HEIST_ECLOSED || err == -ECANCELED, "making a link: %s", heist_error_name(err));
        return 0;
    }
    heist_task *t = NULL;
    err = heist_create_task(side_body, &l->side[1], NULL, &t);
    if (err < 0) { /* the runtime closes */
        for (int i = 0; i < 2; i++) {
            heist_stream_abort(l->side[i].stream);
            heist_stream_unref(l->side[i].stream);
        }
        return 0;
    }
    side_body(&l->side[0], NULL);
    heist_uncancellable_begin();
    int ended = join(t);
    heist_uncancellable_end();
    if (ended == -ECANCELED && !l->side[1].writer[0].side->at_end && !s_get(&l->side[1].broken)) {
        heist_stream_abort(l->side[1].stream); /* it never began */
        heist_stream_unref(l->side[1].stream);
        return 0;
    }
    judge(l, 0);
    judge(l, 1);
    return 0;
}

static int start_links(void *arg, void **out) {
    (void)out;
    struct stress_rng *rng = arg;
    uint64_t id = 0;
    while (stress_going() && !s_get(&closing)) {
        if (s_get(&open_links) >= LINKS) {
            if (heist_sleep(0.001) < 0) break;
            continue;
        }
        struct link *l = stress_alloc(sizeof *l);
        l->id = id++;
        l->rng = stress_stream(rng, l->id);
        int slot = (int)(l->id % (STRESS_WAITS / 4)) * 4;
        draw_side(l, 0, slot);
        draw_side(l, 1, slot + 2);
        s_add(&open_links, 1);
        heist_task_options o = HEIST_TASK_OPTIONS_INIT;
        o.arg_free = free_link;
        int err = heist_create_task(link_body, l, &o, NULL);
        if (err < 0) {
            free_link(l);
            if (heist_yield() < 0) break;
        }
        if (heist_yield() < 0) break;
    }
    return 0;
}

int main(int argc, char **argv) {
    stress_begin(argc, argv, "tcp", "what comes over a stream is what was sent, whole when it ended in order");
    if (heist_addr_parse("127.0.0.1:0", &address) < 0) stress_die("an address");
    struct stress_rng rng;
    while (stress_next_round(&rng)) {
        int workers = stress_draw_workers(&rng);
        heist_runtime_options o = HEIST_RUNTIME_OPTIONS_INIT;
        stress_draw_watch(&rng, &o);
        bool cut = stress_chance(&rng, 50); /* the runtime closes under the links */
        stress_settings("workers=%d cut=%d", workers, cut);
        s_set(&closing, false);
        runtime = stress_runtime("streams", workers, &o);
        heist_task *t = NULL;
        stress_phase("links");
        int err = heist_runtime_run_coroutine(runtime, start_links, &rng, NULL, &t);
        if (err < 0) stress_die("the first task: %s", heist_strerror(err));
        heist_await(t, NULL);
        heist_unref(t);
        if (cut) s_set(&closing, true);
        while (!cut && s_get(&open_links) > 0) stress_block(0.001);
        stress_phase("close");
        stress_runtime_end(runtime);
        stress_check(s_get(&open_links) == 0, "%" PRId64 " links were left", s_get(&open_links));
    }
    stress_note("links ended in order %" PRIu64 ", otherwise %" PRIu64 " (each direction); records %" PRIu64
                ", %.1f MB; cancels %" PRIu64 ", time-outs %" PRIu64 ", files %" PRIu64,
                s_get(&in_order), s_get(&broken), s_get(&records_in), (double)s_get(&bytes_in) / 1e6, s_get(&cancels),
                s_get(&timeouts), s_get(&files));
    return stress_end();
}
