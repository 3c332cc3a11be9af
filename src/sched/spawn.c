/* The life of a task: birth, steps, end; and where a ready task goes.
 *
 *   ready task                        goes to
 *   pinned, woken on its own loop     that loop's FIFO, behind earlier submissions
 *   pinned, woken elsewhere           that loop's inbox
 *   woken by a worker of its runtime  the worker's stack (it runs next), or, woken by
 *                                     the loop's steps or yielding, the worker's queue
 *   woken from outside                the runtime's injection queue
 *
 * Locked operations of spawn, run and join: the await's add, and the two of the
 * publication; a spawn itself does none (the deque's push apart, which has none). */
#include <heist/runtime.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/fork.h"
#include "base/options.h"
#include "mem/slab.h"
#include "sched/held.h"
#include "sched/step.h"
#include "sched/timeout.h"
#include "task/birth.h"
#include "task/context.h"
#include "task/extra.h"
#include "task/state.h"

/* ---- where a ready task goes ---- */

static void pinned_run(struct heist__job *job, heist_loop *loop) {
    heist__step(loop->worker, heist_container_of(job, heist_task, job));
}

/* A task is never dropped: its loop closes only when it has ended. */
static void pinned_drop(struct heist__job *job) { (void)job; }

static const struct heist__job_class pinned_class = {pinned_run, pinned_drop};

static void inject(heist_runtime *rt, heist_task *t, int preferred) {
    heist__mpsc_push(&rt->inject, &t->job.node); /* never closed while a task lives */
    heist__wake_searcher(rt, preferred);
}

/* Once it is pushed the task may run, end, and take its runtime with it: who is no worker of that keeps the
 * memory until it has looked whom to wake. */
static HEIST_NOINLINE void wake_from_outside(heist_task *t, heist_loop *pinned_to) {
    heist_runtime *rt = t->rt;
    bool holds = !heist__worker_of(heist__self(), rt);
    if (holds) a_add_rlx(&rt->refs, 1); /* rlx: the task is not done, so the threads hold one */
    if (pinned_to)
        heist__loop_push(pinned_to, &t->job); /* cannot be closed while a task of it lives */
    else
        inject(rt, t, -1);
    if (holds) heist__runtime_release(rt);
}

void heist__ready(heist_task *t) {
    struct heist__self *self = heist__self();
    if (t->pinned) {
        heist_loop *loop = t->loop;
        t->job.klass = &pinned_class;
        if (self->loop == loop) {
            heist__loop_take_inbox(loop);
            heist__jobs_append(&loop->ready, &t->job);
        } else {
            wake_from_outside(t, loop);
        }
        return;
    }
    heist_runtime *rt = t->rt;
    struct heist__worker *w = self->worker;
    if (heist_unlikely(!w || w->rt != rt)) {
        wake_from_outside(t, NULL);
        return;
    }
    struct heist__deque *d = w->polling ? &w->queue : &w->stack;
    if (heist_unlikely(heist__deque_push(d, t))) { /* no memory to grow: the list needs none */
        inject(rt, t, -1);
        return;
    }
    /* One task is what this worker runs next; from some on another worker may help.  rlx: should the
     * looks miss a worker that falls asleep just now, this one still runs the task, and the sentinel looks. */
    if (!w->alone && a_load_rlx(&rt->sleepers) > 0 && a_load_rlx(&rt->searching) == 0 &&
        heist__deque_size(d) > (w->polling ? a_load_rlx(&w->keeps) : HEIST__STACK_ALONE))
        heist__wake_searcher(rt, -1);
}

/* ---- birth ---- */

size_t heist__live_tasks(heist_runtime *rt) {
    /* Deaths first: when the sums are equal, no task lived between the two readings.  acq: keeps the order.  sc:
     * pairs with born_outside, whose wake may find nobody asleep yet: then the look before sleep sees the death. */
    uint64_t deaths = a_load_sc(&rt->foreign_deaths), births = 0;
    for (int i = 0; i < rt->workers; i++) deaths += a_load_acq(&rt->worker[i]->deaths);
    births = a_load_sc(&rt->foreign_births);
    for (int i = 0; i < rt->workers; i++) births += a_load_acq(&rt->worker[i]->births);
    return births > deaths ? (size_t)(births - deaths) : 0;
}

/* The options of a program that was built before tasks had contexts end here. */
#define FIRST_SIZE offsetof(heist_task_options, context)

