/* From instructions to findings: decoding, who may suspend, and the flow of addresses. */
#ifndef HEIST_TLSCHECK_FLOW_H
#define HEIST_TLSCHECK_FLOW_H

#include "image.h"

/* Names, sorted once they are all in. */
struct names {
    const char **list;
    size_t count;
};
void names_add(struct names *set, const char *comma_separated); /* keeps a copy for good */
bool names_have(const struct names *set, const char *name);

struct rules {
    struct names suspends; /* calls that may suspend */
    struct names never;    /* do not, whatever they call */
    struct names sources;  /* return an address or a name of the calling thread */
    struct names excluded; /* functions that are not reported */
    bool indirect;         /* a call through a pointer may suspend */
};

struct finding {
    const struct function *function;
    const char *what;        /* "the address of errno" … */
    uint64_t taken, call, use;
    const char *callee;      /* of the call over which it is kept */
    const char *how;         /* "used as an address", "passed to", "compared" … */
    const char *passed_to;   /* or NULL */
};

struct findings {
    struct finding *list;
    size_t count;
};

/* decode.c: the function's insns and steps. */
void decode(struct function *f);
/* The index of the instruction at this address, or -1. */
long insn_at(const struct function *f, uint64_t address);

/* suspends.c: fills may_suspend of every function, as far as calls are known; true when that changed. */
bool find_suspending(const struct images *images, const struct rules *rules);
/* The function that is called, where it is among the images; else NULL. */
struct function *callee_of(const struct images *images, const struct function *f, const struct insn *insn);
/* Why this call may suspend (the name of what does), or NULL. */
const char *call_suspends(const struct images *images, const struct rules *rules, const struct function *f,
                          const struct insn *insn);
void forget_callees(void);

/* flow.c: follows the addresses through one function.  With findings: adds to them; without: only learns what it
 * returns and which calls go where; true when it learned something. */
bool follow(const struct images *images, const struct rules *rules, struct function *f, struct findings *findings);

#endif
