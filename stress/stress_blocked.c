/* stress/stress_blocked.c: a held worker delays nothing but itself.
 *
 * Law: while tasks and callbacks hold their workers (computing, in a system call, on a
 * lock), what stands behind them is served: tasks in the queue, tasks that sleep, tasks that
 * read, coroutines submitted to the held loop; by another worker, or by the spare thread
 * where the options give one, which then works also when every worker is held.  A holder
 * holds until all of that is done.  Callbacks and pinned tasks of a held loop run after it,
 * on their thread.  Where the options ask for reports, who holds is reported while it holds,
 * under its own name and not before it is time, with its stack if a signal was given.
 * Threads: holders on the workers, submitters and writers as plain threads, the watchdog.
 * Invariant: fewer holders at a time than there are threads to serve; else a law would be
 * broken that nobody gave. */
#include "common.h"

#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define HOLDERS 12
#define BEHIND 24

enum { QUEUED, SLEEPING, READING, SUBMITTED, KINDS };
static const char *const kind_name[KINDS] = {"queued", "sleeping", "reading", "submitted"};
enum { ON_A_LOCK, COMPUTING, IN_A_CALL, IN_A_SLEEP, WAYS };
static const char *const way_name[WAYS] = {"on a lock", "computing", "in a read", "in a sleep"};

struct holder;

struct behind {
    struct holder *holder;
    int kind, pair[2];
    double sleep;
    _Atomic(int) ran;
};

struct holder {
    heist_runtime *rt;
    heist_loop *loop;
    int slot, way, form; /* form: 0 an unpinned task, 1 a pinned one, 2 a callback */
    char name[24];
    struct stress_rng rng;
    pthread_t thread, feeder;
    int n;
    struct behind item[BEHIND];
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int waiting, served, own, ended; /* under the lock */
    pthread_t held, own_thread;
    bool begun; /* under the lock, where a late report looks, as loop, way and form */
    _Atomic(bool) holding, reported;
    int wake[2];
    double since;
};

static struct holder holders[HOLDERS];
static _Atomic(int) now_holding;
static int most_holding;
static double round_end, stuck_after;
static int stuck_signal;
static char holder_function[128]; /* as a report names it */
static _Atomic(uint64_t) served_count[KINDS], held_count[WAYS], reports_count, stacks_count, all_held;

static void change(struct holder *h, int *what) {
    pthread_mutex_lock(&h->lock);
    (*what)++;
    pthread_cond_broadcast(&h->changed);
    pthread_mutex_unlock(&h->lock);
    stress_progress(1);
}

static int look(struct holder *h, const int *what) {
    pthread_mutex_lock(&h->lock);
    int value = *what;
    pthread_mutex_unlock(&h->lock);
    return value;
}

/* Plain threads. */
static void await_change(struct holder *h, const int *what, int goal) {
    pthread_mutex_lock(&h->lock);
    while (*what < goal) pthread_cond_wait(&h->changed, &h->lock);
    pthread_mutex_unlock(&h->lock);
}

/* ---- what stands behind ---- */

static int item_body(void *arg, void **out) {
    struct behind *b = arg;
    struct holder *h = b->holder;
    heist_conn *conn = NULL;
    char byte;
    int err = 0;
    (void)out;
    if (b->kind == SLEEPING || b->kind == READING) change(h, &h->waiting);
    if (b->kind == SLEEPING) err = heist_sleep(b->sleep);
    if (b->kind == READING) {
        err = heist_conn_open(b->pair[0], &conn);
        stress_check(err == 0, "a descriptor was not taken: %s", heist_error_name(err));
        if (!err) {
            ptrdiff_t n = heist_conn_read(conn, &byte, 1, HEIST_FOREVER);
            stress_check(n == 1, "a read gave %td", n);
        }
        heist_conn_close(conn);
    }
    stress_check(err == 0, "a task behind a holder ended with %s", heist_error_name(err));
    stress_check(s_add(&b->ran, 1) == 0, "a task ran twice");
    s_add(&served_count[b->kind], 1);
    change(h, &h->served);
    return err;
}

/* A callback and a pinned task of the held loop: never while it is held, always on its thread. */
static void own_turn(struct holder *h) {
    stress_check(!s_observe(&h->holding) || h->form == 0, "what cannot move ran while its loop was held");
    h->own_thread = pthread_self();
    change(h, &h->own);
}
static int own_callback(void *arg) {
    own_turn(arg);
    return 0;
}

/* ---- the holder ---- */

