/* Files: what is written is read back, one at a time at the position, cancelled without loss; lines, whole files,
 * names, directories; changes. */
#include "support/harness.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* A folder for one test. */
static char folder[64];
static void make_folder(void) {
    strcpy(folder, "/tmp/heist-test-XXXXXX");
    assert_non_null(mkdtemp(folder));
}
static void drop_folder(void) {
    DIR *d = opendir(folder);
    char path[400];
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        if (e->d_name[0] != '.' && unlink(path) < 0) (void)rmdir(path);
    }
    closedir(d);
    assert_int_equal(rmdir(folder), 0);
}
static const char *in_folder(const char *name) {
    static _Thread_local char path[8][400];
    static _Thread_local unsigned turn;
    char *at = path[turn++ % 8];
    snprintf(at, sizeof path[0], "%s/%s", folder, name);
    return at;
}

/* In machine time: descriptors are the kernel's. */
static int run_real(heist_coro_fn fn, void *arg) {
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    opts.workers = harness_workers();
    return heist_run(fn, arg, &opts, NULL);
}

/* Each step must hold; the number of the line that did not is the code. */
#define STEP(condition)                                                                                                \
    do {                                                                                                               \
        if (!(condition)) return heist_fail(-EPROTO, "line %d: %s", __LINE__, #condition);                             \
    } while (0)

static int said(int err) {
    if (err) fprintf(stderr, "a step failed: %s\n", heist_error_name(err));
    return err;
}

/* ---- reading and writing ---- */

static int write_and_read(void *arg, void **out) {
    heist_file *f = NULL;
    char buf[64] = "";
    size_t written = 99;
    int64_t at = -1;
    struct stat st;
    (void)out;
    STEP(heist_file_open(arg, O_RDWR | O_CREAT | O_TRUNC, 0644, &f) == 0);
    STEP(fcntl(heist_file_fd(f), F_GETFD) == FD_CLOEXEC);
    STEP(heist_file_read(f, buf, sizeof buf) == 0); /* empty: the end */
    STEP(heist_file_write(f, "hello, world\n", 13, &written) == 0 && written == 13);
    STEP(heist_file_write(f, NULL, 0, NULL) == 0);
    STEP(heist_file_seek(f, 0, SEEK_CUR, &at) == 0 && at == 13);
    STEP(heist_file_seek(f, 7, SEEK_SET, &at) == 0 && at == 7);
    STEP(heist_file_read(f, buf, 5) == 5 && !memcmp(buf, "world", 5));
    STEP(heist_file_seek(f, -6, SEEK_END, &at) == 0 && at == 7);
    STEP(heist_file_seek(f, -1, SEEK_SET, &at) == -EINVAL && at == 7); /* untouched */
    STEP(heist_file_pread(f, buf, 5, 0) == 5 && !memcmp(buf, "hello", 5));
    STEP(heist_file_pwrite(f, "HELLO", 5, 0, &written) == 0 && written == 5);
    STEP(heist_file_seek(f, 0, SEEK_CUR, &at) == 0 && at == 7); /* offsets leave it alone */
    STEP(heist_file_pread(f, buf, 5, 100) == 0);
    STEP(heist_file_stat(f, &st) == 0 && st.st_size == 13);
    STEP(heist_file_truncate(f, 20) == 0 && heist_file_stat(f, &st) == 0 && st.st_size == 20);
    STEP(heist_file_truncate(f, 13) == 0);
    STEP(heist_file_sync(f) == 0 && heist_file_datasync(f) == 0);
    STEP(heist_file_close(f) == 0);
    return heist_file_close(NULL);
}

static void assert_content(const char *path, const char *expected) {
    char text[256] = "";
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = 0;
    assert_string_equal(text, expected);
}

static void what_is_written_is_read_back_EXEC_15(void **state) {
    (void)state;
    make_folder();
    char *path = strdup(in_folder("a"));
    assert_int_equal(said(harness_run(write_and_read, path, NULL)), 0);
    assert_content(path, "HELLO, world\n");
    assert_int_equal(said(write_and_read(path, NULL)), 0); /* on a plain thread, which blocks */
    free(path);
    drop_folder();
}

struct appending {
    heist_file *f;
    int number;
};
enum { APPENDERS = 8, RECORDS = 25, RECORD_BYTES = 64 };

static int append_records(void *arg, void **out) {
    struct appending *a = arg;
    char record[RECORD_BYTES];
    (void)out;
    memset(record, 'a' + a->number, sizeof record);
    for (int i = 0; i < RECORDS; i++) {
        int err = heist_file_write(a->f, record, sizeof record, NULL);
        if (err) return err;
    }
    return 0;
}

static int append_together(void *arg, void **out) {
    struct appending all[APPENDERS];
    heist_task *tasks[APPENDERS];
    heist_file *f;
    (void)out;
    STEP(heist_file_open(arg, O_RDWR | O_CREAT, 0600, &f) == 0);
    for (int i = 0; i < APPENDERS; i++) {
        all[i] = (struct appending){f, i};
        STEP(heist_create_task(append_records, &all[i], NULL, &tasks[i]) == 0);
    }
    STEP(heist_gather(tasks, APPENDERS, NULL, 0) == 0);
    for (int i = 0; i < APPENDERS; i++) heist_unref(tasks[i]);
    int count[APPENDERS] = {0};
    char record[RECORD_BYTES];
    ptrdiff_t n;
    STEP(heist_file_seek(f, 0, SEEK_SET, NULL) == 0);
    while ((n = heist_file_read(f, record, sizeof record)) > 0) {
        STEP(n == RECORD_BYTES && record[0] >= 'a' && record[0] < 'a' + APPENDERS);
        for (int i = 1; i < RECORD_BYTES; i++) STEP(record[i] == record[0]);
        count[record[0] - 'a']++;
    }
    for (int i = 0; i < APPENDERS; i++) STEP(count[i] == RECORDS);
    STEP(n == 0);
    return heist_file_close(f);
}

static void one_operation_at_a_time_moves_the_position_EXEC_15(void **state) {
    (void)state;
    make_folder();
    assert_int_equal(said(run_real(append_together, (void *)(uintptr_t)in_folder("records"))), 0);
    drop_folder();
}

struct block {
    heist_file *f;
    int number;
};
enum { BLOCKS = 32, BLOCK_BYTES = 1000 };

static int move_block(void *arg, void **out) {
    struct block *b = arg;
    char to[BLOCK_BYTES], from[BLOCK_BYTES];
    (void)out;
    memset(to, 'A' + b->number, sizeof to);
    int err = heist_file_pwrite(b->f, to, sizeof to, (int64_t)b->number * BLOCK_BYTES, NULL);
    if (err) return err;
    ptrdiff_t n = heist_file_pread(b->f, from, sizeof from, (int64_t)b->number * BLOCK_BYTES);
    return n == BLOCK_BYTES && !memcmp(to, from, sizeof to) ? 0 : -EPROTO;
}

static int move_blocks(void *arg, void **out) {
    struct block all[BLOCKS];
    heist_task *tasks[BLOCKS];
    heist_file *f;
    (void)out;
    STEP(heist_file_open(arg, O_RDWR | O_CREAT, 0600, &f) == 0);
    for (int i = 0; i < BLOCKS; i++) {
        all[i] = (struct block){f, i};
        STEP(heist_create_task(move_block, &all[i], NULL, &tasks[i]) == 0);
    }
    STEP(heist_gather(tasks, BLOCKS, NULL, 0) == 0);
    for (int i = 0; i < BLOCKS; i++) heist_unref(tasks[i]);
    return heist_file_close(f);
}

static void any_number_of_operations_go_by_offset_at_once(void **state) {
    (void)state;
    make_folder();
    assert_int_equal(said(run_real(move_blocks, (void *)(uintptr_t)in_folder("blocks"))), 0);
    drop_folder();
}

/* ---- failures ---- */

static int fail_in_each_way(void *arg, void **out) {
    heist_file *f = NULL, *untouched = (heist_file *)&f;
    char buf[10000];
    size_t written = 99;
    int64_t at;
    struct stat st;
    (void)arg, (void)out;
    STEP(heist_file_open(in_folder("none"), O_RDONLY, 0, &untouched) == -ENOENT && untouched == (heist_file *)&f);
    STEP(heist_file_open(NULL, O_RDONLY, 0, &f) == -EINVAL && heist_file_open("/", O_RDONLY, 0, NULL) == -EINVAL);
    STEP(heist_file_adopt(-1, &f) == -EBADF && heist_file_adopt(0, NULL) == -EINVAL);
    STEP(heist_file_open(folder, O_RDONLY, 0, &f) == 0 && heist_file_read(f, buf, 1) == -EISDIR);
    STEP(heist_file_readline(f, buf, 10) == -EISDIR);
    STEP(heist_file_write(f, "x", 1, &written) == -EBADF && written == 0);
    STEP(heist_file_close(f) == 0);
    memset(buf, 'x', sizeof buf);
    STEP(heist_file_open("/dev/full", O_WRONLY, 0, &f) == 0);
    STEP(heist_file_write(f, buf, sizeof buf, &written) == -ENOSPC && written == 0);
    STEP(heist_file_read(f, buf, 1) == -EBADF && heist_file_pread(f, buf, 1, 0) == -EBADF);
    STEP(heist_file_read(f, NULL, 1) == -EINVAL && heist_file_read(f, buf, 0) == -EINVAL);
    STEP(heist_file_pread(f, buf, 1, -1) == -EINVAL && heist_file_pwrite(f, buf, 1, -1, NULL) == -EINVAL);
    STEP(heist_file_pwrite(f, buf, 2, INT64_MAX - 1, NULL) == -EINVAL && heist_file_readline(f, buf, 1) == -EINVAL);
    STEP(heist_file_truncate(f, -1) == -EINVAL && heist_file_stat(f, NULL) == -EINVAL);
    STEP(heist_file_close(f) == 0);
    STEP(heist_file_read(NULL, buf, 1) == -EINVAL && heist_file_write(NULL, buf, 1, NULL) == -EINVAL);
    STEP(heist_file_seek(NULL, 0, SEEK_SET, &at) == -EINVAL && heist_file_sync(NULL) == -EINVAL);
    STEP(heist_file_fd(NULL) == -EINVAL && heist_stat(NULL, &st) == -EINVAL && heist_stat("/", NULL) == -EINVAL);
    STEP(heist_rename("a", NULL) == -EINVAL && heist_mkdir(NULL, 0) == -EINVAL && heist_unlink(NULL) == -EINVAL);
    return 0;
}

static void failures_are_the_systems_codes(void **state) {
    (void)state;
    make_folder();
    assert_int_equal(said(harness_run(fail_in_each_way, NULL, NULL)), 0);
    drop_folder();
}

static int open_without_descriptors(void *arg, void **out) {
    struct rlimit before, none;
    heist_file *f = NULL;
    heist_dir *d = NULL;
    heist_fswatch *w = NULL;
    (void)arg, (void)out;
    STEP(heist_stat("/", &(struct stat){0}) == 0); /* the executor has its thread */
    STEP(getrlimit(RLIMIT_NOFILE, &before) == 0);
    none = before;
    none.rlim_cur = 0;
    STEP(setrlimit(RLIMIT_NOFILE, &none) == 0);
    int file = heist_file_open("/", O_RDONLY, 0, &f), dir = heist_dir_open("/", &d), watch = heist_fswatch_new(&w);
    STEP(setrlimit(RLIMIT_NOFILE, &before) == 0);
    STEP(file == -EMFILE && dir == -EMFILE && watch == -EMFILE && !f && !d && !w);
    return 0;
}

static void out_of_descriptors_is_a_code(void **state) {
    (void)state;
    if (harness_valgrind()) skip();
    assert_int_equal(said(harness_run(open_without_descriptors, NULL, NULL)), 0);
}

/* ---- waiting beside the loop: a pipe stands for a slow disk ---- */

static int ticks_until(void *arg, void **out) {
    _Atomic(int) *ticks = arg;
    (void)out;
    for (;;) {
        ++*ticks;
        int err = heist_yield();
        if (err) return err;
    }
}

struct slow {
    int pipe[2];
    heist_executor *pool; /* the default one, known so that it can be asked */
    heist_file *f;
    heist_task *reader;
    _Atomic(int) got, next, ticks;
    char buf[16];
};

/* Until n jobs run. */
static int wait_running(struct slow *s, uint64_t n) {
    for (;;) {
        heist_executor_stats stats = HEIST_EXECUTOR_STATS_INIT;
        int err = heist_executor_get_stats(s->pool, &stats);
        if (err || stats.running == n) return err;
        err = heist_sleep(0.001);
        if (err) return err;
    }
}

static int wait_queued(struct slow *s, uint64_t n) {
    for (;;) {
        heist_executor_stats stats = HEIST_EXECUTOR_STATS_INIT;
        int err = heist_executor_get_stats(s->pool, &stats);
        if (err || stats.queued == n) return err;
        err = heist_sleep(0.001);
        if (err) return err;
    }
}

static int read_some(void *arg, void **out) {
    struct slow *s = arg;
    (void)out;
    s->got = (int)heist_file_read(s->f, s->buf, sizeof s->buf);
    s->next = heist_sleep(0);
    return s->next;
}

static int slow_begin(struct slow *s, int threads) {
    heist_executor_options opts = HEIST_EXECUTOR_OPTIONS_INIT;
    memset(s, 0, sizeof *s);
    opts.max_threads = threads;
    STEP(pipe2(s->pipe, O_CLOEXEC) == 0);
    STEP(heist_file_adopt(s->pipe[0], &s->f) == 0);
    STEP(heist_executor_new(&opts, &s->pool) == 0);
    return heist_loop_set_default_executor(NULL, s->pool);
}

static void slow_end(struct slow *s) {
    heist_unref(s->reader);
    close(s->pipe[1]);
    heist_executor_unref(s->pool);
}

static int loop_goes_on(void *arg, void **out) {
    struct slow s;
    heist_task *ticker;
    (void)arg, (void)out;
    STEP(slow_begin(&s, 2) == 0);
    STEP(heist_create_task(read_some, &s, NULL, &s.reader) == 0 && wait_running(&s, 1) == 0);
    STEP(heist_create_task(ticks_until, &s.ticks, NULL, &ticker) == 0);
    while (s.ticks < 100) STEP(heist_sleep(0.0001) == 0);
    STEP(!heist_future_done(s.reader));
    STEP(write(s.pipe[1], "slow", 4) == 4);
    STEP(heist_await(s.reader, NULL) == 0 && s.got == 4 && !memcmp(s.buf, "slow", 4));
    heist_cancel(ticker);
    heist_await(ticker, NULL);
    heist_unref(ticker);
    STEP(heist_file_close(s.f) == 0);
    slow_end(&s);
    return 0;
}

static void loop_goes_on_while_a_read_blocks_EXEC_15(void **state) {
    (void)state;
    assert_int_equal(said(run_real(loop_goes_on, NULL)), 0);
}

static int cancel_running(void *arg, void **out) {
    struct slow s;
    (void)arg, (void)out;
    STEP(slow_begin(&s, 2) == 0);
    STEP(heist_create_task(read_some, &s, NULL, &s.reader) == 0 && wait_running(&s, 1) == 0);
    STEP(heist_cancel(s.reader) == 1);
    for (int i = 0; i < 20; i++) STEP(heist_sleep(0.0005) == 0 && !heist_future_done(s.reader));
    STEP(write(s.pipe[1], "late", 4) == 4);
    STEP(heist_await(s.reader, NULL) == -ECANCELED);
    STEP(s.got == 4 && !memcmp(s.buf, "late", 4) && s.next == -ECANCELED);
    STEP(heist_file_close(s.f) == 0);
    slow_end(&s);
    return 0;
}

static void cancelled_read_that_runs_ends_before_its_buffer_goes(void **state) {
    (void)state;
    assert_int_equal(said(run_real(cancel_running, NULL)), 0);
}

static int hold(void *gate, void **out) {
    (void)out;
    gate_wait(gate);
    return 0;
}

static int cancel_queued(void *arg, void **out) {
    struct slow s;
    struct gate gate = GATE_INIT;
    heist_future *holder;
    char buf[8];
    (void)arg, (void)out;
    STEP(slow_begin(&s, 1) == 0);
    STEP(write(s.pipe[1], "kept", 4) == 4);
    STEP(heist_loop_run_in_executor(NULL, NULL, hold, &gate, NULL, &holder) == 0 && wait_running(&s, 1) == 0);
    STEP(heist_create_task(read_some, &s, NULL, &s.reader) == 0 && wait_queued(&s, 1) == 0);
    STEP(heist_cancel(s.reader) == 1);
    STEP(heist_await(s.reader, NULL) == 0 && s.got == -ECANCELED && s.next == 0); /* the thread is still held */
    gate_open(&gate);
    STEP(heist_await(holder, NULL) == 0);
    heist_unref(holder);
    STEP(heist_file_read(s.f, buf, sizeof buf) == 4 && !memcmp(buf, "kept", 4));
    STEP(heist_file_close(s.f) == 0);
    slow_end(&s);
    return 0;
}

static void cancelled_read_that_has_not_begun_takes_nothing(void **state) {
    (void)state;
    assert_int_equal(said(run_real(cancel_queued, NULL)), 0);
}

static int close_meanwhile(void *arg, void **out) {
    struct slow s;
    heist_task *second;
    struct slow other;
    (void)arg, (void)out;
    STEP(slow_begin(&s, 2) == 0);
    STEP(heist_create_task(read_some, &s, NULL, &s.reader) == 0 && wait_running(&s, 1) == 0);
    memset(&other, 0, sizeof other);
    other.f = s.f;
    other.got = 99;
    STEP(heist_create_task(read_some, &other, NULL, &second) == 0);
    STEP(heist_sleep(0.01) == 0); /* mostly it waits for its turn by now; if not, it finds the file closed */
    STEP(other.got == 99);
    STEP(heist_file_close(s.f) == 0 && fcntl(s.pipe[0], F_GETFD) >= 0); /* open until the read has ended */
    STEP(write(s.pipe[1], "last", 4) == 4);
    STEP(heist_await(s.reader, NULL) == 0 && s.got == 4);
    STEP(heist_await(second, NULL) == 0 && other.got == HEIST_ECLOSED);
    heist_unref(second);
    slow_end(&s);
    return 0;
}

static void close_lets_end_what_runs_and_refuses_what_waits(void **state) {
    (void)state;
    assert_int_equal(said(run_real(close_meanwhile, NULL)), 0);
}

struct syncer {
    heist_file *f;
    _Atomic(int) begun, flag;
    int said, next;
};

static int sync_and_sleep(void *arg, void **out) {
    struct syncer *s = arg;
    (void)out;
    s->begun = 1;
    s->said = heist_file_sync(s->f);
    while (!s->said && !s->next && !s->flag) s->next = heist_sleep(0);
    if (!s->said && !s->next) s->next = heist_sleep(0);
    return 0;
}

/* The request meets the operation at any moment: before it, while it runs, when it has ended and nobody was told. */
static int cancel_beside_the_end(void *path, void **out) {
    struct syncer s;
    heist_task *t;
    heist_task_options opts = HEIST_TASK_OPTIONS_INIT;
    opts.flags = HEIST_TASK_PINNED;
    (void)out;
    for (int i = 0; i < 60; i++) {
        memset(&s, 0, sizeof s);
        STEP(heist_file_open(path, O_RDWR | O_CREAT, 0644, &s.f) == 0 && heist_file_write(s.f, "x", 1, NULL) == 0);
        STEP(heist_create_task(sync_and_sleep, &s, &opts, &t) == 0);
        while (!s.begun) STEP(heist_sleep(0) == 0);
        int asked = heist_cancel(t);
        if (i % 3) usleep((useconds_t)(i * 20)); /* the worker stands, and the kernel goes on */
        s.flag = 1;
        STEP(heist_await(t, NULL) == 0 && asked == 1);
        STEP(s.said == -ECANCELED || (s.said == 0 && s.next == -ECANCELED)); /* no request is lost */
        heist_unref(t);
        STEP(heist_file_close(s.f) == 0);
    }
    return 0;
}

static void request_that_meets_the_end_of_an_operation_is_not_lost(void **state) {
    (void)state;
    make_folder();
    assert_int_equal(said(run_real(cancel_beside_the_end, (void *)(uintptr_t)in_folder("s"))), 0);
    assert_int_equal(unlink(in_folder("s")), 0);
    drop_folder();
}

struct from_callback {
    heist_file *f;
    heist_dir *d;
    heist_fswatch *w;
    heist_loop *loop;
    int codes[7];
};

static int call_in_callback(void *arg) {
    struct from_callback *c = arg;
    heist_file *f;
    heist_dir_entry entry;
    heist_fswatch_event event;
    char buf[4];
    c->codes[0] = heist_file_open("/", O_RDONLY, 0, &f);
    c->codes[1] = (int)heist_file_read(c->f, buf, 4);
    c->codes[2] = (int)heist_file_pread(c->f, buf, 4, 0);
    c->codes[3] = heist_dir_next(c->d, &entry);
    c->codes[4] = heist_fswatch_next(c->w, HEIST_FOREVER, &event);
    c->codes[5] = heist_unlink("/none");
    c->codes[6] = (int)heist_file_readline(c->f, buf, 4);
    return heist_loop_stop(c->loop);
}

static void callbacks_cannot_wait_for_files(void **state) {
    (void)state;
    struct from_callback c = {.loop = harness_loop()};
    assert_int_equal(heist_file_open("/dev/zero", O_RDONLY, 0, &c.f), 0);
    assert_int_equal(heist_dir_open("/", &c.d), 0);
    assert_int_equal(heist_fswatch_new(&c.w), 0);
    assert_int_equal(heist_loop_call_soon(c.loop, call_in_callback, &c, NULL, NULL), 0);
    assert_int_equal(heist_loop_run_forever(c.loop), 0);
    for (int i = 0; i < 7; i++) assert_int_equal(c.codes[i], HEIST_ENOTINCORO);
    heist_fswatch_event event;
    assert_int_equal(heist_fswatch_next(c.w, HEIST_FOREVER, &event), HEIST_ENOTINCORO); /* a plain thread has no loop */
    heist_fswatch_close(c.w);
    heist_dir_close(c.d);
    heist_file_close(c.f);
    harness_loop_end(c.loop);
}

/* ---- lines ---- */

enum { LONG_LINE = 150000 };

static int read_lines(void *arg, void **out) {
    heist_file *f;
    static char line[LONG_LINE + 10];
    int64_t at;
    (void)out;
    STEP(heist_file_open(arg, O_RDWR, 0, &f) == 0);
    STEP(heist_file_readline(f, line, sizeof line) == 4 && !strcmp(line, "one\n"));
    STEP(heist_file_seek(f, 0, SEEK_CUR, &at) == 0 && at == 4);
    STEP(heist_file_readline(f, line, sizeof line) == 1 && !strcmp(line, "\n"));
    STEP(heist_file_readline(f, line, 3) == 2 && !strcmp(line, "th")); /* in pieces */
    STEP(heist_file_read(f, line, 3) == 3 && !memcmp(line, "ree", 3)); /* the position is behind the piece */
    STEP(heist_file_write(f, "!", 1, NULL) == 0);                     /* over the newline */
    STEP(heist_file_seek(f, -1, SEEK_CUR, &at) == 0 && at == 10);
    STEP(heist_file_readline(f, line, sizeof line) == LONG_LINE + 2 && line[0] == '!' && line[LONG_LINE] == 'x');
    STEP(heist_file_readline(f, line, sizeof line) == 4 && !strcmp(line, "last"));
    STEP(heist_file_readline(f, line, sizeof line) == 0 && !strcmp(line, ""));
    STEP(heist_file_seek(f, 4, SEEK_SET, &at) == 0 && heist_file_readline(f, line, 9) == 1);
    STEP(heist_file_seek(f, 1, SEEK_CUR, &at) == 0 && at == 6 && heist_file_readline(f, line, 3) == 2);
    STEP(!strcmp(line, "hr"));
    return heist_file_close(f);
}

static void make_lines(const char *path) {
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs("one\n\nthree\n", f);
    for (int i = 0; i < LONG_LINE; i++) fputc('x', f);
    fputs("\nlast", f);
    assert_int_equal(fclose(f), 0);
}

static void lines_and_the_position_agree(void **state) {
    (void)state;
    make_folder();
    make_lines(in_folder("lines"));
    assert_int_equal(said(harness_run(read_lines, (void *)(uintptr_t)in_folder("lines"), NULL)), 0);
    make_lines(in_folder("lines"));
    assert_int_equal(said(read_lines((void *)(uintptr_t)in_folder("lines"), NULL)), 0);
    drop_folder();
}

/* Each allocation of a long line fails in turn, and the line is whole all the same. */
static int lines_without_memory(void *arg, void **out) {
    static char line[LONG_LINE + 10];
    bool failed = true;
    (void)out;
    for (long n = 1; failed; n++) {
        heist_file *f;
        STEP(heist_file_open(arg, O_RDONLY, 0, &f) == 0 && heist_file_seek(f, 11, SEEK_SET, NULL) == 0);
        harness_allocations();
        harness_fail_allocation(n, false);
        ptrdiff_t got = heist_file_readline(f, line, sizeof line);
        harness_fail_allocation(0, false);
        failed = harness_allocations() >= n;
        STEP(got == LONG_LINE + 1 || (failed && got == -ENOMEM));
        if (got < 0) STEP(heist_file_readline(f, line, sizeof line) == LONG_LINE + 1);
        for (int i = 0; i < LONG_LINE; i++) STEP(line[i] == 'x');
        STEP(heist_file_readline(f, line, sizeof line) == 4 && !strcmp(line, "last"));
        STEP(heist_file_close(f) == 0 && n < 1000);
    }
    return 0;
}

static void failed_line_loses_nothing(void **state) {
    (void)state;
    make_folder();
    make_lines(in_folder("lines"));
    assert_int_equal(said(run_real(lines_without_memory, (void *)(uintptr_t)in_folder("lines"))), 0);
    drop_folder();
}

/* ---- whole files, names, directories ---- */

static int whole_files(void *arg, void **out) {
    char *data = NULL;
    size_t size = 0;
    struct stat st;
    static char big[300000];
    (void)arg, (void)out;
    memset(big, 'b', sizeof big);
    STEP(heist_write_file(in_folder("w"), big, sizeof big, 0600) == 0);
    STEP(heist_read_file(in_folder("w"), 0, &data, &size) == 0 && size == sizeof big && !memcmp(data, big, size));
    STEP(data[size] == 0);
    heist_file_data_free(data);
    data = NULL;
    STEP(heist_read_file(in_folder("w"), sizeof big - 1, &data, &size) == -EFBIG && !data && size == sizeof big);
    STEP(heist_read_file(in_folder("w"), sizeof big, &data, NULL) == 0);
    heist_file_data_free(data);
    STEP(heist_write_file(in_folder("w"), "short", 5, 0) == 0);
    STEP(heist_read_file(in_folder("w"), 0, &data, &size) == 0 && size == 5 && !strcmp(data, "short"));
    heist_file_data_free(data);
    STEP(heist_read_file("/proc/self/status", 0, &data, &size) == 0 && size > 100 && strstr(data, "Name:"));
    heist_file_data_free(data); /* its size is said to be 0 */
    STEP(heist_read_file("/dev/zero", 100000, &data, &size) == -EFBIG);
    STEP(heist_write_file("/dev/full", "x", 1, 0) == -ENOSPC);
    STEP(heist_write_file(in_folder("no/w"), "x", 1, 0600) == -ENOENT);
    heist_file_data_free(NULL);

    STEP(heist_mkdir(in_folder("d"), 0700) == 0 && heist_mkdir(in_folder("d"), 0700) == -EEXIST);
    STEP(heist_stat(in_folder("d"), &st) == 0 && S_ISDIR(st.st_mode));
    STEP(heist_rename(in_folder("w"), in_folder("d/v")) == 0 && heist_rmdir(in_folder("d")) == -ENOTEMPTY);
    STEP(symlink("d/v", in_folder("link")) == 0);
    STEP(heist_stat(in_folder("link"), &st) == 0 && S_ISREG(st.st_mode) && st.st_size == 5);
    STEP(heist_lstat(in_folder("link"), &st) == 0 && S_ISLNK(st.st_mode));
    STEP(heist_unlink(in_folder("d/v")) == 0 && heist_unlink(in_folder("d/v")) == -ENOENT);
    STEP(heist_stat(in_folder("link"), &st) == -ENOENT && heist_rmdir(in_folder("d")) == 0);
    return 0;
}

static void whole_files_and_names_are_one_call(void **state) {
    (void)state;
    make_folder();
    assert_int_equal(said(harness_run(whole_files, NULL, NULL)), 0);
    drop_folder();
    make_folder();
    assert_int_equal(said(whole_files(NULL, NULL)), 0);
    drop_folder();
}

static bool same_stat(const struct stat *a, const struct stat *b) {
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_mode == b->st_mode && a->st_nlink == b->st_nlink &&
           a->st_uid == b->st_uid && a->st_gid == b->st_gid && a->st_rdev == b->st_rdev && a->st_size == b->st_size &&
           a->st_blksize == b->st_blksize && a->st_blocks == b->st_blocks &&
           !memcmp(&a->st_atim, &b->st_atim, sizeof a->st_atim) && !memcmp(&a->st_mtim, &b->st_mtim, sizeof a->st_mtim) &&
           !memcmp(&a->st_ctim, &b->st_ctim, sizeof a->st_ctim);
}

/* The ring answers in words of its own, which are put into those of stat. */
static int stat_all(void *arg, void **out) {
    (void)arg, (void)out;
    STEP(heist_write_file(in_folder("plain"), "0123456789", 10, 0640) == 0);
    STEP(symlink("plain", in_folder("link")) == 0 && link(in_folder("plain"), in_folder("second")) == 0);
    STEP(symlink("nowhere", in_folder("dangling")) == 0);
    const char *const paths[] = {in_folder("plain"), in_folder("link"), folder, "/dev/null", "/proc/self/status"};
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        struct stat theirs, ours;
        heist_file *f = NULL;
        STEP(stat(paths[i], &theirs) == 0 && heist_stat(paths[i], &ours) == 0);
        if (i < 4) STEP(same_stat(&ours, &theirs));
        STEP(lstat(paths[i], &theirs) == 0 && heist_lstat(paths[i], &ours) == 0);
        if (i < 4) STEP(same_stat(&ours, &theirs));
        STEP(heist_file_open(paths[i], O_RDONLY, 0, &f) == 0);
        STEP(fstat(heist_file_fd(f), &theirs) == 0 && heist_file_stat(f, &ours) == 0);
        if (i < 4) STEP(same_stat(&ours, &theirs));
        STEP(heist_file_close(f) == 0);
    }
    struct stat st, before;
    memset(&st, 'x', sizeof st);
    before = st;
    STEP(heist_stat(in_folder("dangling"), &st) == -ENOENT && heist_stat(in_folder("plain/no"), &st) == -ENOTDIR);
    STEP(!memcmp(&st, &before, sizeof st)); /* untouched */
    STEP(heist_cancel(heist_current_task()) >= 0 && heist_stat("/", &st) == -ECANCELED);
    STEP(!memcmp(&st, &before, sizeof st) && heist_stat("/", &st) == 0);
    return 0;
}

