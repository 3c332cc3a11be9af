/* stress/stress_udp.c: datagrams, and calls on descriptors whose numbers are used again and again.
 *
 * Law, datagrams: what arrives was sent, whole, and arrives once; a send that timed out or was cancelled sent
 * nothing, a receipt that did took nothing.  Over Unix sockets all that was sent arrives, and in each sender's
 * order where one task receives.  (UDP may drop, and does.)
 * Law, descriptors: whoever waits on a descriptor gets what was sent to it, its end, or HEIST_ECLOSED, and never what
 * was meant for another that has or had its number. Endpoints shared by several senders and several receivers, bare
 * sockets, single calls and batches, deadlines, cancels, closes by tasks and by plain threads. Invariant: a sender
 * moves its sequence on only when a call said that the datagram went. */
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#define DOORS 4
#define SENDERS 16
#define RECEIVERS 16
#define CHURNERS 16
#define MOST_EACH 4000
#define LONGEST 3000
#define BATCH 8
#define MAGIC UINT64_C(0x6865697374646772)

struct packet {
    uint64_t magic, sender, sequence, length;
    unsigned char fill[LONGEST - 32];
};

/* Where datagrams are received: an endpoint, or a bare socket for one task. */
struct door {
    heist_datagram *endpoint;
    int bare;
    heist_addr addr;
    int receivers;
};

struct actor {
    int index;
    struct door *door;
    heist_datagram *endpoint; /* a sender's, shared perhaps */
    bool connected, batches;
    struct stress_rng rng;
    heist_task *task;
    _Atomic(bool) begun;    /* a request before that would end it without a step */
    uint64_t last[SENDERS]; /* a receiver's: the sequence that it saw last of each, plus one */
};

static struct door doors[DOORS];
static struct actor senders[SENDERS], receivers[RECEIVERS], churners[CHURNERS];
static int door_count, sender_count, receiver_count, churner_count;
static uint64_t each;
static bool inet;
static _Atomic(unsigned char) seen[SENDERS][MOST_EACH];
static _Atomic(uint64_t) sent, received, lost, timeouts, cancels, refusals, tokens, closes;
static _Atomic(int) cancelling, churning;

static double some_deadline(struct stress_rng *r) {
    return stress_chance(r, 70) ? HEIST_FOREVER : heist_time() + 1e-6 * (double)stress_below(r, 2000);
}

/* What ends a call without having done anything: true, and the call is made again. */
static bool passes(ptrdiff_t code) {
    if (code == -ETIMEDOUT) s_add(&timeouts, 1);
    if (code == -ECANCELED) s_add(&cancels, 1);
    if (code == -ECONNREFUSED) s_add(&refusals, 1); /* a receiver was closed under a connected one */
    return code == -ETIMEDOUT || code == -ECANCELED || code == -ECONNREFUSED;
}

/* ---- sending ---- */

static unsigned char filling(uint64_t sender, uint64_t sequence, uint64_t i) {
    return (unsigned char)(sender * 131 + sequence * 7 + i);
}

static void fill(struct packet *p, struct stress_rng *r, uint64_t sender, uint64_t sequence) {
    p->magic = MAGIC;
    p->sender = sender;
    p->sequence = sequence;
    p->length = 32 + stress_between(r, 0, sizeof p->fill);
    for (uint64_t i = 0; i < p->length - 32; i++) p->fill[i] = filling(sender, sequence, i);
}

static int send_all(void *arg, void **out) {
    struct actor *a = arg;
    s_set(&a->begun, true);
    const heist_addr *to = a->connected ? NULL : &a->door->addr;
    struct packet *p = stress_alloc(BATCH * sizeof *p);
    (void)out;
    for (uint64_t n = 0; n < each;) {
        uint64_t count = a->batches ? 1 + stress_below(&a->rng, BATCH) : 1;
        heist_packet packets[BATCH];
        if (count > each - n) count = each - n;
        for (uint64_t i = 0; i < count; i++) {
            fill(&p[i], &a->rng, (uint64_t)a->index, n + i);
            packets[i] = (heist_packet){.data = &p[i], .size = p[i].length};
            if (to) packets[i].addr = *to;
        }
        double deadline = some_deadline(&a->rng);
        ptrdiff_t gone = a->batches ? heist_datagram_send_many(a->endpoint, packets, count, deadline)
                                    : heist_datagram_sendto(a->endpoint, p, p->length, to, deadline);
        if (!a->batches && gone == 0) gone = 1;
        if (gone > 0) {
            n += (uint64_t)gone;
            s_add(&sent, (uint64_t)gone);
            stress_progress((uint64_t)gone);
        } else if (!passes(gone)) {
            stress_fail("a send ended with %s", heist_error_name((int)gone));
            break;
        }
        if (inet && stress_chance(&a->rng, 10)) heist_yield();
    }
    free(p);
    return 0;
}

