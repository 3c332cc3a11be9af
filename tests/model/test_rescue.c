/* The rescue of a stuck worker's loop against its owner, who may come back at any moment:
 * each due timer fires once, callbacks stay on their loop and in the order of their
 * deadlines, each wait is ended by one, and no wake-up edge is lost.
 *
 * Thread 0 plays the owner of loop 0, thread 1 a worker that rescues it. */
#include <errno.h>
#include <heist/error.h>
#include <heist/future.h>
#include <heist/loop.h>
#include <heist/timeout.h>
#include <string.h>
#include <time.h>

#include "model/played.h"

static int ran[4], order[4], ran_count, cancelled[4], ended, timed_out, got, value, freed[4];
static heist_handle *handle[4];
static heist_future *f;
static heist_task *task;

static void count_free(void *arg) { freed[(intptr_t)arg]++; }
static int callback(void *arg) {
    int i = (int)(intptr_t)arg;
    /* Callbacks stay with their loop: only the owner's thread writes here, plainly. */
    model_assert(heist__self()->worker == rt->worker[0]);
    ran[i]++;
    order[ran_count++] = i;
    return 0;
}

static void make(void) {
    memset(ran, 0, sizeof(ran));
    memset(order, 0, sizeof(order));
    memset(cancelled, 0, sizeof(cancelled));
    memset(freed, 0, sizeof(freed));
    memset(handle, 0, sizeof(handle));
    ran_count = ended = timed_out = got = value = 0;
    f = NULL;
    task = NULL;
    played_make(2);
}

static double at_ns(int64_t ns) { return (double)ns / 1e9; }

/* n callbacks at rising deadlines, armed in loop 0. */
static void with_timers(int n, int64_t first_ns, int64_t apart_ns) {
    make();
    heist_call_options o = HEIST_CALL_OPTIONS_INIT;
    o.arg_free = count_free;
    for (int i = 0; i < n; i++)
        model_assert(heist_loop_call_at(rt->worker[0]->loop, at_ns(first_ns + i * apart_ns), callback,
                                        (void *)(intptr_t)i, &o, &handle[i]) == 0);
    heist__worker_enter(rt->worker[0]);
    heist__loop_take_inbox(rt->worker[0]->loop);
    heist__loop_run_ready(rt->worker[0]->loop); /* arms them */
    heist__worker_leave(rt->worker[0]);
}
/* Due already. */
static void setup_1(void) { with_timers(1, 1000, 1); }
static void setup_2(void) { with_timers(2, 1000, 1); }
static void setup_3(void) { with_timers(3, 1000, 1); }
/* Equal deadlines run in the order of their making, also when a rescuer takes them out in two batches. */
static void setup_equal(void) { with_timers(3, 1000, 0); }
/* Due one after the other, as the clock is read. */
static void setup_rising(void) { with_timers(3, model_now_ns() + 150000, 25000); }

static void owner_turns_often(void) {
    struct heist__worker *w = rt->worker[0];
    heist__worker_enter(w);
    for (int i = 0; i < 8; i++) heist__worker_turn(w, 0);
    heist__worker_leave(w);
}
static void owner_turns(void) {
    struct heist__worker *w = rt->worker[0];
    heist__worker_enter(w);
    heist__worker_turn(w, 0);
    heist__worker_turn(w, 0);
    heist__worker_leave(w);
}
static void rescue(int times) {
    struct heist__worker *w = rt->worker[1];
    heist__worker_enter(w);
    w->polling = true;
    for (int i = 0; i < times; i++) heist__loop_rescue(rt->worker[0]->loop);
    w->polling = false;
    heist__worker_leave(w);
}
static void rescues_often(void) { rescue(6); }
static void rescues(void) { rescue(1); }
static void rescues_twice(void) { rescue(2); }
static void cancels_0(void) { cancelled[0] = heist_handle_cancel(handle[0]); }
static void cancels_1(void) { cancelled[1] = heist_handle_cancel(handle[1]); }
static void submits_late(void) {
    model_assert(heist_loop_call_soon_threadsafe(rt->worker[0]->loop, callback, (void *)(intptr_t)3, NULL, NULL) == 0);
}

