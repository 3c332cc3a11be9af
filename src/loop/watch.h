/* add_reader and add_writer: callbacks on a descriptor of the user's.
 *
 * One watch for each descriptor of a loop, in a list under the loop's misc_lock.
 * One-shot in the kernel; an event posts a job for each wanted direction, and the
 * watch is armed again after its callback ran.  The watch is counted: the list holds
 * one reference, each scheduled job one. */
#ifndef HEIST_LOOP_WATCH_H
#define HEIST_LOOP_WATCH_H

#include <heist/loop.h>

/* From the poller; data is the descriptor and the watch's number. */
void heist__watch_event(heist_loop *loop, uint64_t data, uint32_t events);
void heist__watch_drop_all(heist_loop *loop);

#endif
