/* The stealing deque (src/conc/deque.h, deque.c) on weak memory: one owner, NT thieves.
 *
 * The memory is a view machine, not an interleaving of one store.  Each location keeps every value ever
 * stored, numbered in the order of the stores.  Each thread has a view: the number of the oldest store of
 * each location that it may still read.  A load returns any store from there on; a release store carries
 * its thread's view along, an acquire load takes it over; a seq_cst load returns no store older than the
 * last seq_cst one of its location; a read-modify-write reads the newest.  So loads and stores of
 * different locations are seen out of order wherever C11 permits it, store buffers included.  (The idea:
 * Kang, Hur, Lahav, Vafeiadis, Dreyer, "A promising semantics for relaxed-memory concurrency", 2017.)
 * A store that is moved before an earlier load is tried for the one place where it matters, make_room.
 * Not covered: all seq_cst steps stand in the order of their execution, so happens-before is part of the
 * order S as in C11; the weaker S of C++20 differs where seq_cst and acquire are mixed on one location.
 *
 * Claims, for the bounds below: each item that was pushed is taken once or still stands in the deque; who
 * takes it sees what the owner wrote to it before the push; no cell is read that was not written; no
 * retired buffer is read after it was freed.
 *
 * Run:
 * verify -DPUSHES=3 -DPOPS=2 -DSTEALS=2
 *
 * mutant PUSH_RLX         push: bottom is stored relaxed
 * mutant PUSH_ORDER       push: bottom is stored before the cell
 * mutant PUSH_NO_CHECK    push: the look for room is off by one
 * mutant ROOM_RLX         make_room: top is loaded relaxed, so the store of the cell may pass it
 * mutant GROW_RLX         grow: the new buffer is stored relaxed
 * mutant GROW_FREES       grow: the old buffer is freed at once
 * mutant GROW_SHORT       grow: the copy stops before the newest item
 * mutant POP_STORE_REL    pop: bottom is stored with release instead of seq_cst
 * mutant POP_LOAD_ACQ     pop: top is loaded with acquire instead of seq_cst
 * mutant POP_ORDER        pop: top is loaded before bottom is stored
 * mutant POP_NO_CAS       pop: the last item is taken without the exchange
 * mutant POP_NO_RESTORE   pop: bottom is not put back after a lost race for the last item
 * mutant TOP_NO_CAS       pop_top: top is stored instead of exchanged
 * mutant STEAL_BOTTOM_ACQ steal: bottom is loaded with acquire instead of seq_cst
 * mutant STEAL_ORDER      steal: bottom is loaded before top
 * mutant STEAL_BUF_RLX    steal: buf is loaded relaxed
 * mutant STEAL_NO_CAS     steal: the item is taken whether or not the exchange won */

#ifndef NT
#define NT 2 /* thieves */
#endif
#ifndef STEALS
#define STEALS 2 /* attempts of all thieves together */
#endif
#ifndef PUSHES
#define PUSHES 3
#endif
#ifndef POPS
#define POPS 2
#endif

/* Buffer 0 has 2 cells, buffer 1 has 4. */
#define CELLS 6
#define BUF0_MASK 1
#define BUF1_MASK 3
#define CELL_AT(buf, i) ((buf) * 2 + ((i) & ((buf) * 2 + 1)))
#define MASK_OF(buf) ((buf) * 2 + 1)
#define BOTTOMS 10 /* stores of bottom: one for each push, two for each pop, the first */
#define CELL_STORES 4

typedef view {
    byte top;
    byte bottom;
    byte buf;
    byte cell[CELLS];
    byte data; /* the items whose contents are seen, one bit each */
};
view me[NT + 1];

/* top: only exchanges write it, each adds one, so that the number of a store is its value. */
byte top_last, top_sc;
view top_view[PUSHES + 2];
/* bottom, buf, cells: only the owner writes. */
byte bottom_last, bottom_sc;
byte bottom_value[BOTTOMS];
view bottom_view[BOTTOMS];
byte buf_last; /* also its value */
view buf_view[2];
typedef stores {
    byte last;
    byte value[CELL_STORES]; /* 0: never written */
};
stores cell[CELLS];

byte pushed, taken; /* items, one bit each; item i is 1 << (i - 1) of both */
bool bad, impossible, freed;
byte steals_left = STEALS;
byte done;

inline join(to, from) {
    if :: to.top < from.top -> to.top = from.top :: else fi;
    if :: to.bottom < from.bottom -> to.bottom = from.bottom :: else fi;
    if :: to.buf < from.buf -> to.buf = from.buf :: else fi;
    k = 0;
    do
    :: k < CELLS ->
        if :: to.cell[k] < from.cell[k] -> to.cell[k] = from.cell[k] :: else fi;
        k++
    :: else -> break
    od;
    to.data = to.data | from.data;
    k = 0
}

