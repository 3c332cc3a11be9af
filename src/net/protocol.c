/* Transports: life, writing, and the warden of the high-water mark.  See protocol.h. */
#include "net/protocol.h"

#include <heist/error.h>
#include <heist/loop.h>
#include <heist/task.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fork.h"
#include "base/options.h"
#include "conc/self.h"
#include "loop/loop.h"
#include "net/stream.h"

static bool protocol_ok(const heist_protocol *p) {
    return p && p->size >= sizeof(*p) && p->connection_made && p->connection_lost &&
           (p->get_buffer ? p->buffer_updated && !p->data_received : p->data_received && !p->buffer_updated) &&
           !p->pause_writing == !p->resume_writing;
}

heist_transport *heist__transport_new(heist_stream *stream, const heist_protocol *protocol, void *self) {
    heist_transport *t = heist__zalloc(sizeof(*t));
    if (!t) return NULL;
    a_store_rlx(&t->refs, 1); /* rlx: nobody else knows it */
    t->stream = heist_stream_ref(stream);
    t->protocol = protocol;
    t->self = self;
    t->loop = heist__self()->loop->home;
    t->loop_id = a_load_rlx(&t->loop->id); /* rlx: it runs us */
    heist_lock_init(&t->turn);
    heist_waitgroup_init(&t->wardens);
    heist_event_init(&t->flowing);
    heist_event_set(&t->flowing);
    return t;
}

heist_transport *heist_transport_ref(heist_transport *t) {
    if (t && !heist__forked()) a_add_rlx(&t->refs, 1); /* rlx: the caller has one */
    return t;
}

void heist_transport_unref(heist_transport *t) {
    if (!t || heist__forked()) return;      /* a child's copy is the parent's */
    if (a_sub_ar(&t->refs, 1) != 1) return; /* ar: as every last reference */
    heist_stream_unref(t->stream);
    heist__free(t);
}

void heist__transport_enter(heist_transport *t) {
    heist_uncancellable_begin();
    while (heist_lock_acquire(&t->turn)) {} /* in a task, in a section: nothing can make it fail */
    heist_uncancellable_end();
}

void heist__transport_leave(heist_transport *t) { heist_lock_release(&t->turn); }

/* ---- the warden ---- */

static bool too_much(heist_transport *t) {
    heist_stream *s = t->stream;
    heist__spin_lock(&s->lock);
    bool paused = s->paused;
    heist__spin_unlock(&s->lock);
    return paused;
}

/* Nothing is left to be told, or the connection is over. */
static bool may_end(heist_transport *t) {
    heist__spin_lock(&t->lock);
    bool end = t->over || !too_much(t);
    if (end) t->warden = false;
    heist__spin_unlock(&t->lock);
    return end;
}

static int warden(void *arg, void **out) {
    (void)out;
    heist_transport *t = arg;
    int err;
    do {
        heist__transport_enter(t);
        t->protocol->pause_writing(t->self);
        heist__transport_leave(t);
        err = heist_stream_drain(t->stream);
        heist__transport_enter(t);
        t->protocol->resume_writing(t->self);
        heist__transport_leave(t);
    } while (!err && !may_end(t));
    return 0; /* a failure of the drain is the pump's business */
}

/* Ran or not. */
static void warden_end(void *arg) {
    heist_transport *t = arg;
    heist__spin_lock(&t->lock);
    t->warden = false;
    heist__spin_unlock(&t->lock);
    heist_waitgroup_done(&t->wardens);
    heist_transport_unref(t);
}

static int make_warden(heist_transport *t) {
    heist_task_options options = HEIST_TASK_OPTIONS_INIT;
    options.arg_free = warden_end;
    if (heist__self()->worker) return heist_create_task(warden, t, &options, NULL);
    if (!heist__loop_try_ref(t->loop, t->loop_id)) return HEIST_ECLOSED;
    int err = heist_loop_create_task(t->loop, warden, t, &options, NULL);
    heist__loop_release(t->loop);
    return err;
}

void heist__transport_look(heist_transport *t) {
    if (!t->protocol->pause_writing || !too_much(t)) return;
    heist__spin_lock(&t->lock);
    bool mine = t->made && !t->warden && !t->over;
    if (mine) {
        t->warden = true;
        heist_waitgroup_add(&t->wardens, 1);
    }
    heist__spin_unlock(&t->lock);
    if (!mine) return;
    int err = make_warden(heist_transport_ref(t));
    if (!err) return;
    heist__spin_lock(&t->lock);
    t->failure = err;
    heist__spin_unlock(&t->lock);
    heist_stream_abort(t->stream); /* the protocol could not be told: it would write on without end */
    warden_end(t);
}

int heist_transport_write(heist_transport *t, const void *buf, size_t n) {
    if (!t) return -EINVAL;
    int err = heist_stream_write(t->stream, buf, n);
    if (!err) heist__transport_look(t);
    return err;
}

int heist_transport_writelines(heist_transport *t, const struct iovec *iov, int count) {
    if (!t) return -EINVAL;
    int err = heist_stream_writelines(t->stream, iov, count);
    if (!err) heist__transport_look(t);
    return err;
}

int heist_transport_write_eof(heist_transport *t) { return t ? heist_stream_write_eof(t->stream) : -EINVAL; }

