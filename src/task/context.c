/* Context variables.  See context.h. */
#include "task/context.h"

#include <heist/error.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fork.h"
#include "base/options.h"
#include "conc/self.h"
#include "task/extra.h"
#include "task/task.h"

struct heist_context_var {
    _Atomic(uint64_t) refs;
    void *value; /* the default */
    heist_free_fn value_free;
    bool has_default;
    char name[];
};

struct heist__item {
    _Atomic(uint64_t) refs;
    heist_context_var *var; /* one reference */
    void *value;
    heist_free_fn value_free;
};

struct entry {
    heist_context_var *var; /* the item's; they are sorted by it */
    struct heist__item *item;
};

struct heist__vars {
    _Atomic(uint64_t) refs;
    uint32_t count, room;
    struct entry entries[];
};

_Atomic(int) heist__contexts_made;
void heist__contexts_use(void) {
    if (!heist__contexts_used()) a_store_sc(&heist__contexts_made, 1);
}
static _Atomic(uint64_t) last_scope_id;

/* ---- variables ---- */

int heist_context_var_new(const char *name, const heist_context_var_options *opts, heist_context_var **out) {
    if (!out || !heist__options_ok(opts, sizeof(*opts))) return -EINVAL;
    if (opts && ((opts->flags & ~HEIST_CONTEXT_VAR_DEFAULT) || (!opts->flags && (opts->value || opts->value_free))))
        return -EINVAL;
    if (heist__fork_guard()) return -ENOMEM;
    if (heist__forked()) return HEIST_EFORKED;
    if (!name) name = "unnamed";
    size_t length = strlen(name) + 1;
    heist_context_var *var = heist__alloc(sizeof(*var) + length);
    if (!var) return -ENOMEM;
    a_store_rlx(&var->refs, 1); /* rlx: published by *out */
    var->value = opts ? opts->value : NULL;
    var->value_free = opts ? opts->value_free : NULL;
    var->has_default = opts && opts->flags;
    memcpy(var->name, name, length);
    heist__contexts_use();
    *out = var;
    return 0;
}

heist_context_var *heist_context_var_ref(heist_context_var *var) {
    if (var) a_add_rlx(&var->refs, 1); /* rlx: the caller holds one */
    return var;
}

void heist_context_var_unref(heist_context_var *var) {
    if (!var || heist__forked()) return;      /* a child's copy is the parent's */
    if (a_sub_ar(&var->refs, 1) != 1) return; /* ar: as every last reference */
    if (var->value_free) heist__destruct(var->value_free, var->value);
    heist__free(var);
}

const char *heist_context_var_name(const heist_context_var *var) { return var ? var->name : NULL; }

/* ---- items and arrays ---- */

static void item_unref(struct heist__item *item) {
    if (!item || a_sub_ar(&item->refs, 1) != 1) return; /* ar: as every last reference */
    if (item->value_free) heist__destruct(item->value_free, item->value);
    heist_context_var_unref(item->var);
    heist__free(item);
}

static struct heist__vars *vars_ref(struct heist__vars *v) {
    if (v) a_add_rlx(&v->refs, 1); /* rlx: the caller holds one, or the lock of the scope that does */
    return v;
}

void heist__vars_unref(struct heist__vars *v) {
    if (!v || a_sub_ar(&v->refs, 1) != 1) return; /* ar: as every last reference; pairs with `change` too */
    for (uint32_t i = 0; i < v->count; i++) item_unref(v->entries[i].item);
    heist__free(v);
}

/* Where the variable stands, or would stand. */
static uint32_t place_of(const struct heist__vars *v, const heist_context_var *var, bool *found) {
    uint32_t low = 0, high = v ? v->count : 0;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if ((uintptr_t)v->entries[middle].var < (uintptr_t)var) low = middle + 1;
        else high = middle;
    }
    *found = v && low < v->count && v->entries[low].var == var;
    return low;
}

