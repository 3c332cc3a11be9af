/* Where a future or task was made: ten frames, kept in debug mode only.
 *
 * Noted by the maker before anybody else knows the object, and never changed: who holds it may read. */
#ifndef HEIST_TASK_BIRTH_H
#define HEIST_TASK_BIRTH_H

#include <heist/base.h>

#define HEIST__BIRTH_FRAMES 10

struct heist__birth {
    unsigned count;
    void *frame[HEIST__BIRTH_FRAMES]; /* the innermost first: whoever called the library */
};

/* From the return address `start` on, without the first `skip` (0 or 1); NULL: no memory. */
struct heist__birth *heist__birth_make(const void *start, unsigned skip);
/* Of a future that nobody else knows.  Without memory it has none. */
void heist__birth_note(heist_future *f, const void *start);
/* Or NULL. */
const struct heist__birth *heist__birth_of(heist_future *f);
/* The fields of a report about f that say where it was made, in one block that begins with its name (an empty string
 * for a plain future) and is freed as one; NULL: no memory.  *extra: into the block, or NULL. */
char *heist__birth_report(heist_future *f, const char *const **extra);

#endif
