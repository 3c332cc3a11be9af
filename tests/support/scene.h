/* support/scene.h: a test that plays inside a runtime, in machine time, for descriptors are the kernel's.
 *
 * SEE(x) notes the first thing that was not so, from any task or thread; play() runs the scene and then asserts, on
 * the test's own thread, that there was none. */
#ifndef HEIST_TEST_SCENE_H
#define HEIST_TEST_SCENE_H

#include <stdatomic.h>
#include <stdio.h>

#include "support/harness.h"

static _Atomic(int) scene_wrong;

static inline void scene_note(const char *what, int line, long value) {
    int none = 0;
    if (atomic_compare_exchange_strong(&scene_wrong, &none, line))
        fprintf(stderr, "line %d: not so: %s (%ld%s%s)\n", line, what, value, value < 0 ? ", " : "",
                value < 0 ? heist_error_name((int)value) : "");
}
#define SEE(x) ((x) ? (void)0 : scene_note(#x, __LINE__, 0))
/* The same for a number, which is printed. */
#define SEE_IS(expected, x)                                                                                            \
    do {                                                                                                               \
        long seen_ = (long)(x);                                                                                        \
        if (seen_ != (long)(expected)) scene_note(#x " == " #expected, __LINE__, seen_);                               \
    } while (0)

static inline void play_with(heist_coro_fn scene, void *arg, unsigned flags) {
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    opts.workers = harness_workers();
    opts.flags = flags;
    scene_wrong = 0;
    assert_int_equal(heist_run(scene, arg, &opts, NULL), 0);
    assert_int_equal(scene_wrong, 0);
}
static inline void play(heist_coro_fn scene) { play_with(scene, NULL, 0); }

#endif
