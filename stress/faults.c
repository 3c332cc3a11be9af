/* stress/faults.c: the allocator that refuses, and the saboteur.  See faults.h. */
#include "faults.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#define NO_ROOM ((size_t)1 << 48) /* bytes of a thread's stack that no machine of ours can map */

static _Atomic(unsigned) shortages; /* of this round */
static struct stress_rng saboteur_rng;
static pthread_t saboteur;
static bool running;
static _Atomic(uint64_t) seed;
static rlim_t normal_fds;
static pthread_attr_t normal_thread;
static _Atomic(bool) stop;
static _Atomic(unsigned) refuse_per_mille;
static _Atomic(uint64_t) requests, refused;
static _Atomic(int64_t) live;

/* ---- memory ---- */

static bool refuse(void) {
    unsigned rate = s_get(&refuse_per_mille);
    if (!rate || stress_mix(s_get(&seed), s_add(&requests, 1)) % 1000 >= rate) return false;
    s_add(&refused, 1);
    return true;
}

static void *faulty_malloc(size_t bytes, void *user) {
    (void)user;
    void *block = refuse() ? NULL : malloc(bytes);
    if (block) s_add(&live, 1);
    return block;
}

static void *faulty_realloc(void *block, size_t bytes, void *user) {
    (void)user;
    return refuse() ? NULL : realloc(block, bytes);
}

static void counting_free(void *block, void *user) {
    (void)user;
    s_add(&live, -1);
    free(block);
}

int64_t stress_blocks_live(void) { return s_get(&live); }

uint64_t stress_blocks_refused(void) { return s_get(&refused); }

/* ---- descriptors and threads ---- */

static void limit_fds(rlim_t most) {
    struct rlimit now;
    getrlimit(RLIMIT_NOFILE, &now);
    now.rlim_cur = most < now.rlim_max ? most : now.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &now)) stress_die("setrlimit: %s", strerror(errno));
}

static void no_threads(bool none) {
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, NO_ROOM);
    int err = pthread_setattr_default_np(none ? &attr : &normal_thread);
    if (err) stress_die("the default stack of threads: %s", strerror(err));
    pthread_attr_destroy(&attr);
}

/* The lowest number that is free. */
static rlim_t next_fd(void) {
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (fd >= 0) close(fd);
    return fd < 0 ? normal_fds : (rlim_t)fd;
}

/* ---- the saboteur ---- */

static void plenty(void) {
    unsigned kinds = s_get(&shortages);
    s_set(&refuse_per_mille, 0);
    if (kinds & SHORT_OF_THREADS) no_threads(false);
    if (kinds & SHORT_OF_FDS) limit_fds(normal_fds);
}

static void *saboteur_main(void *unused) {
    (void)unused;
    struct stress_rng rng = saboteur_rng;
    unsigned kinds = s_get(&shortages);
    static const unsigned rates[] = {1, 2, 5, 30, 200};
    while (!s_get(&stop)) {
        rlim_t fd = next_fd();
        if ((kinds & SHORT_OF_MEMORY) && stress_chance(&rng, 60))
            s_set(&refuse_per_mille, rates[stress_below(&rng, 5)]);
        if ((kinds & SHORT_OF_THREADS) && stress_chance(&rng, 60)) no_threads(true);
        if ((kinds & SHORT_OF_FDS) && stress_chance(&rng, 60)) limit_fds(fd + stress_below(&rng, 12));
        stress_pause(&rng, 0.003);
        plenty();
        stress_pause(&rng, 0.003);
    }
    return NULL;
}

void stress_faults_begin(void) {
    heist_allocator a = HEIST_ALLOCATOR_INIT;
    a.malloc = faulty_malloc;
    a.realloc = faulty_realloc;
    a.free = counting_free;
    int err = heist_set_allocator(&a);
    struct rlimit fds;
    getrlimit(RLIMIT_NOFILE, &fds);
    normal_fds = fds.rlim_cur;
    if (err < 0 || pthread_getattr_default_np(&normal_thread)) {
        fprintf(stderr, "no allocator of our own: %s\n", heist_strerror(err));
        exit(2);
    }
}

void stress_faults_start(struct stress_rng *rng, unsigned kinds) {
    s_set(&shortages, kinds);
    s_set(&seed, stress_next(rng));
    saboteur_rng = stress_stream(rng, 0);
    s_set(&stop, false);
    running = kinds != 0;
    if (running) stress_thread(&saboteur, saboteur_main, NULL);
}

void stress_faults_stop(void) {
    s_set(&stop, true);
    if (running) stress_join(saboteur);
    running = false;
}

void stress_faults_forget(void) { s_set(&shortages, 0); }

bool stress_short_of(int code) {
    unsigned kinds = s_get(&shortages);
    return (code == -ENOMEM && (kinds & SHORT_OF_MEMORY)) || (code == -EMFILE && (kinds & SHORT_OF_FDS)) ||
           (code == -EAGAIN && (kinds & SHORT_OF_THREADS));
}

const char *stress_shortages(void) {
    static const char *const text[] = {"nothing is short",
                                       "memory is short",
                                       "descriptors are short",
                                       "memory and descriptors are short",
                                       "threads are short",
                                       "memory and threads are short",
                                       "descriptors and threads are short",
                                       "memory, descriptors and threads are short"};
    return text[s_get(&shortages) & 7];
}