/* Puts the item at its place, or takes the variable out (NULL); the array has room.  What stood there. */
static struct heist__item *put(struct heist__vars *v, uint32_t at, bool found, heist_context_var *var,
                               struct heist__item *item) {
    struct entry *e = &v->entries[at];
    struct heist__item *old = found ? e->item : NULL;
    if (found && !item) memmove(e, e + 1, (--v->count - at) * sizeof(*e));
    else if (!found) memmove(e + 1, e, (v->count++ - at) * sizeof(*e));
    if (item) *e = (struct entry){var, item};
    return old;
}

static struct heist__vars *copy_with_room(const struct heist__vars *v) {
    uint32_t count = v ? v->count : 0, room = count + 2 + count / 2;
    struct heist__vars *fresh = heist__alloc(sizeof(*fresh) + room * sizeof(fresh->entries[0]));
    if (!fresh) return NULL;
    a_store_rlx(&fresh->refs, 1); /* rlx: published by the scope's lock, or not at all */
    fresh->count = count;
    fresh->room = room;
    for (uint32_t i = 0; i < count; i++) {
        fresh->entries[i] = v->entries[i];
        a_add_rlx(&fresh->entries[i].item->refs, 1); /* rlx: `v` holds one */
    }
    return fresh;
}

/* ---- scopes ---- */

static void lock(struct heist__scope *s) {
    if (s->context) heist__spin_lock(&s->context->lock);
}
static void unlock(struct heist__scope *s) {
    if (s->context) heist__spin_unlock(&s->context->lock);
}

/* The variable gets the item (NULL: none), whose reference goes in; *old is what it had, with its reference.  By the
 * one who runs in the scope.  0 or -ENOMEM. */
static int change(struct heist__scope *s, heist_context_var *var, struct heist__item *item, struct heist__item **old) {
    struct heist__vars *v = s->vars, *fresh = NULL, *gone = NULL;
    bool found;
    uint32_t at = place_of(v, var, &found);
    if (!item && !found) {
        *old = NULL;
        return 0;
    }
    bool last = !item && v->count == 1;
    for (;;) {
        lock(s);
        /* acq: pairs with unref: those who shared it have read what they wanted */
        bool mine = v && (fresh || last || found || v->count < v->room) && a_load_acq(&v->refs) == 1;
        if (mine && !fresh && !last) {
            *old = put(v, at, found, var, item);
        } else if (fresh || last) {
            s->vars = fresh;
            gone = v;
        }
        unlock(s);
        if (mine && !fresh && !last) return 0;
        if (fresh || last) break;
        fresh = copy_with_room(v);
        if (!fresh) return -ENOMEM;
        *old = put(fresh, at, found, var, item);
    }
    if (last) {
        *old = v->entries[at].item;
        a_add_rlx(&(*old)->refs, 1); /* rlx: `gone` holds one */
    }                                /* else the copy's reference to it is the caller's */
    heist__vars_unref(gone);
    return 0;
}

/* Where the caller runs: NULL when that is a task that has nothing yet. */
static struct heist__scope *current(struct heist__self *self) {
    heist_task *t = heist__self_body(self);
    if (!t) return self->scope ? self->scope : self->worker || self->away ? &self->stray : &self->own;
    struct heist__extra *e = heist__extra_of(t);
    if (!e) return NULL;
    if (e->entered) return e->entered;
    heist_context *own = a_load_acq(&e->context); /* acq: pairs with heist__extra_context */
    return own ? &own->scope : NULL;
}

/* The same, made if need be; NULL: no memory. */
static struct heist__scope *current_made(struct heist__self *self) {
    struct heist__scope *s = current(self);
    if (s) return s == &self->own && heist__self_register(self) ? NULL : s; /* so that it goes with the thread */
    heist_context *own = heist__extra_context(heist__self_body(self));
    return own ? &own->scope : NULL;
}

struct heist__vars *heist__context_capture(struct heist__self *self) {
    struct heist__scope *s = current(self);
    return s ? vars_ref(s->vars) : NULL;
}

/* ---- values ---- */

