/* stress/stress_migrate.c: what a task carries from thread to thread.
 *
 * Law: whatever stands in a task's frames, registers and floating-point control words
 * when it suspends is the same when it goes on, on whichever thread: deep recursions
 * with canaries and alloca, integers, vectors and long doubles that are live across the
 * call, rounding mode, precision, flushing and trap masks.  What belongs to a thread is
 * found anew after the move: errno, thread-locals, pthread_self.  A task begins with the
 * default floating-point environment, and leaves none to callbacks, pinned tasks and
 * threads.  And tasks do move.
 * Threads: travellers are unpinned tasks; a carrier, which is a pinned task, stands on
 * each worker and wakes a traveller there; a porter is a plain thread that does so from
 * outside.
 * Invariant: all that reads thread-local state is a function of its own that is never
 * inlined, for a compiler keeps such addresses across calls. */
#include "common.h"

#include <alloca.h>
#include <complex.h>
#include <errno.h>
#include <fenv.h>
#include <float.h>
#include <sys/syscall.h>
#include <unistd.h>

#define TRAVELLERS 200
#define MOST_WORKERS 16
#define THREADS_KNOWN 64
#define LEVELS 400

/* ---- what belongs to a thread ---- */

STRESS_NOINLINE static pid_t my_tid(void) { return (pid_t)syscall(SYS_gettid); }
STRESS_NOINLINE static int *errno_address(void) { return &errno; }
STRESS_NOINLINE static int get_errno(void) { return errno; }
STRESS_NOINLINE static void set_errno(int value) { errno = value; }
STRESS_NOINLINE static pthread_t my_self(void) { return pthread_self(); }
STRESS_NOINLINE static uint64_t *my_local(void) {
    static _Thread_local uint64_t local;
    return &local;
}

/* Who has which; filled in by each thread when it is met first, and the same ever after. */
static struct known {
    _Atomic(pid_t) tid; /* 0: free; written last */
    _Atomic(bool) taken;
    int *errno_at;
    uint64_t *local_at;
    pthread_t self;
} known[THREADS_KNOWN];

static void check_thread(pid_t tid) {
    struct known *k = NULL;
    for (int i = 0; i < THREADS_KNOWN && !k; i++)
        if (s_observe(&known[i].tid) == tid) k = &known[i];
    if (!k) {
        for (int i = 0; i < THREADS_KNOWN && !k; i++)
            if (!atomic_exchange_explicit(&known[i].taken, true, memory_order_relaxed)) k = &known[i];
        if (!k) return;
        k->errno_at = errno_address();
        k->local_at = my_local();
        k->self = my_self();
        for (int i = 0; i < THREADS_KNOWN; i++) {
            if (&known[i] == k || !s_observe(&known[i].tid)) continue;
            stress_check(known[i].errno_at != k->errno_at, "two threads have one errno");
            stress_check(known[i].local_at != k->local_at, "two threads have one thread-local variable");
        }
        s_publish(&k->tid, tid);
        return;
    }
    stress_check(k->errno_at == errno_address(), "a task sees the errno of another thread");
    stress_check(k->local_at == my_local(), "a task sees the thread-local variable of another thread");
    stress_check(pthread_equal(k->self, my_self()), "a task sees the identity of another thread");
}

/* ---- the floating-point environment ---- */

struct env {
    int rounding;
    uint32_t control[2];
};
static struct env standard; /* of a plain thread */

STRESS_NOINLINE static struct env get_env(void) {
    struct env e = {fegetround(), {0, 0}};
#if defined(__x86_64__)
    uint16_t x87;
    uint32_t mxcsr;
    __asm__ volatile("fnstcw %0" : "=m"(x87));
    __asm__ volatile("stmxcsr %0" : "=m"(mxcsr));
    e.control[0] = x87;
    e.control[1] = mxcsr & ~0x3fu; /* without the flags of past operations */
#elif defined(__aarch64__)
    uint64_t fpcr;
    __asm__ volatile("mrs %0, fpcr" : "=r"(fpcr));
    e.control[0] = (uint32_t)fpcr;
#endif
    return e;
}

