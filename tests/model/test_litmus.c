/* The checker itself: small programs whose outcomes C11 allows or forbids are known.
 *
 * Each case names an outcome and whether it must be seen (the checker is strong enough to
 * find it) or must not (it does not cry wolf).  Outcomes are collected over all
 * executions of a case and looked at by the case that follows it. */
#include <stdio.h>
#include <string.h>

#include "conc/atomic.h"
#include "model/model.h"

static _Atomic(int) x, y, flag;
static int data;
static int r1, r2, r3, r4;
static bool seen;

static void reset(void) {
    a_store_sc(&x, 0);
    a_store_sc(&y, 0);
    a_store_sc(&flag, 0);
    r1 = r2 = r3 = r4 = -1;
    data = 0;
}

/* ---- store buffering: each stores and looks at the other's ---- */

static void sb_rel_1(void) {
    a_store_rel(&x, 1);
    r1 = a_load_acq(&y);
}
static void sb_rel_2(void) {
    a_store_rel(&y, 1);
    r2 = a_load_acq(&x);
}
static void sb_sc_1(void) {
    a_store_sc(&x, 1);
    r1 = a_load_sc(&y);
}
static void sb_sc_2(void) {
    a_store_sc(&y, 1);
    r2 = a_load_sc(&x);
}
static void sb_fence_1(void) {
    a_store_rlx(&x, 1);
    a_fence_sc();
    r1 = a_load_rlx(&y);
}
static void sb_fence_2(void) {
    a_store_rlx(&y, 1);
    a_fence_sc();
    r2 = a_load_rlx(&x);
}
static void sb_half_2(void) {
    a_store_rlx(&y, 1);
    r2 = a_load_rlx(&x);
}
/* A fence on one side, sc operations on the other. */
static void sb_mixed_2(void) {
    a_store_sc(&y, 1);
    r2 = a_load_sc(&x);
}
static void both_zero(void) { seen |= r1 == 0 && r2 == 0; }
static void never_both_zero(void) { model_assert(r1 || r2); }

/* ---- message passing ---- */

static void mp_rel(void) {
    a_store_rlx(&x, 1);
    a_store_rel(&flag, 1);
}
static void mp_rlx(void) {
    a_store_rlx(&x, 1);
    a_store_rlx(&flag, 1);
}
static void mp_acq(void) {
    r1 = a_load_acq(&flag);
    r2 = a_load_rlx(&x);
}
static void mp_rlx_read(void) {
    r1 = a_load_rlx(&flag);
    r2 = a_load_rlx(&x);
}
static void mp_fence_read(void) {
    r1 = a_load_rlx(&flag);
    a_fence_sc();
    r2 = a_load_rlx(&x);
}
static void mp_fence_write(void) {
    a_store_rlx(&x, 1);
    a_fence_sc();
    a_store_rlx(&flag, 1);
}
/* A read-modify-write by a third goes on releasing. */
static void mp_add(void) { a_add_rlx(&flag, 1); }
static void mp_store(void) {
    if (a_load_rlx(&flag) == 1) a_store_rlx(&flag, 2);
}
static void mp_acq_two(void) {
    r1 = a_load_acq(&flag) == 2;
    r2 = a_load_rlx(&x);
}
static void stale_message(void) { seen |= r1 == 1 && r2 == 0; }
static void no_stale_message(void) { model_assert(r1 != 1 || r2 == 1); }

/* ---- independent reads of independent writes ---- */

static void write_x(void) { a_store_rel(&x, 1); }
static void write_y(void) { a_store_rel(&y, 1); }
static void write_x_sc(void) { a_store_sc(&x, 1); }
static void write_y_sc(void) { a_store_sc(&y, 1); }
static void read_xy(void) {
    r1 = a_load_acq(&x);
    r2 = a_load_acq(&y);
}
static void read_yx(void) {
    r3 = a_load_acq(&y);
    r4 = a_load_acq(&x);
}
static void read_xy_sc(void) {
    r1 = a_load_sc(&x);
    r2 = a_load_sc(&y);
}
static void read_yx_sc(void) {
    r3 = a_load_sc(&y);
    r4 = a_load_sc(&x);
}
static void other_orders(void) { seen |= r1 == 1 && r2 == 0 && r3 == 1 && r4 == 0; }
static void one_order(void) { model_assert(!(r1 == 1 && r2 == 0 && r3 == 1 && r4 == 0)); }

