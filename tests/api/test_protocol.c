/* Transports and protocols: the order of the callbacks, that they never overlap, flow control both ways, and each way a
 * connection may end. */
#include "support/outcome.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- a protocol that notes what it is told ---- */

struct noted {
    struct record record;
    heist_transport *transport; /* borrowed */
    _Atomic(int) inside, overlaps, made, lost, eofs, pauses, resumes, unpaired;
    _Atomic(long) bytes;
    int code;
    _Atomic(int) keep_open; /* answer of eof_received; set in the middle, with nothing but the kernel between */
    int fail_at;   /* 1 made, 2 data, 3 eof, 4 get_buffer */
    int fail_with;
    int echo, suspend, quiet;
    char buffer[512];
    size_t room; /* of the buffered form */
};

static void enter(struct noted *n, const char *word) {
    if (n->inside++) n->overlaps++;
    if (word) record_add(&n->record, "%s", word);
    if (n->suspend) heist_sleep(0.0005); /* the others wait meanwhile */
}

static int leave(struct noted *n, int point) {
    n->inside--;
    return n->fail_at == point ? heist_fail(n->fail_with, "on purpose") : 0;
}

static int made(void *self, heist_transport *t) {
    struct noted *n = self;
    enter(n, "made");
    n->transport = t;
    n->made++;
    return leave(n, 1);
}

static int data(void *self, const void *bytes, size_t size) {
    struct noted *n = self;
    enter(n, n->quiet ? NULL : "data");
    n->bytes += (long)size;
    if (n->echo) heist_transport_write(n->transport, bytes, size);
    return leave(n, 2);
}

static int eof(void *self) {
    struct noted *n = self;
    enter(n, "eof");
    n->eofs++;
    int err = leave(n, 3);
    return err < 0 ? err : n->keep_open;
}

static void lost(void *self, int code) {
    struct noted *n = self;
    enter(n, "lost");
    n->code = code;
    n->unpaired += n->pauses != n->resumes;
    leave(n, 0);
    n->lost++;
}

static void pause_writing(void *self) {
    struct noted *n = self;
    enter(n, NULL);
    n->unpaired += n->pauses != n->resumes || !n->made;
    n->pauses++;
    leave(n, 0);
}

static void resume_writing(void *self) {
    struct noted *n = self;
    enter(n, NULL);
    n->resumes++;
    n->unpaired += n->pauses != n->resumes;
    leave(n, 0);
}

static int get_buffer(void *self, void **buffer, size_t *size) {
    struct noted *n = self;
    enter(n, NULL);
    *buffer = n->buffer;
    *size = n->room;
    return leave(n, 4);
}

static int updated(void *self, size_t size) {
    struct noted *n = self;
    enter(n, NULL);
    n->bytes += (long)size;
    if (n->echo) heist_transport_write(n->transport, n->buffer, size);
    return leave(n, 2);
}

static const heist_protocol plain = {sizeof plain, made, data, NULL, NULL, eof, lost, pause_writing, resume_writing};
static const heist_protocol buffered = {sizeof buffered, made, NULL, get_buffer, updated, eof, lost, NULL, NULL};

/* One end is a protocol's, the other a bare connection. */
static int pair(heist_conn **peer, heist_stream **stream, const heist_stream_options *opts) {
    int fd[2];
    heist_conn *conn;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd)) return -errno;
    int err = heist_conn_open(fd[0], peer);
    if (err == 0) err = heist_conn_open(fd[1], &conn);
    return err < 0 ? err : heist_stream_from_conn(conn, opts, stream);
}

static int start(struct noted *n, const heist_protocol *p, const heist_stream_options *opts, heist_conn **peer,
                 heist_transport **t) {
    heist_stream *stream;
    int err = pair(peer, &stream, opts);
    return err < 0 ? err : heist_protocol_start(stream, p, n, t);
}

static int until(_Atomic(int) *value, int wanted) {
    int err = 0;
    while (err == 0 && *value < wanted) err = heist_sleep(0.001);
    return err;
}

static int say(heist_conn *conn, const char *text) { return heist_conn_write(conn, text, strlen(text), LIMIT, NULL); }

