/* The task that reads for a protocol and calls it.  See protocol.h.
 *
 * Bytes go through a small buffer on the stack until a read fills it; then one of the heap serves, as large as a read
 * may usefully be: an idle connection costs little, and a busy one makes few calls. */
#include <heist/error.h>
#include <heist/loop.h>
#include <heist/task.h>

#include "base/alloc.h"
#include "conc/self.h"
#include "loop/loop.h"
#include "net/protocol.h"
#include "task/task.h"

#define SMALL 4096
#define LARGE 65536

/* How the connection ends: a code, or END for an orderly one. */
enum { GOES_ON = 0, END = 1 };

/* What a callback gave, after its turn: below 0 it has failed. */
static int ended(heist_transport *t, const char *what, int code) {
    heist__transport_leave(t);
    if (code < 0 && code != -ECANCELED) heist__loop_report_mine(what, code, NULL, NULL);
    return code;
}

static int made(heist_transport *t) {
    heist__transport_enter(t);
    heist__spin_lock(&t->lock);
    t->made = true;
    heist__spin_unlock(&t->lock);
    int code = ended(t, "connection_made failed", t->protocol->connection_made(t->self, t));
    if (code < 0) return code;
    heist__transport_look(t); /* what was written before */
    return GOES_ON;
}

static int tell_data(heist_transport *t, const void *data, size_t n) {
    heist__transport_enter(t);
    int code = t->protocol->data_received
                   ? ended(t, "data_received failed", t->protocol->data_received(t->self, data, n))
                   : ended(t, "buffer_updated failed", t->protocol->buffer_updated(t->self, n));
    return code < 0 ? code : GOES_ON;
}

static int ask_buffer(heist_transport *t, void **buffer, size_t *n) {
    *buffer = NULL;
    *n = LARGE;
    heist__transport_enter(t);
    int code = t->protocol->get_buffer(t->self, buffer, n);
    if (code >= 0 && (!*n || !*buffer)) code = heist_fail(-ENOBUFS, "get_buffer gave no room");
    code = ended(t, "get_buffer failed", code);
    return code < 0 ? code : GOES_ON;
}

/* The peer has ended its side. */
static int tell_eof(heist_transport *t) {
    int code = 0;
    if (t->protocol->eof_received) {
        heist__transport_enter(t);
        code = ended(t, "eof_received failed", t->protocol->eof_received(t->self));
        if (code < 0) return code;
    }
    if (code > 0) code = heist_stream_wait_closed(t->stream); /* open for writing, until somebody closes it */
    return code < 0 ? code : END;
}

/* ---- paused ---- */

/* While the pump waits to be resumed nobody reads, so nobody would notice that the stream is closed. */
static int watch_close(void *arg, void **out) {
    (void)out;
    heist_transport *t = arg;
    int err = heist_stream_wait_closed(t->stream);
    if (heist_stream_is_closing(t->stream)) heist_event_set(&t->flowing); /* else: it may have been paused anew */
    return err;
}

static int wait_resumed(heist_transport *t) {
    heist_task *watcher = NULL;
    int err = heist_create_task(watch_close, t, NULL, &watcher);
    while (!err && !heist_stream_is_closing(t->stream) && !heist_event_is_set(&t->flowing))
        err = heist_event_wait(&t->flowing);
    if (!watcher) return err;
    heist_cancel(watcher);
    heist_uncancellable_begin();
    (void)heist_await(watcher, NULL);
    heist_uncancellable_end();
    heist_unref(watcher);
    return err;
}

static int let_flow(heist_transport *t) {
    while (!heist_event_is_set(&t->flowing)) {
        if (heist_stream_is_closing(t->stream)) return END;
        int err = wait_resumed(t);
        if (err) return err;
    }
    return GOES_ON;
}

/* ---- the way of a connection ---- */

static int read_one(heist_transport *t, char *small, char **large) {
    void *buffer = *large ? *large : small;
    size_t size = *large ? LARGE : SMALL;
    int code = let_flow(t);
    if (!code && t->protocol->get_buffer) code = ask_buffer(t, &buffer, &size);
    if (code) return code;
    ptrdiff_t n = heist_stream_read(t->stream, buffer, size);
    if (n == HEIST_ECLOSED) return END;
    if (n < 0) return (int)n;
    code = let_flow(t); /* paused while it read: the bytes wait */
    if (code) return code;
    if (n == 0) return tell_eof(t);
    code = tell_data(t, buffer, (size_t)n);
    if (!t->protocol->get_buffer && !*large && (size_t)n == SMALL)
        *large = heist__alloc(LARGE); /* NULL: it goes on small */
    return code;
}

static int read_all(heist_transport *t) {
    char small[SMALL];
    char *large = NULL;
    int code;
    do code = read_one(t, small, &large);
    while (code == GOES_ON);
    heist__free(large);
    return code;
}

/* The stream comes to its end: the code for connection_lost. */
static int end_stream(heist_transport *t, int code) {
    heist__spin_lock(&t->lock);
    t->over = true;
    heist__spin_unlock(&t->lock);
    if (code == END) {
        heist_stream_close(t->stream);
        code = heist_stream_wait_closed(t->stream);
        if (code == HEIST_ECLOSED) code = 0;
    }
    if (code) heist_stream_abort(t->stream);
    heist_uncancellable_begin();
    (void)heist_stream_wait_closed(t->stream);
    (void)heist_waitgroup_wait(&t->wardens);
    heist_uncancellable_end();
    heist__spin_lock(&t->lock);
    if (t->failure) code = t->failure;
    heist__spin_unlock(&t->lock);
    return code;
}

int heist__transport_pump(heist_transport *t) {
    int code = made(t);
    if (!code) code = read_all(t);
    code = end_stream(t, code);
    heist__transport_enter(t);
    t->protocol->connection_lost(t->self, code);
    heist__transport_leave(t);
    return code;
}
