/* Our loop inside somebody else's: heist_loop_fd and heist_loop_run_once, from a plain
 * poll loop. */
#include "support/harness.h"

#include <math.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The whole of a foreign event loop: run a pass, sleep in poll as long as we were told. */
static int drive(heist_loop *loop, const struct pollfd *others, nfds_t count, void (*on_ready)(struct pollfd *)) {
    struct pollfd fds[2];
    fds[0] = (struct pollfd){heist_loop_fd(loop), POLLIN, 0};
    if (fds[0].fd < 0) return fds[0].fd;
    if (count > 0) fds[1] = others[0];
    for (;;) {
        double seconds = -1;
        int stopped = heist_loop_run_once(loop, &seconds);
        if (stopped != 0) return stopped;
        if (!(seconds >= 0)) return -EPROTO;
        int ms = isinf(seconds) || seconds > 1e6 ? -1 : (int)ceil(seconds * 1000);
        if (poll(fds, 1 + count, ms) < 0) return -errno;
        for (nfds_t i = 0; i < count; i++)
            if (fds[1 + i].revents) on_ready(&fds[1 + i]);
    }
}

static int sleep_and_mark(void *arg, void **out) {
    struct mark *mark = arg;
    (void)out;
    for (int i = 0; i < 3; i++) {
        int err = heist_sleep(0.002);
        if (err < 0) return err;
        mark_word(mark);
    }
    return heist_loop_stop(mark->loop);
}

static void poll_loop_drives_timers_and_tasks(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_real_loop();
    struct mark mark = {&record, "tick", loop};
    heist_task *task = NULL;
    assert_int_equal(heist_loop_create_task(loop, sleep_and_mark, &mark, NULL, &task), 0);
    assert_int_equal(drive(loop, NULL, 0, NULL), 1);
    assert_string_equal(record_text(&record), "tick tick tick");
    assert_int_equal(heist_future_done(task), 1);
    heist_unref(task);
    harness_loop_end(loop);
}

struct posting {
    heist_loop *loop;
    int count, err;
};

static _Atomic(int) arrived;

static int count_arrival(void *arg) {
    struct posting *posting = arg;
    if (++arrived == posting->count) return heist_loop_stop(posting->loop);
    return 0;
}

static void *post_slowly(void *arg) {
    struct posting *posting = arg;
    for (int i = 0; i < posting->count; i++) {
        heist_sleep(i % 3 ? 0 : 0.001); /* the loop is in poll, or about to be, or running */
        int err = heist_loop_call_soon_threadsafe(posting->loop, count_arrival, posting, NULL, NULL);
        if (err < 0) posting->err = err;
    }
    return NULL;
}

/* Nothing else would wake the poll: a submission that did not would hang the test. */
static void submission_from_another_thread_wakes_the_poll(void **state) {
    (void)state;
    heist_loop *loop = harness_real_loop();
    struct posting posting = {.loop = loop, .count = 100};
    arrived = 0;
    pthread_t thread = harness_thread(post_slowly, &posting);
    int err = drive(loop, NULL, 0, NULL);
    harness_join(thread);
    assert_int_equal(err, 1);
    assert_int_equal(posting.err, 0);
    assert_int_equal(arrived, 100);
    harness_loop_end(loop);
}

static void timeout_tells_when_the_next_timer_is_due(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_real_loop();
    struct mark mark = {&record, "mark", loop};
    heist_handle *handle = NULL;
    double seconds = -1;
    assert_int_equal(heist_loop_run_once(loop, &seconds), 0);
    assert_true(isinf(seconds) && seconds > 0);
    assert_int_equal(heist_loop_call_later(loop, 100, mark_word, &mark, NULL, &handle), 0);
    assert_int_equal(heist_loop_run_once(loop, &seconds), 0);
    assert_true(seconds > 0 && seconds <= 100);
    assert_int_equal(heist_loop_call_soon(loop, mark_word, &mark, NULL, NULL), 0);
    assert_int_equal(heist_loop_run_once(loop, NULL), 0);
    assert_string_equal(record_text(&record), "mark");
    assert_int_equal(heist_handle_cancel(handle), 1);
    assert_int_equal(heist_loop_run_once(loop, &seconds), 0);
    assert_true(isinf(seconds));
    heist_handle_unref(handle);
    harness_loop_end(loop);
}

