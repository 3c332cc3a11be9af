/* heist/file.h: files and directories without blocking a worker; watching them for changes.
 *
 * No file is ever "not ready", so no loop can wait for one: a call that may have to wait for
 * the disk runs on the default executor of the runtime (heist/executor.h), or in the loop's
 * ring where it has one (heist/runtime.h, HEIST_BACKEND_IO_URING), and the task suspends
 * meanwhile.  What is in memory already is read in place.  A plain thread, a job of an executor and a blocking section
 * make the same calls and simply block.
 *
 * Cancelling.  A request takes out an operation that has not begun: -ECANCELED, nothing was
 * read, written, made or removed.  One that has begun cannot be stopped, and it uses the
 * caller's buffer; so the call waits for it, returns what it did, and the request is delivered
 * by the next call that may suspend.  A write of much may stop between two pieces, and says how far it came.  A buffer
 * may therefore stand in the caller's frame, and no outcome is lost.  Deadlines: a block of heist/timeout.h, by the
 * same rule.
 *
 * Two ways to a file's bytes, which may be mixed: by its *position* (read, write, readline,
 * seek), where one operation runs at a time, the others wait their turn in order; and by an
 * *offset* (pread, pwrite), any number at once.
 *
 * For pipes, sockets and terminals, whose reads may take for ever, use heist/net.h. */
#ifndef HEIST_FILE_H
#define HEIST_FILE_H

#include <fcntl.h>
#include <heist/base.h>
#include <sys/inotify.h>
#include <sys/stat.h>

HEIST_BEGIN_DECLS

typedef struct heist_file heist_file;

/* Errors of every call here that may suspend, beside its own: -ECANCELED (nothing was done), HEIST_ENOTINCORO (a
 * callback), -EINVAL, -ENOMEM, HEIST_EEXECSHUTDOWN (in a task: the default executor was shut down), and what the system
 * says.  None is ended by a signal. */

/* open(2): flags are O_RDONLY, O_CREAT and so on; O_CLOEXEC is always set.  mode: of a file that is made.
 * Context: any.  Suspends: may.  Ownership: *out is the caller's, ended by close. */
HEIST_API int heist_file_open(const char *path, int flags, mode_t mode, heist_file **out) HEIST_NODISCARD;
/* Takes over an open descriptor.  Context: any.  Suspends: never.  Ownership: fd is the file's on success only.
 * Errors: -EBADF, -ENOMEM. */
HEIST_API int heist_file_adopt(int fd, heist_file **out) HEIST_NODISCARD;
/* Ends it; NULL is allowed.  Calls that other tasks have under way on it: those that run end as if nothing had
 * happened, and the last of them closes the descriptor; those that wait for their turn get HEIST_ECLOSED.  What
 * close(2) said, when it is made here (-EIO, -EDQUOT: data was lost, where no sync had told of it before); the file is
 * gone whatever it is. Context: any.  Suspends: never.  Undefined: a call that begins after it. */
HEIST_API int heist_file_close(heist_file *f);
/* The descriptor, borrowed.  Context: any.  Suspends: never. */
HEIST_API int heist_file_fd(const heist_file *f);

/* Reads at the position, and moves it: the count; 0 at the end of the file; fewer bytes than asked for mostly mean that
 * the end is near.  Context: any.  Suspends: may.  Errors: also HEIST_ECLOSED, -EINVAL (a size of 0). */
HEIST_API ptrdiff_t heist_file_read(heist_file *f, void *buf, size_t size) HEIST_NODISCARD;
/* Writes all of it at the position (with O_APPEND at the end), and moves it: 0, or a code with *written (may be NULL)
 * bytes gone.  Context: any.  Suspends: may.  Errors: also HEIST_ECLOSED, -ENOSPC, -EFBIG and the like. */
HEIST_API int heist_file_write(heist_file *f, const void *buf, size_t size, size_t *written);
/* The next line with its '\n', or what is left of the last one: its length, 0 at the end.  A line that has no room
 * comes in pieces; a zero byte follows in any case.  The file keeps what it read ahead; the position is behind the
 * line. Context: any.  Suspends: may.  Errors: also HEIST_ECLOSED, -EINVAL (less than 2 bytes). */
HEIST_API ptrdiff_t heist_file_readline(heist_file *f, char *buf, size_t size) HEIST_NODISCARD;
/* lseek(2): moves the position, whence is SEEK_SET, SEEK_CUR, SEEK_END, SEEK_DATA or SEEK_HOLE; *out (may be NULL) is
 * the new one.  heist_file_seek(f, 0, SEEK_CUR, &at) asks for it.  Context: any.  Suspends: may.  Errors: also -ESPIPE.
 */
HEIST_API int heist_file_seek(heist_file *f, int64_t offset, int whence, int64_t *out);

/* The same at an offset; the position stays.  Context: any.  Suspends: may.  Errors: as read and write; -EINVAL also
 * for a negative offset. */
HEIST_API ptrdiff_t heist_file_pread(heist_file *f, void *buf, size_t size, int64_t offset) HEIST_NODISCARD;
HEIST_API int heist_file_pwrite(heist_file *f, const void *buf, size_t size, int64_t offset, size_t *written);

