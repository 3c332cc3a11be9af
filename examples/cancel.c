/* cancel: a request arrives where the task waits; the task cleans up and passes it on (APP-12).
 *
 * heist_cancel only asks.  The sleep of the task returns -ECANCELED; the body may still
 * wait during its clean-up, for one request is delivered once; and the task counts as
 * cancelled when the body has returned -ECANCELED, not before. */
#include <heist.h>
#include <stdio.h>

static int cancel_me(void *arg, void **out) {
    (void)arg, (void)out;
    printf("cancel_me: before the sleep\n");
    int err = heist_sleep(3600);
    if (err == -ECANCELED) printf("cancel_me: the sleep was cancelled\n");
    (void)heist_sleep(0.01); /* a wait during the clean-up */
    printf("cancel_me: after the sleep\n");
    return err;
}

static int main_coro(void *arg, void **out) {
    heist_task *task;
    (void)arg, (void)out;
    int err = heist_create_task(cancel_me, NULL, NULL, &task);
    if (err < 0) return err;
    err = heist_sleep(0.1);
    heist_cancel(task);
    if (err == 0 && heist_await(task, NULL) == -ECANCELED && heist_future_cancelled(task))
        printf("main: cancel_me is cancelled now\n");
    heist_unref(task);
    return err;
}

int main(void) {
    heist_loop *loop;
    int err = heist_loop_new(NULL, &loop);
    if (err < 0) return 1;
    err = heist_loop_run_coroutine(loop, main_coro, NULL, NULL, NULL);
    heist_loop_close(loop);
    heist_loop_unref(loop);
    return err < 0;
}
