/* Names to addresses and back: what can be read off at once, the system in a pool of threads, or the runtime's own
 * resolver.
 *
 * A job of the pool owns everything that it reads and writes: its block goes to the job, and its result comes out of
 * the future.  So who waits may go away at any moment.  It cancels the future: a job that has not begun is taken out,
 * and what one that runs still finds is freed by the future. */
#include <heist/resolve.h>

#include <errno.h>
#include <heist/error.h>
#include <heist/executor.h>
#include <heist/future.h>
#include <heist/loop.h>
#include <math.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fork.h"
#include "base/options.h"
#include "conc/self.h"
#include "loop/clock.h"
#include "loop/loop.h"
#include "net/resolver.h"
#include "sched/suspend.h"

#define AI_FLAGS (HEIST_AI_PASSIVE | HEIST_AI_CANONNAME | HEIST_AI_NUMERICHOST | HEIST_AI_NUMERICSERV)
#define NI_FLAGS (HEIST_NI_NUMERICHOST | HEIST_NI_NUMERICSERV | HEIST_NI_NAMEREQD | HEIST_NI_DGRAM)

/* The system's codes.  error: errno of the thread that called. */
static int code_of(int answer, int error) {
    switch (answer) {
        case 0: return 0;
        case EAI_NONAME: return HEIST_ENONAME;
        case EAI_NODATA:
        case EAI_ADDRFAMILY: return HEIST_ENOADDRESS;
        case EAI_AGAIN: return HEIST_ETRYAGAIN;
        case EAI_SERVICE: return HEIST_ESERVICE;
        case EAI_FAMILY: return -EAFNOSUPPORT;
        case EAI_SOCKTYPE: return -ESOCKTNOSUPPORT;
        case EAI_MEMORY: return -ENOMEM;
        case EAI_OVERFLOW: return -EOVERFLOW;
        case EAI_SYSTEM: return error > 0 ? -error : HEIST_ENAMEFAIL;
        default: return HEIST_ENAMEFAIL;
    }
}

/* ---- waiting for the system ---- */

/* Runs job(arg) where it may block, and waits for it.  `arg` and what the job gives are blocks of the library; arg
 * passes to the job. */
static int beside(heist_coro_fn job, void *arg, double deadline, void **out) {
    bool in_task = heist__self()->task != NULL;
    if (!in_task && deadline == HEIST_FOREVER) { /* a plain thread may block as it likes */
        int err = job(arg, out);
        heist__free(arg);
        return err;
    }
    heist_job_options opts = HEIST_JOB_OPTIONS_INIT;
    opts.arg_free = opts.result_free = heist__free;
    heist_executor *own = NULL;
    heist_future *f;
    int err;
    if (in_task) {
        err = heist_loop_run_in_executor(NULL, NULL, job, arg, &opts, &f);
    } else { /* the system knows no time limit: a thread that it may keep */
        heist_executor_options one = HEIST_EXECUTOR_OPTIONS_INIT;
        one.max_threads = 1;
        one.name = "names";
        err = heist_executor_new(&one, &own);
        if (!err) err = heist_executor_submit(own, job, arg, &opts, &f);
    }
    if (err) {
        heist__free(arg);
    } else {
        err = heist_await_until(f, deadline, NULL);
        if (!err) {
            err = heist_future_take(f, out);
        } else {
            heist_cancel(f);
            heist_future_result(f, NULL); /* a failure that came too late has been looked at */
        }
        heist_unref(f);
    }
    heist_executor_unref(own);
    return err;
}

/* ---- what the system is asked ---- */

struct question {
    struct addrinfo hints;
    bool service; /* the name is a service's */
    char name[];
};

static int list_of(const struct addrinfo *found, heist_addrinfo_list **out) {
    size_t n = 0;
    for (const struct addrinfo *a = found; a; a = a->ai_next) n += a->ai_family == AF_INET || a->ai_family == AF_INET6;
    if (!n) return HEIST_ENOADDRESS;
    int err = heist_addrinfo_list_new(n, found->ai_canonname, out);
    if (err) return err;
    heist_addrinfo *at = (*out)->at;
    for (const struct addrinfo *a = found; a; a = a->ai_next) {
        if (a->ai_family != AF_INET && a->ai_family != AF_INET6) continue;
        at->addr.length = a->ai_addrlen;
        memcpy(&at->addr.storage, a->ai_addr, a->ai_addrlen);
        at++;
    }
    return 0;
}

