/* The flow of a thread's addresses through one function.
 *
 * Forward, over basic blocks, to a fixed point.  Each register and each stack slot of known
 * place holds a value: an address that belongs to the thread, obtained here (*fresh*); such
 * an address after a call that may suspend (*stale*: it may be another thread's now); a
 * place in the frame; a constant; or anything else.  Where paths meet, the worst wins.  A
 * stale value that is used is a finding; one that is overwritten or forgotten is none. */
#include <stdlib.h>
#include <string.h>

#include "flow.h"

enum value_kind { V_OTHER, V_FRAME, V_CONST, V_NAME, V_FRESH, V_STALE };

struct value {
    uint8_t kind;
    uint32_t source; /* FRESH, STALE: the instruction that made it; FRAME: 0, or that which moved the frame, + 1 */
    uint32_t call;   /* STALE: the call over which it was kept */
    int64_t number;  /* FRAME, CONST */
    const char *text; /* NAME: the function; FRESH, STALE: what it is */
};

struct slot_value {
    uint32_t frame;
    int64_t offset;
    struct value value;
};

#define SLOTS 192 /* more are not followed */

struct state {
    bool reached;
    struct value places[PLACES];
    struct slot_value slots[SLOTS]; /* not OTHER; in any order */
    unsigned slot_count;
};

struct block {
    size_t first, end; /* instructions */
    struct state *in;
    bool queued, targeted, orphan;
};

struct pass {
    const struct images *images;
    const struct rules *rules;
    struct function *f;
    struct findings *findings;
    bool learned;
    struct block *blocks;
    size_t block_count;
    uint32_t *block_of; /* of an instruction */
    struct state now, after_calls, at_indirect;
};

static const struct value other_value = {.kind = V_OTHER};

static bool same(const struct value *a, const struct value *b) {
    return a->kind == b->kind && a->source == b->source && a->call == b->call && a->number == b->number && a->text == b->text;
}

static bool belongs_to_thread(const struct value *v) { return v->kind == V_FRESH || v->kind == V_STALE; }

static struct value join(const struct value *a, const struct value *b) {
    if (same(a, b)) return *a;
    bool x = belongs_to_thread(a), y = belongs_to_thread(b);
    if (!x && !y) return other_value;
    if (x != y) return x ? *a : *b;
    if (a->kind != b->kind) return a->kind == V_STALE ? *a : *b;
    if (a->source != b->source) return a->source < b->source ? *a : *b;
    return a->call <= b->call ? *a : *b;
}

/* ---- slots ---- */

static struct value slot_get(const struct state *s, uint32_t frame, int64_t offset) {
    for (unsigned i = 0; i < s->slot_count; i++)
        if (s->slots[i].frame == frame && s->slots[i].offset == offset) return s->slots[i].value;
    return other_value;
}

static void slot_clear(struct state *s, uint32_t frame, int64_t offset, int64_t bytes) {
    for (unsigned i = 0; i < s->slot_count;) {
        struct slot_value *v = &s->slots[i];
        if (v->frame == frame && v->offset < offset + bytes && v->offset + 8 > offset)
            *v = s->slots[--s->slot_count];
        else
            i++;
    }
}

static void slot_put(struct state *s, uint32_t frame, int64_t offset, struct value value) {
    slot_clear(s, frame, offset, 8);
    if (value.kind != V_OTHER && s->slot_count < SLOTS) s->slots[s->slot_count++] = (struct slot_value){frame, offset, value};
}

