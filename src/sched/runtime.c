/* A runtime put together and taken apart; the doors to it; heist_run.
 *
 * Its memory: one reference for the users' handles together, one while its threads run,
 * and one for each waker from outside, whose task may end the runtime before the waker
 * has looked whom to wake.  A task that is not done keeps the threads running, so it and
 * its own workers may use the runtime freely. */
#include <heist/runtime.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "base/fork.h"
#include "base/options.h"
#include "base/sys.h"
#include "conc/parker.h"
#include "coro/overflow.h"
#include "mem/slab.h"
#include "sched/cpus.h"
#include "sched/sched.h"
#include "sched/sigint.h"
#include "loop/handle.h"
#include "loop/reg.h"
#include "task/context.h"
#include "task/extra.h"

#define DEFAULT_STACK ((size_t)64 << 10)
#define MAX_WORKERS 1024
#define KNOWN_FLAGS                                                                                                    \
    (HEIST_RUNTIME_OVERFLOW_HANDLER | HEIST_RUNTIME_NO_OVERFLOW_HANDLER | HEIST_RUNTIME_VIRTUAL_TIME |                 \
     HEIST_RUNTIME_DEBUG | HEIST_RUNTIME_SPARE_THREAD | HEIST_RUNTIME_NO_DEBUG)

static void on_thread_exit(struct heist__self *self) {
    heist_loop_unref(self->event_loop);
    self->event_loop = NULL;
    heist__free(self->failure);
    self->failure = NULL;
    heist__scope_thread_exit(self);
    heist__slab_flush(self);
}

/* In a signal handler, on the thread whose task overflowed: only what cannot block. */
static size_t describe_overflow(struct heist__stack *s, char *buf, size_t n) {
    heist_task *t = heist__self_body(heist__self());
    if (!t || !t->coro || t->coro->stack != s) return 0;
    const char *own = heist__extra_name(t);
    int length = own ? snprintf(buf, n, "task '%s' (made at %s:%u)", own, t->file, t->line)
                     : snprintf(buf, n, "task Task-%llu (made at %s:%u)", (unsigned long long)heist__task_number(t),
                                t->file, t->line);
    return length < 0 ? 0 : (size_t)length < n ? (size_t)length : n - 1;
}

/* All there are, the oldest first, for who wants to look at everything. */
static struct heist__spin runtimes_lock;
static struct heist__link runtimes;

heist_runtime *heist__runtime_after(heist_runtime *last) {
    heist_runtime *rt = NULL;
    heist__spin_lock(&runtimes_lock);
    struct heist__link *at = last ? last->link.next : runtimes.next;
    for (; !rt && at && at != &runtimes; at = at->next) {
        rt = heist__list_entry(at, heist_runtime, link);
        uint64_t n = a_load_rlx(&rt->refs); /* rlx: it cannot go while it is linked; the cas decides */
        while (n && !a_cas_ar(&rt->refs, &n, n + 1)) continue;
        if (!n) rt = NULL; /* its last reference has gone, and it waits for the lock */
    }
    heist__spin_unlock(&runtimes_lock);
    if (last) heist__runtime_release(last);
    return rt;
}

static pthread_once_t setup_once = PTHREAD_ONCE_INIT;
static void setup(void) {
    heist__self_cleanup = on_thread_exit;
    a_store_rel(&heist__overflow_describe, describe_overflow); /* rel: pairs with the handler */
    heist__task_hooks.ready = heist__ready;
    heist__task_hooks.post = heist__loop_post_checked;
    heist__task_hooks.report = heist__loop_post_report;
    heist__list_init(&runtimes);
    heist__slab_setup(HEIST__SLAB_FUTURE, sizeof(heist_future));
    heist__slab_setup(HEIST__SLAB_HANDLE, sizeof(struct heist_handle));
    heist__slab_setup(HEIST__SLAB_TIMED, sizeof(struct heist__timed_handle));
    heist__slab_setup(HEIST__SLAB_LOOP, sizeof(heist_loop));
    heist__slab_setup(HEIST__SLAB_REG, sizeof(struct heist__reg));
}
__attribute__((constructor)) static void setup_at_load(void) { pthread_once(&setup_once, setup); }

