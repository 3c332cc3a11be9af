/* Generators: a body on a stack of its own, driven by hand; and iterators, which have no body.
 *
 * A step is a switch from the stack of whoever drives to the body's, and one back.  The body runs as part of the
 * driver: in a task the two stacks stand one on the other, as frames do.  When the body suspends, the task leaves with
 * both: the task's coroutine is told that the body's stack is the one on top (heist__coro_push), so that the worker
 * enters and leaves that one, and the driver's frames wait below, in the middle of their step.  So everything of the
 * task is everywhere as in a plain call: who is current, where a cancel request arrives, what overflows, who moves.
 * Generators within generators, and tasks that run in place on one's stack, nest likewise, and end in the opposite
 * order.  Between two steps the body's stack is nobody's, and the next driver may be another task or thread.
 *
 *   CREATED ──step: claim──> RUNNING ──body yields──> SUSPENDED ──step: claim──> RUNNING …
 *      │                        └──body returns──> CLOSED
 *      └──close, throw──> CLOSED
 *
 *   claim     one compare-and-swap, acquire: who finds RUNNING gets -EBUSY, be it the body itself or another thread.
 *             It is half of what a step costs; UNSHARED does with a load and a store, for the caller orders the drivers
 *   yield     the driver, back on its own stack, stores SUSPENDED with release; so nobody enters a stack that is
 *             still being left, and the next driver, on any thread, sees all that the body wrote
 *   all other fields belong to whoever holds RUNNING, or the last reference */
#include "flow/generator.h"

#include <heist/error.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "base/fork.h"
#include "base/log.h"
#include "base/options.h"
#include "conc/self.h"
#include "coro/coro.h"
#include "sched/sched.h"

#define DEFAULT_STACK ((size_t)64 << 10)

struct heist_generator {
    _Atomic(int) state;
    int code;     /* thrown into the body; its outcome when it has ended */
    void *passed; /* the value of the yield, or of the send; the return value when it has ended */
    struct heist__coro *coro;
    struct heist__host host; /* where the driver stands, while RUNNING */
    heist_task *driver;      /* for the check of a contract */

    /* birth */
    const heist_iterator_ops *ops; /* NULL: it has a body */
    heist_generator_fn fn;
    int (*unbegun)(void *arg); /* or NULL */
    void *arg; /* or the iterator's state */
    heist_free_fn arg_free, result_free;
    size_t stack_bytes;
    bool unshared;

    _Atomic(uint32_t) refs;
};

/* Stacks of bodies that live: when the last goes on a thread of no runtime, nobody else would give the memory back. */
static _Atomic(size_t) stacks_out;

/* ---- birth ---- */

static int make(heist_generator **out) {
    if (heist__fork_guard()) return -ENOMEM;
    if (heist__forked()) return HEIST_EFORKED;
    heist_generator *g = heist__zalloc(sizeof(*g));
    if (!g) return -ENOMEM;
    a_store_rlx(&g->refs, 1); /* rlx, as the next: not published yet */
    a_store_rlx(&g->state, HEIST_GENERATOR_CREATED);
    *out = g;
    return 0;
}

int heist_generator_new(heist_generator_fn fn, void *arg, const heist_generator_options *opts, heist_generator **out) {
    static const heist_generator_options defaults = HEIST_GENERATOR_OPTIONS_INIT;
    if (!fn || !out || !heist__options_ok(opts, sizeof(*opts))) return -EINVAL;
    if (!opts) opts = &defaults;
    if ((opts->flags & ~HEIST_GENERATOR_UNSHARED) ||
        (opts->stack_bytes && (opts->stack_bytes < HEIST__STACK_MIN || opts->stack_bytes > HEIST__STACK_MAX)))
        return -EINVAL;
    heist_generator *g;
    int err = make(&g);
    if (err) return err;
    g->fn = fn;
    g->arg = arg;
    g->arg_free = opts->arg_free;
    g->result_free = opts->result_free;
    g->unshared = opts->flags & HEIST_GENERATOR_UNSHARED;
    g->stack_bytes = opts->stack_bytes ? opts->stack_bytes : DEFAULT_STACK;
    *out = g;
    return 0;
}

int heist_generator_of(const heist_iterator_ops *ops, void *state, heist_generator **out) {
    if (!ops || !out || !heist__options_ok(ops, sizeof(*ops)) || !ops->next) return -EINVAL;
    heist_generator *g;
    int err = make(&g);
    if (err) return err;
    g->ops = ops;
    g->arg = state;
    *out = g;
    return 0;
}

void heist__generator_unbegun(heist_generator *g, int (*fn)(void *arg)) { g->unbegun = fn; }

/* ---- the claim ---- */

