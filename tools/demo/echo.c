/* Parts 2 and 4: the echo under load, and fork-join work beside it.
 *
 * The fork-join tree is counted by turns on one worker and on all of them, first without
 * the echo, then while it goes on.  Without it, "one worker" is a runtime of one, and the
 * speed-up can be compared with other machines'.  Beside it, "one worker" is one of the
 * echo's own, to which the whole tree is pinned: the same load, the same threads, and
 * only the sharing out differs.  Called by main.c on the main thread, which takes the
 * times.  The load's threads are the program's too: they need a core or two. */
#include "echo_load.h"
#include "echo_server.h"
#include "forkjoin.h"
#include "parts.h"
#include "report.h"
#include "table.h"

#include <heist.h>

#define PATIENCE 15.0

/* What goes on beside the echo; the stages of the load. */
enum stage { NOTHING, ONE_WORKER, ALL_WORKERS };

/* The load, and what it did in each stage, in however many stretches. */
struct echo_watch {
    heist_runtime *rt;
    struct echo_load *load;
    enum stage stage;
    double since;
    uint64_t requests_before;
    double processor_before;
    double seconds[ECHO_LOAD_STAGES];
    double processor[ECHO_LOAD_STAGES]; /* seconds of it that the workers used */
    uint64_t requests[ECHO_LOAD_STAGES];
};

static double processor_seconds(heist_runtime *rt) {
    double sum = 0;
    for (int i = 0; i < heist_runtime_workers(rt); i++) {
        heist_worker_stats s = HEIST_WORKER_STATS_INIT;
        if (heist_runtime_stats(rt, i, &s) == 0) sum += s.busy_seconds;
    }
    return sum;
}

/* Books the stretch that ends now, and begins one of the stage `next`. */
static void change_stage(struct echo_watch *w, enum stage next) {
    if (!w->load) return; /* no echo goes on */
    uint64_t requests = atomic_load_explicit(echo_load_requests(w->load), memory_order_relaxed);
    double now = heist_time(), processor = processor_seconds(w->rt);
    if (w->since > 0) {
        w->processor[w->stage] += processor - w->processor_before;
        w->seconds[w->stage] += now - w->since;
        w->requests[w->stage] += requests - w->requests_before;
    }
    echo_load_stage(w->load, (int)next);
    w->stage = next;
    w->since = now;
    w->requests_before = requests;
    w->processor_before = processor;
}

/* ---- part 4 ---- */

#define ROUNDS 3 /* one worker and all by turns: what the machine does else hits both */

struct contest {
    const char *beside; /* for the reader */
    struct forkjoin one[ROUNDS], all[ROUNDS];
};

static void run_contest(heist_runtime *rt, struct contest *c, const char *beside, int one_worker,
                        struct echo_watch *watch) {
    c->beside = beside;
    for (int i = 0; i < ROUNDS; i++) {
        table_phase("4 fork-join on one worker, %s", beside);
        change_stage(watch, ONE_WORKER);
        forkjoin_run(rt, one_worker, &c->one[i]);
        table_phase("4 fork-join on all workers, %s", beside);
        change_stage(watch, ALL_WORKERS);
        forkjoin_run(rt, FORKJOIN_ALL, &c->all[i]);
        table_say("  fork-join %s: %.3f s on one worker, %.3f s on all", beside, c->one[i].seconds,
                  c->all[i].seconds);
    }
    change_stage(watch, NOTHING);
}

static double median(const struct forkjoin runs[ROUNDS]) {
    double a = runs[0].seconds, b = runs[1].seconds, c = runs[2].seconds;
    double low = a < b ? a : b, high = a < b ? b : a;
    return c < low ? low : c > high ? high : c;
}

/* The number of tasks that were stolen in the rounds on all workers. */
static uint64_t judge_contest(const struct contest *c, int workers) {
    int right = 0, err = 0;
    uint64_t stolen = 0;
    for (int i = 0; i < ROUNDS; i++) {
        right += c->one[i].right + c->all[i].right;
        stolen += c->all[i].stolen;
        if (err == 0) err = c->one[i].err < 0 ? c->one[i].err : c->all[i].err;
    }
    report_law(right == 2 * ROUNDS, "%s: %d of %d trees of %llu tasks counted to the known answer (%s)", c->beside,
               right, 2 * ROUNDS, (unsigned long long)c->all[0].tasks, heist_error_name(err));
    if (err == 0)
        report_figure("%s, medians of %d: one worker %.3f s, all %d %.3f s, speed-up %.2f; %llu tasks stolen",
                      c->beside, ROUNDS, median(c->one), workers, median(c->all), median(c->one) / median(c->all),
                      (unsigned long long)stolen);
    return stolen;
}

static void judge_forkjoin(const struct contest *without, const struct contest *with, int workers) {
    report_part("4  fork-join: %d queens", FORKJOIN_BOARD);
    uint64_t quiet = judge_contest(without, workers), busy = judge_contest(with, workers);
    if (workers > 1) report_law(quiet > 0 && busy > 0, "workers took tasks from each other");
}

