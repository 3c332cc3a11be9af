/* libheist-dns against name_server.c, which answers, fails, lies, is late or is silent as the name says.
 *
 * In machine time: c-ares has its own clock.  No test compares it; where something must time out its limit is short,
 * and where it must not it is long. */
#include "support/harness.h"

#include <arpa/inet.h>
#include <heist/dns.h>
#include <math.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "dns/name_server.h"

#define LONG 60.0 /* seconds that a server has, where it shall answer */

struct world {
    struct name_server *server;
    heist_dns *dns;
    heist_dns_options opts;
    int (*body)(struct world *w);
    char servers[64];
    bool keep; /* it is not ended by the main task */
};

/* In a body, where nothing may be asserted: says where, and ends it. */
#define EXPECT(condition)                                                                                              \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                                    \
            return -EPROTO;                                                                                            \
        }                                                                                                              \
    } while (0)

static int main_task(void *arg, void **out) {
    struct world *w = arg;
    heist_loop *loop;
    (void)out;
    int err = heist_get_running_loop(&loop);
    if (err) return err;
    w->server = name_server_start(loop);
    if (!w->server) return -EADDRINUSE;
    if (!w->opts.servers) {
        snprintf(w->servers, sizeof w->servers, "%s", name_server_where(w->server));
        w->opts.servers = w->servers;
    }
    err = heist_dns_new(&w->opts, &w->dns);
    if (err) return err;
    err = w->body(w);
    if (!w->keep) {
        heist_dns_unref(w->dns);
        w->dns = NULL;
    }
    return err;
}

static int run_world(struct world *w, int (*body)(struct world *w)) {
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    opts.workers = harness_workers();
    w->body = body;
    int err = heist_run(main_task, w, &opts, NULL);
    name_server_stop(w->server);
    w->server = NULL;
    return err;
}

static struct world new_world(void) {
    heist_dns_options opts = HEIST_DNS_OPTIONS_INIT;
    opts.flags = HEIST_DNS_NO_SEARCH;
    opts.timeout = LONG;
    return (struct world){.opts = opts};
}

static bool same_host(const heist_addr *a, const heist_addr *b) {
    char left[128], right[128];
    heist_addr_format(a, left, sizeof left);
    heist_addr_format(b, right, sizeof right);
    return strcmp(left, right) == 0;
}

/* How many of the addresses are not those that the name server gives this name. */
static size_t wrong(const heist_addrinfo_list *list, const char *name) {
    size_t n = 0;
    for (size_t i = 0; i < list->count; i++) {
        heist_addr want;
        name_server_address(name, list->at[i].addr.storage.ss_family, &want);
        n += !same_host(&list->at[i].addr, &want);
    }
    return n;
}

/* The number of right addresses, or a code; -EPROTO: a wrong one. */
static int ask(struct world *w, const char *name, int family) {
    heist_addrinfo_list *list = NULL;
    int err = heist_dns_lookup(w->dns, name, family, 0, HEIST_FOREVER, &list);
    if (err) return list ? -EPROTO : err;
    int count = wrong(list, name) ? -EPROTO : (int)list->count;
    heist_freeaddrinfo(list);
    return count;
}

static heist_dns_stats stats_of(struct world *w) {
    heist_dns_stats s = HEIST_DNS_STATS_INIT;
    if (heist_dns_get_stats(w->dns, &s)) abort();
    return s;
}

/* ---- good answers ---- */

static int ask_for_kinds(struct world *w) {
    EXPECT(ask(w, "a.test", 0) == 2);
    EXPECT(ask(w, "a.test", AF_INET) == 1);
    EXPECT(ask(w, "a.test", AF_INET6) == 1);
    EXPECT(ask(w, "a.v4.test", 0) == 1);
    EXPECT(ask(w, "a.v6.test", 0) == 1);
    EXPECT(ask(w, "a.v6.test", AF_INET) == HEIST_ENOADDRESS);
    EXPECT(ask(w, "a.empty.test", 0) == HEIST_ENOADDRESS);
    EXPECT(ask(w, "UPPER.Case.Test", 0) == 2);
    EXPECT(ask(w, "a.late.test", 0) == 2);
    EXPECT(ask(w, "127.0.0.9", 0) == -EPROTO); /* a literal is itself, and not the server's */
    EXPECT(name_server_tcp_questions(w->server) == 0);
    EXPECT(stats_of(w).pending == 0);
    return 0;
}

static void addresses_of_the_kind_that_was_asked_for(void **state) {
    (void)state;
    struct world w = new_world();
    assert_int_equal(run_world(&w, ask_for_kinds), 0);
}

static int ask_for_aliases(struct world *w) {
    heist_addrinfo_list *list = NULL;
    EXPECT(heist_dns_lookup(w->dns, "x.alias.test", 0, HEIST_AI_CANONNAME, HEIST_FOREVER, &list) == 0);
    EXPECT(list->count == 2 && wrong(list, "x.alias.test") == 0);
    EXPECT(list->canonical && strcmp(list->canonical, "alias2-x.target.test") == 0);
    heist_freeaddrinfo(list);
    EXPECT(heist_dns_lookup(w->dns, "y.test", 0, HEIST_AI_CANONNAME, HEIST_FOREVER, &list) == 0);
    EXPECT(list->canonical && strcmp(list->canonical, "y.test") == 0);
    heist_freeaddrinfo(list);
    return 0;
}

static void a_chain_of_aliases_is_followed_and_its_end_is_the_canonical_name(void **state) {
    (void)state;
    struct world w = new_world();
    assert_int_equal(run_world(&w, ask_for_aliases), 0);
}