/* 0, and *was tells what it was before; CLOSED is left as it is.  Or -EBUSY. */
static inline int claim(heist_generator *g, int *was) {
    int s = a_load_acq(&g->state); /* acq: who finds it CLOSED has seen its end; else the cas decides */
    do {
        if (heist_unlikely(s == HEIST_GENERATOR_RUNNING)) return -EBUSY;
        if (heist_unlikely(s == HEIST_GENERATOR_CLOSED)) break;
        if (g->unshared) {
            a_store_rlx(&g->state, HEIST_GENERATOR_RUNNING); /* rlx: the caller orders the drivers */
            break;
        }
    } while (!a_cas_acq(&g->state, &s, HEIST_GENERATOR_RUNNING)); /* acq: pairs with release */
    *was = s;
    return 0;
}

static inline void release(heist_generator *g, int state) {
    a_store_rel(&g->state, state); /* rel: pairs with claim, and with those who ask */
}

/* ---- the end ---- */

/* In the state RUNNING: the outcome stands from here on.  Returns what the call in which it ended says. */
static HEIST_NOINLINE int ended(heist_generator *g, int code, void *value) {
    if (code == HEIST_ESTOP) code = HEIST_EFAILED;
    if (code > 0) code = 0;
    if (code && value && g->result_free) {
        heist__destruct(g->result_free, value); /* a failed body's result is nobody's */
    }
    if (g->arg_free) heist__destruct(g->arg_free, g->arg);
    g->arg_free = NULL;
    g->code = code;
    g->passed = code ? NULL : value;
    release(g, HEIST_GENERATOR_CLOSED);
    return code ? code : HEIST_ESTOP;
}

static void put_stack(heist_generator *g) {
    struct heist__stack *stack = g->coro->stack;
    heist__coro_free(g->coro);
    g->coro = NULL;
    struct heist__worker *w = heist__self()->worker;
    heist__stack_put(w ? &w->stacks : NULL, stack);
    if (a_sub_sc(&stacks_out, 1) == 1 && !w) heist__stack_pool_release(); /* does nothing while others use it */
}

static HEIST_NOINLINE int body_returned(heist_generator *g) {
    if (heist_unlikely(heist__forked())) return HEIST_EFORKED; /* the pool's lock may be held by one who is not here */
    put_stack(g);
    return ended(g, g->code, g->passed);
}

/* ---- a step ---- */

static void body(void *payload) {
    heist_generator *g = payload;
    void *value = NULL;
    int code = g->fn(g, g->arg, &value);
    g->code = code;
    g->passed = value;
    heist__coro_exit(&g->host, g->coro, NULL);
}

static HEIST_NOINLINE int give_stack(heist_generator *g) {
    struct heist__worker *w = heist__self()->worker;
    struct heist__stack *stack;
    int err = heist__stack_get(w ? &w->stacks : NULL, g->stack_bytes, &stack);
    if (err) return err;
    a_add_sc(&stacks_out, 1);
    g->coro = heist__coro_new(stack, body);
    return 0;
}

/* In the state RUNNING, with a stack.  0: it stands at a yield, and is SUSPENDED. */
static inline int resume(heist_generator *g, int code, void *sent, void **out) {
    struct heist__coro *c = g->coro;
    heist_task *t = heist__self()->task;
    void *left;
    g->code = code;
    g->passed = sent;
    g->driver = t;
    if (t) {
        struct heist__coro *root = t->coro;
        struct heist__coro_below below;
        heist__coro_push(root, c, &below);
        left = heist__coro_enter_nested(&g->host, c, g);
        heist__coro_pop(root, &below); /* on another thread, perhaps; the task is the same */
    } else {
        left = heist__coro_enter_nested(&g->host, c, g);
    }
    if (heist_unlikely(!left)) return body_returned(g);
    if (out) *out = g->passed;
    release(g, HEIST_GENERATOR_SUSPENDED);
    return 0;
}

/* The caller stands on the body's stack. */
static inline bool in_body(const heist_generator *g) {
    if (heist_unlikely(!g->coro)) return false;
    struct heist__stack *stack = g->coro->stack;
    char *here = __builtin_frame_address(0);
    return (size_t)(here - stack->lo) < (size_t)((char *)heist__stack_top(stack) - stack->lo);
}

int heist_generator_yield(heist_generator *g, void *value, void **sent) {
    if (heist_unlikely(!g || !in_body(g))) return -EINVAL;
    struct heist__coro *c = g->coro;
    if (heist_unlikely(heist__forked())) return HEIST_EFORKED;
    heist__check(g->driver == heist__self()->task);
    g->passed = value;
    heist__coro_leave_nested(&g->host, c, g);
    int code = g->code;
    if (sent && !code) *sent = g->passed;
    return code;
}

/* ---- iterators ---- */

