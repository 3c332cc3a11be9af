/* How workers fall asleep and are woken (src/sched/idle.c, src/loop/loop.h, the proof in
 * src/sched/README.md), with N workers and SUBMITTERS threads from outside that hand in ITEMS things,
 * each a task for the injection queue or a callback for some loop's inbox.  Both may make a task
 * (MAKES in all).  With -DSENTINEL the sleeps of sentinels end by themselves at any time, and one of them
 * may never end (a stuck worker).  With -DFROM_IDLE all sleep deeply when it begins.
 *
 * One step is one sequentially consistent operation.  What is weaker: a push on a worker's own deque is a
 * release store, so it stays in a store buffer, unseen by the others, until the worker's next
 * read-modify-write or any later time.  The deque itself has a model of its own (deque.pml); here it is a
 * count.  The injection queue and the inboxes are counts too (take: all at once).  STACK_ALONE is 1 as in
 * the source, QUEUE_ALONE 1 instead of what a worker keeps (1 to 64), LINGER_LOOKS 1 instead of 7; the look before sleep (spin) only
 * delays, and is left out.
 *
 * Claims when nothing can move any more (Spin's `timeout`):
 *   all that was submitted or made has run (what stands behind a stuck task on its own worker too, if any
 *   other worker is left; but callbacks of its loop stay);
 *   every worker that is not stuck is asleep, none is counted as searching, `sleepers` and `sentinels` are
 *   right.
 * That a sentinel which looks again and again helps in the end is not claimed: the claims are about standing still.
 *
 * Run:
 * verify -DITEMS=2 -DSUBMITTERS=1 -DMAKES=0
 * verify -DITEMS=1 -DSUBMITTERS=1 -DMAKES=1
 * verify -DITEMS=1 -DSUBMITTERS=1 -DMAKES=1 -DSENTINEL -DFROM_IDLE
 *
 * mutant LOOK_FIRST        the look comes before the announcement
 * mutant LOOK_NO_INJECT    the look leaves the injection queue out
 * mutant LOOK_NO_INBOX     the look leaves the inbox out
 * mutant SEARCH_LATE       a searcher lowers `searching` after its look
 * mutant ANNOUNCE_REL      `sleeping` is stored with release: it may pass the look
 * mutant PUSH_REL          the injection is a release store: it may pass the waker's looks
 * mutant WAKE_FIRST        loop_push looks at the sleeper before it pushes
 * mutant WAKER_NO_RECHECK  a waker that found nobody asleep does not look at the injection queue again (SUBMITTERS=2)
 * mutant TAKE_STORE        a waker takes ASLEEP by a load and a store
 * mutant UNANNOUNCE_DROPS  the sleeper forgets that its waker counted it as searching
 * mutant STOLE_EDGE        rescue takes the owner's edge and does not signal again (MAKES=1 SENTINEL FROM_IDLE)
 * mutant NO_SENTINEL       nobody looks after the others (MAKES=1 SENTINEL FROM_IDLE)
 * mutant NO_TO_WATCH       who gets up where there is no sentinel calls none (MAKES=1 SENTINEL FROM_IDLE)
 * mutant WATCH_AFTER_SLEEP … only when it had slept (ITEMS=2 MAKES=1 SENTINEL FROM_IDLE DEPTH=330) */

#ifndef N
#define N 2
#endif
#ifndef SUBMITTERS
#define SUBMITTERS 1
#endif
#ifndef ITEMS
#define ITEMS 1 /* of each submitter */
#endif
#ifndef MAKES
#define MAKES 0
#endif
#define STACK_ALONE 1
#define QUEUE_ALONE 1
#define LINGER_LOOKS 1
#define SENTINELS 2

#define AWAKE 0
#define ASLEEP 1
#define TO_SEARCH 2
#define TO_WATCH 3

byte inject, inject_unseen;
byte inbox[N];
byte queue[N];
byte stack[N], stack_seen[N]; /* as the owner knows it; as the others see it */
byte sleeping[N];
bool sleeping_unseen[N];      /* only the mutant: ASLEEP stands in the store buffer */
bool edge[N];                 /* the wake-up descriptor */
byte sleepers, searching, sentinels;
bool stuck[N], deep[N];
bool moved[N];                /* since somebody looked last */

byte submitted, made, ran, stuck_left;

