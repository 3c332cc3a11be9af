/* Names to addresses and back: what is read off at once, the system in the default executor, and a resolver of the
 * runtime's own.
 *
 * Nothing here leaves the machine: the system is asked for "localhost" and for services alone, and a pool whose only
 * thread stands at a gate makes a look-up that lasts as long as the test wants. */
#include "support/harness.h"

#include <arpa/inet.h>
#include <math.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static int run_real(heist_coro_fn fn, void *arg) {
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    opts.workers = harness_workers();
    return heist_run(fn, arg, &opts, NULL);
}

/* "127.0.0.1:80/1/6 …": addresses, types, protocols. */
static void write_list(const heist_addrinfo_list *list, char *text, size_t size) {
    size_t at = 0;
    text[0] = 0;
    for (size_t i = 0; i < list->count && at < size; i++) {
        char addr[128];
        heist_addr_format(&list->at[i].addr, addr, sizeof addr);
        at += (size_t)snprintf(text + at, size - at, "%s%s/%d/%d", i ? " " : "", addr, list->at[i].socktype,
                               list->at[i].protocol);
    }
}

static int look_up(const char *host, const char *service, const heist_addrinfo_hints *hints, double deadline,
                   char *text, size_t size) {
    heist_addrinfo_list *list = NULL;
    int err = heist_getaddrinfo(host, service, hints, deadline, &list);
    if (err) return list ? -EPROTO : err;
    write_list(list, text, size);
    heist_freeaddrinfo(list);
    return 0;
}

/* ---- a resolver that counts, and answers by the name ---- */

struct fake {
    _Atomic(int) lookups, reverses, released;
    double takes;
};

static int fake_lookup(void *self, const char *host, int family, unsigned flags, double deadline,
                       heist_addrinfo_list **out) {
    struct fake *fake = self;
    fake->lookups++;
    if (fake->takes > 0) {
        int err = heist_time() + fake->takes > deadline ? heist_sleep_until(deadline) : heist_sleep(fake->takes);
        if (err < 0) return err;
        if (heist_time() >= deadline) return -ETIMEDOUT;
    }
    if (strcmp(host, "none") == 0) return HEIST_ENONAME;
    if (strcmp(host, "later") == 0) return HEIST_ETRYAGAIN;
    heist_addrinfo_list *list;
    int err = heist_addrinfo_list_new(family ? 1 : 2, flags & HEIST_AI_CANONNAME ? "true.name" : NULL, &list);
    if (err) return err;
    for (size_t i = 0; i < list->count && !err; i++)
        err = heist_addr_parse(family == AF_INET6 || (!family && !i) ? "[2001:db8::7]:0" : "192.0.2.7:0",
                               &list->at[i].addr);
    *out = list;
    return err;
}

static int fake_reverse(void *self, const heist_addr *addr, double deadline, char *name, size_t size) {
    struct fake *fake = self;
    (void)deadline;
    fake->reverses++;
    if (addr->storage.ss_family == AF_INET6) return HEIST_ENONAME;
    snprintf(name, size, "seven.example");
    return 0;
}

static void fake_release(void *self) {
    struct fake *fake = self;
    fake->released++;
}

static int use_fake(heist_loop *loop, struct fake *fake) {
    heist_resolver_ops ops = HEIST_RESOLVER_OPS_INIT;
    ops.lookup = fake_lookup;
    ops.reverse = fake_reverse;
    ops.release = fake_release;
    return heist_loop_set_resolver(loop, &ops, fake);
}

/* ---- what needs no look-up ---- */

