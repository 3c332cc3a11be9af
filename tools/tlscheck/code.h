/* What the checker knows of machine code: instructions as short lists of neutral steps.
 *
 * A step moves, makes or uses a value.  Values live in places: 32 general registers, 32
 * vector registers, one temporary.  x86_64.c and aarch64.c translate; flow.c, which knows
 * no machine, runs the steps.  A step that nothing here describes clears what it writes. */
#ifndef HEIST_TLSCHECK_CODE_H
#define HEIST_TLSCHECK_CODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <capstone/capstone.h>

enum { VECTOR = 32, TEMPORARY = 64, PLACES = 65, NOWHERE = -1 };

enum step_kind {
    STEP_COPY,    /* dst = a */
    STEP_ADD,     /* dst = a + number: keeps track of stack addresses */
    STEP_JOIN,    /* dst = something made of a and b */
    STEP_CLEAR,   /* dst = anything else */
    STEP_CONST,   /* dst = the address number */
    STEP_NAME,    /* dst = the address of the function name */
    STEP_THREAD,  /* dst = the thread pointer */
    STEP_ALIGN,   /* dst = a, moved by an unknown amount: a new frame of reference */
    STEP_LOAD,    /* dst = bytes at a + number */
    STEP_STORE,   /* bytes at a + number = b */
    STEP_DEREF,   /* a is used as an address */
    STEP_USE,     /* a is looked at: compared, tested */
};

struct step {
    uint8_t kind, bytes;
    int8_t dst, a, b;
    int64_t number;
    const char *name;
};

enum flow_kind {
    FLOW_NEXT,
    FLOW_JUMP,          /* to target */
    FLOW_BRANCH,        /* to target, or on */
    FLOW_JUMP_INDIRECT, /* to what stands in place `through`, or unknown */
    FLOW_CALL,          /* of target, or name, or what stands in `through` */
    FLOW_CALL_TLSDESC,  /* asks for a thread-local's offset; keeps all registers but the first */
    FLOW_RETURN,
    FLOW_TRAP,          /* goes nowhere */
};

struct insn {
    uint64_t address;
    uint32_t first_step; /* in the function's steps */
    uint8_t size, steps, flow;
    bool padding;
    int8_t through;
    uint64_t target;  /* 0: not known */
    uint64_t taken;   /* the address in this code that it takes, or 0 */
    const char *name; /* of the callee; NULL: not known by name */
};

/* What the translators ask of the file. */
struct image;
/* The relocation within [address, address + size): its symbol's name, or NULL; its type; and where it points. */
struct relocation {
    uint64_t address;
    uint64_t target; /* of a symbol that is defined here, addend included; else 0 */
    const char *name;
    uint32_t type;
};
const struct relocation *image_relocation(const struct image *image, uint64_t address, unsigned size);
/* The function whose address the loader puts at this place of the offset table, or NULL. */
const char *image_slot(const struct image *image, uint64_t address);

/* The name of a slot by which a thread-local's offset is asked for. */
extern const char name_tlsdesc[];

struct machine {
    const char *name;
    int elf_machine, arch, mode;
    int stack_pointer, result;
    int arguments[8], argument_count;
    bool (*kept_by_calls)(int place);
    /* Fills insn and adds its steps, at most 16. */
    void (*translate)(csh handle, const cs_insn *in, const struct image *image, struct insn *insn, struct step *steps);
    /* The offset table's slot through which this code jumps, when it is a stub of the linker; else 0. */
    uint64_t (*stub_slot)(const cs_insn *in, size_t count);
};
extern const struct machine machine_x86_64, machine_aarch64;

static inline void step_add(struct insn *insn, struct step *steps, struct step s) {
    if (insn->steps < 16) steps[insn->steps++] = s;
}
#define ADD_STEP(...) step_add(insn, steps, (struct step){__VA_ARGS__})

#endif
