/* The clock of a loop: conversions are never early and survive the way back, virtual time never goes back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <pthread.h>

#include "loop/clock.h"

static void plain_seconds_are_exact(void **state) {
    (void)state;
    static const struct {
        double seconds;
        int64_t ns;
    } rows[] = {
        {0, 0}, {1, 1000000000}, {0.1, 100000000}, {0.3, 300000000}, {1e-9, 1}, {1e-3, 1000000}, {2.5, 2500000000},
        {-1, -1000000000}, {-0.25, -250000000}, {-1e-9, -1}, {86400 * 365.0, 86400LL * 365 * 1000000000},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        assert_int_equal(heist__ns_from_seconds(rows[i].seconds), rows[i].ns);
}

static void parts_of_a_nanosecond_round_up(void **state) {
    (void)state;
    assert_int_equal(heist__ns_from_seconds(1e-10), 1);
    assert_int_equal(heist__ns_from_seconds(1.5e-9), 2);
    assert_int_equal(heist__ns_from_seconds(nextafter(1e-9, 1)), 2);
    assert_int_equal(heist__ns_from_seconds(5e-324), 1);
    assert_int_equal(heist__ns_from_seconds(-1e-10), 0);
    assert_int_equal(heist__ns_from_seconds(-1.5e-9), -1);
    assert_int_equal(heist__ns_from_seconds(-0.0), 0);
}

static void what_does_not_fit_saturates(void **state) {
    (void)state;
    assert_int_equal(heist__ns_from_seconds(INFINITY), HEIST__NEVER);
    assert_int_equal(heist__ns_from_seconds(1e300), HEIST__NEVER);
    assert_int_equal(heist__ns_from_seconds(9223372037.0), HEIST__NEVER);
    assert_int_equal(heist__ns_from_seconds(-INFINITY), INT64_MIN + 1);
    assert_int_equal(heist__ns_from_seconds(-1e300), INT64_MIN + 1);
    assert_int_equal(heist__ns_from_seconds(NAN), HEIST__NOT_A_TIME);
    assert_true(heist__ns_from_seconds(nextafter(9223372036.0, 0)) < HEIST__NEVER);
    assert_int_equal(heist__ns_add(HEIST__NEVER - 1, 2), HEIST__NEVER);
    assert_int_equal(heist__ns_add(INT64_MIN + 5, -100), INT64_MIN + 1);
    assert_int_equal(heist__ns_add(INT64_MIN + 5, -5), INT64_MIN + 1);
    assert_int_equal(heist__ns_add(40, 2), 42);
}

static uint64_t next_random(uint64_t *seed) {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

static void instants_survive_the_way_there_and_back(void **state) {
    (void)state;
    uint64_t seed = 0x9e3779b97f4a7c15u;
    for (int i = 0; i < 200000; i++) {
        int64_t ns = (int64_t)((next_random(&seed) >> i % 60) % 4194304000000000u); /* below 2^22 s */
        if (i & 1) ns = -ns;
        assert_int_equal(heist__ns_from_seconds(heist__seconds_from_ns(ns)), ns);
    }
}

static void an_answer_is_the_smallest_that_is_not_early(void **state) {
    (void)state;
    uint64_t seed = 0x2545f4914f6cdd1du;
    for (int i = 0; i < 200000; i++) {
        double seconds = ldexp((double)(next_random(&seed) >> 11), -53 - i % 40 + 22); /* up to 48 days */
        if (i & 1) seconds = -seconds;
        int64_t ns = heist__ns_from_seconds(seconds);
        assert_true(heist__seconds_from_ns(ns) >= seconds);
        assert_true(heist__seconds_from_ns(ns - 1) < seconds);
    }
    for (int i = 0; i < 2000; i++) { /* up to 292 years */
        double seconds = ldexp((double)(next_random(&seed) >> 11), -53 + 33);
        int64_t ns = heist__ns_from_seconds(seconds);
        assert_true(heist__seconds_from_ns(ns) >= seconds);
    }
}

static void virtual_time_moves_only_forward_and_only_when_told(void **state) {
    (void)state;
    struct heist__clock clock;
    heist__clock_init(&clock, true, 500);
    assert_int_equal(heist__clock_now(&clock), 500);
    heist__clock_advance_to(&clock, 700);
    assert_int_equal(heist__clock_now(&clock), 700);
    heist__clock_advance_to(&clock, 600);
    assert_int_equal(heist__clock_now(&clock), 700);
    assert_int_equal(heist__deadline_after(&clock, 1e-6), 1700);
    assert_int_equal(heist__deadline_after(&clock, 0), 700);
    assert_int_equal(heist__deadline_after(&clock, -1e-7), 600);
    assert_int_equal(heist__deadline_after(&clock, INFINITY), HEIST__NEVER);
    assert_int_equal(heist__deadline_after(&clock, 9.2233720368e9), HEIST__NEVER);
    assert_int_equal(heist__deadline_after(&clock, NAN), HEIST__NOT_A_TIME);
}

static void a_real_clock_reads_the_machine_and_cannot_be_moved(void **state) {
    (void)state;
    struct heist__clock clock;
    heist__clock_init(&clock, false, 0);
    int64_t before = heist__clock_now(&clock);
    assert_true(before > 0);
    heist__clock_advance_to(&clock, HEIST__NEVER);
    int64_t after = heist__clock_now(&clock);
    assert_true(after >= before && after < HEIST__NEVER);
    assert_true(heist__deadline_after(&clock, 1) >= after + 1000000000);
}

enum { SETTERS = 3, STEPS = 20000 };

struct setter {
    struct heist__clock *clock;
    int64_t first;
    int went_back;
};

static void *advance(void *arg) {
    struct setter *s = arg;
    int64_t seen = 0;
    for (int64_t i = 0; i < STEPS; i++) {
        int64_t to = i * SETTERS + s->first;
        heist__clock_advance_to(s->clock, to);
        int64_t now = heist__clock_now(s->clock);
        s->went_back += now < seen || now < to;
        seen = now;
    }
    return NULL;
}

static void several_setters_never_take_time_back(void **state) {
    (void)state;
    struct heist__clock clock;
    heist__clock_init(&clock, true, 0);
    struct setter setters[SETTERS];
    pthread_t thread[SETTERS];
    for (int i = 0; i < SETTERS; i++) {
        setters[i] = (struct setter){&clock, i, 0};
        assert_int_equal(pthread_create(&thread[i], NULL, advance, &setters[i]), 0);
    }
    for (int i = 0; i < SETTERS; i++) pthread_join(thread[i], NULL);
    for (int i = 0; i < SETTERS; i++) assert_int_equal(setters[i].went_back, 0);
    assert_int_equal(heist__clock_now(&clock), SETTERS * STEPS - 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_seconds_are_exact),
        cmocka_unit_test(parts_of_a_nanosecond_round_up),
        cmocka_unit_test(what_does_not_fit_saturates),
        cmocka_unit_test(instants_survive_the_way_there_and_back),
        cmocka_unit_test(an_answer_is_the_smallest_that_is_not_early),
        cmocka_unit_test(virtual_time_moves_only_forward_and_only_when_told),
        cmocka_unit_test(a_real_clock_reads_the_machine_and_cannot_be_moved),
        cmocka_unit_test(several_setters_never_take_time_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
