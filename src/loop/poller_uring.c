/* The poller on io_uring; the contract is in poller.h, the queues in ring.h.
 *
 * A registration is a node.  It stands for one poll request at a time in the kernel: of many shots for edges, of one
 * shot otherwise.  A request ends with a completion that says so (no MORE), exactly once: after its shot, when it was
 * cancelled, when the thread that had submitted it is gone (-ECANCELED unasked), or when the completions had no room.
 * Each request of a node has a number, in the completion's user data beside the node's address; only those of the last
 * one count.
 *
 *   node: LIVE ──del──> DEAD ──no request is out any more──> freed
 *   request of a live node:  wanted ──armed──> out ──ended──> wanted again, unless it was a shot that hit
 *                                              └──mod, del──> cancelled, and still out until it has ended
 *
 *   1 edges   a request of many shots tells of each wake-up of the descriptor; when it is armed, of a readiness that is
 *             there.  A request that ended unasked is armed again at once, so what came between is told then.
 *   2 one     a completion is taken out once, under the lock.
 *   3 data    a dead node tells nothing, and its memory stays until the kernel has let go of it.
 *   4 time    a waiter that finds its completion taken by another waits on, for the rest of its time.
 *
 * One short lock guards nodes and queues.  It is held across the system call that hands entries over, which does not
 * wait. What could not be handed over (the kernel has no memory) is tried again at each wait, which then lasts RETRY_NS
 * at most.  Those who are in a longer wait are called out of it by the loop's wake-up descriptor, whose own request has
 * been with the kernel since long before.  None of them is missed:
 *
 *   who waits  deep++;      look at debts: none? wait, for long;  deep--
 *   who owes   debts := 1;  look at deep: anybody? write to the descriptor
 *
 * each sequentially consistent, so one of the two sees the other.  The event may be taken by somebody else before the
 * one in `deep` has come into the kernel: that other one owes from then on, and looks at deep in his turn.  `debts` is
 * cleared when nothing is owed any more, never in between.
 *
 * The kernel does a request's work on the thread that submitted it, between two instructions of its own if need be: a
 * blocking call that is not restarted (epoll_wait, recv with SO_RCVTIMEO) may return EINTR on that thread.  So only
 * workers and waiters arm.  A plain thread leaves the node among those that are due, which is a debt like the others.
 * (Where there is no wake-up descriptor, an entry that does nothing ends the wait under way.)  And a file stays open
 * until its cancelled request has ended, which the thread that armed it does too, at once unless it stands in the
 * kernel and cannot be interrupted. */
#include "loop/poller_uring.h"

#include <errno.h>

#ifdef __has_include
#if __has_include(<linux/io_uring.h>)
#define HAVE_URING 1
#endif
#endif

void heist__ring_op_end(struct heist__ring_op *op, int result) {
    struct heist__park *woken = NULL;
    heist__spin_lock(&op->guard);
    op->done = true;
    op->result = result;
    if (op->waiter && heist__park_claim(op->waiter, 0) == HEIST__CLAIM_WAKE) woken = op->waiter;
    op->waiter = NULL;
    heist__spin_unlock(&op->guard);
    if (woken) heist__park_wake(woken);
}

#ifndef HAVE_URING

int heist__uring_open(struct heist__poller *p) { return (void)p, -ENOSYS; }
void heist__uring_close(struct heist__poller *p) { (void)p; }
int heist__uring_add(struct heist__uring *u, int fd, uint32_t events, uint64_t data) {
    return (void)u, (void)fd, (void)events, (void)data, -ENOSYS;
}
int heist__uring_mod(struct heist__uring *u, int fd, uint32_t events, uint64_t data) {
    return (void)u, (void)fd, (void)events, (void)data, -ENOSYS;
}
int heist__uring_del(struct heist__uring *u, int fd) { return (void)u, (void)fd, -ENOSYS; }
void heist__uring_forget(struct heist__uring *u, int fd) { (void)u, (void)fd; }
int heist__uring_wait(struct heist__uring *u, struct heist__poll_event *events, int max, int64_t timeout_ns) {
    return (void)u, (void)events, (void)max, (void)timeout_ns, -ENOSYS;
}
int heist__uring_submit(struct heist__uring *u, const struct io_uring_sqe *from, struct heist__ring_op *op) {
    return (void)u, (void)from, (void)op, -ENOSYS;
}
void heist__uring_cancel(struct heist__uring *u, struct heist__ring_op *op) { (void)u, (void)op; }