static int ask_for_long_answers(struct world *w) {
    heist_addrinfo_list *list = NULL;
    EXPECT(ask(w, "a.long.test", 0) == 2);
    EXPECT(name_server_tcp_questions(w->server) == 2);
    EXPECT(heist_dns_lookup(w->dns, "a.many20.test", AF_INET, 0, HEIST_FOREVER, &list) == 0);
    EXPECT(list->count == 20 && wrong(list, "a.many20.test") == 19);
    heist_freeaddrinfo(list);
    EXPECT(heist_dns_lookup(w->dns, "a.many100.long.test", 0, 0, HEIST_FOREVER, &list) == 0);
    EXPECT(list->count == 200);
    heist_freeaddrinfo(list);
    return 0;
}

static void a_truncated_answer_is_asked_for_again_over_TCP(void **state) {
    (void)state;
    struct world w = new_world();
    assert_int_equal(run_world(&w, ask_for_long_answers), 0);
}

static int ask_over_tcp(struct world *w) {
    EXPECT(ask(w, "a.test", 0) == 2);
    EXPECT(ask(w, "b.late.test", 0) == 2);
    EXPECT(ask(w, "c.nx.test", 0) == HEIST_ENONAME);
    EXPECT(name_server_tcp_questions(w->server) == name_server_questions(w->server));
    return 0;
}

static void all_queries_may_go_over_TCP(void **state) {
    (void)state;
    struct world w = new_world();
    w.opts.flags |= HEIST_DNS_TCP;
    assert_int_equal(run_world(&w, ask_over_tcp), 0);
}

static int ask_backwards(struct world *w) {
    static const char *const addresses[] = {"192.0.2.7:0", "[2001:db8::1234]:99"};
    char name[1025], want[64];
    heist_addr addr;
    for (int i = 0; i < 2; i++) {
        EXPECT(heist_addr_parse(addresses[i], &addr) == 0);
        name_server_name(&addr, want, sizeof want);
        EXPECT(heist_dns_reverse(w->dns, &addr, HEIST_FOREVER, name, sizeof name) == 0);
        EXPECT(strcmp(name, want) == 0);
        EXPECT(heist_dns_reverse(w->dns, &addr, HEIST_FOREVER, name, 5) == -EOVERFLOW);
    }
    EXPECT(heist_addr_parse("192.0.2.66:0", &addr) == 0);
    EXPECT(heist_dns_reverse(w->dns, &addr, HEIST_FOREVER, name, sizeof name) == HEIST_ENONAME);
    EXPECT(heist_addr_parse("192.0.2.67:0", &addr) == 0);
    EXPECT(heist_dns_reverse(w->dns, &addr, HEIST_FOREVER, name, sizeof name) == HEIST_ETRYAGAIN);
    EXPECT(heist_addr_parse("127.0.0.1:0", &addr) == 0); /* in /etc/hosts */
    long before = name_server_questions(w->server);
    EXPECT(heist_dns_reverse(w->dns, &addr, HEIST_FOREVER, name, sizeof name) == 0);
    EXPECT(name_server_questions(w->server) == before);
    return 0;
}

static void an_address_has_its_name(void **state) {
    (void)state;
    struct world w = new_world();
    assert_int_equal(run_world(&w, ask_backwards), 0);
}

static int ask_for_localhost(struct world *w) {
    heist_addrinfo_list *list = NULL;
    EXPECT(heist_dns_lookup(w->dns, "localhost", AF_INET, 0, HEIST_FOREVER, &list) == 0);
    char text[64];
    heist_addr_format(&list->at[0].addr, text, sizeof text);
    heist_freeaddrinfo(list);
    EXPECT(strcmp(text, "127.0.0.1:0") == 0);
    EXPECT(name_server_questions(w->server) == 0);
    return 0;
}

static void names_of_etc_hosts_are_not_asked_for(void **state) {
    (void)state;
    struct world w = new_world();
    assert_int_equal(run_world(&w, ask_for_localhost), 0);
}

/* ---- bad answers ---- */

static int ask_for_failures(struct world *w) {
    EXPECT(ask(w, "a.nx.test", 0) == HEIST_ENONAME);
    EXPECT(ask(w, "a.fail.test", 0) == HEIST_ETRYAGAIN);
    EXPECT(ask(w, "a.refuse.test", 0) == HEIST_ETRYAGAIN);
    EXPECT(ask(w, "a.format.test", 0) == HEIST_ENAMEFAIL);
    EXPECT(ask(w, "a.broken.test", AF_INET) == HEIST_ENAMEFAIL);
    EXPECT(ask(w, "a.test", 0) == 2); /* none of them spoils the next */
    return 0;
}

static void failures_have_their_codes(void **state) {
    (void)state;
    struct world w = new_world();
    assert_int_equal(run_world(&w, ask_for_failures), 0);
}

static int ask_liars(struct world *w) {
    EXPECT(ask(w, "a.wrongid.test", 0) == 2);
    EXPECT(ask(w, "a.wrongname.test", 0) == 2);
    EXPECT(ask(w, "a.garbage.test", 0) == 2);
    EXPECT(ask(w, "a.wrongid.wrongname.garbage.late.test", 0) == 2);
    return 0;
}

static void lies_are_not_believed(void **state) {
    (void)state;
    struct world w = new_world();
    assert_int_equal(run_world(&w, ask_liars), 0);
    w = new_world();
    w.opts.flags |= HEIST_DNS_TCP;
    assert_int_equal(run_world(&w, ask_liars), 0);
}

static int ask_the_cut(struct world *w) {
    EXPECT(ask(w, "a.cut.test", 0) == HEIST_ETRYAGAIN);
    EXPECT(ask(w, "a.test", 0) == 2);
    return 0;
}

static void a_connection_that_is_cut_is_no_answer(void **state) {
    (void)state;
    struct world w = new_world();
    assert_int_equal(run_world(&w, ask_the_cut), 0);
}

