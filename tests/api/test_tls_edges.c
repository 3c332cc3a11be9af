/* TLS over streams that fail in their own ways: a connection that times out by itself, one that runs out of memory in
 * the middle, deadlines from its plain life, a peer that never stops. */
#include "api/tls_world.h"

#include <heist/tls.h>

/* ---- a stream of the test's own below the client: it goes over another one, and fails when it is told to ---- */

struct ferry {
    heist_stream *over;
    heist_event go;  /* set: a write that is held back ends */
    int read_error;  /* what reads end with */
    int write_error; /* what writes end with, once `go` is set */
    size_t most;     /* a read brings no more */
    long reads;
};

static ptrdiff_t ferry_read(void *self, void *buf, size_t size, double deadline) {
    struct ferry *f = self;
    f->reads++;
    if (f->read_error) return f->read_error;
    int err = heist_stream_set_read_deadline(f->over, deadline);
    if (err) return err;
    return heist_stream_read(f->over, buf, size < f->most ? size : f->most);
}
static ptrdiff_t ferry_writev(void *self, const struct iovec *iov, int count, double deadline) {
    struct ferry *f = self;
    size_t n = 0;
    (void)deadline;
    if (f->write_error) {
        int err = heist_event_wait(&f->go);
        return err ? err : f->write_error;
    }
    for (int i = 0; i < count; i++) n += iov[i].iov_len;
    int err = heist_stream_writelines(f->over, iov, count);
    return err ? err : (ptrdiff_t)n;
}
static ptrdiff_t ferry_try_writev(void *self, const struct iovec *iov, int count) {
    struct ferry *f = self;
    return f->write_error ? -EAGAIN : ferry_writev(self, iov, count, HEIST_FOREVER);
}
static void ferry_close(void *self) { heist_stream_close(((struct ferry *)self)->over); }
static void ferry_free(void *self) { heist_stream_unref(((struct ferry *)self)->over); }

struct trip {
    struct pair p;
    struct ferry ferry;
    int err, read, again, drained, waited;
    long reads;
};

static int board(struct trip *t) {
    heist_stream_ops ops = HEIST_STREAM_OPS_INIT;
    ops.read = ferry_read;
    ops.writev = ferry_writev;
    ops.try_writev = ferry_try_writev;
    ops.close = ferry_close;
    ops.free = ferry_free;
    t->ferry.most = 65536;
    heist_event_init(&t->ferry.go);
    int err = pair_open(&t->p);
    if (err) return err;
    t->ferry.over = t->p.client.plain;
    err = heist_stream_new(&ops, &t->ferry, NULL, &t->p.client.plain);
    return err ? err : pair_greet(&t->p);
}

static void travel(struct trip *t, heist_coro_fn fn) {
    heist_tls_context *server = server_context(&W.good, NULL), *client = client_context(NULL);
    pair_init(&t->p, server, client, "localhost");
    t->p.server.opts.shutdown_timeout = t->p.client.opts.shutdown_timeout = 60;
    assert_int_equal(run_tls(fn, t), 0);
    heist_tls_context_unref(server);
    heist_tls_context_unref(client);
    assert_int_equal(t->p.server.err, 0);
    assert_int_equal(t->p.client.err, 0);
}

static void land(struct trip *t) {
    heist_stream_abort(t->p.client.tls);
    heist_stream_abort(t->p.server.tls);
    (void)pair_end(&t->p);
}

/* ---- a connection that times out by itself (a peer that vanished: TCP gives up after a while) ---- */

static int dead_for_reading(void *arg, void **out) {
    struct trip *t = arg;
    char byte;
    (void)out;
    int err = board(t);
    if (err) return err;
    t->ferry.read_error = -ETIMEDOUT;
    t->read = (int)heist_stream_read(t->p.client.tls, &byte, 1);
    t->again = (int)heist_stream_read(t->p.client.tls, &byte, 1);
    t->reads = t->ferry.reads;
    land(t);
    return 0;
}
static void a_connection_that_times_out_ends_the_read_for_good(void **state) {
    (void)state;
    struct trip t = {0};
    travel(&t, dead_for_reading);
    assert_int_equal(t.read, -ETIMEDOUT);
    assert_int_equal(t.again, -ETIMEDOUT);
}

