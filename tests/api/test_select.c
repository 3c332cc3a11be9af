/* select: one of several things wins, and only that one takes effect. */
#include "support/harness.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static int items[16];

static heist_channel *new_channel(size_t capacity) {
    heist_channel *c = NULL;
    assert_int_equal(heist_channel_new(capacity, &c), 0);
    return c;
}

static heist_queue *new_queue(long long maxsize) {
    heist_queue *q = NULL;
    assert_int_equal(heist_queue_new(maxsize, NULL, &q), 0);
    return q;
}

static heist_task *new_task(heist_loop *loop, heist_coro_fn fn, void *arg) {
    heist_task *task = NULL;
    assert_int_equal(heist_loop_create_task(loop, fn, arg, NULL, &task), 0);
    return task;
}

static void the_case_that_can_go_on_wins_alone(void **state) {
    (void)state;
    heist_channel *a = new_channel(1), *b = new_channel(1);
    heist_queue *q = new_queue(1);
    assert_int_equal(heist_channel_try_send(b, &items[1]), 0);
    heist_select_case cases[] = {HEIST_CASE_RECV(a), HEIST_CASE_SEND(b, &items[2]), HEIST_CASE_GET(q),
                                 HEIST_CASE_RECV(b)};
    cases[0].value = &items[9];
    assert_int_equal(heist_select(cases, 4), 3); /* from a plain thread */
    assert_int_equal(cases[3].code, 0);
    assert_ptr_equal(cases[3].value, &items[1]);
    assert_ptr_equal(cases[0].value, &items[9]); /* the others are as they were */
    assert_int_equal(heist_channel_size(b), 0);
    assert_int_equal(heist_select_try(cases, 1), -EAGAIN);
    assert_int_equal(heist_select_try(NULL, 0), -EAGAIN);
    heist_select_case put[] = {HEIST_CASE_PUT(q, &items[4])};
    assert_int_equal(heist_select_try(put, 1), 0);
    assert_int_equal(heist_queue_qsize(q), 1);
    assert_int_equal(heist_select_try(put, 1), -EAGAIN);
    assert_int_equal(heist_queue_task_done(q), 0);
    assert_int_equal(heist_queue_join(q), 0);
    heist_channel_unref(a);
    heist_channel_unref(b);
    heist_queue_unref(q);
}

static void none_of_several_ready_cases_is_left_out(void **state) {
    (void)state;
    heist_channel *c[3] = {new_channel(1), new_channel(1), new_channel(1)};
    int won[3] = {0, 0, 0};
    for (int i = 0; i < 3; i++) assert_int_equal(heist_channel_try_send(c[i], &items[i]), 0);
    heist_select_case cases[] = {HEIST_CASE_RECV(c[0]), HEIST_CASE_RECV(c[1]), HEIST_CASE_RECV(c[2])};
    for (int i = 0; i < 600; i++) {
        int k = heist_select_try(cases, 3);
        assert_in_range(k, 0, 2);
        won[k]++;
        assert_ptr_equal(cases[k].value, &items[k]);
        assert_int_equal(heist_channel_try_send(c[k], &items[k]), 0);
    }
    for (int i = 0; i < 3; i++) {
        assert_true(won[i] > 100);
        heist_channel_unref(c[i]);
    }
}

static void objects_that_are_null_never_win(void **state) {
    (void)state;
    heist_channel *c = new_channel(1);
    heist_select_case cases[] = {HEIST_CASE_RECV(NULL), HEIST_CASE_GET(NULL), HEIST_CASE_AWAIT(NULL),
                                 HEIST_CASE_NEXT(NULL), HEIST_CASE_CHANGED(NULL), HEIST_CASE_SEND(c, &items[0])};
    for (int i = 0; i < 5; i++) assert_int_equal(heist_select_try(cases, 5), -EAGAIN);
    assert_int_equal(heist_select_try(cases, 6), 5);
    assert_int_equal(heist_select_until(cases, 6, heist_time() + 0.001), -ETIMEDOUT);
    heist_channel_unref(c);
}

/* ---- waiting ---- */