static const heist_runtime_options default_options = HEIST_RUNTIME_OPTIONS_INIT;

/* The options of a program that was built before there was a monitor end here. */
#define FIRST_SIZE offsetof(heist_runtime_options, stuck_after)

int heist__runtime_read_options(const heist_runtime_options *from, heist_runtime_options *to) {
    *to = default_options;
    if (!from) return 0;
    bool first = from->size == FIRST_SIZE;
    if (!first && !heist__options_ok(from, sizeof(*from))) return -EINVAL;
    memcpy(to, from, first ? FIRST_SIZE : sizeof(*to));
    to->size = sizeof(*to);
    return 0;
}

#define FEEDS (HEIST_BACKEND_FEED_ACCEPT | HEIST_BACKEND_FEED_RECV)

/* io_uring or uring, with any of ,accept and ,recv behind it; all else is epoll. */
static int backend_named(const char *value) {
    if (!strncmp(value, "io_", 3)) value += 3;
    if (strncmp(value, "uring", 5) != 0) return HEIST_BACKEND_EPOLL;
    int backend = HEIST_BACKEND_IO_URING;
    for (value += 5; *value;) {
        size_t n = *value == ',' ? strcspn(value + 1, ",") : 0;
        if (n == 6 && !strncmp(value + 1, "accept", n)) backend |= HEIST_BACKEND_FEED_ACCEPT;
        else if (n == 4 && !strncmp(value + 1, "recv", n)) backend |= HEIST_BACKEND_FEED_RECV;
        else return HEIST_BACKEND_EPOLL;
        value += n + 1;
    }
    return backend;
}

/* What the options say, else the environment, else epoll. */
static void choose_backend(heist_runtime *rt, int backend) {
    const char *value = backend == HEIST_BACKEND_AUTO ? getenv("HEIST_BACKEND") : NULL;
    if (value) backend = backend_named(value);
    rt->uring = (backend & ~FEEDS) == HEIST_BACKEND_IO_URING;
    rt->feeds = (backend & HEIST_BACKEND_FEED_ACCEPT ? HEIST__FEED_ACCEPT : 0) |
                (backend & HEIST_BACKEND_FEED_RECV ? HEIST__FEED_RECV : 0);
}

static int check_options(const heist_runtime_options *o, bool alone) {
    if ((o->flags & ~KNOWN_FLAGS) || ((o->flags & HEIST_RUNTIME_DEBUG) && (o->flags & HEIST_RUNTIME_NO_DEBUG)))
        return -EINVAL;
    if (!(o->stuck_after >= 0) || (o->stuck_signal && !heist__where_signal_ok(o->stuck_signal))) return -EINVAL;
    if (alone && (o->stuck_after > 0 || (o->flags & HEIST_RUNTIME_SPARE_THREAD))) return -EINVAL;
    if ((o->backend & ~FEEDS) < HEIST_BACKEND_AUTO || (o->backend & ~FEEDS) > HEIST_BACKEND_IO_URING ||
        (o->backend & FEEDS && (o->backend & ~FEEDS) != HEIST_BACKEND_IO_URING))
        return -EINVAL;
    if (o->workers < 0 || o->workers > (alone ? 1 : MAX_WORKERS)) return -EINVAL;
    if (o->stack_bytes && (o->stack_bytes < HEIST__STACK_MIN || o->stack_bytes > HEIST__STACK_MAX)) return -EINVAL;
    return 0;
}

static void worker_destroy(struct heist__worker *w) {
    if (!w) return;
    heist__deque_destroy(&w->stack);
    heist__deque_destroy(&w->queue);
    heist__free(w);
}

