/* A process for heist-ps to look at: tasks that wait for each other, without or with a cycle.  Says "ready", and ends
 * when its standard input does. */
#include <heist.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static _Atomic(heist_task *) one, two;
static _Atomic(int) met; /* one knows two */

static int leaf(void *arg, void **out) {
    (void)arg, (void)out;
    return heist_sleep(3600);
}

static int low(void *arg, void **out) {
    (void)out;
    return heist_await(arg, NULL);
}

static int await_two(void *arg, void **out) {
    (void)arg, (void)out;
    while (!two) heist_sleep(0.01);
    met = 1;
    return heist_await(two, NULL);
}

static int await_one(void *arg, void **out) {
    (void)arg, (void)out;
    return heist_await(one, NULL);
}

static int gather(void *arg, void **out) {
    (void)out;
    return heist_gather(arg, 2, NULL, 0);
}

static heist_task *start(heist_runtime *rt, heist_coro_fn fn, void *arg, const char *name) {
    heist_task_options opts = HEIST_TASK_OPTIONS_INIT;
    opts.name = name;
    heist_task *t;
    if (heist_runtime_run_coroutine(rt, fn, arg, &opts, &t) < 0) abort();
    return t;
}

int main(int argc, char **argv) {
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    heist_runtime *rt;
    opts.workers = 2;
    opts.name = "target";
    if (heist_runtime_new(&opts, &rt) < 0) return 1;
    if (argc > 1 && !strcmp(argv[1], "cycle")) {
        one = start(rt, await_two, NULL, "one");
        two = start(rt, await_one, NULL, "two");
        while (!met) usleep(1000);
    } else {
        static heist_future *both[2];
        both[0] = start(rt, leaf, NULL, "a \"leaf\"");
        both[1] = start(rt, low, both[0], "low");
        start(rt, gather, both, "gatherer");
    }
    /* Suspended all, however slow the machine: each has a stack to show. */
    for (int quiet = 0; quiet < 3;) {
        heist_task **list;
        size_t n;
        if (heist_runtime_all_tasks(rt, &list, &n) < 0) return 1;
        void *frames[8];
        int standing = 0;
        for (size_t i = 0; i < n; i++) standing += heist_task_get_stack(list[i], frames, 8) > 0;
        quiet = standing == (int)n ? quiet + 1 : 0;
        heist_task_list_free(list, n);
        usleep(20000);
    }
    puts("ready");
    fflush(stdout);
    while (getchar() != EOF) {
    }
    _exit(0);
}
