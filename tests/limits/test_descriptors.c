/* Out of descriptors: the call that needed one says -EMFILE, nothing spins or starves
 * because of it, what waits in the kernel is not lost, and when descriptors come back
 * everything goes on.
 *
 * Each scene lowers RLIMIT_NOFILE of a process of its own. */
#include "limits/child.h"

#include <fcntl.h>
#include <heist.h>

static void limit_descriptors(rlim_t n) {
    struct rlimit limit;
    scene_expect(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = n < limit.rlim_max ? n : limit.rlim_max;
    scene_expect(setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

/* Takes every descriptor that is left; how many. */
static int take_all(int *fds, int room) {
    int n = 0;
    while (n < room && (fds[n] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0) n++;
    scene_expect(n < room && errno == EMFILE);
    return n;
}

static void give_back(const int *fds, int n) {
    for (int i = 0; i < n; i++) close(fds[i]);
}

/* ---- accept on a full table ---- */

#define CLIENTS 20

struct full {
    heist_listener *listener;
    heist_addr addr;
    int fds[1024], taken;
    _Atomic(int) refused;
    int accepted, wrong;
    bool freed; /* the other task came to run */
};

/* What a careless server does: it asks again at once. */
static int accept_again_and_again(void *arg, void **out) {
    struct full *full = arg;
    (void)out;
    while (full->accepted < CLIENTS) {
        heist_conn *conn = NULL;
        int err = heist_accept(full->listener, HEIST_FOREVER, &conn);
        if (err == -EMFILE) {
            full->refused++;
        } else if (err < 0) {
            full->wrong++;
            return err;
        } else {
            full->accepted++;
            heist_conn_close(conn);
        }
    }
    return 0;
}

static int give_back_after_some_refusals(void *arg, void **out) {
    struct full *full = arg;
    (void)out;
    while (full->refused < 10) {
        int err = heist_yield();
        if (err < 0) return err;
    }
    full->freed = true;
    give_back(full->fds, full->taken);
    return 0;
}

static int full_main(void *arg, void **out) {
    struct full *full = arg;
    heist_conn *clients[CLIENTS] = {NULL};
    heist_task *tasks[2] = {NULL, NULL};
    (void)out;
    scene_expect(heist_addr_parse("127.0.0.1:0", &full->addr) == 0);
    scene_expect(heist_listen(&full->addr, NULL, &full->listener) == 0);
    scene_expect(heist_listener_addr(full->listener, &full->addr) == 0);
    for (int i = 0; i < CLIENTS; i++) scene_expect(heist_connect(&full->addr, HEIST_FOREVER, &clients[i]) == 0);
    full->taken = take_all(full->fds, 1024);
    scene_expect(heist_create_task(accept_again_and_again, full, NULL, &tasks[0]) == 0);
    scene_expect(heist_create_task(give_back_after_some_refusals, full, NULL, &tasks[1]) == 0);
    int err = heist_gather(tasks, 2, NULL, 0);
    for (int i = 0; i < 2; i++) heist_unref(tasks[i]);
    for (int i = 0; i < CLIENTS; i++) heist_conn_close(clients[i]);
    heist_listener_close(full->listener);
    return err;
}

/* One worker, so that a task which never gives way would starve the one that helps. */
static void scene_accept(long workers) {
    static struct full full;
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    alarm(60);
    limit_descriptors(256);
    opts.workers = (int)workers;
    scene_expect(heist_run(full_main, &full, &opts, NULL) == 0);
    scene_expect(full.freed && full.accepted == CLIENTS && full.wrong == 0);
}

/* ---- the other calls that need one ---- */

static int need_one_each(void *arg, void **out) {
    int fds[1024], ends[2], n;
    heist_addr addr;
    heist_listener *listener = NULL, *other = NULL;
    heist_conn *conn = NULL;
    heist_loop *loop = NULL, *running = NULL;
    heist_runtime *rt = NULL;
    (void)arg;
    (void)out;
    scene_expect(pipe(ends) == 0);
    scene_expect(heist_get_running_loop(&running) == 0);
    scene_expect(heist_addr_parse("127.0.0.1:0", &addr) == 0);
    scene_expect(heist_listen(&addr, NULL, &listener) == 0);
    scene_expect(heist_listener_addr(listener, &addr) == 0);
    for (int round = 0; round < 3; round++) {
        n = take_all(fds, 1024);
        scene_expect(heist_listen(&addr, NULL, &other) == -EMFILE && !other);
        scene_expect(heist_connect(&addr, HEIST_FOREVER, &conn) == -EMFILE && !conn);
        scene_expect(heist_loop_new(NULL, &loop) == -EMFILE && !loop);
        scene_expect(heist_runtime_new(NULL, &rt) == -EMFILE && !rt);
        scene_expect(heist_sleep(0.001) == 0); /* what needs none goes on */
        give_back(fds, n);
        scene_expect(heist_connect(&addr, HEIST_FOREVER, &conn) == 0);
        heist_conn_close(conn);
        conn = NULL;
        scene_expect(heist_accept(listener, HEIST_FOREVER, &conn) == 0);
        heist_conn_close(conn);
        conn = NULL;
    }
    heist_listener_close(listener);
    close(ends[0]);
    close(ends[1]);
    return 0;
}

static void scene_others(long workers) {
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    alarm(60);
    limit_descriptors(256);
    opts.workers = (int)workers;
    scene_expect(heist_run(need_one_each, NULL, &opts, NULL) == 0);
}

static int answer(void *arg, void **out) {
    *out = arg;
    return 0;
}

/* heist_run itself, with one descriptor more each time until it runs. */
static void scene_run(long workers) {
    static int fds[1024];
    int n, refused = 0, ran = 0;
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    void *result = NULL;
    alarm(60);
    limit_descriptors(128);
    opts.workers = (int)workers;
    n = take_all(fds, 1024);
    for (int spare = 0; spare < 3 * (int)workers && !ran; spare++) {
        int err = heist_run(answer, &opts, &opts, &result);
        scene_expect(err == 0 || err == -EMFILE);
        scene_expect((result != NULL) == (err == 0));
        if (err == 0)
            ran++;
        else
            refused++;
        close(fds[--n]);
    }
    scene_expect(ran == 1 && refused > 0);
    give_back(fds, n);
    scene_expect(heist_run(answer, &opts, &opts, &result) == 0);
}

/* ---- many loops ---- */

static int count(void *arg) {
    ++*(long *)arg;
    return 0;
}

/* For a process of 256 descriptors. */
#define TOO_MANY 500

/* Loops until there are `wanted`, or no descriptor is left: each works, alone and beside all others. */
static void scene_loops(long wanted) {
    heist_loop **loops = calloc((size_t)wanted, sizeof *loops);
    long made = 0, ran = 0;
    int err = 0;
    struct rlimit limit;
    scene_expect(loops);
    scene_expect(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    if (wanted == TOO_MANY) {
        limit_descriptors(256);
    } else {
        rlim_t need = (rlim_t)wanted * 2 + 100;
        struct rlimit more = {need, limit.rlim_max < need ? need : limit.rlim_max};
        /* Not everybody may raise the upper limit. */
        if (setrlimit(RLIMIT_NOFILE, &more) < 0) {
            limit.rlim_cur = limit.rlim_max;
            scene_expect(setrlimit(RLIMIT_NOFILE, &limit) == 0);
            /* A loop has two.  Where these are just as many as there may be, every other one goes, standard output
             * and error too: then the status alone tells how it ended. */
            if (limit.rlim_max < need && limit.rlim_max >= (rlim_t)wanted * 2) {
                fflush(NULL);
                for (int fd = 0; fd < (int)limit.rlim_max; fd++) close(fd);
            }
        }
    }
    for (int round = 0; round < 2; round++) {
        for (made = 0; made < wanted && (err = heist_loop_new(NULL, &loops[made])) == 0; made++) {}
        scene_expect(err == 0 || err == -EMFILE || err == -ENFILE);
        scene_expect(made > 50);
        ran = 0;
        for (long i = 0; i < made; i++) {
            /* A callback, a timer, and the stop behind them. */
            scene_expect(heist_loop_call_soon(loops[i], count, &ran, NULL, NULL) == 0);
            scene_expect(heist_loop_call_later(loops[i], 0, count, &ran, NULL, NULL) == 0);
        }
        for (long i = made; i-- > 0;) {
            heist_task *task = NULL;
            void *result = NULL;
            scene_expect(heist_loop_create_task(loops[i], answer, &ran, NULL, &task) == 0);
            scene_expect(heist_loop_run_until_complete(loops[i], task, &result) == 0 && result == &ran);
            heist_unref(task);
            scene_expect(heist_loop_stop(loops[i]) == 0);
            scene_expect(heist_loop_run_forever(loops[i]) == 0);
        }
        scene_expect(ran == 2 * made);
        for (long i = 0; i < made; i++) {
            scene_expect(heist_loop_close(loops[i]) == 0);
            heist_loop_unref(loops[i]);
            loops[i] = NULL;
        }
    }
    free(loops);
    printf("%ld loops\n", made);
    if (wanted == TOO_MANY) {
        scene_expect(err == -EMFILE && made < wanted);
    } else if (made < wanted) {
        printf("skipped: this machine allows %ju descriptors\n", (uintmax_t)limit.rlim_max);
        exit(CHILD_SKIPS);
    }
}

static const struct scene scenes[] = {
    {"accept", scene_accept},
    {"others", scene_others},
    {"run", scene_run},
    {"loops", scene_loops},
};

/* ---- tests ---- */

static void accept_on_a_full_table_starves_nobody_and_loses_no_connection(void **state) {
    (void)state;
    for (long workers = 1; workers <= 2; workers++) {
        child_play("accept", workers);
        child_expect_success();
    }
}

static void what_needs_a_descriptor_says_so_and_works_when_there_is_one(void **state) {
    (void)state;
    for (long workers = 1; workers <= 2; workers++) {
        child_play("others", workers);
        child_expect_success();
    }
}

static void run_without_descriptors_is_refused_until_there_are_enough(void **state) {
    (void)state;
    for (long workers = 1; workers <= 3; workers++) {
        child_play("run", workers);
        child_expect_success();
    }
}

static void loops_until_the_table_is_full_are_usable_and_give_all_back(void **state) {
    (void)state;
    child_play("loops", TOO_MANY);
    child_expect_success();
}

static void thousands_of_loops_live_side_by_side(void **state) {
    (void)state;
    child_play("loops", CHILD_INSTRUMENTED ? 150 : child_heavy() ? 10000 : 1000);
    child_expect_success();
}

int main(int argc, char **argv) {
    child_main(argc, argv, scenes, sizeof scenes / sizeof scenes[0]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accept_on_a_full_table_starves_nobody_and_loses_no_connection),
        cmocka_unit_test(what_needs_a_descriptor_says_so_and_works_when_there_is_one),
        cmocka_unit_test(run_without_descriptors_is_refused_until_there_are_enough),
        cmocka_unit_test(loops_until_the_table_is_full_are_usable_and_give_all_back),
        cmocka_unit_test(thousands_of_loops_live_side_by_side),
    };
    return cmocka_run_group_tests_name("limits/descriptors", tests, NULL, NULL);
}
