/* heist/context.h: context variables, asyncio's contextvars.
 *
 * A context variable has a value for each *context*.  Each task has a context of its own, which begins as a copy of its
 * creator's; it goes with the task from worker to worker.  A callback (call_soon, call_later, call_at, a done callback,
 * a reader or writer) runs in a copy of the context in which it was registered; what a reader sets is seen at its next
 * call.  A plain thread has a context of its own that ends with the thread.  What a destructor or an exception handler
 * sets outside of a task or callback is soon forgotten.
 *
 * Cost: a context is a sorted array that all copies share until one of them changes: copying is one atomic addition
 * (and two small blocks of memory when it is for a task), reading a search among the variables that are set, setting a
 * copy of the array where it is shared, else one small block.  Good for dozens of variables.  A program without
 * variables pays one well-predicted branch for a task or callback. */
#ifndef HEIST_CONTEXT_H
#define HEIST_CONTEXT_H

#include <heist/base.h>

HEIST_BEGIN_DECLS

typedef struct heist_context_var heist_context_var; /* a variable; usually one for the life of the program */

/* ---- variables ---- */

#define HEIST_CONTEXT_VAR_DEFAULT 0x1u /* `value` is what a context without a value gives */

typedef struct heist_context_var_options {
    size_t size;
    unsigned flags;           /* HEIST_CONTEXT_VAR_…; an unknown flag is -EINVAL */
    void *value;              /* the default; NULL is a value too */
    heist_free_fn value_free; /* runs once on the default when the variable goes, or NULL */
} heist_context_var_options;
#define HEIST_CONTEXT_VAR_OPTIONS_INIT                                                                                 \
    { sizeof(heist_context_var_options), 0, NULL, NULL }

/* A variable.  The name (NULL: "unnamed") is copied, and need not be unique; opts may be NULL: no default.
 * Context: any.  Suspends: never.  Ownership: *out is one reference; every context that has a value holds one too.  On
 * failure the default is still the caller's.  Errors: -EINVAL, -ENOMEM. */
HEIST_API int heist_context_var_new(const char *name, const heist_context_var_options *opts,
                                    heist_context_var **out) HEIST_NODISCARD;
/* Context: any.  Suspends: never.  NULL is allowed in unref. */
HEIST_API heist_context_var *heist_context_var_ref(heist_context_var *var);
HEIST_API void heist_context_var_unref(heist_context_var *var);
/* Borrowed.  Context: any. */
HEIST_API const char *heist_context_var_name(const heist_context_var *var);

/* ---- in the current context ---- */

/* What heist_context_reset needs to undo a set.  Filled by it; give it to reset or to drop, once. */
typedef struct heist_context_token {
    uint64_t opaque[4];
} heist_context_token;
#define HEIST_CONTEXT_TOKEN_INIT                                                                                       \
    {                                                                                                                  \
        { 0, 0, 0, 0 }                                                                                                 \
    }

/* The value of the variable here, or its default.
 * Context: any.  Suspends: never.  Ownership: *out is borrowed until the variable is set or reset in this context,
 * or the context ends; out may be NULL.  Errors: HEIST_ENOTSET (neither), -EINVAL. */
HEIST_API int heist_context_get(heist_context_var *var, void **out);

/* Sets the variable here.  token may be NULL; it holds what the variable had before.
 * Context: any.  Suspends: never.  Ownership: the value passes to the context, and to each copy of it; value_free
 * (may be NULL) runs once when the last of them has let go of it, on any thread.  On failure it is still the caller's.
 * Errors: -EINVAL, -ENOMEM. */
HEIST_API int heist_context_set(heist_context_var *var, void *value, heist_free_fn value_free,
                                heist_context_token *token);

/* Gives the variable what it had before the set that filled the token.
 * Context: the context of that set.  Suspends: never.  Errors: -EALREADY (used before), HEIST_EOTHERCONTEXT (set in
 * another context), -EINVAL (empty), -ENOMEM (only when this context was copied since; the token is as before). */
HEIST_API int heist_context_reset(heist_context_token *token);
/* Lets go of what the token holds without a reset; a used or empty one is left alone.
 * Context: any.  Suspends: never. */
HEIST_API void heist_context_token_drop(heist_context_token *token);

/* ---- contexts as objects ---- */

/* An empty context, and a copy of one: from NULL, of the current one (asyncio's copy_context).  A copy is cheap.
 * Context: any.  Suspends: never.  Ownership: *out is one reference.  Errors: -EINVAL, -ENOMEM. */
HEIST_API int heist_context_new(heist_context **out) HEIST_NODISCARD;
HEIST_API int heist_context_copy(heist_context *from, heist_context **out) HEIST_NODISCARD;
/* Context: any.  Suspends: never.  NULL is allowed in unref. */
HEIST_API heist_context *heist_context_ref(heist_context *ctx);
HEIST_API void heist_context_unref(heist_context *ctx);

/* Calls fn(arg, out) with ctx as the current context; what fn sets stays in ctx.  In a task fn may suspend, and ctx
 * goes with it.
 *
 * A context is used by one at a time: by the call of this function, by the task or the callback to which its options
 * gave it (from the call that made it until its end), or by the task whose own it is (as long as a reference to that is
 * held).  Callbacks and pinned tasks of one loop never overlap, so they may share one.  Anybody else gets -EBUSY.
 * Context: any.  Suspends: never by itself.  Errors: -EBUSY, -EINVAL, -ENOMEM (fn was not called); else what fn
 * returns. */
HEIST_API int heist_context_run(heist_context *ctx, heist_coro_fn fn, void *arg, void **out);

/* The value of a variable in ctx, as heist_context_get.
 * Context: any.  Suspends: never.  Ownership: *out is borrowed as long as nobody sets the variable in ctx. */
HEIST_API int heist_context_lookup(heist_context *ctx, heist_context_var *var, void **out);
/* How many variables have a value in it.  Context: any.  Errors: -EINVAL. */
HEIST_API int heist_context_count(heist_context *ctx);

/* The context of a task (asyncio's get_context): the one that its options gave, or its own.
 * Context: any.  Suspends: never.  Ownership: *out is one reference.  Errors: -EINVAL (not a task), -ENOMEM. */
HEIST_API int heist_task_context(heist_task *t, heist_context **out) HEIST_NODISCARD;

HEIST_END_DECLS

#endif
