/* Executors: pools of plain threads that run jobs, and the default one of a runtime.
 *
 * One short lock guards a pool: the queue of jobs, the idle threads, and all counts.
 *
 * A job     QUEUED ──a thread takes it──> TAKEN ──ran──> its future is completed
 *              └──future cancelled, or shutdown──> REMOVED: never runs
 *   Each step is made under the lock, by one party; whoever makes it frees the argument.  The job hangs a hook on its
 *   future, which tells of the cancellation.  A cancelled future whose job is TAKEN loses nothing: the thread finds it
 *   completed, and frees the result.  References of a job: the pool's (until it ran or was removed), the hook's, and
 *   the caller's in heist_to_thread.
 *
 * A thread  made ──initializer──> takes jobs ──none──> idle ──a job came──> takes jobs
 *                                     │                  └──idle too long──┐
 *                                     └──shut and none left, or broken─────┴──> leaving ──finalizer──> joined
 *   Idle threads stand in a list, the last one first, so that the others get old; a submitter takes one out and sets
 *   its word.  Only who took it out sets the word, and the thread waits until it is set, so the word may stand on its
 *   stack.
 *
 * An accepted job has a thread: jobs are appended only while threads > unsure (a thread lives whose making has
 * succeeded), and a thread leaves under the lock, and only when the queue is empty.  So a thread more that cannot be
 * made is no error.  The first one is made under `start`, by one submitter at a time, so that there are never more than
 * max_threads.
 *
 * Joining: a thread that leaves joins the one that left before it (`last`); the last of all is joined by who shuts the
 * pool down and waits, or by who frees the pool, and detaches itself when that is itself.  So nobody waits for a thread
 * that still works.
 *
 * Memory: the users' handles together hold one reference, each thread one, each hook one. */
#include <heist/context.h>
#include <heist/error.h>
#include <heist/executor.h>
#include <heist/future.h>
#include <heist/loop.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fork.h"
#include "base/list.h"
#include "base/options.h"
#include "base/sys.h"
#include "conc/mutex.h"
#include "conc/self.h"
#include "conc/spin.h"
#include "sched/cpus.h"
#include "sched/sched.h"
#include "sched/suspend.h"
#include "task/context.h"
#include "task/task.h"

#define MAX_THREADS 4096
#define DEFAULT_IDLE 10.0

enum { QUEUED, TAKEN, REMOVED };

struct job {
    struct heist__link link; /* in the queue */
    struct heist__waiter hook;
    heist_executor *pool; /* one reference, until the hook has run */
    heist_future *future; /* one reference, until it has ended */
    heist_coro_fn fn;
    void *arg;
    heist_free_fn arg_free, result_free;
    heist_context *context; /* in which it runs, a reference; or NULL: the thread's own */
    heist_runtime *holds; /* whose virtual time stands meanwhile, or NULL; one reference to its memory */
    int64_t since;        /* when it was handed in */
    int state;            /* under the lock */
    _Atomic(int) refs;
};

/* On its own stack. */
struct thread {
    struct heist__link link; /* among the idle, or in the list of who took it out */
    bool idle;               /* among the idle; under the lock */
    _Atomic(uint32_t) word;  /* set by who took it out */
};

struct heist_executor {
    /* birth */
    int max_threads;
    size_t max_queue, stack_bytes;
    int64_t idle_ns;
    char name[10];
    int (*initializer)(void *user);
    void (*finalizer)(void *user);
    void *user;
    heist_future *quiet; /* done when it is shut down and no job is left */
    heist_future *gone;  /* done when it is shut down and no thread is left */

    _Atomic(uint32_t) users; /* handles */
    _Atomic(size_t) refs;    /* of the memory */
    struct heist__mutex start; /* one makes the first thread */
    struct heist__mutex end;   /* with `left`: gone is done; for plain threads, which need no memory to wait so */
    struct heist__cond left;

    struct heist__spin lock; /* guards what follows */
    struct heist__link queue, idle;
    size_t queued, running;
    int idle_count;
    int threads; /* that take jobs; those being made are counted */
    int unsure;  /* makings whose outcome is not known */
    bool fresh;  /* the first thread was made, and no job has been counted on it */
    int leaving;
    unsigned number; /* of the next thread's name */
    bool shut;
    int broken; /* the code of the initializer */
    bool has_last;
    pthread_t last; /* has left, and was not joined */
    uint64_t done, cancelled;
    int64_t longest_ns;
};

/* ---- life ---- */

