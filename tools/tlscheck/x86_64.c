/* x86-64 instructions as steps (System V ABI). */
#include <elf.h>
#include <string.h>

#include "code.h"

const char name_tlsdesc[] = "(thread-local descriptor)";

enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 };

static const struct {
    uint16_t reg;
    int8_t place, bytes;
} registers[] = {
#define FOUR(p, q, d, w, b) {X86_REG_##q, p, 8}, {X86_REG_##d, p, 4}, {X86_REG_##w, p, 2}, {X86_REG_##b, p, 1}
    FOUR(RAX, RAX, EAX, AX, AL),      FOUR(RCX, RCX, ECX, CX, CL),      FOUR(RDX, RDX, EDX, DX, DL),
    FOUR(RBX, RBX, EBX, BX, BL),      FOUR(RSP, RSP, ESP, SP, SPL),     FOUR(RBP, RBP, EBP, BP, BPL),
    FOUR(RSI, RSI, ESI, SI, SIL),     FOUR(RDI, RDI, EDI, DI, DIL),     FOUR(R8, R8, R8D, R8W, R8B),
    FOUR(R9, R9, R9D, R9W, R9B),      FOUR(R10, R10, R10D, R10W, R10B), FOUR(R11, R11, R11D, R11W, R11B),
    FOUR(R12, R12, R12D, R12W, R12B), FOUR(R13, R13, R13D, R13W, R13B), FOUR(R14, R14, R14D, R14W, R14B),
    FOUR(R15, R15, R15D, R15W, R15B), {X86_REG_AH, RAX, 1},             {X86_REG_BH, RBX, 1},
    {X86_REG_CH, RCX, 1},             {X86_REG_DH, RDX, 1},
#undef FOUR
};

static int place_of(unsigned reg, int *bytes) {
    int size = 16;
    int place = NOWHERE;
    if (reg >= X86_REG_XMM0 && reg <= X86_REG_XMM31) {
        place = VECTOR + (int)(reg - X86_REG_XMM0);
    } else if (reg >= X86_REG_YMM0 && reg <= X86_REG_YMM31) {
        place = VECTOR + (int)(reg - X86_REG_YMM0);
        size = 32;
    } else if (reg >= X86_REG_ZMM0 && reg <= X86_REG_ZMM31) {
        place = VECTOR + (int)(reg - X86_REG_ZMM0);
        size = 64;
    } else {
        for (size_t i = 0; i < sizeof(registers) / sizeof(registers[0]); i++)
            if (registers[i].reg == reg) {
                place = registers[i].place;
                size = registers[i].bytes;
                break;
            }
    }
    if (bytes) *bytes = size;
    return place;
}

static bool kept_by_calls(int place) {
    return place == RBX || place == RSP || place == RBP || (place >= R12 && place <= R15);
}

/* Relocations by which an operand stands for a thread-local's place: the number in the code says nothing. */
static bool is_tls(const struct relocation *r) {
    if (!r) return false;
    switch (r->type) {
        case R_X86_64_TPOFF32:
        case R_X86_64_DTPOFF32:
        case R_X86_64_GOTTPOFF:
        case R_X86_64_TLSGD:
        case R_X86_64_TLSLD:
        case R_X86_64_GOTPC32_TLSDESC: return true;
        default: return false;
    }
}

/* An address: the registers in it are used as such, unless only its value is wanted. */
struct address {
    bool thread;       /* in the thread's segment */
    bool thread_base;  /* the word at its beginning, which holds the thread pointer */
    bool fixed;        /* at `number`, no register */
    const char *name;  /* the word holds the address of this function */
    int base, index;
    int64_t number;
};

