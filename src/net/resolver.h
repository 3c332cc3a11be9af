/* The resolver that a runtime was given instead of the system's. */
#ifndef HEIST_NET_RESOLVER_H
#define HEIST_NET_RESOLVER_H

#include <heist/resolve.h>

#include "conc/atomic.h"

struct heist__resolver {
    _Atomic(size_t) refs; /* the runtime's, and one of each call inside */
    heist_resolver_ops ops;
    void *self;
};

/* A reference to that of the running task's runtime, or NULL: none, or no task. */
struct heist__resolver *heist__resolver_here(void);
void heist__resolver_unref(struct heist__resolver *r);

#endif
