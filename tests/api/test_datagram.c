/* Datagram endpoints over UDP and Unix sockets, by call and by callback.  Loopback only. */
#include "support/scene.h"

#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static void end(heist_datagram *d) {
    heist_datagram_close(d);
    heist_datagram_unref(d);
}

static heist_addr addr_of(const char *text) {
    heist_addr addr = {0};
    SEE_IS(0, heist_addr_parse(text, &addr));
    return addr;
}

static bool same(const heist_addr *a, const heist_addr *b) {
    char x[200], y[200];
    return heist_addr_format(a, x, sizeof x) > 0 && heist_addr_format(b, y, sizeof y) > 0 && strcmp(x, y) == 0;
}

/* An endpoint on a fresh address of that kind, and the address. */
static heist_datagram *endpoint(const char *local, heist_addr *own) {
    heist_datagram *d = NULL;
    heist_addr addr = addr_of(local);
    SEE_IS(0, heist_datagram_open(&addr, NULL, NULL, &d));
    if (own) SEE_IS(0, heist_datagram_addr(d, own));
    return d;
}

/* Where nobody is: on an address of loopback that no other test of this machine uses. */
static heist_addr nowhere(void) {
    char text[32];
    heist_addr addr;
    snprintf(text, sizeof text, "127.3.%d.%d:0", getpid() >> 8 & 255, getpid() & 255);
    end(endpoint(text, &addr));
    return addr;
}

static heist_datagram *unix_endpoint(int number, heist_addr *own) {
    char name[64];
    snprintf(name, sizeof name, "unix:@heist-datagram-%d-%d", (int)getpid(), number);
    return endpoint(name, own);
}

static heist_datagram *connected_to(const heist_addr *remote) {
    heist_datagram *d = NULL;
    SEE_IS(0, heist_datagram_open(NULL, remote, NULL, &d));
    return d;
}

/* ---- whole datagrams ---- */

static void exchange(heist_datagram *a, const heist_addr *at_a, heist_datagram *b, const heist_addr *at_b) {
    char buf[16] = "";
    heist_addr from;
    SEE_IS(0, heist_datagram_sendto(a, "hello", 5, at_b, HEIST_FOREVER));
    SEE_IS(0, heist_datagram_sendto(a, NULL, 0, at_b, HEIST_FOREVER));
    SEE_IS(0, heist_datagram_sendto(a, "world!", 6, at_b, HEIST_FOREVER));
    SEE_IS(5, heist_datagram_recvfrom(b, buf, sizeof buf, HEIST_FOREVER, &from)); /* they do not run together */
    SEE(same(&from, at_a) && memcmp(buf, "hello", 5) == 0);
    SEE_IS(0, heist_datagram_recvfrom(b, buf, sizeof buf, HEIST_FOREVER, &from)); /* nor does an empty one vanish */
    SEE(same(&from, at_a));
    SEE_IS(6, heist_datagram_recv(b, buf, sizeof buf, HEIST_FOREVER));
    /* One that is too long says so, and its rest does not come. */
    SEE_IS(0, heist_datagram_sendto(a, "0123456789", 10, at_b, HEIST_FOREVER));
    SEE_IS(0, heist_datagram_sendto(a, "next", 4, at_b, HEIST_FOREVER));
    SEE_IS(10, heist_datagram_recvfrom(b, buf, 3, HEIST_FOREVER, NULL));
    SEE(memcmp(buf, "012", 3) == 0);
    SEE_IS(4, heist_datagram_recv(b, buf, sizeof buf, HEIST_FOREVER));
    SEE_IS(-ETIMEDOUT, heist_datagram_recv(b, buf, sizeof buf, heist_time() + 0.001));
    SEE_IS(-EAGAIN, heist_datagram_try_recvfrom(b, buf, sizeof buf, &from));
    SEE_IS(0, heist_datagram_try_sendto(b, "back", 4, at_a));
    SEE_IS(4, heist_datagram_recvfrom(a, buf, sizeof buf, HEIST_FOREVER, &from));
    SEE(same(&from, at_b));
}

static int whole_scene(void *arg, void **out) {
    heist_addr at_a, at_b;
    (void)arg, (void)out;
    heist_datagram *a = endpoint("127.0.0.1:0", &at_a), *b = endpoint("127.0.0.1:0", &at_b);
    exchange(a, &at_a, b, &at_b);
    end(a);
    end(b);
    a = unix_endpoint(1, &at_a);
    b = unix_endpoint(2, &at_b);
    exchange(a, &at_a, b, &at_b);
    end(a);
    end(b);
    heist_datagram_close(NULL);
    return 0;
}

static void datagrams_come_whole_with_the_senders_address_STRM_38(void **state) {
    (void)state;
    play(whole_scene);
}