static struct address address_of(const cs_insn *in, const x86_op_mem *mem, const struct image *image) {
    const struct relocation *r = image_relocation(image, in->address, in->size);
    struct address a = {.base = place_of(mem->base, NULL), .index = place_of(mem->index, NULL), .number = mem->disp};
    a.thread = mem->segment == X86_REG_FS;
    if (a.thread) {
        a.thread_base = a.base == NOWHERE && a.index == NOWHERE && mem->base != X86_REG_RIP && mem->disp == 0 && !is_tls(r);
        return a;
    }
    if (mem->base == X86_REG_RIP || (a.base == NOWHERE && a.index == NOWHERE)) {
        a.fixed = true;
        if (mem->base == X86_REG_RIP) a.number += (int64_t)(in->address + in->size);
        if (r && (r->type == R_X86_64_GOTPCREL || r->type == R_X86_64_GOTPCRELX || r->type == R_X86_64_REX_GOTPCRELX))
            a.name = r->name;
        else if (r && r->type == R_X86_64_GOTPC32_TLSDESC)
            a.name = name_tlsdesc;
        else if (!r)
            a.name = image_slot(image, (uint64_t)a.number);
    } else if (r && a.index == NOWHERE && is_tls(r)) {
        a.number = 0;
    }
    return a;
}

static void deref(struct insn *insn, struct step *steps, const struct address *a) {
    if (a->thread) return; /* the registers in it are offsets, the same in each thread */
    if (a->base != NOWHERE && a->base != RSP) ADD_STEP(.kind = STEP_DEREF, .a = (int8_t)a->base);
    if (a->index != NOWHERE) ADD_STEP(.kind = STEP_DEREF, .a = (int8_t)a->index);
}

static void load(struct insn *insn, struct step *steps, const struct address *a, int dst, int bytes) {
    deref(insn, steps, a);
    if (a->thread_base && bytes == 8)
        ADD_STEP(.kind = STEP_THREAD, .dst = (int8_t)dst);
    else if (!a->thread && a->name && bytes == 8)
        ADD_STEP(.kind = STEP_NAME, .dst = (int8_t)dst, .name = a->name);
    else if (!a->thread && !a->fixed && a->base != NOWHERE && a->index == NOWHERE)
        ADD_STEP(.kind = STEP_LOAD, .dst = (int8_t)dst, .a = (int8_t)a->base, .number = a->number, .bytes = (uint8_t)bytes);
    else
        ADD_STEP(.kind = STEP_CLEAR, .dst = (int8_t)dst);
}

static void store(struct insn *insn, struct step *steps, const struct address *a, int src, int bytes) {
    deref(insn, steps, a);
    if (a->thread) return;
    bool known = !a->fixed && a->base != NOWHERE && a->index == NOWHERE;
    ADD_STEP(.kind = STEP_STORE, .a = (int8_t)(known ? a->base : NOWHERE), .b = (int8_t)src, .number = a->number,
             .bytes = (uint8_t)bytes);
}

/* dst op= src, or a compare: the value of an operand in a place. */
static int operand(struct insn *insn, struct step *steps, const cs_insn *in, const cs_x86_op *op,
                   const struct image *image) {
    if (op->type == X86_OP_REG) {
        int bytes, place = place_of(op->reg, &bytes);
        return bytes >= 8 ? place : NOWHERE;
    }
    if (op->type == X86_OP_MEM) {
        struct address a = address_of(in, &op->mem, image);
        load(insn, steps, &a, TEMPORARY, op->size);
        return op->size >= 8 ? TEMPORARY : NOWHERE;
    }
    return NOWHERE;
}

static void move(struct insn *insn, struct step *steps, const cs_insn *in, const cs_x86 *x, const struct image *image) {
    const cs_x86_op *to = &x->operands[0], *from = &x->operands[x->op_count - 1];
    if (to->type == X86_OP_MEM) {
        struct address a = address_of(in, &to->mem, image);
        int bytes = 0, src = from->type == X86_OP_REG ? place_of(from->reg, &bytes) : NOWHERE;
        store(insn, steps, &a, to->size >= 8 && bytes >= 8 ? src : NOWHERE, to->size);
        return;
    }
    int to_bytes, dst = place_of(to->reg, &to_bytes);
    if (dst == NOWHERE) return;
    if (from->type == X86_OP_MEM) {
        struct address a = address_of(in, &from->mem, image);
        load(insn, steps, &a, dst, to_bytes < from->size ? to_bytes : from->size);
        if (from->size < 8) ADD_STEP(.kind = STEP_CLEAR, .dst = (int8_t)dst);
        return;
    }
    const struct relocation *r = from->type == X86_OP_IMM ? image_relocation(image, in->address, in->size) : NULL;
    if (r && r->name && (r->type == R_X86_64_64 || r->type == R_X86_64_32 || r->type == R_X86_64_32S)) {
        ADD_STEP(.kind = STEP_NAME, .dst = (int8_t)dst, .name = r->name);
        return;
    }
    int from_bytes = 0, src = from->type == X86_OP_REG ? place_of(from->reg, &from_bytes) : NOWHERE;
    if (src == NOWHERE || to_bytes < 8 || from_bytes < 8)
        ADD_STEP(.kind = STEP_CLEAR, .dst = (int8_t)dst);
    else
        ADD_STEP(.kind = STEP_COPY, .dst = (int8_t)dst, .a = (int8_t)src);
}

