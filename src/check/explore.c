/* The walk over all schedules; see explore.h. */
#include "check/explore.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/macros.h"
#include "check/plan.h"

#define STEPS_DEFAULT 100000
#define RECORD_ROOM 4096
/* Runs before the first that counts: caches fill, keys are made. */
#define WARM_UP 2

/* A point with more than one way on. */
struct node {
    uint64_t hash;    /* of the run up to here, to see whether a repetition takes the same course */
    uint64_t enabled;
    uint64_t untried; /* threads; of a choice, unused */
    int16_t current;
    int16_t taken;    /* a thread, HEIST__SIM_JUMP, or the outcome of a choice */
    uint16_t outcomes; /* of a choice; 0: a switch */
    bool stays, jump_untried;
};

struct walk {
    struct heist__strategy strategy;
    const struct heist__explore_options *o;
    int bound;
    struct node *node;
    size_t depth, room; /* nodes on the path */
    size_t at;          /* nodes passed in this run */
    int used, chosen;   /* preemptions, and outcomes other than 0, so far */
    bool no_memory, odd;
};

static struct node *grow(struct walk *w) {
    if (w->depth == w->room) {
        size_t room = w->room ? 2 * w->room : 256;
        struct node *more = realloc(w->node, room * sizeof(*more));
        if (!more) {
            w->no_memory = true;
            return NULL;
        }
        w->node = more;
        w->room = room;
    }
    struct node *n = &w->node[w->depth++];
    *n = (struct node){.hash = heist__sim_hash()};
    w->at = w->depth;
    return n;
}

static int pass(struct walk *w, const struct node *n) {
    if (n->stays && n->taken != n->current) w->used++;
    if (!n->stays && n->taken == HEIST__SIM_JUMP) w->used++;
    return n->taken;
}

static int next(void *self, const struct heist__choice *c, uint64_t *quiet) {
    struct walk *w = self;
    uint64_t own = c->current < HEIST__SIM_THREADS ? UINT64_C(1) << c->current : 0;
    bool more = w->used < w->bound;
    uint64_t others = c->stays ? more ? c->enabled & ~own : 0 : c->enabled & ~(UINT64_C(1) << c->usual);
    bool jump = w->o->jumps && c->may_jump && more;
    if (!others && !jump) {
        if (c->stays && !more) *quiet = UINT64_MAX; /* nothing is left to try until it waits */
        return c->usual;
    }
    if (w->at < w->depth) {
        struct node *n = &w->node[w->at];
        if (n->outcomes || n->hash != heist__sim_hash() || n->enabled != c->enabled) {
            w->odd = true;
            return HEIST__SIM_NOBODY; /* refused: ends the run */
        }
        w->at++;
        return pass(w, n);
    }
    struct node *n = grow(w);
    if (!n) return c->usual;
    n->enabled = c->enabled;
    n->untried = others;
    n->current = (int16_t)c->current;
    n->stays = c->stays;
    n->jump_untried = jump;
    n->taken = (int16_t)c->usual;
    return pass(w, n);
}

static unsigned choose(void *self, unsigned outcomes) {
    struct walk *w = self;
    if (w->o->choices >= 0 && w->chosen >= w->o->choices) return 0;
    if (w->at < w->depth) {
        struct node *n = &w->node[w->at];
        if (n->outcomes != outcomes || n->hash != heist__sim_hash()) {
            w->odd = true;
            heist__sim_fail(HEIST__SIM_ODD, "another choice than in the run before");
        }
        w->at++;
        w->chosen += n->taken != 0;
        return (unsigned)n->taken;
    }
    struct node *n = grow(w);
    if (n) n->outcomes = (uint16_t)outcomes;
    return 0;
}

/* To the next path; false: there is none. */
static bool advance(struct walk *w) {
    for (; w->depth; w->depth--) {
        struct node *n = &w->node[w->depth - 1];
        if (n->outcomes) {
            if (n->taken + 1 >= n->outcomes) continue;
            n->taken++;
            return true;
        }
        if (n->untried) {
            int id = __builtin_ctzll(n->untried);
            n->untried &= n->untried - 1;
            n->taken = (int16_t)id;
            return true;
        }
        if (n->jump_untried) {
            n->jump_untried = false;
            n->taken = HEIST__SIM_JUMP;
            return true;
        }
    }
    return false;
}

