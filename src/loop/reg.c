/* Registrations and their slots.  See reg.h. */
#include "loop/reg.h"

#include <heist/error.h>

#include "base/fork.h"
#include "base/sys.h"
#include "coro/coro.h"
#include "loop/fds.h"
#include "loop/loop.h"
#include "mem/slab.h"
#include "task/task.h"

#define ADDRESS_BITS 48
#define ADDRESS_MASK (((uint64_t)1 << ADDRESS_BITS) - 1)
#define GENERATION_MASK (((uint64_t)1 << 14) - 1) /* between the address and the tag */

static uint64_t data_of(const struct heist__reg *r) {
    return HEIST__REG_TAG | ((r->generation & GENERATION_MASK) << ADDRESS_BITS) | ((uintptr_t)r & ADDRESS_MASK);
}

struct heist__reg *heist__reg_new(int fd, void *owner, void (*dispose)(void *owner, int fd)) {
    struct heist__reg *r = heist__slab_get(heist__self(), HEIST__SLAB_REG);
    if (!r) return NULL;
    heist__spin_lock(&r->lock); /* zero in a fresh object; a stale event may look at an old one */
    r->fd = r->polled = fd;
    r->loop = NULL;
    r->hung_up = r->closed = r->guest = r->forsaken = r->unwatched = r->fed = false;
    r->calls = 0;
    a_store_rlx(&r->owner, owner); /* rlx: birth; for heist__reg_expect_near, which may come late */
    r->dispose = dispose;
    r->hook = NULL;
    a_store_rlx(&r->near.task, NULL); /* rlx: see heist__reg_expect_near */
    for (int i = 0; i < 2; i++) r->slots[i] = (struct heist__reg_slot){HEIST__SLOT_EMPTY, false, 0, NULL};
    heist__spin_unlock(&r->lock);
    r->at = NULL;
    if (dispose && fd >= 0) heist__fds_own(r);
    return r;
}

void heist__reg_adopt(struct heist__reg *r, int fd) {
    heist__spin_lock(&r->lock);
    r->fd = r->polled = fd;
    heist__spin_unlock(&r->lock);
    heist__fds_own(r);
}

void heist__reg_unwatch(struct heist__reg *r) {
    if (!r->loop || r->unwatched) return;
    r->unwatched = true;
    if (heist__forked()) return; /* the poller of a forked child is its parent's */
    /* A number that means another file may be another's there. */
    if (r->polled != r->fd || !r->forsaken)
        heist__poller_del(&r->loop->poller, r->polled);
    else
        heist__poller_forget(&r->loop->poller, r->polled);
}

/* Closed, and nobody is inside. */
void heist__reg_end(struct heist__reg *r) {
    heist_loop *loop = r->loop;
    if (r->at) heist__fds_unlink(r); /* before the number is free for another */
    if (loop) {
        if (!r->guest) heist__loop_log(loop, "loop %p: descriptor %d is closed", (void *)loop, r->fd);
        heist__reg_unwatch(r);
        if (r->polled != r->fd) heist__sys_close(r->polled);
        a_sub_rlx(&loop->watched, 1); /* rlx: a count that the owner looks at each turn */
        heist__loop_release(loop);
    }
    if (r->dispose) r->dispose(a_load_rlx(&r->owner), r->fd); /* rlx: birth */
    heist__slab_put(heist__self(), HEIST__SLAB_REG, r);
}

void heist__reg_close(struct heist__reg *r) {
    struct heist__park *woken[2] = {NULL, NULL};
    heist__spin_lock(&r->lock);
    r->generation++;
    r->closed = true;
    for (int i = 0; i < 2; i++) {
        struct heist__reg_slot *s = &r->slots[i];
        if (s->state == HEIST__SLOT_WAITER && heist__park_claim(s->waiter, HEIST_ECLOSED) == HEIST__CLAIM_WAKE)
            woken[i] = s->waiter;
        *s = (struct heist__reg_slot){HEIST__SLOT_CLOSED, false, 0, NULL};
    }
    bool last = r->calls == 0;
    heist__spin_unlock(&r->lock);
    for (int i = 0; i < 2; i++)
        if (woken[i]) heist__park_wake(woken[i]);
    if (last) heist__reg_end(r);
}

