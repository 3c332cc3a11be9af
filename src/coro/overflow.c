/* The overflow report: installing, the alternate stacks, and the handler.
 *
 * Threads: see overflow.h.  The handler runs on the faulting thread, on its
 * alternate stack, at any moment; it takes no lock and calls only what a handler may.
 *
 * Two counters: `users` says whether we want to be in the chain of handlers; `chained`
 * whether we are.  They differ when somebody put his handler over ours: then ours
 * cannot be taken out, for his may call it, and it stays, passing on what comes.
 *
 * Invariant: earlier[] is written before our handler can run, and not while it is in
 * the chain. */
#include "coro/overflow.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/macros.h"
#include "conc/atomic.h"
#include "conc/spin.h"

#ifndef AT_MINSIGSTKSZ
#define AT_MINSIGSTKSZ 51
#endif

static const int signals[2] = {SIGSEGV, SIGBUS};

static struct heist__spin lock; /* of the next three */
static unsigned users;
static bool chained[2];
static struct sigaction earlier[2];

_Atomic(heist__overflow_describe_fn) heist__overflow_describe;

/* ---- the line ---- */

struct line {
    char text[512];
    size_t used;
};

static void add(struct line *l, const char *s) {
    size_t n = strlen(s), room = sizeof l->text - l->used;
    if (n > room) n = room;
    memcpy(l->text + l->used, s, n);
    l->used += n;
}

static void add_number(struct line *l, size_t n) {
    char digits[24];
    char *at = digits + sizeof digits - 1;
    *at = 0;
    do *--at = (char)('0' + n % 10);
    while (n /= 10);
    add(l, at);
}

/* No owner: the guard of a stack that nobody has, hit by a wild pointer. */
static void report(struct heist__stack *owner) {
    struct line l = {.used = 0};
    if (owner) {
        char who[320];
        heist__overflow_describe_fn describe = a_load_acq(&heist__overflow_describe); /* acq: what its setter wrote */
        size_t n = describe ? describe(owner, who, sizeof who) : 0;
        who[n < sizeof who ? n : sizeof who - 1] = 0;
        add(&l, "heist: stack overflow in ");
        add(&l, n ? who : "a coroutine");
        add(&l, ": its stack of ");
        add_number(&l, owner->bytes);
        add(&l, " bytes is full");
        if (owner->bytes < HEIST__STACK_MAX) {
            add(&l, "; give it stack_bytes = ");
            add_number(&l, owner->bytes * 2);
        }
        add(&l, "\n");
    } else {
        add(&l, "heist: access to the guard page of a coroutine stack that is not in use\n");
    }
    if (write(STDERR_FILENO, l.text, l.used) < 0) return; /* nobody listens; the signal goes on */
}

/* ---- the handler ---- */

static void take_default(int sig) {
    struct sigaction dfl;
    memset(&dfl, 0, sizeof dfl);
    dfl.sa_handler = SIG_DFL;
    sigemptyset(&dfl.sa_mask);
    sigaction(sig, &dfl, NULL);
}

/* As if our handler were not there. */
static void pass_on(int sig, siginfo_t *info, void *context) {
    const struct sigaction *old = &earlier[sig == SIGBUS];
    bool from_fault = info->si_code > 0 && info->si_code != SI_KERNEL;
    if (old->sa_flags & SA_SIGINFO) {
        old->sa_sigaction(sig, info, context);
    } else if (old->sa_handler == SIG_IGN && !from_fault && info->si_code != SI_KERNEL) {
        return;
    } else if (old->sa_handler == SIG_DFL || old->sa_handler == SIG_IGN) {
        /* A fault is repeated on return, and ends the process where it happened.  A
         * signal that somebody sent is sent again; it waits until we return. */
        take_default(sig);
        if (!from_fault) raise(sig);
    } else {
        old->sa_handler(sig);
    }
}

/* Where the interrupted code's stack stood. */
static uintptr_t stack_pointer(const void *context) {
    const ucontext_t *uc = context;
#if defined(__x86_64__)
    return (uintptr_t)uc->uc_mcontext.gregs[REG_RSP];
#else
    return (uintptr_t)uc->uc_mcontext.sp;
#endif
}