static void stat_says_what_the_system_says(void **state) {
    (void)state;
    make_folder();
    assert_int_equal(said(harness_run(stat_all, NULL, NULL)), 0);
    drop_folder();
}

enum { ENTRIES = 1200 }; /* more than are read ahead at a time */

static int list_folder(void *arg, void **out) {
    bool seen[ENTRIES] = {false};
    heist_dir *d = NULL;
    heist_dir_entry e;
    int n, err, dirs = 0;
    (void)arg, (void)out;
    STEP(heist_dir_open(in_folder("none"), &d) == -ENOENT && heist_dir_open(in_folder("0"), &d) == -ENOTDIR && !d);
    STEP(heist_dir_open(folder, &d) == 0);
    for (n = 0; (err = heist_dir_next(d, &e)) == 1; n++) {
        if (!strcmp(e.name, "sub")) {
            STEP(e.type == DT_DIR || e.type == DT_UNKNOWN);
            dirs++;
            continue;
        }
        int i = atoi(e.name);
        STEP(i >= 0 && i < ENTRIES && !seen[i] && e.inode);
        seen[i] = true;
    }
    STEP(err == 0 && n == ENTRIES + 1 && dirs == 1);
    STEP(heist_dir_next(d, &e) == 0); /* and stays so */
    heist_dir_close(d);
    heist_dir_close(NULL);
    return heist_dir_next(NULL, &e) == -EINVAL ? 0 : -EPROTO;
}

