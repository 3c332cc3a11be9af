/* base/list.h: order, removal and splicing of the intrusive list. */
#include "base/list.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

struct item {
    int n;
    struct heist__link link;
};

/* The list's numbers as one decimal number, read forwards; backwards must agree. */
static long digits(struct heist__link *head) {
    long forward = 0, backward = 0, scale = 1;
    struct heist__link *l;
    heist__list_for_each(l, head) forward = forward * 10 + heist__list_entry(l, struct item, link)->n;
    for (l = head->prev; l != head; l = l->prev) {
        backward += scale * heist__list_entry(l, struct item, link)->n;
        scale *= 10;
    }
    assert_int_equal(forward, backward);
    return forward;
}

static void make_items(struct item *items, int count) {
    for (int i = 0; i < count; i++) {
        items[i].n = i + 1;
        heist__list_init(&items[i].link);
    }
}

static void an_empty_list_gives_nothing(void **state) {
    (void)state;
    struct heist__link head;
    heist__list_init(&head);
    assert_true(heist__list_empty(&head));
    assert_null(heist__list_front(&head));
    assert_null(heist__list_back(&head));
    assert_null(heist__list_pop_front(&head));
    assert_null(heist__list_pop_back(&head));
}

static void push_keeps_order_at_both_ends(void **state) {
    (void)state;
    struct heist__link head;
    struct item it[4];
    heist__list_init(&head);
    make_items(it, 4);
    heist__list_push_back(&head, &it[1].link);
    heist__list_push_back(&head, &it[2].link);
    heist__list_push_front(&head, &it[0].link);
    assert_int_equal(digits(&head), 123);
    heist__list_insert_before(&it[1].link, &it[3].link);
    assert_int_equal(digits(&head), 1423);
    assert_ptr_equal(heist__list_front(&head), &it[0].link);
    assert_ptr_equal(heist__list_back(&head), &it[2].link);
    assert_ptr_equal(heist__list_pop_front(&head), &it[0].link);
    assert_ptr_equal(heist__list_pop_back(&head), &it[2].link);
    assert_int_equal(digits(&head), 42);
}

static void a_removed_link_stands_alone_and_may_be_removed_again(void **state) {
    (void)state;
    struct heist__link head;
    struct item it[3];
    heist__list_init(&head);
    make_items(it, 3);
    for (int i = 0; i < 3; i++) heist__list_push_back(&head, &it[i].link);
    assert_true(heist__list_linked(&it[1].link));
    heist__list_remove(&it[1].link);
    assert_false(heist__list_linked(&it[1].link));
    heist__list_remove(&it[1].link);
    assert_int_equal(digits(&head), 13);
}

static void for_each_safe_allows_removal_of_the_current_link(void **state) {
    (void)state;
    struct heist__link head, *l, *after;
    struct item it[5];
    heist__list_init(&head);
    make_items(it, 5);
    for (int i = 0; i < 5; i++) heist__list_push_back(&head, &it[i].link);
    heist__list_for_each_safe(l, after, &head) {
        if (heist__list_entry(l, struct item, link)->n % 2 == 0) heist__list_remove(l);
    }
    assert_int_equal(digits(&head), 135);
}

static void splice_moves_everything_in_order(void **state) {
    (void)state;
    struct heist__link a, b;
    struct item it[4];
    heist__list_init(&a);
    heist__list_init(&b);
    make_items(it, 4);
    heist__list_splice_back(&a, &b); /* nothing to nothing */
    assert_true(heist__list_empty(&a));
    heist__list_push_back(&b, &it[0].link);
    heist__list_push_back(&b, &it[1].link);
    heist__list_splice_back(&a, &b); /* to an empty list */
    assert_true(heist__list_empty(&b));
    heist__list_push_back(&b, &it[2].link);
    heist__list_push_back(&b, &it[3].link);
    heist__list_splice_back(&a, &b);
    heist__list_splice_back(&a, &b);
    assert_int_equal(digits(&a), 1234);
    assert_true(heist__list_empty(&b));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_list_gives_nothing),
        cmocka_unit_test(push_keeps_order_at_both_ends),
        cmocka_unit_test(a_removed_link_stands_alone_and_may_be_removed_again),
        cmocka_unit_test(for_each_safe_allows_removal_of_the_current_link),
        cmocka_unit_test(splice_moves_everything_in_order),
    };
    return cmocka_run_group_tests_name("base/list", tests, NULL, NULL);
}
