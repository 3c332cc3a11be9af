/* heist/tls.h: TLS over any stream, in the library libheist-tls (OpenSSL 3).
 *
 *     heist_tls_context *ctx;
 *     heist_stream *s;
 *     int err = heist_tls_context_new_client(NULL, &ctx);              // the system's certificate authorities
 *     if (!err) err = heist_open_tls_connection("example.org", "443", ctx, NULL, NULL, &s);
 *
 * What comes out is a stream like any other (heist/stream.h).  One task may read it while another writes it.
 *
 * Safe by default.  A client verifies the chain of the server's certificate, and that it is made out to the
 * name (or the address) it wanted; nothing below TLS 1.2 is spoken; compression and renegotiation are off.
 *
 * The end.  The close of a TLS stream says goodbye (close_notify) and waits for the peer's, up to shutdown_timeout.
 * A stream that ends without the peer's goodbye was cut off, by whomever: reading it gives HEIST_ETRUNCATED, not 0.
 * heist_stream_write_eof says goodbye and leaves reading open.
 *
 * Stacks.  Measured with OpenSSL 3.0 on x86-64, a handshake needs up to 13 KiB of a stack, a write 9 KiB, a read 7 KiB,
 * the making of a context 6 KiB.  Reading and writing run on their caller's stack.  A handshake runs code that the
 * program chooses (callbacks, providers), so it has a task of its own with stack_bytes (below), many times what it
 * needs; the caller waits for that task, and cancelling the caller cancels it.
 *
 * Memory comes from OpenSSL's allocator, malloc unless CRYPTO_set_mem_functions was called.
 *
 * Errors of OpenSSL are HEIST_ETLS, those of verification HEIST_ETLSVERIFY; in a task heist_fail has recorded the
 * reason in words, and heist_tls_reason has it too. */
#ifndef HEIST_TLS_H
#define HEIST_TLS_H

#include <heist/base.h>
#include <heist/server.h>
#include <heist/stream.h>

/* What libheist-tls exports. */
#define HEIST_TLS_API HEIST_API

HEIST_BEGIN_DECLS

/* ---- contexts: what many connections share ---- */

/* Reference counted, thread-safe, of no loop.  Nothing of one changes once connections use it, but its table of names.
 */
typedef struct heist_tls_context heist_tls_context;

#define HEIST_TLS_1_2 0x0303
#define HEIST_TLS_1_3 0x0304

/* Whether the peer must show a certificate that can be verified.  0 (the default): a client requires it, a server does
 * not ask.  OPTIONAL, on a server: asks, takes none, refuses a bad one. */
#define HEIST_TLS_VERIFY_NONE 1
#define HEIST_TLS_VERIFY_OPTIONAL 2
#define HEIST_TLS_VERIFY_REQUIRED 3

#define HEIST_TLS_NO_HOSTNAME_CHECK 0x1u /* client: the chain is verified, the name is not */
#define HEIST_TLS_NO_RESUMPTION 0x2u     /* client: keeps no sessions; server: gives no tickets */
#define HEIST_TLS_DEFAULT_CA 0x4u        /* the system's authorities too, beside the ca_… below */

/* Which context serves a client that asks for `name` (NULL: it named none).  Called in the handshake; never suspends.
 * NULL: the context itself.  The one returned must be a server's and stay referenced by its owner as long as ctx lives.
 */
typedef heist_tls_context *(*heist_tls_sni_fn)(heist_tls_context *ctx, const char *name, void *user);