static int v6_scene(void *arg, void **out) {
    heist_addr at_a, at_b;
    (void)arg, (void)out;
    heist_datagram *a = endpoint("[::1]:0", &at_a), *b = endpoint("[::1]:0", &at_b);
    exchange(a, &at_a, b, &at_b);
    end(a);
    end(b);
    return 0;
}

static void datagrams_go_over_ip_version_6(void **state) {
    (void)state;
    int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in6 loopback = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int bound = fd < 0 ? -1 : bind(fd, (struct sockaddr *)&loopback, sizeof loopback);
    if (fd >= 0) close(fd);
    if (bound < 0) skip(); /* a machine without IPv6 */
    play(v6_scene);
}

/* ---- connected ---- */

static int connected_scene(void *arg, void **out) {
    heist_addr at_a, at_b, at_c, from;
    char buf[16];
    (void)arg, (void)out;
    heist_datagram *b = endpoint("127.0.0.1:0", &at_b), *c = endpoint("127.0.0.1:0", &at_c);
    heist_datagram *a = connected_to(&at_b);
    SEE_IS(0, heist_datagram_addr(a, &at_a));
    SEE_IS(0, heist_datagram_peer(a, &from));
    SEE(same(&from, &at_b));
    SEE_IS(-ENOTCONN, heist_datagram_peer(b, &from));
    SEE_IS(0, heist_datagram_send(a, "one", 3, HEIST_FOREVER));
    SEE_IS(0, heist_datagram_sendto(a, "two", 3, &at_b, HEIST_FOREVER)); /* its own is no other */
    SEE_IS(-EISCONN, heist_datagram_sendto(a, "bad", 3, &at_c, HEIST_FOREVER));
    SEE_IS(-EISCONN, heist_datagram_try_sendto(a, "bad", 3, &at_c));
    SEE(heist_datagram_send(b, "x", 1, HEIST_FOREVER) == -EDESTADDRREQ);
    SEE_IS(3, heist_datagram_recvfrom(b, buf, sizeof buf, HEIST_FOREVER, &from));
    SEE_IS(3, heist_datagram_recvfrom(b, buf, sizeof buf, HEIST_FOREVER, &from));
    SEE(same(&from, &at_a) && memcmp(buf, "two", 3) == 0);
    SEE_IS(-EAGAIN, heist_datagram_try_recvfrom(c, buf, sizeof buf, NULL));  /* nothing went there */
    SEE_IS(0, heist_datagram_sendto(c, "not you", 7, &at_a, HEIST_FOREVER)); /* only its own comes in */
    SEE_IS(0, heist_datagram_sendto(b, "me", 2, &at_a, HEIST_FOREVER));
    SEE_IS(2, heist_datagram_recv(a, buf, sizeof buf, HEIST_FOREVER));
    end(a);
    end(b);
    end(c);
    return 0;
}

static void connected_endpoint_refuses_another_address_STRM_38(void **state) {
    (void)state;
    play(connected_scene);
}

static int refused_scene(void *arg, void **out) {
    heist_addr nobody = nowhere(), own;
    char buf[16];
    (void)arg, (void)out;
    heist_datagram *back = NULL;
    heist_datagram *a = connected_to(&nobody);
    SEE_IS(0, heist_datagram_send(a, "x", 1, HEIST_FOREVER));
    SEE_IS(-ECONNREFUSED, heist_datagram_recv(a, buf, sizeof buf, heist_time() + 60));
    SEE_IS(-ETIMEDOUT, heist_datagram_recv(a, buf, sizeof buf, heist_time() + 0.001)); /* told once */
    /* The endpoint goes on: somebody comes up there. */
    SEE_IS(0, heist_datagram_open(&nobody, NULL, NULL, &back));
    SEE_IS(0, heist_datagram_send(a, "again", 5, HEIST_FOREVER));
    SEE_IS(5, heist_datagram_recvfrom(back, buf, sizeof buf, HEIST_FOREVER, &own));
    SEE_IS(0, heist_datagram_sendto(back, "yes", 3, &own, HEIST_FOREVER));
    SEE_IS(3, heist_datagram_recv(a, buf, sizeof buf, HEIST_FOREVER));
    end(a);
    end(back);
    return 0;
}

static void refused_datagram_is_told_and_the_endpoint_goes_on_STRM_38(void **state) {
    (void)state;
    play(refused_scene);
}

/* ---- waiting ---- */

struct waiter {
    heist_datagram *d;
    double deadline;
    _Atomic(int) got;
    _Atomic(bool) begun;
    int code;
};

static int receive_until_refused(void *arg, void **out) {
    struct waiter *w = arg;
    char buf[8];
    ptrdiff_t n;
    (void)out;
    w->begun = true;
    while ((n = heist_datagram_recv(w->d, buf, sizeof buf, w->deadline)) >= 0) w->got++;
    w->code = (int)n;
    return 0;
}

