/* Watches: the latest value, and nothing of those between. */
#include "support/harness.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static int items[16];

static heist_watch *new_watch(void *value) {
    heist_watch *w = NULL;
    assert_int_equal(heist_watch_new(value, NULL, &w), 0);
    return w;
}

static heist_watcher *subscribe(heist_watch *w) {
    heist_watcher *r = NULL;
    assert_int_equal(heist_watch_subscribe(w, &r), 0);
    return r;
}

static heist_task *new_task(heist_loop *loop, heist_coro_fn fn, void *arg) {
    heist_task *task = NULL;
    assert_int_equal(heist_loop_create_task(loop, fn, arg, NULL, &task), 0);
    return task;
}

static void a_watcher_sees_the_latest_once(void **state) {
    (void)state;
    heist_watch *w = new_watch(&items[0]);
    heist_watcher *r = subscribe(w);
    void *out = &items[9];
    uint64_t version = 77;
    assert_int_equal(heist_watch_get(w, &out, &version), 0);
    assert_ptr_equal(out, &items[0]);
    assert_int_equal(version, 0);
    assert_int_equal(heist_watcher_try_changed(r, &out), -EAGAIN); /* the one of its birth it has seen */
    for (int i = 1; i < 4; i++) assert_int_equal(heist_watch_set(w, &items[i]), 0);
    assert_int_equal(heist_watcher_changed(r, &out), 0);
    assert_ptr_equal(out, &items[3]);
    assert_int_equal(heist_watcher_try_changed(r, &out), -EAGAIN);
    assert_int_equal(heist_watcher_changed_until(r, &out, heist_time() - 1), -ETIMEDOUT);
    assert_int_equal(heist_watch_get(w, NULL, &version), 0);
    assert_int_equal(version, 3);
    assert_int_equal(heist_watch_set(w, &items[3]), 0); /* the same again is a change too */
    assert_int_equal(heist_watcher_changed(r, &out), 0);
    assert_ptr_equal(heist_watch_ref(w), w);
    assert_ptr_equal(heist_watcher_ref(r), r);
    heist_watch_unref(w);
    heist_watch_unref(w);
    heist_watcher_unref(r);
    heist_watcher_unref(r);
}

struct looker {
    heist_watcher *watcher;
    struct record *record;
    const char *word;
    void *value;
    int err;
    double deadline;
};

static int look(void *arg, void **out) {
    struct looker *l = arg;
    (void)out;
    l->err = l->deadline != 0 ? heist_watcher_changed_until(l->watcher, &l->value, l->deadline)
                              : heist_watcher_changed(l->watcher, &l->value);
    record_add(l->record, "%s:%d", l->word, l->err);
    return l->err == -ECANCELED ? l->err : 0;
}

static void a_set_wakes_one_caller_of_each_watcher(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    heist_watch *w = new_watch(NULL);
    heist_watcher *r = subscribe(w), *s = subscribe(w);
    struct looker l[3] = {
        {r, &record, "r1", NULL, 1, 0}, {r, &record, "r2", NULL, 1, 0}, {s, &record, "s1", NULL, 1, 0}};
    for (int i = 0; i < 3; i++) heist_unref(new_task(loop, look, &l[i]));
    harness_one_pass(loop);
    assert_int_equal(heist_watch_set(w, &items[1]), 0);
    harness_one_pass(loop);
    assert_string_equal(record_text(&record), "r1:0 s1:0");
    assert_int_equal(heist_watch_set(w, &items[2]), 0);
    assert_int_equal(heist_watch_set(w, &items[3]), 0);
    harness_one_pass(loop);
    assert_ptr_equal(l[0].value, &items[1]);
    assert_ptr_equal(l[1].value, &items[2]); /* what it was woken with */
    assert_ptr_equal(l[2].value, &items[1]);
    void *out = NULL;
    assert_int_equal(heist_watcher_changed(s, &out), 0);
    assert_ptr_equal(out, &items[3]);
    heist_watcher_unref(r);
    heist_watcher_unref(s);
    heist_watch_unref(w);
    harness_loop_end(loop);
}

