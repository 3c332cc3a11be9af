/* What the files of libheist-tls share.
 *
 * This library stands on the public headers of heist and on OpenSSL, and on nothing else: it is linked with the shared
 * library, which exports no more.  So its short locks are pthread mutexes, never held across a suspension, and its
 * memory is OpenSSL's.
 *
 * A connection (struct heist__tls) is the `self` of a heist_stream.  Its parts and who may touch them:
 *
 *   lock      short.  Guards the SSL object, which is not thread-safe, the two buffers that its BIO reads and writes,
 * and the flags.  OpenSSL runs under it; no system call of ours does. send      held over "take what is in `out` and
 * give it to the stream below", so that records go down in the order in which they were made, whoever carries them.
 * Giving never suspends.  Before `lock`. filling   a flag: somebody reads from below into `in`, which suspends. Another
 * who wants the same stands by, at an event that the first one sets when he is done.
 *
 * One task reads and one writes at the same time.  Either may find that SSL wants bytes from below (a writer does in
 * the middle of a post-handshake message).  Both go to heist__tls_fill, where one reads; who comes second finds `fills`
 * changed when the first has something, and asks SSL again, or takes over when the first one gave up.  The event cannot
 * be missed: it is cleared under `lock` while `filling` is set, and set under `lock` after that was cleared.
 *
 *   `in` while somebody fills: SSL said "want read", so it had drained `in`, and only who fills adds to it.
 *   Hence in.start == in.end until the filler publishes its bytes under `lock`, the BIO meanwhile looks at no byte, and
 *   the filler may read straight into in.data without `lock`.
 *
 * interrupt (heist_stream_ops) works through the deadline of the stream below: under `lock` it leaves a note and moves
 * that deadline into the past; who is about to wait looks for the note and sets his own deadline under `lock` too, so
 * one of the two sees the other.  A time-out below is then told apart by the deadline: where it is not what the one who
 * waited has set, it was moved; where it is, and has not come yet, the connection itself has timed out, for good.
 *
 * Lifetime: the stream above says when nobody is inside any more, and calls free. */
#ifndef HEIST_TLS_TLS_H
#define HEIST_TLS_TLS_H

#include <heist/event.h>
#include <heist/tls.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdbool.h>

#if defined(OPENSSL_VERSION_NUMBER) && OPENSSL_VERSION_NUMBER < 0x30000000L
#error "libheist-tls needs OpenSSL 3"
#endif

/* ---- errors (error.c) ---- */

/* To be called first of all, and heist__tls_failed right after the call of OpenSSL that failed, on the same thread:
 * OpenSSL's queue of errors belongs to the thread. */
void heist__tls_clear(void);
/* Makes a code of what the queue holds, empties it, and writes words (size bytes at most). */
int heist__tls_failed(char *words, size_t size);
/* The last thing in a public call: keeps the words for heist_tls_reason and heist_fail; returns the code. */
int heist__tls_report(int code, const char *words);

/* ---- contexts ---- */

#define HEIST__TLS_SESSIONS 256 /* that a client context keeps */
#define HEIST__TLS_SESSIONS_OF_ONE 4

struct heist__tls_session {
    char *peer; /* the name that was verified, and the port or what else tells peers apart */
    SSL_SESSION *session;
};

struct heist__tls_name {
    char *name; /* lower case */
    heist_tls_context *context;
};

struct heist_tls_context {
    SSL_CTX *ssl;
    bool server;
    bool check_name; /* client */
    unsigned flags;
    int verify;           /* SSL_VERIFY_… */
    unsigned char id[16]; /* sessions of one context are not taken up in another */
    unsigned char *alpn;  /* in wire form; NULL: none */
    unsigned alpn_length;
    int keylog; /* descriptor, or -1 */
    heist_tls_sni_fn sni;
    void *sni_user;

    pthread_mutex_t lock; /* what follows */
    unsigned refs;
    struct heist__tls_name *names;
    size_t name_count, name_room;
    struct heist__tls_session *sessions; /* the oldest first */
    size_t session_count;
};

/* names.c: which context serves, and which protocol. */
int heist__tls_hello(SSL *ssl, int *alert, void *context); /* SSL_client_hello_cb_fn */
int heist__tls_server_name(SSL *ssl, int *alert, void *context);
int heist__tls_choose_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_length, const unsigned char *in,
                           unsigned in_length, void *context);
int heist__tls_parse_alpn(const char *text, unsigned char **out, unsigned *length); /* 0, -EINVAL, -ENOMEM */
void heist__tls_forget_names(heist_tls_context *ctx);