static int several_scene(void *arg, void **out) {
    enum { WAITERS = 5, DATAGRAMS = 300 };
    struct waiter w[WAITERS];
    heist_task *task[WAITERS];
    heist_addr at;
    int got = 0;
    (void)arg, (void)out;
    heist_datagram *d = unix_endpoint(3, &at), *sender = unix_endpoint(4, NULL);
    for (int i = 0; i < WAITERS; i++) {
        w[i].d = d;
        w[i].deadline = HEIST_FOREVER;
        w[i].got = 0;
        w[i].begun = false;
        SEE_IS(0, heist_create_task(receive_until_refused, &w[i], NULL, &task[i]));
    }
    for (int i = 0; i < DATAGRAMS; i++) SEE_IS(0, heist_datagram_sendto(sender, "x", 1, &at, HEIST_FOREVER));
    for (;;) {
        got = 0;
        for (int i = 0; i < WAITERS; i++) got += w[i].got;
        if (got == DATAGRAMS || heist_sleep(0.001)) break;
    }
    heist_datagram_close(d);
    for (int i = 0; i < WAITERS; i++) {
        SEE_IS(0, heist_await(task[i], NULL));
        SEE_IS(HEIST_ECLOSED, w[i].code);
        heist_unref(task[i]);
    }
    char buf[8];
    SEE_IS(HEIST_ECLOSED, heist_datagram_recv(d, buf, sizeof buf, HEIST_FOREVER));
    SEE_IS(HEIST_ECLOSED, heist_datagram_sendto(d, "x", 1, &at, HEIST_FOREVER));
    SEE_IS(HEIST_ECLOSED, heist_datagram_addr(d, &at));
    SEE_IS(HEIST_ECLOSED, heist_datagram_fd(d));
    end(d);
    end(sender);
    return 0;
}

static void several_receivers_share_the_datagrams_and_close_wakes_them_all(void **state) {
    (void)state;
    play(several_scene);
}

struct sender {
    heist_datagram *d;
    const heist_addr *to;
    int first, count, err;
};

static int send_numbers(void *arg, void **out) {
    struct sender *s = arg;
    (void)out;
    for (int i = s->first; i < s->first + s->count && !s->err; i++)
        s->err = heist_datagram_sendto(s->d, &i, sizeof i, s->to, HEIST_FOREVER);
    return s->err;
}

/* More senders on one endpoint than its receiver's queue has room for: all wait, and nothing is lost or twice. */
static int senders_scene(void *arg, void **out) {
    enum { SENDERS = 4, EACH = 400 };
    static char seen[SENDERS * EACH];
    bool connected = *(int *)arg;
    struct sender s[SENDERS];
    heist_task *task[SENDERS];
    heist_addr at;
    int number, last[SENDERS] = {-1, -1, -1, -1};
    (void)out;
    heist_datagram *d = unix_endpoint(5, &at), *from = connected ? connected_to(&at) : unix_endpoint(6, NULL);
    memset(seen, 0, sizeof seen);
    for (int i = 0; i < SENDERS; i++) {
        s[i] = (struct sender){from, connected ? NULL : &at, i * EACH, EACH, 0};
        SEE_IS(0, heist_create_task(send_numbers, &s[i], NULL, &task[i]));
    }
    SEE_IS(0, heist_sleep(0.002)); /* the queue fills */
    for (int i = 0; i < SENDERS * EACH; i++) {
        ptrdiff_t n = heist_datagram_recv(d, &number, sizeof number, HEIST_FOREVER);
        if (n != sizeof number || number < 0 || number >= SENDERS * EACH) {
            SEE_IS(sizeof number, n);
            break;
        }
        SEE(!seen[number]++);
        SEE(number % EACH > last[number / EACH]); /* in each one's own order */
        last[number / EACH] = number % EACH;
    }
    for (int i = 0; i < SENDERS; i++) {
        SEE_IS(0, heist_await(task[i], NULL));
        heist_unref(task[i]);
    }
    end(d);
    end(from);
    return 0;
}

static void senders_wait_for_room_and_nothing_is_lost(void **state) {
    (void)state;
    for (int connected = 0; connected < 2; connected++) play_with(senders_scene, &connected, 0);
}

