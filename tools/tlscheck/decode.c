/* A function's bytes as instructions and steps. */
#include <stdlib.h>
#include <string.h>

#include "flow.h"

long insn_at(const struct function *f, uint64_t address) {
    size_t low = 0, high = f->insn_count;
    /* The parts follow each other, and each is sorted: look in the right one. */
    for (int p = 0; p < f->part_count; p++) {
        if (address < f->parts[p].start || address >= f->parts[p].end) continue;
        for (size_t i = low; i < high; i++) {
            bool here = f->insns[i].address >= f->parts[p].start && f->insns[i].address < f->parts[p].end;
            if (!here) continue;
            size_t lo = i, hi = i;
            while (hi < high && f->insns[hi].address >= f->parts[p].start && f->insns[hi].address < f->parts[p].end) hi++;
            while (lo < hi) {
                size_t mid = (lo + hi) / 2;
                if (f->insns[mid].address < address)
                    lo = mid + 1;
                else
                    hi = mid;
            }
            return lo < high && f->insns[lo].address == address ? (long)lo : -1;
        }
    }
    return -1;
}

/* `lea behind, r; push r; jmp away; behind:` is a call of `away` (heist__ctx_jump).  The push is a part of it, which the
 * return takes back. */
static void calls_by_hand(struct function *f) {
    for (size_t i = 2; i < f->insn_count; i++) {
        struct insn *jump = &f->insns[i];
        if (jump->flow != FLOW_JUMP || !f->insns[i - 2].taken) continue;
        if (f->insns[i - 2].taken != jump->address + jump->size || insn_at(f, jump->target) >= 0) continue;
        jump->flow = FLOW_CALL;
        f->insns[i - 1].steps = 0;
    }
}

void decode(struct function *f) {
    const struct image *image = f->image;
    size_t insn_room = 0, step_room = 0;
    cs_insn *in = must(cs_malloc(image->handle));
    for (int p = 0; p < f->part_count; p++) {
        const uint8_t *code = f->parts[p].bytes;
        size_t left = (size_t)(f->parts[p].end - f->parts[p].start);
        uint64_t address = f->parts[p].start;
        while (left) {
            if (!cs_disasm_iter(image->handle, &code, &left, &address, in)) {
                size_t skip = image->machine->elf_machine == EM_AARCH64 ? 4 : 1; /* data among the code */
                if (left < skip) break;
                code += skip;
                left -= skip;
                address += skip;
                continue;
            }
            if (f->insn_count == insn_room) {
                insn_room = insn_room ? insn_room * 2 : 64;
                f->insns = must(realloc(f->insns, insn_room * sizeof(*f->insns)));
            }
            if (f->step_count + 16 > step_room) {
                step_room = step_room ? step_room * 2 : 256;
                f->steps = must(realloc(f->steps, step_room * sizeof(*f->steps)));
            }
            struct insn *insn = &f->insns[f->insn_count++];
            memset(insn, 0, sizeof(*insn));
            insn->address = in->address;
            insn->size = (uint8_t)in->size;
            insn->first_step = (uint32_t)f->step_count;
            insn->through = NOWHERE;
            image->machine->translate(image->handle, in, image, insn, f->steps + f->step_count);
            f->step_count += insn->steps;
            if (insn->flow == FLOW_JUMP_INDIRECT) f->indirect_jumps = true;
        }
    }
    cs_free(in, 1);
    /* Calls, and jumps out of the function, by name where the linker's stubs or symbols tell it. */
    for (size_t i = 0; i < f->insn_count; i++) {
        struct insn *insn = &f->insns[i];
        if (!insn->target || insn->flow == FLOW_NEXT) continue;
        bool inside = false;
        for (int p = 0; p < f->part_count; p++)
            inside |= insn->target >= f->parts[p].start && insn->target < f->parts[p].end;
        if (insn->flow != FLOW_CALL && inside) continue;
        const char *name = image_callee(image, insn->target);
        if (name) insn->name = name;
    }
    calls_by_hand(f);
}
