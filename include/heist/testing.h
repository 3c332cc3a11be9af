/* heist/testing.h: a program under a seed, one thread at a time.
 *
 * In a *simulation* the program's threads, heist's workers among them, are real threads of
 * which exactly one runs at a time.  At each atomic operation, lock, wait and system call
 * of the library, and where the program says heist_sim_point, a seed chooses who goes on.
 * Time is virtual: it stands still while anybody can run, but for some nanoseconds a step,
 * and jumps to the next deadline when nobody can.  When there is none, that is a deadlock,
 * and is reported with what each thread waits for.  The same seed gives the same run, in
 * any process that has done the same before it.
 *
 * A *search* tries many seeds, each in a child process, so that a crash, a failed assertion
 * or a deadlock is found like any other failure; it then takes away the preemptions and
 * faults that are not needed for the failure and prints what is left as a *plan*, which
 * replays it.
 *
 * These functions are in the library heist-testing (pkg-config heist-testing, CMake
 * heist::testing), which is heist with yield points; it takes the place of libheist in the
 * link, and outside a simulation it behaves as libheist does.  docs/seeded.md is the
 * chapter about it.
 *
 * What the program must keep to:
 *   - its threads in the simulation are made by heist_sim_thread_start or by heist;
 *   - they do not block in the kernel, for the one that runs holds the turn of all: waits
 *     are those of heist, heist_sim_lock, heist_sim_sleep and heist_sim_thread_join;
 *   - what it does depends on nothing from outside: no clock but heist_time, no random
 *     numbers but heist_sim_choose and fixed ones, no addresses as keys of an order. */
#ifndef HEIST_TESTING_H
#define HEIST_TESTING_H

#include <heist/base.h>
#include <pthread.h>

HEIST_BEGIN_DECLS

/* In the archive only; never exported from a shared library. */
#define HEIST_TESTING_API

/* ---- faults ---- */

/* What may go wrong on purpose, an index of heist_sim_options.fault. */
#define HEIST_SIM_FAULT_MEMORY 0     /* a request of the library for memory fails */
#define HEIST_SIM_FAULT_MAPPING 1    /* mmap, mprotect: no stack, no arena */
#define HEIST_SIM_FAULT_THREAD 2     /* pthread_create: -EAGAIN */
#define HEIST_SIM_FAULT_DESCRIPTOR 3 /* socket, accept, eventfd, epoll: -EMFILE */
#define HEIST_SIM_FAULT_RESET 4      /* recv, send: -ECONNRESET, and the connection is broken from then on */
#define HEIST_SIM_FAULT_SHORT 5      /* recv, send: fewer bytes than there are */
#define HEIST_SIM_FAULT_INTERRUPT 6  /* reads, writes, accept, the poll: -EINTR */
#define HEIST_SIM_FAULT_AGAIN 7      /* recv, send, accept: not ready yet, though it is */
#define HEIST_SIM_FAULT_DELAY 8      /* a thread that was woken, or whose descriptor is ready, runs up to 2 ms later */
#define HEIST_SIM_FAULT_SPURIOUS 9   /* a wait of a thread ends for nothing; the library looks and waits again */
#define HEIST_SIM_FAULT_KINDS 10
#define HEIST_SIM_FAULT_ROOM 16

/* Both zero: never.  An opportunity is one call that could go wrong so. */
typedef struct heist_sim_fault {
    double probability; /* of each opportunity, 0 to 1 */
    uint64_t nth;       /* the nth opportunity of the run, from 1; 0: none */
} heist_sim_fault;

/* ---- one run ---- */

#define HEIST_SIM_RANDOM 0x1u     /* a random walk only … */
#define HEIST_SIM_PRIORITIES 0x2u /* … or priorities with a few changes only; neither or both: the seed decides */
#define HEIST_SIM_PUNCTUAL 0x4u   /* a deadline comes only when nobody can run: the machine is never slow */
#define HEIST_SIM_QUIET 0x8u      /* a search prints nothing */
#define HEIST_SIM_VERBOSE 0x10u   /* the runs of a search keep their standard output and error */

typedef struct heist_sim_options {
    size_t size;
    unsigned flags;
    int workers;        /* what heist takes for the number of processors; 0: 2 */
    uint64_t seed;      /* of heist_sim_run; the first one of a search */
    uint64_t max_steps; /* more is a failure: somebody spins for ever; 0: 20 million */
    const char *plan;   /* decisions to follow instead of a seed, as a search printed them; NULL: none */
    const char *name;   /* of the search, for programs that make several; NULL: none */
    /* searches only */
    uint64_t seeds;       /* how many; 0: 1000 */
    double seconds;       /* of real time for the seeds together; 0: no limit */
    double run_seconds;   /* of real time for one run, which otherwise hangs; 0: 60 */
    uint64_t shrink_runs; /* runs to make a plan smaller; 0: 1000 */
    heist_sim_fault fault[HEIST_SIM_FAULT_ROOM];
} heist_sim_options;
#define HEIST_SIM_OPTIONS_INIT {sizeof(heist_sim_options), 0, 0, 0, 0, NULL, NULL, 0, 0, 0, 0, {{0, 0}}}