static void cancelled_or_timed_out_a_watcher_has_seen_nothing(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    heist_watch *w = new_watch(NULL);
    heist_watcher *r = subscribe(w);
    for (int late = 0; late < 2; late++) {
        struct looker l = {r, &record, "l", NULL, 1, late ? heist_loop_time(loop) + 2 : 0};
        heist_task *task = new_task(loop, look, &l);
        harness_one_pass(loop);
        if (!late) {
            assert_int_equal(heist_cancel(task), 1);
            assert_int_equal(heist_watch_set(w, &items[4]), 0); /* before the cancelled one has run */
        }
        assert_int_equal(heist_loop_run_until_complete(loop, task, NULL), late ? 0 : -ECANCELED);
        assert_int_equal(l.err, late ? -ETIMEDOUT : -ECANCELED);
        if (late) assert_int_equal(heist_watch_set(w, &items[5]), 0);
        void *out = NULL;
        assert_int_equal(heist_watcher_changed(r, &out), 0);
        assert_ptr_equal(out, &items[4 + late]);
        heist_unref(task);
    }
    heist_watcher_unref(r);
    heist_watch_unref(w);
    harness_loop_end(loop);
}

static void close_shows_the_last_value_first(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    heist_watch *w = new_watch(NULL);
    heist_watcher *waits = subscribe(w), *behind = subscribe(w);
    struct looker l = {waits, &record, "l", NULL, 1, 0};
    void *out = NULL;
    assert_int_equal(heist_watch_set(w, &items[1]), 0);
    assert_int_equal(heist_watcher_changed(waits, &out), 0);
    heist_task *task = new_task(loop, look, &l);
    harness_one_pass(loop);
    for (int i = 0; i < 2; i++) assert_int_equal(heist_watch_close(w), 0);
    assert_int_equal(heist_loop_run_until_complete(loop, task, NULL), 0);
    assert_int_equal(l.err, HEIST_ESHUTDOWN);
    assert_int_equal(heist_watch_set(w, &items[2]), HEIST_ESHUTDOWN);
    assert_int_equal(heist_watcher_changed(behind, &out), 0);
    assert_ptr_equal(out, &items[1]);
    assert_int_equal(heist_watcher_changed(behind, &out), HEIST_ESHUTDOWN);
    assert_int_equal(heist_watch_get(w, &out, NULL), 0);
    heist_unref(task);
    heist_watcher_unref(waits);
    heist_watcher_unref(behind);
    heist_watch_unref(w);
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
    heist_watch_options opts = HEIST_WATCH_OPTIONS_INIT;
    opts.value_ref = counted_ref;
    opts.value_unref = counted_unref;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    heist_watch *w = NULL;
    ended = 0;
    assert_int_equal(heist_watch_new(counted_new(), &opts, &w), 0);
    heist_watcher *r = subscribe(w);
    void *first = NULL;
    assert_int_equal(heist_watch_get(w, &first, NULL), 0);
    assert_int_equal(heist_watch_get(w, NULL, NULL), 0);
    assert_int_equal(((struct counted *)first)->refs, 2);
    struct looker gone = {r, &record, "g", NULL, 1, 0}, waits = {r, &record, "w", NULL, 1, 0};
    heist_task *a = new_task(loop, look, &gone), *c = new_task(loop, look, &waits);
    harness_one_pass(loop);
    assert_int_equal(heist_cancel(a), 1);
    assert_int_equal(heist_watch_set(w, counted_new()), 0);
    assert_int_equal(heist_loop_run_until_complete(loop, a, NULL), -ECANCELED);
    assert_int_equal(heist_loop_run_until_complete(loop, c, NULL), 0);
    assert_int_equal(((struct counted *)waits.value)->refs, 2);
    assert_int_equal(((struct counted *)first)->refs, 1);
    counted_unref(first);
    assert_int_equal(ended, 1);
    assert_int_equal(heist_watch_set(w, counted_new()), 0);
    assert_int_equal(heist_watcher_changed(r, NULL), 0); /* seen, and given back */
    counted_unref(waits.value);
    assert_int_equal(ended, 2);
    heist_watcher_unref(r);
    heist_watch_unref(w);
    assert_int_equal(ended, 3);
    heist_unref(a);
    heist_unref(c);
    harness_loop_end(loop);
}

