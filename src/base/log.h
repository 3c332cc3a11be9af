/* Log records: a level, one line, one sink for the process.
 *
 * Any thread, any stack (a record takes 1 KiB of it), perhaps with a lock held,
 * so a sink must not call the library.  A record is formatted into a buffer of its own and
 * handed to the sink in one call; the default sink writes it to the standard
 * error by one write, so records of several threads do not mix.  Longer ones
 * are cut.  errno is kept. */
#ifndef HEIST_BASE_LOG_H
#define HEIST_BASE_LOG_H

#include <heist/debug.h>
#include <stddef.h>

#include "base/macros.h"

/* The levels under the library's own prefix. */
enum {
    HEIST__LOG_DEBUG = HEIST_LOG_DEBUG,
    HEIST__LOG_INFO = HEIST_LOG_INFO,
    HEIST__LOG_WARNING = HEIST_LOG_WARNING, /* the default level: this and above is written */
    HEIST__LOG_ERROR = HEIST_LOG_ERROR,
    HEIST__LOG_FATAL = HEIST_LOG_FATAL,
    HEIST__LOG_NONE = HEIST_LOG_NONE,
};

/* The record is borrowed by the sink for the call. */
void heist__log(int level, const char *fmt, ...) HEIST_PRINTF(2, 3);

/* Is anybody going to read it?  For records that are costly to make. */
int heist__log_enabled(int level);

/* Sets the least level that is written; returns the one before. */
int heist__log_set_level(int level);

/* Sets the sink, which stays borrowed until another is set and no thread is
 * inside a log call; NULL for the default.  Returns the one before, or NULL. */
const heist_log_sink *heist__log_set_sink(const heist_log_sink *sink);

#endif
