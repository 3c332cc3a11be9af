/* Two sides at one moment: cancel against run, completion against deadline, the last
 * references, closing against everything that can wait.  Each test has a law that holds
 * whichever side wins. */
#include "support/harness.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int values[4];

/* ---- a handle: cancelled or run, its argument freed once ---- */

enum { HANDLES = 2000 };

struct handles {
    heist_loop *loop;
    heist_handle *handles[HANDLES];
    _Atomic(int) ran[HANDLES], freed[HANDLES];
    int cancelled[HANDLES];
};

struct slot {
    struct handles *all;
    int index;
};

static struct handles all_handles;
static struct slot slots[HANDLES];

static int run_slot(void *arg) {
    struct slot *slot = arg;
    slot->all->ran[slot->index]++;
    return 0;
}

static void free_slot(void *arg) {
    struct slot *slot = arg;
    slot->all->freed[slot->index]++;
}

static void *cancel_handles(void *arg) {
    struct handles *all = arg;
    for (int i = HANDLES - 1; i >= 0; i--) all->cancelled[i] = heist_handle_cancel(all->handles[i]);
    heist_loop_call_soon_threadsafe(all->loop, stop_loop, all->loop, NULL, NULL);
    return NULL;
}

static void handle_is_either_cancelled_or_run_CB_03_CB_10(void **state) {
    (void)state;
    heist_loop *loop = harness_real_loop();
    heist_call_options opts = HEIST_CALL_OPTIONS_INIT;
    opts.arg_free = free_slot;
    memset(&all_handles, 0, sizeof all_handles);
    all_handles.loop = loop;
    for (int i = 0; i < HANDLES; i++) {
        slots[i] = (struct slot){&all_handles, i};
        int err = i % 2 ? heist_loop_call_soon(loop, run_slot, &slots[i], &opts, &all_handles.handles[i])
                        : heist_loop_call_later(loop, 0.0001 * (i % 7), run_slot, &slots[i], &opts,
                                                &all_handles.handles[i]);
        assert_int_equal(err, 0);
    }
    pthread_t thread = harness_thread(cancel_handles, &all_handles);
    int err = heist_loop_run_forever(loop);
    harness_join(thread);
    int wrong = 0;
    for (int i = 0; i < HANDLES; i++) {
        int cancelled = heist_handle_cancelled(all_handles.handles[i]);
        wrong += cancelled != all_handles.cancelled[i];
        wrong += all_handles.ran[i] + all_handles.cancelled[i] != 1;
        wrong += all_handles.freed[i] != 1;
        heist_handle_unref(all_handles.handles[i]);
    }
    harness_loop_end(loop);
    assert_int_equal(err, 0);
    assert_int_equal(wrong, 0);
}

struct late_timers {
    heist_loop *loop;
    _Atomic(int) left, early, err;
};

struct late_timer {
    struct late_timers *all;
    double when;
};

static int check_timer(void *arg) {
    struct late_timer *timer = arg;
    if (heist_loop_time(timer->all->loop) < timer->when) timer->all->early++;
    if (--timer->all->left == 0) return heist_loop_stop(timer->all->loop);
    return 0;
}

static struct late_timer late[4][16];

static void *arm_from_outside(void *arg) {
    struct late_timer *mine = arg;
    for (int i = 0; i < 16; i++) {
        mine[i].when = heist_loop_time(mine[i].all->loop) + 0.0003 * (16 - i);
        int err = heist_loop_call_at(mine[i].all->loop, mine[i].when, check_timer, &mine[i], NULL, NULL);
        if (err < 0) mine[i].all->err = err;
    }
    return NULL;
}

/* Each new timer may be earlier than what the sleeping loop waits for. */
static void timers_armed_by_other_threads_wake_the_loop_CB_04_CB_15(void **state) {
    (void)state;
    heist_loop *loop = harness_real_loop();
    struct late_timers all = {.loop = loop, .left = 64};
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) {
        for (int k = 0; k < 16; k++) late[i][k].all = &all;
        threads[i] = harness_thread(arm_from_outside, late[i]);
    }
    int err = heist_loop_run_forever(loop);
    for (int i = 0; i < 4; i++) harness_join(threads[i]);
    harness_loop_end(loop);
    assert_int_equal(err, 0);
    assert_int_equal(all.err, 0);
    assert_int_equal(all.early, 0);
}

/* ---- a future completed by another thread ends a run ---- */

struct ending {
    heist_future *future;
    int yields;
};