/* A signal whose frame does not fit on the stack: the kernel tells no address, for no instruction faulted.  Then
 * the guard lies in what the frame would have taken: red zone and registers below the stack pointer. */
static bool frame_meets_guard(const void *context, struct heist__stack **owner) {
    uintptr_t sp = stack_pointer(context), bytes = 128 + 512 + (uintptr_t)getauxval(AT_MINSIGSTKSZ);
    for (uintptr_t below = 0; below < bytes; below += 1024)
        if (heist__stack_contains_guard((const void *)(sp - below), owner)) return true;
    return heist__stack_contains_guard((const void *)(sp - bytes), owner);
}

static void on_fault(int sig, siginfo_t *info, void *context) {
    int saved = errno;
    struct heist__stack *owner;
    bool ours = info->si_code > 0 && heist__stack_contains_guard(info->si_addr, &owner);
    if (!ours && info->si_code == SI_KERNEL && !info->si_addr) ours = frame_meets_guard(context, &owner);
    if (ours) report(owner);
    errno = saved;
    pass_on(sig, info, context);
}

static bool is_ours(const struct sigaction *sa) { return (sa->sa_flags & SA_SIGINFO) && sa->sa_sigaction == on_fault; }

/* With the lock. */
static int chain(int i) {
    if (chained[i]) return 0; /* still under somebody's handler */
    if (sigaction(signals[i], NULL, &earlier[i]) < 0) return -errno;
    struct sigaction sa;
    memset(&sa, 0, sizeof sa);
    sa.sa_sigaction = on_fault;
    sa.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&sa.sa_mask);
    if (sigaction(signals[i], &sa, NULL) < 0) return -errno;
    chained[i] = true;
    return 0;
}

/* With the lock. */
static void unchain(int i) {
    struct sigaction now;
    if (!chained[i] || sigaction(signals[i], NULL, &now) < 0 || !is_ours(&now)) return;
    if (sigaction(signals[i], &earlier[i], NULL) == 0) chained[i] = false;
}

int heist__overflow_install(void) {
    int err = 0;
    heist__spin_lock(&lock);
    if (users == 0) {
        err = chain(0);
        if (err == 0) {
            err = chain(1);
            if (err < 0) unchain(0);
        }
    }
    if (err == 0) users++;
    heist__spin_unlock(&lock);
    return err;
}

void heist__overflow_uninstall(void) {
    heist__spin_lock(&lock);
    if (--users == 0) {
        unchain(0);
        unchain(1);
    }
    heist__spin_unlock(&lock);
}

/* ---- alternate stacks ---- */

/* Enough for our handler and one of the program's that comes after it. */
#define ALT_BYTES ((size_t)64 << 10)

static _Thread_local struct {
    unsigned users;
    char *mapped; /* ours; NULL when the thread brought its own */
    size_t bytes;
} alt;

HEIST_NOINLINE int heist__overflow_thread_init(void) {
    if (alt.users++ > 0) return 0;
    stack_t now;
    if (sigaltstack(NULL, &now) == 0 && !(now.ss_flags & SS_DISABLE)) return 0;
    size_t least = (size_t)getauxval(AT_MINSIGSTKSZ); /* the registers of this machine alone */
    size_t bytes = ALT_BYTES + (least + 4095) / 4096 * 4096;
    char *at = heist__map(bytes);
    stack_t mine = {.ss_sp = at, .ss_size = bytes, .ss_flags = 0};
    if (!at || sigaltstack(&mine, NULL) < 0) {
        if (at) heist__unmap(at, bytes);
        alt.users--;
        return -ENOMEM;
    }
    alt.mapped = at;
    alt.bytes = bytes;
    return 0;
}

HEIST_NOINLINE void heist__overflow_thread_fini(void) {
    if (--alt.users > 0 || !alt.mapped) return;
    stack_t now;
    /* Unless somebody put his own in place of ours. */
    if (sigaltstack(NULL, &now) == 0 && now.ss_sp == alt.mapped) {
        stack_t off = {.ss_sp = NULL, .ss_size = 0, .ss_flags = SS_DISABLE};
        sigaltstack(&off, NULL);
    }
    heist__unmap(alt.mapped, alt.bytes);
    alt.mapped = NULL;
}
