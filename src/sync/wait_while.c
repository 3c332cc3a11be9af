/* See wait_while.h. */
#include "sync/wait_while.h"

#include "base/macros.h"
#include "sched/suspend.h"

struct waiting {
    struct heist__wait wait;
    struct heist__waitnode node;
    struct heist__spin *guard;
    struct heist__waitq *queue; /* guard */
    bool (*waits)(const void *object, uint64_t arg);
    const void *object;
    uint64_t arg;
};

static bool publish(struct heist__wait *wait, heist_loop *loop) {
    (void)loop;
    struct waiting *w = heist_container_of(wait, struct waiting, wait);
    heist__spin_lock(w->guard);
    bool waits = w->waits(w->object, w->arg);
    if (waits) {
        w->node.park = wait->park;
        heist__waitq_link(w->queue, &w->node);
    }
    heist__spin_unlock(w->guard);
    return waits;
}

static void withdraw(struct heist__wait *wait) {
    struct waiting *w = heist_container_of(wait, struct waiting, wait);
    heist__spin_lock(w->guard);
    heist__waitq_unlink(w->queue, &w->node);
    heist__spin_unlock(w->guard);
}

int heist__wait_while(struct heist__spin *guard, struct heist__waitq *queue,
                      bool (*waits)(const void *object, uint64_t arg), const void *object, uint64_t arg,
                      int64_t deadline_ns) {
    struct waiting w;
    w.guard = guard;
    w.queue = queue;
    w.waits = waits;
    w.object = object;
    w.arg = arg;
    w.node.linked = false;
    w.wait.deadline_ns = deadline_ns;
    w.wait.publish = publish;
    w.wait.withdraw = withdraw;
    return heist__wait(&w.wait);
}