static int value_of(const struct heist__vars *v, heist_context_var *var, void **out) {
    bool found;
    uint32_t at = place_of(v, var, &found);
    if (!found && !var->has_default) return HEIST_ENOTSET;
    if (out) *out = v && found ? v->entries[at].item->value : var->value;
    return 0;
}

int heist_context_get(heist_context_var *var, void **out) {
    if (!var) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    struct heist__scope *s = current(heist__self());
    return value_of(s ? s->vars : NULL, var, out);
}

/* Token: what it is, the variable, what it had, the scope. */
enum { TOKEN_STATE, TOKEN_VAR, TOKEN_OLD, TOKEN_SCOPE };
enum { TOKEN_EMPTY, TOKEN_HOLDS, TOKEN_USED };

int heist_context_set(heist_context_var *var, void *value, heist_free_fn value_free, heist_context_token *token) {
    if (!var) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    struct heist__scope *s = current_made(heist__self());
    struct heist__item *item = s ? heist__alloc(sizeof(*item)) : NULL, *old;
    if (!item) return -ENOMEM;
    a_store_rlx(&item->refs, 1); /* rlx: published with the array */
    item->var = var;
    item->value = value;
    item->value_free = value_free;
    int err = change(s, var, item, &old);
    if (err) {
        heist__free(item);
        return err;
    }
    heist_context_var_ref(var);
    if (token) {
        if (!s->id) s->id = a_add_rlx(&last_scope_id, 1) + 1; /* rlx: a number alone */
        token->opaque[TOKEN_STATE] = TOKEN_HOLDS;
        token->opaque[TOKEN_VAR] = (uintptr_t)heist_context_var_ref(var);
        token->opaque[TOKEN_OLD] = (uintptr_t)old;
        token->opaque[TOKEN_SCOPE] = s->id;
    } else {
        item_unref(old);
    }
    return 0;
}

int heist_context_reset(heist_context_token *token) {
    if (!token || token->opaque[TOKEN_STATE] == TOKEN_EMPTY) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    if (token->opaque[TOKEN_STATE] != TOKEN_HOLDS) return -EALREADY;
    struct heist__scope *s = current(heist__self());
    if (!s || s->id != token->opaque[TOKEN_SCOPE]) return HEIST_EOTHERCONTEXT;
    heist_context_var *var = (heist_context_var *)(uintptr_t)token->opaque[TOKEN_VAR];
    struct heist__item *item = (struct heist__item *)(uintptr_t)token->opaque[TOKEN_OLD], *old;
    int err = change(s, var, item, &old);
    if (err) return err;
    token->opaque[TOKEN_STATE] = TOKEN_USED; /* first: a destructor may look */
    item_unref(old);
    heist_context_var_unref(var);
    return 0;
}

void heist_context_token_drop(heist_context_token *token) {
    if (!token || token->opaque[TOKEN_STATE] != TOKEN_HOLDS || heist__forked()) return;
    token->opaque[TOKEN_STATE] = TOKEN_USED;
    item_unref((struct heist__item *)(uintptr_t)token->opaque[TOKEN_OLD]);
    heist_context_var_unref((heist_context_var *)(uintptr_t)token->opaque[TOKEN_VAR]);
}

/* ---- contexts ---- */

heist_context *heist__context_make(struct heist__vars *vars, unsigned users, uint64_t home) {
    heist_context *ctx = heist__alloc(sizeof(*ctx));
    if (!ctx) return NULL;
    a_store_rlx(&ctx->refs, 1); /* rlx: published by whoever hands it on */
    ctx->scope = (struct heist__scope){vars, 0, ctx};
    heist__spin_init(&ctx->lock);
    ctx->users = users;
    ctx->home = home;
    return ctx;
}

int heist__context_claim(heist_context *ctx, uint64_t home) {
    heist__spin_lock(&ctx->lock);
    bool free = !ctx->users || (home && ctx->home == home);
    if (free) {
        ctx->users++;
        ctx->home = home;
    }
    heist__spin_unlock(&ctx->lock);
    return free ? 0 : -EBUSY;
}

