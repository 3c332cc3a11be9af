/* Hooks on several futures and one who waits for them; futures that others' ends complete.
 *
 * Each end is counted once and told to who waits, the last one to let go frees the record, a request to cancel is
 * refused or the future ends cancelled, and a child is never reached after its end: against completers, cancellers,
 * deadlines and last references in every order. */
#include <errno.h>
#include <heist/flow.h>
#include <string.h>

#include "conc/self.h"
#include "mem/slab.h"
#include "model/model.h"

static heist_future *part[2], *all;
static heist_completions *it;
static int value[2], won[2], asked, code, taken[2];
static size_t pending;

static void setup_parts(void) {
    memset(value, 0, sizeof(value));
    memset(won, 0, sizeof(won));
    memset(taken, 0, sizeof(taken));
    asked = code = 0;
    heist__slab_enter();
    for (int i = 0; i < 2; i++) model_assert(heist_future_new(NULL, &part[i]) == 0);
}

static void complete(int i) {
    value[i] = 10 + i;
    won[i] = heist_future_set_result(part[i], &value[i], NULL) == 0;
    heist_unref(part[i]);
}
static void complete_0(void) { complete(0); }
static void complete_1(void) { complete(1); }
static void fail_1(void) {
    won[1] = heist_future_set_exception(part[1], -EPROTO, NULL) == 0;
    heist_unref(part[1]);
}
static void drop_1(void) { heist_unref(part[1]); }
static void drop_all(void) { heist_unref(all); }

static void gone(void) { model_assert(heist__slab_leave(heist__self())); }

/* ---- the future of a gather ---- */

static void setup_gather(void) {
    setup_parts();
    model_assert(heist_gather_future(part, 2, 0, &all) == 0);
}
static void setup_early(void) {
    setup_parts();
    model_assert(heist_gather_future(part, 2, HEIST_GATHER_EARLY, &all) == 0);
}
static void setup_gather_two(void) {
    setup_gather();
    heist_ref(all);
}
static void setup_nest(void) { /* a gather of a shield and a part */
    setup_parts();
    heist_future *both[2] = {NULL, part[1]};
    model_assert(heist_shield(part[0], &both[0]) == 0);
    model_assert(heist_gather_future(both, 2, HEIST_GATHER_ALL, &all) == 0);
    heist_unref(both[0]);
    heist_ref(all);
}

static void await_all(void) {
    void *p = NULL;
    code = heist_await(all, &p);
    model_assert(heist_future_done(all) == 1);
    for (int i = 0; i < 2 && !code; i++) {
        int *v = ((void **)p)[i];
        if (v) model_assert(*v == 10 + i);
    }
    heist_unref(all);
}
static void cancel_all(void) {
    asked = heist_cancel(all);
    model_assert(asked == 0 || asked == 1);
    heist_unref(all);
}

static void check_values(void) {
    model_assert(won[0] && won[1] && code == 0);
    gone();
}
static void check_failure(void) {
    /* both have ended: the other one with its value, or cancelled */
    model_assert(won[1] && code == -EPROTO);
    gone();
}
static void check_cancel(void) {
    /* a request that was taken is what it ends with; one that was refused came too late */
    model_assert(asked ? code == -ECANCELED : won[0] && won[1] && code == 0);
    gone();
}
static void check_dropped(void) {
    model_assert(code == -ECANCELED);
    gone();
}

/* ---- a shield ---- */

static void setup_shield(void) {
    setup_parts();
    heist_unref(part[1]);
    model_assert(heist_shield(part[0], &all) == 0);
}
static void setup_shield_two(void) {
    setup_shield();
    heist_ref(all);
}
static void await_shield(void) {
    void *p = NULL;
    code = heist_await(all, &p);
    if (!code) model_assert(*(int *)p == 10);
    heist_unref(all);
}
static void drop_inner(void) { heist_unref(part[0]); }
static void check_shield(void) {
    model_assert(won[0] && code == (asked ? -ECANCELED : 0));
    gone();
}

/* ---- wait ---- */

static void setup_wait(void) {
    setup_parts();
    for (int i = 0; i < 2; i++) heist_ref(part[i]);
}
static void wait_for(int when, double timeout) {
    heist_future *f[2] = {part[0], part[1]};
    code = heist_wait(f, 2, when, timeout, &pending);
    for (int i = 0; i < code; i++) {
        void *p = NULL;
        model_assert(heist_future_result(f[i], &p) == 0 && *(int *)p == (f[i] == part[0] ? 10 : 11));
    }
    model_assert(code >= 0 && (size_t)code + pending == 2);
    heist_unref(part[0]);
    heist_unref(part[1]);
}
static void wait_first(void) { wait_for(HEIST_FIRST_COMPLETED, HEIST_FOREVER); }
static void wait_both(void) { wait_for(HEIST_ALL_COMPLETED, HEIST_FOREVER); }
static void wait_a_while(void) { wait_for(HEIST_ALL_COMPLETED, 0.001); }
static void check_first(void) {
    model_assert(code >= 1);
    gone();
}
static void check_both(void) {
    model_assert(code == 2);
    gone();
}