static int ask(void *arg, void **out) {
    struct question *q = arg;
    struct addrinfo *found = NULL;
    heist_addrinfo_list *list;
    int answer =
        q->service ? getaddrinfo(NULL, q->name, &q->hints, &found) : getaddrinfo(q->name, NULL, &q->hints, &found);
    int err = code_of(answer, errno);
    if (!err) {
        err = list_of(found, &list);
        freeaddrinfo(found);
        if (!err) *out = list;
    }
    return err;
}

static int ask_system(const char *name, bool service, const heist_addrinfo_hints *h, int family, double deadline,
                      heist_addrinfo_list **out) {
    size_t size = strlen(name) + 1;
    struct question *q = heist__zalloc(sizeof(*q) + size);
    if (!q) return -ENOMEM;
    memcpy(q->name, name, size);
    q->service = service;
    q->hints.ai_family = family;
    q->hints.ai_socktype = h->socktype;
    q->hints.ai_protocol = h->protocol;
    if (!service && (h->flags & HEIST_AI_CANONNAME)) q->hints.ai_flags = AI_CANONNAME;
    void *found;
    int err = beside(ask, q, deadline, &found);
    if (!err) *out = found;
    return err;
}

/* ---- the parts of getaddrinfo ---- */

static uint16_t port_of(const heist_addr *a) {
    const struct sockaddr_in *in = (const struct sockaddr_in *)&a->storage;
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&a->storage;
    return a->storage.ss_family == AF_INET6 ? in6->sin6_port : in->sin_port;
}

static void set_port(heist_addr *a, uint16_t port) {
    struct sockaddr_in *in = (struct sockaddr_in *)&a->storage;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&a->storage;
    if (a->storage.ss_family == AF_INET6) in6->sin6_port = port;
    else in->sin_port = port;
}

/* In network order. */
static int find_port(const char *service, const heist_addrinfo_hints *h, double deadline, uint16_t *out) {
    unsigned long n = 0;
    if (!service) service = "";
    const char *p = service;
    while (*p >= '0' && *p <= '9' && n <= 65535) n = n * 10 + (unsigned long)(*p++ - '0');
    if (n > 65535) return HEIST_ESERVICE;
    if (!*p) {
        *out = htons((uint16_t)n);
        return 0;
    }
    if (h->flags & HEIST_AI_NUMERICSERV) return HEIST_ESERVICE;
    heist_addrinfo_list *list;
    int err = ask_system(service, true, h, AF_INET, deadline, &list);
    if (err) return err == HEIST_ENONAME ? HEIST_ESERVICE : err;
    *out = port_of(&list->at[0].addr);
    heist_freeaddrinfo(list);
    return 0;
}

/* An address that is written out: 0, or HEIST_ENONAME. */
static int read_literal(const char *host, heist_addr *out) {
    char text[160];
    if (strlen(host) > 128 || strcmp(host, "*") == 0) return HEIST_ENONAME;
    snprintf(text, sizeof(text), strchr(host, ':') ? "[%s]:0" : "%s:0", host);
    /* A host may be called "unix", which with a port looks like the path of a socket. */
    return heist_addr_parse(text, out) || out->storage.ss_family == AF_UNIX ? HEIST_ENONAME : 0;
}

/* This machine. */
static int local_addresses(const heist_addrinfo_hints *h, heist_addrinfo_list **out) {
    static const char *const texts[2][2] = {{"[::1]:0", "127.0.0.1:0"}, {"[::]:0", "0.0.0.0:0"}};
    bool passive = h->flags & HEIST_AI_PASSIVE;
    int err = heist_addrinfo_list_new(h->family ? 1 : 2, NULL, out);
    if (err) return err;
    for (size_t i = 0; i < (*out)->count && !err; i++)
        err = heist_addr_parse(texts[passive][h->family == AF_INET ? 1 : i], &(*out)->at[i].addr);
    return err;
}

static int literal_addresses(const heist_addr *addr, const char *host, const heist_addrinfo_hints *h,
                             heist_addrinfo_list **out) {
    if (h->family && h->family != addr->storage.ss_family) return HEIST_ENOADDRESS;
    int err = heist_addrinfo_list_new(1, h->flags & HEIST_AI_CANONNAME ? host : NULL, out);
    if (!err) (*out)->at[0].addr = *addr;
    return err;
}