static void check_timers(void) {
    /* What stands in the inbox yet, run by the owner. */
    heist__worker_enter(rt->worker[0]);
    for (int i = 0; i < 20; i++) heist__worker_turn(rt->worker[0], 0);
    heist__worker_leave(rt->worker[0]);
    int last = -1;
    for (int i = 0; i < ran_count; i++)
        if (order[i] != 3) {
            model_assert(order[i] > last);
            last = order[i];
        }
    for (int i = 0; i < 4; i++) {
        model_assert(ran[i] <= 1);
        if (!handle[i]) continue;
        model_assert(ran[i] + cancelled[i] == 1 && freed[i] == 1);
        heist_handle_unref(handle[i]);
    }
    played_end();
}

/* ---- waits ---- */

static int sleeps(void *arg, void **out) {
    (void)arg, (void)out;
    model_assert(heist_sleep(0.001) == 0);
    ended++;
    return 0;
}
static int awaits_until(void *arg, void **out) {
    (void)arg, (void)out;
    void *p = NULL;
    int rc = heist_await_until(f, at_ns(model_now_ns() + 1000000), &p);
    timed_out = rc == -ETIMEDOUT;
    got = rc == 0;
    model_assert(timed_out + got == 1);
    if (got) model_assert(*(int *)p == 7);
    ended++;
    return 0;
}

/* Due before it is armed: a rescuer finds it in the store while its waiter is on its way to the park. */
static int awaits_past(void *arg, void **out) {
    (void)arg, (void)out;
    void *p = NULL;
    int rc = heist_await_until(f, at_ns(model_now_ns() - 1000), &p);
    timed_out = rc == -ETIMEDOUT;
    got = rc == 0;
    model_assert(timed_out + got == 1);
    if (got) model_assert(*(int *)p == 7);
    model_assert(heist_yield() == 0);
    ended++;
    return 0;
}

/* A block with a deadline, left while the alarm rings on another worker.  The scope is written over at once, and of
 * the request nothing is left, whether it was delivered, in the air, or not yet made. */
static int leaves_a_block(void *arg, void **out) {
    (void)arg, (void)out;
    heist_timeout t = HEIST_TIMEOUT_INIT;
    model_assert(heist_timeout_enter(&t, 0.001) == 0);
    void *p = NULL;
    int rc = heist_await_until(f, HEIST_FOREVER, &p);
    int turned = heist_timeout_exit(&t, rc);
    timed_out = turned == -ETIMEDOUT;
    got = turned == 0;
    model_assert(timed_out + got == 1 && (timed_out ? rc == -ECANCELED : rc == 0));
    if (timed_out) model_assert(heist_timeout_expired(&t) == 1);
    memset(&t, 0x55, sizeof t);
    model_assert(heist_cancelling(heist_current_task()) == 0);
    model_assert(heist_yield() == 0);
    ended++;
    return 0;
}

static void with_task(heist_coro_fn fn) {
    make();
    model_assert(heist_future_new(NULL, &f) == 0);
    model_assert(heist_runtime_run_coroutine_at("case", 1, rt, fn, NULL, NULL, &task) == 0);
}
static void setup_sleeper(void) { with_task(sleeps); }
static void setup_past(void) { with_task(awaits_past), heist_ref(f); }
static void setup_block(void) { with_task(leaves_a_block), heist_ref(f); }
static void setup_waiter(void) { with_task(awaits_until), heist_ref(f); }

