/* How loops wait for descriptors: chosen by options or environment, told, and epoll where io_uring is refused. */
#include "support/harness.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *self_path; /* this one */

static int tell_backend(void *arg, void **out) {
    heist_loop *loop;
    (void)out;
    int err = heist_get_running_loop(&loop);
    if (err == 0) snprintf(arg, 16, "%s", heist_loop_backend(loop));
    return err;
}

static const char *backend_of(int backend) {
    static char name[16];
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    opts.workers = harness_workers();
    opts.backend = backend;
    int err = heist_run(tell_backend, name, &opts, NULL);
    return err ? heist_error_name(err) : name;
}

static void backend_is_chosen_and_told_LOOP_28(void **state) {
    (void)state;
    char *kept = getenv("HEIST_BACKEND") ? strdup(getenv("HEIST_BACKEND")) : NULL;
    unsetenv("HEIST_BACKEND");
    assert_string_equal(backend_of(HEIST_BACKEND_EPOLL), "epoll");
    assert_string_equal(backend_of(HEIST_BACKEND_AUTO), "epoll");
    char ring[16];
    snprintf(ring, sizeof ring, "%s", backend_of(HEIST_BACKEND_IO_URING)); /* as the machine allows */
    assert_true(!strcmp(ring, "io_uring") || !strcmp(ring, "epoll"));
    setenv("HEIST_BACKEND", "io_uring", 1);
    assert_string_equal(backend_of(HEIST_BACKEND_AUTO), ring);
    assert_string_equal(backend_of(HEIST_BACKEND_EPOLL), "epoll"); /* the options are stronger */
    setenv("HEIST_BACKEND", "epoll", 1);
    assert_string_equal(backend_of(HEIST_BACKEND_AUTO), "epoll");
    assert_string_equal(backend_of(HEIST_BACKEND_IO_URING), ring);
    static const char *const with[] = {"io_uring,accept", "uring,recv", "io_uring,recv,accept"};
    for (size_t i = 0; i < sizeof with / sizeof with[0]; i++) {
        setenv("HEIST_BACKEND", with[i], 1);
        assert_string_equal(backend_of(HEIST_BACKEND_AUTO), ring);
    }
    assert_string_equal(backend_of(HEIST_BACKEND_IO_URING | HEIST_BACKEND_FEED_ACCEPT), ring);
    assert_string_equal(backend_of(HEIST_BACKEND_IO_URING | HEIST_BACKEND_FEED_RECV), ring);
    static const char *const wrong[] = {"io_uring,", "io_uringx", "io_uring,acceptor", "io_uring,rec", "epoll,recv", ""};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        setenv("HEIST_BACKEND", wrong[i], 1);
        assert_string_equal(backend_of(HEIST_BACKEND_AUTO), "epoll");
    }
    setenv("HEIST_BACKEND", "something", 1);
    assert_string_equal(backend_of(HEIST_BACKEND_AUTO), "epoll");
    if (kept) setenv("HEIST_BACKEND", kept, 1);
    else unsetenv("HEIST_BACKEND");
    free(kept);
    assert_string_equal(backend_of(3), "EINVAL");
    assert_string_equal(backend_of(-1), "EINVAL");
    assert_null(heist_loop_backend(NULL));
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    heist_loop *loop;
    opts.backend = HEIST_BACKEND_IO_URING;
    assert_int_equal(heist_loop_new(&opts, &loop), 0);
    assert_string_equal(heist_loop_backend(loop), ring);
    harness_loop_end(loop);
}

/* Bytes through a pipe, between two tasks. */
static int use_pipe(void *arg, void **out) {
    heist_conn *in, *to;
    int fd[2];
    char buf[8];
    (void)out;
    int err = tell_backend(arg, NULL);
    if (err < 0) return err;
    if (pipe(fd) < 0) return -errno;
    if ((err = heist_conn_open(fd[0], &in)) < 0) return err;
    if ((err = heist_conn_open(fd[1], &to)) < 0) return err;
    if (heist_conn_read(in, buf, sizeof buf, heist_time() + 0.005) != -ETIMEDOUT) err = -EPROTO;
    if (!err) err = heist_conn_write(to, "x", 1, HEIST_FOREVER, NULL);
    if (!err && heist_conn_read(in, buf, sizeof buf, HEIST_FOREVER) != 1) err = -EPROTO;
    heist_conn_close(in);
    heist_conn_close(to);
    return err;
}

/* In a child that may not make a ring: 0 when all is as with epoll. */
static int in_filter(int refusal) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)refusal),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof code[0], code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
        return 77;
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    char name[16] = "";
    opts.workers = harness_workers();
    opts.backend = HEIST_BACKEND_IO_URING;
    int err = heist_run(use_pipe, name, &opts, NULL);
    return err ? 1 : strcmp(name, "epoll") ? 2 : 0;
}

static void filter_that_refuses_rings_is_answered_by_epoll(void **state) {
    (void)state;
    static const int refusals[] = {EPERM, ENOSYS, EACCES};
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
        int status;
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) { /* afresh: a fork of a process that has used the library may not */
            char number[8];
            snprintf(number, sizeof number, "%d", refusals[i]);
            execl(self_path, "api_backend", "--filtered", number, (char *)NULL);
            _exit(78);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        if (WIFEXITED(status) && WEXITSTATUS(status) == 77) skip(); /* no filters here */
        assert_int_equal(status, 0);
    }
}

int main(int argc, char **argv) {
    self_path = argv[0];
    if (argc == 3 && !strcmp(argv[1], "--filtered")) return in_filter(atoi(argv[2]));
    const struct CMUnitTest tests[] = {
        API_TEST(filter_that_refuses_rings_is_answered_by_epoll),
        API_TEST(backend_is_chosen_and_told_LOOP_28),
    };
    return HARNESS_MAIN("backend", tests);
}
