/* Option structures that grow: the caller's size tells which it was built with.
 *
 * Smaller than ours is refused, but for the size that the structure had at first; larger is
 * fine as long as what we do not know is zero, its default. */
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

/* The same for a structure that has grown since its first version, which ended at `first`: its options beyond
 * that are there only when heist__options_has says so. */
static inline bool heist__options_ok_since(const void *options, size_t first, size_t known) {
    return (options && *(const size_t *)options == first) || heist__options_ok(options, known);
}
static inline bool heist__options_has(const void *options, size_t first) {
    return options && *(const size_t *)options > first;
}

#endif
