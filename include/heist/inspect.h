/* heist/inspect.h: what is going on: stacks, who waits for whom, everything at a glance.
 *
 * Every call here may be made at any time, by any thread, while workers run: nothing is stopped, and a program that
 * does not ask pays nothing.  So an answer is of a moment that has passed when it arrives, and parts of one answer
 * may be of slightly different moments.  None of them suspends; some take long enough to matter in a callback. */
#ifndef HEIST_INSPECT_H
#define HEIST_INSPECT_H

#include <heist/barrier.h>
#include <heist/base.h>
#include <heist/broadcast.h>
#include <heist/channel.h>
#include <heist/condition.h>
#include <heist/event.h>
#include <heist/lock.h>
#include <heist/queue.h>
#include <heist/rwlock.h>
#include <heist/semaphore.h>
#include <heist/watch.h>
#include <stdio.h>

HEIST_BEGIN_DECLS

/* ---- stacks ---- */

/* The addresses at which a task stands, the innermost first, at most max of them: the first one or two are the
 * library's, then come the functions of the program.  The calling task gives its own stack, from its caller on.
 * Only its own frames, also where it stands on the stack of the one that awaits it (see heist_await).
 * Found from a copy of the stack by the unwind tables that every build has; nothing needs frame pointers.  A task that
 * goes on while it is copied is tried again some times, then it counts as running.
 * Context: any.  Suspends: never.
 * Returns how many; 0 for a task that is done, or has not begun.
 * Errors: -EBUSY (it runs at this moment, on another thread), -EINVAL (not a task, max < 0), -ENOMEM; -EPERM or
 * -ENOSYS where the system lets a process read its own memory in no safe way. */
HEIST_API int heist_task_get_stack(heist_task *t, void **frames, int max);

/* Writes the same to a stream (NULL: standard error) with the names that the dynamic symbols tell: at most `limit`
 * frames (0: 32), the outermost first, as asyncio does.  Of a task that has failed: its failure, and where that was
 * recorded. Context: any.  Suspends: never.  Errors: -EINVAL (not a task, limit < 0), -ENOMEM. */
HEIST_API int heist_task_print_stack(heist_task *t, int limit, FILE *to);

/* A printable form of a code address: function, offset and object where the object's dynamic symbols tell (link with
 * -rdynamic to have those of a program), else object and offset, for addr2line.  `returns` is 1 for a return address,
 * as all of a stack are.  Always terminated; returns the length it would have had.  Context: any. */
HEIST_API int heist_describe_address(const void *address, int returns, char *buf, size_t size);

/* Where a future or task was made, if its loop was in debug mode then: the addresses of at most ten callers, the
 * innermost first.  (The file and line of a task's making are known always, see heist_future_repr.)  A failure that
 * nobody looked at is reported with it. Context: any.  Suspends: never.  Returns how many, 0 when it was not noted.
 * Errors: -EINVAL. */
HEIST_API int heist_future_get_birth(heist_future *f, void **frames, int max);

/* ---- who waits for whom ---- */

/* A future, where it stands, and those who wait for it, recursively: asyncio's FutureCallGraph. */
typedef struct heist_call_graph heist_call_graph;

/* Takes the graph above f; NULL: the calling task, and outside a task *out becomes NULL.  Of each stack the innermost
 * `depth` frames are left out, and at most `limit` kept (0: 32).
 * Links: awaits, with and without a deadline; gather, wait, shield, groups; and those added by hand.  A future whose
 * awaiters stand in the graph already is not followed again, so that a cycle ends.
 * Context: any.  Suspends: never.  Ownership: *out is freed with heist_call_graph_free; it holds a reference to each
 * future in it.  Errors: -EINVAL, -ENOMEM. */
HEIST_API int heist_capture_call_graph(heist_future *f, int depth, int limit, heist_call_graph **out) HEIST_NODISCARD;
/* Frees the whole; to be called with what capture gave.  NULL is allowed. */
HEIST_API void heist_call_graph_free(heist_call_graph *g);

/* Of one node; all is borrowed from the graph.  frames returns how many, or a negative code: why there are none. */
HEIST_API heist_future *heist_call_graph_future(const heist_call_graph *g);
HEIST_API int heist_call_graph_frames(const heist_call_graph *g, void *const **frames);
HEIST_API size_t heist_call_graph_awaiters(const heist_call_graph *g);
HEIST_API heist_call_graph *heist_call_graph_awaiter(const heist_call_graph *g, size_t index); /* NULL beyond */
HEIST_API int heist_call_graph_threads(const heist_call_graph *g); /* plain threads that wait */
#define HEIST_CALL_GRAPH_CYCLE 0x1u /* it waits for itself: it stands among those below it already */
#define HEIST_CALL_GRAPH_KNOWN 0x2u /* its awaiters stand at another place of the graph */
HEIST_API unsigned heist_call_graph_flags(const heist_call_graph *g);

