/* blocked.c: a task holds its worker for half a second without telling; how long does
 * what stands behind it wait?
 *
 * A holder is pinned, so that it is known whose worker it holds.  Before the hold it
 * lays out work that belongs to that worker: tasks that sleep until an instant within
 * the hold, tasks that read from sockets, and, as its last act, tasks in its queue.  While
 * they arm, every other worker is held too, so that they arm on that loop (checked).
 * Then all workers may fall asleep, and the hold begins.  During it a plain thread
 * writes a byte to each socket, and another submits coroutines to the held loop.
 *
 *   spin   the holder computes, the other workers are idle
 *   block  the holder sleeps in the kernel, the others are idle
 *   busy   the holder computes, and the others run short tasks (20 us, yield) throughout
 *
 * Each figure is the time from the moment that something is due (queued tasks: that they
 * are made) until its task runs.  With 8 workers three are held, of which one computes at
 * most, for there may be fewer processors.  With one worker the options ask for a spare
 * thread. */
#include "common.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define HOLD_NS ((int64_t)500000000)
#define EACH 40 /* of each kind, in each round and for each holder */

enum { QUEUED, TIMER, SOCKET, INBOX, KINDS };
enum { SPIN, BLOCK, BUSY, MODES };
static const char *const kind_name[KINDS] = {"queued", "timer", "socket", "inbox"};
static const char *const mode_name[MODES] = {"spin", "block", "busy"};

/* Holds the thread, and with it the worker, until it is opened. */
struct gate {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int count; /* who came */
    int open;
};

struct holder;

struct item {
    struct holder *holder;
    int kind;
    int fd[2];
    int64_t due, ran;
};

struct round {
    heist_runtime *runtime;
    int workers, holders, mode;
    struct gate finished; /* items, holders and busy tasks that have ended */
    _Atomic(int64_t) t0;  /* when the hold begins; 0 while it is not known */
    atomic_int over;
    uint32_t random;
};

struct holder {
    struct round *round;
    heist_loop *loop;
    int number;
    struct gate others; /* what occupies the other workers while this one arms */
    struct gate armed; /* 1: this holder's items stand */
    int waiting;       /* items that are about to wait; of the held loop's thread alone */
    struct item item[KINDS][EACH];
};

static void gate_init(struct gate *g) {
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->changed, NULL);
    g->count = g->open = 0;
}
static void gate_come(struct gate *g) {
    pthread_mutex_lock(&g->lock);
    g->count++;
    pthread_cond_broadcast(&g->changed);
    pthread_mutex_unlock(&g->lock);
}
static void gate_come_and_wait(struct gate *g) {
    pthread_mutex_lock(&g->lock);
    g->count++;
    pthread_cond_broadcast(&g->changed);
    while (!g->open) pthread_cond_wait(&g->changed, &g->lock);
    pthread_mutex_unlock(&g->lock);
}
static void gate_await_count(struct gate *g, int count) {
    pthread_mutex_lock(&g->lock);
    while (g->count < count) pthread_cond_wait(&g->changed, &g->lock);
    pthread_mutex_unlock(&g->lock);
}
static void gate_open(struct gate *g) {
    pthread_mutex_lock(&g->lock);
    g->open = 1;
    pthread_cond_broadcast(&g->changed);
    pthread_mutex_unlock(&g->lock);
}

static void sleep_thread_until(int64_t ns) {
    struct timespec t = {ns / 1000000000, ns % 1000000000};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL)) {}
}

static void spin_until(int64_t ns) {
    while (bench_now_ns() < ns) {}
}

static int64_t next_jitter(struct round *r, int64_t below) {
    r->random = r->random * 1664525u + 1013904223u;
    return (int64_t)(r->random >> 8) % below;
}

/* ---- what waits behind the holder ---- */

static void check_place(const struct holder *h) {
    heist_loop *loop;
    BENCH_MUST(heist_get_running_loop(&loop));
    BENCH_CHECK(loop == h->loop); /* it arms on the loop that will be held */
}