static void release(heist_executor *e) {
    if (a_sub_ar(&e->refs, 1) != 1) return; /* ar: as every last reference */
    /* Its last thread has given its reference back, and does nothing more. */
    if (e->has_last && pthread_equal(e->last, pthread_self()))
        pthread_detach(e->last);
    else if (e->has_last)
        heist__sys_thread_join(e->last, NULL);
    heist_unref(e->quiet);
    heist_unref(e->gone);
    heist__cond_destroy(&e->left);
    heist__mutex_destroy(&e->end);
    heist__mutex_destroy(&e->start);
    heist__free(e);
}

/* Whether the system makes threads with such a stack. */
static bool stack_ok(size_t bytes) {
    pthread_attr_t attributes;
    if (!bytes) return true;
    if (pthread_attr_init(&attributes)) return false;
    bool ok = pthread_attr_setstacksize(&attributes, bytes) == 0;
    pthread_attr_destroy(&attributes);
    return ok;
}

static const heist_executor_options default_options = HEIST_EXECUTOR_OPTIONS_INIT;

int heist_executor_new(const heist_executor_options *opts, heist_executor **out) {
    if (!opts) opts = &default_options;
    if (!out || !heist__options_ok(opts, sizeof(*opts)) || opts->flags) return -EINVAL;
    if (opts->max_threads < 0 || opts->max_threads > MAX_THREADS || !(opts->idle_seconds >= 0)) return -EINVAL;
    if (!stack_ok(opts->stack_bytes)) return -EINVAL;
    if (heist__fork_guard()) return -ENOMEM;
    if (heist__forked()) return HEIST_EFORKED;
    heist_executor *e = heist__zalloc(sizeof(*e));
    if (!e) return -ENOMEM;
    int err = heist_future_new(NULL, &e->gone);
    if (!err) err = heist_future_new(NULL, &e->quiet);
    if (err) {
        heist_unref(e->gone);
        heist__free(e);
        return err;
    }
    int cpus = heist__available_cpus();
    e->max_threads = opts->max_threads ? opts->max_threads : cpus + 4 < 32 ? cpus + 4 : 32;
    e->max_queue = opts->max_queue ? opts->max_queue : SIZE_MAX;
    e->stack_bytes = opts->stack_bytes;
    e->idle_ns = heist__ns_from_seconds(opts->idle_seconds > 0 ? opts->idle_seconds : DEFAULT_IDLE);
    snprintf(e->name, sizeof(e->name), "%.9s", opts->name ? opts->name : "pool");
    e->initializer = opts->initializer;
    e->finalizer = opts->finalizer;
    e->user = opts->user;
    a_store_rlx(&e->users, 1); /* rlx, as the next: not published yet */
    a_store_rlx(&e->refs, 1);
    heist__mutex_init(&e->start, false);
    heist__mutex_init(&e->end, false);
    heist__cond_init(&e->left);
    heist__spin_init(&e->lock);
    heist__list_init(&e->queue);
    heist__list_init(&e->idle);
    *out = e;
    return 0;
}

heist_executor *heist_executor_ref(heist_executor *e) {
    if (e) a_add_rlx(&e->users, 1); /* rlx: the caller holds one */
    return e;
}

/* ---- jobs ---- */

static void job_unref(struct job *j) {
    if (a_sub_ar(&j->refs, 1) == 1) heist__free(j); /* ar: as every last reference */
}

/* Under the lock: no job is left, and none comes. */
static bool all_quiet(heist_executor *e) { return e->shut && !e->queued && !e->running; }

/* Before the last job lets go of its virtual time.  The caller has a reference. */
static void say_quiet(heist_executor *e) { heist_future_set_result(e->quiet, NULL, NULL); /* may be done already */ }

/* Its virtual time goes on, when it was the last. */
static void let_go(heist_runtime *rt) {
    if (!rt) return;
    /* sc: the look before the clock moves sees it, or we see that one asleep */
    if (a_sub_sc(&rt->jobs_outside, 1) == 1) heist__loop_wake(rt->worker[0]->loop);
    heist__runtime_release(rt);
}

/* What it kept for its run, which is over or will not be. */
static void job_spent(struct job *j) {
    if (j->arg_free) heist__destruct(j->arg_free, j->arg);
    heist_context_unref(j->context);
}

/* The last that happens to it. */
static void job_ended(struct job *j) {
    heist_unref(j->future);
    let_go(j->holds);
    job_unref(j);
}

/* It will not run: state is REMOVED, and the future not completed by a thread. */
static void job_removed(struct job *j) {
    job_spent(j);
    heist_cancel(j->future); /* done already, when that is why */
    job_ended(j);
}

