/* Wrong arguments: NULL, a wrong size, unknown flags, numbers that make no sense, the
 * wrong place.  Each is a code at once, touches no out-parameter and changes nothing. */
#include "support/harness.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int callback(void *arg) {
    (void)arg;
    return 0;
}

static int nothing(void *arg, void **out) {
    (void)arg;
    (void)out;
    return 0;
}

static void on_done(heist_future *future, void *user) {
    (void)future;
    (void)user;
}

static void null_objects_are_refused(void **state) {
    (void)state;
    heist_future *future = NULL;
    heist_task **list = NULL;
    size_t count = 0;
    void *out = NULL;
    heist_exception e = HEIST_EXCEPTION_INIT;
    heist_worker_stats stats = HEIST_WORKER_STATS_INIT;
    heist_report report = HEIST_REPORT_INIT;
    assert_int_equal(heist_loop_new(NULL, NULL), -EINVAL);
    assert_int_equal(heist_runtime_new(NULL, NULL), -EINVAL);
    assert_int_equal(heist_run(NULL, NULL, NULL, NULL), -EINVAL);
    assert_int_equal(heist_loop_run_forever(NULL), -EINVAL);
    assert_int_equal(heist_loop_run_once(NULL, NULL), -EINVAL);
    assert_int_equal(heist_loop_run_coroutine(NULL, nothing, NULL, NULL, NULL), -EINVAL);
    assert_int_equal(heist_loop_stop(NULL), -EINVAL);
    assert_int_equal(heist_loop_close(NULL), -EINVAL);
    assert_int_equal(heist_loop_call_soon(NULL, callback, NULL, NULL, NULL), -EINVAL);
    assert_int_equal(heist_loop_call_soon_threadsafe(NULL, callback, NULL, NULL, NULL), -EINVAL);
    assert_int_equal(heist_loop_call_later(NULL, 0, callback, NULL, NULL, NULL), -EINVAL);
    assert_int_equal(heist_loop_call_at(NULL, 0, callback, NULL, NULL, NULL), -EINVAL);
    assert_int_equal(heist_loop_add_reader(NULL, 0, callback, NULL, NULL), -EINVAL);
    assert_int_equal(heist_loop_add_writer(NULL, 0, callback, NULL, NULL), -EINVAL);
    assert_int_equal(heist_loop_create_task(NULL, nothing, NULL, NULL, NULL), -EINVAL);
    assert_int_equal(heist_runtime_call_soon(NULL, callback, NULL, NULL, NULL), -EINVAL);
    assert_int_equal(heist_runtime_run_coroutine(NULL, nothing, NULL, NULL, NULL), -EINVAL);
    assert_int_equal(heist_runtime_close(NULL, 0), -EINVAL);
    assert_int_equal(heist_runtime_stats(NULL, 0, &stats), -EINVAL);
    assert_int_equal(heist_runtime_all_tasks(NULL, &list, &count), -EINVAL);
    assert_int_equal(heist_all_tasks(NULL, &list, &count), -EINVAL);
    assert_int_equal(heist_get_running_loop(NULL), -EINVAL);
    assert_int_equal(heist_get_event_loop(NULL), -EINVAL);
    assert_int_equal(heist_future_new(NULL, NULL), -EINVAL);
    assert_int_equal(heist_loop_create_future(NULL, &future), -EINVAL);
    assert_int_equal(heist_future_set_result(NULL, NULL, NULL), -EINVAL);
    assert_int_equal(heist_future_set_exception(NULL, -EIO, NULL), -EINVAL);
    assert_int_equal(heist_cancel(NULL), -EINVAL);
    assert_int_equal(heist_cancel_message(NULL, "no"), -EINVAL);
    assert_int_equal(heist_future_result(NULL, &out), -EINVAL);
    assert_int_equal(heist_future_take(NULL, &out), -EINVAL);
    assert_int_equal(heist_future_exception(NULL, &e), -EINVAL);
    assert_int_equal(heist_future_add_done_callback(NULL, on_done, NULL, NULL), -EINVAL);
    assert_int_equal(heist_await(NULL, &out), -EINVAL);
    assert_int_equal(heist_await_until(NULL, 0, &out), -EINVAL);
    assert_int_equal(heist_gather(NULL, 1, NULL, 0), -EINVAL);
    assert_int_equal(heist_gather(&future, 1, NULL, 0), -EINVAL); /* one of them is NULL */
    assert_int_equal(heist_loop_call_exception_handler(NULL, &report), -EINVAL);
    assert_int_equal(heist_channel_new(1, NULL), -EINVAL);
    assert_int_equal(heist_channel_try_send(NULL, NULL), -EINVAL);
    assert_int_equal(heist_channel_try_recv(NULL, &out), -EINVAL);
    assert_int_equal(heist_channel_send(NULL, NULL), -EINVAL);
    assert_int_equal(heist_channel_recv(NULL, &out), -EINVAL);
    assert_int_equal(heist_channel_close(NULL), -EINVAL);
    assert_int_equal(heist_task_name(NULL, NULL, 0), -EINVAL);
    assert_int_equal(heist_task_set_name(NULL, "no"), -EINVAL);
    assert_int_equal(heist_addr_parse(NULL, NULL), -EINVAL);
    assert_null(future);
    assert_null(out);
    assert_null(list);
    assert_int_equal(count, 0);
}

