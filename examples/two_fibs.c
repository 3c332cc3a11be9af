/* two_fibs: two coroutines that think for some random time before each number; the one that wakes first goes on
 * first (APP-05).
 *
 * On a loop of its own, in virtual time, the order is exact, and the random numbers are the same in every run. */
#include <heist.h>
#include <stdint.h>
#include <stdio.h>

struct thinker {
    const char *name;
    double seconds; /* for one number, at most */
    int n;
};

static double uniform(double low, double high) {
    static uint32_t seed = 2;
    seed = seed * 1103515245u + 12345u;
    return low + (high - low) * (seed >> 8) / 16777216.0;
}

static int think(void *arg, void **out) {
    const struct thinker *t = arg;
    long a = 0, b = 1;
    (void)out;
    for (int i = 0; i < t->n; i++) {
        double seconds = uniform(0, t->seconds);
        int err = heist_sleep(seconds);
        if (err < 0) return err;
        printf("%s one thinks %.2f s to get %ld\n", t->name, seconds, b);
        long next = a + b;
        a = b;
        b = next;
    }
    return 0;
}

static int main_coro(void *arg, void **out) {
    struct thinker thinkers[] = {{"smart", 0.2, 10}, {"stupid", 0.4, 10}};
    heist_task *task[2];
    int made = 0, err = 0;
    (void)arg, (void)out;
    for (; made < 2 && err == 0; made += err == 0) err = heist_create_task(think, &thinkers[made], NULL, &task[made]);
    int failed = heist_gather(task, (size_t)made, NULL, 0);
    for (int i = 0; i < made; i++) heist_unref(task[i]);
    return err ? err : failed;
}

int main(void) {
    heist_runtime_options options = HEIST_RUNTIME_OPTIONS_INIT;
    heist_loop *loop;
    options.flags = HEIST_RUNTIME_VIRTUAL_TIME;
    if (heist_loop_new(&options, &loop) < 0) return 1;
    int err = heist_loop_run_coroutine(loop, main_coro, NULL, NULL, NULL);
    if (err == 0) printf("all fib finished\n");
    heist_loop_close(loop);
    heist_loop_unref(loop);
    return err < 0;
}
