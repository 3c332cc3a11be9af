/* heist/resolve.h: names to addresses, and back.
 *
 * An address that is written out and a port that is a number are read at once.  Any other name is looked up by the
 * system (getaddrinfo: /etc/hosts, DNS and what else the machine is set up for) in the default executor of the
 * caller's runtime, or by the resolver that the runtime was given, as libheist-dns.  No worker is held.  Whoever
 * gives up waiting, cancelled or out of time, leaves the look-up behind: it touches nothing of the caller's, and what
 * it still finds is freed.  As all jobs of the default executor it is waited for at the end of heist_run.
 *
 * In debug mode a look-up that took longer than heist_loop_set_slow_callback_duration says is told to the loop's
 * exception handler: "a name look-up was slow", with its name and seconds. */
#ifndef HEIST_RESOLVE_H
#define HEIST_RESOLVE_H

#include <heist/base.h>
#include <heist/net.h>

HEIST_BEGIN_DECLS

/* One answer: what socket, bind and connect take. */
typedef struct heist_addrinfo {
    heist_addr addr;
    int socktype; /* SOCK_STREAM … */
    int protocol; /* IPPROTO_TCP … */
} heist_addrinfo;

/* The answers, the best first; at least one. */
typedef struct heist_addrinfo_list {
    size_t count;
    heist_addrinfo *at;
    const char *canonical; /* the host's own name, where HEIST_AI_CANONNAME asked for it and it is known; else NULL */
} heist_addrinfo_list;

#define HEIST_AI_PASSIVE 0x1u     /* without a host: the addresses to listen on, instead of this machine's own */
#define HEIST_AI_CANONNAME 0x2u   /* fill in `canonical` */
#define HEIST_AI_NUMERICHOST                                                                                           \
    0x4u /* host must be an address: anything else is HEIST_ENONAME, and nothing is looked up */
#define HEIST_AI_NUMERICSERV 0x8u /* service must be a number: anything else is HEIST_ESERVICE */

typedef struct heist_addrinfo_hints {
    size_t size;
    unsigned flags; /* HEIST_AI_… */
    int family;     /* AF_INET, AF_INET6; 0: both */
    int socktype;   /* SOCK_STREAM, SOCK_DGRAM, SOCK_RAW, SOCK_SEQPACKET; 0: SOCK_STREAM */
    int protocol;   /* 0: the usual one of the type */
} heist_addrinfo_hints;
#define HEIST_ADDRINFO_HINTS_INIT {sizeof(heist_addrinfo_hints), 0, 0, 0, 0}

/* The addresses of a host and a service.
 * host: a name, or an IPv4 or IPv6 address (a scope may follow: "fe80::1%eth0"); NULL: this machine.  Names are bytes:
 * international ones must be given in their ASCII form.
 * service: "80", "https"; NULL or "": port 0.  hints: NULL: all defaults.  deadline: an instant of heist_time(), or
 * HEIST_FOREVER.
 * Context: any.  Suspends: may; a plain thread blocks, and always asks the system.
 * Ownership: *out is released by heist_freeaddrinfo.
 * Errors: HEIST_ENONAME (there is no such name), HEIST_ENOADDRESS (there is, but without an address of that family),
 * HEIST_ETRYAGAIN (no answer for now), HEIST_ENAMEFAIL (the look-up failed for good), HEIST_ESERVICE, -ETIMEDOUT,
 * -ECANCELED, -EINVAL, -EAFNOSUPPORT, -ESOCKTNOSUPPORT, -ENOMEM, -EAGAIN (no thread to be had),
 * HEIST_EEXECSHUTDOWN (the default executor was shut down), HEIST_ENOTINCORO, and what a resolver of the runtime's
 * own says. */
HEIST_API int heist_getaddrinfo(const char *host, const char *service, const heist_addrinfo_hints *hints,
                                double deadline, heist_addrinfo_list **out) HEIST_NODISCARD;
/* Context: any.  Suspends: never.  NULL is allowed. */
HEIST_API void heist_freeaddrinfo(heist_addrinfo_list *list);

#define HEIST_NI_NUMERICHOST 0x1u /* the address in figures; nothing is looked up */
#define HEIST_NI_NUMERICSERV 0x2u /* the same of the port */
#define HEIST_NI_NAMEREQD 0x4u    /* an address without a name is HEIST_ENONAME; else its figures are given */
#define HEIST_NI_DGRAM 0x8u       /* the service is one of UDP */

/* The names of an address and its port, always terminated.  What is not wanted is NULL, with size 0; one of the two
 * must be wanted.  1025 bytes for the host and 32 for the service are always enough.
 * Context: any.  Suspends: may; a plain thread blocks, and always asks the system.
 * Errors: HEIST_ENONAME, HEIST_ETRYAGAIN, HEIST_ENAMEFAIL, -EOVERFLOW (one does not fit), -EAFNOSUPPORT (neither IPv4
 * nor IPv6), -ETIMEDOUT, -ECANCELED, -EINVAL, -ENOMEM, -EAGAIN, HEIST_EEXECSHUTDOWN, HEIST_ENOTINCORO. */
HEIST_API int heist_getnameinfo(const heist_addr *addr, unsigned flags, double deadline, char *host, size_t host_size,
                                char *service, size_t service_size) HEIST_NODISCARD;

/* ---- another resolver ---- */

/* Who answers instead of the system.  The functions are called in tasks of the runtime, several at once, on any of its
 * workers; they may suspend, and must when the answer takes time; they are cancellation points.  Services, written-out
 * addresses and HEIST_AI_PASSIVE are not their business.  Codes are those of the two calls above. */
typedef struct heist_resolver_ops {
    size_t size;
    /* The addresses of a name, in a list of heist_addrinfo_list_new; family and address of each, its port zero.
     * family: AF_INET, AF_INET6 or 0.  flags: HEIST_AI_CANONNAME or 0. */
    int (*lookup)(void *self, const char *host, int family, unsigned flags, double deadline, heist_addrinfo_list **out);
    /* The name of an address; the buffer holds 1025 bytes.  NULL: the system is asked. */
    int (*reverse)(void *self, const heist_addr *addr, double deadline, char *name, size_t size);
    /* Runs once, when the runtime has let go of it and no call is inside any more.  Any thread; must not suspend.  May
     * be NULL. */
    void (*release)(void *self);
} heist_resolver_ops;
#define HEIST_RESOLVER_OPS_INIT {sizeof(heist_resolver_ops), NULL, NULL, NULL}

/* From now on tasks of the loop's runtime (NULL: the running loop's) ask this one; the one before is let go.  ops =
 * NULL: the system again.  A look-up in progress ends with whom it began.  The close of the runtime lets go of it.
 * Context: any; with loop = NULL: task or callback.  Suspends: never.
 * Ownership: *ops is copied; self passes to the runtime, on failure the caller still owns it.
 * Errors: -EINVAL, HEIST_ENOLOOP, HEIST_ECLOSED, -ENOMEM. */
HEIST_API int heist_loop_set_resolver(heist_loop *loop, const heist_resolver_ops *ops, void *self);

/* For resolvers: a list with room for `count` answers, all zero, and a copy of the canonical name (may be NULL).
 * Context: any.  Suspends: never.  Ownership: as heist_getaddrinfo.  Errors: -EINVAL, -ENOMEM. */
HEIST_API int heist_addrinfo_list_new(size_t count, const char *canonical, heist_addrinfo_list **out) HEIST_NODISCARD;

HEIST_END_DECLS

#endif