struct chooser {
    heist_select_case cases[12];
    size_t n;
    int won;
    double deadline;
    struct record *record;
};

static int choose(void *arg, void **out) {
    struct chooser *s = arg;
    (void)out;
    s->won = s->deadline != 0 ? heist_select_until(s->cases, s->n, s->deadline) : heist_select(s->cases, s->n);
    if (s->record) record_add(s->record, "%d", s->won);
    return s->won == -ECANCELED ? s->won : 0;
}

/* Each kind of case wakes the waiter, and nothing of the others has happened. */
static void each_kind_of_case_wakes_the_waiter(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    for (int kind = 0; kind < 7; kind++) {
        heist_channel *from = new_channel(0), *to = new_channel(0);
        heist_queue *jobs = new_queue(1), *full = new_queue(1);
        heist_future *future = NULL;
        heist_broadcast *news = NULL;
        heist_receiver *receiver = NULL;
        heist_watch *watch = NULL;
        heist_watcher *watcher = NULL;
        assert_int_equal(heist_future_new(loop, &future), 0);
        assert_int_equal(heist_broadcast_new(2, NULL, &news), 0);
        assert_int_equal(heist_broadcast_subscribe(news, &receiver), 0);
        assert_int_equal(heist_watch_new(&items[0], NULL, &watch), 0);
        assert_int_equal(heist_watch_subscribe(watch, &watcher), 0);
        assert_int_equal(heist_queue_put_nowait(full, &items[8]), 0);
        struct chooser s = {{HEIST_CASE_RECV(from), HEIST_CASE_SEND(to, &items[1]), HEIST_CASE_GET(jobs),
                             HEIST_CASE_PUT(full, &items[3]), HEIST_CASE_AWAIT(future), HEIST_CASE_NEXT(receiver),
                             HEIST_CASE_CHANGED(watcher)},
                            7,
                            -1,
                            0,
                            NULL};
        heist_task *task = new_task(loop, choose, &s);
        harness_one_pass(loop);
        assert_int_equal(s.won, -1);
        void *out = NULL, *want = NULL;
        switch (kind) {
        case 0: assert_int_equal(heist_channel_try_send(from, want = &items[5]), 0); break;
        case 1: assert_int_equal(heist_channel_try_recv(to, &out), 0); break;
        case 2: assert_int_equal(heist_queue_put_nowait(jobs, want = &items[6]), 0); break;
        case 3: assert_int_equal(heist_queue_get_nowait(full, &out), 0); break;
        case 4: assert_int_equal(heist_future_set_result(future, NULL, NULL), 0); break;
        case 5: assert_int_equal(heist_broadcast_send(news, want = &items[7]), 1); break;
        case 6: assert_int_equal(heist_watch_set(watch, want = &items[9]), 0); break;
        }
        assert_int_equal(heist_loop_run_until_complete(loop, task, NULL), 0);
        assert_int_equal(s.won, kind);
        assert_int_equal(s.cases[kind].code, 0);
        if (want) assert_ptr_equal(s.cases[kind].value, want);
        if (kind == 1) assert_ptr_equal(out, &items[1]);
        /* The losers took nothing, and left nothing behind that could be claimed. */
        assert_int_equal(heist_channel_try_send(from, &items[5]), -EAGAIN);
        assert_int_equal(heist_channel_try_recv(to, &out), -EAGAIN);
        assert_int_equal(heist_queue_get_nowait(full, &out), 0);
        assert_ptr_equal(out, kind == 3 ? &items[3] : &items[8]);
        assert_int_equal(heist_queue_get_nowait(full, &out), -EAGAIN);
        assert_int_equal(heist_queue_put_nowait(jobs, &items[4]), 0);
        assert_int_equal(heist_queue_qsize(jobs), 1);
        assert_int_equal(heist_receiver_try_recv(receiver, &out), -EAGAIN);
        assert_int_equal(heist_watcher_try_changed(watcher, &out), -EAGAIN);
        heist_unref(task);
        heist_unref(future);
        heist_channel_unref(from);
        heist_channel_unref(to);
        heist_queue_unref(jobs);
        heist_queue_unref(full);
        heist_receiver_unref(receiver);
        heist_broadcast_unref(news);
        heist_watcher_unref(watcher);
        heist_watch_unref(watch);
    }
    harness_loop_end(loop);
}

