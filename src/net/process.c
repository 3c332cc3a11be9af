/* Children: their watch, their end, their handles.  See heist/process.h; exec.c starts them, talk.c communicates.
 *
 * A child is in the list `running` from its start until its status is taken.  References to the memory: all the users'
 * together have one, the list one, the registration of its descriptor (loop/reg.h) one.
 *
 * The descriptor, under the child's lock:
 *
 *   reg        watched by p->loop; each event calls reap
 *   no reg     the loop has closed: an orphan, until somebody waits in a task, on whose loop it is watched again; or
 *              a sweep finds that it has ended
 *   reaped     the status is taken; nobody signals any more, so the number cannot hit another process
 *
 * Who waits stands in a queue under the same lock; all of it is woken when the status is taken and when the
 * registration has ended, and looks again.
 *
 * Whoever first asks for the registration's close sets `closing`.  The descriptor closes when it is reaped and not
 * registered: by reap, or by the registration's end.  So it never closes while a poller has it, and no signal is
 * sent on a number that is closed. */
#include "net/process.h"

#include <errno.h>
#include <fcntl.h>
#include <heist/error.h>
#include <heist/executor.h>
#include <heist/loop.h>
#include <math.h>
#include <poll.h>

#include "base/alloc.h"
#include "base/fork.h"
#include "base/options.h"
#include "base/sys.h"
#include "conc/self.h"
#include "io/fd.h"
#include "net/exec.h"
#include "sched/suspend.h"
#include "sync/wait_while.h"

#define KILLED_MILLISECONDS 1000 /* how long a closing loop waits for the end of one that was killed */

static struct heist__spin list_lock; /* before a child's lock */
static struct heist__link running = {&running, &running};
static size_t running_count, orphans;

static void drop(heist_process *p) {
    if (a_sub_ar(&p->refs, 1) != 1) return; /* ar: as every last reference */
    heist__talk_free(&p->talk);
    heist__free(p);
}

enum { WATCHED, ORPHAN, ENDED };
static int state_of(const heist_process *p) { return p->reaped ? ENDED : p->reg ? WATCHED : ORPHAN; }

static int look(heist_process *p) {
    heist__spin_lock(&p->lock);
    int state = state_of(p);
    heist__spin_unlock(&p->lock);
    return state;
}

static void hold(heist_process *p) { a_add_rlx(&p->refs, 1); /* rlx: the caller holds one */ }

/* ---- the end of a child ---- */

static void unlist(heist_process *p) {
    heist__spin_lock(&list_lock);
    heist__list_remove(&p->link);
    running_count--;
    if (!p->loop) orphans--;
    heist__spin_unlock(&list_lock);
}

/* Takes the status, if it has ended and nobody did so before. */
static void reap(heist_process *p) {
    siginfo_t info;
    heist__spin_lock(&p->lock);
    int got = p->reaped ? 0 : heist__sys_waitid(p->pidfd, &info, WNOHANG);
    if (got == 0 || got == -EINTR) {
        heist__spin_unlock(&p->lock);
        return;
    }
    p->reaped = true;
    p->lost = got < 0 ? got : 0;
    p->code = got < 0 ? 0 : info.si_code == CLD_EXITED ? info.si_status : -info.si_status;
    struct heist__reg *reg = p->closing ? NULL : p->reg;
    int fd = p->reg ? -1 : p->pidfd;
    if (reg) p->closing = true;
    struct heist__waitnode *woken = heist__waitq_claim_all(&p->waiters, 0);
    heist__spin_unlock(&p->lock);
    heist_loop *loop = heist__self()->loop;
    if (loop) heist__loop_log(loop, "loop %p: process %d has ended: %d", (void *)loop, (int)p->pid, p->code);
    unlist(p);
    heist__waitq_wake_all(woken);
    if (reg) heist__reg_close(reg);
    if (fd >= 0) heist__sys_close(fd);
    drop(p);
}

static void on_event(void *owner) { reap(owner); }

