/* Channels between plain threads, some of which give up: no item is lost or doubled, no
 * wake is eaten by a waiter that had left, and everybody learns of the close.
 *
 * A deadline is how a plain thread's wait is taken back, at any moment: the checker lets
 * time pass when it likes.  (Cancelled tasks: test_task.c.) */
#include <errno.h>
#include <heist/channel.h>
#include <heist/error.h>
#include <string.h>

#include "conc/self.h"
#include "mem/slab.h"
#include "model/model.h"

static heist_channel *c;
static int item[4], sent[4], received[4], gave_up;

static void setup_n(size_t capacity, int holders) {
    memset(sent, 0, sizeof(sent));
    memset(received, 0, sizeof(received));
    gave_up = 0;
    for (int i = 0; i < 4; i++) item[i] = 0;
    model_assert(heist_channel_new(capacity, &c) == 0);
    for (int i = 1; i < holders; i++) heist_channel_ref(c);
}
static void rendezvous_2(void) { setup_n(0, 2); }
static void rendezvous_3(void) { setup_n(0, 3); }
static void one_cell_2(void) { setup_n(1, 2); }
static void one_cell_3(void) { setup_n(1, 3); }

static double soon(void) { return (double)(model_now_ns() + 1000000) / 1e9; }

static void send(int i, int how) {
    item[i] = i + 1; /* plain: handed over with the item */
    int rc = how == 0   ? heist_channel_send(c, &item[i])
             : how == 1 ? heist_channel_send_until(c, &item[i], soon())
                        : heist_channel_try_send(c, &item[i]);
    if (rc == 0) sent[i] = 1;
    else model_assert((how == 1 && rc == -ETIMEDOUT) || (how == 2 && rc == -EAGAIN) || rc == HEIST_ESHUTDOWN);
    if (rc) item[i] = -1; /* ours still */
}

static int recv(int how) {
    void *p = NULL;
    int rc = how == 0   ? heist_channel_recv(c, &p)
             : how == 1 ? heist_channel_recv_until(c, &p, soon())
                        : heist_channel_try_recv(c, &p);
    if (rc == 0) {
        int *at = p;
        model_assert(*at == at - item + 1);
        received[at - item]++;
    } else {
        model_assert(!p && ((how == 1 && rc == -ETIMEDOUT) || (how == 2 && rc == -EAGAIN) || rc == HEIST_ESHUTDOWN));
    }
    return rc;
}

static void leave(void) { heist_channel_unref(c); }
static void send_0(void) { send(0, 0), leave(); }
static void send_1(void) { send(1, 0), leave(); }
static void send_2(void) { send(0, 0), send(1, 0), leave(); }
static void send_0_until(void) { send(0, 1), leave(); }
static void try_send_0(void) { send(0, 2), leave(); }
static void recv_1(void) { recv(0), leave(); }
static void recv_2(void) { recv(0), recv(0), leave(); }
static void recv_until(void) {
    if (recv(1)) gave_up++;
    leave();
}
static void recv_until_2(void) { recv(1), recv(1), leave(); }
static void recv_all(void) {
    while (recv(0) == 0) continue;
    leave();
}
static void close_it(void) { model_assert(heist_channel_close(c) == 0), leave(); }
static void send_and_close(void) { send(0, 0), close_it(); }

/* The second sender of one item goes to whoever is left: what a receiver that gave up left behind. */
static void recv_or_pass_on(void) {
    if (recv(1)) recv(2);
    leave();
}

static void once(void) {
    for (int i = 0; i < 4; i++) model_assert(received[i] == sent[i]);
}
/* Items that stand in the ring when everybody has left are lost with it: the cases below leave none. */
static void at_most_once(void) {
    for (int i = 0; i < 4; i++) model_assert(received[i] <= sent[i]);
}
static void recv_waits(void) { recv(0), leave(); }
static void recv_waits_for_close(void) {
    model_assert(recv(0) == HEIST_ESHUTDOWN);
    leave();
}
static void recv_until_then_send(void) {
    if (recv(1)) gave_up = 1;
    else send(1, 0); /* so that the other receiver gets one too */
    leave();
}

int main(int argc, char **argv) {
    static const struct model_case cases[] = {
        {"a rendezvous", rendezvous_2, {send_0, recv_1}, once, {3, 1}, {4, 2}},
        {"one cell", one_cell_2, {send_2, recv_2}, once, {2, 1}, {3, 2}},
        {"a receiver that gives up", rendezvous_2, {send_0_until, recv_until}, once, {3, 0}, {4, 1}},
        {"one that gives up, one that waits",
         rendezvous_3,
         {send_0, recv_until_then_send, recv_waits},
         once,
         {1, 0},
         {2, 0}},
        {"one cell, one gives up", one_cell_3, {send_0, recv_until_then_send, recv_waits}, once, {1, 1}, {2, 0}},
        {"two senders, one gives up", one_cell_3, {send_0_until, send_1, recv_until_2}, at_most_once, {2, 0}, {2, 1}},
        {"try against a deadline", rendezvous_2, {try_send_0, recv_or_pass_on}, once, {3, 1}, {4, 1}},
        {"close against a receiver", one_cell_2, {send_and_close, recv_all}, once, {2, 1}, {3, 2}},
        {"close against a sender that waits", rendezvous_2, {send_0, close_it}, once, {3, 1}, {5, 2}},
        {"close against two receivers",
         one_cell_3,
         {recv_waits_for_close, recv_waits_for_close, close_it},
         once,
         {2, 0},
         {2, 1}},
        {"close against sender and receiver", one_cell_3, {send_0, close_it, recv_all}, once, {2, 0}, {2, 1}},
    };
    return model_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
