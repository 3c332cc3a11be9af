/* crawler: fetch page A, and while it waits fetch page B; parse each when it arrives (APP-14).
 *
 * One thread, and no call that blocks it.  The program brings its own server, whose page
 * A is a slow one: it comes only after page B has been parsed.  A crawler that fetched
 * one page after the other would wait forever. */
#include <heist.h>
#include <stdio.h>
#include <string.h>

static heist_event b_is_parsed;

/* ---- the server ---- */

static void close_conn(void *conn) { heist_conn_close(conn); }

static int serve_page(void *arg, void **out) {
    heist_conn *conn = arg;
    char request[256] = "", answer[256], page;
    (void)out;
    /* So short, it comes in one piece. */
    ptrdiff_t n = heist_conn_read(conn, request, sizeof request - 1, HEIST_FOREVER);
    if (n <= 0 || sscanf(request, "GET /%c", &page) != 1) return n < 0 ? (int)n : -EPROTO;
    int err = page == 'A' ? heist_event_wait(&b_is_parsed) : 0;
    if (err < 0) return err;
    int length = snprintf(answer, sizeof answer, "HTTP/1.0 200 OK\r\n\r\n<title>This is page %c</title>\n", page);
    return heist_conn_write(conn, answer, (size_t)length, HEIST_FOREVER, NULL);
}

static int serve(void *arg, void **out) {
    heist_listener *listener = arg;
    heist_task_options options = HEIST_TASK_OPTIONS_INIT;
    (void)out;
    options.arg_free = close_conn; /* the end of the task is the end of the page */
    for (;;) {
        heist_conn *conn;
        int err = heist_accept(listener, HEIST_FOREVER, &conn);
        if (err < 0) return err == HEIST_ECLOSED ? 0 : err;
        if ((err = heist_create_task(serve_page, conn, &options, NULL)) < 0) {
            heist_conn_close(conn);
            return err;
        }
    }
}

/* ---- the crawler ---- */

struct spider {
    char page;
    const heist_addr *server;
    char html[256], title[64];
};

/* The slow part: it waits, and the thread does other things. */
static int get_html(struct spider *s) {
    char request[64];
    heist_conn *conn;
    size_t got = 0;
    ptrdiff_t n;
    int err = heist_connect(s->server, HEIST_FOREVER, &conn);
    if (err < 0) return err;
    int length = snprintf(request, sizeof request, "GET /%c HTTP/1.0\r\n\r\n", s->page);
    n = err = heist_conn_write(conn, request, (size_t)length, HEIST_FOREVER, NULL);
    while (err == 0 && (n = heist_conn_read(conn, s->html + got, sizeof s->html - 1 - got, HEIST_FOREVER)) > 0) {
        got += (size_t)n;
        if (got == sizeof s->html - 1) err = -EMSGSIZE;
    }
    heist_conn_close(conn);
    s->html[got] = '\0';
    return n < 0 ? (int)n : err;
}

/* The fast part. */
static int parse_html(struct spider *s) {
    const char *begin = strstr(s->html, "<title>");
    if (!begin || sscanf(begin, "<title>%63[^<]", s->title) != 1) return heist_fail(-EPROTO, "no title");
    return 0;
}

static int spider(void *arg, void **out) {
    struct spider *s = arg;
    printf("fetching page %c\n", s->page);
    int err = get_html(s);
    if (err == 0) err = parse_html(s);
    if (err < 0) return err;
    printf("parsed page %c: %s\n", s->page, s->title);
    if (s->page == 'B') heist_event_set(&b_is_parsed);
    *out = s->title;
    return 0;
}

static int crawl(const heist_addr *server) {
    struct spider a = {.page = 'A', .server = server}, b = {.page = 'B', .server = server};
    heist_awaitable coroutine[2] = {HEIST_CORO(spider, &a), HEIST_CORO(spider, &b)};
    heist_future *task[2];
    void *title[2];
    int err = heist_ensure_futures(NULL, coroutine, 2, NULL, NULL, task);
    if (err < 0) return err;
    err = heist_gather(task, 2, title, 0); /* returns when both have ended: a and b may stand here */
    if (err == 0) printf("titles: %s, %s\n", (char *)title[0], (char *)title[1]);
    heist_unref_all(task, 2);
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
        err = crawl(&where);
        heist_listener_close(listener);
        int ended = heist_await(server, NULL);
        heist_unref(server);
        return err < 0 ? err : ended;
    }
    heist_listener_close(listener);
    return err;
}

int main(void) {
    heist_loop *loop;
    heist_event_init(&b_is_parsed);
    if (heist_loop_new(NULL, &loop) < 0) return 1;
    int err = heist_loop_run_coroutine(loop, main_coro, NULL, NULL, NULL);
    heist_loop_close(loop);
    heist_loop_unref(loop);
    heist_event_destroy(&b_is_parsed);
    if (err < 0) fprintf(stderr, "crawler: %s\n", heist_strerror(err));
    return err < 0;
}
