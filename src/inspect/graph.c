/* Who waits for whom: the graph above a future.
 *
 * One array of nodes, filled breadth first: the awaiters of a node stand side by side in it, so nothing recurses,
 * however long the chain.  A future is followed where it is met first; met again it is a leaf, and a cycle when it
 * stands on the way down to itself.
 *
 * Two sources of links.  The list of waiters of each future, read under its lock (task/complete.c).  And `awaiting` of
 * every task, collected once: a task whose awaited runs in place stands in no list.  A link of the second kind counts
 * if it still stands when it is used; its task is held, and holds what it awaits. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fork.h"
#include "conc/self.h"
#include "inspect/inspect.h"
#include "mem/slab.h"
#include "task/state.h"
#include "task/task.h"

struct heist_call_graph {
    heist_future *future; /* one reference */
    void **frames;
    int frame_count; /* or why there are none */
    unsigned flags, threads;
    size_t parent, first, awaiters; /* indices in the array */
    size_t next_same;               /* in the table of those met, plus one */
    struct capture *whole;
};

struct heist__pair {
    heist_future *awaited; /* its address only */
    heist_task *task;      /* one reference */
};

struct capture {
    heist_call_graph *nodes;
    size_t count, room;
    size_t *met; /* of each bucket the first node, plus one */
    size_t buckets;
    struct heist__awaits awaits;
};

/* ---- tasks that await ---- */

static bool collect(void *object, void *arg) {
    struct heist__awaits *a = arg;
    heist_future *f = object;
    heist_future *awaited = a_load_acq(&f->awaiting); /* acq: an address, looked at again when it is used */
    if (!awaited || !heist__future_try_ref(f)) return true;
    if (!heist__is_task(f)) {
        heist_unref(f);
        return true;
    }
    if (a->count == a->room) {
        size_t room = a->room ? a->room * 2 : 64;
        struct heist__pair *more = heist__realloc(a->pairs, room * sizeof(*more));
        if (!more) {
            heist_unref(f);
            a->failed = true;
            return false;
        }
        a->pairs = more;
        a->room = room;
    }
    a->pairs[a->count++] = (struct heist__pair){awaited, f};
    return true;
}

static int by_awaited(const void *a, const void *b) {
    uintptr_t x = (uintptr_t)((const struct heist__pair *)a)->awaited;
    uintptr_t y = (uintptr_t)((const struct heist__pair *)b)->awaited;
    return x < y ? -1 : x > y;
}

int heist__awaits_collect(struct heist__awaits *a) {
    memset(a, 0, sizeof(*a));
    heist__slab_each(HEIST__SLAB_FUTURE, collect, a);
    if (a->failed) {
        heist__awaits_free(a);
        return -ENOMEM;
    }
    if (a->count) qsort(a->pairs, a->count, sizeof(*a->pairs), by_awaited);
    return 0;
}

void heist__awaits_free(struct heist__awaits *a) {
    for (size_t i = 0; i < a->count; i++) heist_unref(a->pairs[i].task);
    heist__free(a->pairs);
    a->pairs = NULL;
    a->count = a->room = 0;
}

static size_t first_pair(const struct heist__awaits *a, const heist_future *f) {
    size_t lo = 0, hi = a->count;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if ((uintptr_t)a->pairs[mid].awaited < (uintptr_t)f) lo = mid + 1;
        else hi = mid;
    }
    return lo;
}

static bool is_among(heist_future *const *list, size_t n, const heist_future *f) {
    for (size_t i = 0; i < n; i++)
        if (list[i] == f) return true;
    return false;
}

int heist__awaits_of(const struct heist__awaits *a, heist_future *f, heist_future ***out, size_t *count,
                     unsigned *threads) {
    size_t lo = first_pair(a, f), hi = lo, room = 8, n;
    while (hi < a->count && a->pairs[hi].awaited == f) hi++;
    heist_future **list;
    for (;; room = 2 * n) {
        list = heist__alloc((room + hi - lo) * sizeof(*list));
        if (!list) return -ENOMEM;
        *threads = 0;
        n = heist__future_awaiters(f, list, room, threads);
        if (n <= room) break;
        for (size_t i = 0; i < room; i++) heist_unref(list[i]);
        heist__free(list);
    }
    size_t linked = n;
    for (size_t i = lo; i < hi && !heist__future_is_done(f); i++) {
        heist_task *t = a->pairs[i].task;
        /* acq: as in collect.  A short list is searched; in a long one what is linked stands there already. */
        if (a_load_acq(&t->awaiting) == f && !is_among(list, linked, t)) list[n++] = heist_ref(t);
    }
    *out = list;
    *count = n;
    return 0;
}

/* ---- nodes ---- */

static size_t bucket_of(const struct capture *c, const heist_future *f) {
    return (size_t)(((uintptr_t)f >> 6) * 0x9e3779b97f4a7c15u >> 20) & (c->buckets - 1);
}

