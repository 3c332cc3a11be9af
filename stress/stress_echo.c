/* stress/stress_echo.c: an echo server under everything that happens to sockets.
 *
 * Law: every byte that comes back is the byte that was sent at its place; a connection
 * that is ended in order brings all of them back; a read that timed out or was cancelled
 * took nothing, a write says how much is gone; what the server read on connections that
 * ended in order, it wrote; every descriptor is closed.
 * Over TCP (IPv4, IPv6) and Unix sockets, one listener or one for each worker, with
 * half-closes, aborts, deadlines, cancels, and servers that close in the middle.
 * Threads: workers of the server's and the clients' runtime; some clients are plain
 * threads with plain system calls, so that the library is not its own only witness.
 * Invariant: a link is used by its reader and its writer, one of each at a time, and
 * closed by its owner after both have ended. */
#include "common.h"

#include <errno.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define LINKS 256
#define DOORS 4
#define WORKERS 64
#define BUFFER 65536

enum manner { FULL, TURNS, ABORT, PLAIN, MANNERS };

struct link {
    uint64_t id;
    int slot; /* of the watchdog: the reader's; the writer's is the next */
    enum manner manner;
    heist_addr to;
    struct stress_rng rng, read_rng, write_rng;
    heist_conn *conn;
    uint64_t total; /* bytes to send */
    uint64_t stop;  /* ABORT: the reader leaves after so many */
    uint64_t sent, got;
    bool half_closed, at_end;
    int cancels;
    heist_task *task;
    pthread_t thread;
};

struct door {
    heist_addr addr;
    int listeners;
    heist_listener *listener[WORKERS];
    heist_task *acceptor[WORKERS];
};

static struct link links[LINKS];
static int link_count;
static struct door doors[DOORS];
static int door_count;
static heist_runtime *server, *clients;
static char unix_path[108];
static bool each_worker, hasty;  /* hasty: short deadlines everywhere */
static bool listeners_first;     /* closed under their acceptors, who then know no deadline: between two calls
                                  * an acceptor must not find its listener gone */
static _Atomic(bool) closing;
static _Atomic(int64_t) handlers;
static _Atomic(uint64_t) undercuts, undercut_bytes;
static _Atomic(uint64_t) bytes_echoed, in_order, aborted, accepted, timeouts, cancels;

static uint8_t byte_at(uint64_t id, uint64_t place) {
    return (uint8_t)((id * 131 + place * 0x9e3779b1u) >> 9 ^ place >> 16);
}

static double some_deadline(struct stress_rng *r) {
    if (!stress_chance(r, hasty ? 70 : 10)) return HEIST_FOREVER;
    return heist_time() + (double)stress_below(r, 4000) * 1e-6;
}

/* ---- server ---- */

static void drop_conn(void *arg) { /* the destructor of a handler's argument, whether the handler ran or not */
    heist_conn_close(arg);
    s_add(&handlers, -1);
}

/* Writes all of it whatever the deadlines; what was counted as written must be gone, and no more. */
static int write_all(heist_conn *c, const uint8_t *p, size_t n, struct stress_rng *r, int slot) {
    while (n) {
        size_t gone = 0;
        double deadline = some_deadline(r);
        stress_wait_begin(slot, "write", 0);
        int err = heist_conn_write(c, p, n, deadline, &gone);
        stress_wait_end(slot);
        stress_check(gone <= n && (err < 0 || gone == n), "a write of %zu bytes answered %s after %zu", n,
                     heist_error_name(err), gone);
        p += gone;
        n -= gone;
        if (err == -ETIMEDOUT) s_add(&timeouts, 1);
        else if (err < 0) return err;
    }
    return 0;
}

