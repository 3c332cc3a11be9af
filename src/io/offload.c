/* Blocking calls of tasks and of plain threads.  See offload.h.
 *
 * Why a cancelled call waits for what has begun.  The kernel reads into the caller's buffer until the system call
 * returns, and nothing makes it return early.  The other way out, a buffer of the call's own that outlives it, would
 * copy every byte and lose those that were read: the position has moved, and nobody is told.  So the call stays until
 * the thread has left the buffer, returns what was done, and leaves the request to the next call. */
#include "io/offload.h"

#include <heist/executor.h>

#include "conc/self.h"
#include "sched/suspend.h"

int heist__offload(heist_coro_fn fn, void *arg) {
    struct heist__self *self = heist__self();
    if (self->task) return heist_to_thread(fn, arg, NULL);
    int err = heist__wait_entry(self);
    return err ? err : fn(arg, NULL);
}
