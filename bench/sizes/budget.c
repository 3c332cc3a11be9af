/* budget.c: each hot path alone, between two marks, for bench/budget, which counts what lies between them:
 * instructions, locked operations, cache lines, system calls.
 *
 * A path begins at bench_mark_begin and ends at bench_mark_end, wherever that is reached: on
 * another stack, when a path is a switch.  The first repetitions bring the caches of the
 * library to what they are in a program that has run for a while; bench/budget leaves them out. */
#include "common.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { REPEAT = 48 };

/* Not the same to the letter, or the compiler makes one of them. */
__attribute__((noinline)) void bench_mark_begin(void) { __asm__ volatile("nop" ::: "memory"); }

__attribute__((noinline)) void bench_mark_end(void) { __asm__ volatile("" ::: "memory"); }

static void pause_ms(int ms) { nanosleep(&(struct timespec){0, ms * 1000000L}, NULL); }

/* ---- tasks ---- */

static int child(void *arg, void **out) {
    (void)out;
    if (arg == bench_box(1)) bench_mark_end();   /* measured: the first run */
    if (arg == bench_box(2)) bench_mark_begin(); /* measured: the end */
    return 0;
}

static void spawn(void) {
    for (int i = 0; i < REPEAT; i++) {
        bench_mark_begin();
        BENCH_MUST(heist_create_task(child, NULL, NULL, NULL));
        bench_mark_end();
        BENCH_MUST(heist_yield());
    }
}

static void first_run(void) {
    for (int i = 0; i < REPEAT; i++) {
        BENCH_MUST(heist_create_task(child, bench_box(1), NULL, NULL));
        bench_mark_begin();
        BENCH_MUST(heist_yield());
    }
}

static void last_return(void) {
    for (int i = 0; i < REPEAT; i++) {
        BENCH_MUST(heist_create_task(child, bench_box(2), NULL, NULL));
        BENCH_MUST(heist_yield());
        bench_mark_end();
    }
}

static int yields(void *arg, void **out) {
    (void)arg, (void)out;
    for (int i = 0; i < 2 * REPEAT; i++) {
        bench_mark_begin();
        int err = heist_yield();
        bench_mark_end();
        if (err < 0) return err;
    }
    return 0;
}

static void join(heist_task *t) {
    void *ignored;
    BENCH_MUST(heist_await(t, &ignored));
    heist_unref(t);
}

static void switches(void) {
    heist_task *t[2];
    for (int i = 0; i < 2; i++) BENCH_MUST(heist_create_task(yields, NULL, NULL, &t[i]));
    for (int i = 0; i < 2; i++) join(t[i]);
}

static void await_finished(void) {
    for (int i = 0; i < REPEAT; i++) {
        heist_task *t;
        void *ignored;
        BENCH_MUST(heist_create_task(child, NULL, NULL, &t));
        BENCH_MUST(heist_yield());
        BENCH_MUST(heist_yield());
        BENCH_CHECK(heist_future_done(t));
        bench_mark_begin();
        BENCH_MUST(heist_await(t, &ignored));
        bench_mark_end();
        heist_unref(t);
    }
}

/* The awaiting side and the waking side take turns; `measured` says which stretch is marked. */
enum { SUSPEND = 1, WAKE, RESUME };
static int measured;
static heist_future *future;
static int turns;

static int awaiter(void *arg, void **out) {
    (void)arg, (void)out;
    for (int i = 0; i < REPEAT; i++) {
        void *ignored;
        if (measured == SUSPEND) bench_mark_begin();
        int err = heist_await(future, &ignored);
        if (measured == RESUME) bench_mark_end();
        if (err < 0) return err;
        turns++;
        while (turns == i + 1 && heist_yield() == 0) continue;
    }
    return 0;
}

static void await_pending(void) {
    heist_task *t;
    BENCH_MUST(heist_future_new(NULL, &future));
    BENCH_MUST(heist_create_task(awaiter, NULL, NULL, &t));
    turns = 0;
    for (int i = 0; i < REPEAT; i++) {
        BENCH_MUST(heist_yield());
        if (measured == SUSPEND) bench_mark_end();
        heist_future *old = future;
        if (measured == WAKE) bench_mark_begin();
        BENCH_MUST(heist_future_set_result(old, NULL, NULL));
        if (measured == WAKE) bench_mark_end();
        BENCH_MUST(heist_future_new(NULL, &future));
        if (measured == RESUME) bench_mark_begin();
        BENCH_MUST(heist_yield());
        BENCH_CHECK(turns == 2 * i + 1);
        turns++;
        heist_unref(old);
    }
    turns++;
    join(t);
    heist_unref(future);
}

