/* heist/version.h: the numbers of these headers, and of the library that runs. */
#ifndef HEIST_VERSION_H
#define HEIST_VERSION_H

#include <heist/base.h>

#define HEIST_VERSION_MAJOR 0
#define HEIST_VERSION_MINOR 1
#define HEIST_VERSION_PATCH 0
#define HEIST_VERSION_STRING "0.1.0"

HEIST_BEGIN_DECLS

/* The version of the library that was linked, as "major.minor.patch".
 * Context: any.  Suspends: never. */
HEIST_API const char *heist_version(void);

HEIST_END_DECLS

#endif