/* to gets what may come from either; true when it changed. */
static bool merge(struct state *to, const struct state *from) {
    if (!to->reached) {
        memcpy(to, from, offsetof(struct state, slots) + from->slot_count * sizeof(from->slots[0]));
        to->slot_count = from->slot_count;
        to->reached = true;
        return true;
    }
    bool changed = false;
    for (int i = 0; i < TEMPORARY; i++) {
        struct value v = join(&to->places[i], &from->places[i]);
        if (!same(&v, &to->places[i])) {
            to->places[i] = v;
            changed = true;
        }
    }
    for (unsigned i = 0; i < to->slot_count;) {
        struct slot_value *s = &to->slots[i];
        struct value there = slot_get(from, s->frame, s->offset), v = join(&s->value, &there);
        if (!same(&v, &s->value)) changed = true;
        s->value = v;
        if (v.kind == V_OTHER)
            *s = to->slots[--to->slot_count];
        else
            i++;
    }
    for (unsigned i = 0; i < from->slot_count; i++) {
        const struct slot_value *s = &from->slots[i];
        if (!belongs_to_thread(&s->value) || slot_get(to, s->frame, s->offset).kind != V_OTHER) continue;
        unsigned before = to->slot_count;
        slot_put(to, s->frame, s->offset, s->value);
        changed |= to->slot_count != before;
    }
    return changed;
}

/* ---- findings ---- */

static void found(struct pass *p, size_t use, const struct value *v, const char *how, const char *passed_to) {
    if (!p->findings || v->kind != V_STALE) return;
    const struct function *f = p->f;
    struct finding new = {f, v->text, f->insns[v->source].address, f->insns[v->call].address, f->insns[use].address,
                          call_suspends(p->images, p->rules, f, &f->insns[v->call]), how, passed_to};
    for (size_t i = 0; i < p->findings->count; i++) {
        struct finding *old = &p->findings->list[i];
        if (old->function == f && old->taken == new.taken) return; /* one for each place where it was taken */
    }
    p->findings->list = must(realloc(p->findings->list, (p->findings->count + 1) * sizeof(new)));
    p->findings->list[p->findings->count++] = new;
}

/* ---- steps ---- */

static struct value place(const struct state *s, int where) { return where == NOWHERE ? other_value : s->places[where]; }

static struct value load(struct pass *p, const struct step *step) {
    struct value base = place(&p->now, step->a);
    if (base.kind == V_CONST) {
        const char *name = image_slot(p->f->image, (uint64_t)(base.number + step->number));
        return name ? (struct value){.kind = V_NAME, .text = name} : other_value;
    }
    if (base.kind != V_FRAME || step->bytes < 8) return other_value;
    struct value v = slot_get(&p->now, base.source, base.number + step->number);
    for (int at = 8; at < step->bytes; at += 8) {
        struct value next = slot_get(&p->now, base.source, base.number + step->number + at);
        v = join(&v, &next);
    }
    return v;
}

static void store(struct pass *p, size_t i, const struct step *step) {
    struct value base = place(&p->now, step->a), v = place(&p->now, step->b);
    if (base.kind != V_FRAME) {
        found(p, i, &v, "stored", NULL);
        return;
    }
    slot_clear(&p->now, base.source, base.number + step->number, step->bytes);
    if (step->bytes < 8 || (step->bytes > 8 && !belongs_to_thread(&v))) return;
    for (int at = 0; at < step->bytes; at += 8) slot_put(&p->now, base.source, base.number + step->number + at, v);
}

static void run_step(struct pass *p, size_t i, const struct step *step) {
    struct state *s = &p->now;
    struct value a = place(s, step->a), b = place(s, step->b), v = other_value;
    switch (step->kind) {
        case STEP_COPY: v = a; break;
        case STEP_ADD:
            v = a.kind == V_NAME ? other_value : a;
            if (v.kind == V_FRAME || v.kind == V_CONST) v.number += step->number;
            break;
        case STEP_JOIN:
            if (belongs_to_thread(&a) || belongs_to_thread(&b)) v = join(&a, &b);
            break;
        case STEP_CLEAR: break;
        case STEP_CONST: v = (struct value){.kind = V_CONST, .number = step->number}; break;
        case STEP_NAME: v = (struct value){.kind = V_NAME, .text = step->name}; break;
        case STEP_THREAD:
            v = (struct value){.kind = V_FRESH, .source = (uint32_t)i, .text = "an address made from the thread pointer"};
            break;
        case STEP_ALIGN:
            found(p, i, &a, "used as the stack pointer", NULL);
            v = (struct value){.kind = V_FRAME, .source = (uint32_t)i + 1};
            break;
        case STEP_LOAD: v = load(p, step); break;
        case STEP_STORE: store(p, i, step); return;
        case STEP_DEREF: found(p, i, &a, "used as an address", NULL); return;
        case STEP_USE: found(p, i, &a, "compared", NULL); return;
        default: return;
    }
    if (step->dst != NOWHERE) s->places[step->dst] = v;
}

