/* skynet.c: a tree of tasks, ten children each, down to N leaves that give their
 * ordinal; every inner task sums its children.  The children's arguments stand on the
 * parent's stack: it awaits them all before it returns, the newest first: what a worker
 * would run next it runs in place of the await. */
#include "common.h"

enum { CHILDREN = 10 };

struct node {
    size_t first; /* ordinal of the first leaf below */
    size_t size;  /* leaves below */
};

static int skynet(void *arg, void **out) {
    const struct node *me = arg;
    if (me->size == 1) {
        *out = bench_box(me->first);
        return 0;
    }
    struct node kid[CHILDREN];
    heist_task *task[CHILDREN];
    size_t sum = 0, step = me->size / CHILDREN;
    for (size_t i = 0; i < CHILDREN; i++) {
        kid[i] = (struct node){me->first + i * step, step};
        BENCH_MUST(heist_create_task(skynet, &kid[i], NULL, &task[i]));
    }
    for (size_t i = CHILDREN; i-- > 0;) {
        void *part;
        BENCH_MUST(heist_await(task[i], &part));
        sum += bench_unbox(part);
        heist_unref(task[i]);
    }
    *out = bench_box(sum);
    return 0;
}

static int skynet_main(void *arg, void **out) {
    const struct bench_args *args = arg;
    struct node root = {0, args->n};
    heist_task *task;
    void *sum;
    (void)out;
    int64_t start = bench_now_ns();
    BENCH_MUST(heist_create_task(skynet, &root, NULL, &task));
    BENCH_MUST(heist_await(task, &sum));
    bench_emit("-", args->n, (double)(bench_now_ns() - start) / 1e6, "ms");
    BENCH_CHECK(bench_unbox(sum) == args->n * (args->n - 1) / 2);
    heist_unref(task);
    return 0;
}

void bench_skynet(const struct bench_args *args) {
    size_t leaves = args->n;
    while (leaves % CHILDREN == 0) leaves /= CHILDREN;
    BENCH_CHECK(leaves == 1); /* the tree must come out even: N is a power of ten */
    bench_run(skynet_main, args);
}
