/* What a task finds after a forced migration: rounding modes and traps came along; errno,
 * thread-locals and pthread_self are the new thread's.
 *
 * Two workers; every check runs after each of some moves to and fro. */
#include <fenv.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "migrate.h"

#define MOVES 16

static volatile double one = 1, three = 3;
static volatile long double long_one = 1, long_three = 3;

/* A third in the present mode: upward and downward differ in the last place. */
static __attribute__((noinline)) double third(void) { return one / three; }
static __attribute__((noinline)) long double long_third(void) { return long_one / long_three; }

#if defined(__x86_64__)
static unsigned control_words(void) {
    unsigned mxcsr = 0;
    unsigned short x87 = 0;
    __asm__ volatile("stmxcsr %0" : "=m"(mxcsr));
    __asm__ volatile("fnstcw %0" : "=m"(x87));
    return (mxcsr & 0xffc0u) << 16 | x87; /* without the sticky flags, which no call preserves */
}
static void set_control_words(unsigned words) {
    unsigned mxcsr = words >> 16;
    unsigned short x87 = (unsigned short)words;
    __asm__ volatile("ldmxcsr %0" : : "m"(mxcsr));
    __asm__ volatile("fldcw %0" : : "m"(x87));
}
/* Flush to zero and denormals are zero, downward; x87: double precision, upward. */
#define ODD_WORDS(words) ((((words) | 0x80400000u | 0x20000000u) & ~0x40000000u & ~0x0f00u) | 0x0a00u)
#elif defined(__aarch64__)
static unsigned control_words(void) {
    uint64_t fpcr;
    __asm__ volatile("mrs %0, fpcr" : "=r"(fpcr));
    return (unsigned)fpcr;
}
static void set_control_words(unsigned words) {
    uint64_t fpcr = words;
    __asm__ volatile("msr fpcr, %0" : : "r"(fpcr));
}
#define ODD_WORDS(words) ((words) | 0x01000000u | 0x00400000u) /* flush to zero, upward */
#endif

static double third_in[4];
static const int modes[4] = {FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO};

/* Pinned and plain, between the others' steps: they must see none of it. */
static int sees_the_default(void *arg, void **out) {
    unsigned *words = arg;
    (void)out;
    for (int i = 0; i < MOVES * 8; i++) {
        MIGRATE_CHECK(fegetround() == FE_TONEAREST);
        MIGRATE_CHECK(control_words() == *words);
        MIGRATE_CHECK(third() == third_in[0]);
        int err = heist_yield();
        if (err) return err;
    }
    return 0;
}

static void rounding(void) {
    long double up = 0, down = 0;
    for (int round = 0; round < MOVES; round++) {
        int m = round % 4;
        MIGRATE_CHECK(fesetround(modes[m]) == 0);
        MIGRATE_CHECK(third() == third_in[m]);
        unsigned words = control_words();
        MIGRATE_CHECK(migrate() == 0);
        MIGRATE_CHECK(fegetround() == modes[m]);
        MIGRATE_CHECK(control_words() == words);
        MIGRATE_CHECK(third() == third_in[m]);
        if (modes[m] == FE_UPWARD) up = long_third();
        if (modes[m] == FE_DOWNWARD) down = long_third();
    }
    MIGRATE_CHECK(up > down);
    fesetround(FE_TONEAREST);
}

static void odd_words(void) {
    unsigned plain = control_words(), odd = ODD_WORDS(plain);
    MIGRATE_CHECK(odd != plain);
    for (int i = 0; i < MOVES; i++) {
        set_control_words(i % 2 ? plain : odd);
        MIGRATE_CHECK(migrate() == 0);
        MIGRATE_CHECK(control_words() == (i % 2 ? plain : odd));
    }
    set_control_words(plain);
}

#if defined(__x86_64__) && defined(__GLIBC__)
static void traps(void) {
    int before = fegetexcept();
    feenableexcept(FE_DIVBYZERO | FE_INVALID);
    for (int i = 0; i < MOVES; i++) {
        MIGRATE_CHECK(migrate() == 0);
        MIGRATE_CHECK(fegetexcept() == (FE_DIVBYZERO | FE_INVALID));
    }
    fedisableexcept(FE_ALL_EXCEPT);
    feenableexcept(before);
}
#endif

/* The address is the new thread's, and what the old one's holds was left there. */
static void thread_state(void) {
    for (int i = 0; i < MOVES; i++) {
        pthread_t thread = migrate_thread();
        int *place = migrate_local(), *error = migrate_errno();
        *place = 1000 + i;
        *error = EXDEV;
        MIGRATE_CHECK(migrate() == 0);
        MIGRATE_CHECK(!pthread_equal(thread, migrate_thread()));
        MIGRATE_CHECK(place != migrate_local() && error != migrate_errno());
        /* The old thread still lives, so its variables may be looked at; nobody else wrote this one. */
        MIGRATE_CHECK(*place == 1000 + i);
        *migrate_errno() = 0;
        MIGRATE_CHECK(*migrate_errno() == 0);
        heist_task *self = heist_current_task();
        MIGRATE_CHECK(self && heist_future_state(self) == HEIST_RUNNING);
    }
}

/* heist's own answers come from the thread on which the call went on. */
static void own_codes(void) {
    for (int i = 0; i < MOVES; i++) {
        heist_conn *conn = NULL;
        heist_addr nobody;
        MIGRATE_CHECK(heist_addr_parse("unix:@heist-test-nobody-listens-here", &nobody) == 0);
        *migrate_errno() = EXDEV;
        MIGRATE_CHECK(migrate() == 0);
        *migrate_errno() = EXDEV;
        MIGRATE_CHECK(heist_connect(&nobody, HEIST_FOREVER, &conn) == -ECONNREFUSED);
    }
}

static int traveller(void *arg, void **out) {
    (void)arg;
    (void)out;
    unsigned words = control_words();
    heist_task *watchers[2];
    for (int i = 0; i < 2; i++) MIGRATE_CHECK(heist_create_task(sees_the_default, &words, NULL, &watchers[i]) == 0);
    rounding();
    odd_words();
#if defined(__x86_64__) && defined(__GLIBC__)
    traps();
#endif
    thread_state();
    own_codes();
    MIGRATE_CHECK(heist_gather(watchers, 2, NULL, 0) == 0);
    for (int i = 0; i < 2; i++) heist_unref(watchers[i]);
    return 0;
}

int main(void) {
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    opts.workers = 2;
    for (int m = 0; m < 4; m++) {
        fesetround(modes[m]);
        third_in[m] = third();
    }
    fesetround(FE_TONEAREST);
    MIGRATE_CHECK(third_in[1] > third_in[2]);
    int err = heist_run(traveller, NULL, &opts, NULL);
    if (err) fprintf(stderr, "the run ended with %s\n", heist_error_name(err));
    return err != 0;
}