static int check_options(const heist_task_options *opts) {
    if (!opts) return 0;
    if (!heist__options_ok_since(opts, FIRST_SIZE, sizeof(*opts))) return -EINVAL;
    if (opts->flags & ~(HEIST_TASK_PINNED | HEIST_TASK_INHERIT_DEADLINE | HEIST_TASK_EAGER)) return -EINVAL;
    if (opts->stack_bytes && (opts->stack_bytes < HEIST__STACK_MIN || opts->stack_bytes > HEIST__STACK_MAX))
        return -EINVAL;
    return 0;
}

int heist__task_read_options(const heist_task_options *from, heist_task_options *to) {
    *to = (heist_task_options)HEIST_TASK_OPTIONS_INIT;
    if (!from) return 0;
    if (check_options(from)) return -EINVAL;
    memcpy(to, from, from->size < sizeof(*to) ? from->size : sizeof(*to));
    to->size = sizeof(*to);
    return 0;
}

/* What a task has from birth beside its body.  *out may stay NULL: it has nothing. */
static int make_extra(heist_loop *loop, const heist_task_options *opts, const void *start, struct heist__extra **out) {
    bool noted = a_load_rlx(&loop->debug) & HEIST__DEBUG; /* rlx: a setting */
    if (!opts->name && !noted) return 0;
    struct heist__extra *e = heist__zalloc(sizeof(*e));
    if (!e) return -ENOMEM;
    if (opts->name) {
        size_t n = strlen(opts->name) + 1;
        char *name = heist__alloc(n);
        if (!name) {
            heist__free(e);
            return -ENOMEM;
        }
        a_store_rlx(&e->name, memcpy(name, opts->name, n)); /* rlx: not published yet */
    }
    if (noted) e->birth = heist__birth_make(start, 1); /* by whoever called us; without memory it has none */
    *out = e;
    return 0;
}

/* What few runtimes ask of each birth. */
static HEIST_COLD int careful(heist_runtime *rt, heist_loop *loop, const heist_task_options **opts, bool helper) {
    static const heist_task_options none = HEIST_TASK_OPTIONS_INIT;
    if (rt->max_tasks && !helper && heist__live_tasks(rt) >= rt->max_tasks) return -EAGAIN;
    if (!*opts && (a_load_rlx(&loop->debug) & HEIST__DEBUG)) *opts = &none; /* rlx: a setting */
    return 0;
}

/* One that asks for its maker's deadline, when there is one, begins with the body that keeps it. */
static int inherit_deadline(heist_runtime *rt, heist_coro_fn fn, struct heist__extra **extra) {
    int64_t deadline_ns = heist__deadline_inherited(rt);
    if (deadline_ns == INT64_MAX) return 0;
    if (!*extra && !(*extra = heist__zalloc(sizeof(**extra)))) return -ENOMEM;
    (*extra)->timed_fn = fn;
    (*extra)->deadline_ns = deadline_ns;
    return 0;
}

/* By a thread that is no worker of rt.  In the one order of sc operations either the close sees the birth,
 * and waits for the task, or this thread sees the close and refuses.  The close's walk sees the task, or
 * the second look here does. */
static bool born_outside(heist_runtime *rt, heist_task *t, unsigned refs) {
    a_add_sc(&rt->foreign_births, 1);
    if (a_load_sc(&rt->closing)) {
        a_add_sc(&rt->foreign_deaths, 1);
        heist__loop_wake(rt->worker[0]->loop); /* a worker may have counted the task that was not to be */
        return false;
    }
    heist__state_born(t, HEIST__F_TASK, refs);
    a_fence_sc(); /* born before the second look */
    if (a_load_sc(&rt->closing) && !a_xchg_ar(&t->close_asked, 1)) /* ar: asked once, here or by the walk */
        /* It will end without running. */
        a_or_sc(&t->cancel, HEIST__CANCEL_PENDING | HEIST__CANCEL_ONE | HEIST__CANCEL_FRESH_ONE);
    return true;
}

/* A task that was not to be.  Its argument is the caller's. */
static HEIST_COLD void unmake(struct heist__self *self, heist_task *t) {
    heist__extra_free(a_load_rlx(&t->extra)); /* rlx: nobody has seen it */
    a_store_rlx(&t->extra, NULL);
    heist__slab_put(self, HEIST__SLAB_FUTURE, t);
}

/* The first step of a task within the call that makes it.  The maker stands as the worker does otherwise: it is the
 * host of this one step, at whose end (the task has left its stack, or has ended) it goes on, on this thread.  What
 * belongs to the maker's own step is put aside meanwhile. */
