/* interrupt: Ctrl-C in the middle of a run, and an orderly end (APP-03).
 *
 * The handler of SIGINT writes to a descriptor that the loop watches; its reader stops
 * the loop, so run_until_complete comes back with HEIST_ESTOPPED and everything still
 * in place.  Then each task is printed and cancelled (0: it had ended, 1: the request was recorded),
 * one more run lets them clean up, and the loop closes.  The program interrupts itself
 * when the first task has ended; `interrupt wait` leaves that to you. */
#include <heist.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

static int interrupts; /* an eventfd */

static void on_sigint(int number) {
    uint64_t one = 1;
    int saved = errno;
    (void)number;
    if (write(interrupts, &one, sizeof one) < 0) {} /* full: then it is readable already */
    errno = saved;
}

static int on_interrupt(void *loop) {
    uint64_t count;
    if (read(interrupts, &count, sizeof count) < 0) return -errno;
    printf("interrupted\n");
    return heist_loop_stop(loop);
}

static void interrupt_myself(heist_future *f, void *user) {
    (void)f, (void)user;
    raise(SIGINT);
}

static int do_some_work(void *arg, void **out) {
    const double *seconds = arg;
    (void)out;
    printf("waiting: %g\n", *seconds);
    int err = heist_sleep(*seconds);
    if (err == -ECANCELED) printf("cleaning up: %g\n", *seconds);
    return err;
}

static int gather_them(void *arg, void **out) {
    (void)out;
    return heist_gather(arg, 3, NULL, 0);
}

static int play(heist_loop *loop, int alone) {
    double seconds[3] = {0.2, 20, 30};
    heist_task *task[4] = {NULL};
    int err = heist_loop_add_reader(loop, interrupts, on_interrupt, loop, NULL);
    for (int i = 0; i < 3 && err == 0; i++)
        err = heist_loop_create_task(loop, do_some_work, &seconds[i], NULL, &task[i]);
    if (err == 0) err = heist_loop_create_task(loop, gather_them, task, NULL, &task[3]);
    if (err == 0 && alone) err = heist_future_add_done_callback(task[0], interrupt_myself, NULL, NULL);
    if (err < 0) return err;

    err = heist_loop_run_until_complete(loop, task[3], NULL);
    printf("the run ended with %s\n", heist_error_name(err));
    for (int i = 0; i < 4; i++) {
        const char *what = i < 3 ? "work" : "gather", *state = heist_future_done(task[i]) ? "finished" : "pending";
        printf("%s %s, cancel: %d\n", what, state, heist_cancel(task[i]));
    }
    heist_loop_remove_reader(loop, interrupts);
    int again = heist_loop_run_until_complete(loop, task[3], NULL);
    printf("the second run ended with %s\n", heist_error_name(again));
    for (int i = 0; i < 4; i++) heist_unref(task[i]);
    return err == HEIST_ESTOPPED && again == -ECANCELED ? 0 : -EPROTO;
}

int main(int argc, char **argv) {
    heist_loop *loop;
    interrupts = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (interrupts < 0 || heist_loop_new(NULL, &loop) < 0) return 1;
    signal(SIGINT, on_sigint); /* heist touches no signal unless asked */
    int err = play(loop, !(argc > 1 && strcmp(argv[1], "wait") == 0));
    heist_loop_close(loop);
    heist_loop_unref(loop);
    close(interrupts);
    return err < 0;
}