static void directory_is_listed_whole(void **state) {
    (void)state;
    make_folder();
    char name[16];
    for (int i = 0; i < ENTRIES; i++) {
        snprintf(name, sizeof name, "%d", i);
        int fd = open(in_folder(name), O_CREAT | O_WRONLY, 0600);
        assert_true(fd >= 0);
        close(fd);
    }
    assert_int_equal(mkdir(in_folder("sub"), 0700), 0);
    assert_int_equal(said(harness_run(list_folder, NULL, NULL)), 0);
    assert_int_equal(said(list_folder(NULL, NULL)), 0);
    drop_folder();
}

/* ---- changes ---- */

static int watch_folder(void *arg, void **out) {
    heist_fswatch *w = NULL;
    heist_fswatch_event e;
    (void)arg, (void)out;
    STEP(heist_fswatch_new(&w) == 0);
    STEP(heist_fswatch_add(w, in_folder("none"), IN_CREATE) == -ENOENT);
    int id = heist_fswatch_add(w, folder, IN_CREATE | IN_DELETE | IN_CLOSE_WRITE | IN_MOVE);
    STEP(id > 0);
    STEP(heist_fswatch_next(w, heist_time() + 0.005, &e) == -ETIMEDOUT);
    STEP(heist_write_file(in_folder("new"), "x", 1, 0600) == 0);
    STEP(heist_fswatch_next(w, HEIST_FOREVER, &e) == 0 && e.id == id && e.mask == IN_CREATE && !strcmp(e.name, "new"));
    STEP(heist_fswatch_next(w, HEIST_FOREVER, &e) == 0 && e.mask == IN_CLOSE_WRITE && !strcmp(e.name, "new"));
    STEP(heist_rename(in_folder("new"), in_folder("old")) == 0);
    STEP(heist_fswatch_next(w, HEIST_FOREVER, &e) == 0 && e.mask == IN_MOVED_FROM && !strcmp(e.name, "new"));
    uint32_t cookie = e.cookie;
    STEP(heist_fswatch_next(w, HEIST_FOREVER, &e) == 0 && e.mask == IN_MOVED_TO && e.cookie == cookie && cookie);
    STEP(!strcmp(e.name, "old"));
    STEP(heist_unlink(in_folder("old")) == 0);
    STEP(heist_fswatch_next(w, HEIST_FOREVER, &e) == 0 && e.mask == IN_DELETE && e.cookie == 0);
    STEP(heist_fswatch_remove(w, id) == 0 && heist_fswatch_remove(w, id) == -EINVAL);
    STEP(heist_fswatch_next(w, HEIST_FOREVER, &e) == 0 && e.id == id && e.mask == IN_IGNORED && !e.name[0]);
    STEP(heist_fswatch_next(w, __builtin_nan(""), &e) == -EINVAL && heist_fswatch_next(NULL, 0, &e) == -EINVAL);
    STEP(heist_fswatch_add(NULL, folder, IN_CREATE) == -EINVAL && heist_fswatch_remove(NULL, 1) == -EINVAL);
    heist_fswatch_close(w);
    heist_fswatch_close(NULL);
    return 0;
}

