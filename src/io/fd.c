/* A descriptor's registration as something to wait for.  See loop/reg.h. */
#include "io/fd.h"

#include <heist/error.h>
#include <heist/socket.h>
#include <heist/task.h>
#include <math.h>

#include "base/alloc.h"
#include "base/fork.h"
#include "base/sys.h"
#include "conc/self.h"
#include "loop/fds.h"
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

static struct heist__feed *make_feed(struct heist__reg *r, unsigned kind) {
    uint64_t data;
    heist_loop *loop = heist__reg_feed(r, heist__self()->loop->home, &data);
    if (!loop) return NULL;
    struct heist__feed *f = NULL;
    if (heist__feed_wanted(loop, kind)) f = heist__feed_new(loop, kind, r->fd, data);
    heist__loop_release(loop);
    return f;
}

void heist__fd_feed(struct heist__reg *r, unsigned kind, _Atomic(struct heist__feed *) *feed, bool *wanted) {
    struct heist__feed *f = a_load_acq(feed); /* acq: pairs with the exchange below */
    if (!f) {
        if (heist__feed_wanted(heist__self()->loop->home, kind)) f = make_feed(r, kind);
        struct heist__feed *none = NULL;
        if (f && !a_cas_ar(feed, &none, f)) { /* ar: publishes the new one, or sees that of another taker */
            heist__feed_end(f);
            f = none;
        }
    }
    if (f && !heist__feed_arm(f)) return;
    *wanted = false;
    heist__reg_unfeed(r);
}

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

/* ---- guests ---- */

#define READ (1u << HEIST__REG_READ)
#define WRITE (1u << HEIST__REG_WRITE)
#define FAR_ROOM_SECONDS 0.001

_Static_assert(READ == HEIST_READABLE && WRITE == HEIST_WRITABLE, "the bits of the interface are those of the slots");

struct guest_wait {
    struct heist__wait wait;
    struct heist__call *call;
    unsigned directions;
};

static bool publish_guest(struct heist__wait *w, heist_loop *loop) {
    struct guest_wait *g = heist_container_of(w, struct guest_wait, wait);
    int result = heist__reg_ask(g->call->guest, g->directions, loop->home, w->park, g->call->asked);
    w->code = result == 1 ? 0 : result;
    return result == 1;
}

static int wait_once(struct heist__call *c, unsigned directions) {
    struct guest_wait g = {.call = c, .directions = directions};
    g.wait.deadline_ns = c->until;
    g.wait.publish = publish_guest;
    int code = heist__wait(&g.wait);
    /* Also when it was woken: the other direction may stand there still. */
    for (int i = 0; i < 2; i++)
        if (directions & 1u << i) heist__reg_unwait(c->guest, i, g.wait.park);
    return code;
}

int heist__call_wait(struct heist__call *c, unsigned directions) {
    for (;;) {
        int code = wait_once(c, directions);
        if (heist_likely(code != HEIST__REG_STRANGER)) return code;
        /* The guest is a file's that was closed past us: those in it learn that, and we begin another. */
        struct heist__reg *guest = NULL;
        heist__guest_forsake(c->guest);
        code = heist__guest_enter(c->fd, &guest);
        if (code) return code; /* we leave the old one at the end */
        heist__guest_leave(c->guest);
        c->guest = guest;
        c->asked[0] = c->asked[1] = 0;
    }
}

int heist__fd_pause(int64_t until) { return heist__fd_now() >= until ? -ETIMEDOUT : heist_sleep(FAR_ROOM_SECONDS); }

bool heist__fd_room_is_far(int fd, const struct sockaddr *to) {
    return to && to->sa_family == AF_UNIX && heist__sys_look(fd, POLLOUT) & POLLOUT;
}

int heist__call_wait_room(struct heist__call *c, const struct sockaddr *to) {
    return heist__fd_room_is_far(c->fd, to) ? heist__fd_pause(c->until) : heist__call_wait(c, WRITE);
}

int heist__call_check(const struct heist__call *c) {
    if (heist_likely(!(a_load_rlx(&heist__self()->loop->debug) & HEIST__DEBUG))) return 0; /* rlx: a setting */
    int flags = heist__sys_flags(c->fd);
    if (flags < 0 || flags & O_NONBLOCK) return flags < 0 ? flags : 0;
    return heist_fail(-EINVAL, "the descriptor %d is a blocking one", c->fd);
}

int heist__call_begin(struct heist__call *c, int fd, double deadline) {
    if (heist__fd_deadline(deadline, &c->until)) return -EINVAL;
    if (fd < 0) return -EBADF;
    int err = heist__fd_entry();
    if (err) return err;
    c->fd = fd;
    c->asked[0] = c->asked[1] = 0;
    err = heist__guest_enter(fd, &c->guest);
    if (err) heist__fd_skipped(); /* who tries again for ever must give way */
    return err;
}

void heist__call_end(struct heist__call *c) {
    heist__guest_leave(c->guest);
    heist__fd_skipped();
}

/* What of `events` is true; hang-ups and errors make all of it true. */
static int ready_now(int fd, unsigned events) {
    short asked = (short)((events & HEIST_READABLE ? POLLIN : 0) | (events & HEIST_WRITABLE ? POLLOUT : 0));
    int found = heist__sys_look(fd, asked);
    if (found <= 0) return found;
    if (found & POLLNVAL) return -EBADF;
    if (found & (POLLERR | POLLHUP)) return (int)events;
    return (found & POLLIN ? (int)HEIST_READABLE : 0) | (found & POLLOUT ? (int)HEIST_WRITABLE : 0);
}

int heist_fd_wait(int fd, unsigned events, double deadline) {
    if (!events || events & ~(HEIST_READABLE | HEIST_WRITABLE)) return -EINVAL;
    struct heist__call c;
    int code = heist__call_begin(&c, fd, deadline);
    if (code) return code;
    while ((code = ready_now(fd, events)) == 0 && (code = heist__call_wait(&c, events)) == 0) {
    }
    heist__call_end(&c);
    return code;
}