static int looked_up(const char *host, const heist_addrinfo_hints *h, double deadline, heist_addrinfo_list **out) {
    struct heist__resolver *r = heist__resolver_here();
    if (!r) return ask_system(host, false, h, h->family, deadline, out);
    int err = r->ops.lookup(r->self, host, h->family, h->flags & HEIST_AI_CANONNAME, deadline, out);
    heist__resolver_unref(r);
    return err > 0 ? HEIST_ENAMEFAIL : err;
}

/* Debug mode: how long it took, on the clock of the loop. */
static void tell_if_slow(int64_t since, const char *name, const char *service) {
    heist_loop *loop = heist__self()->loop;
    if (!loop || heist_loop_get_debug(loop) != 1) return;
    int64_t took = heist__clock_now(loop->clock) - since;
    if (took < a_load_sc(&loop->slow_ns)) return;
    char text[300];
    snprintf(text, sizeof(text), service && *service ? "%.255s:%.32s" : "%.255s", name, service);
    char *kept = heist__alloc(strlen(text) + 1);
    if (kept) memcpy(kept, text, strlen(text) + 1);
    heist_report report = HEIST_REPORT_INIT;
    report.message = "a name look-up was slow";
    report.seconds = heist__seconds_from_ns(took);
    heist__loop_post_report(loop, a_load_sc(&loop->id), &report, NULL, kept);
}

static int find(const char *host, const char *service, const heist_addrinfo_hints *h, double deadline,
                heist_addrinfo_list **out) {
    heist_addr addr;
    uint16_t port = 0;
    bool literal = host && read_literal(host, &addr) == 0;
    if (host && !literal && ((h->flags & HEIST_AI_NUMERICHOST) || !*host || strlen(host) >= NI_MAXHOST))
        return HEIST_ENONAME;
    int64_t since = heist__clock_now(heist__clock_here());
    heist_addrinfo_list *list;
    int err = find_port(service, h, deadline, &port);
    if (!err) {
        if (!host) err = local_addresses(h, &list);
        else if (literal) err = literal_addresses(&addr, host, h, &list);
        else err = looked_up(host, h, deadline, &list);
    }
    tell_if_slow(since, host ? host : "", service);
    if (err) return err;
    int usual = h->socktype == SOCK_STREAM ? IPPROTO_TCP : h->socktype == SOCK_DGRAM ? IPPROTO_UDP : 0;
    for (size_t i = 0; i < list->count; i++) {
        set_port(&list->at[i].addr, port);
        list->at[i].socktype = h->socktype;
        list->at[i].protocol = h->protocol ? h->protocol : usual;
    }
    *out = list;
    return 0;
}

int heist_getaddrinfo(const char *host, const char *service, const heist_addrinfo_hints *hints, double deadline,
                      heist_addrinfo_list **out) {
    heist_addrinfo_hints h = HEIST_ADDRINFO_HINTS_INIT;
    if (!out || isnan(deadline) || !heist__options_ok(hints, sizeof(*hints))) return -EINVAL;
    if (hints) h = *hints;
    if ((h.flags & ~AI_FLAGS) || h.protocol < 0) return -EINVAL;
    if (h.family && h.family != AF_INET && h.family != AF_INET6) return -EAFNOSUPPORT;
    if (!h.socktype) h.socktype = SOCK_STREAM;
    if (h.socktype != SOCK_STREAM && h.socktype != SOCK_DGRAM && h.socktype != SOCK_RAW && h.socktype != SOCK_SEQPACKET)
        return -ESOCKTNOSUPPORT;
    int err = heist__wait_entry(heist__self());
    if (err) return err;
    err = find(host, service, &h, deadline, out);
    heist__wait_skipped(heist__self());
    return err;
}

/* ---- and back ---- */

struct names {
    heist_addr addr;
    int flags;
    bool wants_host, wants_service;
    char host[NI_MAXHOST], service[NI_MAXSERV];
};

static int name_address(struct names *n) {
    int answer = getnameinfo((const struct sockaddr *)&n->addr.storage, n->addr.length, n->wants_host ? n->host : NULL,
                             n->wants_host ? sizeof(n->host) : 0, n->wants_service ? n->service : NULL,
                             n->wants_service ? sizeof(n->service) : 0, n->flags);
    return code_of(answer, errno);
}