static void changes_come_in_their_order(void **state) {
    (void)state;
    make_folder();
    assert_int_equal(said(run_real(watch_folder, NULL)), 0);
    drop_folder();
}

static int next_change(void *arg, void **out) {
    heist_fswatch_event e;
    int err;
    (void)out;
    while ((err = heist_fswatch_next(arg, HEIST_FOREVER, &e)) == -EBUSY) /* the other one was first */
        if ((err = heist_yield()) < 0) break;
    return err;
}

static int end_watching(void *arg, void **out) {
    heist_fswatch *w;
    heist_fswatch_event e;
    heist_task *t;
    (void)arg, (void)out;
    STEP(heist_fswatch_new(&w) == 0 && heist_fswatch_add(w, folder, IN_CREATE) > 0);
    STEP(heist_create_task(next_change, w, NULL, &t) == 0);
    int err;
    while ((err = heist_fswatch_next(w, heist_time() + 0.001, &e)) == -ETIMEDOUT) STEP(heist_sleep(0.001) == 0);
    STEP(err == -EBUSY); /* the other one waits */
    STEP(heist_cancel(t) == 1 && heist_await(t, NULL) == -ECANCELED);
    heist_unref(t);
    STEP(heist_write_file(in_folder("kept"), "", 0, 0600) == 0);
    STEP(heist_fswatch_next(w, HEIST_FOREVER, &e) == 0 && !strcmp(e.name, "kept")); /* the cancelled one took nothing */
    STEP(heist_create_task(next_change, w, NULL, &t) == 0);
    while ((err = heist_fswatch_next(w, heist_time() + 0.001, &e)) == -ETIMEDOUT) STEP(heist_sleep(0.001) == 0);
    STEP(err == -EBUSY);
    heist_fswatch_close(w);
    STEP(heist_await(t, NULL) == HEIST_ECLOSED);
    heist_unref(t);
    return 0;
}