inline drain(w) { /* the store buffer of a worker */
    d_step { stack_seen[w] = stack[w]; if :: sleeping_unseen[w] -> sleeping[w] = ASLEEP; sleeping_unseen[w] = false :: else fi }
}

/* ---- wakers ---- */

inline take_sleeper(v, leave, won) {
#ifdef TAKE_STORE
    atomic { won = sleeping[v] == ASLEEP };
    if :: won -> sleeping[v] = leave :: else fi
#else
    atomic { /* the load before the exchange only saves the exchange */
        if
        :: sleeping[v] == ASLEEP -> sleeping[v] = leave; won = true
        :: else -> won = false
        fi
    }
#endif
}

inline loop_wake(v) {
    take_sleeper(v, AWAKE, won);
    if :: won -> atomic { edge[v] = true; won = false } :: else fi
}

inline wake_searcher() {
    do
    ::
        if :: searching > 0 -> break :: else fi;
        if :: sleepers == 0 -> break :: else fi;
        atomic {
            if
            :: searching == 0 -> searching = 1
            :: else -> break
            fi
        }
        do
        :: x < N && !won -> take_sleeper(x, TO_SEARCH, won); if :: won -> atomic { edge[x] = true } :: else -> x++ fi
        :: else -> x = 0; break
        od;
        if :: won -> won = false; break :: else fi;
        searching--;
#ifdef WAKER_NO_RECHECK
        break
#else
        if :: inject == 0 -> break :: else fi;
        do
        :: x < N && sleeping[x] != ASLEEP -> x++
        :: else -> break
        od;
        if :: x == N -> x = 0; break :: else -> x = 0 fi
#endif
    od
}

active [SUBMITTERS] proctype submitter() {
    byte left = ITEMS, x, target;
    bool won, first;
#ifdef FROM_IDLE
    sleepers == N;
#endif
    do
    :: left > 0 ->
        if
        ::
#ifdef PUSH_REL
            atomic { left--; submitted++; inject_unseen++ }
#else
            atomic { left--; submitted++; inject++ }
#endif
            wake_searcher()
        ::
            atomic { left--; do :: target + 1 < N -> target++ :: break od }
#ifdef WAKE_FIRST
            loop_wake(target);
            atomic { submitted++; inbox[target]++; target = 0 }
#else
            atomic { submitted++; first = inbox[target] == 0; inbox[target]++ }
            if :: first -> first = false; loop_wake(target) :: else fi;
            target = 0
#endif
        fi
    :: else -> break
    od
}

/* ---- a worker ---- */

inline move(w) {
#ifdef SENTINEL
    moved[w] = true
#else
    skip
#endif
}

/* heist__ready of a task that the running one made */
inline ready(w) {
    d_step { made++; stack[w]++ }
    if
    :: sleepers > 0 && searching == 0 && stack[w] > STACK_ALONE -> drain(w); wake_searcher()
    :: else
    fi
}

/* A task or callback runs, to its end or for ever. */
inline step(w) {
    if
    :: made < MAKES -> ready(w)
    :: skip
    fi;
#ifdef SENTINEL
    if
    :: atomic { stuck_left > 0 -> stuck_left--; stuck[w] = true; drain(w) }
        false
    :: skip
    fi
#endif
}

/* steal_from: one task of the stack, else of the queue, but not those that the victim is about to run itself;
 * from one that is stuck everything */
inline steal_from(w, v, stands) {
    atomic {
        if
        :: stands && (stack_seen[v] > 0 || queue[v] > 0) ->
            stack[v] = stack[v] - stack_seen[v]; stack[w] = stack[w] + stack_seen[v]; stack_seen[v] = 0;
            queue[w] = queue[w] + queue[v]; queue[v] = 0;
            got = true
        :: !stands && stack_seen[v] > STACK_ALONE -> stack[v]--; stack_seen[v]--; stack[w]++; got = true
        :: !stands && stack_seen[v] <= STACK_ALONE && queue[v] > QUEUE_ALONE -> queue[v]--; queue[w]++; got = true
        :: else
        fi
    }
}