static int ask_the_silent(struct world *w) {
    EXPECT(ask(w, "a.silent.test", 0) == HEIST_ETRYAGAIN);
    while (name_server_questions(w->server) < 6) EXPECT(heist_sleep(0.001) == 0); /* it may be slow, too */
    EXPECT(name_server_questions(w->server) == 6); /* three tries of two kinds */
    return 0;
}

static int ask_the_deaf(struct world *w) {
    EXPECT(ask(w, "a.drop2.test", AF_INET) == 1);
    EXPECT(name_server_questions(w->server) >= 3);
    return 0;
}

static void a_silent_server_is_asked_again_and_given_up(void **state) {
    (void)state;
    struct world w = new_world();
    w.opts.timeout = 0.03;
    w.opts.tries = 3;
    assert_int_equal(run_world(&w, ask_the_silent), 0);
    w = new_world();
    w.opts.timeout = 0.03;
    w.opts.tries = 12; /* each with twice the time of the one before: a machine that is slow gets more */
    assert_int_equal(run_world(&w, ask_the_deaf), 0);
}

static int ask_nobody(struct world *w) {
    EXPECT(ask(w, "a.test", 0) == HEIST_ETRYAGAIN);
    return 0;
}

static void a_server_that_is_not_there_is_a_failure_at_once(void **state) {
    (void)state;
    struct world w = new_world();
    w.opts.servers = "127.0.0.1:1";
    assert_int_equal(run_world(&w, ask_nobody), 0);
}

static void a_second_server_answers_for_the_first(void **state) {
    (void)state;
    struct world w = new_world();
    heist_loop *loop = harness_real_loop();
    struct name_server *other = name_server_start(loop); /* nobody runs its loop: silent */
    assert_non_null(other);
    char servers[128];
    heist_runtime *rt = harness_runtime(0);
    struct name_server *good = name_server_start(heist_runtime_loop(rt, 0));
    assert_non_null(good);
    snprintf(servers, sizeof servers, "127.0.0.1:1,%s,%s", name_server_where(other), name_server_where(good));
    w.opts.servers = servers;
    w.opts.timeout = 0.05;
    w.opts.tries = 12;
    w.opts.loop = heist_runtime_loop(rt, harness_workers() - 1);
    assert_int_equal(heist_dns_new(&w.opts, &w.dns), 0);
    assert_int_equal(ask(&w, "a.test", 0), 2);
    heist_dns_unref(w.dns);
    harness_runtime_end(rt);
    harness_loop_end(loop);
    name_server_stop(good);
    name_server_stop(other);
}

/* ---- giving up ---- */

static int ask_silent_one(void *arg, void **out) {
    (void)out;
    return ask(arg, "a.silent.test", 0);
}

static int give_up(struct world *w) {
    heist_addrinfo_list *list = NULL;
    heist_addr addr;
    char name[64];
    EXPECT(heist_dns_lookup(w->dns, "a.silent.test", 0, 0, heist_time() + 0.005, &list) == -ETIMEDOUT && !list);
    heist_task *t;
    EXPECT(heist_create_task(ask_silent_one, w, NULL, &t) == 0);
    EXPECT(heist_sleep(0.002) == 0);
    EXPECT(heist_cancel(t) == 1);
    EXPECT(heist_await(t, NULL) == -ECANCELED);
    heist_unref(t);
    EXPECT(heist_addr_parse("192.0.2.1:0", &addr) == 0);
    EXPECT(heist_dns_reverse(w->dns, &addr, heist_time() - 1, name, sizeof name) == -ETIMEDOUT ||
           heist_dns_reverse(w->dns, &addr, HEIST_FOREVER, name, sizeof name) == 0);
    EXPECT(stats_of(w).pending > 0); /* the queries go on, and end with the runtime */
    EXPECT(ask(w, "b.test", 0) == 2);
    return 0;
}

static void who_is_late_or_cancelled_leaves_the_query_behind(void **state) {
    (void)state;
    struct world w = new_world();
    assert_int_equal(run_world(&w, give_up), 0);
}

struct asking {
    struct world *w;
    const char *name;
    _Atomic(int) result;
};

static int ask_one(void *arg, void **out) {
    struct asking *a = arg;
    (void)out;
    a->result = ask(a->w, a->name, 0);
    return 0;
}

static int close_under_queries(struct world *w) {
    struct asking a[6];
    heist_task *t[6];
    for (int i = 0; i < 6; i++) {
        a[i] = (struct asking){w, i % 2 ? "a.silent.test" : "b.silent.long.test", 0};
        EXPECT(heist_create_task(ask_one, &a[i], NULL, &t[i]) == 0);
    }
    while (name_server_questions(w->server) < 2) EXPECT(heist_sleep(0.001) == 0);
    heist_dns_close(w->dns);
    for (int i = 0; i < 6; i++) {
        EXPECT(heist_await(t[i], NULL) == 0);
        EXPECT(a[i].result == HEIST_ECLOSED);
        heist_unref(t[i]);
    }
    EXPECT(ask(w, "c.test", 0) == HEIST_ECLOSED);
    EXPECT(stats_of(w).pending == 0);
    heist_dns_close(w->dns);
    return 0;
}

static void a_close_ends_all_lookups(void **state) {
    (void)state;
    struct world w = new_world();
    assert_int_equal(run_world(&w, close_under_queries), 0);
}

static void *ask_in_thread(void *arg) {
    ask_one(arg, NULL);
    return NULL;
}

