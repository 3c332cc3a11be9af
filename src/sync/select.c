/* select: one wait, registered at several ports and futures, with one park word.
 *
 * A timer is the wait's own deadline, the earliest of those there are: its end tells which.  A descriptor is
 * looked at before the first try; one that is not ready is a future for as long as the call lasts.
 *
 * Steps of a try, and of the publication, which is a try once more and then the links:
 *   1  the locks of all ports are taken, in the order of their addresses;
 *   2  each case is tried, from one on that is drawn; the first that can go on, does: the others were
 *      not touched.  The locks are let go, and its partner is woken;
 *   3  (publication) none could: a hook is put on each future, a node with its case's number for a
 *      tag into the queue of each port, and the locks are let go.
 * From then on whoever claims the park word, through one node or hook, has decided which case won.
 * The waiter, when it goes on, takes all its other nodes and hooks back.
 *
 * Exactly one case takes effect.  In step 2 only one is tried with success.  In step 3 nothing has been
 * passed; afterwards a party passes a value through a node only when its claim succeeds, one claim does, and none
 * succeeds before step 3, for no node was linked.  (So a select never needs to claim itself and a
 * partner at once: when it matches another select, it has told nobody of itself yet, and the other's
 * nodes stand under locks that it holds.  The two cannot miss each other: one of them held the lock of
 * the port that they share first, and linked its node before it let it go, or passed.)
 *
 * No deadlock: who waits for a port's lock holds only ports of lower addresses, and all others hold
 * one port.  A future's list of waiters is locked last, and who has it locked takes no port.
 *
 * Nothing is lost: a value is handed over with the claim that names the case; a hook of a future gives
 * nothing away; a claim through another node finds the word taken and goes on to the next waiter.
 *
 * When a future is found done while hooks are put (step 3), another may have claimed the word through a
 * hook already.  Both give the code 0, and the waiter then looks which future is done.
 *
 * Fairness: the case with which step 2 begins is drawn by a mixed counter that stands in the first port, so
 * that a seed replays it.  Futures stay done, so among futures alone the first wins. */
#include <heist/error.h>
#include <heist/flow.h>
#include <heist/select.h>
#include <math.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "base/sys.h"
#include "sync/port.h"
#include "task/task.h"

/* So many cases need no memory. */
enum { FEW = 8, MOST_CASES = 65536 };

/* What stands for one case while it waits. */
struct registration {
    struct heist__port *port;   /* or NULL */
    struct heist__waitq *queue; /* with it: where to wait */
    struct heist__port *order; /* the ports, each once, in the order of their addresses; see `ports` */
    heist_future *future;      /* or NULL; ours, when the case is a descriptor */
    union {
        struct heist__waitnode node;
        struct heist__waiter waiter;
    };
    bool in, added; /* added: the hook stands */
    bool ready;     /* a descriptor: it was, when it was looked at */
};

struct selecting {
    struct heist__wait wait;
    heist_select_case *cases;
    struct registration *reg;
    size_t n, ports;
    struct heist__port *full; /* must grow before anything else */
    bool registered, descriptors;
    int64_t timer_ns; /* of the earliest timer, or INT64_MAX */
    int timer;        /* its case */
};

enum { NONE = -1, MUST_GROW = -2 };

static bool is_descriptor(const heist_select_case *c) {
    return c->op == HEIST_SELECT_READABLE || c->op == HEIST_SELECT_WRITABLE;
}

/* HEIST_CASE_READABLE adds one, so that NULL is -1. */
static int descriptor_of(const heist_select_case *c) { return (int)((intptr_t)c->object - 1); }

/* Fills in what each case is; 0 or a code. */
static int survey(struct selecting *s) {
    heist_task *self = heist__self()->task;
    s->ports = 0;
    s->timer_ns = INT64_MAX;
    s->timer = NONE;
    s->descriptors = false;
    for (size_t i = 0; i < s->n; i++) {
        struct registration *r = &s->reg[i];
        unsigned op = s->cases[i].op;
        if (op < HEIST_SELECT_SEND || op > HEIST_SELECT_WRITABLE) return -EINVAL;
        r->port = NULL;
        r->queue = NULL;
        r->future = NULL;
        r->added = r->ready = false;
        r->in = op == HEIST_SELECT_SEND || op == HEIST_SELECT_PUT;
    }
    for (size_t i = 0; i < s->n; i++) {
        heist_select_case *c = &s->cases[i];
        struct registration *r = &s->reg[i];
        if (!c->object) continue;
        switch (c->op) {
        case HEIST_SELECT_SEND:
        case HEIST_SELECT_RECV: r->port = heist__channel_port(c->object); break;
        case HEIST_SELECT_PUT:
        case HEIST_SELECT_GET: r->port = heist__queue_port(c->object); break;
        case HEIST_SELECT_NEXT:
        case HEIST_SELECT_CHANGED: r->port = heist__subscriber_port(c->object, &r->queue); break;
        case HEIST_SELECT_AWAIT:
            if (c->object == self) return HEIST_ESELFAWAIT;
            r->future = c->object;
            break;
        case HEIST_SELECT_AT: {
            double when = *(const double *)c->object;
            if (isnan(when)) return -EINVAL;
            int64_t ns = heist__ns_from_seconds(when);
            if (ns >= s->timer_ns) break;
            s->timer_ns = ns;
            s->timer = (int)i;
            break;
        }
        default: s->descriptors = true; /* without a lock: see look */
        }
        if (!r->port) continue;
        if (!r->queue) r->queue = heist__port_queue(r->port, r->in);
        s->reg[s->ports++].order = r->port;
    }
    return 0;
}

