/* The handler that tells where its thread stands, and who may ask it.  See where.h.
 *
 * The handler takes no lock and allocates nothing.  The walk is the unwinder's of the
 * compiler's library, which every program has that C++ or a backtrace needs; its tables
 * are found without a lock since glibc 2.35 and gcc 12, before by a lock that its own
 * thread may take again. */
#include "coro/where.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>
#include <unwind.h>

#include "base/fork.h"
#include "base/macros.h"

/* By signal.  An entry is written under the lock, and not while our handler stands there. */
static struct heist__spin lock;
static unsigned users[_NSIG];
static bool chained[_NSIG];
static struct sigaction earlier[_NSIG];

/* What a request is told by from every other signal of that number: a code that nobody else sends.  (The kernel leaves
 * those below zero to who sends to himself.  This one is its own SI_DETHREAD, which no handler ever gets; one whose
 * layout it does not know it takes only when every byte behind it is zero, and an emulator leaves others there.)  A
 * request that comes late, a detector having held it back until its thread had gone on, and perhaps to another runtime,
 * is dropped by it, and never passed on. */
#define OUR_CODE (-7)

static _Thread_local struct heist__where *mine;

/* ---- the walk ---- */

struct walk {
    struct heist__where *to;
    uintptr_t from; /* the interrupted instruction; frames above it are the handler's */
    bool begun;
};

static _Unwind_Reason_Code step(struct _Unwind_Context *context, void *arg) {
    struct walk *walk = arg;
    uintptr_t at = (uintptr_t)_Unwind_GetIP(context);
    if (!at) return _URC_END_OF_STACK;
    if (!walk->begun && at != walk->from) return _URC_NO_REASON;
    walk->begun = true;
    walk->to->frame[walk->to->count++] = (void *)at;
    return walk->to->count < HEIST__WHERE_FRAMES ? _URC_NO_REASON : _URC_END_OF_STACK;
}

static uintptr_t interrupted_at(const void *context) {
    const ucontext_t *uc = context;
#if defined(__x86_64__)
    return (uintptr_t)uc->uc_mcontext.gregs[REG_RIP];
#else
    return (uintptr_t)uc->uc_mcontext.pc;
#endif
}

static void take(struct heist__where *w, const void *context) {
    struct walk walk = {w, interrupted_at(context), false};
    w->count = 0;
    _Unwind_Backtrace(step, &walk);
    if (!w->count) w->frame[w->count++] = (void *)walk.from; /* no way past the signal's frame: at least this */
}

/* ---- the handler ---- */

/* As if our handler were not there. */
static void pass_on(int sig, siginfo_t *info, void *context) {
    const struct sigaction *old = &earlier[sig];
    if (old->sa_flags & SA_SIGINFO) {
        old->sa_sigaction(sig, info, context);
    } else if (old->sa_handler == SIG_DFL) {
        struct sigaction dfl;
        memset(&dfl, 0, sizeof dfl);
        dfl.sa_handler = SIG_DFL;
        sigaction(sig, &dfl, NULL);
        raise(sig); /* waits until we return */
    } else if (old->sa_handler != SIG_IGN) {
        old->sa_handler(sig);
    }
}

static void on_signal(int sig, siginfo_t *info, void *context) {
    int saved = errno;
    struct heist__where *w = mine;
    if (info->si_code != OUR_CODE) {
        pass_on(sig, info, context);
    } else if (w && info->si_value.sival_ptr == w && !heist__forked()) { /* in a child: asked of the parent */
        int asked = HEIST__WHERE_ASKED;
        if (a_cas_ar(&w->state, &asked, HEIST__WHERE_TAKING)) { /* ar: one of the answer and the giving up */
            take(w, context);
            a_store_rel(&w->state, HEIST__WHERE_ANSWERED); /* rel: pairs with the asker's look */
        }
    }
    errno = saved;
}

bool heist__where_signal_ok(int sig) {
    static const int never[] = {SIGKILL, SIGSTOP, SIGSEGV, SIGBUS,  SIGILL, SIGFPE,
                                SIGTRAP, SIGABRT, SIGSYS,  SIGCHLD, SIGPIPE};
    if (sig < 1 || sig > SIGRTMAX || (sig > 31 && sig < SIGRTMIN)) return false;
    for (size_t i = 0; i < HEIST_ARRAY_LEN(never); i++)
        if (sig == never[i]) return false;
    return true;
}

