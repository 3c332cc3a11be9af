/* The live table of the workers.
 *
 * On a terminal it stands at the bottom and is redrawn in place; elsewhere it comes as
 * plain lines now and then.  Owns standard output while it runs: everything printed
 * meanwhile goes through table_say, from any thread, tasks and callbacks included (it
 * takes a lock for the length of a write and never suspends). */
#ifndef DEMO_TABLE_H
#define DEMO_TABLE_H

#include <heist/base.h>
#include <stdatomic.h>

/* Starts the thread that draws.  The runtime is borrowed until table_stop. */
int table_start(heist_runtime *rt, int plain);
/* Draws a last time and ends the thread. */
void table_stop(void);

/* One line above the table. */
void table_say(const char *format, ...) HEIST_PRINTF_LIKE(1, 2);
/* What is going on, for the head of the table; copied. */
void table_phase(const char *format, ...) HEIST_PRINTF_LIKE(1, 2);
/* A counter whose rate the head shows, or NULL.  Borrowed until replaced. */
void table_rate(const char *unit, const _Atomic(uint64_t) *counter);

#endif
