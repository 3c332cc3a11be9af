/* The table of arenas: what is entered is found, what is removed is not, and one that is full refuses.
 *
 * A full table once made the pool of stacks map and unmap an arena for ever: the last test fills it
 * and asks for a stack. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "mem/ranges.h"
#include "mem/stack.h"

static struct heist__range at_place(uintptr_t i) {
    return (struct heist__range){(i + 1) << 40, ((i + 1) << 40) + (1 << 20), 14};
}

static void an_address_is_found_in_its_range_only(void **state) {
    (void)state;
    struct heist__range r = at_place(3), out;
    int number = heist__ranges_add(r);
    assert_true(number >= 0);
    assert_true(heist__ranges_find(r.lo, &out));
    assert_true(out.lo == r.lo && out.hi == r.hi && out.shift == r.shift);
    assert_true(heist__ranges_find(r.hi - 1, &out));
    assert_false(heist__ranges_find(r.lo - 1, &out));
    assert_false(heist__ranges_find(r.hi, &out));
    heist__ranges_remove(number);
    assert_false(heist__ranges_find(r.lo, &out));
}

static void a_removed_entry_is_given_to_the_next(void **state) {
    (void)state;
    struct heist__range out;
    int a = heist__ranges_add(at_place(1)), b = heist__ranges_add(at_place(2));
    heist__ranges_remove(a);
    int c = heist__ranges_add(at_place(5));
    assert_int_equal(c, a);
    assert_false(heist__ranges_find(at_place(1).lo, &out));
    assert_true(heist__ranges_find(at_place(2).lo, &out));
    assert_true(heist__ranges_find(at_place(5).lo, &out));
    heist__ranges_remove(b);
    heist__ranges_remove(c);
}

static void a_full_table_is_out_of_memory_for_a_stack_and_not_for_ever(void **state) {
    (void)state;
    static int numbers[HEIST__RANGES];
    int n = 0, number;
    while ((number = heist__ranges_add(at_place((uintptr_t)n))) >= 0) {
        assert_true(n < HEIST__RANGES);
        numbers[n++] = number;
    }
    assert_int_equal(n, HEIST__RANGES);
    struct heist__stack_cache cache;
    struct heist__stack *stack = NULL;
    memset(&cache, 0, sizeof cache);
    assert_int_equal(heist__stack_get(&cache, HEIST__STACK_MIN, &stack), -ENOMEM);
    assert_null(stack);
    assert_int_equal(heist__stack_mapped(), 0);
    heist__ranges_remove(numbers[--n]);
    assert_int_equal(heist__stack_get(&cache, HEIST__STACK_MIN, &stack), 0);
    heist__stack_put(&cache, stack);
    heist__stack_cache_flush(&cache);
    assert_true(heist__stack_pool_release());
    while (n > 0) heist__ranges_remove(numbers[--n]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_address_is_found_in_its_range_only),
        cmocka_unit_test(a_removed_entry_is_given_to_the_next),
        cmocka_unit_test(a_full_table_is_out_of_memory_for_a_stack_and_not_for_ever),
    };
    return cmocka_run_group_tests_name("unit/mem/ranges", tests, NULL, NULL);
}
