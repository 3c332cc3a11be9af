/* Channels: a bounded queue between tasks, plain threads and callbacks. */
#include "support/harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static heist_channel *new_channel(size_t capacity) {
    heist_channel *channel = NULL;
    assert_int_equal(heist_channel_new(capacity, &channel), 0);
    assert_non_null(channel);
    return channel;
}

static int items[16];

static heist_task *new_task(heist_loop *loop, heist_coro_fn fn, void *arg) {
    heist_task *task = NULL;
    assert_int_equal(heist_loop_create_task(loop, fn, arg, NULL, &task), 0);
    return task;
}

static void values_come_out_in_the_order_they_went_in(void **state) {
    (void)state;
    heist_channel *channel = new_channel(4);
    void *out = NULL;
    for (int i = 0; i < 4; i++) assert_int_equal(heist_channel_try_send(channel, &items[i]), 0);
    assert_int_equal(heist_channel_size(channel), 4);
    assert_int_equal(heist_channel_try_send(channel, &items[4]), -EAGAIN);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(heist_channel_try_recv(channel, &out), 0);
        assert_ptr_equal(out, &items[i]);
    }
    assert_int_equal(heist_channel_size(channel), 0);
    assert_int_equal(heist_channel_try_recv(channel, &out), -EAGAIN);
    assert_ptr_equal(out, &items[3]); /* untouched on failure */
    assert_ptr_equal(heist_channel_ref(channel), channel);
    heist_channel_unref(channel);
    heist_channel_unref(channel);
}

static void null_is_a_value_like_any_other(void **state) {
    (void)state;
    heist_channel *channel = new_channel(1);
    void *out = channel;
    assert_int_equal(heist_channel_try_send(channel, NULL), 0);
    assert_int_equal(heist_channel_size(channel), 1);
    assert_int_equal(heist_channel_try_recv(channel, &out), 0);
    assert_null(out);
    heist_channel_unref(channel);
}

struct end {
    heist_channel *channel;
    struct record *record;
    const char *word;
    void *value;
    int err;
};

static int send_one(void *arg, void **out) {
    struct end *end = arg;
    (void)out;
    end->err = heist_channel_send(end->channel, end->value);
    record_add(end->record, "%s:%d", end->word, end->err);
    return 0;
}

static int recv_one(void *arg, void **out) {
    struct end *end = arg;
    (void)out;
    end->err = heist_channel_recv(end->channel, &end->value);
    record_add(end->record, "%s:%d", end->word, end->err);
    return end->err == -ECANCELED ? end->err : 0;
}

static void rendezvous_returns_when_a_receiver_has_the_value(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    heist_channel *channel = new_channel(0);
    struct end sender = {channel, &record, "sent", &items[2], 1}, receiver = {channel, &record, "got", NULL, 1};
    heist_task *a = new_task(loop, send_one, &sender);
    harness_one_pass(loop);
    assert_int_equal(record_words(&record), 0); /* nobody receives yet */
    heist_task *b = new_task(loop, recv_one, &receiver);
    assert_int_equal(heist_loop_run_until_complete(loop, b, NULL), 0);
    assert_int_equal(heist_loop_run_until_complete(loop, a, NULL), 0);
    assert_int_equal(sender.err, 0);
    assert_int_equal(receiver.err, 0);
    assert_ptr_equal(receiver.value, &items[2]);
    assert_int_equal(heist_channel_try_send(channel, &items[0]), -EAGAIN);
    heist_unref(a);
    heist_unref(b);
    heist_channel_unref(channel);
    harness_loop_end(loop);
}

static void waiters_are_served_in_the_order_of_their_arrival(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    heist_channel *channel = new_channel(2);
    static const char *const words[] = {"a", "b", "c"};
    struct end receivers[3], senders[3];
    for (int i = 0; i < 3; i++) {
        receivers[i] = (struct end){channel, &record, words[i], NULL, 1};
        heist_unref(new_task(loop, recv_one, &receivers[i]));
    }
    harness_one_pass(loop);
    for (int i = 0; i < 3; i++) assert_int_equal(heist_channel_try_send(channel, &items[i]), 0);
    harness_one_pass(loop);
    assert_string_equal(record_text(&record), "a:0 b:0 c:0");
    for (int i = 0; i < 3; i++) assert_ptr_equal(receivers[i].value, &items[i]);

    record_clear(&record); /* and senders on a full one */
    assert_int_equal(heist_channel_try_send(channel, &items[8]), 0);
    assert_int_equal(heist_channel_try_send(channel, &items[9]), 0);
    for (int i = 0; i < 3; i++) {
        senders[i] = (struct end){channel, &record, words[i], &items[i], 1};
        heist_unref(new_task(loop, send_one, &senders[i]));
    }
    harness_one_pass(loop);
    assert_int_equal(record_words(&record), 0);
    void *out = NULL;
    static const int order[] = {8, 9, 0, 1, 2};
    for (int i = 0; i < 5; i++) {
        assert_int_equal(heist_channel_try_recv(channel, &out), 0);
        assert_ptr_equal(out, &items[order[i]]);
        harness_one_pass(loop);
    }
    assert_string_equal(record_text(&record), "a:0 b:0 c:0");
    heist_channel_unref(channel);
    harness_loop_end(loop);
}

