/* Log records: a level, one line, one sink for the process.
 *
 * Any thread, any stack (a record takes 1 KiB of it), perhaps with a lock held,
 * so a sink must not call the library.  A record is formatted into a buffer of its own and
 * handed to the sink in one call; the default sink writes it to the standard
 * error by one write, so records of several threads do not mix.  Longer ones
 * are cut.  errno is kept. */
#ifndef HEIST_BASE_LOG_H
#define HEIST_BASE_LOG_H

#include <stddef.h>

#include "base/macros.h"

enum {
    HEIST__LOG_DEBUG = 0,
    HEIST__LOG_INFO = 1,
    HEIST__LOG_WARNING = 2, /* the default level: this and above is written */
    HEIST__LOG_ERROR = 3,
    HEIST__LOG_FATAL = 4, /* written before an abort */
    HEIST__LOG_NONE = 5,  /* as a level: nothing is written */
};

/* What goes in: text of len bytes, ended by a newline and a zero behind it. */
struct heist__log_sink {
    void (*write)(void *user, int level, const char *text, size_t len);
    void *user;
};

/* The record is borrowed by the sink for the call. */
void heist__log(int level, const char *fmt, ...) HEIST_PRINTF(2, 3);

/* Is anybody going to read it?  For records that are costly to make. */
int heist__log_enabled(int level);

/* Sets the least level that is written; returns the one before. */
int heist__log_set_level(int level);

/* Sets the sink, which stays borrowed until another is set and no thread is
 * inside a log call; NULL for the default.  Returns the one before, or NULL. */
const struct heist__log_sink *heist__log_set_sink(const struct heist__log_sink *sink);

#endif