static HEIST_COLD HEIST_NOINLINE void step_now(struct heist__worker *w, heist_task *t) {
    struct heist__self *self = w->self;
    heist_task *maker = self->task, *shown = a_load_rlx(&w->shown); /* rlx: only we write it */
    struct heist__host host = w->host;
    bool polling = w->polling;
    int locks_watch = w->locks_watch;
    heist__host_stands_here(&w->host);
    w->polling = false;
    w->locks_watch = 0;
    heist__step(w, t);
    w->locks_watch = locks_watch;
    w->polling = polling;
    w->host = host;
    a_store_rel(&w->shown, shown); /* rel: pairs with the monitor */
    self->task = maker;
}

/* The end of a birth.  `eager` is known where it is called: those that are not pay nothing for it. */
static inline __attribute__((always_inline)) int let_live(struct heist__self *self, heist_runtime *rt, heist_loop *loop,
                                                          heist_task *t, heist_context *given, heist_task **out,
                                                          bool eager) {
    struct heist__worker *w = self->worker;
    bool own = w && w->rt == rt;
    if (heist_unlikely(heist__contexts_used() || given)) {
        int err = heist__context_at_birth(self, t, given);
        if (err) {
            unmake(self, t);
            return err;
        }
    }
    if (heist_likely(own)) {
        a_store_rel(&w->births, a_load_rlx(&w->births) + 1); /* rel: pairs with live_tasks; only we write it */
        heist__state_born(t, HEIST__F_TASK, out ? 2 : 1);
    } else if (!born_outside(rt, t, out ? 2 : 1)) {
        unmake(self, t);
        return HEIST_ECLOSED;
    }
    if (out) *out = t;
    if (eager && own && (!t->pinned || t->loop == self->loop))
        step_now(w, t);
    else if (own || t->pinned)
        heist__ready(t);
    else
        inject(rt, t, loop->worker->index);
    return 0;
}

/* helper: a constant. */
static inline __attribute__((always_inline)) int spawn(heist_runtime *rt, heist_loop *loop, const char *file, int line,
                                                       heist_coro_fn fn, void *arg, const heist_task_options *opts,
                                                       heist_task **out, bool helper) {
    int err = heist_unlikely(opts != NULL) ? check_options(opts) : 0;
    if (heist_unlikely(!fn || err)) return -EINVAL;
    struct heist__self *self = heist__self();
    struct heist__worker *w = self->worker;
    bool own = w && w->rt == rt;
    /* A worker that has seen the close refuses; one that has not is waited for (shutdown.c). */
    if (heist_unlikely(own && w->acked)) return HEIST_ECLOSED;
    if (heist_unlikely(a_load_rlx(&rt->care)) && (err = careful(rt, loop, &opts, helper))) /* rlx: a setting */
        return err;
    struct heist__extra *extra = NULL;
    if (opts && (err = make_extra(loop, opts, __builtin_return_address(0), &extra))) return err;
    if (opts && (opts->flags & HEIST_TASK_INHERIT_DEADLINE) && (err = inherit_deadline(rt, fn, &extra))) {
        heist__extra_free(extra);
        return err;
    }
    heist_task *t = heist__future_alloc(self, loop, a_load_rlx(&loop->id)); /* rlx: referenced */
    if (heist_unlikely(!t)) {
        heist__extra_free(extra);
        return -ENOMEM;
    }
    t->rt = rt;
    t->fn = fn;
    t->arg = arg;
    t->file = file;
    t->line = (uint32_t)line;
    t->coro = NULL;
    heist__park_reset(&t->park);
    t->park.parker = NULL;
    a_store_rlx(&t->running, 0); /* rlx, as all here: published by the queue or by *out */
    a_store_rlx(&t->close_asked, 0);
    if (opts) {
        t->pinned = rt->alone || (opts->flags & HEIST_TASK_PINNED);
        t->stack_kib = opts->stack_bytes ? heist__stack_kib(opts->stack_bytes) : rt->stack_kib;
        t->arg_free = opts->arg_free;
        t->value_free = opts->result_free;
        a_store_rlx(&t->extra, extra);
        if (extra && extra->timed_fn) t->fn = heist__deadline_body;
        heist_context *given = heist__options_has(opts, FIRST_SIZE) ? opts->context : NULL;
        if (opts->flags & HEIST_TASK_EAGER) return let_live(self, rt, loop, t, given, out, true);
        return let_live(self, rt, loop, t, given, out, false);
    }
    t->pinned = rt->alone;
    t->stack_kib = rt->stack_kib;
    t->arg_free = NULL;
    return let_live(self, rt, loop, t, NULL, out, false);
}

