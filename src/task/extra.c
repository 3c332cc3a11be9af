/* See extra.h. */
#include "task/extra.h"

#include "base/alloc.h"
#include "task/context.h"
#include "task/task.h"

struct heist__extra *heist__extra_of(heist_task *t) {
    return a_load_acq(&t->extra); /* acq: pairs with the cas below */
}

struct heist__extra *heist__extra(heist_task *t) {
    struct heist__extra *e = heist__extra_of(t);
    if (e) return e;
    struct heist__extra *fresh = heist__zalloc(sizeof(*fresh));
    if (!fresh) return NULL;
    /* The winner hands over zeros, the loser reads what the winner made */
    if (a_cas_sc(&t->extra, &e, fresh)) return fresh;
    heist__free(fresh);
    return e;
}

heist_context *heist__extra_context(heist_task *t) {
    struct heist__extra *e = heist__extra(t);
    if (!e) return NULL;
    heist_context *own = a_load_acq(&e->context); /* acq: pairs with the cas below */
    if (own) return own;
    heist_context *fresh = heist__context_make(NULL, 1, t->pinned ? t->loop_id : 0);
    if (!fresh) return NULL;
    if (a_cas_sc(&e->context, &own, fresh)) return fresh;
    heist_context_unref(fresh);
    return own;
}

const char *heist__extra_name(heist_task *t) {
    struct heist__extra *e = heist__extra_of(t);
    return e ? a_load_rlx(&e->name) : NULL; /* rlx: old or new, its lock may be held */
}

void heist__extra_free(struct heist__extra *e) {
    if (!e) return;
    heist__free(e->birth);
    heist__free(a_load_rlx(&e->name)); /* rlx, as the next: nobody else holds it */
    heist_context *ctx = a_load_rlx(&e->context);
    if (ctx && !e->released) heist__context_release(ctx);
    heist_context_unref(ctx);
    heist__free(e);
}