static void cancelled_waiter_takes_nothing(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    heist_channel *channel = new_channel(1);
    struct end first = {channel, &record, "first", NULL, 1}, second = {channel, &record, "second", NULL, 1};
    heist_task *a = new_task(loop, recv_one, &first), *b = new_task(loop, recv_one, &second);
    harness_one_pass(loop);
    assert_int_equal(heist_cancel(a), 1);
    assert_int_equal(heist_channel_try_send(channel, &items[5]), 0);
    assert_int_equal(heist_loop_run_until_complete(loop, b, NULL), 0);
    assert_int_equal(heist_loop_run_until_complete(loop, a, NULL), -ECANCELED);
    assert_int_equal(first.err, -ECANCELED);
    assert_int_equal(second.err, 0);
    assert_ptr_equal(second.value, &items[5]);
    heist_unref(a);
    heist_unref(b);

    /* Whichever comes first, hand-over or request, the item is neither lost nor doubled. */
    struct end third = {channel, &record, "third", NULL, 1};
    heist_task *c = new_task(loop, recv_one, &third);
    void *out = NULL;
    harness_one_pass(loop);
    assert_int_equal(heist_channel_try_send(channel, &items[6]), 0);
    heist_cancel(c);
    int err = heist_loop_run_until_complete(loop, c, NULL);
    int left = heist_channel_try_recv(channel, &out);
    if (third.err == 0) {
        assert_ptr_equal(third.value, &items[6]);
        assert_int_equal(left, -EAGAIN);
    } else {
        assert_int_equal(err, -ECANCELED);
        assert_int_equal(left, 0);
        assert_ptr_equal(out, &items[6]);
    }
    heist_unref(c);
    heist_channel_unref(channel);
    harness_loop_end(loop);
}

struct until {
    heist_channel *channel;
    double seconds;
    int send, recv, late_send;
};

static int wait_until(void *arg, void **out) {
    struct until *until = arg;
    void *value = NULL;
    (void)out;
    double start = heist_time();
    until->recv = heist_channel_recv_until(until->channel, &value, start + 2);
    until->send = heist_channel_send_until(until->channel, &items[0], start + 5);
    until->late_send = heist_channel_send_until(until->channel, &items[1], start + 5);
    until->seconds = heist_time() - start;
    return 0;
}

static void deadlines_end_the_waiting(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    struct until until = {new_channel(1), 0, 1, 1, 1};
    assert_int_equal(heist_loop_run_coroutine(loop, wait_until, &until, NULL, NULL), 0);
    assert_int_equal(until.recv, -ETIMEDOUT);
    assert_int_equal(until.send, 0);
    assert_int_equal(until.late_send, -ETIMEDOUT);
    assert_true(until.seconds >= 5 && until.seconds < 5.5);
    assert_int_equal(heist_channel_size(until.channel), 1);
    heist_channel_unref(until.channel);
    harness_loop_end(loop);
}

static void close_lets_receivers_drain_and_turns_senders_away(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    heist_channel *channel = new_channel(1), *empty = new_channel(1);
    struct end sender = {channel, &record, "sender", &items[1], 1}, receiver = {empty, &record, "receiver", NULL, 1};
    void *out = NULL;
    assert_int_equal(heist_channel_try_send(channel, &items[0]), 0);
    heist_task *a = new_task(loop, send_one, &sender), *b = new_task(loop, recv_one, &receiver);
    harness_one_pass(loop);
    assert_int_equal(heist_channel_close(channel), 0);
    assert_int_equal(heist_channel_close(channel), 0);
    assert_int_equal(heist_channel_close(empty), 0);
    assert_int_equal(heist_loop_run_until_complete(loop, a, NULL), 0);
    assert_int_equal(heist_loop_run_until_complete(loop, b, NULL), 0);
    assert_int_equal(sender.err, HEIST_ESHUTDOWN);
    assert_int_equal(receiver.err, HEIST_ESHUTDOWN);
    assert_int_equal(heist_channel_try_send(channel, &items[2]), HEIST_ESHUTDOWN);
    assert_int_equal(heist_channel_try_recv(channel, &out), 0);
    assert_ptr_equal(out, &items[0]);
    assert_int_equal(heist_channel_try_recv(channel, &out), HEIST_ESHUTDOWN);
    assert_int_equal(heist_channel_recv(channel, &out), HEIST_ESHUTDOWN); /* from a plain thread too */
    heist_unref(a);
    heist_unref(b);
    heist_channel_unref(channel);
    heist_channel_unref(empty);
    harness_loop_end(loop);
}