/* ---- calls ---- */

static const char *what_is(const char *source) {
    static const struct {
        const char *name, *what;
    } list[] = {
        {"__errno_location", "the address of errno"},
        {"__h_errno_location", "the address of h_errno"},
        {"__tls_get_addr", "the address of a thread-local variable"},
        {"__emutls_get_address", "the address of a thread-local variable"},
        {"pthread_self", "the result of pthread_self"},
        {"thrd_current", "the result of thrd_current"},
    };
    for (size_t i = 0; i < sizeof(list) / sizeof(list[0]); i++)
        if (strcmp(list[i].name, source) == 0) return list[i].what;
    return "what belongs to the thread, from a function that returns it";
}

static bool never_returns(const char *name) {
    static const char *const list[] = {
        "abort", "exit", "_exit", "_Exit", "quick_exit", "__stack_chk_fail", "__assert_fail", "__assert_perror_fail",
        "__assert", "_Unwind_Resume", "__cxa_throw", "__cxa_rethrow", "__cxa_bad_cast", "__cxa_throw_bad_array_new_length",
        "__clang_call_terminate", "_ZSt9terminatev", "longjmp", "_longjmp", "siglongjmp", "__longjmp_chk", "pthread_exit",
        "thrd_exit", "__chk_fail", "heist__assert_failed",
    };
    for (size_t i = 0; name && i < sizeof(list) / sizeof(list[0]); i++)
        if (strcmp(list[i], name) == 0) return true;
    /* UndefinedBehaviorSanitizer's, where what it finds is fatal; taken for calls that come back, what follows them in
     * the object seems to go on with their registers. */
    static const char handler[] = "__ubsan_handle_", fatal[] = "_abort";
    size_t length = name ? strlen(name) : 0;
    return length > sizeof(handler) + sizeof(fatal) && strncmp(name, handler, sizeof(handler) - 1) == 0 &&
           strcmp(name + length - (sizeof(fatal) - 1), fatal) == 0;
}

static void arguments(struct pass *p, size_t i, const char *name) {
    const struct machine *m = p->f->image->machine;
    for (int n = 0; n < m->argument_count; n++) {
        struct value v = p->now.places[m->arguments[n]];
        found(p, i, &v, "passed to", name ? name : "a function");
        /* The variable at this address may be written by the callee. */
        if (v.kind == V_FRAME && slot_get(&p->now, v.source, v.number).kind != V_OTHER)
            slot_clear(&p->now, v.source, v.number, 8);
    }
}

/* The name behind a call through a register, once it is known. */
static void resolve(struct pass *p, struct insn *insn) {
    if (insn->name || insn->through == NOWHERE) return;
    struct value v = p->now.places[insn->through];
    if (v.kind != V_NAME) return;
    insn->name = v.text;
    p->learned = true;
}

static const char *source_of(struct pass *p, const struct insn *insn) {
    struct function *callee = callee_of(p->images, p->f, insn);
    const char *name = callee ? callee->name : insn->name;
    if (!name) return NULL;
    if (names_have(&p->rules->sources, name)) return what_is(name);
    return callee && callee->returns_thread_place ? "what belongs to the thread, from a function that returns it" : NULL;
}

static void returns(struct pass *p, const struct value *v) {
    if (!belongs_to_thread(v) || p->f->returns_thread_place) return;
    p->f->returns_thread_place = true;
    p->learned = true;
}

