/* heist/pipeline.h: generators in a row, and stages that run ahead.
 *
 * A stage takes the values of one generator and yields others.  Stages in a row compute only on demand: one at a time
 * runs, and the times of all add up.  A stage behind a buffer runs ahead of demand in a task of its own, and the stages
 * overlap.  Values and their order are the same; wrapped and unwrapped stages may be mixed.
 *
 *     heist_pipeline_stage(numbers, twice, NULL, NULL, &doubled);
 *     heist_pipeline_buffer(doubled, NULL, &ahead);
 *     heist_foreach (value, ahead, &err) …
 *
 * Whatever ends a stage ends those before it first: its failure, its own early return, being closed, or the
 * cancellation of the consumer.  When the last one has ended no task of the pipeline is left. */
#ifndef HEIST_PIPELINE_H
#define HEIST_PIPELINE_H

#include <heist/base.h>
#include <heist/generator.h>

HEIST_BEGIN_DECLS

/* The body of a stage: as a generator's, with the generator that it takes its values from.  It hands failures of input
 * on by returning them; input is closed when the body has returned, or when the
 * stage is ended before that began. */
typedef int (*heist_stage_fn)(heist_generator *self, heist_generator *input, void *arg, void **out);

/* A generator whose body is fn over input.  Nothing runs yet.
 * Context: any.  Suspends: never.  Ownership: *out is one reference, and holds one of input, which nobody else drives
 * from here on; the caller keeps his own.  On failure the caller still owns arg.  Errors: as heist_generator_new. */
HEIST_API int heist_pipeline_stage(heist_generator *input, heist_stage_fn fn, void *arg,
                                   const heist_generator_options *opts, heist_generator **out) HEIST_NODISCARD;

typedef struct heist_pipeline_options {
    size_t size;
    unsigned flags;           /* none yet: 0 */
    size_t length;            /* values that may wait; 0: one */
    heist_free_fn value_free; /* NULL, or: runs once on a value that was made and that nobody took */
    heist_runtime *runtime;   /* where the task runs; NULL: in that of the first to ask for a value */
    size_t stack_bytes;       /* as in heist_task_options */
    const char *name;         /* of the task; copied; NULL: Task-N */
} heist_pipeline_options;
#define HEIST_PIPELINE_OPTIONS_INIT {sizeof(heist_pipeline_options), 0, 0, NULL, NULL, 0, NULL}

/* A generator of the same values, which runs source ahead: in one task, made when the first value is asked for, that
 * is at most `length` values ahead of the consumer (and holds one more in its hands).
 *
 * What it gives in the end is what source gives, after all values before.  Its close, and any failure of a next (also
 * the consumer's cancellation, which is -ECANCELED there), cancel the task and wait for its end; the task closes
 * source.  A failure of source that nobody met is the close's.  The last unref without a close cancels and does not
 * wait.
 *
 * Context: any; next then in a task, or a plain thread with opts.runtime (else HEIST_ENOLOOP, which ends it).
 * Suspends: never; next and close may.  Ownership: *out is one reference, and holds one of source and of opts.runtime.
 * Errors: -EINVAL, -ENOMEM; from the first next also those of heist_create_task. */
HEIST_API int heist_pipeline_buffer(heist_generator *source, const heist_pipeline_options *opts,
                                    heist_generator **out) HEIST_NODISCARD;

HEIST_END_DECLS

#endif
