/* stress/stress_churn.c: runtimes and loops made, used and closed, without a pause.
 *
 * Law: each is made or is refused with the code of what ran out, and then nothing of it
 * is there; whatever little it was made for has its right result or such a code; after
 * close nothing of it is left, in threads, descriptors, mappings and blocks of the
 * allocator; and when there is enough again, everything works again.
 * What runs out, in half of the rounds: descriptors (a low RLIMIT_NOFILE), threads (a
 * default stack that no address space has room for), memory (an allocator that refuses),
 * switched on and off by a plain thread while the others make and close.
 * Threads: 1 to 8 that make, use and close, each its own; the workers; one saboteur.
 * Invariant: the books of the allocator are read when every thread that could change
 * them is joined. */
#include "faults.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_MAKERS 8

enum shape { RUNTIME, LOOP_COROUTINE, LOOP_FOREVER, LOOP_ONCE, RUN, SHAPES };
static const char *const shape_name[SHAPES] = {"runtimes", "loops that run a coroutine", "loops that run for ever",
                                               "loops driven from outside", "heist_run"};
enum work { TASK, CALLBACK, TIMER, CHANNEL, SOCKET, CANCEL, GATHER, DONE, READER, WORKS };

/* 0, or a code of something that ran out: true or false. */
static bool got(const char *what, int err) {
    stress_check(err == 0 || stress_short_of(err), "%s answered %s; %s", what, heist_error_name(err),
                 stress_shortages());
    return err == 0;
}

/* ---- one life ---- */

struct maker {
    int index;
    struct stress_rng rng;
    pthread_t thread;
    uint64_t lives;
};
struct life {
    struct maker *maker;
    struct stress_rng rng;
    heist_runtime *rt;
    heist_loop *loop; /* its own, or the first of rt */
    int fd;
    heist_channel *channel;
    heist_conn *conn[2];
    _Atomic(int) called, freed, done_called;
    heist_future *rung;
};
static struct maker makers[MAX_MAKERS];
static _Atomic(uint64_t) made[SHAPES], refused[SHAPES], worked[WORKS], gave_up[WORKS];

/* The last touch of what may stand on the stack of the task that waits for it: release, and it acquires. */
static void touch(_Atomic(int) *counter) { atomic_fetch_add_explicit(counter, 1, memory_order_release); }

static void note_freed(void *arg) {
    struct life *l = arg;
    touch(&l->freed);
}

static int add_one(void *arg, void **out) {
    uintptr_t n = (uintptr_t)arg;
    if (n & 1) {
        int err = heist_yield();
        if (err < 0) return err;
    }
    *out = (void *)(n + 1);
    return 0;
}

static int called(void *arg) {
    struct life *l = arg;
    touch(&l->called);
    return 0;
}

static void done_called(heist_future *f, void *user) {
    struct life *l = user;
    stress_check(heist_future_done(f), "a done callback came before the end");
    touch(&l->done_called);
}

static int send_five(void *arg, void **out) {
    struct life *l = arg;
    (void)out;
    int err = 0;
    for (uintptr_t i = 1; i <= 5 && err == 0; i++) err = heist_channel_send(l->channel, (void *)i);
    heist_channel_close(l->channel);
    return err;
}

static int echo_five(void *arg, void **out) {
    struct life *l = arg;
    char bytes[5];
    (void)out;
    for (size_t have = 0; have < sizeof bytes;) {
        ptrdiff_t n = heist_conn_read(l->conn[1], bytes + have, sizeof bytes - have, HEIST_FOREVER);
        if (n <= 0) return n ? (int)n : -EIO;
        have += (size_t)n;
    }
    return heist_conn_write(l->conn[1], bytes, sizeof bytes, HEIST_FOREVER, NULL);
}

static int readable(void *arg) {
    struct life *l = arg;
    uint64_t n;
    if (read(l->fd, &n, sizeof n) == (ssize_t)sizeof n && !heist_future_done(l->rung))
        heist_future_set_result(l->rung, NULL, NULL);
    return 0;
}

