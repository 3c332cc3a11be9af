/* The wake-up descriptor: an eventfd that is written and never read.
 *
 * Why no read is needed.  The registration is for edges, and the kernel makes an edge of
 * every successful write, whatever the counter held before.  So a write makes one wait
 * return, and the sleeper saves the read, 0.25 us for each sleep.
 *
 * Why the edge cannot be lost.  It stays with the poller until a wait takes it: a write
 * before the sleeper reaches its wait ends that wait at once.
 *
 * The counter.  It grows by one for each signal and holds 2^64 - 2; a signal each
 * nanosecond fills it in 584 years.  Somebody who got hold of the descriptor can fill it
 * faster, and then the write is refused with EAGAIN and makes no edge.  The signaller
 * takes the content out and writes again.  Two that do so at once: one read wins, the
 * other is refused with EAGAIN and goes on to write as well; each leaves only after a
 * write of its own succeeded, so each has made an edge. */
#include "loop/wake.h"

#include "base/macros.h"
#include "base/sys.h"

int heist__wake_open(struct heist__wake *w, struct heist__poller *p) {
    w->fd = -1;
    int fd = heist__sys_eventfd(0);
    if (fd < 0) return fd;
    int err = heist__poller_add(p, fd, HEIST__POLL_IN | HEIST__POLL_EDGE, HEIST__WAKE_DATA);
    if (err < 0) {
        heist__sys_close(fd);
        return err;
    }
    w->fd = fd;
    return 0;
}

void heist__wake_signal(struct heist__wake *w) {
    uint64_t one = 1, content;
    for (;;) {
        ssize_t wrote = heist__sys_write(w->fd, &one, sizeof(one));
        if (heist_likely(wrote == (ssize_t)sizeof(one))) return;
        if (wrote == -EAGAIN) {
            /* Refused only when another signaller emptied it first: either way there is room now. */
            ssize_t got = heist__sys_read(w->fd, &content, sizeof(content));
            (void)got;
        } else if (wrote != -EINTR) {
            return; /* closed: the contract forbids it, and nobody is left to wake */
        }
    }
}

void heist__wake_close(struct heist__wake *w, struct heist__poller *p) {
    if (w->fd < 0) return;
    if (p && p->fd >= 0) heist__poller_del(p, w->fd);
    heist__sys_close(w->fd);
    w->fd = -1;
}