static void closing_wins_with_its_code(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    for (int kind = 0; kind < 4; kind++) {
        heist_channel *a = new_channel(0), *b = new_channel(0);
        heist_queue *q = new_queue(1);
        struct chooser s = {{HEIST_CASE_RECV(a), HEIST_CASE_SEND(b, &items[1]), HEIST_CASE_GET(q)}, 3, -1, 0, NULL};
        if (kind == 3) assert_int_equal(heist_queue_shutdown(q, 0), 0); /* before the wait */
        heist_task *task = new_task(loop, choose, &s);
        harness_one_pass(loop);
        if (kind == 0) assert_int_equal(heist_channel_close(a), 0);
        if (kind == 1) assert_int_equal(heist_channel_close(b), 0);
        if (kind == 2) assert_int_equal(heist_queue_shutdown(q, HEIST_QUEUE_IMMEDIATE), 0);
        assert_int_equal(heist_loop_run_until_complete(loop, task, NULL), 0);
        assert_int_equal(s.won, kind == 3 ? 2 : kind);
        assert_int_equal(s.cases[s.won].code, HEIST_ESHUTDOWN);
        heist_unref(task);
        heist_channel_unref(a);
        heist_channel_unref(b);
        heist_queue_unref(q);
    }
    harness_loop_end(loop);
}

static void cancelled_or_timed_out_it_took_nothing(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    for (int late = 0; late < 2; late++) {
        heist_channel *a = new_channel(0), *b = new_channel(0);
        heist_future *future = NULL;
        assert_int_equal(heist_future_new(loop, &future), 0);
        struct chooser s = {
            {HEIST_CASE_RECV(a), HEIST_CASE_SEND(b, &items[1]), HEIST_CASE_AWAIT(future)}, 3, -1, 0, NULL};
        s.deadline = late ? heist_loop_time(loop) + 3 : 0;
        heist_task *task = new_task(loop, choose, &s);
        harness_one_pass(loop);
        if (!late) assert_int_equal(heist_cancel(task), 1);
        int err = heist_loop_run_until_complete(loop, task, NULL);
        assert_int_equal(err, late ? 0 : -ECANCELED);
        assert_int_equal(s.won, late ? -ETIMEDOUT : -ECANCELED);
        void *out = NULL;
        assert_int_equal(heist_channel_try_send(a, &items[2]), -EAGAIN);
        assert_int_equal(heist_channel_try_recv(b, &out), -EAGAIN);
        assert_int_equal(heist_future_done(future), 0); /* not cancelled with it */
        heist_unref(task);
        heist_unref(future);
        heist_channel_unref(a);
        heist_channel_unref(b);
    }
    harness_loop_end(loop);
}

/* The one that sends and the one that receives, both by select, find each other. */
static void select_meets_select(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    heist_channel *a = new_channel(0), *b = new_channel(0);
    struct chooser one = {{HEIST_CASE_SEND(a, &items[1]), HEIST_CASE_RECV(b)}, 2, -1, 0, &record},
                   two = {{HEIST_CASE_SEND(b, &items[2]), HEIST_CASE_RECV(a)}, 2, -1, 0, &record};
    heist_task *t = new_task(loop, choose, &one);
    harness_one_pass(loop);
    heist_task *u = new_task(loop, choose, &two);
    assert_int_equal(heist_loop_run_until_complete(loop, u, NULL), 0);
    assert_int_equal(heist_loop_run_until_complete(loop, t, NULL), 0);
    if (one.won == 0) { /* over a, or over b */
        assert_int_equal(two.won, 1);
        assert_ptr_equal(two.cases[1].value, &items[1]);
    } else {
        assert_int_equal(one.won, 1);
        assert_int_equal(two.won, 0);
        assert_ptr_equal(one.cases[1].value, &items[2]);
    }
    heist_unref(t);
    heist_unref(u);
    heist_channel_unref(a);
    heist_channel_unref(b);
    harness_loop_end(loop);
}

