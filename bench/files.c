/* files.c: 64 tasks read blocks of 4 KiB at places drawn by lot out of one file of 64 MiB.
 *
 * `plain`: pread in a loop, on one thread, of what is in memory: the floor.  `cached`: heist_file_pread of the same.
 * `thread`: the same by pread in heist_to_thread.  `cold` and `cold.thread`: the file's pages are given up before, and the
 * places are far apart; `cold.plain` again on one thread, one after the other.  `write`: blocks written to their places.
 * Which backend the loops have is said by HEIST_BACKEND. */
#include "common.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TASKS 64
#define BLOCK 4096
#define BLOCKS ((size_t)16384)

struct reading {
    heist_file *file;
    int fd;
    size_t n, bytes;
    bool thread, write;
    uint32_t random;
};

struct one {
    int fd;
    char *buf;
    off_t at;
};

static off_t draw(struct reading *r) {
    r->random ^= r->random << 13; /* xorshift32, Marsaglia 2003 */
    r->random ^= r->random >> 17;
    r->random ^= r->random << 5;
    return (off_t)(r->random % BLOCKS) * BLOCK;
}

static int pread_one(void *arg, void **out) {
    struct one *one = arg;
    (void)out;
    return pread(one->fd, one->buf, BLOCK, one->at) == BLOCK ? 0 : -EIO;
}

static int read_blocks(void *arg, void **out) {
    struct reading *r = arg;
    char *buf = malloc(BLOCK);
    (void)out;
    BENCH_CHECK(buf);
    memset(buf, 'w', BLOCK);
    for (size_t i = 0; i < r->n; i++) {
        off_t at = draw(r);
        if (r->write) {
            BENCH_MUST(heist_file_pwrite(r->file, buf, BLOCK, at, NULL));
        } else if (r->thread) {
            struct one one = {r->fd, buf, at};
            BENCH_MUST(heist_to_thread(pread_one, &one, NULL));
        } else {
            BENCH_CHECK(heist_file_pread(r->file, buf, BLOCK, at) == BLOCK);
        }
        r->bytes += BLOCK;
    }
    free(buf);
    return 0;
}

/* Of so many reads in all. */
static void measure(const char *metric, heist_file *file, size_t n, bool thread, bool write) {
    struct reading r[TASKS];
    heist_task *tasks[TASKS];
    size_t each = n / TASKS + 1;
    double cpu = bench_cpu_seconds();
    int64_t start = bench_now_ns();
    for (int i = 0; i < TASKS; i++) {
        r[i] = (struct reading){file, heist_file_fd(file), each, 0, thread, write, 2463534242u + (uint32_t)i * 40503u};
        BENCH_MUST(heist_create_task(read_blocks, &r[i], NULL, &tasks[i]));
    }
    BENCH_MUST(heist_gather(tasks, TASKS, NULL, 0));
    double ns = (double)(bench_now_ns() - start) / (double)(each * TASKS);
    for (int i = 0; i < TASKS; i++) {
        BENCH_CHECK(r[i].bytes == each * BLOCK);
        heist_unref(tasks[i]);
    }
    char name[32];
    bench_emit(metric, each * TASKS, ns, "ns/block");
    snprintf(name, sizeof name, "%s.cpu", metric);
    bench_emit(name, each * TASKS, (bench_cpu_seconds() - cpu) * 1e9 / (double)(each * TASKS), "ns/block");
}

static void measure_plain(const char *metric, int fd, size_t n) {
    struct reading r = {.random = 2463534242u};
    char *buf = malloc(BLOCK);
    BENCH_CHECK(buf);
    int64_t start = bench_now_ns();
    for (size_t i = 0; i < n; i++) BENCH_CHECK(pread(fd, buf, BLOCK, draw(&r)) == BLOCK);
    bench_emit(metric, n, (double)(bench_now_ns() - start) / (double)n, "ns/block");
    free(buf);
}

/* Its pages are on the disk, and nowhere else; reads fetch no more than they ask for. */
static void forget(int fd) {
    BENCH_CHECK(fsync(fd) == 0);
    BENCH_CHECK(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) == 0);
    BENCH_CHECK(posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM) == 0);
}

static int files_main(void *arg, void **out) {
    const struct bench_args *args = arg;
    const char *folder = getenv("TMPDIR");
    char path[256];
    heist_file *file;
    (void)out;
    snprintf(path, sizeof path, "%s/heist-bench-XXXXXX", folder ? folder : "/var/tmp");
    int fd = mkstemp(path);
    BENCH_CHECK(fd >= 0);
    unlink(path);
    char *block = malloc(BLOCK);
    BENCH_CHECK(block);
    memset(block, 'b', BLOCK);
    for (size_t i = 0; i < BLOCKS; i++) BENCH_CHECK(pwrite(fd, block, BLOCK, (off_t)i * BLOCK) == BLOCK);
    free(block);
    BENCH_MUST(heist_file_adopt(fd, &file));
    size_t cold = args->n / 10 + 1;
    measure_plain("plain", fd, args->n);
    measure("cached", file, args->n, false, false);
    measure("thread", file, args->n, true, false);
    measure("write", file, args->n, false, true);
    forget(fd);
    measure_plain("cold.plain", fd, cold < 2000 ? cold : 2000);
    forget(fd);
    measure("cold", file, cold, false, false);
    forget(fd);
    measure("cold.thread", file, cold, true, false);
    return heist_file_close(file);
}

void bench_files(const struct bench_args *args) {
    bench_run(files_main, args);
}
