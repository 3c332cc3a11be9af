/* The parker: a wake that follows the condition ends the sleep, however it meets prepare,
 * the look, the futex, a time-out, or the next wait.
 *
 * The futex is the checker's: it compares the word and sleeps as one step.  A lost wake is
 * a thread that waits for ever. */
#include <errno.h>

#include "conc/atomic.h"
#include "conc/parker.h"
#include "model/model.h"

static _Atomic(struct heist__parker *) parker; /* the publication */
static _Atomic(int) condition;
static int payload; /* written before the condition */
static int timed_out, woken;

static void setup(void) {
    a_store_sc(&parker, NULL);
    a_store_sc(&condition, 0);
    payload = timed_out = woken = 0;
}

static struct heist__parker *publish(void) {
    struct heist__parker *p = heist__parker_get();
    model_assert(p);
    heist__parker_prepare(p);
    a_store_rel(&parker, p);
    return p;
}

static bool is_published(void *unused) {
    (void)unused;
    return __atomic_load_n((void **)&parker, __ATOMIC_RELAXED) != NULL;
}

/* The condition goes by the parker's own release and acquire: the waker's store is relaxed. */
static void sleeper(void) {
    struct heist__parker *p = publish();
    while (!a_load_rlx(&condition)) heist__parker_park(p, INT64_MAX, 0);
    woken = 1;
}
static void reads_payload(void) {
    struct heist__parker *p = publish();
    heist__parker_park(p, INT64_MAX, 0); /* one wake, one park: no spurious return in this program */
    model_assert(payload == 7);
    woken = 1;
}
static void spins_first(void) {
    struct heist__parker *p = publish();
    while (!a_load_rlx(&condition)) heist__parker_park(p, INT64_MAX, 3000);
    woken = 1;
}
static void with_deadline(void) {
    struct heist__parker *p = publish();
    int rc = heist__parker_park(p, model_now_ns() + 1000000, 0);
    model_assert(rc == 0 || rc == -ETIMEDOUT);
    if (rc) {
        timed_out = 1;
        return;
    }
    model_assert(payload == 7);
    woken = 1;
}
/* After a time-out the wake may still be under way: it may end a later park, spuriously, and nothing worse. */
static void waits_twice(void) {
    struct heist__parker *p = publish();
    heist__parker_park(p, model_now_ns() + 1000000, 0);
    while (a_load_acq(&condition) < 1) heist__parker_park(p, INT64_MAX, 0);
    heist__parker_prepare(p);
    a_store_sc(&condition, 2);
    while (a_load_acq(&condition) < 3) heist__parker_park(p, INT64_MAX, 0);
    woken = 1;
}

static struct heist__parker *find(void) {
    model_wait(is_published, NULL, "the publication");
    struct heist__parker *p;
    while (!(p = a_load_acq(&parker))) continue;
    return p;
}
static void waker(void) {
    struct heist__parker *p = find();
    payload = 7;
    a_store_rlx(&condition, 1);
    heist__parker_unpark(p);
}
static void waker_twice(void) {
    struct heist__parker *p = find();
    a_store_rel(&condition, 1);
    heist__parker_unpark(p);
    while (a_load_acq(&condition) < 2) continue;
    a_store_rel(&condition, 3);
    heist__parker_unpark(p);
}
static void only_unparks(void) { heist__parker_unpark(find()); }

static void was_woken(void) { model_assert(woken == 1); }
static void woken_or_timed_out(void) { model_assert(woken + timed_out == 1); }

/* Two must come before the sleeper goes on. */
static void one_of_two(void) {
    struct heist__parker *p = find();
    a_add_rlx(&condition, 1);
    heist__parker_unpark(p);
}
static void wants_both(void) {
    struct heist__parker *p = publish();
    while (a_load_rlx(&condition) < 2) heist__parker_park(p, INT64_MAX, 0);
    woken = 1;
}

int main(int argc, char **argv) {
    static const struct model_case cases[] = {
        {"a wake is not lost", setup, {sleeper, waker}, was_woken, {4, 2}, {8, 4}},
        {"a wake carries what was written", setup, {reads_payload, waker}, was_woken, {4, 2}, {8, 4}},
        {"a look before the sleep", setup, {spins_first, waker}, was_woken, {3, 2}, {5, 3}},
        {"a wake against a time-out", setup, {with_deadline, waker}, woken_or_timed_out, {4, 2}, {8, 4}},
        {"a late wake and the next wait", setup, {waits_twice, waker_twice}, was_woken, {3, 1}, {5, 2}},
        {"a stranger's late wake", setup, {sleeper, waker, only_unparks}, was_woken, {2, 1}, {3, 2}},
        {"two wakers", setup, {wants_both, one_of_two, one_of_two}, was_woken, {2, 1}, {4, 1}},
    };
    return model_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
