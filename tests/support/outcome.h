/* support/outcome.h: a test in a coroutine that ends at the first thing that is not so, in machine time (sockets are the
 * kernel's); must_run() then fails on the test's own thread, with the line. */
#ifndef HEIST_TEST_OUTCOME_H
#define HEIST_TEST_OUTCOME_H

#include <errno.h>
#include <stdio.h>

#include "support/harness.h"

#define LIMIT (heist_time() + 120)
/* In a coroutine: the first thing that is not as it should be ends it, with its line. */
#define WANT(cond)                                                                                                     \
    do {                                                                                                               \
        if (!(cond)) return heist_fail(-EPROTO, "line %d: %s", __LINE__, #cond);                                       \
    } while (0)

static inline int run_with(heist_coro_fn fn, void *arg, heist_exception_handler handler, void *user) {
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    opts.workers = harness_workers();
    opts.exception_handler = handler;
    opts.exception_user = user;
    return heist_run(fn, arg, &opts, NULL);
}

static inline int run_real(heist_coro_fn fn, void *arg) { return run_with(fn, arg, NULL, NULL); }

/* Runs a coroutine, and says where it failed. */
struct outcome {
    heist_coro_fn fn;
    void *arg;
    char text[256];
};

static inline int watched(void *arg, void **out) {
    struct outcome *o = arg;
    heist_task *t;
    (void)out;
    int err = heist_create_task(o->fn, o->arg, NULL, &t);
    if (err < 0) return err;
    err = heist_await(t, NULL);
    heist_exception e = HEIST_EXCEPTION_INIT;
    if (err < 0 && heist_future_exception(t, &e) == 0) snprintf(o->text, sizeof o->text, "%s", e.message);
    heist_unref(t);
    return err;
}

static inline void must_run_with(heist_coro_fn fn, void *arg, heist_exception_handler handler, void *user) {
    struct outcome o = {fn, arg, ""};
    int err = run_with(watched, &o, handler, user);
    if (err < 0) fail_msg("%s: %s", heist_error_name(err), o.text);
}

static inline void must_run(heist_coro_fn fn, void *arg) { must_run_with(fn, arg, NULL, NULL); }

#endif
