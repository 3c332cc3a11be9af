/* The version of the library that runs. */
#include <heist/version.h>

const char *heist_version(void) { return HEIST_VERSION_STRING; }
