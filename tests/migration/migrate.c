/* See migrate.h. */
#include "migrate.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static _Thread_local int local;

/* The empty statements keep the compiler from treating two calls as one. */
__attribute__((noinline)) pthread_t migrate_thread(void) {
    pthread_t thread = pthread_self();
    __asm__ volatile("" : "+r"(thread) : : "memory");
    return thread;
}

__attribute__((noinline)) int *migrate_local(void) {
    int *address = &local;
    __asm__ volatile("" : "+r"(address) : : "memory");
    return address;
}

__attribute__((noinline)) int *migrate_errno(void) {
    int *address = &errno;
    __asm__ volatile("" : "+r"(address) : : "memory");
    return address;
}

struct move {
    heist_future *go;
    sem_t arrived;
};

static int hold_the_worker(void *arg, void **out) {
    struct move *move = arg;
    (void)out;
    int err = heist_future_set_result(move->go, NULL, NULL);
    while (sem_wait(&move->arrived))
        if (errno != EINTR) abort();
    return err;
}

int migrate(void) {
    struct move move = {NULL, {{0}}};
    heist_task *holder = NULL;
    heist_task_options pinned = HEIST_TASK_OPTIONS_INIT;
    pinned.flags = HEIST_TASK_PINNED;
    pthread_t before = migrate_thread();
    if (sem_init(&move.arrived, 0, 0)) abort();
    int err = heist_future_new(NULL, &move.go);
    if (err == 0) err = heist_create_task(hold_the_worker, &move, &pinned, &holder);
    if (err == 0) {
        err = heist_await(move.go, NULL);
        MIGRATE_CHECK(!pthread_equal(before, migrate_thread()));
        sem_post(&move.arrived);
        if (err == 0) { /* the holder touches `move`: it must have ended; we do not move back for it */
            while (!heist_future_done(holder)) sched_yield();
            err = heist_future_result(holder, NULL);
        }
    }
    heist_unref(holder);
    heist_unref(move.go);
    sem_destroy(&move.arrived);
    return err;
}

void migrate_failed(const char *file, int line, const char *what) {
    fprintf(stderr, "%s:%d: not so: %s\n", file, line, what);
    abort();
}
