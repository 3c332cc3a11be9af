/* signals: a service that a signal asks to read its settings again, and another to end.
 *
 * SIGHUP is a callback on a loop; SIGTERM is something that a task waits for, while the workers work.  What was there
 * before for either is back at the end.  The program sends itself both; `signals wait` leaves that to you. */
#include <heist.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct service {
    heist_event reloaded;
    int settings; /* how often they were read */
    int alone;    /* sends itself its signals */
};

static int on_hangup(void *arg) {
    struct service *s = arg;
    printf("settings read, time %d\n", ++s->settings);
    return heist_event_set(&s->reloaded);
}

/* The service: works until it is cancelled, and then leaves its desk in order. */
static int work(void *arg, void **out) {
    (void)arg, (void)out;
    int err;
    do err = heist_sleep(0.01);
    while (err == 0);
    printf("work put away\n");
    return err;
}

static int send_signals(void *arg, void **out) {
    struct service *s = arg;
    (void)out;
    for (int i = 0; i < 2; i++) {
        kill(getpid(), SIGHUP);
        int err = heist_event_wait(&s->reloaded);
        if (err < 0) return err;
        heist_event_clear(&s->reloaded);
    }
    kill(getpid(), SIGTERM);
    return 0;
}

static int serve(void *arg, void **out) {
    struct service *s = arg;
    heist_loop *loop;
    heist_signals *ends;
    heist_task *worker;
    const int signals[] = {SIGTERM, SIGINT};
    (void)out;
    int err = heist_get_running_loop(&loop);
    if (err == 0) err = heist_loop_add_signal_handler(loop, SIGHUP, on_hangup, s, NULL);
    if (err < 0) return err;
    err = heist_signals_open(signals, 2, NULL, &ends);
    if (err < 0) return err;
    err = heist_create_task(work, s, NULL, &worker);
    if (err == 0 && s->alone) err = heist_create_task(send_signals, s, NULL, NULL);
    if (err == 0) {
        int sig = heist_signals_next(ends, HEIST_FOREVER);
        printf("ends by SIG%s\n", sig > 0 ? sigabbrev_np(sig) : "?");
        heist_cancel(worker);
        err = heist_await(worker, NULL);
        if (err == -ECANCELED) err = 0;
        heist_unref(worker);
    }
    heist_signals_close(ends);
    return err; /* the loop's handler goes with the loop */
}

int main(int argc, char **argv) {
    struct service s = {.alone = !(argc > 1 && strcmp(argv[1], "wait") == 0)};
    heist_event_init(&s.reloaded);
    return heist_run(serve, &s, NULL, NULL) < 0;
}
