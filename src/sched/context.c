/* Who runs in which context: a task from birth, and whoever calls heist_context_run.
 *
 * A task that is given a context has claimed it before it is born, and gives it back when its body has ended, before
 * anybody can learn of that: by the one hook that every end has, the destructor of its argument.  So a spawn and an end
 * without a given context have no branch for it.  fn, arg and arg_free of such a task are those below, with the task as
 * argument; its own stand in its extra. */
#include <heist/context.h>

#include "base/fork.h"
#include "sched/sched.h"
#include "sched/timeout.h"
#include "task/context.h"
#include "task/extra.h"

/* The loop that the caller does not leave while it runs: 0 for threads, and tasks that may move. */
static uint64_t home_of(struct heist__self *self) {
    heist_task *t = heist__self_body(self);
    if (t) return t->pinned ? t->loop_id : 0;
    return self->worker ? a_load_rlx(&self->loop->id) : 0; /* rlx: it stands while the loop runs */
}

/* ---- a task's ---- */

static int run_given(void *arg, void **out) {
    struct heist__extra *e = heist__extra_of(arg);
    return e->fn(e->arg, out);
}

static void end_given(void *arg) {
    struct heist__extra *e = heist__extra_of(arg);
    if (e->arg_free) e->arg_free(e->arg);
    e->released = true;
    heist__context_release(a_load_rlx(&e->context)); /* rlx: since birth */
}

int heist__context_at_birth(struct heist__self *self, heist_task *t, heist_context *given) {
    struct heist__vars *vars = given ? NULL : heist__context_capture(self);
    if (!given && !vars) return 0;
    struct heist__extra *e = heist__extra(t);
    uint64_t home = t->pinned ? t->loop_id : 0;
    if (given) {
        int err = e ? heist__context_claim(given, home) : -ENOMEM;
        if (err) return err;
        a_store_rlx(&e->context, heist_context_ref(given)); /* rlx, as the next: the task is not published yet */
        e->fn = t->fn;
        e->arg = t->arg;
        e->arg_free = t->arg_free;
        t->fn = run_given;
        t->arg = t;
        t->arg_free = end_given;
        return 0;
    }
    heist_context *own = e ? heist__context_make(vars, 1, home) : NULL;
    if (!own) {
        heist__vars_unref(vars);
        return -ENOMEM;
    }
    a_store_rlx(&e->context, own);
    return 0;
}

heist_coro_fn heist_task_coro(const heist_task *t) {
    if (!t || !heist__is_task(t)) return NULL;
    struct heist__extra *e = heist__extra_of((heist_task *)(uintptr_t)t);
    heist_coro_fn fn = t->fn == run_given ? e->fn : t->fn;
    return fn == heist__deadline_body ? e->timed_fn : fn;
}

int heist_task_context(heist_task *t, heist_context **out) {
    if (!t || !out || !heist__is_task(t)) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    heist_context *ctx = heist__extra_context(t);
    if (!ctx) return -ENOMEM;
    *out = heist_context_ref(ctx);
    return 0;
}

/* ---- anybody's, for a call ---- */

int heist_context_run(heist_context *ctx, heist_coro_fn fn, void *arg, void **out) {
    if (!ctx || !fn) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    struct heist__self *self = heist__self();
    heist_task *t = heist__self_body(self);
    struct heist__extra *e = t ? heist__extra(t) : NULL;
    if (t && !e) return -ENOMEM;
    int err = heist__context_claim(ctx, home_of(self));
    if (err) return err;
    heist__contexts_use();
    heist_context_ref(ctx); /* fn may drop the caller's */
    struct heist__scope **slot = e ? &e->entered : &self->scope, *before = *slot;
    *slot = &ctx->scope;
    void *value = NULL; /* a coroutine's *out is there, and NULL, always */
    err = fn(arg, &value);
    if (out && err >= 0) *out = value;
    *slot = before; /* a task's goes with it; a thread or callback is where it was */
    heist__context_release(ctx);
    heist_context_unref(ctx);
    return err;
}