static int hear(heist_conn *conn, size_t wanted) {
    char buf[4096];
    while (wanted) {
        ptrdiff_t n = heist_conn_read(conn, buf, wanted < sizeof buf ? wanted : sizeof buf, LIMIT);
        if (n <= 0) return n < 0 ? (int)n : -ECONNRESET;
        wanted -= (size_t)n;
    }
    return 0;
}

/* ---- order ---- */

static int in_order(void *arg, void **out) {
    struct noted *n = arg;
    heist_conn *peer;
    heist_transport *t;
    (void)out;
    n->echo = 1;
    WANT(start(n, &plain, NULL, &peer, &t) == 0);
    for (int i = 0; i < 3; i++) WANT(say(peer, "word") == 0 && hear(peer, 4) == 0);
    WANT(heist_transport_is_closing(t) == 0 && heist_transport_is_reading(t) == 1);
    heist_conn_close(peer);
    WANT(until(&n->lost, 1) == 0);
    WANT(heist_transport_is_closing(t) == 1 && heist_transport_is_reading(t) == 0);
    WANT(heist_transport_write(t, "late", 4) == HEIST_ECLOSED); /* a reference makes that safe */
    WANT(heist_transport_close(t) == 0 && heist_transport_abort(t) == 0);
    heist_transport_unref(t);
    return 0;
}

static void callbacks_come_in_order_and_the_loss_once_STRM_34(void **state) {
    (void)state;
    struct noted n = {.record = RECORD_INIT};
    must_run(in_order, &n);
    assert_string_equal(record_text(&n.record), "made data data data eof lost");
    assert_int_equal(n.code, 0);
    assert_int_equal(n.lost, 1);
    assert_int_equal(n.overlaps, 0);
}

static int ends(void *arg, void **out) {
    struct noted *n = arg;
    heist_conn *peer;
    heist_transport *t;
    char byte;
    (void)out;
    WANT(start(n, &plain, NULL, &peer, &t) == 0);
    WANT(until(&n->made, 1) == 0);
    switch (n->fail_with) {
        case 1: /* closed by us: what was written is sent first */
            WANT(heist_transport_write(t, "bye", 3) == 0 && heist_transport_close(t) == 0);
            WANT(hear(peer, 3) == 0 && heist_conn_read(peer, &byte, 1, LIMIT) == 0);
            break;
        case 2: heist_transport_abort(t); break;
        case 3: /* half closed: it writes on until it closes */
            n->keep_open = 1;
            WANT(heist_conn_shutdown(peer) == 0 && until(&n->eofs, 1) == 0);
            WANT(heist_transport_write(t, "more", 4) == 0 && hear(peer, 4) == 0 && n->lost == 0);
            heist_transport_close(t);
            break;
        case 4: /* our side is ended, and theirs goes on */
            WANT(heist_transport_write_eof(t) == 0 && heist_conn_read(peer, &byte, 1, LIMIT) == 0);
            WANT(say(peer, "word") == 0);
            while (n->bytes < 4) WANT(heist_sleep(0.001) == 0);
            WANT(n->lost == 0);
            heist_conn_close(peer);
            peer = NULL;
            break;
    }
    WANT(until(&n->lost, 1) == 0);
    heist_transport_unref(t);
    heist_conn_close(peer);
    return 0;
}

static void each_orderly_end_is_a_loss_without_a_code_STRM_34(void **state) {
    (void)state;
    static const char *const wanted[] = {"", "made lost", "made lost", "made eof lost", "made data eof lost"};
    for (int kind = 1; kind <= 4; kind++) {
        struct noted n = {.record = RECORD_INIT};
        n.fail_with = kind;
        must_run(ends, &n);
        assert_string_equal(record_text(&n.record), wanted[kind]);
        assert_int_equal(n.code, 0);
        assert_int_equal(n.lost, 1);
    }
}

struct failing {
    struct noted noted;
    const heist_protocol *protocol;
    _Atomic(int) reports;
    int code;
    char text[64];
};

static void note_report(heist_loop *loop, const heist_report *r, void *user) {
    struct failing *f = user;
    (void)loop;
    f->reports++;
    f->code = r->code;
    snprintf(f->text, sizeof f->text, "%s", r->text ? r->text : "");
}