static int name_address_beside(void *arg, void **out) {
    struct names *n = heist__alloc(sizeof(*n)); /* arg goes with the job */
    if (!n) return -ENOMEM;
    memcpy(n, arg, sizeof(*n));
    int err = name_address(n);
    if (err) heist__free(n);
    else *out = n;
    return err;
}

/* Fills in one of the two, by the system. */
static int name_by_system(struct names *n, bool host, bool figures, double deadline) {
    bool both[2] = {n->wants_host, n->wants_service};
    n->wants_host = both[0] && host;
    n->wants_service = both[1] && !host;
    int err;
    if (figures) {
        err = name_address(n);
    } else {
        struct names *job = heist__alloc(sizeof(*job));
        void *found;
        err = job ? 0 : -ENOMEM;
        if (job) {
            memcpy(job, n, sizeof(*job));
            err = beside(name_address_beside, job, deadline, &found);
        }
        if (!err) {
            if (host) memcpy(n->host, ((struct names *)found)->host, sizeof(n->host));
            else memcpy(n->service, ((struct names *)found)->service, sizeof(n->service));
            heist__free(found);
        }
    }
    n->wants_host = both[0];
    n->wants_service = both[1];
    return err;
}

static int name_host(struct names *n, unsigned flags, double deadline) {
    if (flags & HEIST_NI_NUMERICHOST) return name_by_system(n, true, true, deadline);
    int64_t since = heist__clock_now(heist__clock_here());
    struct heist__resolver *r = heist__resolver_here();
    int err;
    if (r && r->ops.reverse) {
        err = r->ops.reverse(r->self, &n->addr, deadline, n->host, sizeof(n->host));
        if (err > 0) err = HEIST_ENAMEFAIL;
        if ((err == HEIST_ENONAME || err == HEIST_ENOADDRESS) && !(flags & HEIST_NI_NAMEREQD)) {
            n->flags |= NI_NUMERICHOST;
            err = name_by_system(n, true, true, deadline);
            n->flags &= ~NI_NUMERICHOST;
        }
    } else {
        err = name_by_system(n, true, false, deadline);
    }
    heist__resolver_unref(r);
    char text[128];
    if (heist_addr_format(&n->addr, text, sizeof(text)) > 0) tell_if_slow(since, text, NULL);
    return err;
}

static bool known_family(const heist_addr *a) {
    return (a->storage.ss_family == AF_INET && a->length >= sizeof(struct sockaddr_in)) ||
           (a->storage.ss_family == AF_INET6 && a->length >= sizeof(struct sockaddr_in6));
}

static int find_names(struct names *n, unsigned flags, double deadline, char *host, size_t host_size, char *service,
                      size_t service_size) {
    int err = host ? name_host(n, flags, deadline) : 0;
    if (!err && service) err = name_by_system(n, false, flags & HEIST_NI_NUMERICSERV, deadline);
    if (err) return err;
    size_t host_length = strlen(n->host), service_length = strlen(n->service);
    if ((host && host_length >= host_size) || (service && service_length >= service_size)) return -EOVERFLOW;
    if (host) memcpy(host, n->host, host_length + 1);
    if (service) memcpy(service, n->service, service_length + 1);
    return 0;
}

int heist_getnameinfo(const heist_addr *addr, unsigned flags, double deadline, char *host, size_t host_size,
                      char *service, size_t service_size) {
    if (!addr || (flags & ~NI_FLAGS) || isnan(deadline) || !host != !host_size || !service != !service_size ||
        (!host && !service))
        return -EINVAL;
    if (!known_family(addr)) return -EAFNOSUPPORT;
    int err = heist__wait_entry(heist__self());
    if (err) return err;
    struct names *n = heist__zalloc(sizeof(*n)); /* more than a small stack has to spare */
    if (!n) return -ENOMEM;
    n->addr = *addr;
    n->wants_host = host != NULL;
    n->wants_service = service != NULL;
    n->flags = (flags & HEIST_NI_NUMERICHOST ? NI_NUMERICHOST : 0) |
               (flags & HEIST_NI_NUMERICSERV ? NI_NUMERICSERV : 0) | (flags & HEIST_NI_NAMEREQD ? NI_NAMEREQD : 0) |
               (flags & HEIST_NI_DGRAM ? NI_DGRAM : 0);
    err = find_names(n, flags, deadline, host, host_size, service, service_size);
    heist__free(n);
    heist__wait_skipped(heist__self());
    return err;
}
