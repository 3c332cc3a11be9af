/* The BIO between an SSL object and the two buffers of its connection: never blocks, never makes a system call.
 * Called by OpenSSL, under the connection's lock. */
#include <openssl/bio.h>
#include <string.h>

#include "tls/tls.h"

void heist__tls_buffer_end(struct heist__tls_buffer *b) {
    OPENSSL_free(b->data);
    *b = (struct heist__tls_buffer){0};
}

bool heist__tls_buffer_reserve(struct heist__tls_buffer *b, size_t bytes) {
    if (b->room - b->end >= bytes) return true;
    if (b->start) {
        memmove(b->data, b->data + b->start, b->end - b->start);
        b->end -= b->start;
        b->start = 0;
        if (b->room - b->end >= bytes) return true;
    }
    size_t room = b->end + bytes;
    if (room < 2 * b->room) room = 2 * b->room;
    unsigned char *data = OPENSSL_realloc(b->data, room);
    if (!data) return false;
    b->data = data;
    b->room = room;
    return true;
}

static int bio_read(BIO *bio, char *buf, size_t size, size_t *done) {
    struct heist__tls *t = BIO_get_data(bio);
    size_t there = t->in.end - t->in.start;
    BIO_clear_retry_flags(bio);
    if (!there) {
        BIO_set_retry_read(bio); /* the end too: who waits for more learns of it, and tells it from a goodbye */
        return -1;
    }
    if (size > there) size = there;
    memcpy(buf, t->in.data + t->in.start, size);
    t->in.start += size;
    if (t->in.start == t->in.end) t->in.start = t->in.end = 0;
    *done = size;
    return 1;
}

static int bio_write(BIO *bio, const char *buf, size_t size, size_t *done) {
    struct heist__tls *t = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (!heist__tls_buffer_reserve(&t->out, size)) {
        t->no_memory = true;
        return -1;
    }
    memcpy(t->out.data + t->out.end, buf, size);
    t->out.end += size;
    *done = size;
    return 1;
}

static long bio_ctrl(BIO *bio, int command, long number, void *pointer) {
    (void)bio, (void)number, (void)pointer;
    return command == BIO_CTRL_FLUSH || command == BIO_CTRL_DUP;
}

static BIO_METHOD *method;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void make_method(void) {
    int index = BIO_get_new_index();
    BIO_METHOD *m = index < 0 ? NULL : BIO_meth_new(index | BIO_TYPE_SOURCE_SINK, "heist");
    if (!m) return;
    BIO_meth_set_read_ex(m, bio_read);
    BIO_meth_set_write_ex(m, bio_write);
    BIO_meth_set_ctrl(m, bio_ctrl);
    method = m;
}

void heist__tls_bio_end(void) {
    BIO_meth_free(method);
    method = NULL;
}

BIO *heist__tls_bio(struct heist__tls *t) {
    pthread_once(&once, make_method);
    BIO *bio = method ? BIO_new(method) : NULL;
    if (bio) {
        BIO_set_data(bio, t);
        BIO_set_init(bio, 1);
    }
    return bio;
}
