/* A task body that overflows its stack. */
#ifndef HEIST_TEST_LIMITS_DIG_H
#define HEIST_TEST_LIMITS_DIG_H

#include <string.h>

static __attribute__((noinline)) int recurse(volatile char *above) {
    volatile char frame[512];
    memset((void *)frame, above[0], sizeof frame);
    if (frame[5] == 'x') return 0;
    return recurse(frame) + frame[1];
}

static int dig(void *arg, void **out) {
    volatile char start = 0;
    (void)arg;
    (void)out;
    recurse(&start);
    return 0;
}

#endif
