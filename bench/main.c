/* main.c: finds a workload by its name and runs it.
 *
 *   heist-bench WORKLOAD WORKERS N      N = 0 takes the workload's own size
 *   heist-bench echo WORKERS PORT       serves until it is killed
 *   heist-bench --list
 *
 * Exit status: 0; 1 a result was wrong or a call failed; 2 usage; 3 no such workload. */
#include "common.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct bench_workload workloads[] = {
    {"yield", 5000000, bench_yield},
    {"spawn_join", 1000000, bench_spawn_join},
    {"context", 1000000, bench_context},
    {"spawn_many", 1000000, bench_spawn_many},
    {"gather", 10000, bench_gather},
    {"fib", 32, bench_fib},
    {"skynet", 1000000, bench_skynet},
    {"pingpong", 1000000, bench_pingpong},
    {"ring", 1000000, bench_ring},
    {"pipeline", 1000, bench_pipeline},
    {"queue", 1000000, bench_queue},
    {"select", 1000000, bench_select},
    {"sleepers", 1000000, bench_sleepers},
    {"sleepers.callback", 1000000, bench_sleepers_callback},
    {"timer_churn", 5000000, bench_timer_churn},
    {"foreign_submit", 1000000, bench_foreign_submit},
    {"foreign_roundtrip", 100000, bench_foreign_roundtrip},
    {"quiet", 1000, bench_quiet},
    {"mutex", 50000, bench_mutex},
    {"blocked", 5, bench_blocked},
    {"generator", 20000000, bench_generator},
    {"executor", 300000, bench_executor},
    {"process", 1000, bench_process},
    {"accept", 50000, bench_accept},
    {"stream", 2048, bench_stream},
    {"files", 200000, bench_files},
    {"echo", 18400, bench_echo},
    {"echo_streams", 18400, bench_echo_streams}, /* the other way to do echo: not in the list */
};
enum { WORKLOADS = sizeof workloads / sizeof *workloads };

int main(int argc, char **argv) {
    if (argc == 2 && !strcmp(argv[1], "--list")) {
        for (size_t i = 0; strcmp(workloads[i].name, "echo_streams") != 0; i++) puts(workloads[i].name);
        return 0;
    }
    char *end_workers = NULL, *end_n = NULL;
    long workers = argc == 4 ? strtol(argv[2], &end_workers, 10) : 0;
    long long n = argc == 4 ? strtoll(argv[3], &end_n, 10) : 0;
    if (argc != 4 || workers < 1 || workers > 1024 || n < 0 || *end_workers || *end_n) {
        fprintf(stderr, "usage: %s WORKLOAD WORKERS N\n", argv[0]);
        return 2;
    }
    for (size_t i = 0; i < WORKLOADS; i++) {
        if (strcmp(argv[1], workloads[i].name)) continue;
        struct bench_args args = {(int)workers, n ? (size_t)n : workloads[i].default_n};
        workloads[i].run(&args);
        printf("M\t%ld\n", bench_status_kib("VmHWM"));
        return 0;
    }
    fprintf(stderr, "%s: no workload %s\n", argv[0], argv[1]);
    return 3;
}
