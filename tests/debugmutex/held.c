/* Tasks that hold locks of POSIX threads and of C11 while they suspend, and tasks that do not.
 *
 *   held SCENARIO       runs one; bad_ ones are to be trapped in debug mode, good_ ones not
 *   held --list         their names
 *
 * One task on one worker with debug mode on, unless the scenario says otherwise. */
#include <errno.h>
#include <heist.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <threads.h>
#include <time.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER, other = PTHREAD_MUTEX_INITIALIZER, recursive, robust;
static pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;
static pthread_spinlock_t spin;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static mtx_t c11;

static void need(int err) {
    if (err == 0 || err == EOWNERDEAD) return;
    fprintf(stderr, "held: a lock failed: %s\n", strerror(err));
    exit(3);
}

static struct timespec soon(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    t.tv_sec += 60;
    return t;
}

/* The two ends of every scenario. */
static int waits(void) { return heist_sleep(0.001); }

static int bad_mutex(void) {
    need(pthread_mutex_lock(&mutex));
    int err = waits();
    need(pthread_mutex_unlock(&mutex));
    return err;
}
static int bad_trylock(void) {
    need(pthread_mutex_trylock(&mutex));
    int err = heist_yield();
    need(pthread_mutex_unlock(&mutex));
    return err;
}
static int bad_timedlock(void) {
    struct timespec t = soon();
    need(pthread_mutex_timedlock(&mutex, &t));
    int err = waits();
    need(pthread_mutex_unlock(&mutex));
    return err;
}
static int bad_read_lock(void) {
    need(pthread_rwlock_rdlock(&rwlock));
    int err = waits();
    need(pthread_rwlock_unlock(&rwlock));
    return err;
}
static int bad_write_lock(void) {
    need(pthread_rwlock_wrlock(&rwlock));
    int err = waits();
    need(pthread_rwlock_unlock(&rwlock));
    return err;
}
static int bad_spin_lock(void) {
    need(pthread_spin_lock(&spin));
    int err = waits();
    need(pthread_spin_unlock(&spin));
    return err;
}
static int bad_c11(void) {
    need(mtx_lock(&c11) == thrd_success ? 0 : EINVAL);
    int err = waits();
    mtx_unlock(&c11);
    return err;
}
static int bad_recursive(void) {
    need(pthread_mutex_lock(&recursive));
    need(pthread_mutex_lock(&recursive));
    need(pthread_mutex_unlock(&recursive));
    int err = waits();
    need(pthread_mutex_unlock(&recursive));
    return err;
}
static int bad_second(void) { /* the one that was taken first is still held */
    need(pthread_mutex_lock(&mutex));
    need(pthread_mutex_lock(&other));
    need(pthread_mutex_unlock(&other));
    int err = waits();
    need(pthread_mutex_unlock(&mutex));
    return err;
}
static int bad_after_cond(void) { /* the wait has taken it again */
    struct timespec past = {1, 0};
    need(pthread_mutex_lock(&mutex));
    if (pthread_cond_timedwait(&cond, &mutex, &past) != ETIMEDOUT) exit(3);
    int err = waits();
    need(pthread_mutex_unlock(&mutex));
    return err;
}
static void *dies_with_it(void *arg) {
    (void)arg;
    need(pthread_mutex_lock(&robust));
    return NULL;
}
static int bad_robust(void) { /* of an owner who died */
    pthread_t thread;
    need(pthread_create(&thread, NULL, dies_with_it, NULL));
    pthread_join(thread, NULL);
    if (pthread_mutex_lock(&robust) != EOWNERDEAD) exit(3);
    need(pthread_mutex_consistent(&robust));
    int err = waits();
    need(pthread_mutex_unlock(&robust));
    return err;
}
static int bad_many(void) { /* more than are described */
    static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;
    for (int i = 0; i < 100; i++) need(pthread_rwlock_rdlock(&lock));
    for (int i = 0; i < 99; i++) need(pthread_rwlock_unlock(&lock));
    int err = waits();
    need(pthread_rwlock_unlock(&lock));
    return err;
}
static int bad_end(void) {
    need(pthread_mutex_lock(&mutex));
    return 0;
}
static int child(void *arg, void **out) {
    (void)arg, (void)out;
    return 0;
}
static int bad_await(void) { /* of a task that has not begun */
    heist_task *task;
    need(-heist_create_task(child, NULL, NULL, &task));
    need(pthread_mutex_lock(&mutex));
    int err = heist_await(task, NULL);
    need(pthread_mutex_unlock(&mutex));
    heist_unref(task);
    return err;
}

