/* What a load may read, and who knows of what: C11's memory, operationally.
 *
 * For each atomic object the checker keeps its last stores in their modification order,
 * each with the view that it releases; for each thread a view: vector clocks of what
 * happens before its next step.  A load may read the newest store, and, as long as the
 * execution's allowance of stale reads lasts, any older one that coherence and the order
 * of the sequentially consistent steps leave it.  Loads acquire what the store released,
 * relaxed ones for a later fence; a read-modify-write reads the newest store and goes on
 * releasing what it released.
 * Ideas: Norris and Demsky, "CDSchecker" (2013); Vyukov's Relacy; loom for Rust.  The
 * rules are those of C11 as C++20 repaired them (P0668: the one order of sc steps;
 * P0982: release sequences hold read-modify-writes only).
 *
 * What is approximated, and so never shown:
 *   - the modification order of an object and the one order of sc steps are the order in
 *     which the checker runs the steps; happens-before, reads-from and both orders have no
 *     circle together.  So no load reads a store that is later in its own thread's future
 *     (load buffering), and stores of two threads are never seen against their order.
 *     Every execution of x86 is among those that remain;
 *   - of each object the last HISTORY stores are kept.
 * An object whose content is not the last store that we saw was written plainly: it starts
 * a new life with that content, which everybody may read.
 *
 * Plain memory: each access must happen after the last writes (a write: after all accesses)
 * of other threads, or it is a data race.  A block must have been handed over to who uses
 * it, and is used by nobody after its free, and free happens after every use. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "conc/atomic_model.h"
#include "model/inside.h"

#define HISTORY 8

struct clock {
    uint32_t at[MODEL_SLOTS];
};

struct view {
    struct clock hb; /* happens before */
    struct clock sc; /* must not be missed since an sc fence, though it does not happen before */
    uint64_t fence;  /* the last sc fence that happens before, in the order of sc steps */
};

struct store {
    uint64_t value, stamp; /* stamp: of the first sc step that wrote or read it; 0: none */
    struct view released;
    bool releases;
    uint8_t slot;
    uint32_t epoch;
    uint32_t seen[MODEL_SLOTS]; /* when each thread first read it */
};

struct location {
    uintptr_t address; /* 0: free */
    unsigned count, bytes;
    uint8_t readers, writers; /* sets of threads */
    uint8_t init_slot;
    uint32_t init_epoch;
    uint32_t touched[MODEL_SLOTS];
    const char *site; /* of its last use */
    struct store store[HISTORY];
};

struct thread_memory {
    struct view now, pending /* of relaxed loads */, fenced /* at the last fence */;
    bool has_fenced;
    /* To tell a spin: the last load, and how often it was repeated. */
    const struct location *looked_at;
    uint64_t saw;
    unsigned repeats;
};

/* ---- objects that threads contend for ----
 *
 * By address: in an execution an address means one object, for memory is not used twice.
 * In another execution it may mean another one; then there are points too many, none too
 * few, for the set only grows until an execution finds nothing new. */

#define CONTENDED 8192
static uintptr_t contended[CONTENDED];
unsigned memory_new_contended;

void memory_forget(void) {
    memset(contended, 0, sizeof(contended));
    memory_new_contended = 0;
}

static uintptr_t *contended_slot(uintptr_t address) {
    size_t at = address * 0x9e3779b97f4a7c15u >> 51;
    while (contended[at] && contended[at] != address) at = (at + 1) % CONTENDED;
    return &contended[at];
}

static bool is_contended(const volatile void *p) { return *contended_slot((uintptr_t)p) != 0; }

/* ---- state of an execution ---- */

#define LOCATIONS 2048
static struct location locations[LOCATIONS];
static struct location *used[LOCATIONS];
static unsigned used_count;
static struct thread_memory threads[MODEL_THREADS];
static struct clock fences; /* what the sc fences so far had seen */
static uint64_t stamps;

struct handed {
    const void *key;
    struct view view;
};
#define HANDED 64
static struct handed handed[HANDED];
static unsigned handed_count;

