/* Names: what is asked, who waits for it, and what is kept of the answers.
 *
 * Who waits links itself to a query under `lock` and waits for a future of its own.  The end of the query, under `lock`
 * too, unlinks it, writes the answer into its frame and completes the future, in that order, and does not touch the
 * frame again.  Who gives up takes the lock and unlinks itself.  So a frame is left only when nobody will write to it:
 * either its owner unlinked it, or saw the future done, or found itself unlinked under the lock. */
#include "dns/dns.h"

#include <math.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/macros.h"

#define NAME_MAX_BYTES 254 /* 253, and a dot at the end */
#define PTR_NAME_BYTES 1025
#define CLASS_IN 1
#define TYPE_PTR 12

static int code_of(heist_dns *d, int status) {
    switch (status) {
        case ARES_SUCCESS: return 0;
        case ARES_ENODATA: return HEIST_ENOADDRESS;
        case ARES_ENOTFOUND:
        case ARES_ENONAME:
        case ARES_EBADNAME: return HEIST_ENONAME;
        case ARES_ECONNREFUSED:
            return d->socket_error ? d->socket_error : HEIST_ETRYAGAIN; /* also: there was no socket */
        case ARES_ESERVFAIL:
        case ARES_ETIMEOUT:
        case ARES_EOF: return HEIST_ETRYAGAIN;
        case ARES_ENOMEM: return -ENOMEM;
        case ARES_EDESTRUCTION: return HEIST_ECLOSED;
        case ARES_ECANCELLED: return heist_loop_is_closed(d->loop) ? HEIST_ECLOSED : -ENOMEM; /* there was no timer */
        default: return HEIST_ENAMEFAIL;
    }
}

/* ---- answers; under `lock`, or not shared yet ---- */

static struct heist__dns_answer *answer_new(size_t count, const char *name) {
    struct heist__dns_answer *a = calloc(1, sizeof(*a) + count * sizeof(a->at[0]));
    if (!a) return NULL;
    a->refs = 1;
    a->count = count;
    if (name && !(a->name = strdup(name))) {
        free(a);
        return NULL;
    }
    return a;
}

static void answer_unref(struct heist__dns_answer *a) {
    if (!a || --a->refs) return;
    free(a->name);
    free(a);
}

/* ---- the table; under `lock` ---- */

static struct heist__link *bucket_of(heist_dns *d, const char *name, int family) {
    uint32_t hash = 2166136261u ^ (uint32_t)family;
    for (const char *p = name; *p; p++) hash = (hash ^ (unsigned char)*p) * 16777619u;
    return &d->table[(hash ^ hash >> 16) % HEIST__DNS_BUCKETS];
}

static struct heist__dns_query *query_find(heist_dns *d, const char *name, int family) {
    struct heist__link *l, *bucket = bucket_of(d, name, family);
    heist__list_for_each(l, bucket) {
        struct heist__dns_query *q = heist__list_entry(l, struct heist__dns_query, bucket);
        if (q->family == family && strcmp(q->name, name) == 0) return q;
    }
    return NULL;
}

/* Pending, without anybody who waits.  addr: of a reverse one, or NULL. */
static struct heist__dns_query *query_new(heist_dns *d, const char *name, int family, const heist_addr *addr) {
    size_t size = strlen(name) + 1;
    struct heist__dns_query *q = calloc(1, sizeof(*q) + size);
    if (!q) return NULL;
    memcpy(q->name, name, size);
    q->dns = d;
    q->pending = true;
    q->family = family;
    q->reverse = addr != NULL;
    if (addr) q->addr = *addr;
    heist__list_init(&q->waiters);
    heist__list_init(&q->bucket);
    heist__list_push_back(&d->pending, &q->link);
    d->pending_count++;
    if (!addr) heist__list_push_back(bucket_of(d, name, family), &q->bucket);
    return q;
}

static void query_free(struct heist__dns_query *q) {
    heist__list_remove(&q->bucket);
    heist__list_remove(&q->link);
    answer_unref(q->answer);
    free(q);
}

static void drop_kept(heist_dns *d, struct heist__dns_query *q) {
    d->kept_count--;
    query_free(q);
}

void heist__dns_forget(heist_dns *d) {
    pthread_mutex_lock(&d->lock);
    while (!heist__list_empty(&d->kept)) /* NOLINT, as below: what is dropped is taken out first */
        drop_kept(d, heist__list_entry(d->kept.next, struct heist__dns_query, link)); /* NOLINT */
    pthread_mutex_unlock(&d->lock);
}

void heist_dns_clear_cache(heist_dns *d) {
    if (d && !heist__dns_forked(d)) heist__dns_forget(d);
}

/* ---- the end of a query ---- */