int heist__spawn(heist_runtime *rt, heist_loop *loop, const char *file, int line, heist_coro_fn fn, void *arg,
                 const heist_task_options *opts, heist_task **out) {
    return spawn(rt, loop, file, line, fn, arg, opts, out, false);
}

int heist__spawn_helper(heist_coro_fn fn, void *arg, const heist_task_options *opts) {
    struct heist__worker *w = heist__self()->worker;
    if (!w) return HEIST_ENOLOOP;
    return spawn(w->rt, w->loop->home, __FILE__, __LINE__, fn, arg, opts, NULL, true);
}

int heist_create_task_at(const char *file, int line, heist_coro_fn fn, void *arg, const heist_task_options *opts,
                         heist_task **out) {
    struct heist__worker *w = heist__self()->worker;
    if (heist_unlikely(heist__forked())) return HEIST_EFORKED;
    if (heist_unlikely(!w)) return HEIST_ENOLOOP;
    return heist__spawn(w->rt, w->loop->home, file, line, fn, arg, opts, out);
}

int heist_loop_create_task_at(const char *file, int line, heist_loop *loop, heist_coro_fn fn, void *arg,
                              const heist_task_options *opts, heist_task **out) {
    if (!loop) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    if (a_load_acq(&loop->closed)) return HEIST_ECLOSED; /* acq: the runtime may be gone */
    return heist__spawn(loop->rt, loop, file, line, fn, arg, opts, out);
}

int heist_runtime_run_coroutine_at(const char *file, int line, heist_runtime *rt, heist_coro_fn fn, void *arg,
                                   const heist_task_options *opts, heist_task **out) {
    if (!rt) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    if (a_load_sc(&rt->closing)) return HEIST_ECLOSED;
    struct heist__worker *w = heist__self()->worker;
    heist_loop *loop = w && w->rt == rt ? w->loop->home : rt->worker[0]->loop;
    return heist__spawn(rt, loop, file, line, fn, arg, opts, out);
}

heist_task *heist_current_task(void) { return heist__self()->task; }

/* ---- steps and end ---- */

static inline void run_body(heist_task *t) {
    void *value = NULL;
    int code = t->fn(t->arg, &value);
    if (heist_unlikely(heist__forked())) heist__forked_end();
    t->code = code;
    t->value = value;
}

static void body(void *payload) {
    heist_task *t = payload;
    run_body(t);
    heist__coro_exit(&heist__self()->worker->host, t->coro, HEIST__LEFT_FOR_GOOD);
}

/* The body has ended, or never ran.  No task is current. */
static void end(struct heist__worker *w, heist_task *t) {
    heist_free_fn arg_free = t->arg_free;
    if (heist_unlikely(arg_free != NULL)) {
        arg_free(t->arg);
        if (heist_unlikely(heist__forked())) heist__forked_end();
    }
    int code = t->code;
    struct heist__failure *told = t->failure;
    if (heist_likely(code >= 0 && !told)) {
        t->code = 0;
    } else {
        bool keep = told && told->code == code;
        if (told && !keep) {
            heist__free(told);
            told = NULL;
        }
        t->failure = told;
        if (code >= 0) {
            t->code = 0;
        } else {
            if (t->value && t->value_free) t->value_free(t->value); /* a failed body's result is nobody's */
            t->value = NULL;
            t->outcome = code == -ECANCELED ? HEIST__OUT_CANCELLED : HEIST__OUT_ERROR;
            if (code == -ECANCELED && !told)
                t->failure = a_xchg_ar(&t->cancel_message, NULL); /* ar: pairs with the canceller's exchange */
            if (code == HEIST_EFATAL) w->loop->fatal = code;
        }
    }
    /* Counted before anybody can learn of the end.  A close does not get ahead of what follows: this worker
     * leaves only at its next turn.  rel: pairs with live_tasks; only we write it */
    a_store_rel(&w->deaths, a_load_rlx(&w->deaths) + 1);
    heist__future_publish(t, 1); /* t may be gone */
}

