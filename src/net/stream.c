/* A stream's life: birth, references, close, abort, what it is.  The protocol stands in stream.h. */
#include "net/stream.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fork.h"
#include "base/options.h"
#include "conc/self.h"
#include "loop/loop.h"
#include "sync/wait_while.h"

#define DEFAULT_LIMIT 65536
#define DEFAULT_HIGH 65536

bool heist__stream_options_ok(const heist_stream_options *o) {
    if (!o) return true;
    if (!heist__options_ok(o, sizeof(*o)) || o->limit < 0 || (unsigned long long)o->limit > SIZE_MAX / 4) return false;
    return o->low_water <= (o->high_water ? o->high_water : DEFAULT_HIGH);
}

int heist_stream_new(const heist_stream_ops *ops, void *self, const heist_stream_options *opts, heist_stream **out) {
    if (!ops || !out || !heist__stream_options_ok(opts) || !heist__options_ok(ops, sizeof(*ops))) return -EINVAL;
    if (!ops->read || !ops->writev || !ops->close || !ops->free) return -EINVAL;
    if (heist__fork_guard()) return -ENOMEM;
    if (heist__forked()) return HEIST_EFORKED;
    heist_stream *s = heist__zalloc(sizeof(*s));
    if (!s) return -ENOMEM;
    memcpy(&s->ops, ops, sizeof(s->ops));
    s->self = self;
    struct heist__self *me = heist__self();
    if (me->loop) {
        s->loop = me->loop->home;
        s->loop_id = a_load_rlx(&s->loop->id); /* rlx: it runs us */
    }
    a_store_rlx(&s->refs, 1); /* rlx: not published yet */
    s->limit = opts && opts->limit ? (size_t)opts->limit : DEFAULT_LIMIT;
    s->high = opts && opts->high_water ? opts->high_water : DEFAULT_HIGH;
    s->low = opts && opts->low_water ? opts->low_water : s->high / 4;
    s->stack_bytes = opts ? opts->stack_bytes : 0;
    s->read_deadline = s->write_deadline = HEIST_FOREVER;
    heist__spin_init_ranked(&s->lock, HEIST__RANK_SYNC);
    *out = s;
    return 0;
}

heist_stream *heist_stream_ref(heist_stream *s) {
    if (s) a_add_rlx(&s->refs, 1); /* rlx: the caller holds one */
    return s;
}

static void report_dropped(heist_stream *s) {
    heist_report report = HEIST_REPORT_INIT;
    report.message = "a stream was dropped without close";
    heist__loop_post_report(s->loop, s->loop_id, &report, NULL, NULL);
}

void heist_stream_unref(heist_stream *s) {
    if (!s || heist__forked()) return;      /* a child's copy is the parent's */
    if (a_sub_ar(&s->refs, 1) != 1) return; /* ar: as every last reference */
    /* Nobody is inside: reader, writers and the flusher hold a reference. */
    if (s->state == HEIST__STREAM_OPEN) {
        report_dropped(s);
        s->dropped = true;
        heist_stream_abort(s);
    }
    heist__free(s->buf);
    heist__free(s);
}

/* ---- the end ---- */

void heist__stream_gone(heist_stream *s) {
    s->ops.free(s->self);
    heist__spin_lock(&s->lock);
    s->freed = true;
    heist_stream *above = s->above;
    s->above = NULL;
    struct heist__waitnode *woken = heist__waitq_claim_all(&s->closers, 0);
    heist__spin_unlock(&s->lock);
    heist__waitq_wake_all(woken);
    if (!above) return;
    heist__stream_leave(above);
    heist_stream_unref(above);
}

/* `above`, which is inside itself once more, and has a reference more, waits for our end.  False: we are gone. */
static bool stand_on(heist_stream *below, heist_stream *above) {
    heist__spin_lock(&below->lock);
    bool waits = !below->freed && !below->above;
    if (waits) below->above = above;
    heist__spin_unlock(&below->lock);
    return waits;
}

void heist__stream_leave(heist_stream *s) {
    heist__spin_lock(&s->lock);
    s->inside--;
    bool last = heist__stream_last(s);
    heist__spin_unlock(&s->lock);
    if (last) heist__stream_gone(s);
}

/* Under the lock, which it gives up: nobody enters from now on, who is inside is called out. */
static void shut_locked(heist_stream *s) {
    s->state = HEIST__STREAM_SHUT;
    s->inside++;
    struct heist__waitnode *drainers = heist__waitq_claim_all(&s->drainers, s->error ? s->error : HEIST_ECLOSED);
    struct heist__waitnode *penless = heist__waitq_claim_all(&s->penless, HEIST_ECLOSED);
    bool stands = s->ops.below && !s->dropped; /* else nobody is there to wait */
    if (stands) s->inside++;
    heist__spin_unlock(&s->lock);
    s->ops.close(s->self);
    heist__waitq_wake_all(drainers);
    heist__waitq_wake_all(penless);
    if (stands) {
        heist_stream *below = s->ops.below(s->self);
        heist_stream_ref(s);
        if (!below || !stand_on(below, s)) {
            heist__stream_leave(s);
            heist_stream_unref(s);
        }
    }
    heist__stream_leave(s);
}

