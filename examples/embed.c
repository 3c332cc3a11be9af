/* embed: a runtime beside the threads that a program has already.
 *
 * Three threads of the program's own hand coroutines to one runtime and wait for the
 * answers; none of them runs a loop.  A coroutine forks in turn, so the workers share
 * the work out by stealing.  Closing gives every thread back. */
#include <heist.h>
#include <pthread.h>
#include <stdio.h>

#define THREADS 3

struct range {
    long first, last; /* inclusive */
};

/* Sums a range: halves it between two tasks while it is long. */
static int sum(void *arg, void **out) {
    const struct range *r = arg;
    long total = 0;
    if (r->last - r->first < 10000) {
        for (long i = r->first; i <= r->last; i++) total += i;
        *out = (void *)total; /* a number as a result needs no memory */
        return 0;
    }
    long middle = r->first + (r->last - r->first) / 2;
    struct range half[2] = {{r->first, middle}, {middle + 1, r->last}};
    heist_task *other;
    void *a = NULL, *b = NULL;
    int err = heist_create_task(sum, &half[1], NULL, &other);
    if (err < 0) return err;
    int mine = sum(&half[0], &a); /* calling a coroutine from another is a plain call */
    err = heist_await(other, &b);
    heist_unref(other);
    *out = (void *)((long)a + (long)b);
    return mine < 0 ? mine : err;
}

struct asker {
    heist_runtime *rt;
    pthread_t thread;
    struct range range;
    long answer;
    int err;
};

static void *ask(void *arg) {
    struct asker *a = arg;
    heist_task *task;
    void *answer = NULL;
    a->err = heist_runtime_run_coroutine(a->rt, sum, &a->range, NULL, &task);
    if (a->err < 0) return NULL;
    a->err = heist_await(task, &answer); /* blocks this thread, and no worker */
    a->answer = (long)answer;
    heist_unref(task);
    return NULL;
}

int main(void) {
    heist_runtime_options options = HEIST_RUNTIME_OPTIONS_INIT;
    struct asker asker[THREADS];
    heist_runtime *rt;
    int failed = 0;
    options.workers = 2;
    options.name = "embedded";
    if (heist_runtime_new(&options, &rt) < 0) return 1;
    for (int i = 0; i < THREADS; i++) {
        asker[i] = (struct asker){.rt = rt, .range = {1, 100000 * (i + 1)}};
        if (pthread_create(&asker[i].thread, NULL, ask, &asker[i]) != 0) return 1;
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(asker[i].thread, NULL);
        failed |= asker[i].err < 0;
        printf("1 + 2 + ... + %ld = %ld\n", asker[i].range.last, asker[i].answer);
    }
    int err = heist_runtime_close(rt, 10);
    printf("closed: %s\n", err == 0 ? "yes" : heist_error_name(err));
    heist_runtime_unref(rt);
    return failed || err < 0;
}