void heist__dns_finish(struct heist__dns_query *q, int code, struct heist__dns_answer *answer, double ttl) {
    heist_dns *d = q->dns;
    pthread_mutex_lock(&d->lock);
    struct heist__link *l;
    while ((l = heist__list_pop_front(&q->waiters))) {
        struct heist__dns_waiter *w = heist__list_entry(l, struct heist__dns_waiter, link);
        w->code = code;
        w->answer = answer;
        if (answer) answer->refs++;
        heist_future *f = heist_ref(w->future);
        heist_future_set_result(f, NULL, NULL); /* nobody else has it, so no code of anybody's runs here */
        heist_unref(f);
    }
    heist__list_remove(&q->link);
    d->pending_count--;
    q->pending = false;
    q->code = code;
    q->answer = answer;
    if (ttl > d->max_ttl) ttl = d->max_ttl;
    if (ttl > 0 && d->cache_entries && !d->closed && !q->reverse) {
        q->expires = heist_loop_time(d->loop) + ttl;
        heist__list_push_back(&d->kept, &q->link);
        d->kept_count++;
        while (d->kept_count > d->cache_entries)
            drop_kept(d, heist__list_entry(d->kept.next, struct heist__dns_query, link)); /* NOLINT */
    } else {
        query_free(q);
    }
    pthread_mutex_unlock(&d->lock);
}

/* ---- c-ares ---- */

/* What the whole answer allows: the least of its parts; a number with its highest bit set counts as none. */
static int ttl_of(const struct ares_addrinfo *found) {
    int ttl = -1;
    for (const struct ares_addrinfo_node *n = found->nodes; n; n = n->ai_next)
        if (ttl < 0 || n->ai_ttl < ttl) ttl = n->ai_ttl > 0 ? n->ai_ttl : 0;
    for (const struct ares_addrinfo_cname *c = found->cnames; c; c = c->next)
        if (ttl < 0 || c->ttl < ttl) ttl = c->ttl > 0 ? c->ttl : 0;
    return ttl > 0 ? ttl : 0;
}

static bool usable(const struct ares_addrinfo_node *n) {
    return (n->ai_family == AF_INET || n->ai_family == AF_INET6) && n->ai_addrlen <= sizeof(struct sockaddr_storage);
}

static int answer_of(const struct ares_addrinfo *found, struct heist__dns_answer **out) {
    size_t count = 0;
    for (const struct ares_addrinfo_node *n = found->nodes; n; n = n->ai_next) count += usable(n);
    if (!count) return HEIST_ENOADDRESS;
    /* The end of the chain of aliases, which comes in its order. */
    const char *name = found->name;
    for (const struct ares_addrinfo_cname *c = found->cnames; c; c = c->next)
        if (c->name) name = c->name;
    struct heist__dns_answer *a = answer_new(count, name);
    if (!a) return -ENOMEM;
    heist_addr *at = a->at;
    for (const struct ares_addrinfo_node *n = found->nodes; n; n = n->ai_next) {
        if (!usable(n)) continue;
        at->length = n->ai_addrlen;
        memcpy(&at->storage, n->ai_addr, n->ai_addrlen);
        at++;
    }
    *out = a;
    return 0;
}

static void on_addresses(void *arg, int status, int timeouts, struct ares_addrinfo *found) {
    struct heist__dns_query *q = arg;
    heist_dns *d = q->dns;
    struct heist__dns_answer *answer = NULL;
    double ttl = 0;
    (void)timeouts;
    int code = code_of(d, status);
    if (!code) code = found ? answer_of(found, &answer) : HEIST_ENAMEFAIL;
    if (!code) ttl = ttl_of(found);
    else if (code == HEIST_ENONAME || code == HEIST_ENOADDRESS) ttl = d->negative_ttl;
    ares_freeaddrinfo(found);
    heist__dns_finish(q, code, answer, ttl);
}

static void finish_name(struct heist__dns_query *q, int code, const char *name) {
    struct heist__dns_answer *answer = NULL;
    if (code == HEIST_ENOADDRESS || (!code && !name)) code = HEIST_ENONAME;
    if (!code && !(answer = answer_new(0, name))) code = -ENOMEM;
    heist__dns_finish(q, code, answer, 0);
}

static void on_pointer(void *arg, int status, int timeouts, unsigned char *packet, int length) {
    struct heist__dns_query *q = arg;
    const struct sockaddr_in *in = (const struct sockaddr_in *)&q->addr.storage;
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&q->addr.storage;
    struct hostent *found = NULL;
    (void)timeouts;
    if (status == ARES_SUCCESS && q->family == AF_INET)
        status = ares_parse_ptr_reply(packet, length, &in->sin_addr, sizeof(in->sin_addr), AF_INET, &found);
    else if (status == ARES_SUCCESS)
        status = ares_parse_ptr_reply(packet, length, &in6->sin6_addr, sizeof(in6->sin6_addr), AF_INET6, &found);
    if (status != ARES_SUCCESS) found = NULL;
    finish_name(q, code_of(q->dns, status), found ? found->h_name : NULL);
    if (found) ares_free_hostent(found);
}