static void wait_for_changes_ends_by_cancel_and_close(void **state) {
    (void)state;
    make_folder();
    assert_int_equal(said(run_real(end_watching, NULL)), 0);
    drop_folder();
}

/* ---- memory, fork ---- */

static int use_files(void *arg, void **out) {
    heist_file *f = NULL;
    heist_dir *d = NULL;
    heist_fswatch *w = NULL;
    heist_dir_entry e;
    char *data = NULL, line[20];
    (void)arg, (void)out;
    int err = heist_write_file(in_folder("m"), "line\n", 5, 0600);
    if (!err) err = heist_file_open(in_folder("m"), O_RDWR, 0, &f);
    ptrdiff_t n = err ? 0 : heist_file_readline(f, line, sizeof line);
    if (n < 0) err = (int)n;
    if (!err) err = heist_file_write(f, "more", 4, NULL);
    if (!err) err = heist_read_file(in_folder("m"), 0, &data, NULL);
    if (!err && strcmp(data, "line\nmore")) err = -EPROTO;
    if (!err) err = heist_dir_open(folder, &d);
    if (!err) err = heist_dir_next(d, &e);
    if (err == 1) err = heist_fswatch_new(&w);
    if (!err) err = heist_fswatch_add(w, folder, IN_CREATE);
    heist_fswatch_close(w);
    heist_dir_close(d);
    heist_file_data_free(data);
    heist_file_close(f);
    return err > 0 ? 0 : err;
}

