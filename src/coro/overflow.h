/* Says which task overflowed its stack, before the process dies of it.
 *
 * A handler for SIGSEGV and SIGBUS, for the process, counted by its users; and an
 * alternate signal stack for each thread that runs coroutines, for at that moment
 * there is no other.  When the faulting address lies in a guard page of ours, one
 * line goes to standard error; in every case the signal then goes where it would
 * have gone without us: to the handler that was there before, or to the kernel.
 *
 * install and uninstall: any thread.  thread_init and thread_fini: the thread itself,
 * outside coroutines.  The handler is async-signal-safe throughout.
 * Invariant: while our handler is in place, the one before it is remembered. */
#ifndef HEIST_CORO_OVERFLOW_H
#define HEIST_CORO_OVERFLOW_H

#include <stddef.h>

#include "mem/stack.h"

/* 0, or a negative code.  Each success is paid back by one uninstall. */
int heist__overflow_install(void);
void heist__overflow_uninstall(void);

/* Gives the calling thread an alternate signal stack, unless it has one (it is then
 * left alone): 0 or -ENOMEM.  Nests. */
int heist__overflow_thread_init(void);
void heist__overflow_thread_fini(void);

/* Writes into buf who runs on s, as in: task "name", spawned at file.c:12.  At most n
 * bytes with the terminating zero; returns how many without it.  Async-signal-safe;
 * s is in use, but its owner may be in any state.  NULL until task/ sets it. */
typedef size_t (*heist__overflow_describe_fn)(struct heist__stack *s, char *buf, size_t n);
extern _Atomic(heist__overflow_describe_fn) heist__overflow_describe;

#endif
