/* The loop of a worker: a turn of its loop's steps, tasks between, sleep when there is nothing.
 *
 * Read aloud: the worker takes what came from outside, looks at descriptors and timers
 * when it is time, runs the callbacks that are due, runs up to 64 task steps; when all
 * that gave nothing it searches among the others, and when that gives nothing, sleeps.
 *
 * Who is next among unpinned tasks: those that stand in `queue` (first in, first out:
 * woken by descriptors, timers, other threads), then up to 8 from the bottom of `stack`
 * (made or woken last: their data is warm), and so on by turns, so that a fork-join tree
 * holds no request up and a flood of requests no tree.  Each 1024th of `stack` comes from
 * its top, so that nobody starves behind a pair that wakes each other.  (Each 64th cost a
 * fork-join tree thousands of live stacks: the top is the root of the biggest branch.) */
#include "sched/step.h"
#include "task/context.h"

static heist_task *take(struct heist__deque *d, bool alone, bool top) {
    if (heist__deque_empty(d)) return NULL;
    if (alone) return top ? heist__deque_pop_top_alone(d) : heist__deque_pop_alone(d);
    return top ? heist__deque_pop_top(d) : heist__deque_pop(d);
}

/* Steps of `stack` between two rounds of `queue`, and how long they may take beside descriptors or timers. */
#define STACK_STEPS 8
#define STACK_NS 200000

/* One step, and what runs in place within it: how many tasks ran. */
static inline __attribute__((always_inline)) unsigned step_of(struct heist__worker *w, struct heist__deque *d, bool top,
                                                              unsigned in_place) {
    heist_task *t = take(d, w->alone, top);
    if (!t) return 0;
    w->in_place = in_place;
    heist__step(w, t);
    in_place -= w->in_place;
    w->in_place = 0; /* callbacks and steps of pinned tasks have none */
    return 1 + in_place;
}

/* What it will have done within KEEP_NS a worker keeps to itself, up to KEEP_MAX tasks of its queue: another that
 * gets up for less takes a processor from somebody (with the load beside it, from the load), and half of the
 * events, and is late with them when it loses its own.  The pace is measured now and then. */
#define KEEP_NS 250000
#define KEEP_MAX 64
#define PACE_TURNS 16

static void note_pace(struct heist__worker *w, unsigned ran, int64_t elapsed) {
    unsigned keeps = a_load_rlx(&w->keeps); /* rlx, as all of it: a heuristic; only we write it */
    int64_t done = elapsed > 0 ? KEEP_NS * (int64_t)ran / elapsed : KEEP_MAX;
    unsigned now = done < 1 ? 1 : done > KEEP_MAX ? KEEP_MAX : (unsigned)done;
    /* One slow turn may be the machine's doing, a fast one is not. */
    a_store_rlx(&w->keeps, now >= keeps ? now : keeps - (keeps - now + 3) / 4);
}

/* Those that stand in the queue now: short steps, mostly, that somebody outside waits for. */
static unsigned run_queue(struct heist__worker *w) {
    size_t waiting = heist__deque_size(&w->queue);
    if (!waiting) return 0;
    if (waiting > HEIST__TURN_STEPS) waiting = HEIST__TURN_STEPS;
    int64_t begin = 0;
    bool measured = ++w->pace_turns % PACE_TURNS == 0;
    if (measured) begin = heist__clock_now(&(struct heist__clock){0});
    unsigned ran = 0, more;
    while (waiting-- && (more = step_of(w, &w->queue, true, HEIST__IN_PLACE_TIMED))) ran += more;
    if (measured && ran) note_pace(w, ran, heist__clock_now(&(struct heist__clock){0}) - begin);
    return ran;
}

/* The share of the others: some steps, all of a turn when nobody waits in the queue. */
static unsigned run_stack(struct heist__worker *w, bool timed) {
    int64_t end = 0;
    unsigned ran = 0, look = 0, more;
    while (ran < HEIST__TURN_STEPS && (ran < STACK_STEPS || heist__deque_empty(&w->queue))) {
        bool oldest = heist_unlikely(++w->picks % 1024 == 0);
        if (timed && ran >= look) { /* steps may be long, and somebody waits for the turn's end */
            look = ran + 4;
            int64_t now = heist__clock_now(&(struct heist__clock){0});
            if (!end)
                end = now + STACK_NS;
            else if (now >= end)
                break;
        }
        if (!(more = step_of(w, &w->stack, oldest, timed ? HEIST__IN_PLACE_TIMED : HEIST__IN_PLACE))) break;
        ran += more;
    }
    return ran;
}

/* Steps between two looks at what else there is to do, within a turn. */
#define LOOK_STEPS 8

static unsigned run_tasks(struct heist__worker *w) {
    heist_loop *loop = w->loop;
    bool timed = a_load_rlx(&loop->watched) || a_load_rlx(&loop->armed); /* rlx: see loop.h */
    unsigned ran = 0, round, look = LOOK_STEPS;
    do {
        round = run_queue(w);
        if (!heist__deque_empty(&w->stack)) round += run_stack(w, timed);
        ran += round;
        if (ran >= look) { /* steps may be long: who came from outside does not wait for all of a turn */
            look = ran + LOOK_STEPS;
            if (!heist__mpsc_empty(&w->rt->inject) || !heist__mpsc_empty(&loop->inbox) || heist__time_to_look(w)) break;
        }
    } while (round && ran < HEIST__TURN_STEPS && !timed);
    loop->since_poll += timed && ran ? HEIST__TURN_STEPS : ran;
    return ran;
}