static void each_failing_allocation_is_a_code_and_leaves_nothing(void **state) {
    (void)state;
    make_folder();
    bool failed = true;
    for (long n = 1; failed; n++) {
        assert_true(n < 2000);
        long blocks = harness_blocks();
        int descriptors = harness_descriptors();
        harness_allocations();
        harness_fail_allocation(n, false);
        int err = run_real(use_files, NULL);
        harness_fail_allocation(0, false);
        failed = harness_allocations() >= n;
        if (err != 0 && !(failed && err == -ENOMEM)) fail_msg("allocation %ld failing: %s", n, heist_error_name(err));
        long left = harness_blocks() - blocks;
        if (left) fail_msg("allocation %ld failing: %ld blocks left", n, left);
        assert_int_equal(harness_descriptors(), descriptors);
        (void)unlink(in_folder("m"));
    }
    drop_folder();
}

/* A runtime some of whose loops got no ring for want of memory. */
static heist_runtime *runtime_of_both_kinds(void) {
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    opts.workers = 4;
    opts.backend = HEIST_BACKEND_IO_URING;
    bool failed = true;
    for (long n = 1; failed; n++) {
        heist_runtime *rt = NULL;
        harness_fail_allocation(n, false);
        int err = heist_runtime_new(&opts, &rt);
        harness_fail_allocation(0, false);
        failed = harness_allocations() >= n;
        if (err) continue;
        int rings = 0;
        for (int i = 0; i < opts.workers; i++) rings += !strcmp(heist_loop_backend(heist_runtime_loop(rt, i)), "io_uring");
        if (rings > 0 && rings < opts.workers) return rt;
        assert_int_equal(heist_runtime_close(rt, HEIST_FOREVER), 0);
        heist_runtime_unref(rt);
        if (!rings) break; /* the kernel gives none */
    }
    return NULL;
}

