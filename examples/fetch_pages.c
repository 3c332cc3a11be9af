/* fetch_pages: twenty pages at once, each by a request written by hand, as introductions to asyncio show it (APP-14).
 *
 * The program brings its own server, which answers nobody before all twenty have asked: a client that fetched one page
 * after the other would wait for ever. */
#include <heist.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGES 20

/* ---- the server ---- */

static heist_barrier everybody = HEIST_BARRIER_INIT(PAGES);

static int serve_page(heist_stream *s, void *user) {
    char path[64] = "", text[256], *line;
    ptrdiff_t n;
    (void)user;
    /* The request, and then lines to an empty one. */
    if ((n = heist_stream_readline(s, &line)) <= 0) return (int)n;
    if (sscanf(line, "GET %63s HTTP/1.1", path) != 1) return heist_fail(-EPROTO, "not a request: %s", line);
    do n = heist_stream_readline(s, &line);
    while (n > 2);
    if (n <= 0) return (int)n;
    int err = heist_barrier_wait(&everybody);
    if (err < 0) return err;
    int length =
        snprintf(text, sizeof text, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n<html>\nThis is %s\n</html>\n", path);
    return heist_stream_write(s, text, (size_t)length); /* the stream is closed, and flushed, by the server */
}

/* ---- the client ---- */

struct fetch {
    char port[8], path[32];
};

/* The lines of a page, without the head; to be freed. */
static int get_url(void *arg, void **out) {
    struct fetch *f = arg;
    char request[128];
    heist_stream *s;
    int err = heist_open_connection("127.0.0.1", f->port, NULL, &s);
    if (err < 0) return err;
    int length =
        snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", f->path);
    err = heist_stream_write(s, request, (size_t)length);
    char *html = calloc(1, 1), *more;
    bool in_body = false;
    ptrdiff_t n = err;
    if (html && err == 0) {
        heist_foreach_line(s, line, n) {
            if (in_body && (more = realloc(html, strlen(html) + (size_t)n + 1))) html = strcat(more, line);
            if (strcmp(line, "\r\n") == 0) in_body = true;
        }
    }
    heist_stream_close(s);
    heist_stream_unref(s);
    *out = html;
    return (int)n;
}

static int fetch_all(void *arg, void **out) {
    (void)arg, (void)out;
    heist_server *server;
    heist_addr addr;
    char where[64];
    int err = heist_start_server(serve_page, NULL, "127.0.0.1", "0", NULL, &server);
    if (err < 0) return err;
    heist_server_sockets(server, &addr, 1);
    heist_addr_format(&addr, where, sizeof where);

    struct fetch fetches[PAGES];
    heist_task *tasks[PAGES];
    heist_task_options options = HEIST_TASK_OPTIONS_INIT;
    options.result_free = free;
    for (int i = 0; i < PAGES; i++) {
        snprintf(fetches[i].port, sizeof fetches[i].port, "%s", strrchr(where, ':') + 1);
        snprintf(fetches[i].path, sizeof fetches[i].path, "/page/%d", i);
        if (heist_create_task(get_url, &fetches[i], &options, &tasks[i]) < 0) abort();
    }
    int whole = 0;
    void *html;
    heist_completions *done;
    if (heist_as_completed(tasks, PAGES, 10, &done) < 0) abort();
    while ((err = heist_completions_await(done, &html)) > 0) { /* each as it comes */
        int number;
        if (html && sscanf(html, "<html>\nThis is /page/%d\n</html>\n", &number) == 1 && number < PAGES) whole++;
    }
    heist_completions_free(done);
    for (int i = 0; i < PAGES; i++) heist_unref(tasks[i]);
    printf("%d pages, all asked for before the first one came\n", whole);
    heist_server_close(server);
    heist_server_unref(server);
    return err;
}

int main(void) { return heist_run(fetch_all, NULL, NULL, NULL) < 0; }
