/* Broadcasts: every receiver sees every value, or is told how many it has lost. */
#include "support/harness.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static int items[16];

static heist_broadcast *new_broadcast(size_t capacity) {
    heist_broadcast *b = NULL;
    assert_int_equal(heist_broadcast_new(capacity, NULL, &b), 0);
    return b;
}

static heist_receiver *subscribe(heist_broadcast *b) {
    heist_receiver *r = NULL;
    assert_int_equal(heist_broadcast_subscribe(b, &r), 0);
    return r;
}

static heist_task *new_task(heist_loop *loop, heist_coro_fn fn, void *arg) {
    heist_task *task = NULL;
    assert_int_equal(heist_loop_create_task(loop, fn, arg, NULL, &task), 0);
    return task;
}

static void every_receiver_sees_what_was_sent_since_it_came(void **state) {
    (void)state;
    heist_broadcast *b = new_broadcast(4);
    void *out = &items[9];
    assert_int_equal(heist_broadcast_send(b, &items[0]), 0); /* nobody there */
    heist_receiver *one = subscribe(b);
    assert_int_equal(heist_broadcast_send(b, &items[1]), 1);
    heist_receiver *two = subscribe(b);
    assert_int_equal(heist_broadcast_receivers(b), 2);
    assert_int_equal(heist_broadcast_send(b, &items[2]), 2);
    for (int i = 1; i <= 2; i++) {
        assert_int_equal(heist_receiver_recv(one, &out), 0);
        assert_ptr_equal(out, &items[i]);
    }
    assert_int_equal(heist_receiver_try_recv(one, &out), -EAGAIN);
    assert_int_equal(heist_receiver_recv(two, &out), 0);
    assert_ptr_equal(out, &items[2]);
    assert_int_equal(heist_receiver_recv_until(two, &out, heist_time() - 1), -ETIMEDOUT);
    assert_ptr_equal(heist_receiver_ref(two), two);
    heist_receiver_unref(two);
    heist_receiver_unref(two);
    assert_int_equal(heist_broadcast_receivers(b), 1);
    assert_int_equal(heist_broadcast_send(b, &items[3]), 1);
    assert_ptr_equal(heist_broadcast_ref(b), b);
    heist_broadcast_unref(b);
    heist_broadcast_unref(b);
    assert_int_equal(heist_receiver_recv(one, &out), 0); /* a receiver holds its broadcast */
    assert_ptr_equal(out, &items[3]);
    heist_receiver_unref(one);
}

static void a_slow_receiver_is_told_how_many_it_lost(void **state) {
    (void)state;
    heist_broadcast *b = new_broadcast(3);
    heist_receiver *slow = subscribe(b), *quick = subscribe(b);
    void *out = NULL;
    for (int i = 0; i < 10; i++) {
        assert_int_equal(heist_broadcast_send(b, &items[i]), 2);
        assert_int_equal(heist_receiver_recv(quick, &out), 0);
        assert_ptr_equal(out, &items[i]);
    }
    assert_int_equal(heist_receiver_lost(quick), 0);
    assert_int_equal(heist_receiver_lost(slow), 0); /* not told yet */
    out = &items[15];
    assert_int_equal(heist_receiver_recv(slow, &out), HEIST_ELAGGED);
    assert_ptr_equal(out, &items[15]);
    assert_int_equal(heist_receiver_lost(slow), 7);
    for (int i = 7; i < 10; i++) {
        assert_int_equal(heist_receiver_recv(slow, &out), 0);
        assert_ptr_equal(out, &items[i]);
    }
    assert_int_equal(heist_receiver_try_recv(slow, &out), -EAGAIN);
    for (int i = 0; i < 4; i++) assert_int_equal(heist_broadcast_send(b, &items[i]), 2);
    heist_select_case lagged[] = {HEIST_CASE_NEXT(slow)};
    assert_int_equal(heist_select(lagged, 1), 0);
    assert_int_equal(lagged[0].code, HEIST_ELAGGED);
    assert_int_equal(heist_receiver_lost(slow), 8);
    heist_receiver_unref(slow);
    heist_receiver_unref(quick);
    heist_broadcast_unref(b);
}

/* ---- waiting ---- */

struct listener {
    heist_receiver *receiver;
    struct record *record;
    const char *word;
    void *value;
    int err;
    double deadline;
};

