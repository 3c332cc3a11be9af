/* The files that are checked: their functions, relocations, offset tables and source lines.
 *
 * One image for each module: an object file, a member of an archive, an executable or a
 * shared object.  libdwfl lays the sections of an object file out in one address space, so
 * that an address means one thing in each image.  Everything lives until images_close. */
#ifndef HEIST_TLSCHECK_IMAGE_H
#define HEIST_TLSCHECK_IMAGE_H

#include <elfutils/libdwfl.h>

#include "code.h"

struct part { /* of a function: its body, and what the compiler moved out of it as unlikely */
    uint64_t start, end;
    const uint8_t *bytes;
};

struct function {
    const struct image *image;
    const char *name;
    bool global;
    struct part parts[8];
    int part_count;

    /* filled by flow.c and suspends.c */
    struct insn *insns;
    struct step *steps;
    size_t insn_count, step_count;
    const char *may_suspend;  /* NULL: it cannot, for all that is known; else the call that says so */
    bool returns_thread_place; /* its result is an address of the calling thread's */
    bool indirect_jumps;
};

struct image {
    const char *name;
    const struct machine *machine;
    Dwfl_Module *module;
    csh handle;
    bool has_landing_pads; /* C++ or -fexceptions */
    struct function *functions; /* by start of the first part */
    size_t function_count;
    struct relocation *relocations; /* of code, by address */
    size_t relocation_count;
    struct slot {
        uint64_t address;
        const char *name;
    } *slots; /* by address */
    size_t slot_count;
    struct source_line {
        uint64_t address;
        const char *file; /* NULL: here a sequence ends */
        int line;
    } *lines; /* by address, read when the first is asked for */
    size_t line_count;
    bool lines_read;
    char **owned; /* names that were cut */
    size_t owned_count;
};

struct images {
    struct image **list;
    size_t count;
    Dwfl *sessions[256];
    int session_count;
};

/* Adds what the file holds: 0, or -1 after a line to standard error. */
int images_open(struct images *images, const char *path);
void images_close(struct images *images);

/* The function that begins at the address, or NULL. */
struct function *image_function(const struct image *image, uint64_t address);
/* What a call of this address calls: a function's name, through the linker's stubs, or NULL. */
const char *image_callee(const struct image *image, uint64_t address);
/* "file.c:12", or "name+0x10" when there is no line; in buf. */
const char *image_line(const struct function *f, uint64_t address, char *buf, size_t size);
/* The parts of it: line 0 when unknown. */
int image_source(const struct image *image, uint64_t address, const char **file);

void *must(void *memory); /* ends the program when there is no memory */

#endif
