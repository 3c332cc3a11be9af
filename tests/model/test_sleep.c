/* Falling asleep against being needed: a loop that stands alone, and workers that search
 * and sleep by the protocol of src/sched/README.md.
 *
 * Time stands still: no sentinel and no time-out comes to anybody's help, so a submission
 * that wakes nobody leaves the case with nobody who can go on. */
#include <heist/error.h>
#include <heist/executor.h>
#include <heist/future.h>
#include <heist/loop.h>
#include <string.h>

#include "model/played.h"

static heist_loop *loop;
static heist_future *f;
static int ran[4], order[4], ran_count, value;

static void reset(void) {
    memset(ran, 0, sizeof(ran));
    memset(order, 0, sizeof(order));
    ran_count = value = 0;
    loop = NULL;
    f = NULL;
    rt = NULL;
}

/* ---- one loop, one thread that runs it ---- */

static void setup_loop(void) {
    reset();
    model_assert(heist_loop_new(NULL, &loop) == 0);
}
static void setup_loop_future(void) {
    setup_loop();
    model_assert(heist_future_new(loop, &f) == 0);
    heist_ref(f);
}

static int run(void *arg) {
    int i = (int)(intptr_t)arg;
    ran[i]++;
    order[ran_count++] = i;
    return 0;
}
static int run_and_stop(void *arg) {
    run(arg);
    model_assert(heist_loop_stop(loop) == 0);
    return 0;
}

static void soon(heist_callback_fn fn, intptr_t i) {
    model_assert(heist_loop_call_soon_threadsafe(loop, fn, (void *)i, NULL, NULL) == 0);
}
static void runs_forever(void) { model_assert(heist_loop_run_forever(loop) == 0); }
static void submits(void) { soon(run_and_stop, 0); }
static void submits_two(void) { soon(run, 0), soon(run_and_stop, 1); }
static void submits_other(void) { soon(run, 2); }
static void stops(void) { model_assert(heist_loop_stop(loop) == 0); }
static void completes(void) {
    value = 7;
    model_assert(heist_future_set_result(f, &value, NULL) == 0);
    heist_unref(f);
}
static void runs_until_complete(void) {
    void *p = NULL;
    model_assert(heist_loop_run_until_complete(loop, f, &p) == 0);
    model_assert(p == &value && value == 7);
}
static bool readable(void *fd) { return model_readable((int)(intptr_t)fd); }
/* Driven from outside: run_once, then a wait for the loop's descriptor for as long as it said. */
static void drives(void) {
    double left;
    int rc;
    while ((rc = heist_loop_run_once(loop, &left)) == 0) {
        if (left == 0) continue;
        model_wait(readable, (void *)(intptr_t)heist_loop_fd(loop), "the loop's descriptor");
    }
    model_assert(rc == 1);
}

static void close_loop(void) {
    if (f) heist_unref(f);
    model_assert(heist_loop_close(loop) == 0);
    heist_loop_unref(loop);
}
static void check_ran_0(void) {
    model_assert(ran[0] == 1);
    close_loop();
}
static void check_two(void) {
    model_assert(ran[0] == 1 && ran[1] == 1 && ran[2] <= 1);
    model_assert(order[0] != 1 && (order[1] != 0 || order[0] == 2)); /* 0 before 1 */
    close_loop();
}
static void check_stopped(void) {
    model_assert(ran[2] <= 1);
    close_loop();
}

/* ---- workers ---- */

static int to_run; /* jobs whose end stops the workers */
static _Atomic(int) left_to_run;

static void setup_workers(int workers, int jobs) {
    reset();
    to_run = jobs;
    a_store_sc(&left_to_run, jobs);
    played_make(workers);
}
static void setup_1_1(void) { setup_workers(1, 1); }
static void setup_1_2(void) { setup_workers(1, 2); }
static void setup_2_1(void) { setup_workers(2, 1); }
static void setup_2_2(void) { setup_workers(2, 2); }
static void setup_2_3(void) { setup_workers(2, 3); }
static void setup_2_4(void) { setup_workers(2, 4); }

/* The last job stops all, as shutdown.c does: the flag that a sleeper looks at, then the wakes. */
static void one_less(void) {
    if (a_sub_sc(&left_to_run, 1) != 1) return;
    a_store_sc(&rt->stopping, 1);
    for (int i = 0; i < rt->workers; i++) heist__loop_wake(rt->worker[i]->loop);
}
static int body(void *arg, void **out) {
    (void)out;
    ran[(intptr_t)arg]++;
    one_less();
    return 0;
}
static int callback(void *arg) {
    ran[(intptr_t)arg]++;
    one_less();
    return 0;
}
static int spawns_three(void *arg, void **out) {
    for (intptr_t i = 1; i < 4; i++) model_assert(heist_create_task_at("case", 1, body, (void *)i, NULL, NULL) == 0);
    return body(arg, out);
}

