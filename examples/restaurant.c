/* restaurant: three tables and a progress indicator, gathered (APP-07).
 *
 * The indicator prints a dot every three minutes, and asks which tasks are not done.
 * When it is alone it ends, and with it the gather.  That works because a gather as a
 * future is no task itself.  A minute is a second of virtual time. */
#include <heist.h>
#include <stdint.h>
#include <stdio.h>

/* The same numbers in every run. */
static double uniform(double low, double high) {
    static uint32_t seed = 4;
    seed = seed * 1103515245u + 12345u;
    return low + (high - low) * (seed >> 8) / 16777216.0;
}

static int prepare_order(const char *dish) {
    int err = heist_sleep(uniform(30, 50));
    if (err == 0) printf("   [ready in the kitchen: %s]\n", dish);
    return err;
}

static int serve_table(void *arg, void **out) {
    static const char *const dishes[] = {"soup", "dumplings", "noodles"};
    int table = *(int *)arg, err;
    const char *dish = dishes[(int)uniform(0, 3)];
    (void)out;
    if ((err = heist_sleep(uniform(0, 2))) < 0) return err;
    printf("table %d: welcome, here are your menus\n", table);
    if ((err = heist_sleep(uniform(0, 10))) < 0) return err;
    printf("table %d: what will you have today?\n", table);
    if ((err = prepare_order(dish)) < 0) return err;
    printf("table %d: here is your meal: %s\n", table, dish);
    if ((err = heist_sleep(uniform(20, 40))) < 0) return err;
    printf("table %d: here is your check\n", table);
    if ((err = heist_sleep(uniform(0, 10))) < 0) return err;
    printf("table %d: thanks for your visit\n", table);
    return 0;
}

static int progress_indicator(void *arg, void **out) {
    heist_loop *loop = arg;
    (void)out;
    for (;;) {
        heist_task **tasks;
        size_t count;
        int err = heist_sleep(3);
        if (err < 0) return err;
        printf(".\n");
        if ((err = heist_all_tasks(loop, &tasks, &count)) < 0) return err; /* those that are not done */
        heist_task_list_free(tasks, count);
        if (count == 1) {
            printf("only the progress indicator is left\n");
            return 0;
        }
    }
}

static int play(heist_loop *loop) {
    static int number[] = {1, 2, 3};
    heist_awaitable coroutine[4] = {HEIST_CORO(serve_table, &number[0]), HEIST_CORO(serve_table, &number[1]),
                                    HEIST_CORO(serve_table, &number[2]), HEIST_CORO(progress_indicator, loop)};
    heist_future *task[4], *all;
    int err = heist_ensure_futures(loop, coroutine, 4, NULL, NULL, task);
    if (err < 0) return err;
    err = heist_gather_future(task, 4, 0, &all);
    heist_unref_all(task, 4);
    if (err < 0) return err;
    err = heist_loop_run_until_complete(loop, all, NULL);
    heist_unref(all);
    return err;
}

int main(void) {
    heist_runtime_options options = HEIST_RUNTIME_OPTIONS_INIT;
    heist_loop *loop;
    options.flags = HEIST_RUNTIME_VIRTUAL_TIME;
    if (heist_loop_new(&options, &loop) < 0) return 1;
    int err = play(loop);
    heist_loop_close(loop);
    heist_loop_unref(loop);
    return err < 0;
}
