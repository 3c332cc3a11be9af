/* The state of a task: cancel against completion, deadline, the end, and the last
 * reference, from the suspending call to the delivery.
 *
 * Thread 0 plays the worker: it runs the steps of the tasks, on their stacks, and what the
 * suspension commits behind them.  The others complete, cancel, and let go.
 *
 * The law of cancelling (promise 6): a request that was recorded is delivered once, by a
 * call that then took nothing; one that was not (heist_cancel said 0) is never seen. */
#include <errno.h>
#include <heist/channel.h>
#include <heist/error.h>
#include <heist/select.h>
#include <string.h>

#include "model/played.h"
#include "task/state.h"

static heist_task *task, *inner;
static heist_future *f;
static heist_channel *c;
static int value, completed, recorded, recorded_too, delivered, got, code, ended, inner_ended, sent, args_freed;
static bool deadline;
static _Atomic(int) told; /* heist_cancel has returned 1: from here on the request must come out */

static int results_freed;

static void free_arg(void *arg) { (void)arg, args_freed++; }
static void free_result(void *result) { *(int *)result = -1, results_freed++; }

static void begin(heist_coro_fn body, int extra_references) {
    value = completed = recorded = recorded_too = delivered = got = code = ended = inner_ended = sent = args_freed = 0;
    results_freed = 0;
    a_store_sc(&told, 0);
    deadline = false;
    inner = NULL;
    f = NULL;
    c = NULL;
    played_make(2);
    heist_task_options o = HEIST_TASK_OPTIONS_INIT;
    o.arg_free = free_arg;
    o.result_free = free_result;
    model_assert(heist_runtime_run_coroutine_at("case", 1, rt, body, NULL, &o, &task) == 0);
    for (int i = 0; i < extra_references; i++) heist_ref(task);
}

/* ---- the bodies ---- */

static void took(int rc) {
    if (rc == -ECANCELED) delivered++;
}

/* After what it waited for a second call, at which a request must come out that was recorded by then. */
static int last_call(int rc) {
    code = rc;
    took(rc);
    int due = a_load_sc(&told);
    took(heist_yield());
    if (due) model_assert(delivered);
    ended = 1;
    return 0;
}

static int awaits_future(void *arg, void **out) {
    (void)arg, (void)out;
    void *p = NULL;
    int rc = heist_await(f, &p);
    if (!rc) model_assert(*(int *)p == 7), got = 1;
    return last_call(rc);
}

static int awaits_until(void *arg, void **out) {
    (void)arg, (void)out;
    void *p = NULL;
    int rc = heist_await_until(f, (double)(model_now_ns() + 1000000) / 1e9, &p);
    if (!rc) model_assert(*(int *)p == 7), got = 1;
    if (rc == -ETIMEDOUT) deadline = true;
    return last_call(rc);
}

/* Parked, and only a request ends it. */
static int waits_for_ever(void *arg, void **out) {
    (void)arg, (void)out;
    return last_call(heist_await_until(f, HEIST_FOREVER, NULL));
}

static int sleeps(void *arg, void **out) {
    (void)arg, (void)out;
    return last_call(heist_sleep(0.001));
}

static int receives(void *arg, void **out) {
    (void)arg, (void)out;
    void *p = NULL;
    int rc = heist_channel_recv(c, &p);
    if (!rc) model_assert(*(int *)p == 7), got = 1;
    return last_call(rc);
}

/* Of an item and a future: which of them won, it has. */
static int selects(void *arg, void **out) {
    (void)arg, (void)out;
    heist_select_case s[] = {HEIST_CASE_RECV(c), HEIST_CASE_AWAIT(f)};
    int rc = heist_select(s, 2);
    if (rc >= 0) model_assert(s[rc].code == 0);
    if (rc == 0) model_assert(*(int *)s[0].value == 7), got = 1;
    if (rc == 1) model_assert(heist_future_done(f) == 1);
    return last_call(rc > 0 ? 0 : rc);
}

static int returns(void *arg, void **out) {
    (void)arg;
    ended = 1;
    *out = &value;
    return 0;
}

/* Its memory serves another future, at once: a canceller that still has the address meets a stranger. */
static int awaits_then_makes_another(void *arg, void **out) {
    (void)arg, (void)out;
    heist_future *mine = f, *other;
    int rc = heist_await(mine, NULL);
    heist_unref(mine);
    model_assert(heist_future_new(NULL, &other) == 0);
    model_assert(heist_future_done(other) == 0);
    heist_unref(other);
    return last_call(rc);
}

