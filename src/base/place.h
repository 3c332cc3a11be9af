/* A printable form of a code address: what the dynamic symbols tell.  Owns nothing; any thread, not in a signal
 * handler. */
#ifndef HEIST_BASE_PLACE_H
#define HEIST_BASE_PLACE_H

#include <stdbool.h>
#include <stddef.h>

/* Function, offset and object; else object and offset, for addr2line; else the number.  returns: a return address,
 * which stands behind its call.  As snprintf: always terminated, the length that it would have had. */
int heist__place(const void *address, bool returns, char *buf, size_t size);

#endif
