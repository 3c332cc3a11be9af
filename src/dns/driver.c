/* A resolver's life, and how a loop drives its channel: sockets as readers and writers, time limits as one timer.
 *
 * The timer stands at the earliest time limit of the channel's queries, or earlier: one that fires too soon looks and
 * is armed again.  When there is no memory for it, nobody would learn of a time limit, so all queries end at once.
 *
 * The sockets are made here and not by c-ares: close-on-exec from the start, and a server that hangs up is an error and
 * no SIGPIPE. */
#include "dns/dns.h"

#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/macros.h"
#include "base/options.h"

#define DEFAULT_TIMEOUT 2.0
#define DEFAULT_TRIES 3
#define DAY 86400.0
/* The answers to hundreds of queries come at once, and one that finds no room is missed for seconds.  The system gives
 * what it allows, and takes the memory when there are answers. */
#define RECEIVE_BYTES (1 << 20)

bool heist__dns_forked(const heist_dns *d) { return getpid() != d->pid; }

/* ---- what stands on the loop ---- */

struct start {
    heist_dns *dns;
    struct heist__dns_query *query; /* gone, when the resolver is shut */
    bool ran;
};

struct heist__dns_tick {
    heist_dns *dns;
    heist_handle *handle;
    double when;
    bool over; /* it fired, or we took it back; under channel_lock */
};

struct watch {
    heist_dns *dns;
    int fd;
};

/* Under channel_lock: nobody cares for the tick any more.  What must be cancelled after the unlock, or NULL. */
static heist_handle *tick_detach(heist_dns *d) {
    struct heist__dns_tick *t = d->tick;
    if (!t) return NULL;
    d->tick = NULL;
    t->over = true;
    return heist_handle_ref(t->handle); /* t may be gone at any moment after the unlock */
}

static void cancel_handle(heist_handle *h) {
    if (!h) return;
    heist_handle_cancel(h);
    heist_handle_unref(h);
}

static void tick_free(void *arg) {
    struct heist__dns_tick *t = arg;
    heist_dns *d = t->dns;
    pthread_mutex_lock(&d->channel_lock);
    bool orphan = !t->over; /* the loop closes */
    if (orphan) d->tick = NULL;
    pthread_mutex_unlock(&d->channel_lock);
    if (orphan) heist__dns_shut(d);
    heist_handle_unref(t->handle);
    free(t);
    heist__dns_drop(d);
}

static int on_tick(void *arg);

static int tick_arm(heist_dns *d, double when) {
    struct heist__dns_tick *t = malloc(sizeof(*t));
    if (!t) return -ENOMEM;
    *t = (struct heist__dns_tick){heist__dns_hold(d), NULL, when, false};
    heist_call_options opts = HEIST_CALL_OPTIONS_INIT;
    opts.arg_free = tick_free;
    opts.name = "name servers' time limits";
    int err = heist_loop_call_at(d->loop, when, on_tick, t, &opts, &t->handle);
    if (err) {
        free(t);
        heist__dns_drop(d);
        return err;
    }
    d->tick = t;
    return 0;
}

/* After each use of the channel, under its lock: the timer stands where it must.  Returns a handle for cancel_handle.
 */
static heist_handle *settle(heist_dns *d) {
    struct timeval buf, *left = d->channel ? ares_timeout(d->channel, NULL, &buf) : NULL;
    if (!left) return tick_detach(d);
    /* c-ares tells whole milliseconds, rounded down. */
    double when = heist_loop_time(d->loop) + (double)left->tv_sec + (double)left->tv_usec * 1e-6 + 0.001;
    if (d->tick && d->tick->when <= when) return NULL;
    heist_handle *old = tick_detach(d);
    if (tick_arm(d, when)) ares_cancel(d->channel); /* NOLINT: the caller holds a reference */
    return old;
}

