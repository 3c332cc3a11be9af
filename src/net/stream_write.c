/* Writing: the pen, and the flusher.  The protocol stands in stream.h.
 *
 * A write that finds the pen free takes it and tries at once, out of the caller's memory: as a rule everything goes,
 * nothing is copied and nothing allocated.  What is left goes to the front of the queue (others may have added to it
 * meanwhile), and a flusher sends it.  A write that finds the pen taken adds to the end. */
#include <limits.h>
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fork.h"
#include "net/stream.h"

/* Vectors of one write out of a caller's list, which may be longer. */
enum { CALL_VECTORS = 1024 };
/* A piece up to this is added to the last block of the queue, under the lock. */
enum { ADD_MAX = 1024 };
/* How often a write looks at what others have added, before it leaves that to a flusher. */
enum { TRIES = 4 };

/* ---- what the pen's holder does ---- */

enum { STEP_NOTHING, STEP_SEND, STEP_EOF, STEP_FINISH, STEP_SHUT };

/* Under the lock. */
static int next_step(const heist_stream *s) {
    if (s->state >= HEIST__STREAM_SHUT) return STEP_NOTHING;
    if (s->error) return s->state == HEIST__STREAM_CLOSING ? STEP_SHUT : STEP_NOTHING;
    if (s->head) return STEP_SEND;
    if (s->eof_wanted && !s->eof_done) return STEP_EOF;
    if (s->state == HEIST__STREAM_OPEN) return STEP_NOTHING;
    return s->ops.finish && !s->finished ? STEP_FINISH : STEP_SHUT;
}

/* Under the lock, which it gives up: the pen is free, or the next one's who waits for it. */
static void release_locked(heist_stream *s) {
    struct heist__park *wake = NULL;
    struct heist__chunk *list = s->head ? heist__queue_take_all(s) : NULL; /* only after an abort */
    bool handed = s->state == HEIST__STREAM_OPEN && !s->error &&
                  heist__waitq_claim(&s->penless, HEIST__STREAM_HANDED, NULL, NULL, &wake);
    if (!handed) s->pen = false;
    bool last = heist__stream_last(s);
    heist__spin_unlock(&s->lock);
    if (wake) heist__park_wake(wake);
    heist__chunks_free(list);
    if (last) heist__stream_gone(s);
}

static void flushed(void *arg) { heist_stream_unref(arg); }

static int flush(void *arg, void **out) {
    (void)out;
    heist__self()->task->arg_free = flushed; /* it has begun */
    (void)heist__stream_go_on(arg, true, 0);
    return 0;
}

/* The task never began: the pen is still its own. */
static void flush_never(void *arg) {
    heist_stream *s = arg;
    heist_runtime *rt = heist__self()->worker->rt;
    heist__stream_fail(s, a_load_sc(&rt->closing) ? -ECANCELED : -ENOMEM);
    (void)heist__stream_go_on(s, false, 0);
    heist_stream_unref(s);
}

static int spawn_flusher(heist_stream *s) {
    heist_task_options opts = HEIST_TASK_OPTIONS_INIT;
    opts.arg_free = flush_never;
    opts.stack_bytes = s->stack_bytes;
    return heist__spawn_helper(flush, s, &opts);
}

static void posted_run(struct heist__job *job, heist_loop *loop) {
    (void)loop;
    heist_stream *s = heist_container_of(job, heist_stream, job);
    int err = spawn_flusher(s);
    if (!err) return;
    heist__stream_fail(s, err);
    (void)heist__stream_go_on(s, false, 0);
    heist_stream_unref(s);
}

static void posted_drop(struct heist__job *job) {
    heist_stream *s = heist_container_of(job, heist_stream, job);
    heist__stream_fail(s, HEIST_ECLOSED);
    (void)heist__stream_go_on(s, false, 0);
    heist_stream_unref(s);
}

static const struct heist__job_class posted_class = {posted_run, posted_drop};

/* Hands the pen to a flusher, or to the job that makes it: 0.  Or a code, and the pen is still the caller's. */
static int make_flusher(heist_stream *s) {
    int err;
    heist_stream_ref(s);
    if (heist__self()->worker) {
        err = spawn_flusher(s);
    } else if (s->loop) {
        s->job.klass = &posted_class;
        err = heist__loop_post_checked(s->loop, s->loop_id, &s->job);
    } else {
        err = HEIST_ENOLOOP;
    }
    if (err) heist_stream_unref(s); /* never the last: the caller has one */
    return err;
}

/* Somebody asked all tasks to end, which is none of a flusher's business. */
static bool is_idle_request(int err) {
    return err == -ECANCELED && !a_load_sc(&heist__self()->task->rt->closing);
}