static int worker_create(heist_runtime *rt, int index, struct heist__worker **out) {
    struct heist__worker *w = heist__aligned_alloc(HEIST_CACHE_LINE, sizeof(*w));
    if (!w) return -ENOMEM;
    memset(w, 0, sizeof(*w));
    w->rt = rt;
    w->index = index;
    w->spare = index >= rt->regular;
    w->alone = rt->workers == 1;
    w->random = 2463534242u + (uint32_t)index * 2654435761u;
    a_store_rlx(&w->keeps, HEIST__QUEUE_ALONE); /* rlx: not published yet */
    int err = heist__deque_init(&w->stack, 8);
    if (!err) err = heist__deque_init(&w->queue, 8);
    if (!err) err = heist__loop_create(rt, w, &rt->clock, w->spare ? &rt->spare_sleeps : &rt->sleepers,
                                      rt->uring, &w->loop);
    if (err) {
        worker_destroy(w);
        return err;
    }
    w->loop->poller.feeds = w->loop->poller.uring ? rt->feeds : 0;
    *out = w;
    return 0;
}

/* Memory only: every thread has left. */
static void destroy(heist_runtime *rt) {
    heist__spin_lock(&runtimes_lock);
    if (heist__list_linked(&rt->link)) heist__list_remove(&rt->link);
    heist__spin_unlock(&runtimes_lock);
    heist__end_default_executor(rt, 0); /* of one that was never closed */
    heist__end_resolver(rt);
    for (int i = 0; i < rt->workers; i++) {
        struct heist__worker *w = rt->worker[i];
        if (!w) continue;
        heist__stack_cache_flush(&w->stacks);
        if (!a_load_rlx(&w->loop->closed)) heist__loop_shut(w->loop); /* rlx: nobody else is left */
        heist__loop_release(w->loop);
        worker_destroy(w);
    }
    if (rt->flags & HEIST_RUNTIME_OVERFLOW_HANDLER) heist__overflow_uninstall();
    if (rt->stuck_signal) heist__where_uninstall(rt->stuck_signal);
    heist__cond_destroy(&rt->changed);
    heist__mutex_destroy(&rt->mutex);
    heist__free(rt->worker);
    heist__free(rt);
    bool last = heist__slab_leave(heist__self());
    heist__stack_pool_release();
    if (last) heist__parker_pool_release();
}

void heist__runtime_release(heist_runtime *rt) {
    if (a_sub_ar(&rt->refs, 1) == 1) destroy(rt); /* ar: as every last reference */
}

/* What the options say, else the environment. */
static bool debug_wanted(unsigned flags) {
    if (flags & (HEIST_RUNTIME_DEBUG | HEIST_RUNTIME_NO_DEBUG)) return flags & HEIST_RUNTIME_DEBUG;
    const char *value = getenv("HEIST_DEBUG");
    return value && *value && strcmp(value, "0") != 0;
}

