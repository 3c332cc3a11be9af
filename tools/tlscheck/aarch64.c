/* AArch64 instructions as steps (AAPCS64). */
#include <elf.h>

#include "code.h"

enum { X0 = 0, FRAME = 29, LINK = 30, SP = 31 };
#define TPIDR_EL0 0xde82u

static int place_of(unsigned reg, int *bytes) {
    int size = 8, place = NOWHERE;
    if (reg >= ARM64_REG_X0 && reg <= ARM64_REG_X28)
        place = (int)(reg - ARM64_REG_X0);
    else if (reg == ARM64_REG_X29)
        place = FRAME;
    else if (reg == ARM64_REG_X30)
        place = LINK;
    else if (reg == ARM64_REG_SP)
        place = SP;
    else if (reg >= ARM64_REG_W0 && reg <= ARM64_REG_W30) {
        place = (int)(reg - ARM64_REG_W0);
        size = 4;
    } else if (reg == ARM64_REG_WZR) {
        size = 4;
    } else if (reg >= ARM64_REG_Q0 && reg <= ARM64_REG_Q31) {
        place = VECTOR + (int)(reg - ARM64_REG_Q0);
        size = 16;
    } else if (reg >= ARM64_REG_V0 && reg <= ARM64_REG_V31) {
        place = VECTOR + (int)(reg - ARM64_REG_V0);
        size = 16;
    } else if (reg >= ARM64_REG_D0 && reg <= ARM64_REG_D31) {
        place = VECTOR + (int)(reg - ARM64_REG_D0);
    } else if (reg >= ARM64_REG_S0 && reg <= ARM64_REG_S31) {
        place = VECTOR + (int)(reg - ARM64_REG_S0);
        size = 4;
    }
    if (bytes) *bytes = size;
    return place;
}

static bool kept_by_calls(int place) {
    return (place >= 19 && place <= 29) || place == SP || (place >= VECTOR + 8 && place < VECTOR + 16);
}

static bool is_tls(const struct relocation *r) {
    return r && r->type >= R_AARCH64_TLSGD_ADR_PREL21 && r->type <= R_AARCH64_TLSLD_LDST128_DTPREL_LO12_NC;
}

static int64_t immediate(const cs_arm64_op *op) {
    return op->shift.type == ARM64_SFT_LSL ? (int64_t)((uint64_t)op->imm << op->shift.value) : op->imm;
}

/* Loads and stores of one register or a pair, with the three ways of moving the base. */
static void memory(struct insn *insn, struct step *steps, const cs_insn *in, const cs_arm64 *a,
                   const struct image *image, bool is_load, int registers) {
    const cs_arm64_op *mem = &a->operands[registers];
    if (a->op_count <= registers || mem->type != ARM64_OP_MEM) {
        for (int i = 0; i < registers && is_load; i++) {
            int dst = place_of(a->operands[i].reg, NULL);
            if (dst != NOWHERE) ADD_STEP(.kind = STEP_CLEAR, .dst = (int8_t)dst);
        }
        return;
    }
    const struct relocation *r = image_relocation(image, in->address, in->size);
    int base = place_of(mem->mem.base, NULL), index = place_of(mem->mem.index, NULL);
    bool after = a->op_count > registers + 1; /* [base], #n */
    int64_t moves = after ? a->operands[registers + 1].imm : a->writeback ? mem->mem.disp : 0;
    int64_t at = after ? 0 : mem->mem.disp;
    if (base != NOWHERE && base != SP) ADD_STEP(.kind = STEP_DEREF, .a = (int8_t)base);
    if (index != NOWHERE) ADD_STEP(.kind = STEP_DEREF, .a = (int8_t)index);
    bool known = base != NOWHERE && index == NOWHERE && !is_tls(r);
    for (int i = 0; i < registers; i++) {
        int bytes, place = place_of(a->operands[i].reg, &bytes);
        if (is_load && place != NOWHERE) {
            if (r && r->type == R_AARCH64_LD64_GOT_LO12_NC && r->name)
                ADD_STEP(.kind = STEP_NAME, .dst = (int8_t)place, .name = r->name);
            else if (known)
                ADD_STEP(.kind = STEP_LOAD, .dst = (int8_t)place, .a = (int8_t)base, .number = at, .bytes = (uint8_t)bytes);
            else
                ADD_STEP(.kind = STEP_CLEAR, .dst = (int8_t)place);
        } else if (!is_load) { /* xzr is nowhere */
            ADD_STEP(.kind = STEP_STORE, .a = (int8_t)(known ? base : NOWHERE), .b = (int8_t)(bytes >= 8 ? place : NOWHERE),
                     .number = at, .bytes = (uint8_t)bytes);
        }
        at += bytes;
    }
    if (moves && base != NOWHERE) ADD_STEP(.kind = STEP_ADD, .dst = (int8_t)base, .a = (int8_t)base, .number = moves);
}