#define HEIST_SIM_OK 0       /* the body returned 0 and all threads have ended */
#define HEIST_SIM_FAILED 1   /* heist_sim_fail, or the body returned something else than 0 */
#define HEIST_SIM_DEADLOCK 2 /* nobody can go on */
#define HEIST_SIM_LIMIT 3    /* more than max_steps */
#define HEIST_SIM_ODD 4      /* the run could not be simulated; the message says why */
#define HEIST_SIM_CRASHED 5  /* in a search: a signal, or an end of the process in the middle of a run */
#define HEIST_SIM_HUNG 6     /* in a search: no end within run_seconds */

typedef struct heist_sim_result {
    size_t size;
    int outcome; /* HEIST_SIM_… */
    int code;    /* what the body returned; the signal of a crash */
    uint64_t seed; /* of the run, or of the first that failed */
    uint64_t runs; /* of a search: seeds that were tried */
    uint64_t shrinking; /* of a search: runs to make the plan smaller */
    uint64_t steps, switches, preemptions, jumps; /* points passed; turns handed on; … */
    double seconds;     /* of virtual time */
    uint64_t hash;      /* of all points in their order: equal for equal runs, in any process */
    uint64_t fault[HEIST_SIM_FAULT_ROOM]; /* how often each happened (of a search: in all runs) */
    uint64_t decisions; /* in which the run differed from an undisturbed one: the items of the plan */
    char message[256];
    char plan[4096];    /* those decisions as text; empty when they do not fit */
} heist_sim_result;
#define HEIST_SIM_RESULT_INIT {sizeof(heist_sim_result), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, {0}, 0, {0}, {0}}

/* The program under test.  0: all is well. */
typedef int (*heist_sim_body)(void *arg);

/* Runs body(arg) as thread 0 of a simulation, to its end.  The run is over when the body has returned and all
 * other threads have ended.  A failure other than the body's code leaves the threads where they stand for ever,
 * and the state of the library with them: report it, and end the process soon.
 * Context: a plain thread, outside a simulation; blocks.  opts NULL: the defaults, seed 0.
 * Errors: -EINVAL, -ENOMEM, -EAGAIN (threads), -EBUSY (another simulation is under way).  0 whatever the outcome,
 * which is in *result. */
HEIST_TESTING_API int heist_sim_run(heist_sim_body body, void *arg, const heist_sim_options *opts,
                                    heist_sim_result *result) HEIST_NODISCARD;

/* Runs seeds opts->seed and up, each in a child process, until one fails.  Then makes its plan as small as it can,
 * and prints on standard error what failed, the plan as a line that replays it, where each thread stands, and the
 * last switches.
 * When HEIST_SIM_PLAN is set in the environment (as the printed line does; NAME:PLAN concerns the search of that name),
 * that plan alone is run, in this process, so that a debugger can look; a seed likewise in HEIST_SIM_SEED.
 * Context: a plain thread of a process that has no other threads and no runtime; blocks.
 * 0: nothing failed.  1: something did, see *result.  Errors: -EINVAL, -ENOMEM, -EAGAIN. */
HEIST_TESTING_API int heist_sim_search(heist_sim_body body, void *arg, const heist_sim_options *opts,
                                       heist_sim_result *result) HEIST_NODISCARD;

/* ---- inside; outside a simulation they do the plain thing, so that the same program also runs in parallel ---- */

/* 1 on a thread of a simulation. */
HEIST_TESTING_API int heist_sim_running(void);

/* Another thread may go on here.  For shared variables of the program itself: a point before each access. */
HEIST_TESTING_API void heist_sim_point_at(const char *file, int line);
#define heist_sim_point() heist_sim_point_at(__FILE__, __LINE__)

/* In a loop that looks again and again until another thread has done something: another goes on, if any can. */
HEIST_TESTING_API void heist_sim_spin(void);

/* Blocks the thread until the simulation's clock has gone on by so many seconds.  Not in a task: heist_sleep. */
HEIST_TESTING_API void heist_sim_pause(double seconds);

/* An outcome that the seed draws: 0 to n - 1; 0 is the ordinary one, to which a search returns where it can.
 * Outside a simulation: 0. */
HEIST_TESTING_API unsigned heist_sim_choose(unsigned n);

/* A law of the program is broken: the run ends here, as failed.  Does not return.  Outside: prints and aborts. */
HEIST_TESTING_API void heist_sim_fail(const char *format, ...) HEIST_PRINTF_LIKE(1, 2);
#define heist_sim_check(law)                                                                                           \
    ((law) ? (void)0 : heist_sim_fail("%s:%d: %s does not hold", __FILE__, __LINE__, #law))

/* A mutex of the program: as pthread_mutex_lock and pthread_mutex_unlock.  Not held across a suspension. */
HEIST_TESTING_API void heist_sim_lock(pthread_mutex_t *mutex);
HEIST_TESTING_API void heist_sim_unlock(pthread_mutex_t *mutex);

/* A thread of the program.
 * Ownership: *out ends with heist_sim_thread_join, which waits for fn's end; each is joined once.
 * Errors: -EINVAL, -ENOMEM, -EAGAIN; 64 threads of one simulation live at once. */
typedef struct heist_sim_thread heist_sim_thread;
HEIST_TESTING_API int heist_sim_thread_start(void (*fn)(void *arg), void *arg, heist_sim_thread **out) HEIST_NODISCARD;
HEIST_TESTING_API void heist_sim_thread_join(heist_sim_thread *thread);

HEIST_END_DECLS

#endif
