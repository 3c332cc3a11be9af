/* A child and what belongs to it.  See process.c. */
#ifndef HEIST_NET_PROCESS_H
#define HEIST_NET_PROCESS_H

#include <heist/process.h>
#include <stdbool.h>

#include "base/list.h"
#include "conc/atomic.h"
#include "conc/spin.h"
#include "loop/reg.h"
#include "sync/waitq.h"

/* What was read from one pipe so far. */
struct heist__outlet {
    char *data;
    size_t size, room;
    bool ended;
};

/* What a communicate has reached; kept, so that one that was cut short goes on. */
struct heist__talk {
    _Atomic(int) busy;
    size_t fed; /* bytes of the input that went out */
    bool fed_all;
    struct heist__outlet outlets[2];
};

struct heist_process {
    struct heist__link link; /* in the list of those whose status is not taken, under its lock, as `loop` */
    heist_loop *loop;        /* that watches it; only compared */
    _Atomic(int) users, refs;
    pid_t pid;
    unsigned flags;
    heist_stream *pipes[3]; /* our ends, until the last user has gone; NULL: none */

    struct heist__spin lock; /* of what follows */
    int pidfd;
    struct heist__reg *reg;
    bool closing; /* somebody closes reg */
    bool reaped;
    bool killed;    /* by us: it will have ended soon */
    int code, lost; /* once it is reaped; lost: why there is no code */
    struct heist__waitq waiters;

    struct heist__talk talk; /* of the one who communicates */
};

/* Frees what was read and not handed over. */
void heist__talk_free(struct heist__talk *t);
/* Kills it and, if it has one of its own, its group. */
void heist__process_end(heist_process *p);
/* Gives err back; when it is -ECANCELED, and the options say so, kills. */
int heist__process_cancelled(heist_process *p, int err);

#endif