static void cells_reset(void);
static void blocks_reset(void);

void memory_begin(void) {
    for (unsigned i = 0; i < used_count; i++) used[i]->address = 0;
    used_count = 0;
    memset(threads, 0, sizeof(threads));
    memset(&fences, 0, sizeof(fences));
    stamps = 0;
    handed_count = 0;
    cells_reset();
    blocks_reset();
}

/* ---- views ---- */

static void clock_join(struct clock *a, const struct clock *b) {
    for (int i = 0; i < MODEL_SLOTS; i++)
        if (b->at[i] > a->at[i]) a->at[i] = b->at[i];
}

static void view_join(struct view *a, const struct view *b) {
    clock_join(&a->hb, &b->hb);
    clock_join(&a->sc, &b->sc);
    if (b->fence > a->fence) a->fence = b->fence;
}

static int slot(void) { return model_self + 1; }
static struct thread_memory *self(void) { return &threads[model_self]; }

/* A new step of the running thread.  Who releases steps on behind it, too: what follows is not part of what it
 * has released. */
static uint32_t tick(void) { return ++self()->now.hb.at[slot()]; }

static bool happened(int who, uint32_t epoch) { return self()->now.hb.at[who] >= epoch; }

void memory_started(int child, int parent) {
    if (parent >= 0) {
        model_self = parent;
        tick();
        threads[child].now = threads[parent].now;
        tick();
    }
    threads[child].now.hb.at[child + 1] = 1;
}

void memory_joined(int child) {
    if (model_self >= 0) view_join(&self()->now, &threads[child].now);
}

void memory_release(const void *key) {
    if (model_self < 0) return;
    tick();
    unsigned i = 0;
    while (i < handed_count && handed[i].key != key) i++;
    if (i == handed_count) {
        if (handed_count == HANDED) model_fail("the checker's table of locks is full");
        handed[handed_count++] = (struct handed){.key = key};
    }
    view_join(&handed[i].view, &self()->now);
    tick();
}

void memory_acquire(const void *key) {
    if (model_self < 0) return;
    for (unsigned i = 0; i < handed_count; i++)
        if (handed[i].key == key) view_join(&self()->now, &handed[i].view);
}

/* ---- blocks ---- */

struct block {
    uintptr_t start, end;
    int8_t slot;
    bool gone;
    uint32_t epoch;
};
#define BLOCKS 1024
static struct block blocks[BLOCKS]; /* by rising address: the arena only grows */
static unsigned block_count;

static void blocks_reset(void) { block_count = 0; }

static struct block *block_at(uintptr_t address) {
    unsigned low = 0, high = block_count;
    while (low < high) {
        unsigned middle = (low + high) / 2;
        if (blocks[middle].end <= address) low = middle + 1;
        else high = middle;
    }
    return low < block_count && blocks[low].start <= address ? &blocks[low] : NULL;
}

void memory_block(void *p, size_t bytes) {
    if (block_count == BLOCKS) model_fail("the checker's table of blocks is full");
    struct block *b = &blocks[block_count++];
    b->start = (uintptr_t)p;
    b->end = b->start + bytes;
    b->slot = (int8_t)slot();
    b->gone = false;
    b->epoch = model_self < 0 ? 0 : tick();
}

static void use_block(uintptr_t address, const char *what) {
    struct block *b = block_at(address);
    if (!b) return;
    if (b->gone) model_fail("%s uses memory after its free", what);
    if (model_self >= 0 && !happened(b->slot, b->epoch)) model_fail("%s uses memory that was not handed over", what);
}

/* ---- atomic objects ---- */

static uint64_t peek(const volatile void *p, unsigned bytes) {
    switch (bytes) {
        case 1: return *(const volatile uint8_t *)p;
        case 2: return *(const volatile uint16_t *)p;
        case 4: return *(const volatile uint32_t *)p;
        default: return *(const volatile uint64_t *)p;
    }
}

