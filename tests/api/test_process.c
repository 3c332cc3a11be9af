/* Children: start, streams, end, signals, communicate (rows PROC).  Each test leaves no child, running or dead. */
#include "support/harness.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* What a task found wrong: the line of the first. */
static _Atomic(int) wrong;
#define EXPECT(condition)                                                                                              \
    do {                                                                                                               \
        if (!(condition) && !wrong) wrong = __LINE__;                                                                  \
    } while (0)

/* Is there a child of this process, be it a dead one? */
static bool any_child(void) {
    siginfo_t info;
    memset(&info, 0, sizeof info);
    return waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0;
}

static void no_children(void) { assert_false(any_child()); }

/* In machine time, for children are the kernel's. */
static int run_real(heist_coro_fn fn, void *arg) {
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    opts.workers = harness_workers();
    wrong = 0;
    int err = heist_run(fn, arg, &opts, NULL);
    assert_int_equal(wrong, 0);
    return err;
}

static void play(heist_coro_fn fn) {
    assert_int_equal(run_real(fn, NULL), 0);
    no_children();
}

static heist_process_options options(void) {
    heist_process_options o = HEIST_PROCESS_OPTIONS_INIT;
    return o;
}

static heist_process_options with_pipes(void) {
    heist_process_options o = HEIST_PROCESS_OPTIONS_INIT;
    o.stdin_is = o.stdout_is = o.stderr_is = HEIST_PROCESS_PIPE;
    return o;
}

/* A shell's standard output, as communicate gives it, or NULL. */
static char *output_of(const char *command, heist_process_options o, int *code) {
    heist_process *p = NULL;
    heist_process_output got = HEIST_PROCESS_OUTPUT_INIT;
    o.stdout_is = HEIST_PROCESS_PIPE;
    int err = heist_create_subprocess_shell(command, &o, &p);
    if (!err) err = heist_process_communicate(p, NULL, 0, HEIST_FOREVER, &got);
    heist_process_unref(p);
    *code = err ? err : got.code;
    free(got.err);
    return got.out;
}

static void expect_output(const char *command, heist_process_options o, const char *expected, int line) {
    int code = -1;
    char *text = output_of(command, o, &code);
    if ((code || !text || strcmp(text, expected)) && !wrong) {
        fprintf(stderr, "line %d: '%s' gave %d, '%s' instead of '%s'\n", line, command, code,
                text ? text : "", expected);
        wrong = line;
    }
    heist_process_output o2 = HEIST_PROCESS_OUTPUT_INIT;
    o2.out = text;
    heist_process_output_free(&o2);
}
#define EXPECT_OUTPUT(command, opts, expected) expect_output(command, opts, expected, __LINE__)

/* ---- start ---- */

static int starts(void *arg, void **out) {
    (void)arg, (void)out;
    heist_process *p = NULL;
    char program[] = "true", path[] = "/bin/sh", dash[] = "-c", text[] = "exit $1", zero[] = "sh", seven[] = "7";
    char *argv[] = {program, NULL}, *more[] = {path, dash, text, zero, seven, NULL};
    int code = -1;
    EXPECT(heist_create_subprocess_exec(argv, NULL, &p) == 0);
    EXPECT(p && heist_process_pid(p) > 0 && heist_process_pid(p) != getpid());
    EXPECT(heist_process_stdin(p) == NULL && heist_process_stdout(p) == NULL && heist_process_stderr(p) == NULL);
    EXPECT(heist_process_wait(p, HEIST_FOREVER, &code) == 0 && code == 0);
    heist_process_unref(p);
    EXPECT(heist_create_subprocess_exec(more, NULL, &p) == 0);
    EXPECT(heist_process_wait(p, HEIST_FOREVER, &code) == 0 && code == 7);
    heist_process_unref(p);
    return 0;
}

static void exec_starts_a_program_with_its_arguments_PROC_01(void **state) {
    (void)state;
    play(starts);
}

static int cannot_start(void *arg, void **out) {
    (void)arg, (void)out;
    static const struct {
        const char *program;
        int code;
    } bad[] = {{"/nowhere/at/all", -ENOENT}, {"no-such-program-here", -ENOENT}, {"/dev/null", -EACCES},
               {"/", -EACCES}, {"/etc/passwd/x", -ENOTDIR}};
    heist_process_options o = with_pipes();
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        heist_process *p = NULL;
        char *argv[] = {strdup(bad[i].program), NULL};
        EXPECT(heist_create_subprocess_exec(argv, &o, &p) == bad[i].code);
        EXPECT(p == NULL);
        EXPECT(!any_child()); /* not even a dead one */
        free(argv[0]);
    }
    char script[] = "/tmp/heist-no-program-XXXXXX";
    int fd = mkstemp(script);
    heist_process *p = NULL;
    char *argv[] = {script, NULL};
    EXPECT(fd >= 0 && write(fd, "exit 0\n", 7) == 7 && fchmod(fd, 0700) == 0);
    close(fd);
    EXPECT(heist_create_subprocess_exec(argv, NULL, &p) == -ENOEXEC);
    unlink(script);
    o.cwd = "/nowhere/at/all";
    EXPECT(heist_create_subprocess_shell("true", &o, &p) == -ENOENT);
    o.cwd = NULL;
    o.stdout_is = HEIST_PROCESS_FD(1000);
    EXPECT(heist_create_subprocess_shell("true", &o, &p) == -EBADF);
    const int closed = 1000;
    o.stdout_is = 0;
    o.pass_fds = &closed;
    o.pass_fds_count = 1;
    EXPECT(heist_create_subprocess_shell("true", &o, &p) == -EBADF);
    /* Also when the number is the next one that the library's own pipes get. */
    const int next = fcntl(0, F_DUPFD_CLOEXEC, 3);
    close(next);
    o.pass_fds = &next;
    o.stdin_is = HEIST_PROCESS_PIPE;
    EXPECT(heist_create_subprocess_shell("cat", &o, &p) == -EBADF);
    o.pass_fds_count = 0;
    o.stdin_is = HEIST_PROCESS_FD(next);
    o.stdout_is = HEIST_PROCESS_PIPE;
    EXPECT(heist_create_subprocess_shell("cat", &o, &p) == -EBADF);
    EXPECT(p == NULL && !any_child());
    return 0;
}

static void a_program_that_cannot_start_gives_the_systems_error_and_no_zombie_PROC_01(void **state) {
    (void)state;
    play(cannot_start);
}

