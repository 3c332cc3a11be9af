/* A process exits while its other threads go on with their TLS connections: it exits, with its own status.  (It once used
 * what the library had given back as the process exited.)
 *
 * Each exit is that of a process of its own, this program once more; a sanitizer's finding changes its status. */
#include "api/tls_world.h"

#include <heist/tls.h>
#include <sched.h>
#include <spawn.h>
#include <stdatomic.h>
#include <sys/wait.h>

extern char **environ;

enum { PAIRS = 6, EXITS = 6 };

/* ---- the process that exits ---- */

static struct pair pairs[PAIRS];
static atomic_ulong moved;

static int send_on(void *arg, void **out) {
    heist_stream *s = arg;
    static const char data[20000];
    int err = 0;
    (void)out;
    while (!err) {
        err = heist_stream_write(s, data, sizeof data) < 0 ? -EPIPE : heist_stream_drain(s);
        if (!err) err = heist_yield();
    }
    return err;
}

static int take_on(void *arg, void **out) {
    heist_stream *s = arg;
    char data[8192];
    ptrdiff_t n;
    (void)out;
    while ((n = heist_stream_read(s, data, sizeof data)) > 0) {
        atomic_fetch_add(&moved, (unsigned long)n);
        if (heist_yield() < 0) return -ECANCELED;
    }
    return (int)n;
}

static int traffic(void *arg, void **out) {
    heist_tls_context **ctx = arg;
    (void)out;
    for (int i = 0; i < PAIRS; i++) {
        struct pair *p = &pairs[i];
        heist_task *t[2];
        pair_init(p, ctx[0], ctx[1], "localhost");
        int err = pair_open(p);
        if (!err) err = pair_greet(p);
        if (!err) err = p->server.err ? p->server.err : p->client.err;
        if (!err) err = heist_create_task(send_on, p->server.tls, NULL, &t[0]);
        if (!err) err = heist_create_task(take_on, p->client.tls, NULL, &t[1]);
        if (err) return err;
        heist_unref(t[0]);
        heist_unref(t[1]);
    }
    return heist_sleep(HEIST_FOREVER);
}

static int leave_in_the_middle(int after) {
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    heist_runtime *rt;
    heist_task *t;
    world_begin();
    heist_tls_context *ctx[2] = {server_context(&W.good, NULL), client_context(NULL)};
    opts.workers = harness_workers();
    if (!ctx[0] || !ctx[1] || heist_runtime_new(&opts, &rt)) return 3;
    if (heist_runtime_run_coroutine(rt, traffic, ctx, NULL, &t)) return 4;
    while (atomic_load(&moved) < (unsigned long)after * 50000) {
        if (heist_future_done(t)) return 5;
        sched_yield();
    }
    exit(0);
}

/* ---- and who looks at it ---- */

static void exit_beside_traffic_is_an_exit(void **state) {
    (void)state;
    if (harness_valgrind()) skip(); /* it runs a program by its path alone, and would not look at the child */
    const char *given = getenv("ASAN_OPTIONS");
    char options[1024], number[16], self[] = "/proc/self/exe", word[] = "leave";
    /* What a process that leaves in the middle has not given back is no leak. */
    snprintf(options, sizeof options, "%s%sdetect_leaks=0", given ? given : "", given && *given ? ":" : "");
    assert_int_equal(setenv("ASAN_OPTIONS", options, 1), 0);
    for (int i = 0; i < EXITS; i++) {
        char *argv[] = {self, word, number, NULL};
        pid_t pid;
        int status;
        snprintf(number, sizeof number, "%d", i);
        assert_int_equal(posix_spawn(&pid, self, NULL, NULL, argv, environ), 0);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
    }
    assert_int_equal(given ? setenv("ASAN_OPTIONS", given, 1) : unsetenv("ASAN_OPTIONS"), 0);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {API_TEST(exit_beside_traffic_is_an_exit)};
    if (argc > 2) return leave_in_the_middle(atoi(argv[2]));
    return HARNESS_MAIN("tls_exit", tests);
}