static int use_in_callback(void *arg) {
    struct end *end = arg;
    void *out = NULL;
    record_add(end->record, "%d", heist_channel_send(end->channel, &items[0]) == HEIST_ENOTINCORO);
    record_add(end->record, "%d", heist_channel_recv(end->channel, &out) == HEIST_ENOTINCORO);
    record_add(end->record, "%d", heist_channel_try_send(end->channel, &items[1]));
    record_add(end->record, "%d", heist_channel_try_recv(end->channel, &out));
    return 0;
}

static void callbacks_get_the_try_forms_only(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    struct end end = {new_channel(4), &record, NULL, NULL, 0};
    assert_int_equal(heist_loop_call_soon(loop, use_in_callback, &end, NULL, NULL), 0);
    harness_one_pass(loop);
    assert_string_equal(record_text(&record), "1 1 0 0");
    heist_channel_unref(end.channel);
    harness_loop_end(loop);
}

/* ---- many of each, tasks of two runtimes and plain threads ---- */

enum { EACH = 400, PAIRS = 4 };

struct flow {
    heist_channel *channel;
    _Atomic(long) sent, received, sum_in, sum_out, bad;
    _Atomic(int) senders;
};

static void send_all(struct flow *flow) {
    for (long i = 1; i <= EACH; i++) {
        if (heist_channel_send(flow->channel, (void *)(intptr_t)i) != 0) {
            flow->bad++;
            break;
        }
        flow->sent++;
        flow->sum_in += i;
    }
    if (--flow->senders == 0) heist_channel_close(flow->channel);
}

static void receive_all(struct flow *flow) {
    for (;;) {
        void *out = NULL;
        int err = heist_channel_recv(flow->channel, &out);
        if (err == HEIST_ESHUTDOWN) return;
        if (err != 0) {
            flow->bad++;
            return;
        }
        flow->received++;
        flow->sum_out += (intptr_t)out;
    }
}

static int send_task(void *arg, void **out) {
    (void)out;
    send_all(arg);
    return 0;
}

static int receive_task(void *arg, void **out) {
    (void)out;
    receive_all(arg);
    return 0;
}

static void *send_thread(void *arg) {
    send_all(arg);
    return NULL;
}

static void *receive_thread(void *arg) {
    receive_all(arg);
    return NULL;
}

static void sent_equals_received_between_runtimes_and_threads(void **state) {
    (void)state;
    static const size_t capacities[] = {0, 1, 7};
    for (int k = 0; k < 3; k++) {
        heist_runtime *one = harness_runtime(0), *two = harness_runtime(0);
        struct flow flow = {.channel = new_channel(capacities[k])};
        heist_task *tasks[2 * PAIRS];
        int bad = 0;
        flow.senders = PAIRS + 1;
        for (int i = 0; i < PAIRS; i++) {
            heist_runtime *from = i % 2 ? one : two, *to = i % 2 ? two : one;
            assert_int_equal(heist_runtime_run_coroutine(from, send_task, &flow, NULL, &tasks[2 * i]), 0);
            assert_int_equal(heist_runtime_run_coroutine(to, receive_task, &flow, NULL, &tasks[2 * i + 1]), 0);
        }
        pthread_t sender = harness_thread(send_thread, &flow), receiver = harness_thread(receive_thread, &flow);
        for (int i = 0; i < 2 * PAIRS; i++) {
            if (heist_await(tasks[i], NULL) != 0) bad++;
            heist_unref(tasks[i]);
        }
        harness_join(sender);
        harness_join(receiver);
        harness_runtime_end(one);
        harness_runtime_end(two);
        heist_channel_unref(flow.channel);
        assert_int_equal(bad, 0);
        assert_int_equal(flow.bad, 0);
        assert_int_equal(flow.sent, (PAIRS + 1) * EACH);
        assert_int_equal(flow.received, flow.sent);
        assert_int_equal(flow.sum_in, flow.sum_out);
    }
}

static const struct CMUnitTest tests[] = {
    API_TEST(values_come_out_in_the_order_they_went_in),
    API_TEST(null_is_a_value_like_any_other),
    API_TEST(rendezvous_returns_when_a_receiver_has_the_value),
    API_TEST(waiters_are_served_in_the_order_of_their_arrival),
    API_TEST(cancelled_waiter_takes_nothing),
    API_TEST(deadlines_end_the_waiting),
    API_TEST(close_lets_receivers_drain_and_turns_senders_away),
    API_TEST(callbacks_get_the_try_forms_only),
    API_TEST(sent_equals_received_between_runtimes_and_threads),
};

int main(void) {
    return HARNESS_MAIN("channel", tests);
}