static void await_suspends(void) {
    measured = SUSPEND;
    await_pending();
}
static void wake_local(void) {
    measured = WAKE;
    await_pending();
}
static void wake_resumes(void) {
    measured = RESUME;
    await_pending();
}

/* ---- timers ---- */

static int nothing(void *arg) {
    (void)arg;
    return 0;
}

static void timer(int cancel) {
    heist_loop *loop;
    BENCH_MUST(heist_get_running_loop(&loop));
    for (int i = 0; i < REPEAT; i++) {
        heist_handle *h;
        if (!cancel) bench_mark_begin();
        BENCH_MUST(heist_loop_call_later(loop, 30.0, nothing, NULL, NULL, &h));
        if (!cancel) bench_mark_end();
        if (cancel) bench_mark_begin();
        BENCH_CHECK(heist_handle_cancel(h) == 1);
        heist_handle_unref(h);
        if (cancel) bench_mark_end();
    }
}
static void timer_arm(void) { timer(0); }
static void timer_cancel(void) { timer(1); }

/* ---- sockets ---- */

static heist_conn *near_end, *far_end;

static void connect_ends(void) {
    heist_listener *listener;
    heist_addr address;
    BENCH_MUST(heist_addr_parse("127.0.0.1:0", &address));
    BENCH_MUST(heist_listen(&address, NULL, &listener));
    BENCH_MUST(heist_listener_addr(listener, &address));
    BENCH_MUST(heist_connect(&address, HEIST_FOREVER, &near_end));
    BENCH_MUST(heist_accept(listener, HEIST_FOREVER, &far_end));
    heist_listener_close(listener);
}

static void send_byte(void) { BENCH_MUST(heist_conn_write(far_end, "x", 1, HEIST_FOREVER, NULL)); }

static void read_ready(void) {
    char c[1];
    connect_ends();
    for (int i = 0; i < REPEAT; i++) {
        send_byte();
        send_byte();
        /* Who reads less than it asked for knows that there is no more: the first read leaves some. */
        BENCH_CHECK(heist_conn_read(near_end, c, 1, HEIST_FOREVER) == 1);
        bench_mark_begin();
        BENCH_CHECK(heist_conn_read(near_end, c, 1, HEIST_FOREVER) == 1);
        bench_mark_end();
    }
    heist_conn_close(near_end);
    heist_conn_close(far_end);
}

static int reader(void *arg, void **out) {
    char c[64];
    (void)arg, (void)out;
    for (int i = 0; i < REPEAT; i++) {
        if (measured == SUSPEND) bench_mark_begin();
        ptrdiff_t got = heist_conn_read(near_end, c, sizeof c, HEIST_FOREVER);
        if (measured == RESUME) {
            bench_mark_end();
            BENCH_MUST(heist_future_set_result(future, NULL, NULL));
        }
        BENCH_CHECK(got == 1);
        turns++;
    }
    return 0;
}

static void read_waits(void) {
    heist_task *t;
    connect_ends();
    BENCH_MUST(heist_create_task(reader, NULL, NULL, &t));
    for (int i = 0; i < REPEAT; i++) {
        if (i == 0) BENCH_MUST(heist_yield()); /* the reader waits */
        send_byte();
        if (measured == RESUME) { /* the loop has nothing but to poll */
            void *ignored;
            BENCH_MUST(heist_future_new(NULL, &future));
            bench_mark_begin();
            BENCH_MUST(heist_await(future, &ignored));
            heist_unref(future);
        } else { /* and here it has another task */
            while (turns <= i) {
                BENCH_MUST(heist_yield());
                bench_mark_end(); /* counts once for each begin: when the reader waits again */
            }
        }
    }
    join(t);
    heist_conn_close(near_end);
    heist_conn_close(far_end);
}
static void read_suspends(void) {
    measured = SUSPEND;
    read_waits();
}
static void read_resumes(void) {
    measured = RESUME;
    read_waits();
}

/* ---- other threads ---- */

static atomic_int arrived;
static int sleeping; /* the loop is asleep when the call comes */

static int arrive(void *arg) {
    (void)arg;
    atomic_fetch_add(&arrived, 1);
    return 0;
}