static int cancel_scene(void *arg, void **out) {
    heist_addr at;
    struct waiter w[2];
    heist_task *task[2];
    char buf[8];
    (void)arg, (void)out;
    heist_datagram *d = endpoint("127.0.0.1:0", &at), *sender = endpoint("127.0.0.1:0", NULL);
    for (int i = 0; i < 2; i++) { /* one waits for the socket, the other for its turn */
        w[i].d = d;
        w[i].deadline = HEIST_FOREVER;
        w[i].got = 0;
        w[i].begun = false;
        SEE_IS(0, heist_create_task(receive_until_refused, &w[i], NULL, &task[i]));
    }
    while (!w[0].begun || !w[1].begun) SEE_IS(0, heist_sleep(0.0001)); /* one that is not begun is never begun */
    SEE_IS(0, heist_sleep(0.001));                                     /* in the call, or at its entry: both are right */
    for (int i = 0; i < 2; i++) {
        SEE_IS(1, heist_cancel(task[i]));
        SEE_IS(0, heist_await(task[i], NULL));
        SEE(w[i].code == -ECANCELED && w[i].got == 0);
        heist_unref(task[i]);
    }
    SEE_IS(0, heist_datagram_sendto(sender, "hello", 5, &at, HEIST_FOREVER));
    heist_cancel(heist_current_task());
    SEE_IS(-ECANCELED, heist_datagram_recv(d, buf, sizeof buf, HEIST_FOREVER));
    SEE_IS(5, heist_datagram_recv(d, buf, sizeof buf, HEIST_FOREVER));
    end(d);
    end(sender);
    return 0;
}

static void cancelled_receiver_took_nothing(void **state) {
    (void)state;
    play(cancel_scene);
}

/* ---- many ---- */

static int many_scene(void *arg, void **out) {
    enum { COUNT = 10 };
    char data[COUNT][8], room[COUNT][8];
    heist_packet go[COUNT], came[COUNT];
    heist_addr at_a, at_b;
    (void)arg, (void)out;
    memset(go, 0, sizeof go);
    memset(came, 0, sizeof came);
    heist_datagram *a = endpoint("127.0.0.1:0", &at_a), *b = endpoint("127.0.0.1:0", &at_b);
    for (int i = 0; i < COUNT; i++) {
        snprintf(data[i], sizeof data[i], "%d", i * 111);
        go[i] = (heist_packet){.data = data[i], .size = strlen(data[i]), .addr = at_b};
        came[i] = (heist_packet){.data = room[i], .size = i == 5 ? 1 : sizeof room[i]};
    }
    SEE_IS(COUNT, heist_datagram_send_many(a, go, COUNT, HEIST_FOREVER));
    for (ptrdiff_t got = 0, n; got < COUNT; got += n) {
        n = heist_datagram_recv_many(b, came + got, (size_t)(COUNT - got), HEIST_FOREVER);
        SEE(n > 0);
        if (n <= 0) break;
    }
    for (int i = 0; i < COUNT; i++) {
        SEE_IS(go[i].size, came[i].length); /* of the one that was cut too */
        SEE(memcmp(room[i], data[i], came[i].length < came[i].size ? came[i].length : came[i].size) == 0);
        SEE(same(&came[i].addr, &at_a));
    }
    SEE_IS(-ETIMEDOUT, heist_datagram_recv_many(b, came, COUNT, heist_time() + 0.001));
    end(b);
    /* Those before the one that cannot go are sent; the next call says why. */
    b = connected_to(&at_a);
    go[0].addr.length = 0;
    SEE_IS(1, heist_datagram_send_many(b, go, COUNT, HEIST_FOREVER));
    SEE_IS(-EISCONN, heist_datagram_send_many(b, go + 1, COUNT - 1, HEIST_FOREVER));
    SEE_IS(-EINVAL, heist_datagram_send_many(b, go, 0, HEIST_FOREVER));
    SEE_IS(-EINVAL, heist_datagram_recv_many(b, NULL, 1, HEIST_FOREVER));
    end(a);
    end(b);
    return 0;
}

static void many_go_and_come_by_one_call(void **state) {
    (void)state;
    play(many_scene);
}

/* ---- callbacks ---- */

struct talk {
    struct record record;
    heist_event done;
    _Atomic(int) until; /* datagrams; set in the middle, with nothing but the kernel between */
};

static void made(void *user, heist_datagram *d) {
    (void)d;
    record_add(&((struct talk *)user)->record, "made");
}
static void received(void *user, heist_datagram *d, const void *data, size_t length, const heist_addr *from) {
    struct talk *t = user;
    record_add(&t->record, "%.*s", (int)length, (const char *)data);
    if (from->length) SEE_IS(0, heist_datagram_sendto(d, data, length, from, HEIST_FOREVER)); /* it may suspend */
    if (--t->until == 0) heist_event_set(&t->done);
}
static void failed(void *user, heist_datagram *d, int code) {
    struct talk *t = user;
    (void)d;
    record_add(&t->record, "%s", heist_error_name(code));
    if (--t->until == 0) heist_event_set(&t->done);
}
static void lost(void *user, heist_datagram *d, int code) {
    struct talk *t = user;
    SEE(code ? heist_datagram_fd(d) >= 0 : heist_datagram_fd(d) == HEIST_ECLOSED);
    record_add(&t->record, "lost:%s", code ? heist_error_name(code) : "0");
    heist_event_set(&t->done);
}
static const heist_datagram_protocol protocol = {sizeof protocol, made, received, failed, lost};

