/* Complete, await, cancel and the last reference of tasks and futures (src/task/state.h, complete.c,
 * park.h, cancel.c, and the commits of src/sched/await.c and suspend.c).
 *
 * A task T awaits a future F, with a plain await or (-DUNTIL) with a deadline that may pass at any time
 * or never; then it makes one more suspending call and ends.  F is a task asleep that is woken at some time
 * or never, or (-DPLAIN) a future that somebody sets or never sets.  A canceller may cancel T.  With -DSECOND
 * another task awaits F too; with -DWALK somebody looks at all objects.  Everybody drops its reference when it is done with it; the memory of F is
 * born again as a stranger's at any time after its death (the slab is type-stable).
 *
 * One step is one sequentially consistent operation.  The store of `awaiting` may stay in a store buffer
 * until the read-modify-write of add_waiter (a_store_before_rmw).  What a task's worker does after it
 * published the task runs beside the task, which may have been resumed elsewhere.
 *
 * Claims: a waiter is woken once for each wait, and only when it has left its stack and is parked; what it
 * awaited is then done (plain await) or soon will be; a node on a waiter's stack is not touched after the
 * waiter went on; no object is used after the last reference went, and it is freed once; a request is
 * delivered once: to a suspending call of T, or on to F, or it stands at the end; the stranger is not
 * cancelled; when nothing moves any more T has ended, for its request was not lost.
 *
 * Run:
 * verify
 * verify -DUNTIL
 * verify -DPLAIN
 * verify -DPLAIN -DUNTIL
 * verify -DSECOND
 * verify -DWALK
 *
 * mutant WAKE_BEFORE_DONE   publish makes the waiters ready before the word is DONE
 * mutant NODE_AFTER_WAKE    publish reads the node of a waiter after it woke it (UNTIL)
 * mutant EARLY_WAKES        publish wakes a waiter that it claimed before its commit (UNTIL)
 * mutant COMMIT_STORES      park_commit is a store (UNTIL)
 * mutant CLAIM_ARMING       deadlines and cancellers claim a waiter that is not parked yet (UNTIL)
 * mutant NO_WITHDRAW        a waiter whose deadline passed leaves its node in the list (UNTIL)
 * mutant NO_LOOK            the commit does not look for a request after it published the task
 * mutant LOOK_EARLY         the commit looks for a request before it publishes the task (UNTIL)
 * mutant AWAITING_LATE      `awaiting` is stored after the look
 * mutant AWAITING_BUFFERED  `awaiting` is stored without a barrier before the look
 * mutant REQUEST_LATE       the canceller looks where the task waits before it sets the request
 * mutant NO_SECOND_LOOK     the canceller trusts its reference to F without a second look at `awaiting`
 * mutant NO_GIVE_BACK       a request that could not be delivered is not set again
 * mutant NO_TAKE            a request is delivered without taking it (UNTIL)
 * mutant NO_CLAIM           completers of a plain future do not claim it (PLAIN)
 * mutant TRY_REF_DONE       try_ref takes a reference to a done future
 * mutant UNREF_PENDING      the last holder frees a pending future without a locked operation (PLAIN UNTIL WALK)
 * mutant DROP_THEN_DONE     the completer drops its reference before it sets F_DONE */

#define T 0
#define F 1
#define NONE 2

/* waiters: what stands in the word */
#define EMPTY 0
#define SINGLE 1
#define LIST 2
#define DONE 3

/* park */
#define IDLE 0
#define ARMING 1
#define PARKED 2
#define CODE_OK 0
#define CODE_TIMEDOUT 1
#define CODE_CANCELED 2

byte refs[2];
bool f_done[2], dead[2], reborn;
bool completing; /* F's */
byte waiters[2];
bool locked[2];
bool linked[2];  /* in F's list: the node of T, the node of the second */
bool node[2];    /* that node stands on a stack that is left */
byte park[2], code[2];
byte awaiting = NONE; /* T's */
bool awaiting_unseen;
bool pending[2];
bool ready[2];        /* T, F: in a queue */
bool second_ready;
bool commit_asked, timer_armed, timer_lock;
byte requested, delivered, forwarded;
bool t_ended, second_ended;

#define alive(f) assert(!dead[f])

inline dispose(f) { atomic { alive(f); dead[f] = true } }

inline unref(f) {
    alive(f);
    if
#ifdef UNREF_PENDING
    :: refs[f] == 1 -> dispose(f)
    :: atomic { refs[f] != 1 -> refs[f]--; x = refs[f] == 0 }
#else
    :: refs[f] == 1 && f_done[f] -> dispose(f)
    :: atomic { !(refs[f] == 1 && f_done[f]) -> alive(f); refs[f]--; x = refs[f] == 0 }
#endif
        if :: x -> x = false; dispose(f) :: else fi
    fi
}