STRESS_NOINLINE static void put_env(const struct env *e) {
#if defined(__x86_64__)
    uint16_t x87 = (uint16_t)e->control[0];
    uint32_t mxcsr = e->control[1];
    __asm__ volatile("fnclex\n\tfldcw %0" : : "m"(x87));
    __asm__ volatile("ldmxcsr %0" : : "m"(mxcsr));
#elif defined(__aarch64__)
    uint64_t fpcr = e->control[0];
    __asm__ volatile("msr fpcr, %0" : : "r"(fpcr));
#else
    fesetround(e->rounding);
#endif
}

static bool same_env(const struct env *a, const struct env *b) {
    return a->rounding == b->rounding && a->control[0] == b->control[0] && a->control[1] == b->control[1];
}

static void check_env(const struct env *want, const char *who) {
    struct env e = get_env();
    stress_check(same_env(&e, want), "%s has the control words %x %x and rounding %d, they were %x %x and %d", who,
                 e.control[0], e.control[1], e.rounding, want->control[0], want->control[1], want->rounding);
}

/* Anything that a program may choose.  Division by zero and invalid operations may trap: no task here does either
 * while they do, so a SIGFPE would be another task's. */
static struct env draw_env(struct stress_rng *r, bool traps) {
    struct env e = standard;
    unsigned mode = (unsigned)stress_below(r, 4);
#if defined(__x86_64__)
    static const int of_mode[] = {FE_TONEAREST, FE_DOWNWARD, FE_UPWARD, FE_TOWARDZERO};
    static const uint32_t precision[] = {0x000, 0x200, 0x300};
    e.rounding = of_mode[mode];
    e.control[0] = (standard.control[0] & ~0xf00u) | mode << 10 | precision[stress_below(r, 3)];
    e.control[1] = (standard.control[1] & ~0x6000u) | mode << 13;
    if (stress_chance(r, 30)) e.control[1] |= 0x8000; /* flush results to zero */
    if (stress_chance(r, 30)) e.control[1] |= 0x0040; /* denormals are zero */
    if (traps && stress_chance(r, 30)) {
        e.control[0] &= ~0x5u; /* x87: invalid, division by zero */
        e.control[1] &= ~(0x5u << 7);
    }
#elif defined(__aarch64__)
    (void)traps;
    static const int of_mode[] = {FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO};
    e.rounding = of_mode[mode];
    e.control[0] = (standard.control[0] & ~(3u << 22)) | mode << 22;
    if (stress_chance(r, 30)) e.control[0] |= 1u << 24; /* flush to zero */
#else
    (void)traps;
    (void)mode;
#endif
    return e;
}

/* ---- journeys ---- */

struct traveller {
    struct stress_rng rng;
    int slot;
    size_t stack_bytes;
    heist_task *task, *self;
    char *top; /* about where its stack begins */
    struct env env;
    unsigned hops;
};

static heist_runtime *rt;
static int workers;
static heist_channel *to_carrier[MOST_WORKERS], *to_porter;
static struct traveller travellers[TRAVELLERS];
static double round_end;
static bool trap_round;
static _Atomic(uint64_t) suspensions, moves, forced, forced_arrived, deepest, pinned_looks;
static _Atomic(uint64_t) multi_worker_forced, multi_worker_moves;
static _Atomic(pid_t) carrier_tid[MOST_WORKERS];

static int nothing(void *arg, void **out) {
    (void)arg, (void)out;
    return 0;
}

/* By way of somebody who wakes it: on worker w (or outside, for w < 0). */
static int hop(int w) {
    heist_future *f = NULL;
    int err = heist_future_new(NULL, &f);
    if (err < 0) return err;
    heist_ref(f); /* the carrier's */
    err = heist_channel_send(w < 0 ? to_porter : to_carrier[w], f);
    if (err == 0) err = heist_await(f, NULL);
    else heist_unref(f);
    heist_unref(f);
    return err;
}

