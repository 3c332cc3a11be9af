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

#ifdef HEIST_SEEDED
/* Never waits in the kernel: looks, and lets the others run until there is something to see. */
static int simulated_epoll_wait(int epfd, struct epoll_event *events, int max, int64_t timeout_ns) {
    int64_t deadline = INT64_MAX;
    if (timeout_ns > 0 && __builtin_add_overflow(heist__sim_now(), timeout_ns, &deadline)) deadline = INT64_MAX;
    for (bool last = timeout_ns == 0;;) {
        int n = epoll_wait(epfd, events, max, 0);
        if (n < 0) return -errno;
        if (n > 0 || last) return n;
        int rc = heist__sim_poll(epfd, deadline);
        if (rc == -EINTR) return rc;
        last = rc == -ETIMEDOUT;
    }
}
#endif

int heist__sys_epoll_wait(int epfd, struct epoll_event *events, int max, int64_t timeout_ns) {
    HEIST_SYS_POINT("epoll_wait", epfd);
#ifdef HEIST_SEEDED
    if (heist__simulated()) return simulated_epoll_wait(epfd, events, max, timeout_ns);
#endif
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

/* The bitset form takes an absolute time on the monotonic clock. */
int heist__sys_futex_wait(_Atomic(uint32_t) *word, uint32_t expected, int64_t deadline_ns) {
#ifdef HEIST_SEEDED
    if (heist__simulated()) return *word == expected ? heist__sim_wait(word, deadline_ns, "a futex") : 0;
#endif
    struct timespec ts, *end = NULL;
    if (deadline_ns != INT64_MAX) {
        if (deadline_ns < 0) deadline_ns = 0; /* long past; the kernel refuses negative times */
        ts.tv_sec = (time_t)(deadline_ns / INT64_C(1000000000));
        ts.tv_nsec = (long)(deadline_ns % INT64_C(1000000000));
        end = &ts;
    }
    long rc = syscall(SYS_futex, word, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, expected, end, NULL,
                      FUTEX_BITSET_MATCH_ANY);
    return rc < 0 && errno == ETIMEDOUT ? -ETIMEDOUT : 0;
}

void heist__sys_sleep(int64_t ns) {
#ifdef HEIST_SEEDED
    if (heist__simulated()) {
        int64_t end = heist__sim_now() + ns;
        static const char nobody; /* wakes this key */
        while (heist__sim_now() < end) (void)heist__sim_wait(&nobody, end, "time to pass");
        return;
    }
#endif
    struct timespec length = {ns / 1000000000, ns % 1000000000};
    (void)nanosleep(&length, NULL);
}
