/* stress/stress_context.c: context variables, wherever who set them goes.
 *
 * Law: a task, callback or thread reads what it set itself, or what its creator had at that moment, and nothing else,
 * on whichever worker it stands; a token gives back what was there before; a context is used by one at a time; and
 * every value is freed once, when nobody can read it any more. Threads: a growing and dying crowd of tasks on one
 * runtime, callbacks of its loops, plain threads that submit, and all of them look into the contexts of the others.
 * Invariant: each actor carries a model of its context, a plain array, which is handed to what it makes. */
#include "common.h"

#include <errno.h>

#define VARS 5
#define SHARED 3
#define REGISTER 32
#define MAX_THREADS 6
#define MAGIC UINT64_C(0x6865697374766172)

struct value {
    uint64_t magic, number;
};
struct model {
    uint64_t number[VARS]; /* 0: not set */
};
struct actor {
    struct stress_rng rng;
    struct model model;
    bool in_task, pinned, over;
};
/* A task to be, or a callback to be. */
struct node {
    struct stress_rng rng;
    struct model model;
    int steps, depth;
    bool pinned;
    _Atomic(int) ran;
};
struct shared {
    heist_context *context;
    _Atomic(int) now;             /* between two suspensions */
    _Atomic(int) movers, stayers; /* in it, asleep or not: those that may move, and those that stay on a loop */
    uint64_t plain;               /* written by whoever is in the context: a second one at once would be a race */
};

static heist_runtime *rt;
static heist_context_var *vars[VARS], *local;
static struct shared shared[SHARED];
static struct {
    pthread_mutex_t lock;
    heist_task *task;
} registered[REGISTER];
static _Atomic(bool) stop;
static _Atomic(uint64_t) born, died, last_number, nodes_made, nodes_freed;
static _Atomic(uint64_t) all_reads, all_sets, all_resets, all_runs, all_busy, all_looks, all_tasks, all_callbacks;

static void free_value(void *p) {
    struct value *v = p;
    stress_check(v->magic == MAGIC, "a value was freed twice");
    v->magic = 0;
    s_add(&died, 1);
    free(v);
}

static uint64_t number_of(const struct value *v) {
    stress_check(v->magic == MAGIC, "a value that can be read was freed");
    return v->number;
}

static uint64_t read_var(int i) {
    void *out = NULL;
    int err = heist_context_get(vars[i], &out);
    if (err == HEIST_ENOTSET) return 0;
    if (err || !out) {
        stress_fail("get answered %s", heist_error_name(err));
        return 0;
    }
    return number_of(out);
}

static void check_all(struct actor *a, const char *where) {
    for (int i = 0; i < VARS; i++) {
        uint64_t got = read_var(i);
        stress_check(got == a->model.number[i], "%s: variable %d is %" PRIu64 " and not %" PRIu64, where, i, got,
                     a->model.number[i]);
    }
    s_add(&all_reads, VARS);
}

static uint64_t set_var(struct actor *a, int i, heist_context_token *token) {
    struct value *v = malloc(sizeof *v);
    if (!v) stress_die("no memory");
    *v = (struct value){MAGIC, s_add(&last_number, 1) + 1};
    uint64_t number = v->number;
    s_add(&born, 1);
    int err = heist_context_set(vars[i], v, free_value, token);
    if (err) {
        stress_fail("set answered %s", heist_error_name(err));
        free_value(v);
        return a->model.number[i];
    }
    s_add(&all_sets, 1);
    return a->model.number[i] = number;
}

static void pause_a_little(struct actor *a) {
    if (!a->in_task) return;
    int err = stress_chance(&a->rng, 60) ? heist_yield() : heist_sleep((double)stress_below(&a->rng, 300) * 1e-6);
    if (err == -ECANCELED) a->over = true;
    else stress_check(err == 0, "a pause answered %s", heist_error_name(err));
}

/* ---- what an actor does ---- */

static void some_work(struct actor *a, int depth);

/* A set, something between, and back. */
static void set_and_reset(struct actor *a, int depth) {
    int i = (int)stress_below(&a->rng, VARS);
    heist_context_token token = HEIST_CONTEXT_TOKEN_INIT;
    uint64_t before = a->model.number[i];
    set_var(a, i, &token);
    pause_a_little(a);
    check_all(a, "between a set and its reset");
    if (depth < 3 && !a->over) some_work(a, depth + 1);
    if (stress_chance(&a->rng, 10)) {
        heist_context_token_drop(&token);
        return;
    }
    int err = heist_context_reset(&token);
    stress_check(err == 0, "reset answered %s", heist_error_name(err));
    a->model.number[i] = before;
    s_add(&all_resets, 1);
}

