/* A block between two steps.  A plain nesting of calls: what the task is told, it is told in one of the three. */
#include <heist/error.h>
#include <heist/with.h>

#include "base/fork.h"
#include "base/options.h"

int heist_with(const heist_with_ops *ops, void *manager, heist_with_fn block, void *arg, void **out) {
    if (!ops || !block || !heist__options_ok(ops, sizeof(*ops)) || !ops->enter || !ops->exit) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    void *entered = NULL, *value = NULL;
    int err = ops->enter(manager, &entered);
    if (err < 0) return err;
    int code = block(entered, arg, &value);
    if (code > 0) code = 0;
    err = ops->exit(manager, code);
    if (err < 0) return err;
    if (code && !err) return code;
    if (out) *out = code ? NULL : value;
    return 0;
}