/* Those of which a sweep may learn that they have ended. */
static void sweep(void) {
    heist__spin_lock(&list_lock);
    for (size_t n = orphans ? running_count : 0; n && !heist__list_empty(&running); n--) {
        heist_process *p = heist__list_entry(heist__list_front(&running), heist_process, link);
        heist__list_remove(&p->link);
        heist__list_push_back(&running, &p->link);
        if (p->loop) continue;
        hold(p);
        heist__spin_unlock(&list_lock);
        reap(p);
        drop(p);
        heist__spin_lock(&list_lock);
    }
    heist__spin_unlock(&list_lock);
}

/* As look; of an orphan, which nobody watches, what the system says now. */
static int look_again(heist_process *p) {
    if (look(p) == ORPHAN) reap(p);
    sweep(); /* and of the others */
    return look(p);
}

/* The registration has ended; one without a descriptor never watched anything. */
static void unwatched(void *owner, int fd) {
    heist_process *p = owner;
    if (fd >= 0) {
        heist__spin_lock(&p->lock);
        p->reg = NULL;
        p->closing = false;
        bool last = p->reaped;
        struct heist__waitnode *woken = heist__waitq_claim_all(&p->waiters, 0);
        heist__spin_unlock(&p->lock);
        heist__waitq_wake_all(woken);
        if (last) heist__sys_close(fd);
    }
    drop(p);
}

/* A registration for it, which has a reference of its own. */
static struct heist__reg *new_watch(heist_process *p) {
    struct heist__reg *reg = heist__reg_new(-1, p, unwatched);
    if (reg) hold(p);
    return reg;
}

/* Under the list's lock and p's.  0, or what the poller said. */
static int watch(heist_process *p, struct heist__reg *reg, heist_loop *loop) {
    heist__reg_adopt(reg, p->pidfd);
    p->reg = reg;
    int err = heist__reg_watch(reg, loop, on_event);
    if (err)
        p->closing = true; /* by the caller */
    else
        p->loop = loop;
    return err;
}

/* ---- loops that close ---- */

/* One that was killed ends very soon: a closing runtime leaves no zombie of it. */
static void await_killed(heist_process *p) {
    heist__spin_lock(&p->lock);
    int fd = p->killed && !p->reaped ? heist__sys_dup(p->pidfd) : -1;
    heist__spin_unlock(&p->lock);
    if (fd < 0) return;
    struct pollfd ended = {fd, POLLIN, 0};
    while (poll(&ended, 1, KILLED_MILLISECONDS) < 0 && errno == EINTR) {}
    heist__sys_close(fd);
}

static heist_process *next_of(heist_loop *loop) {
    struct heist__link *at;
    heist_process *found = NULL;
    heist__spin_lock(&list_lock);
    heist__list_for_each(at, &running) {
        heist_process *p = heist__list_entry(at, heist_process, link);
        if (p->loop != loop) continue;
        p->loop = NULL;
        orphans++;
        hold(p);
        found = p;
        break;
    }
    heist__spin_unlock(&list_lock);
    return found;
}

static void on_loop_life(heist_loop *loop, bool shut) {
    for (heist_process *p; shut && (p = next_of(loop));) {
        await_killed(p);
        reap(p);
        heist__spin_lock(&p->lock);
        struct heist__reg *reg = p->closing ? NULL : p->reg;
        if (reg) p->closing = true;
        heist__spin_unlock(&p->lock);
        if (reg) heist__reg_close(reg);
        drop(p);
    }
    sweep();
}

/* Under its lock, not reaped.  Some emulators do not know the call: then only somebody who takes statuses of children
 * that are not his could make the number another's. */
static int to_process(heist_process *p, int sig) {
    int err = heist__sys_pidfd_send_signal(p->pidfd, sig);
    return err == -ENOSYS ? heist__sys_kill(p->pid, sig) : err;
}

/* ---- start ---- */

static void close_fd(int *fd) {
    if (*fd >= 0) heist__sys_close(*fd);
    *fd = -1;
}

/* Our end of a pipe: *ours, or a code and it is closed. */
static int open_pipe(int fd, const heist_stream_options *opts, heist_stream **ours) {
    heist_conn *c;
    int err = heist_conn_open(fd, &c);
    if (err) {
        heist__sys_close(fd);
        return err;
    }
    err = heist_stream_from_conn(c, opts, ours);
    if (err) heist_conn_close(c);
    return err;
}

