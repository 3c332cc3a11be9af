/* Something that values go into and come out of, and the one way to wait at it: channels,
 * queues, receivers of broadcasts and watches.  select waits at several of them.
 *
 * Each kind has one function `pass`, which under the port's lock puts a value in or takes
 * one out, or says -EAGAIN.  What it says -EAGAIN to is linked in a queue without the lock
 * having been let go: so nobody can pass between the look and the link, and nobody looks
 * twice.  A port has two queues, of those who wait to put in, and to take out; where each
 * receiver has a queue of its own, under the same lock, that one is named instead.
 *
 * A task waits with the lock held: it leaves its stack, and the commit, on the stack of the
 * same thread, links the node and lets the lock go.  Between the two stands the way from one
 * stack to the other, no code of a user and no other lock.  (Where debug mode looks at that
 * place for locks left behind, and in a plain thread, whose parker may need memory, the lock
 * is let go first, and the publication looks again.)
 *
 * Order of locks: select alone holds several ports, and takes them in the order of their
 * addresses.  Under a port's lock may stand that of a future's waiters and a loop's timers. */
#ifndef HEIST_SYNC_PORT_H
#define HEIST_SYNC_PORT_H

#include <heist/broadcast.h>
#include <heist/channel.h>
#include <heist/error.h>
#include <heist/queue.h>
#include <heist/watch.h>

#include "base/fork.h"
#include "sync/waitq.h"

struct heist__port;

/* What pass says beside 0, -EAGAIN and codes: its store must grow, which is done without the lock. */
#define HEIST__PORT_GROW 1

struct heist__port_class {
    /* in: puts *value in; else: takes *value out.  With -EAGAIN the caller may link himself in `queue`.
     * *wake: whom to wake after the unlock.  Under the lock. */
    int (*pass)(struct heist__port *p, bool in, struct heist__waitq *queue, void **value, struct heist__park **wake);
    int (*grow)(struct heist__port *p); /* 0 or -ENOMEM; no lock held */
};

struct heist__port {
    struct heist__spin lock;
    uint16_t turns; /* of select; under the lock, as the queues */
    bool closed;    /* the kind's own, under the lock */
    const struct heist__port_class *klass;
    struct heist__waitq in, out; /* who waits to put in, and to take out */
};

static inline void heist__port_init(struct heist__port *p, const struct heist__port_class *klass) {
    heist__spin_init(&p->lock);
    p->klass = klass;
}

/* For select. */
struct heist__port *heist__channel_port(heist_channel *c);
struct heist__port *heist__queue_port(heist_queue *q);
/* Of a receiver or a watcher; *queue: its own. */
struct heist__port *heist__subscriber_port(void *r, struct heist__waitq **queue);

struct heist__passing {
    struct heist__wait wait;
    struct heist__waitnode node;
    struct heist__port *port;
    struct heist__waitq *queue;
    bool in;
};

/* port.c: behind a task that left with the lock held. */
bool heist__port_commit(heist_task *t, void *passing);
/* port.c: waits, without the lock.  HEIST__PORT_GROW: look again. */
int heist__port_wait(struct heist__passing *p);
void heist__port_withdraw(struct heist__wait *w);

/* Waits, with the lock held, which is let go.  In its caller, and the caller in the public call: each function
 * through which a task goes back after a switch is a return that is mispredicted. */
static inline __attribute__((always_inline)) int heist__port_wait_held(struct heist__self *self, heist_task *t,
                                                                       struct heist__passing *p) {
    struct heist__worker *w = self->worker;
    p->wait.timer.loop = NULL;
    w->commit = heist__port_commit;
    w->commit_arg = p;
    heist__coro_leave(&w->host, t->coro, NULL);
    /* Here on another thread, perhaps: self and w are stale. */
    int code = heist__park_code(&t->park);
    if (heist_unlikely(p->wait.timer.loop != NULL)) heist__wait_timer_disarm(&p->wait.timer);
    if (heist_unlikely(code)) heist__port_withdraw(&p->wait);
    return code;
}

static inline struct heist__waitq *heist__port_queue(struct heist__port *port, bool in) {
    return in ? &port->in : &port->out;
}

/* Passes a value, and waits for it in `queue`, NULL: the port's; or HEIST__PORT_GROW.  Inlined, so that each kind has
 * its own pass in it. */
static inline __attribute__((always_inline)) int heist__port_pass_once(struct heist__port *port,
                                                                       const struct heist__port_class *klass, bool in,
                                                                       struct heist__waitq *queue, void **value,
                                                                       int64_t deadline_ns) {
    struct heist__self *self = heist__self();
    if (!queue) queue = heist__port_queue(port, in);
    int err = heist__wait_entry(self);
    if (heist_unlikely(err)) return err;
    struct heist__park *wake = NULL;
    heist__spin_lock(&port->lock);
    err = klass->pass(port, in, queue, value, &wake);
    if (err == -EAGAIN) {
        struct heist__passing p;
        heist_task *t = self->task;
        p.port = port;
        p.queue = queue;
        p.in = in;
        p.node.value = in ? *value : NULL;
        p.node.linked = false; /* the commit links it */
        p.wait.deadline_ns = deadline_ns;
        if (heist_likely(t && !self->worker->locks_watch)) {
            err = heist__port_wait_held(self, t, &p);
        } else {
            heist__spin_unlock(&port->lock);
            err = heist__port_wait(&p);
        }
        if (!err && !in) *value = p.node.value;
        return err;
    }
    heist__spin_unlock(&port->lock);
    if (wake) heist__park_wake(wake);
    if (heist_likely(err != HEIST__PORT_GROW)) heist__wait_skipped(self);
    return err;
}

/* port.c: behind a GROW, until it is something else. */
int heist__port_grow_and_pass(struct heist__port *port, const struct heist__port_class *klass, bool in,
                              struct heist__waitq *queue, void **value, int64_t deadline_ns);

/* The same, and room is made for what wants it.  No loop here: what belongs to the thread (self) would stand in it
 * across a switch, and that it is never used then, a reader or a checker of the machine code would have to believe. */
static inline __attribute__((always_inline)) int heist__port_pass(struct heist__port *port,
                                                                  const struct heist__port_class *klass, bool in,
                                                                  struct heist__waitq *queue, void **value,
                                                                  int64_t deadline_ns) {
    int err = heist__port_pass_once(port, klass, in, queue, value, deadline_ns);
    if (heist_likely(err != HEIST__PORT_GROW)) return err;
    return heist__port_grow_and_pass(port, klass, in, queue, value, deadline_ns);
}

/* The same at once, or -EAGAIN. */
static inline __attribute__((always_inline)) int heist__port_try(struct heist__port *port,
                                                                 const struct heist__port_class *klass, bool in,
                                                                 struct heist__waitq *queue, void **value) {
    if (heist__forked()) return HEIST_EFORKED;
    if (!queue) queue = heist__port_queue(port, in);
    for (;;) {
        struct heist__park *wake = NULL;
        heist__spin_lock(&port->lock);
        int err = klass->pass(port, in, queue, value, &wake);
        heist__spin_unlock(&port->lock);
        if (wake) heist__park_wake(wake);
        if (err != HEIST__PORT_GROW) return err;
        err = klass->grow ? klass->grow(port) : -EAGAIN; /* who cannot grow never asks for it */
        if (err) return err;
    }
}

#endif