/* The hosts channel's answer, which comes within the call. */
static void on_hosts_name(void *arg, int status, int timeouts, struct hostent *found) {
    char **name = arg;
    (void)timeouts;
    if (status == ARES_SUCCESS && found && found->h_name) *name = strdup(found->h_name);
}

/* The question for a name: the address backwards. */
static void pointer_name(const heist_addr *addr, char *out, size_t size) {
    static const char digits[] = "0123456789abcdef";
    if (addr->storage.ss_family == AF_INET) {
        const unsigned char *b = (const unsigned char *)&((const struct sockaddr_in *)&addr->storage)->sin_addr;
        snprintf(out, size, "%u.%u.%u.%u.in-addr.arpa", b[3], b[2], b[1], b[0]);
        return;
    }
    const unsigned char *b = (const unsigned char *)&((const struct sockaddr_in6 *)&addr->storage)->sin6_addr;
    for (int i = 15; i >= 0; i--) {
        *out++ = digits[b[i] & 15];
        *out++ = '.';
        *out++ = digits[b[i] >> 4];
        *out++ = '.';
    }
    memcpy(out, "ip6.arpa", sizeof("ip6.arpa"));
}

/* c-ares' own call for this takes every failure of the servers for a name that does not exist. */
static void ask_backwards(heist_dns *d, struct heist__dns_query *q) {
    const struct sockaddr_in *in = (const struct sockaddr_in *)&q->addr.storage;
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&q->addr.storage;
    char *known = NULL, name[80];
    if (d->hosts && q->family == AF_INET)
        ares_gethostbyaddr(d->hosts, &in->sin_addr, sizeof(in->sin_addr), AF_INET, on_hosts_name, &known);
    else if (d->hosts)
        ares_gethostbyaddr(d->hosts, &in6->sin6_addr, sizeof(in6->sin6_addr), AF_INET6, on_hosts_name, &known);
    if (known) {
        finish_name(q, 0, known);
        free(known);
        return;
    }
    pointer_name(&q->addr, name, sizeof(name));
    ares_query(d->channel, name, CLASS_IN, TYPE_PTR, on_pointer, q);
}

void heist__dns_ask(heist_dns *d, struct heist__dns_query *q) {
    if (q->reverse) {
        ask_backwards(d, q);
    } else {
        struct ares_addrinfo_hints hints = {ARES_AI_CANONNAME, q->family, SOCK_STREAM, 0};
        ares_getaddrinfo(d->channel, q->name, NULL, &hints, on_addresses, q);
    }
}

/* ---- a call ---- */

struct call {
    const char *name; /* or */
    const heist_addr *addr;
    int family;
    double deadline;
};

/* Joins a query: 0, and *start is one that must be started; 1: answered already; or a code.  Under `lock`. */
static int join(heist_dns *d, const struct call *c, struct heist__dns_waiter *w, struct heist__dns_query **start) {
    if (d->closed) return HEIST_ECLOSED;
    d->lookups++;
    struct heist__dns_query *q = c->addr ? NULL : query_find(d, c->name, c->family);
    if (q && !q->pending) {
        if (heist_loop_time(d->loop) < q->expires) {
            d->cached++;
            heist__list_remove(&q->link);
            heist__list_push_back(&d->kept, &q->link);
            w->code = q->code;
            w->answer = q->answer;
            if (q->answer) q->answer->refs++;
            return 1;
        }
        drop_kept(d, q);
        q = NULL;
    }
    if (q) {
        d->shared++;
    } else {
        if (d->pending_count >= HEIST__DNS_PENDING_MAX) return -EAGAIN;
        q = query_new(d, c->name ? c->name : "", c->family, c->addr);
        if (!q) return -ENOMEM;
        d->asked++;
        *start = q;
    }
    heist__list_push_back(&q->waiters, &w->link);
    return 0;
}

