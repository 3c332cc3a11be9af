/* A program with one suspended task of the library, for test_task.sh to look at: it stops in look_here while the task
 * waits, some calls deep, for a future. */
#include <errno.h>
#include <heist.h>
#include <unistd.h>

void look_here(void);
int read_body(heist_future *body);
int handle_request(heist_future *body);

heist_task *suspended;

__attribute__((noinline)) void look_here(void) { __asm__ volatile("" ::: "memory"); }

__attribute__((noinline)) int read_body(heist_future *body) {
    volatile int err = heist_await(body, NULL);
    return err;
}

__attribute__((noinline)) int handle_request(heist_future *body) {
    volatile int err = read_body(body);
    return err;
}

static int handler(void *body, void **out) {
    (void)out;
    volatile int err = handle_request(body);
    return err;
}

int main(void) {
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    heist_runtime *rt;
    heist_future *body;
    void *frame;
    int n;
    opts.workers = 2;
    if (heist_runtime_new(&opts, &rt)) return 1;
    if (heist_loop_create_future(heist_runtime_loop(rt, 0), &body)) return 2;
    if (heist_runtime_run_coroutine(rt, handler, body, NULL, &suspended)) return 3;
    while ((n = heist_task_get_stack(suspended, &frame, 1)) == 0 || n == -EBUSY) usleep(200); /* not yet in its wait */
    look_here();
    if (heist_future_set_result(body, NULL, NULL) || heist_await(suspended, NULL)) return 4;
    heist_unref(suspended);
    heist_unref(body);
    return heist_runtime_close(rt, HEIST_FOREVER) ? 5 : 0;
}
