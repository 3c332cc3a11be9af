/* A runtime whose workers are threads of the case: made as the library makes it, run by
 * heist__worker_turn, and nobody sleeps in a poll set unless the case says so. */
#ifndef HEIST_TESTS_MODEL_PLAYED_H
#define HEIST_TESTS_MODEL_PLAYED_H

#include <heist/runtime.h>
#include <heist/task.h>

#include "model/model.h"
#include "sched/sched.h"

static heist_runtime *rt;

/* In setup. */
static inline void played_make(int workers) {
    heist_runtime_options o = HEIST_RUNTIME_OPTIONS_INIT;
    o.workers = workers;
    o.stack_bytes = 16 << 10;
    model_assert(heist__runtime_create(&o, false, false, &rt) == 0);
}

/* In check, after every task has ended: a leak of any kind fails the execution. */
static inline void played_end(void) {
    model_assert(heist__live_tasks(rt) == 0);
    heist__runtime_release(rt);
}

/* What a worker would get up for, read without a point. */
static inline bool played_something(void *arg) {
    struct heist__worker *w = arg;
    struct heist__mpsc_node *inject = *(struct heist__mpsc_node *volatile *)&w->rt->inject.head;
    struct heist__mpsc_node *inbox = *(struct heist__mpsc_node *volatile *)&w->loop->inbox.head;
    return inject || (inbox && inbox != HEIST__MPSC_CLOSED_HEAD);
}

#endif
