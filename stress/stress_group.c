/* stress/stress_group.c: groups, blocks with a deadline and sections, under every kind of request.
 *
 * Law: no task of a group runs, and no argument or result of one that nobody else holds is
 * freed, after its block was left; what the group tells is what its children and its body
 * failed with, each once; a block ends with the code that follows from that; and when all
 * blocks are left, each request that somebody made of a task is counted there, and none of
 * those that groups and time-outs made: nobody is cancelled whom nobody asked.
 * Threads: roots on the workers of one runtime, each with blocks within blocks; plain
 * threads and tasks of a second runtime cancel roots, end groups early and add children.
 * Invariant: a block's record belongs to the round and outlives all; a root's groups are
 * reached through its slot, under the slot's lock, with a reference. */
#include "common.h"

#include <errno.h>

#define ROOTS 64
#define HELPERS 8

struct block {
    struct block *next; /* of the round */
    _Atomic(bool) over;
    _Atomic(int) failed, unsure, accepted, freed, results, results_freed;
};

struct root {
    struct stress_rng rng;
    int index;
    heist_task *task;
    _Atomic(int) asked;         /* requests that were recorded */
    _Atomic(int) cancelled_out; /* outermost blocks that ended with -ECANCELED, and calls after them */
    _Atomic(int) blocks;
    pthread_mutex_t lock; /* the slot */
    heist_group *group;
    struct block *block;
};

static struct root roots[ROOTS];
static int root_count, depth_most, longest_us;
static heist_runtime *rt, *helpers_rt;
static _Atomic(bool) stop;
static pthread_mutex_t blocks_lock = PTHREAD_MUTEX_INITIALIZER;
static struct block *all_blocks;
static _Atomic(uint64_t) n_blocks, n_children, n_failures, n_requests, n_timeouts, n_early, n_passed, n_outside;

static struct block *make_block(void) {
    struct block *b = stress_alloc(sizeof *b);
    pthread_mutex_lock(&blocks_lock);
    b->next = all_blocks;
    all_blocks = b;
    pthread_mutex_unlock(&blocks_lock);
    return b;
}

static void within(struct block *b, const char *what) {
    stress_check(!s_get(&b->over), "%s after its block was left", what);
}

static double some_time(struct stress_rng *rng) { return (double)stress_between(rng, 0, (uint64_t)longest_us) * 1e-6; }

/* A pause that may be cancelled: 0 or -ECANCELED. */
static int pause_somehow(struct stress_rng *rng) {
    int err = 0;
    switch (stress_below(rng, 5)) {
        case 0: err = heist_yield(); break;
        case 1: break;
        case 2: {
            heist_future *f = NULL;
            err = heist_future_new(NULL, &f);
            if (err == 0) err = heist_await_until(f, heist_time() + some_time(rng), NULL);
            heist_unref(f);
            if (err == -ETIMEDOUT) err = 0;
            break;
        }
        case 3: stress_spin((double)stress_between(rng, 0, 30) * 1e-6); break;
        default: err = heist_sleep(some_time(rng)); break;
    }
    stress_check(err == 0 || err == -ECANCELED, "a pause answered %s", heist_error_name(err));
    return err;
}

/* ---- children ---- */

static int run_block(struct stress_rng *rng, int depth, struct root *root);

struct child {
    struct stress_rng rng;
    struct block *block;
    heist_group *group; /* borrowed: it lasts as long as the child */
    int depth;
    bool inherits;
    char canary[16];
};

struct result {
    struct block *block;
};

static void free_child(void *arg) {
    struct child *c = arg;
    within(c->block, "an argument was freed");
    s_add(&c->block->freed, 1);
    free(c);
}

static void free_result(void *p) {
    struct result *r = p;
    within(r->block, "a result was freed");
    s_add(&r->block->results_freed, 1);
    free(r);
}

static int make_child(struct stress_rng *rng, struct block *b, heist_group *g, int depth);

