/* stress/stacks.h: where every thread and every suspended task stands, for the last words of a stalled program.
 *
 * Owns nothing but a signal, and that only when no debugger is at hand.
 * Thread: the watchdog's; the process is about to end.
 * Invariant: the library is not called, for it may be what hangs. */
#ifndef STRESS_STACKS_H
#define STRESS_STACKS_H

#include <heist.h>
#include <stddef.h>
#include <stdio.h>

/* Once, before the books are opened: the first backtrace of a process loads a library. */
void stress_stacks_prime(void);

/* The stacks of all threads, to standard error: by gdb, attached to this process in batch mode; where there is none,
 * or it may not attach, each thread is sent a signal and writes its own. */
void stress_stacks_of_threads(void);

/* The stacks of those among the tasks that are suspended, by gdb alone: their registers lie where only the library's
 * debug information says.  Running tasks are on the stacks of the threads. */
void stress_stacks_of_tasks(heist_task *const *tasks, size_t count);

#endif