/* Futures come and go in one place, while somebody walks over all of them. */
static int makes_one_after_the_other(void *arg, void **out) {
    (void)arg, (void)out;
    heist_future *first, *second;
    model_assert(heist_future_new(NULL, &first) == 0);
    heist_unref(first);
    model_assert(heist_future_new(NULL, &second) == 0);
    int rc = heist_yield();
    model_assert(heist_future_state(second) == HEIST_PENDING);
    uint64_t references = heist__refs(a_load_rlx(&second->word));
    model_assert(references == 1 || references == 2); /* ours, and the walk's */
    model_assert(heist_future_set_result(second, &value, NULL) == 0);
    heist_unref(second);
    ended = 1;
    return rc;
}

static int awaits_for_outer(void *arg, void **out) {
    (void)arg, (void)out;
    int rc = heist_await(f, NULL);
    took(rc);
    inner_ended = 1;
    return rc;
}
/* A request goes down from the outer to what the inner awaits. */
static int awaits_task(void *arg, void **out) {
    (void)arg, (void)out;
    model_assert(heist_create_task(awaits_for_outer, NULL, NULL, &inner) == 0);
    int rc = heist_await(inner, NULL);
    model_assert(heist_future_done(inner) == 1);
    if (rc == -ECANCELED && !inner_ended) delivered++; /* it never began: the request was its end */
    heist_unref(inner);
    code = rc;
    /* (An inner that makes no further call after its await may end without having seen the request.) */
    int second = heist_yield();
    if (second) delivered++;
    ended = 1;
    return 0;
}

/* What it was asked it takes back; nobody else asks. */
static int takes_back(int rc) {
    code = rc;
    took(rc);
    if (heist_cancelling(task) == 1) {
        model_assert(heist_uncancel(task) == 0);
        model_assert(heist_yield() == 0); /* the request is gone, also one that was on its way */
    }
    ended = 1;
    return 0;
}
static int awaits_and_takes_back(void *arg, void **out) {
    (void)arg, (void)out;
    return takes_back(heist_await(f, NULL));
}
static int waits_and_takes_back(void *arg, void **out) {
    (void)arg, (void)out;
    return takes_back(heist_await_until(f, (double)(model_now_ns() + 1000000) / 1e9, NULL));
}

/* In the section nothing is delivered, after it what was held. */
static int in_a_section(void *arg, void **out) {
    (void)arg, (void)out;
    took(heist_await_until(f, (double)(model_now_ns() + 1000000) / 1e9, NULL)); /* before it one may come too */
    model_assert(heist_uncancellable_begin() == 0);
    model_assert(heist_sleep(0.001) == 0);
    model_assert(heist_yield() == 0);
    int due = a_load_sc(&told);
    model_assert(heist_uncancellable_end() == 0);
    took(heist_yield());
    if (due) model_assert(delivered == 1);
    ended = 1;
    return 0;
}

/* ---- the cases ---- */

static void with_future(heist_coro_fn body, int extra) {
    begin(body, extra);
    model_assert(heist_future_new(NULL, &f) == 0);
}
static void setup_awaits(void) { with_future(awaits_future, 1), heist_ref(f); }
static void setup_takes_back(void) { with_future(awaits_and_takes_back, 1), heist_ref(f); }
static void setup_waits_and_takes_back(void) { with_future(waits_and_takes_back, 1), heist_ref(f); }
static void setup_section(void) { with_future(in_a_section, 1), heist_ref(f); }
static void setup_never(void) { with_future(awaits_future, 1); }
static void setup_parked(void) { with_future(waits_for_ever, 1); }
static void setup_until(void) { with_future(awaits_until, 1), heist_ref(f); }
static void setup_another(void) {
    with_future(awaits_then_makes_another, 1);
    heist_ref(f);
}
static void setup_walk(void) { begin(makes_one_after_the_other, 0); }
static void setup_sleeps(void) { begin(sleeps, 1); }
static void setup_returns(void) { begin(returns, 2); }
static void setup_chain(void) { with_future(awaits_task, 1), heist_ref(f); }
static void setup_receives(void) {
    begin(receives, 1);
    model_assert(heist_channel_new(0, &c) == 0);
    heist_channel_ref(c);
}
static void setup_selects(void) {
    with_future(selects, 1);
    heist_ref(f);
    model_assert(heist_channel_new(0, &c) == 0);
    heist_channel_ref(c);
}

