/* scene: what every introduction to asyncio shows, on one loop and one thread (APP-01).
 *
 * Tasks exist before the loop runs, they start in the order of their making, and the
 * results come back in the order of the list, not in that of finishing.  The waits are
 * a quarter of the usual 1, 2 and 4 s. */
#include <heist.h>
#include <stdio.h>

static const char *const states[] = {
    [HEIST_PENDING] = "pending", [HEIST_RUNNING] = "running", [HEIST_DONE] = "done", [HEIST_CANCELLED] = "cancelled"};

struct work {
    double quarters;
    char text[64];
};

static int do_some_work(void *arg, void **out) {
    struct work *w = arg;
    printf("waiting: %g quarters\n", w->quarters);
    int err = heist_sleep(w->quarters / 4);
    if (err < 0) return err;
    snprintf(w->text, sizeof w->text, "done after %g quarters", w->quarters);
    *out = w->text; /* in the argument, which outlives this body; a local would not */
    return 0;
}

struct group {
    heist_task *task[3];
};

static int gather_them(void *arg, void **out) {
    struct group *g = arg;
    void *result[3] = {NULL};
    (void)out;
    int err = heist_gather(g->task, 3, result, 0);
    for (int i = 0; i < 3 && err == 0; i++) printf("task result: %s\n", (const char *)result[i]);
    return err;
}

int main(void) {
    struct work w[3] = {{.quarters = 1}, {.quarters = 2}, {.quarters = 4}};
    struct group g = {{NULL}};
    heist_loop *loop;
    if (heist_loop_new(NULL, &loop) < 0) return 1;
    double start = heist_loop_time(loop);
    for (int i = 0; i < 3; i++)
        if (heist_loop_create_task(loop, do_some_work, &w[i], NULL, &g.task[i]) < 0) return 1;
    printf("before the run: %s\n", states[heist_future_state(g.task[0])]);
    int err = heist_loop_run_coroutine(loop, gather_them, &g, NULL, NULL);
    printf("after the run: %s\n", states[heist_future_state(g.task[0])]);
    printf("in all: about %.0f s\n", heist_loop_time(loop) - start);
    for (int i = 0; i < 3; i++) heist_unref(g.task[i]);
    heist_loop_close(loop);
    heist_loop_unref(loop);
    return err < 0;
}