static int serve_connection(void *arg, void **out) {
    (void)out;
    heist_conn *c = arg;
    struct stress_rng r = {stress_mix((uint64_t)(uintptr_t)c, (uint64_t)heist_conn_fd(c))};
    size_t room = (size_t)stress_between(&r, 1, BUFFER);
    uint8_t *buf = stress_alloc(room);
    uint64_t in = 0, back = 0;
    int end = 0;
    for (;;) {
        double deadline = some_deadline(&r);
        ptrdiff_t n = heist_conn_read(c, buf, room, deadline);
        if (n == -ETIMEDOUT) {
            stress_check(heist_time() >= deadline - 1e-8, "a read timed out early");
            s_add(&timeouts, 1);
            continue;
        }
        if (n <= 0) {
            end = (int)n;
            break;
        }
        stress_check((size_t)n <= room, "a read of %zu bytes gave %td", room, n);
        in += (uint64_t)n;
        end = write_all(c, buf, (size_t)n, &r, -1);
        if (end < 0) break;
        back += (uint64_t)n;
        s_add(&bytes_echoed, (uint64_t)n);
        stress_progress(1);
    }
    free(buf);
    if (end == 0) stress_check(in == back, "a handler read %" PRIu64 " and wrote %" PRIu64 " bytes", in, back);
    else
        stress_check(end == -ECONNRESET || end == -EPIPE ||
                         ((end == -ECANCELED || end == HEIST_ECLOSED) && s_get(&closing)),
                     "a handler met %s", heist_error_name(end));
    return 0; /* the destructor closes */
}

static int accept_all(void *arg, void **out) {
    (void)out;
    heist_listener *l = arg;
    struct stress_rng r = {stress_mix((uint64_t)(uintptr_t)l, 3)};
    for (;;) {
        heist_conn *c = NULL;
        double deadline = listeners_first ? HEIST_FOREVER : some_deadline(&r);
        int err = heist_accept(l, deadline, &c);
        if (err == -ETIMEDOUT) continue;
        if (err == -EMFILE || err == -ENFILE) err = heist_sleep(0.001);
        if (err < 0) return err;
        if (!c) continue;
        s_add(&accepted, 1);
        s_add(&handlers, 1);
        heist_task_options o = HEIST_TASK_OPTIONS_INIT;
        o.arg_free = drop_conn;
        o.flags = stress_chance(&r, 20) ? HEIST_TASK_PINNED : 0;
        err = heist_create_task(serve_connection, c, &o, NULL);
        if (err < 0) drop_conn(c);
        stress_check(err == 0 || (err == HEIST_ECLOSED && s_get(&closing)), "a handler's task: %s",
                     heist_error_name(err));
    }
}

static int listen_one(struct door *d, int index) {
    heist_listen_options o = HEIST_LISTEN_OPTIONS_INIT;
    bool tcp = d->addr.storage.ss_family != AF_UNIX;
    if (tcp && each_worker) o.flags = HEIST_LISTEN_REUSEPORT;
    int err = heist_listen(&d->addr, &o, &d->listener[index]);
    if (err < 0) return err;
    if (index == 0) err = heist_listener_addr(d->listener[0], &d->addr); /* the port that was chosen */
    d->listeners = index + 1;
    heist_task_options t = HEIST_TASK_OPTIONS_INIT;
    t.flags = each_worker ? HEIST_TASK_PINNED : 0;
    t.name = "acceptor";
    if (err == 0) err = heist_create_task(accept_all, d->listener[index], &t, &d->acceptor[index]);
    return err;
}

/* On worker `index`: every door's listener of this worker, or the only one. */
static int open_doors(void *arg, void **out) {
    (void)out;
    int index = (int)(intptr_t)arg;
    for (int i = 0; i < door_count; i++) {
        bool tcp = doors[i].addr.storage.ss_family != AF_UNIX;
        if (index > 0 && !tcp) continue;
        int err = listen_one(&doors[i], index);
        if ((err == -EADDRNOTAVAIL || err == -EAFNOSUPPORT) && index == 0) { /* a machine without IPv6 */
            doors[i--] = doors[--door_count];
            continue;
        }
        if (err < 0) return heist_fail(err, "listening at door %d", i);
    }
    return 0;
}

static void on_worker(int w, heist_coro_fn fn) {
    heist_task *t = NULL;
    heist_task_options o = HEIST_TASK_OPTIONS_INIT;
    o.flags = HEIST_TASK_PINNED;
    heist_loop *loop = heist_runtime_loop(server, w);
    int err = heist_run_coroutine_threadsafe(loop, fn, (void *)(intptr_t)w, &o, &t);
    if (err == 0) err = heist_await(t, NULL);
    if (err < 0) stress_die("listeners on worker %d: %s", w, heist_strerror(err));
    heist_unref(t);
}

