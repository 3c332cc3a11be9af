/* libheist-debugmutex: counts the locks that each thread holds, for heist's debug mode.
 *
 * It stands in front of the C library's functions: linked before it, or preloaded.  Each
 * function calls the one behind it and, when a lock was taken or given back, notes it in
 * the thread's own list.  A wait on a condition gives its mutex back and takes it again
 * inside the C library, unseen: the thread holds it before and after, and does not run
 * between.  heist asks by the hook of heist/debug.h when a task suspends or ends.
 *
 * HEIST_DEBUGMUTEX in the environment: "report" goes on after a report instead of aborting;
 * "verbose" says on standard error whether a heist was found. */
#include <dlfcn.h>
#include <errno.h>
#include <heist/debug.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <threads.h>

/* For a program that loads heist later, by dlopen: to be given to heist_debug_set_locks_hook. */
HEIST_API int heist_debugmutex_held(char *text, size_t size);

/* ---- the thread's list ---- */

enum { NOTED = 32 }; /* more are counted and not described */

struct note {
    const void *lock, *place; /* place: of the call */
    const char *kind;
};

static _Thread_local struct {
    struct note notes[NOTED];
    int count, beyond;
} mine;

static void taken(const void *lock, const char *kind, const void *place) {
    if (mine.count < NOTED)
        mine.notes[mine.count++] = (struct note){lock, place, kind};
    else
        mine.beyond++;
}

static void given_back(const void *lock) {
    for (int i = mine.count; i-- > 0;) {
        if (mine.notes[i].lock != lock) continue;
        memmove(&mine.notes[i], &mine.notes[i + 1], (size_t)(--mine.count - i) * sizeof(mine.notes[0]));
        return;
    }
    if (mine.beyond) mine.beyond--;
    /* Else another thread took it: its list still has it, which is true. */
}

static void put(char *text, size_t size, const char *more) {
    size_t at = strlen(text);
    if (at < size) snprintf(text + at, size - at, "%s", more);
}

int heist_debugmutex_held(char *text, size_t size) {
    if (size) text[0] = '\0';
    for (int i = mine.count; size && i-- > 0;) { /* the newest first */
        const struct note *n = &mine.notes[i];
        char line[256];
        Dl_info info;
        if (dladdr(n->place, &info) && info.dli_fname)
            snprintf(line, sizeof(line), "%s%s %p, taken at %s%s+0x%lx [%p]", text[0] ? "; " : "", n->kind, n->lock,
                     info.dli_sname ? info.dli_sname : info.dli_fname, info.dli_sname ? "" : " ",
                     (unsigned long)((uintptr_t)n->place - (uintptr_t)(info.dli_sname ? info.dli_saddr : info.dli_fbase)),
                     n->place);
        else
            snprintf(line, sizeof(line), "%s%s %p, taken at %p", text[0] ? "; " : "", n->kind, n->lock, n->place);
        put(text, size, line);
    }
    if (size && mine.beyond) {
        char line[64];
        snprintf(line, sizeof(line), "%s%d more, taken when the list was full", text[0] ? "; " : "", mine.beyond);
        put(text, size, line);
    }
    return mine.count + mine.beyond;
}

/* ---- in front of the C library ---- */

/* The function behind ours; found once.  A race finds it twice, and stores the same. */
static void *behind(_Atomic(void *) *kept, const char *name) {
    void *fn = atomic_load_explicit(kept, memory_order_relaxed); /* relaxed: the address is all there is */
    if (fn) return fn;
    fn = dlsym(RTLD_NEXT, name);
    if (!fn) {
        fprintf(stderr, "heist-debugmutex: the C library has no %s\n", name);
        abort();
    }
    atomic_store_explicit(kept, fn, memory_order_relaxed);
    return fn;
}