static int callback_scene(void *arg, void **out) {
    struct talk *t = arg;
    heist_datagram_options opts = HEIST_DATAGRAM_OPTIONS_INIT;
    heist_addr local = addr_of("127.0.0.1:0"), at;
    heist_datagram *server = NULL;
    char buf[16];
    (void)out;
    opts.max_received = 6;
    SEE_IS(0, heist_create_datagram_endpoint(&protocol, t, &local, NULL, &opts, &server));
    SEE_IS(0, heist_datagram_addr(server, &at));
    heist_datagram *client = connected_to(&at);
    SEE_IS(0, heist_datagram_send(client, "hello", 5, HEIST_FOREVER));
    SEE_IS(5, heist_datagram_recv(client, buf, sizeof buf, HEIST_FOREVER));
    SEE_IS(0, heist_datagram_send(client, "is too long", 11, HEIST_FOREVER));
    SEE_IS(0, heist_datagram_send(client, "world!", 6, HEIST_FOREVER));
    SEE_IS(6, heist_datagram_recv(client, buf, sizeof buf, HEIST_FOREVER));
    SEE_IS(0, heist_event_wait(&t->done)); /* three came */
    heist_event_clear(&t->done);
    end(server);
    SEE_IS(0, heist_event_wait(&t->done));
    end(client);
    return 0;
}

static void callbacks_are_called_in_order_by_one_task_STRM_38(void **state) {
    (void)state;
    struct talk t = {.record = RECORD_INIT, .done = HEIST_EVENT_INIT, .until = 3};
    play_with(callback_scene, &t, 0);
    assert_string_equal(record_text(&t.record), "made hello EMSGSIZE world! lost:0");
}

static int callback_error_scene(void *arg, void **out) {
    struct talk *t = arg;
    heist_addr nobody = nowhere();
    heist_datagram *client = NULL;
    (void)out;
    SEE_IS(0, heist_create_datagram_endpoint(&protocol, t, NULL, &nobody, NULL, &client));
    SEE_IS(0, heist_datagram_send(client, "x", 1, HEIST_FOREVER));
    SEE_IS(0, heist_event_wait(&t->done)); /* refused */
    heist_event_clear(&t->done);
    t->until = 1;
    heist_datagram *server = NULL;
    SEE_IS(0, heist_datagram_open(&nobody, NULL, NULL, &server));
    heist_addr own;
    SEE_IS(0, heist_datagram_addr(client, &own));
    SEE_IS(0, heist_datagram_sendto(server, "here", 4, &own, HEIST_FOREVER));
    SEE_IS(0, heist_event_wait(&t->done));
    heist_event_clear(&t->done);
    end(server);
    end(client);
    SEE_IS(0, heist_event_wait(&t->done));
    return 0;
}

static void refused_datagram_is_an_error_received_and_no_connection_lost_STRM_38(void **state) {
    (void)state;
    struct talk t = {.record = RECORD_INIT, .done = HEIST_EVENT_INIT, .until = 1};
    play_with(callback_error_scene, &t, 0);
    /* The echo of "here" may be refused in turn, told or not before the close. */
    const char *text = record_text(&t.record);
    assert_true(strncmp(text, "made ECONNREFUSED here ", 23) == 0);
    assert_string_equal(text + strlen(text) - 6, "lost:0");
}

static heist_datagram *left;
static int unclosed_scene(void *arg, void **out) {
    heist_addr local = addr_of("127.0.0.1:0");
    (void)out;
    SEE_IS(0, heist_create_datagram_endpoint(&protocol, arg, &local, NULL, NULL, &left));
    while (record_words(&((struct talk *)arg)->record) < 1) SEE_IS(0, heist_sleep(0.0005)); /* it is told of itself */
    return 0;
}

static void endpoint_outlives_its_runtime_until_it_is_closed(void **state) {
    (void)state;
    struct talk t = {.record = RECORD_INIT, .done = HEIST_EVENT_INIT, .until = 1};
    play_with(unclosed_scene, &t, 0);
    assert_string_equal(record_text(&t.record), "made lost:ECANCELED");
    end(left); /* the harness sees whether anything is left */
}