static void open_server(struct stress_rng *rng) {
    static const char *const at[] = {"127.0.0.1:0", "[::1]:0", NULL, NULL};
    char text[DOORS][128];
    snprintf(text[2], sizeof text[2], "unix:@heist-stress-%d-%ld", (int)getpid(), stress_round());
    snprintf(unix_path, sizeof unix_path, "%s/heist-stress-%d-%ld", P_tmpdir, (int)getpid(), stress_round());
    snprintf(text[3], sizeof text[3], "unix:%s", unix_path);
    unlink(unix_path);
    memset(doors, 0, sizeof doors);
    door_count = DOORS;
    for (int i = 0; i < DOORS; i++) {
        int err = heist_addr_parse(at[i] ? at[i] : text[i], &doors[i].addr);
        if (err < 0) stress_die("the address %s: %s", at[i] ? at[i] : text[i], heist_strerror(err));
    }
    int workers = heist_runtime_workers(server);
    each_worker = stress_chance(rng, 50);
    listeners_first = each_worker && stress_chance(rng, 50);
    for (int w = 0; w < (each_worker ? workers : 1) && w < WORKERS; w++) on_worker(w, open_doors);
}

/* ---- clients ---- */

static void check_bytes(struct link *l, const uint8_t *p, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint8_t want = byte_at(l->id, l->got + i);
        if (p[i] == want) continue;
        stress_fail("link %" PRIu64 ": byte %" PRIu64 " came back as %u instead of %u (sent so far %" PRIu64 ")", l->id,
                    l->got + i, p[i], want, l->sent);
        break;
    }
    l->got += n;
    stress_check(l->got <= l->total, "link %" PRIu64 ": more came back than was sent", l->id);
    stress_progress(1);
}

static size_t fill(struct link *l, uint8_t *p, size_t most) {
    size_t n = l->total - l->sent < most ? (size_t)(l->total - l->sent) : most;
    for (size_t i = 0; i < n; i++) p[i] = byte_at(l->id, l->sent + i);
    return n;
}

/* Reads until the end, or ABORT's place.  May be cancelled and begun again: l->got says where. */
static int reader(void *arg, void **out) {
    (void)out;
    struct link *l = arg;
    size_t room = (size_t)stress_between(&l->read_rng, 1, BUFFER);
    uint8_t *buf = stress_alloc(room);
    int err = 0;
    while (l->got < l->stop) {
        double deadline = some_deadline(&l->read_rng);
        stress_wait_begin(l->slot, "read of an echo", 0);
        ptrdiff_t n = heist_conn_read(l->conn, buf, room, deadline);
        stress_wait_end(l->slot);
        if (n == -ETIMEDOUT) {
            s_add(&timeouts, 1);
            continue;
        }
        if (n <= 0) {
            l->at_end = n == 0;
            err = (int)n;
            break;
        }
        check_bytes(l, buf, (size_t)n);
    }
    free(buf);
    return err;
}

/* Writes what is left, then ends our side.  May be cancelled and begun again: l->sent says where. */
static int writer(void *arg, void **out) {
    (void)out;
    struct link *l = arg;
    uint8_t *buf = stress_alloc(BUFFER);
    int err = 0;
    while (l->sent < l->total && err == 0) {
        size_t n = fill(l, buf, (size_t)stress_between(&l->write_rng, 1, BUFFER)), gone = 0;
        double deadline = some_deadline(&l->write_rng);
        stress_wait_begin(l->slot + 1, "write", 0);
        err = heist_conn_write(l->conn, buf, n, deadline, &gone);
        stress_wait_end(l->slot + 1);
        stress_check(gone <= n && (err < 0 || gone == n), "a write of %zu bytes answered %s after %zu", n,
                     heist_error_name(err), gone);
        l->sent += gone;
        if (err == -ETIMEDOUT) {
            s_add(&timeouts, 1);
            err = 0;
        }
        if (stress_chance(&l->write_rng, 5) && err == 0)
            err = heist_sleep((double)stress_below(&l->write_rng, 2000) * 1e-6);
    }
    free(buf);
    if (err == 0 && !l->half_closed) {
        l->half_closed = true;
        err = heist_conn_shutdown(l->conn);
    }
    return err;
}

