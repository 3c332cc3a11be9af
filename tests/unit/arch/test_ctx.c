/* The context switch: payloads, registers, control words, alignment.
 *
 * Each test runs one context on a stack of its own and switches by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fenv.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "arch/cpu.h"
#include "arch/ctx.h"

#define STACK_BYTES ((size_t)64 << 10)

static void *host_sp, *coro_sp;
static char *memory;

static int make_stack(void **state) {
    (void)state;
    memory = aligned_alloc(4096, STACK_BYTES);
    memset(memory, 0, STACK_BYTES);
    return memory ? 0 : -1;
}

static int free_stack(void **state) {
    (void)state;
    free(memory);
    return 0;
}

static void start(void (*entry)(void *)) { coro_sp = heist__ctx_init(memory + STACK_BYTES, entry); }

/* Both forms of the switch, which may be mixed: all tests run with each on either side. */
static bool enter_jumps, leave_jumps;

static void *enter(void *payload) {
    return enter_jumps ? heist__ctx_jump(&host_sp, coro_sp, payload) : heist__ctx_switch(&host_sp, coro_sp, payload);
}

static void *leave(void *payload) {
    return leave_jumps ? heist__ctx_jump(&coro_sp, host_sp, payload) : heist__ctx_switch(&coro_sp, host_sp, payload);
}

static void add_one_for_ever(void *payload) {
    for (;;) payload = leave((void *)((uintptr_t)payload + 1));
}

static void switch_passes_payloads_both_ways(void **state) {
    (void)state;
    start(add_one_for_ever);
    for (uintptr_t i = 0; i < 100000; i++) assert_int_equal((uintptr_t)enter((void *)i), i + 1);
}

static void first_frame_is_small_and_leaves_the_rest_alone(void **state) {
    (void)state;
    memset(memory, 0x5a, STACK_BYTES);
    start(add_one_for_ever);
    assert_ptr_equal(coro_sp, memory + STACK_BYTES - HEIST__CTX_FIRST_FRAME);
    for (size_t i = 0; i < STACK_BYTES - HEIST__CTX_FIRST_FRAME; i++) assert_int_equal(memory[i], 0x5a);
}

/* Fills every register that a callee must preserve, right before each leave. */
static void spoil_registers(void *payload) {
    for (;;) {
#if defined(__x86_64__)
        __asm__ volatile("movq $-1, %%rbx; movq $-1, %%r12; movq $-1, %%r13; movq $-1, %%r14; movq $-1, %%r15" ::
                             : "rbx", "r12", "r13", "r14", "r15");
#elif defined(__aarch64__)
        __asm__ volatile("mov x19, #-1; mov x20, #-1; mov x21, #-1; mov x22, #-1; mov x23, #-1; mov x24, #-1;"
                         "mov x25, #-1; mov x26, #-1; mov x27, #-1; mov x28, #-1;"
                         "fmov d8, #1.0; fmov d9, #1.0; fmov d10, #1.0; fmov d11, #1.0;"
                         "fmov d12, #1.0; fmov d13, #1.0; fmov d14, #1.0; fmov d15, #1.0" ::
                             : "x19", "x20", "x21", "x22", "x23", "x24", "x25", "x26", "x27", "x28", "d8", "d9", "d10",
                               "d11", "d12", "d13", "d14", "d15");
#endif
        payload = leave(payload);
    }
}

/* A value that the compiler knows nothing of, in a register. */
static inline uint64_t opaque(uint64_t v) {
    __asm__ volatile("" : "+r"(v));
    return v;
}

static void switch_keeps_integer_registers(void **state) {
    (void)state;
    start(spoil_registers);
    for (uint64_t i = 0; i < 1000; i++) {
        uint64_t a = opaque(i + 1), b = opaque(i + 2), c = opaque(i + 3), d = opaque(i + 4), e = opaque(i + 5);
        uint64_t f = opaque(i + 6), g = opaque(i + 7), h = opaque(i + 8), j = opaque(i + 9), k = opaque(i + 10);
        enter(NULL);
        __asm__ volatile("" ::"r"(a), "r"(b), "r"(c), "r"(d), "r"(e));
        assert_int_equal(a, i + 1);
        assert_int_equal(b, i + 2);
        assert_int_equal(c, i + 3);
        assert_int_equal(d, i + 4);
        assert_int_equal(e, i + 5);
        assert_int_equal(f + g + h + j + k, 5 * i + 40);
    }
}