struct run {
    struct actor *actor;
    struct shared *shared;
    int depth;
};

static int run_in_copy(void *arg, void **out) {
    struct run *r = arg;
    (void)out;
    check_all(r->actor, "in a copy");
    struct model before = r->actor->model;
    for (int i = 0; i < 3; i++) set_var(r->actor, (int)stress_below(&r->actor->rng, VARS), NULL);
    pause_a_little(r->actor);
    check_all(r->actor, "in a copy, later");
    r->actor->model = before;
    return 0;
}

static int run_shared(void *arg, void **out) {
    struct run *r = arg;
    struct shared *s = r->shared;
    (void)out;
    bool pinned = r->actor->pinned;
    stress_check(s_add(pinned ? &s->stayers : &s->movers, 1) == 0 || pinned, "two at once in one context");
    stress_check(s_get(pinned ? &s->movers : &s->stayers) == 0, "one that moves and one that stays in one context");
    stress_check(s_add(&s->now, 1) == 0, "two run at once in one context");
    void *got = NULL;
    int err = heist_context_get(local, &got);
    stress_check((err == 0 ? (uint64_t)(uintptr_t)got : 0) == s->plain, "a shared context lost a value");
    s->plain++;
    err = heist_context_set(local, (void *)(uintptr_t)s->plain, NULL, NULL);
    stress_check(err == 0, "set answered %s", heist_error_name(err));
    s_add(&s->now, -1);
    pause_a_little(r->actor);
    s_add(pinned ? &s->stayers : &s->movers, -1);
    return 0;
}

static int look(void *arg, void **out) {
    (void)arg;
    (void)out;
    for (int i = 0; i < VARS; i++) read_var(i); /* only that they live */
    return 0;
}

/* Into the context of a task that runs somewhere. */
static void look_at_another(struct actor *a) {
    size_t slot = (size_t)stress_below(&a->rng, REGISTER);
    heist_context *theirs = NULL, *copy = NULL;
    pthread_mutex_lock(&registered[slot].lock);
    heist_task *t = heist_ref(registered[slot].task);
    pthread_mutex_unlock(&registered[slot].lock);
    if (!t) return;
    int err = heist_task_context(t, &theirs);
    if (!err) err = heist_context_copy(theirs, &copy);
    if (!err) err = heist_context_run(copy, look, NULL, NULL);
    stress_check(err == 0, "a look answered %s", heist_error_name(err));
    (void)heist_context_count(theirs);
    heist_context_unref(theirs);
    heist_context_unref(copy);
    if (stress_chance(&a->rng, 30)) heist_cancel(t);
    heist_unref(t);
    s_add(&all_looks, 1);
}

static void free_node(void *arg) {
    s_add(&nodes_freed, 1);
    free(arg);
}

static struct node *make_node(struct actor *a, int depth) {
    struct node *n = calloc(1, sizeof *n);
    if (!n) stress_die("no memory");
    n->rng = stress_stream(&a->rng, 5);
    n->model = a->model;
    n->steps = (int)stress_between(&a->rng, 1, 20);
    n->depth = depth;
    s_add(&nodes_made, 1);
    return n;
}

static void not_made(struct node *n, const char *what, int err) {
    stress_check(err == HEIST_ECLOSED, "%s answered %s", what, heist_error_name(err));
    free_node(n);
}

static int callback(void *arg) {
    struct node *n = arg;
    stress_check(s_add(&n->ran, 1) == 0, "a callback ran twice");
    struct actor a = {.rng = n->rng, .model = n->model};
    check_all(&a, "in a callback");
    set_var(&a, (int)stress_below(&a.rng, VARS), NULL);
    check_all(&a, "in a callback that has set");
    s_add(&all_callbacks, 1);
    return 0;
}

static void done(heist_future *f, void *arg) {
    (void)f;
    callback(arg);
}

static heist_loop *some_loop(struct actor *a) {
    return heist_runtime_loop(rt, (int)stress_below(&a->rng, (uint64_t)heist_runtime_workers(rt)));
}

