/* heist/process.h: programs as children of this process.
 *
 * asyncio's create_subprocess_exec and create_subprocess_shell.  A child is watched through a descriptor of its own
 * (a pidfd) by the loop on which it was started: its end is seen at once, its status is taken once, by the library, and
 * kept in the handle.  Nothing here looks at SIGCHLD or at children of others, and no signal can reach a process that
 * merely got the same number.
 *
 * A child begins with an empty signal mask and no handlers, what was ignored is still ignored (SIGPIPE and SIGXFSZ
 * have their default again), and with no descriptors but 0, 1, 2 and those that were given.
 *
 * A child outlives its handle, unless HEIST_PROCESS_KILL_ON_DROP is given, and its loop, as in asyncio; its status is still
 * taken.  A loop that closes takes those of its children that have ended, and of those that the library has killed, for
 * whose end it waits a second.  What runs on then is watched by nobody, for no thread or signal handler of the library
 * outlives its runtimes: a dead one is a zombie until somebody asks or waits for any child of the library, starts one, or
 * makes or closes a loop.  No call takes the status of a child that the library did not start.
 * Needs Linux 5.4: -ENOSYS before. */
#ifndef HEIST_PROCESS_H
#define HEIST_PROCESS_H

#include <heist/base.h>
#include <heist/stream.h>
#include <sys/types.h>

HEIST_BEGIN_DECLS

/* A handle; reference counted, thread-safe. */
typedef struct heist_process heist_process;

/* What a standard stream is. */
#define HEIST_PROCESS_INHERIT 0       /* that of this process */
#define HEIST_PROCESS_PIPE (-1)       /* a pipe, whose other end the handle has */
#define HEIST_PROCESS_STDOUT (-2)     /* for standard error: where standard output goes */
#define HEIST_PROCESS_NULL (-3)       /* /dev/null */
#define HEIST_PROCESS_FD(fd) ((fd) + 1) /* a descriptor of the caller's, which stays his */

typedef struct heist_process_options {
    size_t size; /* of this structure, set by the initialiser */
    unsigned flags;
    int stdin_is, stdout_is, stderr_is; /* HEIST_PROCESS_… */
    char *const *env;      /* "NAME=value" …, NULL; NULL: that of this process */
    const char *cwd;       /* NULL: that of this process */
    const int *pass_fds;   /* more descriptors for the child, under the same numbers (3 and above) */
    size_t pass_fds_count;
    const heist_stream_options *stream; /* of the pipes; NULL: the defaults */
} heist_process_options;
#define HEIST_PROCESS_GROUP 0x1u          /* the leader of a new process group */
#define HEIST_PROCESS_SESSION 0x2u        /* the leader of a new session, and so of a group */
#define HEIST_PROCESS_KEEP_FDS 0x4u       /* inherits whatever has no close-on-exec flag, as exec does */
#define HEIST_PROCESS_KILL_ON_CANCEL 0x8u /* killed when a wait, communicate or stop for it ends with -ECANCELED */
#define HEIST_PROCESS_KILL_ON_DROP 0x10u  /* killed when the last reference goes */
#define HEIST_PROCESS_OPTIONS_INIT {sizeof(heist_process_options), 0, 0, 0, 0, NULL, NULL, NULL, 0, NULL}

/* Starts argv[0], looked for in PATH (that of opts.env, if given) unless it has a slash, with the arguments argv, which
 * ends with NULL.  Returns when the new program has begun, or could not.  What is given is borrowed for the call.
 * Context: task.  Suspends: may, to let others in.  A cancellation point: -ECANCELED has started nothing; a request
 * that comes during the call is delivered later.
 * Ownership: *out is one reference.
 * Errors: -ENOENT, -EACCES, -ENOEXEC and what else exec and chdir say (nothing is left of the child); -EMFILE and the
 * like, -EAGAIN, -ENOMEM, -EBADF (a descriptor that is not open), -EINVAL, -ECANCELED, HEIST_ENOTINCORO, -ENOSYS. */
HEIST_API int heist_create_subprocess_exec(char *const argv[], const heist_process_options *opts,
                                           heist_process **out) HEIST_NODISCARD;
/* The same with a line for the shell, /bin/sh -c.  Killing the shell leaves what it has started, unless it is a
 * group (HEIST_PROCESS_GROUP, heist_process_signal_group). */