static void switch_keeps_floating_point_values(void **state) {
    (void)state;
    start(spoil_registers);
    for (int i = 0; i < 1000; i++) {
        double v[8];
        for (int n = 0; n < 8; n++) v[n] = (double)opaque((uint64_t)(i + n)) / 2;
        double a = v[0], b = v[1], c = v[2], d = v[3], e = v[4], f = v[5], g = v[6], h = v[7];
        enter(NULL);
        assert_true(a == i / 2.0 && b == (i + 1) / 2.0 && c == (i + 2) / 2.0 && d == (i + 3) / 2.0);
        assert_true(e == (i + 4) / 2.0 && f == (i + 5) / 2.0 && g == (i + 6) / 2.0 && h == (i + 7) / 2.0);
    }
}

/* What the context saw, asserted by the test. */
static int rounding_seen[3];

static void round_upward(void *payload) {
    rounding_seen[0] = fegetround();
    fesetround(FE_UPWARD);
    leave(payload);
    rounding_seen[1] = fegetround();
    fesetround(FE_DOWNWARD);
    leave(payload);
    rounding_seen[2] = fegetround();
    leave(payload);
    abort();
}

static void rounding_mode_belongs_to_the_context(void **state) {
    (void)state;
    fesetround(FE_TOWARDZERO);
    start(round_upward);
    fesetround(FE_TONEAREST);
    enter(NULL);
    int after_first = fegetround();
    enter(NULL);
    int after_second = fegetround();
    enter(NULL);
    assert_int_equal(after_first, FE_TONEAREST);
    assert_int_equal(after_second, FE_TONEAREST);
    assert_int_equal(fegetround(), FE_TONEAREST);
    assert_int_equal(rounding_seen[0], FE_TOWARDZERO); /* as its maker had it */
    assert_int_equal(rounding_seen[1], FE_UPWARD);
    assert_int_equal(rounding_seen[2], FE_DOWNWARD);
}

/* valgrind's processor has neither of the two bits. */
#if defined(__x86_64__) && !defined(HEIST_VALGRIND)
#define CONTROL_WORDS 1
static unsigned get_mxcsr(void) {
    unsigned v;
    __asm__ volatile("stmxcsr %0" : "=m"(v));
    return v;
}

static unsigned short get_x87cw(void) {
    unsigned short v;
    __asm__ volatile("fnstcw %0" : "=m"(v));
    return v;
}

static void change_control_words(void *payload) {
    unsigned mxcsr = get_mxcsr() | 0x8040;                       /* flush to zero, denormals are zero */
    unsigned short x87cw = get_x87cw() & (unsigned short)~0x300; /* single precision */
    __asm__ volatile("ldmxcsr %0; fldcw %1" ::"m"(mxcsr), "m"(x87cw));
    leave(payload);
    leave((void *)(uintptr_t)(get_mxcsr() == mxcsr && get_x87cw() == x87cw));
    abort();
}

static void control_words_belong_to_the_context(void **state) {
    (void)state;
    unsigned mxcsr = get_mxcsr();
    unsigned short x87cw = get_x87cw();
    start(change_control_words);
    enter(NULL);
    assert_int_equal(get_mxcsr(), mxcsr);
    assert_int_equal(get_x87cw(), x87cw);
    assert_true(enter(NULL) != NULL);
    assert_int_equal(get_mxcsr(), mxcsr);
}
#endif

static void report_alignment(void *payload) {
    (void)payload;
    _Alignas(16) volatile char local[16] = {0};
    /* The caller's sp was a multiple of 16: the canonical frame address is too. */
    uintptr_t bad = ((uintptr_t)__builtin_dwarf_cfa() | (uintptr_t)local) & 15;
    leave((void *)bad);
    abort();
}

static void entry_finds_an_aligned_stack(void **state) {
    (void)state;
    start(report_alignment);
    assert_null(enter(NULL));
}

static void cycle_counter_does_not_run_backwards(void **state) {
    (void)state;
    uint64_t before = heist__cycles();
    for (int i = 0; i < 1000; i++) heist__cpu_relax();
    assert_true(heist__cycles() >= before);
}

int main(void) {
#define CTX_TEST(fn) cmocka_unit_test_setup_teardown(fn, make_stack, free_stack)
    const struct CMUnitTest tests[] = {
        CTX_TEST(switch_passes_payloads_both_ways),
        CTX_TEST(first_frame_is_small_and_leaves_the_rest_alone),
        CTX_TEST(switch_keeps_integer_registers),
        CTX_TEST(switch_keeps_floating_point_values),
        CTX_TEST(rounding_mode_belongs_to_the_context),
#if defined(CONTROL_WORDS)
        CTX_TEST(control_words_belong_to_the_context),
#endif
        CTX_TEST(entry_finds_an_aligned_stack),
        cmocka_unit_test(cycle_counter_does_not_run_backwards),
    };
    int failed = 0;
    for (int form = 0; form < 4; form++) {
        enter_jumps = form & 1;
        leave_jumps = form & 2;
        failed += cmocka_run_group_tests_name("arch/ctx", tests, NULL, NULL);
    }
    return failed;
}