/* Both ends of one channel in one select: it does not pass to itself, and anybody else may take either end. */
static void a_select_does_not_meet_itself(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    heist_channel *c = new_channel(0);
    for (int end = 0; end < 2; end++) {
        struct chooser s = {{HEIST_CASE_SEND(c, &items[1]), HEIST_CASE_RECV(c), HEIST_CASE_RECV(c)}, 3, -1, 0, NULL};
        heist_task *task = new_task(loop, choose, &s);
        harness_one_pass(loop);
        assert_int_equal(s.won, -1);
        void *out = NULL;
        if (end == 0)
            assert_int_equal(heist_channel_try_send(c, &items[2]), 0);
        else
            assert_int_equal(heist_channel_try_recv(c, &out), 0);
        assert_int_equal(heist_loop_run_until_complete(loop, task, NULL), 0);
        assert_int_equal(s.won, end == 0 ? 1 : 0);
        assert_int_equal(heist_channel_try_recv(c, &out), -EAGAIN);
        heist_unref(task);
    }
    heist_channel_unref(c);
    harness_loop_end(loop);
}

static void many_cases_take_memory_and_give_it_back(void **state) {
    (void)state;
    enum { MANY = 200 };
    heist_channel *c[MANY];
    static heist_select_case cases[MANY];
    for (int i = 0; i < MANY; i++) {
        c[i] = new_channel(1);
        cases[i] = (heist_select_case)HEIST_CASE_RECV(c[(i * 77) % (i + 1)]); /* out of order, some more than once */
    }
    assert_int_equal(heist_select_try(cases, MANY), -EAGAIN);
    assert_int_equal(heist_select_until(cases, MANY, heist_time() + 0.001), -ETIMEDOUT);
    assert_int_equal(heist_channel_try_send(c[0], &items[0]), 0);
    int won = heist_select(cases, MANY);
    assert_in_range(won, 0, MANY - 1);
    assert_ptr_equal(cases[won].object, c[0]);
    harness_fail_allocation(1, false);
    assert_int_equal(heist_select_try(cases, MANY), -ENOMEM);
    assert_int_equal(heist_select_try(cases, 8), -EAGAIN); /* needs none */
    harness_fail_allocation(0, false);
    for (int i = 0; i < MANY; i++) heist_channel_unref(c[i]);
}

/* A put into a queue that must grow first. */
static void a_queue_grows_for_select(void **state) {
    (void)state;
    heist_queue *q = new_queue(0);
    heist_channel *c = new_channel(0);
    int refused = 0;
    for (long i = 0; i < 300; i++) {
        heist_select_case cases[] = {HEIST_CASE_RECV(c), HEIST_CASE_PUT(q, (void *)(intptr_t)i)};
        harness_fail_allocation(1, true);
        int won = heist_select_try(cases, 2);
        harness_fail_allocation(0, false);
        if (won == -ENOMEM) {
            refused++;
            won = heist_select(cases, 2);
        }
        assert_int_equal(won, 1);
    }
    assert_true(refused >= 2);
    for (long i = 0; i < 300; i++) {
        heist_select_case cases[] = {HEIST_CASE_RECV(c), HEIST_CASE_GET(q)};
        assert_int_equal(heist_select(cases, 2), 1);
        assert_int_equal((intptr_t)cases[1].value, i);
    }
    heist_queue_unref(q);
    heist_channel_unref(c);
}

static int await_oneself(void *arg, void **out) {
    (void)out;
    heist_select_case cases[] = {HEIST_CASE_AWAIT(heist_current_task())};
    *(int *)arg = heist_select(cases, 1);
    return 0;
}

static void bad_arguments_are_refused(void **state) {
    (void)state;
    heist_channel *c = new_channel(1);
    heist_select_case cases[] = {HEIST_CASE_RECV(c), {99, 0, c, NULL}};
    assert_int_equal(heist_select(cases, 2), -EINVAL);
    cases[1].op = 0;
    assert_int_equal(heist_select(cases, 2), -EINVAL);
    assert_int_equal(heist_select(NULL, 1), -EINVAL);
    assert_int_equal(heist_select(cases, 65537), -EINVAL);
    assert_int_equal(heist_select_until(cases, 1, NAN), -EINVAL);
    int err = 0;
    assert_int_equal(harness_run(await_oneself, &err, NULL), 0);
    assert_int_equal(err, HEIST_ESELFAWAIT);
    heist_channel_unref(c);
}

