/* The life of feeds.  See feed.h, and uring_feed.h for the locks: the ring's, then the feed's, then the buffers'. */
#include "loop/feed.h"

#include <errno.h>
#include <heist/error.h>

#include "loop/poller_uring.h"

#ifdef __has_include
#if __has_include(<linux/io_uring.h>)
#include "loop/uring.h"
#define HAVE_URING 1
#endif
#endif

#ifndef IORING_RECV_MULTISHOT

bool heist__feed_wanted(heist_loop *loop, unsigned kind) { return (void)loop, (void)kind, false; }
struct heist__feed *heist__feed_new(heist_loop *loop, unsigned kind, int fd, uint64_t data) {
    return (void)loop, (void)kind, (void)fd, (void)data, NULL;
}
void heist__feed_end(struct heist__feed *f) { (void)f; }
int heist__feed_arm(struct heist__feed *f) { return (void)f, -ENOSYS; }
int heist__feed_accept(struct heist__feed *f) { return (void)f, HEIST__FEED_ENDED; }
ptrdiff_t heist__feed_recv(struct heist__feed *f, void *buf, size_t size, bool joins) {
    return (void)f, (void)buf, (void)size, (void)joins, HEIST__FEED_ENDED;
}
bool heist__uring_shut(struct heist__uring *u) { return (void)u, false; }
#ifdef HAVE_URING
void heist__feeds_init(struct heist__uring *u) { (void)u; }
bool heist__feed_complete(struct heist__uring *u, const struct io_uring_cqe *c, struct heist__poll_event *event,
                          bool *again) {
    return (void)u, (void)c, (void)event, (void)again, false;
}
void heist__feeds_settle(struct heist__uring *u) { (void)u; }
void heist__feeds_end(struct heist__uring *u) { (void)u; }
#endif

#else

#include <string.h>

#include "base/alloc.h"
#include "base/fork.h"
#include "base/macros.h"
#include "loop/loop.h"
#include "loop/uring_feed.h"

/* ---- its life ---- */

bool heist__feed_wanted(heist_loop *loop, unsigned kind) {
    return loop->poller.uring && loop->poller.feeds & kind && !a_load_acq(&loop->closed); /* acq: pairs with shut */
}

struct heist__feed *heist__feed_new(heist_loop *loop, unsigned kind, int fd, uint64_t data) {
    struct heist__uring *u = loop->poller.uring;
    size_t places = kind == HEIST__FEED_ACCEPT ? HEIST__ACCEPT_ROOM : 0;
    struct heist__feed *f = heist__alloc(sizeof(*f) + places * sizeof(int));
    if (!f) return NULL;
    if (kind == HEIST__FEED_RECV) {
        heist__spin_lock(&u->lock);
        bool none = !heist__buffers_of(u);
        heist__spin_unlock(&u->lock);
        if (none) {
            heist__free(f);
            return NULL;
        }
    }
    memset(f, 0, sizeof(*f));
    f->kind = kind;
    f->fd = fd;
    f->data = data;
    f->ring = u;
    f->watched = &loop->watched;
    f->first = f->last = kind == HEIST__FEED_RECV ? HEIST__NO_BUFFER : 0;
    heist__list_init(&f->link);
    heist__spin_init(&f->lock);
    f->loop = heist__loop_hold(loop);
    return f;
}

static void drop(struct heist__feed *f) {
    if (f->kind == HEIST__FEED_ACCEPT) heist__accept_drop(f);
    else heist__recv_drop(f);
}

/* Under the ring's lock, of one that is out: false, there was no room. */
static bool cancel(struct heist__uring *u, struct heist__feed *f) {
    struct io_uring_sqe *e = f->cancelled ? NULL : heist__uring_entry(u);
    if (e) {
        e->opcode = IORING_OP_ASYNC_CANCEL;
        e->flags = IOSQE_CQE_SKIP_SUCCESS;
        e->addr = (uint64_t)(uintptr_t)f | HEIST__URING_FEED;
        heist__ring_push(&u->ring);
        f->cancelled = true;
    }
    f->cancels = !f->cancelled;
    if (f->cancels) {
        u->feeds_due = true;
        heist__uring_owe(u);
    }
    return e != NULL;
}

void heist__feed_end(struct heist__feed *f) {
    struct heist__uring *u = f->ring;
    heist_loop *loop = f->loop;
    if (heist__forked()) return; /* its ring, and what is in it, is the parent's */
    heist__spin_lock(&u->lock);
    heist__spin_lock(&f->lock);
    f->orphan = true;
    bool out = f->out;
    drop(f);
    heist__spin_unlock(&f->lock);
    if (out && cancel(u, f)) heist__uring_hand_over(u);
    heist__uring_call_out(u);
    heist__spin_unlock(&u->lock);
    if (!out) heist__free(f); /* else it is the ring's, perhaps freed already */
    heist__loop_release(loop);
}