static int join(heist_task *t) {
    while (!heist_future_done(t)) heist_await(t, NULL);
    int err = heist_future_result(t, NULL);
    heist_unref(t);
    return err;
}

/* Reader and writer side by side; now and then one of them is cancelled and another takes its place. */
static int both_ways(struct link *l) {
    heist_task *t[2] = {NULL, NULL};
    static const heist_coro_fn way[2] = {reader, writer};
    int answer = 0;
    for (int i = 0; i < 2 && answer == 0; i++) answer = heist_create_task(way[i], l, NULL, &t[i]);
    for (int k = 0; k < l->cancels && answer == 0; k++) {
        answer = heist_sleep((double)stress_below(&l->rng, 3000) * 1e-6);
        if (answer < 0) break;
        int i = (int)stress_below(&l->rng, 2);
        if (!t[i]) continue; /* it has read the end */
        heist_cancel(t[i]);
        int err = join(t[i]);
        t[i] = NULL;
        if (err == -ECANCELED) {
            s_add(&cancels, 1);
        } else if (err < 0) {
            answer = err;
            break;
        }
        /* ended or cancelled: one more that finds what is left to do, perhaps nothing */
        if (i == 0 && l->at_end) continue; /* (only then: the reader may be at it) */
        answer = heist_create_task(way[i], l, NULL, &t[i]);
    }
    for (int i = 1; i >= 0; i--) { /* ABORT: the reader leaves first, the writer is told to */
        int k = l->manner == ABORT ? 1 - i : i;
        if (!t[k]) continue;
        if (l->manner == ABORT && k == 1) heist_cancel(t[k]);
        int err = join(t[k]);
        if (err < 0 && answer == 0 && !(l->manner == ABORT)) answer = err;
    }
    return answer;
}

/* One message there, the same back, and so on, by one task. */
static int by_turns(struct link *l) {
    uint8_t *buf = stress_alloc(BUFFER);
    int err = 0;
    while (l->got < l->total && err == 0) {
        size_t n = fill(l, buf, (size_t)stress_between(&l->rng, 1, BUFFER));
        double before = stress_now();
        err = write_all(l->conn, buf, n, &l->rng, l->slot);
        if (err < 0) break;
        l->sent += n;
        while (l->got < l->sent) {
            double deadline = some_deadline(&l->rng);
            stress_wait_begin(l->slot, "read of an echo", 0);
            ptrdiff_t got = heist_conn_read(l->conn, buf, (size_t)(l->sent - l->got), deadline);
            stress_wait_end(l->slot);
            if (got == -ETIMEDOUT) {
                s_add(&timeouts, 1);
                continue;
            }
            if (got <= 0) {
                err = got ? (int)got : -ECONNRESET;
                break;
            }
            check_bytes(l, buf, (size_t)got);
        }
        stress_latency(stress_now() - before);
    }
    free(buf);
    l->at_end = err == 0;
    return err;
}

static void judge(struct link *l, int err) {
    if (l->manner == ABORT || (s_get(&closing) && (err < 0 || l->got < l->total))) {
        s_add(&aborted, 1);
        return;
    }
    stress_check(err == 0, "link %" PRIu64 " (manner %d) met %s after %" PRIu64 " of %" PRIu64 " bytes", l->id,
                 l->manner, heist_error_name(err), l->got, l->total);
    stress_check(l->got == l->total && l->sent == l->total,
                 "link %" PRIu64 " (manner %d): %" PRIu64 " bytes to send, %" PRIu64 " sent, %" PRIu64 " came back",
                 l->id, l->manner, l->total, l->sent, l->got);
    s_add(&in_order, 1);
}