static const struct literal {
    const char *host, *service;
    unsigned flags;
    int family, socktype;
    const char *want; /* or a code */
    int code;
} literals[] = {
    {"127.0.0.1", "80", 0, 0, 0, "127.0.0.1:80/1/6", 0},
    {"::1", "443", 0, AF_INET6, SOCK_DGRAM, "[::1]:443/2/17", 0},
    {"2001:db8::1", NULL, 0, 0, SOCK_RAW, "[2001:db8::1]:0/3/0", 0},
    {"192.0.2.1", "", HEIST_AI_NUMERICHOST | HEIST_AI_NUMERICSERV, AF_INET, SOCK_STREAM, "192.0.2.1:0/1/6", 0},
    {"192.0.2.1", "65535", 0, 0, 0, "192.0.2.1:65535/1/6", 0},
    {NULL, "80", 0, 0, 0, "[::1]:80/1/6 127.0.0.1:80/1/6", 0},
    {NULL, "80", HEIST_AI_PASSIVE, 0, 0, "[::]:80/1/6 0.0.0.0:80/1/6", 0},
    {NULL, NULL, HEIST_AI_PASSIVE, AF_INET, 0, "0.0.0.0:0/1/6", 0},
    {NULL, NULL, 0, AF_INET6, 0, "[::1]:0/1/6", 0},
    {"127.0.0.1", "80", 0, AF_INET6, 0, NULL, HEIST_ENOADDRESS},
    {"::1", "80", 0, AF_INET, 0, NULL, HEIST_ENOADDRESS},
    {"localhost", "80", HEIST_AI_NUMERICHOST, 0, 0, NULL, HEIST_ENONAME},
    {"", "80", 0, 0, 0, NULL, HEIST_ENONAME},
    {"*", "80", HEIST_AI_NUMERICHOST, 0, 0, NULL, HEIST_ENONAME},
    {"[::1]", "80", HEIST_AI_NUMERICHOST, 0, 0, NULL, HEIST_ENONAME},
    {"unix", "80", HEIST_AI_NUMERICHOST, 0, 0, NULL, HEIST_ENONAME},
    {"127.0.0.1", "http", HEIST_AI_NUMERICSERV, 0, 0, NULL, HEIST_ESERVICE},
    {"127.0.0.1", "65536", 0, 0, 0, NULL, HEIST_ESERVICE},
    {"127.0.0.1", "99999999999999999999", 0, 0, 0, NULL, HEIST_ESERVICE},
    {"127.0.0.1", "-1", HEIST_AI_NUMERICSERV, 0, 0, NULL, HEIST_ESERVICE},
};

static void ask_literals(struct record *record) {
    for (size_t i = 0; i < sizeof literals / sizeof literals[0]; i++) {
        const struct literal *l = &literals[i];
        heist_addrinfo_hints hints = HEIST_ADDRINFO_HINTS_INIT;
        hints.flags = l->flags;
        hints.family = l->family;
        hints.socktype = l->socktype;
        char text[256] = "";
        int err = look_up(l->host, l->service, &hints, HEIST_FOREVER, text, sizeof text);
        if (err != l->code || (l->want && strcmp(text, l->want)))
            record_add(record, "%zu:%s:%s", i, heist_error_name(err), text);
    }
}

struct counted {
    struct record record;
    struct fake fake;
    heist_executor *e;
};

static int literals_in_a_task(void *arg, void **out) {
    struct counted *c = arg;
    (void)out;
    int err = use_fake(NULL, &c->fake);
    if (!err) err = heist_loop_set_default_executor(NULL, c->e);
    if (!err) ask_literals(&c->record);
    char host[64], service[16];
    heist_addr addr;
    if (!err) err = heist_addr_parse("192.0.2.9:8080", &addr);
    if (!err)
        err = heist_getnameinfo(&addr, HEIST_NI_NUMERICHOST | HEIST_NI_NUMERICSERV, HEIST_FOREVER, host, sizeof host,
                                service, sizeof service);
    if (!err) record_add(&c->record, "%s %s", host, service);
    return err;
}

static void literal_addresses_and_numeric_ports_skip_the_lookup_LOOP_32(void **state) {
    (void)state;
    struct counted c = {.record = RECORD_INIT};
    assert_int_equal(heist_executor_new(NULL, &c.e), 0);
    assert_int_equal(run_real(literals_in_a_task, &c), 0);
    assert_string_equal(record_text(&c.record), "192.0.2.9 8080");
    assert_int_equal(c.fake.lookups, 0);
    assert_int_equal(c.fake.reverses, 0);
    assert_int_equal(c.fake.released, 1);
    heist_executor_stats stats = HEIST_EXECUTOR_STATS_INIT;
    assert_int_equal(heist_executor_get_stats(c.e, &stats), 0);
    assert_int_equal(stats.done + stats.queued + stats.running + stats.cancelled, 0);
    heist_executor_unref(c.e);
    record_clear(&c.record); /* and the same in a plain thread */
    ask_literals(&c.record);
    assert_string_equal(record_text(&c.record), "");
}

static void a_literal_is_its_own_canonical_name(void **state) {
    (void)state;
    heist_addrinfo_hints hints = HEIST_ADDRINFO_HINTS_INIT;
    heist_addrinfo_list *list = NULL;
    hints.flags = HEIST_AI_CANONNAME;
    hints.protocol = 132;
    assert_int_equal(heist_getaddrinfo("::1", "1", &hints, HEIST_FOREVER, &list), 0);
    assert_string_equal(list->canonical, "::1");
    assert_int_equal(list->at[0].protocol, 132);
    heist_freeaddrinfo(list);
    assert_int_equal(heist_getaddrinfo("::1", "1", NULL, HEIST_FOREVER, &list), 0);
    assert_null(list->canonical);
    heist_freeaddrinfo(list);
    heist_freeaddrinfo(NULL);
}