/* ---- timers and descriptors ---- */

static void open_pair(int fd[2]) {
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fd), 0);
}

static void timers_and_descriptors_are_looked_at_first(void **state) {
    (void)state;
    int fd[2];
    char byte;
    open_pair(fd);
    double past = heist_time() - 1, future = heist_time() + 1000, never = HEIST_FOREVER, none = NAN;
    heist_select_case at[] = {HEIST_CASE_AT(&future), HEIST_CASE_AT(&never), HEIST_CASE_AT(&past), HEIST_CASE_AT(NULL)};
    assert_int_equal(heist_select(at, 4), 2); /* from a plain thread */
    assert_int_equal(at[2].code, 0);
    assert_int_equal(heist_select_try(at, 2), -EAGAIN);
    at[1].object = &none;
    assert_int_equal(heist_select(at, 2), -EINVAL);
    double soon = heist_time() + 0.01, later = heist_time() + 500;
    heist_select_case timers[] = {HEIST_CASE_AT(&later), HEIST_CASE_AT(&soon)};
    assert_int_equal(heist_select(timers, 2), 1);
    assert_true(heist_time() >= soon);
    assert_int_equal(heist_select_until(timers, 1, heist_time() + 0.01), -ETIMEDOUT);
    heist_select_case c[] = {HEIST_CASE_READABLE(fd[0]), HEIST_CASE_WRITABLE(fd[0])};
    assert_int_equal(heist_select(c, 2), 1);
    assert_int_equal(c[1].code, 0);
    assert_int_equal(heist_select_try(c, 1), -EAGAIN);
    assert_int_equal(heist_select(c, 1), HEIST_ENOLOOP); /* nobody to poll for it */
    assert_int_equal(write(fd[1], "x", 1), 1);
    assert_int_equal(heist_select(c, 1), 0);
    assert_int_equal(heist_select_try(c, 1), 0);
    assert_int_equal(read(fd[0], &byte, 1), 1);
    close(fd[1]); /* a hang-up counts */
    assert_int_equal(heist_select(c, 1), 0);
    heist_select_case bad[] = {HEIST_CASE_READABLE(-1), HEIST_CASE_READABLE(-7), HEIST_CASE_READABLE(100000)};
    assert_int_equal(heist_select_try(bad, 1), -EAGAIN); /* as any that is NULL */
    assert_int_equal(heist_select_try(bad, 2), -EBADF);
    bad[1] = bad[2];
    assert_int_equal(heist_select_try(bad, 2), -EBADF);
    close(fd[0]);
}

struct mixed {
    int fd[2], won[5], codes;
    heist_channel *channel;
};

static int comes_in_turn(void *arg, void **out) {
    struct mixed *m = arg;
    (void)out;
    int err = heist_sleep(1);
    if (!err) err = heist_channel_send(m->channel, m);
    if (!err) err = heist_sleep(2);
    if (!err && write(m->fd[1], "x", 1) != 1) err = -EIO;
    return err;
}

/* A channel, a timer and a descriptor, each the first of the three once; then the deadline. */
static int selects_over_all(void *arg, void **out) {
    struct mixed *m = arg;
    heist_task *other = NULL;
    char byte;
    (void)out;
    int err = heist_create_task(comes_in_turn, m, NULL, &other);
    double start = heist_time(), two = start + 2, nine = start + 9;
    heist_select_case c[] = {HEIST_CASE_RECV(m->channel), HEIST_CASE_AT(&two), HEIST_CASE_READABLE(m->fd[0])};
    m->won[0] = heist_select(c, 3);
    m->codes |= c[0].code || c[0].value != m;
    m->won[1] = heist_select(c, 3);
    m->codes |= c[1].code || heist_time() < two;
    two = nine;
    m->won[2] = heist_select(c, 3);
    m->codes |= c[2].code || read(m->fd[0], &byte, 1) != 1;
    m->won[3] = heist_select_until(c, 3, start + 5);
    m->codes |= heist_time() < start + 5 || heist_time() > start + 8;
    m->won[4] = heist_select_until(c, 3, start + 9); /* both at once: the case wins */
    if (!err) err = heist_await(other, NULL);
    heist_unref(other);
    return err;
}