inline try_ref(f, ok) {
    atomic {
        if
#ifdef TRY_REF_DONE
        :: !dead[f] && refs[f] > 0 -> refs[f]++; ok = true
#else
        :: !dead[f] && refs[f] > 0 && !f_done[f] -> refs[f]++; ok = true
#endif
        :: else -> ok = false
        fi
    }
}

/* The waker's part: the task is taken up by a worker. */
inline wake(t) { atomic { assert(!ready[t]); ready[t] = true } }

inline claim_parked(t, c, ok) {
    atomic {
        if
#ifdef CLAIM_ARMING
        :: park[t] != IDLE ->
#else
        :: park[t] == PARKED ->
#endif
            park[t] = IDLE; code[t] = c; ok = true
        :: else -> ok = false
        fi
    }
}

/* ---- complete.c ---- */

inline lock_waiters(f, found_done) {
    atomic {
        !locked[f];
        if
        :: waiters[f] == DONE -> found_done = true
        :: else -> locked[f] = true; found_done = false
        fi
    }
}

inline see_awaiting(w) { /* a read-modify-write empties the store buffer */
#ifdef AWAITING_BUFFERED
    skip
#else
    if
    :: w == 0 && awaiting_unseen -> awaiting_unseen = false; awaiting = F
    :: else
    fi
#endif
}

/* w: whose node, 0 T's, 1 the second's */
inline add_waiter(w, single, ok) {
    if
    :: atomic { waiters[F] == EMPTY && !locked[F] ->
            alive(F);
            see_awaiting(w);
            waiters[F] = (single -> SINGLE : LIST);
            linked[w] = true;
            ok = true
        }
    :: atomic { waiters[F] != EMPTY || locked[F] -> alive(F); see_awaiting(w) }
        lock_waiters(F, x);
        if
        :: x -> x = false; ok = false
        :: else ->
            atomic { assert(!linked[1 - w] || node[1 - w]); linked[w] = true; waiters[F] = LIST; locked[F] = false; ok = true }
        fi
    fi
}

inline remove_waiter(w) {
    lock_waiters(F, x);
    if
    :: x -> x = false
    :: else ->
        atomic {
            assert(!linked[1 - w] || node[1 - w]);
            linked[w] = false;
            waiters[F] = (linked[1 - w] -> LIST : EMPTY);
            locked[F] = false
        }
    fi
}

inline finish(f, drop) {
#ifdef DROP_THEN_DONE
    atomic { alive(f); refs[f] = refs[f] - drop; x = refs[f] == 0 }
    atomic { alive(f); f_done[f] = true }
#else
    atomic { alive(f); f_done[f] = true; refs[f] = refs[f] - drop; x = refs[f] == 0 && drop > 0 }
#endif
    if :: x -> x = false; dispose(f) :: else fi
}

inline wake_waiter(w) {
    if
    :: w == 0 -> wake(T)
    :: else -> atomic { assert(!second_ready); second_ready = true }
    fi
}

/* heist__future_publish of F */
inline publish(drop) {
    do
    ::
        alive(F);
        if
        :: atomic { !locked[F] && waiters[F] != LIST ->
                assert(waiters[F] != DONE);
                woken = waiters[F] == SINGLE;
#ifndef WAKE_BEFORE_DONE
                waiters[F] = DONE
#endif
            }
            if
            :: woken ->
                atomic { who = (linked[0] -> 0 : 1); assert(node[who]); linked[who] = false }
            :: else
            fi;
#ifdef WAKE_BEFORE_DONE
            if :: woken -> wake_waiter(who) :: else fi;
            waiters[F] = DONE;
            finish(F, drop);
#else
            finish(F, drop);
            if :: woken -> wake_waiter(who) :: else fi;
#endif
            break
        :: locked[F] || waiters[F] == LIST ->
            lock_waiters(F, x);
            assert(!x);
            who = 0;
            do
            :: who < 2 ->
                if
                :: linked[who] ->
                    atomic {
                        assert(node[who]);
                        linked[who] = false;
#ifdef UNTIL
                        if
                        :: who == 0 -> /* a PARK */
                            if
                            :: park[T] != IDLE ->
#ifdef EARLY_WAKES
                                to_wake[0] = true;
#else
                                to_wake[0] = park[T] == PARKED;
#endif
                                park[T] = IDLE; code[T] = CODE_OK
                            :: else
                            fi
                        :: else -> to_wake[1] = true
                        fi
#else
                        to_wake[who] = true
#endif
                    }
                :: else
                fi;
                who++
            :: else -> break
            od;
            atomic { alive(F); refs[F]++ }
            atomic { alive(F); waiters[F] = DONE; locked[F] = false }
            finish(F, drop);
            who = 0;
            do
            :: who < 2 ->
                if
                :: to_wake[who] ->
                    assert(node[who]);
                    wake_waiter(who);
#ifdef NODE_AFTER_WAKE
                    assert(node[who]);
#endif
                    to_wake[who] = false
                :: else
                fi;
                who++
            :: else -> break
            od;
            unref(F);
            break
        fi
    od
}

