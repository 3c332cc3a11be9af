/* communicate: input, both outputs and the end of a child, at the same time.  See heist/process.h.
 *
 * A task for each pipe, so that none waits for another.  What they have reached is kept with the child, and a read or
 * write that is cancelled has taken nothing; so a call that was cut short may be repeated and goes on. */
#include <errno.h>
#include <heist/error.h>
#include <heist/flow.h>
#include <heist/future.h>
#include <heist/task.h>
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/options.h"
#include "io/fd.h"
#include "net/process.h"

#define FIRST_ROOM ((size_t)8192)
#define CHUNK ((size_t)64 * 1024)

void heist__talk_free(struct heist__talk *t) {
    for (int i = 0; i < 2; i++) heist__free(t->outlets[i].data);
}

/* One pipe's work. */
struct part {
    heist_process *p;
    int stream;
    const char *input;
    size_t size;
};

static int feed(struct part *part) {
    heist_process *p = part->p;
    struct heist__talk *t = &p->talk;
    int err = 0;
    while (!err && t->fed < part->size) {
        size_t left = part->size - t->fed, n = left < CHUNK ? left : CHUNK;
        err = heist_stream_write(p->pipes[0], part->input + t->fed, n);
        if (err) break;
        t->fed += n; /* it is the stream's, also if the wait is cancelled */
        err = heist_stream_drain(p->pipes[0]);
    }
    if (err && err != -EPIPE && err != -ECONNRESET) return err; /* it need not read what it is told */
    t->fed_all = true;
    heist_stream_close(p->pipes[0]);
    return 0;
}

/* Room for at least one byte more, and the one that ends it. */
static int grow(struct heist__outlet *o) {
    if (o->size + 1 < o->room) return 0;
    size_t room = o->room ? o->room * 2 : FIRST_ROOM;
    char *data = room > o->room ? heist__realloc(o->data, room) : NULL;
    if (!data) return -ENOMEM;
    o->data = data;
    o->room = room;
    return 0;
}

static int drain(struct part *part) {
    struct heist__outlet *o = &part->p->talk.outlets[part->stream - 1];
    while (!o->ended) {
        int err = grow(o);
        if (err) return err;
        ptrdiff_t n = heist_stream_read(part->p->pipes[part->stream], o->data + o->size, o->room - o->size - 1);
        if (n < 0) return (int)n;
        o->ended = n == 0;
        o->size += (size_t)n;
    }
    return 0;
}

static int run_part(void *arg, void **out) {
    (void)out;
    struct part *part = arg;
    return part->stream ? drain(part) : feed(part);
}

static bool has_work(const heist_process *p, int i) {
    if (!p->pipes[i]) return false;
    return i ? !p->talk.outlets[i - 1].ended : !p->talk.fed_all;
}

/* Ends those that are still at work; what they had reached stays. */
static void call_off(heist_task **tasks, size_t n) {
    heist_uncancellable_begin();
    for (size_t i = 0; i < n; i++) heist_cancel(tasks[i]);
    for (size_t i = 0; i < n; i++) (void)heist_await(tasks[i], NULL);
    heist_uncancellable_end();
}

/* 0 when all have done theirs, else what the first one failed with, or why the wait ended. */
static int await_parts(heist_task **tasks, size_t n, double deadline) {
    size_t pending = 0;
    int done = heist_wait_until(tasks, n, HEIST_FIRST_EXCEPTION, deadline, &pending), err = done < 0 ? done : 0;
    for (int i = 0; i < done && !err; i++) err = heist_future_result(tasks[i], NULL);
    return !err && pending ? -ETIMEDOUT : err;
}

static int all_parts(heist_process *p, const void *input, size_t size, double deadline) {
    struct part parts[3];
    heist_task *tasks[3];
    size_t n = 0;
    int err = 0;
    for (int i = 0; i < 3 && !err; i++) {
        if (!has_work(p, i)) continue;
        parts[i] = (struct part){p, i, input, size};
        heist_task_options opts = HEIST_TASK_OPTIONS_INIT;
        opts.name = "communicate";
        err = heist_create_task(run_part, &parts[i], &opts, &tasks[n]);
        if (!err) n++;
    }
    if (!err && n) err = await_parts(tasks, n, deadline);
    if (err) call_off(tasks, n);
    for (size_t i = 0; i < n; i++) heist_unref(tasks[i]);
    return err;
}

static char *hand_over(struct heist__outlet *o, size_t *size) {
    char *data = o->data;
    *size = o->size;
    if (data) data[o->size] = 0;
    o->data = NULL;
    o->size = o->room = 0;
    return data;
}

int heist_process_communicate(heist_process *p, const void *input, size_t input_size, double deadline,
                              heist_process_output *out) {
    if (!p || !out || isnan(deadline) || (!input && input_size)) return -EINVAL;
    if (!heist__options_ok(out, sizeof(*out))) return -EINVAL;
    int err = heist__fd_entry();
    if (err) return heist__process_cancelled(p, err);
    if (input_size && !p->pipes[0]) return -EINVAL;
    if (a_xchg_ar(&p->talk.busy, 1)) return -EBUSY; /* ar: what the last one reached is seen by the next */
    int code = 0;
    err = all_parts(p, input, input_size, deadline);
    if (!err) err = heist_process_wait(p, deadline, &code);
    if (!err) {
        out->out = hand_over(&p->talk.outlets[0], &out->out_size);
        out->err = hand_over(&p->talk.outlets[1], &out->err_size);
        out->code = code;
    }
    a_store_rel(&p->talk.busy, 0); /* rel: as above */
    return heist__process_cancelled(p, err);
}

void heist_process_output_free(heist_process_output *out) {
    if (!out) return;
    heist__free(out->out);
    heist__free(out->err);
    out->out = out->err = NULL;
    out->out_size = out->err_size = 0;
}
