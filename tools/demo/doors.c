/* Part 3: the two doors under load.
 *
 * Four foreign threads hand in 1,000,000 callbacks, each thread all of its own to one
 * loop, and 100,000 coroutines, by turns to a loop and to the whole runtime.  Every
 * answer is checked by the thread that asked.  A ticket is written by the worker that
 * serves it and read by its owner after the future that closes the series is done, so
 * its fields are plain.  Called by main.c on the main thread. */
#include "parts.h"
#include "report.h"
#include "table.h"

#include <heist.h>
#include <stdatomic.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>

#define THREADS 4
#define CALLBACKS (1000000 / THREADS) /* by each thread */
#define COROUTINES (100000 / THREADS) /* by each thread */
#define WINDOW 256                    /* coroutines that a thread has under way at a time */
#define PATIENCE 60.0

struct foreigner;

struct ticket {
    struct foreigner *owner;
    uint32_t number;
    uint32_t served; /* how often */
    uint64_t answer;
};

struct foreigner {
    heist_runtime *rt;
    heist_loop *loop; /* where its callbacks go */
    pthread_t thread;
    /* written on `loop` alone */
    uint32_t next;         /* the ticket that is due */
    uint32_t out_of_order;
    heist_future *served_all;
    /* written by the thread; read after the join */
    int err;
    uint32_t wrong_callbacks, wrong_coroutines, coroutines_done;
    double callback_seconds, coroutine_seconds;
};

static _Atomic(uint64_t) answered; /* for the table: answers so far, of both kinds */

/* Any function that two sides can compute: nobody guesses it, and 0 is not its answer to 0. */
static uint64_t question(uint64_t x) {
    x = (x + 0x9e3779b97f4a7c15u) * 0xbf58476d1ce4e5b9u;
    return x ^ (x >> 29);
}

/* ---- callbacks ---- */

static int serve_ticket(void *arg) {
    struct ticket *t = arg;
    struct foreigner *f = t->owner;
    if (t->number != f->next) f->out_of_order++;
    f->next = t->number + 1;
    t->served++;
    t->answer = question(t->number);
    atomic_fetch_add_explicit(&answered, 1, memory_order_relaxed);
    return t->number == CALLBACKS - 1 ? heist_future_set_result(f->served_all, NULL, NULL) : 0;
}

static int callbacks(struct foreigner *f) {
    struct ticket *tickets = calloc(CALLBACKS, sizeof *tickets);
    if (!tickets) return -ENOMEM;
    double start = heist_time();
    int err = heist_future_new(f->loop, &f->served_all);
    for (uint32_t i = 0; i < CALLBACKS && err == 0; i++) {
        tickets[i].owner = f;
        tickets[i].number = i;
        err = heist_loop_call_soon_threadsafe(f->loop, serve_ticket, &tickets[i], NULL, NULL);
    }
    if (err == 0) err = heist_await_until(f->served_all, heist_time() + PATIENCE, NULL);
    f->callback_seconds = heist_time() - start;
    /* At a failure some may still be on their way: the tickets then stay, for they are pointed at. */
    if (err < 0) return err;
    for (uint32_t i = 0; i < CALLBACKS; i++)
        f->wrong_callbacks += tickets[i].served != 1 || tickets[i].answer != question(i);
    free(tickets);
    heist_unref(f->served_all);
    return 0;
}

/* ---- coroutines ---- */

static int think(void *arg, void **out) {
    uint64_t x = (uint64_t)(uintptr_t)arg;
    int err = heist_yield(); /* a real suspension, after which any worker may go on */
    if (err < 0) return err;
    *out = (void *)(uintptr_t)question(x);
    atomic_fetch_add_explicit(&answered, 1, memory_order_relaxed);
    return 0;
}

static int collect(struct foreigner *f, heist_task *task, uint64_t x) {
    void *answer = NULL;
    int err = heist_await_until(task, heist_time() + PATIENCE, &answer);
    heist_unref(task);
    if (err < 0) return err;
    f->coroutines_done++;
    f->wrong_coroutines += (uint64_t)(uintptr_t)answer != (uint64_t)(uintptr_t)question(x);
    return 0;
}