/* ---- the end, and reading ---- */

int heist_transport_close(heist_transport *t) {
    if (!t) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    heist_stream_close(t->stream);
    heist_event_set(&t->flowing); /* the pump sees that there is nothing to wait for */
    return 0;
}

int heist_transport_abort(heist_transport *t) {
    if (!t) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    heist_stream_abort(t->stream);
    heist_event_set(&t->flowing);
    return 0;
}

int heist_transport_is_closing(heist_transport *t) { return t ? heist_stream_is_closing(t->stream) : -EINVAL; }

int heist_transport_pause_reading(heist_transport *t) { return t ? heist_event_clear(&t->flowing) : -EINVAL; }
int heist_transport_resume_reading(heist_transport *t) { return t ? heist_event_set(&t->flowing) : -EINVAL; }

int heist_transport_is_reading(heist_transport *t) {
    if (!t) return -EINVAL;
    int flowing = heist_event_is_set(&t->flowing);
    return flowing == 1 ? !heist_stream_is_closing(t->stream) : flowing;
}

heist_stream *heist_transport_stream(heist_transport *t) { return t ? t->stream : NULL; }

/* ---- making ---- */

int heist_protocol_run(heist_stream *stream, const heist_protocol *protocol, void *self) {
    if (!stream || !protocol_ok(protocol)) return -EINVAL;
    int err = heist__wait_entry(heist__self());
    if (err) return err;
    if (!heist__self()->task) return HEIST_ENOLOOP;
    heist_transport *t = heist__transport_new(stream, protocol, self);
    if (!t) return -ENOMEM;
    err = heist__transport_pump(t);
    heist_transport_unref(t);
    return err;
}

struct started {
    heist_transport *transport;
    bool began;
};

static int run_started(void *arg, void **out) {
    (void)out;
    struct started *s = arg;
    s->began = true;
    (void)heist__transport_pump(s->transport); /* the protocol was told */
    return 0;
}

/* One that never began was not made: its protocol hears nothing. */
static void end_started(void *arg) {
    struct started *s = arg;
    heist_transport *t = s->transport;
    if (!s->began) heist_stream_abort(t->stream);
    heist_transport_unref(t);
    heist__free(s);
}

int heist_protocol_start(heist_stream *stream, const heist_protocol *protocol, void *self, heist_transport **out) {
    if (!stream || !protocol_ok(protocol)) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    if (!heist__self()->worker) return HEIST_ENOLOOP;
    struct started *s = heist__zalloc(sizeof(*s));
    heist_transport *t = s ? heist__transport_new(stream, protocol, self) : NULL;
    int err = t ? 0 : -ENOMEM;
    if (!err) {
        s->transport = t;
        heist_transport_ref(t); /* the caller's, or ours until the end of this call */
        heist_task_options options = HEIST_TASK_OPTIONS_INIT;
        options.arg_free = end_started;
        err = heist_create_task(run_started, s, &options, NULL);
        if (err) heist_transport_unref(t);
    }
    if (err) {
        heist_transport_unref(t);
        heist__free(s);
        return err;
    }
    heist_stream_unref(stream); /* the transport has its own */
    if (out) *out = t;
    else heist_transport_unref(t);
    return 0;
}

int heist_create_connection(const heist_protocol *protocol, void *self, const char *host, const char *port,
                            const heist_open_options *opts, heist_transport **out) {
    if (!protocol_ok(protocol)) return -EINVAL;
    heist_stream *stream;
    int err = heist_open_connection(host, port, opts, &stream);
    if (err) return err;
    err = heist_protocol_start(stream, protocol, self, out);
    if (err) {
        heist_stream_abort(stream);
        heist_stream_unref(stream);
    }
    return err;
}

/* ---- a server of protocols ---- */

struct factory {
    heist_protocol_factory make;
    void *user;
    heist_free_fn user_free;
};

/* The memory first: a protocol that was made is told how its connection ended. */
static int serve(heist_stream *stream, void *user) {
    struct factory *f = user;
    heist_transport *t = heist__transport_new(stream, NULL, NULL);
    if (!t) return -ENOMEM;
    int err = f->make(f->user, &t->protocol, &t->self);
    if (err >= 0 && !protocol_ok(t->protocol)) err = heist_fail(-EINVAL, "the factory gave no whole protocol");
    if (err >= 0) err = heist__transport_pump(t) == -ECANCELED ? -ECANCELED : 0; /* else the protocol was told */
    heist_transport_unref(t);
    return err;
}

static void free_factory(void *user) {
    struct factory *f = user;
    if (f->user_free) f->user_free(f->user);
    heist__free(f);
}

int heist_create_server(heist_protocol_factory factory, void *user, const char *host, const char *port,
                        const heist_server_options *opts, heist_server **out) {
    if (!factory || !heist__options_ok(opts, sizeof(*opts))) return -EINVAL;
    struct factory *f = heist__alloc(sizeof(*f));
    if (!f) return -ENOMEM;
    heist_server_options own = HEIST_SERVER_OPTIONS_INIT;
    if (opts) own = *opts;
    *f = (struct factory){factory, user, own.user_free};
    own.size = sizeof(own);
    own.user_free = free_factory;
    int err = heist_start_server(serve, f, host, port, &own, out);
    if (err) heist__free(f);
    return err;
}
