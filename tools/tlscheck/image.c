/* Opening files.  See image.h. */
#include "image.h"

#include <gelf.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void *must(void *memory) {
    if (!memory) {
        fputs("heist-tlscheck: no memory\n", stderr);
        exit(2);
    }
    return memory;
}

#define GROW(array, count)                                                                                             \
    ((count) & ((count)-1) ? (array) : must(realloc((array), ((count) ? (count)*2 : 1) * sizeof(*(array)))))

/* ---- looking up ---- */

const struct relocation *image_relocation(const struct image *image, uint64_t address, unsigned size) {
    size_t low = 0, high = image->relocation_count;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (image->relocations[mid].address < address)
            low = mid + 1;
        else
            high = mid;
    }
    if (low == image->relocation_count || image->relocations[low].address >= address + size) return NULL;
    return &image->relocations[low];
}

const char *image_slot(const struct image *image, uint64_t address) {
    size_t low = 0, high = image->slot_count;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (image->slots[mid].address < address)
            low = mid + 1;
        else
            high = mid;
    }
    return low < image->slot_count && image->slots[low].address == address ? image->slots[low].name : NULL;
}

struct function *image_function(const struct image *image, uint64_t address) {
    size_t low = 0, high = image->function_count;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (image->functions[mid].parts[0].start < address)
            low = mid + 1;
        else
            high = mid;
    }
    if (low == image->function_count || image->functions[low].parts[0].start != address) return NULL;
    return &image->functions[low];
}

static const uint8_t *bytes_at(const struct image *image, uint64_t address, size_t *room) {
    GElf_Addr bias;
    Elf *elf = dwfl_module_getelf(image->module, &bias);
    for (Elf_Scn *scn = NULL; (scn = elf_nextscn(elf, scn));) {
        GElf_Shdr header;
        if (!gelf_getshdr(scn, &header) || header.sh_type == SHT_NOBITS || !(header.sh_flags & SHF_ALLOC)) continue;
        uint64_t start = header.sh_addr + bias;
        if (address < start || address >= start + header.sh_size) continue;
        Elf_Data *data = elf_rawdata(scn, NULL);
        if (!data || !data->d_buf) return NULL;
        *room = (size_t)(start + header.sh_size - address);
        return (const uint8_t *)data->d_buf + (address - start);
    }
    return NULL;
}

const char *image_callee(const struct image *image, uint64_t address) {
    struct function *f = image_function(image, address);
    if (f) return f->name;
    size_t room = 0;
    const uint8_t *bytes = bytes_at(image, address, &room);
    if (!bytes) return NULL;
    cs_insn *in;
    size_t count = cs_disasm(image->handle, bytes, room < 32 ? room : 32, address, 4, &in);
    if (!count) return NULL;
    uint64_t slot = image->machine->stub_slot(in, count);
    cs_free(in, count);
    return slot ? image_slot(image, slot) : NULL;
}

/* ---- lines ---- */

static int by_line_address(const void *a, const void *b) {
    const struct source_line *x = a, *y = b;
    if (x->address != y->address) return x->address < y->address ? -1 : 1;
    return (x->file != NULL) - (y->file != NULL); /* an end before a beginning */
}

/* All tables of the module: not every compiler writes the index by which one unit would be found. */
static void read_lines(struct image *image) {
    image->lines_read = true;
    Dwarf_Addr bias = 0;
    for (Dwarf_Die *unit = NULL; (unit = dwfl_module_nextcu(image->module, unit, &bias));) {
        Dwarf_Lines *table;
        size_t count;
        if (dwarf_getsrclines(unit, &table, &count)) continue;
        for (size_t i = 0; i < count; i++) {
            Dwarf_Line *l = dwarf_onesrcline(table, i);
            Dwarf_Addr address;
            int number = 0;
            bool end = false;
            if (!l || dwarf_lineaddr(l, &address) || dwarf_lineno(l, &number) || dwarf_lineendsequence(l, &end)) continue;
            const char *file = end ? NULL : dwarf_linesrc(l, NULL, NULL);
            image->lines = GROW(image->lines, image->line_count);
            image->lines[image->line_count++] = (struct source_line){address + bias, file, number};
        }
    }
    if (image->line_count) qsort(image->lines, image->line_count, sizeof(*image->lines), by_line_address);
}

