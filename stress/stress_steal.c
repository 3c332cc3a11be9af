/* stress/stress_steal.c: uneven trees of tasks.
 *
 * Law: a tree of tasks gives the sum that a plain recursion gives; births equal deaths,
 * of tasks, arguments and results; each body runs once; what stands on a task's stack
 * and its rounding mode survive every move; a pinned task always sees the same thread.
 * Threads: the workers of one or two runtimes; the main thread plants the trees.
 * Invariant: all that a node does is drawn from its own seed, so that the recursion can
 * follow it without running it. */
#include "common.h"

#include <fenv.h>
#include <unistd.h>

#define FAN_OUT 9
#define DEEPEST 300
#define TREES 8

struct plan {
    uint64_t own;  /* the node's own contribution */
    unsigned fan;
    uint64_t child_seed[FAN_OUT];
    uint32_t child_size[FAN_OUT];
    struct stress_rng rest; /* what follows decides how, not what */
};

struct node {
    uint64_t seed;
    uint32_t size; /* of its subtree */
    uint16_t depth, flags;
    struct join *join; /* detached: where the value goes */
    unsigned slot;
    _Atomic(int) ran;
};
#define PINNED 1u

/* Detached children leave their values here; the last one sets the future. */
struct join {
    _Atomic(unsigned) left;
    heist_future *all;
    uint64_t value[FAN_OUT];
};

static heist_runtime *runtimes[2];
static int runtime_count;
static unsigned lazy;   /* percent of points at which a node pauses */
static unsigned blocks; /* per thousand at which it blocks its worker */
static _Atomic(uint64_t) born, died, results_born, results_died, pinned_born, crossed;
static uint64_t multi_worker_nodes;

static struct plan plan_of(uint64_t seed, uint32_t size, unsigned depth) {
    struct plan p = {0};
    struct stress_rng r = {seed};
    p.own = stress_mix(stress_next(&r), size);
    uint32_t left = size - 1;
    unsigned most = depth >= DEEPEST ? 0 : 1 + (unsigned)stress_below(&r, FAN_OUT);
    while (left && p.fan < most) {
        /* uneven: the last takes what is left, the others anything from one node to most of it */
        uint32_t take = p.fan + 1 == most ? left : 1 + (uint32_t)stress_below(&r, left);
        if (stress_chance(&r, 50)) take = 1 + take / 8;
        p.child_seed[p.fan] = stress_next(&r);
        p.child_size[p.fan++] = take;
        left -= take < left ? take : left;
    }
    p.rest = r;
    return p;
}

static uint64_t serial(uint64_t seed, uint32_t size, unsigned depth) {
    struct plan p = plan_of(seed, size, depth);
    uint64_t sum = p.own;
    for (unsigned i = 0; i < p.fan; i++) sum += (i + 1) * serial(p.child_seed[i], p.child_size[i], depth + 1);
    return sum;
}

/* ---- births and deaths ---- */

static struct node *make_node(uint64_t seed, uint32_t size, unsigned depth, struct stress_rng *how) {
    struct node *n = stress_alloc(sizeof *n);
    n->seed = seed;
    n->size = size;
    n->depth = (uint16_t)depth;
    n->flags = stress_chance(how, 10) ? PINNED : 0;
    s_add(&born, 1);
    return n;
}

static void free_node(void *arg) {
    struct node *n = arg;
    stress_check(s_get(&n->ran) == 1, "a node died after %d runs", s_get(&n->ran));
    s_add(&died, 1);
    free(n);
}

static void free_result(void *p) {
    s_add(&results_died, 1);
    free(p);
}

static int grow(void *arg, void **out);

/* A child: mostly here, sometimes in the other runtime. */
static int plant(struct node *n, struct stress_rng *how, heist_task **out) {
    heist_task_options o = HEIST_TASK_OPTIONS_INIT;
    o.arg_free = free_node;
    o.result_free = free_result;
    o.stack_bytes = (size_t)(16 * 1024) << stress_below(how, 3);
    if (n->flags & PINNED) {
        o.flags = HEIST_TASK_PINNED;
        s_add(&pinned_born, 1);
    }
    bool inside = heist_current_task() != NULL;
    if (inside && !(runtime_count > 1 && stress_chance(how, 10))) return heist_create_task(grow, n, &o, out);
    heist_runtime *rt = runtimes[stress_below(how, (uint64_t)runtime_count)];
    s_add(&crossed, 1);
    if (!(n->flags & PINNED) && stress_chance(how, 50)) return heist_runtime_run_coroutine(rt, grow, n, &o, out);
    int w = (int)stress_below(how, (uint64_t)heist_runtime_workers(rt));
    return heist_run_coroutine_threadsafe(heist_runtime_loop(rt, w), grow, n, &o, out);
}