/* Threads of the program's own wait while the runtime that drives the resolver closes. */
static void the_close_of_its_loop_ends_all_lookups(void **state) {
    (void)state;
    for (int round = 0; round < 8; round++) {
        struct world w = new_world();
        heist_runtime *rt = harness_runtime(0);
        w.opts.loop = heist_runtime_loop(rt, round % harness_workers());
        w.server = name_server_start(heist_runtime_loop(rt, 0));
        assert_non_null(w.server);
        w.opts.servers = name_server_where(w.server);
        assert_int_equal(heist_dns_new(&w.opts, &w.dns), 0);
        struct asking a[3];
        pthread_t threads[3];
        for (int i = 0; i < 3; i++) {
            a[i] = (struct asking){&w, i ? "a.silent.test" : "b.silent.test", 0};
            threads[i] = harness_thread(ask_in_thread, &a[i]);
        }
        /* Before, in the middle of, and after the first question. */
        if (round % 2)
            while (stats_of(&w).lookups < 3) heist_sleep(0.0005);
        if (round % 4 == 3)
            while (name_server_questions(w.server) < 4) heist_sleep(0.0005);
        harness_runtime_end(rt);
        for (int i = 0; i < 3; i++) {
            harness_join(threads[i]);
            assert_int_equal(a[i].result, HEIST_ECLOSED);
        }
        assert_int_equal(ask(&w, "c.test", 0), HEIST_ECLOSED);
        heist_dns_unref(w.dns);
        name_server_stop(w.server);
    }
}

/* ---- many ---- */

static int ask_the_same(struct world *w) {
    struct asking a[20];
    heist_task *t[20];
    for (int i = 0; i < 20; i++) {
        a[i] = (struct asking){w, i % 2 ? "same.late.test" : "SAME.late.TEST", 0};
        EXPECT(heist_create_task(ask_one, &a[i], NULL, &t[i]) == 0);
    }
    for (int i = 0; i < 20; i++) {
        EXPECT(heist_await(t[i], NULL) == 0);
        EXPECT(a[i].result == 2);
        heist_unref(t[i]);
    }
    heist_dns_stats s = stats_of(w);
    EXPECT(s.lookups == 20 && s.asked + s.shared == 20 && s.cached == 0);
    EXPECT(name_server_questions(w->server) == 2 * (long)s.asked);
    return 0;
}

static void lookups_of_one_name_share_one_query(void **state) {
    (void)state;
    struct world w = new_world();
    assert_int_equal(run_world(&w, ask_the_same), 0);
}

/* Certain to share: the query is under way, and its answer comes later. */
static int join_a_query(struct world *w) {
    struct asking a[2];
    heist_task *t[2];
    for (int i = 0; i < 2; i++) {
        a[i] = (struct asking){w, "one.drop1.test", 0}; /* answered at the second try */
        EXPECT(heist_create_task(ask_one, &a[i], NULL, &t[i]) == 0);
        while (name_server_questions(w->server) < 2) EXPECT(heist_sleep(0.001) == 0);
    }
    for (int i = 0; i < 2; i++) {
        EXPECT(heist_await(t[i], NULL) == 0);
        EXPECT(a[i].result == 2);
        heist_unref(t[i]);
    }
    EXPECT(stats_of(w).lookups == 2);
    return 0;
}

static void who_comes_later_joins_the_query_under_way(void **state) {
    (void)state;
    struct world w = new_world();
    w.opts.timeout = 0.2;
    w.opts.tries = 12;
    assert_int_equal(run_world(&w, join_a_query), 0);
}

#define CROWD 150

static int ask_a_crowd(struct world *w) {
    static struct asking a[CROWD];
    static char names[CROWD][40];
    static heist_task *t[CROWD];
    static const char *const orders[] = {"", ".late", ".long", ".alias", ".wrongid", ".garbage"};
    for (int i = 0; i < CROWD; i++) {
        snprintf(names[i], sizeof names[i], "crowd-%d%s.test", i, orders[i % 6]);
        a[i] = (struct asking){w, names[i], 0};
        EXPECT(heist_create_task(ask_one, &a[i], NULL, &t[i]) == 0);
    }
    for (int i = 0; i < CROWD; i++) {
        EXPECT(heist_await(t[i], NULL) == 0);
        if (a[i].result != 2)
            fprintf(stderr, "%s: %s\n", names[i], a[i].result < 0 ? heist_error_name(a[i].result) : "too few");
        EXPECT(a[i].result == 2);
        heist_unref(t[i]);
    }
    return 0;
}

static void a_crowd_of_lookups_gets_each_its_own(void **state) {
    (void)state;
    struct world w = new_world();
    w.opts.timeout =
        10; /* if the kernel drops datagrams of a crowd they are asked for again; over TCP it is the only limit */
    w.opts.tries = 6;
    assert_int_equal(run_world(&w, ask_a_crowd), 0);
}

/* ---- the cache ---- */

static int use_cache(struct world *w) {
    heist_dns_stats s;
    EXPECT(ask(w, "a.test", 0) == 2 && ask(w, "A.TEST", 0) == 2 && ask(w, "a.test", 0) == 2);
    s = stats_of(w);
    EXPECT(s.asked == 1 && s.cached == 2 && s.kept == 1);
    EXPECT(ask(w, "a.test", AF_INET) == 1); /* another question */
    EXPECT(stats_of(w).asked == 2);
    EXPECT(ask(w, "b.ttl0.test", 0) == 2 && ask(w, "b.ttl0.test", 0) == 2); /* may not be kept */
    EXPECT(stats_of(w).asked == 4);
    EXPECT(ask(w, "c.nx.test", 0) == HEIST_ENONAME && ask(w, "c.nx.test", 0) == HEIST_ENONAME);
    EXPECT(ask(w, "c.empty.test", 0) == HEIST_ENOADDRESS && ask(w, "c.empty.test", 0) == HEIST_ENOADDRESS);
    s = stats_of(w);
    EXPECT(s.asked == 6 && s.cached == 4 && s.kept == 4);
    EXPECT(ask(w, "d.fail.test", 0) == HEIST_ETRYAGAIN && ask(w, "d.fail.test", 0) == HEIST_ETRYAGAIN);
    EXPECT(stats_of(w).asked == 8); /* not known to be so */
    heist_dns_clear_cache(w->dns);
    EXPECT(stats_of(w).kept == 0);
    EXPECT(ask(w, "a.test", 0) == 2);
    EXPECT(stats_of(w).asked == 9);
    return 0;
}

