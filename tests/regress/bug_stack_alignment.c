/* The first frame of a coroutine left the stack pointer eight bytes off.
 *
 * The switch pops the registers of a first frame and calls the body.  The frame had been
 * built so that the stack was not a multiple of 16 at that call, which the calling
 * convention of x86-64 demands.  Most bodies never notice; the first one that spills a
 * vector register with an aligned store dies.
 *
 * The test takes the address of locals that ask for 16 bytes, in the body, in what it
 * calls, and again after it has moved to another worker; and it prints a double, for
 * which the C library saves vector registers. */
#include "regress/workers.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

struct seen {
    _Atomic(int) bodies, crooked, wrong_text;
};

/* Through a volatile pointer: the compiler may believe that the address is aligned, and must not fold the test. */
static int is_crooked(void *at) {
    void *volatile hidden = at;
    return ((uintptr_t)hidden & 15) != 0;
}

__attribute__((noinline)) static int callee_is_crooked(double value) {
    _Alignas(16) char local[32];
    memset(local, value > 0, sizeof local);
    return is_crooked(local);
}

static int body(void *arg, void **out) {
    struct seen *seen = arg;
    _Alignas(16) double numbers[4] = {0.5, 1.5, 2.5, 3.5};
    (void)out;
    for (int i = 0; i < 4; i++) {
        char text[64];
        if (is_crooked(numbers) || callee_is_crooked(numbers[i])) seen->crooked++;
        snprintf(text, sizeof text, "%.1f", numbers[i]);
        if (text[0] != '0' + i || strcmp(text + 1, ".5") != 0) seen->wrong_text++;
        int err = heist_yield();
        if (err < 0) return err;
    }
    seen->bodies++;
    return 0;
}

static void locals_of_a_body_are_aligned(void **state) {
    (void)state;
    for (EACH_WORKER_COUNT(workers)) {
        static const size_t stacks[] = {0, 16384, 32768, 1 << 20};
        heist_runtime *rt = regress_runtime(workers);
        struct seen seen = {0};
        heist_task *tasks[64];
        for (int i = 0; i < 64; i++) {
            heist_task_options opts = HEIST_TASK_OPTIONS_INIT;
            opts.stack_bytes = harness_instrumented() ? 0 : stacks[i % 4];
            assert_int_equal(heist_runtime_run_coroutine(rt, body, &seen, &opts, &tasks[i]), 0);
        }
        assert_int_equal(heist_gather(tasks, 64, NULL, 0), 0);
        for (int i = 0; i < 64; i++) heist_unref(tasks[i]);
        harness_runtime_end(rt);
        assert_int_equal(seen.bodies, 64);
        assert_int_equal(seen.crooked, 0);
        assert_int_equal(seen.wrong_text, 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        API_TEST(locals_of_a_body_are_aligned),
    };
    return HARNESS_MAIN("bug_stack_alignment", tests);
}
