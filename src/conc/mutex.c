/* See mutex.h. */
#include "conc/mutex.h"

#include <time.h>

void heist__mutex_init(struct heist__mutex *m, bool recursive) {
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    if (recursive) pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&m->raw, &attr);
    pthread_mutexattr_destroy(&attr);
}

void heist__mutex_destroy(struct heist__mutex *m) { pthread_mutex_destroy(&m->raw); }

void heist__mutex_lock(struct heist__mutex *m) {
    heist__yield_point();
#ifdef HEIST_SEEDED
    if (heist__simulated()) {
        while (pthread_mutex_trylock(&m->raw) != 0) heist__sim_wait(m, INT64_MAX, "a mutex");
        heist__sim_locked(m);
        return;
    }
#endif
    pthread_mutex_lock(&m->raw);
}

void heist__mutex_unlock(struct heist__mutex *m) {
#ifdef HEIST_SEEDED
    if (heist__simulated()) {
        heist__yield_point();
        heist__sim_unlocking(m);
        pthread_mutex_unlock(&m->raw);
        heist__sim_wake(m, 1);
        return;
    }
#endif
    pthread_mutex_unlock(&m->raw);
}

void heist__cond_init(struct heist__cond *c) {
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&c->raw, &attr);
    pthread_condattr_destroy(&attr);
}

void heist__cond_destroy(struct heist__cond *c) { pthread_cond_destroy(&c->raw); }

void heist__cond_broadcast(struct heist__cond *c) {
#ifdef HEIST_SEEDED
    heist__yield_point();
    heist__sim_wake(c, INT32_MAX);
#endif
    pthread_cond_broadcast(&c->raw);
}

int heist__cond_wait(struct heist__cond *c, struct heist__mutex *m, int64_t deadline_ns) {
#ifdef HEIST_SEEDED
    if (heist__simulated()) { /* no point between the unlock and the wait: they are one step */
        heist__yield_point();
        heist__sim_unlocking(m);
        pthread_mutex_unlock(&m->raw);
        heist__sim_wake(m, 1);
        int rc = heist__sim_wait(c, deadline_ns, "a condition");
        heist__mutex_lock(m);
        return rc;
    }
#endif
    if (deadline_ns == INT64_MAX) return -pthread_cond_wait(&c->raw, &m->raw);
    struct timespec until = {.tv_sec = deadline_ns / 1000000000, .tv_nsec = deadline_ns % 1000000000};
    return -pthread_cond_timedwait(&c->raw, &m->raw, &until);
}
