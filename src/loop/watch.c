/* Readers and writers.  See watch.h. */
#include "loop/watch.h"

#include <heist/error.h>

#include "base/alloc.h"
#include "base/fork.h"
#include "base/options.h"
#include "base/sys.h"
#include "conc/self.h"
#include "loop/fds.h"
#include "loop/handle.h"
#include "loop/loop.h"
#include "task/context.h"

/* One direction of a watch: a callback, replaced or removed as a whole. */
struct watcher {
    struct heist__job job;
    _Atomic(int) refs; /* the watch's and the scheduled job's */
    _Atomic(int) removed;
    _Atomic(int) scheduled;
    struct heist__watch *watch;
    int direction;
    heist_callback_fn fn;
    void *arg;
    heist_free_fn arg_free;
    const char *name;
    struct heist__carried carried; /* the context, in all its calls */
};

enum { HEIST__WATCH_READ, HEIST__WATCH_WRITE };

struct heist__watch {
    struct heist__watch *next;
    heist_loop *loop;
    int fd;
    int polled; /* the number that the poller knows: fd, or a duplicate, when a task waits for fd there */
    uint32_t number; /* tells a stale event from a fresh one of the same descriptor */
    struct watcher *sides[2];
};

static const uint32_t side_events[2] = {HEIST__POLL_IN, HEIST__POLL_OUT};

static void watcher_unref(struct watcher *w) {
    if (a_sub_ar(&w->refs, 1) != 1) return; /* ar: as every last reference */
    if (w->arg_free) heist__destruct(w->arg_free, w->arg);
    heist__carried_drop(&w->carried);
    heist__free(w);
}

static struct heist__watch **find(heist_loop *loop, int fd) {
    struct heist__watch **at = &loop->watches;
    while (*at && (*at)->fd != fd) at = &(*at)->next;
    return at;
}

/* The descriptor was closed without a remove, and the number is somebody else's in the poller by now: what is done
 * there would be done to him. */
static bool is_past(const struct heist__watch *w) {
    return w->polled == w->fd && heist__fds_polled(w->fd, w->loop);
}

/* Under misc_lock: tells the kernel what is wanted now.  A direction whose callback is scheduled is not
 * asked for until it ran.  fresh: NULL, or it is watched for the first time; see heist__fds_watch. */
static int rearm(struct heist__watch *w, struct heist__reg **fresh) {
    uint32_t events = HEIST__POLL_ONESHOT;
    for (int i = 0; i < 2; i++)
        if (w->sides[i] && !a_load_rlx(&w->sides[i]->scheduled)) events |= side_events[i]; /* rlx: under the lock */
    uint64_t data = (uint64_t)(w->number & 0x3fffffffu) << 32 | (uint32_t)w->fd;
    heist_loop *loop = w->loop;
    if (!fresh) return is_past(w) ? -ENOENT : heist__poller_mod(&loop->poller, w->polled, events, data);
    w->polled = w->fd;
    int err = heist__fds_watch(loop, w->fd, events, data, fresh);
    if (heist_likely(err != -EEXIST)) return err;
    int fd = heist__sys_dup(w->fd);
    if (fd < 0) return fd;
    err = heist__poller_add(&loop->poller, fd, events, data);
    if (err)
        heist__sys_close(fd);
    else
        w->polled = fd;
    return err;
}

static int call(struct watcher *w) {
    if (heist_likely(!heist__contexts_used())) return w->fn(w->arg);
    struct heist__in_scope in;
    heist__scope_enter(&in, &w->carried);
    int code = w->fn(w->arg);
    heist__scope_leave(&in);
    return code;
}

static void watcher_run(struct heist__job *job, heist_loop *loop) {
    struct watcher *w = heist_container_of(job, struct watcher, job);
    int code = 0;
    if (!a_load_acq(&w->removed)) code = call(w); /* acq: pairs with remove */
    heist__spin_lock(&loop->misc_lock);
    a_store_rlx(&w->scheduled, 0); /* rlx: under the lock */
    if (!a_load_rlx(&w->removed)) rearm(w->watch, NULL);
    heist__spin_unlock(&loop->misc_lock);
    if (code < 0) heist__loop_callback_ended(loop, code, NULL, w->name);
    watcher_unref(w);
}

static void watcher_drop(struct heist__job *job) { watcher_unref(heist_container_of(job, struct watcher, job)); }

static const struct heist__job_class watcher_class = {watcher_run, watcher_drop};

/* By the owner, or by a rescuer: then the job goes through the inbox. */
void heist__watch_event(heist_loop *loop, uint64_t data, uint32_t events) {
    struct watcher *due[2] = {NULL, NULL};
    heist__spin_lock(&loop->misc_lock);
    struct heist__watch *w = *find(loop, (int)(uint32_t)data);
    if (w && (w->number & 0x3fffffffu) == data >> 32) {
        for (int i = 0; i < 2; i++) {
            struct watcher *s = w->sides[i];
            if (!s || a_load_rlx(&s->scheduled)) continue; /* rlx, as below: under the lock */
            if (!(events & (side_events[i] | HEIST__POLL_ERR | HEIST__POLL_HUP))) continue;
            a_store_rlx(&s->scheduled, 1);
            a_add_rlx(&s->refs, 1);
            due[i] = s;
        }
        rearm(w, NULL); /* the other direction, which the one-shot silenced too */
    }
    heist__spin_unlock(&loop->misc_lock);
    for (int i = 0; i < 2; i++)
        if (due[i] && heist__loop_post(loop, &due[i]->job)) watcher_drop(&due[i]->job);
}

