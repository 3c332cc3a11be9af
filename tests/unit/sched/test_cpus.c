/* sched/cpus.c: how many processors a process may use, by its affinity mask and the quota
 * of its control groups.
 *
 * The file under test is compiled in here, with doors in front of open and
 * sched_getaffinity: paths below /proc and /sys lead into a folder that the test fills. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char root[512];
static int mask_count; /* how many processors the mask has; 0: the call fails */
static size_t mask_least; /* the kernel's mask has so many bytes; a shorter one is refused */

static int open_below_root(const char *path, int flags) {
    char there[1200];
    snprintf(there, sizeof there, "%s%s", root, path);
    return open(there, flags);
}

static int fake_getaffinity(pid_t pid, size_t size, cpu_set_t *set) {
    (void)pid;
    if (mask_count == 0 || size < mask_least) return -1;
    CPU_ZERO_S(size, set);
    for (int i = 0; i < mask_count; i++) CPU_SET_S((size_t)(2 * i + 1), size, set); /* with gaps */
    return 0;
}

#define open(path, flags) open_below_root(path, flags)
#define sched_getaffinity(pid, size, set) fake_getaffinity(pid, size, set)
#include "sched/cpus.c"
#undef open
#undef sched_getaffinity

/* ---- the folder ---- */

static void make_folders_of(char *path) {
    for (char *slash = path + strlen(root) + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = 0;
        assert_true(mkdir(path, 0700) == 0 || errno == EEXIST);
        *slash = '/';
    }
}

