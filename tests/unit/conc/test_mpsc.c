/* conc/mpsc.h: each node to one taker, in each producer's order; a closed inbox
 * refuses, and every push is either taken or refused. */
#include "conc/mpsc.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>

#include "conc/parker.h"
#include "crew.h"

struct note {
    struct heist__mpsc_node node;
    int producer;
    int seq;   /* plain: read by the taker, written by the pusher */
    int taken; /* plain: a node that goes to two takers is a race, and a 2 */
};

static struct note *note_of(struct heist__mpsc_node *n) {
    return heist_container_of(n, struct note, node);
}

static void take_returns_oldest_first(void **state) {
    (void)state;
    struct heist__mpsc q;
    struct note n[5] = {0};
    heist__mpsc_init(&q);
    assert_true(heist__mpsc_empty(&q));
    assert_null(heist__mpsc_take(&q));
    for (int i = 0; i < 5; i++) {
        n[i].seq = i;
        int rc = heist__mpsc_push(&q, &n[i].node);
        assert_int_equal(rc, i == 0 ? HEIST__MPSC_PUSHED_FIRST : HEIST__MPSC_PUSHED);
    }
    assert_false(heist__mpsc_empty(&q));
    assert_false(heist__mpsc_looks_empty(&q));
    struct heist__mpsc_node *l = heist__mpsc_take(&q);
    for (int i = 0; i < 5; i++, l = l->next) assert_int_equal(note_of(l)->seq, i);
    assert_null(l);
    assert_true(heist__mpsc_empty(&q));
    assert_int_equal(heist__mpsc_push(&q, &n[0].node), HEIST__MPSC_PUSHED_FIRST);
    assert_ptr_equal(heist__mpsc_take(&q), &n[0].node);
}

static void a_chain_keeps_its_order_between_pushes(void **state) {
    (void)state;
    struct heist__mpsc q;
    struct note n[5] = {0};
    heist__mpsc_init(&q);
    for (int i = 0; i < 5; i++) n[i].seq = i;
    assert_int_equal(heist__mpsc_push(&q, &n[0].node), HEIST__MPSC_PUSHED_FIRST);
    n[1].node.next = &n[2].node;
    n[2].node.next = &n[3].node;
    n[3].node.next = &n[4].node; /* beyond the last: not part of the chain */
    assert_int_equal(heist__mpsc_push_chain(&q, &n[1].node, &n[3].node), HEIST__MPSC_PUSHED);
    assert_int_equal(heist__mpsc_push_chain(&q, &n[4].node, &n[4].node), HEIST__MPSC_PUSHED);
    struct heist__mpsc_node *l = heist__mpsc_take(&q);
    for (int i = 0; i < 5; i++, l = l->next) assert_int_equal(note_of(l)->seq, i);
    assert_null(l);
    assert_int_equal(heist__mpsc_push_chain(&q, &n[4].node, &n[4].node), HEIST__MPSC_PUSHED_FIRST);
    (void)heist__mpsc_take(&q);
}

static void close_returns_what_was_left_and_refuses_for_ever(void **state) {
    (void)state;
    struct heist__mpsc q;
    struct note n[4] = {0};
    heist__mpsc_init(&q);
    (void)heist__mpsc_push(&q, &n[0].node);
    (void)heist__mpsc_push(&q, &n[1].node);
    assert_false(heist__mpsc_is_closed(&q));
    struct heist__mpsc_node *l = heist__mpsc_close(&q);
    assert_ptr_equal(l, &n[0].node);
    assert_ptr_equal(l->next, &n[1].node);
    assert_null(l->next->next);
    assert_true(heist__mpsc_is_closed(&q));
    assert_true(heist__mpsc_empty(&q));
    assert_null(heist__mpsc_take(&q));
    assert_int_equal(heist__mpsc_push(&q, &n[2].node), HEIST__MPSC_CLOSED);
    n[2].node.next = &n[3].node;
    assert_int_equal(heist__mpsc_push_chain(&q, &n[2].node, &n[3].node), HEIST__MPSC_CLOSED);
    /* A refused chain is as it was. */
    assert_ptr_equal(n[2].node.next, &n[3].node);
    assert_null(n[3].node.next);
    assert_null(heist__mpsc_close(&q));
    assert_true(heist__mpsc_is_closed(&q));
}

enum { PRODUCERS = 4 };

struct producer {
    struct heist__mpsc *q;
    struct note *notes;
    int count;
    bool in_chains;
    /* what it saw */
    int pushed, refused, first;
};

static void produce(void *self) {
    struct producer *p = self;
    for (int i = 0; i < p->count;) {
        int len = p->in_chains ? 1 + i % 3 : 1;
        if (len > p->count - i) len = p->count - i;
        for (int k = 0; k + 1 < len; k++) p->notes[i + k].node.next = &p->notes[i + k + 1].node;
        int rc = len == 1 ? heist__mpsc_push(p->q, &p->notes[i].node)
                          : heist__mpsc_push_chain(p->q, &p->notes[i].node, &p->notes[i + len - 1].node);
        if (rc == HEIST__MPSC_CLOSED) {
            p->refused += len;
        } else {
            p->pushed += len;
            p->first += rc == HEIST__MPSC_PUSHED_FIRST;
        }
        i += len;
    }
}