/* Writes the graph as indented text to a stream (NULL: standard error).  Otherwise as capture.
 * Returns 0, or 1 when there is a cycle.  Errors: those of capture. */
HEIST_API int heist_print_call_graph(heist_future *f, int depth, int limit, FILE *to);

/* Says that `awaiter` waits for f, where a program's own kind of future stands between, and takes that back.  Changes
 * nothing but the graph.  The link ends by itself when f is done; until then it holds a reference to the awaiter.
 * NULL for either is ignored, and so is a link that is there already, or is not.
 * Context: any.  Suspends: never.  Errors: -ENOMEM. */
HEIST_API int heist_future_add_to_awaited_by(heist_future *f, heist_future *awaiter);
HEIST_API int heist_future_discard_from_awaited_by(heist_future *f, heist_future *awaiter);

/* ---- at a glance ---- */

/* Printable forms, as `<Loop running readers=2 timers=1>`, `<Handle scheduled name>`, `<Runtime heist workers=8
 * tasks=3>`. Always terminated; returns the length it would have had.  Locks are held only briefly. Context: any.
 * Suspends: never.  Errors: -EINVAL. */
HEIST_API int heist_loop_repr(heist_loop *loop, char *buf, size_t size);
HEIST_API int heist_handle_repr(heist_handle *handle, char *buf, size_t size);
HEIST_API int heist_runtime_repr(heist_runtime *rt, char *buf, size_t size);
/* The same of what tasks wait on, with how many wait. */
HEIST_API int heist_lock_repr(heist_lock *lock, char *buf, size_t size);
HEIST_API int heist_event_repr(heist_event *event, char *buf, size_t size);
HEIST_API int heist_semaphore_repr(heist_semaphore *semaphore, char *buf, size_t size);
HEIST_API int heist_channel_repr(heist_channel *c, char *buf, size_t size);
HEIST_API int heist_queue_repr(heist_queue *q, char *buf, size_t size);
HEIST_API int heist_rwlock_repr(heist_rwlock *lock, char *buf, size_t size);
HEIST_API int heist_condition_repr(heist_condition *condition, char *buf, size_t size);
HEIST_API int heist_barrier_repr(heist_barrier *barrier, char *buf, size_t size);
HEIST_API int heist_broadcast_repr(heist_broadcast *b, char *buf, size_t size);
HEIST_API int heist_watch_repr(heist_watch *w, char *buf, size_t size);

/* ---- everything ---- */

#define HEIST_DUMP_ALL 0 /* runtimes, workers and their counters, tasks with their stacks and awaiters, as text */
#define HEIST_DUMP_TABLE                                                                                               \
    1 /* a line for each task and awaiter: thread, task, name, stack, awaiter's stack, name and id */
#define HEIST_DUMP_TREE 2 /* which task awaits which, as a tree, with the innermost frames; cycles are named */
#define HEIST_DUMP_JSON 3 /* all of it for programs */

/* Writes what there is in this process to a stream (NULL: standard error).  A task's id is its address.  `thread` is
 * the runtime and the index of the worker on which a task runs, or is pinned, or `-`. Context: any.  Suspends: never.
 * Returns 0; 1 when tasks wait for each other in a cycle (TREE and JSON look).  Errors: -EINVAL (format), -ENOMEM. */
HEIST_API int heist_dump(int format, FILE *to);

/* Serves heist_dump to others: heist-ps PID is the program that asks.  A thread of its own, so that it answers also
 * when every worker is held, on the abstract Unix socket `heist-PID`; only processes of the same user, and root, get an
 * answer.  With HEIST_INSPECT=1 in the environment it begins with the first runtime.
 * A second call is -EALREADY, stop without one -EALREADY too; stop waits for the thread.
 * Context: serve: any; stop: a plain thread.  Errors: -EAGAIN (no thread), -EMFILE, -EADDRINUSE, HEIST_EFORKED;
 * stop on a worker is -EDEADLK. */
HEIST_API int heist_inspect_serve(void);
HEIST_API int heist_inspect_stop(void);

HEIST_END_DECLS

#endif