static int link_body(void *arg, void **out) {
    (void)out;
    struct link *l = arg;
    stress_wait_begin(l->slot, "connect", 0);
    int err = heist_connect(&l->to, HEIST_FOREVER, &l->conn);
    stress_wait_end(l->slot);
    if (err == 0) err = l->manner == TURNS ? by_turns(l) : both_ways(l);
    if (l->manner == ABORT && l->conn && stress_chance(&l->rng, 50)) { /* with a reset */
        struct linger now = {1, 0};
        setsockopt(heist_conn_fd(l->conn), SOL_SOCKET, SO_LINGER, &now, sizeof now);
    }
    judge(l, err);
    heist_conn_close(l->conn);
    return 0;
}

/* The same with plain blocking calls and poll, as a witness from outside. */
static void *plain_link(void *arg) {
    struct link *l = arg;
    int fd = socket(l->to.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0), err = 0;
    if (fd < 0) stress_die("a socket: %s", strerror(errno));
    uint8_t *out = stress_alloc(BUFFER), *in = stress_alloc(BUFFER);
    if (connect(fd, (const struct sockaddr *)&l->to.storage, l->to.length) < 0) err = -errno;
    while (err == 0 && !l->at_end) {
        if (l->sent == l->total && !l->half_closed) {
            l->half_closed = true;
            shutdown(fd, SHUT_WR);
        }
        struct pollfd p = {fd, (short)(POLLIN | (l->sent < l->total ? POLLOUT : 0)), 0};
        stress_wait_begin(l->slot, "a plain client's poll", 0);
        int ready = poll(&p, 1, -1);
        stress_wait_end(l->slot);
        if (ready < 0 && errno == EINTR) continue;
        if (p.revents & POLLOUT) {
            size_t n = fill(l, out, (size_t)stress_between(&l->rng, 1, BUFFER));
            ssize_t k = send(fd, out, n, MSG_DONTWAIT | MSG_NOSIGNAL);
            if (k > 0) l->sent += (uint64_t)k;
            else if (k < 0 && errno != EAGAIN) err = -errno;
        }
        if (p.revents & (POLLIN | POLLHUP | POLLERR)) {
            ssize_t k = recv(fd, in, (size_t)stress_between(&l->rng, 1, BUFFER), MSG_DONTWAIT);
            if (k > 0) check_bytes(l, in, (size_t)k);
            else if (k == 0) l->at_end = true;
            else if (errno != EAGAIN) err = -errno;
        }
    }
    judge(l, err);
    free(out);
    free(in);
    close(fd);
    return NULL;
}

/* ---- closing under a call in progress ---- */

/* A reader and its closer, both pinned to one loop: what the closer finds `reading` is suspended inside the call,
 * perhaps woken by bytes that just came.  The call must then end with the bytes, the end of the stream, or
 * HEIST_ECLOSED, and touch nothing that has gone. */
struct undercut {
    heist_conn *conn;
    int peer;
    bool reading, closed;
    struct stress_rng rng;
};

static int undercut_reader(void *arg, void **out) {
    (void)out;
    struct undercut *u = arg;
    uint8_t buf[16];
    for (;;) {
        u->reading = true;
        ptrdiff_t n = heist_conn_read(u->conn, buf, sizeof buf, HEIST_FOREVER);
        u->reading = false;
        if (u->closed) {
            stress_check(n >= 0 || n == HEIST_ECLOSED || (n == -ECANCELED && s_get(&closing)),
                         "a read under which the connection was closed answered %s", heist_error_name((int)n));
            return 0;
        }
        if (n == -ECANCELED || n == HEIST_ECLOSED) return (int)n; /* the runtime closes */
        stress_check(n > 0, "a read answered %s", heist_error_name((int)n));
        if (n <= 0) return (int)n;
        s_add(&undercut_bytes, (uint64_t)n);
    }
}

