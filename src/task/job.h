/* What stands in a queue: callbacks, steps of pinned tasks, done callbacks, reports.
 *
 * A job is embedded at the start of its object.  `run` runs it on its loop and ends
 * its life in the queue; `drop` is called instead when the loop closes first. */
#ifndef HEIST_TASK_JOB_H
#define HEIST_TASK_JOB_H

#include <heist/base.h>

#include "base/macros.h"
#include "conc/mpsc.h"

struct heist__job;

struct heist__job_class {
    void (*run)(struct heist__job *job, heist_loop *loop);
    void (*drop)(struct heist__job *job);
};

struct heist__job {
    struct heist__mpsc_node node; /* the inbox's link, and the FIFO's */
    const struct heist__job_class *klass;
};

/* An owner's FIFO. */
struct heist__jobs {
    struct heist__job *head, *tail;
    size_t count;
};

static inline struct heist__job *heist__job_of(struct heist__mpsc_node *n) {
    return (struct heist__job *)(void *)n;
}

static inline void heist__jobs_append(struct heist__jobs *q, struct heist__job *job) {
    job->node.next = NULL;
    if (q->tail)
        q->tail->node.next = &job->node;
    else
        q->head = job;
    q->tail = job;
    q->count++;
}

static inline struct heist__job *heist__jobs_pop(struct heist__jobs *q) {
    struct heist__job *job = q->head;
    if (!job) return NULL;
    q->head = heist__job_of(job->node.next);
    if (!q->head) q->tail = NULL;
    q->count--;
    return job;
}

#endif
