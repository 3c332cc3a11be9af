/* Queues: asyncio's three orders, bounds, join and shutdown, and the same calls from plain threads.  Rows Q. */
#include "support/harness.h"

#include <heist/debug.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static int items[16];

static heist_queue *new_queue(long long maxsize) {
    heist_queue *q = NULL;
    assert_int_equal(heist_queue_new(maxsize, NULL, &q), 0);
    assert_non_null(q);
    return q;
}

static heist_queue *new_ordered(long long maxsize, unsigned order, heist_compare_fn compare, heist_free_fn item_free) {
    heist_queue *q = NULL;
    heist_queue_options opts = HEIST_QUEUE_OPTIONS_INIT;
    opts.order = order;
    opts.compare = compare;
    opts.item_free = item_free;
    assert_int_equal(heist_queue_new(maxsize, &opts, &q), 0);
    return q;
}

static heist_task *new_task(heist_loop *loop, heist_coro_fn fn, void *arg) {
    heist_task *task = NULL;
    assert_int_equal(heist_loop_create_task(loop, fn, arg, NULL, &task), 0);
    return task;
}

static void *number(long n) { return (void *)(intptr_t)n; }

static long get_number(heist_queue *q) {
    void *out = NULL;
    int err = heist_queue_get_nowait(q, &out);
    return err ? err : (long)(intptr_t)out;
}

/* ---- orders, bounds and questions ---- */

static void items_come_out_in_the_order_they_went_in_Q_01(void **state) {
    (void)state;
    heist_queue *q = new_queue(4);
    assert_int_equal(heist_queue_maxsize(q), 4);
    assert_int_equal(heist_queue_empty(q), 1);
    assert_int_equal(heist_queue_full(q), 0);
    for (int round = 0; round < 3; round++) { /* around the end of the ring too */
        for (int i = 0; i < 3; i++) assert_int_equal(heist_queue_put_nowait(q, &items[i]), 0);
        assert_int_equal(heist_queue_qsize(q), 3);
        assert_int_equal(heist_queue_empty(q), 0);
        assert_int_equal(heist_queue_full(q), 0);
        assert_int_equal(heist_queue_put(q, &items[3]), 0); /* a plain thread, and there is room */
        assert_int_equal(heist_queue_full(q), 1);
        for (int i = 0; i < 4; i++) {
            void *out = NULL;
            assert_int_equal(heist_queue_get(q, &out), 0);
            assert_ptr_equal(out, &items[i]);
        }
        assert_int_equal(heist_queue_empty(q), 1);
    }
    assert_ptr_equal(heist_queue_ref(q), q);
    heist_queue_unref(q);
    heist_queue_unref(q);
}

static void zero_or_less_is_without_bound_Q_02(void **state) {
    (void)state;
    static const long long sizes[] = {0, -1, -1000};
    for (int k = 0; k < 3; k++) {
        heist_queue *q = new_queue(sizes[k]);
        assert_int_equal(heist_queue_maxsize(q), 0);
        for (int round = 0; round < 2; round++) { /* the store is given back between the two */
            for (long i = 0; i < 5000; i++) assert_int_equal(heist_queue_put_nowait(q, number(i)), 0);
            assert_int_equal(heist_queue_full(q), 0);
            assert_int_equal(heist_queue_qsize(q), 5000);
            for (long i = 0; i < 2500; i++) assert_int_equal(get_number(q), i);
            for (long i = 5000; i < 9000; i++) assert_int_equal(heist_queue_put_nowait(q, number(i)), 0);
            for (long i = 2500; i < 9000; i++) assert_int_equal(get_number(q), i);
            assert_int_equal(heist_queue_empty(q), 1);
        }
        heist_queue_unref(q);
    }
}

static void no_wait_means_at_once_or_again_Q_05(void **state) {
    (void)state;
    heist_queue *q = new_queue(1);
    void *out = &items[9];
    assert_int_equal(heist_queue_get_nowait(q, &out), -EAGAIN);
    assert_ptr_equal(out, &items[9]); /* untouched on failure */
    assert_int_equal(heist_queue_put_nowait(q, NULL), 0); /* NULL is an item like any other */
    assert_int_equal(heist_queue_put_nowait(q, &items[0]), -EAGAIN);
    assert_int_equal(heist_queue_qsize(q), 1);
    assert_int_equal(heist_queue_get_nowait(q, &out), 0);
    assert_null(out);
    heist_queue_unref(q);
}

struct job {
    int rank, made;
};
static int by_rank(const void *a, const void *b, void *user) {
    (void)user;
    return ((const struct job *)a)->rank - ((const struct job *)b)->rank;
}