/* ---- contexts and bad input ---- */

static int use_in_callback(void *arg) {
    struct looker *l = arg;
    record_add(l->record, "%d", heist_watcher_changed(l->watcher, &l->value) == HEIST_ENOTINCORO);
    record_add(l->record, "%d", heist_watcher_try_changed(l->watcher, &l->value));
    return 0;
}

static void callbacks_get_the_try_form_only(void **state) {
    (void)state;
    struct record record = RECORD_INIT;
    heist_loop *loop = harness_loop();
    heist_watch *w = new_watch(NULL);
    struct looker l = {subscribe(w), &record, NULL, NULL, 0, 0};
    assert_int_equal(heist_watch_set(w, &items[0]), 0);
    assert_int_equal(heist_loop_call_soon(loop, use_in_callback, &l, NULL, NULL), 0);
    harness_one_pass(loop);
    assert_string_equal(record_text(&record), "1 0");
    heist_watcher_unref(l.watcher);
    heist_watch_unref(w);
    harness_loop_end(loop);
}

static void bad_arguments_are_refused(void **state) {
    (void)state;
    heist_watch *w = (void *)items;
    heist_watcher *r = (void *)items;
    heist_watch_options opts = HEIST_WATCH_OPTIONS_INIT;
    void *out = NULL;
    assert_int_equal(heist_watch_new(NULL, NULL, NULL), -EINVAL);
    opts.value_unref = counted_unref;
    assert_int_equal(heist_watch_new(NULL, &opts, &w), -EINVAL);
    opts.value_ref = counted_ref;
    opts.flags = 1;
    assert_int_equal(heist_watch_new(NULL, &opts, &w), -EINVAL);
    opts.flags = 0;
    opts.size = 3;
    assert_int_equal(heist_watch_new(NULL, &opts, &w), -EINVAL);
    harness_fail_allocation(1, false);
    assert_int_equal(heist_watch_new(NULL, NULL, &w), -ENOMEM);
    harness_fail_allocation(0, false);
    assert_ptr_equal(w, items);
    w = new_watch(NULL);
    harness_fail_allocation(1, false);
    assert_int_equal(heist_watch_subscribe(w, &r), -ENOMEM);
    harness_fail_allocation(0, false);
    assert_int_equal(heist_watch_subscribe(NULL, &r), -EINVAL);
    assert_int_equal(heist_watch_subscribe(w, NULL), -EINVAL);
    assert_ptr_equal(r, items);
    r = subscribe(w);
    assert_int_equal(heist_watcher_changed_until(r, &out, NAN), -EINVAL);
    assert_int_equal(heist_watcher_changed(NULL, &out), -EINVAL);
    assert_int_equal(heist_watcher_try_changed(NULL, &out), -EINVAL);
    assert_int_equal(heist_watch_set(NULL, NULL), -EINVAL);
    assert_int_equal(heist_watch_get(NULL, NULL, NULL), -EINVAL);
    assert_int_equal(heist_watch_close(NULL), -EINVAL);
    heist_watcher_unref(r);
    heist_watcher_unref(NULL);
    heist_watch_unref(NULL);
    heist_watch_unref(w);
}