void heist__feed_stop(struct heist__feed *f) {
    struct heist__uring *u = f->ring;
    heist__spin_lock(&u->lock);
    if (f->out && !f->cancelled && cancel(u, f)) heist__uring_hand_over(u);
    heist__uring_call_out(u);
    heist__spin_unlock(&u->lock);
}

int heist__feed_arm(struct heist__feed *f) {
    struct heist__uring *u = f->ring;
    int err = 0;
    heist__spin_lock(&u->lock);
    struct io_uring_sqe *e = NULL;
    if (f->refused) err = -EOPNOTSUPP;
    else if (u->shut) err = HEIST_ECLOSED;
    else if (!f->out && !(e = heist__uring_entry(u))) err = -ENOMEM;
    if (e) {
        if (f->kind == HEIST__FEED_ACCEPT) heist__accept_fill(f, e);
        else heist__recv_fill(f, e);
        e->fd = f->fd;
        e->user_data = (uint64_t)(uintptr_t)f | HEIST__URING_FEED;
        f->cancels = f->cancelled = false;
        heist__spin_lock(&f->lock);
        f->out = true;
        heist__spin_unlock(&f->lock);
        a_add_ar(f->watched, 1); /* ar: as in reg.c's watch: whoever polls sees the feed whole */
        heist__list_push_back(&u->feeds, &f->link);
        heist__ring_push(&u->ring);
        heist__uring_hand_over(u); /* late is good enough */
        heist__uring_call_out(u);
    }
    heist__spin_unlock(&u->lock);
    return err;
}

/* ---- by the ring, under its lock ---- */

void heist__feeds_init(struct heist__uring *u) { heist__list_init(&u->feeds); }

bool heist__feed_complete(struct heist__uring *u, const struct io_uring_cqe *c, struct heist__poll_event *event,
                          bool *again) {
    struct heist__feed *f = (struct heist__feed *)(uintptr_t)(c->user_data & ~HEIST__URING_FEED);
    bool last = !(c->flags & IORING_CQE_F_MORE);
    if (last) {
        heist__list_remove(&f->link);
        f->cancels = false;
        a_sub_rlx(f->watched, 1); /* rlx: a count that the owner looks at each turn */
    }
    heist__spin_lock(&f->lock);
    unsigned before = f->kept;
    if (f->kind == HEIST__FEED_ACCEPT) heist__accept_keep(f, c);
    else heist__recv_keep(f, c);
    if (last) f->out = false;
    if (c->res >= 0) f->failures = 0;
    else if (c->res == -EINVAL || c->res == -EOPNOTSUPP) f->refused = true; /* the kernel does not know it */
    else if (c->res != -ECANCELED && ++f->failures == HEIST__FEED_FAILURES) f->refused = true;
    bool orphan = f->orphan, told = !orphan && (last || (!before && f->kept));
    bool much = f->kept >= (f->kind == HEIST__FEED_ACCEPT ? HEIST__ACCEPT_MOST : HEIST__RECV_MOST);
    heist__spin_unlock(&f->lock);
    if (told) *event = (struct heist__poll_event){f->data, HEIST__POLL_IN, 0};
    if (last && orphan) heist__free(f); /* an owner can be in feed_end, but not past the ring's lock */
    if (!last && much && !f->cancelled && cancel(u, f)) *again = true;
    return told;
}

void heist__feeds_settle(struct heist__uring *u) {
    if (!u->feeds_due) return;
    u->feeds_due = false;
    struct heist__link *l;
    heist__list_for_each(l, &u->feeds) {
        struct heist__feed *f = heist__list_entry(l, struct heist__feed, link);
        if (f->cancels) (void)cancel(u, f);
    }
}

bool heist__uring_shut(struct heist__uring *u) {
    struct heist__link *l;
    heist__spin_lock(&u->lock);
    u->shut = true;
    heist__list_for_each(l, &u->feeds) {
        struct heist__feed *f = heist__list_entry(l, struct heist__feed, link);
        f->cancelled = false; /* each time anew */
        (void)cancel(u, f);
    }
    heist__uring_hand_over(u);
    heist__uring_call_out(u);
    bool more = !heist__list_empty(&u->feeds);
    heist__spin_unlock(&u->lock);
    return more;
}

void heist__feeds_end(struct heist__uring *u) {
    if (u->buffers) heist__buffers_free(u->buffers);
}

#endif
