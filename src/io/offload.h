/* A call that blocks, beside the loop. */
#ifndef HEIST_IO_OFFLOAD_H
#define HEIST_IO_OFFLOAD_H

#include <heist/base.h>

/* Runs fn(arg, …), which may block, and returns its code: in a task on the default executor, as heist_to_thread (once
 * it has begun the call waits for it whatever comes, so arg may stand in the caller's frame); on a plain thread in
 * place. A cancellation point.  Otherwise -ECANCELED, HEIST_ENOTINCORO, HEIST_EFORKED, or why there is no thread: fn
 * did not run. */
int heist__offload(heist_coro_fn fn, void *arg);

#endif
