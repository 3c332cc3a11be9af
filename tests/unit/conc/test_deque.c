/* conc/deque.h: both ends, growth, and every item to exactly one taker. */
#include "conc/deque.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "crew.h"

static void *item_of(uintptr_t n) {
    return (void *)n;
}

static void the_owner_takes_from_either_end(void **state) {
    (void)state;
    struct heist__deque d;
    assert_int_equal(heist__deque_init(&d, 3), 0);
    assert_null(heist__deque_pop(&d));
    assert_null(heist__deque_pop_top(&d));
    for (uintptr_t i = 1; i <= 6; i++) assert_int_equal(heist__deque_push(&d, item_of(i)), 0);
    assert_int_equal(heist__deque_size(&d), 6);
    assert_false(heist__deque_empty(&d));
    assert_ptr_equal(heist__deque_pop(&d), item_of(6));
    assert_ptr_equal(heist__deque_pop_top(&d), item_of(1));
    void *got = NULL;
    assert_int_equal(heist__deque_steal(&d, &got), HEIST__STEAL_GOT);
    assert_ptr_equal(got, item_of(2));
    assert_ptr_equal(heist__deque_pop(&d), item_of(5));
    assert_ptr_equal(heist__deque_pop_top(&d), item_of(3));
    assert_ptr_equal(heist__deque_pop(&d), item_of(4)); /* the last one goes through the CAS */
    assert_null(heist__deque_pop(&d));
    assert_null(heist__deque_pop_top(&d));
    got = item_of(77);
    assert_int_equal(heist__deque_steal(&d, &got), HEIST__STEAL_EMPTY);
    assert_ptr_equal(got, item_of(77));
    assert_true(heist__deque_empty(&d));
    assert_int_equal(heist__deque_size(&d), 0);
    heist__deque_destroy(&d);
}

static void alone_mode_takes_from_either_end(void **state) {
    (void)state;
    struct heist__deque d;
    assert_int_equal(heist__deque_init(&d, 1), 0);
    assert_null(heist__deque_pop_alone(&d));
    assert_null(heist__deque_pop_top_alone(&d));
    for (uintptr_t i = 1; i <= 5; i++) assert_int_equal(heist__deque_push(&d, item_of(i)), 0);
    assert_ptr_equal(heist__deque_pop_alone(&d), item_of(5));
    assert_ptr_equal(heist__deque_pop_top_alone(&d), item_of(1));
    assert_ptr_equal(heist__deque_pop_top(&d), item_of(2)); /* the modes mix */
    assert_ptr_equal(heist__deque_pop(&d), item_of(4));
    assert_ptr_equal(heist__deque_pop_alone(&d), item_of(3));
    assert_null(heist__deque_pop_alone(&d));
    assert_null(heist__deque_pop_top_alone(&d));
    assert_int_equal(heist__deque_size(&d), 0);
    heist__deque_destroy(&d);
}

/* Against a plain array, one thread, all calls in a seeded mix. */
static void any_mix_of_calls_agrees_with_an_array(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct heist__rng r;
        heist__rng_init(&r, seed);
        static uintptr_t model[5000];
        int lo = 0, hi = 0;
        uintptr_t next = 1;
        struct heist__deque d;
        assert_int_equal(heist__deque_init(&d, 1 + (unsigned)(seed % 3)), 0);
        uint32_t push_share = 40 + heist__rng_below(&r, 30);
        for (int step = 0; step < 4000; step++) {
            void *got = NULL;
            if (heist__rng_below(&r, 100) < push_share) {
                model[hi++] = next;
                assert_int_equal(heist__deque_push(&d, item_of(next++)), 0);
            } else {
                bool any = lo < hi;
                uint32_t kind = heist__rng_below(&r, 5);
                bool bottom = kind < 2;
                uintptr_t want = !any ? 0 : bottom ? model[--hi] : model[lo++];
                if (kind == 0) got = heist__deque_pop(&d);
                if (kind == 1) got = heist__deque_pop_alone(&d);
                if (kind == 2) got = heist__deque_pop_top(&d);
                if (kind == 3) got = heist__deque_pop_top_alone(&d);
                if (kind == 4)
                    assert_int_equal(heist__deque_steal(&d, &got), any ? HEIST__STEAL_GOT : HEIST__STEAL_EMPTY);
                assert_ptr_equal(got, item_of(want));
            }
            assert_int_equal(heist__deque_size(&d), hi - lo);
        }
        heist__deque_destroy(&d);
    }
}