int image_source(const struct image *image, uint64_t address, const char **file) {
    if (!image->lines_read) read_lines((struct image *)(uintptr_t)image);
    size_t low = 0, high = image->line_count; /* the last that begins at or before the address */
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (image->lines[mid].address <= address)
            low = mid + 1;
        else
            high = mid;
    }
    while (low && image->lines[low - 1].file && !image->lines[low - 1].line) low--; /* code of no line */
    *file = low ? image->lines[low - 1].file : NULL;
    return *file ? image->lines[low - 1].line : 0;
}

const char *image_line(const struct function *f, uint64_t address, char *buf, size_t size) {
    const char *file;
    int line = image_source(f->image, address, &file);
    if (line)
        snprintf(buf, size, "%s:%d", file, line);
    else
        snprintf(buf, size, "%s+0x%" PRIx64, f->name, address - f->parts[0].start);
    return buf;
}

/* ---- opening ---- */

static int by_start(const void *a, const void *b) {
    const struct function *f = a, *g = b;
    uint64_t x = f->parts[0].start, y = g->parts[0].start;
    return x < y ? -1 : x > y ? 1 : (int)g->global - (int)f->global; /* of two names the global one first */
}
static int by_address(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Without the version that the linker wrote behind it: callers name it so. */
static const char *plain_name(struct image *image, const char *name) {
    const char *version = strchr(name, '@');
    if (!version) return name;
    image->owned = GROW(image->owned, image->owned_count);
    return image->owned[image->owned_count++] = must(strndup(name, (size_t)(version - name)));
}

static void find_functions(struct image *image) {
    int symbols = dwfl_module_getsymtab(image->module);
    for (int i = 1; i < symbols; i++) {
        GElf_Sym sym;
        GElf_Addr address;
        GElf_Word shndx;
        const char *name = dwfl_module_getsym_info(image->module, i, &sym, &address, &shndx, NULL, NULL);
        if (!name || GELF_ST_TYPE(sym.st_info) != STT_FUNC || !sym.st_size || shndx == SHN_UNDEF) continue;
        size_t room;
        const uint8_t *bytes = bytes_at(image, address, &room);
        if (!bytes || room < sym.st_size) continue;
        image->functions = GROW(image->functions, image->function_count);
        image->functions[image->function_count++] = (struct function){
            .image = image, .name = plain_name(image, name), .global = GELF_ST_BIND(sym.st_info) != STB_LOCAL,
            .parts = {{address, address + sym.st_size, bytes}}, .part_count = 1};
    }
    if (!image->function_count) return;
    qsort(image->functions, image->function_count, sizeof(*image->functions), by_start);
    size_t kept = 1; /* one name for each address */
    for (size_t i = 1; i < image->function_count; i++)
        if (image->functions[i].parts[0].start != image->functions[kept - 1].parts[0].start)
            image->functions[kept++] = image->functions[i];
    image->function_count = kept;
    /* gcc's name.cold and name.cold.2 are parts of name. */
    for (size_t i = 0; i < image->function_count; i++) {
        struct function *cold = &image->functions[i];
        const char *dot = strstr(cold->name, ".cold");
        if (!dot) continue;
        for (size_t j = 0; j < image->function_count; j++) {
            struct function *f = &image->functions[j];
            if (strncmp(f->name, cold->name, (size_t)(dot - cold->name)) || f->name[dot - cold->name]) continue;
            if (f->part_count == 8) continue;
            f->parts[f->part_count++] = cold->parts[0];
            cold->part_count = 0; /* no function of its own */
            break;
        }
    }
}

static void add_slot(struct image *image, uint64_t address, const char *name) {
    image->slots = GROW(image->slots, image->slot_count);
    image->slots[image->slot_count++] = (struct slot){address, name};
}

/* Relocations: of an object file, those of code; of what is linked, those of the offset table. */
static void find_relocations(struct image *image) {
    GElf_Addr bias;
    Elf *elf = dwfl_module_getelf(image->module, &bias);
    GElf_Ehdr header;
    if (!elf || !gelf_getehdr(elf, &header)) return;
    bool object = header.e_type == ET_REL;
    for (Elf_Scn *scn = NULL; (scn = elf_nextscn(elf, scn));) {
        GElf_Shdr shdr, target, symbols;
        if (!gelf_getshdr(scn, &shdr) || shdr.sh_type != SHT_RELA) continue;
        Elf_Scn *table = elf_getscn(elf, shdr.sh_link), *section = object ? elf_getscn(elf, shdr.sh_info) : NULL;
        if (object && (!section || !gelf_getshdr(section, &target) || !(target.sh_flags & SHF_EXECINSTR))) continue;
        Elf_Data *data = elf_getdata(scn, NULL), *symbol_data = table ? elf_getdata(table, NULL) : NULL;
        if (!data || !shdr.sh_entsize) continue;
        if (table && !gelf_getshdr(table, &symbols)) continue;
        for (size_t i = 0; i < shdr.sh_size / shdr.sh_entsize; i++) {
            GElf_Rela rela;
            GElf_Sym sym = {0};
            if (!gelf_getrela(data, (int)i, &rela)) break;
            uint32_t type = (uint32_t)GELF_R_TYPE(rela.r_info);
            const char *name = NULL;
            if (GELF_R_SYM(rela.r_info) && symbol_data && gelf_getsym(symbol_data, (int)GELF_R_SYM(rela.r_info), &sym) &&
                sym.st_name)
                name = elf_strptr(elf, symbols.sh_link, sym.st_name);
            if (!object) {
                bool descriptor = image->machine->elf_machine == EM_AARCH64 ? type == R_AARCH64_TLSDESC : type == R_X86_64_TLSDESC;
                if (descriptor || name) add_slot(image, rela.r_offset + bias, descriptor ? name_tlsdesc : name);
                continue;
            }
            uint64_t points_to = 0;
            GElf_Shdr home;
            Elf_Scn *where = sym.st_shndx != SHN_UNDEF && sym.st_shndx < SHN_LORESERVE ? elf_getscn(elf, sym.st_shndx) : NULL;
            if (where && gelf_getshdr(where, &home) && GELF_ST_TYPE(sym.st_info) != STT_TLS)
                points_to = home.sh_addr + bias + sym.st_value + (uint64_t)rela.r_addend;
            image->relocations = GROW(image->relocations, image->relocation_count);
            image->relocations[image->relocation_count++] =
                (struct relocation){target.sh_addr + bias + rela.r_offset, points_to, name, type};
        }
    }
    /* An element begins with its address. */
    if (image->relocation_count)
        qsort(image->relocations, image->relocation_count, sizeof(*image->relocations), by_address);
    if (image->slot_count) qsort(image->slots, image->slot_count, sizeof(*image->slots), by_address);
}

/* What gcc leaves in an object that holds its intermediate language and no code. */
static bool intermediate_only(Dwfl_Module *module) {
    int symbols = dwfl_module_getsymtab(module);
    for (int i = 1; i < symbols; i++) {
        GElf_Sym sym;
        GElf_Addr address;
        const char *name = dwfl_module_getsym_info(module, i, &sym, &address, NULL, NULL, NULL);
        if (name && strcmp(name, "__gnu_lto_slim") == 0) return true;
    }
    return false;
}

struct opening {
    struct images *images;
    const char *path;
    int err;
};

static int refuse(struct opening *o, const char *name, const char *why) {
    fprintf(stderr, "heist-tlscheck: %s: %s\n", name, why);
    o->err = -1;
    return DWARF_CB_OK;
}

static int open_module(Dwfl_Module *module, void **user, const char *name, Dwarf_Addr start, void *arg) {
    (void)user, (void)start;
    struct opening *o = arg;
    GElf_Addr bias;
    Elf *elf = dwfl_module_getelf(module, &bias);
    GElf_Ehdr header;
    if (!elf || !gelf_getehdr(elf, &header)) return refuse(o, name, dwfl_errmsg(-1));
    const struct machine *machine = header.e_machine == EM_X86_64    ? &machine_x86_64
                                    : header.e_machine == EM_AARCH64 ? &machine_aarch64
                                                                     : NULL;
    if (!machine || header.e_ident[EI_CLASS] != ELFCLASS64) return refuse(o, name, "neither x86-64 nor AArch64");
    Dwarf_Addr lines;
    (void)dwfl_module_getdwarf(module, &lines); /* relocates the lines; there may be none */
    struct image *image = must(calloc(1, sizeof(*image)));
    image->name = name;
    image->machine = machine;
    image->module = module;
    o->images->list = GROW(o->images->list, o->images->count);
    o->images->list[o->images->count++] = image;
    if (cs_open((cs_arch)machine->arch, (cs_mode)machine->mode, &image->handle))
        return refuse(o, name, "the disassembler does not know this machine");
    cs_option(image->handle, CS_OPT_DETAIL, CS_OPT_ON);
    bool code = false;
    size_t names;
    elf_getshdrstrndx(elf, &names);
    for (Elf_Scn *scn = NULL; (scn = elf_nextscn(elf, scn));) {
        GElf_Shdr shdr;
        if (!gelf_getshdr(scn, &shdr)) continue;
        const char *section = elf_strptr(elf, names, shdr.sh_name);
        if ((shdr.sh_flags & SHF_EXECINSTR) && shdr.sh_size) code = true;
        if (!section) continue;
        if (strncmp(section, ".gcc_except_table", 17) == 0) image->has_landing_pads = true;
    }
    find_functions(image);
    find_relocations(image);
    if (!image->function_count && code) return refuse(o, name, "it has code, and no symbols that say where its functions are");
    if (!image->function_count && intermediate_only(module))
        return refuse(o, name, "made for the link-time optimiser, it has no machine code: check what is linked of it");
    return DWARF_CB_OK;
}

static const Dwfl_Callbacks callbacks = {
    .find_elf = dwfl_build_id_find_elf,
    .find_debuginfo = dwfl_standard_find_debuginfo,
    .section_address = dwfl_offline_section_address,
};

int images_open(struct images *images, const char *path) {
    if (images->session_count == (int)(sizeof(images->sessions) / sizeof(images->sessions[0]))) {
        fputs("heist-tlscheck: more than 256 files at once\n", stderr);
        return -1;
    }
    Dwfl *session = must(dwfl_begin(&callbacks));
    images->sessions[images->session_count++] = session;
    if (!dwfl_report_offline(session, path, path, -1)) {
        fprintf(stderr, "heist-tlscheck: %s: %s\n", path, dwfl_errmsg(-1));
        return -1;
    }
    dwfl_report_end(session, NULL, NULL);
    struct opening o = {images, path, 0};
    size_t before = images->count;
    dwfl_getmodules(session, open_module, &o, 0);
    if (!o.err && images->count == before) {
        fprintf(stderr, "heist-tlscheck: %s: nothing in it to check\n", path);
        return -1;
    }
    return o.err;
}

void images_close(struct images *images) {
    for (size_t i = 0; i < images->count; i++) {
        struct image *image = images->list[i];
        for (size_t j = 0; j < image->function_count; j++) {
            free(image->functions[j].insns);
            free(image->functions[j].steps);
        }
        cs_close(&image->handle);
        free(image->functions);
        free(image->relocations);
        free(image->slots);
        free(image->lines);
        for (size_t j = 0; j < image->owned_count; j++) free(image->owned[j]);
        free(image->owned);
        free(image);
    }
    free(images->list);
    for (int i = 0; i < images->session_count; i++) dwfl_end(images->sessions[i]);
}
