/* What tests of programs need: see heist/testkit.h.
 *
 * A future that nobody can take a reference to, for it is done, may be looked at here all the same: nobody else uses
 * the library at that time, so whoever holds it does not let it go. */
#include <heist/runtime.h>
#include <heist/testkit.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fork.h"
#include "base/options.h"
#include "base/place.h"
#include "conc/self.h"
#include "mem/slab.h"
#include "task/birth.h"
#include "task/state.h"
#include "task/task.h"

struct living {
    FILE *to;
    const heist_future **list; /* to be collected, or NULL */
    size_t count, room;
    const struct living *but; /* not those */
};

static int by_address(const void *a, const void *b) {
    uintptr_t x = (uintptr_t) * (const heist_future *const *)a, y = (uintptr_t) * (const heist_future *const *)b;
    return x < y ? -1 : x > y;
}

static void describe(heist_future *f, FILE *to) {
    char text[512];
    heist_future_repr(f, text, sizeof(text));
    /* rlx: nobody changes it */
    fprintf(to, "heist: left behind: %s, %llu reference%s\n", text,
            (unsigned long long)heist__refs(a_load_rlx(&f->word)), heist__refs(a_load_rlx(&f->word)) == 1 ? "" : "s");
    const struct heist__birth *b = heist__birth_of(f);
    for (unsigned i = 0; b && i < b->count; i++) {
        heist__place(b->frame[i], true, text, sizeof(text));
        fprintf(to, "  made by %s\n", text);
    }
}

static bool look(void *object, void *arg) {
    struct living *l = arg;
    heist_future *f = object;
    if (!heist__refs(a_load_acq(&f->word))) return true; /* acq: pairs with born */
    if (l->but && l->but->count && bsearch(&f, l->but->list, l->but->count, sizeof(f), by_address)) return true;
    if (l->list && l->count < l->room) l->list[l->count] = f;
    if (l->to) describe(f, l->to);
    l->count++;
    return true;
}

static void look_at_all(struct living *l) {
    l->count = 0;
    heist__slab_enter(); /* so that the memory stays */
    heist__slab_each(HEIST__SLAB_FUTURE, look, l);
    heist__slab_leave(heist__self());
}

int heist_test_live(FILE *to) {
    if (heist__forked()) return HEIST_EFORKED;
    struct living l = {.to = to};
    look_at_all(&l);
    return (int)l.count;
}

int heist_test_run(heist_coro_fn main_fn, void *arg, const heist_test_options *opts, void **out, size_t *left) {
    static const heist_test_options defaults = HEIST_TEST_OPTIONS_INIT;
    if (!main_fn || !heist__options_ok(opts, sizeof(*opts))) return -EINVAL;
    if (!opts) opts = &defaults;
    if (opts->flags & ~(HEIST_TEST_QUIET | HEIST_TEST_REAL_TIME | HEIST_TEST_DEBUG)) return -EINVAL;
    if (heist__fork_guard()) return -ENOMEM;
    if (heist__forked()) return HEIST_EFORKED;
    if (heist__self()->worker) return HEIST_EOTHERRUNNING;
    struct living before = {.to = NULL}, after = {.to = opts->flags & HEIST_TEST_QUIET ? NULL : stderr, .but = &before};
    look_at_all(&before);
    before.room = before.count;
    before.list =
        malloc((before.count + 1) * sizeof(*before.list)); /* the program's own: memory may be made to run out */
    if (!before.list) return -ENOMEM;
    look_at_all(&before);
    if (before.count > before.room) before.count = before.room; /* somebody makes some all the same */
    qsort(before.list, before.count, sizeof(*before.list), by_address);
    heist_runtime_options run = HEIST_RUNTIME_OPTIONS_INIT;
    run.workers = opts->workers ? opts->workers : 2;
    if (!(opts->flags & HEIST_TEST_REAL_TIME)) run.flags |= HEIST_RUNTIME_VIRTUAL_TIME;
    if (opts->flags & HEIST_TEST_DEBUG) run.flags |= HEIST_RUNTIME_DEBUG;
    int err = heist_run(main_fn, arg, &run, out);
    look_at_all(&after);
    if (left) *left = after.count;
    free(before.list);
    return err;
}

void heist_test_fail_allocation(long n, int all_later) {
    if (n <= 0) heist__alloc_fail_after(-1);
    else if (all_later) heist__alloc_fail_from(n);
    else heist__alloc_fail_after(n);
}

long heist_test_refused(void) { return heist__alloc_failed(); }