static int listen_once(void *arg, void **out) {
    struct listener *l = arg;
    (void)out;
    l->err = l->deadline != 0 ? heist_receiver_recv_until(l->receiver, &l->value, l->deadline)
                              : heist_receiver_recv(l->receiver, &l->value);
    record_add(l->record, "%s:%d", l->word, l->err);
    return l->err == -ECANCELED ? l->err : 0;
}

static void a_send_wakes_one_caller_of_each_receiver(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    heist_broadcast *b = new_broadcast(1);
    heist_receiver *r = subscribe(b), *s = subscribe(b);
    struct listener l[4] = {{r, &record, "r1", NULL, 1, 0},
                            {r, &record, "r2", NULL, 1, 0},
                            {s, &record, "s1", NULL, 1, 0},
                            {s, &record, "s2", NULL, 1, 0}};
    for (int i = 0; i < 4; i++) heist_unref(new_task(loop, listen_once, &l[i]));
    harness_one_pass(loop);
    assert_int_equal(heist_broadcast_send(b, &items[0]), 2);
    harness_one_pass(loop);
    assert_string_equal(record_text(&record), "r1:0 s1:0");
    assert_int_equal(heist_broadcast_send(b, &items[1]), 2);
    harness_one_pass(loop);
    assert_string_equal(record_text(&record), "r1:0 s1:0 r2:0 s2:0");
    for (int i = 0; i < 4; i++) assert_ptr_equal(l[i].value, &items[i % 2]);
    heist_receiver_unref(r);
    heist_receiver_unref(s);
    heist_broadcast_unref(b);
    harness_loop_end(loop);
}

static void cancelled_or_timed_out_a_receiver_loses_nothing(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    heist_broadcast *b = new_broadcast(1);
    heist_receiver *r = subscribe(b);
    for (int late = 0; late < 2; late++) {
        struct listener l = {r, &record, "l", NULL, 1, late ? heist_loop_time(loop) + 2 : 0};
        heist_task *task = new_task(loop, listen_once, &l);
        harness_one_pass(loop);
        if (!late) {
            assert_int_equal(heist_cancel(task), 1);
            assert_int_equal(heist_broadcast_send(b, &items[4]), 1); /* before the cancelled one has run */
        }
        assert_int_equal(heist_loop_run_until_complete(loop, task, NULL), late ? 0 : -ECANCELED);
        assert_int_equal(l.err, late ? -ETIMEDOUT : -ECANCELED);
        if (late) assert_int_equal(heist_broadcast_send(b, &items[4]), 1);
        void *out = NULL;
        assert_int_equal(heist_receiver_recv(r, &out), 0);
        assert_ptr_equal(out, &items[4]);
        heist_unref(task);
    }
    heist_receiver_unref(r);
    heist_broadcast_unref(b);
    harness_loop_end(loop);
}

static void close_lets_receivers_drain(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    heist_broadcast *b = new_broadcast(2);
    heist_receiver *waits = subscribe(b), *behind = subscribe(b);
    struct listener l = {waits, &record, "w", NULL, 1, 0}, m = l;
    void *out = NULL;
    heist_task *a = new_task(loop, listen_once, &l), *c = new_task(loop, listen_once, &m);
    harness_one_pass(loop);
    assert_int_equal(heist_broadcast_send(b, &items[0]), 2);
    for (int i = 0; i < 2; i++) assert_int_equal(heist_broadcast_close(b), 0);
    assert_int_equal(heist_loop_run_until_complete(loop, a, NULL), 0);
    assert_int_equal(heist_loop_run_until_complete(loop, c, NULL), 0);
    assert_int_equal(l.err, 0);
    assert_int_equal(m.err, HEIST_ESHUTDOWN);
    assert_int_equal(heist_broadcast_send(b, &items[1]), HEIST_ESHUTDOWN);
    assert_int_equal(heist_receiver_recv(behind, &out), 0);
    assert_int_equal(heist_receiver_recv(behind, &out), HEIST_ESHUTDOWN);
    assert_int_equal(heist_receiver_try_recv(behind, &out), HEIST_ESHUTDOWN);
    heist_unref(a);
    heist_unref(c);
    heist_receiver_unref(waits);
    heist_receiver_unref(behind);
    heist_broadcast_unref(b);
    harness_loop_end(loop);
}

/* ---- values that are counted ---- */

