/* process.c: one child after the other, and several at once, beside posix_spawn and waitpid.
 *
 * Each child is /bin/true.  `posix_spawn` and `heist` start one, wait for its end and start the next; `start` is the
 * time of the starting call alone, of which `posix_spawn.start` is the rival's; `at once` keeps eight children going
 * from as many tasks.  The program holds 64 MiB of memory that it has written to, so that copying its tables would
 * show. */
#include "common.h"

#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define BALLAST ((size_t)64 << 20)
#define AT_ONCE 8

static char program[] = "/bin/true";
static char *arguments[] = {program, NULL};

static void run_posix_spawn(size_t n) {
    int64_t starting = 0, begin = bench_now_ns();
    for (size_t i = 0; i < n; i++) {
        pid_t pid;
        int status;
        int64_t before = bench_now_ns();
        BENCH_CHECK(posix_spawn(&pid, program, NULL, NULL, arguments, environ) == 0);
        starting += bench_now_ns() - before;
        BENCH_CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    }
    bench_emit("posix_spawn", n, (double)(bench_now_ns() - begin) / (double)n / 1000, "us/child");
    bench_emit("posix_spawn.start", n, (double)starting / (double)n / 1000, "us/child");
}

static int64_t one_child(void) {
    heist_process *p;
    int code = -1;
    int64_t before = bench_now_ns();
    BENCH_MUST(heist_create_subprocess_exec(arguments, NULL, &p));
    int64_t after = bench_now_ns();
    BENCH_MUST(heist_process_wait(p, HEIST_FOREVER, &code));
    BENCH_CHECK(code == 0);
    heist_process_unref(p);
    return after - before;
}

static int many_children(void *arg, void **out) {
    (void)out;
    for (size_t i = *(size_t *)arg; i-- > 0;) (void)one_child();
    return 0;
}

static int process_main(void *arg, void **out) {
    const struct bench_args *args = arg;
    (void)out;
    run_posix_spawn(args->n);
    int64_t starting = 0, begin = bench_now_ns();
    for (size_t i = 0; i < args->n; i++) starting += one_child();
    bench_emit("-", args->n, (double)(bench_now_ns() - begin) / (double)args->n / 1000, "us/child");
    bench_emit("start", args->n, (double)starting / (double)args->n / 1000, "us/child");
    heist_task *tasks[AT_ONCE];
    size_t each = args->n / AT_ONCE + 1;
    begin = bench_now_ns();
    for (int i = 0; i < AT_ONCE; i++) BENCH_MUST(heist_create_task(many_children, &each, NULL, &tasks[i]));
    BENCH_MUST(heist_gather(tasks, AT_ONCE, NULL, 0));
    size_t all = each * AT_ONCE;
    bench_emit("at once", all, (double)(bench_now_ns() - begin) / (double)all / 1000, "us/child");
    for (int i = 0; i < AT_ONCE; i++) heist_unref(tasks[i]);
    return 0;
}

void bench_process(const struct bench_args *args) {
    char *ballast = malloc(BALLAST);
    BENCH_CHECK(ballast != NULL);
    memset(ballast, 1, BALLAST);
    bench_run(process_main, args);
    BENCH_CHECK(ballast[BALLAST / 2] == 1);
    free(ballast);
}
