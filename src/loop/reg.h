/* A registered descriptor on which tasks wait: two slots, one to read, one to write.
 *
 * Registrations are type-stable and carry a generation, because an event may arrive
 * after the descriptor was closed; the event's data holds both.  Registered once,
 * for edges in both directions, with the loop on which the first wait happened; an
 * event wakes its task wherever that is.
 *
 * Or a feed (feed.h) brings what there is to read, on a loop with a ring.  Then the poller watches it when somebody
 * waits to write, and only for that.
 *
 * A slot, under the registration's lock:
 *
 *   EMPTY ──event──> READY ──wait──> EMPTY (the wait returns at once: try again)
 *   EMPTY ──wait──> the waiter ──event──> EMPTY, claimed (READY if the claim was lost)
 *   any ──close──> CLOSED
 *
 * No edge is lost: a reader empties READY before it reads (heist__reg_begin), so an
 * edge after its read finds EMPTY and stays as READY, or finds the waiter.
 *
 * A short read means drained, and the next one may wait without a try; but not once
 * the peer has hung up, or has sent urgent data, at which a read ends: its edge may
 * have come together with the data's.
 *
 * Such a registration owns its descriptor, and closes it.  A *guest* is the registration
 * of a descriptor that stays the user's: it lives while calls on it are in progress, and
 * asks the poller anew at each call's first wait (fds.h). */
#ifndef HEIST_LOOP_REG_H
#define HEIST_LOOP_REG_H

#include <stdbool.h>
#include <stdint.h>

#include "conc/spin.h"
#include "task/job.h"
#include "task/park.h"

enum { HEIST__REG_READ, HEIST__REG_WRITE };
enum { HEIST__SLOT_EMPTY, HEIST__SLOT_READY, HEIST__SLOT_CLOSED, HEIST__SLOT_WAITER };

struct heist__reg_slot {
    int state;
    bool interrupted; /* the next wait, whose deadline may be old, returns -EINTR */
    uint16_t asked;   /* of a guest: which asking the poller's edges in this direction belong to */
    struct heist__park *waiter;
};

/* Where that lies which the next step of a waiting task touches: for the processor to fetch while events before it are
 * handled (heist__reg_expect).  Only ever prefetched: it may be of somebody who is gone. */
struct heist__reg_near {
    _Atomic(void *) task, coro, sp;
};

struct heist__reg {
    struct heist__reg *next, **at; /* the slab's, when free; in the table of numbers (fds.c); at NULL: not in it */
    struct heist__spin lock;
    uint16_t generation;    /* under the lock; changes when it dies */
    bool hung_up;           /* an event said so, or that there was urgent data */
    bool closed;
    int fd;
    int polled;             /* the number that the poller knows it by: fd, or a duplicate when fd was there already */
    heist_loop *loop;       /* registered there, one reference; NULL: not yet */
    bool unwatched;         /* the poller does not know it: not any more, or not yet (heist__reg_feed) */
    bool guest;             /* the descriptor is the user's */
    bool forsaken;          /* a guest whose descriptor was closed behind its back: the number may be another's */
    bool fed;               /* a feed reads it: the poller is not asked for that */
    unsigned calls;         /* in progress: they may use the descriptor and the owner until they leave */
    _Atomic(void *) owner;  /* birth */
    struct heist__reg_near near; /* of who waited last */
    void (*dispose)(void *owner, int fd); /* closes the descriptor and frees the owner; once */
    void (*hook)(void *owner); /* called at each event, instead of the slots; NULL: none */
    struct heist__reg_slot slots[2];
};
#ifndef HEIST_DEBUG_LOCKS
_Static_assert(sizeof(struct heist__reg) <= 128, "a registration is two cache lines");
#endif

/* In the data of an event: the address, with the generation's low bits above it. */
#define HEIST__REG_TAG ((uint64_t)1 << 63)

/* What heist__reg_ask says of a guest whose number stands for another file by now. */
#define HEIST__REG_STRANGER 2

