/* The end of a broken contract; see assert.h. */
#include "base/assert.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

/* The name from its room on: nobody needs the builder's folders. */
static const char *short_name(const char *file) {
    const char *last = file, *room = file;
    for (const char *c = file; *c; c++) {
        if (*c != '/') continue;
        room = last;
        last = c + 1;
    }
    return room;
}

void heist__assert_failed(const char *condition, const char *file, int line, const char *fmt, ...) {
    char what[256];
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof(what), fmt, args);
    va_end(args);
    heist__log(HEIST__LOG_FATAL, "%s:%d: %s (%s)", short_name(file), line, what, condition);
    abort();
}