/* Some number from lo to hi, into x. */
inline some(x, lo, hi) {
    x = lo;
    do
    :: x < hi -> x++
    :: break
    od
}

inline larger(x, a, b) { x = (a > b -> a : b) }

inline load_top_rlx(x) { atomic { some(x, me[id].top, top_last); me[id].top = x } }
inline load_top_acq(x) { atomic { some(x, me[id].top, top_last); join(me[id], top_view[x]) } }
inline load_top_sc(x) {
    atomic {
        larger(k, me[id].top, top_sc);
        some(x, k, top_last);
        join(me[id], top_view[x])
    }
}

/* top: expected -> expected + 1; won; on failure x is what was found.  seq_cst. */
inline cas_top_sc(x, won) {
    atomic {
        if
        :: x == top_last ->
            join(me[id], top_view[x]);
            top_last++;
            me[id].top = top_last;
            join(top_view[top_last], me[id]);
            top_sc = top_last;
            won = true
        :: else ->
            larger(k, me[id].top, top_sc);
            if :: k == x -> k++ :: else fi;
            some(x, k, top_last);
            join(me[id], top_view[x]);
            won = false
        fi
    }
}

inline store_bottom(v, release, seq_cst) {
    atomic {
        bottom_last++;
        assert(bottom_last < BOTTOMS);
        bottom_value[bottom_last] = v;
        me[id].bottom = bottom_last;
        if
        :: release -> join(bottom_view[bottom_last], me[id])
        :: else -> bottom_view[bottom_last].bottom = bottom_last
        fi;
        if :: seq_cst -> bottom_sc = bottom_last :: else fi
    }
}

inline store_cell(at, v) {
    atomic {
        cell[at].last++;
        assert(cell[at].last < CELL_STORES);
        cell[at].value[cell[at].last] = v;
        me[id].cell[at] = cell[at].last
    }
}

/* An item goes to this thread. */
inline take(item) {
    atomic {
        if
        :: item == 0 -> bad = true /* a cell that was never written */
        :: else ->
            if :: taken & (1 << (item - 1)) -> bad = true :: else fi;
            if :: !(me[id].data & (1 << (item - 1))) -> bad = true :: else fi;
            taken = taken | (1 << (item - 1))
        fi;
        item = 0
    }
}

#define own_cell(i) cell[CELL_AT(buf_last, i)].value[cell[CELL_AT(buf_last, i)].last]

inline grow() {
    atomic { /* the owner's own reads and writes; the copies become visible one by one through their numbers */
        assert(buf_last == 0);
        i = t;
        do
#ifdef GROW_SHORT
        :: i + 1 < b ->
#else
        :: i < b ->
#endif
            cell[CELL_AT(1, i)].last++;
            cell[CELL_AT(1, i)].value[cell[CELL_AT(1, i)].last] = cell[CELL_AT(0, i)].value[cell[CELL_AT(0, i)].last];
            me[id].cell[CELL_AT(1, i)] = cell[CELL_AT(1, i)].last;
            i++
        :: else -> break
        od;
        i = 0;
        buf_last = 1;
        me[id].buf = 1;
#ifdef GROW_RLX
        buf_view[1].buf = 1;
#else
        join(buf_view[1], me[id]);
#endif
#ifdef GROW_FREES
        freed = true
#endif
    }
}

/* heist__deque_push */
inline push() {
    atomic {
        pushes++;
        item = pushes;
        pushed = pushed | (1 << (item - 1));
        me[id].data = me[id].data | (1 << (item - 1));
        b = bottom_value[bottom_last];
        early = false
    }
    if
#ifdef PUSH_NO_CHECK
    :: b - top_seen > MASK_OF(buf_last) + 1 ->
#else
    :: b - top_seen > MASK_OF(buf_last) ->
#endif
#ifdef ROOM_RLX
        if /* the store of the cell is moved up, in the hope that there will be room */
        :: early = true; store_cell(CELL_AT(buf_last, b), item)
        :: skip
        fi;
        load_top_rlx(t);
#else
        load_top_acq(t);
#endif
        top_seen = t;
        if
        :: b - t > MASK_OF(buf_last) ->
            if
            :: early -> impossible = true; goto finished
            :: else -> grow()
            fi
        :: else
        fi
    :: else
    fi;
#ifdef PUSH_ORDER
    store_bottom(b + 1, true, false);
    store_cell(CELL_AT(buf_last, b), item);
#else
    if
    :: early
    :: else -> store_cell(CELL_AT(buf_last, b), item)
    fi;
#ifdef PUSH_RLX
    store_bottom(b + 1, false, false);
#else
    store_bottom(b + 1, true, false);
#endif
#endif
    atomic { item = 0; t = 0; b = 0; early = false }
}

