/* SIGINT's trap, and the job that it posts.  See sigint.h, and loop/trap.h for the handler.
 *
 * It is told in the handler, on any thread that does not block the signal (no worker's), at any moment.  It takes no
 * lock and allocates nothing: an inbox takes a job by compare-and-swap, and a sleeper is woken by one write. */
#include "sched/sigint.h"

#include <errno.h>
#include <heist/future.h>
#include <signal.h>

#include "base/alloc.h"
#include "loop/loop.h"
#include "loop/trap.h"

struct heist__sigint {
    struct heist__trap trap;
    struct heist__job job;
    _Atomic(int) refs;          /* the installer's, and the queued job's */
    _Atomic(int) count;         /* signals so far */
    _Atomic(int) early;         /* the job has run, and nobody has cancelled for it yet */
    _Atomic(heist_task *) task; /* one reference; NULL: not made yet */
    heist_loop *loop;           /* alive while it is installed */
    bool installed;
};

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

/* In the handler. */
static void came(struct heist__trap *trap, int sig) {
    struct heist__sigint *s = heist_container_of(trap, struct heist__sigint, trap);
    if (a_add_sc(&s->count, 1) == 0) {
        a_add_rlx(&s->refs, 1);                                         /* rlx: the installer holds one */
        if (heist__loop_push(s->loop, &s->job)) a_sub_rlx(&s->refs, 1); /* rlx: the same; closed */
    } else {
        heist__trap_give_up(sig); /* the second */
    }
}

int heist__sigint_make(struct heist__sigint **out) {
    struct heist__sigint *s = heist__zalloc(sizeof(*s));
    if (!s) return -ENOMEM;
    s->job.klass = &job_class;
    s->trap.came = came;
    a_store_rlx(&s->refs, 1); /* rlx: published by the trap's list */
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
    s->installed = heist__trap_add(SIGINT, &s->trap, HEIST__TRAP_DEFAULT) == 0;
}

bool heist__sigint_end(struct heist__sigint *s) {
    if (!s) return false;
    if (s->installed) {
        heist__trap_remove(SIGINT, &s->trap);
        heist__trap_quiesce();
    }
    bool signalled = a_load_sc(&s->count) > 0;
    drop(s);
    return signalled;
}
