/* See look.h.
 *
 * Whether a copy is whole.  L1 read `entries`; L2 the caller sees the coroutine at rest; L3 copy; L4 read `entries`
 * again. An enter raises `entries` before the stack is touched.  One between L1 and L4 is seen at L4, one before L1 had
 * left by L2.  So the stack was at rest from L2 to L4, and the unwinder, which trusts what it reads, reads a whole one.
 * (The count wraps after four thousand million steps.  Where stores of one processor may be seen in another order, on
 * AArch64, an enter could be seen late: there the copy is made twice and compared, as far as that helps.) */
#include "coro/look.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <unwind.h>

#include "base/alloc.h"
#include "base/peek.h"
#include "coro/coro.h"

#define WALKER_BYTES ((size_t)64 << 10) /* the unwinder's own frames */
#define ZEROS_BYTES ((size_t)8 << 10)   /* above the copy: a bent frame pointer finds no caller there */

/* ---- the copy ---- */

/* The coroutine now, and the bounds of what its stack holds: false when that is not a suspended coroutine. */
static bool read_coro(const struct heist__coro *c, struct heist__coro *now, char **top) {
    struct heist__stack stack, *s;
    if (!c || heist__peek(c, now, sizeof(*now))) return false;
    s = now->stack; /* its own, or that of the one nested in it, which nobody else enters while this one is at rest */
    if (heist__peek(s, &stack, offsetof(struct heist__stack, user))) return false;
    *top = heist__stack_top(s);
    char *sp = now->sp;
    return sp && sp >= stack.lo && sp + HEIST__CTX_FIRST_FRAME <= *top && (uintptr_t)sp % 8 == 0;
}

int heist__look_begin(const struct heist__coro *c, struct heist__look *look) {
    struct heist__coro now;
    char *top;
    if (!read_coro(c, &now, &top)) return -EBUSY;
    memset(look, 0, sizeof(*look));
    look->coro = c;
    look->entries = now.entries;
    return 0;
}

static bool same_as_now(const struct heist__look *look) {
#if defined(__x86_64__)
    (void)look;
#else
    char part[1024];
    for (size_t at = 0; at < look->used;) {
        size_t n = look->used - at < sizeof(part) ? look->used - at : sizeof(part);
        if (heist__peek((const char *)look->from + at, part, n) || memcmp(part, look->saved + at, n) != 0) return false;
        at += n;
    }
#endif
    return true;
}

int heist__look_take(struct heist__look *look) {
    struct heist__coro before, after;
    char *top, *top_after;
    if (!read_coro(look->coro, &before, &top) || before.entries != look->entries) return -EBUSY;
    size_t used = (size_t)(top - (char *)before.sp);
    /* The copy begins as far into a page as the original, so that whatever was aligned still is. */
    size_t shift = (uintptr_t)before.sp % 4096;
    look->bytes = (WALKER_BYTES + shift + used + ZEROS_BYTES + 4095) & ~(size_t)4095;
    look->room = heist__map(look->bytes);
    if (!look->room) return -ENOMEM;
    look->saved = look->room + WALKER_BYTES + shift;
    look->copy_end = look->saved + used;
    look->from = before.sp;
    look->used = used;
    int err = heist__peek(before.sp, look->saved, used);
    if (err == -EFAULT) err = -EBUSY; /* given back meanwhile */
    if (!err && (!same_as_now(look) || !read_coro(look->coro, &after, &top_after) || after.sp != before.sp ||
                 after.entries != look->entries))
        err = -EBUSY;
    if (err) heist__look_release(look);
    return err;
}

void heist__look_release(struct heist__look *look) {
    heist__unmap(look->room, look->bytes);
    look->room = NULL;
}

/* ---- the walk ---- */

#if defined(__x86_64__)
#define FRAME_POINTER 6 /* the number of rbp in the unwinder's tables */
#else
#define FRAME_POINTER 29
#endif

struct walk {
    struct heist__ctx_look look; /* first: known to arch/ */
    void *back, *gone;           /* the walker's caller; the copy's context, which nobody wants again */
    uintptr_t lo, end, zeros;    /* bounds of the copy; here: none */
    void **frames;
    size_t count, max;
    const struct heist__look_part *part;
    unsigned passed; /* boundaries met */
    uintptr_t start; /* here: the first frame that counts; 0: it was met */
};

/* The walker runs on the copy, where no detector expects a thread. */
#define UNWATCHED __attribute__((no_sanitize("address", "thread", "undefined"), no_stack_protector))

UNWATCHED static _Unwind_Reason_Code add_frame(struct _Unwind_Context *context, void *arg) {
    struct walk *w = arg;
    if (w->end) {
        uintptr_t cfa = (uintptr_t)_Unwind_GetCFA(context);
        if (cfa > w->end) return _URC_END_OF_STACK;
        if (cfa < w->lo) return _URC_NO_REASON; /* the walker's own */
        uintptr_t fp = (uintptr_t)_Unwind_GetGR(context, FRAME_POINTER);
        if (fp < w->lo || fp > w->end) _Unwind_SetGR(context, FRAME_POINTER, (_Unwind_Word)w->zeros);
    }
    uintptr_t at = (uintptr_t)_Unwind_GetIP(context);
    if (!at) return _URC_END_OF_STACK;
    if (w->start && at != w->start) return _URC_NO_REASON;
    w->start = 0;
    if (w->part && _Unwind_FindEnclosingFunction((void *)at) == w->part->boundary && w->passed++ == w->part->pass)
        return _URC_END_OF_STACK;
    if (w->part && w->passed < w->part->pass) return _URC_NO_REASON;
    w->frames[w->count++] = (void *)at;
    return w->count < w->max ? _URC_NO_REASON : _URC_END_OF_STACK;
}

UNWATCHED static void walk_copy(struct heist__ctx_look *look) {
    struct walk *w = heist_container_of(look, struct walk, look);
    _Unwind_Backtrace(add_frame, w);
    heist__ctx_switch(&w->gone, w->back, NULL);
}

/* Addresses of the original become addresses of the copy. */
static void move_addresses(struct heist__look *look) {
    uintptr_t from = (uintptr_t)look->from, end = from + look->used, delta = (uintptr_t)look->saved - from;
    for (size_t at = 0; at + sizeof(uintptr_t) <= look->used; at += sizeof(uintptr_t)) {
        uintptr_t word;
        memcpy(&word, look->saved + at, sizeof(word));
        if (word < from || word > end) continue;
        word += delta;
        memcpy(look->saved + at, &word, sizeof(word));
    }
}

UNWATCHED static void enter(struct walk *w, void *at) { heist__ctx_switch(&w->back, at, &w->look); }

size_t heist__look_frames(struct heist__look *look, const struct heist__look_part *part, void **frames, size_t max) {
    if (!max) return 0;
    move_addresses(look);
    struct walk w = {.look = {.fn = walk_copy}, .frames = frames, .max = max, .part = part};
    w.lo = (uintptr_t)look->saved + HEIST__CTX_FRAME; /* the stack pointer of whoever was suspended */
    w.end = (uintptr_t)look->copy_end;
    w.zeros = w.end + ZEROS_BYTES / 2;
    enter(&w, heist__ctx_look_from(look->saved, &w.look));
    return w.count;
}

size_t heist__look_here(const void *start, const struct heist__look_part *part, void **frames, size_t max) {
    struct walk w = {.frames = frames, .max = max, .start = (uintptr_t)start, .part = part};
    if (max) _Unwind_Backtrace(add_frame, &w);
    return w.count;
}