/* Waits for the end, also where there is no memory to wait with. */
static int outcome(heist_future *f, void **out) {
    int err = heist_await(f, out);
    if (err == -ENOMEM && !heist_future_done(f)) {
        while (!heist_future_done(f)) heist_current_task() ? (void)heist_yield() : stress_block(0.0001);
        err = heist_future_result(f, out);
    }
    return err;
}

static void give_up(enum work w, bool worked_well) {
    s_add(worked_well ? &worked[w] : &gave_up[w], 1);
    stress_progress(1);
}

/* From a task of the life's runtime, so that descriptors are watched by a loop that runs. */
static void do_work(struct life *l, enum work w) {
    heist_task *t[4] = {NULL};
    heist_future *f = NULL;
    heist_handle *handle = NULL;
    heist_call_options call = HEIST_CALL_OPTIONS_INIT;
    void *value[4] = {NULL};
    bool well = false;
    int fd[2], err;
    size_t n = 0;
    switch (w) {
    case TASK:
        if (!got("create_task", heist_create_task(add_one, (void *)6, NULL, &t[0]))) break;
        well = got("a task", outcome(t[0], &value[0]));
        if (well) stress_check(value[0] == (void *)7, "a task gave a wrong result");
        break;
    case CALLBACK:
    case TIMER: {
        struct life own = {.rng = l->rng};
        call.arg_free = note_freed;
        double when = heist_time() + (double)stress_below(&l->rng, 1000) * 1e-6;
        err = w == TIMER ? heist_loop_call_at(l->loop, when, called, &own, &call, &handle)
                         : heist_loop_call_soon(l->loop, called, &own, &call, &handle);
        if (!got("a callback", err)) break;
        while (!s_observe(&own.freed)) {
            err = heist_sleep(0.0002);
            got("a sleep", err);
            if (err < 0) heist_yield();
        }
        stress_check(s_get(&own.called) == 1 && s_get(&own.freed) == 1, "a callback ran %d times", s_get(&own.called));
        if (w == TIMER) stress_check(heist_time() >= when - 1e-8, "a timer was early");
        well = true;
        break;
    }
    case CHANNEL:
        if (!got("channel_new", heist_channel_new(stress_below(&l->rng, 3), &l->channel))) break;
        if (got("create_task", heist_create_task(send_five, l, NULL, &t[0]))) {
            uintptr_t next = 1;
            while ((err = heist_channel_recv(l->channel, &value[0])) == 0) {
                stress_check((uintptr_t)value[0] == next, "a channel lost its order");
                next++;
            }
            bool ended = err == HEIST_ESHUTDOWN || heist_future_done(t[0]);
            if (err != HEIST_ESHUTDOWN) got("a recv", err);
            if (!ended) heist_channel_close(l->channel);
            int sent = outcome(t[0], NULL);
            if (sent != HEIST_ESHUTDOWN) got("a sender", sent);
            well = err == HEIST_ESHUTDOWN && sent == 0;
            if (well) stress_check(next == 6, "%zu of 5 values came", (size_t)next - 1);
        }
        heist_channel_unref(l->channel);
        break;
    case SOCKET:
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd)) {
            stress_check(stress_short_of(-errno), "sockets: %s", strerror(errno));
            break;
        }
        l->conn[0] = l->conn[1] = NULL;
        for (int i = 0; i < 2; i++)
            if (!got("conn_open", heist_conn_open(fd[i], &l->conn[i]))) close(fd[i]);
        if (l->conn[0] && l->conn[1] && got("create_task", heist_create_task(echo_five, l, NULL, &t[0]))) {
            char bytes[6] = "churn", back[6] = "";
            size_t have = 0;
            well = got("a write", heist_conn_write(l->conn[0], bytes, 5, HEIST_FOREVER, NULL));
            for (ptrdiff_t more = 1; well && have < 5;) {
                more = heist_conn_read(l->conn[0], back + have, 5 - have, heist_time() + 0.05);
                if (more > 0) have += (size_t)more;
                else if (more == -ETIMEDOUT && !heist_future_done(t[0])) continue;
                else if (more != -ETIMEDOUT) well = got("a read", more ? (int)more : -EIO);
                else well = false; /* the echo has ended without memory */
            }
            if (!well) heist_conn_shutdown(l->conn[0]);
            int ended = outcome(t[0], NULL);
            if (ended != -EIO) got("an echo", ended);
            if (well) stress_check(strcmp(bytes, back) == 0, "'%s' came back for '%s'", back, bytes);
        }
        heist_conn_close(l->conn[0]);
        heist_conn_close(l->conn[1]);
        break;
    case CANCEL:
        if (!got("future_new", heist_future_new(NULL, &f))) break;
        heist_cancel(f);
        err = heist_await(f, NULL);
        stress_check(err == -ECANCELED, "a cancelled future answered %s", heist_error_name(err));
        well = true;
        break;
    case GATHER:
        for (; n < 4; n++)
            if (!got("create_task", heist_create_task(add_one, (void *)(10 * n), NULL, &t[n]))) break;
        if (n) well = got("gather", heist_gather(t, n, value, 0)) && n == 4;
        for (size_t i = 0; i < n; i++) got("a child", outcome(t[i], NULL));
        for (size_t i = 0; well && i < n; i++)
            stress_check((uintptr_t)value[i] == 10 * i + 1, "gather gave a wrong result");
        break;
    case DONE:
        if (!got("future_new", heist_future_new(l->loop, &f))) break;
        err = heist_future_add_done_callback(f, done_called, l, NULL);
        well = got("add_done_callback", err);
        s_set(&l->done_called, 0);
        heist_future_set_result(f, NULL, NULL);
        while (well && !s_observe(&l->done_called)) heist_yield();
        break;
    case READER: {
        if (!got("future_new", heist_future_new(NULL, &l->rung))) break;
        l->fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
        stress_check(l->fd >= 0 || stress_short_of(-errno), "an eventfd: %s", strerror(errno));
        if (l->fd >= 0) {
            well = got("add_reader", heist_loop_add_reader(l->loop, l->fd, readable, l, NULL));
            if (well) {
                well = got("await of a reader", outcome(l->rung, NULL));
                err = heist_loop_remove_reader(l->loop, l->fd);
                stress_check(err == 1, "remove_reader answered %d", err);
                /* it may run on the loop's thread at this moment, and has its look at l: a turn of that loop later
                 * not */
                struct life own = {.rng = l->rng};
                if (heist_loop_call_soon(l->loop, called, &own, NULL, NULL) == 0)
                    while (!s_observe(&own.called)) heist_yield();
            }
            close(l->fd);
        }
        heist_unref(l->rung);
        break;
    }
    default: break;
    }
    for (int i = 0; i < 4; i++) heist_unref(t[i]);
    heist_unref(f);
    heist_handle_unref(handle);
    give_up(w, well);
}