/* False: it does not come back. */
static bool call(struct pass *p, size_t i, struct insn *insn) {
    const struct machine *m = p->f->image->machine;
    struct state *s = &p->now;
    resolve(p, insn);
    struct value result = {.kind = V_FRESH, .source = (uint32_t)i, .text = what_is("__tls_get_addr")};
    if (insn->flow == FLOW_CALL_TLSDESC || insn->name == name_tlsdesc) {
        s->places[m->result] = result;
        return true;
    }
    arguments(p, i, insn->name);
    if (never_returns(insn->name)) return false;
    result.text = source_of(p, insn);
    bool suspends = call_suspends(p->images, p->rules, p->f, insn) != NULL;
    for (int n = 0; n < PLACES; n++) {
        if (!m->kept_by_calls(n))
            s->places[n] = other_value;
        else if (suspends && s->places[n].kind == V_FRESH) {
            s->places[n].kind = V_STALE;
            s->places[n].call = (uint32_t)i;
        }
    }
    for (unsigned n = 0; suspends && n < s->slot_count; n++)
        if (s->slots[n].value.kind == V_FRESH) {
            s->slots[n].value.kind = V_STALE;
            s->slots[n].value.call = (uint32_t)i;
        }
    if (result.text) s->places[m->result] = result;
    return true;
}

static void leave_by_jump(struct pass *p, size_t i, struct insn *insn) {
    arguments(p, i, insn->name);
    const char *what = source_of(p, insn);
    if (what) returns(p, &(struct value){.kind = V_FRESH, .text = what});
}

/* ---- blocks ---- */

static void queue(struct block *b, const struct state *s) {
    if (!b->in) b->in = must(calloc(1, sizeof(*b->in)));
    if (merge(b->in, s)) b->queued = true;
}

static void go(struct pass *p, size_t i) { queue(&p->blocks[p->block_of[i]], &p->now); }

static void to_orphans(struct pass *p, const struct state *s) {
    for (size_t b = 0; b < p->block_count; b++)
        if (p->blocks[b].orphan) queue(&p->blocks[b], s);
}

/* A call may end in a landing pad instead: with the exception where its result would be. */
static void to_landing_pads(struct pass *p) {
    const struct function *f = p->f;
    int result = f->image->machine->result;
    if (f->indirect_jumps && !f->image->has_landing_pads) return;
    struct value kept = p->now.places[result];
    p->now.places[result] = other_value;
    if (merge(&p->after_calls, &p->now)) to_orphans(p, &p->after_calls);
    p->now.places[result] = kept;
}

static bool same_part(const struct function *f, size_t i) {
    return i + 1 < f->insn_count && f->insns[i + 1].address == f->insns[i].address + f->insns[i].size;
}

static void run_block(struct pass *p, const struct block *b) {
    struct function *f = p->f;
    memcpy(&p->now, b->in, sizeof(p->now));
    for (size_t i = b->first; i < b->end; i++) {
        struct insn *insn = &f->insns[i];
        for (unsigned n = 0; n < insn->steps; n++) run_step(p, i, &f->steps[insn->first_step + n]);
        long target;
        switch (insn->flow) {
            case FLOW_CALL:
            case FLOW_CALL_TLSDESC:
                if (!call(p, i, insn)) return;
                to_landing_pads(p);
                break;
            case FLOW_JUMP:
            case FLOW_BRANCH:
                target = insn->target ? insn_at(f, insn->target) : -1;
                if (target >= 0)
                    go(p, (size_t)target);
                else
                    leave_by_jump(p, i, insn);
                if (insn->flow == FLOW_JUMP) return;
                break;
            case FLOW_JUMP_INDIRECT:
                resolve(p, insn);
                if (insn->name)
                    leave_by_jump(p, i, insn);
                else if (merge(&p->at_indirect, &p->now))
                    to_orphans(p, &p->at_indirect);
                return;
            case FLOW_RETURN: {
                struct value v = p->now.places[f->image->machine->result];
                found(p, i, &v, "returned", NULL);
                returns(p, &v);
                return;
            }
            case FLOW_TRAP: return;
            default: break;
        }
        if (!same_part(f, i)) return;
    }
    if (b->end < f->insn_count) go(p, b->end);
}

static bool ends_block(const struct insn *insn) {
    return insn->flow != FLOW_NEXT && insn->flow != FLOW_CALL && insn->flow != FLOW_CALL_TLSDESC;
}

