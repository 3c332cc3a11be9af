/* The deque: each item goes to one taker, whole, whatever push, pop, steal and growth do
 * at the same time.
 *
 * An item is a number that its pusher writes plainly and its taker reads: who gets one
 * without having been told of it races, and fails. */
#include <string.h>

#include "conc/deque.h"
#include "model/model.h"

#define ITEMS 6
static struct heist__deque d;
static int item[ITEMS];
static int taken[ITEMS];
static int pushed;

static void setup(void) {
    memset(taken, 0, sizeof(taken));
    pushed = 0;
    model_assert(heist__deque_init(&d, 1) == 0); /* two cells */
}

/* In setup: they stand there before any thread runs. */
static void push_some(int n) {
    for (int i = 0; i < n; i++, pushed++) {
        item[pushed] = pushed + 1;
        model_assert(heist__deque_push(&d, &item[pushed]) == 0);
    }
}

static void setup_1(void) { setup(), push_some(1); }
static void setup_2(void) { setup(), push_some(2); }
static void setup_3(void) { setup(), push_some(3); }

/* One of the threads reads what it took: counted in a cell of its own thread, so that only the item is
 * shared. */
static void got(void *p) {
    if (!p) return;
    int *at = p;
    model_assert(at >= item && at < item + ITEMS);
    model_assert(*at == at - item + 1);
    taken[at - item]++; /* a second taker races here, or counts 2 */
}

static void check(void) {
    for (void *p; (p = heist__deque_pop(&d));) got(p);
    for (int i = 0; i < pushed; i++) model_assert(taken[i] == 1);
    heist__deque_destroy(&d);
}

static void push(void) {
    item[pushed] = pushed + 1;
    model_assert(heist__deque_push(&d, &item[pushed]) == 0);
    pushed++;
}
static void pop(void) { got(heist__deque_pop(&d)); }
static void pop_top(void) { got(heist__deque_pop_top(&d)); }
static int steal(void) {
    void *p = NULL;
    int r = heist__deque_steal(&d, &p);
    model_assert((r == HEIST__STEAL_GOT) == (p != NULL));
    got(p);
    return r;
}

static void pops_2(void) { pop(), pop(); }
static void pops_3(void) { pop(), pop(), pop(); }
static void push_pop(void) { push(), pop(); }
static void push_2_pop_2(void) { push(), push(), pop(), pop(); }
static void push_3(void) { push(), push(), push(); }
static void push_pop_push(void) { push(), pop(), push(); }
static void pop_push(void) { pop(), push(); }
static void pop_pop_push(void) { pop(), pop(), push(); }
static void pop_tops_then_push_2(void) { pop_top(), push(), pop_top(), push(); }
static void pop_both_ends(void) { pop_top(), pop(); }
static void push_4_pop_3(void) { push(), push(), push(), push(), pop(), pop(), pop(); }
static void steal_1(void) { steal(); }
static void steal_2(void) { steal(), steal(); }
/* A pop that found nothing had nothing to find, for nobody took meanwhile but thieves that got it. */
static void steal_until_got(void) {
    for (int r = HEIST__STEAL_LOST; r == HEIST__STEAL_LOST;) r = steal();
}
static void thief_looks(void) {
    if (!heist__deque_empty(&d)) steal();
}

int main(int argc, char **argv) {
    static const struct model_case cases[] = {
        {"pop against steal, one item", setup_1, {pop, steal_1}, check, {4, 2}, {9, 4}},
        {"pop against steal, two items", setup_2, {pops_2, steal_1}, check, {4, 2}, {9, 4}},
        {"pop against two steals, two items", setup_2, {pops_2, steal_2}, check, {3, 2}, {7, 3}},
        {"pop against steal, three items", setup_3, {pops_3, steal_2}, check, {3, 1}, {5, 3}},
        {"two thieves, two items", setup_2, {pops_2, steal_1, steal_1}, check, {2, 1}, {4, 2}},
        {"two thieves, a last item", setup_1, {pop, steal_until_got, steal_1}, check, {2, 2}, {4, 2}},
        {"push against steal", setup, {push_pop, steal_1}, check, {4, 2}, {8, 4}},
        {"push and pop against steals", setup, {push_2_pop_2, steal_2}, check, {2, 2}, {4, 3}},
        {"growth against steals", setup, {push_3, steal_2}, check, {3, 2}, {5, 3}},
        {"growth of a full one against thieves", setup_2, {push, steal_1, steal_1}, check, {2, 2}, {4, 2}},
        {"growth twice", setup_1, {push_4_pop_3, steal_2}, check, {2, 1}, {3, 2}},
        {"a cell is used again", setup_2, {pop_tops_then_push_2, steal_1}, check, {3, 1}, {5, 3}},
        {"a cell is used again behind a pop", setup_2, {pop_pop_push, steal_2}, check, {3, 1}, {4, 3}},
        {"bottom goes down and up", setup_2, {pop_push, steal_2}, check, {3, 2}, {5, 3}},
        {"both ends by the owner", setup_2, {pop_both_ends, steal_2}, check, {3, 1}, {5, 3}},
        {"pushed, popped, pushed", setup_1, {push_pop_push, steal_1, thief_looks}, check, {2, 1}, {3, 2}},
    };
    return model_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
