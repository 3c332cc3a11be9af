/* The waits with nanoseconds; the rest of the seam is in sys.h. */
#include "base/sys.h"

#include <limits.h>
#include <stdbool.h>
#include <sys/syscall.h>

/* A 64-bit time in the C library's timespec is what the kernel's call expects. */
#if defined(SYS_epoll_pwait2) && __SIZEOF_LONG__ == 8
#define HAVE_PWAIT2 1
#else
#define HAVE_PWAIT2 0
#endif

/* Rounded up, for a wait must not end early; more than 24 days are cut, which only wakes a sleeper once. */
static int whole_milliseconds(int64_t ns) {
    int64_t ms = ns / 1000000 + (ns % 1000000 != 0);
    return ms > INT_MAX ? INT_MAX : (int)ms;
}

#if HAVE_PWAIT2
/* The kernel (before 5.11) or a filter in front of it refuses the call: asked once.  All write the same. */
static _Atomic(bool) pwait2_missing;

static bool refused_for_good(int error) { return error == ENOSYS || error == EPERM; }
#endif

int heist__sys_epoll_wait(int epfd, struct epoll_event *events, int max, int64_t timeout_ns) {
    HEIST_SYS_POINT("epoll_wait");
    if (timeout_ns <= 0) HEIST__SYS_ANSWER(int, epoll_wait(epfd, events, max, timeout_ns < 0 ? -1 : 0));
#if HAVE_PWAIT2
    if (!pwait2_missing) {
        struct timespec limit = {timeout_ns / 1000000000, timeout_ns % 1000000000};
        int got = (int)syscall(SYS_epoll_pwait2, epfd, events, max, &limit, NULL, (size_t)0);
        if (got >= 0) return got;
        if (!refused_for_good(errno)) return -errno;
        pwait2_missing = true;
    }
#endif
    HEIST__SYS_ANSWER(int, epoll_wait(epfd, events, max, whole_milliseconds(timeout_ns)));
}