static bool worker_can(void *w) { return ended || played_something(w); }

/* One worker, as worker.c runs one, without the sleep. */
static void worker(void) {
    struct heist__worker *w = rt->worker[0];
    heist__worker_enter(w);
    while (heist__live_tasks(rt)) {
        bool ran = heist__worker_turn(w, 0);
        if (ran || !heist__live_tasks(rt)) continue;
        int64_t next = heist__loop_next_deadline(w->loop);
        if (next == INT64_MAX) {
            model_wait(worker_can, w, "work");
        } else {
            /* Its poll: until something comes, or the deadline. */
            struct timespec left = {0, next > model_now_ns() ? next - model_now_ns() : 0};
            nanosleep(&left, NULL);
        }
    }
    heist__worker_leave(w);
}

static void complete(void) {
    value = 7;
    completed = heist_future_set_result(f, &value, NULL) == 0;
    heist_unref(f);
}
static void cancel(void) {
    recorded = heist_cancel(task);
    if (recorded) a_store_sc(&told, 1);
    heist_unref(task);
}
static void cancel_too(void) {
    recorded_too = heist_cancel(task);
    heist_unref(task);
}
static void let_go(void) { heist_unref(task); }
static void send(void) {
    value = 7;
    sent = heist_channel_try_send(c, &value) == 0;
    heist_channel_unref(c);
}
static void send_and_wait(void) {
    value = 7;
    sent = heist_channel_send(c, &value) == 0;
    heist_channel_unref(c);
}
static void complete_only(void) {
    completed = heist_future_set_result(f, &value, NULL) == 0;
    heist_unref(f);
}
static void send_then_complete(void) { send(), complete_only(); }
static void looks_and_lets_go(void) {
    model_assert(heist_future_is_task(task) && heist_future_loop(task) == rt->worker[0]->loop);
    heist_unref(task);
}
static void walks(void) {
    heist_task **list;
    size_t n;
    model_assert(heist_runtime_all_tasks(rt, &list, &n) == 0 && n <= 1);
    model_assert(n == 0 || list[0] == task);
    heist_task_list_free(list, n);
}
static void await_it(void) {
    void *p = NULL;
    int rc = heist_await(task, &p);
    if (!rc) model_assert(ended && p == &value);
    else model_assert(rc == -ECANCELED);
    heist_unref(task);
}

static void check_end(void) {
    model_assert(args_freed == 1);
    heist_unref(task);
    if (f) heist_unref(f);
    if (c) heist_channel_unref(c);
    played_end();
}

