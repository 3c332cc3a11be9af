/* downloads: three files at the same time, on every core (APP-14).
 *
 * A task for each file reads it piece by piece.  The program brings its own server, which
 * sends the second half of a file only when the first halves of all three are on their
 * way: one download after the other would wait forever.  The files are stand-ins. */
#include <heist.h>
#include <stdint.h>
#include <stdio.h>

#define FILES 3

struct file {
    size_t size;
    uint32_t sum; /* of the bytes that came */
    size_t got;
    heist_addr server;
};

static heist_barrier halves;
static struct file files[FILES] = {{.size = 20000}, {.size = 150000}, {.size = 700}}; /* used by several threads */

static uint8_t byte_at(size_t position) { return (uint8_t)(position * 31 + position / 256); }

/* ---- the server: the request is one byte, the number of the file ---- */

static void close_conn(void *conn) { heist_conn_close(conn); }

static int send_part(heist_conn *conn, size_t from, size_t to) {
    uint8_t piece[1024];
    while (from < to) {
        size_t n = to - from < sizeof piece ? to - from : sizeof piece;
        for (size_t i = 0; i < n; i++) piece[i] = byte_at(from + i);
        int err = heist_conn_write(conn, piece, n, HEIST_FOREVER, NULL);
        if (err < 0) return err;
        from += n;
    }
    return 0;
}

static int serve_file(void *arg, void **out) {
    heist_conn *conn = arg;
    uint8_t number;
    (void)out;
    ptrdiff_t n = heist_conn_read(conn, &number, 1, HEIST_FOREVER);
    if (n <= 0 || number >= FILES) return n < 0 ? (int)n : -EPROTO;
    size_t size = files[number].size;
    int err = send_part(conn, 0, size / 2);
    if (err == 0) err = heist_barrier_wait(&halves); /* its number there, or a negative code */
    return err < 0 ? err : send_part(conn, size / 2, size);
}

static int serve(void *arg, void **out) {
    heist_listener *listener = arg;
    heist_task_options options = HEIST_TASK_OPTIONS_INIT;
    (void)out;
    options.arg_free = close_conn;
    for (;;) {
        heist_conn *conn;
        int err = heist_accept(listener, HEIST_FOREVER, &conn);
        if (err < 0) return err == HEIST_ECLOSED ? 0 : err;
        if ((err = heist_create_task(serve_file, conn, &options, NULL)) < 0) {
            heist_conn_close(conn);
            return err;
        }
    }
}

/* ---- the client ---- */

static int download(void *arg, void **out) {
    struct file *file = arg;
    uint8_t piece[2000], number = (uint8_t)(file - files);
    heist_conn *conn;
    ptrdiff_t n;
    int err = heist_connect(&file->server, HEIST_FOREVER, &conn);
    if (err < 0) return err;
    n = heist_conn_write(conn, &number, 1, HEIST_FOREVER, NULL);
    if (n == 0)
        while ((n = heist_conn_read(conn, piece, sizeof piece, HEIST_FOREVER)) > 0) {
            /* A program would store it. */
            for (ptrdiff_t i = 0; i < n; i++) file->sum = file->sum * 16777619u ^ piece[i];
            file->got += (size_t)n;
        }
    heist_conn_close(conn);
    *out = file;
    return (int)n;
}

static uint32_t right_sum(size_t size) {
    uint32_t sum = 0;
    for (size_t i = 0; i < size; i++) sum = sum * 16777619u ^ byte_at(i);
    return sum;
}

static int download_all(const heist_addr *server) {
    heist_awaitable coroutine[FILES];
    heist_future *task[FILES];
    void *result[FILES];
    for (int i = 0; i < FILES; i++) {
        files[i].server = *server;
        coroutine[i] = HEIST_CORO(download, &files[i]);
    }
    int err = heist_ensure_futures(NULL, coroutine, FILES, NULL, NULL, task);
    if (err < 0) return err;
    err = heist_gather(task, FILES, result, 0);
    for (int i = 0; i < FILES && err == 0; i++) {
        const struct file *file = result[i];
        int whole = file->got == file->size && file->sum == right_sum(file->size);
        printf("file %d: %zu bytes, %s\n", i, file->got, whole ? "whole" : "damaged");
        if (!whole) err = heist_fail(-EIO, "file %d is damaged", i);
    }
    heist_unref_all(task, FILES);
    return err;
}

static int main_coro(void *arg, void **out) {
    heist_listener *listener;
    heist_task *server;
    heist_addr where;
    (void)arg, (void)out;
    int err = heist_addr_parse("127.0.0.1:0", &where);
    if (err == 0) err = heist_listen(&where, NULL, &listener);
    if (err < 0) return err;
    err = heist_listener_addr(listener, &where);
    if (err == 0) err = heist_create_task(serve, listener, NULL, &server);
    if (err == 0) {
        err = download_all(&where);
        heist_listener_close(listener);
        int ended = heist_await(server, NULL);
        heist_unref(server);
        return err < 0 ? err : ended;
    }
    heist_listener_close(listener);
    return err;
}

int main(void) {
    int err = heist_barrier_init(&halves, FILES);
    if (err == 0) {
        err = heist_run(main_coro, NULL, NULL, NULL);
        heist_barrier_destroy(&halves);
    }
    if (err < 0) fprintf(stderr, "downloads: %s\n", heist_strerror(err));
    return err < 0;
}
