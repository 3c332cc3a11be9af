/* See ranges.h. */
#include "mem/ranges.h"

#include "conc/atomic.h"

static struct {
    _Atomic(uintptr_t) lo; /* 0: free */
    _Atomic(uintptr_t) hi;
    _Atomic(unsigned) shift;
} ranges[HEIST__RANGES];
static _Atomic(int) used; /* entries from here on were never used */

int heist__ranges_add(struct heist__range range) {
    int end = a_load_rlx(&used), i = 0; /* rlx: written under this lock */
    while (i < end && a_load_rlx(&ranges[i].lo) != 0) i++; /* rlx: likewise */
    if (i == HEIST__RANGES) return -1;
    /* rel: whoever reads this lo sees these two; and who reads one of these two does not read the old lo after it. */
    a_store_rel(&ranges[i].hi, range.hi);
    a_store_rel(&ranges[i].shift, range.shift);
    a_store_rel(&ranges[i].lo, range.lo);
    if (i == end) a_store_rel(&used, end + 1); /* rel: an entry below the count is written */
    return i;
}

void heist__ranges_remove(int number) {
    a_store_rel(&ranges[number].lo, 0); /* rel: pairs with the second reading in find */
}

bool heist__ranges_find(uintptr_t at, struct heist__range *out) {
    int end = a_load_acq(&used); /* acq: pairs with add */
    for (int i = 0; i < end; i++) {
        uintptr_t lo = a_load_acq(&ranges[i].lo); /* acq: hi and shift of this arena or a later one */
        if (lo == 0 || at < lo) continue;
        uintptr_t hi = a_load_acq(&ranges[i].hi); /* acq, as the next: keeps the second reading of lo behind it */
        unsigned shift = a_load_acq(&ranges[i].shift);
        if (at >= hi || a_load_rlx(&ranges[i].lo) != lo) continue; /* rlx: behind the two */
        *out = (struct heist__range){lo, hi, shift};
        return true;
    }
    return false;
}