static void releasing_nothing_is_nothing(void **state) {
    (void)state;
    heist_loop_unref(NULL);
    heist_unref(NULL);
    heist_runtime_unref(NULL);
    heist_handle_unref(NULL);
    heist_channel_unref(NULL);
    heist_conn_close(NULL);
    heist_listener_close(NULL);
    heist_task_list_free(NULL, 0);
    assert_int_equal(heist_set_event_loop(NULL), 0);
}

static void null_functions_are_refused(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    heist_call_options opts = HEIST_CALL_OPTIONS_INIT;
    struct mark mark = {&record, "arg", loop};
    heist_handle *handle = NULL;
    heist_future *future = NULL;
    int ends[2];
    opts.arg_free = mark_free;
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(heist_future_new(loop, &future), 0);
    assert_int_equal(heist_loop_call_soon(loop, NULL, &mark, &opts, &handle), -EINVAL);
    assert_int_equal(heist_loop_call_later(loop, 0, NULL, &mark, &opts, &handle), -EINVAL);
    assert_int_equal(heist_loop_call_at(loop, 0, NULL, &mark, &opts, &handle), -EINVAL);
    assert_int_equal(heist_loop_add_reader(loop, ends[0], NULL, &mark, &opts), -EINVAL);
    assert_int_equal(heist_future_add_done_callback(future, NULL, &mark, mark_free), -EINVAL);
    assert_null(handle);
    assert_int_equal(record_words(&record), 0);
    heist_unref(future);
    close(ends[0]);
    close(ends[1]);
    harness_loop_end(loop);
}

static void option_structures_that_are_too_small_are_refused(void **state) {
    (void)state;
    static const size_t sizes[] = {0, 1, 4, sizeof(void *)};
    heist_loop *loop = harness_loop(), *other = NULL;
    heist_runtime *rt = NULL;
    heist_handle *handle = NULL;
    heist_task *task = NULL;
    heist_future *future = NULL;
    assert_int_equal(heist_future_new(loop, &future), 0);
    assert_int_equal(heist_future_set_result(future, NULL, NULL), 0);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        heist_runtime_options runtime_opts = HEIST_RUNTIME_OPTIONS_INIT;
        heist_task_options task_opts = HEIST_TASK_OPTIONS_INIT;
        heist_call_options call_opts = HEIST_CALL_OPTIONS_INIT;
        heist_exception e = HEIST_EXCEPTION_INIT;
        runtime_opts.size = task_opts.size = call_opts.size = e.size = sizes[i];
        assert_int_equal(heist_loop_new(&runtime_opts, &other), -EINVAL);
        assert_int_equal(heist_runtime_new(&runtime_opts, &rt), -EINVAL);
        assert_int_equal(heist_run(nothing, NULL, &runtime_opts, NULL), -EINVAL);
        assert_int_equal(heist_loop_create_task(loop, nothing, NULL, &task_opts, &task), -EINVAL);
        assert_int_equal(heist_loop_call_soon(loop, callback, NULL, &call_opts, &handle), -EINVAL);
        assert_int_equal(heist_future_exception(future, &e), -EINVAL);
    }
    assert_null(other);
    assert_null(rt);
    assert_null(task);
    assert_null(handle);
    heist_unref(future);
    harness_loop_end(loop);
}

