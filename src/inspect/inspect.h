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

#endif
