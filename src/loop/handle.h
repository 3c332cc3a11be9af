/* A scheduled callback.
 *
 * States in `state`: SCHEDULED -> RUN or CANCELLED, by one exchange when somebody
 * else holds a reference, so that exactly one of the run, a cancel and the close ends
 * it and frees the argument.  The queue (or timer store) holds one reference; a
 * detached handle has no other, and then nobody can cancel it. */
#ifndef HEIST_LOOP_HANDLE_H
#define HEIST_LOOP_HANDLE_H

#include <heist/loop.h>

#include "base/options.h"
#include "conc/atomic.h"
#include "loop/timers.h"
#include "task/context.h"
#include "task/job.h"

enum { HEIST__HANDLE_SCHEDULED, HEIST__HANDLE_RUN, HEIST__HANDLE_CANCELLED };

struct heist_handle {
    struct heist__job job;
    _Atomic(uint32_t) refs;
    _Atomic(uint8_t) state;
    uint8_t timed;  /* it is the head of a heist__timed_handle */
    uint8_t scoped; /* it is the head of a heist__scoped_handle */
    heist_callback_fn fn;
    void *arg;
    heist_free_fn arg_free;
    const char *name;
    heist_loop *loop;
};

/* One cache line, for a burst of submissions is as fast as the memory that it touches. */
_Static_assert(sizeof(struct heist_handle) <= HEIST_CACHE_LINE, "a handle fits a cache line");

struct heist__timed_handle {
    struct heist_handle handle;
    struct heist__timer timer;
    int64_t when_ns;
};

/* One that carries a context: few do, and the others stay as small as they are. */
struct heist__scoped_handle {
    struct heist__timed_handle timed;
    struct heist__carried carried;
};

/* The options of a program that was built before callbacks had contexts end here. */
#define HEIST__CALL_OPTIONS_FIRST offsetof(heist_call_options, context)
static inline heist_context *heist__call_context(const heist_call_options *opts) {
    return heist__options_has(opts, HEIST__CALL_OPTIONS_FIRST) ? opts->context : NULL;
}

/* What a timed handle in the inbox is: not armed yet, or due and taken out by a rescuer.  The loop arms both when
 * it takes its inbox, so that timers from everywhere leave in one order. */
extern const struct heist__job_class heist__handle_arriving, heist__handle_rescued;
/* By the owner, under the timer lock.  One that was cancelled meanwhile goes to `ready`, where it ends. */
void heist__handle_arm(heist_handle *h, heist_loop *loop);
void heist__handle_put_back(heist_handle *h, heist_loop *loop);

static inline struct heist__timed_handle *heist__timed(heist_handle *h) {
    return heist_container_of(h, struct heist__timed_handle, handle);
}
static inline struct heist__carried *heist__carried(heist_handle *h) {
    return &heist_container_of(h, struct heist__scoped_handle, timed.handle)->carried;
}

#endif