/* Takes it out of the queue; false when it runs, or ran, or was taken out. */
static bool job_take_out(struct job *j) {
    heist_executor *e = j->pool;
    heist__spin_lock(&e->lock);
    bool mine = j->state == QUEUED;
    if (mine) {
        heist__list_remove(&j->link);
        j->state = REMOVED;
        e->queued--;
        e->cancelled++;
    }
    bool quiet = mine && all_quiet(e);
    heist__spin_unlock(&e->lock);
    if (quiet) say_quiet(e);
    return mine;
}

/* The future was completed: by the job's thread, or else it was cancelled. */
static void job_told(struct heist__waiter *w, heist_future *f) {
    (void)f;
    struct job *j = heist_container_of(w, struct job, hook);
    heist_executor *e = j->pool;
    if (job_take_out(j)) job_removed(j);
    job_unref(j);
    release(e);
}

/* One that nobody else knows yet.  `loop` may be NULL: the caller's running one, or none. */
static int job_new(heist_executor *e, heist_loop *loop, heist_coro_fn fn, void *arg, const heist_job_options *opts,
                   struct job **out) {
    struct job *j = heist__alloc(sizeof(*j));
    if (!j) return -ENOMEM;
    int err = heist_future_new(loop, &j->future);
    if (err) {
        heist__free(j);
        return err;
    }
    heist__list_init(&j->link);
    j->pool = e;
    j->fn = fn;
    j->arg = arg;
    j->arg_free = opts ? opts->arg_free : NULL;
    j->result_free = opts ? opts->result_free : NULL;
    j->context = NULL;
    j->holds = NULL;
    j->state = QUEUED;
    a_store_rlx(&j->refs, 2); /* rlx: not published yet */
    a_add_rlx(&e->refs, 1);   /* rlx: the caller holds the pool */
    j->hook.kind = HEIST__WAIT_HOOK;
    j->hook.hook = job_told;
    j->hook.awaiter = NULL;
    heist__future_add_waiter(j->future, &j->hook);
    *out = j;
    return 0;
}

/* One that was not accepted: as if it had never been. */
static void job_discard(struct job *j) {
    heist_executor *e = j->pool;
    heist__future_remove_waiter(j->future, &j->hook);
    heist_unref(j->future);
    heist__free(j);
    release(e);
}

static void job_run(heist_executor *e, struct heist__self *self, struct job *j) {
    void *value = NULL;
    int code = j->context ? heist_context_run(j->context, j->fn, j->arg, &value) : j->fn(j->arg, &value);
    if (heist__forked()) heist__forked_end();
    job_spent(j);
    struct heist__failure *failure = self->failure;
    self->failure = NULL;
    if (failure && failure->code != code) {
        heist__free(failure);
        failure = NULL;
    }
    if (code < 0 && value) { /* a failed job's result is nobody's */
        if (j->result_free) j->result_free(value);
        value = NULL;
    }
    heist__spin_lock(&e->lock); /* before anybody can learn of the end */
    e->running--;
    e->done++;
    bool quiet = all_quiet(e);
    heist__spin_unlock(&e->lock);
    if (heist__future_complete(j->future, code, value, j->result_free, failure) && value && j->result_free)
        j->result_free(value); /* cancelled while it ran */
    if (quiet) say_quiet(e);
    job_ended(j);
}

/* ---- threads ---- */

/* All threads of the list, which nobody else reaches any more. */
static void wake_threads(struct heist__link *woken) {
    struct heist__link *l;
    while ((l = heist__list_pop_front(woken))) {
        _Atomic(uint32_t) *word = &heist__list_entry(l, struct thread, link)->word;
        a_store_rel(word, 1); /* rel: pairs with the look in wait_idle; the thread may be gone after it */
        heist__sys_futex_wake(word, 1);
    }
}

/* Under the lock: the idle ones, at most n, go to `to`. */
static int take_idle(heist_executor *e, int n, struct heist__link *to) {
    int taken = 0;
    for (struct heist__link *l; taken < n && (l = heist__list_pop_front(&e->idle)); taken++) {
        heist__list_entry(l, struct thread, link)->idle = false;
        heist__list_push_back(to, l);
    }
    e->idle_count -= taken;
    return taken;
}

