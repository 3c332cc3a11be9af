/* An operation by the ring of the running loop, where it has one (HEIST_BACKEND_IO_URING). */
#ifndef HEIST_IO_RING_CALL_H
#define HEIST_IO_RING_CALL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

/* Of a task, in machine time, on a loop with a ring. */
bool heist__ring_here(void);

/* What an operation says, or -ECANCELED (it was not done, or is as if it had not been).  It ends before the call
 * returns, whatever comes; a request that came too late is delivered by the next call.  offset -1: at the file's
 * position.  Only when heist__ring_here.  A cancellation point. */
int64_t heist__ring_read(int fd, void *buf, size_t size, int64_t offset);
int64_t heist__ring_write(int fd, const void *buf, size_t size, int64_t offset);
int heist__ring_sync(int fd, bool data_only);
int heist__ring_open_file(const char *path, int flags, unsigned mode);
/* Of the path from fd (AT_FDCWD), or of fd itself, with an empty path and AT_EMPTY_PATH in flags. */
int heist__ring_stat(int fd, const char *path, int flags, struct stat *out);

#endif