static void *complete_soon(void *arg) {
    struct ending *ending = arg;
    for (int i = 0; i < ending->yields; i++) sched_yield();
    heist_future_set_result(ending->future, &values[1], NULL);
    return NULL;
}

static void run_until_complete_sees_a_completion_from_outside_LOOP_07(void **state) {
    (void)state;
    heist_loop *loop = harness_real_loop();
    int bad = 0;
    for (int round = 0; round < 60; round++) {
        struct ending ending = {NULL, round % 8 * 10};
        void *out = NULL;
        /* Of this loop, and of none. */
        assert_int_equal(heist_future_new(round % 2 ? loop : NULL, &ending.future), 0);
        pthread_t thread = harness_thread(complete_soon, &ending);
        if (heist_loop_run_until_complete(loop, ending.future, &out) != 0 || out != &values[1]) bad++;
        harness_join(thread);
        heist_unref(ending.future);
    }
    harness_loop_end(loop);
    assert_int_equal(bad, 0);
}

/* ---- deadline against completion ---- */

struct photo {
    heist_future *future;
    double deadline;
    int err;
    void *value;
};

static int await_photo(void *arg, void **out) {
    struct photo *photo = arg;
    (void)out;
    photo->err = heist_await_until(photo->future, photo->deadline, &photo->value);
    return 0;
}

static void *await_photo_in_thread(void *arg) {
    await_photo(arg, NULL);
    return NULL;
}

static void deadline_or_value_and_never_both_XTH_06_FUT_20(void **state) {
    (void)state;
    heist_runtime *rt = harness_runtime(0);
    int wrong = 0;
    for (int round = 0; round < 100; round++) {
        struct photo photos[4];
        heist_task *tasks[3];
        heist_future *future = NULL;
        assert_int_equal(heist_future_new(NULL, &future), 0);
        double deadline = heist_time() + 0.0001 * (round % 5);
        for (int i = 0; i < 4; i++) photos[i] = (struct photo){future, deadline, 1, NULL};
        for (int i = 0; i < 3; i++)
            assert_int_equal(heist_runtime_run_coroutine(rt, await_photo, &photos[i], NULL, &tasks[i]), 0);
        pthread_t thread = harness_thread(await_photo_in_thread, &photos[3]);
        while (heist_time() < deadline) sched_yield();
        heist_future_set_result(future, &values[2], NULL);
        for (int i = 0; i < 3; i++) {
            if (heist_await(tasks[i], NULL) != 0) wrong++;
            heist_unref(tasks[i]);
        }
        harness_join(thread);
        for (int i = 0; i < 4; i++) {
            if (photos[i].err == 0)
                wrong += photos[i].value != &values[2];
            else
                wrong += photos[i].err != -ETIMEDOUT || photos[i].value != NULL;
        }
        heist_unref(future);
    }
    harness_runtime_end(rt);
    assert_int_equal(wrong, 0);
}

/* ---- a channel under deadlines and cancellation ---- */

struct pipe_law {
    heist_channel *channel;
    _Atomic(long) sent, received, sum_sent, sum_received, wrong;
    _Atomic(int) senders, begun;
};

struct piper {
    struct pipe_law *law;
    int number;
};

static int send_with_deadlines(void *arg, void **out) {
    struct piper *piper = arg;
    struct pipe_law *law = piper->law;
    (void)out;
    law->begun++;
    for (long i = 1; i <= 300; i++) {
        long item = piper->number * 1000 + i;
        int err = i % 3 ? heist_channel_send(law->channel, (void *)(intptr_t)item)
                        : heist_channel_send_until(law->channel, (void *)(intptr_t)item, heist_time() + 0.00005);
        if (err == 0) {
            law->sent++;
            law->sum_sent += item;
        } else if (err == -ECANCELED) {
            continue; /* swallowed: one request costs one item at the most */
        } else if (err != -ETIMEDOUT) {
            law->wrong++;
        }
    }
    law->senders--;
    return 0;
}

static int receive_with_deadlines(void *arg, void **out) {
    struct piper *piper = arg;
    struct pipe_law *law = piper->law;
    (void)out;
    law->begun++;
    for (int i = 0;; i++) {
        void *item = NULL;
        int err = i % 2 ? heist_channel_recv(law->channel, &item)
                        : heist_channel_recv_until(law->channel, &item, heist_time() + 0.00005);
        if (err == 0) {
            law->received++;
            law->sum_received += (intptr_t)item;
        } else if (err == HEIST_ESHUTDOWN) {
            return 0;
        } else if (err != -ECANCELED && err != -ETIMEDOUT) {
            law->wrong++;
            return 0;
        } else if (item) {
            law->wrong++; /* it gave up and took something */
        }
    }
}