/* ---- part 2 ---- */

static void tell_latencies(const struct echo_watch *w, const struct echo_load_result *r) {
    static const char *const beside[ECHO_LOAD_STAGES] = {
        [NOTHING] = "echo alone", [ONE_WORKER] = "beside 4 on one worker", [ALL_WORKERS] = "beside 4 on all"};
    for (int i = 0; i < ECHO_LOAD_STAGES; i++) {
        const struct latency *l = &r->latency[i];
        if (w->seconds[i] > 0)
            report_figure("%s: %.0f requests/s, p50 %.2f ms, p99 %.2f ms, p99.9 %.2f ms, worst %.1f ms", beside[i],
                          (double)w->requests[i] / w->seconds[i], latency_quantile(l, 0.5) * 1e3,
                          latency_quantile(l, 0.99) * 1e3, latency_quantile(l, 0.999) * 1e3,
                          (double)l->max_ns / 1e6);
    }
    if (w->requests[NOTHING] > 0)
        report_figure("echo alone: %.2f us of the workers' processor time for each request",
                      w->processor[NOTHING] / (double)w->requests[NOTHING] * 1e6);
}

static void judge_echo(const struct echo_load_result *r, const struct echo_totals *server, int wanted) {
    report_law(r->connected == wanted && server->accepted == (uint64_t)wanted,
               "%d of %d connections were made, %llu accepted", r->connected, wanted,
               (unsigned long long)server->accepted);
    report_law(r->wrong == 0, "every byte that came back was the right one (%llu were not)",
               (unsigned long long)r->wrong);
    report_law(r->requests > 0 && r->sent == r->received && server->bytes_in == r->sent &&
                   server->bytes_out == r->received,
               "no byte was lost: %llu sent, %llu read and %llu written by the server, %llu received",
               (unsigned long long)r->sent, (unsigned long long)server->bytes_in,
               (unsigned long long)server->bytes_out, (unsigned long long)r->received);
    report_law(r->unanswered == 0 && server->failures == 0 && server->open == 0,
               "every message was answered and every stream came to its end (%llu, %llu, %zu did not)",
               (unsigned long long)r->unanswered, (unsigned long long)server->failures, server->open);
}

static void drive(heist_runtime *rt, struct echo_server *server, const struct demo_options *options,
                  const struct contest *without) {
    static struct echo_load_result r; /* its histograms are too much for a stack */
    struct echo_load *load = NULL;
    struct contest with;
    int workers = heist_runtime_workers(rt), threads = workers < 4 ? 1 : workers < 16 ? 2 : 4;
    const heist_addr *where = echo_server_addr(server);
    int err = echo_load_start((const struct sockaddr *)&where->storage, where->length, options->connections, threads,
                              &load);
    if (!report_law(err == 0, "%d connections to the server (%s)", options->connections, heist_error_name(err))) return;

    struct echo_watch watch = {.rt = rt, .load = load};
    table_rate("requests", echo_load_requests(load));
    table_phase("2 echo: %d connections, %d load threads", options->connections, threads);
    double start = heist_time();
    change_stage(&watch, NOTHING);
    heist_sleep(options->seconds / 2);
    run_contest(rt, &with, "beside the echo", FORKJOIN_PINNED, &watch);
    table_phase("2 echo: %d connections, %d load threads", options->connections, threads);
    heist_sleep_until(start + options->seconds);
    change_stage(&watch, NOTHING);

    table_phase("2 echo: the last answers");
    table_rate(NULL, NULL);
    echo_load_stop(load, PATIENCE, &r);
    struct echo_totals totals;
    echo_server_drain(server, PATIENCE, 0);
    echo_server_totals(server, &totals);
    table_say("  %llu messages came back whole", (unsigned long long)r.requests);
    tell_latencies(&watch, &r);
    judge_echo(&r, &totals, options->connections);
    judge_forkjoin(without, &with, workers);
}

void echo_run(heist_runtime *rt, const struct demo_options *options) {
    struct contest without;
    struct echo_server *server = NULL;
    heist_addr loopback;
    table_say("4  fork-join work: %d queens", FORKJOIN_BOARD);
    struct echo_watch nothing = {0};
    run_contest(rt, &without, "without the echo", FORKJOIN_ALONE, &nothing);
    table_say("2  the echo, %d connections, and 4 again beside it", options->connections);
    report_part("2  the echo: %d connections", options->connections);
    int err = heist_addr_parse("127.0.0.1:0", &loopback);
    if (err == 0) err = echo_server_start(rt, &loopback, &server);
    if (!report_law(err == 0, "a server with a listener for each worker (%s)", heist_error_name(err))) return;
    drive(rt, server, options, &without);
    if (echo_server_drain(server, PATIENCE, 1) == 0) echo_server_free(server);
}
