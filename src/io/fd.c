/* A descriptor's registration as something to wait for.  See loop/reg.h. */
#include "io/fd.h"

#include <heist/error.h>
#include <math.h>

#include "base/alloc.h"
#include "base/fork.h"
#include "base/sys.h"
#include "conc/self.h"
#include "sched/suspend.h"

struct fd_wait {
    struct heist__wait wait;
    struct heist__reg *reg;
    int direction;
};

static bool publish(struct heist__wait *w, heist_loop *loop) {
    struct fd_wait *f = heist_container_of(w, struct fd_wait, wait);
    /* The one that goes on polling, not that of a thread which sleeps once all is well again. */
    int result = heist__reg_wait(f->reg, f->direction, loop->home, w->park);
    w->code = result == 1 ? 0 : result;
    return result == 1;
}

static void withdraw(struct heist__wait *w) {
    struct fd_wait *f = heist_container_of(w, struct fd_wait, wait);
    heist__reg_unwait(f->reg, f->direction, w->park); /* type-stable: harmless when it is another's by now */
}

int heist__fd_entry(void) {
    struct heist__self *self = heist__self();
    if (heist_unlikely(heist__forked())) return HEIST_EFORKED;
    return self->task ? heist__wait_entry(self) : HEIST_ENOTINCORO;
}

void heist__fd_skipped(void) { heist__wait_skipped(heist__self()); }

int heist__fd_wait(struct heist__reg *r, int direction, int64_t deadline_ns) {
    struct fd_wait f;
    f.reg = r;
    f.direction = direction;
    f.wait.deadline_ns = deadline_ns;
    f.wait.publish = publish;
    f.wait.withdraw = withdraw;
    return heist__wait(&f.wait);
}

void heist__fd_settle(struct heist__reg *r) { heist__reg_settle(r, heist__self()->loop->home); }

int heist__fd_deadline(double deadline, int64_t *out) {
    if (isnan(deadline)) return -EINVAL;
    *out = heist__ns_from_seconds(deadline);
    return 0;
}

void heist__fd_dispose(void *owner, int fd) {
    heist__free(owner);
    if (fd >= 0) heist__sys_close(fd);
}

int64_t heist__fd_now(void) { return heist__clock_now(heist__self()->loop->clock); }