static int on_tick(void *arg) {
    struct heist__dns_tick *t = arg;
    heist_dns *d = t->dns;
    heist_handle *old = NULL;
    pthread_mutex_lock(&d->channel_lock);
    if (!t->over) {
        t->over = true;
        d->tick = NULL;
        ares_process_fd(d->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
        old = settle(d);
    }
    pthread_mutex_unlock(&d->channel_lock);
    cancel_handle(old);
    return 0;
}

/* A socket is ready. */
static int serve(const struct watch *w, ares_socket_t readable, ares_socket_t writable) {
    heist_dns *d = heist__dns_hold(w->dns); /* the watch may go meanwhile */
    heist_handle *old = NULL;
    pthread_mutex_lock(&d->channel_lock);
    if (d->channel) {
        ares_process_fd(d->channel, readable, writable);
        old = settle(d);
    }
    pthread_mutex_unlock(&d->channel_lock);
    cancel_handle(old);
    heist__dns_drop(d);
    return 0;
}

static int on_readable(void *arg) {
    const struct watch *w = arg;
    return serve(w, w->fd, ARES_SOCKET_BAD);
}

static int on_writable(void *arg) {
    const struct watch *w = arg;
    return serve(w, ARES_SOCKET_BAD, w->fd);
}

static void watch_free(void *arg) {
    struct watch *w = arg;
    heist_dns *d = w->dns;
    free(w);
    heist__dns_drop(d);
}

typedef int add_fn(heist_loop *loop, int fd, heist_callback_fn fn, void *arg, const heist_call_options *opts);

/* One that cannot be watched is not heard: its queries end with their time limits. */
static void watch(heist_dns *d, int fd, add_fn *add, heist_callback_fn fn) {
    struct watch *w = malloc(sizeof(*w));
    if (!w) return;
    *w = (struct watch){heist__dns_hold(d), fd};
    heist_call_options opts = HEIST_CALL_OPTIONS_INIT;
    opts.arg_free = watch_free;
    opts.name = "a name server's socket";
    if (add(d->loop, fd, fn, w, &opts)) watch_free(w);
}

/* c-ares tells what it waits for, and before it closes a socket that it waits for nothing. */
static void on_socket(void *data, ares_socket_t fd, int readable, int writable) {
    heist_dns *d = data;
    if (readable) watch(d, fd, heist_loop_add_reader, on_readable);
    else heist_loop_remove_reader(d->loop, fd);
    if (writable) watch(d, fd, heist_loop_add_writer, on_writable);
    else heist_loop_remove_writer(d->loop, fd);
}

/* ---- its sockets ---- */

static ares_socket_t socket_open(int family, int type, int protocol, void *data) {
    heist_dns *d = data;
    int fd = socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol);
    if (fd < 0) {
        int error = errno;
        if (error == EMFILE || error == ENFILE || error == ENOMEM || error == ENOBUFS) d->socket_error = -error;
        errno = error;
        return fd;
    }
    d->socket_error = 0;
    int on = 1, bytes = RECEIVE_BYTES;
    if (type == SOCK_STREAM) (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    else (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
    return fd;
}

static int socket_close(ares_socket_t fd, void *data) {
    (void)data;
    return close(fd);
}

static int socket_connect(ares_socket_t fd, const struct sockaddr *addr, ares_socklen_t size, void *data) {
    (void)data;
    return connect(fd, addr, size);
}

static ares_ssize_t socket_receive(ares_socket_t fd, void *buf, size_t size, int flags, struct sockaddr *from,
                                   ares_socklen_t *from_size, void *data) {
    (void)data;
    ssize_t n;
    do n = recvfrom(fd, buf, size, flags, from, from_size);
    while (n < 0 && errno == EINTR);
    return n;
}

static ares_ssize_t socket_send(ares_socket_t fd, const struct iovec *iov, int count, void *data) {
    (void)data;
    struct msghdr message;
    memset(&message, 0, sizeof(message));
    message.msg_iov = (struct iovec *)(uintptr_t)iov;
    message.msg_iovlen = (size_t)count;
    ssize_t n = sendmsg(fd, &message, MSG_NOSIGNAL);
    /* Refused was a datagram before this one.  The answer to this one tells it again, to all queries of the socket. */
    if (n < 0 && errno == ECONNREFUSED) n = sendmsg(fd, &message, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR) n = sendmsg(fd, &message, MSG_NOSIGNAL);
    return n;
}

static const struct ares_socket_functions socket_functions = {socket_open, socket_close, socket_connect, socket_receive,
                                                              socket_send};

/* ---- beginning a query ---- */

static int on_start(void *arg) {
    struct start *s = arg;
    heist_dns *d = s->dns;
    heist_handle *old = NULL;
    s->ran = true;
    pthread_mutex_lock(&d->channel_lock);
    if (d->channel) {
        heist__dns_ask(d, s->query);
        old = settle(d);
    }
    pthread_mutex_unlock(&d->channel_lock);
    cancel_handle(old);
    return 0;
}

static void start_free(void *arg) {
    struct start *s = arg;
    heist_dns *d = s->dns;
    if (!s->ran) heist__dns_shut(d); /* the loop closes */
    free(s);
    heist__dns_drop(d);
}

int heist__dns_start(heist_dns *d, struct heist__dns_query *q) {
    struct start *s = malloc(sizeof(*s));
    if (!s) return -ENOMEM;
    *s = (struct start){heist__dns_hold(d), q, false};
    heist_call_options opts = HEIST_CALL_OPTIONS_INIT;
    opts.arg_free = start_free;
    opts.name = "a name look-up";
    int err = heist_loop_call_soon_threadsafe(d->loop, on_start, s, &opts, NULL);
    if (err) {
        free(s);
        heist__dns_drop(d);
    }
    return err;
}

void heist__dns_refuse(heist_dns *d, struct heist__dns_query *q, int code) {
    if (code == HEIST_ECLOSED) heist__dns_shut(d);
    pthread_mutex_lock(&d->channel_lock);
    if (d->channel) heist__dns_finish(q, code, NULL, 0); /* else the shut has ended it */
    pthread_mutex_unlock(&d->channel_lock);
}

/* ---- life ---- */

static const heist_dns_options default_options = HEIST_DNS_OPTIONS_INIT;

static int code_of_init(int status) { return status == ARES_ENOMEM ? -ENOMEM : HEIST_ENAMEFAIL; }

static int open_channel(heist_dns *d, const heist_dns_options *o) {
    struct ares_options options;
    char hosts_then_servers[] = "fb", servers_alone[] = "b";
    memset(&options, 0, sizeof(options));
    int mask = ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_LOOKUPS | ARES_OPT_SOCK_STATE_CB;
    double ms = (o->timeout > 0 ? o->timeout : DEFAULT_TIMEOUT) * 1000;
    options.timeout = ms < 1 ? 1 : (int)ms;
    options.tries = o->tries ? o->tries : DEFAULT_TRIES;
    options.lookups = o->flags & HEIST_DNS_NO_HOSTS ? servers_alone : hosts_then_servers;
    options.flags =
        (o->flags & HEIST_DNS_NO_SEARCH ? ARES_FLAG_NOSEARCH : 0) | (o->flags & HEIST_DNS_TCP ? ARES_FLAG_USEVC : 0);
    options.sock_state_cb = on_socket;
    options.sock_state_cb_data = d;
    ares_channel channel;
    int status = ares_init_options(&channel, &options, mask);
    if (status != ARES_SUCCESS) return code_of_init(status);
    ares_set_socket_functions(channel, &socket_functions, d);
    if (o->servers) {
        status = ares_set_servers_ports_csv(channel, o->servers);
        if (status != ARES_SUCCESS) {
            ares_destroy(channel);
            return status == ARES_ENOMEM ? -ENOMEM : -EINVAL;
        }
    }
    d->channel = channel;
    if (o->flags & HEIST_DNS_NO_HOSTS) return 0;
    char hosts_alone[] = "f";
    memset(&options, 0, sizeof(options));
    options.lookups = hosts_alone;
    status = ares_init_options(&d->hosts, &options, ARES_OPT_LOOKUPS);
    if (status == ARES_SUCCESS) return 0;
    d->hosts = NULL;
    return code_of_init(status);
}

static bool options_ok(const heist_dns_options *o) {
    return heist__options_ok(o, sizeof(*o)) &&
           !(o->flags & ~(HEIST_DNS_NO_SEARCH | HEIST_DNS_NO_HOSTS | HEIST_DNS_TCP)) && o->tries >= 0 &&
           o->tries <= 100 && o->timeout >= 0 && o->timeout <= DAY && o->cache_max_ttl >= 0 &&
           o->cache_negative_ttl >= 0 && (!o->servers || *o->servers);
}

static void destroy(heist_dns *d) {
    if (d->hosts) ares_destroy(d->hosts);
    if (d->channel) ares_destroy(d->channel); /* no query is under way, or there would be a reference */
    heist__dns_forget(d);
    pthread_mutex_destroy(&d->lock);
    pthread_mutex_destroy(&d->channel_lock);
    heist_unref(d->ready);
    free(d);
}

static pthread_once_t library = PTHREAD_ONCE_INIT;
static int library_status;
static void begin_library(void) { library_status = ares_library_init(ARES_LIB_INIT_ALL); }

int heist_dns_new(const heist_dns_options *opts, heist_dns **out) {
    if (!opts) opts = &default_options;
    if (!out || !options_ok(opts)) return -EINVAL;
    heist_loop *loop = opts->loop;
    int err = loop ? 0 : heist_get_running_loop(&loop);
    if (!err && heist_loop_is_closed(loop)) err = HEIST_ECLOSED;
    heist_future *ready = NULL;
    if (!err) err = heist_future_new(NULL, &ready);
    if (err) return err;
    heist_future_set_result(ready, NULL, NULL);
    pthread_once(&library, begin_library);
    heist_dns *d = library_status == ARES_SUCCESS ? calloc(1, sizeof(*d)) : NULL;
    if (!d) {
        heist_unref(ready);
        return library_status == ARES_SUCCESS ? -ENOMEM : code_of_init(library_status);
    }
    d->loop = heist_loop_ref(loop);
    d->ready = ready;
    d->pid = getpid();
    d->refs = d->users = 1;
    d->cache_entries = opts->cache_entries;
    d->max_ttl = opts->cache_max_ttl > 0 ? opts->cache_max_ttl : DAY;
    d->negative_ttl = opts->cache_negative_ttl;
    pthread_mutex_init(&d->channel_lock, NULL);
    pthread_mutex_init(&d->lock, NULL);
    heist__list_init(&d->pending);
    heist__list_init(&d->kept);
    for (size_t i = 0; i < HEIST__DNS_BUCKETS; i++) heist__list_init(&d->table[i]);
    err = open_channel(d, opts);
    if (err) {
        heist_dns_unref(d);
        return err;
    }
    *out = d;
    return 0;
}

heist_dns *heist__dns_hold(heist_dns *d) {
    if (heist__dns_forked(d)) return d;
    pthread_mutex_lock(&d->lock);
    d->refs++;
    pthread_mutex_unlock(&d->lock);
    return d;
}

void heist__dns_drop(heist_dns *d) {
    if (heist__dns_forked(d)) return; /* a child's copy is the parent's */
    pthread_mutex_lock(&d->lock);
    bool last = --d->refs == 0;
    pthread_mutex_unlock(&d->lock);
    if (last) destroy(d);
}

heist_dns *heist_dns_ref(heist_dns *d) {
    if (!d || heist__dns_forked(d)) return d;
    pthread_mutex_lock(&d->lock);
    d->users++;
    pthread_mutex_unlock(&d->lock);
    return d;
}

void heist_dns_unref(heist_dns *d) {
    if (!d || heist__dns_forked(d)) return; /* a child's copy is the parent's */
    pthread_mutex_lock(&d->lock);
    bool last = --d->users == 0;
    heist_loop *loop = d->loop;
    pthread_mutex_unlock(&d->lock);
    if (!last) return;
    heist__dns_drop(d);
    heist_loop_unref(loop); /* may end it, and a resolver that is installed there */
}

void heist__dns_shut(heist_dns *d) {
    pthread_mutex_lock(&d->channel_lock);
    ares_channel channel = d->channel;
    d->channel = NULL;
    pthread_mutex_lock(&d->lock);
    d->closed = true; /* no pending one comes any more */
    pthread_mutex_unlock(&d->lock);
    if (channel) ares_destroy(channel); /* ends those that it knows, and closes the sockets */
    for (;;) {
        pthread_mutex_lock(&d->lock);
        struct heist__link *first = heist__list_empty(&d->pending) ? NULL : d->pending.next;
        pthread_mutex_unlock(&d->lock);
        if (!first) break;
        heist__dns_finish(heist__list_entry(first, struct heist__dns_query, link), HEIST_ECLOSED, NULL, 0);
    }
    heist_handle *old = tick_detach(d);
    pthread_mutex_unlock(&d->channel_lock);
    cancel_handle(old);
    heist__dns_forget(d);
}

void heist_dns_close(heist_dns *d) {
    if (d && !heist__dns_forked(d)) heist__dns_shut(d);
}

/* ---- in the system's place ---- */

static int lookup_op(void *self, const char *host, int family, unsigned flags, double deadline,
                     heist_addrinfo_list **out) {
    return heist_dns_lookup(self, host, family, flags, deadline, out);
}
static int reverse_op(void *self, const heist_addr *addr, double deadline, char *name, size_t size) {
    return heist_dns_reverse(self, addr, deadline, name, size);
}
static void release_op(void *self) { heist_dns_unref(self); }
static void release_own_op(void *self) { heist__dns_drop(self); }

int heist_dns_install(heist_dns *d, heist_loop *loop) {
    if (!d) return -EINVAL;
    if (heist__dns_forked(d)) return HEIST_EFORKED;
    if (!loop) {
        int err = heist_get_running_loop(&loop);
        if (err) return err;
    }
    /* In the runtime of its loop it is one of the things that stand there: else neither would ever go. */
    bool own = heist_loop_runtime(loop) == heist_loop_runtime(d->loop);
    heist_resolver_ops ops = HEIST_RESOLVER_OPS_INIT;
    ops.lookup = lookup_op;
    ops.reverse = reverse_op;
    ops.release = own ? release_own_op : release_op;
    int err = heist_loop_set_resolver(loop, &ops, own ? heist__dns_hold(d) : heist_dns_ref(d));
    if (err) ops.release(d);
    return err;
}
