/* What a TLS stream tells.  From any thread, under the connection's lock; what it does not know is asked of the stream
 * below. */
#include <errno.h>
#include <heist/error.h>
#include <openssl/pem.h>
#include <string.h>

#include "tls/tls.h"

static int text(const char *from, size_t length, void *out, size_t size) {
    if (!from || !length) return -ENOENT;
    if (length >= size) return -ENOBUFS;
    memcpy(out, from, length);
    ((char *)out)[length] = 0;
    return 0;
}

static int cstring(const char *from, void *out, size_t size) { return text(from, from ? strlen(from) : 0, out, size); }

static int of_bio(BIO *bio, int good, void *out, size_t size) {
    char *data = NULL;
    long length = good > 0 ? BIO_get_mem_data(bio, &data) : 0;
    int err = good > 0 ? text(data, (size_t)length, out, size) : -ENOMEM;
    BIO_free(bio);
    heist__tls_clear();
    return err;
}

static int of_certificate(SSL *ssl, int key, void *out, size_t size) {
    X509 *peer = SSL_get0_peer_certificate(ssl);
    if (!peer) return -ENOENT;
    BIO *bio = BIO_new(BIO_s_mem());
    if (!bio) return -ENOMEM;
    if (key == HEIST_TLS_INFO_PEER_PEM) return of_bio(bio, PEM_write_bio_X509(bio, peer), out, size);
    const X509_NAME *name =
        key == HEIST_TLS_INFO_PEER_SUBJECT ? X509_get_subject_name(peer) : X509_get_issuer_name(peer);
    int good = X509_NAME_print_ex(bio, name, 0, XN_FLAG_RFC2253 & ~(unsigned long)ASN1_STRFLGS_ESC_MSB);
    return of_bio(bio, good >= 0, out, size);
}

static int answer(struct heist__tls *t, int key, void *out, size_t size) {
    const unsigned char *alpn;
    unsigned alpn_length;
    int resumed;
    switch (key) {
        case HEIST_TLS_INFO_VERSION: return cstring(SSL_get_version(t->ssl), out, size);
        case HEIST_TLS_INFO_CIPHER: return cstring(SSL_get_cipher_name(t->ssl), out, size);
        case HEIST_TLS_INFO_ALPN:
            SSL_get0_alpn_selected(t->ssl, &alpn, &alpn_length);
            return text((const char *)alpn, alpn_length, out, size);
        case HEIST_TLS_INFO_SERVER_NAME:
            return cstring(SSL_get_servername(t->ssl, TLSEXT_NAMETYPE_host_name), out, size);
        case HEIST_TLS_INFO_RESUMED:
            if (size != sizeof(int)) return -EINVAL;
            resumed = SSL_session_reused(t->ssl);
        memcpy(out, &resumed, sizeof(resumed));
            return 0;
        default: return of_certificate(t->ssl, key, out, size);
    }
}

int heist__tls_info(void *self, int key, void *out, size_t size) {
    struct heist__tls *t = self;
    if (key < HEIST_TLS_INFO_VERSION || key > HEIST_TLS_INFO_PEER_PEM)
        return heist_stream_get_extra_info(t->below, key, out, size);
    heist__tls_lock(&t->lock);
    int err = answer(t, key, out, size);
    heist__tls_unlock(&t->lock);
    return err;
}