#else

#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>

#ifdef HEIST_VALGRIND
#include <valgrind/valgrind.h>
#else
#define RUNNING_ON_VALGRIND 0
#endif

#include "base/alloc.h"
#include "base/macros.h"
#include "base/sys.h"
#include "conc/self.h"
#include "loop/ring.h"
#include "loop/uring.h"
#include "loop/wake.h"

#define ENTRIES 64u
#define COMPLETIONS 4096u
#define RETRY_NS 5000000
#define SPARES 8u /* so that a wait that needs a node seldom fails for want of memory */

/* What a poll request is told of, whatever else stands in the events of the contract. */
#define ASKED (HEIST__POLL_IN | HEIST__POLL_PRI | HEIST__POLL_OUT | HEIST__POLL_RDHUP)
#define UNASKED (HEIST__POLL_ERR | HEIST__POLL_HUP)

/* User data: see uring.h. */
#define ADDRESS_BITS 48
#define ADDRESS_MASK (((uint64_t)1 << ADDRESS_BITS) - 1)
#define NUMBER_MASK 0x3fffu

struct heist__uring_node {
    struct heist__link link; /* in nodes */
    struct heist__link due;  /* in due, when there is something to be tried again */
    struct heist__uring_node *next;       /* in its bucket, while it is live; among the spares */
    int fd;
    dev_t device; /* with the inode: whether the number still means the file that was registered */
    ino_t inode;
    uint32_t events;
    uint64_t data;
    uint32_t number; /* of the last request */
    unsigned out;    /* requests that have not ended */
    bool live;
    bool armed;   /* the last request is out, and was not cancelled */
    bool wanted;  /* and shall be */
    bool cancels; /* the last request shall be cancelled, and the entry had no room yet */
    bool noisy;   /* an end of what is read was told that nobody asked for: from now on only its edge */
};

/* ---- the table of live nodes ---- */

static struct heist__uring_node **place(struct heist__uring *u, int fd) {
    struct heist__uring_node **at = &u->bucket[(unsigned)fd & (u->buckets - 1)];
    while (*at && (*at)->fd != fd) at = &(*at)->next;
    return at;
}

/* No memory is no failure: the chains are longer. */
static void grow(struct heist__uring *u) {
    size_t n = u->buckets * 2;
    struct heist__uring_node **bucket = heist__zalloc(n * sizeof(*bucket));
    if (!bucket) return;
    for (size_t i = 0; i < u->buckets; i++)
        for (struct heist__uring_node *node = u->bucket[i], *next; node; node = next) {
            next = node->next;
            struct heist__uring_node **at = &bucket[(unsigned)node->fd & (n - 1)];
            node->next = *at;
            *at = node;
        }
    heist__free(u->bucket);
    u->bucket = bucket;
    u->buckets = n;
}

/* ---- requests ---- */

struct io_uring_sqe *heist__uring_entry(struct heist__uring *u) {
    struct io_uring_sqe *e = heist__ring_entry(&u->ring);
    if (e) return e;
    (void)heist__ring_submit(&u->ring);
    return heist__ring_entry(&u->ring);
}

static uint64_t user_data(struct heist__uring_node *n) {
    return (uint64_t)(uintptr_t)n | (uint64_t)(n->number & NUMBER_MASK) << ADDRESS_BITS;
}

void heist__uring_owe(struct heist__uring *u) { a_store_sc(&u->debts, true); }

