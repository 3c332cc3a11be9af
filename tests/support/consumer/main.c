/* A program of somebody else's, built out of an install tree (tests/support/check_consumer).
 * It is C11 and C++17 at once, and does one thing that needs every part: a task on a
 * runtime with two workers whose result comes back. */
#include <heist.h>

#include <stdio.h>
#include <string.h>

static int twice(void *arg, void **out) {
    int *number = (int *)arg;
    int err = heist_sleep(0.001);
    if (err < 0) return err;
    *number *= 2;
    *out = number;
    return 0;
}

static int main_coro(void *arg, void **out) {
    heist_task *task;
    int err = heist_create_task(twice, arg, NULL, &task);
    if (err < 0) return err;
    err = heist_await(task, out);
    heist_unref(task);
    return err;
}

int main(void) {
    int number = 21;
    void *result = NULL;
    if (strcmp(heist_version(), HEIST_VERSION_STRING) != 0) return 2;
    if (heist_run(main_coro, &number, NULL, &result) < 0) return 3;
    printf("%d\n", *(int *)result);
    return number == 42 ? 0 : 4;
}