static int good_before(void) {
    need(pthread_mutex_lock(&mutex));
    need(pthread_mutex_unlock(&mutex));
    return waits();
}
static int good_failed(void) { /* what was not taken is not held */
    need(pthread_mutex_lock(&mutex));
    struct timespec past = {1, 0};
    bool busy = pthread_mutex_trylock(&mutex) == EBUSY && pthread_mutex_timedlock(&mutex, &past) == ETIMEDOUT;
    need(pthread_mutex_unlock(&mutex));
    return busy ? waits() : -EPROTO;
}
static int good_recursive(void) {
    for (int i = 0; i < 5; i++) need(pthread_mutex_lock(&recursive));
    for (int i = 0; i < 5; i++) need(pthread_mutex_unlock(&recursive));
    return waits();
}
static int good_rwlock(void) {
    need(pthread_rwlock_rdlock(&rwlock));
    need(pthread_rwlock_rdlock(&rwlock));
    need(pthread_rwlock_unlock(&rwlock));
    need(pthread_rwlock_unlock(&rwlock));
    need(pthread_rwlock_wrlock(&rwlock));
    need(pthread_rwlock_unlock(&rwlock));
    return waits();
}
static int ready;
static void *signals(void *arg) {
    (void)arg;
    need(pthread_mutex_lock(&mutex));
    ready = 1;
    pthread_cond_signal(&cond);
    need(pthread_mutex_unlock(&mutex));
    return NULL;
}
static int good_cond(void) {
    pthread_t thread;
    need(pthread_mutex_lock(&mutex));
    need(pthread_create(&thread, NULL, signals, NULL));
    while (!ready) pthread_cond_wait(&cond, &mutex);
    need(pthread_mutex_unlock(&mutex));
    pthread_join(thread, NULL);
    return waits();
}
static int good_c11(void) {
    need(mtx_lock(&c11) == thrd_success ? 0 : EINVAL);
    mtx_unlock(&c11);
    return waits();
}
static int good_done(void) { /* a wait that need not suspend does not */
    heist_future *f;
    need(-heist_future_new(NULL, &f));
    need(-heist_future_set_result(f, NULL, NULL));
    need(pthread_mutex_lock(&mutex));
    int err = heist_await(f, NULL);
    need(pthread_mutex_unlock(&mutex));
    heist_unref(f);
    return err;
}

/* By another way than one task in debug mode. */
static int good_host(void) { return waits(); }       /* main holds one while it runs the runtime */
static int good_without_debug(void) { return bad_mutex(); }

static const struct scenario {
    const char *name;
    int (*run)(void);
} scenarios[] = {
#define S(name) {#name, name}
    S(bad_mutex), S(bad_trylock), S(bad_timedlock), S(bad_read_lock), S(bad_write_lock), S(bad_spin_lock), S(bad_c11),
    S(bad_recursive), S(bad_second), S(bad_after_cond), S(bad_robust), S(bad_many), S(bad_end), S(bad_await),
    S(good_before), S(good_failed), S(good_recursive), S(good_rwlock), S(good_cond), S(good_c11), S(good_done),
    S(good_host), S(good_without_debug),
#undef S
};

static int body(void *arg, void **out) {
    const struct scenario *s = arg;
    (void)out;
    int err = s->run();
    return err < 0 ? err : 0;
}

static int main_coro(void *arg, void **out) {
    heist_task_options opts = HEIST_TASK_OPTIONS_INIT;
    heist_task *task;
    opts.name = "the-holder";
    int err = heist_create_task(body, arg, &opts, &task);
    if (err) return err;
    err = heist_await(task, out);
    heist_unref(task);
    return err;
}

int main(int argc, char **argv) {
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&recursive, &attributes);
    pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_NORMAL);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&robust, &attributes);
    pthread_spin_init(&spin, PTHREAD_PROCESS_PRIVATE);
    if (mtx_init(&c11, mtx_plain) != thrd_success) return 3;
    for (size_t i = 0; argc == 2 && i < sizeof(scenarios) / sizeof(scenarios[0]); i++) {
        const struct scenario *s = &scenarios[i];
        if (strcmp(argv[1], "--list") == 0) puts(s->name);
        if (strcmp(argv[1], s->name)) continue;
        heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
        opts.workers = 1;
        opts.flags = s->run == good_without_debug ? 0 : HEIST_RUNTIME_DEBUG;
        if (s->run == good_host) need(pthread_mutex_lock(&other));
        int err = heist_run(main_coro, (void *)(uintptr_t)s, &opts, NULL);
        if (s->run == good_host) need(pthread_mutex_unlock(&other));
        if (err) fprintf(stderr, "held: %s ended with %s\n", s->name, heist_error_name(err));
        return err != 0;
    }
    return argc == 2 && strcmp(argv[1], "--list") == 0 ? 0 : 3;
}
