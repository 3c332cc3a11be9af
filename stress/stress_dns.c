/* stress/stress_dns.c: names asked of a server that answers, fails, lies, drops, is late or silent.
 *
 * Law: each look-up ends once, with the addresses that the server gives the name, or with an error that has its cause:
 * what the name says of itself, a deadline that has passed, a request to cancel, a close, something that was short, or
 * answers that were lost or late (HEIST_ETRYAGAIN). No lie is ever believed. What nobody waits for any more is freed,
 * and after each round all descriptors are back.
 * Threads: lookers are tasks of one or two runtimes and plain threads; they share one resolver, which is driven by a
 * loop of the first runtime; the server has a runtime of its own. A task cancels at random, the main thread closes the
 * resolver or its runtime in the middle.
 * Invariant: a looker's counts are its own, but for `asked`, which the canceller raises before it asks. */
#include "common.h"
#include "faults.h"

#include <arpa/inet.h>
#include <heist/dns.h>
#include <netinet/in.h>
#include <sys/resource.h>

#include "name_server.h"

#define LOOKERS 48
#define PLAIN 6

struct looker {
    struct stress_rng rng;
    heist_task *task; /* or a thread */
    pthread_t thread;
    int slot;
    _Atomic(uint64_t) asked; /* requests to cancel */
    uint64_t seen;
};

static struct looker lookers[LOOKERS + PLAIN];
static heist_dns *dns;
static heist_runtime *home, *other;
static double longest; /* that a query may take by its time limits */
static _Atomic(bool) over, closing;
static _Atomic(uint64_t) right, nothing_there, lost, timed_out, cancelled, closed, were_short, reversed, by_getaddrinfo;

static const struct kind {
    const char *orders;
    int want;         /* 0: an answer */
    bool may_be_lost; /* by its nature */
    int count;        /* addresses of a kind */
} kinds[] = {
    {".test", 0, false, 1},
    {".late.test", 0, true, 1},
    {".long.test", 0, false, 1},
    {".alias.test", 0, false, 1},
    {".wrongid.test", 0, false, 1},
    {".wrongname.test", 0, false, 1},
    {".garbage.test", 0, false, 1},
    {".many9.test", 0, false, 9},
    {".many60.long.test", 0, false, 60},
    {".drop1.test", 0, true, 1},
    {".ttl0.test", 0, false, 1},
    {".ttl1.late.test", 0, true, 1},
    {".nx.test", HEIST_ENONAME, false, 0},
    {".empty.test", HEIST_ENOADDRESS, false, 0},
    {".fail.test", HEIST_ETRYAGAIN, true, 0},
    {".refuse.test", HEIST_ETRYAGAIN, true, 0},
    {".format.test", HEIST_ENAMEFAIL, false, 0},
    {".silent.test", HEIST_ETRYAGAIN, true, 0},
    {".cut.test", HEIST_ETRYAGAIN, true, 0},
    {".nx.late.test", HEIST_ENONAME, true, 0},
};
#define KINDS (sizeof kinds / sizeof kinds[0])

/* ---- what came ---- */

static bool same_bytes(const heist_addr *a, const heist_addr *b) {
    if (a->storage.ss_family != b->storage.ss_family) return false;
    if (a->storage.ss_family == AF_INET)
        return ((const struct sockaddr_in *)&a->storage)->sin_addr.s_addr ==
               ((const struct sockaddr_in *)&b->storage)->sin_addr.s_addr;
    return memcmp(&((const struct sockaddr_in6 *)&a->storage)->sin6_addr,
                  &((const struct sockaddr_in6 *)&b->storage)->sin6_addr, 16) == 0;
}

static void check_list(const heist_addrinfo_list *list, const char *name, int family, int count) {
    size_t found[2] = {0, 0}, own[2] = {0, 0};
    for (size_t i = 0; i < list->count; i++) {
        int f = list->at[i].addr.storage.ss_family, k = f == AF_INET6;
        heist_addr want;
        stress_check(f == AF_INET || f == AF_INET6, "%s: an address of family %d", name, f);
        stress_check(!family || f == family, "%s: asked for family %d, got %d", name, family, f);
        name_server_address(name, f, &want);
        found[k]++;
        own[k] += same_bytes(&list->at[i].addr, &want);
    }
    /* One of the two kinds may have been lost on its way. */
    for (int k = 0; k < 2; k++) {
        stress_check(found[k] == 0 || found[k] == (size_t)count, "%s: %zu addresses instead of %d", name, found[k],
                     count);
        stress_check(own[k] == (found[k] > 0), "%s: its own address came %zu times", name, own[k]);
    }
    stress_check(found[0] + found[1] > 0, "%s: an empty answer", name);
    s_add(&right, 1);
}

