/* Changes of files and directories, by inotify.  See heist/file.h.
 *
 * The descriptor is registered with a loop like a socket's (loop/reg.h).  One task at a time is inside next: it alone
 * reads, into `events`, and hands them out. */
#include <heist/error.h>
#include <heist/file.h>
#include <limits.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fork.h"
#include "base/sys.h"
#include "io/fd.h"
#include "io/offload.h"

struct heist_fswatch {
    int fd;
    struct heist__reg *reg;
    _Atomic(int) busy; /* somebody is inside next; guards what follows */
    size_t at, end;
    char events[8 * (sizeof(struct inotify_event) + NAME_MAX + 1)] __attribute__((aligned(8)));
};

int heist_fswatch_new(heist_fswatch **out) {
    if (!out) return -EINVAL;
    if (heist__fork_guard()) return -ENOMEM;
    if (heist__forked()) return HEIST_EFORKED;
    heist_fswatch *w = heist__zalloc(sizeof(*w));
    if (!w) return -ENOMEM;
    w->fd = heist__sys_inotify();
    int err = w->fd < 0 ? w->fd : 0;
    w->reg = err ? NULL : heist__reg_new(w->fd, w, heist__fd_dispose);
    if (!err && !w->reg) {
        heist__sys_close(w->fd);
        err = -ENOMEM;
    }
    if (err) {
        heist__free(w);
        return err;
    }
    *out = w;
    return 0;
}

void heist_fswatch_close(heist_fswatch *w) {
    if (w && !heist__forked()) heist__reg_close(w->reg); /* a child's copy is the parent's */
}

struct adding {
    int fd, id;
    const char *path;
    uint32_t mask;
};

static int add_job(void *arg, void **out) {
    struct adding *a = arg;
    (void)out;
    a->id = heist__sys_inotify_add(a->fd, a->path, a->mask);
    return a->id < 0 ? a->id : 0;
}

int heist_fswatch_add(heist_fswatch *w, const char *path, uint32_t mask) {
    if (!w || !path) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    struct heist__reg *r = w->reg;
    int err = heist__reg_enter(r);
    if (err) return err;
    struct adding a = {w->fd, 0, path, mask};
    err = heist__offload(add_job, &a); /* it walks the path, on whatever disk that is */
    heist__reg_leave(r);
    return err ? err : a.id;
}

int heist_fswatch_remove(heist_fswatch *w, int id) {
    if (!w) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    struct heist__reg *r = w->reg;
    int err = heist__reg_enter(r);
    if (err) return err;
    err = heist__sys_inotify_remove(w->fd, id);
    heist__reg_leave(r);
    return err;
}

/* Waits until there is something in `events`. */
static int fill(heist_fswatch *w, int64_t until) {
    while (w->at == w->end) {
        int err = heist__reg_begin(w->reg, HEIST__REG_READ, false);
        if (err < 0) return err;
        ssize_t n = heist__sys_read(w->fd, w->events, sizeof(w->events));
        if (n == -EAGAIN) {
            err = heist__fd_wait(w->reg, HEIST__REG_READ, until);
            if (err) return err;
        } else if (n > 0) {
            w->at = 0;
            w->end = (size_t)n;
        } else if (n != -EINTR) {
            return n ? (int)n : -EIO;
        }
    }
    return 0;
}

static void take(heist_fswatch *w, heist_fswatch_event *out) {
    const struct inotify_event *e = (const struct inotify_event *)(const void *)(w->events + w->at);
    w->at += sizeof(*e) + e->len;
    out->id = e->wd;
    out->mask = e->mask;
    out->cookie = e->cookie;
    size_t n = e->len ? strnlen(e->name, e->len) : 0;
    if (n > sizeof(out->name) - 1) n = sizeof(out->name) - 1;
    memcpy(out->name, e->name, n);
    out->name[n] = 0;
}

int heist_fswatch_next(heist_fswatch *w, double deadline, heist_fswatch_event *out) {
    int64_t until;
    if (!w || !out || heist__fd_deadline(deadline, &until)) return -EINVAL;
    int err = heist__fd_entry();
    if (err) return err;
    struct heist__reg *r = w->reg;
    err = heist__reg_enter(r);
    if (!err) {
        if (a_xchg_acq(&w->busy, 1)) { /* acq: pairs with the store below */
            err = -EBUSY;
        } else {
            err = fill(w, until);
            if (!err) take(w, out);
            a_store_rel(&w->busy, 0); /* rel: pairs with the next one's exchange */
        }
        heist__reg_leave(r);
    }
    heist__fd_skipped();
    return err;
}