static void nothing_is_called_of_a_protocol_without_functions(void **state) {
    (void)state;
    heist_loop *loop = harness_real_loop();
    harness_loop_end(loop);
    static const heist_datagram_protocol empty = HEIST_DATAGRAM_PROTOCOL_INIT;
    heist_addr local;
    heist_datagram *d = NULL;
    assert_int_equal(heist_addr_parse("127.0.0.1:0", &local), 0);
    assert_int_equal(heist_create_datagram_endpoint(&empty, NULL, &local, NULL, NULL, &d), HEIST_ENOLOOP);
    assert_int_equal(heist_create_datagram_endpoint(NULL, NULL, &local, NULL, NULL, &d), -EINVAL);
    assert_null(d);
}

/* ---- options ---- */

/* A client with a name of its own may knock until the server is there. */
static int early_client_scene(void *arg, void **out) {
    char name[64];
    heist_addr own, there;
    heist_datagram *d = NULL, *server = NULL;
    (void)arg, (void)out;
    for (int i = 0; i < 2; i++) {
        snprintf(name, sizeof name, "unix:/tmp/heist-dgram-%ld-%d", (long)getpid(), i);
        SEE_IS(0, heist_addr_parse(name, i ? &there : &own));
    }
    SEE_IS(-ENOENT, heist_datagram_open(&own, &there, NULL, &d));
    SEE_IS(-1, access(((struct sockaddr_un *)&own.storage)->sun_path, F_OK));
    SEE_IS(0, heist_datagram_open(&there, NULL, NULL, &server));
    SEE_IS(0, heist_datagram_open(&own, &there, NULL, &d));
    heist_datagram *second = NULL;
    SEE_IS(-EADDRINUSE, heist_datagram_open(&own, &there, NULL, &second));
    SEE_IS(0, access(((struct sockaddr_un *)&own.storage)->sun_path, F_OK)); /* it is the first one's */
    end(d);
    end(server);
    SEE_IS(0, unlink(((struct sockaddr_un *)&own.storage)->sun_path));
    SEE_IS(0, unlink(((struct sockaddr_un *)&there.storage)->sun_path));
    return 0;
}

static void open_that_fails_leaves_no_file(void **state) {
    (void)state;
    play(early_client_scene);
}

static int options_scene(void *arg, void **out) {
    heist_datagram_options opts = HEIST_DATAGRAM_OPTIONS_INIT;
    heist_datagram *one = NULL, *two = NULL, *bad = NULL;
    heist_addr local = addr_of("127.0.0.1:0"), at, six = addr_of("[::1]:0"), everybody = addr_of("127.255.255.255:9");
    static char big[70000];
    (void)arg, (void)out;
    SEE_IS(-EINVAL, heist_datagram_open(NULL, NULL, NULL, &bad));
    SEE_IS(-EINVAL, heist_datagram_open(&local, NULL, NULL, NULL));
    SEE_IS(-EINVAL, heist_datagram_open(&local, &six, NULL, &bad));
    opts.flags = 0x1000;
    SEE_IS(-EINVAL, heist_datagram_open(&local, NULL, &opts, &bad));
    opts.flags = HEIST_DATAGRAM_REUSEPORT;
    SEE_IS(0, heist_datagram_open(&local, NULL, &opts, &one));
    SEE_IS(0, heist_datagram_addr(one, &at));
    SEE_IS(-EADDRINUSE, heist_datagram_open(&at, NULL, NULL, &bad));
    SEE_IS(0, heist_datagram_open(&at, NULL, &opts, &two));
    end(two);
    SEE_IS(-EACCES, heist_datagram_sendto(one, "x", 1, &everybody, HEIST_FOREVER));
    SEE_IS(-EMSGSIZE, heist_datagram_sendto(one, big, sizeof big, &at, HEIST_FOREVER));
    end(one);
    opts.flags = HEIST_DATAGRAM_BROADCAST;
    opts.receive_buffer = opts.send_buffer = 20000;
    SEE_IS(0, heist_datagram_open(&local, NULL, &opts, &one));
    SEE_IS(0, heist_datagram_sendto(one, "x", 1, &everybody, HEIST_FOREVER));
    int size = 0;
    socklen_t length = sizeof size;
    SEE_IS(0, getsockopt(heist_datagram_fd(one), SOL_SOCKET, SO_RCVBUF, &size, &length));
    SEE_IS(40000, size); /* the system doubles it */
    char byte;
    SEE_IS(-EINVAL, heist_datagram_recv(one, NULL, 1, HEIST_FOREVER));
    SEE_IS(-EINVAL, heist_datagram_recv(one, &byte, 1, strtod("nan", NULL)));
    SEE_IS(-EINVAL, heist_datagram_recv(NULL, &byte, 1, HEIST_FOREVER));
    SEE_IS(-EINVAL, heist_datagram_sendto(one, NULL, 1, &at, HEIST_FOREVER));
    end(one);
    heist_datagram_protocol nothing = HEIST_DATAGRAM_PROTOCOL_INIT;
    opts = (heist_datagram_options)HEIST_DATAGRAM_OPTIONS_INIT;
    opts.max_received = SIZE_MAX; /* and no less than that */
    SEE_IS(-ENOMEM, heist_create_datagram_endpoint(&nothing, NULL, &local, NULL, &opts, &bad));
    opts.max_received = SIZE_MAX - 64;
    SEE_IS(-ENOMEM, heist_create_datagram_endpoint(&nothing, NULL, &local, NULL, &opts, &bad));
    return 0;
}

