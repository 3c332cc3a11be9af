/* Reports to the exception handler of a loop.
 *
 * What the library has to report it reports on the loop's thread: from elsewhere it is
 * posted.  The program may report from any thread, and a lock lets one at a time into
 * the handler, itself excepted: it may report again.  When the loop is gone, or there is no memory for the job, the
 * default handler writes it at once: nothing is lost in silence. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fork.h"
#include "base/log.h"
#include "loop/loop.h"
#include "task/task.h"

struct report_job {
    struct heist__job job;
    heist_report report;
    struct heist__failure *failure;
    char *name;
    heist_loop *loop; /* it was posted there */
};

void heist_loop_default_exception_handler(heist_loop *loop, const heist_report *r) {
    (void)loop;
    if (!r) return;
    char text[1024];
    size_t at = 0;
#define ADD(...)                                                                                                       \
    do {                                                                                                               \
        int n = snprintf(text + at, sizeof(text) - at, __VA_ARGS__);                                                   \
        if (n > 0) at += (size_t)n < sizeof(text) - at ? (size_t)n : sizeof(text) - at - 1;                            \
    } while (0)
    ADD("%s", r->message ? r->message : "unnamed report");
    if (r->name) ADD("; name: %s", r->name);
    if (r->seconds > 0) ADD("; seconds: %.6f", r->seconds);
    if (r->file) ADD("; at: %s:%d", r->file, r->line);
    const char *stack = NULL;
    for (const char *const *e = r->extra; e && e[0] && e[1]; e += 2) {
        if (!strcmp(e[0], "stack") || !strcmp(e[0], "made by"))
            stack = e[1];
        else
            ADD("; %s: %s", e[0], e[1]);
    }
    if (r->code) ADD("; error: %s (%s)", heist_error_name(r->code), r->text ? r->text : heist_strerror(r->code));
#undef ADD
    heist__log(HEIST__LOG_ERROR, "%s", text);
    /* A record for each frame: all of them would not find room in one. */
    for (int frame = 0; stack && *stack; frame++) {
        int length = (int)strcspn(stack, "\n");
        heist__log(HEIST__LOG_ERROR, "  #%d %.*s", frame, length, stack);
        stack += length + (stack[length] == '\n');
    }
}

void heist__loop_report_for(heist_loop *loop, heist_loop *by, const heist_report *report) {
    heist__spin_lock(&loop->misc_lock);
    heist_exception_handler handler = loop->handler;
    void *user = loop->handler_user;
    heist__spin_unlock(&loop->misc_lock);
    if (!handler) {
        heist_loop_default_exception_handler(loop, report);
        return;
    }
    /* A handler is no step of a task: it may not suspend, or another thread would open the lock. */
    struct heist__self *self = heist__self();
    heist_task *task = self->task;
    self->task = NULL;
    heist__mutex_lock(&by->report_lock);
    handler(loop, report, user);
    heist__mutex_unlock(&by->report_lock);
    self->task = task;
}

void heist__loop_report(heist_loop *loop, const heist_report *report) { heist__loop_report_for(loop, loop, report); }

void heist__loop_report_mine(const char *message, int code, const char *name, const char *const *extra) {
    struct heist__self *self = heist__self();
    heist_task *t = self->task;
    heist_report r = HEIST_REPORT_INIT;
    r.message = message;
    r.code = code;
    if (t->failure && t->failure->code == code) {
        r.text = t->failure->message;
        r.file = t->failure->file;
        r.line = t->failure->line;
    }
    r.future = t;
    r.name = name;
    r.extra = extra;
    heist_loop_call_exception_handler(self->loop, &r);
}

static void report_end(struct report_job *r) {
    heist__free(r->failure);
    heist__free(r->name);
    heist__free(r);
}

static void report_run(struct heist__job *job, heist_loop *loop) {
    struct report_job *r = heist_container_of(job, struct report_job, job);
    heist__loop_report(loop, &r->report);
    report_end(r);
}

static void report_drop(struct heist__job *job) {
    struct report_job *r = heist_container_of(job, struct report_job, job);
    if (r->loop) /* it closes: this is its last turn */
        heist__loop_report(r->loop, &r->report);
    else
        heist_loop_default_exception_handler(NULL, &r->report);
    report_end(r);
}

static const struct heist__job_class report_class = {report_run, report_drop};

void heist__loop_post_report(heist_loop *loop, uint64_t loop_id, heist_report *report, struct heist__failure *failure,
                             char *name) {
    if (failure) {
        report->text = failure->message;
        report->file = failure->file;
        report->line = failure->line;
    }
    if (name && *name) report->name = name;
    struct report_job *r = heist__alloc(sizeof(*r));
    if (r) {
        *r = (struct report_job){{{NULL}, &report_class}, *report, failure, name, loop};
        if (!loop || heist__loop_post_checked(loop, loop_id, &r->job)) {
            r->loop = NULL;
            report_drop(&r->job);
        }
        return;
    }
    heist_loop_default_exception_handler(NULL, report);
    heist__free(failure);
    heist__free(name);
}

void heist__loop_callback_ended(heist_loop *loop, int code, heist_handle *handle, const char *name) {
    struct heist__self *self = heist__self();
    struct heist__failure *failure = self->failure;
    self->failure = NULL;
    if (code == HEIST_EFATAL) {
        loop->fatal = code;
    } else {
        bool told = failure && failure->code == code;
        heist_report report = HEIST_REPORT_INIT;
        report.message = "a callback failed";
        report.code = code;
        report.text = told ? failure->message : NULL;
        report.file = told ? failure->file : NULL;
        report.line = told ? failure->line : 0;
        report.handle = handle;
        report.name = name;
        heist__loop_report(loop, &report);
    }
    heist__free(failure);
}

int heist_loop_set_exception_handler(heist_loop *loop, heist_exception_handler fn, void *user) {
    if (!loop) return -EINVAL;
    heist__spin_lock(&loop->misc_lock);
    loop->handler = fn;
    loop->handler_user = user;
    heist__spin_unlock(&loop->misc_lock);
    return 0;
}

int heist_loop_call_exception_handler(heist_loop *loop, const heist_report *report) {
    if (!loop || !report || report->size < sizeof(*report)) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    heist__loop_report(loop, report);
    return 0;
}
