/* See names.h.  Built with elfutils (HEIST_PS_DW) it knows names; without it nobody does. */
#include "names.h"

#ifdef HEIST_PS_DW

#include <elfutils/libdwfl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct names {
    Dwfl *dwfl;
};

static const Dwfl_Callbacks callbacks = {
    .find_elf = dwfl_linux_proc_find_elf,
    .find_debuginfo = dwfl_standard_find_debuginfo,
};

struct names *names_open(int pid) {
    struct names *n = malloc(sizeof(*n));
    if (!n) return NULL;
    n->dwfl = dwfl_begin(&callbacks);
    if (n->dwfl && dwfl_linux_proc_report(n->dwfl, pid) == 0 && dwfl_report_end(n->dwfl, NULL, NULL) == 0) return n;
    names_close(n);
    return NULL;
}

void names_close(struct names *n) {
    if (!n) return;
    if (n->dwfl) dwfl_end(n->dwfl);
    free(n);
}

void names_of(struct names *n, unsigned long address, char *buf, size_t size) {
    Dwarf_Addr at = address - 1; /* within the call, which may be the last of its function */
    Dwfl_Module *module = dwfl_addrmodule(n->dwfl, at);
    GElf_Off offset = 0;
    GElf_Sym symbol;
    const char *function = module ? dwfl_module_addrinfo(module, at, &offset, &symbol, NULL, NULL, NULL) : NULL;
    int line = 0;
    Dwfl_Line *place = module ? dwfl_module_getsrc(module, at) : NULL;
    const char *file = place ? dwfl_lineinfo(place, NULL, &line, NULL, NULL, NULL) : NULL;
    const char *slash = file ? strrchr(file, '/') : NULL;
    if (function && file) snprintf(buf, size, "%s %s:%d", function, slash ? slash + 1 : file, line);
    else if (function) snprintf(buf, size, "%s+%#lx", function, (unsigned long)offset + 1);
    else snprintf(buf, size, "%#lx", address);
}

#else

#include <stdio.h>

struct names *names_open(int pid) {
    (void)pid;
    return NULL;
}

void names_close(struct names *n) { (void)n; }

void names_of(struct names *n, unsigned long address, char *buf, size_t size) {
    (void)n;
    snprintf(buf, size, "%#lx", address);
}

#endif
