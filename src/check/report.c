/* What stands where: the text of a failure's report.
 *
 * By the thread that has the turn, for the last time, so everything stands still; it is no
 * part of the simulation any more and passes no point.  Nothing here takes a lock: the one
 * who holds it may be standing still too. */
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/macros.h"
#include "check/inner.h"
#include "conc/self.h"
#include "mem/slab.h"
#include "task/extra.h"
#include "task/state.h"
#include "task/task.h"

#define TRACE_SHOWN 48

const char *heist__sim_place(const char *file) {
    static const char *const roots[] = {"src/", "include/", "tests/", "examples/", "stress/", "fuzz/", "tools/"};
    if (!file) return "?";
    const char *best = NULL;
    for (size_t i = 0; i < HEIST_ARRAY_LEN(roots); i++)
        for (const char *at = strstr(file, roots[i]); at; at = strstr(at + 1, roots[i]))
            if ((at == file || at[-1] == '/') && (!best || at < best)) best = at;
    if (best) return best;
    best = strrchr(file, '/');
    return best ? best + 1 : file;
}

static const char *const state_name[] = {"free", "can run", "waits", "polls", "ended"};

struct text {
    char *at;
    size_t left;
};

static HEIST_PRINTF(2, 3) void say(struct text *t, const char *format, ...) {
    va_list args;
    va_start(args, format);
    int n = vsnprintf(t->at, t->left, format, args);
    va_end(args);
    if (n < 0) return;
    size_t step = (size_t)n < t->left ? (size_t)n : t->left ? t->left - 1 : 0;
    t->at += step;
    t->left -= step;
}

static void describe_threads(struct heist__sim *s, struct text *out) {
    say(out, "threads at step %llu, %.6f s:\n", (unsigned long long)s->counts.steps,
        (double)(s->counts.now_ns - HEIST__SIM_START_NS) / 1e9);
    for (int i = 0; i < HEIST__SIM_THREADS; i++) {
        struct heist__sim_thread *t = &s->thread[i];
        if (t->state == HEIST__SIM_FREE || t->state == HEIST__SIM_ENDED) continue;
        char name[32] = "";
        if (pthread_getname_np(t->pthread, name, sizeof(name))) name[0] = 0;
        say(out, "  thread %d (%s) %s", i, name, state_name[t->state]);
        bool waits = t->state == HEIST__SIM_WAITING || t->state == HEIST__SIM_POLLING;
        if (waits) say(out, " for %s", t->what ? t->what : "something");
        if (t->state == HEIST__SIM_RUNNABLE && t->spinning) say(out, ", spinning");
        if (waits && t->deadline != INT64_MAX)
            say(out, " until %.6f s", (double)(t->deadline - HEIST__SIM_START_NS) / 1e9);
        say(out, ", last seen at %s:%d\n", heist__sim_place(t->file), t->line);
    }
}

static bool describe_task(void *object, void *arg) {
    struct text *out = arg;
    heist_future *f = object;
    uint64_t word = a_load_acq(&f->word); /* acq: as try_ref; nobody moves meanwhile */
    if (!heist__refs(word) || word & HEIST__F_DONE || !(word & HEIST__F_TASK)) return true;
    const char *name = heist__extra_name(f);
    if (name)
        say(out, "  task '%s'", name);
    else
        say(out, "  task Task-%llu", (unsigned long long)heist__task_number(f));
    say(out, " (made at %s:%u) ", heist__sim_place(f->file), f->line);
    heist_future *awaited = a_load_acq(&f->awaiting); /* acq, rlx: as above */
    if (a_load_rlx(&f->running))
        say(out, "runs");
    else if (awaited && heist__is_task(awaited))
        say(out, "awaits Task-%llu", (unsigned long long)heist__task_number(awaited));
    else if (awaited)
        say(out, "awaits a future");
    else
        say(out, f->coro ? "waits, or is ready" : "has not begun");
    bool asked = a_load_rlx(&f->cancel) & (HEIST__CANCEL_PENDING | HEIST__CANCEL_HELD); /* rlx: as above */
    say(out, asked ? ", asked to cancel\n" : "\n");
    return out->left > 4096; /* the switches want room too */
}

static void describe_tasks(struct text *out) {
    struct text before = *out;
    say(out, "tasks that are not done:\n");
    struct text none = *out;
    heist__slab_each(HEIST__SLAB_FUTURE, describe_task, out);
    if (out->at == none.at) {
        *out = before;
        *out->at = 0;
    }
}

static void describe_switches(struct heist__sim *s, struct text *out) {
    uint64_t shown = s->traced < TRACE_SHOWN ? s->traced : TRACE_SHOWN;
    if (shown) say(out, "the last %llu switches:\n", (unsigned long long)shown);
    for (uint64_t k = s->traced - shown; k < s->traced; k++) {
        const struct heist__traced *e = &s->trace[k % HEIST__SIM_TRACE];
        say(out, "  step %7llu  %.6f s  ", (unsigned long long)e->step, (double)(e->now - HEIST__SIM_START_NS) / 1e9);
        if (e->to == HEIST__SIM_NOBODY)
            say(out, "thread %d: %s", e->from, e->why);
        else if (e->from == HEIST__SIM_NOBODY)
            say(out, "the first is %d", e->to);
        else
            say(out, "%d -> %d  (%d %s)", e->from, e->to, e->from, e->why);
        say(out, " at %s:%d\n", heist__sim_place(e->file), e->line);
    }
}

void heist__sim_describe(struct heist__sim *s, char *buf, size_t bytes) {
    struct text out = {buf, bytes};
    buf[0] = 0;
    describe_threads(s, &out);
    describe_tasks(&out);
    describe_switches(s, &out);
}