static int waits_for_a_byte(void *arg, void **out) {
    struct mixed *m = arg;
    (void)out;
    heist_select_case c[] = {HEIST_CASE_RECV(m->channel), HEIST_CASE_READABLE(m->fd[0])};
    m->won[0] = heist_select(c, 2);
    return m->won[0];
}

static int gives_up(void *arg, void **out) {
    struct mixed *m = arg;
    heist_task *t = NULL;
    (void)out;
    int err = heist_create_task(waits_for_a_byte, m, NULL, &t);
    if (!err) err = heist_sleep(1);
    if (!err && heist_cancel(t) != 1) err = -EIO;
    m->won[1] = heist_await(t, NULL);
    heist_unref(t);
    /* Each allocation that it makes fails once. */
    for (long n = 1; n < 30; n++) {
        heist_select_case c[] = {HEIST_CASE_READABLE(m->fd[0]), HEIST_CASE_RECV(m->channel)};
        harness_fail_allocation(n, false);
        int code = heist_select_until(c, 2, heist_time() + 0.5);
        harness_fail_allocation(0, false);
        m->codes |= code != -ENOMEM && code != -ETIMEDOUT;
    }
    return err;
}

static void a_mixture_of_all_kinds_is_one_wait(void **state) {
    (void)state;
    struct mixed m = {.channel = new_channel(1)};
    static const int won[] = {0, 1, 2, -ETIMEDOUT, 1};
    open_pair(m.fd);
    assert_int_equal(harness_run(selects_over_all, &m, NULL), 0);
    for (int i = 0; i < 5; i++) assert_int_equal(m.won[i], won[i]);
    assert_int_equal(m.codes, 0);
    assert_int_equal(harness_run(gives_up, &m, NULL), 0);
    assert_int_equal(m.won[0], -ECANCELED);
    assert_int_equal(m.won[1], -ECANCELED);
    assert_int_equal(m.codes, 0);
    close(m.fd[0]);
    close(m.fd[1]);
    heist_channel_unref(m.channel);
}

static int use_in_callback(void *arg) {
    struct chooser *s = arg;
    record_add(s->record, "%d", heist_select(s->cases, s->n) == HEIST_ENOTINCORO);
    record_add(s->record, "%d", heist_select_try(s->cases, s->n));
    return 0;
}

static void callbacks_get_the_try_form_only(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    heist_channel *c = new_channel(1);
    struct chooser s = {{HEIST_CASE_SEND(c, &items[0])}, 1, 0, 0, &record};
    assert_int_equal(heist_loop_call_soon(loop, use_in_callback, &s, NULL, NULL), 0);
    harness_one_pass(loop);
    assert_string_equal(record_text(&record), "1 0");
    assert_int_equal(heist_channel_size(c), 1);
    heist_channel_unref(c);
    harness_loop_end(loop);
}

static void the_child_of_a_fork_is_refused(void **state) {
    (void)state;
    heist_channel *c = new_channel(1);
    heist_select_case cases[] = {HEIST_CASE_SEND(c, &items[0])};
    int ends[2], wrong = -1;
    assert_int_equal(pipe(ends), 0);
    fflush(stdout);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        alarm(60);
        wrong = (heist_select(cases, 1) != HEIST_EFORKED) + (heist_select_try(cases, 1) != HEIST_EFORKED) +
                (heist_select_until(cases, 1, 0) != HEIST_EFORKED);
        _exit(write(ends[1], &wrong, sizeof wrong) == sizeof wrong ? 0 : 1);
    }
    close(ends[1]);
    if (read(ends[0], &wrong, sizeof wrong) != sizeof wrong) wrong = -1;
    close(ends[0]);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_int_equal(wrong, 0);
    heist_channel_unref(c);
}

