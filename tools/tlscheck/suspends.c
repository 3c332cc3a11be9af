/* Who may suspend: the listed calls, and whoever calls one that may. */
#include <stdlib.h>
#include <string.h>

#include "flow.h"

static int by_name(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

void names_add(struct names *set, const char *comma_separated) {
    char *copy = must(strdup(comma_separated)), *rest = copy, *name;
    while ((name = strsep(&rest, ","))) {
        if (!*name) continue;
        set->list = must(realloc(set->list, (set->count + 1) * sizeof(*set->list)));
        set->list[set->count++] = name;
    }
    if (set->count) qsort(set->list, set->count, sizeof(*set->list), by_name);
}

bool names_have(const struct names *set, const char *name) {
    return name && set->count && bsearch(&name, set->list, set->count, sizeof(*set->list), by_name);
}

/* Global functions of all images, by name. */
static struct function **globals;
static size_t global_count;

static int by_function_name(const void *a, const void *b) {
    return strcmp((*(struct function *const *)a)->name, (*(struct function *const *)b)->name);
}

static void index_globals(const struct images *images) {
    if (globals) return;
    size_t room = 1;
    for (size_t i = 0; i < images->count; i++) room += images->list[i]->function_count;
    globals = must(malloc(room * sizeof(struct function *)));
    for (size_t i = 0; i < images->count; i++)
        for (size_t j = 0; j < images->list[i]->function_count; j++)
            if (images->list[i]->functions[j].global) globals[global_count++] = &images->list[i]->functions[j];
    qsort(globals, global_count, sizeof(struct function *), by_function_name);
}

void forget_callees(void) {
    free(globals);
    globals = NULL;
    global_count = 0;
}

struct function *callee_of(const struct images *images, const struct function *f, const struct insn *insn) {
    struct function *callee = insn->target ? image_function(f->image, insn->target) : NULL;
    if (callee || !insn->name) return callee;
    index_globals(images);
    struct function key = {.name = insn->name}, *k = &key;
    struct function **found = bsearch(&k, globals, global_count, sizeof(struct function *), by_function_name);
    return found ? *found : NULL;
}

const char *call_suspends(const struct images *images, const struct rules *rules, const struct function *f,
                          const struct insn *insn) {
    struct function *callee = callee_of(images, f, insn);
    const char *name = callee ? callee->name : insn->name;
    if (names_have(&rules->never, name)) return NULL;
    if (names_have(&rules->suspends, name)) return name;
    if (callee && callee->may_suspend) return callee->name;
    if (!name && !insn->target && rules->indirect) return "a call through a pointer";
    return NULL;
}

bool find_suspending(const struct images *images, const struct rules *rules) {
    bool changed_ever = false;
    for (bool changed = true; changed;) {
        changed = false;
        for (size_t i = 0; i < images->count; i++)
            for (size_t j = 0; j < images->list[i]->function_count; j++) {
                struct function *f = &images->list[i]->functions[j];
                if (f->may_suspend || names_have(&rules->never, f->name)) continue;
                for (size_t n = 0; n < f->insn_count && !f->may_suspend; n++) {
                    const struct insn *insn = &f->insns[n];
                    bool leaves = insn->flow == FLOW_CALL ||
                                  ((insn->flow == FLOW_JUMP || insn->flow == FLOW_BRANCH) && insn->name) ||
                                  (insn->flow == FLOW_JUMP_INDIRECT && insn->name);
                    if (leaves) f->may_suspend = call_suspends(images, rules, f, insn);
                }
                if (f->may_suspend) changed = changed_ever = true;
            }
    }
    return changed_ever;
}
