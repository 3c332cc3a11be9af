/* Contexts: options into an SSL_CTX, once; after that only the tables under `lock` change.
 * Called from any thread.  Nothing here suspends. */
#include <errno.h>
#include <fcntl.h>
#include <heist/error.h>
#include <openssl/x509v3.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tls/tls.h"

#define KNOWN_FLAGS (HEIST_TLS_NO_HOSTNAME_CHECK | HEIST_TLS_NO_RESUMPTION | HEIST_TLS_DEFAULT_CA)

/* Nobody is asked for a password on a terminal: without one a locked key is an error. */
static int password(char *buf, int size, int writing, void *user) {
    const char *text = user;
    size_t length = text ? strlen(text) : 0;
    (void)writing;
    if (!text || size < 0 || length > (size_t)size) return -1;
    for (size_t i = 0; i < length; i++) buf[i] = text[i]; /* its length tells its end */
    return (int)length;
}

/* ---- certificates ---- */

static BIO *open_pem(const char *file, const char *text) {
    return file ? BIO_new_file(file, "r") : BIO_new_mem_buf(text, -1);
}

/* Reading ends at what is no certificate: that the text is over is no error. */
static bool text_is_over(void) {
    unsigned long e = ERR_peek_last_error();
    return ERR_GET_LIB(e) == ERR_LIB_PEM && ERR_GET_REASON(e) == PEM_R_NO_START_LINE;
}

static bool use_certificates(SSL_CTX *ssl, BIO *bio, const heist_tls_options *o) {
    void *secret = (void *)(uintptr_t)o->key_password;
    X509 *own = PEM_read_bio_X509_AUX(bio, NULL, password, secret);
    bool good = own && SSL_CTX_use_certificate(ssl, own) == 1;
    X509_free(own);
    for (X509 *next; good && (next = PEM_read_bio_X509(bio, NULL, password, secret)) != NULL; X509_free(next))
        good = SSL_CTX_add1_chain_cert(ssl, next) == 1;
    if (good && !text_is_over()) good = false;
    if (good) ERR_clear_error();
    return good;
}

static bool use_key(SSL_CTX *ssl, BIO *bio, const heist_tls_options *o) {
    EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, password, (void *)(uintptr_t)o->key_password);
    bool good = key && SSL_CTX_use_PrivateKey(ssl, key) == 1 && SSL_CTX_check_private_key(ssl) == 1;
    EVP_PKEY_free(key);
    return good;
}

static bool load_own(SSL_CTX *ssl, const heist_tls_options *o) {
    if (!o->cert_file && !o->cert_pem) return true;
    BIO *bio = open_pem(o->cert_file, o->cert_pem);
    bool good = bio && use_certificates(ssl, bio, o);
    BIO_free(bio);
    if (!good) return false;
    bool apart = o->key_file || o->key_pem;
    bio = apart ? open_pem(o->key_file, o->key_pem) : open_pem(o->cert_file, o->cert_pem);
    good = bio && use_key(ssl, bio, o);
    BIO_free(bio);
    return good;
}

/* ---- whom to trust ---- */

static bool trust_text(SSL_CTX *ssl, const char *text, bool server) {
    BIO *bio = BIO_new_mem_buf(text, -1);
    bool good = bio != NULL;
    size_t n = 0;
    for (X509 *ca; good && (ca = PEM_read_bio_X509(bio, NULL, password, NULL)) != NULL; X509_free(ca), n++) {
        good = X509_STORE_add_cert(SSL_CTX_get_cert_store(ssl), ca) == 1;
        if (good && server) good = SSL_CTX_add_client_CA(ssl, ca) == 1; /* what a client may choose its own by */
    }
    if (good && (n == 0 || !text_is_over())) good = false;
    if (good) ERR_clear_error();
    BIO_free(bio);
    return good;
}

static bool load_trust(SSL_CTX *ssl, const heist_tls_options *o, bool server) {
    bool any = o->ca_file || o->ca_path || o->ca_pem;
    if (o->ca_file) {
        BIO *probe = BIO_new_file(o->ca_file, "r"); /* says why it cannot be opened, which the next one does not */
        BIO_free(probe);
        if (!probe || SSL_CTX_load_verify_file(ssl, o->ca_file) != 1) return false;
        if (server) {
            STACK_OF(X509_NAME) *names = SSL_load_client_CA_file(o->ca_file);
            if (!names) return false;
            SSL_CTX_set_client_CA_list(ssl, names);
        }
    }
    if (o->ca_path && SSL_CTX_load_verify_dir(ssl, o->ca_path) != 1) return false;
    if (o->ca_pem && !trust_text(ssl, o->ca_pem, server)) return false;
    if (!any || (o->flags & HEIST_TLS_DEFAULT_CA)) return SSL_CTX_set_default_verify_paths(ssl) == 1;
    return true;
}