/* One canceller, no other reason for -ECANCELED than the request. */
static void check_request(void) {
    if (!ended) { /* never begun: the request was its end */
        model_assert(recorded && heist_future_cancelled(task) == 1 && !delivered && !got);
    } else {
        model_assert(delivered <= recorded);
        if (recorded && !heist_cancelling(task)) model_fail("the request is not counted");
        if (got) model_assert(completed || sent);
        if (code == -ECANCELED) model_assert(!got && recorded);
        /* What was recorded before the last call was delivered by then, or it came during it and is pending. */
        if (recorded && !delivered) model_assert(heist_future_done(task));
    }
    check_end();
}
static void check_never(void) {
    if (ended) model_assert(code == -ECANCELED);
    check_request();
}
/* A request may come out of the await of a done future, which then keeps its value. */
static void check_awaits(void) {
    if (ended) {
        model_assert(got == (code == 0));
        if (code == 0) model_assert(completed);
    }
    check_request();
}
static void check_taken_back(void) {
    if (!ended) model_assert(recorded && heist_future_cancelled(task) == 1);
    model_assert(delivered <= recorded);
    check_end();
}
static void check_until(void) {
    if (ended) model_assert(got == (code == 0) && deadline == (code == -ETIMEDOUT));
    check_request();
}
/* The item is with the receiver or still the sender's. */
static void check_receives(void) {
    if (ended) model_assert(got == sent && got == (code == 0));
    else model_assert(!sent);
    check_request();
}
static void check_received(void) {
    model_assert(ended && sent && got && code == 0);
    heist_unref(task);
    check_end();
}
/* The item is with the receiver or still the sender's, whatever won. */
static void check_selects(void) {
    if (ended) model_assert(got == sent);
    else model_assert(!sent);
    check_request();
}
static void check_selects_alone(void) {
    heist_unref(task);
    check_selects();
}
static void check_chain(void) {
    if (ended) {
        if (code == -ECANCELED) model_assert(recorded && delivered == 1);
        if (code == 0) model_assert(completed);
        model_assert(delivered <= recorded);
    }
    check_end();
}
static void check_two(void) {
    if (ended) model_assert(delivered <= recorded + recorded_too && got == (code == 0));
    model_assert(heist_cancelling(task) == recorded + recorded_too);
    check_end();
}
static void check_returns(void) {
    model_assert(heist_future_done(task) == 1);
    model_assert(ended != heist_future_cancelled(task));
    if (!ended) model_assert(recorded);
    check_end();
}
/* Nobody holds the task any more: what it left behind is freed, once. */
static void check_unheld(void) {
    model_assert(args_freed == 1 && results_freed == ended);
    played_end();
}
static void setup_unheld(void) { begin(returns, 1); }
static void check_another(void) {
    if (ended) f = NULL; /* the body's */
    if (ended) model_assert(code == 0 || (recorded && delivered));
    model_assert(delivered <= recorded);
    check_end();
}
static void setup_two(void) { setup_awaits(), heist_ref(task); }
static void cancel_both(void) { cancel(), cancel_too(); }

int main(int argc, char **argv) {
    static const struct model_case cases[] = {
        {"cancel against a completed await", setup_awaits, {worker, complete, cancel}, check_awaits, {2, 0}, {3, 0}},
        {"cancel against an await that never ends", setup_never, {worker, cancel}, check_never, {3, 1}, {4, 1}},
        {"cancel against a wait that never ends", setup_parked, {worker, cancel}, check_never, {3, 1}, {4, 1}},
        {"cancel against a deadline", setup_until, {worker, complete, cancel}, check_until, {2, 0}, {2, 1}},
        {"cancel against a sleep", setup_sleeps, {worker, cancel}, check_request, {3, 1}, {4, 1}},
        {"cancel against an item", setup_receives, {worker, send, cancel}, check_receives, {2, 0}, {3, 0}},
        {"an item against the wait for it", setup_receives, {worker, send_and_wait}, check_received, {3, 1}, {4, 1}},
        {"select of an item and a future",
         setup_selects,
         {worker, send, complete_only},
         check_selects_alone,
         {2, 0},
         {3, 0}},
        {"cancel against select", setup_selects, {worker, send_then_complete, cancel}, check_selects, {2, 0}, {2, 1}},
        {"cancel goes down a chain", setup_chain, {worker, complete, cancel}, check_chain, {1, 1}, {2, 1}},
        {"cancel twice", setup_two, {worker, complete, cancel_both}, check_two, {2, 0}, {2, 1}},
        {"cancel against the end, and the last reference",
         setup_returns,
         {worker, cancel, let_go},
         check_returns,
         {2, 1},
         {3, 1}},
        {"the last reference, whoever has it",
         setup_unheld,
         {worker, cancel, looks_and_lets_go},
         check_unheld,
         {2, 1},
         {3, 1}},
        {"a stranger in the place of what was awaited",
         setup_another,
         {worker, complete, cancel},
         check_another,
         {2, 0},
         {2, 1}},
        {"cancel of an await, taken back",
         setup_takes_back,
         {worker, complete, cancel},
         check_taken_back,
         {2, 0},
         {3, 0}},
        {"cancel of a wait, taken back",
         setup_waits_and_takes_back,
         {worker, complete, cancel},
         check_taken_back,
         {2, 0},
         {3, 0}},
        {"cancel in a section that holds it",
         setup_section,
         {worker, complete, cancel},
         check_taken_back,
         {2, 0},
         {3, 0}},
        {"a walk over all tasks", setup_walk, {worker, walks}, check_returns, {2, 0}, {3, 0}},
        {"await against the end, and the last reference",
         setup_returns,
         {worker, await_it, let_go},
         check_returns,
         {2, 0},
         {2, 1}},
    };
    return model_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
