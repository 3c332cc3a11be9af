/* The handler, and the lists that it walks.  See trap.h.
 *
 * Why a handler and not signalfd.  A descriptor reads only signals that every thread of the process blocks, and the
 * threads are the host's.  A handler runs on any thread that lets the signal in; what it does is a push to an inbox, or
 * a write to an eventfd, and both end the sleep of a loop.
 *
 *   add       (under the lock) links the trap, then installs the handler if it is the first
 *   handler   inside++, walks the list, inside--
 *   remove    (under the lock) puts the disposition back if it is the last, then unlinks
 *   quiesce   waits until inside is 0
 *
 * `inside` and the links are sequentially consistent: a handler that counted itself after quiesce has read 0 finds the
 * list without the trap; one that counted itself before has left it.  A trap that was unlinked still leads on to those
 * behind it, so a walk that stands on it misses nobody.  A handler that interrupts the thread which removes or
 * waits ends before that goes on, and it takes no lock: nobody waits for himself.
 * A handler that finds nobody has come between the two steps of the last remove: the disposition is back by then,
 * and the signal is raised once more, for that. */
#include "loop/trap.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

#include "base/fork.h"
#include "base/sys.h"
#include "conc/spin.h"

static struct line {
    _Atomic(struct heist__trap *) first;
    struct sigaction before; /* under the lock; what remove puts back */
} lines[HEIST__SIGNALS + 1];

static struct heist__spin lock; /* of add and remove */
static _Atomic(int) inside;

static int tell(struct heist__trap *t, int sig, bool last_resort) {
    int told = 0;
    for (; t; t = a_load_sc(&t->next)) {
        if (t->last_resort != last_resort) continue;
        t->came(t, sig);
        told++;
    }
    return told;
}

static void on_signal(int sig) {
    int saved = errno;
    if (heist__forked()) { /* a child has nobody to tell */
        heist__trap_give_up(sig);
        errno = saved;
        return;
    }
    a_add_sc(&inside, 1);
    struct heist__trap *first = a_load_sc(&lines[sig].first);
    if (!tell(first, sig, false) && !tell(first, sig, true)) raise(sig);
    a_sub_sc(&inside, 1);
    errno = saved;
}

void heist__trap_give_up(int sig) {
    sigaction(sig, &lines[sig].before, NULL);
    raise(sig);
}

int heist__trap_check(int sig) {
    if (sig < 1 || sig > HEIST__SIGNALS) return -EINVAL;
    struct sigaction now;
    if (sigaction(sig, NULL, &now)) return -EINVAL; /* the C library's own */
    switch (sig) {
    case SIGKILL:
    case SIGSTOP:
    case SIGSEGV:
    case SIGBUS:
    case SIGFPE:
    case SIGILL:
    case SIGTRAP:
    case SIGSYS: return -EPERM;
    default: return 0;
    }
}

static bool handled_by(const struct sigaction *a, void (*fn)(int)) {
    return !(a->sa_flags & SA_SIGINFO) && a->sa_handler == fn;
}

static bool may_take(const struct sigaction *now, int how) {
    if (handled_by(now, SIG_DFL)) return true;
    if (handled_by(now, SIG_IGN)) return how != HEIST__TRAP_DEFAULT;
    return how == HEIST__TRAP_REPLACE;
}

static bool has_last_resort(struct heist__trap *t) {
    for (; t; t = a_load_sc(&t->next))
        if (t->last_resort) return true;
    return false;
}

int heist__trap_add(int sig, struct heist__trap *t, int how) {
    int err = heist__trap_check(sig);
    if (err) return err;
    t->last_resort = how == HEIST__TRAP_DEFAULT;
    struct line *l = &lines[sig];
    struct sigaction ours, now;
    memset(&ours, 0, sizeof(ours));
    ours.sa_handler = on_signal;
    ours.sa_flags = SA_ONSTACK | SA_RESTART;
    heist__spin_lock(&lock);
    struct heist__trap *first = a_load_sc(&l->first);
    if (sigaction(sig, NULL, &now)) err = -errno;
    bool installed = !err && handled_by(&now, on_signal);
    if (!err && t->last_resort && has_last_resort(first)) err = -EBUSY;
    if (!err && !installed && !may_take(&now, how)) err = -EBUSY;
    if (!err) {
        a_store_sc(&t->next, first);
        a_store_sc(&l->first, t);
        if (!installed) {
            l->before = now;
            if (sigaction(sig, &ours, NULL)) {
                err = -errno;
                a_store_sc(&l->first, first);
            }
        }
    }
    heist__spin_unlock(&lock);
    return err;
}

void heist__trap_remove(int sig, struct heist__trap *t) {
    struct line *l = &lines[sig];
    struct sigaction now;
    heist__spin_lock(&lock);
    _Atomic(struct heist__trap *) *at = &l->first;
    while (a_load_sc(at) != t) at = &a_load_sc(at)->next;
    struct heist__trap *next = a_load_sc(&t->next);
    bool last = at == &l->first && !next;
    if (last && sigaction(sig, NULL, &now) == 0 && handled_by(&now, on_signal)) sigaction(sig, &l->before, NULL);
    a_store_sc(at, next);
    heist__spin_unlock(&lock);
}

void heist__trap_quiesce(void) {
    while (a_load_sc(&inside)) heist__sys_yield();
}