/* One suspension, mostly on the way to another thread. */
static STRESS_NOINLINE void travel(struct traveller *t) {
    struct stress_rng *r = &t->rng;
    pid_t from = my_tid();
    put_env(&t->env);
    uint64_t kind = stress_below(r, 16);
    int err = 0, target = -1;
    set_errno((int)stress_below(r, 1000) + 1);
    double departed = stress_now();
    stress_wait_begin(t->slot, "a journey", 0.01);
    if (kind < 8) {
        target = (int)stress_below(r, (uint64_t)workers);
        err = hop(target);
    } else if (kind < 10) {
        err = hop(-1);
    } else if (kind < 13) {
        err = heist_yield();
    } else if (kind < 15) {
        err = heist_sleep((double)stress_between(r, 1, 1000) * 1e-6);
    } else {
        heist_task *child = NULL;
        err = heist_create_task(nothing, NULL, NULL, &child);
        if (err == 0) err = heist_await(child, NULL);
        heist_unref(child);
    }
    stress_wait_end(t->slot);
    check_env(&t->env, "a task after a suspension");
    put_env(&standard);
    pid_t to = my_tid();
    if (kind < 13) stress_latency(stress_now() - departed); /* the others sleep or work */
    int mark = (int)stress_below(r, 1000) + 1;
    set_errno(mark);
    stress_check(err == 0, "a journey ended with %s", heist_error_name(err));
    check_thread(to);
    stress_check(get_errno() == mark, "errno changed and nothing was called that sets it");
    stress_check(heist_current_task() == t->self, "current_task answers another task");
    s_add(&suspensions, 1);
    if (to != from) s_add(&moves, 1);
    if (workers > 1 && to != from) s_add(&multi_worker_moves, 1);
    if (target >= 0) {
        s_add(&forced, 1);
        if (workers > 1) s_add(&multi_worker_forced, 1);
        if (s_get(&carrier_tid[target]) == to) s_add(&forced_arrived, 1);
    }
    t->hops++;
    stress_progress(1);
}

/* ---- what is live across a suspension ---- */

__extension__ typedef unsigned __int128 wide_word;
typedef double quad __attribute__((vector_size(32)));
typedef float octet __attribute__((vector_size(32)));
typedef uint32_t block __attribute__((vector_size(64)));

static uint64_t word(uint64_t seed, unsigned i) { return stress_mix(seed, 0x5eed + i); }
static double real(uint64_t seed, unsigned i) { return (double)(int64_t)word(seed, i) * 0x1p-40; }

static STRESS_NOINLINE void carry_words(struct traveller *t, uint64_t seed) {
    uint64_t a = word(seed, 0), b = word(seed, 1), c = word(seed, 2), d = word(seed, 3), e = word(seed, 4),
             f = word(seed, 5), g = word(seed, 6), h = word(seed, 7);
    wide_word wide = (wide_word)a << 64 | b;
    /* the compiler is to believe that they come from nowhere: it must keep them, and as many as fit in registers */
    __asm__ volatile("" : "+r"(a), "+r"(b), "+r"(c), "+r"(d), "+r"(e), "+r"(f), "+r"(g), "+r"(h));
    travel(t);
    __asm__ volatile("" : "+r"(a), "+r"(b), "+r"(c), "+r"(d), "+r"(e), "+r"(f), "+r"(g), "+r"(h));
    stress_check(a == word(seed, 0) && b == word(seed, 1) && c == word(seed, 2) && d == word(seed, 3) &&
                     e == word(seed, 4) && f == word(seed, 5) && g == word(seed, 6) && h == word(seed, 7),
                 "an integer that was live across a suspension changed");
    stress_check(wide == ((wide_word)a << 64 | b), "a 128-bit integer changed");
}