static void options_are_set_and_bad_ones_refused(void **state) {
    (void)state;
    play(options_scene);
}

static int multicast_scene(void *arg, void **out) {
    heist_addr any = addr_of("0.0.0.0:0"), at, group = addr_of("239.255.77.1:0");
    struct sockaddr_in in;
    heist_datagram *d = NULL;
    char buf[8];
    int *skipped = arg;
    unsigned loopback = if_nametoindex("lo");
    struct ip_mreqn through = {.imr_ifindex = (int)loopback};
    (void)out;
    SEE_IS(0, heist_datagram_open(&any, NULL, NULL, &d));
    SEE_IS(0, heist_datagram_addr(d, &at));
    int err = heist_datagram_join(d, &group, loopback);
    if (err == -ENODEV || err == -ENOPROTOOPT) {
        *skipped = 1;
    } else {
        SEE_IS(0, err);
        SEE_IS(-EADDRINUSE, heist_datagram_join(d, &group, loopback));
        SEE_IS(0, setsockopt(heist_datagram_fd(d), IPPROTO_IP, IP_MULTICAST_IF, &through, sizeof through));
        memcpy(&in, &at.storage, sizeof in);
        memcpy((char *)&group.storage + offsetof(struct sockaddr_in, sin_port), &in.sin_port, sizeof in.sin_port);
        err = heist_datagram_sendto(d, "all", 3, &group, HEIST_FOREVER);
        if (err == -ENETUNREACH || err == -EPERM) *skipped = 1;
        else SEE_IS(3, heist_datagram_recv(d, buf, sizeof buf, HEIST_FOREVER));
        SEE_IS(0, heist_datagram_leave(d, &group, loopback));
        SEE_IS(-EADDRNOTAVAIL, heist_datagram_leave(d, &group, loopback));
    }
    SEE_IS(-EINVAL, heist_datagram_join(d, NULL, 0));
    end(d);
    return 0;
}

static void group_is_joined_and_left(void **state) {
    (void)state;
    int skipped = 0;
    play_with(multicast_scene, &skipped, 0);
    if (skipped) skip(); /* no multicast here */
}

static int from_fd_scene(void *arg, void **out) {
    int fd[2], stream[2];
    char buf[8];
    heist_datagram *a = NULL, *b = NULL, *bad = NULL;
    (void)arg, (void)out;
    SEE_IS(0, socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, fd));
    SEE_IS(0, heist_datagram_from_fd(fd[0], &a));
    SEE_IS(0, heist_datagram_from_fd(fd[1], &b));
    SEE_IS(-EBUSY, heist_datagram_from_fd(fd[1], &bad));
    SEE_IS(0, heist_datagram_send(a, "hello", 5, HEIST_FOREVER));
    SEE_IS(5, heist_datagram_recv(b, buf, sizeof buf, HEIST_FOREVER));
    SEE_IS(-ETIMEDOUT, heist_datagram_recv(b, buf, sizeof buf, heist_time())); /* it was made non-blocking */
    end(a);
    end(b);
    SEE_IS(-1, fcntl(fd[0], F_GETFD));
    SEE_IS(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, stream));
    SEE_IS(-EPROTOTYPE, heist_datagram_from_fd(stream[0], &bad));
    close(stream[0]);
    close(stream[1]);
    SEE_IS(-EBADF, heist_datagram_from_fd(stream[0], &bad));
    return 0;
}

static void socket_of_the_users_becomes_an_endpoint(void **state) {
    (void)state;
    play(from_fd_scene);
}

/* ---- from the wrong place, out of everything ---- */

static int use_in_callback(void *arg) {
    heist_datagram *d = arg;
    heist_addr own;
    char buf[8];
    SEE_IS(0, heist_datagram_addr(d, &own));
    SEE_IS(HEIST_ENOTINCORO, heist_datagram_recv(d, buf, sizeof buf, HEIST_FOREVER));
    SEE_IS(HEIST_ENOTINCORO, heist_datagram_sendto(d, "x", 1, &own, HEIST_FOREVER));
    SEE_IS(0, heist_datagram_try_sendto(d, "x", 1, &own));
    ptrdiff_t n;
    while ((n = heist_datagram_try_recvfrom(d, buf, sizeof buf, NULL)) == -EAGAIN) {
    }
    SEE_IS(1, n);
    return 0;
}