static void other(csh handle, struct insn *insn, struct step *steps, const cs_insn *in, const cs_x86 *x,
                  const struct image *image) {
    for (int i = 0; i < x->op_count; i++) {
        if (x->operands[i].type != X86_OP_MEM) continue;
        struct address a = address_of(in, &x->operands[i].mem, image);
        if (x->operands[i].access & CS_AC_WRITE)
            store(insn, steps, &a, NOWHERE, x->operands[i].size);
        else
            deref(insn, steps, &a);
    }
    cs_regs read, written;
    uint8_t reads, writes;
    if (cs_regs_access(handle, in, read, &reads, written, &writes)) return;
    for (int i = 0; i < writes; i++) {
        int place = place_of(written[i], NULL);
        if (place == RSP)
            ADD_STEP(.kind = STEP_ALIGN, .dst = RSP, .a = RSP);
        else if (place != NOWHERE)
            ADD_STEP(.kind = STEP_CLEAR, .dst = (int8_t)place);
    }
}

static void control(struct insn *insn, struct step *steps, const cs_insn *in, const cs_x86_op *op,
                    const struct image *image) {
    const struct relocation *r = image_relocation(image, in->address, in->size);
    if (op->type == X86_OP_IMM) {
        insn->target = (uint64_t)op->imm;
        if (r) { /* the number in the code counts from the end of the instruction, the addend from the field */
            insn->target = r->target ? r->target + (in->address + in->size - r->address) : 0;
            insn->name = r->name;
        }
        return;
    }
    if (op->type == X86_OP_REG) {
        insn->through = (int8_t)place_of(op->reg, NULL);
        return;
    }
    if (r && r->type == R_X86_64_TLSDESC_CALL) {
        insn->flow = FLOW_CALL_TLSDESC;
        return;
    }
    struct address a = address_of(in, &op->mem, image);
    load(insn, steps, &a, TEMPORARY, 8);
    insn->through = TEMPORARY;
    if (a.fixed) insn->name = a.name;
}

