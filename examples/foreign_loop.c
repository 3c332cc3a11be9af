/* foreign_loop: heist inside somebody else's event loop.
 *
 * The program has a poll loop of its own, as a GUI or a game has.  It watches one more
 * descriptor, heist's, calls heist_loop_run_once when it is readable or when the time
 * that heist asked for is over, and never blocks in between.  Timers, coroutines and
 * calls from other threads are served on the thread that polls. */
#include <heist.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

static int finished;
static pthread_t main_thread;

static const char *where(void) { return pthread_equal(pthread_self(), main_thread) ? "main" : "other"; }

static int say(void *text) {
    printf("%s, on the %s thread\n", (const char *)text, where());
    return 0;
}

static int three_steps(void *arg, void **out) {
    (void)arg, (void)out;
    for (int i = 1; i <= 3; i++) {
        int err = heist_sleep(0.6);
        if (err < 0) return err;
        printf("coroutine: step %d, on the %s thread\n", i, where());
    }
    finished = 1;
    return 0;
}

static void *other_thread(void *loop) {
    static char text[] = "a call from another thread";
    int err = heist_loop_call_soon_threadsafe(loop, say, text, NULL, NULL);
    if (err < 0) fprintf(stderr, "%s\n", heist_strerror(err));
    return NULL;
}

/* Milliseconds for poll, rounded up so that it does not wake in vain; -1 for ever. */
static int poll_timeout(double seconds) { return seconds > 3600 ? -1 : (int)ceil(seconds * 1000); }

static int foreign_loop(heist_loop *loop, int own) {
    struct pollfd watched[2] = {{heist_loop_fd(loop), POLLIN, 0}, {own, POLLIN, 0}};
    if (watched[0].fd < 0) return watched[0].fd;
    while (!finished) {
        double timeout = 0;
        int err = heist_loop_run_once(loop, &timeout);
        if (err < 0) return err;
        if (finished) break;
        if (poll(watched, 2, poll_timeout(timeout)) < 0 && errno != EINTR) return -errno;
        if (watched[1].revents & POLLIN) {
            char c;
            if (read(own, &c, 1) == 1) printf("an event of the foreign loop's own\n");
        }
    }
    return 0;
}

int main(void) {
    static char text[] = "a timer";
    heist_loop *loop;
    pthread_t thread;
    int own[2];
    main_thread = pthread_self();
    if (pipe(own) < 0 || heist_loop_new(NULL, &loop) < 0) return 1;
    if (write(own[1], "x", 1) != 1 || pthread_create(&thread, NULL, other_thread, loop) != 0) return 1;
    pthread_join(thread, NULL); /* its call waits in the inbox */
    int err = heist_loop_call_later(loop, 0.4, say, text, NULL, NULL);
    if (err == 0) err = heist_loop_create_task(loop, three_steps, NULL, NULL, NULL);
    if (err == 0) err = foreign_loop(loop, own[0]);
    if (err < 0) fprintf(stderr, "foreign_loop: %s\n", heist_strerror(err));
    heist_loop_close(loop);
    heist_loop_unref(loop);
    close(own[0]);
    close(own[1]);
    return err < 0;
}