enum { LONGEST_FILE = 4096 };

static int sync_often(void *f, void **out) {
    (void)out;
    for (int i = 0; i < 50; i++) {
        size_t written = 0;
        STEP(heist_file_sync(f) == 0);
        /* In two pieces, the second perhaps on another worker. */
        STEP(heist_file_pwrite(f, "two pieces", 10, LONGEST_FILE - 3, &written) == -EFBIG && written == 3);
        if (i % 10 == 0) STEP(heist_sleep(0) == 0);
    }
    return 0;
}

static int sync_by_many(void *path, void **out) {
    heist_file *f;
    heist_task *t[24];
    (void)out;
    STEP(heist_file_open(path, O_RDWR | O_CREAT, 0644, &f) == 0);
    for (int i = 0; i < 24; i++) STEP(heist_create_task(sync_often, f, NULL, &t[i]) == 0);
    for (int i = 0; i < 24; i++) {
        STEP(heist_await(t[i], NULL) == 0);
        heist_unref(t[i]);
    }
    return heist_file_close(f);
}

static void loops_with_a_ring_and_without_one_get_along(void **state) {
    (void)state;
    make_folder();
    heist_runtime *rt = runtime_of_both_kinds();
    if (rt) {
        const char *path = in_folder("both");
        heist_task *t;
        struct rlimit before, few;
        assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
        few = before;
        few.rlim_cur = LONGEST_FILE;
        void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &few), 0);
        assert_int_equal(heist_runtime_run_coroutine(rt, sync_by_many, (void *)(uintptr_t)path, NULL, &t), 0);
        int err = said(heist_await_until(t, HEIST_FOREVER, NULL));
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
        signal(SIGXFSZ, handler);
        assert_int_equal(err, 0);
        heist_unref(t);
        assert_int_equal(heist_runtime_close(rt, HEIST_FOREVER), 0);
        heist_runtime_unref(rt);
        assert_int_equal(unlink(path), 0);
    }
    drop_folder();
}