static int act(struct child *c, void **out) {
    struct stress_rng *rng = &c->rng;
    int err = pause_somehow(rng);
    within(c->block, "a child ran");
    if (err && stress_chance(rng, 60)) return err;
    switch (stress_below(rng, 9)) {
        case 0: return heist_fail(-EPROTO, "planned");
        case 1: { /* stubborn */
            for (int i = 0; i < 3; i++) pause_somehow(rng);
            return stress_chance(rng, 30) ? -EPIPE : 0;
        }
        case 2:
            heist_uncancellable_begin();
            err = pause_somehow(rng);
            stress_check(err == 0, "a section was left with %s", heist_error_name(err));
            heist_uncancellable_end();
            return pause_somehow(rng);
        case 3: return c->depth > 0 ? run_block(rng, c->depth - 1, NULL) : pause_somehow(rng);
        case 4: {
            err = make_child(rng, c->block, c->group, c->depth);
            stress_check(err == 0 || err == HEIST_ESHUTDOWN || err == HEIST_ECLOSED, "a child of a child: %s",
                         heist_error_name(err));
            return 0;
        }
        case 5:
            if (stress_chance(rng, 20)) {
                s_add(&n_early, 1);
                heist_group_cancel(c->group);
            }
            return 0;
        case 6: {
            heist_timeout t = HEIST_TIMEOUT_INIT;
            err = heist_timeout_enter(&t, some_time(rng));
            if (err < 0) return err;
            err = heist_timeout_exit(&t, pause_somehow(rng));
            if (err == -ETIMEDOUT) s_add(&n_timeouts, 1);
            return err;
        }
        case 7: err = heist_sleep(0.02); return err;
        default: {
            struct result *r = stress_alloc(sizeof *r);
            r->block = c->block;
            s_add(&c->block->results, 1);
            *out = r;
            return 0;
        }
    }
}

static int child_body(void *arg, void **out) {
    struct child *c = arg;
    within(c->block, "a child began");
    int err = act(c, out);
    within(c->block, "a child ended");
    stress_check(memcmp(c->canary, "group of friends", sizeof c->canary) == 0, "a child's argument was written over");
    if (err == -ECANCELED && c->inherits) s_add(&c->block->unsure, 1); /* its own time may have been up */
    if (err < 0 && err != -ECANCELED) s_add(&c->block->failed, 1);
    stress_progress(1);
    return err;
}

static int make_child(struct stress_rng *rng, struct block *b, heist_group *g, int depth) {
    struct child *c = stress_alloc(sizeof *c);
    c->rng = stress_stream(rng, 7);
    c->block = b;
    c->group = g;
    c->depth = depth;
    memcpy(c->canary, "group of friends", sizeof c->canary);
    heist_task_options o = HEIST_TASK_OPTIONS_INIT;
    o.arg_free = free_child;
    o.result_free = free_result;
    if (stress_chance(rng, 10)) o.flags |= HEIST_TASK_PINNED;
    if (stress_chance(rng, 20)) {
        o.flags |= HEIST_TASK_INHERIT_DEADLINE;
        c->inherits = true;
    }
    int err = heist_group_create_task(g, child_body, c, &o, NULL);
    if (err < 0) {
        free(c);
        return err;
    }
    s_add(&b->accepted, 1);
    s_add(&n_children, 1);
    return 0;
}

/* ---- blocks ---- */

static void show(struct root *root, heist_group *g, struct block *b) {
    if (!root) return;
    pthread_mutex_lock(&root->lock);
    heist_group *old = root->group;
    root->group = heist_group_ref(g);
    root->block = b;
    pthread_mutex_unlock(&root->lock);
    heist_group_unref(old);
}

static int body(struct stress_rng *rng, struct block *b, heist_group *g, int depth) {
    int n = (int)stress_between(rng, 0, 6);
    for (int i = 0; i < n; i++) {
        int err = make_child(rng, b, g, depth);
        if (err == HEIST_ESHUTDOWN || err == HEIST_ECLOSED) break;
        stress_check(err == 0, "a child: %s", heist_error_name(err));
        if (stress_chance(rng, 20) && pause_somehow(rng)) return -ECANCELED;
    }
    if (depth > 0 && stress_chance(rng, 25)) {
        int err = run_block(rng, depth - 1, NULL);
        if (err < 0 && stress_chance(rng, 70)) return err;
    }
    if (stress_chance(rng, 10)) {
        s_add(&n_early, 1);
        heist_group_cancel(g);
    }
    if (stress_chance(rng, 10)) return heist_fail(-EDOM, "the body, as planned");
    return pause_somehow(rng);
}

