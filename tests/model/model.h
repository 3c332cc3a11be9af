/* What a model test is written with.  See README.md for what is explored and what is not.
 *
 * A case has up to four threads that use the library's real sources.  The checker runs
 * it again and again, once for each schedule with at most `preemptions` preemptions and
 * each choice of what loads read with at most `stale` reads of a store that is not the
 * newest, and stops the program at the first execution in which a claim fails, memory is
 * used after its end, left behind, or raced for, or nobody can go on. */
#ifndef HEIST_TESTS_MODEL_MODEL_H
#define HEIST_TESTS_MODEL_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct model_bounds {
    unsigned preemptions, stale;
};

struct model_case {
    const char *name;
    void (*setup)(void); /* no thread runs yet; may be NULL */
    void (*thread[4])(void);
    void (*check)(void);               /* all threads have ended; frees what setup made; may be NULL */
    struct model_bounds shallow, deep; /* as a test of each build; as `./dev check` asks for it */
    bool no_time;                      /* time-outs never come: who is not woken waits for ever, and is found */
};

/* Explores all cases, or those named; with --deep to the deep bounds.  Prints a line for each.  The status
 * for main: 0, or 1 with the failing execution on standard error. */
int model_main(int argc, char **argv, const struct model_case *cases, size_t count);

/* By a thread, setup or check: a claim. */
#define model_assert(claim) ((claim) ? (void)0 : model_fail("%s:%d: %s does not hold", __FILE__, __LINE__, #claim))
_Noreturn void model_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Blocks the calling thread of the case until ready(arg), which reads what the test's threads wrote plainly
 * and passes no order on. */
void model_wait(bool (*ready)(void *arg), void *arg, const char *what);

/* A foreign poll's look at a poll set, which takes nothing: for model_wait. */
bool model_readable(int fd);

/* One of n outcomes, each of which is explored. */
unsigned model_choose(unsigned n);

/* The virtual clock of the case, as the library sees it.  It moves when everybody waits; and, for the price
 * of a preemption, to the end of any wait that has one. */
int64_t model_now_ns(void);

/* Plain accesses of the test's own to memory that stands for a payload: a race is a failure.  (Those of the
 * library are seen by the compiler's instrumentation.) */
void model_reads(const volatile void *p, size_t bytes);
void model_writes(volatile void *p, size_t bytes);

#endif
