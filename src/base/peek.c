/* See peek.h.  process_vm_readv on ourselves; where a filter of system calls forbids that, through a pipe, whose
 * write copies as carefully. */
#include "base/peek.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static _Atomic(int) use_pipe;

void heist__peek_force_pipe(int on) { use_pipe = on; }

static int through_pipe(const char *from, char *to, size_t bytes) {
    int fds[2], err = 0;
    if (pipe2(fds, O_CLOEXEC) < 0) return -errno;
    while (bytes && !err) {
        size_t part = bytes < 4096 ? bytes : 4096;
        ssize_t n =
            syscall(SYS_write, fds[1], from, part); /* not by the wrapper: a memory checker looks at what that gets */
        if (n <= 0) {
            err = n < 0 ? -errno : -EFAULT;
        } else if (read(fds[0], to, (size_t)n) != n) {
            err = -EIO;
        } else {
            from += n;
            to += n;
            bytes -= (size_t)n;
        }
    }
    close(fds[0]);
    close(fds[1]);
    return err;
}

int heist__peek(const void *from, void *to, size_t bytes) {
    if (!use_pipe) {
        struct iovec local = {to, bytes}, remote = {(void *)(size_t)from, bytes};
        ssize_t n = process_vm_readv(getpid(), &local, 1, &remote, 1, 0);
        if (n >= 0) return (size_t)n == bytes ? 0 : -EFAULT;
        if (errno == EFAULT) return -EFAULT;
        use_pipe = 1; /* forbidden, or unknown here */
    }
    return through_pipe(from, to, bytes);
}
