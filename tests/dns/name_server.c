/* See name_server.h. */
#include "name_server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PACKET 4096
#define TYPE_A 1
#define TYPE_CNAME 5
#define TYPE_PTR 12
#define TYPE_AAAA 28
#define NO_ERROR 0
#define FORMERR 1
#define SERVFAIL 2
#define NXDOMAIN 3
#define REFUSED 5

struct connection {
    struct connection *next;
    struct name_server *server;
    int fd;
    size_t got;
    unsigned char buf[2 + PACKET];
};

struct drops { /* how often a name was asked for */
    struct drops *next;
    int count;
    char name[];
};

struct name_server {
    heist_loop *loop;
    int udp, tcp;
    char where[32];
    struct connection *connections;
    struct drops *drops;
    _Atomic(long) questions, tcp_questions;
};

/* ---- what the names stand for ---- */

static uint32_t hash_of(const char *name) {
    uint32_t h = 2166136261u;
    for (; *name; name++) h = (h ^ (unsigned char)(*name | 32)) * 16777619u;
    return h & 0xffffffu;
}

/* The n-th one. */
static void address_bytes(const char *name, int family, unsigned n, unsigned char *out) {
    uint32_t h = (hash_of(name) + n) & 0xffffffu;
    memset(out, 0, 16);
    if (family == AF_INET) {
        out[0] = 10;
        for (int i = 0; i < 3; i++) out[1 + i] = (unsigned char)(h >> (16 - 8 * i));
        return;
    }
    static const unsigned char prefix[4] = {0x20, 0x01, 0x0d, 0xb8};
    memcpy(out, prefix, 4);
    for (int i = 0; i < 3; i++) out[13 + i] = (unsigned char)(h >> (16 - 8 * i));
}

void name_server_address(const char *name, int family, heist_addr *out) {
    unsigned char bytes[16];
    memset(out, 0, sizeof *out);
    address_bytes(name, family, 0, bytes);
    if (family == AF_INET) {
        struct sockaddr_in in = {.sin_family = AF_INET};
        memcpy(&in.sin_addr, bytes, 4);
        memcpy(&out->storage, &in, sizeof in);
        out->length = sizeof in;
    } else {
        struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
        memcpy(&in6.sin6_addr, bytes, 16);
        memcpy(&out->storage, &in6, sizeof in6);
        out->length = sizeof in6;
    }
}

static void name_of_bytes(const unsigned char *bytes, size_t count, char *buf, size_t size) {
    unsigned sum = 0;
    for (size_t i = 0; i < count; i++) sum = sum * 31 + bytes[i];
    snprintf(buf, size, "host-%u.test", sum);
}

void name_server_name(const heist_addr *addr, char *buf, size_t size) {
    if (addr->storage.ss_family == AF_INET)
        name_of_bytes((const unsigned char *)&((const struct sockaddr_in *)&addr->storage)->sin_addr, 4, buf, size);
    else name_of_bytes((const unsigned char *)&((const struct sockaddr_in6 *)&addr->storage)->sin6_addr, 16, buf, size);
}

/* ---- a packet ---- */

struct packet {
    size_t length;
    unsigned char bytes[PACKET];
};

struct question {
    char name[256];
    int type;
    size_t end; /* in the packet */
    const unsigned char *packet;
};

static bool read_question(const unsigned char *p, size_t length, struct question *q) {
    if (length < 12 || p[4] != 0 || p[5] != 1 || (p[2] & 0x80)) return false;
    size_t at = 12, n = 0;
    while (at < length && p[at]) {
        size_t label = p[at++];
        if (label > 63 || at + label > length || n + label + 2 > sizeof q->name) return false;
        if (n) q->name[n++] = '.';
        memcpy(q->name + n, p + at, label);
        n += label;
        at += label;
    }
    q->name[n] = 0;
    if (at + 5 > length) return false;
    q->type = p[at + 1] << 8 | p[at + 2];
    q->end = at + 5;
    q->packet = p;
    return true;
}

static void put(struct packet *p, const void *bytes, size_t count) {
    if (p->length + count > PACKET) return;
    memcpy(p->bytes + p->length, bytes, count);
    p->length += count;
}

static void put_number(struct packet *p, uint32_t number, int bytes) {
    unsigned char out[4];
    for (int i = 0; i < bytes; i++) out[i] = (unsigned char)(number >> (8 * (bytes - 1 - i)));
    put(p, out, (size_t)bytes);
}