static void smallest_comes_first_and_equals_in_order_Q_09(void **state) {
    (void)state;
    enum { N = 2000 };
    static struct job jobs[N];
    static const long long sizes[] = {0, N};
    for (int k = 0; k < 2; k++) {
        heist_queue *q = new_ordered(sizes[k], HEIST_QUEUE_PRIORITY, by_rank, NULL);
        unsigned draw = 12345;
        int taken = 0, last_rank = -1;
        for (int i = 0; i < N; i++) {
            draw = draw * 1103515245u + 12345u;
            jobs[i] = (struct job){(int)(draw >> 16) % 50, i};
            assert_int_equal(heist_queue_put_nowait(q, &jobs[i]), 0);
        }
        struct job *last = NULL;
        for (void *out; heist_queue_get_nowait(q, &out) == 0; taken++) {
            struct job *job = out;
            assert_true(job->rank >= last_rank);
            if (last && last->rank == job->rank) assert_true(last->made < job->made);
            last_rank = job->rank;
            last = job;
        }
        assert_int_equal(taken, N);
        heist_queue_unref(q);
    }
}

static void newest_comes_first_Q_10(void **state) {
    (void)state;
    heist_queue *q = new_ordered(0, HEIST_QUEUE_LIFO, NULL, NULL);
    for (long i = 0; i < 3000; i++) assert_int_equal(heist_queue_put_nowait(q, number(i)), 0);
    for (long i = 2999; i >= 1000; i--) assert_int_equal(get_number(q), i);
    assert_int_equal(heist_queue_put_nowait(q, number(7777)), 0);
    assert_int_equal(get_number(q), 7777);
    for (long i = 999; i >= 0; i--) assert_int_equal(get_number(q), i);
    heist_queue_unref(q);
}

static void bad_arguments_are_refused(void **state) {
    (void)state;
    heist_queue *q = (void *)items;
    heist_queue_options opts = HEIST_QUEUE_OPTIONS_INIT;
    void *out = NULL;
    assert_int_equal(heist_queue_new(1, NULL, NULL), -EINVAL);
    opts.size = 1;
    assert_int_equal(heist_queue_new(1, &opts, &q), -EINVAL);
    opts = (heist_queue_options)HEIST_QUEUE_OPTIONS_INIT;
    opts.order = 3;
    assert_int_equal(heist_queue_new(1, &opts, &q), -EINVAL);
    opts.order = HEIST_QUEUE_PRIORITY; /* by what? */
    assert_int_equal(heist_queue_new(1, &opts, &q), -EINVAL);
    opts.order = HEIST_QUEUE_FIFO;
    opts.compare = by_rank;
    assert_int_equal(heist_queue_new(1, &opts, &q), -EINVAL);
    opts.compare = NULL;
    opts.flags = 1;
    assert_int_equal(heist_queue_new(1, &opts, &q), -EINVAL);
    assert_ptr_equal(q, items);
    q = new_queue(1);
    assert_int_equal(heist_queue_put_until(q, NULL, NAN), -EINVAL);
    assert_int_equal(heist_queue_get_until(q, &out, NAN), -EINVAL);
    assert_int_equal(heist_queue_join_until(q, NAN), -EINVAL);
    assert_int_equal(heist_queue_shutdown(q, 2), -EINVAL);
    assert_int_equal(heist_queue_put(NULL, NULL), -EINVAL);
    assert_int_equal(heist_queue_get(NULL, &out), -EINVAL);
    assert_int_equal(heist_queue_put_nowait(NULL, NULL), -EINVAL);
    assert_int_equal(heist_queue_get_nowait(NULL, &out), -EINVAL);
    assert_int_equal(heist_queue_task_done(NULL), -EINVAL);
    assert_int_equal(heist_queue_join(NULL), -EINVAL);
    assert_int_equal(heist_queue_shutdown(NULL, 0), -EINVAL);
    assert_int_equal(heist_queue_qsize(NULL), 0);
    heist_queue_unref(NULL);
    heist_queue_unref(q);
}

/* ---- waiting ---- */

struct end {
    heist_queue *queue;
    struct record *record;
    const char *word;
    void *item;
    int err;
};

static int put_one(void *arg, void **out) {
    struct end *end = arg;
    (void)out;
    end->err = heist_queue_put(end->queue, end->item);
    record_add(end->record, "%s:%d", end->word, end->err);
    return end->err == -ECANCELED ? end->err : 0;
}

static int get_one(void *arg, void **out) {
    struct end *end = arg;
    (void)out;
    end->err = heist_queue_get(end->queue, &end->item);
    record_add(end->record, "%s:%d", end->word, end->err);
    return end->err == -ECANCELED ? end->err : 0;
}

static const char *const words[] = {"a", "b", "c"};

