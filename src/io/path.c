/* Whole files, and names: each call is one job, or an operation of the ring that does it.  See heist/file.h. */
#include <heist/error.h>
#include <heist/file.h>
#include <string.h>

#include "base/alloc.h"
#include "base/sys.h"
#include "io/offload.h"
#include "io/ring_call.h"

struct whole {
    const char *path;
    const char *from; /* to write */
    char *data;       /* read */
    size_t size, max;
    mode_t mode;
};

static int open_again(const char *path, int flags, mode_t mode) {
    int fd;
    do fd = heist__sys_open(path, flags, mode);
    while (fd == -EINTR);
    return fd;
}

/* Everything from fd into w->data, which grows from `guess` bytes. */
static int read_everything(int fd, struct whole *w, size_t guess) {
    for (size_t room = guess;; room *= 2) {
        char *larger = heist__realloc(w->data, room + 1);
        if (!larger) return -ENOMEM;
        w->data = larger;
        while (w->size < room) {
            ssize_t n = heist__sys_read(fd, w->data + w->size, room - w->size);
            if (n == -EINTR) continue;
            if (n <= 0) {
                w->data[w->size] = 0;
                return (int)n;
            }
            w->size += (size_t)n;
            if (w->size > w->max) return -EFBIG;
        }
        if (room > PTRDIFF_MAX / 4) return -EFBIG;
    }
}

static int read_job(void *arg, void **out) {
    struct whole *w = arg;
    struct stat st;
    (void)out;
    int fd = open_again(w->path, O_RDONLY, 0);
    if (fd < 0) return fd;
    int err = heist__sys_fstat(fd, &st);
    /* A size that lies (proc says 0; a file grows) is only a guess.  One byte more finds the end. */
    size_t guess = !err && st.st_size > 0 && st.st_size < PTRDIFF_MAX / 4 ? (size_t)st.st_size + 1 : 4096;
    if (!err && S_ISREG(st.st_mode) && st.st_size > 0 && (uint64_t)st.st_size > w->max) err = -EFBIG;
    if (!err) err = read_everything(fd, w, guess);
    heist__sys_close(fd);
    if (err) {
        heist__free(w->data);
        w->data = NULL;
    }
    return err;
}

int heist_read_file(const char *path, size_t max, char **data, size_t *size) {
    if (!path || !data) return -EINVAL;
    struct whole w = {.path = path, .max = max ? max : SIZE_MAX};
    int err = heist__offload(read_job, &w);
    if (err) return err;
    *data = w.data;
    if (size) *size = w.size;
    return 0;
}

void heist_file_data_free(char *data) { heist__free(data); }

static int write_job(void *arg, void **out) {
    struct whole *w = arg;
    (void)out;
    int fd = open_again(w->path, O_WRONLY | O_CREAT | O_TRUNC, w->mode), err = 0;
    if (fd < 0) return fd;
    for (size_t done = 0; !err && done < w->size;) {
        ssize_t n = heist__sys_write(fd, w->from + done, w->size - done);
        if (n > 0) done += (size_t)n;
        if (n == 0) err = -EIO;
        if (n < 0 && n != -EINTR) err = (int)n;
    }
    int closed = heist__sys_close(fd);
    return err || closed == -EINTR ? err : closed;
}

int heist_write_file(const char *path, const void *data, size_t size, mode_t mode) {
    if (!path || (!data && size) || size > PTRDIFF_MAX) return -EINVAL;
    struct whole w = {.path = path, .from = data, .size = size, .mode = mode};
    return heist__offload(write_job, &w);
}

/* ---- names ---- */

enum { STAT, LSTAT, MKDIR, RMDIR, UNLINK, RENAME };

struct naming {
    int what;
    const char *path, *to;
    mode_t mode;
    struct stat st;
};

static int name_job(void *arg, void **out) {
    struct naming *n = arg;
    int err;
    (void)out;
    do {
        switch (n->what) {
            case STAT: err = heist__sys_stat(n->path, &n->st, 0); break;
            case LSTAT: err = heist__sys_stat(n->path, &n->st, AT_SYMLINK_NOFOLLOW); break;
            case MKDIR: err = heist__sys_mkdir(n->path, n->mode); break;
            case RENAME: err = heist__sys_rename(n->path, n->to); break;
            default: err = heist__sys_unlink(n->path, n->what == RMDIR ? AT_REMOVEDIR : 0); break;
        }
    } while (err == -EINTR);
    return err;
}

static int name(int what, const char *path, const char *to, mode_t mode, struct stat *st) {
    if (!path || (what == RENAME && !to) || ((what == STAT || what == LSTAT) && !st)) return -EINVAL;
    struct naming n = {.what = what, .path = path, .to = to, .mode = mode};
    int err = st && heist__ring_here()
                  ? heist__ring_stat(AT_FDCWD, path, what == LSTAT ? AT_SYMLINK_NOFOLLOW : 0, &n.st)
                  : heist__offload(name_job, &n);
    if (!err && st) *st = n.st;
    return err;
}

int heist_stat(const char *path, struct stat *out) { return name(STAT, path, NULL, 0, out); }
int heist_lstat(const char *path, struct stat *out) { return name(LSTAT, path, NULL, 0, out); }
int heist_mkdir(const char *path, mode_t mode) { return name(MKDIR, path, NULL, mode, NULL); }
int heist_rmdir(const char *path) { return name(RMDIR, path, NULL, 0, NULL); }
int heist_unlink(const char *path) { return name(UNLINK, path, NULL, 0, NULL); }
int heist_rename(const char *from, const char *to) { return name(RENAME, from, to, 0, NULL); }
