/* Without libFuzzer: runs the programs in files, or draws programs for some seconds.
 *
 *   fuzz_program FILE|FOLDER...          each once, in a child process; status 1 and the name of each that fails
 *   fuzz_program --seconds N [--seed S]  draws and mutates programs; keeps one that fails as crash-S-K here
 *   fuzz_program --one FILE              in this process, saying what it does
 *
 * A failing run leaves the library's threads standing, so each batch has a process of its own. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fuzz/program.h"

#define MAX 512

static size_t read_file(const char *path, uint8_t *data) {
    FILE *f = fopen(path, "rb");
    if (!f) return 0;
    size_t n = fread(data, 1, MAX, f);
    fclose(f);
    return n;
}

/* In a child: the status of the run, 2 for a crash.  Says what failed. */
static int run_apart(const char *name, const uint8_t *data, size_t n) {
    fflush(NULL);
    pid_t child = fork();
    if (child < 0) return 2;
    if (child == 0) {
        char message[512] = "";
        alarm(120);
        int failed = fuzz_run(data, n, message, sizeof(message));
        if (failed) fprintf(stderr, "%s: %s\n", name, message);
        _exit(failed != 0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    if (WIFSIGNALED(status)) {
        fprintf(stderr, "%s: signal %d\n", name, WTERMSIG(status));
        return 2;
    }
    return WEXITSTATUS(status);
}

static int files, bad;

static void replay(const char *path) {
    struct stat st;
    if (stat(path, &st)) {
        perror(path);
        bad++;
        return;
    }
    if (S_ISDIR(st.st_mode)) {
        struct dirent **list;
        int n = scandir(path, &list, NULL, alphasort);
        for (int i = 0; i < n; i++) {
            char name[1024];
            snprintf(name, sizeof(name), "%s/%s", path, list[i]->d_name);
            if (list[i]->d_name[0] != '.') replay(name);
            free(list[i]);
        }
        if (n >= 0) free(list);
        return;
    }
    uint8_t data[MAX];
    size_t n = read_file(path, data);
    files++;
    if (run_apart(path, data, n)) bad++;
}

static uint64_t state;
static unsigned draw(unsigned n) { /* splitmix64, Vigna 2015 */
    uint64_t z = (state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (unsigned)((z ^ (z >> 31)) % n);
}

static size_t compose(uint8_t *data) {
    size_t n = 4 + 2 * (4 + draw(60));
    for (size_t i = 0; i < n; i++) data[i] = (uint8_t)draw(256);
    if (draw(2)) data[3] = 0;
    return n;
}

/* Batches of programs, each batch in a child that ends with the number of the one that failed. */
static int search(double seconds, uint64_t seed) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    double end = (double)now.tv_sec + 1e-9 * (double)now.tv_nsec + seconds;
    unsigned long ran = 0;
    int found = 0;
    for (uint64_t batch = 0;; batch++) {
        clock_gettime(CLOCK_MONOTONIC, &now);
        if ((double)now.tv_sec + 1e-9 * (double)now.tv_nsec >= end) break;
        int pipe_fd[2];
        if (pipe(pipe_fd)) return 2;
        fflush(NULL);
        pid_t child = fork();
        if (child < 0) return 2;
        if (child == 0) {
            close(pipe_fd[0]);
            for (uint8_t k = 0; k < 100; k++) {
                uint8_t data[MAX];
                char message[512] = "";
                state = seed * 1000003 + batch * 101 + k;
                size_t n = compose(data);
                if (write(pipe_fd[1], &k, 1) != 1) _exit(3);
                alarm(120);
                if (fuzz_run(data, n, message, sizeof(message)) > 0) {
                    fprintf(stderr, "fuzz: %s\n", message);
                    _exit(1);
                }
            }
            _exit(0);
        }
        close(pipe_fd[1]);
        uint8_t k = 0, next;
        while (read(pipe_fd[0], &next, 1) == 1) k = next, ran++;
        close(pipe_fd[0]);
        int status = 0;
        waitpid(child, &status, 0);
        if (status == 0) continue;
        uint8_t data[MAX];
        state = seed * 1000003 + batch * 101 + k;
        size_t n = compose(data);
        char name[64];
        snprintf(name, sizeof(name), "crash-%llu-%llu-%u", (unsigned long long)seed, (unsigned long long)batch, k);
        FILE *f = fopen(name, "wb");
        if (f) {
            fwrite(data, 1, n, f);
            fclose(f);
        }
        fprintf(stderr, "fuzz: status %d; kept as %s\n", status, name);
        if (++found == 5) break;
    }
    printf("fuzz: %lu programs, %d failed\n", ran, found);
    return found != 0;
}

int main(int argc, char **argv) {
    double seconds = 0;
    uint64_t seed = 1;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--seconds") && i + 1 < argc) {
            seconds = atof(argv[++i]);
        } else if (!strcmp(argv[i], "--seed") && i + 1 < argc) {
            seed = strtoull(argv[++i], NULL, 0);
        } else if (!strcmp(argv[i], "--one") && i + 1 < argc) {
            uint8_t data[MAX];
            char message[512] = "";
            size_t n = read_file(argv[++i], data);
            fuzz_verbose = true;
            int failed = fuzz_run(data, n, message, sizeof(message));
            printf("%s: %s\n", argv[i], failed ? message : "all laws held");
            return failed != 0;
        } else {
            replay(argv[i]);
        }
    }
    if (seconds > 0) return search(seconds, seed);
    if (!files && !bad) {
        fprintf(stderr, "usage: fuzz_program FILE|FOLDER... | --seconds N [--seed S] | --one FILE\n");
        return 2;
    }
    printf("%d programs, %d failed\n", files, bad);
    return bad != 0;
}
