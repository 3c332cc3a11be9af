/* The table of descriptors in use.  See fds.h. */
#include "loop/fds.h"

#include <heist/error.h>

#include "base/macros.h"
#include "base/sys.h"
#include "conc/self.h"
#include "loop/loop.h"
#include "mem/slab.h"

#define LISTS 4096 /* a power of two, and a multiple of LOCKS */
#define LOCKS 64

static struct heist__reg *lists[LISTS];
static struct { HEIST_ALIGNED(HEIST_CACHE_LINE) struct heist__spin lock; } locks[LOCKS];
static _Atomic(unsigned) guests; /* in the table */

static struct heist__spin *lock_of(int fd) { return &locks[(unsigned)fd % LOCKS].lock; }

/* Under the lock, as the next three. */
static void link_in(struct heist__reg *r) {
    struct heist__reg **head = &lists[(unsigned)r->fd % LISTS];
    r->next = *head;
    r->at = head;
    if (r->next) r->next->at = &r->next;
    *head = r;
    if (r->guest) a_add_rlx(&guests, 1); /* rlx: see heist__fds_own */
}

static void link_out(struct heist__reg *r) {
    if (!r->at) return;
    *r->at = r->next;
    if (r->next) r->next->at = r->at;
    r->at = NULL;
    if (r->guest) a_sub_rlx(&guests, 1); /* rlx: likewise */
}

static struct heist__reg *find(int fd, bool guest) {
    struct heist__reg *r = lists[(unsigned)fd % LISTS];
    while (r && (r->fd != fd || r->guest != guest)) r = r->next;
    return r;
}

static void count_call(struct heist__reg *r) {
    heist__spin_lock(&r->lock);
    r->calls++;
    heist__spin_unlock(&r->lock);
}

void heist__fds_own(struct heist__reg *r) {
    struct heist__reg *stale = NULL;
    heist__spin_lock(lock_of(r->fd));
    /* rlx: a guest that is not seen here only learns later that its file is gone. */
    if (heist_unlikely(a_load_rlx(&guests)) && (stale = find(r->fd, true))) {
        count_call(stale);
        link_out(stale);
    }
    link_in(r);
    heist__spin_unlock(lock_of(r->fd));
    if (!stale) return;
    heist__guest_forsake(stale);
    heist__guest_leave(stale);
}

void heist__fds_unlink(struct heist__reg *r) {
    heist__spin_lock(lock_of(r->fd));
    link_out(r);
    heist__spin_unlock(lock_of(r->fd));
}

bool heist__fds_owned(int fd, bool or_guest) {
    heist__spin_lock(lock_of(fd));
    bool found = find(fd, false) || (or_guest && find(fd, true));
    heist__spin_unlock(lock_of(fd));
    return found;
}

/* Under the number's lock. */
static bool is_polled(struct heist__reg *r, const heist_loop *loop) {
    if (!r) return false;
    heist__spin_lock(&r->lock);
    bool yes = r->loop == loop && r->polled == r->fd && !r->unwatched;
    heist__spin_unlock(&r->lock);
    return yes;
}

bool heist__fds_polled(int fd, const heist_loop *loop) {
    heist__spin_lock(lock_of(fd));
    bool yes = is_polled(find(fd, false), loop) || is_polled(find(fd, true), loop);
    heist__spin_unlock(lock_of(fd));
    return yes;
}

int heist__fds_watch(heist_loop *loop, int fd, uint32_t events, uint64_t data, struct heist__reg **past) {
    heist__spin_lock(lock_of(fd)); /* a guest leaves the poller under this lock, and asks it under his own */
    struct heist__reg *r = find(fd, true);
    if (heist_likely(!r)) {
        int err = heist__poller_add(&loop->poller, fd, events, data);
        heist__spin_unlock(lock_of(fd));
        return err;
    }
    heist__spin_lock(&r->lock);
    int err = heist__poller_add(&loop->poller, fd, events, data);
    bool gone = !err && r->loop == loop && r->polled == fd && !r->unwatched; /* else it would have been there already */
    if (gone) {
        r->forsaken = r->closed = true;
        r->calls++;
    }
    heist__spin_unlock(&r->lock);
    if (gone) {
        link_out(r);
        *past = r;
    }
    heist__spin_unlock(lock_of(fd));
    return err;
}

/* 0 and the guest that is there, if any, entered. */
static int join(int fd, struct heist__reg **out) {
    if (find(fd, false)) return -EBUSY;
    struct heist__reg *r = find(fd, true);
    int err = r ? heist__reg_enter(r) : 0;
    if (!err) *out = r;
    return err;
}