/* What the child gets for stream i: *theirs (to be closed here, or -1), and our end of a pipe. */
static int open_stream(int what, int i, const heist_stream_options *opts, int *becomes, int *theirs,
                       heist_stream **ours) {
    if (what > 0) *becomes = what - 1;
    if (what == HEIST_PROCESS_STDOUT) *becomes = HEIST__EXEC_AS_STDOUT;
    if (what == HEIST_PROCESS_NULL) {
        int fd = heist__sys_open("/dev/null", O_RDWR, 0);
        if (fd < 0) return fd;
        *becomes = *theirs = fd;
    }
    if (what != HEIST_PROCESS_PIPE) return 0;
    int ends[2], err = heist__sys_pipe(ends);
    if (err) return err;
    *becomes = *theirs = ends[i != 0];
    return open_pipe(ends[i == 0], opts, ours);
}

/* What was written is sent, if there is anybody to read it. */
static void close_pipes(heist_process *p, bool send) {
    for (int i = 0; i < 3; i++) {
        if (send && i == 0)
            heist_stream_close(p->pipes[i]);
        else
            heist_stream_abort(p->pipes[i]);
        heist_stream_unref(p->pipes[i]);
        p->pipes[i] = NULL;
    }
}

static int start(heist_process *p, struct heist__exec *e, const int what[3], const heist_stream_options *opts,
                 struct heist__reg *reg) {
    int theirs[3] = {-1, -1, -1}, err = 0;
    for (int i = 0; i < 3 && !err; i++) err = open_stream(what[i], i, opts, &e->fds[i], &theirs[i], &p->pipes[i]);
    if (!err) {
        heist_loop *loop = heist__self()->loop->home;
        heist_blocking_begin(); /* until the exec; what stands behind this task goes on elsewhere */
        err = heist__exec(e, &p->pid, &p->pidfd);
        heist_blocking_end();
        if (!err) {
            heist__spin_lock(&list_lock);
            heist__spin_lock(&p->lock);
            err = watch(p, reg, loop);
            if (!err) {
                hold(p); /* the list's */
                heist__list_push_back(&running, &p->link);
                running_count++;
            }
            heist__spin_unlock(&p->lock);
            heist__spin_unlock(&list_lock);
            if (err) { /* it cannot be watched: as if it had never been */
                siginfo_t info;
                (void)to_process(p, SIGKILL);
                while (heist__sys_waitid(p->pidfd, &info, 0) == -EINTR) {}
                p->reaped = true; /* nobody else knows it */
            }
        }
    }
    for (int i = 0; i < 3; i++) close_fd(&theirs[i]);
    return err;
}

static int create(struct heist__exec *e, const heist_process_options *o, heist_process **out) {
    const int what[3] = {o->stdin_is, o->stdout_is, o->stderr_is};
    heist_process *p = heist__zalloc(sizeof(*p));
    if (!p) return -ENOMEM;
    heist__list_init(&p->link);
    heist__spin_init(&p->lock);
    a_store_rlx(&p->users, 1); /* rlx: published by *out */
    a_store_rlx(&p->refs, 1);
    p->flags = o->flags;
    p->pidfd = -1;
    struct heist__reg *reg = new_watch(p);
    int err = reg ? start(p, e, what, o->stream, reg) : -ENOMEM;
    if (err) {
        close_pipes(p, false);
        if (reg) heist__reg_close(reg);
        drop(p);
        return err;
    }
    heist_loop *loop = heist__self()->loop;
    heist__loop_log(loop, "loop %p: process %d has begun", (void *)loop, (int)p->pid);
    *out = p;
    return 0;
}

