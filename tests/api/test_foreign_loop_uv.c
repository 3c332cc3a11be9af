/* Our loop inside libuv's: the descriptor is a uv_poll, the time-out a uv_timer, and a
 * pass is run whenever either wakes.  Built where libuv is installed. */
#include "support/harness.h"

#include <math.h>
#include <stdlib.h>
#include <uv.h>

struct guest {
    heist_loop *loop;
    uv_poll_t poll;
    uv_timer_t timer;
    int result;
};

static void run_pass(struct guest *guest);

static void on_poll(uv_poll_t *poll, int status, int events) {
    (void)status;
    (void)events;
    run_pass(poll->data);
}

static void on_timer(uv_timer_t *timer) {
    run_pass(timer->data);
}

static void run_pass(struct guest *guest) {
    double seconds = 0;
    guest->result = heist_loop_run_once(guest->loop, &seconds);
    if (guest->result != 0) {
        uv_poll_stop(&guest->poll);
        uv_timer_stop(&guest->timer);
        uv_close((uv_handle_t *)&guest->poll, NULL);
        uv_close((uv_handle_t *)&guest->timer, NULL);
        return;
    }
    if (isinf(seconds))
        uv_timer_stop(&guest->timer);
    else
        uv_timer_start(&guest->timer, on_timer, (uint64_t)ceil(seconds * 1000), 0);
}

/* Runs libuv until our loop was stopped. */
static int run_as_guest(heist_loop *loop) {
    uv_loop_t host;
    struct guest guest = {.loop = loop};
    if (uv_loop_init(&host) != 0) return -ENOMEM;
    uv_poll_init(&host, &guest.poll, heist_loop_fd(loop));
    uv_timer_init(&host, &guest.timer);
    guest.poll.data = guest.timer.data = &guest;
    uv_poll_start(&guest.poll, UV_READABLE, on_poll);
    uv_timer_start(&guest.timer, on_timer, 0, 0);
    uv_run(&host, UV_RUN_DEFAULT);
    uv_loop_close(&host);
    return guest.result;
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

static void libuv_drives_timers_and_tasks(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_real_loop();
    struct mark mark = {&record, "tick", loop};
    assert_int_equal(heist_loop_create_task(loop, sleep_and_mark, &mark, NULL, NULL), 0);
    assert_int_equal(run_as_guest(loop), 1);
    assert_string_equal(record_text(&record), "tick tick tick");
    harness_loop_end(loop);
}

struct posting {
    heist_loop *loop;
    _Atomic(int) arrived;
    int err;
};

static int count_arrival(void *arg) {
    struct posting *posting = arg;
    return ++posting->arrived == 50 ? heist_loop_stop(posting->loop) : 0;
}

static void *post_slowly(void *arg) {
    struct posting *posting = arg;
    for (int i = 0; i < 50; i++) {
        heist_sleep(i % 3 ? 0 : 0.001);
        int err = heist_loop_call_soon_threadsafe(posting->loop, count_arrival, posting, NULL, NULL);
        if (err < 0) posting->err = err;
    }
    return NULL;
}

static void submission_from_another_thread_wakes_libuv(void **state) {
    (void)state;
    heist_loop *loop = harness_real_loop();
    struct posting posting = {.loop = loop};
    pthread_t thread = harness_thread(post_slowly, &posting);
    int err = run_as_guest(loop);
    harness_join(thread);
    assert_int_equal(err, 1);
    assert_int_equal(posting.err, 0);
    assert_int_equal(posting.arrived, 50);
    harness_loop_end(loop);
}

static const struct CMUnitTest tests[] = {
    API_TEST(libuv_drives_timers_and_tasks),
    API_TEST(submission_from_another_thread_wakes_libuv),
};

int main(void) {
    uv_loop_t loop; /* libuv keeps a pipe for signals from its first loop on: before the first count */
    if (uv_loop_init(&loop) == 0) uv_loop_close(&loop);
    return HARNESS_MAIN("foreign_loop_uv", tests);
}