/* ---- the system, beside the loop ---- */

/* A pool with one thread, which waits at the gate before it takes a job. */
static int at_gate(void *gate) {
    gate_wait(gate);
    return 0;
}

static heist_executor *gated_pool(struct gate *gate) {
    heist_executor_options opts = HEIST_EXECUTOR_OPTIONS_INIT;
    heist_executor *e = NULL;
    opts.max_threads = 1;
    opts.initializer = at_gate;
    opts.user = gate;
    assert_int_equal(heist_executor_new(&opts, &e), 0);
    return e;
}

static heist_executor_stats stats_of(heist_executor *e) {
    heist_executor_stats stats = HEIST_EXECUTOR_STATS_INIT;
    if (heist_executor_get_stats(e, &stats)) abort(); /* also called in tasks, where no assertion may jump */
    return stats;
}

struct beside {
    struct gate gate;
    heist_executor *e;
    char text[256];
    int ticks, err;
};

static int look_up_localhost(void *arg, void **out) {
    struct beside *b = arg;
    (void)out;
    heist_addrinfo_hints hints = HEIST_ADDRINFO_HINTS_INIT;
    hints.family = AF_INET;
    return look_up("localhost", "80", &hints, HEIST_FOREVER, b->text, sizeof b->text);
}

static int tick_meanwhile(void *arg, void **out) {
    struct beside *b = arg;
    heist_task *t = NULL;
    (void)out;
    int err = heist_loop_set_default_executor(NULL, b->e);
    if (!err) err = heist_create_task(look_up_localhost, b, NULL, &t);
    while (!err && b->ticks < 100) {
        err = heist_sleep(0.0001);
        b->ticks++;
    }
    if (!err && heist_future_done(t)) err = -EPROTO; /* the gate is closed */
    gate_open(&b->gate);
    if (!err) err = heist_await(t, NULL);
    heist_unref(t);
    return err;
}

static void a_name_is_looked_up_in_the_default_executor_and_the_loop_goes_on_LOOP_32(void **state) {
    (void)state;
    struct beside b = {.gate = GATE_INIT};
    b.e = gated_pool(&b.gate);
    assert_int_equal(run_real(tick_meanwhile, &b), 0);
    assert_non_null(strstr(b.text, "127.0.0.1:80/1/6"));
    assert_int_equal(b.ticks, 100);
    assert_int_equal(stats_of(b.e).done, 1);
    heist_executor_unref(b.e);
}

static int cancel_the_waiter(void *arg, void **out) {
    struct beside *b = arg;
    heist_task *t = NULL;
    (void)out;
    int err = heist_loop_set_default_executor(NULL, b->e);
    if (!err) err = heist_create_task(look_up_localhost, b, NULL, &t);
    while (!err && stats_of(b->e).queued == 0) err = heist_sleep(0.0001);
    if (!err && heist_cancel(t) != 1) err = -EPROTO;
    if (!err) b->err = heist_await(t, NULL); /* the gate is closed: it does not wait for the look-up */
    heist_unref(t);
    if (err) return err;
    /* On a machine in haste the time may be over before the look-up is in the queue: then once more, with twice as much. */
    for (double patience = 0.001; stats_of(b->e).cancelled < 2; patience *= 2) {
        err = look_up("localhost", "80", NULL, heist_time() + patience, b->text, sizeof b->text);
        if (err != -ETIMEDOUT) break;
    }
    return err;
}

static void who_is_cancelled_or_late_leaves_the_lookup_behind_LOOP_32(void **state) {
    (void)state;
    struct beside b = {.gate = GATE_INIT};
    b.e = gated_pool(&b.gate);
    heist_runtime *rt = harness_runtime(0);
    heist_task *t = NULL;
    assert_int_equal(heist_runtime_run_coroutine(rt, cancel_the_waiter, &b, NULL, &t), 0);
    assert_int_equal(heist_await(t, NULL), -ETIMEDOUT);
    heist_unref(t);
    assert_int_equal(b.err, -ECANCELED);
    assert_string_equal(b.text, "");
    assert_int_equal(stats_of(b.e).cancelled, 2); /* neither had begun, so neither will */
    gate_open(&b.gate);
    harness_runtime_end(rt);
    assert_int_equal(heist_executor_shutdown(b.e, 0), 0);
    heist_executor_unref(b.e);
}