/* worker.c's run, without the close. */
static void work(int i) {
    struct heist__worker *w = rt->worker[i];
    heist__worker_enter(w);
    while (!a_load_sc(&rt->stopping))
        if (!heist__worker_turn(w, 0) && !a_load_sc(&rt->stopping) && !heist__search(w)) heist__sleep(w);
    if (w->searching) heist__search_ended(w);
    heist__worker_leave(w);
}
/* It stands announced, and gets up before anybody took its sleep. */
static void setup_announced(void) {
    setup_1_2();
    heist__worker_enter(rt->worker[0]);
    heist__loop_announce(rt->worker[0]->loop);
    heist__worker_leave(rt->worker[0]);
}
static void gets_up(void) {
    heist__worker_enter(rt->worker[0]);
    int was = heist__loop_unannounce(rt->worker[0]->loop);
    if (was == HEIST__TO_SEARCH) rt->worker[0]->searching = true;
    heist__worker_leave(rt->worker[0]);
    work(0);
}
static void worker_0(void) { work(0); }
/* Two tasks more than it runs next: while it calls a searcher the other may not search, and must not spin. */
static void makes_three(void) {
    heist__worker_enter(rt->worker[0]);
    for (intptr_t i = 0; i < 3; i++) model_assert(heist_create_task_at("case", 1, body, (void *)i, NULL, NULL) == 0);
    heist__worker_leave(rt->worker[0]);
    work(0);
}
static void worker_1(void) { work(1); }

/* A task that stands behind a blocking section, which ends only when another worker has run it. */
static bool behind_ran(void *arg) {
    (void)arg;
    return ran[0];
}
static void blocks(void) {
    heist__worker_enter(rt->worker[0]);
    model_assert(heist_create_task_at("case", 1, body, (void *)0, NULL, NULL) == 0);
    model_assert(heist_blocking_begin() == 0);
    model_wait(behind_ran, NULL, "the task behind the section");
    model_assert(heist_blocking_end() == 0);
    model_assert(!a_load_sc(&rt->blocked) && !a_load_sc(&rt->worker[0]->blocked));
    ran[1]++;
    one_less();
    heist__worker_leave(rt->worker[0]);
    work(0);
}

static void spawn(heist_coro_fn fn, intptr_t i) {
    model_assert(heist_runtime_run_coroutine_at("case", 1, rt, fn, (void *)i, NULL, NULL) == 0);
}
static void injects_0(void) { spawn(body, 0); }
static void injects_1(void) { spawn(body, 1); }
static void injects_2(void) { spawn(body, 0), spawn(body, 1); }
static void injects_tree(void) { spawn(spawns_three, 0); }
static void injects_third(void) { spawn(body, 2); }
static void posts_0(void) {
    model_assert(heist_loop_call_soon(heist_runtime_loop(rt, 0), callback, (void *)(intptr_t)0, NULL, NULL) == 0);
}
static void posts_to_second(void) {
    model_assert(heist_loop_call_soon(heist_runtime_loop(rt, 1), callback, (void *)(intptr_t)1, NULL, NULL) == 0);
}

static void check_workers(void) {
    for (int i = 0; i < 4; i++) model_assert(ran[i] == (i < to_run));
    model_assert(a_load_sc(&rt->sleepers) == 0);
    model_assert(a_load_sc(&rt->searching) == 0);
    model_assert(a_load_sc(&rt->sentinels) == 0);
    played_end();
}

int main(int argc, char **argv) {
    static const struct model_case cases[] = {
        {"a callback against falling asleep", setup_loop, {runs_forever, submits}, check_ran_0, {2, 1}, {4, 2}, true},
        {"two submitters, order of each",
         setup_loop,
         {runs_forever, submits_two, submits_other},
         check_two,
         {1, 1},
         {2, 1},
         true},
        {"stop against falling asleep",
         setup_loop,
         {runs_forever, stops, submits_other},
         check_stopped,
         {2, 0},
         {3, 0},
         true},
        {"completion against falling asleep",
         setup_loop_future,
         {runs_until_complete, completes},
         close_loop,
         {2, 1},
         {3, 2},
         true},
        {"a loop that is driven from outside", setup_loop, {drives, submits}, check_ran_0, {2, 1}, {3, 2}, true},
        {"one worker, one task", setup_1_1, {worker_0, injects_0}, check_workers, {3, 0}, {4, 1}, true},
        {"a sleeper that gets up by itself",
         setup_announced,
         {gets_up, injects_0, injects_1},
         check_workers,
         {1, 0},
         {2, 0},
         true},
        {"one worker, two from outside",
         setup_1_2,
         {worker_0, injects_0, injects_1},
         check_workers,
         {1, 0},
         {2, 0},
         true},
        {"one worker, a task and a callback",
         setup_1_2,
         {worker_0, posts_0, injects_1},
         check_workers,
         {1, 0},
         {2, 0},
         true},
        {"two workers, one task", setup_2_1, {worker_0, worker_1, injects_0}, check_workers, {1, 1}, {2, 0}, true},
        {"two workers, two tasks", setup_2_2, {worker_0, worker_1, injects_2}, check_workers, {1, 0}, {1, 1}, true},
        {"two workers, two from outside",
         setup_2_2,
         {worker_0, worker_1, injects_0, injects_1},
         check_workers,
         {0, 1},
         {1, 0},
         true},
        {"two workers, a callback to each",
         setup_2_2,
         {worker_0, worker_1, posts_0, posts_to_second},
         check_workers,
         {0, 1},
         {1, 0},
         true},
        {"two workers, a surplus", setup_2_3, {makes_three, worker_1}, check_workers, {2, 0}, {3, 0}, true},
        {"two workers, a blocking section", setup_2_2, {blocks, worker_1}, check_workers, {2, 1}, {3, 2}, true},
        {"two workers, a section and one from outside",
         setup_2_3,
         {blocks, worker_1, injects_third},
         check_workers,
         {1, 0},
         {2, 0},
         true},
        {"two workers, a tree", setup_2_4, {worker_0, worker_1, injects_tree}, check_workers, {1, 0}, {1, 1}, true},
    };
    return model_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