/* Under the lock, which is released meanwhile: false when no job came for too long. */
static bool wait_idle(heist_executor *e, struct thread *t) {
    a_store_rlx(&t->word, 0); /* rlx: published by the list */
    heist__list_push_front(&e->idle, &t->link);
    t->idle = true;
    e->fresh = false;
    e->idle_count++;
    heist__spin_unlock(&e->lock);
    int64_t deadline = heist__ns_add(heist__sys_monotonic_ns(), e->idle_ns);
    bool in_time = true;
    /* acq: pairs with wake_threads */
    while (in_time && !a_load_acq(&t->word)) in_time = heist__sys_futex_wait(&t->word, 0, deadline) != -ETIMEDOUT;
    heist__spin_lock(&e->lock);
    if (in_time) return true;
    if (t->idle) {
        heist__list_remove(&t->link);
        t->idle = false;
        e->idle_count--;
        return false;
    }
    heist__spin_unlock(&e->lock); /* taken out just now: the word is on its way */
    while (!a_load_acq(&t->word)) heist__sys_futex_wait(&t->word, 0, INT64_MAX);
    heist__spin_lock(&e->lock);
    return true;
}

/* Under the lock, which may be released meanwhile: NULL when the thread shall leave. */
static struct job *next_job(heist_executor *e, struct thread *t) {
    for (bool stays = true;;) {
        struct heist__link *l = heist__list_pop_front(&e->queue);
        if (l) {
            struct job *j = heist__list_entry(l, struct job, link);
            j->state = TAKEN;
            e->queued--;
            e->running++;
            int64_t waited = heist__sys_monotonic_ns() - j->since;
            if (waited > e->longest_ns) e->longest_ns = waited;
            return j;
        }
        if (e->shut || e->broken || !stays) return NULL;
        stays = wait_idle(e, t);
    }
}

/* Under the lock: nobody is left, and nobody comes. */
static bool all_gone(heist_executor *e) { return e->shut && !e->threads && !e->leaving; }

/* Nobody is left.  The caller has a reference. */
static void say_gone(heist_executor *e) {
    heist_future_set_result(e->gone, NULL, NULL); /* the second time it is done already */
    heist__mutex_lock(&e->end);
    heist__cond_broadcast(&e->left);
    heist__mutex_unlock(&e->end);
}

/* In a task.  Threads without a job end soon, but not in virtual time, whose next stop may be the deadline: it stands
 * meanwhile. */
static int wait_gone_in_task(heist_executor *e, double deadline) {
    heist_runtime *rt = heist__self()->loop->rt;
    if (!rt->clock.virtual_time) return heist_await_until(e->gone, deadline, NULL);
    int err = heist_await_until(e->quiet, deadline, NULL);
    if (err) return err;
    a_add_rlx(&rt->refs, 1); /* rlx: the caller's task runs on it */
    a_add_sc(&rt->jobs_outside, 1);
    err = heist_await_until(e->gone, HEIST_FOREVER, NULL);
    let_go(rt);
    return err;
}

/* In a task, or a plain thread: 0, -ETIMEDOUT, -ECANCELED. */
static int wait_gone(heist_executor *e, double deadline) {
    if (heist__self()->task) return wait_gone_in_task(e, deadline);
    int err = 0;
    heist__mutex_lock(&e->end);
    while (!heist_future_done(e->gone) && err != -ETIMEDOUT)
        err = heist__cond_wait(&e->left, &e->end, heist__ns_from_seconds(deadline));
    heist__mutex_unlock(&e->end);
    return heist_future_done(e->gone) ? 0 : -ETIMEDOUT;
}

/* Takes all that waits out.  Under the lock. */
static void empty_out(heist_executor *e, struct heist__link *jobs) {
    struct heist__link *l;
    while ((l = heist__list_pop_front(&e->queue))) {
        heist__list_entry(l, struct job, link)->state = REMOVED;
        heist__list_push_back(jobs, l);
    }
    e->cancelled += e->queued;
    e->queued = 0;
}

static void fail_all(struct heist__link *jobs, int code, const char *why) {
    struct heist__link *l;
    while ((l = heist__list_pop_front(jobs))) {
        struct job *j = heist__list_entry(l, struct job, link);
        struct heist__failure *failure =
            heist__failure_make(NULL, 0, HEIST_EBROKENPOOL, "%s: %s", why, heist_strerror(code));
        job_spent(j);
        heist__future_complete(j->future, HEIST_EBROKENPOOL, NULL, NULL, failure);
        job_ended(j);
    }
}

