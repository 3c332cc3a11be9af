/* conc/spin.h and conc/rank.h: mutual exclusion with more threads than
 * processors, and the order of ranked locks where the build checks it. */
#include "conc/spin.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "crew.h"

static void trylock_takes_a_free_lock_only(void **state) {
    (void)state;
    struct heist__spin s;
    heist__spin_init(&s);
    assert_false(heist__spin_is_held(&s));
    assert_true(heist__spin_trylock(&s));
    assert_true(heist__spin_is_held(&s));
    assert_false(heist__spin_trylock(&s));
    heist__spin_unlock(&s);
    heist__spin_lock(&s);
    assert_false(heist__spin_trylock(&s));
    heist__spin_unlock(&s);
    assert_false(heist__spin_is_held(&s));
}

static void zeroed_memory_is_an_unlocked_lock(void **state) {
    (void)state;
    static struct heist__spin s;
    assert_true(heist__spin_trylock(&s));
    heist__spin_unlock(&s);
}

struct shared {
    struct heist__spin lock;
    long counter;  /* plain: a hole in the lock is a lost count, and a race to the detector */
    long doubled;  /* always twice the counter outside the lock */
    long tries;
};

static void count_up(void *self) {
    struct shared *s = self;
    for (int i = 0; i < CREW_ROUNDS; i++) {
        heist__spin_lock(&s->lock);
        s->counter++;
        s->doubled += 2;
        heist__spin_unlock(&s->lock);
    }
}

static void count_up_by_trying(void *self) {
    struct shared *s = self;
    for (int i = 0; i < CREW_ROUNDS; i++) {
        if (!heist__spin_trylock(&s->lock)) continue;
        s->counter++;
        s->doubled += 2;
        s->tries++;
        heist__spin_unlock(&s->lock);
    }
}

static void eight_threads_never_hold_it_together(void **state) {
    (void)state;
    struct shared s = {0};
    heist__spin_init(&s.lock);
    struct crew c;
    struct crew_member m[8];
    for (int i = 0; i < 8; i++) m[i] = (struct crew_member){.body = i < 6 ? count_up : count_up_by_trying, .self = &s};
    crew_start(&c, m, 8);
    crew_join(&c);
    assert_int_equal(s.counter, 6L * CREW_ROUNDS + s.tries);
    assert_int_equal(s.doubled, 2 * s.counter);
    assert_false(heist__spin_is_held(&s.lock));
}

#ifdef HEIST_DEBUG_LOCKS

static struct heist__spin outer, inner, other_inner, unranked;

/* The signal that ends a child which runs body; 0 when it returns. */
static int end_of_child(void (*body)(void)) {
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct rlimit no_core = {0, 0};
        setrlimit(RLIMIT_CORE, &no_core);
        signal(SIGABRT, SIG_DFL);
        close(STDERR_FILENO);
        body();
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void in_order(void) {
    heist__spin_lock(&outer);
    heist__spin_lock(&inner);
    heist__spin_unlock(&outer); /* given back in any order */
    heist__spin_unlock(&inner);
    heist__spin_lock(&inner);
    heist__spin_lock(&unranked);
    heist__spin_unlock(&unranked);
    heist__spin_unlock(&inner);
}

static void out_of_order(void) {
    heist__spin_lock(&inner);
    heist__spin_lock(&outer);
}

static void of_one_rank(void) {
    heist__spin_lock(&inner);
    (void)heist__spin_trylock(&other_inner);
}

static void not_held(void) {
    heist__spin_unlock(&inner);
}

static void a_lock_out_of_order_aborts(void **state) {
    (void)state;
    heist__spin_init_ranked(&outer, HEIST__RANK_LOOP);
    heist__spin_init_ranked(&inner, HEIST__RANK_TIMERS);
    heist__spin_init_ranked(&other_inner, HEIST__RANK_TIMERS);
    heist__spin_init(&unranked);
    assert_int_equal(end_of_child(in_order), 0);
    assert_int_equal(end_of_child(out_of_order), SIGABRT);
    assert_int_equal(end_of_child(of_one_rank), SIGABRT);
    assert_int_equal(end_of_child(not_held), SIGABRT);
}

static void held_counts_ranked_locks(void **state) {
    (void)state;
    heist__spin_init_ranked(&outer, HEIST__RANK_LOOP);
    heist__spin_init_ranked(&inner, HEIST__RANK_TIMERS);
    assert_int_equal(heist__rank_held(), 0);
    heist__spin_lock(&outer);
    assert_true(heist__spin_trylock(&inner));
    assert_int_equal(heist__rank_held(), 2);
    heist__spin_unlock(&outer);
    heist__spin_unlock(&inner);
    assert_int_equal(heist__rank_held(), 0);
}

#else

static void ranks_cost_nothing_in_this_build(void **state) {
    (void)state;
    struct heist__spin s;
    heist__spin_init_ranked(&s, HEIST__RANK_LOOP);
    assert_int_equal(sizeof(s), sizeof(uint32_t));
    assert_int_equal(heist__rank_held(), 0);
}

#endif

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(trylock_takes_a_free_lock_only),
        cmocka_unit_test(zeroed_memory_is_an_unlocked_lock),
        cmocka_unit_test(eight_threads_never_hold_it_together),
#ifdef HEIST_DEBUG_LOCKS
        cmocka_unit_test(a_lock_out_of_order_aborts),
        cmocka_unit_test(held_counts_ranked_locks),
#else
        cmocka_unit_test(ranks_cost_nothing_in_this_build),
#endif
    };
    return cmocka_run_group_tests_name("conc/spin", tests, NULL, NULL);
}