static void branch(struct insn *insn, const cs_insn *in, const cs_arm64_op *op, const struct image *image) {
    const struct relocation *r = image_relocation(image, in->address, in->size);
    if (op->type == ARM64_OP_REG) {
        insn->through = (int8_t)place_of(op->reg, NULL);
    } else if (op->type == ARM64_OP_IMM) {
        insn->target = r ? r->target : (uint64_t)op->imm;
        insn->name = r ? r->name : NULL;
    }
}

static void other(csh handle, struct insn *insn, struct step *steps, const cs_insn *in, const cs_arm64 *a) {
    for (int i = 0; i < a->op_count; i++) {
        if (a->operands[i].type != ARM64_OP_MEM) continue;
        int base = place_of(a->operands[i].mem.base, NULL), index = place_of(a->operands[i].mem.index, NULL);
        if (base != NOWHERE && base != SP) ADD_STEP(.kind = STEP_DEREF, .a = (int8_t)base);
        if (index != NOWHERE) ADD_STEP(.kind = STEP_DEREF, .a = (int8_t)index);
    }
    cs_regs read, written;
    uint8_t reads, writes;
    if (cs_regs_access(handle, in, read, &reads, written, &writes) == 0)
        for (int i = 0; i < writes; i++) {
            int place = place_of(written[i], NULL);
            if (place == SP)
                ADD_STEP(.kind = STEP_ALIGN, .dst = SP, .a = SP);
            else if (place != NOWHERE)
                ADD_STEP(.kind = STEP_CLEAR, .dst = (int8_t)place);
        }
    /* Where the disassembler's tables say nothing, the first operand is written. */
    if (a->op_count && a->operands[0].type == ARM64_OP_REG && a->operands[0].access != CS_AC_READ) {
        int place = place_of(a->operands[0].reg, NULL);
        if (place != NOWHERE && place != SP) ADD_STEP(.kind = STEP_CLEAR, .dst = (int8_t)place);
    }
}