static void break_pool(heist_executor *e, int code) {
    struct heist__link jobs, idle;
    heist__list_init(&jobs);
    heist__list_init(&idle);
    heist__spin_lock(&e->lock);
    if (!e->broken) e->broken = code;
    empty_out(e, &jobs);
    take_idle(e, e->idle_count, &idle);
    bool quiet = all_quiet(e);
    heist__spin_unlock(&e->lock);
    wake_threads(&idle);
    if (quiet) say_quiet(e);
    fail_all(&jobs, code, "an initializer of the executor failed");
}

/* Under the lock: joins who left before, says that it has left, and unlocks. */
static bool left_locked(heist_executor *e) {
    while (e->has_last) {
        pthread_t before = e->last;
        e->has_last = false;
        heist__spin_unlock(&e->lock);
        heist__sys_thread_join(before, NULL);
        heist__spin_lock(&e->lock);
    }
    e->last = pthread_self();
    e->has_last = true;
    e->leaving--;
    bool all = all_gone(e);
    heist__spin_unlock(&e->lock);
    return all;
}

static void *thread_main(void *arg) {
    heist_executor *e = arg;
    struct heist__self *self = heist__self();
    struct thread t;
    char name[24];
    heist__list_init(&t.link);
    self->executor = e;
    (void)heist__self_register(self); /* without it objects go the long way, one by one */
    heist__spin_lock(&e->lock);
    unsigned number = e->number++;
    heist__spin_unlock(&e->lock);
    snprintf(name, sizeof(name), "%s-%u", e->name, number % 100000);
    pthread_setname_np(pthread_self(), name);
    int err = e->initializer ? e->initializer(e->user) : 0;
    if (err < 0) break_pool(e, err);
    heist__spin_lock(&e->lock);
    for (struct job *j; err >= 0 && (j = next_job(e, &t));) {
        heist__spin_unlock(&e->lock);
        job_run(e, self, j);
        heist__spin_lock(&e->lock);
    }
    e->threads--;
    e->leaving++;
    heist__spin_unlock(&e->lock);
    if (err >= 0 && e->finalizer) e->finalizer(e->user);
    heist__free(self->failure);
    self->failure = NULL;
    heist__spin_lock(&e->lock);
    if (left_locked(e)) say_gone(e);
    release(e);
    return NULL;
}

/* 0 or a code.  The caller has counted it in threads and unsure; here it is sure, or not counted any more. */
static int make_thread(heist_executor *e, bool first) {
    pthread_attr_t attributes;
    sigset_t all, before;
    /* Signals are the host's; faults of our own stay. */
    static const int own[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGABRT};
    sigfillset(&all);
    for (size_t i = 0; i < HEIST_ARRAY_LEN(own); i++) sigdelset(&all, own[i]);
    int err = -pthread_attr_init(&attributes);
    if (!err) {
        if (e->stack_bytes) err = -pthread_attr_setstacksize(&attributes, e->stack_bytes);
        pthread_t thread;
        a_add_rlx(&e->refs, 1); /* rlx: the caller holds the pool; this one is the thread's */
        pthread_sigmask(SIG_SETMASK, &all, &before);
        if (!err) err = heist__sys_thread_create(&thread, &attributes, thread_main, e);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        if (err) release(e); /* not the last */
        pthread_attr_destroy(&attributes);
    }
    heist__spin_lock(&e->lock);
    e->unsure--;
    if (err)
        e->threads--;
    else if (first)
        e->fresh = !e->idle_count;
    bool all_left = err && all_gone(e);
    heist__spin_unlock(&e->lock);
    if (all_left) say_gone(e);
    return err;
}

/* A thread that takes jobs: 0, or why there is none. */
static int first_thread(heist_executor *e) {
    heist__mutex_lock(&e->start);
    heist__spin_lock(&e->lock);
    bool none = e->threads <= e->unsure && !e->shut && !e->broken;
    if (none) {
        e->threads++;
        e->unsure++;
    }
    heist__spin_unlock(&e->lock);
    int err = none ? make_thread(e, true) : 0;
    heist__mutex_unlock(&e->start);
    return err;
}

/* ---- submitting ---- */

