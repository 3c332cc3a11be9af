/* The handler of SIGINT, who has it, and the job that it posts.  See sigint.h.
 *
 * The handler runs on any thread that does not block the signal (no worker's), at any moment.  It takes no lock and
 * allocates nothing: an inbox takes a job by compare-and-swap, and a sleeper is woken by one write.
 *
 *   current  whose turn it is, or NULL
 *   inside   handlers that may have read `current`
 *
 * install    current := s, then the disposition
 * handler    inside++, s := current, posts s's job if it is the first, inside--
 * end        the disposition, then current := NULL, then waits until inside is 0
 *
 * All sequentially consistent: a handler that counted itself after end has read 0 reads NULL.  A handler that
 * interrupts the ending thread ends before that goes on, so nobody waits for himself. */
#include "sched/sigint.h"

#include <errno.h>
#include <heist/future.h>
#include <signal.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fork.h"
#include "base/sys.h"
#include "loop/loop.h"

struct heist__sigint {
    struct heist__job job;
    _Atomic(int) refs;          /* the installer's, and the queued job's */
    _Atomic(int) count;         /* signals so far */
    _Atomic(int) early;         /* the job has run, and nobody has cancelled for it yet */
    _Atomic(heist_task *) task; /* one reference; NULL: not made yet */
    heist_loop *loop;           /* alive while it is installed */
};

static struct heist__spin lock; /* of install and end */
static _Atomic(struct heist__sigint *) current;
static _Atomic(int) inside;

static void drop(struct heist__sigint *s) {
    if (a_sub_ar(&s->refs, 1) != 1) return; /* ar: as every last reference */
    heist_unref(a_load_sc(&s->task));
    heist__free(s);
}

/* By the job, after it has raised `early`, and by target, after it has stored the task: in the one order of sc
 * operations the later of the two finds both, and the exchange has one of them cancel. */
static void cancel_once(struct heist__sigint *s) {
    heist_task *t = a_load_sc(&s->task);
    if (t && a_xchg_sc(&s->early, 0)) heist_cancel(t);
}

static void job_run(struct heist__job *job, heist_loop *loop) {
    (void)loop;
    struct heist__sigint *s = heist_container_of(job, struct heist__sigint, job);
    a_store_sc(&s->early, 1);
    cancel_once(s);
    drop(s);
}

static void job_drop(struct heist__job *job) { drop(heist_container_of(job, struct heist__sigint, job)); }

static const struct heist__job_class job_class = {job_run, job_drop};

/* As if nobody had handled it: takes effect when the handler returns. */
static void by_default(void) {
    struct sigaction dfl;
    memset(&dfl, 0, sizeof dfl);
    dfl.sa_handler = SIG_DFL;
    sigaction(SIGINT, &dfl, NULL);
    raise(SIGINT);
}

static void on_sigint(int sig) {
    (void)sig;
    int saved = errno;
    if (heist__forked()) { /* a child has nothing to cancel */
        by_default();
        errno = saved;
        return;
    }
    a_add_sc(&inside, 1);
    struct heist__sigint *s = a_load_sc(&current);
    if (s && a_add_sc(&s->count, 1) == 0) {
        a_add_rlx(&s->refs, 1);                                         /* rlx: the installer holds one */
        if (heist__loop_push(s->loop, &s->job)) a_sub_rlx(&s->refs, 1); /* rlx: the same; closed */
    } else {
        by_default(); /* the second; or main has just ended, and the disposition is back already */
    }
    a_sub_sc(&inside, 1);
    errno = saved;
}

int heist__sigint_make(struct heist__sigint **out) {
    struct heist__sigint *s = heist__zalloc(sizeof(*s));
    if (!s) return -ENOMEM;
    s->job.klass = &job_class;
    a_store_rlx(&s->refs, 1); /* rlx: published by `current` */
    *out = s;
    return 0;
}

void heist__sigint_target(struct heist__sigint *s, heist_task *t) {
    if (!s) return;
    a_store_sc(&s->task, heist_ref(t));
    cancel_once(s);
}

void heist__sigint_install(struct heist__sigint *s, heist_loop *loop) {
    if (!s) return;
    s->loop = loop;
    struct sigaction before, ours;
    memset(&ours, 0, sizeof ours);
    ours.sa_handler = on_sigint;
    ours.sa_flags = SA_ONSTACK | SA_RESTART;
    heist__spin_lock(&lock);
    if (!a_load_sc(&current) && sigaction(SIGINT, NULL, &before) == 0 && !(before.sa_flags & SA_SIGINFO) &&
        before.sa_handler == SIG_DFL) {
        a_store_sc(&current, s);
        if (sigaction(SIGINT, &ours, NULL)) a_store_sc(&current, NULL);
    }
    heist__spin_unlock(&lock);
}

bool heist__sigint_end(struct heist__sigint *s) {
    if (!s) return false;
    if (a_load_sc(&current) == s) { /* nobody else changes it from s */
        struct sigaction now, dfl;
        memset(&dfl, 0, sizeof dfl);
        dfl.sa_handler = SIG_DFL;
        heist__spin_lock(&lock);
        /* Not when somebody put a handler of his own over ours meanwhile. */
        if (sigaction(SIGINT, NULL, &now) == 0 && !(now.sa_flags & SA_SIGINFO) && now.sa_handler == on_sigint)
            sigaction(SIGINT, &dfl, NULL);
        a_store_sc(&current, NULL);
        heist__spin_unlock(&lock);
        while (a_load_sc(&inside)) heist__sys_yield();
    }
    bool came = a_load_sc(&s->count) > 0;
    drop(s);
    return came;
}
