/* Signals in the middle of everything: a handler without SA_RESTART, and a thread that shoots at all threads of the
 * process.  No call ends with -EINTR, and nothing is lost, read twice or left.  (What waits without descriptors, and
 * the counting of signals: stress/stress_signals.c.) */
#include "support/stream_pair.h"

#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define ROUNDS 6
#define BYTES ((size_t)300000)

/* ---- the storm ---- */

static _Atomic(long) handled;
static _Atomic(int) calm;

static void on_signal(int sig) {
    (void)sig;
    handled++;
}

static void *shoot(void *arg) {
    pid_t me = (pid_t)syscall(SYS_gettid), process = getpid();
    struct timespec pause = {0, 100000};
    while (!calm) {
        DIR *all = opendir("/proc/self/task");
        struct dirent *e;
        while (all && (e = readdir(all))) {
            pid_t thread = (pid_t)atoi(e->d_name);
            if (thread > 0 && thread != me) syscall(SYS_tgkill, process, thread, SIGUSR1); /* gone already: no matter */
        }
        if (all) closedir(all);
        nanosleep(&pause, NULL);
    }
    return arg;
}

static void in_the_storm(heist_coro_fn fn, void *arg) {
    struct sigaction action, before;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal; /* and no SA_RESTART */
    assert_int_equal(sigaction(SIGUSR1, &action, &before), 0);
    handled = 0;
    calm = 0;
    pthread_t shooter = harness_thread(shoot, NULL);
    record_clear(&wrongs);
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    opts.workers = harness_workers();
    int err = heist_run(fn, arg, &opts, NULL);
    calm = 1;
    harness_join(shooter);
    assert_int_equal(sigaction(SIGUSR1, &before, NULL), 0);
    assert_string_equal(record_text(&wrongs), "");
    assert_int_equal(err, 0);
    assert_true(handled > 0);
}

static unsigned char nth(size_t i) { return (unsigned char)(i * 31 + i / 251); }

static void fill(unsigned char *to, size_t n) {
    for (size_t i = 0; i < n; i++) to[i] = nth(i);
}

static size_t right(const void *data, size_t n) {
    const unsigned char *p = data;
    size_t i = 0;
    while (i < n && p[i] == nth(i)) i++;
    return i;
}

/* ---- streams, a server ---- */

/* Gives back what it reads. */
static int echo(heist_stream *s, void *user) {
    char buf[4096];
    ptrdiff_t n;
    (void)user;
    while ((n = heist_stream_read(s, buf, sizeof buf)) > 0) {
        int err = heist_stream_write(s, buf, (size_t)n);
        if (err == 0) err = heist_stream_drain(s);
        if (err < 0) return err;
    }
    return (int)n;
}

static int send_all(void *arg, void **out) {
    (void)out;
    unsigned char *data = malloc(BYTES);
    if (!data) return -ENOMEM;
    fill(data, BYTES);
    int err = heist_stream_write(arg, data, BYTES);
    free(data);
    if (err == 0) err = heist_stream_drain(arg);
    return err ? err : heist_stream_write_eof(arg);
}

static int visit(const char *port) {
    heist_stream *s;
    heist_task *sender;
    void *data = NULL;
    size_t n = 0;
    int err = heist_open_connection("127.0.0.1", port, NULL, &s);
    WANT_CODE(err, 0);
    if (err < 0) return err;
    WANT_CODE(err = heist_create_task(send_all, s, NULL, &sender), 0);
    if (err < 0) return err;
    WANT_CODE(heist_stream_read_all(s, 0, &data, &n), 0);
    WANT(n == BYTES && right(data, n) == BYTES);
    heist_stream_data_free(data);
    WANT_CODE(heist_await(sender, NULL), 0);
    heist_unref(sender);
    heist_stream_close(s);
    WANT_CODE(heist_stream_wait_closed(s), 0);
    heist_stream_unref(s);
    return 0;
}

static int serve_and_visit(void *arg, void **out) {
    heist_server *server;
    heist_addr where;
    char text[64];
    (void)arg, (void)out;
    int err = heist_start_server(echo, NULL, "127.0.0.1", "0", NULL, &server);
    if (err < 0) return err;
    WANT_CODE(heist_server_sockets(server, &where, 1), 1);
    heist_addr_format(&where, text, sizeof text);
    for (int i = 0; i < ROUNDS && err == 0; i++) err = visit(strrchr(text, ':') + 1);
    WANT_CODE(heist_server_close(server), 0);
    WANT_CODE(heist_server_wait_closed_until(server, HEIST_FOREVER), 0);
    heist_server_unref(server);
    return err;
}
static void streams_and_servers_are_not_interrupted(void **state) {
    (void)state;
    in_the_storm(serve_and_visit, NULL);
}

/* ---- files ---- */

