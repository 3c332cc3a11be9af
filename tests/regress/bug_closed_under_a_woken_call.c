/* A call on a descriptor that had been woken, but had not run yet, used freed memory.
 *
 * A task waits in accept, read or write.  An event wakes it; before it comes to run, another
 * closes the listener or the connection, which nothing forbids: from outside the task still
 * waits.  The call then went on with what the close had freed, or with the next connection
 * that got the same memory and the same descriptor.
 *
 * One loop makes it certain: a reader's callback and the task become ready in the same poll,
 * the callback first, for its descriptor was readable first.  The callback closes, and opens
 * another in its place.  The call must give HEIST_ECLOSED, or what it had been woken for. */
#include "regress/workers.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

struct scene {
    heist_loop *loop;
    int trigger[2];
    int peer, next_peer;
    heist_listener *listener, *next_listener;
    heist_conn *conn, *next_conn;
    heist_addr addr;
    int outcome, failed;
};

static int open_pair(heist_conn **conn, int *peer) {
    int fd[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd) < 0) return -errno;
    int err = heist_conn_open(fd[0], conn);
    *peer = fd[1];
    return err;
}

static double soon(void) { return heist_time() + 5; /* only a call that went astray waits so long */ }

/* ---- accept ---- */

static int listen_at_loopback(heist_listener **out) {
    heist_addr addr;
    int err = heist_addr_parse("127.0.0.1:0", &addr);
    return err < 0 ? err : heist_listen(&addr, NULL, out);
}

static int close_listener(void *arg) {
    struct scene *scene = arg;
    heist_loop_remove_reader(scene->loop, scene->trigger[0]);
    heist_listener_close(scene->listener);
    if (listen_at_loopback(&scene->next_listener) < 0) scene->failed++;
    return 0;
}

static int connect_from_outside(void *arg) {
    struct scene *scene = arg;
    scene->peer = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (write(scene->trigger[1], "x", 1) != 1) scene->failed++;
    if (connect(scene->peer, (struct sockaddr *)&scene->addr.storage, scene->addr.length) < 0) scene->failed++;
    return 0;
}

static int accept_one(void *arg, void **out) {
    struct scene *scene = arg;
    heist_conn *conn = NULL;
    (void)out;
    int err = listen_at_loopback(&scene->listener);
    if (err == 0) err = heist_listener_addr(scene->listener, &scene->addr);
    if (err == 0) err = heist_loop_add_reader(scene->loop, scene->trigger[0], close_listener, scene, NULL);
    if (err == 0) err = heist_loop_call_later(scene->loop, 0.001, connect_from_outside, scene, NULL, NULL);
    if (err < 0) return err;
    scene->outcome = heist_accept(scene->listener, soon(), &conn);
    heist_conn_close(conn);
    heist_listener_close(scene->next_listener);
    return 0;
}

/* ---- read and write ---- */

static int close_conn(void *arg) {
    struct scene *scene = arg;
    heist_loop_remove_reader(scene->loop, scene->trigger[0]);
    heist_conn_close(scene->conn);
    if (open_pair(&scene->next_conn, &scene->next_peer) < 0) scene->failed++;
    return 0;
}

static int send_from_outside(void *arg) {
    struct scene *scene = arg;
    if (write(scene->trigger[1], "x", 1) != 1 || write(scene->peer, "y", 1) != 1) scene->failed++;
    return 0;
}

static int read_one(void *arg, void **out) {
    struct scene *scene = arg;
    char byte = 0;
    (void)out;
    int err = open_pair(&scene->conn, &scene->peer);
    if (err == 0) err = heist_loop_add_reader(scene->loop, scene->trigger[0], close_conn, scene, NULL);
    if (err == 0) err = heist_loop_call_later(scene->loop, 0.001, send_from_outside, scene, NULL, NULL);
    if (err < 0) return err;
    ptrdiff_t n = heist_conn_read(scene->conn, &byte, 1, soon());
    scene->outcome = n == 1 && byte == 'y' ? 0 : (int)n;
    heist_conn_close(scene->next_conn);
    return 0;
}

static int drain_from_outside(void *arg) {
    struct scene *scene = arg;
    static char sink[1 << 16];
    if (write(scene->trigger[1], "x", 1) != 1) scene->failed++;
    while (recv(scene->peer, sink, sizeof sink, MSG_DONTWAIT) > 0) {
    }
    return 0;
}

static int write_much(void *arg, void **out) {
    struct scene *scene = arg;
    static char much[4 << 20];
    (void)out;
    int err = open_pair(&scene->conn, &scene->peer);
    if (err == 0) err = heist_loop_add_reader(scene->loop, scene->trigger[0], close_conn, scene, NULL);
    if (err == 0) err = heist_loop_call_later(scene->loop, 0.001, drain_from_outside, scene, NULL, NULL);
    if (err < 0) return err;
    scene->outcome = heist_conn_write(scene->conn, much, sizeof much, soon(), NULL);
    heist_conn_close(scene->next_conn);
    return 0;
}

static void play(heist_coro_fn fn) {
    for (int round = 0; round < 5; round++) {
        struct scene scene = {.peer = -1, .next_peer = -1};
        scene.loop = harness_real_loop();
        assert_int_equal(pipe2(scene.trigger, O_CLOEXEC | O_NONBLOCK), 0);
        int err = heist_loop_run_coroutine(scene.loop, fn, &scene, NULL, NULL);
        harness_loop_end(scene.loop);
        close(scene.trigger[0]);
        close(scene.trigger[1]);
        if (scene.peer >= 0) close(scene.peer);
        if (scene.next_peer >= 0) close(scene.next_peer);
        assert_int_equal(err, 0);
        assert_int_equal(scene.failed, 0);
        if (scene.outcome != 0) assert_int_equal(scene.outcome, HEIST_ECLOSED);
    }
}

static void accept_that_was_woken_survives_the_close(void **state) {
    (void)state;
    play(accept_one);
}

static void read_that_was_woken_survives_the_close(void **state) {
    (void)state;
    play(read_one);
}

static void write_that_was_woken_survives_the_close(void **state) {
    (void)state;
    play(write_much);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        API_TEST(accept_that_was_woken_survives_the_close),
        API_TEST(read_that_was_woken_survives_the_close),
        API_TEST(write_that_was_woken_survives_the_close),
    };
    return HARNESS_MAIN("bug_closed_under_a_woken_call", tests);
}