/* A flusher's step has failed. */
static void flusher_failed(heist_stream *s, int err) {
    if (is_idle_request(err)) return;
    heist__spin_lock(&s->lock);
    bool aborted = s->state >= HEIST__STREAM_SHUT;
    heist__spin_unlock(&s->lock);
    if (!aborted) heist__stream_fail(s, err);
}

/* One step that is not SHUT.  0, -EAGAIN (only by a flusher), or a code. */
static int take_step(heist_stream *s, int step, const struct iovec *iov, int count, bool may_suspend, double deadline) {
    switch (step) {
        case STEP_SEND: {
            ptrdiff_t n = may_suspend         ? s->ops.writev(s->self, iov, count, deadline)
                          : s->ops.try_writev ? s->ops.try_writev(s->self, iov, count)
                                              : -EAGAIN;
            if (n > 0) heist__queue_consume(s, (size_t)n);
            return n < 0 ? (int)n : 0;
        }
        case STEP_EOF: {
            int err = -EAGAIN;
            if (s->ops.try_write_eof) err = s->ops.try_write_eof(s->self);
            if (err == -EAGAIN && may_suspend) err = s->ops.write_eof ? s->ops.write_eof(s->self, deadline) : 0;
            if (!err) {
                heist__spin_lock(&s->lock);
                s->eof_done = true;
                heist__spin_unlock(&s->lock);
            }
            return err;
        }
        default: {
            if (!may_suspend) return -EAGAIN;
            int err = s->ops.finish(s->self, deadline);
            if (err == -EINTR || is_idle_request(err)) return err;
            heist__spin_lock(&s->lock);
            s->finished = true; /* also when it failed: it is tried once */
            heist__spin_unlock(&s->lock);
            return err;
        }
    }
}

int heist__stream_go_on(heist_stream *s, bool may_suspend, int tries) {
    struct iovec iov[HEIST__QUEUE_VECTORS];
    int refused = 0;
    for (;;) {
        int count = 0;
        heist__spin_lock(&s->lock);
        int step = next_step(s);
        if (step == STEP_NOTHING) {
            release_locked(s);
            return refused;
        }
        if (step == STEP_SEND) count = heist__queue_gather(s, iov);
        double deadline = s->state == HEIST__STREAM_CLOSING ? s->write_deadline : HEIST_FOREVER;
        heist__spin_unlock(&s->lock);
        if (step == STEP_SHUT) {
            heist__stream_shut(s);
            continue;
        }
        bool try = may_suspend || step != STEP_SEND || tries-- > 0;
        int err = try ? take_step(s, step, iov, count, may_suspend, deadline) : -EAGAIN;
        if (may_suspend) heist__wait_skipped(heist__self()); /* what always takes more must not keep others waiting */
        if (!err || err == -EINTR) continue;
        if (may_suspend) {
            if (err != -EAGAIN) flusher_failed(s, err);
        } else if (err != -EAGAIN) {
            heist__stream_fail(s, err);
        } else {
            err = make_flusher(s);
            if (!err) return refused;
            refused = err;
            heist__stream_fail(s, err);
        }
    }
}

/* ---- writing ---- */

/* Under the lock: may anything be written? */
static int may_write(const heist_stream *s) {
    if (s->state != HEIST__STREAM_OPEN) return s->error ? s->error : HEIST_ECLOSED;
    if (s->error) return s->error;
    return s->eof_wanted ? HEIST_EINVALSTATE : 0;
}

/* Tries: how many bytes went; and in *err what is to be said of the rest (-EAGAIN: wait). */
static size_t try_all(heist_stream *s, const struct iovec *iov, int count, size_t total, int *err) {
    size_t gone = 0;
    *err = -EAGAIN;
    while (s->ops.try_writev && gone < total) {
        int vectors = count < CALL_VECTORS ? count : CALL_VECTORS;
        size_t asked = 0;
        for (int i = 0; i < vectors; i++) asked += iov[i].iov_len;
        ptrdiff_t n = asked ? s->ops.try_writev(s->self, iov, vectors) : 0;
        if (n == -EINTR) continue;
        if (n < 0) {
            *err = (int)n;
            break;
        }
        gone += (size_t)n;
        if ((size_t)n < asked) break; /* it takes no more now */
        iov += vectors;
        count -= vectors;
    }
    return gone;
}

/* No flusher could be made.  True: the rest, which is all of the write, is taken back, as if it had not been made. */
static bool take_back(heist_stream *s, struct heist__chunk *rest, size_t total) {
    struct heist__waitnode *woken = NULL;
    heist__spin_lock(&s->lock);
    bool alone = s->head == rest && !rest->next && rest->end - rest->start == total;
    if (alone) {
        (void)heist__queue_take_all(s);
        if (s->paused) woken = heist__waitq_claim_all(&s->drainers, 0);
        s->paused = false;
    }
    heist__spin_unlock(&s->lock);
    heist__waitq_wake_all(woken);
    if (alone) heist__chunks_free(rest);
    return alone;
}