/* Cancelled in the middle, or before, or after: what is found is freed (the harness counts). */
static int cancel_at_random(void *arg, void **out) {
    struct beside *b = arg;
    (void)out;
    for (int i = 0; i < 60; i++) {
        heist_task *t = NULL;
        int err = heist_create_task(look_up_localhost, b, NULL, &t);
        if (err) return err;
        for (int k = 0; k < i % 12 && !err; k++) err = heist_yield();
        if (i % 3 == 0 && !err) err = heist_sleep(0.00002 * i);
        heist_cancel(t);
        int ended = heist_await(t, NULL);
        heist_unref(t);
        if (err) return err;
        if (ended != 0 && ended != -ECANCELED) return ended;
    }
    return 0;
}

static void cancelling_at_any_moment_leaks_nothing(void **state) {
    (void)state;
    struct beside b = {.gate = GATE_INIT};
    assert_int_equal(run_real(cancel_at_random, &b), 0);
}

static int call_in_callback(void *arg) {
    int *codes = arg;
    char host[64];
    heist_addrinfo_list *list;
    heist_addr addr;
    codes[0] = heist_getaddrinfo("127.0.0.1", "80", NULL, HEIST_FOREVER, &list);
    codes[1] = heist_addr_parse("127.0.0.1:80", &addr);
    codes[1] = heist_getnameinfo(&addr, 0, HEIST_FOREVER, host, sizeof host, NULL, 0);
    return 0;
}

static void a_callback_is_refused(void **state) {
    (void)state;
    heist_loop *loop = harness_loop();
    int codes[2] = {0, 0};
    assert_int_equal(heist_loop_call_soon(loop, call_in_callback, codes, NULL, NULL), 0);
    harness_one_pass(loop);
    assert_int_equal(codes[0], HEIST_ENOTINCORO);
    assert_int_equal(codes[1], HEIST_ENOTINCORO);
    harness_loop_end(loop);
}

static void a_plain_thread_blocks_and_keeps_its_deadline(void **state) {
    (void)state;
    char text[256];
    heist_addrinfo_hints hints = HEIST_ADDRINFO_HINTS_INIT;
    hints.family = AF_INET;
    assert_int_equal(look_up("localhost", "80", &hints, HEIST_FOREVER, text, sizeof text), 0);
    assert_non_null(strstr(text, "127.0.0.1:80/1/6"));
    assert_int_equal(look_up("localhost", "80", &hints, heist_time() + 600, text, sizeof text), 0);
    assert_non_null(strstr(text, "127.0.0.1:80/1/6"));
    int late = look_up("localhost", "80", &hints, heist_time() - 1, text, sizeof text);
    assert_true(late == -ETIMEDOUT || late == 0); /* or the answer was there when it looked */
}

/* ---- services ---- */

static void services_are_those_of_the_system(void **state) {
    (void)state;
    char text[256], want[64];
    heist_addrinfo_hints hints = HEIST_ADDRINFO_HINTS_INIT;
    assert_int_equal(look_up("127.0.0.1", "no such service", NULL, HEIST_FOREVER, text, sizeof text), HEIST_ESERVICE);
    struct servent *known = getservbyname("domain", "udp");
    if (!known) return; /* this machine knows none */
    hints.socktype = SOCK_DGRAM;
    snprintf(want, sizeof want, "127.0.0.1:%d/2/17", ntohs((uint16_t)known->s_port));
    assert_int_equal(look_up("127.0.0.1", "domain", &hints, HEIST_FOREVER, text, sizeof text), 0);
    assert_string_equal(text, want);
    heist_addr addr;
    char service[32];
    snprintf(want, sizeof want, "127.0.0.1:%d", ntohs((uint16_t)known->s_port));
    assert_int_equal(heist_addr_parse(want, &addr), 0);
    assert_int_equal(heist_getnameinfo(&addr, HEIST_NI_DGRAM, HEIST_FOREVER, NULL, 0, service, sizeof service), 0);
    assert_string_equal(service, "domain");
    assert_int_equal(heist_getnameinfo(&addr, HEIST_NI_DGRAM, HEIST_FOREVER, NULL, 0, service, 6), -EOVERFLOW);
}

/* ---- a resolver of the runtime's own ---- */

