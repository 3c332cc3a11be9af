/* The system as the checked sources see it: time, futexes, poll sets, locks, threads and
 * memory, each in place of the C library's function (the linker's --wrap).
 *
 * In an execution nothing blocks and nothing of the kernel is asked: a call that would
 * wait lets another thread go on.  Poll sets know wake-up descriptors only: edge-triggered,
 * one waiter for each edge.  Memory comes from an arena that only grows, so that an
 * address means one block, and an execution that leaves a block, a mapping or a descriptor
 * behind fails.  Outside an execution every call is the system's. */
#include <errno.h>
#include <heist/alloc.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>

#include "base/fork.h"
#include "model/inside.h"

/* ---- memory ---- */

#define ARENA_BYTES ((size_t)16 << 20)
static char *arena;
static size_t arena_used, arena_dirty;
static long live_blocks, live_maps;

struct head {
    size_t bytes, unused;
};

static void *arena_take(size_t align, size_t bytes, bool zero) {
    size_t at = (arena_used + align - 1) & ~(align - 1);
    if (at + bytes > ARENA_BYTES) model_fail("the checker's arena is full");
    arena_used = at + bytes;
    if (zero && at < arena_dirty) memset(arena + at, 0, bytes < arena_dirty - at ? bytes : arena_dirty - at);
    if (arena_used > arena_dirty) arena_dirty = arena_used;
    return arena + at;
}

static void *block_new(size_t bytes, void *user) {
    (void)user;
    struct head *h = arena_take(16, sizeof(*h) + bytes, false);
    h->bytes = bytes;
    memset(h + 1, 0xa5, bytes);
    memory_block(h + 1, bytes);
    live_blocks++;
    return h + 1;
}

static void block_free(void *block, void *user) {
    (void)user;
    struct head *h = (struct head *)block - 1;
    memory_block_gone(block, h->bytes);
    memset(block, 0xdd, h->bytes);
    live_blocks--;
}

static void *block_resize(void *block, size_t bytes, void *user) {
    struct head *h = (struct head *)block - 1;
    size_t kept = h->bytes < bytes ? h->bytes : bytes;
    void *fresh = block_new(bytes, user);
    memcpy(fresh, block, kept);
    block_free(block, user);
    return fresh;
}

void *__real_mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset);
int __real_munmap(void *at, size_t bytes);
void *__wrap_mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset);
int __wrap_munmap(void *at, size_t bytes);

void *__wrap_mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset) {
    if (model_active) live_maps++;
    if (model_active && !at && bytes <= (size_t)128 << 10) return arena_take(4096, bytes, true);
    return __real_mmap(at, bytes, protection, flags, fd, offset);
}

int __wrap_munmap(void *at, size_t bytes) {
    if (model_active) live_maps--;
    if ((char *)at >= arena && (char *)at < arena + ARENA_BYTES) return 0;
    return __real_munmap(at, bytes);
}

/* ---- time ---- */

int __real_clock_gettime(clockid_t clock, struct timespec *out);
int __wrap_clock_gettime(clockid_t clock, struct timespec *out);
int __wrap_sched_yield(void);
int __wrap_nanosleep(const struct timespec *time, struct timespec *left);
int __wrap_clock_nanosleep(clockid_t clock, int flags, const struct timespec *time, struct timespec *left);

/* Each reading takes a moment: a loop that waits by the clock ends. */
int __wrap_clock_gettime(clockid_t clock, struct timespec *out) {
    if (!model_active) return __real_clock_gettime(clock, out);
    model_clock_ns += 20000;
    *out = (struct timespec){model_clock_ns / 1000000000, model_clock_ns % 1000000000};
    return 0;
}

int __wrap_sched_yield(void) {
    if (model_active) model_yield();
    return 0;
}

static int64_t ns_of(const struct timespec *t) { return (int64_t)t->tv_sec * 1000000000 + t->tv_nsec; }

int __wrap_nanosleep(const struct timespec *time, struct timespec *left) {
    (void)left;
    if (model_self >= 0) model_block(NULL, NULL, model_clock_ns + ns_of(time), "a sleep");
    return 0;
}

int __wrap_clock_nanosleep(clockid_t clock, int flags, const struct timespec *time, struct timespec *left) {
    (void)clock, (void)left;
    if (model_self >= 0) model_block(NULL, NULL, ns_of(time) + (flags ? 0 : model_clock_ns), "a sleep");
    return 0;
}

/* ---- things that threads wait for, by address ---- */