/* ---- the rest of the options ---- */

static void keylog(const SSL *ssl, const char *line) {
    heist_tls_context *ctx = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
    char text[512]; /* a line is shorter than 300 */
    int length = snprintf(text, sizeof(text), "%s\n", line);
    if (!ctx || ctx->keylog < 0 || length < 0 || (size_t)length >= sizeof(text)) return;
    ssize_t n = write(ctx->keylog, text, (size_t)length); /* one call: lines of several connections do not mix */
    (void)n;                                              /* a log that is full is no reason to fail */
}

static int configure(heist_tls_context *ctx, const heist_tls_options *o) {
    SSL_CTX *ssl = ctx->ssl;
    /* A record, once taken, is made whole: what is left of a write may come from another address. */
    SSL_CTX_set_mode(ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                              SSL_MODE_RELEASE_BUFFERS | SSL_MODE_AUTO_RETRY);
    /* Without renegotiation nothing after the handshake needs a deep stack. */
    SSL_CTX_set_options(ssl, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
    if (SSL_CTX_set_min_proto_version(ssl, o->min_version ? o->min_version : HEIST_TLS_1_2) != 1 ||
        SSL_CTX_set_max_proto_version(ssl, o->max_version) != 1)
        return HEIST_ETLS;
    if (o->ciphers && SSL_CTX_set_cipher_list(ssl, o->ciphers) != 1) return HEIST_ETLS;
    if (o->cipher_suites && SSL_CTX_set_ciphersuites(ssl, o->cipher_suites) != 1) return HEIST_ETLS;
    SSL_CTX_set_default_passwd_cb(ssl, password);
    if (!load_own(ssl, o)) return HEIST_ETLS;
    if (ctx->verify != SSL_VERIFY_NONE && !load_trust(ssl, o, ctx->server)) return HEIST_ETLS;
    SSL_CTX_set_verify(ssl, ctx->verify, NULL);
    SSL_CTX_set_app_data(ssl, ctx);
    if (RAND_bytes(ctx->id, sizeof(ctx->id)) != 1 || SSL_CTX_set_session_id_context(ssl, ctx->id, sizeof(ctx->id)) != 1)
        return HEIST_ETLS;
    if (o->keylog_file) {
        ctx->keylog = open(o->keylog_file, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
        if (ctx->keylog < 0) return -errno;
        SSL_CTX_set_keylog_callback(ssl, keylog);
    }
    return 0;
}

static int configure_client(heist_tls_context *ctx) {
    ctx->check_name = !(ctx->flags & HEIST_TLS_NO_HOSTNAME_CHECK) && ctx->verify != SSL_VERIFY_NONE;
    if (ctx->flags & HEIST_TLS_NO_RESUMPTION) {
        SSL_CTX_set_session_cache_mode(ctx->ssl, SSL_SESS_CACHE_OFF);
    } else {
        SSL_CTX_set_session_cache_mode(ctx->ssl, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
        SSL_CTX_sess_set_new_cb(ctx->ssl, heist__tls_new_session);
    }
    if (ctx->alpn && SSL_CTX_set_alpn_protos(ctx->ssl, ctx->alpn, ctx->alpn_length)) return HEIST_ETLS;
    return 0;
}

static int configure_server(heist_tls_context *ctx) {
    SSL_CTX_set_session_cache_mode(ctx->ssl, SSL_SESS_CACHE_OFF); /* tickets hold all there is; nothing is kept */
    if (ctx->flags & HEIST_TLS_NO_RESUMPTION) {
        SSL_CTX_set_options(ctx->ssl, SSL_OP_NO_TICKET);
        if (SSL_CTX_set_num_tickets(ctx->ssl, 0) != 1) return HEIST_ETLS;
    }
    SSL_CTX_set_options(ctx->ssl, SSL_OP_CIPHER_SERVER_PREFERENCE);
    SSL_CTX_set_client_hello_cb(ctx->ssl, heist__tls_hello, ctx);
    SSL_CTX_set_tlsext_servername_callback(ctx->ssl, heist__tls_server_name);
    SSL_CTX_set_tlsext_servername_arg(ctx->ssl, ctx);
    if (ctx->alpn) SSL_CTX_set_alpn_select_cb(ctx->ssl, heist__tls_choose_alpn, ctx);
    return 0;
}

/* ---- making and ending ---- */

static bool both(const char *a, const char *b) { return a && b; }

static int check(const heist_tls_options *o, bool server) {
    if (o->size < sizeof(*o) || o->size > 4096) return -EINVAL;
    for (size_t i = sizeof(*o); i < o->size; i++)
        if (((const char *)o)[i]) return -EINVAL; /* an option that we do not know */
    if ((o->flags & ~KNOWN_FLAGS) || o->verify < 0 || o->verify > HEIST_TLS_VERIFY_REQUIRED) return -EINVAL;
    if ((o->min_version && o->min_version != HEIST_TLS_1_2 && o->min_version != HEIST_TLS_1_3) ||
        (o->max_version && o->max_version != HEIST_TLS_1_2 && o->max_version != HEIST_TLS_1_3) ||
        (o->max_version && o->max_version < o->min_version))
        return -EINVAL;
    if (both(o->cert_file, o->cert_pem) || both(o->key_file, o->key_pem)) return -EINVAL;
    bool own = o->cert_file || o->cert_pem;
    if (server ? !own : (!own && (o->key_file || o->key_pem))) return -EINVAL;
    if (server ? (o->flags & HEIST_TLS_NO_HOSTNAME_CHECK) != 0 : (o->sni || o->verify == HEIST_TLS_VERIFY_OPTIONAL))
        return -EINVAL;
    return 0;
}

static int verify_mode(int verify, bool server) {
    switch (verify) {
        case HEIST_TLS_VERIFY_NONE: return SSL_VERIFY_NONE;
        case HEIST_TLS_VERIFY_OPTIONAL: return SSL_VERIFY_PEER;
        case HEIST_TLS_VERIFY_REQUIRED: return SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
        default: return server ? SSL_VERIFY_NONE : SSL_VERIFY_PEER;
    }
}

static void context_end(heist_tls_context *ctx) {
    heist_tls_context_drop_sessions(ctx);
    heist__tls_forget_names(ctx);
    SSL_CTX_free(ctx->ssl);
    if (ctx->keylog >= 0) close(ctx->keylog);
    OPENSSL_free(ctx->alpn);
    (void)pthread_mutex_destroy(&ctx->lock);
    OPENSSL_free(ctx);
}

/* What OpenSSL computes of a certificate when it is first used, before several threads share it: otherwise they do so
 * at the first handshake, and a race detector, which does not see OpenSSL's atomics, takes that for a race. */
static void look_at_authorities(heist_tls_context *ctx) {
    STACK_OF(X509_OBJECT) *known = X509_STORE_get0_objects(SSL_CTX_get_cert_store(ctx->ssl));
    for (int i = 0; i < sk_X509_OBJECT_num(known); i++) {
        X509 *cert = X509_OBJECT_get0_X509(sk_X509_OBJECT_value(known, i));
        if (cert) (void)X509_check_purpose(cert, -1, 0);
    }
    X509 *own = SSL_CTX_get0_certificate(ctx->ssl);
    if (own) (void)X509_check_purpose(own, -1, 0);
}

static int context_new(const heist_tls_options *opts, bool server, heist_tls_context **out) {
    heist_tls_options none = HEIST_TLS_OPTIONS_INIT;
    const heist_tls_options *o = opts ? opts : &none;
    char words[256] = "";
    int err = out ? check(o, server) : -EINVAL;
    if (err) return heist__tls_report(err, NULL);
    heist__tls_clear();
    heist_tls_context *ctx = OPENSSL_zalloc(sizeof(*ctx));
    if (!ctx) return heist__tls_report(-ENOMEM, NULL);
    ctx->server = server;
    ctx->flags = o->flags;
    ctx->keylog = -1;
    ctx->refs = 1;
    ctx->verify = verify_mode(o->verify, server);
    ctx->sni = o->sni;
    ctx->sni_user = o->sni_user;
    (void)pthread_mutex_init(&ctx->lock, NULL);
    if (o->alpn) err = heist__tls_parse_alpn(o->alpn, &ctx->alpn, &ctx->alpn_length);
    if (!err) {
        ctx->ssl = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());
        if (!ctx->ssl) err = HEIST_ETLS;
        else heist__tls_mind_exit();
    }
    if (!err) err = configure(ctx, o);
    if (!err) err = server ? configure_server(ctx) : configure_client(ctx);
    if (!err) look_at_authorities(ctx);
    if (err == HEIST_ETLS) err = heist__tls_failed(words, sizeof(words));
    if (err) {
        context_end(ctx);
        heist__tls_clear();
        return heist__tls_report(err, words);
    }
    *out = ctx;
    return 0;
}

int heist_tls_context_new_client(const heist_tls_options *opts, heist_tls_context **out) {
    return context_new(opts, false, out);
}
int heist_tls_context_new_server(const heist_tls_options *opts, heist_tls_context **out) {
    return context_new(opts, true, out);
}

heist_tls_context *heist_tls_context_ref(heist_tls_context *ctx) {
    if (!ctx) return NULL;
    heist__tls_lock(&ctx->lock);
    ctx->refs++;
    heist__tls_unlock(&ctx->lock);
    return ctx;
}

void heist_tls_context_unref(heist_tls_context *ctx) {
    if (!ctx) return;
    heist__tls_lock(&ctx->lock);
    bool last = --ctx->refs == 0;
    heist__tls_unlock(&ctx->lock);
    if (last) context_end(ctx);
}
