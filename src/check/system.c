/* Faults, and what a simulated system call is: a point, perhaps a fault, and a change that polls look for. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/macros.h"
#include "check/inner.h"

uint32_t heist__sim_fault(struct heist__sim_thread *t, int kind, uint32_t limit) {
    struct heist__sim *s = t->sim;
    t->points++; /* also where no faults are asked for: a plan counts the same points then */
    if (!s->spec.strategy->fault) return 0;
    uint32_t value = s->spec.strategy->fault(s->spec.strategy->self, kind, limit);
    if (!value) return 0;
    if (value > limit) value = limit;
    s->counts.faults[kind]++;
    heist__sim_note(s, t->id, kind, value);
    static const char *const name[HEIST__FAULTS] = {
        "fault: no memory",       "fault: no mapping",         "fault: no thread",
        "fault: no descriptor",   "fault: connection reset",   "fault: fewer bytes",
        "fault: interrupted",     "fault: not ready",          "fault: a wake-up is late",
        "fault: wakes for nothing"};
    heist__sim_trace(s, t->id, HEIST__SIM_NOBODY, name[kind], t->file, t->line);
    return value;
}

bool heist__sim_refuse_memory(bool mapping) {
    struct heist__sim_thread *t = heist__sim_maybe() ? heist__sim_me() : NULL;
    return t && heist__sim_fault(t, mapping ? HEIST__FAULT_MAPPING : HEIST__FAULT_MEMORY, 1);
}

/* An edge was told and then eaten by a fault: it must be told again, for the kernel thinks that it was taken. */
static void renew_edge(struct heist__sim *s, int fd) {
    if (fd < 0 || fd >= HEIST__SIM_FDS || s->registered[fd].epfd < 0) return;
    struct epoll_event event = s->registered[fd].event;
    (void)epoll_ctl(s->registered[fd].epfd, EPOLL_CTL_MOD, fd, &event);
    s->generation++;
}

void heist__sim_registered(int epfd, int fd, const struct epoll_event *event) {
    struct heist__sim_thread *t = heist__sim_maybe() ? heist__sim_me() : NULL;
    if (!t || fd < 0 || fd >= HEIST__SIM_FDS) return;
    struct heist__registration *r = &t->sim->registered[fd];
    if (!event) {
        r->epfd = -1;
        return;
    }
    r->epfd = epfd;
    r->event = *event;
}

void heist__sim_closing(int fd) {
    struct heist__sim_thread *t = heist__sim_maybe() ? heist__sim_me() : NULL;
    if (!t) return;
    heist__sim_step("close", 0);
    t->sim->generation++;
    if (fd >= 0 && fd < HEIST__SIM_FDS) t->sim->registered[fd].epfd = -1;
}

static bool is_one_of(const char *call, const char *const *list) {
    for (; *list; list++)
        if (strcmp(call, *list) == 0) return true;
    return false;
}

static bool is_stream(int fd) {
    int type = 0;
    socklen_t n = sizeof(type);
    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n) == 0 && type == SOCK_STREAM;
}

HEIST_NOINLINE int heist__sim_call(const char *call, int fd) {
    static const char *const makes[] = {"socket", "accept4", "eventfd", "epoll_create1", NULL};
    static const char *const moves[] = {"recv",   "send",    "sendmsg",  "sendfile", "recvfrom", "sendto",
                                        "recvmsg", "recvmmsg", "sendmmsg", NULL};
    static const char *const interruptible[] = {"read",     "write",   "writev",  "sendfile", "recv",
                                                "send",     "sendmsg", "accept4", "recvfrom", "sendto",
                                                "recvmsg", "recvmmsg", "sendmmsg", NULL};
    struct heist__sim_thread *t = heist__sim_me();
    if (!t) return 0;
    struct heist__sim *s = t->sim;
    heist__sim_step(call, 0);
    if (strcmp(call, "epoll_wait") != 0) s->generation++;
    if (strcmp(call, "socket") == 0 && (fd == AF_INET || fd == AF_INET6)) s->inet = true;
    if (strcmp(call, "pthread_create") == 0) return heist__sim_fault(t, HEIST__FAULT_THREAD, 1) ? -EAGAIN : 0;
    if (strcmp(call, "mprotect") == 0) return heist__sim_fault(t, HEIST__FAULT_MAPPING, 1) ? -ENOMEM : 0;
    if (is_one_of(call, makes) && heist__sim_fault(t, HEIST__FAULT_DESCRIPTOR, 1)) {
        if (strcmp(call, "accept4") == 0) renew_edge(s, fd);
        return -EMFILE;
    }
    if (is_one_of(call, interruptible) && heist__sim_fault(t, HEIST__FAULT_INTERRUPT, 1)) return -EINTR;
    if (is_one_of(call, moves) || strcmp(call, "accept4") == 0) {
        if (heist__sim_fault(t, HEIST__FAULT_AGAIN, 1)) {
            renew_edge(s, fd);
            return -EAGAIN;
        }
    }
    if (is_one_of(call, moves) && is_stream(fd) && heist__sim_fault(t, HEIST__FAULT_RESET, 1)) {
        (void)shutdown(fd, SHUT_RDWR); /* the other side sees the end too, and this one stays broken */
        return -ECONNRESET;
    }
    return 0;
}

size_t heist__sim_bytes(const char *call, int fd, size_t bytes) {
    static const char *const streams[] = {"recv", "send", "sendfile", NULL};
    struct heist__sim_thread *t = heist__sim_maybe() ? heist__sim_me() : NULL;
    if (!t || bytes < 2 || !is_one_of(call, streams)) return bytes;
    uint32_t limit = bytes - 1 > UINT32_MAX ? UINT32_MAX : (uint32_t)(bytes - 1);
    uint32_t value = heist__sim_fault(t, HEIST__FAULT_SHORT, limit);
    if (!value) return bytes;
    renew_edge(t->sim, fd);
    return value;
}