/* ---- coherence, and the atomicity of read-modify-writes ---- */

static void write_twice(void) {
    a_store_rlx(&x, 1);
    a_store_rlx(&x, 2);
}
static void read_twice(void) {
    r1 = a_load_rlx(&x);
    r2 = a_load_rlx(&x);
}
static void never_back(void) { model_assert(r2 >= r1); }
static void add_one(void) { a_add_rlx(&x, 1); }
static void cas_one(void) {
    int v = a_load_rlx(&x);
    while (!a_cas_rel(&x, &v, v + 1)) continue;
}
static void three(void) { model_assert(a_load_sc(&x) == 3); }
static void load_and_store(void) { a_store_sc(&x, a_load_sc(&x) + 1); }
static void lost_update(void) { seen |= a_load_sc(&x) == 1; }

/* ---- plain memory behind a flag that is taken by one ---- */

static void fill(void) {
    model_writes(&data, sizeof(data));
    data = 7;
    a_store_rel(&flag, 1);
}
static void take(void) {
    if (a_xchg_acq(&flag, 2) != 1) return;
    model_reads(&data, sizeof(data));
    r1 = data;
}
static void taken_whole(void) { model_assert(r1 == -1 || r1 == 7); }

static void was_seen(void) {
    model_assert(seen);
    seen = false;
}
static void nothing(void) {}

#define MUST_SEE(name, bounds, ...)                                                                                    \
    {name, reset, __VA_ARGS__, bounds, bounds}, {                                                                      \
        name ": was seen", was_seen, {nothing}, NULL, {0, 0}, { 0, 0 }                                                 \
    }
#define BOUNDS(p, s)                                                                                                   \
    { p, s }

int main(int argc, char **argv) {
    static const struct model_case cases[] = {
        MUST_SEE("store buffering by release", BOUNDS(2, 2), {sb_rel_1, sb_rel_2}, both_zero),
        {"store buffering by sc", reset, {sb_sc_1, sb_sc_2}, never_both_zero, {4, 4}, {4, 4}},
        {"store buffering by fences", reset, {sb_fence_1, sb_fence_2}, never_both_zero, {4, 4}, {4, 4}},
        MUST_SEE("store buffering, one fence missing", BOUNDS(2, 2), {sb_fence_1, sb_half_2}, both_zero),
        {"store buffering, fence and sc", reset, {sb_fence_1, sb_mixed_2}, never_both_zero, {4, 4}, {4, 4}},
        {"message by release and acquire", reset, {mp_rel, mp_acq}, no_stale_message, {4, 4}, {4, 4}},
        MUST_SEE("message by a relaxed store", BOUNDS(2, 2), {mp_rlx, mp_acq}, stale_message),
        MUST_SEE("message by a relaxed load", BOUNDS(2, 2), {mp_rel, mp_rlx_read}, stale_message),
        {"message, fence behind the load", reset, {mp_rel, mp_fence_read}, no_stale_message, {4, 4}, {4, 4}},
        {"message, fence before the store", reset, {mp_fence_write, mp_acq}, no_stale_message, {4, 4}, {4, 4}},
        {"message handed on by an addition", reset, {mp_rel, mp_add, mp_acq_two}, no_stale_message, {4, 3}, {4, 4}},
        MUST_SEE("message cut by a store", BOUNDS(3, 2), {mp_rel, mp_store, mp_acq_two}, stale_message),
        MUST_SEE("two writers, two readers", BOUNDS(3, 2), {write_x, write_y, read_xy, read_yx}, other_orders),
        {"two writers, two readers, sc",
         reset,
         {write_x_sc, write_y_sc, read_xy_sc, read_yx_sc},
         one_order,
         {4, 2},
         {6, 4}},
        {"one object never goes back", reset, {write_twice, read_twice}, never_back, {4, 4}, {4, 4}},
        {"additions are whole", reset, {add_one, cas_one, cas_one}, three, {4, 2}, {6, 4}},
        MUST_SEE("a load and a store are two steps", BOUNDS(1, 0), {load_and_store, load_and_store}, lost_update),
        {"plain memory behind a flag", reset, {fill, take, take}, taken_whole, {4, 2}, {4, 4}},
    };
    return model_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