static bool rehash(struct capture *c) {
    size_t buckets = c->buckets ? c->buckets * 4 : 64;
    size_t *met = heist__zalloc(buckets * sizeof(*met));
    if (!met) return false;
    heist__free(c->met);
    c->met = met;
    c->buckets = buckets;
    for (size_t i = 0; i < c->count; i++) {
        heist_call_graph *g = &c->nodes[i];
        if (g->flags) continue; /* only where it was met first */
        size_t b = bucket_of(c, g->future);
        g->next_same = met[b];
        met[b] = i + 1;
    }
    return true;
}

static bool met_before(const struct capture *c, const heist_future *f) {
    size_t at = c->met[bucket_of(c, f)];
    while (at && c->nodes[at - 1].future != f) at = c->nodes[at - 1].next_same;
    return at != 0;
}

static bool stands_below(const struct capture *c, size_t node, const heist_future *f) {
    for (;; node = c->nodes[node].parent) {
        if (c->nodes[node].future == f) return true;
        if (node == 0) return false;
    }
}

/* Takes over the caller's reference, also when there is no memory. */
static bool add_node(struct capture *c, heist_future *f, size_t parent) {
    if ((c->count >= c->buckets && !rehash(c))) goto no_memory;
    if (c->count == c->room) {
        size_t room = c->room ? c->room * 2 : 16;
        heist_call_graph *more = heist__realloc(c->nodes, room * sizeof(*more));
        if (!more) goto no_memory;
        c->nodes = more;
        c->room = room;
    }
    heist_call_graph *g = &c->nodes[c->count];
    memset(g, 0, sizeof(*g));
    g->future = f;
    g->parent = parent;
    if (c->count && met_before(c, f)) {
        g->flags = stands_below(c, parent, f) ? HEIST_CALL_GRAPH_CYCLE : HEIST_CALL_GRAPH_KNOWN;
    } else {
        size_t b = bucket_of(c, f);
        g->next_same = c->met[b];
        c->met[b] = c->count + 1;
    }
    c->count++;
    return true;
no_memory:
    heist_unref(f);
    return false;
}

/* ---- the frames of one ---- */

static int take_frames(heist_call_graph *g, int depth, int limit, const void *start) {
    void *frames[HEIST__FRAMES + 64];
    if (!heist__is_task(g->future) || depth > 64) return 0;
    int n = heist__task_frames(g->future, frames, depth + limit, 64, start);
    if (n <= depth) {
        g->frame_count = n < 0 ? n : 0;
        return n == -ENOMEM ? n : 0;
    }
    n -= depth;
    g->frames = heist__alloc((size_t)n * sizeof(void *));
    if (!g->frames) return -ENOMEM;
    memcpy(g->frames, frames + depth, (size_t)n * sizeof(void *));
    g->frame_count = n;
    return 0;
}

/* ---- the awaiters of one ---- */

static int add_awaiters(struct capture *c, size_t node) {
    heist_future **list;
    size_t n, first = c->count;
    int err = heist__awaits_of(&c->awaits, c->nodes[node].future, &list, &n, &c->nodes[node].threads);
    if (err) return err;
    for (size_t i = 0; i < n; i++) {
        bool twice = i < 64 && is_among(list, i, list[i]); /* a gather's duplicate argument; far ones are leaves */
        if (twice || err) heist_unref(list[i]);
        else if (!add_node(c, list[i], node)) err = -ENOMEM;
    }
    heist__free(list);
    c->nodes[node].first = first;
    c->nodes[node].awaiters = c->count - first;
    return err;
}

/* ---- the whole ---- */

static void end_collecting(struct capture *c) {
    heist__awaits_free(&c->awaits);
    heist__free(c->met);
    c->met = NULL;
}

static void capture_free(struct capture *c) {
    end_collecting(c);
    for (size_t i = 0; i < c->count; i++) {
        heist_unref(c->nodes[i].future);
        heist__free(c->nodes[i].frames);
    }
    heist__free(c->nodes);
    heist__free(c);
}

static int capture(heist_future *f, int depth, int limit, const void *start, heist_call_graph **out) {
    if (!out || depth < 0 || limit < 0) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    if (!limit || limit > HEIST__FRAMES) limit = HEIST__FRAMES;
    if (!f) f = heist__self()->task;
    if (!f) {
        *out = NULL;
        return 0;
    }
    struct capture *c = heist__zalloc(sizeof(*c));
    if (!c) return -ENOMEM;
    int err = heist__awaits_collect(&c->awaits);
    if (!err && !add_node(c, heist_ref(f), 0)) err = -ENOMEM;
    for (size_t i = 0; !err && i < c->count; i++) {
        err = take_frames(&c->nodes[i], depth, limit, start);
        if (!err && !c->nodes[i].flags) err = add_awaiters(c, i);
    }
    if (err) {
        capture_free(c);
        return err;
    }
    end_collecting(c);
    for (size_t i = 0; i < c->count; i++) c->nodes[i].whole = c;
    *out = c->nodes;
    return 0;
}