static STRESS_NOINLINE void carry_reals(struct traveller *t, uint64_t seed) {
    double a = real(seed, 0), b = real(seed, 1), c = real(seed, 2), d = real(seed, 3);
    float e = (float)real(seed, 4), f = (float)real(seed, 5);
    long double g = (long double)real(seed, 6) + LDBL_EPSILON * 64, h = (long double)real(seed, 7) / 3;
    long double g2 = g, h2 = h;
    double complex z = real(seed, 8) + real(seed, 9) * I;
    __asm__ volatile("" : "+m"(g2), "+m"(h2));
    travel(t);
    stress_check(a == real(seed, 0) && b == real(seed, 1) && c == real(seed, 2) && d == real(seed, 3),
                 "a double that was live across a suspension changed");
    stress_check(e == (float)real(seed, 4) && f == (float)real(seed, 5), "a float changed");
    stress_check(g == g2 && h == h2 && h == (long double)real(seed, 7) / 3, "a long double changed");
    stress_check(creal(z) == real(seed, 8) && cimag(z) == real(seed, 9), "a complex number changed");
}

static STRESS_NOINLINE void carry_vectors(struct traveller *t, uint64_t seed) {
    quad q = {real(seed, 0), real(seed, 1), real(seed, 2), real(seed, 3)};
    octet o;
    block b;
    for (unsigned i = 0; i < 8; i++) o[i] = (float)real(seed, 4 + i);
    for (unsigned i = 0; i < 16; i++) b[i] = (uint32_t)word(seed, 12 + i);
    block twice = b + b;
    /* their places on the stack are as aligned as their types ask for */
    stress_check((uintptr_t)&b % 64 == 0 && (uintptr_t)&o % 32 == 0, "a vector is not aligned on a task's stack");
    __asm__ volatile("" : "+m"(q), "+m"(o), "+m"(b));
    travel(t);
    __asm__ volatile("" : "+m"(q), "+m"(o), "+m"(b));
    bool same = true;
    for (unsigned i = 0; i < 4; i++) same = same && q[i] == real(seed, i);
    for (unsigned i = 0; i < 8; i++) same = same && o[i] == (float)real(seed, 4 + i);
    for (unsigned i = 0; i < 16; i++) same = same && b[i] == (uint32_t)word(seed, 12 + i) && twice[i] == b[i] + b[i];
    stress_check(same, "a vector that was live across a suspension changed");
}

#if defined(__x86_64__)
/* The wide registers themselves, where the machine has them: they are the caller's to keep, also for the caller's
 * caller, and the upper halves must not be lost on the way. */
__attribute__((target("avx2"))) static STRESS_NOINLINE void carry_wide(struct traveller *t, uint64_t seed) {
    quad a = {real(seed, 0), real(seed, 1), real(seed, 2), real(seed, 3)}, b = a * a;
    __asm__ volatile("" : "+x"(a), "+x"(b));
    travel(t);
    __asm__ volatile("" : "+x"(a), "+x"(b));
    quad want = {real(seed, 0), real(seed, 1), real(seed, 2), real(seed, 3)};
    bool same = true;
    for (unsigned i = 0; i < 4; i++) same = same && a[i] == want[i] && b[i] == want[i] * want[i];
    stress_check(same, "a 256-bit register's value changed across a suspension");
}
#endif

/* The control words do what they say, before and after: the same operations give the same results.  All is volatile,
 * for a compiler knows nothing of control words and would move a division past the call that changes them. */
struct sums {
    volatile double third, negative, tiny;
    volatile float single;
    volatile long double third_long;
};
static const volatile double one = 1, three = 3, least = DBL_MIN;
static const volatile float single_one = 1, single_three = 3;
static const volatile long double long_one = 1, long_three = 3;

