/* The context switch of x86-64 (System V ABI).
 *
 * heist__ctx_switch(save, to, payload): see ctx.h.  The frame of a suspended
 * context, from the saved stack pointer upwards:
 *
 *      sp + 64   return address of heist__ctx_switch   (popped, then jumped to)
 *      sp + 56   rbp
 *      sp + 48   rbx
 *      sp + 40   r12
 *      sp + 32   r13
 *      sp + 24   r14
 *      sp + 16   r15
 *      sp +  8   x87 control word (2 bytes), padding
 *      sp +  0   mxcsr (4 bytes), padding
 *
 * A first frame (ctx_init.c) has heist__ctx_entry for its return address, the
 * function to call in rbx, and 0 in rbp, where frame-pointer walks end.
 *
 * The end is a jump, not a ret: ret would be predicted to go where the last call
 * came from, which is the other context, and miss every time (13 ns instead of
 * 3).  For the same reason the switch cannot live under a shadow stack, and the
 * object does not claim SHSTK.  It claims IBT: the jump is marked notrack, because
 * a return address is no landing pad; the entry, which is one, is marked so.
 *
 * mxcsr is loaded only where its control bits (6 to 15) differ: below them are the
 * sticky flags of past operations, which no function preserves, and which differ
 * as soon as one side has rounded; loading a value that changes costs 35 ns.
 *
 * The x87 control word is loaded only where it differs, and then the flags of past
 * operations are cleared first: a flag that one side raised while it was masked would
 * trap on the other, which unmasks it.  (Flags in mxcsr trap nobody.)
 *
 * Unwinding: both frames have the same layout, so one description of the frame is
 * right before and after the stack pointer changes.  heist__ctx_entry declares its
 * return address undefined: there every backtrace ends. */

        .text

        .globl  heist__ctx_switch
        .hidden heist__ctx_switch
        .type   heist__ctx_switch, @function
        .p2align 6
heist__ctx_switch:
        .cfi_startproc
        endbr64
        pushq   %rbp
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %rbp, 0
        pushq   %rbx
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %rbx, 0
        pushq   %r12
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %r12, 0
        pushq   %r13
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %r13, 0
        pushq   %r14
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %r14, 0
        pushq   %r15
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %r15, 0
        subq    $16, %rsp
        .cfi_adjust_cfa_offset 16
        stmxcsr (%rsp)
        fnstcw  8(%rsp)
        movl    (%rsp), %eax
        movzwl  8(%rsp), %ecx

        movq    %rsp, (%rdi)
        movq    %rsi, %rsp

        /* A debugger that wants a suspended context sets rsp to the saved stack
         * pointer and rip to this address. */
        .globl  heist__ctx_resume
        .hidden heist__ctx_resume
heist__ctx_resume:
        xorl    (%rsp), %eax
        cmpw    8(%rsp), %cx
        jne     3f
1:      testl   $0xffc0, %eax
        jne     2f
        .cfi_remember_state
4:      addq    $16, %rsp
        .cfi_adjust_cfa_offset -16
        popq    %r15
        .cfi_adjust_cfa_offset -8
        .cfi_restore %r15
        popq    %r14
        .cfi_adjust_cfa_offset -8
        .cfi_restore %r14
        popq    %r13
        .cfi_adjust_cfa_offset -8
        .cfi_restore %r13
        popq    %r12
        .cfi_adjust_cfa_offset -8
        .cfi_restore %r12
        popq    %rbx
        .cfi_adjust_cfa_offset -8
        .cfi_restore %rbx
        popq    %rbp
        .cfi_adjust_cfa_offset -8
        .cfi_restore %rbp
        popq    %rcx
        .cfi_adjust_cfa_offset -8
        .cfi_register %rip, %rcx
        movq    %rdx, %rax
        notrack jmp *%rcx

        /* Out of the way: the two contexts round or trap differently. */
        .cfi_restore_state
2:      ldmxcsr (%rsp)
        jmp     4b
3:      fnclex
        fldcw   8(%rsp)
        jmp     1b
        .cfi_endproc
        .size   heist__ctx_switch, . - heist__ctx_switch

/* The outermost frame of every coroutine.  rbx: the function; rax: its argument;
 * rsp aligned to 16.  The nop before the entry is covered by the description, for
 * unwinders look a return address up one byte before it. */
        .globl  heist__ctx_trampoline
        .hidden heist__ctx_trampoline
        .type   heist__ctx_trampoline, @function
        .p2align 4
heist__ctx_trampoline:
        .cfi_startproc
        .cfi_def_cfa %rsp, 0
        .cfi_undefined %rip
        .cfi_undefined %rbp
        nop
        .globl  heist__ctx_entry
        .hidden heist__ctx_entry
heist__ctx_entry:
        endbr64
        movq    %rax, %rdi
        callq   *%rbx
        ud2                     /* entry never returns */
        .cfi_endproc
        .size   heist__ctx_trampoline, . - heist__ctx_trampoline

/* Where heist__ctx_look_from leads: rax is the look.  As after a call from the suspended function. */
        .globl  heist__ctx_look_entry
        .hidden heist__ctx_look_entry
        .type   heist__ctx_look_entry, @function
        .p2align 4
heist__ctx_look_entry:
        .cfi_startproc
        endbr64
        movq    %rax, %rdi
        jmp     *(%rax)
        .cfi_endproc
        .size   heist__ctx_look_entry, . - heist__ctx_look_entry

        .section .note.GNU-stack, "", @progbits

#if defined(__CET__)
/* GNU property note: x86 feature 1 = IBT, without SHSTK.  Only an object built for
 * branch protection claims it. */
        .section .note.gnu.property, "a"
        .p2align 3
        .long   4               /* name size */
        .long   16              /* descriptor size */
        .long   5               /* NT_GNU_PROPERTY_TYPE_0 */
        .asciz  "GNU"
        .long   0xc0000002      /* GNU_PROPERTY_X86_FEATURE_1_AND */
        .long   4
        .long   1               /* IBT */
        .long   0
#endif
