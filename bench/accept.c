/* accept.c: how fast connections come and go.
 *
 * Plain threads connect to 127.0.0.1, read one byte and reset (so that no port waits), as fast as they can; the server
 * writes the byte and reads until the reset: one task for each connection.  `-`: heist_start_server with one listening
 * socket; `.reuseport`: with one for each worker; `.balance` of each: the largest part of the handlers that began on
 * one worker, times the workers (1 is even).  `.bare`: a loop over epoll in one thread that does the same by hand. */
#include "common.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { THREADS = 4, WORKERS_MAX = 64 };

struct load {
    struct sockaddr_in to;
    atomic_size_t left;
    int64_t ns;
};

/* ---- load ---- */

static void *connect_many(void *arg) {
    struct load *load = arg;
    const struct linger at_once = {1, 0};
    size_t left;
    while ((left = atomic_load(&load->left)) > 0) {
        if (!atomic_compare_exchange_weak(&load->left, &left, left - 1)) continue;
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        char byte;
        BENCH_CHECK(fd >= 0 && connect(fd, (struct sockaddr *)&load->to, sizeof load->to) == 0);
        BENCH_CHECK(recv(fd, &byte, 1, 0) == 1 && byte == 'x');
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
        close(fd);
    }
    return NULL;
}

static void *storm(void *arg) {
    struct load *load = arg;
    pthread_t threads[THREADS];
    int64_t start = bench_now_ns();
    for (int i = 0; i < THREADS; i++) BENCH_CHECK(pthread_create(&threads[i], NULL, connect_many, load) == 0);
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    load->ns = bench_now_ns() - start;
    return NULL;
}

static double rate(const struct load *load, size_t n) { return (double)n * 1e9 / (double)load->ns; }

/* ---- heist ---- */

struct world {
    const struct bench_args *args;
    unsigned flags;
    struct load load;
    heist_loop *loops[WORKERS_MAX];
    atomic_size_t began[WORKERS_MAX];
};

/* Counted where it begins: on the worker that accepted it, or on the one that stole it. */
static int greet(heist_stream *s, void *user) {
    struct world *w = user;
    heist_loop *loop;
    char byte;
    BENCH_MUST(heist_get_running_loop(&loop));
    for (int i = 0; i < w->args->workers && i < WORKERS_MAX; i++)
        if (w->loops[i] == loop) atomic_fetch_add_explicit(&w->began[i], 1, memory_order_relaxed);
    int err = heist_stream_write(s, "x", 1);
    if (err == 0) err = (int)heist_stream_read(s, &byte, 1);
    BENCH_CHECK(err == 0 || err == -ECONNRESET || err == -EPIPE);
    return 0;
}

static int run_storm(void *arg, void **out) {
    (void)out;
    storm(arg);
    return 0;
}

static int wait_storm(void *arg, void **out) {
    (void)out;
    return heist_to_thread(run_storm, arg, NULL);
}

static int serve_storm(void *arg, void **out) {
    struct world *w = arg;
    heist_server *server;
    heist_server_options options = HEIST_SERVER_OPTIONS_INIT;
    heist_server_stats stats = HEIST_SERVER_STATS_INIT;
    heist_loop *loop;
    heist_addr where;
    BENCH_MUST(heist_get_running_loop(&loop));
    for (int i = 0; i < w->args->workers && i < WORKERS_MAX; i++)
        w->loops[i] = heist_runtime_loop(heist_loop_runtime(loop), i);
    options.flags = w->flags;
    BENCH_MUST(heist_start_server(greet, w, "127.0.0.1", "0", &options, &server));
    BENCH_CHECK(heist_server_sockets(server, &where, 1) == 1);
    memcpy(&w->load.to, &where.storage, sizeof w->load.to);
    BENCH_MUST(wait_storm(&w->load, out));
    BENCH_MUST(heist_server_close(server));
    BENCH_MUST(heist_server_wait_closed(server));
    BENCH_MUST(heist_server_get_stats(server, &stats));
    BENCH_CHECK(stats.accepted == w->args->n);
    heist_server_unref(server);
    return 0;
}

static void measure(const struct bench_args *args, unsigned flags, struct world *w) {
    memset(w, 0, sizeof *w);
    w->args = args;
    w->flags = flags;
    atomic_store(&w->load.left, args->n);
    heist_runtime_options options = HEIST_RUNTIME_OPTIONS_INIT;
    options.workers = args->workers;
    BENCH_MUST(heist_run(serve_storm, w, &options, NULL));
}

/* ---- by hand ---- */

struct bare {
    int listener, epoll;
    size_t left;
};

static void bare_accept(struct bare *b) {
    int on = 1, fd;
    while ((fd = accept4(b->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | EPOLLET, .data = {.fd = fd}};
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        BENCH_CHECK(epoll_ctl(b->epoll, EPOLL_CTL_ADD, fd, &event) == 0);
        (void)!send(fd, "x", 1, MSG_NOSIGNAL);
    }
}

static void *bare_serve(void *arg) {
    struct bare *b = arg;
    struct epoll_event events[256];
    while (b->left) {
        int n = epoll_wait(b->epoll, events, 256, -1);
        for (int i = 0; i < n; i++) {
            char byte;
            int fd = events[i].data.fd;
            if (fd == b->listener) {
                bare_accept(b);
            } else if (recv(fd, &byte, 1, 0) <= 0) {
                close(fd);
                b->left--;
            }
        }
    }
    return NULL;
}

static void measure_bare(const struct bench_args *args, struct load *load) {
    struct bare b = {.left = args->n};
    struct epoll_event event = {.events = EPOLLIN};
    socklen_t length = sizeof load->to;
    pthread_t thread;
    atomic_store(&load->left, args->n);
    load->to = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    b.listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    b.epoll = epoll_create1(EPOLL_CLOEXEC);
    BENCH_CHECK(b.listener >= 0 && b.epoll >= 0);
    BENCH_CHECK(bind(b.listener, (struct sockaddr *)&load->to, length) == 0 && listen(b.listener, 4096) == 0);
    BENCH_CHECK(getsockname(b.listener, (struct sockaddr *)&load->to, &length) == 0);
    event.data.fd = b.listener;
    BENCH_CHECK(epoll_ctl(b.epoll, EPOLL_CTL_ADD, b.listener, &event) == 0);
    BENCH_CHECK(pthread_create(&thread, NULL, bare_serve, &b) == 0);
    storm(load);
    pthread_join(thread, NULL);
    close(b.listener);
    close(b.epoll);
}

/* The largest part of the handlers that began on one worker, times the workers. */
static double balance(const struct world *w) {
    size_t most = 0;
    for (int i = 0; i < w->args->workers && i < WORKERS_MAX; i++)
        if (atomic_load(&w->began[i]) > most) most = atomic_load(&w->began[i]);
    return (double)most * w->args->workers / (double)w->args->n;
}

void bench_accept(const struct bench_args *args) {
    static struct world w;
    static struct load bare;
    measure_bare(args, &bare);
    bench_emit("bare", args->n, rate(&bare, args->n), "connections/s");
    measure(args, 0, &w);
    bench_emit("-", args->n, rate(&w.load, args->n), "connections/s");
    bench_emit("balance", args->n, balance(&w), "times even");
    measure(args, HEIST_SERVER_REUSEPORT, &w);
    bench_emit("reuseport", args->n, rate(&w.load, args->n), "connections/s");
    bench_emit("reuseport.balance", args->n, balance(&w), "times even");
}