static void *outside(void *arg) {
    for (int i = 0; i < REPEAT; i++) {
        if (sleeping) pause_ms(20);
        bench_mark_begin();
        BENCH_MUST(heist_runtime_call_soon(arg, arrive, NULL, NULL, NULL));
        bench_mark_end();
        while (atomic_load(&arrived) <= i) pause_ms(1);
    }
    return NULL;
}

static void from_outside(int asleep) {
    pthread_t thread;
    heist_loop *loop;
    BENCH_MUST(heist_get_running_loop(&loop));
    sleeping = asleep;
    BENCH_CHECK(pthread_create(&thread, NULL, outside, heist_loop_runtime(loop)) == 0);
    if (asleep)
        while (atomic_load(&arrived) < REPEAT) BENCH_MUST(heist_sleep(0.5));
    else
        while (atomic_load(&arrived) < REPEAT) {
            pause_ms(2); /* it stands, and does not sleep in its poll */
            BENCH_MUST(heist_yield());
        }
    pthread_join(thread, NULL);
}
static void submit_awake(void) { from_outside(0); }
static void submit_asleep(void) { from_outside(1); }

static void *setter(void *arg) {
    (void)arg;
    for (int i = 0; i < REPEAT; i++) {
        while (turns <= i) pause_ms(1);
        pause_ms(sleeping ? 20 : 1);
        bench_mark_begin();
        BENCH_MUST(heist_future_set_result(future, NULL, NULL));
        bench_mark_end();
        while (atomic_load(&arrived) <= i) pause_ms(1);
    }
    return NULL;
}

static void wake_remote(void) {
    pthread_t thread;
    sleeping = 1;
    turns = 0;
    BENCH_CHECK(pthread_create(&thread, NULL, setter, NULL) == 0);
    for (int i = 0; i < REPEAT; i++) {
        void *ignored;
        BENCH_MUST(heist_future_new(NULL, &future));
        turns++;
        BENCH_MUST(heist_await(future, &ignored));
        pause_ms(2); /* the setter is out of its call */
        heist_unref(future);
        atomic_fetch_add(&arrived, 1);
    }
    pthread_join(thread, NULL);
}

/* Two workers: one is held by this task, so the other one has to take the child. */
static int stolen(void *arg, void **out) {
    (void)arg, (void)out;
    bench_mark_end();
    atomic_fetch_add(&arrived, 1);
    return 0;
}

static void steal(void) {
    for (int i = 0; i < REPEAT; i++) {
        BENCH_MUST(heist_create_task(stolen, NULL, NULL, NULL));
        BENCH_MUST(heist_create_task(stolen, NULL, NULL, NULL)); /* two: one alone is its maker's */
        while (atomic_load(&arrived) < 2 * (i + 1)) pause_ms(1);
    }
}

static const struct path {
    const char *name;
    void (*run)(void);
    int workers;
} paths[] = {
    {"spawn", spawn, 1},
    {"first_run", first_run, 1},
    {"last_return", last_return, 1},
    {"switch", switches, 1},
    {"await_finished", await_finished, 1},
    {"await_suspends", await_suspends, 1},
    {"wake_local", wake_local, 1},
    {"wake_resumes", wake_resumes, 1},
    {"wake_remote", wake_remote, 1},
    {"steal", steal, 2},
    {"submit_awake", submit_awake, 1},
    {"submit_asleep", submit_asleep, 1},
    {"timer_arm", timer_arm, 1},
    {"timer_cancel", timer_cancel, 1},
    {"read_ready", read_ready, 1},
    {"read_suspends", read_suspends, 1},
    {"read_resumes", read_resumes, 1},
};
enum { PATHS = sizeof paths / sizeof *paths };

static int budget_main(void *arg, void **out) {
    (void)out;
    ((const struct path *)arg)->run();
    return 0;
}

/* N is the path's number, from 1.  The maps say where the program and its libraries lie. */
void bench_budget(const struct bench_args *args) {
    char line[512];
    BENCH_CHECK(args->n >= 1);
    if (args->n > PATHS) {
        for (size_t i = 0; i < PATHS; i++) printf("@path %s\n", paths[i].name);
        return;
    }
    FILE *maps = fopen("/proc/self/maps", "r");
    BENCH_CHECK(maps != NULL);
    while (fgets(line, sizeof line, maps))
        if (strstr(line, " r-xp ")) printf("@map %s", line);
    fclose(maps);
    printf("@begin\n");
    fflush(stdout);
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    opts.workers = paths[args->n - 1].workers;
    BENCH_MUST(heist_run(budget_main, (void *)(uintptr_t)&paths[args->n - 1], &opts, NULL));
}
