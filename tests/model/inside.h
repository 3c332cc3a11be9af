/* Between the files of the checker: who goes on (explore.c), what memory says (memory.c),
 * what the system does (world.c).  None of them is built with the instrumentation. */
#ifndef HEIST_TESTS_MODEL_INSIDE_H
#define HEIST_TESTS_MODEL_INSIDE_H

#include "model/model.h"

/* Threads of a case together with those that the library starts. */
#define MODEL_THREADS 6
/* In clocks: one for each thread, and slot 0 for setup and check. */
#define MODEL_SLOTS (MODEL_THREADS + 1)

/* ---- explore.c ---- */

extern bool model_active; /* from setup to the end of check */
extern int model_self;    /* the thread that runs, -1: setup, check, or no execution */
extern unsigned model_stale_left;
extern bool model_blind; /* plain accesses are not looked at */
extern char *model_tls;  /* the thread-local variables: one address, and of each thread its own content */
extern size_t model_tls_bytes;

/* A place where another thread may go on, in front of an access that others can see. */
void model_point(void);
/* The running thread waits until ready(arg) or until the clock says deadline_ns: false. */
bool model_block(bool (*ready)(void *arg), void *arg, int64_t deadline_ns, const char *what);
/* The running thread gets nowhere until another has done something. */
void model_yield(void);
/* Somebody changed something: those that yielded may look again. */
void model_progress(void);
unsigned model_decide(unsigned n);
/* Another thread: its number. */
int model_spawn(void *(*start)(void *), void *arg);
bool model_ended(void *thread_number);
/* What the failing execution is told by; name stays. */
enum { MODEL_LOAD, MODEL_STORE, MODEL_RMW, MODEL_CAS, MODEL_CAS_FAILED, MODEL_FENCE, MODEL_CALL };
void model_trace(const char *name, int kind, int order, uint64_t a, uint64_t b, bool stale);

extern int64_t model_clock_ns;

/* ---- memory.c ---- */

void memory_begin(void);
/* Who knows what, at the start and end of a thread, and where one hands over by other means than atomics. */
void memory_started(int child, int parent);
void memory_joined(int child);
void memory_release(const void *key);
void memory_acquire(const void *key);
void memory_plain(const volatile void *p, size_t bytes, bool writes, const void *pc);
/* Blocks of the library's allocator. */
void memory_block(void *p, size_t bytes);
void memory_block_gone(void *p, size_t bytes);

/* Objects that two threads were first seen to contend for since the last reset of the count. */
extern unsigned memory_new_contended;
void memory_forget(void);

/* ---- world.c ---- */

void world_install(void);
void world_begin(void);
/* After check: complains about what was left behind. */
void world_end(void);

#endif