static void no_item_is_lost_to_deadlines_and_cancellation(void **state) {
    (void)state;
    static const size_t capacities[] = {0, 1, 5};
    for (int k = 0; k < 3; k++) {
        heist_runtime *rt = harness_runtime(0);
        struct pipe_law law = {.senders = 6};
        struct piper pipers[12];
        heist_task *tasks[12];
        assert_int_equal(heist_channel_new(capacities[k], &law.channel), 0);
        for (int i = 0; i < 12; i++) {
            pipers[i] = (struct piper){&law, i};
            assert_int_equal(heist_runtime_run_coroutine(rt, i < 6 ? send_with_deadlines : receive_with_deadlines,
                                                         &pipers[i], NULL, &tasks[i]),
                             0);
        }
        while (law.begun < 12) sched_yield(); /* a task that is cancelled before it begins would not keep count */
        for (unsigned n = 0; law.senders > 0; n++) {
            heist_cancel(tasks[n * 7 % 12]);
            heist_sleep(0.00002);
        }
        heist_channel_close(law.channel);
        int bad = 0;
        for (int i = 0; i < 12; i++) {
            int err = heist_await(tasks[i], NULL);
            if (err != 0 && err != -ECANCELED) bad++;
            heist_unref(tasks[i]);
        }
        void *item = NULL; /* what is left is what nobody received */
        while (heist_channel_try_recv(law.channel, &item) == 0) {
            law.received++;
            law.sum_received += (intptr_t)item;
        }
        harness_runtime_end(rt);
        heist_channel_unref(law.channel);
        assert_int_equal(bad, 0);
        assert_int_equal(law.wrong, 0);
        assert_int_equal(law.received, law.sent);
        assert_int_equal(law.sum_received, law.sum_sent);
    }
}

/* ---- the last references ---- */

static _Atomic(int) freed;
static void count_free(void *value) {
    (void)value;
    freed++;
}

static void *drop_reference(void *future) {
    heist_unref(future);
    return NULL;
}

static _Atomic(int) given;
static int give_value(void *arg, void **out) {
    given++; /* the close may cancel the last ones before they begin */
    *out = arg;
    return 0;
}

static void references_dropped_everywhere_free_once_TASK_32(void **state) {
    (void)state;
    heist_runtime *rt = harness_runtime(0);
    heist_task_options opts = HEIST_TASK_OPTIONS_INIT;
    opts.result_free = count_free;
    freed = given = 0;
    for (int round = 0; round < 100; round++) {
        heist_task *task = NULL;
        pthread_t threads[3];
        assert_int_equal(heist_runtime_run_coroutine(rt, give_value, &values[0], &opts, &task), 0);
        for (int i = 0; i < 3; i++) threads[i] = harness_thread(drop_reference, heist_ref(task));
        heist_unref(task);
        for (int i = 0; i < 3; i++) harness_join(threads[i]);
    }
    harness_runtime_end(rt);
    assert_true(given > 0);
    assert_int_equal(freed, given);
}

/* ---- done callbacks added, removed and completed at once ---- */

struct crowd {
    heist_future *future;
    pthread_barrier_t start;
    _Atomic(int) called, added, removed, freed;
};

static void count_called(heist_future *future, void *user) {
    struct crowd *crowd = user;
    if (heist_future_done(future)) crowd->called++;
}

static void count_user_free(void *user) {
    struct crowd *crowd = user;
    crowd->freed++;
}

static void *add_and_remove(void *arg) {
    struct crowd *crowd = arg;
    pthread_barrier_wait(&crowd->start);
    for (int i = 0; i < 20; i++) {
        if (heist_future_add_done_callback(crowd->future, count_called, crowd, count_user_free) == 0) crowd->added++;
        if (i % 4 == 3) crowd->removed += heist_future_remove_done_callback(crowd->future, count_called, crowd);
    }
    return NULL;
}

static void *complete_crowd(void *arg) {
    struct crowd *crowd = arg;
    pthread_barrier_wait(&crowd->start);
    heist_future_set_result(crowd->future, NULL, NULL);
    return NULL;
}

