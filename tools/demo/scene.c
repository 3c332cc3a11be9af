/* Part 1: the scene that every introduction to asyncio plays.
 *
 * Three coroutines wait 1, 2 and 4 s on the runtime and are gathered: about 4 s, not
 * the 7 s of one after the other.  Meanwhile the main thread starts two loops on
 * threads of their own.  To one it hands two functions that block, 2 s and 1 s, which
 * therefore take 3 s; to the other two coroutines that wait, 2 s and 1.3 s, which
 * together take 2 s.  Called by main.c on the main thread, which never waits for a
 * submission to be served. */
#include "parts.h"
#include "report.h"
#include "table.h"

#include <heist.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define PATIENCE 30.0 /* seconds after which a part that should take 4 has failed */

/* ---- three waits ---- */

struct wait {
    double seconds;
    char text[40]; /* the result; lives in the frame of whoever gathers */
};

static int do_some_work(void *arg, void **out) {
    struct wait *w = arg;
    table_say("  waiting: %g", w->seconds);
    int err = heist_sleep(w->seconds);
    if (err < 0) return err;
    snprintf(w->text, sizeof w->text, "done after %g s", w->seconds);
    *out = w->text;
    return 0;
}

struct gathering {
    int right; /* results that were what and where they should be */
    double took;
};

static int three_waits(void *arg, void **out) {
    (void)out;
    struct gathering *g = arg;
    struct wait w[3] = {{.seconds = 1}, {.seconds = 2}, {.seconds = 4}};
    heist_task *t[3] = {NULL};
    void *result[3] = {NULL};
    double start = heist_time();
    int err = 0;
    for (int i = 0; i < 3 && err == 0; i++) err = heist_create_task(do_some_work, &w[i], NULL, &t[i]);
    /* All three have ended when gather returns, even at a failure: w may go with this frame. */
    if (err == 0) err = heist_gather(t, 3, result, 0);
    g->took = heist_time() - start;
    for (int i = 0; i < 3; i++) {
        char expected[40];
        snprintf(expected, sizeof expected, "done after %g s", w[i].seconds);
        g->right += err == 0 && result[i] && strcmp(result[i], expected) == 0;
        if (err == 0 && result[i]) table_say("  task result: %s", (const char *)result[i]);
        heist_unref(t[i]);
    }
    return err;
}

/* ---- a loop on a thread of its own ---- */

struct loop_thread {
    heist_loop *loop;
    pthread_t thread;
    int outcome; /* of run_forever; read after the join */
};

static void *run_loop(void *arg) {
    struct loop_thread *lt = arg;
    lt->outcome = heist_loop_run_forever(lt->loop);
    return NULL;
}

static int loop_thread_start(struct loop_thread *lt) {
    int err = heist_loop_new(NULL, &lt->loop);
    if (err < 0) return err;
    err = -pthread_create(&lt->thread, NULL, run_loop, lt);
    if (err < 0) {
        heist_loop_close(lt->loop);
        heist_loop_unref(lt->loop);
    }
    return err;
}

static int loop_thread_end(struct loop_thread *lt) {
    heist_loop_stop(lt->loop);
    pthread_join(lt->thread, NULL);
    int err = heist_loop_close(lt->loop);
    heist_loop_unref(lt->loop);
    return lt->outcome < 0 ? lt->outcome : err;
}

/* ---- the first door: functions that block ---- */

struct more_work {
    double seconds;
    double began, ended;
    heist_future *finished; /* completed by the one that carries it */
};

static int more_work(void *arg) {
    struct more_work *m = arg;
    m->began = heist_time();
    table_say("  more work %g", m->seconds);
    struct timespec left = {(time_t)m->seconds, (long)((m->seconds - (double)(time_t)m->seconds) * 1e9)};
    nanosleep(&left, NULL); /* a function that blocks its thread, on purpose */
    table_say("  finished more work %g", m->seconds);
    m->ended = heist_time();
    return m->finished ? heist_future_set_result(m->finished, NULL, NULL) : 0;
}