static void answers_are_kept_for_as_long_as_they_allow(void **state) {
    (void)state;
    struct world w = new_world();
    w.opts.cache_entries = 100;
    w.opts.cache_negative_ttl = 3600;
    assert_int_equal(run_world(&w, use_cache), 0);
}

static int outlive_cache(struct world *w) {
    EXPECT(ask(w, "a.test", 0) == 2);
    EXPECT(stats_of(w).kept == 1);
    EXPECT(heist_sleep(0.03) == 0);
    EXPECT(ask(w, "a.test", 0) == 2);
    EXPECT(stats_of(w).asked == 2 && stats_of(w).cached == 0);
    EXPECT(ask(w, "b.nx.test", 0) == HEIST_ENONAME && ask(w, "b.nx.test", 0) == HEIST_ENONAME);
    EXPECT(stats_of(w).asked == 4); /* without cache_negative_ttl */
    return 0;
}

static void an_answer_that_is_too_old_is_asked_for_again(void **state) {
    (void)state;
    struct world w = new_world();
    w.opts.cache_entries = 100;
    w.opts.cache_max_ttl = 0.02;
    assert_int_equal(run_world(&w, outlive_cache), 0);
}

static int wait_for_ttl(struct world *w) {
    EXPECT(ask(w, "a.ttl1.test", 0) == 2 && ask(w, "b.ttl1.alias.test", 0) == 2);
    EXPECT(stats_of(w).kept == 2);
    EXPECT(heist_sleep(1.01) == 0);
    EXPECT(ask(w, "a.ttl1.test", 0) == 2 && ask(w, "b.ttl1.alias.test", 0) == 2);
    EXPECT(stats_of(w).asked == 4);
    return 0;
}

static void a_time_to_live_ends_in_seconds(void **state) {
    (void)state;
    struct world w = new_world();
    w.opts.cache_entries = 100;
    assert_int_equal(run_world(&w, wait_for_ttl), 0);
}

static int fill_cache(struct world *w) {
    EXPECT(ask(w, "a.test", 0) == 2 && ask(w, "b.test", 0) == 2);
    EXPECT(ask(w, "a.test", 0) == 2); /* used last, so b goes */
    EXPECT(ask(w, "c.test", 0) == 2);
    EXPECT(stats_of(w).kept == 2 && stats_of(w).asked == 3);
    EXPECT(ask(w, "a.test", 0) == 2 && stats_of(w).asked == 3);
    EXPECT(ask(w, "b.test", 0) == 2 && stats_of(w).asked == 4);
    return 0;
}

static void a_full_cache_forgets_what_was_not_used_for_longest(void **state) {
    (void)state;
    struct world w = new_world();
    w.opts.cache_entries = 2;
    assert_int_equal(run_world(&w, fill_cache), 0);
}

/* ---- in the system's place ---- */

static int use_installed(struct world *w) {
    heist_addrinfo_list *list = NULL;
    heist_addrinfo_hints hints = HEIST_ADDRINFO_HINTS_INIT;
    heist_addr addr;
    char host[1025], service[32], want[64];
    EXPECT(heist_dns_install(w->dns, NULL) == 0);
    hints.socktype = SOCK_DGRAM;
    EXPECT(heist_getaddrinfo("x.test", "5353", &hints, HEIST_FOREVER, &list) == 0);
    EXPECT(list->count == 2 && list->at[0].socktype == SOCK_DGRAM && list->at[0].protocol == IPPROTO_UDP);
    for (int i = 0; i < 2; i++) {
        heist_addr_format(&list->at[i].addr, host, sizeof host);
        EXPECT(strcmp(strrchr(host, ':'), ":5353") == 0);
    }
    heist_freeaddrinfo(list);
    list = NULL;
    EXPECT(heist_getaddrinfo("x.nx.test", "80", NULL, HEIST_FOREVER, &list) == HEIST_ENONAME && !list);
    EXPECT(heist_getaddrinfo("x.silent.test", "80", NULL, heist_time() + 0.005, &list) == -ETIMEDOUT && !list);
    EXPECT(heist_addr_parse("192.0.2.9:80", &addr) == 0);
    name_server_name(&addr, want, sizeof want);
    EXPECT(heist_getnameinfo(&addr, HEIST_NI_NUMERICSERV, HEIST_FOREVER, host, sizeof host, service, sizeof service) ==
           0);
    EXPECT(strcmp(host, want) == 0 && strcmp(service, "80") == 0);
    EXPECT(heist_addr_parse("192.0.2.66:80", &addr) == 0);
    EXPECT(heist_getnameinfo(&addr, 0, HEIST_FOREVER, host, sizeof host, NULL, 0) == 0);
    EXPECT(strcmp(host, "192.0.2.66") == 0);
    EXPECT(heist_getnameinfo(&addr, HEIST_NI_NAMEREQD, HEIST_FOREVER, host, sizeof host, NULL, 0) == HEIST_ENONAME);
    return 0;
}

static void an_installed_resolver_answers_getaddrinfo_and_goes_with_the_runtime(void **state) {
    (void)state;
    struct world w = new_world();
    assert_int_equal(run_world(&w, use_installed), 0);
}

/* What stands on getaddrinfo asks it too. */
static _Atomic(int) freed, reports;
static void count_free(void *arg) {
    (void)arg;
    freed++;
}
static void count_report(heist_loop *loop, const heist_report *report, void *user) {
    (void)loop, (void)report, (void)user;
    reports++;
}
static int never(void *arg) {
    (void)arg;
    abort();
}

/* A callback that would come in an hour, whose argument tells when its loop is closed. */
static void leave_word(heist_loop *loop) {
    heist_call_options opts = HEIST_CALL_OPTIONS_INIT;
    opts.arg_free = count_free;
    assert_int_equal(heist_loop_set_exception_handler(loop, count_report, NULL), 0);
    assert_int_equal(heist_loop_call_later(loop, 3600, never, &freed, &opts, NULL), 0);
}

