/* heist/with.h: a step before a block and a step after it, on every way out.
 *
 * What asyncio writes `async with manager: block`.  Both steps may suspend, and the second one also runs when the block
 * has failed or was cancelled, and may wait then. */
#ifndef HEIST_WITH_H
#define HEIST_WITH_H

#include <heist/base.h>

HEIST_BEGIN_DECLS

typedef struct heist_with_ops {
    size_t size;
    /* Before the block: 0, and what the block gets (NULL unless set); or a code: then neither block nor exit runs. */
    int (*enter)(void *manager, void **out);
    /* After the block: code is what it returned, 0 or negative; -ECANCELED when it was cancelled.  0: that stays.  1: a
     * failure is dealt with, and the block counts as ended well.  Negative: the exit has failed, and its code takes the
     * other's place. */
    int (*exit)(void *manager, int code);
} heist_with_ops;

/* The block.  entered: from enter. */
typedef int (*heist_with_fn)(void *entered, void *arg, void **out);

/* Runs enter, the block, exit.  0, and the block's result (NULL when its failure was dealt with); or the code of the
 * one that failed last.  out may be NULL.
 * Context: any.  Suspends: may (where the three do).  Errors: also -EINVAL. */
HEIST_API int heist_with(const heist_with_ops *ops, void *manager, heist_with_fn block, void *arg, void **out);

HEIST_END_DECLS

#endif