/* ---- receiving ---- */

static void check(struct actor *a, const struct packet *p, uint64_t length) {
    if (length < 32 || p->magic != MAGIC || p->length != length || p->sender >= (uint64_t)sender_count ||
        p->sequence >= each) {
        stress_fail("what arrived was not sent: %" PRIu64 " bytes", length);
        return;
    }
    for (uint64_t i = 0; i < length - 32; i++)
        if (p->fill[i] != filling(p->sender, p->sequence, i)) {
            stress_fail("byte %" PRIu64 " of datagram %" PRIu64 " is not what was sent", i, p->sequence);
            break;
        }
    if (atomic_fetch_add_explicit(&seen[p->sender][p->sequence], 1, memory_order_relaxed))
        stress_fail("datagram %" PRIu64 " of sender %" PRIu64 " came twice", p->sequence, p->sender);
    if (!inet && a->door->receivers == 1) {
        stress_check(p->sequence >= a->last[p->sender], "datagram %" PRIu64 " came behind a later one", p->sequence);
        a->last[p->sender] = p->sequence + 1;
    }
    s_add(&received, 1);
    stress_progress(1);
}

static int receive_all(void *arg, void **out) {
    struct actor *a = arg;
    s_set(&a->begun, true);
    struct packet *p = stress_alloc(BATCH * sizeof *p);
    ptrdiff_t n;
    (void)out;
    do {
        double deadline = some_deadline(&a->rng);
        if (a->door->bare >= 0) {
            n = heist_sock_recv(a->door->bare, p, sizeof *p, MSG_TRUNC, deadline);
            if (n >= 0) check(a, p, (uint64_t)n);
        } else if (a->batches) {
            heist_packet packets[BATCH];
            for (int i = 0; i < BATCH; i++) packets[i] = (heist_packet){.data = &p[i], .size = sizeof *p};
            n = heist_datagram_recv_many(a->door->endpoint, packets, BATCH, deadline);
            for (ptrdiff_t i = 0; i < n; i++) check(a, &p[i], packets[i].length);
        } else {
            n = heist_datagram_recv(a->door->endpoint, p, sizeof *p, deadline);
            if (n >= 0) check(a, p, (uint64_t)n);
        }
    } while (n >= 0 || passes(n));
    free(p);
    /* A bare one that was closed between two of our calls is closed to the next one too. */
    bool closed = n == HEIST_ECLOSED || (a->door->bare >= 0 && n == -EBADF);
    stress_check(closed, "a receipt ended with %s", heist_error_name((int)n));
    return 0;
}

/* ---- numbers that come again ---- */

struct reader {
    int fd;
    uint64_t token;
    ptrdiff_t n;
};

static int read_token(void *arg, void **out) {
    struct reader *r = arg;
    (void)out;
    do r->n = heist_sock_recv(r->fd, &r->token, sizeof r->token, 0, HEIST_FOREVER);
    while (r->n == -EBUSY && heist_yield() == 0); /* it met a probe */
    return 0;
}

static void *close_outside(void *arg) {
    heist_sock_close(*(int *)arg);
    return NULL;
}

