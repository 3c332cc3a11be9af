/* future_set: a future that another coroutine completes, and two ways to wait for it (APP-06).
 *
 * run_until_complete waits for it and gives its value.  run_forever waits for nothing:
 * there a done callback of the future stops the loop. */
#include <heist.h>
#include <stdio.h>

static char message[] = "the future is done";

static int complete_it(void *arg, void **out) {
    heist_future *future = arg;
    (void)out;
    int err = heist_sleep(0.2);
    if (err == 0) err = heist_future_set_result(future, message, NULL); /* not ours to free: no destructor */
    return err;
}

static void print_and_stop(heist_future *f, void *loop) {
    void *value = NULL;
    if (heist_future_result(f, &value) == 0) printf("run_forever: %s\n", (const char *)value);
    heist_loop_stop(loop);
}

static int until_complete(heist_loop *loop) {
    heist_future *future;
    void *value = NULL;
    int err = heist_loop_create_future(loop, &future);
    if (err < 0) return err;
    err = heist_loop_create_task(loop, complete_it, future, NULL, NULL);
    if (err == 0) err = heist_loop_run_until_complete(loop, future, &value);
    if (err == 0) printf("run_until_complete: %s\n", (const char *)value);
    heist_unref(future);
    return err;
}

static int forever(heist_loop *loop) {
    heist_future *future;
    int err = heist_loop_create_future(loop, &future);
    if (err < 0) return err;
    err = heist_future_add_done_callback(future, print_and_stop, loop, NULL);
    if (err == 0) err = heist_loop_create_task(loop, complete_it, future, NULL, NULL);
    if (err == 0) err = heist_loop_run_forever(loop);
    heist_unref(future);
    return err;
}

int main(void) {
    heist_loop *loop;
    int err = heist_loop_new(NULL, &loop);
    if (err < 0) return 1;
    err = until_complete(loop);
    if (err == 0) err = forever(loop);
    heist_loop_close(loop);
    heist_loop_unref(loop);
    return err < 0;
}
