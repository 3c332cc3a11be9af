/* heist-ps: what a process is doing that lets itself be asked (heist_inspect_serve, or HEIST_INSPECT=1).
 *
 * Connects to the process's socket, asks, and writes the answer.  The answer has addresses of code in it, as {0x…};
 * where libdw is there (names.c) they become function, file and line from the debug information of the process's files.
 */
#include "names.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

static const char usage[] =
    "heist-ps [--tree | --json | --all] [--addresses] PID\n"
    "\n"
    "  Which tasks there are in a process, where each stands, and who waits for it: a line for each task and each "
    "that\n"
    "  awaits it, with tabs between thread, task id, name, stack, and the awaiter's stack, name and id.\n"
    "\n"
    "  --tree       which task awaits which; cycles are named, and end the program with 3\n"
    "  --json       all of it for programs (with cycles: 3, too)\n"
    "  --all        runtimes, workers with their counters, tasks with their stacks\n"
    "  --addresses  stacks as the process itself can name them, without its debug information\n"
    "\n"
    "  The process must have called heist_inspect_serve, or run with HEIST_INSPECT=1, as the same user.\n"
    "  Ends with 0; 1 when the process does not answer; 2 when it was called wrongly; 3.\n";

static int connect_to(int pid) {
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    int n = snprintf(name.sun_path + 1, sizeof(name.sun_path) - 1, "heist-%d", pid);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    struct timeval patience = {30, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    if (connect(fd, (struct sockaddr *)&name, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n)) <
        0) {
        int err = -errno;
        close(fd);
        return err;
    }
    /* The name of a socket is not the process: another could have taken it. */
    struct ucred who;
    socklen_t size = sizeof(who);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &size) < 0 || who.pid != pid) {
        close(fd);
        return -EPERM;
    }
    return fd;
}

/* The whole answer, ended by a zero, or NULL with the reason in *err. */
static char *ask(int fd, const char *question, size_t *length, int *err) {
    char *text = NULL;
    size_t room = 0;
    *length = 0;
    *err = 0;
    if (send(fd, question, strlen(question), MSG_NOSIGNAL) != (ssize_t)strlen(question)) *err = -errno;
    while (!*err) {
        if (room - *length < 4096) {
            char *more = realloc(text, room = room ? room * 2 : 65536);
            if (!more) {
                *err = -ENOMEM;
                break;
            }
            text = more;
        }
        ssize_t n = recv(fd, text + *length, room - *length - 1, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) *err = -errno;
        if (n <= 0) break;
        *length += (size_t)n;
    }
    if (*err || !text) {
        free(text);
        return NULL;
    }
    text[*length] = 0;
    return text;
}

/* {0x…} becomes a name; in JSON, which is made of strings here, one that is quoted well. */
static void write_named(const char *text, struct names *names, bool json) {
    for (const char *at; (at = strstr(text, "{0x"));) {
        char *end;
        unsigned long address = strtoul(at + 1, &end, 16);
        if (*end != '}') {
            fwrite(text, 1, (size_t)(at + 3 - text), stdout);
            text = at + 3;
            continue;
        }
        fwrite(text, 1, (size_t)(at - text), stdout);
        char name[512];
        names_of(names, address, name, sizeof(name));
        for (const char *c = name; *c; c++) {
            if (json && (*c == '"' || *c == '\\')) putchar('\\');
            putchar(*c);
        }
        text = end + 1;
    }
    fputs(text, stdout);
}

int main(int argc, char **argv) {
    const char *format = "table";
    bool addresses = false;
    int pid = 0;
    for (int i = 1; i < argc; i++) {
        char *end;
        if (!strcmp(argv[i], "--tree") || !strcmp(argv[i], "--json") || !strcmp(argv[i], "--all")) {
            format = argv[i] + 2;
        } else if (!strcmp(argv[i], "--addresses")) {
            addresses = true;
        } else if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
            fputs(usage, stdout);
            return 0;
        } else if (!pid && (pid = (int)strtol(argv[i], &end, 10)) > 0 && !*end) {
            continue;
        } else {
            pid = 0;
            break;
        }
    }
    if (pid <= 0) {
        fputs(usage, stderr);
        return 2;
    }
    int fd = connect_to(pid), err = fd < 0 ? fd : 0;
    char question[32], *text = NULL;
    size_t length = 0;
    struct names *names = addresses ? NULL : names_open(pid);
    snprintf(question, sizeof(question), "%s%s\n", names ? "raw " : "", format);
    if (!err) text = ask(fd, question, &length, &err);
    if (fd >= 0) close(fd);
    int code = 0, head = 0;
    if (!err && (!text || sscanf(text, "heist 1 %d%n", &code, &head) != 1 || text[head] != '\n')) {
        fprintf(stderr, "heist-ps: %d gave no answer: is it another user's?\n", pid);
        err = -EPROTO;
    } else if (err) {
        fprintf(stderr, "heist-ps: %d: %s%s\n", pid, strerror(-err),
                err == -ECONNREFUSED ? " (it has not called heist_inspect_serve, nor runs with HEIST_INSPECT=1)" : "");
    } else if (code < 0) {
        fprintf(stderr, "heist-ps: %d: %s\n", pid, strerror(-code));
    } else {
        write_named(text + head + 1, names, !strcmp(format, "json"));
    }
    free(text);
    names_close(names);
    if (fflush(stdout)) err = -EIO;
    return err || code < 0 ? 1 : code ? 3 : 0;
}