static int coroutines(struct foreigner *f) {
    heist_task *window[WINDOW];
    uint64_t asked[WINDOW];
    double start = heist_time();
    int err = 0;
    uint32_t in = 0, out = 0;
    while (out < COROUTINES && (err == 0 || out < in)) {
        if (err == 0 && in < COROUTINES && in - out < WINDOW) {
            asked[in % WINDOW] = (uint64_t)in * THREADS + (uint64_t)(uintptr_t)f % 1024;
            void *arg = (void *)(uintptr_t)asked[in % WINDOW];
            err = in % 2 ? heist_run_coroutine_threadsafe(f->loop, think, arg, NULL, &window[in % WINDOW])
                         : heist_runtime_run_coroutine(f->rt, think, arg, NULL, &window[in % WINDOW]);
            if (err == 0) in++;
        } else {
            int failed = collect(f, window[out % WINDOW], asked[out % WINDOW]);
            if (err == 0) err = failed;
            out++;
        }
    }
    f->coroutine_seconds = heist_time() - start;
    return err;
}

/* ---- four of them ---- */

static void *foreign_thread(void *arg) {
    struct foreigner *f = arg;
    f->err = callbacks(f);
    if (f->err == 0) f->err = coroutines(f);
    return NULL;
}

static void judge(const struct foreigner f[THREADS], double seconds) {
    uint32_t wrong = 0, disorder = 0, wrong_coroutines = 0, done = 0;
    double callback_seconds = 0, coroutine_seconds = 0;
    int err = 0;
    for (int i = 0; i < THREADS; i++) {
        if (err == 0) err = f[i].err;
        wrong += f[i].wrong_callbacks;
        disorder += f[i].out_of_order;
        wrong_coroutines += f[i].wrong_coroutines;
        done += f[i].coroutines_done;
        if (f[i].callback_seconds > callback_seconds) callback_seconds = f[i].callback_seconds;
        if (f[i].coroutine_seconds > coroutine_seconds) coroutine_seconds = f[i].coroutine_seconds;
    }
    report_law(err == 0, "four foreign threads were served to the end (%s)", heist_error_name(err));
    report_law(err == 0 && wrong == 0, "%d callbacks: each ran once with the right answer (%u did not)",
               CALLBACKS * THREADS, wrong);
    report_law(disorder == 0, "callbacks of a thread ran in the order of their submission (%u did not)", disorder);
    report_law(done == COROUTINES * THREADS && wrong_coroutines == 0, "%u of %d coroutines answered, %u wrongly", done,
               COROUTINES * THREADS, wrong_coroutines);
    if (err == 0)
        report_figure("%.2f s in all: %.2f million callbacks/s, %.0f coroutines/s", seconds,
                      CALLBACKS * THREADS / callback_seconds / 1e6, COROUTINES * THREADS / coroutine_seconds);
}

void doors_run(heist_runtime *rt) {
    static struct foreigner f[THREADS]; /* static: it must outlive stragglers after a failure */
    int started = 0;
    report_part("3  the two doors");
    table_phase("3 the two doors: 1,000,000 callbacks, 100,000 coroutines from 4 threads");
    table_rate("answers", &answered);
    table_say("3  four threads hand in 1,000,000 callbacks and 100,000 coroutines");
    double start = heist_time();
    for (; started < THREADS; started++) {
        f[started].rt = rt;
        f[started].loop = heist_runtime_loop(rt, started % heist_runtime_workers(rt));
        if (pthread_create(&f[started].thread, NULL, foreign_thread, &f[started]) != 0) break;
    }
    for (int i = 0; i < started; i++) pthread_join(f[i].thread, NULL);
    if (report_law(started == THREADS, "%d of %d foreign threads started", started, THREADS))
        judge(f, heist_time() - start);
    table_rate(NULL, NULL);
}