static int iterator_ended(heist_generator *g, int code, void *value) {
    if (code != HEIST_ESTOP && g->ops->close) {
        int err = g->ops->close(g->arg);
        if (code == HEIST_EGENEXIT && err < 0) code = err; /* asked to close, and that is what failed */
    }
    return code == HEIST_ESTOP ? ended(g, 0, value) : ended(g, code, NULL);
}

static HEIST_NOINLINE int iterate(heist_generator *g, int was, int code, void *sent, void **out) {
    if (code) return iterator_ended(g, code == HEIST_ESTOP ? HEIST_EFAILED : code, NULL); /* not its own end */
    void *value = NULL;
    int err = sent ? -ENOTSUP : g->ops->next(g->arg, &value);
    if (err >= 0) {
        if (out) *out = value;
        release(g, HEIST_GENERATOR_SUSPENDED);
        return 0;
    }
    if (sent || err == HEIST_ENOTINCORO) { /* it was not asked, or could not answer here: as it was */
        release(g, was);
        return err;
    }
    return iterator_ended(g, err, value);
}

/* ---- driving ---- */

/* CREATED, with a body, which will not run. */
static HEIST_NOINLINE int never_began(heist_generator *g, int code) {
    int err = g->unbegun ? g->unbegun(g->arg) : 0;
    if (code == HEIST_EGENEXIT && err < 0) code = err; /* as of an iterator's close */
    return ended(g, code, NULL);
}

/* CREATED or an iterator; otherwise as drive. */
static HEIST_NOINLINE int drive_slow(heist_generator *g, int was, int code, void *sent, void **out) {
    if (g->ops) return iterate(g, was, code, sent, out);
    if (code) return never_began(g, code);
    int err = sent ? HEIST_ENOTSTARTED : give_stack(g);
    if (err) {
        release(g, HEIST_GENERATOR_CREATED);
        return err;
    }
    return resume(g, 0, NULL, out);
}

static inline int drive(heist_generator *g, int code, void *sent, void **out) {
    int was;
    if (heist_unlikely(!g)) return -EINVAL;
    if (heist_unlikely(heist__forked())) return HEIST_EFORKED;
    int err = claim(g, &was);
    if (heist_unlikely(err)) return err;
    if (heist_unlikely(was == HEIST_GENERATOR_CLOSED)) return code ? code : HEIST_ESTOP;
    if (heist_unlikely(!g->coro)) return drive_slow(g, was, code, sent, out);
    return resume(g, code, sent, out);
}

int heist_generator_next(heist_generator *g, void **out) { return drive(g, 0, NULL, out); }

int heist_generator_send(heist_generator *g, void *value, void **out) { return drive(g, 0, value, out); }

int heist_generator_throw(heist_generator *g, int code, void **out) {
    return code < 0 ? drive(g, code, NULL, out) : -EINVAL;
}

int heist_generator_close(heist_generator *g) {
    int was;
    if (!g) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    int err = claim(g, &was);
    if (err || was == HEIST_GENERATOR_CLOSED) return err;
    if (g->ops)
        err = iterator_ended(g, HEIST_EGENEXIT, NULL);
    else if (g->coro)
        err = resume(g, HEIST_EGENEXIT, NULL, NULL);
    else err = never_began(g, HEIST_EGENEXIT);
    if (!err) return HEIST_EIGNOREDCLOSE;
    return err == HEIST_EGENEXIT || err == HEIST_ESTOP ? 0 : err;
}

/* ---- references ---- */

heist_generator *heist_generator_ref(heist_generator *g) {
    if (g) a_add_rlx(&g->refs, 1); /* rlx: the caller holds one */
    return g;
}

/* Its frames stay as they are: what they own is lost, the stack is not. */
static HEIST_COLD void abandon(heist_generator *g) {
    static const char message[] = "a generator was dropped and yielded instead of ending: its frames are dropped";
    struct heist__self *self = heist__self();
    if (self->loop) {
        heist_report report = HEIST_REPORT_INIT;
        report.message = message;
        report.code = HEIST_EIGNOREDCLOSE;
        heist__loop_report(self->loop, &report);
    } else {
        heist__log(HEIST__LOG_WARNING, "%s", message);
    }
    put_stack(g);
    ended(g, HEIST_EIGNOREDCLOSE, NULL);
}

/* The last reference of one that is suspended: closes it as a destructor. */
static HEIST_COLD void close_dropped(heist_generator *g) {
    heist__check(a_load_rlx(&g->state) != HEIST_GENERATOR_RUNNING); /* rlx: a contract: who drives it holds it */
    heist_task *t = heist__self()->task;
    heist__self()->task = NULL;
    a_store_rlx(&g->refs, 1); /* rlx: nobody else has it; the body may take one, and give it back */
    release(g, HEIST_GENERATOR_RUNNING);
    if (!resume(g, HEIST_EGENEXIT, NULL, NULL)) abandon(g);
    heist__self()->task = t;
}