static int live(void *arg, void **out) {
    struct life *l = arg;
    heist_loop *loop;
    if (heist_get_running_loop(&loop) == 0 && !l->loop) l->loop = loop;
    int n = (int)stress_below(&l->rng, 6);
    for (int i = 0; i < n; i++) do_work(l, (enum work)stress_below(&l->rng, WORKS));
    if (out) *out = l;
    return 0;
}

static int stop_loop(void *arg) {
    int err = heist_loop_stop(arg);
    stress_check(err == 0, "stop answered %s", heist_error_name(err));
    return 0;
}

static void stop_when_done(heist_future *f, void *user) {
    (void)f;
    stop_loop(user);
}

static void live_on_loop(struct life *l, enum shape shape) {
    void *value = NULL;
    heist_task *t = NULL;
    if (shape == LOOP_COROUTINE) {
        int err = heist_loop_run_coroutine(l->loop, live, l, NULL, &value);
        if (got("run_coroutine", err)) stress_check(value == l, "run_coroutine gave a wrong result");
        return;
    }
    if (!got("create_task on a loop", heist_loop_create_task(l->loop, live, l, NULL, &t))) return;
    if (shape == LOOP_FOREVER &&
        got("add_done_callback", heist_future_add_done_callback(t, stop_when_done, l->loop, NULL)))
        got("run_forever", heist_loop_run_forever(l->loop));
    while (!heist_future_done(t)) {
        double timeout = 0;
        int err = heist_loop_run_once(l->loop, &timeout);
        if (!got("run_once", err)) break;
        stress_block(timeout < 0.0005 ? timeout : 0.0005);
    }
    if (heist_future_done(t)) got("a task of a loop", heist_future_result(t, &value));
    heist_unref(t);
}

