/* Where a thread stands: its stack, told by the thread itself when another one asks.
 *
 * The asking thread sends a signal to that one thread; its handler walks the frames from
 * the interrupted instruction, through a coroutine's to the first of its stack, and
 * leaves their addresses in the thread's own record.  A thread that blocks the signal
 * does not answer.  A system call in which it waits may end with EINTR.
 *
 *   IDLE ──ask──> ASKED ──the handler──> TAKING ──> ANSWERED ──done──> IDLE
 *                   └──give up──> IDLE: a late signal finds nothing asked, and is dropped
 *
 * install and uninstall: any thread, counted for each signal.  thread_init and thread_fini:
 * the thread that can be asked, outside coroutines; between them the record stays where it
 * is.  ask, give_up, done: one other thread at a time.
 * Invariant: a signal is sent only between thread_init and thread_fini, and thread_fini
 * returns when none is under way; so none of ours finds the handler gone. */
#ifndef HEIST_CORO_WHERE_H
#define HEIST_CORO_WHERE_H

#include <stdbool.h>

#include "conc/atomic.h"
#include "conc/spin.h"

#define HEIST__WHERE_FRAMES 32

enum { HEIST__WHERE_IDLE, HEIST__WHERE_ASKED, HEIST__WHERE_TAKING, HEIST__WHERE_ANSWERED };

struct heist__where {
    /* shared */
    _Atomic(int) state;
    struct heist__spin lock; /* of the next two */
    int thread;              /* the kernel's number; 0: cannot be asked */
    int signal;

    /* the handler's, until ANSWERED */
    unsigned count;
    void *frame[HEIST__WHERE_FRAMES]; /* the interrupted instruction, then return addresses */

    bool was_blocked; /* the thread's own: the signal, before thread_init */
};

/* A signal that can serve: not one of a fault, nor one that cannot be caught. */
bool heist__where_signal_ok(int signal);

/* 0 or a negative code.  Each success is paid back by one uninstall. */
int heist__where_install(int signal);
void heist__where_uninstall(int signal);

void heist__where_thread_init(struct heist__where *w, int signal);
void heist__where_thread_fini(struct heist__where *w);

/* From IDLE: 0, and the answer comes; or a negative code: nobody there, or no room for a signal. */
int heist__where_ask(struct heist__where *w);
/* True when there was no answer and none will come. */
bool heist__where_give_up(struct heist__where *w);
/* The answer has been read. */
void heist__where_done(struct heist__where *w);

#endif
