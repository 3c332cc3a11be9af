/* The live table of the workers; table.h has the contract.
 *
 * One thread wakes four times a second (every two seconds when plain), reads the
 * counters of every worker through heist_runtime_stats and writes the table in one
 * piece.  Invariant: `drawn` is the number of lines of ours below the last line that
 * was said, so going up by it and clearing to the end removes the table and no more. */
#include "table.h"

#include <heist.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define REDRAW_NS 250000000L   /* on a terminal: often enough to look alive */
#define PLAIN_NS 2000000000L   /* lines that somebody keeps in a file */
#define RATE_SECONDS 0.2       /* rates over less than this are noise */
#define PLAIN_WORKERS 8        /* more workers than this give only the sum when plain */

static struct {
    pthread_mutex_t lock; /* guards everything here and standard output */
    pthread_cond_t stop_wanted;
    pthread_t thread;
    heist_runtime *rt;
    int running, stopping, plain;
    int drawn;
    double begun;
    uint64_t work_drawn;
    char phase[96];
    const char *unit;
    const _Atomic(uint64_t) *counter;
    uint64_t count_before;
    double count_time; /* when count_before was read */
    double rate;
    double busy_time;
    struct busy {
        double before; /* processor seconds at busy_time */
        double share;  /* of a processor since the reading before that */
    } *busy;           /* one for each worker */
} table = {.lock = PTHREAD_MUTEX_INITIALIZER};

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- drawing; the lock is held ---- */

static void erase(void) {
    if (table.drawn > 0) printf("\033[%dA\033[J", table.drawn);
    table.drawn = 0;
}

static int rows_that_fit(void) {
    struct winsize size;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0 || size.ws_row < 8) return 4;
    return size.ws_row - 6; /* head, names, sum and a little of what was said */
}

static void draw_head(double t) {
    printf("%s%6.1f s  %s", table.plain ? "" : "\n", t - table.begun, table.phase);
    if (table.counter) {
        double passed = t - table.count_time;
        if (passed >= RATE_SECONDS) {
            uint64_t count = atomic_load_explicit(table.counter, memory_order_relaxed);
            table.rate = (double)(count - table.count_before) / passed;
            table.count_before = count;
            table.count_time = t;
        }
        printf("  %.0f %s/s", table.rate, table.unit);
    }
    printf("\n");
}

static void draw_row(const char *who, const heist_worker_stats *s, double busy) {
    printf("%-6s %10llu %8llu %8llu %10llu %8llu %8llu %6llu %4.0f%%\n", who, (unsigned long long)s->steps,
           (unsigned long long)s->stolen, (unsigned long long)s->wakeups, (unsigned long long)s->io_events,
           (unsigned long long)s->timers, (unsigned long long)s->inbox, (unsigned long long)s->queue, busy * 100);
}

static void add_up(heist_worker_stats *sum, const heist_worker_stats *s) {
    sum->steps += s->steps;
    sum->stolen += s->stolen;
    sum->wakeups += s->wakeups;
    sum->io_events += s->io_events;
    sum->timers += s->timers;
    sum->inbox += s->inbox;
    sum->queue += s->queue;
}

/* What changes when anything happened. */
static uint64_t work_done(void) {
    uint64_t sum = 0;
    for (int i = 0; i < heist_runtime_workers(table.rt); i++) {
        heist_worker_stats s = HEIST_WORKER_STATS_INIT;
        if (heist_runtime_stats(table.rt, i, &s) == 0) sum += s.steps + s.callbacks + s.inbox + s.io_events;
    }
    return sum;
}