static int undercut_body(void *arg, void **out) {
    (void)out;
    int err = 0;
    struct stress_rng rng = {stress_mix((uint64_t)(uintptr_t)arg, 11)};
    for (int i = 0; i < 200 && err == 0 && !s_get(&closing); i++) {
        int pair[2];
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
            stress_die("a socket pair: %s", strerror(errno));
        struct undercut *u = stress_alloc(sizeof *u);
        u->rng = stress_stream(&rng, (uint64_t)i);
        u->peer = pair[1];
        err = heist_conn_open(pair[0], &u->conn);
        if (err < 0) stress_die("a connection: %s", heist_strerror(err));
        heist_task *reader_task = NULL;
        heist_task_options o = HEIST_TASK_OPTIONS_INIT;
        o.flags = HEIST_TASK_PINNED;
        err = heist_create_task(undercut_reader, u, &o, &reader_task);
        for (uint64_t k = stress_between(&u->rng, 0, 12); k && err == 0; k--) {
            if (stress_chance(&u->rng, 70)) send(u->peer, "0123456789abcdef", 16, MSG_NOSIGNAL | MSG_DONTWAIT);
            err = stress_chance(&u->rng, 80) ? heist_yield() : heist_sleep(0.0001);
        }
        if (reader_task) {
            int unused = heist_yield(); /* the reader has begun */
            (void)unused;
            if (stress_chance(&u->rng, 50)) send(u->peer, "x", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
            if (stress_chance(&u->rng, 50)) { /* the event is there: the reader is woken, but has not run */
                unused = heist_yield();
                (void)unused;
            }
            if (u->reading && !heist_future_done(reader_task)) {
                u->closed = true;
                heist_conn_close(u->conn);
                u->conn = NULL;
                s_add(&undercuts, 1);
            } else {
                heist_cancel(reader_task);
            }
            while (!heist_future_done(reader_task)) heist_await(reader_task, NULL);
            heist_future_result(reader_task, NULL);
            heist_unref(reader_task);
        }
        heist_conn_close(u->conn);
        close(u->peer);
        free(u);
        stress_progress(1);
    }
    return 0;
}

/* ---- a round ---- */

static void draw_link(struct link *l, int index, struct stress_rng *rng, uint64_t most, int *plain_left) {
    memset(l, 0, sizeof *l);
    l->id = stress_next(rng) >> 16;
    l->slot = index * 2;
    l->rng = stress_stream(rng, 1);
    l->read_rng = stress_stream(rng, 2);
    l->write_rng = stress_stream(rng, 3);
    l->manner = (enum manner)stress_below(rng, MANNERS);
    if (l->manner == PLAIN && (*plain_left)-- <= 0) l->manner = FULL;
    l->to = doors[stress_below(rng, (uint64_t)door_count)].addr;
    l->total = stress_between(rng, 0, most);
    l->stop = l->manner == ABORT ? stress_below(rng, l->total + 1) : UINT64_MAX;
    l->cancels = stress_chance(rng, 40) ? (int)stress_between(rng, 1, 12) : 0;
}

/* On worker `index`: its acceptors are pinned here, so they do not run now: they wait in accept, and closing under
 * them is defined. */
static int close_listeners(void *arg, void **out) {
    (void)out;
    int index = (int)(intptr_t)arg;
    for (int i = 0; i < door_count; i++) {
        if (index >= doors[i].listeners) continue;
        heist_listener_close(doors[i].listener[index]);
        doors[i].listener[index] = NULL;
    }
    return 0;
}

static void close_server(bool under_acceptors) {
    stress_phase("stop listening");
    for (int w = 0; under_acceptors && w < heist_runtime_workers(server); w++) on_worker(w, close_listeners);
    for (int i = 0; i < door_count; i++)
        for (int k = 0; k < doors[i].listeners; k++) {
            if (!under_acceptors) heist_cancel(doors[i].acceptor[k]);
            stress_wait_begin(2 * LINKS, "await of an acceptor", 0);
            int err = heist_await(doors[i].acceptor[k], NULL);
            stress_wait_end(2 * LINKS);
            int want = under_acceptors ? HEIST_ECLOSED : -ECANCELED;
            stress_check(err == want || (s_get(&closing) && (err == -ECANCELED || err == HEIST_ECLOSED)),
                         "an acceptor ended with %s", heist_error_name(err));
            heist_unref(doors[i].acceptor[k]);
            if (doors[i].listener[k]) heist_listener_close(doors[i].listener[k]);
        }
    unlink(unix_path);
}

static void one_round(struct stress_rng *rng) {
    server = stress_runtime("server", stress_draw_workers(rng), NULL);
    clients = stress_chance(rng, 50) ? stress_runtime("clients", stress_draw_workers(rng), NULL) : server;
    hasty = stress_chance(rng, 30);
    bool close_early = stress_chance(rng, 20);
    s_set(&closing, false);
    int plain = stress_draw_threads(rng, 16);
    link_count = (int)stress_between(rng, 1, stress_scale(LINKS));
    uint64_t most = stress_scale(16u << 20) / (unsigned)link_count;
    stress_phase("listening");
    open_server(rng);
    stress_settings("%d and %d workers, %d doors, %s, %d links of up to %" PRIu64 " KiB, up to %d of plain threads%s%s",
                    heist_runtime_workers(server), clients == server ? 0 : heist_runtime_workers(clients), door_count,
                    each_worker ? "a listener for each worker" : "one listener", link_count, most / 1024, plain,
                    hasty ? ", hasty" : "", close_early ? ", closed early" : "");
    stress_phase("echo");
    for (int i = 0; i < link_count; i++) {
        struct link *l = &links[i];
        draw_link(l, i, rng, most, &plain);
        if (l->manner == PLAIN) {
            stress_thread(&l->thread, plain_link, l);
            continue;
        }
        heist_task_options o = HEIST_TASK_OPTIONS_INIT;
        char name[32];
        snprintf(name, sizeof name, "link-%d", i);
        o.name = name;
        int err = heist_runtime_run_coroutine(clients, link_body, l, &o, &l->task);
        if (err < 0) stress_die("a link: %s", heist_strerror(err));
    }
    heist_task *undercutter = NULL;
    heist_task_options pinned = HEIST_TASK_OPTIONS_INIT;
    pinned.flags = HEIST_TASK_PINNED;
    int where = (int)stress_below(rng, (uint64_t)heist_runtime_workers(clients));
    int begun = heist_run_coroutine_threadsafe(heist_runtime_loop(clients, where), undercut_body,
                                               (void *)(uintptr_t)stress_next(rng), &pinned, &undercutter);
    if (begun < 0) stress_die("a task: %s", heist_strerror(begun));
    if (close_early) {
        stress_block((double)stress_below(rng, 50000) * 1e-6);
        stress_phase("closing in the middle");
        s_set(&closing, true);
        int err = heist_runtime_close(server, HEIST_FOREVER);
        stress_check(err == 0, "close answered %s", heist_error_name(err));
        close_server(false); /* connections that nobody accepted end here */
        stress_phase("links without a server");
    }
    for (int i = 0; i < link_count; i++) {
        struct link *l = &links[i];
        if (l->manner == PLAIN) {
            stress_join(l->thread);
            continue;
        }
        int err = heist_await(l->task, NULL);
        stress_check(err == 0 || (s_get(&closing) && err == -ECANCELED), "a link ended with %s", heist_error_name(err));
        heist_unref(l->task);
    }
    stress_wait_begin(2 * LINKS, "await of the one that closes under readers", 2);
    heist_await(undercutter, NULL);
    stress_wait_end(2 * LINKS);
    heist_unref(undercutter);
    if (!close_early) {
        close_server(listeners_first);
        stress_phase("handlers come to their end");
        while (s_get(&handlers) > 0) stress_block(0.0005);
    }
    if (clients != server) stress_runtime_end(clients);
    stress_runtime_end(server);
    stress_check(s_get(&handlers) == 0, "%" PRId64 " connections were not given back", s_get(&handlers));
}

int main(int argc, char **argv) {
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max < 8192 ? files.rlim_max : 8192;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    stress_begin(argc, argv, "echo", "every byte comes back at its place, whatever is closed, cancelled or late");
    struct stress_rng rng;
    while (stress_next_round(&rng)) one_round(&rng);
    stress_note("%" PRIu64 " MiB echoed over %" PRIu64 " connections: %" PRIu64 " ended in order, %" PRIu64
                " were cut off; %" PRIu64 " deadlines passed, %" PRIu64 " cancels, %" PRIu64 " closed under a read",
                s_get(&bytes_echoed) >> 20, s_get(&accepted), s_get(&in_order), s_get(&aborted), s_get(&timeouts),
                s_get(&cancels), s_get(&undercuts));
    return stress_end();
}