#define COMPUTE(s)                                                                                                     \
    ((s)->third = one / three, (s)->negative = -one / three, (s)->tiny = least / three,                                \
     (s)->single = single_one / single_three, (s)->third_long = long_one / long_three)

static STRESS_NOINLINE void carry_modes(struct traveller *t) {
    t->env = draw_env(&t->rng, trap_round);
    struct sums before, after;
    put_env(&t->env);
    COMPUTE(&before);
    put_env(&standard);
    stress_wait_begin(t->slot, "a yield under another rounding", 0.01);
    put_env(&t->env);
    int err = heist_yield(); /* nothing of ours between here and the sums: what was in force stays in force */
    COMPUTE(&after);
    put_env(&standard);
    stress_wait_end(t->slot);
    stress_check(err == 0, "a yield answered %s", heist_error_name(err));
    stress_check(before.third == after.third && before.negative == after.negative && before.single == after.single &&
                     before.third_long == after.third_long && before.tiny == after.tiny,
                 "after a suspension the same division has another result: the control words were not in force");
    travel(t);
}

/* What a task may leave behind it: flags of operations that trapped nobody, as they were masked. */
static STRESS_NOINLINE void raise_flags(struct traveller *t) {
    volatile long double zero = 0, result;
    volatile double small_zero = 0, small_result;
    put_env(&standard);
    result = long_one / zero;
    result = zero / zero;
    small_result = one / small_zero;
    small_result = small_zero / small_zero;
    (void)result, (void)small_result;
    stress_wait_begin(t->slot, "a yield with flags raised", 0.01);
    int err = heist_yield(); /* at once: what clears the flags would hide them from the next task */
    stress_wait_end(t->slot);
    stress_check(err == 0, "a yield answered %s", heist_error_name(err));
    travel(t);
}

/* ---- deep stacks ---- */

struct frame {
    const struct frame *caller;
    const struct frame *self;
    unsigned char *canary;
    size_t bytes;
    uint64_t seed;
};

static unsigned char canary_byte(uint64_t seed, size_t i) { return (unsigned char)(seed >> (i % 8 * 8) ^ i); }

static void check_frame(const struct frame *f, const char *when) {
    stress_check(f->self == f, "a frame is not where it was, %s", when);
    for (size_t i = 0; i < f->bytes; i++) {
        if (f->canary[i] == canary_byte(f->seed, i)) continue;
        stress_fail("byte %zu of %zu of a frame changed, %s", i, f->bytes, when);
        return;
    }
}

static void carry_something(struct traveller *t, uint64_t seed) {
    switch (stress_below(&t->rng, 6)) {
        case 0: carry_words(t, seed); break;
        case 1: carry_reals(t, seed); break;
        case 2: carry_vectors(t, seed); break;
        case 3: carry_modes(t); break;
        case 4: raise_flags(t); break;
        default:
#if defined(__x86_64__)
            if (__builtin_cpu_supports("avx2")) carry_wide(t, seed);
            else carry_vectors(t, seed);
#else
            travel(t);
#endif
            break;
    }
}

static STRESS_NOINLINE uint64_t descend(struct traveller *t, const struct frame *caller, unsigned level) {
    struct stress_rng *r = &t->rng;
    size_t left = t->stack_bytes - (size_t)(t->top - (char *)__builtin_frame_address(0));
    size_t bytes = (size_t)stress_between(r, 16, 8000);
    struct frame f = {caller, &f, alloca(bytes), bytes, stress_next(r)};
    for (size_t i = 0; i < bytes; i++) f.canary[i] = canary_byte(f.seed, i);
    struct env outer = t->env;
    if (stress_chance(r, 30)) t->env = draw_env(r, trap_round);
    if (stress_chance(r, 15)) carry_something(t, f.seed);
    uint64_t sum = f.seed;
    /* what is left must serve the calls of a suspension, and a detector's frames are several times as big */
    size_t reserve = 24 * 1024 + 16000;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    reserve += 32 * 1024;
#endif
    if (left > reserve && level < LEVELS && stress_now() < round_end + 1) sum += descend(t, &f, level + 1);
    else carry_something(t, f.seed); /* at the bottom always */
    check_frame(&f, "when its callee had returned");
    if (stress_chance(r, 15)) {
        carry_something(t, f.seed);
        check_frame(&f, "after a suspension");
        for (const struct frame *up = caller; up && stress_chance(r, 80); up = up->caller)
            check_frame(up, "after a suspension further down");
    }
    t->env = outer;
    size_t depth = (size_t)(t->top - (char *)&f);
    uint64_t most = s_get(&deepest);
    while (depth > most &&
           !atomic_compare_exchange_weak_explicit(&deepest, &most, depth, memory_order_relaxed, memory_order_relaxed)) {
    }
    return sum ^ f.seed;
}