static void growth_that_fails_changes_nothing(void **state) {
    (void)state;
    long before = heist__alloc_live();
    struct heist__deque d = {0};
    heist__alloc_fail_after(1);
    assert_int_equal(heist__deque_init(&d, 2), -ENOMEM);
    heist__deque_destroy(&d); /* zeroed memory */
    heist__alloc_fail_after(-1);
    assert_int_equal(heist__deque_init(&d, 2), 0);
    for (uintptr_t i = 1; i <= 4; i++) assert_int_equal(heist__deque_push(&d, item_of(i)), 0);
    heist__alloc_fail_from(1);
    assert_int_equal(heist__deque_push(&d, item_of(5)), -ENOMEM);
    assert_int_equal(heist__deque_push(&d, item_of(5)), -ENOMEM);
    assert_int_equal(heist__deque_size(&d), 4);
    /* Room at the top is found without memory. */
    assert_ptr_equal(heist__deque_pop_top(&d), item_of(1));
    assert_int_equal(heist__deque_push(&d, item_of(6)), 0);
    assert_int_equal(heist__deque_push(&d, item_of(7)), -ENOMEM);
    heist__alloc_fail_after(-1);
    assert_int_equal(heist__deque_push(&d, item_of(7)), 0);
    const uintptr_t want[] = {2, 3, 4, 6, 7};
    for (size_t i = 0; i < HEIST_ARRAY_LEN(want); i++) assert_ptr_equal(heist__deque_pop_top(&d), item_of(want[i]));
    heist__deque_destroy(&d);
    assert_int_equal(heist__alloc_live(), before);
}

static void owner_and_thieves_stand_on_different_lines(void **state) {
    (void)state;
    assert_int_equal(offsetof(struct heist__deque, top) % HEIST_CACHE_LINE, 0);
    assert_true(offsetof(struct heist__deque, top) >= offsetof(struct heist__deque, bottom) + HEIST_CACHE_LINE);
    assert_int_equal(sizeof(struct heist__deque) % HEIST_CACHE_LINE, 0);
}

/* What is stolen: written plainly by the owner before the push and by the taker
 * after; a second taker is a race to the detector and a 2 to everybody. */
struct parcel {
    int number;
    int takes;
};

struct yard {
    struct heist__deque d;
    struct parcel *parcels;
    int count;
    _Atomic(bool) all_pushed;
    uint64_t seed;
    unsigned most_held; /* the owner pops when it holds more: small keeps the ends together */
    int failed;
};

struct thief {
    struct yard *yard;
    int got, lost, wrong;
};

static void take(struct yard *y, void *p, int *wrong) {
    struct parcel *parcel = p;
    if (&y->parcels[parcel->number] != parcel) (*wrong)++;
    parcel->takes++;
}

static void own(void *self) {
    struct yard *y = self;
    struct heist__rng r;
    heist__rng_init(&r, y->seed);
    int pushed = 0;
    while (pushed < y->count) {
        for (uint32_t burst = 1 + heist__rng_below(&r, 6); burst > 0 && pushed < y->count; burst--) {
            struct parcel *p = &y->parcels[pushed];
            p->number = pushed++;
            if (heist__deque_push(&y->d, p) < 0) y->failed++;
        }
        uint32_t takes = heist__rng_below(&r, 7);
        while (takes > 0 || heist__deque_size(&y->d) > y->most_held) {
            void *p = heist__rng_below(&r, 4) == 0 ? heist__deque_pop_top(&y->d) : heist__deque_pop(&y->d);
            if (!p) break;
            take(y, p, &y->failed);
            if (takes > 0) takes--;
        }
    }
    a_store_rel(&y->all_pushed, true); /* pairs with the load in rob */
    void *p;
    while ((p = heist__deque_pop(&y->d))) take(y, p, &y->failed);
}

