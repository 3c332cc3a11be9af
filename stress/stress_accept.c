/* stress/stress_accept.c: storms of connections against servers that come, go and run out of descriptors.
 *
 * Law: each connection is served or refused.  Who waits for an answer gets his own, or hears that the connection was
 * refused or reset, and is never left without; where nobody closes, cuts or lets run out, he is served.  What was
 * accepted has a handler that ran once and ended; with max_connections never more of them at once.  A server that has
 * ended has no connection, and the descriptors are what they were.
 * TCP and Unix sockets, one listening socket or one for each worker, descriptors down to a few (RLIMIT_NOFILE), limits
 * on connections, servers closed, drained and started again on their address, connections cut, clients that reset,
 * leave early and come in crowds. Threads: a runtime for the servers; clients are plain threads with plain system
 * calls, the witness from outside. */
#include "common.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define CLIENTS 32
#define MASK UINT64_C(0x5bd1e995a5a5f00f)

enum manner { FULL, PATIENT, RESET, NO_ANSWER, HALF, MANNERS };

struct client {
    pthread_t thread;
    struct stress_rng rng;
    int slot, visits;
};

static struct client clients[CLIENTS];
static int client_count;
static heist_runtime *rt;
static heist_server *server; /* the main thread's */
static heist_server_options options;
static char unix_path[100];
static bool is_unix, calm;
static size_t limit;
static pthread_mutex_t where_lock = PTHREAD_MUTEX_INITIALIZER;
static heist_addr where;

static _Atomic(int64_t) inside, most;
static _Atomic(uint64_t) began, ended, accepted, served, refused, left_early, starved, restarts, cut, shortages, pauses;
static uint64_t round_served, round_accepted, round_began;
static _Atomic(int) busy_clients;

/* ---- server ---- */

static int handle(heist_stream *s, void *user) {
    (void)user;
    uint64_t token = 0;
    size_t got = 0;
    int64_t now = s_add(&inside, 1) + 1, high = s_get(&most);
    while (now > high && !atomic_compare_exchange_weak(&most, &high, now)) {
    }
    s_add(&began, 1);
    int err = heist_stream_readexactly(s, &token, sizeof token, &got);
    if (err == 0) {
        struct stress_rng r = {token};
        if (stress_chance(&r, 40)) err = heist_sleep((double)stress_below(&r, 2000) * 1e-6);
        uint64_t answer = token ^ MASK;
        if (err == 0) err = heist_stream_write(s, &answer, sizeof answer);
        if (err == 0 && stress_chance(&r, 30)) err = heist_stream_drain(s);
        if (err == 0 && stress_chance(&r, 20)) {
            char more;
            ptrdiff_t n = heist_stream_read(s, &more, 1); /* until the client leaves */
            err = n < 0 ? (int)n : 0;
        }
    }
    bool asked = err == -ECANCELED || err == HEIST_ECLOSED;
    stress_check(!asked || !calm, "a handler met %s, and nobody asked", heist_error_name(err));
    stress_check(err == 0 || asked || err == HEIST_EINCOMPLETE || err == -ECONNRESET || err == -EPIPE,
                 "a handler met %s", heist_error_name(err));
    stress_progress(1);
    s_add(&inside, -1);
    s_add(&ended, 1);
    return asked ? err : 0;
}

static int start_server(void *arg, void **out) {
    heist_addr at = *(heist_addr *)arg;
    heist_server *made = NULL;
    int err;
    for (int tries = 0;; tries++) {
        err = is_unix ? heist_start_unix_server(handle, NULL, unix_path, &options, &made)
                      : heist_start_server_at(handle, NULL, &at, 1, &options, &made);
        if (err == -EADDRINUSE && !is_unix)
            ((struct sockaddr_in *)(void *)&at.storage)->sin_port = 0; /* a client has it */
        else if (err != -EMFILE) break;
        if (heist_sleep(0.001) < 0) return -ECANCELED;
    }
    if (err < 0) return err;
    heist_addr got;
    if (heist_server_sockets(made, &got, 1) != 1) return -EPROTO;
    pthread_mutex_lock(&where_lock);
    where = got;
    pthread_mutex_unlock(&where_lock);
    *out = made;
    return 0;
}