/* Takes all that came from outside into the own queue, oldest first. */
static bool take_injected(struct heist__worker *w) {
    heist_runtime *rt = w->rt;
    if (heist__mpsc_empty(&rt->inject)) return false;
    size_t n = 0;
    for (struct heist__mpsc_node *node = heist__mpsc_take(&rt->inject), *next; node; node = next, n++) {
        next = node->next;
        heist_task *t = heist_container_of(node, heist_task, job.node);
        if (heist_unlikely(heist__deque_push(&w->queue, t))) { /* no memory: back, for another turn */
            heist__mpsc_push(&rt->inject, node);
            if (next) continue;
        }
    }
    a_store_rlx(&w->injected, a_load_rlx(&w->injected) + n); /* rlx: a count; only we write it */
    return n > 0;
}

/* A worker that runs looks at its descriptors after each turn.  But while a backlog of short steps waits, only after
 * some turns: who became ready now would stand behind it, and when his turn came the caches would have forgotten what
 * the event had them fetch (heist__reg_expect): with 1,000 connections that was an eighth of each request. */
#define BACKLOG 16
#define BACKLOG_TURNS 4

static bool time_to_poll(struct heist__worker *w) {
    unsigned steps = w->loop->since_poll;
    if (heist_likely(steps < HEIST__TURN_STEPS)) return false;
    return steps >= BACKLOG_TURNS * HEIST__TURN_STEPS || heist__deque_size(&w->queue) < BACKLOG ||
           a_load_rlx(&w->keeps) < BACKLOG; /* rlx: see note_pace; steps are long */
}

bool heist__worker_turn(struct heist__worker *w, int64_t timeout_ns) {
    heist_loop *loop = w->loop;
    a_store_rlx(&w->turns, a_load_rlx(&w->turns) + 1); /* rlx: for the sentinel; only we write it */
    heist__loop_take_inbox(loop);
    if (heist_likely(!w->spare) || w->relieves) take_injected(w);
    w->polling = true;
    bool nothing_ready = !loop->ready.count && heist__deque_empty(&w->stack) && heist__deque_empty(&w->queue);
    if (nothing_ready && timeout_ns) {
        heist__loop_poll(loop, timeout_ns);
        heist__loop_take_inbox(loop);
    } else if (a_load_rlx(&loop->watched) && (nothing_ready || time_to_poll(w))) { /* rlx: see loop.h */
        heist__loop_poll(loop, 0);
    }
    heist__loop_fire_timers(loop);
    w->polling = false;
    if (heist_unlikely(w->spare)) heist__spare_turn(w);
    /* Before work is run: the others may be needed for what lies beside it. */
    if ((w->searching || w->owes_watch) &&
        (loop->ready.count || !heist__deque_empty(&w->stack) || !heist__deque_empty(&w->queue))) {
        if (w->searching) heist__search_ended(w);
        if (w->owes_watch) heist__watch_handed_on(w);
    }
    size_t ran = heist__loop_run_ready(loop);
    if (heist_unlikely(loop->fatal)) return true;
    if (!w->alone && heist__deque_size(&w->queue) > a_load_rlx(&w->keeps) && /* rlx: as in ready */
        a_load_rlx(&w->rt->sleepers) > 0)
        heist__wake_searcher(w->rt, -1);
    ran += run_tasks(w);
    return ran || loop->ready.count;
}

void heist__worker_enter(struct heist__worker *w) {
    struct heist__self *self = heist__self();
    self->worker = w;
    self->loop = w->loop;
    self->task = NULL;
    w->self = self;
    heist__host_init(&w->host);
    if (!w->rt->alone) a_store_rel(&w->loop->running, HEIST__RUNS); /* rel: pairs with is_running; else run.c took it */
    heist__loop_log(w->loop, "loop %p starts", (void *)w->loop);
}

void heist__worker_leave(struct heist__worker *w) {
    struct heist__self *self = heist__self();
    heist__loop_log(w->loop, "loop %p stops", (void *)w->loop);
    if (self->stray.vars) heist__scope_forget(self);
    self->worker = NULL;
    self->loop = NULL;
    w->self = NULL;
    a_store_rel(&w->loop->running, HEIST__NOBODY); /* rel: last, for another thread may run the loop from here on */
}

void heist__worker_run(struct heist__worker *w) {
    heist_runtime *rt = w->rt;
    for (;;) {
        bool ran = heist__worker_turn(w, 0);
        if (heist_unlikely(w->loop->fatal)) { /* ends heist_run; a runtime on its own threads goes on */
            if (rt->fatal_ends) {
                a_store_sc(&rt->fatal, w->loop->fatal);
                heist__closing_begin(rt);
            }
            w->loop->fatal = 0;
        }
        if (heist_unlikely(a_load_rlx(&rt->closing)) && heist__closing_turn(w)) return; /* rlx: looked at each turn */
        if (!ran && !heist__search(w))
            heist__sleep(w);
        else
            heist__look_after_others(w);
    }
}
