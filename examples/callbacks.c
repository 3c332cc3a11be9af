/* callbacks: a function that runs when a task is done (APP-04).
 *
 * It gets the very future that the others hold, in a later pass of the future's loop,
 * and an argument of its own.  Two of them run in the order of their adding; one that
 * was removed does not run. */
#include <heist.h>
#include <stdio.h>

static const char *state_of(heist_future *f) {
    return heist_future_done(f) ? heist_future_cancelled(f) ? "cancelled" : "done" : "pending";
}

static int do_some_work(void *arg, void **out) {
    int *x = arg;
    printf("waiting: %d\n", *x);
    int err = heist_sleep(*x / 10.0);
    *out = x;
    return err;
}

static heist_task *expected;

static void callback(heist_future *f, void *user) {
    void *result = NULL;
    int err = heist_future_result(f, &result);
    printf("%s: %s, %s, %d\n", (const char *)user, state_of(f), f == expected ? "the same task" : "another task",
           err < 0 ? err : *(int *)result);
}

int main(void) {
    static int x = 2;
    static char first[] = "first callback", second[] = "second callback", third[] = "third callback";
    heist_loop *loop;
    heist_task *task;
    if (heist_loop_new(NULL, &loop) < 0) return 1;
    if (heist_loop_create_task(loop, do_some_work, &x, NULL, &task) < 0) return 1;
    expected = task;
    printf("without a callback: %s\n", state_of(task));
    int err = heist_future_add_done_callback(task, callback, first, NULL);
    if (err == 0) err = heist_future_add_done_callback(task, callback, second, NULL);
    if (err == 0) err = heist_future_add_done_callback(task, callback, third, NULL);
    printf("with three callbacks: %s\n", state_of(task));
    printf("removed: %d\n", heist_future_remove_done_callback(task, callback, third));
    if (err == 0) err = heist_loop_run_until_complete(loop, task, NULL);
    printf("afterwards: %s\n", state_of(task));
    heist_unref(task);
    heist_loop_close(loop);
    heist_loop_unref(loop);
    return err < 0;
}
