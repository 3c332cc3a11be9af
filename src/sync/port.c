/* Waiting at a port.  See port.h. */
#include "sync/port.h"

static void link_node(struct heist__passing *p, struct heist__park *park) {
    p->node.park = park;
    heist__waitq_link(p->queue, &p->node);
}

/* On the worker's stack, with the lock held since the look; commit_wait of suspend.c has the reasons. */
bool heist__port_commit(heist_task *t, void *passing) {
    struct heist__passing *p = passing;
    heist__park_arm(&t->park);
    link_node(p, &t->park);
    heist__spin_unlock(&p->port->lock);
    if (heist_unlikely(p->wait.deadline_ns != INT64_MAX))
        heist__wait_timer_arm(&p->wait.timer, heist__self()->loop, &t->park, p->wait.deadline_ns, -ETIMEDOUT);
    if (!heist__park_commit(&t->park)) return false; /* claimed already: goes on by itself */
    heist__cancel_look(t);
    return true;
}

static bool publish(struct heist__wait *w, heist_loop *loop) {
    (void)loop;
    struct heist__passing *p = heist_container_of(w, struct heist__passing, wait);
    struct heist__park *wake = NULL;
    void *value = p->node.value;
    heist__spin_lock(&p->port->lock);
    int err = p->port->klass->pass(p->port, p->in, p->queue, &value, &wake);
    if (err == -EAGAIN) link_node(p, w->park);
    heist__spin_unlock(&p->port->lock);
    if (wake) heist__park_wake(wake);
    if (err == -EAGAIN) return true;
    p->node.value = value;
    w->code = err;
    return false;
}

void heist__port_withdraw(struct heist__wait *w) {
    struct heist__passing *p = heist_container_of(w, struct heist__passing, wait);
    heist__spin_lock(&p->port->lock);
    heist__waitq_unlink(p->queue, &p->node);
    heist__spin_unlock(&p->port->lock);
}

int heist__port_wait(struct heist__passing *p) {
    p->node.linked = false;
    p->wait.publish = publish;
    p->wait.withdraw = heist__port_withdraw;
    return heist__wait(&p->wait);
}

static HEIST_NOINLINE int pass_again(struct heist__port *port, const struct heist__port_class *klass, bool in,
                                     struct heist__waitq *queue, void **value, int64_t deadline_ns) {
    return heist__port_pass_once(port, klass, in, queue, value, deadline_ns);
}

HEIST_COLD int heist__port_grow_and_pass(struct heist__port *port, const struct heist__port_class *klass, bool in,
                                         struct heist__waitq *queue, void **value, int64_t deadline_ns) {
    int err;
    do {
        err = klass->grow ? klass->grow(port) : -EAGAIN; /* who cannot grow never asks for it */
        if (err) return err;
        err = pass_again(port, klass, in, queue, value, deadline_ns);
    } while (err == HEIST__PORT_GROW);
    return err;
}