int heist__reg_enter(struct heist__reg *r) {
    heist__spin_lock(&r->lock);
    int err = r->closed ? HEIST_ECLOSED : 0;
    if (!err) r->calls++;
    heist__spin_unlock(&r->lock);
    return err;
}

void heist__reg_leave(struct heist__reg *r) {
    heist__spin_lock(&r->lock);
    bool last = --r->calls == 0 && r->closed;
    heist__spin_unlock(&r->lock);
    if (last) heist__reg_end(r);
}

#define LINES_OF_FRAMES 6 /* from the stack pointer up: what a wait in a read, and the read, have there */

/* Each object is type-stable, or was mapped once; and a prefetch of anything at all does no harm. */
void heist__reg_expect_far(uint64_t data) {
    const char *r = (const char *)(uintptr_t)(data & ADDRESS_MASK);
    for (size_t at = 0; at < sizeof(struct heist__reg); at += HEIST_CACHE_LINE) __builtin_prefetch(r + at, 0, 2);
}

void heist__reg_expect_near(uint64_t data) {
    struct heist__reg *r = (struct heist__reg *)(uintptr_t)(data & ADDRESS_MASK);
    struct heist__reg_near *near = &r->near;
    const char *task = a_load_rlx(&near->task); /* rlx, all four: addresses to prefetch, right or not */
    const char *sp = a_load_rlx(&near->sp);
    if (!task) return;
    for (size_t at = 0; at < sizeof(heist_task); at += HEIST_CACHE_LINE) __builtin_prefetch(task + at, 0, 2);
    __builtin_prefetch(a_load_rlx(&near->coro), 0, 2);
    __builtin_prefetch(a_load_rlx(&r->owner), 0, 2);
    for (size_t i = 0; i < LINES_OF_FRAMES; i++) __builtin_prefetch(sp + i * HEIST_CACHE_LINE, 0, 2);
}

static void remember(struct heist__reg *r, struct heist__park *park) {
    heist_task *t = heist_container_of(park, heist_task, park); /* only tasks wait here */
    a_store_rlx(&r->near.task, t); /* rlx, all three: see heist__reg_expect_near */
    a_store_rlx(&r->near.coro, t->coro);
    a_store_rlx(&r->near.sp, t->coro->sp);
}

void heist__reg_event(uint64_t data, uint32_t events) {
    struct heist__reg *r = (struct heist__reg *)(uintptr_t)(data & ADDRESS_MASK);
    static const uint32_t wanted[2] = {
        HEIST__POLL_IN | HEIST__POLL_RDHUP | HEIST__POLL_HUP | HEIST__POLL_ERR,
        HEIST__POLL_OUT | HEIST__POLL_HUP | HEIST__POLL_ERR,
    };
    struct heist__park *woken[2] = {NULL, NULL};
    void (*hook)(void *) = NULL;
    heist__spin_lock(&r->lock);
    bool alive = (r->generation & GENERATION_MASK) == (data >> ADDRESS_BITS & GENERATION_MASK);
    if (heist_unlikely(alive && r->hook)) {
        hook = r->hook;
        r->calls++;
    } else if (alive) {
        if (events & (HEIST__POLL_RDHUP | HEIST__POLL_HUP | HEIST__POLL_ERR | HEIST__POLL_PRI)) r->hung_up = true;
        for (int i = 0; i < 2; i++) {
            struct heist__reg_slot *s = &r->slots[i];
            if (!(events & wanted[i])) continue;
            if (s->state == HEIST__SLOT_EMPTY) {
                s->state = HEIST__SLOT_READY;
            } else if (s->state == HEIST__SLOT_WAITER) {
                int claim = heist__park_claim(s->waiter, 0);
                if (claim == HEIST__CLAIM_WAKE) woken[i] = s->waiter;
                s->state = claim != HEIST__CLAIM_LOST ? HEIST__SLOT_EMPTY : HEIST__SLOT_READY;
                s->waiter = NULL;
            }
        }
    }
    heist__spin_unlock(&r->lock);
    for (int i = 0; i < 2; i++)
        if (woken[i]) heist__park_wake(woken[i]);
    if (heist_likely(!hook)) return;
    hook(a_load_rlx(&r->owner)); /* rlx: birth */
    heist__reg_leave(r);
}

