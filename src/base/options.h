/* Option structures that grow: the caller's size tells which it was built with.
 *
 * Smaller than ours is refused (there is no older one yet); larger is fine as long as
 * what we do not know is zero, its default. */
#ifndef HEIST_BASE_OPTIONS_H
#define HEIST_BASE_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

/* `options` begins with its size_t size; NULL stands for the defaults. */
static inline bool heist__options_ok(const void *options, size_t known) {
    if (!options) return true;
    size_t size = *(const size_t *)options;
    if (size < known || size > 4096) return false;
    for (size_t i = known; i < size; i++)
        if (((const char *)options)[i]) return false;
    return true;
}

#endif
