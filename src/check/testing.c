/* The calls of heist/testing.h that a program makes inside a simulation, and the single run. */
#include <errno.h>
#include <heist/testing.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/options.h"
#include "base/sys.h"
#include "check/run.h"
#include "loop/clock.h"

_Static_assert(HEIST_SIM_FAULT_KINDS == HEIST__FAULTS && HEIST_SIM_FAULT_SPURIOUS == HEIST__FAULT_SPURIOUS &&
                   HEIST_SIM_FAULT_SHORT == HEIST__FAULT_SHORT,
               "the public numbers of the faults are the inner ones");
_Static_assert(HEIST_SIM_OK == HEIST__SIM_OK && HEIST_SIM_CRASHED == HEIST__SIM_CRASHED, "and those of the outcomes");

/* ---- inside ---- */

int heist_sim_running(void) { return heist__simulated(); }

void heist_sim_point_at(const char *file, int line) {
    if (heist__sim_maybe()) heist__sim_step(file, line);
}

void heist_sim_spin(void) { heist__sys_yield(); }

void heist_sim_pause(double seconds) {
    if (!(seconds > 0)) return;
    int64_t ns = heist__ns_from_seconds(seconds), longest = HEIST__NEVER / 4; /* 73 years */
    heist__sys_sleep(ns < longest ? ns : longest);
}

unsigned heist_sim_choose(unsigned n) { return heist__sim_choose(n); }

void heist_sim_fail(const char *format, ...) {
    char message[256];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    heist__sim_fail(HEIST__SIM_FAILED, "%s", message);
}

void heist_sim_lock(pthread_mutex_t *mutex) {
    if (!heist__simulated()) {
        pthread_mutex_lock(mutex);
        return;
    }
    heist__sim_step(__FILE__, __LINE__);
    while (pthread_mutex_trylock(mutex) != 0) heist__sim_wait(mutex, INT64_MAX, "a mutex");
}

void heist_sim_unlock(pthread_mutex_t *mutex) {
    if (heist__simulated()) heist__sim_step(__FILE__, __LINE__);
    pthread_mutex_unlock(mutex);
    heist__sim_wake(mutex, 1);
}

struct heist_sim_thread {
    pthread_t thread;
    void (*fn)(void *arg);
    void *arg;
};

static void *thread_main(void *arg) {
    struct heist_sim_thread *t = arg;
    t->fn(t->arg);
    return NULL;
}

int heist_sim_thread_start(void (*fn)(void *arg), void *arg, heist_sim_thread **out) {
    if (!fn || !out) return -EINVAL;
    struct heist_sim_thread *t = calloc(1, sizeof(*t));
    if (!t) return -ENOMEM;
    t->fn = fn;
    t->arg = arg;
    /* Not through the seam of sys.h: a fault there is the library's, which handles it. */
    int err = heist__simulated() ? heist__sim_thread_create(&t->thread, NULL, thread_main, t)
                                 : -pthread_create(&t->thread, NULL, thread_main, t);
    if (err) {
        free(t);
        return err;
    }
    *out = t;
    heist_sim_point();
    return 0;
}

void heist_sim_thread_join(heist_sim_thread *t) {
    if (!t) return;
    (void)heist__sys_thread_join(t->thread, NULL);
    free(t);
}

/* ---- one run ---- */

struct body {
    heist_sim_body fn;
    void *arg;
    int code;
};

static void body_main(void *arg) {
    struct body *b = arg;
    b->code = b->fn(b->arg);
}

int heist__run_body(heist_sim_body fn, void *arg, const heist_sim_options *o, const struct heist__strategy *strategy,
                    struct heist__record *record, struct heist__run *run) {
    struct body b = {fn, arg, 0};
    struct heist__sim_thread_spec thread = {body_main, &b};
    struct heist__sim_spec spec = {.strategy = strategy,
                                   .thread = &thread,
                                   .threads = 1,
                                   .cpus = o->workers,
                                   .max_steps = o->max_steps,
                                   .record = record};
    struct heist__sim *sim = heist__sim_open(false);
    if (!sim) return -ENOMEM;
    record->count = 0;
    int err = heist__sim_run(sim, &spec, &run->report);
    heist__sim_close(sim);
    if (err) return err;
    run->code = b.code;
    if (run->report.outcome == HEIST__SIM_OK && b.code) {
        run->report.outcome = HEIST__SIM_FAILED;
        snprintf(run->report.message, sizeof(run->report.message), "the body returned %d", b.code);
    }
    return 0;
}

