/* The end of a claim.  See park.h. */
#include "task/park.h"

#include "conc/parker.h"
#include "task/task.h"

void heist__park_wake(struct heist__park *p) {
    if (p->parker)
        heist__parker_unpark(p->parker);
    else
        heist__task_hooks.ready(heist_container_of(p, heist_task, park));
}