/* True: the looker goes on. */
static bool judge(struct looker *l, const char *what, int err, int want, double deadline) {
    if (err == want) {
        s_add(&nothing_there, 1);
    } else if (err == HEIST_ETRYAGAIN) {
        s_add(&lost, 1);
    } else if (err == -ETIMEDOUT) {
        stress_check(deadline < HEIST_FOREVER && heist_time() >= deadline, "%s: timed out before its deadline", what);
        s_add(&timed_out, 1);
    } else if (err == -ECANCELED) {
        l->seen++;
        stress_check(l->seen <= s_get(&l->asked) || s_get(&closing), "%s: cancelled %" PRIu64 " times, asked %" PRIu64,
                     what, l->seen, s_get(&l->asked));
        s_add(&cancelled, 1);
        return !s_get(&closing);
    } else if (err == HEIST_ECLOSED) {
        stress_check(s_get(&closing), "%s: closed, and nobody closes", what);
        s_add(&closed, 1);
        return false;
    } else if (stress_short_of(err)) {
        s_add(&were_short, 1);
    } else {
        stress_fail("%s: %s", what, heist_error_name(err));
        return false;
    }
    return true;
}

/* ---- looking up ---- */

static bool look_up(struct looker *l, bool installed) {
    const struct kind *kind = &kinds[stress_below(&l->rng, KINDS)];
    static const int families[] = {0, AF_INET, AF_INET6};
    char name[64];
    int family = families[stress_below(&l->rng, 3)];
    snprintf(name, sizeof name, "s%u%s", (unsigned)stress_below(&l->rng, 30), kind->orders);
    double deadline = HEIST_FOREVER, planned = longest;
    if (stress_chance(&l->rng, 30)) deadline = heist_time() + (double)stress_below(&l->rng, 30000) * 1e-6;
    heist_addrinfo_list *list = NULL;
    int err;
    stress_wait_begin(l->slot, "a look-up", planned);
    if (installed && stress_chance(&l->rng, 50)) {
        heist_addrinfo_hints hints = HEIST_ADDRINFO_HINTS_INIT;
        hints.family = family;
        err = heist_getaddrinfo(name, "53", &hints, deadline, &list);
        s_add(&by_getaddrinfo, 1);
    } else {
        err = heist_dns_lookup(dns, name, family, stress_chance(&l->rng, 50) ? HEIST_AI_CANONNAME : 0, deadline, &list);
    }
    stress_wait_end(l->slot);
    stress_progress(1);
    if (err) {
        stress_check(!list, "%s: a list beside %s", name, heist_error_name(err));
        return judge(l, name, err, kind->want, deadline);
    }
    stress_check(kind->want == 0, "%s: addresses where there are none", name);
    check_list(list, name, family, kind->count);
    heist_freeaddrinfo(list);
    return true;
}

static bool look_back(struct looker *l) {
    heist_addr addr;
    char name[1025], want[64], text[64];
    snprintf(text, sizeof text, "10.1.2.%u:0", (unsigned)stress_below(&l->rng, 100));
    int err = heist_addr_parse(text, &addr);
    if (err) stress_die("%s", text);
    bool nameless = strcmp(text, "10.1.2.66:0") == 0;
    double deadline =
        stress_chance(&l->rng, 30) ? heist_time() + (double)stress_below(&l->rng, 5000) * 1e-6 : HEIST_FOREVER;
    stress_wait_begin(l->slot, "a look-up of an address", longest);
    err = heist_dns_reverse(dns, &addr, deadline, name, sizeof name);
    stress_wait_end(l->slot);
    stress_progress(1);
    if (err) return judge(l, text, err, nameless ? HEIST_ENONAME : 0, deadline);
    name_server_name(&addr, want, sizeof want);
    stress_check(!nameless && strcmp(name, want) == 0, "%s: the name %s", text, name);
    s_add(&reversed, 1);
    return true;
}

static bool look(struct looker *l, bool installed) {
    return stress_chance(&l->rng, 15) ? look_back(l) : look_up(l, installed);
}

static int looking_task(void *arg, void **out) {
    struct looker *l = arg;
    (void)out;
    bool here = heist_loop_runtime(heist_future_loop(heist_current_task())) == home;
    while (!s_get(&over) && look(l, here)) {
    }
    return 0;
}

static void *looking_thread(void *arg) {
    while (!s_get(&over) && look(arg, false)) {
    }
    return NULL;
}

/* ---- a round ---- */

static void draw_options(heist_dns_options *o, struct stress_rng *rng) {
    o->flags = HEIST_DNS_NO_SEARCH | (stress_chance(rng, 20) ? HEIST_DNS_TCP : 0) |
               (stress_chance(rng, 50) ? HEIST_DNS_NO_HOSTS : 0);
    o->tries = (int)stress_between(rng, 1, 3);
    o->timeout = 0.005 + (double)stress_below(rng, 60000) * 1e-6;
    o->cache_entries = stress_chance(rng, 50) ? 0 : (size_t)stress_between(rng, 1, 60);
    o->cache_max_ttl = stress_chance(rng, 50) ? 0 : 0.01;
    o->cache_negative_ttl = stress_chance(rng, 50) ? 0 : 0.02;
    longest = o->timeout * (double)(1 << o->tries) + 0.1;
}

static void cancel_some(struct stress_rng *rng, int tasks) {
    struct looker *l = &lookers[stress_below(rng, (uint64_t)tasks)];
    s_add(&l->asked, 1);
    heist_cancel(l->task);
}