static void owe(struct heist__uring *u, struct heist__uring_node *n) {
    if (!heist__list_linked(&n->due)) heist__list_push_back(&u->due, &n->due);
    heist__uring_owe(u);
}

static bool cancel(struct heist__uring *u, struct heist__uring_node *n) {
    struct io_uring_sqe *e = heist__uring_entry(u);
    if (!e) return false;
    e->opcode = IORING_OP_ASYNC_CANCEL;
    e->flags = IOSQE_CQE_SKIP_SUCCESS;
    e->addr = user_data(n);
    heist__ring_push(&u->ring);
    n->cancels = n->armed = false;
    return true;
}

static bool arm(struct heist__uring *u, struct heist__uring_node *n) {
    struct io_uring_sqe *e = heist__uring_entry(u);
    if (!e) return false;
    n->number++;
    e->opcode = IORING_OP_POLL_ADD;
    e->fd = n->fd;
    e->poll32_events = n->events & ASKED;
    e->len = n->events & HEIST__POLL_ONESHOT && !n->noisy ? 0 : IORING_POLL_ADD_MULTI;
    e->user_data = user_data(n);
    heist__ring_push(&u->ring);
    n->armed = true;
    n->out++;
    return true;
}

/* The kernel's request as the node wants it; what has no room is due.  By a worker or a waiter. */
static void settle(struct heist__uring *u, struct heist__uring_node *n) {
    if ((n->cancels && !cancel(u, n)) || (n->wanted && !n->armed && !arm(u, n))) owe(u, n);
}

void heist__uring_hand_over(struct heist__uring *u) {
    if (heist__ring_submit(&u->ring)) heist__uring_owe(u);
}

/* The last thing under the lock, wherever debts may have been made, or stay. */
void heist__uring_call_out(struct heist__uring *u) {
    if (heist_likely(!a_load_rlx(&u->debts)) || !a_load_sc(&u->deep)) return; /* rlx: under the lock */
    const uint64_t one = 1;
    if (u->wake >= 0) {
        (void)heist__sys_write(u->wake, &one, sizeof(one)); /* refused: it is full, and its edge is on the way */
        return;
    }
    struct io_uring_sqe *e = heist__uring_entry(u);
    if (!e) return;
    e->opcode = IORING_OP_NOP;
    heist__ring_push(&u->ring);
    heist__uring_hand_over(u);
}

/* By anybody, who goes on with other things. */
static void settle_from(struct heist__uring *u, struct heist__uring_node *n) {
    if (heist__self()->worker) {
        settle(u, n);
    } else {
        if (n->cancels && !cancel(u, n)) owe(u, n);
        if (n->wanted && !n->armed) owe(u, n);
    }
    heist__uring_hand_over(u);
    heist__uring_call_out(u);
}

static void settle_due(struct heist__uring *u) {
    struct heist__link again, *l;
    heist__list_init(&again);
    heist__list_splice_back(&again, &u->due);
    while ((l = heist__list_pop_front(&again))) settle(u, heist__list_entry(l, struct heist__uring_node, due));
    heist__feeds_settle(u);
    if (!heist__ring_submit(&u->ring) && heist__list_empty(&u->due) && !u->feeds_due)
        a_store_rlx(&u->debts, false); /* rlx: under the lock; who sees it late looks once more than he needs to */
}

/* ---- life ---- */

static void spare(struct heist__uring *u, struct heist__uring_node *n) {
    if (!n) return;
    n->next = u->spare;
    u->spare = n;
    u->spares++;
}

/* Under the lock. */
static void node_end(struct heist__uring *u, struct heist__uring_node *n) {
    heist__list_remove(&n->due);
    heist__list_remove(&n->link);
    if (u->spares < SPARES) spare(u, n);
    else heist__free(n);
}