int heist__reg_begin(struct heist__reg *r, int direction, bool drained) {
    heist__spin_lock(&r->lock);
    struct heist__reg_slot *s = &r->slots[direction];
    int result = 1;
    switch (s->state) {
    case HEIST__SLOT_EMPTY: result = !drained || r->hung_up; break;
    case HEIST__SLOT_READY: s->state = HEIST__SLOT_EMPTY; break;
    case HEIST__SLOT_CLOSED: result = HEIST_ECLOSED; break;
    default: result = -EBUSY; break;
    }
    heist__spin_unlock(&r->lock);
    return result;
}

void heist__reg_interrupt(struct heist__reg *r, int direction) {
    struct heist__park *woken = NULL;
    heist__spin_lock(&r->lock);
    struct heist__reg_slot *s = &r->slots[direction];
    if (s->state == HEIST__SLOT_WAITER) {
        /* A lost claim: it ends by its deadline, or is cancelled, and looks at what has changed. */
        if (heist__park_claim(s->waiter, -EINTR) == HEIST__CLAIM_WAKE) woken = s->waiter;
        s->state = HEIST__SLOT_EMPTY;
        s->waiter = NULL;
    } else if (s->state != HEIST__SLOT_CLOSED) {
        s->interrupted = true;
    }
    heist__spin_unlock(&r->lock);
    if (woken) heist__park_wake(woken);
}

/* The words for a guest; an owner asks for both for good, and for urgent data. */
static const uint32_t asked[2] = {HEIST__POLL_IN | HEIST__POLL_RDHUP, HEIST__POLL_OUT};
#define ASKED_FOR_GOOD (asked[0] | asked[1] | HEIST__POLL_PRI)

/* A reader or writer callback watches the same number there: a duplicate is another to the poller, and the two are
 * not in each other's way. */
static HEIST_COLD int add_duplicate(struct heist__reg *r, heist_loop *loop, uint32_t events) {
    int fd = heist__sys_dup(r->fd);
    if (fd < 0) return fd;
    int err = heist__poller_add(&loop->poller, fd, events, data_of(r));
    if (err)
        heist__sys_close(fd);
    else
        r->polled = fd;
    return err;
}

/* Under the lock.  The kernel reports at once what is ready already; its event waits for the lock. */
static int watch(struct heist__reg *r, heist_loop *loop, uint32_t events) {
    /* ar: pairs with poll_events, on any thread: it sees this registration whole, in memory that may be fresh.
     * (The kernel orders it too, but neither the language nor a detector knows.) */
    a_add_ar(&loop->watched, 1);
    events |= HEIST__POLL_EDGE;
    int err = heist__poller_add(&loop->poller, r->fd, events, data_of(r));
    if (heist_unlikely(err == -EEXIST)) err = add_duplicate(r, loop, events);
    if (err)
        a_sub_rlx(&loop->watched, 1); /* rlx: a count that the owner looks at each turn */
    else
        r->loop = heist__loop_hold(loop);
    heist__loop_log(loop, "loop %p: descriptor %d is watched%s", (void *)loop, r->fd, err ? ", in vain" : "");
    return err;
}

/* Under the lock: it is this loop's, whose poller does not know it yet. */
static void place(struct heist__reg *r, heist_loop *loop) {
    a_add_ar(&loop->watched, 1); /* ar: as in watch */
    r->loop = heist__loop_hold(loop);
    r->unwatched = true;
}

static void unplace(struct heist__reg *r) {
    a_sub_rlx(&r->loop->watched, 1); /* rlx: as in watch */
    r->loop = NULL;
    r->unwatched = false;
}