static int fails(void *arg, void **out) {
    struct failing *f = arg;
    heist_conn *peer;
    (void)out;
    WANT(start(&f->noted, f->protocol, NULL, &peer, NULL) == 0);
    say(peer, "word");
    heist_conn_shutdown(peer);
    WANT(until(&f->noted.lost, 1) == 0);
    heist_conn_close(peer);
    return 0;
}

static void callback_that_fails_is_reported_and_loses_the_connection_STRM_34(void **state) {
    (void)state;
    for (int at = 1; at <= 4; at++) {
        struct failing f = {.noted = {.record = RECORD_INIT}, .protocol = at == 4 ? &buffered : &plain};
        f.noted.fail_at = at;
        f.noted.fail_with = -EBADMSG;
        f.noted.room = 16;
        must_run_with(fails, &f, note_report, &f);
        assert_int_equal(f.noted.code, -EBADMSG);
        assert_int_equal(f.noted.lost, 1);
        assert_int_equal(f.reports, 1);
        assert_int_equal(f.code, -EBADMSG);
        assert_string_equal(f.text, "on purpose");
    }
}

/* ---- the buffered form ---- */

static int through_a_buffer(void *arg, void **out) {
    struct noted *n = arg;
    heist_conn *peer;
    heist_transport *t;
    (void)out;
    n->echo = 1;
    n->room = 7;
    WANT(start(n, &buffered, NULL, &peer, &t) == 0);
    for (int i = 0; i < 20; i++) WANT(say(peer, "some words") == 0 && hear(peer, 10) == 0);
    heist_conn_close(peer);
    WANT(until(&n->lost, 1) == 0);
    heist_transport_unref(t);
    return 0;
}

static void buffered_protocol_is_asked_for_memory_and_told_how_much_came_STRM_35(void **state) {
    (void)state;
    struct noted n = {.record = RECORD_INIT};
    must_run(through_a_buffer, &n);
    assert_int_equal(n.bytes, 200);
    assert_int_equal(n.overlaps, 0);
    assert_string_equal(record_text(&n.record), "made eof lost");
}

static void buffer_without_room_is_fatal_STRM_35(void **state) {
    (void)state;
    struct failing f = {.noted = {.record = RECORD_INIT}, .protocol = &buffered};
    must_run_with(fails, &f, note_report, &f);
    assert_int_equal(f.noted.code, -ENOBUFS);
    assert_int_equal(f.reports, 1);
    assert_string_equal(record_text(&f.noted.record), "made lost");
}

/* ---- flow control ---- */

static int flood(void *arg, void **out) {
    struct noted *n = arg;
    heist_stream_options opts = HEIST_STREAM_OPTIONS_INIT;
    heist_conn *peer;
    heist_transport *t;
    char *block = calloc(1, 1 << 20);
    (void)out;
    if (!block) abort();
    opts.high_water = 4096;
    WANT(start(n, &plain, &opts, &peer, &t) == 0);
    for (int round = 1; round <= 3; round++) {
        WANT(heist_transport_write(t, block, 1 << 20) == 0); /* more than the kernel takes */
        WANT(until(&n->pauses, round) == 0);
        WANT(n->resumes == round - 1);
        WANT(hear(peer, 1 << 20) == 0);
        WANT(until(&n->resumes, round) == 0);
    }
    /* The last one is paused when the connection is lost: resumed before. */
    WANT(heist_transport_write(t, block, 1 << 20) == 0);
    WANT(until(&n->pauses, 4) == 0);
    free(block);
    if (n->fail_with) heist_transport_abort(t);
    else heist_conn_close(peer);
    WANT(until(&n->lost, 1) == 0);
    heist_transport_unref(t);
    if (n->fail_with) heist_conn_close(peer);
    return 0;
}

static void pause_and_resume_of_writing_come_in_pairs_STRM_36(void **state) {
    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        struct noted n = {.record = RECORD_INIT};
        n.fail_with = kind;
        n.suspend = 1;
        must_run(flood, &n);
        assert_int_equal(n.pauses, 4);
        assert_int_equal(n.resumes, 4);
        assert_int_equal(n.unpaired, 0);
        assert_int_equal(n.overlaps, 0);
        assert_int_equal(n.lost, 1);
    }
}

