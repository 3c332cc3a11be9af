/* conc/parker.h: no wake is lost, no park returns before its deadline unwoken,
 * and a late waker meets a parker, whoever has it now. */
#include "conc/parker.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "conc/atomic.h"
#include "crew.h"
#include "support/pace.h"

static int64_t now_ns(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

static void a_wake_before_the_park_is_kept_and_taken_once(void **state) {
    (void)state;
    struct heist__parker *p = heist__parker_get();
    assert_non_null(p);
    assert_ptr_equal(heist__parker_get(), p);
    heist__parker_prepare(p);
    heist__parker_unpark(p);
    heist__parker_unpark(p); /* two wakes are one */
    assert_int_equal(heist__parker_park(p, INT64_MAX, 0), 0);
    assert_int_equal(heist__parker_park(p, 0, 0), -ETIMEDOUT);
    heist__parker_unpark(p);
    assert_int_equal(heist__parker_park(p, 0, 0), 0); /* a wake counts though the time is over */
}

static void prepare_forgets_earlier_wakes(void **state) {
    (void)state;
    struct heist__parker *p = heist__parker_get();
    heist__parker_unpark(p);
    heist__parker_prepare(p);
    assert_int_equal(heist__parker_park(p, 0, 0), -ETIMEDOUT);
}

static void a_park_without_wake_ends_at_its_deadline_not_before(void **state) {
    (void)state;
    struct heist__parker *p = heist__parker_get();
    heist__parker_prepare(p);
    const int64_t spins[] = {0, 200000, INT64_MAX};
    for (size_t i = 0; i < HEIST_ARRAY_LEN(spins); i++) {
        int64_t deadline = now_ns() + 2000000;
        assert_int_equal(heist__parker_park(p, deadline, spins[i]), -ETIMEDOUT);
        assert_true(now_ns() >= deadline);
    }
    assert_int_equal(heist__parker_park(p, -1, 0), -ETIMEDOUT);
    assert_int_equal(heist__parker_park(p, INT64_MIN, 1000), -ETIMEDOUT);
    /* A time-out leaves nothing behind. */
    heist__parker_unpark(p);
    assert_int_equal(heist__parker_park(p, INT64_MAX, 0), 0);
}

/* Two threads that hand a counter to and fro, asleep between. */
struct side {
    struct side *other;
    struct heist__parker *parker;
    pthread_barrier_t *ready;
    _Atomic(int) turn; /* how many times it was this side's turn; written by the other */
    long *counter;     /* plain, guarded by the turns */
    int64_t spin_ns;
    _Atomic(int) *rounds; /* lowered by the side that begins, when there is no time for more */
    int failed;
    bool begins, times_out;
};

static void hand_over(struct side *s) {
    (*s->counter)++;
    struct heist__parker *p = s->other->parker;
    /* Release pairs with the load in play: the counter goes with the turn. */
    (void)a_add_ar(&s->other->turn, 1);
    heist__parker_unpark(p);
}

static void play(void *self) {
    struct side *s = self;
    s->parker = heist__parker_get();
    heist__parker_prepare(s->parker);
    pthread_barrier_wait(s->ready);
    struct pace pace = pace_of(a_load_acq(s->rounds), 10, 2);
    if (s->begins) hand_over(s);
    for (int round = 1; round <= a_load_acq(s->rounds); round++) {
        while (a_load_acq(&s->turn) < round) {
            int64_t deadline = s->times_out ? now_ns() + 1 : INT64_MAX;
            int rc = heist__parker_park(s->parker, deadline, s->spin_ns);
            if (rc != 0 && !(s->times_out && rc == -ETIMEDOUT)) s->failed++;
        }
        /* Told before the turn is handed over: the next round is the last. */
        if (s->begins && round + 1 < a_load_acq(s->rounds) && !pace_goes_on(&pace)) a_store_rel(s->rounds, round + 1);
        if (!s->begins || round < a_load_acq(s->rounds)) hand_over(s);
    }
}

static void run_sides(int most, int64_t spin_ns, bool times_out) {
    _Atomic(int) rounds = most;
    pthread_barrier_t ready;
    assert_int_equal(pthread_barrier_init(&ready, NULL, 2), 0);
    long counter = 0;
    struct side s[2] = {{.begins = true}, {.begins = false}};
    struct crew c;
    struct crew_member m[2];
    for (int i = 0; i < 2; i++) {
        s[i].other = &s[1 - i];
        s[i].ready = &ready;
        s[i].counter = &counter;
        s[i].rounds = &rounds;
        s[i].spin_ns = spin_ns;
        s[i].times_out = times_out;
        m[i] = (struct crew_member){.body = play, .self = &s[i]};
    }
    crew_start(&c, m, 2);
    crew_join(&c);
    assert_int_equal(s[0].failed + s[1].failed, 0);
    assert_int_equal(counter, 2L * a_load_acq(&rounds));
    pthread_barrier_destroy(&ready);
}

static void no_wake_is_lost_between_two_sleepers(void **state) {
    (void)state;
    run_sides(CREW_ROUNDS / 10, 0, false);
}

static void no_wake_is_lost_after_a_spin(void **state) {
    (void)state;
    run_sides(CREW_ROUNDS / 20, 3000, false);
}

static void a_wake_that_meets_a_time_out_is_not_lost(void **state) {
    (void)state;
    run_sides(CREW_ROUNDS / 20, 0, true);
}

/* Signals do not end a park. */
static void ignore(int sig) {
    (void)sig;
}

struct parked {
    _Atomic(struct heist__parker *) parker;
    _Atomic(bool) woken, gone;
    bool told_before_return;
    int rc;
};

static void park_once(void *self) {
    struct parked *s = self;
    struct heist__parker *p = heist__parker_get();
    heist__parker_prepare(p);
    a_store_rel(&s->parker, p);
    s->rc = heist__parker_park(p, INT64_MAX, 0);
    s->told_before_return = a_load_acq(&s->woken);
    a_store_rel(&s->gone, true);
}

static void a_signal_does_not_end_a_park(void **state) {
    (void)state;
    struct sigaction sa, before;
    memset(&sa, 0, sizeof(sa));
    sa.sa_handler = ignore; /* without SA_RESTART */
    assert_int_equal(sigaction(SIGUSR1, &sa, &before), 0);
    struct parked s = {.rc = 0};
    struct crew c;
    struct crew_member m = {.body = park_once, .self = &s};
    crew_start(&c, &m, 1);
    while (!a_load_acq(&s.parker)) sched_yield();
    for (int i = 0; i < 200; i++) {
        pthread_kill(c.thread[0], SIGUSR1);
        sched_yield();
    }
    assert_false(a_load_acq(&s.gone));
    a_store_rel(&s.woken, true);
    heist__parker_unpark(a_load_acq(&s.parker));
    crew_join(&c);
    assert_int_equal(s.rc, 0);
    assert_true(s.told_before_return);
    sigaction(SIGUSR1, &before, NULL);
}

static void note_parker(void *self) {
    struct parked *s = self;
    a_store_rel(&s->parker, heist__parker_get());
}

static struct heist__parker *parker_of_a_thread_that_ended(void) {
    struct parked s = {.rc = 0};
    struct crew c;
    struct crew_member m = {.body = note_parker, .self = &s};
    crew_start(&c, &m, 1);
    crew_join(&c);
    return a_load_acq(&s.parker);
}

static void a_parker_outlives_its_thread_and_is_used_again(void **state) {
    (void)state;
    struct heist__parker *p = parker_of_a_thread_that_ended();
    assert_non_null(p);
    assert_ptr_not_equal(p, heist__parker_get());
    heist__parker_unpark(p); /* a late waker */
    long live = heist__alloc_live();
    assert_ptr_equal(parker_of_a_thread_that_ended(), p);
    assert_int_equal(heist__alloc_live(), live);
}

static void a_late_wake_is_at_worst_spurious(void **state) {
    (void)state;
    struct heist__parker *p = heist__parker_get();
    heist__parker_prepare(p);
    heist__parker_unpark(p); /* meant for somebody who had p before */
    bool condition = false;
    assert_int_equal(heist__parker_park(p, INT64_MAX, 0), 0);
    assert_false(condition);
    heist__parker_unpark(p); /* the real one, after the spurious return */
    assert_int_equal(heist__parker_park(p, INT64_MAX, 0), 0);
}

static void without_memory_there_is_no_parker_and_no_harm(void **state) {
    (void)state;
    heist__parker_pool_release();
    heist__alloc_fail_from(1);
    assert_null(parker_of_a_thread_that_ended());
    assert_null(heist__parker_get());
    heist__alloc_fail_after(-1);
    assert_non_null(heist__parker_get());
}

static void hold_then_end(void *self) {
    struct parked *s = self;
    a_store_rel(&s->parker, heist__parker_get());
    while (!a_load_acq(&s->woken)) sched_yield();
}

static void release_leaves_nothing(void **state) {
    (void)state;
    heist__parker_pool_release();
    long live = heist__alloc_live();
    assert_non_null(heist__parker_get());
    assert_non_null(parker_of_a_thread_that_ended());
    /* A thread that outlives the release frees its own at its end. */
    struct parked s = {.rc = 0};
    struct crew c;
    struct crew_member m = {.body = hold_then_end, .self = &s};
    crew_start(&c, &m, 1);
    while (!a_load_acq(&s.parker)) sched_yield();
    heist__parker_pool_release();
    heist__parker_pool_release();
    a_store_rel(&s.woken, true);
    crew_join(&c);
    assert_int_equal(heist__alloc_live(), live);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_wake_before_the_park_is_kept_and_taken_once),
        cmocka_unit_test(prepare_forgets_earlier_wakes),
        cmocka_unit_test(a_park_without_wake_ends_at_its_deadline_not_before),
        cmocka_unit_test(no_wake_is_lost_between_two_sleepers),
        cmocka_unit_test(no_wake_is_lost_after_a_spin),
        cmocka_unit_test(a_wake_that_meets_a_time_out_is_not_lost),
        cmocka_unit_test(a_signal_does_not_end_a_park),
        cmocka_unit_test(a_parker_outlives_its_thread_and_is_used_again),
        cmocka_unit_test(a_late_wake_is_at_worst_spurious),
        cmocka_unit_test(without_memory_there_is_no_parker_and_no_harm),
        cmocka_unit_test(release_leaves_nothing),
    };
    return cmocka_run_group_tests_name("conc/parker", tests, NULL, NULL);
}