struct reading {
    struct record *record;
    heist_loop *loop;
    int fd;
};

static int read_pipe(void *arg) {
    struct reading *reading = arg;
    char byte;
    if (read(reading->fd, &byte, 1) != 1) return -EIO;
    record_add(reading->record, "%c", byte);
    return byte == 'z' ? heist_loop_stop(reading->loop) : 0;
}

static int their_pipe_bytes;
static void on_theirs(struct pollfd *theirs) {
    char byte;
    if (read(theirs->fd, &byte, 1) == 1) their_pipe_bytes++;
}

static void descriptors_of_both_loops_are_served(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_real_loop();
    int ours[2], theirs[2];
    assert_int_equal(pipe(ours), 0);
    assert_int_equal(pipe(theirs), 0);
    struct reading reading = {&record, loop, ours[0]};
    struct pollfd other = {theirs[0], POLLIN, 0};
    their_pipe_bytes = 0;
    assert_int_equal(heist_loop_add_reader(loop, ours[0], read_pipe, &reading, NULL), 0);
    assert_int_equal(write(theirs[1], "q", 1), 1);
    assert_int_equal(write(ours[1], "xyz", 3), 3);
    assert_int_equal(drive(loop, &other, 1, on_theirs), 1);
    assert_string_equal(record_text(&record), "x y z");
    assert_int_equal(heist_loop_remove_reader(loop, ours[0]), 1);
    close(ours[0]);
    close(ours[1]);
    close(theirs[0]);
    close(theirs[1]);
    harness_loop_end(loop);
}

static int deep(void *arg, void **out) {
    heist_task *tasks[4];
    long depth = (long)(intptr_t)arg;
    (void)out;
    if (depth == 0) return heist_sleep(0.0005);
    for (int i = 0; i < 4; i++) {
        int err = heist_create_task(deep, (void *)(intptr_t)(depth - 1), NULL, &tasks[i]);
        if (err < 0) return err;
    }
    int err = heist_gather(tasks, 4, NULL, 0);
    for (int i = 0; i < 4; i++) heist_unref(tasks[i]);
    return err;
}

struct whole {
    heist_loop *loop;
    int err;
};

static void stop_when_done(heist_future *future, void *user) {
    struct whole *whole = user;
    whole->err = heist_future_result(future, NULL);
    heist_loop_stop(whole->loop);
}

static void whole_program_runs_inside_a_poll_loop(void **state) {
    (void)state;
    heist_loop *loop = harness_real_loop();
    struct whole whole = {loop, 1};
    heist_task *task = NULL;
    assert_int_equal(heist_loop_create_task(loop, deep, (void *)(intptr_t)3, NULL, &task), 0);
    assert_int_equal(heist_future_add_done_callback(task, stop_when_done, &whole, NULL), 0);
    assert_int_equal(drive(loop, NULL, 0, NULL), 1);
    assert_int_equal(whole.err, 0);
    heist_unref(task);
    harness_loop_end(loop);
}

static void the_driven_loop_may_be_run_the_usual_way_in_between(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    struct mark a = {&record, "a", loop}, b = {&record, "b", loop};
    assert_int_equal(heist_loop_call_soon(loop, mark_word, &a, NULL, NULL), 0);
    assert_int_equal(heist_loop_run_once(loop, NULL), 0);
    assert_int_equal(heist_loop_call_later(loop, 1, mark_and_stop, &b, NULL, NULL), 0);
    assert_int_equal(heist_loop_run_forever(loop), 0);
    assert_int_equal(heist_loop_run_once(loop, NULL), 0);
    assert_string_equal(record_text(&record), "a b");
    assert_int_equal(heist_loop_is_running(loop), 0);
    harness_loop_end(loop);
}

static const struct CMUnitTest tests[] = {
    API_TEST(poll_loop_drives_timers_and_tasks),
    API_TEST(submission_from_another_thread_wakes_the_poll),
    API_TEST(timeout_tells_when_the_next_timer_is_due),
    API_TEST(descriptors_of_both_loops_are_served),
    API_TEST(whole_program_runs_inside_a_poll_loop),
    API_TEST(the_driven_loop_may_be_run_the_usual_way_in_between),
};

int main(void) {
    return HARNESS_MAIN("foreign_loop", tests);
}