/* A group, perhaps in a block with a deadline.  root: this is its outermost block. */
static int run_block(struct stress_rng *rng, int depth, struct root *root) {
    struct block *b = make_block();
    heist_timeout limit = HEIST_TIMEOUT_INIT;
    bool limited = stress_chance(rng, 40);
    heist_task *self = heist_current_task();
    heist_group *g = NULL;
    int err = limited ? heist_timeout_enter(&limit, some_time(rng)) : 0;
    if (err == 0) err = heist_group_new(&g);
    if (err == 0) err = heist_group_enter(g);
    if (err < 0) stress_die("a block: %s", heist_error_name(err));
    show(root, g, b);
    int code = body(rng, b, g, depth);
    err = heist_group_exit(g, code);
    s_set(&b->over, true);
    s_add(&n_blocks, 1);
    int failed = s_get(&b->failed) + (code < 0 && code != -ECANCELED), told = heist_group_failures(g);
    stress_check(heist_group_count(g) == 0, "%zu children live after the exit", heist_group_count(g));
    stress_check(told >= failed && told <= failed + s_get(&b->unsure), "%d failed, the group tells of %d", failed,
                 told);
    stress_check((err == HEIST_EGROUP) == (told > 0), "%d failures, and the exit says %s", told, heist_error_name(err));
    stress_check(err == HEIST_EGROUP || err == 0 || err == -ECANCELED, "the exit says %s", heist_error_name(err));
    int planned = 0;
    for (int i = 0; i < told; i++) {
        heist_group_failure f = HEIST_GROUP_FAILURE_INIT;
        int answer = heist_group_failure_at(g, (size_t)i, &f);
        stress_check(answer == 0 && f.code < 0 && f.code != -ECANCELED && f.task && f.name[0], "failure %d: %s", i,
                     heist_error_name(f.code));
        planned += f.task == self;
    }
    stress_check(planned == (code < 0 && code != -ECANCELED), "the body's failure was told %d times", planned);
    s_add(&n_failures, (uint64_t)told);
    if (limited) {
        int turned = heist_timeout_exit(&limit, err);
        stress_check(turned == err || (err == -ECANCELED && turned == -ETIMEDOUT), "a time-out made %s of %s",
                     heist_error_name(turned), heist_error_name(err));
        if (turned == -ETIMEDOUT) s_add(&n_timeouts, 1);
        err = turned;
    }
    show(root, NULL, NULL);
    heist_group_unref(g);
    if (root) {
        s_add(&root->blocks, 1);
        if (err == -ECANCELED) s_add(&root->cancelled_out, 1), s_add(&n_passed, 1);
    }
    return err;
}

static int root_body(void *arg, void **out) {
    struct root *r = arg;
    (void)out;
    while (!s_get(&stop)) {
        run_block(&r->rng, depth_most, r);
        int err = heist_yield();
        stress_check(err == 0 || err == -ECANCELED, "a yield answered %s", heist_error_name(err));
        if (err) s_add(&r->cancelled_out, 1);
    }
    return 0;
}

/* ---- from outside ---- */

struct helper {
    struct stress_rng rng;
    bool plain;
    pthread_t thread;
    heist_task *task;
};

static void meddle(struct stress_rng *rng) {
    struct root *r = &roots[stress_below(rng, (uint64_t)root_count)];
    if (stress_chance(rng, 40)) {
        int err = heist_cancel(r->task);
        stress_check(err == 0 || err == 1, "a cancel answered %s", heist_error_name(err));
        if (err == 1) s_add(&r->asked, 1), s_add(&n_requests, 1);
        return;
    }
    pthread_mutex_lock(&r->lock);
    heist_group *g = heist_group_ref(r->group);
    struct block *b = r->block;
    pthread_mutex_unlock(&r->lock);
    if (!g) return;
    if (stress_chance(rng, 30)) {
        s_add(&n_early, 1);
        heist_group_cancel(g);
    } else {
        int err = make_child(rng, b, g, 0);
        stress_check(err == 0 || err == HEIST_ESHUTDOWN || err == HEIST_ECLOSED, "a child from outside: %s",
                     heist_error_name(err));
        if (err == 0) s_add(&n_outside, 1);
    }
    heist_group_unref(g);
}

static void *helper_thread(void *arg) {
    struct helper *h = arg;
    while (!s_get(&stop)) {
        meddle(&h->rng);
        stress_pause(&h->rng, 0.001);
    }
    return NULL;
}

static int helper_body(void *arg, void **out) {
    struct helper *h = arg;
    (void)out;
    while (!s_get(&stop)) {
        meddle(&h->rng);
        int err = heist_sleep((double)stress_between(&h->rng, 0, 1000) * 1e-6);
        if (err) return err;
    }
    return 0;
}

/* ---- a round ---- */