static int add_one(heist_loop *loop, int fd, int direction, heist_callback_fn fn, void *arg,
                   const heist_call_options *opts) {
    if (!loop || !fn || !heist__options_ok_since(opts, HEIST__CALL_OPTIONS_FIRST, sizeof(*opts))) return -EINVAL;
    if (fd < 0) return -EBADF;
    if (heist__forked()) return HEIST_EFORKED;
    if (heist__fds_owned(fd, false)) return -EBUSY;
    struct watcher *s = heist__zalloc(sizeof(*s));
    if (!s) return -ENOMEM;
    s->job.klass = &watcher_class;
    a_store_rlx(&s->refs, 1); /* rlx: published under the lock */
    s->direction = direction;
    s->fn = fn;
    s->arg = arg;
    s->arg_free = opts ? opts->arg_free : NULL;
    s->name = opts ? opts->name : NULL;
    static _Atomic(uint32_t) last_number;
    struct heist__watch *spare = heist__zalloc(sizeof(*spare));
    if (!spare) {
        heist__free(s);
        return -ENOMEM;
    }
    heist_context *given = heist__call_context(opts);
    /* rlx: referenced */
    int err =
        heist__contexts_used() || given ? heist__carry(heist__self(), &s->carried, given, a_load_rlx(&loop->id)) : 0;
    if (err) {
        heist__free(spare);
        heist__free(s);
        return err;
    }
    struct watcher *old = NULL;
    struct heist__reg *past = NULL;
    heist__spin_lock(&loop->misc_lock);
    struct heist__watch **at = find(loop, fd), *w = *at;
    if (a_load_acq(&loop->closed)) { /* acq: pairs with shut, which empties the list under this lock */
        err = HEIST_ECLOSED;
    } else {
        bool fresh = !w;
        if (fresh) {
            w = spare;
            spare = NULL;
            w->loop = loop;
            w->fd = fd;
            w->number = a_add_rlx(&last_number, 1); /* rlx: a number alone */
        }
        old = w->sides[direction];
        s->watch = w;
        w->sides[direction] = s;
        err = rearm(w, fresh ? &past : NULL);
        if (err) {
            w->sides[direction] = old;
            old = NULL;
            if (fresh) spare = w;
        } else if (fresh) {
            *at = w;
            a_add_rlx(&loop->watched, 1); /* rlx: the owner's next turn may see it */
        }
    }
    if (old) a_store_rel(&old->removed, 1); /* rel: pairs with watcher_run */
    heist__spin_unlock(&loop->misc_lock);
    heist__free(spare);
    if (heist_unlikely(past)) {
        heist__guest_forsake(past);
        heist__guest_leave(past);
    }
    if (err) {
        heist__carried_drop(&s->carried);
        heist__free(s);
        return err;
    }
    if (old) watcher_unref(old);
    return 0;
}

static int remove_side(heist_loop *loop, int fd, int direction) {
    if (!loop) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED; /* the poller is the parent's */
    struct heist__watch *dead = NULL;
    heist__spin_lock(&loop->misc_lock);
    struct heist__watch **at = find(loop, fd), *w = *at;
    struct watcher *s = w ? w->sides[direction] : NULL;
    if (s) {
        w->sides[direction] = NULL;
        a_store_rel(&s->removed, 1); /* rel: pairs with watcher_run */
        if (w->sides[!direction]) {
            rearm(w, NULL);
        } else {
            *at = w->next;
            a_sub_rlx(&loop->watched, 1); /* rlx: as in add */
            if (!is_past(w)) heist__poller_del(&loop->poller, w->polled);
            dead = w;
        }
    }
    heist__spin_unlock(&loop->misc_lock);
    if (dead && dead->polled != fd) heist__sys_close(dead->polled);
    heist__free(dead);
    if (s) watcher_unref(s);
    return s != NULL;
}

static int add(heist_loop *loop, int fd, int direction, heist_callback_fn fn, void *arg,
               const heist_call_options *opts) {
    int err = add_one(loop, fd, direction, fn, arg, opts);
    if (err != -ENOENT) return err;
    /* The number was watched, and means another file by now: what watched the old one is past. */
    remove_side(loop, fd, HEIST__WATCH_READ);
    remove_side(loop, fd, HEIST__WATCH_WRITE);
    return add_one(loop, fd, direction, fn, arg, opts);
}

void heist__watch_drop_all(heist_loop *loop) {
    for (;;) {
        heist__spin_lock(&loop->misc_lock);
        struct heist__watch *w = loop->watches;
        int fd = w ? w->fd : -1;
        heist__spin_unlock(&loop->misc_lock);
        if (!w) return;
        remove_side(loop, fd, HEIST__WATCH_READ);
        remove_side(loop, fd, HEIST__WATCH_WRITE);
    }
}

int heist_loop_add_reader(heist_loop *loop, int fd, heist_callback_fn fn, void *arg, const heist_call_options *opts) {
    return add(loop, fd, HEIST__WATCH_READ, fn, arg, opts);
}
int heist_loop_add_writer(heist_loop *loop, int fd, heist_callback_fn fn, void *arg, const heist_call_options *opts) {
    return add(loop, fd, HEIST__WATCH_WRITE, fn, arg, opts);
}
int heist_loop_remove_reader(heist_loop *loop, int fd) { return remove_side(loop, fd, HEIST__WATCH_READ); }
int heist_loop_remove_writer(heist_loop *loop, int fd) { return remove_side(loop, fd, HEIST__WATCH_WRITE); }