int heist__uring_open(struct heist__poller *p) {
    /* The simulator polls by itself; valgrind (3.19) holds all threads while one waits in a ring. */
    if (heist__simulated() || RUNNING_ON_VALGRIND) return -ENOSYS;
    struct heist__uring *u = heist__zalloc(sizeof(*u));
    if (!u) return -ENOMEM;
    u->buckets = 16;
    u->bucket = heist__zalloc(u->buckets * sizeof(*u->bucket));
    int err = u->bucket ? heist__ring_open(&u->ring, ENTRIES, COMPLETIONS) : -ENOMEM;
    if (err) {
        heist__free(u->bucket);
        heist__free(u);
        return err;
    }
    heist__spin_init(&u->lock);
    heist__list_init(&u->nodes);
    heist__list_init(&u->due);
    heist__feeds_init(u);
    u->wake = -1;
    for (unsigned i = 0; i < SPARES; i++) spare(u, heist__alloc(sizeof(struct heist__uring_node)));
    p->fd = u->ring.fd;
    p->uring = u;
    return 0;
}

void heist__uring_close(struct heist__poller *p) {
    struct heist__uring *u = p->uring;
    struct heist__link *l;
    heist__ring_close(&u->ring);
    heist__feeds_end(u);
    while ((l = heist__list_pop_front(&u->nodes))) heist__free(heist__list_entry(l, struct heist__uring_node, link));
    while (u->spare) {
        struct heist__uring_node *n = u->spare;
        u->spare = n->next;
        heist__free(n);
    }
    heist__free(u->bucket);
    heist__free(u);
}

/* ---- add, mod, del ---- */

/* Whether it can be waited for at all: 0, -EBADF, -EPERM.  The kernel takes a poll of a plain file and calls it ready;
 * epoll knows, and is asked where the type alone does not tell. */
static int pollable(int fd, struct stat *st) {
    int err = heist__sys_fstat(fd, st);
    if (err) return err;
    if (S_ISSOCK(st->st_mode) || S_ISFIFO(st->st_mode) || !(st->st_mode & S_IFMT)) return 0;
    if (S_ISREG(st->st_mode) || S_ISDIR(st->st_mode)) return -EPERM;
    int epfd = heist__sys_epoll_create();
    if (epfd < 0) return epfd;
    struct epoll_event event = {.events = 0};
    err = epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event) ? -errno : 0;
    heist__sys_close(epfd);
    return err;
}

/* Under the lock: it tells nothing any more, and goes when the kernel has let go of it. */
static void retire(struct heist__uring *u, struct heist__uring_node **at) {
    struct heist__uring_node *n = *at;
    *at = n->next;
    u->live--;
    n->live = n->wanted = false;
    n->cancels |= n->armed;
    settle_from(u, n);
    if (!n->out) node_end(u, n);
}

/* The number was closed without del, and means another file.  (Files without an inode of their own look alike.) */
static bool is_stale(const struct heist__uring_node *n, const struct stat *st) {
    return n->device != st->st_dev || n->inode != st->st_ino;
}

int heist__uring_add(struct heist__uring *u, int fd, uint32_t events, uint64_t data) {
    struct stat st;
    int err = pollable(fd, &st);
    if (err) return err;
    struct heist__uring_node *fresh = heist__alloc(sizeof(*fresh));
    heist__spin_lock(&u->lock);
    spare(u, fresh);
    struct heist__uring_node **at = place(u, fd);
    if (*at && is_stale(*at, &st)) {
        retire(u, at);
        at = place(u, fd);
    }
    struct heist__uring_node *n = u->spare;
    err = *at ? -EEXIST : n ? 0 : -ENOMEM;
    if (n) {
        u->spare = n->next;
        u->spares--;
    }
    if (!err) {
        memset(n, 0, sizeof(*n));
        n->fd = fd;
        n->device = st.st_dev;
        n->inode = st.st_ino;
        n->events = events;
        n->data = data;
        n->live = n->wanted = true;
        heist__list_init(&n->due);
        heist__list_push_back(&u->nodes, &n->link);
        *at = n;
        if (++u->live > u->buckets) grow(u);
        settle_from(u, n);
        if (data == HEIST__WAKE_DATA) u->wake = fd; /* its own request goes the other way */
    }
    heist__spin_unlock(&u->lock);
    if (err) heist__free(n);
    return err;
}