typedef struct heist_tls_options {
    size_t size;
    unsigned flags;               /* HEIST_TLS_… above */
    int verify;                   /* HEIST_TLS_VERIFY_… */
    int min_version, max_version; /* HEIST_TLS_1_2 (the default), HEIST_TLS_1_3; max 0: the highest there is */
    /* Our certificate, followed by those between it and the authority, and its key: PEM files, or PEM texts in memory.
     * A server needs them; a client that shows a certificate too.  Without a key of its own it is looked for in cert.
     */
    const char *cert_file, *key_file;
    const char *cert_pem, *key_pem;
    const char *key_password; /* NULL: none, and nobody is asked */
    /* Whom to trust: a PEM file, a folder of hashed names, PEM text.  None of them: the system's. */
    const char *ca_file, *ca_path, *ca_pem;
    const char *alpn;          /* protocols by preference, separated by commas: "h2,http/1.1" */
    const char *ciphers;       /* TLS 1.2, in OpenSSL's notation */
    const char *cipher_suites; /* TLS 1.3 */
    const char *keylog_file;   /* session secrets are appended, for a protocol analyser.  For debugging only */
    heist_tls_sni_fn sni;      /* server: asked before the table of heist_tls_context_add_name */
    void *sni_user;
} heist_tls_options;
#define HEIST_TLS_OPTIONS_INIT                                                                                         \
    {                                                                                                                  \
        sizeof(heist_tls_options), 0, 0, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, \
            NULL, NULL                                                                                                 \
    }

/* Makes a context.  Reads the files named in opts, so it may block for a moment.
 * Context: any.  Suspends: never.  Ownership: *out is one reference; everything in opts is copied but sni_user.
 * Errors: -EINVAL (also: a server without a certificate), -ENOENT, -EACCES and the like of a file, HEIST_ETLS (not PEM,
 * a key that does not fit, unknown ciphers …), -ENOMEM. */
HEIST_TLS_API int heist_tls_context_new_client(const heist_tls_options *opts, heist_tls_context **out) HEIST_NODISCARD;
HEIST_TLS_API int heist_tls_context_new_server(const heist_tls_options *opts, heist_tls_context **out) HEIST_NODISCARD;
/* Context: any.  Suspends: never.  NULL is allowed. */
HEIST_TLS_API heist_tls_context *heist_tls_context_ref(heist_tls_context *ctx);
HEIST_TLS_API void heist_tls_context_unref(heist_tls_context *ctx);

/* A server of several names: clients that ask for `name` ("shop.example.org", or "*.example.org" for one label more)
 * are served with the certificate, authorities, verify mode and ALPN of `other`.  The last one for a name counts.
 * Context: any, also while connections are served.  Suspends: never.  Ownership: ctx holds a reference to other.
 * Errors: -EINVAL (one is no server's, both are the same, a table in other), -ENOMEM. */
HEIST_TLS_API int heist_tls_context_add_name(heist_tls_context *ctx, const char *name, heist_tls_context *other);

/* Sessions that a client context keeps for its next connections; drop forgets them.  Context: any.  Suspends: never. */
HEIST_TLS_API int heist_tls_context_sessions(heist_tls_context *ctx);
HEIST_TLS_API void heist_tls_context_drop_sessions(heist_tls_context *ctx);

/* ---- streams ---- */

typedef struct heist_tls_stream_options {
    size_t size;
    unsigned flags; /* none yet */
    const char
        *server_hostname; /* client: whom the certificate must name, and the name asked for; a name or an IP address */
    double handshake_timeout;           /* seconds; 0: 60; HEIST_FOREVER */
    double shutdown_timeout;            /* seconds that a close waits for the peer; 0: 30 */
    size_t stack_bytes;                 /* of the handshake; 0: 256 KiB of address space */
    const heist_stream_options *stream; /* of the new stream: limit and marks; NULL: defaults */
} heist_tls_stream_options;
#define HEIST_TLS_STREAM_OPTIONS_INIT                                                                                  \
    { sizeof(heist_tls_stream_options), 0, NULL, 0, 0, 0, NULL }

