/* stress/stress_process.c: children that end in every way, under signals, cancels, deadlines and dropped handles.
 *
 * Law: each child that was started is reaped once, with the code that its plan has, whoever waits and however often; a
 * wait that was cancelled or timed out leaves the child alone, unless its options say otherwise; what was written to a
 * child comes back whole, also through communicates that were cut short; a start that failed leaves nothing; children
 * of plain calls beside it keep their statuses.  After each round there is no child, running or dead, and no
 * descriptor left.
 * Actors: tasks that start children, other tasks that wait for the same ones and are cancelled, plain threads that
 * wait for them and send signals, and one that forks and waits by itself.
 * Invariant: a plan is fixed before its child starts; who signals holds a reference. */
#include "common.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#define STARTERS 12
#define HELPERS 3
#define LONGEST 300000

enum { EXITS, SIGNALLED, TALKS, STOPS, DROPPED, KILLED_BY_DROP, KILLED_BY_CANCEL, MISSING, PLANS };
static const char *const plan_name[PLANS] = {"exits",   "signalled",      "talks",            "stops",
                                             "dropped", "killed by drop", "killed by cancel", "missing"};

struct starter {
    int index;
    struct stress_rng rng;
};

/* What helpers do to a child of somebody's. */
struct helper {
    heist_process *p;
    struct stress_rng rng;
    int expected;
    _Atomic(int) answered;
};

static _Atomic(bool) stop;
static _Atomic(uint64_t) started[PLANS], cut_short, cancelled_waits, timed_out, others, orphans;

/* ---- the child's side: what the shell is told ---- */

static int start(const char *command, unsigned flags, bool pipes, heist_process **p) {
    heist_process_options o = HEIST_PROCESS_OPTIONS_INIT;
    o.flags = flags;
    o.stdin_is = o.stderr_is = HEIST_PROCESS_NULL;
    o.stdout_is = HEIST_PROCESS_NULL;
    if (pipes) o.stdin_is = o.stdout_is = HEIST_PROCESS_PIPE;
    return heist_create_subprocess_shell(command, &o, p);
}

/* ---- helpers: tasks and plain threads that wait for the same child ---- */

static int help(void *arg, void **out) {
    struct helper *h = arg;
    int code = 12345, err;
    (void)out;
    do {
        double limit = HEIST_FOREVER;
        if (stress_chance(&h->rng, 50)) limit = heist_time() + 0.001 * (double)stress_below(&h->rng, 20);
        err = heist_process_wait(h->p, limit, &code);
        if (err == -ETIMEDOUT) s_add(&timed_out, 1);
    } while (err == -ETIMEDOUT);
    if (err == -ECANCELED) {
        s_add(&cancelled_waits, 1);
        return err;
    }
    stress_check(!err && code == h->expected, "a wait said %s, %d instead of %d", heist_error_name(err), code,
                 h->expected);
    s_add(&h->answered, 1);
    return err;
}

static void *help_outside(void *arg) {
    (void)help(arg, NULL);
    return NULL;
}

/* Waits with some helpers, some of which are cancelled; the code is to be `expected`. */
static void wait_together(struct starter *s, heist_process *p, int expected, int sig) {
    struct helper helpers[HELPERS];
    heist_task *tasks[HELPERS] = {NULL};
    pthread_t thread;
    int n = (int)stress_below(&s->rng, HELPERS), code = 12345;
    bool outside = stress_chance(&s->rng, 25), cancels = stress_chance(&s->rng, 50);
    for (int i = 0; i < HELPERS; i++)
        helpers[i] = (struct helper){.p = p, .rng = stress_stream(&s->rng, (uint64_t)i), .expected = expected};
    for (int i = 0; i < n; i++)
        if (heist_create_task(help, &helpers[i], NULL, &tasks[i])) tasks[i] = NULL;
    if (outside) stress_thread(&thread, help_outside, &helpers[HELPERS - 1]);
    if (stress_chance(&s->rng, 50)) (void)heist_sleep(0.001 * (double)stress_below(&s->rng, 5));
    if (cancels)
        for (int i = 0; i < n; i++)
            if (tasks[i] && stress_chance(&s->rng, 50)) heist_cancel(tasks[i]);
    if (sig) {
        int err = heist_process_send_signal(p, sig);
        stress_check(!err, "signal %d to a running child: %s", sig, heist_error_name(err));
    }
    int err = heist_process_wait(p, HEIST_FOREVER, &code);
    stress_check(!err && code == expected, "the starter's wait said %s, %d instead of %d", heist_error_name(err), code,
                 expected);
    stress_check(heist_process_returncode(p, &code) == 0 && code == expected, "the returncode was not kept");
    stress_check(heist_process_kill(p) == -ESRCH, "a signal to a child that has ended was sent");
    for (int i = 0; i < n; i++) {
        if (!tasks[i]) continue;
        err = heist_await(tasks[i], NULL);
        stress_check(!err || (cancels && err == -ECANCELED), "a helper ended with %s", heist_error_name(err));
        heist_unref(tasks[i]);
    }
    if (outside) {
        heist_blocking_begin();
        stress_join(thread);
        heist_blocking_end();
        stress_check(s_get(&helpers[HELPERS - 1].answered) == 1, "a plain thread got no answer");
    }
}