void heist__run_result(const struct heist__run *run, const struct heist__record *record, heist_sim_result *r) {
    const struct heist__sim_counts *c = &run->report.counts;
    r->outcome = run->report.outcome;
    r->code = run->code;
    r->steps = c->steps;
    r->switches = c->switches;
    r->preemptions = c->preemptions;
    r->jumps = c->jumps;
    r->seconds = (double)c->now_ns / 1e9;
    r->hash = c->hash;
    for (int k = 0; k < HEIST__FAULTS; k++) r->fault[k] = c->faults[k];
    memcpy(r->message, run->report.message, sizeof(r->message));
    r->decisions = record->count;
    r->plan[0] = 0;
    if (record->count <= record->room &&
        heist__plan_write(record->list, record->count, r->plan, sizeof(r->plan)) >= sizeof(r->plan))
        r->plan[0] = 0;
}

int heist__run_plan(heist_sim_body fn, void *arg, const heist_sim_options *o, const char *text,
                    struct heist__record *record, struct heist__run *run) {
    struct heist__plan plan;
    int err = heist__plan_of_text(&plan, text);
    if (err) return err;
    err = heist__run_body(fn, arg, o, &plan.strategy, record, run);
    heist__plan_free(&plan);
    return err;
}

int heist__run_seed(heist_sim_body fn, void *arg, const heist_sim_options *o, uint64_t seed,
                    struct heist__record *record, struct heist__run *run) {
    struct heist__seeded *seeded = calloc(1, sizeof(*seeded));
    if (!seeded) return -ENOMEM;
    heist__seeded_init(seeded, seed, o->flags, o->fault);
    int err = heist__run_body(fn, arg, o, &seeded->strategy, record, run);
    free(seeded);
    return err;
}

bool heist__sim_options_ok(const heist_sim_options *o) {
    const unsigned known =
        HEIST_SIM_RANDOM | HEIST_SIM_PRIORITIES | HEIST_SIM_PUNCTUAL | HEIST_SIM_QUIET | HEIST_SIM_VERBOSE;
    if (!heist__options_ok(o, sizeof(*o)) || (o->flags & ~known) || o->workers < 0) return false;
    for (int k = 0; k < HEIST_SIM_FAULT_ROOM; k++) {
        if (!(o->fault[k].probability >= 0 && o->fault[k].probability <= 1)) return false;
        if (k >= HEIST__FAULTS && (o->fault[k].probability > 0 || o->fault[k].nth)) return false;
    }
    return true;
}

#define RECORD_ROOM (1u << 20)

int heist_sim_run(heist_sim_body body, void *arg, const heist_sim_options *opts, heist_sim_result *result) {
    static const heist_sim_options defaults = HEIST_SIM_OPTIONS_INIT;
    const heist_sim_options *o = opts ? opts : &defaults;
    if (!body || !result || result->size < sizeof(*result) || !heist__sim_options_ok(o)) return -EINVAL;
    struct heist__record *record = calloc(1, sizeof(*record) + RECORD_ROOM * sizeof(record->list[0]));
    struct heist__run *run = calloc(1, sizeof(*run));
    int err = record && run ? 0 : -ENOMEM;
    if (!err) {
        record->room = RECORD_ROOM;
        err = o->plan ? heist__run_plan(body, arg, o, o->plan, record, run)
                      : heist__run_seed(body, arg, o, o->seed, record, run);
    }
    if (!err) {
        heist__run_result(run, record, result);
        result->seed = o->seed;
        result->runs = 1;
        result->shrinking = 0;
        if (result->outcome && !(o->flags & HEIST_SIM_QUIET))
            fprintf(stderr, "heist: %s\n%s", run->report.message, run->report.text);
    }
    free(run);
    free(record);
    return err;
}