/* fsync(2): what was written is on the disk; fdatasync(2): its bytes are.  ftruncate(2): longer by zeros, or shorter.
 * fstat(2).  Context: any.  Suspends: may. */
HEIST_API int heist_file_sync(heist_file *f);
HEIST_API int heist_file_datasync(heist_file *f);
HEIST_API int heist_file_truncate(heist_file *f, int64_t size);
HEIST_API int heist_file_stat(heist_file *f, struct stat *out);

/* ---- whole files ---- */

/* All of a file, with a zero byte behind it; max: -EFBIG beyond so many bytes, 0: no limit.
 * Context: any.  Suspends: may.  Ownership: *data is released by heist_file_data_free. */
HEIST_API int heist_read_file(const char *path, size_t max, char **data, size_t *size) HEIST_NODISCARD;
/* NULL is allowed.  Context: any.  Suspends: never. */
HEIST_API void heist_file_data_free(char *data);
/* Makes the file, or empties it, and writes.  mode: of a file that is made.  After a failure it holds a part.
 * Context: any.  Suspends: may. */
HEIST_API int heist_write_file(const char *path, const void *data, size_t size, mode_t mode);

/* ---- names ----
 *
 * stat(2), lstat(2), mkdir(2), rmdir(2), unlink(2), rename(2).  Context: any.  Suspends: may. */
HEIST_API int heist_stat(const char *path, struct stat *out);
HEIST_API int heist_lstat(const char *path, struct stat *out);
HEIST_API int heist_mkdir(const char *path, mode_t mode);
HEIST_API int heist_rmdir(const char *path);
HEIST_API int heist_unlink(const char *path);
HEIST_API int heist_rename(const char *from, const char *to);

/* ---- directories ---- */

typedef struct heist_dir heist_dir;

typedef struct heist_dir_entry {
    uint64_t inode;
    unsigned char type; /* DT_REG, DT_DIR … of <dirent.h>; DT_UNKNOWN: ask heist_lstat */
    char name[256];
} heist_dir_entry;

/* Context: any.  Suspends: may.  Ownership: *out is the caller's, ended by close. */
HEIST_API int heist_dir_open(const char *path, heist_dir **out) HEIST_NODISCARD;
/* The next entry, in the order of the file system, without "." and "..": 1, or 0 at the end.  By one at a time.
 * Entries are read ahead, many at a time.  Context: any.  Suspends: may.  Errors: also -EBUSY. */
HEIST_API int heist_dir_next(heist_dir *d, heist_dir_entry *out) HEIST_NODISCARD;
/* NULL is allowed.  Context: any.  Suspends: never.  Undefined: while heist_dir_next is under way. */
HEIST_API void heist_dir_close(heist_dir *d);

/* ---- changes, by inotify(7) ---- */

typedef struct heist_fswatch heist_fswatch;

typedef struct heist_fswatch_event {
    int id;          /* what heist_fswatch_add gave; -1 with IN_Q_OVERFLOW */
    uint32_t mask;   /* IN_CREATE, IN_DELETE, IN_MODIFY …; IN_Q_OVERFLOW: events were lost, look at everything anew */
    uint32_t cookie; /* the same in both halves of a rename */
    char name[256];  /* within the directory that is watched; empty: the watched thing itself */
} heist_fswatch_event;

/* Context: any.  Suspends: never.  Ownership: *out is the caller's, ended by close.
 * Errors: -EMFILE (descriptors, or the user's limit of inotify), -ENOMEM. */
HEIST_API int heist_fswatch_new(heist_fswatch **out) HEIST_NODISCARD;
/* Watches a directory or a file for the events in mask (IN_…), from now on: a number above 0, which comes with each
 * event. Watching the same thing again changes the mask and gives the same number. Context: any.  Suspends: may.
 * Errors: also HEIST_ECLOSED, -ENOSPC (the user's limit). */
HEIST_API int heist_fswatch_add(heist_fswatch *w, const char *path, uint32_t mask);
/* No longer; an IN_IGNORED with that number comes last.  Context: any.  Suspends: never.  Errors: -EINVAL,
 * HEIST_ECLOSED. */
HEIST_API int heist_fswatch_remove(heist_fswatch *w, int id);
/* Waits for the next event: 0 and *out.  They come in their order; equal ones in a row may come as one.
 * Context: task.  Suspends: may.  Errors: -ETIMEDOUT, -ECANCELED (none was taken), -EBUSY (another task waits),
 * HEIST_ECLOSED (closed meanwhile), HEIST_ENOTINCORO. */
HEIST_API int heist_fswatch_next(heist_fswatch *w, double deadline, heist_fswatch_event *out) HEIST_NODISCARD;
/* A task that waits in next gets HEIST_ECLOSED.  NULL is allowed.  Context: any.  Suspends: never.
 * Undefined: a call that begins after it. */
HEIST_API void heist_fswatch_close(heist_fswatch *w);

HEIST_END_DECLS

#endif