/* The first step: false when it did not come to run. */
bool heist__step_begin(struct heist__worker *w, heist_task *t) {
    if (heist_unlikely(a_load_rlx(&t->cancel) & HEIST__CANCEL_PENDING) && heist__cancel_take(t)) { /* rlx: a look */
        t->code = -ECANCELED;
        end(w, t);
        return false;
    }
    struct heist__stack *stack;
    int err = heist__stack_get(&w->stacks, (size_t)t->stack_kib * 1024, &stack);
    if (heist_unlikely(err)) { /* no stack to run on is a failure of the task */
        t->code = err;
        end(w, t);
        return false;
    }
    t->coro = heist__coro_new(stack, body);
    return true;
}

static void report_slow(struct heist__worker *w, heist_task *t, int64_t took) {
    char name[128];
    heist__task_name_into(t, name, sizeof(name));
    heist_report report = HEIST_REPORT_INIT;
    report.message = "a task step held its worker too long";
    report.name = name;
    report.future = t;
    report.seconds = heist__seconds_from_ns(took);
    heist__loop_report(w->loop, &report);
}

void heist__step_end(struct heist__worker *w, heist_task *t) {
    struct heist__coro *coro = t->coro;
    struct heist__stack *stack = coro->stack;
    t->coro = NULL;
    heist__coro_free(coro);
    heist__stack_put(&w->stacks, stack);
    end(w, t);
}

void heist__step_watched(struct heist__worker *w, heist_task *t) {
    heist_loop *loop = w->loop;
    struct heist__self *self = w->self;
    int watched = a_load_rlx(&loop->debug); /* rlx: a setting */
    for (;;) {
        int64_t start = 0;
        a_store_rel(&w->shown, t); /* rel: pairs with the monitor */
        if (watched & HEIST__DEBUG) {
            start = heist__clock_now(loop->clock);
            w->locks_watch = heist__held_begin();
        }
        self->task = t;
        a_store_rlx(&t->running, 1); /* rlx: for reports */
        void *left = heist__coro_enter(&w->host, t->coro, t);
        t = self->task;
        self->task = NULL;
        a_store_rlx(&t->running, 0);
        a_store_rlx(&w->shown, NULL); /* rlx: for the monitor */
        if (watched & HEIST__DEBUG) {
            int64_t took = heist__clock_now(loop->clock) - start;
            if (took >= a_load_rlx(&loop->slow_ns)) report_slow(w, t, took); /* rlx: a setting */
            if (w->locks_watch && left == HEIST__LEFT_FOR_GOOD)
                heist__held_check(w, t, "a task ends while its thread holds a lock that it took");
            w->locks_watch = 0;
        }
        if (left == HEIST__LEFT_FOR_GOOD) {
            heist__step_end(w, t);
            return;
        }
        if (w->commit(t, w->commit_arg)) return;
    }
}

/* ---- in place ----
 *
 * A task that awaits another, plainly, can go on only when that one has ended.  So the
 * other may stand on its stack, above its frames, as a call does: two switches, a stack
 * and the waking of the awaiter are saved.  Should it suspend, it leaves and comes back
 * with the frames below it, on any worker, and those below cannot be wanted before it
 * has ended: a cancel request for the awaiter goes on to the awaited, and a wait that
 * can end otherwise (a deadline) does not come here.
 *
 *   coro      shared by all that stand on the stack; only the topmost is ever entered
 *   task      self->task is the topmost
 *   deque     f is taken as by a pop, so nobody else runs it; one that has begun
 *             before (and was woken again) has a stack of its own, and goes back
 *
 * The request for cancelling: `awaiting` is stored before the pop, which is a full
 * barrier (alone: the store is), and `cancel` is looked at after it; as in commit_await.
 *
 * A task begins with the floating-point control words of its thread, not its awaiter's:
 * where these differ it does not run here; what it changes goes with it.
 *
 * Room.  The awaited has what it asked for; one of the runtime's usual size at least
 * three quarters of it.  Turns.  What runs in place counts as a step of the turn. */

static bool room_for(heist_task *t, heist_task *f) {
    size_t room = (size_t)((char *)__builtin_frame_address(0) - t->coro->stack->lo);
    size_t need = (size_t)f->stack_kib * 1024;
    return room >= (f->stack_kib == f->rt->stack_kib ? need - need / 4 : need);
}

