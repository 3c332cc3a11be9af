/* clone for x86-64: see vfork.h.
 *
 * heist__vfork(fn rdi, top rsi, flags rdx, arg rcx, pidfd r8).  The child finds fn and arg on its stack, for it has
 * its parent's registers but for rax, which is 0, and rsp.  It never returns from here, so there is nothing to
 * unwind to. */

        .text

        .globl  heist__vfork
        .hidden heist__vfork
        .type   heist__vfork, @function
        .p2align 4
heist__vfork:
        .cfi_startproc
        endbr64
        movq    %rcx, -8(%rsi)          /* arg */
        movq    %rdi, -16(%rsi)         /* fn */
        subq    $16, %rsi               /* the child's stack */
        movq    %rdx, %rdi              /* flags */
        movq    %r8, %rdx               /* where the pidfd goes */
        xorl    %r10d, %r10d            /* no word to clear */
        xorl    %r8d, %r8d              /* no thread-local storage of its own */
        movl    $56, %eax               /* clone */
        syscall
        testq   %rax, %rax
        jz      1f
        ret
        .cfi_endproc
1:
        .cfi_startproc
        .cfi_undefined %rip
        xorl    %ebp, %ebp
        popq    %rax
        popq    %rdi
        call    *%rax
        movl    %eax, %edi
        movl    $231, %eax              /* exit_group */
        syscall
        hlt
        .cfi_endproc
        .size   heist__vfork, . - heist__vfork

        .section .note.GNU-stack, "", @progbits

#if defined(__CET__)
/* As ctx_x86_64.S: branch protection, without a shadow stack. */
        .section .note.gnu.property, "a"
        .p2align 3
        .long   4
        .long   16
        .long   5
        .asciz  "GNU"
        .long   0xc0000002
        .long   4
        .long   1
        .long   0
#endif