static void post(struct actor *a) {
    struct node *n = make_node(a, 0);
    heist_call_options o = HEIST_CALL_OPTIONS_INIT;
    heist_handle *handle = NULL, **keep = stress_chance(&a->rng, 40) ? &handle : NULL;
    heist_future *f = NULL;
    int err;
    o.arg_free = free_node;
    switch (stress_below(&a->rng, 3)) {
        case 0: err = heist_loop_call_soon(some_loop(a), callback, n, &o, keep); break;
        case 1:
            err = heist_loop_call_later(some_loop(a), (double)stress_below(&a->rng, 500) * 1e-6, callback, n, &o, keep);
            break;
        default:
            err = heist_future_new(stress_chance(&a->rng, 50) ? some_loop(a) : NULL, &f);
            if (!err && stress_chance(&a->rng, 20)) heist_future_set_result(f, NULL, NULL);
            if (!err) err = heist_future_add_done_callback(f, done, n, free_node);
            if (err) break;
            set_var(a, (int)stress_below(&a->rng, VARS), NULL); /* after it was added */
            heist_future_set_result(f, NULL, NULL);
    }
    if (err) not_made(n, "a callback", err);
    if (handle && stress_chance(&a->rng, 50)) heist_handle_cancel(handle);
    heist_handle_unref(handle);
    heist_unref(f);
}

static int task_body(void *arg, void **out);

static void spawn(struct actor *a, int depth) {
    if (s_get(&nodes_made) - s_get(&nodes_freed) > stress_scale(400)) return;
    struct node *n = make_node(a, depth + 1);
    heist_task_options o = HEIST_TASK_OPTIONS_INIT;
    heist_task *t = NULL;
    bool await = a->in_task && stress_chance(&a->rng, 50);
    heist_context *given = NULL;
    o.arg_free = free_node;
    n->pinned = stress_chance(&a->rng, 25);
    if (n->pinned) o.flags = HEIST_TASK_PINNED;
    if (stress_chance(&a->rng, 25)) {
        int err = heist_context_copy(NULL, &given);
        stress_check(err == 0, "copy answered %s", heist_error_name(err));
        o.context = given;
    }
    int err = a->in_task && stress_chance(&a->rng, 60)
                  ? heist_create_task(task_body, n, &o, await ? &t : NULL)
                  : heist_runtime_run_coroutine(rt, task_body, n, &o, await ? &t : NULL);
    heist_context_unref(given);
    if (err) not_made(n, "create_task", err);
    set_var(a, (int)stress_below(&a->rng, VARS), NULL); /* after it was made */
    if (!t) return;
    err = heist_await(t, NULL);
    stress_check(err == 0 || err == -ECANCELED, "a child ended with %s", heist_error_name(err));
    heist_unref(t);
    if (err) a->over = true; /* its request, or ours that went on to it */
}

static void some_work(struct actor *a, int depth) {
    struct run r = {a, &shared[stress_below(&a->rng, SHARED)], depth};
    heist_context *copy = NULL;
    int err;
    switch (stress_below(&a->rng, 9)) {
        case 0: pause_a_little(a); break;
        case 1:
        case 2: set_and_reset(a, depth); break;
        case 3:
            if (a->in_task) set_var(a, (int)stress_below(&a->rng, VARS), NULL); /* a thread keeps nothing */
            break;
        case 4:
            err = heist_context_copy(NULL, &copy);
            if (!err) err = heist_context_run(copy, run_in_copy, &r, NULL);
            stress_check(err == 0, "run in a copy answered %s", heist_error_name(err));
            heist_context_unref(copy);
            break;
        case 5:
            err = heist_context_run(r.shared->context, run_shared, &r, NULL);
            stress_check(err == 0 || err == -EBUSY, "run in a context answered %s", heist_error_name(err));
            s_add(err ? &all_busy : &all_runs, 1);
            break;
        case 6: look_at_another(a); break;
        case 7: post(a); break;
        default: spawn(a, depth);
    }
    check_all(a, "after a step");
    stress_progress(1);
}

static int task_body(void *arg, void **out) {
    struct node *n = arg;
    (void)out;
    stress_check(s_add(&n->ran, 1) == 0, "a task ran twice");
    struct actor a = {.rng = n->rng, .model = n->model, .in_task = true, .pinned = n->pinned};
    size_t slot = (size_t)stress_below(&a.rng, REGISTER);
    check_all(&a, "at the beginning of a task");
    pthread_mutex_lock(&registered[slot].lock);
    heist_task *old = registered[slot].task;
    registered[slot].task = heist_ref(heist_current_task());
    pthread_mutex_unlock(&registered[slot].lock);
    heist_unref(old);
    for (int i = 0; i < n->steps && !a.over && !s_get(&stop); i++) some_work(&a, n->depth);
    check_all(&a, "at the end of a task");
    s_add(&all_tasks, 1);
    return a.over ? -ECANCELED : 0;
}