/* A worker without sleep; thread 0's is the one that takes the task first. */
static void work(int i) {
    struct heist__worker *w = rt->worker[i];
    heist__worker_enter(w);
    while (heist__live_tasks(rt)) {
        bool ran_some = heist__worker_turn(w, 0);
        if (i == 1) {
            w->polling = true;
            ran_some |= heist__loop_rescue(rt->worker[0]->loop);
            w->polling = false;
        }
        if (ran_some || !heist__live_tasks(rt)) continue;
        const struct timespec moment = {0, 400000};
        nanosleep(&moment, NULL);
    }
    heist__worker_leave(w);
}
static void owner_works(void) { work(0); }
static void rescuer_works(void) { work(1); }
/* Before the owner, who wakes up at 0.8 ms and at 1.2 ms. */
static void rescues_at_the_deadline(void) {
    const struct timespec moment = {0, 1100000};
    nanosleep(&moment, NULL);
    work(1);
}
static void completes(void) {
    value = 7;
    model_assert(heist_future_set_result(f, &value, NULL) == 0);
    heist_unref(f);
}
static void check_wait(void) {
    model_assert(ended == 1 && heist_future_done(task) == 1);
    model_assert(heist__timers_count(&rt->worker[0]->loop->timers) == 0);
    model_assert(heist__timers_count(&rt->worker[1]->loop->timers) == 0);
    heist_unref(task);
    heist_unref(f);
    played_end();
}

static void check_alone(void) {
    model_assert(timed_out);
    heist_unref(f);
    check_wait();
}

/* ---- the edge ---- */

/* The owner falls asleep, in its poll set, while the rescuer looks there and somebody submits. */
static void owner_sleeps(void) {
    struct heist__worker *w = rt->worker[0];
    heist__worker_enter(w);
    while (!ran[3])
        if (!heist__worker_turn(w, 0)) heist__sleep(w);
    heist__worker_leave(w);
}
static void setup_edge(void) {
    make();
    a_store_sc(&rt->worker[0]->loop->watched, 1); /* so that a rescue polls */
}
static void check_edge(void) {
    model_assert(ran[3] == 1);
    a_store_sc(&rt->worker[0]->loop->watched, 0);
    played_end();
}

int main(int argc, char **argv) {
    static const struct model_case cases[] = {
        {"one timer", setup_1, {owner_turns, rescues}, check_timers, {3, 1}, {4, 2}, true},
        {"three timers keep their order", setup_3, {owner_turns, rescues_twice}, check_timers, {2, 1}, {3, 1}, true},
        {"three timers of one instant", setup_equal, {owner_turns, rescues}, check_timers, {2, 1}, {3, 1}, true},
        {"timers that fall due one by one",
         setup_rising,
         {owner_turns_often, rescues_often},
         check_timers,
         {2, 0},
         {3, 0},
         true},
        {"a cancel between", setup_2, {owner_turns, rescues, cancels_0}, check_timers, {2, 0}, {3, 0}, true},
        {"a cancel of the second, and a submission",
         setup_2,
         {owner_turns, rescues, cancels_1, submits_late},
         check_timers,
         {1, 0},
         {2, 0},
         true},
        {"a sleeper", setup_sleeper, {owner_works, rescuer_works}, check_wait, {1, 0}, {2, 0}, false},
        {"a deadline against completion",
         setup_waiter,
         {owner_works, rescuer_works, completes},
         check_wait,
         {1, 0},
         {1, 1},
         false},
        {"a deadline that is past already",
         setup_past,
         {owner_works, rescuer_works, completes},
         check_wait,
         {1, 1},
         {2, 0},
         false},
        {"a deadline that is past, and nothing else",
         setup_past,
         {owner_works, rescuer_works},
         check_alone,
         {2, 0},
         {3, 0},
         false},
        {"a block with a deadline is left",
         setup_block,
         {owner_works, rescues_at_the_deadline, completes},
         check_wait,
         {2, 0},
         {3, 0},
         false},
        {"the edge of a wake-up",
         setup_edge,
         {owner_sleeps, rescues_twice, submits_late},
         check_edge,
         {2, 0},
         {3, 0},
         true},
    };
    return model_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
