/* hello: three coroutines wait 1, 2 and 4 seconds, together 4.  The README shows this program. */
#include <heist.h>
#include <stdio.h>
#include <stdlib.h>

static int work(void *arg, void **out) {    /* a coroutine is a function */
    double *seconds = arg;
    int err = heist_sleep(*seconds);        /* suspends this task, blocks nobody */
    if (err < 0) return err;                /* -ECANCELED: this task ends cancelled */
    *out = seconds;
    return 0;
}

static int main_coro(void *arg, void **out) {
    (void)arg, (void)out;
    double s[3] = {1, 2, 4}, start = heist_time();
    heist_task *t[3];
    void *result[3];
    for (int i = 0; i < 3; i++)
        if (heist_create_task(work, &s[i], NULL, &t[i]) < 0) abort();
    int err = heist_gather(t, 3, result, 0); /* returns when all three have ended */
    for (int i = 0; i < 3 && err == 0; i++) printf("waited %g s\n", *(double *)result[i]);
    printf("together %.0f s\n", heist_time() - start);
    for (int i = 0; i < 3; i++) heist_unref(t[i]);
    return err;
}

int main(void) { return heist_run(main_coro, NULL, NULL, NULL) < 0; }