/* ---- many of each, over the same channels in other orders ---- */

enum { EACH = 200, CHANNELS = 3, SIDES = 5 };

struct flow {
    heist_channel *c[CHANNELS];
    heist_queue *q;
    heist_future *stop;
    _Atomic(long) sent, got, sum_in, sum_out, bad;
};

static void select_sender(struct flow *f, int shift) {
    for (long i = 1; i <= EACH; i++) {
        heist_select_case cases[CHANNELS + 1];
        for (int k = 0; k < CHANNELS; k++)
            cases[k] = (heist_select_case)HEIST_CASE_SEND(f->c[(k + shift) % CHANNELS], (void *)(intptr_t)i);
        cases[CHANNELS] = (heist_select_case)HEIST_CASE_PUT(f->q, (void *)(intptr_t)i);
        int won = i % 3 ? heist_select(cases, CHANNELS + 1) : heist_select_until(cases, CHANNELS + 1, heist_time() + 1e-4);
        if (won == -ETIMEDOUT) continue;
        if (won < 0 || cases[won].code) {
            f->bad++;
            return;
        }
        f->sent++;
        f->sum_in += i;
    }
}

static void select_receiver(struct flow *f, int shift) {
    for (;;) {
        heist_select_case cases[CHANNELS + 2];
        for (int k = 0; k < CHANNELS; k++)
            cases[k] = (heist_select_case)HEIST_CASE_RECV(f->c[(CHANNELS + shift - k) % CHANNELS]);
        cases[CHANNELS] = (heist_select_case)HEIST_CASE_GET(f->q);
        cases[CHANNELS + 1] = (heist_select_case)HEIST_CASE_AWAIT(f->stop);
        int won = heist_select(cases, CHANNELS + 2);
        if (won == CHANNELS + 1) return;
        if (won < 0 || cases[won].code) {
            f->bad++;
            return;
        }
        f->got++;
        f->sum_out += (intptr_t)cases[won].value;
    }
}

struct side {
    struct flow *flow;
    int shift;
};

static int send_task(void *arg, void **out) {
    struct side *s = arg;
    (void)out;
    select_sender(s->flow, s->shift);
    return 0;
}

static int receive_task(void *arg, void **out) {
    struct side *s = arg;
    (void)out;
    select_receiver(s->flow, s->shift);
    return 0;
}

static void *send_thread(void *arg) {
    send_task(arg, NULL);
    return NULL;
}

static void *receive_thread(void *arg) {
    receive_task(arg, NULL);
    return NULL;
}

static void sent_equals_received_when_all_select(void **state) {
    (void)state;
    static const size_t capacities[] = {0, 1};
    for (int k = 0; k < 2; k++) {
        heist_runtime *one = harness_runtime(0), *two = harness_runtime(0);
        struct flow flow = {.stop = NULL};
        struct side sides[SIDES];
        heist_task *senders[SIDES], *receivers[SIDES];
        int bad = 0;
        for (int i = 0; i < CHANNELS; i++) flow.c[i] = new_channel(capacities[k]);
        flow.q = new_queue(1);
        assert_int_equal(heist_future_new(NULL, &flow.stop), 0);
        for (int i = 0; i < SIDES; i++) {
            sides[i] = (struct side){&flow, i};
            heist_runtime *from = i % 2 ? one : two, *to = i % 2 ? two : one;
            assert_int_equal(heist_runtime_run_coroutine(from, send_task, &sides[i], NULL, &senders[i]), 0);
            assert_int_equal(heist_runtime_run_coroutine(to, receive_task, &sides[i], NULL, &receivers[i]), 0);
        }
        pthread_t sender = harness_thread(send_thread, &sides[1]), receiver = harness_thread(receive_thread, &sides[2]);
        for (int i = 0; i < SIDES; i++) bad += heist_await(senders[i], NULL) != 0;
        harness_join(sender);
        while (flow.got < flow.sent && !flow.bad) heist_sleep(0.001); /* what stands in the rings; a hang is a failure */
        assert_int_equal(heist_future_set_result(flow.stop, NULL, NULL), 0);
        for (int i = 0; i < SIDES; i++) {
            bad += heist_await(receivers[i], NULL) != 0;
            heist_unref(senders[i]);
            heist_unref(receivers[i]);
        }
        harness_join(receiver);
        harness_runtime_end(one);
        harness_runtime_end(two);
        for (int i = 0; i < CHANNELS; i++) heist_channel_unref(flow.c[i]);
        heist_queue_unref(flow.q);
        heist_unref(flow.stop);
        assert_int_equal(bad, 0);
        assert_int_equal(flow.bad, 0);
        assert_true(flow.sent >= (SIDES + 1) * EACH * 2 / 3);
        assert_int_equal(flow.got, flow.sent);
        assert_int_equal(flow.sum_in, flow.sum_out);
    }
}

