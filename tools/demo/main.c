/* heist-demo: the main job of the library on real sockets and real threads.
 *
 *   heist-demo run    plays the four parts, checks their laws, prints a report
 *   heist-demo serve  leaves the echo server running until SIGINT or SIGTERM
 *
 * Exit status 0 only when every law held; 1 when one was broken; 2 when the run could
 * not begin.  This file reads the command line, makes the runtime that the parts share,
 * and checks at the end that closing it gave back every thread and descriptor. */
#include "options.h"
#include "parts.h"
#include "report.h"
#include "table.h"

#include <dirent.h>
#include <getopt.h>
#include <heist.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define WORKER_DESCRIPTORS 8 /* each has a poller, a wake-up descriptor and a listener; the rest is room */
#define SPARE_DESCRIPTORS 64 /* the standard three, the load's epolls, the loops of the scene */
#define CLOSE_SECONDS 10.0

static const char usage[] =
    "usage: heist-demo [run] [--seconds S] [--workers N] [--connections N] [--plain]\n"
    "       heist-demo serve [--port N] [--address A] [--workers N] [--plain]\n"
    "\n"
    "  --seconds S      how long the echo goes on at least (8)\n"
    "  --workers N      worker threads (one for each available processor)\n"
    "  --connections N  connections of the echo (1000)\n"
    "  --port N         port to serve on (7777); 0 lets the system choose\n"
    "  --address A      address to serve on (127.0.0.1)\n"
    "  --plain          lines instead of the live table\n";

/* ---- the command line ---- */

static int number(const char *text, double least, double most, double *out) {
    char *rest = NULL;
    double value = strtod(text, &rest);
    if (rest == text || *rest != '\0' || !(value >= least && value <= most)) return -EINVAL;
    *out = value;
    return 0;
}

static int whole(const char *text, int least, int most, int *out) {
    double value = 0;
    int err = number(text, least, most, &value);
    if (err == 0 && value != (double)(int)value) err = -EINVAL;
    if (err == 0) *out = (int)value;
    return err;
}

static int read_options(int argc, char **argv, struct demo_options *o) {
    static const struct option names[] = {
        {"seconds", required_argument, NULL, 's'}, {"workers", required_argument, NULL, 'w'},
        {"connections", required_argument, NULL, 'c'}, {"port", required_argument, NULL, 'p'},
        {"address", required_argument, NULL, 'a'}, {"plain", no_argument, NULL, 'l'}, {NULL, 0, NULL, 0},
    };
    int found, err = 0;
    while (err == 0 && (found = getopt_long(argc, argv, "", names, NULL)) != -1) {
        switch (found) {
        case 's': err = number(optarg, 0.1, 86400, &o->seconds); break;
        case 'w': err = whole(optarg, 1, 1024, &o->workers); break;
        case 'c': err = whole(optarg, 1, 100000, &o->connections); break;
        case 'p': err = whole(optarg, 0, 65535, &o->port); break;
        case 'a': o->address = optarg; break;
        case 'l': o->plain = 1; break;
        default: return -EINVAL; /* getopt_long has said why */
        }
        if (err < 0) fprintf(stderr, "heist-demo: '%s' is not a value that this option takes\n", optarg);
    }
    if (err == 0 && optind < argc) {
        fprintf(stderr, "heist-demo: unexpected '%s'\n", argv[optind]);
        err = -EINVAL;
    }
    return err;
}

/* ---- what the process has ---- */

/* Raises the limit on descriptors to `wanted`, as far as needed; one clear line when it can't. */
static int allow_descriptors(rlim_t wanted) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0) return -errno;
    if (limit.rlim_cur >= wanted) return 0;
    if (limit.rlim_max != RLIM_INFINITY && limit.rlim_max < wanted) {
        fprintf(stderr, "heist-demo: this needs %llu descriptors, and the hard limit is %llu; "
                        "raise it (ulimit -Hn) or ask for fewer --connections\n",
                (unsigned long long)wanted, (unsigned long long)limit.rlim_max);
        return -EMFILE;
    }
    limit.rlim_cur = wanted;
    return setrlimit(RLIMIT_NOFILE, &limit) < 0 ? -errno : 0;
}

static int entries(const char *folder) {
    DIR *d = opendir(folder);
    int n = 0;
    if (!d) return -1;
    while (readdir(d)) n++;
    closedir(d);
    return n;
}

struct possessions {
    int threads, descriptors;
};

