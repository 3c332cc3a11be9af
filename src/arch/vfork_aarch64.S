/* clone for AArch64: see vfork.h, and vfork_x86_64.S for what is the same.
 *
 * heist__vfork(fn x0, top x1, flags x2, arg x3, pidfd x4). */

        .text

        .globl  heist__vfork
        .hidden heist__vfork
        .type   heist__vfork, %function
        .p2align 4
heist__vfork:
        .cfi_startproc
        hint    #34                     /* bti c */
        stp     x0, x3, [x1, #-16]!
        mov     x0, x2                  /* flags */
        mov     x2, x4                  /* where the pidfd goes */
        mov     x3, #0                  /* no thread-local storage of its own */
        mov     x4, #0                  /* no word to clear */
        mov     x8, #220                /* clone */
        svc     #0
        cbz     x0, 1f
        ret
        .cfi_endproc
1:
        .cfi_startproc
        .cfi_undefined x30
        mov     x29, #0
        mov     x30, #0
        ldp     x1, x0, [sp], #16
        blr     x1
        mov     x8, #94                 /* exit_group */
        svc     #0
        brk     #0
        .cfi_endproc
        .size   heist__vfork, . - heist__vfork

        .section .note.GNU-stack, "", %progbits

#if defined(__ARM_FEATURE_BTI_DEFAULT)
/* GNU property note: AArch64 feature 1 = BTI. */
        .section .note.gnu.property, "a"
        .p2align 3
        .long   4
        .long   16
        .long   5
        .asciz  "GNU"
        .long   0xc0000000
        .long   4
        .long   1
        .long   0
#endif
