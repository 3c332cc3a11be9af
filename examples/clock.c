/* clock: a line once a second, for five seconds of the loop's clock (APP-08).
 *
 * The runtime has virtual time: whenever it has nothing to do, its clock jumps to the
 * next timer.  The five seconds pass at once, to the nanosecond, which is how timing is
 * tested.  `clock real` uses the clock on the wall. */
#include <heist.h>
#include <stdio.h>
#include <string.h>

static int display(void *arg, void **out) {
    (void)arg, (void)out;
    double start = heist_time(), end = start + 5.0;
    for (;;) {
        printf("%.0f s\n", heist_time() - start);
        if (heist_time() + 1.0 > end - 0.5) return 0; /* the next line would come at the end */
        int err = heist_sleep(1.0);
        if (err < 0) return err;
    }
}

int main(int argc, char **argv) {
    heist_runtime_options options = HEIST_RUNTIME_OPTIONS_INIT;
    int real = argc > 1 && strcmp(argv[1], "real") == 0;
    options.workers = 1;
    options.flags = real ? 0 : HEIST_RUNTIME_VIRTUAL_TIME;
    return heist_run(display, NULL, &options, NULL) < 0;
}
