/* threadsafe: the two doors into a loop that another thread runs.
 *
 * call_soon_threadsafe hands in functions: on one loop they run one after the other, in
 * the order of submission, also when they block.  run_coroutine_threadsafe hands in
 * coroutines: they wait at the same time, and the future that comes back can be awaited
 * right here on a plain thread. */
#include <heist.h>
#include <pthread.h>
#include <stdio.h>
#include <time.h>

static void *run_the_loop(void *loop) {
    int err = heist_loop_run_forever(loop);
    if (err < 0) fprintf(stderr, "the loop ended: %s\n", heist_strerror(err));
    return NULL;
}

struct more_work {
    int tenths;
    heist_future *finished; /* set by the last one */
};

static int more_work(void *arg) {
    struct more_work *m = arg;
    printf("more work %d\n", m->tenths);
    nanosleep(&(struct timespec){0, m->tenths * 100000000L}, NULL); /* blocks the loop's thread */
    printf("finished more work %d\n", m->tenths);
    return m->finished ? heist_future_set_result(m->finished, NULL, NULL) : 0;
}

static int do_some_work(void *arg, void **out) {
    int *tenths = arg;
    printf("waiting %d\n", *tenths);
    int err = heist_sleep(*tenths / 10.0); /* suspends: the loop serves the other one */
    if (err < 0) return err;
    printf("done after %d\n", *tenths);
    *out = tenths;
    return 0;
}

/* The first door. */
static int functions(heist_loop *loop) {
    struct more_work m[2] = {{.tenths = 6}, {.tenths = 3}};
    double start = heist_time();
    int err = heist_future_new(loop, &m[1].finished);
    for (int i = 0; i < 2 && err == 0; i++) err = heist_loop_call_soon_threadsafe(loop, more_work, &m[i], NULL, NULL);
    if (err == 0) err = heist_await(m[1].finished, NULL); /* this thread blocks, the loop goes on */
    if (err == 0) printf("one after the other: %s\n", heist_time() - start >= 0.9 ? "yes" : "no");
    heist_unref(m[1].finished);
    return err;
}

/* The second door. */
static int coroutines(heist_loop *loop) {
    int tenths[2] = {9, 3};
    heist_task *task[2] = {NULL};
    void *result = NULL;
    int err = 0;
    for (int i = 0; i < 2 && err == 0; i++)
        err = heist_run_coroutine_threadsafe(loop, do_some_work, &tenths[i], NULL, &task[i]);
    for (int i = 0; i < 2 && err == 0; i++) {
        err = heist_await(task[i], &result);
        if (err == 0) printf("result: %d\n", *(int *)result);
    }
    for (int i = 0; i < 2; i++) heist_unref(task[i]);
    return err;
}

int main(void) {
    heist_loop *loop;
    pthread_t thread;
    if (heist_loop_new(NULL, &loop) < 0 || pthread_create(&thread, NULL, run_the_loop, loop) != 0) return 1;
    int err = functions(loop);
    if (err == 0) err = coroutines(loop);
    heist_loop_stop(loop);
    pthread_join(thread, NULL);
    heist_loop_close(loop);
    heist_loop_unref(loop);
    return err < 0;
}
