/* Stages and buffers of pipelines, both generators (flow/generator.c).
 *
 * A stage is a body that closes its input when it has ended.  A buffer is an iterator with a task and a channel:
 *
 *      task:      next of source ──send──> channel ──recv──> next of the buffer
 *
 *   the channel closes  when the task is over, on every path (its arg_free, which also runs when it never ran), and
 *                       when the consumer closes: the first tells the consumer that no value comes any more, the
 *                       second a task whose source swallowed the cancellation that nobody takes any
 *   source              driven by the task while that lives, and by nobody else; before and after, the consumer's
 *   a value             with the task until its send returns 0, then in the channel, then the consumer's
 *   the record          one reference of the iterator, one of the task; the last frees what stayed in the channel */
#include <heist/channel.h>
#include <heist/error.h>
#include <heist/future.h>
#include <heist/pipeline.h>
#include <heist/runtime.h>
#include <heist/task.h>
#include <string.h>

#include "base/alloc.h"
#include "base/options.h"
#include "base/sys.h"
#include "conc/atomic.h"
#include "conc/self.h"
#include "flow/generator.h"
#include "mem/stack.h"
#include "task/task.h"

/* ---- stages ---- */

struct stage {
    heist_generator *input;
    heist_stage_fn fn;
    void *arg;
    heist_free_fn arg_free;
};

static int stage_body(heist_generator *self, void *arg, void **out) {
    struct stage *s = arg;
    int err = s->fn(self, s->input, s->arg, out);
    int closed = heist_generator_close(s->input);
    return err < 0 ? err : closed;
}

static int close_input(void *arg) { return heist_generator_close(((struct stage *)arg)->input); }

static void stage_free(void *arg) {
    struct stage *s = arg;
    if (s->arg_free) heist__destruct(s->arg_free, s->arg);
    heist_generator_unref(s->input);
    heist__free(s);
}

int heist_pipeline_stage(heist_generator *input, heist_stage_fn fn, void *arg, const heist_generator_options *opts,
                         heist_generator **out) {
    static const heist_generator_options defaults = HEIST_GENERATOR_OPTIONS_INIT;
    if (!input || !fn || !out || !heist__options_ok(opts, sizeof(*opts))) return -EINVAL;
    heist_generator_options own = opts ? *opts : defaults;
    own.size = sizeof(own);
    struct stage *s = heist__alloc(sizeof(*s));
    if (!s) return -ENOMEM;
    *s = (struct stage){input, fn, arg, own.arg_free};
    own.arg_free = stage_free;
    heist_generator *g;
    int err = heist_generator_new(stage_body, s, &own, &g);
    if (err) {
        heist__free(s);
        return err;
    }
    heist_generator_ref(input);
    heist__generator_unbegun(g, close_input);
    *out = g;
    return 0;
}

/* ---- buffers ---- */

struct buffer {
    heist_generator *source;
    heist_channel *channel;
    heist_task *task; /* the consumer's; NULL before the first value was asked for */
    bool begun;       /* the task's, and the consumer's when it has ended */
    heist_runtime *runtime;
    heist_free_fn value_free;
    size_t stack_bytes;
    char *name;
    _Atomic(uint32_t) refs;
};

static void buffer_unref(struct buffer *b) {
    if (a_sub_ar(&b->refs, 1) != 1) return; /* ar: as every last reference */
    void *value;
    while (b->value_free && heist_channel_try_recv(b->channel, &value) == 0)
        heist__destruct(b->value_free, value);
    heist_channel_unref(b->channel);
    heist_generator_unref(b->source);
    heist_runtime_unref(b->runtime);
    heist__free(b->name);
    heist__free(b);
}

/* The task is over, or never ran. */
static void task_over(void *arg) {
    struct buffer *b = arg;
    heist_channel_close(b->channel);
    buffer_unref(b);
}

static int run_ahead(void *arg, void **out) {
    struct buffer *b = arg;
    void *value;
    int err;
    (void)out;
    b->begun = true;
    while (!(err = heist_generator_next(b->source, &value))) {
        err = heist_channel_send(b->channel, value);
        if (!err) continue;
        if (b->value_free) heist__destruct(b->value_free, value);
        break;
    }
    if (err == HEIST_ESTOP) return 0;
    int closed = heist_generator_close(b->source);
    if (err != HEIST_ESHUTDOWN && err != -ECANCELED) return err;
    return closed ? closed : -ECANCELED;
}