/* Under the lock, before a wait: whoever is asked to wake it is.  *old: to be released, without the lock. */
static int watch_for(struct heist__reg *r, int direction, heist_loop *loop, heist_loop **old) {
    if (heist_likely(r->loop && !r->unwatched)) return 0;
    bool feeds = r->fed && direction == HEIST__REG_READ;
    if (feeds && !r->loop) place(r, loop);
    if (feeds) return 0;
    if (r->loop) { /* watched as of now, by that one */
        *old = loop = r->loop;
        unplace(r);
    }
    return watch(r, loop, r->fed ? asked[HEIST__REG_WRITE] : ASKED_FOR_GOOD);
}

/* Under the lock.  It was registered with a loop that is closed, and polls no more: its descriptor, or connection, has
 * outlived a runtime.  Gives the loop to release, without the lock. */
static HEIST_COLD heist_loop *abandon(struct heist__reg *r) {
    heist_loop *old = r->loop;
    if (!r->unwatched) (void)heist__poller_del(&old->poller, r->polled);
    r->unwatched = false;
    if (r->polled != r->fd) heist__sys_close(r->polled);
    r->polled = r->fd;
    r->loop = NULL;
    a_sub_rlx(&old->watched, 1); /* rlx: nobody looks at it any more */
    return old;
}

/* acq: pairs with shut.  Another loop than its own is rare, and then that is looked at. */
static bool is_abandoned(const struct heist__reg *r, const heist_loop *loop) {
    return heist_unlikely(r->loop && r->loop != loop) && a_load_acq(&r->loop->closed);
}

void heist__reg_settle(struct heist__reg *r, heist_loop *loop) {
    heist__spin_lock(&r->lock);
    if (!r->loop && !r->closed) {
        if (heist_unlikely(loop->poller.feeds & HEIST__FEED_RECV)) place(r, loop);
        else (void)watch(r, loop, ASKED_FOR_GOOD);
    }
    heist__spin_unlock(&r->lock);
}

heist_loop *heist__reg_feed(struct heist__reg *r, heist_loop *loop, uint64_t *data) {
    heist_loop *old = NULL, *mine = NULL;
    heist__spin_lock(&r->lock);
    if (!r->closed) {
        if (is_abandoned(r, loop)) old = abandon(r);
        if (!r->loop) place(r, loop);
        if (!r->unwatched && r->slots[HEIST__REG_WRITE].state == HEIST__SLOT_WAITER) {
            (void)heist__poller_mod(&r->loop->poller, r->polled, asked[HEIST__REG_WRITE] | HEIST__POLL_EDGE, data_of(r));
        } else if (!r->unwatched) {
            (void)heist__poller_del(&r->loop->poller, r->polled);
            if (r->polled != r->fd) heist__sys_close(r->polled);
            r->polled = r->fd;
            r->unwatched = true;
        }
        r->fed = true;
        mine = heist__loop_hold(r->loop);
        *data = data_of(r); /* under the lock, for a close changes it */
    }
    heist__spin_unlock(&r->lock);
    if (old) heist__loop_release(old);
    return mine;
}

void heist__reg_unfeed(struct heist__reg *r) {
    heist__spin_lock(&r->lock);
    if (r->fed) {
        r->fed = false;
        if (r->loop && !r->unwatched)
            (void)heist__poller_mod(&r->loop->poller, r->polled, ASKED_FOR_GOOD | HEIST__POLL_EDGE, data_of(r));
    }
    heist__spin_unlock(&r->lock);
}

int heist__reg_watch(struct heist__reg *r, heist_loop *loop, void (*fn)(void *owner)) {
    heist__spin_lock(&r->lock);
    r->hook = fn;
    int err = watch(r, loop, asked[HEIST__REG_READ]);
    heist__spin_unlock(&r->lock);
    return err;
}