static double seconds_now(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

struct job {
    const struct heist__explore_options *o;
    const struct heist__sim_thread_spec *thread;
    int threads;
    void (*setup)(void *arg);
    const char *(*check)(void *arg);
    void *arg;
    struct heist__sim *sim;
    struct heist__record *record;
    struct heist__explore_result *result;
};

/* One run; a negative code, 0, or 1: it failed. */
static int execute(struct job *j, const struct heist__strategy *strategy) {
    struct heist__sim_spec spec = {
        .strategy = strategy,
        .thread = j->thread,
        .threads = j->threads,
        .max_steps = j->o->max_steps ? j->o->max_steps : STEPS_DEFAULT,
        .record = j->record,
    };
    j->record->count = 0;
    struct heist__sim_report *report = &j->result->report;
    if (j->setup) j->setup(j->arg);
    int err = heist__sim_run(j->sim, &spec, report);
    if (err) return err;
    j->result->steps += report->counts.steps;
    if (report->outcome == HEIST__SIM_OK && j->check) {
        const char *wrong = j->check(j->arg);
        if (wrong) {
            report->outcome = HEIST__SIM_FAILED;
            snprintf(report->message, sizeof(report->message), "%s", wrong);
        }
    }
    return report->outcome != HEIST__SIM_OK;
}

static void found(struct job *j) {
    uint32_t kept = j->record->count < RECORD_ROOM ? j->record->count : RECORD_ROOM;
    heist__plan_write(j->record->list, kept, j->result->replay, sizeof(j->result->replay));
}

static int prepare(struct job *j) {
    memset(j->result, 0, sizeof(*j->result));
    if (j->threads < 1 || j->threads > HEIST__SIM_THREADS || j->o->preemptions < 0 ||
        j->o->preemptions > HEIST__EXPLORE_BOUND_MAX)
        return -EINVAL;
    j->record = calloc(1, sizeof(*j->record) + RECORD_ROOM * sizeof(j->record->list[0]));
    j->sim = heist__sim_open(!j->o->fresh);
    if (!j->record || !j->sim) return -ENOMEM;
    j->record->room = RECORD_ROOM;
    return 0;
}

static void finish(struct job *j) {
    heist__sim_close(j->sim);
    free(j->record);
}

static int explore(struct job *j) {
    struct walk w = {.o = j->o};
    w.strategy = (struct heist__strategy){next, choose, NULL, &w};
    struct heist__explore_result *r = j->result;
    double begun = seconds_now();
    int rc = 0;
    for (int i = 0; i < WARM_UP && !rc; i++) {
        w.bound = w.used = w.chosen = 0;
        w.depth = w.at = 0;
        rc = execute(j, &w.strategy);
    }
    r->steps = 0;
    for (w.bound = 0; w.bound <= j->o->preemptions && !rc; w.bound++) {
        r->bound = w.bound;
        w.depth = 0;
        do {
            w.at = 0;
            w.used = w.chosen = 0;
            rc = execute(j, &w.strategy);
            r->executions++;
            r->at_bound[w.bound]++;
            if (rc) break;
            if (w.no_memory) rc = -ENOMEM;
            if (j->o->max_executions && r->executions >= j->o->max_executions) goto out;
            if (j->o->max_seconds > 0 && r->executions % 64 == 0 && seconds_now() - begun > j->o->max_seconds) goto out;
        } while (!rc && advance(&w));
    }
    r->complete = !rc;
out:
    if (rc == 1) {
        if (w.odd) {
            r->report.outcome = HEIST__SIM_ODD;
            snprintf(r->report.message, sizeof(r->report.message),
                     "a repeated run took another course: something but the schedule differs from run to run");
        }
        r->failing = r->executions ? r->executions : 1;
        found(j);
        rc = 0;
    }
    free(w.node);
    return rc;
}

int heist__explore(const struct heist__explore_options *options, const struct heist__sim_thread_spec *thread,
                   int threads, void (*setup)(void *arg), const char *(*check)(void *arg), void *arg,
                   struct heist__explore_result *result) {
    struct job j = {options, thread, threads, setup, check, arg, NULL, NULL, result};
    int err = prepare(&j);
    if (!err) err = explore(&j);
    finish(&j);
    return err;
}

int heist__explore_replay(const struct heist__explore_options *options, const struct heist__sim_thread_spec *thread,
                          int threads, void (*setup)(void *arg), const char *(*check)(void *arg), void *arg,
                          const char *replay, struct heist__explore_result *result) {
    struct job j = {options, thread, threads, setup, check, arg, NULL, NULL, result};
    struct heist__plan plan = {0};
    int rc = prepare(&j);
    if (!rc) rc = heist__plan_of_text(&plan, replay);
    for (int i = 0; i < WARM_UP && !rc; i++) {
        struct heist__plan none;
        rc = heist__plan_of_record(&none, NULL, 0);
        if (!rc) rc = execute(&j, &none.strategy);
        heist__plan_free(&none);
    }
    if (!rc) rc = execute(&j, &plan.strategy);
    result->executions = 1;
    if (rc == 1) {
        result->failing = 1;
        found(&j);
        rc = 0;
    }
    heist__plan_free(&plan);
    finish(&j);
    return rc;
}