static char large[400000];

static int let_go(void *arg, void **out) {
    struct trip *t = arg;
    (void)out;
    int err = heist_sleep(0.002);
    heist_event_set(&t->ferry.go);
    return err;
}
static int dead_for_writing(void *arg, void **out) {
    struct trip *t = arg;
    (void)out;
    int err = board(t);
    if (err) return err;
    t->ferry.write_error = -ETIMEDOUT;
    err = heist_stream_write(t->p.client.tls, large, sizeof large);
    if (!err) err = heist_create_task(let_go, t, NULL, NULL);
    t->drained = heist_stream_drain(t->p.client.tls);
    heist_stream_close(t->p.client.tls);
    t->waited = heist_stream_wait_closed(t->p.client.tls);
    land(t);
    return err;
}
static void a_connection_that_times_out_ends_the_sending(void **state) {
    (void)state;
    struct trip t = {0};
    travel(&t, dead_for_writing);
    assert_int_equal(t.drained, -ETIMEDOUT);
    assert_int_equal(t.waited, -ETIMEDOUT);
}

/* ---- deadlines of the plain stream ---- */

static int with_old_deadlines(void *arg, void **out) {
    struct trip *t = arg;
    (void)out;
    int err = pair_open(&t->p);
    if (err) return err;
    heist_stream_set_read_deadline(t->p.client.plain, heist_time() - 1);
    heist_stream_set_write_deadline(t->p.client.plain, heist_time() - 1);
    t->p.client.opts.handshake_timeout = HEIST_FOREVER;
    err = pair_greet(&t->p);
    return err ? err : pair_end(&t->p);
}
static void deadlines_of_the_plain_stream_end_with_it(void **state) {
    (void)state;
    struct trip t = {0};
    travel(&t, with_old_deadlines);
}

/* ---- no memory for a record that was made already ---- */

static int lose_a_record(void *arg, void **out) {
    struct trip *t = arg;
    (void)out;
    int err = board(t);
    if (err) return err;
    t->ferry.write_error = -EPIPE; /* nothing goes: what is written from now on is queued below, in memory */
    harness_fail_allocation(1, false);
    t->read = heist_stream_write(t->p.client.tls, "lost", 4);
    harness_fail_allocation(0, false);
    t->ferry.write_error = 0;
    t->again = heist_stream_write(t->p.client.tls, "kept", 4);
    land(t);
    return err;
}
/* The peer would take the next one for a forged one. */
static void after_a_lost_record_no_other_is_sent(void **state) {
    (void)state;
    struct trip t = {0};
    travel(&t, lose_a_record);
    assert_int_equal(t.read, -ENOMEM);
    assert_int_equal(t.again, -ENOMEM);
}

/* ---- a peer that never stops ---- */

enum { LINES = 200 };

static int close_under_flood(void *arg, void **out) {
    struct trip *t = arg;
    (void)out;
    t->p.client.opts.shutdown_timeout = 1e-6;
    int err = board(t);
    for (int i = 0; i < LINES && !err; i++) err = write_text(t->p.server.tls, "and another thing\n");
    if (err) return err;
    t->ferry.most = 20; /* so that each line takes a read, and there is always another */
    t->reads = t->ferry.reads;
    heist_stream_close(t->p.client.tls);
    t->waited = heist_stream_wait_closed(t->p.client.tls);
    t->reads = t->ferry.reads - t->reads;
    land(t);
    return err;
}
static void shutdown_timeout_holds_for_a_peer_that_never_stops(void **state) {
    (void)state;
    struct trip t = {0};
    travel(&t, close_under_flood);
    assert_int_equal(t.waited, -ETIMEDOUT);
    assert_true(t.reads < LINES / 4);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        API_TEST(deadlines_of_the_plain_stream_end_with_it),
        API_TEST(after_a_lost_record_no_other_is_sent),
        API_TEST(shutdown_timeout_holds_for_a_peer_that_never_stops),
        API_TEST(a_connection_that_times_out_ends_the_read_for_good),
        API_TEST(a_connection_that_times_out_ends_the_sending),
    };
    world_begin();
    int failed = HARNESS_MAIN("tls_edges", tests);
    world_end();
    return failed;
}
