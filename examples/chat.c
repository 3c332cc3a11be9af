/* chat: a room; what one says, the others hear.
 *
 *   chat HOST PORT   serves until Ctrl-C: try it with several `nc HOST PORT`
 *   chat             serves on a free port and is its own three guests
 *
 * Each guest has a task (heist_start_server makes it).  A line is written to the others by whoever said it: a write
 * never suspends, it queues what the socket does not take.  A guest who does not read is shown the door before he costs
 * too much memory. */
#include <heist.h>
#include <stdio.h>
#include <string.h>

#define GUESTS 64
#define PATIENCE (256 * 1024) /* unsent bytes */

struct guest {
    char name[32];
    heist_stream *stream; /* NULL: the chair is free */
};

struct room {
    heist_lock lock; /* guests run on all workers */
    struct guest guests[GUESTS];
};

/* ---- the room ---- */

static void tell_others(struct room *room, const struct guest *from, const char *text, size_t length) {
    for (int i = 0; i < GUESTS; i++) {
        struct guest *g = &room->guests[i];
        if (!g->stream || g == from) continue;
        if (heist_stream_get_write_buffer_size(g->stream) > PATIENCE) heist_stream_abort(g->stream);
        heist_stream_write(g->stream, text, length); /* one that is closed by now refuses it */
    }
}

/* "anna: hello\n" or "* anna came in\n" to all but the guest. */
static int say(struct room *room, struct guest *from, const char *before, const char *between, const char *text) {
    char line[512];
    int length = snprintf(line, sizeof line, "%s%s%s%s\n", before, from->name, between, text);
    if (length >= (int)sizeof line) line[(length = sizeof line - 1) - 1] = '\n';
    int err = heist_lock_acquire(&room->lock);
    if (err < 0) return err;
    tell_others(room, from, line, (size_t)length);
    return heist_lock_release(&room->lock);
}

static int sit_down(struct room *room, const char *name, heist_stream *stream, struct guest **out) {
    int err = heist_lock_acquire(&room->lock);
    if (err < 0) return err;
    struct guest *chair = NULL;
    for (int i = 0; i < GUESTS && err == 0; i++) {
        struct guest *g = &room->guests[i];
        if (!g->stream && !chair) chair = g;
        if (g->stream && strcmp(g->name, name) == 0) err = -EEXIST;
    }
    if (err == 0 && !chair) err = -EBUSY;
    if (err == 0) {
        snprintf(chair->name, sizeof chair->name, "%s", name);
        chair->stream = stream;
        *out = chair;
    }
    heist_lock_release(&room->lock);
    return err;
}

/* Also when this task is being cancelled: the lock must be had. */
static void stand_up(struct room *room, struct guest *guest) {
    heist_uncancellable_begin();
    if (heist_lock_acquire(&room->lock) == 0) {
        guest->stream = NULL;
        heist_lock_release(&room->lock);
    }
    heist_uncancellable_end();
}

/* ---- one guest ---- */

static void cut_line(char *line) { line[strcspn(line, "\r\n")] = 0; }

static int listen_to(struct room *room, struct guest *guest) {
    ptrdiff_t n;
    heist_foreach_line(guest->stream, line, n) {
        cut_line(line);
        int err = say(room, guest, "", ": ", line);
        if (err < 0) return err;
    }
    return n == -ECONNRESET || n == -EPIPE ? 0 : (int)n; /* he just left */
}

static int serve_guest(heist_stream *stream, void *user) {
    struct room *room = user;
    struct guest *guest = NULL;
    char name[32], *line;
    heist_stream_set_read_deadline(stream, heist_time() + 60); /* to tell a name */
    ptrdiff_t n = heist_stream_readline(stream, &line);
    if (n <= 0) return (int)n;
    heist_stream_set_read_deadline(stream, HEIST_FOREVER);
    cut_line(line);
    snprintf(name, sizeof name, "%s", line);
    int err = sit_down(room, name, stream, &guest);
    if (err == -EEXIST) return heist_stream_write(stream, "* that name is taken\n", 21);
    if (err == -EBUSY) return heist_stream_write(stream, "* the room is full\n", 19);
    if (err == 0) err = heist_stream_write(stream, "* welcome\n", 10);
    if (err == 0) err = say(room, guest, "* ", " came in", "");
    if (err == 0) err = listen_to(room, guest);
    stand_up(room, guest);
    if (err == 0) err = say(room, guest, "* ", " left", "");
    return err;
}