/* Never inlined: inspect/stack.c tells by its frames whose the others are. */
HEIST_NOINLINE bool heist__run_in_place(struct heist__self *self, heist_task *t, heist_task *f) {
    struct heist__worker *w = self->worker;
    uint64_t fp;
    /* rlx, as the next: our own deque; the pop decides. */
    if (!w->in_place || t->pinned || !heist__deque_newest_is(&w->stack, f)) return false;
    /* Each step of its own, where each is looked at.  rlx: a setting */
    if (heist_unlikely(a_load_rlx(&w->loop->debug)) || !room_for(t, f)) return false;
    if (heist_unlikely((fp = heist__ctx_fp()) != heist__ctx_fp_of(w->host.sp))) return false;
    if (heist_unlikely(heist__coro_in_exception(&w->host))) return false; /* it would find its awaiter's */
    if (w->alone) {
        a_store_sc(&t->awaiting, f);
        heist__deque_pop_alone(&w->stack);
    } else {
        a_store_before_rmw(&t->awaiting, f);
        if (!heist__deque_pop(&w->stack)) return false; /* a thief was first */
    }
    if (heist_unlikely(f->coro != NULL)) {
        heist__deque_push(&w->stack, f); /* there is room: it stood there */
        return false;
    }
    heist__cancel_look(t);
    if (heist_unlikely(a_load_rlx(&f->cancel) & HEIST__CANCEL_PENDING) && heist__cancel_take(f)) { /* rlx: a look */
        f->code = -ECANCELED;
    } else {
        w->in_place--;
        a_store_rlx(&w->tick, a_load_rlx(&w->tick) + 1); /* rlx: a count; only we write it */
        f->budget = HEIST__TASK_BUDGET;
        /* While the stack is in use one of those that stand on it says so, and one that has no turn yet, or had it, is
         * not found there: whoever looks at it (inspect/stack.c) relies on that.  rel: keeps the order of the three;
         * pairs with that look.  The compiler keeps that of the first two, and so does x86. */
        a_store_rlx(&f->running, 1);
        __asm__ volatile("" ::: "memory");
        f->coro = t->coro;
        a_store_rel(&t->running, 0);
        self->task = f;
        run_body(f);
        self = heist__self(); /* another thread, perhaps */
        if (heist_unlikely(heist__ctx_fp() != fp)) heist__ctx_set_fp(fp);
        a_store_rlx(&t->running, 1); /* rlx, rel: as above */
        f->coro = NULL;
        a_store_rel(&f->running, 0);
    }
    self->task = NULL;
    end(self->worker, f);
    self->task = t;
    a_store_rlx(&t->awaiting, NULL); /* rlx: only a hint to cancellers, who look twice */
    return true;
}

/* ---- all tasks ---- */

struct listing {
    heist_runtime *rt;
    heist_loop *loop;
    heist_task **list;
    size_t count, room;
    bool failed;
};

static bool collect(void *object, void *arg) {
    struct listing *l = arg;
    heist_future *f = object;
    if (!heist__future_try_ref(f)) return true;
    bool wanted = heist__is_task(f) && f->rt == l->rt && (!l->loop || f->loop == l->loop);
    if (!wanted || heist__future_is_done(f)) {
        heist_unref(f);
        return true;
    }
    if (l->count == l->room) {
        size_t room = l->room ? l->room * 2 : 64;
        heist_task **more = heist__realloc(l->list, room * sizeof(*more));
        if (!more) {
            heist_unref(f);
            l->failed = true;
            return false;
        }
        l->list = more;
        l->room = room;
    }
    l->list[l->count++] = f;
    return true;
}

static int list_tasks(heist_runtime *rt, heist_loop *loop, heist_task ***out, size_t *count) {
    if (!out || !count) return -EINVAL;
    struct listing l = {.rt = rt, .loop = loop};
    heist__slab_each(HEIST__SLAB_FUTURE, collect, &l);
    if (l.failed) {
        heist_task_list_free(l.list, l.count);
        return -ENOMEM;
    }
    *out = l.list;
    *count = l.count;
    return 0;
}

int heist_all_tasks(heist_loop *loop, heist_task ***out, size_t *count) {
    if (!loop) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    if (a_load_acq(&loop->closed)) return HEIST_ECLOSED; /* acq: pairs with shut */
    return list_tasks(loop->rt, loop, out, count);
}

int heist_runtime_all_tasks(heist_runtime *rt, heist_task ***out, size_t *count) {
    if (!rt) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    return list_tasks(rt, NULL, out, count);
}

void heist_task_list_free(heist_task **list, size_t count) {
    for (size_t i = 0; i < count; i++) heist_unref(list[i]);
    heist__free(list);
}