static void put_name(struct packet *p, const char *name) {
    while (*name) {
        size_t label = strcspn(name, ".");
        put_number(p, (uint32_t)label, 1);
        put(p, name, label);
        name += label;
        if (*name == '.') name++;
    }
    put_number(p, 0, 1);
}

static size_t encoded(const char *name) { return strlen(name) + 2; }

/* The header and the question again. */
static void begin(struct packet *p, const struct question *q, int code) {
    p->length = 0;
    put(p, q->packet, q->end);
    p->bytes[2] = (unsigned char)(0x80 | (q->packet[2] & 1)); /* an answer; recursion as desired */
    p->bytes[3] = (unsigned char)(0x80 | code);
    memset(p->bytes + 6, 0, 6);
}

/* owner: NULL for the name of the question. */
static void put_record(struct packet *p, const char *owner, int type, uint32_t ttl, const void *data, size_t size,
                       const char *name) {
    if (owner) put_name(p, owner);
    else put_number(p, 0xc00c, 2);
    put_number(p, (uint32_t)type, 2);
    put_number(p, 1, 2);
    put_number(p, ttl, 4);
    put_number(p, (uint32_t)(name ? encoded(name) : size), 2);
    if (name) put_name(p, name);
    else put(p, data, size);
    p->bytes[7]++; /* never more than 255 */
}

/* ---- orders ---- */

/* The number behind the order, 0 without one; -1: the name does not give it. */
static int order(const char *name, const char *what) {
    size_t length = strlen(what);
    for (const char *p = strchr(name, '.'); p; p = strchr(p + 1, '.')) {
        if (strncmp(p + 1, what, length) != 0) continue;
        size_t digits = strspn(p + 1 + length, "0123456789");
        if (p[1 + length + digits] == '.') return atoi(p + 1 + length);
    }
    return -1;
}

static void answer_addresses(struct packet *p, const struct question *q, const char *own) {
    int family = q->type == TYPE_A ? AF_INET : AF_INET6, ttl = order(q->name, "ttl"), many = order(q->name, "many");
    if (q->type != TYPE_A && q->type != TYPE_AAAA) return;
    if (order(q->name, "empty") >= 0 || order(q->name, family == AF_INET ? "v6" : "v4") >= 0) return;
    const char *owner = NULL;
    char first[300], second[300];
    if (order(q->name, "alias") >= 0) {
        snprintf(first, sizeof first, "alias1-%.*s.target.test", (int)strcspn(own, "."), own);
        snprintf(second, sizeof second, "alias2-%.*s.target.test", (int)strcspn(own, "."), own);
        put_record(p, NULL, TYPE_CNAME, 3600, NULL, 0, first);
        put_record(p, first, TYPE_CNAME, 3600, NULL, 0, second);
        owner = second;
    }
    for (unsigned n = 0; n < (many > 0 ? (unsigned)many : 1); n++) {
        unsigned char bytes[16];
        address_bytes(own, family, n, bytes);
        if (order(q->name, "here") >= 0) inet_pton(family, family == AF_INET ? "127.0.0.1" : "::1", bytes);
        put_record(p, owner, q->type, ttl >= 0 ? (uint32_t)ttl : 3600, bytes, family == AF_INET ? 4 : 16, NULL);
    }
}

static void answer_pointer(struct packet *p, const struct question *q) {
    unsigned char bytes[16];
    size_t count = 0;
    char name[64];
    if (strstr(q->name, ".ip6.arpa")) {
        for (size_t i = 0; i < 32; i++) {
            char digit[2] = {q->name[2 * (31 - i)], 0};
            unsigned value = (unsigned)strtoul(digit, NULL, 16);
            bytes[i / 2] = (unsigned char)(i % 2 ? bytes[i / 2] | value : value << 4);
        }
        count = 16;
    } else {
        unsigned b[4];
        if (sscanf(q->name, "%u.%u.%u.%u.", &b[3], &b[2], &b[1], &b[0]) != 4) return;
        for (int i = 0; i < 4; i++) bytes[i] = (unsigned char)b[i];
        count = 4;
    }
    if (bytes[count - 1] == 66) {
        p->bytes[3] = (unsigned char)(0x80 | NXDOMAIN);
        return;
    }
    if (bytes[count - 1] == 67) {
        p->bytes[3] = (unsigned char)(0x80 | SERVFAIL);
        return;
    }
    name_of_bytes(bytes, count, name, sizeof name);
    put_record(p, NULL, TYPE_PTR, 3600, NULL, 0, name);
}