static int bad_arguments(void *arg, void **out) {
    (void)arg, (void)out;
    heist_process *p = NULL;
    char empty[] = "", program[] = "true";
    char *none[] = {NULL}, *nameless[] = {empty, NULL}, *good[] = {program, NULL};
    heist_process_options o = options();
    EXPECT(heist_create_subprocess_exec(NULL, NULL, &p) == -EINVAL);
    EXPECT(heist_create_subprocess_exec(none, NULL, &p) == -EINVAL);
    EXPECT(heist_create_subprocess_exec(nameless, NULL, &p) == -EINVAL);
    EXPECT(heist_create_subprocess_exec(good, NULL, NULL) == -EINVAL);
    EXPECT(heist_create_subprocess_shell(NULL, NULL, &p) == -EINVAL);
    o.flags = 0x1000;
    EXPECT(heist_create_subprocess_exec(good, &o, &p) == -EINVAL);
    o = options(), o.size = 3;
    EXPECT(heist_create_subprocess_exec(good, &o, &p) == -EINVAL);
    o = options(), o.stdin_is = HEIST_PROCESS_STDOUT;
    EXPECT(heist_create_subprocess_exec(good, &o, &p) == -EINVAL);
    o = options(), o.stdout_is = HEIST_PROCESS_STDOUT;
    EXPECT(heist_create_subprocess_exec(good, &o, &p) == -EINVAL);
    o = options(), o.stderr_is = -4;
    EXPECT(heist_create_subprocess_exec(good, &o, &p) == -EINVAL);
    const int standard = 2;
    o = options(), o.pass_fds_count = 1;
    EXPECT(heist_create_subprocess_exec(good, &o, &p) == -EINVAL);
    o.pass_fds = &standard;
    EXPECT(heist_create_subprocess_exec(good, &o, &p) == -EINVAL);
    EXPECT(p == NULL);
    heist_process_output got = HEIST_PROCESS_OUTPUT_INIT;
    EXPECT(heist_process_wait(NULL, HEIST_FOREVER, NULL) == -EINVAL);
    EXPECT(heist_process_returncode(NULL, NULL) == -EINVAL);
    EXPECT(heist_process_communicate(NULL, NULL, 0, HEIST_FOREVER, &got) == -EINVAL);
    EXPECT(heist_process_kill(NULL) == -EINVAL && heist_process_signal_group(NULL, 9) == -EINVAL);
    EXPECT(heist_process_stop(NULL, 1, NULL) == -EINVAL && heist_process_close_stdin(NULL) == -EINVAL);
    EXPECT(heist_process_pid(NULL) < 0 && heist_process_stdout(NULL) == NULL);
    heist_process_unref(NULL);
    heist_process_output_free(NULL);
    EXPECT(heist_create_subprocess_exec(good, NULL, &p) == 0);
    EXPECT(heist_process_wait(p, 0.0 / 0.0, NULL) == -EINVAL);
    EXPECT(heist_process_stop(p, -1, NULL) == -EINVAL);
    EXPECT(heist_process_stop(p, 0.0 / 0.0, NULL) == -EINVAL);
    EXPECT(heist_process_communicate(p, "x", 1, HEIST_FOREVER, &got) == -EINVAL); /* no pipe to write to */
    EXPECT(heist_process_communicate(p, NULL, 1, HEIST_FOREVER, &got) == -EINVAL);
    EXPECT(heist_process_communicate(p, NULL, 0, HEIST_FOREVER, NULL) == -EINVAL);
    EXPECT(heist_process_send_signal(p, 99) == -EINVAL && heist_process_send_signal(p, -1) == -EINVAL);
    EXPECT(heist_process_signal_group(p, SIGTERM) == -ENOTSUP);
    EXPECT(heist_process_wait(p, HEIST_FOREVER, NULL) == 0);
    heist_process_unref(p);
    return 0;
}

static void bad_arguments_are_refused(void **state) {
    (void)state;
    play(bad_arguments);
}

static int shells(void *arg, void **out) {
    (void)arg, (void)out;
    EXPECT_OUTPUT("echo one; echo $((1 + 1))", options(), "one\n2\n");
    int code = 0;
    char *text = output_of("exit 3", options(), &code);
    EXPECT(code == 3 && text && !*text);
    heist_process_output o = HEIST_PROCESS_OUTPUT_INIT;
    o.out = text;
    heist_process_output_free(&o);
    return 0;
}

static void a_line_goes_through_the_shell_PROC_02(void **state) {
    (void)state;
    play(shells);
}

static int streams(void *arg, void **out) {
    (void)arg, (void)out;
    heist_process *p = NULL;
    heist_process_output got = HEIST_PROCESS_OUTPUT_INIT;
    heist_process_options o = with_pipes();
    const char *both = "cat; echo to-err >&2; echo to-out";
    EXPECT(heist_create_subprocess_shell(both, &o, &p) == 0);
    EXPECT(heist_process_stdin(p) && heist_process_stdout(p) && heist_process_stderr(p));
    EXPECT(heist_process_communicate(p, "in ", 3, HEIST_FOREVER, &got) == 0);
    EXPECT(got.code == 0 && got.out_size == 10 && strcmp(got.out, "in to-out\n") == 0);
    EXPECT(got.err_size == 7 && strcmp(got.err, "to-err\n") == 0);
    heist_process_output_free(&got);
    EXPECT(got.out == NULL && got.err == NULL);
    heist_process_unref(p);

    o.stdin_is = HEIST_PROCESS_NULL; /* nothing to read, and stderr goes where stdout goes */
    o.stderr_is = HEIST_PROCESS_STDOUT;
    EXPECT(heist_create_subprocess_shell(both, &o, &p) == 0);
    EXPECT(!heist_process_stdin(p) && heist_process_stdout(p) && !heist_process_stderr(p));
    EXPECT(heist_process_communicate(p, NULL, 0, HEIST_FOREVER, &got) == 0);
    EXPECT(got.out && strcmp(got.out, "to-err\nto-out\n") == 0 && got.err == NULL && got.err_size == 0);
    heist_process_output_free(&got);
    heist_process_unref(p);

    char name[] = "/tmp/heist-process-XXXXXX", text[64] = "";
    int fd = mkstemp(name); /* a descriptor of ours, which stays open here */
    o = options();
    o.stdin_is = o.stderr_is = HEIST_PROCESS_NULL;
    o.stdout_is = HEIST_PROCESS_FD(fd);
    EXPECT(heist_create_subprocess_shell(both, &o, &p) == 0);
    EXPECT(heist_process_wait(p, HEIST_FOREVER, NULL) == 0);
    EXPECT(pread(fd, text, sizeof text, 0) == 7 && strcmp(text, "to-out\n") == 0);
    heist_process_unref(p);

    o.stdout_is = HEIST_PROCESS_NULL; /* crossed: 1 and 2 of the child from each other's side */
    o.stderr_is = HEIST_PROCESS_FD(fd);
    EXPECT(heist_create_subprocess_shell(both, &o, &p) == 0);
    EXPECT(heist_process_wait(p, HEIST_FOREVER, NULL) == 0);
    EXPECT(pread(fd, text, sizeof text, 7) == 7 && memcmp(text, "to-err\n", 7) == 0);
    heist_process_unref(p);
    close(fd);
    unlink(name);
    return 0;
}

static void each_standard_stream_is_inherited_a_pipe_null_or_a_descriptor_PROC_03(void **state) {
    (void)state;
    play(streams);
}