/* All or none; the caller has filled `jobs` with n of them. */
static int enqueue(heist_executor *e, struct heist__link *jobs, size_t n) {
    struct heist__link woken, *l;
    heist__list_init(&woken);
    int64_t now = heist__sys_monotonic_ns();
    heist__list_for_each(l, jobs) heist__list_entry(l, struct job, link)->since = now;
    for (int err;;) {
        heist__spin_lock(&e->lock);
        err = e->shut ? HEIST_EEXECSHUTDOWN : e->broken ? HEIST_EBROKENPOOL : 0;
        if (!err && (n > e->max_queue || e->queued > e->max_queue - n)) err = -EAGAIN;
        if (err || e->threads > e->unsure) {
            if (!err) break;
            heist__spin_unlock(&e->lock);
            return err;
        }
        heist__spin_unlock(&e->lock);
        err = first_thread(e);
        if (err) return err;
    }
    heist__list_splice_back(&e->queue, jobs);
    e->queued += n;
    int want = n < MAX_THREADS ? (int)n : MAX_THREADS;
    want -= take_idle(e, want, &woken);
    if (want > 0 && e->fresh) {
        e->fresh = false;
        want--;
    }
    int room = e->max_threads - e->threads - e->leaving;
    if (want > room) want = room > 0 ? room : 0;
    e->threads += want;
    e->unsure += want;
    heist__spin_unlock(&e->lock);
    wake_threads(&woken);
    for (bool gives = true; want > 0; want--) {
        if (gives) {
            gives = make_thread(e, false) == 0; /* none more: those that live do it */
            continue;
        }
        heist__spin_lock(&e->lock);
        e->threads--;
        e->unsure--;
        heist__spin_unlock(&e->lock);
    }
    return 0;
}

static int check_job(heist_coro_fn fn, const heist_job_options *opts) {
    if (!fn || !heist__options_ok(opts, sizeof(*opts)) || (opts && opts->flags)) return -EINVAL;
    return heist__forked() ? HEIST_EFORKED : 0;
}

/* context: in which it runs; the reference passes to the job when it is accepted.  job: gives the caller one. */
static int submit(heist_executor *e, heist_loop *loop, heist_coro_fn fn, void *arg, const heist_job_options *opts,
                  heist_context *context, heist_future **out, struct job **job) {
    struct job *j;
    int err = job_new(e, loop, fn, arg, opts, &j);
    if (err) return err;
    if (loop && loop->rt->clock.virtual_time) {
        j->holds = loop->rt;
        a_add_rlx(&loop->rt->refs, 1); /* rlx: the caller holds the loop */
        a_add_sc(&loop->rt->jobs_outside, 1);
    }
    j->context = context;
    if (job) a_add_rlx(&j->refs, 1); /* rlx: not published yet */
    heist_future *f = out ? heist_ref(j->future) : NULL;
    heist_executor_ref(e); /* the job may drop the caller's */
    struct heist__link one;
    heist__list_init(&one);
    heist__list_push_back(&one, &j->link);
    err = enqueue(e, &one, 1);
    if (err) {
        heist__list_remove(&j->link);
        heist_unref(f);
        let_go(j->holds);
        job_discard(j);
    }
    heist_executor_unref(e);
    if (err) return err;
    if (out) *out = f;
    if (job) *job = j;
    return 0;
}

int heist_executor_submit(heist_executor *e, heist_coro_fn fn, void *arg, const heist_job_options *opts,
                          heist_future **out) {
    int err = e ? check_job(fn, opts) : -EINVAL;
    return err ? err : submit(e, NULL, fn, arg, opts, NULL, out, NULL);
}

/* ---- map ---- */

struct heist_executor_map {
    size_t n, next;
    double deadline;
    heist_future *futures[];
};

void heist_executor_map_free(heist_executor_map *m) {
    if (!m || heist__forked()) return;
    for (size_t i = m->n; i-- > m->next;) { /* the last first, so that none of them begins meanwhile */
        heist_cancel(m->futures[i]);
        heist_future_result(m->futures[i], NULL); /* nobody will look at its failure, and that is meant */
        heist_unref(m->futures[i]);
    }
    heist__free(m);
}

int heist_executor_map_new(heist_executor *e, heist_coro_fn fn, void *const *args, size_t n,
                           const heist_job_options *opts, double deadline, heist_executor_map **out) {
    int err = e && out && (args || !n) && !isnan(deadline) ? check_job(fn, opts) : -EINVAL;
    if (!err && n > (SIZE_MAX - sizeof(heist_executor_map)) / sizeof(heist_future *)) err = -EINVAL;
    if (err) return err;
    heist_executor_map *m = heist__alloc(sizeof(*m) + n * sizeof(m->futures[0]));
    if (!m) return -ENOMEM;
    *m = (heist_executor_map){.n = n, .deadline = deadline};
    struct heist__link jobs, *l;
    heist__list_init(&jobs);
    size_t made = 0;
    for (; !err && made < n; made++) {
        struct job *j;
        err = job_new(e, NULL, fn, args[made], opts, &j);
        if (err) break;
        m->futures[made] = heist_ref(j->future);
        heist__list_push_back(&jobs, &j->link);
    }
    heist_executor_ref(e); /* a job may drop the caller's */
    if (!err && n) err = enqueue(e, &jobs, n);
    if (err) {
        while ((l = heist__list_pop_front(&jobs))) job_discard(heist__list_entry(l, struct job, link));
        for (size_t i = 0; i < made; i++) heist_unref(m->futures[i]);
        heist__free(m);
    }
    heist_executor_unref(e);
    if (err) return err;
    *out = m;
    return 0;
}