static void every_done_callback_is_called_or_removed_FUT_14_FUT_16_XTH_16(void **state) {
    (void)state;
    for (int round = 0; round < 60; round++) {
        static struct crowd crowd;
        pthread_t threads[4];
        memset(&crowd, 0, sizeof crowd);
        pthread_barrier_init(&crowd.start, NULL, 4);
        assert_int_equal(heist_future_new(NULL, &crowd.future), 0);
        for (int i = 0; i < 4; i++) threads[i] = harness_thread(i ? add_and_remove : complete_crowd, &crowd);
        for (int i = 0; i < 4; i++) harness_join(threads[i]);
        heist_unref(crowd.future);
        pthread_barrier_destroy(&crowd.start);
        assert_int_equal(crowd.called + crowd.removed, crowd.added);
        assert_int_equal(crowd.freed, crowd.added);
    }
}

/* ---- a long chain ---- */

enum { CHAIN = 500 };

static int await_previous(void *arg, void **out) {
    (void)out;
    return heist_await(arg, NULL);
}

static void cancelling_walks_down_a_long_chain_TASK_09(void **state) {
    (void)state;
    heist_runtime *rt = harness_runtime(0);
    static heist_future *chain[CHAIN + 1];
    int wrong = 0;
    assert_int_equal(heist_future_new(NULL, &chain[0]), 0);
    for (int i = 0; i < CHAIN; i++)
        assert_int_equal(heist_runtime_run_coroutine(rt, await_previous, chain[i], NULL, &chain[i + 1]), 0);
    heist_cancel(chain[CHAIN]);
    wrong += heist_await(chain[CHAIN], NULL) != -ECANCELED;
    /* The last may have been cancelled before it began to wait; then the rest is still there to be ended. */
    heist_cancel(chain[0]);
    for (int i = 1; i <= CHAIN; i++) wrong += heist_await(chain[i], NULL) != -ECANCELED;
    for (int i = 0; i <= CHAIN; i++) heist_unref(chain[i]);
    harness_runtime_end(rt);
    assert_int_equal(wrong, 0);
}

/* ---- closing while tasks wait in every way there is ---- */

struct waits {
    heist_future *future;
    heist_channel *empty, *full;
    _Atomic(int) cancelled, other;
};

static int count_outcome(struct waits *waits, int err) {
    if (err == -ECANCELED)
        waits->cancelled++;
    else
        waits->other++;
    return err;
}

static int wait_future(void *arg, void **out) {
    struct waits *waits = arg;
    (void)out;
    return count_outcome(waits, heist_await_until(waits->future, HEIST_FOREVER, NULL));
}

static int wait_recv(void *arg, void **out) {
    struct waits *waits = arg;
    void *item;
    (void)out;
    return count_outcome(waits, heist_channel_recv(waits->empty, &item));
}

static int wait_send(void *arg, void **out) {
    struct waits *waits = arg;
    (void)out;
    return count_outcome(waits, heist_channel_send(waits->full, waits));
}

static int wait_sleep(void *arg, void **out) {
    (void)out;
    return count_outcome(arg, heist_sleep(1000));
}

static int wait_gather(void *arg, void **out) {
    struct waits *waits = arg;
    heist_future *own = NULL;
    (void)out;
    int err = heist_future_new(NULL, &own);
    if (err < 0) return err;
    heist_future *const futures[2] = {own, own};
    err = heist_gather(futures, 2, NULL, 0);
    heist_unref(own);
    return count_outcome(waits, err);
}

static int wait_accept(void *arg, void **out) {
    struct waits *waits = arg;
    heist_addr addr;
    heist_listener *listener = NULL;
    heist_conn *conn = NULL;
    (void)out;
    int err = heist_addr_parse("127.0.0.1:0", &addr);
    if (err == 0) err = heist_listen(&addr, NULL, &listener);
    if (err < 0) return count_outcome(waits, err);
    err = heist_accept(listener, HEIST_FOREVER, &conn);
    heist_listener_close(listener);
    return count_outcome(waits, err);
}

static int wait_read(void *arg, void **out) {
    struct waits *waits = arg;
    heist_conn *conn = NULL;
    int ends[2];
    char byte;
    (void)out;
    if (pipe(ends) < 0) return count_outcome(waits, -errno);
    int err = heist_conn_open(ends[0], &conn);
    if (err < 0) {
        close(ends[0]);
    } else {
        err = (int)heist_conn_read(conn, &byte, 1, HEIST_FOREVER);
        heist_conn_close(conn);
    }
    close(ends[1]);
    return count_outcome(waits, err);
}