/* Standard descriptors of ours given to one another: 0 as the child's 1, and 1 as its 0. */
static int crossed(void *arg, void **out) {
    (void)arg, (void)out;
    heist_process_options o = options();
    int code = -1;
    heist_process *p = NULL;
    int before = fcntl(0, F_DUPFD_CLOEXEC, 10), pipe_ends[2];
    if (before < 0 || pipe2(pipe_ends, O_CLOEXEC)) return -errno;
    if (dup2(pipe_ends[1], 0) < 0) return -errno; /* our 0 is the writing end */
    o.stdout_is = HEIST_PROCESS_FD(0);
    o.stdin_is = HEIST_PROCESS_FD(pipe_ends[0]);
    o.stderr_is = HEIST_PROCESS_FD(2);
    EXPECT(heist_create_subprocess_shell("echo around; read x && test \"$x\" = around", &o, &p) == 0);
    EXPECT(heist_process_wait(p, HEIST_FOREVER, &code) == 0 && code == 0);
    heist_process_unref(p);
    dup2(before, 0);
    close(before);
    close(pipe_ends[0]);
    close(pipe_ends[1]);
    return 0;
}

static void descriptors_0_to_2_may_be_given_in_any_order(void **state) {
    (void)state;
    play(crossed);
}

/* ---- the end ---- */

struct waiters {
    heist_process *p;
    _Atomic(int) right;
};

static int waits(void *arg, void **out) {
    (void)out;
    struct waiters *w = arg;
    int code = 0;
    int err = heist_process_wait(w->p, HEIST_FOREVER, &code);
    if (!err && code == -SIGTERM) w->right++;
    return err;
}

static void *waits_outside(void *arg) {
    waits(arg, NULL);
    return NULL;
}

static int many_wait(void *arg, void **out) {
    (void)arg, (void)out;
    enum { WAITERS = 5 };
    struct waiters w = {NULL, 0};
    heist_task *t[WAITERS];
    int code = 1234;
    EXPECT(heist_create_subprocess_shell("exec sleep 1000", NULL, &w.p) == 0);
    EXPECT(heist_process_returncode(w.p, &code) == HEIST_EINVALSTATE && code == 1234);
    for (int i = 0; i < WAITERS; i++) EXPECT(heist_create_task(waits, &w, NULL, &t[i]) == 0);
    pthread_t outside = harness_thread(waits_outside, &w);
    EXPECT(heist_process_wait(w.p, heist_time() + 0.002, &code) == -ETIMEDOUT && code == 1234);
    EXPECT(heist_process_terminate(w.p) == 0);
    EXPECT(heist_process_wait(w.p, HEIST_FOREVER, &code) == 0 && code == -SIGTERM);
    for (int i = 0; i < WAITERS; i++) {
        EXPECT(heist_await(t[i], NULL) == 0);
        heist_unref(t[i]);
    }
    heist_blocking_begin();
    harness_join(outside);
    heist_blocking_end();
    EXPECT(w.right == WAITERS + 1);
    code = 0;
    EXPECT(heist_process_returncode(w.p, &code) == 0 && code == -SIGTERM);
    EXPECT(heist_process_wait(w.p, 0, &code) == 0 && code == -SIGTERM); /* at once, the deadline long past */
    EXPECT(heist_process_wait(w.p, HEIST_FOREVER, NULL) == 0);
    heist_process_unref(w.p);
    return 0;
}

static void each_waiter_gets_the_code_or_the_negative_signal_and_later_calls_at_once_PROC_04_PROC_09(void **state) {
    (void)state;
    play(many_wait);
}

/* ---- communicate ---- */

#define BIG ((size_t)10 * 1024 * 1024)

static int both_ways(void *arg, void **out) {
    (void)arg, (void)out;
    size_t size = harness_instrumented() ? BIG / 10 : BIG;
    unsigned char *input = malloc(size);
    heist_process *p = NULL;
    heist_process_output got = HEIST_PROCESS_OUTPUT_INIT;
    heist_process_options o = with_pipes();
    if (!input) return -ENOMEM;
    for (size_t i = 0; i < size; i++) input[i] = (unsigned char)(i * 7 + i / 251);
    EXPECT(heist_create_subprocess_shell("exec tee /dev/stderr", &o, &p) == 0);
    EXPECT(heist_process_communicate(p, input, size, HEIST_FOREVER, &got) == 0);
    EXPECT(got.code == 0 && got.out_size == size && memcmp(got.out, input, size) == 0);
    EXPECT(got.err_size == size && memcmp(got.err, input, size) == 0);
    heist_process_output_free(&got);
    heist_process_unref(p);
    free(input);
    return 0;
}

static void communicate_moves_10_MB_in_each_direction_at_once_PROC_05(void **state) {
    (void)state;
    play(both_ways);
}

static int no_pipes(void *arg, void **out) {
    (void)arg, (void)out;
    heist_process *p = NULL;
    heist_process_output got = HEIST_PROCESS_OUTPUT_INIT;
    EXPECT(heist_create_subprocess_shell("exit 5", NULL, &p) == 0);
    EXPECT(heist_process_communicate(p, NULL, 0, HEIST_FOREVER, &got) == 0);
    EXPECT(got.code == 5 && !got.out && !got.err);
    heist_process_unref(p);
    return 0;
}

static void communicate_without_pipes_waits_PROC_06(void **state) {
    (void)state;
    play(no_pipes);
}

static int deaf(void *arg, void **out) {
    (void)arg, (void)out;
    static char input[1 << 20];
    heist_process *p = NULL;
    heist_process_output got = HEIST_PROCESS_OUTPUT_INIT;
    heist_process_options o = with_pipes();
    EXPECT(heist_create_subprocess_shell("exec <&-; echo said; exit 2", &o, &p) == 0);
    EXPECT(heist_process_communicate(p, input, sizeof input, HEIST_FOREVER, &got) == 0);
    EXPECT(got.code == 2 && got.out && strcmp(got.out, "said\n") == 0);
    heist_process_output_free(&got);
    heist_process_unref(p);
    return 0;
}

static void a_child_that_does_not_read_its_input_is_no_failure_PROC_07(void **state) {
    (void)state;
    play(deaf);
}

