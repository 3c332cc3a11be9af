/* Is this process a fork of the one that started the library?
 *
 * A page that the kernel wipes in a forked child (MADV_WIPEONFORK), looked at before
 * any lock or descriptor of ours; where the kernel refuses the advice, the process
 * number is compared.  Any thread; never fails. */
#ifndef HEIST_BASE_FORK_H
#define HEIST_BASE_FORK_H

#include <stdbool.h>

/* Makes the page; before the first object that a child could touch.  0 or -ENOMEM.  Idempotent. */
int heist__fork_guard(void);

/* 1 in the parent, 0 in a child; NULL before the guard, which another thread may be making at this moment (this room
 * has no named atomics: plain operators, sequentially consistent, and a plain load on x86-64). */
extern _Atomic(const volatile unsigned char *) heist__fork_page;
bool heist__forked_slow(void);

#ifdef HEIST_SEEDED
/* In a child of a process that has no runtime: it may use the library as if it were the first. */
void heist__fork_adopt(void);
#endif

/* Ends a child in which a body or callback has come back to the loop that is its parent's. */
_Noreturn void heist__forked_end(void);

static inline bool heist__forked(void) {
    const volatile unsigned char *page = heist__fork_page;
    return page && *page != 1 && heist__forked_slow();
}

#endif