int heist__reg_wait(struct heist__reg *r, int direction, heist_loop *loop, struct heist__park *park) {
    int result = 1;
    heist_loop *old = NULL, *former = NULL;
    heist__spin_lock(&r->lock);
    struct heist__reg_slot *s = &r->slots[direction];
    if (is_abandoned(r, loop)) old = abandon(r);
    if (s->state == HEIST__SLOT_READY) {
        s->state = HEIST__SLOT_EMPTY;
        result = 0;
    } else if (s->state == HEIST__SLOT_CLOSED) {
        result = HEIST_ECLOSED;
    } else if (s->state == HEIST__SLOT_WAITER) {
        result = -EBUSY;
    } else if (s->interrupted) {
        s->interrupted = false;
        result = -EINTR;
    } else {
        int err = watch_for(r, direction, loop, &former);
        if (err) result = err;
    }
    if (result == 1) {
        s->state = HEIST__SLOT_WAITER;
        s->waiter = park;
        remember(r, park);
    }
    heist__spin_unlock(&r->lock);
    if (heist_unlikely(old)) heist__loop_release(old);
    if (heist_unlikely(former)) heist__loop_release(former);
    return result;
}

void heist__reg_outdate(struct heist__reg_slot *slot) {
    if (!++slot->asked) slot->asked = 1; /* zero is nobody's */
}

/* Under the lock. */
static int ask(struct heist__reg *r, unsigned directions, heist_loop *loop) {
    uint32_t events = HEIST__POLL_EDGE;
    bool busy = false;
    for (unsigned i = 0; i < 2; i++) {
        bool wanted = directions & 1u << i, waited = r->slots[i].state == HEIST__SLOT_WAITER;
        if (wanted || waited) events |= asked[i];
        if (!waited) heist__reg_outdate(&r->slots[i]);
        busy |= wanted && waited;
    }
    if (!r->loop) return watch(r, loop, events);
    int err = heist__poller_mod(&r->loop->poller, r->polled, events, data_of(r));
    if (err == -ENOENT || err == -EBADF) return HEIST__REG_STRANGER;
    return err ? err : busy ? -EBUSY : 0;
}

/* Under the lock: nobody has asked since the caller did, so an edge has woken him or is in the slot. */
static bool is_asked(const struct heist__reg *r, unsigned directions, const uint16_t asked_then[2]) {
    for (unsigned i = 0; i < 2; i++)
        if (directions & 1u << i && (!asked_then[i] || r->slots[i].asked != asked_then[i])) return false;
    return r->loop != NULL;
}

/* Under the lock: an edge has come in one of them. */
static bool take_edges(struct heist__reg *r, unsigned directions) {
    bool any = false;
    for (unsigned i = 0; i < 2; i++) {
        if (!(directions & 1u << i) || r->slots[i].state != HEIST__SLOT_READY) continue;
        r->slots[i].state = HEIST__SLOT_EMPTY;
        any = true;
    }
    return any;
}

int heist__reg_ask(struct heist__reg *r, unsigned directions, heist_loop *loop, struct heist__park *park,
                   uint16_t asked_then[2]) {
    heist_loop *old = NULL;
    heist__spin_lock(&r->lock);
    if (!r->closed && is_abandoned(r, loop)) old = abandon(r);
    int result = HEIST_ECLOSED;
    if (!r->closed && is_asked(r, directions, asked_then)) {
        result = take_edges(r, directions) ? 0 : 1;
    } else if (!r->closed) {
        result = ask(r, directions, loop);
        if (!result) result = 1;
    }
    for (int i = 0; result == 1 && i < 2; i++) {
        if (!(directions & 1u << i)) continue;
        struct heist__reg_slot *s = &r->slots[i];
        *s = (struct heist__reg_slot){HEIST__SLOT_WAITER, false, s->asked, park};
        asked_then[i] = s->asked;
    }
    heist__spin_unlock(&r->lock);
    if (heist_unlikely(old)) heist__loop_release(old);
    return result;
}

void heist__reg_unwait(struct heist__reg *r, int direction, struct heist__park *park) {
    heist__spin_lock(&r->lock);
    struct heist__reg_slot *s = &r->slots[direction];
    if (s->state == HEIST__SLOT_WAITER && s->waiter == park) {
        s->state = HEIST__SLOT_EMPTY;
        s->waiter = NULL;
    }
    heist__spin_unlock(&r->lock);
}