static void one_round(struct stress_rng *rng) {
    int workers = stress_draw_workers(rng), threads = stress_draw_threads(rng, HELPERS);
    int tasks = stress_chance(rng, 50) ? (int)stress_between(rng, 1, 4) : 0;
    bool meddled = stress_chance(rng, 80), close_early = stress_chance(rng, 20);
    root_count = (int)stress_scale((size_t)stress_between(rng, 1, ROOTS));
    depth_most = (int)stress_below(rng, 4);
    longest_us = (int)stress_between(rng, 1, 3000);
    double span = (double)stress_between(rng, 20, 200) * 1e-3;
    if (!meddled) threads = tasks = 0; /* then nobody is ever asked */
    stress_settings("%d workers, %d threads, %d tasks, %d roots, depth %d, %d us, %.0f ms%s", workers, threads, tasks,
                    root_count, depth_most, longest_us, span * 1e3, close_early ? ", closed early" : "");
    stress_phase("setting up");
    s_set(&stop, false);
    all_blocks = NULL;
    heist_runtime_options o = HEIST_RUNTIME_OPTIONS_INIT;
    stress_draw_watch(rng, &o);
    rt = stress_runtime("groups", workers, &o);
    helpers_rt = tasks ? stress_runtime("helpers", 1, NULL) : NULL;
    for (int i = 0; i < root_count; i++) {
        struct root *r = &roots[i];
        *r = (struct root){.rng = stress_stream(rng, (uint64_t)i), .index = i};
        pthread_mutex_init(&r->lock, NULL);
        int err = heist_runtime_run_coroutine(rt, root_body, r, NULL, &r->task);
        if (err < 0) stress_die("a root: %s", heist_strerror(err));
    }
    stress_phase("blocks");
    struct helper helpers[2 * HELPERS];
    int helper_count = threads + tasks;
    for (int i = 0; i < helper_count; i++) {
        struct helper *h = &helpers[i];
        *h = (struct helper){.rng = stress_stream(rng, 1000 + (uint64_t)i), .plain = i < threads};
        if (h->plain) {
            stress_thread(&h->thread, helper_thread, h);
        } else {
            int err = heist_runtime_run_coroutine(helpers_rt, helper_body, h, NULL, &h->task);
            if (err < 0) stress_die("a helper: %s", heist_strerror(err));
        }
    }
    double until = stress_now() + span;
    while (stress_now() < until) stress_block(0.002);
    if (close_early) {
        stress_phase("close with a limit");
        int err = heist_runtime_close(rt, (double)stress_between(rng, 0, 10000) * 1e-6);
        stress_check(err == 0 || err == -ETIMEDOUT, "close answered %s", heist_error_name(err));
    }
    s_set(&stop, true);
    stress_phase("the end of the helpers");
    for (int i = 0; i < helper_count; i++) {
        if (helpers[i].plain) {
            stress_join(helpers[i].thread);
        } else {
            int err = heist_await(helpers[i].task, NULL);
            stress_check(err == 0, "a helper ended with %s", heist_error_name(err));
            heist_unref(helpers[i].task);
        }
    }
    stress_phase("the end of the roots");
    for (int i = 0; i < root_count; i++) {
        struct root *r = &roots[i];
        stress_wait_begin(i, "the end of a root", 0);
        int err = heist_await(r->task, NULL);
        stress_wait_end(i);
        /* One that had not begun ends cancelled. */
        stress_check(err == 0 || (err == -ECANCELED && !s_get(&r->blocks) && (s_get(&r->asked) || close_early)),
                     "a root ended with %s after %d blocks", heist_error_name(err), s_get(&r->blocks));
        int counted = heist_cancelling(r->task), asked = s_get(&r->asked);
        stress_check(counted == asked || (close_early && counted == asked + 1),
                     "root %d was asked %d times, and %d requests are counted", i, asked, counted);
        stress_check(asked || close_early || !s_get(&r->cancelled_out),
                     "root %d was cancelled %d times, and nobody had asked", i, s_get(&r->cancelled_out));
        heist_unref(r->task);
        pthread_mutex_destroy(&r->lock);
    }
    if (helpers_rt) stress_runtime_end(helpers_rt);
    stress_runtime_end(rt);
    stress_phase("freed once");
    for (struct block *b = all_blocks, *next; b; b = next) {
        next = b->next;
        stress_check(s_get(&b->accepted) == s_get(&b->freed), "%d children were made, %d arguments freed",
                     s_get(&b->accepted), s_get(&b->freed));
        stress_check(s_get(&b->results) == s_get(&b->results_freed), "%d results were made, %d freed",
                     s_get(&b->results), s_get(&b->results_freed));
        free(b);
    }
}

int main(int argc, char **argv) {
    stress_begin(argc, argv, "group",
                 "no task outlives its block; every failure is told once; nobody is cancelled unasked");
    struct stress_rng rng;
    while (stress_next_round(&rng)) one_round(&rng);
    stress_note("blocks %" PRIu64 ", children %" PRIu64 " (%" PRIu64 " from outside), failures %" PRIu64,
                s_get(&n_blocks), s_get(&n_children), s_get(&n_outside), s_get(&n_failures));
    stress_note("requests %" PRIu64 ", passed on by blocks %" PRIu64 ", time-outs %" PRIu64
                ", groups ended early %" PRIu64,
                s_get(&n_requests), s_get(&n_passed), s_get(&n_timeouts), s_get(&n_early));
    return stress_end();
}
