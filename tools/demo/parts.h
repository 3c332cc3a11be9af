/* The four parts of the main job.  Each runs on the main thread, which is a plain
 * thread, uses the runtime it is given, and leaves its figures and laws in the report. */
#ifndef DEMO_PARTS_H
#define DEMO_PARTS_H

#include "options.h"
#include <heist/base.h>

/* 1: three waits gathered, and the two doors into loops of other threads. */
void scene_run(heist_runtime *rt);
/* 2 and 4: the echo, and the fork-join work beside it. */
void echo_run(heist_runtime *rt, const struct demo_options *options);
/* 3: a million callbacks and a hundred thousand coroutines from four threads. */
void doors_run(heist_runtime *rt);

/* The server alone, until SIGINT or SIGTERM, which every thread must have blocked.
 * Returns 0 or a negative code. */
int serve_run(heist_runtime *rt, const struct demo_options *options);

#endif
