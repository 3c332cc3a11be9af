/* Names of code addresses in another process, from the debug information of its files. */
#ifndef TOOLS_PS_NAMES_H
#define TOOLS_PS_NAMES_H

#include <stddef.h>

struct names;

/* NULL: there is no library that reads debug information, or the process may not be looked at. */
struct names *names_open(int pid);
void names_close(struct names *n);
/* Of a return address: function, file and line as far as they are known, else the address. */
void names_of(struct names *n, unsigned long address, char *buf, size_t size);

#endif