/* A conversion that ISO C has no word for, and POSIX promises. */
#define BEHIND(name, type, call)                                                                                       \
    static _Atomic(void *) kept;                                                                                       \
    type;                                                                                                              \
    *(void **)&real = behind(&kept, #name);                                                                            \
    int answer = real call

/* EOWNERDEAD: a robust mutex whose owner died is held all the same. */
#define TAKES_1(name, object, kind)                                                                                    \
    HEIST_API int name(object *lock) {                                                                                 \
        BEHIND(name, int (*real)(object *), (lock));                                                                   \
        if (answer == 0 || answer == EOWNERDEAD) taken((const void *)lock, kind, __builtin_return_address(0));         \
        return answer;                                                                                                 \
    }
#define TAKES_2(name, object, kind, second)                                                                            \
    HEIST_API int name(object *lock, second until) {                                                                   \
        BEHIND(name, int (*real)(object *, second), (lock, until));                                                    \
        if (answer == 0 || answer == EOWNERDEAD) taken((const void *)lock, kind, __builtin_return_address(0));         \
        return answer;                                                                                                 \
    }
#define TAKES_3(name, object, kind, second, third)                                                                     \
    HEIST_API int name(object *lock, second clock, third until) {                                                      \
        BEHIND(name, int (*real)(object *, second, third), (lock, clock, until));                                      \
        if (answer == 0 || answer == EOWNERDEAD) taken((const void *)lock, kind, __builtin_return_address(0));         \
        return answer;                                                                                                 \
    }
#define GIVES_BACK(name, object)                                                                                       \
    HEIST_API int name(object *lock) {                                                                                 \
        BEHIND(name, int (*real)(object *), (lock));                                                                   \
        if (answer == 0) given_back((const void *)lock);                                                               \
        return answer;                                                                                                 \
    }

typedef const struct timespec *instant;

TAKES_1(pthread_mutex_lock, pthread_mutex_t, "mutex")
TAKES_1(pthread_mutex_trylock, pthread_mutex_t, "mutex")
TAKES_2(pthread_mutex_timedlock, pthread_mutex_t, "mutex", instant)
TAKES_3(pthread_mutex_clocklock, pthread_mutex_t, "mutex", clockid_t, instant)
GIVES_BACK(pthread_mutex_unlock, pthread_mutex_t)

TAKES_1(pthread_rwlock_rdlock, pthread_rwlock_t, "read lock")
TAKES_1(pthread_rwlock_tryrdlock, pthread_rwlock_t, "read lock")
TAKES_2(pthread_rwlock_timedrdlock, pthread_rwlock_t, "read lock", instant)
TAKES_3(pthread_rwlock_clockrdlock, pthread_rwlock_t, "read lock", clockid_t, instant)
TAKES_1(pthread_rwlock_wrlock, pthread_rwlock_t, "write lock")
TAKES_1(pthread_rwlock_trywrlock, pthread_rwlock_t, "write lock")
TAKES_2(pthread_rwlock_timedwrlock, pthread_rwlock_t, "write lock", instant)
TAKES_3(pthread_rwlock_clockwrlock, pthread_rwlock_t, "write lock", clockid_t, instant)
GIVES_BACK(pthread_rwlock_unlock, pthread_rwlock_t)

TAKES_1(pthread_spin_lock, pthread_spinlock_t, "spin lock")
TAKES_1(pthread_spin_trylock, pthread_spinlock_t, "spin lock")
GIVES_BACK(pthread_spin_unlock, pthread_spinlock_t)

/* C11's do not go by way of those: the C library calls itself directly.  thrd_success is 0. */
TAKES_1(mtx_lock, mtx_t, "mutex")
TAKES_1(mtx_trylock, mtx_t, "mutex")
TAKES_2(mtx_timedlock, mtx_t, "mutex", instant)
GIVES_BACK(mtx_unlock, mtx_t)

/* ---- telling heist ---- */

extern int heist_debug_set_locks_hook(heist_debug_locks_fn held, unsigned flags) __attribute__((weak));

__attribute__((constructor)) static void arm(void) {
    const char *wish = getenv("HEIST_DEBUGMUTEX");
    bool found = heist_debug_set_locks_hook != NULL;
    if (found) {
        unsigned flags = wish && strstr(wish, "report") ? HEIST_DEBUG_LOCKS_GO_ON : 0;
        found = heist_debug_set_locks_hook(heist_debugmutex_held, flags) == 0;
    }
    if (wish && strstr(wish, "verbose"))
        fprintf(stderr, "heist-debugmutex: %s\n",
                found ? "locks are counted" : "no heist was found, or the program keeps its symbols to itself");
}
