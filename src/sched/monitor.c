/* Which task or callback holds a worker too long, and where it stands: a report while it
 * lasts, once for each time.
 *
 * Called by whoever looks after the others (idle.c), on his own worker's stack, never by
 * the worker concerned.  What is read of that one is a heuristic until it is checked: the
 * task is type-stable and a reference is taken, which only the living give; a stack is the
 * worker's own answer (coro/where.h), and is dropped when it has moved meanwhile.
 *
 * One at a time looks at one worker; the lock that says who is held while the handler runs. */
#include <stdio.h>
#include <string.h>

#include "base/place.h"
#include "sched/sched.h"

/* A thread that has not answered until then blocks the signal, or does not get a processor. */
#define ANSWER_NS 100000000

struct text {
    size_t used;
    char line[4096];
};

static void add(struct text *t, const char *s) {
    size_t n = strlen(s), room = sizeof(t->line) - 1 - t->used;
    if (n > room) n = room;
    memcpy(t->line + t->used, s, n);
    t->used += n;
    t->line[t->used] = 0;
}

static void add_place(struct text *t, uintptr_t at, bool returns) {
    char part[256];
    heist__place((const void *)at, returns, part, sizeof(part));
    add(t, part);
}

static void describe_stack(struct text *t, const struct heist__where *w) {
    for (unsigned i = 0; i < w->count; i++) {
        if (i) add(t, "\n");
        add_place(t, (uintptr_t)w->frame[i], i > 0);
    }
}

static void report(struct heist__worker *w, struct heist__worker *v, heist_task *t, heist_callback_fn callback,
                   int64_t stood, const struct heist__where *where) {
    char name[128], worker[32];
    struct text stack = {.used = 0}, function = {.used = 0};
    const char *extra[9];
    int n = 0;
    snprintf(worker, sizeof(worker), "%d", v->index);
    extra[n++] = "worker";
    extra[n++] = worker;
    heist_report r = HEIST_REPORT_INIT;
    r.message = t ? "a worker is stuck in a task" : "a worker is stuck in a callback";
    r.seconds = heist__seconds_from_ns(stood);
    if (t) {
        heist__task_name_into(t, name, sizeof(name));
        r.name = name;
        r.future = t;
        r.file = t->file;
        r.line = (int)t->line;
    } else if (callback) {
        add_place(&function, (uintptr_t)callback, false);
        extra[n++] = "function";
        extra[n++] = function.line;
    }
    if (where) {
        describe_stack(&stack, where);
        extra[n++] = "stack";
        extra[n++] = stack.line;
    }
    extra[n] = NULL;
    r.extra = extra;
    heist__loop_report_for(v->loop, w->loop, &r);
}

/* The stack: true when there is nothing to wait for, and then *out is it, or NULL. */
static bool ask(struct heist__worker *v, uint64_t what, int64_t now, const struct heist__where **out) {
    struct heist__where *where = &v->where;
    *out = NULL;
    switch (a_load_acq(&where->state)) { /* acq: pairs with the answer */
    case HEIST__WHERE_IDLE:
        v->asked_for = what;
        v->asked_at = now;
        return heist__where_ask(where) < 0;
    case HEIST__WHERE_ASKED:
        return now - v->asked_at > ANSWER_NS && heist__where_give_up(where);
    case HEIST__WHERE_ANSWERED:
        if (v->asked_for == what)
            *out = where;
        else
            heist__where_done(where); /* of another step: ask again */
        return *out != NULL;
    }
    return false;
}

/* A number for what v runs: another for another step or callback.  rlx: a heuristic, looked at twice. */
static uint64_t running_now(struct heist__worker *v) {
    uint64_t moved = a_load_rlx(&v->tick) + a_load_rlx(&v->turns) + a_load_rlx(&v->loop->jobs);
    return 2 * moved + (a_load_rlx(&v->shown) || a_load_rlx(&v->loop->callback));
}

static bool look(struct heist__worker *w, struct heist__worker *v, int64_t now) {
    heist_runtime *rt = w->rt;
    uint64_t what = running_now(v);
    if (what != v->watched) {
        v->watched = what;
        v->watched_since = now;
    }
    int64_t stood = now - v->watched_since;
    if (stood < rt->stuck_after_ns || v->reported == what) return false;
    /* acq: pairs with the step, which made the task known before it ran it */
    heist_task *t = a_load_acq(&v->shown);
    heist_callback_fn callback = a_load_rlx(&v->loop->callback); /* rlx: an address that is only told */
    if (!t && !a_load_rlx(&v->loop->in_callbacks)) return false; /* rlx: it sleeps, or the kernel does not let it run */
    if (t && !heist__future_try_ref(t)) return false;
    const struct heist__where *where = NULL;
    bool tells = (!rt->stuck_signal || ask(v, what, now, &where)) && running_now(v) == what;
    if (tells) {
        v->reported = what;
        report(w, v, t, callback, stood, where);
    }
    if (where) heist__where_done(&v->where);
    if (t) heist_unref(t);
    return tells;
}

bool heist__monitor(struct heist__worker *w, struct heist__worker *v, int64_t now) {
    if (!heist__spin_trylock(&v->monitor_lock)) return false; /* another one looks, or reports */
    bool told = look(w, v, now);
    heist__spin_unlock(&v->monitor_lock);
    return told;
}
