/* The process exits while its other threads go on with their connections.
 *
 * OpenSSL gives back what it has as the process exits (OPENSSL_cleanup, by atexit), whoever still uses it.  A program may
 * call exit from main all the same; so before OpenSSL does that, each connection is stopped here: who is inside OpenSSL
 * for it is awaited, which is short, and from then on it fails with HEIST_ECLOSED and does not go in again.  What is left
 * of it stays where it is.  The host's OpenSSL is left as it was found: no option of its initialisation is touched.
 *
 * Handlers run in the reverse order of their making, so this one is made right after OpenSSL was initialised.  In a
 * shared library it also runs when that is unloaded, when there are no connections.
 *
 *   list_lock  over `over` and the list; before a connection's lock */
#include <heist/error.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "tls/tls.h"

#define PATIENCE 2000 /* pauses of half a millisecond, for all of them: a callback of the program may be inside for ever */

static pthread_mutex_t list_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct heist__tls *connections;
static bool over;
static pid_t maker; /* a forked child has none of the threads, and perhaps their locks */

static void stop(struct heist__tls *t, int *patience) {
    const struct timespec pause = {0, 500000};
    while (pthread_mutex_trylock(&t->lock)) {
        if (--*patience < 0) return;
        (void)nanosleep(&pause, NULL);
    }
    if (!t->failed) t->failed = HEIST_ECLOSED;
    heist__tls_unlock(&t->lock);
}

static void at_exit(void) {
    int patience = PATIENCE;
    if (getpid() != maker) return;
    heist__tls_lock(&list_lock);
    over = true;
    for (struct heist__tls *t = connections; t; t = t->next) stop(t, &patience);
    if (!connections) heist__tls_bio_end();
    heist__tls_unlock(&list_lock);
}

static void make_handler(void) {
    maker = getpid();
    (void)atexit(at_exit);
}

void heist__tls_mind_exit(void) { (void)pthread_once(&once, make_handler); }

bool heist__tls_enlist(struct heist__tls *t) {
    heist__tls_lock(&list_lock);
    bool good = !over;
    if (good) {
        t->next = connections;
        t->at = &connections;
        if (t->next) t->next->at = &t->next;
        connections = t;
    }
    heist__tls_unlock(&list_lock);
    return good;
}

void heist__tls_delist(struct heist__tls *t) {
    heist__tls_lock(&list_lock);
    if (!over) SSL_free(t->ssl);
    t->ssl = NULL;
    if (t->at) {
        *t->at = t->next;
        if (t->next) t->next->at = t->at;
        t->at = NULL;
    }
    heist__tls_unlock(&list_lock);
}