static int ask_fake(void *arg, void **out) {
    struct counted *c = arg;
    (void)out;
    int err = use_fake(NULL, &c->fake);
    if (err) return err;
    static const char *const names[] = {"some.name", "none", "later"};
    heist_addrinfo_hints hints = HEIST_ADDRINFO_HINTS_INIT;
    char text[256] = "", host[64], service[16];
    for (int i = 0; i < 3; i++) {
        err = look_up(names[i], "8080", NULL, HEIST_FOREVER, text, sizeof text);
        record_add(&c->record, "%s", err ? heist_error_name(err) : text);
    }
    hints.family = AF_INET;
    hints.flags = HEIST_AI_CANONNAME;
    heist_addrinfo_list *list;
    err = heist_getaddrinfo("some.name", NULL, &hints, HEIST_FOREVER, &list);
    if (err) return err;
    record_add(&c->record, "%zu %s", list->count, list->canonical);
    heist_freeaddrinfo(list);
    heist_addr addr;
    if (heist_addr_parse("192.0.2.7:99", &addr)) return -EPROTO;
    err = heist_getnameinfo(&addr, HEIST_NI_NUMERICSERV, HEIST_FOREVER, host, sizeof host, service, sizeof service);
    record_add(&c->record, "%s %s", err ? heist_error_name(err) : host, service);
    if (heist_addr_parse("[2001:db8::7]:99", &addr)) return -EPROTO;
    err = heist_getnameinfo(&addr, 0, HEIST_FOREVER, host, sizeof host, NULL, 0);
    record_add(&c->record, "%s", err ? heist_error_name(err) : host);
    err = heist_getnameinfo(&addr, HEIST_NI_NAMEREQD, HEIST_FOREVER, host, sizeof host, NULL, 0);
    record_add(&c->record, "%s", err ? heist_error_name(err) : host);
    return heist_getnameinfo(&addr, 0, HEIST_FOREVER, host, 3, NULL, 0) == -EOVERFLOW ? 0 : -EPROTO;
}

static void a_resolver_of_the_runtimes_own_answers_instead_of_the_system(void **state) {
    (void)state;
    struct counted c = {.record = RECORD_INIT};
    assert_int_equal(harness_run(ask_fake, &c, NULL), 0);
    assert_string_equal(record_text(&c.record),
                        "[2001:db8::7]:8080/1/6 192.0.2.7:8080/1/6 HEIST_ENONAME "
                        "HEIST_ETRYAGAIN 1 true.name seven.example 99 2001:db8::7 HEIST_ENONAME");
    assert_int_equal(c.fake.lookups, 4);
    assert_int_equal(c.fake.released, 1);
}

struct replaced {
    struct fake first, second;
    int err;
};

static int ask_slowly(void *arg, void **out) {
    (void)arg, (void)out;
    char text[256];
    return look_up("some.name", "1", NULL, HEIST_FOREVER, text, sizeof text);
}

static int replace_under_a_call(void *arg, void **out) {
    struct replaced *r = arg;
    heist_task *t = NULL;
    char text[256];
    (void)out;
    r->first.takes = 5;
    int err = use_fake(NULL, &r->first);
    if (!err) err = heist_create_task(ask_slowly, NULL, NULL, &t);
    if (!err) err = heist_sleep(1);
    if (!err) err = use_fake(NULL, &r->second);
    if (!err && r->first.released) err = -EPROTO; /* a call is inside */
    if (!err) err = look_up("other.name", "1", NULL, HEIST_FOREVER, text, sizeof text);
    if (!err) err = heist_await(t, NULL);
    heist_unref(t);
    if (!err && (r->first.released != 1 || r->second.released)) err = -EPROTO;
    if (!err) err = heist_loop_set_resolver(NULL, NULL, NULL);
    if (!err && r->second.released != 1) err = -EPROTO;
    if (!err) err = look_up("localhost", "1", NULL, HEIST_FOREVER, text, sizeof text);
    return err;
}

static void a_replaced_resolver_goes_when_nobody_is_inside(void **state) {
    (void)state;
    struct replaced r = {.err = 0};
    assert_int_equal(harness_run(replace_under_a_call, &r, NULL), 0);
    assert_int_equal(r.first.lookups, 1);
    assert_int_equal(r.second.lookups, 1);
}

struct setters {
    heist_runtime *rt;
    _Atomic(bool) stop;
    struct fake fakes[64];
};

static void *set_again_and_again(void *arg) {
    struct setters *s = arg;
    for (int i = 0; i < 64; i++)
        if (use_fake(heist_runtime_loop(s->rt, 0), &s->fakes[i])) abort();
    s->stop = true;
    return NULL;
}

static int ask_again_and_again(void *arg, void **out) {
    struct setters *s = arg;
    (void)out;
    while (!s->stop) {
        int err = ask_slowly(NULL, NULL);
        if (err) return err;
    }
    return 0;
}