/* One for each thread: where it stands in a futex or a condition. */
static struct wait {
    const void *key;
    bool woken;
} waits[MODEL_THREADS];

static bool woken(void *w) { return ((struct wait *)w)->woken; }

static bool wait_for(const void *key, int64_t deadline_ns, const char *what) {
    struct wait *w = &waits[model_self];
    *w = (struct wait){key, false};
    bool came = model_block(woken, w, deadline_ns, what);
    w->key = NULL;
    return came;
}

static int wake(const void *key, int count) {
    int n = 0;
    for (int i = 0; i < MODEL_THREADS && n < count; i++)
        if (waits[i].key == key && !waits[i].woken) {
            waits[i].woken = true;
            n++;
        }
    if (n) model_progress();
    return n;
}

/* ---- poll sets and wake-up descriptors ---- */

#define FIRST_FD 100000
enum kind { CLOSED, POLLER, EVENT };
static struct descriptor {
    enum kind kind;
    uint64_t content;
    int registered; /* an event's: with which poll set, or -1 */
    uint64_t data;
    bool edge;
} descriptors[32];

static struct descriptor *fake(int fd) {
    if (fd < FIRST_FD) return NULL;
    struct descriptor *d = &descriptors[fd - FIRST_FD];
    if (d->kind == CLOSED) model_fail("a call on a descriptor that is closed");
    return d;
}

static int fake_new(enum kind kind, uint64_t content) {
    for (int i = 0; i < 32; i++)
        if (descriptors[i].kind == CLOSED) {
            descriptors[i] = (struct descriptor){kind, content, -1, 0, false};
            return FIRST_FD + i;
        }
    model_fail("the checker's table of descriptors is full");
}

int __real_epoll_create1(int flags);
int __real_eventfd(unsigned content, int flags);
int __real_epoll_ctl(int epfd, int op, int fd, struct epoll_event *event);
int __real_epoll_wait(int epfd, struct epoll_event *events, int max, int timeout);
ssize_t __real_read(int fd, void *buffer, size_t bytes);
ssize_t __real_write(int fd, const void *buffer, size_t bytes);
int __real_close(int fd);
int __wrap_epoll_create1(int flags);
int __wrap_eventfd(unsigned content, int flags);
int __wrap_epoll_ctl(int epfd, int op, int fd, struct epoll_event *event);
int __wrap_epoll_wait(int epfd, struct epoll_event *events, int max, int timeout);
ssize_t __wrap_read(int fd, void *buffer, size_t bytes);
ssize_t __wrap_write(int fd, const void *buffer, size_t bytes);
int __wrap_close(int fd);

int __wrap_epoll_create1(int flags) { return model_active ? fake_new(POLLER, 0) : __real_epoll_create1(flags); }

int __wrap_eventfd(unsigned content, int flags) {
    return model_active ? fake_new(EVENT, content) : __real_eventfd(content, flags);
}

int __wrap_epoll_ctl(int epfd, int op, int fd, struct epoll_event *event) {
    if (epfd < FIRST_FD) return __real_epoll_ctl(epfd, op, fd, event);
    fake(epfd);
    struct descriptor *d = fake(fd);
    if (!d) model_fail("the checker's poll sets know wake-up descriptors only");
    d->registered = op == EPOLL_CTL_DEL ? -1 : epfd;
    if (op != EPOLL_CTL_DEL) {
        d->data = event->data.u64;
        d->edge = d->content != 0;
    }
    return 0;
}

static bool has_edge(void *epfd) {
    for (int i = 0; i < 32; i++)
        if (descriptors[i].kind == EVENT && descriptors[i].registered == (intptr_t)epfd && descriptors[i].edge)
            return true;
    return false;
}

bool model_readable(int fd) { return has_edge((void *)(intptr_t)fd); }

static int poll_fake(int epfd, struct epoll_event *events, int max, int64_t timeout_ns) {
    fake(epfd);
    model_point();
    int64_t deadline = timeout_ns < 0 ? INT64_MAX : model_clock_ns + timeout_ns;
    if (timeout_ns && model_self >= 0) model_block(has_edge, (void *)(intptr_t)epfd, deadline, "its poll set");
    int n = 0;
    for (int i = 0; i < 32 && n < max; i++) {
        struct descriptor *d = &descriptors[i];
        if (d->kind != EVENT || d->registered != epfd || !d->edge) continue;
        d->edge = false;
        events[n].events = EPOLLIN;
        events[n++].data.u64 = d->data;
    }
    model_trace("epoll_wait", MODEL_CALL, 0, (uint64_t)n, 0, false);
    return n;
}

