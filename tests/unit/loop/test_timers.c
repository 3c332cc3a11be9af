/* The timer store against a sorted array: who leaves, in which order, whatever was added and removed before. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "loop/timers.h"

/* ---- the model: armed timers in the order in which they must leave ---- */

enum { MODEL_MAX = 400 };

struct model {
    struct heist__timer *order[MODEL_MAX];
    size_t count;
};

static void model_add(struct model *m, struct heist__timer *t, int64_t deadline_ns) {
    size_t at = m->count++;
    for (; at > 0 && m->order[at - 1]->deadline_ns > deadline_ns; at--) m->order[at] = m->order[at - 1];
    m->order[at] = t; /* behind its equals */
}

static void model_remove(struct model *m, struct heist__timer *t) {
    size_t at = 0;
    while (m->order[at] != t) at++;
    memmove(&m->order[at], &m->order[at + 1], (--m->count - at) * sizeof(m->order[0]));
}

/* ---- the shape: links agree, no child is due before its parent ---- */

static size_t check_children(const struct heist__timer *parent) {
    const struct heist__timer *first = parent->child;
    size_t count = 0;
    if (!first) return 0;
    assert_true(first->prev->last);
    for (const struct heist__timer *t = first, *before = NULL;; before = t, t = t->next) {
        assert_true(t->armed);
        assert_true(t->deadline_ns >= parent->deadline_ns);
        if (before) assert_ptr_equal(t->prev, before);
        count += 1 + check_children(t);
        if (t->last) {
            assert_ptr_equal(t->next, parent);
            assert_ptr_equal(first->prev, t);
            return count;
        }
    }
}

static void check_shape(const struct heist__timers *ts) {
    if (ts->root) assert_int_equal(1 + check_children(ts->root), heist__timers_count(ts));
    else assert_int_equal(heist__timers_count(ts), 0);
}

static void check_against(const struct heist__timers *ts, const struct model *m) {
    assert_int_equal(heist__timers_count(ts), m->count);
    assert_int_equal(heist__timers_next(ts), m->count ? m->order[0]->deadline_ns : INT64_MAX);
}