static void getters_are_served_in_order_Q_03(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    heist_queue *q = new_queue(2);
    struct end getters[3];
    for (int i = 0; i < 3; i++) {
        getters[i] = (struct end){q, &record, words[i], NULL, 1};
        heist_unref(new_task(loop, get_one, &getters[i]));
    }
    harness_one_pass(loop);
    assert_int_equal(record_words(&record), 0);
    for (int i = 0; i < 3; i++) assert_int_equal(heist_queue_put_nowait(q, &items[i]), 0);
    assert_int_equal(heist_queue_qsize(q), 0); /* handed over */
    harness_one_pass(loop);
    assert_string_equal(record_text(&record), "a:0 b:0 c:0");
    for (int i = 0; i < 3; i++) assert_ptr_equal(getters[i].item, &items[i]);
    heist_queue_unref(q);
    harness_loop_end(loop);
}

static void putters_are_served_in_order_Q_04(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    heist_queue *q = new_queue(2);
    struct end putters[3];
    assert_int_equal(heist_queue_put_nowait(q, &items[8]), 0);
    assert_int_equal(heist_queue_put_nowait(q, &items[9]), 0);
    for (int i = 0; i < 3; i++) {
        putters[i] = (struct end){q, &record, words[i], &items[i], 1};
        heist_unref(new_task(loop, put_one, &putters[i]));
    }
    harness_one_pass(loop);
    assert_int_equal(record_words(&record), 0);
    static const int order[] = {8, 9, 0, 1, 2};
    for (int i = 0; i < 5; i++) {
        void *out = NULL;
        assert_int_equal(heist_queue_get_nowait(q, &out), 0);
        assert_ptr_equal(out, &items[order[i]]);
        harness_one_pass(loop);
    }
    assert_string_equal(record_text(&record), "a:0 b:0 c:0");
    heist_queue_unref(q);
    harness_loop_end(loop);
}

/* Those who wait on a full priority queue come in by age, and out by rank. */
static void putters_of_a_full_priority_queue_come_out_by_rank_Q_09(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    static struct job jobs[] = {{5, 0}, {9, 1}, {1, 2}};
    heist_queue *q = new_ordered(1, HEIST_QUEUE_PRIORITY, by_rank, NULL);
    struct end putters[3];
    for (int i = 0; i < 3; i++) {
        putters[i] = (struct end){q, &record, words[i], &jobs[i], 1};
        heist_unref(new_task(loop, put_one, &putters[i]));
    }
    harness_one_pass(loop);
    static const int order[] = {0, 1, 2}; /* one place only: the oldest putter's item is the only one to choose from */
    for (int i = 0; i < 3; i++) {
        void *out = NULL;
        assert_int_equal(heist_queue_get_nowait(q, &out), 0);
        assert_ptr_equal(out, &jobs[order[i]]);
    }
    harness_one_pass(loop);
    assert_string_equal(record_text(&record), "a:0 b:0 c:0");
    heist_queue_unref(q);
    harness_loop_end(loop);
}

static void cancelled_waiters_leave_the_queue_as_it_was_Q_06(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    heist_queue *q = new_queue(1), *empty = new_queue(1);
    struct end putters[2], getters[2];
    heist_task *put[2], *get[2];
    assert_int_equal(heist_queue_put_nowait(q, &items[9]), 0);
    for (int i = 0; i < 2; i++) {
        putters[i] = (struct end){q, &record, i ? "put2" : "put1", &items[i], 1};
        getters[i] = (struct end){empty, &record, i ? "get2" : "get1", NULL, 1};
        put[i] = new_task(loop, put_one, &putters[i]);
        get[i] = new_task(loop, get_one, &getters[i]);
    }
    harness_one_pass(loop);
    assert_int_equal(heist_cancel(put[0]), 1);
    assert_int_equal(heist_cancel(get[0]), 1);
    harness_one_pass(loop);
    char want[64];
    snprintf(want, sizeof(want), "put1:%d get1:%d", -ECANCELED, -ECANCELED);
    assert_string_equal(record_text(&record), want);
    assert_null(getters[0].item);
    assert_int_equal(heist_queue_qsize(q), 1);
    assert_int_equal(heist_queue_qsize(empty), 0);
    /* What comes now is for those that are left. */
    void *out = NULL;
    assert_int_equal(heist_queue_put_nowait(empty, &items[5]), 0);
    assert_int_equal(heist_queue_get_nowait(q, &out), 0);
    assert_ptr_equal(out, &items[9]);
    harness_one_pass(loop);
    assert_int_equal(getters[1].err, 0);
    assert_ptr_equal(getters[1].item, &items[5]);
    assert_int_equal(putters[1].err, 0);
    assert_int_equal(heist_queue_get_nowait(q, &out), 0);
    assert_ptr_equal(out, &items[1]);
    assert_int_equal(heist_queue_get_nowait(q, &out), -EAGAIN);
    for (int i = 0; i < 2; i++) {
        heist_unref(put[i]);
        heist_unref(get[i]);
    }
    heist_queue_unref(q);
    heist_queue_unref(empty);
    harness_loop_end(loop);
}

