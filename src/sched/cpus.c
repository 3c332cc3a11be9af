/* Affinity mask and cgroup CPU quota.  See cpus.h.
 *
 * Version 2: "cpu.max" holds "quota period" or "max period", in the process's own
 * group and each group above it; version 1: two files.  The smallest quota counts. */
#include "sched/cpus.h"

#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/sim.h"

static bool read_text(const char *path, char *buf, size_t size) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    ssize_t n = read(fd, buf, size - 1);
    close(fd);
    if (n <= 0) return false;
    buf[n] = 0;
    return true;
}

static int from_quota(long quota, long period) {
    if (quota <= 0 || period <= 0) return 0;
    return (int)((quota + period - 1) / period);
}

/* 0: no limit. */
static int quota_v2(const char *group) {
    char path[512], text[64];
    int least = 0;
    snprintf(path, sizeof(path), "/sys/fs/cgroup%s", group);
    for (;;) {
        char file[544];
        long quota, period;
        snprintf(file, sizeof(file), "%s/cpu.max", path);
        if (read_text(file, text, sizeof(text)) && sscanf(text, "%ld %ld", &quota, &period) == 2) {
            int n = from_quota(quota, period);
            if (n && (!least || n < least)) least = n;
        }
        char *slash = strrchr(path, '/');
        if (!slash || strcmp(path, "/sys/fs/cgroup") == 0) return least;
        *slash = 0;
    }
}

static int quota_of_cgroup(void) {
    char text[1024], file[64];
    if (read_text("/proc/self/cgroup", text, sizeof(text))) {
        char *own = strstr(text, "0::");
        if (own) {
            own += 3;
            own[strcspn(own, "\n")] = 0;
            int n = quota_v2(strcmp(own, "/") == 0 ? "" : own);
            if (n) return n;
        }
    }
    long quota = 0, period = 0;
    if (read_text("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", file, sizeof(file))) quota = atol(file);
    if (read_text("/sys/fs/cgroup/cpu/cpu.cfs_period_us", file, sizeof(file))) period = atol(file);
    return from_quota(quota, period);
}

static int cpus_of_mask(void) {
    for (int room = 1024; room <= 1 << 20; room *= 2) { /* the kernel's mask may be longer than a cpu_set_t */
        cpu_set_t *set = CPU_ALLOC(room);
        if (!set) break;
        size_t size = CPU_ALLOC_SIZE(room);
        int n = sched_getaffinity(0, size, set) == 0 ? CPU_COUNT_S(size, set) : 0;
        CPU_FREE(set);
        if (n > 0) return n;
    }
    return (int)sysconf(_SC_NPROCESSORS_ONLN);
}

int heist__available_cpus(void) {
#ifdef HEIST_SEEDED
    if (heist__simulated()) return heist__sim_cpus();
#endif
    int n = cpus_of_mask(), quota = quota_of_cgroup();
    if (quota && quota < n) n = quota;
    return n > 0 ? n : 1;
}