int __wrap_epoll_wait(int epfd, struct epoll_event *events, int max, int timeout) {
    if (epfd < FIRST_FD) return __real_epoll_wait(epfd, events, max, timeout);
    return poll_fake(epfd, events, max, timeout < 0 ? -1 : (int64_t)timeout * 1000000);
}

ssize_t __wrap_read(int fd, void *buffer, size_t bytes) {
    struct descriptor *d = fake(fd);
    if (!d) return __real_read(fd, buffer, bytes);
    model_point();
    if (!d->content) {
        errno = EAGAIN;
        return -1;
    }
    memcpy(buffer, &d->content, sizeof(d->content));
    d->content = 0;
    return sizeof(d->content);
}

ssize_t __wrap_write(int fd, const void *buffer, size_t bytes) {
    struct descriptor *d = fake(fd);
    if (!d) return __real_write(fd, buffer, bytes);
    model_point();
    if (d->kind == CLOSED) model_fail("a wake-up is written to a descriptor that is closed");
    uint64_t more;
    memcpy(&more, buffer, sizeof(more));
    d->content += more;
    d->edge = true;
    model_trace("wake-up written", MODEL_CALL, 0, (uint64_t)fd, 0, false);
    model_progress();
    return sizeof(more);
}

int __wrap_close(int fd) {
    struct descriptor *d = fake(fd);
    if (!d) return __real_close(fd);
    model_point();
    d->kind = CLOSED;
    return 0;
}

/* ---- system calls without a function ---- */

long __real_syscall(long number, ...);
long __wrap_syscall(long number, ...);

static long futex(uint32_t *word, int op, uint32_t value, const struct timespec *end) {
    model_point();
    switch (op & FUTEX_CMD_MASK) {
        case FUTEX_WAIT_BITSET:
            if (*(volatile uint32_t *)word != value) {
                errno = EAGAIN;
                return -1;
            }
            if (wait_for(word, end ? ns_of(end) : INT64_MAX, "a futex")) return 0;
            errno = ETIMEDOUT;
            return -1;
        case FUTEX_WAKE: return wake(word, (int)value);
        default: model_fail("the checker does not know the futex operation %d", op);
    }
}

long __wrap_syscall(long number, ...) {
    va_list args;
    va_start(args, number);
    long a[6];
    for (int i = 0; i < 6; i++) a[i] = va_arg(args, long);
    va_end(args);
    if (model_active && number == SYS_futex)
        return futex((uint32_t *)a[0], (int)a[1], (uint32_t)a[2], (const struct timespec *)a[3]);
    if (number == SYS_epoll_pwait2 && a[0] >= FIRST_FD) {
        const struct timespec *limit = (const struct timespec *)a[3];
        return poll_fake((int)a[0], (struct epoll_event *)a[1], (int)a[2], limit ? ns_of(limit) : -1);
    }
    return __real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

/* ---- locks ---- */

static struct lock {
    const void *key;
    int owner, depth; /* owner: slot number, 0 is setup; depth 0: free */
} locks[32];

static struct lock *lock_of(const void *key) {
    int i = 0;
    while (i < 32 && locks[i].key && locks[i].key != key) i++;
    if (i == 32) model_fail("the checker's table of locks is full");
    locks[i].key = key;
    return &locks[i];
}

static bool lock_free(void *l) { return ((struct lock *)l)->depth == 0; }

static void lock_take(pthread_mutex_t *m) {
    struct lock *l = lock_of(m);
    /* Taking one's own again: only a recursive one is taken so. */
    if (l->depth && l->owner != model_self) {
        if (model_self < 0) model_fail("setup or check finds a lock held");
        model_block(lock_free, l, INT64_MAX, "a lock");
    }
    l->owner = model_self;
    if (l->depth++ == 0) memory_acquire(m);
}

static void lock_give(pthread_mutex_t *m) {
    struct lock *l = lock_of(m);
    if (!l->depth || l->owner != model_self) model_fail("a lock is given back by who does not hold it");
    if (--l->depth == 0) {
        memory_release(m);
        model_progress();
    }
}

int __real_pthread_mutex_lock(pthread_mutex_t *m);
int __real_pthread_mutex_unlock(pthread_mutex_t *m);
int __real_pthread_cond_broadcast(pthread_cond_t *c);
int __real_pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *m);
int __real_pthread_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *m, const struct timespec *end);
int __wrap_pthread_mutex_lock(pthread_mutex_t *m);
int __wrap_pthread_mutex_unlock(pthread_mutex_t *m);
int __wrap_pthread_cond_broadcast(pthread_cond_t *c);
int __wrap_pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *m);
int __wrap_pthread_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *m, const struct timespec *end);