static void poke(volatile void *p, unsigned bytes, uint64_t v) {
    switch (bytes) {
        case 1: *(volatile uint8_t *)p = (uint8_t)v; break;
        case 2: *(volatile uint16_t *)p = (uint16_t)v; break;
        case 4: *(volatile uint32_t *)p = (uint32_t)v; break;
        default: *(volatile uint64_t *)p = v; break;
    }
}

static uint64_t cut(uint64_t v, unsigned bytes) { return bytes == 8 ? v : v & (((uint64_t)1 << bytes * 8) - 1); }

static struct location *locate(const volatile void *p, unsigned bytes) {
    uintptr_t address = (uintptr_t)p;
    size_t at = address * 0x9e3779b97f4a7c15u >> 53;
    while (locations[at].address && locations[at].address != address) at = (at + 1) % LOCATIONS;
    struct location *l = &locations[at];
    if (!l->address) {
        if (used_count >= LOCATIONS * 3 / 4) model_fail("the checker's table of atomic objects is full");
        used[used_count++] = l;
        l->address = address;
        l->count = 0;
        l->readers = l->writers = 0;
        l->init_epoch = 0;
        l->bytes = bytes;
        memset(l->touched, 0, sizeof(l->touched));
    }
    uint64_t content = peek(p, bytes);
    if (l->count && (l->bytes != bytes || l->store[l->count - 1].value != content)) {
        l->count = 0; /* written plainly */
        l->bytes = bytes;
        l->init_epoch = 0;
    }
    if (!l->count) {
        l->count = 1;
        memset(&l->store[0], 0, sizeof(l->store[0]));
        l->store[0].value = content;
    }
    return l;
}

/* Who meets whom where: only uses of objects for which threads contend need be points of the search. */
static void note(struct location *l, const char *name, bool writes) {
    use_block(l->address, name);
    if (l->init_epoch && !happened(l->init_slot, l->init_epoch))
        model_fail("%s: an atomic object is used whose initialisation was not handed over", name);
    l->touched[slot()] = self()->now.hb.at[slot()];
    l->site = name;
    uint8_t me = (uint8_t)(1 << model_self);
    if (writes) l->writers |= me;
    else l->readers |= me;
    uint8_t all = l->readers | l->writers;
    if (!l->writers || !(all & (all - 1))) return;
    uintptr_t *c = contended_slot(l->address);
    if (*c) return;
    *c = l->address;
    memory_new_contended++;
}

static bool store_known(const struct store *s, const struct clock *c) {
    if (c->at[s->slot] >= s->epoch) return true;
    for (int i = 0; i < MODEL_SLOTS; i++)
        if (s->seen[i] && c->at[i] >= s->seen[i]) return true;
    return false;
}

/* The oldest store that the running thread may read. */
static unsigned floor_of(const struct location *l, bool sc) {
    const struct view *v = &self()->now;
    for (unsigned i = l->count - 1; i > 0; i--) {
        const struct store *s = &l->store[i];
        if (store_known(s, &v->hb) || store_known(s, &v->sc) || (s->stamp && s->stamp <= v->fence)) return i;
        if (sc && (s->stamp || store_known(s, &fences))) return i;
    }
    return 0;
}

static bool acquires(int order) {
    return order == HEIST__ORDER_ACQ || order == HEIST__ORDER_AR || order == HEIST__ORDER_SC;
}
static bool releases(int order) {
    return order == HEIST__ORDER_REL || order == HEIST__ORDER_AR || order == HEIST__ORDER_SC;
}

static void read_from(struct store *s, int order) {
    struct thread_memory *t = self();
    if (!s->seen[slot()]) s->seen[slot()] = t->now.hb.at[slot()];
    if (order == HEIST__ORDER_SC && !s->stamp) s->stamp = ++stamps;
    if (!s->releases) return;
    if (acquires(order)) view_join(&t->now, &s->released);
    else view_join(&t->pending, &s->released);
}

