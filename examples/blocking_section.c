/* blocking_section: one call that blocks, in the middle of a task.
 *
 * A task that blocks without telling is found out by the others after a while.  One that says so beforehand holds up
 * nobody: what stands in its worker's queue goes to the others at once.  Here the task waits, as a C library would, on a
 * condition of pthreads, for something that only a task behind it can bring. */
#include <heist.h>
#include <pthread.h>
#include <stdio.h>

struct mailbox {
    pthread_mutex_t lock;
    pthread_cond_t arrived;
    const char *letter;
};

/* From some library that knows nothing of coroutines. */
static const char *wait_for_letter(struct mailbox *box) {
    pthread_mutex_lock(&box->lock);
    while (!box->letter) pthread_cond_wait(&box->arrived, &box->lock);
    pthread_mutex_unlock(&box->lock);
    return box->letter;
}

static int postman(void *arg, void **out) {
    struct mailbox *box = arg;
    (void)out;
    pthread_mutex_lock(&box->lock);
    box->letter = "a letter";
    pthread_cond_signal(&box->arrived);
    pthread_mutex_unlock(&box->lock);
    return 0;
}

static int main_coro(void *arg, void **out) {
    struct mailbox *box = arg;
    heist_task *task;
    (void)out;
    int err = heist_create_task(postman, box, NULL, &task); /* it stands in this worker's queue */
    if (err < 0) return err;
    err = heist_blocking_begin();
    if (err == 0) {
        printf("came while the worker was blocked: %s\n", wait_for_letter(box));
        err = heist_blocking_end();
    }
    if (err == 0) err = heist_await(task, NULL);
    heist_unref(task);
    return err;
}

int main(void) {
    struct mailbox box = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, NULL};
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    opts.workers = 1;
    opts.flags = HEIST_RUNTIME_SPARE_THREAD; /* with one worker, somebody has to be there */
    int err = heist_run(main_coro, &box, &opts, NULL);
    if (err < 0) fprintf(stderr, "blocking_section: %s\n", heist_strerror(err));
    return err < 0;
}
