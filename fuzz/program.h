/* One program out of bytes: see program.c. */
#ifndef HEIST_FUZZ_PROGRAM_H
#define HEIST_FUZZ_PROGRAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

extern bool fuzz_verbose; /* says on standard error what each script does */

/* Runs it.  0: all laws held (or the bytes are no program); 1: one did not, see the message, and the process must end
 * soon; -1: it could not be run. */
int fuzz_run(const uint8_t *data, size_t size, char *message, size_t room);

#endif