int heist__runtime_create(const heist_runtime_options *opts, bool alone, bool inherited, heist_runtime **out) {
    if (!out) return -EINVAL;
    heist_runtime_options copy;
    int err = heist__runtime_read_options(opts, &copy);
    if (!err) err = check_options(&copy, alone);
    if (err) return err;
    opts = &copy;
    if (heist__fork_guard()) return -ENOMEM;
    if (heist__forked()) return HEIST_EFORKED;
    pthread_once(&setup_once, setup);
    heist_runtime *rt = heist__aligned_alloc(HEIST_CACHE_LINE, sizeof(*rt));
    if (!rt) return -ENOMEM;
    memset(rt, 0, sizeof(*rt));
    rt->regular = alone ? 1 : opts->workers ? opts->workers : heist__available_cpus();
    rt->flags = opts->flags;
    bool watched = !(rt->flags & HEIST_RUNTIME_VIRTUAL_TIME) &&
                   ((rt->flags & HEIST_RUNTIME_SPARE_THREAD) || opts->stuck_after > 0);
    rt->workers = rt->regular + watched;
    rt->stuck_after_ns = watched && opts->stuck_after > 0 ? heist__ns_from_seconds(opts->stuck_after) : INT64_MAX;
    rt->alone = alone;
    choose_backend(rt, opts->backend);
    rt->inherited = rt->fatal_ends = inherited;
    rt->stack_kib = heist__stack_kib(opts->stack_bytes ? opts->stack_bytes : DEFAULT_STACK);
    rt->max_tasks = opts->max_tasks;
    a_store_rlx(&rt->care, rt->max_tasks || (rt->flags & HEIST_RUNTIME_DEBUG)); /* rlx: not published yet */
    snprintf(rt->name, sizeof(rt->name), "%.9s", opts->name ? opts->name : "heist");
    heist__clock_init(&rt->clock, opts->flags & HEIST_RUNTIME_VIRTUAL_TIME, 0);
    a_store_rlx(&rt->users, 1); /* rlx, as the next: not published yet */
    a_store_rlx(&rt->refs, 1);
    a_store_rlx(&rt->acks, rt->workers);
    a_store_rlx(&rt->stuck_seen_ns, INT64_MIN / 2);
    heist__spin_init(&rt->virtual_lock);
    heist__mutex_init(&rt->mutex, false);
    heist__cond_init(&rt->changed);
    heist__list_init(&rt->link);
    heist__slab_enter();
    rt->worker = heist__zalloc((size_t)rt->workers * sizeof(*rt->worker));
    if (!rt->worker) {
        rt->workers = 0;
        err = -ENOMEM;
    }
    bool debug = debug_wanted(opts->flags);
    for (int i = 0; !err && i < rt->workers; i++) {
        err = worker_create(rt, i, &rt->worker[i]);
        if (err) break;
        heist_loop *loop = rt->worker[i]->loop;
        loop->alone = alone;
        loop->care = &rt->care;
        loop->max_inbox = opts->max_inbox;
        loop->handler = opts->exception_handler;
        loop->handler_user = opts->exception_user;
        int mode = (debug ? HEIST__DEBUG : 0) | (rt->stuck_after_ns != INT64_MAX ? HEIST__MONITORED : 0);
        a_store_rlx(&loop->debug, mode); /* rlx: not published yet */
    }
    if (!err && watched) rt->worker[rt->regular]->loop->home = rt->worker[0]->loop;
    int signal_number = rt->stuck_after_ns != INT64_MAX ? opts->stuck_signal : 0;
    if (!err && signal_number) err = heist__where_install(signal_number);
    if (!err) rt->stuck_signal = signal_number;
    if (!err && (rt->flags & HEIST_RUNTIME_OVERFLOW_HANDLER)) err = heist__overflow_install();
    if (err) {
        rt->flags &= ~HEIST_RUNTIME_OVERFLOW_HANDLER;
        destroy(rt);
        return err;
    }
    heist__inspect_from_environment();
    heist__spin_lock(&runtimes_lock);
    heist__list_push_back(&runtimes, &rt->link);
    heist__spin_unlock(&runtimes_lock);
    *out = rt;
    return 0;
}

/* ---- threads ---- */

/* Both handlers need the alternate stack: a coroutine's own may have no room for what they do. */
static void thread_init(struct heist__worker *w) {
    heist_runtime *rt = w->rt;
    if ((rt->flags & HEIST_RUNTIME_OVERFLOW_HANDLER) || rt->stuck_signal) heist__overflow_thread_init();
    if (rt->stuck_signal) heist__where_thread_init(&w->where, rt->stuck_signal);
}

static void thread_fini(struct heist__worker *w) {
    heist_runtime *rt = w->rt;
    if (rt->stuck_signal) heist__where_thread_fini(&w->where);
    if ((rt->flags & HEIST_RUNTIME_OVERFLOW_HANDLER) || rt->stuck_signal) heist__overflow_thread_fini();
}

static void *worker_main(void *arg) {
    struct heist__worker *w = arg;
    heist_runtime *rt = w->rt;
    char name[16];
    snprintf(name, sizeof(name), "%.9s/%d", rt->name, w->index % 10000);
    pthread_setname_np(pthread_self(), name);
    thread_init(w);
    heist__worker_enter(w);
    heist__worker_run(w);
    heist__worker_leave(w);
    thread_fini(w);
    heist__worker_left(rt);
    return NULL;
}