static void one_round(struct stress_rng *rng) {
    heist_dns_options o = HEIST_DNS_OPTIONS_INIT;
    unsigned shortages = stress_chance(rng, 25) ? SHORT_OF_FDS | (stress_chance(rng, 50) ? SHORT_OF_MEMORY : 0) : 0;
    int ending = (int)stress_below(rng, 4); /* 0: the runtime closes in the middle; 1: the resolver; else nobody */
    int tasks = (int)stress_between(rng, 1, stress_scale(LOOKERS)), plain = stress_draw_threads(rng, PLAIN);
    bool two = stress_chance(rng, 50);
    double span = 0.05 + 0.05 * (double)stress_below(rng, 6);
    s_set(&over, false);
    s_set(&closing, false);
    heist_runtime *servers = stress_runtime("server", 1, NULL);
    home = stress_runtime("home", stress_draw_workers(rng), NULL);
    other = two ? stress_runtime("other", stress_draw_workers(rng), NULL) : home;
    struct name_server *server = name_server_start(heist_runtime_loop(servers, 0));
    if (!server) stress_die("no name server");
    draw_options(&o, rng);
    o.servers = name_server_where(server);
    o.loop = heist_runtime_loop(home, (int)stress_below(rng, (uint64_t)heist_runtime_workers(home)));
    int err = heist_dns_new(&o, &dns);
    if (!err) err = heist_dns_install(dns, o.loop);
    if (err) stress_die("a resolver: %s", heist_strerror(err));
    stress_settings("%d tasks, %d threads, %d and %d workers, %d tries of %.3f s%s, %zu kept, %.2f s, %s%s", tasks,
                    plain, heist_runtime_workers(home), two ? heist_runtime_workers(other) : 0, o.tries, o.timeout,
                    o.flags & HEIST_DNS_TCP ? " over TCP" : "", o.cache_entries, span,
                    ending == 0   ? "the runtime closes"
                    : ending == 1 ? "the resolver closes"
                                  : "nobody closes",
                    shortages ? ", short" : "");
    stress_phase("looking up");
    stress_faults_start(rng, shortages);
    for (int i = 0; i < tasks + plain; i++) {
        struct looker *l = &lookers[i];
        memset(l, 0, sizeof *l);
        l->rng = stress_stream(rng, (uint64_t)i);
        l->slot = i;
        if (i >= tasks) {
            stress_thread(&l->thread, looking_thread, l);
            continue;
        }
        do err = heist_runtime_run_coroutine(i % 2 ? other : home, looking_task, l, NULL, &l->task);
        while (err && stress_short_of(err));
        if (err) stress_die("a task: %s", heist_strerror(err));
    }
    double end = stress_now() + span, middle = stress_now() + span * (double)stress_below(rng, 100) / 100;
    bool cancels = stress_chance(rng, 70);
    while (stress_now() < (ending < 2 ? middle : end)) {
        if (cancels) cancel_some(rng, tasks);
        stress_pause(rng, 0.002);
    }
    if (ending < 2) {
        stress_phase("closing in the middle");
        s_set(&closing, true);
        if (ending == 0) stress_runtime_end(home);
        else heist_dns_close(dns);
        while (stress_now() < end) stress_pause(rng, 0.01);
    }
    s_set(&over, true);
    stress_phase("coming to an end");
    for (int i = 0; i < tasks + plain; i++) {
        struct looker *l = &lookers[i];
        if (i >= tasks) {
            stress_join(l->thread);
            continue;
        }
        err = heist_await(l->task, NULL);
        stress_check(err == 0 || err == -ECANCELED || stress_short_of(err), "a looker ended with %s",
                     heist_error_name(err));
        heist_unref(l->task);
    }
    stress_faults_stop();
    stress_faults_forget();
    heist_dns_stats stats = HEIST_DNS_STATS_INIT;
    if (heist_dns_get_stats(dns, &stats)) stress_die("no counts");
    stress_check(stats.lookups >= stats.asked + stats.shared + stats.cached, "more was asked than looked up");
    if (ending < 2) stress_check(stats.pending == 0, "%zu queries stand after the close", stats.pending);
    heist_dns_unref(dns);
    if (two) stress_runtime_end(other);
    if (ending) stress_runtime_end(home);
    stress_runtime_end(servers);
    name_server_stop(server);
}

int main(int argc, char **argv) {
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max < 4096 ? files.rlim_max : 4096;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    stress_begin(argc, argv, "dns", "each look-up ends once, with right data or an error that has its cause");
    stress_faults_begin();
    struct stress_rng rng;
    while (stress_next_round(&rng)) one_round(&rng);
    stress_note("answered %" PRIu64 " and %" PRIu64 " backwards (%" PRIu64 " calls of getaddrinfo), not there %" PRIu64
                ", lost or silent %" PRIu64,
                s_get(&right), s_get(&reversed), s_get(&by_getaddrinfo), s_get(&nothing_there), s_get(&lost));
    stress_note("timed out %" PRIu64 ", cancelled %" PRIu64 ", closed %" PRIu64 ", short of something %" PRIu64,
                s_get(&timed_out), s_get(&cancelled), s_get(&closed), s_get(&were_short));
    return stress_end();
}
