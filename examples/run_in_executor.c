/* run_in_executor: blocking calls beside a loop.
 *
 * Twenty pages are fetched by plain, blocking sockets, from a server that this program brings along.  A function that
 * blocks has no place in a coroutine: it would hold the loop.  So each fetch is a job for a pool of threads, and what
 * comes back is a future like any other: wait takes them all.  With one thread they run one after the other, with ten
 * side by side; meanwhile the loop goes on ticking. */
#include <arpa/inet.h>
#include <heist.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PAGES 20

/* ---- the server: tasks on the same loop ---- */

static int serve_one(void *arg, void **out) {
    static const char answer[] = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 6\r\n\r\nhello\n";
    heist_conn *conn = arg;
    char request[512];
    (void)out;
    ptrdiff_t n = heist_conn_read(conn, request, sizeof request, HEIST_FOREVER);
    if (n <= 0) return (int)n;
    return heist_conn_write(conn, answer, sizeof answer - 1, HEIST_FOREVER, NULL);
}

static void close_conn(void *conn) { heist_conn_close(conn); }

static int serve(void *arg, void **out) {
    heist_listener *listener = arg;
    heist_task_options options = HEIST_TASK_OPTIONS_INIT;
    (void)out;
    options.arg_free = close_conn; /* runs once, however the task ends */
    for (;;) {
        heist_conn *conn;
        int err = heist_accept(listener, HEIST_FOREVER, &conn);
        if (err < 0) return err == HEIST_ECLOSED ? 0 : err;
        if (heist_create_task(serve_one, conn, &options, NULL) < 0) heist_conn_close(conn);
    }
}

/* ---- a fetch that blocks: on a thread of the pool ---- */

static int get_url(void *arg, void **out) {
    static const char request[] = "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";
    const int *port = arg;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)*port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    char *page = calloc(1, 4096);
    ssize_t n = page ? 0 : -1;
    size_t have = 0;
    if (n == 0) n = connect(fd, (struct sockaddr *)&address, sizeof address);
    if (n == 0) n = write(fd, request, sizeof request - 1);
    while (n > 0 && have < 4095 && (n = read(fd, page + have, 4095 - have)) > 0) have += (size_t)n;
    int err = n < 0 ? -errno : 0;
    close(fd);
    if (err) {
        free(page);
        return heist_fail(err, "no page from port %d", *port);
    }
    *out = page;
    return 0;
}

static int tick(void *arg, void **out) {
    int *ticks = arg;
    (void)out;
    for (int err;; (*ticks)++)
        if ((err = heist_sleep(0.001)) < 0) return err;
}

static int fetch_all(int threads, int *port) {
    heist_executor_options opts = HEIST_EXECUTOR_OPTIONS_INIT;
    heist_job_options job = HEIST_JOB_OPTIONS_INIT;
    heist_executor *executor;
    heist_future *page[PAGES] = {NULL};
    void *text;
    opts.max_threads = threads;
    job.result_free = free;
    int err = heist_executor_new(&opts, &executor);
    if (err < 0) return err;
    for (int i = 0; i < PAGES && err == 0; i++)
        err = heist_loop_run_in_executor(NULL, executor, get_url, port, &job, &page[i]); /* returns a future */
    if (err == 0) err = heist_wait(page, PAGES, HEIST_ALL_COMPLETED, HEIST_FOREVER, NULL); /* how many are done */
    if (err > 0) err = 0;
    int good = 0;
    for (int i = 0; i < PAGES && err == 0; i++) {
        err = heist_future_result(page[i], &text);
        if (err == 0) good += strstr(text, "\r\n\r\nhello\n") != NULL;
    }
    heist_executor_stats stats = HEIST_EXECUTOR_STATS_INIT;
    if (err == 0) err = heist_executor_get_stats(executor, &stats);
    const char *kept = stats.threads <= threads ? "yes" : "no";
    if (err == 0) printf("%d pages by at most %d threads: %s\n", good, threads, kept);
    for (int i = 0; i < PAGES; i++) heist_unref(page[i]);
    heist_executor_shutdown(executor, 0);
    heist_executor_unref(executor);
    return err;
}

static int length_of(void *arg, void **out) {
    static int length;
    length = (int)strlen(arg); /* imagine a call that blocks */
    *out = &length;
    return 0;
}

static int main_coro(void *arg, void **out) {
    heist_listener *listener;
    heist_task *server, *ticker;
    heist_addr where;
    char text[64];
    int ticks = 0, port = 0;
    (void)arg, (void)out;
    int err = heist_addr_parse("127.0.0.1:0", &where);
    if (err == 0) err = heist_listen(&where, NULL, &listener);
    if (err < 0) return err;
    err = heist_listener_addr(listener, &where);
    if (err == 0 && heist_addr_format(&where, text, sizeof text) < 0) err = -EINVAL;
    if (err == 0) port = atoi(strchr(text, ':') + 1);
    if (err == 0) err = heist_create_task(serve, listener, NULL, &server);
    if (err < 0) {
        heist_listener_close(listener);
        return err;
    }
    ticker = NULL;
    err = heist_create_task(tick, &ticks, NULL, &ticker);
    if (err == 0) err = fetch_all(1, &port);
    if (err == 0) err = fetch_all(10, &port);
    printf("the loop went on: %s\n", ticks > 0 ? "yes" : "no");
    heist_listener_close(listener); /* the server ends with it */
    heist_await(server, NULL);
    heist_unref(server);
    if (ticker) heist_cancel(ticker);
    heist_unref(ticker);
    void *length = NULL;
    if (err == 0) err = heist_to_thread(length_of, "asyncio", &length); /* the default pool, and await, in one */
    if (err == 0) printf("to_thread: %d\n", *(int *)length);
    return err;
}

int main(void) {
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    opts.workers = 1; /* one loop, as in asyncio */
    int err = heist_run(main_coro, NULL, &opts, NULL);
    if (err < 0) fprintf(stderr, "run_in_executor: %s\n", heist_strerror(err));
    return err < 0;
}
