/* Context variables: what a scope holds, who uses a context, and what a callback carries.
 *
 *   var    a name and a default; counted
 *   item   one value of one variable; immutable, counted; the last reference runs the destructor
 *   vars   a sorted array of items; counted; changed only by a scope that holds its one reference
 *   scope  a pointer to vars, and the right to exchange it (conc/self.h): a task's, a callback's, a thread's
 *   context  a scope that is an object of its own, counted, with a lock
 *
 * A scope is written by one at a time, whoever runs in it.  That is so by its place for the scopes of callbacks and
 * threads; a context is *claimed* first:
 *
 *   users == 0                     anybody may claim it; home := the claimer's loop, or 0
 *   users > 0, home != 0           who stays on that loop may claim it too: those never overlap
 *   users > 0 otherwise            -EBUSY
 *
 * Who runs in a scope reads its vars without the lock and changes them under it; others look at them under it
 * (copy, lookup).  Why an array may be changed in place when its count is one: the one reference is the scope's; a
 * second one comes only from the scope itself, by its user or under its lock; and one that has gone released
 * what it read to the acquiring look at the count. */
#ifndef HEIST_TASK_CONTEXT_H
#define HEIST_TASK_CONTEXT_H

#include <heist/context.h>

#include "conc/atomic.h"
#include "conc/self.h"
#include "conc/spin.h"

struct heist_context {
    _Atomic(uint64_t) refs;
    struct heist__scope scope;
    struct heist__spin lock; /* guards scope.vars against those who look from outside, and what follows */
    unsigned users;
    uint64_t home; /* the id of the loop on which its users stay, or 0 */
};

/* Whether there has ever been a variable, or a callback that was given a context: if not, nobody has anything to hand
 * on.  Else each callback runs in a scope of its own. */
extern _Atomic(int) heist__contexts_made;
void heist__contexts_use(void);
static inline bool heist__contexts_used(void) {
    return a_load_rlx(&heist__contexts_made); /* rlx: who has set a variable has raised it before, or was told so */
}

/* A context with these variables, which it takes over, claimed by one user; or NULL, and they are still the caller's.
 */
heist_context *heist__context_make(struct heist__vars *vars, unsigned users, uint64_t home);
int heist__context_claim(heist_context *ctx, uint64_t home); /* 0 or -EBUSY */
void heist__context_release(heist_context *ctx);

/* Of the scope in which the caller runs: a reference, or NULL for an empty one. */
struct heist__vars *heist__context_capture(struct heist__self *self);
void heist__vars_unref(struct heist__vars *vars); /* NULL is allowed */

/* ---- callbacks ---- */

/* What a callback runs in. */
struct heist__carried {
    struct heist__scope scope;
    heist_context *context; /* given, with a reference and a claim; NULL: `scope` */
};

/* Fills it: with `given`, else with the current variables.  0 or -EBUSY.  home: the id of the callback's loop. */
int heist__carry(struct heist__self *self, struct heist__carried *c, heist_context *given, uint64_t home);
static inline bool heist__carries(const struct heist__carried *c) { return c->context || c->scope.vars; }
void heist__carried_drop(struct heist__carried *c);

/* Before and after a callback that runs in what it carries (NULL: in an empty scope, whose contents leave drops). */
struct heist__in_scope {
    struct heist__scope *before, empty;
};
void heist__scope_enter(struct heist__in_scope *in, struct heist__carried *c);
void heist__scope_leave(struct heist__in_scope *in);

/* ---- threads ---- */

/* What was set on a worker outside of tasks and callbacks goes. */
void heist__scope_forget(struct heist__self *self);
/* The thread exits. */
void heist__scope_thread_exit(struct heist__self *self);

#endif
