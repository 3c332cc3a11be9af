/* The inside of the simulator, for sim.c (turns and waits), system.c (faults, system calls)
 * and report.c (what stands where).  Who may touch what: sim.h. */
#ifndef HEIST_CHECK_INNER_H
#define HEIST_CHECK_INNER_H

#include <sys/epoll.h>

#include "check/sim.h"
#include "conc/baton.h"

/* The clock starts here. */
#define HEIST__SIM_START_NS (INT64_C(1000) * 1000000000)
/* Switches that are kept for the report. */
#define HEIST__SIM_TRACE 256
#define HEIST__SIM_FDS 4096 /* descriptors whose registrations are known */

/* clang-format off */
enum heist__sim_state {
    HEIST__SIM_FREE, HEIST__SIM_RUNNABLE, HEIST__SIM_WAITING, HEIST__SIM_POLLING, HEIST__SIM_ENDED
};
/* clang-format on */

struct heist__sim_thread {
    struct heist__baton turn;
    struct heist__sim *sim;
    int id;
    enum heist__sim_state state;
    bool joined;        /* ended and joined */
    bool spinning;      /* looked in vain, and nobody has moved since */
    bool timed_out;     /* the wait ended by its deadline */
    unsigned calm;      /* points since its last spin */
    const void *key;    /* waiting */
    int epfd;           /* polling */
    uint64_t polled;    /* the generation at the last look */
    uint64_t waits_since;
    int64_t deadline;   /* waiting or polling */
    int64_t not_before; /* runnable, but a fault delays it */
    uint64_t points;
    const char *what, *file; /* for the report */
    int line;
    pthread_t pthread;
    void *(*start)(void *);
    void *arg;
    void (*body)(void *);
    bool kept, quit;
    volatile bool deciding; /* within the simulator: a signal handler that comes now passes no point */
    unsigned rounds; /* of its destructor */
};

struct heist__traced {
    uint64_t step;
    int64_t now;
    const char *why, *file;
    int line, from, to;
};

struct heist__registration {
    int epfd; /* -1: none */
    struct epoll_event event;
};

struct heist__sim {
    struct heist__sim_thread thread[HEIST__SIM_THREADS];
    struct heist__baton controller;
    struct heist__sim_spec spec;
    struct heist__sim_counts counts;
    struct heist__sim_report *report;
    struct heist__sim_thread *volatile holder; /* of the turn; others look in signal handlers only */
    bool keep, failed;
    int live;            /* not ended */
    int kept;            /* threads that wait for a body */
    int spinners;        /* with `spinning` set */
    unsigned lone_spins; /* in a row */
    uint64_t quiet;      /* points to go without asking */
    uint64_t slice_end;  /* the step at which the holder of the turn has had it for long */
    uint64_t generation; /* of what a poll may see */
    uint64_t start_points, waits;
    int top;             /* numbers from here on are free */
    bool inet;           /* a TCP socket was made: the kernel may deliver a little later */
    struct heist__traced trace[HEIST__SIM_TRACE];
    uint64_t traced;
    struct heist__registration *registered;
};

/* The calling thread, NULL when it is not simulated. */
struct heist__sim_thread *heist__sim_me(void);

/* One that says `to` HEIST__SIM_NOBODY is an event of `from` alone. */
void heist__sim_trace(struct heist__sim *s, int from, int to, const char *why, const char *file, int line);
/* A decision other than the usual. */
void heist__sim_note(struct heist__sim *s, int thread, int kind, uint32_t value);
/* An opportunity for a fault, by the holder of the turn: 0, or the fault's value, 1 to limit. */
uint32_t heist__sim_fault(struct heist__sim_thread *t, int kind, uint32_t limit);
/* What each thread and each task does, and the last switches.  The calling thread reaches no point meanwhile. */
void heist__sim_describe(struct heist__sim *s, char *buf, size_t bytes);

#endif