static void open_server(heist_addr at) {
    heist_task *t = NULL;
    void *made = NULL;
    int err = heist_runtime_run_coroutine(rt, start_server, &at, NULL, &t);
    if (err == 0) err = heist_await(t, &made);
    if (err < 0) stress_die("a server: %s", heist_strerror(err));
    server = made;
    heist_unref(t);
}

/* Ends it in one of the ways that there are, and sees that nothing is left of it. */
static void end_server(struct stress_rng *r, bool wait_clients) {
    int way = wait_clients ? 0 : (int)stress_below(r, 4);
    double patience = (double)stress_below(r, 20000) * 1e-6;
    stress_wait_begin(0, "the end of a server", 0);
    if (way >= 2) {
        int n = heist_server_drain(server, way == 2 ? 0 : heist_time() + patience);
        stress_check(n >= 0, "drain: %s", heist_error_name(n));
        s_add(&cut, (uint64_t)(n > 0 ? n : 0));
    } else {
        stress_check(heist_server_close(server) == 0, "close failed");
        if (way == 1) s_add(&cut, (uint64_t)heist_server_abort_clients(server));
    }
    int err = heist_server_wait_closed(server);
    stress_wait_end(0);
    stress_check(err == 0, "wait_closed: %s", heist_error_name(err));
    heist_server_stats stats = HEIST_SERVER_STATS_INIT;
    err = heist_server_get_stats(server, &stats);
    stress_check(err == 0 && stats.connections == 0 && stats.sockets == 0, "%zu connections and %zu sockets are left",
                 stats.connections, stats.sockets);
    stress_check(heist_server_sockets(server, NULL, 0) == 0 && heist_server_is_serving(server) == 0,
                 "it seems to serve");
    s_add(&accepted, stats.accepted);
    s_add(&shortages, stats.shortages);
    s_add(&pauses, stats.pauses);
    heist_server_unref(server);
    server = NULL;
}

static void tell(FILE *to) {
    heist_server_stats stats = HEIST_SERVER_STATS_INIT;
    if (!server || heist_server_get_stats(server, &stats)) return;
    fprintf(to,
            "  server: %zu sockets, %zu connections, %" PRIu64 " accepted, %" PRIu64 " shortages, %" PRIu64 " pauses\n",
            stats.sockets, stats.connections, stats.accepted, stats.shortages, stats.pauses);
}

/* ---- clients ---- */

/* Clients that wait for answers with all descriptors in hand would wait for ever: half of what is free is for them. */
static _Atomic(int64_t) held, quota;

/* A connect to a port where nobody listens may meet itself. */
static bool is_own(int fd) {
    struct sockaddr_in a, b;
    socklen_t n = sizeof a, m = sizeof b;
    return !is_unix && getsockname(fd, (struct sockaddr *)&a, &n) == 0 &&
           getpeername(fd, (struct sockaddr *)&b, &m) == 0 && a.sin_port == b.sin_port;
}

static int open_client(struct stress_rng *r) {
    for (;; stress_pause(r, 0.002)) {
        int64_t most_held = s_get(&quota);
        if (s_add(&held, 1) >= most_held && most_held) {
            s_add(&held, -1);
            continue;
        }
        int fd = socket(is_unix ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd >= 0) return fd;
        if (errno != EMFILE) stress_die("socket: %s", strerror(errno));
        s_add(&held, -1);
        s_add(&starved, 1);
    }
}

/* Served: 1; refused: 0. */
static int want_answer(int fd, uint64_t token) {
    uint64_t answer = 0;
    if (send(fd, &token, sizeof token, MSG_NOSIGNAL) != (ssize_t)sizeof token) return 0;
    for (size_t got = 0; got < sizeof answer;) {
        ssize_t n = recv(fd, (char *)&answer + got, sizeof answer - got, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) stress_check(errno == ECONNRESET || errno == EPIPE, "a client met %s", strerror(errno));
        if (n <= 0) {
            stress_check(!got, "half an answer");
            return 0;
        }
        got += (size_t)n;
    }
    stress_check(answer == (token ^ MASK), "the answer is another's");
    return 1;
}

