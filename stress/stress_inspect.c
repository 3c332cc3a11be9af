/* stress/stress_inspect.c: looking at everything while everything moves.
 *
 * Law: who looks changes nothing and is told the truth.  The stack of a task that stands still holds the frames that it
 * noted itself, in their order, however often, from wherever and with whatever limit it is looked at; every address of
 * the stack of any task is an address of code; a task that stands on another's stack shows its own frames only.  A
 * promise on which n tasks stand has those n as awaiters, with the links that were added by hand and not taken back.
 * Nothing is left when all has ended, and what is looked at comes to its end as if nobody looked.
 * Threads: the workers of one or two runtimes; lookers (plain threads and tasks); main.
 * Invariant: a statue's notes are written before it stands, and read by lookers that saw `stands` set. */
#include "common.h"

#include <errno.h>
#include <unistd.h>

#define STATUES 24
#define MOVERS 32
#define LOOKERS 6
#define DEEPEST 12
#define FRAMES 64

struct statue {
    heist_future *promise; /* on which it stands */
    heist_task *under;     /* or which it awaits: another statue */
    struct statue *makes;  /* the same, made by itself: that one stands on its stack, if nothing prevents it */
    bool follows, counted; /* awaits the one before; stands on its promise itself */
    int depth;
    void *notes[DEEPEST + 1];
    int count;
    _Atomic(bool) stands;
    heist_task *task;
};

static struct statue statues[STATUES];
static heist_future *promises[2];
static int statue_count, on_promise[2];
static _Atomic(bool) over;
static _Atomic(uint64_t) looks, told, busy, graphs, dumps, moves;

/* ---- statues ---- */

static int dive(struct statue *s, int depth);
static int statue_body(void *arg, void **out);
static int (*volatile dive_again)(struct statue *s, int depth) = dive;

STRESS_NOINLINE static int dive(struct statue *s, int depth) {
    volatile char room[48];
    room[depth % 48] = (char)depth;
    s->notes[s->count++] = __builtin_return_address(0);
    int err;
    if (depth > 1) {
        err = dive_again(s, depth - 1);
    } else {
        if (s->makes) {
            err = heist_create_task(statue_body, s->makes, NULL, &s->makes->task);
            if (err) stress_die("no task");
            s->under = s->makes->task;
        }
        s_publish(&s->stands, true);
        err = heist_await(s->under ? (heist_future *)s->under : s->promise, NULL);
    }
    stress_check(room[depth % 48] == (char)depth, "a frame was written to");
    return err;
}

static int statue_body(void *arg, void **out) {
    struct statue *s = arg;
    (void)out;
    return dive_again(s, s->depth);
}

static void check_statue(struct statue *s, void *const *frames, int n) {
    int at = 0;
    while (at < n && frames[at] != s->notes[s->count - 1]) at++;
    for (int i = s->count - 1; i >= 0 && at < n; i--, at++)
        stress_check(frames[at] == s->notes[i], "frame %d of a statue of %d is not where it stands", i, s->count);
    /* What is cut off is cut off at the outer end. */
    stress_check(n == FRAMES || n - at <= 8, "a statue of %d shows %d frames: another's?", s->count, n);
    stress_check(n == FRAMES || at >= s->count, "a statue of %d shows %d frames and not all of its own", s->count, n);
}

/* ---- movers ---- */

static int child(void *arg, void **out) {
    struct stress_rng r = *(struct stress_rng *)arg;
    (void)out;
    free(arg);
    return stress_chance(&r, 50) ? heist_yield() : stress_chance(&r, 50) ? 0 : heist_sleep(1e-5);
}

STRESS_NOINLINE static int move(struct stress_rng *r, int depth) {
    volatile char room[256];
    room[depth] = (char)depth;
    int err = 0;
    if (depth < 8 && stress_chance(r, 50)) {
        err = move(r, depth + 1);
    } else if (stress_chance(r, 30)) {
        err = heist_yield();
    } else if (stress_chance(r, 30)) {
        err = heist_sleep((double)stress_below(r, 100) * 1e-6);
    } else {
        heist_task *t[3];
        int n = 0, wanted = 1 + (int)stress_below(r, 3);
        for (; n < wanted && !err; n++) {
            struct stress_rng *own = stress_alloc(sizeof(*own));
            *own = stress_stream(r, stress_next(r));
            err = heist_create_task(child, own, NULL, &t[n]);
            if (err) free(own);
            if (err) break;
        }
        if (!err) err = stress_chance(r, 50) ? heist_gather(t, (size_t)n, NULL, 0) : heist_await(t[n - 1], NULL);
        for (int i = 0; i < n; i++) heist_unref(t[i]);
    }
    stress_check(room[depth] == (char)depth, "a frame was written to");
    return err;
}

static int mover_body(void *arg, void **out) {
    struct stress_rng r = *(struct stress_rng *)arg;
    (void)out;
    while (!s_get(&over)) {
        int err = move(&r, 0);
        if (err) return err;
        s_add(&moves, 1);
        stress_progress(1);
    }
    return 0;
}

/* ---- lookers ---- */