/* The first N questions for a name go unheard. */
static bool dropped(struct name_server *s, const struct question *q) {
    int most = order(q->name, "drop");
    if (most < 0) return false;
    struct drops *d = s->drops;
    char key[300];
    snprintf(key, sizeof key, "%s/%d", q->name, q->type);
    while (d && strcmp(d->name, key)) d = d->next;
    if (!d) {
        d = calloc(1, sizeof *d + strlen(key) + 1);
        if (!d) abort();
        strcpy(d->name, key);
        d->next = s->drops;
        s->drops = d;
    }
    return d->count++ < most;
}

/* ---- sending ---- */

/* Where an answer goes; a connection may be gone when it is late. */
struct target {
    struct name_server *server;
    struct connection *connection; /* or NULL: to the address */
    int fd;
    struct sockaddr_in to;
};

static void send_packet(const struct target *t, const struct packet *p) {
    if (!t->connection) {
        (void)sendto(t->fd, p->bytes, p->length, MSG_NOSIGNAL, (const struct sockaddr *)&t->to, sizeof t->to);
        return;
    }
    unsigned char framed[2 + PACKET];
    framed[0] = (unsigned char)(p->length >> 8);
    framed[1] = (unsigned char)p->length;
    memcpy(framed + 2, p->bytes, p->length);
    (void)send(t->fd, framed, p->length + 2, MSG_NOSIGNAL); /* small enough for the socket's buffer */
}

struct late {
    struct target target;
    struct packet packet;
};

static int send_late(void *arg) {
    struct late *l = arg;
    struct connection *c = l->target.server->connections;
    while (c && c != l->target.connection) c = c->next;
    if (!l->target.connection || (c && c->fd == l->target.fd)) send_packet(&l->target, &l->packet);
    return 0;
}

static void send_after(const struct target *t, const struct packet *p, double seconds) {
    struct late *l = malloc(sizeof *l);
    if (!l) abort();
    l->target = *t;
    l->packet = *p;
    heist_call_options opts = HEIST_CALL_OPTIONS_INIT;
    opts.arg_free = free;
    if (heist_loop_call_later(t->server->loop, seconds, send_late, l, &opts, NULL)) free(l);
}

/* An answer that must not be believed. */
static void send_lie(const struct target *t, const struct question *q, bool number, bool name) {
    struct packet p;
    struct question other = *q;
    unsigned char changed[PACKET], bytes[16] = {192, 0, 2, 66};
    memcpy(changed, q->packet, q->end);
    other.packet = changed;
    if (number) changed[1] ^= 0x55;
    if (name) changed[13] = changed[13] == 'z' ? 'y' : 'z';
    begin(&p, &other, NO_ERROR);
    put_record(&p, NULL, q->type, 3600, bytes, q->type == TYPE_A ? 4 : 16, NULL);
    send_packet(t, &p);
}

/* True: the connection is to be closed. */
static bool reply(const struct target *t, const unsigned char *bytes, size_t length) {
    struct question q;
    struct packet p;
    bool tcp = t->connection != NULL;
    t->server->questions++;
    t->server->tcp_questions += tcp;
    if (!read_question(bytes, length, &q)) return tcp;
    if (order(q.name, "silent") >= 0 || dropped(t->server, &q)) return false;
    static const struct {
        const char *order;
        int code;
    } codes[] = {{"nx", NXDOMAIN}, {"fail", SERVFAIL}, {"refuse", REFUSED}, {"format", FORMERR}};
    int code = NO_ERROR;
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
        if (order(q.name, codes[i].order) >= 0) code = codes[i].code;
    begin(&p, &q, code);
    bool cut = order(q.name, "cut") >= 0;
    if (!tcp && (cut || order(q.name, "long") >= 0)) {
        p.bytes[2] |= 2;
        send_packet(t, &p);
        return false;
    }
    if (code == NO_ERROR && q.type == TYPE_PTR) answer_pointer(&p, &q);
    else if (code == NO_ERROR) answer_addresses(&p, &q, q.name);
    if (order(q.name, "wrongid") >= 0) send_lie(t, &q, true, false);
    if (order(q.name, "wrongname") >= 0) send_lie(t, &q, false, true);
    if (order(q.name, "garbage") >= 0) {
        struct packet noise = {.length = 5};
        memset(noise.bytes, 0x5a, sizeof noise.bytes);
        send_packet(t, &noise);
        noise.length = 700;
        send_packet(t, &noise);
    }
    if (order(q.name, "broken") >= 0) {
        p.length = q.end;
        p.bytes[7] = 3;
        put_number(&p, 0xc3ff, 2); /* a name that stands nowhere */
    }
    if (cut) {
        unsigned char half[2 + PACKET] = {(unsigned char)(p.length >> 8), (unsigned char)p.length};
        memcpy(half + 2, p.bytes, p.length);
        (void)send(t->fd, half, p.length / 2, MSG_NOSIGNAL);
        return true;
    }
    if (order(q.name, "late") >= 0) send_after(t, &p, 0.02);
    else send_packet(t, &p);
    return false;
}