/* Counters of workers, added up by many threads; the report wants them in one place. */
static struct {
    _Atomic(uint64_t) steps, stolen, callbacks, timers, io_events, inbox, sleeps, wakeups;
} counters;

static void add_counters(heist_runtime *rt) {
    for (int w = 0; w < heist_runtime_workers(rt); w++) {
        heist_worker_stats st = HEIST_WORKER_STATS_INIT;
        if (heist_runtime_stats(rt, w, &st) < 0) continue;
        s_add(&counters.steps, st.steps);
        s_add(&counters.stolen, st.stolen);
        s_add(&counters.callbacks, st.callbacks);
        s_add(&counters.timers, st.timers);
        s_add(&counters.io_events, st.io_events);
        s_add(&counters.inbox, st.inbox);
        s_add(&counters.sleeps, st.sleeps);
        s_add(&counters.wakeups, st.wakeups);
    }
}

static void one_life(struct maker *m, struct stress_rng *rng) {
    struct life l = {.maker = m, .rng = stress_stream(rng, 1), .fd = -1};
    enum shape shape = (enum shape)stress_below(rng, SHAPES);
    heist_runtime_options o = HEIST_RUNTIME_OPTIONS_INIT;
    static const int few[] = {1, 1, 2, 2, 3, 4, 16};
    o.workers = stress_opt.workers ? stress_opt.workers : few[stress_below(rng, 7)];
    o.exception_handler = stress_exception;
    o.flags = stress_chance(rng, 20) ? HEIST_RUNTIME_OVERFLOW_HANDLER : 0;
    if (shape == RUNTIME || shape == RUN) stress_draw_watch(rng, &o);
    double begun = stress_now();
    void *out = NULL;
    int err;
    stress_wait_begin(m->index, shape_name[shape], 1);
    if (shape == RUN) {
        if (stress_chance(rng, 50)) o.flags |= HEIST_RUNTIME_NO_OVERFLOW_HANDLER;
        err = heist_run(live, &l, &o, &out);
        if (got("heist_run", err)) stress_check(out == &l, "heist_run gave a wrong result");
        s_add(err ? &refused[shape] : &made[shape], 1);
        stress_latency(stress_now() - begun);
    } else {
        if (shape != RUNTIME) o.workers = 1;
        err = shape == RUNTIME ? heist_runtime_new(&o, &l.rt) : heist_loop_new(&o, &l.loop);
        bool well = got(shape == RUNTIME ? "runtime_new" : "loop_new", err);
        stress_check(well || (!l.rt && !l.loop), "what was refused was given out");
        s_add(well ? &made[shape] : &refused[shape], 1);
        if (well) stress_latency(stress_now() - begun);
        if (well && shape == RUNTIME) {
            heist_task *t = NULL;
            l.loop = heist_runtime_loop(l.rt, (int)stress_below(rng, (uint64_t)o.workers));
            err = heist_runtime_run_coroutine(l.rt, live, &l, NULL, &t);
            if (got("run_coroutine on a runtime", err) && got("a first task", outcome(t, &out)))
                stress_check(out == &l, "a runtime's first task gave a wrong result");
            heist_unref(t);
            do err = heist_runtime_close(l.rt, stress_chance(rng, 50) ? HEIST_FOREVER : 0.001);
            while (err == -ETIMEDOUT);
            stress_check(err == 0, "close answered %s", heist_error_name(err));
            add_counters(l.rt);
            heist_runtime_unref(l.rt);
        } else if (well) {
            live_on_loop(&l, shape);
            err = heist_loop_close(l.loop);
            while (err < 0 && stress_short_of(err)) { /* once more, perhaps with memory */
                stress_block(0.0005);
                err = heist_loop_close(l.loop);
            }
            stress_check(err == 0, "closing a loop answered %s", heist_error_name(err));
            add_counters(heist_loop_runtime(l.loop));
            heist_loop_unref(l.loop);
        }
    }
    stress_wait_end(m->index);
    m->lives++;
    stress_progress(1);
}

