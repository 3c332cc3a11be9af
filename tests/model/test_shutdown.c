/* Stop against submit: whatever is handed in while a runtime or a loop closes is run once,
 * or cancelled, or refused, and the caller knows which; nothing is left, nobody waits.
 *
 * The runtime is whole: its workers are threads that it starts, in their own main loop.
 * Time stands still: nothing is saved by a time-out. */
#include <errno.h>
#include <heist/error.h>
#include <heist/future.h>
#include <heist/loop.h>
#include <heist/runtime.h>
#include <heist/task.h>
#include <string.h>

#include "model/model.h"

static heist_runtime *rt;
static heist_loop *loop;
static heist_task *task[3];
#define NOT_ASKED 1
static int answer[3], ran[3], freed[3], ended[3];

static void reset(void) {
    memset(task, 0, sizeof(task));
    for (int i = 0; i < 3; i++) answer[i] = NOT_ASKED;
    memset(ran, 0, sizeof(ran));
    memset(freed, 0, sizeof(freed));
    memset(ended, 0, sizeof(ended));
    rt = NULL;
    loop = NULL;
}

static void make(int workers) {
    reset();
    heist_runtime_options o = HEIST_RUNTIME_OPTIONS_INIT;
    o.workers = workers;
    o.stack_bytes = 16 << 10;
    model_assert(heist_runtime_new(&o, &rt) == 0);
}
static void make_1(void) { make(1); }
static void make_2(void) { make(2); }

static int number(void *arg) { return (int)(intptr_t)arg; }
static void free_arg(void *arg) { freed[number(arg)]++; }

/* ---- what is submitted ---- */

static int body(void *arg, void **out) {
    (void)out;
    ran[number(arg)]++;
    return 0;
}
/* Waits for what never comes: only the close ends it. */
static int waits_for_ever(void *arg, void **out) {
    (void)out;
    ran[number(arg)]++;
    heist_future *never;
    if (heist_future_new(NULL, &never)) return -ENOMEM;
    int rc = heist_await(never, NULL);
    model_assert(rc == -ECANCELED);
    heist_unref(never);
    ended[number(arg)] = 1;
    return rc;
}
static heist_future *f;
static int value;
static int awaits_f(void *arg, void **out) {
    ran[number(arg)]++;
    return heist_await(f, out);
}

/* Cleans up by another task, which is refused or run. */
static int spawns_at_the_end(void *arg, void **out) {
    int rc = waits_for_ever(arg, out);
    heist_task_options o = HEIST_TASK_OPTIONS_INIT;
    o.arg_free = free_arg;
    answer[2] = heist_create_task_at("case", 1, body, (void *)(intptr_t)2, &o, NULL);
    model_assert(answer[2] == 0 || answer[2] == HEIST_ECLOSED);
    return rc;
}
/* Makes another while the close walks over those that there are. */
static int spawns_waiting_one(void *arg, void **out) {
    (void)out;
    ran[number(arg)]++;
    heist_task_options o = HEIST_TASK_OPTIONS_INIT;
    o.arg_free = free_arg;
    answer[2] = heist_create_task_at("case", 1, waits_for_ever, (void *)(intptr_t)2, &o, NULL);
    model_assert(answer[2] == 0 || answer[2] == HEIST_ECLOSED);
    return 0;
}
static int callback(void *arg) {
    ran[number(arg)]++;
    return 0;
}

static void spawn(int i, heist_coro_fn fn, heist_task **out) {
    heist_task_options o = HEIST_TASK_OPTIONS_INIT;
    o.arg_free = free_arg;
    answer[i] = heist_runtime_run_coroutine_at("case", 1, rt, fn, (void *)(intptr_t)i, &o, out);
    model_assert(answer[i] == 0 || answer[i] == HEIST_ECLOSED);
}
static void post(int i, heist_loop *to) {
    heist_call_options o = HEIST_CALL_OPTIONS_INIT;
    o.arg_free = free_arg;
    answer[i] = heist_loop_call_soon_threadsafe(to, callback, (void *)(intptr_t)i, &o, NULL);
    model_assert(answer[i] == 0 || answer[i] == HEIST_ECLOSED);
}

static void let_go(void) { heist_runtime_unref(rt); }
static void spawns_0(void) { spawn(0, body, NULL), let_go(); }
static void spawns_1(void) { spawn(1, body, NULL), let_go(); }
static void spawns_waiting(void) { spawn(0, waits_for_ever, NULL), let_go(); }
static void spawns_parent(void) { spawn(0, spawns_waiting_one, NULL), let_go(); }
static void spawns_spawning(void) { spawn(0, spawns_at_the_end, NULL), let_go(); }
/* The future of a task outlives its runtime: the answer comes in any case. */
static void spawns_and_awaits(void) {
    spawn(0, body, &task[0]);
    if (!answer[0]) {
        int rc = heist_await(task[0], NULL);
        model_assert(rc == 0 || rc == -ECANCELED);
        model_assert((rc == 0) == (ran[0] == 1));
        heist_unref(task[0]);
    }
    let_go();
}
static void posts_0(void) { post(0, heist_runtime_loop(rt, 0)), let_go(); }
static void posts_1(void) { post(1, heist_runtime_loop(rt, 0)), let_go(); }