static void the_child_of_a_fork_is_refused(void **state) {
    (void)state;
    heist_watch *w = new_watch(NULL);
    heist_watcher *r = subscribe(w);
    int ends[2], wrong = -1;
    assert_int_equal(pipe(ends), 0);
    fflush(stdout);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        heist_watcher *other = NULL;
        heist_watch *more = NULL;
        void *out = NULL;
        alarm(60);
        wrong = (heist_watch_set(w, NULL) != HEIST_EFORKED) + (heist_watch_get(w, &out, NULL) != HEIST_EFORKED) +
                (heist_watcher_changed(r, &out) != HEIST_EFORKED) + (heist_watch_close(w) != HEIST_EFORKED) +
                (heist_watcher_try_changed(r, &out) != HEIST_EFORKED) +
                (heist_watch_subscribe(w, &other) != HEIST_EFORKED) + (heist_watch_new(NULL, NULL, &more) != HEIST_EFORKED);
        _exit(write(ends[1], &wrong, sizeof wrong) == sizeof wrong ? 0 : 1);
    }
    close(ends[1]);
    if (read(ends[0], &wrong, sizeof wrong) != sizeof wrong) wrong = -1;
    close(ends[0]);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_int_equal(wrong, 0);
    heist_watcher_unref(r);
    heist_watch_unref(w);
}

/* ---- many watchers on two runtimes and in threads ---- */

enum { VALUES = 500, LOOKERS = 6 };

struct audience {
    heist_watch *watch;
    heist_watcher *watcher[LOOKERS];
    _Atomic(int) next, bad, ended;
};

static void watch_to_the_end(struct audience *a) {
    heist_watcher *r = a->watcher[a->next++];
    long last = 0;
    for (;;) {
        void *out = NULL;
        int err = heist_watcher_changed(r, &out);
        if (err == HEIST_ESHUTDOWN) break;
        if (err || (intptr_t)out <= last) { /* never an older one, never the same twice */
            a->bad++;
            return;
        }
        last = (intptr_t)out;
    }
    if (last == VALUES) a->ended++; /* and the last one always */
}

static int watch_task(void *arg, void **out) {
    (void)out;
    watch_to_the_end(arg);
    return 0;
}

static void *watch_thread(void *arg) {
    watch_to_the_end(arg);
    return NULL;
}

static void every_watcher_sees_the_last_value(void **state) {
    (void)state;
    heist_runtime *one = harness_runtime(0), *two = harness_runtime(0);
    struct audience a = {.watch = new_watch(NULL)};
    heist_task *tasks[LOOKERS - 2];
    pthread_t threads[2];
    int bad = 0;
    for (int i = 0; i < LOOKERS; i++) a.watcher[i] = subscribe(a.watch);
    for (int i = 0; i < LOOKERS - 2; i++)
        assert_int_equal(heist_runtime_run_coroutine(i % 2 ? one : two, watch_task, &a, NULL, &tasks[i]), 0);
    for (int i = 0; i < 2; i++) threads[i] = harness_thread(watch_thread, &a);
    for (long i = 1; i <= VALUES; i++) bad += heist_watch_set(a.watch, (void *)(intptr_t)i) != 0;
    bad += heist_watch_close(a.watch) != 0;
    for (int i = 0; i < LOOKERS - 2; i++) {
        bad += heist_await(tasks[i], NULL) != 0;
        heist_unref(tasks[i]);
    }
    for (int i = 0; i < 2; i++) harness_join(threads[i]);
    harness_runtime_end(one);
    harness_runtime_end(two);
    for (int i = 0; i < LOOKERS; i++) heist_watcher_unref(a.watcher[i]);
    heist_watch_unref(a.watch);
    assert_int_equal(bad, 0);
    assert_int_equal(a.bad, 0);
    assert_int_equal(a.ended, LOOKERS);
}

static const struct CMUnitTest tests[] = {
    API_TEST(a_watcher_sees_the_latest_once),
    API_TEST(a_set_wakes_one_caller_of_each_watcher),
    API_TEST(cancelled_or_timed_out_a_watcher_has_seen_nothing),
    API_TEST(close_shows_the_last_value_first),
    API_TEST(counted_values_live_as_long_as_anybody_has_them),
    API_TEST(callbacks_get_the_try_form_only),
    API_TEST(bad_arguments_are_refused),
    API_TEST(the_child_of_a_fork_is_refused),
    API_TEST(every_watcher_sees_the_last_value),
};

int main(void) { return HARNESS_MAIN("watch", tests); }
