/* One connection of a server: its task, and what others ask of it.  See server.h.
 *
 * Its record stands in the server's list from before its task is made until the task's argument is freed, which comes
 * before the task is done: so whoever holds the lock may take references to the task and the stream of a record that
 * it finds there. */
#include <heist/error.h>
#include <heist/loop.h>
#include <heist/task.h>
#include <string.h>

#include "base/alloc.h"
#include "conc/self.h"
#include "loop/loop.h"
#include "net/server.h"
#include "task/task.h"

/* What was asked before there was something to ask it of, and from now on is done by who asks. */
static unsigned install(struct heist__served *c, heist_task *task, heist_stream *stream) {
    heist_server *s = c->server;
    heist__spin_lock(&s->lock);
    if (task) c->task = task;
    if (stream) c->stream = stream;
    unsigned cut = c->cut;
    heist__spin_unlock(&s->lock);
    return cut;
}

static void apply(heist_stream *stream, heist_task *task, unsigned cut) {
    if (task && (cut & HEIST__CUT_CANCEL)) heist_cancel(task);
    if (stream && (cut & HEIST__CUT_ABORT)) heist_stream_abort(stream);
    else if (stream && (cut & HEIST__CUT_CLOSE)) heist_stream_close(stream);
}

static HEIST_NOINLINE void report(struct heist__served *c, const char *message, int code) {
    heist_server *s = c->server;
    char peer[128] = "unknown";
    heist_addr addr = {.length = sizeof(c->peer)};
    memcpy(&addr.storage, &c->peer, sizeof(c->peer));
    (void)heist_addr_format(&addr, peer, sizeof(peer));
    heist__spin_lock(&s->lock);
    s->failed++;
    heist__spin_unlock(&s->lock);
    char name[64];
    heist_task_name(heist__self()->task, name, sizeof(name));
    const char *const extra[] = {"peer", peer, NULL};
    heist__loop_report_mine(message, code, name, extra);
}

/* In its own task: the stream, by the user's function. */
static int open_stream(struct heist__served *c) {
    heist_server *s = c->server;
    heist_stream *stream = NULL;
    heist_conn *conn = c->conn;
    c->conn = NULL; /* the function's, whatever comes of it */
    int err = s->opts.open(conn, s->opts.stream, s->opts.open_user, &stream);
    if (err) return err;
    apply(stream, NULL, install(c, NULL, stream));
    return 0;
}

static unsigned cut_of(struct heist__served *c) { return install(c, NULL, NULL); }

/* Is it worth a report?  Not the end that somebody asked for. */
static bool is_news(struct heist__served *c, int code) {
    return code < 0 && code != -ECANCELED && !(code == HEIST_ECLOSED && cut_of(c));
}

static int serve_one(void *arg, void **out) {
    (void)out;
    struct heist__served *c = arg;
    heist_server *s = c->server;
    heist_task *self = heist_current_task();
    unsigned cut = install(c, self, NULL);
    if (c->conn && (cut & HEIST__CUT_ABORT)) cut |= HEIST__CUT_CANCEL; /* there is no stream to abort yet */
    apply(c->stream, self, cut);
    if (c->conn) {
        int err = open_stream(c);
        if (err) {
            if (is_news(c, err)) report(c, "a connection could not be opened", err);
            return 0;
        }
    }
    int code = s->handler(c->stream, s->user);
    if (is_news(c, code)) report(c, "a connection handler failed", code);
    if (code == HEIST_SERVER_KEEP) return 0;
    heist_stream_close(c->stream);
    /* What was written is sent meanwhile; who is cancelled does not wait for it. */
    if (code != -ECANCELED && heist_stream_wait_closed(c->stream) == -ECANCELED) heist_stream_abort(c->stream);
    return code == -ECANCELED ? code : 0;
}

/* Frees the argument of serve_one, whether it ran or not. */
static void served_end(void *arg) {
    struct heist__served *c = arg;
    heist_server *s = c->server;
    heist__spin_lock(&s->lock);
    heist__list_remove(&c->link);
    bool began = c->task != NULL;
    heist__spin_unlock(&s->lock);
    if (c->conn) heist_conn_close(c->conn);
    if (c->stream) {
        if (!began) heist_stream_abort(c->stream); /* cancelled before its first step, or no stack to run on */
        heist_stream_unref(c->stream);
    }
    heist__free(c);
    heist__server_less(s, true);
    heist__server_drop(s);
}

/* The place that was taken for it is given back when there will be no task. */
static int give_up(heist_server *s, int err) {
    heist__server_less(s, true);
    return err;
}