static void churn_once(struct actor *a) {
    int fd[2], err;
    heist_task *task;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd)) stress_die("no sockets");
    struct reader reader = {.fd = fd[1]};
    if (heist_create_task(read_token, &reader, NULL, &task)) stress_die("no task");
    uint64_t token = stress_next(&a->rng);
    switch (stress_below(&a->rng, 3)) {
        case 0: /* it gets what is sent to it */
            if (stress_chance(&a->rng, 50)) heist_yield();
            err = heist_sock_sendall(fd[0], &token, sizeof token, 0, HEIST_FOREVER, NULL);
            stress_check(err == 0, "a send ended with %s", heist_error_name(err));
            heist_await(task, NULL);
            stress_check(reader.n == sizeof token && reader.token == token, "a reader got another's token (%td)",
                         reader.n);
            heist_sock_close(fd[1]);
            s_add(&tokens, 1);
            break;
        case 1: /* it is closed under it, once it waits */
            while ((err = heist_fd_wait(fd[1], HEIST_READABLE, heist_time())) != -EBUSY && err == -ETIMEDOUT)
                heist_yield();
            stress_check(err == -EBUSY, "a probe ended with %s", heist_error_name(err));
            if (stress_chance(&a->rng, 20)) {
                pthread_t thread;
                stress_thread(&thread, close_outside, &fd[1]);
                heist_await(task, NULL);
                stress_join(thread);
            } else {
                stress_check(heist_sock_close(fd[1]) == 0, "a close failed");
                heist_await(task, NULL);
            }
            stress_check(reader.n == HEIST_ECLOSED, "a reader whose descriptor was closed got %td", reader.n);
            s_add(&closes, 1);
            break;
        default: /* its peer ends */
            if (stress_chance(&a->rng, 50)) heist_yield();
            shutdown(fd[0], SHUT_WR);
            heist_await(task, NULL);
            stress_check(reader.n == 0, "a reader at the end got %td", reader.n);
            heist_sock_close(fd[1]);
            break;
    }
    heist_unref(task);
    heist_sock_close(fd[0]);
    stress_progress(1);
}

static int churn(void *arg, void **out) {
    (void)out;
    while (s_get(&churning) && stress_going()) churn_once(arg);
    return 0;
}

/* ---- a round ---- */

static void *canceller(void *arg) {
    struct stress_rng *r = arg;
    while (s_get(&cancelling)) {
        int n = (int)stress_below(r, (uint64_t)(sender_count + receiver_count));
        struct actor *a = n < sender_count ? &senders[n] : &receivers[n - sender_count];
        if (s_get(&a->begun)) heist_cancel(a->task);
        stress_pause(r, 1e-3);
    }
    return NULL;
}

