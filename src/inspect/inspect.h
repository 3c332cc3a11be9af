/* What the files of this room share: stacks of tasks, and text that grows.
 *
 * Everything here looks and changes nothing: it takes references, copies, and holds a lock only while it reads one
 * list. Any thread. */
#ifndef HEIST_INSPECT_INSPECT_H
#define HEIST_INSPECT_INSPECT_H

#include <heist/inspect.h>
#include <stdbool.h>

#include "base/macros.h"

#define HEIST__FRAMES 32

/* The frames of a task that the caller holds: a count, 0 (done, not begun), -EBUSY (runs), -ENOMEM …
 * attempts: how often one that moves is looked at.  start: of the caller's own, the return address to begin at. */
int heist__task_frames(heist_task *t, void **frames, int max, int attempts, const void *start);

/* Which tasks await what, collected once: those whose awaited runs on their stack stand in no list of waiters. */
struct heist__pair;
struct heist__awaits {
    struct heist__pair *pairs; /* sorted by what is awaited */
    size_t count, room;
    bool failed;
};
int heist__awaits_collect(struct heist__awaits *a); /* 0 or -ENOMEM */
void heist__awaits_free(struct heist__awaits *a);
/* Those that wait for f now: an array of references, to be freed with heist__free; some may stand there twice. */
int heist__awaits_of(const struct heist__awaits *a, heist_future *f, heist_future ***out, size_t *count,
                     unsigned *threads);

/* Writes everything in one of the formats of heist_dump.  raw: addresses of code as {0x…}, for who knows more names. */
int heist__dump(unsigned format, bool raw, FILE *to);

#endif