static void child_of_a_fork_may_not_use_them(void **state) {
    (void)state;
    heist_file *f;
    heist_fswatch *w;
    heist_runtime *rt = harness_runtime(0);
    assert_int_equal(heist_file_open("/dev/zero", O_RDONLY, 0, &f), 0);
    assert_int_equal(heist_fswatch_new(&w), 0);
    int ends[2], wrongs = -1;
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        char buf[4];
        heist_file *g = NULL;
        heist_fswatch *v = NULL;
        int wrong = heist_file_read(f, buf, 4) != HEIST_EFORKED;
        wrong += heist_file_pread(f, buf, 4, 0) != HEIST_EFORKED;
        wrong += heist_file_open("/", O_RDONLY, 0, &g) != HEIST_EFORKED;
        wrong += heist_stat("/", &(struct stat){0}) != HEIST_EFORKED;
        wrong += heist_fswatch_new(&v) != HEIST_EFORKED;
        wrong += heist_fswatch_add(w, "/", IN_CREATE) != HEIST_EFORKED;
        wrong += heist_file_close(f) != HEIST_EFORKED;
        heist_fswatch_close(w);
        _exit(write(ends[1], &wrong, sizeof wrong) == sizeof wrong ? 0 : 1);
    }
    int status; /* valgrind's is its own */
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(read(ends[0], &wrongs, sizeof wrongs), sizeof wrongs);
    assert_int_equal(wrongs, 0);
    close(ends[0]);
    close(ends[1]);
    char buf[4];
    assert_int_equal(heist_file_read(f, buf, 4), 4);
    assert_int_equal(heist_file_close(f), 0);
    assert_true(heist_fswatch_add(w, "/", IN_CREATE) > 0);
    heist_fswatch_close(w);
    harness_runtime_end(rt);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        API_TEST(what_is_written_is_read_back_EXEC_15),
        API_TEST(one_operation_at_a_time_moves_the_position_EXEC_15),
        API_TEST(any_number_of_operations_go_by_offset_at_once),
        API_TEST(failures_are_the_systems_codes),
        API_TEST(out_of_descriptors_is_a_code),
        API_TEST(loop_goes_on_while_a_read_blocks_EXEC_15),
        API_TEST(cancelled_read_that_runs_ends_before_its_buffer_goes),
        API_TEST(cancelled_read_that_has_not_begun_takes_nothing),
        API_TEST(close_lets_end_what_runs_and_refuses_what_waits),
        API_TEST(request_that_meets_the_end_of_an_operation_is_not_lost),
        API_TEST(callbacks_cannot_wait_for_files),
        API_TEST(lines_and_the_position_agree),
        API_TEST(failed_line_loses_nothing),
        API_TEST(whole_files_and_names_are_one_call),
        API_TEST(stat_says_what_the_system_says),
        API_TEST(directory_is_listed_whole),
        API_TEST(changes_come_in_their_order),
        API_TEST(wait_for_changes_ends_by_cancel_and_close),
        API_TEST(each_failing_allocation_is_a_code_and_leaves_nothing),
        API_TEST(loops_with_a_ring_and_without_one_get_along),
        API_TEST(child_of_a_fork_may_not_use_them),
    };
    return HARNESS_MAIN("file", tests);
}