/* A newer program may know more options than this library: fine as long as it leaves them alone. */
static void options_of_a_newer_program_count_only_when_they_are_unset(void **state) {
    (void)state;
    struct {
        heist_task_options known;
        void *unknown;
    } newer = {HEIST_TASK_OPTIONS_INIT, NULL};
    heist_loop *loop = harness_loop();
    newer.known.size = sizeof newer;
    assert_int_equal(heist_loop_run_coroutine(loop, nothing, NULL, &newer.known, NULL), 0);
    newer.unknown = loop;
    assert_int_equal(heist_loop_run_coroutine(loop, nothing, NULL, &newer.known, NULL), -EINVAL);
    harness_loop_end(loop);
}

static void unknown_flags_are_refused(void **state) {
    (void)state;
    heist_loop *loop = harness_loop(), *other = NULL;
    heist_runtime *rt = NULL;
    heist_runtime_options runtime_opts = HEIST_RUNTIME_OPTIONS_INIT;
    heist_task_options task_opts = HEIST_TASK_OPTIONS_INIT;
    heist_task *task = NULL;
    heist_future *future = NULL;
    runtime_opts.flags = 0x40000000u;
    task_opts.flags = 0x40000000u;
    assert_int_equal(heist_future_new(NULL, &future), 0);
    assert_int_equal(heist_future_set_result(future, NULL, NULL), 0);
    assert_int_equal(heist_loop_new(&runtime_opts, &other), -EINVAL);
    assert_int_equal(heist_runtime_new(&runtime_opts, &rt), -EINVAL);
    assert_int_equal(heist_loop_create_task(loop, nothing, NULL, &task_opts, &task), -EINVAL);
    assert_int_equal(heist_gather(&future, 1, NULL, 0x40000000u), -EINVAL);
    assert_int_equal(heist_gather(&future, 1, NULL, HEIST_GATHER_ALL | HEIST_GATHER_EARLY), -EINVAL);
    assert_null(other);
    assert_null(rt);
    assert_null(task);
    heist_unref(future);
    harness_loop_end(loop);
}

static void sizes_and_counts_out_of_range_are_refused(void **state) {
    (void)state;
    heist_loop *loop = harness_loop(), *other = NULL;
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    heist_task_options task_opts = HEIST_TASK_OPTIONS_INIT;
    heist_task *task = NULL;
    opts.workers = 2;
    assert_int_equal(heist_loop_new(&opts, &other), -EINVAL); /* a loop of its own has one */
    opts.workers = 1;
    assert_int_equal(heist_loop_new(&opts, &other), 0);
    harness_loop_end(other);
    other = NULL;
    opts.workers = -3;
    assert_int_equal(heist_loop_new(&opts, &other), -EINVAL);
    task_opts.stack_bytes = 1024; /* below 16 KiB */
    assert_int_equal(heist_loop_create_task(loop, nothing, NULL, &task_opts, &task), -EINVAL);
    task_opts.stack_bytes = (size_t)64 * 1024 * 1024; /* above 8 MiB */
    assert_int_equal(heist_loop_create_task(loop, nothing, NULL, &task_opts, &task), -EINVAL);
    task_opts.stack_bytes = SIZE_MAX;
    assert_int_equal(heist_loop_create_task(loop, nothing, NULL, &task_opts, &task), -EINVAL);
    opts = (heist_runtime_options)HEIST_RUNTIME_OPTIONS_INIT;
    opts.stack_bytes = 100;
    assert_int_equal(heist_loop_new(&opts, &other), -EINVAL);
    assert_null(other);
    assert_null(task);
    heist_channel *channel = NULL;
    int err = heist_channel_new(SIZE_MAX, &channel);
    assert_true(err == -EINVAL || err == -ENOMEM);
    assert_null(channel);
    harness_loop_end(loop);
}

static void instants_that_are_no_numbers_are_refused(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    heist_future *future = NULL;
    heist_channel *channel = NULL;
    void *out = NULL;
    assert_int_equal(heist_future_new(NULL, &future), 0);
    assert_int_equal(heist_channel_new(1, &channel), 0);
    assert_int_equal(heist_await_until(future, NAN, &out), -EINVAL);
    assert_int_equal(heist_channel_recv_until(channel, &out, NAN), -EINVAL);
    assert_int_equal(heist_channel_send_until(channel, NULL, NAN), -EINVAL);
    assert_int_equal(heist_loop_set_slow_callback_duration(loop, NAN), -EINVAL);
    assert_int_equal(heist_channel_size(channel), 0);
    heist_channel_unref(channel);
    heist_unref(future);
    harness_loop_end(loop);
}