static int check_options(const heist_process_options *o) {
    const unsigned known = HEIST_PROCESS_GROUP | HEIST_PROCESS_SESSION | HEIST_PROCESS_KEEP_FDS |
                           HEIST_PROCESS_KILL_ON_CANCEL | HEIST_PROCESS_KILL_ON_DROP;
    if (!heist__options_ok(o, sizeof(*o))) return -EINVAL;
    if (!o) return 0;
    if (o->flags & ~known || (o->pass_fds_count && !o->pass_fds)) return -EINVAL;
    if (o->stdin_is < HEIST_PROCESS_NULL || o->stdin_is == HEIST_PROCESS_STDOUT) return -EINVAL;
    if (o->stdout_is < HEIST_PROCESS_NULL || o->stdout_is == HEIST_PROCESS_STDOUT) return -EINVAL;
    if (o->stderr_is < HEIST_PROCESS_NULL) return -EINVAL;
    for (size_t i = 0; i < o->pass_fds_count; i++)
        if (o->pass_fds[i] < 3) return -EINVAL;
    return 0;
}

/* A number that is not open would else become one of our own pipes, and the child would have that. */
static int check_descriptors(const heist_process_options *o) {
    const int given[3] = {o->stdin_is, o->stdout_is, o->stderr_is};
    int err = 0;
    for (int i = 0; i < 3 && !err; i++)
        if (given[i] > 0) err = heist__sys_is_open(given[i] - 1);
    for (size_t i = 0; i < o->pass_fds_count && !err; i++) err = heist__sys_is_open(o->pass_fds[i]);
    return err;
}

int heist_create_subprocess_exec(char *const argv[], const heist_process_options *opts, heist_process **out) {
    static const heist_process_options defaults = HEIST_PROCESS_OPTIONS_INIT;
    if (!argv || !argv[0] || !argv[0][0] || !out || check_options(opts)) return -EINVAL;
    int err = heist__fd_entry();
    if (err) return err;
    const heist_process_options *o = opts ? opts : &defaults;
    struct heist__exec e = {
        .argv = argv,
        .env = o->env ? o->env : environ,
        .cwd = o->cwd,
        .fds = {HEIST__EXEC_AS_IT_IS, HEIST__EXEC_AS_IT_IS, HEIST__EXEC_AS_IT_IS},
        .pass = o->pass_fds,
        .pass_count = o->pass_fds_count,
        .group = o->flags & HEIST_PROCESS_GROUP,
        .session = o->flags & HEIST_PROCESS_SESSION,
        .keep_fds = o->flags & HEIST_PROCESS_KEEP_FDS,
    };
    /* Set once for good; a closing loop that reads it before has no children.  acq, rel: with shut */
    if (!a_load_acq(&heist__loop_life_hook)) a_store_rel(&heist__loop_life_hook, on_loop_life);
    sweep();
    err = check_descriptors(o);
    if (!err) err = create(&e, o, out);
    heist__fd_skipped();
    return err;
}

int heist_create_subprocess_shell(const char *command, const heist_process_options *opts, heist_process **out) {
    if (!command) return -EINVAL;
    char shell[] = "/bin/sh", option[] = "-c";
    char *argv[] = {shell, option, (char *)(uintptr_t)command, NULL};
    return heist_create_subprocess_exec(argv, opts, out);
}

/* ---- handles ---- */

heist_process *heist_process_ref(heist_process *p) {
    if (p) a_add_rlx(&p->users, 1); /* rlx: the caller holds one */
    return p;
}

void heist_process_unref(heist_process *p) {
    if (!p || heist__forked()) return;         /* a child's copy is the parent's */
    if (a_sub_ar(&p->users, 1) != 1) return; /* ar: as every last reference */
    if (p->flags & HEIST_PROCESS_KILL_ON_DROP) heist__process_end(p);
    close_pipes(p, look(p) != ENDED);
    drop(p);
}

pid_t heist_process_pid(const heist_process *p) { return p ? p->pid : -EINVAL; }

/* ---- signals ---- */

static int send_signal(heist_process *p, int sig, bool group) {
    if (!p || sig < 0 || sig > 64) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    heist__spin_lock(&p->lock);
    int err = -ESRCH;
    if (!p->reaped) {
        err = to_process(p, group ? 0 : sig);
        /* It has not been taken, so its number, which is its group's too, is not another's. */
        if (group && !err) err = heist__sys_kill(-p->pid, sig);
        if (group && err == -ESRCH) err = to_process(p, sig); /* it has left its group, which is empty */
        if (sig == SIGKILL && !err) p->killed = true;
    }
    heist__spin_unlock(&p->lock);
    return err;
}