/* The descriptors, as they are now: 0 or a code. */
static int look(struct selecting *s) {
    for (size_t i = 0; s->descriptors && i < s->n; i++) {
        const heist_select_case *c = &s->cases[i];
        if (!is_descriptor(c) || !c->object) continue;
        int found = heist__sys_poll_now(descriptor_of(c), c->op == HEIST_SELECT_READABLE ? POLLIN : POLLOUT);
        if (found < 0) return found;
        if (found & POLLNVAL || descriptor_of(c) < 0) return -EBADF;
        s->reg[i].ready = found != 0;
    }
    return 0;
}

/* Before the wait: the descriptors as futures, of which each ends when it is ready; 0 or a code. */
static int watch(struct selecting *s) {
    int err = 0;
    for (size_t i = 0; s->descriptors && i < s->n && !err; i++) {
        const heist_select_case *c = &s->cases[i];
        unsigned events = c->op == HEIST_SELECT_READABLE ? HEIST_READABLE : HEIST_WRITABLE;
        if (is_descriptor(c) && c->object && !s->reg[i].future)
            err = heist_ready_future(NULL, descriptor_of(c), events, &s->reg[i].future);
    }
    return err;
}

static void unwatch(struct selecting *s) {
    for (size_t i = 0; i < s->n; i++) {
        if (!is_descriptor(&s->cases[i]) || !s->reg[i].future) continue;
        heist_cancel(s->reg[i].future);
        heist_unref(s->reg[i].future);
    }
}

/* Sorts the ports (shell's sort: few, and mostly in order) and leaves each once. */
static void sort_ports(struct selecting *s) {
    struct registration *r = s->reg;
    for (size_t gap = s->ports / 2; gap; gap /= 2)
        for (size_t i = gap; i < s->ports; i++) {
            struct heist__port *p = r[i].order;
            size_t at = i;
            for (; at >= gap && (uintptr_t)r[at - gap].order > (uintptr_t)p; at -= gap) r[at].order = r[at - gap].order;
            r[at].order = p;
        }
    size_t kept = 0;
    for (size_t i = 0; i < s->ports; i++)
        if (!kept || r[kept - 1].order != r[i].order) r[kept++].order = r[i].order;
    s->ports = kept;
}

static void lock_all(struct selecting *s) {
    for (size_t i = 0; i < s->ports; i++) heist__spin_lock(&s->reg[i].order->lock);
}

static void unlock_all(struct selecting *s) {
    for (size_t i = s->ports; i > 0; i--) heist__spin_unlock(&s->reg[i - 1].order->lock);
}

/* Step 2: the index of the case that went on, NONE or MUST_GROW.  What came out and its code stand in `value` and
 * `code`.  Under the locks. */
static int try_all(struct selecting *s, void **value, int *code, struct heist__park **wake) {
    size_t n = s->n, start = 0;
    if (s->ports) start = (size_t)(heist__rng_mix(s->reg[0].order->turns++) % n);
    bool late = s->timer != NONE && s->timer_ns <= heist__clock_now(heist__clock_here());
    for (size_t k = 0; k < n; k++) {
        size_t i = start + k < n ? start + k : start + k - n;
        heist_select_case *c = &s->cases[i];
        struct heist__port *port = s->reg[i].port;
        *value = c->value;
        if (port) {
            *code = port->klass->pass(port, s->reg[i].in, s->reg[i].queue, value, wake);
            if (*code == -EAGAIN) continue;
            if (*code != HEIST__PORT_GROW) return (int)i;
            s->full = port;
            return MUST_GROW;
        }
        const heist_future *f = s->reg[i].future;
        if ((f && heist__future_is_done(f)) || s->reg[i].ready || (late && (int)i == s->timer)) {
            *code = 0;
            return (int)i;
        }
    }
    return NONE;
}

static int finish(struct selecting *s, int won, int code, void *value) {
    heist_select_case *c = &s->cases[won];
    c->code = code;
    if (code == 0 && s->reg[won].port && !s->reg[won].in) c->value = value;
    if (is_descriptor(c) && s->reg[won].future) c->code = heist_future_result(s->reg[won].future, NULL);
    return won;
}

/* Step 3, under the locks: false when a future was done already. */
static bool hook_futures(struct selecting *s) {
    for (size_t i = 0; i < s->n; i++) {
        struct registration *r = &s->reg[i];
        if (!r->future) continue;
        r->waiter.kind = HEIST__WAIT_PARK;
        r->waiter.park = s->wait.park;
        r->added = heist__future_add_waiter(r->future, &r->waiter);
        if (!r->added) return false;
    }
    return true;
}