static void bad_descriptors_are_refused(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    char path[] = "/tmp/heist-test-XXXXXX";
    int file = mkstemp(path);
    assert_true(file >= 0);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(heist_loop_add_reader(loop, -1, callback, NULL, NULL), -EBADF);
    assert_int_equal(heist_loop_add_writer(loop, 999999, callback, NULL, NULL), -EBADF);
    assert_int_equal(heist_loop_add_reader(loop, file, callback, NULL, NULL), -EPERM); /* a plain file has no events */
    assert_int_equal(heist_loop_remove_reader(loop, -1), 0);
    assert_int_equal(heist_loop_remove_writer(loop, 999999), 0);
    close(file);
    harness_loop_end(loop);
}

/* ---- codes ---- */

static void codes_have_names_and_texts(void **state) {
    (void)state;
#define CHECK(name, number, text)                                                                                      \
    assert_int_equal(name, number);                                                                                    \
    assert_string_equal(heist_error_name(name), #name);                                                                \
    assert_string_equal(heist_strerror(name), text);                                                                   \
    assert_true((number) % 256 != 0);
    HEIST_ERROR_MAP(CHECK)
#undef CHECK
    assert_string_equal(heist_error_name(-ENOMEM), "ENOMEM");
    assert_string_equal(heist_error_name(-ECANCELED), "ECANCELED");
    assert_string_equal(heist_error_name(-ETIMEDOUT), "ETIMEDOUT");
    assert_string_equal(heist_error_name(-99999), "UNKNOWN");
    assert_non_null(heist_strerror(-ENOMEM));
    assert_non_null(heist_strerror(-99999));
    assert_non_null(heist_strerror(0));
    assert_string_equal(heist_version(), HEIST_VERSION_STRING);
}

static void fail_outside_a_body_only_returns_the_code(void **state) {
    (void)state;
    assert_int_equal(heist_fail(-EPROTO, "nobody hears this: %d", 1), -EPROTO);
}

static void allocator_can_be_replaced_before_all_else_only(void **state) {
    (void)state;
    heist_allocator empty = HEIST_ALLOCATOR_INIT;
    heist_loop *loop = harness_loop();
    int err = heist_set_allocator(NULL);
    assert_int_equal(err, -EBUSY);
    err = heist_set_allocator(&empty);
    assert_true(err == -EBUSY || err == -EINVAL);
    harness_loop_end(loop);
}

static int return_positive(void *arg, void **out) {
    *out = arg;
    return 5;
}

/* A body returns 0 or a negative code; a positive one is a mistake that must not pass as a failure unnoticed. */
static void positive_return_of_a_body_is_no_wild_outcome(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    heist_task *task = NULL;
    assert_int_equal(heist_loop_create_task(loop, return_positive, NULL, NULL, &task), 0);
    int err = heist_loop_run_until_complete(loop, task, NULL);
    assert_true(err == 0 || err == HEIST_EFAILED || err == -EINVAL);
    assert_int_equal(heist_future_done(task), 1);
    heist_unref(task);
    harness_loop_end(loop);
}

static const struct CMUnitTest tests[] = {
    API_TEST(null_objects_are_refused),
    API_TEST(releasing_nothing_is_nothing),
    API_TEST(null_functions_are_refused),
    API_TEST(option_structures_that_are_too_small_are_refused),
    API_TEST(options_of_a_newer_program_count_only_when_they_are_unset),
    API_TEST(unknown_flags_are_refused),
    API_TEST(sizes_and_counts_out_of_range_are_refused),
    API_TEST(instants_that_are_no_numbers_are_refused),
    API_TEST(bad_descriptors_are_refused),
    API_TEST(codes_have_names_and_texts),
    API_TEST(fail_outside_a_body_only_returns_the_code),
    API_TEST(allocator_can_be_replaced_before_all_else_only),
    API_TEST(positive_return_of_a_body_is_no_wild_outcome),
};

int main(void) {
    return HARNESS_MAIN("bad_input", tests);
}