static void on_report(heist_loop *loop, const heist_report *r, void *user) {
    if (strncmp(r->message, "a worker is stuck", 17)) {
        stress_exception(loop, r, user);
        return;
    }
    s_add(&reports_count, 1);
    stress_check(stuck_after > 0, "a report that nobody asked for: %s", r->message);
    stress_check(r->seconds >= stuck_after, "reported after %.6f s, before %.3f s were over", r->seconds, stuck_after);
    const char *stack = NULL, *function = "";
    for (const char *const *e = r->extra; e && e[0]; e += 2) {
        if (!strcmp(e[0], "stack")) stack = e[1];
        if (!strcmp(e[0], "function")) function = e[1];
    }
    if (stack) {
        s_add(&stacks_count, 1);
        stress_check(stuck_signal != 0, "a stack without a signal");
        stress_check(*stack != 0, "an empty stack");
    }
    for (int i = 0; i < HOLDERS; i++) {
        struct holder *h = &holders[i];
        /* From its first instruction on, not only when it has come to hold. */
        pthread_mutex_lock(&h->lock);
        bool its = h->begun && (r->name ? !strcmp(r->name, h->name)
                                        : h->form == 2 && h->loop == loop && !strcmp(function, holder_function));
        if (its) {
            stress_check(!r->name || (r->file && strstr(r->file, "stress_blocked.c")), "a task made at %s",
                         r->file ? r->file : "no place");
            s_publish(&h->reported, true);
            pthread_cond_broadcast(&h->changed);
            /* It cannot wait for both the lock and its descriptor. */
            if (h->way == IN_A_CALL && write(h->wake[1], "r", 1) != 1) stress_fail("the wake-up of a holder failed");
        }
        pthread_mutex_unlock(&h->lock);
    }
}

/* All of it done: served, and told of when that was asked for. */
static bool through(struct holder *h) {
    return look(h, &h->served) == h->n && (stuck_after <= 0 || s_observe(&h->reported));
}

static void hold(struct holder *h) {
    h->held = pthread_self();
    h->since = stress_now();
    s_publish(&h->holding, true);
    int all = s_add(&now_holding, 1) + 1;
    if (all >= heist_runtime_workers(h->rt)) s_add(&all_held, 1);
    s_add(&held_count[h->way], 1);
    stress_wait_begin(h->slot, "held until all behind is served", 0);
    char byte;
    struct timespec moment = {0, 300000};
    while (!through(h)) switch (h->way) {
        case ON_A_LOCK:
            pthread_mutex_lock(&h->lock);
            if (h->served < h->n || (stuck_after > 0 && !s_observe(&h->reported)))
                pthread_cond_wait(&h->changed, &h->lock);
            pthread_mutex_unlock(&h->lock);
            break;
        case COMPUTING: stress_spin(2e-5); break;
        case IN_A_CALL:
            if (read(h->wake[0], &byte, 1) < 0) stress_check(errno == EINTR, "a read in a holder: %d", errno);
            break;
        default: nanosleep(&moment, NULL); /* the monitor's signal may end it */
        }
    stress_wait_end(h->slot);
    stress_latency(stress_now() - h->since - (stuck_after > 0 ? stuck_after : 0));
    s_add(&now_holding, -1);
    s_publish(&h->holding, false);
}

static int make(struct holder *h, int from, int to) {
    int err = 0;
    for (int i = from; i < to && !err; i++) {
        struct behind *b = &h->item[i];
        if (b->kind != SUBMITTED) err = heist_create_task(item_body, b, NULL, NULL);
    }
    stress_check(err == 0, "a task was refused: %s", heist_error_name(err));
    return err;
}

static int count_waits(const struct holder *h, int to) {
    int n = 0;
    for (int i = 0; i < to; i++) n += h->item[i].kind == SLEEPING || h->item[i].kind == READING;
    return n;
}

static int holder_task(void *arg, void **out) {
    struct holder *h = arg;
    (void)out;
    /* Half of it may arm first, on this loop unless others steal it; the rest lies in the queue. */
    int half = (int)stress_below(&h->rng, (uint64_t)h->n + 1), waits = count_waits(h, half);
    int err = make(h, 0, half);
    while (!err && look(h, &h->waiting) < waits) err = heist_yield();
    if (!err) err = make(h, half, h->n);
    change(h, &h->own); /* the feeder may begin */
    if (!err) hold(h);
    change(h, &h->ended);
    return err;
}

