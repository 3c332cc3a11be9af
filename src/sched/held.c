/* Locks that a task leaves behind.  See held.h. */
#include "sched/held.h"

#include <heist/debug.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"

static _Atomic(heist_debug_locks_fn) hook;
static _Atomic(unsigned) hook_flags;

int heist_debug_set_locks_hook(heist_debug_locks_fn held, unsigned flags) {
    if (flags & ~HEIST_DEBUG_LOCKS_GO_ON) return -EINVAL;
    a_store_rlx(&hook_flags, flags); /* rlx: published by the hook */
    a_store_rel(&hook, held);        /* rel: pairs with begin and check */
    return 0;
}

int heist__held_begin(void) {
    heist_debug_locks_fn held = a_load_acq(&hook); /* acq: pairs with set_locks_hook */
    if (!held) return 0;
    int count = held(NULL, 0);
    return count < 0 ? 0 : count + 1;
}

void heist__held_check(struct heist__worker *w, heist_task *t, const char *what) {
    heist_debug_locks_fn held = a_load_acq(&hook); /* acq: as above */
    int before = w->locks_watch - 1, now = held ? held(NULL, 0) : 0;
    if (now <= before) return;
    char name[128], place[160], count[16], locks[384] = "";
    held(locks, sizeof(locks));
    heist__task_name_into(t, name, sizeof(name));
    snprintf(place, sizeof(place), "%s:%u", t->file, (unsigned)t->line);
    snprintf(count, sizeof(count), "%d", now - before);
    const char *const extra[] = {"created at", place, "locks taken", count, "held", locks, NULL};
    heist_report report = HEIST_REPORT_INIT;
    report.message = what;
    report.name = name;
    report.future = t;
    report.extra = extra;
    heist__loop_report(w->loop, &report);
    if (a_load_rlx(&hook_flags) & HEIST_DEBUG_LOCKS_GO_ON) return; /* rlx: read after the hook */
    heist__log(HEIST__LOG_FATAL, "%s, so the process ends; name: %s; created at: %s", what, name, place);
    abort();
}
