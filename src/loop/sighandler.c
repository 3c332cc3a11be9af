/* Callbacks for signals.  See heist/signal.h, and loop/trap.h for the handler.
 *
 * One for each signal in the process, in a table under a lock.  It is counted: the table holds one reference, and the
 * job that stands in its loop's inbox another.
 *
 *   handler   IDLE -> QUEUED; whoever made this change pushes the job
 *   job       QUEUED -> IDLE, then the call
 *   removal   out of the trap's list, quiesce, then whatever it is -> REMOVED; the job finds that, and makes no call
 *
 * All are sequentially consistent operations on one word, so a signal either finds IDLE, and its own job comes, or it
 * finds QUEUED before the job has made it IDLE, and the call is still to come.  A removal that finds QUEUED has kept
 * the job from its call: one by which a new handler of the loop replaced the old hands the signal on, so that none is
 * lost between the two. */
#include "loop/sighandler.h"

#include <heist/error.h>
#include <heist/signal.h>

#include "base/alloc.h"
#include "base/fork.h"
#include "base/options.h"
#include "conc/self.h"
#include "loop/loop.h"
#include "loop/trap.h"
#include "task/context.h"

enum { IDLE, QUEUED, REMOVED };

struct sighandler {
    struct heist__trap trap;
    struct heist__job job;
    _Atomic(int) refs;
    _Atomic(int) state;
    heist_loop *loop; /* one reference */
    heist_callback_fn fn;
    void *arg;
    heist_free_fn arg_free;
    const char *name;
    struct heist__carried carried; /* the context, in all its calls */
};

static struct heist__spin lock;
static struct sighandler *table[HEIST__SIGNALS + 1];

static void drop(struct sighandler *h) {
    if (a_sub_ar(&h->refs, 1) != 1) return; /* ar: as every last reference */
    if (h->arg_free) heist__destruct(h->arg_free, h->arg);
    heist__carried_drop(&h->carried);
    heist__loop_release(h->loop);
    heist__free(h);
}

/* The caller holds a reference. */
static void queue(struct sighandler *h) {
    int idle = IDLE;
    if (!a_cas_sc(&h->state, &idle, QUEUED)) return;
    a_add_rlx(&h->refs, 1);                                         /* rlx: there is the caller's */
    if (heist__loop_push(h->loop, &h->job)) a_sub_rlx(&h->refs, 1); /* rlx: the same; closed */
}

/* In the handler; the table holds a reference until quiesce. */
static void came(struct heist__trap *trap, int sig) {
    (void)sig;
    queue(heist_container_of(trap, struct sighandler, trap));
}

static int call(struct sighandler *h) {
    if (heist_likely(!heist__contexts_used())) return h->fn(h->arg);
    struct heist__in_scope in;
    heist__scope_enter(&in, &h->carried);
    int code = h->fn(h->arg);
    heist__scope_leave(&in);
    return code;
}

static void job_run(struct heist__job *job, heist_loop *loop) {
    struct sighandler *h = heist_container_of(job, struct sighandler, job);
    int queued = QUEUED, code = 0;
    if (a_cas_sc(&h->state, &queued, IDLE)) code = call(h);
    if (code < 0) heist__loop_callback_ended(loop, code, NULL, h->name);
    drop(h);
}

static void job_drop(struct heist__job *job) { drop(heist_container_of(job, struct sighandler, job)); }

static const struct heist__job_class job_class = {job_run, job_drop};

/* Under the lock; then put_away. */
static void take_out(int sig, struct sighandler *h) {
    heist__trap_remove(sig, &h->trap);
    if (table[sig] == h) table[sig] = NULL;
}

/* fresh: what has replaced it, or NULL. */
static void put_away(struct sighandler *h, struct sighandler *fresh) {
    if (!h) return;
    heist__trap_quiesce();
    if (a_xchg_sc(&h->state, REMOVED) == QUEUED && fresh) queue(fresh);
    drop(h);
}

/* Under the lock: the new one before the old one goes, so that none is lost between them. */
static int put_in(int sig, struct sighandler *h, int how, struct sighandler **old) {
    struct sighandler *there = table[sig];
    /* acq: pairs with shut, which empties the table under the lock */
    if (a_load_acq(&h->loop->closed)) return HEIST_ECLOSED;
    if (there && there->loop != h->loop) return -EBUSY;
    int err = heist__trap_add(sig, &h->trap, how);
    if (err) return err;
    table[sig] = h;
    if (there) take_out(sig, there);
    *old = there;
    return 0;
}

int heist_loop_add_signal_handler(heist_loop *loop, int sig, heist_callback_fn fn, void *arg,
                                  const heist_signal_options *opts) {
    if (!loop || !fn || !heist__options_ok(opts, sizeof(*opts)) || (opts && opts->flags & ~HEIST_SIGNAL_REPLACE))
        return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    int err = heist__trap_check(sig);
    if (err) return err;
    struct sighandler *h = heist__zalloc(sizeof(*h));
    if (!h) return -ENOMEM;
    h->trap.came = came;
    h->job.klass = &job_class;
    a_store_rlx(&h->refs, 1); /* rlx: published under the lock */
    h->fn = fn;
    h->arg = arg;
    h->arg_free = opts ? opts->arg_free : NULL;
    h->name = opts ? opts->name : NULL;
    heist_context *given = opts ? opts->context : NULL;
    /* rlx: the loop's number, referenced by the caller */
    err = heist__contexts_used() || given ? heist__carry(heist__self(), &h->carried, given, a_load_rlx(&loop->id)) : 0;
    if (err) {
        heist__free(h); /* the argument is still the caller's */
        return err;
    }
    h->loop = heist__loop_hold(loop);
    struct sighandler *old = NULL;
    bool replace = opts && opts->flags & HEIST_SIGNAL_REPLACE;
    a_add_rlx(&h->refs, 1); /* rlx: ours until the end; somebody else may remove it at once */
    heist__spin_lock(&lock);
    err = put_in(sig, h, replace ? HEIST__TRAP_REPLACE : HEIST__TRAP_SHARE, &old);
    heist__spin_unlock(&lock);
    put_away(old, h);
    if (err) {
        h->arg_free = NULL; /* it is still the caller's */
        drop(h);
    }
    drop(h);
    return err;
}

int heist_loop_remove_signal_handler(heist_loop *loop, int sig) {
    if (!loop) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    int err = heist__trap_check(sig);
    if (err) return err;
    heist__spin_lock(&lock);
    struct sighandler *h = table[sig];
    if (h && h->loop != loop) h = NULL;
    if (h) take_out(sig, h);
    heist__spin_unlock(&lock);
    put_away(h, NULL);
    return h != NULL;
}

void heist__sighandler_drop_all(heist_loop *loop) {
    for (int sig = 1; sig <= HEIST__SIGNALS; sig++) {
        heist__spin_lock(&lock);
        struct sighandler *h = table[sig];
        if (h && h->loop != loop) h = NULL;
        if (h) take_out(sig, h);
        heist__spin_unlock(&lock);
        put_away(h, NULL);
    }
}
