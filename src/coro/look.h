/* The frames of a suspended coroutine, seen from outside, while everything else runs on.
 *
 * Nobody stops the coroutine: its stack is copied (base/peek.h), and the compiler's unwinder walks the copy.  A
 * coroutine counts how often it was entered; the copy counts when that is the same before and after.
 *
 * How the copy is walked.  Words of it that hold an address of the stack are moved along with it (a frame pointer is
 * one; other words are never looked at), a context is laid below it (arch/ctx.h), and the walk runs on the copy as if
 * the suspended function had called it.  Nothing of that function runs.  So frames are found exactly as a debugger
 * finds them, by the tables that every build has, without frame pointers. */
#ifndef HEIST_CORO_LOOK_H
#define HEIST_CORO_LOOK_H

#include <stdbool.h>
#include <stddef.h>

struct heist__coro;

struct heist__look {
    const struct heist__coro *coro;
    char *room; /* one mapping: the walker's own stack, then the copy */
    size_t bytes;
    char *saved; /* the context in the copy */
    char *copy_end;
    const void *from; /* where it lay */
    size_t used;
    unsigned entries; /* of the coroutine, at the beginning */
};

/* Which of the frames: those from the `pass`th call of the function `boundary` on, its own frame included (0: from the
 * innermost on), to the next call of it.  NULL in the calls below: all. */
struct heist__look_part {
    const void *boundary;
    unsigned pass;
};

/* Two steps: begin; the caller makes sure that the coroutine is at rest now; take copies its stack, and says whether it
 * was at rest all the time.  0; -EBUSY: it ran meanwhile, or is none any more; -ENOMEM; or what the system says.
 * release: after a take that succeeded. */
int heist__look_begin(const struct heist__coro *c, struct heist__look *look);
int heist__look_take(struct heist__look *look);
void heist__look_release(struct heist__look *look);

/* The addresses at which the frames of a copy stand, the innermost first; how many, at most max.  The innermost are the
 * library's own. */
size_t heist__look_frames(struct heist__look *look, const struct heist__look_part *part, void **frames, size_t max);

/* The same of the calling coroutine or thread, from the return address `start` on; NULL: from this call on. */
size_t heist__look_here(const void *start, const struct heist__look_part *part, void **frames, size_t max);

#endif
