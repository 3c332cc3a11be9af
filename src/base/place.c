/* See place.h. */
#include "base/place.h"

#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

int heist__place(const void *address, bool returns, char *buf, size_t size) {
    uintptr_t at = (uintptr_t)address;
    Dl_info info;
    /* The call may be the last of its function. */
    if (!at || !dladdr((void *)(at - returns), &info) || !info.dli_fname) /* NOLINT: an address, not an object */
        return snprintf(buf, size, "%#lx", (unsigned long)at);
    if (!info.dli_sname)
        return snprintf(buf, size, "%s+%#lx", base_name(info.dli_fname),
                        (unsigned long)(at - (uintptr_t)info.dli_fbase));
    return snprintf(buf, size, "%s+%#lx (%s)", info.dli_sname, (unsigned long)(at - (uintptr_t)info.dli_saddr),
                    base_name(info.dli_fname));
}
