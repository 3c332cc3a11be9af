/* From here to a new program: the parent's side, and the child's between clone and exec.  See exec.h.
 *
 * Why clone.  fork copies the tables of all memory, which costs the more the larger the program is.  posix_spawn has
 * neither a descriptor for the child, so its number must be trusted while others may wait for any child, nor a way to
 * close what others opened without close-on-exec.  This is what posix_spawn does inside: a child that borrows the
 * memory and has a stack of its own, while the thread that made it stands still until the exec.
 *
 * So the child writes into the parent's memory: it calls nothing that takes a lock, allocates, or keeps state, nothing
 * that a detector watches, and no handler of the parent's may run in it: all signals are blocked until each handler is
 * taken out.  It tells the parent what failed by a word of its structure, which the parent looks at after the clone.
 *
 * An emulator (valgrind, qemu) may make a plain fork out of it: then the word stays untouched, and nobody has waited
 * for the exec.  Until a child has shown that it shares the memory (`child_was_here`), and under an emulator always,
 * the failure comes through a pipe that exec closes. */
#include "net/exec.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "arch/vfork.h"
#include "base/alloc.h"
#include "base/macros.h"
#include "base/sys.h"
#include "conc/atomic.h"

/* In the child: no detector, no canary (the stack is another), and everything by bare system calls. */
#define IN_CHILD __attribute__((no_sanitize("address", "thread", "undefined"), no_stack_protector, noinline))

#define CHILD_STACK ((size_t)32 * 1024)
#define SIGNALS 64
#define FIRST_OTHER 3 /* descriptors from here on are not the standard ones */

/* The kernel's own structure, the same on each machine that has a restorer. */
struct kernel_action {
    uintptr_t handler;
    unsigned long flags;
    void *restorer;
    uint64_t mask;
};

struct child {
    const struct heist__exec *e;
    const char *path; /* where to look; NULL: argv[0] says it all */
    unsigned highest; /* descriptor that may be open, where the kernel cannot be asked */
    int pipe[2];      /* -1: none */
    volatile int here, failed;
    char name[PATH_MAX];
};

/* ---- the child ---- */

IN_CHILD static long bare(long result) { return result < 0 ? -(long)errno : result; }

IN_CHILD static int no_handlers(void) {
    for (int sig = 1; sig <= SIGNALS; sig++) {
        struct kernel_action a;
        if (sig == SIGKILL || sig == SIGSTOP || syscall(SYS_rt_sigaction, sig, NULL, &a, 8)) continue;
        bool ignored = a.handler == (uintptr_t)SIG_IGN;
        if (a.handler == (uintptr_t)SIG_DFL || (ignored && sig != SIGPIPE && sig != SIGXFSZ)) continue;
        a.handler = (uintptr_t)SIG_DFL;
        a.flags = 0;
        a.restorer = NULL;
        a.mask = 0;
        syscall(SYS_rt_sigaction, sig, &a, NULL, 8);
    }
    return 0;
}

/* Above the standard ones, for they are about to be overwritten. */
IN_CHILD static int out_of_the_way(int *fd) {
    if (*fd < 0 || *fd >= FIRST_OTHER) return 0;
    int other = (int)bare(syscall(SYS_fcntl, *fd, F_DUPFD_CLOEXEC, FIRST_OTHER));
    if (other < 0) return other;
    *fd = other;
    return 0;
}

IN_CHILD static int set_standard(struct child *c) {
    int fds[3], err = out_of_the_way(&c->pipe[1]);
    for (int i = 0; i < 3; i++) fds[i] = c->e->fds[i];
    for (int i = 0; i < 3 && !err; i++) err = fds[i] == i ? 0 : out_of_the_way(&fds[i]);
    for (int i = 0; i < 3 && !err; i++) {
        if (fds[i] == HEIST__EXEC_AS_IT_IS) continue;
        int from = fds[i] == HEIST__EXEC_AS_STDOUT ? 1 : fds[i];
        err = (int)bare(from == i ? syscall(SYS_fcntl, i, F_SETFD, 0) : syscall(SYS_dup3, from, i, 0));
        if (err > 0) err = 0;
    }
    return err;
}

/* All others close at the exec, but those that are to be passed. */
IN_CHILD static int set_others(struct child *c) {
    const struct heist__exec *e = c->e;
    long err = 0;
    if (!e->keep_fds) {
#ifdef SYS_close_range
        err = bare(syscall(SYS_close_range, FIRST_OTHER, ~0u, 4u /* CLOSE_RANGE_CLOEXEC */));
#else
        err = -ENOSYS;
#endif
        if (err)
            for (unsigned fd = FIRST_OTHER; fd < c->highest; fd++) syscall(SYS_fcntl, fd, F_SETFD, FD_CLOEXEC);
    }
    err = 0;
    for (size_t i = 0; i < e->pass_count && !err; i++) err = bare(syscall(SYS_fcntl, e->pass[i], F_SETFD, 0));
    return (int)err;
}

IN_CHILD static int run(struct child *c, const char *name) {
    return (int)bare(syscall(SYS_execve, name, c->e->argv, c->e->env));
}

