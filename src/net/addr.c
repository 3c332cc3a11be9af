/* Addresses to text and back.  No names are looked up. */
#include <arpa/inet.h>
#include <errno.h>
#include <heist/net.h>
#include <net/if.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

static int parse_port(const char *text, uint16_t *out) {
    if (!*text) return -EINVAL;
    unsigned long n = 0;
    for (const char *p = text; *p; p++) {
        if (*p < '0' || *p > '9' || (n = n * 10 + (unsigned long)(*p - '0')) > 65535) return -EINVAL;
    }
    *out = htons((uint16_t)n);
    return 0;
}

static int parse_unix(const char *path, heist_addr *out) {
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    size_t length = strlen(path);
    bool abstract = path[0] == '@'; /* '@' stands for the zero byte that begins such a name */
    if (!length || length >= sizeof(un.sun_path)) return -EINVAL;
    memcpy(un.sun_path, path, length);
    if (abstract) un.sun_path[0] = 0;
    memset(out, 0, sizeof(*out));
    memcpy(&out->storage, &un, sizeof(un));
    out->length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + !abstract);
    return 0;
}

static int parse_v6(const char *host, uint16_t port, heist_addr *out) {
    char text[128];
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = port};
    snprintf(text, sizeof(text), "%s", host);
    char *scope = strchr(text, '%');
    if (scope) {
        *scope++ = 0;
        in6.sin6_scope_id = if_nametoindex(scope);
        if (!in6.sin6_scope_id) in6.sin6_scope_id = (uint32_t)strtoul(scope, NULL, 10);
        if (!in6.sin6_scope_id) return -EINVAL;
    }
    if (inet_pton(AF_INET6, text, &in6.sin6_addr) != 1) return -EINVAL;
    memcpy(&out->storage, &in6, sizeof(in6));
    out->length = sizeof(in6);
    return 0;
}

int heist_addr_parse(const char *text, heist_addr *out) {
    if (!text || !out) return -EINVAL;
    if (strncmp(text, "unix:", 5) == 0) return parse_unix(text + 5, out);
    const char *colon = strrchr(text, ':');
    uint16_t port;
    if (!colon || parse_port(colon + 1, &port)) return -EINVAL;
    size_t length = (size_t)(colon - text);
    char host[128];
    if (length >= sizeof(host)) return -EINVAL;
    memcpy(host, text, length);
    host[length] = 0;
    heist_addr addr;
    memset(&addr, 0, sizeof(addr));
    if (length >= 2 && host[0] == '[' && host[length - 1] == ']') {
        host[length - 1] = 0;
        if (parse_v6(host + 1, port, &addr)) return -EINVAL;
    } else if (strcmp(host, "*") == 0) {
        struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = port, .sin6_addr = in6addr_any};
        memcpy(&addr.storage, &any, sizeof(any));
        addr.length = sizeof(any);
    } else {
        struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = port};
        if (inet_pton(AF_INET, host, &in.sin_addr) != 1) return -EINVAL;
        memcpy(&addr.storage, &in, sizeof(in));
        addr.length = sizeof(in);
    }
    *out = addr;
    return 0;
}

int heist_addr_format(const heist_addr *addr, char *buf, size_t size) {
    if (!addr || (!buf && size)) return -EINVAL;
    char host[INET6_ADDRSTRLEN];
    switch (addr->storage.ss_family) {
    case AF_INET: {
        struct sockaddr_in in;
        memcpy(&in, &addr->storage, sizeof(in));
        inet_ntop(AF_INET, &in.sin_addr, host, sizeof(host));
        return snprintf(buf, size, "%s:%u", host, ntohs(in.sin_port));
    }
    case AF_INET6: {
        struct sockaddr_in6 in6;
        memcpy(&in6, &addr->storage, sizeof(in6));
        inet_ntop(AF_INET6, &in6.sin6_addr, host, sizeof(host));
        if (in6.sin6_scope_id) return snprintf(buf, size, "[%s%%%u]:%u", host, in6.sin6_scope_id, ntohs(in6.sin6_port));
        return snprintf(buf, size, "[%s]:%u", host, ntohs(in6.sin6_port));
    }
    case AF_UNIX: {
        struct sockaddr_un un;
        memcpy(&un, &addr->storage, sizeof(un));
        size_t start = offsetof(struct sockaddr_un, sun_path);
        if (addr->length <= start) return snprintf(buf, size, "unix:");
        size_t length = addr->length - start;
        bool abstract = un.sun_path[0] == 0;
        if (abstract) return snprintf(buf, size, "unix:@%.*s", (int)length - 1, un.sun_path + 1);
        return snprintf(buf, size, "unix:%.*s", (int)strnlen(un.sun_path, length), un.sun_path);
    }
    default: return -EINVAL;
    }
}