/* ---- a node ---- */

/* What must survive a suspension. */
struct luggage {
    uint64_t mark[24];
    int rounding;
    pid_t thread; /* 0: unpinned */
    heist_task *self;
};

static void pack(struct luggage *l, struct node *n) {
    for (unsigned i = 0; i < 24; i++) l->mark[i] = stress_mix(n->seed, i);
    static const int modes[] = {FE_TONEAREST, FE_TONEAREST, FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO};
    stress_check(fegetround() == FE_TONEAREST, "a new task does not round to nearest");
    l->rounding = modes[n->seed % 6];
    fesetround(l->rounding);
    l->thread = n->flags & PINNED ? gettid() : 0;
    l->self = heist_current_task();
}

static void unpack(const struct luggage *l, struct node *n) {
    for (unsigned i = 0; i < 24; i++)
        stress_check(l->mark[i] == stress_mix(n->seed, i), "a word on a task's stack changed");
    stress_check(fegetround() == l->rounding, "the rounding mode of a task changed");
    if (l->thread) stress_check(gettid() == l->thread, "a pinned task saw another thread");
    stress_check(heist_current_task() == l->self, "current_task answers another task");
    stress_progress(1);
}

static void linger(struct stress_rng *how, const struct luggage *l, struct node *n) {
    int err = 0;
    if (stress_below(how, 1000) < blocks) stress_block((double)stress_between(how, 100, 3000) * 1e-6);
    if (!stress_chance(how, lazy)) return;
    switch (stress_below(how, 4)) {
    case 0: stress_spin((double)stress_between(how, 1, 30000) * 1e-9); break;
    case 1: err = heist_yield(); break;
    case 2:
        for (uint64_t k = stress_between(how, 1, 16); k && err == 0; k--) err = heist_yield();
        break;
    default: err = heist_sleep((double)stress_between(how, 1, 2000) * 1e-6); break;
    }
    stress_check(err == 0, "a pause answered %s", heist_error_name(err));
    unpack(l, n);
}

static uint64_t join_detached(struct plan *p, struct node *n, struct stress_rng *how, struct luggage *l) {
    struct join *j = stress_alloc(sizeof *j);
    s_set(&j->left, p->fan);
    int err = heist_future_new(NULL, &j->all);
    stress_check(err == 0, "a future: %s", heist_error_name(err));
    if (err < 0) {
        free(j);
        return 0;
    }
    for (unsigned i = 0; i < p->fan; i++) {
        struct node *c = make_node(p->child_seed[i], p->child_size[i], n->depth + 1u, how);
        c->join = j;
        c->slot = i;
        heist_ref(j->all); /* the child's */
        err = plant(c, how, NULL);
        stress_check(err == 0, "a detached child: %s", heist_error_name(err));
        linger(how, l, n);
    }
    err = heist_await(j->all, NULL);
    stress_check(err == 0, "the last child set the future, await answered %s", heist_error_name(err));
    unpack(l, n);
    uint64_t sum = 0;
    for (unsigned i = 0; i < p->fan; i++) sum += (i + 1) * j->value[i];
    heist_unref(j->all);
    free(j);
    return sum;
}

static uint64_t join_held(struct plan *p, struct node *n, struct stress_rng *how, struct luggage *l) {
    heist_task *child[FAN_OUT] = {0};
    void *value[FAN_OUT] = {0};
    unsigned planted = 0;
    for (unsigned i = 0; i < p->fan; i++) {
        struct node *c = make_node(p->child_seed[i], p->child_size[i], n->depth + 1u, how);
        int err = plant(c, how, &child[i]);
        stress_check(err == 0, "a child: %s", heist_error_name(err));
        if (err < 0) break;
        planted++;
        linger(how, l, n);
    }
    int err = 0;
    switch (stress_below(how, 4)) {
    case 0: err = heist_gather(child, planted, value, 0); break;
    case 1: err = heist_gather(child, planted, value, HEIST_GATHER_ALL); break;
    case 2:
        for (unsigned i = 0; i < planted && err == 0; i++) err = heist_await(child[i], &value[i]);
        break;
    default:
        for (unsigned i = planted; i-- > 0 && err == 0;) err = heist_await(child[i], &value[i]);
        break;
    }
    stress_check(err == 0, "the children were awaited with %s", heist_error_name(err));
    unpack(l, n);
    uint64_t sum = 0;
    for (unsigned i = 0; i < planted; i++) {
        stress_check(value[i] != NULL, "a child has no result");
        if (value[i]) sum += (i + 1) * *(uint64_t *)value[i];
        heist_unref(child[i]);
    }
    return sum;
}

