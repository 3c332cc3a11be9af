/* Reads memory of this process that may be changing, or gone.
 *
 * The kernel copies, as for a debugger: an address that is not mapped is an answer and no fault, and no
 * memory checker takes the copy for a race.  Bytes that others write meanwhile come old or new, an aligned
 * word whole.  Owns nothing; any thread. */
#ifndef HEIST_BASE_PEEK_H
#define HEIST_BASE_PEEK_H

#include <stddef.h>

/* 0; -EFAULT: not all of it can be read; or why the system does not let us. */
int heist__peek(const void *from, void *to, size_t bytes);

/* For tests: as where the first way is forbidden. */
void heist__peek_force_pipe(int on);

#endif
