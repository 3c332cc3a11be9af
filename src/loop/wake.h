/* The wake-up descriptor of a loop: makes the poller of a sleeping thread return.
 *
 * Belongs to the loop's shell and closes with its last reference, so that a late
 * submitter never writes to a number that was given to another file.  Signalled from
 * any thread, by the one that exchanged the sleeping flag; never read (see wake.c). */
#ifndef HEIST_LOOP_WAKE_H
#define HEIST_LOOP_WAKE_H

#include <stdint.h>

#include "loop/poller.h"

/* The data of its events in the poller: no address and no registration has this value. */
#define HEIST__WAKE_DATA UINT64_MAX

struct heist__wake {
    int fd; /* -1: closed */
};

/* Makes the descriptor and registers it for edges.  0, or -EMFILE, -ENFILE, -ENOMEM, -ENOSPC; then
 * nothing is left open and w->fd is -1. */
int heist__wake_open(struct heist__wake *w, struct heist__poller *p);

/* The wait under way on the poller returns, else the next one does at once.  Any thread. */
void heist__wake_signal(struct heist__wake *w);

/* Takes it out of the poller, when that is still open (p may be NULL), and closes it.  Idempotent. */
void heist__wake_close(struct heist__wake *w, struct heist__poller *p);

#endif