static void open_door(struct door *d, int number, bool bare) {
    char text[80];
    if (inet) snprintf(text, sizeof text, "127.0.0.1:0");
    else snprintf(text, sizeof text, "unix:@heist-stress-%d-%ld-%d", (int)getpid(), stress_round(), number);
    *d = (struct door){.bare = -1};
    if (heist_addr_parse(text, &d->addr)) stress_die("no address");
    if (bare) {
        d->bare = socket(d->addr.storage.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (d->bare < 0 || bind(d->bare, (struct sockaddr *)&d->addr.storage, d->addr.length)) stress_die("no socket");
        d->addr.length = sizeof d->addr.storage;
        getsockname(d->bare, (struct sockaddr *)&d->addr.storage, &d->addr.length);
    } else if (heist_datagram_open(&d->addr, NULL, NULL, &d->endpoint) || heist_datagram_addr(d->endpoint, &d->addr)) {
        stress_die("no endpoint");
    }
}

static heist_datagram *sending_endpoint(struct actor *a, int number) {
    heist_datagram *d = NULL;
    heist_addr own;
    char text[80];
    if (inet) snprintf(text, sizeof text, "127.0.0.1:0");
    else snprintf(text, sizeof text, "unix:@heist-stress-%d-%ld-s%d", (int)getpid(), stress_round(), number);
    if (heist_addr_parse(text, &own) || heist_datagram_open(&own, a->connected ? &a->door->addr : NULL, NULL, &d))
        stress_die("no endpoint to send from");
    return d;
}

static void begin(heist_runtime *rt, struct actor *a, heist_coro_fn fn) {
    if (heist_runtime_run_coroutine(rt, fn, a, NULL, &a->task)) stress_die("no task");
}

static void end_of(struct actor *a) {
    int err = heist_await(a->task, NULL);
    stress_check(err == 0, "an actor ended with %s", heist_error_name(err));
}

static void one_round(struct stress_rng *r) {
    inet = stress_chance(r, 40);
    door_count = 1 + (int)stress_below(r, DOORS);
    sender_count = 1 + (int)stress_below(r, SENDERS);
    churner_count = (int)stress_below(r, CHURNERS);
    each = stress_scale(stress_between(r, 1, MOST_EACH));
    int workers = stress_draw_workers(r);
    memset((void *)seen, 0, sizeof seen);
    uint64_t sent_before = s_get(&sent), received_before = s_get(&received);
    receiver_count = 0;
    for (int i = 0; i < door_count; i++) {
        open_door(&doors[i], i, stress_chance(r, 30));
        doors[i].receivers = doors[i].bare >= 0 ? 1 : 1 + (int)stress_below(r, RECEIVERS / DOORS);
        for (int n = 0; n < doors[i].receivers; n++) {
            struct actor *a = &receivers[receiver_count++];
            memset((void *)a, 0, sizeof *a);
            a->door = &doors[i];
            a->batches = stress_chance(r, 30);
        }
    }
    stress_settings("%s, %d workers, %d doors, %d receivers, %d senders of %" PRIu64 ", %d churners",
                    inet ? "UDP" : "Unix", workers, door_count, receiver_count, sender_count, each, churner_count);
    heist_runtime *rt = stress_runtime("udp", workers, NULL);
    s_set(&churning, 1);
    s_set(&cancelling, 1);
    for (int i = 0; i < sender_count; i++) {
        struct actor *a = &senders[i];
        bool shares = i > 0 && stress_chance(r, 40);
        memset((void *)a, 0, sizeof *a);
        a->index = i;
        a->door = shares ? senders[i - 1].door : &doors[stress_below(r, (uint64_t)door_count)];
        a->connected = shares ? senders[i - 1].connected : stress_chance(r, 50);
        a->batches = stress_chance(r, 30);
        a->endpoint = shares ? senders[i - 1].endpoint : sending_endpoint(a, i);
    }
    for (int i = 0; i < receiver_count; i++) {
        receivers[i].rng = stress_stream(r, (uint64_t)i);
        begin(rt, &receivers[i], receive_all);
    }
    for (int i = 0; i < sender_count; i++) {
        senders[i].rng = stress_stream(r, 100 + (uint64_t)i);
        begin(rt, &senders[i], send_all);
    }
    for (int i = 0; i < churner_count; i++) {
        churners[i].rng = stress_stream(r, 200 + (uint64_t)i);
        begin(rt, &churners[i], churn);
    }
    pthread_t thread;
    struct stress_rng cancel_rng = stress_stream(r, 300);
    stress_thread(&thread, canceller, &cancel_rng);
    for (int i = 0; i < sender_count; i++) end_of(&senders[i]);
    stress_phase("receiving the rest");
    uint64_t total = s_get(&sent) - sent_before;
    double quiet = stress_now() + 0.05; /* UDP: what has not come by then is lost */
    while (s_get(&received) - received_before < total && (!inet || stress_now() < quiet)) heist_sleep(0.0005);
    s_add(&lost, total - (s_get(&received) - received_before));
    s_set(&cancelling, 0);
    stress_join(thread);
    stress_phase("closing");
    for (int i = 0; i < door_count; i++)
        if (doors[i].bare < 0) heist_datagram_close(doors[i].endpoint);
    /* A bare one's number must not be used again before its receiver knows: no churner may take it. */
    s_set(&churning, 0);
    for (int i = 0; i < churner_count; i++) end_of(&churners[i]);
    for (int i = 0; i < door_count; i++)
        if (doors[i].bare >= 0) heist_sock_close(doors[i].bare);
    for (int i = 0; i < receiver_count; i++) end_of(&receivers[i]);
    for (int i = 0; i < door_count; i++) heist_datagram_unref(doors[i].endpoint);
    stress_runtime_end(rt);
    for (int i = 0; i < sender_count; i++) {
        if (i == 0 || senders[i].endpoint != senders[i - 1].endpoint) heist_datagram_unref(senders[i].endpoint);
        heist_unref(senders[i].task);
    }
    for (int i = 0; i < receiver_count; i++) heist_unref(receivers[i].task);
    for (int i = 0; i < churner_count; i++) heist_unref(churners[i].task);
    if (!inet) stress_check(s_get(&received) - received_before == total, "sent and received differ");
}

int main(int argc, char **argv) {
    struct stress_rng r;
    stress_begin(
        argc, argv, "udp",
        "datagrams arrive whole, once, and over Unix sockets all of them; a descriptor's number never wakes the "
        "wrong waiter");
    while (stress_next_round(&r)) one_round(&r);
    stress_note("datagrams sent %" PRIu64 ", received %" PRIu64 ", lost by UDP %" PRIu64, s_get(&sent),
                s_get(&received), s_get(&lost));
    stress_note("calls timed out %" PRIu64 ", cancelled %" PRIu64 ", refused %" PRIu64, s_get(&timeouts),
                s_get(&cancels), s_get(&refusals));
    stress_note("tokens to their readers %" PRIu64 ", descriptors closed under a reader %" PRIu64, s_get(&tokens),
                s_get(&closes));
    return stress_end();
}