/* Everybody waits for one future beside a channel of its own.  They leave in an order that takes out the first, the
 * last and some between, come back (as the newest), and at last the future ends for all. */
enum { CROWD = 2000 };

struct one_of_many {
    heist_future *stop;
    heist_channel *c;
    int received;
};

static int waits_beside(void *arg, void **out) {
    (void)out;
    struct one_of_many *m = arg;
    for (;;) {
        heist_select_case cases[] = {HEIST_CASE_AWAIT(m->stop), HEIST_CASE_RECV(m->c)};
        int won = heist_select(cases, 2);
        if (won < 0) return won;
        if (won == 0) return 0;
        m->received++;
    }
}

static void many_leave_one_future_and_come_back(void **state) {
    (void)state;
    heist_runtime *rt = harness_runtime(0);
    heist_future *stop = NULL;
    assert_int_equal(heist_future_new(NULL, &stop), 0);
    struct one_of_many *many = calloc(CROWD, sizeof(*many));
    heist_task **tasks = calloc(CROWD, sizeof(*tasks));
    assert_true(many && tasks);
    for (int i = 0; i < CROWD; i++) {
        many[i].stop = stop;
        many[i].c = new_channel(0);
        assert_int_equal(heist_runtime_run_coroutine(rt, waits_beside, &many[i], NULL, &tasks[i]), 0);
    }
    for (int round = 0; round < 3; round++)
        for (int i = 0; i < CROWD; i++) {
            int who = round == 0 ? i : round == 1 ? CROWD - 1 - i : i * 7 % CROWD;
            assert_int_equal(heist_channel_send(many[who].c, NULL), 0); /* it waits, and leaves the future */
        }
    assert_int_equal(heist_future_set_result(stop, NULL, NULL), 0);
    for (int i = 0; i < CROWD; i++) {
        assert_int_equal(heist_await(tasks[i], NULL), 0);
        assert_int_equal(many[i].received, 3);
        heist_unref(tasks[i]);
        heist_channel_unref(many[i].c);
    }
    heist_unref(stop);
    harness_runtime_end(rt);
    free(tasks);
    free(many);
}

static const struct CMUnitTest tests[] = {
    API_TEST(the_case_that_can_go_on_wins_alone),
    API_TEST(none_of_several_ready_cases_is_left_out),
    API_TEST(objects_that_are_null_never_win),
    API_TEST(each_kind_of_case_wakes_the_waiter),
    API_TEST(closing_wins_with_its_code),
    API_TEST(cancelled_or_timed_out_it_took_nothing),
    API_TEST(select_meets_select),
    API_TEST(a_select_does_not_meet_itself),
    API_TEST(many_cases_take_memory_and_give_it_back),
    API_TEST(a_queue_grows_for_select),
    API_TEST(many_leave_one_future_and_come_back),
    API_TEST(bad_arguments_are_refused),
    API_TEST(timers_and_descriptors_are_looked_at_first),
    API_TEST(a_mixture_of_all_kinds_is_one_wait),
    API_TEST(callbacks_get_the_try_form_only),
    API_TEST(the_child_of_a_fork_is_refused),
    API_TEST(sent_equals_received_when_all_select),
};

int main(void) { return HARNESS_MAIN("select", tests); }
