/* heist/testkit.h: for the tests of programs that use heist: a clock that jumps, memory that runs out, what was left
 * behind.
 *
 * Not part of heist.h; in every form of the library.  heist/testing.h goes further: whole programs under a seed. */
#ifndef HEIST_TESTKIT_H
#define HEIST_TESTKIT_H

#include <heist/base.h>
#include <stdio.h>

HEIST_BEGIN_DECLS

#define HEIST_TEST_QUIET 0x1u     /* what is left behind is counted, not written */
#define HEIST_TEST_REAL_TIME 0x2u /* the machine's clock instead of one that jumps */
#define HEIST_TEST_DEBUG 0x4u     /* debug mode: who made what is left is known, too */

typedef struct heist_test_options {
    size_t size;
    unsigned flags;
    int workers; /* 0: 2 */
} heist_test_options;
#define HEIST_TEST_OPTIONS_INIT                                                                                        \
    { sizeof(heist_test_options), 0, 0 }

/* Runs main_fn(arg, out) as heist_run does, in a time that stands still while anybody runs and jumps to the next
 * deadline when all sleep: a test of an hour's waiting takes no time.  Afterwards *left (may be NULL) is the number of
 * futures and tasks that were made meanwhile and still have a reference; each is written to standard error with where
 * it was made. Context: a plain thread that runs no loop; no other thread uses the library meanwhile, but those that
 * main_fn starts and joins.  Blocks.  Errors: main's code and those of heist_run; *left is written whatever the
 * outcome, when main ran. */
HEIST_API int heist_test_run(heist_coro_fn main_fn, void *arg, const heist_test_options *opts, void **out,
                             size_t *left);

/* Writes the futures and tasks of the process that have a reference, one on a line, with state and place of making
 * (NULL: writes nothing); returns how many there are.
 * Context: a plain thread, while no other thread uses the library.  Suspends: never.  Errors: HEIST_EFORKED. */
HEIST_API int heist_test_live(FILE *to);

/* The nth request for memory from now on is refused (1: the next one), and with all_later those after it too, as when
 * memory runs out; n <= 0 ends it.  Counts every request of the library, of all threads.
 * Context: any.  Suspends: never.  heist_test_refused: how many were refused since the last call. */
HEIST_API void heist_test_fail_allocation(long n, int all_later);
HEIST_API long heist_test_refused(void);

HEIST_END_DECLS

#endif
