/* workers: a queue of jobs, three workers, and a join.
 *
 * asyncio's classic: whoever makes the jobs puts them into a queue, the workers take them
 * out and say when each is done, and join returns when all are.  Then the queue is shut
 * down, which ends the workers' loops: no cancelling, no sentinel among the jobs.
 * Meanwhile one task listens to two things at once: progress on a channel, and a future
 * that says that it is over. */
#include <heist.h>
#include <stdint.h>
#include <stdio.h>

enum { JOBS = 20, WORKERS = 3 };

struct shop {
    heist_queue *jobs;
    heist_channel *progress;
    heist_future *over;
    int heard;
};

static int worker(void *arg, void **out) {
    struct shop *s = arg;
    void *job;
    int err;
    (void)out;
    while ((err = heist_queue_get(s->jobs, &job)) == 0) {
        err = heist_sleep((double)(intptr_t)job * 0.01); /* the work */
        if (err == 0) err = heist_channel_send(s->progress, job);
        if (err < 0) return err;
        heist_queue_task_done(s->jobs);
    }
    return err == HEIST_ESHUTDOWN ? 0 : err;
}

static int listener(void *arg, void **out) {
    struct shop *s = arg;
    (void)out;
    for (;;) {
        heist_select_case c[] = {HEIST_CASE_RECV(s->progress), HEIST_CASE_AWAIT(s->over)};
        int won = heist_select(c, 2);
        if (won < 0) return won;
        if (won == 1) return 0;
        s->heard += (int)(intptr_t)c[0].value;
    }
}

static int main_coro(void *arg, void **out) {
    struct shop *s = arg;
    heist_task *task[WORKERS + 1];
    int made = 0, err = 0;
    (void)out;
    for (; made < WORKERS && err == 0; made += err == 0) err = heist_create_task(worker, s, NULL, &task[made]);
    if (err == 0) err = heist_create_task(listener, s, NULL, &task[made]);
    if (err == 0) made++;
    double start = heist_time();
    for (intptr_t i = 1; i <= JOBS && err == 0; i++)
        err = heist_queue_put(s->jobs, (void *)i); /* waits: at most 5 stand */
    if (err == 0) err = heist_queue_join(s->jobs);
    double took = heist_time() - start;
    heist_queue_shutdown(s->jobs, err ? HEIST_QUEUE_IMMEDIATE : 0);
    heist_channel_close(s->progress);
    heist_future_set_result(s->over, NULL, NULL);
    int failed = heist_gather(task, (size_t)made, NULL, HEIST_GATHER_ALL);
    for (int i = 0; i < made; i++) heist_unref(task[i]);
    if (err == 0) err = failed;
    if (err == 0)
        printf("%d jobs, worth %d, done; sooner than one after the other: %s\n", JOBS, s->heard,
               took < 0.01 * JOBS * (JOBS + 1) / 2 ? "yes" : "no");
    return err;
}

int main(void) {
    struct shop s = {NULL, NULL, NULL, 0};
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    opts.flags = HEIST_RUNTIME_VIRTUAL_TIME;
    int err = heist_queue_new(5, NULL, &s.jobs);
    if (err == 0) err = heist_channel_new(0, &s.progress);
    if (err == 0) err = heist_future_new(NULL, &s.over);
    if (err == 0) err = heist_run(main_coro, &s, &opts, NULL);
    heist_unref(s.over);
    heist_channel_unref(s.progress);
    heist_queue_unref(s.jobs);
    if (err < 0) fprintf(stderr, "workers: %s\n", heist_strerror(err));
    return err < 0;
}
