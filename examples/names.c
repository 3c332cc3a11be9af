/* names: four names looked up at the same time, by libheist-dns on the loop (LOOP-32).
 *
 * The program brings its own name server, which answers only when it has been asked for all of them: one look-up
 * after the other would wait forever.  heist_getaddrinfo asks the resolver that main installs; without it, it would
 * ask the system, on the threads of the default executor. */
#include <arpa/inet.h>
#include <heist.h>
#include <heist/dns.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define NAMES 4

static const struct {
    const char *name;
    unsigned char address[4]; /* 0: there is no such name */
} known[NAMES] = {
    {"www.example.test", {192, 0, 2, 1}}, {"mail.example.test", {192, 0, 2, 25}},
    {"gone.example.test", {0, 0, 0, 0}},  {"db.example.test", {192, 0, 2, 54}},
};

/* ---- the server: callbacks on the loop, UDP ---- */

static struct {
    int fd;
    unsigned seen; /* names that were asked for, a bit for each */
    int waiting;
    struct question {
        struct sockaddr_in from;
        unsigned char packet[300];
        size_t size;
        int name;
    } questions[64];
} server;

/* Which of the names a question is about: its labels have lengths where the name has dots. */
static int name_of(const unsigned char *packet, size_t size) {
    for (int i = 0; i < NAMES; i++) {
        size_t length = strlen(known[i].name), same = 0;
        if (size < 12 + length + 6) continue;
        while (same < length && (known[i].name[same] == '.' || packet[13 + same] == known[i].name[same])) same++;
        if (same == length) return i;
    }
    return -1;
}

static void answer(struct question *q) {
    static const unsigned char record[12] = {0xc0, 12, 0, 1, 0, 1, 0, 0, 14, 16, 0, 4}; /* that name, A, an hour, 4 bytes */
    bool there = known[q->name].address[0] != 0;
    q->packet[2] |= 0x80;               /* an answer */
    q->packet[3] = there ? 0x80 : 0x83; /* or no such name */
    q->packet[7] = there;               /* records */
    if (there) {
        memcpy(q->packet + q->size, record, sizeof record);
        memcpy(q->packet + q->size + sizeof record, known[q->name].address, 4);
        q->size += sizeof record + 4;
    }
    sendto(server.fd, q->packet, q->size, 0, (struct sockaddr *)&q->from, sizeof q->from);
}

static int on_question(void *arg) {
    struct question *q = &server.questions[server.waiting];
    socklen_t size = sizeof q->from;
    (void)arg;
    ssize_t n = recvfrom(server.fd, q->packet, 200, MSG_DONTWAIT, (struct sockaddr *)&q->from, &size);
    if (n < 0) return 0;
    q->size = (size_t)n;
    q->name = name_of(q->packet, q->size);
    if (q->name < 0) return 0;
    server.seen |= 1u << q->name;
    if (server.waiting < 63) server.waiting++;
    if (server.seen == (1u << NAMES) - 1)
        while (server.waiting > 0) answer(&server.questions[--server.waiting]);
    return 0;
}

static int start_server(char *where, size_t size) {
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof in;
    heist_loop *loop;
    server.fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (server.fd < 0 || bind(server.fd, (struct sockaddr *)&in, sizeof in) < 0 ||
        getsockname(server.fd, (struct sockaddr *)&in, &length) < 0)
        return -errno;
    snprintf(where, size, "127.0.0.1:%d", ntohs(in.sin_port));
    int err = heist_get_running_loop(&loop);
    return err < 0 ? err : heist_loop_add_reader(loop, server.fd, on_question, NULL, NULL);
}

/* ---- the names ---- */

struct lookup {
    const char *name;
    char text[64];
};

static int look_up(void *arg, void **out) {
    struct lookup *l = arg;
    heist_addrinfo_hints hints = HEIST_ADDRINFO_HINTS_INIT;
    heist_addrinfo_list *list;
    hints.family = AF_INET;
    int err = heist_getaddrinfo(l->name, "443", &hints, heist_time() + 60, &list);
    if (err == HEIST_ENONAME) snprintf(l->text, sizeof l->text, "%s", heist_strerror(err));
    if (err < 0) return err == HEIST_ENONAME ? 0 : err;
    heist_addr_format(&list->at[0].addr, l->text, sizeof l->text);
    heist_freeaddrinfo(list);
    *out = l;
    return 0;
}

static int main_coro(void *arg, void **out) {
    char where[32];
    heist_dns_options options = HEIST_DNS_OPTIONS_INIT;
    heist_dns *dns;
    heist_task *tasks[NAMES];
    struct lookup lookups[NAMES];
    (void)arg, (void)out;
    int err = start_server(where, sizeof where);
    if (err < 0) return err;
    options.servers = where;
    options.flags = HEIST_DNS_NO_SEARCH;
    err = heist_dns_new(&options, &dns);
    if (err < 0) return err;
    err = heist_dns_install(dns, NULL); /* from now on it goes with the runtime */
    heist_dns_unref(dns);
    if (err < 0) return err;

    for (int i = 0; i < NAMES; i++) {
        lookups[i].name = known[i].name;
        err = heist_create_task(look_up, &lookups[i], NULL, &tasks[i]);
        if (err < 0) return err;
    }
    err = heist_gather(tasks, NAMES, NULL, 0);
    for (int i = 0; i < NAMES; i++) {
        if (err == 0) printf("%s: %s\n", lookups[i].name, lookups[i].text);
        heist_unref(tasks[i]);
    }
    return err;
}

int main(void) {
    int err = heist_run(main_coro, NULL, NULL, NULL);
    if (err < 0) fprintf(stderr, "names: %s\n", heist_strerror(err));
    close(server.fd);
    return err < 0;
}