static int paused_reading(void *arg, void **out) {
    struct noted *n = arg;
    heist_conn *peer;
    heist_transport *t;
    (void)out;
    WANT(start(n, &plain, NULL, &peer, &t) == 0);
    WANT(until(&n->made, 1) == 0);
    for (int round = 1; round <= 20; round++) {
        WANT(heist_transport_pause_reading(t) == 0);
        WANT(heist_transport_pause_reading(t) == 0); /* again: nothing */
        WANT(heist_transport_is_reading(t) == 0);
        WANT(say(peer, "word") == 0);
        WANT(heist_sleep(0.0005) == 0);
        WANT(n->bytes == 4 * (round - 1));
        WANT(heist_transport_resume_reading(t) == 0);
        WANT(heist_transport_is_reading(t) == 1);
        while (n->bytes < 4 * round) WANT(heist_sleep(0.0002) == 0);
    }
    /* Paused, and closed: the loss is told all the same; by whomever. */
    WANT(heist_transport_pause_reading(t) == 0);
    WANT(heist_sleep(0.001) == 0);
    if (n->fail_with == 0) heist_transport_close(t);
    if (n->fail_with == 1) heist_transport_abort(t);
    if (n->fail_with == 2)
        WANT(say(peer, "word") == 0 && heist_sleep(0.002) == 0); /* it has read, and holds the word */
    if (n->fail_with >= 2) heist_stream_close(heist_transport_stream(t));
    WANT(until(&n->lost, 1) == 0);
    heist_transport_unref(t);
    heist_conn_close(peer);
    return 0;
}

static void paused_reading_delivers_nothing_and_loses_nothing_STRM_36(void **state) {
    (void)state;
    for (int kind = 0; kind < 4; kind++) {
        struct noted n = {.record = RECORD_INIT, .quiet = 1};
        n.fail_with = kind;
        must_run(paused_reading, &n);
        assert_int_equal(n.lost, 1);
        assert_int_equal(n.code, 0);
    }
}

/* Paused again while the pump is on its way out of the first pause: the second one counts. */
struct hammer {
    heist_transport *t;
    _Atomic(int) over;
    int wrong;
};

static void *pause_and_resume(void *arg) {
    struct hammer *h = arg;
    for (int round = 0; round < 3000; round++) {
        h->wrong += heist_transport_resume_reading(h->t) != 0;
        for (volatile int i = 0; i < round % 50 * 20; i++) {
        }
        h->wrong += heist_transport_pause_reading(h->t) != 0;
        for (int i = 0; i < 100; i++) h->wrong += heist_transport_is_reading(h->t) != 0;
    }
    h->over = 1;
    return NULL;
}

static int paused_anew(void *arg, void **out) {
    struct noted *n = arg;
    struct hammer h = {.over = 0};
    heist_conn *peer;
    pthread_t thread;
    (void)out;
    WANT(start(n, &plain, NULL, &peer, &h.t) == 0);
    WANT(until(&n->made, 1) == 0);
    WANT(heist_transport_pause_reading(h.t) == 0);
    WANT(pthread_create(&thread, NULL, pause_and_resume, &h) == 0);
    int err = 0;
    while (!h.over && (err == 0 || err == -ETIMEDOUT)) { /* there is always something to read */
        err = heist_conn_write(peer, "word", 4, heist_time() + 0.001, NULL);
        if (err == 0) err = heist_yield();
    }
    pthread_join(thread, NULL);
    WANT((err == 0 || err == -ETIMEDOUT) && h.wrong == 0);
    heist_transport_abort(h.t);
    WANT(until(&n->lost, 1) == 0);
    heist_transport_unref(h.t);
    heist_conn_close(peer);
    return 0;
}

static void pause_that_follows_a_resume_at_once_counts_STRM_36(void **state) {
    (void)state;
    struct noted n = {.record = RECORD_INIT, .quiet = 1};
    must_run(paused_anew, &n);
    assert_int_equal(n.code, 0);
}

