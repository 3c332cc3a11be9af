/* The record of a run: figures that were measured, laws that held or did not.
 *
 * Owns one list for the process.  Every part calls it, from any thread; the lines
 * appear in the order of the calls.  Invariant: report_print counts every law that
 * was ever recorded, so a part that never came to its laws must say so itself. */
#ifndef DEMO_REPORT_H
#define DEMO_REPORT_H

#include <heist/base.h>

/* Starts the section under which the following lines are listed. */
void report_part(const char *format, ...) HEIST_PRINTF_LIKE(1, 2);
void report_figure(const char *format, ...) HEIST_PRINTF_LIKE(1, 2);
/* Returns `held`, so that a caller can go on or give up. */
int report_law(int held, const char *format, ...) HEIST_PRINTF_LIKE(2, 3);
/* Prints everything; the number of laws that were broken. */
int report_print(void);

#endif
