/* select between plain threads: one case wins and only it takes effect, selects meet
 * each other, and nobody sleeps beside a partner. */
#include <errno.h>
#include <heist/channel.h>
#include <heist/error.h>
#include <heist/queue.h>
#include <heist/select.h>
#include <string.h>

#include "model/model.h"

static heist_channel *c[2];
static heist_queue *q;
static int item[4], sent[4], received[4], won[3];

static void setup_n(size_t capacity) {
    memset(sent, 0, sizeof(sent));
    memset(received, 0, sizeof(received));
    memset(won, 0, sizeof(won));
    for (int i = 0; i < 4; i++) item[i] = 0;
    for (int i = 0; i < 2; i++) model_assert(heist_channel_new(capacity, &c[i]) == 0);
    q = NULL;
}
static void rendezvous(void) { setup_n(0); }
static void one_cell(void) { setup_n(1); }
static void with_queue(void) {
    setup_n(0);
    model_assert(heist_queue_new(1, NULL, &q) == 0);
}

static double soon(void) { return (double)(model_now_ns() + 1000000) / 1e9; }

static void put_in(int i) { item[i] = i + 1; /* plain: handed over with the item */ }
static void got(void *p) {
    int *at = p;
    model_assert(*at == at - item + 1);
    received[at - item]++;
}

static void finish(heist_select_case *cases, int w) {
    model_assert(w >= 0 && cases[w].code == 0);
    if (cases[w].op == HEIST_SELECT_RECV || cases[w].op == HEIST_SELECT_GET) got(cases[w].value);
    if (cases[w].op == HEIST_SELECT_SEND || cases[w].op == HEIST_SELECT_PUT) sent[(int *)cases[w].value - item] = 1;
}

static void send_either(void) {
    put_in(0);
    heist_select_case s[] = {HEIST_CASE_SEND(c[0], &item[0]), HEIST_CASE_SEND(c[1], &item[0])};
    finish(s, heist_select(s, 2));
}
static void recv_either(void) {
    heist_select_case s[] = {HEIST_CASE_RECV(c[1]), HEIST_CASE_RECV(c[0])};
    finish(s, heist_select(s, 2));
}
static void recv_either_until(void) {
    heist_select_case s[] = {HEIST_CASE_RECV(c[0]), HEIST_CASE_RECV(c[1])};
    int w = heist_select_until(s, 2, soon());
    if (w == -ETIMEDOUT) won[0] = 1;
    else finish(s, w);
}
/* Either end of each: one goes one way, the other the other way. */
static void cross_one(void) {
    put_in(0);
    heist_select_case s[] = {HEIST_CASE_SEND(c[0], &item[0]), HEIST_CASE_RECV(c[1])};
    finish(s, heist_select(s, 2));
}
static void cross_two(void) {
    put_in(1);
    heist_select_case s[] = {HEIST_CASE_SEND(c[1], &item[1]), HEIST_CASE_RECV(c[0])};
    finish(s, heist_select(s, 2));
}
static void try_send_0(void) {
    put_in(2);
    int rc = heist_channel_try_send(c[0], &item[2]);
    model_assert(rc == 0 || rc == -EAGAIN);
    sent[2] = rc == 0;
}
static void send_0(void) {
    put_in(2);
    model_assert(heist_channel_send(c[0], &item[2]) == 0);
    sent[2] = 1;
}
static void send_0_until(void) {
    put_in(2);
    int rc = heist_channel_send_until(c[0], &item[2], soon());
    model_assert(rc == 0 || rc == -ETIMEDOUT);
    sent[2] = rc == 0;
}
static void send_1(void) {
    put_in(3);
    model_assert(heist_channel_send(c[1], &item[3]) == 0);
    sent[3] = 1;
}
static void recv_both(void) {
    recv_either();
    recv_either();
}
static void get_or_recv(void) {
    heist_select_case s[] = {HEIST_CASE_GET(q), HEIST_CASE_RECV(c[0])};
    int w = heist_select(s, 2);
    finish(s, w);
}
static void put_one(void) {
    put_in(1);
    model_assert(heist_queue_put(q, &item[1]) == 0);
    sent[1] = 1;
}
static void close_both(void) {
    for (int i = 0; i < 2; i++) model_assert(heist_channel_close(c[i]) == 0);
}
static void recv_till_closed(void) {
    for (;;) {
        heist_select_case s[] = {HEIST_CASE_RECV(c[0]), HEIST_CASE_RECV(c[1])};
        int w = heist_select(s, 2);
        model_assert(w >= 0);
        if (s[w].code == HEIST_ESHUTDOWN) return;
        finish(s, w);
    }
}

static void tidy(void) {
    for (int i = 0; i < 2; i++) heist_channel_unref(c[i]);
    heist_queue_unref(q);
}
static void once(void) {
    for (int i = 0; i < 4; i++) model_assert(received[i] == sent[i]);
    tidy();
}
/* What is left in a ring or queue comes out now. */
static void once_with_the_rest(void) {
    void *p;
    for (int i = 0; i < 2; i++)
        while (heist_channel_try_recv(c[i], &p) == 0) got(p);
    while (q && heist_queue_get_nowait(q, &p) == 0) got(p);
    once();
}
/* cross: exactly one of the two items went, over the one channel that both found. */
static void one_of_two(void) {
    model_assert(sent[0] + sent[1] == 1);
    once();
}

int main(int argc, char **argv) {
    static const struct model_case cases[] = {
        {"select to select", rendezvous, {send_either, recv_either}, once, {2, 1}, {3, 1}},
        {"crossed selects", rendezvous, {cross_one, cross_two}, one_of_two, {2, 1}, {3, 1}},
        {"a select that gives up", rendezvous, {recv_either_until, try_send_0}, once, {3, 0}, {3, 1}},
        {"both give up", rendezvous, {recv_either_until, send_0_until}, once, {2, 0}, {3, 0}},
        {"two senders", rendezvous, {recv_both, send_0, send_1}, once, {1, 0}, {2, 0}},
        {"two senders, with a cell", one_cell, {recv_both, send_0, send_1}, once, {1, 0}, {2, 0}},
        {"a queue or a channel", with_queue, {get_or_recv, put_one, try_send_0}, once_with_the_rest, {1, 0}, {2, 0}},
        {"close against select", rendezvous, {recv_till_closed, close_both}, once, {3, 0}, {3, 1}},
    };
    return model_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
