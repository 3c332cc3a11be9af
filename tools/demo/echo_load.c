/* The echo's clients; echo_load.h has the contract.
 *
 * Each thread owns an epoll and a share of the connections, and touches nothing of the
 * others but the shared counters.  The bytes of a message follow from its connection
 * and number, so an answer that is late, doubled, cut or swapped with another's cannot
 * pass.  Invariant of a client: bytes [0, sent) of message `number` are with the kernel,
 * bytes [0, got) came back and were right, got <= sent <= size. */
#include "echo_load.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#define SMALL 256u        /* most messages have 1 to this many bytes */
#define LARGE 16384u      /* one in LARGE_EVERY has up to this many, to be cut on its way */
#define LARGE_EVERY 512u
#define EVENTS 256
#define LOOK_MS 20        /* how soon a thread without events notices the end */

struct client {
    int fd;
    int ending; /* our side is shut; only the end of the stream may come */
    uint64_t number;
    uint32_t id, size, sent, got;
    int stage; /* when the message went out */
    uint64_t started_ns;
};

struct load_thread {
    struct echo_load *load;
    pthread_t thread;
    int epoll;
    struct client *clients;
    int n_clients, alive;
    struct echo_load_result result;
    unsigned char message[LARGE], answer[LARGE];
};

struct echo_load {
    _Atomic(uint64_t) requests;
    _Atomic(int) stage;
    _Atomic(int) stopping;
    _Atomic(uint64_t) give_up_ns; /* meaningful once stopping is set */
    int n_threads;
    struct load_thread *threads;
    struct client *clients;
};

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- messages ---- */