static void reset_at_close(int fd) {
    struct linger now = {1, 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
}

static void visit(struct client *c) {
    enum manner manner = stress_chance(&c->rng, 60) ? FULL : (enum manner)stress_below(&c->rng, MANNERS);
    uint64_t token = stress_next(&c->rng);
    int fd = open_client(&c->rng);
    heist_addr to;
    pthread_mutex_lock(&where_lock);
    to = where;
    pthread_mutex_unlock(&where_lock);
    stress_wait_begin(c->slot, "an answer", 2); /* a pause for want of descriptors is part of the bargain */
    int err = connect(fd, (struct sockaddr *)&to.storage, to.length) ? errno : 0;
    if (err || is_own(fd)) {
        stress_check(!err || err == ECONNREFUSED || err == ECONNRESET || (is_unix && err == ENOENT), "connect: %s",
                     strerror(err));
        stress_check(!calm, "a connection was refused while the server served");
        s_add(&refused, 1);
    } else if (manner == RESET) {
        reset_at_close(fd);
        s_add(&left_early, 1);
    } else if (manner == NO_ANSWER || manner == HALF) {
        if (manner == HALF && stress_chance(&c->rng, 50)) reset_at_close(fd);
        (void)!send(fd, &token, manner == HALF ? 3 : sizeof token, MSG_NOSIGNAL);
        s_add(&left_early, 1);
    } else {
        if (manner == PATIENT) stress_pause(&c->rng, 0.005);
        int yes = want_answer(fd, token);
        stress_check(yes || !calm, "a connection was not served, and nothing was in its way");
        s_add(yes ? &served : &refused, 1);
    }
    stress_wait_end(c->slot);
    close(fd);
    s_add(&held, -1);
    stress_progress(1);
}

static void *come(void *arg) {
    struct client *c = arg;
    for (int i = 0; i < c->visits; i++) {
        visit(c);
        if (stress_chance(&c->rng, 10)) stress_pause(&c->rng, 0.003);
    }
    s_add(&busy_clients, -1);
    return NULL;
}

/* ---- a round ---- */

static rlim_t lower_limit(struct stress_rng *r) {
    struct rlimit l;
    getrlimit(RLIMIT_NOFILE, &l);
    rlim_t before = l.rlim_cur;
    rlim_t spare = 2 + (rlim_t)stress_below(r, 24);
    l.rlim_cur = (rlim_t)stress_held().descriptors + spare;
    s_set(&quota, (int64_t)spare / 2);
    if (setrlimit(RLIMIT_NOFILE, &l)) stress_die("setrlimit: %s", strerror(errno));
    return before;
}

static void raise_limit(rlim_t to) {
    s_set(&quota, 0);
    struct rlimit l;
    getrlimit(RLIMIT_NOFILE, &l);
    l.rlim_cur = to;
    if (setrlimit(RLIMIT_NOFILE, &l)) stress_die("setrlimit: %s", strerror(errno));
}

static void draw(struct stress_rng *r, int workers, bool scarce) {
    is_unix = stress_chance(r, 25);
    calm = stress_chance(r, 40);
    limit = stress_chance(r, 40) ? (size_t)stress_between(r, 1, 12) : 0;
    options = (heist_server_options)HEIST_SERVER_OPTIONS_INIT;
    options.max_connections = limit;
    if (stress_chance(r, 50)) options.flags |= HEIST_SERVER_REUSEPORT;
    if (stress_chance(r, 25)) options.flags |= HEIST_SERVER_PINNED;
    client_count = (int)stress_between(r, 1, CLIENTS);
    int visits = (int)stress_scale(stress_between(r, 5, 300));
    if (scarce && visits > 60) visits = 60;
    for (int i = 0; i < client_count; i++) {
        clients[i].rng = stress_stream(r, (uint64_t)i);
        clients[i].slot = 1 + i;
        clients[i].visits = visits;
    }
    s_set(&busy_clients, client_count);
    s_set(&most, 0);
    stress_settings("%s%s%s%s, %d workers, %d clients of %d visits, at most %zu", is_unix ? "unix" : "tcp",
                    options.flags & HEIST_SERVER_REUSEPORT ? ", a socket for each worker" : "", calm ? ", calm" : "",
                    scarce ? ", few descriptors" : "", workers, client_count, visits, limit);
}

static void disturb(struct stress_rng *r) {
    while (s_get(&busy_clients) > 0) {
        stress_pause(r, 0.01);
        switch (stress_below(r, 4)) {
            case 0: s_add(&cut, (uint64_t)heist_server_abort_clients(server)); break;
            case 1: s_add(&cut, (uint64_t)heist_server_close_clients(server)); break;
            case 2: {
                heist_addr at = where; /* only this thread writes it, by the tasks that it awaits */
                end_server(r, false);
                stress_pause(r, 0.002);
                open_server(at);
                s_add(&restarts, 1);
                break;
            }
            default: break;
        }
    }
}

/* An address of this process alone: else another one's server may get the port of ours between a close and the next
 * start, or share it, and serve our clients. */
static const char *address_of_ours(void) {
    static char text[32];
    unsigned id = (unsigned)getpid();
    snprintf(text, sizeof text, "127.%u.%u.%u:0", 1 + (id >> 16 & 63), id >> 8 & 255, id & 255);
    return text;
}

static void play(struct stress_rng *r) {
    int workers = stress_draw_workers(r);
    bool scarce = stress_chance(r, 25);
    draw(r, workers, scarce);
    stress_phase("start");
    rt = stress_runtime("servers", workers, NULL);
    heist_addr at;
    if (heist_addr_parse(address_of_ours(), &at)) stress_die("no loopback");
    round_served = s_get(&served);
    round_accepted = s_get(&accepted);
    round_began = s_get(&began);
    open_server(at);
    rlim_t before = scarce ? lower_limit(r) : 0;
    for (int i = 0; i < client_count; i++) stress_thread(&clients[i].thread, come, &clients[i]);
    stress_phase("storm");
    if (!calm) disturb(r);
    for (int i = 0; i < client_count; i++) stress_join(clients[i].thread);
    stress_phase("end");
    end_server(r, calm);
    if (before) raise_limit(before);
    stress_runtime_end(rt);
    stress_check(s_get(&began) == s_get(&ended), "%" PRIu64 " handlers began, %" PRIu64 " ended", s_get(&began),
                 s_get(&ended));
    uint64_t came = s_get(&accepted) - round_accepted, ran = s_get(&began) - round_began;
    stress_check(ran <= came, "%" PRIu64 " handlers ran for %" PRIu64 " connections", ran, came);
    stress_check(!calm || ran == came, "%" PRIu64 " of %" PRIu64 " connections had a handler", ran, came);
    stress_check(ran >= s_get(&served) - round_served, "more were served than handlers ran");
    stress_check(!limit || s_get(&most) <= (int64_t)limit, "%" PRId64 " at once, with a limit of %zu", s_get(&most),
                 limit);
}

int main(int argc, char **argv) {
    stress_begin(argc, argv, "accept", "each connection is served or refused, none is lost, and descriptors come back");
    snprintf(unix_path, sizeof unix_path, "/tmp/heist_accept_%d", (int)getpid());
    stress_on_stall(tell);
    struct stress_rng r;
    while (stress_next_round(&r)) play(&r);
    unlink(unix_path);
    stress_note("%" PRIu64 " accepted, %" PRIu64 " served, %" PRIu64 " refused, %" PRIu64 " left early, %" PRIu64
                " cut off",
                s_get(&accepted), s_get(&served), s_get(&refused), s_get(&left_early), s_get(&cut));
    stress_note("%" PRIu64 " restarts, %" PRIu64 " shortages, %" PRIu64 " pauses at the limit, %" PRIu64
                " times a client found no descriptor",
                s_get(&restarts), s_get(&shortages), s_get(&pauses), s_get(&starved));
    return stress_end();
}
