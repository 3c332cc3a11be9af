/* See birth.h. */
#include "task/birth.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/place.h"
#include "coro/look.h"
#include "task/extra.h"
#include "task/task.h"

struct heist__birth *heist__birth_make(const void *start, unsigned skip) {
    void *frames[HEIST__BIRTH_FRAMES + 1];
    struct heist__birth *b = heist__zalloc(sizeof(*b));
    if (!b) return NULL;
    size_t n = heist__look_here(start, NULL, frames, HEIST__BIRTH_FRAMES + skip);
    b->count = n > skip ? (unsigned)n - skip : 0;
    memcpy(b->frame, frames + skip, b->count * sizeof(void *));
    return b;
}

void heist__birth_note(heist_future *f, const void *start) {
    struct heist__extra *e = heist__extra(f);
    if (e) e->birth = heist__birth_make(start, 0);
}

const struct heist__birth *heist__birth_of(heist_future *f) {
    struct heist__extra *e = heist__extra_of(f);
    return e ? e->birth : NULL;
}

/* The block: name, fields, texts. */
struct told {
    char name[256];
    const char *field[5];
    char made_at[160];
    char frames[];
};

char *heist__birth_report(heist_future *f, const char *const **extra) {
    const struct heist__birth *b = heist__birth_of(f);
    size_t each = 200, room = b ? b->count * each + 1 : 1;
    struct told *t = heist__zalloc(sizeof(*t) + room);
    if (!t) return NULL;
    int n = 0;
    if (heist__is_task(f)) {
        heist__task_name_into(f, t->name, sizeof(t->name));
        snprintf(t->made_at, sizeof(t->made_at), "%s:%u", f->file ? f->file : "?", f->line);
        t->field[n++] = "made at";
        t->field[n++] = t->made_at;
    }
    size_t used = 0;
    for (unsigned i = 0; b && i < b->count; i++) {
        if (i) t->frames[used++] = '\n';
        int length = heist__place(b->frame[i], true, t->frames + used, each - 1);
        used += length < (int)each - 1 ? (size_t)length : each - 2;
    }
    if (used) {
        t->field[n++] = "made by";
        t->field[n++] = t->frames;
    }
    *extra = n ? t->field : NULL;
    return t->name;
}
