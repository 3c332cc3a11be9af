/* A child on a stack of its own.  Under an emulator it may have memory of its own too, so it tells by its exit status
 * alone, and one of the two sees the word. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "arch/vfork.h"

#define STACK_BYTES ((size_t)64 << 10)

/* The detectors know nothing of the child, which shares the thread's memory and not its stack. */
#define IN_CHILD __attribute__((no_sanitize("address", "thread", "undefined"), no_stack_protector, noinline))

static char *stack;
static int word;

enum { ON_THE_STACK = 1, ALIGNED = 2, ARGUMENT = 4, WORD = 8, WANTED = 64 + 7 };

IN_CHILD static int child(void *arg) {
    uintptr_t frame = (uintptr_t)__builtin_frame_address(0);
    int found = 64; /* not what a program that fails says */
    if (frame > (uintptr_t)stack && frame < (uintptr_t)stack + STACK_BYTES) found |= ON_THE_STACK;
    if (frame % 16 == 0) found |= ALIGNED;
    if (arg == &word) found |= ARGUMENT;
    if (word == (int)syscall(SYS_getpid)) found |= WORD;
    return found;
}

/* The word that CLONE_PIDFD would fill is filled by CLONE_PARENT_SETTID, with what the child can check. */
static void the_child_has_its_stack_its_argument_and_the_word_and_exits_with_what_it_returns(void **state) {
    (void)state;
    for (int i = 0; i < 8; i++) {
        int status = 0;
        word = 0;
        unsigned long flags = CLONE_VM | CLONE_VFORK | CLONE_PARENT_SETTID | SIGCHLD;
        long pid = heist__vfork(child, stack + STACK_BYTES, flags, &word, &word);
        assert_true(pid > 0);
        assert_int_equal(waitpid((pid_t)pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status) & ~WORD, WANTED);
        assert_true(WEXITSTATUS(status) & WORD || word == (int)pid);
    }
}

static void a_refusal_is_a_negative_code(void **state) {
    (void)state;
    const char *preload = getenv("LD_PRELOAD");
    if (preload && strstr(preload, "vgpreload")) return; /* valgrind ends whoever tries this */
    /* A thread with signal handlers of its own: there is no such thing. */
    assert_int_equal(heist__vfork(child, stack + STACK_BYTES, CLONE_VM | CLONE_THREAD, &word, &word), -EINVAL);
}

static int make_stack(void **state) {
    (void)state;
    stack = aligned_alloc(16, STACK_BYTES);
    return stack ? 0 : -1;
}

static int free_stack(void **state) {
    (void)state;
    free(stack);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_child_has_its_stack_its_argument_and_the_word_and_exits_with_what_it_returns),
        cmocka_unit_test(a_refusal_is_a_negative_code),
    };
    return cmocka_run_group_tests(tests, make_stack, free_stack);
}