/* heist__deque_pop_top */
inline pop_top() {
    b = bottom_value[bottom_last];
    load_top_rlx(t);
    do
    :: t < b ->
        item = own_cell(t);
#ifdef TOP_NO_CAS
        atomic {
            top_last = (top_last > t + 1 -> top_last : t + 1);
            join(top_view[top_last], me[id]);
            won = true
        }
#else
        cas_top_sc(t, won);
#endif
        if
        :: won -> top_seen = t + 1; take(item); break
        :: else -> item = 0
        fi
    :: else -> top_seen = t; break
    od;
    atomic { t = 0; b = 0; won = false }
}

/* heist__deque_pop */
inline pop() {
    b = bottom_value[bottom_last];
    load_top_rlx(t);
    if
    :: b <= t + 1 -> pop_top()
    :: else ->
        b--;
#ifdef POP_ORDER
        load_top_sc(t);
        store_bottom(b, true, true);
#else
#ifdef POP_STORE_REL
        store_bottom(b, true, false);
#else
        store_bottom(b, true, true);
#endif
#ifdef POP_LOAD_ACQ
        load_top_acq(t);
#else
        load_top_sc(t);
#endif
#endif
        top_seen = t;
        if
        :: t < b -> item = own_cell(b); take(item)
        :: else ->
            if
            :: t == b ->
                item = own_cell(b);
#ifdef POP_NO_CAS
                won = true;
#else
                cas_top_sc(t, won);
#endif
                if
                :: won -> take(item)
                :: else -> item = 0
                fi
            :: else
            fi;
#ifdef POP_NO_RESTORE
            if
            :: won -> store_bottom(b + 1, true, false)
            :: else
            fi;
#else
            store_bottom(b + 1, true, false);
#endif
            top_seen = b + 1
        fi
    fi;
    atomic { t = 0; b = 0; won = false }
}

active proctype owner() {
    byte pushes, pops, top_seen, b, t, item, i, k;
    bool won, early;
    byte id = 0;
    do
    :: pushes < PUSHES -> push()
    :: pops < POPS -> pops++; pop()
    :: pops < POPS -> pops++; pop_top()
    :: pushes == PUSHES && pops == POPS -> break
    od;
finished:
    done++
}

inline load_bottom(x, number, seq_cst) {
    atomic {
        if
        :: seq_cst -> larger(k, me[id].bottom, bottom_sc)
        :: else -> k = me[id].bottom
        fi;
        some(number, k, bottom_last);
        join(me[id], bottom_view[number]);
        x = bottom_value[number];
        number = 0
    }
}

active [NT] proctype thief() {
    byte t, b, buf, item, at, n, k;
    bool won;
    byte id = _pid; /* the owner is 0 */
    do
    :: atomic { steals_left > 0 -> steals_left-- };
#ifdef STEAL_ORDER
        load_bottom(b, n, true);
        load_top_sc(t);
#else
        load_top_sc(t);
#ifdef STEAL_BOTTOM_ACQ
        load_bottom(b, n, false);
#else
        load_bottom(b, n, true);
#endif
#endif
        if
        :: t < b ->
            atomic {
                some(buf, me[id].buf, buf_last);
#ifdef STEAL_BUF_RLX
                me[id].buf = buf
#else
                join(me[id], buf_view[buf])
#endif
            }
            atomic {
                at = CELL_AT(buf, t);
                if :: buf == 0 && freed -> bad = true :: else fi;
                some(n, me[id].cell[at], cell[at].last);
                item = cell[at].value[n];
                me[id].cell[at] = n;
                n = 0
            }
            cas_top_sc(t, won);
            if
#ifndef STEAL_NO_CAS
            :: !won -> item = 0
#endif
            :: else -> take(item)
            fi
        :: else
        fi;
        atomic { t = 0; b = 0; buf = 0; item = 0; at = 0; won = false }
    :: steals_left == 0 -> break
    od;
    done++
}

/* What was not taken stands in the deque, at its place. */
active proctype judge() {
    byte i, left;
    atomic {
        done == NT + 1;
        i = top_last;
        do
        :: i < bottom_value[bottom_last] ->
            if
            :: own_cell(i) == 0 -> bad = true
            :: else ->
                if :: left & (1 << (own_cell(i) - 1)) -> bad = true :: else fi;
                left = left | (1 << (own_cell(i) - 1))
            fi;
            i++
        :: else -> break
        od;
        if :: (left | taken) != pushed || (left & taken) -> bad = true :: else fi;
        assert(impossible || !bad)
    }
}