static int start(struct buffer *b) {
    heist_task_options opts = HEIST_TASK_OPTIONS_INIT;
    opts.stack_bytes = b->stack_bytes;
    opts.name = b->name;
    opts.arg_free = task_over;
    a_add_rlx(&b->refs, 1); /* rlx: the iterator holds one */
    int err = b->runtime ? heist_runtime_run_coroutine(b->runtime, run_ahead, b, &opts, &b->task)
                         : heist_create_task(run_ahead, b, &opts, &b->task);
    if (err) a_sub_rlx(&b->refs, 1); /* rlx: the same */
    return err;
}

/* The task's end and its outcome: what it cannot wait for is told by the code.  A request to cancel the caller that
 * came meanwhile went on to the task; where the outcome does not tell of it, the caller's next suspending call does. */
static int task_outcome(struct buffer *b, bool tells) {
    heist_task *t = heist__self()->task;
    uint32_t base = t ? heist__cancel_base(t) : 0;
    int err = 0;
    while (!heist_future_done(b->task)) { /* a request to cancel the caller goes on to it, and it is waited for */
        err = heist_await(b->task, NULL);
        if (heist_future_done(b->task) || err == -ECANCELED) continue;
        if (err != -ENOMEM) return err; /* a callback cannot wait */
        heist__sys_yield();             /* a plain thread has nothing to wait with, and waits all the same */
    }
    err = heist_future_result(b->task, NULL);
    if (t && !(tells && err == -ECANCELED)) heist__cancel_again(t, base);
    return err;
}

static int buffer_next(void *state, void **out) {
    struct buffer *b = state;
    if (!b->task) {
        int err = start(b);
        if (err) return err;
    }
    int err = heist_channel_recv(b->channel, out);
    if (err != HEIST_ESHUTDOWN) return err;
    err = task_outcome(b, true);
    if (err) return err;
    heist_generator_result(b->source, out);
    return HEIST_ESTOP;
}

static void stop(struct buffer *b) {
    heist_channel_close(b->channel);
    heist_cancel(b->task);
}

static int buffer_close(void *state) {
    struct buffer *b = state;
    if (!b->task) return heist_generator_close(b->source);
    stop(b);
    int err = task_outcome(b, false);
    if (!heist_future_done(b->task)) return err; /* in a callback */
    if (err == -ECANCELED) err = 0;
    int closed = b->begun ? 0 : heist_generator_close(b->source); /* else the task has done it */
    return err ? err : closed;
}

static void buffer_free(void *state) {
    struct buffer *b = state;
    if (b->task && !heist_future_done(b->task)) stop(b);
    heist_unref(b->task);
    buffer_unref(b);
}

static const heist_iterator_ops buffer_ops = {sizeof(heist_iterator_ops), buffer_next, buffer_close, buffer_free};

int heist_pipeline_buffer(heist_generator *source, const heist_pipeline_options *opts, heist_generator **out) {
    static const heist_pipeline_options defaults = HEIST_PIPELINE_OPTIONS_INIT;
    if (!source || !out || !heist__options_ok(opts, sizeof(*opts))) return -EINVAL;
    if (!opts) opts = &defaults;
    if (opts->flags ||
        (opts->stack_bytes && (opts->stack_bytes < HEIST__STACK_MIN || opts->stack_bytes > HEIST__STACK_MAX)))
        return -EINVAL;
    struct buffer *b = heist__zalloc(sizeof(*b));
    if (!b) return -ENOMEM;
    a_store_rlx(&b->refs, 1); /* rlx: not published yet */
    b->value_free = opts->value_free;
    b->stack_bytes = opts->stack_bytes;
    int err = -ENOMEM;
    if (opts->name) {
        size_t n = strlen(opts->name) + 1;
        if (!(b->name = heist__alloc(n))) goto fail;
        memcpy(b->name, opts->name, n);
    }
    err = heist_channel_new(opts->length ? opts->length : 1, &b->channel);
    if (err) goto fail;
    err = heist_generator_of(&buffer_ops, b, out);
    if (err) goto fail_channel;
    b->source = heist_generator_ref(source);
    b->runtime = opts->runtime ? heist_runtime_ref(opts->runtime) : NULL;
    return 0;

fail_channel:
    heist_channel_unref(b->channel);
fail:
    heist__free(b->name);
    heist__free(b);
    return err;
}