/* ---- a round ---- */

static struct actor outside[MAX_THREADS];

/* In a context of its own, so that the thread is left as it was. */
static int outside_body(void *arg, void **out) {
    struct actor *a = arg;
    (void)out;
    while (!s_get(&stop) && stress_going()) {
        some_work(a, 0);
        stress_pause(&a->rng, 0.0005);
    }
    return 0;
}

static void *outside_main(void *arg) {
    heist_context *ctx = NULL;
    int err = heist_context_new(&ctx);
    if (!err) err = heist_context_run(ctx, outside_body, arg, NULL);
    stress_check(err == 0, "a thread's context answered %s", heist_error_name(err));
    heist_context_unref(ctx);
    return NULL;
}

static void one_round(struct stress_rng *rng) {
    int threads = stress_draw_threads(rng, MAX_THREADS), err = 0;
    if (threads > MAX_THREADS) threads = MAX_THREADS;
    double span = 0.1 + 0.05 * (double)stress_below(rng, 8);
    bool early = stress_chance(rng, 30);
    heist_runtime_options o = HEIST_RUNTIME_OPTIONS_INIT;
    stress_draw_watch(rng, &o);
    s_set(&stop, false);
    for (int i = 0; i < VARS && !err; i++) err = heist_context_var_new("stress", NULL, &vars[i]);
    if (!err) err = heist_context_var_new("local", NULL, &local);
    for (int i = 0; i < SHARED && !err; i++) {
        shared[i].plain = 0;
        err = heist_context_new(&shared[i].context);
    }
    if (err) stress_die("the world of a round: %s", heist_strerror(err));
    rt = stress_runtime("context", stress_draw_workers(rng), &o);
    stress_settings("%d workers, %d threads, %.2f s%s", heist_runtime_workers(rt), threads, span,
                    early ? ", closed in the middle" : "");
    stress_phase("everybody sets and reads");
    pthread_t thread[MAX_THREADS];
    for (int i = 0; i < threads; i++) {
        outside[i] = (struct actor){.rng = stress_stream(rng, (uint64_t)i)};
        stress_thread(&thread[i], outside_main, &outside[i]);
    }
    stress_block(span);
    s_set(&stop, true);
    for (int i = 0; i < threads; i++) stress_join(thread[i]);
    if (!early) {
        stress_phase("waiting for the tasks");
        while (heist_runtime_task_count(rt)) stress_block(0.0005);
    }
    stress_phase("closing");
    err = heist_runtime_close(rt, HEIST_FOREVER);
    stress_check(err == 0, "close answered %s", heist_error_name(err));
    for (int i = 0; i < REGISTER; i++) {
        heist_unref(registered[i].task);
        registered[i].task = NULL;
    }
    stress_runtime_end(rt);
    for (int i = 0; i < SHARED; i++) heist_context_unref(shared[i].context);
    for (int i = 0; i < VARS; i++) heist_context_var_unref(vars[i]);
    heist_context_var_unref(local);
    stress_check(s_get(&nodes_made) == s_get(&nodes_freed), "made %" PRIu64 " arguments, freed %" PRIu64,
                 s_get(&nodes_made), s_get(&nodes_freed));
    stress_check(s_get(&born) == s_get(&died), "%" PRIu64 " values were set, %" PRIu64 " freed", s_get(&born),
                 s_get(&died));
}

int main(int argc, char **argv) {
    for (int i = 0; i < REGISTER; i++) pthread_mutex_init(&registered[i].lock, NULL);
    stress_begin(argc, argv, "context", "everybody reads what he set or inherited, and every value is freed once");
    struct stress_rng rng;
    while (stress_next_round(&rng)) one_round(&rng);
    stress_note("reads %" PRIu64 ", sets %" PRIu64 ", resets %" PRIu64 ", runs in shared contexts %" PRIu64
                ", busy %" PRIu64,
                s_get(&all_reads), s_get(&all_sets), s_get(&all_resets), s_get(&all_runs), s_get(&all_busy));
    stress_note("tasks %" PRIu64 ", callbacks %" PRIu64 ", looks at others %" PRIu64, s_get(&all_tasks),
                s_get(&all_callbacks), s_get(&all_looks));
    return stress_end();
}
