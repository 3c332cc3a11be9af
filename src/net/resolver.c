/* Which resolver a runtime has; and the lists that resolvers fill.
 *
 * The runtime's field holds one reference and is read and replaced under the runtime's mutex; each call inside holds
 * another.  So the last one, whoever it is, calls `release`, once, when nobody is inside and nobody can come. */
#include "net/resolver.h"

#include <heist/error.h>
#include <heist/loop.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fork.h"
#include "base/options.h"
#include "conc/self.h"
#include "sched/sched.h"

void heist__resolver_unref(struct heist__resolver *r) {
    if (!r || a_sub_sc(&r->refs, 1) != 1) return;
    if (r->ops.release) heist__destruct(r->ops.release, r->self);
    heist__free(r);
}

struct heist__resolver *heist__resolver_here(void) {
    struct heist__self *self = heist__self();
    if (!self->task) return NULL;
    heist_runtime *rt = self->loop->rt;
    heist__mutex_lock(&rt->mutex);
    struct heist__resolver *r = rt->resolver;
    if (r) a_add_sc(&r->refs, 1);
    heist__mutex_unlock(&rt->mutex);
    return r;
}

int heist_loop_set_resolver(heist_loop *loop, const heist_resolver_ops *ops, void *self) {
    if (ops && (!heist__options_ok(ops, sizeof(*ops)) || !ops->lookup)) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    if (!loop && !(loop = heist__self()->loop)) return HEIST_ENOLOOP;
    if (heist_loop_is_closed(loop)) return HEIST_ECLOSED;
    struct heist__resolver *fresh = NULL;
    if (ops) {
        fresh = heist__alloc(sizeof(*fresh));
        if (!fresh) return -ENOMEM;
        a_store_sc(&fresh->refs, 1);
        fresh->ops = *ops;
        fresh->self = self;
    }
    heist_runtime *rt = loop->rt;
    heist__mutex_lock(&rt->mutex);
    bool closed = rt->resolver_ended;
    struct heist__resolver *old = rt->resolver;
    if (!closed) {
        rt->resolver = fresh;
        rt->resolver_end = heist__resolver_unref;
    }
    heist__mutex_unlock(&rt->mutex);
    if (closed) {
        heist__free(fresh);
        return HEIST_ECLOSED;
    }
    heist__resolver_unref(old);
    return 0;
}

/* One block: the list, its answers, the name. */
int heist_addrinfo_list_new(size_t count, const char *canonical, heist_addrinfo_list **out) {
    size_t name = canonical ? strlen(canonical) + 1 : 0;
    if (!count || !out || count > (SIZE_MAX / 2 - name) / sizeof(heist_addrinfo)) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    struct {
        heist_addrinfo_list list;
        heist_addrinfo at[];
    } *block = heist__zalloc(sizeof(*block) + count * sizeof(heist_addrinfo) + name);
    if (!block) return -ENOMEM;
    heist_addrinfo_list *list = &block->list;
    list->count = count;
    list->at = block->at;
    if (name) list->canonical = memcpy(&block->at[count], canonical, name);
    *out = list;
    return 0;
}

void heist_freeaddrinfo(heist_addrinfo_list *list) { heist__free(list); }