/* ---- its sockets ---- */

static int on_datagrams(void *arg) {
    struct name_server *s = arg;
    for (;;) {
        unsigned char buf[PACKET];
        struct target t = {.server = s, .fd = s->udp};
        socklen_t size = sizeof t.to;
        ssize_t n = recvfrom(s->udp, buf, sizeof buf, MSG_DONTWAIT, (struct sockaddr *)&t.to, &size);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return 0;
        reply(&t, buf, (size_t)n);
    }
}

static void connection_end(struct connection *c) {
    struct connection **at = &c->server->connections;
    while (*at != c) at = &(*at)->next;
    *at = c->next;
    heist_loop_remove_reader(c->server->loop, c->fd);
    close(c->fd);
    free(c);
}

static int on_stream(void *arg) {
    struct connection *c = arg;
    ssize_t n = recv(c->fd, c->buf + c->got, sizeof c->buf - c->got, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
    if (n <= 0) {
        connection_end(c);
        return 0;
    }
    c->got += (size_t)n;
    while (c->got >= 2) {
        size_t length = (size_t)c->buf[0] << 8 | c->buf[1];
        if (length > PACKET) {
            connection_end(c);
            return 0;
        }
        if (c->got < length + 2) break;
        struct target t = {.server = c->server, .connection = c, .fd = c->fd};
        if (reply(&t, c->buf + 2, length)) {
            connection_end(c);
            return 0;
        }
        c->got -= length + 2;
        memmove(c->buf, c->buf + length + 2, c->got);
    }
    return 0;
}

static int on_connection(void *arg) {
    struct name_server *s = arg;
    int fd = accept4(s->tcp, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) return 0;
    struct connection *c = calloc(1, sizeof *c);
    if (!c) abort();
    c->server = s;
    c->fd = fd;
    c->next = s->connections;
    s->connections = c;
    if (heist_loop_add_reader(s->loop, fd, on_stream, c, NULL)) connection_end(c);
    return 0;
}

/* UDP and TCP on one free port; false: try again. */
static bool open_both(struct name_server *s) {
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof in;
    s->udp = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    s->tcp = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int room = 4 << 20;
    if (s->udp >= 0) (void)setsockopt(s->udp, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    if (s->udp >= 0 && s->tcp >= 0 && !bind(s->udp, (struct sockaddr *)&in, sizeof in) &&
        !getsockname(s->udp, (struct sockaddr *)&in, &size) && !bind(s->tcp, (struct sockaddr *)&in, sizeof in) &&
        !listen(s->tcp, 128)) {
        snprintf(s->where, sizeof s->where, "127.0.0.1:%d", ntohs(in.sin_port));
        return true;
    }
    if (s->udp >= 0) close(s->udp);
    if (s->tcp >= 0) close(s->tcp);
    return false;
}

struct name_server *name_server_start(heist_loop *loop) {
    struct name_server *s = calloc(1, sizeof *s);
    if (!s) return NULL;
    s->loop = heist_loop_ref(loop);
    bool open = false;
    for (int i = 0; i < 50 && !open; i++) open = open_both(s);
    if (open && !heist_loop_add_reader(loop, s->udp, on_datagrams, s, NULL) &&
        !heist_loop_add_reader(loop, s->tcp, on_connection, s, NULL))
        return s;
    if (open) {
        heist_loop_remove_reader(loop, s->udp);
        close(s->udp);
        close(s->tcp);
    }
    heist_loop_unref(s->loop);
    free(s);
    return NULL;
}

void name_server_stop(struct name_server *s) {
    if (!s) return;
    while (s->connections) connection_end(s->connections);
    heist_loop_remove_reader(s->loop, s->udp);
    heist_loop_remove_reader(s->loop, s->tcp);
    close(s->udp);
    close(s->tcp);
    for (struct drops *d; (d = s->drops);) {
        s->drops = d->next;
        free(d);
    }
    heist_loop_unref(s->loop);
    free(s);
}

const char *name_server_where(const struct name_server *s) { return s->where; }
long name_server_questions(struct name_server *s) { return s->questions; }
long name_server_tcp_questions(struct name_server *s) { return s->tcp_questions; }