static int keep_files(void *arg, void **out) {
    const char *folder = arg;
    char path[128], other[128], buf[1000];
    unsigned char *data = malloc(BYTES);
    (void)out;
    if (!data) return -ENOMEM;
    fill(data, BYTES);
    snprintf(path, sizeof path, "%s/one", folder);
    snprintf(other, sizeof other, "%s/two", folder);
    for (int i = 0; i < ROUNDS; i++) {
        heist_file *f = NULL;
        heist_dir *d = NULL;
        heist_dir_entry e;
        struct stat st;
        char *back = NULL;
        size_t n = 0, written = 0;
        WANT_CODE(heist_write_file(path, data, BYTES, 0600), 0);
        WANT_CODE(heist_read_file(path, 0, &back, &n), 0);
        WANT(n == BYTES && right(back, n) == BYTES);
        heist_file_data_free(back);
        int err = heist_file_open(path, O_RDWR, 0, &f);
        WANT_CODE(err, 0);
        if (err < 0) break;
        for (size_t at = 0; at < BYTES; at += sizeof buf) {
            ptrdiff_t got = heist_file_read(f, buf, sizeof buf);
            WANT_CODE(got, sizeof buf);
            if (got != (ptrdiff_t)sizeof buf || memcmp(buf, data + at, sizeof buf)) break;
        }
        WANT_CODE(heist_file_pwrite(f, data, 5000, (int64_t)BYTES, &written), 0);
        WANT(written == 5000);
        WANT_CODE(heist_file_sync(f), 0);
        WANT_CODE(heist_file_pread(f, buf, sizeof buf, (int64_t)BYTES), sizeof buf);
        WANT(right(buf, sizeof buf) == sizeof buf);
        WANT_CODE(heist_file_stat(f, &st), 0);
        WANT(st.st_size == (off_t)BYTES + 5000);
        WANT_CODE(heist_file_truncate(f, 7), 0);
        WANT_CODE(heist_file_close(f), 0);
        WANT_CODE(heist_rename(path, other), 0);
        WANT_CODE(heist_stat(other, &st), 0);
        WANT(st.st_size == 7);
        WANT_CODE(heist_dir_open(folder, &d), 0);
        WANT_CODE(heist_dir_next(d, &e), 1);
        WANT(strcmp(e.name, "two") == 0);
        WANT_CODE(heist_dir_next(d, &e), 0);
        heist_dir_close(d);
        WANT_CODE(heist_unlink(other), 0);
    }
    free(data);
    return 0;
}
static void files_are_not_interrupted(void **state) {
    (void)state;
    char folder[] = "/tmp/heist-interrupted-XXXXXX";
    assert_non_null(mkdtemp(folder));
    in_the_storm(keep_files, folder);
    assert_int_equal(rmdir(folder), 0);
}

/* ---- processes ---- */

static int raise_children(void *arg, void **out) {
    unsigned char *data = malloc(BYTES);
    (void)arg, (void)out;
    if (!data) return -ENOMEM;
    fill(data, BYTES);
    for (int i = 0; i < ROUNDS; i++) {
        heist_process_options o = HEIST_PROCESS_OPTIONS_INIT;
        heist_process_output got = HEIST_PROCESS_OUTPUT_INIT;
        heist_process *p = NULL;
        int code = 0;
        o.stdin_is = o.stdout_is = HEIST_PROCESS_PIPE;
        int err = heist_create_subprocess_shell("cat; exit 3", &o, &p);
        WANT_CODE(err, 0);
        if (err < 0) break;
        WANT_CODE(heist_process_communicate(p, data, BYTES, HEIST_FOREVER, &got), 0);
        WANT(got.out_size == BYTES && right(got.out, BYTES) == BYTES && got.code == 3);
        heist_process_output_free(&got);
        heist_process_unref(p);
        o = (heist_process_options)HEIST_PROCESS_OPTIONS_INIT;
        WANT_CODE(err = heist_create_subprocess_shell("trap '' TERM; while :; do sleep 1; done", &o, &p), 0);
        if (err < 0) break;
        WANT_CODE(heist_process_stop(p, 0.01, &code), 0);
        WANT(code < 0);
        heist_process_unref(p);
    }
    free(data);
    return 0;
}
static void processes_are_not_interrupted(void **state) {
    (void)state;
    in_the_storm(raise_children, NULL);
}

/* ---- datagrams, names, sleeps ---- */

static int send_and_ask(void *arg, void **out) {
    heist_datagram *d;
    heist_addr local;
    (void)arg, (void)out;
    if (heist_addr_parse("127.0.0.1:0", &local) < 0) abort();
    int err = heist_datagram_open(&local, NULL, NULL, &d);
    if (err < 0) return err;
    WANT_CODE(heist_datagram_addr(d, &local), 0);
    for (int i = 0; i < 50 * ROUNDS; i++) {
        char word[16], back[16];
        int n = snprintf(word, sizeof word, "word %d", i);
        WANT_CODE(heist_datagram_sendto(d, word, (size_t)n, &local, HEIST_FOREVER), 0);
        WANT_CODE(heist_datagram_recv(d, back, sizeof back, HEIST_FOREVER), n);
        WANT(memcmp(word, back, (size_t)n) == 0);
    }
    WANT_CODE(heist_datagram_recv(d, &local, 1, heist_time() + 0.01), -ETIMEDOUT);
    heist_datagram_close(d);
    heist_datagram_unref(d);
    for (int i = 0; i < 5 * ROUNDS; i++) {
        heist_addrinfo_list *list = NULL;
        double start;
        WANT_CODE(heist_getaddrinfo("localhost", "80", NULL, HEIST_FOREVER, &list), 0);
        WANT(list && list->count > 0);
        heist_freeaddrinfo(list);
        start = heist_time();
        WANT_CODE(heist_sleep(0.002), 0);
        WANT(heist_time() >= start + 0.002);
    }
    return 0;
}
static void datagrams_names_and_sleeps_are_not_interrupted(void **state) {
    (void)state;
    in_the_storm(send_and_ask, NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        API_TEST(streams_and_servers_are_not_interrupted),
        API_TEST(files_are_not_interrupted),
        API_TEST(processes_are_not_interrupted),
        API_TEST(datagrams_names_and_sleeps_are_not_interrupted),
    };
    return HARNESS_MAIN("interrupted", tests);
}