static void check_addresses(void *const *frames, int n) {
    char name[256];
    for (int i = 0; i < n; i++) {
        heist_describe_address(frames[i], 1, name, sizeof(name));
        stress_check(name[0] != '0', "frame %d of %d is no code: %s", i, n, name);
    }
}

static void look_at_statue(struct stress_rng *r) {
    struct statue *s = &statues[stress_below(r, (uint64_t)statue_count)];
    if (!s_observe(&s->stands)) return;
    void *frames[FRAMES];
    int n = heist_task_get_stack(s->task, frames, FRAMES);
    s_add(&looks, 1);
    if (n == -EBUSY) { /* it has said that it stands, and is on its way */
        s_add(&busy, 1);
        return;
    }
    stress_check(n > 0, "the stack of a statue: %s", heist_error_name(n));
    if (n <= 0) return;
    s_add(&told, 1);
    check_statue(s, frames, n);
    check_addresses(frames, n);
    int most = 1 + (int)stress_below(r, 8);
    void *some[8];
    int m = heist_task_get_stack(s->task, some, most);
    stress_check(m == -EBUSY || (m == (n < most ? n : most) && !memcmp(some, frames, (size_t)m * sizeof(void *))),
                 "with a limit of %d the stack is another one", most);
}

static void look_at_all(struct stress_rng *r, heist_runtime *rt) {
    heist_task **list;
    size_t count;
    int err = heist_runtime_all_tasks(rt, &list, &count);
    stress_check(err == 0 || err == -ENOMEM, "all_tasks answered %s", heist_error_name(err));
    if (err) return;
    for (size_t i = 0; i < count; i++) {
        if (!stress_chance(r, 50)) continue;
        void *frames[FRAMES];
        int n = heist_task_get_stack(list[i], frames, FRAMES);
        s_add(&looks, 1);
        if (n) s_add(n > 0 ? &told : &busy, 1);
        stress_check(n >= 0 || n == -EBUSY, "a stack: %s", heist_error_name(n));
        check_addresses(frames, n);
    }
    heist_task_list_free(list, count);
}

static void look_at_promise(struct stress_rng *r) {
    int which = (int)stress_below(r, 2);
    heist_call_graph *g;
    int stood = 0;
    for (int i = 0; i < statue_count; i++) {
        if (!statues[i].counted || statues[i].promise != promises[which]) continue;
        void *frame[1]; /* suspended for sure */
        stood += s_observe(&statues[i].stands) && heist_task_get_stack(statues[i].task, frame, 1) == 1;
    }
    int err = heist_capture_call_graph(promises[which], (int)stress_below(r, 3), 0, &g);
    stress_check(err == 0, "a graph: %s", heist_error_name(err));
    if (err) return;
    s_add(&graphs, 1);
    int tasks = 0;
    for (size_t i = 0; i < heist_call_graph_awaiters(g); i++)
        tasks += heist_future_is_task(heist_call_graph_future(heist_call_graph_awaiter(g, i)));
    stress_check(tasks >= stood && tasks <= on_promise[which], "%d tasks stood on a promise, the graph shows %d of %d",
                 stood, tasks, on_promise[which]);
    heist_call_graph_free(g);
}

static void link_by_hand(struct stress_rng *r) {
    heist_future *own;
    if (heist_future_new(NULL, &own)) return;
    struct statue *s = &statues[stress_below(r, (uint64_t)statue_count)];
    if (s_observe(&s->stands)) {
        int err = heist_future_add_to_awaited_by(own, s->task);
        heist_call_graph *g;
        stress_check(err == 0, "a link: %s", heist_error_name(err));
        if (!err && !heist_capture_call_graph(own, 0, 1, &g)) {
            stress_check(heist_call_graph_awaiters(g) == 1 &&
                             heist_call_graph_future(heist_call_graph_awaiter(g, 0)) == s->task,
                         "a link by hand does not show");
            heist_call_graph_free(g);
        }
        if (stress_chance(r, 30)) heist_future_discard_from_awaited_by(own, s->task);
        if (stress_chance(r, 50)) heist_future_set_result(own, NULL, NULL);
    }
    heist_unref(own);
}

static void dump(struct stress_rng *r) {
    char *text = NULL;
    size_t length = 0;
    FILE *to = open_memstream(&text, &length);
    if (!to) return;
    int answer = heist_dump((int)stress_below(r, 4), to);
    stress_check(answer == 0, "a dump answered %s", answer > 0 ? "that there is a cycle" : heist_error_name(answer));
    fclose(to);
    stress_check(length > 0, "a dump is empty");
    free(text);
    s_add(&dumps, 1);
}

struct looker {
    heist_runtime *rt;
    struct stress_rng r;
    bool plain;
};

static void look_once(struct looker *l) {
    switch (stress_below(&l->r, 12)) {
        case 0: look_at_all(&l->r, l->rt); break;
        case 1: look_at_promise(&l->r); break;
        case 2: link_by_hand(&l->r); break;
        case 3:
            if (stress_chance(&l->r, 20)) dump(&l->r);
            break;
        default: look_at_statue(&l->r); break;
    }
    stress_progress(1);
}