/* ---- cancel.c ---- */

inline take(t, ok) { atomic { ok = pending[t]; pending[t] = false } }
#ifdef NO_GIVE_BACK
#define give_back(t) skip
#else
#define give_back(t) pending[t] = true
#endif

/* The request of F: false when it is done. */
inline request_f(ok) {
    atomic {
        alive(F);
        assert(!reborn);
        if
        :: waiters[F] == DONE -> ok = false
        :: else -> pending[F] = true; ok = true
        fi
    }
}

/* deliver_here(t): next is the future that the request goes on to, with a reference */
inline deliver_here(t) {
    do
    ::
        next = NONE;
#ifndef REQUEST_LATE
        if :: !pending[t] -> break :: else fi;
#endif
        if
        :: park[t] == PARKED ->
#ifdef NO_TAKE
            ok = true;
#else
            take(t, ok);
#endif
            if :: !ok -> break :: else fi;
            claim_parked(t, CODE_CANCELED, ok);
            if
            :: ok -> wake(t); break
            :: else -> give_back(t)
            fi
        :: else ->
            if
            :: t == F -> break
            :: else ->
#ifdef CLAIM_ARMING
                claim_parked(t, CODE_CANCELED, ok);
                if :: ok -> pending[t] = false; wake(t); break :: else fi;
#endif
                next = awaiting;
                if :: next == NONE -> break :: else fi;
                try_ref(F, ok);
                if
                :: !ok -> if :: awaiting == F -> next = NONE; break :: else fi
                :: else ->
#ifndef NO_SECOND_LOOK
                    if
                    :: awaiting != F -> unref(F)
                    :: else ->
#else
                    if
                    :: true ->
#endif
                        take(t, ok);
                        if
                        :: ok -> break
                        :: else -> unref(F); next = NONE; break
                        fi
                    fi
                fi
            fi
        fi
    od
}

/* heist__cancel_deliver(T): T, then what it awaits */
inline deliver() {
    do
    ::
        deliver_here(T);
        if :: next == NONE -> break :: else fi;
#ifdef PLAIN
        atomic {
            alive(F); assert(!reborn);
#ifdef NO_CLAIM
            ok = waiters[F] != DONE;
#else
            ok = !completing; completing = true
#endif
        }
        if :: ok -> forwarded++; publish(0) :: else fi;
#else
        request_f(ok);
        if :: ok -> forwarded++ :: else fi;
#endif
        if
        :: !ok -> unref(F); give_back(T)
        :: else ->
#ifndef PLAIN
            deliver_here(F);
#endif
            unref(F);
            break
        fi
    od
}

proctype canceller() {
    byte next = NONE, who;
    bool ok, x, woken, to_wake[2];
    /* It holds a reference to T from the start. */
#ifdef REQUEST_LATE
    if
    :: waiters[T] != DONE -> deliver_here(T); next = NONE; pending[T] = true; requested++
    :: true
    fi;
#else
    atomic {
        alive(T);
        if
        :: waiters[T] != DONE -> pending[T] = true; requested++
        :: true /* done, or nobody cancels */
        fi
    }
    if :: requested -> deliver() :: else fi;
#endif
    unref(T)
}

/* ---- T, and the worker's stack below it ---- */

inline look_for_request() {
    if
    :: pending[T] ->
        try_ref(T, ok);
        if :: ok -> deliver(); unref(T) :: else fi
    :: else
    fi
}

proctype commit() {
    byte next = NONE, who;
    bool ok, x, woken, to_wake[2];
    commit_asked;
#ifdef UNTIL
    park[T] = ARMING;
#ifdef LOOK_EARLY
    look_for_request();
#endif
    add_waiter(0, false, ok);
    if
    :: !ok -> atomic { park[T] = IDLE; code[T] = CODE_OK; wake(T) }
    :: else ->
        if
        :: timer_armed = true
        :: skip /* the deadline is far */
        fi;
        atomic {
#ifdef COMMIT_STORES
            ok = true; park[T] = PARKED
#else
            ok = park[T] == ARMING;
            if :: ok -> park[T] = PARKED :: else fi
#endif
        }
        if
        :: !ok -> wake(T)
        :: else
#if !defined(NO_LOOK) && !defined(LOOK_EARLY)
            ; look_for_request()
#endif
        fi
    fi
#else
#ifndef AWAITING_LATE
    awaiting_unseen = true; /* stored, in the store buffer; seen at the latest with the next read-modify-write */
#endif
    add_waiter(0, true, ok);
    if
    :: !ok -> atomic { awaiting_unseen = false; awaiting = NONE } wake(T)
    :: else
#ifndef NO_LOOK
        ; look_for_request()
#endif
#ifdef AWAITING_LATE
        ; awaiting = F
#endif
    fi
#endif
}