/* Starts workers first .. workers-1.  On failure those that run are stopped and joined. */
static int start_threads(heist_runtime *rt, int first) {
    sigset_t all, before;
    sigfillset(&all);
    /* Signals are the host's: no worker takes them from its threads.  Faults of our own stay. */
    static const int own[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGABRT};
    for (size_t i = 0; i < HEIST_ARRAY_LEN(own); i++) sigdelset(&all, own[i]);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int err = 0, i = first;
    a_add_rlx(&rt->refs, 1); /* rlx: the caller holds one; this one is the threads' */
    rt->threads = rt->workers;
    for (; i < rt->workers; i++) {
        err = heist__sys_thread_create(&rt->worker[i]->thread, NULL, worker_main, rt->worker[i]);
        if (err) break;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    rt->started = !err;
    if (!err) return 0;
    heist__mutex_lock(&rt->mutex);
    rt->threads -= rt->workers - i + first;
    heist__mutex_unlock(&rt->mutex);
    a_store_sc(&rt->closing, 1);
    a_store_sc(&rt->stopping, 1);
    for (int k = first; k < i; k++) heist__loop_wake(rt->worker[k]->loop);
    for (int k = first; k < i; k++) heist__sys_thread_join(rt->worker[k]->thread, NULL);
    if (i == first) heist__runtime_release(rt); /* otherwise the last thread has given it back */
    return err;
}

int heist_runtime_new(const heist_runtime_options *opts, heist_runtime **out) {
    return heist__runtime_start(opts, false, out);
}

int heist__runtime_start(const heist_runtime_options *opts, bool fatal_ends, heist_runtime **out) {
    heist_runtime *rt;
    int err = out ? heist__runtime_create(opts, false, false, &rt) : -EINVAL;
    if (err) return err;
    rt->fatal_ends = fatal_ends;
    err = start_threads(rt, 0);
    if (err) {
        heist__runtime_release(rt); /* nobody else knows it */
        return err;
    }
    *out = rt;
    return 0;
}

heist_runtime *heist_runtime_ref(heist_runtime *rt) {
    if (rt) a_add_rlx(&rt->users, 1); /* rlx: the caller holds one */
    return rt;
}

int heist_runtime_workers(const heist_runtime *rt) { return rt ? rt->regular : -EINVAL; }

heist_loop *heist_runtime_loop(heist_runtime *rt, int index) {
    return rt && index >= 0 && index < rt->regular ? rt->worker[index]->loop : NULL;
}

int heist_runtime_set_debug(heist_runtime *rt, int on) {
    if (!rt) return -EINVAL;
    for (int i = 0; i < rt->workers; i++) heist_loop_set_debug(rt->worker[i]->loop, on);
    return 0;
}

heist_runtime *heist_loop_runtime(heist_loop *loop) { return loop ? loop->rt : NULL; }

int heist_runtime_call_soon(heist_runtime *rt, heist_callback_fn fn, void *arg, const heist_call_options *opts,
                            heist_handle **out) {
    if (!rt) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    if (a_load_acq(&rt->closing)) return HEIST_ECLOSED; /* acq: an early answer; the inbox decides */
    struct heist__worker *w = heist__self()->worker;
    /* A burst goes to one loop after the other, 64 at a time, so that each is woken once. rlx: a count alone */
    unsigned n = w || rt->regular == 1 ? 0 : a_add_rlx(&rt->next_loop, 1) / 64;
    heist_loop *loop = w && w->rt == rt ? w->loop->home : rt->worker[n % (unsigned)rt->regular]->loop;
    return heist_loop_call_soon(loop, fn, arg, opts, out);
}

size_t heist_runtime_task_count(heist_runtime *rt) { return rt ? heist__live_tasks(rt) : 0; }

void heist__worker_counters(struct heist__worker *w, heist_worker_stats *out) {
    heist_loop *loop = w->loop;
    /* rlx: counters, each true for itself */
    out->steps = a_load_rlx(&w->tick);
    out->stolen = a_load_rlx(&w->stolen);
    out->callbacks = a_load_rlx(&loop->callbacks);
    out->timers = a_load_rlx(&loop->timers_fired);
    out->io_events = a_load_rlx(&loop->io_events);
    out->inbox = a_load_rlx(&loop->received) + a_load_rlx(&w->injected);
    out->sleeps = a_load_rlx(&w->sleeps);
    out->wakeups = a_load_rlx(&w->wakeups);
    out->queue = heist__deque_size(&w->stack) + heist__deque_size(&w->queue);
    out->busy_seconds = 0;
}

int heist_runtime_stats(heist_runtime *rt, int worker, heist_worker_stats *out) {
    if (!rt || !out || out->size < sizeof(*out) || worker < 0 || worker >= rt->workers) return -EINVAL;
    struct heist__worker *w = rt->worker[worker];
    heist_loop *loop = w->loop;
    heist__worker_counters(w, out);
    clockid_t clock;
    struct timespec ts;
    if (a_load_acq(&loop->running) && pthread_getcpuclockid(w->thread, &clock) == 0 && clock_gettime(clock, &ts) == 0)
        out->busy_seconds = (double)ts.tv_sec + (double)ts.tv_nsec / 1e9; /* acq above: the thread is known */
    return 0;
}

/* ---- heist_run ---- */

struct run_main {
    heist_coro_fn fn;
    void *arg;
    void *result;
    int code;
    int requests; /* to cancel it, until its end */
    bool ran;
    heist_runtime *rt;
};

static int run_main_body(void *arg, void **out) {
    (void)out;
    struct run_main *m = arg;
    m->ran = true;
    m->code = m->fn(m->arg, &m->result);
    m->requests = heist_cancelling(heist_current_task());
    return m->code;
}

/* Also when there was no stack for it, and it never ran. */
static void run_main_ended(void *arg) {
    struct run_main *m = arg;
    heist__closing_begin(m->rt);
}

int heist_run(heist_coro_fn main_fn, void *arg, const heist_runtime_options *opts, void **out) {
    if (!main_fn) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    struct heist__self *self = heist__self();
    if (self->worker || self->away) return HEIST_EOTHERRUNNING;
    heist_runtime_options o;
    if (heist__runtime_read_options(opts, &o)) return -EINVAL;
    if (!(o.flags & HEIST_RUNTIME_NO_OVERFLOW_HANDLER)) o.flags |= HEIST_RUNTIME_OVERFLOW_HANDLER;
    struct heist__sigint *sigint = NULL;
    int err = o.flags & HEIST_RUNTIME_SIGINT ? heist__sigint_make(&sigint) : 0;
    o.flags &= ~HEIST_RUNTIME_SIGINT;
    heist_runtime *rt;
    if (!err) err = heist__runtime_create(&o, false, true, &rt);
    if (err) {
        heist__sigint_end(sigint);
        return err;
    }
    struct heist__worker *w = rt->worker[0];
    w->thread = pthread_self();
    struct run_main m = {main_fn, arg, NULL, 0, 0, false, rt};
    heist_task_options task_opts = HEIST_TASK_OPTIONS_INIT;
    task_opts.arg_free = run_main_ended;
    heist_task *t = NULL;
    thread_init(w);
    heist__worker_enter(w);
    err = start_threads(rt, 1);
    bool started = !err;
    if (started) {
        heist__sigint_install(sigint, w->loop);
        struct heist__scope *scope = self->scope;
        if (!scope) self->scope = &self->own; /* main begins with the variables of this thread */
        err = heist__spawn(rt, w->loop, "heist_run", 0, run_main_body, &m, &task_opts, &t);
        self->scope = scope;
        if (err)
            heist__closing_begin(rt);
        else
            heist__sigint_target(sigint, t);
        heist__worker_run(w);
    }
    bool interrupted = heist__sigint_end(sigint);
    heist__worker_leave(w);
    thread_fini(w);
    if (started) {
        heist__worker_left(rt);
        heist__runtime_close(rt, HEIST_FOREVER, HEIST__EXECUTOR_SECONDS);
    }
    if (t) {
        int fatal = a_load_sc(&rt->fatal);
        err = fatal ? fatal : m.ran ? m.code : heist_future_result(t, NULL);
        heist_exception unused = HEIST_EXCEPTION_INIT;
        heist_future_exception(t, &unused); /* main's failure is told by the return value */
        if (!err && out) *out = m.result;
        if (interrupted && err == -ECANCELED && (!m.ran || m.requests == 1)) err = -EINTR;
    }
    heist_unref(t);
    heist_runtime_unref(rt);
    return err;
}
