/* A plain future between plain threads: one outcome, told to everybody whole, each waiter
 * woken, each callback run once, and the object freed once, whoever lets go last.
 *
 * Complete against complete, cancel, await, await with a deadline, callbacks and the last
 * reference.  Values are plain memory: who reads one that was not handed over, races. */
#include <errno.h>
#include <heist/future.h>
#include <string.h>

#include "conc/self.h"
#include "mem/slab.h"
#include "model/model.h"

static heist_future *f;
static int value[2], freed[2], won[2], cancel_won;
static int code[4];  /* of each waiter */
static int *seen[4]; /* its value */
static int called[2], dropped[2], removed;

static void setup_n(int holders) {
    memset(value, 0, sizeof(value));
    memset(freed, 0, sizeof(freed));
    memset(won, 0, sizeof(won));
    memset(code, 0, sizeof(code));
    memset(seen, 0, sizeof(seen));
    memset(called, 0, sizeof(called));
    memset(dropped, 0, sizeof(dropped));
    cancel_won = removed = 0;
    heist__slab_enter();
    model_assert(heist_future_new(NULL, &f) == 0);
    for (int i = 1; i < holders; i++) heist_ref(f);
}
static void setup_1(void) { setup_n(1); }
static void setup_2(void) { setup_n(2); }
static void setup_3(void) { setup_n(3); }

static void count_free(void *p) { freed[(int *)p - value]++; }

static void complete(int i) {
    value[i] = 10 + i;
    won[i] = heist_future_set_result(f, &value[i], count_free) == 0;
}

static void look(int who, int rc, void *p) {
    code[who] = rc;
    seen[who] = p;
    if (!rc) model_assert(*seen[who] == 10 + (seen[who] - value));
}

static void await(int who) {
    void *p = NULL;
    int rc = heist_await(f, &p);
    model_assert(heist_future_done(f) == 1);
    look(who, rc, p);
}

static void await_until(int who) {
    void *p = NULL;
    int rc = heist_await_until(f, (double)(model_now_ns() + 1000000) / 1e9, &p);
    look(who, rc, p);
}

static void complete_0(void) { complete(0), heist_unref(f); }
static void complete_1(void) { complete(1), heist_unref(f); }
static void cancel(void) { cancel_won = heist_cancel(f), heist_unref(f); }
static void await_0(void) { await(0), heist_unref(f); }
static void await_1(void) { await(1), heist_unref(f); }
static void await_until_0(void) { await_until(0), heist_unref(f); }
static void await_until_then_await(void) { await_until(0), await(1), heist_unref(f); }
static void polls(void) {
    for (int i = 0; i < 2; i++)
        if (heist_future_done(f)) {
            void *p = NULL;
            int rc = heist_future_result(f, &p);
            look(0, rc, p);
        }
    heist_unref(f);
}
static void takes(void) {
    void *p = NULL;
    await(0);
    if (heist_future_take(f, &p) == 0) {
        model_assert(*(int *)p == 10);
        freed[0]++; /* ours to free */
    }
    heist_unref(f);
}

/* ---- callbacks of a future without a loop: run by the completer, or at once ---- */

static void on_done(heist_future *g, void *user) {
    void *p = NULL;
    int rc = heist_future_result(g, &p);
    if (!rc) model_assert(*(int *)p >= 10);
    ++*(int *)user;
}
static void on_drop(void *user) { dropped[(int *)user - called]++; }
static void add_callback(void) {
    model_assert(heist_future_add_done_callback(f, on_done, &called[0], on_drop) == 0);
    heist_unref(f);
}
static void add_and_remove_callback(void) {
    model_assert(heist_future_add_done_callback(f, on_done, &called[1], on_drop) == 0);
    removed = heist_future_remove_done_callback(f, on_done, &called[1]);
    heist_unref(f);
}

/* ---- what must hold ---- */

static void gone(void) {
    model_assert(heist__slab_leave(heist__self()));
    /* A value that won is freed with the future, once; one that did not is its maker's. */
    for (int i = 0; i < 2; i++) model_assert(freed[i] == won[i]);
}

static void check_one_outcome(void) {
    model_assert(won[0] + won[1] + cancel_won == 1);
    for (int i = 0; i < 2; i++) {
        if (seen[i]) model_assert(won[seen[i] - value] && code[i] == 0);
        if (code[i]) model_assert(code[i] == -ECANCELED && cancel_won);
    }
    gone();
}
static void check_deadline(void) {
    model_assert(won[0] + cancel_won == 1);
    model_assert(code[0] == 0 || code[0] == -ETIMEDOUT || (code[0] == -ECANCELED && cancel_won));
    gone();
}
static void check_callbacks(void) {
    model_assert(called[0] == 1 && dropped[0] == 1);
    model_assert(called[1] + removed == dropped[1] && dropped[1] <= 1);
    gone();
}
static void check_abandoned(void) {
    model_assert(called[0] + called[1] == 0 && dropped[0] == 1);
    gone();
}

int main(int argc, char **argv) {
    static const struct model_case cases[] = {
        {"await against complete", setup_2, {await_0, complete_0}, check_one_outcome, {2, 2}, {3, 2}},
        {"two complete", setup_3, {complete_0, complete_1, polls}, check_one_outcome, {2, 1}, {3, 1}},
        {"complete against cancel and await",
         setup_3,
         {complete_0, cancel, await_0},
         check_one_outcome,
         {1, 1},
         {2, 1}},
        {"two await", setup_3, {await_0, await_1, complete_0}, check_one_outcome, {1, 0}, {2, 0}},
        {"a deadline against completion", setup_2, {await_until_0, complete_0}, check_deadline, {2, 1}, {3, 1}},
        {"a deadline, then without one", setup_2, {await_until_then_await, complete_0}, check_deadline, {2, 1}, {3, 1}},
        {"a deadline beside another waiter",
         setup_3,
         {await_until_0, await_1, complete_0},
         check_deadline,
         {1, 0},
         {1, 1}},
        {"the value is taken once", setup_2, {takes, complete_0}, check_one_outcome, {2, 1}, {3, 1}},
        {"who polls sees the whole outcome", setup_2, {polls, complete_0}, check_one_outcome, {3, 2}, {5, 3}},
        {"a callback against completion", setup_2, {add_callback, complete_0}, check_callbacks, {3, 2}, {5, 3}},
        {"callbacks come and go",
         setup_3,
         {add_callback, add_and_remove_callback, complete_0},
         check_callbacks,
         {1, 1},
         {2, 1}},
        {"nobody completes it", setup_1, {add_callback}, check_abandoned, {1, 1}, {1, 1}},
    };
    return model_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