/* ---- the program as its own guests ---- */

static int come_in(const char *port, const char *name, heist_stream **out) {
    char *line, text[40];
    int err = heist_open_connection("127.0.0.1", port, NULL, out);
    if (err < 0) return err;
    err = heist_stream_write(*out, text, (size_t)snprintf(text, sizeof text, "%s\n", name));
    ptrdiff_t n = err < 0 ? err : heist_stream_readline(*out, &line);
    if (n > 0) printf("%s hears: %s", name, line);
    return n > 0 ? 0 : n < 0 ? (int)n : -ECONNRESET;
}

static int hear(const char *name, heist_stream *s) {
    char *line;
    ptrdiff_t n = heist_stream_readline(s, &line);
    if (n > 0) printf("%s hears: %s", name, line);
    return n > 0 ? 0 : n < 0 ? (int)n : -ECONNRESET;
}

static int visit(const char *port) {
    heist_stream *anna = NULL, *bob = NULL, *carl = NULL, *other = NULL;
    int err = come_in(port, "anna", &anna);
    if (err == 0) err = come_in(port, "bob", &bob);
    if (err == 0) err = hear("anna", anna);
    if (err == 0) err = come_in(port, "anna", &other);
    if (err == 0) err = heist_stream_write(bob, "hello, anna\n", 12);
    if (err == 0) err = hear("anna", anna);
    if (err == 0) err = come_in(port, "carl", &carl);
    if (err == 0) err = hear("anna", anna);
    if (err == 0) err = hear("bob", bob);
    if (err == 0) err = heist_stream_write(anna, "hello, both\n", 12);
    if (err == 0) err = hear("bob", bob);
    if (err == 0) err = hear("carl", carl);
    heist_stream_close(bob);
    if (err == 0) err = hear("anna", anna);
    if (err == 0) err = hear("carl", carl);
    heist_stream *all[] = {anna, bob, carl, other};
    for (int i = 0; i < 4; i++) {
        heist_stream_close(all[i]);
        heist_stream_unref(all[i]);
    }
    return err;
}

static int port_of(heist_server *server, char *port, size_t size) {
    heist_addr where;
    char text[80];
    if (heist_server_sockets(server, &where, 1) != 1) return -EPROTO;
    heist_addr_format(&where, text, sizeof text);
    snprintf(port, size, "%s", strrchr(text, ':') + 1);
    return 0;
}

static int main_coro(void *arg, void **out) {
    char **words = arg, port[8];
    struct room room = {.lock = HEIST_LOCK_INIT};
    heist_server_options options = HEIST_SERVER_OPTIONS_INIT;
    heist_server *server;
    (void)out;
    options.max_connections = 2 * GUESTS;
    int err = heist_start_server(serve_guest, &room, words[1] ? words[1] : "127.0.0.1", words[1] ? words[2] : "0",
                                 &options, &server);
    if (err < 0) return err;
    if (words[1]) err = heist_server_serve_forever(server);
    else if ((err = port_of(server, port, sizeof port)) == 0) err = visit(port);
    /* Those who are still there have five seconds to say goodbye.  The room stands on this stack: none may be left. */
    heist_uncancellable_begin();
    int cut = heist_server_drain(server, heist_time() + 5);
    heist_uncancellable_end();
    heist_server_unref(server);
    if (cut > 0) printf("%d guests were sent away\n", cut);
    if (err == 0) printf("the room is empty\n");
    return err;
}

int main(int argc, char **argv) {
    heist_runtime_options options = HEIST_RUNTIME_OPTIONS_INIT;
    options.flags = HEIST_RUNTIME_SIGINT;
    if (argc != 1 && argc != 3) return 2;
    int err = heist_run(main_coro, argv, &options, NULL);
    if (err < 0 && err != -EINTR) fprintf(stderr, "chat: %s\n", heist_strerror(err));
    return err < 0;
}
