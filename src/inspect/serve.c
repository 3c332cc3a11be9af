/* Answers those who ask from outside: a socket, and a thread that waits on it.
 *
 * A plain thread and no task, so that it answers when every worker is held; its system calls are plain ones, for it has
 * no part in a simulation.  The socket is an abstract Unix one: no file is left behind, whatever happens to the
 * process. Anybody may connect to such a one; the kernel tells whose process it is, and others get nothing.
 *
 * One question on each connection, a line: [raw ]all|table|tree|json.  The answer: `heist 1 <what heist_dump
 * returned>`, a newline, the text, the end.  Who does not ask or read in time is left alone.
 *
 * States, under the mutex: nobody serves, or one thread does; stop writes the event that ends it and joins. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fork.h"
#include "base/log.h"
#include "inspect/inspect.h"
#include "sched/sched.h"

#define PATIENCE_S 5

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static bool serving;
static pthread_t server;
static int listener = -1, stopper = -1;

static bool may_ask(int fd) {
    struct ucred who;
    socklen_t n = sizeof(who);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &n) < 0) return false;
    return who.uid == 0 || who.uid == geteuid();
}

static bool send_all(int fd, const char *text, size_t n) {
    while (n) {
        ssize_t sent = send(fd, text, n, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent <= 0) return false;
        text += sent;
        n -= (size_t)sent;
    }
    return true;
}

static void answer(int fd) {
    char question[32] = "";
    size_t got = 0;
    struct timeval patience = {PATIENCE_S, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    while (got < sizeof(question) - 1 && !strchr(question, '\n')) {
        ssize_t n = recv(fd, question + got, sizeof(question) - 1 - got, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return;
        got += (size_t)n;
        question[got] = 0;
    }
    question[strcspn(question, "\n")] = 0;
    bool raw = !strncmp(question, "raw ", 4);
    const char *word = question + (raw ? 4 : 0);
    static const char *const words[] = {"all", "table", "tree", "json"};
    unsigned format = 0;
    while (format < HEIST_ARRAY_LEN(words) && strcmp(word, words[format]) != 0) format++;
    char *text = NULL;
    size_t length = 0;
    FILE *to = open_memstream(&text, &length);
    int code = !to ? -ENOMEM : heist__dump(format, raw, to);
    if (to && fclose(to) != 0 && code >= 0) code = -ENOMEM;
    char head[64];
    snprintf(head, sizeof(head), "heist 1 %d\n", code);
    if (send_all(fd, head, strlen(head)) && code >= 0) send_all(fd, text, length);
    free(text);
}

static void *serve(void *unused) {
    (void)unused;
    struct pollfd fds[2] = {{listener, POLLIN, 0}, {stopper, POLLIN, 0}};
    for (;;) {
        if (poll(fds, 2, -1) < 0 && errno != EINTR) break;
        if (fds[1].revents) break;
        if (!fds[0].revents) continue;
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0) { /* no descriptor: later, perhaps */
            poll(&fds[1], 1, 100);
            continue;
        }
        if (may_ask(fd)) answer(fd);
        close(fd);
    }
    return NULL;
}

static int listen_here(int *out) {
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    int n = snprintf(name.sun_path + 1, sizeof(name.sun_path) - 1, "heist-%d", (int)getpid());
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    if (bind(fd, (struct sockaddr *)&name, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n)) < 0 ||
        listen(fd, 8) < 0) {
        int err = -errno;
        close(fd);
        return err;
    }
    *out = fd;
    return 0;
}

static void close_both(void) {
    if (listener >= 0) close(listener);
    if (stopper >= 0) close(stopper);
    listener = stopper = -1;
}

static int start(void) {
    int err = listen_here(&listener);
    if (err) return err;
    stopper = eventfd(0, EFD_CLOEXEC);
    if (stopper < 0) {
        err = -errno;
        close_both();
        return err;
    }
    sigset_t all, before; /* signals are for the program's own threads */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    err = -pthread_create(&server, NULL, serve, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (err) {
        close_both();
        return err;
    }
    pthread_setname_np(server, "heist-inspect");
    serving = true;
    return 0;
}

int heist_inspect_serve(void) {
    if (heist__fork_guard()) return -ENOMEM;
    if (heist__forked()) return HEIST_EFORKED;
    pthread_mutex_lock(&mutex);
    int err = serving ? -EALREADY : start();
    pthread_mutex_unlock(&mutex);
    return err;
}

int heist_inspect_stop(void) {
    if (heist__self()->worker) return -EDEADLK; /* the thread may have to wait for this worker */
    if (heist__forked()) return HEIST_EFORKED;
    pthread_mutex_lock(&mutex);
    int err = serving ? 0 : -EALREADY;
    if (!err) {
        eventfd_write(stopper, 1);
        pthread_join(server, NULL);
        close_both();
        serving = false;
    }
    pthread_mutex_unlock(&mutex);
    return err;
}

static void look_once(void) {
    const char *value = secure_getenv("HEIST_INSPECT");
    if (!value || !*value || !strcmp(value, "0")) return;
    int err = heist_inspect_serve();
    if (err && err != -EALREADY) heist__log(HEIST__LOG_ERROR, "HEIST_INSPECT: %s", heist_strerror(err));
}

void heist__inspect_from_environment(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, look_once);
}
