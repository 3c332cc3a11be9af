/* A generator that two threads drive, close and drop: one is inside at a time, and who comes next sees all that the last
 * one left; a body's stack is entered only when it was left.  (Its frames are plain memory, as the counter is.) */
#include <errno.h>
#include <heist/error.h>
#include <heist/generator.h>
#include <string.h>

#include "model/model.h"

static heist_generator *g;
static int made, taken, closed, freed; /* plain: whoever is inside; the last one by either end of the case */
static int got[2], busy[2];

static int body(heist_generator *self, void *arg, void **out) {
    int *count = arg, err = 0;
    (void)out;
    for (int mine = 0; !err; mine++) {
        model_assert(*count == mine);
        ++*count;
        err = heist_generator_yield(self, count, NULL);
    }
    closed++;
    return err;
}
static int next_one(void *state, void **out) {
    int *count = state;
    ++*count;
    *out = count;
    return 0;
}
static int close_one(void *state) {
    (void)state;
    closed++;
    return 0;
}
static void free_one(void *state) {
    (void)state;
    freed++;
}
static const heist_iterator_ops ops = {sizeof(heist_iterator_ops), next_one, close_one, free_one};

static void setup(bool with_body) {
    heist_generator_options o = HEIST_GENERATOR_OPTIONS_INIT;
    made = taken = closed = freed = 0;
    memset(got, 0, sizeof(got));
    memset(busy, 0, sizeof(busy));
    o.arg_free = free_one;
    model_assert((with_body ? heist_generator_new(body, &made, &o, &g) : heist_generator_of(&ops, &made, &g)) == 0);
    heist_generator_ref(g);
}
static void a_body(void) { setup(true); }
static void an_iterator(void) { setup(false); }

static void drive(int who, int steps) {
    while (steps--) {
        void *value = NULL;
        int err = heist_generator_next(g, &value);
        model_assert((err == 0 && value == &made) || err == -EBUSY || (err == HEIST_ESTOP && (closed || !made)));
        if (err == 0) got[who]++;
        else if (err == -EBUSY) busy[who]++;
    }
}
static void leave(void) { heist_generator_unref(g); }
static void drives_0(void) { drive(0, 2), leave(); }
static void drives_1(void) { drive(1, 2), leave(); }
static void closes(void) {
    int err = heist_generator_close(g);
    model_assert(err == 0 || err == -EBUSY);
    leave();
}

static void all_came(void) {
    model_assert(made == got[0] + got[1]);
    model_assert(!busy[0] || !busy[1] || made > 0);
    model_assert(freed == 1);
}
static void ended_once(void) {
    all_came();
    model_assert(closed <= 1);
}

int main(int argc, char **argv) {
    static const struct model_case cases[] = {
        {"two drive an iterator", an_iterator, {drives_0, drives_1}, all_came, {3, 1}, {5, 2}},
        {"two drive a body", a_body, {drives_0, drives_1}, all_came, {3, 1}, {4, 2}},
        {"close against next, an iterator", an_iterator, {drives_0, closes}, ended_once, {3, 1}, {5, 2}},
        {"close against next, a body", a_body, {drives_0, closes}, ended_once, {3, 1}, {4, 2}},
    };
    return model_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
