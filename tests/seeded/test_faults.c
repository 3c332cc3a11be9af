/* Faults happen, are survived, and cost nothing: no byte is lost or made up, nothing is left over. */
#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <heist.h>
#include <heist/testing.h>

#include "base/alloc.h"
#include "base/macros.h"
#include "seeded/scenes.h"

static uint64_t seeds(uint64_t usual) {
    const char *text = getenv("HEIST_SEEDS");
    return text ? strtoull(text, NULL, 0) : usual;
}

static int descriptors(void) {
    int n = 0;
    DIR *d = opendir("/proc/self/fd");
    if (!d) return 0;
    while (readdir(d)) n++;
    closedir(d);
    return n;
}

/* What was there before a scene, and must be there after it. */
struct before {
    long blocks;
    int fds;
};

static struct before look(void) { return (struct before){heist__alloc_live(), descriptors()}; }

static void as_before(struct before b) {
    if (heist__alloc_live() > b.blocks) heist_sim_fail("%ld blocks are left over", heist__alloc_live() - b.blocks);
    if (heist__alloc_live_maps() > 0) heist_sim_fail("%ld mappings are left over", heist__alloc_live_maps());
    int fds = descriptors();
    if (fds != b.fds) heist_sim_fail("%d descriptors are left over", fds - b.fds);
}

/* ---- running out, at any request ---- */

static bool ran_out(int err) { return err == -ENOMEM || err == -EAGAIN || err == -EMFILE || err == -ENFILE; }

static int freed;

static void argument_freed(void *arg) {
    (void)arg;
    freed++;
}

static int works(void *arg, void **out) {
    (void)out;
    heist_task *t[2] = {NULL, NULL};
    int err = 0;
    for (int i = 0; i < 2 && arg && !err; i++) err = heist_create_task(works, NULL, NULL, &t[i]);
    if (arg && !err) err = heist_gather(t, 2, NULL, 0);
    for (int i = 0; i < 2; i++) heist_unref(t[i]);
    int slept = heist_sleep(0.001);
    return err ? err : slept;
}

static int called(void *arg) {
    (void)arg;
    return 0;
}

static int runs_out(void *arg) {
    struct before before = look();
    heist_runtime_options ro = HEIST_RUNTIME_OPTIONS_INIT;
    ro.workers = *(int *)arg;
    ro.exception_handler = NULL;
    heist_runtime *rt = NULL;
    int err = heist_runtime_new(&ro, &rt);
    if (err) {
        heist_sim_check(ran_out(err));
        as_before(before);
        return 0;
    }
    heist_task_options to = HEIST_TASK_OPTIONS_INIT;
    to.arg_free = argument_freed;
    int accepted = 0;
    freed = 0;
    for (int i = 0; i < 3; i++) {
        heist_task *t = NULL;
        err = heist_runtime_run_coroutine(rt, works, &before, &to, &t);
        if (err) {
            heist_sim_check(ran_out(err));
            continue;
        }
        accepted++;
        err = heist_await(t, NULL);
        heist_sim_check(err == 0 || ran_out(err) || err == -ECANCELED);
        heist_unref(t);
    }
    heist_call_options co = HEIST_CALL_OPTIONS_INIT;
    co.arg_free = argument_freed;
    for (int i = 0; i < 3; i++) {
        err = heist_loop_call_later(heist_runtime_loop(rt, 0), 0.001 * i, called, rt, &co, NULL);
        if (err)
            heist_sim_check(ran_out(err));
        else
            accepted++;
    }
    heist_sim_check(heist_runtime_close(rt, HEIST_FOREVER) == 0);
    heist_runtime_unref(rt);
    heist_sim_check(freed == accepted);
    as_before(before);
    return 0;
}

static void running_out_at_any_request_leaves_nothing_behind(void **state) {
    (void)state;
    uint64_t faults = 0;
    for (int workers = 1; workers <= 3; workers++) {
        heist_sim_options o = HEIST_SIM_OPTIONS_INIT;
        o.seeds = seeds(80);
        o.name = "runs_out";
        for (int k = HEIST_SIM_FAULT_MEMORY; k <= HEIST_SIM_FAULT_DESCRIPTOR; k++) o.fault[k].probability = 0.03;
        heist_sim_result r = HEIST_SIM_RESULT_INIT;
        assert_int_equal(heist_sim_search(runs_out, &workers, &o, &r), 0);
        for (int k = 0; k < HEIST_SIM_FAULT_KINDS; k++) faults += r.fault[k];
    }
    if (!getenv("HEIST_SIM_PLAN")) assert_true(faults > 50);
}