inline look(w) { /* something_came; the owner's own counts are still */
    atomic { came = stack[w] > 0 || queue[w] > 0 };
#ifndef LOOK_NO_INBOX
    if :: !came -> atomic { came = inbox[w] > 0 } :: else fi;
#endif
#ifndef LOOK_NO_INJECT
    if :: !came -> atomic { came = inject > 0 } :: else fi;
#endif
#if MAKES > 0 || ITEMS > 1 || SUBMITTERS > 1
    if
    :: !came -> atomic {
            do
            :: x < N -> came = came || queue[x] > QUEUE_ALONE || stack_seen[x] > STACK_ALONE; x++
            :: else -> x = 0; break
            od
        }
    :: else
    fi
#endif
}

inline help_stuck(w, runs) {
    v = 0;
    do
    :: v < N && v == w -> v++
    :: v < N && v != w ->
        atomic { stood = !moved[v] && sleeping[v] != ASLEEP; moved[v] = false }
        if
        :: stood ->
            steal_from(w, v, true);
            if /* rescue: the poll may take the owner's edge */
            :: edge[v] ->
                edge[v] = false;
#ifndef STOLE_EDGE
                edge[v] = true
#endif
            :: else
            fi
        :: !stood && !runs && queue[v] > 1 && sleeping[v] != ASLEEP ->
            atomic { if :: queue[v] > 0 -> queue[v]--; queue[w]++; got = true :: else fi }
        :: else
        fi;
        atomic { helped = helped || got; got = false; v++; stood = false }
    :: v == N -> v = 0; break
    od
}

inline call_watcher(w) {
    do
    :: x < N && !won ->
        if :: x != w -> take_sleeper(x, TO_WATCH, won) :: else fi;
        if :: won -> atomic { edge[x] = true } :: else -> x++ fi
    :: else -> atomic { x = 0; won = false } break
    od
}

/* sleep_time, after all timers: deep, or as a sentinel */
inline sleep_time(w) {
    atomic { all_asleep = sleepers == N; if :: !all_asleep -> lingers = 0 :: else fi }
#ifndef NO_SENTINEL
    if
    :: lingers < LINGER_LOOKS ->
        atomic {
            if
            :: sentinels < SENTINELS ->
                sentinels++; sentinel = true;
                if :: all_asleep -> lingers++ :: else fi
            :: else
            fi
        }
    :: else
    fi;
#endif
    all_asleep = false
}

