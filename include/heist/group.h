/* heist/group.h: tasks that end before a block does.
 *
 *     heist_group *g;
 *     int err = heist_group_new(&g);
 *     if (err < 0) return err;
 *     err = heist_group_enter(g);
 *     for (int i = 0; i < n && err == 0; i++)
 *         err = heist_group_create_task(g, fetch, &part[i], NULL, NULL);
 *     err = heist_group_exit(g, err);      // here all of them have ended
 *     heist_group_unref(g);
 *
 * The task that enters is the owner; what it does until the exit is the body of the
 * block.  The first child that fails makes the group cancel the others, and the body:
 * the owner is asked to cancel, and the exit takes that request back.  A body that ends
 * with a code makes it cancel all children.  The exit waits for every child, whatever
 * happens meanwhile; then it tells of all failures at once.
 *
 * Somebody else who asks the owner to cancel is told from the group: all children are
 * cancelled, and when they have ended the exit returns -ECANCELED. */
#ifndef HEIST_GROUP_H
#define HEIST_GROUP_H

#include <heist/task.h>

HEIST_BEGIN_DECLS

typedef struct heist_group heist_group;

/* A group that nobody has entered.  Context: any.  Suspends: never.  Ownership: *out is one reference; ref and unref
 * from any thread, NULL is allowed in unref.  Errors: -ENOMEM, -EINVAL.
 * Undefined: the owner's end between enter and exit. */
HEIST_API int heist_group_new(heist_group **out) HEIST_NODISCARD;
HEIST_API heist_group *heist_group_ref(heist_group *g);
HEIST_API void heist_group_unref(heist_group *g);

/* Begins the block; the caller's task is the owner.
 * Context: task.  Suspends: never.
 * Errors: HEIST_ENOTASK (no task calls), HEIST_EINVALSTATE (entered before), -EINVAL. */
HEIST_API int heist_group_enter(heist_group *g);

/* A child: a task in the owner's runtime, with the same options as any.  A child that has ended is forgotten; its
 * failure is kept.  A child that ends cancelled has not failed.
 * Context: any, also children, while the block lasts, its exit included.  Suspends: never.
 * Ownership: *out (may be NULL) is one reference; on failure the caller still owns arg.  Without
 * `out` the result is nobody's: it is freed when the child ends, before the exit returns, and who got hold of the
 * task otherwise finds it taken (HEIST_ERESULTTAKEN).
 * Errors: HEIST_EINVALSTATE (not entered yet), HEIST_ESHUTDOWN (left, or being cancelled), else as
 * heist_create_task. */
#define heist_group_create_task(group, fn, arg, opts, out)                                                             \
    heist_group_create_task_at(__FILE__, __LINE__, (group), (fn), (arg), (opts), (out))
HEIST_API int heist_group_create_task_at(const char *file, int line, heist_group *g, heist_coro_fn fn, void *arg,
                                         const heist_task_options *opts, heist_task **out);

/* Ends the block, with the code that the body ended with, when all children have ended.  Returns
 *   HEIST_EGROUP  at least one child failed, or the body did: heist_group_failure_at tells which.  Should somebody else
 *                 have asked the owner to cancel meanwhile, that request is delivered (once more) by the owner's next
 *                 call that may suspend
 *   -ECANCELED    nobody failed, and somebody else has asked; or the body ended with it, unasked
 *   0             else.
 * Context: the owner.  Suspends: may; it waits on, with all children asked to cancel, when it is cancelled itself.
 * Errors: also HEIST_EINVALSTATE (not entered, left before, or not the owner), -EINVAL. */
HEIST_API int heist_group_exit(heist_group *g, int code);

/* Ends the block early and without an error: all children are cancelled, and the body; new ones are refused.  Before
 * the entry: as soon as it is entered.  Any number of times, also after the end.
 * Context: any.  Suspends: never.  Errors: -EINVAL. */
HEIST_API int heist_group_cancel(heist_group *g);

/* How many children have not ended; old when it arrives.  Context: any.  Suspends: never. */
HEIST_API size_t heist_group_count(heist_group *g);

/* What failed: children in the order of their ends, then the body.  All pointers are borrowed from the group. */
typedef struct heist_group_failure {
    size_t size;
    int code;
    int line;            /* of heist_fail */
    const char *message; /* never NULL */
    const char *file;    /* NULL: no place was recorded */
    heist_task *task;    /* the child, or, for the body, the owner */
    char name[64];       /* of the task; cut when it is longer */
} heist_group_failure;
#define HEIST_GROUP_FAILURE_INIT {sizeof(heist_group_failure), 0, 0, NULL, NULL, NULL, {0}}

/* After the exit.  Context: any.  Suspends: never.
 * Errors: HEIST_EINVALSTATE (the block has not ended), -ERANGE (there are no more), -EINVAL. */
HEIST_API int heist_group_failures(heist_group *g); /* how many */
HEIST_API int heist_group_failure_at(heist_group *g, size_t index, heist_group_failure *out);

HEIST_END_DECLS

#endif
