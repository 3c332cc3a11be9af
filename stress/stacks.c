/* stress/stacks.c: stacks of threads and of suspended tasks, by a debugger that the process starts for itself.
 *
 * gdb reads a script from a memory file, attaches, writes to our standard error and detaches.  A suspended task is
 * shown by giving one thread, for a moment, the registers that the task's switch saved: its stack pointer lies in
 * its coroutine, and heist__ctx_resume is the address from which it would go on (see src/arch/ctx.h).
 * Thread: the watchdog's.
 * Invariant: `attached` is written by gdb, and so tells whether it got as far as our memory. */
#include "stacks.h"

#include <dirent.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <semaphore.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define GDB_SECONDS 60
#define SHOWN_TASKS 50
#define DEEPEST 64
#define WHERE_SIGNAL (SIGRTMAX - 3)

extern char **environ;
extern volatile int stress__attached;
__attribute__((used)) volatile int stress__attached;

#if defined(__x86_64__)
#define SP "rsp"
#define PC "rip"
#else
#define SP "sp"
#define PC "pc"
#endif

/* ---- gdb ---- */

static void rest(void) {
    struct timespec t = {0, 20000000};
    nanosleep(&t, NULL);
}

/* Runs the script; true when gdb reached our memory. */
static bool debugger(int script) {
    char pid[32], file[64];
    snprintf(pid, sizeof pid, "%d", (int)getpid());
    snprintf(file, sizeof file, "/proc/%s/fd/%d", pid, script);
    char *argv[] = {"gdb", "-nx", "-batch", "-p", pid, "-x", file, NULL};
    posix_spawn_file_actions_t io;
    posix_spawn_file_actions_init(&io);
    posix_spawn_file_actions_addopen(&io, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&io, STDERR_FILENO, STDOUT_FILENO);
    posix_spawn_file_actions_addopen(&io, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    stress__attached = 0;
    pid_t child = -1;
    /* where the system lets only parents trace, we are to be traced by anybody: this process is at its end */
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
    int err = posix_spawnp(&child, "gdb", &io, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&io);
    if (err) return false;
    for (int i = 0; i < GDB_SECONDS * 50; i++) {
        if (waitpid(child, NULL, WNOHANG) == child) return stress__attached != 0;
        rest();
    }
    fprintf(stderr, "  gdb has not ended after %d s: killed\n", GDB_SECONDS);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    return stress__attached != 0;
}

static FILE *begin_script(void) {
    int fd = memfd_create("stacks", MFD_CLOEXEC);
    FILE *f = fd < 0 ? NULL : fdopen(fd, "w");
    if (!f) {
        if (fd >= 0) close(fd);
        return NULL;
    }
    fputs("set pagination off\nset confirm off\nset width 0\nset debuginfod enabled off\nset style enabled off\n"
          "set print frame-arguments scalars\nset variable stress__attached = 1\n",
          f);
    return f;
}

static bool end_script(FILE *f) {
    fflush(f);
    bool done = debugger(fileno(f));
    fclose(f);
    return done;
}

/* ---- without gdb: every thread writes its own ---- */

static sem_t written;

static void write_my_stack(int sig) {
    (void)sig;
    int keep = errno;
    void *frame[DEEPEST];
    int n = backtrace(frame, DEEPEST);
    backtrace_symbols_fd(frame, n, STDERR_FILENO);
    sem_post(&written);
    errno = keep;
}

/* The threads of the library block every signal: for them the kernel's words must do. */
static void show_file(int tid, const char *name) {
    char path[64], text[256] = "";
    snprintf(path, sizeof path, "/proc/self/task/%d/%s", tid, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    if (fd >= 0) close(fd);
    while (n > 0 && text[n - 1] == '\n') text[--n] = 0;
    fprintf(stderr, "    %s: %s\n", name, text);
}

static void ask_each_thread(void) {
    DIR *d = opendir("/proc/self/task");
    if (!d || sem_init(&written, 0, 0) < 0) {
        if (d) closedir(d);
        return;
    }
    struct sigaction act = {.sa_handler = write_my_stack, .sa_flags = SA_RESTART | SA_ONSTACK};
    sigaction(WHERE_SIGNAL, &act, NULL);
    for (struct dirent *e; (e = readdir(d));) {
        int tid = atoi(e->d_name);
        if (tid <= 0 || tid == (int)syscall(SYS_gettid)) continue;
        fprintf(stderr, "  thread %d:\n", tid);
        if (syscall(SYS_tgkill, getpid(), tid, WHERE_SIGNAL) < 0) continue;
        bool answered = false;
        for (int i = 0; i < 50 && !answered; i++) {
            answered = sem_trywait(&written) == 0;
            if (!answered) rest();
        }
        if (answered) continue;
        fputs("    has not answered; what the kernel says (syscall: number, arguments, stack pointer, address):\n",
              stderr);
        show_file(tid, "comm");
        show_file(tid, "wchan");
        show_file(tid, "syscall");
    }
    closedir(d);
}

/* ---- the two questions ---- */

void stress_stacks_prime(void) {
    void *frame[2];
    (void)backtrace(frame, 2);
}

void stress_stacks_of_threads(void) {
    fputs("stacks of the threads:\n", stderr);
    FILE *f = begin_script();
    if (f) {
        fprintf(f, "thread apply all -s backtrace %d\n", DEEPEST);
        if (end_script(f)) return;
    }
    fputs("  gdb is missing or may not attach; each thread says for itself where it stands\n", stderr);
    ask_each_thread();
}

void stress_stacks_of_tasks(heist_task *const *tasks, size_t count) {
    FILE *f = begin_script();
    if (!f) return;
    fputs("stacks of the suspended tasks:\n", stderr);
    fputs("set $old_sp = $" SP "\nset $old_pc = $" PC "\n", f);
    for (size_t i = 0; i < count && i < SHOWN_TASKS; i++) {
        /* a task that runs is on its thread's stack; one without a coroutine has not begun */
        fprintf(f,
                "set $t = (struct heist_future *)%p\n"
                "if $t->coro == 0\necho \\ntask %p has not begun\\n\nend\n"
                "if $t->coro != 0 && $t->running != 0\necho \\ntask %p is running\\n\nend\n"
                "if $t->coro != 0 && $t->running == 0\necho \\ntask %p:\\n\n"
                "set $" SP " = (unsigned long)$t->coro->sp\nset $" PC " = (unsigned long)&heist__ctx_resume\n"
                "backtrace %d\nset $" SP " = $old_sp\nset $" PC " = $old_pc\nend\n",
                (void *)tasks[i], (void *)tasks[i], (void *)tasks[i], (void *)tasks[i], DEEPEST);
    }
    if (count > SHOWN_TASKS) fprintf(f, "echo \\nand %zu more\\n\n", count - SHOWN_TASKS);
    if (!end_script(f)) fputs("  gdb is missing or may not attach\n", stderr);
}