int heist_capture_call_graph(heist_future *f, int depth, int limit, heist_call_graph **out) {
    return capture(f, depth, limit, __builtin_return_address(0), out);
}

void heist_call_graph_free(heist_call_graph *g) {
    if (g && !heist__forked()) capture_free(g->whole);
}

heist_future *heist_call_graph_future(const heist_call_graph *g) { return g ? g->future : NULL; }

int heist_call_graph_frames(const heist_call_graph *g, void *const **frames) {
    if (!g || !frames) return -EINVAL;
    if (g->frame_count > 0) *frames = g->frames;
    return g->frame_count;
}

size_t heist_call_graph_awaiters(const heist_call_graph *g) { return g ? g->awaiters : 0; }

heist_call_graph *heist_call_graph_awaiter(const heist_call_graph *g, size_t index) {
    return g && index < g->awaiters ? &g->whole->nodes[g->first + index] : NULL;
}

int heist_call_graph_threads(const heist_call_graph *g) { return g ? (int)g->threads : -EINVAL; }

unsigned heist_call_graph_flags(const heist_call_graph *g) { return g ? g->flags : 0; }

/* ---- as text ---- */

static void print_node(const heist_call_graph *g, unsigned level, FILE *to) {
    char text[512];
    int in = (int)(level < 40 ? level : 40) * 4;
    heist_future_repr(g->future, text, sizeof(text));
    fprintf(to, "%*s* %s\n", in, "", text);
    if (g->flags & HEIST_CALL_GRAPH_CYCLE) fprintf(to, "%*s  + a cycle: it stands below already\n", in, "");
    if (g->flags & HEIST_CALL_GRAPH_KNOWN) fprintf(to, "%*s  + its awaiters: see above\n", in, "");
    if (g->flags) return;
    if (g->frame_count == -EBUSY) fprintf(to, "%*s  + runs at this moment\n", in, "");
    if (g->frame_count > 0) fprintf(to, "%*s  + Call stack:\n", in, "");
    for (int i = 0; i < g->frame_count; i++) {
        heist_describe_address(g->frames[i], 1, text, sizeof(text));
        fprintf(to, "%*s  |   %s\n", in, "", text);
    }
    if (g->awaiters || g->threads) fprintf(to, "%*s  + Awaited by:\n", in, "");
    if (g->threads) fprintf(to, "%*s    * %u plain thread%s\n", in, "", g->threads, g->threads == 1 ? "" : "s");
}

int heist_print_call_graph(heist_future *f, int depth, int limit, FILE *to) {
    heist_call_graph *g;
    int err = capture(f, depth, limit, __builtin_return_address(0), &g);
    if (err || !g) return err;
    if (!to) to = stderr;
    struct capture *c = g->whole;
    int cycle = 0;
    /* Depth first: down to the first awaiter, else on to the next of the nearest that has one. */
    unsigned level = 0;
    for (size_t at = 0;;) {
        g = &c->nodes[at];
        print_node(g, level, to);
        cycle |= !!(g->flags & HEIST_CALL_GRAPH_CYCLE);
        if (g->awaiters) {
            at = g->first;
            level++;
            continue;
        }
        while (at && at + 1 == c->nodes[c->nodes[at].parent].first + c->nodes[c->nodes[at].parent].awaiters) {
            at = c->nodes[at].parent;
            level--;
        }
        if (!at) break;
        at++;
    }
    capture_free(c);
    return cycle;
}

/* ---- links by hand ---- */

struct link {
    struct heist__waiter waiter; /* its awaiter: one reference */
};

static void link_ended(struct heist__waiter *w, heist_future *f) {
    (void)f;
    heist_unref(w->awaiter);
    heist__free(heist_container_of(w, struct link, waiter));
}

int heist_future_discard_from_awaited_by(heist_future *f, heist_future *awaiter) {
    if (!f || !awaiter) return 0;
    if (heist__forked()) return HEIST_EFORKED;
    struct heist__waiter *w = heist__future_take_hook(f, link_ended, awaiter);
    if (w) link_ended(w, f);
    return 0;
}

int heist_future_add_to_awaited_by(heist_future *f, heist_future *awaiter) {
    if (!f || !awaiter) return 0;
    if (heist__forked()) return HEIST_EFORKED;
    struct link *l = heist__alloc(sizeof(*l));
    if (!l) return -ENOMEM;
    int err = heist_future_discard_from_awaited_by(f, awaiter); /* one of a kind */
    l->waiter.kind = HEIST__WAIT_HOOK;
    l->waiter.hook = link_ended;
    l->waiter.awaiter = heist_ref(awaiter);
    if (!heist__future_add_waiter(f, &l->waiter)) link_ended(&l->waiter, f);
    return err;
}