/* before: what a read-modify-write read, or NULL. */
static void write_to(struct location *l, volatile void *p, uint64_t value, int order, const struct store *before) {
    struct thread_memory *t = self();
    struct store s;
    memset(&s, 0, sizeof(s));
    s.value = cut(value, l->bytes);
    s.slot = (uint8_t)slot();
    s.epoch = t->now.hb.at[slot()];
    if (before && before->releases) {
        s.released = before->released;
        s.releases = true;
    }
    if (releases(order)) {
        view_join(&s.released, &t->now);
        s.releases = true;
    } else if (t->has_fenced) {
        view_join(&s.released, &t->fenced);
        s.releases = true;
    }
    if (order == HEIST__ORDER_SC) s.stamp = ++stamps;
    if (l->count == HISTORY) memmove(&l->store[0], &l->store[1], sizeof(s) * --l->count);
    l->store[l->count++] = s;
    poke(p, l->bytes, value);
    tick();
    model_progress();
}

/* A load that sees the same again and again, and nothing between, spins. */
static bool spins(const struct location *l) {
    struct thread_memory *t = self();
    return t->looked_at == l && t->repeats >= 2;
}

static void look(const struct location *l, uint64_t value) {
    struct thread_memory *t = self();
    if (t->looked_at == l && t->saw == value) {
        t->repeats++;
    } else {
        t->looked_at = l;
        t->saw = value;
        t->repeats = 0;
    }
}

static void acted(void) { self()->looked_at = NULL; }

uint64_t heist__model_load(const volatile void *p, unsigned bytes, int order, const char *name) {
    if (model_self < 0) {
        if (model_active) use_block((uintptr_t)p, name);
        return peek(p, bytes);
    }
    bool shared = is_contended(p);
    struct location *l = locate(p, bytes);
    bool spinning = spins(l);
    if (spinning) {
        model_yield();
        l = locate(p, bytes);
    } else if (shared) {
        model_point();
        l = locate(p, bytes);
    }
    tick();
    note(l, name, false);
    unsigned newest = l->count - 1, at = newest;
    if (model_stale_left && newest && !spinning) {
        unsigned stale = model_decide(newest - floor_of(l, order == HEIST__ORDER_SC) + 1);
        if (stale) model_stale_left--;
        at = newest - stale;
    }
    struct store *s = &l->store[at];
    read_from(s, order);
    look(l, s->value);
    if (shared) model_trace(name, MODEL_LOAD, order, s->value, 0, at != newest);
    return s->value;
}

void heist__model_store(volatile void *p, unsigned bytes, uint64_t value, int order, const char *name) {
    if (model_self < 0) {
        if (model_active) use_block((uintptr_t)p, name);
        poke(p, bytes, value);
        return;
    }
    bool shared = is_contended(p);
    if (shared) model_point();
    struct location *l = locate(p, bytes);
    tick();
    acted();
    note(l, name, true);
    write_to(l, p, value, order, NULL);
    if (shared) model_trace(name, MODEL_STORE, order, cut(value, bytes), 0, false);
}

static uint64_t apply(int op, uint64_t old, uint64_t v) {
    switch (op) {
        case HEIST__RMW_ADD: return old + v;
        case HEIST__RMW_SUB: return old - v;
        case HEIST__RMW_OR: return old | v;
        case HEIST__RMW_AND: return old & v;
        default: return v;
    }
}

uint64_t heist__model_rmw(volatile void *p, unsigned bytes, int op, uint64_t value, int order, const char *name) {
    if (model_self < 0) {
        if (model_active) use_block((uintptr_t)p, name);
        uint64_t old = peek(p, bytes);
        poke(p, bytes, apply(op, old, value));
        return old;
    }
    bool shared = is_contended(p);
    if (shared) model_point();
    struct location *l = locate(p, bytes);
    tick();
    acted();
    note(l, name, true);
    struct store before = l->store[l->count - 1];
    read_from(&l->store[l->count - 1], order);
    write_to(l, p, apply(op, before.value, value), order, &before);
    if (shared) model_trace(name, MODEL_RMW, order, before.value, l->store[l->count - 1].value, false);
    return before.value;
}

