/* The inside of libheist-dns: a resolver, and the names that it asks for or knows.
 *
 * It stands on the public headers and the plain headers of base/: nothing of it is linked into the core.
 *
 * One c-ares channel for each resolver, driven by one loop.  c-ares is not safe for threads, and `channel_lock` is held
 * around each of its calls; callbacks of the loop make nearly all of them, so there is next to no contention, and tasks
 * on other workers never wait for it: they take `lock` alone, for moments, and post.  Order: channel_lock, then lock;
 * no code of the user's runs under either.
 *
 * References, counted under `lock`: the users' together have one, as has each thing that stands on the loop (a start, a
 * tick, a watched socket, given back by its arg_free) or in its runtime (the installed resolver, a look-up by way of
 * it).  The users have one of the loop, too; what stands on it has none, for that would keep what ends it.
 *
 * While a query is under way there is a start or a tick on the loop, so the close of the loop is always noticed: their
 * arg_free runs without their having run, or having been cancelled by us, and that shuts the resolver. */
#ifndef HEIST_DNS_DNS_H
#define HEIST_DNS_DNS_H

#include <ares.h>
#include <heist/dns.h>
#include <heist/error.h>
#include <heist/future.h>
#include <heist/loop.h>
#include <heist/runtime.h>
#include <pthread.h>
#include <stdbool.h>
#include <sys/types.h>

#include "base/list.h"

/* c-ares looks for a query number that is free among 65,536, for as long as it takes. */
#define HEIST__DNS_PENDING_MAX 10000
#define HEIST__DNS_BUCKETS 1024

struct heist__dns_tick; /* a timer for the channel; driver.c */

/* Shared by all who waited for it and the cache; never changed.  refs under `lock`. */
struct heist__dns_answer {
    unsigned refs;
    size_t count;
    char *name; /* canonical, or of an address; NULL: none */
    heist_addr at[];
};

/* A name that is asked for, or whose answer is kept.
 *
 *   PENDING ──answer──> KEPT (in the cache), or freed
 *
 * A pending one is in `pending`, a kept one in `kept`, the last used at the end; both but reverse ones are in the
 * table. */
struct heist__dns_query {
    struct heist__link link;   /* in pending or kept */
    struct heist__link bucket; /* in the table; unlinked: a reverse one */
    struct heist__link waiters;
    heist_dns *dns;
    bool pending;
    int family; /* AF_UNSPEC too; of a reverse one the address's */
    bool reverse;
    heist_addr addr; /* of a reverse one */
    int code;        /* of a kept one; 0: there is an answer */
    struct heist__dns_answer *answer;
    double expires;
    char name[]; /* in lower case */
};

/* On the stack of the call. */
struct heist__dns_waiter {
    struct heist__link link; /* linked: not answered yet; under `lock` */
    heist_future *future;    /* done when it is */
    int code;
    struct heist__dns_answer *answer; /* one reference */
};

struct heist_dns {
    /* birth */
    heist_loop *loop;
    heist_future *ready; /* done: awaiting it is what a call that may suspend does first */
    pid_t pid;
    size_t cache_entries;
    double max_ttl, negative_ttl;

    pthread_mutex_t channel_lock; /* of the next four */
    ares_channel channel;         /* NULL: shut */
    ares_channel hosts;           /* knows /etc/hosts alone, and answers within the call; NULL: not wanted */
    struct heist__dns_tick *tick;
    int socket_error; /* why the last socket could not be made, when the system was short of something; else 0 */

    pthread_mutex_t lock; /* of what follows */
    unsigned refs, users;
    bool closed;
    struct heist__link pending, kept;
    size_t kept_count, pending_count;
    uint64_t lookups, asked, shared, cached;
    struct heist__link table[HEIST__DNS_BUCKETS];
};

/* ---- driver.c ---- */

/* Has the loop ask for it: 0, or why not. */
int heist__dns_start(heist_dns *d, struct heist__dns_query *q);
/* One that could not be started ends with that code. */
void heist__dns_refuse(heist_dns *d, struct heist__dns_query *q, int code);
/* References that do not keep the loop. */
heist_dns *heist__dns_hold(heist_dns *d);
void heist__dns_drop(heist_dns *d);
/* Everything ends now. */
void heist__dns_shut(heist_dns *d);
bool heist__dns_forked(const heist_dns *d);

/* ---- names.c ---- */

/* Hands the name to c-ares, whose callback comes once, perhaps within.  Under channel_lock. */
void heist__dns_ask(heist_dns *d, struct heist__dns_query *q);
/* The end of a pending one: all who wait get the code, or the answer (whose reference passes); ttl: how long it may be
 * kept, in seconds.  q may be gone.  Under channel_lock. */
void heist__dns_finish(struct heist__dns_query *q, int code, struct heist__dns_answer *answer, double ttl);
/* Frees all that is kept.  Takes `lock`. */
void heist__dns_forget(heist_dns *d);

#endif
