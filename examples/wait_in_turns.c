/* wait_in_turns: wait for the first of ten, then for two seconds, then for all the rest (APP-11).
 *
 * heist_wait puts the array into order, those that are done before those that are
 * pending, and cancels nobody.  So what is pending is the rest of the same array, and may
 * be waited for again. */
#include <heist.h>
#include <stdint.h>
#include <stdio.h>

#define TASKS 10

struct job {
    int tag;
    double seconds;
};

static double uniform(double low, double high) {
    static uint32_t seed = 5;
    seed = seed * 1103515245u + 12345u;
    return low + (high - low) * (seed >> 8) / 16777216.0;
}

static int coro(void *arg, void **out) {
    struct job *job = arg;
    *out = &job->tag;
    return heist_sleep(job->seconds);
}

/* Prints the results of the first `done`, which have ended. */
static int print(const char *title, heist_future **task, int done, size_t pending) {
    printf("%s:", title);
    for (int i = 0; i < done; i++) {
        void *tag;
        int err = heist_future_result(task[i], &tag);
        if (err < 0) return err;
        printf(" %d", *(int *)tag);
    }
    printf("; unfinished: %zu\n", pending);
    return 0;
}

static int wait_in_turns(heist_future **task, size_t n) {
    static const struct turn {
        const char *title;
        int return_when;
        double timeout;
    } turns[] = {{"the first", HEIST_FIRST_COMPLETED, HEIST_FOREVER},
                 {"two seconds later", HEIST_ALL_COMPLETED, 2},
                 {"all others", HEIST_ALL_COMPLETED, HEIST_FOREVER}};
    int in_all = 0;
    for (int i = 0; i < 3 && n > 0; i++) {
        size_t pending;
        int done = heist_wait(task, n, turns[i].return_when, turns[i].timeout, &pending);
        if (done < 0) return done;
        int err = print(turns[i].title, task, done, pending);
        if (err < 0) return err;
        in_all += done;
        task += done; /* the pending ones */
        n = pending;
    }
    printf("in all: %d\n", in_all);
    return 0;
}

static int main_coro(void *arg, void **out) {
    struct job *jobs = arg;
    heist_awaitable coroutine[TASKS];
    heist_future *task[TASKS];
    (void)out;
    for (int i = 0; i < TASKS; i++) {
        jobs[i] = (struct job){i + 1, uniform(0.5, 5)};
        coroutine[i] = HEIST_CORO(coro, &jobs[i]);
    }
    int err = heist_ensure_futures(NULL, coroutine, TASKS, NULL, NULL, task);
    if (err < 0) return err;
    err = wait_in_turns(task, TASKS);
    heist_unref_all(task, TASKS);
    return err;
}

int main(void) {
    heist_runtime_options options = HEIST_RUNTIME_OPTIONS_INIT;
    struct job jobs[TASKS]; /* here, since a task may outlive a main that fails */
    heist_loop *loop;
    options.flags = HEIST_RUNTIME_VIRTUAL_TIME;
    if (heist_loop_new(&options, &loop) < 0) return 1;
    int err = heist_loop_run_coroutine(loop, main_coro, jobs, NULL, NULL);
    heist_loop_close(loop);
    heist_loop_unref(loop);
    return err < 0;
}
