/* Plans; see plan.h. */
#include "check/plan.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/macros.h"

const char *const heist__fault_name[HEIST__FAULTS] = {"memory", "mapping", "thread", "fd",    "reset",
                                                      "short",  "eintr",   "eagain", "delay", "spurious"};

static int by_thread(const void *a, const void *b) {
    const struct heist__decision *x = a, *y = b;
    if (x->thread != y->thread) return x->thread < y->thread ? -1 : 1;
    return x->at < y->at ? -1 : x->at > y->at;
}

/* The item for this thread's present point and kind, or NULL. */
static const struct heist__decision *due(struct heist__plan *p, int thread, int kind) {
    uint64_t at = heist__sim_at(thread);
    size_t *i = &p->next[thread], end = p->count;
    while (*i < end && p->item[*i].thread == thread && p->item[*i].at < at) ++*i;
    if (*i >= end || p->item[*i].thread != thread || p->item[*i].at != at || p->item[*i].kind != kind) return NULL;
    return &p->item[(*i)++];
}

static int next(void *self, const struct heist__choice *c, uint64_t *quiet) {
    struct heist__plan *p = self;
    const struct heist__decision *d = due(p, c->current, HEIST__DECIDE_JUMP);
    if (d && c->may_jump) return HEIST__SIM_JUMP;
    d = due(p, c->current, HEIST__DECIDE_NEXT);
    /* Nobody needs to ask a thread that has no items left. */
    if (!d && c->stays) {
        size_t i = p->next[c->current];
        bool more = i < p->count && p->item[i].thread == c->current;
        if (!more) *quiet = UINT64_MAX;
    }
    if (!d || d->value >= HEIST__SIM_THREADS || !(c->enabled & UINT64_C(1) << d->value)) return c->usual;
    *quiet = 0;
    return (int)d->value;
}

static unsigned choose(void *self, unsigned n) {
    const struct heist__decision *d = due(self, heist__sim_self(), HEIST__DECIDE_CHOICE);
    return d && d->value < n ? d->value : 0;
}

static uint32_t fault(void *self, int kind, uint32_t limit) {
    const struct heist__decision *d = due(self, heist__sim_self(), kind);
    return d ? d->value <= limit ? d->value : limit : 0;
}

void heist__plan_rewind(struct heist__plan *p) {
    for (size_t t = 0; t < HEIST_ARRAY_LEN(p->next); t++) {
        size_t i = 0;
        while (i < p->count && p->item[i].thread < t) i++;
        p->next[t] = i;
    }
}

int heist__plan_of_record(struct heist__plan *p, const struct heist__decision *list, size_t count) {
    memset(p, 0, sizeof(*p));
    p->strategy = (struct heist__strategy){next, choose, fault, p};
    p->item = calloc(count ? count : 1, sizeof(*p->item));
    if (!p->item) return -ENOMEM;
    if (count) memcpy(p->item, list, count * sizeof(*list));
    p->count = count;
    qsort(p->item, count, sizeof(*p->item), by_thread);
    heist__plan_rewind(p);
    return 0;
}

void heist__plan_free(struct heist__plan *p) {
    free(p->item);
    p->item = NULL;
    p->count = 0;
}

static bool read_number(const char **at, uint64_t *out) {
    if (**at < '0' || **at > '9') return false;
    char *end;
    *out = strtoull(*at, &end, 10);
    *at = end;
    return true;
}

static bool read_item(const char **at, struct heist__decision *d) {
    uint64_t n = 0;
    if (**at == 's') {
        ++*at;
        d->thread = HEIST__SIM_NOBODY;
    } else {
        if (!read_number(at, &n) || n >= HEIST__SIM_THREADS) return false;
        d->thread = (uint8_t)n;
    }
    if (**at != '.') return false;
    ++*at;
    if (!read_number(at, &d->at) || !**at) return false;
    char kind = *(*at)++;
    n = 0;
    if (kind == '@') {
        d->kind = HEIST__DECIDE_JUMP;
    } else if (kind == '>' || kind == '=') {
        d->kind = kind == '>' ? HEIST__DECIDE_NEXT : HEIST__DECIDE_CHOICE;
        if (!read_number(at, &n)) return false;
    } else if (kind == '!') {
        size_t length = strspn(*at, "abcdefghijklmnopqrstuvwxyz");
        int k = 0;
        while (k < HEIST__FAULTS &&
               (strlen(heist__fault_name[k]) != length || strncmp(*at, heist__fault_name[k], length) != 0))
            k++;
        if (k == HEIST__FAULTS) return false;
        *at += length;
        d->kind = (uint8_t)k;
        if (!read_number(at, &n)) return false;
    } else {
        return false;
    }
    if (n > UINT32_MAX) return false;
    d->value = (uint32_t)n;
    return true;
}

int heist__plan_of_text(struct heist__plan *p, const char *text) {
    size_t room = 1, count = 0;
    for (const char *c = text; *c; c++) room += *c == ',';
    struct heist__decision *list = calloc(room, sizeof(*list));
    if (!list) return -ENOMEM;
    int err = 0;
    for (const char *at = text; *at && !err;) {
        if (!read_item(&at, &list[count++]) || (*at && *at != ',')) err = -EINVAL;
        if (*at == ',') at++;
    }
    if (!err) err = heist__plan_of_record(p, list, count);
    free(list);
    return err;
}

size_t heist__plan_write(const struct heist__decision *list, size_t count, char *buf, size_t bytes) {
    size_t length = 0;
    for (size_t i = 0; i < count; i++) {
        const struct heist__decision *d = &list[i];
        char who[16], what[48];
        if (d->thread == HEIST__SIM_NOBODY)
            snprintf(who, sizeof(who), "s");
        else
            snprintf(who, sizeof(who), "%u", d->thread);
        if (d->kind == HEIST__DECIDE_JUMP)
            snprintf(what, sizeof(what), "@");
        else if (d->kind == HEIST__DECIDE_NEXT || d->kind == HEIST__DECIDE_CHOICE)
            snprintf(what, sizeof(what), "%c%u", d->kind == HEIST__DECIDE_NEXT ? '>' : '=', d->value);
        else
            snprintf(what, sizeof(what), "!%s%u", heist__fault_name[d->kind], d->value);
        int n = snprintf(length < bytes ? buf + length : NULL, length < bytes ? bytes - length : 0, "%s%s.%llu%s",
                         i ? "," : "", who, (unsigned long long)d->at, what);
        if (n > 0) length += (size_t)n;
    }
    if (!count && bytes) buf[0] = 0;
    return length;
}
