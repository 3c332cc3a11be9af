/* The page that tells a child.  See fork.h. */
#include "base/fork.h"

#include <errno.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

/* Not through base/alloc.h: it lives as long as the process, and belongs to no runtime. */
static unsigned char pid_only[1] = {2};
static pid_t parent;
static unsigned char *wiped; /* the page, when the kernel wipes it */
static pthread_once_t once = PTHREAD_ONCE_INIT;
_Atomic(const volatile unsigned char *) heist__fork_page;

static void make(void) {
    parent = getpid();
    unsigned char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page != MAP_FAILED && madvise(page, 4096, MADV_WIPEONFORK) == 0) {
        *page = 1;
        wiped = page;
        heist__fork_page = page;
        return;
    }
    if (page != MAP_FAILED) munmap(page, 4096);
    heist__fork_page = pid_only; /* 2: compare the number each time */
}

int heist__fork_guard(void) { return -pthread_once(&once, make); }

void heist__forked_end(void) {
    static const char text[] = "heist: a body or callback returned in a forked child; the child ends\n";
    ssize_t n = write(STDERR_FILENO, text, sizeof(text) - 1);
    _exit(n < 0 ? 2 : 1);
}

bool heist__forked_slow(void) { return *heist__fork_page == 0 || getpid() != parent; }

#ifdef HEIST_SEEDED
void heist__fork_adopt(void) {
    parent = getpid();
    if (wiped) *wiped = 1;
}
#endif
