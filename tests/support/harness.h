/* support/harness.h: what every API test stands on.
 *
 * It counts what the library takes from its allocator, the threads and the
 * descriptors of the process: after each test all three must be back where they were
 * before it, so a leak fails the test that made it.  A test that does not end is
 * named and aborted.  Tests include this header and the public ones, nothing else.
 *
 * A test of a runtime uses harness_workers() workers (HEIST_TEST_WORKERS: 1, 2 or 8);
 * a row that states an exact order uses a loop of its own.  Where time matters it is
 * virtual: no test compares the wall clock, except by bounds that a machine loaded
 * twenty times over still keeps. */
#ifndef HEIST_TEST_HARNESS_H
#define HEIST_TEST_HARNESS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <heist.h>

#include "support/record.h"

/* 1, 2 or 8 from the environment; 2 without. */
int harness_workers(void);
/* Under a sanitizer or valgrind, where memory figures of the process say nothing. */
bool harness_instrumented(void);
/* Under valgrind, which keeps its own limit of descriptors. */
bool harness_valgrind(void);

/* A loop on the test's thread, in virtual or in machine time; end closes, checks and releases it. */
heist_loop *harness_loop(void);
heist_loop *harness_real_loop(void);
void harness_loop_end(heist_loop *loop);

/* A runtime on threads of its own; end closes it without limit, checks and releases it. */
heist_runtime *harness_runtime(unsigned flags);
void harness_runtime_end(heist_runtime *rt);

/* heist_run on harness_workers() workers in virtual time. */
int harness_run(heist_coro_fn fn, void *arg, void **out);

/* A callback that stops the loop it is given. */
int stop_loop(void *loop);
/* Runs what is ready: one pass, and no waiting for timers. */
void harness_one_pass(heist_loop *loop);

/* Joined by harness_join; both end the program when the system refuses. */
pthread_t harness_thread(void *(*fn)(void *arg), void *arg);
void harness_join(pthread_t thread);

/* Returns when the task has begun and stands in a wait, or has ended.  (One that is cancelled before it begins never
 * runs.)  A pause does not tell: on a loaded machine another worker may have taken the task and not come to it. */
void harness_stands(heist_task *task);

/* Now, and how much of it: threads, descriptors, blocks that the library holds, resident bytes. */
int harness_threads(void);
int harness_descriptors(void);
long harness_blocks(void);
size_t harness_resident_bytes(void);

/* Makes the allocation number n from now on fail (1: the next one); once, or all from there on.
 * n = 0 ends it.  harness_allocations counts how many were asked for since the last call. */
void harness_fail_allocation(long n, bool all_later);
long harness_allocations(void);

/* The glue: an entry of the table of tests, and the program around the table.  HEIST_TEST_ONLY and
 * HEIST_TEST_SKIP in the environment choose tests by name, with * and ?. */
#define API_TEST(fn) {#fn, fn, harness_setup, harness_teardown, NULL}
int harness_setup(void **state);
int harness_teardown(void **state);
int harness_main(const char *name, const struct CMUnitTest *tests, size_t count);
#define HARNESS_MAIN(name, tests) harness_main(name, tests, sizeof(tests) / sizeof(tests)[0])

#endif