bool heist__model_cas(volatile void *p, unsigned bytes, void *expected, uint64_t value, int order, const char *name) {
    uint64_t want = peek(expected, bytes);
    if (model_self < 0) {
        if (model_active) use_block((uintptr_t)p, name);
        uint64_t old = peek(p, bytes);
        if (old == want) poke(p, bytes, value);
        else poke(expected, bytes, old);
        return old == want;
    }
    bool shared = is_contended(p);
    if (shared) model_point();
    struct location *l = locate(p, bytes);
    tick();
    acted();
    unsigned newest = l->count - 1, at = newest;
    bool fits = l->store[newest].value == want;
    if (model_stale_left && newest) {
        /* It may fail by an older value too, if that is another one. */
        unsigned low = floor_of(l, order == HEIST__ORDER_SC), choice[HISTORY], n = 0;
        choice[n++] = newest;
        for (unsigned i = newest; i-- > low;)
            if (l->store[i].value != want) choice[n++] = i;
        at = choice[model_decide(n)];
        if (at != newest) model_stale_left--;
    }
    bool succeeds = fits && at == newest;
    note(l, name, succeeds);
    struct store before = l->store[at];
    int fail_order = order == HEIST__ORDER_AR ? HEIST__ORDER_ACQ : order == HEIST__ORDER_REL ? HEIST__ORDER_RLX : order;
    read_from(&l->store[at], succeeds ? order : fail_order);
    if (succeeds) write_to(l, p, value, order, &before);
    else poke(expected, bytes, before.value);
    if (shared)
        model_trace(name, succeeds ? MODEL_CAS : MODEL_CAS_FAILED, order, before.value, cut(value, bytes),
                    at != newest);
    return succeeds;
}

void heist__model_fence(const char *name) {
    if (model_self < 0) return;
    struct thread_memory *t = self();
    tick();
    view_join(&t->now, &t->pending);
    clock_join(&t->now.sc, &fences);
    clock_join(&fences, &t->now.hb);
    clock_join(&fences, &t->now.sc);
    t->now.fence = ++stamps;
    t->fenced = t->now;
    t->has_fenced = true;
    tick();
    model_trace(name, MODEL_FENCE, HEIST__ORDER_SC, 0, 0, false);
}

void heist__model_init(volatile void *p, unsigned bytes, uint64_t value, const char *name) {
    if (model_active) use_block((uintptr_t)p, name);
    poke(p, bytes, value);
    if (model_self < 0) return;
    struct location *l = locate(p, bytes);
    l->count = 1;
    memset(&l->store[0], 0, sizeof(l->store[0]));
    l->store[0].value = cut(value, bytes);
    l->store[0].slot = l->init_slot = (uint8_t)slot();
    l->store[0].epoch = l->init_epoch = tick();
}

/* ---- plain memory ---- */

/* Accesses of one width at one place. */
struct access {
    uint8_t mask; /* of the bytes of the granule; 0: free */
    uint8_t writer;
    uint32_t written; /* epoch of the last write, 0: none */
    uint32_t read[MODEL_SLOTS];
    const void *pc;
};

struct cell {
    uintptr_t granule; /* 0: free */
    struct access access[4];
};
#define CELLS 32768
static struct cell cells[CELLS];
static struct cell *cells_used[CELLS];
static unsigned cells_count;

static void cells_reset(void) {
    for (unsigned i = 0; i < cells_count; i++) cells_used[i]->granule = 0;
    cells_count = 0;
}

static struct cell *cell_find(uintptr_t granule, bool make) {
    size_t at = granule * 0x9e3779b97f4a7c15u >> 49;
    while (cells[at].granule && cells[at].granule != granule) at = (at + 1) % CELLS;
    struct cell *c = &cells[at];
    if (c->granule || !make) return c->granule ? c : NULL;
    if (cells_count >= CELLS * 3 / 4) model_fail("the checker's table of plain memory is full");
    cells_used[cells_count++] = c;
    c->granule = granule;
    for (int i = 0; i < 4; i++) c->access[i].mask = 0;
    return c;
}

