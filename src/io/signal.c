/* Signals as something to wait for.  See heist/signal.h, and loop/trap.h for the handler.
 *
 *   handler   came |= the signal's bit, then a write to the eventfd
 *   next      empties the registration's slot, then looks at `came`, then waits for the slot
 *
 * The eventfd is written and never read, as the loop's own (loop/wake.c): each write makes an edge.  A signal after
 * the look writes after it, so its edge finds the slot empty and stays there, or finds the waiter. */
#include <heist/error.h>
#include <heist/signal.h>

#include "base/alloc.h"
#include "base/fork.h"
#include "base/options.h"
#include "base/sys.h"
#include "conc/atomic.h"
#include "io/fd.h"
#include "loop/trap.h"
#include "loop/wake.h"

struct ear {
    struct heist__trap trap;
    struct heist_signals *of;
    int sig;
};

struct heist_signals {
    struct heist__reg *reg; /* its descriptor is the eventfd */
    int fd;
    _Atomic(uint64_t) came; /* a bit for each signal */
    size_t count;
    struct ear ears[];
};

static uint64_t bit(int sig) { return (uint64_t)1 << (sig - 1); }

/* In the handler.  A full counter is readable too, but makes no edge: it is emptied, by whoever meets it. */
static void came(struct heist__trap *trap, int sig) {
    heist_signals *s = heist_container_of(trap, struct ear, trap)->of;
    struct heist__wake wake = {s->fd};
    if (!(a_or_sc(&s->came, bit(sig)) & bit(sig))) heist__wake_signal(&wake);
}

static void remove_ears(heist_signals *s, size_t count) {
    for (size_t i = 0; i < count; i++) heist__trap_remove(s->ears[i].sig, &s->ears[i].trap);
    if (count) heist__trap_quiesce();
}

static int check(const int *signals, size_t count, const heist_signal_options *opts) {
    uint64_t seen = 0;
    if (!signals || !count || count > HEIST__SIGNALS || !heist__options_ok(opts, sizeof(*opts)) ||
        (opts && (opts->flags & ~HEIST_SIGNAL_REPLACE || opts->arg_free || opts->context)))
        return -EINVAL;
    for (size_t i = 0; i < count; i++) {
        int err = heist__trap_check(signals[i]);
        if (err) return err;
        if (seen & bit(signals[i])) return -EINVAL;
        seen |= bit(signals[i]);
    }
    return 0;
}

static int make(size_t count, heist_signals **out) {
    heist_signals *s = heist__zalloc(sizeof(*s) + count * sizeof(s->ears[0]));
    if (!s) return -ENOMEM;
    s->count = count;
    s->fd = heist__sys_eventfd(0);
    int err = s->fd < 0 ? s->fd : 0;
    if (!err) {
        s->reg = heist__reg_new(s->fd, s, heist__fd_dispose);
        if (!s->reg) {
            err = -ENOMEM;
            heist__sys_close(s->fd);
        }
    }
    if (err)
        heist__free(s);
    else
        *out = s;
    return err;
}

int heist_signals_open(const int *signals, size_t count, const heist_signal_options *opts, heist_signals **out) {
    int err = out ? check(signals, count, opts) : -EINVAL;
    if (err) return err;
    if (heist__fork_guard()) return -ENOMEM;
    if (heist__forked()) return HEIST_EFORKED;
    heist_signals *s = NULL;
    err = make(count, &s);
    if (err) return err;
    int how = opts && opts->flags & HEIST_SIGNAL_REPLACE ? HEIST__TRAP_REPLACE : HEIST__TRAP_SHARE;
    size_t i = 0;
    for (; i < count && !err; i++) {
        s->ears[i].sig = signals[i];
        s->ears[i].of = s;
        s->ears[i].trap.came = came;
        err = heist__trap_add(signals[i], &s->ears[i].trap, how);
    }
    if (err) {
        remove_ears(s, i - 1);
        heist__reg_close(s->reg);
        return err;
    }
    *out = s;
    return 0;
}

/* Takes the lowest: its number, or 0. */
static int take(heist_signals *s) {
    uint64_t had = a_load_sc(&s->came);
    while (had)
        if (a_cas_sc(&s->came, &had, had & (had - 1))) return __builtin_ctzll(had) + 1;
    return 0;
}

static int next(heist_signals *s, int64_t until) {
    for (;;) {
        int err = heist__reg_begin(s->reg, HEIST__REG_READ, false);
        if (err < 0) return err;
        int sig = take(s);
        if (sig) return sig;
        err = heist__fd_wait(s->reg, HEIST__REG_READ, until);
        if (err) return err;
    }
}

int heist_signals_next(heist_signals *s, double deadline) {
    int64_t until;
    if (!s || heist__fd_deadline(deadline, &until)) return -EINVAL;
    int err = heist__fd_entry();
    if (err) return err;
    struct heist__reg *r = s->reg;
    int sig = heist__reg_enter(r);
    if (!sig) {
        sig = next(s, until);
        heist__reg_leave(r);
    }
    heist__fd_skipped(); /* after a failure too: who tries again for ever must give way */
    return sig;
}

int heist_signals_try_next(heist_signals *s) {
    if (!s) return -EINVAL;
    return heist__forked() ? HEIST_EFORKED : take(s);
}

void heist_signals_close(heist_signals *s) {
    if (!s || heist__forked()) return; /* a child's copy is the parent's */
    remove_ears(s, s->count);
    heist__reg_close(s->reg);
}

int heist_signal_wait(const int *signals, size_t count, double deadline) {
    int64_t until;
    if (heist__fd_deadline(deadline, &until)) return -EINVAL;
    int err = heist__fd_entry();
    if (err) return err;
    heist_signals *s;
    err = heist_signals_open(signals, count, NULL, &s);
    if (err) return err;
    int sig = next(s, until);
    heist__fd_skipped();
    heist_signals_close(s);
    return sig;
}