/* Written to before the connection was made: that is told first all the same, then the pause. */
static int written_early(void *arg, void **out) {
    struct noted *n = arg;
    heist_stream_options opts = HEIST_STREAM_OPTIONS_INIT;
    heist_conn *peer;
    heist_transport *t;
    char *block = calloc(1, 1 << 20);
    (void)out;
    if (!block) abort();
    opts.high_water = 4096;
    WANT(start(n, &plain, &opts, &peer, &t) == 0);
    WANT(heist_transport_write(t, block, 1 << 20) == 0);
    free(block);
    WANT(until(&n->pauses, 1) == 0);
    WANT(hear(peer, 1 << 20) == 0 && until(&n->resumes, 1) == 0);
    heist_transport_close(t);
    WANT(until(&n->lost, 1) == 0);
    heist_transport_unref(t);
    heist_conn_close(peer);
    return 0;
}

static void connection_made_comes_before_a_pause_STRM_34(void **state) {
    (void)state;
    struct noted n = {.record = RECORD_INIT};
    must_run(written_early, &n);
    assert_string_equal(record_text(&n.record), "made lost");
    assert_int_equal(n.unpaired, 0);
}

/* Writers on all workers, a peer that reads by fits, callbacks that suspend: never two at once. */
struct writing {
    heist_transport *t;
    int left;
};

static int write_on(void *arg, void **out) {
    struct writing *w = arg;
    char block[3000] = {0};
    (void)out;
    int err = 0;
    for (int i = 0; i < 40 && err == 0; i++) {
        err = heist_transport_write(w->t, block, sizeof block);
        if (err == 0) err = heist_yield();
    }
    return err;
}

static int crowd(void *arg, void **out) {
    enum { WRITERS = 6 };
    struct noted *n = arg;
    heist_stream_options opts = HEIST_STREAM_OPTIONS_INIT;
    heist_conn *peer;
    struct writing w;
    heist_task *t[WRITERS];
    (void)out;
    opts.high_water = 2000;
    n->suspend = 1;
    WANT(start(n, &plain, &opts, &peer, &w.t) == 0);
    for (int i = 0; i < WRITERS; i++) WANT(heist_create_task(write_on, &w, NULL, &t[i]) == 0);
    WANT(until(&n->pauses, 1) == 0); /* they wait for nobody */
    for (int i = 0; i < WRITERS; i++) {
        WANT(say(peer, "data that comes in between") == 0);
        WANT(hear(peer, 40 * 3000) == 0);
    }
    int err = heist_gather(t, WRITERS, NULL, 0);
    for (int i = 0; i < WRITERS; i++) heist_unref(t[i]);
    WANT(err == 0);
    heist_conn_close(peer);
    WANT(until(&n->lost, 1) == 0);
    heist_transport_unref(w.t);
    return 0;
}

static void two_callbacks_never_run_at_once_STRM_34(void **state) {
    (void)state;
    struct noted n = {.record = RECORD_INIT, .quiet = 1};
    must_run(crowd, &n);
    assert_int_equal(n.overlaps, 0);
    assert_int_equal(n.unpaired, 0);
    assert_true(n.pauses > 0);
    assert_int_equal(n.pauses, n.resumes);
}

/* ---- in the caller's task, and cancelled ---- */

struct running {
    struct noted noted;
    heist_stream *stream;
    int code;
};

static int run_it(void *arg, void **out) {
    struct running *r = arg;
    (void)out;
    r->code = heist_protocol_run(r->stream, &plain, &r->noted);
    return r->code;
}

static int cancelled(void *arg, void **out) {
    struct running *r = arg;
    heist_conn *peer;
    heist_task *t;
    (void)out;
    WANT(pair(&peer, &r->stream, NULL) == 0);
    WANT(heist_create_task(run_it, r, NULL, &t) == 0);
    WANT(until(&r->noted.made, 1) == 0);
    heist_cancel(t);
    WANT(heist_await(t, NULL) == -ECANCELED);
    WANT(r->noted.lost == 1); /* when the call returns, it has been told */
    WANT(heist_stream_is_closing(r->stream) == 1);
    heist_stream_unref(r->stream);
    heist_conn_close(peer);
    heist_unref(t);
    return 0;
}

static void cancelled_connection_is_lost_with_that_code_STRM_34(void **state) {
    (void)state;
    struct running r = {.noted = {.record = RECORD_INIT}};
    must_run(cancelled, &r);
    assert_int_equal(r.noted.code, -ECANCELED);
    assert_int_equal(r.noted.lost, 1);
}

