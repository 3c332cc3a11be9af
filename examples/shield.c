/* shield: who waits is cancelled, what it waits for goes on (APP-12).
 *
 * Without the shield the request goes through to what is awaited.  With it the one who
 * waits gets -ECANCELED at once, and the work ends by itself.  Cancelling the work itself
 * goes through the shield in the other direction. */
#include <heist.h>
#include <stdio.h>

static int something(void *arg, void **out) {
    (void)out;
    int err = heist_sleep(2);
    printf("  something: %s\n", err == -ECANCELED ? "cancelled" : "done");
    if (err == 0) ++*(int *)arg;
    return err;
}

static int wait_openly(void *arg, void **out) {
    int err = heist_await(arg, out);
    printf("  the waiter: %s\n", heist_error_name(err));
    return err;
}

static int wait_with_shield(void *arg, void **out) {
    heist_future *shield;
    int err = heist_shield(arg, &shield);
    if (err < 0) return err;
    err = heist_await(shield, out);
    printf("  the waiter: %s\n", heist_error_name(err));
    heist_unref(shield);
    return err;
}

/* One works, one waits for it, and after a second one of the two is cancelled. */
static int scene(const char *title, heist_coro_fn waiter_fn, int cancel_the_work) {
    static int times; /* static: whoever is still there after a failure may write to it */
    heist_task *work, *waiter;
    printf("%s\n", title);
    int err = heist_create_task(something, &times, NULL, &work);
    if (err < 0) return err;
    if ((err = heist_create_task(waiter_fn, work, NULL, &waiter)) == 0) {
        err = heist_sleep(1);
        heist_cancel(cancel_the_work ? work : waiter);
        heist_await(waiter, NULL);
        if (err == 0) printf("  now the work is %s\n", heist_future_done(work) ? "done" : "pending");
        heist_await(work, NULL);
        heist_unref(waiter);
    }
    heist_unref(work);
    return err;
}

static int main_coro(void *arg, void **out) {
    (void)arg, (void)out;
    int err = scene("without a shield", wait_openly, 0);
    if (err == 0) err = scene("with a shield", wait_with_shield, 0);
    if (err == 0) err = scene("with a shield, and the work itself is cancelled", wait_with_shield, 1);
    return err;
}

int main(void) {
    heist_runtime_options options = HEIST_RUNTIME_OPTIONS_INIT;
    heist_loop *loop;
    options.flags = HEIST_RUNTIME_VIRTUAL_TIME;
    if (heist_loop_new(&options, &loop) < 0) return 1;
    int err = heist_loop_run_coroutine(loop, main_coro, NULL, NULL, NULL);
    heist_loop_close(loop);
    heist_loop_unref(loop);
    return err < 0;
}
