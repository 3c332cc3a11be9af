/* Codes, their texts, and the record that heist_fail leaves.
 *
 * A record belongs to the task (or, in a callback, to the thread) that made it, until
 * the body returns that code and it moves to the future or the report.
 * The names and texts of errno codes come from the C library. */
#include <heist/error.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "conc/self.h"
#include "task/task.h"

const char *heist_error_name(int code) {
#define NAME(name, number, text)                                                                                       \
    case number: return #name;
    switch (code) {
        HEIST_ERROR_MAP(NAME)
    case 0: return "OK";
    }
#undef NAME
    const char *name = code < 0 && code > -4096 ? strerrorname_np(-code) : NULL;
    return name ? name : "UNKNOWN";
}

const char *heist_strerror(int code) {
#define TEXT(name, number, text)                                                                                       \
    case number: return text;
    switch (code) {
        HEIST_ERROR_MAP(TEXT)
    case 0: return "success";
    }
#undef TEXT
    const char *text = code < 0 && code > -4096 ? strerrordesc_np(-code) : NULL;
    return text ? text : "unknown code";
}

static struct heist__failure *make(const char *file, int line, int code, const char *format, va_list args) {
    va_list again;
    va_copy(again, args);
    int length = vsnprintf(NULL, 0, format, again);
    va_end(again);
    if (length < 0) return NULL;
    struct heist__failure *f = heist__alloc(sizeof(*f) + (size_t)length + 1);
    if (!f) return NULL;
    f->code = code;
    f->file = file;
    f->line = line;
    vsnprintf(f->message, (size_t)length + 1, format, args);
    return f;
}

struct heist__failure *heist__failure_make(const char *file, int line, int code, const char *format, ...) {
    va_list args;
    va_start(args, format);
    struct heist__failure *f = make(file, line, code, format, args);
    va_end(args);
    return f;
}

int heist_fail_at(const char *file, int line, int code, const char *format, ...) {
    struct heist__self *self = heist__self();
    if ((!self->worker && !self->away && !self->executor) || !format) return code; /* no body of ours runs here */
    va_list args;
    va_start(args, format);
    struct heist__failure *f = make(file, line, code, format, args); /* no memory: the code alone */
    va_end(args);
    heist_task *t = heist__self_body(self);
    struct heist__failure **slot = t ? &t->failure : &self->failure;
    heist__free(*slot);
    *slot = f;
    return code;
}
