/* heist/dns.h: names by the library's own queries to name servers, on a loop.
 *
 * Not part of heist.h: a library of its own, libheist-dns, over c-ares.  A *resolver* sends queries and reads answers
 * on one loop, so a look-up costs no thread, a look-up that is given up costs nothing more than its query, and
 * thousands may be under way.  /etc/resolv.conf, /etc/hosts and search domains are used as the system does.  Look-ups
 * of one name at the same time share one query.
 *
 * Usual is one for a runtime: heist_dns_new in main, heist_dns_install, heist_dns_unref; then heist_getaddrinfo,
 * heist_getnameinfo and what stands on them ask it, and it goes with the runtime.
 *
 * The loop's callbacks drive it: while a task or callback holds that loop's worker, answers wait.  Its queries take the
 * machine's time, and a loop with virtual time does not stand still for them, but looks again and again and lets its
 * clock run on: there, give the runtime a resolver of your own that answers from a table. */
#ifndef HEIST_DNS_H
#define HEIST_DNS_H

#include <heist/base.h>
#include <heist/resolve.h>

#define HEIST_DNS_API HEIST_API

HEIST_BEGIN_DECLS

typedef struct heist_dns heist_dns; /* a resolver; reference counted, for any thread */

#define HEIST_DNS_NO_SEARCH 0x1u /* names are whole: no search domains */
#define HEIST_DNS_NO_HOSTS 0x2u  /* /etc/hosts is not read */
#define HEIST_DNS_TCP 0x4u       /* queries go over TCP; without it, only those whose answer is too long for UDP */

typedef struct heist_dns_options {
    size_t size;
    unsigned flags;            /* HEIST_DNS_…; an unknown flag is -EINVAL */
    int tries;                 /* how often each server is asked; 0: 3 */
    double timeout;            /* seconds that the first try waits, doubled each time round; 0: 2 s.  Over TCP, where
                                * nothing is lost on the way, there is one try on a connection */
    const char *servers;       /* "192.0.2.1,[2001:db8::1]:5353"; NULL: those of /etc/resolv.conf */
    heist_loop *loop;          /* which drives it; NULL: the running one */
    size_t cache_entries;      /* answers that are kept for as long as they allow; 0: none */
    double cache_max_ttl;      /* never kept for longer, in seconds; 0: a day */
    double cache_negative_ttl; /* how long it is kept that a name or address does not exist; 0: not at all */
} heist_dns_options;
#define HEIST_DNS_OPTIONS_INIT {sizeof(heist_dns_options), 0, 0, 0, NULL, NULL, 0, 0, 0}

/* Reads the system's settings, once.
 * Context: any; without a loop in opts: task or callback.  Suspends: never.  Ownership: *out is one reference; it
 * keeps the loop, but not when it is only installed there.
 * Errors: -EINVAL (also servers that cannot be read), HEIST_ENOLOOP, HEIST_ECLOSED, -ENOMEM, HEIST_ENAMEFAIL (the
 * system's settings cannot be read). */
HEIST_DNS_API int heist_dns_new(const heist_dns_options *opts, heist_dns **out) HEIST_NODISCARD;
/* Context: any.  Suspends: never.  NULL is allowed. */
HEIST_DNS_API heist_dns *heist_dns_ref(heist_dns *d);
HEIST_DNS_API void heist_dns_unref(heist_dns *d);

/* Ends it: who waits gets HEIST_ECLOSED, as does who comes later, and its sockets are closed.  So does the close of its
 * loop.  Idempotent.  Context: any.  Suspends: never. */
HEIST_DNS_API void heist_dns_close(heist_dns *d);

/* From now on tasks of the loop's runtime (NULL: the running loop's) ask this one; see heist_loop_set_resolver.
 * Context: any; with loop = NULL: task or callback.  Suspends: never.  Ownership: takes a reference of its own.
 * Errors: -EINVAL, HEIST_ENOLOOP, HEIST_ECLOSED, -ENOMEM. */
HEIST_DNS_API int heist_dns_install(heist_dns *d, heist_loop *loop);

/* The addresses of a name, with ports of zero.  family: AF_INET, AF_INET6, or 0 for both.  flags: HEIST_AI_CANONNAME
 * or 0.  Whoever gives up waiting leaves the query behind; its answer may still go into the cache.
 * Context: any.  Suspends: may; a plain thread blocks.  Ownership: *out is released by heist_freeaddrinfo.
 * Errors: HEIST_ENONAME, HEIST_ENOADDRESS, HEIST_ETRYAGAIN (servers are silent, refuse or fail), HEIST_ENAMEFAIL,
 * HEIST_ECLOSED, -ETIMEDOUT, -ECANCELED, -EINVAL, -EAFNOSUPPORT, -ENOMEM, -EMFILE and -ENFILE (no socket to ask
 * with), -EAGAIN (more than 10,000 look-ups under way), HEIST_ENOTINCORO. */
HEIST_DNS_API int heist_dns_lookup(heist_dns *d, const char *host, int family, unsigned flags, double deadline,
                                   heist_addrinfo_list **out) HEIST_NODISCARD;
/* The name of an address, which is not kept in the cache; always terminated.
 * Context, Errors: as heist_dns_lookup; -EOVERFLOW (it does not fit). */
HEIST_DNS_API int heist_dns_reverse(heist_dns *d, const heist_addr *addr, double deadline, char *name, size_t size)
    HEIST_NODISCARD;

/* Forgets all answers that were kept.  Context: any.  Suspends: never. */
HEIST_DNS_API void heist_dns_clear_cache(heist_dns *d);

typedef struct heist_dns_stats {
    size_t size;
    uint64_t lookups; /* calls */
    uint64_t asked;   /* of them, those that began a query (of /etc/hosts or servers) */
    uint64_t shared;  /* those that joined one under way */
    uint64_t cached;  /* those that were answered from the cache */
    size_t pending;   /* queries under way, also those that nobody waits for */
    size_t kept;      /* answers in the cache */
} heist_dns_stats;
#define HEIST_DNS_STATS_INIT {sizeof(heist_dns_stats), 0, 0, 0, 0, 0, 0}
/* Context: any.  Suspends: never.  Errors: -EINVAL. */
HEIST_DNS_API int heist_dns_get_stats(heist_dns *d, heist_dns_stats *out);

HEIST_END_DECLS

#endif