/* NULL: no memory. */
struct heist__reg *heist__reg_new(int fd, void *owner, void (*dispose)(void *owner, int fd));
/* The descriptor of one that was made with -1, before anybody else knows it. */
void heist__reg_adopt(struct heist__reg *r, int fd);
/* Watched by this loop from now on.  A failure is met again, and told, at the first wait. */
void heist__reg_settle(struct heist__reg *r, heist_loop *loop);
/* What is read from it comes by a feed (feed.h) from now on, whose events go to the slot; the poller is asked to watch
 * it when somebody waits to write.  The loop whose feed it shall be, with a reference: its own, else this one; and the
 * data of its events.  NULL: it is closed. */
heist_loop *heist__reg_feed(struct heist__reg *r, heist_loop *loop, uint64_t *data);
/* No more: by readiness again.  When the feed's request has ended, and nothing is kept. */
void heist__reg_unfeed(struct heist__reg *r);
/* For one on which nobody waits: fn(owner) at each event, on the loop's thread or a rescuer's, with no lock held; its
 * owner lives until it returns.  Before anything can happen on the descriptor.  0, or what the poller said. */
int heist__reg_watch(struct heist__reg *r, heist_loop *loop, void (*fn)(void *owner));
/* Wakes who waits with HEIST_ECLOSED; when the last call in progress has left (at once, if there is none)
 * unregisters and disposes. */
void heist__reg_close(struct heist__reg *r);

/* Who waits in this direction, or the next one who is about to, gets -EINTR.  Any thread, while it is not closed for
 * good (a call in progress keeps it). */
void heist__reg_interrupt(struct heist__reg *r, int direction);

/* An event of this registration will be handled soon: fetches the registration (far), then what the waiter's step needs
 * (near).  A thousand sleeping connections do not stay in the caches; each of their steps would wait for memory some
 * ten times, one line after the other. */
void heist__reg_expect_far(uint64_t data);
void heist__reg_expect_near(uint64_t data);

/* From the poller, by the loop's owner or a rescuer. */
void heist__reg_event(uint64_t data, uint32_t events);

/* A call on the descriptor: enter, then as often as needed begin and wait, then leave.  A close in between
 * takes nothing away from under it. */
int heist__reg_enter(struct heist__reg *r); /* 0 or HEIST_ECLOSED */
void heist__reg_leave(struct heist__reg *r);

/* Before a try, which uses up what was ready: 1 try; 0 wait first (drained, and nothing came since); or
 * HEIST_ECLOSED, -EBUSY.  A caller that knows of no drain passes false. */
int heist__reg_begin(struct heist__reg *r, int direction, bool drained);

/* The commit of a wait, on the worker's stack: 1 parked; 0 go on and try; or a code: -EBUSY,
 * HEIST_ECLOSED, -EINTR, or what the poller said.  `loop` is the current worker's. */
int heist__reg_wait(struct heist__reg *r, int direction, heist_loop *loop, struct heist__park *park);
/* The same for a guest, in one or both directions (bits 1 << HEIST__REG_…): the poller is asked anew, so that what
 * is ready already comes as an event, and is found out whether the number still means the same file; also
 * HEIST__REG_STRANGER.
 * asked: of the call, two zeros before its first wait.  The later ones take the edges since: what is ready, but was of no
 * use to the try in between (an error queue that nobody reads, data beside it), would else come as an event for ever. */
int heist__reg_ask(struct heist__reg *r, unsigned directions, heist_loop *loop, struct heist__park *park,
                   uint16_t asked[2]);
/* Under its lock: who asked in this direction asks anew. */
void heist__reg_outdate(struct heist__reg_slot *slot);
/* After a wait that did not end by an event; of a guest, after any. */
void heist__reg_unwait(struct heist__reg *r, int direction, struct heist__park *park);

/* For fds.c.  The poller forgets it: of a guest that nobody is in any more, while its number is still in the table. */
void heist__reg_unwatch(struct heist__reg *r);
/* Of a guest, unlinked, that the last call has left. */
void heist__reg_end(struct heist__reg *r);

#endif
