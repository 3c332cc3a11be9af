/* main.c: heist-bench-sizes, for bench/scale and bench/budget.
 *
 *   heist-bench-sizes WORKLOAD WORKERS N      the protocol of heist-bench
 *
 * A program of its own: what is linked with a hot path decides how the linker's optimiser lays it out, and
 * bench/guard counts that of heist-bench. */
#include "common.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct bench_workload workloads[] = {
    {"scale.tasks", 1000, bench_scale_tasks},
    {"scale.sleepers", 1000, bench_scale_sleepers},
    {"scale.timers", 1000, bench_scale_timers},
    {"scale.submitters", 4, bench_scale_submitters},
    {"budget", 1000, bench_budget},
};

int main(int argc, char **argv) {
    int workers = argc == 4 ? atoi(argv[2]) : 0;
    size_t n = argc == 4 ? strtoull(argv[3], NULL, 10) : 0;
    if (workers < 1 || workers > 1024) {
        fprintf(stderr, "usage: %s WORKLOAD WORKERS N\n", argv[0]);
        return 2;
    }
    for (size_t i = 0; i < sizeof workloads / sizeof *workloads; i++) {
        if (strcmp(argv[1], workloads[i].name) != 0) continue;
        struct bench_args args = {workers, n ? n : workloads[i].default_n};
        workloads[i].run(&args);
        printf("M\t%ld\n", bench_status_kib("VmHWM"));
        return 0;
    }
    return 3;
}
