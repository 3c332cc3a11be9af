/* Starts a program in a child process. */
#ifndef HEIST_NET_EXEC_H
#define HEIST_NET_EXEC_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define HEIST__EXEC_AS_IT_IS (-1)
#define HEIST__EXEC_AS_STDOUT (-2)

/* All borrowed for the call. */
struct heist__exec {
    char *const *argv;
    char *const *env;
    const char *cwd;   /* NULL: as it is */
    int fds[3];        /* what becomes 0, 1, 2, or one of the above */
    const int *pass;   /* open, 3 and above */
    size_t pass_count;
    bool group, session, keep_fds;
};

/* 0, and the program runs: *pid, *pidfd; or why not, and there is no child any more.  Blocks until exec. */
int heist__exec(const struct heist__exec *e, pid_t *pid, int *pidfd);

#endif
