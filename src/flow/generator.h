/* flow/generator.h: what pipelines want of generators beyond the public calls. */
#ifndef HEIST_FLOW_GENERATOR_H
#define HEIST_FLOW_GENERATOR_H

#include <heist/generator.h>

/* For a generator that nobody else knows yet: when it is ended before its body began, by close or throw, fn(arg) is
 * called first, by whoever ends it.  It may suspend; a code that it returns is the close's. */
void heist__generator_unbegun(heist_generator *g, int (*fn)(void *arg));

#endif