/* The places in `path`, one after the other, as execvp does; but what is no program is no script either. */
IN_CHILD static int look_and_run(struct child *c) {
    const char *file = c->e->argv[0], *at = c->path;
    if (!at) return run(c, file);
    size_t length = 0;
    while (file[length]) length++;
    bool refused = false;
    for (;; at++) {
        size_t n = 0;
        while (at[n] && at[n] != ':') n++;
        if (n + length + 2 <= sizeof(c->name)) {
            char *to = c->name;
            for (size_t i = 0; i < n; i++) *to++ = at[i];
            if (n) *to++ = '/'; /* an empty place is the working directory */
            for (size_t i = 0; i <= length; i++) *to++ = file[i];
            int err = run(c, c->name);
            if (err == -EACCES)
                refused = true;
            else if (err != -ENOENT && err != -ENOTDIR && err != -ENODEV && err != -ESTALE && err != -ETIMEDOUT)
                return err;
        }
        at += n;
        if (!*at) return refused ? -EACCES : -ENOENT;
    }
}

IN_CHILD static int become(struct child *c) {
    const struct heist__exec *e = c->e;
    long err = no_handlers();
    if (!err && e->session) err = bare(syscall(SYS_setsid));
    if (err > 0) err = 0;
    if (!err && e->group && !e->session) err = bare(syscall(SYS_setpgid, 0, 0));
    if (!err && e->cwd) err = bare(syscall(SYS_chdir, e->cwd));
    if (!err) err = set_standard(c);
    if (!err) err = set_others(c);
    if (err) return (int)err;
    const uint64_t none = 0;
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, 8);
    return look_and_run(c);
}

IN_CHILD static int child_main(void *arg) {
    struct child *c = arg;
    c->here = 1;
    int err = become(c);
    c->failed = err;
    if (c->pipe[1] >= 0) (void)!syscall(SYS_write, c->pipe[1], &err, sizeof(err));
    return 127;
}

/* ---- the parent ---- */

static _Atomic(int) child_was_here;

/* The search path of the environment that the child gets. */
static const char *path_of(char *const *env) {
    for (; *env; env++)
        if (strncmp(*env, "PATH=", 5) == 0) return *env + 5;
    return "/bin:/usr/bin";
}

/* What a child said through the pipe: 0 when exec closed it. */
static int hear(int fd) {
    int err = 0;
    ssize_t n;
    do n = heist__sys_read(fd, &err, sizeof(err));
    while (n == -EINTR);
    return n == (ssize_t)sizeof(err) ? err : n < 0 ? (int)n : 0;
}

static int make_child(struct child *c, void *stack, int *pidfd) {
    HEIST_SYS_POINT("clone", -1);
    unsigned long flags = CLONE_VM | CLONE_VFORK | SIGCHLD;
    char *top = (char *)stack + CHILD_STACK;
    int pid = (int)heist__vfork(child_main, top, flags | CLONE_PIDFD, c, pidfd);
    if (pid == -EINVAL) pid = (int)heist__vfork(child_main, top, flags, c, pidfd); /* an emulator, as qemu 7 */
    if (pid < 0 || *pidfd >= 0) return pid;
    /* It is not reaped, so its number is its own. */
    *pidfd = heist__sys_pidfd_open(pid);
    if (*pidfd >= 0) return pid;
    int err = *pidfd;
    siginfo_t info;
    heist__sys_kill(pid, SIGKILL);
    while (waitid(P_PID, (id_t)pid, &info, WEXITED) < 0 && errno == EINTR) {}
    return err;
}

static int start(struct child *c, void *stack, pid_t *pid, int *pidfd) {
    sigset_t all, before;
    sigfillset(&all);
    int fd = -1, err = pthread_sigmask(SIG_SETMASK, &all, &before);
    if (err) return -err;
    int answer = make_child(c, stack, &fd);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (c->pipe[1] >= 0) heist__sys_close(c->pipe[1]);
    if (answer < 0) return answer == -EINVAL ? -ENOSYS : answer;
    if (c->here)
        a_store_rlx(&child_was_here, 1); /* rlx: found out once, the same for all */
    else
        c->failed = hear(c->pipe[0]);
    if (c->failed) {
        siginfo_t info;
        while (heist__sys_waitid(fd, &info, 0) == -EINTR) {}
        heist__sys_close(fd);
        return c->failed;
    }
    *pid = answer;
    *pidfd = fd;
    return 0;
}

int heist__exec(const struct heist__exec *e, pid_t *pid, int *pidfd) {
    struct child *c = heist__zalloc(sizeof(*c));
    void *stack = heist__aligned_alloc(16, CHILD_STACK);
    int err = c && stack ? 0 : -ENOMEM;
    if (!err) {
        struct rlimit most;
        c->e = e;
        c->path = strchr(e->argv[0], '/') ? NULL : path_of(e->env);
        c->highest = getrlimit(RLIMIT_NOFILE, &most) == 0 && most.rlim_cur < 65536 ? (unsigned)most.rlim_cur : 65536;
        c->pipe[0] = c->pipe[1] = -1;
        /* rlx: an old answer makes a pipe too many */
        if (!a_load_rlx(&child_was_here)) err = heist__sys_pipe(c->pipe);
    }
    if (!err) {
        err = start(c, stack, pid, pidfd);
        if (c->pipe[0] >= 0) heist__sys_close(c->pipe[0]);
    }
    heist__free(stack);
    heist__free(c);
    return err;
}
