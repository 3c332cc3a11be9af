/* timeout: an hour's sleep that gets one second (APP-12).
 *
 * wait_for cancels what it waits for, waits until that has really ended, and returns
 * -ETIMEDOUT.  A limit can stand around a block as well, and a call that has a deadline
 * of its own gives up without cancelling anybody. */
#include <heist.h>
#include <stdio.h>

static int eternity(void *arg, void **out) {
    const char *who = arg;
    (void)out;
    int err = heist_sleep(3600);
    if (err == -ECANCELED) printf("%s: cancelled\n", who);
    if (err == 0) printf("%s: yay!\n", who);
    return err;
}

static void report(const char *how, int err, double begin) {
    if (err == -ETIMEDOUT) printf("%s: timeout! after %.0f s\n", how, heist_time() - begin);
    else printf("%s: %s\n", how, heist_error_name(err));
}

static int main_coro(void *arg, void **out) {
    static char first[] = "the coroutine", second[] = "the block", third[] = "the task";
    heist_timeout limit = HEIST_TIMEOUT_INIT;
    heist_task *task;
    (void)arg, (void)out;

    double begin = heist_time();
    report("wait_for", heist_wait_for_coroutine(eternity, first, NULL, 1, NULL), begin);

    begin = heist_time();
    int err = heist_timeout_enter(&limit, 1);
    if (err < 0) return err;
    err = eternity(second, NULL); /* awaited in place: no task */
    report("a limit around a block", heist_timeout_exit(&limit, err), begin);

    begin = heist_time();
    if ((err = heist_create_task(eternity, third, NULL, &task)) < 0) return err;
    report("a deadline of the call", heist_await_until(task, begin + 1, NULL), begin);
    err = heist_await(task, NULL); /* it went on */
    heist_unref(task);
    return err;
}

int main(void) {
    heist_runtime_options options = HEIST_RUNTIME_OPTIONS_INIT;
    options.workers = 1;
    options.flags = HEIST_RUNTIME_VIRTUAL_TIME;
    return heist_run(main_coro, NULL, &options, NULL) < 0;
}