struct taker {
    struct heist__mpsc *q;
    int last[PRODUCERS];
    int taken, fillings, out_of_order;
    int close_after;      /* closes the inbox when so many were taken by all; -1: never */
    _Atomic(int) *total;  /* taken by all takers; NULL: not counted */
    bool closed;
    _Atomic(bool) *is_over; /* set by the one that closes: the others may go */
    _Atomic(int) *left; /* producers' notes that are still to come, over all takers; NULL: until closed */
};

static void look_at(struct taker *t, struct heist__mpsc_node *l) {
    t->fillings += l != NULL;
    int here = 0;
    while (l) {
        struct note *n = note_of(l);
        l = l->next;
        /* The same producer's earlier ones came before, to this taker. */
        if (n->seq <= t->last[n->producer]) t->out_of_order++;
        t->last[n->producer] = n->seq;
        n->taken++;
        here++;
    }
    t->taken += here;
    if (t->left && here) (void)a_sub_ar(t->left, here);
    if (t->total && here) (void)a_add_ar(t->total, here);
}

static void take_all(void *self) {
    struct taker *t = self;
    for (;;) {
        look_at(t, heist__mpsc_take(t->q));
        if (t->left && a_load_acq(t->left) == 0) return;
        if (t->is_over && a_load_acq(t->is_over)) return;
        if (t->close_after >= 0 && a_load_acq(t->total) >= t->close_after) {
            look_at(t, heist__mpsc_close(t->q));
            t->closed = true;
            if (t->is_over) a_store_rel(t->is_over, true);
            return;
        }
        if (heist__mpsc_looks_empty(t->q)) sched_yield();
    }
}

static struct note *make_notes(struct producer *p, struct heist__mpsc *q, int each, bool in_chains) {
    struct note *notes = calloc((size_t)each * PRODUCERS, sizeof(*notes));
    assert_non_null(notes);
    for (int i = 0; i < PRODUCERS; i++) {
        p[i] = (struct producer){.q = q, .notes = notes + (size_t)i * (size_t)each, .count = each,
                                 .in_chains = in_chains};
        for (int k = 0; k < each; k++) {
            p[i].notes[k].producer = i;
            p[i].notes[k].seq = k;
        }
    }
    return notes;
}

static void taker_init(struct taker *t, struct heist__mpsc *q, _Atomic(int) *left, int close_after) {
    *t = (struct taker){.q = q, .left = left, .close_after = close_after};
    for (int i = 0; i < PRODUCERS; i++) t->last[i] = -1;
}

/* Producers and takers together; the law: taken once, in order, and as many
 * "first" answers as there were fillings. */
static void run_crowd(int takers, bool in_chains) {
    struct heist__mpsc q;
    heist__mpsc_init(&q);
    struct producer p[PRODUCERS];
    int each = CREW_ROUNDS / PRODUCERS;
    struct note *notes = make_notes(p, &q, each, in_chains);
    _Atomic(int) left = each * PRODUCERS;
    struct taker t[2];
    struct crew c;
    struct crew_member m[PRODUCERS + 2];
    for (int i = 0; i < PRODUCERS; i++) m[i] = (struct crew_member){.body = produce, .self = &p[i]};
    for (int i = 0; i < takers; i++) {
        taker_init(&t[i], &q, &left, -1);
        m[PRODUCERS + i] = (struct crew_member){.body = take_all, .self = &t[i]};
    }
    crew_start(&c, m, PRODUCERS + takers);
    crew_join(&c);

    int first = 0, fillings = 0, taken = 0;
    for (int i = 0; i < PRODUCERS; i++) {
        assert_int_equal(p[i].pushed, each);
        assert_int_equal(p[i].refused, 0);
        first += p[i].first;
    }
    for (int i = 0; i < takers; i++) {
        assert_int_equal(t[i].out_of_order, 0);
        fillings += t[i].fillings;
        taken += t[i].taken;
    }
    assert_int_equal(taken, each * PRODUCERS);
    assert_int_equal(first, fillings);
    for (int i = 0; i < each * PRODUCERS; i++) assert_int_equal(notes[i].taken, 1);
    assert_true(heist__mpsc_empty(&q));
    free(notes);
}

static void one_taker_gets_each_once_in_each_producers_order(void **state) {
    (void)state;
    run_crowd(1, false);
}

static void two_takers_get_each_once(void **state) {
    (void)state;
    run_crowd(2, false);
}

static void chains_from_many_threads_stay_whole_and_in_order(void **state) {
    (void)state;
    run_crowd(1, true);
    run_crowd(2, true);
}

/* One taker closes; in every second round another takes meanwhile, which must
 * not open the inbox again. */