int heist_executor_map_next(heist_executor_map *m, void **out) {
    if (!m) return -EINVAL;
    if (m->next == m->n) {
        struct heist__self *self = heist__self();
        int err = heist__wait_entry(self);
        if (!err) heist__wait_skipped(self);
        return err;
    }
    heist_future *f = m->futures[m->next];
    int err = heist_await_until(f, m->deadline, NULL);
    if (err && heist_future_result(f, NULL) != err) return err; /* not the job's, but the wait's */
    void *value = NULL;
    err = heist_future_take(f, &value);
    m->next++;
    heist_unref(f);
    if (err) return err;
    if (out) *out = value;
    return 1;
}

/* ---- shutting down ---- */

static void begin_shutdown(heist_executor *e, bool cancel) {
    struct heist__link jobs, idle, *l;
    heist__list_init(&jobs);
    heist__list_init(&idle);
    heist__spin_lock(&e->lock);
    e->shut = true;
    if (cancel) empty_out(e, &jobs);
    take_idle(e, e->idle_count, &idle);
    bool all = all_gone(e), quiet = all_quiet(e);
    heist__spin_unlock(&e->lock);
    wake_threads(&idle);
    if (quiet) say_quiet(e);
    while ((l = heist__list_pop_front(&jobs))) job_removed(heist__list_entry(l, struct job, link));
    if (all) say_gone(e);
}

/* The last that left. */
static void join_last(heist_executor *e) {
    heist__spin_lock(&e->lock);
    bool mine = e->has_last;
    pthread_t last = e->last;
    e->has_last = false;
    heist__spin_unlock(&e->lock);
    if (mine) heist__sys_thread_join(last, NULL);
}

int heist_executor_shutdown_until(heist_executor *e, unsigned flags, double deadline) {
    if (!e || (flags & ~(HEIST_EXECUTOR_NO_WAIT | HEIST_EXECUTOR_CANCEL_QUEUED)) || isnan(deadline)) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    struct heist__self *self = heist__self();
    if (!(flags & HEIST_EXECUTOR_NO_WAIT)) {
        if (self->worker && !self->task) return HEIST_ENOTINCORO;
        if (self->executor == e) return -EDEADLK;
    }
    begin_shutdown(e, flags & HEIST_EXECUTOR_CANCEL_QUEUED);
    if (flags & HEIST_EXECUTOR_NO_WAIT) return 0;
    int err = wait_gone(e, deadline);
    if (!err) join_last(e);
    return err;
}

int heist_executor_shutdown(heist_executor *e, unsigned flags) {
    return heist_executor_shutdown_until(e, flags, HEIST_FOREVER);
}

void heist_executor_unref(heist_executor *e) {
    if (!e || heist__forked()) return; /* a child's copy is the parent's */
    if (a_sub_ar(&e->users, 1) != 1) return; /* ar: as every last reference */
    begin_shutdown(e, false);
    release(e);
}

int heist_executor_get_stats(heist_executor *e, heist_executor_stats *out) {
    if (!e || !out || out->size < sizeof(*out)) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    heist__spin_lock(&e->lock);
    out->threads = e->threads + e->leaving;
    out->idle = e->idle_count;
    out->queued = e->queued;
    out->running = e->running;
    out->done = e->done;
    out->cancelled = e->cancelled;
    out->longest_wait = heist__seconds_from_ns(e->longest_ns);
    heist__spin_unlock(&e->lock);
    return 0;
}

/* ---- the default one ---- */

/* From the room below; seconds = 0: does not wait.  The executor stays where somebody still has to wait for its jobs:
 * the wait of this caller was cancelled, or it is one of the jobs. */
static int end_default(heist_runtime *rt, double seconds) {
    heist__mutex_lock(&rt->mutex);
    heist_executor *e = heist_executor_ref(rt->executor);
    heist__mutex_unlock(&rt->mutex);
    if (!e) return 0;
    int err = heist_executor_shutdown_until(e, seconds > 0 ? 0 : HEIST_EXECUTOR_NO_WAIT, heist_time() + seconds);
    heist__mutex_lock(&rt->mutex);
    bool drop = err != -ECANCELED && err != -EDEADLK && rt->executor == e;
    if (drop) rt->executor = NULL;
    heist__mutex_unlock(&rt->mutex);
    if (drop) heist_executor_unref(e);
    heist_executor_unref(e);
    return err;
}

