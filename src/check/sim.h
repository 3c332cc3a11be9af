/* One thread at a time: the simulator that a seeded build's yield points call.
 *
 * A simulation is a set of real threads of which one holds the turn.  At each point
 * (base/sim.h) the holder asks the *strategy* who goes on; usually that is the holder,
 * and then the point costs some nanoseconds; else the turn is passed on through a futex.
 * A thread that must wait says what for, and is no candidate until that has happened.
 * When nobody is one, the clock jumps to the next deadline; when there is none, that is a
 * deadlock, which is reported with what each thread waits for.
 *
 * So a run is a function of the decisions, and only decisions that differ from the usual
 * ones (the holder goes on; after a wait, the next thread round the circle; no fault) are
 * recorded.  A decision is named by the thread and the number of its own points so far:
 * taking one out of the record leaves the names of the others standing, mostly, which is
 * what makes a failure shrink.
 *
 * Owned by the thread that calls heist__sim_run (the *controller*, which is no part of
 * the simulation).  Everything else here is touched by the holder of the turn only, or by
 * the controller while nobody holds it; the baton orders the two. */
#ifndef HEIST_CHECK_SIM_H
#define HEIST_CHECK_SIM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/sim.h"

#define HEIST__SIM_THREADS 64 /* at once; numbers of ended threads are given again */
#define HEIST__SIM_NOBODY HEIST__SIM_THREADS /* the controller, as the maker of the first decision */
#define HEIST__SIM_JUMP (-1)  /* an answer of a strategy: the clock goes to the next deadline, then ask again */

/* What may go wrong on purpose; the order is that of HEIST_SIM_FAULT_… in heist/testing.h. */
enum {
    HEIST__FAULT_MEMORY,
    HEIST__FAULT_MAPPING,
    HEIST__FAULT_THREAD,
    HEIST__FAULT_DESCRIPTOR,
    HEIST__FAULT_RESET,
    HEIST__FAULT_SHORT,
    HEIST__FAULT_INTERRUPT,
    HEIST__FAULT_AGAIN,
    HEIST__FAULT_DELAY,
    HEIST__FAULT_SPURIOUS,
    HEIST__FAULTS
};

/* Kinds of decisions: HEIST__FAULT_x are kinds too. */
enum { HEIST__DECIDE_NEXT = HEIST__FAULTS, HEIST__DECIDE_JUMP, HEIST__DECIDE_CHOICE };

struct heist__decision {
    uint64_t at;    /* the thread's own count of points */
    uint8_t thread; /* who decides */
    uint8_t kind;
    uint32_t value; /* the thread that goes on; the outcome; the bytes; the delay in microseconds */
};

/* The record, in memory that may be shared with the process that reads it after a crash. */
struct heist__record {
    uint32_t count, room; /* count may exceed room: then the rest was not kept */
    struct heist__decision list[];
};

enum {
    HEIST__SIM_OK,
    HEIST__SIM_FAILED,   /* the program said so */
    HEIST__SIM_DEADLOCK, /* nobody can go on, and no deadline lies ahead */
    HEIST__SIM_LIMIT,    /* more steps than allowed: a livelock, or too small a limit */
    HEIST__SIM_ODD,      /* the run did not follow the decisions that it was given */
    HEIST__SIM_CRASHED,  /* seen from outside only */
};

struct heist__sim_counts {
    uint64_t steps, switches, preemptions, jumps;
    uint64_t faults[HEIST__FAULTS];
    uint64_t hash; /* of the threads and places of all points: equal for equal runs */
    int64_t now_ns;
};

struct heist__sim_report {
    int outcome;
    struct heist__sim_counts counts;
    char message[256];
    char text[12288]; /* what each thread does, and the last switches */
};

/* What a strategy is asked. */
struct heist__choice {
    int current;      /* who is at a point, HEIST__SIM_NOBODY at the start */
    bool stays;       /* it can go on: anything else is a preemption */
    bool spins;       /* it could go on, but looks in vain */
    bool may_jump;    /* a deadline lies ahead */
    uint64_t enabled; /* who can go on, one bit for each; never empty */
    int usual;        /* the answer of a run that nobody disturbs */
};

struct heist__strategy {
    /* A thread of c->enabled, or HEIST__SIM_JUMP.  *quiet, 0 when asked, is for how many points of a thread that
     * can stay nobody shall ask again, unless another thread becomes able to run. */
    int (*next)(void *self, const struct heist__choice *c, uint64_t *quiet);
    /* An outcome below n. */
    unsigned (*choose)(void *self, unsigned n);
    /* A fault of this kind at this opportunity: 0 none, else its value (at most limit). */
    uint32_t (*fault)(void *self, int kind, uint32_t limit);
    void *self;
};

struct heist__sim_thread_spec {
    void (*body)(void *arg);
    void *arg;
};

struct heist__sim_spec {
    const struct heist__strategy *strategy;
    const struct heist__sim_thread_spec *thread; /* those that are there at the start */
    int threads;
    int cpus;               /* 0: 2 */
    uint64_t max_steps;     /* 0: 20 million */
    struct heist__record *record; /* or NULL */
};

/* Where simulated threads come from: kept over many runs of an exploration, or made for one. */
struct heist__sim;
/* keep: the threads of the start stay for the next run, with their thread-local state.  NULL: no memory. */
struct heist__sim *heist__sim_open(bool keep);
void heist__sim_close(struct heist__sim *sim);

/* Runs a simulation to its end, or to its failure: then the threads stand where they stood, for ever, `sim` is
 * good for nothing but close, and the process should end soon.  0, or -EAGAIN, -ENOMEM (no threads), -EBUSY
 * (another simulation is under way). */
int heist__sim_run(struct heist__sim *sim, const struct heist__sim_spec *spec, struct heist__sim_report *report);

/* By a simulated thread: the program's own law is broken.  Does not return.  On another thread: aborts. */
HEIST_NORETURN void heist__sim_fail(int outcome, const char *format, ...) HEIST_PRINTF(2, 3);

/* Counts and text as they are now; by the thread that has the turn, also in a signal handler of a crash. */
void heist__sim_snapshot(struct heist__sim_report *report);

/* The number of the calling thread's next decision, for strategies. */
uint64_t heist__sim_at(int thread);

/* Points passed so far. */
uint64_t heist__sim_steps(void);

/* Of the run so far: equal where two runs have taken the same course. */
uint64_t heist__sim_hash(void);

/* For a weak-memory layer: called, when set, by the holder of the turn, with no point inside. */
struct heist__sim_hooks {
    void (*begin)(int threads);                   /* by the controller, before the first thread runs */
    void (*end)(void);                            /* by the controller, after the last */
    void (*spawned)(int parent, int child);       /* happens before everything of child */
    void (*joined)(int parent, int child);        /* everything of child happens before */
    void (*released)(int thread, const void *key); /* a mutex of conc/mutex.h was given back … */
    void (*acquired)(int thread, const void *key); /* … and taken */
};
extern struct heist__sim_hooks heist__sim_hooks;

/* The tail of a source path, without the place of the tree. */
const char *heist__sim_place(const char *file);

#endif