int __wrap_pthread_mutex_lock(pthread_mutex_t *m) {
    if (!model_active) return __real_pthread_mutex_lock(m);
    model_point();
    lock_take(m);
    return 0;
}

int __wrap_pthread_mutex_unlock(pthread_mutex_t *m) {
    if (!model_active) return __real_pthread_mutex_unlock(m);
    lock_give(m);
    return 0;
}

int __wrap_pthread_cond_broadcast(pthread_cond_t *c) {
    if (!model_active) return __real_pthread_cond_broadcast(c);
    model_point();
    wake(c, MODEL_THREADS);
    return 0;
}

static int cond_wait(pthread_cond_t *c, pthread_mutex_t *m, int64_t deadline_ns) {
    if (model_self < 0) model_fail("setup or check would wait for a condition");
    lock_give(m);
    bool came = wait_for(c, deadline_ns, "a condition");
    lock_take(m);
    return came ? 0 : ETIMEDOUT;
}

int __wrap_pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *m) {
    if (!model_active) return __real_pthread_cond_wait(c, m);
    return cond_wait(c, m, INT64_MAX);
}

int __wrap_pthread_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *m, const struct timespec *end) {
    if (!model_active) return __real_pthread_cond_timedwait(c, m, end);
    return cond_wait(c, m, ns_of(end));
}

/* ---- threads ---- */

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *arg);
int __real_pthread_join(pthread_t thread, void **result);
int __real_pthread_detach(pthread_t thread);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *arg);
int __wrap_pthread_join(pthread_t thread, void **result);
int __wrap_pthread_detach(pthread_t thread);
int __wrap_pthread_setname_np(pthread_t thread, const char *name);
int __wrap_pthread_sigmask(int how, const void *set, void *before);

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *arg) {
    if (!model_active) return __real_pthread_create(thread, attributes, start, arg);
    *thread = (pthread_t)model_spawn(start, arg);
    return 0;
}

int __wrap_pthread_join(pthread_t thread, void **result) {
    if (!model_active) return __real_pthread_join(thread, result);
    if (model_self >= 0) model_block(model_ended, (void *)thread, INT64_MAX, "a thread's end");
    memory_joined((int)thread);
    return 0;
}

int __real_pthread_once(pthread_once_t *once, void (*fn)(void));
int __wrap_pthread_once(pthread_once_t *once, void (*fn)(void));

/* What is made once for the process is made in the first execution. */
int __wrap_pthread_once(pthread_once_t *once, void (*fn)(void)) {
    int before = *(int *)once, err = __real_pthread_once(once, fn);
    if (*(int *)once != before) memory_release(once);
    else memory_acquire(once);
    return err;
}

int __wrap_pthread_detach(pthread_t thread) { return model_active ? 0 : __real_pthread_detach(thread); }

int __wrap_pthread_setname_np(pthread_t thread, const char *name) {
    (void)thread, (void)name;
    return 0;
}

int __wrap_pthread_sigmask(int how, const void *set, void *before) {
    (void)how, (void)set, (void)before;
    return 0;
}

/* ---- begin and end ---- */

void world_install(void) {
    arena = __real_mmap(NULL, ARENA_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (arena == MAP_FAILED || heist__fork_guard()) model_fail("no memory for the arena");
    heist_allocator allocator = HEIST_ALLOCATOR_INIT;
    allocator.malloc = block_new;
    allocator.realloc = block_resize;
    allocator.free = block_free;
    if (heist_set_allocator(&allocator)) model_fail("the allocator is in use already");
}

void world_begin(void) {
    arena_used = 0;
    live_blocks = live_maps = 0;
    memset(waits, 0, sizeof(waits));
    memset(locks, 0, sizeof(locks));
    memset(descriptors, 0, sizeof(descriptors));
}

void world_end(void) {
    if (live_blocks) model_fail("%ld blocks of memory are left behind", live_blocks);
    if (live_maps) model_fail("%ld mappings are left behind", live_maps);
    for (int i = 0; i < 32; i++)
        if (descriptors[i].kind != CLOSED) model_fail("a descriptor is left open");
}
