/* A plan: the decisions of a run that differ from the usual ones, as text and as a strategy.
 *
 * One item for each, separated by commas, T.N being thread T's Nth point:
 *   T.N>M      thread M goes on            T.N@       time jumps to the next deadline
 *   T.N=V      the outcome V is chosen     T.N!nameV  the fault of that name, with value V
 * T is `s` for the start.  An item whose thread does not come to that point, or whose
 * thread M cannot run then, is passed over: so a plan from which items were taken out is a
 * plan too, and the search for the fewest (search.c) only ever takes items out. */
#ifndef HEIST_CHECK_PLAN_H
#define HEIST_CHECK_PLAN_H

#include <stddef.h>

#include "check/sim.h"

struct heist__plan {
    struct heist__strategy strategy;
    struct heist__decision *item; /* sorted by thread, then point */
    size_t count;
    size_t next[HEIST__SIM_THREADS + 2]; /* of each thread */
};

/* From a record; 0 or -ENOMEM. */
int heist__plan_of_record(struct heist__plan *plan, const struct heist__decision *list, size_t count);
/* From text; 0, -EINVAL, -ENOMEM. */
int heist__plan_of_text(struct heist__plan *plan, const char *text);
void heist__plan_free(struct heist__plan *plan);
/* Before each run. */
void heist__plan_rewind(struct heist__plan *plan);
/* Writes the items as text, as snprintf; the length that it has, or would have. */
size_t heist__plan_write(const struct heist__decision *list, size_t count, char *buf, size_t bytes);

/* The names of faults in plans. */
extern const char *const heist__fault_name[HEIST__FAULTS];

#endif