/* Blocks, and those among them that nothing leads to: switch cases, landing pads. */
static void find_blocks(struct pass *p) {
    struct function *f = p->f;
    uint8_t *leader = must(calloc(f->insn_count + 1, 1));
    enum { LEADS = 1, TARGET = 2 };
    leader[0] = LEADS | TARGET;
    for (size_t i = 0; i < f->insn_count; i++) {
        const struct insn *insn = &f->insns[i];
        long target = (insn->flow == FLOW_JUMP || insn->flow == FLOW_BRANCH) && insn->target ? insn_at(f, insn->target) : -1;
        if (target >= 0) leader[target] |= LEADS | TARGET;
        bool ends = ends_block(insn) || never_returns(insn->flow == FLOW_CALL ? insn->name : NULL);
        if (ends || !same_part(f, i)) leader[i + 1] |= LEADS;
        if (insn->flow == FLOW_BRANCH) leader[i + 1] |= TARGET;
    }
    size_t count = 0;
    for (size_t i = 0; i < f->insn_count; i++) count += leader[i] & LEADS;
    p->blocks = must(calloc(count + 1, sizeof(*p->blocks)));
    p->block_of = must(calloc(f->insn_count + 1, sizeof(*p->block_of)));
    for (size_t i = 0; i < f->insn_count; i++) {
        if (leader[i] & LEADS) {
            struct block *b = &p->blocks[p->block_count++];
            b->first = i;
            /* Reached by falling into it? */
            const struct insn *before = i ? &f->insns[i - 1] : NULL;
            bool falls = before && same_part(f, i - 1) && before->flow != FLOW_JUMP && before->flow != FLOW_JUMP_INDIRECT &&
                         before->flow != FLOW_RETURN && before->flow != FLOW_TRAP &&
                         !never_returns(before->flow == FLOW_CALL ? before->name : NULL);
            b->targeted = falls || (leader[i] & TARGET);
        }
        p->block_of[i] = (uint32_t)p->block_count - 1;
        p->blocks[p->block_count - 1].end = i + 1;
    }
    for (size_t b = 0; b < p->block_count; b++) {
        struct block *block = &p->blocks[b];
        bool padding = true;
        for (size_t i = block->first; i < block->end; i++) padding &= f->insns[i].padding;
        block->orphan = !block->targeted && !padding;
    }
    free(leader);
}

/* Nothing of the thread's can appear in it: most functions. */
static bool uninteresting(struct pass *p) {
    struct function *f = p->f;
    for (size_t i = 0; i < f->step_count; i++)
        if (f->steps[i].kind == STEP_THREAD) return false;
    for (size_t i = 0; i < f->insn_count; i++) {
        const struct insn *insn = &f->insns[i];
        if (insn->flow == FLOW_CALL_TLSDESC || (insn->through != NOWHERE && !insn->name)) return false;
        if (insn->name == name_tlsdesc) return false;
        if (insn->flow != FLOW_NEXT && insn->flow != FLOW_RETURN && source_of(p, insn)) return false;
    }
    return true;
}

bool follow(const struct images *images, const struct rules *rules, struct function *f, struct findings *findings) {
    if (!f->insn_count || !f->part_count) return false;
    static struct pass pass; /* big */
    struct pass *p = &pass;
    memset(p, 0, sizeof(*p));
    p->images = images;
    p->rules = rules;
    p->f = f;
    if (uninteresting(p)) return false;
    find_blocks(p);
    p->now.reached = true;
    p->now.places[f->image->machine->stack_pointer] = (struct value){.kind = V_FRAME};
    queue(&p->blocks[0], &p->now);
    for (bool any = true; any;) {
        any = false;
        for (size_t b = 0; b < p->block_count; b++) {
            if (!p->blocks[b].queued) continue;
            p->blocks[b].queued = false;
            any = true;
            run_block(p, &p->blocks[b]);
        }
    }
    if (findings && !names_have(&rules->excluded, f->name)) {
        p->findings = findings;
        for (size_t b = 0; b < p->block_count; b++)
            if (p->blocks[b].in) run_block(p, &p->blocks[b]);
    }
    for (size_t b = 0; b < p->block_count; b++) free(p->blocks[b].in);
    free(p->blocks);
    free(p->block_of);
    return p->learned;
}