active [N] proctype worker() {
    byte w = _pid - SUBMITTERS, x, v, was, steps, lingers;
    bool counted, won, came, got, helped, stood, sentinel, all_asleep, owes, up_at_once, idle, timed_out;
#ifdef FROM_IDLE
    atomic { sleepers++; sleeping[w] = ASLEEP; lingers = LINGER_LOOKS; goto poll }
#endif
    do
    ::
        /* heist__worker_turn */
        atomic { steps = inbox[w]; inbox[w] = 0; ran = ran + steps }
        atomic {
            if :: inject > 0 -> queue[w] = queue[w] + inject; drain(w); inject = 0 :: else fi;
            if
            :: edge[w] -> if :: edge[w] = false :: skip fi /* a poll of this turn, where there are descriptors */
            :: else
            fi
        }
        if
        :: counted && (steps > 0 || queue[w] > 0 || stack[w] > 0) ->
            atomic { drain(w); counted = false; searching--; came = searching == 0 }
            if :: came -> came = false; if :: sleepers > 0 -> wake_searcher() :: else fi :: else fi
        :: else
        fi;
#ifdef SENTINEL
        if
        :: owes && (steps > 0 || queue[w] > 0 || stack[w] > 0) -> /* heist__watch_handed_on */
            owes = false;
            if :: sentinels == 0 -> call_watcher(w) :: else fi
        :: else
        fi;
#endif
        if :: queue[w] > QUEUE_ALONE && sleepers > 0 -> wake_searcher() :: else fi;
        if :: steps > 0 -> move(w); step(w) :: else fi; /* callbacks may make tasks, and may be stuck */
        do
        :: atomic { queue[w] > 0 -> queue[w]--; ran++; steps = 1; move(w) } step(w)
        :: atomic { queue[w] == 0 && stack[w] > 0 -> stack[w]--; drain(w); ran++; steps = 1; move(w) } step(w)
        :: atomic { queue[w] == 0 && stack[w] == 0 -> break }
        od;
        if
        :: steps > 0 ->
            steps = 0;
#if defined(SENTINEL) && !defined(NO_SENTINEL)
            if /* heist__look_after_others, now and then */
            :: atomic { sentinels == 0 -> skip } help_stuck(w, true); helped = false
            :: skip
            fi
#endif
        :: else ->
            /* heist__search */
            if
            :: !counted ->
                atomic {
                    x = searching;
                    if
                    :: 2 * x >= N && x > 0 -> x = 1 /* enough of them search */
                    :: else -> x = 0
                    fi
                }
                if :: x == 0 -> atomic { drain(w); searching++; counted = true } :: else -> x = 0 fi
            :: else
            fi;
            if
            :: counted ->
                do
                :: v < N && !got -> if :: v != w -> steal_from(w, v, false) :: else fi; v++
                :: else -> v = 0; break
                od;
                if :: !got -> atomic { got = inject > 0 } :: else fi;
                if :: !got -> atomic { got = inbox[w] > 0 } :: else fi
            :: else
            fi;
            if
            :: got -> got = false
            :: else ->
                /* heist__sleep, sleep_once */
                do
                ::
#ifdef LOOK_FIRST
                    look(w);
#endif
                    atomic { drain(w); sleepers++ }
#ifdef ANNOUNCE_REL
                    sleeping_unseen[w] = true;
#else
                    sleeping[w] = ASLEEP;
#endif
#ifndef SEARCH_LATE
                    if :: counted -> atomic { drain(w); counted = false; searching-- } :: else fi;
#endif
#ifndef LOOK_FIRST
                    look(w);
#endif
#ifdef SEARCH_LATE
                    if :: counted -> atomic { drain(w); counted = false; searching-- } :: else fi;
#endif
                    if
                    :: came ->
#ifdef SENTINEL
                        up_at_once = true;
#endif
                        came = false
                    :: else ->
#ifdef SENTINEL
                        owes = false;
                        sleep_time(w);
#endif
poll:
                        if
                        :: sentinel -> atomic { drain(w); timed_out = !edge[w]; edge[w] = false }
                        :: else ->
                            atomic { drain(w); deep[w] = true }
                            atomic { edge[w] -> edge[w] = false; deep[w] = false }
                        fi
                    fi;
                    atomic { drain(w); was = sleeping[w]; sleeping[w] = AWAKE }
                    sleepers--;
#ifdef SENTINEL
                    if
                    :: sentinel ->
                        atomic { sentinels--; sentinel = false }
                        if
                        :: was == ASLEEP && timed_out -> help_stuck(w, false); idle = !helped; helped = false
                        :: else
                        fi;
                        timed_out = false
                    :: else
                    fi;
#ifndef NO_TO_WATCH
                    if
#ifdef WATCH_AFTER_SLEEP
                    :: !idle && was != TO_WATCH && !up_at_once && sentinels == 0 -> call_watcher(w)
#else
                    :: !idle && was != TO_WATCH && sentinels == 0 -> call_watcher(w)
#endif
                    :: else
                    fi;
#endif
                    up_at_once = false;
                    if :: was == TO_WATCH -> owes = true :: else fi;
#endif
#ifndef UNANNOUNCE_DROPS
                    if :: was == TO_SEARCH -> counted = true :: else fi;
#endif
                    was = AWAKE;
                    if :: idle -> idle = false :: else -> break fi
                od
            fi
        fi
    od
}

/* Store buffers drain at any time. */
active proctype memory() {
    byte w;
end:
    do
    :: atomic { inject_unseen > 0 -> inject = inject + inject_unseen; inject_unseen = 0 }
    :: atomic { w = 0; do :: w + 1 < N -> w++ :: break od; stack_seen[w] != stack[w] || sleeping_unseen[w] -> drain(w); w = 0 }
    od
}

active proctype judge() {
    byte w, stood, left, kept;
    bool free_worker;
#ifdef SENTINEL
    stuck_left = 1;
#endif
    atomic {
        timeout;
        do
        :: w < N ->
            if
            :: stuck[w] -> stood++; kept = kept + inbox[w]
            :: else -> assert(deep[w] && sleeping[w] == ASLEEP); free_worker = true; left = left + inbox[w]
            fi;
            left = left + stack[w] + queue[w];
            w++
        :: else -> break
        od;
        assert(sleepers == N - stood && searching == 0 && sentinels == 0);
        if
        :: free_worker -> assert(inject == 0 && left == 0 && ran + kept == submitted + made)
        :: else
        fi
    }
end: false
}