static void close_ends_every_kind_of_wait_MT_10(void **state) {
    (void)state;
    static const heist_coro_fn kinds[] = {wait_future, wait_recv, wait_send, wait_sleep,
                                          wait_gather, wait_accept, wait_read};
    enum { KINDS = sizeof kinds / sizeof kinds[0] };
    for (int round = 0; round < 12; round++) {
        heist_runtime *rt = harness_runtime(0);
        struct waits waits = {.cancelled = 0};
        assert_int_equal(heist_future_new(NULL, &waits.future), 0);
        assert_int_equal(heist_channel_new(1, &waits.empty), 0);
        assert_int_equal(heist_channel_new(1, &waits.full), 0);
        assert_int_equal(heist_channel_try_send(waits.full, &waits), 0);
        for (int i = 0; i < 3 * KINDS; i++)
            assert_int_equal(heist_runtime_run_coroutine(rt, kinds[i % KINDS], &waits, NULL, NULL), 0);
        for (int i = 0; i < round; i++) heist_sleep(0.0002); /* from not begun to all waiting */
        int err = heist_runtime_close(rt, HEIST_FOREVER);
        heist_runtime_unref(rt);
        heist_unref(waits.future);
        heist_channel_unref(waits.empty);
        heist_channel_unref(waits.full);
        assert_int_equal(err, 0);
        assert_int_equal(waits.other, 0);
        assert_true(waits.cancelled <= 3 * KINDS);
    }
}

/* ---- a descriptor that is closed and whose number comes back ---- */

struct reuse {
    heist_loop *loop;
    int fd, calls, wrong;
    char expected;
};

static int read_expected(void *arg) {
    struct reuse *reuse = arg;
    char byte = 0;
    reuse->calls++;
    if (read(reuse->fd, &byte, 1) != 1 || byte != reuse->expected) reuse->wrong++;
    heist_loop_remove_reader(reuse->loop, reuse->fd);
    return heist_loop_stop(reuse->loop);
}

static void reused_descriptor_number_gets_no_stale_event_LOOP_29(void **state) {
    (void)state;
    heist_loop *loop = harness_real_loop();
    int wrong = 0;
    for (int i = 0; i < 50; i++) {
        struct reuse reuse = {loop, -1, 0, 0, (char)('a' + i % 26)};
        int old[2], fresh[2];
        assert_int_equal(pipe(old), 0);
        assert_int_equal(heist_loop_add_reader(loop, old[0], read_expected, &reuse, NULL), 0);
        assert_int_equal(write(old[1], "?", 1), 1); /* an event that nobody will want */
        assert_int_equal(heist_loop_remove_reader(loop, old[0]), 1);
        close(old[0]);
        close(old[1]);
        assert_int_equal(pipe(fresh), 0); /* the same numbers again */
        reuse.fd = fresh[0];
        assert_int_equal(heist_loop_add_reader(loop, fresh[0], read_expected, &reuse, NULL), 0);
        assert_int_equal(write(fresh[1], &reuse.expected, 1), 1);
        assert_int_equal(heist_loop_run_forever(loop), 0);
        wrong += reuse.wrong + (reuse.calls != 1);
        close(fresh[0]);
        close(fresh[1]);
    }
    harness_loop_end(loop);
    assert_int_equal(wrong, 0);
}

static void *add_reader_from_outside(void *arg) {
    struct reuse *reuse = arg;
    reuse->wrong += heist_loop_add_reader(reuse->loop, reuse->fd, read_expected, reuse, NULL) != 0;
    return NULL;
}

static void reader_added_by_another_thread_is_served_CB_15(void **state) {
    (void)state;
    heist_loop *loop = harness_real_loop();
    int wrong = 0;
    for (int i = 0; i < 20; i++) {
        int ends[2];
        assert_int_equal(pipe(ends), 0);
        struct reuse reuse = {loop, ends[0], 0, 0, 'x'};
        assert_int_equal(write(ends[1], "x", 1), 1);
        pthread_t thread = harness_thread(add_reader_from_outside, &reuse);
        int err = heist_loop_run_forever(loop);
        harness_join(thread);
        wrong += reuse.wrong + (reuse.calls != 1) + (err != 0);
        close(ends[0]);
        close(ends[1]);
    }
    harness_loop_end(loop);
    assert_int_equal(wrong, 0);
}