/* Makes a plain stream a TLS stream: the handshake, as client or server by the kind of ctx.  Bytes that the plain
 * stream holds already, read ahead, are the first of the handshake; bytes written before go out first.  (asyncio's
 * start_tls.) Context: task.  Suspends: may. Ownership: on success *out is one reference, the plain stream is the new
 * one's (it must not be used any more), and so is a reference to ctx.  On failure, or when cancelled, the plain stream
 * is still the caller's, and good for nothing but its close. Errors: HEIST_ETLSVERIFY, HEIST_ETLS, -ETIMEDOUT,
 * -ECONNRESET (the peer went away in the middle), -ECANCELED, -EINVAL (also: a client without server_hostname that must
 * check it), HEIST_ENOTINCORO, -ENOMEM, -EAGAIN (max_tasks), and those of the plain stream.  In TLS 1.3 a client is
 * done before the server has looked at its certificate: a refusal comes with its first read. */
HEIST_TLS_API int heist_tls_wrap(heist_stream *plain, heist_tls_context *ctx, const heist_tls_stream_options *opts,
                                 heist_stream **out) HEIST_NODISCARD;

/* heist_open_connection, then heist_tls_wrap; server_hostname is the host unless opts says otherwise.
 * Context: task.  Suspends: may.  Errors: those of both; nothing stays open. */
HEIST_TLS_API int heist_open_tls_connection(const char *host, const char *port, heist_tls_context *ctx,
                                            const heist_open_options *open_opts, const heist_tls_stream_options *opts,
                                            heist_stream **out) HEIST_NODISCARD;

/* heist_start_server whose connections greet first: the handler gets a TLS stream, in its task, when the handshake is
 * done.  A handshake that fails is reported as a connection that could not be opened.  For other kinds of servers:
 * heist_tls_open is a heist_server_open_fn whose user is a server's context, with the defaults of the options.
 * tls (NULL: defaults): no server_hostname; its stream options are those of server_opts.  server_opts->open must be
 * unset. Context: task.  Suspends: may.  Ownership: the server holds a reference to ctx; the rest as
 * heist_start_server. Errors: as heist_start_server, -EINVAL, -ENOMEM. */
HEIST_TLS_API int heist_start_tls_server(heist_serve_fn handler, void *user, const char *host, const char *port,
                                         heist_tls_context *ctx, const heist_tls_stream_options *tls,
                                         const heist_server_options *server_opts, heist_server **out);
HEIST_TLS_API int heist_tls_open(heist_conn *conn, const heist_stream_options *opts, void *ctx,
                                 heist_stream **out) HEIST_NODISCARD;

/* Why the last failed call of this header on this thread failed, in words; "" when there was none.  To be read at once,
 * before anything that may suspend: it belongs to the thread.
 * Context: any.  Suspends: never.  Ownership: valid until the next failure. */
HEIST_TLS_API const char *heist_tls_reason(void);

/* ---- what a TLS stream tells, by heist_stream_get_extra_info ----
 *
 * Texts are written terminated into a buffer of `size` bytes: -ENOBUFS when it is too small (nothing is written),
 * -ENOENT when there is no such thing.  The keys of the stream below (addresses, descriptor) are answered by that. */
#define HEIST_TLS_INFO_VERSION 101      /* text: "TLSv1.3" */
#define HEIST_TLS_INFO_CIPHER 102       /* text */
#define HEIST_TLS_INFO_ALPN 103         /* text: the protocol that was chosen; -ENOENT: none */
#define HEIST_TLS_INFO_SERVER_NAME 104  /* text: the name asked for (SNI) */
#define HEIST_TLS_INFO_RESUMED 105      /* int: 1 when the handshake took up an earlier session */
#define HEIST_TLS_INFO_PEER_SUBJECT 106 /* text, RFC 2253: "CN=localhost"; -ENOENT: it showed none */
#define HEIST_TLS_INFO_PEER_ISSUER 107  /* text */
#define HEIST_TLS_INFO_PEER_PEM 108     /* text: its certificate */

HEIST_END_DECLS

#endif