proctype task_t() {
    byte next = NONE, who;
    bool ok, x, woken, to_wake[2];
    /* the await */
#ifdef UNTIL
    take(T, ok); /* every suspending call looks first */
    if
    :: ok -> delivered++
    :: else ->
        if
        :: waiters[F] == DONE
        :: else ->
            atomic { node[0] = true; commit_asked = true }
            atomic { ready[T] -> ready[T] = false }
            atomic { !timer_lock -> timer_armed = false }
            if
            :: code[T] != CODE_OK ->
#ifndef NO_WITHDRAW
                remove_waiter(0);
#endif
                if :: code[T] == CODE_CANCELED -> delivered++ :: else fi
            :: else -> waiters[F] == DONE /* claimed early: DONE comes next */
            fi;
            node[0] = false
        fi
    fi;
#else
    if
    :: waiters[F] == DONE -> take(T, ok); if :: ok -> delivered++ :: else fi
    :: else ->
        atomic { node[0] = true; commit_asked = true }
        atomic { ready[T] -> ready[T] = false; node[0] = false }
        atomic { awaiting_unseen = false; awaiting = NONE }
        alive(F);
        assert(waiters[F] == DONE)
    fi;
#endif
    unref(F);
    /* one more suspending call, that need not wait; then the end */
    take(T, ok);
    if :: ok -> delivered++ :: else fi;
    atomic { alive(T); waiters[T] = DONE }
    finish(T, 1);
    t_ended = true
}

#ifdef UNTIL
proctype timer() {
    bool ok;
    do
    :: atomic { timer_armed && !timer_lock -> timer_lock = true }
        claim_parked(T, CODE_TIMEDOUT, ok);
        if :: park[T] != ARMING -> timer_armed = false :: else fi; /* else it stays armed */
        timer_lock = false;
        if :: ok -> wake(T) :: else fi
    :: atomic { t_ended -> break }
    od
}
#endif

/* ---- F ---- */

proctype future_f() {
    byte next = NONE, who;
    bool ok, x, woken, to_wake[2];
#ifdef PLAIN
    /* somebody sets it, or never does, and drops its reference */
    if
    ::
        atomic {
#ifdef NO_CLAIM
            ok = waiters[F] != DONE;
#else
            ok = !completing; completing = true
#endif
        }
        if :: ok -> publish(0) :: else fi
    :: skip
    fi;
    unref(F)
#else
    if
    :: true -> atomic { ready[F] -> ready[F] = false } /* cancelled, or never woken */
    :: claim_parked(F, CODE_OK, ok); /* its sleep is over */
        if
        :: !ok -> atomic { ready[F] -> ready[F] = false }
        :: else
        fi
    fi;
    publish(1)
#endif
}

#ifdef WALK
proctype walker() { /* over all tasks and futures, at any time */
    bool ok, x;
    try_ref(F, ok);
    if :: ok -> unref(F) :: else fi
}
#endif

#ifdef SECOND
proctype second() {
    byte next = NONE, who;
    bool ok, x, woken, to_wake[2];
    if
    :: waiters[F] == DONE
    :: else ->
        node[1] = true;
        add_waiter(1, true, ok);
        if
        :: ok -> atomic { second_ready -> second_ready = false; node[1] = false }
        :: else -> node[1] = false
        fi
    fi;
    alive(F);
    assert(waiters[F] == DONE);
    unref(F)
}
#endif

proctype memory() {
end:
    do
    :: atomic { awaiting_unseen -> awaiting_unseen = false; awaiting = F }
    :: atomic { dead[F] && !reborn ->
            reborn = true; dead[F] = false; refs[F] = 1; f_done[F] = false; completing = false;
            waiters[F] = EMPTY; pending[F] = false; park[F] = IDLE
        }
    od
}

proctype judge() {
    byte total;
    atomic {
        timeout;
        assert(t_ended || (!requested && waiters[F] != DONE));
        total = delivered + forwarded + pending[T];
        assert(total == requested)
    }
}

init {
    atomic {
        refs[T] = 2; /* its own, and the canceller's */
        refs[F] = 2; /* its own or its setter's, and T's */
#ifndef PLAIN
        park[F] = PARKED;
#endif
#ifdef SECOND
        refs[F]++;
        run second();
#endif
#ifdef WALK
        run walker();
#endif
#ifdef UNTIL
        run timer();
#endif
        run canceller(); run commit(); run task_t(); run future_f(); run memory(); run judge()
    }
}