static int traveller_body(void *arg, void **out) {
    (void)out;
    struct traveller *t = arg;
    check_env(&standard, "a new task");
    t->top = __builtin_frame_address(0);
    t->self = heist_current_task();
    t->env = standard;
    while (stress_now() < round_end && stress_going()) {
        if (stress_chance(&t->rng, 30)) descend(t, NULL, 0);
        else carry_something(t, stress_next(&t->rng));
        if (stress_chance(&t->rng, 30)) t->env = draw_env(&t->rng, trap_round);
    }
    /* some end as they are: what they set must not be found by anybody */
    put_env(stress_chance(&t->rng, 50) ? &t->env : &standard);
    return 0;
}

/* ---- those who wake them ---- */

/* A pinned task that never changes its environment: the other tasks' must not show in it. */
static int carrier_body(void *arg, void **out) {
    (void)out;
    int w = (int)(intptr_t)arg;
    pid_t here = my_tid();
    s_set(&carrier_tid[w], here);
    check_env(&standard, "a new pinned task");
    for (;;) {
        void *item = NULL;
        int err = heist_channel_recv(to_carrier[w], &item);
        check_env(&standard, "a pinned task");
        stress_check(my_tid() == here, "a pinned task saw another thread");
        s_add(&pinned_looks, 1);
        if (err == HEIST_ESHUTDOWN) return 0;
        stress_check(err == 0, "a carrier's receipt answered %s", heist_error_name(err));
        if (err < 0) return err;
        err = heist_future_set_result(item, NULL, NULL);
        stress_check(err == 0, "set_result answered %s", heist_error_name(err));
        heist_unref(item);
    }
}

static void *porter_thread(void *arg) {
    (void)arg;
    for (;;) {
        void *item = NULL;
        int err = heist_channel_recv(to_porter, &item);
        check_env(&standard, "a plain thread");
        if (err < 0) return NULL;
        err = heist_future_set_result(item, NULL, NULL);
        stress_check(err == 0, "set_result answered %s", heist_error_name(err));
        heist_unref(item);
    }
}

/* A callback runs on the worker's own stack, between tasks. */
static int look_around(void *arg) {
    check_env(&standard, "a callback");
    check_thread(my_tid());
    s_add(&pinned_looks, 1);
    if (stress_now() < round_end && stress_going())
        (void)heist_loop_call_later(arg, 1e-3, look_around, arg, NULL, NULL); /* refused once the loop closes */
    return 0;
}

/* ---- a round ---- */