int heist__guest_enter(int fd, struct heist__reg **out) {
    struct heist__reg *r = NULL;
    heist__spin_lock(lock_of(fd));
    int err = join(fd, &r);
    heist__spin_unlock(lock_of(fd));
    if (!err && !r) {
        struct heist__reg *mine = heist__reg_new(fd, NULL, NULL); /* without the lock: it may ask for memory */
        if (!mine) return -ENOMEM;
        mine->guest = true;
        mine->calls = 1;
        heist__spin_lock(lock_of(fd));
        err = join(fd, &r);
        if (!err && !r) {
            r = mine;
            mine = NULL;
            link_in(r);
        }
        heist__spin_unlock(lock_of(fd));
        if (mine) heist__reg_end(mine);
    }
    if (!err) *out = r;
    return err;
}

void heist__guest_leave(struct heist__reg *r) {
    struct heist__spin *lock = lock_of(r->fd);
    heist__spin_lock(lock);
    heist__spin_lock(&r->lock);
    bool last = --r->calls == 0;
    if (last) r->generation++; /* an event that is on its way is nobody's */
    heist__spin_unlock(&r->lock);
    if (last) {
        /* Before anybody may close the number: else the poller would forget whoever has it next. */
        heist__reg_unwatch(r);
        link_out(r);
    }
    heist__spin_unlock(lock);
    if (last) heist__reg_end(r);
}

void heist__guest_forsake(struct heist__reg *r) {
    heist__fds_unlink(r);
    heist__spin_lock(&r->lock);
    r->forsaken = true;
    heist__spin_unlock(&r->lock);
    heist__reg_close(r); /* a call is in progress, so it ends nothing */
}

/* Under the registration's lock: whoever waits tries again.  True: somebody waited. */
static bool send_off(struct heist__reg *r, struct heist__park *woken[2]) {
    bool any = false;
    for (int i = 0; i < 2; i++) {
        struct heist__reg_slot *slot = &r->slots[i];
        heist__reg_outdate(slot);
        if (slot->state != HEIST__SLOT_WAITER) continue;
        any = true;
        if (heist__park_claim(slot->waiter, 0) == HEIST__CLAIM_WAKE) woken[i] = slot->waiter;
        slot->state = HEIST__SLOT_EMPTY;
        slot->waiter = NULL;
    }
    return any;
}

/* In one list, under its lock: the first registration of this loop for which somebody waits. */
static bool strand_one(struct heist__reg *r, const heist_loop *loop, struct heist__park *woken[2]) {
    bool any = false;
    for (; r && !any; r = r->next) {
        heist__spin_lock(&r->lock);
        if (r->loop == loop) any = send_off(r, woken);
        heist__spin_unlock(&r->lock);
    }
    return any;
}

void heist__fds_strand(const heist_loop *loop) {
    for (int i = 0; i < LISTS; i++) {
        bool again = true;
        while (again) { /* the wake goes without the lock; each time there is one waiter less */
            struct heist__park *woken[2] = {NULL, NULL};
            heist__spin_lock(lock_of(i));
            again = strand_one(lists[i], loop, woken);
            heist__spin_unlock(lock_of(i));
            for (int k = 0; k < 2; k++)
                if (woken[k]) heist__park_wake(woken[k]);
        }
    }
}

/* One that came in when nobody was told of the close any more, and had registered before it: the poller has forgotten
 * him.  He tries again, and learns that there is no such descriptor.  (One that registers later is told so then.  And
 * one of another file, if the number is that already, tries in vain.) */
static void wake_strays(int fd) {
    struct heist__park *woken[2] = {NULL, NULL};
    heist__spin_lock(lock_of(fd));
    struct heist__reg *r = find(fd, true);
    if (r) count_call(r);
    heist__spin_unlock(lock_of(fd));
    if (!r) return;
    heist__spin_lock(&r->lock);
    send_off(r, woken);
    heist__spin_unlock(&r->lock);
    for (int i = 0; i < 2; i++)
        if (woken[i]) heist__park_wake(woken[i]);
    heist__guest_leave(r);
}

static int close_number(int fd) {
    int err = heist__sys_close(fd);
    wake_strays(fd);
    return err;
}

static void close_it(void *owner, int fd) {
    (void)owner;
    close_number(fd);
}

int heist__guest_close(int fd) {
    int err = 0;
    heist__spin_lock(lock_of(fd));
    struct heist__reg *r = find(fd, true);
    if (find(fd, false)) {
        err = -EBUSY;
    } else if (r) {
        heist__spin_lock(&r->lock);
        if (r->closed) {
            err = -EBADF;
        } else {
            r->closed = true; /* from here on it takes no calls but ours */
            r->calls++;
            r->dispose = close_it;
        }
        heist__spin_unlock(&r->lock);
    }
    heist__spin_unlock(lock_of(fd));
    if (err) return err;
    if (!r) return close_number(fd);
    heist__reg_close(r);
    heist__guest_leave(r);
    return 0;
}
