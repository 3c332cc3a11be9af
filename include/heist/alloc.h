/* heist/alloc.h: another allocator for the library's own memory.
 *
 * The library takes small memory from one allocator for the whole process, malloc
 * unless replaced here.  Stacks of tasks and other large areas come from mmap and
 * are not affected. */
#ifndef HEIST_ALLOC_H
#define HEIST_ALLOC_H

#include <heist/base.h>

HEIST_BEGIN_DECLS

/* The three functions behave as those of C: memory aligned for any object of up to 16 bytes' alignment,
 * NULL when there is none, realloc keeps the old block when it fails.  Sizes are never 0; free and
 * realloc never get NULL.  They are called from any thread, also several at once, must not call the
 * library, must not suspend and must not leave by longjmp or an exception. */
typedef struct heist_allocator {
    size_t size; /* of this structure, set by the initialiser */
    void *(*malloc)(size_t bytes, void *user);
    void *(*realloc)(void *block, size_t bytes, void *user);
    void (*free)(void *block, void *user);
    void *user; /* handed to each call */
} heist_allocator;
#define HEIST_ALLOCATOR_INIT {sizeof(heist_allocator), NULL, NULL, NULL, NULL}

/* Replaces the allocator of the process; NULL puts the default back.  To be called before anything else of
 * the library: as soon as the library has allocated once, blocks of the present allocator are about and
 * the answer is -EBUSY.
 * Context: a plain thread, usually at the start of main.  Suspends: never.
 * Ownership: *allocator is copied; what `user` points to must outlive the process's use of the library.
 * Errors: -EBUSY (a runtime, a loop or anything else was made before, nothing changed), -EINVAL (a missing
 * function, or an unknown size).
 * Undefined: a call while another thread is inside any function of the library. */
HEIST_API int heist_set_allocator(const heist_allocator *allocator) HEIST_NODISCARD;

HEIST_END_DECLS

#endif