static void callbacks_and_plain_threads_use_the_forms_that_never_suspend(void **state) {
    (void)state;
    heist_loop *loop = harness_real_loop();
    heist_addr local;
    heist_datagram *d = NULL;
    scene_wrong = 0;
    assert_int_equal(heist_addr_parse("127.0.0.1:0", &local), 0);
    assert_int_equal(heist_datagram_open(&local, NULL, NULL, &d), 0);
    assert_int_equal(heist_loop_call_soon(loop, use_in_callback, d, NULL, NULL), 0);
    harness_one_pass(loop);
    use_in_callback(d);
    assert_int_equal(scene_wrong, 0);
    end(d);
    harness_loop_end(loop);
}

static int scarce_scene(void *arg, void **out) {
    heist_addr local = addr_of("127.0.0.1:0");
    heist_datagram *d = NULL;
    struct rlimit limit, none;
    (void)arg, (void)out;
    SEE_IS(0, getrlimit(RLIMIT_NOFILE, &limit));
    none = limit;
    none.rlim_cur = 0;
    SEE_IS(0, setrlimit(RLIMIT_NOFILE, &none));
    SEE_IS(-EMFILE, heist_datagram_open(&local, NULL, NULL, &d));
    SEE_IS(0, setrlimit(RLIMIT_NOFILE, &limit));
    SEE(d == NULL);
    return 0;
}

static void no_descriptor_is_a_code(void **state) {
    (void)state;
    play(scarce_scene);
}

static int short_of_memory(void *arg, void **out) {
    int *code = arg;
    heist_addr local;
    heist_datagram *d = NULL;
    static const heist_datagram_protocol empty = HEIST_DATAGRAM_PROTOCOL_INIT;
    char byte;
    (void)out;
    *code = heist_addr_parse("127.0.0.1:0", &local);
    if (!*code) *code = heist_datagram_open(&local, NULL, NULL, &d);
    if (!*code) {
        ptrdiff_t n = heist_datagram_recv(d, &byte, 1, heist_time());
        *code = n == -ETIMEDOUT ? 0 : (int)n;
        end(d);
    }
    if (!*code) {
        *code = heist_create_datagram_endpoint(&empty, NULL, &local, NULL, NULL, &d);
        if (!*code) {
            heist_sleep(0);
            end(d);
        }
    }
    return 0;
}

static void each_failing_allocation_is_told_and_leaves_nothing(void **state) {
    (void)state;
    for (long n = 1;; n++) {
        assert_true(n < 1000);
        int code = 1;
        heist_loop *loop = NULL;
        harness_allocations();
        harness_fail_allocation(n, false);
        int made_it = heist_loop_new(NULL, &loop);
        int ran = made_it ? made_it : heist_loop_run_coroutine(loop, short_of_memory, &code, NULL, NULL);
        harness_fail_allocation(0, false);
        long asked = harness_allocations();
        if (loop) harness_loop_end(loop);
        assert_true(ran == 0 || ran == -ENOMEM);
        assert_true(ran || code == 0 || code == -ENOMEM);
        if (asked < n) break;
    }
}

static const struct CMUnitTest tests[] = {
    API_TEST(datagrams_come_whole_with_the_senders_address_STRM_38),
    API_TEST(datagrams_go_over_ip_version_6),
    API_TEST(connected_endpoint_refuses_another_address_STRM_38),
    API_TEST(refused_datagram_is_told_and_the_endpoint_goes_on_STRM_38),
    API_TEST(several_receivers_share_the_datagrams_and_close_wakes_them_all),
    API_TEST(senders_wait_for_room_and_nothing_is_lost),
    API_TEST(cancelled_receiver_took_nothing),
    API_TEST(many_go_and_come_by_one_call),
    API_TEST(callbacks_are_called_in_order_by_one_task_STRM_38),
    API_TEST(refused_datagram_is_an_error_received_and_no_connection_lost_STRM_38),
    API_TEST(endpoint_outlives_its_runtime_until_it_is_closed),
    API_TEST(nothing_is_called_of_a_protocol_without_functions),
    API_TEST(open_that_fails_leaves_no_file),
    API_TEST(options_are_set_and_bad_ones_refused),
    API_TEST(group_is_joined_and_left),
    API_TEST(socket_of_the_users_becomes_an_endpoint),
    API_TEST(callbacks_and_plain_threads_use_the_forms_that_never_suspend),
    API_TEST(no_descriptor_is_a_code),
    API_TEST(each_failing_allocation_is_told_and_leaves_nothing),
};

int main(void) { return HARNESS_MAIN("datagram", tests); }