static void resolvers_are_replaced_from_any_thread_under_lookups(void **state) {
    (void)state;
    struct setters s = {.rt = harness_runtime(0)};
    heist_task *t[4];
    struct fake before = {.takes = 0};
    assert_int_equal(use_fake(heist_runtime_loop(s.rt, 0), &before), 0);
    for (int i = 0; i < 4; i++)
        assert_int_equal(heist_runtime_run_coroutine(s.rt, ask_again_and_again, &s, NULL, &t[i]), 0);
    harness_join(harness_thread(set_again_and_again, &s));
    for (int i = 0; i < 4; i++) {
        assert_int_equal(heist_await(t[i], NULL), 0);
        heist_unref(t[i]);
    }
    for (int i = 0; i < 63; i++) assert_int_equal(s.fakes[i].released, 1);
    assert_int_equal(before.released, 1);
    assert_int_equal(s.fakes[63].released, 0);
    heist_loop *loop = heist_loop_ref(heist_runtime_loop(s.rt, 0));
    harness_runtime_end(s.rt);
    assert_int_equal(s.fakes[63].released, 1); /* by the close */
    assert_int_equal(use_fake(loop, &before), HEIST_ECLOSED);
    assert_int_equal(before.released, 1);
    heist_loop_unref(loop);
}

static void closing_a_loop_lets_go_of_its_resolver(void **state) {
    (void)state;
    struct fake fake = {.takes = 0};
    heist_loop *loop = harness_loop();
    assert_int_equal(use_fake(loop, &fake), 0);
    harness_loop_end(loop);
    assert_int_equal(fake.released, 1);
    assert_int_equal(use_fake(NULL, &fake), HEIST_ENOLOOP);
    assert_int_equal(fake.released, 1);
}

/* ---- debug mode ---- */

static void record_slow(heist_loop *loop, const heist_report *report, void *user) {
    (void)loop;
    record_add(user, "%s|%s|%.3f", report->message, report->name ? report->name : "?", report->seconds);
}

static int look_up_slowly(void *arg, void **out) {
    struct fake *fake = arg;
    char text[256], host[64];
    heist_addr addr;
    heist_loop *loop;
    (void)out;
    int err = use_fake(NULL, fake);
    if (!err) err = heist_get_running_loop(&loop);
    if (!err) err = heist_loop_set_slow_callback_duration(loop, 0.1);
    fake->takes = 0.05; /* in virtual time: exactly */
    if (!err) err = look_up("quick.name", "80", NULL, HEIST_FOREVER, text, sizeof text);
    fake->takes = 0.25;
    if (!err) err = look_up("slow.name", "80", NULL, HEIST_FOREVER, text, sizeof text);
    if (!err) err = look_up("slow.name", NULL, NULL, HEIST_FOREVER, text, sizeof text);
    if (!err && look_up("none", "", NULL, HEIST_FOREVER, text, sizeof text) != HEIST_ENONAME) err = -EPROTO;
    if (!err && look_up("late", "", NULL, heist_time() + 0.125, text, sizeof text) != -ETIMEDOUT) err = -EPROTO;
    if (!err) err = heist_addr_parse("192.0.2.7:99", &addr);
    if (!err) err = heist_getnameinfo(&addr, 0, HEIST_FOREVER, host, sizeof host, NULL, 0);
    if (!err) err = heist_yield();
    return err;
}

static void a_slow_lookup_is_told_with_its_duration_in_debug_mode_DBG_05(void **state) {
    (void)state;
    for (int debug = 0; debug < 2; debug++) {
        struct record record = RECORD_INIT;
        struct fake fake = {.takes = 0};
        heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
        opts.flags = HEIST_RUNTIME_VIRTUAL_TIME | (debug ? HEIST_RUNTIME_DEBUG : HEIST_RUNTIME_NO_DEBUG);
        opts.workers = 1; /* one loop, whose threshold it is */
        opts.exception_handler = record_slow;
        opts.exception_user = &record;
        assert_int_equal(heist_run(look_up_slowly, &fake, &opts, NULL), 0);
        assert_string_equal(record_text(&record),
                            !debug
                                ? ""
                                : "a name look-up was slow|slow.name:80|0.250 a name look-up was slow|slow.name|0.250 "
                                  "a name look-up was slow|none|0.250 a name look-up was slow|late|0.125");
    }
}

/* ---- bad input, what runs out, forks ---- */