void heist_generator_unref(heist_generator *g) {
    if (!g || a_sub_ar(&g->refs, 1) != 1) return; /* ar: as every last reference */
    if (heist_unlikely(heist__forked())) { /* a body that stands in it, and its stack, are the parent's */
        heist__free(g);
        return;
    }
    if (g->coro) {
        close_dropped(g);
        if (a_sub_ar(&g->refs, 1) != 1) return; /* the body gave a reference to somebody */
    }
    if (g->ops && g->ops->free) heist__destruct(g->ops->free, g->arg);
    if (g->arg_free) heist__destruct(g->arg_free, g->arg);
    /* rlx: the last reference ordered it */
    bool closed = a_load_rlx(&g->state) == HEIST_GENERATOR_CLOSED;
    if (closed && g->passed && g->result_free) heist__destruct(g->result_free, g->passed);
    heist__free(g);
}

/* ---- asking ---- */

int heist_generator_state(const heist_generator *g) {
    if (!g) return -EINVAL;
    return a_load_acq(&((heist_generator *)(uintptr_t)g)->state); /* acq: pairs with release */
}

int heist_generator_kind(const heist_generator *g) {
    if (!g) return -EINVAL;
    return g->ops ? HEIST_GENERATOR_ITERATOR : HEIST_GENERATOR_BODY;
}

int heist_generator_result(heist_generator *g, void **out) {
    if (!g) return -EINVAL;
    if (heist_generator_state(g) != HEIST_GENERATOR_CLOSED) return HEIST_EINVALSTATE;
    if (!g->code && out) *out = g->passed;
    return g->code;
}

/* ---- built on it ---- */

int heist_generator_delegate(heist_generator *self, heist_generator *inner, void **result) {
    if (!self || !inner || !in_body(self)) return -EINVAL;
    void *value = NULL;
    int err = heist_generator_next(inner, &value);
    while (!err) {
        void *sent = NULL;
        int code = heist_generator_yield(self, value, &sent);
        if (!code) {
            err = heist_generator_send(inner, sent, &value);
        } else if (code == HEIST_EGENEXIT) {
            err = heist_generator_close(inner);
            return err ? err : HEIST_EGENEXIT;
        } else {
            err = heist_generator_throw(inner, code, &value);
        }
    }
    if (err != HEIST_ESTOP) return err;
    if (heist_generator_result(inner, &value)) value = NULL; /* it had ended before, without one */
    if (result) *result = value;
    return 0;
}

int heist_foreach_next(heist_foreach_state *s, void **value) {
    *s->err = heist_generator_next(s->generator, value);
    return *s->err == 0;
}

void heist_foreach_end(heist_foreach_state *s) {
    /* Also when *err says that it has ended: that may be what a loop within this one has left there. */
    int err = heist_generator_close(s->generator);
    if (err && !*s->err) *s->err = err;
}

int heist_generator_collect(heist_generator *g, heist_filter_fn keep, void *arg, void ***out, size_t *count) {
    if (!g || !out || !count) return -EINVAL;
    void **values = NULL, *value = NULL;
    size_t n = 0, room = 0;
    int err;
    while (!(err = heist_generator_next(g, &value))) {
        int wanted = keep ? keep(value, arg) : 1;
        if (wanted < 0) err = wanted;
        if (wanted <= 0 && !err) continue;
        if (!err && n == room) {
            size_t more = room ? room * 2 : 16;
            void **grown = heist__realloc(values, more * sizeof(*grown));
            if (grown) {
                values = grown;
                room = more;
            } else {
                err = -ENOMEM;
            }
        }
        if (err) break;
        values[n++] = value;
    }
    if (err != HEIST_ESTOP) {
        heist_generator_close(g); /* where somebody else drives it, it is his */
        heist__free(values);
        return err;
    }
    if (!values && !(values = heist__alloc(sizeof(*values)))) return -ENOMEM; /* empty, and still an array */
    *out = values;
    *count = n;
    return 0;
}

void heist_values_free(void **values) { heist__free(values); }

/* ---- the array ---- */

struct array {
    void *const *values;
    size_t left;
};

static int array_next(void *state, void **out) {
    struct array *a = state;
    if (!a->left) return HEIST_ESTOP;
    a->left--;
    *out = *a->values++;
    return 0;
}

static const heist_iterator_ops array_ops = {sizeof(heist_iterator_ops), array_next, NULL, heist__free};

int heist_generator_of_array(void *const *values, size_t n, heist_generator **out) {
    if ((!values && n) || !out) return -EINVAL;
    struct array *a = heist__alloc(sizeof(*a));
    if (!a) return -ENOMEM;
    a->values = values;
    a->left = n;
    int err = heist_generator_of(&array_ops, a, out);
    if (err) heist__free(a);
    return err;
}