static int holder_callback(void *arg) {
    struct holder *h = arg;
    int err = make(h, 0, h->n);
    change(h, &h->own);
    if (!err) hold(h);
    change(h, &h->ended);
    return err;
}

/* A plain thread: submits to the held loop and writes to its sockets, while it is held. */
static void *feed(void *arg) {
    struct holder *h = arg;
    await_change(h, &h->own, 1);
    heist_call_options options = HEIST_CALL_OPTIONS_INIT;
    options.name = "own";
    bool posted = h->form != 0;
    int err = posted ? heist_loop_call_soon_threadsafe(h->loop, own_callback, h, &options, NULL) : 0;
    stress_check(err == 0, "a callback was refused: %s", heist_error_name(err));
    for (int i = 0; i < h->n; i++) {
        struct behind *b = &h->item[i];
        stress_pause(&h->rng, 0.001);
        if (b->kind == SUBMITTED) err = heist_run_coroutine_threadsafe(h->loop, item_body, b, NULL, NULL);
        stress_check(err == 0, "a submission was refused: %s", heist_error_name(err));
        if (b->kind == READING) stress_check(write(b->pair[1], "x", 1) == 1, "a write failed");
    }
    /* A holder in its read looks once more when the last was served. */
    await_change(h, &h->served, h->n);
    if (h->way == IN_A_CALL) stress_check(write(h->wake[1], "s", 1) == 1, "a write to a holder failed");
    if (posted) await_change(h, &h->own, 2);
    return NULL;
}

/* A plain thread: one hold after the other. */
static void *drive(void *arg) {
    struct holder *h = arg;
    while (stress_now() < round_end && stress_going()) {
        stress_pause(&h->rng, 0.003);
        pthread_mutex_lock(&h->lock);
        h->way = (int)stress_below(&h->rng, WAYS);
        h->form = (int)stress_below(&h->rng, 3);
        h->n = (int)stress_between(&h->rng, 1, BEHIND);
        h->waiting = h->served = h->own = h->ended = 0;
        s_set(&h->reported, false);
        h->loop = heist_runtime_loop(h->rt, (int)stress_below(&h->rng, (uint64_t)heist_runtime_workers(h->rt)));
        h->begun = true;
        pthread_mutex_unlock(&h->lock);
        for (int i = 0; i < h->n; i++) {
            struct behind *b = &h->item[i];
            *b = (struct behind){.holder = h, .kind = (int)stress_below(&h->rng, KINDS), .pair = {-1, -1}};
            b->sleep = 1e-6 * (double)stress_between(&h->rng, 1, 20000);
            if (b->kind == READING && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, b->pair))
                stress_die("no socket pair: %d", errno);
        }
        heist_task *task = NULL;
        heist_task_options options = HEIST_TASK_OPTIONS_INIT;
        options.name = h->name;
        options.flags = h->form == 1 ? HEIST_TASK_PINNED : 0;
        int err = h->form == 2 ? heist_loop_call_soon_threadsafe(h->loop, holder_callback, h, NULL, NULL)
                               : heist_run_coroutine_threadsafe(h->loop, holder_task, h, &options, &task);
        if (err < 0) stress_die("a holder was refused: %s", heist_error_name(err));
        stress_thread(&h->feeder, feed, h);
        stress_join(h->feeder);
        await_change(h, &h->ended, 1);
        pthread_mutex_lock(&h->lock);
        h->begun = false;
        pthread_mutex_unlock(&h->lock);
        if (task) {
            err = heist_await(task, NULL);
            stress_check(err == 0, "a holder ended with %s", heist_error_name(err));
            heist_unref(task);
        }
        stress_check(h->form == 0 || pthread_equal(h->own_thread, h->held), "a callback of a held loop left its thread");
        for (int i = 0; i < h->n; i++) {
            stress_check(s_get(&h->item[i].ran) == 1, "a %s task ran %d times", kind_name[h->item[i].kind],
                         s_get(&h->item[i].ran));
            if (h->item[i].kind == READING) close(h->item[i].pair[1]);
        }
    }
    return NULL;
}

/* ---- the others: short steps, so that those who serve are busy themselves ---- */

static _Atomic(bool) noise_ends;
static int noise(void *arg, void **out) {
    (void)arg;
    (void)out;
    int err = 0;
    while (!err && !s_get(&noise_ends)) {
        stress_spin(2e-5);
        err = heist_yield();
    }
    return err;
}