static int start_blocking(struct loop_thread *lt, struct more_work m[2], double *took) {
    double start = heist_time();
    int err = heist_future_new(lt->loop, &m[1].finished);
    for (int i = 0; i < 2 && err == 0; i++)
        err = heist_loop_call_soon_threadsafe(lt->loop, more_work, &m[i], NULL, NULL);
    *took = heist_time() - start;
    return err;
}

static void judge_blocking(const struct more_work m[2], double handed_over, double start, int err) {
    double took = m[1].ended - start;
    report_law(err == 0 && m[0].ended <= m[1].began && took >= 3.0 && took < 4.5,
               "two functions that block for 2 s and 1 s, by call_soon_threadsafe: one after the other, %.2f s (%s)",
               took, heist_error_name(err));
    report_law(handed_over < 1.0, "the main thread had its hands back after %.1f us", handed_over * 1e6);
}

/* ---- the second door: coroutines that wait ---- */

static int start_waiting(struct loop_thread *lt, struct wait w[2], heist_task *t[2], double *took) {
    double start = heist_time();
    int err = 0;
    for (int i = 0; i < 2 && err == 0; i++)
        err = heist_run_coroutine_threadsafe(lt->loop, do_some_work, &w[i], NULL, &t[i]);
    *took = heist_time() - start;
    return err;
}

static void judge_waiting(heist_task *t[2], double handed_over, double start, int err) {
    void *text[2] = {NULL};
    for (int i = 0; i < 2 && err == 0; i++) err = heist_await_until(t[i], heist_time() + PATIENCE, &text[i]);
    double took = heist_time() - start;
    report_law(err == 0 && strcmp(text[0], "done after 2 s") == 0 && strcmp(text[1], "done after 1.3 s") == 0 &&
                   took >= 2.0 && took < 3.3,
               "two coroutines that wait 2 s and 1.3 s, by run_coroutine_threadsafe: together %.2f s (%s)", took,
               heist_error_name(err));
    report_law(handed_over < 1.0, "the main thread had its hands back after %.1f us", handed_over * 1e6);
    heist_unref(t[0]);
    heist_unref(t[1]);
}

/* ---- all of it ---- */

static void judge_gathering(const struct gathering *g, int err) {
    report_law(err == 0 && g->right == 3, "three coroutines gathered: %d of 3 results in their order (%s)", g->right,
               heist_error_name(err));
    report_law(g->took >= 4.0 && g->took < 6.0, "waits of 1, 2 and 4 s took %.3f s together, not 7", g->took);
}

static void other_threads(struct loop_thread *blocking, struct loop_thread *waiting) {
    struct more_work m[2] = {{.seconds = 2}, {.seconds = 1}};
    struct wait w[2] = {{.seconds = 2}, {.seconds = 1.3}};
    heist_task *t[2] = {NULL};
    double hands[2] = {0}, start = heist_time();
    int waits = start_waiting(waiting, w, t, &hands[1]);
    int blocks = start_blocking(blocking, m, &hands[0]);
    judge_waiting(t, hands[1], start, waits);
    if (blocks == 0) blocks = heist_await_until(m[1].finished, heist_time() + PATIENCE, NULL);
    judge_blocking(m, hands[0], start, blocks);
    int ends[2] = {loop_thread_end(blocking), loop_thread_end(waiting)};
    report_law(ends[0] == 0 && ends[1] == 0, "both loops stopped and closed (%s, %s)", heist_error_name(ends[0]),
               heist_error_name(ends[1]));
    heist_unref(m[1].finished);
}

void scene_run(heist_runtime *rt) {
    struct gathering g = {0};
    struct loop_thread blocking, waiting;
    heist_task *task = NULL;
    report_part("1  the scene");
    table_phase("1 the scene: waits of 1, 2 and 4 s");
    table_say("1  the scene");
    int err = heist_runtime_run_coroutine(rt, three_waits, &g, NULL, &task);
    int started = loop_thread_start(&blocking);
    if (started == 0) {
        started = loop_thread_start(&waiting);
        if (started == 0)
            other_threads(&blocking, &waiting);
        else
            loop_thread_end(&blocking);
    }
    report_law(started == 0, "two loops on threads of their own (%s)", heist_error_name(started));
    if (err == 0) err = heist_await(task, NULL);
    judge_gathering(&g, err);
    heist_unref(task);
}