static double round_end;

static void *maker_main(void *arg) {
    struct maker *m = arg;
    while (stress_now() < round_end) one_life(m, &m->rng);
    return NULL;
}

/* ---- a round ---- */

static void one_round(struct stress_rng *rng) {
    unsigned shortages = stress_chance(rng, 50) ? (unsigned)stress_below(rng, 8) : 0;
    int n = stress_draw_threads(rng, MAX_MAKERS);
    if (n > MAX_MAKERS) n = MAX_MAKERS;
    double span = 0.1 + 0.1 * (double)stress_below(rng, 6);
    stress_faults_start(rng, shortages);
    stress_settings("%d makers, %.1f s, %s", n, span, stress_shortages());
    stress_phase("making, using, closing");
    round_end = stress_now() + span;
    for (int i = 0; i < n; i++) {
        makers[i] = (struct maker){.index = i, .rng = stress_stream(rng, (uint64_t)i)};
        stress_thread(&makers[i].thread, maker_main, &makers[i]);
    }
    for (int i = 0; i < n; i++) stress_join(makers[i].thread);
    stress_faults_stop();
    stress_faults_forget();
    stress_phase("enough of everything again");
    for (int i = 0; i < SHAPES; i++) one_life(&makers[0], rng);
    stress_phase("blocks of the allocator");
    int64_t live_now = stress_blocks_live();
    stress_check(live_now == 0, "%" PRId64 " blocks of the allocator are live although nothing is", live_now);
}

int main(int argc, char **argv) {
    stress_faults_begin();
    stress_begin(argc, argv, "churn", "made or refused with a code; used; closed; nothing left");
    struct stress_rng rng;
    while (stress_next_round(&rng)) one_round(&rng);
    for (int i = 0; i < SHAPES; i++)
        stress_note("%-28s made %" PRIu64 ", refused %" PRIu64, shape_name[i], s_get(&made[i]), s_get(&refused[i]));
    static const char *const work_name[WORKS] = {"task",   "callback", "timer",         "channel", "socket",
                                                 "cancel", "gather",   "done callback", "reader"};
    for (int i = 0; i < WORKS; i++)
        stress_note("%-28s done %" PRIu64 ", not for want %" PRIu64, work_name[i], s_get(&worked[i]),
                    s_get(&gave_up[i]));
    stress_totals.steps = s_get(&counters.steps);
    stress_totals.stolen = s_get(&counters.stolen);
    stress_totals.callbacks = s_get(&counters.callbacks);
    stress_totals.timers = s_get(&counters.timers);
    stress_totals.io_events = s_get(&counters.io_events);
    stress_totals.inbox = s_get(&counters.inbox);
    stress_totals.sleeps = s_get(&counters.sleeps);
    stress_totals.wakeups = s_get(&counters.wakeups);
    stress_note("blocks refused %" PRIu64, stress_blocks_refused());
    return stress_end();
}
