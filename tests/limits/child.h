/* limits/child.h: what ends a process, or starves it, happens in one of its own.
 *
 * A test program of this folder runs itself again with the name of a scene.  The child
 * is a fresh process and no fork of a process that has used the library (there every
 * call would be HEIST_EFORKED); it plays the scene and ends; the test reads what it
 * wrote and how it ended.  No core is left behind. */
#ifndef HEIST_TEST_LIMITS_CHILD_H
#define HEIST_TEST_LIMITS_CHILD_H

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* Under AddressSanitizer or ThreadSanitizer. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define CHILD_INSTRUMENTED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define CHILD_INSTRUMENTED 1
#endif
#endif
#ifndef CHILD_INSTRUMENTED
#define CHILD_INSTRUMENTED 0
#endif

/* What takes long or much memory is for `./dev check`, not for each day. */
static inline bool child_heavy(void) {
    return getenv("HEIST_TEST_HEAVY") != NULL;
}

/* A scene that could not be set up on this machine; the text it wrote says why. */
#define CHILD_SKIPS 77

struct scene {
    const char *name;
    void (*play)(long argument);
};

static char child_text[16384]; /* what the last child wrote on standard output and standard error */
static int child_status;

/* Plays `name` in a child with the argument, and waits for its end. */
static void child_play(const char *name, long argument) {
    char number[32];
    int ends[2];
    snprintf(number, sizeof number, "%ld", argument);
    assert_int_equal(pipe(ends), 0);
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        dup2(ends[1], STDOUT_FILENO);
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        close(ends[1]);
        execl("/proc/self/exe", "scene", name, number, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    size_t used = 0;
    ssize_t n;
    while ((n = read(ends[0], child_text + used, sizeof child_text - 1 - used)) != 0) {
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) break;
        used += (size_t)n;
        if (used == sizeof child_text - 1) used = 0; /* the end is what matters */
    }
    child_text[used] = 0;
    close(ends[0]);
    while (waitpid(pid, &child_status, 0) < 0) assert_int_equal(errno, EINTR);
}

static inline bool child_died_of(int signal_number) {
    return WIFSIGNALED(child_status) && WTERMSIG(child_status) == signal_number;
}

static inline bool child_ended_with(int code) {
    return WIFEXITED(child_status) && WEXITSTATUS(child_status) == code;
}

/* Fails with all that is known about the child. */
#define child_fail(what)                                                                                               \
    fail_msg("%s; the child ended with wait status %#x and said:\n%s", what, (unsigned)child_status, child_text)

#define child_expect(condition)                                                                                        \
    do {                                                                                                               \
        if (!(condition)) child_fail("expected: " #condition);                                                         \
    } while (0)

/* Skips when the scene could not be set up; else it must have ended well. */
static inline void child_expect_success(void) {
    if (child_ended_with(CHILD_SKIPS)) {
        print_message("%s", child_text);
        skip();
    }
    child_expect(child_ended_with(0));
}

/* First in main: plays a scene when this is a child, and does not return then. */
static void child_main(int argc, char **argv, const struct scene *scenes, size_t count) {
    if (argc != 3 || strcmp(argv[0], "scene") != 0) return;
    for (size_t i = 0; i < count; i++) {
        if (strcmp(scenes[i].name, argv[1]) != 0) continue;
        scenes[i].play(atol(argv[2]));
        exit(0);
    }
    fprintf(stderr, "no scene is called '%s'\n", argv[1]);
    exit(126);
}

/* In a scene, where cmocka is not at home: ends the child with status 1 and the place. */
#define scene_expect(condition)                                                                                        \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                                    \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

#endif
