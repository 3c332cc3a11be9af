/* The context switch of AArch64 (AAPCS64).
 *
 * heist__ctx_switch(save, to, payload): see ctx.h.  The frame of a suspended
 * context, from the saved stack pointer upwards:
 *
 *      sp + 112  d8  d9  d10 d11 d12 d13 d14 d15
 *      sp +  96  x29 (frame pointer), x30 (return address of heist__ctx_switch)
 *      sp +  16  x19 x20 x21 x22 x23 x24 x25 x26 x27 x28
 *      sp +   0  fpcr, padding
 *
 * A first frame (ctx_init.c) has heist__ctx_entry in x30, the function to call in
 * x19, 0 in x29, and a zero frame record above it, where frame-pointer walks end.
 *
 * The end is a branch, not a ret, so that the return predictor is left alone; see
 * ctx_x86_64.S.  In a build with branch targets (BTI) it is a ret all the same: a
 * return address is no landing pad, and only ret may go there.  x30 lies on the
 * stack unsigned for the time of the suspension.
 *
 * Unwinding: both frames have the same layout, so one description is right before
 * and after the stack pointer changes.  heist__ctx_entry declares x30 undefined:
 * there every backtrace ends. */

#if defined(__ARM_FEATURE_BTI_DEFAULT)
#define PAD_CALL bti c
#define PAD_JUMP bti jc
#define LEAVE    ret x16
#else
#define PAD_CALL hint #34       /* bti c: a no-op where it is unknown */
#define PAD_JUMP hint #38       /* bti jc */
#define LEAVE    br x16
#endif

        .text

        .globl  heist__ctx_switch
        .hidden heist__ctx_switch
        .type   heist__ctx_switch, %function
        .p2align 6
heist__ctx_switch:
        .cfi_startproc
        PAD_CALL
        sub     sp, sp, #176
        .cfi_def_cfa_offset 176
        mrs     x9, fpcr
        str     x9, [sp]
        stp     x19, x20, [sp, #16]
        .cfi_offset x19, -160
        .cfi_offset x20, -152
        stp     x21, x22, [sp, #32]
        .cfi_offset x21, -144
        .cfi_offset x22, -136
        stp     x23, x24, [sp, #48]
        .cfi_offset x23, -128
        .cfi_offset x24, -120
        stp     x25, x26, [sp, #64]
        .cfi_offset x25, -112
        .cfi_offset x26, -104
        stp     x27, x28, [sp, #80]
        .cfi_offset x27, -96
        .cfi_offset x28, -88
        stp     x29, x30, [sp, #96]
        .cfi_offset x29, -80
        .cfi_offset x30, -72
        stp     d8, d9, [sp, #112]
        .cfi_offset d8, -64
        .cfi_offset d9, -56
        stp     d10, d11, [sp, #128]
        .cfi_offset d10, -48
        .cfi_offset d11, -40
        stp     d12, d13, [sp, #144]
        .cfi_offset d12, -32
        .cfi_offset d13, -24
        stp     d14, d15, [sp, #160]
        .cfi_offset d14, -16
        .cfi_offset d15, -8

        mov     x10, sp
        str     x10, [x0]
        mov     sp, x1

        /* A debugger that wants a suspended context sets sp to the saved stack
         * pointer and pc to this address. */
        .globl  heist__ctx_resume
        .hidden heist__ctx_resume
heist__ctx_resume:
        /* Writing fpcr may flush the pipeline on some cores: only when it differs. */
        ldr     x10, [sp]
        mrs     x9, fpcr
        cmp     x9, x10
        b.eq    1f
        msr     fpcr, x10
1:
        ldp     x19, x20, [sp, #16]
        ldp     x21, x22, [sp, #32]
        ldp     x23, x24, [sp, #48]
        ldp     x25, x26, [sp, #64]
        ldp     x27, x28, [sp, #80]
        ldp     d8, d9, [sp, #112]
        ldp     d10, d11, [sp, #128]
        ldp     d12, d13, [sp, #144]
        ldp     d14, d15, [sp, #160]
        ldp     x29, x30, [sp, #96]
        mov     x16, x30
        mov     x0, x2
        add     sp, sp, #176
        .cfi_def_cfa_offset 0
        .cfi_restore x19
        .cfi_restore x20
        .cfi_restore x21
        .cfi_restore x22
        .cfi_restore x23
        .cfi_restore x24
        .cfi_restore x25
        .cfi_restore x26
        .cfi_restore x27
        .cfi_restore x28
        .cfi_restore x29
        .cfi_restore x30
        .cfi_restore d8
        .cfi_restore d9
        .cfi_restore d10
        .cfi_restore d11
        .cfi_restore d12
        .cfi_restore d13
        .cfi_restore d14
        .cfi_restore d15
        LEAVE
        .cfi_endproc
        .size   heist__ctx_switch, . - heist__ctx_switch

/* The outermost frame of every coroutine.  x19: the function; x0: its argument.
 * The nop before the entry is covered by the description, for unwinders look a
 * return address up one byte before it. */
        .globl  heist__ctx_trampoline
        .hidden heist__ctx_trampoline
        .type   heist__ctx_trampoline, %function
        .p2align 4
heist__ctx_trampoline:
        .cfi_startproc
        .cfi_undefined x30
        .cfi_undefined x29
        nop
        .globl  heist__ctx_entry
        .hidden heist__ctx_entry
heist__ctx_entry:
        PAD_JUMP
        blr     x19
        brk     #1000           /* entry never returns */
        .cfi_endproc
        .size   heist__ctx_trampoline, . - heist__ctx_trampoline

/* Where heist__ctx_look_from leads: x0 is the look.  As after a call from the suspended function. */
        .globl  heist__ctx_look_entry
        .hidden heist__ctx_look_entry
        .type   heist__ctx_look_entry, %function
        .p2align 4
heist__ctx_look_entry:
        .cfi_startproc
        PAD_JUMP
        ldr     x30, [x0, #8]
        ldr     x19, [x0, #16]
        ldr     x16, [x0]
        br      x16
        .cfi_endproc
        .size   heist__ctx_look_entry, . - heist__ctx_look_entry

        .section .note.GNU-stack, "", %progbits

#if defined(__ARM_FEATURE_BTI_DEFAULT)
/* GNU property note: AArch64 feature 1 = BTI. */
        .section .note.gnu.property, "a"
        .p2align 3
        .long   4               /* name size */
        .long   16              /* descriptor size */
        .long   5               /* NT_GNU_PROPERTY_TYPE_0 */
        .asciz  "GNU"
        .long   0xc0000000      /* GNU_PROPERTY_AARCH64_FEATURE_1_AND */
        .long   4
        .long   1               /* BTI */
        .long   0
#endif