static void *look_thread(void *arg) {
    struct looker *l = arg;
    while (!s_get(&over)) look_once(l);
    return NULL;
}

static int look_body(void *arg, void **out) {
    struct looker *l = arg;
    (void)out;
    while (!s_get(&over)) {
        look_once(l);
        int err = heist_yield();
        if (err) return err;
    }
    return 0;
}

/* ---- a round ---- */

static void one_round(struct stress_rng *rng) {
    int workers = stress_draw_workers(rng), threads = stress_draw_threads(rng, 3);
    int movers = 1 + (int)stress_below(rng, MOVERS), lookers = 1 + (int)stress_below(rng, LOOKERS - 3);
    statue_count = 2 + (int)stress_below(rng, STATUES - 1);
    heist_runtime_options o = HEIST_RUNTIME_OPTIONS_INIT;
    bool debug = stress_chance(rng, 20);
    if (debug) o.flags |= HEIST_RUNTIME_DEBUG;
    stress_settings("workers %d, looking threads %d, looking tasks %d, movers %d, statues %d%s", workers, threads,
                    lookers, movers, statue_count, debug ? ", debug mode" : "");
    heist_runtime *rt = stress_runtime("inspect", workers, &o);
    heist_task *tasks[STATUES + MOVERS + LOOKERS];
    int count = 0;
    s_set(&over, false);
    memset(statues, 0, sizeof(statues));
    on_promise[0] = on_promise[1] = 0;
    for (int i = 0; i < 2; i++)
        if (heist_future_new(heist_runtime_loop(rt, 0), &promises[i])) stress_die("no future");
    stress_phase("statues take their places");
    for (int i = 0; i < statue_count; i++) {
        struct statue *s = &statues[i];
        int which = (int)stress_below(rng, 2);
        s->depth = 1 + (int)stress_below(rng, DEEPEST);
        s->promise = promises[which];
        bool made = i && statues[i - 1].makes;
        bool made_before = i > 1 && statues[i - 2].makes; /* then its task is not known yet */
        s->follows = i && !made && !made_before && stress_chance(rng, 30);
        if (!s->follows && i + 1 < statue_count && stress_chance(rng, 40)) s->makes = s + 1;
        s->counted = !s->follows && !s->makes;
        on_promise[which] += s->counted;
    }
    for (int i = 0; i < statue_count; i++) {
        struct statue *s = &statues[i];
        if (i && statues[i - 1].makes) continue;
        if (s->follows) s->under = statues[i - 1].task;
        if (heist_runtime_run_coroutine(rt, statue_body, s, NULL, &s->task)) stress_die("no task");
    }
    struct stress_rng streams[MOVERS];
    for (int i = 0; i < movers; i++) {
        streams[i] = stress_stream(rng, (uint64_t)i);
        if (heist_runtime_run_coroutine(rt, mover_body, &streams[i], NULL, &tasks[count++])) stress_die("no task");
    }
    stress_phase("looking");
    struct looker all[LOOKERS];
    pthread_t thread[LOOKERS];
    for (int i = 0; i < lookers + threads; i++) {
        all[i] = (struct looker){rt, stress_stream(rng, (uint64_t)(1000 + i)), i >= lookers};
        if (i >= lookers) stress_thread(&thread[i], look_thread, &all[i]);
        else if (heist_runtime_run_coroutine(rt, look_body, &all[i], NULL, &tasks[count++])) stress_die("no task");
    }
    for (double end = stress_now() + 0.3; stress_going() && stress_now() < end;) stress_block(5e-3);
    s_set(&over, true);
    stress_phase("the end");
    for (int i = lookers; i < lookers + threads; i++) stress_join(thread[i]);
    for (int i = 0; i < count; i++) {
        int err = heist_await(tasks[i], NULL);
        stress_check(err == 0, "a task that was looked at ended with %s", heist_error_name(err));
        heist_unref(tasks[i]);
    }
    for (int i = 0; i < 2; i++) heist_future_set_result(promises[i], NULL, NULL);
    for (int i = 0; i < statue_count; i++) {
        int err = heist_await(statues[i].task, NULL);
        stress_check(err == 0, "a statue ended with %s", heist_error_name(err));
    }
    for (int i = 0; i < statue_count; i++) heist_unref(statues[i].task);
    for (int i = 0; i < 2; i++) heist_unref(promises[i]);
    stress_runtime_end(rt);
}

int main(int argc, char **argv) {
    stress_begin(argc, argv, "inspect",
                 "who looks changes nothing, and is told where each stands and who waits for whom");
    struct stress_rng rng;
    while (stress_next_round(&rng)) one_round(&rng);
    stress_note("looks at stacks: %" PRIu64 ", answered with frames %" PRIu64 ", with \"runs\" %" PRIu64
                "; graphs %" PRIu64 ", dumps %" PRIu64 "; steps of what moved: %" PRIu64,
                s_get(&looks), s_get(&told), s_get(&busy), s_get(&graphs), s_get(&dumps), s_get(&moves));
    return stress_end();
}