static int asks_in_vain(void *arg, void **out) {
    heist_addrinfo_list *list = NULL;
    (void)out;
    *(int *)arg = heist_getaddrinfo("x.test", "80", NULL, HEIST_FOREVER, &list);
    return 0;
}

/* It does not keep what keeps it: loops and runtimes that are dropped, never closed. */
static void a_resolver_installed_on_its_own_loop_does_not_keep_it(void **state) {
    (void)state;
    heist_dns_options opts = HEIST_DNS_OPTIONS_INIT;
    heist_dns *dns = NULL;
    opts.flags = HEIST_DNS_NO_SEARCH | HEIST_DNS_NO_HOSTS;
    opts.servers = "127.0.0.1:1";
    freed = reports = 0;
    heist_loop *loop = NULL;
    assert_int_equal(heist_loop_new(NULL, &loop), 0);
    leave_word(loop);
    opts.loop = loop;
    assert_int_equal(heist_dns_new(&opts, &dns), 0);
    assert_int_equal(heist_dns_install(dns, loop), 0);
    heist_loop_unref(loop);
    assert_int_equal(freed, 0); /* a user's reference keeps the loop */
    heist_dns_unref(dns);
    assert_int_equal(freed, 1);
    assert_int_equal(reports, 1); /* that it was not closed */

    heist_runtime *rt = harness_runtime(0);
    loop = heist_runtime_loop(rt, 0);
    leave_word(loop);
    opts.loop = loop;
    assert_int_equal(heist_dns_new(&opts, &dns), 0);
    assert_int_equal(heist_dns_install(dns, loop), 0);
    heist_dns_unref(dns);
    heist_task *t;
    int answer = 0;
    assert_int_equal(heist_runtime_run_coroutine(rt, asks_in_vain, &answer, NULL, &t), 0);
    assert_int_equal(heist_await(t, NULL), 0);
    assert_int_equal(answer, HEIST_ETRYAGAIN);
    heist_unref(t);
    heist_runtime_unref(rt);
    while (freed < 2) heist_sleep(0.001);
}

static int drop_under_a_query(struct world *w) {
    struct asking a[2] = {{w, "a.late.test", 0}, {w, "b.late.test", 0}};
    heist_task *t[2];
    for (int i = 0; i < 2; i++) EXPECT(heist_create_task(ask_one, &a[i], NULL, &t[i]) == 0);
    while (stats_of(w).lookups < 2) EXPECT(heist_sleep(0.0005) == 0);
    heist_dns_unref(w->dns);
    for (int i = 0; i < 2; i++) {
        EXPECT(heist_await(t[i], NULL) == 0);
        heist_unref(t[i]);
        EXPECT(a[i].result == 2);
    }
    return 0;
}

static void lookups_under_way_outlive_the_last_reference(void **state) {
    (void)state;
    struct world w = new_world();
    w.keep = true;
    assert_int_equal(run_world(&w, drop_under_a_query), 0);
}

static int open_by_name(struct world *w) {
    heist_addr addr;
    heist_listener *listener = NULL;
    heist_stream *stream = NULL;
    char text[64];
    EXPECT(heist_dns_install(w->dns, NULL) == 0);
    EXPECT(heist_addr_parse("127.0.0.1:0", &addr) == 0);
    EXPECT(heist_listen(&addr, NULL, &listener) == 0);
    EXPECT(heist_listener_addr(listener, &addr) == 0);
    heist_addr_format(&addr, text, sizeof text);
    int err = heist_open_connection("x.here.test", strrchr(text, ':') + 1, NULL, &stream);
    int gone = err ? err : heist_open_connection("x.nx.test", "80", NULL, &stream);
    heist_listener_close(listener);
    if (!err) heist_stream_close(stream);
    heist_stream_unref(stream);
    EXPECT(err == 0);
    EXPECT(gone == HEIST_ENONAME);
    EXPECT(name_server_questions(w->server) >= 4);
    return 0;
}

static void open_connection_asks_the_installed_resolver(void **state) {
    (void)state;
    struct world w = new_world();
    assert_int_equal(run_world(&w, open_by_name), 0);
}

/* Two runtimes and a thread ask one resolver, on a third one's loop. */
static void one_resolver_serves_tasks_of_all_runtimes_and_threads(void **state) {
    (void)state;
    struct world w = new_world();
    heist_runtime *home = harness_runtime(0), *other = harness_runtime(0);
    w.opts.loop = heist_runtime_loop(home, 0);
    w.server = name_server_start(w.opts.loop);
    assert_non_null(w.server);
    w.opts.servers = name_server_where(w.server);
    assert_int_equal(heist_dns_new(&w.opts, &w.dns), 0);
    struct asking a[3] = {{&w, "a.test", 0}, {&w, "b.late.test", 0}, {&w, "c.late.test", 0}};
    heist_task *t[2];
    assert_int_equal(heist_runtime_run_coroutine(home, ask_one, &a[0], NULL, &t[0]), 0);
    assert_int_equal(heist_runtime_run_coroutine(other, ask_one, &a[1], NULL, &t[1]), 0);
    harness_join(harness_thread(ask_in_thread, &a[2]));
    for (int i = 0; i < 2; i++) {
        assert_int_equal(heist_await(t[i], NULL), 0);
        heist_unref(t[i]);
    }
    for (int i = 0; i < 3; i++) assert_int_equal(a[i].result, 2);
    assert_int_equal(heist_dns_install(w.dns, heist_runtime_loop(other, 0)), 0);
    heist_dns_unref(w.dns);
    harness_runtime_end(home); /* the loop goes first, then the runtime that has it installed */
    harness_runtime_end(other);
    name_server_stop(w.server);
}

