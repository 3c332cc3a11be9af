/* accept without memory lost the connection that it had taken.
 *
 * It took the connection out of the backlog first and asked for memory then; refused, it
 * closed the descriptor, and the peer saw its connection end, although the contract says
 * that it stays in the backlog for the next call.  stress_mixed found it.
 *
 * Here each allocation of a call is refused in turn.  The connection must be given by the
 * call that is refused nothing, with the byte that the peer had sent. */
#include "regress/workers.h"

#include <sys/socket.h>
#include <unistd.h>

struct scene {
    int refused, failed;
    char byte;
};

static int accept_again_and_again(void *arg, void **out) {
    struct scene *s = arg;
    heist_addr addr;
    heist_listener *l = NULL;
    heist_conn *conn = NULL;
    (void)out;
    int err = heist_addr_parse("127.0.0.1:0", &addr);
    if (err == 0) err = heist_listen(&addr, NULL, &l);
    if (err == 0) err = heist_listener_addr(l, &addr);
    if (err < 0) return err;
    int peer = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(peer, (struct sockaddr *)&addr.storage, addr.length) < 0 || write(peer, "x", 1) != 1) s->failed++;
    err = -ENOMEM;
    for (long n = 1; err == -ENOMEM && n < 20; n++) {
        harness_fail_allocation(n, false);
        err = heist_accept(l, heist_time() + 5, &conn);
        harness_fail_allocation(0, false);
        s->refused += err == -ENOMEM;
    }
    if (err == 0 && heist_conn_read(conn, &s->byte, 1, heist_time() + 5) != 1) s->failed++;
    heist_conn_close(conn);
    heist_listener_close(l);
    close(peer);
    return err;
}

static void connection_stays_in_the_backlog_when_accept_has_no_memory(void **state) {
    (void)state;
    struct scene s = {0, 0, 0};
    heist_loop *loop = harness_real_loop();
    int err = heist_loop_run_coroutine(loop, accept_again_and_again, &s, NULL, NULL);
    harness_loop_end(loop);
    assert_int_equal(err, 0);
    assert_int_equal(s.failed, 0);
    assert_true(s.refused > 0);
    assert_int_equal(s.byte, 'x');
}

int main(void) {
    const struct CMUnitTest tests[] = {API_TEST(connection_stays_in_the_backlog_when_accept_has_no_memory)};
    return HARNESS_MAIN("bug_accept_lost_connection", tests);
}
