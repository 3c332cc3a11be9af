/* The seam of system calls: -errno instead of errno, waits that are never early, no signal for a lost peer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdbool.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "base/macros.h"
#include "base/sys.h"

static void failures_are_negative_codes(void **state) {
    (void)state;
    char byte = 0;
    struct epoll_event event = {0};
    errno = 0;
    assert_int_equal(heist__sys_read(-1, &byte, 1), -EBADF);
    assert_int_equal(heist__sys_write(-1, &byte, 1), -EBADF);
    assert_int_equal(heist__sys_recv(-1, &byte, 1, 0), -EBADF);
    assert_int_equal(heist__sys_send(-1, &byte, 1, 0), -EBADF);
    assert_int_equal(heist__sys_accept(-1, NULL, NULL), -EBADF);
    assert_int_equal(heist__sys_epoll_ctl(-1, EPOLL_CTL_ADD, 0, &event), -EBADF);
    assert_int_equal(heist__sys_epoll_wait(-1, &event, 1, 0), -EBADF);
    assert_int_equal(heist__sys_epoll_wait(-1, &event, 1, 1000), -EBADF);
    assert_int_equal(heist__sys_epoll_wait(-1, &event, 1, -1), -EBADF);
    assert_int_equal(heist__sys_socket(AF_UNIX, 77, 0), -EINVAL);
    assert_int_equal(heist__sys_madvise((void *)(uintptr_t)1, 1, MADV_NORMAL), -EINVAL);
    assert_int_equal(heist__sys_mprotect((void *)(uintptr_t)1, 1, PROT_NONE), -EINVAL);
    assert_int_equal(heist__sys_close(-1), -EBADF);
}

static void an_eventfd_counts_and_never_blocks(void **state) {
    (void)state;
    int fd = heist__sys_eventfd(0);
    assert_true(fd >= 0);
    uint64_t value = 3;
    assert_int_equal(heist__sys_read(fd, &value, sizeof(value)), -EAGAIN);
    assert_int_equal(heist__sys_write(fd, &value, sizeof(value)), sizeof(value));
    assert_int_equal(heist__sys_write(fd, &value, sizeof(value)), sizeof(value));
    assert_int_equal(heist__sys_read(fd, &value, sizeof(value)), sizeof(value));
    assert_int_equal(value, 6);
    assert_int_equal(heist__sys_close(fd), 0);
}

/* Waits that end by time alone: how many were early, or found something. */
static int wrong_waits(void) {
    static const int64_t limits[] = {1, 999, 50000, 300000, 999999, 1000001, 2500000};
    struct epoll_event event;
    int epfd = heist__sys_epoll_create(), wrong = 0;
    if (epfd < 0) return -1;
    for (size_t i = 0; i < HEIST_ARRAY_LEN(limits); i++) {
        int64_t start = heist__sys_monotonic_ns();
        int got = heist__sys_epoll_wait(epfd, &event, 1, limits[i]);
        wrong += got != 0 || heist__sys_monotonic_ns() - start < limits[i];
    }
    wrong += heist__sys_epoll_wait(epfd, &event, 1, 0) != 0;
    heist__sys_close(epfd);
    return wrong;
}

static void a_wait_is_never_early(void **state) {
    (void)state;
    assert_int_equal(wrong_waits(), 0);
}

/* From here on this process has a kernel that does not know epoll_pwait2. */
static bool forget_pwait2(void) {
#ifdef SYS_epoll_pwait2
    struct sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_epoll_pwait2, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {HEIST_ARRAY_LEN(program), program};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
#else
    return true;
#endif
}

/* wrong_waits of a child that lives on such a kernel; 77 where there are no filters, -1 when it did not end well.
 * Runs before cmocka, whose memory a child would leave behind. */
static int wrong_waits_without_pwait2;

static int run_child(void) {
    pid_t child = fork();
    if (child == 0) _exit(forget_pwait2() ? wrong_waits() : 77);
    int status;
    if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status)) return -1;
    return WEXITSTATUS(status);
}

static void a_wait_is_never_early_on_a_kernel_without_nanoseconds(void **state) {
    (void)state;
    if (wrong_waits_without_pwait2 == 77) skip();
    assert_int_equal(wrong_waits_without_pwait2, 0);
}

static void sockets_never_block_and_a_lost_peer_is_a_code(void **state) {
    (void)state;
    int fd = heist__sys_socket(AF_UNIX, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    struct sockaddr_un nowhere = {.sun_family = AF_UNIX, .sun_path = {0}};
    assert_int_equal(heist__sys_connect(fd, (struct sockaddr *)&nowhere, sizeof(sa_family_t) + 1), -ECONNREFUSED);

    /* An address of the kernel's choice, in no file system. */
    assert_int_equal(bind(fd, (struct sockaddr *)&nowhere, sizeof(sa_family_t)), 0);
    struct sockaddr_un name;
    socklen_t bytes = sizeof(name);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&name, &bytes), 0);
    assert_int_equal(listen(fd, 1), 0);
    assert_int_equal(heist__sys_accept(fd, NULL, NULL), -EAGAIN);

    int client = heist__sys_socket(AF_UNIX, SOCK_STREAM, 0);
    assert_true(client >= 0);
    assert_int_equal(heist__sys_connect(client, (struct sockaddr *)&name, bytes), 0);
    int server = heist__sys_accept(fd, NULL, NULL);
    assert_true(server >= 0);
    char buffer[8] = "abc";
    assert_int_equal(heist__sys_recv(server, buffer, sizeof(buffer), 0), -EAGAIN);
    assert_int_equal(heist__sys_send(client, buffer, 3, 0), 3);
    assert_int_equal(heist__sys_recv(server, buffer, sizeof(buffer), 0), 3);
    heist__sys_close(server);
    assert_int_equal(heist__sys_send(client, buffer, 3, 0), -EPIPE);
    struct iovec part = {buffer, 3};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    assert_int_equal(heist__sys_sendmsg(client, &message, 0), -EPIPE);
    heist__sys_close(client);
    heist__sys_close(fd);
}

static void *give_back(void *arg) { return arg; }

static void threads_start_and_end(void **state) {
    (void)state;
    pthread_t thread;
    void *result = NULL;
    int mark;
    assert_int_equal(heist__sys_thread_create(&thread, NULL, give_back, &mark), 0);
    assert_int_equal(heist__sys_thread_join(thread, &result), 0);
    assert_ptr_equal(result, &mark);
}

static void the_clock_is_monotonic(void **state) {
    (void)state;
    int64_t before = heist__sys_monotonic_ns();
    for (int i = 0; i < 1000; i++) {
        int64_t now = heist__sys_monotonic_ns();
        assert_true(now >= before);
        before = now;
    }
}

int main(void) {
    wrong_waits_without_pwait2 = run_child();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(failures_are_negative_codes),
        cmocka_unit_test(an_eventfd_counts_and_never_blocks),
        cmocka_unit_test(a_wait_is_never_early),
        cmocka_unit_test(a_wait_is_never_early_on_a_kernel_without_nanoseconds),
        cmocka_unit_test(sockets_never_block_and_a_lost_peer_is_a_code),
        cmocka_unit_test(threads_start_and_end),
        cmocka_unit_test(the_clock_is_monotonic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