/* The given loop, or the running one. */
static int find_loop(heist_loop *given, heist_loop **out) {
    heist_loop *running = heist__self()->loop;
    if (!given && !running) return HEIST_ENOLOOP;
    *out = given ? given : running->home;
    return a_load_acq(&(*out)->closed) ? HEIST_ECLOSED : 0; /* acq: pairs with shut */
}

/* A reference to it; e = NULL: the present one, made if there is none; else it is replaced by e. */
static int use_default(heist_runtime *rt, heist_executor *e, heist_executor **out) {
    heist_executor *fresh = NULL, *old = NULL;
    heist__mutex_lock(&rt->mutex);
    if (!e && !rt->executor && !rt->executor_ended) {
        heist__mutex_unlock(&rt->mutex);
        heist_executor_options opts = HEIST_EXECUTOR_OPTIONS_INIT;
        opts.name = rt->name;
        int err = heist_executor_new(&opts, &fresh);
        if (err) return err;
        heist__mutex_lock(&rt->mutex);
    }
    int err = rt->executor_ended ? HEIST_EEXECSHUTDOWN : 0;
    if (!err && (e || !rt->executor)) {
        old = rt->executor;
        rt->executor = e ? heist_executor_ref(e) : fresh;
        rt->executor_end = end_default;
        if (!e) fresh = NULL;
    }
    if (!err && out) *out = heist_executor_ref(rt->executor);
    heist__mutex_unlock(&rt->mutex);
    heist_executor_unref(old);
    heist_executor_unref(fresh); /* another was faster */
    return err;
}

static int run_in_executor(heist_loop *loop, heist_executor *e, heist_coro_fn fn, void *arg,
                           const heist_job_options *opts, heist_context *context, heist_future **out,
                           struct job **job) {
    int err = check_job(fn, opts);
    if (!err) err = find_loop(loop, &loop);
    if (err) return err;
    heist_executor *pool = e;
    if (!e && (err = use_default(loop->rt, NULL, &pool))) return err;
    err = submit(pool, loop, fn, arg, opts, context, out, job);
    if (!e) heist_executor_unref(pool);
    return err;
}

int heist_loop_run_in_executor(heist_loop *loop, heist_executor *e, heist_coro_fn fn, void *arg,
                               const heist_job_options *opts, heist_future **out) {
    return run_in_executor(loop, e, fn, arg, opts, NULL, out, NULL);
}

int heist_to_thread(heist_coro_fn fn, void *arg, void **out) {
    heist_task *t = heist__self()->task;
    uint32_t base = t ? heist__cancel_base(t) : 0;
    int err = heist__wait_entry(heist__self());
    if (err) return err;
    heist_future *f;
    struct job *j;
    heist_context *context = NULL;
    if (heist__contexts_used() && (err = heist_context_copy(NULL, &context))) return err;
    err = run_in_executor(NULL, NULL, fn, arg, NULL, context, &f, &j);
    if (err) {
        heist_context_unref(context);
        return err;
    }
    bool asked = false;
    for (;;) {
        err = heist_await_until(f, HEIST_FOREVER, NULL);
        if (err != -ECANCELED || heist_future_cancelled(f)) break;
        if (!asked && job_take_out(j)) {
            job_removed(j);
            break;
        }
        asked = true;
        if (heist_future_done(f)) break;
    }
    if (heist_future_done(f)) {
        void *value = NULL;
        err = heist_future_take(f, &value);
        if (!err && out) *out = value;
        if (asked) heist__cancel_again(t, base); /* for the next call */
    }
    job_unref(j);
    heist_unref(f);
    return err;
}

int heist_loop_set_default_executor(heist_loop *loop, heist_executor *e) {
    if (!e) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    int err = find_loop(loop, &loop);
    return err ? err : use_default(loop->rt, e, NULL);
}

int heist_loop_shutdown_default_executor(heist_loop *loop, double timeout) {
    if (isnan(timeout)) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    int err = find_loop(loop, &loop);
    if (err) return err;
    struct heist__self *self = heist__self();
    if (self->worker && !self->task) return HEIST_ENOTINCORO;
    return heist__end_default_executor(loop->rt, timeout > 0 ? timeout : 0);
}
