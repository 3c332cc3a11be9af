/* A task that held its thread held up what others could have done for it.
 *
 * Promise 4: while a worker is stuck in a task, the others run what lies in its queue, its
 * due timers and its ready descriptors.  They only ran its queue; and the one sleeper that
 * looks after the others (the sentinel) was appointed by whoever fell asleep while another
 * ran.  When all slept and one was woken, nobody looked; and when the sentinel itself was
 * the one that was woken, and then stuck, it had given up its role and nobody took it.
 * Between two of its looks, too, the only sentinel had no role: work that came in that
 * moment held it, and the others slept on.
 *
 * A pinned holder visits each worker in turn, so that the sentinel is among them, after a
 * pause that leaves the workers busy, just asleep, or long asleep.  It lays out a task, a
 * due timer or a descriptor, and holds its thread until somebody else has served it.  The
 * test opens the gate itself after half a minute, and then fails. */
#include "regress/workers.h"

#include <sys/socket.h>
#include <unistd.h>

enum kind { QUEUED, TIMER, DESCRIPTOR };

struct hold {
    enum kind kind;
    int fd[2];
    struct gate served, holding;
    _Atomic(int) waits, failed;
};

static int served_by(void *arg, void **out) {
    struct hold *hold = arg;
    heist_conn *conn = NULL;
    char byte;
    int err = 0;
    (void)out;
    hold->waits = 1;
    if (hold->kind == TIMER) err = heist_sleep(0.002);
    if (hold->kind == DESCRIPTOR) {
        err = heist_conn_open(hold->fd[0], &conn);
        if (err == 0 && heist_conn_read(conn, &byte, 1, HEIST_FOREVER) != 1) err = -EPROTO;
        if (conn) heist_conn_close(conn);
        else close(hold->fd[0]);
    }
    if (err < 0) hold->failed++;
    gate_open(&hold->served);
    return err;
}

static int hold_the_thread(void *arg, void **out) {
    struct hold *hold = arg;
    (void)out;
    int err = heist_create_task(served_by, hold, NULL, NULL);
    if (err < 0) {
        hold->failed++;
        gate_open(&hold->served);
    }
    while (err == 0 && hold->kind != QUEUED && !hold->waits) err = heist_yield();
    gate_open(&hold->holding);
    gate_wait(&hold->served);
    return err;
}

/* The worker that it does not start on falls asleep beside a running one, and becomes the sentinel. */
static int hold_briefly(void *arg, void **out) {
    struct gate *gate = arg;
    (void)out;
    double until = heist_time() + 0.0015;
    while (heist_time() < until) {
    }
    gate_open(gate);
    return 0;
}

static int visit(heist_runtime *rt, int worker, enum kind kind, double pause) {
    struct hold hold = {.kind = kind, .served = GATE_INIT, .holding = GATE_INIT};
    struct gate warm = GATE_INIT;
    heist_task_options pinned = HEIST_TASK_OPTIONS_INIT;
    heist_task *task = NULL;
    pinned.flags = HEIST_TASK_PINNED;
    if (kind == DESCRIPTOR && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, hold.fd) < 0) return -errno;
    if (heist_runtime_run_coroutine(rt, hold_briefly, &warm, NULL, NULL) == 0) gate_wait(&warm);
    if (pause > 0) heist_sleep(pause);
    int err = heist_loop_create_task(heist_runtime_loop(rt, worker), hold_the_thread, &hold, &pinned, &task);
    if (err < 0) return err;
    gate_wait(&hold.holding);
    if (kind == DESCRIPTOR && write(hold.fd[1], "x", 1) != 1) hold.failed++;
    err = heist_await_until(task, heist_time() + 30, NULL);
    bool helped = err != -ETIMEDOUT;
    gate_open(&hold.served);
    if (!helped) {
        heist_await(task, NULL);
        heist_sleep(1); /* what was left behind runs now */
    }
    heist_unref(task);
    if (kind == DESCRIPTOR) close(hold.fd[1]);
    return hold.failed ? -EPROTO : err;
}

static void visit_all(enum kind kind) {
    static const double pauses[] = {0, 0.0003, 0.001, 0.003, 0, 0.0006, 0.01, 0.15};
    for (EACH_WORKER_COUNT(workers)) {
        if (workers == 1) continue; /* nobody could help */
        heist_runtime *rt = regress_runtime(workers);
        int bad = 0;
        for (size_t p = 0; p < sizeof pauses / sizeof pauses[0] && !bad; p++)
            for (int worker = 0; worker < workers && !bad; worker++) bad = visit(rt, worker, kind, pauses[p]);
        harness_runtime_end(rt);
        assert_int_equal(bad, 0);
    }
}

static void queued_task_of_a_stuck_worker_is_run(void **state) {
    (void)state;
    visit_all(QUEUED);
}

static void due_timer_of_a_stuck_worker_fires(void **state) {
    (void)state;
    visit_all(TIMER);
}

static void ready_descriptor_of_a_stuck_worker_is_served(void **state) {
    (void)state;
    visit_all(DESCRIPTOR);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        API_TEST(queued_task_of_a_stuck_worker_is_run),
        API_TEST(due_timer_of_a_stuck_worker_fires),
        API_TEST(ready_descriptor_of_a_stuck_worker_is_served),
    };
    return HARNESS_MAIN("bug_stuck_worker_unserved", tests);
}
