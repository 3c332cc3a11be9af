/* The closable inbox: each node goes to one taker or back to its pusher, in the order of
 * its pusher; nothing lands behind the last drain; and each filling has one first.
 *
 * Payloads are plain; a pusher that was refused reads what the closer wrote before. */
#include <string.h>

#include "conc/mpsc.h"
#include "model/model.h"

struct note {
    struct heist__mpsc_node node; /* first */
    int from, number, taken;
};

static struct heist__mpsc q;
static struct note notes[3][3];
static int sent[3], refused[3], firsts[3];
static int last_words; /* of the closer */
static int taken_of[3], fillings;
static bool closed;

static void setup(void) {
    heist__mpsc_init(&q);
    memset(notes, 0, sizeof(notes));
    memset(sent, 0, sizeof(sent));
    memset(refused, 0, sizeof(refused));
    memset(firsts, 0, sizeof(firsts));
    memset(taken_of, 0, sizeof(taken_of));
    last_words = fillings = 0;
    closed = false;
}

static struct note *write_note(int who) {
    struct note *n = &notes[who][sent[who] + refused[who]];
    n->from = who;
    n->number = sent[who] + refused[who];
    return n;
}

static void told(int who, int answer, int count) {
    if (answer == HEIST__MPSC_CLOSED) {
        refused[who] += count;
        model_assert(last_words == 1);
        return;
    }
    sent[who] += count;
    firsts[who] += answer == HEIST__MPSC_PUSHED_FIRST;
}

static void push(int who) { told(who, heist__mpsc_push(&q, &write_note(who)->node), 1); }

static void push_chain(int who) {
    struct note *a = write_note(who), *b = a + 1;
    b->from = who;
    b->number = a->number + 1;
    a->node.next = &b->node;
    int answer = heist__mpsc_push_chain(&q, &a->node, &b->node);
    if (answer == HEIST__MPSC_CLOSED) model_assert(a->node.next == &b->node && !b->node.next); /* as it was */
    told(who, answer, 2);
}

static void take_list(struct heist__mpsc_node *list) {
    if (list) fillings++;
    while (list) {
        struct note *n = (struct note *)(void *)list;
        list = list->next; /* the note is ours: its memory may be anything from here on */
        model_assert(n->taken == 0 && n->number == taken_of[n->from]);
        taken_of[n->from]++;
        n->taken = 1;
        memset(&n->node, 0xee, sizeof(n->node));
    }
}

static void take(void) { take_list(heist__mpsc_take(&q)); }
static void take_if_any(void) {
    if (!heist__mpsc_empty(&q)) take();
}
static void take_if_it_looks(void) {
    if (!heist__mpsc_looks_empty(&q)) take();
}
static void close_it(void) {
    last_words = 1;
    closed = true;
    take_list(heist__mpsc_close(&q));
    model_assert(heist__mpsc_close(&q) == NULL);
    model_assert(heist__mpsc_take(&q) == NULL);
    model_assert(heist__mpsc_empty(&q));
}

/* Beside another taker: which of two lists is older nobody knows. */
static void take_beside(void) {
    for (struct heist__mpsc_node *list = heist__mpsc_take(&q); list;) {
        struct note *n = (struct note *)(void *)list;
        list = list->next;
        n->taken++;
    }
}
static void close_beside(void) {
    last_words = 1;
    for (struct heist__mpsc_node *list = heist__mpsc_close(&q); list;) {
        struct note *n = (struct note *)(void *)list;
        list = list->next;
        n->taken++;
    }
}
static void check_beside(void) {
    model_assert(heist__mpsc_is_closed(&q) && heist__mpsc_close(&q) == NULL);
    int all = 0;
    for (int i = 0; i < 3; i++)
        for (int k = 0; k < 3; k++) {
            model_assert(notes[i][k].taken <= 1);
            all += notes[i][k].taken;
        }
    model_assert(all == sent[0] + sent[1]);
}

static void check(void) {
    if (!closed) take();
    model_assert(heist__mpsc_take(&q) == NULL);
    int all = 0;
    for (int i = 0; i < 3; i++) {
        model_assert(taken_of[i] == sent[i]);
        all += firsts[i];
        if (!closed) model_assert(refused[i] == 0);
    }
    model_assert(all == fillings);
}

static void push_1a(void) { push(0); }
static void push_1b(void) { push(1); }
static void push_2a(void) { push(0), push(0); }
static void push_2b(void) { push(1), push(1); }
static void chain_a(void) { push_chain(0); }
static void push_chain_push(void) { push(0), push_chain(0); }
static void take_2(void) { take(), take(); }
static void looks_2(void) { take_if_any(), take_if_it_looks(); }
static void take_then_close(void) { take(), close_it(); }
static void push_after_closed(void) {
    if (heist__mpsc_is_closed(&q)) model_assert(last_words == 1);
    push(1);
}

int main(int argc, char **argv) {
    static const struct model_case cases[] = {
        {"two pushers, one taker", setup, {push_2a, push_2b, take_2}, check, {3, 1}, {4, 3}},
        {"a taker that looks first", setup, {push_2a, push_1b, looks_2}, check, {3, 1}, {4, 3}},
        {"push against close", setup, {push_2a, close_it}, check, {5, 2}, {9, 4}},
        {"pushers against take and close", setup, {push_2a, push_1b, take_then_close}, check, {3, 1}, {5, 2}},
        {"a refused pusher was told", setup, {push_1a, push_after_closed, close_it}, check, {3, 2}, {5, 3}},
        {"take against close", setup, {push_2a, take_beside, close_beside}, check_beside, {3, 1}, {5, 3}},
        {"a chain is one step", setup, {chain_a, push_2b, take_2}, check, {3, 1}, {4, 2}},
        {"a chain against close", setup, {push_chain_push, push_1b, take_then_close}, check, {2, 1}, {4, 2}},
    };
    return model_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
