/* Waiting for what happens to a server.  See server.h. */
#include <heist/error.h>
#include <math.h>

#include "base/fork.h"
#include "net/server.h"
#include "sched/suspend.h"
#include "sync/wait_while.h"

struct asked {
    const heist_server *server;
    bool (*ready)(const heist_server *s, uint64_t arg);
};

static bool not_ready(const void *object, uint64_t arg) {
    const struct asked *a = object;
    return !a->ready(a->server, arg);
}

int heist__server_wait(heist_server *s, struct heist__waitq *q, bool (*ready)(const heist_server *, uint64_t),
                       uint64_t arg, int64_t deadline_ns) {
    struct asked a = {s, ready};
    return heist__wait_while(&s->lock, q, not_ready, &a, arg, deadline_ns);
}

static bool is_over(const heist_server *s, uint64_t arg) {
    (void)arg;
    return heist__server_over(s);
}

static bool is_closed(const heist_server *s, uint64_t arg) {
    (void)arg;
    return s->state == HEIST__SERVER_IS_CLOSED;
}

/* Until ready: 0, or a code.  A wake-up is only a reason to look. */
static int wait_until(heist_server *s, bool (*ready)(const heist_server *, uint64_t), int64_t deadline_ns) {
    for (;;) {
        heist__spin_lock(&s->lock);
        bool yes = ready(s, 0);
        heist__spin_unlock(&s->lock);
        if (yes) return 0;
        int err = heist__server_wait(s, &s->ended, ready, 0, deadline_ns);
        if (err) return err;
    }
}

/* The caller's reference may go as soon as it has returned; the last connection may still be on its way out. */
static int wait_over(heist_server *s, int64_t deadline_ns) {
    heist__server_hold(s);
    if (!heist__self()->task) (void)heist__fork_guard(); /* a plain thread waits, and nothing has made the page yet */
    int err = wait_until(s, is_over, deadline_ns);
    heist__server_drop(s);
    return err;
}

int heist_server_wait_closed_until(heist_server *s, double deadline) {
    if (!s || isnan(deadline)) return -EINVAL;
    int err = heist__wait_entry(heist__self());
    if (err) return err;
    err = wait_over(s, heist__ns_from_seconds(deadline));
    heist__wait_skipped(heist__self());
    return err;
}

int heist_server_wait_closed(heist_server *s) { return heist_server_wait_closed_until(s, HEIST_FOREVER); }

int heist_server_drain(heist_server *s, double deadline) {
    if (!s || isnan(deadline)) return -EINVAL;
    int err = heist__wait_entry(heist__self());
    if (err) return err;
    int cut = 0;
    heist_server_close(s);
    err = wait_over(s, heist__ns_from_seconds(deadline));
    if (err == -ETIMEDOUT) {
        int late;
        cut = heist__server_cut_off(s, &late);
        err = wait_over(s, INT64_MAX);
        heist__spin_lock(&s->lock);
        cut += s->late - late;
        heist__spin_unlock(&s->lock);
    }
    heist__wait_skipped(heist__self());
    return err ? err : cut;
}

static bool enter_forever(heist_server *s) {
    heist__spin_lock(&s->lock);
    bool mine = !s->forever;
    s->forever = true;
    heist__spin_unlock(&s->lock);
    return mine;
}

int heist_server_serve_forever(heist_server *s) {
    if (!s) return -EINVAL;
    struct heist__self *self = heist__self();
    if (!heist__forked() && !self->task && !self->worker) return HEIST_ENOLOOP;
    int err = heist__wait_entry(self);
    if (err) return err;
    if (!enter_forever(s)) return HEIST_EINVALSTATE;
    heist__server_hold(s);
    err = heist_server_start_serving(s);
    if (!err) {
        err = wait_until(s, is_closed, INT64_MAX);
        if (err) heist_server_close(s);
    }
    heist__spin_lock(&s->lock);
    s->forever = false;
    heist__spin_unlock(&s->lock);
    heist__server_drop(s);
    heist__wait_skipped(heist__self());
    return err;
}