static _Noreturn void race(const void *pc, bool writes, const struct access *other, bool other_writes) {
    model_fail("a data race: a plain %s at %p, and before it, unordered, a %s at %p", writes ? "write" : "read", pc,
               other_writes ? "write" : "read", other->pc);
}

static void plain_granule(uintptr_t granule, uint8_t mask, bool writes, const void *pc) {
    struct cell *c = cell_find(granule, true);
    struct access *own = NULL, *room = NULL;
    for (int i = 0; i < 4; i++) {
        struct access *a = &c->access[i];
        if (!a->mask) {
            if (!room) room = a;
            continue;
        }
        if (a->mask == mask) own = a;
        if (!(a->mask & mask)) continue;
        if (a->written && !happened(a->writer, a->written)) race(pc, writes, a, true);
        if (!writes) continue;
        for (int s = 0; s < MODEL_SLOTS; s++)
            if (a->read[s] && !happened(s, a->read[s])) race(pc, writes, a, false);
    }
    if (!own) {
        own = room ? room : &c->access[mask & 3]; /* more widths than we keep: one is forgotten */
        memset(own, 0, sizeof(*own));
        own->mask = mask;
    }
    own->pc = pc;
    if (writes) {
        memset(own->read, 0, sizeof(own->read));
        own->writer = (uint8_t)slot();
        own->written = self()->now.hb.at[slot()];
    } else {
        own->read[slot()] = self()->now.hb.at[slot()];
    }
}

void memory_plain(const volatile void *p, size_t bytes, bool writes, const void *pc) {
    if (!model_active || model_blind || (uintptr_t)p - (uintptr_t)model_tls < model_tls_bytes) return;
    if (p == (void *)&errno) return; /* a thread's own, too */
    uintptr_t at = (uintptr_t)p, end = at + bytes;
    char text[64];
    struct block *b = block_at(at);
    if (b && (b->gone || (model_self >= 0 && !happened(b->slot, b->epoch)))) {
        snprintf(text, sizeof(text), "a plain access at %p", pc);
        use_block(at, text);
    }
    if (model_self < 0) return;
    self()->looked_at = writes ? NULL : self()->looked_at;
    while (at < end) {
        uintptr_t granule = at & ~(uintptr_t)7, stop = granule + 8 < end ? granule + 8 : end;
        uint8_t mask = (uint8_t)(((1u << (stop - at)) - 1) << (at - granule));
        plain_granule(granule, mask, writes, pc);
        at = stop;
    }
}

void memory_block_gone(void *p, size_t bytes) {
    struct block *b = block_at((uintptr_t)p);
    if (!b) return;
    if (b->gone) model_fail("a block is freed twice");
    b->gone = true;
    if (model_self < 0) return;
    for (uintptr_t at = b->start; at < b->start + bytes; at++) {
        if (at % 8 == 0) {
            struct cell *c = cell_find(at, false);
            for (int i = 0; c && i < 4; i++) {
                struct access *a = &c->access[i];
                if (!a->mask) continue;
                if (a->written && !happened(a->writer, a->written)) race(__builtin_return_address(0), true, a, true);
                for (int s = 0; s < MODEL_SLOTS; s++)
                    if (a->read[s] && !happened(s, a->read[s])) race(__builtin_return_address(0), true, a, false);
            }
        }
        size_t slot_at = at * 0x9e3779b97f4a7c15u >> 53;
        while (locations[slot_at].address && locations[slot_at].address != at) slot_at = (slot_at + 1) % LOCATIONS;
        struct location *l = &locations[slot_at];
        if (!l->address) continue;
        for (int s = 0; s < MODEL_SLOTS; s++)
            if (l->touched[s] && !happened(s, l->touched[s]))
                model_fail("a block is freed, and a use of its atomic object does not happen before: %s", l->site);
    }
}

void model_reads(const volatile void *p, size_t bytes) { memory_plain(p, bytes, false, __builtin_return_address(0)); }
void model_writes(volatile void *p, size_t bytes) { memory_plain(p, bytes, true, __builtin_return_address(0)); }
