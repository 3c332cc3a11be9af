/* tls_lines: a line server with TLS and its client, which trusts one certificate and no other.
 *
 * The server answers each line with its length.  Its certificate is made as the program begins; a server that is meant
 * for others has one from an authority, in files (cert_file, key_file).  A client that expects another name is
 * refused what it came for. */
#include <heist.h>
#include <heist/tls.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- a certificate for this run ---- */

static int add_extension(X509 *x, int nid, const char *value) {
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, NULL, nid, value);
    int good = e && X509_add_ext(x, e, -1);
    X509_EXTENSION_free(e);
    return good;
}

static int to_text(BIO *bio, char *buf, int size) {
    int n = BIO_read(bio, buf, size - 1);
    buf[n > 0 ? n : 0] = 0;
    return n > 0;
}

/* Self-signed, for localhost, for a day. */
static int make_certificate(char *cert, int cert_size, char *key, int key_size) {
    EVP_PKEY *pair = EVP_EC_gen("P-256");
    X509 *x = X509_new();
    BIO *bio = BIO_new(BIO_s_mem());
    int good = pair && x && bio;
    if (good) {
        X509_NAME *name = X509_get_subject_name(x);
        X509_set_version(x, 2);
        X509_gmtime_adj(X509_getm_notBefore(x), -3600);
        X509_gmtime_adj(X509_getm_notAfter(x), 86400);
        good = ASN1_INTEGER_set(X509_get_serialNumber(x), 1) &&
               X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const unsigned char *)"localhost", -1, -1, 0) &&
               X509_set_issuer_name(x, name) && X509_set_pubkey(x, pair) &&
               add_extension(x, NID_subject_alt_name, "DNS:localhost") && X509_sign(x, pair, EVP_sha256()) > 0;
    }
    good = good && PEM_write_bio_X509(bio, x) && to_text(bio, cert, cert_size) &&
           PEM_write_bio_PrivateKey(bio, pair, NULL, NULL, 0, NULL, NULL) && to_text(bio, key, key_size);
    BIO_free(bio);
    X509_free(x);
    EVP_PKEY_free(pair);
    return good ? 0 : -EIO;
}

/* ---- the server ---- */

static int answer(heist_stream *s, void *user) {
    ptrdiff_t n;
    (void)user;
    heist_foreach_line(s, line, n) {
        char text[64];
        int length = snprintf(text, sizeof text, "%td bytes\n", n - 1);
        int err = heist_stream_write(s, text, (size_t)length);
        if (!err) err = heist_stream_drain(s);
        if (err) return err;
    }
    return (int)n; /* 0: the client has said goodbye.  HEIST_ETRUNCATED: it was cut off */
}

/* ---- the client ---- */

static void close_stream(void *stream) {
    heist_stream_close(stream);
    (void)heist_stream_wait_closed(stream);
    heist_stream_unref(stream);
}

static int talk(heist_tls_context *ctx, const char *port, const char *name) {
    static const char *const lines[] = {"one line\n", "another line\n", "the last line\n"};
    heist_tls_stream_options opts = HEIST_TLS_STREAM_OPTIONS_INIT;
    heist_stream *s;
    char version[32] = "?";
    opts.server_hostname = name;
    int err = heist_open_tls_connection("127.0.0.1", port, ctx, NULL, &opts, &s);
    if (err) return err;
    heist_defer(close_stream, s);
    (void)heist_stream_get_extra_info(s, HEIST_TLS_INFO_VERSION, version, sizeof version);
    printf("%s speaks %s\n", name, version);
    for (int i = 0; i < 3 && !err; i++) {
        char *line;
        err = heist_stream_write(s, lines[i], strlen(lines[i]));
        ptrdiff_t n = err ? err : heist_stream_readline(s, &line);
        if (n < 0) return (int)n;
        printf("%.*s -> %s", (int)strlen(lines[i]) - 1, lines[i], n ? line : "nothing\n");
    }
    return err;
}

/* ---- the program ---- */

/* The client that goes away is told to the server's exception handler; here it is no news. */
static void ignore(heist_loop *loop, const heist_report *report, void *user) { (void)loop, (void)report, (void)user; }

static void free_context(void *ctx) { heist_tls_context_unref(ctx); }

static int main_coro(void *arg, void **out) {
    static char cert[4096], key[4096];
    heist_tls_options options = HEIST_TLS_OPTIONS_INIT;
    heist_tls_context *ours, *theirs;
    heist_server *server;
    heist_addr where;
    char text[64];
    (void)arg, (void)out;
    int err = make_certificate(cert, sizeof cert, key, sizeof key);
    if (err) return err;
    options.ca_pem = cert;
    err = heist_tls_context_new_client(&options, &theirs);
    if (err) return err;
    heist_defer(free_context, theirs);
    options.ca_pem = NULL;
    options.cert_pem = cert;
    options.key_pem = key;
    err = heist_tls_context_new_server(&options, &ours);
    if (err) return err;
    heist_defer(free_context, ours);
    err = heist_start_tls_server(answer, NULL, "127.0.0.1", "0", ours, NULL, NULL, &server);
    if (err) return err;
    if (heist_server_sockets(server, &where, 1) != 1) return -EIO;
    heist_addr_format(&where, text, sizeof text);
    err = talk(theirs, strrchr(text, ':') + 1, "localhost");
    if (!err) {
        int refused = talk(theirs, strrchr(text, ':') + 1, "example.org");
        printf("example.org: %s, %s\n", heist_error_name(refused), heist_tls_reason());
    }
    heist_server_close(server);
    int end = heist_server_wait_closed(server);
    heist_server_unref(server);
    return err ? err : end;
}

int main(void) {
    heist_runtime_options options = HEIST_RUNTIME_OPTIONS_INIT;
    options.exception_handler = ignore;
    int err = heist_run(main_coro, NULL, &options, NULL);
    if (err < 0) fprintf(stderr, "tls_lines: %s\n", heist_strerror(err));
    return err < 0;
}