/* session.c: what a client keeps. */
int heist__tls_new_session(SSL *ssl, SSL_SESSION *session); /* a callback of OpenSSL: 0, it takes no reference */
void heist__tls_offer_session(heist_tls_context *ctx, SSL *ssl, const char *peer);

/* ---- connections ---- */

struct heist__tls_buffer {
    unsigned char *data;
    size_t start, end, room;
};
void heist__tls_buffer_end(struct heist__tls_buffer *b);
bool heist__tls_buffer_reserve(struct heist__tls_buffer *b, size_t bytes); /* room for so many more */

struct heist__tls {
    struct heist__tls *next, **at; /* of all, see exit.c */
    pthread_mutex_t lock;
    SSL *ssl;
    heist_tls_context *ctx;
    heist_tls_context *chosen;        /* a server's, for the name that was asked for */
    struct heist__tls_buffer in, out; /* what came from below; what is to go there */
    size_t wanted;                    /* how large `in` is to be at the next filling */
    unsigned fills;                   /* times that `in` got something */
    bool end_below;                   /* nothing will come from below any more */
    bool goodbye_sent, goodbye_seen;
    bool orderly; /* all was said: the stream below may close as it likes; else it is cut off */
    bool closed;
    bool no_memory;      /* the BIO had none */
    bool interrupted[2]; /* a note for who reads (0) and who writes (1) */
    bool filling;        /* somebody reads from below into `in` */
    bool stands_by;      /* and another waits for him, at `filled` */
    bool draining;       /* somebody waits for the stream below to drain */
    int failed;          /* the connection is broken for good: the code */
    int lost;            /* the stream below has not taken a record, so no later one is of use: the code */
    char words[256];     /* on it */

    pthread_mutex_t send;
    struct heist__tls_buffer going; /* guarded by send */

    heist_event filled;
    heist_stream *below;
    double until[2];  /* its deadlines, as they were set last: for reading, for writing */
    double finish_by; /* 0, or when the wait for the peer's goodbye ends */
    char *peer;       /* key of the session cache; a client's */
    double shutdown_timeout;
};

/* bio.c */
BIO *heist__tls_bio(struct heist__tls *t); /* NULL: no memory */
void heist__tls_bio_end(void);             /* there are none, and will be none */

/* exit.c */
void heist__tls_mind_exit(void);              /* OpenSSL is initialised */
bool heist__tls_enlist(struct heist__tls *t); /* before it uses its SSL object; false: the process exits */
void heist__tls_delist(struct heist__tls *t); /* frees its SSL object, if that may still be done */

/* connection.c */
int heist__tls_new(heist_stream *below, heist_tls_context *ctx, struct heist__tls **out);
/* Lets go of everything but the stream below and the reference to it, which stay the caller's. */
void heist__tls_end(struct heist__tls *t);

/* What a call of SSL that returned `ret` means: 1 it did it; 0 the peer said goodbye; HEIST__TLS_WANT_READ; or
 * a code, which is kept in `failed`.  With lock held, right behind the call. */
#define HEIST__TLS_WANT_READ (-0x7fff0000) /* no code of ours or of the system */
int heist__tls_outcome(struct heist__tls *t, int ret);
/* Gives what is in `out` to the stream below.  Never suspends.  0, or that one's code. */
int heist__tls_flush(struct heist__tls *t);
/* Waits until `in` has more than when `fills` was read, or the end came: 0, or a code.  side: who asks, 0 or 1. */
int heist__tls_fill(struct heist__tls *t, unsigned fills, int side, double deadline);
/* Waits until the stream below has not too much to send (or nothing at all).  0 or a code. */
int heist__tls_drain(struct heist__tls *t, double deadline);
void heist__tls_interrupt(void *self, int writer);
/* The code of a connection that is broken, with its words recorded. */
int heist__tls_broken(struct heist__tls *t, int code);

/* goodbye.c */
int heist__tls_try_write_eof(void *self);
int heist__tls_write_eof(void *self, double deadline);
int heist__tls_finish(void *self, double deadline);

/* stream.c */
extern const heist_stream_ops heist__tls_ops;

/* info.c */
int heist__tls_info(void *self, int key, void *out, size_t size);

static inline void heist__tls_lock(pthread_mutex_t *m) { (void)pthread_mutex_lock(m); }
static inline void heist__tls_unlock(pthread_mutex_t *m) { (void)pthread_mutex_unlock(m); }

#endif
