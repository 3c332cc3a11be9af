/* An option that the library does not know was ignored without a word.
 *
 * Option structures begin with the size that the program was built with.  A size larger
 * than the library's own was accepted and the rest never looked at, so a newer program on
 * an older library lost what it had asked for.  Now the rest must be zero, which is the
 * default of every option to come; a smaller size is refused as before. */
#include "regress/workers.h"

#include <string.h>

static int body(void *arg, void **out) {
    (void)arg;
    (void)out;
    return 0;
}

static int callback(void *arg) {
    (void)arg;
    return 0;
}

struct newer_runtime_options {
    heist_runtime_options known;
    long unknown;
};
struct newer_task_options {
    heist_task_options known;
    long unknown;
};
struct newer_call_options {
    heist_call_options known;
    long unknown;
};

static int new_loop(size_t size, long unknown, heist_loop **out) {
    struct newer_runtime_options opts = {HEIST_RUNTIME_OPTIONS_INIT, unknown};
    opts.known.size = size;
    opts.known.flags = HEIST_RUNTIME_VIRTUAL_TIME;
    return heist_loop_new(&opts.known, out);
}

static int call_soon(heist_loop *loop, size_t size, long unknown) {
    struct newer_call_options opts = {HEIST_CALL_OPTIONS_INIT, unknown};
    opts.known.size = size;
    return heist_loop_call_soon(loop, callback, NULL, &opts.known, NULL);
}

static int create_task(heist_loop *loop, size_t size, long unknown) {
    struct newer_task_options opts = {HEIST_TASK_OPTIONS_INIT, unknown};
    opts.known.size = size;
    return heist_loop_create_task(loop, body, NULL, &opts.known, NULL);
}

static void unknown_options_are_refused_unless_they_are_zero(void **state) {
    (void)state;
    heist_loop *loop = NULL;
    assert_int_equal(new_loop(sizeof(struct newer_runtime_options), 1, &loop), -EINVAL);
    assert_int_equal(new_loop(sizeof(heist_runtime_options) - 1, 0, &loop), -EINVAL);
    assert_null(loop);
    assert_int_equal(new_loop(sizeof(struct newer_runtime_options), 0, &loop), 0);

    assert_int_equal(call_soon(loop, sizeof(struct newer_call_options), 1), -EINVAL);
    assert_int_equal(call_soon(loop, sizeof(heist_call_options) - 1, 0), -EINVAL);
    assert_int_equal(call_soon(loop, sizeof(struct newer_call_options), 0), 0);
    assert_int_equal(call_soon(loop, sizeof(heist_call_options), 1), 0); /* beyond the size, so no option */

    assert_int_equal(create_task(loop, sizeof(struct newer_task_options), 1), -EINVAL);
    assert_int_equal(create_task(loop, sizeof(heist_task_options) - 1, 0), -EINVAL);
    assert_int_equal(create_task(loop, sizeof(struct newer_task_options), 0), 0);
    harness_one_pass(loop);
    harness_one_pass(loop);
    harness_loop_end(loop);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        API_TEST(unknown_options_are_refused_unless_they_are_zero),
    };
    return HARNESS_MAIN("bug_newer_options", tests);
}