static void closes(void) {
    model_assert(heist_runtime_close(rt, HEIST_FOREVER) == 0);
    let_go();
}
/* The last user's unref is the close. */
static void abandons(void) { let_go(); }

static void hold(int users) {
    for (int i = 1; i < users; i++) heist_runtime_ref(rt);
}
static void setup_1_held_by_2(void) { make_1(), hold(2); }
static void setup_1_held_by_3(void) { make_1(), hold(3); }
static void setup_2_held_by_2(void) { make_2(), hold(2); }

/* Who completes what a task awaits holds no reference to the task's runtime. */
static void setup_waker(void) {
    make_1();
    model_assert(heist_future_new(NULL, &f) == 0);
    heist_ref(f);
    spawn(0, awaits_f, NULL);
}
static void completes(void) {
    heist_future_set_result(f, &value, NULL); /* or the close was first */
    heist_unref(f);
}
static void closes_and_lets_f_go(void) {
    closes();
    heist_unref(f);
}

/* ---- a loop that stands alone ---- */

static void setup_loop(void) {
    reset();
    model_assert(heist_loop_new(NULL, &loop) == 0);
    heist_loop_ref(loop);
}
static void posts_to_loop(void) {
    post(0, loop), post(1, loop);
    heist_loop_unref(loop);
}
static void tasks_to_loop(void) {
    heist_task_options o = HEIST_TASK_OPTIONS_INIT;
    o.arg_free = free_arg;
    answer[0] = heist_loop_create_task_at("case", 1, loop, body, (void *)(intptr_t)0, &o, NULL);
    model_assert(answer[0] == 0 || answer[0] == HEIST_ECLOSED);
    heist_loop_unref(loop);
}
static void closes_loop(void) {
    model_assert(heist_loop_close(loop) == 0);
    heist_loop_unref(loop);
}
static void stops_itself(void) {
    int stop_at = heist_loop_stop(loop); /* so that the run ends after a turn */
    model_assert(stop_at == 0 && heist_loop_run_forever(loop) == 0);
    closes_loop();
}

/* What was taken was run or not, and its argument freed once; what was refused is still the caller's. */
static void check(void) {
    for (int i = 0; i < 3; i++) {
        model_assert(ran[i] <= (answer[i] == 0) && freed[i] == (answer[i] == 0));
        if (ended[i]) model_assert(ran[i] == 1);
    }
}

int main(int argc, char **argv) {
    static const struct model_case cases[] = {
        {"a task against close", setup_1_held_by_2, {spawns_0, closes}, check, {1, 1}, {2, 0}, true},
        {"a task against close, two workers", setup_2_held_by_2, {spawns_0, closes}, check, {0, 1}, {1, 0}, true},
        {"two tasks against close", setup_1_held_by_3, {spawns_0, closes, spawns_1}, check, {0, 1}, {1, 0}, true},
        {"a task and its answer against close",
         setup_1_held_by_2,
         {spawns_and_awaits, closes},
         check,
         {1, 0},
         {1, 1},
         true},
        {"a task that waits for ever", setup_1_held_by_2, {spawns_waiting, closes}, check, {1, 1}, {1, 2}, true},
        {"a task that spawns while it is cancelled",
         setup_1_held_by_2,
         {spawns_spawning, closes},
         check,
         {1, 0},
         {2, 0},
         true},
        {"a task that is made behind the walk",
         setup_1_held_by_2,
         {spawns_parent, closes},
         check,
         {1, 0},
         {2, 0},
         true},
        {"a callback against close", setup_1_held_by_2, {posts_0, closes}, check, {1, 0}, {2, 0}, true},
        {"two callbacks against close", setup_1_held_by_3, {posts_0, closes, posts_1}, check, {0, 1}, {1, 0}, true},
        {"a task against the last reference", setup_1_held_by_2, {spawns_0, abandons}, check, {1, 0}, {2, 0}, true},
        {"a waker without a reference", setup_waker, {completes, closes_and_lets_f_go}, check, {1, 0}, {2, 0}, true},
        {"two close", setup_1_held_by_2, {closes, closes}, check, {1, 0}, {2, 0}, true},
        /* A loop's own close looks at its tasks every 10 ms. */
        {"callbacks against a loop's close", setup_loop, {posts_to_loop, closes_loop}, check, {2, 1}, {3, 2}, false},
        {"callbacks against run and close", setup_loop, {posts_to_loop, stops_itself}, check, {2, 1}, {3, 1}, false},
        {"a task against a loop's close", setup_loop, {tasks_to_loop, closes_loop}, check, {1, 1}, {2, 1}, false},
    };
    return model_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