struct counted {
    _Atomic(int) refs;
};
static _Atomic(int) ended;
static void counted_ref(void *value) { ((struct counted *)value)->refs++; }
static void counted_unref(void *value) {
    if (--((struct counted *)value)->refs == 0) {
        ended++;
        free(value);
    }
}
static struct counted *counted_new(void) {
    struct counted *c = calloc(1, sizeof(*c));
    assert_non_null(c);
    c->refs = 1;
    return c;
}

static void counted_values_live_as_long_as_anybody_has_them(void **state) {
    (void)state;
    heist_broadcast_options opts = HEIST_BROADCAST_OPTIONS_INIT;
    opts.value_ref = counted_ref;
    opts.value_unref = counted_unref;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    heist_broadcast *b = NULL;
    assert_int_equal(heist_broadcast_new(2, &opts, &b), 0);
    heist_receiver *r = subscribe(b);
    ended = 0;
    void *held = NULL;
    for (int i = 0; i < 5; i++) assert_int_equal(heist_broadcast_send(b, counted_new()), 1);
    assert_int_equal(ended, 3);
    assert_int_equal(heist_receiver_recv(r, &held), HEIST_ELAGGED);
    assert_int_equal(heist_receiver_recv(r, &held), 0);
    assert_int_equal(((struct counted *)held)->refs, 2);
    assert_int_equal(heist_receiver_recv(r, NULL), 0); /* not wanted: given back at once */
    /* One that waits, and one whose wait was taken back before the send. */
    struct listener gone = {r, &record, "g", NULL, 1, 0}, waits = {r, &record, "w", NULL, 1, 0};
    heist_task *a = new_task(loop, listen_once, &gone), *c = new_task(loop, listen_once, &waits);
    harness_one_pass(loop);
    assert_int_equal(heist_cancel(a), 1);
    assert_int_equal(heist_broadcast_send(b, counted_new()), 1);
    assert_int_equal(heist_loop_run_until_complete(loop, a, NULL), -ECANCELED);
    assert_int_equal(heist_loop_run_until_complete(loop, c, NULL), 0);
    assert_int_equal(waits.err, 0);
    assert_int_equal(((struct counted *)waits.value)->refs, 2);
    counted_unref(held);
    assert_int_equal(ended, 4); /* the ring had dropped it */
    struct counted *refused = counted_new();
    assert_int_equal(heist_broadcast_close(b), 0);
    assert_int_equal(heist_broadcast_send(b, refused), HEIST_ESHUTDOWN);
    assert_int_equal(refused->refs, 1); /* still the caller's */
    counted_unref(refused);
    heist_receiver_unref(r);
    heist_broadcast_unref(b);
    assert_int_equal(ended, 6);
    counted_unref(waits.value);
    assert_int_equal(ended, 7);
    heist_unref(a);
    heist_unref(c);
    harness_loop_end(loop);
}

/* ---- contexts and bad input ---- */

static int use_in_callback(void *arg) {
    struct listener *l = arg;
    record_add(l->record, "%d", heist_receiver_recv(l->receiver, &l->value) == HEIST_ENOTINCORO);
    record_add(l->record, "%d", heist_receiver_try_recv(l->receiver, &l->value));
    return 0;
}

static void callbacks_get_the_try_form_only(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    heist_broadcast *b = new_broadcast(1);
    struct listener l = {subscribe(b), &record, NULL, NULL, 0, 0};
    assert_int_equal(heist_broadcast_send(b, &items[0]), 1);
    assert_int_equal(heist_loop_call_soon(loop, use_in_callback, &l, NULL, NULL), 0);
    harness_one_pass(loop);
    assert_string_equal(record_text(&record), "1 0");
    heist_receiver_unref(l.receiver);
    heist_broadcast_unref(b);
    harness_loop_end(loop);
}