static void gather_both(void) {
    heist_future *f[2] = {part[0], part[1]};
    void *results[2];
    code = heist_gather(f, 2, results, 0);
    model_assert(heist_future_done(part[0]) && heist_future_done(part[1]));
    for (int i = 0; i < 2 && !code; i++) model_assert(*(int *)results[i] == 10 + i);
    heist_unref(part[0]);
    heist_unref(part[1]);
}

static void limit(void) {
    void *p = NULL;
    code = heist_wait_for(part[0], 0.001, &p);
    model_assert(heist_future_done(part[0]));
    if (!code) model_assert(*(int *)p == 10);
    heist_unref(part[0]);
    heist_unref(part[1]);
    heist_unref(part[1]);
}
static void check_limit(void) {
    model_assert(code == (won[0] ? 0 : -ETIMEDOUT));
    gone();
}

/* ---- as_completed ---- */

static void setup_completions(void) {
    setup_parts();
    model_assert(heist_as_completed(part, 2, HEIST_FOREVER, &it) == 0);
}
static void take(void) {
    heist_future *f;
    int got;
    while ((got = heist_completions_next(it, &f)) == 1) {
        void *p = NULL;
        model_assert(heist_future_result(f, &p) == 0);
        taken[*(int *)p - 10]++;
    }
    model_assert(got == 0);
}
static void take_and_free(void) {
    heist_future *f;
    model_assert(heist_completions_next(it, &f) == 1);
    heist_completions_free(it);
}
static void check_completions(void) {
    model_assert(taken[0] == 1 && taken[1] == 1);
    heist_completions_free(it);
    gone();
}

int main(int argc, char **argv) {
    static const struct model_case cases[] = {
        {"gather: both end", setup_gather, {complete_0, complete_1, await_all}, check_values, {1, 0}, {2, 1}, true},
        {"gather: one fails", setup_gather, {complete_0, fail_1, await_all}, check_failure, {1, 0}, {2, 1}, true},
        {"gather, early: one fails", setup_early, {complete_0, fail_1, await_all}, check_failure, {1, 0}, {2, 1}, true},
        {"gather: nobody looks", setup_gather, {complete_0, complete_1, drop_all}, gone, {1, 0}, {2, 1}, true},
        {"gather: a request against the ends",
         setup_gather_two,
         {complete_0, complete_1, cancel_all, await_all},
         check_cancel,
         {1, 0},
         {1, 1},
         true},
        {"gather: a request against an end and a drop",
         setup_gather_two,
         {complete_0, drop_1, cancel_all, await_all},
         check_dropped,
         {1, 0},
         {1, 1},
         true},
        {"gather: a request against a shield and an end",
         setup_nest,
         {complete_0, complete_1, cancel_all, await_all},
         check_cancel,
         {1, 0},
         {1, 1},
         true},
        {"shield: a request against the end",
         setup_shield_two,
         {complete_0, cancel_all, await_shield},
         check_shield,
         {1, 1},
         {2, 1},
         true},
        {"shield: a request against a drop",
         setup_shield_two,
         {drop_inner, cancel_all, await_shield},
         check_dropped,
         {1, 1},
         {2, 1},
         true},
        {"shield: nobody looks", setup_shield, {complete_0, drop_all}, gone, {2, 1}, {3, 2}, true},
        {"wait for one", setup_wait, {complete_0, complete_1, wait_first}, check_first, {1, 0}, {2, 0}, true},
        {"wait for both", setup_wait, {complete_0, complete_1, wait_both}, check_both, {1, 0}, {2, 0}, true},
        {"wait for a while", setup_wait, {complete_0, complete_1, wait_a_while}, gone, {1, 0}, {2, 0}},
        {"a thread gathers", setup_wait, {complete_0, fail_1, gather_both}, check_failure, {1, 0}, {2, 0}, true},
        {"a limit against the end", setup_wait, {complete_0, limit}, check_limit, {2, 1}, {3, 1}},
        {"two take", setup_completions, {complete_0, complete_1, take, take}, check_completions, {1, 0}, {1, 1}, true},
        {"one is taken, the other ends late",
         setup_completions,
         {complete_0, complete_1, take_and_free},
         gone,
         {1, 0},
         {2, 0},
         true},
    };
    return model_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
