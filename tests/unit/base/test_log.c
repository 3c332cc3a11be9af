/* base/log.h and base/assert.h: one record, one call of the sink; a broken
 * contract ends the process with a line that names it. */
#include "base/log.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/assert.h"

struct seen {
    int calls, level;
    size_t len;
    char text[4096];
};

static void keep(void *user, int level, const char *text, size_t len) {
    struct seen *s = user;
    s->calls++;
    s->level = level;
    s->len = len;
    memcpy(s->text, text, len + 1);
    errno = EIO; /* a sink may spoil it */
}

static void the_sink_gets_the_whole_record_in_one_call(void **state) {
    (void)state;
    struct seen s = {0};
    heist_log_sink sink = {keep, &s};
    assert_null(heist__log_set_sink(&sink));
    errno = ENOENT;
    heist__log(HEIST__LOG_ERROR, "worker %d: %s", 3, "stuck");
    assert_int_equal(errno, ENOENT);
    assert_ptr_equal(heist__log_set_sink(NULL), &sink);
    assert_int_equal(s.calls, 1);
    assert_int_equal(s.level, HEIST__LOG_ERROR);
    assert_string_equal(s.text, "heist: error: worker 3: stuck\n");
    assert_int_equal(s.len, strlen(s.text));
}

static void records_below_the_level_are_not_made(void **state) {
    (void)state;
    struct seen s = {0};
    heist_log_sink sink = {keep, &s};
    heist__log_set_sink(&sink);
    heist__log(HEIST__LOG_INFO, "nobody reads this");
    assert_int_equal(s.calls, 0);
    assert_int_equal(heist__log_set_level(HEIST__LOG_DEBUG), HEIST__LOG_WARNING);
    heist__log(HEIST__LOG_DEBUG, "x");
    assert_int_equal(s.calls, 1);
    assert_int_equal(heist__log_set_level(HEIST__LOG_NONE), HEIST__LOG_DEBUG);
    heist__log(HEIST__LOG_FATAL, "x");
    assert_int_equal(s.calls, 1);
    assert_false(heist__log_enabled(HEIST__LOG_FATAL));
    heist__log_set_level(HEIST__LOG_WARNING);
    heist__log_set_sink(NULL);
}

static void a_long_record_is_cut_and_still_ends_in_a_newline(void **state) {
    (void)state;
    struct seen s = {0};
    heist_log_sink sink = {keep, &s};
    char longer[3000];
    memset(longer, 'a', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    heist__log_set_sink(&sink);
    /* Every length around the cut. */
    for (size_t len = 900; len < 1100; len++) {
        s.calls = 0;
        heist__log(HEIST__LOG_WARNING, "%.*s", (int)len, longer);
        assert_int_equal(s.calls, 1);
        assert_int_equal(s.len, strlen(s.text));
        assert_true(s.len < 1024);
        assert_true(s.text[s.len - 1] == '\n' && s.text[s.len - 2] == 'a');
    }
    heist__log_set_sink(NULL);
}

/* What a child that runs body writes to the standard error; its end in *status. */
static void run_in_child(void (*body)(void), char *text, size_t size, int *status) {
    int fd[2];
    assert_int_equal(pipe(fd), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct rlimit no_core = {0, 0};
        setrlimit(RLIMIT_CORE, &no_core);
        signal(SIGABRT, SIG_DFL);
        dup2(fd[1], STDERR_FILENO);
        close(fd[0]);
        close(fd[1]);
        body();
        _exit(0);
    }
    close(fd[1]);
    size_t len = 0;
    ssize_t n;
    while (len + 1 < size && (n = read(fd[0], text + len, size - 1 - len)) > 0) len += (size_t)n;
    text[len] = '\0';
    close(fd[0]);
    assert_int_equal(waitpid(pid, status, 0), pid);
}

static void broken(void) {
    int held = 2;
    heist__assert_msg(held == 1, "the lock is held %d times", held);
}

static void kept(void) {
    int held = 1;
    heist__assert(held == 1);
    heist__check(held == 1);
    heist__log(HEIST__LOG_WARNING, "goes to the standard error");
}

static void a_broken_contract_aborts_with_condition_and_place(void **state) {
    (void)state;
    char text[4096];
    int status;
    run_in_child(broken, text, sizeof(text), &status);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
    assert_non_null(strstr(text, "test_log.c:"));
    assert_non_null(strstr(text, "the lock is held 2 times (held == 1)\n"));
    assert_null(strstr(text, "/tests/unit/")); /* nobody needs the builder's folders */
}

static void a_kept_contract_says_nothing(void **state) {
    (void)state;
    char text[4096];
    int status;
    run_in_child(kept, text, sizeof(text), &status);
    assert_true(WIFEXITED(status));
    assert_string_equal(text, "heist: warning: goes to the standard error\n");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_sink_gets_the_whole_record_in_one_call),
        cmocka_unit_test(records_below_the_level_are_not_made),
        cmocka_unit_test(a_long_record_is_cut_and_still_ends_in_a_newline),
        cmocka_unit_test(a_broken_contract_aborts_with_condition_and_place),
        cmocka_unit_test(a_kept_contract_says_nothing),
    };
    return cmocka_run_group_tests_name("base/log", tests, NULL, NULL);
}