/* The answer, a reference to which the caller gives back under `lock`; or a code. */
static int ask_and_wait(heist_dns *d, const struct call *c, struct heist__dns_answer **out) {
    struct heist__dns_waiter w = {.code = 0};
    struct heist__dns_query *start = NULL;
    heist__list_init(&w.link);
    int err = heist_await(d->ready, NULL); /* cancelled, a callback, a fork */
    if (!err) err = heist_future_new(NULL, &w.future);
    if (err) return err;
    pthread_mutex_lock(&d->lock);
    int joined = join(d, c, &w, &start);
    pthread_mutex_unlock(&d->lock);
    if (joined < 0) err = joined;
    if (!joined) {
        err = start ? heist__dns_start(d, start) : 0;
        if (err) heist__dns_refuse(d, start, err); /* others may have joined meanwhile */
        err = heist_await_until(w.future, c->deadline, NULL);
        pthread_mutex_lock(&d->lock);
        heist__list_remove(&w.link);
        if (err) answer_unref(w.answer);
        pthread_mutex_unlock(&d->lock);
    }
    heist_unref(w.future);
    if (err) return err;
    *out = w.answer;
    return w.code;
}

static void give_back(heist_dns *d, struct heist__dns_answer *a) {
    pthread_mutex_lock(&d->lock);
    answer_unref(a);
    pthread_mutex_unlock(&d->lock);
}

/* A call inside is a user; but without any, it is a task of the loop's runtime, which it keeps anyway. */
static bool enter(heist_dns *d) {
    pthread_mutex_lock(&d->lock);
    bool as_user = d->users > 0;
    if (as_user) d->users++;
    else d->refs++;
    pthread_mutex_unlock(&d->lock);
    return as_user;
}

static void leave(heist_dns *d, bool as_user) {
    if (as_user) heist_dns_unref(d);
    else heist__dns_drop(d);
}

static int look_up(heist_dns *d, const struct call *c, unsigned flags, heist_addrinfo_list **out) {
    struct heist__dns_answer *a = NULL;
    int err = ask_and_wait(d, c, &a);
    if (err) return err;
    heist_addrinfo_list *list;
    err = heist_addrinfo_list_new(a->count, flags & HEIST_AI_CANONNAME ? a->name : NULL, &list);
    if (!err) {
        for (size_t i = 0; i < a->count; i++) list->at[i].addr = a->at[i];
        *out = list;
    }
    give_back(d, a);
    return err;
}

static int look_back(heist_dns *d, const struct call *c, char *name, size_t size) {
    struct heist__dns_answer *a = NULL;
    int err = ask_and_wait(d, c, &a);
    if (err) return err;
    size_t length = strlen(a->name);
    if (length >= size || length >= PTR_NAME_BYTES) err = -EOVERFLOW;
    else memcpy(name, a->name, length + 1);
    give_back(d, a);
    return err;
}

int heist_dns_lookup(heist_dns *d, const char *host, int family, unsigned flags, double deadline,
                     heist_addrinfo_list **out) {
    if (!d || !host || !out || (flags & ~HEIST_AI_CANONNAME) || isnan(deadline)) return -EINVAL;
    if (family && family != AF_INET && family != AF_INET6) return -EAFNOSUPPORT;
    if (heist__dns_forked(d)) return HEIST_EFORKED;
    size_t length = strlen(host);
    if (!length || length > NAME_MAX_BYTES) return HEIST_ENONAME;
    char name[NAME_MAX_BYTES + 1];
    memcpy(name, host, length + 1);
    for (size_t i = 0; i < length; i++)
        if (name[i] >= 'A' && name[i] <= 'Z') name[i] = (char)(name[i] + ('a' - 'A'));
    struct call c = {name, NULL, family, deadline};
    bool as_user = enter(d);
    int err = look_up(d, &c, flags, out);
    leave(d, as_user);
    return err;
}

int heist_dns_reverse(heist_dns *d, const heist_addr *addr, double deadline, char *name, size_t size) {
    if (!d || !addr || !name || !size || isnan(deadline)) return -EINVAL;
    int family = addr->storage.ss_family;
    if (!(family == AF_INET && addr->length >= sizeof(struct sockaddr_in)) &&
        !(family == AF_INET6 && addr->length >= sizeof(struct sockaddr_in6)))
        return -EAFNOSUPPORT;
    if (heist__dns_forked(d)) return HEIST_EFORKED;
    struct call c = {NULL, addr, family, deadline};
    bool as_user = enter(d);
    int err = look_back(d, &c, name, size);
    leave(d, as_user);
    return err;
}

int heist_dns_get_stats(heist_dns *d, heist_dns_stats *out) {
    if (!d || !out || out->size < sizeof(*out)) return -EINVAL;
    if (heist__dns_forked(d)) return HEIST_EFORKED;
    pthread_mutex_lock(&d->lock);
    out->lookups = d->lookups;
    out->asked = d->asked;
    out->shared = d->shared;
    out->cached = d->cached;
    out->pending = d->pending_count;
    out->kept = d->kept_count;
    pthread_mutex_unlock(&d->lock);
    return 0;
}