/* The child says a word, repeats ours, and says the rest when it is told to; by files, for its descriptors are ours. */
static int cut_short(void *arg, void **out) {
    (void)arg, (void)out;
    heist_process *p = NULL;
    heist_process_output got = HEIST_PROCESS_OUTPUT_INIT;
    heist_process_options o = with_pipes();
    char folder[] = "/tmp/heist-test-XXXXXX", said[64], go_on[64], command[256];
    EXPECT(mkdtemp(folder) != NULL);
    snprintf(said, sizeof said, "%s/said", folder);
    snprintf(go_on, sizeof go_on, "%s/go-on", folder);
    snprintf(command, sizeof command,
             "echo first; read x; echo $x; : >%s; while [ ! -e %s ]; do sleep 0.01; done; echo second", said, go_on);
    EXPECT(heist_create_subprocess_shell(command, &o, &p) == 0);
    EXPECT(heist_process_communicate(p, "word\n", 5, heist_time() + 0.05, &got) == -ETIMEDOUT);
    heist_cancel(heist_current_task());
    EXPECT(heist_process_communicate(p, "word\n", 5, HEIST_FOREVER, &got) == -ECANCELED);
    heist_uncancel(heist_current_task());
    EXPECT(got.out == NULL && got.err == NULL);
    int err = -ETIMEDOUT, after = 0; /* how many were cut short after it had said so */
    while (err == -ETIMEDOUT) {
        err = heist_process_communicate(p, "word\n", 5, heist_time() + 0.02, &got);
        if (access(said, F_OK) == 0 && ++after == 5) close(open(go_on, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    }
    EXPECT(err == 0 && got.code == 0);
    EXPECT(unlink(said) == 0 && unlink(go_on) == 0 && rmdir(folder) == 0);
    EXPECT(got.out && strcmp(got.out, "first\nword\nsecond\n") == 0);
    heist_process_output_free(&got);
    EXPECT(heist_process_communicate(p, NULL, 0, HEIST_FOREVER, &got) == 0 && !got.out); /* it was handed over */
    heist_process_unref(p);
    return 0;
}

static void a_communicate_that_was_cut_short_goes_on_and_loses_nothing(void **state) {
    (void)state;
    play(cut_short);
}

static int lines(void *arg, void **out) {
    (void)arg, (void)out;
    heist_process *p = NULL;
    heist_process_options o = options();
    char *text;
    int code = -1;
    o.stdout_is = o.stdin_is = HEIST_PROCESS_PIPE;
    EXPECT(heist_create_subprocess_shell("echo a; read x; echo b$x; echo c", &o, &p) == 0);
    EXPECT(heist_stream_readline(heist_process_stdout(p), &text) == 2 && strcmp(text, "a\n") == 0); /* while it runs */
    EXPECT(heist_stream_write(heist_process_stdin(p), "x\n", 2) == 0);
    EXPECT(heist_process_wait(p, HEIST_FOREVER, &code) == 0 && code == 0);
    heist_stream *kept = heist_stream_ref(heist_process_stdout(p));
    EXPECT(heist_stream_readline(kept, &text) == 3 && strcmp(text, "bx\n") == 0); /* and after its end */
    EXPECT(heist_stream_readline(kept, &text) == 2 && strcmp(text, "c\n") == 0);
    EXPECT(heist_stream_readline(kept, &text) == 0);
    heist_process_unref(p);
    EXPECT(heist_stream_readline(kept, &text) == HEIST_ECLOSED);
    heist_stream_unref(kept);
    return 0;
}

static void what_the_child_wrote_is_read_while_it_runs_and_after_its_end_PROC_12(void **state) {
    (void)state;
    play(lines);
}

/* ---- signals ---- */

static int signals(void *arg, void **out) {
    (void)arg, (void)out;
    static const int each[] = {SIGTERM, SIGKILL, SIGUSR1, SIGHUP};
    for (size_t i = 0; i < sizeof each / sizeof each[0]; i++) {
        heist_process *p = NULL;
        int code = 0;
        EXPECT(heist_create_subprocess_shell("exec sleep 1000", NULL, &p) == 0);
        EXPECT(heist_process_send_signal(p, 0) == 0);
        int err = i == 0   ? heist_process_terminate(p)
                  : i == 1 ? heist_process_kill(p)
                           : heist_process_send_signal(p, each[i]);
        EXPECT(err == 0);
        EXPECT(heist_process_wait(p, HEIST_FOREVER, &code) == 0 && code == -each[i]);
        EXPECT(heist_process_terminate(p) == -ESRCH && heist_process_kill(p) == -ESRCH);
        EXPECT(heist_process_send_signal(p, 0) == -ESRCH); /* whoever has the number now */
        heist_process_unref(p);
    }
    return 0;
}

static void signals_reach_the_child_and_after_its_end_nobody_PROC_08(void **state) {
    (void)state;
    play(signals);
}

static int stubborn(void *arg, void **out) {
    (void)arg, (void)out;
    heist_process *p = NULL;
    heist_process_options o = options();
    char ready;
    int code = 0;
    o.stdout_is = HEIST_PROCESS_PIPE;
    EXPECT(heist_create_subprocess_shell("trap '' TERM; echo; while :; do sleep 0.01; done", &o, &p) == 0);
    EXPECT(heist_stream_read(heist_process_stdout(p), &ready, 1) == 1); /* its trap stands */
    EXPECT(heist_process_stop(p, 0.05, &code) == 0 && code == -SIGKILL);
    heist_process_unref(p);
    EXPECT(heist_create_subprocess_shell("trap 'exit 9' TERM; echo; while :; do sleep 0.01; done", &o, &p) == 0);
    EXPECT(heist_stream_read(heist_process_stdout(p), &ready, 1) == 1);
    EXPECT(heist_process_stop(p, HEIST_FOREVER, &code) == 0 && code == 9);
    EXPECT(heist_process_stop(p, 0, &code) == 0 && code == 9); /* it has ended */
    heist_process_unref(p);
    /* Cancelled before it has begun. */
    EXPECT(heist_create_subprocess_shell("exec sleep 1000", NULL, &p) == 0);
    heist_cancel(heist_current_task());
    EXPECT(heist_process_stop(p, HEIST_FOREVER, &code) == -ECANCELED);
    heist_uncancel(heist_current_task());
    EXPECT(heist_process_wait(p, HEIST_FOREVER, &code) == 0 && code == -SIGKILL);
    heist_process_unref(p);
    return 0;
}

static void stop_asks_first_and_kills_a_child_that_does_not_listen(void **state) {
    (void)state;
    play(stubborn);
}

static int groups(void *arg, void **out) {
    (void)arg, (void)out;
    heist_process *p = NULL;
    heist_process_options o = options();
    heist_process_output got = HEIST_PROCESS_OUTPUT_INIT;
    int code = 0;
    o.stdout_is = HEIST_PROCESS_PIPE;
    o.flags = HEIST_PROCESS_GROUP;
    EXPECT(heist_create_subprocess_shell("sleep 1000 & echo; wait", &o, &p) == 0);
    EXPECT(getpgid(heist_process_pid(p)) == heist_process_pid(p));
    char ready;
    EXPECT(heist_stream_read(heist_process_stdout(p), &ready, 1) == 1);
    EXPECT(heist_process_signal_group(p, SIGKILL) == 0);
    /* The pipe ends: the grandchild is gone too. */
    EXPECT(heist_process_communicate(p, NULL, 0, HEIST_FOREVER, &got) == 0);
    EXPECT(got.code == -SIGKILL);
    heist_process_output_free(&got);
    heist_process_unref(p);
    o.flags = HEIST_PROCESS_SESSION;
    EXPECT(heist_create_subprocess_shell("sleep 1000 & echo; wait", &o, &p) == 0);
    EXPECT(getsid(heist_process_pid(p)) == heist_process_pid(p));
    EXPECT(heist_stream_read(heist_process_stdout(p), &ready, 1) == 1);
    EXPECT(heist_process_stop(p, HEIST_FOREVER, &code) == 0 && code == -SIGTERM);
    EXPECT(heist_stream_read(heist_process_stdout(p), &ready, 1) == 0);
    heist_process_unref(p);
    return 0;
}

/* Nothing is left of the group of a leader that went over to ours. */
static int leaves_group(void *arg, void **out) {
    (void)arg, (void)out;
    heist_process_options o = options();
    heist_process *p = NULL;
    char c;
    int code = 0;
    o.flags = HEIST_PROCESS_GROUP;
    o.stdout_is = HEIST_PROCESS_PIPE;
    EXPECT(heist_create_subprocess_shell("command -v perl >/dev/null || exit 77; exec perl -e "
                                         "'setpgrp(0, getpgrp(getppid())) || exit 1; syswrite(STDOUT, 1); sleep 1000'",
                                         &o, &p) == 0);
    if (heist_stream_read(heist_process_stdout(p), &c, 1) == 1) {
        EXPECT(heist_process_signal_group(p, 0) == 0);
        EXPECT(heist_process_stop(p, HEIST_FOREVER, &code) == 0 && code == -SIGTERM);
    } else { /* no such program here */
        EXPECT(heist_process_wait(p, HEIST_FOREVER, &code) == 0 && code == 77);
    }
    heist_process_unref(p);
    return 0;
}

static void a_leader_that_left_its_group_is_reached_all_the_same(void **state) {
    (void)state;
    play(leaves_group);
}

static void a_group_is_signalled_as_a_whole_PROC_13(void **state) {
    (void)state;
    play(groups);
}

/* ---- what a child has ---- */

static int surroundings(void *arg, void **out) {
    (void)arg, (void)out;
    heist_process_options o = options();
    char one[] = "ONE=1", path[] = "PATH=/bin:/usr/bin";
    char *env[] = {one, path, NULL}, *poor[] = {one, NULL};
    o.env = env;
    EXPECT_OUTPUT("echo $ONE $HOME $HEIST_TEST_WORKERS", o, "1\n");
    o.env = poor; /* without a PATH there is the system's */
    char program[] = "true";
    char *argv[] = {program, NULL};
    heist_process *p = NULL;
    EXPECT(heist_create_subprocess_exec(argv, &o, &p) == 0);
    EXPECT(heist_process_wait(p, HEIST_FOREVER, NULL) == 0);
    heist_process_unref(p);
    char nowhere[] = "PATH=/nowhere:/etc/passwd";
    poor[0] = nowhere;
    EXPECT(heist_create_subprocess_exec(argv, &o, &p) == -ENOENT);
    o = options();
    o.cwd = "/";
    EXPECT_OUTPUT("pwd", o, "/\n");
    return 0;
}

static void environment_and_working_directory_are_given_PROC_13(void **state) {
    (void)state;
    play(surroundings);
}

static int descriptors(void *arg, void **out) {
    (void)arg, (void)out;
    heist_process_options o = options();
    /* Without close-on-exec, as another library may have made it. */
    int ends[2], plain = open("/dev/null", O_RDONLY);
    if (plain < 0 || pipe2(ends, O_CLOEXEC)) return -errno;
    char command[128], expected[128];
    const char *list = "for i in 3 4 5 6 7 8 9 %d %d %d; do test -e /dev/fd/$i && echo $i; done; true";
    snprintf(command, sizeof command, list, plain, ends[0], ends[1]);
    EXPECT_OUTPUT(command, o, "");
    o.pass_fds = &ends[1];
    o.pass_fds_count = 1;
    snprintf(command, sizeof command, "echo passed >&%d", ends[1]);
    heist_process *p = NULL;
    int code = -1;
    if (ends[1] < 10) { /* what a shell can name */
        EXPECT(heist_create_subprocess_shell(command, &o, &p) == 0);
        EXPECT(heist_process_wait(p, HEIST_FOREVER, &code) == 0 && code == 0);
        heist_process_unref(p);
        EXPECT(read(ends[0], expected, 7) == 7 && memcmp(expected, "passed\n", 7) == 0);
    }
    EXPECT(fcntl(ends[1], F_GETFD) == FD_CLOEXEC); /* here nothing has changed */
    o = options();
    o.flags = HEIST_PROCESS_KEEP_FDS;
    snprintf(command, sizeof command, "test -e /dev/fd/%d && echo kept; test -e /dev/fd/%d || echo closed", plain,
             ends[0]);
    EXPECT_OUTPUT(command, o, "kept\nclosed\n");
    close(plain);
    close(ends[0]);
    close(ends[1]);
    return 0;
}

static void only_given_descriptors_are_inherited_PROC_13(void **state) {
    (void)state;
    play(descriptors);
}

static void on_usr1(int sig) { (void)sig; }

static int dispositions(void *arg, void **out) {
    (void)arg, (void)out;
    /* Of the shell itself: the masks and what is ignored, as the kernel says. */
    EXPECT_OUTPUT("awk '/^SigBlk/ {print $2} /^SigCgt/ {print $2}' /proc/self/status", options(),
                  "0000000000000000\n0000000000000000\n");
    EXPECT_OUTPUT("awk '/^SigIgn/ {print $2}' /proc/self/status", options(), "0000000000000001\n"); /* SIGHUP */
    return 0;
}

static void a_child_has_an_empty_mask_and_no_handlers_and_ignores_what_was_ignored(void **state) {
    (void)state;
    signal(SIGUSR1, on_usr1);
    signal(SIGHUP, SIG_IGN);
    signal(SIGPIPE, SIG_IGN); /* as many servers do; a program in a pipeline must not inherit it */
    play(dispositions);
    signal(SIGUSR1, SIG_DFL);
    signal(SIGHUP, SIG_DFL);
    signal(SIGPIPE, SIG_DFL);
}

/* ---- cancelling and dropping ---- */

static int cancelled_waits(void *arg, void **out) {
    (void)arg, (void)out;
    heist_process *p = NULL;
    heist_process_options o = options();
    int code = 0;
    EXPECT(heist_create_subprocess_shell("exec sleep 1000", NULL, &p) == 0);
    struct waiters w = {p, 0};
    heist_task *t = NULL;
    EXPECT(heist_create_task(waits, &w, NULL, &t) == 0);
    harness_stands(t);
    heist_cancel(t);
    EXPECT(heist_await(t, NULL) == -ECANCELED);
    heist_unref(t);
    EXPECT(heist_process_send_signal(p, 0) == 0 && heist_process_returncode(p, NULL) == HEIST_EINVALSTATE);
    EXPECT(heist_process_kill(p) == 0);
    EXPECT(heist_process_wait(p, HEIST_FOREVER, NULL) == 0);
    heist_process_unref(p);

    o.flags = HEIST_PROCESS_KILL_ON_CANCEL; /* unless asked to */
    EXPECT(heist_create_subprocess_shell("exec sleep 1000", &o, &p) == 0);
    w.p = p;
    EXPECT(heist_create_task(waits, &w, NULL, &t) == 0);
    harness_stands(t); /* one that does not wait yet would not kill it */
    heist_cancel(t);
    EXPECT(heist_await(t, NULL) == -ECANCELED);
    heist_unref(t);
    EXPECT(heist_process_wait(p, HEIST_FOREVER, &code) == 0 && code == -SIGKILL);
    heist_process_unref(p);
    return 0;
}

static void cancelling_a_wait_leaves_the_child_unless_asked_to_kill_it_PROC_10(void **state) {
    (void)state;
    play(cancelled_waits);
}

static int cancelled_start(void *arg, void **out) {
    (void)arg, (void)out;
    heist_process *p = NULL;
    heist_cancel(heist_current_task());
    EXPECT(heist_create_subprocess_shell("exec sleep 1000", NULL, &p) == -ECANCELED);
    EXPECT(p == NULL && !any_child());
    heist_uncancel(heist_current_task());
    return 0;
}

static void cancelling_a_start_leaves_no_child_PROC_11(void **state) {
    (void)state;
    play(cancelled_start);
}

static int drops(void *arg, void **out) {
    (void)arg, (void)out;
    heist_process_options o = options();
    heist_process *p = NULL;
    for (int i = 0; i < 8; i++) { /* ended or not; nobody waits for them */
        EXPECT(heist_create_subprocess_shell(i & 1 ? "exit 1" : "exec sleep 0.01", NULL, &p) == 0);
        heist_process_unref(p);
    }
    while (any_child())
        if (heist_sleep(0.002)) break;
    o.flags = HEIST_PROCESS_KILL_ON_DROP;
    EXPECT(heist_create_subprocess_shell("exec sleep 1000", &o, &p) == 0);
    heist_process_ref(p);
    heist_process_unref(p);
    EXPECT(heist_process_send_signal(p, 0) == 0);
    heist_process_unref(p); /* the run ends here, and leaves no zombie */
    return 0;
}

static void children_whose_handle_is_dropped_are_reaped_all_the_same(void **state) {
    (void)state;
    play(drops);
}

static heist_process *survivor;
static int starts_survivor(void *arg, void **out) {
    (void)arg, (void)out;
    return heist_create_subprocess_shell("exec sleep 1000", NULL, &survivor);
}
static int ends_survivor(void *arg, void **out) {
    (void)arg, (void)out;
    int code = 0;
    EXPECT(heist_process_returncode(survivor, NULL) == HEIST_EINVALSTATE);
    EXPECT(heist_process_wait(survivor, heist_time() + 0.002, NULL) == -ETIMEDOUT);
    EXPECT(heist_process_kill(survivor) == 0);
    EXPECT(heist_process_wait(survivor, HEIST_FOREVER, &code) == 0 && code == -SIGKILL);
    return 0;
}

static int nothing(void *arg, void **out) {
    (void)arg, (void)out;
    return 0;
}

static void a_child_that_outlives_its_runtime_is_watched_by_the_next_one_that_waits(void **state) {
    (void)state;
    assert_int_equal(run_real(starts_survivor, NULL), 0);
    assert_int_equal(heist_process_wait(survivor, HEIST_FOREVER, NULL), HEIST_ECLOSED); /* no loop looks */
    assert_int_equal(heist_process_wait(survivor, 0.0 / 0.0, NULL), -EINVAL);
    assert_int_equal(run_real(ends_survivor, NULL), 0);
    heist_process_unref(survivor);
    no_children();
    /* Without another runtime its handle tells, once it has ended. */
    siginfo_t info;
    int code = 0;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(run_real(starts_survivor, NULL), 0);
        assert_int_equal(heist_process_returncode(survivor, &code), HEIST_EINVALSTATE);
        assert_int_equal(heist_process_kill(survivor), 0);
        assert_int_equal(waitid(P_PID, (id_t)heist_process_pid(survivor), &info, WEXITED | WNOWAIT), 0);
        assert_int_equal(i ? heist_process_wait(survivor, HEIST_FOREVER, &code)
                           : heist_process_returncode(survivor, &code), 0);
        assert_int_equal(code, -SIGKILL);
        no_children();
        heist_process_unref(survivor);
        code = 0;
    }
    /* And one without a handle by the next close, once it has ended. */
    assert_int_equal(run_real(starts_survivor, NULL), 0);
    pid_t pid = heist_process_pid(survivor);
    assert_int_equal(heist_process_kill(survivor), 0);
    heist_process_unref(survivor);
    assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
    assert_int_equal(run_real(nothing, NULL), 0);
    no_children();
}

/* One that nobody has a handle of and no loop watches, and that is dead. */
static void make_zombie(void) {
    siginfo_t info;
    assert_int_equal(run_real(starts_survivor, NULL), 0);
    pid_t pid = heist_process_pid(survivor);
    heist_process_unref(survivor);
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
    assert_true(any_child());
}

static void a_zombie_that_outlived_every_loop_goes_with_the_next_call_or_loop(void **state) {
    heist_process *other;
    (void)state;
    make_zombie();
    heist_loop *loop = harness_real_loop(); /* a new loop */
    no_children();
    harness_loop_end(loop);
    assert_int_equal(run_real(starts_survivor, NULL), 0);
    other = survivor;
    assert_int_equal(heist_process_kill(other), 0);
    while (heist_process_returncode(other, NULL) == HEIST_EINVALSTATE) usleep(1000);
    no_children();
    make_zombie();
    assert_int_equal(heist_process_returncode(other, NULL), 0); /* a question about another */
    no_children();
    heist_process_unref(other);
}

static int writes_to_survivor(void *arg, void **out) {
    (void)arg, (void)out;
    static char much[1 << 20];
    heist_process_options o = with_pipes();
    o.flags = HEIST_PROCESS_KILL_ON_DROP;
    int err = heist_create_subprocess_shell("exec sleep 1000", &o, &survivor);
    if (!err) err = heist_stream_write(heist_process_stdin(survivor), much, sizeof much);
    return err;
}

static void a_handle_with_pipes_and_unsent_input_may_outlive_its_runtime(void **state) {
    (void)state;
    assert_int_equal(run_real(writes_to_survivor, NULL), 0);
    pid_t pid = heist_process_pid(survivor);
    heist_process_unref(survivor);
    siginfo_t info;
    assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
    assert_int_equal(info.si_status, SIGKILL);
    assert_int_equal(run_real(nothing, NULL), 0);
    no_children();
}

static int one_line(void *arg, void **out) {
    (void)arg, (void)out;
    heist_process *p = NULL;
    heist_stream_options stream = HEIST_STREAM_OPTIONS_INIT;
    heist_process_options o = with_pipes();
    char *text;
    stream.limit = 16;
    o.stream = &stream;
    EXPECT(heist_create_subprocess_shell("echo short; echo longer than the limit allows", &o, &p) == 0);
    EXPECT(heist_stream_readline(heist_process_stdout(p), &text) == 6);
    EXPECT(heist_stream_readline(heist_process_stdout(p), &text) == HEIST_ELIMIT);
    stream.limit = -1;
    heist_process *other = NULL;
    EXPECT(heist_create_subprocess_shell("true", &o, &other) == -EINVAL && other == NULL);
    EXPECT(heist_process_wait(p, HEIST_FOREVER, NULL) == 0);
    heist_process_unref(p);
    return 0;
}

static void the_pipes_have_the_streams_options_PROC_12(void **state) {
    (void)state;
    play(one_line);
}

static void *waits_for_survivor(void *arg) {
    *(int *)arg = heist_process_wait(survivor, HEIST_FOREVER, NULL);
    return NULL;
}

static void who_waits_when_the_watching_loop_closes_is_told(void **state) {
    (void)state;
    heist_runtime *rt = harness_runtime(0);
    heist_task *t = NULL;
    int answer = 0;
    wrong = 0;
    assert_int_equal(heist_runtime_run_coroutine(rt, starts_survivor, NULL, NULL, &t), 0);
    assert_int_equal(heist_await(t, NULL), 0);
    heist_unref(t);
    pthread_t thread = harness_thread(waits_for_survivor, &answer);
    heist_sleep(0.002);
    harness_runtime_end(rt);
    harness_join(thread);
    assert_int_equal(answer, HEIST_ECLOSED);
    assert_int_equal(run_real(ends_survivor, NULL), 0);
    heist_process_unref(survivor);
    no_children();
}

/* ---- many, and other people's ---- */

static int starts_many(void *arg, void **out) {
    (void)arg, (void)out;
    enum { CHILDREN = 100 };
    static heist_process *p[CHILDREN];
    heist_process_options o = options();
    int ends[2], count = harness_instrumented() ? 40 : CHILDREN;
    if (pipe2(ends, O_CLOEXEC)) return -errno;
    o.stdin_is = HEIST_PROCESS_FD(ends[0]);
    for (int i = 0; i < count; i++) {
        char command[64];
        snprintf(command, sizeof command, "read x; exit %d", i % 50);
        EXPECT(heist_create_subprocess_shell(command, &o, &p[i]) == 0);
    }
    close(ends[0]);
    close(ends[1]); /* all of them read the end at once */
    for (int i = 0; i < count; i++) {
        int code = -1;
        EXPECT(heist_process_wait(p[i], HEIST_FOREVER, &code) == 0 && code == i % 50);
        heist_process_unref(p[i]);
    }
    return 0;
}

static void a_hundred_children_that_end_at_once_are_all_reported_PROC_15(void **state) {
    (void)state;
    play(starts_many);
}

/* A forked child ends as another program: a checker of memory that follows it would call lost what only a thread that
 * is not there, or a coroutine's stack, holds. */
static void end_as(const char *command) {
    execl("/bin/sh", "sh", "-c", command, (char *)NULL);
    _exit(127);
}

/* Somebody else's, made and waited for by plain calls. */
static pid_t others_child;
static void fork_other(void) {
    others_child = fork();
    if (others_child == 0) end_as("exit 6");
    assert_true(others_child > 0);
}

static int beside_others(void *arg, void **out) {
    (void)arg, (void)out;
    heist_process *p = NULL;
    int status = 0, code = -1;
    pid_t other = others_child;
    EXPECT(heist_create_subprocess_shell("exit 4", NULL, &p) == 0);
    EXPECT(heist_process_wait(p, HEIST_FOREVER, &code) == 0 && code == 4);
    heist_process_unref(p);
    EXPECT(waitpid(other, &status, 0) == other && WIFEXITED(status) && WEXITSTATUS(status) == 6);
    /* And the other way round: one that somebody else took. */
    EXPECT(heist_create_subprocess_shell("exec sleep 1000", NULL, &p) == 0);
    pid_t pid = heist_process_pid(p);
    return kill(pid, SIGSTOP) || kill(pid, SIGCONT) || heist_process_kill(p) ||
           heist_process_wait(p, HEIST_FOREVER, &code) || code != -SIGKILL
               ? -EPROTO
               : (heist_process_unref(p), 0);
}

static void others_children_are_left_alone_and_ends_need_no_main_thread_PROC_14(void **state) {
    (void)state;
    fork_other();
    play(beside_others);
    /* On a runtime whose main thread does nothing; and on a loop that some thread runs. */
    heist_runtime *rt = harness_runtime(0);
    heist_task *t = NULL;
    wrong = 0;
    fork_other();
    assert_int_equal(heist_runtime_run_coroutine(rt, beside_others, NULL, NULL, &t), 0);
    assert_int_equal(heist_await(t, NULL), 0);
    heist_unref(t);
    assert_int_equal(wrong, 0);
    harness_runtime_end(rt);
    heist_loop *loop = harness_real_loop();
    fork_other();
    assert_int_equal(heist_loop_run_coroutine(loop, beside_others, NULL, NULL, NULL), 0);
    assert_int_equal(wrong, 0);
    harness_loop_end(loop);
    no_children();
}

static int stolen(void *arg, void **out) {
    (void)arg, (void)out;
    heist_process *p = NULL;
    EXPECT(heist_create_subprocess_shell("exit 4", NULL, &p) == 0);
    EXPECT(heist_process_wait(p, HEIST_FOREVER, NULL) == -ECHILD); /* the system took it: SIGCHLD is ignored */
    EXPECT(heist_process_returncode(p, NULL) == -ECHILD);
    EXPECT(heist_process_kill(p) == -ESRCH);
    heist_process_unref(p);
    return 0;
}

static void a_status_that_somebody_else_took_is_an_error(void **state) {
    (void)state;
    signal(SIGCHLD, SIG_IGN);
    assert_int_equal(run_real(stolen, NULL), 0);
    signal(SIGCHLD, SIG_DFL);
    no_children();
}

/* ---- the wrong place, fork, running out ---- */

static _Atomic(int) called_back;
static int from_a_callback(void *arg) {
    heist_process *p = arg, *other = NULL;
    heist_process_output got = HEIST_PROCESS_OUTPUT_INIT;
    EXPECT(heist_create_subprocess_shell("true", NULL, &other) == HEIST_ENOTINCORO);
    EXPECT(heist_process_wait(p, HEIST_FOREVER, NULL) == HEIST_ENOTINCORO);
    EXPECT(heist_process_communicate(p, NULL, 0, HEIST_FOREVER, &got) == HEIST_ENOTINCORO);
    EXPECT(heist_process_stop(p, 1, NULL) == HEIST_ENOTINCORO);
    EXPECT(heist_process_send_signal(p, 0) == -ESRCH); /* what does not wait is for all */
    called_back = 1;
    return 0;
}

static int in_the_wrong_place(void *arg, void **out) {
    (void)arg, (void)out;
    heist_process *p = NULL;
    heist_loop *loop = NULL;
    EXPECT(heist_create_subprocess_shell("true", NULL, &p) == 0);
    EXPECT(heist_process_wait(p, HEIST_FOREVER, NULL) == 0);
    EXPECT(heist_get_running_loop(&loop) == 0);
    called_back = 0;
    EXPECT(heist_loop_call_soon(loop, from_a_callback, p, NULL, NULL) == 0);
    while (!called_back) EXPECT(heist_sleep(0.001) == 0);
    heist_process_unref(p);
    return 0;
}

static void callbacks_and_forked_children_get_a_code(void **state) {
    (void)state;
    heist_process *p = NULL;
    assert_int_equal(heist_create_subprocess_shell("true", NULL, &p), HEIST_ENOTINCORO); /* no loop to watch it */
    play(in_the_wrong_place);
    assert_int_equal(run_real(starts_survivor, NULL), 0);
    int code = -1;
    p = survivor;
    pid_t pid = fork();
    if (pid == 0) {
        heist_process *other = NULL;
        heist_process_output got = HEIST_PROCESS_OUTPUT_INIT;
        int bad = heist_create_subprocess_shell("true", NULL, &other) != HEIST_EFORKED;
        bad |= heist_process_wait(p, HEIST_FOREVER, NULL) != HEIST_EFORKED;
        bad |= heist_process_returncode(p, NULL) != HEIST_EFORKED;
        bad |= heist_process_communicate(p, NULL, 0, HEIST_FOREVER, &got) != HEIST_EFORKED;
        bad |= heist_process_kill(p) != HEIST_EFORKED || heist_process_stop(p, 1, NULL) != HEIST_EFORKED;
        bad |= heist_process_close_stdin(p) != HEIST_EFORKED;
        heist_process_unref(p);
        end_as(bad ? "exit 1" : "exit 0");
    }
    assert_int_equal(waitpid(pid, &code, 0), pid);
    assert_int_equal(code, 0);
    assert_int_equal(run_real(ends_survivor, NULL), 0); /* the child has not touched it */
    heist_process_unref(survivor);
    no_children();
}

static int without_descriptors(void *arg, void **out) {
    (void)arg, (void)out;
    struct rlimit before, few;
    heist_process *p = NULL;
    heist_process_options o = with_pipes();
    int first = open("/dev/null", O_RDONLY | O_CLOEXEC), refused = 0, err = -EMFILE;
    if (first < 0 || getrlimit(RLIMIT_NOFILE, &before)) return -errno;
    few = before;
    /* One more each time; seven or eight are enough. */
    for (int more = 0; err == -EMFILE && more < 20; more++) {
        few.rlim_cur = (rlim_t)(first + 1 + more);
        if (setrlimit(RLIMIT_NOFILE, &few)) return -errno;
        err = heist_create_subprocess_shell("exit 1", &o, &p);
        if (err == -EMFILE) {
            refused++;
            EXPECT(p == NULL && !any_child());
        }
    }
    setrlimit(RLIMIT_NOFILE, &before);
    EXPECT(err == 0 && refused >= 7);
    close(first);
    if (!err) EXPECT(heist_process_wait(p, HEIST_FOREVER, NULL) == 0);
    heist_process_unref(p);
    return 0;
}

static void without_descriptors_the_start_says_so_and_leaves_nothing(void **state) {
    (void)state;
    if (harness_valgrind()) skip();
    play(without_descriptors);
}

static int use_process(void *arg, void **out) {
    (void)arg, (void)out;
    heist_process *p = NULL;
    heist_process_options o = with_pipes();
    heist_process_output got = HEIST_PROCESS_OUTPUT_INIT;
    int err = heist_create_subprocess_shell("cat; exit 3", &o, &p);
    if (err) return p ? -EPROTO : err;
    err = heist_process_communicate(p, "text", 4, HEIST_FOREVER, &got);
    if (!err && (got.code != 3 || !got.out || strcmp(got.out, "text"))) err = -EPROTO;
    heist_process_output_free(&got);
    heist_process_close_stdin(p);
    int ended = heist_process_wait(p, HEIST_FOREVER, NULL);
    heist_process_unref(p);
    return err ? err : ended;
}

static int fails_in_turn(void *arg, void **out) {
    (void)arg, (void)out;
    int err = -ENOMEM;
    EXPECT(use_process(NULL, NULL) == 0); /* what is made once is made */
    for (long n = 1; err == -ENOMEM && n < 200; n++) {
        harness_fail_allocation(n, false);
        err = use_process(NULL, NULL);
        harness_fail_allocation(0, false);
        EXPECT(err == 0 || err == -ENOMEM);
        EXPECT(!any_child());
    }
    EXPECT(err == 0);
    return 0;
}

static void each_failing_allocation_is_reported_and_leaves_no_child(void **state) {
    (void)state;
    play(fails_in_turn);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        API_TEST(exec_starts_a_program_with_its_arguments_PROC_01),
        API_TEST(a_program_that_cannot_start_gives_the_systems_error_and_no_zombie_PROC_01),
        API_TEST(bad_arguments_are_refused),
        API_TEST(a_line_goes_through_the_shell_PROC_02),
        API_TEST(each_standard_stream_is_inherited_a_pipe_null_or_a_descriptor_PROC_03),
        API_TEST(descriptors_0_to_2_may_be_given_in_any_order),
        API_TEST(each_waiter_gets_the_code_or_the_negative_signal_and_later_calls_at_once_PROC_04_PROC_09),
        API_TEST(communicate_moves_10_MB_in_each_direction_at_once_PROC_05),
        API_TEST(communicate_without_pipes_waits_PROC_06),
        API_TEST(a_child_that_does_not_read_its_input_is_no_failure_PROC_07),
        API_TEST(a_communicate_that_was_cut_short_goes_on_and_loses_nothing),
        API_TEST(what_the_child_wrote_is_read_while_it_runs_and_after_its_end_PROC_12),
        API_TEST(signals_reach_the_child_and_after_its_end_nobody_PROC_08),
        API_TEST(stop_asks_first_and_kills_a_child_that_does_not_listen),
        API_TEST(a_group_is_signalled_as_a_whole_PROC_13),
        API_TEST(a_leader_that_left_its_group_is_reached_all_the_same),
        API_TEST(environment_and_working_directory_are_given_PROC_13),
        API_TEST(only_given_descriptors_are_inherited_PROC_13),
        API_TEST(a_child_has_an_empty_mask_and_no_handlers_and_ignores_what_was_ignored),
        API_TEST(cancelling_a_wait_leaves_the_child_unless_asked_to_kill_it_PROC_10),
        API_TEST(cancelling_a_start_leaves_no_child_PROC_11),
        API_TEST(children_whose_handle_is_dropped_are_reaped_all_the_same),
        API_TEST(a_child_that_outlives_its_runtime_is_watched_by_the_next_one_that_waits),
        API_TEST(a_zombie_that_outlived_every_loop_goes_with_the_next_call_or_loop),
        API_TEST(a_handle_with_pipes_and_unsent_input_may_outlive_its_runtime),
        API_TEST(the_pipes_have_the_streams_options_PROC_12),
        API_TEST(who_waits_when_the_watching_loop_closes_is_told),
        API_TEST(a_hundred_children_that_end_at_once_are_all_reported_PROC_15),
        API_TEST(others_children_are_left_alone_and_ends_need_no_main_thread_PROC_14),
        API_TEST(a_status_that_somebody_else_took_is_an_error),
        API_TEST(callbacks_and_forked_children_get_a_code),
        API_TEST(without_descriptors_the_start_says_so_and_leaves_nothing),
        API_TEST(each_failing_allocation_is_reported_and_leaves_no_child),
    };
    return HARNESS_MAIN("process", tests);
}