/* ---- what refers to a loop that is gone ---- */

static void done_callbacks_of_a_closed_loop_are_let_go_FUT_13(void **state) {
    (void)state;
    static struct crowd crowd;
    heist_loop *loop = harness_loop();
    heist_future *future = NULL, *late_one = NULL;
    memset(&crowd, 0, sizeof crowd);
    assert_int_equal(heist_future_new(loop, &future), 0);
    assert_int_equal(heist_future_new(loop, &late_one), 0);
    assert_int_equal(heist_future_add_done_callback(future, count_called, &crowd, count_user_free), 0);
    assert_int_equal(heist_future_add_done_callback(late_one, count_called, &crowd, count_user_free), 0);
    assert_int_equal(heist_future_set_result(future, NULL, NULL), 0); /* scheduled, and never run */
    harness_loop_end(loop);
    assert_int_equal(crowd.called, 0);
    assert_true(crowd.freed >= 1);
    assert_int_equal(heist_future_set_result(late_one, NULL, NULL), 0); /* its loop is gone: there is nowhere to run it */
    heist_unref(future);
    heist_unref(late_one);
    assert_int_equal(crowd.called, 0);
    assert_int_equal(crowd.freed, 2);
}

struct namer {
    heist_task *task;
    _Atomic(bool) stop;
    int wrong;
};

static void *read_names(void *arg) {
    struct namer *namer = arg;
    while (!namer->stop) {
        char name[64], text[200];
        int length = heist_task_name(namer->task, name, sizeof name);
        if (length != (int)strlen(name) || (strcmp(name, "one") != 0 && strcmp(name, "another name") != 0))
            namer->wrong++;
        if (heist_future_repr(namer->task, text, sizeof text) <= 0) namer->wrong++;
    }
    return NULL;
}

static void name_is_read_while_it_is_changed_TASK_24(void **state) {
    (void)state;
    heist_runtime *rt = harness_runtime(0);
    struct namer namer = {.stop = false};
    heist_task_options opts = HEIST_TASK_OPTIONS_INIT;
    heist_future *never = NULL;
    opts.name = "one";
    assert_int_equal(heist_future_new(NULL, &never), 0);
    assert_int_equal(heist_runtime_run_coroutine(rt, await_previous, never, &opts, &namer.task), 0);
    pthread_t thread = harness_thread(read_names, &namer);
    int err = 0;
    for (int i = 0; i < 2000 && err == 0; i++) err = heist_task_set_name(namer.task, i % 2 ? "one" : "another name");
    namer.stop = true;
    harness_join(thread);
    heist_cancel(never);
    heist_await(namer.task, NULL);
    heist_unref(namer.task);
    heist_unref(never);
    harness_runtime_end(rt);
    assert_int_equal(err, 0);
    assert_int_equal(namer.wrong, 0);
}

static void *set_and_exit(void *loop) {
    heist_set_event_loop(loop); /* the thread's reference goes with the thread */
    return NULL;
}

static void loop_set_by_a_thread_is_let_go_at_its_end_LOOP_04(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    harness_join(harness_thread(set_and_exit, loop));
    harness_loop_end(loop);
}

static const struct CMUnitTest tests[] = {
    API_TEST(handle_is_either_cancelled_or_run_CB_03_CB_10),
    API_TEST(timers_armed_by_other_threads_wake_the_loop_CB_04_CB_15),
    API_TEST(run_until_complete_sees_a_completion_from_outside_LOOP_07),
    API_TEST(deadline_or_value_and_never_both_XTH_06_FUT_20),
    API_TEST(no_item_is_lost_to_deadlines_and_cancellation),
    API_TEST(references_dropped_everywhere_free_once_TASK_32),
    API_TEST(every_done_callback_is_called_or_removed_FUT_14_FUT_16_XTH_16),
    API_TEST(cancelling_walks_down_a_long_chain_TASK_09),
    API_TEST(close_ends_every_kind_of_wait_MT_10),
    API_TEST(reused_descriptor_number_gets_no_stale_event_LOOP_29),
    API_TEST(reader_added_by_another_thread_is_served_CB_15),
    API_TEST(done_callbacks_of_a_closed_loop_are_let_go_FUT_13),
    API_TEST(name_is_read_while_it_is_changed_TASK_24),
    API_TEST(loop_set_by_a_thread_is_let_go_at_its_end_LOOP_04),
};

int main(void) {
    return HARNESS_MAIN("races", tests);
}
