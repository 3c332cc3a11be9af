/* What may be awaited becomes a future. */
#include <heist/error.h>
#include <heist/flow.h>

#include "base/alloc.h"
#include "base/fork.h"

int heist_ensure_future_at(const char *file, int line, heist_loop *loop, heist_awaitable awaitable,
                           const heist_task_options *opts, heist_future **out) {
    if (!out || !awaitable.future == !awaitable.fn) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    if (awaitable.future) {
        *out = heist_ref(awaitable.future);
        return 0;
    }
    return loop ? heist_loop_create_task_at(file, line, loop, awaitable.fn, awaitable.arg, opts, out)
                : heist_create_task_at(file, line, awaitable.fn, awaitable.arg, opts, out);
}

int heist_ensure_futures_at(const char *file, int line, heist_loop *loop, const heist_awaitable *awaitables, size_t n,
                            const heist_task_options *opts, size_t *made, heist_future **out) {
    if (n && (!awaitables || !out)) return -EINVAL;
    for (size_t i = 0; i < n; i++)
        if (!awaitables[i].future == !awaitables[i].fn) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    heist_future **fresh = n ? heist__alloc(n * sizeof(*fresh)) : NULL;
    if (n && !fresh) {
        if (made) *made = 0;
        return -ENOMEM;
    }
    int err = 0;
    size_t i = 0;
    for (; i < n && !err; i++) err = heist_ensure_future_at(file, line, loop, awaitables[i], opts, &fresh[i]);
    if (err) {
        if (made) *made = i - 1;
        for (i--; i-- > 0;) {
            if (awaitables[i].fn) heist_cancel(fresh[i]);
            heist_unref(fresh[i]);
        }
    } else {
        for (i = 0; i < n; i++) out[i] = fresh[i];
    }
    heist__free(fresh);
    return err;
}

void heist_unref_all(heist_future *const *futures, size_t n) {
    for (size_t i = 0; futures && i < n; i++) heist_unref(futures[i]);
}