static void link_ports(struct selecting *s) {
    for (size_t i = 0; i < s->n; i++) {
        struct registration *r = &s->reg[i];
        if (!r->port) continue;
        r->node.park = s->wait.park;
        r->node.value = s->cases[i].value;
        heist__waitq_link(r->queue, &r->node);
        r->node.tag = (int)i + 1;
    }
}

static bool publish(struct heist__wait *w, heist_loop *loop) {
    struct selecting *s = heist_container_of(w, struct selecting, wait);
    struct heist__park *wake = NULL;
    void *value;
    int code;
    (void)loop;
    lock_all(s);
    int won = try_all(s, &value, &code, &wake);
    if (won == NONE) {
        s->registered = true; /* before anybody can claim */
        for (size_t i = 0; i < s->n; i++)
            if (s->reg[i].port) s->reg[i].node.linked = false;
        if (hook_futures(s))
            link_ports(s);
        else
            heist__park_claim(w->park, 0); /* by ourselves, unless another future was faster: the commit fails */
    }
    unlock_all(s);
    if (wake) heist__park_wake(wake);
    if (won == NONE) return true;
    w->code = 0;
    if (won == MUST_GROW) return false;
    s->reg[won].node.value = value;
    s->reg[won].node.result = code;
    w->code = won + 1;
    return false;
}

/* After the wait, however it ended: until each lock was held once, a party may look at our nodes. */
static void withdraw(struct selecting *s) {
    for (size_t i = 0; i < s->n; i++) {
        struct registration *r = &s->reg[i];
        if (r->added) heist__future_remove_waiter(r->future, &r->waiter); /* false: it is done by now */
        r->added = false;
        if (!r->port) continue;
        heist__spin_lock(&r->port->lock);
        heist__waitq_unlink(r->queue, &r->node);
        heist__spin_unlock(&r->port->lock);
    }
}

static int done_future(const struct selecting *s) {
    for (size_t i = 0; i < s->n; i++)
        if (s->reg[i].future && heist__future_is_done(s->reg[i].future)) return (int)i;
    return NONE;
}

static int wait_for_one(struct selecting *s, int64_t deadline_ns) {
    s->registered = false;
    s->full = NULL;
    s->wait.deadline_ns = s->timer_ns < deadline_ns ? s->timer_ns : deadline_ns;
    s->wait.publish = publish;
    s->wait.withdraw = NULL;
    int code = heist__wait(&s->wait);
    if (s->registered) withdraw(s);
    if (code == -ETIMEDOUT && s->timer_ns <= deadline_ns && s->timer != NONE) return finish(s, s->timer, 0, NULL);
    if (code < 0) return code;
    if (code > 0) return finish(s, code - 1, s->reg[code - 1].node.result, s->reg[code - 1].node.value);
    if (s->full) return -EAGAIN; /* once more */
    return finish(s, done_future(s), 0, NULL);
}

static int run(struct selecting *s, bool waits, int64_t deadline_ns) {
    struct heist__self *self = heist__self();
    int err = waits ? heist__wait_entry(self) : heist__forked() ? HEIST_EFORKED : 0;
    if (!err) err = survey(s);
    if (!err) err = look(s);
    if (err) return err;
    sort_ports(s);
    for (;;) {
        struct heist__park *wake = NULL;
        void *value;
        int code;
        lock_all(s);
        int won = try_all(s, &value, &code, &wake);
        unlock_all(s);
        if (wake) heist__park_wake(wake);
        if (won >= 0) {
            if (waits) heist__wait_skipped(heist__self()); /* another thread, perhaps: it may have waited before */
            return finish(s, won, code, value);
        }
        if (won == NONE) {
            err = waits ? watch(s) : -EAGAIN;
            if (err) return err;
            err = wait_for_one(s, deadline_ns);
            if (err != -EAGAIN) return err;
        }
        err = s->full->klass->grow(s->full);
        if (err) return err;
    }
}

static int select_cases(heist_select_case *cases, size_t n, bool waits, int64_t deadline_ns) {
    if ((!cases && n) || n > MOST_CASES) return -EINVAL;
    struct registration few[FEW];
    struct selecting s = {.cases = cases, .n = n, .reg = few, .descriptors = false};
    if (n > FEW) {
        if (heist__forked()) return HEIST_EFORKED;
        s.reg = heist__alloc(n * sizeof(*s.reg));
        if (!s.reg) return -ENOMEM;
    }
    int result = run(&s, waits, deadline_ns);
    if (s.descriptors) unwatch(&s);
    if (n > FEW) heist__free(s.reg);
    return result;
}

int heist_select(heist_select_case *cases, size_t n) { return select_cases(cases, n, true, INT64_MAX); }

int heist_select_until(heist_select_case *cases, size_t n, double deadline) {
    if (isnan(deadline)) return -EINVAL;
    return select_cases(cases, n, true, heist__ns_from_seconds(deadline));
}

int heist_select_try(heist_select_case *cases, size_t n) { return select_cases(cases, n, false, 0); }