struct until {
    heist_queue *queue;
    double seconds;
    int get, put, late_put, join, past_get, past_put, cancelled_get;
};

static int wait_until(void *arg, void **out) {
    struct until *u = arg;
    void *item = NULL;
    (void)out;
    double start = heist_time();
    u->get = heist_queue_get_until(u->queue, &item, start + 2);
    u->past_put = heist_queue_put_until(u->queue, &items[0], start - 1); /* need not wait */
    u->late_put = heist_queue_put_until(u->queue, &items[1], start + 5);
    u->join = heist_queue_join_until(u->queue, start + 7);
    u->seconds = heist_time() - start;
    u->past_get = heist_queue_get_until(u->queue, &item, start - 1);
    u->put = heist_queue_get_until(u->queue, &item, start - 1);
    heist_cancel(heist_current_task());
    u->cancelled_get = heist_queue_put(u->queue, &items[2]); /* a cancellation point even where there is room */
    return 0;
}

static void deadlines_end_the_waiting_Q_06(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    struct until u = {new_queue(1), 0, 1, 1, 1, 1, 1, 1, 1};
    assert_int_equal(heist_loop_run_coroutine(loop, wait_until, &u, NULL, NULL), 0);
    assert_int_equal(u.get, -ETIMEDOUT);
    assert_int_equal(u.past_put, 0);
    assert_int_equal(u.late_put, -ETIMEDOUT);
    assert_int_equal(u.join, -ETIMEDOUT);
    assert_true(u.seconds >= 7 && u.seconds < 7.5);
    assert_int_equal(u.past_get, 0);
    assert_int_equal(u.put, -ETIMEDOUT);
    assert_int_equal(u.cancelled_get, -ECANCELED);
    assert_int_equal(heist_queue_qsize(u.queue), 0);
    heist_queue_unref(u.queue);
    harness_loop_end(loop);
}

/* ---- join and task_done ---- */

static int join_it(void *arg, void **out) {
    struct end *end = arg;
    (void)out;
    end->err = heist_queue_join(end->queue);
    record_add(end->record, "%s:%d", end->word, end->err);
    return end->err == -ECANCELED ? end->err : 0;
}

static void join_waits_until_each_item_is_done_Q_07(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    heist_queue *q = new_queue(2);
    struct end join[3] = {{q, &record, "a", NULL, 1}, {q, &record, "b", NULL, 1}, {q, &record, "c", NULL, 1}};
    assert_int_equal(heist_queue_join(q), 0); /* nothing was put: at once */
    assert_int_equal(heist_queue_put_nowait(q, &items[0]), 0);
    assert_int_equal(heist_queue_put_nowait(q, &items[1]), 0);
    heist_task *tasks[3];
    for (int i = 0; i < 3; i++) tasks[i] = new_task(loop, join_it, &join[i]);
    harness_one_pass(loop);
    assert_int_equal(get_number(q), (long)(intptr_t)&items[0]);
    assert_int_equal(get_number(q), (long)(intptr_t)&items[1]);
    harness_one_pass(loop);
    assert_int_equal(heist_queue_task_done(q), 0);
    harness_one_pass(loop);
    assert_int_equal(record_words(&record), 0); /* empty, and one is not done */
    assert_int_equal(heist_cancel(tasks[1]), 1);
    harness_one_pass(loop);
    assert_int_equal(join[1].err, -ECANCELED);
    record_clear(&record);
    assert_int_equal(heist_queue_task_done(q), 0);
    harness_one_pass(loop);
    assert_string_equal(record_text(&record), "a:0 c:0");
    for (int i = 0; i < 3; i++) heist_unref(tasks[i]);
    heist_queue_unref(q);
    harness_loop_end(loop);
}

static void more_done_than_put_is_refused_Q_08(void **state) {
    (void)state;
    heist_queue *q = new_queue(0);
    assert_int_equal(heist_queue_task_done(q), -EINVAL);
    assert_int_equal(heist_queue_put_nowait(q, &items[0]), 0);
    assert_int_equal(heist_queue_task_done(q), 0);
    assert_int_equal(heist_queue_task_done(q), -EINVAL);
    assert_int_equal(heist_queue_join(q), 0);
    /* An item that was declared done before it was got does not count twice when it is dropped. */
    assert_int_equal(heist_queue_shutdown(q, HEIST_QUEUE_IMMEDIATE), 0);
    assert_int_equal(heist_queue_join(q), 0);
    assert_int_equal(heist_queue_task_done(q), -EINVAL);
    heist_queue_unref(q);
}

/* ---- shutdown ---- */

static _Atomic(int) freed;
static void count_free(void *item) {
    (void)item;
    freed++;
}

