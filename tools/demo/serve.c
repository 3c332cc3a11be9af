/* `serve`: the echo server alone, until SIGINT or SIGTERM, then drain and report.
 *
 * The main thread waits for the signal, which main.c blocked before any thread began;
 * the workers never see it.  A second signal during the drain ends the wait. */
#include "echo_server.h"
#include "parts.h"
#include "report.h"
#include "table.h"

#include <heist.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#define DRAIN_SECONDS 5.0

static int server_address(const struct demo_options *options, heist_addr *out) {
    char text[128];
    const char *a = options->address;
    int v6 = strchr(a, ':') != NULL && a[0] != '[';
    snprintf(text, sizeof text, v6 ? "[%s]:%d" : "%s:%d", a, options->port);
    return heist_addr_parse(text, out);
}

static void judge(struct echo_server *s, size_t open) {
    struct echo_totals t;
    echo_server_totals(s, &t);
    report_part("echo server");
    report_figure("%llu connections, %llu echoes, %llu bytes, %llu ended by an error of the peer",
                  (unsigned long long)t.accepted,
                  (unsigned long long)atomic_load_explicit(echo_server_echoes(s), memory_order_relaxed),
                  (unsigned long long)t.bytes_in, (unsigned long long)t.failures);
    report_law(open == 0, "the server drained within %.0f s (%zu connections were open still)", DRAIN_SECONDS, open);
    report_law(t.bytes_in == t.bytes_out || t.failures > 0, "what was read was echoed: %llu bytes in, %llu out",
               (unsigned long long)t.bytes_in, (unsigned long long)t.bytes_out);
}

int serve_run(heist_runtime *rt, const struct demo_options *options) {
    struct echo_server *server = NULL;
    heist_addr where;
    char text[128];
    sigset_t ends;
    int signal_number = 0;
    int err = server_address(options, &where);
    if (err == 0) err = echo_server_start(rt, &where, &server);
    if (err < 0) return err;
    heist_addr_format(echo_server_addr(server), text, sizeof text);
    table_say("echo server on %s, %d workers; Ctrl-C drains and ends it", text, heist_runtime_workers(rt));
    table_phase("serving %s", text);
    table_rate("echoes", echo_server_echoes(server));

    sigemptyset(&ends);
    sigaddset(&ends, SIGINT);
    sigaddset(&ends, SIGTERM);
    sigwait(&ends, &signal_number);

    table_say("%s: draining", signal_number == SIGINT ? "SIGINT" : "SIGTERM");
    table_phase("draining");
    size_t open = echo_server_drain(server, DRAIN_SECONDS, 1);
    table_rate(NULL, NULL);
    judge(server, open);
    if (open == 0) echo_server_free(server); /* else the runtime's close ends them; the process ends soon after */
    return 0;
}
