/* The file of a Unix socket: what a server left behind is replaced, and only our own is removed.
 *
 * A file is stale when it is a socket on which nobody listens: then a connect is refused.  Which file is ours is told
 * by device and inode, as they were just after the bind.  Between a look at a path and its unlink somebody may put
 * another file there: the system has no call that would exclude it. */
#include <heist/error.h>

#include "base/sys.h"
#include "net/listener.h"
#include "net/server.h"

/* 0: a socket on which nobody listens, and *st tells which; else -EADDRINUSE. */
static int look_at(const heist_addr *addr, const char *path, struct stat *st) {
    int err = heist__sys_stat(path, st, AT_SYMLINK_NOFOLLOW);
    if (err) return err == -ENOENT ? 0 : err;
    if (!S_ISSOCK(st->st_mode)) return heist_fail(-EADDRINUSE, "cannot listen on %s: it is not a socket", path);
    int fd = heist__sys_socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd < 0) return fd;
    err = heist__sys_connect(fd, (const struct sockaddr *)&addr->storage, addr->length);
    heist__sys_close(fd);
    if (err == -ECONNREFUSED) return 0;
    return heist_fail(-EADDRINUSE, "cannot listen on %s: somebody does", path);
}

int heist__server_bind_path(const heist_addr *addr, const char *path, heist_server *s, heist_listener **out) {
    bool is_file = path[0] != '@';
    int err = heist__listener_bind(addr, 0, out);
    if (err == -EADDRINUSE && is_file) {
        struct stat st, again;
        err = look_at(addr, path, &st);
        if (err) return err;
        if (!heist__sys_stat(path, &again, AT_SYMLINK_NOFOLLOW) && again.st_dev == st.st_dev &&
            again.st_ino == st.st_ino)
            (void)heist__sys_unlink(path, 0);
        err = heist__listener_bind(addr, 0, out);
    }
    if (err) return heist_fail(err, "cannot listen on %s: %s", path, heist_strerror(err));
    struct stat own;
    if (is_file && !heist__sys_stat(path, &own, AT_SYMLINK_NOFOLLOW)) {
        s->path_dev = own.st_dev;
        s->path_ino = own.st_ino;
    }
    return 0;
}

void heist__server_remove_path(heist_server *s) {
    struct stat st;
    if (!s->path || !s->path_ino || (s->opts.flags & HEIST_SERVER_KEEP_PATH)) return;
    if (!heist__sys_stat(s->path, &st, AT_SYMLINK_NOFOLLOW) && st.st_dev == s->path_dev && st.st_ino == s->path_ino)
        (void)heist__sys_unlink(s->path, 0);
}