static void bad_arguments_are_refused(void **state) {
    (void)state;
    heist_broadcast *b = (void *)items;
    heist_receiver *r = (void *)items;
    heist_broadcast_options opts = HEIST_BROADCAST_OPTIONS_INIT;
    void *out = NULL;
    assert_int_equal(heist_broadcast_new(0, NULL, &b), -EINVAL);
    assert_int_equal(heist_broadcast_new(SIZE_MAX / 2, NULL, &b), -EINVAL);
    assert_int_equal(heist_broadcast_new(1, NULL, NULL), -EINVAL);
    opts.value_ref = counted_ref; /* and never given back? */
    assert_int_equal(heist_broadcast_new(1, &opts, &b), -EINVAL);
    opts.value_unref = counted_unref;
    opts.flags = 1;
    assert_int_equal(heist_broadcast_new(1, &opts, &b), -EINVAL);
    opts.flags = 0;
    opts.size = 3;
    assert_int_equal(heist_broadcast_new(1, &opts, &b), -EINVAL);
    harness_fail_allocation(1, false);
    assert_int_equal(heist_broadcast_new(1, NULL, &b), -ENOMEM);
    harness_fail_allocation(0, false);
    assert_ptr_equal(b, items);
    b = new_broadcast(1);
    harness_fail_allocation(1, false);
    assert_int_equal(heist_broadcast_subscribe(b, &r), -ENOMEM);
    harness_fail_allocation(0, false);
    assert_int_equal(heist_broadcast_subscribe(NULL, &r), -EINVAL);
    assert_int_equal(heist_broadcast_subscribe(b, NULL), -EINVAL);
    assert_ptr_equal(r, items);
    assert_int_equal(heist_broadcast_receivers(b), 0);
    r = subscribe(b);
    assert_int_equal(heist_receiver_recv_until(r, &out, NAN), -EINVAL);
    assert_int_equal(heist_receiver_recv(NULL, &out), -EINVAL);
    assert_int_equal(heist_receiver_try_recv(NULL, &out), -EINVAL);
    assert_int_equal(heist_broadcast_send(NULL, NULL), -EINVAL);
    assert_int_equal(heist_broadcast_close(NULL), -EINVAL);
    heist_receiver_unref(r);
    heist_receiver_unref(NULL);
    heist_broadcast_unref(NULL);
    heist_broadcast_unref(b);
}

static void the_child_of_a_fork_is_refused(void **state) {
    (void)state;
    heist_broadcast *b = new_broadcast(1);
    heist_receiver *r = subscribe(b);
    int ends[2], wrong = -1;
    assert_int_equal(pipe(ends), 0);
    fflush(stdout);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        heist_receiver *other = NULL;
        heist_broadcast *more = NULL;
        void *out = NULL;
        alarm(60);
        wrong = (heist_broadcast_send(b, NULL) != HEIST_EFORKED) + (heist_receiver_recv(r, &out) != HEIST_EFORKED) +
                (heist_receiver_try_recv(r, &out) != HEIST_EFORKED) + (heist_broadcast_close(b) != HEIST_EFORKED) +
                (heist_broadcast_subscribe(b, &other) != HEIST_EFORKED) +
                (heist_broadcast_new(1, NULL, &more) != HEIST_EFORKED);
        _exit(write(ends[1], &wrong, sizeof wrong) == sizeof wrong ? 0 : 1);
    }
    close(ends[1]);
    if (read(ends[0], &wrong, sizeof wrong) != sizeof wrong) wrong = -1;
    close(ends[0]);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_int_equal(wrong, 0);
    heist_receiver_unref(r);
    heist_broadcast_unref(b);
}

/* ---- many receivers on two runtimes and in threads ---- */

enum { VALUES = 500, LISTENERS = 6 };

struct audience {
    heist_broadcast *broadcast;
    heist_receiver *receiver[LISTENERS];
    _Atomic(int) next, bad;
    _Atomic(long) seen, lost;
};

static void listen_to_the_end(struct audience *a) {
    heist_receiver *r = a->receiver[a->next++];
    long last = 0, seen = 0;
    for (;;) {
        void *out = NULL;
        int err = heist_receiver_recv(r, &out);
        if (err == HEIST_ESHUTDOWN) break;
        if (err == HEIST_ELAGGED) continue;
        if (err || (intptr_t)out <= last) { /* each once, and in order */
            a->bad++;
            break;
        }
        last = (intptr_t)out;
        seen++;
    }
    a->seen += seen;
    a->lost += (long)heist_receiver_lost(r);
}

static int listen_task(void *arg, void **out) {
    (void)out;
    listen_to_the_end(arg);
    return 0;
}

static void *listen_thread(void *arg) {
    listen_to_the_end(arg);
    return NULL;
}