static int grow(void *arg, void **out) {
    struct node *n = arg;
    int before = s_add(&n->ran, 1);
    stress_check(before == 0, "a body ran %d times", before + 1);
    struct luggage l;
    pack(&l, n);
    struct plan p = plan_of(n->seed, n->size, n->depth);
    struct stress_rng how = p.rest;
    linger(&how, &l, n);
    uint64_t sum = p.own;
    if (p.fan) sum += stress_chance(&how, 30) ? join_detached(&p, n, &how, &l) : join_held(&p, n, &how, &l);
    linger(&how, &l, n);
    unpack(&l, n);
    fesetround(FE_TONEAREST);
    if (n->join) {
        struct join *j = n->join;
        heist_future *all = j->all;
        j->value[n->slot] = sum;
        /* acquire and release: the last one, and whoever awaits what it sets, sees every value */
        if (atomic_fetch_sub_explicit(&j->left, 1, memory_order_acq_rel) == 1) {
            int err = heist_future_set_result(all, NULL, NULL);
            stress_check(err == 0, "set_result: %s", heist_error_name(err));
        }
        heist_unref(all);
        return 0;
    }
    uint64_t *result = stress_alloc(sizeof *result);
    *result = sum;
    s_add(&results_born, 1);
    *out = result;
    return 0;
}

static void one_round(struct stress_rng *rng) {
    runtime_count = stress_chance(rng, 30) ? 2 : 1;
    int workers = 0;
    for (int i = 0; i < runtime_count; i++) {
        runtimes[i] = stress_runtime(i ? "steal-b" : "steal-a", stress_draw_workers(rng), NULL);
        workers += heist_runtime_workers(runtimes[i]);
    }
    unsigned trees = (unsigned)stress_between(rng, 1, TREES);
    uint32_t size = (uint32_t)stress_between(rng, 1, stress_scale(20000));
    lazy = (unsigned)stress_below(rng, 60);
    blocks = stress_chance(rng, 30) ? (unsigned)stress_below(rng, 10) : 0;
    stress_settings("%d runtimes, %d workers, %u trees of up to %" PRIu32 " nodes, %u %% lazy, %u per thousand block",
                    runtime_count, workers, trees, size, lazy, blocks);
    uint64_t born_before = s_get(&born);
    stress_phase("trees");
    struct stress_rng how = stress_stream(rng, 1);
    heist_task *root[TREES] = {0};
    uint64_t seed[TREES];
    for (unsigned i = 0; i < trees; i++) {
        seed[i] = stress_next(rng);
        int err = plant(make_node(seed[i], size, 0, &how), &how, &root[i]);
        if (err < 0) stress_die("a root: %s", heist_strerror(err));
    }
    for (unsigned i = 0; i < trees; i++) {
        void *value = NULL;
        uint64_t want = serial(seed[i], size, 0);
        int err = heist_await(root[i], &value);
        stress_check(err == 0 && value, "a tree ended with %s", heist_error_name(err));
        if (value)
            stress_check(*(uint64_t *)value == want, "a tree sums to %" PRIu64 ", the recursion to %" PRIu64,
                         *(uint64_t *)value, want);
        heist_unref(root[i]);
    }
    for (int i = 0; i < runtime_count; i++) stress_runtime_end(runtimes[i]);
    stress_phase("births and deaths");
    stress_check(s_get(&born) == s_get(&died), "%" PRIu64 " nodes were born, %" PRIu64 " died", s_get(&born),
                 s_get(&died));
    stress_check(s_get(&results_born) == s_get(&results_died), "%" PRIu64 " results were made, %" PRIu64 " freed",
                 s_get(&results_born), s_get(&results_died));
    if (workers > runtime_count) multi_worker_nodes += s_get(&born) - born_before;
}

int main(int argc, char **argv) {
    stress_begin(argc, argv, "steal", "sums equal the recursion's; births equal deaths; pinned tasks stay");
    struct stress_rng rng;
    while (stress_next_round(&rng)) one_round(&rng);
    stress_phase("stealing at all");
    if (multi_worker_nodes > 10000)
        stress_check(stress_totals.stolen > 0, "no task was ever stolen: nothing was tried here");
    stress_note("nodes %" PRIu64 ", pinned %" PRIu64 ", through doors %" PRIu64, s_get(&born), s_get(&pinned_born),
                s_get(&crossed));
    return stress_end();
}