/* Each request in turn, one at a time: the way of the first forty. */
static void each_of_the_first_requests_in_turn_may_fail(void **state) {
    (void)state;
    static const int kinds[] = {HEIST_SIM_FAULT_MEMORY, HEIST_SIM_FAULT_MAPPING, HEIST_SIM_FAULT_THREAD,
                                HEIST_SIM_FAULT_DESCRIPTOR};
    uint64_t faults = 0;
    for (size_t k = 0; k < HEIST_ARRAY_LEN(kinds); k++) {
        for (uint64_t n = 1; n <= 40; n++) {
            int workers = 2;
            heist_sim_options o = HEIST_SIM_OPTIONS_INIT;
            o.seeds = 1;
            o.seed = n;
            o.name = "nth";
            o.fault[kinds[k]].nth = n;
            heist_sim_result r = HEIST_SIM_RESULT_INIT;
            assert_int_equal(heist_sim_search(runs_out, &workers, &o, &r), 0);
            assert_in_range(r.fault[kinds[k]], 0, 1);
            if (!r.fault[kinds[k]]) break; /* there are no more */
            faults++;
        }
    }
    if (!getenv("HEIST_SIM_PLAN")) assert_true(faults > 10);
}

/* ---- an echo whose connections are short of everything ---- */

#define CLIENTS 2
#define MESSAGES 4
#define MESSAGE_BYTES 40
#define PATIENCE 1.0

struct echo {
    heist_listener *listener;
    heist_addr addr;
    bool unix_socket; /* hands over at once; TCP does a little later, sometimes */
    _Atomic(int) clients, whole, broken;
};

static bool broke(ptrdiff_t err) {
    return err == -ECONNRESET || err == -EPIPE || err == -ETIMEDOUT || err == -ECANCELED || err == -ENOTCONN ||
           err == -ENOMEM || err == -EMFILE;
}

static int serve_one(void *arg, void **out) {
    (void)out;
    heist_conn *c = arg;
    char buf[64];
    for (;;) {
        ptrdiff_t n = heist_conn_read(c, buf, sizeof(buf), heist_time() + PATIENCE);
        if (n <= 0) {
            heist_sim_check(n == 0 || broke(n));
            break;
        }
        int err = heist_conn_write(c, buf, (size_t)n, heist_time() + PATIENCE, NULL);
        if (err) {
            heist_sim_check(broke(err));
            break;
        }
    }
    return 0;
}

static void close_conn(void *arg) { heist_conn_close(arg); }

static int serve(void *arg, void **out) {
    (void)out;
    struct echo *e = arg;
    for (;;) {
        heist_conn *c = NULL;
        int err = heist_accept(e->listener, HEIST_FOREVER, &c);
        if (err == -ECANCELED) return err;
        if (err) {
            heist_sim_check(err == -EMFILE || err == -ENOMEM || err == -ECONNRESET);
            err = heist_sleep(0.001);
            if (err) return err;
            continue;
        }
        heist_task_options o = HEIST_TASK_OPTIONS_INIT;
        o.arg_free = close_conn;
        if (heist_create_task(serve_one, c, &o, NULL)) heist_conn_close(c);
    }
}

/* Sends and reads back; any failure but a broken connection is one of ours. */
static int talk(heist_conn *c) {
    char sent[MESSAGE_BYTES], back[MESSAGE_BYTES];
    for (int m = 0; m < MESSAGES; m++) {
        for (int i = 0; i < MESSAGE_BYTES; i++) sent[i] = (char)(m * 31 + i);
        int err = heist_conn_write(c, sent, sizeof(sent), heist_time() + PATIENCE, NULL);
        if (err) return err;
        for (size_t have = 0; have < sizeof(back);) {
            ptrdiff_t n = heist_conn_read(c, back + have, sizeof(back) - have, heist_time() + PATIENCE);
            if (n < 0) return (int)n;
            if (n == 0) return -ECONNRESET; /* the other side met a fault */
            heist_sim_check(memcmp(back + have, sent + have, (size_t)n) == 0);
            have += (size_t)n;
        }
    }
    return 0;
}

static int client(void *arg, void **out) {
    (void)out;
    struct echo *e = arg;
    heist_conn *c = NULL;
    int err = heist_connect(&e->addr, heist_time() + PATIENCE, &c);
    if (!err) {
        err = talk(c);
        heist_conn_close(c);
    }
    if (err)
        heist_sim_check(broke(err));
    if (err)
        e->broken++;
    else
        e->whole++;
    return 0;
}

