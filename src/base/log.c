/* Formatting and the default sink; see log.h.
 *
 * base stands below the room of atomics, so the two process-wide words use the
 * language's plain atomic access, which is sequentially consistent; they are
 * read once for each record and hardly ever written. */
#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define RECORD_BYTES 1024

static _Atomic(int) least_level = HEIST__LOG_WARNING;
static const heist_log_sink *_Atomic current_sink; /* NULL: the standard error */

static const char *const level_name[] = {"debug", "info", "warning", "error", "fatal"};

static void write_stderr(const char *text, size_t len) {
    while (len > 0) {
        ssize_t n = write(STDERR_FILENO, text, len);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return; /* nobody to tell */
        text += n;
        len -= (size_t)n;
    }
}

int heist__log_enabled(int level) {
    return level >= least_level;
}

int heist__log_set_level(int level) {
    int before = least_level;
    least_level = level;
    return before;
}

const heist_log_sink *heist__log_set_sink(const heist_log_sink *sink) {
    const heist_log_sink *before = current_sink;
    current_sink = sink;
    return before;
}

void heist__log(int level, const char *fmt, ...) {
    if (!heist__log_enabled(level)) return;
    int saved_errno = errno;
    if (level < HEIST__LOG_DEBUG) level = HEIST__LOG_DEBUG;
    if (level > HEIST__LOG_FATAL) level = HEIST__LOG_FATAL;

    char text[RECORD_BYTES];
    size_t len = (size_t)snprintf(text, sizeof(text), "heist: %s: ", level_name[level]);
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(text + len, sizeof(text) - len - 1, fmt, args);
    va_end(args);
    if (n > 0) len += (size_t)n;
    if (len > sizeof(text) - 2) len = sizeof(text) - 2; /* cut */
    text[len++] = '\n';
    text[len] = '\0';

    const heist_log_sink *sink = current_sink;
    if (sink)
        sink->write(sink->user, level, text, len);
    else
        write_stderr(text, len);
    errno = saved_errno;
}

int heist_debug_set_log(const heist_log_sink *sink, int level) {
    if (level < HEIST_LOG_DEBUG || level > HEIST_LOG_NONE || (sink && !sink->write)) return -EINVAL;
    heist__log_set_sink(sink);
    return heist__log_set_level(level);
}
