/* A child that borrows the memory, on a stack of its own. */
#ifndef HEIST_ARCH_VFORK_H
#define HEIST_ARCH_VFORK_H

/* clone(2) with these flags; in the child fn(arg) on the stack that ends at `top` (16-byte aligned), and what it
 * returns is the child's exit status.  The child's number, or -errno.  *pidfd as CLONE_PIDFD fills it.
 * Not the C library's clone: a detector takes that for a fork, and then for two processes. */
long heist__vfork(int (*fn)(void *), void *top, unsigned long flags, void *arg, int *pidfd);

#endif
