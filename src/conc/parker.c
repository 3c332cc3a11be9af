/* The sleep of a thread; contract, states and proof are in parker.h.
 *
 * Owns the process-wide pool of parkers that no thread has now, under one short
 * lock which is taken at a thread's first wait and at its exit only. */
#include "conc/parker.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>

#include "arch/cpu.h"
#include "base/alloc.h"
#include "base/macros.h"
#include "base/sys.h"
#include "conc/atomic.h"
#include "conc/spin.h"

enum { EMPTY = 0, NOTIFIED = 1, PARKED = 2 };

struct heist__parker {
    HEIST_ALIGNED(HEIST_CACHE_LINE) _Atomic(uint32_t) word; /* written by the owner and by wakers; see parker.h */
    struct heist__parker *next;                             /* in the pool; guarded by pool_lock */
};

static struct heist__spin pool_lock;   /* guards pool and released */
static struct heist__parker *pool;     /* no living thread has these */
static bool released;                  /* since the last release nobody has asked for one */
static pthread_once_t key_once = PTHREAD_ONCE_INIT;
static pthread_key_t key;
static bool key_made; /* written once under key_once */

/* Also in the key, whose only task is the call at thread exit: reading this is
 * cheaper. */
static _Thread_local struct heist__parker *mine;

/* At thread exit: the parker goes back to the pool, or, when the pool was
 * released meanwhile, is freed. */
static void give_back(void *arg) {
    struct heist__parker *p = arg;
    mine = NULL; /* another key's destructor may ask again; it gets a new one */
    heist__spin_lock(&pool_lock);
    bool keep = !released;
    if (keep) {
        p->next = pool;
        pool = p;
    }
    heist__spin_unlock(&pool_lock);
    if (!keep) heist__free(p);
}

static void make_key(void) {
    key_made = pthread_key_create(&key, give_back) == 0;
}

/* A library that is unloaded must not leave its destructor behind. */
__attribute__((destructor)) static void drop_key(void) {
    if (key_made) pthread_key_delete(key);
}

/* From the pool, else new. */
static struct heist__parker *pool_get(void) {
    heist__spin_lock(&pool_lock);
    released = false;
    struct heist__parker *p = pool;
    if (p) pool = p->next;
    heist__spin_unlock(&pool_lock);
    if (p) return p;
    p = heist__aligned_alloc(HEIST_CACHE_LINE, sizeof(*p));
    if (p) atomic_init(&p->word, EMPTY);
    return p;
}

static HEIST_COLD struct heist__parker *first_use(void) {
    if (pthread_once(&key_once, make_key) != 0 || !key_made) return NULL;
    struct heist__parker *p = pool_get();
    if (!p) return NULL;
    if (pthread_setspecific(key, p) != 0) {
        give_back(p);
        return NULL;
    }
    mine = p;
    return p;
}

/* Never inlined: it reads thread-local state, and its caller may be a task. */
HEIST_NOINLINE struct heist__parker *heist__parker_get(void) {
    struct heist__parker *p = mine;
    return heist_likely(p != NULL) ? p : first_use();
}

HEIST_NOINLINE void heist__parker_pool_release(void) {
    struct heist__parker *own = mine;
    if (own) {
        pthread_setspecific(key, NULL); /* clearing a value that was set needs no memory */
        mine = NULL;
    }
    heist__spin_lock(&pool_lock);
    struct heist__parker *list = pool;
    pool = NULL;
    released = true;
    heist__spin_unlock(&pool_lock);
    heist__free(own);
    while (list) {
        struct heist__parker *next = list->next;
        heist__free(list);
        list = next;
    }
}

void heist__parker_prepare(struct heist__parker *p) {
    /* Relaxed: the publication that follows orders it before every wake that is
     * meant for this wait; a late wake for an earlier one may fall either way. */
    a_store_rlx(&p->word, EMPTY);
}

/* Takes a pending wake.  Acquire pairs with the release of heist__parker_unpark;
 * a read-modify-write, so that every unpark before it in the word's order is
 * acquired, not only the last. */
static bool take_wake(struct heist__parker *p) {
    uint32_t expected = NOTIFIED;
    /* The read first: a failing exchange would pull the line to no use. */
    return a_load_rlx(&p->word) == NOTIFIED && a_cas_acq(&p->word, &expected, EMPTY);
}

/* Looks between two readings of the clock, which costs as much as one or two
 * pauses. */
#define LOOKS_PER_CLOCK 16

/* Looks for a wake for spin_ns, or to the deadline, whichever is nearer. */
static bool spin_for_wake(struct heist__parker *p, int64_t deadline_ns, int64_t spin_ns) {
    int64_t now = heist__sys_monotonic_ns();
    if (deadline_ns <= now) return false; /* also keeps the difference below in range */
    int64_t until = spin_ns < deadline_ns - now ? now + spin_ns : deadline_ns;
    while (now < until) {
        for (int i = 0; i < LOOKS_PER_CLOCK; i++) {
            if (take_wake(p)) return true;
            heist__cpu_relax();
        }
        heist__sys_yield(); /* the waker may be waiting for this very core */
        now = heist__sys_monotonic_ns();
    }
    return false;
}

int heist__parker_park(struct heist__parker *p, int64_t deadline_ns, int64_t spin_ns) {
    if (take_wake(p)) return 0;
    /* In a simulation a look costs a switch and finds nothing that the sleep would miss. */
    if (spin_ns > 0 && !heist__simulated() && spin_for_wake(p, deadline_ns, spin_ns)) return 0;

    /* Acquire on failure pairs with unpark: the word was NOTIFIED, and is taken
     * below.  On success nothing is acquired, nothing is published. */
    uint32_t expected = EMPTY;
    if (!a_cas_acq(&p->word, &expected, PARKED)) {
        (void)a_xchg_acq(&p->word, EMPTY); /* a read-modify-write, as in take_wake */
        return 0;
    }
    for (;;) {
        int rc = heist__sys_futex_wait(&p->word, PARKED, deadline_ns);
        if (take_wake(p)) return 0;
        if (rc == -ETIMEDOUT) {
            /* From PARKED back to EMPTY; an unpark that came between turns the
             * time-out into a wake.  Acquire for that case. */
            return a_xchg_acq(&p->word, EMPTY) == NOTIFIED ? 0 : -ETIMEDOUT;
        }
        /* A signal, or a wake meant for whoever had this address before. */
    }
}

void heist__parker_unpark(struct heist__parker *p) {
    /* Release pairs with take_wake: what the waker wrote is seen by the woken.
     * Acquire as well, so that a chain of unparks hands on what each saw. */
    if (a_xchg_ar(&p->word, NOTIFIED) == PARKED)
        heist__sys_futex_wake(&p->word, 1);
}