static bool has_group(const heist_process *p) { return p->flags & (HEIST_PROCESS_GROUP | HEIST_PROCESS_SESSION); }

int heist_process_send_signal(heist_process *p, int sig) { return send_signal(p, sig, false); }
int heist_process_terminate(heist_process *p) { return send_signal(p, SIGTERM, false); }
int heist_process_kill(heist_process *p) { return send_signal(p, SIGKILL, false); }

int heist_process_signal_group(heist_process *p, int sig) {
    if (!p) return -EINVAL;
    return has_group(p) ? send_signal(p, sig, true) : -ENOTSUP;
}

void heist__process_end(heist_process *p) { (void)send_signal(p, SIGKILL, has_group(p)); }

/* ---- its end ---- */

/* One whose loop has closed is watched by this task's. */
static int watch_again(heist_process *p, struct heist__self *self) {
    if (!self->task) return HEIST_ECLOSED;
    struct heist__reg *reg = new_watch(p);
    if (!reg) return -ENOMEM;
    heist__spin_lock(&list_lock);
    heist__spin_lock(&p->lock);
    bool mine = !p->reaped && !p->reg;
    int err = mine ? watch(p, reg, self->loop->home) : 0;
    if (mine && !err) orphans--;
    heist__spin_unlock(&p->lock);
    heist__spin_unlock(&list_lock);
    if (!mine || err) heist__reg_close(reg);
    return err;
}

static bool goes_on(const void *object, uint64_t arg) {
    (void)arg;
    return state_of(object) == WATCHED;
}

static int wait_for_end(heist_process *p, int64_t until) {
    for (;;) {
        int state = look_again(p), err = 0;
        if (state == ENDED) return 0;
        if (state == ORPHAN) err = watch_again(p, heist__self());
        if (err) return err;
        err = heist__wait_while(&p->lock, &p->waiters, goes_on, p, 0, until);
        if (err) return err;
    }
}

static int outcome(heist_process *p, int *code) {
    if (p->lost) return p->lost;
    if (code) *code = p->code;
    return 0;
}

int heist__process_cancelled(heist_process *p, int err) {
    if (err == -ECANCELED && p->flags & HEIST_PROCESS_KILL_ON_CANCEL) heist__process_end(p);
    return err;
}

int heist_process_wait(heist_process *p, double deadline, int *code) {
    if (!p || isnan(deadline)) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    struct heist__self *self = heist__self();
    int err = heist__wait_entry(self);
    if (err) return heist__process_cancelled(p, err);
    err = wait_for_end(p, heist__ns_from_seconds(deadline));
    heist__wait_skipped(heist__self());
    return err ? heist__process_cancelled(p, err) : outcome(p, code);
}

int heist_process_returncode(heist_process *p, int *code) {
    if (!p) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    return look_again(p) == ENDED ? outcome(p, code) : HEIST_EINVALSTATE;
}

int heist_process_stop(heist_process *p, double grace, int *code) {
    if (!p || !(grace >= 0)) return -EINVAL;
    int err = heist__fd_entry();
    if (err == -ECANCELED) heist__process_end(p);
    if (err) return err;
    (void)send_signal(p, SIGTERM, has_group(p));
    err = heist_process_wait(p, heist_time() + grace, code);
    if (err == -ETIMEDOUT || err == -ECANCELED) heist__process_end(p);
    return err == -ETIMEDOUT ? heist_process_wait(p, HEIST_FOREVER, code) : err;
}

/* ---- pipes ---- */

int heist_process_close_stdin(heist_process *p) {
    if (!p) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    heist_stream_close(p->pipes[0]);
    return 0;
}

heist_stream *heist_process_stdin(heist_process *p) { return p ? p->pipes[0] : NULL; }
heist_stream *heist_process_stdout(heist_process *p) { return p ? p->pipes[1] : NULL; }
heist_stream *heist_process_stderr(heist_process *p) { return p ? p->pipes[2] : NULL; }