static void seen_and_lost_are_all_that_was_sent(void **state) {
    (void)state;
    heist_runtime *one = harness_runtime(0), *two = harness_runtime(0);
    struct audience a = {.broadcast = new_broadcast(8)};
    heist_task *tasks[LISTENERS - 2];
    pthread_t threads[2];
    int bad = 0;
    for (int i = 0; i < LISTENERS; i++) a.receiver[i] = subscribe(a.broadcast);
    for (int i = 0; i < LISTENERS - 2; i++)
        assert_int_equal(heist_runtime_run_coroutine(i % 2 ? one : two, listen_task, &a, NULL, &tasks[i]), 0);
    for (int i = 0; i < 2; i++) threads[i] = harness_thread(listen_thread, &a);
    for (long i = 1; i <= VALUES; i++) bad += heist_broadcast_send(a.broadcast, (void *)(intptr_t)i) != LISTENERS;
    bad += heist_broadcast_close(a.broadcast) != 0;
    for (int i = 0; i < LISTENERS - 2; i++) {
        bad += heist_await(tasks[i], NULL) != 0;
        heist_unref(tasks[i]);
    }
    for (int i = 0; i < 2; i++) harness_join(threads[i]);
    harness_runtime_end(one);
    harness_runtime_end(two);
    for (int i = 0; i < LISTENERS; i++) heist_receiver_unref(a.receiver[i]);
    heist_broadcast_unref(a.broadcast);
    assert_int_equal(bad, 0);
    assert_int_equal(a.bad, 0);
    assert_int_equal(a.seen + a.lost, VALUES * LISTENERS);
}

/* ---- many callers of one receiver ---- */

enum { CALLERS = 400 };

struct caller {
    heist_receiver *receiver;
    _Atomic(int) *order;
    int place, err;
    void *value;
};

static int call_once(void *arg, void **out) {
    struct caller *c = arg;
    (void)out;
    c->err = heist_receiver_recv(c->receiver, &c->value);
    c->place = (*c->order)++;
    return 0;
}

/* Each value goes to one of them, the first that waits; who has given up is passed over; close lets all go. */
static void callers_of_one_receiver_are_served_in_their_order(void **state) {
    (void)state;
    static struct caller c[CALLERS];
    heist_task *task[CALLERS];
    heist_loop *loop = harness_loop();
    heist_broadcast *b = new_broadcast(2);
    heist_receiver *r = subscribe(b), *polled = subscribe(b);
    _Atomic(int) order = 0;
    for (int i = 0; i < CALLERS; i++) {
        c[i] = (struct caller){r, &order, -1, 1, NULL};
        task[i] = new_task(loop, call_once, &c[i]);
    }
    harness_one_pass(loop);
    for (int i = 0; i < CALLERS; i += 4) assert_int_equal(heist_cancel(task[i]), 1);
    for (int i = 0; i < CALLERS / 2; i++) {
        assert_int_equal(heist_receiver_try_recv(polled, NULL), -EAGAIN); /* it asks, and does not wait */
        assert_int_equal(heist_broadcast_send(b, &items[i % 16]), 2);
        assert_int_equal(heist_receiver_try_recv(polled, NULL), 0);
    }
    heist_receiver_unref(polled); /* asked, and gone */
    assert_int_equal(heist_broadcast_close(b), 0);
    for (int i = 0; i < CALLERS; i++) {
        heist_loop_run_until_complete(loop, task[i], NULL);
        heist_unref(task[i]);
    }
    int sent = 0;
    for (int i = 0; i < CALLERS; i++) {
        if (i % 4 == 0) {
            assert_int_equal(c[i].err, -ECANCELED);
        } else if (sent < CALLERS / 2) {
            assert_int_equal(c[i].err, 0);
            assert_ptr_equal(c[i].value, &items[sent++ % 16]);
        } else {
            assert_int_equal(c[i].err, HEIST_ESHUTDOWN);
        }
    }
    assert_int_equal(sent, CALLERS / 2);
    heist_receiver_unref(r);
    heist_broadcast_unref(b);
    harness_loop_end(loop);
}

static const struct CMUnitTest tests[] = {
    API_TEST(every_receiver_sees_what_was_sent_since_it_came),
    API_TEST(a_slow_receiver_is_told_how_many_it_lost),
    API_TEST(a_send_wakes_one_caller_of_each_receiver),
    API_TEST(cancelled_or_timed_out_a_receiver_loses_nothing),
    API_TEST(close_lets_receivers_drain),
    API_TEST(counted_values_live_as_long_as_anybody_has_them),
    API_TEST(callbacks_get_the_try_form_only),
    API_TEST(bad_arguments_are_refused),
    API_TEST(the_child_of_a_fork_is_refused),
    API_TEST(seen_and_lost_are_all_that_was_sent),
    API_TEST(callers_of_one_receiver_are_served_in_their_order),
};

int main(void) { return HARNESS_MAIN("broadcast", tests); }
