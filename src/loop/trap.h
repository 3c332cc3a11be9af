/* Who hears of a signal: the library's one handler, and for each signal a list of those that asked.
 *
 * A trap is told in the handler, on whatever thread that runs: it takes no lock and allocates nothing.  All the traps
 * of a signal hear of it, but those of last resort only when there is no other.  The first trap of a signal installs
 * the handler and keeps what was there; the last one that goes puts it back, unless somebody else has put his own over
 * it. */
#ifndef HEIST_LOOP_TRAP_H
#define HEIST_LOOP_TRAP_H

#include <stdbool.h>

#include "conc/atomic.h"

/* The highest number of a signal. */
#define HEIST__SIGNALS 64

struct heist__trap {
    _Atomic(struct heist__trap *) next;
    void (*came)(struct heist__trap *t, int sig); /* in the handler */
    bool last_resort;
};

/* How a signal may be taken. */
enum {
    HEIST__TRAP_SHARE,   /* whom nobody handles: the default action, or none at all */
    HEIST__TRAP_REPLACE, /* a handler of the program's too */
    HEIST__TRAP_DEFAULT, /* only from the default action; as last resort, and the only one */
};

/* 0; -EINVAL (no signal), -EPERM (cannot be caught, or is a fault), -EBUSY (see above). */
int heist__trap_check(int sig);
int heist__trap_add(int sig, struct heist__trap *t, int how);
/* Nobody is told any more who was not on the way; then quiesce: nobody is on the way any more. */
void heist__trap_remove(int sig, struct heist__trap *t);
void heist__trap_quiesce(void);

/* In the handler: as if the library had never had the signal, when the handler returns. */
void heist__trap_give_up(int sig);

#endif