static void translate(csh handle, const cs_insn *in, const struct image *image, struct insn *insn, struct step *steps) {
    const cs_x86 *x = &in->detail->x86;
    const cs_x86_op *op = x->operands;
    int bytes = 8;
    int dst = x->op_count && op[0].type == X86_OP_REG ? place_of(op[0].reg, &bytes) : NOWHERE;
    insn->flow = FLOW_NEXT;
    insn->through = NOWHERE;
    switch (in->id) {
        case X86_INS_NOP:
        case X86_INS_ENDBR64:
        case X86_INS_PAUSE:
        case X86_INS_INT3: insn->padding = true; return;
        case X86_INS_HLT:
        case X86_INS_UD2: insn->flow = FLOW_TRAP; return;
        case X86_INS_RET: insn->flow = FLOW_RETURN; return;
        case X86_INS_CALL:
            insn->flow = FLOW_CALL;
            control(insn, steps, in, op, image);
            return;
        case X86_INS_JMP:
            insn->flow = op->type == X86_OP_IMM ? FLOW_JUMP : FLOW_JUMP_INDIRECT;
            control(insn, steps, in, op, image);
            return;
        case X86_INS_MOV:
        case X86_INS_MOVABS:
        case X86_INS_MOVQ:
        case X86_INS_MOVD:
        case X86_INS_MOVZX:
        case X86_INS_MOVSX:
        case X86_INS_MOVSXD:
        case X86_INS_MOVAPS:
        case X86_INS_MOVUPS:
        case X86_INS_MOVAPD:
        case X86_INS_MOVUPD:
        case X86_INS_MOVDQA:
        case X86_INS_MOVDQU:
        case X86_INS_MOVLPS:
        case X86_INS_MOVHPS:
        case X86_INS_MOVLPD:
        case X86_INS_MOVHPD:
        case X86_INS_VMOVQ:
        case X86_INS_VMOVAPS:
        case X86_INS_VMOVUPS:
        case X86_INS_VMOVAPD:
        case X86_INS_VMOVUPD:
        case X86_INS_VMOVDQA:
        case X86_INS_VMOVDQU: move(insn, steps, in, x, image); return;
        case X86_INS_LEA: {
            struct address a = address_of(in, &op[1].mem, image);
            const struct relocation *r = a.fixed && bytes == 8 ? image_relocation(image, in->address, in->size) : NULL;
            if (a.fixed && bytes == 8 && !r) insn->taken = (uint64_t)a.number;
            if (r && r->name && (r->type == R_X86_64_PC32 || r->type == R_X86_64_PLT32))
                ADD_STEP(.kind = STEP_NAME, .dst = (int8_t)dst, .name = r->name);
            else if (bytes < 8 || a.fixed || a.base == NOWHERE)
                ADD_STEP(.kind = STEP_CLEAR, .dst = (int8_t)dst);
            else if (a.index == NOWHERE)
                ADD_STEP(.kind = STEP_ADD, .dst = (int8_t)dst, .a = (int8_t)a.base, .number = a.number);
            else
                ADD_STEP(.kind = STEP_JOIN, .dst = (int8_t)dst, .a = (int8_t)a.base, .b = (int8_t)a.index);
            return;
        }
        case X86_INS_ADD:
        case X86_INS_SUB:
        case X86_INS_AND:
        case X86_INS_OR:
        case X86_INS_XOR:
            if (dst == NOWHERE || bytes < 8) break;
            if (op[1].type == X86_OP_IMM && (in->id == X86_INS_ADD || in->id == X86_INS_SUB)) {
                ADD_STEP(.kind = STEP_ADD, .dst = (int8_t)dst, .a = (int8_t)dst,
                         .number = in->id == X86_INS_ADD ? op[1].imm : -op[1].imm);
            } else if (dst == RSP) {
                ADD_STEP(.kind = STEP_ALIGN, .dst = RSP, .a = RSP);
            } else if (in->id == X86_INS_XOR && op[1].type == X86_OP_REG && op[1].reg == op[0].reg) {
                ADD_STEP(.kind = STEP_CLEAR, .dst = (int8_t)dst);
            } else {
                int src = operand(insn, steps, in, &op[1], image);
                ADD_STEP(.kind = STEP_JOIN, .dst = (int8_t)dst, .a = (int8_t)dst, .b = (int8_t)src);
            }
            return;
        case X86_INS_INC:
        case X86_INS_DEC:
            if (dst == NOWHERE || bytes < 8) break;
            ADD_STEP(.kind = STEP_ADD, .dst = (int8_t)dst, .a = (int8_t)dst, .number = in->id == X86_INS_INC ? 1 : -1);
            return;
        case X86_INS_CMP:
        case X86_INS_TEST:
            for (int i = 0; i < 2; i++) {
                int place = operand(insn, steps, in, &op[i], image);
                if (place != NOWHERE) ADD_STEP(.kind = STEP_USE, .a = (int8_t)place);
            }
            return;
        case X86_INS_PUSH: {
            int src = operand(insn, steps, in, &op[0], image);
            ADD_STEP(.kind = STEP_ADD, .dst = RSP, .a = RSP, .number = -8);
            ADD_STEP(.kind = STEP_STORE, .a = RSP, .b = (int8_t)src, .bytes = 8);
            return;
        }
        case X86_INS_POP:
            if (dst == NOWHERE) break;
            ADD_STEP(.kind = STEP_LOAD, .dst = (int8_t)dst, .a = RSP, .bytes = 8);
            if (dst != RSP) ADD_STEP(.kind = STEP_ADD, .dst = RSP, .a = RSP, .number = 8);
            return;
        case X86_INS_LEAVE:
            ADD_STEP(.kind = STEP_COPY, .dst = RSP, .a = RBP);
            ADD_STEP(.kind = STEP_LOAD, .dst = RBP, .a = RSP, .bytes = 8);
            ADD_STEP(.kind = STEP_ADD, .dst = RSP, .a = RSP, .number = 8);
            return;
        case X86_INS_XCHG:
            if (dst == NOWHERE || bytes < 8 || op[1].type != X86_OP_REG) break;
            ADD_STEP(.kind = STEP_COPY, .dst = TEMPORARY, .a = (int8_t)dst);
            ADD_STEP(.kind = STEP_COPY, .dst = (int8_t)dst, .a = (int8_t)place_of(op[1].reg, NULL));
            ADD_STEP(.kind = STEP_COPY, .dst = (int8_t)place_of(op[1].reg, NULL), .a = TEMPORARY);
            return;
        case X86_INS_CMOVA:
        case X86_INS_CMOVAE:
        case X86_INS_CMOVB:
        case X86_INS_CMOVBE:
        case X86_INS_CMOVE:
        case X86_INS_CMOVG:
        case X86_INS_CMOVGE:
        case X86_INS_CMOVL:
        case X86_INS_CMOVLE:
        case X86_INS_CMOVNE:
        case X86_INS_CMOVNO:
        case X86_INS_CMOVNP:
        case X86_INS_CMOVNS:
        case X86_INS_CMOVO:
        case X86_INS_CMOVP:
        case X86_INS_CMOVS:
        case X86_INS_PUNPCKLQDQ: /* two words into one register */
        case X86_INS_UNPCKLPD:
        case X86_INS_SHUFPD:
        case X86_INS_PINSRQ: {
            if (bytes < 8) break;
            int src = operand(insn, steps, in, &op[1], image);
            ADD_STEP(.kind = STEP_JOIN, .dst = (int8_t)dst, .a = (int8_t)dst, .b = (int8_t)src);
            return;
        }
        case X86_INS_VPUNPCKLQDQ:
        case X86_INS_VPINSRQ:
        case X86_INS_VUNPCKLPD: {
            int src = operand(insn, steps, in, &op[2], image);
            ADD_STEP(.kind = STEP_JOIN, .dst = (int8_t)dst, .a = (int8_t)place_of(op[1].reg, NULL), .b = (int8_t)src);
            return;
        }
        default: break;
    }
    if (cs_insn_group(handle, in, X86_GRP_JUMP)) { /* the conditional ones, and loop */
        insn->flow = FLOW_BRANCH;
        if (x->op_count && op->type == X86_OP_IMM) control(insn, steps, in, op, image);
        return;
    }
    other(handle, insn, steps, in, x, image);
}

/* jmp *slot(%rip), perhaps behind endbr64. */
static uint64_t stub_slot(const cs_insn *in, size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (in[i].id == X86_INS_ENDBR64) continue;
        const cs_x86_op *op = in[i].detail->x86.operands;
        if (in[i].id != X86_INS_JMP || op->type != X86_OP_MEM || op->mem.base != X86_REG_RIP) return 0;
        return in[i].address + in[i].size + (uint64_t)op->mem.disp;
    }
    return 0;
}

const struct machine machine_x86_64 = {
    .name = "x86-64",
    .elf_machine = EM_X86_64,
    .arch = CS_ARCH_X86,
    .mode = CS_MODE_64,
    .stack_pointer = RSP,
    .result = RAX,
    .arguments = {RDI, RSI, RDX, RCX, R8, R9},
    .argument_count = 6,
    .kept_by_calls = kept_by_calls,
    .translate = translate,
    .stub_slot = stub_slot,
};