static uint64_t next_random(uint64_t *seed) {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

/* Random adds, removals and pops; `spread` is the number of different deadlines ahead, which rise with time. */
static void run_model(uint64_t seed, int64_t spread, unsigned steps) {
    struct heist__timers ts;
    struct model m = {.count = 0};
    struct heist__timer timers[MODEL_MAX];
    int64_t now = 0;
    heist__timers_init(&ts);
    for (int i = 0; i < MODEL_MAX; i++) heist__timer_init(&timers[i], (uint8_t)i);
    for (unsigned step = 0; step < steps; step++) {
        uint64_t r = next_random(&seed);
        struct heist__timer *t = &timers[(r >> 8) % MODEL_MAX];
        /* Now more is added, now more is taken, so that the store fills and empties. */
        bool filling = (step / (4 * MODEL_MAX)) % 2 == 0;
        if (r % 8 < (filling ? 5u : 2u)) {
            if (t->armed) continue;
            int64_t deadline = now - spread / 8 + (int64_t)(next_random(&seed) % (uint64_t)spread);
            model_add(&m, t, deadline);
            assert_int_equal(heist__timers_add(&ts, t, deadline), 0);
            assert_true(heist__timer_armed(t));
        } else if (r % 8 < 6) {
            bool was = t->armed;
            if (was) model_remove(&m, t);
            assert_int_equal(heist__timers_remove(&ts, t), was);
            assert_false(heist__timer_armed(t));
        } else {
            now += (int64_t)(next_random(&seed) % (uint64_t)(spread / 16 + 2));
            t = heist__timers_pop_due(&ts, now);
            bool due = m.count && m.order[0]->deadline_ns <= now;
            assert_ptr_equal(t, due ? m.order[0] : NULL);
            if (due) {
                assert_false(heist__timer_armed(t));
                assert_int_equal(t->kind, (uint8_t)(t - timers));
                model_remove(&m, t);
            }
        }
        check_against(&ts, &m);
        if (step % 64 == 0) check_shape(&ts);
    }
    while (m.count) {
        assert_ptr_equal(heist__timers_pop_due(&ts, INT64_MAX), m.order[0]);
        model_remove(&m, m.order[0]);
    }
    assert_null(heist__timers_pop_due(&ts, INT64_MAX));
    check_against(&ts, &m);
}

static void random_histories_agree_with_a_sorted_array(void **state) {
    (void)state;
    static const int64_t spreads[] = {1, 2, 3, 10, 100, 10000, 1000000000000};
    for (size_t s = 0; s < sizeof(spreads) / sizeof(spreads[0]); s++)
        for (uint64_t seed = 1; seed <= 4; seed++) run_model(seed * 0x9e3779b97f4a7c15u, spreads[s], 12000);
}

/* Every way to add six timers with three deadlines, pop some, remove one, add one more, and pop the rest. */
static void all_short_histories_leave_in_order(void **state) {
    (void)state;
    enum { N = 6 };
    for (int word = 0; word < 3 * 3 * 3 * 3 * 3 * 3; word++) {
        for (int pops = 0; pops < 3; pops++) {
            for (int gone = 0; gone < N; gone++) {
                struct heist__timers ts;
                struct model m = {.count = 0};
                struct heist__timer t[N + 1];
                heist__timers_init(&ts);
                for (int i = 0, digits = word; i < N; i++, digits /= 3) {
                    heist__timer_init(&t[i], 0);
                    model_add(&m, &t[i], digits % 3);
                    assert_int_equal(heist__timers_add(&ts, &t[i], digits % 3), 0);
                }
                for (int i = 0; i < pops; i++) {
                    assert_ptr_equal(heist__timers_pop_due(&ts, 2), m.order[0]);
                    model_remove(&m, m.order[0]);
                }
                if (t[gone].armed) {
                    model_remove(&m, &t[gone]);
                    assert_true(heist__timers_remove(&ts, &t[gone]));
                }
                heist__timer_init(&t[N], 0);
                model_add(&m, &t[N], 1);
                assert_int_equal(heist__timers_add(&ts, &t[N], 1), 0);
                check_shape(&ts);
                while (m.count) {
                    assert_ptr_equal(heist__timers_pop_due(&ts, 2), m.order[0]);
                    model_remove(&m, m.order[0]);
                }
                assert_int_equal(heist__timers_count(&ts), 0);
            }
        }
    }
}

static void none_leaves_before_its_deadline(void **state) {
    (void)state;
    struct heist__timers ts;
    struct heist__timer t;
    heist__timers_init(&ts);
    heist__timer_init(&t, 0);
    assert_int_equal(heist__timers_add(&ts, &t, 1000), 0);
    assert_null(heist__timers_pop_due(&ts, 999));
    assert_null(heist__timers_pop_due(&ts, INT64_MIN));
    assert_ptr_equal(heist__timers_pop_due(&ts, 1000), &t);
    assert_int_equal(t.deadline_ns, 1000);
}

static void the_ends_of_time_are_deadlines_too(void **state) {
    (void)state;
    struct heist__timers ts;
    struct heist__timer never, past, zero;
    heist__timers_init(&ts);
    heist__timer_init(&never, 0);
    heist__timer_init(&past, 0);
    heist__timer_init(&zero, 0);
    assert_int_equal(heist__timers_add(&ts, &never, INT64_MAX), 0);
    assert_int_equal(heist__timers_next(&ts), INT64_MAX);
    assert_int_equal(heist__timers_add(&ts, &zero, 0), 0);
    assert_int_equal(heist__timers_add(&ts, &past, INT64_MIN + 1), 0);
    assert_int_equal(heist__timers_next(&ts), INT64_MIN + 1);
    assert_ptr_equal(heist__timers_pop_due(&ts, INT64_MAX - 1), &past);
    assert_ptr_equal(heist__timers_pop_due(&ts, INT64_MAX - 1), &zero);
    assert_null(heist__timers_pop_due(&ts, INT64_MAX - 1));
    assert_int_equal(heist__timers_count(&ts), 1);
    assert_true(heist__timers_remove(&ts, &never));
}

static void a_removed_timer_is_not_touched_again(void **state) {
    (void)state;
    enum { N = 300 };
    struct heist__timers ts;
    struct heist__timer *t[N];
    heist__timers_init(&ts);
    for (int i = 0; i < N; i++) {
        t[i] = malloc(sizeof(*t[i]));
        assert_non_null(t[i]);
        heist__timer_init(t[i], 0);
        assert_int_equal(heist__timers_add(&ts, t[i], (i * 37) % 50), 0);
    }
    for (int i = 0; i < N; i += 3) { /* the memory checkers watch what follows */
        assert_true(heist__timers_remove(&ts, t[i]));
        free(t[i]);
    }
    for (int i = 0; i < N; i++) {
        if (i % 3 == 0) continue;
        struct heist__timer *gone = heist__timers_pop_due(&ts, INT64_MAX);
        assert_non_null(gone);
        free(gone);
    }
    assert_null(heist__timers_pop_due(&ts, INT64_MAX));
}

static void remove_of_an_idle_timer_does_nothing(void **state) {
    (void)state;
    struct heist__timers ts;
    struct heist__timer a, b;
    heist__timers_init(&ts);
    heist__timer_init(&a, 0);
    heist__timer_init(&b, 0);
    assert_false(heist__timers_remove(&ts, &a));
    assert_int_equal(heist__timers_add(&ts, &b, 5), 0);
    assert_false(heist__timers_remove(&ts, &a));
    assert_true(heist__timers_remove(&ts, &b));
    assert_false(heist__timers_remove(&ts, &b));
    assert_int_equal(heist__timers_count(&ts), 0);
    assert_int_equal(heist__timers_next(&ts), INT64_MAX);
}

static void a_hundred_thousand_equals_leave_in_the_order_of_adding(void **state) {
    (void)state;
    enum { N = 100000 };
    struct heist__timers ts;
    struct heist__timer *t = calloc(N, sizeof(*t));
    assert_non_null(t);
    heist__timers_init(&ts);
    for (int i = 0; i < N; i++) assert_int_equal(heist__timers_add(&ts, &t[i], 7), 0);
    for (int i = 0; i < N; i += 10) assert_true(heist__timers_remove(&ts, &t[i]));
    int wrong = 0;
    for (int i = 0; i < N; i++)
        if (i % 10 != 0) wrong += heist__timers_pop_due(&ts, 7) != &t[i];
    assert_int_equal(wrong, 0);
    assert_int_equal(heist__timers_count(&ts), 0);
    free(t);
}

static void time_outs_that_are_moved_on_keep_the_order(void **state) {
    (void)state;
    enum { N = 1000, ROUNDS = 50000 };
    struct heist__timers ts;
    struct heist__timer t[N];
    uint64_t seed = 42;
    int64_t now = 0, last = INT64_MIN;
    heist__timers_init(&ts);
    for (int i = 0; i < N; i++) {
        heist__timer_init(&t[i], 0);
        assert_int_equal(heist__timers_add(&ts, &t[i], now + N + i), 0);
    }
    for (int i = 0; i < ROUNDS; i++) { /* one time-out for all, begun again at random */
        struct heist__timer *any = &t[next_random(&seed) % N];
        now++;
        heist__timers_remove(&ts, any);
        assert_int_equal(heist__timers_add(&ts, any, now + 10 * N), 0);
        assert_true(heist__timers_next(&ts) <= now + 10 * N);
    }
    check_shape(&ts);
    for (int i = 0; i < N; i++) {
        struct heist__timer *gone = heist__timers_pop_due(&ts, INT64_MAX);
        assert_non_null(gone);
        assert_true(gone->deadline_ns >= last);
        last = gone->deadline_ns;
    }
    assert_int_equal(heist__timers_count(&ts), 0);
}

static void a_node_stays_small(void **state) {
    (void)state;
    /* 56 bytes was the limit, what stands beside the node included: nothing does. */
    assert_true(sizeof(struct heist__timer) <= 40);
}

static void destroy_forgets_without_touching(void **state) {
    (void)state;
    struct heist__timers ts;
    heist__timers_init(&ts);
    struct heist__timer *t = malloc(sizeof(*t));
    assert_non_null(t);
    heist__timer_init(t, 0);
    assert_int_equal(heist__timers_add(&ts, t, 1), 0);
    free(t);
    heist__timers_destroy(&ts);
    assert_int_equal(heist__timers_count(&ts), 0);
    assert_null(heist__timers_pop_due(&ts, INT64_MAX));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_histories_agree_with_a_sorted_array),
        cmocka_unit_test(all_short_histories_leave_in_order),
        cmocka_unit_test(none_leaves_before_its_deadline),
        cmocka_unit_test(the_ends_of_time_are_deadlines_too),
        cmocka_unit_test(a_removed_timer_is_not_touched_again),
        cmocka_unit_test(remove_of_an_idle_timer_does_nothing),
        cmocka_unit_test(a_hundred_thousand_equals_leave_in_the_order_of_adding),
        cmocka_unit_test(time_outs_that_are_moved_on_keep_the_order),
        cmocka_unit_test(a_node_stays_small),
        cmocka_unit_test(destroy_forgets_without_touching),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