static void shutdown_drains_and_turns_waiters_away_Q_11(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    heist_queue *q = new_queue(1), *empty = new_queue(1);
    struct end putter = {q, &record, "putter", &items[1], 1}, getter = {empty, &record, "getter", NULL, 1};
    void *out = NULL;
    assert_int_equal(heist_queue_put_nowait(q, &items[0]), 0);
    heist_task *a = new_task(loop, put_one, &putter), *b = new_task(loop, get_one, &getter);
    harness_one_pass(loop);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(heist_queue_shutdown(q, 0), 0);
        assert_int_equal(heist_queue_shutdown(empty, 0), 0);
    }
    harness_one_pass(loop);
    assert_int_equal(putter.err, HEIST_ESHUTDOWN);
    assert_int_equal(getter.err, HEIST_ESHUTDOWN);
    assert_int_equal(heist_queue_put_nowait(q, &items[2]), HEIST_ESHUTDOWN);
    assert_int_equal(heist_queue_put(q, &items[2]), HEIST_ESHUTDOWN);
    assert_int_equal(heist_queue_get(q, &out), 0);
    assert_ptr_equal(out, &items[0]);
    assert_int_equal(heist_queue_get(q, &out), HEIST_ESHUTDOWN);
    assert_int_equal(heist_queue_get_nowait(q, &out), HEIST_ESHUTDOWN);
    assert_int_equal(heist_queue_join_until(q, heist_time() - 1), -ETIMEDOUT); /* the one that was got is not done */
    assert_int_equal(heist_queue_task_done(q), 0);
    assert_int_equal(heist_queue_join(q), 0);
    heist_unref(a);
    heist_unref(b);
    heist_queue_unref(q);
    heist_queue_unref(empty);
    harness_loop_end(loop);
}

static void immediate_shutdown_drops_what_is_left_Q_12(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    static const unsigned orders[] = {HEIST_QUEUE_FIFO, HEIST_QUEUE_LIFO, HEIST_QUEUE_PRIORITY};
    static struct job jobs[3];
    for (int k = 0; k < 3; k++) {
        heist_queue *q = new_ordered(3, orders[k], k == 2 ? by_rank : NULL, count_free);
        struct end join = {q, &record, "join", NULL, 1}, putter = {q, &record, "put", &jobs[0], 1};
        void *out = NULL;
        freed = 0;
        record_clear(&record);
        for (int i = 0; i < 3; i++) assert_int_equal(heist_queue_put_nowait(q, &jobs[i]), 0);
        assert_int_equal(heist_queue_get_nowait(q, &out), 0); /* in somebody's hands: not dropped */
        assert_int_equal(heist_queue_put_nowait(q, out), 0);
        heist_task *a = new_task(loop, join_it, &join), *b = new_task(loop, put_one, &putter);
        harness_one_pass(loop);
        assert_int_equal(heist_queue_shutdown(q, 0), 0);
        assert_int_equal(freed, 0);
        assert_int_equal(heist_queue_shutdown(q, HEIST_QUEUE_IMMEDIATE), 0);
        assert_int_equal(freed, 3);
        assert_int_equal(heist_queue_qsize(q), 0);
        assert_int_equal(heist_queue_get_nowait(q, &out), HEIST_ESHUTDOWN);
        harness_one_pass(loop);
        assert_int_equal(putter.err, HEIST_ESHUTDOWN);
        assert_int_equal(join.err, 1); /* the one that was got */
        assert_int_equal(heist_queue_task_done(q), 0);
        harness_one_pass(loop);
        assert_int_equal(join.err, 0);
        heist_unref(a);
        heist_unref(b);
        heist_queue_unref(q);
    }
    harness_loop_end(loop);
}

static void last_unref_frees_what_is_left(void **state) {
    (void)state;
    heist_queue *q = new_ordered(0, HEIST_QUEUE_FIFO, NULL, count_free);
    void *out;
    freed = 0;
    for (int i = 0; i < 100; i++) assert_int_equal(heist_queue_put_nowait(q, &items[0]), 0);
    for (int i = 0; i < 30; i++) assert_int_equal(heist_queue_get_nowait(q, &out), 0);
    assert_int_equal(freed, 0);
    heist_queue_unref(q);
    assert_int_equal(freed, 70);
}

/* ---- callbacks ---- */

static int use_in_callback(void *arg) {
    struct end *end = arg;
    void *out = NULL;
    record_add(end->record, "%d", heist_queue_put(end->queue, &items[0]) == HEIST_ENOTINCORO);
    record_add(end->record, "%d", heist_queue_get(end->queue, &out) == HEIST_ENOTINCORO);
    record_add(end->record, "%d", heist_queue_join(end->queue) == HEIST_ENOTINCORO);
    record_add(end->record, "%d", heist_queue_put_nowait(end->queue, &items[1]));
    record_add(end->record, "%d", heist_queue_get_nowait(end->queue, &out));
    return 0;
}