static void draw(void) {
    int workers = heist_runtime_workers(table.rt);
    int shown = table.plain ? (workers <= PLAIN_WORKERS ? workers : 0) : rows_that_fit();
    if (shown > workers) shown = workers;
    double t = now(), passed = t - table.busy_time, busy_sum = 0;
    int fresh = passed >= RATE_SECONDS;
    erase();
    if (!table.plain) printf("\033[?7l"); /* a line that is too long is cut: each is one row of the screen */
    draw_head(t);
    printf("%-6s %10s %8s %8s %10s %8s %8s %6s %5s\n", "worker", "tasks run", "stolen", "wake-ups", "I/O events",
           "timers", "inbox", "queue", "busy");
    heist_worker_stats sum = HEIST_WORKER_STATS_INIT;
    for (int i = 0; i < workers; i++) {
        heist_worker_stats s = HEIST_WORKER_STATS_INIT;
        if (heist_runtime_stats(table.rt, i, &s) < 0) continue;
        struct busy *busy = &table.busy[i];
        if (fresh) {
            busy->share = (s.busy_seconds - busy->before) / passed;
            busy->before = s.busy_seconds;
        }
        busy_sum += busy->share;
        add_up(&sum, &s);
        char who[16];
        snprintf(who, sizeof who, "%d", i);
        if (i < shown) draw_row(who, &s, busy->share);
    }
    draw_row(shown < workers ? "all" : "sum", &sum, busy_sum);
    if (!table.plain) printf("\033[?7h");
    fflush(stdout);
    table.drawn = table.plain ? 0 : shown + 4; /* an empty line, head, names, rows, sum */
    if (fresh) table.busy_time = t;
}

static void *keep_drawing(void *arg) {
    (void)arg;
    pthread_mutex_lock(&table.lock);
    while (!table.stopping) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        long step = table.plain ? PLAIN_NS : REDRAW_NS;
        until.tv_sec += (until.tv_nsec + step) / 1000000000L;
        until.tv_nsec = (until.tv_nsec + step) % 1000000000L;
        while (!table.stopping && pthread_cond_timedwait(&table.stop_wanted, &table.lock, &until) == 0) {}
        uint64_t work = work_done();
        if (table.plain && work == table.work_drawn) continue; /* an idle server fills no file */
        table.work_drawn = work;
        draw();
    }
    pthread_mutex_unlock(&table.lock);
    return NULL;
}

/* ---- the calls of the others ---- */

int table_start(heist_runtime *rt, int plain) {
    pthread_condattr_t attr;
    table.busy = calloc((size_t)heist_runtime_workers(rt), sizeof *table.busy);
    if (!table.busy) return -ENOMEM;
    table.rt = rt;
    table.plain = plain || !isatty(STDOUT_FILENO);
    table.begun = table.busy_time = now();
    table.stopping = 0;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&table.stop_wanted, &attr);
    pthread_condattr_destroy(&attr);
    int err = pthread_create(&table.thread, NULL, keep_drawing, NULL);
    if (err) {
        free(table.busy);
        return -err;
    }
    table.running = 1;
    return 0;
}

void table_stop(void) {
    if (!table.running) return;
    pthread_mutex_lock(&table.lock);
    table.stopping = 1;
    pthread_cond_signal(&table.stop_wanted);
    pthread_mutex_unlock(&table.lock);
    pthread_join(table.thread, NULL);
    pthread_cond_destroy(&table.stop_wanted);
    free(table.busy);
    table.running = 0;
    table.drawn = 0; /* the last drawing stays */
}

void table_say(const char *format, ...) {
    va_list args;
    va_start(args, format);
    pthread_mutex_lock(&table.lock);
    int had_table = table.drawn > 0;
    erase();
    vprintf(format, args);
    printf("\n");
    if (had_table) draw();
    fflush(stdout);
    pthread_mutex_unlock(&table.lock);
    va_end(args);
}

void table_phase(const char *format, ...) {
    va_list args;
    va_start(args, format);
    pthread_mutex_lock(&table.lock);
    vsnprintf(table.phase, sizeof table.phase, format, args);
    pthread_mutex_unlock(&table.lock);
    va_end(args);
}

void table_rate(const char *unit, const _Atomic(uint64_t) *counter) {
    pthread_mutex_lock(&table.lock);
    table.unit = unit;
    table.counter = counter;
    table.count_before = counter ? atomic_load_explicit(counter, memory_order_relaxed) : 0;
    table.count_time = now();
    table.rate = 0;
    pthread_mutex_unlock(&table.lock);
}