static int item_body(void *arg, void **out) {
    struct item *i = arg;
    char byte;
    heist_conn *conn = NULL;
    (void)out;
    if (i->kind == TIMER) {
        check_place(i->holder);
        i->holder->waiting++;
        BENCH_MUST(heist_sleep_until((double)i->due / 1e9));
    } else if (i->kind == SOCKET) {
        check_place(i->holder);
        BENCH_MUST(heist_conn_open(i->fd[0], &conn));
        i->holder->waiting++;
        BENCH_CHECK(heist_conn_read(conn, &byte, 1, HEIST_FOREVER) == 1);
    }
    i->ran = bench_now_ns();
    heist_conn_close(conn);
    gate_come(&i->holder->round->finished);
    return 0;
}

static int occupy(void *arg, void **out) {
    struct holder *h = arg;
    (void)out;
    gate_come_and_wait(&h->others);
    gate_come(&h->round->finished);
    return 0;
}

static int hold(void *arg, void **out) {
    struct holder *h = arg;
    struct round *r = h->round;
    (void)out;
    for (int k = TIMER; k <= SOCKET; k++)
        for (int i = 0; i < EACH; i++) BENCH_MUST(heist_create_task(item_body, &h->item[k][i], NULL, NULL));
    while (h->waiting < 2 * EACH) BENCH_MUST(heist_yield());
    BENCH_MUST(heist_yield()); /* the last one has suspended */
    gate_come(&h->armed);
    while (!r->t0) BENCH_MUST(heist_sleep(0.001));
    BENCH_MUST(heist_sleep_until((double)r->t0 / 1e9));
    for (int i = 0; i < EACH; i++) {
        h->item[QUEUED][i].due = bench_now_ns();
        BENCH_MUST(heist_create_task(item_body, &h->item[QUEUED][i], NULL, NULL));
    }
    int64_t start = bench_now_ns();
    if (r->mode == BLOCK || h->number > 0)
        sleep_thread_until(start + HOLD_NS);
    else
        spin_until(start + HOLD_NS);
    r->over = 1;
    gate_come(&r->finished);
    return 0;
}

static int short_steps(void *arg, void **out) {
    struct round *r = arg;
    (void)out;
    while (!r->over) {
        spin_until(bench_now_ns() + 20000);
        BENCH_MUST(heist_yield());
    }
    gate_come(&r->finished);
    return 0;
}

/* ---- the two plain threads ---- */

static void *write_bytes(void *arg) {
    struct holder *h = arg;
    for (int i = 0; i < EACH; i++) {
        struct item *it = &h->item[SOCKET][i];
        sleep_thread_until(it->due);
        it->due = bench_now_ns();
        BENCH_CHECK(write(it->fd[1], "x", 1) == 1);
    }
    return NULL;
}

static void *submit(void *arg) {
    struct holder *h = arg;
    for (int i = 0; i < EACH; i++) {
        struct item *it = &h->item[INBOX][i];
        sleep_thread_until(it->due);
        it->due = bench_now_ns();
        BENCH_MUST(heist_run_coroutine_threadsafe(h->loop, item_body, it, NULL, NULL));
    }
    return NULL;
}

/* ---- a round ---- */

static struct holder *lay_out(struct round *r, int number, int worker) {
    struct holder *h = calloc(1, sizeof *h);
    BENCH_CHECK(h != NULL);
    h->round = r;
    h->number = number;
    h->loop = heist_runtime_loop(r->runtime, worker);
    gate_init(&h->others);
    gate_init(&h->armed);
    for (int k = 0; k < KINDS; k++)
        for (int i = 0; i < EACH; i++) {
            h->item[k][i].holder = h;
            h->item[k][i].kind = k;
            if (k == SOCKET) BENCH_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, h->item[k][i].fd) == 0);
            /* Between 2 % and 92 % of the hold, at no regular distance. */
            h->item[k][i].due = r->t0 + HOLD_NS / 50 + i * (HOLD_NS * 9 / 10 / EACH) + next_jitter(r, HOLD_NS / EACH / 2);
        }
    return h;
}