/* ---- what runs out, bad input, forks ---- */

static int ask_without_descriptors(struct world *w) {
    struct rlimit files, few;
    EXPECT(getrlimit(RLIMIT_NOFILE, &files) == 0);
    few = files;
    few.rlim_cur = 3;
    EXPECT(setrlimit(RLIMIT_NOFILE, &few) == 0);
    int got = ask(w, "a.test", 0);
    EXPECT(setrlimit(RLIMIT_NOFILE, &files) == 0);
    EXPECT(got == -EMFILE);
    EXPECT(ask(w, "a.test", 0) == 2);
    return 0;
}

static void without_a_descriptor_the_lookup_says_so(void **state) {
    (void)state;
    if (harness_valgrind()) return; /* it keeps its own limit of descriptors */
    struct world w = new_world();
    assert_int_equal(run_world(&w, ask_without_descriptors), 0);
}

static int ask_in_callback(void *arg) {
    struct asking *a = arg;
    a->result = ask(a->w, a->name, 0);
    return 0;
}

static int refuse_bad_input(struct world *w) {
    heist_addrinfo_list *list = NULL;
    heist_addr addr, local;
    char name[64], endless[400];
    memset(endless, 'a', sizeof endless - 1);
    endless[sizeof endless - 1] = 0;
    heist_dns_stats stats = HEIST_DNS_STATS_INIT;
    EXPECT(heist_addr_parse("127.0.0.1:0", &addr) == 0 && heist_addr_parse("unix:/x", &local) == 0);
    EXPECT(heist_dns_lookup(NULL, "a", 0, 0, HEIST_FOREVER, &list) == -EINVAL);
    EXPECT(heist_dns_lookup(w->dns, NULL, 0, 0, HEIST_FOREVER, &list) == -EINVAL);
    EXPECT(heist_dns_lookup(w->dns, "a", 0, 0, HEIST_FOREVER, NULL) == -EINVAL);
    EXPECT(heist_dns_lookup(w->dns, "a", 0, HEIST_AI_PASSIVE, HEIST_FOREVER, &list) == -EINVAL);
    EXPECT(heist_dns_lookup(w->dns, "a", 0, 0, NAN, &list) == -EINVAL);
    EXPECT(heist_dns_lookup(w->dns, "a", AF_UNIX, 0, HEIST_FOREVER, &list) == -EAFNOSUPPORT);
    EXPECT(heist_dns_lookup(w->dns, "", 0, 0, HEIST_FOREVER, &list) == HEIST_ENONAME);
    EXPECT(heist_dns_lookup(w->dns, endless, 0, 0, HEIST_FOREVER, &list) == HEIST_ENONAME);
    EXPECT(heist_dns_lookup(w->dns, "a..b.test", 0, 0, HEIST_FOREVER, &list) == HEIST_ENONAME);
    endless[100] = 0;
    EXPECT(heist_dns_lookup(w->dns, endless, 0, 0, HEIST_FOREVER, &list) == HEIST_ENONAME); /* a label of 100 */
    EXPECT(heist_dns_reverse(w->dns, &local, HEIST_FOREVER, name, sizeof name) == -EAFNOSUPPORT);
    EXPECT(heist_dns_reverse(w->dns, &addr, HEIST_FOREVER, name, 0) == -EINVAL);
    EXPECT(heist_dns_reverse(w->dns, NULL, HEIST_FOREVER, name, 1) == -EINVAL);
    EXPECT(heist_dns_install(NULL, NULL) == -EINVAL);
    stats.size = 4;
    EXPECT(heist_dns_get_stats(w->dns, &stats) == -EINVAL);
    heist_dns *d = NULL;
    heist_dns_options o = HEIST_DNS_OPTIONS_INIT;
    EXPECT(heist_dns_new(&o, NULL) == -EINVAL);
    static const char *const bad[] = {"", "name.test", "1.2.3.4:x", ":53", "1.2.3.4,x"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        o.servers = bad[i];
        int err = heist_dns_new(&o, &d);
        if (err != -EINVAL) fprintf(stderr, "accepted: '%s'\n", bad[i]);
        EXPECT(err == -EINVAL && !d);
    }
    o.servers = NULL;
    o.flags = 0x80;
    EXPECT(heist_dns_new(&o, &d) == -EINVAL);
    o.flags = 0;
    o.timeout = NAN;
    EXPECT(heist_dns_new(&o, &d) == -EINVAL);
    o.timeout = 0;
    o.tries = -1;
    EXPECT(heist_dns_new(&o, &d) == -EINVAL);
    o.tries = 0;
    o.size = 7;
    EXPECT(heist_dns_new(&o, &d) == -EINVAL && !d);
    EXPECT(!list);
    heist_dns_unref(NULL);
    heist_dns_close(NULL);
    heist_loop *loop;
    struct asking a = {w, "a.test", 0};
    EXPECT(heist_get_running_loop(&loop) == 0);
    EXPECT(heist_loop_call_soon(loop, ask_in_callback, &a, NULL, NULL) == 0);
    while (!a.result) EXPECT(heist_sleep(0.001) == 0);
    EXPECT(a.result == HEIST_ENOTINCORO);
    return 0;
}

static void bad_input_and_callbacks_are_refused(void **state) {
    (void)state;
    struct world w = new_world();
    assert_int_equal(run_world(&w, refuse_bad_input), 0);
    heist_dns *d = NULL;
    assert_int_equal(heist_dns_new(NULL, &d), HEIST_ENOLOOP);
    heist_loop *loop = harness_loop();
    heist_loop_ref(loop);
    harness_loop_end(loop);
    w.opts.loop = loop;
    w.opts.servers = NULL;
    assert_int_equal(heist_dns_new(&w.opts, &d), HEIST_ECLOSED);
    heist_loop_unref(loop);
    assert_null(d);
}