static void translate(csh handle, const cs_insn *in, const struct image *image, struct insn *insn, struct step *steps) {
    const cs_arm64 *a = &in->detail->arm64;
    const cs_arm64_op *op = a->operands;
    int bytes = 8, dst = a->op_count && op[0].type == ARM64_OP_REG ? place_of(op[0].reg, &bytes) : NOWHERE;
    insn->flow = FLOW_NEXT;
    insn->through = NOWHERE;
    switch (in->id) {
        case ARM64_INS_NOP:
        case ARM64_INS_HINT: insn->padding = true; return;
        case ARM64_INS_BRK:
        case ARM64_INS_HLT: insn->flow = FLOW_TRAP; return;
        case ARM64_INS_RET: insn->flow = FLOW_RETURN; return;
        case ARM64_INS_B:
            insn->flow = a->cc == ARM64_CC_INVALID || a->cc == ARM64_CC_AL ? FLOW_JUMP : FLOW_BRANCH;
            branch(insn, in, &op[0], image);
            return;
        case ARM64_INS_BR:
            insn->flow = FLOW_JUMP_INDIRECT;
            branch(insn, in, &op[0], image);
            return;
        case ARM64_INS_BL:
            insn->flow = FLOW_CALL;
            branch(insn, in, &op[0], image);
            return;
        case ARM64_INS_BLR: {
            const struct relocation *r = image_relocation(image, in->address, in->size);
            insn->flow = r && r->type == R_AARCH64_TLSDESC_CALL ? FLOW_CALL_TLSDESC : FLOW_CALL;
            insn->through = (int8_t)place_of(op[0].reg, NULL);
            return;
        }
        case ARM64_INS_CBZ:
        case ARM64_INS_CBNZ:
        case ARM64_INS_TBZ:
        case ARM64_INS_TBNZ:
            if (dst != NOWHERE && bytes >= 8) ADD_STEP(.kind = STEP_USE, .a = (int8_t)dst);
            insn->flow = FLOW_BRANCH;
            branch(insn, in, &op[a->op_count - 1], image);
            return;
        case ARM64_INS_MRS:
            if (dst == NOWHERE) return;
            if (op[1].type == ARM64_OP_REG_MRS && (unsigned)op[1].reg == TPIDR_EL0)
                ADD_STEP(.kind = STEP_THREAD, .dst = (int8_t)dst);
            else
                ADD_STEP(.kind = STEP_CLEAR, .dst = (int8_t)dst);
            return;
        case ARM64_INS_ADRP:
        case ARM64_INS_ADR:
            if (image_relocation(image, in->address, in->size))
                ADD_STEP(.kind = STEP_CLEAR, .dst = (int8_t)dst);
            else
                ADD_STEP(.kind = STEP_CONST, .dst = (int8_t)dst, .number = op[1].imm);
            return;
        case ARM64_INS_MOV:
        case ARM64_INS_FMOV:
            if (dst == NOWHERE) return;
            if (op[1].type == ARM64_OP_REG && bytes >= 8) {
                int from_bytes, src = place_of(op[1].reg, &from_bytes);
                if (src != NOWHERE && from_bytes >= 8) {
                    /* mov v0.d[1], x1 leaves the other half */
                    bool half = op[0].vector_index >= 0 && dst >= VECTOR;
                    ADD_STEP(.kind = half ? STEP_JOIN : STEP_COPY, .dst = (int8_t)dst, .a = (int8_t)src, .b = (int8_t)dst);
                    return;
                }
            }
            ADD_STEP(.kind = STEP_CLEAR, .dst = (int8_t)dst);
            return;
        case ARM64_INS_INS:
        case ARM64_INS_DUP:
            if (dst == NOWHERE) return;
            ADD_STEP(.kind = STEP_JOIN, .dst = (int8_t)dst, .a = (int8_t)place_of(op[1].reg, NULL),
                     .b = (int8_t)(in->id == ARM64_INS_INS ? dst : NOWHERE));
            return;
        case ARM64_INS_ADD:
        case ARM64_INS_SUB: {
            for (int i = 1; a->update_flags && i < a->op_count; i++) { /* the flags are what is wanted */
                int n = 0, place = op[i].type == ARM64_OP_REG ? place_of(op[i].reg, &n) : NOWHERE;
                if (place != NOWHERE && n >= 8) ADD_STEP(.kind = STEP_USE, .a = (int8_t)place);
            }
            if (dst == NOWHERE || bytes < 8 || dst >= VECTOR || a->op_count < 3) break;
            int src = place_of(op[1].reg, NULL);
            if (op[2].type == ARM64_OP_IMM) {
                int64_t n = immediate(&op[2]);
                ADD_STEP(.kind = STEP_ADD, .dst = (int8_t)dst, .a = (int8_t)src, .number = in->id == ARM64_INS_ADD ? n : -n);
            } else if (dst == SP) {
                ADD_STEP(.kind = STEP_ALIGN, .dst = SP, .a = (int8_t)src);
            } else {
                ADD_STEP(.kind = STEP_JOIN, .dst = (int8_t)dst, .a = (int8_t)src, .b = (int8_t)place_of(op[2].reg, NULL));
            }
            return;
        }
        case ARM64_INS_AND:
        case ARM64_INS_ORR:
            if (dst == NOWHERE || bytes < 8 || dst >= VECTOR || a->op_count < 3) break;
            if (dst == SP)
                ADD_STEP(.kind = STEP_ALIGN, .dst = SP, .a = (int8_t)place_of(op[1].reg, NULL));
            else
                ADD_STEP(.kind = STEP_JOIN, .dst = (int8_t)dst, .a = (int8_t)place_of(op[1].reg, NULL),
                         .b = (int8_t)(op[2].type == ARM64_OP_REG ? place_of(op[2].reg, NULL) : NOWHERE));
            return;
        case ARM64_INS_CSEL:
            if (dst == NOWHERE || bytes < 8) break;
            ADD_STEP(.kind = STEP_JOIN, .dst = (int8_t)dst, .a = (int8_t)place_of(op[1].reg, NULL),
                     .b = (int8_t)place_of(op[2].reg, NULL));
            return;
        case ARM64_INS_CMP:
        case ARM64_INS_CMN:
        case ARM64_INS_CCMP:
        case ARM64_INS_TST:
            for (int i = 0; i < 2; i++) {
                int n = 0, place = op[i].type == ARM64_OP_REG ? place_of(op[i].reg, &n) : NOWHERE;
                if (place != NOWHERE && n >= 8) ADD_STEP(.kind = STEP_USE, .a = (int8_t)place);
            }
            return;
        case ARM64_INS_LDR:
        case ARM64_INS_LDUR: memory(insn, steps, in, a, image, true, 1); return;
        case ARM64_INS_LDP: memory(insn, steps, in, a, image, true, 2); return;
        case ARM64_INS_STR:
        case ARM64_INS_STUR: memory(insn, steps, in, a, image, false, 1); return;
        case ARM64_INS_STP: memory(insn, steps, in, a, image, false, 2); return;
        default: break;
    }
    other(handle, insn, steps, in, a);
}

/* adrp x16, page; ldr x17, [x16, #offset]; add; br x17 */
static uint64_t stub_slot(const cs_insn *in, size_t count) {
    uint64_t page = 0;
    for (size_t i = 0; i < count; i++) {
        const cs_arm64_op *op = in[i].detail->arm64.operands;
        if (in[i].id == ARM64_INS_ADRP && op[0].reg == ARM64_REG_X16)
            page = (uint64_t)op[1].imm;
        else if (in[i].id == ARM64_INS_LDR && page)
            return op[0].reg == ARM64_REG_X17 ? page + (uint64_t)op[1].mem.disp : 0;
        else if (in[i].id != ARM64_INS_HINT && in[i].id != ARM64_INS_NOP)
            return 0;
    }
    return 0;
}

const struct machine machine_aarch64 = {
    .name = "AArch64",
    .elf_machine = EM_AARCH64,
    .arch = CS_ARCH_ARM64,
    .mode = CS_MODE_LITTLE_ENDIAN,
    .stack_pointer = SP,
    .result = X0,
    .arguments = {0, 1, 2, 3, 4, 5, 6, 7},
    .argument_count = 8,
    .kept_by_calls = kept_by_calls,
    .translate = translate,
    .stub_slot = stub_slot,
};
