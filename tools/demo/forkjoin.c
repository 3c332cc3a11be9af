/* Fork-join work of part 4; forkjoin.h has the contract.
 *
 * A task stands for a board with some rows filled.  While fewer than FORK_ROWS are, it
 * makes a task for each square of the next row that nobody attacks and gathers the
 * counts; below that it counts by plain recursion.  The branches differ a great deal
 * in size, so that sharing them evenly needs stealing. */
#include "forkjoin.h"

#include <heist.h>
#include <stdatomic.h>

#define FORK_ROWS 4      /* gives several thousand leaves of some tens of microseconds */
#define EVERY_SQUARE ((1u << FORKJOIN_BOARD) - 1)

static const uint64_t known_count = 365596; /* solutions for 14 queens */

static _Atomic(uint64_t) tasks_made; /* counts the tasks of every tree; runs do not overlap */

struct board {
    unsigned columns, left, right; /* squares of the next row that are attacked, by direction */
    unsigned rows;                 /* filled so far */
};

static struct board with_queen(const struct board *b, unsigned square) {
    return (struct board){b->columns | square, (b->left | square) << 1 & EVERY_SQUARE, (b->right | square) >> 1,
                          b->rows + 1};
}

static uint64_t count(struct board b) {
    if (b.rows == FORKJOIN_BOARD) return 1;
    uint64_t n = 0;
    for (unsigned open = EVERY_SQUARE & ~(b.columns | b.left | b.right); open; open &= open - 1)
        n += count(with_queen(&b, open & -open));
    return n;
}

/* Options of every task of the tree; set before a run, read by its tasks. */
static heist_task_options branch_options = HEIST_TASK_OPTIONS_INIT;

static int branch(void *arg, void **out) {
    const struct board *b = arg;
    uint64_t n = 0;
    atomic_fetch_add_explicit(&tasks_made, 1, memory_order_relaxed);
    if (b->rows >= FORK_ROWS) {
        n = count(*b);
        *out = (void *)(uintptr_t)n;
        return 0;
    }
    struct board next[FORKJOIN_BOARD];
    heist_task *child[FORKJOIN_BOARD];
    void *counted[FORKJOIN_BOARD];
    size_t children = 0;
    int err = 0;
    for (unsigned open = EVERY_SQUARE & ~(b->columns | b->left | b->right); open && err == 0; open &= open - 1) {
        next[children] = with_queen(b, open & -open);
        err = heist_create_task(branch, &next[children], &branch_options, &child[children]);
        if (err == 0) children++;
    }
    /* Also after a failure: the children read `next`, so this frame waits for them. */
    int failed = heist_gather(child, children, counted, 0);
    for (size_t i = 0; i < children; i++) {
        n += (uint64_t)(uintptr_t)counted[i];
        heist_unref(child[i]);
    }
    *out = (void *)(uintptr_t)n;
    return err < 0 ? err : failed;
}

static uint64_t stolen_so_far(heist_runtime *rt) {
    uint64_t stolen = 0;
    for (int i = 0; i < heist_runtime_workers(rt); i++) {
        heist_worker_stats s = HEIST_WORKER_STATS_INIT;
        if (heist_runtime_stats(rt, i, &s) == 0) stolen += s.stolen;
    }
    return stolen;
}

static void run_in(heist_runtime *rt, unsigned flags, struct forkjoin *out) {
    struct board empty = {0};
    heist_task *root = NULL;
    void *n = NULL;
    uint64_t tasks = atomic_load_explicit(&tasks_made, memory_order_relaxed), stolen = stolen_so_far(rt);
    branch_options.flags = flags;
    double start = heist_time();
    out->err = heist_loop_create_task(heist_runtime_loop(rt, 0), branch, &empty, &branch_options, &root);
    if (out->err == 0) out->err = heist_await(root, &n);
    out->seconds = heist_time() - start;
    out->stolen = stolen_so_far(rt) - stolen;
    out->tasks = atomic_load_explicit(&tasks_made, memory_order_relaxed) - tasks;
    out->right = out->err == 0 && (uintptr_t)n == known_count;
    heist_unref(root);
}

static void run_alone(struct forkjoin *out) {
    heist_runtime_options options = HEIST_RUNTIME_OPTIONS_INIT;
    heist_runtime *rt = NULL;
    options.workers = 1;
    options.name = "alone";
    out->err = heist_runtime_new(&options, &rt);
    if (out->err < 0) return;
    run_in(rt, 0, out);
    int err = heist_runtime_close(rt, HEIST_FOREVER);
    if (out->err == 0) out->err = err;
    heist_runtime_unref(rt);
}

void forkjoin_run(heist_runtime *rt, int where, struct forkjoin *out) {
    *out = (struct forkjoin){0};
    if (where == FORKJOIN_ALONE)
        run_alone(out);
    else
        run_in(rt, where == FORKJOIN_PINNED ? HEIST_TASK_PINNED : 0, out);
}
