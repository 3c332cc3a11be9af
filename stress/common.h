/* stress/common.h: what every stress program shares.
 *
 * Owns: the options, the seed and its streams, the rounds, the watchdog, the progress
 * line, the leak law and the final report.  A program includes this and heist.h, and
 * states one law.
 * Thread: stress_begin, stress_next_round and stress_end on the main thread; all else
 * from any thread, task, callback or destructor.
 * Invariant: the counters here are relaxed atomics.  They order nothing, so that no
 * harness counter hides a missing order of the library from a race detector; what a
 * program hands over (items, payloads) is plain memory. */
#ifndef STRESS_COMMON_H
#define STRESS_COMMON_H

#include <heist.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Counters: this location only. */
#define s_add(p, v) atomic_fetch_add_explicit((p), (v), memory_order_relaxed)
#define s_get(p) atomic_load_explicit((p), memory_order_relaxed)
#define s_set(p, v) atomic_store_explicit((p), (v), memory_order_relaxed)
/* Hand-over, where a law speaks of happens-before: publish pairs with observe. */
#define s_publish(p, v) atomic_store_explicit((p), (v), memory_order_release)
#define s_observe(p) atomic_load_explicit((p), memory_order_acquire)

#define STRESS_NOINLINE __attribute__((noinline))
#define STRESS_PRINTF(f, a) __attribute__((format(printf, f, a)))

/* ---- options, rounds, verdict ---- */

struct stress_options {
    double seconds;   /* how long rounds are begun */
    int workers;      /* 0: drawn for each round */
    int threads;      /* foreign threads, 0: drawn for each round */
    uint64_t seed;    /* drawn from the system unless given */
    long round;       /* >= 0: this round again and again */
    double stall;     /* seconds without progress that end the program */
    const char *skip; /* NULL, or what a program is to leave out */
    bool json, hold, verbose;
};
extern struct stress_options stress_opt;

/* The generator: splitmix64.  One for each thread, task and round, never shared. */
struct stress_rng {
    uint64_t s;
};
uint64_t stress_mix(uint64_t a, uint64_t b);
struct stress_rng stress_stream(struct stress_rng *parent, uint64_t index);
uint64_t stress_next(struct stress_rng *r);
uint64_t stress_below(struct stress_rng *r, uint64_t n);              /* 0 .. n-1 */
uint64_t stress_between(struct stress_rng *r, uint64_t lo, uint64_t hi); /* lo .. hi, small values more often */
bool stress_chance(struct stress_rng *r, unsigned percent);

void stress_begin(int argc, char **argv, const char *name, const char *law);
bool stress_next_round(struct stress_rng *r); /* false: time is up, a law is broken, or SIGINT */
bool stress_going(void);                      /* within a round: false when it ought to come to its end */
int stress_end(void);                         /* closes the books; the exit status */
long stress_round(void);

/* The settings drawn for this round; printed with --verbose and with a failure. */
void stress_settings(const char *format, ...) STRESS_PRINTF(1, 2);
/* Names what is being done; a broken law is reported under this name. */
void stress_phase(const char *name);
/* A broken law: printed at once, the program ends with status 1 after the round. */
void stress_fail(const char *format, ...) STRESS_PRINTF(1, 2);
#define stress_check(cond, ...) ((cond) ? (void)0 : stress_fail(__VA_ARGS__))
/* Something that the harness itself needs went wrong: ends the program. */
_Noreturn void stress_die(const char *format, ...) STRESS_PRINTF(1, 2);
/* A line of the final report. */
void stress_note(const char *format, ...) STRESS_PRINTF(1, 2);

int stress_draw_workers(struct stress_rng *r);
int stress_draw_threads(struct stress_rng *r, int most);
/* Now and then a spare thread, and reports of stuck workers, with the stack or without; for a runtime of its own. */
void stress_draw_watch(struct stress_rng *r, heist_runtime_options *o);
/* n, less where a detector makes everything slow; never below 1. */
size_t stress_scale(size_t n);

/* ---- liveness ---- */

/* Something moved. */
void stress_progress(uint64_t n);
/* How long something took; the worst is in the progress line, a spread in the report. */
void stress_latency(double seconds);

/* One wait that must be answered within the stall limit, beside the time planned.  Slots are numbered by the
 * program, 0 .. STRESS_WAITS-1; others are ignored. */
#define STRESS_WAITS 8192
void stress_wait_begin(int slot, const char *what, double planned_seconds);
void stress_wait_end(int slot);

/* What a program can tell about its own state when it stalls. */
void stress_on_stall(void (*dump)(FILE *to));

/* ---- runtimes and threads ---- */

/* A runtime with the counting exception handler, watched by the watchdog.  opts may be NULL. */
heist_runtime *stress_runtime(const char *name, int workers, const heist_runtime_options *opts);
/* Closes for good, adds its counters to the report, stops watching, drops the reference. */
void stress_runtime_end(heist_runtime *rt);
/* For those who close themselves: counters to the report and no longer watched; the reference is kept. */
void stress_runtime_forget(heist_runtime *rt);
/* Failures that reached an exception handler. */
uint64_t stress_reports(void);
void stress_exception(heist_loop *loop, const heist_report *report, void *user);
/* The sum over all runtimes that were forgotten or ended. */
extern heist_worker_stats stress_totals;

void stress_thread(pthread_t *out, void *(*fn)(void *), void *arg);
void stress_join(pthread_t t);

double stress_now(void); /* the monotonic clock */
/* Plain threads: nothing, a yield, a spin or a sleep of up to max_seconds. */
void stress_pause(struct stress_rng *r, double max_seconds);
void stress_block(double seconds);
void stress_spin(double seconds);

void *stress_alloc(size_t bytes); /* zeroed; never NULL */

/* What the process holds now.  Mappings are the anonymous ones that are not the C library's own, as in the leak law. */
struct stress_held {
    long threads, descriptors, mappings, rss_kib, page_tables_kib;
};
struct stress_held stress_held(void);

#endif