/* main returns while a connection stands. */
static int left_behind(void *arg, void **out) {
    struct running *r = arg;
    heist_conn *peer;
    (void)out;
    WANT(start(&r->noted, &plain, NULL, &peer, NULL) == 0);
    WANT(until(&r->noted.made, 1) == 0);
    heist_conn_close(peer);
    return 0;
}

static void close_of_the_runtime_loses_the_connection(void **state) {
    (void)state;
    struct running r = {.noted = {.record = RECORD_INIT}};
    must_run(left_behind, &r);
    assert_int_equal(r.noted.lost, 1);
}

/* ---- a server and a client ---- */

struct world {
    _Atomic(int) built, refuse;
    struct noted noted[8];
};

static int build(void *user, const heist_protocol **protocol, void **self) {
    struct world *w = user;
    if (w->refuse) return heist_fail(-EACCES, "not now");
    int i = w->built++;
    w->noted[i].echo = 1;
    *protocol = &plain;
    *self = &w->noted[i];
    return 0;
}

static int both_ends(void *arg, void **out) {
    struct world *w = arg;
    struct noted client[4];
    heist_transport *t[4];
    heist_server *server;
    heist_addr where;
    char text[64];
    (void)out;
    int err = heist_create_server(build, w, "127.0.0.1", "0", NULL, &server);
    if (err < 0) return err;
    WANT(heist_server_sockets(server, &where, 1) == 1);
    heist_addr_format(&where, text, sizeof text);
    const char *port = strrchr(text, ':') + 1;
    for (int i = 0; i < 4; i++) {
        client[i] = (struct noted){.record = RECORD_INIT, .quiet = 1};
        WANT(heist_create_connection(&plain, &client[i], "127.0.0.1", port, NULL, &t[i]) == 0);
        WANT(heist_transport_write(t[i], "hello", 5) == 0);
    }
    for (int i = 0; i < 4; i++) {
        while (client[i].bytes < 5) WANT(heist_sleep(0.001) == 0);
        heist_transport_close(t[i]);
        WANT(until(&client[i].lost, 1) == 0);
        heist_transport_unref(t[i]);
        WANT(client[i].made == 1 && client[i].code == 0);
    }
    heist_server_close(server);
    WANT(heist_server_wait_closed_until(server, LIMIT) == 0);
    heist_server_unref(server);
    for (int i = 0; i < 4; i++) WANT(w->noted[i].lost == 1 && w->noted[i].bytes == 5);
    return 0;
}

static void server_makes_a_protocol_for_each_connection_STRM_34(void **state) {
    (void)state;
    static struct world w;
    memset(&w, 0, sizeof w);
    for (int i = 0; i < 8; i++) pthread_mutex_init(&w.noted[i].record.lock, NULL);
    must_run(both_ends, &w);
    assert_int_equal(w.built, 4);
}

/* ---- what is refused ---- */

static int refusals(void *arg, void **out) {
    struct noted *n = arg;
    heist_conn *peer;
    heist_stream *stream;
    heist_protocol p = plain;
    heist_transport *t = NULL;
    (void)out;
    WANT(pair(&peer, &stream, NULL) == 0);
    WANT(heist_protocol_start(NULL, &plain, n, &t) == -EINVAL);
    WANT(heist_protocol_start(stream, NULL, n, &t) == -EINVAL);
    p.connection_lost = NULL;
    WANT(heist_protocol_start(stream, &p, n, &t) == -EINVAL);
    p = plain;
    p.data_received = NULL;
    WANT(heist_protocol_start(stream, &p, n, &t) == -EINVAL);
    p = plain;
    p.get_buffer = get_buffer; /* both forms */
    WANT(heist_protocol_run(stream, &p, n) == -EINVAL);
    p = plain;
    p.resume_writing = NULL; /* half a pair */
    WANT(heist_protocol_run(stream, &p, n) == -EINVAL);
    p = plain;
    p.size = 4;
    WANT(heist_protocol_run(stream, &p, n) == -EINVAL);
    WANT(heist_create_connection(&p, n, "127.0.0.1", "1", NULL, &t) == -EINVAL);
    WANT(heist_create_server(NULL, n, "127.0.0.1", "0", NULL, NULL) == -EINVAL);
    WANT(t == NULL && n->made == 0);
    WANT(heist_transport_write(NULL, "x", 1) == -EINVAL && heist_transport_close(NULL) == -EINVAL);
    WANT(heist_transport_pause_reading(NULL) == -EINVAL && heist_transport_is_reading(NULL) == -EINVAL);
    WANT(heist_transport_stream(NULL) == NULL && heist_transport_abort(NULL) == -EINVAL);
    heist_transport_unref(NULL);
    heist_stream_close(stream);
    heist_stream_unref(stream);
    heist_conn_close(peer);
    return 0;
}