/* ---- plans ---- */

static void exits(struct starter *s) {
    char command[64];
    heist_process *p = NULL;
    int code = (int)stress_below(&s->rng, 256);
    snprintf(command, sizeof command, "sleep 0.%03d; exit %d", (int)stress_below(&s->rng, 4), code);
    int err = start(command, 0, false, &p);
    stress_check(!err, "start: %s", heist_error_name(err));
    if (err) return;
    wait_together(s, p, code, 0);
    heist_process_unref(p);
}

static void signalled(struct starter *s) {
    static const int signals[] = {SIGTERM, SIGKILL, SIGUSR1, SIGALRM};
    heist_process *p = NULL;
    int err = start("exec sleep 1000", 0, false, &p), sig = signals[stress_below(&s->rng, 4)];
    stress_check(!err, "start: %s", heist_error_name(err));
    if (err) return;
    wait_together(s, p, -sig, sig);
    heist_process_unref(p);
}

static void talks(struct starter *s) {
    size_t size = (size_t)stress_between(&s->rng, 0, LONGEST);
    unsigned char *input = stress_alloc(size + 1);
    heist_process_output got = HEIST_PROCESS_OUTPUT_INIT;
    heist_process *p = NULL;
    uint64_t salt = stress_next(&s->rng);
    for (size_t i = 0; i < size; i++) input[i] = (unsigned char)(i * 31 + i / 253 + salt);
    int err = start("cat; exit 3", 0, true, &p);
    stress_check(!err, "start: %s", heist_error_name(err));
    while (!err) {
        bool patient = stress_chance(&s->rng, 40);
        double limit = patient ? HEIST_FOREVER : heist_time() + 0.0001 * (double)stress_below(&s->rng, 100);
        err = heist_process_communicate(p, input, size, limit, &got);
        if (err != -ETIMEDOUT) break;
        s_add(&cut_short, 1);
        err = 0;
    }
    bool same = !err && got.code == 3 && got.out_size == size && (!size || memcmp(got.out, input, size) == 0);
    stress_check(same, "communicate: %s, code %d, %zu of %zu bytes", heist_error_name(err), got.code, got.out_size,
                 size);
    heist_process_output_free(&got);
    heist_process_unref(p);
    free(input);
}

static void stops(struct starter *s) {
    heist_process *p = NULL;
    char ready = 0;
    bool deaf = stress_chance(&s->rng, 50);
    int code = 12345;
    int err = start(deaf ? "trap '' TERM; echo; while :; do sleep 0.01; done"
                         : "trap 'exit 9' TERM; echo; while :; do sleep 0.01; done",
                    stress_chance(&s->rng, 50) ? HEIST_PROCESS_GROUP : 0, true, &p);
    stress_check(!err, "start: %s", heist_error_name(err));
    if (err) return;
    ptrdiff_t n = heist_stream_read(heist_process_stdout(p), &ready, 1); /* its trap stands */
    stress_check(n == 1, "a child that is to say a word: %td", n);
    err = heist_process_stop(p, deaf ? 0.001 * (double)stress_below(&s->rng, 20) : HEIST_FOREVER, &code);
    stress_check(!err && code == (deaf ? -SIGKILL : 9), "stop: %s, %d", heist_error_name(err), code);
    heist_process_unref(p);
}

static void dropped(struct starter *s, bool kills) {
    heist_process *p = NULL;
    int err = start(kills ? "exec sleep 1000" : stress_chance(&s->rng, 50) ? "exit 1" : "exec sleep 0.02",
                    kills ? HEIST_PROCESS_KILL_ON_DROP : 0, false, &p);
    stress_check(!err, "start: %s", heist_error_name(err));
    heist_process_unref(p);
}

static int waits(void *arg, void **out) {
    (void)out;
    return heist_process_wait(arg, HEIST_FOREVER, NULL);
}

static void killed_by_cancel(struct starter *s) {
    heist_process *p = NULL;
    heist_task *t = NULL;
    int code = 12345;
    int err = start("exec sleep 1000", HEIST_PROCESS_KILL_ON_CANCEL, false, &p);
    stress_check(!err, "start: %s", heist_error_name(err));
    if (err) return;
    err = heist_create_task(waits, p, NULL, &t);
    if (!err) {
        (void)heist_sleep(0.001 * (double)(1 + stress_below(&s->rng, 3)));
        heist_cancel(t);
        err = heist_await(t, NULL);
        stress_check(err == -ECANCELED, "a cancelled wait: %s", heist_error_name(err));
        heist_unref(t);
    }
    /* A task that was cancelled before its first step never waited. */
    if (heist_process_wait(p, heist_time() + 1, &code) == -ETIMEDOUT) heist_process_kill(p);
    err = heist_process_wait(p, HEIST_FOREVER, &code);
    stress_check(!err && code == -SIGKILL, "killed: %s, %d", heist_error_name(err), code);
    heist_process_unref(p);
}