/* With the pen, and a queue that was empty. */
static int write_now(heist_stream *s, const struct iovec *iov, int count, size_t total) {
    int err;
    size_t gone = try_all(s, iov, count, total, &err);
    if (gone == total) {
        (void)heist__stream_go_on(s, false, TRIES); /* what it may be refused is others' */
        return 0;
    }
    struct heist__chunk *rest = NULL;
    if (err == -EAGAIN) {
        rest = heist__chunk_new(total - gone);
        if (!rest) err = -ENOMEM;
    }
    if (!rest) {
        if (err != -ENOMEM || gone) heist__stream_fail(s, err);
        (void)heist__stream_go_on(s, false, TRIES);
        return err;
    }
    heist__chunk_fill(rest, iov, count, gone);
    heist__spin_lock(&s->lock);
    bool aborted = s->state >= HEIST__STREAM_SHUT;
    if (!aborted) heist__queue_add_first(s, rest);
    heist__spin_unlock(&s->lock);
    if (aborted) {
        heist__chunks_free(rest);
        err = HEIST_ECLOSED;
    } else {
        err = make_flusher(s);
        if (!err) return 0;
        if (!take_back(s, rest, total)) heist__stream_fail(s, err);
    }
    (void)heist__stream_go_on(s, false, TRIES);
    return err;
}

/* Somebody has the pen, a moment ago at least. */
static int write_behind(heist_stream *s, const struct iovec *iov, int count, size_t total) {
    struct heist__chunk *c = heist__chunk_new(total);
    if (!c) return -ENOMEM;
    heist__chunk_fill(c, iov, count, 0);
    heist__spin_lock(&s->lock);
    int err = may_write(s);
    bool mine = !err && !s->pen;
    if (!err) {
        heist__queue_add_last(s, c);
        s->pen = true;
    }
    heist__spin_unlock(&s->lock);
    if (err) heist__chunks_free(c);
    if (mine) err = heist__stream_go_on(s, false, TRIES);
    return err;
}

static int write_vectors(heist_stream *s, const struct iovec *iov, int count, size_t total) {
    if (heist__forked()) return HEIST_EFORKED;
    heist__spin_lock(&s->lock);
    int err = may_write(s);
    if (err || !total) {
        heist__spin_unlock(&s->lock);
        return err;
    }
    if (!s->pen) {
        s->pen = true;
        heist__spin_unlock(&s->lock);
        return write_now(s, iov, count, total);
    }
    bool added = total <= ADD_MAX && s->tail && s->tail->room - s->tail->end >= total;
    if (added) {
        heist__chunk_fill(s->tail, iov, count, 0);
        heist__queue_count(s, total);
    }
    heist__spin_unlock(&s->lock);
    return added ? 0 : write_behind(s, iov, count, total);
}

int heist_stream_write(heist_stream *s, const void *buf, size_t n) {
    if (!s || (!buf && n) || n > PTRDIFF_MAX) return -EINVAL;
    struct iovec one = {(void *)(uintptr_t)buf, n};
    return write_vectors(s, &one, 1, n);
}

int heist_stream_writelines(heist_stream *s, const struct iovec *iov, int count) {
    if (!s || count < 0 || (!iov && count)) return -EINVAL;
    size_t total = 0;
    for (int i = 0; i < count; i++) {
        if ((!iov[i].iov_base && iov[i].iov_len) || iov[i].iov_len > PTRDIFF_MAX - total) return -EINVAL;
        total += iov[i].iov_len;
    }
    return write_vectors(s, iov, count, total);
}

int heist_stream_can_write_eof(heist_stream *s) {
    if (!s) return -EINVAL;
    return s->ops.try_write_eof || s->ops.write_eof;
}

int heist_stream_write_eof(heist_stream *s) {
    if (!s) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    if (!heist_stream_can_write_eof(s)) return -ENOTSUP;
    heist__spin_lock(&s->lock);
    int err = s->eof_wanted && s->state == HEIST__STREAM_OPEN && !s->error ? 0 : may_write(s);
    bool mine = !err && !s->eof_wanted && !s->pen;
    if (!err) s->eof_wanted = true;
    if (mine) s->pen = true;
    heist__spin_unlock(&s->lock);
    if (!mine) return err;
    err = heist__stream_go_on(s, false, TRIES);
    if (err) return err;
    heist__spin_lock(&s->lock);
    err = s->error;
    heist__spin_unlock(&s->lock);
    return err;
}