static void put(const char *path, const char *text) {
    char there[1200];
    snprintf(there, sizeof there, "%s%s", root, path);
    make_folders_of(there);
    FILE *file = fopen(there, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static int make_root(void **state) {
    const char *folder = getenv("TMPDIR");
    (void)state;
    snprintf(root, sizeof root, "%s/heist-cpus-XXXXXX", folder ? folder : "/tmp");
    mask_count = 16;
    mask_least = 0;
    return mkdtemp(root) ? 0 : -1;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *walk) {
    (void)st;
    (void)kind;
    (void)walk;
    return remove(path);
}

static int remove_root(void **state) {
    (void)state;
    return nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* ---- the mask ---- */

static void without_groups_the_mask_counts(void **state) {
    (void)state;
    assert_int_equal(heist__available_cpus(), 16);
    mask_count = 1;
    assert_int_equal(heist__available_cpus(), 1);
}

static void mask_longer_than_usual_is_read_whole(void **state) {
    (void)state;
    mask_count = 3;
    mask_least = 4096 / 8; /* of a kernel for 4,096 processors */
    assert_int_equal(heist__available_cpus(), 3);
}

static void without_a_mask_the_system_is_asked(void **state) {
    (void)state;
    mask_count = 0;
    assert_int_equal(heist__available_cpus(), (int)sysconf(_SC_NPROCESSORS_ONLN));
}

/* ---- version 2 ---- */

static void quota_is_rounded_up_and_never_below_one(void **state) {
    static const struct {
        const char *text;
        int cpus;
    } cases[] = {
        {"max 100000\n", 16},    {"100000 100000\n", 1},  {"150000 100000\n", 2}, {"200000 100000\n", 2},
        {"200001 100000\n", 3},  {"1000 100000\n", 1},    {"50000 10000\n", 5},   {"3200000 100000\n", 16},
        {"", 16},                {"nonsense\n", 16},      {"-1 100000\n", 16},    {"0 100000\n", 16},
        {"100000 0\n", 16},      {"100000\n", 16},
    };
    (void)state;
    put("/proc/self/cgroup", "0::/\n");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        put("/sys/fs/cgroup/cpu.max", cases[i].text);
        if (heist__available_cpus() != cases[i].cpus)
            fail_msg("'%s': %d instead of %d", cases[i].text, heist__available_cpus(), cases[i].cpus);
    }
}

static void smallest_quota_on_the_way_up_counts(void **state) {
    (void)state;
    put("/proc/self/cgroup", "0::/machine/pod/container\n");
    put("/sys/fs/cgroup/machine/pod/container/cpu.max", "max 100000\n");
    put("/sys/fs/cgroup/machine/pod/cpu.max", "300000 100000\n");
    put("/sys/fs/cgroup/machine/cpu.max", "700000 100000\n");
    assert_int_equal(heist__available_cpus(), 3);
    put("/sys/fs/cgroup/machine/pod/container/cpu.max", "200000 100000\n");
    assert_int_equal(heist__available_cpus(), 2);
    put("/sys/fs/cgroup/machine/cpu.max", "100000 100000\n");
    assert_int_equal(heist__available_cpus(), 1);
}

static void group_without_the_controller_does_not_hide_those_above(void **state) {
    (void)state;
    put("/proc/self/cgroup", "0::/a/b\n");
    put("/sys/fs/cgroup/a/cpu.max", "400000 100000\n");
    assert_int_equal(heist__available_cpus(), 4);
}

static void neighbours_quota_is_not_ours(void **state) {
    (void)state;
    put("/proc/self/cgroup", "0::/a/ours\n");
    put("/sys/fs/cgroup/a/theirs/cpu.max", "100000 100000\n");
    assert_int_equal(heist__available_cpus(), 16);
}

static void quota_beyond_the_mask_changes_nothing(void **state) {
    (void)state;
    mask_count = 2;
    put("/proc/self/cgroup", "0::/\n");
    put("/sys/fs/cgroup/cpu.max", "800000 100000\n");
    assert_int_equal(heist__available_cpus(), 2);
}

/* A group outside what a name space shows is written with dots; its files are not to be found. */
static void group_outside_the_name_space_is_no_limit(void **state) {
    (void)state;
    put("/proc/self/cgroup", "0::/../../elsewhere\n");
    put("/sys/fs/cgroup/other/cpu.max", "100000 100000\n");
    assert_int_equal(heist__available_cpus(), 16);
}

static void name_of_a_group_longer_than_any_buffer_is_harmless(void **state) {
    char text[4000] = "0::";
    (void)state;
    memset(text + 3, 'g', sizeof text - 5);
    text[3] = '/';
    text[sizeof text - 2] = '\n';
    text[sizeof text - 1] = 0;
    put("/proc/self/cgroup", text);
    put("/sys/fs/cgroup/cpu.max", "500000 100000\n");
    assert_int_equal(heist__available_cpus(), 5);
}

/* ---- version 1, and both ---- */

static void version_one_has_two_files(void **state) {
    (void)state;
    put("/proc/self/cgroup", "4:memory:/x\n3:cpu,cpuacct:/x\n1:name=systemd:/x\n");
    put("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "250000\n");
    put("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    assert_int_equal(heist__available_cpus(), 3);
    put("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
    assert_int_equal(heist__available_cpus(), 16);
}

static void where_both_are_mounted_the_one_with_a_quota_counts(void **state) {
    (void)state;
    put("/proc/self/cgroup", "3:cpu,cpuacct:/x\n0::/x\n");
    put("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "400000\n");
    put("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    assert_int_equal(heist__available_cpus(), 4);
    put("/sys/fs/cgroup/x/cpu.max", "200000 100000\n");
    assert_int_equal(heist__available_cpus(), 2);
}

#define CPUS_TEST(f) cmocka_unit_test_setup_teardown(f, make_root, remove_root)

int main(void) {
    const struct CMUnitTest tests[] = {
        CPUS_TEST(without_groups_the_mask_counts),
        CPUS_TEST(mask_longer_than_usual_is_read_whole),
        CPUS_TEST(without_a_mask_the_system_is_asked),
        CPUS_TEST(quota_is_rounded_up_and_never_below_one),
        CPUS_TEST(smallest_quota_on_the_way_up_counts),
        CPUS_TEST(group_without_the_controller_does_not_hide_those_above),
        CPUS_TEST(neighbours_quota_is_not_ours),
        CPUS_TEST(quota_beyond_the_mask_changes_nothing),
        CPUS_TEST(group_outside_the_name_space_is_no_limit),
        CPUS_TEST(name_of_a_group_longer_than_any_buffer_is_harmless),
        CPUS_TEST(version_one_has_two_files),
        CPUS_TEST(where_both_are_mounted_the_one_with_a_quota_counts),
    };
    return cmocka_run_group_tests_name("sched/cpus", tests, NULL, NULL);
}
