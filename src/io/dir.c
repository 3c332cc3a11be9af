/* Directories: entries are read ahead by a job, as many as fit, and handed out one by one.  See heist/file.h. */
#include <dirent.h>
#include <heist/error.h>
#include <heist/file.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fork.h"
#include "base/sys.h"
#include "conc/atomic.h"
#include "io/offload.h"
#include "sched/suspend.h"

#define AHEAD ((size_t)16 << 10)

struct heist_dir {
    int fd;
    _Atomic(int) busy; /* somebody is inside heist_dir_next; guards the next two */
    size_t at, end;
    char ahead[AHEAD]; /* of struct dirent64; 8-aligned, as it stands behind two words */
};

struct opening {
    const char *path;
    int fd;
};

static int open_job(void *arg, void **out) {
    struct opening *o = arg;
    (void)out;
    do o->fd = heist__sys_open(o->path, O_RDONLY | O_DIRECTORY, 0);
    while (o->fd == -EINTR);
    return o->fd < 0 ? o->fd : 0;
}

int heist_dir_open(const char *path, heist_dir **out) {
    if (!path || !out) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    heist_dir *d = heist__alloc(sizeof(*d));
    if (!d) return -ENOMEM;
    struct opening o = {path, -1};
    int err = heist__offload(open_job, &o);
    if (err) {
        heist__free(d);
        return err;
    }
    d->fd = o.fd;
    a_store_rlx(&d->busy, 0); /* rlx: not published yet */
    d->at = d->end = 0;
    *out = d;
    return 0;
}

static int fill_job(void *arg, void **out) {
    heist_dir *d = arg;
    (void)out;
    ssize_t n = heist__sys_getdents(d->fd, d->ahead, AHEAD);
    if (n < 0) return (int)n;
    d->at = 0;
    d->end = (size_t)n;
    return 0;
}

/* Goes over one entry; false: it is none that is told. */
static bool take(heist_dir *d, heist_dir_entry *out) {
    const struct dirent64 *e = (const struct dirent64 *)(const void *)(d->ahead + d->at);
    d->at += e->d_reclen;
    if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) return false;
    out->inode = e->d_ino;
    out->type = e->d_type;
    size_t n = strnlen(e->d_name, sizeof(out->name) - 1);
    memcpy(out->name, e->d_name, n);
    out->name[n] = 0;
    return true;
}

int heist_dir_next(heist_dir *d, heist_dir_entry *out) {
    if (!d || !out) return -EINVAL;
    int err = heist__wait_entry(heist__self());
    if (err) return err;
    if (a_xchg_acq(&d->busy, 1)) return -EBUSY; /* acq: pairs with the store below */
    bool found = false, waited = false;
    while (!err && !found) {
        if (d->at < d->end) {
            found = take(d, out);
            continue;
        }
        waited = true;
        err = heist__offload(fill_job, d);
        if (!err && !d->end) break;
    }
    a_store_rel(&d->busy, 0); /* rel: pairs with the next one's exchange */
    if (!waited) heist__wait_skipped(heist__self());
    return err ? err : found;
}

void heist_dir_close(heist_dir *d) {
    if (!d || heist__forked()) return;
    heist__sys_close(d->fd);
    heist__free(d);
}