static int fork_inside(struct world *w) {
    int ends[2], told = -1, status = -1; /* an observer such as valgrind may change the exit status */
    EXPECT(ask(w, "a.test", 0) == 2);
    EXPECT(pipe(ends) == 0);
    pid_t child = fork();
    EXPECT(child >= 0);
    if (child == 0) {
        heist_addrinfo_list *list;
        heist_dns *d;
        heist_addr addr;
        char name[64];
        heist_dns_stats stats = HEIST_DNS_STATS_INIT;
        int wrong_ones = heist_dns_lookup(w->dns, "a.test", 0, 0, HEIST_FOREVER, &list) != HEIST_EFORKED;
        if (heist_dns_new(&w->opts, &d) != HEIST_EFORKED) wrong_ones |= 2;
        if (heist_addr_parse("127.0.0.1:0", &addr)) wrong_ones |= 4;
        if (heist_dns_reverse(w->dns, &addr, HEIST_FOREVER, name, sizeof name) != HEIST_EFORKED) wrong_ones |= 8;
        if (heist_dns_install(w->dns, NULL) != HEIST_EFORKED) wrong_ones |= 16;
        if (heist_dns_get_stats(w->dns, &stats) != HEIST_EFORKED) wrong_ones |= 32;
        heist_dns_clear_cache(w->dns);
        heist_dns_close(w->dns);
        heist_dns_unref(w->dns);
        _exit(write(ends[1], &wrong_ones, sizeof wrong_ones) == sizeof wrong_ones ? 0 : 1);
    }
    close(ends[1]);
    EXPECT(waitpid(child, &status, 0) == child);
    EXPECT(read(ends[0], &told, sizeof told) == sizeof told && told == 0);
    close(ends[0]);
    EXPECT(ask(w, "b.test", 0) == 2);
    return 0;
}

static void child_is_refused(void **state) {
    (void)state;
    struct world w = new_world();
    assert_int_equal(run_world(&w, fork_inside), 0);
}

/* ---- each allocation of heist's allocator (c-ares has malloc) ---- */

static int ask_a_little(struct world *w) {
    heist_addrinfo_list *list = NULL;
    int err = heist_dns_install(w->dns, NULL);
    if (!err) err = heist_dns_lookup(w->dns, "a.test", 0, HEIST_AI_CANONNAME, HEIST_FOREVER, &list);
    heist_freeaddrinfo(list);
    list = NULL;
    if (!err) err = heist_getaddrinfo("b.long.test", "80", NULL, HEIST_FOREVER, &list);
    heist_freeaddrinfo(list);
    return err;
}

static void each_allocation_may_fail(void **state) {
    (void)state;
    for (long n = 1;; n++) {
        harness_loop_end(harness_loop());
        long blocks = harness_blocks();
        int descriptors = harness_descriptors();
        struct world w = new_world();
        w.opts.tries = 2;
        w.opts.timeout = 0.01; /* what could not be watched is not heard */
        harness_allocations();
        harness_fail_allocation(n, false);
        int err = run_world(&w, ask_a_little);
        harness_fail_allocation(0, false);
        long asked = harness_allocations();
        if (err && err != -ENOMEM && err != HEIST_ETRYAGAIN && err != -EADDRINUSE)
            fail_msg("allocation %ld: %s", n, heist_error_name(err));
        harness_loop_end(harness_loop());
        if (harness_blocks() > blocks) fail_msg("allocation %ld: blocks left", n);
        assert_int_equal(harness_descriptors(), descriptors);
        if (asked < n) break; /* nothing failed in this run */
        assert_true(n < 500);
    }
    struct world w = new_world();
    assert_int_equal(run_world(&w, ask_a_little), 0);
}

static const struct CMUnitTest tests[] = {
    API_TEST(addresses_of_the_kind_that_was_asked_for),
    API_TEST(a_chain_of_aliases_is_followed_and_its_end_is_the_canonical_name),
    API_TEST(a_truncated_answer_is_asked_for_again_over_TCP),
    API_TEST(all_queries_may_go_over_TCP),
    API_TEST(an_address_has_its_name),
    API_TEST(names_of_etc_hosts_are_not_asked_for),
    API_TEST(failures_have_their_codes),
    API_TEST(lies_are_not_believed),
    API_TEST(a_connection_that_is_cut_is_no_answer),
    API_TEST(a_silent_server_is_asked_again_and_given_up),
    API_TEST(a_server_that_is_not_there_is_a_failure_at_once),
    API_TEST(a_second_server_answers_for_the_first),
    API_TEST(who_is_late_or_cancelled_leaves_the_query_behind),
    API_TEST(a_close_ends_all_lookups),
    API_TEST(the_close_of_its_loop_ends_all_lookups),
    API_TEST(lookups_of_one_name_share_one_query),
    API_TEST(who_comes_later_joins_the_query_under_way),
    API_TEST(a_crowd_of_lookups_gets_each_its_own),
    API_TEST(answers_are_kept_for_as_long_as_they_allow),
    API_TEST(an_answer_that_is_too_old_is_asked_for_again),
    API_TEST(a_time_to_live_ends_in_seconds),
    API_TEST(a_full_cache_forgets_what_was_not_used_for_longest),
    API_TEST(an_installed_resolver_answers_getaddrinfo_and_goes_with_the_runtime),
    API_TEST(a_resolver_installed_on_its_own_loop_does_not_keep_it),
    API_TEST(lookups_under_way_outlive_the_last_reference),
    API_TEST(open_connection_asks_the_installed_resolver),
    API_TEST(one_resolver_serves_tasks_of_all_runtimes_and_threads),
    API_TEST(without_a_descriptor_the_lookup_says_so),
    API_TEST(bad_input_and_callbacks_are_refused),
    API_TEST(child_is_refused),
    API_TEST(each_allocation_may_fail),
};

int main(void) { return HARNESS_MAIN("dns", tests); }
