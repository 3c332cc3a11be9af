/* Contract checks.
 *
 * A broken contract (what a header calls undefined) ends the process with one
 * line that names the condition and the place.  Operating errors are never
 * asserted: they are returned.  Any thread, any stack.
 *   heist__assert  always checked: cheap, and worse things follow otherwise
 *   heist__check   checked unless NDEBUG: on fast paths */
#ifndef HEIST_BASE_ASSERT_H
#define HEIST_BASE_ASSERT_H

#include "base/macros.h"

/* Writes one record to the log and aborts.  Reads no thread-local state of
 * ours; fmt may be NULL. */
HEIST_NORETURN HEIST_COLD void heist__assert_failed(const char *condition, const char *file, int line,
                                                    const char *fmt, ...) HEIST_PRINTF(4, 5);

#define heist__assert(cond)                                                                                            \
    (heist_likely(cond) ? (void)0 : heist__assert_failed(#cond, __FILE__, __LINE__, "contract broken"))

/* With a message in the manner of printf, for those that a user may cause. */
#define heist__assert_msg(cond, ...)                                                                                   \
    (heist_likely(cond) ? (void)0 : heist__assert_failed(#cond, __FILE__, __LINE__, __VA_ARGS__))

/* A place that no input reaches. */
#define heist__unreachable(what) heist__assert_failed("unreachable", __FILE__, __LINE__, "%s", (what))

#ifdef NDEBUG
#define heist__check(cond) ((void)sizeof(cond))
#else
#define heist__check(cond) heist__assert(cond)
#endif

#endif
