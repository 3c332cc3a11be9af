/* Loops, handles and runtimes at a glance. */
#include <errno.h>
#include <stdio.h>

#include "base/fork.h"
#include "inspect/inspect.h"
#include "loop/handle.h"
#include "sched/sched.h"

int heist_loop_repr(heist_loop *loop, char *buf, size_t size) {
    if (!loop || (!buf && size)) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED; /* a lock may be held by a thread that is not here */
    /* acq: pairs with shut and enter; rlx: each true for itself, and old when it arrives */
    bool closed = a_load_acq(&loop->closed), running = a_load_acq(&loop->running) == HEIST__RUNS;
    heist__spin_lock(&loop->timer_lock);
    size_t timers = heist__timers_count(&loop->timers);
    heist__spin_unlock(&loop->timer_lock);
    return snprintf(buf, size, "<Loop %p %s%s watched=%u timers=%zu>", (void *)loop,
                    closed    ? "closed"
                    : running ? "running"
                              : "stopped",
                    a_load_rlx(&loop->debug) & HEIST__DEBUG ? " debug" : "", a_load_rlx(&loop->watched), timers);
}

int heist_handle_repr(heist_handle *h, char *buf, size_t size) {
    if (!h || (!buf && size)) return -EINVAL;
    uint8_t state = a_load_acq(&h->state); /* acq: pairs with run and cancel */
    static const char *const names[] = {"scheduled", "run", "cancelled"};
    char function[256], when[48] = "";
    heist_describe_address((const void *)(uintptr_t)h->fn, 0, function, sizeof(function));
    if (h->timed) snprintf(when, sizeof(when), " when=%.6f", heist_handle_when(h));
    return snprintf(buf, size, "<Handle %s %s%s>", names[state], h->name ? h->name : function, when);
}

int heist_runtime_repr(heist_runtime *rt, char *buf, size_t size) {
    if (!rt || (!buf && size)) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    bool closing = a_load_acq(&rt->closing), stopping = a_load_acq(&rt->stopping); /* acq: the stop's steps */
    return snprintf(buf, size, "<Runtime %s %s workers=%d tasks=%zu>", rt->name,
                    stopping  ? "stopped"
                    : closing ? "closing"
                              : "running",
                    rt->regular, heist__live_tasks(rt));
}
