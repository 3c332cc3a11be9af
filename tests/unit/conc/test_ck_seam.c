/* conc/ck_seam.h: the ring through the seam, silent under the race detector. */
#include "conc/ck_seam.h"

#include <sched.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "conc/atomic.h"
#include "crew.h"
#include "support/pace.h"

static void a_ring_holds_what_was_asked_for_and_refuses_more(void **state) {
    (void)state;
    for (size_t want = 1; want <= 70; want++) {
        struct heist__ring *r = heist__ring_create(want);
        assert_non_null(r);
        size_t room = heist__ring_capacity(r);
        assert_true(room >= want);
        void *got = NULL;
        assert_false(heist__ring_try_dequeue(r, &got));
        for (uintptr_t lap = 0; lap < 3; lap++) {
            for (uintptr_t i = 1; i <= room; i++) assert_true(heist__ring_try_enqueue(r, (void *)i));
            assert_int_equal(heist__ring_size(r), room);
            assert_false(heist__ring_try_enqueue(r, &got));
            for (uintptr_t i = 1; i <= room; i++) {
                assert_true(heist__ring_try_dequeue(r, &got));
                assert_ptr_equal(got, (void *)i);
            }
            assert_int_equal(heist__ring_size(r), 0);
            assert_false(heist__ring_try_dequeue(r, &got));
            assert_ptr_equal(got, (void *)room); /* untouched */
        }
        heist__ring_destroy(r);
    }
}

static void a_ring_that_cannot_be_is_refused(void **state) {
    (void)state;
    long live = heist__alloc_live();
    assert_null(heist__ring_create(0));
    assert_null(heist__ring_create(SIZE_MAX));
    heist__alloc_fail_after(1);
    assert_null(heist__ring_create(8));
    heist__alloc_fail_after(-1);
    assert_int_equal(heist__alloc_live(), live);
}

struct letter {
    int producer, seq; /* plain: the ring must carry them over */
    int takes;
};

struct party {
    struct heist__ring *ring;
    struct letter *letters; /* a producer's own */
    int number, count;
    _Atomic(int) *left;
    int last[2], taken, out_of_order;
    int enqueued; /* by a producer: fewer than count where the machine is slow */
};

static void enqueue_all(void *self) {
    struct party *p = self;
    struct pace pace = pace_of(p->count, 40, 3);
    for (int i = 0; pace_goes_on(&pace); i++) {
        /* Written here, read by the taker: the detector asks what orders the two. */
        p->letters[i] = (struct letter){.producer = p->number, .seq = i};
        while (!heist__ring_try_enqueue(p->ring, &p->letters[i])) sched_yield();
    }
    p->enqueued = pace.played;
    (void)a_sub_ar(p->left, p->count - pace.played); /* nobody waits for the rest */
}

static void dequeue_all(void *self) {
    struct party *p = self;
    while (a_load_acq(p->left) > 0) {
        void *got;
        if (!heist__ring_try_dequeue(p->ring, &got)) {
            sched_yield();
            continue;
        }
        struct letter *l = got;
        if (l->seq <= p->last[l->producer]) p->out_of_order++;
        p->last[l->producer] = l->seq;
        l->takes++;
        p->taken++;
        (void)a_sub_ar(p->left, 1);
    }
}

static void every_pointer_comes_out_once_in_its_producers_order(void **state) {
    (void)state;
    int each = CREW_ROUNDS / 4;
    struct heist__ring *ring = heist__ring_create(15);
    struct letter *letters = calloc((size_t)each * 2, sizeof(*letters));
    assert_non_null(ring);
    assert_non_null(letters);
    _Atomic(int) left = each * 2;
    struct party p[4];
    struct crew c;
    struct crew_member m[4];
    for (int i = 0; i < 4; i++) {
        p[i] = (struct party){.ring = ring, .left = &left, .number = i, .count = each, .last = {-1, -1}};
        if (i < 2) p[i].letters = letters + (size_t)i * (size_t)each;
        m[i] = (struct crew_member){.body = i < 2 ? enqueue_all : dequeue_all, .self = &p[i]};
    }
    crew_start(&c, m, 4);
    crew_join(&c);
    assert_int_equal(p[2].out_of_order + p[3].out_of_order, 0);
    assert_int_equal(p[2].taken + p[3].taken, p[0].enqueued + p[1].enqueued);
    for (int i = 0; i < each * 2; i++) assert_int_equal(letters[i].takes, i % each < p[i / each].enqueued);
    assert_int_equal(heist__ring_size(ring), 0);
    heist__ring_destroy(ring);
    free(letters);
}

static void backoff_grows_to_a_limit(void **state) {
    (void)state;
    unsigned count = 0, before = 0;
    for (int i = 0; i < 30; i++) {
        heist__backoff(&count);
        assert_true(count > 0 && count >= before && count <= 8192);
        before = count;
    }
    unsigned limit = count;
    heist__backoff(&count);
    assert_int_equal(count, limit);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_ring_holds_what_was_asked_for_and_refuses_more),
        cmocka_unit_test(a_ring_that_cannot_be_is_refused),
        cmocka_unit_test(every_pointer_comes_out_once_in_its_producers_order),
        cmocka_unit_test(backoff_grows_to_a_limit),
    };
    return cmocka_run_group_tests_name("conc/ck_seam", tests, NULL, NULL);
}
