/* The table of arenas against its reader, a signal handler on any thread: whatever it finds is
 * one entry as it was entered, and an arena that stays is always found.
 *
 * Entry 0 goes from one arena to another of other bounds, entry 1 stays. */
#include "mem/ranges.h"
#include "model/model.h"

/* The second lies above the first, so that the first's start with the second's end would hold the gap between. */
static const struct heist__range first = {0x10000, 0x20000, 14}, second = {0x80000, 0xa0000, 16},
                                 stays = {0xf0000, 0xf8000, 15};
static int moving;

static void setup(void) {
    static bool made; /* the table has no reset */
    if (made) {
        heist__ranges_remove(0);
        heist__ranges_remove(1);
    }
    made = true;
    moving = heist__ranges_add(first);
    model_assert(moving == 0 && heist__ranges_add(stays) == 1);
}

static void is_one_of_them(uintptr_t at) {
    struct heist__range r;
    if (!heist__ranges_find(at, &r)) return;
    bool is_first = r.lo == first.lo && r.hi == first.hi && r.shift == first.shift;
    bool is_second = r.lo == second.lo && r.hi == second.hi && r.shift == second.shift;
    model_assert(at >= r.lo && at < r.hi);
    model_assert(is_first || is_second);
}

static void moves(void) {
    heist__ranges_remove(moving);
    model_assert(heist__ranges_add(second) == moving);
}
static void looks_in_the_first(void) { is_one_of_them(first.lo + 5); }
static void looks_in_the_gap(void) { is_one_of_them(first.hi + 5); }
static void looks_in_the_second(void) { is_one_of_them(second.lo + 5); }
static void looks_at_what_stays(void) {
    struct heist__range r;
    model_assert(heist__ranges_find(stays.lo + 5, &r) && r.lo == stays.lo && r.hi == stays.hi && r.shift == stays.shift);
}
static void check(void) {
    struct heist__range r;
    model_assert(heist__ranges_find(second.lo, &r) && !heist__ranges_find(first.lo, &r));
}

int main(int argc, char **argv) {
    static const struct model_case cases[] = {
        {"a look into the arena that goes", setup, {moves, looks_in_the_first}, check, {4, 3}, {8, 6}, true},
        {"a look between the two", setup, {moves, looks_in_the_gap}, check, {4, 3}, {8, 6}, true},
        {"a look into the arena that comes", setup, {moves, looks_in_the_second}, check, {4, 3}, {8, 6}, true},
        {"an arena that stays is found", setup, {moves, looks_at_what_stays}, check, {4, 3}, {8, 6}, true},
        {"two looks", setup, {moves, looks_in_the_gap, looks_in_the_second}, check, {2, 2}, {3, 3}, true},
    };
    return model_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
