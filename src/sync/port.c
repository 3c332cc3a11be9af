/* Waiting at a port.  See port.h. */
#include "sync/port.h"

static void link_node(struct heist__passing *p, struct heist__wait *w) {
    p->node.park = w->park;
    heist__waitq_link(p->in ? &p->port->in : &p->port->out, &p->node);
}

/* With the lock held since the look. */
static bool publish_held(struct heist__wait *w, heist_loop *loop) {
    (void)loop;
    struct heist__passing *p = heist_container_of(w, struct heist__passing, wait);
    link_node(p, w);
    heist__spin_unlock(&p->port->lock);
    return true;
}

static bool publish(struct heist__wait *w, heist_loop *loop) {
    (void)loop;
    struct heist__passing *p = heist_container_of(w, struct heist__passing, wait);
    struct heist__park *wake = NULL;
    void *value = p->node.value;
    heist__spin_lock(&p->port->lock);
    int err = p->port->klass->pass(p->port, p->in, p->who, &value, &wake);
    if (err == -EAGAIN) link_node(p, w);
    heist__spin_unlock(&p->port->lock);
    if (wake) heist__park_wake(wake);
    if (err == -EAGAIN) return true;
    p->node.value = value;
    w->code = err;
    return false;
}

static void withdraw(struct heist__wait *w) {
    struct heist__passing *p = heist_container_of(w, struct heist__passing, wait);
    heist__spin_lock(&p->port->lock);
    heist__waitq_unlink(p->in ? &p->port->in : &p->port->out, &p->node);
    heist__spin_unlock(&p->port->lock);
}

int heist__port_wait(struct heist__passing *p) {
    p->wait.publish = p->held ? publish_held : publish;
    p->wait.withdraw = withdraw;
    return heist__wait(&p->wait);
}
