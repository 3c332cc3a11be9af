/* gather_groups: three groups of coroutines, each a gather, in one more gather (APP-10).
 *
 * A gather as a future nests: its value is the list of its results, here a list of three
 * lists.  They stand in the order of the groups, and each in the order of its members,
 * whoever ends first, on however many workers.  Cancelling a group cancels its members. */
#include <heist.h>
#include <stdint.h>
#include <stdio.h>

#define GROUPS 3
static const size_t members[GROUPS] = {5, 3, 9};

struct member {
    double seconds;
    char tag[40];
};

static double uniform(double low, double high) {
    static uint32_t seed = 1;
    seed = seed * 1103515245u + 12345u;
    return low + (high - low) * (seed >> 8) / 16777216.0;
}

static int coro(void *arg, void **out) {
    struct member *m = arg;
    *out = m->tag;
    return heist_sleep(m->seconds);
}

static int make_group(int number, heist_future **out) {
    static struct member all[GROUPS][9]; /* static: the tasks may run before this returns, and long after */
    heist_awaitable coroutine[9];
    heist_future *task[9];
    size_t n = members[number];
    for (size_t i = 0; i < n; i++) {
        struct member *m = &all[number][i];
        m->seconds = uniform(1, 3);
        snprintf(m->tag, sizeof m->tag, "%d.%zu", number + 1, i + 1);
        coroutine[i] = HEIST_CORO(coro, m);
    }
    int err = heist_ensure_futures(NULL, coroutine, n, NULL, NULL, task);
    if (err < 0) return err;
    err = heist_gather_future(task, n, 0, out);
    heist_unref_all(task, n); /* the group holds what it needs */
    return err;
}

static int main_coro(void *arg, void **out) {
    heist_future *group[GROUPS] = {NULL}, *everything = NULL;
    void *value;
    int err = 0;
    (void)arg, (void)out;
    double begin = heist_time();
    for (int g = 0; g < GROUPS && err == 0; g++) err = make_group(g, &group[g]);
    if (err == 0) err = heist_gather_future(group, GROUPS, 0, &everything);
    if (err == 0) err = heist_await(everything, &value);
    for (int g = 0; g < GROUPS && err == 0; g++) {
        void **list = ((void **)value)[g];
        printf("group %d:", g + 1);
        for (size_t i = 0; i < members[g]; i++) printf(" %s", (char *)list[i]);
        printf("\n");
    }
    if (err == 0) printf("all of it within 3 s: %s\n", heist_time() - begin <= 3 ? "yes" : "no");
    heist_unref(everything);
    heist_unref_all(group, GROUPS);
    if (err < 0) return err;

    if ((err = make_group(1, &everything)) < 0) return err;
    heist_cancel(everything);
    printf("a group that was cancelled: %s\n", heist_error_name(heist_await(everything, NULL)));
    heist_unref(everything);
    return 0;
}

int main(void) {
    heist_runtime_options options = HEIST_RUNTIME_OPTIONS_INIT;
    options.flags = HEIST_RUNTIME_VIRTUAL_TIME;
    return heist_run(main_coro, NULL, &options, NULL) < 0;
}