static void run_round(heist_runtime *runtime, int workers, int mode, int number, int64_t **sample) {
    struct round r = {.runtime = runtime, .workers = workers, .mode = mode, .random = (uint32_t)number * 2654435761u + 1};
    r.holders = workers >= 4 ? workers * 3 / 8 : 1;
    struct holder *h[64];
    heist_task_options pinned = HEIST_TASK_OPTIONS_INIT;
    pinned.flags = HEIST_TASK_PINNED;
    gate_init(&r.finished);
    int64_t t0 = bench_now_ns() + 100000000 * r.holders;
    for (int k = 0; k < r.holders; k++) {
        int worker = (number + k) % workers;
        r.t0 = t0; /* for the instants */
        h[k] = lay_out(&r, k, worker);
        r.t0 = 0;
        for (int w = 0; w < workers; w++)
            if (w != worker)
                BENCH_MUST(heist_run_coroutine_threadsafe(heist_runtime_loop(runtime, w), occupy, h[k], &pinned, NULL));
        gate_await_count(&h[k]->others, workers - 1);
        BENCH_MUST(heist_run_coroutine_threadsafe(h[k]->loop, hold, h[k], &pinned, NULL));
        gate_await_count(&h[k]->armed, 1);
        gate_open(&h[k]->others);
        gate_await_count(&r.finished, (workers - 1) * (k + 1));
    }
    BENCH_CHECK(bench_now_ns() < t0);
    int busy = mode == BUSY ? 2 * (workers - r.holders) : 0;
    for (int i = 0; i < busy; i++) BENCH_MUST(heist_runtime_run_coroutine(runtime, short_steps, &r, NULL, NULL));
    pthread_t thread[2 * 64];
    for (int k = 0; k < r.holders; k++) {
        BENCH_CHECK(pthread_create(&thread[2 * k], NULL, write_bytes, h[k]) == 0);
        BENCH_CHECK(pthread_create(&thread[2 * k + 1], NULL, submit, h[k]) == 0);
    }
    r.t0 = t0;
    gate_await_count(&r.finished, r.holders * (KINDS * EACH + 1 + workers - 1) + busy);
    for (int k = 0; k < r.holders; k++) {
        pthread_join(thread[2 * k], NULL);
        pthread_join(thread[2 * k + 1], NULL);
        for (int kind = 0; kind < KINDS; kind++)
            for (int i = 0; i < EACH; i++) {
                struct item *it = &h[k]->item[kind][i];
                BENCH_CHECK(it->ran >= it->due);
                *sample[kind]++ = it->ran - it->due;
                if (kind == SOCKET) close(it->fd[1]);
            }
        free(h[k]);
    }
}

void bench_blocked(const struct bench_args *args) {
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    heist_runtime *runtime;
    opts.workers = args->workers;
    if (args->workers == 1) opts.flags = HEIST_RUNTIME_SPARE_THREAD;
    opts.name = "bench";
    BENCH_CHECK(args->workers <= 64);
    int holders = args->workers >= 4 ? args->workers * 3 / 8 : 1;
    size_t n = args->n * EACH * (size_t)holders;
    BENCH_MUST(heist_runtime_new(&opts, &runtime));
    for (int mode = 0; mode < MODES; mode++) {
        if (mode == BUSY && args->workers == 1) continue;
        int64_t *sample[KINDS], *end[KINDS];
        for (int k = 0; k < KINDS; k++) BENCH_CHECK((sample[k] = end[k] = calloc(n, sizeof(int64_t))) != NULL);
        for (size_t i = 0; i < args->n; i++) run_round(runtime, args->workers, mode, (int)i, end);
        for (int k = 0; k < KINDS; k++) {
            char metric[64];
            qsort(sample[k], n, sizeof(int64_t), bench_compare_ns);
            snprintf(metric, sizeof metric, "%s.%s.p50", mode_name[mode], kind_name[k]);
            bench_emit(metric, n, (double)sample[k][n / 2] / 1e3, "us");
            snprintf(metric, sizeof metric, "%s.%s.p99", mode_name[mode], kind_name[k]);
            bench_emit(metric, n, (double)sample[k][n * 99 / 100] / 1e3, "us");
            free(sample[k]);
        }
    }
    BENCH_MUST(heist_runtime_close(runtime, HEIST_FOREVER));
    heist_runtime_unref(runtime);
}
