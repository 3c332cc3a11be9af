/* factorials: three computations that take turns at each wait, gathered (APP-09).
 *
 * On a loop of its own the interleaving is exact: steps of tasks stand in one queue, and
 * timers with equal deadlines fire in the order of their making.  On a runtime of
 * several workers only the order within each task is left.  Virtual time makes the waits
 * of one second pass at once. */
#include <heist.h>
#include <stdio.h>

struct job {
    const char *name;
    int number;
    long result;
};

static int factorial(void *arg, void **out) {
    struct job *j = arg;
    long f = 1;
    for (int i = 2; i <= j->number; i++) {
        printf("task %s: factorial(%d), step %d\n", j->name, j->number, i);
        int err = heist_sleep(1);
        if (err < 0) return err;
        f *= i;
    }
    printf("task %s: factorial(%d) = %ld\n", j->name, j->number, f);
    j->result = f;
    *out = &j->result;
    return 0;
}

static int main_coro(void *arg, void **out) {
    struct job jobs[] = {{"A", 2, 0}, {"B", 3, 0}, {"C", 4, 0}};
    heist_task *task[3];
    void *result[3] = {NULL};
    int made = 0, err = 0;
    (void)arg, (void)out;
    for (; made < 3 && err == 0; made += err == 0) err = heist_create_task(factorial, &jobs[made], NULL, &task[made]);
    int failed = heist_gather(task, (size_t)made, result, 0); /* after a failure too: the tasks use `jobs` */
    if (err == 0) err = failed;
    for (int i = 0; i < made; i++) {
        if (err == 0) printf("%ld%c", *(long *)result[i], i < 2 ? ' ' : '\n');
        heist_unref(task[i]);
    }
    return err;
}

int main(void) {
    heist_runtime_options options = HEIST_RUNTIME_OPTIONS_INIT;
    heist_loop *loop;
    options.flags = HEIST_RUNTIME_VIRTUAL_TIME;
    int err = heist_loop_new(&options, &loop);
    if (err < 0) return 1;
    err = heist_loop_run_coroutine(loop, main_coro, NULL, NULL, NULL);
    heist_loop_close(loop);
    heist_loop_unref(loop);
    return err < 0;
}