static void missing(void) {
    char name[] = "/nowhere/no-such-program";
    char *argv[] = {name, NULL};
    heist_process *p = NULL;
    int err = heist_create_subprocess_exec(argv, NULL, &p);
    stress_check(err == -ENOENT && !p, "a program that is not there: %s", heist_error_name(err));
}

static int starter_main(void *arg, void **out) {
    struct starter *s = arg;
    (void)out;
    while (!s_get(&stop) && stress_going()) {
        int plan = (int)stress_below(&s->rng, PLANS);
        stress_wait_begin(s->index, plan_name[plan], 1);
        switch (plan) {
        case EXITS: exits(s); break;
        case SIGNALLED: signalled(s); break;
        case TALKS: talks(s); break;
        case STOPS: stops(s); break;
        case DROPPED: dropped(s, false); break;
        case KILLED_BY_DROP: dropped(s, true); break;
        case KILLED_BY_CANCEL: killed_by_cancel(s); break;
        default: missing(); break;
        }
        stress_wait_end(s->index);
        s_add(&started[plan], 1);
        stress_progress(1);
    }
    return 0;
}

/* ---- somebody who uses plain calls ---- */

static void *by_plain_calls(void *arg) {
    struct stress_rng r = *(struct stress_rng *)arg;
    while (!s_get(&stop)) {
        int code = (int)stress_below(&r, 100), status = 0;
        pid_t pid = fork();
        if (pid == 0) _exit(code);
        if (pid < 0) stress_die("fork: %d", errno);
        stress_pause(&r, 0.01);
        pid_t got = waitpid(pid, &status, 0);
        stress_check(got == pid && WIFEXITED(status) && WEXITSTATUS(status) == code,
                     "a plain child's status was taken: %d, errno %d", (int)got, errno);
        s_add(&others, 1);
    }
    return NULL;
}

static bool any_child(void) {
    siginfo_t info;
    return waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0;
}

static void one_round(struct stress_rng *r) {
    int workers = stress_draw_workers(r), starters = 1 + (int)stress_below(r, STARTERS);
    bool plain = stress_chance(r, 50);
    stress_settings("%d workers, %d starters, plain calls %d", workers, starters, plain);
    heist_runtime *rt = stress_runtime("process", workers, NULL);
    static struct starter all[STARTERS];
    heist_task *tasks[STARTERS];
    pthread_t thread;
    struct stress_rng plain_rng = stress_stream(r, 1000);
    s_set(&stop, false);
    stress_phase("children");
    if (plain) stress_thread(&thread, by_plain_calls, &plain_rng);
    for (int i = 0; i < starters; i++) {
        all[i] = (struct starter){i, stress_stream(r, (uint64_t)i)};
        int err = heist_runtime_run_coroutine(rt, starter_main, &all[i], NULL, &tasks[i]);
        if (err) stress_die("a task: %s", heist_error_name(err));
    }
    heist_sleep(0.2 + 0.001 * (double)stress_below(r, 500));
    s_set(&stop, true);
    stress_phase("the starters end");
    for (int i = 0; i < starters; i++) {
        (void)heist_await(tasks[i], NULL);
        heist_unref(tasks[i]);
    }
    if (plain) stress_join(thread);
    stress_phase("close");
    stress_runtime_end(rt);
    /* Those that outlived it, all of them for a moment, are reaped by whoever closes a loop next. */
    stress_phase("orphans");
    stress_wait_begin(STARTERS, "the last children", 1);
    while (any_child()) {
        heist_loop *loop;
        heist_sleep(0.005);
        if (heist_loop_new(NULL, &loop)) stress_die("a loop");
        heist_loop_close(loop);
        heist_loop_unref(loop);
        s_add(&orphans, 1);
    }
    stress_wait_end(STARTERS);
}

int main(int argc, char **argv) {
    struct stress_rng r;
    stress_begin(argc, argv, "process", "each child is reaped once with its code, and none, dead or alive, is left");
    while (stress_next_round(&r)) one_round(&r);
    for (int i = 0; i < PLANS; i++) stress_note("%s: %" PRIu64, plan_name[i], s_get(&started[i]));
    stress_note("communicates cut short %" PRIu64 ", waits cancelled %" PRIu64 ", timed out %" PRIu64,
                s_get(&cut_short), s_get(&cancelled_waits), s_get(&timed_out));
    stress_note("children of plain calls %" PRIu64 ", looks for orphans %" PRIu64, s_get(&others), s_get(&orphans));
    return stress_end();
}
