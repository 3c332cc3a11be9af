/* Where a task stands.
 *
 * A task's stack may be looked at while it is at rest, and nobody can hold it there: so it is copied, and the copy
 * counts when nobody entered it meanwhile (coro/look.c).  That it was at rest at one moment after the beginning is seen
 * so:
 *
 *   While its body is on a thread a task's `running` is set.  Tasks that run in place (sched/spawn.c) share a stack:
 * each awaits the one above it, and the topmost runs, when anything does.  A hand-over sets the next one's `running`
 * before it clears the last one's, both upwards (the awaited begins) and downwards (it has ended). The walk goes up: it
 * reads `running`, then whom the task awaits.  A `running` that was cleared by a hand-over upwards shows the one above;
 * so at the end it has met one that does not run, with nobody above it.  If that one is still there after the copy it
 * had not ended, hence was the topmost, and the stack was at rest when its `running` was read.
 *
 * One that is found on a stack has begun there: `coro` is set after `running`, and cleared before it.  So the walk may
 * begin at any of them.
 *
 * The task's fields that its runner writes are not atomic: they are read as memory of another process would be
 * (base/peek.h). */
#include <errno.h>
#include <string.h>

#include "base/fork.h"
#include "base/peek.h"
#include "base/place.h"
#include "base/sys.h"
#include "coro/look.h"
#include "inspect/inspect.h"
#include "sched/sched.h"
#include "task/birth.h"
#include "task/state.h"
#include "task/task.h"

/* ---- who stands on the stack ---- */

#define STANDING_MAX 256 /* as many as anybody will see; more count as running */

struct standing {
    struct heist__coro *coro;
    heist_task *on[STANDING_MAX]; /* the task and those that run in place above it, with references */
    int count;
};

static struct heist__coro *coro_of(heist_task *t) {
    struct heist__coro *coro = NULL;
    return heist__peek((const void *)&t->coro, &coro, sizeof(coro)) ? NULL : coro;
}

static void leave(struct standing *s) {
    while (s->count > 0) heist_unref(s->on[--s->count]);
}

/* The walk: false when somebody runs.  leave: in any case. */
static bool walk_up(heist_task *t, struct standing *s) {
    s->coro = coro_of(t);
    s->count = 0;
    s->on[s->count++] = heist_ref(t);
    for (;;) {
        heist_task *top = s->on[s->count - 1];
        if (a_load_acq(&top->running)) return false;  /* acq: with the hand-over; what it did before is seen below */
        heist_future *f = a_load_acq(&top->awaiting); /* acq: its address; a reference is tried */
        if (!f || !s->coro || !heist__future_try_ref(f)) return true;
        if (!heist__is_task(f) || coro_of(f) != s->coro) {
            heist_unref(f);
            return true;
        }
        if (s->count == STANDING_MAX) {
            heist_unref(f);
            return false;
        }
        s->on[s->count++] = f;
    }
}

/* Whether those are still all that stand there: the same links, up to the last, which nobody has left. */
static bool still_standing(const struct standing *s) {
    for (int i = 0; i < s->count; i++) {
        if (coro_of(s->on[i]) != s->coro) return false;    /* it has ended */
        heist_future *f = a_load_acq(&s->on[i]->awaiting); /* acq: an address that is compared */
        if (i + 1 < s->count ? f != s->on[i + 1] : f && heist__future_try_ref(f)) {
            if (i + 1 < s->count) return false;
            bool above = heist__is_task(f) && coro_of(f) == s->coro;
            heist_unref(f);
            if (above) return false;
        }
    }
    return true;
}

/* Of several on one stack each one's frames end where that call begins by which its awaiter runs it. */
static const void *const in_place = (const void *)(uintptr_t)heist__run_in_place;

static int try_frames(heist_task *t, void **frames, int max) {
    if (heist__future_is_done(t)) return 0;
    struct heist__coro *coro = coro_of(t);
    struct heist__look look;
    if (!coro) { /* not begun, unless it begins or ends right now: then `running` is set on one side of the second look
                  */
        bool runs = a_load_acq(&t->running); /* acq: as in the walk */
        return runs || coro_of(t) || heist__future_is_done(t) ? -EBUSY : 0;
    }
    int n = heist__look_begin(coro, &look);
    if (n) return n;
    struct standing before;
    n = walk_up(t, &before) && before.coro == coro ? heist__look_take(&look) : -EBUSY;
    if (!n) {
        struct heist__look_part part = {in_place, (unsigned)before.count - 1};
        n = still_standing(&before) ? (int)heist__look_frames(&look, &part, frames, (size_t)max) : -EBUSY;
        heist__look_release(&look);
    }
    leave(&before);
    return n;
}

int heist__task_frames(heist_task *t, void **frames, int max, int attempts, const void *start) {
    int n = 0;
    if (t == heist__self()->task) {
        struct heist__look_part part = {in_place, 0};
        return (int)heist__look_here(start, &part, frames, (size_t)max);
    }
    while (attempts-- > 0 && (n = try_frames(t, frames, max)) == -EBUSY)
        if (attempts % 16 == 15) heist__sys_yield();
    return n;
}

#define ATTEMPTS 64

int heist_task_get_stack(heist_task *t, void **frames, int max) {
    if (!t || max < 0 || (max && !frames) || !heist__is_task(t)) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    return max ? heist__task_frames(t, frames, max, ATTEMPTS, __builtin_return_address(0)) : 0;
}

int heist_future_get_birth(heist_future *f, void **frames, int max) {
    if (!f || max < 0 || (max && !frames)) return -EINVAL;
    const struct heist__birth *b = heist__birth_of(f);
    if (!b) return 0;
    int n = (int)b->count < max ? (int)b->count : max;
    memcpy(frames, b->frame, (size_t)n * sizeof(void *));
    return n;
}

/* ---- names ---- */

int heist_describe_address(const void *address, int returns, char *buf, size_t size) {
    if (!buf && size) return -EINVAL;
    return heist__place(address, returns != 0, buf, size);
}

/* ---- to a stream ---- */

static void print_failure(heist_task *t, FILE *to) {
    const struct heist__failure *failure = t->failure; /* t is done, and held */
    if (failure && failure->file) fprintf(to, "  File \"%s\", line %d\n", failure->file, failure->line);
    fprintf(to, "%s: %s\n", heist_error_name(t->code), failure ? failure->message : heist_strerror(t->code));
}

int heist_task_print_stack(heist_task *t, int limit, FILE *to) {
    if (!t || limit < 0 || !heist__is_task(t)) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    if (!to) to = stderr;
    char repr[512];
    void *frames[256];
    if (!limit) limit = HEIST__FRAMES;
    if (limit > (int)HEIST_ARRAY_LEN(frames)) limit = HEIST_ARRAY_LEN(frames);
    int n = heist__task_frames(t, frames, limit, ATTEMPTS, __builtin_return_address(0));
    heist_future_repr(t, repr, sizeof(repr));
    if (n > 0) {
        fprintf(to, "Stack for %s (most recent call last):\n", repr);
        while (n-- > 0) {
            heist_describe_address(frames[n], 1, repr, sizeof(repr));
            fprintf(to, "  %s\n", repr);
        }
        return 0;
    }
    if (n == -EBUSY) {
        fprintf(to, "%s runs at this moment\n", repr);
    } else if (n < 0) {
        return n;
    } else if (heist__future_is_done(t) && t->outcome == HEIST__OUT_ERROR) {
        fprintf(to, "%s\n", repr);
        print_failure(t, to);
    } else {
        fprintf(to, "No stack for %s\n", repr);
    }
    return 0;
}
