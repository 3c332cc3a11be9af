/* add_signal_handler: a callback on a loop for a signal. */
#ifndef HEIST_LOOP_SIGHANDLER_H
#define HEIST_LOOP_SIGHANDLER_H

#include <heist/loop.h>

/* When the loop closes; it refuses new ones already. */
void heist__sighandler_drop_all(heist_loop *loop);

#endif