int heist__uring_mod(struct heist__uring *u, int fd, uint32_t events, uint64_t data) {
    struct stat st;
    int err = heist__sys_fstat(fd, &st);
    heist__spin_lock(&u->lock);
    struct heist__uring_node **at = place(u, fd), *n = *at;
    if (n && (err || is_stale(n, &st))) {
        retire(u, at);
        n = NULL;
    }
    if (n) {
        n->events = events;
        n->data = data;
        n->wanted = true;
        n->cancels |= n->armed;
        settle_from(u, n);
    }
    heist__spin_unlock(&u->lock);
    return err ? err : n ? 0 : -ENOENT;
}

int heist__uring_del(struct heist__uring *u, int fd) {
    heist__spin_lock(&u->lock);
    struct heist__uring_node **at = place(u, fd);
    bool found = *at != NULL;
    if (fd == u->wake) u->wake = -1;
    if (found) retire(u, at);
    heist__spin_unlock(&u->lock);
    return found ? 0 : -ENOENT;
}

void heist__uring_forget(struct heist__uring *u, int fd) {
    struct stat st;
    int err = heist__sys_fstat(fd, &st);
    heist__spin_lock(&u->lock);
    struct heist__uring_node **at = place(u, fd);
    if (*at && (err || is_stale(*at, &st))) retire(u, at);
    heist__spin_unlock(&u->lock);
}

/* ---- waiting ---- */

/* What a completion of the node's last request tells; 0: nothing. */
static uint32_t events_of(struct heist__uring *u, struct heist__uring_node *n, const struct io_uring_cqe *c) {
    if (c->res > 0) {
        uint32_t events = (uint32_t)c->res & ((n->events & ASKED) | UNASKED);
        /* The kernel adds RDHUP to what is asked for.  As long as the peer has ended its side one shot after the other
         * would hit at once, and nobody wants it. */
        if (!events) n->noisy = true;
        return events;
    }
    if (!c->res || c->res == -ECANCELED) return 0;
    if (c->res == -ENOMEM || c->res == -EAGAIN) {
        owe(u, n); /* later */
        return 0;
    }
    n->wanted = false; /* the descriptor itself: whoever waits tries, and meets it */
    return HEIST__POLL_ERR;
}

/* One completion: whether it is an event. */
static bool take(struct heist__uring *u, const struct io_uring_cqe *c, struct heist__poll_event *event, bool *again) {
    if (!c->user_data) return false; /* a removal that came too late */
    if (c->user_data & HEIST__URING_OP) {
        *event = (struct heist__poll_event){c->user_data & ~HEIST__URING_OP, (uint32_t)c->res, 1};
        return true;
    }
    if (c->user_data & HEIST__URING_FEED) return heist__feed_complete(u, c, event, again);
    struct heist__uring_node *n = (struct heist__uring_node *)(uintptr_t)(c->user_data & ADDRESS_MASK);
    bool last = !(c->flags & IORING_CQE_F_MORE), told = false;
    if (last) n->out--;
    if (n->live && n->armed && (n->number & NUMBER_MASK) == c->user_data >> ADDRESS_BITS) {
        if (last) n->armed = n->cancels = false;
        uint32_t events = n->cancels ? 0 : events_of(u, n, c);
        told = events != 0;
        if (told) {
            *event = (struct heist__poll_event){n->data, events, 0};
            if (n->events & HEIST__POLL_ONESHOT) {
                n->wanted = false;
                n->cancels = n->armed;
            }
        }
        if (((last && n->wanted) || n->cancels) && !heist__list_linked(&n->due)) {
            settle(u, n);
            *again = true;
        }
    }
    if (!n->live && !n->out) node_end(u, n);
    return told;
}

