/* Names of tasks: Task-N unless one was given, and the printable form of a future.
 *
 * A number is taken when a name is first asked for, so that a spawn pays nothing.
 * A name of its own is exchanged under one short lock, so that a reader can copy it. */
#include <heist/future.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "conc/spin.h"
#include "task/extra.h"
#include "task/task.h"

static struct heist__spin name_lock;
static _Atomic(uint64_t) last_number;

uint64_t heist__task_number(heist_task *t) {
    uint64_t n = a_load_rlx(&t->number); /* rlx, as below: a number alone */
    if (n) return n;
    uint64_t fresh = a_add_rlx(&last_number, 1) + 1;
    return a_cas_acq(&t->number, &n, fresh) ? fresh : n;
}

size_t heist__task_name_into(heist_task *t, char *buf, size_t size) {
    int length;
    struct heist__extra *extra = heist__extra_of(t);
    const char *own = NULL;
    if (extra) {
        heist__spin_lock(&name_lock);
        /* rlx: under the lock */
        if ((own = a_load_rlx(&extra->name))) length = snprintf(buf, size, "%s", own);
        heist__spin_unlock(&name_lock);
    }
    if (!own) length = snprintf(buf, size, "Task-%llu", (unsigned long long)heist__task_number(t));
    return length < 0 ? 0 : (size_t)length;
}

char *heist__task_name_dup(heist_task *t) {
    char buf[256];
    heist__task_name_into(t, buf, sizeof(buf));
    size_t length = strlen(buf) + 1;
    char *copy = heist__alloc(length);
    if (copy) memcpy(copy, buf, length);
    return copy;
}

int heist_task_name(heist_task *t, char *buf, size_t size) {
    if (!t || !heist__is_task(t) || (!buf && size)) return -EINVAL;
    return (int)heist__task_name_into(t, buf, size);
}

int heist_task_set_name(heist_task *t, const char *name) {
    if (!t || !name || !heist__is_task(t)) return -EINVAL;
    size_t length = strlen(name) + 1;
    struct heist__extra *extra = heist__extra(t);
    char *copy = extra ? heist__alloc(length) : NULL;
    if (!copy) return -ENOMEM;
    memcpy(copy, name, length);
    heist__spin_lock(&name_lock);
    char *old = a_load_rlx(&extra->name); /* rlx, as the store: under the lock */
    a_store_rlx(&extra->name, copy);
    heist__spin_unlock(&name_lock);
    heist__free(old);
    return 0;
}

int heist_future_repr(heist_future *f, char *buf, size_t size) {
    if (!f || (!buf && size)) return -EINVAL;
    char name[160] = "", state[200];
    bool task = heist__is_task(f);
    if (task) {
        char plain[128];
        heist__task_name_into(f, plain, sizeof(plain));
        snprintf(name, sizeof(name), " name='%s'", plain);
    }
    if (!heist__future_is_done(f)) {
        heist_future *awaited = task ? a_load_acq(&f->awaiting) : NULL; /* acq: only its address is printed */
        bool runs = task && a_load_rlx(&f->running);                    /* rlx: old when it arrives */
        if (awaited)
            snprintf(state, sizeof(state), "pending wait_for=<%p>", (void *)awaited);
        else
            snprintf(state, sizeof(state), "%s", runs ? "running" : "pending");
    } else if (f->outcome == HEIST__OUT_CANCELLED) {
        snprintf(state, sizeof(state), "cancelled");
    } else if (f->outcome == HEIST__OUT_ERROR) {
        snprintf(state, sizeof(state), "finished exception=%s('%s')", heist_error_name(f->code),
                 f->failure ? f->failure->message : heist_strerror(f->code));
    } else {
        snprintf(state, sizeof(state), "finished result=%p", f->value);
    }
    int n;
    if (task)
        n = snprintf(buf, size, "<Task%s %s coro=%s:%u>", name, state, f->file ? f->file : "?", f->line);
    else
        n = snprintf(buf, size, "<Future %s>", state);
    return n;
}
