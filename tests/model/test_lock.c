/* The lock between plain threads, some of which give up: one holder at a time who sees what the last one wrote, no
 * wake-up lost with a waiter that left, and the last one may free it.
 *
 * Plain threads may pass those who wait: so these cases reach the woken waiter that finds the lock taken, and
 * the hand-over that follows.  (A strict caller is a task; its order is a matter of tests/api.) */
#include <errno.h>
#include <heist/condition.h>
#include <heist/error.h>
#include <heist/event.h>
#include <heist/lock.h>
#include <string.h>

#include "conc/self.h"
#include "mem/slab.h"
#include "model/model.h"

static heist_lock the_lock, *const lock = &the_lock;
static heist_condition told;
static heist_event the_event, *const event = &the_event;
static int inside, count, entered[4], pieces;

static void setup(void) {
    heist_lock_init(lock);
    heist_event_init(event);
    model_assert(heist_condition_init(&told, lock) == 0);
    inside = count = pieces = 0;
    memset(entered, 0, sizeof(entered));
}

static double soon(void) { return (double)(model_now_ns() + 1000000) / 1e9; }

/* With the lock in hand. */
static void section(int i) {
    model_writes(&inside, sizeof(inside));
    model_assert(inside++ == 0);
    count++;
    entered[i]++;
    inside--;
}

static void use(int i, int how) {
    int rc = how == 0   ? heist_lock_acquire(lock)
             : how == 1 ? heist_lock_acquire_until(lock, soon())
                        : heist_lock_try_acquire(lock);
    if (rc) {
        model_assert((how == 1 && rc == -ETIMEDOUT) || (how == 2 && rc == -EAGAIN));
        return;
    }
    section(i);
    model_assert(heist_lock_release(lock) == 0);
}

static void use_0(void) { use(0, 0); }
static void use_1(void) { use(1, 0); }
static void use_2(void) { use(2, 0); }
static void use_0_twice(void) { use(0, 0), use(0, 0); }
static void use_1_twice(void) { use(1, 0), use(1, 0); }
static void use_until_1(void) { use(1, 1); }
static void try_2(void) { use(2, 2); }

static void end(void) {
    model_assert(heist_lock_destroy(lock) == 0); /* free, and nobody waits */
    model_assert(heist_lock_locked(lock) == 0);
    model_assert(count == entered[0] + entered[1] + entered[2] + entered[3]);
}
static void all_entered(void) {
    model_assert(entered[0] >= 1 && entered[1] >= 1);
    end();
}

static void wait_for_piece(void) {
    model_assert(heist_lock_acquire(lock) == 0);
    while (!pieces) model_assert(heist_condition_wait(&told) == 0);
    pieces--;
    section(0);
    model_assert(heist_lock_release(lock) == 0);
}
static void wait_for_piece_until(void) {
    model_assert(heist_lock_acquire(lock) == 0);
    int rc = pieces ? 0 : heist_condition_wait_until(&told, soon());
    model_assert(rc == 0 || rc == -ETIMEDOUT);
    section(1);
    /* Told, and nothing there: another took it.  Not told: what was meant for another must reach it. */
    model_assert(heist_lock_release(lock) == 0);
}
static void bring_piece(void) {
    model_assert(heist_lock_acquire(lock) == 0);
    pieces++;
    section(2);
    model_assert(heist_condition_notify_all(&told) >= 0);
    model_assert(heist_lock_release(lock) == 0);
}

static void set_event(void) {
    entered[1] = 1;
    model_assert(heist_event_set(event) == 0);
}
static void wait_and_free(void) {
    model_assert(heist_event_wait(event) == 0);
    model_assert(entered[1] == 1);
    memset(event, 0xff, sizeof(*event)); /* whoever set it has left */
}
static void not_touched(void) {
    for (size_t i = 0; i < sizeof(*event); i++) model_assert(((unsigned char *)event)[i] == 0xff);
}
int main(int argc, char **argv) {
    static const struct model_case cases[] = {
        {"two", setup, {use_0_twice, use_1_twice}, all_entered, {2, 1}, {3, 2}},
        {"three", setup, {use_0, use_1, use_2}, all_entered, {2, 1}, {3, 1}},
        {"one passes, one waits", setup, {use_0_twice, use_1, use_2}, all_entered, {2, 0}, {3, 0}},
        {"one gives up", setup, {use_0_twice, use_until_1}, end, {3, 0}, {4, 1}},
        {"one gives up, one waits", setup, {use_0, use_until_1, use_2}, end, {2, 0}, {2, 1}},
        {"try", setup, {use_0, use_1, try_2}, all_entered, {2, 0}, {2, 1}},
        {"told", setup, {wait_for_piece, bring_piece}, end, {3, 1}, {3, 2}},
        {"told, and one gives up", setup, {wait_for_piece, wait_for_piece_until, bring_piece}, end, {1, 0}, {2, 0}},
        {"an event on the stack", setup, {set_event, wait_and_free}, not_touched, {4, 1}, {5, 2}},
    };
    return model_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