static void count_reports(heist_loop *loop, const heist_report *report, void *user) {
    (void)loop;
    if (report->code == HEIST_ENOTINCORO) ++*(int *)user;
}

/* asyncio: a blocking get in a coroutine would hold the loop.  Here the same call suspends a task, and a callback,
 * which cannot, is refused at once; debug mode says where. */
static void a_get_that_would_hold_the_loop_is_refused_and_reported_Q_18(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    int reports = 0;
    heist_loop *loop = harness_loop();
    struct end end = {new_queue(4), &record, NULL, NULL, 0};
    assert_int_equal(heist_loop_set_debug(loop, 1), 0);
    assert_int_equal(heist_loop_set_exception_handler(loop, count_reports, &reports), 0);
    assert_int_equal(heist_loop_call_soon(loop, use_in_callback, &end, NULL, NULL), 0);
    harness_one_pass(loop);
    harness_one_pass(loop);
    assert_string_equal(record_text(&record), "1 1 1 0 0");
    assert_int_equal(reports, 3);
    heist_queue_unref(end.queue);
    harness_loop_end(loop);
}

/* Where debug mode looks for locks left behind, waits take another way. */

static int no_locks(char *text, size_t size) {
    if (size) text[0] = 0;
    return 0;
}

static int pass_to_each_other(void *arg, void **out) {
    heist_queue **q = arg;
    (void)out;
    for (int i = 0; i < 100; i++) {
        void *item = NULL;
        int err = heist_queue_put(q[0], q);
        if (err == 0) err = heist_queue_get_until(q[1], &item, heist_time() + 5);
        if (err == 0 && item != q) err = -EPROTO;
        if (err) return err;
    }
    return heist_queue_get_until(q[1], NULL, heist_time() + 1) == -ETIMEDOUT ? 0 : -EPROTO;
}

static int pass_back(void *arg, void **out) {
    heist_queue **q = arg;
    (void)out;
    for (int i = 0; i < 100; i++) {
        void *item = NULL;
        int err = heist_queue_get(q[0], &item);
        if (err == 0) err = heist_queue_put(q[1], item);
        if (err) return err;
    }
    return 0;
}

static void waits_are_the_same_where_locks_are_watched(void **state) {
    (void)state;
    heist_queue *q[2] = {new_queue(1), new_queue(1)};
    assert_int_equal(heist_debug_set_locks_hook(no_locks, HEIST_DEBUG_LOCKS_GO_ON), 0);
    heist_loop *loop = harness_loop();
    assert_int_equal(heist_loop_set_debug(loop, 1), 0);
    heist_task *a = new_task(loop, pass_to_each_other, q), *b = new_task(loop, pass_back, q);
    int one = heist_loop_run_until_complete(loop, a, NULL), two = heist_loop_run_until_complete(loop, b, NULL);
    heist_unref(a);
    heist_unref(b);
    harness_loop_end(loop);
    assert_int_equal(heist_debug_set_locks_hook(NULL, 0), 0);
    assert_int_equal(one, 0);
    assert_int_equal(two, 0);
    heist_queue_unref(q[0]);
    heist_queue_unref(q[1]);
}

/* ---- plain threads ---- */

static void *get_in_thread(void *arg) {
    struct end *end = arg;
    end->err = heist_queue_get(end->queue, &end->item);
    return NULL;
}

static void *put_in_thread(void *arg) {
    struct end *end = arg;
    end->err = heist_queue_put(end->queue, end->item);
    return NULL;
}

static void a_plain_thread_blocks_until_an_item_comes_Q_15(void **state) {
    (void)state;
    heist_queue *q = new_queue(1);
    struct end end = {q, NULL, NULL, NULL, 1}, more = {q, NULL, NULL, &items[5], 1};
    pthread_t thread = harness_thread(get_in_thread, &end);
    heist_sleep(0.001); /* it may wait by now, or not yet: both must do */
    assert_int_equal(heist_queue_put(q, &items[4]), 0);
    harness_join(thread);
    assert_int_equal(end.err, 0);
    assert_ptr_equal(end.item, &items[4]);
    assert_int_equal(heist_queue_put(q, &items[4]), 0);
    thread = harness_thread(put_in_thread, &more); /* and on a full one */
    void *out = NULL;
    assert_int_equal(heist_queue_get(q, &out), 0);
    assert_int_equal(heist_queue_get(q, &out), 0);
    assert_ptr_equal(out, &items[5]);
    harness_join(thread);
    assert_int_equal(more.err, 0);
    heist_queue_unref(q);
}