static void bad_input_is_refused(void **state) {
    (void)state;
    heist_addrinfo_list *list = NULL;
    heist_addrinfo_hints hints = HEIST_ADDRINFO_HINTS_INIT;
    assert_int_equal(heist_getaddrinfo("::1", "1", NULL, HEIST_FOREVER, NULL), -EINVAL);
    assert_int_equal(heist_getaddrinfo("::1", "1", NULL, NAN, &list), -EINVAL);
    hints.flags = 0x80;
    assert_int_equal(heist_getaddrinfo("::1", "1", &hints, HEIST_FOREVER, &list), -EINVAL);
    hints.flags = 0;
    hints.protocol = -1;
    assert_int_equal(heist_getaddrinfo("::1", "1", &hints, HEIST_FOREVER, &list), -EINVAL);
    hints.protocol = 0;
    hints.family = AF_UNIX;
    assert_int_equal(heist_getaddrinfo("::1", "1", &hints, HEIST_FOREVER, &list), -EAFNOSUPPORT);
    hints.family = 0;
    hints.socktype = 77;
    assert_int_equal(heist_getaddrinfo("::1", "1", &hints, HEIST_FOREVER, &list), -ESOCKTNOSUPPORT);
    hints.size = 3;
    assert_int_equal(heist_getaddrinfo("::1", "1", &hints, HEIST_FOREVER, &list), -EINVAL);
    char endless[3000];
    memset(endless, 'a', sizeof endless - 1);
    endless[sizeof endless - 1] = 0;
    assert_int_equal(heist_getaddrinfo(endless, "1", NULL, HEIST_FOREVER, &list), HEIST_ENONAME);
    assert_int_equal(heist_getaddrinfo("::1", endless, NULL, HEIST_FOREVER, &list), HEIST_ESERVICE);
    assert_null(list);

    heist_addr addr, local;
    char host[64];
    assert_int_equal(heist_addr_parse("127.0.0.1:1", &addr), 0);
    assert_int_equal(heist_addr_parse("unix:/none", &local), 0);
    assert_int_equal(heist_getnameinfo(NULL, 0, HEIST_FOREVER, host, 64, NULL, 0), -EINVAL);
    assert_int_equal(heist_getnameinfo(&addr, 0, HEIST_FOREVER, NULL, 0, NULL, 0), -EINVAL);
    assert_int_equal(heist_getnameinfo(&addr, 0, HEIST_FOREVER, NULL, 64, host, 64), -EINVAL);
    assert_int_equal(heist_getnameinfo(&addr, 0, HEIST_FOREVER, host, 0, NULL, 0), -EINVAL);
    assert_int_equal(heist_getnameinfo(&addr, 0x100, HEIST_FOREVER, host, 64, NULL, 0), -EINVAL);
    assert_int_equal(heist_getnameinfo(&addr, 0, NAN, host, 64, NULL, 0), -EINVAL);
    assert_int_equal(heist_getnameinfo(&local, 0, HEIST_FOREVER, host, 64, NULL, 0), -EAFNOSUPPORT);
    addr.length = 3;
    assert_int_equal(heist_getnameinfo(&addr, 0, HEIST_FOREVER, host, 64, NULL, 0), -EAFNOSUPPORT);

    heist_resolver_ops ops = HEIST_RESOLVER_OPS_INIT;
    heist_loop *loop = harness_loop();
    assert_int_equal(heist_loop_set_resolver(loop, &ops, NULL), -EINVAL); /* it cannot look up */
    ops.lookup = fake_lookup;
    ops.size = 1;
    assert_int_equal(heist_loop_set_resolver(loop, &ops, NULL), -EINVAL);
    harness_loop_end(loop);
    assert_int_equal(heist_addrinfo_list_new(0, NULL, &list), -EINVAL);
    assert_int_equal(heist_addrinfo_list_new(1, NULL, NULL), -EINVAL);
    assert_int_equal(heist_addrinfo_list_new(SIZE_MAX / 8, NULL, &list), -EINVAL);
}

static int use_all(void *arg, void **out) {
    struct fake fake = {.takes = 0};
    heist_addr addr;
    char text[256], host[64];
    (void)arg, (void)out;
    int err = heist_addr_parse("127.0.0.1:53", &addr);
    if (!err) err = look_up("localhost", "80", NULL, HEIST_FOREVER, text, sizeof text);
    if (!err) err = heist_getnameinfo(&addr, HEIST_NI_NUMERICHOST, HEIST_FOREVER, host, sizeof host, host, sizeof host);
    if (!err) err = use_fake(NULL, &fake);
    if (!err) err = look_up("some.name", "80", NULL, HEIST_FOREVER, text, sizeof text);
    if (!err) err = heist_loop_set_resolver(NULL, NULL, NULL);
    return err;
}