HEIST_API int heist_create_subprocess_shell(const char *command, const heist_process_options *opts,
                                            heist_process **out) HEIST_NODISCARD;

/* Context: any.  Suspends: never.  NULL is allowed in unref.  The last unref closes the pipes. */
HEIST_API heist_process *heist_process_ref(heist_process *p);
HEIST_API void heist_process_unref(heist_process *p);

/* Context: any.  Suspends: never. */
HEIST_API pid_t heist_process_pid(const heist_process *p);

/* Waits until it has ended: *code (may be NULL) is its exit code, or the negative number of the signal that ended
 * it.  Any number of tasks may wait, also later.  Cancelling a wait leaves the process alone.
 * Context: task or plain thread.  Suspends: may.
 * Errors: -ETIMEDOUT, -ECANCELED; -ECHILD (it has ended, but somebody else in this process took its status, or SIGCHLD
 * is ignored); HEIST_ECLOSED (on a plain thread, when it runs and the loop that watched it is closed),
 * HEIST_ENOTINCORO, -EINVAL. */
HEIST_API int heist_process_wait(heist_process *p, double deadline, int *code);
/* The same without waiting: HEIST_EINVALSTATE while it runs.  Context: any.  Suspends: never. */
HEIST_API int heist_process_returncode(heist_process *p, int *code);

/* ---- signals ---- */

/* To the process; terminate and kill: SIGTERM and SIGKILL.
 * Context: any.  Suspends: never.  Errors: -ESRCH (its end has been seen), -EINVAL, -EPERM. */
HEIST_API int heist_process_send_signal(heist_process *p, int sig);
HEIST_API int heist_process_terminate(heist_process *p);
HEIST_API int heist_process_kill(heist_process *p);
/* To all of its group; to itself, when it has left that and nobody is there.
 * Errors: also -ENOTSUP (it has none of its own). */
HEIST_API int heist_process_signal_group(heist_process *p, int sig);
/* SIGTERM, and SIGKILL after `grace` seconds if it is still there; to the group if it has one of its own.  Returns
 * when it has ended, as wait does; a cancelled stop kills at once, and does not wait.
 * Context: task.  Suspends: may.  Errors: -ECANCELED, -ECHILD, -EINVAL, HEIST_ENOTINCORO. */
HEIST_API int heist_process_stop(heist_process *p, double grace, int *code);

/* ---- pipes ---- */

/* The other ends of its pipes, NULL where there is none: standard input to write to, the other two to read.  Borrowed
 * from the handle, whose last unref closes them; heist_stream_ref keeps one longer.  What the child wrote can be read
 * after its end too.  close_stdin: when what was written has gone out, the child reads the end.
 * Context: any.  Suspends: never. */
HEIST_API heist_stream *heist_process_stdin(heist_process *p);
HEIST_API heist_stream *heist_process_stdout(heist_process *p);
HEIST_API heist_stream *heist_process_stderr(heist_process *p);
HEIST_API int heist_process_close_stdin(heist_process *p);

/* What communicate gives: NULL where there is no pipe, else terminated by a zero byte that is not counted. */
typedef struct heist_process_output {
    size_t size;
    char *out, *err;
    size_t out_size, err_size;
    int code; /* as wait's */
} heist_process_output;
#define HEIST_PROCESS_OUTPUT_INIT {sizeof(heist_process_output), NULL, NULL, 0, 0, 0}

/* Writes the input and ends it, reads both outputs to their ends, all at the same time, and waits for the process.  A
 * child that does not read its input is no failure.  What it writes is kept in memory, however much that is: who does
 * not trust a child reads its streams, in pieces and with a bound.
 * After -ETIMEDOUT or -ECANCELED nothing is lost: call again, with the same input, and it goes on where it stood.
 * Context: task.  Suspends: may.
 * Ownership: what is in *out is the caller's, ended by output_free.  The input is borrowed for the call.
 * Errors: -ETIMEDOUT, -ECANCELED, -ENOMEM, -EBUSY (another communicate, or a reader or writer, is under way), -ECHILD,
 * -EINVAL (also an input without a pipe), HEIST_ECLOSED (a pipe was closed here meanwhile), HEIST_ENOTINCORO. */
HEIST_API int heist_process_communicate(heist_process *p, const void *input, size_t input_size, double deadline,
                                        heist_process_output *out);
/* Context: any.  Suspends: never. */
HEIST_API void heist_process_output_free(heist_process_output *out);

HEIST_END_DECLS

#endif