static void a_push_that_meets_close_is_taken_or_refused(void **state) {
    (void)state;
    int each = CREW_ROUNDS / 100;
    for (int round = 0; round < 40; round++) {
        struct heist__mpsc q;
        heist__mpsc_init(&q);
        struct producer p[PRODUCERS];
        struct note *notes = make_notes(p, &q, each, round % 4 > 1);
        int takers = 1 + round % 2;
        _Atomic(bool) is_over = false;
        struct taker t[2];
        _Atomic(int) total = 0;
        taker_init(&t[0], &q, NULL, each * PRODUCERS * round / 40);
        taker_init(&t[1], &q, NULL, -1);
        t[0].is_over = t[1].is_over = &is_over;
        t[0].total = t[1].total = &total;
        struct crew c;
        struct crew_member m[PRODUCERS + 2];
        for (int i = 0; i < PRODUCERS; i++) m[i] = (struct crew_member){.body = produce, .self = &p[i]};
        for (int i = 0; i < takers; i++) m[PRODUCERS + i] = (struct crew_member){.body = take_all, .self = &t[i]};
        crew_start(&c, m, PRODUCERS + takers);
        crew_join(&c);

        assert_true(t[0].closed);
        assert_true(heist__mpsc_is_closed(&q));
        assert_int_equal(t[0].out_of_order + t[1].out_of_order, 0);
        int pushed = 0, first = 0;
        for (int i = 0; i < PRODUCERS; i++) {
            pushed += p[i].pushed;
            first += p[i].first;
            assert_int_equal(p[i].pushed + p[i].refused, each);
            /* Refused for ever: the taken ones are a beginning of the row. */
            for (int k = 0; k < each; k++) assert_int_equal(p[i].notes[k].taken, k < p[i].pushed);
        }
        assert_int_equal(t[0].taken + t[1].taken, pushed);
        assert_int_equal(first, t[0].fillings + t[1].fillings);
        free(notes);
    }
}

/* The announced sleep of mpsc.h, with a parker: no wake is lost, or this hangs. */
struct sleeper {
    struct heist__mpsc q;
    _Atomic(bool) sleeping;
    struct heist__parker *parker;
    pthread_barrier_t ready;
    struct note *notes;
    int count, taken, failed;
};

static void sleep_and_take(void *self) {
    struct sleeper *s = self;
    s->parker = heist__parker_get();
    if (!s->parker) s->failed++;
    pthread_barrier_wait(&s->ready);
    if (!s->parker) return;
    while (s->taken < s->count) {
        struct heist__mpsc_node *l = heist__mpsc_take(&s->q);
        for (; l; l = l->next) s->taken++;
        if (s->taken == s->count) return;
        heist__parker_prepare(s->parker);
        a_store_sc(&s->sleeping, true);
        /* Whoever takes the flag back sends the wake; a pusher that took it has
         * sent one or is about to. */
        if (!heist__mpsc_empty(&s->q) && a_xchg_sc(&s->sleeping, false)) continue;
        while (a_load_acq(&s->sleeping))
            if (heist__parker_park(s->parker, INT64_MAX, 0) != 0) s->failed++;
    }
}

static void push_and_wake(void *self) {
    struct sleeper *s = self;
    pthread_barrier_wait(&s->ready);
    if (!s->parker) return;
    for (int i = 0; i < s->count; i++) {
        if (heist__mpsc_push(&s->q, &s->notes[i].node) != HEIST__MPSC_PUSHED_FIRST) continue;
        if (a_load_sc(&s->sleeping) && a_xchg_sc(&s->sleeping, false)) heist__parker_unpark(s->parker);
    }
}

static void first_answer_is_enough_to_wake_a_sleeper(void **state) {
    (void)state;
    struct sleeper s = {.count = CREW_ROUNDS};
    s.notes = calloc((size_t)s.count, sizeof(*s.notes));
    assert_non_null(s.notes);
    assert_int_equal(pthread_barrier_init(&s.ready, NULL, 2), 0);
    struct crew c;
    struct crew_member m[2] = {{.body = sleep_and_take, .self = &s}, {.body = push_and_wake, .self = &s}};
    crew_start(&c, m, 2);
    crew_join(&c);
    assert_int_equal(s.taken, s.count);
    assert_int_equal(s.failed, 0);
    pthread_barrier_destroy(&s.ready);
    free(s.notes);
    heist__parker_pool_release();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(take_returns_oldest_first),
        cmocka_unit_test(a_chain_keeps_its_order_between_pushes),
        cmocka_unit_test(close_returns_what_was_left_and_refuses_for_ever),
        cmocka_unit_test(one_taker_gets_each_once_in_each_producers_order),
        cmocka_unit_test(two_takers_get_each_once),
        cmocka_unit_test(chains_from_many_threads_stay_whole_and_in_order),
        cmocka_unit_test(a_push_that_meets_close_is_taken_or_refused),
        cmocka_unit_test(first_answer_is_enough_to_wake_a_sleeper),
    };
    return cmocka_run_group_tests_name("conc/mpsc", tests, NULL, NULL);
}