static void a_plain_thread_need_not_wait_Q_16(void **state) {
    (void)state;
    heist_queue *q = new_queue(0);
    void *out = &items[1];
    assert_int_equal(heist_queue_get_nowait(q, &out), -EAGAIN);
    assert_int_equal(heist_queue_get_until(q, &out, heist_time() - 1), -ETIMEDOUT);
    assert_ptr_equal(out, &items[1]);
    heist_queue_unref(q);
}

static void a_plain_threads_get_ends_at_its_deadline_Q_17(void **state) {
    (void)state;
    heist_queue *q = new_queue(0);
    void *out = &items[1];
    double start = heist_time();
    assert_int_equal(heist_queue_get_until(q, &out, start + 0.02), -ETIMEDOUT);
    assert_true(heist_time() >= start + 0.02); /* never early */
    assert_int_equal(heist_queue_get_until(q, &out, NAN), -EINVAL);
    assert_int_equal(heist_queue_put_nowait(q, &items[2]), 0);
    assert_int_equal(heist_queue_get_until(q, &out, -5), 0); /* long over, but there is one */
    assert_ptr_equal(out, &items[2]);
    heist_queue_unref(q);
}

/* ---- many of each, tasks of two runtimes and plain threads ---- */

enum { EACH = 300, PAIRS = 4 };

struct flow {
    heist_queue *queue;
    _Atomic(long) put, got, bad;
    _Atomic(int) seen[(PAIRS + 1) * EACH], next;
};

static void put_all(struct flow *flow) {
    int from = flow->next++ * EACH;
    for (int i = from; i < from + EACH; i++) {
        if (heist_queue_put(flow->queue, number(i)) != 0)
            flow->bad++;
        else
            flow->put++;
    }
}

static void get_all(struct flow *flow) {
    for (;;) {
        void *out = NULL;
        int err = heist_queue_get(flow->queue, &out);
        if (err == HEIST_ESHUTDOWN) return;
        if (err != 0) {
            flow->bad++;
            return;
        }
        flow->got++;
        flow->seen[(intptr_t)out]++;
        if (heist_queue_task_done(flow->queue) != 0) flow->bad++;
    }
}

static int put_task(void *arg, void **out) {
    (void)out;
    put_all(arg);
    return 0;
}

static int get_task(void *arg, void **out) {
    (void)out;
    get_all(arg);
    return 0;
}

static void *put_thread(void *arg) {
    put_all(arg);
    return NULL;
}

static void *get_thread(void *arg) {
    get_all(arg);
    return NULL;
}

static void every_item_is_seen_once_then_join_returns_Q_13_Q_14(void **state) {
    (void)state;
    static const long long sizes[] = {1, 7, 0};
    for (int k = 0; k < 3; k++) {
        heist_runtime *one = harness_runtime(0), *two = harness_runtime(0);
        static struct flow flow;
        memset(&flow, 0, sizeof(flow));
        flow.queue = new_queue(sizes[k]);
        heist_task *tasks[2 * PAIRS];
        int bad = 0;
        for (int i = 0; i < PAIRS; i++) {
            heist_runtime *from = i % 2 ? one : two, *to = i % 2 ? two : one;
            assert_int_equal(heist_runtime_run_coroutine(from, put_task, &flow, NULL, &tasks[2 * i]), 0);
            assert_int_equal(heist_runtime_run_coroutine(to, get_task, &flow, NULL, &tasks[2 * i + 1]), 0);
        }
        pthread_t putter = harness_thread(put_thread, &flow), getter = harness_thread(get_thread, &flow);
        for (int i = 0; i < 2 * PAIRS; i += 2)
            if (heist_await(tasks[i], NULL) != 0) bad++;
        harness_join(putter);
        int joined = heist_queue_join(flow.queue);
        long got = flow.got;
        int shut = heist_queue_shutdown(flow.queue, 0);
        for (int i = 0; i < 2 * PAIRS; i++) {
            if (heist_await(tasks[i], NULL) != 0) bad++;
            heist_unref(tasks[i]);
        }
        harness_join(getter);
        harness_runtime_end(one);
        harness_runtime_end(two);
        heist_queue_unref(flow.queue);
        assert_int_equal(bad, 0);
        assert_int_equal(joined, 0);
        assert_int_equal(shut, 0);
        assert_int_equal(flow.bad, 0);
        assert_int_equal(flow.put, (PAIRS + 1) * EACH);
        assert_int_equal(got, flow.put); /* all before the join returned */
        for (int i = 0; i < (PAIRS + 1) * EACH; i++) assert_int_equal(flow.seen[i], 1);
    }
}

/* ---- what is missing: memory, and the parent ---- */