int heist__server_serve(heist_server *s, struct heist__served *c, heist_conn *conn, const heist_addr *peer) {
    *c = (struct heist__served){.server = s};
    /* Now, for a socket whose connection was reset knows it no more. */
    if (peer->length <= sizeof(c->peer)) memcpy(&c->peer, &peer->storage, peer->length);
    if (s->opts.open) {
        c->conn = conn;
    } else {
        int err = heist_stream_from_conn(conn, s->opts.stream, &c->stream);
        if (err) {
            heist_conn_close(conn);
            return give_up(s, err);
        }
    }
    heist_task_options options = HEIST_TASK_OPTIONS_INIT;
    options.flags = s->opts.flags & HEIST_SERVER_PINNED ? HEIST_TASK_PINNED : 0;
    options.stack_bytes = s->opts.stack_bytes;
    options.arg_free = served_end;
    heist__server_hold(s);
    heist__spin_lock(&s->lock);
    heist__list_push_back(&s->served, &c->link);
    c->cut = s->doom; /* its task sees to it */
    if (c->cut) s->late++;
    heist__spin_unlock(&s->lock);
    int err = heist_create_task(serve_one, c, &options, NULL);
    if (!err) return 0;
    heist__spin_lock(&s->lock);
    heist__list_remove(&c->link);
    heist__spin_unlock(&s->lock);
    if (c->stream) {
        heist_stream_abort(c->stream);
        heist_stream_unref(c->stream);
    } else {
        heist_conn_close(conn);
    }
    heist__server_drop(s); /* the accepting task has one */
    return give_up(s, err);
}

/* ---- asked of all ----
 *
 * Two marks of the caller's stand in the list: one goes from the front to the other, which stands where the list ended
 * at the call.  Several callers may go through it at once, and pass each other's marks. */

enum { BATCH = 32 };

struct batch {
    heist_stream *streams[BATCH];
    heist_task *tasks[BATCH];
    unsigned count;
};

static bool is_mark(const struct heist__served *c) { return !c->server; }

/* Under the lock. */
static void take(struct batch *b, struct heist__served *c, unsigned what) {
    c->cut |= what;
    bool opening = !c->stream; /* there is nothing to abort: its task is told */
    bool tell = c->task && ((what & HEIST__CUT_CANCEL) || (opening && (what & HEIST__CUT_ABORT)));
    b->streams[b->count] = opening ? NULL : heist_stream_ref(c->stream);
    b->tasks[b->count++] = tell ? heist_ref(c->task) : NULL;
}

/* The next ones behind the mark; nothing: it has come to the end. */
static void take_batch(heist_server *s, struct heist__served *mark, struct heist__served *end, unsigned what,
                       struct batch *b) {
    b->count = 0;
    heist__spin_lock(&s->lock);
    while (b->count < BATCH && mark->link.next != &end->link) {
        struct heist__link *next = mark->link.next;
        struct heist__served *c = heist__list_entry(next, struct heist__served, link);
        heist__list_remove(&mark->link);
        heist__list_insert_before(next->next, &mark->link);
        if (!is_mark(c)) take(b, c, what);
    }
    heist__spin_unlock(&s->lock);
}

static int cut_all(heist_server *s, unsigned what, unsigned doom, int *late) {
    struct heist__served mark = {.server = NULL}, end = {.server = NULL};
    struct batch b;
    int count = 0;
    heist__spin_lock(&s->lock);
    heist__list_push_front(&s->served, &mark.link);
    heist__list_push_back(&s->served, &end.link);
    s->doom |= doom; /* in the same hold: each connection stands before the end, or comes after this */
    *late = s->late;
    heist__spin_unlock(&s->lock);
    do {
        take_batch(s, &mark, &end, what, &b);
        for (unsigned i = 0; i < b.count; i++) {
            if (b.tasks[i]) heist_cancel(b.tasks[i]);
            apply(b.streams[i], NULL, what);
            heist_unref(b.tasks[i]);
            if (b.streams[i]) heist_stream_unref(b.streams[i]);
        }
        count += (int)b.count;
    } while (b.count);
    heist__spin_lock(&s->lock);
    heist__list_remove(&mark.link);
    heist__list_remove(&end.link);
    heist__spin_unlock(&s->lock);
    return count;
}

int heist__server_cut(heist_server *s, unsigned what) {
    int late;
    return cut_all(s, what, 0, &late);
}

int heist__server_cut_off(heist_server *s, int *late) {
    unsigned what = HEIST__CUT_CANCEL | HEIST__CUT_ABORT;
    return cut_all(s, what, what, late);
}