static int all_in_a_runtime(void) {
    heist_runtime_options opts = HEIST_RUNTIME_OPTIONS_INIT;
    opts.workers = 1;
    return heist_run(use_all, NULL, &opts, NULL);
}

static int all_in_a_thread(void) {
    char text[256];
    return look_up("localhost", "80", NULL, heist_time() + 600, text, sizeof text);
}

static void each_allocation_may_fail(void **state) {
    (void)state;
    int (*const scenarios[])(void) = {all_in_a_runtime, all_in_a_thread};
    for (int k = 0; k < 2; k++)
        for (long n = 1;; n++) {
            harness_loop_end(harness_loop()); /* with the last runtime goes what the library keeps to use again */
            long blocks = harness_blocks();
            int threads = harness_threads();
            harness_allocations();
            harness_fail_allocation(n, false);
            int err = scenarios[k]();
            harness_fail_allocation(0, false);
            long asked = harness_allocations();
            if (err && err != -ENOMEM) fail_msg("scenario %d, allocation %ld: %s", k, n, heist_error_name(err));
            for (int i = 0; i < 20000 && harness_threads() > threads; i++)
                heist_sleep(0.0005); /* the thread's own pool ends */
            harness_loop_end(harness_loop());
            if (harness_blocks() > blocks) fail_msg("scenario %d, allocation %ld: blocks left", k, n);
            if (asked < n) break;
            assert_true(n < 500);
        }
}

static int fork_inside(void *arg, void **out) {
    int *told = arg, ends[2], status; /* an observer such as valgrind may change the exit status */
    (void)out;
    if (pipe(ends) < 0) return -errno;
    pid_t child = fork();
    if (child < 0) return -errno;
    if (child == 0) {
        heist_addrinfo_list *list;
        heist_addr addr;
        char host[64];
        heist_resolver_ops ops = HEIST_RESOLVER_OPS_INIT;
        ops.lookup = fake_lookup;
        int wrong = heist_getaddrinfo("127.0.0.1", "1", NULL, HEIST_FOREVER, &list) != HEIST_EFORKED;
        if (heist_addr_parse("127.0.0.1:1", &addr)) wrong = 1;
        if (heist_getnameinfo(&addr, 0, HEIST_FOREVER, host, sizeof host, NULL, 0) != HEIST_EFORKED) wrong |= 2;
        if (heist_loop_set_resolver(NULL, &ops, NULL) != HEIST_EFORKED) wrong |= 4;
        if (heist_addrinfo_list_new(1, NULL, &list) != HEIST_EFORKED) wrong |= 8;
        _exit(write(ends[1], &wrong, sizeof wrong) == sizeof wrong ? 0 : 1);
    }
    close(ends[1]);
    if (waitpid(child, &status, 0) != child) return -ECHILD;
    ssize_t n = read(ends[0], told, sizeof *told);
    close(ends[0]);
    return n == sizeof *told ? 0 : -EPROTO;
}

static void child_is_refused(void **state) {
    (void)state;
    int told = -1;
    assert_int_equal(run_real(fork_inside, &told), 0);
    assert_int_equal(told, 0);
}

static const struct CMUnitTest tests[] = {
    API_TEST(literal_addresses_and_numeric_ports_skip_the_lookup_LOOP_32),
    API_TEST(a_literal_is_its_own_canonical_name),
    API_TEST(a_name_is_looked_up_in_the_default_executor_and_the_loop_goes_on_LOOP_32),
    API_TEST(who_is_cancelled_or_late_leaves_the_lookup_behind_LOOP_32),
    API_TEST(cancelling_at_any_moment_leaks_nothing),
    API_TEST(a_callback_is_refused),
    API_TEST(a_plain_thread_blocks_and_keeps_its_deadline),
    API_TEST(services_are_those_of_the_system),
    API_TEST(a_resolver_of_the_runtimes_own_answers_instead_of_the_system),
    API_TEST(a_replaced_resolver_goes_when_nobody_is_inside),
    API_TEST(resolvers_are_replaced_from_any_thread_under_lookups),
    API_TEST(closing_a_loop_lets_go_of_its_resolver),
    API_TEST(a_slow_lookup_is_told_with_its_duration_in_debug_mode_DBG_05),
    API_TEST(bad_input_is_refused),
    API_TEST(each_allocation_may_fail),
    API_TEST(child_is_refused),
};

int main(void) { return HARNESS_MAIN("resolve", tests); }