static void one_round(struct stress_rng *rng) {
    memset(known, 0, sizeof known);
    heist_runtime_options o = HEIST_RUNTIME_OPTIONS_INIT;
    static const size_t stacks[] = {128 << 10, 128 << 10, 256 << 10, 1 << 20, 4 << 20};
    int drawn = stress_draw_workers(rng);
    workers = drawn < MOST_WORKERS ? drawn : MOST_WORKERS;
    rt = stress_runtime("migrate", workers, &o);
    int n = (int)stress_between(rng, 1, stress_scale(TRAVELLERS));
    trap_round = stress_chance(rng, 50);
    double span = 0.1 + 0.1 * (double)stress_below(rng, 10);
    stress_settings("%d workers, %d travellers, %.1f s%s", workers, n, span, trap_round ? ", traps" : "");
    stress_phase("travelling");
    round_end = stress_now() + span;
    int err = heist_channel_new(64, &to_porter);
    for (int w = 0; w < workers && err == 0; w++) err = heist_channel_new(64, &to_carrier[w]);
    if (err < 0) stress_die("a channel: %s", heist_strerror(err));
    heist_task *carrier[MOST_WORKERS] = {0};
    pthread_t porter;
    stress_thread(&porter, porter_thread, NULL);
    heist_task_options to = HEIST_TASK_OPTIONS_INIT;
    for (int w = 0; w < workers; w++) {
        to.flags = HEIST_TASK_PINNED;
        to.name = "carrier";
        heist_loop *loop = heist_runtime_loop(rt, w);
        err = heist_run_coroutine_threadsafe(loop, carrier_body, (void *)(intptr_t)w, &to, &carrier[w]);
        if (err == 0) err = heist_loop_call_soon(loop, look_around, loop, NULL, NULL);
        if (err < 0) stress_die("a carrier: %s", heist_strerror(err));
    }
    for (int i = 0; i < n; i++) {
        struct traveller *t = &travellers[i];
        memset(t, 0, sizeof *t);
        t->rng = stress_stream(rng, (uint64_t)i);
        t->slot = i;
        t->stack_bytes = stacks[stress_below(&t->rng, 5)];
        to = (heist_task_options)HEIST_TASK_OPTIONS_INIT;
        to.stack_bytes = t->stack_bytes;
        to.name = "traveller";
        err = heist_runtime_run_coroutine(rt, traveller_body, t, &to, &t->task);
        if (err < 0) stress_die("a task: %s", heist_strerror(err));
    }
    for (int i = 0; i < n; i++) {
        err = heist_await(travellers[i].task, NULL);
        stress_check(err == 0, "a traveller ended with %s", heist_error_name(err));
        heist_unref(travellers[i].task);
    }
    heist_channel_close(to_porter);
    for (int w = 0; w < workers; w++) heist_channel_close(to_carrier[w]);
    for (int w = 0; w < workers; w++) {
        err = heist_await(carrier[w], NULL);
        stress_check(err == 0, "a carrier ended with %s", heist_error_name(err));
        heist_unref(carrier[w]);
    }
    stress_join(porter);
    stress_runtime_end(rt);
    for (int w = 0; w < workers; w++) heist_channel_unref(to_carrier[w]);
    heist_channel_unref(to_porter);
    check_env(&standard, "the main thread");
}

int main(int argc, char **argv) {
    stress_begin(argc, argv, "migrate",
                 "stacks, registers and control words move with a task; what is a thread's stays");
    standard = get_env();
    struct stress_rng rng;
    while (stress_next_round(&rng)) one_round(&rng);
    stress_phase("migration at all");
    if (s_get(&multi_worker_forced) > 1000)
        stress_check(s_get(&multi_worker_moves) > s_get(&multi_worker_forced) / 100,
                     "of %" PRIu64 " tasks that were woken on a worker drawn by lot only %" PRIu64 " moved",
                     s_get(&multi_worker_forced), s_get(&multi_worker_moves));
    stress_note("suspensions %" PRIu64 ", of which %" PRIu64
                " ended on another thread; woken on a chosen worker %" PRIu64 ", arrived there %" PRIu64,
                s_get(&suspensions), s_get(&moves), s_get(&forced), s_get(&forced_arrived));
    stress_note("deepest stack %" PRIu64 " KiB; looks of pinned tasks and callbacks %" PRIu64, s_get(&deepest) / 1024,
                s_get(&pinned_looks));
    return stress_end();
}
