/* Threads for the tests of this room: a crew that starts together.
 *
 * A failed assertion outside the test's own thread would end the whole program
 * without a message, so the members record what they saw in their own struct,
 * and the body of the test asserts after crew_join. */
#ifndef HEIST_TEST_CREW_H
#define HEIST_TEST_CREW_H

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/macros.h"

/* Rounds for loops that run on several threads: fewer where each step is
 * watched (a detector, or valgrind, which runs one thread at a time).  By hand,
 * -DCREW_ROUNDS_WANTED=5000000 makes a soak of it. */
#ifdef CREW_ROUNDS_WANTED
#define CREW_ROUNDS CREW_ROUNDS_WANTED
#elif HEIST_TSAN || HEIST_ASAN || defined(HEIST_VALGRIND) || defined(HEIST_SEEDED)
#define CREW_ROUNDS 20000
#else
#define CREW_ROUNDS 100000
#endif

#define CREW_MAX 8

struct crew {
    pthread_t thread[CREW_MAX];
    int count;
    pthread_barrier_t start;
};

struct crew_member {
    struct crew *crew;
    void (*body)(void *self);
    void *self;
};

static inline void *crew_enter(void *arg) {
    struct crew_member *m = arg;
    pthread_barrier_wait(&m->crew->start);
    m->body(m->self);
    return NULL;
}

/* Starts count threads with members[i]; all wait for each other first. */
static inline void crew_start(struct crew *c, struct crew_member *members, int count) {
    assert_in_range(count, 1, CREW_MAX);
    c->count = count;
    assert_int_equal(pthread_barrier_init(&c->start, NULL, (unsigned)count), 0);
    for (int i = 0; i < count; i++) {
        members[i].crew = c;
        assert_int_equal(pthread_create(&c->thread[i], NULL, crew_enter, &members[i]), 0);
    }
}

static inline void crew_join(struct crew *c) {
    for (int i = 0; i < c->count; i++) assert_int_equal(pthread_join(c->thread[i], NULL), 0);
    assert_int_equal(pthread_barrier_destroy(&c->start), 0);
}

#endif