static void growing_without_memory_leaves_the_item_with_the_caller(void **state) {
    (void)state;
    heist_queue *q = (void *)items;
    harness_fail_allocation(1, false);
    assert_int_equal(heist_queue_new(5, NULL, &q), -ENOMEM);
    harness_fail_allocation(2, false);
    assert_int_equal(heist_queue_new(5, NULL, &q), -ENOMEM);
    harness_fail_allocation(0, false);
    assert_ptr_equal(q, items);
    static const unsigned orders[] = {HEIST_QUEUE_FIFO, HEIST_QUEUE_LIFO, HEIST_QUEUE_PRIORITY};
    static struct job jobs[200];
    for (int k = 0; k < 3; k++) {
        q = new_ordered(0, orders[k], k == 2 ? by_rank : NULL, NULL);
        size_t in = 0;
        int refused = 0;
        for (int i = 0; i < 200; i++) {
            harness_fail_allocation(1, true); /* from here on there is none */
            int err = heist_queue_put_nowait(q, &jobs[in]);
            harness_fail_allocation(0, false);
            if (err == -ENOMEM) {
                refused++;
                assert_int_equal(heist_queue_qsize(q), in);
                err = heist_queue_put_nowait(q, &jobs[in]);
            }
            assert_int_equal(err, 0);
            in++;
        }
        assert_true(refused >= 2);
        for (size_t i = 0; i < in; i++) { /* all ranks are equal */
            void *out = NULL;
            assert_int_equal(heist_queue_get_nowait(q, &out), 0);
            assert_ptr_equal(out, k == 1 ? &jobs[in - 1 - i] : &jobs[i]);
        }
        heist_queue_unref(q);
    }
}

static int try_in_child(heist_queue *q) {
    heist_queue *other = NULL;
    void *out = NULL;
    return (heist_queue_put(q, NULL) != HEIST_EFORKED) + (heist_queue_get(q, &out) != HEIST_EFORKED) +
           (heist_queue_put_nowait(q, NULL) != HEIST_EFORKED) + (heist_queue_get_nowait(q, &out) != HEIST_EFORKED) +
           (heist_queue_join(q) != HEIST_EFORKED) + (heist_queue_task_done(q) != HEIST_EFORKED) +
           (heist_queue_shutdown(q, HEIST_QUEUE_IMMEDIATE) != HEIST_EFORKED) +
           (heist_queue_new(1, NULL, &other) != HEIST_EFORKED) + (heist_queue_qsize(q) != 0);
}

static void the_child_of_a_fork_is_refused(void **state) {
    (void)state;
    heist_queue *q = new_queue(4);
    int ends[2], wrong = -1;
    assert_int_equal(heist_queue_put_nowait(q, &items[0]), 0);
    assert_int_equal(pipe(ends), 0);
    fflush(stdout);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        alarm(60);
        wrong = try_in_child(q);
        _exit(write(ends[1], &wrong, sizeof wrong) == sizeof wrong ? 0 : 1);
    }
    close(ends[1]);
    if (read(ends[0], &wrong, sizeof wrong) != sizeof wrong) wrong = -1;
    close(ends[0]);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_int_equal(wrong, 0);
    assert_int_equal(heist_queue_qsize(q), 1);
    heist_queue_unref(q);
}

static const struct CMUnitTest tests[] = {
    API_TEST(items_come_out_in_the_order_they_went_in_Q_01),
    API_TEST(zero_or_less_is_without_bound_Q_02),
    API_TEST(no_wait_means_at_once_or_again_Q_05),
    API_TEST(smallest_comes_first_and_equals_in_order_Q_09),
    API_TEST(newest_comes_first_Q_10),
    API_TEST(bad_arguments_are_refused),
    API_TEST(getters_are_served_in_order_Q_03),
    API_TEST(putters_are_served_in_order_Q_04),
    API_TEST(putters_of_a_full_priority_queue_come_out_by_rank_Q_09),
    API_TEST(cancelled_waiters_leave_the_queue_as_it_was_Q_06),
    API_TEST(deadlines_end_the_waiting_Q_06),
    API_TEST(join_waits_until_each_item_is_done_Q_07),
    API_TEST(more_done_than_put_is_refused_Q_08),
    API_TEST(shutdown_drains_and_turns_waiters_away_Q_11),
    API_TEST(immediate_shutdown_drops_what_is_left_Q_12),
    API_TEST(last_unref_frees_what_is_left),
    API_TEST(a_get_that_would_hold_the_loop_is_refused_and_reported_Q_18),
    API_TEST(waits_are_the_same_where_locks_are_watched),
    API_TEST(a_plain_thread_blocks_until_an_item_comes_Q_15),
    API_TEST(a_plain_thread_need_not_wait_Q_16),
    API_TEST(a_plain_threads_get_ends_at_its_deadline_Q_17),
    API_TEST(every_item_is_seen_once_then_join_returns_Q_13_Q_14),
    API_TEST(growing_without_memory_leaves_the_item_with_the_caller),
    API_TEST(the_child_of_a_fork_is_refused),
};

int main(void) { return HARNESS_MAIN("queue", tests); }
