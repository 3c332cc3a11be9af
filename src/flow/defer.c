/* Deferred calls, and stacks of exit steps.  One user at a time; nothing here is shared.
 *
 * A stack is an array that grows; opaque[0] points to it, and the counts stand in the other two.  Whoever runs a step
 * takes it off first, so that a step that adds one finds the stack as it is. */
#include <heist/defer.h>
#include <heist/error.h>
#include <heist/task.h>
#include <stdbool.h>

#include "base/alloc.h"
#include "base/fork.h"
#include "base/options.h"

struct step {
    heist_exit_fn fn;      /* or NULL: */
    heist_defer_fn simple; /* this one */
    void *arg;
};

enum { STEPS, COUNT, ROOM };

static struct step *steps_of(heist_exit_stack *s) { return s->opaque[STEPS]; }
static uintptr_t get(const heist_exit_stack *s, int field) { return (uintptr_t)s->opaque[field]; }
static void put(heist_exit_stack *s, int field, uintptr_t n) { s->opaque[field] = (void *)n; }

void heist_deferred_run(heist_deferred *d) {
    if (!d->fn) return;
    bool held = heist_uncancellable_begin() == 0;
    d->fn(d->arg);
    if (held) heist_uncancellable_end();
}

static int make_room(heist_exit_stack *s) {
    uintptr_t room = get(s, ROOM);
    if (get(s, COUNT) < room) return 0;
    room = room ? 2 * room : 4;
    struct step *more = heist__realloc(steps_of(s), room * sizeof(*more));
    if (!more) return -ENOMEM;
    s->opaque[STEPS] = more;
    put(s, ROOM, room);
    return 0;
}

static void add(heist_exit_stack *s, struct step step) {
    uintptr_t n = get(s, COUNT);
    steps_of(s)[n] = step;
    put(s, COUNT, n + 1);
}

int heist_exit_stack_push(heist_exit_stack *s, heist_exit_fn fn, void *arg) {
    if (!s || !fn) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    int err = make_room(s);
    if (!err) add(s, (struct step){fn, NULL, arg});
    return err;
}

int heist_exit_stack_defer(heist_exit_stack *s, heist_defer_fn fn, void *arg) {
    if (!s || !fn) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    int err = make_room(s);
    if (!err) add(s, (struct step){NULL, fn, arg});
    return err;
}

int heist_exit_stack_enter(heist_exit_stack *s, const heist_with_ops *ops, void *manager, void **out) {
    if (!s || !ops || !heist__options_ok(ops, sizeof(*ops)) || !ops->enter || !ops->exit) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    int err = make_room(s);
    if (err) return err;
    void *entered = NULL;
    err = ops->enter(manager, &entered);
    if (err < 0) return err;
    err = make_room(s); /* enter may have added steps itself, or moved them away */
    if (err) {
        int said = ops->exit(manager, err);
        return said < 0 ? said : err;
    }
    add(s, (struct step){ops->exit, NULL, manager});
    if (out) *out = entered;
    return 0;
}

int heist_exit_stack_move(heist_exit_stack *from, heist_exit_stack *to) {
    if (!from || !to || from == to) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    if (get(to, COUNT)) return -EBUSY;
    heist__free(steps_of(to));
    *to = *from;
    *from = (heist_exit_stack)HEIST_EXIT_STACK_INIT;
    return 0;
}

int heist_exit_stack_close(heist_exit_stack *s, int code) {
    if (!s) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    if (code > 0) code = 0;
    bool held = heist_uncancellable_begin() == 0;
    for (uintptr_t n; (n = get(s, COUNT));) {
        struct step step = steps_of(s)[n - 1];
        put(s, COUNT, n - 1);
        if (!step.fn) {
            step.simple(step.arg);
            continue;
        }
        int said = step.fn(step.arg, code);
        if (said) code = said < 0 ? said : 0;
    }
    if (held) heist_uncancellable_end();
    heist__free(steps_of(s));
    *s = (heist_exit_stack)HEIST_EXIT_STACK_INIT;
    return code;
}