static uint64_t mix(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static uint64_t seed_of(const struct client *c) { return mix((uint64_t)c->id << 40 ^ c->number ^ 0x9e3779b97f4a7c15u); }

static uint32_t size_of(const struct client *c) {
    uint64_t draw = mix(seed_of(c) + 1);
    uint32_t most = draw % LARGE_EVERY == 0 ? LARGE : SMALL;
    return (uint32_t)(draw >> 32) % most + 1;
}

/* Writes the message that the client has under way, as far as byte `size`. */
static void compose(const struct client *c, unsigned char *message, uint32_t size) {
    uint64_t seed = seed_of(c);
    for (uint32_t at = 0; at < size; at += 8) {
        uint64_t word = mix(seed += 0x9e3779b97f4a7c15u);
        memcpy(message + at, &word, size - at < 8 ? size - at : 8);
    }
}

/* ---- one client ---- */

static void watch(struct load_thread *t, struct client *c, uint32_t events, int how) {
    struct epoll_event e = {.events = events, .data.ptr = c};
    (void)epoll_ctl(t->epoll, how, c->fd, &e);
}

static void finish(struct load_thread *t, struct client *c, int broken) {
    t->result.unanswered += broken != 0;
    close(c->fd);
    c->fd = -1;
    t->alive--;
}

/* Sends what is left of the message; waits for room when the kernel has none. */
static void send_on(struct load_thread *t, struct client *c) {
    int was_cut = c->sent > 0;
    compose(c, t->message, c->size);
    while (c->sent < c->size) {
        ssize_t n = send(c->fd, t->message + c->sent, c->size - c->sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) {
            watch(t, c, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
            return;
        }
        if (n < 0) {
            finish(t, c, 1);
            return;
        }
        c->sent += (uint32_t)n;
        t->result.sent += (uint64_t)n;
    }
    if (was_cut) watch(t, c, EPOLLIN, EPOLL_CTL_MOD);
}

static void next_message(struct load_thread *t, struct client *c, uint64_t now) {
    if (atomic_load_explicit(&t->load->stopping, memory_order_relaxed)) {
        c->ending = 1;
        shutdown(c->fd, SHUT_WR);
        return;
    }
    c->number++;
    c->size = size_of(c);
    c->sent = c->got = 0;
    c->started_ns = now;
    c->stage = atomic_load_explicit(&t->load->stage, memory_order_relaxed);
    send_on(t, c);
}

/* Compares what came with what belongs there. */
static void check(struct load_thread *t, struct client *c, uint32_t n) {
    uint32_t expected = c->ending ? 0 : c->sent - c->got;
    uint32_t known = n < expected ? n : expected;
    t->result.received += n;
    t->result.wrong += n - known; /* more than we ever sent */
    compose(c, t->message, c->got + known);
    if (memcmp(t->message + c->got, t->answer, known) != 0)
        for (uint32_t i = 0; i < known; i++) t->result.wrong += t->message[c->got + i] != t->answer[i];
    c->got += known;
}

static void receive(struct load_thread *t, struct client *c) {
    ssize_t n = recv(c->fd, t->answer, sizeof t->answer, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) {
        finish(t, c, n < 0 || !c->ending);
        return;
    }
    check(t, c, (uint32_t)n);
    if (c->ending || c->got < c->size) return;
    uint64_t now = now_ns();
    latency_add(&t->result.latency[c->stage], now - c->started_ns);
    t->result.requests++;
    atomic_fetch_add_explicit(&t->load->requests, 1, memory_order_relaxed);
    next_message(t, c, now);
}

/* ---- a thread ---- */

static int gave_up(struct echo_load *l) {
    return atomic_load_explicit(&l->stopping, memory_order_acquire) && now_ns() > l->give_up_ns;
}

static void *run_clients(void *arg) {
    struct load_thread *t = arg;
    struct epoll_event events[EVENTS];
    for (int i = 0; i < t->n_clients; i++) next_message(t, &t->clients[i], now_ns());
    while (t->alive > 0 && !gave_up(t->load)) {
        int n = epoll_wait(t->epoll, events, EVENTS, LOOK_MS);
        for (int i = 0; i < n; i++) {
            struct client *c = events[i].data.ptr;
            if (events[i].events & EPOLLOUT) send_on(t, c);
            if (c->fd >= 0 && (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))) receive(t, c);
        }
    }
    for (int i = 0; i < t->n_clients; i++)
        if (t->clients[i].fd >= 0) finish(t, &t->clients[i], 1);
    return NULL;
}

/* ---- start and stop ---- */

static int connect_one(struct client *c, const struct sockaddr *where, socklen_t length) {
    int on = 1, fd = socket(where->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    if (connect(fd, where, length) < 0) {
        int err = -errno;
        close(fd);
        return err;
    }
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    c->fd = fd;
    return 0;
}

static void discard(struct echo_load *l, int clients) {
    for (int i = 0; i < clients; i++) close(l->clients[i].fd);
    for (int i = 0; i < l->n_threads; i++)
        if (l->threads[i].epoll >= 0) close(l->threads[i].epoll);
    free(l->threads);
    free(l->clients);
    free(l);
}

static struct echo_load *allocate(int connections, int threads) {
    struct echo_load *l = calloc(1, sizeof *l);
    if (!l) return NULL;
    l->clients = calloc((size_t)connections, sizeof *l->clients);
    l->threads = calloc((size_t)threads, sizeof *l->threads);
    if (!l->clients || !l->threads) {
        free(l->clients);
        free(l->threads);
        free(l);
        return NULL;
    }
    l->n_threads = threads;
    for (int i = 0; i < threads; i++) l->threads[i].epoll = -1;
    return l;
}

/* Deals the connections out in runs of equal length and puts them into the epolls. */
static int prepare(struct load_thread *t, struct echo_load *l, int index, int connections) {
    int first = (int)((long)connections * index / l->n_threads);
    int last = (int)((long)connections * (index + 1) / l->n_threads);
    t->load = l;
    t->clients = &l->clients[first];
    t->n_clients = t->alive = last - first;
    t->result.connected = t->n_clients;
    t->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (t->epoll < 0) return -errno;
    for (int i = 0; i < t->n_clients; i++) watch(t, &t->clients[i], EPOLLIN, EPOLL_CTL_ADD);
    return 0;
}

int echo_load_start(const struct sockaddr *where, socklen_t length, int connections, int threads,
                    struct echo_load **out) {
    struct echo_load *l = allocate(connections, threads);
    int connected = 0, err = 0;
    if (!l) return -ENOMEM;
    for (; connected < connections && err == 0; connected += err == 0) {
        l->clients[connected].id = (uint32_t)connected;
        err = connect_one(&l->clients[connected], where, length);
    }
    for (int i = 0; i < threads && err == 0; i++) err = prepare(&l->threads[i], l, i, connections);
    if (err < 0) {
        discard(l, connected);
        return err;
    }
    for (int i = 0; i < threads; i++) {
        err = -pthread_create(&l->threads[i].thread, NULL, run_clients, &l->threads[i]);
        if (err == 0) continue;
        l->n_threads = i; /* the shares of those that did not start are closed unserved */
        for (int k = i; k < threads; k++) {
            for (int c = 0; c < l->threads[k].n_clients; c++) close(l->threads[k].clients[c].fd);
            close(l->threads[k].epoll);
        }
        struct echo_load_result ignored;
        echo_load_stop(l, 5.0, &ignored);
        return err;
    }
    *out = l;
    return 0;
}

const _Atomic(uint64_t) *echo_load_requests(const struct echo_load *l) { return &l->requests; }

void echo_load_stage(struct echo_load *l, int stage) {
    atomic_store_explicit(&l->stage, stage, memory_order_relaxed);
}

void echo_load_stop(struct echo_load *l, double patience, struct echo_load_result *out) {
    memset(out, 0, sizeof *out);
    l->give_up_ns = now_ns() + (uint64_t)(patience * 1e9);
    atomic_store_explicit(&l->stopping, 1, memory_order_release); /* publishes give_up_ns to gave_up */
    for (int i = 0; i < l->n_threads; i++) {
        struct load_thread *t = &l->threads[i];
        pthread_join(t->thread, NULL);
        out->connected += t->result.connected;
        out->requests += t->result.requests;
        out->sent += t->result.sent;
        out->received += t->result.received;
        out->wrong += t->result.wrong;
        out->unanswered += t->result.unanswered;
        for (int stage = 0; stage < ECHO_LOAD_STAGES; stage++)
            latency_merge(&out->latency[stage], &t->result.latency[stage]);
    }
    discard(l, 0); /* the threads closed their connections */
}
