/* The timer store: a pairing heap that keeps equal deadlines in the order of adding.
 *
 * Shape.  A tree in which no child is due before its parent; the children of a node are
 * a list, first to last.  Read the tree from the top, each node before its children and
 * those first to last: call that the reading order.
 *
 *   Invariant E: of two timers with equal deadlines, the one that was added first comes
 *   first in the reading order.
 *
 * The root has the smallest deadline and is first in the reading order, so by E it is the
 * oldest of those with that deadline: exactly who must leave.
 *
 * Joining two trees A, B, of which A stands before B in the reading order:
 *   A's root is due before B's or at the same instant: B becomes A's *last* child.  The
 *     reading order is A B as before.
 *   B's root is due before A's: A becomes B's *first* child.  Only B's root moved forward,
 *     over the nodes of A, none of which has its deadline: all are later.  E holds.
 * Adding joins (all, new): the new one stands last, and is the youngest.  Taking the root,
 * or any node x, out joins the trees of its children, neighbours only, into one, which
 * takes the place that x had among its siblings: nothing is later than its new parent,
 * and the reading order of the rest is unchanged.  So E needs no sequence number, and
 * the node stays at 40 bytes with nothing beside it.
 *
 * Cost.  Adding is constant; taking a node out costs as many joins as it has children, in
 * the long run O(log n) each; a timer that is cancelled before its turn is a leaf or
 * nearly one.  Timers that are added in the order of their deadlines (one time-out for
 * all, or one deadline for all) become children in that order, and the first removal
 * leaves a chain with one or two children to each node: constant from then on.
 *
 * Measured against a 4-ary array heap of {deadline, sequence, node} in slots of 24 bytes (gcc 12 -O2, a
 * 2-core virtual machine, ns for each operation):
 *
 *                                                      this    4-ary
 *   arm and cancel beside 10,000 others                  11       13
 *   the same, when it is the earliest                     4       65
 *   10,000 armed, the oldest cancelled and re-armed      13       50
 *   10,000 armed, any cancelled and re-armed             22       21
 *   10,000 armed, the earliest taken and re-armed       155       66
 *   1,000,000 of one deadline, armed and taken (ms)       8      100
 *   1,000,000 of random deadlines, taken (ms)           770      270
 *
 * Most timers are time-outs that are cancelled, so this one is kept, and for what it never does: run out
 * of memory, or copy an array under the lock.  Its weak side: the first removal after n were armed looks
 * at all n children once (23 us for 10,000, 3 ms for 1,000,000).
 */
#include "loop/timers.h"

#include "base/macros.h"

/* B becomes the last child of A. */
static inline void append_child(struct heist__timer *a, struct heist__timer *b) {
    struct heist__timer *first = a->child;
    b->next = a;
    b->last = true;
    if (!first) {
        a->child = b;
        b->prev = b;
        return;
    }
    struct heist__timer *last = first->prev;
    last->next = b;
    last->last = false;
    b->prev = last;
    first->prev = b;
}

/* B becomes the first child of A. */
static inline void prepend_child(struct heist__timer *a, struct heist__timer *b) {
    struct heist__timer *first = a->child;
    a->child = b;
    if (!first) {
        b->next = a;
        b->last = true;
        b->prev = b;
        return;
    }
    b->next = first;
    b->last = false;
    b->prev = first->prev;
    first->prev = b;
}

/* One tree of two neighbours, `before` first in the reading order. */
static inline struct heist__timer *join(struct heist__timer *before, struct heist__timer *after) {
    if (before->deadline_ns <= after->deadline_ns) {
        append_child(before, after);
        return before;
    }
    prepend_child(after, before);
    return after;
}

/* One tree of a list of siblings, or NULL.  First pairs of neighbours are joined from left to right, then
 * the pairs from right to left: the two passes that give the bound. */
static struct heist__timer *join_siblings(struct heist__timer *first) {
    struct heist__timer *pairs = NULL; /* a stack of those made, linked by prev, the last on top */
    while (first) {
        struct heist__timer *a = first, *b = NULL;
        first = a->last ? NULL : a->next;
        if (first) {
            b = first;
            first = b->last ? NULL : b->next;
        }
        a = b ? join(a, b) : a;
        a->prev = pairs;
        pairs = a;
    }
    struct heist__timer *tree = pairs;
    if (!tree) return NULL;
    pairs = tree->prev;
    while (pairs) {
        struct heist__timer *before = pairs;
        pairs = before->prev;
        tree = join(before, tree);
    }
    return tree;
}

static void make_root(struct heist__timers *ts, struct heist__timer *t) {
    ts->root = t;
    if (!t) return;
    t->next = t->prev = NULL;
    t->last = false;
}

/* Puts `tree`, which stands in no list, where the child x stands. */
static void replace_child(struct heist__timer *x, struct heist__timer *tree) {
    struct heist__timer *last = x->last ? x : NULL;
    bool first = x->prev->last; /* only the first has the last behind it, the last of one included */
    if (first) {
        last = x->prev;
        last->next->child = tree;
    }
    tree->last = x->last;
    tree->next = x->next;
    if (first && last == x) {
        tree->prev = tree; /* the only one */
        return;
    }
    tree->prev = x->prev;
    if (!first) x->prev->next = tree;
    if (!x->last) x->next->prev = tree;
    else x->next->child->prev = tree; /* the first child looks back at the last */
}

/* Takes the child x, which has no children, out of its siblings. */
static void unlink_child(struct heist__timer *x) {
    bool first = x->prev->last;
    if (x->last) {
        struct heist__timer *parent = x->next;
        if (first) {
            parent->child = NULL;
            return;
        }
        x->prev->last = true;
        x->prev->next = parent;
        parent->child->prev = x->prev;
    } else {
        if (first) x->prev->next->child = x->next;
        else x->prev->next = x->next;
        x->next->prev = x->prev;
    }
}

static void made_idle(struct heist__timers *ts, struct heist__timer *t) {
    t->child = t->next = t->prev = NULL;
    t->armed = t->last = false;
    ts->count--;
}

int heist__timers_add(struct heist__timers *ts, struct heist__timer *t, int64_t deadline_ns) {
    t->deadline_ns = deadline_ns;
    t->child = t->next = t->prev = NULL;
    t->armed = true;
    t->last = false;
    ts->count++;
    make_root(ts, ts->root ? join(ts->root, t) : t);
    return 0;
}

void heist__timers_put_back(struct heist__timers *ts, struct heist__timer *t) {
    t->child = t->next = t->prev = NULL;
    t->armed = true;
    t->last = false;
    ts->count++;
    make_root(ts, ts->root ? join(t, ts->root) : t); /* it stands before all others in the reading order */
}

bool heist__timers_remove(struct heist__timers *ts, struct heist__timer *t) {
    if (!t->armed) return false;
    struct heist__timer *tree = join_siblings(t->child);
    if (t == ts->root) make_root(ts, tree);
    else if (tree) replace_child(t, tree);
    else unlink_child(t);
    made_idle(ts, t);
    return true;
}

struct heist__timer *heist__timers_pop_due(struct heist__timers *ts, int64_t now_ns) {
    struct heist__timer *t = ts->root;
    if (!t || t->deadline_ns > now_ns) return NULL;
    make_root(ts, join_siblings(t->child));
    made_idle(ts, t);
    return t;
}