static void *nothing(void *arg) { return arg; }

/* The first thread of a process may bring along one of the C library or of a sanitizer, which stays: such a
 * one is there before the first count too. */
static struct possessions count_possessions(void) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, nothing, NULL) == 0) pthread_join(thread, NULL);
    return (struct possessions){entries("/proc/self/task"), entries("/proc/self/fd")};
}

/* ---- the run ---- */

static int runtime_start(const struct demo_options *o, heist_runtime **rt) {
    heist_runtime_options options = HEIST_RUNTIME_OPTIONS_INIT;
    options.workers = o->workers;
    options.name = "demo";
    options.flags = HEIST_RUNTIME_OVERFLOW_HANDLER;
    int err = heist_runtime_new(&options, rt);
    if (err == 0 && (err = table_start(*rt, o->plain)) < 0) {
        heist_runtime_close(*rt, HEIST_FOREVER);
        heist_runtime_unref(*rt);
    }
    if (err < 0) fprintf(stderr, "heist-demo: no runtime: %s\n", heist_strerror(err));
    return err;
}

/* A worker counts an end just after it told those who waited for it: the last ends get a moment. */
static size_t tasks_left(heist_runtime *rt) {
    size_t left = heist_runtime_task_count(rt);
    for (double until = heist_time() + 2; left > 0 && heist_time() < until; left = heist_runtime_task_count(rt))
        heist_sleep(0.001);
    return left;
}

static void runtime_end(heist_runtime *rt, struct possessions before) {
    table_stop();
    size_t left = tasks_left(rt);
    int err = heist_runtime_close(rt, CLOSE_SECONDS);
    heist_runtime_unref(rt);
    struct possessions after = count_possessions();
    report_part("the end");
    report_law(left == 0, "no task was left over (%zu)", left);
    report_law(err == 0, "the runtime closed within %.0f s (%s)", CLOSE_SECONDS, heist_error_name(err));
    report_law(after.threads == before.threads && after.descriptors == before.descriptors,
               "threads and descriptors are as they were (%+d, %+d)", after.threads - before.threads,
               after.descriptors - before.descriptors);
}

static int run(const struct demo_options *o) {
    heist_runtime *rt = NULL;
    rlim_t workers = (rlim_t)(o->workers ? o->workers : sysconf(_SC_NPROCESSORS_ONLN));
    rlim_t descriptors = (rlim_t)o->connections * 2 + workers * WORKER_DESCRIPTORS + SPARE_DESCRIPTORS;
    if (allow_descriptors(descriptors) < 0) return 2;
    struct possessions before = count_possessions();
    if (runtime_start(o, &rt) < 0) return 2;
    table_say("heist %s, %d workers", heist_version(), heist_runtime_workers(rt));
    scene_run(rt);
    echo_run(rt, o);
    doors_run(rt);
    runtime_end(rt, before);
    return report_print() > 0;
}

static int serve(const struct demo_options *o) {
    heist_runtime *rt = NULL;
    sigset_t ends;
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) { /* as many peers as this process may ever have */
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
    sigemptyset(&ends);
    sigaddset(&ends, SIGINT);
    sigaddset(&ends, SIGTERM);
    sigprocmask(SIG_BLOCK, &ends, NULL); /* before the first thread: all of them inherit it */
    struct possessions before = count_possessions();
    if (runtime_start(o, &rt) < 0) return 2;
    int err = serve_run(rt, o);
    if (err < 0) fprintf(stderr, "heist-demo: cannot serve: %s\n", heist_strerror(err));
    runtime_end(rt, before);
    int broken = report_print();
    return err < 0 ? 2 : broken > 0;
}

int main(int argc, char **argv) {
    struct demo_options o = {.seconds = 8, .connections = 1000, .port = 7777, .address = "127.0.0.1"};
    const char *command = argc >= 2 && argv[1][0] != '-' ? argv[1] : NULL;
    if (argc >= 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0)) {
        fputs(usage, stdout);
        return 0;
    }
    if (read_options(command ? argc - 1 : argc, command ? argv + 1 : argv, &o) < 0) {
        fputs(usage, stderr);
        return 2;
    }
    if (!command || strcmp(command, "run") == 0) return run(&o);
    if (strcmp(command, "serve") == 0) return serve(&o);
    fprintf(stderr, "heist-demo: there is no '%s'\n%s", command, usage);
    return 2;
}