static void rob(void *self) {
    struct thief *t = self;
    struct yard *y = t->yard;
    for (;;) {
        bool last_round = a_load_acq(&y->all_pushed); /* read before the look */
        void *p;
        int rc;
        while ((rc = heist__deque_steal(&y->d, &p)) != HEIST__STEAL_EMPTY) {
            if (rc == HEIST__STEAL_LOST) {
                t->lost++;
                continue;
            }
            take(y, p, &t->wrong);
            t->got++;
        }
        if (last_round) return;
        sched_yield();
    }
}

static void run_yard(int count, int thieves, unsigned log2_capacity, unsigned most_held, uint64_t seed) {
    struct yard y = {.count = count, .seed = seed, .most_held = most_held};
    assert_int_equal(heist__deque_init(&y.d, log2_capacity), 0);
    y.parcels = calloc((size_t)y.count, sizeof(*y.parcels));
    assert_non_null(y.parcels);
    struct thief t[3] = {{.yard = &y}, {.yard = &y}, {.yard = &y}};
    struct crew c;
    struct crew_member m[4] = {{.body = own, .self = &y}};
    for (int i = 0; i < thieves; i++) m[i + 1] = (struct crew_member){.body = rob, .self = &t[i]};
    crew_start(&c, m, thieves + 1);
    crew_join(&c);

    assert_int_equal(y.failed, 0);
    for (int i = 0; i < thieves; i++) assert_int_equal(t[i].wrong, 0);
    for (int i = 0; i < y.count; i++) assert_int_equal(y.parcels[i].takes, 1);
    assert_int_equal(heist__deque_size(&y.d), 0);
    heist__deque_destroy(&y.d);
    free(y.parcels);
}

static void every_item_goes_once_to_owner_or_one_thief(void **state) {
    (void)state;
    run_yard(CREW_ROUNDS / 2, 1, 8, 100, 1);
}

static void every_item_goes_once_among_three_thieves(void **state) {
    (void)state;
    run_yard(CREW_ROUNDS / 2, 3, 8, 100, 2);
}

/* Few items in a small ring: the ends meet all the time, the indices wrap. */
static void the_last_item_has_one_taker(void **state) {
    (void)state;
    run_yard(CREW_ROUNDS / 2, 1, 1, 1, 3);
    run_yard(CREW_ROUNDS / 2, 3, 1, 2, 4);
}

/* From two cells to many while thieves hold old buffers. */
static void growth_under_theft_loses_nothing(void **state) {
    (void)state;
    run_yard(CREW_ROUNDS / 2, 3, 1, UINT32_MAX, 5);
    /* A deque grows a few times in its life only, so many short lives. */
    for (uint64_t seed = 6; seed < 106; seed++) run_yard(CREW_ROUNDS / 200, 3, 1, UINT32_MAX, seed);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_owner_takes_from_either_end),
        cmocka_unit_test(alone_mode_takes_from_either_end),
        cmocka_unit_test(any_mix_of_calls_agrees_with_an_array),
        cmocka_unit_test(growth_that_fails_changes_nothing),
        cmocka_unit_test(owner_and_thieves_stand_on_different_lines),
        cmocka_unit_test(every_item_goes_once_to_owner_or_one_thief),
        cmocka_unit_test(every_item_goes_once_among_three_thieves),
        cmocka_unit_test(the_last_item_has_one_taker),
        cmocka_unit_test(growth_under_theft_loses_nothing),
    };
    return cmocka_run_group_tests_name("conc/deque", tests, NULL, NULL);
}
