/* A forced migration: one call in a task that returns on another thread.
 *
 * The task asks for a pinned companion on its present loop, and waits for a future.  The
 * companion completes the future and then holds that worker's thread until the task says
 * that it has arrived, which it can do on another worker only.  So the move is certain, it
 * costs no time, and a runtime that fails to move the task hangs, and the test with it.
 *
 * Needs a runtime of two workers or more, one such task at a time. */
#ifndef HEIST_TESTS_MIGRATE_H
#define HEIST_TESTS_MIGRATE_H

#include <heist.h>
#include <semaphore.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The calling thread, and this module's thread-local counter: never inlined, read afresh. */
pthread_t migrate_thread(void);
int *migrate_local(void);
int *migrate_errno(void);

/* 0, or the negative code of the call that failed. */
int migrate(void);

/* Says what failed, and ends the process; for threads of which no test body knows. */
#define MIGRATE_CHECK(condition)                                                                                       \
    do {                                                                                                               \
        if (!(condition)) migrate_failed(__FILE__, __LINE__, #condition);                                              \
    } while (0)
void migrate_failed(const char *file, int line, const char *what) __attribute__((noreturn));

#ifdef __cplusplus
}
#endif

#endif