static int echo_main(void *arg, void **out) {
    (void)out;
    struct echo *e = arg;
    heist_addr any;
    char text[64] = "127.0.0.1:0";
    if (e->unix_socket) snprintf(text, sizeof(text), "unix:@heist-seeded-%d", (int)getpid());
    heist_sim_check(heist_addr_parse(text, &any) == 0);
    int err = heist_listen(&any, NULL, &e->listener);
    if (err) return err;
    heist_sim_check(heist_listener_addr(e->listener, &e->addr) == 0);
    heist_task *server = NULL, *t[CLIENTS];
    heist_sim_check(heist_create_task(serve, e, NULL, &server) == 0);
    for (int i = 0; i < CLIENTS; i++) heist_sim_check(heist_create_task(client, e, NULL, &t[i]) == 0);
    for (int i = 0; i < CLIENTS; i++) {
        heist_sim_check(heist_await(t[i], NULL) == 0);
        heist_unref(t[i]);
    }
    heist_cancel(server);
    heist_sim_check(heist_await(server, NULL) == -ECANCELED);
    heist_unref(server);
    heist_listener_close(e->listener);
    heist_sim_check(e->whole + e->broken == CLIENTS);
    return 0;
}

/* *arg: the workers; negative when there are no faults, and so no connection may break. */
static int echo(void *arg) {
    int workers = *(int *)arg;
    struct before before = look();
    heist_runtime_options ro = HEIST_RUNTIME_OPTIONS_INIT;
    ro.workers = abs(workers);
    heist_runtime *rt;
    struct echo e;
    memset(&e, 0, sizeof(e));
    e.unix_socket = workers < 0;
    int err = heist_runtime_new(&ro, &rt);
    if (err) {
        heist_sim_check(ran_out(err));
        as_before(before);
        return 0;
    }
    heist_task *t = NULL;
    heist_sim_check(heist_runtime_run_coroutine(rt, echo_main, &e, NULL, &t) == 0);
    err = heist_await(t, NULL);
    heist_sim_check(err == 0 || ran_out(err));
    heist_unref(t);
    heist_sim_check(heist_runtime_close(rt, HEIST_FOREVER) == 0);
    heist_runtime_unref(rt);
    as_before(before);
    if (workers < 0) heist_sim_check(e.whole == CLIENTS);
    return 0;
}

static void search_echo(int from, int to, double probability, uint64_t least) {
    uint64_t faults = 0;
    for (int i = 1; i <= 2; i++) {
        int workers = probability > 0 ? i : -i;
        heist_sim_options o = HEIST_SIM_OPTIONS_INIT;
        o.flags = probability > 0 ? 0 : HEIST_SIM_PUNCTUAL; /* no deadline comes early */
        o.seeds = seeds(15);
        o.name = "echo";
        for (int k = from; k <= to; k++) o.fault[k].probability = probability;
        heist_sim_result r = HEIST_SIM_RESULT_INIT;
        assert_int_equal(heist_sim_search(echo, &workers, &o, &r), 0);
        for (int k = 0; k < HEIST_SIM_FAULT_KINDS; k++) faults += r.fault[k];
    }
    if (!getenv("HEIST_SIM_PLAN")) assert_true(faults >= least);
}

static void an_echo_without_faults_is_whole(void **state) {
    (void)state;
    search_echo(0, -1, 0, 0);
}

static void an_echo_survives_short_reads_and_writes(void **state) {
    (void)state;
    search_echo(HEIST_SIM_FAULT_SHORT, HEIST_SIM_FAULT_AGAIN, 0.2, 200);
}

static void an_echo_survives_resets(void **state) {
    (void)state;
    search_echo(HEIST_SIM_FAULT_RESET, HEIST_SIM_FAULT_RESET, 0.05, 5);
}

static void an_echo_survives_everything_at_once(void **state) {
    (void)state;
    search_echo(HEIST_SIM_FAULT_DESCRIPTOR, HEIST_SIM_FAULT_SPURIOUS, 0.05, 100);
}

/* ---- what a slow machine does, to every scene ---- */

static void late_and_needless_wake_ups_break_no_law(void **state) {
    (void)state;
    for (int i = 0; i < scene_count; i++) {
        int workers = 2;
        heist_sim_options o = HEIST_SIM_OPTIONS_INIT;
        o.seeds = seeds(20);
        o.name = scenes[i].name;
        o.fault[HEIST_SIM_FAULT_INTERRUPT].probability = 0.05;
        o.fault[HEIST_SIM_FAULT_DELAY].probability = 0.05;
        o.fault[HEIST_SIM_FAULT_SPURIOUS].probability = 0.05;
        heist_sim_result r = HEIST_SIM_RESULT_INIT;
        assert_int_equal(heist_sim_search(scenes[i].body, &workers, &o, &r), 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(running_out_at_any_request_leaves_nothing_behind),
        cmocka_unit_test(each_of_the_first_requests_in_turn_may_fail),
        cmocka_unit_test(an_echo_without_faults_is_whole),
        cmocka_unit_test(an_echo_survives_short_reads_and_writes),
        cmocka_unit_test(an_echo_survives_resets),
        cmocka_unit_test(an_echo_survives_everything_at_once),
        cmocka_unit_test(late_and_needless_wake_ups_break_no_law),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