static void half_protocols_and_null_are_refused(void **state) {
    (void)state;
    struct noted n = {.record = RECORD_INIT};
    must_run(refusals, &n);
}

/* ---- without memory ---- */

static int scarce(void *arg, void **out) {
    struct noted *n = arg;
    heist_conn *peer;
    heist_stream *stream;
    int fd[2];
    (void)out;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd)) return -errno;
    heist_conn *conn;
    int err = heist_conn_open(fd[0], &peer);
    if (err < 0) {
        close(fd[0]), close(fd[1]);
        return err;
    }
    err = heist_conn_open(fd[1], &conn);
    if (err < 0) {
        close(fd[1]);
        heist_conn_close(peer);
        return err;
    }
    err = heist_stream_from_conn(conn, NULL, &stream);
    if (err < 0) {
        heist_conn_close(conn);
        heist_conn_close(peer);
        return err;
    }
    err = heist_protocol_start(stream, &plain, n, NULL);
    if (err < 0) {
        heist_stream_abort(stream);
        heist_stream_unref(stream);
        heist_conn_close(peer);
        return n->made ? -EPROTO : err;
    }
    static char block[8000];
    int sent = heist_conn_write(peer, block, sizeof block, LIMIT, NULL);
    heist_conn_close(peer);
    err = until(&n->lost, 1);
    return err < 0 ? err : sent == 0 || sent == -EPIPE ? 0 : sent;
}

static void quiet(heist_loop *loop, const heist_report *report, void *user) { (void)loop, (void)report, (void)user; }

static void each_failing_allocation_is_survived(void **state) {
    (void)state;
    for (long i = 1;; i++) {
        struct noted n = {.record = RECORD_INIT, .quiet = 1};
        heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
        opts.workers = harness_workers();
        opts.exception_handler = quiet;
        long blocks = harness_blocks();
        int descriptors = harness_descriptors();
        harness_allocations();
        harness_fail_allocation(i, false);
        int err = heist_run(scarce, &n, &opts, NULL);
        harness_fail_allocation(0, false);
        long asked = harness_allocations();
        if (err != 0 && err != -ENOMEM) fail_msg("allocation %ld failing: %s", i, heist_error_name(err));
        if (harness_blocks() != blocks)
            fail_msg("allocation %ld failing: %ld blocks left", i, harness_blocks() - blocks);
        assert_int_equal(harness_descriptors(), descriptors);
        assert_int_equal(n.lost, n.made);
        if (asked < i) break;
        assert_true(i < 2000);
    }
}

static const struct CMUnitTest tests[] = {
    API_TEST(callbacks_come_in_order_and_the_loss_once_STRM_34),
    API_TEST(each_orderly_end_is_a_loss_without_a_code_STRM_34),
    API_TEST(callback_that_fails_is_reported_and_loses_the_connection_STRM_34),
    API_TEST(buffered_protocol_is_asked_for_memory_and_told_how_much_came_STRM_35),
    API_TEST(buffer_without_room_is_fatal_STRM_35),
    API_TEST(pause_and_resume_of_writing_come_in_pairs_STRM_36),
    API_TEST(paused_reading_delivers_nothing_and_loses_nothing_STRM_36),
    API_TEST(pause_that_follows_a_resume_at_once_counts_STRM_36),
    API_TEST(connection_made_comes_before_a_pause_STRM_34),
    API_TEST(two_callbacks_never_run_at_once_STRM_34),
    API_TEST(cancelled_connection_is_lost_with_that_code_STRM_34),
    API_TEST(close_of_the_runtime_loses_the_connection),
    API_TEST(server_makes_a_protocol_for_each_connection_STRM_34),
    API_TEST(half_protocols_and_null_are_refused),
    API_TEST(each_failing_allocation_is_survived),
};

int main(void) { return HARNESS_MAIN("protocol", tests); }
