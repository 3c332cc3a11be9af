/* heist/debug.h: what debug mode can be taught to see.
 *
 * Not part of heist.h.  Debug mode itself is HEIST_RUNTIME_DEBUG and heist_loop_set_debug. */
#ifndef HEIST_DEBUG_H
#define HEIST_DEBUG_H

#include <heist/base.h>

HEIST_BEGIN_DECLS

/* How many locks the calling thread holds that belong to the thread which took them, as a mutex of POSIX threads
 * does.  With size > 0 also writes a description of them into text, always terminated.
 * Called on the workers, perhaps on a task's stack; must not call the library. */
typedef int (*heist_debug_locks_fn)(char *text, size_t size);

#define HEIST_DEBUG_LOCKS_GO_ON 0x1u /* after the report the program goes on */

/* Teaches debug mode to count locks: a step of a task that suspends or ends while its thread holds more of
 * them than when the step began is reported to the exception handler of the loop, with the task's name, the
 * place where it was made and what `held` says of the locks.  Then the process aborts: another thread might
 * unlock, or the thread's next task lock again.  NULL for `held` ends it.  Holds for steps that begin later, on
 * loops in debug mode; costs the others nothing.
 * libheist-debugmutex, when a program is linked with it or it is preloaded, counts the locks of POSIX threads
 * and of C11 and calls this by itself.
 * Context: any.  Suspends: never.  Errors: -EINVAL (an unknown flag). */
HEIST_API int heist_debug_set_locks_hook(heist_debug_locks_fn held, unsigned flags);

/* ---- records ---- */

#define HEIST_LOG_DEBUG 0 /* loops that start, stop and close, descriptors and processes that come and go, long polls */
#define HEIST_LOG_INFO 1
#define HEIST_LOG_WARNING 2 /* the level at first */
#define HEIST_LOG_ERROR 3
#define HEIST_LOG_FATAL 4 /* before an abort */
#define HEIST_LOG_NONE 5  /* nothing is written */

/* What takes the library's own records: text of `length` bytes, ended by a newline and a zero behind it, borrowed for
 * the call.  Called on any thread, perhaps with a lock held: it must not call the library. */
typedef struct heist_log_sink {
    void (*write)(void *user, int level, const char *text, size_t length);
    void *user;
} heist_log_sink;

/* Where records go (NULL: to the standard error, as at first), and the least level that is written.  Those of level
 * HEIST_LOG_DEBUG are made for loops in debug mode alone, so they cost the others nothing.
 * Context: any.  Suspends: never.  Ownership: the sink stays borrowed until another is set and no thread is inside a
 * call of it.  Returns the level before.  Errors: -EINVAL (a level or sink that is none). */
HEIST_API int heist_debug_set_log(const heist_log_sink *sink, int level);

HEIST_END_DECLS

#endif
