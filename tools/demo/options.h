/* What the command line asked for.  Filled by main.c once, read everywhere after. */
#ifndef DEMO_OPTIONS_H
#define DEMO_OPTIONS_H

struct demo_options {
    double seconds;      /* how long the echo goes on at least */
    int workers;         /* 0: one for each available CPU */
    int connections;     /* of the echo */
    int port;            /* serve: 0 lets the system choose */
    const char *address; /* serve: where to listen */
    int plain;           /* 1: lines even on a terminal */
};

#endif