void heist__context_release(heist_context *ctx) {
    heist__spin_lock(&ctx->lock);
    ctx->users--;
    heist__spin_unlock(&ctx->lock);
}

int heist_context_copy(heist_context *from, heist_context **out) {
    if (!out) return -EINVAL;
    if (heist__fork_guard()) return -ENOMEM;
    if (heist__forked()) return HEIST_EFORKED;
    struct heist__vars *vars;
    if (from) {
        heist__spin_lock(&from->lock);
        vars = vars_ref(from->scope.vars);
        heist__spin_unlock(&from->lock);
    } else {
        vars = heist__context_capture(heist__self());
    }
    heist_context *ctx = heist__context_make(vars, 0, 0);
    if (!ctx) {
        heist__vars_unref(vars);
        return -ENOMEM;
    }
    *out = ctx;
    return 0;
}

int heist_context_new(heist_context **out) {
    if (!out) return -EINVAL;
    if (heist__fork_guard()) return -ENOMEM;
    if (heist__forked()) return HEIST_EFORKED;
    heist_context *ctx = heist__context_make(NULL, 0, 0);
    if (!ctx) return -ENOMEM;
    *out = ctx;
    return 0;
}

heist_context *heist_context_ref(heist_context *ctx) {
    if (ctx) a_add_rlx(&ctx->refs, 1); /* rlx: the caller holds one */
    return ctx;
}

void heist_context_unref(heist_context *ctx) {
    if (!ctx || heist__forked()) return;      /* a child's copy is the parent's */
    if (a_sub_ar(&ctx->refs, 1) != 1) return; /* ar: as every last reference */
    heist__vars_unref(ctx->scope.vars);
    heist__free(ctx);
}

int heist_context_lookup(heist_context *ctx, heist_context_var *var, void **out) {
    if (!ctx || !var) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    heist__spin_lock(&ctx->lock);
    int err = value_of(ctx->scope.vars, var, out);
    heist__spin_unlock(&ctx->lock);
    return err;
}

int heist_context_count(heist_context *ctx) {
    if (!ctx) return -EINVAL;
    if (heist__forked()) return HEIST_EFORKED;
    heist__spin_lock(&ctx->lock);
    int count = ctx->scope.vars ? (int)ctx->scope.vars->count : 0;
    heist__spin_unlock(&ctx->lock);
    return count;
}

/* ---- callbacks ---- */

int heist__carry(struct heist__self *self, struct heist__carried *c, heist_context *given, uint64_t home) {
    c->scope = (struct heist__scope){NULL, 0, NULL};
    c->context = NULL;
    if (!given) {
        c->scope.vars = heist__context_capture(self);
        return 0;
    }
    int err = heist__context_claim(given, home);
    if (err) return err;
    c->context = heist_context_ref(given);
    heist__contexts_use();
    return 0;
}

void heist__carried_drop(struct heist__carried *c) {
    heist__vars_unref(c->scope.vars);
    c->scope.vars = NULL;
    if (!c->context) return;
    heist__context_release(c->context);
    heist_context_unref(c->context);
    c->context = NULL;
}

void heist__scope_forget(struct heist__self *self) {
    struct heist__vars *vars = self->stray.vars;
    self->stray = (struct heist__scope){NULL, 0, NULL};
    heist__vars_unref(vars);
}

void heist__scope_enter(struct heist__in_scope *in, struct heist__carried *c) {
    struct heist__self *self = heist__self();
    if (self->stray.vars) heist__scope_forget(self);
    in->empty = (struct heist__scope){NULL, 0, NULL};
    in->before = self->scope;
    self->scope = !c ? &in->empty : c->context ? &c->context->scope : &c->scope;
}

void heist__scope_leave(struct heist__in_scope *in) {
    heist__self()->scope = in->before;
    heist__vars_unref(in->empty.vars);
}

void heist__scope_thread_exit(struct heist__self *self) {
    heist__scope_forget(self);
    struct heist__vars *vars = self->own.vars;
    self->own = (struct heist__scope){NULL, 0, NULL};
    heist__vars_unref(vars);
}