static _Unwind_Reason_Code stop_at_once(struct _Unwind_Context *context, void *arg) {
    (void)context;
    (void)arg;
    return _URC_END_OF_STACK;
}

int heist__where_install(int sig) {
    int err = 0;
    _Unwind_Backtrace(stop_at_once, NULL); /* what it sets up at first use it sets up here */
    heist__spin_lock(&lock);
    if (!users[sig] && !chained[sig]) { /* else still under somebody's handler */
        struct sigaction sa;
        memset(&sa, 0, sizeof sa);
        sa.sa_sigaction = on_signal;
        sa.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
        sigfillset(&sa.sa_mask);
        if (sigaction(sig, NULL, &earlier[sig]) < 0 || sigaction(sig, &sa, NULL) < 0)
            err = -errno;
        else
            chained[sig] = true;
    }
    if (!err) users[sig]++;
    heist__spin_unlock(&lock);
    return err;
}

void heist__where_uninstall(int sig) {
    struct sigaction now;
    heist__spin_lock(&lock);
    if (--users[sig] == 0 && sigaction(sig, NULL, &now) == 0 && (now.sa_flags & SA_SIGINFO) &&
        now.sa_sigaction == on_signal && sigaction(sig, &earlier[sig], NULL) == 0)
        chained[sig] = false;
    heist__spin_unlock(&lock);
}

/* ---- the thread that can be asked ---- */

static int set_blocked(int sig, int how, bool *was) {
    sigset_t one, before;
    sigemptyset(&one);
    sigaddset(&one, sig);
    int err = pthread_sigmask(how, &one, &before);
    if (was) *was = sigismember(&before, sig) == 1;
    return -err;
}

HEIST_NOINLINE void heist__where_thread_init(struct heist__where *w, int sig) {
    a_store_rlx(&w->state, HEIST__WHERE_IDLE); /* rlx: nobody asks before `thread` stands */
    w->signal = sig;
    mine = w;
    set_blocked(sig, SIG_UNBLOCK, &w->was_blocked);
    heist__spin_lock(&w->lock);
    w->thread = (int)syscall(SYS_gettid);
    heist__spin_unlock(&w->lock);
}

HEIST_NOINLINE void heist__where_thread_fini(struct heist__where *w) {
    heist__spin_lock(&w->lock);
    w->thread = 0;
    heist__spin_unlock(&w->lock);
    set_blocked(w->signal, SIG_UNBLOCK, NULL); /* one that a task had blocked arrives now */
    if (w->was_blocked) set_blocked(w->signal, SIG_BLOCK, NULL);
    mine = NULL;
}

/* ---- who asks ---- */

int heist__where_ask(struct heist__where *w) {
    int idle = HEIST__WHERE_IDLE;
    if (!a_cas_ar(&w->state, &idle, HEIST__WHERE_ASKED)) return -EBUSY; /* ar: pairs with done, and the handler */
    siginfo_t info;
    memset(&info, 0, sizeof info);
    info.si_code = OUR_CODE;
    info.si_pid = getpid();
    info.si_uid = getuid();
    info.si_value.sival_ptr = w;
    heist__spin_lock(&w->lock);
    info.si_signo = w->signal;
    /* The number cannot be another thread's meanwhile: its owner takes the lock before it ends. */
    long sent = w->thread ? syscall(SYS_rt_tgsigqueueinfo, getpid(), w->thread, w->signal, &info) : -1;
    int err = sent ? (w->thread ? -errno : -ESRCH) : 0;
    heist__spin_unlock(&w->lock);
    if (err) a_store_rel(&w->state, HEIST__WHERE_IDLE); /* rel: pairs with the next ask */
    return err;
}

bool heist__where_give_up(struct heist__where *w) {
    int asked = HEIST__WHERE_ASKED;
    return a_cas_ar(&w->state, &asked, HEIST__WHERE_IDLE); /* ar: as in the handler */
}

void heist__where_done(struct heist__where *w) {
    a_store_rel(&w->state, HEIST__WHERE_IDLE); /* rel: pairs with the next ask */
}
