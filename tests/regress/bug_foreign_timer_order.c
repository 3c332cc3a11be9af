/* A timer made on another thread was armed late.
 *
 * It travelled to its loop as a callback that armed it.  What was made after it on the loop itself
 * was armed before it, and so came first among equal deadlines though it was made later; and while
 * that callback stood in a long queue, timers with later deadlines fired.  Promise 2 says otherwise:
 * in the order of their deadlines, equal ones in the order of their making.  Now the loop arms what
 * stands in its inbox when it takes the inbox, and it does so before it looks for what is due.
 *
 * A callback of the loop has other threads make timers, waits for these threads, makes timers of its
 * own for the same instants, and goes on until all are due. */
#include <unistd.h>

#include "regress/workers.h"

#define SPAN 0.02

struct order {
    heist_loop *loop;
    struct record record;
    double first, second;
    bool stops; /* the last one stops the loop */
    _Atomic(int) failed;
};

static void make(struct order *o, double when, struct mark *mark) {
    if (heist_loop_call_at(o->loop, when, mark_word, mark, NULL, NULL) < 0) o->failed++;
}

static struct order order;
static struct mark early_outside, late_outside, early_inside, late_inside, last;

static void *outside(void *arg) {
    struct order *o = arg;
    make(o, o->second, &late_outside);
    make(o, o->first, &early_outside);
    return NULL;
}

static int inside(void *arg) {
    struct order *o = arg;
    double now = heist_loop_time(o->loop);
    o->first = now + SPAN / 4;
    o->second = now + SPAN / 2;
    pthread_t thread;
    if (pthread_create(&thread, NULL, outside, o) != 0) o->failed++;
    else pthread_join(thread, NULL);
    make(o, o->second, &late_inside);
    make(o, o->first, &early_inside);
    if (heist_loop_call_at(o->loop, now + SPAN, o->stops ? mark_and_stop : mark_word, &last, NULL, NULL) < 0) o->failed++;
    while (heist_loop_time(o->loop) < now + SPAN) usleep(1000); /* now all of them are due */
    return 0;
}

static void timers_of_other_threads_keep_their_place(void **state) {
    (void)state;
    for (int round = 0; round < 3; round++) {
        order = (struct order){.record = RECORD_INIT, .stops = true};
        early_outside = (struct mark){&order.record, "early-outside", NULL};
        late_outside = (struct mark){&order.record, "late-outside", NULL};
        early_inside = (struct mark){&order.record, "early-inside", NULL};
        late_inside = (struct mark){&order.record, "late-inside", NULL};
        assert_int_equal(heist_loop_new(NULL, &order.loop), 0);
        last = (struct mark){&order.record, "last", order.loop};
        assert_int_equal(heist_loop_call_soon(order.loop, inside, &order, NULL, NULL), 0);
        assert_int_equal(heist_loop_run_forever(order.loop), 0);
        assert_int_equal(heist_loop_close(order.loop), 0);
        heist_loop_unref(order.loop);
        assert_int_equal(order.failed, 0);
        assert_string_equal(record_text(&order.record),
                            "early-outside early-inside late-outside late-inside last");
    }
}

/* The same while another worker helps: it takes the due timers of the one that stands still, and puts what is the
 * loop's own back for it. */
static void helped_loop_keeps_the_order(void **state) {
    (void)state;
    for (int round = 0; round < 3; round++) {
        order = (struct order){.record = RECORD_INIT};
        early_outside = (struct mark){&order.record, "early-outside", NULL};
        late_outside = (struct mark){&order.record, "late-outside", NULL};
        early_inside = (struct mark){&order.record, "early-inside", NULL};
        late_inside = (struct mark){&order.record, "late-inside", NULL};
        last = (struct mark){&order.record, "last", NULL};
        heist_runtime *rt = regress_runtime(2);
        order.loop = heist_runtime_loop(rt, 0);
        assert_int_equal(heist_loop_call_soon(order.loop, inside, &order, NULL, NULL), 0);
        while (record_words(&order.record) < 5 && !order.failed) usleep(1000);
        harness_runtime_end(rt);
        assert_int_equal(order.failed, 0);
        assert_string_equal(record_text(&order.record), "early-outside early-inside late-outside late-inside last");
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        API_TEST(timers_of_other_threads_keep_their_place),
        API_TEST(helped_loop_keeps_the_order),
    };
    return HARNESS_MAIN("bug_foreign_timer_order", tests);
}