static int reap(struct heist__uring *u, struct heist__poll_event *events, int max) {
    int count = 0;
    bool again = false;
    struct io_uring_cqe c;
    heist__spin_lock(&u->lock);
    bool owed = a_load_rlx(&u->debts); /* rlx: under the lock */
    while (count < max && heist__ring_take(&u->ring, &c)) count += take(u, &c, &events[count], &again);
    if (owed) settle_due(u);
    else if (again) heist__uring_hand_over(u);
    heist__uring_call_out(u);
    heist__spin_unlock(&u->lock);
    return count;
}

/* For at most `left`, 0 to -1 (for ever): 0 or a code. */
static int wait_inside(struct heist__uring *u, int64_t left) {
    a_add_sc(&u->deep, 1);
    bool debts = heist_unlikely(a_load_sc(&u->debts));
    if (debts) {
        a_sub_sc(&u->deep, 1);
        if (left < 0 || left > RETRY_NS) left = RETRY_NS;
    }
    int err = heist__ring_wait(&u->ring, left);
    if (!debts) a_sub_sc(&u->deep, 1);
    return err;
}

int heist__uring_wait(struct heist__uring *u, struct heist__poll_event *events, int max, int64_t timeout_ns) {
    int64_t deadline = INT64_MAX, left = timeout_ns;
    int refused = 0;
    if (timeout_ns > 0 && __builtin_add_overflow(heist__sys_monotonic_ns(), timeout_ns, &deadline))
        deadline = INT64_MAX;
    if (max > HEIST__POLL_MAX) max = HEIST__POLL_MAX;
    for (;;) {
        bool debts = a_load_sc(&u->debts);
        if (heist_unlikely(heist__ring_overflown(&u->ring))) (void)heist__ring_wait(&u->ring, 0);
        bool ready = heist__ring_ready(&u->ring);
        if (ready || debts) {
            int count = reap(u, events, max);
            if (!count && debts) count = reap(u, events, max); /* what was armed just now, and is ready */
            if (count) return count;
            if (ready) refused = 0;
        }
        if (refused || !left) return refused;
        int err = wait_inside(u, left);
        if (err == -EINTR) left = 0; /* a last look */
        /* Of these the kernel says that there are completions to be taken out first; where there are none it is that of
         * the caller, who knows how long to leave it alone. */
        if (err == -EBUSY || err == -EAGAIN) refused = err;
        else if (err && err != -EINTR && err != -ETIME) return err;
        if (timeout_ns > 0 && left) {
            left = deadline - heist__sys_monotonic_ns();
            if (left < 0) left = 0;
        }
    }
}

/* ---- operations ---- */

int heist__uring_submit(struct heist__uring *u, const struct io_uring_sqe *from, struct heist__ring_op *op) {
    int err = -ENOMEM;
    heist__spin_lock(&u->lock);
    struct io_uring_sqe *e = heist__uring_entry(u);
    if (e) {
        *e = *from;
        e->user_data = (uint64_t)(uintptr_t)op | HEIST__URING_OP;
        heist__ring_push(&u->ring);
        heist__uring_hand_over(u); /* late is good enough */
        heist__uring_call_out(u);
        err = 0;
    }
    heist__spin_unlock(&u->lock);
    return err;
}

void heist__uring_cancel(struct heist__uring *u, struct heist__ring_op *op) {
    heist__spin_lock(&u->lock);
    struct io_uring_sqe *e = heist__uring_entry(u);
    if (e) { /* else it ends by itself */
        e->opcode = IORING_OP_ASYNC_CANCEL;
        e->flags = IOSQE_CQE_SKIP_SUCCESS;
        e->addr = (uint64_t)(uintptr_t)op | HEIST__URING_OP;
        heist__ring_push(&u->ring);
        heist__uring_hand_over(u);
        heist__uring_call_out(u);
    }
    heist__spin_unlock(&u->lock);
}

#endif