static void dump(FILE *to) {
    fprintf(to, "%d hold at present\n", s_get(&now_holding));
    for (int i = 0; i < HOLDERS; i++) {
        struct holder *h = &holders[i];
        if (s_get(&h->holding))
            fprintf(to, "%s, %s, form %d: %d of %d served, %s\n", h->name, way_name[h->way], h->form, h->served, h->n,
                    s_get(&h->reported) ? "reported" : "not reported");
    }
}

static void one_round(struct stress_rng *rng) {
    int workers = stress_draw_workers(rng);
    heist_runtime_options options = HEIST_RUNTIME_OPTIONS_INIT;
    bool spare = stress_chance(rng, 50) || workers == 1;
    options.flags = spare ? HEIST_RUNTIME_SPARE_THREAD : 0;
    stuck_after = stress_chance(rng, 50) ? 1e-3 * (double)stress_between(rng, 1, 30) : 0;
    stuck_signal = stuck_after > 0 && stress_chance(rng, 60) ? SIGRTMIN + 2 + (int)stress_below(rng, 5) : 0;
    options.stuck_after = stuck_after;
    options.stuck_signal = stuck_signal;
    options.exception_handler = on_report;
    /* One thread is left that serves; and each driver has one holder at a time. */
    most_holding = workers - 1 + spare;
    if (most_holding > HOLDERS) most_holding = HOLDERS;
    int drivers = (int)stress_between(rng, 1, (uint64_t)most_holding);
    int noisy = stress_chance(rng, 40) ? (int)stress_between(rng, 1, 6) : 0;
    double span = 0.2 + 0.1 * (double)stress_below(rng, 8);
    stress_settings("%d workers%s, %d holders, %d noisy, reports after %.3f s, signal %d, %.1f s", workers,
                    spare ? " and a spare thread" : "", drivers, noisy, stuck_after, stuck_signal, span);
    stress_phase("holding");
    heist_runtime *rt = stress_runtime("blocked", workers, &options);
    heist_task *task[6];
    s_set(&noise_ends, false);
    for (int i = 0; i < noisy; i++)
        if (heist_runtime_run_coroutine(rt, noise, NULL, NULL, &task[i]) < 0) stress_die("no task");
    round_end = stress_now() + span;
    for (int i = 0; i < drivers; i++) {
        struct holder *h = &holders[i];
        h->rt = rt;
        h->slot = i;
        if (pipe(h->wake)) stress_die("no pipe: %d", errno); /* what is left in it ends a later read once, in vain */
        snprintf(h->name, sizeof h->name, "holder %d", i);
        h->rng = stress_stream(rng, (uint64_t)i);
        stress_thread(&h->thread, drive, h);
    }
    for (int i = 0; i < drivers; i++) stress_join(holders[i].thread);
    s_set(&noise_ends, true);
    for (int i = 0; i < noisy; i++) {
        int err = heist_await(task[i], NULL);
        stress_check(err == 0, "a noisy task ended with %s", heist_error_name(err));
        heist_unref(task[i]);
    }
    stress_phase("closing");
    stress_runtime_end(rt);
    for (int i = 0; i < drivers; i++) {
        close(holders[i].wake[0]);
        close(holders[i].wake[1]);
    }
}

int main(int argc, char **argv) {
    stress_begin(argc, argv, "blocked", "a held worker delays nothing but itself; who holds is reported");
    stress_on_stall(dump);
    Dl_info info;
    if (!dladdr((void *)(uintptr_t)holder_callback, &info)) stress_die("no object holds this program's code");
    const char *name = strrchr(info.dli_fname, '/');
    snprintf(holder_function, sizeof holder_function, "%.60s+%#lx", name ? name + 1 : info.dli_fname,
             (unsigned long)((uintptr_t)holder_callback - (uintptr_t)info.dli_fbase));
    for (int i = 0; i < HOLDERS; i++) {
        pthread_mutex_init(&holders[i].lock, NULL);
        pthread_cond_init(&holders[i].changed, NULL);
    }
    struct stress_rng rng;
    while (stress_next_round(&rng)) one_round(&rng);
    for (int k = 0; k < KINDS; k++) stress_note("behind a holder: %-10s %" PRIu64, kind_name[k], s_get(&served_count[k]));
    for (int k = 0; k < WAYS; k++) stress_note("held %-18s %" PRIu64, way_name[k], s_get(&held_count[k]));
    stress_note("every worker held       %" PRIu64, s_get(&all_held));
    stress_note("reports, with stack     %" PRIu64 ", %" PRIu64, s_get(&reports_count), s_get(&stacks_count));
    return stress_end();
}