void heist__stream_shut(heist_stream *s) {
    heist__spin_lock(&s->lock);
    if (s->state < HEIST__STREAM_SHUT) shut_locked(s);
    else heist__spin_unlock(&s->lock); /* an abort was first */
}

void heist_stream_close(heist_stream *s) {
    if (!s || heist__forked()) return;
    heist__spin_lock(&s->lock);
    if (s->state != HEIST__STREAM_OPEN) {
        heist__spin_unlock(&s->lock);
        return;
    }
    s->state = HEIST__STREAM_CLOSING;
    bool mine = !s->pen, reader = s->reading;
    s->pen = true;
    s->inside++;
    struct heist__waitnode *penless = heist__waitq_claim_all(&s->penless, HEIST_ECLOSED);
    heist__spin_unlock(&s->lock);
    heist__waitq_wake_all(penless);
    if (s->ops.interrupt) {
        if (reader) s->ops.interrupt(s->self, 0);
        if (!mine) s->ops.interrupt(s->self, 1); /* it has the write deadline from now on */
    }
    if (mine) (void)heist__stream_go_on(s, false, 1);
    heist__stream_leave(s);
}

void heist_stream_abort(heist_stream *s) {
    if (!s || heist__forked()) return;
    heist__spin_lock(&s->lock);
    if (s->state < HEIST__STREAM_SHUT) shut_locked(s);
    else heist__spin_unlock(&s->lock);
}

int heist_stream_is_closing(heist_stream *s) {
    if (!s) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    heist__spin_lock(&s->lock);
    int closing = s->state != HEIST__STREAM_OPEN;
    heist__spin_unlock(&s->lock);
    return closing;
}

/* ---- waiting ---- */

struct asked {
    heist_stream *stream;
    bool (*waits)(heist_stream *s);
};

static bool ask(const void *object, uint64_t arg) {
    const struct asked *a = object;
    (void)arg;
    return a->waits(a->stream);
}

int heist__stream_wait(heist_stream *s, struct heist__waitq *q, bool (*waits)(heist_stream *s), double deadline) {
    struct asked a = {s, waits};
    return heist__wait_while(&s->lock, q, ask, &a, 0, heist__ns_from_seconds(deadline));
}

static bool not_gone(heist_stream *s) { return !s->freed; }

int heist_stream_wait_closed(heist_stream *s) {
    if (!s) return -EINVAL;
    struct heist__self *self = heist__self();
    int err = heist__wait_entry(self);
    if (err) return err;
    heist__spin_lock(&s->lock);
    bool waits = not_gone(s);
    heist__spin_unlock(&s->lock);
    if (waits) err = heist__stream_wait(s, &s->closers, not_gone, HEIST_FOREVER);
    else heist__wait_skipped(self);
    if (err) return err;
    heist__spin_lock(&s->lock);
    err = s->error;
    heist__spin_unlock(&s->lock);
    return err;
}

/* ---- deadlines ---- */

static int set_deadline(heist_stream *s, double when, bool writer) {
    if (!s || isnan(when)) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    heist__spin_lock(&s->lock);
    *(writer ? &s->write_deadline : &s->read_deadline) = when;
    bool tell = s->state < HEIST__STREAM_SHUT && s->ops.interrupt && (writer ? s->pen : s->reading);
    if (tell) s->inside++;
    struct heist__waitnode *drainers = writer ? heist__waitq_claim_all(&s->drainers, -EINTR) : NULL;
    struct heist__waitnode *penless = writer ? heist__waitq_claim_all(&s->penless, -EINTR) : NULL;
    heist__spin_unlock(&s->lock);
    heist__waitq_wake_all(drainers); /* each looks again */
    heist__waitq_wake_all(penless);
    if (tell) {
        s->ops.interrupt(s->self, writer);
        heist__stream_leave(s);
    }
    return 0;
}

int heist_stream_set_read_deadline(heist_stream *s, double when) { return set_deadline(s, when, false); }
int heist_stream_set_write_deadline(heist_stream *s, double when) { return set_deadline(s, when, true); }

/* ---- what it is ---- */

int heist_stream_get_extra_info(heist_stream *s, int key, void *out, size_t size) {
    if (!s || !out) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    heist__spin_lock(&s->lock);
    bool open = s->state < HEIST__STREAM_SHUT;
    if (open) s->inside++;
    heist__spin_unlock(&s->lock);
    if (!open) return HEIST_ECLOSED;
    int err = s->ops.info ? s->ops.info(s->self, key, out, size) : -ENOENT;
    heist__stream_leave(s);
    return err;
}
